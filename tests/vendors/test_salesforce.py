"""Salesforce: the connector against the strict server."""

import datetime as dt
from urllib.parse import quote_plus

import pytest
from minimal import connected
from pydantic import TypeAdapter
from salesforce_org import HOUR, TOKEN, change, read, rows_of, session, settings, some
from simple_salesforce import Salesforce

from connectors.sandbox.vendors.salesforce import URI_BYTES
from connectors.sandbox.vendors.salesforce_jobs import jobs
from connectors.sandbox.vendors.salesforce_objects import ORGANIZATION, records
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.soql import Field
from connectors.vendors import vendor
from connectors.vendors.salesforce.settings import FIELDS, FieldPath
from contracts.errors import (
    SourceCorrupt,
    SourceError,
    SourceRefused,
    SourceUnavailable,
)

FIELD = TypeAdapter(FieldPath)


@pytest.fixture
def fields(monkeypatch):
    """Change what the org has: ``fields("Account", ARR__c=None)`` takes a field away."""

    def change(name, **given):
        kept = {key: field for key, field in SCHEMA[name].items() if key not in given}
        new = {key: field for key, field in given.items() if field is not None}
        monkeypatch.setitem(SCHEMA, name, kept | new)

    return change


def as_text(rows):
    """Rows in any order, with values as the lake holds them."""
    return sorted(
        sorted((k, str(v).lower()) for k, v in row.items() if v is not None) for row in rows
    )


def asked(box, since=0):
    return [(r.path, r.query) for r in box.log[since:]]


# Reading everything


def test_a_first_reading_gives_every_record_of_the_world(box):
    rows = read(box)
    files = {
        "accounts": "accounts.csv", "notes": "csm_notes.csv", "milestones": "milestones.csv",
    }  # fmt: skip
    for stream, file in files.items():
        assert len(rows[stream]) == len(box.world.rows(f"crm/{file}"))
    deals = {row["Opportunity_No"] for row in box.world.rows("crm/opportunities.csv")}
    people = {row["Contact_No"] for row in box.world.rows("crm/contacts.csv")}
    assert len(rows["opportunities"]) == len(deals)
    assert len(rows["contacts"]) == len(people)
    arr = {row["account_id"]: row["arr"] for row in rows["accounts"]}
    told = {r["Account_No"]: r["Annual_Value"] for r in box.world.rows("crm/account_changes.csv")}
    assert arr == {number: value and float(value) for number, value in told.items()}


@pytest.mark.parametrize(
    ("size", "streams"),
    [(3, ["accounts", "goals"]), (60, ["account_history", "contacts", "opportunities", "notes"])],
)
def test_small_pages_give_the_same_rows_in_the_order_of_changes(box, size, streams):
    whole = read(box, streams=streams)
    box.small_pages = size
    assert read(box, streams=streams) == whole
    for name in streams:
        cursor = vendor("salesforce").streams[name].cursor
        changes = [(row[cursor], row["id"]) for row in whole[name]]
        assert changes == sorted(changes)


def test_the_official_client_reads_the_same_records(box):
    salesforce = Salesforce(
        session_id=box.token("salesforce"), instance_url=box.address("salesforce"),
        session=session(box), version="64.0",
    )  # fmt: skip
    box.small_pages = 50
    soql = "SELECT Id, AccountNumber, ARR__c, Success_Manager__c, IsDeleted FROM Account"
    names = {
        "id": "Id", "account_id": "AccountNumber", "arr": "ARR__c",
        "owner": "Success_Manager__c", "is_deleted": "IsDeleted",
    }  # fmt: skip
    theirs = salesforce.query_all(soql, include_deleted=True)["records"]
    ours = [{api: row[name] for name, api in names.items()} for row in rows_of(box, "accounts")]
    by_id = {record["Id"]: {api: record[api] for api in names.values()} for record in theirs}
    assert by_id == {row["Id"]: row for row in ours}
    bulk = "".join(salesforce.bulk2.Account.query_all(soql, max_records=60, wait=0.01))
    assert all(row["Id"] in bulk for row in ours)


def test_an_hour_without_changes_costs_one_request_for_each_stream(box):
    positions = {}
    streams = read(box, positions)
    before = len(box.log)
    box.move(box.now + HOUR)
    again = read(box, positions)
    # The framework drops a row of the overlap only if it comes again exactly as it was.
    assert all(row in streams[name] for name in streams for row in again[name])
    assert len(box.log) - before == len(streams)
    assert not any("describe" in path for path, _ in asked(box, before))
    assert all(len(again[name]) <= 3 for name in streams)


def test_a_later_reading_gives_what_changed_and_the_overlap(box):
    positions = {}
    read(box, positions)
    id = change(box, "Account", some(box, "Account").id, ARR__c=1234.5)
    records(box, "Contact").put("0035g00000NEW01AAA", {"Role__c": "admin"}, box.now.timestamp())
    rows = read(box, positions)
    assert rows["accounts"][-1]["id"] == id
    assert rows["accounts"][-1]["arr"] == 1234.5
    assert rows["contacts"][-1]["id"] == "0035g00000NEW01AAA"
    assert rows["account_history"][-1]["field"] == "arr"
    assert rows["account_history"][-1]["new_value"] == 1234.5
    assert len(rows["accounts"]) <= 3
    assert rows["accounts"][-1]["backfilled"] is False


def test_records_that_share_a_stamp_are_read_again_and_none_is_lost(box):
    positions = {}
    at = box.now.timestamp()
    records(box, "Contact").put("0035g00000TIE01AAA", {}, at)
    rows_of(box, "contacts", positions)
    records(box, "Contact").put("0035g00000TIE02AAA", {}, at)
    records(box, "Contact").put("0035g00000LATE1AAA", {}, at - 600)
    found = {row["id"] for row in rows_of(box, "contacts", positions)}
    assert {"0035g00000TIE01AAA", "0035g00000TIE02AAA", "0035g00000LATE1AAA"} <= found


def test_F65_deleted_and_merged_records_arrive_as_such(box):
    positions = {}
    rows_of(box, "accounts", positions)
    first, second, heir = [row.id for row in records(box, "Account").rows(box.now.timestamp())][:3]
    change(box, "Account", first, IsDeleted=True)
    change(box, "Account", second, IsDeleted=True, MasterRecordId=heir)
    rows = {row["id"]: row for row in rows_of(box, "accounts", positions)}
    assert rows[first]["is_deleted"]
    assert rows[first]["master_record"] is None
    assert rows[second]["master_record"] == heir


# Fields of an org


def test_fields_that_the_org_lacks_stay_null_and_the_position_says_which(box, fields):
    fields("Account", ARR__c=None, CurrencyIsoCode=None, Success_Manager__c=None)
    positions = {}
    rows = rows_of(box, "accounts", positions)
    missing = ["ARR__c", "CurrencyIsoCode", "Success_Manager__c"]
    assert positions["accounts"]["missing"] == missing
    assert all("arr" not in row for row in rows)
    assert "arr" in vendor("salesforce").streams["accounts"].columns


def test_an_object_that_the_org_lacks_has_no_rows_and_is_looked_for_once_a_day(box, monkeypatch):
    had = SCHEMA["Goal__c"]
    monkeypatch.delitem(SCHEMA, "Goal__c")
    positions = {}
    assert rows_of(box, "goals", positions) == []
    before = len(box.log)
    box.move(box.now + HOUR)
    assert rows_of(box, "goals", positions) == []
    assert len(box.log) == before
    monkeypatch.setitem(SCHEMA, "Goal__c", had)
    box.move(box.now + 24 * HOUR)
    assert rows_of(box, "goals", positions)


def test_accounts_must_be_there(box, monkeypatch):
    monkeypatch.delitem(SCHEMA, "Account")
    with pytest.raises(SourceRefused, match="may not read Account"):
        rows_of(box, "accounts")


def test_settings_say_which_field_and_object_holds_what(box, fields, monkeypatch):
    fields("Account", Value__c=Field("Value__c", "currency"))
    monkeypatch.setitem(SCHEMA, "OKR__c", SCHEMA["Goal__c"])
    records(box, "OKR__c").put("a095g0000000001AAA", {"Name": "Grow"}, 1.7e9)
    id = change(box, "Account", some(box, "Account").id, Value__c=77.0)
    rows = rows_of(
        box, "accounts",
        fields={"account": {"arr": "value__c", "owner": "Owner.Name", "region": None}},
    )  # fmt: skip
    row = next(row for row in rows if row["id"] == id)
    assert (row["arr"], "region" in row) == (77.0, False)
    assert " " in row["owner"]
    assert [row["name"] for row in rows_of(box, "goals", objects={"goal": "OKR__c"})] == ["Grow"]


def test_other_fields_in_the_settings_are_read_for_all_records(box):
    positions = {}
    whole = rows_of(box, "accounts", positions)
    again = rows_of(box, "accounts", positions, fields={"account": {"arr": "AnnualRevenue"}})
    assert len(again) == len(whole)
    assert all(row["arr"] is None for row in again)
    assert (
        len(rows_of(box, "accounts", positions, fields={"account": {"arr": "AnnualRevenue"}})) < 4
    )


def test_F33_a_field_that_vanishes_is_noticed_and_the_others_go_on(box, fields):
    positions = {}
    whole = rows_of(box, "accounts", positions)
    fields("Account", Objective__c=None)
    before = len(box.log)
    rows = rows_of(box, "accounts", positions)
    assert [path.split("/")[-1] or "queryAll" for path, _ in asked(box, before)] == [
        "queryAll", "describe", "queryAll",
    ]  # fmt: skip
    assert len(rows) == len(whole)
    assert positions["accounts"]["missing"] == ["Objective__c"]


def test_a_field_of_a_parent_that_is_not_there_is_told_without_asking_on(box):
    with pytest.raises(SourceError, match=r"INVALID_FIELD; correct `fields`"):
        rows_of(box, "notes", fields={"note": {"author": "CreatedBy.Nothing__c"}})
    assert len(box.log) == 2


def test_a_formula_that_changes_without_a_stamp_is_found_by_the_daily_scan(box):
    positions = {}
    whole = rows_of(box, "accounts", positions)
    row = some(box, "Account")
    stamp = next(found["modified_at"] for found in whole if found["id"] == row.id)
    silent = {"Region__c": "Atlantis", "SystemModstamp": f"{stamp[:-1]}+0000"}
    change(box, "Account", row.id, **silent)
    assert not any(found["id"] == row.id for found in rows_of(box, "accounts", positions))
    box.move(box.now + 24 * HOUR)
    rows = rows_of(box, "accounts", positions)
    found = next(found for found in rows if found["id"] == row.id)
    assert len(rows) == len(whole)
    assert found["region"] == "Atlantis"
    # It was not known before it was seen, though the record says that nothing has changed.
    assert (found["modified_at"], found["known_at"]) == (stamp, "2026-07-01T21:00:00.000Z")
    assert found["backfilled"] is False


@pytest.mark.parametrize("stream", ["contacts", "notes"])
def test_objects_without_formulas_are_not_scanned(box, stream):
    positions = {}
    rows_of(box, stream, positions)
    box.move(box.now + 48 * HOUR)
    assert len(rows_of(box, stream, positions)) < 4


def test_a_scan_by_bulk_gives_the_same_rows_as_by_rest(box):
    rest, bulk = {}, {}
    rows_of(box, "accounts", rest)
    rows_of(box, "accounts", bulk)
    change(box, "Account", some(box, "Account").id, ARR__c=5.0)
    box.move(box.now + 24 * HOUR)
    by_rest = rows_of(box, "accounts", rest)
    by_bulk = rows_of(box, "accounts", bulk, bulk_above_rows=50, bulk_poll_seconds=0.001)
    assert box.count("salesforce", "/results") == 1
    assert as_text(by_bulk) == as_text(by_rest)
    assert len({row["known_at"] for row in by_bulk}) > 1


# Bulk 2.0


@pytest.mark.parametrize("stream", ["accounts", "account_history", "notes"])
def test_bulk_gives_the_same_rows_as_rest(box, stream):
    rest = rows_of(box, stream)
    box.small_pages = 40
    positions = {}
    bulk = rows_of(box, stream, positions, bulk_above_rows=50, bulk_poll_seconds=0.001)
    assert any(path.endswith("/results") for path, _ in asked(box))
    assert as_text(bulk) == as_text(rest)
    assert jobs(box).rows(box.now.timestamp()) == []
    before = len(box.log)
    assert len(rows_of(box, stream, positions, bulk_above_rows=1, bulk_poll_seconds=0.001)) < 4
    assert len(box.log) == before + 1


def test_the_longest_query_that_settings_allow_fits_into_an_address(box):
    longest = f"{'Parent.' * 35}Name"
    long = {"account": dict.fromkeys(FIELDS["account"], longest) | {"account_id": "AccountNumber"}}
    config = vendor("salesforce").config.model_validate(
        {"type": "salesforce", "address": box.address("salesforce"), **TOKEN, "fields": long}
    )
    names = [f"{path}{number}" for number, path in enumerate(config.fields_of("account").values())]
    assert len(quote_plus(", ".join(names))) + 3000 < URI_BYTES
    with pytest.raises(ValueError, match="at most 250"):
        FIELD.validate_python("A" * 251)


@pytest.mark.parametrize("state", ["Failed", "Aborted"])
def test_F60_a_bulk_job_that_fails_fails_the_stream(box, state):
    box.faults.add(
        vendor="salesforce", do="error_json", path="jobs/query/", body={"id": "1", "state": state}
    )
    with pytest.raises(SourceUnavailable, match=state):
        rows_of(box, "notes", bulk_above_rows=1, bulk_poll_seconds=0.001)


def test_F60_a_bulk_job_that_hangs_is_given_up_and_aborted(box):
    box.faults.add(
        vendor="salesforce", do="error_json", path="jobs/query/", times=3,
        body={"id": "1", "state": "InProgress"},
    )  # fmt: skip
    with pytest.raises(SourceUnavailable, match="did not finish"):
        rows_of(box, "notes", bulk_above_rows=1, bulk_poll_seconds=0.02, bulk_wait_minutes=0.001)
    (job,) = jobs(box).rows(box.now.timestamp())
    assert job.body["state"] == "Aborted"


def test_F09_a_bulk_page_with_fewer_rows_than_promised_is_refused(box):
    box.faults.add(
        vendor="salesforce", do="rewrite", path="/results", times=None,
        rewrite=lambda body: body.rpartition(b"\n")[0].rpartition(b"\n")[0] + b"\n",
    )  # fmt: skip
    with pytest.raises(SourceCorrupt, match="instead of"):
        rows_of(box, "notes", bulk_above_rows=1, bulk_poll_seconds=0.001)


# Whose data it is


def test_F37_the_account_is_the_org_and_a_sandbox_says_so(box):
    vendor_, config, client = connected("salesforce", settings(box), box)
    assert vendor_.account(client, config) == ORGANIZATION
    assert len(box.log) == 1
    records(box, "Organization").put(ORGANIZATION, {"IsSandbox": True}, box.now.timestamp())
    assert vendor_.account(client, config) == f"{ORGANIZATION} (sandbox)"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "access_token"),
        ({"consumer_key": {"env": "K"}}, "access_token"),
        ({"access_token": {"env": "T"}, "fields": {"acount": {}}}, "unknown object"),
        ({"access_token": {"env": "T"}, "fields": {"account": {"arrr": "X"}}}, "unknown meaning"),
        (
            {"access_token": {"env": "T"}, "fields": {"account": {"arr": "X FROM User"}}},
            "should match pattern",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(given, told):
    config = {"type": "salesforce", "instance_url": "https://acme.my.salesforce.com", **given}
    with pytest.raises(ValueError, match=told):
        vendor("salesforce").config.model_validate(config)


def test_first_tasks_go_back_to_the_start_of_the_history_only(box):
    for day, id in (("2024-06-30", "00T5g0000000001AAA"), ("2024-07-02", "00T5g0000000002AAA")):
        at = dt.datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()
        records(box, "Task").put(id, {"Subject": "canary", "Status": "Open"}, at)
    (row,) = rows_of(box, "tasks")
    assert (row["id"], row["status"]) == ("00T5g0000000002AAA", "Open")
    assert "canary" not in str(row)
