"""Faults to order: which answers are spoiled, and how. `spoiling.py` carries them out."""

import re
from dataclasses import dataclass
from threading import Lock
from typing import Any

from contracts.documents import nearest
from contracts.errors import InputError

KINDS: dict[str, frozenset[str]] = {
    "status": frozenset({"code", "headers", "body"}),
    "error_json": frozenset({"body"}),
    "html": frozenset(),
    "empty": frozenset(),
    "redirect": frozenset({"to", "code"}),
    "stall": frozenset(),
    "delay": frozenset({"seconds"}),
    "truncate": frozenset({"keep"}),
    "reset": frozenset({"keep"}),
    "wrong_length": frozenset({"by"}),
    "bad_gzip": frozenset(),
    "empty_page": frozenset(),
    "repeat_page": frozenset(),
    "repeat_cursor": frozenset({"field"}),
    "rewrite": frozenset({"rewrite"}),
    "commit_then_502": frozenset(),
}
"""Every kind, with the options it takes.

In place of an answer: `status` (`code` 503, `headers`, `body` as text or JSON), `error_json` (200
with `body`), `html` (200 with a login page), `empty` (204), `redirect` (`to` an address), `stall`
(headers, and then nothing until the client leaves).

On the way out: `truncate` (`keep` this share of the body, with the Content-Length of the whole),
`reset` (the same, but the connection is torn down), `wrong_length` (the whole body under a
Content-Length that is `by` too large, or too small if negative), `bad_gzip` (compressed and cut),
`empty_page` (every top-level list emptied), `repeat_page` (the last unspoiled answer again),
`repeat_cursor` (only the dotted `field` is as in that one), `rewrite` (a function of the body),
`commit_then_502` (the server does its work, and the client gets a 502). `delay` (`seconds`)
answers late.
"""

_REQUIRED = {"redirect": "to", "repeat_cursor": "field", "rewrite": "rewrite"}
_NEED_AN_ANSWER_BEFORE = ("repeat_page", "repeat_cursor")


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Rule:
    """One fault, and how far it is: `seen` counts the requests that matched."""

    vendor: str
    do: str
    path: str
    asks: str
    nth: int
    times: int | None
    how: dict[str, Any]
    seen: int = 0
    before: Answer | None = None

    @property
    def is_due(self) -> bool:
        """Whether the latest of the matching requests is to be spoiled."""
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)

    @property
    def keeps_answers(self) -> bool:
        """Whether the last answer that is not spoiled has to be kept, to come again."""
        return self.do in _NEED_AN_ANSWER_BEFORE

    def matches(self, vendor: str, path: str, asked: str) -> bool:
        """Whether a request is of those that the rule is about."""
        return (
            vendor == self.vendor
            and re.search(self.path, path) is not None
            and re.search(self.asks, asked) is not None
        )


class Faults:
    """The faults that were ordered and are not withdrawn."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = Lock()

    def add(
        self,
        *,
        vendor: str,
        do: str,
        path: str | None = None,
        asks: str | None = None,
        nth: int = 1,
        times: int | None = 1,
        **how: Any,
    ) -> Rule:
        """Spoil answers: from the `nth` matching request on, counted from now, so many `times`.

        Args:
            vendor: Whose answers.
            do: One of `KINDS`; `how` are its options.
            path: A regular expression that the path (without the sandbox's prefix) contains.
            asks: A regular expression that the query, decoded, or the request's body contains.
            nth: The first request to spoil.
            times: How many; None for every one from there on.

        Raises:
            InputError: an unknown kind or option, a missing one, or an impossible number.
        """
        _check(do, nth, times, how)
        try:
            re.compile(path or "")
            re.compile(asks or "")
        except re.error as error:
            raise InputError(f"a fault's pattern: {error}", "mend the expression") from None
        rule = Rule(vendor, do, path or "", asks or "", nth, times, how)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Withdraw all faults."""
        with self._lock:
            self._rules.clear()

    def reads_bodies_of(self, vendor: str) -> bool:
        """Whether some rule has to look into this vendor's requests."""
        with self._lock:
            return any(rule.vendor == vendor and rule.asks for rule in self._rules)

    def matching(self, vendor: str, path: str, asked: str) -> list[Rule]:
        """The rules that a request matches; it counts for each of them. The first due one acts."""
        with self._lock:
            rules = [rule for rule in self._rules if rule.matches(vendor, path, asked)]
            for rule in rules:
                rule.seen += 1
            return rules


def _check(do: str, nth: int, times: int | None, how: dict[str, Any]) -> None:
    if do not in KINDS:
        raise InputError(f"'{do}' is no kind of fault", nearest(do, KINDS))
    unknown = sorted(set(how) - KINDS[do])
    if unknown:
        known = ", ".join(sorted(KINDS[do])) or "none"
        raise InputError(f"the fault {do} has no option {unknown[0]}", f"it knows: {known}")
    if do in _REQUIRED and _REQUIRED[do] not in how:
        raise InputError(f"the fault {do} lacks {_REQUIRED[do]}", "give it")
    first = 2 if do in _NEED_AN_ANSWER_BEFORE else 1
    if nth < first or (times is not None and times < 1):
        raise InputError(
            f"the fault {do} cannot be the {nth}th, {times} times", f"count from {first}"
        )
