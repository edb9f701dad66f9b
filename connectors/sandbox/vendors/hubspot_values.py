"""What values HubSpot accepts for a property, and how it keeps them."""

import datetime as dt
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

TEXT_LENGTH = 65_536
"""The most characters of a text."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MILLISECONDS = re.compile(r"-?\d{1,15}")
_SHORT = 32  # many records have the same short value, of which one copy is enough
_DAY_MS = 86_400_000


class Invalid(Exception):
    """A value that a property does not take: HubSpot's code for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def kept(property: Mapping[str, Any], value: str) -> str | None:
    """What is kept of a value that was sent: "" clears, and times get one form.

    >>> kept({"name": "due", "type": "date"}, "1782777600000")
    '2026-06-30'

    Raises:
        Invalid: the property does not take it.
    """
    if value == "":
        return None
    checked = _BY_TYPE[property["type"]](property, value)
    return sys.intern(checked) if len(checked) <= _SHORT else checked


def _text(property: Mapping[str, Any], value: str) -> str:
    if len(value) > TEXT_LENGTH:
        raise Invalid(
            "PROPERTY_VALUE_TOO_LONG", f"{property['name']} may have {TEXT_LENGTH} characters."
        )
    return value


def _number(property: Mapping[str, Any], value: str) -> str:
    if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        raise Invalid("INVALID_INTEGER", f"{property['name']} was not a valid number.")
    return value


def _date(property: Mapping[str, Any], value: str) -> str:
    try:
        if _MILLISECONDS.fullmatch(value):
            if int(value) % _DAY_MS:
                raise Invalid("INVALID_DATE", f"{property['name']} is not midnight in UTC.")
            return _moment(value).date().isoformat()
        return dt.datetime.strptime(value, "%Y-%m-%d").date().isoformat()
    except (ValueError, OverflowError):
        raise Invalid("INVALID_DATE", f"{property['name']} was not a valid date.") from None


def _datetime(property: Mapping[str, Any], value: str) -> str:
    try:
        moment = _moment(value)
    except (ValueError, OverflowError):
        raise Invalid("INVALID_DATE", f"{property['name']} was not a valid date.") from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _moment(value: str) -> dt.datetime:
    """Epoch milliseconds, or ISO with a time; without a zone it is UTC."""
    if _MILLISECONDS.fullmatch(value):
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(milliseconds=int(value))
    moment = dt.datetime.fromisoformat(value)
    return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _choice(property: Mapping[str, Any], value: str) -> str:
    if property.get("externalOptions"):
        return value
    options = [option["value"] for option in property["options"]]
    several = property.get("fieldType") == "checkbox"
    chosen = value.split(";") if several else [value]
    if not set(chosen) <= set(options):
        raise Invalid(
            "INVALID_OPTION", f"{property['name']} was not one of the allowed options: {options}"
        )
    return value


def _yes_or_no(property: Mapping[str, Any], value: str) -> str:
    if value not in ("true", "false"):
        raise Invalid("INVALID_BOOLEAN", f"{property['name']} was neither true nor false.")
    return value


_BY_TYPE: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "string": _text, "number": _number, "date": _date, "datetime": _datetime,
    "enumeration": _choice, "bool": _yes_or_no,
}  # fmt: skip
