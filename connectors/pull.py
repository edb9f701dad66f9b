"""Pulling a source into the lake: one dlt pipeline for each source, exactly once.

What the lake holds is the only truth. A pull first removes what a killed one left behind, takes
the cursors of the last completed load from the lake, and begins from there. dlt's own folder is
scratch: it is empty before and after. So a pull may be killed at any moment, and losing the
folder loses nothing; see docs/decisions.

Files and databases are read while they are loaded, all streams or none. The streams of an API are
first read side by side into spools (`connectors.api_pull`); those that came to their end are
loaded together, whatever became of the others.
"""

import datetime as dt
import errno
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.common.runtime.run_context import RunContext

from connectors import vendors
from connectors.api import ApiConfig
from connectors.api_pull import ACCOUNT, ApiRead, StreamRead, read_api
from connectors.files import Part, read_files
from connectors.lake import MANIFEST, MANIFEST_SCHEMA, Lake, heal
from connectors.places import place_of
from connectors.sources import FilesConfig, Source, SqlConfig, address_of
from connectors.sql import open_engine, read_sql
from contracts.company import Company
from contracts.errors import SourceCorrupt, SourceError, SourceUnavailable, where_raised

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamPull:
    """What a pull took from one stream. `files` counts the new and changed ones.

    `new_columns` came for the first time, `changed_kinds` hold another type than ever before; both
    are told of APIs.
    """

    name: str
    rows: int
    files: int
    new_columns: tuple[str, ...] = ()
    changed_kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pull:
    """What a pull took from a source. `load_id` is None where there was nothing new.

    `failures` says why streams of an API could not be read; the others were. `requests` counts
    what was asked of it, and `account` is the one that the credentials belong to.
    """

    source: str
    streams: tuple[StreamPull, ...]
    load_id: str | None
    seconds: float
    failures: Mapping[str, SourceError] = field(default_factory=dict)
    requests: int = 0
    account: str | None = None

    @property
    def rows(self) -> int:
        """The rows of all streams."""
        return sum(stream.rows for stream in self.streams)


def pull(source: Source, company: Company, *, now: dt.datetime) -> Pull:
    """Take what is new in a source into the lake.

    `now` becomes `_loaded_at` of every row. A source that is read in place has nothing to pull.

    Raises:
        SourceError: nothing was taken, of no stream.
    """
    with closing(Pulling(source, company, now=now)) as pulling:
        pulling.read()
        return pulling.load()


class Pulling:
    """A pull in its two steps, so that APIs can be read ahead while others are loaded.

    `read` may run in any thread. `load` comes after it, one at a time in a process, because dlt
    keeps its settings for the whole process. From `read` to `close` nobody else pulls the source.

    Raises:
        SourceError: from either step; nothing was taken, of no stream.
    """

    def __init__(self, source: Source, company: Company, *, now: dt.datetime) -> None:
        self.source, self.company, self.now = source, company, now
        self._scratch = company.state / "pipelines"
        self._folder = self._scratch / source.name
        self._spools = self._scratch / f"{source.name}.spools"
        self._lock: sqlite3.Connection | None = None
        self.closed = False
        self._from_api: ApiRead | None = None
        self._seconds = 0.0

    def read(self) -> None:
        """Hold the source, clear away what a killed pull left, and read what is an API."""
        if self.source.in_place:
            return
        with self._told():
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(self.source, self._scratch)
            self._clear()
            heal(self.company.lake / self.source.schema)
            lake = Lake(self.company)
            _check_clock(lake.loads(self.source.name))
            if isinstance(self.source.config, ApiConfig):
                self._from_api = read_api(
                    vendors.vendor(self.source.config.type), self.source.config, self.company,
                    lake.positions(self.source.name), now=self.now, folder=self._spools,
                )  # fmt: skip

    def load(self) -> Pull:
        """Run dlt's pipeline. There is no load id where there was nothing to load."""
        if self.source.in_place:
            return Pull(self.source.name, (), None, 0.0)
        taken: list[StreamPull] = []
        with self._told(), _own_settings(self._scratch):
            pipeline = dlt.pipeline(
                self.source.name,
                pipelines_dir=str(self._scratch),
                destination=dlt.destinations.filesystem(self.company.lake.as_uri()),
                dataset_name=self.source.schema,
            )
            pipeline.sync_destination()
            rows = _dlt_source(self.source, self.company, self.now, taken, self._from_api)
            info = pipeline.run(rows, loader_file_format="parquet")
        load_id = info.loads_ids[-1] if info and info.loads_ids else None
        pulled = Pull(self.source.name, tuple(taken), load_id, self._seconds)
        read = self._from_api
        if read is None:
            return pulled
        about = f"source {self.source.name}"
        failures = {name: error.told(about) for name, error in read.failures.items()}
        return replace(
            pulled, failures=failures, requests=read.requests, account=read.account["id"]
        )

    def close(self) -> None:
        """Let others pull the source."""
        self.closed = True
        if self._lock is not None:
            self._clear()
            self._lock.close()
            self._lock = None

    def _clear(self) -> None:
        for path in (self._folder, self._spools):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Name the source in every error, and count the time."""
        started = time.monotonic()
        try:
            yield
        except SourceError as error:
            raise error.told(f"source {self.source.name}") from None
        except Exception as error:
            raise _explained(self.source, error) from None
        finally:
            self._seconds += time.monotonic() - started


def _dlt_source(
    source: Source,
    company: Company,
    now: dt.datetime,
    taken: list[StreamPull],
    read: ApiRead | None,
) -> Any:
    """The source as dlt sees it: one resource that gives the batches of one stream after another.

    The positions stand in dlt's state, which a load saves together with its rows.
    """
    loaded_at = now.astimezone(dt.UTC).replace(tzinfo=None)

    @dlt.resource(name="pull")
    def rows() -> Iterator[Any]:
        state = dlt.current.source_state()
        manifest: list[dict[str, Any]] = []
        if read is None:
            for name in source.streams:
                parts = _parts(source, company, name, state.setdefault(name, {}))
                yield from _stored(name, parts, loaded_at, manifest, taken)
        else:
            state[ACCOUNT] = read.account
            for name, stream in read.streams.items():
                state[name] = stream.position
                yield from _stored(name, _spooled(stream), loaded_at, manifest, taken, stream)
        if manifest:
            table = pa.Table.from_pylist(manifest, schema=MANIFEST_SCHEMA)
            yield _marked(table, MANIFEST)

    @dlt.source(name=source.name)
    def everything() -> Any:
        return [rows]

    return everything()


def _parts(source: Source, company: Company, name: str, position: dict[str, Any]) -> Iterator[Part]:
    config = source.config
    if isinstance(config, FilesConfig):
        place = place_of(address_of(config.location, company.home), company.home)
        return read_files(config.streams[name], place, position)
    assert isinstance(config, SqlConfig)
    url = address_of(config.url, company.home)
    return read_sql(name, config.streams[name], open_engine(url, company.home), position)


def _spooled(read: StreamRead) -> Iterator[Part]:
    """The rows of an API's stream, as of one file that has the stream's name."""
    for table in read.tables():
        yield Part(read.name, table, read.whole)
    if read.rows or read.empty:
        yield Part(read.name, None, read.whole, done=True)


def _stored(
    name: str,
    parts: Iterator[Part],
    loaded_at: dt.datetime,
    manifest: list[dict[str, Any]],
    taken: list[StreamPull],
    read: StreamRead | None = None,
) -> Iterator[Any]:
    """Add the bookkeeping columns to each batch, and count."""
    kinds = json.dumps(read.kinds, sort_keys=True) if read else None
    row, of_file, files = 0, 0, 0
    for part in parts:
        if part.table is not None:
            count = part.table.num_rows
            table = part.table.append_column("_source_file", pa.repeat(part.source_file, count))
            stamp = pa.scalar(loaded_at, pa.timestamp("us"))
            table = table.append_column("_loaded_at", pa.repeat(stamp, count))
            table = table.append_column("_row", pa.array(range(row, row + count), pa.int64()))
            row, of_file = row + count, of_file + count
            yield _marked(table, name)
        if part.done:
            manifest.append(
                {"stream": name, "source_file": part.source_file, "rows": of_file,
                 "whole": part.whole, "loaded_at": loaded_at, "kinds": kinds}
            )  # fmt: skip
            of_file, files = 0, files + 1
    shape = (read.new_columns, read.changed_kinds) if read else ((), ())
    taken.append(StreamPull(name, row, files, *shape))


def _marked(table: pa.Table, name: str) -> Any:
    """A batch for the lake's table of that name."""
    # Unless told for each column, dlt takes a time without a zone for one in UTC.
    zones: Any = {
        column.name: {"name": column.name, "timezone": column.type.tz is not None}
        for column in table.schema
        if pa.types.is_timestamp(column.type)
    }
    hints = dlt.mark.make_hints(table_name=name, columns=zones)
    return dlt.mark.with_hints(table, hints, create_table_variant=True)


class _OwnSettings(RunContext):
    """dlt without settings from the folder, the home or the environment of whoever runs us."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._global_dir = str(folder)

    def initial_providers(self) -> list[ConfigProvider]:
        return []

    def initialize_runtime(self, runtime_config: RuntimeConfiguration | None = None) -> None:
        quiet = RuntimeConfiguration(dlthub_telemetry=False, log_level="CRITICAL")
        super().initialize_runtime(quiet)


@contextmanager
def _own_settings(folder: Path) -> Iterator[None]:
    with Container().injectable_context(PluggableRunContext(_OwnSettings(folder))):
        yield


def _hold(source: Source, scratch: Path) -> sqlite3.Connection:
    """Hold a lock on the source, which the system frees when the process dies."""
    # SQLite's lock works alike on every system, and no lock file can be left behind locked.
    lock = sqlite3.connect(scratch / f"{source.name}.lock", timeout=0, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        lock.close()
        raise SourceUnavailable("another pull of it is running", "wait until it is done") from None
    return lock


def _check_clock(loads: list[str]) -> None:
    """Loads are ordered by the clock: a clock that was set back would lose the newest cursors."""
    if loads and float(loads[-1]) > time.time():
        raise SourceUnavailable(
            "the clock of this machine stands before the last load", "correct the clock"
        )


def _explained(source: Source, error: BaseException) -> SourceError:
    """Our error in the chain of a dlt error, or the best that can be said without its text."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for link in chain:
        if isinstance(link, SourceError):
            return link.told(f"source {source.name}")
    for link in chain:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            return SourceUnavailable(
                f"source {source.name}: the lake cannot be written ({errno.errorcode[link.errno]})",
                "see to the disk and the rights of the state folder",
            )
    _logger.error("source %s: the pull failed\n%s", source.name, where_raised(chain))
    return SourceCorrupt(
        f"source {source.name}: the pull failed ({type(chain[-1]).__name__})",
        "run it again, and report it if it fails again",
    )
