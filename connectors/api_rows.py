"""Pages of JSON objects as Arrow tables of text: no value is lost, and none can break a load.

Every column is text. Numbers and booleans stand there as JSON writes them, nested values as JSON;
what they mean is the mapping's business, and a field that changes its type breaks no file.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from connectors.api import Rows
from connectors.files import normalised

_KINDS: dict[type, str] = {
    str: "text", int: "number", float: "number", bool: "boolean", dict: "object", list: "list",
}  # fmt: skip
Kinds = dict[str, list[str]]
"""The JSON types that were seen in each column, sorted."""


def to_table(
    rows: Rows, *, columns: Sequence[str] = (), leave_out: Collection[str] = frozenset()
) -> pa.Table:
    """A page as a table of text columns under the lake's names.

    Args:
        rows: JSON objects of one page, or a table whose columns are text already.
        columns: Fields that are there even where no row has them.
        leave_out: Fields that are dropped.

    Raises:
        SourceCorrupt: two fields would get one name.

    >>> to_table([{"id": 7, "tags": ["a"]}, {"id": 8}], columns=("status",)).to_pylist()
    [{'id': '7', 'tags': '["a"]', 'status': None}, {'id': '8', 'tags': None, 'status': None}]
    """
    found, values = _columns_of(rows)
    fields = [f for f in dict.fromkeys(chain(found, columns)) if f not in leave_out]
    names = normalised(fields)
    empty = pa.nulls(len(rows), pa.string())
    arrays = [values(field) if field in found else empty for field in fields]
    return pa.table(arrays, names=[names[field] for field in fields])


def _columns_of(rows: Rows) -> tuple[Collection[str], Callable[[str], Any]]:
    if isinstance(rows, pa.Table):
        return rows.column_names, lambda field: rows.column(field).cast(pa.string())
    return dict.fromkeys(chain.from_iterable(rows)), lambda field: _texts(rows, field)


def _texts(rows: list[dict[str, Any]], field: str) -> pa.Array:
    values = [row.get(field) for row in rows]
    if set(map(type, values)) <= {str, type(None)}:
        return pa.array(values, pa.string())
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:  # of any size, while orjson writes 64 bits
        return str(value)
    return orjson.dumps(value).decode()


def kinds_of(rows: Rows) -> Kinds:
    """The JSON types of each column that has a value, under the lake's names.

    >>> kinds_of([{"id": 7}, {"id": "8", "note": None}])
    {'id': ['number', 'text']}
    """
    if isinstance(rows, pa.Table):
        return {}
    fields = list(dict.fromkeys(chain.from_iterable(rows)))
    names, found = normalised(fields), {}
    for field in fields:
        kinds = {_KINDS[kind] for kind in {type(row.get(field)) for row in rows} if kind in _KINDS}
        if kinds:
            found[names[field]] = sorted(kinds)
    return found


def united(kinds: Iterable[Mapping[str, Sequence[str]]]) -> Kinds:
    """The types of several pages or loads together."""
    found: dict[str, set[str]] = {}
    for page in kinds:
        for column, types in page.items():
            found.setdefault(column, set()).update(types)
    return {column: sorted(types) for column, types in sorted(found.items())}
