"""What the packaged mappings make of the portal, against what the world's files say."""

import datetime as dt
import re
from collections import defaultdict
from zoneinfo import ZoneInfo

import pytest
from mapped import packaged
from minimal import read_all

from connectors.mapping import read_mapping
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.vendors import packaged_mappings, packaged_sql, vendor
from contracts.tables import TABLES

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
BERLIN = ZoneInfo("Europe/Berlin")
STEPS = ("kick_off", "first_data_source", "first_report_shared", "team_trained", "went_live")
SETTINGS = {
    "token": {"env": "HUBSPOT_TOKEN"},
    "milestones": {
        step: {"due": f"onboarding_{step}_due", "reached": f"onboarding_{step}_on"}
        for step in STEPS
    },
}
CONFIG = vendor("hubspot").config.model_validate({"type": "hubspot", **SETTINGS})
HISTORY_KEPT = 20


def canonical(rows, table):
    return packaged(CONFIG, table, rows)


@pytest.fixture(scope="module")
def rows(world):
    with sandbox(world, NOW, vendors=["hubspot"]) as box:
        return read_all("hubspot", SETTINGS, box)


@pytest.fixture(scope="module")
def files(world):
    return WorldFiles(world)


@pytest.fixture(scope="module")
def number_of(rows):
    """The account's number by the key that the other tables use."""
    return {row["account_key"]: row["account_id"] for row in canonical(rows, "account_keys")}


def utc(wall_clock):
    moment = dt.datetime.fromisoformat(wall_clock).replace(tzinfo=BERLIN)
    return moment.astimezone(dt.UTC).replace(tzinfo=None)


def day(text):
    return dt.date.fromisoformat(text) if text else None


def heirs(files):
    merges = files.rows("crm/account_changes.csv")
    return {row["Account_No"]: row["Merged_Into"] for row in merges if row["Merged_Into"]}


def unmerged(files):
    """The accounts that no merge touched."""
    merges = heirs(files)
    touched = {*merges, *merges.values()}
    every = {row["Account_No"] for row in files.rows("crm/accounts.csv")}
    return every - touched


def begins(files):
    found = {}
    for row in files.rows("crm/account_changes.csv"):
        found.setdefault(row["Account_No"], utc(row["Changed_At"]))
    return found


@pytest.mark.parametrize("table", sorted(packaged_mappings("hubspot")))
def test_a_mapping_is_valid_and_gives_columns_of_its_table(rows, table):
    streams = [("hubspot", name) for name in vendor("hubspot").streams_of(CONFIG)]
    file = packaged_mappings("hubspot")[table]
    mapping, problems = read_mapping("hubspot", table, file, packaged_sql(CONFIG, table), streams)
    assert problems == []
    assert mapping is not None
    found = canonical(rows, table)
    assert found
    columns = TABLES[table].by_name
    assert set(found[0]) <= set(columns)
    required = [name for name, column in columns.items() if column.required]
    assert all(row[name] is not None for row in found for name in required)


def test_accounts_have_every_version_that_the_crm_had(rows, files):
    found = defaultdict(list)
    for row in sorted(canonical(rows, "accounts"), key=lambda row: row["known_at"]):
        found[row["account_id"]].append((
            row["known_at"], row["arr"] and float(row["arr"]), row["currency"], row["plan"],
            row["owner"], row["sales_owner"], row["desired_outcome"], row["is_customer"],
            row["renews_on"], row["deleted"], row["merged_into"],
        ))  # fmt: skip
    expected = defaultdict(list)
    for row in files.rows("crm/account_changes.csv"):
        gone = row["Deleted"] == "yes"
        expected[row["Account_No"]].append((
            utc(row["Changed_At"]) + dt.timedelta(seconds=gone),
            row["Annual_Value"] and float(row["Annual_Value"]), row["Currency"], row["Edition"],
            row["Success_Manager"], row["Sales_Rep"], row["Objective"], row["Status"] == "Customer",
            day(row["Next_Renewal"]), gone, None,
        ))  # fmt: skip
    alone = unmerged(files)
    assert any(versions[-1][-2] for versions in expected.values())
    assert {number: found[number] for number in alone} == {n: expected[n] for n in alone}


def test_accounts_have_their_lasting_facts(rows, files):
    found = {row["account_id"]: row for row in canonical(rows, "accounts")}
    for row in files.rows("crm/accounts.csv"):
        account = found[row["Account_No"]]
        if row["Account_No"] in heirs(files):
            continue
        assert account["domain"] == row["Website"].removeprefix("https://www.")
        assert account["name"] == row["Account_Name"]
        assert account["parent_id"] == row["Parent_Account"]
        assert account["employees"] == row["Headcount"]
        if row["Customer_Since"]:
            assert account["started_on"] == day(row["Customer_Since"])


def test_an_account_that_was_merged_before_the_first_reading_is_known_by_its_number(rows, files):
    found = [row for row in canonical(rows, "accounts") if row["merged_into"]]
    assert {row["account_id"]: row["merged_into"] for row in found} == heirs(files)
    at = {
        row["Account_No"]: utc(row["Changed_At"])
        for row in files.rows("crm/account_changes.csv")
        if row["Merged_Into"]
    }
    assert {row["account_id"]: row["known_at"] for row in found} == at


def test_a_merge_after_the_first_reading_ends_one_account_and_goes_on_with_the_other(world, files):
    changes = files.rows("crm/account_changes.csv")
    merge = next(row for row in changes if row["Merged_Into"])
    at = utc(merge["Changed_At"]).replace(tzinfo=dt.UTC)
    positions = {}
    with sandbox(world, at - dt.timedelta(days=1), vendors=["hubspot"]) as box:
        rows = read_all("hubspot", SETTINGS, box, positions=positions)
        box.move(at + dt.timedelta(days=1))
        again = read_all("hubspot", SETTINGS, box, positions=positions)
    latest = {
        stream: list({row["id"]: row for row in [*rows[stream], *again[stream]]}.values())
        for stream in rows
    }
    versions = sorted(canonical(latest, "accounts"), key=lambda row: row["known_at"])
    loser = [row for row in versions if row["account_id"] == merge["Account_No"]]
    heir = [row for row in versions if row["account_id"] == merge["Merged_Into"]]
    assert [row["merged_into"] for row in loser] == [None] * (len(loser) - 1) + [
        merge["Merged_Into"]
    ]
    assert len(loser) > 1
    assert loser[-1]["name"] == loser[0]["name"]
    assert [row["merged_into"] for row in heir] == [None] * len(heir)
    assert heir[0]["known_at"] < at.replace(tzinfo=None) <= heir[-1]["known_at"]
    assert heir[-1]["crm_id"] != heir[0]["crm_id"]
    assert not any(row["deleted"] for row in [*loser, *heir])
    keys = {row["account_key"]: row["account_id"] for row in canonical(latest, "account_keys")}
    assert keys[loser[0]["crm_id"]] == merge["Account_No"]
    assert keys[heir[0]["crm_id"]] == keys[heir[-1]["crm_id"]] == merge["Merged_Into"]


def test_contacts_have_their_role_and_leave_when_somebody_notes_it(rows, files, number_of):
    found = sorted(
        (number_of[row["account_key"]], row["role"], row["joined_at"],
         row["left_at"] or dt.datetime.max, row["known_at"])
        for row in canonical(rows, "contacts")
    )  # fmt: skip
    heir = heirs(files)
    expected = sorted(
        (heir.get(row["Account_No"], row["Account_No"]), row["Role"], utc(row["Since"]),
         utc(row["Left_On"]) if row["Left_On"] else dt.datetime.max, utc(row["Modified_At"]))
        for row in files.rows("crm/contacts.csv")
        if row["Account_No"]
    )  # fmt: skip
    assert found == expected


def test_deals_end_as_they_ended_and_were_open_before(rows, files, number_of):
    versions = defaultdict(list)
    for row in sorted(canonical(rows, "opportunities"), key=lambda row: row["known_at"]):
        versions[row["opportunity_id"]].append(row)
    heir = heirs(files)
    kinds = {"New business": "new", "Expansion": "expansion"}
    deals = {row["Opportunity_No"]: row for row in files.rows("crm/opportunities.csv")}
    expected = sorted(
        (heir.get(row["Account_No"], row["Account_No"]), kinds.get(row["Type"], "renewal"),
         float(row["Amount"]), row["Currency"], utc(row["Created_At"]), bool(row["Closed_At"]),
         {"Closed won": "won", "Closed lost": "lost"}.get(row["Stage"], "open"))
        for row in deals.values()
    )  # fmt: skip
    found = sorted(
        (number_of[last["account_key"]], last["kind"], float(last["amount"]), last["currency"],
         last["created_at"], last["closed_at"] is not None,
         {True: "won", False: "lost", None: "open"}[last["won"]])
        for *_, last in versions.values()
    )  # fmt: skip
    assert found == expected
    for first, *_ in versions.values():
        assert first["known_at"] == first["created_at"]
        assert first["closed_at"] is None or first["closed_at"] <= first["created_at"]
    closed = {
        utc(row["Closed_At"]) for row in files.rows("crm/opportunities.csv") if row["Closed_At"]
    }
    assert {v[-1]["closed_at"] for v in versions.values()} - {None} == closed


def test_outcomes_are_what_happened_to_revenue(rows, files, number_of):
    heir = heirs(files)
    expected = []
    for row in {r["Opportunity_No"]: r for r in files.rows("crm/opportunities.csv")}.values():
        if row["Type"] == "New business" or not row["Effective_On"]:
            continue
        amount, before = float(row["Amount"]), float(row["Previous_Amount"])
        if row["Stage"] == "Closed lost":
            kind, delta = "churned", -before
        elif row["Type"] == "Expansion":
            kind, delta = "expanded", amount
        else:
            delta = amount - before
            kind = "expanded" if delta > 0 else "contracted" if delta < 0 else "renewed"
        account = heir.get(row["Account_No"], row["Account_No"])
        at = utc(row["Effective_On"])
        expected.append((account, kind, at, pytest.approx(delta / 12, abs=0.006)))
    found = [
        (number_of[row["account_key"]], row["kind"], row["at"], row["mrr_delta"])
        for row in canonical(rows, "outcomes")
    ]
    order = lambda row: row[:3]  # noqa: E731
    assert sorted(found, key=order) == sorted(expected, key=order)
    assert {kind for _, kind, _, _ in found} == {"churned", "renewed", "expanded", "contracted"}


def test_milestones_are_due_and_reached_as_noted(rows, files, number_of):
    begin, alone = begins(files), unmerged(files)
    second = dt.timedelta(seconds=1)
    expected = sorted(
        (row["Account_No"], re.sub(r"\W", "_", row["Milestone"].lower()), day(row["Due"]),
         str(day(row["Reached"])),
         max(utc(row["Planned_At"]), begin[row["Account_No"]] + second))
        for row in files.rows("crm/milestones.csv")
        if row["Account_No"] in alone
    )  # fmt: skip
    found = sorted(
        (number_of[row["account_key"]], row["name"], row["due_on"], str(row["reached_on"]),
         row["planned_at"])
        for row in canonical(rows, "milestones")
        if number_of[row["account_key"]] in alone
    )  # fmt: skip
    assert found == expected


def newest(rows, number, at):
    """HubSpot keeps the newest twenty values of a property."""
    by_account = defaultdict(list)
    for row in sorted(rows, key=at):
        by_account[row[number]].append(row)
    return [row for of_one in by_account.values() for row in of_one[-HISTORY_KEPT:]]


def test_goals_have_every_measurement(rows, files, number_of):
    alone = unmerged(files)
    measured = [
        row for row in files.rows("crm/goals.csv")
        if row["Account_No"] in alone and row["Measured_At"][0].isdigit()
    ]  # fmt: skip
    expected = sorted(
        (row["Account_No"], row["Goal"], float(row["Reached_Percent"]), day(row["Due"]),
         utc(row["Measured_At"]))
        for row in newest(measured, "Account_No", lambda row: row["Measured_At"])
    )  # fmt: skip
    found = sorted(
        (number_of[row["account_key"]], row["name"], float(row["progress"]), row["due_on"],
         row["measured_at"])
        for row in canonical(rows, "goals")
        if number_of[row["account_key"]] in alone
    )  # fmt: skip
    assert found == expected


def test_sentiments_have_every_assessment_and_its_author(rows, files, number_of):
    alone = unmerged(files)
    notes = [row for row in files.rows("crm/csm_notes.csv") if row["Account_No"] in alone]
    expected = sorted(
        (row["Account_No"], float(row["Rating"]), row["Author"], utc(row["Written_At"]))
        for row in newest(notes, "Account_No", lambda row: row["Written_At"])
    )
    sentiments = canonical(rows, "sentiments")
    found = sorted(
        (number_of[row["account_key"]], float(row["score"]), row["author"], row["given_at"])
        for row in sentiments
        if number_of[row["account_key"]] in alone
    )
    assert found == expected
    one = sentiments[0]
    assert (one["expires_on"] - one["given_at"].date()).days in (120, 121)


def test_departures_and_rivals_are_events(rows, files, number_of):
    alone = unmerged(files)
    found = sorted(
        (number_of[row["account_key"]], row["kind"], row["severity"], row["occurred_at"],
         row["known_at"])
        for row in canonical(rows, "commercial_events")
        if number_of[row["account_key"]] in alone
    )  # fmt: skip
    kinds = {"champion": ("champion_left", 5), "sponsor": ("sponsor_changed", 3)}
    expected = [
        (row["Account_No"], *kinds[row["Role"]], utc(row["Left_On"]), utc(row["Modified_At"]))
        for row in files.rows("crm/contacts.csv")
        if row["Left_On"] and row["Account_No"] in alone and row["Role"] in kinds
    ] + [
        (row["Account_No"], "competitor", 3, utc(row["Written_At"]), utc(row["Written_At"]))
        for row in files.rows("crm/csm_notes.csv")
        if row["Competitor_Mentioned"] == "yes" and row["Account_No"] in alone
    ]
    assert found == sorted(expected)
    assert {row[1] for row in found} == {"champion_left", "sponsor_changed", "competitor"}


def test_survey_responses_belong_to_the_company_of_the_contact(rows, files, number_of):
    found = canonical(rows, "survey_responses")
    expected = sorted(
        (kind, float(row["score"]), utc(row["answered_at"]), row["role"])
        for kind in ("nps", "csat")
        for row in files.rows(f"surveys/{kind}.csv")
        if row["response_id"] and row["answered_at"][0].isdigit()
    )
    assert expected == sorted(
        (row["kind"], float(row["score"]), row["responded_at"], row["respondent_role"])
        for row in found
    )
    assert {(row["kind"], float(row["scale"])) for row in found} == {("nps", 10), ("csat", 5)}
    linked = [row for row in found if row["account_key"] in number_of]
    assert len(linked) > 0.9 * len(found)
    rest = {row["account_key"] for row in found} - set(number_of)
    assert all(key.startswith("contact-") for key in rest)


def test_dates_in_epoch_milliseconds_are_understood(rows):
    changed = {**rows, "deals": [dict(row) for row in rows["deals"]]}
    deal = next(row for row in changed["deals"] if row["properties"]["effective_on"])
    midnight = dt.datetime(2026, 1, 5, tzinfo=dt.UTC).timestamp()
    deal["properties"] = deal["properties"] | {
        "effective_on": str(int(midnight * 1000)),
        "dealtype": "renewal",
    }
    found = [
        row for row in canonical(changed, "outcomes") if row["at"] == dt.datetime(2026, 1, 4, 23)
    ]
    assert found


def test_the_settings_name_other_properties_without_any_sql():
    config = vendor("hubspot").config.model_validate(
        {"type": "hubspot", **SETTINGS, "fields": {"company": {"arr": "yearly", "plan": ""}}}
    )
    assert config.parameters()["company_arr"] == "yearly"
    assert config.parameters()["company_plan"] not in ("", "edition")
    with pytest.raises(ValueError, match="yearly_value"):
        vendor("hubspot").config.model_validate(
            {"type": "hubspot", **SETTINGS, "fields": {"company": {"yearly_value": "x"}}}
        )


@pytest.mark.parametrize("table", ["accounts", "opportunities", "sentiments"])
def test_a_property_that_the_portal_does_not_have_is_null(rows, table, monkeypatch):
    known = len(canonical(rows, table))
    none = {"company": {"plan": "", "sentiment_by": ""}, "deal": {"currency": ""}}
    without = vendor("hubspot").config.model_validate(
        {"type": "hubspot", **SETTINGS, "fields": none}
    )
    monkeypatch.setattr(f"{__name__}.CONFIG", without)
    found = canonical(rows, table)
    assert found
    assert len(found) <= known
    empty = {"accounts": "plan", "opportunities": "currency", "sentiments": "note"}[table]
    assert {row.get(empty) for row in found} == {None}
