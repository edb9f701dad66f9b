"""PostHog as a strict server: one project, its query API, and the rules that surprise people.

A query without LIMIT gets 100 rows, none gets more than 50,000; an identical query is answered
from a cache for an hour unless `refresh` says otherwise; and times stand in the project's zone,
which is not UTC.
"""

import datetime as dt
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.quoting import literal
from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.posthog_hogql import HogQLError, translate
from connectors.sandbox.vendors.product_events import EVENT_ID, USER, product_events, workspaces

PROJECT = 4711
ORGANIZATION = "0190b2c4-6f1e-7d3a-9c55-1f2e3d4c5b6a"
TIME_ZONE = "America/New_York"
FRESH = dt.timedelta(hours=1)
"""How long an answer counts as fresh, so that it is given again."""

_CACHED_ANSWERS = 20

_BODY_FIELDS = {
    "async", "client_query_id", "filters_override", "name", "query", "refresh",
    "variables_override",
}  # fmt: skip
_QUERY_FIELDS = {
    "kind", "query", "explain", "filters", "modifiers", "name", "values", "variables", "version",
}  # fmt: skip
_REFRESH = {
    "async", "async_except_on_cache_miss", "blocking", "force_async", "force_blocking",
    "force_cache", "lazy_async",
}  # fmt: skip
_TYPES = {
    "BIGINT": "Int64", "HUGEINT": "Int64", "INTEGER": "Int64", "DOUBLE": "Nullable(Float64)",
    "DATE": "Date", "UUID": "UUID", "BOOLEAN": "Bool", "TIMESTAMP WITH TIME ZONE": "DateTime64(6)",
}  # fmt: skip

_EVENTS = f"""
CREATE TEMP MACRO posthog_events(first_day, end_day) AS TABLE
SELECT CAST({EVENT_ID} AS UUID) AS uuid, event, happened AS timestamp, arrived AS created_at,
       {USER} AS distinct_id, CAST(md5({USER}) AS UUID) AS person_id,
       CASE WHEN value IS NULL THEN '{{{{}}}}' ELSE json_object('value', value) END AS properties,
       workspace AS "$group_0", '' AS "$group_1", '' AS "$group_2", '' AS "$group_3",
       '' AS "$group_4"
FROM product_events(first_day, end_day) WHERE arrived <= CAST({{now}} AS TIMESTAMPTZ)
"""
_GROUPS = 'CREATE TEMP MACRO posthog_groups() AS TABLE SELECT 0 AS "index", * FROM group_rows'


def routes(box: Box) -> list[Route]:
    """The project itself and its query endpoint."""
    server = _PostHog(box)
    base = "/api/projects/{project}"
    return [
        Route(f"{base}/", server.project, methods=["GET"]),
        Route(f"{base}/query/", server.query, methods=["POST"]),
    ]


class _PostHog:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.cache: dict[str, tuple[dt.datetime, dict[str, Any]]] = {}

    async def project(self, request: Request) -> Response:
        """What the settings page shows of the project."""
        if refusal := self._refusal(request):
            return refusal
        return _json(
            {
                "id": PROJECT, "uuid": str(uuid.UUID(int=PROJECT)), "organization": ORGANIZATION,
                "name": "Product", "timezone": TIME_ZONE, "is_demo": False, "has_group_types": True,
                "created_at": "2024-01-08T09:00:00Z", "ingested_event": True,
            }
        )  # fmt: skip

    async def query(self, request: Request) -> Response:
        """The answer to a HogQL query."""
        if refusal := self._refusal(request):
            return refusal
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            return _error(400, "validation_error", "parse_error", "JSON parse error")
        if problem := _problem(body):
            return _error(400, "validation_error", "invalid_input", problem)
        try:
            answer = await run_in_threadpool(self._answer, body)
        except HogQLError as error:
            return _error(400, "validation_error", "invalid_input", str(error))
        return Response(answer, media_type="application/json")

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not answered, where it is not."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            detail = "Authentication credentials were not provided."
            return _error(401, "authentication_error", "not_authenticated", detail)
        if not secrets.compare_digest(token, self.box.token("posthog")):
            detail = "Personal API key found in request Authorization header is invalid."
            return _error(401, "authentication_error", "authentication_failed", detail)
        if request.path_params["project"] != str(PROJECT):
            return _error(404, "invalid_request", "not_found", "Project not found.")
        return None

    def _answer(self, body: Mapping[str, Any]) -> bytes:
        hogql = body["query"]["query"]
        is_forced = body.get("refresh", "blocking").startswith("force_")
        kept = None if is_forced else self.cache.get(hogql)
        is_cached = kept is not None and self.box.now - kept[0] < FRESH
        if kept is None or not is_cached:
            kept = self.cache[hogql] = (self.box.now, self._run(hogql))
            while len(self.cache) > _CACHED_ANSWERS:
                self.cache.pop(next(iter(self.cache)))
        at, answer = kept
        return orjson.dumps({**answer, "is_cached": is_cached, "last_refresh": at})

    def _run(self, hogql: str) -> dict[str, Any]:
        events = product_events(self.box.world)
        # A day more on both sides: further events may have been put there.
        end_day = max(events.last_day, self.box.now.date()) + dt.timedelta(days=400)
        query = translate(hogql, TIME_ZONE, events.first_day - dt.timedelta(days=400), end_day)
        limit = self.box.page_size("posthog", query.limit)
        with events.cursor(self.box, TIME_ZONE) as cursor:
            cursor.execute(_EVENTS.format(now=literal(self.box.now.isoformat())))
            cursor.register("group_rows", self._group_rows())
            cursor.execute(_GROUPS)
            try:
                cursor.execute(f"SELECT * FROM ({query.sql}) LIMIT {limit}")
            except duckdb.Error:
                raise HogQLError("The query could not be executed") from None
            columns = [column[0] for column in cursor.description or []]
            types = [str(column[1]) for column in cursor.description or []]
            rows = cursor.fetchall()
        return {
            "columns": columns, "types": _types(columns, types), "error": None,
            "results": orjson.Fragment(orjson.dumps(rows)),
            "explain": None, "hogql": hogql, "query": hogql, "clickhouse": None, "limit": None,
            "offset": None, "hasMore": None, "metadata": None, "modifiers": None, "timings": [],
            "timezone": TIME_ZONE, "query_status": None, "cache_key": f"cache_{uuid.uuid4().hex}",
        }  # fmt: skip

    def _group_rows(self) -> pa.Table:
        rows = workspaces(self.box)
        properties = [{k: v for k, v in row.body.items() if v is not None} for row in rows]
        texts = {
            "key": [row.id for row in rows],
            "properties": [orjson.dumps(p).decode() for p in properties],
        }
        times = {
            "created_at": [dt.datetime.fromtimestamp(row.created, dt.UTC) for row in rows],
            "updated_at": [dt.datetime.fromtimestamp(row.changed, dt.UTC) for row in rows],
        }
        columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
        instants = pa.timestamp("us", "UTC")
        columns |= {name: pa.array(values, instants) for name, values in times.items()}
        return pa.table(columns)


def _problem(body: Any) -> str | None:
    """What is wrong with the body of a query, in PostHog's words for it."""
    query = body.get("query") if isinstance(body, dict) else None
    if not isinstance(query, dict):
        return "Field required: query"
    if query.get("kind") != "HogQLQuery":
        return "The sandbox answers queries of the kind HogQLQuery"
    if not isinstance(query.get("query"), str):
        return "Field required: query.query"
    unknown = sorted(set(body) - _BODY_FIELDS) + sorted(set(query) - _QUERY_FIELDS)
    if unknown:
        return f"Extra inputs are not permitted: {unknown[0]}"
    if body.get("refresh", "blocking") not in _REFRESH:
        return "Unknown value for refresh"
    return None


def _types(columns: Sequence[str], types: Sequence[str]) -> list[list[str]]:
    return [[name, _TYPES.get(kind, "String")] for name, kind in zip(columns, types, strict=True)]


def _json(body: Mapping[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


def _error(status: int, kind: str, code: str, detail: str) -> Response:
    return _json({"type": kind, "code": code, "detail": detail, "attr": None}, status)
