"""What `doctor` and the gate ask of a portal: properties that serve, scopes, requests left."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from connectors.crm.settings import HubSpotTarget
from connectors.crm.writing import Finding
from connectors.vendors.hubspot.client import EDIT_SCOPES
from connectors.vendors.hubspot.portal import Portal
from connectors.vendors.hubspot.wanted import Wanted, wanted_fields, wanted_of_tasks
from contracts.documents import nearest

PROVISION = "run `healthloop provision hubspot`"
_ALWAYS = ("companies.read", "companies.write", "deals.read", "owners.read")
_OF_READER = frozenset({"crm.objects.contacts.read", "crm.objects.feedback_submissions.read"})


Known = Callable[[str], Mapping[str, Mapping[str, Any]]]
"""The properties of a type of record, by name."""


def missing_and_wrong(
    known: Known, target: HubSpotTarget, *, fields: bool, tasks: bool
) -> list[Finding]:
    """Properties that are not there or do not serve. Those that people fill are only noted."""
    wanted = wanted_fields(target) if fields else []
    wanted = [*wanted, *(wanted_of_tasks(target) if tasks else [])]
    there = {type: known(type) for type in dict.fromkeys(one.type for one in wanted)}
    found = [_finding(one, *one.judge(there[one.type].get(one.name))) for one in wanted]
    found += _choices(there["tasks"], target) if "tasks" in there else []
    return [finding for finding in found if finding.level != "ok"]


def _choices(known: Mapping[str, Mapping[str, Any]], target: HubSpotTarget) -> Iterator[Finding]:
    """The words of `crm.yaml` for a task's status and priority that HubSpot does not know."""
    given, words = target.task, list(target.task.priorities.values())
    for name, values in (
        ("hs_task_status", [given.open_status, given.closed_status]),
        ("hs_task_priority", words),
    ):
        options = [str(one.get("value")) for one in known.get(name, {}).get("options") or []]
        for value in filter(None, values):
            if options and value not in options:
                yield Finding(
                    "problem", f"{name} of tasks has no option '{value}'",
                    f"correct `hubspot: {{task: ...}}` in crm.yaml; {nearest(value, options)}",
                )  # fmt: skip


def _finding(wanted: Wanted, state: str, how: str) -> Finding:
    what = f"the property {wanted.name} of {wanted.type}"
    if state == "exists":
        return Finding("ok", f"{what} serves")
    level: Literal["problem", "note"] = "problem" if wanted.written else "note"
    if state == "wrong":
        return Finding(level, f"{what} cannot serve", how)
    return Finding(level, f"{what} is {state}", PROVISION if wanted.written else how or PROVISION)


def needed_scopes(target: HubSpotTarget) -> frozenset[str]:
    """The scopes for reading back and writing. Tasks go by the scopes of contacts."""
    names = [*_ALWAYS, *(["deals.write"] if target.opportunities else [])]
    names += ["contacts.read", "contacts.write"] if target.tasks else []
    return frozenset(f"crm.objects.{name}" for name in names) | schema_scopes(target, "read")


def schema_scopes(target: HubSpotTarget, act: str) -> frozenset[str]:
    """The scopes for looking at properties (``read``), or for creating them (``write``)."""
    types = ["companies", "deals", *(["contacts"] if target.tasks else [])]
    return frozenset(f"crm.schemas.{type}.{act}" for type in types)


def rights(portal: Portal, target: HubSpotTarget) -> list[Finding]:
    """Scopes too narrow and too wide, as far as HubSpot tells them, and the day's requests."""
    scopes = portal.scopes()
    if scopes is None:
        found = [
            Finding(
                "note",
                "HubSpot does not tell which scopes this key has",
                f"see that they are {', '.join(sorted(needed_scopes(target)))} and no others",
            )
        ]
    else:
        found = _scopes(scopes, target)
    if portal.budget.allowed is None:
        portal.reader.details()  # the question for the scopes tells no budget
    budget = portal.budget
    if budget.allowed is not None and budget.used is not None:
        left = budget.allowed - budget.used
        seen = f"{left:,} of the day's {budget.allowed:,} API requests are left"
        if budget.used_share < target.daily_share:
            found.append(Finding("ok", seen))
        else:
            remedy = "wait until tomorrow, or raise `daily_share` in crm.yaml"
            found.append(Finding("note", seen, remedy))
    return found


def _scopes(scopes: frozenset[str], target: HubSpotTarget) -> list[Finding]:
    needed = needed_scopes(target)
    missing, spare = needed - scopes, scopes - needed - _OF_READER - {"oauth"}
    provisioning = spare & schema_scopes(target, "write")
    found = []
    if missing:
        lacks = f"the key lacks {', '.join(sorted(missing))}"
        found.append(Finding("problem", lacks, f"add them in HubSpot: {EDIT_SCOPES}"))
    if provisioning:
        more = f"the key may create properties: {', '.join(sorted(provisioning))}"
        found.append(Finding("note", more, "take these scopes away once everything is provisioned"))
    if spare - provisioning:
        more = f"the key may do more than is needed: {', '.join(sorted(spare - provisioning))}"
        found.append(Finding("note", more, "take these scopes away"))
    return found or [Finding("ok", "the key has the scopes that are needed, and no others")]
