import datetime as dt
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.crm import jobs, ledger_tables
from connectors.crm.applying import apply_plan, recover
from connectors.crm.lease import LeaseLost
from connectors.crm.ledger import Ledger
from connectors.crm.plans import END_STATES, Plan
from connectors.crm.writing import Outcome, Result, SeenTask
from contracts.actions import Episode
from contracts.errors import (
    HeldError,
    LedgerError,
    OutcomeUnknown,
    SourceCorrupt,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)
from tests.crm_writer_model import Crm, Fault, Killed, ModelWriter, lost
from tests.ledgers import DAY, NOW, Clock, change, closing, emptied, opening, state_of, store

LATER = NOW + dt.timedelta(days=1)
BUSY = Result(Outcome.BUSY, reason="UNABLE_TO_LOCK_ROW")
REJECTED = Result(Outcome.REJECTED, reason="FIELD_CUSTOM_VALIDATION_EXCEPTION")
UNTOLD = Result(Outcome.UNKNOWN)
NOT_DONE = Result(Outcome.UNKNOWN, reason="not done")


@pytest.fixture
def ledger(ledger_url):
    with Ledger(ledger_url) as ledger:
        yield ledger


@pytest.fixture
def crm():
    return Crm()


def apply(
    ledger, crm, plan_id="p1", *, clock=None, batch_size=3, bulk=False, bulk_above=2000, **more
):
    clock = clock or Clock()
    with ledger.lease(holder="test", now=clock, seconds=300) as lease:
        return apply_plan(
            ledger, plan_id, {"salesforce": ModelWriter(crm, batch_size=batch_size, bulk=bulk)},
            now=clock, lease=lease, sleep=clock.sleep,
            **{"budget": {}, "bulk_above": {"salesforce": bulk_above}, **more},
        )  # fmt: skip


def ask(ledger, crm, *, bulk=False, patience_seconds=0):
    clock = Clock()
    writers = {"salesforce": ModelWriter(crm, bulk=bulk)}
    return recover(ledger, writers, now=clock, sleep=clock.sleep, patience_seconds=patience_seconds)


def ends(ledger, plan_id="p1"):
    return [intent.state for intent in ledger.intents(plan_id)]


def fields(count, score="71"):
    return [change(n, f"R{n}", risk_score=score) for n in range(1, count + 1)]


def a_bit_of_everything():
    """A plan with every kind of intent, two of them for one account."""
    return [
        change(1, "R1", risk_score="71"), change(2, "R2", risk_score="5"),
        change(3, "R3", risk_score="9"), change(4, "O1", object="opportunity", risk_score="8"),
        opening(5, "k1", "R1"), opening(6, "k2", "R1"), opening(7, "k3", "R2"),
        closing(8, "old1", "R2"), closing(9, "old2", "R3"),
    ]  # fmt: skip


def with_old_tasks(ledger, crm):
    """Two open tasks of a former plan, in the ledger and in the CRM."""
    store(ledger, opening(1, "old1", "R2"), opening(2, "old2", "R3"), plan_id="p0")
    apply(ledger, crm, "p0")
    crm.calls.clear()


# Order and accounts


def test_fields_come_before_tasks_and_the_sums_add_up(ledger, crm):
    with_old_tasks(ledger, crm)
    store(ledger, *a_bit_of_everything())
    told = []
    applied = apply(ledger, crm, progress=told.append)
    assert [name for name, _ in crm.calls] == [
        "update", "update", "create_tasks", "tasks_by_key", "change_tasks",
    ]  # fmt: skip
    assert crm.called("create_tasks") == [("k1", "k2", "k3")]
    assert {kind: states["written"] for kind, states in applied.counts.items()} == {
        "fields": 4, "open_task": 3, "close_task": 2,
    }  # fmt: skip
    assert (applied.total("written"), applied.total("deferred")) == (9, 0)
    assert (applied.calls, applied.failed, applied.degraded) == (5, None, ())
    assert ledger.plan("p1").status == "applied"
    assert told[0] == "salesforce: account fields: 3 of 3"
    assert {t.key: t.status for t in ledger.tasks()} == {
        "k1": "open", "k2": "open", "k3": "open", "old1": "closed", "old2": "closed",
    }  # fmt: skip
    assert crm.records[("opportunity", "O1")] == {"risk_score": "8"}


def test_the_records_of_an_account_go_side_by_side(ledger, crm):
    tasks = [opening(1, "k1", "R2"), opening(2, "k2", "R1"), opening(3, "k3", "R2")]
    store(ledger, *tasks)
    apply(ledger, crm, batch_size=2)
    assert crm.called("create_tasks") == [("k2", "k1"), ("k3",)]


@pytest.mark.parametrize("status", ["held", "dropped"])
def test_a_plan_that_may_not_be_applied_sends_nothing(ledger, crm, status):
    store(ledger, *fields(1), status=status)
    with pytest.raises(HeldError, match=status):
        apply(ledger, crm)
    assert crm.calls == []


def test_an_empty_plan_makes_no_call(ledger, crm):
    store(ledger)
    assert apply(ledger, crm).calls == 0
    assert ledger.plan("p1").status == "applied"


def test_what_is_planned_for_a_crm_that_is_not_written_to_is_deferred(ledger, crm):
    store(ledger, change(1, "R1", crm="hubspot", risk_score="1"), change(2, "R1", risk_score="1"))
    applied = apply(ledger, crm)
    assert ends(ledger) == ["deferred", "written"]
    assert applied.degraded == ("hubspot: 1 deferred: nothing writes there in this run",)


def test_the_end_of_one_crm_does_not_stop_the_other(ledger, crm):
    store(ledger, change(1, "R1", crm="hubspot", risk_score="1"), change(2, "R1", risk_score="1"))
    hubspot, clock = Crm(faults={1: Fault(lambda: SourceRefused("401", "renew it"))}), Clock()
    with ledger.lease(holder="test", now=clock, seconds=300) as lease:
        applied = apply_plan(
            ledger, "p1",
            {"hubspot": ModelWriter(hubspot, "hubspot"), "salesforce": ModelWriter(crm)},
            now=clock, lease=lease, budget={}, bulk_above={}, sleep=clock.sleep,
        )  # fmt: skip
    assert ends(ledger) == ["deferred", "written"]
    assert applied.failed == "hubspot: 401; renew it"


# Whole calls


@pytest.mark.parametrize("after", [False, True])
def test_f17_a_lost_answer_about_tasks_is_read_back_and_only_the_missing_are_sent_again(
    ledger, crm, after
):
    store(ledger, *(opening(n, f"k{n}", "R1") for n in (1, 2)))
    crm.faults[1] = Fault(lost, after=after)
    apply(ledger, crm)
    again = [] if after else ["create_tasks"]
    assert [name for name, _ in crm.calls] == ["create_tasks", "tasks_by_key", *again]
    assert ends(ledger) == ["written", "written"]
    assert crm.created == ["k1", "k2"]
    assert {task.task_id for task in ledger.tasks()} == {"T-k1", "T-k2"}


@pytest.mark.parametrize("error", [lost, lambda: SourceCorrupt("no JSON", "report it")])
def test_f12_f17_a_lost_answer_about_fields_is_read_back(ledger, crm, error):
    store(ledger, *fields(2))
    crm.faults[1] = Fault(error, after=True)
    apply(ledger, crm)
    assert [name for name, _ in crm.calls] == ["update", "records_by_id"]
    assert ends(ledger) == ["written", "written"]


def test_a_call_that_never_answers_is_not_sent_for_ever(ledger, crm):
    store(ledger, *fields(1), opening(2, "k1", "R1"))
    crm.faults.update({n: Fault(lost) for n in (1, 3, 5, 7, 9)})
    apply(ledger, crm)
    assert len(crm.called("update")) == 3
    assert len(crm.called("create_tasks")) == 2
    assert ends(ledger) == ["deferred", "deferred"]


def test_f57_what_cannot_be_read_back_stays_open_and_the_next_run_finds_out(ledger, crm):
    store(ledger, opening(1, "k1", "R1"), opening(2, "k2", "R2"))
    unavailable = Fault(lambda: SourceUnavailable("answered 503", "wait"))
    crm.faults.update({1: Fault(lost, after=True), 2: unavailable, 3: unavailable})
    applied = apply(ledger, crm, batch_size=1)
    assert applied.degraded == (
        "salesforce: 1 deferred: answered 503",
        "salesforce: 1 deferred: its outcome is not known yet",
    )
    assert ends(ledger) == ["deferred", "deferred"]
    found = ask(ledger, crm)
    assert found.waiting == ("salesforce: 1 sent: answered 503",)
    store(ledger, opening(1, "k2", "R2"), plan_id="p2", at=LATER)
    apply(ledger, crm, "p2")
    assert ends(ledger) == ["written", "deferred"]
    assert crm.created == ["k1", "k2"]


def test_nothing_is_sent_to_a_crm_while_an_older_batch_has_no_answer(ledger, crm):
    store(ledger, opening(1, "k1", "R1"), opening(2, "k2", "R2"))
    ledger.begin_plan("p1", NOW)
    ledger.begin_batch("p1", [1], method="collections", at=NOW)
    crm.faults[1] = Fault(lambda: SourceUnavailable("answered 503", "wait"))
    applied = apply(ledger, crm)
    assert [name for name, _ in crm.calls] == ["tasks_by_key"]
    assert ends(ledger) == ["deferred", "deferred"]
    assert any("what was sent before has no answer yet" in told for told in applied.degraded)


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (lambda: SourceExhausted("the daily limit is used up", "wait"), None),
        (lambda: SourceUnavailable("answered 503", "wait"), None),
        (lambda: SourceRefused("answered 401", "renew it"), "salesforce: answered 401; renew it"),
    ],
)
def test_f3_f4_f51_an_error_of_a_whole_call_defers_the_rest(ledger, crm, error, failed):
    store(ledger, *fields(8), opening(9, "k1", "R1"))
    crm.faults[2] = Fault(error)
    applied = apply(ledger, crm)
    assert ends(ledger) == ["written"] * 3 + ["deferred"] * 6
    assert (applied.calls, applied.failed) == (2, failed)
    assert applied.degraded[0].startswith("salesforce: 6 deferred: ")
    assert {task.status for task in ledger.tasks()} == {"planned"}
    assert [intent.task.key for intent in ledger.carried()] == ["k1"]


def test_f4_writing_stops_at_our_share_of_the_days_requests(ledger, crm):
    store(ledger, *fields(9))
    crm.used, crm.allowed = 48, 100
    applied = apply(ledger, crm, budget={"salesforce": 0.5})
    assert ends(ledger) == ["written"] * 6 + ["deferred"] * 3
    assert applied.degraded == ("salesforce: 3 deferred: 50 % of the day's API requests are used",)
    assert applied.failed is None


def test_f55_a_refused_call_is_halved_until_the_culprit_stands_alone(ledger, crm):
    store(ledger, *fields(8))
    crm.poison = {"R6"}
    apply(ledger, crm, batch_size=8)
    assert ends(ledger) == ["written"] * 5 + ["rejected"] + ["written"] * 2
    assert len(crm.calls) == 7
    assert list(ledger.rejections()) == [("salesforce", "account", "R6")]


def test_f55_when_every_record_is_refused_nothing_more_is_tried(ledger, crm):
    store(ledger, *fields(20))
    crm.poison = {f"R{n}" for n in range(1, 21)}
    applied = apply(ledger, crm, batch_size=5)
    assert ends(ledger) == ["deferred"] * 20
    assert len(crm.calls) == 2 * 5 - 1
    assert ledger.rejections() == {}, "that says nothing of the records"
    assert "every record of a batch was refused" in applied.failed


# Single records


def test_f54_a_refused_record_is_quarantined_and_the_others_land(ledger, crm):
    store(ledger, *fields(3), opening(4, "k1", "R1"))
    crm.trouble = {"R2": [REJECTED], "k1": [REJECTED]}
    apply(ledger, crm)
    assert ends(ledger) == ["written", "rejected", "written", "rejected"]
    (refused,) = ledger.rejections().items()
    assert refused == (("salesforce", "account", "R2"), {"risk_score": "71"})
    assert ledger.rejected_tasks() == {"k1": REJECTED.reason}
    assert ledger.carried() == []


def test_f52_locked_records_are_tried_again_by_themselves(ledger, crm):
    store(ledger, *fields(5))
    crm.trouble = {"R2": [BUSY], "R4": [BUSY, BUSY]}
    clock = Clock()
    apply(ledger, crm, clock=clock)
    assert crm.called("update") == [("R1", "R2", "R3"), ("R4", "R5"), ("R2", "R4"), ("R4",)]
    assert ends(ledger) == ["written"] * 5
    assert clock() == NOW + dt.timedelta(seconds=10)


def test_f53_when_every_record_stays_locked_they_are_deferred(ledger, crm):
    store(ledger, *fields(4))
    crm.trouble = {f"R{n}": [BUSY] * 9 for n in range(1, 5)}
    apply(ledger, crm)
    assert ends(ledger) == ["deferred"] * 4
    assert len(crm.calls) == 8


@pytest.mark.parametrize(("result", "calls"), [(UNTOLD, 2), (NOT_DONE, 3)])
def test_f56_f57_a_record_that_the_answer_leaves_out_is_read_back(ledger, crm, result, calls):
    store(ledger, *fields(3))
    crm.trouble = {"R2": [result]}
    apply(ledger, crm)
    assert [given for _, given in crm.calls][1:] == [("R2",)] * (calls - 1)
    assert ends(ledger) == ["written"] * 3
    assert crm.records[("account", "R2")] == {"risk_score": "71"}


@pytest.mark.parametrize(("result", "calls"), [(UNTOLD, 2), (NOT_DONE, 3)])
def test_f56_f57_a_task_that_the_answer_leaves_out_is_read_back(ledger, crm, result, calls):
    store(ledger, *(opening(n, f"k{n}", "R1") for n in (1, 2, 3)))
    crm.trouble = {"k2": [result]}
    apply(ledger, crm)
    assert len(crm.calls) == calls
    assert sorted(crm.created) == ["k1", "k2", "k3"]
    assert ends(ledger) == ["written"] * 3


def test_f59_fewer_results_than_records_are_all_read_back(ledger, crm, monkeypatch):
    store(ledger, *fields(3))
    whole = ModelWriter.update
    monkeypatch.setattr(ModelWriter, "update", lambda self, updates: whole(self, updates)[1:])
    apply(ledger, crm)
    assert [name for name, _ in crm.calls] == ["update", "records_by_id"]
    assert ends(ledger) == ["written"] * 3


def test_f65_a_deleted_account_gets_a_tombstone_and_no_task(ledger, crm):
    store(ledger, *fields(2), opening(3, "k1", "R1"), opening(4, "k2", "R2"))
    crm.gone = {"R1": None}
    apply(ledger, crm)
    assert ends(ledger) == ["skipped", "written", "skipped", "written"]
    assert crm.called("create_tasks") == [("k2",)]
    assert ledger.tombstones() == {("salesforce", "R1"): None}
    assert {task.key: task.status for task in ledger.tasks()} == {"k1": "closed", "k2": "open"}


def test_f66_a_merged_account_is_followed_and_its_tasks_wait_for_the_next_plan(ledger, crm):
    store(ledger, *fields(2), opening(3, "k1", "R1"))
    crm.gone = {"R1": "R9"}
    apply(ledger, crm)
    assert ends(ledger) == ["skipped", "written", "skipped"]
    assert ledger.tombstones() == {("salesforce", "R1"): "R9"}
    assert crm.called("create_tasks") == []
    assert [(i.task.key, i.account_id) for i in ledger.carried()] == [("k1", "A-R1")]


def test_f65_a_task_of_an_account_that_is_deleted_meanwhile_is_given_up(ledger, crm):
    store(ledger, opening(1, "k1", "R1"))
    crm.gone = {"R1": None}
    apply(ledger, crm)
    assert ends(ledger) == ["skipped"]
    assert [task.status for task in ledger.tasks()] == ["closed"]


def test_f64_a_key_that_stands_twice_in_a_plan_is_sent_once(ledger, crm):
    store(ledger, opening(1, "k1", "R1"), opening(2, "k1", "R1"))
    apply(ledger, crm)
    assert crm.called("create_tasks") == [("k1",)]
    assert ends(ledger) == ["written", "skipped"]


def test_f70_a_task_of_an_inactive_owner_goes_to_the_fallback_once(ledger, crm):
    store(ledger, opening(1, "k1", "R1", owner_id="left"), opening(2, "k2", "R2"))
    crm.inactive = {"left"}
    apply(ledger, crm, fallback_owner={"salesforce": "queue"})
    assert crm.called("create_tasks") == [("k1", "k2"), ("k1",)]
    assert ends(ledger) == ["written", "written"]
    owners = {task.key: task.owner_id for task in ledger.tasks()}
    assert owners == {"k1": "queue", "k2": "ada"} == {k: t.owner_id for k, t in crm.tasks.items()}


@pytest.mark.parametrize("fallback", ["queue", None])
def test_f70_a_fallback_that_is_refused_too_is_not_tried_again(ledger, crm, fallback):
    store(ledger, opening(1, "k1", "R1", owner_id="left"))
    crm.inactive = {"left", "queue"}
    apply(ledger, crm, fallback_owner={"salesforce": fallback})
    assert len(crm.calls) == (2 if fallback else 1)
    assert ends(ledger) == ["rejected"]


@pytest.mark.parametrize(
    ("reason", "owners"),
    [
        ("INACTIVE_OWNER_OR_USER (OwnerId)", ["gone", "queue"]),
        ("INVALID_CROSS_REFERENCE_KEY (OwnerId)", ["gone", "queue"]),
        ("VALIDATION_ERROR: INVALID_OWNER_ID (hubspot_owner_id)", ["gone", "queue"]),
        ("VALIDATION_ERROR: the Owner is not active", ["gone", "queue"]),
        ("FIELD_CUSTOM_VALIDATION_EXCEPTION (Owner_Region__c)", ["gone"]),
        ("REQUIRED_FIELD_MISSING (Co_Owner__c)", ["gone"]),
        ("VALIDATION_ERROR (ownership)", ["gone"]),
    ],
)
def test_f70_a_task_is_given_to_another_only_where_its_owner_is_what_was_refused(
    ledger, crm, reason, owners
):
    store(ledger, opening(1, "k1", "R1", owner_id="gone"))
    crm.trouble["k1"] = [Result(Outcome.REJECTED, reason=reason)]
    apply(ledger, crm, fallback_owner={"salesforce": "queue"})
    assert crm.called("create_tasks") == [("k1",)] * len(owners)
    assert ends(ledger) == ["written" if "queue" in owners else "rejected"]
    assert [task.owner_id for task in ledger.tasks()] == owners[-1:]


# People


@pytest.mark.parametrize(
    "act", [{"subject": "Mine now"}, {"status": "completed"}, {"status": "deleted"}, None]
)
def test_f68_a_task_that_a_human_took_since_the_plan_was_made_is_not_closed(ledger, crm, act):
    with_old_tasks(ledger, crm)
    store(ledger, closing(1, "old1", "R2"), closing(2, "old2", "R3"))
    if act is None:
        del crm.tasks["old1"]
    else:
        crm.tasks["old1"] = replace(crm.tasks["old1"], **act)
    before = crm.tasks.get("old1")
    apply(ledger, crm)
    assert ends(ledger) == ["skipped", "written"]
    assert crm.tasks.get("old1") == before
    assert crm.called("change_tasks") == [("old2",)]
    known = {task.key: (task.status, task.touched) for task in ledger.tasks()}
    assert known["old1"] == ("deleted", False) if act is None else known["old1"][1]
    assert known["old2"] == ("closed", False)


def test_f68_a_task_that_is_there_or_was_deleted_is_not_opened_again(ledger, crm):
    with_old_tasks(ledger, crm)
    ledger.saw_tasks("salesforce", [replace(crm.tasks.pop("old1"), status="deleted")], LATER)
    store(ledger, opening(1, "old1", "R2"), opening(2, "old2", "R3"))
    applied = apply(ledger, crm)
    assert ends(ledger) == ["skipped", "skipped"]
    assert applied.calls == 0


def test_f71_a_task_of_a_plan_that_waited_is_not_opened_where_a_newer_plan_has_one(ledger, crm):
    store(ledger, opening(1, "k1", "R1"), change(2, "R1", risk_score="71"), plan_id="held")
    newer, day = opening(1, "k2", "R1"), DAY + dt.timedelta(days=1)
    plan = Plan(
        "newer", day, "fast", LATER, episodes=(Episode("A-R1", "champion-left", day, "open"),),
        tasks=(replace(state_of(newer), opened_on=day),),
    )  # fmt: skip
    ledger.store(plan, [newer])
    apply(ledger, crm, "newer")
    apply(ledger, crm, "held")
    assert {i.number: (i.state, i.reason) for i in ledger.intents("held")} == {
        1: ("skipped", "a newer plan has decided about it"), 2: ("written", ""),
    }  # fmt: skip
    assert crm.created == ["k2"]
    assert [task.key for task in ledger.tasks()] == ["k2"]


# Bulk jobs


def test_more_records_than_the_threshold_go_by_one_job(ledger, crm):
    store(ledger, *fields(7), opening(8, "k1", "R1"))
    crm.job_polls = 3
    clock = Clock()
    apply(ledger, crm, bulk=True, bulk_above=6, clock=clock)
    assert [name for name, _ in crm.calls] == [
        "bulk.create", "bulk.upload", *["bulk.state"] * 4, "bulk.results", "create_tasks",
    ]  # fmt: skip
    assert ends(ledger) == ["written"] * 8
    assert clock() == NOW + dt.timedelta(seconds=1 + 2 + 4)


def test_as_many_records_as_the_threshold_go_by_collections(ledger, crm):
    store(ledger, *fields(6))
    apply(ledger, crm, bulk=True, bulk_above=6)
    assert {name for name, _ in crm.calls} == {"update"}


def test_a_job_carries_no_more_than_it_may(ledger, crm, monkeypatch):
    monkeypatch.setattr(jobs, "JOB_BYTES", 60)
    store(ledger, *fields(5))
    apply(ledger, crm, bulk=True, bulk_above=1)
    assert [len(job.updates) for job in crm.jobs.values()] == [2, 2, 1]
    assert ends(ledger) == ["written"] * 5


@pytest.mark.parametrize("end", ["failed", "aborted"])
def test_f60_what_a_failed_job_did_not_process_goes_by_collections(ledger, crm, end):
    store(ledger, *fields(5))
    crm.job_ends, crm.job_does = end, 2
    crm.trouble = {"R1": [REJECTED]}
    apply(ledger, crm, bulk=True, bulk_above=1)
    assert ends(ledger) == ["rejected"] + ["written"] * 4
    assert crm.called("update") == [("R3", "R4", "R5")]


def test_f60_a_job_that_takes_too_long_is_left_and_adopted_by_the_next_run(ledger, crm):
    store(ledger, *fields(3), opening(4, "k1", "R9"))
    crm.job_polls = 100
    applied = apply(ledger, crm, bulk=True, bulk_above=1, patience_seconds=60)
    assert ends(ledger) == ["deferred"] * 3 + ["written"]
    assert applied.degraded == ("salesforce: 3 deferred: a bulk job is still at work on it",)

    store(ledger, *fields(4, score="72"), plan_id="p2", at=LATER)
    apply(ledger, crm, "p2", bulk=True)
    assert ends(ledger, "p2") == ["deferred"] * 3 + ["written"], "the job may be writing these"

    crm.jobs["job-1"].polls = 0
    found = ask(ledger, crm, bulk=True)
    assert (found.batches, found.written, found.waiting) == (1, 3, ())
    assert ends(ledger) == ["written"] * 4
    assert len(crm.jobs) == 1
    assert ledger.sent() == []


@pytest.mark.parametrize("error", [SourceRejected, SourceRefused, OutcomeUnknown])
def test_f61_where_there_are_no_jobs_collections_do_it(ledger, crm, error):
    store(ledger, *fields(5))
    crm.faults[1] = Fault(lambda: error("no Bulk API", "ask for it"))
    applied = apply(ledger, crm, bulk=True, bulk_above=1)
    assert [name for name, _ in crm.calls] == ["bulk.create", "update", "update"]
    assert ends(ledger) == ["written"] * 5
    assert applied.failed is None


@pytest.mark.parametrize("after", [False, True])
def test_f60_an_upload_without_an_answer_is_looked_up_and_never_repeated(ledger, crm, after):
    store(ledger, *fields(4))
    crm.faults[2] = Fault(lost, after=after)
    apply(ledger, crm, bulk=True, bulk_above=1)
    assert ends(ledger) == ["written"] * 4
    assert len(crm.called("bulk.upload")) == 1
    assert crm.jobs["job-1"].state == ("complete" if after else "aborted")
    assert bool(crm.called("update")) is not after


def test_f60_a_job_that_the_crm_forgot_is_told_by_what_the_records_show(ledger, crm):
    store(ledger, *fields(4))
    ledger.begin_plan("p1", NOW)
    batch = ledger.begin_batch("p1", [1, 2, 3, 4], method="bulk", at=NOW)
    ledger.note_job(batch, "job-0")
    crm.records = {("account", f"R{n}"): {"risk_score": "71"} for n in (1, 2)}
    found = ask(ledger, crm, bulk=True)
    assert (found.written, found.again) == (2, 2)
    assert ends(ledger) == ["written", "written", "planned", "planned"]


def test_f60_a_job_that_a_dead_run_left_open_is_aborted_and_its_records_planned_again(ledger, crm):
    store(ledger, *fields(2))
    ledger.begin_plan("p1", NOW)
    batch = ledger.begin_batch("p1", [1, 2], method="bulk", at=NOW)
    ledger.note_job(batch, ModelWriter(crm, bulk=True).bulk.create("account", ["risk_score"]))
    found = ask(ledger, crm, bulk=True)
    assert (found.written, found.again) == (0, 2)
    assert crm.jobs["job-1"].state == "aborted"
    assert ends(ledger) == ["planned", "planned"]


# Stopping


def test_f73_after_sigterm_the_batch_in_hand_is_finished_and_the_rest_deferred(ledger, crm):
    store(ledger, *fields(8), opening(9, "k1", "R1"))
    applied = apply(ledger, crm, stop=lambda: len(crm.calls) >= 2)
    assert ends(ledger) == ["written"] * 6 + ["deferred"] * 3
    assert applied.degraded == ("salesforce: 3 deferred: the run was asked to stop",)
    assert applied.failed is None


def test_f75_a_run_that_lost_its_lease_makes_no_further_call(ledger, crm):
    store(ledger, *fields(8))
    clock, others = Clock(), []

    def away():
        """After the first call this run sleeps for an hour, and another one begins."""
        if len(crm.calls) == 1 and not others:
            clock.sleep(3600)
            other = ledger.lease(holder="other", now=clock, seconds=300)
            others.append(other)
            other.__enter__()
        return False

    with pytest.raises(LeaseLost):
        apply(ledger, crm, clock=clock, stop=away)
    assert len(crm.calls) == 1
    assert ledger.plan("p1").status == "open"


def test_the_lease_is_kept_through_long_waits(ledger, crm):
    store(ledger, *fields(3))
    crm.job_polls = 40
    applied = apply(ledger, crm, bulk=True, bulk_above=1)
    assert applied.total("written") == 3
    assert applied.seconds > 600


@pytest.mark.parametrize("step", ["begin_plan", "begin_batch", "finish_batch"])
def test_f77_when_the_ledger_fails_nothing_more_is_sent(ledger, crm, step, monkeypatch):
    store(ledger, *fields(8))

    def full(*args, **kwargs):
        raise LedgerError("no space left for the ledger", "free disk space")

    monkeypatch.setattr(ledger, step, full)
    with pytest.raises(LedgerError):
        apply(ledger, crm)
    assert len(crm.calls) == (1 if step == "finish_batch" else 0)


# Recovery


def test_a_batch_that_was_never_answered_is_read_back_before_anything_is_sent(ledger, crm):
    store(ledger, *fields(2), opening(3, "k1", "R1"), opening(4, "k2", "R2"))
    ledger.begin_plan("p1", NOW)
    ledger.begin_batch("p1", [1, 2], method="collections", at=NOW)
    ledger.begin_batch("p1", [3, 4], method="collections", at=NOW)
    crm.records[("account", "R1")] = {"risk_score": "71"}
    writer = ModelWriter(crm)
    writer.create_tasks([ledger.intents("p1")[2].task])
    crm.calls.clear()
    found = ask(ledger, crm)
    assert (found.batches, found.written, found.again) == (2, 2, 2)
    assert [name for name, _ in crm.calls] == ["records_by_id", "tasks_by_key"]
    assert ends(ledger) == ["written", "planned", "written", "planned"]
    apply(ledger, crm)
    assert crm.called("update", "create_tasks") == [("R2",), ("k2",)]
    assert crm.created == ["k1", "k2"]


def test_what_did_not_arrive_of_a_plan_that_is_over_is_deferred(ledger, crm):
    store(ledger, opening(1, "k1", "R1"))
    ledger.begin_plan("p1", NOW)
    ledger.begin_batch("p1", [1], method="collections", at=NOW)
    store(ledger, plan_id="p2", at=LATER)
    assert ask(ledger, crm).again == 1
    assert ends(ledger) == ["deferred"]
    assert [intent.task.key for intent in ledger.carried()] == ["k1"]


def test_a_batch_of_a_crm_that_is_not_there_waits(ledger):
    store(ledger, *fields(1))
    ledger.begin_batch("p1", [1], method="collections", at=NOW)
    found = recover(ledger, {}, now=Clock())
    assert found.waiting == ("salesforce: 1 sent, and it is not asked now",)
    assert len(ledger.sent()) == 1


def test_f62_a_task_that_a_rolled_back_ledger_forgot_is_found_by_its_key(ledger, crm):
    task = opening(1, "k1", "R1").task
    crm.tasks["k1"] = SeenTask(
        "k1", task.episode, "T-k1", "R1", "ada", task.subject, task.due_on, "open"
    )
    store(ledger, opening(1, "k1", "R1"))
    apply(ledger, crm)
    assert crm.created == []
    assert [(t.status, t.task_id) for t in ledger.tasks()] == [("open", "T-k1")]


# Crashes everywhere


class World:
    """One company: a CRM, a ledger, and runs that plan what is not yet as it should be."""

    def __init__(self, ledger, *, bulk=False):
        self.bulk = bulk
        self.crm, self.clock, self.plans = Crm(), Clock(), 0
        with_old_tasks(ledger, self.crm)

    def run(self, ledger, *, resume=False):
        """A run: recover, plan anew (or take up the plan that is there), apply."""
        clock, writers = self.clock, {"salesforce": ModelWriter(self.crm, bulk=self.bulk)}
        clock.sleep(3600)  # the lease of a dead run is over
        with ledger.lease(holder="run", now=clock, seconds=300) as lease:
            recover(ledger, writers, now=clock, lease=lease, sleep=clock.sleep)
            waiting = ledger.newest("open")
            if waiting is None or not resume:
                self.plans += 1
                plan_id = f"run{self.plans}"
                store(ledger, *self.wanted(ledger), plan_id=plan_id, at=clock())
            else:
                plan_id = waiting.plan_id
            return apply_plan(
                ledger, plan_id, writers, now=clock, lease=lease, budget={},
                bulk_above={"salesforce": 2}, sleep=clock.sleep,
            )  # fmt: skip

    def wanted(self, ledger):
        """What is not confirmed, what no CRM has, and what is to be closed and open still."""
        shown = {
            (row["object"], row["record_id"]): row["values"]
            for table in ledger.confirmed()
            for row in table.to_pylist()
        }
        tasks = {task.key: task for task in ledger.tasks()}
        carried = {intent.task.key for intent in ledger.carried()}
        found = []
        for intent in a_bit_of_everything():
            if intent.kind == "fields":
                (wanted,) = intent.changes
                new = f'"{wanted.field}":"{wanted.new}"'
                due = new not in shown.get((intent.object, intent.record_id), "")
            elif intent.kind == "open_task":
                due = intent.task.key not in tasks or intent.task.key in carried
            else:
                due = tasks[intent.closing.key].status == "open"
            found += [replace(intent, number=len(found) + 1)] if due else []
        return found


def kill_at_commit(ledger, nth, *, after):
    """Let the nth commit from here on be the last thing that the process does."""
    dialect, count = ledger._engine.dialect, 0
    commit = dialect.do_commit

    def counted(connection):
        nonlocal count
        count += 1
        if count >= nth and not after:
            raise Killed
        commit(connection)
        if count == nth:
            raise Killed

    dialect.do_commit = counted
    return lambda: setattr(dialect, "do_commit", commit)


def fault_free(url, bulk):
    with Ledger(url) as ledger:
        world = World(ledger, bulk=bulk)
        world.run(ledger)
    return world.crm.state()


def check_end(world, ledger, goal):
    assert world.crm.state() == goal
    assert sorted(world.crm.created) == ["k1", "k2", "k3", "old1", "old2"]
    assert world.crm.repeated == [], "what may have arrived is read back, never sent first"
    assert ledger.sent() == []
    assert {t.key: t.status for t in ledger.tasks()} == {
        "k1": "open", "k2": "open", "k3": "open", "old1": "closed", "old2": "closed",
    }  # fmt: skip
    assert ledger.plan(ledger.newest().plan_id).status == "applied"
    calls = len(world.crm.called("update", "create_tasks", "change_tasks", "bulk.upload"))
    world.run(ledger)
    assert len(world.crm.called("update", "create_tasks", "change_tasks", "bulk.upload")) == calls


@pytest.fixture
def quick(monkeypatch):
    """SQLite without waiting for the disk: the sweeps kill no machine, only processes."""
    prepare = ledger_tables._prepare_sqlite

    def prepare_quickly(connection, record):
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    monkeypatch.setattr(ledger_tables, "_prepare_sqlite", prepare_quickly)


def urls(request, tmp_path, backend):
    """Empty ledgers, one after the other; in PostgreSQL it is one that is emptied."""
    for number in itertools.count():
        if backend == "sqlite":
            yield f"sqlite:///{tmp_path / f'{number}.sqlite'}"
        else:
            yield emptied(request.getfixturevalue("postgres"))


# Backend, bulk jobs, and whether the next run takes up the plan that was begun.
MODES = [
    ("sqlite", False, False),
    ("sqlite", False, True),
    ("sqlite", True, False),
    ("postgresql", False, False),
    pytest.param("postgresql", True, True, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("backend", "bulk", "resume"), MODES)
@pytest.mark.usefixtures("quick")
def test_f72_a_crash_at_any_commit_loses_and_doubles_nothing(
    request, tmp_path, backend, bulk, resume, after
):
    new = urls(request, tmp_path, backend)
    goal = fault_free(next(new), bulk)
    nth, crashed = 0, True
    while crashed:
        nth += 1
        with Ledger(next(new)) as ledger:
            world = World(ledger, bulk=bulk)
            restore = kill_at_commit(ledger, nth, after=after)
            try:
                world.run(ledger)
                crashed = False
            except Killed:
                pass
            restore()
            if crashed:
                world.run(ledger, resume=resume)
            check_end(world, ledger, goal)
    assert nth > 10


@pytest.mark.parametrize("error", [Killed, lost], ids=["killed", "lost"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("backend", "bulk", "resume"), MODES[:3])
@pytest.mark.usefixtures("quick")
def test_f72_f17_a_crash_or_a_lost_answer_at_any_call_loses_and_doubles_nothing(
    request, tmp_path, backend, bulk, resume, after, error
):
    new = urls(request, tmp_path, backend)
    goal = fault_free(next(new), bulk)
    nth, struck = 0, True
    while struck:
        nth += 1
        with Ledger(next(new)) as ledger:
            world = World(ledger, bulk=bulk)
            world.crm.faults[nth] = Fault(error, after=after)
            try:
                world.run(ledger)
            except Killed:
                assert error is Killed
            struck = not world.crm.faults
            world.crm.faults.clear()
            world.run(ledger, resume=resume)
            check_end(world, ledger, goal)
    assert nth > 4


# Sums

RESULTS = st.sampled_from(
    [
        BUSY,
        REJECTED,
        UNTOLD,
        NOT_DONE,
        Result(Outcome.GONE),
        Result(Outcome.MERGED, successor="R99"),
        Result(Outcome.MERGED),
    ]
)
ERRORS = st.sampled_from(
    [
        lost,
        lambda: SourceUnavailable("503", "wait"),
        lambda: SourceExhausted("limit", "wait"),
        lambda: SourceRefused("401", "renew"),
        lambda: SourceRejected("400", "report it"),
        lambda: SourceCorrupt("HTML", "report it"),
    ]
)


@given(
    trouble=st.dictionaries(
        st.sampled_from(["R1", "R2", "R3", "O1", "k1", "k2", "k3", "old1", "old2"]),
        st.lists(RESULTS, min_size=1, max_size=5),
    ),
    faults=st.dictionaries(st.integers(1, 12), st.tuples(ERRORS, st.booleans()), max_size=3),
    poison=st.sets(st.sampled_from(["R1", "R3", "k2", "old2"]), max_size=2),
    batch_size=st.integers(1, 4),
    bulk=st.booleans(),
)
@pytest.mark.usefixtures("quick")
def test_planned_is_the_sum_of_all_ends_whatever_the_crm_answers(
    trouble, faults, poison, batch_size, bulk, tmp_path_factory
):
    crm = Crm()
    with Ledger(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.sqlite'}") as ledger:
        with_old_tasks(ledger, crm)
        crm.trouble, crm.poison = {k: list(v) for k, v in trouble.items()}, poison
        # What was refused as a whole had no effect; every other error may come after it had.
        crm.faults = {
            nth: Fault(error, after=after and isinstance(error(), OutcomeUnknown | SourceCorrupt))
            for nth, (error, after) in faults.items()
        }
        store(ledger, *a_bit_of_everything())
        applied = apply(ledger, crm, batch_size=batch_size, bulk=bulk, bulk_above=2)
        assert {kind: sum(states.values()) for kind, states in applied.counts.items()} == {
            "fields": 4,
            "open_task": 3,
            "close_task": 2,
        }
        assert sum(applied.total(state) for state in END_STATES) == 9
        assert len(crm.created) == len(set(crm.created))
        shown = {t.key for t in ledger.tasks() if t.status in ("open", "closed")}
        written = {i.task.key for i in ledger.intents("p1", "written") if i.task}
        assert written <= set(crm.tasks)
        assert written <= shown
        for intent in ledger.intents("p1", "written"):
            if intent.kind == "fields":
                (wanted,) = intent.changes
                record = crm.records[(intent.object, intent.record_id)]
                assert record[wanted.field] == wanted.new
