"""Pages of JSON objects as Arrow tables of text: no value is lost, and none can break a load.

Every column is text. Numbers and booleans stand there as JSON writes them, nested values as JSON;
what they mean is the mapping's business, and a field that changes its type breaks no file.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
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


def landed(
    rows: Rows, *, columns: Sequence[str] = (), leave_out: Collection[str] = frozenset()
) -> tuple[pa.Table, Kinds]:
    """A page as a table of text columns under the lake's names, and the JSON types in it.

    Args:
        rows: JSON objects of one page, or a table whose columns are text already.
        columns: Fields that are there even where no row has them.
        leave_out: Fields that are dropped.

    Raises:
        SourceCorrupt: two fields would get one name.

    >>> table, kinds = landed([{"id": 7, "tags": ["a"]}, {"id": "8"}], columns=("status",))
    >>> table.to_pylist()
    [{'id': '7', 'tags': '["a"]', 'status': None}, {'id': '8', 'tags': None, 'status': None}]
    >>> kinds
    {'id': ['number', 'text'], 'tags': ['list']}
    """
    kinds: Kinds = {}
    if isinstance(rows, pa.Table):
        arrays = {f: rows.column(f).cast(pa.string()) for f in rows.column_names}
    else:
        values = _columns_of(rows)
        types = {field: set(map(type, column)) for field, column in values.items()}
        arrays = {f: _texts(column, types[f]) for f, column in values.items() if f not in leave_out}
        kinds = {f: sorted({_KINDS[t] for t in types[f] if t in _KINDS}) for f in arrays}
    fields = [f for f in dict.fromkeys(chain(arrays, columns)) if f not in leave_out]
    names = normalised(fields)
    empty = pa.nulls(len(rows), pa.string())
    table = pa.table([arrays.get(f, empty) for f in fields], names=[names[f] for f in fields])
    return table, {names[field]: found for field, found in kinds.items() if found}


def _columns_of(rows: list[dict[str, Any]]) -> dict[str, Sequence[Any]]:
    """The values of each field, in the order in which the fields first come."""
    shapes = dict.fromkeys(map(tuple, rows))
    if len(shapes) == 1:  # most vendors always send all fields in one order; this way is faster
        (fields,) = shapes
        return dict(zip(fields, zip(*map(dict.values, rows), strict=True), strict=True))
    return {
        field: [row.get(field) for row in rows]
        for field in dict.fromkeys(chain.from_iterable(shapes))
    }


def _texts(values: Sequence[Any], types: Collection[type]) -> pa.Array:
    """A column as text; where all values are of one type, many are written at once."""
    types = set(types) - {type(None)}
    if types <= {str}:
        return pa.array(values, pa.string())
    if types == {bool}:
        return pa.array(values, pa.bool_()).cast(pa.string())
    if types == {int}:
        try:
            return pa.array(values, pa.int64()).cast(pa.string())
        except OverflowError:  # beyond 64 bits, one by one
            pass
    if types == {float}:  # one list of numbers, which hold no commas
        texts = orjson.dumps(values)[1:-1].decode().split(",")
        return pa.array([None if text == "null" else text for text in texts], pa.string())
    if types <= {dict, list}:
        try:
            dumped = [None if value is None else orjson.dumps(value) for value in values]
            return pa.array(dumped, pa.string())
        except TypeError:  # an integer beyond 64 bits in one of them
            pass
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if type(value) is int:  # of any size, while orjson writes 64 bits
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def united(kinds: Iterable[Mapping[str, Sequence[str]]]) -> Kinds:
    """The types of several pages or loads together."""
    found: dict[str, set[str]] = {}
    for page in kinds:
        for column, types in page.items():
            found.setdefault(column, set()).update(types)
    return {column: sorted(types) for column, types in sorted(found.items())}
