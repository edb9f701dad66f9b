import datetime as dt
from collections import Counter
from functools import partial

import pytest
import requests
from hubspot import HubSpot as OfficialClient
from minimal import connected, read_all

from connectors.http import Http
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.sandbox.vendors import hubspot as server
from connectors.vendors.hubspot import client as hubspot_client
from connectors.vendors.hubspot import connector
from contracts.errors import SourceCorrupt, SourceExhausted, SourceRefused

SETTINGS = {"token": {"env": "HUBSPOT_TOKEN"}}
TYPES = ("companies", "contacts", "deals", "tasks", "feedback_submissions")
HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """What the connector waits for, without the waiting."""
    waited = []
    monkeypatch.setattr(hubspot_client, "Http", partial(Http, sleep=waited.append))
    return waited


@pytest.fixture
def read(box):
    """Reads all streams; give the same positions again to read on."""

    def reading(positions=None, secrets_env=None, **settings):
        return read_all(
            "hubspot", SETTINGS | settings, box, positions=positions, secrets_env=secrets_env
        )

    return reading


@pytest.fixture
def ask(box):
    """Asks the sandbox as anybody could: the status and the answer."""

    def asking(method, path, token="sandbox-hubspot-token", **how):
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{box.address('hubspot')}{path}"
        return requests.request(method, url, headers=headers, timeout=10, **how)

    return asking


def by_id(rows):
    return {row["id"]: row for row in rows}


def put(box, type, id, at, **properties):
    """Somebody changes a record at a moment."""
    table = box.tables()["hubspot", type]
    body = table.get(id, at.timestamp()).body
    table.put(id, body | {"properties": body["properties"] | properties}, at.timestamp())


def numbered(rows, number):
    return next(row for row in rows if row["properties"]["account_number"] == number)


def test_a_first_reading_gives_everything_that_the_world_holds(world, read):
    rows, files = read(), WorldFiles(world)
    changes = files.rows("crm/account_changes.csv")
    merged = {row["Account_No"] for row in changes if row["Merged_Into"]}
    numbers = {row["properties"]["account_number"] for row in rows["companies"]}
    assert numbers == {row["Account_No"] for row in files.rows("crm/accounts.csv")} - merged
    assert merged
    with_role = [row for row in rows["contacts"] if row["properties"].get("hs_buying_role")]
    emails = {row["Email"] for row in files.rows("crm/contacts.csv")}
    assert len(with_role) == len(emails)
    deals = {row["Opportunity_No"] for row in files.rows("crm/opportunities.csv")}
    assert len(rows["deals"]) == len(deals)
    amounts = Counter(row["properties"]["amount"] for row in rows["deals"])
    distinct = {row["Opportunity_No"]: row for row in files.rows("crm/opportunities.csv")}
    assert amounts == Counter(row["Amount"] for row in distinct.values())
    answers = [row for name in ("nps", "csat") for row in files.rows(f"surveys/{name}.csv")]
    usable = [row for row in answers if row["response_id"] and row["answered_at"] != "yesterday"]
    assert len(rows["feedback_submissions"]) == len(usable)
    worried = [row for row in files.rows("crm/csm_notes.csv") if row["Rating"] in ("1", "2")]
    assert len(rows["tasks"]) == len(worried)
    people = {row[name] for row in changes for name in ("Success_Manager", "Sales_Rep")} - {None}
    assert {f"{row['firstName']} {row['lastName']}" for row in rows["owners"]} == people


def test_all_versions_of_a_value_come_with_the_first_reading(world, read):
    rows = read(streams=["companies"])["companies"]
    files = WorldFiles(world).rows("crm/account_changes.csv")
    number = Counter(row["Account_No"] for row in files).most_common(1)[0][0]
    expected = [row["Annual_Value"] for row in files if row["Account_No"] == number]
    history = numbered(rows, number)["history"]["annual_contract_value"]
    values = [entry["value"] for entry in reversed(history)]
    assert values == [v for i, v in enumerate(expected) if i == 0 or v != expected[i - 1]]
    assert set(history[0]) == {"value", "timestamp"}


def test_an_hour_without_changes_costs_one_request_per_stream(box, read):
    positions = {}
    read(positions)
    for _ in range(2):
        before = len(box.log)
        box.move(box.now + HOUR)
        again = read(positions)
        assert len(box.log) - before == len(TYPES) + 1
        assert not any(again.values())


def test_exactly_what_changed_comes_later_with_its_history_and_company(box, read):
    positions = {}
    first = read(positions)
    company, deal, contact = (first[type][7]["id"] for type in ("companies", "deals", "contacts"))
    at = box.now + dt.timedelta(minutes=30)
    put(box, "companies", company, at, annual_contract_value="4711")
    put(box, "deals", deal, at, amount="815")
    put(box, "contacts", contact, at, left_company_on="2026-06-30")
    box.move(box.now + HOUR)
    again = read(positions)
    assert {type: [row["id"] for row in again[type]] for type in TYPES} == {
        "companies": [company],
        "deals": [deal],
        "contacts": [contact],
        "tasks": [],
        "feedback_submissions": [],
    }
    history = again["companies"][0]["history"]["annual_contract_value"]
    assert history[0]["value"] == "4711"
    assert history[1:] == by_id(first["companies"])[company]["history"]["annual_contract_value"]
    assert again["deals"][0]["companies"] == by_id(first["deals"])[deal]["companies"] != []
    assert set(again["companies"][0]) == set(first["companies"][0])
    box.move(box.now + HOUR)
    assert not any(read(positions).values())


def test_a_change_that_the_index_did_not_know_yet_comes_with_the_next_reading(box, read):
    positions = {}
    first = read(positions)
    seen, late = first["tasks"][0]["id"], first["tasks"][1]["id"]
    at = box.now + HOUR
    put(box, "tasks", late, at - dt.timedelta(seconds=30), hs_task_status="DEFERRED")
    put(box, "tasks", seen, at - dt.timedelta(seconds=90), hs_task_status="DEFERRED")
    box.move(at)
    assert [row["id"] for row in read(positions)["tasks"]] == [seen]
    box.move(at + HOUR)
    assert [row["id"] for row in read(positions)["tasks"]] == [late]


def test_archived_records_are_found_once_a_day(box, read):
    positions = {}
    first = read(positions)
    gone = first["deals"][5]["id"]
    box.tables()["hubspot", "deals"].remove(gone, box.now.timestamp() + 60)
    box.move(box.now + HOUR)
    assert read(positions)["deals"] == []
    box.move(box.now + dt.timedelta(hours=24))
    found = read(positions)["deals"]
    assert [(row["id"], row["archived"]) for row in found] == [(gone, True)]
    box.move(box.now + dt.timedelta(hours=24))
    assert read(positions)["deals"] == []


def test_a_merged_company_comes_under_its_new_id_and_names_the_old_ones(box, world, read):
    changes = WorldFiles(world).rows("crm/account_changes.csv")
    merge = next(row for row in changes if row["Merged_Into"])
    survivor = numbered(read(streams=["companies"])["companies"], merge["Merged_Into"])
    former = survivor["properties"]["hs_merged_object_ids"].split(";")
    assert len(former) == 2
    assert survivor["id"] not in former
    told = {entry["value"] for entry in survivor["history"]["account_number"]}
    assert told == {merge["Account_No"], merge["Merged_Into"]}


def test_other_properties_in_the_settings_make_everything_be_read_again(box, read):
    positions = {}
    first = read(positions)
    box.move(box.now + HOUR)
    again = read(positions, fields={"company": {"plan": "website"}})
    assert len(again["companies"]) == len(first["companies"])
    assert again["deals"] == []
    assert again["companies"][0]["properties"]["website"].startswith("https://")


@pytest.mark.parametrize(("size", "streams"), [(3, ["tasks", "owners"]), (30, ["companies"])])
def test_small_pages_give_the_same_rows(box, read, size, streams):
    positions, whole = {}, read(streams=streams)
    box.small_pages = size
    assert read(positions, streams=streams) == whole
    assert len(box.log) > 2 * len(streams)


def test_small_pages_of_a_search_give_the_same_rows(box, read):
    positions = {}
    whole = read(positions, streams=["deals"])["deals"]
    changed = [row["id"] for row in whole[:20]]
    for id in changed:
        put(box, "deals", id, box.now + dt.timedelta(minutes=30), amount="1")
    box.small_pages = 3
    box.move(box.now + HOUR)
    again = read(positions, streams=["deals"])["deals"]
    assert sorted(row["id"] for row in again) == sorted(changed)
    assert box.count("hubspot", "search") == 7


def test_more_changes_than_a_search_may_page_through_all_come(box, read, monkeypatch):
    monkeypatch.setattr(server, "SEARCH_WINDOW", 400)
    positions = {}
    first = read(positions, streams=["tasks"])["tasks"]
    table = box.tables()["hubspot", "tasks"]
    body = table.get(first[0]["id"], box.now.timestamp()).body
    at = (box.now + dt.timedelta(minutes=30)).timestamp()
    for number in range(1_150):
        table.put(str(60_000_000_000 + number), body, at)
    box.move(box.now + HOUR)
    again = read(positions, streams=["tasks"])["tasks"]
    assert len({row["id"] for row in again}) == 1_150


def test_nobody_is_asked_for_by_name_and_no_text_is_stored(box, read):
    rows = read()
    stored = {name for type in TYPES for row in rows[type] for name in row["properties"]}
    private = {
        "email", "firstname", "lastname", "jobtitle", "phone", "hs_content", "hs_task_subject",
        "hs_task_body", "dealname", "description",
    }  # fmt: skip
    assert not stored & private
    asked = " ".join(name for request in box.log for name in request.query.values())
    assert not private & set(asked.replace(",", " ").split())
    assert {"email", "userId"} <= connector.VENDOR.streams_of(
        connector.HubSpotConfig.model_validate({"type": "hubspot", **SETTINGS})
    )["owners"].leave_out


def test_the_dated_paths_give_the_same_rows(box, read):
    whole = read()
    assert read(api_version="2026-03") == whole
    assert box.count("hubspot", "^/crm/objects/2026-03/companies")
    assert box.count("hubspot", "^/crm/owners/2026-03")


def test_the_account_is_the_portal_and_says_that_it_is_a_sandbox(box):
    vendor, config, client = connected("hubspot", SETTINGS, box)
    assert vendor.account(client, config) == "48151623-sandbox"
    assert client.requests_sent == 1


def test_f93_the_token_shows_nowhere(box, caplog):
    caplog.set_level("DEBUG")
    _, _, client = connected("hubspot", SETTINGS, box)
    client = client.stream("companies")
    client.details()
    shown = [caplog.text, repr(client), repr(vars(client))]
    for part in vars(client).values():
        shown += [repr(part), repr(getattr(part, "__dict__", ""))]
        api_client = getattr(part, "api_client", None)
        shown += (
            [repr(vars(api_client)), repr(vars(api_client.configuration))] if api_client else []
        )
    assert "sandbox-hubspot-token" not in " ".join(shown)


def test_f03_the_days_limit_ends_the_stream_at_once(box, waits, read):
    daily = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "DAILY"}
    box.faults.add(
        vendor="hubspot", path="companies", do="status", code=429, body=daily, times=None
    )
    with pytest.raises(SourceExhausted, match="day's requests"):
        read()
    assert box.count("hubspot", "companies") == 1


def test_f03_the_burst_limit_is_waited_out(box, waits, read):
    whole = read(streams=["deals"])
    burst = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
    box.faults.add(vendor="hubspot", path="deals", do="status", code=429, body=burst)
    assert read(streams=["deals"]) == whole
    assert any(9 < seconds <= 10 for seconds in waits)


def test_f03_a_search_waits_a_second_and_goes_on(box, waits, read):
    positions = {}
    whole = read(positions, streams=["deals"])["deals"]
    put(box, "deals", whole[0]["id"], box.now + dt.timedelta(minutes=30), amount="1")
    box.move(box.now + HOUR)
    burst = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "SECONDLY"}
    box.faults.add(vendor="hubspot", path="search", do="status", code=429, body=burst)
    waits.clear()
    assert len(read(positions, streams=["deals"])["deals"]) == 1
    assert waits
    assert max(waits) <= 1


def test_a_search_that_goes_on_without_new_records_is_noticed(box, read):
    positions = {}
    read(positions, streams=["deals"])
    box.move(box.now + HOUR)
    endless = {"total": 9, "results": [], "paging": {"next": {"after": "200"}}}
    box.faults.add(vendor="hubspot", path="search", do="error_json", body=endless, times=None)
    with pytest.raises(SourceCorrupt, match="without new records"):
        read(positions, streams=["deals"])


def test_f01_retry_after_is_obeyed(box, waits, read):
    whole = read(streams=["deals"])
    box.faults.add(
        vendor="hubspot", path="deals", do="status", code=429, headers={"Retry-After": "3"}
    )
    assert read(streams=["deals"]) == whole
    assert any(2 < seconds <= 3 for seconds in waits)


@pytest.mark.parametrize("fault", ["truncate", "reset", "html", "empty", "bad_gzip"])
def test_f07_f08_f09_f12_f13_a_broken_page_loses_no_rows(box, waits, read, fault):
    whole = read(streams=["companies"])
    box.faults.add(vendor="hubspot", path="companies", nth=2, do=fault)
    assert read(streams=["companies"]) == whole


def test_f11_a_page_without_results_is_never_taken_for_the_end(box, waits, read):
    error = {"status": "error", "message": "internal error"}
    box.faults.add(vendor="hubspot", path="deals", nth=2, do="error_json", body=error, times=None)
    positions = {}
    with pytest.raises(
        SourceCorrupt, match="hubspot deals, page 2: sent a page in which 'results'"
    ):
        read(positions, streams=["deals"])
    assert positions == {}


def test_f19_a_cursor_that_comes_again_is_noticed(box, read):
    box.small_pages = 5
    box.faults.add(
        vendor="hubspot", path="deals", nth=2, do="repeat_cursor", field="paging.next.after",
        times=None,
    )  # fmt: skip
    with pytest.raises(SourceCorrupt, match="circle"):
        read(streams=["deals"])


def test_f32_a_wrong_token_is_refused(box, read):
    with pytest.raises(SourceRefused) as refused:
        read(secrets_env={"HUBSPOT_TOKEN": "canary"})
    assert refused.value.vendor == "hubspot"
    assert refused.value.stream == "companies"
    assert "canary" not in str(refused.value)


def test_a_missing_scope_is_refused_for_its_stream_only(box, read):
    narrow = {"HUBSPOT_TOKEN": "sandbox-hubspot-token/crm.objects.companies.read"}
    assert read(secrets_env=narrow, streams=["companies"])["companies"]
    with pytest.raises(SourceRefused, match="403"):
        read(secrets_env=narrow, streams=["feedback_submissions"])


def test_a_record_that_vanishes_between_search_and_batch_is_left_out(box, read):
    positions = {}
    first = read(positions, streams=["deals"])["deals"]
    one, two = first[0]["id"], first[1]["id"]
    at = box.now + dt.timedelta(minutes=30)
    put(box, "deals", one, at, amount="1")
    put(box, "deals", two, at, amount="2")
    box.move(at + HOUR)
    box.tables()["hubspot", "deals"].remove(two, box.now.timestamp() - 30)  # not in the index yet
    assert [row["id"] for row in read(positions, streams=["deals"])["deals"]] == [one]


def filters(count, **other):
    one = {"propertyName": "amount", "operator": "GT", "value": "1", **other}
    return {"filters": [one] * count}


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 201},
        {"limit": 0},
        {"limit": 100, "after": "9950"},
        {"after": None},
        {"filterGroups": [filters(1)] * 6},
        {"filterGroups": [filters(11)]},
        {"filterGroups": [filters(9)] * 3},
        {"filterGroups": [filters(1, propertyName="no_such")]},
        {"filterGroups": [filters(1, operator="ABOVE")]},
        {"filterGroups": [filters(1, value=1)]},
        {"sorts": [{"propertyName": "no_such"}]},
        {"sorts": ["amount", "closedate"]},
        {"colour": "red"},
    ],
)  # fmt: skip
def test_the_server_rejects_searches_as_hubspot_does(ask, body):
    answer = ask("POST", "/crm/v3/objects/deals/search", json=body)
    assert answer.status_code == 400
    assert answer.json()["category"] == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=100", 200),
        ("limit=101", 400),
        ("limit=51&propertiesWithHistory=amount", 400),
        ("limit=50&propertiesWithHistory=amount", 200),
        ("after=yesterday", 400),
        ("properties=no_such", 200),
    ],
)
def test_the_server_lists_as_hubspot_does(ask, query, status):
    assert ask("GET", f"/crm/v3/objects/deals?{query}").status_code == status


def test_the_server_keeps_the_rest_of_the_vendors_rules(ask):
    batch = "/crm/v3/objects/deals/batch/read"
    assert ask("POST", batch, json={"inputs": [{"id": "1"}] * 101}).status_code == 400
    partly = ask("POST", batch, json={"inputs": [{"id": "30000000001"}, {"id": "1"}]})
    assert partly.status_code == 207
    assert partly.json()["status"] == "COMPLETE"
    assert partly.json()["errors"][0]["context"] == {"ids": ["1"]}
    wrong = ask("GET", "/crm/v3/objects/deals", token="wrong")
    assert (wrong.status_code, wrong.json()["category"]) == (401, "INVALID_AUTHENTICATION")
    assert ask("GET", "/crm/v3/objects/unicorns").status_code == 400
    last = ask("GET", "/crm/v3/owners/?limit=500")
    assert "paging" not in last.json()
    assert last.headers["X-HubSpot-RateLimit-Daily"] == "650000"
    unknown = ask("GET", "/crm/v3/objects/deals/1")
    assert unknown.status_code == 404
    assert "html" in unknown.headers["content-type"]
    everything = ask("POST", "/crm/v3/objects/deals/search", json={}).json()["results"]
    values = [value for record in everything for value in record["properties"].values()]
    assert all(value is None or isinstance(value, str) for value in values)


def test_the_old_id_of_a_merged_company_leads_to_the_new_one(ask, read):
    rows = read(streams=["companies"])["companies"]
    merged = next(row for row in rows if row["properties"]["hs_merged_object_ids"])
    for former in merged["properties"]["hs_merged_object_ids"].split(";"):
        assert ask("GET", f"/crm/v3/objects/companies/{former}").json()["id"] == merged["id"]


def test_the_official_client_reads_the_same_records(box, read):
    rows = read()
    official = OfficialClient(access_token=box.token("hubspot"), host=box.address("hubspot"))
    names = ["account_number", "annual_contract_value", "next_renewal"]
    companies = official.crm.companies.get_all(properties=names)
    living = [row for row in rows["companies"] if not row["archived"]]
    assert {c.id: [c.properties[name] for name in names] for c in companies} == {
        row["id"]: [row["properties"][name] for name in names] for row in living
    }
    page = official.crm.deals.basic_api.get_page(
        limit=50, properties_with_history=["amount"], associations=["companies"]
    )
    for deal in page.results:
        ours = by_id(rows["deals"])[deal.id]
        told = [entry.value for entry in deal.properties_with_history["amount"]]
        assert told == [entry["value"] for entry in ours["history"]["amount"]]
        assert deal.associations["companies"].results[0].id == ours["companies"][0]
        assert deal.created_at.isoformat() == ours["createdAt"].replace(".000Z", "+00:00")
    search = official.crm.contacts.search_api.do_search(
        {"limit": 5, "sorts": ["-lastmodifieddate"], "properties": ["hs_buying_role"]}
    )
    assert search.total == len(rows["contacts"])
    found = official.crm.owners.owners_api.get_page(limit=100)
    assert {owner.id for owner in found.results} == {row["id"] for row in rows["owners"]}
    linked = official.crm.associations.v4.batch_api.get_page(
        "contacts", "companies", {"inputs": [{"id": row["id"]} for row in rows["contacts"][:20]]}
    )
    assert {one._from.id: one.to[0].to_object_id for one in linked.results} == {
        row["id"]: row["companies"][0] for row in rows["contacts"][:20] if row["companies"]
    }
