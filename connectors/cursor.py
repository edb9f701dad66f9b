"""Where a stream was left: the highest cursor value seen, and the rows that stood on it.

Many rows may share the highest value, and more of them may come later. So the next pull asks for
that value again (``>=``) and leaves out the rows that it has already seen there, each as often as
it was seen: ties are neither lost nor doubled. Rows without a cursor value are kept in the same
way.
"""

import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import SourceCorrupt

_NUMBER = pa.decimal128(38, 9)


class Cursor:
    """The position in one stream, moved by `take` and kept between pulls by `saved`.

    Args:
        saved: what `saved` returned after the last pull, or None to begin.
        key: the columns that tell whether two rows at the edge are the same; all when empty.
    """

    def __init__(self, saved: dict[str, Any] | None, key: Sequence[str] = ()) -> None:
        self._key = list(key)
        self._edge: Counter[str] = Counter(saved["edge"] if saved else {})
        self._without: Counter[str] = Counter(saved["without"] if saved else {})
        self._known = self._edge + self._without
        self.kind: str | None = saved["kind"] if saved else None
        self.start: Any = _decode(saved["kind"], saved["value"]) if saved else None
        self._last = self.start

    def take(self, table: pa.Table, values: pa.ChunkedArray) -> pa.Table:
        """The rows of `table` that were not seen before; `values` is their cursor column.

        Raises:
            SourceCorrupt: the values are of another kind than before, so have another order.
        """
        values, kind = comparable(values)
        if kind is not None:
            if self.kind not in (None, kind):
                raise SourceCorrupt(
                    f"the cursor holds {kind} values where it held {self.kind} values",
                    "correct the column, or give the stream a new name to read it from the start",
                )
            self.kind = kind
        if self.start is not None:
            table, values = self._unseen(table, values)
        self._advance(table, values)
        return table

    def _unseen(self, table: pa.Table, values: pa.ChunkedArray) -> tuple[pa.Table, pa.ChunkedArray]:
        if values.null_count == len(values):
            keep = pa.chunked_array([pa.nulls(len(values), pa.bool_())])
            equal = keep
        else:
            start = pa.scalar(self.start, values.type)
            keep, equal = pc.greater(values, start), pc.equal(values, start)
        mask = pc.fill_null(keep, False).to_pylist()
        edge = pc.indices_nonzero(pc.fill_null(equal, True)).to_pylist()
        for index, digest in zip(edge, self._digests(table, edge), strict=True):
            if self._known[digest] > 0:
                self._known[digest] -= 1
            else:
                mask[index] = True
        chosen = pa.array(mask, pa.bool_())
        return table.filter(chosen), values.filter(chosen)

    def _advance(self, table: pa.Table, values: pa.ChunkedArray) -> None:
        """Move to the highest value of these rows, and remember which rows stand there."""
        missing = pc.indices_nonzero(pc.is_null(values)).to_pylist()
        self._without.update(self._digests(table, missing))
        highest = pc.max(values).as_py() if values.null_count < len(values) else None
        if highest is None or (self._last is not None and highest < self._last):
            return
        if self._last is None or highest > self._last:
            self._edge.clear()
            self._last = highest
        equal = pc.fill_null(pc.equal(values, pa.scalar(highest, values.type)), False)
        self._edge.update(self._digests(table, pc.indices_nonzero(equal).to_pylist()))

    def _digests(self, table: pa.Table, rows: Sequence[int]) -> list[str]:
        if not rows:
            return []
        columns = self._key or sorted(table.column_names)
        taken = table.select(columns).take(pa.array(rows, pa.int64())).to_pylist()
        return [
            hashlib.sha256(json.dumps(row, default=str).encode()).hexdigest()[:24] for row in taken
        ]

    def saved(self) -> dict[str, Any] | None:
        """What to keep until the next pull, as plain JSON."""
        if self.kind is None or self._last is None:
            return None
        return {
            "kind": self.kind,
            "value": _encode(self._last),
            "edge": dict(self._edge),
            "without": dict(self._without),
        }


def comparable(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str | None]:
    """Cursor values in one type per kind, and the kind: None where all are null."""
    kind = values.type
    if pa.types.is_null(kind) or values.null_count == len(values):
        return values, None
    if pa.types.is_timestamp(kind):
        # Arrow's cast to a type without a zone keeps the instant, in UTC.
        zoned = kind.tz is not None
        return values.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us")), (
            "instant" if zoned else "time"
        )
    if pa.types.is_date(kind):
        return values.cast(pa.date32()), "date"
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return values.cast(_NUMBER, safe=False), "number"
    if pa.types.is_floating(kind):
        return values.cast(pa.float64()), "float"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.string()), "text"
    raise SourceCorrupt(
        f"the cursor is of type {kind}, which has no order", "choose a column with a time or number"
    )


def _encode(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _decode(kind: str, value: str) -> Any:
    if kind in ("time", "instant"):
        return dt.datetime.fromisoformat(value)
    if kind == "date":
        return dt.date.fromisoformat(value)
    if kind == "number":
        return Decimal(value)
    return float(value) if kind == "float" else value
