"""Faults F01 to F19, F93 and F94 of the transport, over real sockets on this machine."""

import gzip
import io
import logging
import socket
import ssl
import threading
import zipfile

import orjson
import pytest
import requests
import trustme
from dlt.sources.helpers.rest_client.paginators import (
    JSONLinkPaginator,
    JSONResponseCursorPaginator,
    OffsetPaginator,
    SinglePagePaginator,
)
from requests.auth import AuthBase, HTTPBasicAuth

from connectors.http import Http, Limit, Manners, Patience, Wait, reset_epoch_seconds
from connectors.http.adapter import Adapter
from contracts.errors import (
    SourceCorrupt,
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)
from tests.raw_server import RawServer, chunked, drip, reset_after, response, stall_after

CANARY = "hunter2-canary"
FAULTS = (SourceUnavailable, SourceCorrupt)
QUICK = Patience(connect_seconds=2, read_seconds=2)


class Time:
    """A clock that only sleeping moves; `waits` is how long each sleep was."""

    def __init__(self):
        self.now = 0.0
        self.waits = []

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds

    def clock(self):
        return self.now


class Token(AuthBase):
    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {CANARY}"
        return request


@pytest.fixture
def time():
    return Time()


def http(server, time, *, manners=None, patience=QUICK, **options):
    address = server if isinstance(server, str) else server.url
    options = {"auth": Token(), **options}
    client = Http(
        address,
        manners or Manners("desk"),
        patience=patience,
        sleep=time.sleep,
        clock=time.clock,
        **options,
    )
    return client.stream("tickets")


def page(*ids, after=None, **headers):
    body = {"tickets": [{"id": number} for number in ids], "after": after}
    return response(body=orjson.dumps(body), headers=headers)


def by_cursor():
    return JSONResponseCursorPaginator(cursor_path="after", cursor_param="cursor")


def read(client, paginator=None, records="tickets", **options):
    pages = client.pages("/tickets", records=records, paginator=paginator or by_cursor(), **options)
    return [[record["id"] for record in rows] for rows in pages]


def trusted(folder):
    """A server's TLS context for this machine, and the file of the authority that signed it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return context, str(folder / "ca.pem")


# --- F01-F04: limits


def test_f01_a_busy_vendor_is_asked_for_the_same_page_after_the_seconds_that_it_names(time):
    busy = response(429, headers={"Retry-After": "7"})
    with RawServer(page(1, after="a"), busy, page(2)) as server:
        assert read(http(server, time)) == [[1], [2]]
        again = "GET /tickets?cursor=a"
        assert server.lines == ["GET /tickets", again, again]
    assert time.waits == [7]


def test_f01_streams_of_a_vendor_wait_together_when_one_is_told_to(time):
    with RawServer(response(429, headers={"Retry-After": "7"}), page(1)) as server:
        alone = time.sleep

        def sleep(seconds):
            # The other stream asks while the first one waits.
            if not time.waits:
                time.waits.append(seconds)
                users.get("/users")
            alone(seconds)

        time.sleep = sleep
        client = http(server, time)
        users = client.stream("users")
        client.get("/tickets")
        assert server.lines == ["GET /tickets", "GET /users", "GET /tickets"]
    assert time.waits == [7, 7, 7]


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        ("Wed, 01 Jul 2026 06:00:09 GMT", 9),
        ("Wed, 01 Jul 2026 05:00:00 GMT", None),
        ("soon", None),
        ("-5", None),
        ("0", None),
        ("nan", None),
        ("inf", None),
        ("1782885600", None),
        (None, None),
    ],
)
def test_f02_a_date_is_measured_by_the_vendors_clock_and_nonsense_means_backing_off(
    time, value, wait
):
    busy = response(429, headers={"Retry-After": value} if value else {})
    with RawServer(busy, busy, busy, page(1)) as server:
        assert read(http(server, time)) == [[1]]
    if wait:
        assert time.waits == [wait] * 3
    else:
        assert all(0 <= waited <= 2**n for n, waited in enumerate(time.waits, 1))
        assert len(set(time.waits)) == 3


def test_f02_backing_off_is_capped_and_differs_from_client_to_client():
    longest, first = [], []
    for _ in range(20):
        time = Time()
        with RawServer(response(429)) as server, pytest.raises(SourceExhausted):
            http(server, time, patience=Patience(attempts=9, budget_seconds=1e6)).get("/a")
        longest.append(max(time.waits))
        first.append(time.waits[0])
    assert max(longest) <= 30
    assert len(set(first)) == 20


def test_f03_a_wait_that_is_too_long_ends_the_reading_at_once_without_a_storm(time):
    with RawServer(response(429, headers={"Retry-After": "3600"})) as server:
        with pytest.raises(SourceExhausted, match="try again after 3600 seconds") as caught:
            http(server, time).get("/tickets")
        assert len(server.requests) == 1
    assert caught.value.resume_after_seconds == 3600
    assert time.waits == []


def test_f03_a_limit_that_stays_used_up_is_exhausted_and_not_down(time):
    with RawServer(response(429, headers={"Retry-After": "110"})) as server:
        with pytest.raises(SourceExhausted, match="answered 429 in all 3 attempts") as caught:
            http(server, time).get("/tickets")
        assert len(server.requests) == 3
    assert caught.value.resume_after_seconds == 110
    assert time.waits == [110, 110]


def test_f03_a_day_that_is_used_up_is_known_from_the_vendors_headers_too(time):
    headers = {"X-Limit-Day-Remaining": "0", "X-Limit-Day-Reset": "36000"}
    with RawServer(page(1, after="a", **headers), response(429, headers=headers)) as server:
        with pytest.raises(SourceExhausted) as caught:
            read(http(server, time))
        assert len(server.requests) == 2
    assert caught.value.resume_after_seconds == 36000
    assert time.waits == []


def judge_by_policy(answer):
    """As HubSpot's: a daily limit ends the reading, a burst passes in ten seconds."""
    policy = answer.json()["policyName"]
    if policy == "DAILY":
        wait = reset_epoch_seconds(answer, "X-Reset")
        return SourceExhausted("daily limit used up", "wait", resume_after_seconds=wait)
    return Wait("ten-secondly limit used up", 10)


def test_f03_a_vendors_judge_tells_the_daily_limit_from_the_burst(time):
    manners = Manners("desk", judge=judge_by_policy)
    burst = response(429, b'{"policyName":"TEN_SECONDLY_ROLLING"}')
    # 2026-07-01 07:00 UTC, an hour after the server's own date.
    daily = response(429, b'{"policyName":"DAILY"}', {"X-Reset": "1782889200"})
    with RawServer(burst, page(1), daily) as server:
        client = http(server, time, manners=manners)
        assert read(client) == [[1]]
        with pytest.raises(SourceExhausted, match="desk tickets, page 2: daily limit") as caught:
            client.get("/tickets")
        assert len(server.requests) == 3
    assert time.waits == [10]
    assert caught.value.resume_after_seconds == 3600


def test_f04_a_403_that_is_a_limit_is_what_the_judge_says(time):
    def judge(answer):
        if answer.status_code == 403 and answer.json()[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED":
            return SourceExhausted("daily limit used up", "wait for it to be reset")
        return None

    body = b'[{"errorCode":"REQUEST_LIMIT_EXCEEDED"}]'
    with RawServer(response(403, body), response(403, b"<html>")) as server:
        client = http(server, time, manners=Manners("desk", judge=judge))
        with pytest.raises(SourceExhausted):
            client.get("/tickets")
        # A body that the judge did not expect is left to the rule for its status.
        with pytest.raises(SourceRefused, match=r"refused access \(403\)"):
            client.get("/tickets")
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1782885630"},
        {"x-rate-limit-remaining": "0", "ratelimit-reset": "30"},
        {"X-Limit-App-Minute-Remaining": "0", "X-Limit-App-Minute-Reset": "30"},
    ],
    ids=["epoch", "zendesk", "surveymonkey"],
)
def test_f01_nothing_is_sent_while_the_vendor_says_that_nothing_remains(time, headers):
    with RawServer(page(1, after="a", **headers), page(2)) as server:
        assert read(http(server, time)) == [[1], [2]]
    assert time.waits == [30]


def test_f03_our_own_limit_is_kept_and_is_no_part_of_the_budget(time):
    manners = Manners("desk", limits=(Limit(2, 60),))
    with RawServer(page(1), page(1), response(503), page(1)) as server:
        client = http(server, time, manners=manners, patience=Patience(budget_seconds=50))
        for name in ("a", "b", "c"):
            client.stream(name).get("/tickets")
        assert time.waits[0] == 60
        assert client.requests_sent == 4
        day = Manners("desk", limits=(Limit(1, 86400),))
        client = http(server, time, manners=day)
        client.get("/tickets")
        with pytest.raises(SourceExhausted, match="our limit for this vendor") as caught:
            client.get("/tickets")
        assert caught.value.resume_after_seconds == 86400
        assert client.requests_sent == 1


# --- F05, F06, F17: statuses


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 520, 522, 524])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_f05_f17_a_passing_failure_in_the_middle_resumes_at_the_same_page(time, status, method):
    with RawServer(page(1, after="a"), response(status), page(2)) as server:
        body = {"json": {"q": 1}, "method": "POST"} if method == "POST" else {}
        assert read(http(server, time), **body) == [[1], [2]]
        first, failed, again = server.requests
        assert failed == again != first


def test_f06_a_vendor_that_stays_down_is_unavailable_and_says_where(time):
    with RawServer(page(1, after="a"), response(503)) as server:
        client = http(server, time)
        with pytest.raises(SourceUnavailable) as caught:
            read(client)
        assert len(server.requests) == 1 + 6 == client.requests_sent
    error = caught.value
    assert str(error) == ("desk tickets, page 2: answered 503 in all 6 attempts; try again later")
    assert (error.vendor, error.stream, error.page) == ("desk", "tickets", 2)


def test_f06_trying_and_waiting_together_stay_within_the_budget(time):
    with (
        RawServer(response(503, headers={"Retry-After": "90"})) as server,
        pytest.raises(SourceUnavailable, match="answered 503 in all 3 attempts"),
    ):
        http(server, time, patience=Patience(budget_seconds=200)).get("/tickets")
    assert time.now == 180


def test_f06_the_last_attempt_does_not_outlast_the_budget(time):
    timeouts = []

    class Recording(Adapter):
        def send(self, request, **options):
            timeouts.append(options["timeout"])
            return super().send(request, **options)

    with RawServer(response(503, headers={"Retry-After": "90"})) as server:
        client = http(server, time, patience=Patience(budget_seconds=100))
        client.session.mount("http://", Recording())
        with pytest.raises(SourceUnavailable):
            client.get("/tickets")
    assert timeouts == [(10, 60), (10, 10)]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceRefused),
        (403, SourceRefused),
        (400, SourceRejected),
        (404, SourceRejected),
        (405, SourceRejected),
        (409, SourceRejected),
        (410, SourceRejected),
        (422, SourceRejected),
        (418, SourceRejected),
        (304, SourceRejected),
    ],
)
def test_what_will_not_pass_is_asked_once_and_names_no_secret(time, status, kind):
    body = b"" if status == 304 else orjson.dumps({"error": f"ann@example.com {CANARY}"})
    with RawServer(response(status, body)) as server:
        client = http(server, time)
        with pytest.raises(kind, match=f"{status}") as caught:
            client.get("/tickets", params={"email": "ann@example.com", "key": CANARY})
        assert len(server.requests) == 1
    shown = f"{caught.value!r} {vars(caught.value)}"
    assert CANARY not in shown
    assert "ann@" not in shown
    assert "?" not in shown
    assert type(caught.value) is kind


# --- F07-F10, F14: bodies that do not arrive

WHOLE = page(1, 2)
PACKED = gzip.compress(orjson.dumps({"tickets": [{"id": 1}, {"id": 2}], "after": None}))
PACKED_WHOLE = response(body=PACKED, headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(reset_after(WHOLE[:-5]), id="F07-reset-in-body"),
        pytest.param(reset_after(b""), id="F07-reset-before-answer"),
        pytest.param(WHOLE[:-5], id="F07-closed-in-body"),
        pytest.param(b"", id="F07-closed-before-answer"),
        pytest.param(
            response(body=PACKED[:-9], headers={"Content-Encoding": "gzip"}), id="F08-gzip-cut"
        ),
        pytest.param(
            response(body=PACKED[:-9], headers={"Content-Encoding": "gzip"}, length=None),
            id="F08-gzip-cut-without-length",
        ),
        pytest.param(
            response(body=b"no gzip", headers={"Content-Encoding": "gzip"}), id="F08-no-gzip"
        ),
        pytest.param(response(body=b'{"tickets":[{"id":'), id="F09-json-cut"),
        pytest.param(chunked(b'{"tickets":[]}')[:-9], id="F09-chunks-cut"),
        pytest.param(response(body=b'{"tickets":[]}', length=99), id="F10-length-too-long"),
        pytest.param(response(body=b'{"tickets":[]}', length=5), id="F10-length-too-short"),
        pytest.param(response(204), id="F13-no-content"),
        pytest.param(response(200), id="F13-empty"),
        pytest.param(response(body=b'{"tickets":[{"id":NaN}]}'), id="F40-nan"),
    ],
)
def test_f07_to_f13_what_is_not_whole_is_asked_for_again(time, broken):
    with RawServer(page(1, after="a"), broken, broken, page(2)) as server:
        assert read(http(server, time)) == [[1], [2]]
        assert server.lines == ["GET /tickets"] + ["GET /tickets?cursor=a"] * 3
    with RawServer(page(1, after="a"), broken) as server:
        pages = http(server, time).pages("/tickets", records="tickets", paginator=by_cursor())
        assert next(pages) == [{"id": 1}]
        with pytest.raises(FAULTS, match="in all 6 attempts"):
            next(pages)


@pytest.mark.parametrize(
    "whole",
    [WHOLE, PACKED_WHOLE, chunked(orjson.dumps({"tickets": [{"id": 1}, {"id": 2}]}))],
    ids=["plain", "F08-gzip", "chunked"],
)
def test_f09_wherever_an_answer_is_cut_no_page_is_taken_for_whole(time, whole):
    patience = Patience(read_seconds=2, attempts=1)
    # The last two bytes of a chunked answer close its empty trailer: nothing is missing then.
    ends = range(len(whole) - (4 if b"chunked" in whole else 0))
    with RawServer(whole) as server:
        assert read(http(server, time, patience=patience)) == [[1, 2]]
        for end in ends:
            server.answers[:] = [whole[:end]]
            with pytest.raises(FAULTS):
                read(http(server, time, patience=patience))


@pytest.mark.parametrize(
    "slow",
    [
        pytest.param(stall_after(b""), id="F14-no-bytes"),
        pytest.param(stall_after(WHOLE[:-5]), id="F14-stall-in-body"),
        pytest.param(stall_after(WHOLE[:30]), id="F14-stall-in-headers"),
    ],
)
def test_f14_a_vendor_that_falls_silent_is_given_up(time, slow):
    with RawServer(slow) as server:
        patience = Patience(read_seconds=0.1, attempts=2)
        with pytest.raises(SourceUnavailable, match="in all 2 attempts"):
            http(server, time, patience=patience).get("/tickets")
        assert len(server.requests) == 2


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_f14_a_body_that_drips_must_still_arrive_within_its_time(packed):
    """Every byte comes in time, the whole does not."""
    head, _, body = (PACKED_WHOLE if packed else WHOLE).partition(b"\r\n\r\n")
    with RawServer(drip(head + b"\r\n\r\n", body)) as server:
        patience = Patience(read_seconds=5, body_seconds=0.2, attempts=1)
        client = Http(server.url, Manners("desk"), patience=patience)
        with pytest.raises(SourceUnavailable, match="sent its answer too slowly"):
            client.get("/tickets")


def test_f14_a_slow_body_is_taken_when_it_arrives_within_its_time(time):
    """Even when that is longer than the headers may take."""
    head, _, body = WHOLE.partition(b"\r\n\r\n")
    with RawServer(drip(head + b"\r\n\r\n", body)) as server:
        patience = Patience(read_seconds=0.2, body_seconds=30, attempts=1)
        assert http(server, time, patience=patience).get("/tickets")["tickets"]


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_f14_headers_that_drip_must_still_arrive_within_their_time(time, tmp_path, tls):
    context, ca_file = trusted(tmp_path) if tls else (None, True)
    with RawServer(drip(WHOLE[:30], WHOLE[30:]), tls=context) as server:
        client = http(server, time, verify=ca_file, patience=Patience(read_seconds=0.1, attempts=1))
        with pytest.raises(FAULTS):
            client.get("/tickets")


# --- F11-F13: whole, but not what was asked for


def test_f11_a_200_that_holds_an_error_is_never_an_empty_page(time):
    with (
        RawServer(page(1, after="a"), response(body=b'{"error":"oops"}')) as server,
        pytest.raises(SourceCorrupt, match="page 2: sent a page in which 'tickets'"),
    ):
        read(http(server, time))

    def judge(answer):
        return SourceRejected("an error", "mend it") if "error" in answer.json() else None

    with (
        RawServer(response(body=b'{"error":"oops"}')) as server,
        pytest.raises(SourceRejected, match="an error; mend it"),
    ):
        http(server, time, manners=Manners("desk", judge=judge)).get("/tickets")


@pytest.mark.parametrize(
    ("records", "body"),
    [
        ("tickets", b'{"tickets":null}'),
        ("tickets", b'{"tickets":{"id":1}}'),
        ("tickets", b'{"tickets":[1]}'),
        ("tickets", b'{"tickets":[null]}'),
        ("tickets", b"[]"),
        ("data.tickets", b'{"data":[]}'),
        ("$", b'{"tickets":[]}'),
    ],
)
def test_f11_a_page_without_a_list_of_objects_is_corrupt(time, records, body):
    with RawServer(response(body=body)) as server, pytest.raises(SourceCorrupt):
        read(http(server, time), SinglePagePaginator(), records)


@pytest.mark.parametrize(
    ("records", "body", "ids"),
    [
        ("data.tickets", b'{"data":{"tickets":[{"id":1}]}}', [[1]]),
        ("$", b'[{"id":1},{"id":2}]', [[1, 2]]),
        ("$", b"[]", [[]]),
    ],
)
def test_records_are_found_below_keys_and_as_the_body_itself(time, records, body, ids):
    with RawServer(response(body=body)) as server:
        assert read(http(server, time), SinglePagePaginator(), records) == ids


@pytest.mark.parametrize(
    "login",
    [
        response(body=b"<!doctype html><p>Sign in", kind="text/html"),
        response(body=b"  \n<html>Sign in", kind="application/json"),
        response(body=b"{}", kind="text/html; charset=utf-8"),
        response(body=b"<html>Sign in", kind=None),
    ],
)
def test_f12_a_login_page_is_never_zero_rows(time, login):
    with RawServer(login) as server:
        with pytest.raises(SourceCorrupt, match="a web page instead of data in all 2 attempts"):
            read(http(server, time))
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", ["application/json", "application/hal+json; charset=utf-8", None])
def test_f12_json_is_accepted_as_json_or_without_a_type(time, kind):
    with RawServer(response(body=b'{"a":1}', kind=kind)) as server:
        assert http(server, time).get("/tickets") == {"a": 1}


def test_f12_another_declared_type_is_corrupt(time):
    with (
        RawServer(response(body=b"id;name", kind="text/csv")) as server,
        pytest.raises(SourceCorrupt, match="sent something else than JSON"),
    ):
        http(server, time).get("/tickets")


@pytest.mark.parametrize("scalar", [b"null", b"1", b'"login"', b"true"])
def test_f13_a_single_json_value_is_no_answer(time, scalar):
    with RawServer(response(body=scalar)) as server, pytest.raises(SourceCorrupt):
        http(server, time).get("/tickets")


# --- F15, F16: who is asked


def test_f15_a_name_that_cannot_be_resolved_is_unavailable(time, monkeypatch):
    def unresolvable(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unresolvable)
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SourceUnavailable, match="host name that cannot be resolved in all 6"):
        http("https://desk.example.com", time).get("/tickets")


def test_f15_nobody_listening_is_unavailable(time):
    with RawServer(b"") as server:
        address = server.url
    with pytest.raises(SourceUnavailable, match="refused the connection in all 6 attempts"):
        http(address, time).get("/tickets")
    assert len(time.waits) == 5


def test_f15_a_proxy_is_used_as_the_environment_says_but_not_for_this_machine(time, monkeypatch):
    with RawServer(response(403)) as proxy, RawServer(page(1)) as server:
        for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        for variable in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        assert read(http(server, time)) == [[1]]
        with pytest.raises(SourceUnavailable, match="cannot be reached through the proxy"):
            http("https://desk.example.com", time).get("/tickets")
        assert set(proxy.lines) == {"CONNECT desk.example.com:443"}
        assert not any(CANARY.encode() in asked for asked in proxy.requests)


def test_f15_a_certificate_that_is_not_trusted_is_refused_at_once(time, tmp_path, monkeypatch):
    context, ca_file = trusted(tmp_path)
    with RawServer(page(1), tls=context) as server:
        assert read(http(server, time, verify=ca_file)) == [[1]]
        # The environment must not make us trust whom we were not told to.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", ca_file)
        with pytest.raises(SourceRefused, match="certificate that is not trusted"):
            http(server, time).get("/tickets")
        assert len(server.requests) == 1
    assert time.waits == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_f16_a_redirect_to_another_host_or_port_is_refused_and_nothing_is_sent_there(time, status):
    with RawServer(page(1)) as other:
        for elsewhere in (other.url, "http://localhost:1", "//elsewhere.example.com"):
            moved = response(status, headers={"Location": f"{elsewhere}/tickets?key={CANARY}"})
            with RawServer(moved) as server:
                with pytest.raises(SourceRefused, match="redirects to another host") as caught:
                    http(server, time).get("/tickets")
                assert len(server.requests) == 1
            assert CANARY not in str(caught.value)
        assert other.requests == []


def test_f16_a_next_link_to_another_host_gets_no_credentials(time):
    with RawServer(page(1)) as other:
        body = {"tickets": [{"id": 1}], "next": f"{other.url}/tickets?cursor=a"}
        with (
            RawServer(response(body=orjson.dumps(body))) as server,
            pytest.raises(SourceRefused, match="leads to another host"),
        ):
            read(http(server, time), JSONLinkPaginator("next"))
        assert other.requests == []


def test_f16_a_redirect_on_the_same_host_is_followed_with_the_credentials(time):
    moved = response(302, headers={"Location": "/v2/tickets"})
    with RawServer(moved, page(1)) as server:
        assert read(http(server, time)) == [[1]]
        assert server.lines == ["GET /tickets", "GET /v2/tickets"]
        assert all(f"Bearer {CANARY}".encode() in asked for asked in server.requests)


def test_f16_a_redirect_in_a_circle_or_of_a_post_is_rejected(time):
    with RawServer(response(302, headers={"Location": "/a"})) as server:
        with pytest.raises(SourceRejected, match="redirects in a circle"):
            http(server, time).get("/a")
        assert len(server.requests) == 6
        with pytest.raises(SourceRejected, match="redirects a POST"):
            http(server, time).post("/a", json={})
        server.answers[:] = [response(307, headers={"Location": "/b"}), page(1)]
        assert http(server, time).post("/a", json={"q": 1})["tickets"] == [{"id": 1}]
        assert server.requests[-1].endswith(b'{"q": 1}')


def test_f16_plain_http_is_refused_except_on_this_machine(time):
    with pytest.raises(SourceRefused, match="is not https; give an https:// address"):
        http("http://desk.example.com", time).get("/tickets")


def test_f16_what_stands_in_netrc_is_not_sent(time, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ann password {CANARY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with RawServer(page(1)) as server:
        http(server, time, auth=None).get("/tickets")
        assert b"authorization" not in server.requests[0].lower()


# --- F18, F19: pages


def test_f18_a_page_that_comes_twice_is_tolerated_and_three_times_is_not(time):
    pages = [page(1, after=name) for name in "abc"]
    with RawServer(pages[0], pages[1], page(2)) as server:
        assert read(http(server, time)) == [[1], [1], [2]]
    with (
        RawServer(*pages) as server,
        pytest.raises(SourceCorrupt, match="page 3: sent the same page three times in a row"),
    ):
        read(http(server, time))
    with RawServer(page(after="a"), page(after="b"), page(after="c"), page(3)) as server:
        assert read(http(server, time)) == [[], [], [], [3]]


def test_f19_a_cursor_that_goes_in_a_circle_is_noticed(time):
    with RawServer(page(1, after="a"), page(2, after="b"), page(3, after="a")) as server:
        server.answers.append(page(4, after="z"))
        with pytest.raises(SourceCorrupt, match="page 4: the cursor goes in a circle"):
            read(http(server, time))
        assert len(server.requests) == 4


def test_f19_the_same_words_are_allowed_where_the_vendor_keeps_the_place(time):
    with RawServer(page(1, after="a"), page(2, after="a"), page(3)) as server:
        server.answers.append(page())
        assert read(http(server, time), same_request=True) == [[1], [2], [3]]


def test_f19_a_page_that_does_not_lead_on_is_corrupt(time):
    paginator = OffsetPaginator(limit=1, total_path="total")
    with (
        RawServer(response(body=b'{"tickets":[{"id":1}]}')) as server,
        pytest.raises(SourceCorrupt, match="sent a page that does not lead on"),
    ):
        read(http(server, time), paginator)


def test_reading_leaves_what_the_caller_gave_as_it_was(time):
    asked, params = {"query": {}}, {"limit": 2}
    paginator = JSONResponseCursorPaginator(cursor_path="after", cursor_body_path="query.after")
    with RawServer(page(1, after="a"), page(2)) as server:
        read(http(server, time), paginator, method="POST", json=asked, params=params)
        assert server.requests[1].endswith(b'{"query": {"after": "a"}}')
    assert (asked, params) == ({"query": {}}, {"limit": 2})


# --- F93, F94: secrets and bombs


def test_f93_nothing_that_is_logged_or_shown_holds_the_token(time, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    # Dagster turns loggers off that it finds, and HubSpot's client quietens this one.
    caplog.set_level(logging.DEBUG, logger="urllib3")
    monkeypatch.setattr(logging.getLogger("urllib3.connectionpool"), "disabled", False)
    # As it is once a pipeline of dlt has run in this process.
    monkeypatch.setattr("dlt.common.logger.LOGGER", logging.getLogger("dlt-of-this-test"))
    secret = {"X-Integration-Key": CANARY}
    auth = HTTPBasicAuth("ann@example.com", CANARY)
    with RawServer(page(1, after=CANARY), response(503), page(2), response(401)) as server:
        client = http(server, time, auth=auth, headers=secret)
        assert read(client, params={"key": CANARY, "email": "ann@example.com"}) == [[1], [2]]
        with pytest.raises(SourceRefused) as caught:
            client.get("/tickets", params={"key": CANARY})
        assert all(f"X-Integration-Key: {CANARY}".encode() in asked for asked in server.requests)
        assert all(b"Authorization: Basic " in asked for asked in server.requests)
    session = client.session
    shown = [client, vars(client), session, vars(session), vars(session.auth), caught.value]
    shown = f"{shown!r} {caplog.text}"
    assert {"urllib3.connectionpool", "dlt-of-this-test"} <= {log.name for log in caplog.records}
    assert CANARY not in shown
    assert "ann@" not in shown
    assert auth.password == CANARY


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_f94_a_body_beyond_the_cap_is_refused_while_it_arrives(time, packed):
    body = b'{"tickets":[' + b" " * 1_000_000 + b"]}"
    headers = {"Content-Encoding": "gzip"} if packed else {}
    sent = response(body=gzip.compress(body) if packed else body, headers=headers)
    with RawServer(sent) as server:
        with pytest.raises(SourceCorrupt, match="is larger than 100000 bytes"):
            http(server, time, patience=Patience(max_body_bytes=100_000)).get("/tickets")
        assert len(server.requests) == 1


@pytest.mark.parametrize(("depth", "good"), [(60, True), (61, False), (900, False), (5000, False)])
def test_f94_json_that_is_nested_too_deeply_is_refused(time, depth, good):
    with RawServer(response(body=b"[" * depth + b"]" * depth)) as server:
        if good:
            assert http(server, time).get("/tickets")
        else:
            with pytest.raises(SourceCorrupt):
                http(server, time).get("/tickets")


# --- downloads


def zipped(**members):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return archive.getvalue()


def damaged(content, at=36):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


LINES = b'{"id":1}\n{"id":2}\n'
FILES = {"jsonl": LINES, "csv": b"id\n1\n", "zip": zipped(a=LINES, b=LINES)}


@pytest.mark.parametrize("expect", FILES)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_is_saved_as_it_is(time, tmp_path, expect, packed):
    content = gzip.compress(FILES[expect]) if packed else FILES[expect]
    headers = {"Content-Encoding": "gzip"} if packed else {}
    with RawServer(response(body=content, headers=headers, kind="text/plain")) as server:
        target = tmp_path / "file"
        assert http(server, time).download("/export", target, expect=expect) == target
    assert target.read_bytes() == FILES[expect]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("expect", "broken"),
    [
        pytest.param("jsonl", response(body=LINES, kind=None)[:-3], id="F07-closed"),
        pytest.param("jsonl", reset_after(response(body=LINES)[:-3]), id="F07-reset"),
        pytest.param("jsonl", response(body=LINES[:-3], length=None), id="F09-line-cut"),
        pytest.param("jsonl", response(body=LINES + b"terminated early\n"), id="F09-last-words"),
        pytest.param(
            "jsonl",
            response(body=gzip.compress(LINES)[:-9], headers={"Content-Encoding": "gzip"}),
            id="F08-gzip-cut",
        ),
        pytest.param("csv", response(body=b""), id="F13-empty"),
        pytest.param("jsonl", response(204), id="F13-no-content"),
        pytest.param("zip", response(body=FILES["zip"][:-9]), id="F09-zip-cut"),
        pytest.param("zip", response(body=LINES), id="F11-no-zip"),
        pytest.param("zip", response(body=damaged(FILES["zip"])), id="F08-zip-damaged"),
        pytest.param("csv", response(body=b"<html>", kind="text/csv"), id="F12-web-page"),
        pytest.param("csv", response(503), id="F06-down"),
        pytest.param("csv", response(503, b"x")[:-1], id="F06-down-and-cut"),
    ],
)
def test_f07_to_f13_a_file_is_there_whole_or_not_at_all(time, tmp_path, expect, broken):
    target = tmp_path / "file"
    with RawServer(broken, response(body=FILES[expect], kind=None)) as server:
        assert http(server, time).download("/export", target, expect=expect) == target
        assert target.read_bytes() == FILES[expect]
    target.write_bytes(b"before")
    with RawServer(broken) as server, pytest.raises(FAULTS):
        http(server, time).download("/export", target, expect=expect)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("framed", [response(body=LINES), chunked(LINES)], ids=["length", "chunks"])
def test_f09_wherever_a_download_is_cut_it_is_not_taken_for_whole(time, tmp_path, framed):
    patience = Patience(read_seconds=2, attempts=1)
    with RawServer(framed) as server:
        for end in range(len(framed) - (4 if b"chunked" in framed else 0)):
            server.answers[:] = [framed[:end]]
            client = http(server, time, patience=patience)
            with pytest.raises(FAULTS):
                client.download("/export", tmp_path / "file", expect="jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_status_that_means_no_data_gives_nothing(time, tmp_path):
    manners = Manners("desk", no_data_statuses=frozenset({404}))
    with RawServer(response(404, b'{"error":"none"}')) as server:
        client = http(server, time, manners=manners)
        assert client.download("/export", tmp_path / "file", expect="zip") is None
        assert client.get("/export") is None
        assert read(client) == []
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_lines_is_no_fault(time, tmp_path):
    with RawServer(response(body=b"")) as server:
        assert http(server, time).download("/export", tmp_path / "file", expect="jsonl")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("expect", "body"),
    [("zip", zipped(a=b"\0" * 1_000_000)), ("jsonl", b"1\n" * 60_000)],
    ids=["zip-bomb", "large-file"],
)
def test_f94_a_file_beyond_its_cap_is_refused_also_inside_a_zip(time, tmp_path, expect, body):
    with RawServer(response(body=body)) as server:
        client, target = http(server, time), tmp_path / "file"
        with pytest.raises(SourceCorrupt, match=r"(more|larger) than 100000 bytes"):
            client.download("/export", target, expect=expect, max_bytes=100_000)
        assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


# --- libraries that use the session


def test_a_library_gets_the_answers_that_it_reacts_to_and_passing_ones_are_tried_again(time):
    expired = response(401, b'[{"errorCode":"INVALID_SESSION_ID"}]')
    with RawServer(response(503), expired, page(1), response(204), response(404)) as server:
        session = http(server, time, auth=None, raise_rejected=False).session
        answer = session.request("GET", f"{server.url}/query")
        assert answer.status_code == 401
        assert answer.json()[0]["errorCode"] == "INVALID_SESSION_ID"
        assert session.get(f"{server.url}/query").json()["tickets"] == [{"id": 1}]
        assert session.patch(f"{server.url}/query", json={}).status_code == 204
        assert not session.get(f"{server.url}/query").ok
        server.answers[:] = [WHOLE[:-5], response(body=b"Id\n1\n", kind="text/csv")]
        assert session.get(f"{server.url}/query").text == "Id\n1\n"
        server.answers[:] = [response(body=b"<html>", kind="text/html")]
        with pytest.raises(SourceCorrupt):
            session.get(f"{server.url}/query")
        server.answers[:] = [response(503)]
        with pytest.raises(SourceUnavailable):
            session.get(f"{server.url}/query")


def test_the_session_streams_for_a_library(time):
    with RawServer(response(body=b"Id\n1\n", kind="text/csv")) as server:
        session = http(server, time, raise_rejected=False).session
        with session.get(f"{server.url}/result", stream=True) as answer:
            assert b"".join(answer.iter_content(2)) == b"Id\n1\n"


def test_json_is_parsed_once_and_hooks_see_the_last_answer_only(time, monkeypatch):
    seen, parsed = [], []
    monkeypatch.setattr(
        "orjson.loads", lambda body, loads=orjson.loads: parsed.append(1) or loads(body)
    )
    with RawServer(response(503), page(1)) as server:
        session = http(server, time).session
        hooks = {"response": lambda answer, **_: seen.append(answer.status_code)}
        answer = session.get(f"{server.url}/tickets", hooks=hooks)
        assert answer.json() is answer.json()
    assert (seen, parsed) == ([200], [1])


def test_a_token_that_cannot_be_had_is_refused_or_unavailable(time):
    class Asking(AuthBase):
        def __call__(self, request):
            requests.post(f"{server.url}/token", timeout=2).raise_for_status()
            return request

    with RawServer(response(401), response(503)) as server:
        client = http(server, time, auth=Asking())
        with pytest.raises(SourceRefused, match="when a token was asked for"):
            client.get("/tickets")
        with pytest.raises(SourceUnavailable, match="gave no token"):
            read(client)


def test_streams_in_threads_share_the_limit_and_the_count_and_keep_their_names(time):
    manners = Manners("desk", limits=(Limit(5, 1),))
    with RawServer(response(404)) as server:
        client = http(server, time, manners=manners)
        errors = []

        def work(name):
            stream = client.stream(name)
            for _ in range(5):
                try:
                    stream.get("/tickets")
                except SourceError as error:
                    errors.append((error.stream, error.page))

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(errors) == [(name, number) for name in "abcd" for number in range(1, 6)]
        assert client.requests_sent == len(server.requests) == 20
    assert time.now == 3
