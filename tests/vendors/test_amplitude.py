"""Amplitude: the connector against the strict server, and its mappings against the world."""

import datetime as dt
import gzip
import io
import zipfile
from functools import partial
from itertools import pairwise

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

from connectors.http import Http
from connectors.sandbox.vendors import amplitude as server
from connectors.vendors.amplitude import connector
from contracts.errors import SourceCorrupt, SourceRefused, SourceUnavailable

SETTINGS = {"key": {"env": "AMPLITUDE_KEY"}, "secret": {"env": "AMPLITUDE_SECRET"}, **MEANING}
HOUR = dt.timedelta(hours=1)
WEEK = dt.date(2026, 6, 24)
MONTHS = dt.date(2026, 4, 20)
"""Long enough for a month that is restated."""
NIGHT = dt.datetime(2026, 7, 1, 0, 30, tzinfo=dt.UTC)
"""When all hours of the world's last day can be exported."""


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def read(box):
    def read(positions=None, since=WEEK, secrets_env=None, **settings):
        rows = read_all(
            "amplitude", {**SETTINGS, **settings}, box, positions=positions, history_start=since,
            secrets_env=secrets_env,
        )  # fmt: skip
        return rows["events"]

    return read


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(path="/export", auth=None, **params):
        pair = (box.token("amplitude"), box.token("amplitude-secret"))
        address = f"{box.address('amplitude')}/api/2{path}"
        return requests.get(address, params=params, auth=auth or pair, timeout=10)

    return ask


def by_id(rows):
    """The events of a reading, without what only the first of a workspace carries."""
    left_out = ("crm_id", "domain")
    return {
        row["uuid"]: {name: value for name, value in row.items() if name not in left_out}
        for row in rows
    }


def exports(box):
    """The hours of all exports, first and last."""
    return [
        (request.query["start"], request.query["end"])
        for request in box.log
        if request.path.endswith("/export")
    ]


# What is read


def test_the_mappings_give_what_the_world_says(box, world, read):
    box.move(NIGHT)
    rows = read(since=MONTHS)
    tables = canonical("amplitude", SETTINGS, box, {"events": rows})
    # What was uploaded since the 20th of April: two days before are no part of it.
    assert usage_of(tables) == world_usage(world, MONTHS)
    assert user_days_of(tables) == world_user_days(world, MONTHS)
    known = world_workspaces(box)
    found = {r["account_key"]: (r["account_id"], r["domain"]) for r in tables["account_keys"]}
    assert set(found) == {row["group_key"] for row in rows}
    assert found == {key: known[key] for key in found}
    assert len(rows) == len(by_id(rows))


def test_whose_a_workspace_is_stands_once_in_a_reading(read):
    rows = read()
    told = [row["group_key"] for row in rows if row["crm_id"] or row["domain"]]
    assert sorted(told) == sorted({row["group_key"] for row in rows})


def test_no_address_is_kept_but_users_can_be_told_apart(read):
    rows = read()
    assert not any("@" in value for row in rows for value in row.values() if value)
    assert all(row["person"].isdigit() for row in rows)


def test_only_the_events_of_a_mapping_are_kept(read):
    narrow = read(events=["login"], active_events=["session_started"])
    assert {row["event"] for row in narrow} == {"login", "session_started"}
    assert len({row["event"] for row in read(active_events=None)}) > 5


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"workspace_id": {"a": {"crm_account_no": "ACC-1"}}}, ("ACC-1", None)),
        ({"workspace_id": {"signup_domain": "a.example"}}, (None, "a.example")),
        ({"other": {"a": {"crm_account_no": "ACC-1"}}}, (None, None)),
        ({"workspace_id": None}, (None, None)),
        (None, (None, None)),
    ],
)
def test_group_properties_are_read_in_either_form(box, properties, told):
    config = connected("amplitude", SETTINGS, box)[1]
    event = {
        "uuid": "u", "event_type": "login", "event_time": "2026-06-29 08:00:00.000000",
        "groups": {"workspace_id": ["a"]}, "group_properties": properties,
    }  # fmt: skip
    (row,) = connector._rows([event], config, {})
    assert row[7:9] == told


def test_a_workspace_that_changes_hands_within_a_reading_is_told_again(box):
    config = connected("amplitude", SETTINGS, box)[1]
    events = [
        {"uuid": str(n), "event_type": "login", "event_time": "2026-06-29 08:00:00.000000",
         "groups": {"workspace_id": "a"},
         "group_properties": {"workspace_id": {"a": {"crm_account_no": owner}}}}
        for n, owner in enumerate(["ACC-1", "ACC-1", "ACC-2", "ACC-2"])
    ]  # fmt: skip
    told = [row[7] for row in connector._rows(events, config, {})]
    assert told == ["ACC-1", None, "ACC-2", None]


# Which hours are asked for


def test_hours_are_exported_three_hours_after_their_end_by_default(box, read):
    positions: dict = {}
    read(positions)
    assert exports(box)[-1][1] == "20260630T16"
    assert positions["events"]["next_hour"] == "2026-06-30T17:00:00"


def test_the_windows_touch_each_other_and_none_is_over_a_month(box, read):
    read(since=dt.date(2026, 4, 20))
    hours = [[dt.datetime.strptime(h, "%Y%m%dT%H") for h in pair] for pair in exports(box)]
    assert hours[0][0] == dt.datetime(2026, 4, 20)
    assert all(nxt[0] - last[1] == HOUR for last, nxt in pairwise(hours))
    assert max(last - first for first, last in hours) < dt.timedelta(days=31)
    assert len(hours) < 10


def test_an_unchanged_hour_costs_one_request_and_none_before_it_is_over(box, read):
    positions: dict = {}
    read(positions)
    sent = len(box.log)
    box.move(box.now + HOUR / 2)
    assert read(positions) == []
    assert len(box.log) == sent
    box.move(box.now + HOUR / 2)
    new = read(positions)
    assert exports(box)[-1] == ("20260630T17", "20260630T17")
    assert len(box.log) == sent + 1
    assert {row["uploaded_at"][:13] for row in new} == {"2026-06-30 17"}


def test_F28_a_late_event_comes_with_the_hour_of_its_upload(box, read):
    positions: dict = {}
    before = by_id(read(positions))
    happened = box.now - dt.timedelta(days=20)
    further(box, "late", box.now + HOUR / 2, happened=happened)
    box.move(box.now + 4 * HOUR)
    new = by_id(read(positions))
    late = [row for row in new.values() if row["day"] == str(happened.date())]
    assert [row["event"] for row in late] == ["login"]
    assert not set(new) & set(before)


def test_hours_without_events_are_no_error_and_not_asked_for_again(box, read):
    positions: dict = {}
    read(positions)
    box.move(box.now + dt.timedelta(days=10))
    rest = read(positions)
    assert {row["uploaded_at"][:10] for row in rest} == {"2026-06-30"}
    box.move(box.now + 2 * HOUR)
    sent = len(box.log)
    assert read(positions) == []
    assert [request.status for request in box.log[sent:]] == [404]


def test_too_large_an_export_is_asked_for_in_parts(box, read, monkeypatch):
    whole = by_id(read())
    sent = len(box.log)
    monkeypatch.setattr(server, "MOST_EVENTS", 400)
    assert by_id(read()) == whole
    statuses = {request.status for request in box.log[sent:]}
    assert 400 in statuses
    assert 200 in statuses


def test_small_pages_give_the_same_events(box, read):
    whole = by_id(read(since=dt.date(2026, 6, 10)))
    box.small_pages = 3  # days at once
    assert by_id(read(since=dt.date(2026, 6, 10))) == whole
    assert 400 in {request.status for request in box.log}


def test_a_504_asks_for_fewer_hours_at_once(box, read, waits):
    whole = by_id(read())
    box.faults.add(vendor="amplitude", path="/export", do="status", code=504)
    sent = len(exports(box))
    assert by_id(read()) == whole
    assert exports(box)[sent : sent + 2] == [
        ("20260624T00", "20260624T23"), ("20260624T00", "20260624T11"),
    ]  # fmt: skip
    assert waits == []


def test_an_hour_that_cannot_be_exported_ends_the_reading(box, read):
    box.faults.add(vendor="amplitude", path="/export", do="status", code=504, times=None)
    with pytest.raises(SourceUnavailable, match="single hour"):
        read()
    assert exports(box)[-1] == ("20260624T00", "20260624T00")


# Faults


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        ("F05", {"do": "status", "code": 503}),
        ("F07", {"do": "reset"}),
        ("F09", {"do": "truncate"}),
        ("F10", {"do": "wrong_length"}),
        ("F17", {"do": "commit_then_502"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_export_costs_no_event(box, read, number, fault):
    whole = by_id(read())
    box.faults.add(vendor="amplitude", path="/export", **fault)
    assert by_id(read()) == whole


def test_F01_too_many_requests_wait_as_told_and_go_on(box, read, waits):
    whole = by_id(read())
    box.faults.add(vendor="amplitude", do="status", code=429, headers={"Retry-After": "9"})
    assert by_id(read()) == whole
    assert waits[0] == 9


@pytest.mark.parametrize(
    ("number", "fault"),
    [("F11", {"do": "error_json"}), ("F12", {"do": "html"})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_zip_is_an_error(box, read, number, fault):
    box.faults.add(vendor="amplitude", path="/export", times=None, **fault)
    with pytest.raises(SourceCorrupt):
        read()


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_gz", ".json.gz").replace("_json", ".json"), data)
    return content.getvalue()


EVENT = (
    b'{"uuid":"u1","event_type":"login","event_time":"2026-06-29 08:00:00.000000",'
    b'"groups":{"workspace_id":["a"]}}\n'
)


def unpacked(tmp_path, content):
    file = tmp_path / "events.zip"
    file.write_bytes(content)
    return list(connector.objects(connector._lines(file)))


def test_members_of_a_zip_may_be_packed_or_not(tmp_path):
    content = zipped(a_gz=gzip.compress(EVENT), b_json=EVENT)
    assert [event["uuid"] for event in unpacked(tmp_path, content)] == ["u1", "u1"]


@pytest.mark.parametrize(
    "member", [gzip.compress(EVENT * 50)[:-20], b"no gzip at all", b"\x1f\x8b"]
)
def test_F08_a_damaged_member_is_an_error(tmp_path, member):
    with pytest.raises(SourceCorrupt):
        unpacked(tmp_path, zipped(a_gz=member))


@pytest.mark.parametrize("line", [b'{"uuid": "u1"', b"[1]", b"null"])
def test_a_line_that_is_no_event_is_an_error(tmp_path, line):
    with pytest.raises(SourceCorrupt):
        unpacked(tmp_path, zipped(a_json=EVENT + line + b"\n"))


def test_F32_a_wrong_secret_is_refused_and_not_shown(read):
    with pytest.raises(SourceRefused) as caught:
        read(secrets_env={"AMPLITUDE_SECRET": "no-such-secret"})
    assert "no-such-secret" not in str(caught.value)


def test_F37_the_account_is_a_fingerprint_of_the_projects_key(box):
    vendor, config, client = connected("amplitude", SETTINGS, box)
    found = vendor.account(client, config)
    assert len(found) == 12
    assert box.token("amplitude") not in found
    assert client.requests_sent == 1
    other = {"AMPLITUDE_KEY": "another-key"}
    vendor, config, client = connected("amplitude", SETTINGS, box, secrets_env=other)
    with pytest.raises(SourceRefused):
        vendor.account(client, config)


# The server's strictness


@pytest.mark.parametrize(
    "params",
    [
        {"start": "20260629T00"},
        {"start": "2026-06-29", "end": "2026-06-30"},
        {"start": "20260630T00", "end": "20260629T00"},
        {"start": "20260229T00", "end": "20260630T00"},
        {"start": "20250629T00", "end": "20260629T00"},
        {"start": "20260629T00", "end": "20260629T23", "limit": "5"},
    ],
)
def test_a_wrong_export_is_a_400(ask, params):
    assert ask(**params).status_code == 400


def test_both_hours_are_inclusive_and_the_last_two_cannot_be_had_yet(ask):
    with zipfile.ZipFile(io.BytesIO(ask(start="20260629T08", end="20260629T09").content)) as found:
        assert found.namelist() == [
            "271828/271828_2026-06-29_8#0.json.gz", "271828/271828_2026-06-29_9#0.json.gz",
        ]  # fmt: skip
    assert ask(start="20260630T18", end="20260630T20").status_code == 404
    assert ask(start="20260630T17", end="20260630T17").status_code == 200


def test_the_server_checks_both_keys(ask):
    assert ask(auth=("sandbox-amplitude-token", "wrong")).status_code == 401
    assert ask("/events/list", auth=("wrong", "wrong")).status_code == 401
