"""Amplitude, through its export of events by the hour in which they were uploaded.

What this module honours of the vendor:

- `start` and `end` are hours in UTC, both inclusive, of `server_upload_time`: a late event comes
  with the hour of its upload, so no hour has to be read twice.
- An hour can be exported two hours after it is over, at the earliest: `lag_hours` waits longer.
- 404 says that nothing was uploaded in these hours. 400 (more than 4 GB) and 504 ask for fewer
  hours. No request covers more than 365 days.
- The answer is a zip of JSON lines, each file in it compressed again (or not: unconfirmed).
- There is no list of groups: what is known of a workspace comes with its events.
- `user_id` is often an e-mail address, so it is never kept; `amplitude_id` is Amplitude's number.
- Amplitude has no way to ask which project a key belongs to, but each project has its own key.
"""

import datetime as dt
import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pyarrow as pa
import requests
from pydantic import Field
from requests.auth import HTTPBasicAuth

from connectors.api import ApiStream, FromEnvironment, Reading, Secrets, Vendor
from connectors.http import Http, Manners
from connectors.vendors.event_stores import (
    EventStoreConfig,
    Name,
    Row,
    group_keys,
    objects,
    plain_text,
    properties_of,
    tables,
)
from contracts.errors import SourceCorrupt, SourceUnavailable

_COLUMNS = (
    "uuid", "group_key", "person", "event", "event_time", "day", "value",
    "crm_id", "domain", "uploaded_at",
)  # fmt: skip
_FIRST_WINDOW_HOURS = 24
_LONGEST_WINDOW_HOURS = 31 * 24
_WINDOW_BYTES = 128 * 1024**2
_HOUR = dt.timedelta(hours=1)
_REPORT = "run again; if it stays so, report it"
_HOSTS = {"us": "https://amplitude.com", "eu": "https://analytics.eu.amplitude.com"}


class AmplitudeConfig(EventStoreConfig):
    """A project of Amplitude; what its events mean stands in `EventStoreConfig`.

    Args:
        key, secret: The project's API key and its secret key.
        group_type: The kind of groups that are the customer's workspaces.
        lag_hours: How long after its end an hour is exported.
    """

    type: Literal["amplitude"]
    key: FromEnvironment
    secret: FromEnvironment
    region: Literal["us", "eu"] = "us"
    group_type: Name = "workspace_id"
    lag_hours: int = Field(default=3, ge=2, le=48)


class TooManyHours(SourceUnavailable):
    """The hours hold more than Amplitude exports at once."""


def judge(response: requests.Response) -> TooManyHours | None:
    """Both answers to an export that is too large, so that fewer hours are asked for at once."""
    if response.status_code in (400, 504) and urlsplit(response.url).path.endswith("/export"):
        return TooManyHours(
            f"answered {response.status_code} to the export of a single hour",
            "try again later; if the hour is too large, use Amplitude's export to a bucket",
        )
    return None


class Amplitude:
    """A project of Amplitude; `project` is a fingerprint of its API key."""

    def __init__(self, http: Http, project: str) -> None:
        self.http, self.project = http, project

    @property
    def requests_sent(self) -> int:
        """All requests."""
        return self.http.requests_sent

    def stream(self, name: str) -> "Amplitude":
        """A view for one stream."""
        return Amplitude(self.http.stream(name), self.project)


def connect(config: AmplitudeConfig, secrets: Secrets) -> Amplitude:
    """A client for the project."""
    manners = Manners("amplitude", judge=judge, no_data_statuses=frozenset({404}))
    key = secrets.of(config.key)
    http = Http(
        f"{config.address or _HOSTS[config.region]}/api/2",
        manners,
        auth=HTTPBasicAuth(key, secrets.of(config.secret)),
    )
    return Amplitude(http, hashlib.sha256(key.encode()).hexdigest()[:12])


def account(client: Amplitude, config: AmplitudeConfig) -> str:
    """The fingerprint of the API key, once the key has proved to open a project."""
    answer = client.http.get("/events/list")
    if not isinstance(answer, dict) or "data" not in answer:
        raise SourceCorrupt("the answer is no list of events", _REPORT)
    return client.project


def read_events(reading: Reading[AmplitudeConfig]) -> Iterator[pa.Table]:
    """The events of workspaces, one window of upload hours after another.

    Which hour comes next is remembered, and how many hours make a file of fitting size.
    """
    position, start = reading.position, dt.datetime.combine(reading.history_start, dt.time())
    first = dt.datetime.fromisoformat(position.get("next_hour", start.isoformat()))
    this_hour = reading.now.astimezone(dt.UTC).replace(
        minute=0, second=0, microsecond=0, tzinfo=None
    )
    end = this_hour - reading.config.lag_hours * _HOUR
    window = int(position.get("window_hours", _FIRST_WINDOW_HOURS))
    longest = _LONGEST_WINDOW_HOURS
    evidence: dict[str, tuple[str | None, str | None]] = {}
    while first < end:
        until = min(first + window * _HOUR, end)
        try:
            file = _export(reading, first, until - _HOUR)
        except TooManyHours:
            if until - first <= _HOUR:
                raise
            window = longest = (until - first) // _HOUR // 2
            continue
        if file:
            rows = _rows(objects(_lines(file)), reading.config, evidence)
            yield from tables(_COLUMNS, rows)
        size = file.stat().st_size if file else 0
        fitting = _WINDOW_BYTES * ((until - first) // _HOUR) // max(size, 1)
        window = max(1, min(fitting, 4 * window, longest))
        first = until
    position |= {"next_hour": first.isoformat(), "window_hours": window}


def _export(
    reading: Reading[AmplitudeConfig], first: dt.datetime, last: dt.datetime
) -> Path | None:
    hours = {"start": f"{first:%Y%m%dT%H}", "end": f"{last:%Y%m%dT%H}"}
    file: Path | None = reading.client.http.download(
        "/export", reading.scratch / "events.zip", params=hours, expect="zip"
    )
    return file


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of all files in a zip."""
    with zipfile.ZipFile(file) as archive:
        for member in sorted(archive.namelist()):
            with archive.open(member) as raw, gzip.GzipFile(fileobj=raw) as unpacked:
                try:
                    # Buffered, because line by line a packed file is slow.
                    yield from io.BufferedReader(unpacked) if member.endswith(".gz") else raw
                except (EOFError, zlib.error, gzip.BadGzipFile):
                    raise SourceCorrupt("a file in the zip is damaged", _REPORT) from None


def _rows(
    events: Iterable[dict[str, Any]],
    config: AmplitudeConfig,
    evidence: dict[str, tuple[str | None, str | None]],
) -> Iterator[Row]:
    """The events that belong to a workspace; of each only what a mapping needs.

    Whose the workspace is stands with the first event that says so, and with those that say
    something else: `evidence` remembers it.
    """
    wanted = config.wanted_events()
    for event in events:
        name, time = event.get("event_type"), event.get("event_time")
        uuid, uploaded = plain_text(event.get("uuid")), event.get("server_upload_time")
        if not isinstance(name, str) or not isinstance(time, str) or uuid is None:
            raise SourceCorrupt("a line of the export is no event", _REPORT)
        if wanted and name not in wanted:
            continue
        value = properties_of(event, "event_properties").get(config.value_property or "")
        for group in group_keys(properties_of(event, "groups").get(config.group_type)):
            told: tuple[str | None, str | None] = _told(event, group, config)
            is_new = told != (None, None) and evidence.get(group) != told
            if is_new:
                evidence[group] = told
            yield (
                uuid, group, plain_text(event.get("amplitude_id")) or "", name, time, time[:10],
                plain_text(value), *(told if is_new else (None, None)), plain_text(uploaded),
            )  # fmt: skip


def _told(
    event: dict[str, Any], group: str, config: AmplitudeConfig
) -> tuple[str | None, str | None]:
    """What an event says of a group: under its kind and name, or under its kind alone."""
    of_kind = properties_of(properties_of(event, "group_properties"), config.group_type)
    found = properties_of(of_kind, group) or of_kind
    return plain_text(found.get(config.crm_id_property)), plain_text(
        found.get(config.domain_property)
    )


STREAMS = {
    "events": ApiStream(
        read_events,
        primary_key=("uuid", "group_key"),
        columns=_COLUMNS,
        rebuild_by="day",
    )
}

VENDOR = Vendor(
    name="amplitude",
    config=AmplitudeConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="the API key and secret key of the project; Amplitude knows no narrower rights",
)
