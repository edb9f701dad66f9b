"""Companies for tests: the demo, and a small one that can be reckoned by hand.

Scoring one costs seconds, so each is made once for a session, under a lock that the workers of
pytest-xdist share, and handed out as a copy: DuckDB locks its file, and a test may change it.
"""

import csv
import datetime as dt
import io
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pytest
from filelock import FileLock
from sqlalchemy import event
from sqlalchemy.engine import Engine

from connectors.sandbox.demo import MARKER, write_demo_company
from connectors.sandbox.world import WorldTruth
from contracts.company import Company, read_company
from orchestration.cli import main
from orchestration.resources import warehouse_of
from orchestration.runs import Run, run_days

ACCOUNTS = 130
TODAY = dt.date(2026, 6, 30)
WEEK_ENDS = (dt.date(2026, 6, 7), dt.date(2026, 6, 14), dt.date(2026, 6, 28))
SMALL_TODAY = dt.date(2026, 3, 31)


def scored_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A company of files with its `daily` run for `WEEK_ENDS` and `TODAY`; never change it."""

    def make(home: Path) -> None:
        write_company_of_files(home, accounts=ACCOUNTS)
        ran = run(home, *WEEK_ENDS, TODAY)
        assert (ran.success, ran.failures, ran.warnings) == (True, (), ())

    return made_once(tmp_path_factory, "scored-demo", make)


def write_company_of_files(home: Path, *, accounts: int) -> WorldTruth | None:
    """The demo company, but for its sources: it reads the world's files itself, without servers."""
    truth = write_demo_company(home, accounts=accounts)
    shutil.rmtree(home / "sources")
    shutil.copytree(Path(__file__).parent / "company_of_files" / "sources", home / "sources")
    (home / "crm.yaml").unlink()  # its CRM is served by the sandbox alone
    (home / MARKER).unlink()  # a demo's commands would start its sandbox
    return truth


def two_free_ports() -> int:
    """The first of two ports in a row that nobody uses: a sandbox's plain one and its TLS one."""
    while True:
        with socket.socket() as plain, socket.socket() as tls:
            plain.bind(("127.0.0.1", 0))
            port = plain.getsockname()[1]
            with suppress(OSError):
                tls.bind(("127.0.0.1", port + 1))
                return port


def scored_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small company after one good run; never change it."""

    def make(home: Path) -> None:
        ran = run(write_small_company(home), SMALL_TODAY)
        assert ran.success, ran.failures

    return made_once(tmp_path_factory, "scored-small", make)


def own(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A company as this worker's own copy, for tests that only read it."""
    mine = tmp_path_factory.getbasetemp() / f"own-{home.name}"
    return mine if mine.exists() else Path(shutil.copytree(home, mine))


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """A folder that `make` fills, once for all workers of a session; never change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    home, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            make(home)
            done.touch()
    return home


def copy_of(home: Path, folder: Path) -> Path:
    """A company of its own for a test that changes it, or for a worker."""
    return Path(shutil.copytree(home, folder / "company"))


@contextmanager
def instance_in_home() -> Iterator[None]:
    """Without `DAGSTER_HOME`, so that each company's runs are recorded in its own folder.

    Dagster's SQLite does not wait for the disk meanwhile: no test asks what a power cut leaves.
    """
    event.listen(Engine, "connect", _do_not_wait_for_the_disk)
    try:
        with mock.patch.dict(os.environ):
            os.environ.pop("DAGSTER_HOME", None)
            yield
    finally:
        event.remove(Engine, "connect", _do_not_wait_for_the_disk)


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


def run(home: Path | Company, *days: dt.date, pull: bool = True, accept: bool = False) -> Run:
    """The job `daily` (or, without `pull`, `replay`) for some days, in this process."""
    company = read_company(home) if isinstance(home, Path) else home
    with instance_in_home():
        return run_days(company, days, pull=pull, accept_band_changes=accept)


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        """Everything, errors first."""
        return self.err + self.out


def healthloop(*arguments: str, both: io.StringIO | None = None) -> Answer:
    """Run `healthloop` in this process, the way its console script does.

    With `both`, output and errors go there in the order in which they were written.
    """
    out, err = (both, both) if both is not None else (io.StringIO(), io.StringIO())
    code = 0
    with (
        instance_in_home(),
        mock.patch.object(sys, "argv", ["healthloop", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Answer(code, "" if both else out.getvalue(), "" if both else err.getvalue())


def rows_of(
    home: Path, sql: str, parameters: Sequence[object] | None = None
) -> list[tuple[object, ...]]:
    """The rows of a query on a company's warehouse."""
    with warehouse_of(read_company(home), read_only=True).get_connection() as connection:
        return connection.execute(sql, parameters).fetchall()


def change(home: Path, sql: str) -> None:
    """Change a company's warehouse behind everybody's back."""
    with duckdb.connect(str(home / "state" / "warehouse.duckdb")) as connection:
        connection.execute(sql)


# -- a small company ------------------------------------------------------------------------------

CRM_YAML = "type: files\nlocation: ./files/crm\nstreams:\n  customers: {files: customers.csv}\n"
PRODUCT_YAML = (
    "type: files\nlocation: ./files/product\nstreams:\n"
    '  usage: {files: "usage*.csv"}\n  workspaces: {files: workspaces.csv}\n'
)
ACCOUNTS_SQL = (
    "SELECT no AS account_id, name, website AS domain, since AS started_on, arr,\n"
    "    'EUR' AS currency, 'salesforce' AS crm, 'sf-' || no AS crm_id\n"
    "FROM raw_crm.customers\n"
)
USAGE_SQL = """\
SELECT workspace AS account_key, day, 'published' AS event, n AS count
FROM raw_product.usage
"""
KEYS_SQL = "SELECT workspace AS account_key, domain FROM raw_product.workspaces\n"
SCORECARD = """\
believes: Who publishes stays.
score: risk
version: 1
pillars: {proactive: {weight: 100}}
components:
  - {metric: usage_events_28d, pillar: proactive, weight: 60, points: {0: 100, 40: 0}}
  - {metric: active_days_28d, pillar: proactive, weight: 40, points: {0: 100, 20: 0}}
bands: {red: 70, yellow: 40}
coverage: {minimum: 0.5}
"""
SETTINGS = {
    "name": "Small & Co",
    "tenant": "small",
    "time_zone": "Europe/Berlin",
    "currency": "EUR",
    "history_start": "2026-02-01",
    "library_scorecards": "false",
}


def write_small_company(
    home: Path,
    *,
    accounts: int = 24,
    today: dt.date = SMALL_TODAY,
    settings: Mapping[str, str] | None = None,
) -> Path:
    """A company of two sources and one scorecard, with data up to `today`.

    Account `A-<n>` publishes on n of `accounts` days; the product calls it `w-<n>` and knows its
    domain alone.
    """
    given = {**SETTINGS, **(settings or {}), "today": today.isoformat()}
    write(home / "company.yaml", "".join(f"{key}: {text}\n" for key, text in given.items()))
    write(home / "sources/crm.yaml", CRM_YAML)
    write(home / "sources/crm/accounts.sql", ACCOUNTS_SQL)
    write(home / "sources/product.yaml", PRODUCT_YAML)
    write(home / "sources/product/usage_daily.sql", USAGE_SQL)
    write(home / "sources/product/account_keys.sql", KEYS_SQL)
    write(home / "scorecards/risk.yaml", SCORECARD)
    numbers = range(1, accounts + 1)
    write_csv(
        home / "files/crm/customers.csv",
        ("no", "name", "website", "since", "arr"),
        [(f"A-{n}", f"Name {n}", f"acme{n}.com", "2025-01-01", 1000 * n) for n in numbers],
    )
    write_csv(
        home / "files/product/workspaces.csv",
        ("workspace", "domain"),
        [(f"w-{n}", f"www.acme{n}.com") for n in numbers],
    )
    write_usage(home, usage(accounts, dt.date(2026, 1, 15), today))
    return home


def usage(accounts: int, first: dt.date, last: dt.date) -> list[tuple[str, dt.date, int]]:
    """Who published how much on the days from `first` to `last`: the same for every day asked."""
    days = [first + dt.timedelta(days=age) for age in range((last - first).days + 1)]
    numbers = range(1, accounts + 1)
    return [
        (f"w-{n}", day, 2) for n in numbers for day in days if day.toordinal() * n % accounts < n
    ]


def move_to(home: Path, today: dt.date) -> None:
    """Let the small company live on until another day."""
    text = (home / "company.yaml").read_text(encoding="utf-8")
    write(home / "company.yaml", re.sub(r"(?m)^today: .*$", f"today: {today}", text))


def write_usage(home: Path, rows: Sequence[tuple[object, ...]], *, file: str = "usage.csv") -> None:
    """An export of the small company's product: (workspace, day, n)."""
    write_csv(home / "files/product" / file, ("workspace", "day", "n"), rows)


def write_csv(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A CSV file."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    write(file, buffer.getvalue())


def write(file: Path, text: str) -> None:
    """A text file, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
