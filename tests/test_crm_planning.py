"""From decisions to a plan: owners, due days, order, text; and the gate that judges it."""

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.crm.gate import Measured, judge
from connectors.crm.people import People, due_day, end_of_work
from connectors.crm.planning import (
    CrmRecord,
    Surroundings,
    body_of,
    foreign_fields,
    make_plan,
    plan_as_json,
)
from connectors.crm.plans import FieldChange, FieldChanges, RecordChange
from connectors.crm.settings import Gate, Owners
from connectors.crm.writing import Owner
from contracts.actions import Decisions, TaskClosing, TaskDraft, TaskLeft, task_key

BERLIN = ZoneInfo("Europe/Berlin")
DAY = dt.date(2026, 6, 30)
NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
ADA = Owner("u1", "Ada Lovelace", time_zone="America/Los_Angeles", manager_id="u3")
BOB = Owner("u2", "Bob Miller", active=False)
EVE = Owner("u3", "Eve Stone")
TWIN = Owner("u4", "Kim Park")
OTHER_TWIN = Owner("u5", "kim  park")
QUEUE = Owner("q1", "CS Queue", is_queue=True)
ALL = (ADA, BOB, EVE, TWIN, OTHER_TWIN, QUEUE)


def people(**settings):
    return People(ALL, Owners(fallback="CS Queue", **settings), BERLIN)


def test_whoever_cannot_own_tasks_any_more_is_known_by_name():
    assert people().inactive == {"Bob Miller"}
    again = Owner("u9", "Bob Miller")
    assert People((BOB, again), Owners(), BERLIN).inactive == set()


def draft(account="A1", playbook="champion-left", **given):
    key = task_key(tenant="t", account_id=account, playbook=playbook, opened_on=DAY, task="1")
    body = {
        "key": key, "account_id": account, "playbook": playbook, "opened_on": DAY, "task": "1",
        "role": "csm", "owner": "Ada Lovelace", "subject": "Find the new champion",
        "reasons": ("A champion has left",), "steps": ("Call them", "Note who it is"),
        "due_in_days": 2, "priority": "high", "value_at_risk": 1000.0, "why": "risk is red",
    }  # fmt: skip
    return TaskDraft(**(body | given))


def around(**given):
    body = {
        "records": {"A1": CrmRecord("salesforce", "001A1", "Ada Lovelace", "Eve Stone")},
        "people": {"salesforce": people()},
    }
    return Surroundings(**(body | given))


def planned(decisions=None, changes=(), **given):
    return make_plan(
        as_of=DAY, lane="daily", made_at=NOW, now=NOW, changes=changes,
        decisions=decisions or Decisions(DAY), around=around(**given),
    )  # fmt: skip


def change(account, object="account", record=None, field="risk_score"):
    changes = FieldChanges.of([FieldChange(field, "1", "2")])
    return RecordChange("salesforce", object, record or f"001{account}", account, changes)


def test_a_task_goes_to_the_csm_or_the_sales_rep_of_its_account_by_name():
    assert people().assign("csm", person="ada lovelace", csm=None).owner_id == "u1"
    assert people().assign("sales", person="Eve Stone", csm="Ada Lovelace").owner_id == "u3"


def test_f70_an_unknown_inactive_or_ambiguous_owner_gives_the_task_to_the_fallback_queue():
    for name in (None, "Nobody Known", "Bob Miller", "Kim Park"):
        found = people().assign("csm", person=name, csm=name)
        assert (found.owner_id, found.fell_back) == ("q1", True), name


def test_crm_yaml_tells_two_people_of_one_name_apart():
    found = people(names={"Kim Park": "u5"}).assign("csm", person="Kim Park", csm=None)
    assert (found.owner_id, found.fell_back) == ("u5", False)


def test_a_manager_is_the_one_of_the_csm_or_else_the_one_in_crm_yaml():
    assert people().assign("csm_manager", person=None, csm="Ada Lovelace").owner_id == "u3"
    assert people().assign("csm_manager", person=None, csm="Eve Stone").owner_id == "q1"
    named = people(csm_manager="Ada Lovelace")
    assert named.assign("csm_manager", person=None, csm="Eve Stone").owner_id == "u1"


def test_a_queue_is_found_by_its_own_name_or_the_one_in_crm_yaml():
    assert people().assign("queue:CS Queue", person=None, csm=None).owner_id == "q1"
    mapped = people(queues={"success": "CS Queue"}).assign("queue:success", person=None, csm=None)
    assert (mapped.owner_id, mapped.fell_back) == ("q1", False)
    assert people().assign("queue:lost", person=None, csm=None).fell_back


def test_without_a_fallback_nobody_is_named_and_a_missing_one_is_known():
    nobody = People(ALL, Owners(), BERLIN)
    assert nobody.assign("csm", person=None, csm=None).owner_id is None
    assert not nobody.fallback_is_missing
    assert People(ALL, Owners(fallback="Gone Queue"), BERLIN).fallback_is_missing


def test_a_task_is_due_in_its_owners_time_zone():
    _, (intent,) = planned(Decisions(DAY, open=(draft(due_in_days=2),)))
    # It is still 30 June in Los Angeles; two days later the owner's work ends at midnight UTC.
    assert intent.task.due_on == dt.date(2026, 7, 2)
    assert intent.task.due_at == dt.datetime(2026, 7, 3, 0, tzinfo=dt.UTC)


@given(
    st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 12, 31), timezones=st.just(dt.UTC)),
    st.integers(0, 60),
)
def test_no_task_is_due_on_a_weekend_or_before_its_day(now, days):
    due = due_day(now, BERLIN, days)
    asked = now.astimezone(BERLIN).date() + dt.timedelta(days=days)
    assert due.weekday() < 5
    assert dt.timedelta(0) <= due - asked <= dt.timedelta(days=2)
    assert end_of_work(due, BERLIN).astimezone(BERLIN).time() == dt.time(17)


def test_fields_come_before_tasks_and_accounts_before_opportunities():
    decisions = Decisions(
        DAY, open=(draft(),), close=(TaskClosing("k" * 64, "00T1", "A1", "cleared"),)
    )
    plan, intents = planned(decisions, [change("A1", "opportunity", "006"), change("A1")])
    assert [(i.number, i.kind, i.object) for i in intents] == [
        (1, "fields", "account"), (2, "fields", "opportunity"), (3, "open_task", None),
        (4, "close_task", None),
    ]  # fmt: skip
    assert (plan.totals["records"], plan.totals["tasks_to_open"]) == (2, 1)
    assert [state.status for state in plan.tasks] == ["planned"]


def test_f65_no_task_is_opened_at_an_account_without_a_living_record():
    decisions = Decisions(DAY, open=(draft(), draft("A2")))
    plan, intents = planned(decisions, gone=frozenset({("salesforce", "001A1")}))
    assert (intents, plan.tasks, plan.totals["tasks_without_record"]) == ([], (), 2)


def test_a_task_that_an_earlier_plan_could_not_send_is_carried_over_unchanged():
    first, (unsent,) = planned(Decisions(DAY, open=(draft(),)))
    states = {state.key: state for state in first.tasks}
    _, (again,) = planned(carried=(replace(unsent, state="deferred"),), states=states)
    assert (again.task, again.state) == (unsent.task, "planned")


def test_a_task_whose_condition_cleared_before_it_was_sent_is_closed_in_the_ledger_alone():
    first, (unsent,) = planned(Decisions(DAY, open=(draft(),)))
    states = {state.key: state for state in first.tasks}
    closing = TaskClosing(unsent.task.key, None, "A1", "cleared")
    plan, intents = planned(Decisions(DAY, close=(closing,)), carried=(unsent,), states=states)
    assert intents == []
    assert [(state.key, state.status) for state in plan.tasks] == [(unsent.task.key, "closed")]


def test_f66_a_task_that_waited_goes_to_the_record_that_its_account_was_merged_into():
    _, (unsent,) = planned(Decisions(DAY, open=(draft(),)))
    carried = (replace(unsent, state="skipped"),)
    _, (again,) = planned(
        carried=carried,
        gone=frozenset({("salesforce", "001A1")}),
        records={"A1": CrmRecord("salesforce", "001HEIR", "Ada Lovelace")},
    )
    assert (again.record_id, again.task.record_id, again.state) == ("001HEIR", "001HEIR", "planned")
    assert replace(again.task, record_id="001A1") == unsent.task


@pytest.mark.parametrize(
    "records",
    [
        {},
        {"A1": CrmRecord("salesforce", "001A1")},
        {"A1": CrmRecord("hubspot", "77")},
    ],
    ids=["none", "one that is gone", "one in another CRM"],
)
def test_f65_a_task_that_waited_is_not_sent_where_its_account_has_no_record_any_more(records):
    _, (unsent,) = planned(Decisions(DAY, open=(draft(),)))
    _, intents = planned(
        carried=(unsent,), gone=frozenset({("salesforce", "001A1")}), records=records
    )
    assert intents == []


def test_f54_a_refused_task_whose_condition_cleared_is_closed_although_no_plan_carries_it():
    first, (refused,) = planned(Decisions(DAY, open=(draft(),)))
    key = refused.task.key
    plan, intents = planned(
        Decisions(DAY, close=(TaskClosing(key, None, "A1", "cleared"),)),
        states={state.key: state for state in first.tasks},
        refused=frozenset({key}),
    )
    assert intents == []
    assert [(state.key, state.status) for state in plan.tasks] == [(key, "closed")]


def test_f54_a_closing_that_the_crm_refused_not_long_ago_is_not_offered_again():
    keys = ["k" * 64, "l" * 64]
    closings = tuple(TaskClosing(key, f"00T{key[0]}", "A1", "cleared") for key in keys)
    _, (intent,) = planned(Decisions(DAY, close=closings), refused=frozenset(keys[:1]))
    assert intent.closing.key == keys[1]


def test_the_text_of_a_task_says_why_what_to_do_and_that_a_human_has_the_last_word():
    text = body_of(draft())
    assert "- A champion has left" in text
    assert "1. Call them\n2. Note who it is" in text
    assert "Healthloop leaves it as you leave it" in text


def test_a_plan_as_json_has_everything_that_would_be_written():
    decisions = Decisions(DAY, open=(draft(),), leave=(TaskLeft("x" * 64, "A1", "postponed"),))
    plan, intents = planned(decisions, [change("A1")])
    found = plan_as_json(plan, intents)
    assert found["plan"] == plan.plan_id
    assert found["fields"][0]["changes"] == [
        {"field": "risk_score", "old": "1", "new": "2", "why": ""}
    ]
    assert found["tasks_to_open"][0]["due"] == "2026-07-02"
    assert found["tasks_to_leave"] == [{"account": "A1", "key": "x" * 64, "why": "postponed"}]


def test_two_plans_of_one_day_have_two_names():
    one, _ = planned(changes=[change("A1")])
    other, _ = planned(changes=[change("A1", field="risk_band")])
    assert one.plan_id != other.plan_id
    assert one.plan_id.startswith("2026-06-30-")


def test_a_field_that_is_not_ours_is_named_for_the_gate():
    _, intents = planned(changes=[change("A1", field="Name"), change("A1")])
    assert foreign_fields(intents) == ("account.Name",)


QUIET = Measured(accounts=100, known=100, band_changes=0, newly_unknown=0, held=0, tasks=0)


@pytest.mark.parametrize(
    ("unusual", "says"),
    [
        ({"band_changes": 11}, "11 of 100 accounts (11 %) change their risk band; 10 % may"),
        ({"newly_unknown": 11}, "11 of 100 accounts (11 %) become unknown; 10 % may"),
        ({"held": 51}, "51 of 100 accounts (51 %) are held for want of data; 50 % may"),
        ({"tasks": 501}, "501 tasks would be opened; 500 may"),
        (
            {"foreign_fields": ("account.Name",)},
            "fields that are not ours would be written: account.Name",
        ),
    ],
)
def test_f38_the_gate_holds_what_is_unusual_and_says_why(unusual, says):
    assert judge(replace(QUIET, **unusual), Gate(), band_change_share=0.10) == (says,)


def test_the_gate_lets_go_what_is_just_within_its_limits():
    at_the_limit = replace(QUIET, band_changes=10, newly_unknown=10, held=50, tasks=500)
    assert judge(at_the_limit, Gate(), band_change_share=0.10) == ()


def test_one_account_alone_never_holds_a_plan():
    alone = Measured(accounts=1, known=1, band_changes=1, newly_unknown=0, held=1, tasks=1)
    assert judge(alone, Gate(), band_change_share=0.10) == ()
