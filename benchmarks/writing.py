"""Writing scores into a CRM, against a loop that updates one record after the other.

`measure` has each way in a process of its own, and the sandbox's CRM in another one, so that
neither waits for the other's interpreter. Every request takes 20 ms longer than on one machine, as
if the CRM were near. A way plans and applies as the daily run does (`orchestration.crm_plans` and
`crm_writes`): first every account is new and all its fields are written, then nothing has changed.
Last, a loop with the official client sends what was planned for some records. HubSpot's limit is
kept by the loop, too.

`python -m benchmarks.writing WAY WAREHOUSE HOME --accounts N --sample N` prints what it measured.
"""

import argparse
import datetime as dt
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import hubspot  # type: ignore[import-untyped]
import pyarrow as pa
import requests
import yaml
from hubspot.crm.companies import SimplePublicObjectInput  # type: ignore[import-untyped]
from simple_salesforce import Salesforce

from benchmarks.crm import NOW, Served, account_ids, served
from benchmarks.daily import open_warehouse, peak_bytes
from benchmarks.planning import DAY, MEMORY, library, write_scores
from connectors.crm.ledger import Ledger
from connectors.crm.sending import updates_of
from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import CrmName, FieldUpdate
from connectors.http.limiter import Limiter
from connectors.sandbox.servers.box import credentials
from connectors.vendors.hubspot.client import BURST
from connectors.vendors.salesforce.fields import Names
from contracts.company import Company, read_company
from contracts.crm_fields import FIELDS
from orchestration import crm_plans, crm_writes
from scoring import actions
from scoring.config.playbooks import Playbook
from scoring.library import Library

SHARE = 100
"""The loop updates one of so many records."""

ROUND_TRIP = 0.02
"""Seconds that every request takes longer than on one machine; to a CRM it is rather more."""

TASKS = 10
"""Accounts at which the playbook opens a task."""

LATER = NOW + dt.timedelta(hours=1)
"""Our clock. The sandbox's stands still, and a run looks back some minutes over what it wrote."""

WAYS: dict[str, tuple[CrmName, bool]] = {
    "bulk": ("salesforce", True),
    "collections": ("salesforce", False),
    "hubspot": ("hubspot", False),
}
"""The CRM of each way, and whether records go by bulk jobs."""

_VERSION = "64.0"


@dataclass(frozen=True)
class Applying:
    """Planning and applying a day: how much was written, and by how many calls.

    `requests` are all of the apply, reads too. `plan_seconds` include looking into the CRM.
    `cpu_seconds` are the processor's during the apply, of this process; `server_seconds` the
    sandbox's. `batch_seconds` is what the ledger takes of a batch (median).
    """

    records: int
    fields: int
    tasks: int
    writes: int
    requests: int
    plan_seconds: float
    seconds: float
    cpu_seconds: float
    server_seconds: float
    batches: int
    batch_seconds: float
    called: dict[str, int]


@dataclass(frozen=True)
class Loop:
    """One update after the other; the seconds are as in `Applying`."""

    records: int
    seconds: float
    cpu_seconds: float
    server_seconds: float


@dataclass(frozen=True)
class Way:
    """What one way of writing took: with all accounts changed, then with none; and the loop."""

    changed: Applying
    unchanged: Applying
    loop: Loop
    bytes: int

    @property
    def times_faster(self) -> float:
        """The loop's seconds a record over ours.

        A loop of 2,000 records in 44 s, against 100,000 records in 30 s: 22 ms stand against
        0.3 ms, which is 73 times as much.
        """
        loop = self.loop.seconds / self.loop.records
        return loop / (self.changed.seconds / self.changed.records)


def measure(folder: Path, accounts: int, progress: Callable[[str], None]) -> dict[str, Way]:
    """Write all accounts in every way, and let the loops write some."""
    warehouse = folder / "writing.duckdb"
    with open_warehouse(warehouse) as connection:
        _fill(connection, accounts)
    found = {}
    for way in WAYS:
        progress(f"writing {accounts:,} accounts: {way}")
        home = folder / way
        home.mkdir()
        copy = shutil.copy(warehouse, home / "warehouse.duckdb")
        command = [
            sys.executable, "-m", "benchmarks.writing", way, copy, home,
            "--accounts", accounts, "--sample", max(1, accounts // SHARE),
        ]  # fmt: skip
        child = subprocess.run(
            list(map(str, command)), stdout=subprocess.PIPE, check=True, text=True
        )
        found[way] = read_way(json.loads(child.stdout))
        shutil.rmtree(home)
    return found


def read_way(told: dict[str, Any]) -> Way:
    """What a process printed."""
    changed, unchanged = (Applying(**told[name]) for name in ("changed", "unchanged"))
    return Way(changed, unchanged, Loop(**told["loop"]), told["bytes"])


def write(way: str, warehouse: Path, home: Path, accounts: int, sample: int) -> Way:
    """Write in one way, in this process."""
    crm, bulk = WAYS[way]
    with served(crm, accounts, home, seconds=ROUND_TRIP) as server:
        company = _company(
            home, crm, server, bulk_above=min(2000, accounts - 1) if bulk else accounts
        )
        _link(warehouse, crm, accounts)
        some, changed = _run(company, warehouse, server, sample)
        _, unchanged = _run(company, warehouse, server, sample)
        peak = peak_bytes()
        loop = _loop(crm, server, some)
    return Way(changed, unchanged, loop, peak)


def _run(
    company: Company, warehouse: Path, server: Served, sample: int
) -> tuple[list[FieldUpdate], Applying]:
    """A day's run: triggers, plan, apply. Gives some of what was planned, for the loop."""
    began = time.perf_counter()

    def clock() -> dt.datetime:
        return LATER + dt.timedelta(seconds=time.perf_counter() - began)

    server.since()
    with open_warehouse(warehouse) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        actions.find_triggers(connection, _with_playbook(), DAY)
        planning = time.perf_counter()
        planned = crm_plans.plan_day(company, _with_playbook(), connection, DAY, clock=clock)
        plan_seconds = time.perf_counter() - planning
    intents = len(planned.intents)
    fields = sum(len(intent.changes) for intent in planned.intents)
    some = updates_of([intent for intent in planned.intents if intent.changes][:sample])
    plan_id = planned.plan.plan_id
    del planned  # which the process that applies it would not have
    of_plan = server.since()
    with _timed_ledger() as batches:
        applying, cpu = time.perf_counter(), time.process_time()
        _, applied = crm_writes.apply(company, plan_id, clock=clock)
        seconds, cpu = time.perf_counter() - applying, time.process_time() - cpu
    of_apply = server.since()
    if applied.failed or applied.degraded or applied.total("written") != intents:
        raise SystemExit(f"not everything was written: {applied}")
    return some, Applying(
        records=applied.counts["fields"]["written"],
        fields=fields,
        tasks=of_apply.tasks,
        writes=of_plan.writes + of_apply.writes,
        requests=of_apply.requests,
        plan_seconds=plan_seconds,
        seconds=seconds,
        cpu_seconds=cpu,
        server_seconds=of_apply.cpu_seconds,
        batches=len(batches),
        batch_seconds=median(batches) if batches else 0.0,
        called=of_apply.called,
    )


@contextmanager
def _timed_ledger() -> Iterator[list[float]]:
    """How long the ledger takes of each batch: both of its transactions together."""
    begun: dict[str, float] = {}
    spent: list[float] = []
    begin, finish = Ledger.begin_batch, Ledger.finish_batch

    def timed_begin(ledger: Ledger, *given: Any, **more: Any) -> str:
        began = time.perf_counter()
        batch_id = begin(ledger, *given, **more)
        begun[batch_id] = time.perf_counter() - began
        return batch_id

    def timed_finish(ledger: Ledger, batch_id: str, *given: Any) -> None:
        began = time.perf_counter()
        finish(ledger, batch_id, *given)
        spent.append(begun.pop(batch_id) + time.perf_counter() - began)

    with (
        mock.patch.object(Ledger, "begin_batch", timed_begin),
        mock.patch.object(Ledger, "finish_batch", timed_finish),
    ):
        yield spent


# The habitual loops


def _loop(crm: CrmName, server: Served, updates: Sequence[FieldUpdate]) -> Loop:
    """One call after the other."""
    server.since()
    began, cpu = time.perf_counter(), time.process_time()
    (_salesforce_loop if crm == "salesforce" else _hubspot_loop)(server, updates)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    since = server.since()
    if since.writes != len(updates):
        raise SystemExit(f"the loop made {since.writes} calls for {len(updates)} records")
    return Loop(len(updates), seconds, cpu, since.cpu_seconds)


def _salesforce_loop(server: Served, updates: Sequence[FieldUpdate]) -> None:
    names = Names.of(SalesforceTarget(source="crm"))
    session = requests.Session()
    session.verify, session.trust_env = str(server.ca_file), False
    token = credentials()["SALESFORCE_TOKEN"]
    org = Salesforce(
        instance_url=server.address, session_id=token, session=session, version=_VERSION
    )
    for update in updates:
        org.Account.update(update.record_id, names.values(update))


def _hubspot_loop(server: Served, updates: Sequence[FieldUpdate]) -> None:
    portal = hubspot.HubSpot(access_token=credentials()["HUBSPOT_TOKEN"])
    companies = portal.crm.companies.basic_api
    companies.api_client.configuration.host = server.address
    limiter = Limiter([BURST], clock=time.monotonic, sleep=time.sleep)
    for update in updates:
        limiter.wait()
        values = {FIELDS[name].hubspot: value or "" for name, value in update.values.items()}
        companies.update(update.record_id, SimplePublicObjectInput(properties=values))


# The company


def _company(home: Path, crm: CrmName, server: Served, *, bulk_above: int) -> Company:
    """A company whose only source is the CRM that it is written to."""
    (home / "company.yaml").write_text(
        f"name: Benchmark\ntenant: benchmark\nhistory_start: {DAY}\n"
    )
    (home / ".env").write_text("".join(f"{k}={v}\n" for k, v in credentials().items()))
    source: dict[str, Any] = {"type": crm, "address": server.address}
    if server.ca_file:
        source |= {"access_token": {"env": "SALESFORCE_TOKEN"}, "ca_file": server.ca_file.name}
    else:
        source |= {"token": {"env": "HUBSPOT_TOKEN"}}
    target = {"source": "crm", "daily_share": 1.0}
    settings = {"apply": True, crm: target | {"bulk_above": bulk_above}}
    (home / "sources").mkdir()
    for file, content in (("sources/crm.yaml", source), ("crm.yaml", settings)):
        (home / file).write_text(yaml.safe_dump(content))
    return read_company(home)


def _fill(connection: Any, accounts: int) -> None:
    """Scores of two days, and the day's accounts, some of which are worth a task."""
    write_scores(connection, accounts)
    connection.execute(
        "INSERT INTO metrics.accounts BY NAME SELECT ?::DATE AS as_of, account_id, "
        "account_id AS name, 'enterprise' AS segment, 'mature' AS stage, "
        "if(account_id IN (SELECT 'ACC-' || n FROM range(?) AS t(n)), 1000, 0) AS arr "
        "FROM signals.accounts",
        [DAY, TASKS],
    )


def _link(warehouse: Path, crm: CrmName, accounts: int) -> None:
    """Say which records of the CRM the accounts are."""
    ids = pa.table({"n": range(accounts), "id": account_ids(crm, accounts)})
    with open_warehouse(warehouse) as connection:
        connection.register("ids", ids)
        connection.execute(
            "UPDATE signals.accounts SET crm = ?, crm_id = id FROM ids "
            "WHERE account_id = 'ACC-' || n",
            [crm],
        )


def _with_playbook() -> Library:
    """The library, with a playbook that asks for little: what counts here is what is sent."""
    playbook = {
        "purpose": "Somebody has to look.", "trigger": {"when": "arr > 0"},
        "tasks": [{"subject": "Look at {account.name}", "steps": ["Look."]}],
    }  # fmt: skip
    return replace(library(), playbooks={"look": Playbook.model_validate(playbook)})


def main() -> None:
    """Write in one way and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("warehouse", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--sample", type=int, required=True)
    given = parser.parse_args()
    found = write(given.way, given.warehouse, given.home, given.accounts, given.sample)
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
