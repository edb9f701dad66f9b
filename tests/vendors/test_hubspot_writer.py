import datetime as dt
from types import SimpleNamespace

import orjson
import pytest
from hubspot_portal import (
    NOW,
    TOKEN,
    connected,
    living,
    open_portal,
    outcomes,
    refused,
    task,
    values,
    without_waiting,
)
from hypothesis import given
from hypothesis import strategies as st

from connectors.crm.settings import HubSpotTarget
from connectors.crm.writing import FieldUpdate, Outcome
from connectors.sandbox.vendors import hubspot_control as control
from connectors.vendors.hubspot.answers import answered
from connectors.vendors.hubspot.connector import VENDOR
from connectors.vendors.hubspot.settings import HubSpotConfig
from connectors.vendors.hubspot.values import decoded, due_day, due_value, encoded
from connectors.vendors.hubspot.writer import merged_config
from contracts.crm_fields import FIELDS
from contracts.errors import (
    OutcomeUnknown,
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

DONE, GONE, UNKNOWN = Outcome.DONE, Outcome.GONE, Outcome.UNKNOWN
UPDATE, CREATE = "companies/batch/update", "tasks/batch/create"


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


def scored(id, score="71", **more):
    return FieldUpdate("account", id, {"risk_score": score, **more})


# Fields


def test_what_is_written_is_there_and_nothing_else_changed(box, writer, companies):
    before = values(box, "companies", companies[0])
    results = writer.update([
        FieldUpdate("account", companies[0], {
            "risk_score": "71", "risk_band": "red", "risk_as_of": "2026-06-30",
            "risk_reasons": "No champion\nFew users", "handoff_kickoff_on": "2026-05-01",
        }),
        scored(companies[1], "5"),
    ])  # fmt: skip
    assert outcomes(results) == [DONE, DONE]
    after = values(box, "companies", companies[0])
    assert {name: after[name] for name in after.keys() - before.keys()} == {
        "healthloop_risk_score": "71",
        "healthloop_risk_band": "red",
        "healthloop_risk_as_of": "2026-06-30",
        "healthloop_risk_reasons": "No champion\nFew users",
        "healthloop_handoff_kickoff_on": "2026-05-01",
    }
    assert {name: after[name] for name in before} == before
    assert box.count("hubspot", UPDATE) == 1


def test_deals_are_written_as_well(box, writer):
    deal = min(living(box, "deals"))
    update = FieldUpdate("opportunity", deal, {"handoff_score": "40", "handoff_band": "red"})
    assert outcomes(writer.update([update])) == [DONE]
    assert values(box, "deals", deal)["healthloop_handoff_score"] == "40"


def test_f49_none_clears_a_value(box, writer, companies):
    writer.update([scored(companies[0])])
    assert outcomes(writer.update([scored(companies[0], None)])) == [DONE]
    assert not values(box, "companies", companies[0])["healthloop_risk_score"]
    seen = writer.records_by_id("account", companies[:1], ["risk_score"])
    assert seen[companies[0]].values == {"risk_score": None}


def test_a_date_is_written_as_its_property_wants_it(box, writer, companies):
    table = control.created_properties(box)
    name = "companies/healthloop_risk_as_of"
    definition = table.get(name, box.now.timestamp()).body
    table.put(name, definition | {"type": "datetime"}, box.now.timestamp())
    update = FieldUpdate("account", companies[0], {"risk_as_of": "2026-06-30"})
    assert outcomes(writer.update([update])) == [DONE]
    kept = values(box, "companies", companies[0])["healthloop_risk_as_of"]
    assert kept == "2026-06-30T00:00:00.000Z"
    seen = writer.records_by_id("account", companies[:1], ["risk_as_of"])
    assert seen[companies[0]].values == {"risk_as_of": "2026-06-30"}


def test_f44_f45_hostile_and_huge_texts_are_cut_by_code_point(box, writer, companies):
    text = "a\x00\ud800\U0001f600\u202e\u05e9\u05dc\u05d5\u05dd" + "\U0001f600" * 2_500_000
    update = FieldUpdate("account", companies[0], {"risk_scorecard": text, "risk_reasons": text})
    assert outcomes(writer.update([update])) == [DONE]
    kept = values(box, "companies", companies[0])
    assert kept["healthloop_risk_scorecard"].startswith("a\U0001f600\u202e\u05e9\u05dc\u05d5\u05dd")
    assert len(kept["healthloop_risk_scorecard"]) == 255
    assert len(kept["healthloop_risk_reasons"]) == 4000


@pytest.mark.parametrize("field", ["override_score", "name", "healthloop_risk_score"])
def test_a_field_that_is_not_ours_is_never_sent(box, writer, companies, field):
    with pytest.raises(ValueError, match="not ours to write"):
        writer.update([FieldUpdate("account", companies[0], {field: "1"})])
    assert control.writes(box) == []


def test_fields_go_by_the_names_of_crm_yaml(box, companies):
    target = HubSpotTarget(
        source="crm", fields={"account": {"risk_score": "edition", "risk_band": None}}
    )
    box.target = target  # for the oracle
    writer = connected(box, target=target)
    assert outcomes(writer.update([scored(companies[0], "12")])) == [DONE]
    assert values(box, "companies", companies[0])["edition"] == "12"
    with pytest.raises(ValueError, match="risk_band"):
        writer.update([FieldUpdate("account", companies[0], {"risk_band": "red"})])


def test_companies_and_deals_do_not_go_in_one_call(box, writer, companies):
    deal = FieldUpdate("opportunity", min(living(box, "deals")), {"risk_score": "1"})
    with pytest.raises(ValueError, match="one object"):
        writer.update([scored(companies[0]), deal])
    assert control.writes(box) == []


def test_f64_a_record_twice_in_one_call_is_sent_once(box, writer, companies):
    results = writer.update([scored(companies[0], "1"), scored(companies[0], "2")])
    assert outcomes(results) == [DONE, DONE]
    assert values(box, "companies", companies[0])["healthloop_risk_score"] == "2"
    assert len(control.writes(box)) == 1


def test_f54_one_bad_record_is_rejected_with_codes_only_and_the_others_land(box, writer, companies):
    control.order(box, "reject", object="companies", ids=[companies[0]], message="Ada said no")
    bad = FieldUpdate("account", companies[1], {"risk_band": "purple"})
    results = writer.update([scored(companies[0]), bad, scored(companies[2])])
    assert outcomes(results) == [Outcome.REJECTED, Outcome.REJECTED, DONE]
    assert results[0].reason == "VALIDATION_ERROR INVALID_RECORD"
    assert results[1].reason == "VALIDATION_ERROR INVALID_OPTION (healthloop_risk_band)"


def test_f55_a_batch_that_is_refused_as_a_whole_is_given_back_to_be_halved(box, writer, companies):
    control.settings(box, partial_updates="never")
    bad = FieldUpdate("account", companies[0], {"risk_score": "much"})
    with pytest.raises(SourceRejected, match="INVALID_INTEGER"):
        writer.update([bad, scored(companies[1])])
    assert control.writes(box) == []
    assert outcomes(writer.update([bad])) == [Outcome.REJECTED]
    assert writer.update([bad])[0].reason.endswith("(healthloop_risk_score)")
    assert outcomes(writer.update([scored(companies[1])])) == [DONE]


def test_f55_an_unknown_property_refuses_the_whole_call(box, writer, companies):
    table = control.created_properties(box)
    table.remove("companies/healthloop_risk_score", box.now.timestamp())
    with pytest.raises(SourceRejected, match=r"PROPERTY_DOESNT_EXIST \(healthloop_risk_score\)"):
        writer.update([scored(id) for id in companies[:3]])
    assert control.writes(box) == []


@pytest.mark.parametrize("status", [400, 409])
def test_an_answer_of_a_batch_is_read_whatever_its_status(box, writer, companies, status):
    one, two = companies[:2]
    properties = {"healthloop_risk_score": "71"}
    error = {"category": "VALIDATION_ERROR", "context": {"objectWriteTraceId": [two]}}
    refused(
        box, UPDATE, status=status, results=[{"id": one, "properties": properties}],
        errors=[error],
    )  # fmt: skip
    assert outcomes(writer.update([scored(one), scored(two)])) == [DONE, Outcome.REJECTED]


def test_f56_a_silent_success_that_changed_nothing_is_unknown(box, writer, companies):
    control.order(box, "ignore", object="companies", ids=[companies[1]])
    results = writer.update([scored(companies[0]), scored(companies[1])])
    assert outcomes(results) == [DONE, UNKNOWN]


@pytest.mark.parametrize("left", [[], None])
def test_f56_an_answer_without_results_is_unknown_for_all(box, writer, companies, left):
    def emptied(body):
        return orjson.dumps({**orjson.loads(body), "results": left})

    box.faults.add(vendor="hubspot", path=UPDATE, do="rewrite", rewrite=emptied)
    if left is None:
        with pytest.raises(OutcomeUnknown):
            writer.update([scored(companies[0])])
    else:
        assert outcomes(writer.update([scored(id) for id in companies[:2]])) == [UNKNOWN] * 2
    assert writer.records_by_id("account", companies[:1], ["risk_score"])[companies[0]].values == {
        "risk_score": "71"
    }


def test_f57_records_that_a_207_does_not_mention_are_unknown(box, writer, companies):
    control.order(box, "forget", object="companies", ids=companies[1:3])
    control.order(box, "reject", object="companies", ids=[companies[3]])
    results = writer.update([scored(id) for id in companies[:4]])
    assert outcomes(results) == [DONE, UNKNOWN, UNKNOWN, Outcome.REJECTED]


def test_f59_results_in_another_order_and_fewer_than_sent(box, writer, companies):
    control.order(box, "shuffle", object="companies", ids=[companies[1]])
    results = writer.update([scored(id, str(n)) for n, id in enumerate(companies[:4])])
    assert outcomes(results) == [DONE, UNKNOWN, DONE, DONE]
    assert [result.crm_id for result in results][2:] == companies[2:4]


@pytest.mark.parametrize(("rule", "seconds"), [("lock", 2), ("migrate", 60)])
def test_f58_a_lock_is_busy_for_all_and_the_next_call_waits(
    box, writer, companies, waits, rule, seconds
):
    control.order(box, rule, object="companies", ids=[companies[0]])
    updates = [scored(id) for id in companies[:3]]
    assert outcomes(writer.update(updates)) == [Outcome.BUSY] * 3
    assert control.writes(box) == []
    waits.clear()
    assert outcomes(writer.update(updates)) == [DONE] * 3
    assert [wait for wait in waits if wait > seconds - 1]
    assert max(waits) <= seconds


def test_f58_a_portal_that_is_moved_for_a_day_is_left_alone(box, writer, companies):
    refused(box, UPDATE, status=477, headers={"Retry-After": "86400"})
    with pytest.raises(SourceUnavailable):
        writer.update([scored(companies[0])])
    assert box.count("hubspot", UPDATE) == 1


def test_f58_reading_waits_until_a_lock_is_gone(box, writer, companies, waits):
    refused(box, "companies/batch/read", status=423, category="OBJECT_LOCKED")
    assert set(writer.records_by_id("account", companies[:2], [])) == set(companies[:2])
    assert any(1 < wait <= 2 for wait in waits)


def test_f58_a_portal_that_is_moved_for_a_day_is_not_read_either(box, writer, companies):
    refused(box, "companies/batch/read", status=477, headers={"Retry-After": "86400"})
    with pytest.raises(SourceExhausted) as error:
        writer.records_by_id("account", companies[:2], [])
    assert error.value.resume_after_seconds == 86400


def test_f65_a_deleted_record_is_gone_and_not_made_again(box, writer, companies):
    control.collection(box, "companies").remove(companies[0], box.now.timestamp())
    control.collection(box, "companies").remove(companies[1], box.now.timestamp())
    results = writer.update([scored(id) for id in companies[:3]])
    assert outcomes(results) == [GONE, GONE, DONE]
    assert outcomes(writer.update([scored(companies[0])])) == [GONE]
    assert len(control.writes(box)) == 1
    seen = writer.records_by_id("account", companies[:3], ["risk_score"])
    assert [seen[id].gone for id in companies[:3]] == [True, True, False]


def test_f65_a_whole_call_that_is_refused_for_one_missing_record_says_that_it_is_gone(
    box, writer, companies
):
    control.collection(box, "companies").remove(companies[0], box.now.timestamp())
    refused(box, UPDATE, status=404, category="OBJECT_NOT_FOUND")
    assert outcomes(writer.update([scored(companies[0])])) == [GONE]


def test_a_record_that_is_said_to_be_missing_but_is_there_is_not_buried(box, writer, companies):
    refused(box, UPDATE, status=404, category="OBJECT_NOT_FOUND")
    assert outcomes(writer.update([scored(companies[0])])) == [Outcome.REJECTED]


def test_f65_where_the_second_look_fails_the_rest_of_the_answer_still_counts(
    box, writer, companies
):
    control.collection(box, "companies").remove(companies[0], box.now.timestamp())
    box.faults.add(vendor="hubspot", path="companies/batch/read", do="status", times=None)
    assert outcomes(writer.update([scored(id) for id in companies[:2]])) == [UNKNOWN, DONE]
    assert outcomes(writer.create_tasks([task("a", companies[0]), task("b", companies[1])])) == [
        UNKNOWN, DONE,
    ]  # fmt: skip


def test_f67_a_merged_company_leads_to_its_new_id(box, writer, companies):
    new = control.merge(box, companies[0], companies[1])
    result = writer.update([scored(companies[1])])[0]
    assert (result.outcome, result.successor) == (Outcome.MERGED, new)
    seen = writer.records_by_id("account", [*companies[:3], new], ["risk_score"])
    assert [seen[id].successor for id in companies[:3]] == [new, new, None]
    assert seen[new].values == {"risk_score": "71"}
    box.move(box.now + dt.timedelta(hours=1))
    changed = {r.record_id: r for r in writer.records_changed("account", NOW, ["risk_score"])}
    assert changed[companies[0]].successor == changed[companies[1]].successor == new


def test_f67_a_company_that_was_merged_twice_leads_to_its_last_id(box, writer, companies):
    first = control.merge(box, companies[0], companies[1])
    last = control.merge(box, first, companies[2])
    seen = writer.records_by_id("account", companies[:4], [])
    assert [seen[id].successor for id in companies[:4]] == [last, last, last, None]


def test_an_empty_answer_buries_nothing(box, writer, companies):
    box.faults.add(vendor="hubspot", path="batch/read", do="empty_page", times=None)
    assert writer.records_by_id("account", companies[:3], ["risk_score"]) == {}


# Whole calls


@pytest.mark.parametrize(
    "fault", ["commit_then_502", "reset", "truncate", "html", "empty", "bad_gzip"]
)
@pytest.mark.parametrize("path", [UPDATE, CREATE])
def test_f17_a_write_without_an_answer_is_unknown_and_sent_once(
    box, writer, companies, fault, path
):
    writer.create_tasks([task("a", companies[0])])  # asks for the properties and the association
    writer.update([scored(companies[0])])
    sent = box.count("hubspot", path)
    box.faults.add(vendor="hubspot", path=path, do=fault, times=None)
    write = {
        UPDATE: lambda: writer.update([scored(companies[0], "72")]),
        CREATE: lambda: writer.create_tasks([task("b", companies[0])]),
    }[path]
    with pytest.raises(OutcomeUnknown):
        write()
    assert box.count("hubspot", path) == sent + 1


@pytest.mark.parametrize("body", [{"ok": True}, [], {"results": [1]}, {"results": [{"id": "1"}]}])
def test_f11_a_success_of_another_shape_is_unknown(box, writer, companies, body):
    box.faults.add(vendor="hubspot", path=UPDATE, do="error_json", body=body)
    with pytest.raises(OutcomeUnknown):
        writer.update([scored(companies[0])])


def test_f01_a_burst_limit_is_waited_out_and_the_write_lands_once(box, writer, companies, waits):
    refused(box, UPDATE, status=429, policyName="TEN_SECONDLY_ROLLING")
    assert outcomes(writer.update([scored(companies[0])])) == [DONE]
    assert any(9 < wait <= 10 for wait in waits)
    assert len(control.writes(box)) == 1


@pytest.mark.parametrize("act", ["update", "create", "read"])
def test_f03_the_days_limit_ends_everything_at_once(box, writer, companies, act):
    writer.create_tasks([task("a", companies[0])])
    writer.update([scored(companies[0])])
    control.settings(box, used_by_others=650_000)
    sent = len(box.log)
    ask = {
        "update": lambda: writer.update([scored(companies[0], "1")]),
        "create": lambda: writer.create_tasks([task("b", companies[0])]),
        "read": lambda: writer.tasks_by_key(["a" * 64]),
    }[act]
    with pytest.raises(SourceExhausted, match="day's requests"):
        ask()
    assert len(box.log) == sent + 1


@pytest.mark.parametrize("token", ["wrong", f"{TOKEN}/crm.objects.companies.read"])
def test_f51_credentials_and_rights_that_do_not_do_end_the_run(box, companies, token):
    writer = connected(box, token=token)
    with pytest.raises(SourceRefused) as error:
        writer.update([scored(companies[0])])
    assert len(box.log) <= 3
    assert token not in str(error.value)


# Records


def test_records_that_changed_come_in_canonical_text(box, writer, companies):
    writer.update([scored(companies[0], risk_as_of="2026-06-30")])
    box.move(NOW + dt.timedelta(hours=2))
    control.edit(box, "companies", companies[1], healthloop_risk_score="7.50")
    control.edit(box, "companies", companies[2], healthloop_risk_score="12.0")
    box.move(NOW + dt.timedelta(hours=3))
    since = NOW + dt.timedelta(hours=1)
    changed = list(writer.records_changed("account", since, ["risk_score", "risk_as_of"]))
    assert {r.record_id: r.values["risk_score"] for r in changed} == {
        companies[1]: "7.5", companies[2]: "12",
    }  # fmt: skip
    everything = {r.record_id: r for r in writer.records_changed("account", None, ["risk_score"])}
    assert set(companies) <= set(everything)
    gone = {id for id, record in everything.items() if record.gone}
    assert gone
    assert gone.isdisjoint(companies)


@pytest.mark.parametrize("stored", ["2026-06-30", "1782777600000", "2026-06-30T00:00:00Z"])
def test_dates_are_the_same_day_however_the_portal_keeps_them(stored):
    assert decoded(FIELDS["risk_as_of"], stored) == "2026-06-30"


@given(st.dates(dt.date(1971, 1, 1), dt.date(2200, 1, 1)), st.sampled_from(["date", "datetime"]))
def test_a_date_survives_the_way_to_the_portal_and_back(day, type):
    field = FIELDS["risk_as_of"]
    assert decoded(field, encoded(field, type, day.isoformat())) == day.isoformat()


@given(st.dates(dt.date(2000, 1, 1), dt.date(2100, 1, 1)), st.integers(-12, 14))
def test_the_due_day_is_the_owners_day_in_every_time_zone(day, offset):
    due_at = dt.datetime.combine(day, dt.time(17), dt.timezone(dt.timedelta(hours=offset)))
    assert due_day(due_value(day, due_at.astimezone(dt.UTC))) == day


# Before writing


def test_a_portal_that_has_everything_is_ready(box, writer):
    before = len(box.log)
    assert writer.ready(fields=True, tasks=True) == []
    assert len(box.log) - before == 3
    assert control.writes(box) == []


def test_what_is_missing_or_wrong_keeps_us_from_writing(box, writer):
    table, now = control.created_properties(box), box.now.timestamp()

    def change(name, **differs):
        table.put(name, table.get(name, now).body | differs, now)

    table.remove("companies/healthloop_risk_score", now)
    change("companies/healthloop_risk_as_of", type="string")
    change("companies/healthloop_upsell_score", modificationMetadata={"readOnlyValue": True})
    options = [{"label": "Red", "value": "red"}]
    change("deals/healthloop_risk_band", options=options)
    table.remove("companies/healthloop_override_score", now)
    change("tasks/healthloop_key", hasUniqueValue=False)
    found = writer.ready(fields=True, tasks=True)
    problems = [finding for finding in found if finding.level == "problem"]
    assert [finding.seen for finding in problems] == [
        "the property healthloop_risk_score of companies is missing",
        "the property healthloop_risk_as_of of companies cannot serve",
        "the property healthloop_upsell_score of companies cannot serve",
        "the property healthloop_risk_band of deals is incomplete",
        "the property healthloop_key of tasks cannot serve",
    ]
    assert "Require unique values" in problems[-1].remedy
    notes = [finding.seen for finding in found if finding.level == "note"]
    assert notes == ["the property healthloop_override_score of companies is missing"]
    only_tasks = writer.ready(fields=False, tasks=True)
    assert only_tasks == problems[-1:]


def test_rights_that_are_too_narrow_or_too_wide_are_told(box):
    narrow = f"{TOKEN}/crm.objects.companies.read,crm.objects.companies.write,tickets"
    found = connected(box, token=narrow).rights()
    assert [finding.level for finding in found] == ["problem", "note", "ok"]
    assert "crm.objects.deals.write" in found[0].seen
    assert "tickets" in found[1].seen
    exact = sorted(connected(box).rights()[0].seen.partition(": ")[2].split(", "))
    assert exact == [
        "crm.schemas.companies.write", "crm.schemas.contacts.write", "crm.schemas.deals.write",
    ]  # fmt: skip


def test_a_portal_that_does_not_tell_the_scopes_leaves_a_note(box, writer):
    refused(box, "access-token-info", status=404)
    found = writer.rights()
    assert found[0].level == "note"
    assert "does not tell" in found[0].seen


def test_the_budget_is_what_the_last_answer_told(box, writer, companies):
    assert writer.budget().allowed is None
    assert writer.budget().used_share == 0
    control.settings(box, daily_limit=1000, used_by_others=400)
    writer.update([scored(companies[0])])
    assert (writer.budget().allowed, writer.budget().used) == (1000, 402)
    assert writer.requests_sent == len(box.log) == 2
    refused(box, UPDATE, status=429, policyName="DAILY",
            headers={"X-HubSpot-RateLimit-Daily-Remaining": "0"})  # fmt: skip
    with pytest.raises(SourceExhausted):
        writer.update([scored(companies[0])])
    assert writer.budget().used_share == 1


def test_writer_and_reader_name_the_same_account(box, writer):
    assert writer.account() == "48151623-sandbox"
    assert writer.batch_size == 100
    assert writer.bulk is None


def test_a_hundred_records_are_one_call_and_a_hundred_tasks_too(box, writer, companies):
    writer.ready(fields=True, tasks=True)
    before = len(box.log)
    assert set(outcomes(writer.update([scored(id) for id in companies[:100]]))) == {DONE}
    assert len(box.log) - before == 1
    tasks = [task(chr(256 + n), companies[0]) for n in range(100)]
    assert set(outcomes(writer.create_tasks(tasks))) == {DONE}
    assert len(box.log) - before == 3  # one for the kind of association
    assert len(writer.tasks_by_key([task.key for task in tasks])) == 100


def test_f71_reading_writes_nothing(box, writer, companies):
    writer.ready(fields=True, tasks=True)
    writer.rights(), writer.owners(), writer.account()
    writer.tasks_by_key(["a" * 64]), writer.records_by_id("account", companies[:2], [])
    list(writer.tasks_changed(None)), list(writer.records_changed("opportunity", NOW, []))
    assert control.writes(box) == []
    sent = {r.path.rpartition("/")[2] for r in box.log if r.method != "GET"}
    assert sent <= {"read", "search", "access-token-info"}


def test_f93_the_token_shows_nowhere(box, caplog, companies):
    caplog.set_level("DEBUG")
    writer = connected(box)
    writer.rights()
    writer.update([scored(companies[0])])
    portal = writer._portal
    shown = [caplog.text, repr(writer), repr(vars(writer)), repr(portal), repr(vars(portal))]
    for part in vars(portal).values():
        api_client = getattr(part, "api_client", SimpleNamespace())
        shown += [repr(getattr(part, "__dict__", "")), repr(vars(api_client))]
        shown.append(repr(getattr(getattr(api_client, "configuration", None), "__dict__", "")))
    assert TOKEN not in " ".join(shown)


def test_f93_errors_repeat_no_text_of_the_portal(box, writer, companies):
    said = []
    for status in (400, 404, 409, 422, 423, 401, 403, 500):
        refused(box, UPDATE, status=status, category="VALIDATION_ERROR", context={"x": ["ada@y"]})
        try:
            results = writer.update([scored(id) for id in companies[:2]])
            said += [repr(result) for result in results]
        except SourceError as error:
            said += [str(error), repr(error)]
    assert len(said) > 8
    assert not [text for text in said if "ada" in text.lower() or "Lovelace" in text]


def test_the_credentials_for_writing_take_the_place_of_the_sources():
    source = HubSpotConfig.model_validate({
        "type": "hubspot", "token": {"env": "READ"}, "api_version": "2026-03",
        "expect_account": "1", "fields": {"company": {"arr": "yearly"}},
    })  # fmt: skip
    same = merged_config(source, HubSpotTarget(source="crm"))
    assert same == source
    target = HubSpotTarget(source="crm", credentials={"token": {"env": "WRITE"}})
    merged = merged_config(source, target)
    assert merged.token.env == "WRITE"
    assert merged.model_dump(exclude={"token"}) == source.model_dump(exclude={"token"})
    assert VENDOR.config is type(merged)


# Answers


@given(
    st.lists(st.sampled_from(["done", "rejected", "aggregated", "silent"]), max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_input_of_a_batch_is_told_apart_in_whatever_order(kinds, random):
    kind_of = {str(number): kind for number, kind in enumerate(kinds)}
    results = [
        {"id": f"9{id}", "objectWriteTraceId": id, "properties": {}}
        for id, kind in kind_of.items()
        if kind == "done"
    ]
    errors = [
        {"category": "VALIDATION_ERROR", "context": {"objectWriteTraceId": [id]}}
        for id, kind in kind_of.items()
        if kind == "rejected"
    ]
    several = [id for id, kind in kind_of.items() if kind == "aggregated"]
    errors += [{"category": "OBJECT_NOT_FOUND", "context": {"ids": several}}] if several else []
    random.shuffle(results)
    random.shuffle(errors)
    told = answered({"results": results, "errors": errors, "numErrors": len(kinds)})
    left = [id for id in kind_of if told.result(id) is None]
    says = {"rejected": ("VALIDATION_ERROR",), "aggregated": ("OBJECT_NOT_FOUND",)}
    for id, kind in kind_of.items():
        assert (told.result(id) is not None) == (kind == "done")
        trouble = told.trouble(id, left)
        if kind in says:
            assert trouble.codes == says[kind]
        elif kind == "silent":
            assert trouble is None


def test_an_error_that_names_no_record_is_about_the_only_one_left():
    body = {"results": [{"id": "1", "properties": {}}], "errors": [{"category": "SOME_CODE"}]}
    told = answered(body)
    assert told.trouble("2", ["2"]).codes == ("SOME_CODE",)
    assert told.trouble("2", ["2", "3"]) is None


@pytest.mark.parametrize(
    "error",
    [{}, {"context": None, "errors": None}, {"category": 7, "errors": ["x"], "context": []}],
)
def test_every_part_of_an_error_may_be_missing(error):
    told = answered({"results": [], "errors": [error]})
    assert told.trouble("1", ["1"]).reason == "refused"
