"""What people do while we write (FAULTS.md E: F65 to F71), each on both CRMs where it applies.

They delete and merge accounts, take up tasks, edit our fields, leave the company, hold a plan: what
they did stays done, and nothing is lost or doubled by it.
"""

import datetime as dt
from dataclasses import replace

import pytest

from connectors.crm.ledger import Ledger
from connectors.crm.observing import look_later
from connectors.sandbox.vendors.salesforce_setup import SUPPORT_QUEUE
from contracts.errors import HeldError
from tests.faults.crm_writes import (
    Wish,
    assert_alike,
    check,
    check_converged,
    check_quiet,
    open_crm,
)

SIZE = (6, 2, 4, 2)


@pytest.fixture
def wish(crm):
    crm.batch_size = 100
    return crm.start(*SIZE)


@pytest.fixture
def wanted(crm, fault_free_crm):
    return fault_free_crm.shown(crm.name, *SIZE)


@pytest.fixture
def salesforce(world, tmp_path, impatient):
    with open_crm("salesforce", world, tmp_path / "salesforce") as crm:
        crm.batch_size = 100
        yield crm


# Records that are gone


def test_f65_a_deleted_account_is_buried_and_nothing_is_made_for_it(crm, wish, wanted):
    gone = wish.ids()[0]
    tasks = [task.key for task in wish.tasks if task.account_id == f"A-{gone}"]
    assert tasks
    crm.delete(gone)
    before = crm.account_ids()
    run = crm.run(wish)
    assert run.of(gone).state == "skipped"
    assert run.of(gone).reason == "deleted in the CRM"
    assert {run.of(key).state for key in tasks} == {"skipped"}
    assert set(run.states()) == {"written", "skipped"}
    assert run.applied.failed is None
    assert crm.account_ids() == before
    check(crm, wish)
    fields, made = crm.shown()
    assert fields == {k: v for k, v in wanted[0].items() if k in fields}
    assert ("account", gone) not in fields
    assert not set(tasks) & set(made)
    with Ledger(crm.url) as ledger:
        assert ledger.tombstones() == {(crm.name, gone): None}
    check_quiet(crm, wish, observes=True)


def test_f65_an_account_that_only_a_task_is_for_is_found_to_be_deleted(crm):
    crm.batch_size = 100
    wish = crm.start(0, 0, 3, 0)
    gone = next(task for task in wish.tasks).account_id
    crm.delete(wish.accounts[gone])
    run = crm.run(wish)
    assert run.of(wish.keys[0]).state == "skipped"
    assert run.states() == {"skipped": 1, "written": 2}
    check(crm, wish)
    check_quiet(crm, wish)


@pytest.mark.parametrize("seen", ["while writing", "before"])
def test_f66_f67_a_merged_account_lives_on_under_its_heir_and_tasks_stay_single(
    seen, crm, wish, wanted
):
    loser, winner = wish.ids()[0], wish.ids()[1]
    tasks = [task.key for task in wish.tasks if task.account_id == f"A-{loser}"]
    heir = crm.merge(loser, winner)
    observes = seen == "before"
    run = crm.run(wish, observes=observes)
    assert run.applied.failed is None
    assert set(run.states()) <= {"written", "skipped"}
    with Ledger(crm.url) as ledger:
        assert ledger.tombstones()[crm.name, loser] == heir
    assert not set(tasks) & set(crm.shown()[1]), "a task for an account that is no more"
    check(crm, wish, more_records=[heir])
    second = crm.run(wish, observes=observes)  # the heir is written, whole
    assert set(second.states()) <= {"written"}
    fields, made = crm.shown()
    assert ("account", heir) in fields
    assert ("account", loser) not in fields
    check(crm, wish, more_records=[heir])
    assert set(made) == set(wanted[1]) - set(tasks) - (
        {t.key for t in wish.tasks if heir != winner and t.account_id == f"A-{winner}"}
    )
    check_quiet(crm, wish, observes=observes)


def test_f66_f67_tasks_of_a_merged_account_are_not_made_again(crm, wish):
    assert crm.run(wish).states() == {"written": 14}
    before = crm.task_keys()
    heir = crm.merge(wish.ids()[0], wish.ids()[1])
    run = crm.run(wish, observes=True)
    assert run.states("open_task") == {}
    assert crm.task_keys() == before
    check(crm, wish, more_records=[heir])
    crm.run(wish, observes=True)
    check_quiet(crm, wish, observes=True)


# People

TOUCHES = ("completed", "deleted", "renamed", "reassigned", "postponed")


@pytest.mark.parametrize("observes", [True, False], ids=["seen before", "seen at the last moment"])
@pytest.mark.parametrize("how", TOUCHES)
def test_f68_a_task_that_somebody_has_taken_up_is_left_as_it_is(how, observes, crm, wish, wanted):
    key = wish.closed[0]
    crm.sleep(60)
    crm.change_task(key, how)
    left = crm.shown()[1][key]
    run = crm.run(wish, observes=observes)
    closings = {i.closing.key: i for i in run.intents if i.closing}
    if key in closings:  # else it was not even planned
        assert closings[key].state == "skipped"
    else:
        assert observes
    check(crm, wish)
    fields, tasks = crm.shown()
    assert tasks[key] == left
    assert_alike((fields, tasks), (wanted[0], {**wanted[1], key: left}))
    check_quiet(crm, wish, observes=True)
    assert crm.shown()[1][key] == left


@pytest.mark.parametrize("how", TOUCHES)
def test_f68_a_task_that_is_still_wanted_is_not_made_again(how, crm, wish):
    crm.run(wish)
    key = wish.keys[0]
    crm.sleep(60)
    crm.change_task(key, how)
    left = crm.shown()[1]
    for observes in (False, True):
        check_quiet(crm, wish, observes=observes)
    assert crm.shown()[1] == left
    check(crm, wish)
    with Ledger(crm.url) as ledger:
        crm.sleep(3600)  # the index of what changed lags behind
        crm.observe(ledger)
        (task,) = (task for task in ledger.tasks() if task.key == key)
    assert task.touched
    assert task.status == {"completed": "completed", "deleted": "deleted"}.get(how, "open")


def test_f69_a_field_that_somebody_edited_is_told_and_written_when_our_value_changes(crm, wish):
    crm.run(wish)
    id = wish.ids()[0]
    theirs = 5.0 if crm.name == "salesforce" else "5"
    crm.sleep(60)
    crm.edit("account", id, "risk_score", theirs)
    crm.sleep(3600)
    with Ledger(crm.url) as ledger:
        (drift,) = crm.observe(ledger).drift
        assert (drift.record_id, drift.field, drift.ours, drift.theirs) == (
            id, "risk_score", "70", "5",
        )  # fmt: skip
        assert crm.observe(ledger).drift == (), "told once"
    check_quiet(crm, wish, observes=True)
    assert crm.shown()[0]["account", id]["risk_score"] == theirs

    other = {**wish.fields["account", id], "risk_score": "44"}
    changed = Wish({**wish.fields, ("account", id): other}, wish.tasks, wish.closed, wish.accounts)
    run = crm.run(changed, observes=True)
    (intent,) = run.intents
    assert [change.field for change in intent.changes] == ["risk_score"]
    assert crm.shown()[0]["account", id]["risk_score"] in (44.0, "44")
    with Ledger(crm.url) as ledger:
        assert ledger.drift() == []


@pytest.mark.parametrize("ahead", [-2, 2], ids=["behind", "ahead"])
def test_f24_f69_what_people_did_is_seen_though_our_clock_is_minutes_off(ahead, crm, wish):
    wish = replace(wish, tasks=(), closed=())
    skew = dt.timedelta(minutes=ahead)
    crm.now = lambda: crm.box.now + skew
    crm.run(wish, observes=True)
    edited, deleted = wish.ids()[:2]
    with Ledger(crm.url) as ledger:
        crm.observe(ledger)
        crm.sleep(60)  # which our clock, where it is ahead, takes for a moment before that look
        crm.edit("account", edited, "risk_score", 5.0 if crm.name == "salesforce" else "5")
        crm.delete(deleted)
        crm.sleep(3600)
        drift = [d for d in crm.observe(ledger).drift if d.record_id == edited]
        assert [(d.field, d.ours, d.theirs) for d in drift] == [("risk_score", "70", "5")]
        if crm.name == "salesforce":  # HubSpot tells of no deletion
            assert ledger.tombstones()[crm.name, deleted] is None


def test_f69_what_people_edit_while_we_write_is_told(crm, wish):
    id = wish.ids()[0]
    crm.run(wish, observes=True)
    crm.edit("account", id, "risk_score", 5.0 if crm.name == "salesforce" else "5")
    crm.sleep(1800)  # so long it takes
    with Ledger(crm.url) as ledger:
        look_later(ledger, [crm.name], written=len(wish.fields), now=crm.now())
        crm.sleep(3600)
        drift = crm.observe(ledger).drift
    assert [(d.record_id, d.field, d.theirs) for d in drift] == [(id, "risk_score", "5")]


# Owners


def test_f70_a_task_whose_owner_has_left_goes_to_the_fallback_once(crm, wish):
    people = crm.people()
    crm.deactivate(people[0].id)
    calls = crm.counted("open")
    with Ledger(crm.url) as ledger:
        plan_id = planned_before(crm, ledger, wish, people)
        run = crm.apply(ledger, plan_id, crm.writer(), fallback_owner={crm.name: people[3].id})
        known = {task.key: task.owner_id for task in ledger.tasks()}
    assert calls.seen == 2
    assert {i.attempts for i in run.intents if i.task} == {2}
    assert run.states() == {"written": len(run.intents)}
    tasks = crm.shown()[1]
    assert {tasks[key]["owner"] for key in wish.keys} == {people[3].id}
    assert {known[key] for key in wish.keys} == {people[3].id}
    check(crm, wish)
    check_quiet(crm, wish, observes=True)
    with Ledger(crm.url) as ledger:
        assert not any(task.touched for task in ledger.tasks() if task.key in wish.keys)


def test_f70_where_the_fallback_has_left_too_the_task_is_refused_after_two_calls(crm, wish):
    people = crm.people()
    for one in (people[0], people[3]):
        crm.deactivate(one.id)
    calls = crm.counted("open")
    with Ledger(crm.url) as ledger:
        plan_id = planned_before(crm, ledger, wish, people)
        run = crm.apply(ledger, plan_id, crm.writer(), fallback_owner={crm.name: people[3].id})
    assert calls.seen == 2
    assert run.states("open_task") == {"rejected": 4}
    assert all("OWNER" in i.reason for i in run.intents if i.task)
    assert run.applied.failed is None
    check(crm, wish)
    check_quiet(crm, wish)


def test_f70_a_queue_that_takes_no_tasks_gives_them_to_the_fallback(salesforce):
    wish = salesforce.start(*SIZE)
    people = salesforce.people()
    with Ledger(salesforce.url) as ledger:
        first = [replace(people[0], id=SUPPORT_QUEUE), *people[1:]]
        plan_id = planned_before(salesforce, ledger, wish, first)
        run = salesforce.apply(
            ledger, plan_id, salesforce.writer(), fallback_owner={"salesforce": people[3].id}
        )
    assert run.states() == {"written": len(run.intents)}
    tasks = salesforce.shown()[1]
    assert {tasks[key]["owner"] for key in wish.keys} == {people[3].id}
    check(salesforce, wish)


def planned_before(crm, ledger, wish, people):
    """A plan that was made when people were these."""
    crm.people = lambda: people
    plan_id = crm.plan(ledger, wish)
    del crm.people
    return plan_id


# Held, dropped, stopped


@pytest.mark.parametrize("status", ["held", "dropped"])
def test_f71_a_plan_that_may_not_be_applied_asks_the_crm_nothing(status, crm, wish):
    with Ledger(crm.url) as ledger:
        plan_id = crm.plan(ledger, wish)
        ledger.judge(plan_id, status, by="Ada", at=crm.now(), reasons=["too much"])
        with pytest.raises(HeldError, match=status):
            crm.apply(ledger, plan_id, crm.writer())
        assert {i.state for i in ledger.intents(plan_id)} == {"planned"}
        assert not any(task.key in wish.keys for task in ledger.tasks())
    assert crm.box.log == []


def test_f71_a_dry_run_writes_nothing_at_the_crm(crm, wish):
    with Ledger(crm.url) as ledger:
        crm.observe(ledger)
        plan_id = crm.plan(ledger, wish)
        assert len(ledger.intents(plan_id)) == 14
        assert not any(task.key in wish.keys for task in ledger.tasks())
    assert crm.box.log
    assert crm.sent() == 0


def test_f71_a_run_that_is_asked_to_stop_writes_nothing_more(crm, wish, wanted):
    run = crm.run(wish, stop=lambda: True)
    assert crm.sent() == 0
    assert run.states() == {"deferred": len(run.intents)}
    check(crm, wish)
    calls = iter([False] * 2 + [True] * 100)
    run = crm.run(wish, stop=lambda: next(calls))
    assert crm.sent() == 2
    assert set(run.states()) == {"written", "deferred"}
    check(crm, wish)
    check_converged(crm, wish, wanted)
