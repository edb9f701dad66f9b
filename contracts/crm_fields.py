"""The fields that Healthloop owns in a CRM, and those that it provides for people to fill.

A field has one name here (``risk_score``), and a default name in each CRM: ``HL_Risk_Score__c`` in
Salesforce, ``healthloop_risk_score`` in HubSpot. `crm.yaml` may give others. Values are kept as
text in one canonical form: whole numbers as ``71``, days as ``2026-06-30``, absent as None.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

CrmObject = Literal["account", "opportunity"]
"""Account or company; opportunity or deal."""

Kind = Literal["number", "text", "long_text", "date", "choice"]

SCORES = ("risk", "upsell", "health", "handoff")
"""`health` is the one of the account's desired outcome."""

PARTS = ("score", "band", "reasons", "coverage", "as_of", "scorecard", "change")
"""What is shown of each score. `change` is against the score of a week before."""

OBJECTS: tuple[CrmObject, ...] = ("account", "opportunity")
TEXT_LENGTH, LONG_TEXT_LENGTH = 255, 4000


@dataclass(frozen=True)
class CrmField:
    """One field.

    Attributes:
        name: Its name in Healthloop.
        kind: What its values are.
        label: What people read in the CRM.
        help: What it means, in a sentence.
        written_on: The objects on which Healthloop writes it; people must not.
        read_on: The objects on which people fill it and Healthloop only reads it.
        choices: The values of a choice.
        length: The most characters of a text, in code points.
    """

    name: str
    kind: Kind
    label: str
    help: str
    written_on: tuple[CrmObject, ...] = ()
    read_on: tuple[CrmObject, ...] = ()
    choices: tuple[str, ...] = ()
    length: int = TEXT_LENGTH

    @property
    def salesforce(self) -> str:
        """The default API name in Salesforce.

        >>> FIELDS["risk_as_of"].salesforce
        'HL_Risk_As_Of__c'
        """
        return f"HL_{'_'.join(word.capitalize() for word in self.name.split('_'))}__c"

    @property
    def hubspot(self) -> str:
        """The default internal name in HubSpot.

        >>> FIELDS["risk_as_of"].hubspot
        'healthloop_risk_as_of'
        """
        return f"healthloop_{self.name}"


_BANDS = {
    "risk": ("red", "yellow", "green", "unknown"),
    "upsell": ("ready", "possible", "none", "unknown"),
    "health": ("green", "yellow", "red", "unknown"),
    "handoff": ("green", "yellow", "red", "unknown"),
}
_SAYS = {
    "risk": "0 is safe, 100 is leaving",
    "upsell": "0 is none, 100 is ready to buy more",
    "health": "0 is far from the desired outcome, 100 has reached it",
    "handoff": "0 is an empty handoff from sales, 100 a complete one",
}


def _of_score(score: str) -> list[CrmField]:
    title = score.capitalize()
    parts: list[tuple[str, Kind, str, str, tuple[str, ...], int]] = [
        ("score", "number", "score", f"{_SAYS[score]}.", (), TEXT_LENGTH),
        ("band", "choice", "band", "The colour of the score.", _BANDS[score], TEXT_LENGTH),
        ("reasons", "long_text", "reasons", "What weighs most, strongest first.", (),
         LONG_TEXT_LENGTH),
        ("coverage", "number", "coverage in percent", "How much of the score's weight is known.",
         (), TEXT_LENGTH),
        ("as_of", "date", "as of", "The day whose facts these values were last changed by.", (),
         TEXT_LENGTH),
        ("scorecard", "text", "scorecard", "The scorecard and its version.", (), TEXT_LENGTH),
        ("change", "number", "change in a week", "The score less that of a week before.", (),
         TEXT_LENGTH),
    ]  # fmt: skip
    return [
        CrmField(f"{score}_{part}", kind, f"{title} {label}", help, OBJECTS, (), choices, length)
        for part, kind, label, help, choices, length in parts
    ]


def _handoff(name: str, kind: Kind, label: str, help: str, length: int = TEXT_LENGTH) -> CrmField:
    """A fact that sales notes on the deal, and that the account shows as well."""
    return CrmField(
        f"handoff_{name}", kind, label, help, ("account",), ("opportunity",), (), length
    )


HANDOFF_FACTS = (
    _handoff("promised_outcome", "text", "Promised outcome", "What sales promised them to reach."),
    _handoff("success_criteria", "long_text", "Success criteria",
             "How the customer will tell that it was reached.", LONG_TEXT_LENGTH),
    _handoff("champion", "text", "Champion", "The id of the contact who wants this to succeed."),
    _handoff("decision_maker", "text", "Decision maker", "The id of the contact who decides."),
    _handoff("stakeholders_met", "number", "Stakeholders met", "How many people sales has met."),
    _handoff("sentiment", "number", "Sentiment before the sale", "1 is bad, 5 is good."),
    _handoff("kickoff_on", "date", "Kickoff date", "The day of the kickoff."),
)  # fmt: skip
"""Filled by sales on the opportunity; Healthloop copies them to the account, for CS."""

OVERRIDE = (
    CrmField("override_score", "number", "Risk override", "The risk that a person sets, 0 to 100.",
             (), ("account",)),
    CrmField("override_reason", "text", "Risk override: reason", "Why; without it nothing is set.",
             (), ("account",)),
    CrmField("override_until", "date", "Risk override: until", "The last day on which it counts.",
             (), ("account",)),
)  # fmt: skip
"""Filled by people, read by Healthloop: a risk score set by hand, with a reason and an expiry."""

FIELDS: dict[str, CrmField] = {
    field.name: field
    for field in (
        *(field for score in SCORES for field in _of_score(score)),
        CrmField("health_outcome", "text", "Desired outcome", "The outcome that the health score "
                 "is about.", OBJECTS),
        *HANDOFF_FACTS,
        *OVERRIDE,
    )
}  # fmt: skip


def written_on(object: CrmObject) -> list[CrmField]:
    """The fields that Healthloop writes on an object: these and no others."""
    return [field for field in FIELDS.values() if object in field.written_on]


def read_on(object: CrmObject) -> list[CrmField]:
    """The fields that people fill on an object for Healthloop to read."""
    return [field for field in FIELDS.values() if object in field.read_on]


@cache
def group_of(name: str) -> str:
    """What a field that we write belongs to: one of `SCORES`, or ``facts`` of the handoff.

    >>> group_of("health_outcome"), group_of("handoff_band"), group_of("handoff_champion")
    ('health', 'handoff', 'facts')
    """
    return "facts" if FIELDS[name] in HANDOFF_FACTS else name.partition("_")[0]
