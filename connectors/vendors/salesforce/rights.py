"""What `doctor` and the gate ask of an org: fields that serve, rights, requests left."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from simple_salesforce import format_soql

from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import Budget, Finding
from connectors.vendors.salesforce.client import NoSuchObject, SalesforceClient
from connectors.vendors.salesforce.drafts import words_of
from connectors.vendors.salesforce.fields import OBJECTS, Names
from connectors.vendors.salesforce.seen import rows
from connectors.vendors.salesforce.wanted import (
    Described,
    Wanted,
    by_name,
    wanted_fields,
    wanted_of_tasks,
)
from contracts.errors import SourceCorrupt, SourceRefused, SourceRejected

PROVISIONING = ("CustomizeApplication", "ManageProfilesPermissionsets", "AssignPermissionSets")
PROVISION = "run `healthloop provision salesforce`"
GRANT = "let a permission set of the integration's user grant it; `healthloop provision` makes one"
WIDE = ("ModifyAllData", "ViewAllData", "ManageUsers", "AuthorApex", *PROVISIONING)
"""Rights of the whole org that writing does not need."""

OBJECT_RIGHTS = ("Read", "Create", "Edit", "Delete", "ViewAllRecords", "ModifyAllRecords")


def described(client: SalesforceClient, object: str) -> Described:
    """What an object looks like to the user.

    Raises:
        SourceRefused: the user may not see it.
    """
    try:
        found: Any = client.ask(lambda org: org.restful(f"sobjects/{object}/describe"))
    except NoSuchObject:
        raise client.named(SourceRefused(f"shows this user no {object}", GRANT)) from None
    fields = found.get("fields") if isinstance(found, dict) else None
    if not isinstance(fields, list) or not all(
        isinstance(field, dict) and "name" in field for field in fields
    ):
        raise client.named(SourceCorrupt(f"described {object} in another shape", "try again later"))
    description: Described = found
    return description


def missing_and_wrong(
    describe: Callable[[str], Described],
    target: SalesforceTarget,
    *,
    fields: bool,
    tasks: bool,
) -> list[Finding]:
    """What keeps us from writing. What lacks of the fields that people fill is only noted."""
    wanted = wanted_fields(target) if fields else []
    wanted = [*wanted, *(wanted_of_tasks(target) if tasks else [])]
    found: list[Finding] = []
    for object in dict.fromkeys(one.object for one in wanted):
        description = describe(object)
        known = by_name(description)
        of_object = [one for one in wanted if one.object == object]
        found += _of_object(description, any(one.written for one in of_object))
        for one in of_object:
            found += _of_field(one, known.get(one.name.lower()))
        if object == "Task":
            found += [
                Finding("problem", f"tasks have no {word}", "name another in `task` of crm.yaml")
                for word in words_of(description, target.task).unknown
            ]
    return found


def _of_object(description: Described, written: bool) -> Iterator[Finding]:
    name = description.get("name")
    if written and not description.get("updateable"):
        yield Finding("problem", f"the user may not edit {name}", GRANT)
    if name == "Task" and not description.get("createable"):
        yield Finding("problem", "the user may not create tasks", GRANT)


def _of_field(wanted: Wanted, found: Described | None) -> Iterator[Finding]:
    state, how = wanted.judge(found)
    what = f"the field {wanted.name} of {wanted.object}"
    level: Literal["problem", "note"] = "problem" if wanted.written else "note"
    if state == "missing":
        yield Finding(level, f"{what} is missing, or hidden from the user", PROVISION)
    elif state == "wrong":
        yield Finding(level, f"{what} cannot serve", how)
    elif wanted.written and found is not None:
        # The key and the episode are written once, when a task is created.
        right = "createable" if wanted.object == "Task" else "updateable"
        if not found.get(right):
            yield Finding(level, f"the user may not edit {what.removeprefix('the ')}", GRANT)


@dataclass(frozen=True)
class Rights:
    """What the user's permission sets allow together, the one of the profile included.

    `known` are the rights of the whole org that were looked at, `system` those that the user has.
    """

    known: frozenset[str]
    system: frozenset[str]
    objects: Mapping[str, frozenset[str]]

    def lack(self, right: str) -> bool:
        """Whether the user certainly lacks a right of the whole org."""
        return right in self.known and right not in self.system


def user_of(client: SalesforceClient) -> str:
    """The id of the user whose credentials are used.

    Raises:
        SourceRefused: the connected app does not tell.
    """
    answer = client.ask(lambda org: org.oauth2("userinfo"))
    id = answer.get("user_id") if isinstance(answer, dict) else None
    if not isinstance(id, str):
        raise client.named(SourceRefused("does not tell whose credentials these are", GRANT))
    return id


def rights_of(client: SalesforceClient, user: str) -> Rights | None:
    """The rights of a user; None where the org does not show them to this one."""
    try:
        flags = by_name(described(client, "PermissionSet"))
        assigned = "SELECT Id, PermissionSetId FROM PermissionSetAssignment WHERE AssigneeId = {}"
        sets = {row["permissionsetid"] for row in rows(client, format_soql(assigned, user))}
        known = [name for name in WIDE if f"permissions{name}".lower() in flags]
        asked = ", ".join(["Id", *(f"Permissions{name}" for name in known)])
        soql = format_soql(f"SELECT {asked} FROM PermissionSet WHERE Id IN {{}}", sorted(sets))
        held = list(rows(client, soql))
        asked = ", ".join(f"Permissions{right}" for right in OBJECT_RIGHTS)
        soql = f"SELECT Id, SobjectType, {asked} FROM ObjectPermissions WHERE ParentId IN {{}}"
        grants = list(rows(client, format_soql(soql, sorted(sets))))
    except (SourceRejected, SourceRefused):
        return None
    objects: dict[str, frozenset[str]] = {}
    for grant in grants:
        of_grant = {right for right in OBJECT_RIGHTS if grant.get(f"permissions{right}".lower())}
        name = grant["sobjecttype"]
        objects[name] = objects.get(name, frozenset()) | of_grant
    system = {
        name for row in held for name in known if row.get(f"permissions{name}".lower()) is True
    }
    return Rights(frozenset(known), frozenset(system), objects)


def rights(
    client: SalesforceClient, target: SalesforceTarget, budget: Callable[[], Budget]
) -> list[Finding]:
    """Rights too narrow and too wide, as far as the org shows them, and the day's requests."""
    narrow = list(_narrow(client, target))
    held = _held(client)
    if held is None:
        unseen = Finding(
            "note",
            "the org does not show this user its own rights, so nobody knows if they are too wide",
            "see that they are those of the permission set Healthloop and no others",
        )
        found = [*narrow, unseen]
    else:
        found = [*narrow, *_wide(held, target)]
    if not found:
        found = [
            Finding("ok", "the user's rights on objects are those that are needed, and no others")
        ]
    return [*found, *_of_budget(budget(), target)]


def _held(client: SalesforceClient) -> Rights | None:
    try:
        return rights_of(client, user_of(client))
    except SourceRefused:
        return None


def _narrow(client: SalesforceClient, target: SalesforceTarget) -> Iterator[Finding]:
    objects = [OBJECTS[o] for o, names in Names.of(target).written.items() if names]
    objects += ["Task"] if target.tasks else []
    for object in objects:
        yield from _of_object(described(client, object), written=True)


def _wide(held: Rights, target: SalesforceTarget) -> Iterator[Finding]:
    remedy = "take it away from the user's profile and permission sets"
    for right in sorted(held.system & set(WIDE)):
        once = right in PROVISIONING
        later = "once everything is provisioned, " if once else ""
        yield Finding("note", f"the user has the right {right}, which is too wide", later + remedy)
    for object, given in sorted(held.objects.items()):
        spare = given - needed_rights(object, target)
        if spare:
            listed = ", ".join(right for right in OBJECT_RIGHTS if right in spare)
            yield Finding("note", f"the user may do more with {object}: {listed}", remedy)


def needed_rights(object: str, target: SalesforceTarget) -> frozenset[str]:
    """What writing, and the reader beside it, needs to do with an object."""
    written = {OBJECTS[o] for o, names in Names.of(target).written.items() if names}
    needed = {"Read", "ViewAllRecords"}  # where people see only their own accounts
    if object == "Task" and target.tasks:
        needed |= {"Create", "Edit"}
    return frozenset(needed | ({"Edit"} if object in written else set()))


def _of_budget(budget: Budget, target: SalesforceTarget) -> Iterator[Finding]:
    if budget.allowed is None or budget.used is None:
        return
    seen = f"{budget.allowed - budget.used:,} of the day's {budget.allowed:,} API requests are left"
    if budget.used_share < target.daily_share:
        yield Finding("ok", seen)
    else:
        yield Finding("note", seen, "wait until tomorrow, or raise `daily_share` in crm.yaml")
