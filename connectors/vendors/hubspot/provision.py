"""Makes what a portal lacks: a group for our properties, the properties, the unique key of tasks.

Each step is done by itself and may be done again: what exists by then is left as it is. HubSpot
has no permission sets for keys: which scopes the key needs is a step for an admin, and counts as
done once HubSpot says that it has them, or, where it does not tell, once every property can be
read and none is missing.
"""

from collections.abc import Callable
from functools import partial

from connectors.api import Secrets
from connectors.crm.settings import HubSpotTarget
from connectors.crm.writing import Step
from connectors.vendors.hubspot.answers import CONFLICTS, Rejected
from connectors.vendors.hubspot.client import EDIT_SCOPES
from connectors.vendors.hubspot.portal import Portal
from connectors.vendors.hubspot.rights import needed_scopes, schema_scopes
from connectors.vendors.hubspot.settings import HubSpotConfig
from connectors.vendors.hubspot.wanted import (
    GROUP,
    GROUP_LABEL,
    UNIQUE_STEPS,
    State,
    Wanted,
    wanted_fields,
    wanted_of_tasks,
    with_options,
)
from connectors.vendors.hubspot.writer import connect_portal
from contracts.errors import SourceRejected

EXISTS_ALREADY = CONFLICTS | {"PROPERTY_EXISTS", "OBJECT_ALREADY_EXISTS"}
SCOPES = "the scopes of the key"
_SCOPES_HOW = (
    "in HubSpot: {where}, choose {needed}; for this command also {provisioning}, which can be "
    "taken away afterwards. So that people do not edit our values: Settings > Properties > the "
    "group Healthloop > Edit property > Manage access, 'View only' for everyone but admins"
)

Make = Callable[[], object]


def connect_provisioner(
    config: HubSpotConfig, target: HubSpotTarget, secrets: Secrets, *, lent: bool = False
) -> "HubSpotProvisioner":
    """The provisioner; sends nothing. `lent` says that the key is an admin's, for this alone."""
    return HubSpotProvisioner(connect_portal(config, secrets), target, lent=lent)


class HubSpotProvisioner:
    """One portal, as `connectors.crm.writing.Provisioner` asks it to be."""

    def __init__(self, portal: Portal, target: HubSpotTarget, *, lent: bool = False) -> None:
        self._portal, self._target, self._lent = portal, target, lent
        self._takes_unique = True
        self._wanted: dict[str, list[Wanted]] = {}
        for wanted in (*wanted_fields(target), *wanted_of_tasks(target)):
            self._wanted.setdefault(wanted.type, []).append(wanted)

    def steps(self) -> list[Step]:
        """Everything that is needed, in order, as it is now. Only reads.

        That tasks take no property with unique values shows only when one is created; from then
        on that step is one to do by hand.
        """
        steps = []
        for type, wanted in self._wanted.items():
            there = GROUP in self._portal.groups(type)
            steps.append(Step(_group(type), "exists" if there else "missing"))
            known = self._portal.properties(type)
            steps += [self._step(one, *one.judge(known.get(one.name))) for one in wanted]
        return [*steps, self._scopes(steps)]

    def _step(self, wanted: Wanted, state: State, how: str) -> Step:
        if state == "incomplete":
            return Step(_property(wanted), "missing", how)
        if state == "missing" and wanted.unique and not self._takes_unique:
            return Step(_property(wanted), "by hand", UNIQUE_STEPS.format(name=wanted.name))
        return Step(_property(wanted), state, how)

    def carry_out(self, step: Step) -> None:
        """Make what one ``missing`` step is about; doing it twice does no harm.

        Raises:
            SourceRejected: HubSpot does not take it; the remedy says what an admin does.
            SourceError: it could not be done; run it again.
        """
        for type, wanted in self._wanted.items():
            if step.what == _group(type):
                _unless_there(partial(self._portal.add_group, type, GROUP, GROUP_LABEL))
            for one in wanted:
                if step.what == _property(one):
                    self._make(one)

    def _make(self, wanted: Wanted) -> None:
        found = self._portal.properties(wanted.type).get(wanted.name)
        state, _ = wanted.judge(found)
        if state == "incomplete" and found is not None:
            options = with_options(found, wanted.field)
            self._portal.set_options(wanted.type, wanted.name, options)
        elif state == "missing" and wanted.unique:
            self._add_unique(wanted)
        elif state == "missing":
            _unless_there(partial(self._portal.add_property, wanted.type, wanted.definition))

    def _add_unique(self, wanted: Wanted) -> None:
        try:
            _unless_there(partial(self._portal.add_property, wanted.type, wanted.definition))
        except Rejected as error:
            self._takes_unique = False
            raise SourceRejected(
                f"hubspot: tasks take no property with unique values ({error.trouble.reason})",
                UNIQUE_STEPS.format(name=wanted.name),
                vendor="hubspot",
            ) from None

    def _scopes(self, steps: list[Step]) -> Step:
        """Whether the key may do what it has to: write and, while properties lack, make them."""
        told = self._portal.scopes()
        making = schema_scopes(self._target, "write")
        reading = schema_scopes(self._target, "read")
        needed = reading if self._lent else needed_scopes(self._target)
        complete = all(step.state == "exists" for step in steps)
        lacking = (needed if complete else needed | making) - told if told is not None else ()
        how = _SCOPES_HOW.format(
            where=EDIT_SCOPES,
            needed=", ".join(sorted(needed)),
            provisioning=", ".join(sorted(making)),
        )
        if lacking:
            how = f"it lacks {', '.join(sorted(lacking))}; {how}"
        done = complete if told is None else not lacking
        return Step(SCOPES, "exists" if done else "by hand", how)


def _unless_there(make: Make) -> None:
    """Make something, unless somebody else did so meanwhile."""
    try:
        make()
    except Rejected as error:
        if not error.trouble.says(EXISTS_ALREADY):
            raise


def _group(type: str) -> str:
    return f"{type}: the group {GROUP_LABEL}"


def _property(wanted: Wanted) -> str:
    return f"{wanted.type}: {wanted.name} ({wanted.field.label})"
