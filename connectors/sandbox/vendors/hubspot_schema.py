"""The properties that every portal has, and those of the synthetic company's portal."""

from collections.abc import Iterable
from typing import Any

from contracts.crm_fields import FIELDS, CrmField, Kind

OWNER = "hubspot_owner_id"
QUEUES = "hs_queue_membership_ids"

READ_ONLY = frozenset({
    "hs_object_id", "createdate", "hs_createdate", "lastmodifieddate", "hs_lastmodifieddate",
    "hs_merged_object_ids", "hs_is_closed", "hs_is_closed_won",
})  # fmt: skip
"""What HubSpot itself sets."""

REQUIRED = {"tasks": ("hs_timestamp",)}
"""What a new record cannot be without."""

STANDARD: dict[str, tuple[str, ...]] = {
    "companies": ("name", "domain", OWNER),
    "deals": ("dealname", "dealstage", "pipeline", "amount", "closedate", OWNER),
    "tasks": (
        "hs_timestamp", "hs_task_subject", "hs_task_body", "hs_task_status", "hs_task_priority",
        "hs_task_type", "hs_task_reminders", QUEUES, OWNER,
    ),
}  # fmt: skip
"""What is there before anybody fills it, beside what HubSpot sets."""

_STANDARD_TOO = ("lifecyclestage", "numberofemployees", "industry", "dealtype",
                 "deal_currency_code")  # fmt: skip

GROUPS = {
    "companies": ("companyinformation", "Company information"),
    "contacts": ("contactinformation", "Contact information"),
    "deals": ("dealinformation", "Deal information"),
    "tasks": ("task", "Task information"),
    "feedback_submissions": ("feedbackinformation", "Feedback submission information"),
}
"""The group of the properties that are there from the start, by object type."""

_OPTIONS = {
    "hs_task_status": ("NOT_STARTED", "IN_PROGRESS", "WAITING", "COMPLETED", "DEFERRED"),
    "hs_task_priority": ("NONE", "LOW", "MEDIUM", "HIGH"),
    "hs_task_type": ("EMAIL", "CALL", "TODO", "MEETING", "LINKED_IN"),
}
_KINDS: dict[Kind, tuple[str, str]] = {
    "number": ("number", "number"), "text": ("string", "text"), "date": ("date", "date"),
    "long_text": ("string", "textarea"), "choice": ("enumeration", "select"),
}  # fmt: skip
_OURS = {field.hubspot: field for field in FIELDS.values()}
_NUMBERS = frozenset({
    "numberofemployees", "annual_contract_value", "amount", "previous_amount", "goal_target",
    "goal_progress", "csm_sentiment", "hs_value", "hs_object_id",
})  # fmt: skip
_DATES = frozenset({"customer_since", "next_renewal", "contact_since"})
_MOMENTS = frozenset({
    "closedate", "hs_timestamp", "hs_submission_timestamp", "createdate", "hs_createdate",
    "lastmodifieddate", "hs_lastmodifieddate",
})  # fmt: skip

COMMON: dict[str, Any] = {
    "description": "", "options": [], "externalOptions": False, "hasUniqueValue": False,
    "hubspotDefined": False, "hidden": False, "formField": False, "calculated": False,
    "displayOrder": -1, "archived": False,
    "modificationMetadata": {
        "archivable": True, "readOnlyDefinition": False, "readOnlyOptions": False,
        "readOnlyValue": False,
    },
}  # fmt: skip
"""What the API shows of a property that was created, where its creator said nothing."""


def built_in(type: str, name: str, *, queues_read_only: bool = True) -> dict[str, Any]:
    """A property that is there from the start, as the API shows it.

    Of our own fields the synthetic company has made those that its people fill.
    """
    if name in _OURS:
        return COMMON | of_field(_OURS[name], GROUPS[type][0])
    kind, field_type = _kind(name)
    read_only = name in READ_ONLY or (name == QUEUES and queues_read_only)
    return COMMON | {
        "name": name, "label": name.replace("_", " ").capitalize(), "type": kind,
        "fieldType": field_type, "groupName": GROUPS[type][0],
        "options": options(_OPTIONS.get(name, ())), "externalOptions": name == OWNER,
        "hubspotDefined": _is_hubspots(type, name),
        "modificationMetadata": {
            "archivable": False, "readOnlyDefinition": True, "readOnlyValue": read_only,
        },
    }  # fmt: skip


def _is_hubspots(type: str, name: str) -> bool:
    """Whether HubSpot defines a property, and not the company whose portal it is."""
    given = {*READ_ONLY, *STANDARD.get(type, ()), *_STANDARD_TOO}
    return name in given or name.startswith("hs_")


def of_field(field: CrmField, group: str) -> dict[str, Any]:
    """One of our fields, as somebody creates it under its default name."""
    type, field_type = _KINDS[field.kind]
    return {
        "name": field.hubspot, "label": field.label, "type": type, "fieldType": field_type,
        "groupName": group, "description": field.help, "options": options(field.choices),
    }  # fmt: skip


def options(values: Iterable[str]) -> list[dict[str, Any]]:
    """The options of an enumeration."""
    return [
        {"label": value.capitalize(), "value": value, "displayOrder": place, "hidden": False}
        for place, value in enumerate(values)
    ]


def _kind(name: str) -> tuple[str, str]:
    """The type and the field type."""
    if name in _OPTIONS or name == OWNER:
        return "enumeration", "select"
    if name in _NUMBERS:
        return "number", "number"
    if name in _DATES or name.endswith(("_on", "_due")):
        return "date", "date"
    if name in _MOMENTS or name.endswith("_at"):
        return "datetime", "date"
    return ("bool", "booleancheckbox") if name.startswith("hs_is_") else ("string", "text")
