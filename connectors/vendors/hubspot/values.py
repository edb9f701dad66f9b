"""Our canonical text as HubSpot's property values, and back.

All property values are text, both ways: numbers as they are, dates as ISO or as epoch milliseconds
of midnight UTC, and the empty text where there is no value.
"""

import datetime as dt
import html
import re
from decimal import Decimal, InvalidOperation

from contracts.crm_fields import CrmField

SUBJECT_LENGTH = 255
BODY_LENGTH = 10_000
"""Of plain text, in code points: at worst six times as long once escaped, and HubSpot takes
65,536."""

_UNKEPT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_MIDNIGHT = dt.time(tzinfo=dt.UTC)
_DAY_BEFORE, _DAY_AFTER = 1, 2  # milliseconds of a due date, see `due_value`


def cleaned(text: str, length: int) -> str:
    r"""At most `length` code points, without what no CRM keeps: NUL, controls, lone surrogates.

    >>> cleaned("a\x00b\ud800c", 2)
    'ab'
    """
    return _UNKEPT.sub("", text)[:length].strip()


def encoded(field: CrmField, type: str, text: str | None) -> str:
    """The value of a property of some HubSpot type; the empty text clears it.

    >>> from contracts.crm_fields import FIELDS
    >>> encoded(FIELDS["risk_as_of"], "date", "2026-06-30")
    '2026-06-30'
    >>> encoded(FIELDS["risk_as_of"], "datetime", "2026-06-30")
    '1782777600000'
    """
    if text is None:
        return ""
    if field.kind == "date" and type == "datetime":
        return epoch_ms(dt.datetime.combine(dt.date.fromisoformat(text), _MIDNIGHT))
    return cleaned(text, field.length)


def decoded(field: CrmField, value: object) -> str | None:
    """A property's value as canonical text; one that is no number or date stays as it is.

    >>> from contracts.crm_fields import FIELDS
    >>> decoded(FIELDS["risk_score"], "71.0"), decoded(FIELDS["risk_as_of"], "1782777600000")
    ('71', '2026-06-30')
    """
    if value is None or value == "":
        return None
    text = str(value)
    if field.kind == "number":
        return _number(text)
    if field.kind == "date":
        moment = moment_of(text)
        return text if moment is None else moment.date().isoformat()
    return text


def _number(text: str) -> str:
    try:
        number = Decimal(text)
        whole = number == number.to_integral_value()
    except InvalidOperation:
        return text
    if not number.is_finite():
        return text
    return f"{number:.0f}" if whole else f"{number.normalize():f}"


def moment_of(value: object) -> dt.datetime | None:
    """A date or a moment, in UTC: ISO, or epoch milliseconds. None where it is neither."""
    text = str(value)
    try:
        if text.removeprefix("-").isdigit():
            return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(milliseconds=int(text))
        moment = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def epoch_ms(moment: dt.datetime) -> str:
    """A moment as HubSpot's filters and times want it."""
    return str((moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(milliseconds=1))


def due_value(due_on: dt.date, due_at: dt.datetime) -> str:
    """When a task is due, as `hs_timestamp` keeps it: a moment, where we mean somebody's day.

    In UTC that day may be another one. A millisecond or two say so, and go when a human moves it.

    >>> evening = dt.datetime(2026, 7, 2, 0, tzinfo=dt.UTC)  # 17:00 of the 1st in California
    >>> due_day(due_value(dt.date(2026, 7, 1), evening))
    datetime.date(2026, 7, 1)
    """
    away = {-1: _DAY_BEFORE, 0: 0, 1: _DAY_AFTER}.get((due_on - due_at.date()).days, 0)
    return epoch_ms(due_at.replace(microsecond=away * 1000))


def due_day(value: object) -> dt.date | None:
    """The day that a task is due, as it was meant."""
    moment = moment_of(value) if value else None
    if moment is None:
        return None
    away = {_DAY_BEFORE: -1, _DAY_AFTER: 1}.get(moment.microsecond // 1000, 0)
    return moment.date() + dt.timedelta(days=away)


def safe_html(text: str) -> str:
    """Plain text as HTML that shows it and does nothing: no tag, no link, no entity of its own.

    >>> safe_html("<b>Call</b>\\nnow")
    '&lt;b&gt;Call&lt;/b&gt;<br>now'
    """
    return html.escape(cleaned(text, BODY_LENGTH)).replace("\n", "<br>")
