"""What a fault, a person or the fast lane leaves behind, and what later days make of it."""

import re
from unittest import mock

import pytest
from crm_company import DAY, HOUR, MINUTE, CrmCompany, end_of, opened, written_company
from demo_company import copy_of, write

from connectors.crm import applying
from connectors.crm.writing import CrmName
from contracts.actions import task_key
from orchestration.runs import Run

PLAYBOOK = "p1-open"


@pytest.fixture
def crm() -> CrmName:
    """Which CRM the company has; a test may name the other one."""
    return "hubspot"


@pytest.fixture
def company(crm, tmp_path_factory, tmp_path):
    """A company whose CRM shows everything."""
    home = copy_of(written_company(tmp_path_factory, crm), tmp_path)
    with opened(home, crm) as company:
        yield company


on_salesforce = pytest.mark.parametrize("crm", ["salesforce"])


def wait(company: CrmCompany, days: int = 1, *, until_morning: bool = False) -> None:
    """Days pass without a run, to the end of the last one or to the morning after it."""
    day = company.day + days * DAY
    company.later(end_of(day) - company.box.now + until_morning * 6 * HOUR)
    text = (company.home / "company.yaml").read_text(encoding="utf-8")
    write(company.home / "company.yaml", re.sub(r"(?m)^today: .*$", f"today: {day}", text))


def evening(company: CrmCompany) -> Run:
    """A day passes, and its daily run comes."""
    wait(company)
    return company.run()


def shown(company: CrmCompany, account: str) -> list[tuple[str, bool]]:
    """The tasks about P1 tickets that the CRM shows of an account: since when, and if open."""
    return [
        (task["episode"].split("/")[1], task["status"] in ("Not Started", "NOT_STARTED"))
        for task in company.tasks(account)
        if task["episode"].startswith(PLAYBOOK)
    ]


def known(company: CrmCompany, account: str) -> list[tuple[str, bool]]:
    """The same tasks as the ledger has them: their status, and if a person has touched them."""
    with company.ledger() as ledger:
        return [
            (task.status, task.touched)
            for task in ledger.tasks()
            if (task.account_id, task.playbook) == (account, PLAYBOOK)
        ]


def with_p1(company: CrmCompany) -> tuple[str, str]:
    """An account that has a P1 ticket and a task about it; and the ticket."""
    account = company.calm_accounts()[0]
    ticket = company.open_ticket(account)
    assert evening(company).success
    assert [is_open for _, is_open in shown(company, account)] == [True]
    return account, ticket


# -- what was decided, and did not arrive ---------------------------------------------------------


@pytest.mark.parametrize("how", ["is not answered", "is lost by a crash"])
def test_f06_f72_a_closing_that_did_not_arrive_is_planned_again_and_done(company, how):
    account, ticket = with_p1(company)
    company.solve_ticket(ticket)
    if how == "is not answered":
        company.crm.spoil("close", "status", code=503, times=None)
        evening(company)
        company.box.faults.clear()
    else:
        with mock.patch.object(applying._Run, "carry_out", side_effect=OSError("no disk")):
            assert not evening(company).success
    with company.ledger() as ledger:
        assert [e.state for e in ledger.episodes()
                if (e.account_id, e.playbook) == (account, PLAYBOOK)] == ["closed"]  # fmt: skip
    assert known(company, account) == [("open", False)]
    assert evening(company).success
    assert known(company, account) == [("closed", False)]
    assert [is_open for _, is_open in shown(company, account)] == [False]


@on_salesforce
def test_f54_a_refused_task_whose_condition_cleared_does_not_come_back(company):
    account = company.calm_accounts()[0]
    ticket = company.open_ticket(account)
    key = task_key(tenant="lakeview", account_id=account, playbook=PLAYBOOK,
                   opened_on=company.day + DAY, task="1")  # fmt: skip
    company.crm.refuse("tasks", "FIELD_CUSTOM_VALIDATION_EXCEPTION", [key])
    evening(company)
    with company.ledger() as ledger:
        assert key in ledger.rejected_tasks()
    company.solve_ticket(ticket)
    company.crm.relent()
    assert evening(company).success
    wait(company, 8)  # then what was refused is offered again
    assert company.run().success
    assert (known(company, account), shown(company, account)) == ([("closed", False)], [])


# -- the fast lane and the daily run --------------------------------------------------------------


@on_salesforce
def test_after_the_fast_lane_the_daily_run_still_looks_after_everybody_else(company):
    """Tasks of whoever left are closed, facts of prospects written, edits of people told."""
    gone, busy, edited = company.calm_accounts()[:3]
    (prospect, deal), *_ = company.rows(
        "SELECT crm_id, opportunity_id FROM signals.opportunities JOIN signals.accounts AS a "
        "USING (account_id) WHERE opportunities.superseded_at IS NULL AND a.superseded_at IS NULL "
        "AND kind = 'new' AND closed_at IS NULL "
        "AND account_id NOT IN (SELECT account_id FROM metrics.accounts) ORDER BY 1, 2"
    )
    fact = "HL_Handoff_Promised_Outcome__c"
    company.open_ticket(gone)
    assert evening(company).success
    company.later(HOUR)
    company.crm.delete(company.record_of(gone))
    company.type_in("opportunity", deal, **{fact: "Half the time"})
    company.crm.edit("account", company.record_of(edited), "risk_score", 55)
    wait(company, until_morning=True)
    company.open_ticket(busy)
    company.later(5 * MINUTE)
    assert company.fast_lane().success
    assert [is_open for _, is_open in shown(company, busy)] == [True]
    assert company.run().success
    with company.ledger() as ledger:
        assert not [task for task in ledger.tasks() if task.account_id == gone
                    and task.status == "open" and not task.touched]  # fmt: skip
        told = {(drift.record_id, drift.field) for drift in ledger.drift()}
    assert (company.record_of(edited), "risk_score") in told
    assert company.typed("account", prospect, fact) == "Half the time"


# -- plans that wait ------------------------------------------------------------------------------


def test_f71_a_daily_plan_that_waited_doubles_no_task_that_the_fast_lane_has_opened(company):
    company.set_apply(True, "gate: {most_tasks: 0}\n")  # any task holds a plan
    account = company.calm_accounts()[0]
    company.open_ticket(account)
    assert not evening(company).success
    held = company.plan_id()
    company.set_apply(True)
    wait(company, until_morning=True)
    company.open_ticket(account)
    assert company.fast_lane().success
    before = shown(company, account)
    assert [is_open for _, is_open in before] == [True]
    company.later()
    for command in ("plan approve", "apply"):
        assert company.healthloop(command, held).code == 0
    assert shown(company, account) == before
    assert known(company, account) == [("open", False)]
    assert evening(company).success
    assert shown(company, account) == before


def test_f71_a_held_plan_of_the_fast_lane_is_out_of_date_once_the_day_is_planned(company):
    account = company.calm_accounts()[0]
    company.set_apply(True, "gate: {most_tasks: 0}\n")
    wait(company, until_morning=True)
    ticket = company.open_ticket(account)
    company.later(5 * MINUTE)
    assert not company.fast_lane().success
    held = company.plan_id()
    company.later(HOUR)
    company.solve_ticket(ticket)
    company.set_apply(True)
    assert evening(company).success
    with company.ledger() as ledger:
        assert (ledger.plan(held).lane, ledger.plan(held).status) == ("fast", "superseded")
    fields = company.fields(account)
    for command in ("plan approve", "apply"):
        assert company.healthloop(command, held).code == 2
    assert (shown(company, account), company.fields(account)) == ([], fields)
