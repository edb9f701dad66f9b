"""Intercom's search: nested filters over the fields of a record, with its limits."""

from collections.abc import Callable
from typing import Any

MOST_FILTERS = 15
DEEPEST = 2
FIELDS: dict[str, type] = {
    "id": str, "created_at": int, "updated_at": int, "waiting_since": int, "snoozed_until": int,
    "open": bool, "read": bool, "state": str, "priority": str, "admin_assignee_id": int,
    "team_assignee_id": int, "source.type": str, "source.author.email": str,
    "conversation_rating.rating": int, "statistics.first_close_at": int,
    "statistics.last_close_at": int, "statistics.count_reopens": int,
}  # fmt: skip
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda found, value: found == value,
    "!=": lambda found, value: found != value,
    "<": lambda found, value: found is not None and found < value,
    "<=": lambda found, value: found is not None and found <= value,
    ">": lambda found, value: found is not None and found > value,
    ">=": lambda found, value: found is not None and found >= value,
    "IN": lambda found, value: found in value,
    "NIN": lambda found, value: found not in value,
    "~": lambda found, value: value in str(found or ""),
    "!~": lambda found, value: value not in str(found or ""),
    "^": lambda found, value: str(found or "").startswith(value),
    "$": lambda found, value: str(found or "").endswith(value),
}


class Unsearchable(Exception):
    """The query is not one that Intercom takes."""


def matches(record: dict[str, Any], query: Any, depth: int = 0) -> bool:
    """Whether a record fits a query.

    Raises:
        Unsearchable: unknown field or operator, wrong type, too many or too deep filters.
    """
    if not isinstance(query, dict) or "operator" not in query or "value" not in query:
        raise Unsearchable("a filter needs an operator and a value")
    operator, value = query["operator"], query["value"]
    if operator in ("AND", "OR"):
        if depth >= DEEPEST:
            raise Unsearchable(f"filters may be nested {DEEPEST} deep")
        if not isinstance(value, list) or not 1 <= len(value) <= MOST_FILTERS:
            raise Unsearchable(f"a group has 1 to {MOST_FILTERS} filters")
        found = [matches(record, inner, depth + 1) for inner in value]
        return all(found) if operator == "AND" else any(found)
    field = query.get("field")
    if field not in FIELDS:
        raise Unsearchable(f"{field} is no searchable field")
    if operator not in _OPERATORS:
        raise Unsearchable(f"{operator} is no operator")
    values = value if operator in ("IN", "NIN") else [value]
    if not isinstance(values, list) or not all(_fits(each, FIELDS[field]) for each in values):
        raise Unsearchable(f"{field} has a value of another type")
    for step in field.split("."):
        record = (record or {}).get(step)  # type: ignore[assignment]
    of_type = FIELDS[field]
    return _OPERATORS[operator](
        record, [of_type(each) for each in value] if operator in ("IN", "NIN") else of_type(value)
    )


def _fits(value: Any, kind: type) -> bool:
    """Numbers may be written as text."""
    if kind is int:
        return not isinstance(value, bool) and str(value).removeprefix("-").isdigit()
    return isinstance(value, kind)
