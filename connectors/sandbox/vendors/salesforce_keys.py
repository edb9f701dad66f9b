"""Which records have a value, and the next free number: what a write asks of all records.

Both are kept beside each table, so that no write has to look at all of them.
"""

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from connectors.sandbox.servers.box import Row, Table

_Ids = dict[str, dict[str, None]]
"""The ids of the records that have or had a value, by that value without regard to case."""

_INDEXES: WeakKeyDictionary[Table, dict[str, _Ids]] = WeakKeyDictionary()

_NUMBERS: WeakKeyDictionary[Table, int] = WeakKeyDictionary()
FIRST_NUMBER = 1_000_000
"""Ids that the API gives begin here, beyond those of the world."""


def new_number(table: Table) -> int:
    """A number that no record of a table has in its id yet."""
    if table not in _NUMBERS:
        _NUMBERS[table] = FIRST_NUMBER + len({row.id for row in table.changes(math.inf)})
    _NUMBERS[table] += 1
    return _NUMBERS[table]


def ids_with(table: Table, field: str, value: str) -> list[str]:
    """The records some version of which has a value, whatever its case; look at what they are now.

    >>> table = Table()
    >>> table.put("1", {"Key": "abc"}, at=10)
    >>> ids_with(table, "Key", "ABC")
    ['1']
    """
    indexes = _INDEXES.setdefault(table, {})
    if field not in indexes:
        indexes[field] = _made(table, field)
    return list(indexes[field].get(value.casefold(), ()))


def _made(table: Table, field: str) -> _Ids:
    """The index of a field, which follows the table from now on."""
    ids: _Ids = {}
    for row in table.changes(math.inf):
        _note(ids, field, row)
    table.on_change = _also(table.on_change, lambda row: _note(ids, field, row))
    return ids


def _note(ids: _Ids, field: str, row: Row) -> None:
    value: Any = row.body.get(field)
    if value is not None:
        ids.setdefault(str(value).casefold(), {})[row.id] = None


def _also(before: Callable[[Row], None], after: Callable[[Row], None]) -> Callable[[Row], None]:
    def both(row: Row) -> None:
        before(row)
        after(row)

    return both
