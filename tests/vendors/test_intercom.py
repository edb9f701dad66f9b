"""Intercom: the connector against the strict server, and its mappings against the world."""

import datetime as dt
import json
from functools import partial

import pytest
import requests
from help_desks import Clock, mapped, stored, world_tickets
from intercom import Intercom, MultipleFilterSearchRequest, SingleFilterSearchRequest
from intercom.types import StartingAfterPaging
from minimal import NEWEST, connected
from specs import load, validate_request, validate_response

from connectors.http import Http
from connectors.sandbox.vendors import intercom as server
from connectors.sandbox.vendors.intercom_records import company, company_id, conversation_id
from connectors.vendors.intercom import connector
from connectors.vendors.intercom.connector import VENDOR
from contracts.errors import SourceRefused, SourceUnavailable

SETTINGS = {"token": {"env": "INTERCOM_TOKEN"}}
NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
SEARCH = "/conversations/search"


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Time passes only while somebody sleeps."""
    clock = Clock()
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=clock.sleep, clock=clock))
    return clock


@pytest.fixture
def read(pulled):
    def read(positions=None, **settings):
        return pulled("intercom", positions=positions, **{**SETTINGS, **settings})

    return read


@pytest.fixture
def companies(read):
    return lambda positions=None: read(positions, streams=["companies"])["companies"]


@pytest.fixture
def conversations(read):
    return lambda positions=None: read(positions, streams=["conversations"])["conversations"]


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(method, path, *, version="2.15", token=None, **options):
        headers = {"Authorization": f"Bearer {token or box.token('intercom')}"}
        headers |= {"Intercom-Version": version} if version else {}
        address = box.address("intercom") + path
        return requests.request(method, address, headers=headers, timeout=10, **options)

    return ask


def filtered(field, operator, value):
    return {"query": {"field": field, "operator": operator, "value": value}}


def table(box, name):
    return box.table("intercom", name, lambda table: None)


def ids(rows):
    return {row["id"] for row in rows}


def recent_tickets(world, now):
    """The world's tickets that changed since the history begins."""
    begin = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
    names = ("opened_at", "first_reply_at", "solved_at")
    return {
        id: ticket
        for id, ticket in world_tickets(world, now).items()
        if any(ticket[name] and ticket[name] >= begin for name in names)
    }


def recently():
    """Positions from which half a year is read: several pages, and quickly so."""
    return {"conversations": {NEWEST: dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()}}


def add_companies(box, number, *, at=None, prefix="n", **change):
    at = int((at or box.now).timestamp())
    for each in range(number):
        organization = {"id": f"o{each}", "name": "New", "domain_names": "new.example",
                        "external_id": None}  # fmt: skip
        table(box, "companies").put(
            f"{prefix}{each:05d}", company(organization, at) | change, at=at
        )


# A full reading


def test_a_first_reading_gives_every_company_and_conversation_of_the_world(read, box, world):
    rows = read()
    tickets = recent_tickets(world, box.now)
    assert ids(rows["conversations"]) == {conversation_id(ticket) for ticket in tickets}
    assert len(rows["companies"]) == len(box.world.rows("helpdesk/organizations.csv"))


def test_small_pages_give_the_same_rows(read, box):
    expected = read()
    box.small_pages = 40
    rows = read()
    assert rows["companies"] == expected["companies"]
    assert {row["id"]: row for row in rows["conversations"]} == {
        row["id"]: row for row in expected["conversations"]
    }


def test_nothing_that_people_wrote_nor_who_they_are_is_kept(read):
    rows = read()
    text = stored(VENDOR, "conversations", rows["conversations"])
    text += stored(VENDOR, "companies", rows["companies"])
    for told in ("does not work", "As expected", "A customer", "p1@", "Ltd"):
        assert told not in text


def test_history_before_its_start_is_not_asked_for(conversations, box):
    begin = dt.datetime(2024, 7, 1, tzinfo=dt.UTC).timestamp()
    assert min(row["updated_at"] for row in conversations()) >= begin


# Reading on


def test_an_unchanged_hour_costs_one_request_for_each_stream(read, box):
    positions = {}
    read(positions)
    sent = len(box.log)
    box.move(box.now + dt.timedelta(hours=1))
    read(positions)
    assert [request.path for request in box.log[sent:]] == ["/companies/list", SEARCH]


def test_a_new_conversation_and_a_changed_one_arrive_with_the_overlap_alone(conversations, box):
    positions = recently()
    first = conversations(positions)
    old = first[-1]["id"]
    box.move(box.now + dt.timedelta(hours=2))
    at = box.now.timestamp() - 60
    body = table(box, "conversations").get(old, at).body
    table(box, "conversations").put(old, body | {"priority": "priority"}, at=at)
    table(box, "conversations").put("999", body, at=at)
    rows = conversations(positions)
    newest = max(row["updated_at"] for row in first)
    assert {"999", old} <= ids(rows)
    assert all(row["updated_at"] >= newest - 3600 for row in rows)


def test_a_change_in_the_second_of_the_newest_one_is_not_lost(conversations, box):
    positions = recently()
    first = conversations(positions)
    newest = max(row["updated_at"] for row in first)
    body = table(box, "conversations").get(first[0]["id"], box.now.timestamp()).body
    table(box, "conversations").put("999", body, at=newest)
    assert "999" in ids(conversations(positions))


def test_what_changes_while_pages_are_read_is_left_to_the_next_reading(conversations, box):
    expected = ids(conversations())
    positions, moved = {}, []

    def change(body):
        oldest = table(box, "conversations").rows(box.now.timestamp())[900]
        moved.append(oldest.id)
        box.move(box.now + dt.timedelta(minutes=1))
        table(box, "conversations").put(oldest.id, oldest.body, at=box.now.timestamp())
        return body

    box.faults.add(vendor="intercom", path=SEARCH, nth=2, do="rewrite", rewrite=change)
    rows = ids(conversations(positions))
    assert rows >= expected - set(moved)
    assert rows | ids(conversations(positions)) == expected


def test_companies_are_read_as_a_whole_once_a_day(companies, box):
    positions = {}
    everything = ids(companies(positions))
    at = box.now + dt.timedelta(hours=1)
    box.move(at)
    organization = box.world.rows("helpdesk/organizations.csv")[0]
    renamed = company(organization, 1) | {"website": "https://renamed.example"}
    first = company_id(organization["id"])
    table(box, "companies").put(first, renamed, at=at.timestamp())  # not active for years
    add_companies(box, 1, at=at, last_request_at=int(at.timestamp()))
    assert "n00000" in ids(companies(positions))
    box.move(at + dt.timedelta(hours=23))
    rows = {row["id"]: row for row in companies(positions)}
    assert rows[first]["website"] == "https://renamed.example"
    assert len(rows) < len(everything)  # those that did not change are not stored again


def test_a_company_without_users_is_not_listed(companies, box):
    everything = ids(companies())
    add_companies(box, 1, user_count=0)
    assert ids(companies()) == everything


# More companies than a list gives


@pytest.fixture
def many(companies, box, monkeypatch):
    """More companies than a list gives, with limits that spare us ten thousand of them."""
    companies()
    monkeypatch.setattr(connector, "MOST_LISTED", 200)
    monkeypatch.setattr(server, "MOST_LISTED", 200)
    add_companies(box, 250)
    add_companies(box, 1, user_count=0)
    box.log.clear()
    return ids_of_all(box)


def ids_of_all(box):
    return {row.id for row in table(box, "companies").rows(box.now.timestamp())}


def test_more_companies_than_a_list_gives_are_scrolled(many, companies, box):
    assert ids(companies()) == many
    assert box.count("intercom", "/companies/list") == 1
    assert box.count("intercom", "/companies/scroll") == -(-len(many) // 100) + 1


@pytest.mark.parametrize("nth", [2, 3])
@pytest.mark.parametrize("fault", ["commit_then_502", "truncate", "reset"])
def test_a_lost_page_of_a_scroll_is_noticed_and_the_scroll_begins_anew(
    many, companies, box, clock, fault, nth, monkeypatch
):
    add_companies(
        box, 250, prefix="idle", user_count=0
    )  # the count alone, which lacks them, would not tell
    with_passing_time(monkeypatch, clock, box)
    box.faults.add(vendor="intercom", path="/companies/scroll", nth=nth, do=fault)
    assert ids(companies()) == ids_of_all(box)


def with_passing_time(monkeypatch, clock, box):
    """Who sleeps lets the sandbox's time pass too, so that a scroll can expire."""

    def sleep(seconds):
        clock.sleep(seconds)
        box.move(box.now + dt.timedelta(seconds=seconds))

    monkeypatch.setattr(connector, "Http", partial(Http, sleep=sleep, clock=clock))


def test_a_scroll_that_fails_in_the_middle_begins_anew_and_is_not_resumed(many, companies, box):
    box.faults.add(vendor="intercom", path="/companies/scroll", nth=2, do="rewrite",
                   rewrite=lambda body: _expire(box, body))  # fmt: skip
    assert ids(companies()) == many


def _expire(box, body):
    box.move(box.now + dt.timedelta(seconds=61))
    return body


def test_the_scroll_of_another_program_is_waited_for(many, companies, box, clock, ask, monkeypatch):
    assert ask("GET", "/companies/scroll").ok
    with_passing_time(monkeypatch, clock, box)
    assert ids(companies()) == many
    assert 61 in clock.waits


def test_companies_that_keep_getting_lost_are_an_error(companies, box):
    def more(body):
        answer = json.loads(body)
        return json.dumps(answer | {"total_count": answer["total_count"] + 1}).encode()

    box.faults.add(vendor="intercom", path="/companies/list", do="rewrite", rewrite=more)
    with pytest.raises(SourceUnavailable, match="fewer companies"):
        companies()


# The mappings


@pytest.fixture
def config(box):
    return connected("intercom", SETTINGS, box)[1]


def test_tickets_are_what_the_worlds_files_say(read, config, box, world):
    found = {row["ticket_id"]: row for row in mapped(VENDOR, "tickets", read(), config)}
    expected = recent_tickets(world, box.now)
    assert set(found) == {conversation_id(ticket) for ticket in expected}
    for id, ticket in expected.items():
        row = found[conversation_id(id)]
        for name in ("opened_at", "first_reply_at", "solved_at", "escalated", "csat", "reopened"):
            assert row[name] == ticket[name], (id, name)
        assert row["account_key"] == company_id(ticket["account_key"])
        assert row["priority"] == ("p1" if ticket["priority"] in ("p1", "p2") else "p3")
        assert row["status"] == ("closed" if ticket["solved_at"] else "open")


def test_account_keys_are_what_the_worlds_files_say(read, config, box):
    found = {row["account_key"]: row for row in mapped(VENDOR, "account_keys", read(), config)}
    organizations = box.world.rows("helpdesk/organizations.csv")
    assert {key: (row["account_id"], row["domain"]) for key, row in found.items()} == {
        company_id(o["id"]): (o["external_id"], f"https://www.{o['domain_names']}")
        for o in organizations
    }


def test_the_crms_number_may_be_the_companies_own_id(read, box):
    _, config, _ = connected("intercom", SETTINGS | {"crm_id_field": "company_id"}, box)
    found = {row["account_id"] for row in mapped(VENDOR, "account_keys", read(), config)}
    assert found == {row["id"] for row in box.world.rows("helpdesk/organizations.csv")}


def test_a_reopened_conversation_is_not_solved(read, config, box):
    read(recently())
    row = next(row for row in table(box, "conversations").rows(box.now.timestamp())
               if row.body["state"] == "closed")  # fmt: skip
    reopened = row.body | {"state": "open", "open": True}
    table(box, "conversations").put(row.id, reopened, at=box.now.timestamp())
    found = {row["ticket_id"]: row for row in mapped(VENDOR, "tickets", read(recently()), config)}
    assert found[row.id]["solved_at"] is None
    assert found[row.id]["first_reply_at"] is not None


def test_a_person_without_a_company_counts_by_the_domain_of_the_address(read, config, box):
    read(recently())
    row = table(box, "conversations").rows(box.now.timestamp())[-1]
    alone = row.body | {"of_company": None}
    admin = alone | {"source": alone["source"] | {"author": {"type": "admin", "email": "a@us.io"}}}
    table(box, "conversations").put("1", alone, at=box.now.timestamp())
    table(box, "conversations").put("2", admin, at=box.now.timestamp())
    rows = read(recently())
    domain = row.body["source"]["author"]["email"].partition("@")[2]
    tickets = {
        row["ticket_id"]: row["account_key"] for row in mapped(VENDOR, "tickets", rows, config)
    }
    assert (tickets["1"], tickets["2"]) == (f"@{domain}", "no company")
    keys = {row["account_key"]: row for row in mapped(VENDOR, "account_keys", rows, config)}
    assert keys[f"@{domain}"]["email"].endswith(f"@{domain}")


# Faults


def test_a_wrong_token_is_refused(read):
    with pytest.raises(SourceRefused):
        read(token={"env": "STRIPE_KEY"})


def test_the_account_is_the_workspace(box):
    vendor, config, client = connected("intercom", SETTINGS, box)
    assert vendor.account(client, config) == "workspace lk9view7"
    assert client.requests_sent == 1


def test_the_reset_of_a_limit_is_waited_for(conversations, box, clock):
    expected = ids(conversations(recently()))
    headers = {"Date": "Tue, 30 Jun 2026 20:00:00 GMT"}  # the epoch is taken by the server's clock
    headers["X-RateLimit-Reset"] = str(int(NOW.timestamp()) + 9)
    box.faults.add(vendor="intercom", path=SEARCH, do="status", code=429, headers=headers)
    assert ids(conversations(recently())) == expected
    assert clock.waits == [9]


@pytest.mark.parametrize("fault", ["truncate", "reset", "wrong_length", "html", "empty"])
def test_a_spoiled_page_loses_no_row(conversations, box, fault):
    expected = ids(conversations(recently()))
    box.faults.add(vendor="intercom", path=SEARCH, nth=2, do=fault)
    assert ids(conversations(recently())) == expected


def test_every_request_names_the_version(conversations, box, ask):
    """Without it, the workspace's default hides the company of a conversation."""
    assert all(row["company_id"] for row in conversations(recently()))
    old = ask("POST", SEARCH, version=None, json=filtered("open", "=", False)).json()
    assert all("company" not in conversation for conversation in old["conversations"])


# The server is as strict as the vendor


def nested(depth):
    query = {"field": "open", "operator": "=", "value": True}
    for _ in range(depth):
        query = {"operator": "AND", "value": [query]}
    return {"query": query}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "parameter_not_found"),
        (filtered("colour", "=", "red"), "invalid_query"),
        (filtered("updated_at", ">", "soon"), "invalid_query"),
        (filtered("updated_at", "LIKE", 1), "invalid_query"),
        (nested(3), "invalid_query"),
        ({"query": {"operator": "OR", "value": [nested(0)["query"]] * 16}}, "invalid_query"),
        (nested(2) | {"pagination": {"per_page": 151}}, "parameter_invalid"),
        (nested(2) | {"pagination": {"starting_after": "???"}}, "parameter_invalid"),
        (nested(2) | {"limit": 5}, "parameter_invalid"),
    ],
)
def test_the_server_refuses_searches_that_the_vendor_refuses(ask, body, code):
    answer = ask("POST", SEARCH, json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["code"] == code


def test_the_server_refuses_wrong_tokens_versions_and_pages(ask):
    assert ask("GET", "/me", token="another").status_code == 401
    assert ask("GET", "/me", version="9.9").status_code == 400
    assert ask("POST", "/companies/list?per_page=61").status_code == 400
    answer = ask("POST", "/companies/list?per_page=50&page=201")
    assert "scroll API" in answer.json()["errors"][0]["message"]


def test_the_server_allows_one_scroll_for_a_minute(ask, box):
    name = ask("GET", "/companies/scroll").json()["scroll_param"]
    assert ask("GET", "/companies/scroll").json()["errors"][0]["code"] == "scroll_exists"
    box.move(box.now + dt.timedelta(seconds=61))
    answer = ask("GET", f"/companies/scroll?scroll_param={name}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "not_found")


# The official client


@pytest.fixture
def official(box):
    return Intercom(
        token=box.token("intercom"),
        base_url=box.address("intercom"),
        headers={"Intercom-Version": "2.15"},
    )


def test_the_official_client_reads_the_same_conversations(official, conversations, box):
    begin = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()) - 3600
    wanted = SingleFilterSearchRequest(field="updated_at", operator=">", value=begin - 1)
    query = MultipleFilterSearchRequest(operator="AND", value=[wanted])
    found, paging = [], StartingAfterPaging(per_page=150)
    while paging is not None:  # its own pager asks for the first page for ever
        page = official.conversations.search(query=query, pagination=paging)
        found += page.items
        paging = page.response.pages.next
    theirs = {
        c.id: (c.created_at, c.updated_at, c.state, c.priority,
               c.statistics.first_admin_reply_at, c.statistics.last_close_at,
               c.conversation_rating.rating if c.conversation_rating else None)
        for c in found
    }  # fmt: skip
    ours = {
        row["id"]: (row["created_at"], row["updated_at"], row["state"], row["priority"],
                    row["statistics"].get("first_admin_reply_at"),
                    row["statistics"].get("last_close_at"), row["rating"])
        for row in conversations(recently())
    }  # fmt: skip
    assert theirs == ours


def test_the_official_client_reads_the_same_companies_by_list_and_by_scroll(official, companies):
    ours = {row["id"]: (row["company_id"], row["website"], row["custom_attributes"])
            for row in companies()}  # fmt: skip
    listed, page = [], 1
    while found := official.companies.list(page=page, per_page=60).items:
        listed += found
        page += 1
    scrolled = []
    scroll = official.companies.scroll()
    while scroll.items:
        scrolled += scroll.items
        scroll = official.companies.scroll(scroll_param=scroll.response.scroll_param)
    for theirs in (listed, scrolled):
        assert {c.id: (c.company_id, c.website, c.custom_attributes) for c in theirs} == ours


def test_the_official_client_reads_the_workspace(official):
    assert official.admins.identify().app.id_code == "lk9view7"


# The description

DEFECTS = {
    "pages.next anyOf": "companies are paged by address, as in the official client's OffsetPages",
    "pages type": "a scroll has no pages",
}


def test_requests_and_answers_are_as_the_description_says(ask, read, box):
    spec = load("intercom/trimmed.json")
    since = {"field": "updated_at", "operator": ">", "value": 1_719_792_000}
    body = {"query": {"operator": "AND", "value": [since]}, "pagination": {"per_page": 150}}
    validate_request(spec, "POST", SEARCH, (), body)
    found = ask("POST", SEARCH, json=body)
    assert len(found.json()["conversations"]) == 150
    validate_response(spec, "POST", SEARCH, 200, found.json())
    listed = ask("POST", "/companies/list?page=1&per_page=60").json()
    validate_response(spec, "POST", "/companies/list", 200, listed, DEFECTS)
    scrolled = ask("GET", "/companies/scroll").json()
    validate_response(spec, "GET", "/companies/scroll", 200, scrolled, DEFECTS)
    error = ask("POST", "/companies/list", token="another")
    validate_response(spec, "POST", "/companies/list", 401, error.json())
    read()
    for request in box.log:
        if request.path != "/me":
            validate_request(spec, request.method, request.path, request.query)
