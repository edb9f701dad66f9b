"""The sandbox's frame: records over time, the clock, the log, faults on the wire, the command."""

import asyncio
import datetime as dt
import gzip
import os
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from demo_company import healthloop
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from connectors.sandbox.servers import app, running
from connectors.sandbox.servers.box import Box, Table, WorldFiles, credentials
from connectors.sandbox.servers.faults import KINDS
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.servers.spoiling import LOGIN_PAGE
from connectors.sandbox.vendors import NAMES, served
from contracts.errors import InputError
from orchestration.cli import serving

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
THINGS = 25


def acme(box: Box) -> list[Route]:
    """A made-up vendor: pages of ten things, newest cursor last, and one server that is broken."""

    def fill(table: Table) -> None:
        for number in range(THINGS):
            table.put(f"{number:02}", {"number": number}, at=NOW.timestamp() - 60 + number)

    def things() -> Table:
        return box.table("acme", "things", fill)

    async def listed(request: Request) -> JSONResponse:
        rows = things().rows(box.now.timestamp())
        start, size = int(request.query_params.get("cursor", 0)), box.page_size("acme", 10)
        end = start + size if start + size < len(rows) else None
        page = [row.body for row in rows[start : start + size]]
        return JSONResponse({"things": page, "next": {"cursor": end}, "kind": "things"})

    async def added(request: Request) -> JSONResponse:
        body = await request.json()
        things().put(body["id"], body, box.now.timestamp())
        return JSONResponse(body, 201)

    async def broken(request: Request) -> JSONResponse:
        raise RuntimeError("a defect of this server")

    return [
        Route("/v1/things", listed),
        Route("/v1/things", added, methods=["POST"]),
        Route("/v1/broken", broken),
    ]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "routes_of", lambda name: acme)
    (tmp_path / "world" / "crm").mkdir(parents=True)
    return tmp_path / "world"


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["acme"]) as box:
        yield box
    assert box.defects == []


@pytest.fixture
def things(box):
    return f"{box.address('acme')}/v1/things"


def raw(address: str, *, method: str = "GET") -> bytes:
    """Everything that comes over the wire until the server closes the connection."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as wire:
        asked = f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
        wire.sendall(asked.encode())
        return b"".join(iter(lambda: wire.recv(65536), b""))


def split(answer: bytes) -> tuple[dict[str, str], bytes]:
    """Headers by lower-case name, and the body as it came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value for name, _, value in lines}, body


# -- records over time ----------------------------------------------------------------------------


def test_a_record_is_shown_as_it_was_at_a_moment_and_listed_by_its_last_change():
    table = Table()
    table.put("b", {"is": "new"}, at=10)
    table.put("a", {"is": "new"}, at=20)
    table.put("b", {"is": "old"}, at=30)

    assert [row.id for row in table.rows(now=9)] == []
    assert [row.id for row in table.rows(now=29.5)] == ["b", "a"]
    assert [(row.id, row.body["is"], row.created) for row in table.rows(now=30)] == [
        ("a", "new", 20), ("b", "old", 10),
    ]  # fmt: skip
    assert table.get("b", now=29).body == {"is": "new"}
    assert table.get("a", now=19) is None
    assert [(row.id, row.changed) for row in table.changes(now=25)] == [("b", 10), ("a", 20)]


def test_a_removed_record_is_a_tombstone_with_its_last_body_and_may_come_back():
    table = Table()
    table.put("a", {"is": "here"}, at=10)
    table.remove("a", at=20)
    table.put("a", {"is": "back"}, at=30)

    assert table.rows(now=20) == []
    (tombstone,) = table.rows(now=20, deleted=True)
    assert (tombstone.deleted, tombstone.body, tombstone.changed) == (True, {"is": "here"}, 20)
    assert table.get("a", now=20) is None
    assert [row.deleted for row in table.changes(now=30)] == [False, True, False]
    assert (table.get("a", now=30).body, table.get("a", now=30).created) == ({"is": "back"}, 10)
    with pytest.raises(KeyError):
        table.remove("nobody", at=30)


def test_a_write_is_seen_by_the_next_read_of_the_same_moment():
    table = Table()
    table.put("a", {"is": 1}, at=10)
    assert [row.body["is"] for row in table.rows(now=10)] == [1]
    table.put("a", {"is": 2}, at=10)
    assert [row.body["is"] for row in table.rows(now=10)] == [2]
    assert len(table.changes(now=10)) == 2


writes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=25)


@given(writes, st.integers(0, 9))
def test_the_rows_of_a_moment_do_not_depend_on_the_order_of_the_writes_before(writes, now):
    table, known = Table(), {}
    for order, (id, at, gone) in enumerate(writes):
        if gone and table.get(id, at):
            table.remove(id, at)
        else:
            table.put(id, {"order": order}, at)
            gone = False
        known.setdefault(id, []).append((at, order, gone))

    expected = {}
    for id, versions in known.items():
        *_, last = [None, *sorted(version for version in versions if version[0] <= now)]
        if last and not last[2]:
            expected[id] = last[0]
    rows = table.rows(now)
    assert {row.id: row.changed for row in rows} == expected
    assert [(row.changed, row.id) for row in rows] == sorted((row.changed, row.id) for row in rows)
    assert all(table.get(row.id, now) == row for row in rows)


def test_a_collection_is_filled_once_even_when_many_ask_at_the_same_time(tmp_path):
    box, filled, tables = Box(WorldFiles(tmp_path), NOW), [], []

    def fill(table: Table) -> None:
        filled.append(table)
        table.put("a", {}, at=0)

    threads = [
        threading.Thread(target=lambda: tables.append(box.table("acme", "things", fill)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1
    assert len(tables) == 8
    assert all(table is tables[0] for table in tables)


def test_files_are_read_whatever_their_delimiter_and_compression(tmp_path):
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / "a.csv").write_text('"No";"Text"\n"1";"x, ""y""\nz"\n"2";\n')
    (tmp_path / "b.csv").write_text("no,text\n1,a;b\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"no": 1}\n\n{"no": 2}\n'))
    files = WorldFiles(tmp_path)

    assert files.rows("crm/a.csv") == [
        {"No": "1", "Text": 'x, "y"\nz'}, {"No": "2", "Text": None},
    ]  # fmt: skip
    assert files.rows("b.csv") == [{"no": "1", "text": "a;b"}]
    assert files.rows("c.jsonl") == files.rows("c.jsonl.gz") == [{"no": 1}, {"no": 2}]
    assert files.rows("b.csv") is files.rows("b.csv")
    assert [path.name for path in files.glob("*.csv")] == ["b.csv"]
    with pytest.raises(InputError, match=r"has no d\.csv; "):
        files.rows("d.csv")


# -- the clock, the log, the dump -----------------------------------------------------------------


def test_nothing_later_than_the_sandboxs_clock_is_shown(box, things):
    requests.post(things, json={"id": "99", "number": 99}, timeout=5)
    box.tables()["acme", "things"].put("later", {"number": 100}, NOW.timestamp() + 3600)
    last = {"cursor": 20}
    assert requests.get(things, last, timeout=5).json()["things"][-1]["number"] == 99
    box.move(NOW + dt.timedelta(hours=1))
    assert requests.get(things, last, timeout=5).json()["things"][-1] == {"number": 100}


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (NOW - dt.timedelta(seconds=1), "cannot go back from 2026-06-30T20:00:00+00:00; "),
        (dt.datetime(2026, 7, 1), "has no time zone; "),
    ],
)
def test_the_clock_goes_forward_only_and_in_known_time(tmp_path, to, says):
    box = Box(WorldFiles(tmp_path), NOW)
    with pytest.raises(InputError) as error:
        box.move(to)
    assert says in str(error.value)
    assert box.now == NOW


def test_the_clock_is_utc_whatever_zone_it_was_given_in(tmp_path):
    zone = dt.timezone(dt.timedelta(hours=2))
    box = Box(WorldFiles(tmp_path), dt.datetime(2026, 6, 30, 22, tzinfo=zone))
    box.move(dt.datetime(2026, 7, 1, 2, tzinfo=zone))
    assert (box.now, box.now.tzinfo) == (dt.datetime(2026, 7, 1, tzinfo=dt.UTC), dt.UTC)


def test_the_clock_moves_over_http(box):
    moved = requests.post(f"{box.control}/clock", json={"forward_seconds": 90}, timeout=5)
    assert moved.json() == {"now": "2026-06-30T20:01:30+00:00"}
    requests.post(f"{box.control}/clock", json={"now": "2026-07-02T00:00:00Z"}, timeout=5)
    assert box.now == dt.datetime(2026, 7, 2, tzinfo=dt.UTC)
    for wrong in (
        {"now": "2026-07-01T00:00:00Z"}, {"now": "soon"}, {}, {"forward_seconds": 1e300}, [1],
    ):  # fmt: skip
        answer = requests.post(f"{box.control}/clock", json=wrong, timeout=5)
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), wrong
    assert box.now == dt.datetime(2026, 7, 2, tzinfo=dt.UTC)


def test_the_log_says_what_was_asked_and_answered_but_keeps_no_secret(box, things):
    query = {"cursor": "20", "api_key": "canary-1", "q": box.token("acme"), "mail": "a.b@c.test"}
    headers = {"Authorization": "Bearer canary-2"}
    first = requests.get(things, query, headers=headers, timeout=5)
    requests.post(things, json={"id": "canary-3"}, timeout=5)
    requests.get(f"{box.address('acme')}/v1/nothing", timeout=5)

    listed, added, missing = box.log
    assert (listed.number, listed.vendor, listed.method, listed.path) == (
        1, "acme", "GET", "/v1/things",
    )  # fmt: skip
    assert listed.query == {"cursor": "20", "api_key": "***", "q": "***", "mail": "***"}
    assert (listed.status, listed.fault, listed.at) == (200, None, NOW)
    assert listed.bytes == len(first.content)
    assert (added.status, missing.status) == (201, 404)
    assert box.count("acme") == 3
    assert box.count("acme", r"/nothing$") == 1
    assert box.count("other") == 0
    seen = requests.get(f"{box.control}/log", timeout=5).text
    assert "canary" not in repr(box.log) + seen
    assert box.token("acme") not in repr(box.log) + seen


def test_the_log_is_read_over_http_by_vendor_and_from_a_number_on(box, things):
    for _ in range(3):
        requests.get(things, timeout=5)
    got = requests.get(f"{box.control}/log", {"vendor": "acme", "after": 2}, timeout=5).json()
    assert [request["number"] for request in got["requests"]] == [3]
    assert got["defects"] == []
    none = requests.get(f"{box.control}/log", {"vendor": "other"}, timeout=5).json()
    assert none["requests"] == []


def test_the_dump_shows_all_records_as_they_are_now_and_the_tombstones(box, things):
    requests.get(things, timeout=5)
    box.tables()["acme", "things"].remove("00", NOW.timestamp())
    dump = requests.get(f"{box.control}/dump", timeout=5).json()
    rows = {row["id"]: row for row in dump["acme"]["things"]}
    assert len(rows) == THINGS
    assert rows["24"]["body"] == {"number": 24}
    assert [row["id"] for row in rows.values() if row["deleted"]] == ["00"]
    assert requests.get(f"{box.control}/dump", {"vendor": "other"}, timeout=5).json() == {}


def test_a_client_that_hangs_up_while_it_asks_is_no_defect(box):
    parts = urlsplit(box.address("acme"))
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as wire:
        head = f"POST {parts.path}/v1/things HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n"
        wire.sendall(head.encode() + b'{"id":')
    # Asked after it, so the one before has been noticed.
    assert requests.get(f"{box.address('acme')}/v1/things", timeout=5).status_code == 200
    assert box.defects == []


def test_a_server_that_falls_over_answers_500_and_leaves_its_trace(box):
    answer = requests.get(f"{box.address('acme')}/v1/broken", timeout=5)
    assert answer.status_code == 500
    assert "this server" not in answer.text
    assert "a defect of this server" in box.defects.pop()


def test_only_this_machine_controls_the_sandbox(box):
    status = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        status.append(message.get("status"))

    for client in ("192.0.2.7", "127.0.0.1"):
        scope = {
            "type": "http", "method": "GET", "path": "/_sandbox/dump", "query_string": b"",
            "headers": [], "client": (client, 4000),
        }  # fmt: skip
        asyncio.run(app.plain_app(box, [])(scope, receive, send))
    assert [code for code in status if code] == [403, 200]


# -- faults on the wire ---------------------------------------------------------------------------


def test_a_fault_strikes_the_nth_matching_request_so_many_times_and_no_other(box, things):
    box.faults.add(vendor="acme", path=r"/things$", nth=2, times=2, do="status", code=503)
    box.faults.add(vendor="other", do="status")
    answers = []
    for address in (things, f"{box.address('acme')}/v1/nothing", things, things, things):
        answers.append(requests.get(address, timeout=5).status_code)
    assert answers == [200, 404, 503, 503, 200]
    assert [request.fault for request in box.log] == [None, None, "status", "status", None]
    assert [request.status for request in box.log] == answers


def test_a_fault_without_an_end_strikes_until_it_is_withdrawn(box, things):
    box.faults.add(vendor="acme", times=None, do="status", code=500)
    assert [requests.get(things, timeout=5).status_code for _ in range(4)] == [500] * 4
    box.faults.clear()
    assert requests.get(things, timeout=5).status_code == 200


def test_a_fault_may_be_about_what_is_asked_in_the_query_or_in_the_body(box, things):
    box.faults.add(vendor="acme", asks=r"cursor=1\d$", do="empty")
    box.faults.add(vendor="acme", asks=r'"number": 7', do="commit_then_502")
    assert requests.get(things, {"cursor": "2"}, timeout=5).status_code == 200
    assert requests.get(things, {"cursor": "10"}, timeout=5).status_code == 204
    assert requests.post(things, json={"id": "x", "number": 8}, timeout=5).status_code == 201
    assert requests.post(things, json={"id": "y", "number": 7}, timeout=5).status_code == 502


def test_F01_a_status_comes_with_the_headers_and_body_that_were_ordered(box, things):
    box.faults.add(
        vendor="acme", do="status", code=429, headers={"Retry-After": 7}, body={"type": "limit"}
    )
    box.faults.add(
        vendor="acme", do="status", code=502, nth=2, body="<h1>", headers={"Content-Type": "a/b"}
    )
    first, second = requests.get(things, timeout=5), requests.get(things, timeout=5)
    assert (first.status_code, first.headers["Retry-After"]) == (429, "7")
    assert first.json() == {"type": "limit"}
    assert (second.status_code, second.text) == (502, "<h1>")
    assert second.headers["Content-Type"] == "a/b"


def test_F07_a_reset_tears_the_connection_down_in_the_middle_of_the_body(box, things):
    box.faults.add(vendor="acme", do="reset")
    with pytest.raises(ConnectionResetError):
        raw(things)
    assert requests.get(things, timeout=5).status_code == 200


def test_F07_a_reset_reaches_a_usual_client_as_a_broken_connection(box, things):
    box.faults.add(vendor="acme", do="reset")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        requests.get(things, timeout=5)


def test_F08_a_cut_gzip_stream_has_a_fitting_length(box, things):
    box.faults.add(vendor="acme", do="bad_gzip")
    with requests.get(things, stream=True, timeout=5) as answer:
        body = answer.raw.read(decode_content=False)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) == len(body) > 10
    with pytest.raises(EOFError):
        gzip.decompress(body)


def test_F09_a_truncated_body_is_cut_short_of_its_length_and_the_connection_is_closed(box, things):
    whole = requests.get(things, timeout=5).content
    box.faults.add(vendor="acme", do="truncate", keep=0.25)
    headers, body = split(raw(things))
    assert int(headers["content-length"]) == len(whole)
    assert body == whole[: len(whole) // 4]


@pytest.mark.parametrize("by", [100, -10])
def test_F10_a_wrong_length_is_announced_for_a_whole_body(box, things, by):
    whole = requests.get(things, timeout=5).content
    box.faults.add(vendor="acme", do="wrong_length", by=by)
    headers, body = split(raw(things))
    assert int(headers["content-length"]) == len(whole) + by
    assert body == whole


def test_F11_an_error_stands_in_a_200(box, things):
    box.faults.add(vendor="acme", do="error_json")
    box.faults.add(vendor="acme", nth=2, do="error_json", body={"errors": ["x"]})
    first, second = requests.get(things, timeout=5), requests.get(things, timeout=5)
    assert (first.status_code, list(first.json())) == (200, ["error"])
    assert (second.status_code, second.json()) == (200, {"errors": ["x"]})


def test_F12_a_login_page_stands_in_a_200(box, things):
    box.faults.add(vendor="acme", do="html")
    answer = requests.get(things, timeout=5)
    assert (answer.status_code, answer.content) == (200, LOGIN_PAGE)
    assert answer.headers["Content-Type"].startswith("text/html")


def test_F13_an_empty_204_stands_where_a_page_is_expected(box, things):
    box.faults.add(vendor="acme", do="empty")
    answer = requests.get(things, timeout=5)
    assert (answer.status_code, answer.content) == (204, b"")
    assert "Content-Length" not in answer.headers


def test_F14_a_stalled_answer_has_headers_and_then_nothing_until_the_client_leaves(box, things):
    box.faults.add(vendor="acme", do="stall")
    parts = urlsplit(things)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as wire:
        wire.sendall(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        wire.settimeout(0.05)
        with pytest.raises(TimeoutError):
            wire.recv(1)
    assert requests.get(things, timeout=5).status_code == 200


def test_F14_a_stalled_answer_does_not_keep_the_sandbox_from_stopping(world):
    with sandbox(world, NOW, vendors=["acme"]) as box:
        box.faults.add(vendor="acme", do="stall")
        answer = requests.get(f"{box.address('acme')}/v1/things", stream=True, timeout=5)
    with pytest.raises(requests.exceptions.RequestException):
        _ = answer.content


def test_a_delayed_answer_is_whole(box, things):
    box.faults.add(vendor="acme", do="delay", seconds=0.1)
    started = time.monotonic()
    assert len(requests.get(things, timeout=5).json()["things"]) == 10
    assert time.monotonic() - started >= 0.1


def test_F16_a_redirect_leads_to_the_address_that_was_ordered(box, things):
    box.faults.add(vendor="acme", do="redirect", to="http://localhost:1/elsewhere", code=307)
    answer = requests.get(things, allow_redirects=False, timeout=5)
    assert (answer.status_code, answer.headers["Location"]) == (
        307, "http://localhost:1/elsewhere",
    )  # fmt: skip


def test_F17_the_work_is_done_although_the_client_gets_a_502(box, things):
    box.faults.add(vendor="acme", do="commit_then_502")
    answer = requests.post(things, json={"id": "new", "number": 99}, timeout=5)
    assert answer.status_code == 502
    assert "number" not in answer.text
    dump = requests.get(f"{box.control}/dump", timeout=5).json()
    assert "new" in [row["id"] for row in dump["acme"]["things"]]


def test_F18_the_page_before_comes_again_as_it_was(box, things):
    box.faults.add(vendor="acme", nth=3, do="repeat_page")
    pages = [requests.get(things, {"cursor": n}, timeout=5).json() for n in (0, 10, 20, 20)]
    assert pages[2] == pages[1]
    assert pages[1]["things"][0] == {"number": 10}
    assert pages[3]["things"][0] == {"number": 20}


def test_F18_a_page_may_come_again_for_ever(box, things):
    box.faults.add(vendor="acme", nth=2, times=None, do="repeat_page")
    pages = [requests.get(things, {"cursor": n}, timeout=5).json() for n in (0, 10, 10, 20)]
    assert pages == [pages[0]] * 4


def test_F19_the_cursor_that_a_request_came_with_is_handed_out_again(box, things):
    box.faults.add(vendor="acme", nth=2, do="repeat_cursor", field="next.cursor")
    pages = [requests.get(things, {"cursor": n}, timeout=5).json() for n in (0, 10, 10)]
    assert [page["next"]["cursor"] for page in pages] == [10, 10, 20]
    assert pages[1]["things"] == pages[2]["things"]


def test_F29_an_empty_page_is_a_page_in_all_but_its_records(box, things):
    box.faults.add(vendor="acme", do="empty_page")
    assert requests.get(things, timeout=5).json() == {
        "things": [], "next": {"cursor": 10}, "kind": "things",
    }  # fmt: skip


def test_an_answer_may_be_rewritten_at_will(box, things):
    box.faults.add(vendor="acme", do="rewrite", rewrite=lambda body: body.replace(b"10", b"11"))
    answer = requests.get(things, timeout=5)
    assert answer.json()["next"] == {"cursor": 11}
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_F40_a_rewritten_answer_may_be_no_json_at_all(box, things):
    box.faults.add(vendor="acme", do="rewrite", rewrite=lambda body: b'{"things": [NaN]}')
    assert requests.get(things, timeout=5).text == '{"things": [NaN]}'


def test_every_kind_of_fault_is_seen_in_this_file():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f'do="{kind}"' not in source] == []


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"do": "trunkate"}, "'trunkate' is no kind of fault; did you mean 'truncate'"),
        ({"do": "truncate", "by": 3}, "the fault truncate has no option by; it knows: keep"),
        ({"do": "redirect"}, "the fault redirect lacks to; "),
        ({"do": "repeat_page"}, "cannot be the 1th, 1 times; count from 2"),
        ({"do": "html", "nth": 0}, "cannot be the 0th"),
        ({"do": "html", "times": 0}, "0 times"),
        ({"do": "html", "path": "("}, "a fault's pattern: "),
    ],
)
def test_a_fault_that_cannot_be_carried_out_is_refused_when_it_is_ordered(box, order, says):
    with pytest.raises(InputError) as error:
        box.faults.add(vendor="acme", **order)
    assert says in str(error.value)
    answer = requests.post(f"{box.control}/faults", json={"vendor": "acme", **order}, timeout=5)
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_faults_are_ordered_and_withdrawn_over_http(box, things):
    order = {"vendor": "acme", "do": "status", "code": 418, "times": None}
    assert requests.post(f"{box.control}/faults", json=order, timeout=5).status_code == 201
    assert requests.get(things, timeout=5).status_code == 418
    assert requests.delete(f"{box.control}/faults", timeout=5).status_code == 200
    assert requests.get(things, timeout=5).status_code == 200
    for wrong in ({"do": "html"}, {"vendor": "acme", "do": "rewrite", "rewrite": "x"}):
        answer = requests.post(f"{box.control}/faults", json=wrong, timeout=5)
        assert answer.status_code == 400, wrong


# -- running --------------------------------------------------------------------------------------


def test_two_sandboxes_run_at_once_and_know_nothing_of_each_other(world):
    with sandbox(world, NOW, vendors=["acme"]) as one, sandbox(world, NOW, ["acme"], 3) as other:
        other.faults.add(vendor="acme", do="empty")
        requests.post(f"{one.address('acme')}/v1/things", json={"id": "x"}, timeout=5)
        one.move(NOW + dt.timedelta(days=1))
        empty = requests.get(f"{other.address('acme')}/v1/things", timeout=5)
        page = requests.get(f"{other.address('acme')}/v1/things", timeout=5).json()["things"]
        assert (empty.status_code, len(page)) == (204, 3)
        assert (other.now, len(one.log), len(other.log)) == (NOW, 1, 2)
        assert len(other.table("acme", "things", pytest.fail).rows(NOW.timestamp())) == THINGS


def test_a_stopped_sandbox_no_longer_listens(world):
    before = set(threading.enumerate())  # another module's sandbox may be running
    with sandbox(world, NOW, vendors=["acme"]) as box:
        address = box.address("acme")
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=5)
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if "portal" in thread.name.lower()]


def test_the_tls_port_is_trusted_by_its_ca_and_by_nothing_else(world, tmp_path):
    with sandbox(world, NOW, ["acme", "salesforce"], ca_folder=tmp_path) as box:
        address = f"{box.address('salesforce')}/v1/things"
        session = requests.Session()
        session.trust_env = False
        with pytest.raises(requests.exceptions.SSLError):
            session.get(address, timeout=5)
        assert box.ca_file == tmp_path / "ca.pem"
        assert "PRIVATE" not in box.ca_file.read_text()
        session.verify = str(box.ca_file)
        assert len(session.get(address, timeout=5).json()["things"]) == 10
        box.faults.add(vendor="salesforce", path="^/v1/things$", do="truncate")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            session.get(address, timeout=5)
        box.faults.add(vendor="salesforce", do="reset")
        with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            session.get(address, timeout=5)
        assert box.log[-1].fault == "reset"


def test_a_folder_without_a_world_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no synthetic world; "), sandbox(tmp_path, NOW):
        pass


def test_every_vendor_has_a_credential_of_its_own_and_the_servers_know_it(tmp_path):
    box, values = Box(WorldFiles(tmp_path), NOW), credentials()
    assert {box.token(vendor) for vendor in NAMES} <= set(values.values())
    assert len(set(values.values())) == len(values) == len(NAMES) + 1  # Amplitude has a secret too
    assert values["STRIPE_KEY"].startswith("sk_live_sandbox")
    assert Box(WorldFiles(tmp_path), NOW, tokens={"stripe": "other"}).token("stripe") == "other"


# -- the command ----------------------------------------------------------------------------------

COMPANY = (
    "name: Tiny\ntenant: tiny\ntime_zone: Europe/Berlin\ncurrency: EUR\n"
    "history_start: 2024-10-01\ntoday: 2026-06-30\n"
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "routes_of", lambda name: acme)
    monkeypatch.setattr(running, "served", lambda: ["salesforce", "zendesk"])
    home = tmp_path / "company"
    home.mkdir()
    (home / "company.yaml").write_text(COMPANY)
    return home


def served_until_interrupted(monkeypatch, ask, *arguments):
    """Run `healthloop sandbox`, ask something once it is ready, and press Ctrl-C."""
    show, got, asking = serving._show, [], []

    def ask_and_interrupt(box: Box) -> None:
        try:
            got.append(ask(box))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def on_ready(box: Box) -> None:
        show(box)
        asking.append(threading.Thread(target=ask_and_interrupt, args=(box,)))
        asking[0].start()

    with monkeypatch.context() as patch:
        patch.setattr(serving, "_show", on_ready)
        answer = healthloop("sandbox", "--port", "0", *arguments)
    for thread in asking:
        thread.join()
    return answer, got


def test_the_command_serves_a_world_that_it_makes_once_until_ctrl_c(home, monkeypatch):
    def ask(box: Box):
        return requests.get(f"{box.control}/health", timeout=5).json(), box.small_pages

    answer, [(health, small_pages)] = served_until_interrupted(
        monkeypatch, ask, "--home", str(home), "--accounts", "60", "--small-pages", "3"
    )
    assert answer.code == 0
    assert "Made a synthetic company of 60 accounts" in answer.err
    assert answer.err.endswith("The sandbox has stopped.\n")
    assert "Traceback" not in answer.both
    assert health["now"] == "2026-06-30T21:59:59+00:00"  # the end of the company's pinned day
    assert set(health["vendors"]) == {"salesforce", "zendesk"}
    assert small_pages == 3
    for address in health["vendors"].values():
        assert address in answer.out
    assert str(home / "sandbox" / "ca.pem") in answer.out
    assert "Stop it with Ctrl-C" in answer.out
    assert (home / "sandbox" / "world" / "crm" / "accounts.csv").is_file()

    again, [now] = served_until_interrupted(
        monkeypatch, lambda box: box.now, "--home", str(home), "--now", "2026-05-01T12:00:00+02:00"
    )
    assert (again.code, "Made" in again.err) == (0, False)
    assert now == dt.datetime(2026, 5, 1, 10, tzinfo=dt.UTC)


def test_a_taken_port_is_one_clear_line(home):
    (home / "sandbox" / "world" / "crm").mkdir(parents=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = healthloop("sandbox", "--home", str(home), "--port", str(port))
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert f"port {port} of 127.0.0.1 cannot be used (Address already in use); " in answer.err
    assert "--port" in answer.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--home", "nowhere"), "nowhere"),
        (("--now", "2026-06-30"), "is no moment; write it like 2026-06-30T20:00:00Z"),
        (("--now", "soon"), "'soon' is no moment"),
        (("--accounts", "3"), "--accounts"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_clear_line(home, arguments, says):
    answer = healthloop("sandbox", *(("--home", str(home)) if "--home" not in arguments else ()),
                        *arguments)  # fmt: skip
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert says in answer.err
    assert not (home / "sandbox").exists()


def test_an_interrupted_making_of_the_world_is_begun_again(home, monkeypatch):
    unfinished = home / "sandbox" / "world.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "half").touch()
    answer, _ = served_until_interrupted(
        monkeypatch, lambda box: None, "--home", str(home), "--accounts", "60"
    )
    assert answer.code == 0
    assert not unfinished.exists()
    assert not (home / "sandbox" / "world" / "half").exists()


def test_known_vendors_without_a_server_are_left_out():
    assert set(served()) <= set(NAMES)
