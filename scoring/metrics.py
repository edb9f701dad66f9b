"""Metrics as of a day: compiled from YAML to SQL, point-in-time correct.

For each canonical table all metrics are computed in one pass over the rows that their windows can
reach; states, roll-ups, ratios, comparisons and profiles follow on the small result.

A metric with `stale_after` reads a stream that flows continuously, so its windows are measured by
the stream's newest day, not by the calendar: when the pipe stops, the value is held, and after
`stale_after` days it is stale. A source whose last checks failed is read as of its last good check.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from contracts.company import Company
from contracts.errors import NotFoundError
from contracts.tables import MONEY, TABLES
from scoring.config.metrics import Filter, Metric
from scoring.expressions import identifier, literal
from scoring.library import ACCOUNT_FACTS, Library
from scoring.sql import render

FEWEST_PEERS = 20
HOLD_DAYS = 7
"""How long the last good values of a failing source are held where no `stale_after` says it."""

LONGEST_BIT_WINDOW_DAYS = 120
"""Distinct days of a window up to this long are counted in the bits of one 128-bit number."""


@dataclass(frozen=True)
class AsOf:
    """A day, the instant at which it is over (UTC, naive) and the company's money and zone."""

    day: dt.date
    instant: dt.datetime
    currency: str
    time_zone: str

    @classmethod
    def of(cls, company: Company, day: dt.date) -> "AsOf":
        """The end of a company's day."""
        return cls(
            day=day,
            instant=company.end_of(day).replace(tzinfo=None),
            currency=company.settings.currency,
            time_zone=company.settings.time_zone,
        )


@dataclass(frozen=True)
class MetricsReport:
    """What was computed for one day."""

    day: dt.date
    accounts: int
    values: int
    by_state: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class _Clock:
    """How far a source can be trusted for a table, as of the day that is computed."""

    source: str
    newest_day: dt.date | None
    good_until: dt.date
    held_days: int
    suspect: bool


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the schemas, tables and views of scoring where they are missing."""
    connection.execute(render("schema.sql"))


def compute(connection: duckdb.DuckDBPyConnection, library: Library, as_of: AsOf) -> MetricsReport:
    """Compute and store every metric and profile of one day.

    Raises:
        NotFoundError: no account was known on that day.
    """
    began = time.monotonic()
    create_schema(connection)
    connection.execute("BEGIN")
    try:
        accounts = _population(connection, as_of)
        _measure_tables(connection, library, as_of)
        _derive(connection, library)
        _profile(connection, library)
        _compare(connection, library)
        connection.execute(render("store_metrics.sql", day=literal(as_of.day)))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    states = dict(
        connection.execute("SELECT state, count(*) FROM measured GROUP BY 1 ORDER BY 1").fetchall()
    )
    return MetricsReport(
        as_of.day, accounts, sum(states.values()), states, time.monotonic() - began
    )


def _population(connection: duckdb.DuckDBPyConnection, as_of: AsOf) -> int:
    connection.execute(
        render(
            "population.sql",
            day=literal(as_of.day),
            instant=_timestamp(as_of.instant),
            currency=literal(as_of.currency),
        )
    )
    (accounts,) = _one(connection, "SELECT count(*) FROM population")
    if not accounts:
        raise NotFoundError(
            f"no customer account was known on {as_of.day}",
            "choose a later day, or check the mapping to accounts (started_on, is_customer)",
        )
    return int(accounts)


def _measure_tables(connection: duckdb.DuckDBPyConnection, library: Library, as_of: AsOf) -> None:
    by_table: dict[str, dict[str, Metric]] = {}
    for name, metric in library.metrics.items():
        if metric.table:
            by_table.setdefault(metric.table, {})[name] = metric
    previous = _needing_previous(library)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE clocks "
        "(table_name VARCHAR, source VARCHAR, lag_days INTEGER, held_days INTEGER, suspect BOOLEAN)"
    )
    for table, metrics in by_table.items():
        clocks = _clocks(connection, table, metrics, as_of)
        for clock in clocks:
            lag = (as_of.day - clock.newest_day).days if clock.newest_day else None
            connection.execute(
                "INSERT INTO clocks VALUES (?, ?, ?, ?, ?)",
                [table, clock.source, lag, clock.held_days, clock.suspect],
            )
        connection.execute(aggregate_sql(table, metrics, previous, clocks, as_of))
        connection.execute(_measure_sql(table, metrics, previous, bool(clocks), as_of))


def _needing_previous(library: Library) -> set[str]:
    """Metrics whose window before is needed: for their own change, or for a ratio's."""
    needing = set()
    for name, metric in library.metrics.items():
        if "previous_window" in metric.compare:
            needing |= {metric.ratio.of, metric.ratio.to} if metric.ratio else {name}
    return {name for name in needing if library.metrics[name].window}


# How far each source can be trusted


def _clocks(
    connection: duckdb.DuckDBPyConnection, table: str, metrics: Mapping[str, Metric], as_of: AsOf
) -> list[_Clock]:
    newest: dict[str, dt.date] = {}
    if any(metric.stale_after for metric in metrics.values()):
        newest = dict(
            connection.execute(
                f"SELECT source, max(day) FROM signals.{table} WHERE day <= ? AND known_at <= ? "
                "AND (superseded_at IS NULL OR superseded_at > ?) GROUP BY source",
                [as_of.day, as_of.instant, as_of.instant],
            ).fetchall()
        )
    health = {
        source: (healthy, last_good)
        for source, healthy, last_good in connection.execute(
            "SELECT source, bool_and(status = 'ok' OR status = 'stale'), min(last_good) FROM ("
            "  SELECT source, stream, arg_max(status, checked_at) AS status,"
            "    max(checked_at) FILTER (WHERE status IN ('ok', 'stale')) AS last_good"
            "  FROM signals.source_health WHERE checked_at <= ? GROUP BY source, stream"
            ") GROUP BY source",
            [as_of.instant],
        ).fetchall()
    }
    sources = [
        source
        for (source,) in connection.execute(
            'SELECT DISTINCT source FROM signals.feeds WHERE "table" = ? ORDER BY 1', [table]
        ).fetchall()
    ]
    return [_clock(source, newest.get(source), health.get(source), as_of) for source in sources]


def _clock(
    source: str,
    newest: dt.date | None,
    health: tuple[bool, dt.datetime | None] | None,
    as_of: AsOf,
) -> _Clock:
    if health is None or health[0]:
        return _Clock(source, newest, as_of.day, 0, False)
    if health[1] is None:
        return _Clock(source, newest, as_of.day, 0, True)
    held_days = max((as_of.instant - health[1]).days, 0)
    return _Clock(source, newest, as_of.day - dt.timedelta(days=held_days), held_days, False)


# Compiling the metrics of one table


def aggregate_sql(
    table: str,
    metrics: Mapping[str, Metric],
    previous: Iterable[str],
    clocks: Iterable[_Clock],
    as_of: AsOf,
) -> str:
    """The SQL that computes all metrics of one table, one row an account, in one pass."""
    clocks = list(clocks)
    compiler = _Compiler(table, as_of, clocks)
    columns: list[str] = []
    windows: list[int | None] = []
    for name, metric in metrics.items():
        columns += compiler.columns(name, metric, with_previous=name in previous)
        windows.append(metric.window and metric.window * (2 if name in previous else 1))
    first_day = None
    if all(windows):
        reach = max(window for window in windows if window)
        first_day = min(compiler.ends(continuous=True)) - dt.timedelta(days=reach)
    return render(
        "aggregate.sql",
        table=table,
        columns=columns,
        read=compiler.read_columns(metrics),
        first_day=literal(first_day) if first_day else None,
        last_day=literal(as_of.day),
        instant=compiler.instant(),
        money=any(compiler.is_money(metric) for metric in metrics.values()),
        currency=literal(as_of.currency),
    )


class _Compiler:
    """Turns the metrics of one table into aggregate expressions."""

    def __init__(self, table: str, as_of: AsOf, clocks: list[_Clock]) -> None:
        self.table = TABLES[table]
        self.as_of = as_of
        self.clocks = clocks

    def ends(self, *, continuous: bool) -> list[dt.date]:
        """The day on which each source's windows end, in the order of the clocks."""
        return [
            min(clock.good_until, clock.newest_day or self.as_of.day)
            if continuous
            else clock.good_until
            for clock in self.clocks
        ] or [self.as_of.day]

    def end(self, *, continuous: bool) -> str:
        """The SQL of the day on which a row's windows end: one date, or one for each source."""
        ends = self.ends(continuous=continuous)
        if len(set(ends)) == 1:
            return literal(ends[0])
        cases = " ".join(
            f"WHEN {literal(clock.source)} THEN {literal(end)}"
            for clock, end in zip(self.clocks, ends, strict=True)
        )
        return f"(CASE source {cases} END)"

    def instant(self) -> str:
        """The SQL of the instant as of which a row counts: earlier for a source that fails."""
        if all(clock.held_days == 0 for clock in self.clocks):
            return _timestamp(self.as_of.instant)
        cases = " ".join(
            f"WHEN {literal(clock.source)} THEN "
            f"{_timestamp(self.as_of.instant - dt.timedelta(days=clock.held_days))}"
            for clock in self.clocks
        )
        return f"(CASE source {cases} END)"

    def read_columns(self, metrics: Mapping[str, Metric]) -> list[str]:
        """The columns that the metrics read, hidden where they lie after the instant."""
        names = {self.table.time}
        for metric in metrics.values():
            names |= {*metric.where, *([metric.column] if metric.column else [])}
            if self.is_money(metric):
                names.add("currency")
        names -= {"day", "source"}
        return [f"{self._masked(name)} AS {identifier(name)}" for name in sorted(names)] or [
            "NULL AS nothing"
        ]

    def _masked(self, name: str) -> str:
        column = self.table.by_name[name]
        gate = name if column.event_time else column.known_with
        if gate is None:
            return identifier(name)
        limit = "day" if self.table.by_name[gate].type == "DATE" else "instant"
        until = self.end(continuous=False) if limit == "day" else self.instant()
        return f"CASE WHEN {identifier(gate)} <= {until} THEN {identifier(name)} END"

    def is_money(self, metric: Metric) -> bool:
        """Whether the metric is an amount that has to be converted."""
        return (
            metric.column in self.table.by_name
            and self.table.by_name[metric.column].type == MONEY
            and metric.function != "count_distinct"
        )

    def columns(self, name: str, metric: Metric, *, with_previous: bool) -> list[str]:
        """The select-list entries of one metric: value, window before, missing rates."""
        conditions = [self._filter(column, rule) for column, rule in metric.where.items()]
        end = self.end(continuous=metric.stale_after is not None)
        now = self._window(metric, end, 0)
        entries = [f"{self._aggregate(metric, [*now, *conditions], end)} AS {identifier(name)}"]
        if with_previous:
            before = self._window(metric, end, metric.window or 0)
            shifted = f"({end} - {metric.window})"
            entries.append(
                f"{self._aggregate(metric, [*before, *conditions], shifted)} "
                f"AS {identifier(name + '.previous')}"
            )
        if self.is_money(metric):
            missing = " AND ".join(
                [
                    *now,
                    *conditions,
                    f"s.{identifier(metric.column or '')} IS NOT NULL",
                    "r.rate IS NULL",
                ]
            )
            entries.append(
                f"count(*) FILTER (WHERE {missing}) > 0 AS {identifier(name + '.no_rate')}"
            )
        return entries

    def _window(self, metric: Metric, end: str, shift: int) -> list[str]:
        if metric.window is None:
            return []
        last = end if not shift else f"{end} - {shift}"
        return [f"s.day > {end} - {metric.window + shift}", f"s.day <= {last}"]

    def _aggregate(self, metric: Metric, conditions: list[str], end: str) -> str:
        function, name = metric.function, metric.column
        value = f"s.{identifier(name)}" if name else ""
        if self.is_money(metric):
            value = f"({value} * r.rate)"
        if function in ("days_since", "days_until"):
            return self._days(function, name or "", conditions)
        filtered = f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""
        if function == "count":
            return f"count(*){filtered}"
        if function == "count_distinct":
            if name == "day" and metric.window and metric.window <= LONGEST_BIT_WINDOW_DAYS:
                bit = f"1::HUGEINT << least(greatest({end} - s.day, 0), 126)::INTEGER"
                return f"bit_count(bit_or({bit}){filtered})"
            return f"count(DISTINCT {value}){filtered}"
        if function == "last":
            known = " AND ".join([*conditions, f"{value} IS NOT NULL"])
            return (
                f"last({value} ORDER BY s.{identifier(self.table.time)}, s.known_at, {value}) "
                f"FILTER (WHERE {known})"
            )
        return f"{'avg' if function == 'mean' else function}({value}){filtered}"

    def _days(self, function: str, name: str, conditions: list[str]) -> str:
        """Days between the as-of day and a column's latest (or next) day."""
        day, today = self._local_day(name), literal(self.as_of.day)
        if function == "days_since":
            known = " AND ".join([*conditions, f"{day} <= {today}"])
            return f"{today} - max({day}) FILTER (WHERE {known})"
        known = " AND ".join([*conditions, f"{day} >= {today}"])
        return f"min({day}) FILTER (WHERE {known}) - {today}"

    def _local_day(self, name: str) -> str:
        if name in ("day", self.table.time):
            return "s.day"
        if self.table.by_name[name].type == "DATE":
            return f"s.{identifier(name)}"
        zone = literal(self.as_of.time_zone)
        return f"timezone({zone}, timezone('UTC', s.{identifier(name)}))::DATE"

    def _filter(self, name: str, rule: Filter | str | int | float | bool) -> str:
        column = f"s.{identifier(name)}"
        if not isinstance(rule, Filter):
            return f"{column} = {literal(rule)}"
        today = literal(self.as_of.day)
        parts = {
            "in_": lambda values: f"{column} IN ({', '.join(literal(v) for v in values)})",
            "not_in": lambda values: (
                f"coalesce({column} NOT IN ({', '.join(literal(v) for v in values)}), true)"
            ),
            "above": lambda value: f"{column} > {literal(value)}",
            "below": lambda value: f"{column} < {literal(value)}",
            "at_least": lambda value: f"{column} >= {literal(value)}",
            "at_most": lambda value: f"{column} <= {literal(value)}",
            "is_null": lambda value: f"{column} IS {'' if value else 'NOT '}NULL",
            "older_than": lambda days: f"{self._local_day(name)} < {today} - {days}",
            "newer_than": lambda days: f"{self._local_day(name)} > {today} - {days}",
            "after_as_of": lambda value: (
                f"{self._local_day(name)} {'>' if value else '<='} {today}"
            ),
        }
        given = {key: value for key, value in rule.__dict__.items() if value is not None}
        return " AND ".join(parts[key](value) for key, value in given.items())


def _measure_sql(
    table: str, metrics: Mapping[str, Metric], previous: set[str], fed: bool, as_of: AsOf
) -> str:
    compiler = _Compiler(table, as_of, [])
    entries: list[dict[str, Any]] = [
        {
            "name": literal(name),
            "column": identifier(name),
            "previous": identifier(name + ".previous") if name in previous else None,
            "no_rate": identifier(name + ".no_rate") if compiler.is_money(metric) else None,
            "zero_when_empty": literal(metric.zero_when_empty),
            "stale_after": f"{literal(metric.stale_after)}::INTEGER",
            "window_days": f"{literal(metric.window)}::INTEGER",
            "low": _double(metric.possible_range[0]),
            "high": _double(metric.possible_range[1]),
        }
        for name, metric in metrics.items()
    ]
    return render(
        "measure.sql",
        metrics=entries,
        table_name=literal(table),
        fed=fed,
        day=literal(as_of.day),
        hold_days=HOLD_DAYS,
    )


# What is computed from metrics


def _derive(connection: duckdb.DuckDBPyConnection, library: Library) -> None:
    aggregates = {
        "sum": "sum(c.{})",
        "mean": "avg(c.{})",
        "min": "min(c.{})",
        "max": "max(c.{})",
        "revenue": "sum(c.{0} * p.arr) / nullif(sum(p.arr) FILTER (WHERE c.{0} IS NOT NULL), 0)",
    }
    connection.execute(
        render(
            "derive.sql",
            rollups=[
                {
                    "name": literal(name),
                    "value": aggregates[metric.rollup].format("value"),
                    "previous": aggregates[metric.rollup].format("previous"),
                }
                for name, metric in library.metrics.items()
                if metric.rollup
            ],
            ratios=[
                {
                    "name": literal(name),
                    "of": literal(metric.ratio.of),
                    "to": literal(metric.ratio.to),
                    "scale": _double(metric.ratio.scale),
                    "low": _double(metric.possible_range[0]),
                    "high": _double(metric.possible_range[1]),
                }
                for name, metric in library.metrics.items()
                if metric.ratio
            ],
            changes=_comparing(library, "previous_window"),
        )
    )


def _comparing(library: Library, comparison: str) -> list[str]:
    return [
        literal(name) for name, metric in library.metrics.items() if comparison in metric.compare
    ]


def _profile(connection: duckdb.DuckDBPyConnection, library: Library) -> None:
    rules = [*library.profiles.segments, *library.profiles.stages]
    conditions = {rule.when: library.condition(rule.when) for rule in rules if rule.when}
    used = {name for condition in conditions.values() for name in condition.names}
    columns = {name: identifier(name) for name in used}

    def rendered(rule: Any) -> dict[str, str]:
        condition = conditions[rule.when].over(columns) if rule.when else "true"
        return {"name": literal(rule.name), "condition": condition}

    connection.execute(
        render(
            "profile.sql",
            names=[
                {"literal": literal(name), "column": identifier(name)}
                for name in sorted(used - set(ACCOUNT_FACTS))
            ],
            segments=[rendered(rule) for rule in library.profiles.segments],
            stages=[rendered(rule) for rule in library.profiles.stages],
        )
    )


def _compare(connection: duckdb.DuckDBPyConnection, library: Library) -> None:
    benchmarks = []
    for name, metric in library.metrics.items():
        if isinstance(metric.benchmark, dict):
            cases = " ".join(
                f"WHEN {literal(segment)} THEN {_double(value)}"
                for segment, value in metric.benchmark.items()
            )
            benchmarks.append(
                {"name": literal(name), "by_segment": f"(CASE p.segment {cases} END)"}
            )
        elif metric.benchmark is not None:
            benchmarks.append({"name": literal(name), "by_segment": _double(metric.benchmark)})
    connection.execute(
        render(
            "compare.sql",
            peers=_comparing(library, "peers"),
            benchmarks=benchmarks,
            fewest_peers=FEWEST_PEERS,
        )
    )


def _double(value: float) -> str:
    return f"'{value}'::DOUBLE"


def _timestamp(value: dt.datetime) -> str:
    return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}'"


def _one(connection: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> tuple[Any, ...]:
    row = connection.execute(sql, list(parameters)).fetchone()
    assert row is not None
    return row
