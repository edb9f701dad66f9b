"""The fields that Healthloop needs in an org, and whether those that are there will do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from connectors.crm.settings import SalesforceTarget
from connectors.vendors.salesforce.fields import (
    EPISODE_LENGTH,
    KEY_LENGTH,
    OBJECTS,
    Names,
)
from contracts.crm_fields import FIELDS, CrmField, Kind

Described = Mapping[str, Any]
"""What `describe` says of a field, or of an object."""

State = Literal["exists", "missing", "wrong"]

_SERVE: dict[Kind, frozenset[str]] = {
    "number": frozenset({"double", "int", "currency", "percent"}),
    "text": frozenset({"string", "textarea"}),
    "long_text": frozenset({"textarea"}),
    "date": frozenset({"date"}),
    "choice": frozenset({"picklist", "string"}),
}
_MADE_AS: dict[Kind, str] = {
    "number": "Number",
    "text": "Text",
    "long_text": "Long Text Area",
    "date": "Date",
    "choice": "Picklist",
}
_LEAST_DIGITS = 3
_OTHER_NAME = "or give another name for it in crm.yaml"


@dataclass(frozen=True)
class Wanted:
    """One field that there should be, of an object or of Activity, which is what tasks are made of.

    `written` says that we write it; else people fill it, and any type will do that can be read.
    """

    table: str
    name: str
    field: CrmField
    written: bool = True
    unique: bool = False

    @property
    def object(self) -> str:
        """The object that shows it."""
        return "Task" if self.table == "Activity" else self.table

    @property
    def full_name(self) -> str:
        """Its name in the Metadata API."""
        return f"{self.table}.{self.name}"

    @property
    def metadata(self) -> dict[str, Any]:
        """Its definition in the Metadata API."""
        common: dict[str, Any] = {"label": self.field.label, "inlineHelpText": self.field.help}
        if self.unique:
            common |= {"unique": True, "externalId": True, "caseSensitive": True}
        match self.field.kind:
            case "number":
                return {"type": "Number", "precision": 18, "scale": 0} | common
            case "date":
                return {"type": "Date"} | common
            case "long_text":
                size = {"length": self.field.length, "visibleLines": 6}
                return {"type": "LongTextArea"} | size | common
            case "choice":
                values = [
                    {"fullName": value, "label": value.capitalize(), "default": False}
                    for value in self.field.choices
                ]
                definition = {"sorted": False, "value": values}
                value_set = {"restricted": True, "valueSetDefinition": definition}
                return {"type": "Picklist", "valueSet": value_set} | common
        return {"type": "Text", "length": self.field.length} | common

    def by_hand(self) -> str:
        """What an admin clicks to make it."""
        field, kind = self.field, _MADE_AS[self.field.kind]
        more = {
            "number": ", length 18, decimal places 0",
            "text": f", length {field.length}",
            "long_text": f", length {field.length}",
            "choice": f", values {', '.join(field.choices)}",
            "date": "",
        }[field.kind]
        more += ", tick 'Unique' (case sensitive) and 'External ID'" if self.unique else ""
        name = self.name.removesuffix("__c")
        return (
            f"Setup > Object Manager > {self.table} > Fields & Relationships > New: {kind}, label "
            f"'{field.label}', name {name}{more}"
        )

    def judge(self, found: Described | None) -> tuple[State, str]:
        """Whether the org's field serves, and if it is wrong what somebody has to do."""
        if self.written and not self.name.endswith("__c"):
            return "wrong", "standard fields are never written: name a custom field in crm.yaml"
        if found is None:
            return "missing", ""
        wrong = self._wrong(found) if self.written else ""
        return ("wrong", wrong) if wrong else ("exists", "")

    def _wrong(self, found: Described) -> str:
        kind, made = self.field.kind, _MADE_AS[self.field.kind]
        type, length = str(found.get("type")), found.get("length") or 0
        setup = f"Setup > Object Manager > {self.table} > Fields & Relationships > {self.name}"
        if found.get("calculated"):
            return f"it is a formula: delete it and make one of type {made}, {_OTHER_NAME}"
        if type not in _SERVE[kind]:
            return f"it is of type {type}: delete it and make one of type {made}, {_OTHER_NAME}"
        if kind in ("text", "long_text") and length < self.field.length:
            return f"it holds {length} characters: {setup} > Edit, length {self.field.length}"
        if self.unique and not (found.get("unique") and found.get("externalId")):
            return f"{setup} > Edit: tick 'Unique' (case sensitive) and 'External ID'"
        if kind == "number" and found.get("precision"):
            digits = found["precision"] - (found.get("scale") or 0)
            if digits < _LEAST_DIGITS:
                return f"it holds {digits} digits: {setup} > Edit, length 18"
        lacking = set(self.field.choices) - active_values(found)
        if type == "picklist" and found.get("restrictedPicklist") and lacking:
            return f"{setup}: add the values {', '.join(sorted(lacking))}"
        return ""


def wanted_fields(target: SalesforceTarget) -> list[Wanted]:
    """The fields of accounts and opportunities that are in use."""
    names = Names.of(target)
    return [
        Wanted(table, api, FIELDS[name], name in names.written[object])
        for object, table in OBJECTS.items()
        for name, api in names.known[object].items()
    ]


def wanted_of_tasks(target: SalesforceTarget) -> list[Wanted]:
    """The fields of tasks; none where tasks are not written."""
    if not target.tasks:
        return []
    names = Names.of(target)
    key = CrmField(
        "key", "text", "Healthloop key", "Names this task for ever, so that it is never made "
        "twice.", length=KEY_LENGTH,
    )  # fmt: skip
    episode = CrmField(
        "episode", "text", "Healthloop episode", "The playbook, the day and the account that this "
        "task is about.", length=EPISODE_LENGTH,
    )  # fmt: skip
    return [
        Wanted("Activity", names.episode, episode),
        Wanted("Activity", names.key, key, unique=True),
    ]


def by_name(described: Described) -> dict[str, Described]:
    """The fields of a described object, by their names in lower case: names know no case."""
    return {str(found["name"]).lower(): found for found in described["fields"]}


def active_values(found: Described) -> set[str]:
    """The values of a picklist that may be chosen."""
    return {
        str(value.get("value"))
        for value in found.get("picklistValues") or []
        if isinstance(value, dict) and value.get("active", True)
    }


def default_value(found: Described) -> str | None:
    """The value that a picklist has by itself."""
    for value in found.get("picklistValues") or []:
        if isinstance(value, dict) and value.get("active", True) and value.get("defaultValue"):
            return str(value.get("value"))
    return None
