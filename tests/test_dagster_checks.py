"""The blocking checks: each provoked for real, and each holds the run before the plan."""

import re

import dagster as dg
import pytest
from demo_company import (
    SCORECARD,
    SMALL_TODAY,
    copy_of,
    healthloop,
    instance_in_home,
    rows_of,
    run,
    scored_small,
    write,
    write_csv,
    write_small_company,
)

from contracts.company import read_company
from contracts.errors import SourceCorrupt, SourceRefused, SourceUnavailable
from orchestration.failures import failure_of
from orchestration.runs import instance_of


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A small company after one good run; copy it before changing it."""
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(once, tmp_path):
    return copy_of(once, tmp_path)


def failed_checks(home, run_id: str) -> set[tuple[str, str]]:
    """The asset checks that failed in a run, but for warnings, as the UI shows them."""
    with instance_in_home(), instance_of(read_company(home)) as instance:
        records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in records]
    return {
        (evaluation.asset_key.to_user_string(), evaluation.check_name)
        for evaluation in evaluations
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR
    }


def planned(home) -> list[tuple[object, ...]]:
    return rows_of(home, "SELECT * FROM plan.field_changes ORDER BY ALL")


def steps_of(home, run_id: str) -> set[str]:
    """The steps of a run that succeeded."""
    with instance_in_home(), instance_of(read_company(home)) as instance:
        logs = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    return {entry.step_key for entry in logs}


def test_too_many_rows_that_break_the_contract_hold_the_run_before_anything_is_scored(home):
    before = planned(home)
    usage = home / "files/product/usage.csv"
    rows = usage.read_text(encoding="utf-8").splitlines()
    broken = [row if n % 10 else re.sub(r",2$", ",-2", row) for n, row in enumerate(rows)]
    write(usage, "\n".join([rows[0], *broken[1:]]) + "\n")
    ran = run(home, SMALL_TODAY)
    assert not ran.success
    assert re.fullmatch(
        r"(9\.\d|10\.0)% of the rows of product for usage_daily break the contract "
        r"\(5% is allowed\); look into signals\.quarantine, then correct "
        r"sources/product/usage_daily\.sql, or allow more in .*",
        ran.failures[0],
    )
    assert failed_checks(home, ran.run_id) == {("signals/usage_daily", "contract")}
    assert steps_of(home, ran.run_id) == {"raw__crm", "raw__product"}
    assert planned(home) == before
    reasons = rows_of(home, "SELECT DISTINCT reason FROM signals.quarantine")
    assert reasons == [("count: below 0",)]


def test_too_few_linked_customers_hold_the_run(home):
    before = planned(home)
    write_csv(
        home / "files/product/workspaces.csv",
        ("workspace", "domain"),
        [(f"w-{n}", f"acme{n}.com" if n <= 12 else "gmail.com") for n in range(1, 25)],
    )
    ran = run(home, SMALL_TODAY)
    assert not ran.success
    assert ran.failures[0] == (
        "only 50% of the customers of product are linked to an account (80% is needed); "
        "signals.unmatched lists the others: give them keys in "
        "sources/product/account_keys.sql or in the manual identity file"
    )
    assert failed_checks(home, ran.run_id) == {("signals/account_keys", "linked_to_accounts")}
    assert planned(home) == before


def test_a_stream_that_never_brought_a_row_holds_the_first_run(tmp_path):
    home = write_small_company(tmp_path / "company")
    write(home / "files/product/usage.csv", "workspace,day,n\n")
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 1
    assert (
        "usage of product never delivered a row; "
        "check its `files:` or `table:` in sources/product.yaml" in answer.err
    )
    assert rows_of(home, "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'scores'") == []


FLIPPED = (
    SCORECARD.replace("{0: 100, 40: 0}", "{0: 0, 40: 100}")
    .replace("{0: 100, 20: 0}", "{0: 0, 20: 100}")
    .replace("version: 1", "version: 2")
)


def test_f38_a_scorecard_that_shifts_everybody_is_held_until_somebody_means_it(home):
    before = planned(home)
    write(home / "scorecards/risk.yaml", FLIPPED)
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 1
    assert re.search(
        rf"^\d\d% of the accounts change their risk band against {SMALL_TODAY} "
        rf"\(10% is allowed\); look at `healthloop explain ACCOUNT --since {SMALL_TODAY}`, and "
        r"where the change is meant run again with --accept-band-changes; the run is \S+ in the "
        r"Dagster UI \(`healthloop ui`\)$",
        answer.err,
        re.MULTILINE,
    )
    assert planned(home) == before
    assert healthloop("run", "--home", str(home)).code == 1
    accepted = healthloop("run", "--home", str(home), "--accept-band-changes")
    assert (accepted.code, "Traceback" in accepted.err) == (0, False)
    assert planned(home) != before


def test_what_was_accepted_once_is_not_held_again(home):
    write(home / "scorecards/risk.yaml", FLIPPED)
    assert run(home, SMALL_TODAY, accept=True).success
    assert run(home, SMALL_TODAY).success


def test_the_first_line_of_a_failed_step_is_its_remedy_in_dagster_too(tmp_path):
    home = write_small_company(tmp_path / "company")
    write(
        home / "sources/product/usage_daily.sql",
        "SELECT workspace AS account_key, dya AS day, 'x' AS event FROM raw_product.usage\n",
    )
    ran = run(home, SMALL_TODAY)
    assert not ran.success
    assert ran.failures[0].splitlines()[0] == (
        f"{home}/sources/product/usage_daily.sql:1: unknown column 'dya'; did you mean 'day'?"
    )
    with instance_in_home(), instance_of(read_company(home)) as instance:
        (failure,) = instance.all_logs(ran.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    told = failure.dagster_event.step_failure_data
    assert told.user_failure_data.description.splitlines()[0] == ran.failures[0].splitlines()[0]


def test_only_what_may_pass_by_itself_is_retried():
    assert failure_of(SourceUnavailable("it is down", "wait")).allow_retries
    assert not failure_of(SourceRefused("no right", "ask")).allow_retries
    assert not failure_of(SourceCorrupt("not JSON", "ask")).allow_retries
