"""Alerts of real runs: what is told, once, and that a run never fails because of it."""

import pytest
from alert_receivers import SlackServer, slack_server
from demo_company import KEYS_SQL, SMALL_TODAY, copy_of, instance_in_home, run, scored_small, write

from contracts.company import read_company
from orchestration.runs import instance_of


@pytest.fixture
def slack():
    with slack_server() as server:
        yield server


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(once, tmp_path, monkeypatch, slack):
    """A company that was run once and tells Slack from now on."""
    home = copy_of(once, tmp_path)
    monkeypatch.setenv("SLACK_HOOK", slack.address)
    settings = (home / "company.yaml").read_text(encoding="utf-8")
    told = "alerts: {slack: {env: SLACK_HOOK}, ui: https://ui.example}\n"
    write(home / "company.yaml", settings + told)
    return home


def link_nobody(home) -> None:
    """Let the mapping of the product find no account: a blocking check fails."""
    keys = KEYS_SQL.replace(" domain FROM", " 'nobody.example' AS domain FROM")
    assert keys != KEYS_SQL
    write(home / "sources/product/account_keys.sql", keys)


def headlines(slack: SlackServer) -> list[str]:
    found = [text.removeprefix("[Small &amp; Co] ") for text in slack.texts]
    slack.posted.clear()
    return found


def test_a_source_that_goes_down_is_told_once_by_runs_and_once_more_when_it_is_back(home, slack):
    (home / "files/product").rename(home / "files/gone")
    first = run(home, SMALL_TODAY)
    assert first.success
    text = slack.posted[0]["blocks"][0]["text"]["text"]
    assert headlines(slack) == ["source product: down"]
    assert "usage is down since 2026-03-31" in text
    assert "the folder ./files/product does not exist" in text
    assert run(home, SMALL_TODAY).success
    assert headlines(slack) == []
    (home / "files/gone").rename(home / "files/product")
    assert run(home, SMALL_TODAY).success
    assert headlines(slack) == ["source product: ok again (it was down)"]


def test_a_run_that_fails_is_told_once_with_its_cause_and_once_more_when_it_succeeds(home, slack):
    link_nobody(home)
    failed = run(home, SMALL_TODAY)
    assert not failed.success
    (payload,) = slack.posted
    text, link = (block["text"]["text"] for block in payload["blocks"])
    assert headlines(slack) == ["job daily, step signals: failed"]
    assert "are linked to an account" in text
    assert link == f"<https://ui.example/runs/{failed.run_id}|Open the run in Dagster>"
    assert not run(home, SMALL_TODAY).success
    assert headlines(slack) == []
    write(home / "sources/product/account_keys.sql", KEYS_SQL)
    assert run(home, SMALL_TODAY).success
    assert headlines(slack) == ["job daily, step signals: ok again (it was failed)"]


def test_a_source_that_goes_down_is_told_although_the_run_fails_at_something_else(home, slack):
    link_nobody(home)
    (home / "files/crm").rename(home / "files/gone")
    assert not run(home, SMALL_TODAY).success
    assert headlines(slack) == ["job daily, step signals: failed", "source crm: down"]


def test_each_job_tells_of_its_own_runs(home, slack):
    (home / "state/warehouse.duckdb").unlink()
    assert not run(home, SMALL_TODAY, pull=False).success
    (failed,) = headlines(slack)
    assert failed.startswith("job replay, step ")
    assert run(home, SMALL_TODAY).success
    assert headlines(slack) == []
    assert run(home, SMALL_TODAY, pull=False).success
    assert headlines(slack) == [f"{failed.removesuffix('failed')}ok again (it was failed)"]


def test_a_run_does_not_fail_because_nobody_can_be_told_and_the_next_run_tells(home, slack):
    slack.answer = (503, "", {})
    (home / "files/product").rename(home / "files/gone")
    first = run(home, SMALL_TODAY)
    assert first.success
    assert len(slack.posted) == 1  # one attempt
    with instance_in_home(), instance_of(read_company(home)) as instance:
        logged = [record.user_message for record in instance.all_logs(first.run_id)]
    (warning,) = [text for text in logged if "was not told" in text]
    assert "answered 503" in warning
    assert "canary" not in str(logged).lower()
    slack.answer = (200, "ok", {})
    slack.posted.clear()
    assert run(home, SMALL_TODAY).success
    assert headlines(slack) == ["source product: down"]


def test_a_company_without_alerts_runs_as_before(once, tmp_path):
    home = copy_of(once, tmp_path)
    assert run(home, SMALL_TODAY).success
    assert not (home / "state/alerts.sqlite").exists()
