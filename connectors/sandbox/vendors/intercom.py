"""Intercom's API, as strict as the real one: companies, conversations, the workspace."""

import base64
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.intercom_records import fill_companies, fill_conversations
from connectors.sandbox.vendors.intercom_search import Unsearchable, matches

WORKSPACE = "lk9view7"
VERSIONS = ("Unstable", "1.4", *(f"2.{minor}" for minor in range(16)))
WORKSPACE_VERSION = "2.3"
"""What applies to requests that name none."""

MOST_COMPANIES_A_PAGE, MOST_CONVERSATIONS_A_PAGE, MOST_LISTED = 60, 150, 10_000
SCROLL_PAGE = 100
SCROLL_SECONDS = 60

Handler = Callable[[Request, Any], Response]


def routes(box: Box) -> list[Route]:
    """The routes below the vendor's prefix."""
    server = _Server(box)
    return [
        Route("/me", server.guarded(server.me)),
        Route("/companies/list", server.guarded(server.list_companies), methods=["POST"]),
        Route("/companies/scroll", server.guarded(server.scroll)),
        Route("/companies/{id}", server.guarded(server.company)),
        Route("/conversations/search", server.guarded(server.search), methods=["POST"]),
        Route("/conversations/{id}", server.guarded(server.conversation)),
    ]


class _Refused(Refused):
    def __init__(self, status: int, code: str, message: str) -> None:
        error = {"code": code, "message": message}
        body = {"type": "error.list", "request_id": "00sandbox", "errors": [error]}
        super().__init__(status, body)


class _Server:
    """Authentication, version, errors and rate headers are common to all routes."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.scrolling: _Scroll | None = None

    def guarded(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(self._answer, handler, request, body)

        return handle

    def _answer(self, handler: Handler, request: Request, body: bytes) -> Response:
        try:
            self._check_headers(request)
            response = handler(request, _parsed(body))
        except _Refused as refused:
            response = refused.answer()
        response.headers["X-RateLimit-Limit"] = "166"
        response.headers["X-RateLimit-Remaining"] = "165"
        response.headers["X-RateLimit-Reset"] = str(int(self.now) + 10)
        return response

    def _check_headers(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or token != self.box.token("intercom"):
            raise _Refused(401, "unauthorized", "Access Token Invalid")
        version = request.headers.get("intercom-version", WORKSPACE_VERSION)
        if version not in VERSIONS:
            raise _Refused(400, "intercom_version_invalid", "The requested version is invalid")

    @property
    def now(self) -> float:
        return self.box.now.timestamp()

    @property
    def companies(self) -> Table:
        return self.box.table(
            "intercom", "companies", lambda table: fill_companies(table, self.box)
        )

    @property
    def conversations(self) -> Table:
        def fill(table: Table) -> None:
            fill_conversations(table, self.box)

        return self.box.table("intercom", "conversations", fill)

    def me(self, request: Request, body: Any) -> Response:
        app = {
            "type": "app", "id_code": WORKSPACE, "name": "Lakeview", "region": "US",
            "timezone": "Europe/Berlin", "created_at": 1_577_869_200,
            "identity_verification": False,
        }  # fmt: skip
        return Json({
            "type": "admin", "id": "1295", "email": "owner@lakeview.example",
            "name": "Ada Sandbox", "email_verified": True, "app": app, "has_inbox_seat": True,
        })  # fmt: skip

    def list_companies(self, request: Request, body: Any) -> Response:
        query = request.query_params
        _only(set(query), {"page", "per_page", "order"})
        page, size = _number(query.get("page", "1")), _number(query.get("per_page", "15"))
        if size > MOST_COMPANIES_A_PAGE:
            raise _Refused(400, "parameter_invalid", "Per Page is too big")
        if (order := query.get("order", "desc")) not in ("asc", "desc"):
            raise _Refused(400, "parameter_invalid", "order must be asc or desc")
        if page * size >= MOST_LISTED + size:
            raise _Refused(400, "bad_request", "page limit reached, please use scroll API")
        size = self.box.page_size("intercom", size)
        rows = [row for row in self.companies.rows(self.now) if row.body["user_count"]]
        rows.sort(key=lambda row: (row.body["last_request_at"], row.id), reverse=order == "desc")
        last = max(1, -(-len(rows) // size))
        address = f"{self.box.address('intercom')}/companies/list?per_page={size}"
        return Json({
            "type": "list",
            "data": [_company(row) for row in rows[(page - 1) * size : page * size]],
            "pages": {
                "type": "pages", "page": page, "per_page": size, "total_pages": last,
                "next": f"{address}&page={page + 1}" if page < last else None,
            },
            "total_count": len(rows),
        })  # fmt: skip

    def scroll(self, request: Request, body: Any) -> Response:
        """One scroll at a time, at the place that the server keeps; over a minute after its use."""
        query = request.query_params
        _only(set(query), {"scroll_param"})
        if self.scrolling and self.box.now - self.scrolling.used > dt.timedelta(
            seconds=SCROLL_SECONDS
        ):
            self.scrolling = None
        if (asked := query.get("scroll_param")) is None:
            if self.scrolling:
                message = "scroll already exists for this workspace"
                raise _Refused(400, "scroll_exists", message)
            self.scrolling = _Scroll(self.companies.rows(self.now), self.box.now)
        elif self.scrolling is None or asked != self.scrolling.name:
            raise _Refused(404, "not_found", "scroll parameter not found")
        found = self.scrolling
        found.used = self.box.now
        size = self.box.page_size("intercom", SCROLL_PAGE)
        rows, found.rest = found.rest[:size], found.rest[size:]
        if not rows:
            self.scrolling = None
        return Json({
            "type": "list",
            "data": [_company(row) for row in rows],
            "pages": None,
            "total_count": None,
            "scroll_param": found.name,
        })  # fmt: skip

    def company(self, request: Request, body: Any) -> Response:
        row = self.companies.get(request.path_params["id"], self.now)
        if row is None:
            raise _Refused(404, "company_not_found", "Company Not Found")
        return Json(_company(row))

    def search(self, request: Request, body: Any) -> Response:
        if not isinstance(body, dict) or "query" not in body:
            raise _Refused(400, "parameter_not_found", "query is required")
        _only(set(body), {"query", "pagination", "sort"})
        paging = body.get("pagination") or {}
        _only(set(paging), {"per_page", "starting_after"})
        size = _number(paging.get("per_page", 20))
        if size > MOST_CONVERSATIONS_A_PAGE:
            raise _Refused(400, "parameter_invalid", "per_page must be between 1 and 150")
        size = self.box.page_size("intercom", size)
        try:
            # The most recently changed first.
            rows = [
                row
                for row in reversed(self.conversations.rows(self.now))
                if matches(_dated(row), body["query"])
            ]
        except Unsearchable as error:
            raise _Refused(400, "invalid_query", str(error)) from None
        start = 0
        if (cursor := paging.get("starting_after")) is not None:
            place = _place(cursor)
            start = sum(_key(row) >= place for row in rows)
        given = rows[start : start + size]
        more = start + size < len(rows)
        pages = {
            "type": "pages", "page": start // size + 1, "per_page": size,
            "total_pages": max(1, -(-len(rows) // size)),
        }  # fmt: skip
        if more:
            pages["next"] = {"per_page": size, "starting_after": _cursor(given[-1])}
        return Json({
            "type": "conversation.list",
            "conversations": [self._seen(row, request) for row in given],
            "total_count": len(rows),
            "pages": pages,
        })  # fmt: skip

    def conversation(self, request: Request, body: Any) -> Response:
        row = self.conversations.get(request.path_params["id"], self.now)
        if row is None:
            raise _Refused(404, "not_found", "Resource Not Found")
        return Json(self._seen(row, request))

    def _seen(self, row: Row, request: Request) -> dict[str, Any]:
        """A conversation as the asked version shows it: before 2.15 without its company."""
        body = _dated(row)
        company = self.companies.get(body.pop("of_company") or "", self.now)
        if request.headers.get("intercom-version", WORKSPACE_VERSION) == VERSIONS[-1]:
            body["company"] = _company(company) if company else None
        return body


class _Scroll:
    def __init__(self, rows: list[Row], now: dt.datetime) -> None:
        self.name = f"25b649f7-4d33-4ef6-88f5-{int(now.timestamp()):012d}"
        self.rest = rows
        self.used = now


def _dated(row: Row) -> dict[str, Any]:
    return row.body | {
        "id": row.id, "created_at": int(row.created), "updated_at": int(row.changed),
    }  # fmt: skip


def _company(row: Row) -> dict[str, Any]:
    return row.body | {"id": row.id, "updated_at": int(row.changed)}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        raise _Refused(400, "bad_request", "The body is no JSON") from None


def _only(given: set[str], known: set[str]) -> None:
    if unknown := sorted(given - known):
        raise _Refused(400, "parameter_invalid", f"unknown parameter {unknown[0]}")


def _number(given: Any) -> int:
    if not str(given).isdigit() or int(given) < 1:
        raise _Refused(400, "parameter_invalid", "must be a positive number")
    return int(given)


def _key(row: Row) -> tuple[int, str]:
    return int(row.changed), row.id


def _cursor(row: Row) -> str:
    return base64.b64encode(json.dumps([int(row.changed) * 1000, row.id]).encode()).decode()


def _place(cursor: Any) -> tuple[int, str]:
    try:
        milliseconds, id = json.loads(base64.b64decode(str(cursor), validate=True))
        return milliseconds // 1000, str(id)
    except (ValueError, TypeError):
        raise _Refused(400, "parameter_invalid", "starting_after is invalid") from None
