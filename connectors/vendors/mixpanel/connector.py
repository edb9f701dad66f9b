"""Mixpanel, through its raw export and, for whose a workspace is, its group profiles.

What this module honours of the vendor:

- 60 exports an hour and three a second, 60 queries an hour: one export covers many days, and a
  long first reading stops after some windows of days; the next run goes on from there.
- `from_date` and `to_date` are inclusive, and `to_date` is not after today. They are days in UTC,
  or in the project's time zone where the project was made before January 2023; such a project
  also exports `time` as the clock on its wall (unconfirmed: without it, days are off by the
  difference, but no event is lost).
- An export that breaks off is still a 200: its last line tells. An error may come with 200 too.
- Mixpanel may hold an event twice; `$insert_id`, user, time and name together tell.
- Phones send events days late: the last `late_days` are exported again.
- A distinct id may be an e-mail address: only its hash is kept.
- Profiles come in pages that belong to a `session_id`.
"""

import copy
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

import pyarrow as pa
from pydantic import Field, field_validator
from requests.auth import HTTPBasicAuth

from connectors.api import ApiStream, FromEnvironment, Reading, Secrets, Vendor
from connectors.http import Http, Limit, Manners
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
from contracts.errors import SourceCorrupt

_COLUMNS = ("insert_id", "person", "time", "event", "group_key", "day", "value")
_DAY = dt.timedelta(days=1)
_CLOCKS_DIFFER = dt.timedelta(minutes=15)  # a day that has not begun at Mixpanel is refused
_FIRST_WINDOW_DAYS = 7
_LONGEST_WINDOW_DAYS = 92
_WINDOW_BYTES = 256 * 1024**2
_MOST_WINDOWS = 40
_REPORT = "run again; if it stays so, report it"
_HOSTS = {
    "us": ("https://data.mixpanel.com", "https://mixpanel.com"),
    "eu": ("https://data-eu.mixpanel.com", "https://eu.mixpanel.com"),
    "in": ("https://data-in.mixpanel.com", "https://in.mixpanel.com"),
}


class MixpanelConfig(EventStoreConfig):
    """A project of Mixpanel; what its events mean stands in `EventStoreConfig`.

    Args:
        project_id: The number in the project's settings.
        secret: The secret of a service account, or the project's own.
        service_account: The user name of the service account; none for the project's secret.
        group_key: The event property that names the workspace.
        data_group_id: The number of that group key, by which its profiles are asked for.
        project_time_zone: The project's zone, where it was made before January 2023.
        late_days: How many days are exported again, because events arrive late.
    """

    type: Literal["mixpanel"]
    project_id: int = Field(gt=0)
    secret: FromEnvironment
    service_account: str | None = None
    region: Literal["us", "eu", "in"] = "us"
    group_key: Name = "workspace_id"
    data_group_id: str | None = None
    project_time_zone: str = "UTC"
    late_days: int = Field(default=5, ge=0, le=31)

    @field_validator("project_time_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            raise ValueError(f"'{zone}' is no time zone; write one like Europe/Berlin")
        return zone


class Mixpanel:
    """The two hosts of a project: one exports events, the other answers queries."""

    def __init__(self, export: Http, query: Http) -> None:
        self.export, self.query = export, query

    @property
    def requests_sent(self) -> int:
        """The requests to both hosts."""
        return self.export.requests_sent + self.query.requests_sent

    def stream(self, name: str) -> Self:
        """A view for one stream."""
        view = copy.copy(self)
        view.export, view.query = self.export.stream(name), self.query.stream(name)
        return view


def connect(config: MixpanelConfig, secrets: Secrets) -> Mixpanel:
    """A client for the project."""
    data, query = (config.address, config.address) if config.address else _HOSTS[config.region]
    secret = secrets.of(config.secret)
    account = config.service_account
    auth = HTTPBasicAuth(account, secret) if account else HTTPBasicAuth(secret, "")
    exports = Manners("mixpanel", limits=(Limit(3, 1), Limit(60, 3600)))
    queries = Manners("mixpanel", limits=(Limit(60, 3600),))
    return Mixpanel(
        Http(f"{data}/api/2.0", exports, auth=auth), Http(f"{query}/api/query", queries, auth=auth)
    )


def account(client: Mixpanel, config: MixpanelConfig) -> str:
    """The project, which the credentials have to open for its cohorts to be listed."""
    cohorts = client.query.post(f"/cohorts/list?project_id={config.project_id}")
    if not isinstance(cohorts, list):
        raise SourceCorrupt("the answer is no list of cohorts", _REPORT)
    own = {c.get("project_id") for c in cohorts if isinstance(c, dict)} - {None}
    return str(own.pop() if len(own) == 1 else config.project_id)


def read_events(reading: Reading[MixpanelConfig]) -> Iterator[pa.Table]:
    """The events of workspaces, one window of days after another.

    How many days make a file of fitting size is remembered.
    """
    zone = ZoneInfo(reading.config.project_time_zone)
    today = (reading.now - _CLOCKS_DIFFER).astimezone(zone).date()
    first = reading.since.date() if reading.since else reading.history_start
    window = int(reading.position.get("window_days", _FIRST_WINDOW_DAYS))
    for _ in range(_MOST_WINDOWS):
        if first > today:
            break
        last = min(first + (window - 1) * _DAY, today)
        file = reading.scratch / "events.jsonl"
        reading.client.export.download(
            "/export", file, params=_wanted(reading.config, first, last), expect="jsonl"
        )
        with file.open("rb") as lines:
            yield from tables(_COLUMNS, _rows(objects(lines), reading.config))
        days = (last - first).days + 1
        fitting = _WINDOW_BYTES * days // max(file.stat().st_size, 1)
        window = max(1, min(fitting, 4 * window, _LONGEST_WINDOW_DAYS))
        first = last + _DAY
    reading.position["window_days"] = window


def _wanted(config: MixpanelConfig, first: dt.date, last: dt.date) -> dict[str, Any]:
    params: dict[str, Any] = {
        "project_id": config.project_id, "from_date": str(first), "to_date": str(last),
    }  # fmt: skip
    if names := config.wanted_events():
        params["event"] = json.dumps(sorted(names))
    return params


def _rows(events: Iterable[dict[str, Any]], config: MixpanelConfig) -> Iterator[Row]:
    """The events that belong to a workspace; of each only what a mapping needs."""
    zone = None if config.project_time_zone == "UTC" else ZoneInfo(config.project_time_zone)
    for event in events:
        name, properties = event.get("event"), properties_of(event, "properties")
        seconds = properties.get("time")
        if not isinstance(name, str) or not isinstance(seconds, int | float):
            raise SourceCorrupt("a line of the export is no event", _REPORT)
        happened = _utc(seconds, zone)
        user = plain_text(properties.get("distinct_id"))
        person = hashlib.sha256(user.encode()).hexdigest()[:32] if user else ""
        value = properties.get(config.value_property) if config.value_property else None
        for group in group_keys(properties.get(config.group_key)):
            yield (
                plain_text(properties.get("$insert_id")) or _digest(event), person,
                happened.isoformat(), name, group, happened.date().isoformat(), plain_text(value),
            )  # fmt: skip


def _utc(seconds: float, zone: ZoneInfo | None) -> dt.datetime:
    try:
        found = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):
        raise SourceCorrupt("an event has a time that no calendar knows", _REPORT) from None
    return found if zone is None else found.replace(tzinfo=zone).astimezone(dt.UTC)


def _digest(event: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(event, sort_keys=True).encode()).hexdigest()[:32]


def read_groups(reading: Reading[MixpanelConfig]) -> Iterator[list[dict[str, Any]]]:
    """All workspaces, with the two properties that tell whose they are."""
    config, page = reading.config, 0
    asked: dict[str, Any] = {
        "data_group_id": config.data_group_id,
        "output_properties": json.dumps([config.crm_id_property, config.domain_property]),
    }
    while True:
        answer = reading.client.query.post(f"/engage?project_id={config.project_id}", data=asked)
        results = answer.get("results") if isinstance(answer, dict) else None
        size = answer.get("page_size") if isinstance(answer, dict) else None
        if not isinstance(results, list) or type(size) is not int or answer.get("page") != page:
            raise SourceCorrupt("the answer is not the page of profiles asked for", _REPORT)
        yield [_group(profile, config) for profile in results]
        if len(results) < size:
            return
        page += 1
        asked |= {"session_id": answer.get("session_id"), "page": page}


def _group(profile: Any, config: MixpanelConfig) -> dict[str, Any]:
    key = plain_text(profile.get("$distinct_id")) if isinstance(profile, dict) else None
    if key is None:
        raise SourceCorrupt("a profile has no id", _REPORT)
    properties = properties_of(profile, "$properties")
    return {
        "key": key,
        "crm_id": properties.get(config.crm_id_property),
        "domain": properties.get(config.domain_property),
    }


def streams(config: MixpanelConfig) -> dict[str, ApiStream]:
    """The events; and the workspaces, where we are told how to ask for them."""
    events = ApiStream(
        read_events,
        primary_key=("insert_id", "person", "time", "event", "group_key"),
        columns=_COLUMNS,
        cursor="day",
        overlap=dt.timedelta(days=config.late_days),
        rebuild_by="day",
    )
    groups = ApiStream(
        read_groups, primary_key=("key",), columns=("key", "crm_id", "domain"), whole=True
    )
    return {"events": events, "groups": groups} if config.data_group_id else {"events": events}


VENDOR = Vendor(
    name="mixpanel",
    config=MixpanelConfig,
    connect=connect,
    account=account,
    streams=streams,
    scopes="a service account with the role Consumer in this project only, or its secret",
)
