"""Bulk jobs of Salesforce that go wrong (F60, F61): never run twice, and nothing is left out.

A job's id is in the ledger before anything is uploaded. Whatever happens then, the next run finds
the job by it, and what it did not write goes another way.
"""

import datetime as dt

import pytest

from connectors.crm.ledger import Ledger
from connectors.sandbox.vendors.salesforce_ingest import job_orders
from connectors.sandbox.vendors.salesforce_settings import settings as org_settings
from tests.faults.crm_writes import (
    PERSONAL,
    assert_alike,
    check,
    check_converged,
    check_quiet,
    open_crm,
)

SIZE = (6, 0, 2, 0)
BULK = {"bulk_above": {"salesforce": 3}}
FILLED = "jobs/ingest/[^/]*/batches$"
MADE = "jobs/ingest$"


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def crm(world, tmp_path, impatient):
    with open_crm("salesforce", world, tmp_path) as crm:
        crm.batch_size = 100
        yield crm


@pytest.fixture
def wish(crm):
    return crm.start(*SIZE)


@pytest.fixture
def wanted(crm, fault_free_crm):
    return fault_free_crm.shown("salesforce", *SIZE)


def order(crm, end, processed=0):
    """How the next job goes on."""
    at = crm.now().timestamp()
    job_orders(crm.box).put("next", {"end": end, "processed": processed}, at)


def let_it_end(crm):
    """The job that never ended ends after all."""
    orders = job_orders(crm.box)
    for row in orders.rows(crm.now().timestamp()):
        orders.remove(row.id, crm.now().timestamp())


def jobs_made(crm):
    return sum(r.method == "POST" for r in crm.box.log if r.path.endswith("jobs/ingest"))


def collections(crm):
    """Calls that write accounts by collections."""
    return sum(r.method == "PATCH" for r in crm.box.log if r.path.endswith("composite/sobjects"))


def test_a_job_that_goes_well_is_one_job_and_no_other_call(crm, wish, wanted):
    run = crm.run(wish, **BULK)
    assert (jobs_made(crm), collections(crm)) == (1, 0)
    assert run.states() == {"written": 8}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


@pytest.mark.parametrize("processed", [0, 2])
@pytest.mark.parametrize("end", ["Failed", "Aborted"])
def test_f60_what_a_job_that_broke_off_did_not_process_goes_by_collections(
    end, processed, crm, wish, wanted
):
    order(crm, end, processed)
    run = crm.run(wish, **BULK)
    assert (jobs_made(crm), collections(crm)) == (1, 1)
    fields = [i for i in run.intents if i.kind == "fields"]
    assert sorted(i.attempts for i in fields) == [1] * processed + [2] * (6 - processed)
    assert run.states() == {"written": 8}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


def test_f54_a_row_that_a_job_refuses_is_put_aside_and_a_locked_one_tried_again(crm, wish, wanted):
    bad, locked = wish.ids()[:2]
    crm.refuse("Account", "FIELD_CUSTOM_VALIDATION_EXCEPTION", [bad])
    crm.refuse("Account", crm.locked, [locked], times=1)
    run = crm.run(wish, **BULK)
    assert run.of(bad).state == "rejected"
    assert "FIELD_CUSTOM_VALIDATION_EXCEPTION" in run.of(bad).reason
    assert (run.of(locked).state, run.of(locked).attempts) == ("written", 2)
    assert (jobs_made(crm), collections(crm)) == (1, 1)
    check(crm, wish)
    assert_alike(crm.shown()[:1], ({k: v for k, v in wanted[0].items() if k[1] != bad},))
    check_quiet(crm, wish)


def test_f60_a_job_that_is_stuck_is_waited_for_and_then_adopted_by_the_next_run(crm, wish, wanted):
    order(crm, "InProgress")
    began = crm.now()
    run = crm.run(wish, **BULK)
    assert (crm.now() - began).total_seconds() < 3600 + 2 * 1800
    assert run.states() == {"deferred": 6, "written": 2}
    assert any("still at work" in note for note in run.applied.degraded)
    check(crm, wish)
    # It is at work yet: nothing of it goes out a second time.
    second = crm.run(wish, **BULK)
    assert second.states() == {"deferred": 6}
    assert (jobs_made(crm), collections(crm)) == (1, 0)
    check(crm, wish)
    let_it_end(crm)
    third = crm.run(wish, **BULK)
    assert third.intents == ()
    assert (jobs_made(crm), collections(crm)) == (1, 0)
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


@pytest.mark.parametrize("at", ["create", "note", "upload", "state", "results"])
def test_f60_a_job_of_a_run_that_died_is_found_and_not_run_twice(
    at, crm, wish, wanted, monkeypatch
):
    """The process dies right after `at`."""
    writer = crm.writer()
    ledger = Ledger(crm.url)
    owner, name = (ledger, "note_job") if at == "note" else (writer.bulk, at)
    done = getattr(owner, name)

    def dies(*given):
        done(*given)
        raise Killed

    monkeypatch.setattr(owner, name, dies)
    with pytest.raises(Killed):
        crm.run(wish, writer=writer, ledger=ledger, **BULK)
    check(crm, wish)
    clean = check_converged(crm, wish, wanted, **BULK)
    filled = crm.box.count("salesforce", FILLED)
    assert filled == 1, "the records were uploaded twice"
    written = [id for table, id, _, _ in crm.written() if table == "Account"]
    assert len(written) == len(set(written))
    assert clean.states("fields") == ({"written": 6} if at in ("create", "note") else {})


def test_f60_a_job_that_the_org_has_purged_is_told_by_what_the_records_show(crm, wish, wanted):
    order(crm, "InProgress", processed=6)
    crm.run(wish, **BULK)
    let_it_end(crm)
    with Ledger(crm.url) as ledger:
        (batch,) = ledger.sent()
    writer = crm.writer()
    for _ in range(3):
        writer.bulk.state(batch.job_id)  # it gets on as it is looked at
    crm.box.move(crm.now() + dt.timedelta(days=8))
    assert writer.bulk.state(batch.job_id) == "missing"
    check_converged(crm, wish, wanted, **BULK)
    assert (jobs_made(crm), collections(crm)) == (1, 0)


@pytest.mark.parametrize(
    ("do", "how"),
    [("commit_then_502", {}), ("reset", {}), ("html", {}), ("status", {"code": 503})],
)
@pytest.mark.parametrize("path", [MADE, FILLED, "jobs/ingest/[^/]*$", "Results$"])
def test_f17_a_step_of_a_job_without_an_answer_is_looked_up(do, how, path, crm, wish, wanted):
    rule = crm.box.faults.add(vendor="salesforce", path=path, do=do, **how)
    run = crm.run(wish, **BULK)
    assert rule.seen >= 1
    assert run.applied.failed is None
    check(crm, wish)
    written = [id for table, id, _, _ in crm.written() if table == "Account"]
    assert len(written) == len(set(written))
    check_converged(crm, wish, wanted, **BULK)


@pytest.mark.parametrize(
    "refuses", [[403, "FUNCTIONALITY_NOT_ENABLED"], [400, "FEATURENOTENABLED"], [404, "NOT_FOUND"]]
)
def test_f61_where_there_are_no_jobs_collections_do_it(refuses, crm, wish, wanted):
    org_settings(crm.box).put("bulk", {"refuses": refuses}, 0.0)
    run = crm.run(wish, **BULK)
    assert (jobs_made(crm), collections(crm)) == (1, 1)
    assert run.states() == {"written": 8}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)


def test_f04_a_job_is_not_begun_when_the_days_requests_are_used_up(crm, wish, wanted):
    body = [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": f"Ada {PERSONAL}"}]
    crm.box.faults.add(vendor="salesforce", path=MADE, do="status", code=403, body=body, times=None)
    run = crm.run(wish, **BULK)
    assert crm.sent() == 1
    assert run.states() == {"deferred": 8}
    check(crm, wish)
    check_converged(crm, wish, wanted, **BULK)
