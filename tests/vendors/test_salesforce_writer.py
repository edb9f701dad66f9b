"""Salesforce: fields and tasks written once, and what becomes of each record told one by one."""

import datetime as dt
import json
from functools import partial

import pytest
from conftest import NOW
from hypothesis import given
from hypothesis import strategies as st
from salesforce_org import change
from salesforce_writing import (
    CLIENT,
    MANAGER,
    body,
    changes,
    config_of,
    ids,
    rewritten,
    score,
    secrets_of,
    task,
    writer_of,
)

from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import FieldUpdate, Outcome, TaskChange
from connectors.http import Http
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import sessions
from connectors.sandbox.vendors.salesforce import settings as admin
from connectors.sandbox.vendors.salesforce_metadata import provisioned
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_rules import refuse
from connectors.sandbox.vendors.salesforce_setup import CS_QUEUE, SUPPORT_QUEUE
from connectors.sandbox.vendors.salesforce_writes import writes
from connectors.vendors.salesforce import client as client_module
from connectors.vendors.salesforce.fields import clean, from_api, to_api
from connectors.vendors.salesforce.writer import merged_config
from contracts.crm_fields import FIELDS, written_on
from contracts.errors import (
    InputError,
    OutcomeUnknown,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

EXPIRED = [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
COLLECTIONS = "composite/sobjects"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(client_module, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        provisioned(box)
        yield box
    assert box.defects == []


@pytest.fixture
def writer(box):
    return writer_of(box)


def outcomes(results):
    return [result.outcome for result in results]


def spoil(box, do, path=COLLECTIONS, **how):
    box.faults.add(vendor="salesforce", do=do, path=path, **how)


# Fields


def test_fields_are_written_in_one_call_and_read_back_as_they_were_given(box, writer):
    values = {
        "risk_score": "71", "risk_band": "red", "risk_reasons": "Usage fell.\nNo champion.",
        "risk_as_of": "2026-06-30", "risk_change": "-12", "handoff_champion": None,
    }  # fmt: skip
    accounts = ids(box, "Account", 100)
    results = writer.update([FieldUpdate("account", id, values) for id in accounts])
    assert outcomes(results) == [Outcome.DONE] * 100
    assert [result.crm_id for result in results] == accounts
    assert changes(box) == [("PATCH", COLLECTIONS)]
    assert body(box, "Account", accounts[0])["HL_Risk_Score__c"] == 71
    seen = writer.records_by_id("account", accounts, list(values))
    assert {id: record.values for id, record in seen.items()} == dict.fromkeys(accounts, values)
    assert not any(record.gone or record.successor for record in seen.values())


def test_opportunities_are_written_and_fields_may_have_other_names(box):
    deal, account = ids(box, "Opportunity", 1)[0], ids(box, "Account", 1)[0]
    writer = writer_of(box, fields={"account": {"risk_score": "ARR__c"}})
    assert outcomes(writer.update([score(deal, object="opportunity")])) == [Outcome.DONE]
    assert outcomes(writer.update([score(account, "12")])) == [Outcome.DONE]
    assert body(box, "Opportunity", deal)["HL_Risk_Score__c"] == 71
    assert body(box, "Account", account)["ARR__c"] == 12


def test_a_field_that_is_not_ours_to_write_cannot_be_sent(box, writer):
    (account,) = ids(box, "Account", 1)
    for name in ("override_score", "Name", "OwnerId"):
        with pytest.raises(ValueError, match=f"not written on account: {name}"):
            writer.update([FieldUpdate("account", account, {name: "1"})])
    with pytest.raises(ValueError, match="not written"):
        writer_of(box, opportunities=False).update([score(account, object="opportunity")])
    with pytest.raises(ValueError, match="not written"):
        writer.bulk.create("account", ["override_score"])
    assert changes(box) == []


def test_everything_that_is_ever_written_is_on_our_list(box, writer):
    (account,) = ids(box, "Account", 1)
    every = {field.name: None for field in written_on("account")}
    writer.update([FieldUpdate("account", account, every)])
    writer.create_tasks([task(box)])
    ours = {field.salesforce for field in written_on("account")}
    of_tasks = {"HL_Key__c", "HL_Episode__c", "WhatId", "OwnerId", "Subject", "Description",
                "ActivityDate", "Status", "Priority"}  # fmt: skip
    assert [(write.object, set(write.fields)) for write in writes(box)] == [
        ("Account", ours), ("Task", of_tasks),
    ]  # fmt: skip


def test_more_than_a_batch_is_never_sent(box, writer):
    (account,) = ids(box, "Account", 1)
    with pytest.raises(ValueError, match="201 records"):
        writer.update([score(account)] * 201)
    assert writer.update([]) == writer.create_tasks([]) == writer.change_tasks([]) == []
    assert box.log == []


def test_f44_f45_texts_are_cleaned_and_cut_to_what_a_field_holds(box, writer):
    (account,) = ids(box, "Account", 1)
    huge = "\u202e\u0644 \U0001f600 e\u0301\0\ud800" + "x" * 10_000_000
    results = writer.update([score(account, risk_reasons=huge)])
    assert outcomes(results) == [Outcome.DONE]
    kept = body(box, "Account", account)["HL_Risk_Reasons__c"]
    assert len(kept) == 4000
    assert kept.startswith("\u202e\u0644 \U0001f600 e\u0301xxx")


def test_f40_a_value_that_is_none_is_refused_alone_and_not_sent(box, writer):
    good, *bad = ids(box, "Account", 5)
    wrong = ["nan", "inf", "1e999", "many"]
    results = writer.update(
        [score(id, value) for id, value in zip(bad, wrong, strict=True)] + [score(good)]
    )
    assert outcomes(results) == [Outcome.REJECTED] * 4 + [Outcome.DONE]
    assert results[0].reason == "INVALID_VALUE risk_score"
    assert [write.id for write in writes(box)] == [good]
    assert outcomes(writer.update([score(good, risk_as_of="30.6.2026")])) == [Outcome.REJECTED]
    assert outcomes(writer.update([score(good, risk_band="purple")])) == [Outcome.REJECTED]


def test_f49_an_empty_text_empties_the_field_like_none(box, writer):
    first, second = ids(box, "Account", 2)
    full = {"risk_reasons": "Usage fell", "risk_scorecard": "default 3"}
    writer.update([score(first, **full), score(second, **full)])
    writer.update([score(first, risk_reasons=""), score(second, risk_reasons=None)])
    for id in (first, second):
        assert body(box, "Account", id)["HL_Risk_Reasons__c"] is None
        assert body(box, "Account", id)["HL_Risk_Scorecard__c"] == "default 3"


@given(st.integers(-10_000, 10_000))
def test_whole_numbers_come_back_as_they_went(number):
    assert from_api(float(to_api(FIELDS["risk_score"], str(number)))) == str(number)


@given(st.text(), st.integers(1, 40))
def test_a_cleaned_text_is_short_enough_and_stays_as_it_is(text, length):
    cleaned = clean(text, length)
    assert len(cleaned) <= length
    assert clean(cleaned, length) == cleaned
    cleaned.encode()


# What becomes of each record


def test_f52_locked_rows_are_busy_and_the_others_land(box, writer):
    accounts = ids(box, "Account", 20)
    locked = accounts[3:7]
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=locked, times=1)
    results = writer.update([score(id) for id in accounts])
    assert [id for id, r in zip(accounts, results, strict=True) if r.outcome == Outcome.BUSY] == (
        locked
    )
    assert {result.outcome for result in results} == {Outcome.DONE, Outcome.BUSY}
    assert outcomes(writer.update([score(id) for id in locked])) == [Outcome.DONE] * 4


def test_f52_a_lock_that_a_trigger_of_the_org_ran_into_is_a_lock(box, writer):
    told = "Handler: execution of AfterUpdate caused by: UNABLE_TO_LOCK_ROW, unable to obtain"
    refuse(box, "Account", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message=told)
    (result,) = writer.update([score(ids(box, "Account", 1)[0])])
    assert (result.outcome, result.reason) == (
        Outcome.BUSY, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
    )  # fmt: skip


def test_f53_all_rows_may_be_locked_and_nothing_is_repeated_here(box, writer):
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW")
    results = writer.update([score(id) for id in ids(box, "Account", 20)])
    assert outcomes(results) == [Outcome.BUSY] * 20
    assert len(changes(box)) == 1


def test_f54_a_refusal_tells_code_and_fields_and_never_its_text(box, writer):
    good, ruled, required = ids(box, "Account", 3)
    refuse(box, "Account", "FIELD_CUSTOM_VALIDATION_EXCEPTION", ids=[ruled],
           message="canary@acme.example is wrong", fields=["Industry", "canary: 7"])  # fmt: skip
    refuse(box, "Account", "REQUIRED_FIELD_MISSING", ids=[required], fields=["Industry", "Type"])
    results = writer.update([score(ruled), score(good), score(required)])
    assert outcomes(results) == [Outcome.REJECTED, Outcome.DONE, Outcome.REJECTED]
    assert results[0].reason == "FIELD_CUSTOM_VALIDATION_EXCEPTION Industry"
    assert results[2].reason == "REQUIRED_FIELD_MISSING Industry, Type"
    assert "canary" not in str(results)


def test_f54_a_field_that_the_user_may_not_edit_is_refused_record_by_record(box, writer):
    for row in records(box, "FieldPermissions").rows(box.now.timestamp()):
        if row.body["Field"] == "Account.HL_Risk_Score__c":
            records(box, "FieldPermissions").put(
                row.id, row.body | {"PermissionsEdit": False}, box.now.timestamp()
            )
    first, second = ids(box, "Account", 2)
    others = FieldUpdate("account", second, {"risk_band": "red"})
    results = writer.update([score(first), others])
    assert outcomes(results) == [Outcome.REJECTED, Outcome.DONE]
    assert results[0].reason == "INVALID_FIELD_FOR_INSERT_UPDATE HL_Risk_Score__c"


def test_f55_an_unknown_field_refuses_the_whole_call_and_nothing_is_done(box):
    writer = writer_of(box, fields={"account": {"risk_score": "HL_Nowhere__c"}})
    with pytest.raises(SourceRejected, match="400 INVALID_FIELD"):
        writer.update([score(id) for id in ids(box, "Account", 3)])
    assert writes(box) == []


def test_f59_results_in_another_order_are_told_apart_by_their_ids(box, writer):
    accounts = ids(box, "Account", 5)
    spoil(box, "rewrite", rewrite=rewritten(lambda results: results[::-1]))
    results = writer.update([score(id) for id in accounts])
    assert outcomes(results) == [Outcome.DONE] * 5
    assert [result.crm_id for result in results] == accounts


@pytest.mark.parametrize("cut", [1, 4])
def test_f59_records_that_the_answer_does_not_mention_are_unknown(box, writer, cut):
    accounts = ids(box, "Account", 5)
    spoil(box, "rewrite", rewrite=rewritten(lambda results: results[cut:]))
    results = writer.update([score(id) for id in accounts])
    assert outcomes(results) == [Outcome.UNKNOWN] * cut + [Outcome.DONE] * (5 - cut)
    spoil(box, "rewrite", rewrite=rewritten(lambda results: results[cut:]))
    results = writer.create_tasks([task(box, f"k{number}") for number in range(5)])
    assert outcomes(results) == [Outcome.UNKNOWN] * 5


def test_f59_a_refusal_that_cannot_be_told_apart_is_unknown(box, writer):
    accounts = ids(box, "Account", 4)
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=accounts[:2])
    spoil(box, "rewrite", rewrite=rewritten(lambda results: results[1:]))
    results = writer.update([score(id) for id in accounts])
    assert outcomes(results) == [Outcome.UNKNOWN] * 2 + [Outcome.DONE] * 2


def test_f65_a_deleted_account_is_gone(box, writer):
    living, binned = ids(box, "Account", 2)
    change(box, "Account", binned, IsDeleted=True)
    results = writer.update([score(binned), score(living), score("0015g00000ZZZZZAAA")])
    assert outcomes(results) == [Outcome.GONE, Outcome.DONE, Outcome.GONE]
    assert results[0].reason == "ENTITY_IS_DELETED"
    seen = writer.records_by_id("account", [living, binned], ["risk_score"])
    assert [seen[id].gone for id in (living, binned)] == [False, True]
    assert seen[binned].successor is None
    results = writer.create_tasks([task(box, record_id=binned), task(box, "k2", record_id=living)])
    assert outcomes(results) == [Outcome.GONE, Outcome.DONE]


def test_f66_a_merged_account_is_followed_to_the_one_that_lives(box, writer):
    loser, second, winner = ids(box, "Account", 3)
    change(box, "Account", loser, IsDeleted=True, MasterRecordId=second)
    change(box, "Account", second, IsDeleted=True, MasterRecordId=winner)
    results = writer.update([score(loser), score(second), score(winner)])
    assert outcomes(results) == [Outcome.MERGED, Outcome.MERGED, Outcome.DONE]
    assert [result.successor for result in results] == [winner, winner, None]
    (result,) = writer.create_tasks([task(box, record_id=loser)])
    assert (result.outcome, result.successor) == (Outcome.MERGED, winner)
    changed = {r.record_id: r for r in writer.records_changed("account", NOW, ["risk_score"])}
    assert (changed[loser].gone, changed[loser].successor) == (True, second)


def test_a_look_up_that_fails_leaves_the_record_unknown_and_keeps_the_others(box, writer):
    living, binned = ids(box, "Account", 2)
    change(box, "Account", binned, IsDeleted=True)
    spoil(box, "status", path="queryAll", code=400, body=[{"errorCode": "MALFORMED_QUERY"}])
    results = writer.update([score(binned), score(living)])
    assert outcomes(results) == [Outcome.UNKNOWN, Outcome.DONE]


# Tasks


def test_a_task_has_our_key_and_everything_that_was_decided(box, writer):
    (result,) = writer.create_tasks([task(box, subject=" Find\nthe  champion " + "x" * 300)])
    made = body(box, "Task", result.crm_id)
    assert made["Subject"].startswith("Find the champion xxx")
    assert len(made["Subject"]) == 255
    assert made["Description"] == "The champion left.\n- Ask for the successor"
    assert (made["ActivityDate"], made["Status"], made["Priority"]) == (
        "2026-07-02", "Not Started", "High",
    )  # fmt: skip
    (seen,) = writer.tasks_by_key(["k1", "k2"]).values()
    assert (seen.key, seen.task_id, seen.record_id, seen.owner_id, seen.status) == (
        "k1", result.crm_id, ids(box, "Account", 1)[0], MANAGER, "open",
    )  # fmt: skip
    assert (seen.episode, seen.due_on) == ("champion-left/2026-06-30/k1", dt.date(2026, 7, 2))
    assert seen.modified_at == box.now


def test_a_task_uses_the_words_of_the_org(box):
    words = {"open_status": "In Progress", "closed_status": "Deferred",
             "priorities": {"high": "Normal"}}  # fmt: skip
    writer = writer_of(box, task=words)
    (made,) = writer.create_tasks([task(box)])
    assert body(box, "Task", made.crm_id)["Status"] == "In Progress"
    assert body(box, "Task", made.crm_id)["Priority"] == "Normal"
    assert outcomes(writer.change_tasks([TaskChange("k1", made.crm_id)])) == [Outcome.DONE]
    assert body(box, "Task", made.crm_id)["Status"] == "Deferred"


def test_a_closed_task_is_seen_as_completed_and_a_deleted_one_as_deleted(box, writer):
    first, second = writer.create_tasks([task(box, "k1"), task(box, "k2")])
    assert outcomes(writer.change_tasks([TaskChange("k1", first.crm_id)])) == [Outcome.DONE]
    change(box, "Task", second.crm_id, IsDeleted=True)
    seen = writer.tasks_by_key(["k1", "k2"])
    assert (seen["k1"].status, seen["k2"].status) == ("completed", "deleted")
    closing = writer.change_tasks([TaskChange("k2", second.crm_id), TaskChange("k1", first.crm_id)])
    assert outcomes(closing) == [Outcome.GONE, Outcome.DONE]


def test_f62_a_key_that_exists_already_is_done_with_its_id(box, writer):
    (made,) = writer.create_tasks([task(box)])
    results = writer.create_tasks([task(box, "k0"), task(box)])
    assert outcomes(results) == [Outcome.DONE] * 2
    assert results[1].crm_id == made.crm_id
    assert len(records(box, "Task").rows(box.now.timestamp())) == 2


def test_f62_a_key_whose_record_is_not_told_is_asked_for(box, writer):
    admin(box).put("keys", {"tells_id": False, "bin_blocks": False}, 0.0)
    (made,) = writer.create_tasks([task(box)])
    (again,) = writer.create_tasks([task(box)])
    assert (again.outcome, again.crm_id) == (Outcome.DONE, made.crm_id)


def test_f62_a_key_in_the_recycle_bin_is_done_as_well_where_it_blocks(box, writer):
    admin(box).put("keys", {"tells_id": False, "bin_blocks": True}, 0.0)
    (made,) = writer.create_tasks([task(box)])
    change(box, "Task", made.crm_id, IsDeleted=True)
    (again,) = writer.create_tasks([task(box)])
    assert (again.outcome, again.crm_id) == (Outcome.DONE, made.crm_id)


def test_f62_the_duplicate_of_another_field_is_a_refusal(box, writer):
    told = "duplicate value found: Other__c duplicates value on record with id: 00T5g0000000001"
    refuse(box, "Task", "DUPLICATE_VALUE", message=told)
    (result,) = writer.create_tasks([task(box)])
    assert (result.outcome, result.reason) == (Outcome.REJECTED, "DUPLICATE_VALUE")
    spoil(box, "status", path="queryAll", code=400, body=[{"errorCode": "MALFORMED_QUERY"}])
    assert outcomes(writer.create_tasks([task(box)])) == [Outcome.UNKNOWN]


def test_f63_a_duplicate_rule_of_the_org_is_a_refusal(box, writer):
    refuse(box, "Task", "DUPLICATES_DETECTED", most=1)
    results = writer.create_tasks([task(box, "k1"), task(box, "k2")])
    assert outcomes(results) == [Outcome.REJECTED, Outcome.DONE]
    assert results[0].reason == "DUPLICATES_DETECTED"


def test_f64_a_key_that_comes_twice_in_a_call_is_sent_once(box, writer):
    results = writer.create_tasks([task(box), task(box, "k2"), task(box)])
    assert outcomes(results) == [Outcome.DONE] * 3
    assert results[0].crm_id == results[2].crm_id != results[1].crm_id
    assert len(records(box, "Task").rows(box.now.timestamp())) == 2


def test_f70_owners_who_left_and_queues_that_are_missing_are_refusals(box, writer):
    change(box, "User", MANAGER, IsActive=False)
    tasks = [
        task(box, "k1"), task(box, "k2", owner_id=SUPPORT_QUEUE),
        task(box, "k3", owner_id="0055g00000ZZZZZAAA"), task(box, "k4", owner_id=CS_QUEUE),
        task(box, "k5", owner_id=None),
    ]  # fmt: skip
    results = writer.create_tasks(tasks)
    assert outcomes(results) == [Outcome.REJECTED] * 3 + [Outcome.DONE] * 2
    assert [result.reason for result in results[:3]] == [
        "INACTIVE_OWNER_OR_USER", "FIELD_INTEGRITY_EXCEPTION OwnerId",
        "INVALID_CROSS_REFERENCE_KEY OwnerId",
    ]  # fmt: skip


def test_owners_are_people_with_zone_and_manager_and_the_queues_of_tasks(box, writer):
    change(box, "User", MANAGER, IsActive=False)
    owners = {owner.id: owner for owner in writer.owners()}
    assert (owners[MANAGER].active, owners[MANAGER].is_queue) == (False, False)
    assert all(owner.time_zone for owner in owners.values() if not owner.is_queue)
    assert any(owner.manager_id in owners for owner in owners.values())
    assert owners[CS_QUEUE].is_queue
    assert owners[CS_QUEUE].name == "CS Queue"
    assert SUPPORT_QUEUE not in owners


def test_tasks_that_changed_since_are_told_in_the_order_of_their_changes(box, writer):
    made = writer.create_tasks([task(box, f"k{number}") for number in range(6)])
    records(box, "Task").put("00T5g00000ZZZZZAAA", {"Subject": "no task of ours"}, NOW.timestamp())
    later = box.now + dt.timedelta(minutes=30)
    change(box, "Task", made[4].crm_id, Subject="renamed")
    change(box, "Task", made[1].crm_id, IsDeleted=True)
    box.small_pages = 2
    assert [seen.key for seen in writer.tasks_changed(later)] == ["k4", "k1"]
    assert sorted(seen.key for seen in writer.tasks_changed(None)) == [f"k{n}" for n in range(6)]


def test_a_task_that_was_archived_is_still_ours(box, writer):
    (made,) = writer.create_tasks([task(box)])
    writer.change_tasks([TaskChange("k1", made.crm_id)])
    box.move(box.now + dt.timedelta(days=400))
    assert writer.tasks_by_key(["k1"])["k1"].status == "completed"
    assert [seen.key for seen in writer.tasks_changed(None)] == ["k1"]


def test_records_that_changed_show_what_a_human_typed(box, writer):
    first, second = ids(box, "Account", 2)
    writer.update([score(first), score(second)])
    change(box, "Account", second, HL_Risk_Score__c=5.0)
    since = box.now - dt.timedelta(minutes=1)
    (seen,) = writer.records_changed("account", since, ["risk_score", "override_score"])
    assert (seen.record_id, seen.values["risk_score"]) == (second, "5")
    assert len(list(writer.records_changed("account", None, []))) == len(
        records(box, "Account").rows(box.now.timestamp(), deleted=True)
    )
    assert list(writer.records_changed("opportunity", box.now, ["risk_score"])) == []


def test_a_long_result_whose_place_is_lost_may_succeed_another_time(box, writer):
    box.small_pages = 20
    lost = [{"errorCode": "INVALID_QUERY_LOCATOR", "message": "invalid query locator"}]
    spoil(box, "status", path="/query/", code=400, body=lost)
    with pytest.raises(SourceUnavailable, match="lost its place"):
        list(writer.records_changed("account", None, ["risk_score"]))


# The call as a whole


def test_f50_a_session_that_expires_is_renewed_once_and_the_call_is_done(box):
    writer = writer_of(box, source=CLIENT)
    accounts = ids(box, "Account", 3)
    writer.update([score(accounts[0])])
    for token in sessions(box).rows(box.now.timestamp()):
        sessions(box).remove(token.id, box.now.timestamp())
    assert outcomes(writer.update([score(accounts[1])])) == [Outcome.DONE]
    assert box.count("salesforce", "oauth2/token") == 2
    assert len(writes(box)) == 2
    spoil(box, "status", code=401, body=EXPIRED)
    with pytest.raises(SourceRefused, match="refused the session"):
        writer.update([score(accounts[2])])
    assert box.count("salesforce", "oauth2/token") == 2


def test_f51_a_session_that_stays_refused_ends_after_one_login(box):
    writer = writer_of(box, source=CLIENT)
    writer.account()
    before = len(box.log)
    spoil(box, "status", path="/data/", code=401, body=EXPIRED, times=None)
    with pytest.raises(SourceRefused):
        writer.update([score(ids(box, "Account", 1)[0])])
    assert len(box.log) - before == 3
    token_only = writer_of(box)
    with pytest.raises(SourceRefused):
        token_only.update([score(ids(box, "Account", 1)[0])])
    assert len(box.log) - before == 4
    assert token_only.requests_sent == 1


def test_a_login_may_be_repeated_though_a_write_may_not(box, waits):
    spoil(box, "status", path="oauth2/token", code=503)
    writer = writer_of(box, source=CLIENT)
    assert outcomes(writer.update([score(ids(box, "Account", 1)[0])])) == [Outcome.DONE]
    assert (box.count("salesforce", "oauth2/token"), len(waits)) == (2, 1)
    assert writer.requests_sent == 3


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("commit_then_502", {}), ("status", {"code": 503}), ("reset", {}), ("truncate", {}),
        ("html", {}), ("empty", {}), ("error_json", {"body": {"message": "no"}}),
        ("error_json", {"body": [{"errorCode": "API_ERROR", "message": "no"}]}),
        ("error_json", {"body": []}), ("error_json", {"body": [{"success": False}]}),
        ("rewrite", {"rewrite": lambda body: b"[" * 100 + b"]" * 100}),
        ("rewrite", {"rewrite": lambda body: b"71"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_f17_a_write_without_a_proper_answer_is_unknown_and_sent_once(box, writer, do, how):
    (account,) = ids(box, "Account", 1)
    for send in (
        lambda: writer.update([score(account)]),
        lambda: writer.create_tasks([task(box)]),
    ):
        before = len(changes(box))
        spoil(box, do, **how)
        with pytest.raises(OutcomeUnknown) as error:
            send()
        assert len(changes(box)) == before + 1
        assert error.value.vendor == "salesforce"
        box.faults.clear()
    is_there = do not in ("status", "html", "empty", "error_json")
    assert list(writer.tasks_by_key(["k1"])) == (["k1"] if is_there else [])


def test_f01_a_busy_server_is_waited_for_because_nothing_was_done(box, writer, waits):
    spoil(box, "status", code=429, headers={"Retry-After": "7"})
    assert outcomes(writer.update([score(ids(box, "Account", 1)[0])])) == [Outcome.DONE]
    assert waits[0] == 7.0
    assert len(writes(box)) == 1


def test_a_connection_that_is_refused_is_no_unknown_outcome(box):
    writer = writer_of(box, source={"address": "https://127.0.0.1:9"})
    with pytest.raises(SourceUnavailable, match="refused the connection"):
        writer.update([score(ids(box, "Account", 1)[0])])


def test_f04_a_used_up_allowance_stops_at_once_and_says_how_much_is_used(box, writer):
    admin(box).put("api", {"used": 100, "allowed": 100}, 1.0)
    with pytest.raises(SourceExhausted, match="REQUEST_LIMIT_EXCEEDED"):
        writer.update([score(ids(box, "Account", 1)[0])])
    assert len(box.log) == 1
    assert (writer.budget().allowed, writer.budget().used) == (100, 101)


def test_f04_writing_stops_before_others_run_dry_and_reading_back_goes_on(box):
    admin(box).put("api", {"used": 59, "allowed": 100}, 1.0)
    writer = writer_of(box, daily_share=0.6)
    accounts = ids(box, "Account", 1)
    assert writer.budget().used is None
    writer.update([score(accounts[0])])
    for send in (
        lambda: writer.update([score(accounts[0])]),
        lambda: writer.create_tasks([task(box)]),
        lambda: writer.bulk.create("account", ["risk_score"]),
    ):
        with pytest.raises(SourceExhausted, match="API requests of the day"):
            send()
    assert changes(box) == [("PATCH", COLLECTIONS)]
    assert writer.records_by_id("account", accounts, ["risk_score"])


def test_f71_reading_sends_nothing_but_gets(box, writer):
    writer.account()
    writer.ready(fields=True, tasks=True)
    writer.rights()
    writer.owners()
    writer.tasks_by_key(["k1"])
    list(writer.tasks_changed(None))
    writer.records_by_id("account", ids(box, "Account", 3), ["risk_score"])
    list(writer.records_changed("opportunity", None, ["risk_score"]))
    assert {request.method for request in box.log} == {"GET"}
    assert writer.requests_sent == len(box.log)
    assert writes(box) == []


# Hostile input


HOSTILE = [
    "\\' OR Subject LIKE '%", "' OR HL_Key__c != null OR Subject = '", "a/../b?x", "k%27",
    'say "no"', "{}", "{0}", "line\nbreak", "tab\tkey", "\u202egnp", "ключ", "a" * 64,
]  # fmt: skip


def test_f85_f86_hostile_keys_find_nothing_but_themselves(box, writer):
    writer.create_tasks([task(box, "innocent")])
    assert writer.tasks_by_key(HOSTILE) == {}
    made = writer.create_tasks([task(box, key) for key in HOSTILE])
    assert outcomes(made) == [Outcome.DONE] * len(HOSTILE)
    found = writer.tasks_by_key(HOSTILE)
    assert {key: seen.task_id for key, seen in found.items()} == {
        key: result.crm_id for key, result in zip(HOSTILE, made, strict=True)
    }
    assert all("/../" not in request.path for request in box.log)


def test_f85_f86_hostile_record_ids_find_nothing_and_refuse_nobody_else(box, writer):
    (account,) = ids(box, "Account", 1)
    hostile = ["x') OR (Name != null", "../../limits", "001'", "", account]
    assert list(writer.records_by_id("account", hostile, ["risk_score"])) == [account]
    results = writer.update([score(id) for id in hostile if id])
    assert outcomes(results) == [Outcome.REJECTED] * 3 + [Outcome.DONE]
    for job in ("../query", "750' OR", ""):
        assert writer.bulk.state(job) == "missing"
        with pytest.raises(SourceRejected, match="no job of such an id"):
            writer.bulk.upload(job, [score(account)])


def test_many_keys_are_asked_for_in_addresses_that_are_short_enough(box, writer):
    keys = [f"{number:064x}" for number in range(700)]
    for start in range(0, 700, 200):
        batch = [task(box, key) for key in keys[start : start + 200]]
        assert outcomes(writer.create_tasks(batch)) == [Outcome.DONE] * len(batch)
    before = len(box.log)
    assert sorted(writer.tasks_by_key(keys)) == keys
    assert len(box.log) - before == 5


# Settings


def test_the_credentials_for_writing_take_the_place_of_those_for_reading(box):
    target = SalesforceTarget(source="crm", credentials=CLIENT)
    config = config_of(box, fields={"account": {"region": None}})
    merged = merged_config(config, target)
    assert (merged.access_token, merged.consumer_key.env) == (None, "SF_KEY")
    assert merged.fields == {"account": {"region": None}}
    assert (config.daily_share, merged.daily_share) == (0.8, 0.8)
    eager = merged_config(config, SalesforceTarget(source="crm", daily_share=0.9))
    assert (eager.daily_share, eager.access_token) == (0.9, config.access_token)
    only = SalesforceTarget(source="crm", credentials={"access_token": {"env": "OTHER"}})
    assert merged_config(config, only).access_token.env == "OTHER"
    assert merged_config(config_of(box, **CLIENT), only).consumer_key is None
    wrong = SalesforceTarget(source="crm", credentials={"username": {"env": "WHO"}})
    with pytest.raises(InputError, match="no way to log in"):
        merged_config(config, wrong)


def test_f93_neither_token_nor_key_stands_in_an_error_or_a_picture_of_the_writer(box):
    writer = writer_of(box, secrets=secrets_of(SALESFORCE_TOKEN="canary-token"))
    with pytest.raises(SourceRefused) as error:
        writer.create_tasks([task(box, "canary-key", subject="canary-subject")])
    assert "canary" not in f"{error.value!r} {error.value} {writer!r} {vars(writer)!r}"
    assert "canary" not in json.dumps([request.path for request in box.log])
