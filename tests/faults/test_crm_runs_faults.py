"""Faults of whole runs into a CRM: dry runs (F71), two runs (F74), very many changes (F82, F96),
and who tries again (F83)."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from connectors.crm.ledger import Ledger
from connectors.crm.settings import ledger_url
from connectors.sandbox.demo import TEMPLATE
from contracts.company import read_company
from contracts.errors import InputError
from orchestration import crm_plans, crm_writes
from orchestration.assets import crm as assets
from orchestration.definitions import definitions_of
from orchestration.jobs import approve_plan
from orchestration.resources import CompanyFolder, warehouse_of
from scoring.library import read_library
from tests.demo_company import SMALL_TODAY, change, copy_of, scored_small

ROOT = Path(__file__).parents[2]
MIB = 1024**2


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(crm, scored, tmp_path):
    """A scored company whose accounts are those of the sandbox's CRM; nothing is applied yet."""
    home = copy_of(scored, tmp_path / "home")
    crm.writer()  # which writes down the secrets
    shutil.copy(crm.folder / ".env", home / ".env")
    address = crm.box.address(crm.name)
    source = {
        "salesforce": {
            "instance_url": address, "access_token": {"env": "SALESFORCE_TOKEN"},
            "ca_file": str(crm.box.ca_file),
        },
        "hubspot": {"address": address, "token": {"env": "HUBSPOT_TOKEN"}},
    }[crm.name]  # fmt: skip
    (home / "sources/org.yaml").write_text(yaml.safe_dump({"type": crm.name, **source}))
    say(home, crm, apply=False)
    ids = enumerate(crm.account_ids()[:24], 1)
    cases = " ".join(f"WHEN 'A-{number}' THEN '{id}'" for number, id in ids)
    change(
        home,
        f"UPDATE signals.accounts SET crm = '{crm.name}', crm_id = CASE account_id {cases} END",
    )
    return home


def say(home, crm, *, apply):
    """What `crm.yaml` says."""
    settings = {"apply": apply, crm.name: {"source": "org"}}
    (home / "crm.yaml").write_text(yaml.safe_dump(settings))


def planned(home, crm):
    company = read_company(home)
    with warehouse_of(company).get_connection() as connection:
        return crm_plans.plan_day(
            company, read_library(company), connection, SMALL_TODAY, clock=crm.now
        )


@pytest.fixture
def write(crm, home, monkeypatch):
    """Materialise what writes, as the daily job does."""
    monkeypatch.setattr(assets, "clock", crm.now)

    def materialise():
        company = read_company(home)
        (writes,) = (a for a in assets.crm_assets(company) if assets.WRITES in a.keys)
        return dg.materialize(
            [writes],
            partition_key=SMALL_TODAY.isoformat(),
            resources={"company_folder": CompanyFolder(home=str(home))},
        )

    return materialise


def test_f71_a_dry_run_plans_and_never_writes(crm, home, write):
    made = planned(home, crm)
    assert made.stored
    assert len(made.intents) == 24
    with pytest.raises(InputError, match="says apply: false, so nothing is written"):
        crm_writes.apply(read_company(home), made.plan.plan_id, clock=crm.now)
    before = len(crm.box.log)
    assert write().success
    assert len(crm.box.log) == before
    assert crm.sent() == 0
    assert crm.shown() == ({}, {})


def test_f74_a_run_that_comes_second_says_so_in_a_line_and_asks_nothing(crm, home, write):
    planned(home, crm)
    say(home, crm, apply=True)
    before = len(crm.box.log)
    with (
        Ledger(ledger_url(read_company(home))) as ledger,
        ledger.lease(holder="the schedule", now=crm.now, seconds=300),
        pytest.raises(dg.Failure, match=r"^.*another run \(the schedule\) has been .*") as caught,
    ):
        write()
    assert "\n" not in caught.value.description
    assert not caught.value.allow_retries
    assert len(crm.box.log) == before
    assert write().success
    assert len(crm.shown()[0]) == 24


def test_f83_f51_a_run_that_is_refused_fails_for_good_after_a_few_requests(crm, home, write):
    planned(home, crm)
    say(home, crm, apply=True)
    rule = crm.spoil("accounts", "status", code=401, times=None)
    with pytest.raises(dg.Failure) as caught:
        write()
    assert not caught.value.allow_retries
    assert "\n" not in caught.value.description
    assert rule.seen <= 3
    assert crm.shown() == ({}, {})
    crm.box.faults.clear()
    crm.sleep(60)
    planned(home, crm)
    assert write().success
    assert len(crm.shown()[0]) == 24


def test_f83_nothing_that_writes_is_retried_by_any_of_dagsters_ways():
    """Neither by a policy of an op or a job, nor by retries of whole runs, nor by automation."""
    company = read_company(TEMPLATE)
    ops = {one.op.name: one.op for one in assets.crm_assets(company)}
    assert not any(
        condition
        for one in assets.crm_assets(company)
        for condition in one.automation_conditions_by_key.values()
    )
    writing = {}
    for job in definitions_of(company).resolve_all_job_defs():
        nodes = {node.name: node.definition for node in job.nodes}
        if job.name == approve_plan.name or ops.keys() & nodes:
            writing[job.name] = (job.op_retry_policy, job.tags.get("dagster/max_retries"))
            written = nodes if job.name == approve_plan.name else ops.keys() & nodes
            assert not any(nodes[name].retry_policy for name in written)
    assert {"daily", "approve_plan", "fast_lane"} <= writing.keys()
    assert set(writing.values()) == {(None, None)}


@pytest.mark.parametrize("way", ["collections", "jobs"])
@pytest.mark.parametrize(
    ("records", "most_bytes"),
    [(20_000, 400 * MIB), pytest.param(100_000, 1024 * MIB, marks=pytest.mark.slow)],
)
def test_f82_very_many_changes_need_little_memory(tmp_path, records, most_bytes, way):
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.large_plans", str(tmp_path), str(records), way],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["written"] == records
    assert told["peak_bytes"] < most_bytes
