"""Bringing `signals` up to date after 1 % new rows, against building all of it again.

The lake is made by the real pull, from Parquet files as an event store would export them. New rows
are a day that is new to the warehouse and, for one row in ten, another count for a day before.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import duckdb

from benchmarks.daily import open_warehouse, seconds
from benchmarks.world import LAST_DAY
from connectors.pull import pull
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import Company, read_company

DAYS = 500
NOW = dt.datetime.combine(LAST_DAY + dt.timedelta(days=1), dt.time(6), dt.UTC)
REPETITIONS = 3
EVENTS = "['login', 'report_opened', 'report_published', 'dashboard_shared']"

_COMPANY = "name: Benchmark\ntenant: benchmark\nhistory_start: 2024-01-01\n"
_SOURCES = {
    "crm": {"accounts": (
        "SELECT id AS account_id, 'Customer ' || id AS name, started AS started_on "
        "FROM raw_crm.accounts")},
    "product": {"usage": (
        "SELECT account AS account_key, day, event, n AS count, actors AS users "
        "FROM raw_product.usage")},
    "desk": {"tickets": (
        "SELECT account AS account_key, id AS ticket_id, opened_at, solved_at, priority "
        "FROM raw_desk.tickets")},
}  # fmt: skip
_TABLES = {"accounts": "accounts", "usage": "usage_daily", "tickets": "tickets"}


@dataclass(frozen=True)
class Refresh:
    """What was measured: rows, seconds, and whether both ways came to the same tables."""

    rows: int
    new_rows: int
    update_seconds: float
    rebuild_seconds: float
    same: bool


def measure(home: Path, accounts: int, usage_rows: int, progress: Any = print) -> Refresh:
    """Fill a lake, build, and then several times: pull 1 % more, update, rebuild."""
    company = _write_company(home)
    _write_files(home, accounts, usage_rows)
    new_rows = max(usage_rows // 100, 1)
    progress("pulling the files into the lake")
    _pull_all(company, NOW)
    company.state.mkdir(exist_ok=True)
    connection = open_warehouse(company.warehouse)
    progress("building signals for the first time")
    build(connection, company, read_sources(company), now=NOW)
    updates, rebuilds, same = [], [], True
    for number in range(1, REPETITIONS + 1):
        _write_new_file(home, accounts, new_rows, number)
        now = NOW + dt.timedelta(days=number)
        _pull_all(company, now)
        sources = read_sources(company)
        progress(f"update and rebuild, {number} of {REPETITIONS}")
        updates.append(seconds(build, connection, company, sources, now=now))
        updated = _digest(connection)
        rebuilds.append(seconds(build, connection, company, sources, now=now, rebuild=True))
        same = same and updated == _digest(connection)
    connection.close()
    return Refresh(usage_rows, new_rows, median(updates), median(rebuilds), same)


def _write_company(home: Path) -> Company:
    home.mkdir(parents=True, exist_ok=True)
    (home / "company.yaml").write_text(_COMPANY)
    for source, streams in _SOURCES.items():
        folder = home / "sources" / source
        folder.mkdir(parents=True)
        listed = "".join(f"  {name}: {{files: '{name}*.parquet'}}\n" for name in streams)
        (folder.with_suffix(".yaml")).write_text(
            f"type: files\nlocation: ./files/{source}\nstreams:\n{listed}"
        )
        for name, mapping in streams.items():
            (folder / f"{_TABLES[name]}.sql").write_text(mapping + "\n")
        (home / "files" / source).mkdir(parents=True)
    return read_company(home)


def _write_files(home: Path, accounts: int, usage_rows: int) -> None:
    first = LAST_DAY - dt.timedelta(days=DAYS - 1)
    with duckdb.connect() as made:
        made.execute(
            f"COPY (SELECT 'A' || i AS id, DATE '{first}' - (i % 900)::INTEGER AS started "
            f"FROM range({accounts}) AS r(i)) TO '{home}/files/crm/accounts.parquet'"
        )
        made.execute(
            f"COPY (SELECT 'T' || i AS id, 'A' || hash(i) % {accounts} AS account, opened_at, "
            "opened_at + INTERVAL 5 HOUR AS solved_at, 'p3' AS priority FROM (SELECT i, "
            f"TIMESTAMP '{first}' + to_minutes(i * {DAYS * 1440} // {2 * accounts}) AS opened_at "
            f"FROM range({2 * accounts}) AS r(i))) TO '{home}/files/desk/tickets.parquet'"
        )
        # One file a month; no account does the same thing twice on a day.
        per_day = max(usage_rows // DAYS, 1)
        for start in range(0, DAYS, 30):
            stop = min(start + 30, DAYS)
            made.execute(
                f"COPY (SELECT 'A' || i // 4 % {accounts} AS account, {EVENTS}[i % 4 + 1] "
                "AS event, "
                f"DATE '{first}' + (i // {per_day})::INTEGER AS day, 1 + hash(i) % 40 AS n, "
                f"1 + hash(i, 1) % 8 AS actors FROM range({start * per_day}, {stop * per_day}) "
                f"AS r(i)) TO '{home}/files/product/usage_{start:04}.parquet'"
            )


def _write_new_file(home: Path, accounts: int, rows: int, number: int) -> None:
    day = LAST_DAY + dt.timedelta(days=number)
    with duckdb.connect() as made:
        made.execute(
            f"COPY (SELECT 'A' || i // 4 % {accounts} AS account, "
            f"{EVENTS}[i % 4 + 1] AS event, "
            f"DATE '{day}' - (i % 10 = 0)::INTEGER AS day, 41 + hash(i, {number}) % 40 AS n, "
            f"2 AS actors FROM range({rows}) AS r(i)) "
            f"TO '{home}/files/product/usage_new_{number}.parquet'"
        )


def _pull_all(company: Company, now: dt.datetime) -> None:
    for source in read_sources(company):
        pull(source, company, now=now)


def _digest(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    """Rows and a hash of each table, whatever the order of its rows."""
    return [
        connection.execute(
            f"SELECT count(*), sum(hash(t)::HUGEINT) FROM (SELECT * FROM signals.{table}) AS t"
        ).fetchone()
        for table in _TABLES.values()
    ]
