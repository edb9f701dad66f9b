"""What Healthloop needs in an org, made where it lacks: fields, a permission set, its assignment.

Fields are made by the Tooling API, and nobody sees a new one until a permission set says so; the
permission set and what it grants are records. Whoever does this needs rights that writing does not
need: *Customize Application*, *Manage Profiles and Permission Sets* and *Assign Permission Sets*.
Who lacks them is told what an admin clicks instead.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from simple_salesforce import Salesforce, SalesforceMalformedRequest, format_soql

from connectors.api import Secrets
from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import Step
from connectors.vendors.salesforce.client import SalesforceClient, connect_for_writing, error_code
from connectors.vendors.salesforce.permissions import SETUP, HealthloopSet, Held
from connectors.vendors.salesforce.queries import check
from connectors.vendors.salesforce.rights import Rights, described, rights_of, user_of
from connectors.vendors.salesforce.seen import rows
from connectors.vendors.salesforce.settings import SalesforceConfig
from connectors.vendors.salesforce.wanted import (
    State,
    Wanted,
    by_name,
    wanted_fields,
    wanted_of_tasks,
)
from contracts.errors import InputError, SourceRefused, SourceRejected

T = TypeVar("T")
_THERE_ALREADY = "DUPLICATE_DEVELOPER_NAME"
_CUSTOMIZE = "CustomizeApplication"
_GRANT = "ManageProfilesPermissionsets"
_ASSIGN = "AssignPermissionSets"


@dataclass(frozen=True)
class _Need:
    """Something that there should be: how it is made, what an admin clicks to make it.

    `right` is the right of the whole org that making it needs. `is_there` looks at the permission
    set; fields are judged by themselves.
    """

    what: str
    make: Callable[[], None]
    by_hand: str
    right: str
    is_there: Callable[[Held], bool] = lambda held: False


def connect_provisioner(
    config: SalesforceConfig,
    target: SalesforceTarget,
    secrets: Secrets,
    *,
    assign_to: str | None = None,
) -> "SalesforceProvisioner":
    """The provisioner; nothing is sent yet.

    `assign_to` is the username of the integration's user, where the credentials are an admin's.
    """
    return SalesforceProvisioner(connect_for_writing(config, secrets), target, assign_to)


class SalesforceProvisioner:
    """One org, as `connectors.crm.writing.Provisioner` asks it to be."""

    def __init__(
        self, client: SalesforceClient, target: SalesforceTarget, assign_to: str | None = None
    ) -> None:
        self._client = client
        self._assign_to = assign_to
        self._set = HealthloopSet(client, target)
        self._wanted = [*wanted_fields(target), *wanted_of_tasks(target)]
        self._fields = {
            f"field {one.full_name}": _Need(
                f"field {one.full_name}", partial(self._make_field, one), one.by_hand(), _CUSTOMIZE
            )
            for one in self._wanted
        }
        self._permissions = {need.what: need for need in self._of_permissions()}
        self._refused: set[str] = set()

    def _of_permissions(self) -> Iterator[_Need]:
        ours = self._set
        yield _Need("permission set Healthloop", ours.make, ours.make_by_hand(), _GRANT,
                    ours.is_whole)  # fmt: skip
        for object in ours.objects:
            yield _Need(
                f"permission set Healthloop: rights on {object}",
                partial(ours.grant_object, object), ours.object_by_hand(object), _GRANT,
                partial(ours.grants_object, object=object),
            )  # fmt: skip
        for object in dict.fromkeys(one.object for one in self._wanted):
            yield _Need(
                f"permission set Healthloop: fields of {object}",
                partial(ours.grant_fields, object), ours.fields_by_hand(object), _GRANT,
                partial(ours.grants_fields, object=object),
            )  # fmt: skip
        who = self._assign_to or "the integration's user"
        yield _Need(
            f"permission set Healthloop: assigned to {who}", self._assign,
            f"{SETUP} > Manage Assignments > Add Assignment: {who}", _ASSIGN,
            lambda held: held.id is not None and self._user() in held.users,
        )  # fmt: skip

    def steps(self) -> list[Step]:
        """Everything that is needed, in order, as it is now. Only reads."""
        judged = list(self._judged())
        rights = self._shown(lambda: rights_of(self._client, user_of(self._client)))
        steps = [
            self._step(need, state, how, rights)
            for need, (state, how) in zip(self._fields.values(), judged, strict=True)
        ]
        held = self._shown(self._set.held)
        for need in self._permissions.values():
            is_there = held is not None and self._shown(partial(need.is_there, held))
            if held is None or is_there is None:
                steps.append(Step(need.what, "by hand", need.by_hand))
            else:
                steps.append(self._step(need, "exists" if is_there else "missing", "", rights))
        return steps

    def carry_out(self, step: Step) -> None:
        """Make what one ``missing`` step is about; doing it twice does no harm.

        Raises:
            InputError: there is no such step.
            SourceRejected: the org does not let us. The remedy says what an admin does, and the
                step is one to do by hand from now on.
            SourceError: it could not be done; run it again.
        """
        need = self._fields.get(step.what) or self._permissions.get(step.what)
        if need is None:
            raise InputError(f"there is no step '{step.what}'", "take one of `steps`")
        try:
            need.make()
        except (SourceRefused, SourceRejected) as error:
            self._refused.add(need.what)
            raise SourceRejected(error.cause, need.by_hand, vendor="salesforce") from None

    def _step(self, need: _Need, state: State, how: str, rights: Rights | None) -> Step:
        lacks_right = rights is not None and rights.lack(need.right)
        if state == "missing" and (lacks_right or need.what in self._refused):
            return Step(need.what, "by hand", need.by_hand)
        return Step(need.what, state, how)

    def _judged(self) -> Iterator[tuple[State, str]]:
        """Whether each field is there and serves; one that nobody may see yet is there, too."""
        objects = dict.fromkeys(one.object for one in self._wanted)
        seen = {object: by_name(described(self._client, object)) for object in objects}
        made = self._shown(self._made) or set()
        for one in self._wanted:
            state, how = one.judge(seen[one.object].get(one.name.lower()))
            if state == "missing" and one.full_name.lower() in made:
                state = "exists"
            yield state, how

    def _made(self) -> set[str]:
        """Those of the fields that the org has, seen or not, such as ``activity.hl_key__c``."""
        own = [one for one in self._wanted if one.name.endswith("__c")]
        soql = format_soql(
            "SELECT Id, DeveloperName, TableEnumOrId FROM CustomField "
            "WHERE TableEnumOrId IN {} AND DeveloperName IN {}",
            sorted({one.table for one in own}),
            sorted({one.name.removesuffix("__c") for one in own}),
        )
        answer: Any = self._client.ask(lambda org: org.restful("tooling/query", {"q": soql}))
        check(self._client, answer)
        return {
            f"{row['TableEnumOrId']}.{row['DeveloperName']}__c".lower() for row in answer["records"]
        }

    def _make_field(self, wanted: Wanted) -> None:
        content = {"FullName": wanted.full_name, "Metadata": wanted.metadata}

        def send(org: Salesforce) -> None:
            try:
                org.restful("tooling/sobjects/CustomField", method="POST", json=content)
            except SalesforceMalformedRequest as error:
                if error_code(error.content) != _THERE_ALREADY:
                    raise

        self._client.write(send)

    def _assign(self) -> None:
        self._set.assign(self._user())

    def _user(self) -> str:
        if self._assign_to is None:
            return user_of(self._client)
        soql = format_soql("SELECT Id FROM User WHERE Username = {}", self._assign_to)
        found = [row["id"] for row in rows(self._client, soql)]
        if len(found) != 1:
            raise InputError(f"there is no user '{self._assign_to}'", "give a username of the org")
        return str(found[0])

    def _shown(self, look: Callable[[], T]) -> T | None:
        """What the org shows; None where it shows this user nothing of the kind."""
        try:
            return look()
        except (SourceRefused, SourceRejected):
            return None
