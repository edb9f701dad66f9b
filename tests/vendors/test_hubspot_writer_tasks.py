import datetime as dt

import pytest
from hubspot_portal import (
    NOW,
    connected,
    living,
    open_portal,
    our_tasks,
    outcomes,
    refused,
    task,
    values,
    without_waiting,
)
from hypothesis import given
from hypothesis import strategies as st

from connectors.crm.writing import Outcome, TaskChange
from connectors.sandbox.vendors import hubspot as server
from connectors.sandbox.vendors import hubspot_control as control
from connectors.vendors.hubspot.values import safe_html
from contracts.errors import (
    OutcomeUnknown,
    SourceCorrupt,
    SourceRejected,
)

DONE, GONE, UNKNOWN = Outcome.DONE, Outcome.GONE, Outcome.UNKNOWN
CREATE = "tasks/batch/create"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    return without_waiting(monkeypatch)


@pytest.fixture
def box(world):
    with open_portal(world) as box:
        yield box


@pytest.fixture(params=["v3", "2026-03"])
def writer(box, request):
    return connected(box, version=request.param)


@pytest.fixture
def companies(box):
    """Ids of companies that nobody merged or deleted."""
    return sorted(living(box, "companies"))


def test_a_task_is_there_whole_and_linked_to_its_company(box, writer, companies):
    result = writer.create_tasks([task("a", companies[0])])[0]
    assert result.outcome is DONE
    row = living(box, "tasks")[result.crm_id]
    assert row.body["associations"] == {"companies": [companies[0]]}
    assert row.body["properties"] == {
        "healthloop_key": "a" * 64,
        "healthloop_episode": f"champion-left/2026-06-30/{companies[0]}",
        "hs_timestamp": "2026-07-02T15:00:00.000Z",
        "hs_task_subject": "Find the new champion",
        "hs_task_body": "Who is it?",
        "hs_task_status": "NOT_STARTED",
        "hs_task_priority": "MEDIUM",
        "hs_task_type": "TODO",
        "hubspot_owner_id": "70000001",
    }
    seen = writer.tasks_by_key(["a" * 64, "b" * 64])
    assert list(seen) == ["a" * 64]
    found = seen["a" * 64]
    assert (found.task_id, found.record_id, found.owner_id, found.status) == (
        result.crm_id, companies[0], "70000001", "open",
    )  # fmt: skip
    assert (found.subject, found.due_on) == ("Find the new champion", dt.date(2026, 7, 2))
    assert found.episode == f"champion-left/2026-06-30/{companies[0]}"


def test_a_task_goes_by_the_names_of_crm_yaml(box, companies):
    names = {"open_status": "WAITING", "closed_status": "DEFERRED", "priorities": {"normal": "LOW"}}
    writer = connected(box, task=names)
    id = writer.create_tasks([task("a", companies[0], owner_id=None)])[0].crm_id
    kept = values(box, "tasks", id)
    assert (kept["hs_task_status"], kept["hs_task_priority"]) == ("WAITING", "LOW")
    assert "hubspot_owner_id" not in kept
    assert outcomes(writer.change_tasks([TaskChange("a" * 64, id)])) == [DONE]
    assert values(box, "tasks", id)["hs_task_status"] == "DEFERRED"
    assert writer.tasks_by_key(["a" * 64])["a" * 64].status == "completed"


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("conflict", [400, 409])
def test_f62_a_task_that_exists_is_done_and_the_rest_is_created(
    box, writer, companies, whole, conflict
):
    control.settings(box, conflict=conflict)
    old = writer.create_tasks([task("a", companies[0])])[0].crm_id
    if whole:  # as without traces: one conflict fails the batch and names only the first
        refused(
            box, CREATE, status=conflict, category="CONFLICT",
            errors=[{"code": "CONFLICTING_UNIQUE_VALUE"}],
        )  # fmt: skip
    results = writer.create_tasks([task(key, companies[0]) for key in "bac"])
    assert outcomes(results) == [DONE] * 3
    assert results[1].crm_id == old
    assert len(our_tasks(box)) == 3
    again = writer.create_tasks([task(key, companies[0]) for key in "bac"])
    assert again == results


def test_f62_a_conflict_that_is_not_about_our_keys_is_given_back(box, writer, companies):
    refused(box, CREATE, status=409, category="CONFLICT", times=None)
    with pytest.raises(SourceRejected):
        writer.create_tasks([task("a", companies[0]), task("b", companies[0])])
    assert outcomes(writer.create_tasks([task("a", companies[0])])) == [UNKNOWN]
    assert our_tasks(box) == []


def test_f62_a_task_that_exists_but_cannot_be_read_back_is_unknown(box, writer, companies):
    writer.create_tasks([task("a", companies[0])])
    box.faults.add(vendor="hubspot", path="tasks/batch/read", do="status", times=None)
    results = writer.create_tasks([task(key, companies[0]) for key in "ab"])
    assert outcomes(results) == [UNKNOWN, DONE]


def test_f64_the_same_key_twice_in_one_batch_makes_one_task(box, writer, companies):
    results = writer.create_tasks([task("a", companies[0]), task("a", companies[0])])
    assert outcomes(results) == [DONE, DONE]
    assert results[0] == results[1]
    assert len(our_tasks(box)) == 1


def test_f17_a_task_whose_creation_was_not_acknowledged_is_found_whole_and_not_doubled(
    box, writer, companies
):
    box.faults.add(vendor="hubspot", path=CREATE, do="commit_then_502")
    with pytest.raises(OutcomeUnknown):
        writer.create_tasks([task("a", companies[0])])
    seen = writer.tasks_by_key(["a" * 64])["a" * 64]
    assert seen.record_id == companies[0]
    assert writer.create_tasks([task("a", companies[0])])[0].crm_id == seen.task_id
    assert len(our_tasks(box)) == 1


def test_f57_f59_tasks_that_the_answer_does_not_mention_are_unknown_and_found_by_key(
    box, writer, companies
):
    control.order(box, "forget", object="tasks", ids=["a" * 64])
    control.order(box, "shuffle", object="tasks", times=2)
    results = writer.create_tasks([task(key, companies[0]) for key in "abc"])
    assert outcomes(results) == [UNKNOWN, DONE, DONE]
    assert len(writer.tasks_by_key([key * 64 for key in "abc"])) == 3
    by_key = {row.body["properties"]["healthloop_key"]: row.id for row in our_tasks(box)}
    assert [result.crm_id for result in results[1:]] == [by_key["b" * 64], by_key["c" * 64]]


@pytest.mark.parametrize("kept", [True, False])
def test_f68_a_task_that_somebody_deleted_is_told_as_deleted(box, writer, companies, kept):
    control.settings(box, archived_keeps_values=kept)
    id = writer.create_tasks([task("a", companies[0])])[0].crm_id
    control.collection(box, "tasks").remove(id, box.now.timestamp())
    seen = writer.tasks_by_key(["a" * 64])["a" * 64]
    assert (seen.task_id, seen.status) == (id, "deleted")
    assert outcomes(writer.change_tasks([TaskChange("a" * 64, id)])) == [GONE]
    if kept:  # its key is taken for ever: it counts as done and is not made again
        again = writer.create_tasks([task("a", companies[0])])[0]
        assert (again.outcome, again.crm_id) == (DONE, id)
        assert our_tasks(box) == []


def test_f70_an_inactive_owner_is_told_and_a_task_for_him_rejected(box, writer, companies):
    owners = control.collection(box, "owners")
    owners.remove("70000001", box.now.timestamp())
    told = {owner.id: owner for owner in writer.owners()}
    assert not told["70000001"].active
    assert told["70000002"].active
    assert told["70000002"].name.count(" ") == 1
    assert {owner.time_zone for owner in told.values()} == {None}
    results = writer.create_tasks([
        task("a", companies[0]), task("b", companies[0], owner_id="70000002"),
    ])  # fmt: skip
    assert outcomes(results) == [Outcome.REJECTED, DONE]
    assert results[0].reason == "VALIDATION_ERROR INVALID_OWNER_ID (hubspot_owner_id)"


def test_f87_f88_a_body_shows_its_text_and_does_nothing(box, writer, companies):
    body = "<script>alert(1)</script>\n[pay](https://evil.example) &amp; \"x\" 'y'\x00"
    id = writer.create_tasks([task("a", companies[0], body=body, subject="<i>\nnow")])[0].crm_id
    kept = values(box, "tasks", id)
    assert kept["hs_task_body"] == (
        "&lt;script&gt;alert(1)&lt;/script&gt;<br>[pay](https://evil.example) &amp;amp; "
        "&quot;x&quot; &#x27;y&#x27;"
    )
    assert kept["hs_task_subject"] == "<i> now"


@given(st.text())
def test_f87_no_text_becomes_a_tag(text):
    assert "<" not in safe_html(text).replace("<br>", "")


def test_f45_a_huge_body_is_cut_before_it_is_escaped(box, writer, companies):
    big = task("a", companies[0], body='"' * 100_000, subject="\U0001f600" * 300)
    id = writer.create_tasks([big])[0].crm_id
    kept = values(box, "tasks", id)
    assert kept["hs_task_body"] == "&quot;" * 10_000
    assert kept["hs_task_subject"] == "\U0001f600" * 255


def test_f65_a_task_for_a_deleted_company_is_not_made(box, writer, companies):
    control.collection(box, "companies").remove(companies[0], box.now.timestamp())
    results = writer.create_tasks([task("a", companies[0]), task("b", companies[1])])
    assert outcomes(results) == [GONE, DONE]
    assert len(our_tasks(box)) == 1


def test_f65_a_single_task_that_is_refused_as_a_whole_call_is_told_by_its_company(
    box, writer, companies
):
    control.collection(box, "companies").remove(companies[0], box.now.timestamp())
    context = {"INVALID_OBJECT_IDS": ["COMPANY=1 is not valid"], "ids": ["1"]}
    refused(box, CREATE, status=400, category="VALIDATION_ERROR", context=context, times=2)
    results = writer.create_tasks([task("a", companies[0])])
    results += writer.create_tasks([task("b", companies[1])])
    assert outcomes(results) == [GONE, Outcome.REJECTED]
    assert results[1].reason == "VALIDATION_ERROR INVALID_OBJECT_IDS"
    assert our_tasks(box) == []


def test_f67_a_task_for_a_merged_company_is_linked_to_its_successor(box, writer, companies):
    new = control.merge(box, companies[0], companies[1])
    writer.create_tasks([task("a", companies[0])])
    assert writer.tasks_by_key(["a" * 64])["a" * 64].record_id == new


def test_tasks_that_are_closed_show_as_completed_and_closing_again_does_no_harm(
    box, writer, companies
):
    ids = [r.crm_id for r in writer.create_tasks([task(key, companies[0]) for key in "ab"])]
    changes = [TaskChange("a" * 64, ids[0]), TaskChange("b" * 64, ids[1], close=False)]
    for _ in range(2):
        assert outcomes(writer.change_tasks(changes)) == [DONE, DONE]
    seen = writer.tasks_by_key(["a" * 64, "b" * 64])
    assert [task.status for task in seen.values()] == ["completed", "open"]


def test_what_people_did_with_our_tasks_is_told_and_only_ours(box, writer, companies):
    ids = [r.crm_id for r in writer.create_tasks([task(key, companies[0]) for key in "abcd"])]
    other = min(living(box, "tasks"))
    box.move(NOW + dt.timedelta(hours=2))
    control.edit(box, "tasks", ids[0], hs_task_status="COMPLETED")
    control.edit(box, "tasks", ids[1], hs_task_subject="Later", hubspot_owner_id="70000002")
    control.edit(box, "tasks", ids[2], hs_timestamp="2026-08-01T08:00:00Z")
    control.edit(box, "tasks", other, hs_task_status="COMPLETED")
    box.move(NOW + dt.timedelta(hours=3))
    changed = {t.task_id: t for t in writer.tasks_changed(NOW + dt.timedelta(hours=1))}
    assert set(changed) == set(ids[:3])
    assert changed[ids[0]].status == "completed"
    assert (changed[ids[1]].subject, changed[ids[1]].owner_id) == ("Later", "70000002")
    assert changed[ids[2]].due_on == dt.date(2026, 8, 1)
    assert changed[ids[2]].modified_at == NOW + dt.timedelta(hours=2)


def test_f81_all_tasks_that_there_ever_were_come_from_the_portal_alone(
    box, writer, companies, monkeypatch
):
    monkeypatch.setattr(server, "SEARCH_WINDOW", 200)  # no second page of a search
    box.small_pages = 3
    keys = "abcdefghij"
    ids = [r.crm_id for r in writer.create_tasks([task(key, companies[0]) for key in keys])]
    control.collection(box, "tasks").remove(ids[0], box.now.timestamp())
    box.move(NOW + dt.timedelta(hours=1))
    seen = {task.task_id: task for task in writer.tasks_changed(None)}
    assert set(seen) == set(ids)
    assert [seen[id].status for id in ids] == ["deleted"] + ["open"] * 9


def test_a_portal_without_a_plain_association_is_told_before_anything_is_sent(
    box, writer, companies
):
    box.faults.add(vendor="hubspot", path="labels", do="error_json", body={"results": []})
    with pytest.raises(SourceCorrupt, match="association"):
        writer.create_tasks([task("a", companies[0])])
    assert box.count("hubspot", CREATE) == 0
