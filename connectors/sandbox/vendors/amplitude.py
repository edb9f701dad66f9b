"""Amplitude as a strict server: the export of one project, and its list of events.

Hours are those of the upload. An hour can be had two hours after its end; hours without events are
a 404; and too many hours at once are a 400, in small as Amplitude does beyond 4 GB.
"""

import base64
import datetime as dt
import gzip
import io
import re
import secrets
import zipfile
from itertools import groupby
from operator import itemgetter

import orjson
import pyarrow as pa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.product_events import EVENT_ID, USER, product_events, workspaces

APP = 271828
GROUP_TYPE = "workspace_id"
LAG = dt.timedelta(hours=2)
MOST_DAYS = 365
MOST_EVENTS = 300_000
"""What stands for 4 GB here."""

_HOUR = dt.timedelta(hours=1)
_LATE = dt.timedelta(days=40)
_TIME = "strftime(timezone('UTC', {0}), '%Y-%m-%d %H:%M:%S.%f')"
_EVENTS = f"""
SELECT date_trunc('hour', timezone('UTC', arrived)) AS hour, json_object(
    'app', {APP}, 'amplitude_id', CAST(md5_number_lower({USER}) % 1000000000000 AS BIGINT),
    'user_id', {USER} || '@example.com', 'device_id', md5({USER}), 'session_id', -1,
    'event_type', event, 'event_id', number + 1, 'uuid', CAST(CAST({EVENT_ID} AS UUID) AS VARCHAR),
    '$insert_id', {EVENT_ID}, 'event_time', {_TIME.format("happened")},
    'client_event_time', {_TIME.format("happened")}, 'client_upload_time',
    {_TIME.format("arrived")}, 'server_received_time', {_TIME.format("arrived")},
    'server_upload_time', {_TIME.format("arrived")}, 'processed_time', {_TIME.format("arrived")},
    'platform', 'Web', 'library', 'http/2.0', 'country', 'Germany', 'ip_address', '192.0.2.1',
    'event_properties', CASE WHEN value IS NULL THEN json_object()
                             ELSE json_object('value', value) END,
    'user_properties', json_object(), 'groups', json_object('{GROUP_TYPE}', json_array(workspace)),
    'group_properties', json_object('{GROUP_TYPE}', json_object(workspace, known.properties)))
FROM product_events(CAST(? AS DATE), CAST(? AS DATE)) AS events
LEFT JOIN known ON known.id = workspace
WHERE arrived >= ? AND arrived < ? ORDER BY 1, arrived, workspace, number
LIMIT {MOST_EVENTS + 1}
"""


def routes(box: Box) -> list[Route]:
    """The export, and what a key can ask for cheaply."""
    server = _Amplitude(box)
    return [
        Route("/api/2/export", server.export, methods=["GET"]),
        Route("/api/2/events/list", server.events, methods=["GET"]),
    ]


class _Amplitude:
    def __init__(self, box: Box) -> None:
        self.box = box

    async def export(self, request: Request) -> Response:
        """A zip with the events of some upload hours, a file or more for each hour."""
        if not self._is_known(request):
            return Response("Unauthorized", 401, media_type="text/plain")
        params = dict(request.query_params)
        hours = [_hour(params.pop(name, "")) for name in ("start", "end")]
        first, last = hours
        if first is None or last is None or last < first or params:
            return Response("Invalid start or end", 400, media_type="text/plain")
        most = self.box.small_pages or MOST_DAYS
        if last - first >= dt.timedelta(days=most):
            return Response("The time range is too large", 400, media_type="text/plain")
        content = await run_in_threadpool(self._zip, first, last + _HOUR)
        if content is None:
            return Response("Raw data files were not found.", 404, media_type="text/plain")
        if not content:
            return Response("The export is too large", 400, media_type="text/plain")
        return Response(content, media_type="application/zip")

    async def events(self, request: Request) -> Response:
        """The names of the project's events."""
        if not self._is_known(request):
            return Response("Unauthorized", 401, media_type="text/plain")
        names = ["login", "report_published"]
        data = [{"name": name, "non_active": False, "hidden": False} for name in names]
        return Response(orjson.dumps({"data": data}), media_type="application/json")

    def _is_known(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            found = base64.b64decode(given, validate=True)
        except ValueError:
            return False
        pair = f"{self.box.token('amplitude')}:{self.box.token('amplitude-secret')}"
        return scheme == "Basic" and secrets.compare_digest(found, pair.encode())

    def _zip(self, first: dt.datetime, end: dt.datetime) -> bytes | None:
        """The archive; None without any event, empty where there are too many."""
        this_hour = self.box.now.replace(minute=0, second=0, microsecond=0)
        end = min(end, this_hour - LAG)
        if end <= first:
            return None
        rows = workspaces(self.box)
        properties = [{k: v for k, v in row.body.items() if v is not None} for row in rows]
        known = pa.table({
            "id": pa.array([row.id for row in rows], pa.string()),
            "properties": pa.array([orjson.dumps(p).decode() for p in properties], pa.string()),
        })  # fmt: skip
        with product_events(self.box.world).cursor(self.box) as cursor:
            cursor.register("known_rows", known)
            cursor.execute(
                "CREATE TEMP TABLE known AS SELECT id, CAST(properties AS JSON) AS properties "
                "FROM known_rows"
            )
            days = [(first - _LATE).date(), end.date() + dt.timedelta(days=1)]
            lines = cursor.execute(_EVENTS, [*days, first, end]).fetchall()
        if len(lines) > MOST_EVENTS:
            return b""
        return _archive(lines) if lines else None


def _archive(lines: list[tuple[dt.datetime, str]]) -> bytes:
    """A zip of packed files, one for each hour, in a folder named after the project."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for hour, events in groupby(lines, key=itemgetter(0)):
            text = "".join(f"{line}\n" for _, line in events).encode()
            name = f"{APP}/{APP}_{hour:%Y-%m-%d}_{hour.hour}#0.json.gz"
            archive.writestr(name, gzip.compress(text, compresslevel=1, mtime=0))
    return content.getvalue()


def _hour(text: str) -> dt.datetime | None:
    if not re.fullmatch(r"\d{8}T\d\d", text):
        return None
    try:
        return dt.datetime.strptime(text, "%Y%m%dT%H").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
