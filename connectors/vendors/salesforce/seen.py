"""What the org shows: our tasks, records with our fields, and who may own a task.

Tasks and records are asked for by `queryAll`: deleted, merged and archived ones are there, too.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote_plus

from simple_salesforce import format_soql

from connectors.crm.writing import Owner, SeenRecord, SeenTask
from connectors.vendors.salesforce.client import (
    CursorExpired,
    NoSuchObject,
    SalesforceClient,
    UnknownName,
)
from connectors.vendors.salesforce.fields import OBJECTS, Names, from_api, is_id, long_id, moment_of
from connectors.vendors.salesforce.queries import pages
from contracts.crm_fields import CrmObject
from contracts.errors import SourceUnavailable

ADDRESS_BYTES = 12_000
"""Of the 16,384 that an address and its headers may have together."""

MERGES = 5
"""So many merges in a row are followed."""

_TASK = "WhatId, AccountId, OwnerId, Subject, ActivityDate, IsClosed, IsDeleted, SystemModstamp"

Row = dict[str, Any]
"""A record by its fields in lower case: the org may spell them otherwise than the settings."""


def tasks_by_key(
    client: SalesforceClient, names: Names, keys: Sequence[str]
) -> dict[str, SeenTask]:
    """Our tasks by key; of two with one key the one that is not deleted."""
    found: dict[str, SeenTask] = {}
    head = f"SELECT Id, {names.key}, {names.episode}, {_TASK} FROM Task WHERE {names.key} IN "
    for soql in _with_lists(head, keys):
        for task in _tasks(client, names, soql):
            if task.key not in found or found[task.key].status == "deleted":
                found[task.key] = task
    return found


def tasks_changed(
    client: SalesforceClient, names: Names, since: dt.datetime | None
) -> Iterator[SeenTask]:
    """Our tasks that changed since a moment, in the order of their changes."""
    soql = f"SELECT Id, {names.key}, {names.episode}, {_TASK} FROM Task WHERE {names.key} != null"
    yield from _tasks(client, names, soql + _since(" AND", since))


def records_by_id(
    client: SalesforceClient,
    names: Names,
    object: CrmObject,
    ids: Sequence[str],
    fields: Sequence[str],
) -> dict[str, SeenRecord]:
    """Records by the ids that were given; a merged one names who lives on in the end."""
    found = {long_id(id): record for id, record in _by_id(client, names, object, ids, fields)}
    heirs = {id: record.successor for id, record in found.items() if record.successor}
    for _ in range(MERGES):
        unknown = sorted({heir for heir in heirs.values() if heir})
        chain = {
            id: record.successor
            for id, record in _by_id(client, names, object, unknown, ())
            if record.successor
        }
        if not chain:
            break
        heirs = {id: chain.get(heir or "", heir) for id, heir in heirs.items()}
    return {
        id: _with_heir(found[long_id(id)], heirs.get(long_id(id)))
        for id in ids
        if long_id(id) in found
    }


def _with_heir(record: SeenRecord, heir: str | None) -> SeenRecord:
    return SeenRecord(record.object, record.record_id, record.values, record.gone, heir)


def records_changed(
    client: SalesforceClient,
    names: Names,
    object: CrmObject,
    since: dt.datetime | None,
    fields: Sequence[str],
) -> Iterator[SeenRecord]:
    """Records that changed since a moment, in the order of their changes."""
    soql = _select(names, object, fields) + _since(" WHERE", since)
    for row in rows(client, soql, deleted=True):
        yield _record(names, object, fields, row)


def owners(client: SalesforceClient) -> list[Owner]:
    """Users, inactive ones too, and the queues that may own tasks, as far as they are shown."""
    found = [
        Owner(
            id=row["id"],
            name=str(row.get("name") or ""),
            active=row.get("isactive") is True,
            time_zone=row.get("timezonesidkey"),
            manager_id=row.get("managerid"),
        )
        for row in rows(
            client,
            "SELECT Id, Name, IsActive, TimeZoneSidKey, ManagerId FROM User "
            "WHERE UserType = 'Standard' ORDER BY Id",
        )
    ]
    try:
        queues = "SELECT Id, QueueId FROM QueueSobject WHERE SobjectType = 'Task'"
        of_tasks = {row["queueid"] for row in rows(client, queues)}
        groups = "SELECT Id, Name FROM Group WHERE Type = 'Queue' ORDER BY Id"
        found += [
            Owner(id=row["id"], name=str(row.get("name") or ""), is_queue=True)
            for row in rows(client, groups)
            if row["id"] in of_tasks
        ]
    except (UnknownName, NoSuchObject):
        pass  # the user may not see queues; the tasks then need people
    return found


def rows(client: SalesforceClient, soql: str, *, deleted: bool = False) -> Iterator[Row]:
    """The rows of a query.

    Raises:
        SourceUnavailable: the org lost the place in a long result.
    """
    try:
        for page in pages(client, soql, deleted=deleted):
            for record in page["records"]:
                yield {name.lower(): value for name, value in record.items()}
    except CursorExpired as error:
        raise client.named(
            SourceUnavailable("lost its place in a long result", "try again later")
        ) from error


def _tasks(client: SalesforceClient, names: Names, soql: str) -> Iterator[SeenTask]:
    for row in rows(client, soql, deleted=True):
        due = row.get("activitydate")
        completed = "completed" if row.get("isclosed") else "open"
        yield SeenTask(
            key=str(row[names.key.lower()]),
            episode=str(row.get(names.episode.lower()) or ""),
            task_id=row["id"],
            record_id=row.get("whatid") or row.get("accountid"),
            owner_id=row.get("ownerid"),
            subject=str(row.get("subject") or ""),
            due_on=dt.date.fromisoformat(due) if due else None,
            status="deleted" if row.get("isdeleted") else completed,  # type: ignore[arg-type]
            modified_at=moment_of(row.get("systemmodstamp")),
        )


def _by_id(
    client: SalesforceClient,
    names: Names,
    object: CrmObject,
    ids: Iterable[str],
    fields: Sequence[str],
) -> Iterator[tuple[str, SeenRecord]]:
    # A single value that is no id would have the whole query refused.
    real = filter(is_id, ids)
    for soql in _with_lists(f"{_select(names, object, fields)} WHERE Id IN ", real):
        for row in rows(client, soql, deleted=True):
            yield row["id"], _record(names, object, fields, row)


def _select(names: Names, object: CrmObject, fields: Sequence[str]) -> str:
    # Opportunities are never merged.
    system = ["Id", "IsDeleted", *(["MasterRecordId"] if object == "account" else [])]
    known = [names.known[object][name] for name in fields]
    return f"SELECT {', '.join([*system, *known])} FROM {OBJECTS[object]}"


def _record(names: Names, object: CrmObject, fields: Sequence[str], row: Row) -> SeenRecord:
    known = names.known[object]
    values = {name: from_api(row.get(known[name].lower())) for name in fields}
    gone, heir = bool(row.get("isdeleted")), row.get("masterrecordid")
    return SeenRecord(object, row["id"], values, gone, str(heir) if gone and heir else None)


def _since(word: str, since: dt.datetime | None) -> str:
    where = "" if since is None else format_soql(f"{word} SystemModstamp >= {{}}", since)
    return f"{where} ORDER BY SystemModstamp, Id"


def _with_lists(head: str, values: Iterable[str]) -> Iterator[str]:
    """Queries that end with lists of all the values, none too long for an address."""
    rest = iter(dict.fromkeys(values))
    base = len(quote_plus(head)) + len("%28%29")
    batch: list[str] = []
    size = base
    for value in rest:
        length = len(quote_plus(format_soql("{}", value))) + len("%2C")
        if batch and size + length > ADDRESS_BYTES:
            yield head + format_soql("{}", batch)
            batch, size = [], base
        batch.append(value)
        size += length
    if batch:
        yield head + format_soql("{}", batch)
