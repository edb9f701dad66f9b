"""Parsing JSON strictly, but without losing what is valid and unusual."""

import json
import re
from typing import Any, NoReturn

import orjson

_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER = re.compile(rb"[:\[,]\s*-?\d{19}")
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)


def parsed(content: bytes) -> Any:
    """The value of a JSON text.

    Integers beyond 64 bits, such as the ids of some vendors, keep all their digits. Half of a
    surrogate pair, which is what a vendor leaves of an emoji that it cuts in two, becomes U+FFFD:
    one such text would otherwise spoil its page for ever. NaN and Infinity are no JSON.

    Raises:
        ValueError: it is no JSON.

    >>> parsed(b'{"id": 123456789012345678901, "note": "cut \\\\ud83d"}')
    {'id': 123456789012345678901, 'note': 'cut \\ufffd'}
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        if "surrogate" not in error.msg:
            raise
        content = _ESCAPE.sub(_whole, content)
        value = orjson.loads(content)
    # Nineteen digits in a row are looked for first: the expression takes longer than the parsing.
    if b"0" * 19 in content.translate(_DIGITS) and _LONG_INTEGER.search(content):
        # orjson would make them floats, and two ids one.
        return json.loads(content, parse_constant=_refuse)
    return value


def _whole(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape.group("half") else escape.group()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
