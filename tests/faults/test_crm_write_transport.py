"""Transport faults (F1 to F17) on what is written: sent once, read back, never doubled.

A write whose answer is lost or broken may have been done. The CRM is asked; only what it does not
show is sent again. What certainly had no effect (a 429, no connection) may go out again at once.
"""

import socket

import pytest

from connectors.crm.ledger import Ledger
from connectors.http import Http, Patience
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors.salesforce_settings import settings as org_settings
from tests.faults.crm_writes import (
    LOGS_IN,
    PERSONAL,
    assert_alike,
    check,
    check_converged,
    check_quiet,
)

CALLS = ("accounts", "opportunities", "open", "close")
SIZE = (3, 2, 2, 2)
"""Of the wishes here; less than a batch, so that there is one call of each sort."""

DONE = {
    "f07-reset": {"do": "reset"},
    "f08-gzip": {"do": "bad_gzip"},
    "f09-truncated": {"do": "truncate"},
    "f10-too-long": {"do": "wrong_length", "by": 100},
    "f10-too-short": {"do": "wrong_length", "by": -5},
    "f17-502": {"do": "commit_then_502"},
}
"""The CRM did it, and its answer is broken."""

NOT_DONE = {
    "f05-503": {"do": "status", "code": 503, "body": {"message": f"Ada {PERSONAL} is away"}},
    "f06-500": {"do": "status", "code": 500},
    "f11-error": {"do": "error_json", "body": {"message": f"Ada {PERSONAL} is away"}},
    "f12-html": {"do": "html"},
    "f13-empty": {"do": "empty"},
    "f17-504": {"do": "status", "code": 504, "body": "<h1>gateway timeout</h1>"},
    "f17-524": {"do": "status", "code": 524, "body": "<h1>a timeout occurred</h1>"},
}
"""The CRM did nothing, but the answer does not say so."""


def attempts(run):
    return {intent.attempts for intent in run.intents}


@pytest.fixture
def wish(crm):
    crm.batch_size = 100
    return crm.start(*SIZE)


@pytest.fixture
def wanted(crm, fault_free_crm):
    return fault_free_crm.shown(crm.name, *SIZE)


@pytest.mark.parametrize("fault", DONE)
def test_what_was_done_is_found_and_not_sent_again(fault, crm, wish, wanted):
    rules = [crm.spoil(call, **DONE[fault]) for call in CALLS]
    run = crm.run(wish)
    assert [rule.seen for rule in rules] == [1, 1, 1, 1], "something was sent a second time"
    assert run.states() == {"written": len(run.intents)}
    assert attempts(run) == {1}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


@pytest.mark.parametrize("fault", NOT_DONE)
def test_what_was_not_done_is_sent_again_once_that_is_known(fault, crm, wish, wanted):
    rules = [crm.spoil(call, **NOT_DONE[fault]) for call in CALLS]
    run = crm.run(wish)
    assert [rule.seen for rule in rules] == [2, 2, 2, 2]
    assert run.states() == {"written": len(run.intents)}
    assert attempts(run) == {2}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


def test_f14_an_answer_that_never_comes_is_not_waited_for(crm, wish, wanted, monkeypatch):
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "patience", Patience(read_seconds=0.7))
    rule = crm.spoil("open", "stall")
    run = crm.run(wish)
    assert rule.seen == 2
    assert run.states() == {"written": len(run.intents)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)


@pytest.mark.parametrize(
    ("headers", "waits"),
    [({"Retry-After": "7"}, 7.0), ({}, None), ({"Retry-After": "99999999999"}, None)],
    ids=["f01-seconds", "f02-missing", "f02-absurd"],
)
def test_a_burst_limit_is_waited_out_and_the_call_goes_again(
    headers, waits, crm, wish, wanted, impatient
):
    body = {"policyName": "TEN_SECONDLY_ROLLING", "message": f"Ada {PERSONAL} asks too much"}
    rule = crm.spoil("accounts", "status", code=429, headers=headers, body=body)
    before = impatient.seconds
    run = crm.run(wish)
    assert rule.seen == 2
    assert attempts(run) == {1}, "a 429 says for certain that nothing was done"
    if waits is None:
        assert 0 < impatient.seconds - before <= 30
    else:
        assert impatient.seconds - before >= waits
    assert run.states() == {"written": len(run.intents)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)


@pytest.mark.parametrize(
    "headers",
    [{"Retry-After": "Tue, 30 Jun 2026 21:00:00 GMT", "Date": "Tue, 30 Jun 2026 20:00:00 GMT"},
     {"Retry-After": "3600"}],
    ids=["date", "seconds"],
)  # fmt: skip
def test_f02_a_limit_that_lasts_an_hour_leaves_the_rest_for_the_next_run(
    headers, crm, wish, wanted
):
    rule = crm.spoil("accounts", "status", code=429, headers=headers, times=None)
    run = crm.run(wish)
    assert (rule.seen, crm.sent()) == (1, 1)
    assert run.states() == {"deferred": len(run.intents)}
    assert run.applied.failed is None
    assert run.applied.degraded
    check(crm, wish)
    check_converged(crm, wish, wanted)


def used_up(crm):
    """The day's limit, as each CRM says it."""
    if crm.name == "hubspot":  # F3
        return {"code": 429, "body": {"policyName": "DAILY", "message": PERSONAL}}
    return {"code": 403, "body": [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": PERSONAL}]}


@pytest.mark.parametrize("call", CALLS)
def test_f03_f04_when_the_days_requests_are_used_up_the_rest_waits_and_nothing_storms(
    call, crm, wish, wanted
):
    rule = crm.spoil(call, "status", times=None, **used_up(crm))
    run = crm.run(wish)
    assert rule.seen == 1
    assert crm.sent() == CALLS.index(call) + 1
    assert run.applied.failed is None
    assert run.applied.degraded
    assert set(run.states()) == ({"deferred"} if call == "accounts" else {"written", "deferred"})
    check(crm, wish)
    check_converged(crm, wish, wanted)


def test_f04_writing_stops_before_others_lack_requests(crm, wish, wanted):
    if crm.name == "salesforce":
        org_settings(crm.box).put("api", {"used": 60_000, "allowed": 100_000}, 0.0)
    else:
        portal.settings(crm.box, used_by_others=400_000)
    writer = crm.writer()
    with Ledger(crm.url) as ledger:
        crm.observe(ledger, writer)  # which learns how much is used
    before = crm.sent()
    run = crm.run(wish, writer=writer, budget={crm.name: 0.5})
    assert crm.sent() == before
    assert run.states() == {"deferred": len(run.intents)}
    assert all("requests" in intent.reason for intent in run.intents)
    check(crm, wish)
    if crm.name == "salesforce":
        org_settings(crm.box).put("api", {"used": 0, "allowed": 100_000}, 0.0)
    else:
        portal.settings(crm.box, used_by_others=0)
    check_converged(crm, wish, wanted, budget={crm.name: 0.5})


def test_f06_writes_that_fail_for_good_are_tried_so_often_and_then_wait(crm, wish, wanted):
    rules = [crm.spoil(call, "status", code=500, times=None) for call in CALLS]
    run = crm.run(wish)
    assert [rule.seen for rule in rules] == [3, 3, 2, 2]
    assert run.states() == {"deferred": len(run.intents)}
    check(crm, wish)
    check_converged(crm, wish, wanted)


@pytest.mark.parametrize("call", CALLS)
def test_f06_what_cannot_be_read_back_stays_open_and_nothing_else_is_sent(call, crm, wish, wanted):
    first = crm.run_until_lost(wish, call)
    assert first.applied.degraded
    assert {"deferred"} <= set(first.states()) <= {"written", "deferred"}
    check(crm, wish)
    with Ledger(crm.url) as ledger:
        assert len(ledger.sent()) == 1
    before = crm.sent()
    second = crm.run(wish)
    assert crm.sent() == before
    assert set(second.states()) == {"deferred"}
    check(crm, wish)
    check_converged(crm, wish, wanted)


def test_f15_a_crm_that_cannot_be_reached_leaves_everything_for_the_next_run(crm, wish, wanted):
    scheme = crm.box.address(crm.name).partition(":")[0]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"{scheme}://127.0.0.1:{nobody.getsockname()[1]}"
        run = crm.run(wish, writer=crm.writer(address=address))
    assert crm.box.log == []
    assert run.states() == {"deferred": len(run.intents)}
    assert run.applied.failed is None
    assert run.applied.degraded
    check(crm, wish)
    check_converged(crm, wish, wanted)


def test_f16_a_redirect_to_another_host_is_not_followed_and_nothing_goes_there(crm, wish, wanted):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        other.setblocking(False)
        to = f"http://127.0.0.1:{other.getsockname()[1]}/here"
        rule = crm.spoil("accounts", "redirect", to=to, code=307, times=None)
        run = crm.run(wish)
        with pytest.raises(BlockingIOError):
            other.accept()
    assert rule.seen == 1
    assert "redirects to another host" in run.applied.failed
    assert run.states() == {"deferred": len(run.intents)}
    check(crm, wish)
    check_converged(crm, wish, wanted)


def refused_credentials(crm):
    body = [{"errorCode": "INVALID_SESSION_ID", "message": f"Ada {PERSONAL}'s session expired"}]
    if crm.name == "hubspot":
        body = {"category": "INVALID_AUTHENTICATION", "message": f"Ada {PERSONAL}'s token"}
    return {"do": "status", "code": 401, "body": body}


@pytest.mark.parametrize("call", CALLS)
def test_f50_a_session_that_expires_midway_is_renewed_once(call, crm, wish, wanted):
    crm.settings = LOGS_IN if crm.name == "salesforce" else {}
    rule = crm.spoil(call, **refused_credentials(crm))
    run = crm.run(wish)
    if crm.name == "hubspot":  # whose token cannot be renewed
        assert rule.seen == 1
        assert run.applied.failed
        check(crm, wish)
        check_converged(crm, wish, wanted)
        return
    assert rule.seen == 2
    assert crm.box.count("salesforce", "oauth2/token") == 2
    assert attempts(run) == {1}
    assert run.states() == {"written": len(run.intents)}
    check(crm, wish)
    assert_alike(crm.shown(), wanted)


@pytest.mark.parametrize("renewal", ["is refused as well", "is refused"])
def test_f51_credentials_that_are_refused_end_the_run_within_three_calls(
    renewal, crm, wish, wanted
):
    crm.settings = LOGS_IN if crm.name == "salesforce" else {}
    writer = crm.writer()
    writer.account()  # logged in
    crm.box.log.clear()
    if renewal == "is refused":
        crm.box.faults.add(
            vendor=crm.name, path="oauth2/token", do="status", code=400, times=None,
            body={"error": "invalid_grant", "error_description": PERSONAL},
        )  # fmt: skip
    rule = crm.spoil("accounts", times=None, **refused_credentials(crm))
    run = crm.run(wish, writer=writer)
    assert rule.seen <= 2
    assert crm.box.count(crm.name, "sobjects$|batch/update|oauth2/token") <= 3
    assert "refused" in run.applied.failed
    assert run.states() == {"deferred": len(run.intents)}
    check(crm, wish)
    check_converged(crm, wish, wanted)
