"""Streams of rows from any database that SQLAlchemy knows: a table or a query.

Rows come from a server-side cursor in Arrow batches. With `cursor`, a pull asks for what came
after the last one. Without, every pull takes a snapshot of the whole, and keeps it only when it
differs from the last: it waits on disk until that is known.
"""

import datetime as dt
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.feather as feather
import sqlalchemy as sa
from dlt.common.normalizers.naming.snake_case import NamingConvention

from connectors.cursor import Cursor
from connectors.files import BATCH_ROWS, Part, normalised
from connectors.sources import SqlStream
from contracts.documents import nearest
from contracts.errors import SourceCorrupt, SourceError, SourceRefused, SourceUnavailable

_naming = NamingConvention()


def open_engine(url: str, home: Path) -> sa.Engine:
    """An engine for a SQLAlchemy URL; nothing is connected yet. SQLite paths begin at `home`.

    Raises:
        SourceRefused: the URL is none, or its driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            # Read-only: SQLite would make an empty database of a wrong path.
            path = (home / parsed.database).resolve().as_posix()
            parsed = parsed.set(database=f"file:{path}", query={"mode": "ro", "uri": "true"})
        return sa.create_engine(parsed, poolclass=sa.NullPool, hide_parameters=True)
    except ModuleNotFoundError as error:
        package = error.name or "a driver"
        postgres = parsed.drivername.startswith("postgresql")
        raise SourceRefused(
            f"{package}, the driver of {parsed.get_backend_name()}, is not installed",
            "run `pip install healthloop[postgres]`" if postgres else f"install {package}",
        ) from None
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError):
        raise SourceRefused(
            "the url is no SQLAlchemy URL that we know",
            "write it as dialect+driver://user:password@host/database",
        ) from None


def read_sql(
    name: str, stream: SqlStream, engine: sa.Engine, state: dict[str, Any]
) -> Iterator[Part]:
    """The new rows of one stream, and `state` (its cursor or its digest) brought up to date.

    Raises:
        SourceRefused, SourceUnavailable, SourceCorrupt: see the module `contracts.errors`.
    """
    with _told(name):
        if stream.cursor is None:
            yield from _snapshot(name, stream, engine, state)
        else:
            yield from _increment(name, stream, engine, state)


def _increment(
    name: str, stream: SqlStream, engine: sa.Engine, state: dict[str, Any]
) -> Iterator[Part]:
    saved = state.get("cursor")
    key = [_naming.normalize_identifier(column) for column in stream.primary_key or []]
    cursor = Cursor(saved, key)
    wanted = _naming.normalize_identifier(str(stream.cursor))
    seen = False
    for table in _batches(engine, _select(stream, cursor)):
        if wanted not in table.column_names:
            remedy = nearest(wanted, table.column_names)
            raise SourceCorrupt(f"the cursor '{stream.cursor}' is no column", remedy)
        fresh = cursor.take(table, table.column(wanted))
        if fresh.num_rows:
            seen = True
            yield Part(name, fresh, whole=saved is None)
    if seen:
        yield Part(name, None, whole=saved is None, done=True)
        state["cursor"] = cursor.saved()


def _snapshot(
    name: str, stream: SqlStream, engine: sa.Engine, state: dict[str, Any]
) -> Iterator[Part]:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        files: list[Path] = []
        columns: set[str] = set()
        rows = total = 0
        for table in _batches(engine, _select(stream, None)):
            path = Path(folder) / f"{len(files)}.arrow"
            feather.write_feather(table, str(path), compression="lz4")
            files.append(path)
            rows += table.num_rows
            columns.add(str(table.schema))
            # A sum, because a database may give the same rows in another order.
            query = "SELECT sum(CAST(hash(t) AS HUGEINT)) FROM batch AS t"
            connection.register("batch", table)
            total += int(connection.sql(query).fetchall()[0][0])
        digest = f"{rows}:{total:x}:{'|'.join(sorted(columns))}"
        if state.get("digest") == digest:
            return
        for path in files:
            yield Part(name, feather.read_table(str(path)), whole=True)
        yield Part(name, None, whole=True, done=True)
        state["digest"] = digest


def _select(stream: SqlStream, cursor: Cursor | None) -> sa.Select:
    """Everything of a stream, or what its cursor has not passed yet."""
    if stream.table is not None:
        *schema, table = stream.table.split(".")
        origin: Any = sa.table(table, schema=".".join(schema) or None)
    else:
        query = str(stream.query).strip().rstrip(";")
        # In a text, SQLAlchemy would take :name for a parameter; :: is a cast.
        escaped = re.sub(r"(?<!:):(?=\w)", r"\\:", query)
        origin = sa.text(f"({escaped}) AS source_rows")
    select = sa.select(sa.text("*")).select_from(origin)
    if cursor is None or cursor.start is None:
        return select
    start = cursor.start
    if cursor.kind == "instant":
        start = start.replace(tzinfo=dt.UTC)
    if isinstance(start, Decimal) and start == start.to_integral_value():
        start = int(start)
    column: Any = sa.column(str(stream.cursor))
    return select.where(sa.or_(column >= start, column.is_(None)))


def _batches(engine: sa.Engine, select: sa.Select) -> Iterator[pa.Table]:
    types: dict[str, pa.DataType] = {}
    with engine.connect() as connection:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=BATCH_ROWS)
        result = streaming.execute(select)
        names = list(normalised(_unique(list(result.keys()))).values())
        for rows in result.partitions(BATCH_ROWS):
            columns = zip(*rows, strict=True)
            arrays = [_array(n, list(v), types) for n, v in zip(names, columns, strict=True)]
            yield pa.table(arrays, names=names)


def _unique(columns: list[str]) -> list[str]:
    for column in columns:
        if columns.count(column) > 1:
            raise SourceCorrupt(f"there are two columns '{column}'", "rename one in the query")
    return columns


def _array(name: str, values: list[Any], types: dict[str, pa.DataType]) -> pa.Array:
    """Values in the column's type, as the first ones of the pull showed it; text as a refuge.

    Databases such as SQLite do not hold a column to its type, and mappings cast anyway.
    """
    plain = [_plain(value) for value in values]
    try:
        array = pa.array(plain, types.get(name))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_text(value) for value in plain], pa.string())
    if pa.types.is_null(array.type):
        return array.cast(pa.string())
    if pa.types.is_timestamp(array.type) and array.type.tz is not None:
        array = array.cast(pa.timestamp("us", "UTC"))
    if not pa.types.is_decimal(array.type):
        types.setdefault(name, array.type)
    return array


def _plain(value: Any) -> Any:
    """Values that Arrow has no type for, as text."""
    if value is None or isinstance(value, (bool, int, float, str, Decimal, dt.date, bytes)):
        return value
    if isinstance(value, memoryview):
        return value.tobytes()
    return _text(value)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn an error of the database into ours; its text may hold secrets and stays behind."""
    try:
        yield
    except SourceError as error:
        raise type(error)(f"stream {name}: {error.cause}", error.remedy) from None
    except sa.exc.SQLAlchemyError as error:
        raise _explained(name, error) from None


_STATES: Sequence[tuple[str, type[SourceError], str, str]] = (
    ("28", SourceRefused, "the database refused the user or password", "correct the url"),
    ("3D", SourceRefused, "there is no such database", "correct the url"),
    ("42501", SourceRefused, "the user may not read it", "grant SELECT to the user"),
    ("42P01", SourceRefused, "there is no such table", "correct `table` or `query`"),
    ("42703", SourceRefused, "there is no such column", "correct `cursor` or `query`"),
    ("42", SourceRefused, "the query is not valid", "correct `query`"),
    ("22", SourceCorrupt, "the query meets a value that it cannot use", "correct `query`"),
)
_WORDS: Sequence[tuple[str, type[SourceError], str, str]] = (
    (
        "authentication failed",
        SourceRefused,
        "the database refused the password",
        "correct the url",
    ),
    ("access denied", SourceRefused, "the database refused the password", "correct the url"),
    ("no such table", SourceRefused, "there is no such table", "correct `table` or `query`"),
    ("no such column", SourceRefused, "there is no such column", "correct `cursor` or `query`"),
    ("syntax error", SourceRefused, "the query is not valid", "correct `query`"),
    ("unable to open database file", SourceRefused, "there is no such database", "correct the url"),
    ("not a database", SourceCorrupt, "the file is no database", "correct the url"),
    ("does not exist", SourceRefused, "there is no such database", "correct the url"),
)


def _explained(name: str, error: sa.exc.SQLAlchemyError) -> SourceError:
    original = getattr(error, "orig", None)
    state = str(getattr(original, "sqlstate", None) or "")
    for prefix, kind, cause, remedy in _STATES:
        if state.startswith(prefix):
            return kind(f"stream {name}: {cause}", remedy)
    words = str(original or "").lower()
    for part, kind, cause, remedy in _WORDS:
        if part in words:
            return kind(f"stream {name}: {cause}", remedy)
    if isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):
        cause = f"stream {name}: the database does not answer ({type(original).__name__})"
        return SourceUnavailable(cause, "see whether it runs, and try again later")
    shown = type(original or error).__name__
    return SourceCorrupt(f"stream {name}: it cannot be read ({shown})", "correct the stream")
