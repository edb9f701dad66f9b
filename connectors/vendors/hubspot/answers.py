"""What HubSpot answers a batch of writes, record by record.

::

    200, 201   every record that stands in `results`
    207        `results`, and `errors` for others; one error may be about many records, and
               `numErrors` may count more than are listed
    400, 409   nothing was done (unless the body has `results`: then it is read as a 207)
    423, 477   nothing was done: the portal is locked for seconds, or being moved for hours

Every field of an error is optional. A record that the answer does not mention is unknown. Of an
error only codes and names of properties are kept: its text may repeat the values that were sent.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import requests

from connectors.http import Wait, retry_after_seconds
from connectors.vendors.hubspot.client import LOCKED_SECONDS
from connectors.vendors.hubspot.client import judge as judge_reading
from contracts.errors import SourceError, SourceRejected, SourceUnavailable

Record = Mapping[str, Any]

CONFLICTS = frozenset({"CONFLICT", "CONFLICTING_UNIQUE_VALUE"})
NOT_FOUND = frozenset({"OBJECT_NOT_FOUND", "NOT_FOUND", "INVALID_OBJECT_IDS"})
BUSY = frozenset({"LOCKED", "OBJECT_LOCKED", "RATE_LIMITS"})

_CODE = re.compile(r"[A-Z][A-Z0-9_]{2,60}")
_PROPERTY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_TRACES, _IDS = frozenset({"objectWriteTraceId"}), frozenset({"id", "ids"})
_NAMES = frozenset({"propertyName", "propertyNames", "properties", "property"})


@dataclass(frozen=True)
class Trouble:
    """Why something was refused, and which records it is about, by trace or id.

    `codes` are categories and codes, the broader ones first; `properties` are names.
    """

    codes: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    about: frozenset[str] = frozenset()

    @property
    def reason(self) -> str:
        """For people.

        >>> Trouble(("VALIDATION_ERROR", "INVALID_OPTION"), ("healthloop_risk_band",)).reason
        'VALIDATION_ERROR INVALID_OPTION (healthloop_risk_band)'
        """
        names = f" ({', '.join(self.properties)})" if self.properties else ""
        return (" ".join(self.codes) or "refused") + names

    def says(self, codes: Iterable[str]) -> bool:
        """Whether it names one of these codes."""
        return not set(codes).isdisjoint(self.codes)


@dataclass(frozen=True)
class Answered:
    """The records that came back and the errors, of one batch."""

    results: tuple[Record, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    @cached_property
    def _by_trace(self) -> dict[str, Record]:
        """Records by their trace; those that come without one by their id."""
        return {str(r.get("objectWriteTraceId") or r["id"]): r for r in self.results}

    def result(self, trace: str) -> Record | None:
        """The record of an input, in whatever order they came."""
        return self._by_trace.get(trace)

    def trouble(self, trace: str, others: Iterable[str]) -> Trouble | None:
        """The error of an input that has no result; `others` are all such inputs.

        An error that names no record is about the one that is left, if only one is.
        """
        for trouble in self.troubles:
            if trace in trouble.about:
                return trouble
        left = set(others)
        left -= {about for trouble in self.troubles for about in trouble.about}
        loose = [trouble for trouble in self.troubles if not trouble.about]
        return loose[0] if left == {trace} and len(loose) == 1 else None


class Rejected(SourceRejected):
    """A whole call was refused and nothing was done; `trouble` says why.

    `answered` is given where the answer has the shape of a batch all the same.
    """

    trouble: Trouble = Trouble()
    answered: Answered | None = None


class Locked(SourceUnavailable):
    """Nothing was done: the portal is locked or being moved, for so many `seconds`."""

    seconds: float = LOCKED_SECONDS


def judge_writing(response: requests.Response) -> SourceError | Wait | None:
    """Like the reader's judge, but what refuses a write keeps its reasons, and nothing waits."""
    status = response.status_code
    if status in (423, 477):
        locked = Locked(f"answered {status}", "try again later")
        locked.seconds = max(retry_after_seconds(response) or 0, LOCKED_SECONDS)
        return locked
    if status not in (400, 404, 409, 422):
        return judge_reading(response)
    body = response.json()
    trouble = trouble_of(body)
    rejected = Rejected(
        f"answered {status}: {trouble.reason}", "check the settings, or update Healthloop"
    )
    rejected.trouble = trouble
    rejected.answered = answered(body)
    return rejected


def answered(body: Any) -> Answered | None:
    """The body of a batch's answer; None where it is of another shape."""
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        return None
    if not all(isinstance(one.get("properties"), dict) and "id" in one for one in results):
        return None
    errors = body.get("errors") or []
    troubles = [trouble_of(error) for error in errors if isinstance(error, dict)]
    return Answered(tuple(results), tuple(troubles))


def trouble_of(error: Mapping[str, Any]) -> Trouble:
    """What an error object says, without its text.

    >>> trouble_of({"category": "OBJECT_NOT_FOUND", "context": {"ids": ["7"]}, "message": "Ada?"})
    Trouble(codes=('OBJECT_NOT_FOUND',), properties=(), about=frozenset({'7'}))
    """
    parts = [error, *(part for part in error.get("errors") or [] if isinstance(part, dict))]
    contexts = [context for part in parts if isinstance(context := part.get("context"), dict)]
    codes = [part.get(key) for part in parts for key in ("category", "code", "subCategory")]
    codes += [key for context in contexts for key in context]  # INVALID_OBJECT_IDS stands there
    names = [*_values(contexts, _NAMES), *(part.get("in") for part in parts)]
    return Trouble(
        _matching(_CODE, codes),
        _matching(_PROPERTY, names),
        frozenset(_values(contexts, _TRACES) or _values(contexts, _IDS)),
    )


def _values(contexts: list[dict[str, Any]], keys: frozenset[str]) -> list[str]:
    """What contexts hold under one of these keys: a text, or a list of them."""
    given = [context[key] for context in contexts for key in context if key in keys]
    return [str(one) for some in given for one in (some if isinstance(some, list) else [some])]


def _matching(pattern: re.Pattern[str], values: list[Any]) -> tuple[str, ...]:
    """The texts that look as they should, each once; what else stands there is not for us."""
    texts = (value for value in values if isinstance(value, str) and pattern.fullmatch(value))
    return tuple(dict.fromkeys(texts))
