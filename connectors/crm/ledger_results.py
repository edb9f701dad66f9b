"""What the ledger keeps of an answer: confirmed values, tasks, tombstones, rejections."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.crm.ledger_rows import chunks, dumps, key_of
from connectors.crm.ledger_tables import confirmed, drift, rejections, tasks, tombstones, upsert
from connectors.crm.plans import Ended, Intent
from connectors.crm.writing import CrmName
from contracts.crm_fields import CrmObject

RecordKey = tuple[CrmName, CrmObject, str]
Values = dict[str, str | None]


def keep_results(
    connection: sa.Connection,
    ends: Sequence[tuple[Intent, Ended]],
    at: dt.datetime,
) -> None:
    """Keep what follows from how intents ended, in the transaction in which they end."""
    fields = [(intent, end) for intent, end in ends if intent.kind == "fields"]
    written = {_record(i): i.changes.values() for i, end in fields if end.state == "written"}
    rejected = {
        _record(i): (i.changes.values(), end.reason) for i, end in fields if end.state == "rejected"
    }
    confirm(connection, written, at)
    _keep_rejections(connection, written, rejected, at)
    _keep_tasks(connection, [(i, end) for i, end in ends if i.kind != "fields"], at)
    lost = {
        (intent.crm, intent.record_id): end.successor
        for intent, end in ends
        if intent.kind != "close_task" and (end.gone or end.successor)
    }
    bury(connection, lost, at)


def confirm(
    connection: sa.Connection,
    written: Mapping[RecordKey, Mapping[str, str | None]],
    at: dt.datetime,
) -> None:
    """Add what the CRM acknowledged to what it had acknowledged; what a human edited is past."""
    known = shown_of(connection, confirmed, "shown", list(written))
    rows = [
        {
            "crm": crm, "object": object, "record_id": record_id,
            "shown": dumps({**known.get((crm, object, record_id), {}), **values}),
            "confirmed_at": at,
        }
        for (crm, object, record_id), values in written.items()
    ]  # fmt: skip
    upsert(connection, confirmed, rows)
    if not _is_empty(connection, drift):
        forget_drift(connection, [(key, name) for key, new in written.items() for name in new])


def _is_empty(connection: sa.Connection, table: sa.Table) -> bool:
    return connection.execute(sa.select(table.c.crm).limit(1)).first() is None


def forget_drift(connection: sa.Connection, fields: Sequence[tuple[RecordKey, str]]) -> None:
    """These fields show again what we wrote last."""
    if not fields:
        return
    columns = (drift.c.crm, drift.c.object, drift.c.record_id, drift.c.field)
    one = sa.and_(*(column == sa.bindparam(f"of_{column.name}") for column in columns))
    names = [f"of_{column.name}" for column in columns]
    connection.execute(
        sa.delete(drift).where(one),
        [dict(zip(names, (*key, field), strict=True)) for key, field in fields],
    )


def shown_of(
    connection: sa.Connection, table: sa.Table, column: str, records: Sequence[RecordKey]
) -> dict[RecordKey, Values]:
    """The JSON of a column by record, for those records that the table has."""
    found: dict[RecordKey, Values] = {}
    kinds: dict[tuple[CrmName, CrmObject], list[str]] = {}
    for crm, object, record_id in records:
        kinds.setdefault((crm, object), []).append(record_id)
    for (crm, object), ids in kinds.items():
        for some in chunks(ids):
            rows = connection.execute(
                sa.select(table.c.record_id, table.c[column]).where(
                    table.c.crm == crm, table.c.object == object, table.c.record_id.in_(some)
                )
            )
            found.update({(crm, object, row[0]): orjson.loads(row[1]) for row in rows})
    return found


def bury(
    connection: sa.Connection,
    lost: Mapping[tuple[CrmName, str], str | None],
    at: dt.datetime,
) -> None:
    """Keep which records are deleted or merged away.

    What a merged record showed says nothing of what its successor shows, so it is forgotten: the
    successor is written whole. Its tasks moved with it, and stay as they are; what was not sent yet
    is never sent.
    """
    rows = [
        {"crm": crm, "record_id": record_id, "successor": successor, "seen_at": at}
        for (crm, record_id), successor in lost.items()
    ]
    upsert(connection, tombstones, rows)
    for (crm, record_id), successor in lost.items():
        of_it = (tasks.c.crm == crm) & (tasks.c.record_id == record_id)
        connection.execute(
            sa.update(tasks).where(of_it, tasks.c.status == "planned").values(status="closed")
        )
        if successor is None:
            continue
        connection.execute(sa.update(tasks).where(of_it).values(record_id=successor))
        for table in (confirmed, rejections, drift):
            connection.execute(
                sa.delete(table).where(table.c.crm == crm, table.c.record_id == record_id)
            )


def _record(intent: Intent) -> RecordKey:
    assert intent.object is not None
    return intent.crm, intent.object, intent.record_id


def _keep_rejections(
    connection: sa.Connection,
    written: Mapping[RecordKey, Values],
    rejected: Mapping[RecordKey, tuple[Values, str]],
    at: dt.datetime,
) -> None:
    if not rejected and _is_empty(connection, rejections):
        return
    known = shown_of(connection, rejections, "refused", [*written, *rejected])
    rows = []
    for (crm, object, record_id), (values, reason) in rejected.items():
        refused = {**known.get((crm, object, record_id), {}), **values}
        rows.append(_rejection(crm, object, record_id, refused, reason, at))
    for key, values in written.items():
        if key in known:  # what is written now is refused no more
            left = {name: value for name, value in known[key].items() if name not in values}
            rows.append(_rejection(*key, left, "", at))
    if rows:
        upsert(connection, rejections, rows)
        connection.execute(sa.delete(rejections).where(rejections.c.refused == "{}"))


def forget_refusals(connection: sa.Connection, refused: Sequence[Intent], at: dt.datetime) -> None:
    """What these intents write may be offered again, as if it had never been refused."""
    fields = {_record(i): i.changes.values() for i in refused if i.kind == "fields"}
    _keep_rejections(connection, fields, {}, at)
    tasks_of = [{"of": key_of(intent)} for intent in refused if intent.task]
    _changer(connection)(tasks_of, {"rejected": None, "rejected_at": None})


def _rejection(
    crm: CrmName, object: CrmObject, record_id: str, refused: Values, reason: str, at: dt.datetime
) -> dict[str, Any]:
    return {
        "crm": crm, "object": object, "record_id": record_id,
        "refused": dumps(refused), "reason": reason, "rejected_at": at,
    }  # fmt: skip


def _keep_tasks(
    connection: sa.Connection, ends: Sequence[tuple[Intent, Ended]], at: dt.datetime
) -> None:
    opened = [_opened(i, end) for i, end in ends if i.task and end.state == "written"]
    closed = [{"of": key_of(i)} for i, end in ends if i.closing and end.state == "written"]
    deleted = [{"of": key_of(i)} for i, end in ends if i.closing and end.gone]
    rejected = [
        {"of": key_of(i), "why": end.reason, "moment": at}
        for i, end in ends
        if i.task and end.state == "rejected"
    ]
    change = _changer(connection)
    change(opened, {name: sa.bindparam(f"to_{name}") for name in _WRITTEN} | _OPENED)
    change(closed, {"status": "closed"})
    change(deleted, {"status": "deleted", "touched": True})
    change(rejected, _REJECTED)


_WRITTEN = ("crm", "record_id", "task_id", "subject", "due_on", "owner_id")
_REJECTED: dict[str, Any] = {
    "rejected": sa.bindparam("why"),
    "rejected_at": sa.bindparam("moment"),
}
_OPENED: dict[str, Any] = {
    "status": "open",
    "subject_now": None,
    "due_on_now": None,
    "owner_id_now": None,
    "owner_now": None,
    "rejected": None,
    "rejected_at": None,
}


def _opened(intent: Intent, end: Ended) -> dict[str, Any]:
    task = intent.task
    assert task is not None
    return {
        "of": task.key, "to_crm": intent.crm, "to_record_id": intent.record_id,
        "to_task_id": end.crm_id, "to_subject": task.subject, "to_due_on": task.due_on,
        "to_owner_id": task.owner_id,
    }  # fmt: skip


def _changer(
    connection: sa.Connection,
) -> Callable[[list[dict[str, Any]], dict[str, Any]], None]:
    def change(rows: list[dict[str, Any]], values: dict[str, Any]) -> None:
        if rows:
            statement = sa.update(tasks).where(tasks.c.key == sa.bindparam("of")).values(values)
            connection.execute(statement, rows)

    return change
