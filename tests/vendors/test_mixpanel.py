"""Mixpanel: the connector against the strict server, and its mappings against the world."""

import datetime as dt
import json
from functools import partial

import pytest
import requests
from event_worlds import (
    MEANING,
    canonical,
    further,
    usage_of,
    user_days_of,
    world_usage,
    world_user_days,
    world_workspaces,
)
from minimal import connected, read_all
from specs import load, validate_request, validate_response

from connectors.http import Http
from connectors.sandbox.vendors.mixpanel import DATA_GROUP, PROJECT
from connectors.vendors.mixpanel import connector
from contracts.errors import SourceCorrupt, SourceRefused, SourceRejected

SETTINGS = {
    "project_id": PROJECT, "secret": {"env": "MIXPANEL_SECRET"}, "data_group_id": DATA_GROUP,
    **MEANING,
}  # fmt: skip
HOUR = dt.timedelta(hours=1)
WEEK = dt.date(2026, 6, 24)
MONTHS = dt.date(2026, 4, 20)
"""Long enough for a month that is restated."""


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept, and the clock moves by them."""
    slept: list[float] = []
    clock = partial(Http, sleep=slept.append, clock=lambda: sum(slept))
    monkeypatch.setattr(connector, "Http", clock)
    return slept


@pytest.fixture
def read(box):
    def read(positions=None, since=WEEK, secrets_env=None, **settings):
        return read_all(
            "mixpanel", {**SETTINGS, **settings}, box, positions=positions, history_start=since,
            secrets_env=secrets_env,
        )  # fmt: skip

    return read


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(path, auth=None, method="GET", data=None, **params):
        return requests.request(
            method, f"{box.address('mixpanel')}{path}", params=params, data=data, timeout=10,
            auth=auth or (box.token("mixpanel"), ""),
        )  # fmt: skip

    return ask


def export(ask, first="2026-06-29", last="2026-06-29", **params):
    return ask("/api/2.0/export", project_id=PROJECT, from_date=first, to_date=last, **params)


def distinct(rows):
    """The events of a reading without repetitions, which the primary key takes out."""
    return {tuple(row.values()) for row in rows["events"]}


# What is read


def test_the_mappings_give_what_the_world_says(box, world, read):
    rows = read(since=MONTHS)
    tables = canonical("mixpanel", SETTINGS, box, rows)
    assert usage_of(tables) == world_usage(world, MONTHS)
    assert user_days_of(tables) == world_user_days(world, MONTHS)
    found = {
        row["account_key"]: (row["account_id"], row["domain"]) for row in tables["account_keys"]
    }
    assert found == world_workspaces(box)


def test_an_event_that_is_delivered_twice_has_one_key(read):
    rows = read()
    assert len(rows["events"]) > len(distinct(rows))


def test_no_address_is_kept_but_users_can_be_told_apart(box, read):
    rows = read()
    assert not any("@" in value for row in rows["events"] for value in row.values() if value)
    persons = {row["person"] for row in rows["events"]}
    assert "" in persons  # what the workspace's own server sent
    assert all(len(person) == 32 for person in persons - {""})


def test_only_the_events_of_a_mapping_are_exported(box, read):
    narrow = read(events=["login"], active_events=["session_started"])
    assert {row["event"] for row in narrow["events"]} == {"login", "session_started"}
    every = read(active_events=None)
    assert len({row["event"] for row in every["events"]}) > 5


def test_an_event_may_belong_to_several_groups_or_to_none(box, read):
    config = connected("mixpanel", SETTINGS, box)[1]
    properties = {"time": 1_780_000_000, "distinct_id": 7, "$insert_id": "i", "value": 2}
    events = [
        {"event": "login", "properties": {**properties, "workspace_id": groups}}
        for groups in (["a", "b"], "c", None, [], 5)
    ]
    rows = list(connector._rows(events, config))
    assert [row[4] for row in rows] == ["a", "b", "c", "5"]
    assert {row[6] for row in rows} == {"2"}


def test_an_event_without_insert_id_is_known_by_its_content(box):
    config = connected("mixpanel", SETTINGS, box)[1]
    event = {"event": "login", "properties": {"time": 1, "workspace_id": "a"}}
    again = {"properties": {"workspace_id": "a", "time": 1}, "event": "login"}
    other = {"event": "login", "properties": {"time": 1, "workspace_id": "a", "x": 1}}
    ids = [row[0] for row in connector._rows([event, again, other], config)]
    assert ids[0] == ids[1] != ids[2]


def test_an_older_projects_times_are_the_clock_on_its_wall(box):
    config = connected("mixpanel", {**SETTINGS, "project_time_zone": "Europe/Berlin"}, box)[1]
    wall = dt.datetime(2026, 7, 1, 1, 30, tzinfo=dt.UTC).timestamp()
    event = {"event": "login", "properties": {"time": wall, "workspace_id": "a"}}
    (row,) = connector._rows([event], config)
    assert (row[2], row[5]) == ("2026-06-30T23:30:00+00:00", "2026-06-30")


def test_an_older_projects_today_is_asked_for_in_its_zone(box, read):
    box.move(dt.datetime(2026, 6, 30, 23, tzinfo=dt.UTC))
    with pytest.raises(SourceRejected):  # the sandbox's project is of the newer kind
        read(project_time_zone="Europe/Berlin")
    assert exports(box)[-1].query["to_date"] == "2026-07-01"
    read(project_time_zone="America/New_York")
    assert exports(box)[-1].query["to_date"] == "2026-06-30"


def exports(box):
    return [request for request in box.log if request.path.endswith("/export")]


def test_F24_a_day_that_has_only_begun_on_our_clock_is_not_asked_for(box):
    ahead = dt.datetime(2026, 7, 1, 0, 10, tzinfo=dt.UTC)
    read_all("mixpanel", SETTINGS, box, now=ahead, history_start=WEEK)
    assert exports(box)[-1].query["to_date"] == "2026-06-30"


def test_an_unknown_time_zone_is_refused(box):
    with pytest.raises(ValueError, match="no time zone"):
        connected("mixpanel", {**SETTINGS, "project_time_zone": "Berlin"}, box)


def test_without_a_data_group_there_is_no_stream_of_groups(read):
    assert set(read(data_group_id=None)) == {"events"}


# What is read again


def test_an_unchanged_hour_costs_one_request_a_stream(box, read):
    positions: dict = {}
    before = read(positions)
    box.move(box.now + HOUR)
    sent = len(box.log)
    again = read(positions)
    assert len(box.log) - sent == 2
    assert distinct(again) == {row for row in distinct(before) if row[5] >= "2026-06-25"}


def test_F28_a_late_event_comes_with_the_overlap(box, read):
    positions: dict = {}
    before = distinct(read(positions))
    late = box.now - dt.timedelta(days=4)
    further(box, "late", box.now + HOUR / 2, happened=late)
    box.move(box.now + HOUR)
    (new,) = distinct(read(positions)) - before
    assert (new[3], new[5]) == ("login", str(late.date()))


def test_a_long_history_is_read_over_several_runs(box, read, monkeypatch):
    whole = distinct(read(since=dt.date(2026, 6, 1)))
    monkeypatch.setattr(connector, "_MOST_WINDOWS", 1)
    monkeypatch.setattr(connector, "_LONGEST_WINDOW_DAYS", 12)
    positions: dict = {}
    parts = [distinct(read(positions, since=dt.date(2026, 6, 1))) for _ in range(4)]
    assert [max(row[5] for row in part) for part in parts] == [
        "2026-06-07", "2026-06-13", "2026-06-19", "2026-06-25",
    ]  # fmt: skip
    parts.append(distinct(read(positions, since=dt.date(2026, 6, 1))))
    assert set().union(*parts) == whole


def test_two_years_fit_into_an_hours_requests(box, waits, monkeypatch):
    monkeypatch.setattr(connector, "_rows", lambda lines, config: iter(()))
    read_all("mixpanel", {**SETTINGS, "streams": ["events"], "events": ["data_source_connected"],
                          "active_events": ["data_source_connected"]}, box)  # fmt: skip
    assert box.count("mixpanel", "/export") <= 12


def test_more_than_three_exports_a_second_wait(box, read, waits, monkeypatch):
    monkeypatch.setattr(connector, "_LONGEST_WINDOW_DAYS", 7)
    read(since=dt.date(2026, 6, 1), streams=["events"])
    assert box.count("mixpanel", "/export") == 5
    assert sum(waits) >= 1


def test_a_workspace_that_changes_hands_is_told(box, read):
    read()
    table = box.table("product", "workspaces", lambda table: None)
    table.put(
        "ws_104729", {"crm_account_no": "ACC-99999", "signup_domain": None}, box.now.timestamp()
    )
    groups = {row["key"]: row for row in read()["groups"]}
    assert groups["ws_104729"] == {"key": "ws_104729", "crm_id": "ACC-99999", "domain": None}


# Pages and faults


def test_small_pages_give_the_same_groups(box, read):
    whole = read()["groups"]
    box.small_pages = 3
    assert read()["groups"] == whole
    assert box.count("mixpanel", "/engage") > 40


def test_F18_a_page_of_groups_that_comes_again_is_no_page(box, read):
    box.small_pages = 50
    box.faults.add(vendor="mixpanel", path="/engage", nth=2, do="repeat_page")
    with pytest.raises(SourceCorrupt):
        read()


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        ("F05", {"do": "status", "code": 503}),
        ("F07", {"do": "reset"}),
        ("F08", {"do": "bad_gzip"}),
        ("F09", {"do": "truncate"}),
        ("F17", {"do": "commit_then_502"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_export_costs_no_event(box, read, number, fault):
    whole = distinct(read())
    box.faults.add(vendor="mixpanel", path="/export", **fault)
    assert distinct(read()) == whole


def test_F09_an_export_that_stops_within_a_line_is_not_complete(box, read, monkeypatch):
    whole = distinct(read())
    # Not packed and of the right length: only the last line tells.
    box.faults.add(vendor="mixpanel", path="/export", do="status", code=200,
                   headers={"content-type": "text/plain"},
                   body='{"event":"login","properties":{"time":1}}\n{"event":"lo')  # fmt: skip
    assert distinct(read()) == whole


@pytest.mark.parametrize(
    ("number", "fault"),
    [("F11", {"do": "error_json"}), ("F12", {"do": "html"})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_export_is_an_error(box, read, number, fault):
    box.faults.add(vendor="mixpanel", path="/export", times=None, **fault)
    with pytest.raises(SourceCorrupt):
        read()


def test_F01_a_429_without_retry_after_backs_off_and_goes_on(box, read, waits):
    whole = distinct(read())
    body = {"error": "rate limit exceeded", "status": "error"}
    box.faults.add(vendor="mixpanel", path="/export", do="status", code=429, body=body, times=2)
    assert distinct(read()) == whole
    assert len(waits) >= 2


def test_F32_a_wrong_secret_is_refused_and_not_shown(read):
    with pytest.raises(SourceRefused) as caught:
        read(secrets_env={"MIXPANEL_SECRET": "no-such-secret"})
    assert "no-such-secret" not in str(caught.value)


def test_a_service_account_reads_the_same(box, read):
    assert distinct(read(service_account="pull.4f2a.mp-service-account")) == distinct(read())


def test_another_project_is_refused(read):
    with pytest.raises(SourceRefused):
        read(project_id=PROJECT + 1)


def test_F37_the_account_is_the_project_behind_the_credentials(box):
    vendor, config, client = connected("mixpanel", SETTINGS, box)
    assert vendor.account(client, config) == str(PROJECT)
    assert client.requests_sent == 1


def test_without_an_address_each_region_has_its_two_hosts(box):
    _, config, _ = connected("mixpanel", {**SETTINGS, "region": "eu"}, box)
    hosts = connector._HOSTS[config.region]
    assert hosts == ("https://data-eu.mixpanel.com", "https://eu.mixpanel.com")


# The server's strictness


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"last": "2026-07-01"}, "to_date cannot be later than today"),
        ({"first": "2026-06-30"}, "from_date cannot be later than to_date"),
        ({"first": "20260629"}, "format yyyy-mm-dd"),
        ({"limit": 100_001}, "limit must be between"),
        ({"event": "login"}, "event must be a JSON array"),
        ({"page": 2}, "unknown parameter page"),
    ],
)
def test_a_wrong_export_is_a_400(ask, params, message):
    answer = export(ask, **params)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_both_dates_are_inclusive_and_milliseconds_are_asked_for(ask):
    events = [json.loads(line) for line in export(ask, last="2026-06-30").iter_lines()]
    days = {dt.datetime.fromtimestamp(e["properties"]["time"], dt.UTC).day for e in events}
    assert days == {29, 30}
    precise = json.loads(next(export(ask, time_in_ms="true").iter_lines()))
    assert precise["properties"]["time"] > 10**12


def test_the_server_checks_credentials_and_project(ask):
    assert export(ask, auth=("nobody", "")).status_code == 401
    assert export(ask, auth=("service-account", "wrong")).status_code == 401
    service = ("service-account", "sandbox-mixpanel-token")
    assert ask("/api/2.0/export", auth=service, from_date="2026-06-29").status_code == 400
    assert ask("/api/2.0/export", project_id=1, from_date="2026-06-29").status_code == 403


@pytest.mark.parametrize(
    "form",
    [
        {"data_group_id": "1"},
        {"data_group_id": DATA_GROUP, "page": "1"},
        {"data_group_id": DATA_GROUP, "page": "1", "session_id": "made-up"},
        {"data_group_id": DATA_GROUP, "page_size": "5000"},
    ],
)
def test_a_wrong_question_for_profiles_is_a_400(ask, form):
    answer = ask("/api/query/engage", method="POST", data=form, project_id=PROJECT)
    assert answer.status_code == 400


# The vendor's own description

KNOWN_DEFECTS = {
    "results.*.$distinct_id type": "the description says integer, but ids are texts, as tracked",
}


def test_every_request_fits_the_vendors_description(box, read):
    exporting, querying = load("mixpanel/export.openapi.yaml"), load("mixpanel/query.openapi.yaml")
    vendor, config, client = connected("mixpanel", SETTINGS, box)
    vendor.account(client, config)
    read()
    assert len(box.log) == 3
    for request in box.log:
        spec, base = (
            (exporting, "/api/2.0") if request.path.startswith("/api/2.0") else
            (querying, "/api/query")
        )  # fmt: skip
        path = request.path.removeprefix(base)
        validate_request(spec, request.method, path, request.query)


def test_every_answer_fits_the_vendors_description(ask):
    querying = load("mixpanel/query.openapi.yaml")
    form = {"data_group_id": DATA_GROUP}
    for path, data in (("/engage", form), ("/cohorts/list", None)):
        answer = ask(f"/api/query{path}", method="POST", data=data, project_id=PROJECT)
        allow = KNOWN_DEFECTS if path == "/engage" else None
        validate_response(querying, "POST", path, answer.status_code, answer.json(), allow)


def test_the_export_is_lines_as_in_the_vendors_example(ask):
    spec = load("mixpanel/export.openapi.yaml").document
    content = spec["paths"]["/export"]["get"]["responses"]["200"]["content"]
    example = json.loads(content["text/plain"]["schema"]["example"].splitlines()[0])
    answer = export(ask)
    assert answer.headers["content-type"].startswith("text/plain")
    for line in answer.iter_lines():
        event = json.loads(line)
        assert set(event) == set(example)
        assert set(example["properties"]) <= set(event["properties"])
