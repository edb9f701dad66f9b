"""`healthloop check` and `healthloop doctor`: every mistake at once, and what is missing."""

import json
import os
import re
from unittest import mock

import pytest
from demo_company import (
    SMALL_TODAY,
    Answer,
    healthloop,
    own,
    run,
    scored_small,
    write,
    write_small_company,
)
from small_api import TOKEN, SmallApi, serving


@pytest.fixture
def home(tmp_path):
    return write_small_company(tmp_path / "company")


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """A small company that was run once; only read it."""
    return own(scored_small(tmp_path_factory), tmp_path_factory)


def check(home) -> Answer:
    return healthloop("check", "--home", str(home))


def test_a_company_in_order_is_said_to_be_in_order(home):
    answer = check(home)
    assert answer.code == 0
    assert re.fullmatch(
        rf"{re.escape(str(home))} is in order: 2 sources, \d+ metrics, 1 scorecards, 1 warnings"
        r"\.\n",
        answer.out,
    )
    assert answer.err == (
        f"warning: {home}/scorecards/risk.yaml:6: usage_events_28d alone is 60 % of the score; "
        "no component should weigh above 40 %\n"
    )


def test_all_mistakes_of_a_company_folder_are_listed_at_once_each_with_its_line(home):
    settings = (home / "company.yaml").read_text(encoding="utf-8")
    write(home / "company.yaml", settings.replace("currency:", "currencies:"))
    write(
        home / "sources/crm.yaml",
        "type: files\nlocation: ./files/crm\nstreams:\n"
        "  customers: {files: customers.csv, delimeter: ';'}\n",
    )
    write(
        home / "sources/billing.yaml", "type: sql\nurl: postgresql://me:secret@db/x\nstreams: {}\n"
    )
    write(home / "sources/product/usage_dialy.sql", "SELECT 1 AS one FROM raw_product.usage\n")
    write(
        home / "sources/product/usage_daily.sql",
        "SELECT workspace AS account_key\nFROM raw_product.usages\n",
    )
    write(home / "sources/product/tickets.sql", "SELECT FROM WHERE\n")
    write(
        home / "metrics/own.yaml",
        "shipped_28d:\n  label: Shipped\n  owner: product\n  from: usage_dayly\n"
        "  aggregate: sum(count)\n  kind: leading\n  better: higher\n"
        "loved_28d:\n  label: Loved\n  owner: product\n  from: usage_daily\n"
        "  aggregate: sum(cuont)\n  window: 28 days\n  kind: leading\n  better: higher\n",
    )
    write(
        home / "scorecards/upsell.yaml",
        "believes: More.\nscore: upsell\nversion: 1\npillars: {proactive: {weight: 90}}\n"
        "components:\n"
        "  - {metric: active_days_28, pillar: proactive, weight: 90, points: {0: 0, 9: 100}}\n"
        "bands: {ready: 40, possible: 70}\n",
    )
    answer = check(home)
    lines = answer.err.splitlines()
    found = [line.removeprefix(f"{home}/") for line in lines[:-1]]
    assert (answer.code, answer.out) == (2, "")
    assert all(re.fullmatch(r"\S+\.(yaml|sql):\d+: [^;]+; .+", line) for line in found), found
    assert "secret" not in answer.both
    for expected in (
        "company.yaml:4: unknown setting 'currencies'; did you mean 'currency'?",
        "sources/crm.yaml:4: unknown setting 'streams.customers.delimeter'; "
        "did you mean 'delimiter'?",
        "sources/billing.yaml:2: url: a password stands in it; put the whole address",
        "sources/product/usage_dialy.sql:1: 'usage_dialy' is not a canonical table; "
        "did you mean 'usage_daily'?",
        "sources/product/usage_daily.sql:2: unknown table 'raw_product.usages'; "
        "did you mean 'raw_product.usage'?",
        "sources/product/tickets.sql:1: not valid SQL",
        "metrics/own.yaml:4: from: unknown table 'usage_dayly'; did you mean 'usage_daily'?",
        "metrics/own.yaml:13: window: '28 days' is no number of days; write it like 28d",
        "scorecards/upsell.yaml:4: the pillars' weights sum to 90; make them sum to 100",
        "scorecards/upsell.yaml:6: unknown metric 'active_days_28'; "
        "did you mean 'active_days_28d'?",
        "scorecards/upsell.yaml:7: bands are out of order: ready begins at 40, possible at 70; ",
    ):
        assert any(line.startswith(expected) for line in found), (expected, found)
    assert lines[-1] == (
        f"{len(found)} mistake(s) in the company folder; correct them and run `healthloop check`"
    )


def test_a_run_of_a_broken_company_says_the_same_as_check_and_starts_nothing(home):
    write(home / "sources/product/usage_daily.sql", "SELECT 1\nFROM raw_product.usages\n")
    checked, ran = check(home), healthloop("run", "--home", str(home))
    assert (ran.code, ran.out) == (2, "")
    assert "unknown table 'raw_product.usages'" in ran.err
    assert set(ran.err.splitlines()) >= {
        line for line in checked.err.splitlines() if not line.startswith("warning")
    }
    assert not (home / "state" / "warehouse.duckdb").exists()


def findings(home, *arguments: str, **environment: str) -> tuple[int, dict[str, list[str]]]:
    with mock.patch.dict(os.environ, environment):
        answer = healthloop("doctor", "--home", str(home), "--format", "json")
    found: dict[str, list[str]] = {}
    for row in json.loads(answer.out):
        found.setdefault(row["about"], []).append(f"{row['']}: {row['seen']}; {row['what to do']}")
    return answer.code, found


def test_the_doctor_of_a_company_that_was_run_finds_no_problem(ran):
    code, found = findings(ran)
    assert code == 0
    assert found["source crm"] == ["ok: 1 load(s) in the lake; "]
    assert found["scores"] == ["ok: 1 day(s) are scored, the last is 2026-03-31; "]
    assert found["schedules"] == [
        "note: the daily and hourly schedules are off; "
        "set `schedules: {enabled: true}` in company.yaml"
    ]
    assert found["clock"] == [
        "note: today is pinned to 2026-03-31 in company.yaml; "
        "remove `today:` for a company that lives on"
    ]


def test_the_doctor_says_what_is_missing_before_the_first_run(home):
    code, found = findings(home)
    assert code == 0
    assert found["warehouse"] == ["note: there is none yet; healthloop run"]
    assert found["source product"] == ["note: it was never pulled; healthloop run"]


def test_the_doctor_names_a_secret_that_is_not_set_and_never_shows_one_that_is(home):
    write(
        home / "sources/billing.yaml",
        "type: sql\nurl: {env: CANARY_URL}\nstreams:\n  invoices: {table: invoices}\n",
    )
    write(
        home / "sources/billing/invoices.sql",
        "SELECT id AS invoice_id, customer AS account_key, issued AS issued_at\n"
        "FROM raw_billing.invoices\n",
    )
    code, found = findings(home)
    assert code == 1
    told = (
        "problem: the environment variable CANARY_URL is not set; "
        "set it, or write it into the .env file of the company folder"
    )
    assert told in found["source billing"]
    code, found = findings(home, CANARY_URL="oracle://me:canary-secret@db/x")
    assert "canary-secret" not in json.dumps(found)
    assert not any("CANARY_URL" in line for line in found["source billing"])


def test_the_doctor_misses_a_mapping_to_accounts_and_a_source_without_mappings(home):
    (home / "sources/crm/accounts.sql").unlink()
    code, found = findings(home)
    assert code == 1
    assert found["accounts"] == [
        "problem: no source maps to accounts, so nobody can be scored; "
        "write sources/<crm>/accounts.sql; docs/connect-your-data.md shows how"
    ]
    assert "problem: nothing is mapped from it; add sources/crm/<table>.sql" in found["source crm"]


def test_the_doctor_says_where_a_driver_is_missing(home):
    write(
        home / "sources/crm.yaml",
        "type: files\nlocation: s3://bucket/crm\nstreams:\n  customers: {files: customers.csv}\n",
    )
    from importlib import util

    real = util.find_spec
    with mock.patch(
        "orchestration.doctor.find_spec", lambda name: None if name == "s3fs" else real(name)
    ):
        code, found = findings(home)
    assert code == 1
    assert (
        "problem: its driver s3fs is not installed; pip install 'healthloop[s3]'"
        in (found["source crm"])
    )


def test_the_doctor_says_when_no_ui_answers(ran, unused_port):
    with mock.patch("orchestration.doctor.UI_ADDRESS", f"http://127.0.0.1:{unused_port}"):
        _, found = findings(ran)
    assert found["Dagster UI"] == [
        f"note: nothing answers at http://127.0.0.1:{unused_port}; healthloop ui"
    ]


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        yield server.getsockname()[1]  # bound but not listening: nobody else can answer there


def test_the_doctor_lists_unmatched_customers_and_quarantined_rows(tmp_path):
    home = write_small_company(
        tmp_path / "company",
        settings={"limits": "{quarantine_share: 0.5, identity_coverage: 0.5}"},
    )
    usage = home / "files/product/usage.csv"
    usage.write_text(usage.read_text() + "w-1,2026-03-30,-4\nw-99,2026-03-30,4\n")
    assert run(home, SMALL_TODAY).success
    code, found = findings(home)
    assert code == 0
    assert found["identity of product"] == [
        "note: 1 customers fit no account; "
        "look into signals.unmatched; name them in the manual identity file"
    ]
    assert found["rows of product"] == [
        "note: 1 rows for usage_daily are in quarantine; signals.quarantine says why"
    ]


def test_the_doctor_and_check_name_all_mistakes_of_the_configuration(home):
    write(home / "scorecards/risk.yaml", "score: risk\n")
    checked = check(home).err.splitlines()[:-1]
    code, found = findings(home)
    assert code == 1
    assert {line.removeprefix("problem: ") for line in found["configuration"]} >= {
        line for line in checked if not line.startswith("warning")
    }


def test_the_doctor_asks_an_api_whose_data_the_credentials_open(tmp_path, monkeypatch):
    monkeypatch.setenv("DESK_TOKEN", TOKEN)
    home = write_small_company(tmp_path / "company")
    with serving(SmallApi({"tickets": []})) as api:
        desk = (
            f"type: rest\naddress: {api.address}\nauth: {{bearer: {{env: DESK_TOKEN}}}}\n"
            "account: {path: /me, field: organisation.id}\n"
            "streams:\n  tickets: {path: /tickets, records: data, primary_key: [id]}\n"
        )
        write(home / "sources/desk.yaml", desk)
        write(
            home / "sources/desk/tickets.sql",
            "SELECT id AS ticket_id, org AS account_key, opened AS opened_at\n"
            "FROM raw_desk.tickets\n",
        )
        _, found = findings(home)
        assert found["source desk"][0].startswith("ok: the credentials open account 'acme'; they")
        write(home / "sources/desk.yaml", f"{desk}expect_account: globex\n")
        _, found = findings(home)
        assert found["source desk"][0].startswith(
            "problem: the credentials open account 'acme', not 'globex'; use"
        )
        code, found = findings(home, DESK_TOKEN="canary-wrong")
        assert code == 1
        assert found["source desk"][0].startswith("problem: api: refused the credentials (401); ")
        assert "canary" not in json.dumps(found)
    monkeypatch.setattr("orchestration.findings.ANSWERS_WITHIN_SECONDS", 0.2)
    _, found = findings(home)
    assert found["source desk"][0].startswith("problem: rest did not answer within 0.2 seconds; ")
