"""Mixpanel as a strict server: raw export, group profiles and cohorts of one project.

The project was made after January 2023, so its dates are in UTC. Now and then an event is
delivered twice, as the real export does.
"""

import base64
import datetime as dt
import json
import re
import secrets
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from connectors.quoting import literal
from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.product_events import EVENT_ID, USER, product_events, workspaces

PROJECT = 2024117
DATA_GROUP = "5031207118643"
PAGE_ROWS = 1000
MOST_EVENTS = 100_000

_EXPORT_PARAMETERS = {"project_id", "from_date", "to_date", "limit", "event", "time_in_ms"}
_ENGAGE_FIELDS = {"data_group_id", "output_properties", "session_id", "page"}

# One event in 97 comes twice.
_EVENTS = """
SELECT json_object('event', event, 'properties', CASE WHEN value IS NULL THEN {properties})
       ELSE {properties}, 'value', value) END)
FROM product_events(CAST(? AS DATE), CAST(? AS DATE)),
     (VALUES (0), (1)) AS copies (copy)
WHERE arrived <= CAST(? AS TIMESTAMPTZ) AND happened >= CAST(? AS TIMESTAMPTZ)
  AND happened < CAST(? AS TIMESTAMPTZ) AND (copy = 0 OR epoch(happened) % 97 = 0) {wanted}
ORDER BY arrived, workspace, number LIMIT {limit}
"""
_PROPERTIES = f"""json_object(
    'time', CAST(epoch(happened) * {{units}} AS BIGINT),
    'distinct_id', CASE user_no WHEN 0 THEN '' ELSE {USER} || '@example.com' END,
    '$insert_id', {EVENT_ID}, 'mp_processing_time_ms', epoch_ms(arrived),
    'mp_lib', 'node', '$city', 'Berlin', 'workspace_id', workspace"""


def routes(box: Box) -> list[Route]:
    """The export of the data host, and two endpoints of the query host."""
    server = _Mixpanel(box)
    return [
        Route("/api/2.0/export", server.export, methods=["GET"]),
        Route("/api/query/engage", server.engage, methods=["POST"]),
        Route("/api/query/cohorts/list", server.cohorts, methods=["POST"]),
    ]


class _Mixpanel:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.sessions: dict[str, list[dict[str, Any]]] = {}

    async def export(self, request: Request) -> Response:
        """The events of some days as JSON lines, packed where the client understands it."""
        params = dict(request.query_params)
        problem = self._refusal(request) or self._problem(params)
        if problem:
            return problem
        lines = await run_in_threadpool(self._lines, params)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return StreamingResponse(lines, media_type="text/plain")
        headers = {"Content-Encoding": "gzip"}
        return StreamingResponse(_packed(lines), headers=headers, media_type="text/plain")

    async def engage(self, request: Request) -> Response:
        """A page of group profiles."""
        if refusal := self._refusal(request):
            return refusal
        form = dict(parse_qsl((await request.body()).decode()))
        if unknown := sorted(set(form) - _ENGAGE_FIELDS):
            return _error(400, f"unknown parameter {unknown[0]}")
        if form.get("data_group_id") != DATA_GROUP:
            return _error(400, "the sandbox has profiles of one data_group_id only")
        page, session = form.get("page", "0"), form.get("session_id")
        if not page.isdigit() or (page != "0" and session not in self.sessions):
            return _error(400, "request for page in uncached query for params")
        if session is None or session not in self.sessions:
            session = f"{int(self.box.now.timestamp())}-{secrets.token_hex(4)}"
            self.sessions[session] = self._profiles(json.loads(form.get("output_properties", "[]")))
        found, size = self.sessions[session], self.box.page_size("mixpanel", PAGE_ROWS)
        start = int(page) * size
        return _json(
            {
                "page": int(page), "page_size": size, "session_id": session, "status": "ok",
                "total": len(found), "results": found[start : start + size],
            }
        )  # fmt: skip

    async def cohorts(self, request: Request) -> Response:
        """The one cohort of the project."""
        if refusal := self._refusal(request):
            return refusal
        cohort = {
            "count": 12, "is_visible": 1, "description": "", "created": "2024-02-01 09:00:00",
            "project_id": PROJECT, "id": 1000, "name": "Power users",
        }  # fmt: skip
        return _json([cohort])

    def _refusal(self, request: Request) -> Response | None:
        """Basic authentication: the project's secret alone, or a service account's."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            return _error(401, "Invalid credentials")
        token = self.box.token("mixpanel")
        if scheme != "Basic" or not secrets.compare_digest(password or user, token):
            return _error(401, "Invalid credentials")
        project = request.query_params.get("project_id")
        if project is None and password:
            return _error(400, "project_id is required for service accounts")
        if project not in (None, str(PROJECT)):
            return _error(403, "Authenticated user is not a member of the project")
        return None

    def _problem(self, params: dict[str, str]) -> Response | None:
        """What is wrong with the parameters of an export."""
        unknown = sorted(set(params) - _EXPORT_PARAMETERS)
        days = [params.get("from_date", ""), params.get("to_date", "")]
        limit = params.get("limit", "1")
        problem = None
        if unknown:
            problem = f"unknown parameter {unknown[0]}"
        elif not all(_is_day(day) for day in days):
            problem = "from_date and to_date are required in the format yyyy-mm-dd"
        elif days[0] > days[1]:
            problem = "from_date cannot be later than to_date"
        elif days[1] > self.box.now.date().isoformat():
            problem = "to_date cannot be later than today"
        elif not limit.isdigit() or not 1 <= int(limit) <= MOST_EVENTS:
            problem = f"limit must be between 1 and {MOST_EVENTS}"
        elif _names(params.get("event", "[]")) is None:
            problem = "event must be a JSON array of names"
        return _error(400, problem) if problem else None

    def _lines(self, params: dict[str, str]) -> Iterator[bytes]:
        first = dt.date.fromisoformat(params["from_date"])
        end = dt.date.fromisoformat(params["to_date"]) + dt.timedelta(days=1)
        names = _names(params.get("event", "[]")) or []
        wanted = f"AND event IN ({', '.join(map(literal, names))})" if names else ""
        units = 1000 if params.get("time_in_ms") == "true" else 1
        properties = _PROPERTIES.format(units=units)
        query = _EVENTS.format(
            properties=properties, wanted=wanted, limit=params.get("limit", "ALL")
        )
        cursor = product_events(self.box.world).cursor(self.box)
        bounds = [f"{day}T00:00:00Z" for day in (first, end)]
        cursor.execute(query, [first, end, self.box.now, *bounds])
        while rows := cursor.fetchmany(20_000):
            yield ("\n".join(row[0] for row in rows) + "\n").encode()

    def _profiles(self, names: list[str]) -> list[dict[str, Any]]:
        return [
            {
                "$distinct_id": row.id,
                "$properties": {
                    name: value
                    for name, value in row.body.items()
                    if value is not None and (not names or name in names)
                },
            }
            for row in sorted(workspaces(self.box), key=lambda row: row.id)
        ]


def _packed(lines: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(level=1, wbits=31)
    for chunk in lines:
        yield packer.compress(chunk)
    yield packer.flush()


def _is_day(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None


def _names(text: str) -> list[str] | None:
    try:
        names = json.loads(text)
    except ValueError:
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_list else None


def _json(body: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _json({"status": "error", "error": message}, status)
