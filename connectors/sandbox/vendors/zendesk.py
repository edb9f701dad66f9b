"""Zendesk Support as its API presents it: exports, ratings, and who the token belongs to.

The company offers support by messaging. Each ticket has a version for being opened, answered,
solved and closed; closing is the system's doing, which moves `generated_timestamp` alone.
"""

import base64
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.zendesk_records import (
    HOST,
    epoch,
    organization,
    rating,
    shown_organization,
    shown_ticket,
    ticket,
    ticket_moments,
)

VENDOR = "zendesk"
HIDDEN_SECONDS = 60
EXPORT_MOST = 1000
RATINGS_MOST = 100
_SCORES = {
    "received": ("good", "bad"),
    "offered": ("offered",),
    "good": ("good",),
    "bad": ("bad",),
}


def routes(box: Box) -> list[Route]:
    """What is served, with and without the ending .json, as Zendesk does."""
    desk = Desk(box)
    served = {
        "users/me": desk.me,
        "incremental/tickets/cursor": desk.export_tickets,
        "incremental/organizations": desk.export_organizations,
        "satisfaction_ratings": desk.ratings,
    }
    return [
        Route(f"/api/v2/{path}{ending}", desk.guarded(answer), methods=["GET"])
        for path, answer in served.items()
        for ending in ("", ".json")
    ]


class Desk:
    """The help desk of the synthetic company."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def guarded(self, answer: Callable[[Request], dict[str, Any]]) -> Callable[..., Response]:
        """An endpoint that asks for credentials first and answers errors in Zendesk's words."""

        def respond(request: Request) -> Response:
            headers = {"x-rate-limit": "700", "x-rate-limit-remaining": "699"}
            try:
                self._authenticate(request)
                status, body = 200, answer(request)
            except Refused as refused:
                status, body = refused.status, refused.body
            return Json(body, status, headers)

        return respond

    def _authenticate(self, request: Request) -> None:
        """Bearer with an OAuth token, or Basic ``<e-mail>/token`` with an API token."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            user, _, given = _decoded(given).partition(":")
            given = given if user.endswith("/token") and "@" in user else ""
        elif kind.lower() != "bearer":
            given = ""
        if given != self._box.token(VENDOR):
            raise Refused(401, {"error": "Couldn't authenticate you"})

    # -- collections ---------------------------------------------------------------------------

    def _table(self, name: str) -> Table:
        fill = {"tickets": self._tickets, "organizations": self._organizations,
                "satisfaction_ratings": self._ratings}  # fmt: skip
        return self._box.table(VENDOR, name, fill[name])

    def _tickets(self, table: Table) -> None:
        # Nobody can look back: of what is past, only the newest version is needed.
        now = self._box.now.timestamp()
        for row in self._world_tickets():
            moments = ticket_moments(row)
            past = sum(at <= now for at, _ in moments)
            for at, status in moments[max(past - 1, 0) :]:
                table.put(row["id"], ticket(row, status), at)

    def _organizations(self, table: Table) -> None:
        for number, row in enumerate(self._box.world.rows("helpdesk/organizations.csv")):
            at = dt.datetime(2023, 1, 1, tzinfo=dt.UTC).timestamp() + 600 * number
            table.put(row["id"], organization(row, at), at)

    def _ratings(self, table: Table) -> None:
        for row in self._world_tickets():
            if solved := epoch(row["solved_at"]):
                table.put(*rating(row), at=solved)

    def _world_tickets(self) -> list[dict[str, Any]]:
        """Without what a help desk could not hold: no id, opened at no time or after its end."""
        return [
            row
            for row in self._box.world.rows("helpdesk/tickets.csv")
            if row["id"] and 0 < (epoch(row["created_at"]) or 0) <= (epoch(row["updated_at"]) or 0)
        ]

    def _visible(self, name: str, *, hidden_seconds: int = HIDDEN_SECONDS) -> list[Row]:
        now = self._box.now.timestamp() - hidden_seconds
        return self._table(name).derived(now, "by second and number", _by_second_and_number)

    # -- endpoints -----------------------------------------------------------------------------

    def me(self, request: Request) -> dict[str, Any]:
        """The owner of the token."""
        _only(request.query_params, set())
        return {
            "user": {
                "id": 7001, "url": f"{HOST}/api/v2/users/7001.json", "name": "Integration",
                "email": "integration@example.com", "role": "admin", "active": True,
                "created_at": "2023-01-01T00:00:00Z", "updated_at": "2023-01-01T00:00:00Z",
                "time_zone": "UTC", "verified": True, "suspended": False,
            }
        }  # fmt: skip

    def export_tickets(self, request: Request) -> dict[str, Any]:
        """The cursor export: everything after a place, deleted tickets too."""
        query = request.query_params
        _only(query, {"start_time", "cursor", "per_page", "include"})
        with_metrics = _includes_metrics(query.get("include"))
        size = self._export_size(query)
        place = _place(query["cursor"]) if "cursor" in query else (self._start_time(query), -1)
        after = [row for row in self._visible("tickets") if _place_of(row) > place]
        page = after[:size]
        cursor = _cursor(_place_of(page[-1]) if page else place)
        following = request.url.remove_query_params("start_time")
        return {
            "tickets": [shown_ticket(row, with_metrics) for row in page],
            "after_cursor": cursor,
            "after_url": str(following.include_query_params(cursor=cursor)),
            "before_cursor": None,
            "before_url": None,
            "end_of_stream": len(after) == len(page),
        }

    def export_organizations(self, request: Request) -> dict[str, Any]:
        """The time-based export: everything since a second, that second included."""
        query = request.query_params
        _only(query, {"start_time", "per_page"})
        size, start = self._export_size(query), self._start_time(query)
        rows = [row for row in self._visible("organizations") if int(row.changed) >= start]
        # Rows of the first second do not count, or a small page would never get beyond it.
        size += sum(int(row.changed) == start for row in rows)
        end = int(rows[min(size, len(rows)) - 1].changed) if rows else None
        page = [row for row in rows if int(row.changed) <= (end or 0)]
        following = request.url.include_query_params(start_time=end)
        return {
            "organizations": [shown_organization(row) for row in page],
            "count": len(page),
            "end_time": end,
            "next_page": str(following) if end else None,
            "end_of_stream": len(page) == len(rows),
        }

    def ratings(self, request: Request) -> dict[str, Any]:
        """Satisfaction ratings by cursor, the oldest first."""
        query = request.query_params
        _only(query, {"score", "start_time", "end_time", "page[size]", "page[after]"})
        size = _number(query, "page[size]", RATINGS_MOST)
        if not 1 <= size <= RATINGS_MOST:
            raise _bad_parameter("page[size]")
        scores = _SCORES.get(query.get("score", ""))
        if "score" in query and scores is None:
            raise _bad_parameter("score")
        first, last = _number(query, "start_time", 0), _number(query, "end_time", 1 << 40)
        place = _place(query["page[after]"]) if "page[after]" in query else (0, -1)
        rows = [
            row
            for row in self._visible("satisfaction_ratings", hidden_seconds=0)
            if not row.deleted
            and first <= int(row.changed) <= last
            and (scores is None or row.body["score"] in scores)
            and _place_of(row) > place
        ]
        page = rows[: self._box.page_size(VENDOR, size)]
        more = len(rows) > len(page)
        after = _cursor(_place_of(page[-1])) if page else None
        following = request.url.include_query_params(**{"page[after]": after}) if more else None
        return {
            "satisfaction_ratings": [row.body for row in page],
            "meta": {"has_more": more, "after_cursor": after, "before_cursor": None},
            "links": {"next": str(following) if following else None, "prev": None},
        }

    def _export_size(self, query: Mapping[str, str]) -> int:
        size = _number(query, "per_page", EXPORT_MOST)
        if not 1 <= size <= EXPORT_MOST:
            raise _bad_parameter("per_page")
        return self._box.page_size(VENDOR, size)

    def _start_time(self, query: Mapping[str, str]) -> int:
        if "start_time" not in query:
            raise _bad_parameter("start_time")
        start = _number(query, "start_time", 0)
        if start > self._box.now.timestamp() - HIDDEN_SECONDS:
            raise Refused(
                422,
                {
                    "error": "StartTimeTooRecent",
                    "description": "Too recent start_time. Use a start_time older than 60 seconds",
                },
            )
        return start


# -- parameters --------------------------------------------------------------------------------


def _by_second_and_number(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (int(row.changed), int(row.id)))


def _only(query: Mapping[str, str], known: set[str]) -> None:
    """Zendesk would ignore a misspelt parameter; here it is a mistake that shows."""
    for name in query:
        if name not in known:
            raise _bad_parameter(name)


def _bad_parameter(name: str) -> Refused:
    detail = {"title": "Invalid attribute", "message": f"You passed an invalid value for {name}"}
    return Refused(400, {"error": detail})


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise _bad_parameter(name) from None


def _includes_metrics(include: str | None) -> bool:
    if include not in (None, "", "metric_sets"):
        raise _bad_parameter("include")
    return bool(include)


def _cursor(place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(f"{place[0]}.0||{place[1]}|".encode()).decode()


def _place(cursor: str) -> tuple[int, int]:
    try:
        moment, _, rest = _decoded(cursor).partition(".0||")
        return int(moment), int(rest.removesuffix("|"))
    except ValueError:
        raise _bad_parameter("cursor") from None


def _place_of(row: Row) -> tuple[int, int]:
    return int(row.changed), int(row.id)


def _decoded(text: str) -> str:
    try:
        return base64.urlsafe_b64decode(text.encode()).decode()
    except ValueError:
        return ""
