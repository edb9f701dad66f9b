"""What people type into the CRM for others, handoffs and overrides, is the same from either CRM."""

import csv
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from conftest import NOW
from mapped import packaged
from minimal import read_all
from salesforce_org import change, settings, some, versions

from connectors.api import ApiConfig
from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.vendors import vendor
from connectors.vendors.salesforce.connector import _Scan
from connectors.vendors.salesforce.entities import ENTITIES
from contracts.crm_fields import FIELDS, HANDOFF_FACTS, read_on
from contracts.tables import METRIC_TABLES, TABLES

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = dt.timedelta(hours=1)
FACTS = tuple(field.name.removeprefix("handoff_") for field in HANDOFF_FACTS)
PEOPLE = ("champion", "decision_maker")
NOTED = tuple(fact for fact in FACTS if fact not in PEOPLE)
OVERRIDE = ("score", "value", "reason", "author", "expires_on", "deleted")


@dataclass
class Crm:
    """One CRM of the world: its rows by stream, what has been read so far, and its settings."""

    name: str
    box: Box
    rows: dict[str, list[dict]]
    positions: dict
    given: dict

    def read_on(self) -> None:
        """Read what changed since."""
        more = read_all(self.name, self.given, self.box, positions=self.positions)
        for stream, rows in more.items():
            self.rows[stream] = self.rows[stream] + rows

    def canonical(self, table: str, **more) -> list[dict]:
        given = {"instance_url": "https://acme.my.salesforce.com"} if self.name == SF else {}
        config: ApiConfig = vendor(self.name).config.model_validate(
            {"type": self.name, **given, **self.given, **more}
        )
        return packaged(config, table, self.rows, latest=True)

    @property
    def numbers(self) -> dict[str, str]:
        return {row["account_key"]: row["account_id"] for row in self.canonical("account_keys")}

    def handoffs(self) -> dict[tuple, dict]:
        """The newest version of each deal by account number and the second it was created."""
        chains = versions(self.canonical("handoffs"), "opportunity_id").values()
        numbers = self.numbers
        return {
            (numbers[chain[-1]["account_key"]], chain[-1]["created_at"]): chain[-1]
            for chain in chains
        }

    def overrides(self) -> dict[str, list[dict]]:
        """The versions of each override by account number."""
        numbers, found = self.numbers, versions(self.canonical("overrides"), "override_id")
        return {numbers[chain[-1]["account_key"]]: chain for chain in found.values()}


SF, HS = "salesforce", "hubspot"


def opened(box: Box, name: str) -> Crm:
    given = settings(box) if name == SF else {"token": {"env": "HUBSPOT_TOKEN"}}
    positions: dict = {}
    return Crm(name, box, read_all(name, given, box, positions=positions), positions, given)


@pytest.fixture(scope="module")
def crms(world):
    """A first reading of both CRMs."""
    with sandbox(world, NOW, vendors=[SF, HS]) as box:
        yield {name: opened(box, name) for name in (SF, HS)}
        assert box.defects == []


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=[SF, HS]) as box:
        yield box
    assert box.defects == []


@pytest.fixture(scope="module")
def files(world):
    def rows(name):
        with (world / "crm" / name).open(encoding="utf-8", newline="") as stream:
            return [
                {k: v or None for k, v in row.items()}
                for row in csv.DictReader(stream, delimiter=";")
            ]

    return rows


def utc(wall_clock):
    moment = dt.datetime.fromisoformat(wall_clock).replace(tzinfo=BERLIN)
    return moment.astimezone(dt.UTC).replace(tzinfo=None)


def unmerged(files) -> set[str]:
    """The accounts that no merge and no deletion touched: there the CRMs differ by their nature."""
    rows = files("account_changes.csv")
    touched = {row["Merged_Into"] for row in rows}
    touched |= {r["Account_No"] for r in rows if r["Merged_Into"] or r["Deleted"] == "yes"}
    return {row["Account_No"] for row in rows} - touched


def picked(row: dict, names: Iterable[str]) -> tuple:
    return tuple(row[name] for name in names)


def said_by(form: dict) -> tuple:
    """What a row of the world's file says, people aside."""
    met, mood, kickoff = form["Stakeholders_Met"], form["Sentiment"], form["Kickoff_On"]
    return (
        form["Promised_Outcome"], form["Success_Criteria"], met and int(met), mood and float(mood),
        kickoff and dt.date.fromisoformat(kickoff),
    )  # fmt: skip


# The same from either


def test_b19_both_crms_hand_over_the_same_facts_of_the_same_deals(crms, files):
    known = unmerged(files)
    sf, hs = (
        {key: row for key, row in crms[name].handoffs().items() if key[0] in known}
        for name in (SF, HS)
    )
    assert sf.keys() == hs.keys()
    names = ("kind", *NOTED, "created_at", "deleted")
    assert {key: picked(row, names) for key, row in sf.items()} == {
        key: picked(row, names) for key, row in hs.items()
    }
    for key, row in sf.items():
        # HubSpot knows the contact under another id, and an end no sooner than a deal's beginning.
        assert [row[p] is None for p in PEOPLE] == [hs[key][p] is None for p in PEOPLE]
        assert (row["won_at"] is None) == (hs[key]["won_at"] is None)
        assert not row["won_at"] or abs(row["won_at"] - hs[key]["won_at"]) <= HOUR / 3600


def test_b19_the_facts_are_those_of_the_worlds_file_and_people_are_contacts(crms, files):
    last = {row["Opportunity_No"]: row for row in files("handoffs.csv")}
    deals = {row["Opportunity_No"]: row for row in files("opportunities.csv")}
    known = unmerged(files)
    for crm in crms.values():
        found = crm.handoffs()
        contacts = {row["contact_id"] for row in crm.canonical("contacts")}
        for number, form in last.items():
            deal = deals[number]
            if deal["Account_No"] in known:
                row = found[deal["Account_No"], utc(deal["Created_At"])]
                assert picked(row, NOTED) == said_by(form)
                assert {row[p] for p in PEOPLE if row[p]} <= contacts
        assert {row["kind"] for row in found.values()} == {"new", "expansion", "renewal"}


def test_only_deals_since_somebody_keeps_handoffs_are_told_empty_ones_too(crms, files):
    noted = {row["Opportunity_No"] for row in files("handoffs.csv")}
    deals = {row["Opportunity_No"]: row for row in files("opportunities.csv")}
    since = min(utc(deals[number]["Created_At"]) for number in noted)
    for crm in crms.values():
        found = crm.handoffs().values()
        assert min(row["created_at"] for row in found) == since
        assert any(picked(row, FACTS) == (None,) * len(FACTS) for row in found if row["won_at"])
        assert len(found) < len(crm.rows["opportunities" if crm.name == SF else "deals"])


def test_b19_both_crms_tell_the_same_overrides_with_reason_and_expiry(crms, files):
    sf, hs = (crms[name].overrides() for name in (SF, HS))
    last = {number: picked(chain[-1], (*OVERRIDE, "given_at")) for number, chain in sf.items()}
    # Of one that was taken back before the first reading, Salesforce keeps no trace.
    gone = {number for number, chain in hs.items() if chain[-1]["deleted"]}
    assert last == {
        number: picked(chain[-1], (*OVERRIDE, "given_at"))
        for number, chain in hs.items()
        if number not in gone
    }
    rows = files("overrides.csv")
    assert gone == {row["Account_No"] for row in rows if row["Score"] is None} != set()
    assert any(row["reason"] is None for (row, *_) in sf.values())
    told = [
        (number, row["value"], row["reason"], row["author"], row["given_at"], row["expires_on"])
        for number, chain in hs.items()
        for row in chain
        if not row["deleted"]
    ]
    assert sorted(told, key=str) == sorted(
        [
            (row["Account_No"], float(row["Score"]), row["Reason"], row["Author"],
             utc(row["Set_At"]), dt.date.fromisoformat(row["Until"]))
            for row in rows
            if row["Score"] is not None
        ],
        key=str,
    )  # fmt: skip


# Over time


def deal_of(crm: Crm) -> dict:
    """A won deal without success criteria."""
    return next(
        row
        for row in crm.handoffs().values()
        if row["won_at"] and row["champion"] and not row["success_criteria"]
    )


def hubspot_change(box: Box, type: str, id: str, **properties) -> None:
    """Move the clock, and change a record of HubSpot then."""
    box.move(box.now + HOUR)
    table = box.tables()[HS, type]
    body = table.get(id, box.now.timestamp()).body
    body = {**body, "properties": body["properties"] | properties}
    table.put(id, body, box.now.timestamp())


def note(crm: Crm, type: str, id: str, **values) -> None:
    """Type values into fields of ours an hour later, as people do."""
    if crm.name == SF:
        named = {FIELDS[name].salesforce: value for name, value in values.items()}
        change(crm.box, {"deals": "Opportunity", "companies": "Account"}[type], id, **named)
    else:
        texts = {FIELDS[n].hubspot: None if v is None else str(v) for n, v in values.items()}
        hubspot_change(crm.box, type, id, **texts)


@pytest.mark.parametrize("name", [SF, HS])
def test_b19_a_fact_that_is_noted_later_is_known_later(box, name):
    crm = opened(box, name)
    deal = deal_of(crm)
    id = deal["opportunity_id"]
    before = versions(crm.canonical("handoffs"), "opportunity_id")[id]
    note(crm, "deals", id, handoff_success_criteria="Two sites use it daily")
    noted = box.now.replace(tzinfo=None)
    box.move(box.now + HOUR)
    crm.read_on()
    after = versions(crm.canonical("handoffs"), "opportunity_id")[id]
    assert after[-1] == before[-1] | {
        "success_criteria": "Two sites use it daily", "known_at": noted,
    }  # fmt: skip
    if name == HS:  # which tells the versions before it as well; of Salesforce they were stored
        assert after[:-1] == before


@pytest.mark.parametrize("name", [SF, HS])
def test_a_sentiment_that_is_none_takes_the_other_facts_not_along(box, name):
    crm = opened(box, name)
    id = deal_of(crm)["opportunity_id"]
    note(crm, "deals", id, handoff_success_criteria="- daily use\n- two sites",
         handoff_sentiment=9)  # fmt: skip
    box.move(box.now + HOUR)
    crm.read_on()
    last = versions(crm.canonical("handoffs"), "opportunity_id")[id][-1]
    assert picked(last, ("success_criteria", "sentiment")) == ("- daily use\n- two sites", None)


@pytest.mark.parametrize("name", [SF, HS])
def test_an_override_is_set_changed_and_taken_back(box, name):
    crm = opened(box, name)
    free = next(
        row["crm_id"]
        for row in crm.canonical("accounts")
        if row["is_customer"] and not row["deleted"] and row["account_id"] not in crm.overrides()
    )
    told = []
    for score, reason in ((80, "They asked for a quote elsewhere"), (60, None), (None, None)):
        until = None if score is None else "2026-09-30"
        note(crm, "companies", free, override_score=score, override_reason=reason,
             override_until=until)  # fmt: skip
        moment = box.now.replace(tzinfo=None)
        told.append((float(score or 60), reason, score is None, moment, moment))
        box.move(box.now + HOUR)
        crm.read_on()
    chain = versions(crm.canonical("overrides"), "override_id")[free]
    names = ("value", "reason", "deleted", "given_at", "known_at")
    assert [picked(row, names) for row in chain] == told
    assert {row["expires_on"] for row in chain} == {dt.date(2026, 9, 30), None}


@pytest.mark.parametrize("name", [SF, HS])
def test_what_is_written_beside_an_override_does_not_date_it_anew(box, name):
    crm = opened(box, name)
    number, chain = next((n, c) for n, c in crm.overrides().items() if not c[-1]["deleted"])
    id = chain[-1]["override_id"]
    if name == SF:
        change(box, "Account", id, Website="https://www.elsewhere.example")
    else:
        hubspot_change(box, "companies", id, website="https://www.elsewhere.example")
    box.move(box.now + HOUR)
    crm.read_on()
    assert crm.overrides()[number] == chain


def test_an_override_ends_with_its_account(box):
    crms = {name: opened(box, name) for name in (SF, HS)}
    number = next(n for n, chain in crms[SF].overrides().items() if n in crms[HS].overrides())
    sf_id = crms[SF].overrides()[number][-1]["override_id"]
    hs_id = crms[HS].overrides()[number][-1]["override_id"]
    value = crms[SF].overrides()[number][-1]["value"]
    change(box, "Account", sf_id, IsDeleted=True)
    box.tables()[HS, "companies"].remove(hs_id, box.now.timestamp())
    gone = box.now.replace(tzinfo=None)
    box.move(box.now + dt.timedelta(hours=25))
    for crm in crms.values():
        crm.read_on()
        last = crm.overrides()[number][-1]
        assert (last["deleted"], last["value"], last["known_at"]) == (True, value, gone)


# What does not get in


@pytest.mark.parametrize("name", [SF, HS])
def test_f93_a_name_where_a_contacts_id_belongs_is_never_stored(box, name):
    crm = opened(box, name)
    id = deal_of(crm)["opportunity_id"]
    note(crm, "deals", id, handoff_champion="Kim Canary",
         handoff_decision_maker="kim@canary.example")  # fmt: skip
    box.move(box.now + HOUR)
    crm.read_on()
    assert "anary" not in str(crm.rows)
    row = versions(crm.canonical("handoffs"), "opportunity_id")[id][-1]
    assert picked(row, PEOPLE) == (None, None)


def test_f93_nor_when_it_comes_in_bulk():
    entity = ENTITIES["opportunities"]
    fields = {"id": "Id", "modified_at": "SystemModstamp", "champion": "HL_Handoff_Champion__c"}
    scan = _Scan(entity, fields, "Opportunity", None, {}, first_at="2026-06-30T20:00:00.000Z")
    page = pa.table({
        "Id": ["1", "2", "3"],
        "SystemModstamp": ["2026-06-30T19:00:00.000Z"] * 3,
        "HL_Handoff_Champion__c": ["Kim Canary", "0035g0000000001AAA", None],
    })  # fmt: skip
    assert scan.table(page)["champion"].to_pylist() == [None, "0035g0000000001AAA", None]


def test_an_org_without_these_fields_reads_on_and_hands_nothing_over(box, monkeypatch):
    for object, name in (("account", "Account"), ("opportunity", "Opportunity")):
        ours = {field.salesforce for field in read_on(object)}
        fields = {key: field for key, field in SCHEMA[name].items() if key not in ours}
        monkeypatch.setitem(SCHEMA, name, fields)
    crm = opened(box, SF)
    assert crm.canonical("accounts")
    assert crm.canonical("opportunities")
    assert crm.canonical("handoffs") == crm.canonical("overrides") == []


def test_fields_with_other_names_are_settings(box):
    named = {"promised_outcome": "healthloop_handoff_success_criteria", "champion": ""}
    crm = opened(box, HS)
    crm.given["fields"] = {"deal": named}
    swapped = [row for row in crm.canonical("handoffs") if row["promised_outcome"]]
    assert swapped
    assert all(row["promised_outcome"] == row["success_criteria"] for row in swapped)
    assert all(row["champion"] is None for row in swapped)
    deal = some(box, "Opportunity", StageName="Closed won")
    change(box, "Opportunity", deal.id, Name="They want to cut costs")
    given = settings(box) | {"fields": {"opportunity": {"promised_outcome": "Name"}}}
    rows = read_all(SF, given, box)["opportunities"]
    assert "They want to cut costs" in {row["promised_outcome"] for row in rows}


def test_an_override_is_no_metrics_input_and_both_keep_to_their_scales():
    value = TABLES["overrides"].by_name["value"]
    mood = TABLES["handoffs"].by_name["sentiment"]
    assert (value.minimum, value.maximum, mood.minimum, mood.maximum) == (0, 100, 1, 5)
    assert "overrides" not in METRIC_TABLES
    assert "handoffs" in METRIC_TABLES
