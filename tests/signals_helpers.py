"""A company folder and a lake, written directly, for tests of the signals build."""

import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.lake import MANIFEST, MANIFEST_SCHEMA
from connectors.signals import BuildReport, build
from connectors.sources import Source, read_sources
from contracts.company import Company, read_company

NOW = dt.datetime(2026, 6, 30, 12, tzinfo=dt.UTC)


def at(day: int, month: int = 6, hour: int = 0) -> dt.datetime:
    """A naive UTC instant of 2026."""
    return dt.datetime(2026, month, day, hour)


@dataclass
class Case:
    """One company of a test: declare sources, add loads, build, look."""

    home: Path
    settings: str = ""
    connection: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)
    load_number: int = 1_000

    def __post_init__(self) -> None:
        (self.home / "sources").mkdir(parents=True, exist_ok=True)
        (self.home / "company.yaml").write_text(
            "name: Test\ntenant: test\nhistory_start: 2025-01-01\n" + self.settings
        )

    @property
    def company(self) -> Company:
        return read_company(self.home)

    @property
    def sources(self) -> list[Source]:
        return read_sources(self.company)

    def declare(self, source: str, streams: list[str], **mappings: str) -> None:
        """Write `sources/<source>.yaml` and its mappings."""
        lines = "".join(f"  {s}: {{files: '{s}*.csv'}}\n" for s in streams)
        (self.home / "sources" / f"{source}.yaml").write_text(
            f"type: files\nlocation: ./in\nstreams:\n{lines}"
        )
        folder = self.home / "sources" / source
        folder.mkdir(exist_ok=True)
        for table, sql in mappings.items():
            (folder / f"{table}.sql").write_text(sql)

    def load(
        self,
        source: str,
        loaded_at: dt.datetime,
        *,
        whole: bool = False,
        **streams: list[dict] | dict[str, list[dict]],
    ) -> str:
        """Add one completed load: rows of each stream, or rows by file of each stream."""
        self.load_number += 1
        load_id = f"{self.load_number}.5"
        dataset = self.home / "state" / "lake" / f"raw_{source}"
        manifest = []
        for stream, given in streams.items():
            files = given if isinstance(given, dict) else {f"{stream}.csv": given}
            rows = []
            for name, content in files.items():
                start = len(rows)
                rows += [
                    {**row, "_source_file": name, "_loaded_at": loaded_at, "_row": start + i}
                    for i, row in enumerate(content)
                ]
                manifest.append(
                    {"stream": stream, "source_file": name, "rows": len(content),
                     "whole": whole, "loaded_at": loaded_at}
                )  # fmt: skip
            if rows:
                columns = {key: None for row in rows for key in row}
                folder = dataset / stream
                folder.mkdir(parents=True, exist_ok=True)
                table = pa.table({c: [row.get(c) for row in rows] for c in columns})
                for index, column in enumerate(table.column_names):
                    if pa.types.is_null(table.schema.field(column).type):
                        table = table.set_column(index, column, pa.nulls(len(rows), pa.string()))
                pq.write_table(table, folder / f"{load_id}.part.parquet")
        (dataset / MANIFEST).mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.Table.from_pylist(manifest, MANIFEST_SCHEMA),
            dataset / MANIFEST / f"{load_id}.files.parquet",
        )
        (dataset / "_dlt_loads").mkdir(exist_ok=True)
        (dataset / "_dlt_loads" / f"x__{load_id}.jsonl").write_text(
            json.dumps({"load_id": load_id, "status": 0})
        )
        return load_id

    def build(self, **options) -> BuildReport:
        return build(self.connection, self.company, self.sources, **{"now": NOW, **options})

    def rows(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()

    def tables(self) -> dict[str, list[tuple]]:
        """Contents of all tables of `signals` that a rebuild has to bring back."""
        names = [
            row[0]
            for row in self.rows(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'signals' "
                "AND table_name NOT IN ('source_health', 'fingerprints')"
            )
        ]
        return {name: sorted(self.rows(f"FROM signals.{name}"), key=repr) for name in names}

    def fresh(self) -> "Case":
        """The same company and lake with an empty warehouse."""
        return Case(self.home, self.settings)


ACCOUNTS = (
    "SELECT id AS account_id, name, domain, CAST(started AS DATE) AS started_on, "
    "merged AS merged_into, gone AS deleted FROM raw_crm.accounts"
)


def account(key: str, started: str = "2026-01-01", **more: object) -> dict:
    return {
        "id": key, "name": key.upper(), "domain": None, "started": started, "merged": None,
        "gone": None, **more,
    }  # fmt: skip
