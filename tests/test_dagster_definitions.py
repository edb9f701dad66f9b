"""What Dagster loads: the graph of a company, described so that people understand it in the UI."""

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from demo_company import write, write_small_company

from connectors.sandbox.demo import TEMPLATE
from contracts.company import read_company
from contracts.errors import ConfigurationError
from orchestration.definitions import definitions_of

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
GROUPS = {"raw", "signals", "metrics", "scores", "plan", "actions", "crm"}


@pytest.fixture(scope="module")
def definitions():
    return definitions_of(read_company(TEMPLATE))


@pytest.fixture(scope="module")
def graph(definitions):
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def specs(definitions):
    return {spec.key: spec for spec in definitions.resolve_all_asset_specs()}


def in_a_fresh_process(*command: str, home: Path | None, folder: Path) -> str:
    """What a command prints, with Dagster's warnings as errors where Python runs it."""
    environment = {
        name: text
        for name, text in os.environ.items()
        if name not in ("HEALTHLOOP_HOME", "DAGSTER_HOME")
    }
    if home is not None:
        environment["HEALTHLOOP_HOME"] = str(home)
    done = subprocess.run(
        command, cwd=folder, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


LOAD = """
import warnings, dagster as dg
for kind in (dg.BetaWarning, dg.PreviewWarning, dg.SupersessionWarning, DeprecationWarning):
    warnings.simplefilter("error", kind)
from orchestration.definitions import defs
print(sorted(spec.key.to_user_string() for spec in defs().resolve_all_asset_specs()))
"""


def test_a_fresh_process_shows_the_company_of_healthloop_home_or_else_the_template(tmp_path):
    home = write_small_company(tmp_path / "mine")
    mine = in_a_fresh_process(sys.executable, "-c", LOAD, home=home, folder=tmp_path)
    template = in_a_fresh_process(sys.executable, "-c", LOAD, home=None, folder=tmp_path)
    assert "'raw/crm', 'raw/product', 'scores/contributions'" in mine
    assert "raw/billing" not in mine
    assert "'raw/billing', 'raw/crm', 'raw/csat', 'raw/finance', 'raw/helpdesk'" in template


def test_a_company_in_the_working_folder_is_shown_without_any_setting(tmp_path):
    write_small_company(tmp_path / "company")
    shown = in_a_fresh_process(sys.executable, "-c", LOAD, home=None, folder=tmp_path)
    assert "raw/billing" not in shown


def test_workspace_yaml_and_dg_check_defs_both_load(tmp_path):
    home = write_small_company(tmp_path / "company")
    validated = in_a_fresh_process(
        str(BIN / "dagster"), "definitions", "validate", "-w", "workspace.yaml",
        home=home, folder=ROOT,
    )  # fmt: skip
    assert "All code locations passed validation" in validated
    checked = in_a_fresh_process(str(BIN / "dg"), "check", "defs", home=home, folder=ROOT)
    assert "All definitions loaded successfully" in checked


def test_every_asset_has_a_group_kinds_an_owner_and_a_description_for_people(specs):
    assert {spec.group_name for spec in specs.values()} == GROUPS
    for spec in specs.values():
        assert spec.key.path[0] == spec.group_name
        assert spec.kinds
        assert all(owner.startswith("team:") for owner in spec.owners)
        assert spec.owners
        assert len(spec.description.split()) >= 5
        assert spec.description.endswith((".", "?"))


def test_the_graph_leads_from_every_source_through_signals_to_the_crm(graph):
    above, todo = set(), {dg.AssetKey(["crm", "writes"])}
    while todo:
        key = todo.pop()
        above.add(key)
        todo |= graph.get(key).parent_keys - above
    left_out = graph.get_all_asset_keys() - above
    assert {key.path[0] for key in above} == GROUPS
    # Outcomes are evidence: no score may read them. The fast lane has a way of its own.
    assert {key.to_user_string() for key in left_out} <= {"signals/outcomes", "crm/news"}


def test_what_is_as_of_a_day_is_partitioned_by_day_and_backfills_a_range_in_one_run(graph):
    company = read_company(TEMPLATE)
    days = [graph.get(key) for key in graph.get_all_asset_keys() if key.path[0] in
            ("metrics", "scores", "plan", "actions", "crm") and key.path[-1] != "news"]  # fmt: skip
    assert len(days) == 7
    for node in days:
        assert node.backfill_policy == dg.BackfillPolicy.single_run()
        keys = node.partitions_def.get_partition_keys()
        assert keys[0] == company.settings.history_start.isoformat()
        assert keys[-1] == company.settings.today.isoformat()
        assert node.partitions_def.timezone == "Europe/Berlin"
    others = graph.get_all_asset_keys() - {node.key for node in days}
    assert not any(graph.get(key).is_partitioned for key in others)


def test_every_check_that_protects_the_crm_is_blocking(graph):
    blocking, warning = set(), set()
    for key in graph.asset_check_keys:
        node = graph.get(key)
        (blocking if node.blocking else warning).add((key.asset_key.path[0], key.name))
    assert blocking == {
        ("raw", "not_empty"), ("signals", "contract"), ("signals", "linked_to_accounts"),
        ("scores", "within_range"), ("scores", "contributions_add_up"),
        ("scores", "share_of_accounts_changing_band"), ("crm", "gate"),
    }  # fmt: skip
    assert warning == {
        ("raw", "delivering"), ("raw", "healthy"), ("signals", "streams_are_trusted"),
    }  # fmt: skip
    contracts = {key.asset_key for key in graph.asset_check_keys if key.name == "contract"}
    assert {key for key in graph.get_all_asset_keys() if key.path[0] == "signals"} == contracts


def test_sources_scores_and_plan_have_freshness_policies(specs):
    fresh = {key.path[0] for key, spec in specs.items() if spec.freshness_policy is not None}
    assert fresh >= {"raw", "scores", "plan"}
    assert all(spec.freshness_policy for key, spec in specs.items() if key.path[0] == "raw")


def schedules(settings: str, folder: Path) -> dict[str, dg.ScheduleDefinition]:
    home = write_small_company(folder / "company", settings={"time_zone": "America/New_York"})
    write(home / "company.yaml", (home / "company.yaml").read_text() + settings)
    repository = definitions_of(read_company(home)).get_repository_def()
    return {schedule.name: schedule for schedule in repository.schedule_defs}


def test_schedules_are_off_and_in_the_companys_time_zone(tmp_path):
    found = schedules("", tmp_path)
    assert {name: s.default_status for name, s in found.items()} == {
        "daily_schedule": dg.DefaultScheduleStatus.STOPPED,
        "hourly_schedule": dg.DefaultScheduleStatus.STOPPED,
    }
    assert {schedule.execution_timezone for schedule in found.values()} == {"America/New_York"}
    assert found["daily_schedule"].cron_schedule == "0 6 * * *"


def test_one_setting_turns_the_schedules_on(tmp_path):
    found = schedules("schedules: {enabled: true, daily_at: '04:30'}\n", tmp_path / "a")
    assert {s.default_status for s in found.values()} == {dg.DefaultScheduleStatus.RUNNING}
    assert found["daily_schedule"].cron_schedule == "30 4 * * *"
    found = schedules("schedules: {enabled: true, hourly: false}\n", tmp_path / "b")
    assert found["hourly_schedule"].default_status == dg.DefaultScheduleStatus.STOPPED
    assert found["daily_schedule"].default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_daily_schedule_asks_for_yesterday_in_the_companys_zone(tmp_path):
    """At 06:00 in New York on the day after the clocks went forward (F26)."""
    home = write_small_company(tmp_path / "company", settings={"time_zone": "America/New_York"})
    text = (home / "company.yaml").read_text().replace("today: 2026-03-31\n", "")
    write(home / "company.yaml", text)
    repository = definitions_of(read_company(home)).get_repository_def()
    tick = dt.datetime(2026, 3, 9, 6, 0, tzinfo=ZoneInfo("America/New_York"))
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=repository)
    data = repository.get_schedule_def("daily_schedule").evaluate_tick(context)
    assert [request.partition_key for request in data.run_requests] == ["2026-03-08"]


def test_everything_runs_in_one_process(definitions):
    assert definitions.executor is dg.in_process_executor
    for job in ("daily", "refresh", "replay"):
        assert definitions.resolve_job_def(job).executor_def is dg.in_process_executor


def test_reads_are_retried_and_what_writes_is_not(definitions):
    for asset in definitions.assets:
        retried = asset.op.retry_policy is not None
        assert retried == (asset.key.path[0] == "raw" if len(asset.keys) == 1 else False)


def test_a_company_with_mistakes_in_its_sources_is_refused_with_all_of_them(tmp_path):
    home = write_small_company(tmp_path / "company")
    write(home / "sources/crm/accounts.sql", "SELECT 1 FROM raw_crm.customer\n")
    write(home / "sources/product.yaml", "type: fles\n")
    with pytest.raises(ConfigurationError) as refused:
        definitions_of(read_company(home))
    files = {str(problem.file.relative_to(home)) for problem in refused.value.problems}
    assert files == {"sources/crm/accounts.sql", "sources/crm.yaml", "sources/product.yaml"}
