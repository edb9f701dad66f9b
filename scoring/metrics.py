"""Metrics as of a day: compiled from YAML to SQL, point-in-time correct.

For each canonical table all metrics are computed in one pass over the rows that their windows can
reach; states, roll-ups, ratios, comparisons and profiles follow on the small result.

A metric with `stale_after` reads a stream that flows continuously, so its windows are measured by
the stream's newest day, not by the calendar: when the pipe stops, the value is held, and after
`stale_after` days it is stale. A source whose last checks failed is read as of its last good check.
"""

import datetime as dt
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from contracts.errors import NotFoundError
from scoring.clocks import AsOf, read_clocks
from scoring.compiling import aggregate_sql, double, measure_sql, timestamp
from scoring.config.metrics import Metric
from scoring.config.profiles import Rule
from scoring.expressions import identifier, literal
from scoring.library import ACCOUNT_FACTS, Library
from scoring.sql import render

__all__ = ["AsOf", "MetricsReport", "aggregate_sql", "compute", "create_schema"]

FEWEST_PEERS = 20


@dataclass(frozen=True)
class MetricsReport:
    """What was computed for one day."""

    day: dt.date
    accounts: int
    values: int
    by_state: Mapping[str, int]
    seconds: float


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the schemas, tables and views of scoring where they are missing.

    The comment on the last view says which `schema.sql` made them: looking there takes a hundredth
    of the time that making them again does, and every scored day looks twice.
    """
    schema = render("schema.sql")
    made_by = hashlib.sha256(schema.encode()).hexdigest()
    found = connection.execute(
        "SELECT comment FROM duckdb_views() WHERE database_name = current_database() "
        "AND schema_name = 'scores' AND view_name = 'trends'"
    ).fetchone()
    if found != (made_by,):
        connection.execute(schema)
        connection.execute(f"COMMENT ON VIEW scores.trends IS {literal(made_by)}")


def compute(connection: duckdb.DuckDBPyConnection, library: Library, as_of: AsOf) -> MetricsReport:
    """Compute and store every metric and profile of one day.

    Raises:
        NotFoundError: no account was known on that day.
    """
    began = time.monotonic()
    create_schema(connection)
    connection.execute("BEGIN")
    try:
        accounts = measure(connection, library, as_of)
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


def measure(connection: duckdb.DuckDBPyConnection, library: Library, as_of: AsOf) -> int:
    """Compute the metrics and profiles of a day into temporary tables, and keep nothing.

    The tables are `profiled` (a row an account, as `metrics.accounts`) and `measured` (account_id,
    metric, value, state, reason). Returns how many accounts there are.

    Raises:
        NotFoundError: no account was known on that day.
    """
    accounts = _population(connection, as_of)
    _measure_tables(connection, library, as_of)
    _derive(connection, library)
    _profile(connection, library)
    _compare(connection, library)
    return accounts


def _population(connection: duckdb.DuckDBPyConnection, as_of: AsOf) -> int:
    connection.execute(
        render(
            "population.sql",
            day=literal(as_of.day),
            instant=timestamp(as_of.instant),
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
    for table, metrics in by_table.items():
        continuous = any(metric.stale_after for metric in metrics.values())
        clocks = read_clocks(connection, table, as_of, continuous=continuous)
        connection.execute(
            aggregate_sql(
                table, metrics, previous={*previous} & {*metrics}, clocks=clocks, as_of=as_of
            )
        )
        connection.execute(
            measure_sql(
                table, metrics, previous={*previous} & {*metrics}, clocks=clocks, as_of=as_of
            )
        )


def _needing_previous(library: Library) -> set[str]:
    """Metrics whose window before is needed: for their own change, or for a ratio's."""
    needing = set()
    for name, metric in library.metrics.items():
        if "previous_window" in metric.compare:
            needing |= {metric.ratio.of, metric.ratio.to} if metric.ratio else {name}
    return {name for name in needing if library.metrics[name].window}


# What is computed from metrics


def _derive(connection: duckdb.DuckDBPyConnection, library: Library) -> None:
    connection.execute(
        render(
            "derive.sql",
            rollups=[
                f"({literal(name)}, {literal(metric.rollup)})"
                for name, metric in library.metrics.items()
                if metric.rollup
            ],
            ratios=[
                f"({literal(name)}, {literal(metric.ratio.of)}, {literal(metric.ratio.to)}, "
                f"{double(metric.ratio.scale)}, {double(metric.possible_range[0])}, "
                f"{double(metric.possible_range[1])})"
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

    def rendered(rule: Rule) -> dict[str, str]:
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
                f"WHEN {literal(segment)} THEN {double(value)}"
                for segment, value in metric.benchmark.items()
            )
            benchmarks.append(
                {"name": literal(name), "by_segment": f"(CASE p.segment {cases} END)"}
            )
        elif metric.benchmark is not None:
            benchmarks.append({"name": literal(name), "by_segment": double(metric.benchmark)})
    connection.execute(
        render(
            "compare.sql",
            peers=_comparing(library, "peers"),
            benchmarks=benchmarks,
            fewest_peers=FEWEST_PEERS,
        )
    )


def _one(connection: duckdb.DuckDBPyConnection, sql: str, *parameters: Any) -> tuple[Any, ...]:
    row = connection.execute(sql, list(parameters)).fetchone()
    assert row is not None
    return row
