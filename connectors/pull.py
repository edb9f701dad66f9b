"""Pulling a source into the lake: one dlt pipeline for each source, exactly once.

What the lake holds is the only truth. A pull first removes what a killed one left behind, takes
the cursors of the last completed load from the lake, and begins from there. dlt's own folder is
scratch: it is empty before and after. So a pull may be killed at any moment, and losing the
folder loses nothing; see docs/decisions.
"""

import datetime as dt
import errno
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.common.runtime.run_context import RunContext

from connectors.files import Part, read_files
from connectors.lake import MANIFEST, MANIFEST_SCHEMA, Lake, heal
from connectors.places import place_of
from connectors.sources import FilesConfig, Source, SqlConfig, address_of
from connectors.sql import open_engine, read_sql
from contracts.company import Company
from contracts.errors import SourceCorrupt, SourceError, SourceUnavailable


@dataclass(frozen=True)
class StreamPull:
    """What a pull took from one stream. `files` counts the new and changed ones."""

    name: str
    rows: int
    files: int


@dataclass(frozen=True)
class Pull:
    """What a pull took from a source. `load_id` is None where there was nothing new."""

    source: str
    streams: tuple[StreamPull, ...]
    load_id: str | None
    seconds: float

    @property
    def rows(self) -> int:
        """The rows of all streams."""
        return sum(stream.rows for stream in self.streams)


def pull(source: Source, company: Company, *, now: dt.datetime) -> Pull:
    """Take what is new in a source into the lake.

    `now` becomes `_loaded_at` of every row. A source that is read in place has nothing to pull.

    Raises:
        SourceRefused, SourceUnavailable, SourceCorrupt: nothing was taken, of no stream.
    """
    started = time.monotonic()
    if source.in_place:
        return Pull(source.name, (), None, 0.0)
    taken: list[StreamPull] = []
    scratch = company.state / "pipelines"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(source, scratch), _own_settings(scratch):
            load_id = _run(source, company, now, scratch, taken)
    except SourceError as error:
        raise type(error)(f"source {source.name}: {error.cause}", error.remedy) from None
    except Exception as error:
        raise _explained(source, error) from None
    return Pull(source.name, tuple(taken), load_id, time.monotonic() - started)


def _run(
    source: Source, company: Company, now: dt.datetime, scratch: Path, taken: list[StreamPull]
) -> str | None:
    """One run of the dlt pipeline; returns the id of the load, if there was anything to load."""
    folder = scratch / source.name
    shutil.rmtree(folder, ignore_errors=True)
    heal(company.lake / source.schema)
    _check_clock(Lake(company).loads(source.name))
    try:
        pipeline = dlt.pipeline(
            source.name,
            pipelines_dir=str(scratch),
            destination=dlt.destinations.filesystem(company.lake.as_uri()),
            dataset_name=source.schema,
        )
        pipeline.sync_destination()
        info = pipeline.run(_dlt_source(source, company, now, taken), loader_file_format="parquet")
        return info.loads_ids[-1] if info and info.loads_ids else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _dlt_source(source: Source, company: Company, now: dt.datetime, taken: list[StreamPull]) -> Any:
    """The source as dlt sees it: one resource that gives the batches of one stream after another.

    The positions stand in dlt's state, which a load saves together with its rows.
    """
    loaded_at = now.astimezone(dt.UTC).replace(tzinfo=None)

    @dlt.resource(name="pull")
    def rows() -> Iterator[Any]:
        state = dlt.current.source_state()
        manifest: list[dict[str, Any]] = []
        for name in source.streams:
            position = state.setdefault(name, {})
            parts = _parts(source, company, name, position)
            yield from _stored(name, parts, loaded_at, manifest, taken)
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
        place = place_of(address_of(config.location), company.home)
        return read_files(config.streams[name], place, position)
    assert isinstance(config, SqlConfig)
    url = address_of(config.url)
    return read_sql(name, config.streams[name], open_engine(url, company.home), position)


def _stored(
    name: str,
    parts: Iterator[Part],
    loaded_at: dt.datetime,
    manifest: list[dict[str, Any]],
    taken: list[StreamPull],
) -> Iterator[Any]:
    """Add the bookkeeping columns to each batch, and count."""
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
                 "whole": part.whole, "loaded_at": loaded_at}
            )  # fmt: skip
            of_file, files = 0, files + 1
    taken.append(StreamPull(name, row, files))


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


@contextmanager
def _alone(source: Source, scratch: Path) -> Iterator[None]:
    """Hold a lock on the source, which the system frees when the process dies."""
    # SQLite's lock works alike on every system, and no lock file can be left behind locked.
    with closing(sqlite3.connect(scratch / f"{source.name}.lock", timeout=0)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise SourceUnavailable(
                "another pull of it is running", "wait until it is done"
            ) from None
        yield


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
            return type(link)(f"source {source.name}: {link.cause}", link.remedy)
    for link in chain:
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            return SourceUnavailable(
                f"source {source.name}: the lake cannot be written ({errno.errorcode[link.errno]})",
                "see to the disk and the rights of the state folder",
            )
    return SourceCorrupt(
        f"source {source.name}: the pull failed ({type(chain[-1]).__name__})",
        "run it again, and report it if it fails again",
    )
