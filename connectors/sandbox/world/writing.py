"""How the sandbox writes files: the same bytes for the same rows, and times as people keep them.

Inside the sandbox a day is a number of days since 1970-01-01 and an instant a number of seconds
since then, in UTC, both int64; ``NEVER`` stands for "has not happened".
"""

import datetime as dt
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

NEVER = np.int64(2**40)
DAY_SECONDS = 86_400

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]
Columns = Mapping[str, Any]


def write_csv(file: Path, columns: Columns, *, delimiter: str = ",") -> None:
    """Write columns of equal length as CSV with a header; nulls become empty fields."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
    pyarrow.csv.write_csv(table, file, options)


def write_json_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, gzipped (without a time stamp) where the name ends in .gz."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode()
    file.write_bytes(gzip.compress(text, 6, mtime=0) if file.suffix == ".gz" else text)


def write_parquet(file: Path, columns: Columns) -> None:
    """Write columns as one Parquet file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(dict(columns)), file, compression="zstd")


def offset_seconds(instants: Ints, zone: str) -> Ints:
    """How far the local clocks of a zone were ahead of UTC at each instant."""
    hours, where = np.unique(np.clip(instants, 0, NEVER >> 8) // 3600, return_inverse=True)
    clock = ZoneInfo(zone)
    offsets = [
        int(dt.datetime.fromtimestamp(int(hour) * 3600, clock).utcoffset().total_seconds())  # type: ignore[union-attr]
        for hour in hours
    ]
    return np.array(offsets, dtype=np.int64)[where]


def date_text(days: Ints, *, never: Flags | None = None) -> Texts:
    """Days as ISO dates, null where they never come."""
    missing = days >= NEVER if never is None else never
    safe = np.where(missing, 0, days)
    text = np.datetime_as_string(safe.astype("datetime64[D]")).astype(object)
    text[missing] = None
    return text


def local_text(instants: Ints, zone: str, *, with_offset: bool, separator: str = "T") -> Texts:
    """Instants as local wall-clock text, null where they never come.

    With offset: ``2025-03-04T13:05:22-05:00``; without: ``2025-03-04 19:05:22``.
    """
    missing = instants >= NEVER
    safe = np.where(missing, 0, instants)
    offsets = offset_seconds(safe, zone)
    text = np.datetime_as_string((safe + offsets).astype("datetime64[s]"))
    if separator != "T":
        text = np.char.replace(text, "T", separator)
    if with_offset:
        distinct, where = np.unique(offsets, return_inverse=True)
        names = [
            f"{'-' if o < 0 else '+'}{abs(o) // 3600:02d}:{abs(o) % 3600 // 60:02d}"
            for o in distinct.tolist()
        ]
        text = np.char.add(text, np.array(names)[where])
    result = text.astype(object)
    result[missing] = None
    return result


def pick(names: Sequence[str], codes: npt.NDArray[Any]) -> Texts:
    """The names that small integer codes stand for."""
    return np.array(names, dtype=object)[codes]


def where_true(flags: Flags, texts: Texts) -> Texts:
    """The texts where the flag is set, null elsewhere."""
    result = texts.copy()
    result[~flags] = None
    return result


def broken_row(columns: Columns, **changes: Any) -> dict[str, Any]:
    """The first row once more, with something wrong in it, for `with_rows`."""
    return {name: np.asarray(values, object)[0] for name, values in columns.items()} | changes


def repeated(counts: Ints) -> Ints:
    """The index of the owner of each of its repetitions.

    >>> repeated(np.array([2, 0, 1])).tolist()
    [0, 0, 2]
    """
    return np.repeat(np.arange(len(counts)), counts)


def with_rows(columns: Columns, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns with a few more rows at the end; what a row leaves out is null."""
    return {
        name: np.concatenate([
            np.asarray(values, dtype=object),
            np.array([row.get(name) for row in rows], dtype=object),
        ])
        for name, values in columns.items()
    }  # fmt: skip


def same_rows_again(columns: Columns, rows: npt.NDArray[Any]) -> dict[str, Any]:
    """Columns with some of their own rows once more at the end, as a clumsy export has them."""
    return {
        name: np.concatenate([np.asarray(values), np.asarray(values)[rows]])
        for name, values in columns.items()
    }
