"""What people did in the CRM since we last looked: tasks done, moved or deleted, fields edited.

Only what changed is asked for. Where the ledger knows nothing (it is new, or it was lost), all our
tasks and all records that show our fields are read once: the CRM's own keys tell what was done.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from connectors.crm.ledger import Drift, Ledger
from connectors.crm.settings import CrmSettings, Target, names_of
from connectors.crm.writing import CrmName, CrmWriter, SeenRecord
from contracts.crm_fields import CrmObject, written_on

T = TypeVar("T")

OBJECTS: tuple[CrmObject, ...] = ("account", "opportunity")
AT_ONCE = 2000
OVERLAP = dt.timedelta(minutes=10)
"""How far before the last look to ask again for tasks: for late commits, and clocks that differ."""


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
    now: dt.datetime,
    accounts: Collection[str] | None = None,
) -> Observed:
    """Read what changed in every CRM into the ledger.

    With `accounts` only the open tasks of these are asked for: what a plan for a few of them needs.

    Raises:
        SourceError: a CRM cannot be read; what was read before it is kept.
    """
    rebuilt = ledger.is_empty()
    tasks = records = 0
    drift: list[Drift] = []
    for crm, writer in writers.items():
        target = settings.targets[crm]
        if accounts is not None and not rebuilt:
            tasks += _tasks_of_accounts(ledger, crm, writer, accounts, now)
            continue
        if target.tasks:
            tasks += _tasks(ledger, crm, writer, now)
        if target.tasks and rebuilt and tasks:  # people's weeks are counted by their names
            ledger.name_owners(crm, {owner.id: owner.name for owner in writer.owners()})
        for object in OBJECTS:
            count, found = _records(ledger, crm, writer, target, object, now, rebuilt=rebuilt)
            records += count
            drift += found
    return Observed(tasks, records, tuple(drift), rebuilt)


def look_later(ledger: Ledger, crms: Sequence[CrmName], *, now: dt.datetime) -> None:
    """After an apply: do not read back as news what we wrote ourselves.

    What a human edits in one of our fields during the apply is not reported then. It is not lost
    either: a field is written only when our own value changes.
    """
    for crm in crms:
        for object in OBJECTS:
            ledger.set_watermark(crm, object, now)


def _tasks(ledger: Ledger, crm: CrmName, writer: CrmWriter, now: dt.datetime) -> int:
    since = ledger.watermark(crm, "task")
    seen = list(writer.tasks_changed(since - OVERLAP if since else None))
    told = {task.key for task in seen}
    # A deletion is not told by every CRM: an open task that is not heard of is asked for by key.
    open_ones = [
        task.key for task in ledger.tasks_of(crm) if task.status == "open" and task.key not in told
    ]
    ledger.saw_tasks(crm, seen, now)
    ledger.set_watermark(crm, "task", now)
    return len(seen) + _by_key(ledger, crm, writer, open_ones, now)


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
    *,
    rebuilt: bool,
) -> tuple[int, list[Drift]]:
    ours = {field.name for field in written_on(object)}
    fields = [name for name in names_of(crm, target, object) if name in ours]
    if not fields:
        return 0, []
    count, drift = 0, []
    changed = iter(writer.records_changed(object, ledger.watermark(crm, object), fields))
    while seen := list(islice(changed, AT_ONCE)):
        count += len(seen)
        if rebuilt:
            ledger.set_confirmed((r for r in seen if _shows_us(r)), crm, now)
        drift += ledger.saw_records(crm, seen, now)
    ledger.set_watermark(crm, object, now)
    return count, drift


def _shows_us(record: SeenRecord) -> bool:
    """Whether a record has any of our values: then we wrote it once."""
    return any(value is not None for value in record.values.values())


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
