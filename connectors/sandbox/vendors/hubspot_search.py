"""What HubSpot's search accepts, and the shape in which HubSpot refuses."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

from connectors.sandbox.servers import answers


class Refused(answers.Refused):
    """An answer in HubSpot's error shape; `retry_after` (seconds) goes into its header."""

    def __init__(
        self,
        status: int,
        category: str,
        message: str,
        *,
        retry_after: int | None = None,
        **more: Any,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        body = {
            "status": "error", "message": message, "category": category,
            "correlationId": str(uuid.uuid5(uuid.NAMESPACE_URL, message)), **more,
        }  # fmt: skip
        super().__init__(status, body, headers)


def invalid(message: str) -> Refused:
    """A request that makes no sense."""
    return Refused(400, "VALIDATION_ERROR", message)


def comparable(value: Any) -> tuple[int, float, str]:
    """What a value is compared by: the size of numbers and times (milliseconds), else the text."""
    if value in (None, ""):
        return 0, 0.0, ""
    try:
        return 1, float(value), ""
    except ValueError:
        pass
    try:
        return 1, dt.datetime.fromisoformat(str(value)).timestamp() * 1000, ""
    except ValueError:
        return 2, 0.0, str(value).lower()


Test = Callable[[dict[str, Any]], bool]
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": lambda a, b: bool(a == b), "NEQ": lambda a, b: bool(a != b),
    "LT": lambda a, b: bool(a < b), "LTE": lambda a, b: bool(a <= b),
    "GT": lambda a, b: bool(a > b), "GTE": lambda a, b: bool(a >= b),
}  # fmt: skip


def checked_groups(groups: Any, known: set[str]) -> list[list[Test]]:
    """The filters as tests: a record is found when all tests of one group hold."""
    if not isinstance(groups, list) or len(groups) > 5:
        raise invalid("A search may have at most 5 filterGroups.")
    filters = [group.get("filters", []) for group in groups]
    if any(len(of_group) > 10 for of_group in filters) or sum(map(len, filters)) > 25:
        raise invalid("A search may have at most 10 filters in a group and 25 in all.")
    return [[_test(one, known) for one in of_group] for of_group in filters]


def _test(one: dict[str, Any], known: set[str]) -> Test:
    name, operator = one.get("propertyName"), one.get("operator")
    if name not in known:
        raise invalid(f"Property '{name}' does not exist.")
    if operator == "HAS_PROPERTY":
        return lambda properties: properties.get(name) not in (None, "")
    if operator == "NOT_HAS_PROPERTY":
        return lambda properties: properties.get(name) in (None, "")
    if operator == "IN" and isinstance(one.get("values"), list):
        wanted = {comparable(value) for value in one["values"]}
        return lambda properties: comparable(properties.get(name)) in wanted
    if operator not in _COMPARISONS or not isinstance(one.get("value"), str):
        raise invalid(f"Operator '{operator}' is unknown, or its value is no text.")
    compare, value = _COMPARISONS[operator], comparable(one["value"])
    return lambda properties: (
        properties.get(name) not in (None, "") and compare(comparable(properties.get(name)), value)
    )


def checked_sort(sorts: Any, known: set[str]) -> tuple[str, bool]:
    """The property to sort by, and whether backwards; without one in the order of creation."""
    if not isinstance(sorts, list) or len(sorts) > 1:
        raise invalid("A search may have one sort only.")
    if not sorts:
        return "hs_object_id", False
    given = sorts[0]
    if isinstance(given, str):
        given = {
            "propertyName": given.removeprefix("-"),
            "direction": "DESCENDING" if given[0] == "-" else "ASCENDING",
        }
    if given.get("propertyName") not in known:
        raise invalid("The property to sort by does not exist.")
    return given["propertyName"], given.get("direction") == "DESCENDING"
