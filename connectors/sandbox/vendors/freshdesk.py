"""Freshdesk as its API presents it: tickets in lists, companies, ratings, and the account.

Each ticket has a version for being opened, answered, resolved and closed. What `Table.remove`
takes away lies in the trash; a ticket whose body says `spam` is in the list of spam.
"""

import base64
import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.freshdesk_records import (
    DAY_SECONDS,
    changed,
    company,
    epoch,
    list_of,
    opened,
    rating,
    shown_ticket,
    ticket,
    ticket_moments,
)

VENDOR = "freshdesk"
PER_PAGE, MOST_PER_PAGE, LAST_PAGE = 30, 100, 300
SEARCH_PER_PAGE, LAST_SEARCH_PAGE = 30, 10
_INCLUDES = {"stats", "requester", "description", "company"}
_SEARCH = re.compile(r"\"updated_at:>'(\d{4}-\d{2}-\d{2})'\"")


def routes(box: Box) -> list[Route]:
    """What is served."""
    desk = Desk(box)
    served = {
        "account": desk.account,
        "tickets": desk.tickets,
        "companies": desk.companies,
        "search/companies": desk.search_companies,
        "surveys/satisfaction_ratings": desk.ratings,
    }
    return [
        Route(f"/api/v2/{path}", desk.guarded(answer), methods=["GET"])
        for path, answer in served.items()
    ]


class Desk:
    """The help desk of the synthetic company."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def guarded(self, answer: Callable[[Request], Any]) -> Callable[..., Response]:
        """An endpoint that asks for the key first, counts credits and links to the next page."""

        def respond(request: Request) -> Response:
            extras = [each for each in request.query_params.get("include", "").split(",") if each]
            headers = {
                "X-RateLimit-Total": "200",
                "X-RateLimit-Remaining": "199",
                "X-RateLimit-Used-CurrentRequest": str(1 + 2 * len(extras)),
            }
            try:
                self._authenticate(request)
                body = answer(request)
                status = 200
            except Refused as refused:
                status, body = refused.status, refused.body
            if isinstance(body, tuple):
                body, more = body
                if more:
                    headers["Link"] = f'<{_next_page(request)}>; rel="next"'
            return Json(body, status, headers)

        return respond

    def _authenticate(self, request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            key = base64.b64decode(given).decode().partition(":")[0]
        except ValueError:
            key = ""
        if kind.lower() != "basic" or key != self._box.token(VENDOR):
            message = "You have to be logged in to perform this action."
            raise Refused(401, {"code": "invalid_credentials", "message": message})

    # -- collections ---------------------------------------------------------------------------

    def _rows(self, name: str, *, deleted: bool = False) -> list[Row]:
        fill = {"tickets": self._tickets, "companies": self._companies,
                "satisfaction_ratings": self._ratings}  # fmt: skip
        table = self._box.table(VENDOR, name, fill[name])
        rows = table.rows(self._box.now.timestamp(), deleted=deleted)
        return sorted(rows, key=lambda row: (int(row.changed), int(row.id)))

    def _tickets(self, table: Table) -> None:
        # Nobody can look back: of what is past, only the newest version is needed.
        now = self._box.now.timestamp()
        for row in self._world_tickets():
            moments = ticket_moments(row)
            past = sum(at <= now for at, _ in moments)
            for at, status in moments[max(past - 1, 0) :]:
                table.put(row["id"], ticket(row, status), at)

    def _companies(self, table: Table) -> None:
        for number, row in enumerate(self._box.world.rows("helpdesk/organizations.csv")):
            at = dt.datetime(2023, 1, 1, tzinfo=dt.UTC).timestamp() + 86_400 * number
            table.put(row["id"], company(row, at), at)

    def _ratings(self, table: Table) -> None:
        for row in self._world_tickets():
            solved = epoch(row["solved_at"])
            if solved and row["satisfaction_rating"] in ("good", "bad"):
                table.put(*rating(row), at=solved)

    def _world_tickets(self) -> list[dict[str, Any]]:
        """Without what a help desk could not hold: no id, opened at no time or after its end."""
        return [
            row
            for row in self._box.world.rows("helpdesk/tickets.csv")
            if row["id"] and 0 < (epoch(row["created_at"]) or 0) <= (epoch(row["updated_at"]) or 0)
        ]

    # -- endpoints -----------------------------------------------------------------------------

    def account(self, request: Request) -> dict[str, Any]:
        """The account that the key belongs to."""
        _only(request.query_params, set())
        return {
            "organisation_id": 320_001, "organisation_name": "Sandbox", "account_id": 230_001,
            "account_name": "Sandbox", "account_domain": "sandbox.freshdesk.com",
            "bundle_id": None, "bundle_name": None, "data_center": "EU", "tier_type": "Pro",
            "total_agents": {"full_time": 5, "occasional": 0, "field_service": 0,
                             "collaborators": 0},
            "timezone": "UTC",
        }  # fmt: skip

    def tickets(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """A list of tickets: those of 30 days, or those that changed since a moment."""
        query = request.query_params
        _only(query, {"filter", "updated_since", "order_by", "order_type", "include", "per_page",
                      "page"})  # fmt: skip
        kind = _one_of(query, "filter", {"", "deleted", "spam"})
        order = _one_of(query, "order_by", {"", "created_at", "updated_at"}) or "created_at"
        direction = _one_of(query, "order_type", {"", "asc", "desc"}) or "desc"
        include = {each for each in query.get("include", "").split(",") if each}
        if include - _INCLUDES:
            raise _mistake("include", "It should be one of the embeddable resources")
        if _number(query, "page", 1) > LAST_PAGE:
            raise _mistake("page", f"You cannot access tickets beyond the {LAST_PAGE}th page.")
        rows = [
            row
            for row in self._rows("tickets", deleted=True)
            if list_of(row) == kind and self._is_recent(row, query)
        ]
        # Not the order of a stable table: rows that changed in one second come newest id first.
        moment = opened if order == "created_at" else changed
        rows.sort(key=lambda row: (moment(row), -int(row.id)), reverse=direction == "desc")
        page, more = self._page(rows, query)
        return [shown_ticket(row, include) for row in page], more

    def _is_recent(self, row: Row, query: Mapping[str, str]) -> bool:
        if "updated_since" in query:
            return int(row.changed) >= _moment(query, "updated_since")
        return opened(row) >= self._box.now.timestamp() - 30 * DAY_SECONDS

    def companies(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """All companies, by id."""
        query = request.query_params
        _only(query, {"per_page", "page"})
        rows = sorted(self._rows("companies"), key=lambda row: int(row.id))
        page, more = self._page(rows, query)
        return [row.body for row in page], more

    def search_companies(self, request: Request) -> dict[str, Any]:
        """Companies that changed on a day or after it, ten pages of thirty at the most."""
        query = request.query_params
        _only(query, {"query", "page"})
        wanted = _SEARCH.fullmatch(query.get("query", ""))
        if wanted is None:
            raise _mistake("query", "Given query is not valid")
        number = _number(query, "page", 1)
        if number > LAST_SEARCH_PAGE:
            raise _mistake("page", f"It should be a Positive Integer less than {LAST_SEARCH_PAGE}")
        since = dt.datetime.fromisoformat(f"{wanted[1]}T00:00:00+00:00").timestamp()
        rows = [row for row in self._rows("companies") if row.changed >= since]
        start = (number - 1) * SEARCH_PER_PAGE
        return {
            "total": len(rows),
            "results": [row.body for row in rows[start : start + SEARCH_PER_PAGE]],
        }

    def ratings(self, request: Request) -> tuple[list[dict[str, Any]], bool]:
        """Answers to satisfaction surveys, the newest first."""
        query = request.query_params
        _only(query, {"created_since", "user_id", "per_page", "page"})
        since = _moment(query, "created_since") if "created_since" in query else 0
        rows = [row for row in self._rows("satisfaction_ratings") if row.created >= since]
        page, more = self._page(rows[::-1], query)
        return [row.body for row in page], more

    def _page(self, rows: list[Row], query: Mapping[str, str]) -> tuple[list[Row], bool]:
        size, page = _number(query, "per_page", PER_PAGE), _number(query, "page", 1)
        if not 1 <= size <= MOST_PER_PAGE:
            raise _mistake("per_page", f"It should be a Positive Integer up to {MOST_PER_PAGE}")
        if page < 1:
            raise _mistake("page", "It should be a Positive Integer")
        size = self._box.page_size(VENDOR, size)
        end = page * size
        return rows[end - size : end], len(rows) > end


# -- parameters --------------------------------------------------------------------------------


def _mistake(field: str, message: str, code: str = "invalid_value") -> Refused:
    error = {"field": field, "message": message, "code": code}
    return Refused(400, {"description": "Validation failed", "errors": [error]})


def _only(query: Mapping[str, str], known: set[str]) -> None:
    for name in query:
        if name not in known:
            raise _mistake(name, "Unexpected/invalid field in request", "invalid_field")


def _one_of(query: Mapping[str, str], name: str, values: set[str]) -> str:
    if query.get(name, "") not in values:
        raise _mistake(name, f"It should be one of these values: {','.join(sorted(values))}")
    return query.get(name, "")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise _mistake(name, "It should be a Positive Integer", "datatype_mismatch") from None


def _moment(query: Mapping[str, str], name: str) -> float:
    moment = epoch(query[name])
    if moment is None:
        raise _mistake(name, "It should be a combined date and time in ISO 8601", "invalid_date")
    return moment


def _next_page(request: Request) -> str:
    page = int(request.query_params.get("page", "1"))
    return str(request.url.include_query_params(page=page + 1))
