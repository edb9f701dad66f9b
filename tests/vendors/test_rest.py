"""The connector for any API: each way to authenticate, to page and to ask for changes."""

import base64
import datetime as dt
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from connectors.api import Reading
from connectors.vendors.rest.connector import VENDOR, RestConfig
from contracts.errors import SourceCorrupt, SourceRefused
from contracts.secrets import Secrets

ROWS = [{"id": number} for number in range(1, 6)]
NOW = dt.datetime(2026, 7, 1, 6, tzinfo=dt.UTC)
SINCE = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)


class Api:
    """An API whose `answer(path, query, body)` gives a body, and perhaps headers."""

    def __init__(self, answer):
        self.answer, self.asked, self.headers, self.tokens = answer, [], [], 0
        self.address = ""

    def handle(self, handler):
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if parts.path == "/token":
            self.tokens += 1
            good = parse_qs(body.decode()).get("client_secret") == ["canary-secret"]
            return (200, {"access_token": "t-1"}, {}) if good else (401, {}, {})
        self.headers.append(handler.headers)
        sent = json.loads(body) if body else None
        self.asked.append((handler.command, parts.path, query, sent))
        found = self.answer(query, sent)
        return (200, *found) if isinstance(found, tuple) else (200, found, {})


@contextmanager
def serving(answer):
    api = Api(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body, headers = api.handle(self)
            content = json.dumps(body).encode()
            self.send_response(status)
            every = {"Content-Type": "application/json", "Content-Length": len(content), **headers}
            for name, value in every.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    api.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def read(api, tmp_path, stream, since=None, **settings):
    """The rows of one stream."""
    (tmp_path / ".env").write_text("TOKEN=canary-token\nID=me\nSECRET=canary-secret\n")
    stream = {"path": "/rows", "primary_key": ["id"], **stream}
    config = RestConfig.model_validate(
        {"type": "rest", "address": api.address, "streams": {"rows": stream}, **settings}
    )
    client = VENDOR.connect(config, Secrets(tmp_path))
    reading = Reading(
        config, client.stream("rows"), {}, since, NOW, dt.date(2025, 1, 1), tmp_path
    )  # fmt: skip
    return [row for page in VENDOR.streams_of(config)["rows"].read(reading) for row in page]


def two_at_a_time(first):
    return ROWS[first : first + 2]


def test_pages_are_followed_by_the_address_in_their_body(tmp_path):
    def answer(query, _):
        first = int(query.get("from", 0))
        following = f"/rows?from={first + 2}" if first + 2 < len(ROWS) else None
        return {"rows": two_at_a_time(first), "links": {"next": following}}

    with serving(answer) as api:
        stream = {"records": "rows", "paging": {"next_url": "links.next"}}
        assert read(api, tmp_path, stream) == ROWS


def test_pages_are_followed_by_the_link_header(tmp_path):
    def answer(query, _):
        first = int(query.get("from", 0))
        link = f'<{api.address}/rows?from={first + 2}>; rel="next"'
        return two_at_a_time(first), ({"Link": link} if first + 2 < len(ROWS) else {})

    with serving(answer) as api:
        assert read(api, tmp_path, {"paging": {"link_header": True}}) == ROWS


def test_pages_with_numbers_are_read_until_one_is_empty(tmp_path):
    with serving(lambda query, _: two_at_a_time(2 * int(query["page"]))) as api:
        stream = {"paging": {"page_param": "page", "first_page": 0}}
        assert read(api, tmp_path, stream) == ROWS
        assert [query["page"] for _, _, query, _ in api.asked] == ["0", "1", "2", "3"]


def test_rows_are_skipped_until_a_page_is_empty(tmp_path):
    with serving(lambda query, _: two_at_a_time(int(query["skip"]))) as api:
        stream = {"paging": {"offset": {"param": "skip", "limit": 2, "limit_param": "take"}}}
        assert read(api, tmp_path, stream) == ROWS
        assert {query["take"] for _, _, query, _ in api.asked} == {"2"}


def test_a_search_takes_its_cursor_and_its_instants_in_the_body(tmp_path):
    def answer(_, body):
        first = body.get("page", {}).get("after", 0)
        more = first + 2 if first + 2 < len(ROWS) else None
        return {"rows": two_at_a_time(first), "after": more}

    stream = {
        "method": "POST", "records": "rows", "cursor": "id", "cursor_kind": "epoch_ms",
        "paging": {"cursor": "after", "json_param": "page.after"},
        "json": {"where": [{"changed": {"gte": "{since}"}}], "note": "until {now}"},
    }  # fmt: skip
    with serving(answer) as api:
        assert read(api, tmp_path, stream, since=SINCE) == ROWS
    method, _, _, body = api.asked[0]
    assert (method, body["where"]) == ("POST", [{"changed": {"gte": 1782849600000}}])
    assert body["note"] == "until 1782885600000"
    assert [asked["page"]["after"] for _, _, _, asked in api.asked[1:]] == [2, 4]


@pytest.mark.parametrize(
    ("kind", "written"),
    [("iso", "2026-06-30T20:00:00Z"), ("epoch", "1782849600"), ("epoch_ms", "1782849600000")],
)
def test_since_is_written_as_the_cursor_is(tmp_path, kind, written):
    stream = {"cursor": "id", "cursor_kind": kind, "params": {"since": "{since}", "limit": 9}}
    with serving(lambda *_: ROWS) as api:
        read(api, tmp_path, stream, since=SINCE)
        assert api.asked[0][2] == {"since": written, "limit": "9"}
        read(api, tmp_path, stream | {"path": "/rows/{since}"}, since=SINCE)
        assert written in api.asked[1][1].replace("%3A", ":")


BASIC = base64.b64encode(b"me:canary-token").decode()


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"bearer": {"env": "TOKEN"}}, "Authorization", "Bearer canary-token"),
        (
            {"basic": {"user": "me", "password": {"env": "TOKEN"}}},
            "Authorization",
            f"Basic {BASIC}",
        ),
        ({"header": {"name": "X-Api-Key", "value": {"env": "TOKEN"}}}, "X-Api-Key", "canary-token"),
    ],
    ids=["bearer", "basic", "header"],
)
def test_every_request_is_authenticated(tmp_path, auth, header, value):
    with serving(lambda *_: ROWS) as api:
        read(api, tmp_path, {}, auth=auth, headers={"Api-Version": "2026-01"})
        assert (api.headers[0][header], api.headers[0]["Api-Version"]) == (value, "2026-01")


def oauth2(api, secret):
    return {
        "oauth2": {
            "token_url": f"{api.address}/token", "client_id": {"env": "ID"},
            "client_secret": {"env": secret},
        }
    }  # fmt: skip


def test_a_token_is_asked_for_once(tmp_path):
    with serving(lambda query, _: two_at_a_time(2 * int(query["page"]))) as api:
        stream = {"paging": {"page_param": "page", "first_page": 0}}
        assert read(api, tmp_path, stream, auth=oauth2(api, "SECRET")) == ROWS
        assert {headers["Authorization"] for headers in api.headers} == {"Bearer t-1"}
        assert api.tokens == 1


def test_f32_refused_client_credentials_are_told_without_them(tmp_path):
    with serving(lambda *_: ROWS) as api, pytest.raises(SourceRefused) as caught:
        read(api, tmp_path, {}, auth=oauth2(api, "TOKEN"))
    assert "canary" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    assert api.asked == []


def test_an_account_that_is_not_where_it_should_be_is_told(tmp_path):
    with serving(lambda *_: {"user": {"name": "canary"}}) as api:
        config = RestConfig.model_validate({
            "type": "rest", "address": api.address, "account": {"path": "/me", "field": "user.id"},
            "streams": {"rows": {"path": "/rows", "primary_key": ["id"]}},
        })  # fmt: skip
        with pytest.raises(SourceCorrupt, match=r"'user\.id'; correct `account:`"):
            VENDOR.account(VENDOR.connect(config, Secrets(tmp_path)), config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"address": "https://me:canary@api.example.com"}, "more than host and path"),
        ({"address": "https://api.example.com?key=canary"}, "more than host and path"),
        ({"headers": {"X-Api-Key": "canary"}}, "holds a secret"),
        ({"auth": {}}, "give one of"),
        ({"streams": {"../rows": {"path": "/r", "primary_key": ["id"]}}}, "cannot name a stream"),
        ({"paging": {"param": "after"}}, "belong to `cursor`"),
        ({"paging": {"cursor": "a", "param": "p", "json_param": "j"}}, "must go somewhere"),
        ({"paging": {"first_page": 0}}, "belongs to `page_param`"),
        ({"paging": {"cursor": "a", "param": "p", "link_header": True}}, "keep one"),
        ({"params": {"since": "{since}"}}, "no meaning without `cursor`"),
    ],
)
def test_mistakes_are_refused_before_anything_is_asked(change, told):
    stream = {"path": "/rows", "primary_key": ["id"]}
    own = {key: value for key, value in change.items() if key in ("paging", "params")}
    config = {
        "type": "rest", "address": "https://api.example.com", "streams": {"rows": stream | own},
        **{key: value for key, value in change.items() if key not in own},
    }  # fmt: skip
    with pytest.raises(ValidationError, match=told) as caught:
        RestConfig.model_validate(config)
    assert "canary" not in "".join(error["msg"] for error in caught.value.errors())
