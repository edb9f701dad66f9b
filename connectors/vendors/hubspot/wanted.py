"""The properties that Healthloop needs in a portal, and whether those that are there will do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from connectors.crm.settings import HubSpotTarget, names_of
from contracts.crm_fields import FIELDS, CrmField, CrmObject, Kind, written_on

GROUP, GROUP_LABEL = "healthloop", "Healthloop"
KEY, EPISODE = "healthloop_key", "healthloop_episode"
TYPES: dict[CrmObject, str] = {"account": "companies", "opportunity": "deals"}
UNIQUE_STEPS = (
    "in HubSpot: Settings > Properties > Task properties > Create property, internal name "
    "{name}, type Single-line text, tick 'Require unique values for this property'; a property "
    "that exists cannot be changed to that, so archive it and delete it for good first. Where the "
    "portal does not offer the tick for tasks, write `tasks: false` into crm.yaml: the fields are "
    "written all the same"
)

_MADE_AS: dict[Kind, tuple[str, str]] = {
    "number": ("number", "number"),
    "text": ("string", "text"),
    "long_text": ("string", "textarea"),
    "date": ("date", "date"),
    "choice": ("enumeration", "select"),
}
_SERVE: dict[Kind, frozenset[str]] = {
    "number": frozenset({"number"}),
    "text": frozenset({"string"}),
    "long_text": frozenset({"string"}),
    "date": frozenset({"date", "datetime"}),
    "choice": frozenset({"enumeration", "string"}),
}

State = Literal["exists", "missing", "incomplete", "wrong"]


@dataclass(frozen=True)
class Wanted:
    """One property that there should be.

    `written` says that we write it; else people fill it, and any type will do that can be read.
    """

    type: str
    name: str
    field: CrmField
    written: bool = True
    unique: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        """What HubSpot is told to create it."""
        type, field_type = _MADE_AS[self.field.kind]
        definition = {
            "name": self.name,
            "label": self.field.label,
            "description": self.field.help,
            "groupName": GROUP,
            "type": type,
            "fieldType": field_type,
            "formField": False,
        }
        definition |= {"options": options(self.field.choices)} if self.field.choices else {}
        return definition | ({"hasUniqueValue": True} if self.unique else {})

    def judge(self, found: Mapping[str, Any] | None) -> tuple[State, str]:
        """Whether a portal's property serves, and if it is wrong what somebody has to do.

        ``incomplete`` is a choice without all of our values, which provisioning adds.
        """
        if found is None:
            return "missing", ""
        type = str(found.get("type"))
        rename = "or give another name for it in crm.yaml"
        if self.unique and (type != "string" or not found.get("hasUniqueValue")):
            return "wrong", UNIQUE_STEPS.format(name=self.name)
        if self.written and found.get("hubspotDefined"):
            return "wrong", "HubSpot's own properties are never written: name another in crm.yaml"
        if self.written and type not in _SERVE[self.field.kind]:
            made = _MADE_AS[self.field.kind][0]
            return (
                "wrong",
                f"it is of type {type}: archive it and make one of type {made}, {rename}",
            )
        if self.written and (found.get("modificationMetadata") or {}).get("readOnlyValue"):
            return "wrong", f"its value is calculated or read-only: archive it, {rename}"
        lacking = set(self.field.choices) - _values(found)
        if type == "enumeration" and self.written and lacking:
            return "incomplete", f"its options lack {', '.join(sorted(lacking))}"
        return "exists", ""


def options(values: tuple[str, ...], after: int = 0) -> list[dict[str, Any]]:
    """Options of an enumeration, in this order."""
    return [
        {"label": value.capitalize(), "value": value, "displayOrder": place, "hidden": False}
        for place, value in enumerate(values, after)
    ]


def with_options(found: Mapping[str, Any], field: CrmField) -> list[dict[str, Any]]:
    """The options of a portal's property as they are, and those of ours that they lack."""
    there = [
        {key: option[key] for key in ("label", "value", "displayOrder", "hidden") if key in option}
        for option in found.get("options") or []
    ]
    lacking = tuple(value for value in field.choices if value not in _values(found))
    return [*there, *options(lacking, len(there))]


def _values(found: Mapping[str, Any]) -> set[str]:
    return {str(option.get("value")) for option in found.get("options") or []}


def task_names(target: HubSpotTarget) -> tuple[str, str]:
    """The properties of tasks that hold our key and the episode."""
    return target.task.key or KEY, target.task.episode or EPISODE


def wanted_fields(target: HubSpotTarget) -> list[Wanted]:
    """The properties of companies and deals, written ones first."""
    found = []
    for object, type in TYPES.items():
        written = {field.name for field in written_on(object)}
        for name, property in names_of("hubspot", target, object).items():
            found.append(Wanted(type, property, FIELDS[name], name in written))
    return found


def wanted_of_tasks(target: HubSpotTarget) -> list[Wanted]:
    """The properties of tasks; none where tasks are not written. The key comes last."""
    if not target.tasks:
        return []
    key, episode = task_names(target)
    return [
        Wanted("tasks", episode, CrmField(episode, "text", "Healthloop episode",
               "The playbook, the day and the account that this task is about.")),
        Wanted("tasks", key, CrmField(key, "text", "Healthloop key",
               "Names this task for ever, so that it is never made twice."), unique=True),
    ]  # fmt: skip
