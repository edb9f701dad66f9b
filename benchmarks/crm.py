"""A CRM of the sandbox with many accounts, in a process of its own.

`python -m benchmarks.crm VENDOR ACCOUNTS FOLDER --seconds S` prints where it listens, as JSON. Then
it answers each line with what came in since the line before (`Since`), until there are no more
lines. Every request takes `S` seconds longer, as the way to a CRM and its own work do.
"""

import argparse
import datetime as dt
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from connectors.crm.writing import CrmName
from connectors.sandbox.servers.box import Box, Request
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control, salesforce_metadata
from connectors.sandbox.vendors.salesforce_ids import record_id
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.world import FEWEST_ACCOUNTS, write_world

NOW = dt.datetime(2026, 7, 1, 4, tzinfo=dt.UTC)
"""What the sandbox's clock shows all the time."""

BEFORE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
"""When the accounts were made."""

FIRST_COMPANY = 9_100_000_000
FIRST_ACCOUNT = 100_000
"""Numbers beyond those of the synthetic company, which is there as well."""

READS = re.compile(r"/search$|/batch/read$|oauth|/composite/sobjects/\w+$")
"""What is asked for by POST and changes nothing."""


@dataclass(frozen=True)
class Since:
    """What came in since the last question: requests, and the processor's seconds for them.

    `tasks` are those that were created; `called` counts the writes by method and path.
    """

    requests: int
    writes: int
    tasks: int
    cpu_seconds: float
    called: dict[str, int]


@dataclass(frozen=True)
class Served:
    """A CRM that is served: where, whom it trusts, and a question to it."""

    address: str
    ca_file: Path | None
    since: Callable[[], Since]


def account_ids(crm: CrmName, accounts: int) -> list[str]:
    """The ids of the accounts, or companies, that are there."""
    if crm == "hubspot":
        return [str(FIRST_COMPANY + number) for number in range(accounts)]
    return [record_id("001", FIRST_ACCOUNT + number) for number in range(accounts)]


@contextmanager
def served(crm: CrmName, accounts: int, folder: Path, *, seconds: float) -> Iterator[Served]:
    """The CRM during the block, so many seconds away; `folder` is for its files."""
    command = [
        sys.executable, "-m", "benchmarks.crm", crm, str(accounts), str(folder),
        "--seconds", str(seconds),
    ]  # fmt: skip
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as server:
        asked, told = server.stdin, server.stdout
        assert asked is not None
        assert told is not None

        def since() -> Since:
            asked.write("\n")
            return Since(**json.loads(told.readline()))

        place = json.loads(told.readline())
        ca_file = Path(place["ca_file"]) if place["ca_file"] else None
        try:
            yield Served(place["address"], ca_file, since)
        finally:
            asked.close()
        if server.wait():
            raise SystemExit("a server of the sandbox fell over")


def is_write(request: Request) -> bool:
    """Whether a request was to change something."""
    return request.method != "GET" and not READS.search(request.path)


def fill(box: Box, crm: CrmName, accounts: int) -> None:
    """Put accounts into a CRM that has all our fields."""
    if crm == "hubspot":
        hubspot_control.provisioned(box)
        table = hubspot_control.collection(box, "companies")
    else:
        salesforce_metadata.provisioned(box)
        table = records(box, "Account")
    for id in account_ids(crm, accounts):
        body: dict[str, Any] = {"Name": id}
        if crm == "hubspot":
            body = {"properties": {"name": id}, "associations": {}, "write": None}
        table.put(id, body, BEFORE)


def _tasks(box: Box, crm: CrmName) -> int:
    if crm == "hubspot":
        return len(hubspot_control.collection(box, "tasks").rows(box.now.timestamp()))
    return len(records(box, "Task").rows(box.now.timestamp()))


def _since(box: Box, crm: CrmName) -> Iterator[Since]:
    seen, cpu, tasks = 0, time.process_time(), _tasks(box, crm)
    while True:
        came, so_far, now_tasks = box.log[seen:], time.process_time(), _tasks(box, crm)
        writes = [request for request in came if is_write(request)]
        called = Counter(f"{one.method} {kind(one.path)}" for one in writes)
        yield Since(len(came), len(writes), now_tasks - tasks, so_far - cpu, dict(called))
        seen, cpu, tasks = seen + len(came), so_far, now_tasks


def kind(path: str) -> str:
    """A path without what differs from record to record."""
    return re.sub(r"/(750\w{15}|001\w{15}|\d{8,})\b", "/ID", path)


def main() -> None:
    """Serve until the questions end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("crm", choices=("salesforce", "hubspot"))
    parser.add_argument("accounts", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=0.0)
    given = parser.parse_args()
    world = given.folder / "world"
    write_world(world, accounts=FEWEST_ACCOUNTS)
    with sandbox(world, NOW, vendors=[given.crm], ca_folder=given.folder) as box:
        fill(box, given.crm, given.accounts)
        if given.seconds:
            box.faults.add(vendor=given.crm, do="delay", times=None, seconds=given.seconds)
        told = _since(box, given.crm)
        next(told)  # what was before does not count
        place = {"address": box.address(given.crm), "ca_file": box.ca_file}
        print(json.dumps(place, default=str), flush=True)
        for _ in sys.stdin:
            print(json.dumps(asdict(next(told))), flush=True)
    if box.defects:
        raise SystemExit("\n".join(box.defects))


if __name__ == "__main__":
    main()
