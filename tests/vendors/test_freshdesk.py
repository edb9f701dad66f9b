import datetime as dt
from functools import partial
from pathlib import Path

import orjson
import pytest
import requests
from help_desks import Clock, mapped, stored, world_tickets
from minimal import connected, read_all

from connectors.http import Http
from connectors.mapping import read_mapping
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.sandbox.vendors import freshdesk as server
from connectors.vendors import packaged_sql
from connectors.vendors.freshdesk import connector
from contracts.errors import SourceCorrupt, SourceRefused

SETTINGS = {
    "domain": "sandbox", "api_key": {"env": "FRESHDESK_KEY"}, "requests_per_minute": 100_000,
}  # fmt: skip
EVERYTHING = dt.date(2023, 1, 1)
SPRING = dt.date(2026, 3, 1)
JUNE = dt.date(2026, 6, 1)
ONE_SECOND = dt.datetime(2026, 6, 15, 9, tzinfo=dt.UTC).timestamp()
TICKETS = "/api/v2/tickets"
USUAL_LIST = "include=stats"


@pytest.fixture
def waits(monkeypatch):
    """What the connector waits for, without the waiting."""
    clock = Clock()
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=clock.sleep, clock=clock))
    return clock.waits


@pytest.fixture
def read(box):
    """Reads all streams; give the same positions again to read on."""

    def reading(positions=None, history_start=EVERYTHING):
        return read_all(
            "freshdesk", SETTINGS, box, positions=positions, history_start=history_start
        )

    return reading


@pytest.fixture
def ask(box):
    """Asks the sandbox as anybody could."""

    def asking(path, key=None, **params):
        return requests.get(
            f"{box.address('freshdesk')}/api/v2/{path}",
            params=params,
            auth=(key or box.token("freshdesk"), "X"),
            timeout=10,
        )

    return asking


def table(box, ask, name="tickets"):
    """The server's collection, filled by a first request."""
    for path in ("tickets", "companies", "surveys/satisfaction_ratings"):
        ask(path)
    return box.tables()["freshdesk", name]


def newest(rows):
    """The latest version of each row that came."""
    return {str(row["id"]): row for row in rows}


def listed(box):
    """The queries for the usual list of tickets."""
    return [each.query for each in box.log if each.query.get("include") == "stats"]


def test_a_full_reading_holds_what_the_world_says(box, read, world):
    rows = read()
    expected = world_tickets(world, box.now)
    assert newest(rows["tickets"]).keys() == expected.keys()
    assert len(expected) > 2000
    organizations = WorldFiles(world).rows("helpdesk/organizations.csv")
    assert newest(rows["companies"]).keys() == {row["id"] for row in organizations}
    given = [id for id, ticket in expected.items() if ticket["csat"] is not None]
    assert {str(row["ticket_id"]) for row in rows["satisfaction_ratings"]} == set(given)
    assert rows["deleted_tickets"] == rows["spam_tickets"] == []


def test_the_tickets_are_those_of_the_world(box, read, world):
    rows = read()
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    found = {row["ticket_id"]: row for row in mapped(vendor, "tickets", rows, config)}
    expected = world_tickets(world, box.now)
    assert found.keys() == expected.keys()
    for id, ticket in expected.items():
        known = {**ticket, "reopened": min(ticket["reopened"], 1)}  # how often is not told
        assert known == {name: found[id][name] for name in known}
        assert found[id]["deleted"] is False
        solved = found[id]["status"] in ("resolved", "closed")
        assert solved == (ticket["solved_at"] is not None)


def test_a_company_is_evidence_by_the_number_and_by_each_of_its_domains(box, ask, read):
    companies = table(box, ask, "companies")
    row = companies.rows(box.now.timestamp())[0]
    changed = {**row.body, "domains": ["one.example", "two.example"],
               "custom_fields": {"crm_account_no": "ACC-00777"}}  # fmt: skip
    companies.put(row.id, changed, at=box.now.timestamp() - 600)
    rows = read()
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    keys = mapped(vendor, "account_keys", rows, config)
    assert {key["domain"] for key in keys if key["account_id"] == "ACC-00777"} == {
        "one.example", "two.example",
    }  # fmt: skip
    assert len({key["account_key"] for key in keys}) == len(rows["companies"])
    assert sum(key["account_id"] is not None for key in keys) > 20


@pytest.mark.parametrize("name", ["tickets", "account_keys"])
def test_the_mappings_are_accepted(box, name):
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    streams = [("freshdesk", stream) for stream in vendor.streams]
    text = packaged_sql(config, name)
    _, problems = read_mapping("freshdesk", name, Path(f"{name}.sql"), text, streams)
    assert problems == []


@pytest.mark.parametrize(("answer", "csat"), [(103, 100), (101, 67), (100, 50), (-102, 17)])
def test_the_seven_answers_are_spread_over_a_hundred_and_the_last_word_counts(
    box, read, answer, csat
):
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    rows = read(history_start=SPRING)
    rating = rows["satisfaction_ratings"][0]
    last = {**rating, "id": 9, "ratings": {"default_question": answer},
            "updated_at": "2026-06-30T19:00:00Z"}  # fmt: skip
    rows["satisfaction_ratings"].append(last)
    found = {row["ticket_id"]: row["csat"] for row in mapped(vendor, "tickets", rows, config)}
    assert found[str(rating["ticket_id"])] == csat


def test_a_ticket_without_company_or_with_a_status_of_ones_own_is_kept(box, read):
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    rows = read(history_start=SPRING)
    ticket = next(row for row in rows["tickets"] if row["status"] == 5)
    rows["tickets"] = [{**ticket, "id": 1, "company_id": None}, {**ticket, "id": 2, "status": 9}]
    first, second = sorted(
        mapped(vendor, "tickets", rows, config), key=lambda row: row["ticket_id"]
    )
    assert first["account_key"] == "no company"
    assert (second["status"], second["solved_at"]) == ("9", None)


def test_only_what_changed_is_read_again(box, ask, read):
    positions = {}
    before = newest(read(positions, SPRING)["tickets"])
    tickets = table(box, ask)
    row = tickets.rows(box.now.timestamp())[5]
    moment = box.now.timestamp() + 1800
    tickets.put(row.id, {**row.body, "priority": 4}, at=moment)
    box.move(box.now + dt.timedelta(hours=1))
    again = newest(read(positions, SPRING)["tickets"])
    assert again[row.id]["priority"] == 4
    changed = {id for id, ticket in again.items() if ticket != before.get(id)}
    assert row.id in changed
    assert len(changed) < 20  # the world went on for an hour
    assert len(again) - len(changed) <= 3  # those of the overlap


def test_deleted_tickets_and_spam_end_and_a_restored_ticket_comes_back(box, ask, read):
    positions = {}
    rows = read(positions, SPRING)
    tickets = table(box, ask)
    thrown, spam, restored = tickets.rows(box.now.timestamp())[:3]
    moment = box.now.timestamp()
    tickets.remove(thrown.id, at=moment + 60)
    tickets.put(spam.id, {**spam.body, "spam": True}, at=moment + 61)
    tickets.remove(restored.id, at=moment + 62)
    tickets.put(restored.id, restored.body, at=moment + 120)
    for minutes in (1.5, 60):  # in between, the third one lies in the trash
        box.move(box.now + dt.timedelta(minutes=minutes))
        for name, more in read(positions, SPRING).items():
            rows[name] = rows[name] + more
    vendor, config, _ = connected("freshdesk", SETTINGS, box)
    found = {row["ticket_id"]: row for row in mapped(vendor, "tickets", rows, config)}
    assert {id for id, row in found.items() if row["deleted"]} == {thrown.id, spam.id}
    assert restored.id in {str(row["id"]) for row in rows["deleted_tickets"]}
    assert found[thrown.id]["account_key"] == str(thrown.body["company_id"])


def test_an_unchanged_hour_costs_one_request_for_each_stream(box, read):
    positions = {}
    read(positions, SPRING)
    asked = len(box.log)
    rows = read(positions, SPRING)
    assert [(each.path, each.query.get("filter")) for each in box.log[asked:]] == [
        (TICKETS, None), (TICKETS, "deleted"), (TICKETS, "spam"),
        ("/api/v2/search/companies", None), ("/api/v2/surveys/satisfaction_ratings", None),
    ]  # fmt: skip
    assert all(len(page) <= 3 for page in rows.values())


def test_tickets_older_than_thirty_days_are_read_too(box, read, ask):
    first = ask("tickets", per_page=100).json()
    oldest = box.now - dt.timedelta(days=30)
    assert all(dt.datetime.fromisoformat(row["created_at"]) >= oldest for row in first)
    opened = min(row["created_at"] for row in read()["tickets"])
    assert opened < "2024-02"
    assert all("updated_since" in query for query in listed(box))


def test_the_last_page_that_freshdesk_shows_is_no_end(box, read, ask, monkeypatch):
    tickets = table(box, ask)
    box.small_pages = 60
    assert ask("tickets", page=301).json()["errors"][0]["field"] == "page"
    monkeypatch.setattr(server, "LAST_PAGE", 5)
    rows = read()["tickets"]
    assert newest(rows).keys() == {row.id for row in tickets.rows(box.now.timestamp())}
    assert len(listed(box)) > 30
    assert {query["page"] for query in listed(box)} == {"1"}
    answer = ask("tickets", page=6)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "page"


def test_F22_a_ticket_that_moves_to_the_end_meanwhile_hides_no_other(box, ask, read):
    tickets = table(box, ask)
    everything = {row.id for row in tickets.rows(box.now.timestamp())}

    def touch(body):
        row = tickets.get(str(orjson.loads(body)[0]["id"]), box.now.timestamp())
        tickets.put(row.id, {**row.body, "tags": ["touched"]}, at=box.now.timestamp())
        return body

    for nth in (2, 3, 7):
        box.faults.add(vendor="freshdesk", asks=USUAL_LIST, nth=nth, do="rewrite", rewrite=touch)
    rows = newest(read()["tickets"])
    assert rows.keys() == everything
    assert sum(row["tags"] == ["touched"] for row in rows.values()) == 3


def test_more_than_a_page_of_tickets_in_one_second_is_paged(box, ask, read):
    tickets = table(box, ask)
    body = tickets.rows(box.now.timestamp())[0].body
    for number in range(20):
        tickets.put(str(70_000 + number), {**body, "id": 70_000 + number}, at=ONE_SECOND)
    box.small_pages = 6
    rows = newest(read(history_start=JUNE)["tickets"])
    assert rows.keys() >= {str(70_000 + number) for number in range(20)}
    assert {query["page"] for query in listed(box)} >= {"1", "2", "3"}


def test_more_tickets_in_one_second_than_freshdesk_shows_are_not_silently_left_out(
    box, ask, read, monkeypatch
):
    monkeypatch.setattr(connector, "LAST_PAGE", 3)
    tickets = table(box, ask)
    body = tickets.rows(box.now.timestamp())[0].body
    for number in range(20):
        tickets.put(str(70_000 + number), {**body, "id": 70_000 + number}, at=ONE_SECOND)
    box.small_pages = 5
    with pytest.raises(SourceCorrupt, match="shows no more than 3 pages"):
        read(history_start=JUNE)


def test_small_pages_give_the_same_rows(box, read):
    whole = read()
    box.small_pages = 30
    small = read()
    for name in whole:
        assert newest(small[name]) == newest(whole[name])


def test_a_full_page_without_a_link_is_not_taken_for_the_last(box, read, monkeypatch):
    whole = newest(read()["tickets"])
    monkeypatch.setattr(requests.Response, "links", {})
    assert newest(read()["tickets"]) == whole


def test_a_changed_company_is_found_without_listing_all(box, ask, read):
    positions = {}
    read(positions, SPRING)
    companies = table(box, ask, "companies")
    row = companies.rows(box.now.timestamp())[0]
    moment = box.now.timestamp() + 60
    text = f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    companies.put(row.id, {**row.body, "domains": ["new.example"], "updated_at": text}, at=moment)
    box.move(box.now + dt.timedelta(hours=1))
    asked = len(box.log)
    found = newest(read(positions, SPRING)["companies"])
    assert found[row.id]["domains"] == ["new.example"]
    assert [each.path for each in box.log[asked:] if "compan" in each.path] == [
        "/api/v2/search/companies"
    ]


@pytest.mark.parametrize(("changed", "lists"), [(70, 0), (301, 1)])
def test_where_the_search_cannot_show_all_changes_everything_is_listed(
    box, ask, read, changed, lists
):
    positions = {}
    read(positions, SPRING)
    companies = table(box, ask, "companies")
    body = companies.rows(box.now.timestamp())[0].body
    moment = box.now.timestamp() + 60
    text = f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    for number in range(changed):
        id = 5_000 + number
        companies.put(str(id), {**body, "id": id, "updated_at": text}, at=moment)
    box.move(box.now + dt.timedelta(hours=1))
    before = box.count("freshdesk", "v2/companies")
    found = newest(read(positions, SPRING)["companies"])
    assert {str(5_000 + number) for number in range(changed)} <= found.keys()
    assert (box.count("freshdesk", "v2/companies") > before) == bool(lists)


def test_what_people_wrote_is_not_stored(box, read):
    rows = read(history_start=SPRING)
    vendor, _, _ = connected("freshdesk", SETTINGS, box)
    lake = "".join(stored(vendor, name, rows[name]) for name in rows)
    assert "the customer wrote" not in lake
    assert "Question 5" not in lake


def test_the_account_is_told_and_a_trial_is_called_so(box):
    vendor, config, client = connected("freshdesk", SETTINGS, box)
    assert vendor.account(client, config) == "230001"
    on_trial = {"account_id": 7, "tier_type": "Trial"}
    box.faults.add(vendor="freshdesk", path="account", do="error_json", body=on_trial)
    assert vendor.account(client, config) == "7 (trial)"
    assert client.requests_sent == 2
    box.faults.add(vendor="freshdesk", path="account", do="error_json", body={"message": "no"})
    with pytest.raises(SourceRefused, match="use the API key of an administrator"):
        vendor.account(client, config)


def test_F32_a_wrong_key_is_refused_without_being_shown(box):
    secret = "hunter2-canary"
    with pytest.raises(SourceRefused, match="freshdesk tickets, page 1: refused the cr") as error:
        read_all("freshdesk", SETTINGS, box, secrets_env={"FRESHDESK_KEY": secret})
    assert secret not in str(error.value)
    assert len(box.log) == 1


def test_F01_a_busy_desk_is_asked_again_after_the_time_that_it_names(box, read, waits):
    whole = read(history_start=SPRING)
    box.faults.add(
        vendor="freshdesk", asks=USUAL_LIST, nth=3, do="status", code=429,
        headers={"Retry-After": "52"},
    )  # fmt: skip
    assert read(history_start=SPRING) == whole
    assert waits == [52]


@pytest.mark.parametrize("fault", ["truncate", "wrong_length", "reset", "bad_gzip", "html"])
def test_F07_to_F12_a_spoiled_page_loses_no_row(box, read, waits, fault):
    whole = read(history_start=SPRING)
    box.faults.add(vendor="freshdesk", asks=USUAL_LIST, nth=4, do=fault)
    assert read(history_start=SPRING) == whole


def test_the_limit_of_the_smallest_plan_is_kept_to(box, waits):
    settings = {name: each for name, each in SETTINGS.items() if name != "requests_per_minute"}
    read_all("freshdesk", settings, box, history_start=EVERYTHING)
    assert len(box.log) > 30
    assert waits == [60] * ((len(box.log) - 1) // 20)


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("tickets", {"per_page": 101}),
        ("tickets", {"per_page": "many"}),
        ("tickets", {"page": 0}),
        ("tickets", {"include": "metrics"}),
        ("tickets", {"order_by": "id"}),
        ("tickets", {"filter": "archived"}),
        ("tickets", {"updated_since": "yesterday"}),
        ("tickets", {"start_time": 0}),
        ("companies", {"updated_since": "2026-01-01T00:00:00Z"}),
        ("search/companies", {"query": "updated_at:>2026"}),
        ("search/companies", {"query": "\"updated_at:>'2026-01-01'\"", "page": 11}),
        ("surveys/satisfaction_ratings", {"created_since": "soon"}),
    ],
)
def test_the_sandbox_rejects_what_freshdesk_rejects(ask, path, params):
    answer = ask(path, **params)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] in params


def test_the_sandbox_wants_the_key_and_counts_credits(box, ask):
    assert ask("tickets", key="wrong").status_code == 401
    assert ask("tickets", key="wrong").json()["code"] == "invalid_credentials"
    bearer = {"Authorization": f"Bearer {box.token('freshdesk')}"}
    url = f"{box.address('freshdesk')}{TICKETS}"
    assert requests.get(url, headers=bearer, timeout=10).status_code == 401
    plain, with_stats = ask("tickets"), ask("tickets", include="stats")
    assert plain.headers["X-RateLimit-Used-CurrentRequest"] == "1"
    assert with_stats.headers["X-RateLimit-Used-CurrentRequest"] == "3"
    assert "stats" not in plain.json()[0]
    assert "resolved_at" in with_stats.json()[0]["stats"]
