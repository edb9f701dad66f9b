"""Salesforce: what an org needs for writing, made where it lacks; rights, neither more nor less."""

from collections import Counter
from functools import partial

import pytest
from conftest import NOW
from salesforce_writing import MANAGER, changes, ids, provisioner_of, score, task, writer_of

from connectors.crm.settings import TaskNames
from connectors.crm.writing import Outcome
from connectors.http import Http
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce_ids import record_id
from connectors.sandbox.vendors.salesforce_metadata import add_field, provisioned
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_setup import PROFILE_SET
from connectors.sandbox.vendors.salesforce_writes import writes
from connectors.vendors.salesforce import client as client_module
from connectors.vendors.salesforce.drafts import words_of
from connectors.vendors.salesforce.wanted import wanted_fields, wanted_of_tasks
from contracts.errors import InputError, OutcomeUnknown, SourceRejected

SET = "permission set Healthloop"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(client_module, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


def states(steps):
    return dict(Counter(step.state for step in steps))


def carry_out(provisioner):
    """Everything that is missing, as the command does it."""
    for step in provisioner.steps():
        if step.state == "missing":
            provisioner.carry_out(step)


def allow(box, **rights):
    """Change the rights of the profile of the integration's user."""
    table, now = records(box, "PermissionSet"), box.now.timestamp()
    table.put(PROFILE_SET, table.get(PROFILE_SET, now).body | rights, now)


def problems(findings):
    return [finding.seen for finding in findings if finding.level == "problem"]


# Provisioning


def test_an_org_without_anything_is_made_ready_to_be_written_to(box):
    provisioner, writer = provisioner_of(box), writer_of(box)
    assert problems(writer.ready(fields=True, tasks=True))
    assert set(states(provisioner.steps())) == {"missing", "exists"}
    carry_out(provisioner)
    assert set(states(provisioner.steps())) == {"exists"}
    assert writer.ready(fields=True, tasks=True) == []
    assert writer.update([score(ids(box, "Account", 1)[0])])[0].outcome == Outcome.DONE
    deal = score(ids(box, "Opportunity", 1)[0], object="opportunity")
    assert writer.update([deal])[0].outcome == Outcome.DONE
    first, again = (writer.create_tasks([task(box)])[0] for _ in range(2))
    assert first.crm_id == again.crm_id


def test_looking_at_what_is_needed_changes_nothing(box):
    provisioner_of(box).steps()
    assert changes(box) == []


def test_doing_it_again_does_no_harm(box):
    provisioner = provisioner_of(box)
    steps = provisioner.steps()
    carry_out(provisioner)
    before = len(writes(box))
    for step in steps:
        provisioner.carry_out(step)
    assert len(writes(box)) == before
    assert set(states(provisioner_of(box).steps())) == {"exists"}


def test_what_was_made_before_a_crash_is_found_and_the_rest_is_made(box):
    provisioner = provisioner_of(box)
    missing = [step for step in provisioner.steps() if step.state == "missing"]
    box.faults.add(vendor="salesforce", do="commit_then_502", path="tooling/sobjects", nth=5)
    for step in missing[:4]:
        provisioner.carry_out(step)
    with pytest.raises(OutcomeUnknown):
        provisioner.carry_out(missing[4])
    carry_out(provisioner_of(box))
    assert set(states(provisioner_of(box).steps())) == {"exists"}


def test_the_permission_set_grants_our_fields_and_no_more(box):
    carry_out(provisioner_of(box))
    (held,) = [
        row for row in records(box, "PermissionSet").rows(box.now.timestamp())
        if row.body["Name"] == "HL_Healthloop"
    ]  # fmt: skip
    assert held.body["Label"] == "Healthloop"
    assert {name for name, value in held.body.items() if value is True} == {
        "IsCustom", "PermissionsApiEnabled", "PermissionsEditTask",
    } | ({"PermissionsActivitiesAccess"} & set(held.body))  # fmt: skip
    granted = {
        row.body["Field"]: row.body["PermissionsEdit"]
        for row in records(box, "FieldPermissions").rows(box.now.timestamp())
    }
    target = writer_of(box)._target
    assert granted == {
        f"{one.object}.{one.name}": one.written
        for one in [*wanted_fields(target), *wanted_of_tasks(target)]
    }
    assert granted["Account.HL_Override_Score__c"] is False
    objects = {
        row.body["SobjectType"]: {key for key, value in row.body.items() if value is True}
        for row in records(box, "ObjectPermissions").rows(box.now.timestamp())
        if row.body["ParentId"] == held.id
    }
    edit = {"PermissionsRead", "PermissionsEdit"}
    assert {name: given & edit for name, given in objects.items()} == {
        "Account": edit, "Opportunity": edit,
    }  # fmt: skip


def test_only_what_is_in_use_is_made(box):
    provisioner = provisioner_of(box, opportunities=False, tasks=False)
    what = [step.what for step in provisioner.steps()]
    assert not [name for name in what if "Activity" in name or "Task" in name]
    assert "field Opportunity.HL_Risk_Score__c" not in what
    assert "field Opportunity.HL_Handoff_Champion__c" in what
    carry_out(provisioner)
    assert set(states(provisioner.steps())) == {"exists"}
    writer = writer_of(box, opportunities=False, tasks=False)
    assert writer.ready(fields=True, tasks=False) == []


def test_an_admin_may_provision_for_the_integrations_user(box):
    names = [row.body for row in records(box, "User").rows(box.now.timestamp())]
    username = records(box, "User").get(MANAGER, box.now.timestamp()).body["Username"]
    assert username in {body["Username"] for body in names}
    provisioner = provisioner_of(box, assign_to=username)
    carry_out(provisioner)
    assigned = records(box, "PermissionSetAssignment").rows(box.now.timestamp())
    assert MANAGER in {row.body["AssigneeId"] for row in assigned}
    nobody = provisioner_of(box, assign_to="x' OR Username LIKE '%")
    with pytest.raises(InputError, match="there is no user"):
        nobody.steps()


def test_who_may_not_customize_the_org_is_told_what_an_admin_clicks(box):
    allow(box, PermissionsCustomizeApplication=False)
    provisioner = provisioner_of(box)
    steps = {step.what: step for step in provisioner.steps()}
    risk = steps["field Account.HL_Risk_Score__c"]
    assert risk.state == "by hand"
    assert risk.how == (
        "Setup > Object Manager > Account > Fields & Relationships > New: Number, label "
        "'Risk score', name HL_Risk_Score, length 18, decimal places 0"
    )
    key = steps["field Activity.HL_Key__c"]
    assert "tick 'Unique' (case sensitive) and 'External ID'" in key.how
    assert not [step for step in steps.values() if step.state == "by hand" and not step.how]


def test_a_refusal_that_could_not_be_foreseen_becomes_a_step_by_hand(box):
    provisioner = provisioner_of(box)
    step = next(s for s in provisioner.steps() if s.what == "field Account.HL_Risk_Band__c")
    body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "no"}]
    box.faults.add(vendor="salesforce", do="status", code=403, body=body, path="tooling/sobjects")
    with pytest.raises(SourceRejected) as error:
        provisioner.carry_out(step)
    assert "values red, yellow, green, unknown" in error.value.remedy
    assert {s.what: s.state for s in provisioner.steps()}[step.what] == "by hand"
    with pytest.raises(InputError, match="there is no step"):
        provisioner.carry_out(type(step)("something else", "missing"))


def test_an_org_that_hides_its_permissions_is_provisioned_by_hand(box):
    provisioner = provisioner_of(box)
    body = [{"errorCode": "INVALID_TYPE", "message": "sObject type is not supported"}]
    box.faults.add(vendor="salesforce", do="status", code=400, body=body, times=None,
                   asks="FROM PermissionSet")  # fmt: skip
    steps = provisioner.steps()
    of_set = [step for step in steps if step.what.startswith(SET)]
    assert {step.state for step in of_set} == {"by hand"}
    assert "Setup > Permission Sets > New: label Healthloop" in of_set[0].how
    assert "'Read Access' for HL_Override_Score__c" in "".join(step.how for step in of_set)
    assert {step.state for step in steps if step not in of_set} == {"missing", "exists"}
    (unseen,) = [f for f in writer_of(box).rights() if "nobody knows" in f.seen]
    assert unseen.level == "note"


@pytest.mark.parametrize(
    ("name", "metadata", "how"),
    [
        ("Account.HL_Risk_Score", {"type": "Text", "length": 10}, "of type string"),
        ("Account.HL_Risk_Score", {"type": "Number", "precision": 3, "scale": 1}, "2 digits"),
        ("Account.HL_Risk_Scorecard", {"type": "Text", "length": 80}, "80 characters"),
        ("Account.HL_Risk_Reasons", {"type": "Text", "length": 255}, "of type string"),
        ("Account.HL_Risk_Band", {"type": "Picklist", "valueSet": {"restricted": True,
          "valueSetDefinition": {"value": [{"fullName": "red", "label": "Red"}]}}},
         "add the values green, unknown, yellow"),
        ("Activity.HL_Key", {"type": "Text", "length": 64}, "tick 'Unique'"),
        ("Activity.HL_Key", {"type": "Text", "length": 32, "unique": True, "externalId": True},
         "32 characters"),
    ],
)  # fmt: skip
def test_a_field_of_another_sort_is_wrong_and_says_what_to_do(box, name, metadata, how):
    add_field(box, f"{name}__c", {"label": "Somebody's", **metadata})
    provisioner = provisioner_of(box)
    carry_out(provisioner)
    (wrong,) = [step for step in provisioner.steps() if step.state != "exists"]
    assert (wrong.what, wrong.state) == (f"field {name}__c", "wrong")
    assert how in wrong.how
    (problem,) = writer_of(box).ready(fields=True, tasks=True)
    assert problem.level == "problem"
    assert how in problem.remedy


def test_a_standard_field_is_never_written(box):
    names = {"account": {"risk_reasons": "Description"}}
    steps = provisioner_of(box, fields=names).steps()
    (step,) = [step for step in steps if step.what == "field Account.Description"]
    assert step.state == "wrong"
    provisioned(box)
    (problem,) = writer_of(box, fields=names).ready(fields=True, tasks=False)
    assert "standard fields are never written" in problem.remedy


# Ready, and rights


def test_what_people_fill_may_be_missing_and_is_noted(box):
    provisioned(box)
    names = {"account": {"override_score": "Nowhere__c"}}
    (note,) = writer_of(box, fields=names).ready(fields=True, tasks=True)
    assert (note.level, note.seen) == (
        "note", "the field Nowhere__c of Account is missing, or hidden from the user",
    )  # fmt: skip


def test_a_field_that_the_user_may_only_read_keeps_us_from_writing(box):
    provisioned(box)
    table, now = records(box, "FieldPermissions"), box.now.timestamp()
    for row in table.rows(now):
        if row.body["Field"] in ("Account.HL_Risk_Score__c", "Task.HL_Key__c"):
            table.put(row.id, row.body | {"PermissionsEdit": False}, now)
    writer = writer_of(box)
    assert problems(writer.ready(fields=True, tasks=False)) == [
        "the user may not edit field HL_Risk_Score__c of Account"
    ]
    assert problems(writer.ready(fields=False, tasks=True)) == [
        "the user may not edit field HL_Key__c of Task"
    ]


def test_rights_that_are_too_narrow_keep_us_from_writing(box):
    provisioned(box)
    table, now = records(box, "ObjectPermissions"), box.now.timestamp()
    for row in table.rows(now):
        if row.body["SobjectType"] in ("Account", "Task"):
            none = {"PermissionsCreate": False, "PermissionsEdit": False}
            table.put(row.id, row.body | none, now)
    writer = writer_of(box)
    narrow = [
        "the user may not edit Account", "the user may not edit Task",
        "the user may not create tasks",
    ]  # fmt: skip
    assert problems(writer.ready(fields=True, tasks=True)) == narrow
    assert problems(writer.rights()) == narrow


def test_rights_that_are_too_wide_are_named(box):
    provisioned(box)
    allow(box, PermissionsModifyAllData=True, PermissionsViewAllData=True)
    contacts = {"ParentId": PROFILE_SET, "SobjectType": "Contact", "PermissionsRead": True}
    records(box, "ObjectPermissions").put(
        record_id("110", 99), contacts | {"PermissionsEdit": True}, box.now.timestamp()
    )
    found = {finding.seen: finding for finding in writer_of(box).rights()}
    assert "the user has the right ModifyAllData, which is too wide" in found
    assert "the user has the right ViewAllData, which is too wide" in found
    assert "the user may do more with Account: Create, Delete" in found
    assert "the user may do more with Contact: Edit" in found
    assert "the user may do more with Task: Delete" in found
    customize = found["the user has the right CustomizeApplication, which is too wide"]
    assert customize.remedy.startswith("once everything is provisioned")
    assert not problems(found.values())


def test_the_rights_of_the_permission_set_alone_are_just_right(box):
    carry_out(provisioner_of(box))
    table, now = records(box, "PermissionSet"), box.now.timestamp()
    body = table.get(PROFILE_SET, now).body
    table.put(PROFILE_SET, {key: value for key, value in body.items() if value is not True}, now)
    grants = records(box, "ObjectPermissions")
    for row in grants.rows(now):
        if row.body["ParentId"] == PROFILE_SET:
            grants.remove(row.id, now)
    writer = writer_of(box)
    assert [finding.level for finding in writer.rights()] == ["ok", "ok"]
    assert "API requests are left" in writer.rights()[-1].seen
    assert writer.ready(fields=True, tasks=True) == []
    assert writer.update([score(ids(box, "Account", 1)[0])])[0].outcome == Outcome.DONE
    assert writer.create_tasks([task(box)])[0].outcome == Outcome.DONE


def test_words_that_the_org_does_not_have_are_named(box):
    provisioned(box)
    words = {"open_status": "New", "closed_status": "Done", "priorities": {"low": "Trivial"}}
    assert problems(writer_of(box, task=words).ready(fields=False, tasks=True)) == [
        "tasks have no Status 'New'", "tasks have no Status 'Done'",
        "tasks have no Priority 'Trivial'",
    ]  # fmt: skip


def test_an_org_of_other_words_opens_tasks_as_it_does_itself():
    def values(*names):
        return [{"value": name, "active": True, "defaultValue": n == 1}
                for n, name in enumerate(names)]  # fmt: skip

    task = {"fields": [
        {"name": "Status", "picklistValues": values("Neu", "Offen", "Completed")},
        {"name": "Priority", "picklistValues": values("Hoch", "Normal")},
        {"name": "Description", "length": 1000},
    ]}  # fmt: skip
    words = words_of(task, TaskNames(priorities={"high": "Hoch"}))
    assert (words.open_status, words.closed_status, words.unknown) == ("Offen", "Completed", ())
    assert words.priorities == {"high": "Hoch", "normal": "Normal", "low": None}
    assert words.body_length == 1000
