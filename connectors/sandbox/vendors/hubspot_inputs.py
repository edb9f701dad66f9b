"""What a call to write asks for, record by record, and how a record is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from connectors.sandbox.vendors.hubspot_search import Refused, invalid
from connectors.sandbox.vendors.hubspot_web import checked_object

ASSOCIATION_TYPES: dict[tuple[str, str], tuple[int, ...]] = {
    ("tasks", "contacts"): (204,), ("tasks", "companies"): (192,), ("tasks", "deals"): (216,),
    ("companies", "tasks"): (191,), ("contacts", "tasks"): (203,), ("deals", "tasks"): (215,),
    ("deals", "companies"): (341, 5), ("companies", "deals"): (342, 6),
    ("deals", "contacts"): (3,), ("contacts", "deals"): (4,),
    ("contacts", "companies"): (279, 1), ("companies", "contacts"): (280, 2),
}  # fmt: skip
"""HubSpot's own types of association, the one without a label first."""

SINGULAR = {
    "companies": "COMPANY", "contacts": "CONTACT", "deals": "DEAL", "tasks": "TASK",
    "feedback_submissions": "FEEDBACK_SUBMISSION",
}  # fmt: skip
"""Object types as messages name them."""

_FIELDS = {
    "create": {"properties", "associations", "objectWriteTraceId"},
    "update": {"id", "idProperty", "properties", "objectWriteTraceId"},
    "upsert": {"id", "idProperty", "properties", "objectWriteTraceId"},
    "archive": {"id"},
}
_REQUIRED = {
    "create": {"properties"}, "update": {"id", "properties"},
    "upsert": {"id", "idProperty", "properties"}, "archive": {"id"},
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """One record as a call names it; `associations` are pairs of object type and id."""

    id: str | None
    properties: dict[str, str]
    trace: str | None = None
    id_property: str | None = None
    associations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Wrong:
    """Why a record is refused."""

    status: int
    category: str
    message: str
    errors: tuple[dict[str, Any], ...] = ()
    context: Mapping[str, list[str]] = field(default_factory=dict)

    def refused(self) -> Refused:
        """The whole call, refused for this record."""
        more: dict[str, Any] = {"errors": list(self.errors)} if self.errors else {}
        more |= {"context": self.context} if self.context else {}
        return Refused(self.status, self.category, self.message, **more)

    def told(self, given: Given) -> dict[str, Any]:
        """The record's error in a 207."""
        context = dict(self.context)
        context |= {"objectWriteTraceId": [given.trace]} if given.trace else {}
        context |= {"ids": [given.id]} if given.id else {}
        return {
            "status": "error", "category": self.category, "message": self.message,
            "context": context, "errors": list(self.errors), "links": {},
        }  # fmt: skip


def unlinkable(type: str, id: str) -> Wrong:
    """What is said of a record that is to be linked and is not there."""
    name = SINGULAR[type]
    context = {
        "INVALID_OBJECT_IDS": [f"{name}={id} is not valid"], "objectId": [id], "objectType": [name],
    }  # fmt: skip
    return Wrong(400, "VALIDATION_ERROR", "One or more associations are invalid", context=context)


def detail(code: str, message: str, name: str | None = None) -> dict[str, Any]:
    """What is wrong with one property."""
    return {"message": message, "code": code, "context": {"propertyName": [name] if name else []}}


def given_of(type: str, act: str, one: Any) -> Given:
    """One input of a call, checked for its form.

    Raises:
        Refused: a field is unknown, missing or of the wrong type.
    """
    fields = checked_object(one, _FIELDS[act])
    if missing := _REQUIRED[act] - set(fields):
        raise invalid(f"Invalid input JSON: {sorted(missing)} missing.")
    for name in ("id", "idProperty", "objectWriteTraceId"):
        if not isinstance(fields.get(name, ""), str):
            raise invalid(f"Invalid input JSON: {name} is no text.")
    properties = fields.get("properties", {})
    if not isinstance(properties, dict):
        raise invalid("Invalid input JSON: properties are no object.")
    for name, value in properties.items():
        # The specification has a map of text to text, without nulls.
        if not isinstance(value, str):
            raise invalid(f"Invalid input JSON: the value of {name} is no text.")
    if act == "update" and not properties:
        raise invalid("No properties found to update, please provide at least one.")
    return Given(
        fields.get("id"), properties, fields.get("objectWriteTraceId"), fields.get("idProperty"),
        _associations(type, fields.get("associations", [])),
    )  # fmt: skip


def _associations(type: str, given: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of object type and id; the type of the association tells to what it leads."""
    found = []
    try:
        for one in given:
            for kind in one["types"]:
                number = int(kind["associationTypeId"])
                if kind["associationCategory"] != "HUBSPOT_DEFINED":
                    raise invalid("There are no associations of one's own in this account.")
                found.append((_leads_to(type, number), str(one["to"]["id"])))
    except (TypeError, KeyError, ValueError):
        raise invalid("Invalid input JSON: an association needs to.id and types.") from None
    return tuple(dict.fromkeys(found))


def _leads_to(type: str, number: int) -> str:
    for (start, end), numbers in ASSOCIATION_TYPES.items():
        if start == type and number in numbers:
            return end
    raise invalid(f"The association type {number} does not begin at {type}.")
