"""From facts in the sources to fields and tasks in either CRM, and back, day after day."""

import datetime as dt

import pytest
from crm_company import CRM_NAMES, HOUR, SCORES, new_company, opened, written_company
from crm_story import HANDS, OVERRIDE_REASON, Evening, story_of
from demo_company import copy_of

from contracts.actions import task_key

PARTS = ("score", "band", "reasons", "coverage", "as_of", "scorecard")


@pytest.fixture(params=CRM_NAMES)
def story(request, tmp_path_factory):
    return story_of(tmp_path_factory, request.param)


@pytest.fixture(params=CRM_NAMES)
def company(request, tmp_path_factory, tmp_path):
    """A company whose CRM shows everything."""
    home = copy_of(written_company(tmp_path_factory, request.param), tmp_path)
    with opened(home, request.param) as company:
        yield company


@pytest.fixture(params=CRM_NAMES)
def new(request, tmp_path_factory, tmp_path):
    """A company that was scored, and of which its CRM knows nothing."""
    home = copy_of(new_company(tmp_path_factory, request.param), tmp_path)
    with opened(home, request.param) as company:
        yield company


def keys_of(evening: Evening, account: str) -> set[str]:
    """The tasks of an account that are open in the CRM."""
    return {
        key
        for key, task in evening.after[1].items()
        if task["episode"].endswith(f"/{account}")
        and task["status"] in ("Not Started", "NOT_STARTED")
        and not task["deleted"]
    }


# -- what is shown after the first run ------------------------------------------------------------


def test_every_account_shows_each_of_its_scores_with_band_reasons_day_and_scorecard(company):
    scored = company.rows(
        "SELECT account_id, split_part(score, ':', 1), value, band FROM scores.scores "
        "WHERE as_of = ?", company.day,
    )  # fmt: skip
    records = company.records()
    shown = company.crm.shown()[0]
    assert {score for _, score, _, _ in scored} == set(SCORES)
    for account, score, value, band in scored:
        values = shown["account", records[account]]
        assert values[f"{score}_band"] == band
        assert (values.get(f"{score}_score") is None) == (band == "unknown")
        if band != "unknown":
            assert float(values[f"{score}_score"]) == pytest.approx(float(value), abs=0.5)
        assert values[f"{score}_as_of"] == str(company.day)
        version = {"risk": 1, "upsell": 3, "health": 2, "handoff": 1}[score]
        assert values[f"{score}_scorecard"] == f"{score} v{version}"
        assert 0 <= float(values[f"{score}_coverage"]) <= 100
    calm = records[company.calm_accounts()[0]]
    assert shown["account", calm]["upsell_reasons"] == "A customer for years"
    assert shown["account", calm]["health_outcome"] == "goals"


def test_open_deals_and_fresh_customers_deals_show_what_their_account_shows(company):
    shown = company.crm.shown()[0]
    records = company.records()
    deals = {id: values for (object, id), values in shown.items() if object == "opportunity"}
    assert len(deals) >= 5
    for id, values in deals.items():
        ((account,),) = company.rows(
            "SELECT account_id FROM signals.opportunities WHERE opportunity_id = ? "
            "AND superseded_at IS NULL", id,
        )  # fmt: skip
        of_account = shown["account", records[account]]
        assert values == {name: of_account[name] for name in values}
        assert {f"risk_{part}" for part in PARTS} <= values.keys()


def test_every_task_has_its_owner_due_day_text_record_and_key(company):
    tasks = company.tasks()
    accounts = company.rows(
        "SELECT account_id, name, owner, sales_owner FROM metrics.accounts WHERE as_of = ?",
        company.day,
    )
    named = {account: rest for account, *rest in accounts}
    records, people = company.records(), {p.id: p.name for p in company.crm.writer().owners()}
    assert len(tasks) > 30
    for task in tasks:
        playbook, day, account = task["episode"].split("/")
        assert task["key"] == task_key(
            tenant="lakeview", account_id=account, playbook=playbook, task="1",
            opened_on=dt.date.fromisoformat(day),
        )  # fmt: skip
        name, csm, seller = named[account]
        assert people[task["owner"]] == (csm if playbook == "risk-red" else seller)
        assert name in task["subject"]
        assert f"From the playbook {playbook}" in task["body"]
        assert "1. " in task["body"]
        due = dt.date.fromisoformat(task["due"][:10])
        assert due > company.day
        assert due.isoweekday() <= 5
        assert task["record"] in (records[account], [records[account]])


def test_what_is_shown_was_planned_and_every_planned_write_ended_as_written(company):
    with company.ledger() as ledger:
        intents = ledger.intents(company.plan_id())
    assert {intent.state for intent in intents} == {"written"}
    fields, tasks = company.crm.shown()
    assert len(intents) == len(fields) + len(tasks)


def test_f71_nothing_is_sent_while_apply_is_false_whatever_command_is_run(new):
    plan = new.healthloop("plan")
    assert plan.code == 0, plan.both
    refused = new.healthloop("apply")
    assert refused.code == 2
    assert refused.err == (
        "crm.yaml says apply: false, so nothing is written; read the plan with `healthloop plan`, "
        "then set apply: true\n"
    )
    for command in ("plan --all", "plan --format json", "plan --format csv", "queue", "playbooks",
                    f"provision {new.crm.name}", "doctor"):  # fmt: skip
        new.healthloop(command)
    new.healthloop(f"plan drop {new.plan_id()}")
    assert (new.writes, new.crm.written(), new.crm.shown()) == (0, [], ({}, {}))


def test_f71_the_fast_lane_sends_nothing_either(tmp_path_factory, tmp_path):
    home = copy_of(written_company(tmp_path_factory, "hubspot"), tmp_path)
    with opened(home, "hubspot") as company:
        company.set_apply(False)
        company.later(HOUR)
        company.open_ticket(company.calm_accounts()[0])
        company.later()
        assert company.fast_lane().success
        with company.ledger() as ledger:
            plan = ledger.newest()
        assert (plan.lane, plan.status) == ("fast", "open")
        assert plan.totals["fields"] > 0
        assert company.writes == 0


# -- day after day --------------------------------------------------------------------------------


def test_a_second_run_without_news_writes_nothing(story):
    assert story.quiet.ran.success
    assert story.quiet.requests == 0
    assert story.quiet.plan.totals["fields"] == 0
    assert story.quiet.intents == ()


def test_only_fields_whose_value_changes_are_sent(story):
    assert story.news.written == story.news.changed()
    sent = {intent.record_id for intent in story.news.intents if intent.kind == "fields"}
    assert {id for _, id in story.news.written} == sent
    of_risk = {f"risk_{part}" for part in ("score", "band", "reasons", "as_of")}
    because_red = {"upsell_reasons", "upsell_as_of"}  # "Not while the risk is red"
    assert story.news.written[story.record("hit")] == of_risk | because_red
    values = story.news.values(story.record("hit"))
    assert (float(values["risk_score"]), values["risk_band"]) == (80, "red")
    assert values["risk_reasons"] == "Open P1 tickets: 2"


def test_no_more_requests_are_sent_than_the_change_needs(story):
    """Accounts, opportunities, tasks to open, tasks to close: one call each."""
    assert story.news.requests == 4
    assert story.cleared.requests == 2


def test_b19_facts_of_the_handoff_stand_on_the_account_and_both_show_its_score(story):
    evening = story.news
    account = evening.values(story.record("sold"))
    deal = evening.values(("opportunity", story.deal))
    assert account["handoff_promised_outcome"] == "Half the time"
    assert float(account["handoff_stakeholders_met"]) == 9
    assert account.get("handoff_success_criteria") is None
    assert evening.before[0][story.record("sold")]["handoff_success_criteria"]
    assert account["handoff_band"] == deal["handoff_band"] == "red"
    assert account["handoff_score"] == deal["handoff_score"]
    assert "handoff_promised_outcome" not in evening.written["opportunity", story.deal]


def test_an_override_that_somebody_types_into_the_crm_comes_back_as_the_score(story):
    values = story.news.values(story.record("doubted"))
    assert (float(values["risk_score"]), values["risk_band"]) == (90, "red")
    assert values["risk_reasons"].startswith(f"Set by hand until 2026-07-31: {OVERRIDE_REASON}")
    (task,) = story.news.new_episodes() & {f"risk-red/2026-06-25/{story.cast['doubted']}"}
    assert task
    assert story.cleared.values(story.record("doubted")) == values


def test_f69_an_edit_of_an_owned_field_is_told_and_stays_until_our_value_changes(story):
    edited, hit = story.record("edited"), story.record("hit")
    assert float(story.news.before[0][edited]["risk_score"]) == 55
    assert edited not in story.news.written
    for evening in (story.news, story.cleared, story.dark, story.approved):
        assert float(evening.values(edited)["risk_score"]) == 55
    (told,) = story.news.drift
    assert (told.record_id, told.field, told.ours, told.theirs) == (
        edited[1], "risk_score", "10", "55",
    )  # fmt: skip
    assert float(story.news.before[0][hit]["risk_score"]) == 55
    assert float(story.news.values(hit)["risk_score"]) == 80


@pytest.mark.parametrize("hand", HANDS)
def test_f68_a_task_that_somebody_took_in_hand_stays_so_in_all_runs_that_follow(story, hand):
    key, account = story.hands[hand], story.cast[hand]
    left = story.news.before[1][key]
    assert left != story.quiet.after[1][key]
    for evening in (story.news, story.cleared, story.dark, story.approved):
        assert evening.after[1][key] == left
        assert not any(e.endswith(f"/{account}") for e in evening.new_episodes())
        assert evening.tasks[key].touched
    status = {"completed": "completed", "deleted": "deleted"}.get(hand, "open")
    assert story.cleared.tasks[key].status == status


def test_a_cleared_condition_closes_the_tasks_that_nobody_touched(story):
    hit = story.cast["hit"]
    assert len(keys_of(story.news, hit)) == 2
    assert keys_of(story.cleared, hit) == set()
    assert float(story.cleared.values(story.record("hit"))["risk_score"]) == 10
    for key in keys_of(story.news, hit):
        before, after = story.news.after[1][key], story.cleared.after[1][key]
        assert after["status"] in ("Completed", "COMPLETED")
        assert {**after, "status": None} == {**before, "status": None}


def test_c6_no_upsell_task_is_open_while_the_risk_is_red(story):
    for who in ("hit", "doubted"):
        open_tasks = {
            story.news.after[1][key]["episode"].split("/")[0]
            for key in keys_of(story.news, story.cast[who])
        }
        assert "upsell-ready" not in open_tasks
        assert "risk-red" in open_tasks


# -- records that go away -------------------------------------------------------------------------


def test_f65_a_deleted_account_is_written_no_more_and_gets_no_task(story):
    record = story.record("deleted")
    assert story.news.values(record)
    for evening in (story.cleared, story.dark, story.approved):
        assert record not in evening.written
        assert record not in evening.after[0]
        assert not any(e.endswith(f"/{story.cast['deleted']}") for e in evening.new_episodes())
        assert not any(intent.record_id == record[1] for intent in evening.intents
                       if intent.kind != "close_task")  # fmt: skip


def test_f66_f67_a_merged_account_is_followed_to_the_record_that_lives_on(story):
    survivor = ("account", story.successor)
    loser, winner = story.record("loser"), story.record("winner")
    assert (survivor == winner) == (story.crm == "salesforce")
    values = story.cleared.values(survivor)
    for name, value in story.news.values(winner).items():
        if name.startswith("upsell_") and name != "upsell_as_of":
            assert values[name] == value
    for evening in (story.cleared, story.dark, story.approved):
        gone = {loser} | ({winner} - {survivor})
        assert not gone & evening.written.keys()
        for who in ("loser", "winner"):
            account = story.cast[who]
            assert not any(e.endswith(f"/{account}") for e in evening.new_episodes())


# -- a source that does not answer ----------------------------------------------------------------


def test_f29_f31_without_its_help_desk_no_account_turns_green_or_red_and_gets_a_task(story):
    dark = story.dark
    assert not dark.ran.success
    (reason,) = dark.plan.reasons
    assert "held for want of data" in reason
    assert dark.requests == 0
    assert dark.changed() == {}
    told = " ".join(dark.ran.warnings)
    assert "source helpdesk: zendesk: refused the credentials (401)" in told
    risky = {"open_task", "close_task"}
    assert not any(intent.kind in risky for intent in dark.intents)
    planned = {(i.account_id, c.field) for i in dark.intents for c in i.changes}
    assert not {name for _, name in planned} & {"risk_score", "risk_band"}
    assert not {name for account, name in planned if account == story.cast["unseen"]} & {
        "risk_reasons", "risk_coverage", "risk_as_of", "risk_change",
    }  # fmt: skip


def test_f29_what_is_held_stays_held_when_a_person_lets_the_plan_go(story):
    approved = story.approved
    assert approved.requests > 0
    assert approved.written == approved.changed()
    for record, fields in approved.changed().items():
        assert not fields & {"risk_score", "risk_band"}, record
    assert approved.made == set()
    unseen = approved.values(story.record("unseen"))
    assert (float(unseen["risk_score"]), unseen["risk_band"]) == (10, "green")
