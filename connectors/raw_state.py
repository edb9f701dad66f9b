"""The lake as the mappings see it: which rows of a stream are the latest, after any load.

The latest state of a file is its last whole version and what came after its cursor since. A file
that became empty keeps its last rows: an empty page is more often a fault than the truth. Of the
rows of an API with one primary key the latest is the state.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from connectors.acceptance import Accepted
from connectors.api import ApiStream
from connectors.files import normalised
from connectors.lake import FileVersion, Lake, LakeFile, raw_relation_sql
from connectors.quoting import literal, quoted
from connectors.sources import Source
from contracts.company import Company

Stream = tuple[str, str]
"""(source, stream)."""

ALWAYS_FILLED = 0.99
"""A column filled this often so far has vanished when a load brings not one value of it."""

ENOUGH_ROWS = 20
"""Of fewer rows, that not one has a value proves nothing."""


@dataclass(frozen=True)
class Part:
    """The rows of one file of a source that came with one load."""

    source_file: str
    load_id: str


class RawState:
    """All completed loads of all sources, read once for a build."""

    def __init__(
        self, company: Company, sources: Sequence[Source], accepted: Accepted | None = None
    ) -> None:
        lake, self.accepted = Lake(company), accepted or Accepted()
        self.files: dict[Stream, list[LakeFile]] = {}
        self.versions: dict[Stream, list[FileVersion]] = {}
        self.emptied: dict[Stream, dict[str, FileVersion]] = {}
        self.columns: dict[Stream, dict[str, dict[str, tuple[int, int]]]] = {}
        self.read_without_rows: set[Stream] = set()
        self.apis: dict[Stream, ApiStream] = {
            (source.name, name): stream
            for source in sources
            for name, stream in source.streams.items()
            if isinstance(stream, ApiStream)
        }
        for source in sources:
            if source.in_place:
                continue
            for file in lake.files(source.name):
                self.files.setdefault((source.name, file.stream), []).append(file)
            for version in lake.versions(source.name):
                self._add(version, (source.name, version.stream))

    def _add(self, version: FileVersion, stream: Stream) -> None:
        """Take a version into account.

        One without rows only says that its file became empty, unless a person accepted it.
        """
        known = self.versions.setdefault(stream, [])
        emptied = self.emptied.setdefault(stream, {})
        if version.rows or self.accepted.has(stream, version.load_id):
            known.append(version)
            emptied.pop(version.source_file, None)
        elif version.whole and any(v.source_file == version.source_file for v in known):
            emptied[version.source_file] = version
        else:
            self.read_without_rows.add(stream)

    def ready(self, stream: Stream, upto: str) -> bool:
        """True when a stream had rows after a load, or is one of an API that has none."""
        return bool(self.latest(stream, upto)) or stream in self.read_without_rows & set(self.apis)

    def loads(self, streams: Iterable[Stream]) -> dict[str, dt.datetime]:
        """The loads that brought something for these streams, oldest first, with their times."""
        found = {v.load_id: v.loaded_at for s in streams for v in self.versions.get(s, [])}
        return dict(sorted(found.items(), key=lambda item: float(item[0])))

    def brought(self, stream: Stream, load_id: str) -> list[FileVersion]:
        """What one load brought for a stream."""
        return [v for v in self.versions.get(stream, []) if v.load_id == load_id]

    def latest(
        self, stream: Stream, upto: str | None, ignored: frozenset[tuple[Stream, str]] = frozenset()
    ) -> list[Part]:
        """The parts that make up the latest state of a stream after the load `upto`."""
        parts: dict[str, list[Part]] = {}
        for version in self.versions.get(stream, []):
            if upto is not None and float(version.load_id) > float(upto):
                continue
            if (stream, version.load_id) in ignored:
                continue
            if version.whole:
                parts[version.source_file] = []
            parts.setdefault(version.source_file, []).append(
                Part(version.source_file, version.load_id)
            )
        return [part for file in parts.values() for part in file]

    def is_first(self, stream: Stream, load_id: str) -> bool:
        """True when the load is the stream's first that brought rows."""
        return any(file.first for file in self.files.get(stream, []) if file.load_id == load_id)

    def relation(
        self, stream: Stream, parts: Sequence[Part], *, every_row: bool = False
    ) -> str | None:
        """A SELECT of these parts; None when the stream never had a row.

        Of an API's rows with one primary key it has the latest, or all of them with `every_row`.
        """
        api = self.apis.get(stream)
        rows = self._rows(stream, parts)
        if api is None:
            return rows
        relation = _with_columns(api, rows)
        if every_row or rows is None:
            return relation
        key = ", ".join(map(quoted, normalised(list(api.primary_key)).values()))
        return (
            f"SELECT * FROM ({relation}) QUALIFY row_number() OVER "
            f"(PARTITION BY {key} ORDER BY CAST(_load_id AS DOUBLE) DESC, _row DESC) = 1"
        )

    def _rows(self, stream: Stream, parts: Sequence[Part]) -> str | None:
        files = self.files.get(stream, [])
        if not files:
            return None
        loads = {part.load_id for part in parts}
        chosen = [file for file in files if file.load_id in loads]
        if not chosen:
            return f"SELECT * FROM ({raw_relation_sql(files[-1:])}) WHERE FALSE"
        wanted = {(part.source_file, part.load_id) for part in parts}
        present = {(v.source_file, v.load_id) for v in self.versions[stream] if v.load_id in loads}
        relation = raw_relation_sql(chosen)
        if present <= wanted:
            return relation
        pairs = ", ".join(f"({literal(f)}, {literal(load)})" for f, load in sorted(wanted))
        return f"SELECT * FROM ({relation}) WHERE (_source_file, _load_id) IN ({pairs})"

    def show(
        self,
        connection: DuckDBPyConnection,
        stream: Stream,
        parts: Sequence[Part],
        *,
        every_row: bool = False,
    ) -> bool:
        """Make ``raw_<source>.<stream>`` show these parts; False when there is nothing to show."""
        relation = self.relation(stream, parts, every_row=every_row)
        if relation is None:
            return False
        create_view(connection, stream, relation)
        return True

    def count_columns(self, connection: DuckDBPyConnection) -> None:
        """Note how often each column of each load is filled; what was counted is not read again."""
        rows = connection.execute(
            "SELECT source, stream, load_id, column_name, rows, filled FROM signals.raw_columns"
        ).fetchall()
        for source, stream, load, column, count, filled in rows:
            self._note((source, stream), load, column, count, filled)
        for stream_key, files in self.files.items():
            known = self.columns.get(stream_key, {})
            for load in sorted({f.load_id for f in files} - set(known), key=float):
                self._count(connection, stream_key, load)

    def _count(self, connection: DuckDBPyConnection, stream: Stream, load: str) -> None:
        relation = raw_relation_sql([f for f in self.files[stream] if f.load_id == load])
        described = connection.execute(f"DESCRIBE {relation}").fetchall()
        names = [row[0] for row in described if not row[0].startswith("_")]
        counts = ", ".join(f"count({quoted(name)})" for name in names)
        row = connection.execute(
            f"SELECT count(*){', ' if counts else ''}{counts} FROM ({relation})"
        ).fetchone()
        assert row is not None
        found = [(*stream, load, name, row[0], filled) for name, filled in
                 zip(names, row[1:], strict=True)]  # fmt: skip
        for item in found:
            self._note(stream, load, *item[3:])
        if found:
            connection.executemany("INSERT INTO signals.raw_columns VALUES (?,?,?,?,?,?)", found)

    def _note(self, stream: Stream, load: str, column: str, rows: int, filled: int) -> None:
        self.columns.setdefault(stream, {}).setdefault(load, {})[column] = (rows, filled)


def _with_columns(api: ApiStream, rows: str | None) -> str:
    """Rows of an API with every declared column, also those that no load had yet."""
    names = normalised(list(dict.fromkeys((*api.primary_key, *api.columns)))).values()
    empty = [f"CAST(NULL AS VARCHAR) AS {quoted(name)}" for name in names]
    empty += ["CAST(NULL AS VARCHAR) AS _source_file", "CAST(NULL AS TIMESTAMP) AS _loaded_at",
              "CAST(NULL AS BIGINT) AS _row", "CAST(NULL AS VARCHAR) AS _load_id"]  # fmt: skip
    nothing = f"SELECT {', '.join(empty)} WHERE FALSE"
    return f"{rows}\nUNION ALL BY NAME\n{nothing}" if rows else nothing


def create_view(connection: DuckDBPyConnection, stream: Stream, relation: str) -> None:
    """Make ``raw_<source>.<stream>`` show a SELECT."""
    schema, name = quoted(f"raw_{stream[0]}"), quoted(stream[1])
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.execute(f"CREATE OR REPLACE VIEW {schema}.{name} AS {relation}")
