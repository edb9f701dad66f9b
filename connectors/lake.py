"""The Parquet lake: every row that a source ever said, append-only, written by dlt.

Below `company.lake` each source has a folder ``raw_<source>`` with one folder for each stream.
A load counts once its record stands in `_dlt_loads`, which dlt writes last. Files of a load
without a record are what a killed pull left behind: nobody reads them, and the next pull removes
them (`heal`), together with the cursors that such a load may already have saved.

Beside the source's own columns every row has `_source_file` (the path below the source's
location, or the stream's name for SQL), `_loaded_at` (naive UTC), `_load_id` and `_row` (the
row's number within its load and stream, in the order of the source).
"""

import datetime as dt
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.versioned_state import decompress_state

from connectors.quoting import literal
from connectors.sources import AttachedConfig, AttachedStream, Source
from contracts.company import Company

MANIFEST = "_files"
MANIFEST_SCHEMA = pa.schema(
    {
        "stream": pa.string(),
        "source_file": pa.string(),
        "rows": pa.int64(),
        "whole": pa.bool_(),
        "loaded_at": pa.timestamp("us"),
        "kinds": pa.string(),
    }
)


@dataclass(frozen=True)
class LakeFile:
    """One Parquet file of a completed load. `first` is true in the stream's first load."""

    stream: str
    path: Path
    load_id: str
    loaded_at: dt.datetime
    first: bool


@dataclass(frozen=True)
class FileVersion:
    """What a load took from one file of the source (or from one SQL stream).

    `whole` is true where the load holds all `rows` of it, so that it replaces earlier versions;
    false where it holds only what came after the cursor. `kinds` are the JSON types that an API
    sent in each column.
    """

    stream: str
    source_file: str
    load_id: str
    loaded_at: dt.datetime
    rows: int
    whole: bool
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Lake:
    """Reads the lake of a company: completed loads only."""

    def __init__(self, company: Company) -> None:
        self.folder = company.lake

    def loads(self, source: str) -> list[str]:
        """The ids of a source's completed loads, oldest first."""
        return sorted(_completed(self.folder / f"raw_{source}"), key=float)

    def files(self, source: str, *, after: str | None = None) -> list[LakeFile]:
        """The files of a source's completed loads, by load and stream.

        With `after`, only those of loads newer than that load id.
        """
        dataset = self.folder / f"raw_{source}"
        completed = self.loads(source)
        by_load: dict[str, list[tuple[str, Path]]] = {load_id: [] for load_id in completed}
        for path in dataset.glob("*/*.parquet"):
            stream, load_id = path.parent.name, _load_id(path)
            if load_id in by_load and not stream.startswith("_"):
                by_load[load_id].append((stream, path))
        seen: dict[str, str] = {}
        files = []
        for load_id in completed:
            new = after is None or float(load_id) > float(after)
            loaded_at = _loaded_at(dataset, load_id) if new and by_load[load_id] else None
            for stream, path in sorted(by_load[load_id]):
                first = seen.setdefault(stream, load_id) == load_id
                if loaded_at is not None:
                    files.append(LakeFile(stream, path, load_id, loaded_at, first))
        return files

    def versions(self, source: str, *, after: str | None = None) -> list[FileVersion]:
        """What each completed load took from each file of the source, oldest load first.

        A file that became empty is here with no rows, though no row of the lake tells of it.
        """
        dataset = self.folder / f"raw_{source}"
        return [
            FileVersion(
                row["stream"], row["source_file"], load_id, row["loaded_at"], row["rows"],
                row["whole"], json.loads(row["kinds"] or "{}"),
            )
            for load_id in self.loads(source)
            if after is None or float(load_id) > float(after)
            for row in _manifest(dataset, load_id)
        ]  # fmt: skip

    def positions(self, source: str) -> dict[str, Any]:
        """Where a source's last completed load left each stream, as dlt saved it with the rows."""
        completed = self.loads(source)
        saved = {
            path.stem.split("__")[-2]: path
            for path in (self.folder / f"raw_{source}").glob("_dlt_pipeline_state/*.jsonl")
        }
        newest = next((saved[load] for load in reversed(completed) if load in saved), None)
        if newest is None:
            return {}
        state = decompress_state(json.loads(newest.read_text(encoding="utf-8"))["state"])
        found: dict[str, Any] = state.get("sources", {}).get(source, {})
        return found


def raw_relation_sql(files: Sequence[LakeFile]) -> str:
    """A SELECT over files of one stream: the source's columns and the four of bookkeeping.

    Columns are united by name; where their types differ DuckDB takes the wider one. A column
    that was once a number and once a time, which nothing is wider than, becomes text.
    """
    if not files:
        raise ValueError("a relation needs at least one file")
    schemas = {file.path: pq.read_schema(file.path) for file in files}
    families: dict[str, set[str]] = {}
    for schema in schemas.values():
        for column in schema:
            families.setdefault(column.name, set()).add(_family(column.type))
    torn = {name for name, found in families.items() if len(found - {"text"}) > 1}
    groups: dict[str, list[str]] = {}
    for path, schema in schemas.items():
        casts = [f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in schema.names if name in torn]
        replace = f" REPLACE ({', '.join(casts)})" if casts else ""
        # Files of unlike types must not meet in one read_parquet: it would refuse them.
        types = str([schema.field(name).type for name in sorted(torn) if name in schema.names])
        groups.setdefault(f"{types}|{replace}", []).append(literal(str(path)))
    return "\nUNION ALL BY NAME\n".join(
        f"SELECT * EXCLUDE (filename){key.partition('|')[2]}, {_LOAD_ID_SQL} AS _load_id "
        f"FROM read_parquet([{', '.join(paths)}], union_by_name = true, filename = true, "
        "hive_partitioning = false)"
        for key, paths in groups.items()
    )


_LOAD_ID_SQL = "regexp_extract(filename, '([0-9]+\\.[0-9]+)\\.[^/\\\\]+$', 1)"


def _family(type_: pa.DataType) -> str:
    """Types of one family have a wider one in common; text is wider than any."""
    if pa.types.is_temporal(type_):
        return "clock" if pa.types.is_time(type_) else "time"
    if pa.types.is_binary(type_):
        return "bytes"
    return "text" if pa.types.is_string(type_) or pa.types.is_large_string(type_) else "number"


def attached_sql(source: Source, company: Company) -> tuple[list[str], dict[str, str]]:
    """How to read a source in place: statements to run first, and a SELECT for each stream.

    The data has no loads: `_loaded_at` is null, `_load_id` is empty, and `_source_file` is the
    stream's name. Attached databases are opened read-only.
    """
    config = source.config
    assert isinstance(config, AttachedConfig)
    first: list[str] = []
    alias = f"attached_{source.name}"
    if config.database is not None:
        path = company.home / config.database
        first.append(f"ATTACH IF NOT EXISTS {literal(str(path))} AS {alias} (READ_ONLY)")
    relations = {}
    for name, stream in config.streams.items():
        relations[name] = (
            f"SELECT *, {literal(name)} AS _source_file, CAST(NULL AS TIMESTAMP) AS _loaded_at, "
            f"'' AS _load_id, row_number() OVER () AS _row FROM "
            + _attached_relation(config, stream, company, alias)
        )
    return first, relations


def _attached_relation(
    config: AttachedConfig, stream: AttachedStream, company: Company, alias: str
) -> str:
    if stream.table is not None:
        parts = stream.table.split(".")
        names = parts if len(parts) > 1 else ["main", *parts]
        return ".".join('"' + part.replace('"', '""') + '"' for part in [alias, *names])
    pattern = company.home / str(config.location) / str(stream.files)
    return f"read_parquet({literal(str(pattern))}, union_by_name = true)"


def heal(dataset: Path) -> int:
    """Remove what a killed pull left in a source's folder; returns how many files that were.

    Files of dlt's own that were torn while being written go too: dlt writes them again.
    """
    completed = _completed(dataset)
    if not completed:
        files = sum(path.is_file() for path in dataset.rglob("*"))
        shutil.rmtree(dataset, ignore_errors=True)
        return files
    leftovers = list(_leftovers(dataset, completed))
    for path in leftovers:
        path.unlink()
    return len(leftovers)


def _leftovers(dataset: Path, completed: set[str]) -> Iterable[Path]:
    for path in list(dataset.glob("*/*")):
        folder, parts = path.parent.name, path.stem.split("__")
        if folder in ("_dlt_loads", "_dlt_pipeline_state"):
            # dlt saves a cursor just before it records the load that the cursor belongs to.
            if len(parts) < 2 or parts[-1 if folder == "_dlt_loads" else -2] not in completed:
                yield path
        elif folder == "_dlt_version":
            if not _is_json(path):
                yield path
        elif _load_id(path) not in completed:
            yield path


def _completed(dataset: Path) -> set[str]:
    """Load ids whose record is there, whole and good."""
    found = set()
    for path in dataset.glob("_dlt_loads/*.jsonl"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("status") == 0:
            found.add(str(record["load_id"]))
    return found


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _load_id(path: Path) -> str:
    """``1795296013.2239792.fd88f74a2a.parquet`` belongs to load ``1795296013.2239792``."""
    return ".".join(path.name.split(".")[:2])


def _manifest(dataset: Path, load_id: str) -> list[dict]:
    rows: list[dict] = []
    for path in sorted((dataset / MANIFEST).glob(f"{load_id}.*.parquet")):
        rows += pq.read_table(path, schema=MANIFEST_SCHEMA).to_pylist()
    return rows


def _loaded_at(dataset: Path, load_id: str) -> dt.datetime:
    rows = _manifest(dataset, load_id)
    return rows[0]["loaded_at"]
