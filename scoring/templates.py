"""The text of tasks: plain placeholders such as ``{account.name}``, and nothing else.

A placeholder is a known name and no expression: there are no attributes, indexes or formats to
reach through. What is filled in is text; it is never read for placeholders again.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping

from contracts.documents import nearest

ACCOUNT = ("name", "owner", "sales_owner", "segment", "stage", "plan", "arr", "renews_on")
"""What a text may say of an account, as ``{account.<name>}``."""

MEASURE = "metric:"
LONGEST_VALUE = 120
UNKNOWN = "unknown"

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_BIDI = frozenset(range(0x202A, 0x202F)) | frozenset(range(0x2066, 0x206A))


def names_of(measures: Collection[str]) -> frozenset[str]:
    """Every placeholder that may stand in a task's text."""
    return frozenset(
        ["reason", *(f"account.{name}" for name in ACCOUNT), *(f"{MEASURE}{m}" for m in measures)]
    )


def mistakes(text: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """What is wrong with a text, as (cause, remedy).

    >>> list(mistakes("Call {account.nam}", {"account.name"}))
    [("unknown placeholder '{account.nam}'", "did you mean 'account.name'?")]
    """
    for found in _PLACEHOLDER.findall(text):
        if found not in names:
            yield f"unknown placeholder '{{{found}}}'", nearest(found, names)
    if set(_PLACEHOLDER.sub("", text)) & {"{", "}"}:
        yield "a brace stands alone", "write a placeholder like {account.name}, and no other braces"


def measures_in(text: str) -> set[str]:
    """The measures that a text asks for.

    >>> measures_in("{account.name}: {metric:open_p1_tickets} open")
    {'open_p1_tickets'}
    """
    return {
        name.removeprefix(MEASURE)
        for name in _PLACEHOLDER.findall(text)
        if name.startswith(MEASURE)
    }


def filled(text: str, values: Mapping[str, str | None]) -> str:
    """A text with its placeholders filled, as one line; what is not known reads ``unknown``.

    >>> filled("Call {account.name}", {"account.name": "{reason}\\nLtd"})
    'Call {reason} Ltd'
    """
    return _PLACEHOLDER.sub(lambda match: one_line(values.get(match[1]) or UNKNOWN), text)


def one_line(text: str, longest: int = LONGEST_VALUE) -> str:
    """A customer's text as one short line: no control characters, no line breaks, no overrides of
    the writing direction, no lone surrogates.

    >>> one_line("A\\r\\nB\\x00\\u202eC")
    'A BC'
    """
    # Cut first: ten megabytes need not be looked through to show a hundred characters.
    line = text[: 10 * longest]
    if not (line.isascii() and line.isprintable()):
        line = "".join(_harmless(character) for character in line)
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _harmless(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\v\f\r\x85" or category in ("Zl", "Zp"):
        return " "
    return "" if category in ("Cc", "Cs") or ord(character) in _BIDI else character


def shown(number: float | None) -> str | None:
    """A number as people write it: ``1,234`` or ``0.7``.

    >>> shown(1234.0), shown(0.66), shown(None)
    ('1,234', '0.7', None)
    """
    if number is None:
        return None
    return f"{number:,.0f}" if abs(number - round(number)) < 0.05 else f"{number:,.1f}"
