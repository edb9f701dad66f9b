"""The ledger: every write that was planned, sent and acknowledged, and what people did since.

It is what makes a write happen once. A batch is committed before it is sent and again when it was
answered; one that is found without an answer is read back before anything is sent again. It is kept
in SQLite (`state/ledger.sqlite`) or in PostgreSQL, by URL. All moments are UTC and are given.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import orjson
import pyarrow as pa
import sqlalchemy as sa

from connectors.collecting import rarely_collecting
from connectors.crm import ledger_batches, ledger_plans, ledger_seen
from connectors.crm.lease import Lease, held_lease
from connectors.crm.ledger_results import confirm, forget_fields, forget_refusals, shown_of
from connectors.crm.ledger_rows import (
    body_of,
    episode_of,
    intent_of,
    plan_of,
    task_of,
)
from connectors.crm.ledger_tables import (
    approvals,
    batches,
    bodies,
    confirmed,
    drift,
    episodes,
    explained,
    intents,
    make_tables,
    open_engine,
    place_of,
    places,
    plans,
    rejections,
    tasks,
    tombstones,
    upsert,
    watermarks,
    whole_intents,
)
from connectors.crm.plans import (
    Drift,
    Ended,
    Intent,
    IntentKind,
    IntentState,
    Method,
    OpenBatch,
    Plan,
    PlanStatus,
    Refusal,
)
from connectors.crm.writing import CrmName, SeenRecord, SeenTask
from contracts.actions import Episode, TaskState
from contracts.crm_fields import CrmObject
from contracts.errors import NotFoundError

ROWS_AT_ONCE = 10_000


class Ledger:
    """One ledger; a context manager that lets go of its connections.

    Every method that changes something is one transaction. All may raise `LedgerError`: the
    database is locked, full, damaged or of another version; then nothing of the call was kept.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._place = place_of(self._engine)
        with self._write() as connection:
            make_tables(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with explained(self._place), self._engine.connect() as connection:
            connection.execution_options(writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with explained(self._place), self._engine.connect() as connection, connection.begin():
            yield connection

    def lease(
        self, *, holder: str, now: Callable[[], dt.datetime], seconds: float
    ) -> AbstractContextManager[Lease]:
        """The right to write into the CRMs, for one run at a time.

        A lease that is past its end is taken over: whoever had it is dead, or will find it lost.

        Raises:
            LeaseHeld: another run has it.
        """
        return held_lease(self._write, holder=holder, now=now, seconds=seconds)

    # Plans

    @rarely_collecting()
    def store(self, plan: Plan, intents_of: Iterable[Intent]) -> None:
        """Keep a plan with its intents; older plans that wait are superseded."""
        with self._write() as connection:
            ledger_plans.store(connection, plan, list(intents_of))

    def plan(self, plan_id: str) -> Plan:
        """A plan by its id.

        Raises:
            NotFoundError: there is none; the newest are named.
        """
        with self._read() as connection:
            row = connection.execute(sa.select(plans).where(plans.c.plan_id == plan_id)).first()
        if row is None:
            newest = ", ".join(plan.plan_id for plan in self.plans(3))
            remedy = f"the newest are {newest}" if newest else "make one: `healthloop plan`"
            raise NotFoundError(f"there is no plan '{plan_id}'", remedy)
        return plan_of(row)

    def plans(self, limit: int = 20) -> list[Plan]:
        """The newest plans, newest first."""
        with self._read() as connection:
            rows = connection.execute(_newest_first(sa.select(plans)).limit(limit))
            return [plan_of(row) for row in rows]

    def newest(self, *statuses: PlanStatus) -> Plan | None:
        """The newest plan, of these statuses if any are given."""
        query = _newest_first(sa.select(plans)).limit(1)
        if statuses:
            query = query.where(plans.c.status.in_(statuses))
        with self._read() as connection:
            row = connection.execute(query).first()
        return plan_of(row) if row else None

    def intents(self, plan_id: str, *states: IntentState) -> list[Intent]:
        """The intents of a plan by number, in these states if any are given."""
        query = whole_intents.where(intents.c.plan_id == plan_id).order_by(intents.c.number)
        if states:
            query = query.where(intents.c.state.in_(states))
        with self._read() as connection:
            return [intent_of(row) for row in connection.execute(query)]

    def counts(self, plan_id: str) -> dict[tuple[IntentKind, IntentState], int]:
        """How many intents of a plan there are, by kind and state."""
        query = (
            sa.select(intents.c.kind, intents.c.state, sa.func.count())
            .where(intents.c.plan_id == plan_id)
            .group_by(intents.c.kind, intents.c.state)
        )
        with self._read() as connection:
            return {(kind, state): count for kind, state, count in connection.execute(query)}

    def written_after(self, made_at: dt.datetime) -> set[tuple[CrmName, CrmObject, str]]:
        """The records of which plans that were made after a moment have written fields."""
        query = (
            sa.select(intents.c.crm, intents.c.object, intents.c.record_id)
            .join(plans, plans.c.plan_id == intents.c.plan_id)
            .where(plans.c.made_at > made_at, plans.c.status == "applied")
            .where(intents.c.kind == "fields", intents.c.state == "written")
        )
        with self._read() as connection:
            return {(row[0], row[1], row[2]) for row in connection.execute(query)}

    def reasons(self, plan_id: str, state: IntentState) -> dict[tuple[CrmName, str], int]:
        """Why intents of a plan ended so: how many, by CRM and reason."""
        query = (
            sa.select(intents.c.crm, intents.c.reason, sa.func.count())
            .where(intents.c.plan_id == plan_id, intents.c.state == state)
            .group_by(intents.c.crm, intents.c.reason)
            .order_by(intents.c.crm, sa.func.count().desc(), intents.c.reason)
        )
        with self._read() as connection:
            return {(crm, reason): count for crm, reason, count in connection.execute(query)}

    def judge(
        self,
        plan_id: str,
        status: PlanStatus,
        *,
        by: str,
        at: dt.datetime,
        reasons: Sequence[str] = (),
    ) -> None:
        """Approve, drop or hold a plan that waits, and keep who did it.

        Raises:
            NotFoundError: there is no such plan, or it waits no more.
        """
        with self._write() as connection:
            judged = ledger_plans.judge(connection, plan_id, status, by, at, reasons)
        if not judged:
            found = self.plan(plan_id)
            raise NotFoundError(
                f"plan {plan_id} does not wait: it is {found.status}", "make a new one"
            )

    def approvals(self, plan_id: str) -> list[tuple[str, str, dt.datetime]]:
        """Every verdict on a plan: what, by whom, when."""
        query = sa.select(approvals.c.verdict, approvals.c.by, approvals.c.at).where(
            approvals.c.plan_id == plan_id
        )
        with self._read() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(query)]

    def begin_plan(self, plan_id: str, at: dt.datetime) -> None:
        """Keep the episodes and tasks that a plan decided, before anything of it is sent.

        A second time nothing happens. A task that the CRM has already stays as it is there, and an
        episode that is closed stays closed.
        """
        plan = self.plan(plan_id)
        with self._write() as connection:
            ledger_plans.begin(connection, plan, at)

    def end_plan(self, plan_id: str, at: dt.datetime) -> None:
        """Say that a plan was carried out.

        Raises:
            LedgerError: planned is not written + rejected + deferred + skipped, of some kind.
        """
        counts = self.counts(plan_id)
        with self._write() as connection:
            ledger_plans.end(connection, plan_id, counts, at)

    def forget(self, before: dt.datetime) -> int:
        """Drop, record by record, what plans of before a moment planned and sent.

        Only of plans that are over; what the CRM acknowledged, tasks, episodes and verdicts stay.
        Returns how many plans it was.
        """
        with self._write() as connection:
            return ledger_plans.forget(connection, before)

    # Sending

    def begin_batch(
        self, plan_id: str, numbers: Sequence[int], *, method: Method, at: dt.datetime
    ) -> str:
        """Keep that these intents are being sent, before they are; returns the batch's id.

        Raises:
            LedgerError: one of them is not planned (any more).
        """
        with self._write() as connection:
            return str(ledger_batches.begin(connection, plan_id, numbers, method, at))

    def note_job(self, batch_id: str, job_id: str) -> None:
        """Keep the id of a batch's bulk job, before anything is uploaded to it."""
        with self._write() as connection:
            of_batch = batches.c.id == int(batch_id)
            connection.execute(sa.update(batches).where(of_batch).values(job_id=job_id))

    def finish_batch(self, batch_id: str, results: Sequence[Ended], at: dt.datetime) -> None:
        """Keep what became of each record of a batch, and everything that follows from it.

        Raises:
            HeldError: another run has ended it.
            LedgerError: there is not one result for each record.
        """
        with self._write() as connection:
            ledger_batches.finish(connection, int(batch_id), results, at)

    def park_batch(self, batch_id: str, reason: str) -> None:
        """Put off the records of a batch, which stays open: `sent` gives it again next time."""
        with self._write() as connection:
            ledger_batches.park(connection, int(batch_id), reason)

    def sent(self) -> list[OpenBatch]:
        """Batches of which nobody knows how they ended, oldest first, with their intents."""
        with self._read() as connection:
            return ledger_batches.still_open(connection)

    def settle(self, plan_id: str, ends: Sequence[Ended]) -> None:
        """Keep how intents ended that were never sent: skipped or deferred."""
        with self._write() as connection:
            ledger_batches.settle(connection, plan_id, ends)
            ledger_batches.forget_tasks(connection, plan_id, ends)

    def withdraw_refusals(self, plan_id: str, refused: Sequence[Intent], reason: str) -> None:
        """Put off intents that were refused for what is no fault of their own records."""
        with self._write() as connection:
            deferred = [Ended(intent.number, "deferred", reason) for intent in refused]
            ledger_batches.settle(connection, plan_id, deferred)
            forget_refusals(connection, refused)

    def reassign(self, plan_id: str, intent: Intent) -> None:
        """Keep an intent's task with its new owner, before it is sent to that one."""
        with self._write() as connection:
            connection.execute(
                sa.update(bodies)
                .where(bodies.c.plan_id == plan_id, bodies.c.number == intent.number)
                .values(body=body_of(intent))
            )

    # What is known of the CRM

    def confirmed(self) -> Iterator[pa.Table]:
        """Everything that the CRMs acknowledged, in parts.

        Each is a table of crm, object, record_id and `values`, as JSON.
        """
        names = ("crm", "object", "record_id", "values")
        query = sa.select(
            confirmed.c.crm, confirmed.c.object, confirmed.c.record_id, confirmed.c.shown
        ).execution_options(yield_per=ROWS_AT_ONCE)
        with self._read() as connection:
            for rows in connection.execute(query).partitions():
                columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
                yield pa.table(columns, names)

    def set_confirmed(self, records: Iterable[SeenRecord], crm: CrmName, at: dt.datetime) -> None:
        """Take what records show for what was acknowledged, of those of which nothing is known."""
        shown = {(crm, record.object, record.record_id): record.values for record in records}
        with self._write() as connection:
            known = shown_of(connection, confirmed, "shown", list(shown))
            new = {key: values for key, values in shown.items() if key not in known}
            confirm(connection, new, at)

    def rejections(
        self, *, since: dt.datetime | None = None
    ) -> dict[tuple[CrmName, CrmObject, str], dict[str, str | None]]:
        """Values that a CRM refused, by record and field; with `since` only if it was after that.

        What was refused long ago may be offered again: a right may be back, a rule mended.
        """
        query = sa.select(rejections)
        if since is not None:
            query = query.where(rejections.c.rejected_at >= since)
        with self._read() as connection:
            return {
                (row.crm, row.object, row.record_id): orjson.loads(row.refused)
                for row in connection.execute(query)
            }

    def refusals(self) -> list[Refusal]:
        """The records that refuse values of ours, and why."""
        query = sa.select(rejections).order_by(rejections.c.crm, rejections.c.record_id)
        with self._read() as connection:
            return [
                Refusal(
                    row.crm, row.object, row.record_id, tuple(orjson.loads(row.refused)), row.reason
                )
                for row in connection.execute(query)
            ]

    def episodes(self) -> list[Episode]:
        """Every episode that there was."""
        query = sa.select(episodes).order_by(
            episodes.c.opened_on, episodes.c.account_id, episodes.c.playbook
        )
        with self._read() as connection:
            return [episode_of(row) for row in connection.execute(query)]

    def tasks(self) -> list[TaskState]:
        """Every task that was decided, as it is known now."""
        with self._read() as connection:
            rows = connection.execute(sa.select(tasks).order_by(tasks.c.opened_on, tasks.c.key))
            return [task_of(row) for row in rows]

    def tasks_of(self, crm: CrmName) -> list[TaskState]:
        """The tasks of one CRM."""
        query = sa.select(tasks).where(tasks.c.crm == crm).order_by(tasks.c.opened_on, tasks.c.key)
        with self._read() as connection:
            return [task_of(row) for row in connection.execute(query)]

    def crm_of_tasks(self) -> dict[str, CrmName]:
        """The CRM of each task, by key."""
        query = sa.select(tasks.c.key, tasks.c.crm).where(tasks.c.crm.is_not(None))
        with self._read() as connection:
            return {row.key: row.crm for row in connection.execute(query)}

    def rejected_tasks(self, *, since: dt.datetime | None = None) -> dict[str, str]:
        """Why a CRM refused tasks or their closing, by key; with `since` only if after that."""
        query = sa.select(tasks.c.key, tasks.c.rejected).where(tasks.c.rejected.is_not(None))
        if since is not None:
            query = query.where(tasks.c.rejected_at >= since)
        with self._read() as connection:
            return {row.key: row.rejected for row in connection.execute(query)}

    def carried(self, *, rejected_before: dt.datetime | None = None) -> list[Intent]:
        """Tasks that were decided and that no CRM has, as they were planned last.

        One that a CRM refused is left out, unless that was before `rejected_before`.
        """
        again: sa.ColumnElement[bool] = tasks.c.rejected_at.is_(None)
        if rejected_before is not None:
            again = again | (tasks.c.rejected_at < rejected_before)
        query = (
            whole_intents.join(plans, plans.c.plan_id == intents.c.plan_id)
            .join(tasks, tasks.c.key == intents.c.key)
            .where(intents.c.kind == "open_task", tasks.c.status == "planned", again)
            .order_by(plans.c.id)
        )
        with self._read() as connection:
            last = {row.key: intent_of(row) for row in connection.execute(query)}
        return list(last.values())

    def saw_tasks(
        self,
        crm: CrmName,
        seen: Iterable[SeenTask],
        at: dt.datetime,
        *,
        missing: Iterable[str] = (),
    ) -> None:
        """Keep how our tasks are in the CRM now: what people did with them.

        A task that the ledger does not know (it was lost) is adopted with its episode. `missing`
        are keys that the CRM was asked for and does not have: of open tasks, they were deleted.
        """
        with self._write() as connection:
            ledger_seen.keep_tasks(connection, crm, list(seen))
            ledger_seen.keep_missing(connection, list(missing))

    def saw_records(self, crm: CrmName, seen: Iterable[SeenRecord], at: dt.datetime) -> list[Drift]:
        """Keep which records are gone or merged, and which of our fields somebody edited.

        Returns the edits that were not told before.
        """
        with self._write() as connection:
            return ledger_seen.keep_records(connection, crm, seen, at)

    def nameless_owners(self, crm: CrmName) -> set[str]:
        """Who owns tasks that were adopted or handed on, and has no name yet, by id in the CRM."""
        with self._read() as connection:
            return ledger_seen.nameless_owners(connection, crm)

    def name_owners(self, crm: CrmName, names: Mapping[str, str]) -> None:
        """Say by name who owns those tasks."""
        with self._write() as connection:
            ledger_seen.name_owners(connection, crm, names)

    def drift(self) -> list[Drift]:
        """Every field of ours that shows what somebody else wrote."""
        query = sa.select(drift).order_by(drift.c.crm, drift.c.object, drift.c.record_id)
        with self._read() as connection:
            return [Drift(**row._mapping) for row in connection.execute(query)]

    def tombstones(self) -> dict[tuple[CrmName, str], str | None]:
        """Records that are deleted (None) or merged, with the id of the one that lives on."""
        with self._read() as connection:
            return {
                (row.crm, row.record_id): row.successor
                for row in connection.execute(sa.select(tombstones))
            }

    def watermark(self, crm: CrmName, what: str) -> dt.datetime | None:
        """Up to when something of a CRM was read; None where it never was."""
        query = sa.select(watermarks.c.moment).where(
            watermarks.c.crm == crm, watermarks.c.what == what
        )
        with self._read() as connection:
            return connection.execute(query).scalar()

    def set_watermark(self, crm: CrmName, what: str, moment: dt.datetime) -> None:
        """Keep up to when something of a CRM was read."""
        with self._write() as connection:
            upsert(connection, watermarks, [{"crm": crm, "what": what, "moment": moment}])

    def places(self, crm: CrmName) -> dict[str, str]:
        """The organisation of a CRM, and the name of each field there, as they were last."""
        query = sa.select(places.c.what, places.c.name).where(places.c.crm == crm)
        with self._read() as connection:
            return {row.what: row.name for row in connection.execute(query)}

    def set_places(
        self, crm: CrmName, now: Mapping[str, str], *, moved: Iterable[tuple[CrmObject, str]]
    ) -> None:
        """Keep where values are, and forget what is known of fields that have another name now."""
        rows = [{"crm": crm, "what": what, "name": name} for what, name in now.items()]
        with self._write() as connection:
            upsert(connection, places, rows)
            forget_fields(connection, crm, moved)


def _newest_first(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.order_by(plans.c.made_at.desc(), plans.c.id.desc())
