"""An empty `signals` schema in memory, and rows for it: what scoring is tested on."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from contracts.company import Company, Settings
from contracts.tables import BOOKKEEPING, TABLES
from scoring.config.metrics import Metric
from scoring.config.profiles import HardSignal, Profiles
from scoring.config.scorecards import Scorecard
from scoring.library import Library, NamedScorecard
from scoring.metrics import AsOf

DAY = dt.date(2026, 3, 31)


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory with empty signals tables."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA signals")
    for table in TABLES.values():
        columns = {column.name: column.type for column in (*table.columns, *BOOKKEEPING)}
        if table.name == "account_keys":
            columns = dict.fromkeys(("source", "account_key", "account_id", "method"), "VARCHAR")
            columns |= {"confidence": "DOUBLE", "known_at": "TIMESTAMP"}
        body = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        connection.execute(f"CREATE TABLE signals.{table.name} ({body})")
    connection.execute(
        'CREATE TABLE signals.feeds ("table" VARCHAR, source VARCHAR, stream_source VARCHAR, '
        "stream VARCHAR)"
    )
    connection.execute(
        "CREATE TABLE signals.source_health (source VARCHAR, stream VARCHAR, checked_at TIMESTAMP,"
        " status VARCHAR, reason VARCHAR, last_load_at TIMESTAMP, rows BIGINT, good_day DATE)"
    )
    return connection


def add(connection: duckdb.DuckDBPyConnection, table: str, **row: Any) -> None:
    """One row; day and known_at follow from the table's own time where they are not given."""
    time = row.get(TABLES[table].time)
    if time is not None:
        moment = time if isinstance(time, dt.datetime) else dt.datetime.combine(time, dt.time())
        row.setdefault("day", moment.date())
        end = moment if isinstance(time, dt.datetime) else moment + dt.timedelta(days=1)
        row.setdefault("known_at", end)
    row.setdefault("source", "crm" if table == "accounts" else "app")
    names = ", ".join(f'"{name}"' for name in row)
    connection.execute(
        f"INSERT INTO signals.{table} ({names}) VALUES ({', '.join('?' * len(row))})",
        list(row.values()),
    )


def add_many(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[dict[str, Any]]
) -> None:
    """Many rows with the same columns, bookkeeping included, in one statement."""
    if rows:
        names = list(rows[0])
        values = ", ".join(f"({', '.join('?' * len(names))})" for _ in rows)
        columns = ", ".join(f'"{name}"' for name in names)
        connection.execute(
            f"INSERT INTO signals.{table} ({columns}) VALUES {values}",
            [row[name] for row in rows for name in names],
        )


def use(
    connection: duckdb.DuckDBPyConnection, account_id: str, days: Sequence[dt.date], **row: Any
) -> None:
    """One row of usage for each day, known at the day's end."""
    row = {"event": "report", "count": 1, "source": "app", **row}
    add_many(
        connection,
        "usage_daily",
        [
            {
                **row,
                "account_key": account_id,
                "account_id": account_id,
                "day": day,
                "known_at": dt.datetime.combine(day + dt.timedelta(days=1), dt.time()),
            }
            for day in days
        ],
    )


def days_before(day: dt.date, count: int, *, skip: int = 0) -> list[dt.date]:
    """The last `count` days up to a day, without the last `skip`."""
    return [day - dt.timedelta(days=back) for back in range(skip, skip + count)]


def add_account(
    connection: duckdb.DuckDBPyConnection,
    account_id: str,
    *,
    linked_to: Sequence[str] = ("app",),
    **row: Any,
) -> None:
    """An account that is linked to the source `app`, or to those that are named."""
    row.setdefault("started_on", dt.date(2025, 1, 1))
    row.setdefault("is_customer", True)
    add(connection, "accounts", account_id=account_id, **row)
    for source in linked_to:
        connection.execute(
            "INSERT INTO signals.account_keys VALUES (?, ?, ?, 'explicit', 1.0, NULL)",
            [source, account_id, account_id],
        )


def health(
    connection: duckdb.DuckDBPyConnection,
    status: str,
    checked_at: dt.datetime,
    *,
    source: str = "app",
    stream: str = "events",
    good_day: dt.date | None = None,
) -> None:
    """One check of a source's stream."""
    connection.execute(
        "INSERT INTO signals.source_health VALUES (?, ?, ?, ?, NULL, NULL, 0, ?)",
        [source, stream, checked_at, status, good_day],
    )


def feed(
    connection: duckdb.DuckDBPyConnection,
    *tables: str,
    source: str = "app",
    stream: str = "events",
) -> None:
    """Declare that a source's stream feeds tables."""
    for table in tables:
        connection.execute(
            "INSERT INTO signals.feeds VALUES (?, ?, ?, ?)", [table, source, source, stream]
        )


def company(home: Any, **settings: Any) -> Company:
    """A company with few settings."""
    values = {"name": "Test", "tenant": "test", "history_start": dt.date(2024, 1, 1), **settings}
    return Company(home, Settings.model_validate(values))


def metric(**body: Any) -> Metric:
    """A metric of which only what matters is given; `table` stands for `from`."""
    if "table" in body:
        body["from"] = body.pop("table")
    values = {"label": "Label", "owner": "owner", "kind": "leading", "better": "higher", **body}
    return Metric.model_validate(values)


def scorecard(name: str = "risk-default", **body: Any) -> NamedScorecard:
    """A risk scorecard of which only what matters is given; one pillar if none is named."""
    values: dict[str, Any] = {
        "score": "risk",
        "version": 1,
        "believes": "what we believe",
        "pillars": {"proactive": {"weight": 100}},
        "bands": {"red": 70, "yellow": 40},
        **body,
    }
    for component in values["components"]:
        component.setdefault("pillar", next(iter(values["pillars"])))
    return NamedScorecard(name, Scorecard.model_validate(values))


def library(
    metrics: dict[str, Metric], *cards: NamedScorecard, use_metric: str | None = None, **body: Any
) -> Library:
    """A library with one segment and one stage, where no profiles are given."""
    profiles = {"segments": [{"name": "everybody"}], "stages": [{"name": "always"}]}
    return Library(
        metrics=metrics,
        scorecards=cards,
        profiles=Profiles.model_validate(body.get("profiles", profiles)),
        hard_signals=tuple(HardSignal.model_validate(s) for s in body.get("hard_signals", ())),
        use_metric=use_metric,
    )


def as_of(day: dt.date = DAY, **settings: Any) -> AsOf:
    """The end of a day at a company in UTC, where no time zone is given."""
    return AsOf.of(company(Path("."), **settings), day)


def measured(connection: duckdb.DuckDBPyConnection, day: dt.date = DAY) -> dict[Any, Any]:
    """Of each account and metric: value, state and reason."""
    rows = connection.execute(
        "SELECT account_id, metric, value, state, reason FROM metrics.metric_values "
        "WHERE as_of = ?",
        [day],
    ).fetchall()
    return {(account_id, name): tuple(rest) for account_id, name, *rest in rows}
