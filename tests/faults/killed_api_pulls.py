"""Kills runs that pull APIs and build signals, at random moments, in one child process each.

Run as a script: ``killed_api_pulls.py HOME SEED WANTED KILLS NOW``. Every chain begins with a fresh
copy of HOME/saved (or nothing) as HOME/state, kills up to KILLS runs in a row, and lets a last one
come to its end; there are as many chains as it takes to kill WANTED runs. The signals of each are
written as one line of JSON, after a first line of a run that was never killed. Every other kill
comes at one of the things that a run does in Python (sending a request, opening or renaming a
file), the others after some time, so that DuckDB is hit too.

The parent opens nothing itself, so that forking is safe.
"""

import datetime as dt
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from connectors import api_pull
from connectors.http import Http
from connectors.pull import pull
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import read_company
from contracts.tables import TABLES

# What is imported late is imported once here, not in each child.
for late in ("dlt.common.libs.pyarrow", "dlt.sources.helpers.requests", "pandas",
             "connectors.http.pages", "simple_salesforce"):  # fmt: skip
    importlib.import_module(late)

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.link"}
REQUEST = "http.client.send"
BOOKKEEPING = {"load_id", "_load_id", "quarantined_at"}


def run(home: Path, now: dt.datetime) -> None:
    """One run: pull every source, then build."""
    company = read_company(home)
    sources = read_sources(company)
    for source in sources:
        assert pull(source, company, now=now).failures == {}
    with duckdb.connect(str(company.state / "warehouse.duckdb")) as connection:
        build(connection, company, sources, now=now)


def signals(home: Path) -> dict[str, list[str]]:
    """The rows of the canonical tables, sorted, without the bookkeeping of loads."""
    found = {}
    with duckdb.connect(str(home / "state" / "warehouse.duckdb"), read_only=True) as connection:
        for name in [*TABLES, "unmatched"]:
            relation = connection.sql(f"FROM signals.{name}")
            kept = ", ".join(f'"{c}"' for c in relation.columns if c not in BOOKKEEPING)
            rows = connection.sql(f"SELECT {kept} FROM signals.{name}").fetchall()
            found[name] = sorted(map(repr, rows))
    return found


def counted(below: str, at: Callable[[int], None]) -> None:
    """Call `at` with the number of each request and each operation on files below a folder."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event == REQUEST or (event in EVENTS and str(arguments[0]).startswith(below)):
            seen += 1
            at(seen)

    sys.addaudithook(hook)


def die_at(number: int) -> Callable[[int], None]:
    """Let this process die, without any cleaning up."""

    def at(seen: int) -> None:
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def in_child(action: Callable[[], None], seconds: float | None = None) -> int:
    """Run in a forked child, killed after `seconds`; its status, negative after a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def begin(home: Path) -> None:
    shutil.rmtree(home / "state", ignore_errors=True)
    if (home / "saved").exists():
        shutil.copytree(home / "saved", home / "state")


def finish(home: Path, now: dt.datetime, kills: list[str]) -> None:
    """A run that nobody kills, and what it comes to."""

    def tell() -> None:
        run(home, now)
        print(json.dumps({"kills": kills, "signals": signals(home)}), flush=True)

    if in_child(tell) != 0:
        print(json.dumps({"kills": kills, "signals": "the run failed"}), flush=True)


def measured(home: Path, now: dt.datetime) -> tuple[int, float]:
    """How many things a run does, and how many seconds it takes."""
    numbers, last = home / "numbers", 0

    def note(seen: int) -> None:
        nonlocal last
        last = seen

    def measure() -> None:
        counted(str(home), note)
        run(home, now)
        numbers.write_text(str(last))

    begin(home)
    started = time.monotonic()
    assert in_child(measure) == 0
    return int(numbers.read_text()), time.monotonic() - started


def chain(home: Path, now: dt.datetime, kills: int, most: int, seconds: float) -> int:
    """Kill up to so many runs in a row, and then let one come to its end; how many were killed."""
    begin(home)
    done: list[str] = []
    while len(done) < kills:
        number = CHANCE.randint(1, most)
        after = CHANCE.uniform(0, seconds) if len(done) % 2 else None

        def killed(number: int = number, after: float | None = after) -> None:
            if after is None:
                counted(str(home), die_at(number))
            run(home, now)

        if in_child(killed, after) != -signal.SIGKILL:
            break  # it was done before
        done.append(f"operation {number}" if after is None else f"{after:.2f} s")
    finish(home, now, done)
    return len(done)


def main(home: Path, wanted: int, kills: int, now: dt.datetime) -> None:
    begin(home)
    finish(home, now, [])
    if wanted:
        most, seconds = measured(home, now)
        while wanted > 0:
            wanted -= chain(home, now, min(kills, wanted), most, seconds)


if __name__ == "__main__":
    Http.__init__.__kwdefaults__.update(sleep=lambda seconds: None)
    api_pull.READS_BACK = dt.timedelta(0)
    CHANCE = random.Random(int(sys.argv[2]))
    main(
        Path(sys.argv[1]),
        int(sys.argv[3]),
        int(sys.argv[4]),
        dt.datetime.fromisoformat(sys.argv[5]),
    )
