"""Running SOQL over the sandbox's records, for REST and for Bulk 2.0 alike."""

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from connectors.sandbox.servers.box import Box, Row
from connectors.sandbox.vendors.salesforce_fields import schema_of
from connectors.sandbox.vendors.salesforce_ids import (
    INTEGRATION_USER,
    SOMEBODY,
    moment_text,
    with_checksum,
)
from connectors.sandbox.vendors.salesforce_keys import ids_with
from connectors.sandbox.vendors.salesforce_objects import closed_statuses, records
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.salesforce_web import Refused
from connectors.sandbox.vendors.soql import Field, Query, Record, SoqlError, parse, value_of

ARCHIVED_AFTER_SECONDS = 365 * 86_400
"""So long after its end a task is found by `queryAll` only."""


def selected(box: Box, text: str, *, deleted: bool) -> tuple[Query, list[Record]]:
    """A query and the records it finds; deleted ones only when they are asked for.

    Raises:
        Refused: the query is not valid SOQL for this org.
    """
    schema = schema_of(box)
    try:
        query = parse(text, schema)
    except SoqlError as error:
        raise Refused(400, error.code, error.message) from None
    found = (
        record
        for record in shown(box, query.object, _candidates(box, query, schema[query.object]))
        if deleted or not (record.get("IsDeleted") or record.get("IsArchived"))
    )
    return query, query.run(_linked(box, query, found))


def _candidates(box: Box, query: Query, fields: Mapping[str, Field]) -> list[Row]:
    """The records that a query may find: by id or key where it names some, otherwise all."""
    table, now = records(box, query.object), box.now.timestamp()
    for name, values in query.pinned.items():
        if None in values or not (name == "Id" or fields[name].external_id):
            continue
        if name == "Id":
            ids = {with_checksum(value) for value in values if len(value) == 15}
        else:
            ids = {id for value in values for id in ids_with(table, name, value)}
        latest = (table.versions(id, now)[-1:] for id in ids)
        rows = [row for found in latest for row in found]
        return sorted(rows, key=lambda row: (row.changed, row.id))
    return _all(box, query.object)


def shown(box: Box, name: str, rows: Iterable[Row]) -> Iterator[Record]:
    """Records with their system fields, and what follows from others."""
    fields, now = SCHEMA[name], box.now.timestamp()
    closed = closed_statuses(box, now) if name == "Task" else set()
    for row in rows:
        system = {key: value for key, value in _system(row).items() if key in fields}
        record = system | row.body
        if row.deleted:
            record |= {"IsDeleted": True, "LastModifiedById": SOMEBODY}
        if name == "Task":
            record |= _derived(box, row, closed, now)
        yield record


def _derived(box: Box, row: Row, closed: set[str], now: float) -> Record:
    """What a task's other fields tell; a task that only a test made may say it itself."""
    body = row.body
    what = body.get("WhatId") or ""
    deal = records(box, "Opportunity").get(what, now) if what.startswith("006") else None
    is_closed = body["Status"] in closed if "Status" in body else body.get("IsClosed", False)
    since = min(row.changed, _moment(body.get("CompletedDateTime")))
    return {
        "AccountId": deal.body["AccountId"] if deal else what or body.get("AccountId"),
        "IsClosed": is_closed,
        "IsArchived": is_closed and since <= now - ARCHIVED_AFTER_SECONDS,
    }


def _moment(text: str | None) -> float:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp() if text else math.inf


def _all(box: Box, name: str) -> list[Row]:
    return records(box, name).rows(box.now.timestamp(), deleted=True)


def one_row(query: Query, record: Record, version: str) -> Record:
    """A record as REST shows it: the selected fields only, references as objects of their own."""
    row: Record = {"attributes": attributes(query.object, record["Id"], version)}
    for *relations, field in query.columns:
        target, source, name = row, record, query.object
        for relation in relations:
            source, name = source[relation], _referred(name, relation)
            if source is None:
                target[relation] = None
                break
            named = {"attributes": attributes(name, source["Id"], version)}
            target = target.setdefault(relation, named)
        else:
            target[field] = value_of(source, (field,))
    return row


def attributes(name: str, id: str, version: str) -> dict[str, str]:
    """How the API names a record among its values."""
    return {"type": name, "url": f"/services/data/v{version}/sobjects/{name}/{id}"}


def _system(row: Row) -> dict[str, Any]:
    created, changed = moment_text(row.created), moment_text(row.changed)
    return {
        "Id": row.id, "IsDeleted": row.deleted, "CreatedDate": created,
        "CreatedById": INTEGRATION_USER, "LastModifiedDate": changed,
        "LastModifiedById": INTEGRATION_USER, "SystemModstamp": changed,
        "OwnerId": INTEGRATION_USER,
    }  # fmt: skip


def _referred(name: str, relation: str) -> str:
    step = next(field for field in SCHEMA[name].values() if field.relationship == relation)
    assert step.refers is not None
    return step.refers


def _linked(box: Box, query: Query, found: Iterator[Record]) -> Iterator[Record]:
    """The records, each with those that the query follows its references to."""
    targets: dict[str, dict[str, Record]] = {}
    for record in found:
        linked = dict(record)
        for steps in sorted(query.relations):
            _link(box, query.object, linked, steps, targets)
        yield linked


def _link(
    box: Box,
    name: str,
    record: Record,
    steps: tuple[str, ...],
    targets: dict[str, dict[str, Record]],
) -> None:
    step = next(field for field in SCHEMA[name].values() if field.relationship == steps[0])
    assert step.refers is not None
    assert step.relationship is not None
    if step.refers not in targets:
        # A queue may own what a person may.
        names = ("User", "Group") if step.refers == "User" else (step.refers,)
        targets[step.refers] = {
            other["Id"]: other for name in names for other in shown(box, name, _all(box, name))
        }
    if step.relationship not in record:
        other = targets[step.refers].get(record.get(step.name) or "")
        record[step.relationship] = dict(other) if other else None
    if len(steps) > 1 and record[step.relationship] is not None:
        _link(box, step.refers, record[step.relationship], steps[1:], targets)
