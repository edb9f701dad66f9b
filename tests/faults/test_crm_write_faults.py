"""Faults of write-back (FAULTS.md E: F52 to F64), each on both CRMs where it applies.

Through the real engine, a ledger in SQLite and the real clients. What bears on a call as a whole
(F1 to F17, F50, F51) is in `test_crm_write_transport`, bulk jobs (F60, F61) in
`test_crm_write_jobs`, what people do meanwhile (F65 to F71) in `test_crm_write_people`; here it is
about single records.
"""

import shutil
from dataclasses import replace

import orjson
import pytest

from connectors.crm.ledger import Ledger
from connectors.crm.plans import Plan
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors.salesforce_settings import settings as org_settings
from contracts.crm_fields import FIELDS
from tests.faults.crm_writes import (
    PERSONAL,
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
