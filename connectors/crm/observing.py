"""What people did in the CRM since we last looked: tasks done, moved or deleted, fields edited.

Only what changed is asked for. Where the ledger knows nothing (it is new, or it was lost), all our
tasks and all records are read once: the CRM's own keys and fields tell what was done.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import duckdb

from connectors.crm.comparing import HANDOFF_SHOWN_DAYS
from connectors.crm.ledger import Drift, Ledger
from connectors.crm.settings import CrmSettings, Target, names_of
from connectors.crm.writing import CrmName, CrmWriter, SeenRecord
from contracts.actions import TaskState, is_key_of
from contracts.crm_fields import OBJECTS, CrmObject, written_on

T = TypeVar("T")
Record = tuple[CrmName, str]
"""A record's CRM and its id there."""

TASK = "task"
AT_ONCE = 2000
OVERLAP = dt.timedelta(minutes=10)
"""How far before the last look to ask again: for late commits, and clocks that differ."""
HIDDEN_DAYS = 30
"""So long a task that is missing is asked for again: it may have been hidden, and not deleted."""
FEW_RECORDS = 1000
"""So many records of our own are cheaper to read back than an edit is to miss."""


@dataclass(frozen=True)
class Observed:
    """How many tasks and records had changed, and which of our fields a human edited."""

    tasks: int
    records: int
    drift: tuple[Drift, ...]
    rebuilt: bool


def observe(
    ledger: Ledger,
    writers: Mapping[CrmName, CrmWriter],
    settings: CrmSettings,
    *,
    tenant: str,
    now: dt.datetime,
    accounts: Collection[str] | None = None,
    without_tasks: Collection[CrmName] = (),
    planned: Callable[[], Collection[Record]] = frozenset,
) -> Observed:
    """Read what changed in every CRM into the ledger.

    Args:
        ledger: where it is kept.
        writers: the CRMs.
        settings: `crm.yaml`.
        tenant: whose tasks are ours; a CRM may have those of another company of the same owner.
        now: the company's clock.
        accounts: ask for the open tasks of these alone: what a plan for a few of them needs.
        without_tasks: CRMs whose tasks cannot be asked for, because they lack the key.
        planned: the records that plans are about. Where the ledger knows nothing, it is noted of
            them that they show nothing; others are kept only if they show a value of ours.

    Raises:
        SourceError: a CRM cannot be read; what was read before it is kept.
    """
    rebuilt = False
    tasks = records = 0
    drift: list[Drift] = []
    for crm, writer in writers.items():
        target = settings.targets[crm]
        has_tasks = target.tasks and crm not in without_tasks
        what = (*OBJECTS, TASK) if has_tasks else OBJECTS
        unread = any(ledger.watermark(crm, each) is None for each in what)
        rebuilt = rebuilt or unread
        if accounts is not None and not unread:
            tasks += _tasks_of_accounts(ledger, crm, writer, accounts, now) if has_tasks else 0
            continue
        tasks += _tasks(ledger, crm, writer, tenant, now) if has_tasks else 0
        for object in OBJECTS:
            count, found = _records(ledger, crm, writer, target, object, now, planned)
            records += count
            drift += found
    return Observed(tasks, records, tuple(drift), rebuilt)


def planned_records(connection: duckdb.DuckDBPyConnection, day: dt.date) -> set[Record]:
    """The records that a day's plan may be about: those of its accounts, and of their deals that
    are open or were closed not long ago.
    """
    rows = connection.execute(
        """
        WITH named AS (
            SELECT DISTINCT a.account_id, a.source, a.crm, a.crm_id
            FROM signals.accounts AS a SEMI JOIN plan.desired_accounts AS d
                ON d.account_id = a.account_id AND d.as_of = $day
            WHERE a.superseded_at IS NULL AND a.crm IS NOT NULL AND a.crm_id IS NOT NULL
        )
        SELECT crm, crm_id FROM named
        UNION
        SELECT n.crm, o.opportunity_id
        FROM signals.opportunities AS o JOIN named AS n USING (account_id, source)
        WHERE o.superseded_at IS NULL
            AND (o.closed_at IS NULL OR o.closed_at::DATE > $day - $shown)
        """,
        {"day": day, "shown": HANDOFF_SHOWN_DAYS},
    ).fetchall()
    return {(crm, record_id) for crm, record_id in rows}


def look_later(ledger: Ledger, crms: Sequence[CrmName], *, written: int, now: dt.datetime) -> None:
    """After an apply of very many records: do not read back as news what we wrote ourselves.

    What a human edits in one of our fields during that apply is not reported then. It is not lost
    either: a field is written only when our own value changes.
    """
    if written <= FEW_RECORDS:
        return
    for crm in crms:
        for object in OBJECTS:
            ledger.set_watermark(crm, object, now)


def _tasks(ledger: Ledger, crm: CrmName, writer: CrmWriter, tenant: str, now: dt.datetime) -> int:
    since = ledger.watermark(crm, TASK)
    known = {task.key: task for task in ledger.tasks_of(crm)}
    seen = [
        task
        for task in writer.tasks_changed(since - OVERLAP if since else None)
        if task.key in known or is_key_of(task.key, tenant=tenant, episode=task.episode)
    ]
    told = {task.key for task in seen}
    # A deletion is not told by every CRM: an open task that is not heard of is asked for by key.
    asked = [
        task.key
        for task in known.values()
        if task.key not in told and (task.status == "open" or _may_be_hidden(task, now.date()))
    ]
    ledger.saw_tasks(crm, seen, now)
    count = len(seen) + _by_key(ledger, crm, writer, asked, now)
    if ledger.nameless_owners(crm):  # people's weeks are counted and shown by their names
        ledger.name_owners(crm, {owner.id: owner.name for owner in writer.owners()})
    ledger.set_watermark(crm, TASK, now)
    return count


def _may_be_hidden(task: TaskState, today: dt.date) -> bool:
    """Whether a task is missing, and nobody was seen deleting it."""
    since = task.decided_on or task.opened_on
    return task.status == "deleted" and not task.touched and (today - since).days <= HIDDEN_DAYS


def _tasks_of_accounts(
    ledger: Ledger,
    crm: CrmName,
    writer: CrmWriter,
    accounts: Collection[str],
    now: dt.datetime,
) -> int:
    keys = [
        task.key
        for task in ledger.tasks_of(crm)
        if task.status == "open" and task.account_id in accounts
    ]
    return _by_key(ledger, crm, writer, keys, now)


def _by_key(
    ledger: Ledger, crm: CrmName, writer: CrmWriter, keys: Sequence[str], now: dt.datetime
) -> int:
    count = 0
    for chunk in _chunks(keys, AT_ONCE):
        found = writer.tasks_by_key(chunk)
        count += len(found)
        missing = [key for key in chunk if key not in found]
        ledger.saw_tasks(crm, found.values(), now, missing=missing)
    return count


def _records(
    ledger: Ledger,
    crm: CrmName,
    writer: CrmWriter,
    target: Target,
    object: CrmObject,
    now: dt.datetime,
    planned: Callable[[], Collection[Record]],
) -> tuple[int, list[Drift]]:
    ours = {field.name for field in written_on(object)}
    fields = [name for name in names_of(crm, target, object) if name in ours]
    if not fields:
        ledger.set_watermark(crm, object, now)
        return 0, []
    count, drift = 0, []
    since = ledger.watermark(crm, object)
    adopts = since is None
    wanted = planned() if adopts else ()
    changed = iter(writer.records_changed(object, since - OVERLAP if since else None, fields))
    while seen := list(islice(changed, AT_ONCE)):
        count += len(seen)
        if adopts:
            found = [
                r for r in seen if _shows_us(r) or (_lives(r) and (crm, r.record_id) in wanted)
            ]
            ledger.set_confirmed(found, crm, now)
        drift += ledger.saw_records(crm, seen, now)
    ledger.set_watermark(crm, object, now)
    return count, drift


def _shows_us(record: SeenRecord) -> bool:
    """Whether a record has any of our values: then we wrote it once."""
    return any(value is not None for value in record.values.values())


def _lives(record: SeenRecord) -> bool:
    return not record.gone and record.successor is None


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
