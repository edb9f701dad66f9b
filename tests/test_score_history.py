"""Scores that were shown once are kept, even when the warehouse is lost."""

import datetime as dt
from pathlib import Path

import duckdb
import pytest

from connectors.history import archive, restore
from scoring.metrics import create_schema

DAY = dt.date(2026, 3, 31)
TABLES = ("all_scores", "all_contributions", "all_families", "revisions", "libraries")


def warehouse() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    create_schema(connection)
    return connection


def add_revision(connection: duckdb.DuckDBPyConnection, revision: int, value: float) -> None:
    connection.execute("INSERT INTO scores.libraries VALUES ('lib', '{}') ON CONFLICT DO NOTHING")
    connection.execute(
        "INSERT INTO scores.revisions BY NAME SELECT ?::DATE AS as_of, ?::INTEGER AS revision, "
        "'lib' AS library, 'f' AS fingerprint",
        [DAY, revision],
    )
    connection.execute(
        "INSERT INTO scores.all_scores BY NAME SELECT ?::DATE AS as_of, ?::INTEGER AS revision, "
        "'a' AS account_id, 'risk' AS score, 'card' AS scorecard, 1 AS version, 's' AS segment, "
        "'t' AS stage, ?::DECIMAL(6,2) AS value, 'green' AS band, 1.0 AS coverage, "
        "false AS plumbing",
        [DAY, revision, value],
    )


def contents(connection: duckdb.DuckDBPyConnection) -> dict[str, list[tuple]]:
    return {
        table: connection.execute(f"SELECT * FROM scores.{table} ORDER BY ALL").fetchall()
        for table in TABLES
    }


def test_a_lost_warehouse_gets_every_revision_back(tmp_path: Path) -> None:
    first = warehouse()
    for revision, value in ((1, 10.0), (2, 20.0)):
        add_revision(first, revision, value)
        archive(first, tmp_path, DAY, revision)
    second = warehouse()
    assert restore(second, tmp_path) == 2
    assert contents(second) == contents(first)
    assert restore(second, tmp_path) == 0


def test_only_what_is_missing_is_read_back(tmp_path: Path) -> None:
    connection = warehouse()
    add_revision(connection, 1, 10.0)
    archive(connection, tmp_path, DAY, 1)
    archive(connection, tmp_path, DAY, 1)
    assert restore(connection, tmp_path) == 0
    assert connection.execute("SELECT count(*) FROM scores.all_scores").fetchone() == (1,)


def test_an_unfinished_archive_is_not_a_revision(tmp_path: Path) -> None:
    connection = warehouse()
    add_revision(connection, 1, 10.0)
    with pytest.raises(duckdb.Error):
        archive(_Failing(connection), tmp_path, DAY, 1)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert restore(warehouse(), tmp_path) == 0


class _Failing:
    """A connection whose disk is full at the second file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.copies = 0

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        self.copies += 1
        if self.copies == 2:
            raise duckdb.IOException("No space left on device")
        return self.connection.execute(sql)
