"""The CRM in Dagster: its assets, the gate, the approval job, days of the past, the fast lane."""

import datetime as dt
import re
import signal
import sqlite3
from contextlib import closing

import dagster as dg
import pytest
from alert_receivers import slack_server
from crm_company import (
    CRM_NAMES,
    DAY,
    FIRST_DAY,
    HOUR,
    MINUTE,
    CrmCompany,
    new_company,
    opened,
    written_company,
)
from demo_company import change, copy_of, instance_in_home, write

from connectors.crm import sending
from connectors.vendors.salesforce.writer import SalesforceWriter
from contracts.company import read_company
from orchestration.assets import actions
from orchestration.assets.crm import NEWS, PLAN, WRITES
from orchestration.definitions import definitions_of
from orchestration.old_runs import MOST_AT_ONCE, OURS, QUIET_RUN
from orchestration.runs import instance_of

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def company(tmp_path_factory, tmp_path):
    """A company whose Salesforce shows everything."""
    home = copy_of(written_company(tmp_path_factory, "salesforce"), tmp_path)
    with opened(home, "salesforce") as company:
        yield company


@pytest.fixture(scope="module")
def definitions(tmp_path_factory):
    """What Dagster loads of a company that writes into HubSpot."""
    return definitions_of(read_company(new_company(tmp_path_factory, "hubspot")))


def executed(company: CrmCompany, job: str, **how) -> dg.ExecuteInProcessResult:
    """A run of a job in this process, recorded in the company's instance."""
    config = {**QUIET, **how.pop("run_config", {})}
    with instance_in_home(), instance_of(company.company) as instance:
        return (
            definitions_of(company.company)
            .resolve_job_def(job)
            .execute_in_process(
                instance=instance, run_config=config, raise_on_error=False, **how
            )
        )  # fmt: skip


def planned_and_written(company: CrmCompany, day: dt.date) -> dg.ExecuteInProcessResult:
    """The assets crm/plan and crm/writes of a day, without anything before them."""
    return executed(company, "daily", partition_key=str(day), asset_selection=[PLAN, WRITES])


def metadata_of(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, object]:
    """What a run says of an asset."""
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == key]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the one failed step says."""
    (event,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    return event.step_failure_data.user_failure_data.description


def turn_red(company: CrmCompany, account: str = "%") -> None:
    change(
        company.home,
        "UPDATE scores.all_scores SET value = 90, band = 'red' "
        f"WHERE score = 'risk' AND band = 'green' AND account_id LIKE '{account}'",
    )


# -- definitions ----------------------------------------------------------------------------------


def test_the_assets_of_the_crm_are_described_for_people(definitions):
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    for key in (PLAN, WRITES, NEWS, actions.KEY):
        spec = specs[key]
        assert spec.group_name == key.path[0]
        assert all(owner.startswith("team:") for owner in spec.owners)
        assert len(spec.description.split()) >= 12
        assert spec.description.endswith(".")
    assert specs[PLAN].kinds == {"duckdb", "sql"}
    assert specs[WRITES].kinds == specs[NEWS].kinds == {"hubspot"}


def test_writes_come_after_the_plan_whose_gate_is_blocking(definitions):
    graph = definitions.resolve_asset_graph()
    (gate,) = [key for key in graph.asset_check_keys if key.asset_key == PLAN]
    assert gate.name == "gate"
    assert graph.get(gate).blocking
    assert graph.get(WRITES).parent_keys == {PLAN}
    assert actions.KEY in graph.get(PLAN).parent_keys
    assert graph.get(NEWS).parent_keys == {dg.AssetKey(["signals", "account_keys"])}


def test_f83_nothing_that_writes_is_tried_again_by_dagster(definitions):
    writes = [asset for asset in definitions.assets if {PLAN, WRITES, NEWS} & {*asset.keys}]
    assert len(writes) == 3
    assert [asset.op.retry_policy for asset in writes] == [None] * 3
    for job in ("daily", "fast_lane", "approve_plan"):
        tags = definitions.resolve_job_def(job).tags
        assert not [tag for tag in tags if "retr" in tag]


def test_the_daily_job_leaves_the_fast_lane_alone_and_the_fast_lane_the_daily_plan(definitions):
    def assets(job: str) -> set[dg.AssetKey]:
        return {*definitions.resolve_job_def(job).asset_layer.executable_asset_keys}

    assert {PLAN, WRITES} <= assets("daily")
    assert NEWS not in assets("daily")
    assert NEWS in assets("fast_lane")
    assert {key.path[0] for key in assets("fast_lane")} == {"raw", "signals", "crm"}
    assert not {PLAN, WRITES} & assets("fast_lane")
    assert not {PLAN, WRITES, NEWS} & (assets("replay") | assets("refresh"))


def test_the_fast_lane_pulls_the_sources_that_crm_yaml_names(company):
    company.set_apply(True, "fast_lane: {sources: [helpdesk]}\n")
    job = definitions_of(company.company).resolve_job_def("fast_lane")
    pulled = {key.path[1] for key in job.asset_layer.executable_asset_keys if key.path[0] == "raw"}
    assert pulled == {"helpdesk"}


def test_a_company_without_a_crm_yaml_has_none_of_this(company):
    (company.home / "crm.yaml").unlink()
    definitions = definitions_of(company.company)
    keys = definitions.resolve_asset_graph().get_all_asset_keys()
    assert not {PLAN, WRITES, NEWS} & keys
    assert actions.KEY in keys
    repository = definitions.get_repository_def()
    assert {"daily", "refresh", "replay"} <= {*repository.job_names}
    assert not {"approve_plan", "fast_lane"} & {*repository.job_names}
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "daily_schedule", "hourly_schedule",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("company_says", "crm_says", "status"),
    [
        ("", "", "STOPPED"),
        ("schedules: {enabled: true}\n", "", "STOPPED"),
        ("", "fast_lane: {enabled: true}\n", "STOPPED"),
        ("schedules: {enabled: true}\n", "fast_lane: {enabled: true}\n", "RUNNING"),
    ],
)
def test_the_fast_lane_runs_by_itself_only_where_both_files_say_so(
    company, company_says, crm_says, status
):
    settings = (company.home / "company.yaml").read_text()
    write(company.home / "company.yaml", settings + company_says)
    company.set_apply(True, crm_says)
    schedule = _every_minute(company)
    assert schedule.default_status == dg.DefaultScheduleStatus[status]
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("* * * * *", "Europe/Berlin")


def _every_minute(company: CrmCompany) -> dg.ScheduleDefinition:
    repository = definitions_of(company.company).get_repository_def()
    return repository.get_schedule_def("fast_lane_schedule")


def tick(company: CrmCompany, instance: dg.DagsterInstance, after: dt.timedelta = 0 * DAY):
    """What the schedule of the fast lane says, that long from now."""
    repository = definitions_of(company.company).get_repository_def()
    context = dg.build_schedule_context(
        instance=instance,
        repository_def=repository,
        scheduled_execution_time=dt.datetime.now(dt.UTC) + after,
    )
    return repository.get_schedule_def("fast_lane_schedule").evaluate_tick(context)


def test_the_fast_lane_waits_while_a_run_is_under_way(company):
    def asked(instance: dg.DagsterInstance) -> object:
        return tick(company, instance)

    with dg.DagsterInstance.local_temp() as instance:
        assert len(asked(instance).run_requests) == 1
        for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE):
            instance.add_run(dg.DagsterRun(job_name="daily", status=status))
        assert len(asked(instance).run_requests) == 1
        instance.add_run(dg.DagsterRun(job_name="daily", status=dg.DagsterRunStatus.STARTED))
        skipped = asked(instance)
        assert not skipped.run_requests
        assert skipped.skip_message == "another run is under way; the next minute looks again"


# -- old runs -------------------------------------------------------------------------------------


def left_of(company: CrmCompany, run_id: str) -> list[str]:
    """Where anything of a run is left in the Dagster instance: files, and tables with its rows."""
    folder = company.home / "state/dagster"
    found = [path.name for path in folder.rglob(f"{run_id}*")]
    for file in (folder / "history/runs/index.db", folder / "history/runs.db"):
        with closing(sqlite3.connect(file)) as connection:
            for (table,) in connection.execute(
                "SELECT t.name FROM pragma_table_list t, pragma_table_info(t.name) c "
                "WHERE c.name = 'run_id'"
            ).fetchall():
                rows = f"SELECT count(*) FROM {table} WHERE run_id = ?"
                found += [table] if connection.execute(rows, [run_id]).fetchone()[0] else []
    return found


def two_p1_tickets(company: CrmCompany) -> str:
    """What the fast lane has news of: two tickets of an account that was calm; gives its id."""
    company.set_apply(True, "fast_lane: {sources: [helpdesk]}\n")
    account = company.calm_accounts()[0]
    company.later(10 * HOUR)
    for _ in range(2):
        company.open_ticket(account)
    company.later(2 * MINUTE)
    return account


def test_a_quiet_run_of_the_fast_lane_is_forgotten_after_a_day_and_leaves_nothing(company):
    two_p1_tickets(company)
    wrote = company.fast_lane().run_id
    assert company.writes
    company.later()
    ran = company.fast_lane()
    assert ran.success, ran.failures
    quiet = ran.run_id
    daily = planned_and_written(company, FIRST_DAY - DAY).run_id
    kept = left_of(company, daily)
    assert kept
    assert f"{quiet}.db" in left_of(company, quiet)
    assert "asset_check_executions" in left_of(company, quiet)
    with instance_in_home(), instance_of(company.company) as instance:

        def there(after: dt.timedelta) -> list[bool]:
            assert len(tick(company, instance, after).run_requests) == 1
            return [instance.has_run(run_id) for run_id in (quiet, wrote, daily)]

        assert there(DAY - HOUR) == [True, True, True]
        assert there(DAY + HOUR) == [False, True, True]
        assert left_of(company, quiet) == []
        assert there(7 * DAY - HOUR) == [False, True, True]
        assert there(7 * DAY + HOUR) == [False, False, True]
        assert left_of(company, wrote) == []
        assert there(700 * DAY) == [False, False, True]
    assert left_of(company, daily) == kept


def test_each_minute_forgets_only_a_few_runs_the_oldest_first(company):
    with dg.DagsterInstance.local_temp() as instance:
        runs = [
            instance.add_run(
                dg.DagsterRun(
                    job_name="fast_lane",
                    status=dg.DagsterRunStatus.SUCCESS,
                    tags=OURS | QUIET_RUN,
                )
            ).run_id
            for _ in range(MOST_AT_ONCE + 2)
        ]
        tick(company, instance, after=2 * DAY)
        assert [instance.has_run(run) for run in runs] == [False] * MOST_AT_ONCE + [True] * 2
        others = instance.add_run(
            dg.DagsterRun(job_name="fast_lane", status=dg.DagsterRunStatus.SUCCESS)
        )
        tick(company, instance, after=8 * DAY)
        assert instance.get_run_ids() == [others.run_id]


def test_a_minute_gets_its_run_though_old_ones_cannot_be_forgotten(company, monkeypatch):
    def broken(*_):
        raise sqlite3.OperationalError("database is locked")

    with dg.DagsterInstance.local_temp() as instance:
        old = dg.DagsterRun(job_name="fast_lane", status=dg.DagsterRunStatus.FAILURE, tags=OURS)
        instance.add_run(old)
        monkeypatch.setattr(dg.DagsterInstance, "delete_run", broken)
        assert len(tick(company, instance, after=8 * DAY).run_requests) == 1
        assert instance.has_run(old.run_id)


# -- runs -----------------------------------------------------------------------------------------


def test_a_day_of_the_past_plans_and_writes_nothing(company):
    before, plan = company.writes, company.plan_id()
    result = planned_and_written(company, FIRST_DAY - DAY)
    assert result.success
    for key in (PLAN, WRITES):
        assert metadata_of(result, key) == {"result": "a day of the past; nothing to do"}
    assert company.plan_id() == plan
    assert len(company.box.log) == before == 0


def test_a_run_says_what_it_planned_and_wrote_and_names_no_person(company):
    account = company.calm_accounts()[0]
    company.crm.edit("account", company.record_of(account), "upsell_score", 3)
    company.later()
    change(company.home, "UPDATE scores.all_scores SET value = 91, band = 'red' "
           f"WHERE score = 'risk' AND account_id = '{account}'")  # fmt: skip
    result = planned_and_written(company, FIRST_DAY)
    assert result.success
    planned, written = metadata_of(result, PLAN), metadata_of(result, WRITES)
    assert planned["status"] == "open"
    assert planned["plan"] == written["plan"] == company.plan_id()
    assert f"| {account} | account | risk_band | green | red |" in planned["first_changes"]
    record = company.record_of(account)
    assert f"| account | {record} | upsell_score |" in planned["fields_edited_by_people"]
    assert written["fields_written"] == planned["records"] == 1
    assert not {"fields_rejected", "fields_deferred", "put_off"} & written.keys()
    assert company.fields(account)["risk_score"] == 91
    names = {name for (name,) in company.rows("SELECT DISTINCT owner FROM metrics.accounts")}
    told = f"{planned} {written}"
    assert not [name for name in names if name and name in told]


def test_a_held_plan_fails_the_run_alerts_and_goes_once_the_job_approves_it(company, monkeypatch):
    settings = (company.home / "company.yaml").read_text()
    write(company.home / "company.yaml", settings + "alerts: {slack: {env: SLACK_HOOK}}\n")
    turn_red(company)
    with slack_server() as slack:
        monkeypatch.setenv("SLACK_HOOK", slack.address)
        held = planned_and_written(company, FIRST_DAY)
        told = [payload["blocks"][0]["text"]["text"] for payload in slack.posted]
    assert not held.success
    plan = company.plan_id()
    says = (
        f"the plan {plan} is held: 38 of 40 accounts (95 %) change their risk band; 10 % may; "
        f"approve it with the job approve_plan or `healthloop plan approve {plan}`"
    )
    assert failure_of(held) == says
    assert any(plan in text and "approve" in text for text in told), told
    (check,) = held.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.description) == ("gate", False, says)
    assert company.writes == 0

    def judged(approve: bool, plan_id: str) -> dg.ExecuteInProcessResult:
        verdict = {"plan": plan_id, "approve": approve, "by": "Ada"}
        config = {"ops": {"judge_and_apply": {"config": verdict}}}
        return executed(company, "approve_plan", run_config=config)

    again = planned_and_written(company, FIRST_DAY)
    assert failure_of(again) == says, "a plan that says the same keeps its name"
    wrong = judged(True, "nope\r\nINFO all is well")
    assert "\n" not in failure_of(wrong)
    assert judged(True, plan).success
    assert company.writes == 2
    with company.ledger() as ledger:
        assert ledger.plan(plan).status == "applied"
        assert [verdict[:2] for verdict in ledger.approvals(plan)] == [("approved", "Ada")]
    assert failure_of(judged(True, plan)) == (
        f"plan {plan} is applied; only a held plan can be approved"
    )


def test_a_held_plan_can_be_dropped_by_the_job_and_nothing_is_written(company):
    turn_red(company)
    assert not planned_and_written(company, FIRST_DAY).success
    plan = company.plan_id()
    verdict = {"config": {"plan": plan, "approve": False, "by": "Ada"}}
    assert executed(
        company, "approve_plan", run_config={"ops": {"judge_and_apply": verdict}}
    ).success
    assert company.writes == 0
    with company.ledger() as ledger:
        assert ledger.plan(plan).status == "dropped"


def test_each_plan_that_is_held_is_told_once_and_its_end_once(company, monkeypatch):
    settings = (company.home / "company.yaml").read_text()
    write(company.home / "company.yaml", settings + "alerts: {slack: {env: SLACK_HOOK}}\n")
    plans = []
    with slack_server() as slack:
        monkeypatch.setenv("SLACK_HOOK", slack.address)
        turn_red(company)
        for _ in range(2):
            assert not planned_and_written(company, FIRST_DAY).success
        plans.append(company.plan_id())
        assert company.healthloop("plan drop", plans[0]).code == 0
        assert not planned_and_written(company, FIRST_DAY).success
        plans.append(company.plan_id())
        assert company.healthloop("plan approve", plans[1]).code == 0
        assert company.healthloop("apply").code == 0
        assert planned_and_written(company, FIRST_DAY).success
        told = [text.partition("step crm_plan: ")[2] for text in slack.texts]
    first, second = plans
    assert first != second
    assert told == [
        f"held, plan {first}", f"held, plan {second}", f"ok again (it was held, plan {second})",
    ]  # fmt: skip


def test_a_crm_that_refuses_us_fails_the_run_with_the_remedy_and_is_not_asked_again(company):
    company.box.faults.add(vendor="salesforce", do="status", code=401, times=None)
    result = planned_and_written(company, FIRST_DAY)
    assert failure_of(result) == (
        "salesforce: refused the session (401); renew the credentials of this source"
    )
    assert len(company.box.log) <= 3


def test_f73_a_terminated_run_ends_its_call_puts_the_rest_off_and_is_canceled(company, monkeypatch):
    """What *Terminate* does to the process of a run is done to this one, in the midst of a call."""
    for account in company.calm_accounts()[:3]:
        turn_red(company, account)
    send = sending.call

    def terminated(writer, batch):
        with instance_of(company.company) as instance:
            (run,) = instance.get_runs(limit=1)
            instance.report_run_canceling(run)
        signal.raise_signal(signal.SIGINT)
        return send(writer, batch)

    with monkeypatch.context() as patched:
        patched.setattr(SalesforceWriter, "batch_size", 2)
        patched.setattr(sending, "call", terminated)
        result = planned_and_written(company, FIRST_DAY)
    assert result.dagster_run.status == dg.DagsterRunStatus.CANCELED
    assert company.writes == 1
    with company.ledger() as ledger:
        states = [intent.state for intent in ledger.intents(company.plan_id())]
        assert (states, ledger.sent()) == (["written", "written", "deferred"], [])
    company.later()
    assert planned_and_written(company, FIRST_DAY).success
    assert company.writes == 2


# -- the fast lane --------------------------------------------------------------------------------


@pytest.mark.parametrize("crm", CRM_NAMES)
def test_e4_a_p1_ticket_reaches_field_and_task_in_one_run_of_the_fast_lane(
    tmp_path_factory, tmp_path, crm
):
    home = copy_of(written_company(tmp_path_factory, crm), tmp_path)
    with opened(home, crm) as company:
        account = two_p1_tickets(company)
        before, asked = company.crm.shown(), len(company.box.log)
        ran = company.fast_lane()
        assert (ran.success, ran.failures) == (True, ())
        fields, tasks = company.crm.shown()
        record = ("account", company.record_of(account))
        assert fields[record]["risk_band"] == "red"
        assert {key for key in fields if fields[key] != before[0].get(key)} == {record}
        new = {tasks[key]["episode"] for key in tasks.keys() - before[1].keys()}
        assert new == {f"p1-open/2026-06-24/{account}", f"risk-red/2026-06-24/{account}"}
        # One call for the account, one for both tasks, one for the upsell that is over.
        assert company.writes == 3
        reads = [r for r in company.box.log[asked:] if r.vendor == crm and r.method == "GET"]
        assert len(reads) <= 12
        described = [r.path for r in reads if re.search("describe$|/properties/", r.path)]
        assert len(described) == len({*described}) > 0
        company.later()
        shown, asked = company.crm.shown(), len(company.box.log)
        assert company.fast_lane().success
        assert company.writes == 3
        assert not [r for r in company.box.log[asked:] if r.vendor == crm]
        assert company.crm.shown() == shown


def test_e4_the_daily_run_after_the_fast_lane_writes_nothing_twice(company):
    account = company.calm_accounts()[0]
    company.later(10 * HOUR)
    for _ in range(2):
        company.open_ticket(account)
    company.later(2 * MINUTE)
    assert company.fast_lane().success
    shown, writes = company.crm.shown(), company.writes
    company.next_evening()
    ran = company.run()
    assert (ran.success, ran.failures) == (True, ())
    assert company.writes == writes
    assert company.crm.shown() == shown


def test_a_plan_that_waited_leaves_what_the_fast_lane_has_written_since(company):
    account = company.calm_accounts()[0]
    turn_red(company)
    assert company.healthloop("plan").code == 0
    held = company.plan_id()
    company.later(10 * HOUR)
    for _ in range(2):
        company.open_ticket(account)
    company.later(2 * MINUTE)
    assert company.fast_lane().success
    newer = company.fields(account)
    assert newer["risk_score"] == 80
    assert company.healthloop("plan approve", held).code == 0
    applied = company.healthloop("apply")
    assert applied.code == 0, applied.both
    assert f"Plan {held}: applied" in applied.out
    assert company.fields(account) == newer
    shown = company.crm.shown()[0]
    assert sum(values.get("risk_score") == 90 for values in shown.values()) == 37 + 9
    with company.ledger() as ledger:
        (left,) = [i for i in ledger.intents(held, "skipped") if i.kind == "fields"]
    assert (left.account_id, left.reason) == (account, "a newer plan has written this record")
