"""Reading an API's streams side by side, each into a spool on disk, before anything is loaded.

A stream counts once it was read to its end. One that fails keeps its old position and its old
rows, while the others go on. The spool keeps memory flat, and tells what is new: rows that came
again unchanged in the overlap are dropped, and a complete reading that equals the last one is not
stored again.
"""

import datetime as dt
import gc
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.api import ApiConfig, ApiStream, Client, Reading, Vendor, check_account
from connectors.api_rows import Kinds, landed, united
from connectors.files import normalised
from connectors.quoting import literal, quoted
from contracts.company import Company
from contracts.errors import SourceCorrupt, SourceError, where_raised
from contracts.secrets import Secrets

_logger = logging.getLogger(__name__)

SPOOL_ROWS = 20_000
BATCH_ROWS = 50_000
STREAMS_AT_ONCE = 4
OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""After so many new objects Python looks for cycles. A page is thousands of objects without one;
looking as often as usual, through all that was ever imported, takes a third of the time."""

MOST_REMEMBERED = 20_000
"""More rows than this in an overlap are not remembered, but stored again and merged to nothing."""

READS_BACK = dt.timedelta(days=400)
"""How long before the first day that is scored a first reading begins: windows look a year back."""

ACCOUNT_EVERY = dt.timedelta(hours=24)
"""How often the account behind unchanged credentials is asked for."""

NOTHING = "nothing"
"""The digest of a complete reading without rows."""

ACCOUNT = "_account"
"""The key of the positions under which the account behind the credentials is remembered."""


@dataclass(frozen=True)
class StreamRead:
    """A stream that was read to its end: its new rows in a spool, and its new position.

    `new_columns` and `changed_kinds` say how the rows differ in shape from all before them.
    `empty` is true of a first reading without rows, and of a complete one where there were some.
    """

    name: str
    rows: int
    whole: bool
    position: dict[str, Any]
    relation: str | None
    kinds: Kinds = field(default_factory=dict)
    new_columns: tuple[str, ...] = ()
    changed_kinds: tuple[str, ...] = ()
    empty: bool = False

    def tables(self) -> Iterator[pa.Table]:
        """The rows, in the order in which they came."""
        if self.relation and self.rows:
            with _duckdb() as connection:
                for batch in connection.sql(self.relation).to_arrow_reader(BATCH_ROWS):
                    yield pa.Table.from_batches([batch])


@dataclass(frozen=True)
class ApiRead:
    """What one reading of a source took: streams that came to their end, and why others did not."""

    streams: Mapping[str, StreamRead]
    failures: Mapping[str, SourceError]
    account: dict[str, str]
    requests: int


def read_api(
    vendor: Vendor[Any],
    config: ApiConfig,
    company: Company,
    positions: Mapping[str, Any],
    *,
    now: dt.datetime,
    folder: Path,
) -> ApiRead:
    """Read what is new in every stream.

    Args:
        positions: What the last load left, by stream.
        folder: For the spools; the caller removes it.

    Raises:
        SourceError: the credentials were refused or open another account, or no stream could be
            read.
    """
    often, *seldom = gc.get_threshold()
    gc.set_threshold(max(often, OBJECTS_BETWEEN_COLLECTIONS), *seldom)
    secrets = Secrets(company.home)
    client = vendor.connect(config, secrets)
    known = positions.get(ACCOUNT, {})
    account = _account(vendor, config, client, secrets, known, now)
    if account["id"] != known.get("id"):
        positions = {}  # places in another account's streams mean nothing in this one's
    streams = vendor.streams_of(config)
    readers = [
        _Reader(name, stream, config, client, positions.get(name, {}), now, company, folder / name)
        for name, stream in streams.items()
    ]
    with ThreadPoolExecutor(STREAMS_AT_ONCE, thread_name_prefix=vendor.name) as pool:
        outcomes = list(pool.map(_Reader.run, readers))
    failures = {
        reader.name: outcome
        for reader, outcome in zip(readers, outcomes, strict=True)
        if isinstance(outcome, SourceError)
    }
    if len(failures) == len(readers):
        raise next(iter(failures.values()))
    reads = {outcome.name: outcome for outcome in outcomes if isinstance(outcome, StreamRead)}
    return ApiRead(reads, failures, account, client.requests_sent)


def _account(
    vendor: Vendor[Any],
    config: ApiConfig,
    client: Client,
    secrets: Secrets,
    known: Mapping[str, str],
    now: dt.datetime,
) -> dict[str, str]:
    """Compare the account behind the credentials with the configured and the former one."""
    fingerprint = secrets.fingerprint()
    unchanged = known.get("credentials") == fingerprint and known.get("id") == (
        config.expect_account or known.get("id")
    )
    if unchanged and now - dt.datetime.fromisoformat(known["asked_at"]) < ACCOUNT_EVERY:
        return dict(known)
    found = vendor.account(client, config)
    moving = "" if config.expect_account else f", or write `expect_account: {found}` to move"
    check_account(
        found, config.expect_account or known.get("id"), vendor=vendor.name,
        remedy=f"use credentials of the right account{moving}",
    )  # fmt: skip
    return {"id": found, "credentials": fingerprint, "asked_at": now.isoformat()}


@dataclass
class _Reader:
    """Reads one stream into its spool, in a thread of its own."""

    name: str
    stream: ApiStream
    config: ApiConfig
    client: Client
    before: Mapping[str, Any]
    now: dt.datetime
    company: Company
    folder: Path

    def run(self) -> StreamRead | SourceError:
        try:
            return self._read()
        except SourceError as error:
            return self._named(error)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            # A record of another shape than the connector knows must not stop the other streams.
            _logger.error("stream %s: cannot be read\n%s", self.name, where_raised([error]))
            cause = f"sent a record that cannot be read ({type(error).__name__})"
            return self._named(SourceCorrupt(cause, "run again, and report it if it stays so"))

    def _named(self, error: SourceError) -> SourceError:
        """The error with vendor and stream, which those of the HTTP layer have already."""
        if error.vendor and error.stream:
            return error
        vendor = self.config.type
        named = error.told(self.name if error.vendor else f"{vendor} {self.name}")
        named.vendor, named.stream = vendor, self.name
        return named

    def _read(self) -> StreamRead:
        spool, scratch = self.folder / "spool", self.folder / "scratch"
        for path in (spool, scratch):
            path.mkdir(parents=True)
        own = dict(self.before.get("own", {}))
        reading = Reading(
            self.config, self.client.stream(self.name), own, self._since(), self.now,
            self.company.settings.history_start - READS_BACK, scratch,
        )  # fmt: skip
        kinds = self._spool(reading, spool)
        shutil.rmtree(scratch)
        return self._compared(spool, own, kinds)

    def _since(self) -> dt.datetime | None:
        newest = self.before.get("newest")
        return dt.datetime.fromisoformat(newest) - self.stream.overlap if newest else None

    def _spool(self, reading: Reading[Any], spool: Path) -> Kinds:
        """Write the pages to disk, several at a time; returns the types that they held."""
        waiting: list[pa.Table] = []
        kinds: list[Kinds] = []
        for page in self.stream.read(reading):
            if not len(page):
                continue
            columns = (*self.stream.primary_key, *self.stream.columns)
            leave_out = self.stream.leave_out
            table, types = landed(page, columns=columns, leave_out=leave_out)
            waiting.append(table)
            kinds.append(types)
            if sum(table.num_rows for table in waiting) >= SPOOL_ROWS:
                _write(spool, waiting)
                kinds = [united(kinds)]
        _write(spool, waiting)
        return united(kinds)

    def _compared(self, spool: Path, own: dict[str, Any], kinds: Kinds) -> StreamRead:
        """What is new against the last reading, and the position after this one."""
        known: Kinds = dict(self.before.get("kinds", {}))
        position = {
            "own": own,
            "newest": self.before.get("newest"),
            "kinds": united([known, kinds]),
        }
        nothing = StreamRead(self.name, 0, self.stream.whole, position, None, kinds)
        files = sorted(str(path) for path in spool.glob("*.parquet"))
        if not files:
            position |= {key: self.before[key] for key in ("edge", "digest") if key in self.before}
            if self.stream.whole:
                position["digest"] = NOTHING
            return replace(nothing, empty=not self.before or self._became_empty())
        new = tuple(sorted(set(kinds) - set(known))) if known else ()
        changed = tuple(
            f"{column} ({'/'.join(known[column])} before, now {'/'.join(types)})"
            for column, types in kinds.items()
            if column in known and set(types) - set(known[column])
        )
        with _duckdb() as connection:
            read = replace(
                nothing, relation=_relation(connection, files), new_columns=new,
                changed_kinds=changed,
            )  # fmt: skip
            self._refuse_nameless(connection, read)
            return self._whole(connection, read) if read.whole else self._part(connection, read)

    def _refuse_nameless(self, connection: duckdb.DuckDBPyConnection, read: StreamRead) -> None:
        """Rows without any of their key would all be taken for one and the same."""
        names = normalised(list(self.stream.primary_key)).values()
        key = ", ".join(map(quoted, names))
        found = f"SELECT count(*) FROM ({read.relation}) WHERE coalesce({key}) IS NULL"
        (nameless,) = _one(connection, found)
        if nameless:
            raise SourceCorrupt(
                f"sent {nameless} rows without '{', '.join(self.stream.primary_key)}'",
                "look whether the vendor has renamed it", stream=self.name,
            )  # fmt: skip

    def _became_empty(self) -> bool:
        return self.stream.whole and self.before.get("digest", NOTHING) != NOTHING

    def _whole(self, connection: duckdb.DuckDBPyConnection, read: StreamRead) -> StreamRead:
        """A complete reading: nothing to store where it equals the last one."""
        number = f"CAST(md5_number_lower({_identity(connection, read)}) AS HUGEINT)"
        rows, digest = _one(connection, f"SELECT count(*), sum({number}) FROM ({read.relation})")
        read.position["digest"] = f"{rows}-{digest}"
        if read.position["digest"] == self.before.get("digest"):
            return replace(read, rows=0, relation=None)
        return replace(read, rows=rows)

    def _part(self, connection: duckdb.DuckDBPyConnection, read: StreamRead) -> StreamRead:
        """What came since the last reading, without the rows of the overlap that are the same."""
        assert read.relation is not None
        fresh, edge = read.relation, self.before.get("edge", [])
        digest = f"left(md5({_identity(connection, read)}), 16)"
        if edge:
            seen = ", ".join(map(literal, edge))
            fresh = f"SELECT * FROM ({read.relation}) WHERE {digest} NOT IN ({seen})"
        (rows,) = _one(connection, f"SELECT count(*) FROM ({fresh})")
        read.position["edge"] = edge
        if self.stream.cursor is not None:
            self._advance(connection, read, digest, normalised([self.stream.cursor]).popitem()[1])
        return replace(read, rows=rows, relation=fresh)

    def _advance(
        self, connection: duckdb.DuckDBPyConnection, read: StreamRead, digest: str, cursor: str
    ) -> None:
        """Move to the newest cursor value, and remember the rows that the overlap will repeat."""
        instant = _INSTANTS[self.stream.cursor_kind].format(quoted(cursor))
        (newest,) = _one(connection, f"SELECT max({instant}) FROM ({read.relation})")
        if newest is None:
            raise SourceCorrupt(
                f"no row has a usable '{self.stream.cursor}', by which changes are followed",
                "look whether the vendor has renamed it", stream=self.name,
            )  # fmt: skip
        # A time in the future would skip all that happens until then.
        newest = min(newest.replace(tzinfo=dt.UTC), self.now)
        former = self.before.get("newest")
        newest = max(newest, dt.datetime.fromisoformat(former)) if former else newest
        read.position["newest"] = newest.isoformat()
        start = literal((newest - self.stream.overlap).replace(tzinfo=None).isoformat())
        rows = connection.execute(
            f"SELECT DISTINCT {digest} FROM ({read.relation}) "
            f"WHERE {instant} >= CAST({start} AS TIMESTAMP) LIMIT {MOST_REMEMBERED + 1}"
        ).fetchall()
        read.position["edge"] = (
            sorted(row[0] for row in rows) if len(rows) <= MOST_REMEMBERED else []
        )


_INSTANTS = {
    "epoch": "make_timestamp(CAST(TRY_CAST({0} AS DECIMAL(24,6)) * 1000000 AS BIGINT))",
    "epoch_ms": "make_timestamp(CAST(TRY_CAST({0} AS DECIMAL(24,6)) * 1000 AS BIGINT))",
    "iso": "timezone('UTC', TRY_CAST({0} AS TIMESTAMPTZ))",
}


def _write(spool: Path, waiting: list[pa.Table]) -> None:
    if waiting:
        table = pa.concat_tables(waiting, promote_options="default")
        pq.write_table(table, spool / f"{len(list(spool.iterdir())):06d}.parquet")
        waiting.clear()


def _relation(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> str:
    """A SELECT over the spooled files whose columns are in the order of their names."""
    every = f"SELECT * FROM read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"
    names = sorted(row[0] for row in connection.execute(f"DESCRIBE {every}").fetchall())
    return f"SELECT {', '.join(map(quoted, names))} FROM ({every})"


def _identity(connection: duckdb.DuckDBPyConnection, read: StreamRead) -> str:
    """A row as one text: its filled columns by name; an empty new column changes nothing."""
    names = [row[0] for row in connection.execute(f"DESCRIBE {read.relation}").fetchall()]
    filled = [f"{literal(name + '=')} || {quoted(name)}" for name in names]
    return f"concat_ws(chr(31), {', '.join(filled)})"


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row


def _duckdb() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 2})
    connection.execute("SET TimeZone = 'UTC'")
    return connection
