"""Where the ledger's values are: in which organisation, and in which fields of it.

What a record acknowledged says nothing of another field, nor of a record of the same id in another
organisation, as a copy has it.
"""

from collections.abc import Mapping

from connectors.crm.ledger import Ledger
from connectors.crm.settings import CrmSettings, names_of
from connectors.crm.writing import CrmName
from contracts.crm_fields import OBJECTS
from contracts.errors import HeldError

ORGANISATION = "organisation"


def keep_places(ledger: Ledger, settings: CrmSettings, accounts: Mapping[CrmName, str]) -> None:
    """Note where values go; what was acknowledged in a field of another name is forgotten.

    Args:
        ledger: that of the company.
        settings: `crm.yaml`.
        accounts: whose data the credentials of each CRM open.

    Raises:
        HeldError: a CRM is another organisation than the one whose records the ledger knows.
    """
    for crm, target in settings.targets.items():
        known, account = ledger.places(crm), accounts[crm]
        if known.get(ORGANISATION, account) != account:
            raise HeldError(
                f"{crm} is account '{account}' now, and the ledger is that of "
                f"'{known[ORGANISATION]}'",
                "use credentials of that account, or set the ledger aside to begin anew in this "
                "one (docs/crm.md, The ledger)",
            )
        names = {
            (object, field): name
            for object in OBJECTS
            for field, name in names_of(crm, target, object).items()
        }
        places = {f"{object}.{field}": name for (object, field), name in names.items()}
        moved = {
            (object, field)
            for (object, field), name in names.items()
            if known.get(f"{object}.{field}", name) != name
        }
        if {ORGANISATION: account, **places}.items() - known.items():
            ledger.set_places(crm, {ORGANISATION: account, **places}, moved=moved)
