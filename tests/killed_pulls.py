"""Kills a pull before every single thing it does to its files, one child process each.

Run as a script: ``killed_pulls.py HOME FIRST STEP``. The first pull of a fresh copy of HOME/state
is killed at the n-th file operation (open, rename, remove, mkdir) below it; then, in a second
child, the pull runs again, and the rows of the lake are written as JSON, one line for each n.
The parent opens nothing itself, so that forking is safe.
"""

import importlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from connectors.lake import Lake
from connectors.pull import pull
from connectors.sources import read_sources
from contracts.company import read_company
from tests.pulling import NOW, rows_in_lake

# What dlt imports late is imported once here, not in each child.
for late in ("dlt.common.libs.pyarrow", "dlt.sources.helpers.requests", "pandas"):
    importlib.import_module(late)

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.link"}


def kill_at(number: int, below: str) -> None:
    """Let this process die, without any cleaning up, before its n-th operation on files."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in EVENTS and str(arguments[0]).startswith(below):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(action) -> int:
    """Run in a forked child; its exit status, negative where a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(home: Path, first: int, step: int) -> None:
    saved, state = home / "saved", home / "state"
    company = read_company(home)
    sources = read_sources(company)
    number = first
    while True:
        shutil.rmtree(state, ignore_errors=True)
        if saved.exists():
            shutil.copytree(saved, state)

        def killed(number: int = number) -> None:
            kill_at(number, str(state))
            for source in sources:
                pull(source, company, now=NOW)

        code = in_child(killed)
        if number % 2:
            shutil.rmtree(state / "pipelines", ignore_errors=True)

        def report(number: int = number) -> None:
            for source in sources:
                pull(source, company, now=NOW)
                again = pull(source, company, now=NOW)
                found = {
                    stream: sorted(map(str, rows_in_lake(company, stream, "id, x", source.name)))
                    for stream in source.streams
                }
                versions = Lake(company).versions(source.name)
                counted = sum(version.rows for version in versions)
                line = {"at": number, "again": again.rows, "found": found, "counted": counted}
                print(json.dumps(line), flush=True)

        if in_child(report) != 0:
            print(json.dumps({"at": number, "failed": True}), flush=True)
        if code == 0:
            return
        number += step


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
