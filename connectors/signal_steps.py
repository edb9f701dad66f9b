"""Which loads a mapping has to build, and what it says after each: the temporary table `staged`.

A row-wise mapping reads the files of the load alone, every other one the latest state of its
streams. The keys that the load took away stand in the temporary table `vanished`.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from connectors import identity
from connectors.doubts import doubts
from connectors.files import normalised
from connectors.mapping import Mapping
from connectors.mapping_errors import column_problems
from connectors.quoting import literal, quoted
from connectors.raw_state import Part, RawState, Stream, create_view
from connectors.signal_tables import STORED
from connectors.sources import Source
from connectors.versions import keys_of, stage
from contracts.errors import ConfigurationError
from contracts.tables import Table

PADDING_DAYS = 1
"""Days around new rows that are computed anew, since a mapping's day may be in any time zone."""

Ignored = frozenset[tuple[Stream, str]]
"""Loads of streams that are passed over."""


@dataclass(frozen=True)
class Step:
    """One load to merge, as a mapping sees it."""

    load_id: str
    loaded_at: dt.datetime
    first: bool


@dataclass(frozen=True)
class Held:
    """The first load that a mapping must not read, with the reason; all later ones wait."""

    stream: Stream
    load_id: str
    reason: str


class Stager:
    """Plans the loads of mappings and stages them, one at a time.

    `attached` holds a SELECT for each stream that is read in place, without a lake.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        sources: Sequence[Source],
        raw: RawState,
        attached: dict[Stream, str],
        now: dt.datetime,
    ) -> None:
        self.connection, self.raw, self.attached, self.now = connection, raw, attached, now
        self.sources = {source.name: source for source in sources}
        self._doubts: dict[tuple[str, str], dict[tuple[Stream, str], str]] = {}

    def in_place(self, mapping: Mapping) -> bool:
        """True when a mapping reads a stream that has no lake."""
        return any(stream in self.attached for stream in mapping.streams)

    def rebuild_by(self, stream: Stream) -> str | None:
        """The column by whose days a stream is computed anew (`rebuild_by`), where declared."""
        return getattr(self.sources[stream[0]].streams[stream[1]], "rebuild_by", None)

    def steps(self, mapping: Mapping, *, built: bool) -> tuple[list[Step], Held | None]:
        """The loads that a mapping can build, oldest first, and why later ones must wait.

        A load in doubt (`connectors.doubts`) is held, lest facts turn to null or vanish because an
        export broke; once newer loads say all of it again, it is passed over.
        """
        if self.in_place(mapping):
            first = not built
            return [
                Step(f"{self.now.replace(tzinfo=dt.UTC).timestamp():.6f}", self.now, first)
            ], None
        ignored = self._broken_loads(mapping)
        loads = self.raw.loads(mapping.streams)
        steps: list[Step] = []
        for load_id, loaded_at in loads.items():
            broken = [(s, why) for (s, load), why in ignored.items() if load == load_id]
            for stream, why in broken:
                if not self._replaced(mapping, stream, load_id):
                    return steps, Held(stream, load_id, why)
            if not all(self.raw.ready(s, load_id) for s in mapping.streams):
                continue
            if all(any(s == b for b, _ in broken) or not self.raw.brought(s, load_id)
                   for s in mapping.streams):  # fmt: skip
                continue
            first = (
                not steps
                if not mapping.row_wise
                else self.raw.is_first(mapping.streams[0], load_id)
            )
            steps.append(Step(load_id, loaded_at, first))
        return steps, None

    def _broken_loads(self, mapping: Mapping) -> dict[tuple[Stream, str], str]:
        """Loads in doubt, with the reason."""
        key = (mapping.source, mapping.table)
        if key not in self._doubts:
            self._doubts[key] = {
                (stream, load): why
                for stream in mapping.streams
                for load, why in doubts(self.raw, stream, mapping, self.raw.accepted).items()
            }
        return self._doubts[key]

    def held(self, mapping: Mapping) -> list[tuple[Stream, str]]:
        """All loads in doubt that no newer load replaces: what a person may accept."""
        return [
            (stream, load)
            for stream, load in self._broken_loads(mapping)
            if not self._replaced(mapping, stream, load)
        ]

    def _replaced(self, mapping: Mapping, stream: Stream, load_id: str) -> bool:
        """True when newer loads say again all that a load says."""
        brought = {v.source_file for v in self.raw.brought(stream, load_id)}
        newer = [v for v in self.raw.versions[stream] if float(v.load_id) > float(load_id)]
        if brought <= {v.source_file for v in newer if v.whole}:
            return True
        broken = {load for s, load in self._broken_loads(mapping) if s == stream}
        good = [Part(v.source_file, v.load_id) for v in newer if v.load_id not in broken]
        return bool(good) and self._said_again(stream, load_id, good)

    def _said_again(self, stream: Stream, load_id: str, newer: Sequence[Part]) -> bool:
        """True when every row of a load of an API has a newer version in these parts."""
        api = self.raw.apis.get(stream)
        if api is None:
            return False
        here = [Part(v.source_file, v.load_id) for v in self.raw.brought(stream, load_id)]
        keys = ", ".join(map(quoted, normalised(list(api.primary_key)).values()))
        left = self.connection.execute(
            f"SELECT {keys} FROM ({self.raw.relation(stream, here, every_row=True)}) EXCEPT "
            f"SELECT {keys} FROM ({self.raw.relation(stream, newer, every_row=True)}) LIMIT 1"
        ).fetchone()
        return left is None

    def stage(self, mapping: Mapping, step: Step) -> None:
        """Run a mapping for one load into `staged`, and find what has `vanished`."""
        table = STORED[mapping.table]
        ignored: Ignored = frozenset(self._broken_loads(mapping))
        keys = ", ".join(quoted(name) for name in table.key)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE vanished AS SELECT {keys} "
            f"FROM signals.{table.name} LIMIT 0"
        )
        if mapping.row_wise and not self.in_place(mapping):
            self._stage_rows(mapping, table, step, ignored)
        else:
            self._stage_state(mapping, table, step, ignored)

    def _stage_rows(self, mapping: Mapping, table: Table, step: Step, ignored: Ignored) -> None:
        """Stage only what a load brought, and find the keys that its new file versions lack."""
        (stream,) = mapping.streams
        everything = self.raw.latest(stream, step.load_id, ignored)
        brought = [part for part in everything if part.load_id == step.load_id]
        self.raw.show(self.connection, stream, brought, every_row=True)
        self._stage(mapping, table, step)
        whole = {v.source_file for v in self.raw.brought(stream, step.load_id) if v.whole}
        before = [
            part
            for part in self.raw.latest(stream, _just_before(step.load_id), ignored)
            if part.source_file in whole
        ]
        if not before:
            return
        self.raw.show(self.connection, stream, before, every_row=True)
        self._find_vanished(mapping, table, "staged")
        row = self.connection.execute("SELECT count(*) FROM vanished").fetchone()
        if row and row[0]:  # gone from its file, but perhaps only moved to another
            self.raw.show(self.connection, stream, everything, every_row=True)
            query, given = self._query(mapping)
            self.connection.execute(
                f"DELETE FROM vanished v USING ({keys_of(table, query, given)}) k WHERE "
                + " AND ".join(f"v.{quoted(name)} = k.{quoted(name)}" for name in table.key)
            )

    def _find_vanished(self, mapping: Mapping, table: Table, present: str) -> None:
        query, given = self._query(mapping)
        keys = ", ".join(quoted(name) for name in table.key)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE vanished AS {keys_of(table, query, given)} "
            f"EXCEPT SELECT {keys} FROM {present}"
        )

    def _stage_state(self, mapping: Mapping, table: Table, step: Step, ignored: Ignored) -> None:
        """Stage the latest state of the streams; open facts that it lacks have vanished."""
        for stream in mapping.streams:
            if stream in self.attached:
                create_view(self.connection, stream, self.attached[stream])
            else:
                parts = self.raw.latest(stream, step.load_id, ignored)
                self.raw.show(self.connection, stream, parts)
        days = None if step.first else self._touched_days(mapping, step, ignored)
        self._stage(mapping, table, step)
        scope = "TRUE"
        if days is not None:
            self.connection.execute(f"DELETE FROM staged WHERE _day NOT IN ({days})")
            scope = f"day IN ({days})"
        keys = ", ".join(quoted(name) for name in table.key)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE vanished AS SELECT {keys} FROM signals.{table.name} "
            f"WHERE source = {literal(mapping.source)} AND superseded_at IS NULL AND {scope} "
            f"EXCEPT SELECT {keys} FROM staged"
        )

    def _touched_days(self, mapping: Mapping, step: Step, ignored: Ignored) -> str | None:
        """For `rebuild_by`: the days to compute anew, and views that hold just enough for them."""
        if len(mapping.streams) != 1 or mapping.streams[0] in self.attached:
            return None
        (stream,) = mapping.streams
        column = self.rebuild_by(stream)
        if column is None:
            return None
        latest = self.raw.latest(stream, step.load_id, ignored)
        before = self.raw.latest(stream, _just_before(step.load_id), ignored)
        changed = [p for p in latest if p.load_id == step.load_id] + [
            part for part in before if part not in latest
        ]
        relation = self.raw.relation(stream, changed, every_row=True)
        state = self.raw.relation(stream, latest)
        day = f"CAST(TRY_CAST({quoted(column)} AS TIMESTAMP) AS DATE)"
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE touched_days AS SELECT DISTINCT {day} AS day "
            f"FROM ({relation}) WHERE {day} IS NOT NULL"
        )
        near = (
            "SELECT DISTINCT day + CAST(i AS INTEGER) FROM touched_days, "
            "generate_series(-{n}, {n}) g(i)"
        )
        rows = self.connection.execute(near.format(n=2 * PADDING_DAYS)).fetchall()
        wanted = ", ".join(f"DATE '{row[0]}'" for row in sorted(rows)) or "NULL"
        # Rows without a day stay in, so that quarantine hears of them.
        near_rows = f"SELECT * FROM ({state}) WHERE {day} IS NULL OR {day} IN ({wanted})"
        create_view(self.connection, stream, near_rows)
        return near.format(n=PADDING_DAYS)

    def _query(self, mapping: Mapping) -> tuple[str, dict[str, str]]:
        """The SELECT to run over the views as they stand, and the type of each of its columns.

        Raises:
            ConfigurationError: it lacks a required column or has one that the table has not.
        """
        given = self._describe(mapping.text)
        problems = column_problems(mapping, given)
        if problems:
            raise ConfigurationError(problems)
        if mapping.table != "account_keys":
            return mapping.text, given
        query = identity.evidence_sql(mapping.text, given)
        return query, self._describe(query)

    def _describe(self, query: str) -> dict[str, str]:
        rows = self.connection.execute(f"DESCRIBE {query}").fetchall()
        return {row[0]: row[1] for row in rows}

    def _stage(self, mapping: Mapping, table: Table, step: Step) -> None:
        query, given = self._query(mapping)
        stage(
            self.connection, table, query, given, loaded_at=step.loaded_at, first=step.first
        )  # fmt: skip


def _just_before(load_id: str) -> str:
    """A number of which exactly the loads before this one are not greater."""
    return repr(float(load_id) - 1e-6)
