"""Faults of write-back (FAULTS.md E: F52 to F71), each on both CRMs where it applies.

Through the real engine, a ledger in SQLite and the real clients. What bears on a call as a whole
(F1 to F17, F50, F51) is in `test_crm_write_transport`, bulk jobs (F60, F61) in
`test_crm_write_jobs`; here it is about single records, and about what people do meanwhile.
"""

import shutil
from dataclasses import replace

import orjson
import pytest

from connectors.crm.ledger import Ledger
from connectors.crm.plans import Plan
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors.salesforce_settings import settings as org_settings
from connectors.sandbox.vendors.salesforce_setup import SUPPORT_QUEUE
from contracts.crm_fields import FIELDS
from contracts.errors import HeldError
from tests.faults.crm_writes import (
    PERSONAL,
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


@pytest.fixture
def hubspot(world, tmp_path, impatient):
    with open_crm("hubspot", world, tmp_path / "hubspot") as crm:
        crm.batch_size = 100
        yield crm


def accounts_of(crm):
    """What the CRM calls accounts."""
    return crm.tables["account"]


# Locks


def test_f52_of_locked_records_only_those_are_tried_again(crm, wish, wanted):
    locked = wish.ids()[1:4]
    crm.refuse(accounts_of(crm), crm.locked, locked, times=1)
    calls = crm.counted("accounts")
    run = crm.run(wish)
    assert calls.seen == 2
    assert {i.record_id for i in run.intents if i.attempts == 2} == set(locked)
    assert run.states() == {"written": len(run.intents)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


def test_f52_locked_tasks_are_tried_again_and_made_once(crm, wish, wanted):
    crm.refuse("tasks", crm.locked, wish.keys[:2], times=1)
    crm.refuse("tasks", crm.locked, [wish.closed[0], crm.task_id(wish.closed[0])], times=1)
    opened, closed = crm.counted("open"), crm.counted("close")
    run = crm.run(wish)
    assert (opened.seen, closed.seen) == (2, 2)
    assert sum(i.attempts == 2 for i in run.intents) == 3
    assert run.states() == {"written": len(run.intents)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)


def test_f53_records_that_stay_locked_wait_for_the_next_run(crm, wish, wanted):
    crm.refuse(accounts_of(crm), crm.locked, wish.ids())
    calls = crm.counted("accounts")
    began = crm.now()
    run = crm.run(wish)
    assert calls.seen == 4
    assert (crm.now() - began).total_seconds() >= 3600 + 2 + 8 + 30
    accounts = [i for i in run.intents if i.object == "account"]
    assert {i.state for i in accounts} == {"deferred"}
    assert {i.reason for i in accounts} == {"locked by others in the CRM"}
    assert run.states() == {"deferred": 6, "written": len(run.intents) - 6}
    check(crm, wish)
    crm.relent()
    check_converged(crm, wish, wanted)


@pytest.mark.parametrize(("rule", "wait"), [("lock", 2.0), ("migrate", 60.0)])
def test_f58_a_portal_that_is_locked_for_a_while_is_waited_for(
    rule, wait, hubspot, fault_free_crm, impatient
):
    wish = hubspot.start(*SIZE)
    portal.order(hubspot.box, rule, object="companies", ids=wish.ids()[:1])
    calls, before = hubspot.counted("accounts"), impatient.seconds
    run = hubspot.run(wish)
    assert calls.seen == 2
    assert impatient.seconds - before >= wait
    assert run.states() == {"written": len(run.intents)}
    check(hubspot, wish)
    assert_alike(hubspot.shown(), fault_free_crm.shown("hubspot", *SIZE))


def test_f58_a_portal_that_is_moved_for_hours_is_left_alone(hubspot, fault_free_crm):
    wish = hubspot.start(*SIZE)
    portal.order(hubspot.box, "migrate", object="companies", times=None, retry_after=7200)
    run = hubspot.run(wish)
    assert hubspot.sent() == 1
    assert run.states() == {"deferred": len(run.intents)}
    assert run.applied.failed is None
    check(hubspot, wish)
    hubspot.relent()
    check_converged(hubspot, wish, fault_free_crm.shown("hubspot", *SIZE))


# Refusals

REFUSALS = {
    "salesforce": (
        "FIELD_CUSTOM_VALIDATION_EXCEPTION", "REQUIRED_FIELD_MISSING",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "INVALID_FIELD_FOR_INSERT_UPDATE",
        "INSUFFICIENT_ACCESS_OR_READONLY", "DUPLICATES_DETECTED",
    ),
    "hubspot": ("INVALID_RECORD", "REQUIRED_FIELD", "INVALID_OPTION", "READ_ONLY_VALUE"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("crm", "code"),
    [(name, code) for name, codes in REFUSALS.items() for code in codes],
    indirect=["crm"],
)
def test_f54_a_record_that_is_refused_is_put_aside_with_its_code_and_the_others_land(
    code, crm, wish, wanted
):
    bad, task = wish.ids()[2], wish.keys[1]
    crm.refuse(accounts_of(crm), code, [bad])
    crm.refuse("tasks", code, [task])
    run = crm.run(wish)
    assert run.states() == {"rejected": 2, "written": len(run.intents) - 2}
    for refused in (run.of(bad), run.of(task)):
        assert refused.attempts == 1
        assert code in refused.reason
    check(crm, wish)
    fields, tasks = wanted
    assert_alike(
        crm.shown(),
        ({k: v for k, v in fields.items() if k[1] != bad},
         {k: v for k, v in tasks.items() if k != task}),
    )  # fmt: skip
    check_quiet(crm, wish)  # the same values are not offered again

    crm.relent()
    other = {**wish.fields["account", bad], "risk_score": "12"}
    changed = replace(wish, fields={**wish.fields, ("account", bad): other})
    assert crm.run(changed).states() == {"written": 1}
    assert str(crm.shown()[0]["account", bad]["risk_score"]).startswith("12")


def poisoned(crm, id):
    """Every call that a record is in is refused as a whole."""
    body = [{"errorCode": "INVALID_FIELD", "message": f"No such column Ada {PERSONAL}"}]
    if crm.name == "hubspot":
        detail = {"code": "PROPERTY_DOESNT_EXIST", "message": PERSONAL}
        body = {"category": "VALIDATION_ERROR", "message": PERSONAL, "errors": [detail]}
    return crm.spoil("accounts", "status", asks=f'"id": ?"{id}"', code=400, body=body, times=None)


def test_f55_a_call_that_is_refused_for_one_record_is_halved_until_it_is_alone(crm, wish, wanted):
    bad = wish.ids()[3]
    poisoned(crm, bad)
    calls = crm.counted("accounts")
    run = crm.run(wish)
    assert calls.seen <= 2 * 3 + 1  # six records halve three times
    assert run.states() == {"rejected": 1, "written": len(run.intents) - 1}
    assert run.of(bad).state == "rejected"
    check(crm, wish)
    fields, tasks = wanted
    assert_alike(crm.shown(), ({k: v for k, v in fields.items() if k[1] != bad}, tasks))
    crm.box.faults.clear()
    check_quiet(crm, wish)


def test_f55_a_field_that_the_crm_does_not_have_is_found_before_and_ends_the_run(crm, wish, wanted):
    right, name = crm.target, FIELDS["risk_score"].salesforce.replace("HL", "Nobodys")
    crm.target = right.model_copy(update={"fields": {"account": {"risk_score": name}}})
    found = crm.writer().ready(fields=True, tasks=False)
    assert crm.sent() == 0
    assert any(one.level == "problem" and name in one.seen for one in found)
    calls = crm.counted("accounts")
    run = crm.run(wish)
    assert calls.seen == 2 * 6 - 1
    assert "healthloop doctor" in run.applied.failed
    assert run.states() == {"deferred": len(run.intents)}
    assert crm.shown()[0] == {}
    crm.target = right  # somebody mended it: nothing is left behind
    check(crm, wish)
    check_converged(crm, wish, wanted)


# Answers that do not say what was done


@pytest.mark.parametrize("table", ["companies", "deals", "tasks"])
def test_f56_a_silent_success_that_changed_nothing_is_not_believed(table, hubspot, fault_free_crm):
    wish = hubspot.start(*SIZE)
    portal.order(hubspot.box, "ignore", object=table)
    run = hubspot.run(wish)
    assert run.states() == {"written": len(run.intents)}
    check(hubspot, wish)
    assert_alike(hubspot.shown(), fault_free_crm.shown("hubspot", *SIZE))


def test_f56_a_portal_that_never_does_what_it_says_is_asked_so_often(hubspot, fault_free_crm):
    wish = hubspot.start(*SIZE)
    for table in ("companies", "tasks"):
        portal.order(hubspot.box, "ignore", object=table, times=None)
    calls = [hubspot.counted(call) for call in ("accounts", "open", "close")]
    run = hubspot.run(wish)
    assert [call.seen for call in calls] == [3, 2, 2]
    assert run.states() == {"written": 2, "deferred": len(run.intents) - 2}
    check(hubspot, wish)
    hubspot.relent()
    check_converged(hubspot, wish, fault_free_crm.shown("hubspot", *SIZE))


def test_f56_what_only_seems_to_be_written_is_told_as_drift(hubspot):
    wish = hubspot.start(*SIZE)
    portal.order(hubspot.box, "ignore", object="companies", ids=wish.ids()[:1], echo=True)
    assert hubspot.run(wish).states() == {"written": 14}
    hubspot.sleep(3600)
    with Ledger(hubspot.url) as ledger:
        drift = hubspot.observe(ledger).drift
    assert {one.record_id for one in drift} == {wish.ids()[0]}
    assert {one.theirs for one in drift} == {None}


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("table", ["companies", "tasks"])
def test_f57_what_a_207_does_not_mention_is_looked_up(table, landed, hubspot, fault_free_crm):
    wish = hubspot.start(*SIZE)
    names = {"companies": wish.ids()[:2], "tasks": wish.keys[:2]}[table]
    portal.order(hubspot.box, "forget", object=table, ids=names, landed=landed)
    calls = hubspot.counted("accounts" if table == "companies" else "open")
    run = hubspot.run(wish)
    assert calls.seen == (1 if landed else 2)
    assert {i.attempts for name in names if (i := run.of(name))} == {1 if landed else 2}
    assert run.states() == {"written": len(run.intents)}
    check(hubspot, wish)
    assert_alike(hubspot.shown(), fault_free_crm.shown("hubspot", *SIZE))


@pytest.mark.parametrize("table", ["companies", "tasks"])
def test_f59_answers_in_another_order_and_fewer_than_sent(table, hubspot, fault_free_crm):
    wish = hubspot.start(*SIZE)
    names = {"companies": wish.ids()[:1], "tasks": wish.keys[:1]}[table]
    portal.order(hubspot.box, "shuffle", object=table, ids=names)
    calls = hubspot.counted("accounts" if table == "companies" else "open")
    run = hubspot.run(wish)
    assert calls.seen == 1
    assert run.states() == {"written": len(run.intents)}
    check(hubspot, wish)
    assert_alike(hubspot.shown(), fault_free_crm.shown("hubspot", *SIZE))
    if table == "tasks":
        with Ledger(hubspot.url) as ledger:
            known = {task.key: task.task_id for task in ledger.tasks()}
        assert known == {key: hubspot.task_id(key) for key in known}


# Where tasks are created the order is all there is to go by, and the vendor promises it.
@pytest.mark.parametrize(
    ("call", "told"),
    [("accounts", slice(0, -2)), ("accounts", slice(None, None, -1)), ("open", slice(0, -2))],
    ids=["fewer accounts", "accounts in another order", "fewer tasks"],
)
def test_f59_results_that_are_not_those_of_the_records_are_looked_up(
    call, told, salesforce, fault_free_crm
):
    wish = salesforce.start(*SIZE)
    rule = salesforce.spoil(
        call, "rewrite", rewrite=lambda body: orjson.dumps(orjson.loads(body)[told])
    )
    run = salesforce.run(wish)
    assert rule.seen == 1
    assert run.states() == {"written": len(run.intents)}
    check(salesforce, wish)
    assert_alike(salesforce.shown(), fault_free_crm.shown("salesforce", *SIZE))


# One task for each key


@pytest.fixture(params=["plain", "hidden"])
def keys_told(request, crm):
    """How a CRM says that a key exists: with the record's id or without, by 409 or by 400."""
    if crm.name == "hubspot":
        portal.settings(crm.box, conflict=409 if request.param == "plain" else 400)
    else:
        told = {"tells_id": request.param == "plain", "bin_blocks": False}
        org_settings(crm.box).put("keys", told, 0.0)


def test_f62_a_task_that_the_ledger_forgot_is_found_by_its_key_and_not_made_again(
    keys_told, crm, wish, wanted
):
    ledger, older = crm.folder / "ledger.sqlite", crm.folder / "older.sqlite"
    shutil.copy(ledger, older)
    crm.run(wish)
    ids = {key: crm.task_id(key) for key in wish.keys}
    shutil.copy(older, ledger)  # a backup was restored
    more = crm.start(*SIZE[:2], 6, 0)  # two new tasks in the same call
    run = crm.run(replace(wish, tasks=(*wish.tasks, *more.tasks[len(wish.tasks) + 2 :])))
    assert set(run.states("open_task")) == {"written"}
    assert {key: run.of(key).crm_id for key in wish.keys} == ids
    assert {key: crm.task_id(key) for key in wish.keys} == ids
    assert_alike((crm.shown()[0], {k: crm.shown()[1][k] for k in wanted[1]}), wanted)


def test_f63_a_duplicate_by_a_rule_of_the_org_is_no_key_that_exists(salesforce, fault_free_crm):
    wish = salesforce.start(*SIZE)
    salesforce.refuse("tasks", "DUPLICATES_DETECTED", wish.keys[:1])
    run = salesforce.run(wish)
    assert run.of(wish.keys[0]).state == "rejected"
    assert run.of(wish.keys[0]).crm_id is None
    assert wish.keys[0] not in salesforce.shown()[1]
    check(salesforce, wish)
    check_quiet(salesforce, wish)


def test_f64_the_same_task_twice_in_a_plan_is_made_once(crm, wish, wanted):
    with Ledger(crm.url) as ledger:
        plan_id = crm.plan(ledger, wish)
        plan, intents = ledger.plan(plan_id), ledger.intents(plan_id)
        again = [
            replace(intent, number=len(intents) + place)
            for place, intent in enumerate((i for i in intents if i.kind != "fields"), 1)
        ]
        counts = {**plan.totals, "tasks_to_open": 8, "tasks_to_close": 4}
        twice: Plan = replace(plan, plan_id="twice", totals=counts)
        ledger.store(twice, [*intents, *again])
        run = crm.apply(ledger, "twice", crm.writer())
    assert run.states() == {"written": len(intents), "skipped": len(again)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


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
