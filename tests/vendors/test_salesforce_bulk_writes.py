"""Salesforce: many records by one Bulk 2.0 job, whose id is known before anything is written."""

import datetime as dt
from functools import partial

import pytest
from conftest import NOW
from salesforce_org import change
from salesforce_writing import body, changes, ids, rewritten, score, writer_of

from connectors.crm.writing import FieldUpdate, Outcome
from connectors.http import Http
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import settings as admin
from connectors.sandbox.vendors.salesforce_ids import record_id
from connectors.sandbox.vendors.salesforce_ingest import job_orders
from connectors.sandbox.vendors.salesforce_metadata import provisioned
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_rules import refuse
from connectors.sandbox.vendors.salesforce_writes import writes
from connectors.vendors.salesforce import bulk_writes
from connectors.vendors.salesforce import client as client_module
from contracts.errors import (
    OutcomeUnknown,
    SourceCorrupt,
    SourceExhausted,
    SourceRejected,
)

FIELDS = ["risk_score", "risk_reasons"]
INGEST = "jobs/ingest"


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
def bulk(box):
    return writer_of(box).bulk


def ended(bulk, job):
    """Look at a job until it has ended."""
    for _ in range(5):
        if (state := bulk.state(job)) not in ("open", "working"):
            return state
    return bulk.state(job)


def ordered(box, **order):
    """Say how the next job ends."""
    job_orders(box).put("next", order, box.now.timestamp())


def outcomes(results):
    return [result.outcome for result in results]


def test_3000_records_are_written_by_one_job_in_three_requests(box, bulk):
    accounts = [record_id("001", 5_000_000 + number) for number in range(3000)]
    for id in accounts:
        records(box, "Account").put(id, {"Name": id}, NOW.timestamp())
    updates = [score(id, str(place % 100)) for place, id in enumerate(accounts)]
    job = bulk.create("account", ["risk_score"])
    assert bulk.state(job) == "open"
    assert writes(box) == []
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    results = bulk.results(job, updates)
    assert outcomes(results) == [Outcome.DONE] * 3000
    assert [result.crm_id for result in results] == accounts
    assert body(box, "Account", accounts[71])["HL_Risk_Score__c"] == 71
    assert [method for method, _ in changes(box)] == ["POST", "PUT", "PATCH"]


def test_only_the_fields_of_a_record_are_changed_and_none_empties_one(box, bulk):
    first, second = ids(box, "Account", 2)
    job = bulk.create("account", FIELDS)
    bulk.upload(job, [score(first, "1", risk_reasons="Usage fell"), score(second, "2")])
    assert ended(bulk, job) == "complete"
    updates = [
        FieldUpdate("account", first, {"risk_reasons": None}),
        FieldUpdate("account", second, {"risk_score": ""}),
    ]
    job = bulk.create("account", FIELDS)
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    assert outcomes(bulk.results(job, updates)) == [Outcome.DONE] * 2
    kept = [
        tuple(body(box, "Account", id).get(f"HL_Risk_{name}__c") for name in ("Score", "Reasons"))
        for id in (first, second)
    ]
    assert kept == [(1, None), (None, None)]


def test_f49_a_text_that_spells_what_empties_a_field_empties_none(box, bulk):
    """No file can say `#N/A` of a text: it says as much of it as it can."""
    accounts = ids(box, "Account", 3)
    texts = ["#N/A", "N/A", " #N/A of them "]
    updates = [score(id, risk_reasons=text) for id, text in zip(accounts, texts, strict=True)]
    job = bulk.create("account", FIELDS)
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    assert outcomes(bulk.results(job, updates)) == [Outcome.DONE] * 3
    shown = [body(box, "Account", id)["HL_Risk_Reasons__c"] for id in accounts]
    assert [text.strip() for text in shown] == ["N/A", "N/A", "#N/A of them"]


def test_f89_formulas_quotes_commas_and_lines_arrive_as_they_are(box, bulk):
    texts = [
        "=1+2",
        "+SUM(A1)",
        "-7",
        "@x",
        'say "no", or\nnot',
        "a,b;c\td",
        "\u202e\u0644 \U0001f600",
    ]
    accounts = ids(box, "Account", len(texts))
    updates = [score(id, risk_reasons=text) for id, text in zip(accounts, texts, strict=True)]
    job = bulk.create("account", FIELDS)
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    assert outcomes(bulk.results(job, updates)) == [Outcome.DONE] * len(texts)
    assert [body(box, "Account", id)["HL_Risk_Reasons__c"] for id in accounts] == texts


def test_f54_f52_f65_each_record_is_told_by_its_id_whatever_the_order(box, bulk):
    good, ruled, locked, binned, merged, heir = ids(box, "Account", 6)
    refuse(box, "Account", "FIELD_CUSTOM_VALIDATION_EXCEPTION", ids=[ruled],
           message="canary: is wrong", fields=["Industry", "Type"])  # fmt: skip
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=[locked])
    change(box, "Account", binned, IsDeleted=True)
    change(box, "Account", merged, IsDeleted=True, MasterRecordId=heir)
    updates = [score(id) for id in (good, ruled, locked, binned, merged, heir)]
    updates.append(score(good, "nan"))
    job = bulk.create("account", FIELDS)
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    results = bulk.results(job, updates)
    assert outcomes(results) == [
        Outcome.DONE, Outcome.REJECTED, Outcome.BUSY, Outcome.GONE, Outcome.MERGED, Outcome.DONE,
        Outcome.REJECTED,
    ]  # fmt: skip
    assert results[1].reason == "FIELD_CUSTOM_VALIDATION_EXCEPTION Industry, Type"
    assert results[4].successor == heir
    assert results[6].reason == "INVALID_VALUE risk_score"
    assert "canary" not in str(results)


@pytest.mark.parametrize("end", ["Failed", "Aborted"])
def test_f60_a_job_that_breaks_off_tells_what_it_did_and_the_rest_is_unknown(box, bulk, end):
    accounts = ids(box, "Account", 10)
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=accounts[:1])
    ordered(box, end=end, processed=4)
    updates = [score(id) for id in accounts]
    job = bulk.create("account", ["risk_score"])
    bulk.upload(job, updates)
    assert ended(bulk, job) == end.lower()
    results = bulk.results(job, updates)
    assert outcomes(results) == [Outcome.BUSY] + [Outcome.DONE] * 3 + [Outcome.UNKNOWN] * 6
    assert results[-1].reason == "not processed"


def test_f60_a_job_that_does_not_end_can_be_aborted_and_aborted_again(box, bulk):
    ordered(box, end="InProgress", processed=0)
    updates = [score(id) for id in ids(box, "Account", 2)]
    job = bulk.create("account", ["risk_score"])
    bulk.upload(job, updates)
    assert ended(bulk, job) == "working"
    bulk.abort(job)
    assert bulk.state(job) == "aborted"
    bulk.abort(job)
    assert outcomes(bulk.results(job, updates)) == [Outcome.UNKNOWN] * 2
    assert writes(box) == []


def test_f60_a_job_is_adopted_by_its_id_and_missing_after_seven_days(box, bulk):
    updates = [score(id) for id in ids(box, "Account", 2)]
    job = bulk.create("account", ["risk_score"])
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    another = writer_of(box).bulk
    assert outcomes(another.results(job, updates)) == [Outcome.DONE] * 2
    box.move(box.now + dt.timedelta(days=8))
    assert another.state(job) == "missing"
    another.abort(job)
    with pytest.raises(SourceRejected):
        another.results(job, updates)


def test_a_column_that_is_unknown_fails_the_job_and_nothing_is_done(box):
    bulk = writer_of(box, fields={"account": {"risk_score": "HL_Nowhere__c"}}).bulk
    updates = [score(id) for id in ids(box, "Account", 2)]
    job = bulk.create("account", ["risk_score"])
    bulk.upload(job, updates)
    assert ended(bulk, job) == "failed"
    assert outcomes(bulk.results(job, updates)) == [Outcome.UNKNOWN] * 2
    assert writes(box) == []


@pytest.mark.parametrize(
    "refusal", [[403, "FUNCTIONALITY_NOT_ENABLED"], [400, "FEATURENOTENABLED"]]
)
def test_f61_an_org_without_bulk_jobs_rejects_them_at_once(box, bulk, refusal):
    admin(box).put("bulk", {"refuses": refusal}, 0.0)
    with pytest.raises(SourceRejected):
        bulk.create("account", ["risk_score"])
    assert changes(box) == [("POST", INGEST)]


def test_f04_no_job_is_begun_when_the_budget_is_used_up(box):
    admin(box).put("api", {"used": 100, "allowed": 100}, 1.0)
    with pytest.raises(SourceExhausted):
        writer_of(box).bulk.create("account", ["risk_score"])


@pytest.mark.parametrize("do", ["commit_then_502", "html", "truncate", "error_json"])
def test_f17_a_job_whose_making_is_not_answered_has_done_nothing(box, bulk, do):
    how = {"body": {"message": "no"}} if do == "error_json" else {}
    box.faults.add(vendor="salesforce", do=do, path=f"{INGEST}$", **how)
    with pytest.raises(OutcomeUnknown):
        bulk.create("account", ["risk_score"])
    assert changes(box) == [("POST", INGEST)]
    assert writes(box) == []


@pytest.mark.parametrize(("path", "state"), [("/batches", "open"), (f"{INGEST}/750", "working")])
def test_f17_an_upload_that_is_not_answered_is_unknown_until_the_job_is_looked_at(
    box, bulk, path, state
):
    updates = [score(id) for id in ids(box, "Account", 2)]
    job = bulk.create("account", ["risk_score"])
    nth = 2 if state == "working" else 1
    box.faults.add(vendor="salesforce", do="commit_then_502", path=path, nth=nth)
    with pytest.raises(OutcomeUnknown):
        bulk.upload(job, updates)
    assert bulk.state(job) == state


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("successfulResults", lambda content: content[: content.index(b"\n") + 1]),
        ("successfulResults", lambda content: content.replace(b"sf__Id", b"Else")),
        ("failedResults", lambda content: content.replace(b"sf__Error", b"Else")),
    ],
)
def test_results_that_are_not_whole_are_no_results(box, bulk, kind, broken):
    first, second = ids(box, "Account", 2)
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=[first])
    updates = [score(first), score(second)]
    job = bulk.create("account", ["risk_score"])
    bulk.upload(job, updates)
    assert ended(bulk, job) == "complete"
    box.faults.add(vendor="salesforce", do="rewrite", path=kind, rewrite=broken)
    with pytest.raises(SourceCorrupt):
        bulk.results(job, updates)
    assert outcomes(bulk.results(job, updates)) == [Outcome.BUSY, Outcome.DONE]


def test_a_job_that_is_described_without_its_state_is_no_answer(box, bulk):
    job = bulk.create("account", ["risk_score"])
    box.faults.add(vendor="salesforce", do="rewrite", path=f"{job}$",
                   rewrite=rewritten(lambda job: {"id": job["id"]}))  # fmt: skip
    with pytest.raises(SourceCorrupt, match="without its state"):
        bulk.state(job)


def test_what_is_too_much_for_one_upload_is_refused_before_it_is_sent(box, bulk, monkeypatch):
    monkeypatch.setattr(bulk_writes, "LARGEST_UPLOAD_BYTES", 10_000)
    updates = [score(id, risk_reasons='"' * 1000) for id in ids(box, "Account", 9)]
    job = bulk.create("account", FIELDS)
    with pytest.raises(SourceRejected, match="no upload as large"):
        bulk.upload(job, updates)
    assert [method for method, _ in changes(box)] == ["POST"]
    bulk.upload(job, updates[:4])
    assert ended(bulk, job) == "complete"
