"""The fields of the sandbox's Salesforce org as the integration's user sees them.

Fields that were added to the org are seen and edited only by those to whom a permission set grants
them. Fields of the object `Activity` are those of tasks.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, PREFIXES, VENDOR
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_schema import REQUIRED, SCHEMA
from connectors.sandbox.vendors.salesforce_settings import setting
from connectors.sandbox.vendors.soql import Field, Schema

TYPES = {
    "Text": "string", "Number": "double", "Date": "date", "LongTextArea": "textarea",
    "Picklist": "picklist",
}  # fmt: skip
"""The types of fields that can be added, and what `describe` calls them."""

Fields = Mapping[str, Mapping[str, Field]]


@dataclass(frozen=True)
class Rights:
    """What the integration's user may do.

    `read` and `edit` hold fields such as ``Account.HL_Risk_Score__c``, `objects` pairs such as
    ``("Account", "Edit")``. With `lenient` every field may be read and edited.
    """

    read: frozenset[str]
    edit: frozenset[str]
    objects: frozenset[tuple[str, str]]
    system: frozenset[str]
    lenient: bool = False

    def sees(self, field: str) -> bool:
        """Whether a field that was added is there for the user."""
        return self.lenient or field in self.read

    def edits(self, field: str) -> bool:
        """Whether the user may write a field that was added."""
        return self.lenient or field in self.edit

    def may(self, name: str, right: str) -> bool:
        """Whether the user may Create, Edit or Delete records of an object."""
        if name == "Task" and "EditTask" in self.system:
            return True
        if name in ("PermissionSet", "FieldPermissions", "ObjectPermissions"):
            return "ManageProfilesPermissionsets" in self.system
        if name == "PermissionSetAssignment":
            return "AssignPermissionSets" in self.system
        return (name, right) in self.objects


def custom_fields(box: Box) -> Table:
    """The fields that were added, as the Tooling API keeps them."""
    return box.table(VENDOR, "CustomField", lambda table: None)


def rights_of(box: Box) -> Rights:
    """What the permission sets of the integration's user, its profile's too, allow together."""
    now = box.now.timestamp()
    sets = {
        row.body["PermissionSetId"]
        for row in _there(box, "PermissionSetAssignment", now)
        if row.body["AssigneeId"] == INTEGRATION_USER
    }
    fields = [row.body for row in _there(box, "FieldPermissions", now)]
    fields = [body for body in fields if body["ParentId"] in sets]
    return Rights(
        read=frozenset(_shown(body) for body in fields if body.get("PermissionsRead")),
        edit=frozenset(_shown(body) for body in fields if body.get("PermissionsEdit")),
        objects=frozenset(
            (row.body["SobjectType"], right)
            for row in _there(box, "ObjectPermissions", now)
            if row.body["ParentId"] in sets
            for right in ("Read", "Create", "Edit", "Delete")
            if row.body.get(f"Permissions{right}")
        ),
        system=frozenset(
            name.removeprefix("Permissions")
            for row in _there(box, "PermissionSet", now)
            if row.id in sets
            for name, value in row.body.items()
            if value is True
        ),
        lenient=setting(box, "access").get("lenient", False),
    )


def _shown(granted: Mapping[str, Any]) -> str:
    name, _, field = granted["Field"].partition(".")
    return f"{object_of(name)}.{field}"


def _there(box: Box, name: str, now: float) -> list[Row]:
    return [row for row in records(box, name).rows(now) if not row.body.get("IsDeleted")]


def schema_of(box: Box, rights: Rights | None = None) -> Schema:
    """The objects and fields that the user sees; what cannot be edited says so."""
    added = every_added(box)
    if not added:
        return SCHEMA
    rights = rights or rights_of(box)
    schema: dict[str, Mapping[str, Field]] = dict(SCHEMA)
    for name, fields in added.items():
        seen = {
            field.name: field
            if rights.edits(f"{name}.{field.name}")
            else dataclasses.replace(field, createable=False, updateable=False)
            for field in fields.values()
            if rights.sees(f"{name}.{field.name}")
        }
        if name in schema:
            schema[name] = {**schema[name], **seen}
    return schema


def every_added(box: Box) -> Fields:
    """The fields that were added, by object, whoever sees them."""
    found: Fields = custom_fields(box).derived(box.now.timestamp(), "fields", _by_object)
    return found


def _by_object(rows: list[Row]) -> Fields:
    found: dict[str, dict[str, Field]] = {}
    for row in rows:
        if not row.deleted:
            field = field_of(row.body["DeveloperName"], row.body["Metadata"])
            found.setdefault(object_of(row.body["TableEnumOrId"]), {})[field.name] = field
    return found


def object_of(table: str) -> str:
    """The object that shows the fields of a table."""
    return "Task" if table == "Activity" else table


def field_of(name: str, metadata: Mapping[str, Any]) -> Field:
    """A field by its definition in the Metadata API."""
    value_set = metadata.get("valueSet") or {}
    values = (value_set.get("valueSetDefinition") or {}).get("value", [])
    return Field(
        f"{name}__c", TYPES[metadata["type"]], metadata["label"],
        length=metadata.get("length") or (255 if metadata["type"] == "Picklist" else 0),
        precision=metadata.get("precision") or 0, scale=metadata.get("scale") or 0,
        unique=bool(metadata.get("unique")), external_id=bool(metadata.get("externalId")),
        case_sensitive=bool(metadata.get("caseSensitive")),
        picks=tuple(value["fullName"] for value in values),
        restricted=bool(value_set.get("restricted")),
        help=metadata.get("inlineHelpText"),
    )  # fmt: skip


def picks_of(box: Box, name: str, field: Field) -> dict[str, bool]:
    """The values of a picklist, and whether each is the default."""
    if name == "Task" and field.name in ("Status", "Priority"):
        rows = records(box, f"Task{field.name}").rows(box.now.timestamp())
        rows.sort(key=lambda row: int(row.body["SortOrder"]))
        return {row.body["ApiName"]: row.body["IsDefault"] for row in rows}
    return dict.fromkeys(field.picks, False)


def described(box: Box, name: str) -> dict[str, object] | None:
    """An object and its fields as the user may see them; None where there is no such object."""
    rights = rights_of(box)
    schema = schema_of(box, rights)
    known = next((known for known in schema if known.lower() == name.lower()), None)
    if known is None:
        return None
    return {
        "name": known, "label": known.removesuffix("__c"), "custom": known.endswith("__c"),
        "queryable": True, "keyPrefix": PREFIXES.get(known),
        "createable": rights.may(known, "Create"), "updateable": rights.may(known, "Edit"),
        "deletable": rights.may(known, "Delete"),
        "fields": [_described(box, known, field) for field in schema[known].values()],
    }  # fmt: skip


def _described(box: Box, name: str, field: Field) -> dict[str, object]:
    plain = field.type not in ("anyType", "textarea")
    picks = picks_of(box, name, field)
    return {
        "name": field.name, "label": field.label, "type": field.type, "length": field.length,
        "precision": field.precision, "scale": field.scale, "unique": field.unique,
        "externalId": field.external_id, "idLookup": field.external_id or field.name == "Id",
        "caseSensitive": field.case_sensitive, "inlineHelpText": field.help,
        "custom": field.name.endswith("__c"), "calculated": field.calculated,
        "nillable": field.name not in REQUIRED.get(name, ()),
        "filterable": plain, "sortable": plain,
        "createable": field.createable and not field.calculated,
        "updateable": field.updateable and not field.calculated,
        "referenceTo": _refers_to(name, field), "relationshipName": field.relationship,
        "restrictedPicklist": field.restricted,
        "picklistValues": [
            {"active": True, "defaultValue": default, "label": value, "value": value}
            for value, default in picks.items()
        ],
    }  # fmt: skip


def _refers_to(name: str, field: Field) -> list[str]:
    return list(POLYMORPHIC.get((name, field.name), [field.refers] if field.refers else []))


POLYMORPHIC = {
    ("Task", "WhatId"): ("Account", "Opportunity"),
    ("Task", "OwnerId"): ("Group", "User"),
}
"""References to several objects."""
