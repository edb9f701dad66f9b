"""Pulling an API into the lake, against looping over the same pages with `requests`.

A server in a process of its own has every page rendered (`benchmarks.pages`); each way of reading
them runs in a process of its own too, so that its memory can be measured:

- `plain`: `requests` and `json`, page after page, and nothing is kept (`benchmarks.plain`);
- `rest`: the same pages through the connector `rest` and the real `pull`: checked, spooled, every
  field landed as a column of the lake;
- `csv`: the same rows as one CSV file, downloaded and read into Arrow tables, and pulled.

`python -m benchmarks.pulling WAY PORT HOME` prints what it measured as JSON.
"""

import argparse
import datetime as dt
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest import mock

import pyarrow.csv

from benchmarks.daily import peak_bytes
from benchmarks.pages import row
from connectors import vendors
from connectors.api import ApiConfig, ApiStream, Reading, Rows, Vendor
from connectors.http import Http, Manners
from connectors.pull import pull
from connectors.sources import Source, read_sources
from contracts.company import read_company

NOW = dt.datetime(2026, 7, 1, 6, tzinfo=dt.UTC)
REPETITIONS = 3
LIMITS = {
    name: rows * requests / seconds
    for name, rows, requests, seconds in (
        ("Stripe", 100, 25, 1),
        ("HubSpot", 100, 190, 10),
        ("Intercom", 150, 150, 10),
        ("Typeform", 1_000, 2, 1),
        ("company news", 1_000, 200, 60),
        ("Zendesk", 1_000, 30, 60),
        ("Chargebee", 100, 3_500, 60),
        ("PostHog", 50_000, 2_400, 3_600),
    )
}
"""How many rows a second vendors let anybody have: rows of a page, requests in so many seconds of
their highest plan. Exports (Salesforce, Mixpanel, Amplitude) are bounded by the line alone."""
_SETTINGS = "name: Benchmark\ntenant: benchmark\nhistory_start: 2026-01-01\n"
_REST = """\
type: rest
address: http://127.0.0.1:{port}
streams:
  rows:
    path: /rows
    records: data
    paging: {{next_url: next}}
    primary_key: [id]
    cursor: updated_at
"""


@dataclass(frozen=True)
class Way:
    """What one way of reading took: seconds are the median, the memory is the most."""

    rows: int
    seconds: float
    bytes: int

    @property
    def rows_per_second(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def measure(folder: Path, rows: int, progress: Callable[[str], None]) -> dict[str, Way]:
    """Read `rows` rows in every way, in turns."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ("plain", *WAYS)}
    with _serving(folder, rows) as port:
        for turn in range(REPETITIONS):
            for way in found:
                progress(f"pulling {rows:,} rows: {way}, {turn + 1} of {REPETITIONS}")
                found[way].append(_in_a_child(way, port, folder / f"{way}-{turn}"))
    return {
        way: Way(
            turns[0]["rows"],
            median(turn["seconds"] for turn in turns),
            max(turn["bytes"] for turn in turns),
        )
        for way, turns in found.items()
    }


def _in_a_child(way: str, port: int, home: Path) -> dict[str, Any]:
    home.mkdir()
    arguments = ["benchmarks.plain", port]
    if way != "plain":
        arguments = ["benchmarks.pulling", way, port, home]
    command = [sys.executable, "-m", *map(str, arguments)]
    child = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(home)
    measured: dict[str, Any] = json.loads(child.stdout)
    return measured


@contextmanager
def _serving(folder: Path, rows: int) -> Iterator[int]:
    """The port of the server, which runs meanwhile."""
    command = [sys.executable, "-m", "benchmarks.pages", str(folder), str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def rest(port: int, home: Path) -> int:
    """Through the connector `rest` and the whole pull."""
    return _pulled(home, _REST.format(port=port))


def csv(port: int, home: Path) -> int:
    """A download that is read as Arrow tables, through the whole pull."""
    with mock.patch.object(vendors, "vendor", return_value=CSV_VENDOR):
        source = Source("api", CsvConfig(type="csv", address=f"http://127.0.0.1:{port}"), {}, home)
        return _pulled(home, None, source)


WAYS: dict[str, Callable[[int, Path], int]] = {"rest": rest, "csv": csv}


def _pulled(home: Path, settings: str | None, source: Source | None = None) -> int:
    (home / "company.yaml").write_text(_SETTINGS)
    if settings is not None:
        (home / "sources").mkdir()
        (home / "sources/api.yaml").write_text(settings)
        (home / "sources/api").mkdir()
        (home / "sources/api/tickets.sql").write_text("SELECT id AS ticket_id FROM raw_api.rows\n")
    company = read_company(home)
    return pull(source or read_sources(company)[0], company, now=NOW).rows


class CsvConfig(ApiConfig):
    """``type: csv``: a vendor of this benchmark, whose one stream is a file."""

    type: Literal["csv"]


def _read_csv(reading: Reading[CsvConfig]) -> Iterator[Rows]:
    file = reading.client.download("/rows.csv", reading.scratch / "rows.csv", expect="csv")
    text = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(row(0), pyarrow.string()), strings_can_be_null=True
    )
    with pyarrow.csv.open_csv(file, convert_options=text) as batches:
        for batch in batches:
            yield pyarrow.Table.from_batches([batch])


CSV_VENDOR: Vendor[CsvConfig] = Vendor(
    name="csv",
    config=CsvConfig,
    connect=lambda config, secrets: Http(config.address or "", Manners("csv")),
    account=lambda client, config: "benchmark",
    streams={"rows": ApiStream(_read_csv, ("id",), tuple(row(0)), cursor="updated_at")},
    scopes="none",
)


def main() -> None:
    """Read in one way and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("port", type=int)
    parser.add_argument("home", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    rows = WAYS[given.way](given.port, given.home)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "seconds": seconds, "bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
