"""An empty `signals` schema in memory, and rows for it: what scoring is tested on."""

import datetime as dt
from typing import Any

import duckdb

from contracts.company import Company, Settings
from contracts.tables import BOOKKEEPING, TABLES

DAY = dt.date(2026, 3, 31)


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory with empty signals tables."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA signals")
    for table in TABLES.values():
        columns = {column.name: column.type for column in (*table.columns, *BOOKKEEPING)}
        if table.name == "account_keys":
            columns = {"source": "VARCHAR", "account_key": "VARCHAR", "account_id": "VARCHAR",
                       "method": "VARCHAR", "confidence": "DOUBLE"}  # fmt: skip
        body = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        connection.execute(f"CREATE TABLE signals.{table.name} ({body})")
    connection.execute('CREATE TABLE signals.feeds ("table" VARCHAR, source VARCHAR)')
    connection.execute(
        "CREATE TABLE signals.source_health (source VARCHAR, stream VARCHAR, checked_at TIMESTAMP,"
        " status VARCHAR, reason VARCHAR, last_load_at TIMESTAMP, rows BIGINT)"
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


def add_account(connection: duckdb.DuckDBPyConnection, account_id: str, **row: Any) -> None:
    """An account that is linked to the source `app`."""
    row.setdefault("started_on", dt.date(2025, 1, 1))
    row.setdefault("is_customer", True)
    add(connection, "accounts", account_id=account_id, **row)
    connection.execute(
        "INSERT INTO signals.account_keys VALUES ('app', ?, ?, 'explicit', 1.0)",
        [account_id, account_id],
    )


def feed(connection: duckdb.DuckDBPyConnection, *tables: str, source: str = "app") -> None:
    """Declare that a source feeds tables."""
    for table in tables:
        connection.execute("INSERT INTO signals.feeds VALUES (?, ?)", [table, source])


def company(home: Any, **settings: Any) -> Company:
    """A company with few settings."""
    values = {"name": "Test", "tenant": "test", "history_start": dt.date(2024, 1, 1), **settings}
    return Company(home, Settings.model_validate(values))
