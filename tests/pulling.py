"""A small company to pull into, shared by the tests of sources and pulls."""

import datetime as dt
from pathlib import Path
from typing import Any

import duckdb
import yaml

from connectors.lake import Lake, raw_relation_sql
from connectors.pull import Pull, pull
from connectors.sources import Source, read_sources
from contracts.company import Company, read_company

NOW = dt.datetime(2026, 7, 1, 6, tzinfo=dt.UTC)
LATER = dt.datetime(2026, 7, 2, 6, tzinfo=dt.UTC)


def make_company(home: Path, sources: dict[str, dict[str, Any]]) -> Company:
    """A company folder whose mappings read each stream once."""
    home.mkdir(exist_ok=True)
    (home / "company.yaml").write_text("name: Acme\ntenant: acme\nhistory_start: 2024-01-01\n")
    for name, config in sources.items():
        folder = home / "sources" / name
        folder.mkdir(parents=True, exist_ok=True)
        (home / "sources" / f"{name}.yaml").write_text(yaml.safe_dump(config))
        selects = [f"SELECT 1 AS x FROM raw_{name}.{stream}" for stream in config["streams"]]
        (folder / "tickets.sql").write_text("\nUNION ALL\n".join(selects))
    return read_company(home)


def source_of(company: Company, name: str) -> Source:
    return next(source for source in read_sources(company) if source.name == name)


def run(company: Company, name: str = "desk", now: dt.datetime = NOW) -> Pull:
    return pull(source_of(company, name), company, now=now)


def rows_in_lake(company: Company, stream: str, columns: str, source: str = "desk") -> list[tuple]:
    """The rows of all completed loads, oldest first."""
    files = [file for file in Lake(company).files(source) if file.stream == stream]
    if not files:
        return []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(
            f"SELECT {columns} FROM ({raw_relation_sql(files)}) "
            "ORDER BY CAST(_load_id AS DOUBLE), _row"
        ).fetchall()
