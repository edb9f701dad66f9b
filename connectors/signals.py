"""Building `signals`: the lake, run through the mappings, checked, linked to accounts, versioned.

Read `build` first. Each table of each source is one transaction that also notes the loads it has
built (`signals.loads`), so whatever stops a build, the next one takes up what is missing. Loads
are merged one after the other, oldest first; a rebuild does the same from the beginning, and so
comes to the same tables.
"""

import datetime as dt
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection

from connectors import identity
from connectors.acceptance import read_accepted
from connectors.health import StreamHealth, naive_utc, record_health
from connectors.lake import attached_sql
from connectors.mapping import Mapping, macros, read_mapping
from connectors.mapping_errors import explain, warehouse_error
from connectors.raw_state import RawState, Stream
from connectors.signal_reports import BuildReport, TableReport
from connectors.signal_steps import Stager, Step
from connectors.signal_tables import STORED, create_table, create_tables
from connectors.sources import Source
from connectors.verdicts import judge
from connectors.versions import close_vanished, merge
from contracts.company import Company
from contracts.errors import ConfigurationError, Problem
from contracts.tables import TABLES

__all__ = ["BuildReport", "TableReport", "build", "record_health"]

BUILD_VERSION = 2
"""Part of every fingerprint: raise it when the build itself changes what it stores."""

KEYED = tuple(name for name, table in STORED.items()
              if "account_key" in table.by_name and name != "account_keys")  # fmt: skip
"""Tables whose rows are linked to accounts."""


def build(
    connection: DuckDBPyConnection,
    company: Company,
    sources: Sequence[Source],
    *,
    now: dt.datetime,
    rebuild: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> BuildReport:
    """Bring `signals` up to date with the lake.

    Args:
        connection: The warehouse, writable and in no transaction.
        company: The company.
        sources: All its sources; a rebuild removes what other sources once said.
        now: The clock, for health and for sources that are read in place.
        rebuild: Forget everything and build it again from the lake.
        progress: Called before each step with its name.

    Raises:
        ConfigurationError: mappings or the manual identity file have mistakes; all are listed.
            Everything that has none is built.
        WarehouseError: the warehouse is full, locked or damaged.
    """
    return _Builder(connection, company, sources, naive_utc(now), rebuild, progress).run()


@dataclass
class _Progress:
    """What the steps of one table have done so far."""

    loads: int = 0
    rows: int = 0
    new: int = 0
    closed: int = 0
    quarantined: int = 0


class _StepFailed(Exception):
    """A mapping failed on a load; the loads before it are good."""

    def __init__(self, position: int, problems: Sequence[Problem]) -> None:
        self.position, self.problems = position, problems


class _Builder:
    def __init__(
        self,
        connection: DuckDBPyConnection,
        company: Company,
        sources: Sequence[Source],
        now: dt.datetime,
        rebuild: bool,
        progress: Callable[[str], None],
    ) -> None:
        self.connection, self.company, self.sources = connection, company, tuple(sources)
        self.now, self.rebuild, self.progress = now, rebuild, progress
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.suspects: dict[Stream, str] = {}
        self.rekeyed = 0
        self.identity_loaded = self.manual_mistakes = False
        self.attached: dict[Stream, str] = {}

    # -- the whole ----------------------------------------------------------------------------

    def run(self) -> BuildReport:
        started = time.perf_counter()
        self._prepare()
        mappings = self._read_mappings()
        with self._transaction():
            self.raw.count_columns(self.connection)
        self._forget_undeclared(mappings)
        self._note_feeds(mappings)
        by_table = {name: [m for m in mappings if m.table == name] for name in TABLES}
        reports = [self._table(m) for m in by_table.pop("accounts")]
        reports += [self._table(m) for m in by_table.pop("account_keys")]
        self._identify()
        reports += [self._table(m) for group in by_table.values() for m in group]
        self._finish()
        self._note_held(mappings)
        health = self._judge(mappings, reports)
        if self.problems:
            raise ConfigurationError(sorted(set(self.problems)))
        return BuildReport(
            tuple(reports), identity.coverage(self.connection, KEYED), health,
            tuple(self.warnings), self.rekeyed, time.perf_counter() - started,
        )  # fmt: skip

    def _prepare(self) -> None:
        """Tables and macros; the attached databases of sources read in place."""
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET preserve_insertion_order = true")
        self.connection.execute(f"SET memory_limit = '{self.company.settings.warehouse_memory}'")
        for source in self.sources:
            if source.in_place:
                statements, relations = attached_sql(source, self.company)
                for statement in statements:
                    self.connection.execute(statement)
                self.attached |= {(source.name, name): sql for name, sql in relations.items()}
        with self._transaction():
            create_tables(self.connection)
            for statement in macros(self.company.settings.time_zone):
                self.connection.execute(statement)
        self.raw = RawState(self.company, self.sources, read_accepted(self.company))
        self.stager = Stager(self.connection, self.sources, self.raw, self.attached, self.now)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException as error:
            self.connection.execute("ROLLBACK")
            mended = warehouse_error(error)
            if mended is not None:
                raise mended from error
            raise
        self.connection.execute("COMMIT")

    def _read_mappings(self) -> list[Mapping]:
        aggregates = [
            row[0]
            for row in self.connection.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions() "
                "WHERE function_type = 'aggregate'"
            ).fetchall()
        ]
        streams = [(source.name, stream) for source in self.sources for stream in source.streams]
        mappings = []
        for source in self.sources:
            for table, file in sorted(source.mappings.items()):
                try:
                    text = source.mapping_text(table)
                except ConfigurationError as error:
                    self.problems += error.problems
                    continue
                mapping, problems = read_mapping(
                    source.name, table, file, text, streams, aggregates
                )
                self.problems += problems
                if mapping is not None:
                    mappings.append(mapping)
        return mappings

    def _forget_undeclared(self, mappings: Sequence[Mapping]) -> None:
        """Remove what mappings said that are no more (of other sources only in a rebuild)."""
        declared = {(source.name, table) for source in self.sources for table in source.mappings}
        names = {source.name for source in self.sources}
        rows = self.connection.execute('SELECT source, "table" FROM signals.builds').fetchall()
        for source, table in rows:
            if (source, table) not in declared and (self.rebuild or source in names):
                with self._transaction():
                    self._note("finished", "")
                    self._clear(source, table)

    def _note_feeds(self, mappings: Sequence[Mapping]) -> None:
        """Which streams each table is made of, also where it waits for one that never answered."""
        names = {source.name for source in self.sources}
        read = {(m.source, m.table) for m in mappings}
        declared = {(source.name, table) for source in self.sources for table in source.mappings}
        with self._transaction():
            rows = self.connection.execute(
                'SELECT DISTINCT source, "table" FROM signals.feeds'
            ).fetchall()
            for source, table in rows:
                known = (source, table) in declared - read  # cannot be read at present
                if not known and (self.rebuild or source in names):
                    self.connection.execute(
                        'DELETE FROM signals.feeds WHERE source = ? AND "table" = ?',
                        [source, table],
                    )
            feeds = [[m.table, m.source, *stream] for m in mappings for stream in m.streams]
            for feed in feeds:
                self.connection.execute("INSERT INTO signals.feeds VALUES (?, ?, ?, ?)", feed)

    def _clear(self, source: str, mapping: str) -> None:
        """Forget all that a source said for one table."""
        table = STORED[mapping]
        others = self.connection.execute(
            f"SELECT 1 FROM signals.{table.name} WHERE source <> ? LIMIT 1", [source]
        ).fetchone()
        if others:
            self.connection.execute(f"DELETE FROM signals.{table.name} WHERE source = ?", [source])
        else:
            create_table(self.connection, table)
        for state in ("builds", "loads", "quarantine", "keys_seen"):
            self.connection.execute(
                f'DELETE FROM signals.{state} WHERE source = ? AND "table" = ?', [source, mapping]
            )

    # -- one table ----------------------------------------------------------------------------

    def _table(self, mapping: Mapping) -> TableReport:
        """Build what is new for one table of one source, in one transaction."""
        self.progress(f"{mapping.source}.{mapping.table}")
        started = time.perf_counter()
        done, mode, reason = self._build_table(mapping)
        name = STORED[mapping.table].name
        row = self.connection.execute(
            f"SELECT count(*) FROM signals.{name} WHERE source = ?", [mapping.source]
        ).fetchone()
        rows_read, quarantined = done.rows, done.quarantined
        if not done.loads:
            rows_read, quarantined = self._last_load(mapping)
        return TableReport(
            mapping.source, mapping.table, mode, done.loads, rows_read, done.new, done.closed,
            quarantined, int(row[0]) if row else 0, time.perf_counter() - started, reason,
        )  # fmt: skip

    def _last_load(self, mapping: Mapping) -> tuple[int, int]:
        row = self.connection.execute(
            'SELECT rows, quarantined FROM signals.loads WHERE source = ? AND "table" = ? '
            "AND rows > 0 ORDER BY TRY_CAST(load_id AS DOUBLE) DESC LIMIT 1",
            [mapping.source, mapping.table],
        ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def _build_table(self, mapping: Mapping) -> tuple[_Progress, str, str | None]:
        fingerprint = self._fingerprint(mapping)
        former = self.connection.execute(
            'SELECT fingerprint FROM signals.builds WHERE source = ? AND "table" = ?',
            [mapping.source, mapping.table],
        ).fetchone()
        built = self._built(mapping)
        steps, held = self.stager.steps(mapping, built=bool(built))
        in_place = self.stager.in_place(mapping)
        new = [step for step in steps if in_place or step.load_id not in built]
        newest = max((float(load) for load in built), default=float("-inf"))
        full = (
            self.rebuild
            or former != (fingerprint,)
            or bool(not in_place and built - {step.load_id for step in steps})
            or any(float(step.load_id) < newest for step in new if not in_place)
        )
        pending = steps if full else new
        if held:
            self.suspects.setdefault(held.stream, held.reason)
        reason = held.reason if held else None
        if not pending and not (full and former):
            return _Progress(), "held" if held else "unchanged" if former else "waiting", reason
        return self._run_steps(mapping, pending, full, fingerprint, reason)

    def _run_steps(
        self, mapping: Mapping, steps: list[Step], full: bool, fingerprint: str, held: str | None
    ) -> tuple[_Progress, str, str | None]:
        """Run the steps; where one fails, keep those before it and hold the rest."""
        if mapping.table in KEYED:
            self._load_identity()  # not within the transaction, which may be rolled back
        try:
            with self._transaction():
                done = self._merge_steps(mapping, steps, full, fingerprint)
            return done, "held" if held else "full" if full else "incremental", held
        except _StepFailed as failure:
            worked_before = not full or failure.position > 0
            if not worked_before:
                self.problems += failure.problems
                return _Progress(), "failed", str(failure.problems[0])
            problem = failure.problems[0]
            place = f"sources/{mapping.source}/{mapping.file.name}:{problem.line}"
            reason = f"{place}: {problem.cause}; {problem.remedy}"
            for stream in mapping.streams:
                self.suspects.setdefault(stream, reason)
            good = steps[: failure.position]
            if not good:
                return _Progress(), "held", reason
            return self._run_steps(mapping, good, full, fingerprint, reason)

    def _merge_steps(
        self, mapping: Mapping, steps: list[Step], full: bool, fingerprint: str
    ) -> _Progress:
        self._note("finished", "")
        if full:
            self._clear(mapping.source, mapping.table)
            names = [mapping.source, mapping.table]
            self.connection.execute(
                "INSERT INTO signals.builds VALUES (?, ?, ?)", [*names, fingerprint]
            )
        done = _Progress()
        for position, step in enumerate(steps):
            try:
                self._merge_step(mapping, step, done)
            except duckdb.Error as error:
                if warehouse_error(error) is not None:
                    raise
                known = [c for s in mapping.streams for load in self.raw.columns.get(s, {}).values()
                         for c in load]  # fmt: skip
                raise _StepFailed(position, [explain(mapping, error, known)]) from None
            except ConfigurationError as error:
                raise _StepFailed(position, error.problems) from None
        return done

    def _fingerprint(self, mapping: Mapping) -> str:
        """Of everything but data that decides what a mapping's rows are."""
        options = [self.stager.rebuild_by(stream) for stream in mapping.streams]
        parts = (
            BUILD_VERSION, mapping.text, TABLES[mapping.table].columns, options,
            self.company.settings.time_zone,
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def _built(self, mapping: Mapping) -> set[str]:
        rows = self.connection.execute(
            'SELECT load_id FROM signals.loads WHERE source = ? AND "table" = ?',
            [mapping.source, mapping.table],
        ).fetchall()
        return {row[0] for row in rows}

    # -- one load -----------------------------------------------------------------------------

    def _merge_step(self, mapping: Mapping, step: Step, done: _Progress) -> None:
        """Stage, check, link and merge what one load says; close what vanished with it."""
        table = STORED[mapping.table]
        self.stager.stage(mapping, step)
        if mapping.table in KEYED:
            self._link_new_keys(mapping)
        merged = merge(
            self.connection, table, mapping=mapping.table, source=mapping.source,
            load_id=step.load_id, loaded_at=step.loaded_at,
        )  # fmt: skip
        done.closed += close_vanished(
            self.connection, table, source=mapping.source, at=step.loaded_at
        )
        done.loads += 1
        done.rows += merged.rows
        done.new += merged.new
        done.quarantined += merged.quarantined
        share = merged.quarantined / merged.rows if merged.rows else 0.0
        if self.stager.in_place(mapping):  # read anew each time: only the last is worth remembering
            self.connection.execute(
                'DELETE FROM signals.loads WHERE source = ? AND "table" = ?',
                [mapping.source, mapping.table],
            )
        self.connection.execute(
            "INSERT INTO signals.loads VALUES (?, ?, ?, ?, ?, ?)",
            [mapping.source, mapping.table, step.load_id, merged.rows, merged.quarantined, share],
        )

    # -- identity -----------------------------------------------------------------------------

    def _plain_sources(self) -> list[str]:
        return [source.name for source in self.sources if "account_keys" not in source.mappings]

    def _load_identity(self) -> None:
        """Accounts, evidence and the manual file, as temporary tables, once for a build."""
        if self.identity_loaded:
            return
        ids, mistakes = identity.load_accounts(self.connection)
        self.warnings += mistakes
        names = [source.name for source in self.sources]
        manual, problems = identity.read_manual(self.company, names, ids)
        self.problems += problems
        self.manual_mistakes = bool(problems)
        identity.load_manual(self.connection, manual)
        identity.load_evidence(self.connection, self.company)
        self.identity_loaded = True

    def _identify(self) -> None:
        """Resolve all known keys anew, where accounts, evidence or the manual file changed."""
        fingerprint = self._identity_fingerprint()
        if self._noted("identity") == fingerprint:
            return
        self.progress("identity")
        self._load_identity()
        with self._transaction():
            keys = "SELECT source, account_key FROM signals.keys_seen UNION " \
                   "SELECT source, account_key FROM signals.key_evidence " \
                   "UNION SELECT source, account_key FROM signals.account_keys"  # fmt: skip
            identity.resolve(self.connection, keys, self._plain_sources())
            self.rekeyed = identity.rekey(self.connection, KEYED)
            identity.store_resolved(self.connection)
            self._note("finished", "")
            if not self.warnings and not self.manual_mistakes:  # say them again next time
                self._note("identity", fingerprint)

    def _identity_fingerprint(self) -> str:
        """Of all that decides to whom a key belongs."""
        digests = [
            self.connection.execute(
                f"SELECT count(*), bit_xor(hash(t)) FROM (SELECT * FROM signals.{name}) t"
            ).fetchone()
            for name in ("accounts", "key_evidence")
        ]
        settings = self.company.settings.identity
        manual = identity.manual_text(self.company)
        return repr((BUILD_VERSION, digests, self._plain_sources(), settings, manual))

    def _noted(self, name: str) -> str | None:
        row = self.connection.execute(
            "SELECT fingerprint FROM signals.fingerprints WHERE name = ?", [name]
        ).fetchone()
        return row[0] if row else None

    def _note(self, name: str, fingerprint: str) -> None:
        self.connection.execute("DELETE FROM signals.fingerprints WHERE name = ?", [name])
        self.connection.execute(
            "INSERT INTO signals.fingerprints VALUES (?, ?)", [name, fingerprint]
        )

    def _link_new_keys(self, mapping: Mapping) -> None:
        """Resolve the keys of a load that were never seen, before its rows are stored."""
        names = {"source": mapping.source, "mapping": mapping.table}
        self.connection.execute(
            "CREATE OR REPLACE TEMP TABLE new_keys AS SELECT $source AS source, account_key, "
            "min(_known_at) AS known_at FROM staged WHERE _reason IS NULL AND account_key NOT IN "
            '(SELECT account_key FROM signals.keys_seen WHERE source = $source AND "table" = '
            "$mapping) GROUP BY account_key",
            names,
        )
        row = self.connection.execute(
            "INSERT INTO signals.keys_seen SELECT source, $mapping, account_key, known_at "
            "FROM new_keys",
            {"mapping": mapping.table},
        ).fetchone()
        if not row or not row[0]:
            return
        unknown = (
            "SELECT source, account_key FROM new_keys "
            "EXCEPT SELECT source, account_key FROM signals.account_keys"
        )
        identity.resolve(self.connection, unknown, self._plain_sources())
        identity.store_resolved(self.connection)

    # -- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Revenue of unmatched keys, and raw views over the latest state, for people to query."""
        row = self.connection.execute(
            "SELECT count(*), bit_xor(hash(l)) FROM (SELECT * FROM signals.loads) l"
        ).fetchone()
        loads = {stream: list(self.raw.loads([stream])) for stream in self.raw.files}
        fingerprint = repr((row, self._noted("identity"), sorted(loads.items())))
        if self._noted("finished") == fingerprint:
            return
        with self._transaction():
            self._drop_unseen_keys()
            identity.date_links(self.connection, self._plain_sources())
            identity.weigh_unmatched(self.connection)
            for stream in self.raw.files:
                self.raw.show(self.connection, stream, self.raw.latest(stream, None))
            self._note("finished", fingerprint)

    def _drop_unseen_keys(self) -> None:
        """A key that no table and no evidence names any more is no key."""
        for name in ("account_keys", "unmatched"):
            self.connection.execute(
                f"DELETE FROM signals.{name} t WHERE NOT EXISTS (FROM signals.keys_seen s "
                "WHERE s.source = t.source AND s.account_key = t.account_key) AND NOT EXISTS "
                "(FROM signals.key_evidence e WHERE e.source = t.source "
                "AND e.account_key = t.account_key)"
            )

    def _note_held(self, mappings: Sequence[Mapping]) -> None:
        """Keep which loads wait for a newer one or for a person, for `healthloop sources`."""
        held = {
            found
            for mapping in mappings
            if not self.stager.in_place(mapping)
            for found in self.stager.held(mapping)
        }
        for stream, files in self.raw.emptied.items():
            held |= {(stream, version.load_id) for version in files.values()}
        with self._transaction():
            self.connection.execute("DELETE FROM signals.held")
            for stream, load_id in sorted(held):
                self.connection.execute(
                    "INSERT INTO signals.held VALUES (?, ?, ?)", [*stream, load_id]
                )

    def _judge(
        self, mappings: Sequence[Mapping], reports: Sequence[TableReport]
    ) -> tuple[StreamHealth, ...]:
        """The health of every stream after this build, recorded."""
        limits = self.company.settings.limits
        streams = {(m.source, m.table): m.streams for m in mappings}
        for report in reports:
            if report.breaks(limits):
                for stream in streams[report.source, report.table]:
                    self.suspects.setdefault(
                        stream,
                        f"{report.quarantine_share:.0%} of the rows for {report.table} "
                        "break the contract; see signals.quarantine",
                    )
            if report.loads and report.quarantined:
                self.warnings.append(self._set_aside(report))
        with self._transaction():
            return judge(
                self.connection, self.company, self.sources, self.raw, self.suspects, self.now
            )

    def _set_aside(self, report: TableReport) -> str:
        """Why most of a table's rows that break the contract do so, for instance a new status."""
        row = self.connection.execute(
            'SELECT reason FROM signals.quarantine WHERE source = ? AND "table" = ? '
            "GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 1",
            [report.source, report.table],
        ).fetchone()
        why = f" ({row[0]})" if row else ""
        return (
            f"{report.quarantined:,} rows of {report.source} for {report.table} are set aside"
            f"{why}; see signals.quarantine"
        )
