"""Values as they are sent to the sandbox's Salesforce, turned into what a field holds."""

import datetime as dt
import math
import re
from collections.abc import Callable
from typing import Any

from connectors.sandbox.vendors.salesforce_ids import with_checksum
from connectors.sandbox.vendors.salesforce_rules import RowRefused
from connectors.sandbox.vendors.soql import Field

Converter = Callable[[Any], Any]

_TEXTS = frozenset({"string", "textarea", "picklist", "email", "phone", "url", "anyType"})
_NUMBERS = frozenset({"double", "currency", "percent", "int"})
_ID = re.compile(r"[A-Za-z0-9]{15}([A-Za-z0-9]{3})?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class WrongShape(Exception):
    """A value that cannot be read as one of the field's type."""


def converter(field: Field, picks: tuple[str, ...], *, csv: bool) -> Converter:
    """A function from what is sent, neither null nor empty, to what the field holds.

    The function raises `WrongShape`, or `RowRefused` for a value that the field does not take.

    >>> converter(Field("Score__c", "double", precision=18), (), csv=True)("71")
    71.0
    """
    if field.type in _TEXTS:
        return _text(field, frozenset(picks) if field.restricted else None)
    if field.type in _NUMBERS:
        return _number(field)
    if field.type == "boolean":
        return _boolean_cell if csv else _boolean
    return {"date": _day, "datetime": _time}.get(field.type, _reference(field))


def _text(field: Field, picks: frozenset[str] | None) -> Converter:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise WrongShape
        # Unconfirmed: spaces around a text are not kept.
        text = value.strip() or value
        if len(text) > field.length:
            raise RowRefused(
                "STRING_TOO_LONG",
                f"{field.label}: data value too large: {text} (max length={field.length})",
                [field.name],
            )
        if picks is not None and text not in picks:
            raise RowRefused(
                "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
                f"{field.label}: bad value for restricted picklist field: {text}",
                [field.name],
            )
        return text

    return convert


def _number(field: Field) -> Converter:
    largest = 10 ** (field.precision - field.scale) if field.precision else math.inf

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise WrongShape
        try:
            number = float(value)
        except ValueError:
            raise WrongShape from None
        if not math.isfinite(number):
            raise WrongShape
        if field.precision:
            number = round(number, field.scale)
        if abs(number) >= largest:
            raise RowRefused(
                "NUMBER_OUTSIDE_VALID_RANGE", f"{field.label}: value outside of valid range",
                [field.name],
            )  # fmt: skip
        return number

    return convert


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongShape
    return value


def _boolean_cell(value: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(value.lower())
    if found is None:
        raise WrongShape
    return found


def _day(value: Any) -> str:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise WrongShape
    try:
        return dt.date.fromisoformat(value).isoformat()
    except ValueError:
        raise WrongShape from None


def _time(value: Any) -> str:
    try:
        moment = dt.datetime.fromisoformat(value).astimezone(dt.UTC)
    except (ValueError, TypeError):
        raise WrongShape from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def _reference(field: Field) -> Converter:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise WrongShape
        return full_id(field.label, value)

    return convert


def full_id(label: str, value: str) -> str:
    """An id with its checksum.

    Raises:
        RowRefused: it is no id.
    """
    if not _ID.fullmatch(value):
        message = f"{label}: id value of incorrect type: {value}"
        raise RowRefused("MALFORMED_ID", message, ["Id"])
    return value if len(value) == 18 else with_checksum(value)
