"""Metrics and scores of days, in a process of their own, so that its memory can be measured.

`python -m benchmarks.daily WAREHOUSE --months 24` prints what it measured as JSON.
"""

import argparse
import datetime as dt
import json
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from benchmarks.world import LAST_DAY, as_of, month_ends
from contracts.company import Company, Settings
from scoring import metrics, scores
from scoring.library import Library, read_library

MEMORY = "3GB"
"""What DuckDB may use: the default of `warehouse_memory`."""

ONE_GROUP_BY = "SELECT account_id, sum(count) FROM signals.usage_daily GROUP BY account_id"
REPETITIONS = 3


def open_warehouse(file: Path) -> duckdb.DuckDBPyConnection:
    """A warehouse, opened as Healthloop opens it."""
    connection = duckdb.connect(str(file))
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET memory_limit = '{MEMORY}'")
    return connection


def shipped_library() -> Library:
    """The library of a company that has nothing of its own."""
    settings = Settings(name="Benchmark", tenant="benchmark", history_start=dt.date(2024, 1, 1))
    with TemporaryDirectory() as home:
        return read_library(Company(Path(home), settings))


def score_day(connection: Any, library: Library, day: dt.date) -> None:
    """Metrics and scores of one day, stored."""
    metrics.compute(connection, library, as_of(day))
    scores.compute(connection, library, as_of(day))


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """How long a call took."""
    began = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - began


def measure(file: Path, months: int) -> dict[str, Any]:
    """One GROUP BY and one day in turns, then `months` month-ends; seconds and bytes."""
    connection, library = open_warehouse(file), shipped_library()
    group_bys, days = [], []
    for number in range(REPETITIONS):
        day = LAST_DAY - dt.timedelta(days=number)
        _group_by(connection)  # once for nothing: both are to read from warm files
        group_bys.append(seconds(_group_by, connection))
        days.append(seconds(score_day, connection, library, day))
    one_day_bytes = peak_bytes()
    month_seconds = [seconds(score_day, connection, library, day) for day in month_ends(months)]
    return {
        "group_by": median(group_bys),
        "day": median(days),
        "day_bytes": one_day_bytes,
        "months": sum(month_seconds),
        "months_bytes": peak_bytes(),
        "by_step": by_step(connection, library),
        "accounts": _count(connection, "population"),
        "scores": _count(connection, "scores.all_scores"),
    }


def _group_by(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(ONE_GROUP_BY).fetchall()


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0


def peak_bytes() -> int:
    """The most memory that this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Watched:
    """A connection that notes how long its statements take, by what they are about."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def execute(self, sql: str, *parameters: Any) -> Any:
        """Execute, and note the time under the first line of the statement."""
        began = time.perf_counter()
        try:
            return self.connection.execute(sql, *parameters)
        finally:
            self.seconds[_subject(sql)] += time.perf_counter() - began

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def _subject(sql: str) -> str:
    """The comment that a file of scoring/sql begins with, or the statement's first words."""
    return sql.strip().splitlines()[0].removeprefix("-- ")[:70]


def by_step(connection: duckdb.DuckDBPyConnection, library: Library) -> dict[str, float]:
    """The seconds of one more day, by step, the longest first."""
    watched = Watched(connection)
    score_day(watched, library, LAST_DAY - dt.timedelta(days=REPETITIONS))
    longest = sorted(watched.seconds.items(), key=lambda item: -item[1])
    return dict(longest[:12])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("--months", type=int, default=24)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.warehouse, arguments.months)))
