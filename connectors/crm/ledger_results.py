"""What the ledger keeps of an answer: confirmed values, tasks, tombstones, rejections."""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def forget_fields(
    connection: sa.Connection, crm: CrmName, fields: Iterable[tuple[CrmObject, str]]
) -> None:
    """What any record acknowledged or refused in these fields, and who edited them, is past."""
    for object, field in fields:
        for table, column in ((confirmed, "shown"), (rejections, "refused")):
            of_object = (table.c.crm == crm) & (table.c.object == object)
            rows = connection.execute(
                sa.select(table.c.record_id, table.c[column]).where(of_object)
            )
            left = [
                {"of": record_id, "left": dumps({n: v for n, v in known.items() if n != field})}
                for record_id, text in rows
                if field in (known := orjson.loads(text))
            ]
            if left:
                of_record = of_object & (table.c.record_id == sa.bindparam("of"))
                values: dict[str, Any] = {column: sa.bindparam("left")}
                connection.execute(sa.update(table).where(of_record).values(values), left)
        edited = (drift.c.crm == crm) & (drift.c.object == object) & (drift.c.field == field)
        connection.execute(sa.delete(drift).where(edited))


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
    goes to the successor. On a deleted record it is never sent.
    """
    rows = [
        {"crm": crm, "record_id": record_id, "successor": successor, "seen_at": at}
        for (crm, record_id), successor in lost.items()
    ]
    upsert(connection, tombstones, rows)
    for (crm, record_id), successor in lost.items():
        of_it = (tasks.c.crm == crm) & (tasks.c.record_id == record_id)
        if successor is None:
            unsent = sa.update(tasks).where(of_it, tasks.c.status == "planned")
            connection.execute(unsent.values(status="closed"))
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
    at: dt.datetime | None = None,
) -> None:
    if not rejected and _is_empty(connection, rejections):
        return
    known = shown_of(connection, rejections, "refused", [*written, *rejected])
    upsert(
        connection,
        rejections,
        [
            {
                "crm": crm, "object": object, "record_id": record_id, "reason": reason,
                "refused": dumps({**known.get((crm, object, record_id), {}), **values}),
                "rejected_at": at,
            }
            for (crm, object, record_id), (values, reason) in rejected.items()
        ],
    )  # fmt: skip
    # What is written now is refused no more; the rest still is, since when it was refused.
    left = [
        {
            "of_crm": key[0], "of_object": key[1], "of_record_id": key[2],
            "left": dumps({name: text for name, text in known[key].items() if name not in values}),
        }
        for key, values in written.items()
        if key in known
    ]  # fmt: skip
    if left:
        columns = (rejections.c.crm, rejections.c.object, rejections.c.record_id)
        of_record = sa.and_(*(column == sa.bindparam(f"of_{column.name}") for column in columns))
        statement = sa.update(rejections).where(of_record).values(refused=sa.bindparam("left"))
        connection.execute(statement, left)
        connection.execute(sa.delete(rejections).where(rejections.c.refused == "{}"))


def forget_refusals(connection: sa.Connection, refused: Sequence[Intent]) -> None:
    """What these intents write may be offered again, as if it had never been refused."""
    fields = {_record(i): i.changes.values() for i in refused if i.kind == "fields"}
    _keep_rejections(connection, fields, {})
    tasks_of = [{"of": key_of(intent)} for intent in refused if intent.kind != "fields"]
    _changer(connection)(tasks_of, _NOT_REFUSED)


def _keep_tasks(
    connection: sa.Connection, ends: Sequence[tuple[Intent, Ended]], at: dt.datetime
) -> None:
    opened = [_opened(i, end) for i, end in ends if i.task and end.state == "written"]
    closed = [{"of": key_of(i)} for i, end in ends if i.closing and end.state == "written"]
    deleted = [{"of": key_of(i)} for i, end in ends if i.closing and end.gone]
    rejected = [
        {"of": key_of(i), "why": end.reason, "moment": at}
        for i, end in ends
        if end.state == "rejected"
    ]
    change = _changer(connection)
    change(opened, {name: sa.bindparam(f"to_{name}") for name in _WRITTEN} | _OPENED)
    change(closed, {"status": "closed", **_NOT_REFUSED})
    change(deleted, {"status": "deleted", "touched": True, **_NOT_REFUSED})
    change(rejected, _REJECTED)


_NOT_REFUSED: dict[str, Any] = {"rejected": None, "rejected_at": None}
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
    **_NOT_REFUSED,
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
