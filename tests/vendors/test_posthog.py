"""PostHog: the connector against the strict server, and its mappings against the world."""

import datetime as dt
from collections import Counter
from functools import partial

import orjson
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
from connectors.mapping import read_mapping
from connectors.sandbox.vendors.posthog import ORGANIZATION, PROJECT
from connectors.vendors import packaged_mappings
from connectors.vendors.posthog import connector
from contracts.errors import (
    SourceCorrupt,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

SETTINGS = {"project": PROJECT, "token": {"env": "POSTHOG_KEY"}, **MEANING}
HOUR = dt.timedelta(hours=1)
WEEK = dt.date(2026, 6, 24)
"""Where a reading begins that need not be long."""


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def read(box):
    def read(positions=None, since=WEEK, secrets_env=None, **settings):
        return read_all(
            "posthog", {**SETTINGS, **settings}, box, positions=positions, history_start=since,
            secrets_env=secrets_env,
        )  # fmt: skip

    return read


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(hogql, token=None, project=PROJECT, **body):
        return requests.post(
            f"{box.address('posthog')}/api/projects/{project}/query/",
            json={"query": {"kind": "HogQLQuery", "query": hogql}, **body},
            headers={"Authorization": f"Bearer {token or box.token('posthog')}"},
            timeout=10,
        )

    return ask


def cells(rows):
    """The usage of a reading without its order; levels and actions alike."""
    return {(row["day"], row["group_key"], row["event"]): row for row in rows["usage"]}


def users(rows):
    return {(row["day"], row["group_key"], row["person"]) for row in rows["user_days"]}


# What is read


def test_a_first_reading_holds_all_the_usage_of_the_world(box, world, read):
    rows = read(since=dt.date(2024, 7, 1))
    tables = canonical("posthog", SETTINGS, box, rows)
    assert usage_of(tables) == world_usage(world)
    assert user_days_of(tables) == world_user_days(world)
    found = {
        row["account_key"]: (row["account_id"], row["domain"]) for row in tables["account_keys"]
    }
    assert found == world_workspaces(box)
    assert len(rows["usage"]) == len(cells(rows))
    assert len(rows["user_days"]) == len(users(rows))
    assert box.count("posthog", "/query/") < 20


def test_the_mappings_of_the_large_streams_are_row_wise():
    for table, stream in (("usage_daily", "usage"), ("user_days", "user_days")):
        file = packaged_mappings("posthog")[table]
        text = file.read_text().replace("${level_events}", "'[]'")
        mapping, problems = read_mapping("posthog", table, file, text, [("posthog", stream)])
        assert (mapping.row_wise, problems) == (True, [])


def test_what_posthog_counts_is_what_its_events_say(ask, read):
    events = ask(
        "SELECT event, `$group_0`, toString(person_id), uuid FROM events WHERE timestamp >= "
        "toDateTime('2026-06-29T00:00:00Z') AND timestamp < toDateTime('2026-06-30T00:00:00Z') "
        "LIMIT 50000"
    ).json()["results"]
    assert len({uuid for *_, uuid in events}) == len(events)
    counted = Counter((workspace, event) for event, workspace, *_ in events)
    persons = Counter((w, e) for e, w, _ in {tuple(event[:3]) for event in events})
    day = [row for row in read(events=None)["usage"] if row["day"] == "2026-06-29"]
    assert {(r["group_key"], r["event"]): int(r["event_count"]) for r in day} == counted
    assert {(r["group_key"], r["event"]): int(r["users"]) for r in day} == persons


def test_all_values_are_text_and_none_is_personal(read):
    rows = read()
    values = [v for page in rows.values() for row in page for v in row.values() if v is not None]
    assert all(isinstance(value, str) for value in values)
    assert not any("@" in value for value in values)


def test_without_a_list_of_events_all_count_but_a_level_makes_nobody_active(box, read):
    rows = read(events=None, active_events=None)
    assert "session_started" in {row["event"] for row in rows["usage"]}
    server = {row["group_key"] for row in rows["usage"] if row["event"] == "storage_gb"}
    assert server
    with_levels = read(events=None, active_events=None, level_events=[])
    assert len(users(with_levels)) == len(users(rows)) + len(
        [row for row in rows["usage"] if row["event"] == "storage_gb"]
    )


def test_without_a_value_property_there_is_no_value(box, read):
    rows = read(value_property=None)
    assert "value_sum" not in rows["usage"][0]
    tables = canonical("posthog", {**SETTINGS, "value_property": None}, box, rows)
    assert {row["value"] for row in tables["usage_daily"]} == {None}


def test_the_last_level_of_a_day_holds_and_quantities_add_up(box, read):
    day = dt.datetime(2026, 6, 30, 19, 30, tzinfo=dt.UTC)
    for number, (event, value) in enumerate([("storage_gb", 7.5), ("storage_gb", 4.25),
                                              ("export_run", 2), ("export_run", 3.5)]):  # fmt: skip
        happened = day + dt.timedelta(minutes=number)
        further(box, str(number), box.now, workspace="ws_new", event=event, value=value,
                happened=happened)  # fmt: skip
    usage = usage_of(canonical("posthog", SETTINGS, box, read()))
    assert usage["ws_new", day.date(), "storage_gb"] == (0, 4.25, 0)
    assert usage["ws_new", day.date(), "export_run"] == (2, 5.5, 1)


def test_names_with_quotes_and_spaces_are_only_names(box, read):
    odd = 'it\'s "odd" ) OR 1=1 --'
    further(box, "1", box.now, event=odd, workspace="w's", value=3, happened=box.now - HOUR)
    rows = read(events=[odd], value_property="a \"b' c")
    assert [(r["group_key"], r["event"], r["event_count"]) for r in rows["usage"]] == [
        ("w's", odd, "1")
    ]


@pytest.mark.parametrize("name", ["a`b", "a\\b", "", "a\nb"])
def test_a_name_that_could_leave_its_quotes_is_refused(name):
    with pytest.raises(ValueError, match="backticks"):
        connector.PostHogConfig.model_validate(
            {"type": "posthog", **SETTINGS, "value_property": name}
        )


# What is read again


def test_an_unchanged_hour_costs_one_request_a_stream(box, read):
    positions: dict = {}
    before = read(positions)
    box.move(box.now + HOUR)
    sent = len(box.log)
    again = read(positions)
    assert len(box.log) - sent == 3
    newest = {key: row for key, row in cells(before).items() if key[0] >= "2026-06-27"}
    assert cells(again) == newest


def test_F28_a_late_event_restates_its_day(box, read):
    positions: dict = {}
    before = cells(read(positions))
    key = next(key for key in before if key[0] == "2026-06-29" and key[2] == "login")
    late = dt.datetime(2026, 6, 29, 8, tzinfo=dt.UTC)
    further(box, "late", box.now + HOUR / 2, workspace=key[1], user_no=900, happened=late)
    box.move(box.now + HOUR)
    again = cells(read(positions))
    changed = {key: row for key, row in again.items() if before.get(key) != row}
    assert set(changed) == {key}
    assert int(changed[key]["event_count"]) == int(before[key]["event_count"]) + 1
    assert int(changed[key]["users"]) == int(before[key]["users"]) + 1


def test_an_event_later_than_late_days_waits_for_more_late_days(box, read):
    positions: dict = {}
    read(positions)
    late = box.now - dt.timedelta(days=5)
    further(box, "late", box.now, happened=late, event="alert_created", workspace="ws_x")
    again = read(dict(positions))
    assert not any(row["group_key"] == "ws_x" for row in again["usage"])
    patient = read(dict(positions), late_days=6)
    assert [r["day"] for r in patient["usage"] if r["group_key"] == "ws_x"] == [str(late.date())]


def test_F25_an_event_of_the_future_is_not_read_and_moves_nothing(box, read):
    tomorrow = box.now + dt.timedelta(days=30)
    further(box, "ahead", box.now, happened=tomorrow)
    positions: dict = {}
    rows = read(positions)
    assert max(row["day"] for row in rows["usage"]) == "2026-06-30"
    assert positions["usage"]["_newest"] == "2026-06-30"


def test_a_cached_answer_is_never_taken_for_the_present(box, read, ask):
    hogql = "SELECT count() AS n FROM events WHERE timestamp >= toDateTime('2026-06-30T00:00:00Z')"
    read()
    first = ask(hogql).json()["results"]
    further(box, "new", box.now, happened=box.now - HOUR)
    cached, fresh = ask(hogql).json(), ask(hogql, refresh="force_blocking").json()
    assert cached["is_cached"]
    assert cached["results"] == first
    assert not fresh["is_cached"]
    assert fresh["results"] == [[first[0][0] + 1]]
    day = [r for r in read()["usage"] if (r["day"], r["group_key"]) == ("2026-06-30", "ws_104729")]
    further(box, "newer", box.now, happened=box.now - HOUR, event="alert_created")
    again = [
        r for r in read()["usage"] if (r["day"], r["group_key"]) == ("2026-06-30", "ws_104729")
    ]
    assert sum(int(r["event_count"]) for r in again) == sum(int(r["event_count"]) for r in day) + 1


def test_a_workspace_that_changes_hands_is_told(box, read):
    read()
    table = box.table("product", "workspaces", lambda table: None)
    table.put(
        "ws_104729", {"crm_account_no": "ACC-99999", "signup_domain": None}, box.now.timestamp()
    )
    table.remove("ws_120567", box.now.timestamp())
    groups = {row["key"]: row for row in read()["groups"]}
    assert groups["ws_104729"] == {"key": "ws_104729", "crm_id": "ACC-99999", "domain": None}
    assert "ws_120567" not in groups


def test_days_are_cut_in_utc_whatever_the_projects_zone(box, ask, read):
    happened = dt.datetime(2026, 6, 30, 1, tzinfo=dt.UTC)
    further(box, "night", box.now, workspace="ws_night", happened=happened)
    assert [r["day"] for r in read()["usage"] if r["group_key"] == "ws_night"] == ["2026-06-30"]
    answer = ask("SELECT toDate(timestamp) AS day FROM events WHERE `$group_0` = 'ws_night'")
    assert answer.json()["results"] == [["2026-06-29"]]
    assert answer.json()["timezone"] == "America/New_York"


# Pages


def test_small_pages_give_the_same_rows(box, read):
    whole = read(since=dt.date(2026, 6, 28))
    box.small_pages = 40
    small = read(since=dt.date(2026, 6, 28))
    assert cells(small) == cells(whole)
    assert users(small) == users(whole)
    assert small["groups"] == whole["groups"]
    assert box.count("posthog", "/query/") > 20


def test_pages_of_three_rows_give_the_same_rows(box, read):
    asked = {"since": dt.date(2026, 6, 29), "streams": ["usage"], "events": ["export_run"]}
    whole = read(**asked)
    box.small_pages = 3
    assert read(**asked) == whole
    assert len(whole["usage"]) > 9


def test_F18_a_page_that_comes_again_is_no_page(box, read):
    box.small_pages = 40
    box.faults.add(vendor="posthog", path="/query/", nth=3, do="repeat_page")
    with pytest.raises(SourceCorrupt):
        read(streams=["usage"])


def test_F19_a_page_of_one_row_that_comes_for_ever_is_noticed(box, read):
    box.small_pages = 1
    box.faults.add(vendor="posthog", path="/query/", nth=3, times=None, do="repeat_page")
    with pytest.raises(SourceCorrupt):
        read(streams=["usage"])


def test_an_empty_page_in_the_middle_is_not_the_end(box, read):
    box.small_pages = 40
    box.faults.add(vendor="posthog", path="/query/", nth=2, do="rewrite", rewrite=without_rows)
    with pytest.raises(SourceUnavailable):
        read(streams=["usage"])


def without_rows(body):
    return orjson.dumps({**orjson.loads(body), "results": []})


def with_ragged_rows(body):
    answer = orjson.loads(body)
    answer["results"][1] = answer["results"][1][:-1]
    return orjson.dumps(answer)


def with_other_columns(body):
    answer = orjson.loads(body)
    answer["columns"] = list(reversed(answer["columns"]))
    return orjson.dumps(answer)


def with_rows_of_unknown_number(body):
    answer = orjson.loads(body)
    answer["results"] = [[*row[:-1], None] for row in answer["results"]]
    return orjson.dumps(answer)


def with_keys_of_other_types(body):
    answer = orjson.loads(body)
    answer["results"][0][0] = {"day": 1}
    return orjson.dumps(answer)


@pytest.mark.parametrize(
    "rewrite",
    [with_ragged_rows, with_other_columns, with_rows_of_unknown_number, with_keys_of_other_types],
)
def test_F33_rows_of_another_shape_are_refused(box, read, rewrite):
    box.faults.add(vendor="posthog", path="/query/", do="rewrite", rewrite=rewrite)
    with pytest.raises(SourceCorrupt):
        read(streams=["usage"])


# Faults


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        ("F05", {"do": "status", "code": 503}),
        ("F07", {"do": "reset"}),
        ("F08", {"do": "bad_gzip"}),
        ("F09", {"do": "truncate"}),
        ("F10", {"do": "wrong_length"}),
        ("F17", {"do": "commit_then_502"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_answer_costs_no_row(box, read, number, fault):
    whole = read()
    box.faults.add(vendor="posthog", path="/query/", **fault)
    assert read() == whole


def test_F01_a_throttled_query_waits_as_told_and_goes_on(box, read, waits):
    whole = read()
    throttled = {
        "type": "throttled_error", "code": "throttled", "attr": None,
        "detail": "Request was throttled. Expected available in 17 seconds.",
    }  # fmt: skip
    box.faults.add(vendor="posthog", path="/query/", do="status", code=429,
                   headers={"Retry-After": "17"}, body=throttled)  # fmt: skip
    assert read() == whole
    assert any(16 < wait <= 17 for wait in waits)


def test_F02_a_wait_of_hours_is_left_to_the_next_run(box, read):
    box.faults.add(vendor="posthog", do="status", code=429, headers={"Retry-After": "3600"})
    with pytest.raises(SourceExhausted):
        read()


@pytest.mark.parametrize(
    ("number", "fault"),
    [("F11", {"do": "error_json"}), ("F12", {"do": "html"}), ("F13", {"do": "empty"})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_without_rows_is_an_error_and_no_empty_window(box, read, number, fault):
    box.faults.add(vendor="posthog", path="/query/", times=None, **fault)
    with pytest.raises(SourceCorrupt):
        read()


def test_F32_a_revoked_key_is_refused_and_not_shown(box, read):
    with pytest.raises(SourceRefused) as caught:
        read(secrets_env={"POSTHOG_KEY": "phx_revoked"})
    assert "phx_revoked" not in str(caught.value)
    assert "SELECT" not in str(caught.value)


def test_another_project_is_refused(read):
    with pytest.raises(SourceRejected):
        read(project=PROJECT + 1)


def test_F37_the_account_names_organisation_and_project(box):
    vendor, config, client = connected("posthog", SETTINGS, box)
    assert vendor.account(client, config) == f"{ORGANIZATION}/{PROJECT}"
    assert client.requests_sent == 1


# The server's strictness


def test_a_query_without_limit_gets_a_hundred_rows_and_none_more_than_fifty_thousand(ask):
    assert len(ask("SELECT uuid FROM events").json()["results"]) == 100
    assert len(ask("SELECT uuid FROM events LIMIT 70000").json()["results"]) == 50_000


@pytest.mark.parametrize(
    ("hogql", "detail"),
    [
        ("SELECT nothing FROM events", "Unable to resolve field: nothing"),
        ("SELECT person.email FROM events", "Unable to resolve field: person"),
        ("SELECT event.name FROM events", "Cannot access property of field: event.name"),
        ("SELECT event FROM event", "Unknown table `event`."),
        ("SELECT uuid FROM (SELECT event FROM events)", "Unable to resolve field: uuid"),
        ("SELECT todate(timestamp) FROM events", "Unsupported function call 'todate(...)'"),
        ("SELECT read_csv('/etc/passwd') FROM events", "Unsupported function call 'read_csv(...)'"),
        ("SELECT toDateTime('soon') FROM events", "Cannot parse datetime: soon"),
        ("SELECT event FROM events LIMIT 'all'", "LIMIT must be a whole number"),
        ("SELECT event FROM", "The query is not valid HogQL: syntax error"),
        ("SELECT event FROM events; SELECT 1", "The query must be one SELECT statement"),
        ("DROP TABLE events", "The query must be one SELECT statement"),
        ("SELECT event FROM events e JOIN groups g ON 1", "Unsupported expression: Join"),
        ("SELECT event FROM events GROUP BY `$group_0`", "The query could not be executed"),
    ],
)
def test_what_posthog_does_not_understand_is_a_400(ask, hogql, detail):
    answer = ask(hogql)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["type"], body["code"], body["attr"]) == ("validation_error", "invalid_input", None)
    assert body["detail"].startswith(detail)


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 100},
        {"refresh": "always"},
        {"query": {"kind": "EventsQuery", "select": ["*"]}},
        {"query": {"kind": "HogQLQuery", "query": "SELECT 1", "limit": 5}},
        {"query": "SELECT event FROM events"},
    ],
)
def test_a_body_with_unknown_parts_is_a_400(ask, change):
    answer = ask("SELECT event FROM events LIMIT 1", **change)
    assert (answer.status_code, answer.json()["type"]) == (400, "validation_error")


@pytest.mark.parametrize(
    ("token", "project", "status", "code"),
    [("wrong", PROJECT, 401, "authentication_failed"), (None, 1, 404, "not_found")],
)
def test_the_server_checks_key_and_project(ask, token, project, status, code):
    answer = ask("SELECT event FROM events", token=token, project=project)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_request_without_a_key_is_a_401(box):
    address = f"{box.address('posthog')}/api/projects/{PROJECT}/"
    answer = requests.get(address, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
