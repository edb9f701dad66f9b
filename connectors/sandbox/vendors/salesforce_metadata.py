"""The sandbox's Salesforce: the Tooling API, as far as adding fields to objects needs it."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.answers import Json
from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.salesforce_fields import (
    TYPES,
    custom_fields,
    object_of,
    rights_of,
)
from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, moment_text, record_id
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.salesforce_web import Refused, not_found, object_sent
from connectors.sandbox.vendors.soql import Field, Record, SoqlError, parse, value_of
from contracts.crm_fields import OBJECTS, CrmField, read_on, written_on

PERMISSION_SET = record_id("0PS", 2)
"""The permission set of `provisioned`."""

TABLES = {object: object.capitalize() for object in OBJECTS}

_NAME = re.compile(r"(\w+)\.([A-Za-z](?:_?[A-Za-z0-9])*)__c", re.ASCII)
_LONGEST_NAME = 40
_KNOWN = frozenset({
    "type", "label", "description", "inlineHelpText", "length", "precision", "scale", "unique",
    "externalId", "caseSensitive", "required", "visibleLines", "valueSet", "defaultValue",
    "trackHistory", "trackFeedHistory", "trackTrending",
})  # fmt: skip
_LENGTHS = {"Text": (1, 255), "LongTextArea": (256, 131_072)}
_SCHEMA = {
    "CustomField": {
        name: Field(name, kind, name)
        for name, kind in (
            ("Id", "id"), ("DeveloperName", "string"), ("TableEnumOrId", "picklist"),
            ("FullName", "anyType"), ("Metadata", "anyType"), ("Length", "int"),
            ("Precision", "int"), ("Scale", "int"), ("InlineHelpText", "string"),
            ("CreatedDate", "datetime"), ("LastModifiedDate", "datetime"),
        )
    }
}  # fmt: skip


class Tooling:
    """What answers below ``tooling``."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def answer(self, request: Request, version: str, parts: list[str]) -> Response:
        """Answer one request; `parts` is the path below ``tooling``.

        Raises:
            Refused: the API does not take it.
        """
        match request.method, *parts:
            case "GET", "query":
                return Json(self._query(request.query_params.get("q", ""), version))
            case "POST", "sobjects", "CustomField":
                if "CustomizeApplication" not in rights_of(self._box).system:
                    raise Refused(403, "INSUFFICIENT_ACCESS", "no right to customize the org")
                sent = await object_sent(request)
                if set(sent) != {"FullName", "Metadata"}:
                    raise Refused(400, "JSON_PARSER_ERROR", "expected FullName and Metadata")
                id = add_field(self._box, str(sent["FullName"]), sent["Metadata"])
                done = {"id": id, "success": True, "errors": [], "warnings": [], "infos": []}
                return Json(done, 201)
        raise not_found()

    def _query(self, text: str, version: str) -> Record:
        try:
            query = parse(text, _SCHEMA)
        except SoqlError as error:
            raise Refused(400, error.code, error.message) from None
        rows = custom_fields(self._box).rows(self._box.now.timestamp())
        found = query.run(
            {
                **row.body, "Id": row.id, "CreatedDate": moment_text(row.created),
                "LastModifiedDate": moment_text(row.changed),
                "Length": row.body["Metadata"].get("length"),
                "Precision": row.body["Metadata"].get("precision"),
                "Scale": row.body["Metadata"].get("scale"),
                "InlineHelpText": row.body["Metadata"].get("inlineHelpText"),
            }
            for row in rows
        )  # fmt: skip
        url = f"/services/data/v{version}/tooling/sobjects/CustomField"
        shown = [
            {"attributes": {"type": "CustomField", "url": f"{url}/{record['Id']}"}}
            | {path[0]: value_of(record, path) for path in query.columns}
            for record in found
        ]
        return {
            "size": len(shown), "totalSize": len(shown), "done": True, "queryLocator": None,
            "entityTypeName": "CustomField", "records": [] if query.counts else shown,
        }  # fmt: skip


def add_field(box: Box, full_name: str, metadata: Any) -> str:
    """Add a field to an object, as ``Account.HL_Risk_Score__c``; gives the id of its definition.

    Nobody sees the field until a permission set says so.

    Raises:
        Refused: the definition is not one that the API takes, or the field is there.
    """
    named = _NAME.fullmatch(full_name)
    if named is None or "__" in named.group(2) or len(named.group(2)) > _LONGEST_NAME:
        raise _wrong(f"{full_name} is no name of a field", "FullName")
    table, name = named.groups()
    if table == "Task" or object_of(table) not in SCHEMA:
        # Tasks and events share their fields, which are those of Activity.
        raise _wrong(f"{table} takes no fields", "FullName")
    _check(metadata)
    fields, now = custom_fields(box), box.now.timestamp()
    there = {
        (row.body["TableEnumOrId"], row.body["DeveloperName"].lower()) for row in fields.rows(now)
    }
    standing = {field.lower() for field in SCHEMA[object_of(table)]}
    if (table, name.lower()) in there or f"{name}__c".lower() in standing:
        message = f"There is already a field named {name} on {table}."
        raise Refused(400, "DUPLICATE_DEVELOPER_NAME", message, ["DeveloperName"])
    id = record_id("00N", len(fields.rows(now, deleted=True)) + 1)
    body = {
        "TableEnumOrId": table, "DeveloperName": name, "FullName": full_name, "Metadata": metadata,
    }  # fmt: skip
    fields.put(id, body, now)
    return id


def _check(metadata: Any) -> None:
    """Let a definition pass that is complete and has nothing unknown in it."""
    if not isinstance(metadata, dict):
        raise Refused(400, "JSON_PARSER_ERROR", "Metadata is no object")
    unknown = sorted(set(metadata) - _KNOWN)
    if unknown:
        raise Refused(400, "JSON_PARSER_ERROR", f"Unrecognized field {unknown[0]}")
    kind, label = metadata.get("type"), metadata.get("label")
    if kind not in TYPES:
        raise _wrong(f"type {kind} is not one of {', '.join(TYPES)}", "Type")
    if not isinstance(label, str) or not 1 <= len(label) <= _LONGEST_NAME:
        raise _wrong(f"a label has 1 to {_LONGEST_NAME} characters", "Label")
    shortest, longest = _LENGTHS.get(kind, (0, 0))
    length = metadata.get("length")
    if kind in _LENGTHS and not (isinstance(length, int) and shortest <= length <= longest):
        raise _wrong(f"the length of {kind} is {shortest} to {longest}", "Length")
    if kind == "LongTextArea" and not metadata.get("visibleLines"):
        raise _wrong("visibleLines is needed", "VisibleLines")
    precision, scale = metadata.get("precision"), metadata.get("scale")
    if kind == "Number" and not (
        isinstance(precision, int) and isinstance(scale, int) and 0 <= scale <= precision <= 18
    ):
        raise _wrong("precision is at most 18, and scale at most that", "Precision")
    if (metadata.get("unique") or metadata.get("externalId")) and kind not in ("Text", "Number"):
        raise _wrong(f"a {kind} can be no key", "Unique")
    if kind == "Picklist":
        _check_values(metadata.get("valueSet"))


def _check_values(value_set: Any) -> None:
    defined = value_set.get("valueSetDefinition") if isinstance(value_set, dict) else None
    values = defined.get("value") if isinstance(defined, dict) else None
    if not isinstance(values, list) or not values:
        raise _wrong("a picklist needs its values", "ValueSet")
    if not all(isinstance(value, dict) and value.get("fullName") for value in values):
        raise _wrong("a value needs its fullName", "ValueSet")


def _wrong(message: str, field: str) -> Refused:
    return Refused(400, "FIELD_INTEGRITY_EXCEPTION", message, [field])


# What tests and benchmarks need without asking for it field by field


def provisioned(box: Box) -> None:
    """Make every default field of `contracts.crm_fields`, and the key and episode of tasks.

    A permission set, assigned to the integration's user, grants them: those that Healthloop writes
    for reading and editing, those that people fill for reading.
    """
    grants = {}
    for object, table in TABLES.items():
        for field in (*written_on(object), *read_on(object)):
            if field.salesforce not in SCHEMA[table]:
                add_field(box, f"{table}.{field.salesforce}", definition(field))
                edited = field in written_on(object)
                grants[f"{table}.{field.salesforce}"] = edited
    for name, metadata in TASK_FIELDS.items():
        add_field(box, f"Activity.{name}", metadata)
        grants[f"Task.{name}"] = True
    _grant(box, grants)


TASK_FIELDS: dict[str, dict[str, Any]] = {
    "HL_Key__c": {
        "type": "Text", "label": "Healthloop key", "length": 64, "unique": True,
        "externalId": True, "caseSensitive": True,
    },
    "HL_Episode__c": {"type": "Text", "label": "Healthloop episode", "length": 255},
}  # fmt: skip


def definition(field: CrmField) -> dict[str, Any]:
    """One of our fields as the Metadata API defines it."""
    common = {"label": field.label, "inlineHelpText": field.help}
    match field.kind:
        case "number":
            return {"type": "Number", "precision": 18, "scale": 0} | common
        case "date":
            return {"type": "Date"} | common
        case "long_text":
            return {"type": "LongTextArea", "length": field.length, "visibleLines": 6} | common
        case "choice":
            values = [{"fullName": value, "label": value} for value in field.choices]
            value_set = {"restricted": True, "valueSetDefinition": {"value": values}}
            return {"type": "Picklist", "valueSet": value_set} | common
    return {"type": "Text", "length": field.length} | common


def _grant(box: Box, grants: dict[str, bool]) -> None:
    now = box.now.timestamp()
    body = {"Name": "Healthloop", "Label": "Healthloop", "IsOwnedByProfile": False}
    records(box, "PermissionSet").put(PERMISSION_SET, body, now)
    assigned = {"PermissionSetId": PERMISSION_SET, "AssigneeId": INTEGRATION_USER}
    records(box, "PermissionSetAssignment").put(record_id("0Pa", 2), assigned, now)
    for number, (field, edited) in enumerate(grants.items(), 1):
        granted = {
            "ParentId": PERMISSION_SET, "SobjectType": field.partition(".")[0], "Field": field,
            "PermissionsRead": True, "PermissionsEdit": edited,
        }  # fmt: skip
        records(box, "FieldPermissions").put(record_id("01k", number), granted, now)
