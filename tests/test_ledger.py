import datetime as dt
import multiprocessing
import sqlite3
import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa

from connectors.crm import ledger_tables
from connectors.crm.lease import LeaseHeld, LeaseLost
from connectors.crm.ledger import Ledger
from connectors.crm.places import keep_places
from connectors.crm.plans import Ended, FieldChange, FieldChanges, Plan
from connectors.crm.settings import CrmSettings
from connectors.crm.writing import SeenRecord, SeenTask
from contracts.actions import Episode, TaskLeft
from contracts.errors import HeldError, LedgerError, NotFoundError
from tests.ledgers import DAY, NOW, Clock, change, closing, new_task, opening, state_of, store

HOUR = dt.timedelta(hours=1)
LATER = NOW + HOUR


@pytest.fixture
def ledger(ledger_url):
    with Ledger(ledger_url) as ledger:
        yield ledger


def send(ledger, plan_id, *ends, at=NOW, method="collections"):
    batch = ledger.begin_batch(plan_id, [end.number for end in ends], method=method, at=at)
    ledger.finish_batch(batch, ends, at)


def confirmed(ledger):
    rows = [row for table in ledger.confirmed() for row in table.to_pylist()]
    return {(row["object"], row["record_id"]): row["values"] for row in rows}


def seen(task, **now):
    shown = {
        "owner_id": task.owner_id, "subject": task.subject, "due_on": task.due_on,
        "status": "open", "modified_at": NOW, "record_id": task.record_id, **now,
    }  # fmt: skip
    return SeenTask(task.key, task.episode, f"T-{task.key}", **shown)


def with_open_task(ledger, key="k1"):
    """A ledger in which the CRM acknowledged a task; what was written."""
    intent = opening(1, key, "001A")
    store(ledger, intent)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "written", crm_id=f"T-{key}"))
    return intent.task


def only_task(ledger):
    (task,) = ledger.tasks()
    return task


# Plans


def test_a_plan_comes_back_as_it_was_stored(ledger):
    intents = [
        change(1, "001A", risk_score="71", risk_reasons=None),
        opening(2, "k1", "001A", subject="مرحبا \N{FAMILY} é"),
        closing(3, "k2", "001B"),
    ]
    plan = store(
        ledger, *intents, totals={"fields": 2}, reasons=("too many",), status="held",
        left=(TaskLeft("k3", "A-1", "snoozed"),),
    )  # fmt: skip
    assert ledger.plan("p1") == plan
    assert ledger.intents("p1") == intents
    assert ledger.counts("p1")[("open_task", "planned")] == 1


def test_text_that_no_database_keeps_is_kept_without_what_breaks_it(ledger):
    hostile = "a\0b\ud800c"
    intent = replace(opening(1, "k1", "001A", subject=hostile), why=hostile)
    store(ledger, intent)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "rejected", hostile))
    (kept,) = ledger.intents("p1")
    for text in (kept.task.subject, kept.why, kept.reason, only_task(ledger).subject):
        assert text.startswith("a")
        assert text.endswith("c")
        assert "\ud800" not in text


@pytest.mark.parametrize(("days_later", "left"), [(0, "superseded"), (1, "open")])
def test_a_newer_daily_plan_supersedes_what_waits_and_knows_no_later_day(ledger, days_later, left):
    day = DAY + dt.timedelta(days=days_later)
    store(ledger, change(1, "001A", risk_score="71"), plan_id="held", status="held")
    store(ledger, change(1, "001B", risk_score="71"), plan_id="fast", lane="fast", day=day)
    store(ledger, change(1, "001A", risk_score="72"), plan_id="new", at=LATER)
    statuses = {plan.plan_id: plan.status for plan in ledger.plans()}
    assert statuses == {"held": "superseded", "fast": left, "new": "open"}
    (old,) = ledger.intents("held")
    assert (old.state, old.reason) == ("skipped", "superseded by plan new")
    assert ledger.newest().plan_id == "new"
    assert ledger.newest("dropped") is None


def test_what_old_plans_wrote_is_forgotten_and_what_the_crm_shows_is_not(ledger):
    store(ledger, change(1, "001A", risk_score="71"), opening(2, "k1", "001A"),
          opening(3, "k2", "001B"), plan_id="old")  # fmt: skip
    ledger.begin_plan("old", NOW)
    batch = ledger.begin_batch("old", [1, 2], method="collections", at=NOW)
    ledger.finish_batch(batch, [Ended(1, "written"), Ended(2, "written", crm_id="T1")], NOW)
    ledger.settle("old", [Ended(3, "deferred", "no budget")])
    ledger.end_plan("old", NOW)
    store(ledger, change(1, "001A", risk_score="72"), plan_id="new", at=LATER)
    shown = [table.to_pylist() for table in ledger.confirmed()]

    assert ledger.forget(NOW) == 0  # it is not older than itself
    assert ledger.forget(LATER) == 1
    assert [(i.number, i.state) for i in ledger.intents("old")] == [(3, "deferred")]
    assert [i.task.key for i in ledger.carried()] == ["k2"]
    assert [table.to_pylist() for table in ledger.confirmed()] == shown
    assert {task.key: task.status for task in ledger.tasks()} == {"k1": "open", "k2": "planned"}
    assert (ledger.plan("old").status, len(ledger.intents("new"))) == ("applied", 1)


@pytest.mark.parametrize("status", ["open", "held", "approved"])
def test_a_plan_that_waits_is_never_forgotten(ledger, status):
    store(ledger, change(1, "001A", risk_score="71"), status=status)
    assert ledger.forget(LATER) == 0
    assert len(ledger.intents("p1")) == 1


def test_a_plan_with_a_batch_in_doubt_is_never_forgotten(ledger):
    store(ledger, change(1, "001A", risk_score="71"))
    ledger.begin_batch("p1", [1], method="collections", at=NOW)
    store(ledger, plan_id="p2", at=LATER)  # which supersedes it
    assert ledger.forget(LATER) == 0
    assert len(ledger.sent()) == 1


def test_a_plan_that_is_not_there_names_the_newest(ledger):
    with pytest.raises(NotFoundError, match="make one"):
        ledger.plan("p9")
    store(ledger, plan_id="p1")
    store(ledger, plan_id="p2", at=LATER)
    with pytest.raises(NotFoundError, match="the newest are p2, p1"):
        ledger.plan("p9")


def test_every_verdict_on_a_plan_is_kept(ledger):
    store(ledger, status="held", reasons=("11 of 100 accounts change band",))
    ledger.judge("p1", "approved", by="ada", at=NOW)
    ledger.judge("p1", "held", by="grace", at=LATER, reasons=["wait for sales"])
    plan = ledger.plan("p1")
    assert (plan.status, plan.decided_by, plan.reasons) == ("held", "grace", ("wait for sales",))
    assert ledger.approvals("p1") == [("approved", "ada", NOW), ("held", "grace", LATER)]


def test_a_plan_that_is_over_cannot_be_judged(ledger):
    store(ledger)
    ledger.end_plan("p1", NOW)
    with pytest.raises(NotFoundError, match="applied"):
        ledger.judge("p1", "dropped", by="ada", at=NOW)
    with pytest.raises(NotFoundError, match="no plan"):
        ledger.judge("p9", "dropped", by="ada", at=NOW)


def test_episodes_and_tasks_are_kept_once_when_a_plan_begins(ledger):
    store(ledger, opening(1, "k1", "001A"))
    assert (ledger.episodes(), ledger.tasks()) == ([], [])
    ledger.begin_plan("p1", NOW)
    ledger.begin_plan("p1", LATER)
    assert ledger.episodes() == [Episode("A-001A", "champion-left", DAY, "open")]
    assert ledger.tasks() == [state_of(opening(1, "k1", "001A"))]
    assert ledger.tasks_of("salesforce") == ledger.tasks()
    assert ledger.tasks_of("hubspot") == []
    assert ledger.crm_of_tasks() == {"k1": "salesforce"}


def test_a_plan_changes_neither_a_task_that_is_there_nor_a_closed_episode(ledger):
    with_open_task(ledger)
    store(ledger, opening(1, "k1", "001A", subject="Another"), plan_id="p2", at=LATER)
    ledger.begin_plan("p2", LATER)
    assert only_task(ledger).status == "open"
    assert only_task(ledger).subject == "Call them"
    closed = Episode("A-001A", "champion-left", DAY, "closed", closed_on=DAY)
    for number, episode in enumerate((closed, replace(closed, state="open"))):
        plan = store(ledger, plan_id=f"e{number}", at=LATER)
        ledger.store(replace(plan, plan_id=f"f{number}", episodes=(episode,)), [])
        ledger.begin_plan(f"f{number}", LATER)
    assert ledger.episodes() == [closed]


def begun(ledger, plan_id, *tasks, closed=(), lane="daily", at=NOW):
    """Begin a plan that opens episodes with these tasks, by their days, and closes others."""
    days = {task.opened_on for task in tasks}
    episodes = [Episode("A-001A", "champion-left", day, "open") for day in sorted(days)]
    episodes += [Episode("A-001A", "champion-left", day, "closed", closed_on=at.date())
                 for day in closed]  # fmt: skip
    ledger.store(
        Plan(plan_id, at.date(), lane, at, episodes=tuple(episodes), tasks=tasks),
        [replace(opening(number, task.key, "001A"), account_id="A-001A")
         for number, task in enumerate(tasks, 1)],
    )  # fmt: skip
    ledger.begin_plan(plan_id, at)


def task_of(key, day=DAY):
    return replace(state_of(opening(1, key, "001A")), opened_on=day)


@pytest.mark.parametrize("later", [DAY, DAY + dt.timedelta(days=1)], ids=["that day", "the next"])
def test_f71_what_waited_for_a_person_begins_nothing_that_others_began_or_ended_since(
    ledger, later
):
    begun(ledger, "fast", task_of("k2", later), lane="fast", at=LATER)
    if later == DAY:  # and it is over already
        begun(ledger, "end", closed=[DAY], lane="fast", at=LATER + HOUR)
    before = (ledger.episodes(), ledger.tasks())
    begun(ledger, "held", task_of("k1"))
    assert (ledger.episodes(), ledger.tasks()) == before
    assert [task.key for task in ledger.tasks()] == ["k2"]


def test_an_episode_that_a_plan_opens_in_place_of_one_that_it_closes_is_kept(ledger):
    begun(ledger, "p1", task_of("k1"))
    later = DAY + dt.timedelta(days=30)
    begun(ledger, "p2", task_of("k2", later), closed=[DAY], at=LATER)
    assert {e.opened_on: e.state for e in ledger.episodes()} == {DAY: "closed", later: "open"}
    assert {task.key for task in ledger.tasks()} == {"k1", "k2"}


def test_a_plan_ends_only_when_the_sums_are_right(ledger):
    store(ledger, change(1, "001A", risk_score="71"), change(2, "001B", risk_score="5"))
    send(ledger, "p1", Ended(1, "written"))
    with pytest.raises(LedgerError, match="does not add up"):
        ledger.end_plan("p1", NOW)
    ledger.settle("p1", [Ended(2, "deferred", "asked to stop")])
    ledger.end_plan("p1", NOW)
    assert ledger.plan("p1").status == "applied"


# Batches


def test_a_batch_is_known_as_sent_before_it_is_answered(ledger, ledger_url):
    store(ledger, change(1, "001A", risk_score="71"), change(2, "001B", risk_score="5"))
    batch_id = ledger.begin_batch("p1", [2], method="bulk", at=NOW)
    ledger.note_job(batch_id, "750x")
    with Ledger(ledger_url) as other:  # after a crash
        (batch,) = other.sent()
        assert (batch.batch_id, batch.plan_id, batch.job_id) == (batch_id, "p1", "750x")
        assert (batch.crm, batch.method, batch.begun_at) == ("salesforce", "bulk", NOW)
        assert [intent.record_id for intent in batch.intents] == ["001B"]
        assert [intent.state for intent in other.intents("p1")] == ["planned", "sent"]
        other.finish_batch(batch_id, [Ended(2, "planned", "the job failed")], NOW)
        assert other.sent() == []
    assert [i.attempts for i in ledger.intents("p1", "planned")] == [0, 1]


def test_a_record_is_never_in_two_calls_at_once(ledger):
    store(ledger, change(1, "001A", risk_score="71"))
    ledger.begin_batch("p1", [1], method="collections", at=NOW)
    with pytest.raises(LedgerError, match="a second time"):
        ledger.begin_batch("p1", [1], method="collections", at=NOW)
    assert len(ledger.sent()) == 1


def test_a_batch_ends_once_and_with_a_result_for_each_record(ledger):
    store(ledger, change(1, "001A", risk_score="71"), change(2, "001B", risk_score="5"))
    batch = ledger.begin_batch("p1", [1, 2], method="collections", at=NOW)
    with pytest.raises(LedgerError, match="2 records, 1 results"):
        ledger.finish_batch(batch, [Ended(1, "written")], NOW)
    assert confirmed(ledger) == {}
    ends = [Ended(1, "written"), Ended(2, "rejected", "TOO_LONG")]
    ledger.finish_batch(batch, ends, NOW)
    with pytest.raises(HeldError, match="another run"):
        ledger.finish_batch(batch, ends, NOW)
    assert confirmed(ledger) == {("account", "001A"): '{"risk_score":"71"}'}


def test_a_parked_batch_is_deferred_and_still_open(ledger):
    store(ledger, change(1, "001A", risk_score="71"))
    batch = ledger.begin_batch("p1", [1], method="bulk", at=NOW)
    ledger.park_batch(batch, "a job is at work")
    ledger.end_plan("p1", NOW)
    assert len(ledger.sent()) == 1
    ledger.finish_batch(batch, [Ended(1, "written")], LATER)
    assert ledger.counts("p1") == {("fields", "written"): 1}


def test_what_was_acknowledged_adds_up_over_plans(ledger):
    store(ledger, change(1, "001A", risk_score="71", risk_band="red"))
    send(ledger, "p1", Ended(1, "written"))
    store(ledger, change(1, "001A", risk_score=None, upsell_score="9"), plan_id="p2")
    send(ledger, "p2", Ended(1, "written"))
    assert confirmed(ledger) == {
        ("account", "001A"): '{"risk_score":null,"risk_band":"red","upsell_score":"9"}'
    }


def test_a_refused_value_is_remembered_until_another_is_written(ledger):
    store(ledger, change(1, "001A", risk_score="71", risk_band="red"))
    send(ledger, "p1", Ended(1, "rejected", "FIELD_CUSTOM_VALIDATION_EXCEPTION"))
    key = ("salesforce", "account", "001A")
    assert ledger.rejections() == {key: {"risk_score": "71", "risk_band": "red"}}
    assert ledger.rejections(since=LATER + dt.timedelta(days=7)) == {}  # it may be offered again
    store(ledger, change(1, "001A", risk_score="72"), plan_id="p2")
    send(ledger, "p2", Ended(1, "written"))
    assert ledger.rejections() == {key: {"risk_band": "red"}}
    store(ledger, change(1, "001A", risk_band="yellow"), plan_id="p3")
    send(ledger, "p3", Ended(1, "written"))
    assert ledger.rejections() == {}


def test_a_task_that_was_put_off_is_carried_and_a_refused_one_only_after_a_while(ledger):
    first, second, third = (opening(n, f"k{n}", "001A") for n in (1, 2, 3))
    store(ledger, first, second, third)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "deferred"), Ended(2, "rejected", "NO"), Ended(3, "written"))
    assert [intent.task for intent in ledger.carried()] == [first.task]
    assert ledger.rejected_tasks() == {"k2": "NO"}
    assert {i.task.key for i in ledger.carried(rejected_before=LATER)} == {"k1", "k2"}
    assert {i.task.key for i in ledger.carried(rejected_before=NOW)} == {"k1"}


def test_f54_a_closing_that_was_refused_is_remembered_until_the_task_is_closed(ledger):
    with_open_task(ledger)
    store(ledger, closing(1, "k1", "001A"), plan_id="p2", at=LATER)
    send(ledger, "p2", Ended(1, "rejected", "NO"), at=LATER)
    assert only_task(ledger).status == "open"
    assert ledger.rejected_tasks(since=LATER) == {"k1": "NO"}
    assert ledger.rejected_tasks(since=LATER + HOUR) == {}  # it may be offered again
    store(ledger, closing(1, "k1", "001A"), plan_id="p3", at=LATER + HOUR)
    send(ledger, "p3", Ended(1, "written"), at=LATER + HOUR)
    assert only_task(ledger).status == "closed"
    assert ledger.rejected_tasks() == {}


def test_f54_a_refused_task_whose_condition_cleared_is_carried_no_more(ledger):
    refused = opening(1, "k1", "001A")
    store(ledger, refused)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "rejected", "NO"))
    assert len(ledger.carried(rejected_before=LATER)) == 1
    begun(ledger, "p2", replace(state_of(refused), status="closed"), closed=[DAY], at=LATER)
    assert ledger.carried(rejected_before=LATER + dt.timedelta(days=365)) == []


# Where values are


def test_what_is_known_of_a_field_that_has_another_name_now_is_forgotten(ledger):
    store(ledger, change(1, "001A", risk_score="71", risk_band="red"),
          change(2, "001B", risk_score="5"), change(3, "001A", object="opportunity",
                                                    risk_score="71"))  # fmt: skip
    send(ledger, "p1", Ended(1, "written"), Ended(3, "written"))
    send(ledger, "p1", Ended(2, "rejected", "NO"))
    edited = {"risk_score": "50", "risk_band": "green"}
    ledger.saw_records("salesforce", [SeenRecord("account", "001A", edited)], LATER)
    assert len(ledger.drift()) == 2

    ledger.set_places("hubspot", {"account.risk_score": "b"}, moved=[("account", "risk_score")])
    assert confirmed(ledger)[("account", "001A")] == '{"risk_score":"71","risk_band":"red"}'
    ledger.set_places("salesforce", {"account.risk_score": "B__c"},
                      moved=[("account", "risk_score")])  # fmt: skip
    assert ledger.places("salesforce") == {"account.risk_score": "B__c"}
    assert confirmed(ledger) == {
        ("account", "001A"): '{"risk_band":"red"}',
        ("opportunity", "001A"): '{"risk_score":"71"}',
    }
    assert not any(ledger.rejections().values())
    assert [drift.field for drift in ledger.drift()] == ["risk_band"]


def settings_with(**fields):
    return CrmSettings.model_validate({"salesforce": {"source": "crm", "fields": fields}})


def test_a_field_that_crm_yaml_renames_is_written_anew_and_all_others_are_not(ledger):
    org = {"salesforce": "00D1"}
    keep_places(ledger, settings_with(), org)
    store(ledger, change(1, "001A", risk_score="71", risk_band="red", upsell_score="9"))
    send(ledger, "p1", Ended(1, "written"))
    known = confirmed(ledger)
    keep_places(ledger, settings_with(), org)
    assert confirmed(ledger) == known
    renamed = settings_with(account={"risk_score": "Churn__c", "risk_band": "Churn_Band__c"})
    keep_places(ledger, renamed, org)
    assert confirmed(ledger) == {("account", "001A"): '{"upsell_score":"9"}'}
    assert ledger.places("salesforce")["account.risk_score"] == "Churn__c"


def test_a_field_that_was_out_of_use_for_a_while_is_where_it_was(ledger):
    org = {"salesforce": "00D1"}
    keep_places(ledger, settings_with(), org)
    store(ledger, change(1, "001A", risk_score="71"))
    send(ledger, "p1", Ended(1, "written"))
    for name in (None, "HL_Risk_Score__c"):
        keep_places(ledger, settings_with(account={"risk_score": name}), org)
    assert confirmed(ledger) == {("account", "001A"): '{"risk_score":"71"}'}


def test_another_organisation_is_refused_and_nothing_is_forgotten(ledger):
    keep_places(ledger, settings_with(), {"salesforce": "00D1"})
    store(ledger, change(1, "001A", risk_score="71"))
    send(ledger, "p1", Ended(1, "written"))
    before = (ledger.places("salesforce"), confirmed(ledger))
    renamed = settings_with(account={"risk_score": "Churn__c"})
    with pytest.raises(HeldError, match="account '00D2' now, and the ledger is that of '00D1'"):
        keep_places(ledger, renamed, {"salesforce": "00D2"})
    assert (ledger.places("salesforce"), confirmed(ledger)) == before
    keep_places(ledger, settings_with(), {"salesforce": "00D1"})


# People in the CRM


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ({"status": "completed"}, "completed"),
        ({"status": "deleted"}, "deleted"),
        ({"subject": "Call Grace instead"}, "open"),
        ({"owner_id": "grace"}, "open"),
        ({"due_on": dt.date(2026, 7, 9)}, "open"),
    ],
)
def test_f68_what_a_human_did_with_a_task_stays(ledger, act, status):
    task = with_open_task(ledger)
    ledger.saw_tasks("salesforce", [seen(task, **act)], LATER)
    found = only_task(ledger)
    assert (found.status, found.touched) == (status, True)
    assert (found.subject, found.owner_id, found.due_on) == (
        act.get("subject", task.subject),
        act.get("owner_id", task.owner_id),
        act.get("due_on", task.due_on),
    )
    ledger.saw_tasks("salesforce", [seen(task, status=act.get("status", "open"))], LATER)
    assert only_task(ledger).touched, "it was in somebody's hands once"


def test_a_task_that_is_as_we_wrote_it_is_nobodys_yet(ledger):
    task = with_open_task(ledger)
    ledger.saw_tasks("salesforce", [seen(task, subject=f" {task.subject}  ")], LATER)
    assert (only_task(ledger).status, only_task(ledger).touched) == ("open", False)


def test_the_owner_that_the_crm_chose_for_a_task_without_one_is_no_humans_act(ledger):
    intent = opening(1, "k1", "001A", owner_id=None)
    store(ledger, intent)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "written", crm_id="T-k1"))
    ledger.saw_tasks("salesforce", [seen(intent.task, owner_id="integration")], LATER)
    assert (only_task(ledger).owner_id, only_task(ledger).touched) == ("integration", False)


def test_a_task_that_we_closed_is_open_again_only_if_it_changed_since(ledger):
    task = with_open_task(ledger)
    store(ledger, closing(1, "k1", "001A"), plan_id="p2", at=LATER)
    ledger.saw_tasks("salesforce", [seen(task)], LATER)
    send(ledger, "p2", Ended(1, "written"))
    assert (only_task(ledger).status, only_task(ledger).touched) == ("closed", False)
    ledger.saw_tasks("salesforce", [seen(task)], LATER)  # an index that lags behind
    assert only_task(ledger).status == "closed"
    ledger.saw_tasks("salesforce", [seen(task, status="completed", modified_at=LATER)], LATER)
    assert (only_task(ledger).status, only_task(ledger).touched) == ("closed", False)
    ledger.saw_tasks("salesforce", [seen(task, modified_at=LATER + HOUR)], LATER)
    assert (only_task(ledger).status, only_task(ledger).touched) == ("open", True)


def test_an_older_version_of_a_task_changes_nothing(ledger):
    task = with_open_task(ledger)
    ledger.saw_tasks("salesforce", [seen(task, status="completed", modified_at=LATER)], LATER)
    ledger.saw_tasks("salesforce", [seen(task, subject="Old", modified_at=NOW)], LATER)
    assert (only_task(ledger).status, only_task(ledger).subject) == ("completed", task.subject)


def test_an_open_task_that_the_crm_has_no_more_was_deleted(ledger):
    with_open_task(ledger)
    store(ledger, opening(1, "k2", "001B"), plan_id="p2", at=LATER)
    ledger.begin_plan("p2", LATER)
    ledger.saw_tasks("salesforce", [], LATER, missing=["k1", "k2"])
    assert {t.key: (t.status, t.touched) for t in ledger.tasks()} == {
        "k1": ("deleted", False),  # or we may not see it
        "k2": ("planned", False),  # it was never there
    }


def test_an_open_task_that_was_hidden_for_a_while_is_open_and_untouched(ledger):
    with_open_task(ledger)
    ledger.saw_tasks("salesforce", [], LATER, missing=["k1"])
    ledger.saw_tasks("salesforce", [seen(new_task("k1", "001A"))], LATER)
    assert [(t.status, t.touched) for t in ledger.tasks()] == [("open", False)]


def test_f81_adopted_tasks_count_in_the_weeks_of_those_who_own_them(ledger):
    ids = {"k1": "u1", "k2": "u2", "k3": None}
    ledger.saw_tasks(
        "hubspot",
        [
            replace(seen(new_task(key, "001A")), episode="late/2026-05-01/A", owner_id=owner_id)
            for key, owner_id in ids.items()
        ],
        NOW,
    )
    ledger.name_owners("salesforce", {"u1": "Grace Hopper"})
    assert ledger.nameless_owners("hubspot") == {"u1", "u2"}
    ledger.name_owners("hubspot", {"u1": "Ada Lovelace"})
    assert {task.key: task.owner for task in ledger.tasks()} == {
        "k1": "Ada Lovelace", "k2": "(somebody else)", "k3": None,
    }  # fmt: skip
    assert ledger.nameless_owners("hubspot") == set()


def test_f62_a_task_that_was_handed_on_has_the_name_of_its_new_owner_until_it_comes_back(ledger):
    intent = opening(1, "k1", "001A", owner_id="u1")
    store(ledger, intent)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "written", crm_id="T1"))
    named, first = [], only_task(ledger).owner
    for owner_id in ("u1", "u2", "u3", "u1"):
        ledger.saw_tasks("salesforce", [seen(intent.task, owner_id=owner_id)], LATER)
        ledger.name_owners("salesforce", {"u1": "Ada Lovelace", "u2": "Grace Hopper"})
        named.append(only_task(ledger).owner_now)
        assert only_task(ledger).owner == first
    assert named == [None, "Grace Hopper", "(somebody else)", None]


def test_f81_a_lost_ledger_adopts_its_tasks_and_episodes_from_the_crm(ledger):
    def found(key, episode, status):
        return replace(seen(new_task(key, "001A"), status=status), episode=episode)

    ledger.saw_tasks(
        "hubspot",
        [
            found("k1", "champion-left/2026-03-01/A/1", "completed"),
            found("k2", "champion-left/2026-06-01/A/1", "open"),
            found("k3", "late/2026-05-01/A/1", "completed"),
            found("k4", "nonsense", "open"),
            found("k5", "late/not-a-day/A/1", "open"),
        ],
        NOW,
    )
    assert {(t.key, t.account_id, t.status, t.touched, t.task_id) for t in ledger.tasks()} == {
        ("k1", "A/1", "completed", True, "T-k1"),
        ("k2", "A/1", "open", False, "T-k2"),
        ("k3", "A/1", "completed", True, "T-k3"),
    }
    states = {(e.playbook, e.opened_on.month): (e.state, e.closed_on) for e in ledger.episodes()}
    assert states == {
        ("champion-left", 3): ("closed", dt.date(2026, 6, 1)),
        ("champion-left", 6): ("open", None),
        ("late", 5): ("open", None),
    }


def test_f69_an_edited_field_is_told_once_for_each_value(ledger):
    store(ledger, change(1, "001A", risk_score="71", risk_band="red"))
    send(ledger, "p1", Ended(1, "written"))

    def look(score):
        values = {"risk_score": score, "risk_band": "red", "upsell_score": "3"}
        news = ledger.saw_records("salesforce", [SeenRecord("account", "001A", values)], LATER)
        return [(drift.field, drift.ours, drift.theirs) for drift in news]

    assert look("71") == []
    assert look("50") == [("risk_score", "71", "50")]
    assert look("50") == []
    assert look(None) == [("risk_score", "71", None)]
    assert [drift.theirs for drift in ledger.drift()] == [None]
    assert confirmed(ledger)[("account", "001A")] == '{"risk_score":"71","risk_band":"red"}'
    assert look("71") == []
    assert ledger.drift() == []


def test_f69_a_drift_is_over_when_our_own_value_changes(ledger):
    store(ledger, change(1, "001A", risk_score="71"))
    send(ledger, "p1", Ended(1, "written"))
    edited = SeenRecord("account", "001A", {"risk_score": "50"})
    assert len(ledger.saw_records("salesforce", [edited], LATER)) == 1
    store(ledger, change(1, "001A", risk_score="80"), plan_id="p2", at=LATER)
    send(ledger, "p2", Ended(1, "written"))
    assert ledger.drift() == []


def test_f65_a_deleted_record_has_a_tombstone_until_it_is_restored(ledger):
    store(ledger, opening(1, "k1", "001A"))
    ledger.begin_plan("p1", NOW)
    ledger.saw_records("salesforce", [SeenRecord("account", "001A", {}, gone=True)], LATER)
    assert ledger.tombstones() == {("salesforce", "001A"): None}
    assert only_task(ledger).status == "closed"
    assert ledger.carried() == []
    ledger.saw_records("salesforce", [SeenRecord("account", "001A", {})], LATER)
    assert ledger.tombstones() == {}


def test_f66_f67_a_merged_record_leaves_its_tasks_to_its_successor_and_its_values_to_nobody(ledger):
    store(ledger, change(1, "001A", risk_score="71"), opening(2, "k1", "001A"))
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "written"))
    send(ledger, "p1", Ended(2, "written", crm_id="T-k1"))
    merged = SeenRecord("account", "001A", {}, gone=True, successor="001B")
    ledger.saw_records("salesforce", [merged], LATER)
    assert ledger.tombstones() == {("salesforce", "001A"): "001B"}
    assert only_task(ledger).status == "open"
    assert confirmed(ledger) == {}
    survivor = SeenRecord("account", "001B", {"risk_score": "30"})
    ledger.set_confirmed([survivor], "salesforce", LATER)
    assert confirmed(ledger) == {("account", "001B"): '{"risk_score":"30"}'}


def test_f66_a_task_that_waited_for_a_merged_record_is_still_carried(ledger):
    unsent = opening(1, "k1", "001A")
    store(ledger, unsent)
    ledger.begin_plan("p1", NOW)
    send(ledger, "p1", Ended(1, "deferred", "no budget"))
    merged = SeenRecord("account", "001A", {}, gone=True, successor="001B")
    ledger.saw_records("salesforce", [merged], LATER)
    assert only_task(ledger).status == "planned"
    assert [intent.task for intent in ledger.carried()] == [unsent.task]


def test_watermarks_are_kept_by_crm_and_thing(ledger):
    ledger.set_watermark("salesforce", "task", NOW)
    ledger.set_watermark("salesforce", "task", LATER)
    assert ledger.watermark("salesforce", "task") == LATER
    assert ledger.watermark("hubspot", "task") is None


# The lease


def test_f74_only_one_run_holds_the_lease(ledger, ledger_url):
    clock = Clock()
    with ledger.lease(holder="daily", now=clock, seconds=60), Ledger(ledger_url) as other:
        second = other.lease(holder="by hand", now=clock, seconds=60)
        with pytest.raises(LeaseHeld, match=r"\(daily\) has been writing since 2026-06-30 06:00"):
            second.__enter__()
    with ledger.lease(holder="by hand", now=clock, seconds=60) as lease:
        lease.check()


def test_f75_the_lease_of_a_dead_run_is_taken_over_and_lost_to_it(ledger):
    clock = Clock()
    with ledger.lease(holder="dead", now=clock, seconds=60) as dead:
        clock.sleep(60)
        with pytest.raises(LeaseLost):
            dead.check()
        with ledger.lease(holder="next", now=clock, seconds=60) as alive:
            alive.check()
            for call in (dead.check, dead.renew, dead.keep):
                with pytest.raises(LeaseLost):
                    call()
            dead.give_up()
            alive.check()


def test_a_lease_is_renewed_when_half_of_it_is_over(ledger):
    clock = Clock()
    with ledger.lease(holder="daily", now=clock, seconds=60) as lease:
        lease.keep()
        assert lease.ends_at == NOW + dt.timedelta(seconds=60)
        for _ in range(10):
            clock.sleep(30)
            lease.keep()
        assert lease.ends_at == clock() + dt.timedelta(seconds=60)


def _race(url, start, won, lost):
    with Ledger(url) as ledger:
        start.wait()
        try:
            with ledger.lease(holder="racer", now=lambda: NOW, seconds=60):
                won.put(1)
                lost.get(timeout=30)  # hold it until the other has tried
        except LeaseHeld:
            lost.put(1)


def test_f74_of_two_processes_that_come_at_once_one_gets_the_lease(ledger_url):
    context = multiprocessing.get_context("spawn")
    start, won, lost = context.Barrier(2), context.Queue(), context.Queue()
    racers = [context.Process(target=_race, args=(ledger_url, start, won, lost)) for _ in "ab"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    assert won.get(timeout=5) == 1
    assert won.empty()
    assert lost.empty()


def test_f74_of_many_threads_one_gets_the_lease_of_a_dead_run(ledger_url):
    count, start, outcomes = 6, threading.Barrier(6), []
    done = threading.Barrier(count)
    with Ledger(ledger_url) as ledger:
        ledger.lease(holder="dead", now=lambda: NOW, seconds=60).__enter__()

    def race():
        with Ledger(ledger_url) as ledger:
            start.wait()
            try:
                with ledger.lease(holder="racer", now=lambda: LATER, seconds=60):
                    outcomes.append("won")
                    done.wait(60)
            except LeaseHeld:
                outcomes.append("held")
                done.wait(60)

    threads = [threading.Thread(target=race) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["held"] * (count - 1) + ["won"]


# The database


def test_sqlite_has_every_commit_on_the_disk(tmp_path):
    with Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger, ledger._read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 15_000}


@pytest.mark.parametrize(("version", "says"), [(0, "of version 0"), (99, "newer Healthloop")])
def test_f80_a_ledger_of_another_version_is_refused(ledger_url, version, says):
    with Ledger(ledger_url) as ledger, ledger._write() as connection:
        connection.execute(sa.update(ledger_tables.versions).values(version=version))
    with pytest.raises(LedgerError, match=says):
        Ledger(ledger_url)


def test_f77_a_full_disk_keeps_what_was_there_and_says_so(tmp_path):
    with Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        store(ledger, plan_id="p1")
        with ledger._read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

        def full(connection, record, proxy):
            connection.execute(f"PRAGMA max_page_count={pages}")

        sa.event.listen(ledger._engine, "checkout", full)
        long = [change(n, f"{n:0200}", risk_score="1") for n in range(1, 200)]
        with pytest.raises(LedgerError, match=r"^no space left for the ledger ledger\.sqlite; "):
            store(ledger, *long, plan_id="p2", at=LATER)
        assert [(plan.plan_id, plan.status) for plan in ledger.plans()] == [("p1", "open")]


def test_a_damaged_ledger_says_so_in_a_line(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite is damaged; .* rebuilt from the CRM"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_a_locked_ledger_says_so_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_tables, "BUSY_SECONDS", 0)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        other = sqlite3.connect(tmp_path / "ledger.sqlite")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked by another process"):
            store(ledger)
        other.rollback()
        other.close()
        store(ledger)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:canary@127.0.0.1:1/ledger",
        "mysql://ada:canary@localhost/ledger",
        "oracle+canary://ada:canary@localhost/ledger",
        "canary",
    ],
)
def test_f93_an_error_of_the_ledger_tells_no_secret(url):
    with pytest.raises(LedgerError) as error:
        Ledger(url)
    assert "canary" not in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1


def test_f93_an_error_of_the_ledger_tells_no_value(ledger):
    store(ledger, plan_id="p1")
    canary = replace(change(1, "001A", risk_reasons="canary"), why="canary")
    with pytest.raises(LedgerError) as error:
        store(
            ledger,
            canary,
            replace(canary, changes=FieldChanges.of([FieldChange("x", None, "canary")])),
        )
    assert "canary" not in repr(error.value)
    assert error.value.__cause__ is None


def test_a_moment_without_a_zone_is_refused(ledger):
    with pytest.raises((ValueError, sa.exc.StatementError), match="time zone"):
        ledger.set_watermark("salesforce", "task", NOW.replace(tzinfo=None))
