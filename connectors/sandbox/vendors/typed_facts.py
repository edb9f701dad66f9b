"""What people of the synthetic company type into fields of ours: handoffs, and overrides."""

from collections import defaultdict
from collections.abc import Iterator

from connectors.sandbox.servers.box import WorldFiles
from contracts.crm_fields import FIELDS, HANDOFF_FACTS, OVERRIDE, CrmField

Typed = dict[CrmField, str | None]
"""Values by field. A contact stands there by its number in the world."""

CONTACTS = (FIELDS["handoff_champion"], FIELDS["handoff_decision_maker"])
_OVERRIDE_COLUMNS = ("Score", "Reason", "Until")


def handoffs(world: WorldFiles) -> dict[str, list[tuple[str, Typed]]]:
    """The handoff form of each deal by its number: the wall clock, and the whole form from then."""
    found = defaultdict(list)
    for row in world.rows("crm/handoffs.csv"):
        columns = {name.lower().removesuffix("_contact"): value for name, value in row.items()}
        form = {fact: columns[fact.name.removeprefix("handoff_")] for fact in HANDOFF_FACTS}
        found[row["Opportunity_No"]].append((row["Noted_At"], form))
    return found


def overrides(world: WorldFiles) -> Iterator[tuple[str, str, Typed]]:
    """Account number, wall clock, and the override as it is from then on."""
    for row in world.rows("crm/overrides.csv"):
        values = dict(zip(OVERRIDE, (row[name] for name in _OVERRIDE_COLUMNS), strict=True))
        yield row["Account_No"], row["Set_At"], values
