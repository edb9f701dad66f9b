"""Salesforce: what the sandbox's server refuses, as the vendor does, and how SOQL is read there."""

import datetime as dt

import pytest
from conftest import NOW
from salesforce_org import ask, change, refusal, session, some
from simple_salesforce import format_soql

from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import CONSUMER_KEY, CONSUMER_SECRET, sessions
from connectors.sandbox.vendors.salesforce_objects import records, with_checksum
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.soql import SoqlError, parse

GOOD_JOB = {"operation": "queryAll", "query": "SELECT Id FROM Account"}


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


@pytest.fixture
def soql(box):
    """The answer to a query."""

    def run(text, path="query"):
        return ask(box, path, params={"q": text})

    return run


def found(answer, field="Id"):
    assert answer.status_code == 200, answer.text
    return [record[field] for record in answer.json()["records"]]


# SOQL

PEOPLE = [
    {"Id": "003000000000001AAA", "LastName": "Abel", "Role__c": "admin", "IsDeleted": False},
    {"Id": "003000000000002AAA", "LastName": "O'Neil", "Role__c": None, "IsDeleted": False},
    {"Id": "003000000000003AAA", "LastName": "50%_off", "Role__c": "ADMIN", "IsDeleted": True},
]
for number, person in enumerate(PEOPLE):
    person |= {"CreatedDate": f"2026-01-0{number + 1}T00:00:00.000+0000", "Since__c": "2026-01-02"}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("LastName = 'abel'", "1"),
        ("lastname = 'O\\'Neil'", "2"),
        ("Role__c = 'Admin'", "13"),
        ("Role__c != 'admin'", "2"),
        ("Role__c = null", "2"),
        ("Role__c != null AND IsDeleted = false", "1"),
        ("Role__c IN ('admin', 'x') AND (IsDeleted = TRUE OR LastName LIKE 'o%')", "3"),
        ("Role__c NOT IN ('admin')", "2"),
        ("NOT (LastName = 'Abel')", "23"),
        ("LastName LIKE '50\\%\\_%'", "3"),
        ("LastName LIKE '_bel'", "1"),
        ("CreatedDate >= 2026-01-02T00:00:00Z", "23"),
        ("CreatedDate < 2026-01-02T01:00:00+02:00", "1"),
        ("Since__c > 2026-01-01", "123"),
        ("Id = '003000000000001'", "1"),
        ("LastName > 'b'", "2"),
    ],
)
def test_conditions_mean_what_they_mean_at_the_vendor(condition, wanted):
    query = parse(f"SELECT Id FROM Contact WHERE {condition}", SCHEMA)
    assert "".join(record["Id"][14] for record in query.run(PEOPLE)) == wanted


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        ("ORDER BY LastName", "312"),
        ("ORDER BY Role__c, Id DESC", "231"),
        ("ORDER BY Role__c NULLS LAST, Id", "132"),
        ("ORDER BY Role__c DESC NULLS FIRST LIMIT 1", "2"),
        ("ORDER BY Id LIMIT 1 OFFSET 1", "2"),
    ],
)
def test_rows_come_in_the_order_that_was_asked_for(rest, wanted):
    query = parse(f"SELECT Id FROM Contact {rest}", SCHEMA)
    assert "".join(record["Id"][14] for record in query.run(PEOPLE)) == wanted


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT Id FROM", "MALFORMED_QUERY"),
        ("SELECT FROM Account", "MALFORMED_QUERY"),
        ("SELECT * FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id, FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'a' OR Name = 'b' AND Name = 'c'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'open", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = '\\x'", "MALFORMED_QUERY"),
        ('SELECT Id FROM Account WHERE Name = "a"', "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE CreatedDate > 2026-13-01T00:00:00Z", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account; DELETE", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account GROUP BY Id", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account LIMIT -1", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account ORDER Id", "MALFORMED_QUERY"),
        ("SELECT Id FROM Nothing", "INVALID_TYPE"),
        ("SELECT Id, Nothing FROM Account", "INVALID_FIELD"),
        ("SELECT Id, id FROM Account", "INVALID_FIELD"),
        ("SELECT Id, Nothing.Name FROM Account", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE ARR__c = '5'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Name = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE CreatedDate = '2026-01-01'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE CreatedDate = 2026-01-01", "INVALID_FIELD"),
        ("SELECT Id FROM AccountHistory WHERE OldValue = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE IsDeleted > true", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Account WHERE ARR__c LIKE '5'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Account ORDER BY Id OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE"),
    ],
)
def test_queries_that_the_vendor_refuses_are_refused(text, code):
    with pytest.raises(SoqlError) as refused:
        parse(text, SCHEMA)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["\\' OR Name LIKE '%", "a'b", 'q"q', "back\\", "line\nend"])
def test_F85_a_quoted_value_stays_a_value(box, soql, name):
    id = change(box, "Account", some(box, "Account").id, Name=name)
    assert found(soql(format_soql("SELECT Id FROM Account WHERE Name = {}", name))) == [id]


# REST


def test_parents_are_objects_of_their_own_and_null_where_there_is_none(soql):
    answer = soql("SELECT Id, Owner.Name, Parent.Owner.Name FROM Account ORDER BY Id")
    first = answer.json()["records"][0]
    assert first["Owner"]["attributes"]["type"] == "User"
    assert first["attributes"]["url"].endswith(f"/sobjects/Account/{first['Id']}")
    parents = [record["Parent"] for record in answer.json()["records"]]
    assert None in parents
    assert any(parent and parent["Owner"]["Name"] for parent in parents)


def test_counting_gives_a_size_and_no_records(soql):
    answer = soql("SELECT COUNT() FROM Account", path="queryAll").json()
    assert (answer["totalSize"], answer["done"], answer["records"]) == (130, True, [])


def test_only_query_all_shows_the_deleted(soql):
    text = "SELECT Id FROM Account WHERE IsDeleted = true"
    assert found(soql(text)) == []
    deleted = found(soql(text, path="queryAll"))
    assert deleted
    hidden = "SELECT Id, MasterRecordId FROM Account WHERE MasterRecordId != null"
    assert set(found(soql(hidden, path="queryAll"))) <= set(deleted)


def test_pages_lead_on_by_locators_that_expire_after_two_days(box, soql):
    box.small_pages = 100
    first = soql("SELECT Id FROM Account", path="queryAll").json()
    assert (first["done"], len(first["records"])) == (False, 100)
    url = first["nextRecordsUrl"]
    assert "/query/" in url
    next_path = url.partition("v64.0/")[2]
    box.move(box.now + dt.timedelta(days=2, seconds=1))
    assert refusal(ask(box, next_path)) == (400, "INVALID_QUERY_LOCATOR")
    first = soql("SELECT Id FROM Account", path="queryAll").json()
    second = ask(box, first["nextRecordsUrl"].partition("v64.0/")[2]).json()
    assert (second["done"], len(second["records"])) == (True, 30)


def test_an_eleventh_open_cursor_closes_the_oldest(box, soql):
    box.small_pages = 100
    urls = [
        soql("SELECT Id FROM Account", path="queryAll").json()["nextRecordsUrl"] for _ in range(11)
    ]
    paths = [url.partition("v64.0/")[2] for url in urls]
    assert refusal(ask(box, paths[0])) == (400, "INVALID_QUERY_LOCATOR")
    assert ask(box, paths[10]).status_code == 200


@pytest.mark.parametrize(
    ("path", "more", "wanted"),
    [
        ("query", {"token": "canary"}, (401, "INVALID_SESSION_ID")),
        ("query", {"version": "12.0"}, (404, "NOT_FOUND")),
        ("query", {"version": "64"}, (404, "NOT_FOUND")),
        ("query", {}, (400, "MALFORMED_QUERY")),
        (
            "query",
            {"params": {"q": "SELECT Id FROM Account", "limit": 5}},
            (400, "MALFORMED_QUERY"),
        ),
        ("query/01g000-5", {}, (400, "INVALID_QUERY_LOCATOR")),
        ("nothing", {}, (404, "NOT_FOUND")),
        ("sobjects/Nothing/describe", {}, (404, "NOT_FOUND")),
        ("jobs/query/7500", {}, (404, "NOT_FOUND")),
        ("jobs/query/7500/nothing", {}, (405, "METHOD_NOT_ALLOWED")),
    ],
)
def test_bad_requests_are_refused_with_the_vendors_codes(box, path, more, wanted):
    assert refusal(ask(box, path, **more)) == wanted


def test_an_address_over_16384_bytes_is_too_long(box, soql):
    text = f"SELECT Id FROM Account WHERE Name = '{'a' * 16_500}'"
    assert soql(text).status_code == 414


def test_every_answer_tells_how_much_of_the_allowance_is_used(box):
    used = [ask(box, "limits").headers["Sforce-Limit-Info"] for _ in range(2)]
    assert used == ["api-usage=1/100000", "api-usage=2/100000"]


def test_describe_tells_types_formulas_and_references(box):
    fields = {f["name"]: f for f in ask(box, "sobjects/account/describe").json()["fields"]}
    assert fields["Region__c"]["calculated"] is True
    assert fields["OwnerId"]["referenceTo"] == ["User"]
    assert fields["OwnerId"]["relationshipName"] == "Owner"
    assert fields["Description"]["filterable"] is False


# Bulk 2.0


def test_a_bulk_query_goes_through_its_states_and_ends_as_quoted_csv(box):
    box.small_pages = 100
    job = ask(box, "jobs/query", "POST", json=GOOD_JOB).json()
    path = f"jobs/query/{job['id']}"
    assert job["state"] == "UploadComplete"
    assert refusal(ask(box, f"{path}/results")) == (400, "INVALIDJOBSTATE")
    assert refusal(ask(box, path, "DELETE")) == (400, "INVALIDJOBSTATE")
    states = [ask(box, path).json()["state"] for _ in range(3)]
    assert states == ["UploadComplete", "InProgress", "JobComplete"]
    first = ask(box, f"{path}/results", params={"maxRecords": 70})
    assert first.headers["Sforce-NumberOfRecords"] == "70"
    locator = first.headers["Sforce-Locator"]
    second = ask(box, f"{path}/results", params={"locator": locator})
    assert second.headers["Sforce-Locator"] == "null"
    assert first.text.splitlines()[0] == second.text.splitlines()[0] == '"Id"'
    assert len(first.text.splitlines()) + len(second.text.splitlines()) == 132
    assert refusal(ask(box, f"{path}/results", params={"page": 1})) == (400, "INVALID_LOCATOR")
    assert refusal(ask(box, path, "PATCH", json={"state": "Aborted"})) == (400, "INVALIDJOBSTATE")
    assert ask(box, path, "DELETE").status_code == 204
    assert ask(box, "jobs/query").json()["records"] == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operation": "insert"}, "INVALIDJOB"),
        ({"contentType": "JSON"}, "INVALIDJOB"),
        ({"columnDelimiter": "COLON"}, "INVALIDJOB"),
        ({"object": "Account"}, "JSON_PARSER_ERROR"),
        ({"query": "SELECT Id FROM Nothing"}, "INVALID_TYPE"),
        ({"query": "SELECT COUNT() FROM Account"}, "API_ERROR"),
    ],
)
def test_bulk_jobs_that_cannot_be_are_refused(box, changes, code):
    assert refusal(ask(box, "jobs/query", "POST", json=GOOD_JOB | changes)) == (400, code)


# Logging in


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "invalid_client_id"),
        (
            {"grant_type": "client_credentials", "client_id": CONSUMER_KEY, "client_secret": "x"},
            "invalid_client",
        ),
        (
            {"grant_type": "password", "client_id": CONSUMER_KEY, "client_secret": CONSUMER_SECRET,
             "username": "u", "password": "p"},
            "invalid_grant",
        ),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}, "invalid_grant"),
    ],
)  # fmt: skip
def test_logins_that_are_wrong_are_refused(box, form, error):
    answer = session(box).post(f"{box.address('salesforce')}/services/oauth2/token", data=form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_login_gives_a_token_that_works_until_it_expires(box):
    root = box.address("salesforce")
    answer = session(box).post(
        f"{root}/services/oauth2/token", data={"grant_type": "client_credentials"},
        auth=(CONSUMER_KEY, CONSUMER_SECRET),
    ).json()  # fmt: skip
    token = answer["access_token"]
    assert answer["instance_url"] == root
    assert ask(box, "limits", token=token).status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    info = session(box).get(f"{root}/services/oauth2/userinfo", headers=headers).json()
    assert info["organization_id"] in answer["id"]
    sessions(box).remove(token, box.now.timestamp())
    assert refusal(ask(box, "limits", token=token)) == (401, "INVALID_SESSION_ID")
    assert session(box).get(f"{root}/services/oauth2/userinfo", headers=headers).status_code == 403


# Records


def test_ids_have_the_vendors_checksum():
    assert with_checksum("001D000000IRFma") == "001D000000IRFmaIAH"


def test_a_merge_deletes_the_loser_and_moves_its_children(box):
    rows = records(box, "Account").rows(box.now.timestamp())
    loser = next(row for row in rows if row.body["MasterRecordId"])
    contacts = records(box, "Contact").rows(box.now.timestamp())
    assert loser.body["IsDeleted"]
    assert not any(row.body["AccountId"] == loser.id for row in contacts)
    assert any(row.body["AccountId"] == loser.body["MasterRecordId"] for row in contacts)


def test_a_changed_lookup_leaves_two_history_rows_ids_and_names(box):
    users = records(box, "User").rows(box.now.timestamp())
    account = some(box, "Account", IsDeleted=None)
    old = next(user for user in users if user.id == account.body["OwnerId"])
    new = next(user for user in users if user.id != old.id)
    change(box, "Account", account.id, OwnerId=new.id)
    rows = records(box, "AccountHistory").rows(box.now.timestamp())[-2:]
    told = {row.body["DataType"]: (row.body["OldValue"], row.body["NewValue"]) for row in rows}
    assert told == {
        "EntityId": (old.id, new.id), "Text": (old.body["Name"], new.body["Name"]),
    }  # fmt: skip
    assert {row.body["Field"] for row in rows} == {"Owner"}
