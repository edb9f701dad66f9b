"""Salesforce: what the packaged mappings make of the sandbox's org, against the world's files."""

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import duckdb
import pytest
import yaml
from conftest import NOW
from salesforce_org import HOUR, canonical, change, read, settings, some, versions

from connectors.pull import pull
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.signals import build
from connectors.sources import read_sources
from connectors.vendors import packaged_mappings
from contracts.company import read_company

BERLIN = ZoneInfo("Europe/Berlin")
COMPANY = """
name: Lakeview
tenant: lakeview
time_zone: Europe/Berlin
currency: EUR
history_start: 2024-10-01
"""
ACCOUNTS = "SELECT account_id, known_at, arr, is_customer, owner FROM signals.accounts"
KINDS = {"New business": "new", "Expansion": "expansion"}


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


@pytest.fixture(scope="module")
def first(world):
    """A first reading of everything, and the world it came from."""
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield read(box), box


def utc(text):
    """Berlin's wall clock as naive UTC; a day begins at midnight there."""
    if text is None:
        return None
    local = dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN)
    return local.astimezone(dt.UTC).replace(tzinfo=None)


def date(text):
    return text and dt.date.fromisoformat(text)


def money(text):
    return text and Decimal(text).quantize(Decimal("0.01"))


def named(box, object, field):
    """The world's number of each record."""
    rows = records(box, object).rows(box.now.timestamp(), deleted=True)
    return {row.id: row.body[field] for row in rows}


def numbers(rows):
    return {row["account_key"]: row["account_id"] for row in canonical("account_keys", rows)}


def gone(box):
    """Accounts that were merged or deleted, whose children went elsewhere or along."""
    rows = box.world.rows("crm/account_changes.csv")
    return {r["Account_No"] for r in rows if r["Merged_Into"] or r["Deleted"] == "yes"}


def test_accounts_have_every_version_that_the_world_had(first):
    rows, box = first
    facts = {row["Account_No"]: row for row in box.world.rows("crm/accounts.csv")}
    expected = set()
    for row in box.world.rows("crm/account_changes.csv"):
        fact = facts[row["Account_No"]]
        expected.add((
            row["Account_No"], fact["Account_Name"], fact["Website"].removeprefix("https://www."),
            fact["Parent_Account"], row["Success_Manager"], row["Sales_Rep"],
            money(row["Annual_Value"]), row["Currency"], int(fact["Headcount"]), fact["Industry"],
            fact["Region"], row["Edition"], date(fact["Customer_Since"] or fact["Created"]),
            date(row["Next_Renewal"]), row["Objective"], row["Status"] == "Customer",
            row["Merged_Into"], row["Deleted"] == "yes", utc(row["Changed_At"]),
        ))  # fmt: skip
    chains = versions(canonical("accounts", rows), "account_id").values()
    found = [row for chain in chains for row in chain]
    columns = (
        "account_id", "name", "domain", "parent_id", "owner", "sales_owner", "arr", "currency",
        "employees", "industry", "region", "plan", "started_on", "renews_on", "desired_outcome",
        "is_customer", "merged_into", "deleted", "known_at",
    )  # fmt: skip
    assert {tuple(row[name] for name in columns) for row in found} == expected
    ids = {(row["account_id"], row["crm_id"][:15], row["crm"]) for row in found}
    assert ids == {(n, fact["Record_Id"], "salesforce") for n, fact in facts.items()}


def test_contacts_join_and_leave_as_the_world_says_and_when_it_was_noticed(first):
    rows, box = first
    names, accounts, left_out = named(box, "Contact", "Contact_No__c"), numbers(rows), gone(box)
    expected = {}
    for row in sorted(box.world.rows("crm/contacts.csv"), key=lambda row: row["Modified_At"]):
        if row["Account_No"] not in left_out:
            expected.setdefault(row["Contact_No"], []).append((
                row["Account_No"], row["Role"], utc(row["Since"]), utc(row["Left_On"]), False,
                utc(row["Modified_At"]),
            ))  # fmt: skip
    columns = ("role", "joined_at", "left_at", "deleted", "known_at")
    found = {
        names[id]: [
            (accounts.get(row["account_key"]), *(row[name] for name in columns)) for row in chain
        ]
        for id, chain in versions(canonical("contacts", rows), "contact_id").items()
    }
    assert {name: found[name] for name in expected} == expected
    assert all(chain[-1][0] not in left_out or chain[-1][4] for chain in found.values())


def test_opportunities_have_their_stages_over_time(first):
    rows, box = first
    names, accounts, left_out = (
        named(box, "Opportunity", "Opportunity_No__c"),
        numbers(rows),
        gone(box),
    )
    found = versions(canonical("opportunities", rows), "opportunity_id")
    found = {names[id]: chain for id, chain in found.items()}
    for row in box.world.rows("crm/opportunities.csv"):
        if row["Account_No"] in left_out:
            continue
        chain = found[row["Opportunity_No"]]
        won = {"Closed won": True, "Closed lost": False}.get(row["Stage"])
        last = chain[-1]
        assert accounts[last["account_key"]] == row["Account_No"]
        assert last["kind"] == KINDS.get(row["Type"], "renewal")
        assert (last["stage"], last["won"]) == (row["Stage"], won)
        assert (last["amount"], last["currency"]) == (money(row["Amount"]), row["Currency"])
        assert last["closes_on"] == date(row["Expected_Close"])
        assert last["created_at"] == chain[0]["known_at"] == utc(row["Created_At"])
        if row["Closed_At"]:
            closed = max(utc(row["Closed_At"]), utc(row["Created_At"]) + dt.timedelta(seconds=1))
            assert last["closed_at"] == last["known_at"] == closed
            assert [version["stage"] for version in chain] == ["Proposal", row["Stage"]]


def test_without_a_history_the_stage_before_the_end_is_not_known(first):
    rows, _ = first
    found = versions(
        canonical("opportunities", {**rows, "opportunity_history": []}), "opportunity_id"
    )
    closed = [chain for chain in found.values() if chain[-1]["won"] is not None]
    assert closed
    assert all(chain[0]["stage"] is None for chain in closed)


def test_outcomes_are_what_was_booked_with_its_change_of_revenue(first):
    rows, box = first
    accounts, left_out = numbers(rows), gone(box)
    expected = set()
    for row in box.world.rows("crm/opportunities.csv"):
        if (
            not row["Effective_On"]
            or row["Type"] == "New business"
            or row["Account_No"] in left_out
        ):
            continue
        after, before = float(row["Amount"]), float(row["Previous_Amount"])
        if row["Stage"] == "Closed lost":
            kind, delta = "churned", -before
        elif row["Type"] == "Expansion":
            kind, delta = "expanded", after
        else:
            delta = after - before
            kind = "expanded" if delta > 0 else "contracted" if delta < 0 else "renewed"
        at = utc(row["Effective_On"])
        expected.add((row["Account_No"], kind, at, row["Currency"], round(delta / 12, 1)))
    found = {
        (accounts[r["account_key"]], r["kind"], r["at"], r["currency"], round(r["mrr_delta"], 1))
        for r in canonical("outcomes", rows)
        if accounts[r["account_key"]] not in left_out
    }
    heirs = {row["Merged_Into"] for row in box.world.rows("crm/account_changes.csv")}
    assert {row for row in found if row[0] not in heirs} == {
        row for row in expected if row[0] not in heirs
    }
    assert expected <= found


def test_goals_have_every_measurement_though_only_the_last_stands_in_the_record(first):
    rows, box = first
    names, accounts, left_out = named(box, "Goal__c", "Goal_No__c"), numbers(rows), gone(box)
    expected = {
        (row["Goal_No"], row["Account_No"], row["Goal"], 100.0, float(row["Reached_Percent"]),
         date(row["Due"]), utc(row["Measured_At"]))
        for row in box.world.rows("crm/goals.csv")
        if row["Measured_At"] != "Q3" and row["Account_No"] not in left_out
    }  # fmt: skip
    columns = ("name", "target", "progress", "due_on", "measured_at")
    found = canonical("goals", rows)
    told = {
        (names[row["goal_id"]], accounts[row["account_key"]], *(row[name] for name in columns))
        for row in found
    }
    assert expected <= told
    elsewhere = {row["Goal_No"] for row in box.world.rows("crm/goals.csv")} - {
        goal for goal, *_ in expected
    }
    assert {goal for goal, *_ in told - expected} <= elsewhere


def test_milestones_and_sentiments_are_the_worlds(first):
    rows, box = first
    accounts, left_out = numbers(rows), gone(box)
    names = named(box, "Milestone__c", "Milestone_No__c")
    for id, chain in versions(canonical("milestones", rows), "milestone_id").items():
        row = next(
            r for r in box.world.rows("crm/milestones.csv") if r["Milestone_No"] == names[id]
        )
        if row["Account_No"] in left_out:
            continue
        (version,) = chain
        assert accounts[version["account_key"]] == row["Account_No"]
        assert (version["name"], version["due_on"]) == (row["Milestone"], date(row["Due"]))
        assert version["planned_at"] == version["known_at"] == utc(row["Planned_At"])
        assert version["reached_on"] == date(row["Reached"])
    names = named(box, "CSM_Note__c", "Name")
    notes = {row["Note_No"]: row for row in box.world.rows("crm/csm_notes.csv")}
    found = versions(canonical("sentiments", rows), "sentiment_id")
    assert len(found) == len(notes)
    for id, chain in found.items():
        row, version = notes[names[id]], chain[-1]
        assert (version["score"], version["author"]) == (float(row["Rating"]), row["Author"])
        assert (version["given_at"], version["expires_on"]) == (
            utc(row["Written_At"]), date(row["Valid_Until"]),
        )  # fmt: skip


def test_departures_and_rivals_are_commercial_events(first):
    rows, box = first
    left_out = gone(box)
    people, notes = named(box, "Contact", "Contact_No__c"), named(box, "CSM_Note__c", "Name")
    expected = {
        ("left", row["Contact_No"], utc(row["Left_On"]), utc(row["Modified_At"]))
        for row in box.world.rows("crm/contacts.csv")
        if row["Left_On"] and row["Account_No"] not in left_out
    } | {
        ("rival", row["Note_No"], utc(row["Written_At"]), utc(row["Written_At"]))
        for row in box.world.rows("crm/csm_notes.csv")
        if row["Competitor_Mentioned"] == "yes" and row["Account_No"] not in left_out
    }
    found = set()
    for row in canonical("commercial_events", rows):
        kind, _, id = row["event_id"].partition("-")
        name = (people if kind == "left" else notes)[id]
        found.add((kind, name, row["occurred_at"], row["known_at"]))
    assert expected <= found
    others = {(kind, name) for kind, name, *_ in found} - {row[:2] for row in expected}
    gone_people = {
        r["Contact_No"] for r in box.world.rows("crm/contacts.csv") if r["Account_No"] in left_out
    }
    gone_notes = {
        r["Note_No"] for r in box.world.rows("crm/csm_notes.csv") if r["Account_No"] in left_out
    }
    assert {name for _, name in others} <= gone_people | gone_notes


def test_a_pulled_and_built_company_keeps_what_it_knew(box, tmp_path):
    (tmp_path / "sources").mkdir()
    (tmp_path / "company.yaml").write_text(COMPANY)
    (tmp_path / ".env").write_text(f"SALESFORCE_TOKEN={box.token('salesforce')}\n")
    source = {"type": "salesforce", "address": box.address("salesforce"), **settings(box)}
    (tmp_path / "sources" / "salesforce.yaml").write_text(yaml.safe_dump(source))
    company = read_company(tmp_path)
    sources = read_sources(company)
    with duckdb.connect(tmp_path / "warehouse.duckdb") as warehouse:
        warehouse.execute("SET TimeZone = 'UTC'")
        first = pull(sources[0], company, now=box.now)
        report = build(warehouse, company, sources, now=box.now)
        assert {table.table for table in report.tables} == set(packaged_mappings("salesforce"))
        before = warehouse.sql(ACCOUNTS).fetchall()
        assert len(before) == len(box.world.rows("crm/account_changes.csv"))
        box.move(box.now + HOUR)
        again = pull(sources[0], company, now=box.now)
        assert (first.failures, again.failures, again.rows) == ({}, {}, 0)
        account = some(box, "Account", IsDeleted=None)
        change(box, "Account", account.id, ARR__c=99.0)
        pull(sources[0], company, now=box.now)
        build(warehouse, company, sources, now=box.now)
        (new,) = set(warehouse.sql(ACCOUNTS).fetchall()) - set(before)
        assert new[0] == account.body["AccountNumber"]
        assert warehouse.sql("SELECT DISTINCT reason FROM signals.quarantine").fetchall() == [
            ("account_key: missing",)
        ]
        unlinked = "SELECT count(*) FROM signals.contacts WHERE account_id IS NULL"
        assert warehouse.sql(unlinked).fetchone() == (0,)


# Point in time


def chain_of(rows, account_id):
    return versions(canonical("accounts", rows), "account_id")[account_id]


def test_what_changed_between_two_readings_is_dated_by_the_history(box):
    positions = {}
    rows = read(box, positions)
    account = some(box, "Account", IsDeleted=None)
    number = account.body["AccountNumber"]
    before = chain_of(rows, number)
    change(box, "Account", account.id, ARR__c=111.0)
    change(box, "Account", account.id, ARR__c=222.0, Edition__c="Gold")
    box.move(box.now + HOUR)
    for name, more in read(box, positions).items():
        rows[name] = rows[name] + more
    after = chain_of(rows, number)
    assert after[: len(before)] == before
    assert [(v["arr"], v["plan"], v["known_at"]) for v in after[len(before) :]] == [
        (Decimal("111.00"), before[-1]["plan"], dt.datetime(2026, 6, 30, 21)),
        (Decimal("222.00"), "Gold", dt.datetime(2026, 6, 30, 22)),
    ]


def test_a_former_parent_is_found_by_its_id_not_by_its_name(box):
    heads = records(box, "Account").rows(box.now.timestamp())[:6]
    former, *others = [row for row in heads if not row.body.get("IsDeleted")]
    for row in others:
        change(box, "Account", row.id, ParentId=former.id)
        change(box, "Account", row.id, ParentId=None)
    rows = read(box)
    for row in others:
        chain = chain_of(rows, row.body["AccountNumber"])
        assert chain[-2]["parent_id"] == former.body["AccountNumber"]
        assert chain[-1]["parent_id"] is None


def test_fields_without_history_change_when_they_are_seen_and_the_past_stays(box):
    positions = {}
    rows = read(box, positions)
    account = some(box, "Account", IsDeleted=None)
    before = chain_of(rows, account.body["AccountNumber"])
    change(box, "Account", account.id, NumberOfEmployees=4321)
    for name, more in read(box, positions).items():
        rows[name] = rows[name] + more
    *past, last = chain_of(rows, account.body["AccountNumber"])
    assert past == before
    assert (last["employees"], last["known_at"]) == (4321, dt.datetime(2026, 6, 30, 21))


def test_without_a_history_an_account_is_known_as_it_is_now(first):
    rows, box = first
    found = canonical("accounts", {**rows, "account_history": []})
    assert {row["account_id"] for row in found} == {
        row["Account_No"] for row in box.world.rows("crm/accounts.csv")
    }


def test_an_org_without_any_custom_field_still_gives_its_accounts(box, monkeypatch):
    for name in ("CSM_Note__c", "Goal__c", "Goal__History", "Milestone__c"):
        monkeypatch.delitem(SCHEMA, name)
    for name, known in list(SCHEMA.items()):
        plain = {key: field for key, field in known.items() if not key.endswith("__c")}
        plain.pop("CurrencyIsoCode", None)
        monkeypatch.setitem(SCHEMA, name, plain)
    rows = read(box, currency="USD")
    accounts = canonical("accounts", rows, currency="USD")
    assert {row["account_id"] for row in accounts} == {
        row["Account_No"] for row in box.world.rows("crm/accounts.csv")
    }
    assert {row["currency"] for row in accounts} == {"USD"}
    assert all(row["started_on"] is not None for row in accounts)
    assert canonical("goals", rows) == canonical("sentiments", rows) == []
    assert canonical("opportunities", rows, currency="USD")


def test_picklist_values_of_the_org_are_settings(first):
    rows, box = first
    found = canonical("accounts", rows, customer_types=["Prospect"])
    prospects = {row["account_id"] for row in found if row["is_customer"]}
    assert prospects == {
        row["Account_No"]
        for row in box.world.rows("crm/account_changes.csv")
        if row["Status"] == "Prospect"
    }
    kinds = {"renewal": ["Expansion"], "expansion": []}
    found = canonical("opportunities", rows, opportunity_kinds=kinds)
    assert {row["kind"] for row in found} == {"new", "renewal", None}
