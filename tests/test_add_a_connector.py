"""The page on APIs described in YAML: its answers are served, its commands run, its keys exist."""

import datetime as dt
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_args, get_origin
from urllib.parse import parse_qs, urlencode, urlsplit

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from test_docs import ROOT, play, reader  # noqa: F401

from connectors.vendors.rest.connector import RestConfig
from contracts.company import read_company
from contracts.secrets import FromEnvironment
from tests.pulling import run

PAGE = ROOT / "docs/add-a-connector.md"
ADDRESS = "https://api.brookdesk.example/v2"
TOKEN = "bd-example-token"


def answers_of(page: str) -> dict[str, Any]:
    """The JSON answers that a page shows, by path and query."""
    found = re.findall(r"`GET (\S+)` answers:\n\n```json\n(.*?)^```$", page, re.M | re.S)
    return {path: json.loads(body) for path, body in found}


def answer_to(request: str, answers: dict[str, Any]) -> Any:
    """What the page shows for a request; of tickets only those that changed since, in one page."""
    parts = urlsplit(request)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    if parts.path == "/tickets":
        since = query.pop("updated_since", "")
        if query.pop("limit", "") != "100" or not re.fullmatch(r"20[\d-]{8}T[\d:]{8}Z", since):
            return None
        tickets = [t for path, body in answers.items() if "ticket" in path for t in body["data"]]
        changed = [ticket for ticket in tickets if ticket["updated"] >= since]
        if changed != tickets:
            return {"data": changed, "meta": {"next": None}}
    return answers.get(parts.path + (f"?{urlencode(query)}" if query else ""))


@contextmanager
def brookdesk(answers: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Serve these answers on loopback: the address, and the requests that came."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path.removeprefix("/v2"))
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                body = answer_to(asked[-1], answers)
                self.answer(200 if body else 400, body)
            else:
                self.answer(401, {"error": "this token has been revoked"})

        def answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2", asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_stranger_describes_an_api_as_the_page_shows(reader, monkeypatch):  # noqa: F811
    monkeypatch.delenv("BROOKDESK_TOKEN", raising=False)
    text = PAGE.read_text(encoding="utf-8")
    with brookdesk(answers_of(text)) as (address, asked):
        # The page as it is, but for the address; what it then shows goes back where it came from.
        copy = reader / PAGE.name
        copy.write_text(text.replace(ADDRESS, address), encoding="utf-8")
        play(copy, reader)
        shown = copy.read_text(encoding="utf-8").replace(address, ADDRESS)
    if shown != text:  # only where HEALTHLOOP_UPDATE_DOCS asks for it
        PAGE.write_text(shown, encoding="utf-8")
    assert [path.partition("?")[0] for path in asked].count("/tickets") == 2
    assert any("updated_since=2024-12-28T00%3A00%3A00Z" in path for path in asked)


def test_the_next_run_asks_each_stream_once_and_stores_nothing(reader, monkeypatch):  # noqa: F811
    monkeypatch.delenv("BROOKDESK_TOKEN", raising=False)
    text = PAGE.read_text(encoding="utf-8").partition("### 4. Check")[0]
    with brookdesk(answers_of(text)) as (address, asked):
        copy = reader / PAGE.name
        copy.write_text(text.replace(ADDRESS, address), encoding="utf-8")
        play(copy, reader)
        company = read_company(reader / "paperplane")
        first = run(company, "brookdesk", now=dt.datetime(2026, 3, 31, 20, tzinfo=dt.UTC))
        asked.clear()
        second = run(company, "brookdesk", now=dt.datetime(2026, 3, 31, 21, tzinfo=dt.UTC))
    assert {stream.name: stream.rows for stream in first.streams} == {"customers": 3, "tickets": 3}
    assert (first.account, second.rows, second.load_id) == ("paperplane", 0, None)
    assert sorted(asked) == [
        "/customers", "/tickets?limit=100&updated_since=2026-03-30T08%3A50%3A00Z",
    ]  # fmt: skip


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """The keys of a model and of those within it, with what they are when left out."""
    found = {}
    for field, about in model.model_fields.items():
        name = prefix + (about.alias or field)
        inner = next((m for m in models_in(about.annotation) if m is not FromEnvironment), None)
        if inner is None:
            found[name] = default_of(about)
        else:
            named = get_origin(about.annotation) is dict
            found |= keys_of(inner, f"{name}.<stream>." if named else f"{name}.")
    return found


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part
        elif part is not annotation:
            yield from models_in(part)


def default_of(about: Any) -> str:
    value = about.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if value == "":
        return "empty"
    return "none" if value in (None, [], {}) else json.dumps(value).strip('"')


def test_the_table_has_every_key_of_the_models_with_its_default():
    text = PAGE.read_text(encoding="utf-8").partition("## All keys")[2]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.M)
    assert sorted(rows) == sorted(keys_of(RestConfig).items())
