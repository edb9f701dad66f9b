import gzip
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from connectors.http import Http, Limit, Manners, fetch, reset_epoch_seconds, retry_after_seconds
from connectors.http.limiter import Limiter
from contracts.errors import SourceCorrupt, SourceExhausted, SourceRefused, SourceUnavailable
from tests.pulling import make_company, rows_in_lake, run

CANARY = "hunter2-canary"


@pytest.fixture
def server():
    """A loopback web server; `answers` maps a path to what it answers, one after the other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            clients.add(self.client_address)
            queue = answers[self.path]
            status, headers, body = queue.pop(0) if len(queue) > 1 else queue[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.protocol_version == "HTTP/1.0":
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    answers, seen, clients = {}, [], set()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.answers, httpd.requests, httpd.clients = answers, seen, clients
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def waits():
    return []


def ok(body=b"id\n1\n", **headers):
    return (200, {"Content-Type": "text/csv", **headers}, body)


def test_a_published_file_is_pulled_again_only_when_its_content_changes(server, tmp_path):
    address = f"/pub/desk?gid=0&key={CANARY}"
    server.answers[address] = [ok(), ok(), ok(b"id\n1\n2\n")]
    stream = {"files": f"desk?gid=0&key={CANARY}", "format": "csv"}
    config = {"type": "files", "location": f"{server.url}/pub", "streams": {"t": stream}}
    company = make_company(tmp_path, {"desk": config})
    assert [run(company).rows for _ in range(4)] == [1, 0, 2, 0]
    assert rows_in_lake(company, "t", "id, _source_file")[0] == ("1", "desk")


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(server, tmp_path, waits):
    server.answers["/a"] = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), ok()]
    fetch(f"{server.url}/a", tmp_path / "a", sleep=waits.append)
    assert waits[0] == 7
    assert 1 < waits[1] <= 4
    assert (tmp_path / "a").read_bytes() == b"id\n1\n"


def test_a_date_to_come_back_at_is_measured_against_the_clock_of_the_server():
    response = requests.Response()
    response.headers["Date"] = "Wed, 01 Jul 2026 06:00:00 GMT"
    response.headers["Retry-After"] = "Wed, 01 Jul 2026 06:00:09 GMT"
    assert retry_after_seconds(response) == 9
    response.headers["Retry-After"] = "soon"
    assert retry_after_seconds(response) is None


def test_a_server_that_stays_busy_is_unavailable(server, tmp_path, waits):
    server.answers["/a"] = [(500, {}, b"")]
    with pytest.raises(SourceUnavailable, match="answered 500, 4 times; try again later"):
        fetch(f"{server.url}/a", tmp_path / "a", sleep=waits.append)
    assert len(waits) == 3
    server.answers["/b"] = [(503, {"Retry-After": "86400"}, b"")]
    with pytest.raises(SourceUnavailable, match="asks to wait for 86400 seconds"):
        fetch(f"{server.url}/b", tmp_path / "a", sleep=waits.append)
    assert len(waits) == 3


def test_a_transfer_that_breaks_off_is_not_taken_for_the_whole(server, tmp_path, waits):
    server.answers["/a"] = [ok(b"id\n1\n", **{"Content-Length": "99"}), ok()]
    fetch(f"{server.url}/a", tmp_path / "a", sleep=waits.append)
    assert len(waits) == 1
    assert (tmp_path / "a").read_bytes() == b"id\n1\n"


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((404, {}, b""), SourceRefused, "answered 404; correct the address"),
        ((403, {}, b""), SourceRefused, "refused access \\(403\\)"),
        (ok(b"  <!DOCTYPE html><p>Sign in"), SourceCorrupt, "is a web page, not a file"),
        ((200, {"Content-Type": "text/html"}, b"x"), SourceCorrupt, "is a web page, not a file"),
        (ok(b"x" * 2000), SourceCorrupt, "is larger than 1000 bytes"),
        ((302, {"Location": "/a"}, b""), SourceRefused, "redirects in a circle"),
        ((302, {"Location": "http://example.com/"}, b""), SourceRefused, "is not https"),
    ],
)
def test_an_answer_that_is_no_file_is_an_error_without_secrets(
    server, tmp_path, waits, answer, kind, message
):
    server.answers[f"/a?key={CANARY}"] = [answer]
    server.answers["/a"] = [answer]
    url = f"{server.url}/a?key={CANARY}"
    with pytest.raises(kind, match=message) as caught:
        fetch(url, tmp_path / "a", max_bytes=1000, sleep=waits.append)
    assert CANARY not in str(caught.value)
    assert waits == []


def test_a_password_stays_with_its_host(server, tmp_path, waits):
    other = server.url.replace("127.0.0.1", "localhost")
    server.answers["/a"] = [(302, {"Location": "/b"}, b"")]
    server.answers["/b"] = [(302, {"Location": f"{other}/c"}, b"")]
    url = server.url.replace("://", f"://ann:{CANARY}@") + "/a"
    with pytest.raises(SourceRefused, match="is another host, and the password is not sent") as e:
        fetch(url, tmp_path / "a", sleep=waits.append)
    assert CANARY not in str(e.value)
    assert [path for path, _ in server.requests] == ["/a", "/b"]
    assert all(authorization for _, authorization in server.requests)


def test_what_stands_in_netrc_is_not_sent(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login ann password {CANARY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.answers["/a"] = [ok()]
    fetch(f"{server.url}/a", tmp_path / "a")
    assert server.requests == [("/a", None)]


def test_nobody_there_is_unavailable(tmp_path, waits):
    with pytest.raises(SourceUnavailable, match="did not answer, 4 times"):
        fetch("http://127.0.0.1:1/a", tmp_path / "a", sleep=waits.append)
    with pytest.raises(SourceRefused, match="is not https; give an https:// address"):
        fetch("http://example.com/a", tmp_path / "a", sleep=waits.append)


@given(
    limits=st.lists(
        st.builds(Limit, st.integers(1, 5), st.floats(0.1, 100)), min_size=1, max_size=3
    ),
    pauses=st.lists(st.floats(0, 50), max_size=40),
    holds=st.lists(st.tuples(st.integers(0, 39), st.floats(0, 50)), max_size=3),
    oversleeps=st.floats(0, 5),
)
def test_no_window_ever_holds_more_requests_than_the_limit_allows(
    limits, pauses, holds, oversleeps
):
    now, granted, held = [0.0], [], {}

    def sleep(seconds):
        now[0] += seconds + oversleeps

    limiter = Limiter(limits, clock=lambda: now[0], sleep=sleep)
    for number, pause in enumerate(pauses):
        now[0] += pause
        for _, seconds in (hold for hold in holds if hold[0] == number):
            limiter.hold(seconds)
            held[number] = max(now[0] + seconds, held.get(number, 0))
        waited_from = now[0]
        assert limiter.wait() == pytest.approx(now[0] - waited_from)
        granted.append(now[0])
        assert now[0] >= held.get(number, 0) - 1e-9
    for limit in limits:
        for first, beyond in zip(granted, granted[limit.requests :], strict=False):
            assert beyond - first >= limit.seconds - 1e-9
    assert limiter.granted == len(granted)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=30))
def test_a_request_is_not_held_back_longer_than_the_limit_asks(pauses):
    now = [0.0]
    limiter = Limiter(
        [Limit(2, 1)], clock=lambda: now[0], sleep=lambda s: now.append(now.pop() + s)
    )
    granted = []
    for pause in pauses:
        now[0] += pause
        asked = now[0]
        limiter.wait()
        earliest = max([asked, *(moment + 1 for moment in granted[-2:-1])])
        assert now[0] == pytest.approx(earliest)
        granted.append(now[0])


def test_threads_share_a_limit():
    now, granted, lock = [0.0], [], threading.Lock()

    def sleep(seconds):
        now[0] += seconds

    limiter = Limiter([Limit(3, 10)], clock=lambda: now[0], sleep=sleep)

    def work():
        for _ in range(10):
            limiter.wait()
            with lock:
                granted.append(now[0])

    threads = [threading.Thread(target=work) for _ in range(6)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert limiter.granted == len(granted) == 60
    assert now[0] == 190


def test_a_moment_to_come_back_at_is_measured_against_the_clock_of_the_server():
    response = requests.Response()
    response.headers["X-Reset"] = "1782885609"
    assert reset_epoch_seconds(response, "X-Reset") is None
    response.headers["Date"] = "Wed, 01 Jul 2026 06:00:00 GMT"
    assert reset_epoch_seconds(response, "X-Reset") == 9
    assert reset_epoch_seconds(response, "X-Other") is None
    response.headers["X-Reset"] = "1"
    assert reset_epoch_seconds(response, "X-Reset") is None


def test_an_error_that_is_told_of_keeps_its_class_and_what_it_knows():
    error = SourceExhausted(
        "too much", "wait", resume_after_seconds=9, vendor="desk", stream="tickets", page=3
    )
    told = error.told("source desk")
    assert str(told) == "source desk: too much; wait"
    assert type(told) is SourceExhausted
    known = (told.resume_after_seconds, told.vendor, told.stream, told.page)
    assert known == (9, "desk", "tickets", 3)
    assert str(error) == "too much; wait"


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_one_connection_serves_many_requests(server, packed):
    """Also after an answer that is an error; opening another each time would be slow."""
    server.RequestHandlerClass.protocol_version = "HTTP/1.1"
    body = gzip.compress(b"{}") if packed else b"{}"
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if packed:
        headers["Content-Encoding"] = "gzip"
    server.answers["/a"] = [(503, headers, body), (200, headers, body)]
    client = Http(server.url, Manners("desk"), sleep=lambda seconds: None)
    for _ in range(3):
        assert client.get("/a") == {}
    assert client.requests_sent == len(server.requests) == 4
    assert len(server.clients) == 1
