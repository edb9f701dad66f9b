"""Our fields in an org: what they are called there, and their values on the way there and back."""

import datetime as dt
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, Self

from connectors.crm.settings import Target, names_of
from connectors.crm.writing import FieldUpdate, Outcome, Result
from contracts.crm_fields import FIELDS, CrmField, CrmObject, written_on

OBJECTS: dict[CrmObject, str] = {"account": "Account", "opportunity": "Opportunity"}
KEY, EPISODE = "HL_Key__c", "HL_Episode__c"
KEY_LENGTH, EPISODE_LENGTH, SUBJECT_LENGTH = 64, 255, 255

Value = str | int | float | None
"""A value as JSON."""

_UNSENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS = re.compile(r"\r\n?")
_ID = re.compile("[A-Za-z0-9]{15}([A-Za-z0-9]{3})?")
_MOMENT = "%Y-%m-%dT%H:%M:%S.%f%z"


@dataclass(frozen=True)
class Names:
    """The API names of our fields, by our own names: those in use, and those that we may write."""

    known: Mapping[CrmObject, Mapping[str, str]]
    written: Mapping[CrmObject, Mapping[str, str]]
    key: str
    episode: str

    @classmethod
    def of(cls, target: Target) -> Self:
        """The names that `crm.yaml` gives, or the default ones."""
        known = {object: names_of("salesforce", target, object) for object in OBJECTS}
        written = {
            object: {
                field.name: known[object][field.name]
                for field in written_on(object)
                if field.name in known[object]
            }
            for object in OBJECTS
        }
        return cls(known, written, target.task.key or KEY, target.task.episode or EPISODE)

    def values(self, update: FieldUpdate) -> dict[str, Value] | Result:
        """What is sent of a record, by API names: nothing but fields on our list gets into it.

        A record with a value that is none of its field's kind is refused whole, and not sent.

        Raises:
            ValueError: a field is not on our list.
        """
        written = self.written[update.object]
        unknown = update.values.keys() - written.keys()
        if unknown:
            raise ValueError(f"not written on {update.object}: {', '.join(sorted(unknown))}")
        values: dict[str, Value] = {}
        wrong = []
        for name, text in update.values.items():
            try:
                short = text is None or len(text) <= _SHORT
                values[written[name]] = (_short_to_api if short else _to_api)(name, text)
            except ValueError:
                wrong.append(name)
        if wrong:
            return Result(Outcome.REJECTED, reason=f"INVALID_VALUE {', '.join(wrong)}")
        return values


def clean(text: str, length: int) -> str:
    """A text as an org can keep it: without NUL and halves of characters, cut by code point.

    >>> clean("green\\x00 \\ud800field  ", 8)
    'green fi'
    """
    return _UNSENDABLE.sub("", _LINE_ENDS.sub("\n", text)).strip()[:length].rstrip()


def to_api(field: CrmField, text: str | None) -> Value:
    """A canonical value as JSON: a number, a day as ``2026-06-30``, or text; None empties it.

    >>> to_api(FIELDS["risk_score"], "71")
    71

    Raises:
        ValueError: it is no value of the field's kind.
    """
    if text is None or not text.strip():
        return None
    if field.kind == "number":
        return _number(text)
    if field.kind == "date":
        return dt.date.fromisoformat(text).isoformat()
    if field.kind == "choice" and text not in field.choices:
        raise ValueError("no choice of the field")
    return clean(text, field.length) or None


def _to_api(name: str, text: str | None) -> Value:
    return to_api(FIELDS[name], text)


_SHORT = 40
_short_to_api = lru_cache(maxsize=10_000)(_to_api)
"""Scores, bands and days: a hundred thousand records show the same few."""


def _number(text: str) -> int | float:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("no number") from None
    if not number.is_finite() or not math.isfinite(float(number)):
        raise ValueError("no finite number")
    return int(number) if number == number.to_integral_value() else float(number)


def from_api(value: Any) -> str | None:
    """A value of an answer as canonical text.

    >>> from_api(71.0), from_api("as told"), from_api(None)
    ('71', 'as told', None)
    """
    if value is None or value == "":
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.0f}" if value == int(value) else repr(float(value))
    return _LINE_ENDS.sub("\n", str(value))


def moment_of(value: Any) -> dt.datetime | None:
    """A time as REST writes it: ``2026-06-30T20:00:00.000+0000``."""
    try:
        return dt.datetime.strptime(str(value), _MOMENT).astimezone(dt.UTC)
    except ValueError:
        return None


def is_id(text: str) -> bool:
    """Whether a text has the form of a record's id."""
    return _ID.fullmatch(text) is not None


def long_id(id: str) -> str:
    """An id of 15 characters, which tells cases apart, with its checksum.

    >>> long_id("0015g0000000007"), long_id("0015g0000000007AAA")
    ('0015g0000000007AAA', '0015g0000000007AAA')
    """
    if len(id) != 15:
        return id
    bits = (
        sum(character.isupper() << place for place, character in enumerate(id[start : start + 5]))
        for start in (0, 5, 10)
    )
    return id + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[value] for value in bits)
