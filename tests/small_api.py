"""A small API on loopback: lists of records with pages, a token and changes since an instant."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "canary-7f3a"


@dataclass
class SmallApi:
    """What the server has: records by list, each with `id` and `updated_at`.

    `asked` collects the paths and queries. A path in `broken` answers 404.
    """

    lists: dict[str, list[dict[str, Any]]]
    account: str = "acme"
    per_page: int = 2
    address: str = ""
    asked: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """The status and the body of one request."""
        if path in self.broken:
            return 404, {"error": "gone"}
        if path == "/me":
            return 200, {"organisation": {"id": self.account}}
        records = [
            record
            for record in self.lists[path.strip("/")]
            if record.get("updated_at", "9") >= query.get("since", "")
        ]
        first = int(query.get("after", 0))
        more = first + self.per_page < len(records)
        return 200, {
            "data": records[first : first + self.per_page],
            "meta": {"next": str(first + self.per_page) if more else None},
        }


@contextmanager
def serving(api: SmallApi) -> Iterator[SmallApi]:
    """Serve it in a thread; its `address` is set meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if self.headers["Authorization"] == f"Bearer {TOKEN}":
                api.asked.append(self.path)
                status, body = api.answer(parts.path, query)
            else:
                status, body = 401, {"error": "who are you"}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    api.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
