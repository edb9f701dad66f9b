"""Batches in the ledger: begun before a call, ended after it, and open where nobody knows."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from connectors.crm.ledger_results import keep_results
from connectors.crm.ledger_rows import chunks, intent_of
from connectors.crm.ledger_tables import attempts, batches, intents, tasks, whole_intents
from connectors.crm.plans import Ended, IntentState, Method, OpenBatch
from contracts.errors import HeldError, LedgerError

RECORDS_AT_ONCE = 5000

_mine = (intents.c.plan_id == sa.bindparam("of_plan")) & (intents.c.number == sa.bindparam("of"))
_ENDING = ("state", "reason", "crm_id")
_ending: dict[str, Any] = {name: sa.bindparam(f"to_{name}") for name in _ENDING}
_end_intents = sa.update(intents).where(_mine).values(_ending)
_end_attempts = (
    sa.update(attempts)
    .where(attempts.c.batch_id == sa.bindparam("of_batch"), attempts.c.number == sa.bindparam("of"))
    .values(_ending)
)


def begin(
    connection: sa.Connection, plan_id: str, numbers: Sequence[int], method: Method, at: dt.datetime
) -> int:
    """A new batch of these intents, which are `sent` from here on; returns its id."""
    batch = {"plan_id": plan_id, "method": method, "begun_at": at}
    made = connection.execute(sa.insert(batches).values(batch)).inserted_primary_key
    assert made is not None
    batch_id: int = made[0]
    rows = [{"batch_id": batch_id, "number": number, "reason": ""} for number in numbers]
    connection.execute(sa.insert(attempts), rows)
    taken = connection.execute(
        sa.update(intents)
        .where(_in_batch(plan_id, batch_id), intents.c.state == "planned")
        .values(state="sent", attempts=intents.c.attempts + 1, reason="")
    ).rowcount
    if taken != len(numbers):
        raise LedgerError(
            f"{len(numbers) - taken} records of plan {plan_id} were to be sent a second time",
            "report it: nothing of this call was sent",
        )
    return batch_id


def finish(
    connection: sa.Connection, batch_id: int, ends: Sequence[Ended], at: dt.datetime
) -> None:
    """Keep how each record of a batch ended, and what follows from it."""
    batch = connection.execute(sa.select(batches).where(batches.c.id == batch_id)).one()
    if batch.ended_at is not None:
        raise HeldError(
            f"another run has already ended batch {batch_id}", "let it end, then run again"
        )
    numbers = sa.select(attempts.c.number).where(attempts.c.batch_id == batch_id)
    sent = connection.execute(numbers).scalars().all()
    if sorted(end.number for end in ends) != sorted(sent):
        raise LedgerError(
            f"batch {batch_id} does not add up: {len(sent)} records, {len(ends)} results",
            "report it",
        )
    alike = {(end.state, end.reason, end.crm_id) for end in ends}
    if len(alike) == 1:  # which is a hundred times faster for a bulk job
        values = dict(zip(_ENDING, alike.pop(), strict=True))
        of_batch = _in_batch(batch.plan_id, batch_id)
        connection.execute(sa.update(intents).where(of_batch).values(values))
        here = attempts.c.batch_id == batch_id
        connection.execute(sa.update(attempts).where(here).values(values))
    else:
        settle(connection, batch.plan_id, ends)
        connection.execute(_end_attempts, [_row(end, of_batch=batch_id) for end in ends])
    for some in chunks(ends, RECORDS_AT_ONCE):  # a job's records are too many for the memory
        rows = connection.execute(
            whole_intents.where(
                intents.c.plan_id == batch.plan_id,
                intents.c.number.in_([end.number for end in some]),
            )
        ).all()
        by_number = {row.number: intent_of(row) for row in rows}
        keep_results(connection, [(by_number[end.number], end) for end in some], at)
    connection.execute(sa.update(batches).where(batches.c.id == batch_id).values(ended_at=at))


def settle(connection: sa.Connection, plan_id: str, ends: Sequence[Ended]) -> None:
    """Set how intents ended."""
    if ends:
        connection.execute(_end_intents, [_row(end, of_plan=plan_id) for end in ends])


def forget_tasks(connection: sa.Connection, plan_id: str, ends: Sequence[Ended]) -> None:
    """Tasks of records that were deleted were never sent, and never will be."""
    for end in ends:
        if end.gone:
            key = sa.select(intents.c.key).where(
                intents.c.plan_id == plan_id, intents.c.number == end.number
            )
            connection.execute(
                sa.update(tasks)
                .where(tasks.c.key == key.scalar_subquery(), tasks.c.status == "planned")
                .values(status="closed")
            )


def park(connection: sa.Connection, batch_id: int, reason: str) -> None:
    """Put off the records of a batch, which stays open: its outcome is asked for next time."""
    plan_id = sa.select(batches.c.plan_id).where(batches.c.id == batch_id).scalar_subquery()
    state: IntentState = "deferred"
    connection.execute(
        sa.update(intents).where(_in_batch(plan_id, batch_id)).values(state=state, reason=reason)
    )


def still_open(connection: sa.Connection) -> list[OpenBatch]:
    """Batches without an end, oldest first, with their intents."""
    found = []
    rows = connection.execute(
        sa.select(batches).where(batches.c.ended_at.is_(None)).order_by(batches.c.id)
    ).all()
    for row in rows:
        of_batch = connection.execute(
            whole_intents.where(_in_batch(row.plan_id, row.id)).order_by(intents.c.number)
        )
        found.append(
            OpenBatch(
                batch_id=str(row.id),
                plan_id=row.plan_id,
                method=row.method,
                job_id=row.job_id,
                begun_at=row.begun_at,
                intents=tuple(intent_of(intent) for intent in of_batch),
            )
        )
    return found


def _in_batch(plan_id: Any, batch_id: int) -> sa.ColumnElement[bool]:
    numbers = sa.select(attempts.c.number).where(attempts.c.batch_id == batch_id)
    return (intents.c.plan_id == plan_id) & intents.c.number.in_(numbers)


def _row(end: Ended, **of: Any) -> dict[str, Any]:
    return {
        "of": end.number, "to_state": end.state, "to_reason": end.reason, "to_crm_id": end.crm_id,
        **of,
    }  # fmt: skip
