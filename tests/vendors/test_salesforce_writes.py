"""Salesforce: what the sandbox's server does with writes, as the vendor does."""

import csv
import datetime as dt
import io
import time

import pytest
from conftest import NOW
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from salesforce_org import ask, refusal, session, some
from simple_salesforce import Salesforce, format_external_id
from simple_salesforce.exceptions import SalesforceMalformedRequest

from connectors.sandbox.servers.journal import Journal
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import sessions, settings
from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, SOMEBODY
from connectors.sandbox.vendors.salesforce_ingest import job_orders
from connectors.sandbox.vendors.salesforce_metadata import PERMISSION_SET, definition, provisioned
from connectors.sandbox.vendors.salesforce_objects import records, save
from connectors.sandbox.vendors.salesforce_people import delete, merge
from connectors.sandbox.vendors.salesforce_rules import refuse
from connectors.sandbox.vendors.salesforce_setup import CS_QUEUE, PROFILE_SET, SUPPORT_QUEUE
from connectors.sandbox.vendors.salesforce_writes import writes
from contracts.crm_fields import FIELDS, written_on

COLLECTIONS = "composite/sobjects"
SCORE, BAND, REASONS, AS_OF = (
    FIELDS[name].salesforce for name in ("risk_score", "risk_band", "risk_reasons", "risk_as_of")
)
KEY = "a" * 64


@pytest.fixture
def bare(world):
    """A sandbox of which nobody has added a field yet."""
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


@pytest.fixture
def box(bare):
    provisioned(bare)
    return bare


@pytest.fixture
def sf(box):
    """The official library."""
    return library(box)


def library(box):
    return Salesforce(
        session_id=box.token("salesforce"), instance_url=box.address("salesforce"),
        session=session(box), version="64.0",
    )  # fmt: skip


def accounts(box, count):
    """The ids of some accounts that are there."""
    rows = records(box, "Account").rows(box.now.timestamp())
    return [row.id for row in rows if not row.body.get("IsDeleted")][:count]


def send(box, method, *sent, type="Account", path=COLLECTIONS, all_or_none=False):
    """A collections call; its records may leave their type out."""
    typed = [{"attributes": {"type": type}} | record for record in sent]
    return ask(box, path, method, json={"allOrNone": all_or_none, "records": typed})


def results(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def codes(answer):
    """Of each record: True, or the code of its error."""
    return [one["success"] or one["errors"][0]["statusCode"] for one in results(answer)]


def values(box, name, id):
    return records(box, name).get(id, box.now.timestamp()).body


def query(box, text, path="query"):
    answer = ask(box, path, params={"q": text})
    assert answer.status_code == 200, answer.text
    return answer.json()["records"]


def task(box, **more):
    return {"Subject": "Call them", "WhatId": accounts(box, 1)[0], "HL_Key__c": KEY} | more


def new_task(box, **more):
    (result,) = results(send(box, "POST", task(box, **more), type="Task"))
    assert result["success"], result
    return result["id"]


# Collections


def test_a_batch_is_answered_record_by_record_in_the_order_of_the_request(box):
    good, other = accounts(box, 2)
    answer = send(
        box, "PATCH",
        {"id": good, SCORE: 71, BAND: "red", AS_OF: "2026-06-30", REASONS: "Seats: 3 of 40"},
        {"id": "001000000000000AAA", SCORE: 1}, {"id": other[:15], SCORE: "12"},
    )  # fmt: skip
    assert codes(answer) == [True, "INVALID_CROSS_REFERENCE_KEY", True]
    assert [one.get("id") for one in answer.json()] == [good, None, other]
    assert values(box, "Account", good) | {
        SCORE: 71.0, BAND: "red", AS_OF: "2026-06-30", REASONS: "Seats: 3 of 40",
    } == values(box, "Account", good)  # fmt: skip
    (row,) = query(box, f"SELECT {SCORE}, LastModifiedById FROM Account WHERE Id = '{other}'")
    assert (row[SCORE], row["LastModifiedById"]) == (12.0, INTEGRATION_USER)


def test_all_or_none_does_nothing_when_one_record_is_refused(box):
    good, other = accounts(box, 2)
    answer = send(
        box, "PATCH", {"id": good, SCORE: 1}, {"id": other, BAND: "purple"}, all_or_none=True
    )
    assert codes(answer) == [
        "ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
    ]  # fmt: skip
    assert SCORE not in values(box, "Account", good)
    assert writes(box) == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        (BAND, "purple", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        (REASONS, "x" * 4001, "STRING_TOO_LONG"),
        (SCORE, 10**18, "NUMBER_OUTSIDE_VALID_RANGE"),
        ("Name", None, "REQUIRED_FIELD_MISSING"),
        ("Region__c", "North", "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ("MasterRecordId", "001000000000000AAA", "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ],
)
def test_f54_a_value_that_a_field_does_not_take_stops_its_record_alone(box, field, value, code):
    bad, good = accounts(box, 2)
    answer = send(box, "PATCH", {"id": bad, field: value, AS_OF: "2026-06-30"},
                  {"id": good, SCORE: 5})  # fmt: skip
    assert codes(answer) == [code, True]
    assert answer.json()[0]["errors"][0]["fields"] == [field]
    assert AS_OF not in values(box, "Account", bad)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"HL_Nothing__c": 1}, "INVALID_FIELD"),
        ({SCORE: "many"}, "JSON_PARSER_ERROR"),
        ({SCORE: True}, "JSON_PARSER_ERROR"),
        ({AS_OF: "2026-02-30"}, "JSON_PARSER_ERROR"),
        ({AS_OF: "2026-06-30T00:00:00Z"}, "JSON_PARSER_ERROR"),
        ({REASONS: 7}, "JSON_PARSER_ERROR"),
        ({"attributes": {}}, "INVALID_INPUT"),
        ({"attributes": {"type": "Nothing"}}, "INVALID_TYPE"),
    ],
)
def test_f55_a_record_that_is_malformed_makes_the_whole_call_a_400(box, record, code):
    bad, good = accounts(box, 2)
    answer = send(box, "PATCH", {"id": good, SCORE: 5}, {"id": bad} | record)
    assert refusal(answer) == (400, code)
    assert SCORE not in values(box, "Account", good)


def test_f49_an_empty_text_changes_nothing_and_null_clears(box):
    (id,) = accounts(box, 1)
    send(box, "PATCH", {"id": id, REASONS: "Seats", SCORE: 5})
    send(box, "PATCH", {"id": id, REASONS: "", SCORE: None})
    assert (values(box, "Account", id)[REASONS], values(box, "Account", id)[SCORE]) == (
        "Seats", None,
    )  # fmt: skip


def test_what_is_no_json_is_refused(box):
    for body in (b"{", b'{"records": [{"x": NaN}]}', b"[]", b'{"records": {}}'):
        answer = ask(box, COLLECTIONS, "PATCH", data=body)
        assert refusal(answer) == (400, "JSON_PARSER_ERROR")


def test_a_call_takes_200_records_and_ten_changes_of_type(box):
    ids = accounts(box, 100)
    many = [{"id": id, SCORE: 1} for id in (*ids, *ids)]
    assert codes(send(box, "PATCH", *many)) == [True] * 100 + ["DUPLICATE_VALUE"] * 100
    assert refusal(send(box, "PATCH", *many, many[0])) == (400, "EXCEEDED_ID_LIMIT")
    deal = some(box, "Opportunity").id
    mixed = [
        {"attributes": {"type": ("Account", "Opportunity")[n % 2]}, "id": (ids[0], deal)[n % 2]}
        for n in range(11)
    ]
    assert refusal(send(box, "PATCH", *mixed)) == (400, "LIMIT_EXCEEDED")
    assert len(results(send(box, "PATCH", *mixed[:10]))) == 10


@pytest.mark.parametrize(
    ("id", "code"),
    [(None, "MISSING_ARGUMENT"), ("x", "MALFORMED_ID"), ("00T5g0000000001AAA", "MALFORMED_ID")],
)
def test_an_update_needs_the_id_of_a_record_of_its_type(box, id, code):
    assert codes(send(box, "PATCH", {"id": id, SCORE: 5})) == [code]


def test_records_are_retrieved_in_the_order_of_their_ids(box):
    first, second = accounts(box, 2)
    asked = {"ids": [second, "001000000000000AAA", first], "fields": ["Name"]}
    found = ask(box, f"{COLLECTIONS}/Account", "POST", json=asked).json()
    assert [one and one["Id"] for one in found] == [second, None, first]
    params = {"ids": first, "fields": "Name"}
    (only,) = ask(box, f"{COLLECTIONS}/Account", params=params).json()
    assert only["Name"] == values(box, "Account", first)["Name"]


def test_deletion_is_answered_record_by_record(box):
    id = new_task(box)
    answer = ask(box, COLLECTIONS, "DELETE", params={"ids": f"{id},{accounts(box, 1)[0][:14]}"})
    assert codes(answer) == [True, "MALFORMED_ID"]
    assert codes(ask(box, COLLECTIONS, "DELETE", params={"ids": id})) == ["ENTITY_IS_DELETED"]
    (row,) = query(box, "SELECT Id, IsDeleted, LastModifiedById FROM Task", "queryAll")
    assert (row["IsDeleted"], row["LastModifiedById"]) == (True, INTEGRATION_USER)


# Tasks and their key


def test_a_task_gets_what_follows_from_its_fields(box):
    id = new_task(box)
    (row,) = query(
        box, "SELECT AccountId, Status, Priority, IsClosed, OwnerId, CreatedById FROM Task"
    )
    assert row["AccountId"] == accounts(box, 1)[0]
    assert (row["Status"], row["Priority"], row["IsClosed"]) == ("Not Started", "Normal", False)
    assert row["OwnerId"] == row["CreatedById"] == INTEGRATION_USER
    assert codes(send(box, "PATCH", {"id": id, "Status": "Completed"}, type="Task")) == [True]
    (row,) = query(box, "SELECT IsClosed, CompletedDateTime FROM Task")
    assert row["IsClosed"] is True
    assert row["CompletedDateTime"] == "2026-06-30T20:00:00.000+0000"


def test_a_task_of_an_opportunity_belongs_to_its_account(box):
    deal = some(box, "Opportunity")
    new_task(box, WhatId=deal.id)
    (row,) = query(box, "SELECT AccountId FROM Task")
    assert row["AccountId"] == deal.body["AccountId"]


def test_f62_a_second_task_with_the_key_is_told_the_first(box):
    id = new_task(box)
    answer = send(box, "POST", task(box), task(box, HL_Key__c=KEY.upper()), type="Task")
    assert codes(answer) == ["DUPLICATE_VALUE", True]  # the key knows upper from lower case
    message = answer.json()[0]["errors"][0]["message"]
    assert message.endswith(f"duplicates value on record with id: {id[:15]}")
    settings(box).put("keys", {"tells_id": False, "bin_blocks": False}, 0.0)
    (refused,) = results(send(box, "POST", task(box), type="Task"))
    assert refused["errors"][0]["message"].endswith("id: <unknown>")


def test_f64_a_key_twice_in_one_batch_gives_one_task(box):
    answer = send(box, "POST", task(box), task(box), type="Task")
    assert codes(answer) == [True, "DUPLICATE_VALUE"]
    assert results(answer)[0]["id"][:15] in results(answer)[1]["errors"][0]["message"]
    assert len(records(box, "Task").rows(box.now.timestamp())) == 1


@pytest.mark.parametrize("blocks", [True, False])
def test_f68_whether_a_key_in_the_recycle_bin_is_taken_is_a_setting(box, blocks):
    settings(box).put("keys", {"tells_id": True, "bin_blocks": blocks}, 0.0)
    id = new_task(box)
    records(box, "Task").remove(id, box.now.timestamp())
    answer = send(box, "POST", task(box), type="Task")
    assert codes(answer) == ["DUPLICATE_VALUE" if blocks else True]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"OwnerId": "0055g00000zzzzzAAA"}, "INVALID_CROSS_REFERENCE_KEY"),
        ({"OwnerId": "0015g0000000001AAA"}, "INVALID_CROSS_REFERENCE_KEY"),
        ({"OwnerId": SUPPORT_QUEUE}, "FIELD_INTEGRITY_EXCEPTION"),
        ({"WhatId": "0015g00000zzzzzAAA"}, "INVALID_CROSS_REFERENCE_KEY"),
        ({"WhatId": "nothing"}, "MALFORMED_ID"),
        ({"Status": "Snoozed"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"Subject": "x" * 256}, "STRING_TOO_LONG"),
        ({"IsClosed": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"AccountId": "0015g0000000001AAA"}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ],
)
def test_tasks_that_cannot_be_are_refused(box, changes, code):
    assert codes(send(box, "POST", task(box, **changes), type="Task")) == [code]


def test_f70_an_inactive_owner_is_refused_and_a_queue_may_own_a_task(box):
    save(box, "User", SOMEBODY, {"IsActive": False}, box.now.timestamp())
    assert codes(send(box, "POST", task(box, OwnerId=SOMEBODY), type="Task")) == [
        "INACTIVE_OWNER_OR_USER"
    ]
    new_task(box, OwnerId=CS_QUEUE)
    (row,) = query(box, "SELECT OwnerId, Owner.Name FROM Task")
    assert (row["OwnerId"], row["Owner"]["Name"]) == (CS_QUEUE, "CS Queue")


def test_queues_users_and_statuses_are_there_to_be_asked_for(box):
    queues = query(box, "SELECT Queue.Name FROM QueueSobject WHERE SobjectType = 'Task'")
    assert {row["Queue"]["Name"] for row in queues} == {"CS Queue", "Sales Queue"}
    users = query(box, "SELECT Id, IsActive, TimeZoneSidKey, ManagerId FROM User")
    assert {row["TimeZoneSidKey"] for row in users} > {"Europe/Berlin"}
    assert SOMEBODY in {row["ManagerId"] for row in users}
    closed = query(box, "SELECT ApiName FROM TaskStatus WHERE IsClosed = true")
    assert [row["ApiName"] for row in closed] == ["Completed"]


# What people do


def test_f68_what_a_person_changes_says_who_and_when(box):
    id = new_task(box)
    box.move(box.now + dt.timedelta(hours=1))
    save(box, "Task", id, {"Status": "Completed"}, box.now.timestamp())
    text = "SELECT LastModifiedById, SystemModstamp, IsClosed FROM Task WHERE HL_Key__c != null"
    (row,) = query(box, f"{text} AND SystemModstamp >= 2026-06-30T21:00:00Z ORDER BY Id")
    assert (row["LastModifiedById"], row["IsClosed"]) == (SOMEBODY, True)
    assert row["SystemModstamp"] == "2026-06-30T21:00:00.000+0000"


def test_f68_a_deleted_task_is_found_by_its_key_in_query_all_only(box):
    id = new_task(box)
    records(box, "Task").remove(id, box.now.timestamp())
    text = f"SELECT Id, IsDeleted, LastModifiedById FROM Task WHERE HL_Key__c IN ('{KEY}')"
    assert query(box, text) == []
    (row,) = query(box, text, "queryAll")
    assert (row["Id"], row["IsDeleted"], row["LastModifiedById"]) == (id, True, SOMEBODY)


def test_tasks_that_ended_a_year_ago_are_found_by_query_all_only(box):
    new_task(box, Status="Completed")
    box.move(box.now + dt.timedelta(days=364))
    assert len(query(box, "SELECT Id FROM Task")) == 1
    box.move(box.now + dt.timedelta(days=1))
    assert query(box, "SELECT Id FROM Task") == []
    assert len(query(box, "SELECT Id FROM Task WHERE IsArchived = true", "queryAll")) == 1


def test_f65_a_deleted_account_takes_nothing_and_takes_its_tasks_along(box):
    (id,) = accounts(box, 1)
    new_task(box)
    delete(box, "Account", id, box.now.timestamp())
    assert codes(send(box, "PATCH", {"id": id, SCORE: 5})) == ["ENTITY_IS_DELETED"]
    again = task(box, WhatId=id, HL_Key__c="b")
    assert codes(send(box, "POST", again, type="Task")) == ["ENTITY_IS_DELETED"]
    assert query(box, "SELECT Id FROM Task") == []


def test_f66_a_merged_account_tells_its_survivor_which_has_its_tasks(box):
    loser, winner = accounts(box, 2)
    new_task(box)
    merge(box, loser=loser, winner=winner, at=box.now.timestamp())
    assert codes(send(box, "PATCH", {"id": loser, SCORE: 5})) == ["ENTITY_IS_DELETED"]
    text = f"SELECT IsDeleted, MasterRecordId FROM Account WHERE Id = '{loser}'"
    (row,) = query(box, text, "queryAll")
    assert (row["IsDeleted"], row["MasterRecordId"]) == (True, winner)
    (row,) = query(box, "SELECT AccountId FROM Task")
    assert row["AccountId"] == winner


def test_fields_of_ours_outlive_later_versions_of_the_world(world):
    with sandbox(world, NOW - dt.timedelta(days=200), vendors=["salesforce"]) as box:
        provisioned(box)
        rows = records(box, "Account").rows(NOW.timestamp())
        id = next(row.id for row in rows if row.changed > box.now.timestamp() > row.created)
        assert codes(send(box, "PATCH", {"id": id, SCORE: 7})) == [True]
        box.move(NOW)
        assert query(box, f"SELECT {SCORE} FROM Account WHERE Id = '{id}'")[0][SCORE] == 7.0


# Rules that a test orders


def test_f52_locked_records_are_refused_as_often_as_was_ordered(box):
    ids = accounts(box, 5)
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=ids[1:3], times=2)
    batch = [{"id": id, SCORE: 5} for id in ids]
    locked = [True, *["UNABLE_TO_LOCK_ROW"] * 2, True, True]
    assert codes(send(box, "PATCH", *batch)) == locked
    assert codes(send(box, "PATCH", *batch)) == locked
    assert codes(send(box, "PATCH", *batch)) == [True] * 5


def test_f53_a_rule_may_be_about_every_record_or_the_first_few(box):
    ids = accounts(box, 4)
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", most=1)
    batch = [{"id": id, SCORE: 5} for id in ids]
    assert codes(send(box, "PATCH", *batch)) == ["UNABLE_TO_LOCK_ROW", True, True, True]
    assert codes(send(box, "PATCH", *reversed(batch))) == [True, True, True, "UNABLE_TO_LOCK_ROW"]
    refuse(box, "Account", "FIELD_CUSTOM_VALIDATION_EXCEPTION", fields=[SCORE], message="no")
    answer = send(box, "PATCH", *batch)
    assert set(codes(answer)[1:]) == {"FIELD_CUSTOM_VALIDATION_EXCEPTION"}
    assert answer.json()[1]["errors"][0] == {
        "statusCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "no", "fields": [SCORE],
    }  # fmt: skip


def test_f63_a_rule_may_be_about_values(box):
    refuse(box, "Task", "DUPLICATES_DETECTED", where={"Subject": "Call them"}, times=1)
    both = [task(box), task(box, Subject="Write", HL_Key__c="b")]
    assert codes(send(box, "POST", *both, type="Task")) == ["DUPLICATES_DETECTED", True]
    assert codes(send(box, "POST", both[0], type="Task")) == [True]


# Single records, as the library asks for them


def test_the_library_updates_reads_and_deletes_one_record(box, sf):
    (id,) = accounts(box, 1)
    assert sf.Account.update(id, {SCORE: 9}) == 204
    assert sf.Account.get(id)[SCORE] == 9.0
    created = sf.Task.create(task(box))
    assert created["success"]
    assert sf.Task.get_by_custom_id("HL_Key__c", KEY)["Id"] == created["id"]
    assert sf.Task.upsert(f"HL_Key__c/{KEY}", {"Subject": "Write"}) == 200
    hostile = "a/../b?x"
    path = format_external_id("HL_Key__c", hostile)
    assert sf.Task.upsert(path, {"Subject": "Hostile"}) == 201
    assert sf.Task.get_by_custom_id("HL_Key__c", hostile)["Subject"] == "Hostile"
    assert sf.Task.delete(created["id"]) == 204
    with pytest.raises(SalesforceMalformedRequest):
        sf.Account.update(id, {BAND: "purple"})


def test_refusals_of_a_single_record_have_their_status(box):
    (id,) = accounts(box, 1)
    path = f"sobjects/Account/{id}"
    assert refusal(ask(box, path, "PATCH", json={"Nothing": 1})) == (400, "INVALID_FIELD")
    assert refusal(ask(box, "sobjects/Nothing/1", "PATCH", json={})) == (404, "NOT_FOUND")
    assert refusal(ask(box, "sobjects/Task/HL_Nothing__c/1")) == (404, "NOT_FOUND")
    assert refusal(ask(box, f"sobjects/Task/HL_Key__c/{KEY}")) == (404, "NOT_FOUND")
    refuse(box, "Account", "UNABLE_TO_LOCK_ROW", ids=[id], times=1)
    assert refusal(ask(box, path, "PATCH", json={SCORE: 1})) == (400, "UNABLE_TO_LOCK_ROW")
    delete(box, "Account", id, box.now.timestamp())
    assert refusal(ask(box, path, "PATCH", json={SCORE: 1})) == (404, "ENTITY_IS_DELETED")
    assert refusal(ask(box, path)) == (404, "ENTITY_IS_DELETED")


def test_upsert_in_a_batch_creates_what_is_not_there(box):
    path = f"{COLLECTIONS}/Task/HL_Key__c"
    first = results(send(box, "PATCH", task(box), task(box, HL_Key__c="b"), type="Task", path=path))
    assert [one["created"] for one in first] == [True, True]
    again = send(box, "PATCH", task(box, Subject="x"), {"Subject": "y"}, type="Task", path=path)
    assert codes(again) == [True, "MISSING_ARGUMENT"]
    assert (again.json()[0]["created"], again.json()[0]["id"]) == (False, first[0]["id"])
    with_id = send(box, "PATCH", task(box, id=first[0]["id"]), type="Task", path=path)
    assert refusal(with_id) == (400, "INVALID_FIELD")


def test_every_write_is_in_the_log_with_its_fields(box, sf):
    first, second = accounts(box, 2)
    send(box, "PATCH", {"id": first, SCORE: 5, BAND: ""}, {"id": second, BAND: "purple"})
    id = new_task(box)
    sf.Account.update(second, {BAND: "red"})
    seen = [(one.how, one.object, one.id, one.fields) for one in writes(box)]
    assert seen == [
        ("PATCH composite/sobjects", "Account", first, (SCORE,)),
        ("POST composite/sobjects", "Task", id, ("HL_Key__c", "Subject", "WhatId")),
        ("PATCH sobjects", "Account", second, (BAND,)),
    ]


def test_every_write_counts_towards_the_daily_allowance(box):
    (id,) = accounts(box, 1)
    answer = send(box, "PATCH", {"id": id, SCORE: 5})
    assert answer.headers["Sforce-Limit-Info"] == "api-usage=1/100000"
    settings(box).put("api", {"used": 100_000, "allowed": 100_000}, box.now.timestamp())
    assert refusal(send(box, "PATCH", {"id": id, SCORE: 6})) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert values(box, "Account", id)[SCORE] == 5.0


# Bulk 2.0


def bulk(box, text, object="Account", **more):
    """A job with its data uploaded and closed; gives its path."""
    made = {"object": object, "operation": "update", "contentType": "CSV", "lineEnding": "LF"}
    job = ask(box, "jobs/ingest", "POST", json=made | more).json()
    assert job["state"] == "Open"
    path = f"jobs/ingest/{job['id']}"
    assert upload(box, path, text).status_code == 201
    closed = ask(box, path, "PATCH", json={"state": "UploadComplete"})
    assert closed.json()["state"] == "UploadComplete"
    return path


def upload(box, path, text):
    headers = {"Authorization": f"Bearer {box.token('salesforce')}", "Content-Type": "text/csv"}
    url = f"{box.address('salesforce')}/services/data/v64.0/{path}/batches"
    return session(box).put(url, data=text.encode(), headers=headers, timeout=30)


def states(box, path, looks=3):
    return [ask(box, path).json()["state"] for _ in range(looks)]


def table(box, path, kind):
    answer = ask(box, f"{path}/{kind}")
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def cells(*rows, quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def test_a_job_writes_its_rows_and_tells_of_them_in_another_order(box):
    ids = accounts(box, 30)
    send(box, "PATCH", {"id": ids[0], REASONS: "Old", AS_OF: "2026-06-01", BAND: "red"})
    rows = [[id, n, "purple" if n == 7 else "green", f'"{n}",\nok', "#N/A"]
            for n, id in enumerate(ids)]  # fmt: skip
    rows[0][2:] = ["", "", "#N/A"]
    path = bulk(box, cells(["Id", SCORE, BAND, REASONS, AS_OF], *rows))
    assert refusal(ask(box, f"{path}/successfulResults")) == (400, "INVALIDJOBSTATE")
    assert states(box, path) == ["UploadComplete", "InProgress", "JobComplete"]
    done = table(box, path, "successfulResults")
    assert sorted(row["sf__Id"] for row in done) == sorted({*ids} - {ids[7]})
    assert [row["sf__Id"] for row in done] != [id for id in ids if id != ids[7]]
    (failed,) = table(box, path, "failedResults")
    assert failed["sf__Id"] == failed["Id"] == ids[7]
    assert failed["sf__Error"].startswith("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:")
    assert failed["sf__Error"].endswith(f":{BAND} --")
    assert table(box, path, "unprocessedrecords") == table(box, path, "unprocessedRecords") == []
    first, second = (values(box, "Account", id) for id in ids[:2])
    assert (first[REASONS], first[BAND], first[AS_OF]) == ("Old", "red", None)
    assert (second[SCORE], second[REASONS]) == (1.0, '"1",\nok')
    info = ask(box, path).json()
    assert (info["numberRecordsProcessed"], info["numberRecordsFailed"]) == (30, 1)
    assert {one.how for one in writes(box)} == {"PATCH composite/sobjects", "jobs/ingest update"}
    assert ask(box, path, "DELETE").status_code == 204
    assert refusal(ask(box, path)) == (404, "NOT_FOUND")


def test_values_of_the_wrong_type_fail_their_row_only(box):
    ids = accounts(box, 3)
    rows = [[ids[0], "many", ""], [ids[1], "5", "yesterday"], [ids[2], "5", "2026-06-30"]]
    path = bulk(box, cells(["Id", SCORE, AS_OF], *rows))
    states(box, path)
    failed = table(box, path, "failedResults")
    assert {row["sf__Error"].partition(":")[0] for row in failed} == {
        "INVALID_TYPE_ON_FIELD_IN_RECORD"
    }
    assert [row["sf__Id"] for row in table(box, path, "successfulResults")] == [ids[2]]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Id,HL_Nothing__c\n001000000000000AAA,5\n", {}),
        (f"Id,{SCORE}\r\n001000000000000AAA,5\r\n", {}),
        (f"Id,{SCORE}\n001000000000000AAA,5\n", {"lineEnding": "CRLF"}),
    ],
    ids=["field", "crlf", "lf"],
)
def test_f60_a_job_that_cannot_be_read_fails_with_every_row_unprocessed(box, text, more):
    path = bulk(box, text, **more)
    assert states(box, path)[-1] == "Failed"
    assert ask(box, path).json()["errorMessage"].startswith("InvalidBatch")
    assert len(table(box, path, "unprocessedrecords")) == 1
    assert table(box, path, "successfulResults") == table(box, path, "failedResults") == []


def test_f60_a_job_may_be_ordered_to_fail_after_some_rows(box):
    job_orders(box).put("next", {"end": "Failed", "processed": 2}, 0.0)
    ids = accounts(box, 5)
    path = bulk(box, cells(["Id", SCORE], *([id, 5] for id in ids)))
    assert states(box, path) == ["UploadComplete", "InProgress", "Failed"]
    assert {row["sf__Id"] for row in table(box, path, "successfulResults")} == {*ids[:2]}
    assert {row["Id"] for row in table(box, path, "unprocessedRecords")} == {*ids[2:]}
    again = bulk(box, cells(["Id", SCORE], *([id, 6] for id in ids)))
    assert states(box, again)[-1] == "JobComplete"


def test_f60_a_job_that_stays_in_progress_can_be_aborted(box):
    job_orders(box).put("next", {"end": "InProgress", "processed": 1}, 0.0)
    ids = accounts(box, 2)
    path = bulk(box, cells(["Id", SCORE], *([id, 5] for id in ids)))
    assert states(box, path, looks=6)[-1] == "InProgress"
    assert ask(box, path, "PATCH", json={"state": "Aborted"}).json()["state"] == "Aborted"
    assert [row["Id"] for row in table(box, path, "unprocessedrecords")] == ids[1:]
    refused = ask(box, path, "PATCH", json={"state": "UploadComplete"})
    assert refusal(refused) == (400, "INVALIDJOBSTATE")


def test_f60_a_job_is_known_for_seven_days_after_its_end(box):
    path = bulk(box, cells(["Id", SCORE], [accounts(box, 1)[0], 5]))
    states(box, path)
    box.move(box.now + dt.timedelta(days=7))
    assert states(box, path, looks=1) == ["JobComplete"]
    box.move(box.now + dt.timedelta(seconds=1))
    assert refusal(ask(box, path)) == (404, "NOT_FOUND")


def test_f61_an_org_may_have_no_bulk_api(box):
    settings(box).put("bulk", {"refuses": [400, "FEATURENOTENABLED"]}, 0.0)
    made = {"object": "Account", "operation": "update"}
    assert refusal(ask(box, "jobs/ingest", "POST", json=made)) == (400, "FEATURENOTENABLED")
    job = {"operation": "query", "query": "SELECT Id FROM Account"}
    assert ask(box, "jobs/query", "POST", json=job).status_code == 200


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"operation": "hardDelete"}, "INVALIDJOB"),
        ({"contentType": "JSON"}, "INVALIDJOB"),
        ({"lineEnding": "CR"}, "INVALIDJOB"),
        ({"object": "Nothing"}, "INVALID_TYPE"),
        ({"query": "SELECT Id FROM Account"}, "JSON_PARSER_ERROR"),
        ({"operation": "upsert", "externalIdFieldName": "HL_Nothing__c"}, "INVALID_FIELD"),
    ],
)
def test_ingest_jobs_that_cannot_be_are_refused(box, changes, code):
    made = {"object": "Account", "operation": "update", "contentType": "CSV"}
    assert refusal(ask(box, "jobs/ingest", "POST", json=made | changes)) == (400, code)


def test_a_job_takes_one_upload_of_at_most_150_mb(box, monkeypatch):
    monkeypatch.setattr("connectors.sandbox.vendors.salesforce_ingest.LARGEST_UPLOAD_BYTES", 20)
    made = {"object": "Account", "operation": "update"}
    path = f"jobs/ingest/{ask(box, 'jobs/ingest', 'POST', json=made).json()['id']}"
    assert refusal(upload(box, path, "x" * 21)) == (413, "REQUEST_ENTITY_TOO_LARGE")
    assert upload(box, path, "Id\n").status_code == 201
    assert refusal(upload(box, path, "Id\n")) == (400, "INVALIDJOBSTATE")
    assert len(ask(box, "jobs/ingest").json()["records"]) == 1


def test_the_library_runs_a_whole_job(box, sf, monkeypatch):
    monkeypatch.setattr("simple_salesforce.bulk2.sleep", lambda seconds: None)
    ids = accounts(box, 3)
    rows = [{"Id": id, SCORE: "4", BAND: "green"} for id in ids]
    (done,) = sf.bulk2.Account.update(records=rows)
    assert (done["numberRecordsProcessed"], done["numberRecordsFailed"]) == (3, 0)
    results = sf.bulk2.Account.get_successful_records(done["job_id"])
    assert {row["sf__Id"] for row in csv.DictReader(io.StringIO(results))} == {*ids}
    assert sf.bulk2.Account.get_unprocessed_records(done["job_id"]).count("\n") <= 1


def test_tasks_can_be_upserted_by_a_job(box):
    id = new_task(box)
    rows = [["HL_Key__c", "Subject"], [KEY, "Write"], ["b", "New"], ["", "Nothing"]]
    path = bulk(box, cells(*rows), "Task", operation="upsert", externalIdFieldName="HL_Key__c")
    states(box, path)
    done = {row["sf__Created"]: row["sf__Id"] for row in table(box, path, "successfulResults")}
    assert done["false"] == id
    assert done["true"] != id
    (failed,) = table(box, path, "failedResults")
    assert failed["sf__Error"].startswith("MISSING_ARGUMENT")


# Fields and who may see them


def add(box, full_name, **metadata):
    """Add a field with the Tooling API."""
    sent = {"FullName": full_name, "Metadata": {"type": "Text", "label": "x", "length": 9}}
    sent["Metadata"] |= metadata
    return ask(box, "tooling/sobjects/CustomField", "POST", json=sent)


def test_a_new_field_is_there_once_a_permission_set_grants_it(bare):
    box, field = bare, "HL_Risk_Score__c"
    sf = library(box)
    assert add(box, f"Account.{field}", **definition(FIELDS["risk_score"])).status_code == 201
    (id,) = accounts(box, 1)
    described = {one["name"] for one in sf.Account.describe()["fields"]}
    assert field not in described
    assert refusal(send(box, "PATCH", {"id": id, field: 5})) == (400, "INVALID_FIELD")
    found = ask(box, "query", params={"q": f"SELECT {field} FROM Account"})
    assert refusal(found) == (400, "INVALID_FIELD")
    ours = sf.PermissionSet.create({"Name": "Healthloop", "Label": "Healthloop"})["id"]
    sf.PermissionSetAssignment.create({"PermissionSetId": ours, "AssigneeId": INTEGRATION_USER})
    granted = {"ParentId": ours, "SobjectType": "Account", "Field": f"Account.{field}",
               "PermissionsRead": True, "PermissionsEdit": False}  # fmt: skip
    grant = sf.FieldPermissions.create(granted)["id"]
    shown = {one["name"]: one for one in sf.Account.describe()["fields"]}[field]
    assert (shown["type"], shown["precision"], shown["scale"]) == ("double", 18, 0)
    assert shown["updateable"] is False
    assert codes(send(box, "PATCH", {"id": id, field: 5})) == ["INVALID_FIELD_FOR_INSERT_UPDATE"]
    sf.FieldPermissions.update(grant, {"PermissionsEdit": True})
    assert codes(send(box, "PATCH", {"id": id, field: 5})) == [True]
    assert query(box, f"SELECT {field} FROM Account WHERE {field} = 5")[0][field] == 5.0


def test_a_lenient_org_shows_new_fields_to_everybody(bare):
    settings(bare).put("access", {"lenient": True}, 0.0)
    assert add(bare, "Account.HL_Any__c").status_code == 201
    (id,) = accounts(bare, 1)
    assert codes(send(bare, "PATCH", {"id": id, "HL_Any__c": "x"})) == [True]


def test_fields_of_activities_are_those_of_tasks(bare):
    settings(bare).put("access", {"lenient": True}, 0.0)
    key = {"length": 64, "unique": True, "externalId": True, "caseSensitive": True}
    assert add(bare, "Activity.HL_Key__c", **key).status_code == 201
    fields = library(bare).Task.describe()["fields"]
    (shown,) = [one for one in fields if one["name"] == "HL_Key__c"]
    wanted = {"unique", "externalId", "caseSensitive", "custom", "createable", "updateable"}
    assert {name for name in wanted if shown[name]} == wanted
    assert (shown["type"], shown["length"]) == ("string", 64)
    text = "SELECT Id, DeveloperName, TableEnumOrId FROM CustomField WHERE DeveloperName = 'HL_Key'"
    (made,) = ask(bare, "tooling/query", params={"q": text}).json()["records"]
    assert (made["DeveloperName"], made["TableEnumOrId"]) == ("HL_Key", "Activity")


@pytest.mark.parametrize(
    ("name", "metadata", "code"),
    [
        ("Account.HL_There__c", {}, "DUPLICATE_DEVELOPER_NAME"),
        ("Account.arr__c", {}, "DUPLICATE_DEVELOPER_NAME"),
        ("Account.HL_No", {}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Nothing.HL_No__c", {}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Task.HL_No__c", {}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"length": 256}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"label": "x" * 41}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"type": "Colour"}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"type": "Number"}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"type": "Picklist"}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"type": "LongTextArea", "length": 4000}, "FIELD_INTEGRITY_EXCEPTION"),
        ("Account.HL_No__c", {"uniqe": True}, "JSON_PARSER_ERROR"),
    ],
)
def test_fields_that_cannot_be_are_refused(bare, name, metadata, code):
    add(bare, "Account.HL_There__c")
    assert refusal(add(bare, name, **metadata)) == (400, code)


def test_whoever_may_not_customize_the_org_adds_no_field(bare):
    changes = {"PermissionsCustomizeApplication": False}
    save(bare, "PermissionSet", PROFILE_SET, changes, bare.now.timestamp())
    assert refusal(add(bare, "Account.HL_No__c")) == (403, "INSUFFICIENT_ACCESS")


def test_grants_are_there_once_and_only_for_what_is_there(box):
    field = {"ParentId": PERMISSION_SET, "SobjectType": "Account", "PermissionsRead": True}
    answer = send(
        box, "POST", field | {"Field": f"Account.{SCORE}"}, field | {"Field": "Account.HL_No__c"},
        field | {"Field": "Account.Region__c"}, type="FieldPermissions",
    )  # fmt: skip
    bad = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    assert codes(answer) == ["DUPLICATE_VALUE", bad, bad]
    edit = {"ParentId": PERMISSION_SET, "SobjectType": "Task", "PermissionsEdit": True}
    assert codes(send(box, "POST", edit, type="ObjectPermissions")) == ["FIELD_INTEGRITY_EXCEPTION"]
    twice = {"Name": "Healthloop", "Label": "x"}
    assert codes(send(box, "POST", twice, type="PermissionSet")) == ["DUPLICATE_DEVELOPER_NAME"]


def test_f54_without_the_right_to_edit_an_object_its_records_are_refused(box):
    (row,) = query(
        box, "SELECT Id FROM ObjectPermissions WHERE SobjectType = 'Account' "
        f"AND Parent.IsOwnedByProfile = true AND ParentId = '{PROFILE_SET}'",
    )  # fmt: skip
    save(box, "ObjectPermissions", row["Id"], {"PermissionsEdit": False}, box.now.timestamp())
    (id,) = accounts(box, 1)
    assert codes(send(box, "PATCH", {"id": id, SCORE: 5})) == ["INSUFFICIENT_ACCESS_OR_READONLY"]
    assert library(box).Account.describe()["updateable"] is False


def test_rights_that_are_too_wide_can_be_seen(box):
    text = (
        "SELECT PermissionSet.PermissionsModifyAllData, PermissionSet.PermissionsViewAllData "
        f"FROM PermissionSetAssignment WHERE AssigneeId = '{INTEGRATION_USER}'"
    )
    sets = [row["PermissionSet"] for row in query(box, text)]
    assert not any(one["PermissionsModifyAllData"] or one["PermissionsViewAllData"] for one in sets)


def test_the_provisioned_org_takes_every_field_that_we_write(box):
    days = {"number": 7, "text": "x", "long_text": "y", "date": "2026-06-30"}
    for object, table in (("account", "Account"), ("opportunity", "Opportunity")):
        record = {
            field.salesforce: days.get(field.kind, (field.choices or [None])[0])
            for field in written_on(object)
        }
        id = some(box, table, IsDeleted=None).id
        assert codes(send(box, "PATCH", {"id": id} | record, type=table)) == [True]
        asked = ", ".join(record)
        (row,) = query(box, f"SELECT {asked} FROM {table} WHERE Id = '{id}'")
        assert {name: row[name] for name in record} == record


def test_describe_tells_the_words_of_a_task(box, sf):
    fields = {one["name"]: one for one in sf.Task.describe()["fields"]}
    assert [one["value"] for one in fields["Priority"]["picklistValues"]] == [
        "High", "Normal", "Low",
    ]  # fmt: skip
    assert "Completed" in {one["value"] for one in fields["Status"]["picklistValues"]}
    assert fields["IsClosed"]["updateable"] is fields["AccountId"]["createable"] is False
    assert fields["Subject"]["length"] == 255


def test_the_right_to_edit_tasks_is_enough_for_tasks(box):
    now = box.now.timestamp()
    (row,) = query(box, "SELECT Id FROM ObjectPermissions WHERE SobjectType = 'Task'")
    records(box, "ObjectPermissions").remove(row["Id"], now)
    answer = send(box, "POST", task(box), type="Task")
    assert codes(answer) == ["INSUFFICIENT_ACCESS_OR_READONLY"]
    save(box, "PermissionSet", PROFILE_SET, {"PermissionsEditTask": True}, now)
    assert codes(send(box, "POST", task(box), type="Task")) == [True]


def test_f50_nothing_is_written_without_a_session(box):
    (id,) = accounts(box, 1)
    sessions(box).remove(box.token("salesforce"), box.now.timestamp())
    assert refusal(send(box, "PATCH", {"id": id, SCORE: 5})) == (401, "INVALID_SESSION_ID")
    assert writes(box) == []


def test_f17_a_call_whose_answer_is_lost_was_done(box):
    box.faults.add(vendor="salesforce", do="commit_then_502", path="composite")
    assert send(box, "POST", task(box), type="Task").status_code == 502
    assert codes(send(box, "POST", task(box), type="Task")) == ["DUPLICATE_VALUE"]


def test_an_org_may_have_words_of_its_own_for_tasks(box, sf):
    for row in records(box, "TaskStatus").rows(box.now.timestamp()):
        word = row.body["ApiName"].replace("Completed", "Done").replace("Not Started", "New")
        save(box, "TaskStatus", row.id, {"ApiName": word}, box.now.timestamp())
    id = new_task(box)
    assert values(box, "Task", id)["Status"] == "New"
    assert codes(send(box, "PATCH", {"id": id, "Status": "Done"}, type="Task")) == [True]
    assert query(box, "SELECT IsClosed FROM Task")[0]["IsClosed"] is True
    status = next(one for one in sf.Task.describe()["fields"] if one["name"] == "Status")
    (default,) = [one["value"] for one in status["picklistValues"] if one["defaultValue"]]
    assert default == "New"


def test_what_was_written_is_there_in_the_next_sandbox_of_a_journal(world, tmp_path):
    with sandbox(world, NOW, vendors=["salesforce"]) as first:
        first.journal = Journal(tmp_path)
        provisioned(first)
        id = new_task(first)
        send(first, "PATCH", {"id": accounts(first, 1)[0], SCORE: 5})
    with sandbox(world, NOW, vendors=["salesforce"]) as second:
        second.journal = Journal(tmp_path)
        answer = send(second, "POST", task(second), task(second, HL_Key__c="b"), type="Task")
        assert codes(answer) == ["DUPLICATE_VALUE", True]
        assert answer.json()[1]["id"] != id
        found = query(second, f"SELECT {SCORE} FROM Account WHERE {SCORE} = 5")
        assert len(found) == 1
        assert first.defects == second.defects == []


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings_of_hypothesis(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(TEXTS, min_size=1, max_size=8))
def test_every_row_of_a_job_ends_in_one_result_and_text_comes_through_as_it_is(box, texts):
    ids = accounts(box, len(texts))
    send(box, "PATCH", *({"id": id, REASONS: None} for id in ids))
    bands = ("purple", "red", "green")
    rows = [
        [id, text, bands[place % 3]]
        for place, (id, text) in enumerate(zip(ids, texts, strict=True))
    ]
    # The csv module leaves a lone CR unquoted otherwise, which ends a line for whoever reads it.
    path = bulk(box, cells(["Id", REASONS, BAND], *rows, quoting=csv.QUOTE_ALL))
    states(box, path)
    kinds = ("successfulResults", "failedResults", "unprocessedRecords")
    told = {kind: {row["Id"] for row in table(box, path, kind)} for kind in kinds}
    assert sorted(id for found in told.values() for id in found) == sorted(ids)
    for id, text, band in rows:
        kept = None if text in ("", "#N/A") or band == "purple" else text.strip() or text
        assert values(box, "Account", id)[REASONS] == kept


# Many records


def test_a_job_of_many_rows_takes_seconds_and_a_batch_among_many_milliseconds(box):
    """Bounds with room to spare for a busy machine; a scan of the records would break both."""
    count = 20_000
    rows = [[f"key-{n:06}", f"Task {n}"] for n in range(count)]
    began = time.perf_counter()
    states(box, bulk(box, cells(["HL_Key__c", "Subject"], *rows), "Task", operation="insert"))
    assert time.perf_counter() - began < 12
    batch = [task(box, HL_Key__c=f"new-{n}") for n in range(200)]
    began = time.perf_counter()
    assert codes(send(box, "POST", *batch, type="Task")) == [True] * 200
    keys = ", ".join(f"'key-{n:06}'" for n in range(200))
    found = query(box, f"SELECT Id FROM Task WHERE HL_Key__c IN ({keys})")
    assert time.perf_counter() - began < 1
    assert len(found) == 200
