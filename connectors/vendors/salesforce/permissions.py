"""The permission set Healthloop: what it grants, what of it is there, and how the rest is added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from simple_salesforce import Salesforce, format_soql

from connectors.crm.settings import SalesforceTarget
from connectors.vendors.salesforce.answers import are_results, codes_of, reason_of
from connectors.vendors.salesforce.client import SalesforceClient
from connectors.vendors.salesforce.fields import OBJECTS, Names
from connectors.vendors.salesforce.rights import OBJECT_RIGHTS, described, needed_rights
from connectors.vendors.salesforce.seen import Row, rows
from connectors.vendors.salesforce.wanted import Wanted, by_name, wanted_fields, wanted_of_tasks
from contracts.errors import SourceRefused, SourceRejected

NAME, LABEL = "HL_Healthloop", "Healthloop"
SETUP = f"Setup > Permission Sets > {LABEL}"
_SYSTEM = ("ApiEnabled", "ActivitiesAccess", "EditTask")
"""Rights of the whole set, as far as the org has them. Edit Tasks is needed to create them, too."""

_TABS = {"Account": "Accounts", "Opportunity": "Opportunities", "Task": "Tasks"}
_GRANTED_AT_LENGTH = {"ViewAllRecords"}  # needed where sharing hides records; an admin decides
_THERE_ALREADY = frozenset({"DUPLICATE_VALUE", "DUPLICATE_DEVELOPER_NAME"})
_BATCH = 200


@dataclass(frozen=True)
class Held:
    """What there is of the permission set: fields by ``Account.HL_Risk_Score__c`` in lower case."""

    id: str | None
    system: frozenset[str]
    objects: Mapping[str, Row]
    fields: Mapping[str, Row]
    users: frozenset[str]


class HealthloopSet:
    """The permission set in one org."""

    def __init__(self, client: SalesforceClient, target: SalesforceTarget) -> None:
        self._client = client
        self._target = target
        names = Names.of(target)
        self.objects = [OBJECTS[object] for object, known in names.known.items() if known]
        wanted = [*wanted_fields(target), *wanted_of_tasks(target)]
        # Standard fields that hold what people fill in have permissions of their own.
        self._fields = [one for one in wanted if one.name.endswith("__c")]

    @cached_property
    def _system(self) -> list[str]:
        flags = by_name(described(self._client, "PermissionSet"))
        wanted = _SYSTEM if self._target.tasks else _SYSTEM[:1]
        return [right for right in wanted if f"permissions{right}".lower() in flags]

    def held(self) -> Held:
        """What there is of it now."""
        asked = ", ".join(["Id", *(f"Permissions{right}" for right in self._system)])
        soql = format_soql(f"SELECT {asked} FROM PermissionSet WHERE Name = {{}}", NAME)
        found = list(rows(self._client, soql))
        if not found:
            return Held(None, frozenset(), {}, {}, frozenset())
        id = found[0]["id"]
        system = {right for right in self._system if found[0].get(f"permissions{right}".lower())}
        asked = ", ".join(f"Permissions{right}" for right in OBJECT_RIGHTS)
        objects = f"SELECT Id, SobjectType, {asked} FROM ObjectPermissions WHERE ParentId = {{}}"
        fields = (
            "SELECT Id, Field, PermissionsRead, PermissionsEdit FROM FieldPermissions "
            "WHERE ParentId = {}"
        )
        users = "SELECT Id, AssigneeId FROM PermissionSetAssignment WHERE PermissionSetId = {}"
        return Held(
            id,
            frozenset(system),
            {row["sobjecttype"]: row for row in rows(self._client, format_soql(objects, id))},
            {row["field"].lower(): row for row in rows(self._client, format_soql(fields, id))},
            frozenset(row["assigneeid"] for row in rows(self._client, format_soql(users, id))),
        )

    def is_whole(self, held: Held) -> bool:
        """Whether it is there with the rights of the whole set."""
        return held.id is not None and held.system >= set(self._system)

    def make(self) -> None:
        """Make it, or give it the rights that it lacks."""
        rights = {f"Permissions{right}": True for right in self._system}
        held = self.held()
        kind = {"attributes": {"type": "PermissionSet"}}
        if held.id is None:
            text = "Edit on the fields that Healthloop writes, and tasks."
            self._save(
                "POST", [{**kind, "Name": NAME, "Label": LABEL, "Description": text, **rights}]
            )
        elif not self.is_whole(held):
            self._save("PATCH", [{**kind, "id": held.id, **rights}])

    def make_by_hand(self) -> str:
        """What an admin clicks to make it."""
        return (
            f"Setup > Permission Sets > New: label {LABEL}, API name {NAME}; then System "
            "Permissions > Edit: tick 'API Enabled'"
            + (", 'Access Activities' and 'Edit Tasks'" if self._target.tasks else "")
        )

    def grants_object(self, held: Held, object: str) -> bool:
        """Whether it grants the rights on an object."""
        row = held.objects.get(object, {})
        return all(row.get(f"permissions{right}".lower()) for right in self._rights(object))

    def grant_object(self, object: str) -> None:
        """Let it grant the rights on an object."""
        held = self._made()
        if self.grants_object(held, object):
            return
        rights = {f"Permissions{right}": True for right in self._rights(object)}
        kind = {"attributes": {"type": "ObjectPermissions"}}
        if row := held.objects.get(object):
            self._save("PATCH", [{**kind, "id": row["id"], **rights}])
        else:
            of_object = {"ParentId": held.id, "SobjectType": object}
            self._save("POST", [{**kind, **of_object, **rights}])

    def object_by_hand(self, object: str) -> str:
        """What an admin clicks to let it grant the rights on an object."""
        rights = ", ".join(sorted(self._rights(object), key=OBJECT_RIGHTS.index))
        return f"{SETUP} > Object Settings > {_TABS[object]} > Edit: tick {rights}"

    def _rights(self, object: str) -> frozenset[str]:
        return needed_rights(object, self._target) - _GRANTED_AT_LENGTH

    def grants_fields(self, held: Held, object: str) -> bool:
        """Whether it grants our fields of an object."""
        return held.id is not None and not self._lacking(held, object)

    def _lacking(self, held: Held, object: str) -> list[Wanted]:
        return [
            one
            for one in self._fields
            if one.object == object and not _is_granted(held.fields.get(_field(one).lower()), one)
        ]

    def grant_fields(self, object: str) -> None:
        """Let it grant our fields of an object: to edit what we write, to read what people fill."""
        held = self._made()
        kind = {"attributes": {"type": "FieldPermissions"}}
        created, changed = [], []
        for one in self._lacking(held, object):
            rights = {"PermissionsRead": True, "PermissionsEdit": one.written}
            if row := held.fields.get(_field(one).lower()):
                changed.append({**kind, "id": row["id"], **rights})
            else:
                of_field = {"ParentId": held.id, "SobjectType": object, "Field": _field(one)}
                created.append({**kind, **of_field, **rights})
        self._save("POST", created)
        self._save("PATCH", changed)

    def fields_by_hand(self, object: str) -> str:
        """What an admin clicks to let it grant our fields of an object."""
        ours = [one.name for one in self._fields if one.object == object and one.written]
        theirs = [one.name for one in self._fields if one.object == object and not one.written]
        access = f"'Edit Access' for {', '.join(ours)}" if ours else ""
        access += " and " if ours and theirs else ""
        access += f"'Read Access' for {', '.join(theirs)}" if theirs else ""
        return f"{SETUP} > Object Settings > {_TABS[object]} > Edit: tick {access}"

    def assign(self, user: str) -> None:
        """Assign it to a user."""
        held = self._made()
        if user not in held.users:
            kind = {"attributes": {"type": "PermissionSetAssignment"}}
            self._save("POST", [{**kind, "PermissionSetId": held.id, "AssigneeId": user}])

    def _made(self) -> Held:
        held = self.held()
        if held.id is None:
            raise self._client.named(
                SourceRejected("has no permission set Healthloop yet", "make it first")
            )
        return held

    def _save(self, method: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Create or change records; that one is there already is as good.

        Raises:
            SourceRefused: the user may not.
            SourceRejected: another refusal.
        """
        for start in range(0, len(records), _BATCH):
            content = {"allOrNone": False, "records": list(records[start : start + _BATCH])}

            def send(org: Salesforce, content: Mapping[str, Any] = content) -> Any:
                answer: Any = org.restful("composite/sobjects", method=method, json=content)
                if not are_results(answer):
                    raise ValueError("no results")
                return answer

            for answer in self._client.write(send):
                if not answer["success"] and not set(codes_of(answer)) & _THERE_ALREADY:
                    raise self._client.named(_refusal(answer))


def _refusal(answer: dict[str, Any]) -> SourceRefused | SourceRejected:
    reason = reason_of(answer)
    kind = SourceRefused if "INSUFFICIENT" in reason or "ACCESS" in reason else SourceRejected
    return kind(f"refused a part of the permission set ({reason})", "do it by hand")


def _is_granted(row: Row | None, wanted: Wanted) -> bool:
    if row is None or not row.get("permissionsread"):
        return False
    return bool(row.get("permissionsedit")) or not wanted.written


def _field(wanted: Wanted) -> str:
    return f"{wanted.object}.{wanted.name}"
