import datetime as dt
from functools import partial

import pytest
from hubspot_portal import TOKEN, connected, provisioner, without_waiting

from connectors.crm.settings import HubSpotTarget
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as control
from connectors.vendors.hubspot.provision import SCOPES, connect_provisioner
from connectors.vendors.hubspot.rights import needed_scopes, schema_scopes
from contracts.crm_fields import read_on, written_on
from contracts.errors import OutcomeUnknown, SourceRefused, SourceRejected

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
TYPES = (("account", "companies"), ("opportunity", "deals"))
WRITTEN = {f"{type}/{field.hubspot}" for object, type in TYPES for field in written_on(object)}
FILLED_BY_PEOPLE = {
    f"{type}/{field.hubspot}" for object, type in TYPES for field in read_on(object)
}


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    return without_waiting(monkeypatch)


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["hubspot"]) as box:
        yield box
    assert box.defects == []
    assert control.writes(box) == []


def properties(box):
    """What was created so far, by type and name."""
    return {row.id: row.body for row in control.created_properties(box).rows(box.now.timestamp())}


def carry_out(made):
    for step in made.steps():
        if step.state == "missing":
            made.carry_out(step)


def states(made):
    return {step.what: step.state for step in made.steps()}


def step_about(made, name):
    return next(step for step in made.steps() if name in step.what)


def change(box, name, **differs):
    table, now = control.created_properties(box), box.now.timestamp()
    table.put(name, table.get(name, now).body | differs, now)


@pytest.mark.parametrize("version", ["v3", "2026-03"])
def test_an_empty_portal_gets_everything_and_a_second_time_nothing(box, version):
    made = provisioner(box, version=version)
    steps = made.steps()
    # What people fill, this portal may have already.
    there = {step.what.partition(" (")[0].replace(": ", "/") for step in steps[:-1]
             if step.state == "exists"}  # fmt: skip
    assert there <= FILLED_BY_PEOPLE
    assert properties(box) == {}
    assert {r.method for r in box.log if "access-token-info" not in r.path} == {"GET"}
    carry_out(made)
    assert set(states(made).values()) == {"exists"}
    assert connected(box, version=version).ready(fields=True, tasks=True) == []
    created, before = properties(box), len(box.log)
    of_tasks = {"tasks/healthloop_key", "tasks/healthloop_episode"}
    assert set(created) == (WRITTEN | FILLED_BY_PEOPLE | of_tasks) - there
    assert {body["groupName"] for body in created.values()} == {"healthloop"}
    unique = [name for name, body in created.items() if body.get("hasUniqueValue")]
    assert unique == ["tasks/healthloop_key"]
    carry_out(made)
    assert properties(box) == created
    assert {r.method for r in box.log[before:] if "access-token-info" not in r.path} == {"GET"}


def test_a_step_that_was_done_meanwhile_is_done(box):
    made = provisioner(box)
    steps = made.steps()
    for _ in range(2):
        for step in steps:
            made.carry_out(step)
    assert set(states(made).values()) == {"exists"}


def test_a_property_that_somebody_makes_at_the_same_moment_is_no_error(box):
    made = provisioner(box)
    group, score = made.steps()[:2]
    made.carry_out(group)
    box.faults.add(
        vendor="hubspot", path="properties/companies", asks="healthloop_risk_score", do="status",
        code=409, body={"category": "OBJECT_ALREADY_EXISTS"},
    )  # fmt: skip
    made.carry_out(score)
    assert properties(box) == {}


def test_a_group_comes_before_its_properties_and_the_key_last(box):
    whats = [step.what for step in provisioner(box).steps()]
    groups = [place for place, what in enumerate(whats) if "group" in what]
    assert [whats[place] for place in groups] == [
        "companies: the group Healthloop",
        "deals: the group Healthloop",
        "tasks: the group Healthloop",
    ]
    assert whats[-2] == "tasks: healthloop_key (Healthloop key)"
    assert whats[-1] == SCOPES


def test_f17_a_step_whose_answer_was_lost_can_be_done_again(box):
    made = provisioner(box)
    group, score = made.steps()[:2]
    made.carry_out(group)
    box.faults.add(
        vendor="hubspot", path="properties/companies", asks="healthloop_risk_score",
        do="commit_then_502",
    )  # fmt: skip
    with pytest.raises(OutcomeUnknown):
        made.carry_out(score)
    made.carry_out(score)
    assert list(properties(box)) == ["companies/healthloop_risk_score"]


def test_options_that_lack_ours_get_them_and_keep_their_own(box):
    control.provisioned(box)
    theirs = [
        {"label": "Rot", "value": "red", "displayOrder": 0, "hidden": False},
        {"label": "Lila", "value": "purple", "displayOrder": 1, "hidden": True},
    ]
    change(box, "companies/healthloop_risk_band", options=theirs)
    made = provisioner(box)
    step = step_about(made, "healthloop_risk_band")
    assert (step.state, step.how) == ("missing", "its options lack green, unknown, yellow")
    made.carry_out(step)
    options = properties(box)["companies/healthloop_risk_band"]["options"]
    assert options[:2] == theirs
    assert [option["value"] for option in options[2:]] == ["yellow", "green", "unknown"]
    assert set(states(made).values()) == {"exists"}


@pytest.mark.parametrize(
    ("name", "differs", "how"),
    [
        ("companies/healthloop_risk_score", {"type": "string"}, "make one of type number"),
        ("deals/healthloop_risk_as_of", {"type": "string"}, "make one of type date"),
        ("tasks/healthloop_key", {"hasUniqueValue": False}, "Require unique values"),
        (
            "companies/healthloop_risk_score",
            {"modificationMetadata": {"readOnlyValue": True}},
            "calculated or read-only",
        ),
    ],
)
def test_a_property_that_cannot_serve_says_what_an_admin_does(box, name, differs, how):
    control.provisioned(box)
    change(box, name, **differs)
    made = provisioner(box)
    type, _, property = name.partition("/")
    step = step_about(made, f"{type}: {property} ")
    assert step.state == "wrong"
    assert how in step.how
    before = properties(box)
    made.carry_out(step)
    assert properties(box) == before


def test_a_property_of_hubspots_own_is_never_written(box):
    for name, property in (("account", "numberofemployees"), ("opportunity", "amount")):
        made = provisioner(box, fields={name: {"risk_score": property}})
        step = step_about(made, f": {property} ")
        assert step.state == "wrong"
        assert "HubSpot's own properties are never written" in step.how


def test_words_that_tasks_do_not_know_are_a_problem_before_a_task_is_sent(box):
    control.provisioned(box)
    task = {"closed_status": "DONE", "open_status": "WAITING", "priorities": {"high": "HIGHE"}}
    problems = connected(box, task=task).ready(fields=True, tasks=True)
    assert [(problem.level, problem.seen) for problem in problems] == [
        ("problem", "hs_task_status of tasks has no option 'DONE'"),
        ("problem", "hs_task_priority of tasks has no option 'HIGHE'"),
    ]
    assert problems[1].remedy.endswith("in crm.yaml; did you mean 'HIGH'?")
    assert connected(box, task=task).ready(fields=True, tasks=False) == []


def test_a_portal_whose_tasks_take_no_unique_property_keeps_its_fields_and_refuses_tasks(box):
    control.settings(box, unique_tasks=False)
    made = provisioner(box)
    with pytest.raises(SourceRejected, match="no property with unique values") as error:
        carry_out(made)
    assert "Require unique values" in error.value.remedy
    assert "tasks: false" in error.value.remedy
    left = {step.what: step for step in made.steps() if step.state != "exists"}
    assert [step.state for step in left.values()] == ["by hand"]
    step = left["tasks: healthloop_key (Healthloop key)"]
    assert "internal name healthloop_key" in step.how
    writer = connected(box)
    assert writer.ready(fields=True, tasks=False) == []
    problems = writer.ready(fields=True, tasks=True)
    assert [finding.level for finding in problems] == ["problem"]
    assert "healthloop_key" in problems[0].seen


def test_names_of_crm_yaml_are_those_that_are_made(box):
    of_target = {
        "fields": {"account": {"risk_score": "churn_risk", "risk_band": None}},
        "task": {"key": "our_key"},
        "opportunities": False,
    }
    carry_out(provisioner(box, **of_target))
    made = properties(box)
    assert "companies/churn_risk" in made
    assert "companies/healthloop_risk_band" not in made
    assert made["tasks/our_key"]["hasUniqueValue"]
    assert {name for name in made if name.startswith("deals/")} <= FILLED_BY_PEOPLE
    assert connected(box, **of_target).ready(fields=True, tasks=True) == []


def test_without_tasks_nothing_is_made_for_them(box):
    made = provisioner(box, tasks=False)
    carry_out(made)
    assert not [name for name in properties(box) if name.startswith("tasks/")]
    assert "contacts" not in made.steps()[-1].how


def test_a_property_of_theirs_may_serve_and_stays_as_it_is(box):
    control.provisioned(box)
    made = provisioner(box, fields={"account": {"risk_scorecard": "edition"}})
    assert step_about(made, "edition").state == "exists"


def with_scopes(*scopes):
    return f"{TOKEN}/{','.join(sorted(scopes))}"


def test_scopes_are_a_step_by_hand_until_the_key_has_them(box):
    scopes = needed_scopes(HubSpotTarget(source="crm"))
    lacks = "crm.objects.companies.read"
    narrow = with_scopes(*scopes - {lacks})
    with pytest.raises(SourceRefused, match=f"the key lacks {lacks}") as error:
        connected(box, token=narrow).records_by_id("account", ["1"], [])
    assert "Edit scopes" in error.value.remedy
    step = provisioner(box, token=narrow).steps()[-1]
    assert step.state == "by hand"
    assert f"it lacks {lacks}, " in step.how
    assert "'View only'" in step.how
    findings = connected(box, token=with_scopes(*scopes)).rights()
    assert [finding.level for finding in findings] == ["ok", "ok"]


def test_a_key_that_may_only_write_is_told_what_making_properties_takes(box):
    """And once they are made, nothing is left to do: those scopes can be taken away."""
    target = HubSpotTarget(source="crm")
    token = with_scopes(*needed_scopes(target))
    made = provisioner(box, token=token)
    step = made.steps()[-1]
    assert step.state == "by hand"
    lacking = ", ".join(sorted(schema_scopes(target, "write")))
    assert step.how.startswith(f"it lacks {lacking}; in HubSpot: Development > Keys > ")
    with pytest.raises(SourceRefused, match=r"lacks crm\.schemas\.companies\.write"):
        carry_out(made)
    carry_out(provisioner(box))
    assert set(states(provisioner(box, token=token)).values()) == {"exists"}


def test_an_admins_key_needs_nothing_but_to_make_properties(box):
    target = HubSpotTarget(source="crm")
    token = with_scopes(*schema_scopes(target, "read"), *schema_scopes(target, "write"))
    lend = partial(connect_provisioner, lent=True)
    made = connected(box, make=lend, token=token)
    assert made.steps()[-1].state == "exists"
    carry_out(made)
    assert set(states(made).values()) == {"exists"}
    of_readers = with_scopes(*schema_scopes(target, "read"))
    assert set(states(connected(box, make=lend, token=of_readers)).values()) == {"exists"}


def test_where_the_scopes_are_not_told_the_step_ends_with_the_others(box):
    box.faults.add(
        vendor="hubspot", path="access-token-info", do="status", code=404, body={}, times=None
    )
    made = provisioner(box)
    assert made.steps()[-1].state == "by hand"
    carry_out(made)
    assert made.steps()[-1].state == "exists"
