"""Running SOQL over the sandbox's records, for REST and for Bulk 2.0 alike."""

from collections.abc import Iterator
from typing import Any

from connectors.sandbox.servers.box import Box, Row
from connectors.sandbox.vendors.salesforce_objects import moment_text, record_id, records
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.soql import Query, Record, SoqlError, parse, value_of

_USER = record_id("005", 1)
"""Who makes and changes records, where nobody else is said to."""


class Refused(Exception):
    """A request that the API refuses: its HTTP status, error code and message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def selected(box: Box, text: str, *, deleted: bool) -> tuple[Query, list[Record]]:
    """A query and the records it finds; deleted ones only when they are asked for.

    Raises:
        Refused: the query is not valid SOQL for this org.
    """
    try:
        query = parse(text, SCHEMA)
    except SoqlError as error:
        raise Refused(400, error.code, error.message) from None
    found = (
        record
        for record in every_record(box, query.object)
        if deleted or not record.get("IsDeleted")
    )
    return query, query.run(_linked(box, query, found))


def every_record(box: Box, name: str) -> Iterator[Record]:
    """The records of an object as they are now, deleted ones too, with their system fields."""
    fields = SCHEMA[name]
    for row in records(box, name).rows(box.now.timestamp(), deleted=True):
        system = {key: value for key, value in _system(row).items() if key in fields}
        yield system | row.body


def one_row(query: Query, record: Record, version: str) -> Record:
    """A record as REST shows it: the selected fields only, references as objects of their own."""
    row: Record = {"attributes": _attributes(query.object, record["Id"], version)}
    for *relations, field in query.columns:
        target, source, name = row, record, query.object
        for relation in relations:
            source, name = source[relation], _referred(name, relation)
            if source is None:
                target[relation] = None
                break
            attributes = _attributes(name, source["Id"], version)
            target = target.setdefault(relation, {"attributes": attributes})
        else:
            target[field] = value_of(source, (field,))
    return row


def _attributes(name: str, id: str, version: str) -> dict[str, str]:
    return {"type": name, "url": f"/services/data/v{version}/sobjects/{name}/{id}"}


def _system(row: Row) -> dict[str, Any]:
    created, changed = moment_text(row.created), moment_text(row.changed)
    return {
        "Id": row.id, "IsDeleted": row.deleted, "CreatedDate": created, "CreatedById": _USER,
        "LastModifiedDate": changed, "LastModifiedById": _USER, "SystemModstamp": changed,
        "OwnerId": _USER,
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
        targets[step.refers] = {other["Id"]: other for other in every_record(box, step.refers)}
    if step.relationship not in record:
        other = targets[step.refers].get(record.get(step.name) or "")
        record[step.relationship] = dict(other) if other else None
    if len(steps) > 1 and record[step.relationship] is not None:
        _link(box, step.refers, record[step.relationship], steps[1:], targets)
