"""The sandbox's HubSpot when it is written to, asked through HubSpot's own Python client."""

import datetime as dt
from math import inf

import hypothesis
import pytest
import requests
from hubspot import HubSpot
from hubspot.crm.associations.v4.exceptions import ApiException as AssociationException
from hubspot.crm.objects.exceptions import ApiException
from hubspot.crm.properties.exceptions import ApiException as PropertyException
from hypothesis import strategies as st

from connectors.sandbox.servers.journal import Journal
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as control
from connectors.sandbox.vendors.hubspot_control import Write
from contracts.crm_fields import read_on, written_on
from contracts.errors import InputError

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
SCORE, BAND, AS_OF = (f"healthloop_risk_{part}" for part in ("score", "band", "as_of"))
KEY = control.KEY
TO_COMPANY = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 192}
OTHER = "70000002"  # an owner


@pytest.fixture
def box(world):
    """A sandbox with HubSpot only, where our properties are there."""
    with sandbox(world, NOW, vendors=["hubspot"]) as box:
        control.provisioned(box)
        yield box
    assert box.defects == []


@pytest.fixture
def objects(box):
    """HubSpot's own client for records."""
    return HubSpot(access_token=box.token("hubspot"), host=box.address("hubspot")).crm.objects


@pytest.fixture
def definitions(box):
    """HubSpot's own client for properties."""
    return HubSpot(access_token=box.token("hubspot"), host=box.address("hubspot")).crm.properties


@pytest.fixture
def ask(box):
    """Asks as anybody could: the status and the answer."""

    def asking(method, path, *, scopes=None, **how):
        token = box.token("hubspot") + (f"/{scopes}" if scopes else "")
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{box.address('hubspot')}{path}"
        return requests.request(method, url, headers=headers, timeout=10, **how)

    return asking


def some(box, type="companies", count=3):
    """The ids of some living records."""
    return [row.id for row in control.collection(box, type).rows(box.now.timestamp())][-count:]


def now_at(box, id, type="companies"):
    """A record's properties as the sandbox keeps them."""
    row = control.collection(box, type).get(id, box.now.timestamp())
    return row and row.body["properties"]


def update(objects, ids, type="companies", traced=True, **properties):
    inputs = [{"id": id, "properties": dict(properties)} for id in ids]
    return send(objects.batch_api.update, type, inputs, traced)


def send(call, type, inputs, traced=True):
    if traced:
        inputs = [one | {"objectWriteTraceId": f"trace-{n}"} for n, one in enumerate(inputs)]
    return call(type, {"inputs": inputs})


def task(key, company=None, **properties):
    values = {KEY: key, "hs_timestamp": "2026-07-02T15:00:00Z", "hs_task_subject": "Call them"}
    links = [{"to": {"id": company}, "types": [TO_COMPANY]}] if company else []
    return {"properties": values | properties, "associations": links}


def create(objects, *tasks, traced=True):
    return send(objects.batch_api.create, "tasks", list(tasks), traced)


def keyed(objects, keys, **more):
    """The ids of tasks by their keys."""
    body = {
        "inputs": [{"id": key} for key in keys], "idProperty": KEY, "properties": [KEY],
        "propertiesWithHistory": [],
    }  # fmt: skip
    answer = objects.batch_api.read("tasks", body, **more)
    return {task.properties[KEY]: task.id for task in answer.results}


def codes(error):
    """What is wrong, by trace or else by id."""
    about = error.context.get("objectWriteTraceId") or error.context["ids"]
    return about, [detail.code for detail in error.errors]


def refused(call, *given, **how):
    """The answer to a call that is refused."""
    with pytest.raises((ApiException, PropertyException)) as raised:
        call(*given, **how)
    return raised.value


# Values


def test_values_go_and_come_as_text_and_the_change_has_its_time(box, objects):
    id = some(box)[0]
    before = objects.basic_api.get_by_id("companies", id)
    box.move(box.now + dt.timedelta(hours=1))
    values = {SCORE: "71", BAND: "red", AS_OF: "2026-06-30"}
    answer = update(objects, [id], **values)
    assert values.items() <= answer.results[0].properties.items()
    assert answer.results[0].object_write_trace_id == "trace-0"
    after = objects.basic_api.get_by_id("companies", id, properties=[SCORE, BAND, AS_OF])
    assert values.items() <= after.properties.items()
    assert after.updated_at == box.now > before.updated_at
    assert after.created_at == before.created_at
    assert after.properties["hs_lastmodifieddate"] == "2026-06-30T21:00:00.000Z"


def test_empty_text_clears(box, objects):
    id = some(box)[0]
    update(objects, [id], **{SCORE: "71"})
    update(objects, [id], **{SCORE: ""})
    assert now_at(box, id)[SCORE] is None
    found = objects.basic_api.get_by_id("companies", id, properties_with_history=[SCORE])
    assert [entry.value for entry in found.properties_with_history[SCORE]] == ["", "71"]


@pytest.mark.parametrize("value", [71, None, True, ["71"]])
def test_a_value_that_is_no_text_spoils_the_batch(box, ask, value):
    id = some(box)[0]
    body = {"inputs": [{"id": id, "properties": {SCORE: value}, "objectWriteTraceId": "a"}]}
    answer = ask("POST", "/crm/v3/objects/companies/batch/update", json=body)
    assert (answer.status_code, answer.json()["category"]) == (400, "VALIDATION_ERROR")
    assert control.writes(box) == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (SCORE, "high", "INVALID_INTEGER"),
        (SCORE, "nan", "INVALID_INTEGER"),
        (BAND, "purple", "INVALID_OPTION"),
        (AS_OF, "30.06.2026", "INVALID_DATE"),
        (AS_OF, "1782777600001", "INVALID_DATE"),
        ("hubspot_owner_id", "1", "INVALID_OWNER_ID"),
        ("hs_merged_object_ids", "1", "READ_ONLY_VALUE"),
        ("healthloop_risk_reasons", "x" * 65_537, "PROPERTY_VALUE_TOO_LONG"),
    ],
)
def test_f54_a_bad_value_is_told_for_its_record_and_the_others_land(
    box, objects, name, value, code
):
    bad, good = some(box, count=2)
    inputs = [
        {"id": bad, "properties": {SCORE: "5", name: value}},
        {"id": good, "properties": {SCORE: "6"}},
    ]
    answer = send(objects.batch_api.update, "companies", inputs)
    assert [record.id for record in answer.results] == [good]
    assert answer.num_errors == 1
    assert codes(answer.errors[0]) == (["trace-0"], [code])
    assert now_at(box, bad).get(SCORE) is None
    assert now_at(box, good)[SCORE] == "6"


@pytest.mark.parametrize("value", ["2026-06-30", "1782777600000"])
def test_a_day_comes_back_as_a_day(box, objects, value):
    id = some(box)[0]
    assert update(objects, [id], **{AS_OF: value}).results[0].properties[AS_OF] == "2026-06-30"


@pytest.mark.parametrize(
    "value", ["2026-07-02T15:00:00Z", "2026-07-02T17:00:00+02:00", "1783004400000"]
)
def test_a_moment_comes_back_in_one_form(objects, value):
    made = create(objects, task("a", hs_timestamp=value)).results[0]
    assert made.properties["hs_timestamp"] == "2026-07-02T15:00:00.000Z"


# Batches


@pytest.mark.parametrize(("traced", "setting"), [(False, "traced"), (True, "never")])
def test_f55_one_bad_record_spoils_a_batch_that_may_not_succeed_in_part(
    box, objects, traced, setting
):
    control.settings(box, partial_updates=setting)
    bad, good = some(box, count=2)
    inputs = [{"id": bad, "properties": {BAND: "purple"}}, {"id": good, "properties": {SCORE: "1"}}]
    error = refused(send, objects.batch_api.update, "companies", inputs, traced)
    assert error.status == 400
    assert "INVALID_OPTION" in error.body
    assert control.writes(box) == []


@pytest.mark.parametrize("traced", [False, True])
def test_f55_an_unknown_property_spoils_the_batch_and_is_named(box, objects, traced):
    error = refused(update, objects, some(box), traced=traced, healthloop_mood="sad")
    assert error.status == 400
    assert '"code":"PROPERTY_DOESNT_EXIST"' in error.body
    assert '"propertyName":["healthloop_mood"]' in error.body
    assert control.writes(box) == []


def test_f65_records_that_are_gone_are_told_together_and_not_made_again(box, objects):
    kept, gone = some(box, count=2)
    objects.basic_api.archive("companies", gone)
    answer = update(objects, ["12345", kept, gone], **{SCORE: "9"})
    assert [record.id for record in answer.results] == [kept]
    assert [error.category for error in answer.errors] == ["OBJECT_NOT_FOUND"]
    assert answer.errors[0].context["ids"] == ["12345", gone]
    assert answer.num_errors == 2
    assert now_at(box, gone) is None
    assert (
        refused(objects.basic_api.update, "companies", gone, {"properties": {SCORE: "1"}}).status
        == 404
    )


def test_f67_a_merged_company_is_written_under_its_new_id(box, objects):
    one, two = some(box, count=2)
    new = control.merge(box, one, two)
    answer = update(objects, [two], **{SCORE: "50"})
    assert [record.id for record in answer.results] == [new]
    assert answer.results[0].object_write_trace_id == "trace-0"
    assert now_at(box, new)[SCORE] == "50"
    assert now_at(box, one) is now_at(box, two) is None
    read = objects.basic_api.get_by_id("companies", one)
    assert read.id == new


def test_the_same_record_twice_spoils_the_batch_under_whatever_id(box, objects):
    one, two, three = some(box)
    assert refused(update, objects, [one, one], **{SCORE: "1"}).status == 400
    control.merge(box, one, two)
    assert "Duplicate" in refused(update, objects, [one, three, two], **{SCORE: "1"}).body
    assert control.writes(box) == []


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [{"id": "1", "properties": {SCORE: "1"}}] * 101},
        {"inputs": [{"id": "1"}]},
        {"inputs": [{"id": "1", "properties": {}}]},
        {"inputs": [{"id": 1, "properties": {SCORE: "1"}}]},
        {"inputs": [{"id": "1", "properties": {SCORE: "1"}, "associations": []}]},
        {"inputs": [{"id": "1", "properties": {SCORE: "1"}, "idProperty": SCORE}]},
        {"inputs": [{"properties": {SCORE: "1"}}]},
        {"inputs": ["1"]},
        {"input": []},
    ],
)
def test_a_call_of_the_wrong_form_is_refused(ask, body):
    answer = ask("POST", "/crm/v3/objects/companies/batch/update", json=body)
    assert (answer.status_code, answer.json()["category"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("version", ["2026-03", "2026-09"])
def test_dated_paths_write_too(box, ask, version):
    id = some(box)[0]
    body = {"inputs": [{"id": id, "properties": {SCORE: "3"}}]}
    done = ask("POST", f"/crm/objects/{version}/companies/batch/update", json=body)
    assert done.status_code == 200
    made = {"inputs": [task("a")]}
    assert ask("POST", f"/crm/objects/{version}/0-27/batch/create", json=made).status_code == 201
    assert ask("GET", f"/crm/properties/{version}/tasks/{KEY}").json()["hasUniqueValue"] is True
    [made] = control.collection(box, "tasks").rows(inf)[-1:]
    linked = f"/crm/objects/{version}/task/{made.id}/associations/default/company/{id}"
    assert ask("PUT", linked).status_code == 200


def test_single_calls_write_as_batches_do(box, objects):
    id = some(box)[0]
    done = objects.basic_api.update("companies", id, {"properties": {SCORE: "12"}})
    assert (done.id, done.properties[SCORE]) == (id, "12")
    made = objects.basic_api.create("tasks", task("a", id))
    assert keyed(objects, ["a"]) == {"a": made.id}
    by_key = objects.basic_api.update(
        "tasks", "a", {"properties": {"hs_task_status": "COMPLETED"}}, id_property=KEY
    )
    assert by_key.id == made.id
    conflict = refused(objects.basic_api.create, "tasks", task("a"))
    assert (conflict.status, made.id in conflict.body) == (409, True)
    wrong = refused(objects.basic_api.update, "companies", id, {"properties": {BAND: "blue"}})
    assert wrong.status == 400


# Tasks and their key


def test_a_task_is_made_with_its_company_in_one_call(box, objects, ask):
    company = some(box)[0]
    body = "<b>Why</b> & <script>alert(1)</script>"
    made = create(objects, task("a", company, hs_task_body=body, hubspot_owner_id=OTHER))
    id = made.results[0].id
    assert now_at(box, id, "tasks")["hs_task_body"] == body
    read = {"inputs": [{"id": id}]}
    linked = ask("POST", "/crm/v4/associations/tasks/companies/batch/read", json=read).json()
    assert linked["results"][0]["to"][0]["toObjectId"] == int(company)
    assert linked["results"][0]["to"][0]["associationTypes"][0]["typeId"] == 192
    listed = objects.basic_api.get_page("tasks", after=str(int(id) - 1), associations=["companies"])
    assert [one.id for one in listed.results[0].associations["companies"].results] == [company]


def test_a_task_is_linked_to_the_company_into_which_its_own_was_merged(box, objects):
    one, two = some(box, count=2)
    new = control.merge(box, one, two)
    id = create(objects, task("a", two)).results[0].id
    row = control.collection(box, "tasks").get(id, inf)
    assert row.body["associations"] == {"companies": [new]}


def test_f62_a_key_that_exists_is_a_conflict_that_names_the_task(box, objects):
    first = create(objects, task("a"), task("b")).results
    again = create(objects, task("c"), task("a"))
    assert [made.properties[KEY] for made in again.results] == ["c"]
    error = again.errors[0]
    assert (error.category, codes(error)) == (
        "CONFLICT",
        (["trace-1"], ["CONFLICTING_UNIQUE_VALUE"]),
    )
    assert error.message.endswith(f"existing object id {first[0].id}")
    assert len(keyed(objects, ["a", "b", "c"])) == 3


@pytest.mark.parametrize(("shape", "said"), [(409, "CONFLICT"), (400, "CONFLICTING_UNIQUE_VALUE")])
def test_f62_without_traces_one_conflict_spoils_the_batch_and_names_the_first(
    box, objects, shape, said
):
    control.settings(box, conflict=shape)
    first, second = create(objects, task("a"), task("b")).results
    error = refused(create, objects, task("c"), task("a"), task("b"), traced=False)
    assert error.status == shape
    assert said in error.body
    assert first.id in error.body
    assert second.id not in error.body
    assert keyed(objects, ["a", "b", "c"]).keys() == {"a", "b"}


def test_f64_the_same_key_twice_in_one_batch_makes_one_task(objects):
    answer = create(objects, task("a"), task("a"))
    assert len(answer.results) == answer.num_errors == 1
    assert answer.errors[0].message.endswith(f"existing object id {answer.results[0].id}")


def test_tasks_are_read_back_by_key_at_once_and_those_that_are_not_there_are_named(objects):
    create(objects, task("a"), task("b"))
    body = {
        "inputs": [{"id": key} for key in ("b", "x", "a")], "idProperty": KEY,
        "properties": ["hs_task_subject"], "propertiesWithHistory": [],
    }  # fmt: skip
    answer = objects.batch_api.read("tasks", body)
    assert [found.properties["hs_task_subject"] for found in answer.results] == ["Call them"] * 2
    assert answer.errors[0].context == {"ids": ["x"]}
    unique = refused(objects.batch_api.read, "tasks", body | {"idProperty": "hs_task_subject"})
    assert "non-unique" in unique.body


@pytest.mark.parametrize("keeps", [False, True])
def test_a_deleted_task_is_found_among_the_archived_and_may_keep_its_key(box, objects, keeps):
    control.settings(box, archived_keeps_values=keeps)
    id = create(objects, task("a")).results[0].id
    control.collection(box, "tasks").remove(id, box.now.timestamp())
    assert keyed(objects, ["a"]) == {}
    assert keyed(objects, ["a"], archived=True) == {"a": id}
    again = create(objects, task("a"))
    assert len(again.results) == (0 if keeps else 1)


def test_a_key_is_free_once_it_was_changed(box, objects):
    id = create(objects, task("a")).results[0].id
    update(objects, [id], "tasks", **{KEY: "b"})
    assert keyed(objects, ["a", "b"]) == {"b": id}
    other = create(objects, task("a")).results[0].id
    answer = update(objects, [other], "tasks", **{KEY: "b"})
    assert codes(answer.errors[0]) == (["trace-0"], ["CONFLICTING_UNIQUE_VALUE"])


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"hs_timestamp": ""}, "REQUIRED_FIELD"),
        ({"hs_timestamp": "soon"}, "INVALID_DATE"),
        ({"hs_task_status": "DONE"}, "INVALID_OPTION"),
        ({"hs_task_priority": "high"}, "INVALID_OPTION"),
        ({"hs_queue_membership_ids": "5"}, "READ_ONLY_VALUE"),
    ],
)
def test_f54_a_task_that_breaks_a_rule_is_refused_alone(objects, values, code):
    answer = create(objects, task("a", **values), task("b"))
    assert codes(answer.errors[0]) == (["trace-0"], [code])
    assert keyed(objects, ["a", "b"]).keys() == {"b"}


def test_f70_an_inactive_owner_is_refused_for_the_task(box, objects):
    create(objects, task("a", hubspot_owner_id=OTHER))
    control.collection(box, "owners").remove(OTHER, box.now.timestamp())
    answer = create(objects, task("b", hubspot_owner_id=OTHER), task("c"))
    assert codes(answer.errors[0]) == (["trace-0"], ["INVALID_OWNER_ID"])
    assert keyed(objects, ["b", "c"]).keys() == {"c"}


def test_queues_may_be_written_where_the_portal_lets_them(box, objects):
    control.settings(box, queues_read_only=False)
    assert create(objects, task("a", hs_queue_membership_ids="5")).results


def test_a_company_that_is_not_there_cannot_be_linked(box, objects):
    answer = create(objects, task("a", "12345"), task("b", some(box)[0]))
    assert answer.errors[0].category == "VALIDATION_ERROR"
    assert answer.errors[0].context["INVALID_OBJECT_IDS"] == ["COMPANY=12345 is not valid"]
    assert answer.errors[0].context["objectWriteTraceId"] == ["trace-0"]
    assert keyed(objects, ["a", "b"]).keys() == {"b"}
    to_contact = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 193}
    wrong = task("c") | {"associations": [{"to": {"id": some(box)[0]}, "types": [to_contact]}]}
    assert refused(create, objects, wrong).status == 400


def test_every_input_of_a_batch_is_told_once_and_only_the_good_ones_land(box, objects):
    company, made = some(box)[0], iter(range(10**6))
    create(objects, task("taken"))
    sent = {
        "good": lambda: task(f"key-{next(made)}", company),
        "taken": lambda: task("taken", company),
        "bad": lambda: task(f"key-{next(made)}", company, hs_task_status="DONE"),
        "gone": lambda: task(f"key-{next(made)}", "12345"),
    }

    @hypothesis.settings(max_examples=25, deadline=None)
    @hypothesis.given(st.lists(st.sampled_from(sorted(sent)), min_size=1, max_size=9))
    def check(kinds):
        before = len(control.writes(box))
        answer = create(objects, *(sent[kind]() for kind in kinds))
        errors = [codes(error)[0][0] for error in getattr(answer, "errors", [])]
        results = [result.object_write_trace_id for result in answer.results]
        assert sorted(results + errors) == [f"trace-{n}" for n in range(len(kinds))]
        assert results == [f"trace-{n}" for n, kind in enumerate(kinds) if kind == "good"]
        landed = {write.id for write in control.writes(box)[before:]}
        assert landed == {result.id for result in answer.results}

    check()


# Upserts and associations


def test_an_upsert_makes_and_then_changes_and_takes_no_associations(box, objects):
    one = {"id": "a", "idProperty": KEY, "properties": {"hs_timestamp": "1783004400000"}}
    made = send(objects.batch_api.upsert, "tasks", [one]).results[0]
    assert (made.new, made.properties[KEY]) == (True, "a")
    again = one | {"properties": {"hs_task_status": "COMPLETED"}}
    done = send(objects.batch_api.upsert, "tasks", [again]).results[0]
    assert (done.new, done.id) == (False, made.id)
    linked = one | {"associations": [{"to": {"id": some(box)[0]}, "types": [TO_COMPANY]}]}
    assert refused(send, objects.batch_api.upsert, "tasks", [linked]).status == 400
    assert "Duplicate" in refused(send, objects.batch_api.upsert, "tasks", [one, one]).body
    new = one | {"id": "b"}
    assert "Duplicate" in refused(send, objects.batch_api.upsert, "tasks", [new, new]).body
    by_name = one | {"idProperty": "hs_task_subject"}
    assert "non-unique" in refused(send, objects.batch_api.upsert, "tasks", [by_name]).body


def test_linking_twice_is_linking_once(box, objects):
    company = some(box)[0]
    id = create(objects, task("a")).results[0].id
    client = HubSpot(access_token=box.token("hubspot"), host=box.address("hubspot"))
    link = client.crm.associations.v4.basic_api.create_default
    for _ in range(2):
        answer = link("task", id, "company", company)
        assert answer.results[0].association_spec.association_type_id == 192
    row = control.collection(box, "tasks").get(id, inf)
    assert row.body["associations"] == {"companies": [company]}
    assert [write.kind for write in control.writes(box)] == ["create", "associate"]
    with pytest.raises(AssociationException, match="INVALID_OBJECT_IDS"):
        link("task", id, "company", "12345")
    with pytest.raises(AssociationException, match="no default association"):
        link("task", id, "task", id)


def test_archiving_twice_is_archiving_once(box, objects):
    one, two = some(box, "deals", 2)
    objects.basic_api.archive("deals", one)
    objects.batch_api.archive("deals", {"inputs": [{"id": one}, {"id": two}]})
    assert [(write.kind, write.id) for write in control.writes(box)] == [
        ("archive", one),
        ("archive", two),
    ]
    listed = objects.basic_api.get_page("deals", archived=True, limit=100).results
    assert {one, two} <= {record.id for record in listed}


# Properties


def definition(name, **more):
    common = {"name": name, "label": "L", "type": "string", "fieldType": "text"}
    return common | {"groupName": "healthloop"} | more


def test_what_provision_needs_is_there_once_it_was_made(box, definitions):
    found = {one.name: one for one in definitions.core_api.get_all("companies").results}
    for field in (*written_on("account"), *read_on("account")):
        assert found[field.hubspot].label == field.label
    assert [option.value for option in found[BAND].options] == ["red", "yellow", "green", "unknown"]
    assert (found[AS_OF].type, found[SCORE].type) == ("date", "number")
    key = definitions.core_api.get_by_name("tasks", KEY)
    assert (key.has_unique_value, key.hubspot_defined) == (True, False)
    assert definitions.core_api.get_by_name("tasks", "hs_task_status").hubspot_defined
    groups = definitions.groups_api.get_all("tasks").results
    assert {group.name for group in groups} == {"task", "healthloop"}


def test_a_new_property_can_be_written_searched_and_shown_at_once(box, objects, definitions):
    made = definitions.core_api.create("companies", definition("mood"))
    assert (made.name, made.archived, made.has_unique_value) == ("mood", False, False)
    id = some(box)[0]
    assert (
        objects.basic_api.get_by_id("companies", id, properties=["mood"]).properties["mood"] is None
    )
    request = {
        "filterGroups": [{"filters": [{"propertyName": "mood", "operator": "HAS_PROPERTY"}]}]
    }
    assert objects.search_api.do_search("companies", request).total == 0
    update(objects, [id], mood="good")
    assert now_at(box, id)["mood"] == "good"
    definitions.core_api.archive("companies", "mood")
    assert "PROPERTY_DOESNT_EXIST" in refused(update, objects, [id], mood="bad").body


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (definition(SCORE), 409),
        (definition("name"), 409),
        (definition("Big"), 400),
        (definition("a", groupName="no_such"), 400),
        (definition("a", fieldType="number"), 400),
        (definition("a", type="enumeration", fieldType="select"), 400),
        (definition("a", type="date", fieldType="date", hasUniqueValue=True), 400),
        (definition("a", colour="red"), 400),
        ({"name": "a"}, 400),
    ],
)
def test_a_definition_that_cannot_be_is_refused(ask, given, status):
    assert ask("POST", "/crm/v3/properties/companies", json=given).status_code == status


def test_a_definition_can_be_changed_but_for_its_uniqueness(box, ask, definitions):
    changed = definitions.core_api.update("companies", SCORE, {"label": "Churn risk"})
    assert changed.label == "Churn risk"
    path = f"/crm/v3/properties/tasks/{KEY}"
    assert ask("PATCH", path, json={"hasUniqueValue": False}).status_code == 400
    assert ask("PATCH", "/crm/v3/properties/companies/name", json={"label": "N"}).status_code == 400
    assert ask("PATCH", "/crm/v3/properties/companies/nothing", json={}).status_code == 404
    assert ask("DELETE", "/crm/v3/properties/companies/name").status_code == 400


def test_ten_properties_may_be_unique_and_those_of_tasks_only_where_the_portal_takes_them(box, ask):
    for number in range(10):
        made = definition(f"unique_{number}", hasUniqueValue=True)
        assert ask("POST", "/crm/v3/properties/companies", json=made).status_code == 201
    more = definition("unique_10", hasUniqueValue=True)
    assert ask("POST", "/crm/v3/properties/companies", json=more).status_code == 400
    control.settings(box, unique_tasks=False)
    assert ask("POST", "/crm/v3/properties/tasks", json=more).status_code == 400
    plain = definition("unique_10")
    assert ask("POST", "/crm/v3/properties/tasks", json=plain).status_code == 201


def test_several_properties_and_a_group_are_made_each_on_its_own(box, definitions):
    group = definitions.groups_api.create("deals", {"name": "g", "label": "G"})
    assert (group.name, group.archived) == ("g", False)
    assert (
        refused(definitions.groups_api.create, "deals", {"name": "g", "label": "G"}).status == 409
    )
    inputs = [definition("one", groupName="g"), definition(SCORE), definition("two")]
    answer = definitions.batch_api.create("deals", {"inputs": inputs})
    assert [made.name for made in answer.results] == ["one", "two"]
    assert answer.errors[0].context == {"name": [SCORE]}


# Rules, rights and budgets


@pytest.mark.parametrize(("do", "status", "wait"), [("lock", 423, None), ("migrate", 477, "60")])
def test_f58_a_call_with_a_locked_record_is_refused_as_a_whole(box, objects, do, status, wait):
    ids = some(box)
    control.order(box, do, object="companies", ids=[ids[1]])
    error = refused(update, objects, ids, **{SCORE: "1"})
    assert (error.status, error.headers.get("Retry-After")) == (status, wait)
    assert control.writes(box) == []
    assert len(update(objects, ids, **{SCORE: "1"}).results) == 3


def test_f54_a_rule_refuses_some_records_as_often_as_it_was_ordered(box, objects):
    ids = some(box)
    control.order(box, "reject", object="companies", ids=ids[:1], times=2, message="No.")
    for _ in range(2):
        answer = update(objects, ids, **{SCORE: "1"})
        assert [record.id for record in answer.results] == ids[1:]
        assert (answer.errors[0].message, *codes(answer.errors[0])[0]) == ("No.", "trace-0")
    assert len(update(objects, ids, **{SCORE: "1"}).results) == 3


@pytest.mark.parametrize("echo", [False, True])
def test_f56_a_write_may_do_nothing_although_all_seems_well(box, objects, echo):
    ids = some(box)
    control.order(box, "ignore", object="companies", ids=ids[:1], echo=echo)
    answer = update(objects, ids, **{SCORE: "1"})
    shown = {record.id: record.properties[SCORE] for record in answer.results}
    assert shown == {ids[0]: "1" if echo else None, ids[1]: "1", ids[2]: "1"}
    assert now_at(box, ids[0]).get(SCORE) is None
    assert {write.id for write in control.writes(box)} == set(ids[1:])


@pytest.mark.parametrize("landed", [True, False])
def test_f57_an_answer_may_forget_some_records(box, objects, landed):
    control.order(box, "forget", object="tasks", ids=["a"], landed=landed)
    answer = create(objects, task("a"), task("b"))
    assert [made.properties[KEY] for made in answer.results] == ["b"]
    assert (answer.errors, answer.num_errors) == ([], 1)
    assert keyed(objects, ["a", "b"]).keys() == ({"a", "b"} if landed else {"b"})


def test_f59_an_answer_may_come_in_another_order_and_be_short(box, objects):
    ids = some(box)
    control.order(box, "shuffle", object="companies", ids=[ids[1]])
    answer = update(objects, ids, **{SCORE: "1"})
    assert [record.id for record in answer.results] == [ids[2], ids[0]]
    assert now_at(box, ids[1])[SCORE] == "1"
    control.order(box, "shuffle", object="companies")
    assert [record.id for record in update(objects, ids, **{SCORE: "2"}).results] == ids[::-1]


def test_f17_a_write_whose_answer_is_lost_has_landed(box, objects):
    box.faults.add(vendor="hubspot", path="batch/create", do="commit_then_502")
    assert refused(create, objects, task("a")).status == 502
    assert keyed(objects, ["a"]).keys() == {"a"}


def test_what_cannot_be_ordered_says_so(box):
    with pytest.raises(InputError, match="lock"):
        control.order(box, "lok", object="companies")
    with pytest.raises(InputError, match="no option"):
        control.order(box, "lock", object="companies", landed=True)
    with pytest.raises(InputError, match="daily_limit"):
        control.settings(box, daily_limits=1)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/crm/v3/objects/companies/batch/update", "crm.objects.companies.write"),
        ("POST", "/crm/v3/objects/deals/batch/update", "crm.objects.deals.write"),
        ("POST", "/crm/v3/objects/tasks/batch/create", "crm.objects.contacts.write"),
        ("DELETE", "/crm/v3/objects/tasks/1", "crm.objects.contacts.write"),
        ("GET", "/crm/v3/properties/companies", "crm.schemas.companies.read"),
        ("POST", "/crm/v3/properties/companies", "crm.schemas.companies.write"),
        ("POST", "/crm/v3/properties/tasks/groups", "crm.schemas.contacts.write"),
    ],
)
def test_each_kind_of_write_needs_its_scope(ask, method, path, scope):
    reading = ask(method, path, scopes="crm.objects.companies.read", json={})
    assert reading.status_code == 403
    assert reading.json()["errors"][0]["context"] == {"requiredGranularScopes": [scope]}
    assert ask(method, path, scopes=scope, json={}).status_code != 403


def test_a_token_tells_what_it_may_do(box, ask):
    path = "/oauth/v2/private-apps/get/access-token-info"
    whole = ask("POST", path, json={"tokenKey": box.token("hubspot")}).json()
    assert {"crm.objects.companies.write", "crm.schemas.deals.write"} <= set(whole["scopes"])
    narrow = ask("POST", path, json={"tokenKey": f"{box.token('hubspot')}/crm.objects.owners.read"})
    assert narrow.json()["scopes"] == ["crm.objects.owners.read"]
    assert ask("POST", path, json={"tokenKey": "wrong"}).status_code == 404


def test_surveys_cannot_be_written(ask):
    body = {"inputs": [{"id": "1", "properties": {"hs_value": "10"}}]}
    path = "/crm/v3/objects/feedback_submissions/batch/update"
    assert ask("POST", path, json=body).status_code == 400


def test_f03_the_days_budget_is_shared_told_and_begins_anew_at_midnight(box, ask):
    control.settings(box, daily_limit=100, used_by_others=97)
    path = "/account-info/v3/api-usage/daily/private-apps"
    told = ask("GET", path)
    assert told.headers["X-HubSpot-RateLimit-Daily-Remaining"] == "2"
    usage = told.json()["results"][0]
    assert (usage["usageLimit"], usage["currentUsage"]) == (100, 98)
    assert usage["resetsAt"] == "2026-06-30T22:00:00.000Z"  # midnight in Berlin
    assert [ask("GET", path).status_code for _ in range(3)] == [200, 200, 429]
    assert ask("GET", path).json()["policyName"] == "DAILY"
    box.move(box.now + dt.timedelta(hours=2))
    control.settings(box, used_by_others=0)
    assert ask("GET", path).json()["results"][0]["currentUsage"] == 1


def test_types_of_association_are_listed(ask):
    listed = ask("GET", "/crm/v4/associations/tasks/companies/labels").json()["results"]
    assert listed == [{"category": "HUBSPOT_DEFINED", "typeId": 192, "label": None}]


def test_no_write_looks_at_all_records(box, objects, monkeypatch):
    ids = some(box)
    update(objects, ids, **{SCORE: "1"})
    create(objects, task("a", ids[0]))

    def scanning(*given, **how):
        raise AssertionError("all records were looked at")

    for type in ("companies", "tasks"):
        for method in ("rows", "changes", "derived"):
            monkeypatch.setattr(control.collection(box, type), method, scanning)
    assert len(update(objects, ids, **{SCORE: "2"}).results) == 3
    assert len(create(objects, task("b", ids[0]), task("a")).results) == 1
    assert keyed(objects, ["a", "b"]).keys() == {"a", "b"}


# What is left behind


def test_every_write_is_kept_with_the_names_of_its_properties(box, objects):
    id = some(box)[0]
    update(objects, [id], **{SCORE: "1", BAND: "green"})
    made = create(objects, task("a")).results[0].id
    at = box.now.timestamp()
    assert control.writes(box) == [
        Write("update", "companies", id, (BAND, SCORE), at),
        Write("create", "tasks", made, (KEY, "hs_task_subject", "hs_timestamp"), at),
    ]


def test_the_history_tells_people_from_the_app(box, objects):
    id = some(box)[0]
    update(objects, [id], **{SCORE: "1", BAND: "green"})
    control.edit(box, "companies", id, **{SCORE: "2"})
    box.move(box.now + dt.timedelta(minutes=1))
    update(objects, [id], **{SCORE: "3"})
    control.edit(box, "companies", id, **{BAND: "red"})
    found = objects.basic_api.get_by_id("companies", id, properties_with_history=[SCORE, BAND])
    told = {
        name: [(entry.value, entry.source_type) for entry in found.properties_with_history[name]]
        for name in (SCORE, BAND)
    }
    assert told == {
        SCORE: [("3", "INTEGRATION"), ("2", "CRM_UI"), ("1", "INTEGRATION")],
        BAND: [("red", "CRM_UI"), ("green", "INTEGRATION")],
    }


def test_the_search_finds_a_write_a_minute_later(box, objects):
    create(objects, task("a"))
    by_key = {"propertyName": KEY, "operator": "EQ", "value": "a"}
    request = {"filterGroups": [{"filters": [by_key]}], "properties": [KEY]}
    assert objects.search_api.do_search("tasks", request).total == 0
    box.move(box.now + dt.timedelta(minutes=1))
    assert objects.search_api.do_search("tasks", request).total == 1


def test_a_walk_by_id_finds_what_a_plain_search_finds(box, objects):
    since = str(int((box.now - dt.timedelta(days=400)).timestamp() * 1000))
    changed = {"propertyName": "hs_lastmodifieddate", "operator": "GTE", "value": since}
    whole = objects.search_api.do_search(
        "companies", {"filterGroups": [{"filters": [changed]}], "limit": 200}
    )
    walked, last = [], "0"
    while True:
        after = {"propertyName": "hs_object_id", "operator": "GT", "value": last}
        page = objects.search_api.do_search(
            "companies",
            {
                "filterGroups": [{"filters": [changed, after]}],
                "sorts": ["hs_object_id"],
                "limit": 7,
            },
        )
        walked += [record.id for record in page.results]
        assert page.total == whole.total - len(walked) + len(page.results)
        if page.paging is None:
            break
        last = walked[-1]
    assert walked == sorted(record.id for record in whole.results)
    assert len(walked) > 20


def test_what_was_written_is_there_in_the_next_sandbox(world, tmp_path):
    def begin():
        return sandbox(world, NOW, vendors=["hubspot"])

    for attempt in range(2):
        with begin() as box:
            box.journal = Journal(tmp_path)
            objects = HubSpot(access_token=box.token("hubspot"), host=box.address("hubspot")).crm
            if attempt == 0:
                control.provisioned(box)
                made = create(objects.objects, task("a", some(box)[0])).results[0].id
            else:
                assert keyed(objects.objects, ["a"]) == {"a": made}
                again = create(objects.objects, task("a"), task("b"))
                assert [int(one.id) for one in again.results] == [int(made) + 1]
            assert box.defects == []
