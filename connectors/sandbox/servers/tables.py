"""Records in versions over time: what a vendor's server knows at a moment."""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from threading import RLock
from typing import Any, TypeVar

_T = TypeVar("_T")
_MOMENTS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is at a moment. Times are epoch seconds; the body is shared, not a copy.

    `created` is when the first version of the id appeared, `changed` when this one did. A tombstone
    (`deleted`) keeps the last body.
    """

    id: str
    body: dict[str, Any]
    created: float
    changed: float
    deleted: bool


class Table:
    """The records of one collection. Any thread may read and write.

    >>> table = Table()
    >>> table.put("1", {"status": "open"}, at=10)
    >>> table.put("1", {"status": "solved"}, at=20)
    >>> [row.body["status"] for row in table.rows(now=15)]
    ['open']
    """

    def __init__(self) -> None:
        self._versions: dict[str, list[Row]] = {}
        self._lock = RLock()
        self._current: dict[float, list[Row]] = {}
        self._derived: dict[tuple[float, str], Any] = {}
        self._all: list[Row] | None = None
        self.on_change: Callable[[Row], None] = lambda row: None

    def put(self, id: str, body: dict[str, Any], at: float) -> None:
        """Show this version of `id` from the epoch second `at` on."""
        self._add(id, body, at, deleted=False)

    def remove(self, id: str, at: float) -> None:
        """Let `id` be gone from the epoch second `at` on.

        Raises:
            KeyError: `id` is not there at that time.
        """
        with self._lock:
            row = self.get(id, at)
            if row is None:
                raise KeyError(id)
            self._add(id, row.body, at, deleted=True)

    def rows(self, now: float, *, deleted: bool = False) -> list[Row]:
        """The newest version of each id at `now`, ordered by (changed, id); a list of your own.

        `deleted` adds those that are gone by then, as tombstones.
        """
        with self._lock:
            if now not in self._current:
                if len(self._current) >= _MOMENTS_KEPT:
                    self._current.clear()
                newest = (_newest(versions, now) for versions in self._versions.values())
                self._current[now] = sorted(filter(None, newest), key=attrgetter("changed", "id"))
            rows = self._current[now]
        return [row for row in rows if deleted or not row.deleted]

    def derived(self, now: float, name: str, make: Callable[[list[Row]], _T]) -> _T:
        """What `make` gives for the rows at `now`, tombstones too; kept until a record changes."""
        with self._lock:
            if (now, name) not in self._derived:
                if len(self._derived) >= _MOMENTS_KEPT:
                    self._derived.clear()
                self._derived[now, name] = make(self.rows(now, deleted=True))
            kept: _T = self._derived[now, name]
            return kept

    def get(self, id: str, now: float) -> Row | None:
        """The record as it is at `now`; None where there is none, not yet or no more."""
        with self._lock:
            row = _newest(self._versions.get(id, []), now)
        return None if row is None or row.deleted else row

    def versions(self, id: str, now: float) -> list[Row]:
        """Every version of one record that appeared up to `now`, tombstones too, in their order."""
        with self._lock:
            return [row for row in self._versions.get(id, []) if row.changed <= now]

    def changes(self, now: float) -> list[Row]:
        """Every version that appeared up to `now`, tombstones too, ordered by (changed, id)."""
        with self._lock:
            if self._all is None:
                every = [row for versions in self._versions.values() for row in versions]
                self._all = sorted(every, key=attrgetter("changed", "id"))
            return [row for row in self._all if row.changed <= now]

    def _add(self, id: str, body: dict[str, Any], at: float, *, deleted: bool) -> None:
        with self._lock:
            versions = self._versions.setdefault(id, [])
            created = min(at, versions[0].created) if versions else at
            row = Row(id, body, created, at, deleted)
            insort(versions, row, key=attrgetter("changed"))
            self.on_change(row)
            self._current.clear()
            self._derived.clear()
            self._all = None


def _newest(versions: list[Row], now: float) -> Row | None:
    return next((row for row in reversed(versions) if row.changed <= now), None)
