"""What permission sets of the sandbox's Salesforce may hold: every rule of a grant."""

from collections.abc import Mapping
from typing import Any

from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.salesforce_fields import every_added, object_of
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_rules import RowRefused
from connectors.sandbox.vendors.salesforce_schema import SCHEMA

_ONE_OF = {
    "PermissionSet": ("Name",),
    "PermissionSetAssignment": ("PermissionSetId", "AssigneeId"),
    "FieldPermissions": ("ParentId", "Field"),
    "ObjectPermissions": ("ParentId", "SobjectType"),
}
"""The fields by which there is one row of its kind only."""

_IMPLIED = {
    "PermissionsCreate": ("PermissionsRead",),
    "PermissionsEdit": ("PermissionsRead",),
    "PermissionsDelete": ("PermissionsRead", "PermissionsEdit"),
    "PermissionsViewAllRecords": ("PermissionsRead",),
    "PermissionsModifyAllRecords": ("PermissionsRead", "PermissionsEdit", "PermissionsDelete"),
}


def check_grant(box: Box, name: str, id: str | None, grant: Mapping[str, Any]) -> None:
    """Let a row of a permission object pass that may be there; other objects always pass.

    Raises:
        RowRefused: it is there already, names what is not there, or lacks what it implies.
    """
    if name not in _ONE_OF:
        return
    same = [grant.get(field) for field in _ONE_OF[name]]
    for row in records(box, name).rows(box.now.timestamp()):
        there = row.id != id and not row.body.get("IsDeleted")
        if there and [row.body.get(field) for field in _ONE_OF[name]] == same:
            code = "DUPLICATE_DEVELOPER_NAME" if name == "PermissionSet" else "DUPLICATE_VALUE"
            raise RowRefused(code, f"Duplicate {name}", list(_ONE_OF[name]))
    if name in ("FieldPermissions", "ObjectPermissions"):
        _check_target(box, name, grant)
        for right, implied in _IMPLIED.items():
            lacking = [other for other in implied if not grant.get(other)]
            if grant.get(right) and lacking:
                message = f"{right} depends on {', '.join(lacking)}"
                raise RowRefused("FIELD_INTEGRITY_EXCEPTION", message, [right])


def _check_target(box: Box, name: str, grant: Mapping[str, Any]) -> None:
    kind = object_of(grant["SobjectType"])
    if kind not in SCHEMA:
        raise _bad("SobjectType", kind)
    if name == "ObjectPermissions":
        return
    table, _, field = grant["Field"].partition(".")
    known = every_added(box).get(kind, {}).get(field) or SCHEMA[kind].get(field)
    # What nobody may edit, or everybody sees, has no permission of its own.
    if object_of(table) != kind or known is None or not known.updateable:
        raise _bad("Field", grant["Field"])


def _bad(field: str, value: object) -> RowRefused:
    return RowRefused(
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        f"bad value for restricted picklist field: {value}",
        [field],
    )
