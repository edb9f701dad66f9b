"""Streams of files: CSV, JSONL and Parquet in a folder, a bucket or at an https address.

A file is read when it is new or when its content has changed, always as a whole; with a cursor,
only the rows beyond the file's own last value are taken from a changed file. (One value for the
whole stream would lose the rows that are added to an older file.) Reading is DuckDB's, in Arrow
batches, so a file may be larger than the memory.
"""

import csv
import gzip
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.normalizers.naming.snake_case import NamingConvention

from connectors.cursor import Cursor
from connectors.places import Place
from connectors.quoting import literal, quoted
from connectors.sources import RESERVED_COLUMNS, FileStream, format_of
from contracts.documents import nearest
from contracts.errors import SourceCorrupt, SourceError, SourceUnavailable

BATCH_ROWS = 50_000
CURSOR_COLUMN = "_cursor"
_AS_TEXT = {"NULL", "JSON", "UUID", "HUGEINT", "UHUGEINT", "INTERVAL", "BIT", "TIME WITH TIME ZONE"}
_naming = NamingConvention()


@dataclass(frozen=True)
class Part:
    """A batch of rows of one file; the last one of a file may be empty and has `done`."""

    source_file: str
    table: pa.Table | None
    whole: bool
    done: bool = False


def read_files(stream: FileStream, place: Place, state: dict[str, Any]) -> Iterator[Part]:
    """The rows of all new and changed files, and `state` brought up to date.

    `state` maps the name of a file to its signature, digest and cursor.

    Raises:
        SourceRefused, SourceUnavailable, SourceCorrupt: see the module `contracts.errors`.
    """
    for found in place.find(stream):
        before = state.get(found.name)
        if before and found.signature and before["signature"] == found.signature:
            continue
        with place.open(found) as path:
            digest = _digest(path)
            if before and before["digest"] == digest:
                state[found.name] = {**before, "signature": found.signature}
                continue
            saved = before.get("cursor") if before else None
            cursor = Cursor(saved, _own_names(stream.primary_key)) if stream.cursor else None
            with _told(found.name), _unpacked(path) as plain:
                for table in _read(plain, stream, cursor):
                    yield Part(found.name, table, whole=saved is None)
            if _digest(path) != digest:
                raise SourceUnavailable(
                    f"{found.name} changed while it was read", "run again when it is complete"
                )
            yield Part(found.name, None, whole=saved is None, done=True)
            state[found.name] = {
                "signature": found.signature,
                "digest": digest,
                "cursor": cursor.saved() if cursor else None,
            }


def normalised(columns: list[str]) -> dict[str, str]:
    """The lake's name of each column: snake_case, as dlt writes it.

    >>> normalised(["Account ID", "arr"])
    {'Account ID': 'account_id', 'arr': 'arr'}

    Raises:
        SourceCorrupt: two columns would get one name, or one that the lake needs itself.
    """
    names: dict[str, str] = {}
    taken: dict[str, str] = {}
    for column in columns:
        if not column.strip():
            raise SourceCorrupt("a column has no name", "give every column a name")
        name = _naming.normalize_identifier(column)
        if name in taken:
            raise SourceCorrupt(
                f"columns '{taken[name]}' and '{column}' both become '{name}'", "rename one of them"
            )
        if name in RESERVED_COLUMNS or name == CURSOR_COLUMN:
            raise SourceCorrupt(f"column '{column}' has a name of ours", "rename it")
        names[column], taken[name] = name, column
    return names


def _own_names(columns: list[str] | None) -> list[str]:
    return [_naming.normalize_identifier(column) for column in columns or []]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, stream: FileStream, cursor: Cursor | None) -> Iterator[pa.Table]:
    """The rows of one unpacked file, in its order, under the lake's column names."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        relation, columns = _relation(connection, path, stream)
        if not columns:
            return
        names = normalised([column for column, _ in columns])
        selected = [
            f"{_expression(column, type_)} AS {quoted(names[column])}" for column, type_ in columns
        ]
        if cursor is not None:
            wanted = _naming.normalize_identifier(str(stream.cursor))
            by_name = {names[column]: (column, type_) for column, type_ in columns}
            if wanted not in by_name:
                raise SourceCorrupt(
                    f"the cursor '{stream.cursor}' is no column", nearest(wanted, by_name)
                )
            order = _cursor_expression(connection, relation, *by_name[wanted])
            selected.append(f"{order} AS {CURSOR_COLUMN}")
        query = f"SELECT {', '.join(selected)} FROM {relation}"
        for batch in connection.sql(query).to_arrow_reader(BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            if cursor is not None:
                values = table.column(CURSOR_COLUMN)
                table = cursor.take(table.drop_columns([CURSOR_COLUMN]), values)
            if table.num_rows:
                yield table


def _expression(column: str, type_: str) -> str:
    """How a column enters the lake: nested values as JSON, times to the microsecond."""
    own = quoted(column)
    if type_.endswith("]") or type_.startswith(("STRUCT", "MAP", "UNION")):
        return f"CAST(to_json({own}) AS VARCHAR)"
    if type_ in ("TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S"):
        return f"CAST({own} AS TIMESTAMP)"
    return f"CAST({own} AS VARCHAR)" if type_ in _AS_TEXT else own


def _cursor_expression(
    connection: duckdb.DuckDBPyConnection, relation: str, column: str, type_: str
) -> str:
    """What orders the rows: the column, or its text read as numbers, or else as times.

    Text has no order of its own here, because '9' would come after '10'.
    """
    own = quoted(column)
    if type_ != "VARCHAR":
        return own
    casts = [f"TRY_CAST({own} AS {kind})" for kind in ("DECIMAL(38,9)", "TIMESTAMPTZ")]
    counts = ", ".join(f"count({cast})" for cast in casts)
    total, *good = connection.sql(f"SELECT count({own}), {counts} FROM {relation}").fetchall()[0]
    for cast, count in zip(casts, good, strict=True):
        if count == total:
            return cast
    raise SourceCorrupt(
        f"the cursor '{column}' holds text that is neither a number nor an ISO 8601 time",
        "choose another cursor, or none",
    )


def _relation(
    connection: duckdb.DuckDBPyConnection, path: Path, stream: FileStream
) -> tuple[str, list[tuple[str, str]]]:
    """A DuckDB table function over the file, and its columns with their types."""
    file, format_ = literal(str(path)), stream.format or format_of(stream.files)
    if format_ == "parquet":
        relation = f"read_parquet({file})"
        # DuckDB takes a column without any value, and so without a type, for numbers.
        empty = {f.name for f in pq.read_schema(path) if pa.types.is_null(f.type)}
        found = _columns_of(connection, relation)
        return relation, [(c, "NULL" if c in empty else type_) for c, type_ in found]
    if format_ == "csv":
        header = _header(path, stream)
        types = _types(header, stream)
        relation = (
            f"read_csv({file}, auto_detect = false, header = true, columns = {types}, "
            f"delim = {literal(stream.delimiter)}, quote = '\"', escape = '\"', "
            f"encoding = {literal(stream.encoding)}, strict_mode = true, null_padding = false, "
            "compression = 'none')"
        )
        return relation, _columns_of(connection, relation) if header else []
    options = "format = 'newline_delimited', compression = 'uncompressed'"
    everything = f"read_json({file}, {options}, sample_size = -1, maximum_depth = 1)"
    keys = [column for column, _ in _columns_of(connection, everything)]
    if path.stat().st_size == 0 or keys == ["json"]:
        return "", []
    relation = f"read_json({file}, {options}, columns = {_types(keys, stream)})"
    return relation, _columns_of(connection, relation)


def _columns_of(connection: duckdb.DuckDBPyConnection, relation: str) -> list[tuple[str, str]]:
    rows = connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return [(row[0], row[1]) for row in rows]


def _types(columns: list[str], stream: FileStream) -> str:
    """DuckDB's `columns` option: text, but for the columns whose type is declared."""
    names = normalised(columns)
    declared = {_naming.normalize_identifier(column): t for column, t in stream.columns.items()}
    unknown = sorted(set(declared) - set(names.values()))
    if unknown and columns:
        raise SourceCorrupt(f"there is no column '{unknown[0]}'", nearest(unknown[0], columns))
    pairs = [f"{literal(c)}: {literal(declared.get(names[c], 'VARCHAR'))}" for c in columns]
    return "{" + ", ".join(pairs) + "}"


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The file, unpacked where it is gzip: only Python notices when its end is missing."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "file"
        with gzip.open(path) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield plain


def _header(path: Path, stream: FileStream) -> list[str]:
    """The column names in the first line of a CSV; none where the file is empty."""
    encoding = "utf-8-sig" if stream.encoding == "utf-8" else stream.encoding
    with path.open(encoding=encoding, newline="") as text:
        return next(csv.reader(text, delimiter=stream.delimiter[0]), [])


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Say which file a mistake is in, and on which line, but never what stands there."""
    try:
        yield
    except SourceError as error:
        raise type(error)(f"{name}: {error.cause}", error.remedy) from None
    except (
        duckdb.Error,
        pa.ArrowInvalid,
        UnicodeError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        csv.Error,
    ) as error:
        text = str(error)
        line = re.search(r"(?:Line: |in line )(\d+)", text)
        where = f"{name}:{line.group(1)}" if line else name
        raise SourceCorrupt(f"{where}: {_reason(text)}", "correct the file") from None


def _reason(text: str) -> str:
    """Why DuckDB could not read a file, in words that hold nothing of the file's content."""
    columns = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if columns:
        return f"the line has {columns.group(2)} columns where the header has {columns.group(1)}"
    converted = re.search(r'converting column "([^"]+)"', text)
    if converted:
        return f"column '{converted.group(1)}' holds a value of another type than declared"
    if "unterminated quote" in text:
        return "a quoted value does not end"
    if "JSON" in text:
        return "a value has another type than declared" if "cast" in text else "not valid JSON"
    if "decode" in text or "utf-8" in text.lower() or "unicode" in text.lower():
        return "not in the declared encoding"
    return "the file is damaged or incomplete"
