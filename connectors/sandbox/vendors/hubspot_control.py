"""What tests and benchmarks order from the sandbox's HubSpot, and what they ask of it afterwards.

Everything stands in tables of the box, so it may be used before the first request and by whoever
has the box: settings, rules for what becomes of writes, the log of writes, properties at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal

from connectors.sandbox.servers.box import Box, Table
from connectors.sandbox.vendors.hubspot_records import Records
from connectors.sandbox.vendors.hubspot_schema import of_field
from contracts.crm_fields import CrmObject, read_on, written_on
from contracts.documents import nearest
from contracts.errors import InputError

VENDOR = "hubspot"
KEY, EPISODE = "healthloop_key", "healthloop_episode"
GROUP = "healthloop"
_OBJECTS: dict[CrmObject, str] = {"account": "companies", "opportunity": "deals"}


@dataclass(frozen=True)
class Settings:
    """What is set in the portal, or unknown about HubSpot and therefore to be tried both ways.

    Attributes:
        daily_limit: The requests of a day, counted by the portal's calendar.
        used_by_others: How many of them other apps have used.
        partial_updates: Whether one bad record spoils a batch of updates (``never``), or only when
            some input has no trace id (``traced``), or is told in a 207 (``always``).
        conflict: The status of a call that is refused for a value that is taken.
        unique_tasks: Whether tasks take properties with unique values.
        archived_keeps_values: Whether an archived record's unique value cannot be used again.
        queues_read_only: Whether `hs_queue_membership_ids` cannot be written.
    """

    daily_limit: int = 650_000
    used_by_others: int = 0
    partial_updates: Literal["traced", "always", "never"] = "traced"
    conflict: Literal[400, 409] = 409
    unique_tasks: bool = True
    archived_keeps_values: bool = False
    queues_read_only: bool = True


def settings(box: Box, **changes: Any) -> Settings:
    """The portal's settings, after these changes.

    >>> settings(box, daily_limit=100).daily_limit  # doctest: +SKIP
    100

    Raises:
        InputError: there is no such setting.
    """
    table = box.table(VENDOR, "_settings", lambda table: table.put("portal", {}, 0.0))
    row = table.get("portal", 0.0)
    chosen = row.body if row else {}
    if changes:
        known = [field.name for field in fields(Settings)]
        for name in changes:
            if name not in known:
                raise InputError(f"there is no setting '{name}'", nearest(name, known))
        chosen = chosen | changes
        table.put("portal", chosen, 0.0)
    return Settings(**chosen)


RULES: dict[str, dict[str, Any]] = {
    "lock": {"status": 423, "category": "OBJECT_LOCKED", "message": "The object is locked."},
    "migrate": {
        "status": 477, "category": "MIGRATION_IN_PROGRESS", "retry_after": 60,
        "message": "The account is being moved to another data centre.",
    },
    "reject": {
        "status": 400, "category": "VALIDATION_ERROR", "code": "INVALID_RECORD",
        "message": "A rule of this account forbids it.",
    },
    "ignore": {"echo": False},
    "forget": {"landed": True},
    "shuffle": {"landed": True},
}  # fmt: skip
"""What may become of writes, with the options and their defaults.

`lock` (F58) and `migrate` (F58, with a Retry-After) refuse the whole call in which a record is.
`reject` (F54) refuses records. `ignore` (F56) does nothing and answers as if all was well; with
`echo` it even shows the values that were sent. `forget` (F57) answers 207 without a word about the
records; with `landed` false nothing was written either. `shuffle` (F59) answers in reverse order,
without the records that were named.
"""


def rules(box: Box) -> Table:
    """The rules that were ordered; a body has `do`, `object`, `ids`, `times` and the options."""
    return box.table(VENDOR, "_rules", lambda table: None)


def order(
    box: Box,
    do: str,
    *,
    object: str,
    ids: Iterable[str] | None = None,
    times: int | None = 1,
    **how: Any,
) -> None:
    """Order one of `RULES` for writes of an object type.

    Args:
        box: The sandbox.
        do: One of `RULES`; `how` are its options.
        object: companies, deals or tasks.
        ids: The records, by the id or by any value that is sent for them (a key); None for all.
        times: In how many calls; None for all from now on.
        how: What differs from the defaults of the rule.

    Raises:
        InputError: no such rule or option.
    """
    if do not in RULES:
        raise InputError(f"'{do}' is no rule for writes", nearest(do, RULES))
    for name in how:
        if name not in RULES[do]:
            raise InputError(f"the rule {do} has no option {name}", nearest(name, RULES[do]))
    named = None if ids is None else sorted(ids)
    table = rules(box)
    number = len(table.rows(inf, deleted=True)) + 1
    body = {"do": do, "object": object, "ids": named, "times": times, **RULES[do], **how}
    table.put(f"{number:06}", body, 0.0)


@dataclass(frozen=True)
class Write:
    """One write of one record that was carried out.

    `kind` is create, update, archive or associate; `properties` are the names, sorted; `at` is in
    epoch seconds of the sandbox's clock.
    """

    kind: str
    object: str
    id: str
    properties: tuple[str, ...]
    at: float


def writes(box: Box) -> list[Write]:
    """Every write of a record through the API so far, oldest first."""
    rows = write_log(box).changes(inf)
    return [Write(**row.body, at=row.changed) for row in rows]


def write_log(box: Box) -> Table:
    """The table behind `writes`."""
    return box.table(VENDOR, "_writes", lambda table: None)


def collection(box: Box, type: str) -> Table:
    """The records of a type, whether or not somebody asked for them before."""
    return box.table(VENDOR, type, lambda table: getattr(Records(box.world), f"fill_{type}")(table))


def edit(box: Box, type: str, id: str, **properties: str | None) -> None:
    """Somebody changes a record in HubSpot itself, now.

    Raises:
        InputError: there is no such record.
    """
    table, now = collection(box, type), box.now.timestamp()
    row = table.get(id, now)
    if row is None:
        raise InputError(f"there is no {type} record {id}", "look into /_sandbox/dump")
    table.put(id, row.body | {"properties": row.body["properties"] | properties}, now)


def merge(box: Box, survivor: str, other: str) -> str:
    """Somebody merges two companies, now; returns the new id to which both lead.

    Raises:
        InputError: one of them is not there.
    """
    table, now = collection(box, "companies"), box.now.timestamp()
    row = table.get(survivor, now)
    if row is None or table.get(other, now) is None:
        raise InputError(f"{survivor} and {other} are not both there", "name two living companies")
    new = str(max(int(each.id) for each in table.rows(now, deleted=True)) + 1)
    properties = row.body["properties"] | {"hs_merged_object_ids": f"{survivor};{other}"}
    for id in (survivor, other):
        table.remove(id, now)
    table.put(new, row.body | {"properties": properties, "write": None}, now)
    return new


def created_properties(box: Box) -> Table:
    """The properties that were created, by ``<object type>/<name>``."""
    return box.table(VENDOR, "properties", lambda table: None)


def created_groups(box: Box) -> Table:
    """The groups of properties that were created, by ``<object type>/<name>``."""
    return box.table(VENDOR, "property_groups", lambda table: None)


def provisioned(box: Box) -> None:
    """Make all our properties under their default names, as `provision` would, at once."""
    now = box.now.timestamp()
    properties, groups = created_properties(box), created_groups(box)
    for type in (*_OBJECTS.values(), "tasks"):
        group = {"name": GROUP, "label": "Healthloop", "displayOrder": -1}
        groups.put(f"{type}/{GROUP}", group, now)
    for object, type in _OBJECTS.items():
        for field in (*written_on(object), *read_on(object)):
            properties.put(f"{type}/{field.hubspot}", of_field(field, GROUP), now)
    for name, label, unique in ((KEY, "key", True), (EPISODE, "episode", False)):
        definition = {
            "name": name, "label": f"Healthloop {label}", "groupName": GROUP, "type": "string",
            "fieldType": "text", "hasUniqueValue": unique,
        }  # fmt: skip
        properties.put(f"tasks/{name}", definition, now)
