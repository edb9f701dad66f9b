import datetime as dt
import uuid
from functools import partial

import pytest
import requests
from mapped import mapped
from minimal import connected, read_all

from connectors.http import Http
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.vendors import packaged_mappings
from connectors.vendors.company_news import connector
from contracts.errors import SourceRefused, SourceUnavailable

SETTINGS = {"key": {"env": "COMPANY_NEWS_KEY"}}
COLLECTIONS = ("acquisitions", "funding_rounds", "layoffs")


@pytest.fixture
def waits(monkeypatch):
    """What the connector waits for, without the waiting."""
    waited = []
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=waited.append))
    return waited


@pytest.fixture
def read(box):
    def reading(positions=None, **more):
        return read_all("company_news", SETTINGS, box, positions=positions, **more)

    return reading


@pytest.fixture
def ask(box):
    """Asks the feed as anybody could: the status and the body."""

    def asking(method, path, key="sandbox-company_news-token", **how):
        headers = {"X-cb-user-key": key}
        url = f"{box.address('company_news')}/{path}"
        answer = requests.request(method, url, headers=headers, timeout=10, **how)
        return answer.status_code, answer.json()

    return asking


def events(world):
    return WorldFiles(world).rows("news/company_events.jsonl")


def canonical(rows, table):
    streams = {name: (page, connector.STREAMS[name].columns) for name, page in rows.items()}
    sql = packaged_mappings("company_news")[table].read_text()
    return mapped(sql, "company_news", streams)


def one_layoff(box):
    table = box.tables()["company_news", "layoffs"]
    return table, table.rows(box.now.timestamp())[0]


def test_every_event_of_the_world_arrives_once_and_its_reprints_beside_it(world, read):
    rows = read()
    reports = [row for name in COLLECTIONS for row in rows[name]]
    originals = {row["permalink"] for row in reports if row["permalink"].count("-") == 1}
    assert originals == {event["event_id"] for event in events(world)}
    assert len(reports) > len(originals)
    assert [row["uuid"] for row in rows["deleted_entities"]]


def test_the_mapping_makes_one_event_of_a_report_and_its_reprints(world, read):
    found = canonical(read(), "commercial_events")
    expected = {
        (
            event["company_domain"],
            event["event_id"],
            event["kind"],
            event["severity"],
            dt.datetime.fromisoformat(event["published_at"]).replace(tzinfo=None),
        )
        for event in events(world)
    }
    keys = ("account_key", "event_id", "kind", "severity", "occurred_at")
    assert {tuple(row[key] for key in keys) for row in found} == expected
    assert len(found) == len(expected)
    assert all(row["known_at"] == row["occurred_at"] and not row["deleted"] for row in found)


def test_the_keys_of_companies_are_their_web_addresses(world, read):
    found = canonical(read(), "account_keys")
    domains = {event["company_domain"] for event in events(world)}
    assert sorted((row["account_key"], row["domain"]) for row in found) == sorted(
        (domain, domain) for domain in domains
    )


def test_an_hour_without_news_costs_one_request_per_stream(box, read):
    positions = {}
    read(positions)
    before = len(box.log)
    box.move(box.now + dt.timedelta(hours=1))
    again = read(positions)
    assert len(box.log) - before == len(connector.STREAMS)
    assert again["deleted_entities"] == []


def test_only_what_is_new_or_corrected_comes_later(box, read):
    positions = {}
    first = {row["uuid"] for row in read(positions)["layoffs"]}
    table, row = one_layoff(box)
    later = box.now + dt.timedelta(days=3)
    new = str(uuid.uuid5(uuid.NAMESPACE_URL, "new"))
    table.put(new, {**row.body, "identifier": {"uuid": new, "permalink": "new"}}, later.timestamp())
    table.put(row.id, {**row.body, "num_laid_off": 7}, later.timestamp())
    box.move(later)
    again = read(positions)["layoffs"]
    assert {row["uuid"] for row in again} - first == {new}
    assert row.id in {row["uuid"] for row in again}
    assert len(again) < len(first)


def test_a_withdrawn_report_is_a_tombstone_and_its_reprint_takes_its_place(box, read):
    positions = {}
    rows = read(positions)
    by_name = {row["permalink"]: row for name in COLLECTIONS for row in rows[name]}
    withdrawn, reprinted = by_name["news-00002"], by_name["news-00001"]
    for name in COLLECTIONS:
        table = box.tables()["company_news", name]
        for row in (withdrawn, reprinted):
            if table.get(row["uuid"], box.now.timestamp()):
                table.remove(row["uuid"], box.now.timestamp() + 60)
    box.move(box.now + dt.timedelta(hours=1))
    again = read(positions)
    assert {row["uuid"] for row in again["deleted_entities"]} == {
        withdrawn["uuid"],
        reprinted["uuid"],
    }
    rows["deleted_entities"] += again["deleted_entities"]
    found = {row["event_id"]: row for row in canonical(rows, "commercial_events")}
    assert found["news-00002"]["deleted"]
    assert "news-00001" not in found
    assert not found["news-00001-reprint"]["deleted"]
    assert found["news-00001-reprint"]["occurred_at"] == dt.datetime(2024, 7, 4)


def test_an_event_of_which_only_the_month_is_known_is_dated_by_its_report_within_it(read):
    rows = read()
    template = rows["layoffs"][0]

    def coarse(uuid, precision, value, created):
        on = {"value": value, "precision": precision}
        more = {"organization_website_url": f"https://www.{uuid}.example/", "created_at": created}
        return {**template, "uuid": uuid, "permalink": uuid, "announced_on": on, **more}

    rows["layoffs"] = [
        coarse("in-it", "month", "2026-03-01", "2026-03-17T08:00:00Z"),
        coarse("later", "month", "2026-03-01", "2026-06-02T08:00:00Z"),
        coarse("year", "year", "2025-01-01", "2026-06-02T08:00:00Z"),
        coarse("early", "day", "2026-07-01", "2026-06-02T08:00:00Z"),
    ]
    found = {row["event_id"]: row for row in canonical(rows, "commercial_events")}
    assert found["in-it"]["occurred_at"] == dt.datetime(2026, 3, 17, 8)
    assert found["later"]["occurred_at"] == dt.datetime(2026, 3, 31)
    assert found["year"]["occurred_at"] == dt.datetime(2025, 12, 31)
    assert found["early"]["occurred_at"] == dt.datetime(2026, 7, 1)
    assert found["in-it"]["account_key"] == "www.in-it.example"


def test_small_pages_give_the_same_rows(box, read):
    whole = read()
    box.small_pages = 3
    assert read() == whole
    assert box.count("company_news", "searches/layoffs") > 5


def test_prices_and_texts_are_not_even_asked_for(read):
    stored = {field for name in COLLECTIONS for row in read()[name] for field in row}
    assert not stored & {"price", "money_raised", "short_description", "identifier"}


def test_a_search_that_changes_while_it_is_read_is_not_taken_for_complete(box, read):
    read()
    box.small_pages = 3
    positions = {}

    def moved(body):
        """The record after which the next page begins moves to the end meanwhile."""
        table, _ = one_layoff(box)
        row = table.rows(box.now.timestamp())[2]
        table.put(row.id, row.body, box.now.timestamp())
        return body

    box.faults.add(vendor="company_news", path="layoffs", nth=1, do="rewrite", rewrite=moved)
    with pytest.raises(SourceUnavailable, match="changed while they were read"):
        read(positions)
    assert "layoffs" not in positions


def test_f01_a_429_without_a_header_is_waited_for(box, waits, read):
    whole = read()
    box.faults.add(vendor="company_news", path="layoffs", do="status", code=429, times=2)
    assert read() == whole
    assert waits
    statuses = [request.status for request in box.log if "layoffs" in request.path]
    assert statuses[-3:] == [429, 429, 200]


def test_f09_a_truncated_page_is_asked_for_again(box, waits, read):
    whole = read()
    box.faults.add(vendor="company_news", path="funding", do="truncate")
    assert read() == whole


def test_f32_a_wrong_key_is_refused_without_showing_it(box, read):
    with pytest.raises(SourceRefused) as refused:
        read(secrets_env={"COMPANY_NEWS_KEY": "canary-key"})
    assert refused.value.stream in COLLECTIONS
    assert "canary" not in str(refused.value)
    _, _, client = connected("company_news", SETTINGS, box, secrets_env={})
    assert "sandbox-company_news-token" not in repr(vars(client)) + repr(client)


def test_the_account_is_the_feed_and_costs_one_request(box):
    vendor, config, client = connected("company_news", SETTINGS, box)
    host = box.address("company_news").removeprefix("http://").partition("/")[0]
    assert vendor.account(client, config) == host
    assert client.requests_sent == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"limit": 1001}, 400),
        ({"limit": 0}, 400),
        ({"field_ids": ["no_such_field"]}, 400),
        ({"after_id": "00000000-0000-0000-0000-000000000000"}, 400),
        ({"after_id": "a", "before_id": "b"}, 400),
        ({"page": 2}, 400),
        ({"order": [{"field_id": "updated_at", "sort": "up"}]}, 400),
        ({"query": [{"type": "predicate", "field_id": "nothing", "values": []}]}, 400),
        ({}, 200),
    ],
)
def test_the_feed_rejects_what_such_feeds_reject(ask, change, status):
    body = {"field_ids": ["identifier"], "query": [], **change}
    assert ask("POST", "searches/layoffs", json=body)[0] == status


def test_the_feed_gives_fifty_records_unless_asked_for_more_and_knows_its_keys(ask):
    body = {"field_ids": ["identifier"], "query": []}
    assert ask("POST", "searches/layoffs", key="wrong", json=body)[0] == 401
    assert ask("POST", "searches/people", json=body)[0] == 404
    assert ask("GET", "deleted_entities", params={"limit": 1001})[0] == 400
    status, found = ask("POST", "searches/layoffs", json=body)
    assert status == 200
    assert len(found["entities"]) == min(50, found["count"])
