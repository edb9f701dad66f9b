"""HubSpot's properties API: what can be noted on records, and groups of it."""

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.box import Table
from connectors.sandbox.vendors.hubspot_account import Account
from connectors.sandbox.vendors.hubspot_control import created_groups, created_properties
from connectors.sandbox.vendors.hubspot_inputs import detail
from connectors.sandbox.vendors.hubspot_schema import GROUPS
from connectors.sandbox.vendors.hubspot_search import Refused, invalid
from connectors.sandbox.vendors.hubspot_shapes import iso, stamps
from connectors.sandbox.vendors.hubspot_web import (
    Handler,
    batch_of,
    checked_object,
    json_answer,
    object_of,
    wants_archived,
)

BATCH = 100
UNIQUE = 10
"""How many properties of an object type may have unique values."""

FIELD_TYPES = {
    "string": ("text", "textarea", "file"), "number": ("number",), "date": ("date",),
    "datetime": ("date",), "bool": ("booleancheckbox",),
    "enumeration": ("select", "radio", "checkbox", "booleancheckbox"),
}  # fmt: skip

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_CHANGEABLE = {
    "label", "type", "fieldType", "groupName", "description", "options", "displayOrder",
    "hidden", "formField", "calculationFormula",
}  # fmt: skip
_CREATABLE = _CHANGEABLE | {"name", "hasUniqueValue", "externalOptions", "referencedObjectType"}
_REQUIRED = ("name", "label", "type", "fieldType", "groupName")


class PropertyApi:
    """One HubSpot account, for its definitions."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self, base: str) -> list[tuple[str, str, Handler]]:
        """The paths below this, their methods and handlers."""
        of_type = f"{base}/{{type}}"
        return [
            (f"{of_type}/batch/create", "POST", self.create_batch),
            (f"{of_type}/groups", "GET", self.list_groups),
            (f"{of_type}/groups", "POST", self.create_group),
            (f"{of_type}/groups/{{name}}", "GET", self.get_group),
            (of_type, "GET", self.list_properties),
            (of_type, "POST", self.create),
            (f"{of_type}/{{name}}", "GET", self.get),
            (f"{of_type}/{{name}}", "PATCH", self.update),
            (f"{of_type}/{{name}}", "DELETE", self.archive),
        ]

    def _opened(self, request: Request, act: str) -> str:
        return self.account.authorised(request, request.path_params["type"], f"schemas.{act}")

    def _json(self, body: Any, status: int = 200) -> Response:
        return json_answer(body, status, self.account.rate_headers())

    @property
    def _table(self) -> Table:
        return created_properties(self.account.box)

    async def list_properties(self, request: Request) -> Response:
        """All properties of a type, or those that were archived."""
        type = self._opened(request, "read")
        if wants_archived(request):
            rows = self._table.rows(self.account.now, deleted=True)
            gone = [row for row in rows if row.deleted and row.id.startswith(f"{type}/")]
            return self._json({"results": [row.body | {"archived": True} for row in gone]})
        names = sorted({*stamps(type), *self.account.names(type)})
        return self._json({"results": [self.account.property(type, name) for name in names]})

    async def get(self, request: Request) -> Response:
        """One property."""
        type = self._opened(request, "read")
        return self._json(self._existing(type, request.path_params["name"]))

    def _existing(self, type: str, name: str) -> dict[str, Any]:
        property = self.account.property(type, name)
        if property is None:
            raise Refused(404, "OBJECT_NOT_FOUND", f"Property '{name}' does not exist.")
        return property

    async def create(self, request: Request) -> Response:
        """One new property."""
        type = self._opened(request, "write")
        return self._json(self._made(type, await object_of(request, _CREATABLE)), 201)

    async def create_batch(self, request: Request) -> Response:
        """Up to 100 new properties, each on its own."""
        type = self._opened(request, "write")
        made, errors = [], []
        for given in batch_of(await object_of(request, {"inputs"}), BATCH):
            try:
                made.append(self._made(type, checked_object(given, _CREATABLE)))
            except Refused as refused:
                told = {"context": {}, "errors": [], "links": {}} | refused.body
                errors.append(told | {"context": {"name": [str(given.get("name"))]}})
        at = iso(self.account.now)
        body = {"status": "COMPLETE", "results": made, "startedAt": at, "completedAt": at}
        if errors:
            return self._json(body | {"numErrors": len(errors), "errors": errors}, 207)
        return self._json(body, 201)

    def _made(self, type: str, given: dict[str, Any]) -> dict[str, Any]:
        """Check and keep a new property."""
        for name in _REQUIRED:
            if not isinstance(given.get(name), str) or not given[name]:
                raise invalid(f"Property definitions need a {name}.")
        name = given["name"]
        if not _NAME.fullmatch(name):
            raise invalid("A name has small letters, digits and _, and begins with a letter.")
        if self.account.property(type, name) is not None:
            raise Refused(409, "OBJECT_ALREADY_EXISTS", f"A property named '{name}' exists.")
        self._check(type, given)
        if given.get("hasUniqueValue"):
            self._check_unique(type, given)
        self._table.put(f"{type}/{name}", given, self.account.now)
        return self._existing(type, name)

    def _check(self, type: str, given: dict[str, Any]) -> None:
        """The kind, the options and the group."""
        if given["fieldType"] not in FIELD_TYPES.get(given["type"], ()):
            raise invalid(f"No property is of type {given['type']} and {given['fieldType']}.")
        if given["groupName"] not in self._groups(type):
            raise invalid(f"Property group '{given['groupName']}' does not exist.")
        options = given.get("options", [])
        values = [option.get("value") for option in options if option.get("label")]
        if len(values) != len(options) or len(set(values)) != len(values):
            raise invalid("Options need a label and a value of their own.")
        if given["type"] == "enumeration" and not options:
            raise invalid("An enumeration needs options.")

    def _check_unique(self, type: str, given: dict[str, Any]) -> None:
        settings = self.account.settings
        if type == "tasks" and not settings.unique_tasks:
            raise invalid("Properties with unique values are not supported for this object type.")
        if given["type"] not in ("string", "number"):
            raise invalid("Only text and numbers can have unique values.")
        definitions = self.account.created(type).values()
        if sum(bool(one and one["hasUniqueValue"]) for one in definitions) >= UNIQUE:
            raise Refused(
                400, "VALIDATION_ERROR", f"At most {UNIQUE} properties can have unique values.",
                errors=[detail("UNIQUE_PROPERTIES_LIMIT", "The limit is reached.", given["name"])],
            )  # fmt: skip

    async def update(self, request: Request) -> Response:
        """Change a definition; whether values are unique cannot be changed."""
        type = self._opened(request, "write")
        changes = await object_of(request, _CHANGEABLE)
        property = self._existing(type, request.path_params["name"])
        if property["modificationMetadata"]["readOnlyDefinition"]:
            raise invalid("The definition of this property is read only.")
        self._check(type, property | changes)
        id = f"{type}/{property['name']}"
        row = self._table.get(id, self.account.now)
        assert row is not None  # only properties that were created can be changed
        self._table.put(id, row.body | changes, self.account.now)
        return self._json(self._existing(type, property["name"]))

    async def archive(self, request: Request) -> Response:
        """Let a property be gone, and all its values with it."""
        type = self._opened(request, "write")
        property = self._existing(type, request.path_params["name"])
        if not property["modificationMetadata"]["archivable"]:
            raise invalid("This property cannot be archived.")
        self._table.remove(f"{type}/{property['name']}", self.account.now)
        return Response(status_code=204, headers=self.account.rate_headers())

    # Groups

    def _groups(self, type: str) -> dict[str, dict[str, Any]]:
        name, label = GROUPS[type]
        found = {name: {"name": name, "label": label, "displayOrder": 0, "archived": False}}
        for row in created_groups(self.account.box).rows(self.account.now):
            if row.id.startswith(f"{type}/"):
                found[row.body["name"]] = {"displayOrder": -1, "archived": False, **row.body}
        return found

    async def list_groups(self, request: Request) -> Response:
        """All groups of a type."""
        groups = self._groups(self._opened(request, "read"))
        return self._json({"results": list(groups.values())})

    async def get_group(self, request: Request) -> Response:
        """One group."""
        groups = self._groups(self._opened(request, "read"))
        if request.path_params["name"] not in groups:
            raise Refused(404, "OBJECT_NOT_FOUND", "This property group does not exist.")
        return self._json(groups[request.path_params["name"]])

    async def create_group(self, request: Request) -> Response:
        """One new group."""
        type = self._opened(request, "write")
        given = await object_of(request, {"name", "label", "displayOrder"})
        if not all(isinstance(given.get(name), str) for name in ("name", "label")):
            raise invalid("A property group needs a name and a label.")
        if given["name"] in self._groups(type):
            raise Refused(409, "OBJECT_ALREADY_EXISTS", "A property group of that name exists.")
        created_groups(self.account.box).put(f"{type}/{given['name']}", given, self.account.now)
        return self._json(self._groups(type)[given["name"]], 201)
