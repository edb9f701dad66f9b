"""What a CRM should show, and which fields differ from what it acknowledged."""

import datetime as dt
import json
from unittest import mock

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.crm.changes import (
    STATES,
    Bands,
    load_confirmed,
    make_changes,
    read_changes,
    read_totals,
    store_changes,
)
from connectors.crm.planning import records_of
from contracts.crm_fields import FIELDS, HANDOFF_FACTS, PARTS, written_on
from contracts.errors import HeldError
from scoring import desired, metrics, scores
from tests.signals import (
    DAY,
    add,
    add_account,
    as_of,
    connect,
    days_before,
    feed,
    library,
    metric,
    scorecard,
    use,
)

ACTIVE = metric(
    table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
    label="Active days",
)  # fmt: skip
COMPONENTS = [{"metric": "active", "weight": 100, "points": {0: 100, 28: 0}}]
RISE = [{"metric": "active", "weight": 100, "points": {0: 0, 28: 100}}]
LIBRARY = library({"active": ACTIVE}, scorecard(components=COMPONENTS))
ALL_KINDS = library(
    {"active": ACTIVE},
    scorecard(components=COMPONENTS),
    scorecard("upsell", score="upsell", bands={"ready": 70, "possible": 40}, components=RISE),
    scorecard("growth", score="health:growth", bands={"green": 70, "yellow": 40}, components=RISE),
    scorecard("handoff", score="handoff", bands={"green": 70, "yellow": 40}, components=RISE),
)
FACTS = {fact.name for fact in HANDOFF_FACTS}
RISK = {f"risk_{part}" for part in PARTS}
HOSTILE = "o'hara\"; DROP SCHEMA plan; -- \u202e\U0001f600\\"


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily")
    for number, account in enumerate(("a", "b", HOSTILE)):
        add_account(connection, account, crm="hubspot", crm_id=str(number), name=account)
    add_account(connection, "no-record", linked_to=())
    use(connection, "a", days_before(DAY, 9))
    use(connection, "b", days_before(DAY, 28))
    use(connection, HOSTILE, days_before(DAY, 1))
    yield connection
    connection.close()


class Crm:
    """A CRM that takes what is planned, and what the ledger would remember of it."""

    def __init__(self, connection):
        self.connection = connection
        self.acknowledged = {}

    def take(self, *, leave=lambda change: False):
        for record in read_changes(self.connection, self.found):
            values = self.acknowledged.setdefault((record.crm, record.object, record.record_id), {})
            values.update({c.field: c.new for c in record.changes if not leave(c)})
        self.load()

    def load(self):
        rows = [(*key, json.dumps(values)) for key, values in self.acknowledged.items()]
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        names = ("crm", "object", "record_id", "values")
        load_confirmed(
            self.connection,
            [pa.table({name: pa.array(c, pa.string()) for name, c in zip(names, columns,
                                                                         strict=True)})],
        )  # fmt: skip

    def plan(self, day=DAY, lib=LIBRARY, *, refresh_days=7, **options):
        self.day = day
        score(self.connection, lib, day)
        self.found = changes_of(self.connection, day, refresh_days=refresh_days, **options)
        return self.found


@pytest.fixture
def crm(connection):
    return Crm(connection)


def score(connection, lib, day):
    metrics.compute(connection, lib, as_of(day))
    scores.compute(connection, lib, as_of(day))
    desired.compute(connection, lib, day)


def changes_of(connection, day=DAY, *, in_use=None, refresh_days=7, **options):
    found = make_changes(connection, day, in_use=in_use, refresh_days=refresh_days, **options)
    assert tuple(found.fields) == STATES
    assert sum(found.fields.values()) == found.desired
    assert read_totals(connection, day) == found
    store_changes(connection, found)
    written = list(read_changes(connection, found))
    with mock.patch("connectors.crm.comparing.RECORDS_ALIKE", 1):
        assert whole(read_changes(connection, found)) == whole(written)
    assert sum(len(record.changes) for record in written) == found.fields["write"]
    assert len({record.account_id for record in written}) == found.accounts["write"]
    return found


def whole(records):
    return sorted((r.crm, r.object, r.record_id, r.account_id, [*r.changes]) for r in records)


def states(found):
    return {state: number for state, number in found.fields.items() if number}


def wanted(connection, account, prefix=""):
    rows = connection.execute(
        "SELECT field, value FROM plan.desired WHERE account_id = ? AND starts_with(field, ?)",
        [account, prefix],
    ).fetchall()
    return dict(rows)


def written(connection, account, day=DAY, object="account"):
    rows = connection.execute(
        "SELECT field, old, new FROM plan.field_changes "
        "WHERE as_of = ? AND account_id = ? AND object = ?", [day, account, object],
    ).fetchall()  # fmt: skip
    return {field: (old, new) for field, old, new in rows}


# What the CRM should show


def test_every_part_of_every_score_stands_under_its_name_in_the_catalogue(connection):
    connection.execute("UPDATE signals.accounts SET desired_outcome = 'growth'")
    score(connection, ALL_KINDS, DAY)
    assert set(wanted(connection, "b")) == {
        name for name in FIELDS if name.split("_")[0] in ("risk", "upsell", "health")
    } | {f"handoff_{part}" for part in PARTS}
    assert wanted(connection, "b", "health") == {
        "health_score": "100", "health_band": "green", "health_reasons": None,
        "health_coverage": "100", "health_as_of": "2026-03-31", "health_scorecard": "growth v1",
        "health_change": None, "health_outcome": "growth",
    }  # fmt: skip
    assert wanted(connection, "a", "upsell")["upsell_reasons"] == "Active days: 9"


def test_a_score_that_an_account_does_not_have_asks_for_nothing(connection):
    connection.execute(
        "UPDATE signals.accounts SET desired_outcome = 'growth' WHERE account_id = 'a'"
    )
    score(connection, ALL_KINDS, DAY)
    assert wanted(connection, "a", "health")["health_outcome"] == "growth"
    assert wanted(connection, "b", "health") == {}


def test_every_band_is_one_of_the_choices_that_the_catalogue_promises(connection):
    connection.execute("UPDATE signals.accounts SET desired_outcome = 'growth'")
    score(connection, ALL_KINDS, DAY)
    rows = connection.execute(
        "SELECT field, value FROM plan.desired WHERE ends_with(field, '_band')"
    ).fetchall()
    assert len(rows) == 16
    assert all(value in FIELDS[field].choices for field, value in rows)


def test_the_change_is_one_of_rounded_numbers_against_a_week_before(connection):
    score(connection, LIBRARY, DAY - dt.timedelta(days=9))
    score(connection, LIBRARY, DAY - dt.timedelta(days=8))
    score(connection, LIBRARY, DAY)
    # Of 28 days b was active on 20 then (28.6 is shown as 29), and a on 1 (96).
    assert wanted(connection, "b")["risk_change"] == str(0 - 29)
    assert wanted(connection, "a")["risk_change"] == str(68 - 96)


@pytest.mark.parametrize(("days_ago", "known"), [(6, False), (7, True), (14, True), (15, False)])
def test_only_a_day_of_the_week_before_is_compared_with(connection, days_ago, known):
    score(connection, LIBRARY, DAY - dt.timedelta(days=days_ago))
    score(connection, LIBRARY, DAY)
    assert (wanted(connection, "b")["risk_change"] is not None) == known


def test_the_change_from_or_to_unknown_is_not_known(connection):
    connection.execute("DELETE FROM signals.account_keys WHERE account_id = 'b'")
    score(connection, LIBRARY, DAY - dt.timedelta(days=7))
    connection.execute(
        "INSERT INTO signals.account_keys VALUES ('app', 'b', 'b', 'explicit', 1.0, NULL)"
    )
    connection.execute("DELETE FROM signals.account_keys WHERE account_id = 'a'")
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "b")["risk_score"] == "0"
    assert wanted(connection, "b")["risk_change"] is None
    assert wanted(connection, "a")["risk_change"] is None


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
def test_f45_reasons_are_truncated_by_code_point(connection, letter):
    components = [{**COMPONENTS[0], "because": letter * 5000}]
    score(connection, library({"active": ACTIVE}, scorecard(components=components)), DAY)
    assert wanted(connection, "a")["risk_reasons"] == letter * 4000


def test_f49_a_text_that_becomes_empty_is_null(crm, connection):
    crm.plan()
    crm.take()
    assert wanted(connection, "a")["risk_reasons"] == "Active days: 9"
    use(connection, "a", days_before(DAY, 28, skip=9))
    crm.plan()
    assert written(connection, "a")["risk_reasons"] == ("Active days: 9", None)


# Handoff facts


def deal(connection, account, number, *, won_at=None, closed_at=None, kind="new", created=DAY,
         source="crm", **facts):  # fmt: skip
    """An opportunity, and what sales noted on it."""
    created_at = dt.datetime.combine(created, dt.time())
    common = {"account_id": account, "opportunity_id": number, "created_at": created_at}
    add(connection, "opportunities", source=source, kind=kind, closed_at=closed_at or won_at,
        won=won_at is not None, **common)  # fmt: skip
    add(connection, "handoffs", source=source, kind=kind, won_at=won_at, **common, **facts)


def at(day):
    return dt.datetime.combine(day, dt.time(12))


def test_handoff_facts_are_those_of_the_newest_won_new_deal(connection):
    month = DAY - dt.timedelta(days=30)
    deal(connection, "a", "1", created=month, won_at=at(month), promised_outcome="old")
    deal(connection, "a", "2", created=month, won_at=at(DAY), promised_outcome=" growth \n soon ",
         success_criteria=" - daily\tuse\r\n - two\x85sites\n", champion="c-1",
         stakeholders_met=3, sentiment=4.6, kickoff_on=dt.date(2026, 4, 9))  # fmt: skip
    deal(connection, "a", "3", promised_outcome="open")
    deal(connection, "a", "4", won_at=at(DAY), kind="expansion", promised_outcome="more")
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "a", "handoff") == {
        "handoff_promised_outcome": "growth soon",
        "handoff_success_criteria": "- daily use\n- two sites",  # as sales wrote it
        "handoff_champion": "c-1", "handoff_decision_maker": None,
        "handoff_stakeholders_met": "3", "handoff_sentiment": "5",
        "handoff_kickoff_on": "2026-04-09",
    }  # fmt: skip


def test_without_a_won_deal_the_newest_open_one_counts_and_a_lost_one_never(connection):
    deal(connection, "a", "1", created=DAY - dt.timedelta(days=3), promised_outcome="first")
    deal(connection, "a", "2", created=DAY - dt.timedelta(days=2), promised_outcome="second")
    deal(connection, "a", "3", closed_at=at(DAY), promised_outcome="lost")
    deal(connection, "b", "4", closed_at=at(DAY), promised_outcome="lost")
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "a")["handoff_promised_outcome"] == "second"
    lost = wanted(connection, "b", "handoff")
    assert (len(lost), set(lost.values())) == (7, {None})  # what it showed before is cleared


@pytest.mark.parametrize("gone", ["superseded_at = $then", "deleted = true, known_at = $then"])
@pytest.mark.parametrize(("days_ago", "cleared"), [(0, 7), (29, 7), (31, 0)])
def test_facts_that_sales_took_back_are_cleared_for_a_month(connection, gone, days_ago, cleared):
    deal(connection, "a", "1", created=DAY - dt.timedelta(days=60), promised_outcome="growth")
    then = at(DAY - dt.timedelta(days=days_ago))
    connection.execute(f"UPDATE signals.handoffs SET {gone}", {"then": then})
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "a", "handoff") == dict.fromkeys(
        [name for name in sorted(FIELDS) if name in FACTS][:cleared]
    )


def test_what_was_noted_after_the_day_is_not_known(connection):
    tomorrow = DAY + dt.timedelta(days=1)
    deal(connection, "a", "1", created=DAY + dt.timedelta(days=2), promised_outcome="later")
    deal(connection, "b", "2", created=DAY, won_at=at(tomorrow), promised_outcome="open today")
    deal(connection, "b", "3", created=DAY - dt.timedelta(days=1), promised_outcome="older")
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "a", "handoff") == {}
    assert wanted(connection, "b")["handoff_promised_outcome"] == "open today"


def test_a_warehouse_without_handoffs_has_no_handoff_facts(connection):
    connection.execute("DROP TABLE signals.handoffs")
    score(connection, LIBRARY, DAY)
    assert set(wanted(connection, "a")) == RISK


def test_a_score_that_an_account_has_no_more_is_cleared_once(crm, connection):
    crm.plan(lib=ALL_KINDS)
    crm.take()
    without = library({"active": ACTIVE}, scorecard(components=COMPONENTS))
    tomorrow = DAY + dt.timedelta(1)
    crm.plan(tomorrow, lib=without)
    changes = written(connection, "a", tomorrow)
    cleared = {name for name in changes if name.startswith("handoff_")}
    assert {changes[name][1] for name in cleared} == {None}
    assert {"handoff_score", "handoff_band", "handoff_as_of"} <= cleared
    crm.take()
    crm.plan(tomorrow + dt.timedelta(1), lib=without)
    assert not cleared & set(written(connection, "a", tomorrow + dt.timedelta(1)))


def test_a_prospect_with_an_open_deal_shows_its_handoff_facts(crm, connection):
    add_account(connection, "prospect", crm="hubspot", crm_id="9", is_customer=False)
    deal(connection, "prospect", "1", promised_outcome="growth")
    crm.plan()
    assert written(connection, "prospect")["handoff_promised_outcome"] == (None, "growth")
    assert len(written(connection, "prospect")) == 7


# The comparison


def test_everything_is_written_first_with_old_new_and_why(crm, connection):
    found = crm.plan()
    assert states(found) == {"write": 21, "unlinked": 7}
    assert found.accounts["write"] == 3
    first = next(record for record in read_changes(connection, found) if record.account_id == "a")
    assert (first.crm, first.object, first.record_id) == ("hubspot", "account", "0")
    assert [(c.field, c.old, c.new, c.why) for c in first.changes] == [
        ("risk_score", None, "68", "Active days: 9"),
        ("risk_band", None, "yellow", "Active days: 9"),
        ("risk_reasons", None, "Active days: 9", "Active days: 9"),
        ("risk_coverage", None, "100", "Active days: 9"),
        ("risk_as_of", None, "2026-03-31", "Active days: 9"),
        ("risk_scorecard", None, "risk-default v1", "Active days: 9"),
        ("risk_change", None, None, "Active days: 9"),
    ]
    assert written(connection, HOSTILE)["risk_band"] == (None, "red")


def test_the_view_for_people_shows_the_same_as_what_is_read(crm, connection):
    connection.execute("UPDATE signals.accounts SET desired_outcome = 'growth'")
    deal(connection, "a", "1", promised_outcome='a "quoted" word', champion="c-1")
    crm.plan(lib=ALL_KINDS)
    crm.take(leave=lambda change: change.field == "handoff_champion")
    use(connection, "a", [DAY - dt.timedelta(days=20)])
    crm.plan(lib=ALL_KINDS)
    shown = connection.execute(
        "SELECT crm, object, record_id, account_id, field, old, new, coalesce(why, '') "
        "FROM plan.field_changes WHERE as_of = ?", [DAY],
    ).fetchall()  # fmt: skip
    read = [
        (r.crm, r.object, r.record_id, r.account_id, c.field, c.old, c.new, c.why)
        for r in read_changes(connection, crm.found)
        for c in r.changes
    ]
    assert sorted(shown, key=str) == sorted(read, key=str)
    assert {row[4]: row[7] for row in read}["handoff_champion"] == "noted on opportunity 1"


def test_an_acknowledged_value_is_not_written_again(crm, connection):
    crm.plan()
    crm.take()
    again = crm.plan()
    assert states(again) == {"unchanged": 21, "unlinked": 7}
    assert list(read_changes(connection, crm.found)) == []
    # The same day once more, with more use: only what people would see changed is written.
    use(connection, "a", [DAY - dt.timedelta(days=20)])
    assert crm.plan().fields["write"] == 2
    assert written(connection, "a") == {
        "risk_score": ("68", "64"), "risk_reasons": ("Active days: 9", "Active days: 10"),
    }  # fmt: skip


def test_f69_a_field_that_a_human_edited_is_rewritten_only_when_our_value_changes(crm, connection):
    """What counts is what the CRM acknowledged, not what it shows; a human may change that."""
    crm.plan()
    crm.take()
    # Somebody sets the band in the CRM: nothing that is confirmed changes by it.
    assert crm.plan().fields["write"] == 0
    use(connection, "a", days_before(DAY, 10, skip=9))
    crm.plan()
    assert written(connection, "a")["risk_band"] == ("yellow", "green")


def test_a_refused_score_is_offered_whole_once_any_of_it_is_new(crm, connection):
    """Else the number of one day would stand beside the band of another."""
    deal(connection, "a", "1", promised_outcome="growth")
    crm.plan()
    crm.take(leave=lambda change: change.field == "handoff_promised_outcome")
    use(connection, "a", days_before(DAY, 10, skip=9))
    crm.plan()
    news = {field: new for field, (_, new) in written(connection, "a").items()}
    assert news["risk_band"] == "green"
    assert news["handoff_promised_outcome"] == "growth"
    refused = {("hubspot", "account", "0"): news}
    crm.plan(rejected=refused)
    assert written(connection, "a") == {}
    use(connection, "a", [DAY - dt.timedelta(days=22)])
    crm.plan(rejected=refused)
    offered = written(connection, "a")
    assert news.keys() - offered.keys() == {"handoff_promised_outcome"}
    assert offered["risk_band"] == ("yellow", "green")
    assert offered["risk_score"][1] != news["risk_score"]


def test_what_was_never_acknowledged_is_written_even_where_it_is_empty(crm, connection):
    """A field that is new in the catalogue, or that a person filled before us, becomes ours."""
    crm.plan()
    crm.take(leave=lambda change: change.field == "risk_change")
    assert states(crm.plan()) == {"write": 3, "unchanged": 18, "unlinked": 7}
    assert written(connection, "a") == {"risk_change": (None, None)}


def test_noise_below_what_people_see_is_no_change(crm):
    """F48: 68.0 and 67.9 are both shown as 68."""
    crm.plan()
    crm.take()
    components = [{"metric": "active", "weight": 100, "points": {0: 100, 28: 0.2}}]
    shifted = library({"active": ACTIVE}, scorecard(components=components))
    assert crm.plan(lib=shifted).fields["write"] == 0


# The day that is shown


NPS = metric(table="survey_responses", aggregate="last(score)", label="NPS")
STEADY = library(
    {"nps": NPS},
    scorecard(components=[{"metric": "nps", "weight": 100, "points": {0: 100, 10: 0}}]),
    scorecard("upsell", score="upsell", bands={"ready": 70, "possible": 40},
              components=[{"metric": "nps", "weight": 100, "points": {5: 0, 10: 100}}]),
)  # fmt: skip


def answer(connection, account, value, day):
    feed(connection, "survey_responses")
    add(connection, "survey_responses", account_id=account, response_id=f"{account}-{day}",
        kind="nps", score=value, responded_at=at(day))  # fmt: skip


@pytest.fixture
def steady(crm, connection):
    """A CRM that shows the scores of two accounts that nothing happens at for weeks."""
    connection.execute("DELETE FROM signals.accounts WHERE account_id NOT IN ('a', 'b')")
    for account in ("a", "b"):
        answer(connection, account, 4, DAY - dt.timedelta(days=60))
    score(connection, STEADY, DAY - dt.timedelta(days=7))
    crm.plan(lib=STEADY)
    crm.take()
    return crm


def test_a_day_that_moves_on_is_no_change_until_the_one_shown_is_too_old(steady, connection):
    for days in range(1, 8):
        score(connection, STEADY, DAY + dt.timedelta(days=days))
        assert steady.plan(DAY + dt.timedelta(days=days), STEADY).fields["write"] == 0
    later = DAY + dt.timedelta(days=8)
    assert steady.plan(later, STEADY).fields["write"] == 4
    assert written(connection, "a", later) == {
        "risk_as_of": ("2026-03-31", "2026-04-08"), "upsell_as_of": ("2026-03-31", "2026-04-08"),
    }  # fmt: skip
    steady.take()
    assert steady.plan(later, STEADY).fields["write"] == 0
    assert steady.plan(later + dt.timedelta(days=7), STEADY).fields["write"] == 0


def test_the_day_goes_with_any_other_change_of_its_score_and_of_no_other(steady, connection):
    tomorrow = DAY + dt.timedelta(days=1)
    answer(connection, "a", 5, tomorrow)
    steady.plan(tomorrow, STEADY)
    assert written(connection, "a", tomorrow) == {
        "risk_score": ("60", "50"), "risk_reasons": ("NPS: 4", "NPS: 5"),
        "risk_change": ("0", "-10"), "risk_as_of": ("2026-03-31", "2026-04-01"),
    }  # fmt: skip
    assert written(connection, "b", tomorrow) == {}


@pytest.mark.parametrize(("refresh_days", "after"), [(1, 2), (3, 4)])
def test_how_old_the_day_may_become_is_a_setting(steady, refresh_days, after):
    day = DAY + dt.timedelta(days=after - 1)
    assert steady.plan(day, STEADY, refresh_days=refresh_days).fields["write"] == 0
    day = DAY + dt.timedelta(days=after)
    assert steady.plan(day, STEADY, refresh_days=refresh_days).fields["write"] == 4


# What is not written


def test_what_a_broken_pipe_made_unknown_is_held(crm, connection):
    crm.plan()
    crm.take()
    later = DAY + dt.timedelta(days=6)
    found = crm.plan(later)
    assert states(found) == {"held": 21, "unlinked": 7}
    assert found.bands == Bands(accounts=4, known=3, band_changes=0, newly_unknown=0, held=3)
    assert read_totals(connection, DAY).fields["write"] == 21


def test_what_nobody_measures_is_written_as_unknown(crm, connection):
    connection.execute("DELETE FROM signals.account_keys WHERE account_id = 'a'")
    crm.plan()
    found = written(connection, "a")
    assert found["risk_band"] == (None, "unknown")
    assert found["risk_score"] == (None, None)
    assert found["risk_reasons"] == (None, "Unknown: nothing is known")


def test_a_plan_that_does_not_add_up_is_held_and_not_stored(crm, connection):
    crm.plan()
    before = connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall()
    # Two acknowledgements of one record, as a damaged ledger could have them.
    twice = pa.table({"crm": ["hubspot"] * 2, "object": ["account"] * 2, "record_id": ["0"] * 2,
                      "values": ["{}"] * 2})  # fmt: skip
    load_confirmed(connection, [twice])
    with pytest.raises(HeldError, match="does not add up: 28 values are desired, 35 are planned"):
        make_changes(connection, DAY, in_use=None, refresh_days=7)
    assert connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall() == before


def test_f46_two_accounts_with_one_record_do_not_overwrite_each_other_for_ever(crm, connection):
    connection.execute("UPDATE signals.accounts SET crm_id = '0' WHERE account_id = 'b'")
    assert states(crm.plan()) == {"write": 14, "unlinked": 14}
    crm.take()
    assert crm.plan().fields["write"] == 0
    assert written(connection, "b") == {}


def test_f46_the_second_of_two_accounts_does_not_take_the_record_when_it_is_scored_alone(
    crm, connection
):
    """As the fast lane does with an account that has news."""
    connection.execute("UPDATE signals.accounts SET crm_id = '0' WHERE account_id = 'b'")
    crm.plan()
    connection.execute("DELETE FROM plan.desired_accounts WHERE account_id <> 'b'")
    assert states(changes_of(connection, accounts=["b"])) == {"unlinked": 7}


def test_f46_a_customer_comes_before_a_prospect_with_the_same_record(crm, connection):
    add_account(connection, "A first", crm="hubspot", crm_id="0", is_customer=False)
    crm.plan()
    assert len(written(connection, "a")) == 7


def test_f46_an_account_listed_by_two_sources_has_one_record(crm, connection):
    add_account(connection, "a", crm="salesforce", crm_id="x", source="other",
                known_at=dt.datetime(2020, 1, 1))  # fmt: skip
    assert crm.plan().desired == 28
    (record,) = (r for r in read_changes(connection, crm.found) if r.account_id == "a")
    assert record.crm == "hubspot"


def test_a_day_without_desired_values_is_an_empty_plan(crm, connection):
    crm.plan()
    found = changes_of(connection, DAY + dt.timedelta(days=1))
    assert (found.desired, states(found)) == (0, {})


def test_f65_a_record_that_was_deleted_is_not_written(crm, connection):
    found = crm.plan(merged={("hubspot", "0"): None})
    assert states(found) == {"write": 14, "unlinked": 7, "gone": 7}
    assert written(connection, "a") == {}


def test_f66_a_merged_record_is_written_under_the_id_that_lives_on(crm, connection):
    crm.plan()
    crm.take()
    found = crm.plan(merged={("hubspot", "0"): "50", ("hubspot", "50"): "51"})
    assert states(found) == {"write": 7, "unchanged": 14, "unlinked": 7}
    (record,) = read_changes(connection, crm.found)
    assert (record.account_id, record.record_id) == ("a", "51")
    crm.take()
    merged = {("hubspot", "0"): "51"}
    assert crm.plan(merged=merged).fields["write"] == 0


def test_f66_of_two_merged_records_the_account_that_names_it_itself_has_it(crm, connection):
    found = crm.plan(merged={("hubspot", "0"): "1"})
    assert states(found) == {"write": 14, "unlinked": 14}
    assert written(connection, "a") == {}
    assert written(connection, "b")


def test_f66_tasks_go_to_the_records_that_fields_go_to(crm, connection):
    connection.execute("UPDATE signals.accounts SET crm_id = '1' WHERE account_id = 'a'")
    connection.execute("UPDATE signals.accounts SET is_customer = account_id <> 'a'")
    for merged in ({}, {("hubspot", "1"): None}, {("hubspot", "1"): "50"}):
        crm.plan(merged=merged)
        of_fields = {r.account_id: r.record_id for r in read_changes(connection, crm.found)}
        of_tasks = {account: r.record_id for account, r in records_of(connection, merged).items()}
        assert "a" not in of_tasks
        assert {account: of_tasks[account] for account in of_fields} == of_fields
        assert of_fields


def test_records_that_were_merged_in_a_circle_are_gone(crm):
    merged = {("hubspot", "0"): "1", ("hubspot", "1"): "0"}
    assert crm.plan(merged=merged).fields["gone"] == 14


def test_f54_what_the_crm_refused_is_not_sent_again_until_it_changes(crm, connection):
    crm.plan()
    refused = {("hubspot", "account", "0"): {c: new for c, (_, new) in written(connection, "a")
                                             .items()}}  # fmt: skip
    found = crm.plan(rejected=refused)
    assert states(found) == {"write": 14, "unlinked": 7, "rejected": 7}
    # Next day's date alone is no news either.
    tomorrow = DAY + dt.timedelta(days=1)
    use(connection, "a", [tomorrow])
    connection.execute("DELETE FROM signals.usage_daily WHERE account_id = 'a' AND day = ?",
                       [DAY - dt.timedelta(days=8)])  # fmt: skip
    score(connection, LIBRARY, tomorrow)
    assert changes_of(connection, tomorrow, rejected=refused).fields["rejected"] == 7
    use(connection, "a", days_before(DAY, 2, skip=20))
    crm.plan(rejected=refused)
    # A score is offered whole: no record shows a new score beside the band of a day before.
    assert set(written(connection, "a")) == set(next(iter(refused.values())))


# Which fields, which records


def test_only_fields_in_use_are_written_and_those_that_people_fill_never(crm, connection):
    in_use = {("hubspot", "account"): ["override_score", "risk_band", "risk_score"]}
    found = crm.plan(in_use=in_use)
    assert states(found) == {"write": 6, "unlinked": 7}
    assert set(written(connection, "a")) == {"risk_band", "risk_score"}


def test_a_record_in_a_crm_that_is_not_written_to_is_unlinked(crm):
    found = crm.plan(in_use={("salesforce", "account"): ["risk_band"]})
    assert states(found) == {"unlinked": 28}


def test_open_deals_show_the_scores_and_no_handoff_facts(crm, connection):
    long_ago = DAY - dt.timedelta(days=100)
    deal(connection, "a", "open", kind="renewal")
    deal(connection, "a", "lost", closed_at=at(DAY))
    deal(connection, "a", "won", won_at=at(DAY - dt.timedelta(days=89)), created=long_ago,
         champion="c-1")  # fmt: skip
    deal(connection, "b", "won long ago", won_at=at(DAY - dt.timedelta(days=90)), created=long_ago)
    deal(connection, "b", "won renewal", won_at=at(DAY), kind="renewal")
    deal(connection, "b", "elsewhere", source="billing")
    deal(connection, "no-record", "of nobody")
    crm.plan()
    shown = {r.record_id: {c.field for c in r.changes} for r in read_changes(connection, crm.found)
             if r.object == "opportunity"}  # fmt: skip
    assert shown == {"open": RISK, "won": RISK}
    assert len(written(connection, "a")) == 14


def test_a_deal_is_gone_or_merged_like_any_record(crm, connection):
    deal(connection, "a", "1")
    deal(connection, "a", "2")
    crm.plan(merged={("hubspot", "1"): None, ("hubspot", "2"): "3"})
    deals = [r.record_id for r in read_changes(connection, crm.found) if r.object == "opportunity"]
    assert deals == ["3"]


def test_some_accounts_alone_can_be_planned_and_shares_are_still_of_all(crm, connection):
    crm.plan()
    crm.take()
    use(connection, "a", days_before(DAY, 19, skip=9))
    found = crm.plan(accounts=["a", "nobody"])
    assert found.accounts["write"] == 1
    assert found.bands == Bands(accounts=4, known=3, band_changes=1, newly_unknown=0, held=0)
    assert crm.plan(accounts=[]).desired == 0


def test_bands_that_become_unknown_are_counted_apart(crm, connection):
    crm.plan()
    crm.take()
    connection.execute("DELETE FROM signals.account_keys WHERE account_id IN ('a', 'b')")
    use(connection, HOSTILE, days_before(DAY, 28))
    found = crm.plan()
    assert found.bands == Bands(accounts=4, known=3, band_changes=1, newly_unknown=2, held=0)


def test_a_plan_of_an_older_version_is_forgotten(connection):
    connection.execute(
        "CREATE SCHEMA plan; CREATE TABLE plan.desired (as_of DATE, field VARCHAR);"
        "CREATE TABLE plan.confirmed (crm VARCHAR, confirmed_at TIMESTAMP);"
        "CREATE TABLE plan.field_changes (as_of DATE, state VARCHAR)"
    )
    score(connection, LIBRARY, DAY)
    assert changes_of(connection).fields["write"] == 21


def test_accounts_are_worked_in_parts_with_the_same_result(crm, connection, monkeypatch):
    deal(connection, "a", "1", champion="c-1")
    crm.plan()
    before = connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall()
    monkeypatch.setattr("scoring.desired.ACCOUNTS_AT_ONCE", 1)
    monkeypatch.setattr("connectors.crm.comparing.ACCOUNTS_AT_ONCE", 1)
    crm.plan()
    assert connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall() == before


VALUES = st.one_of(st.none(), st.sampled_from(["71", "red", '"risk_band":', "\\", "é😀"]))


@settings(max_examples=40, deadline=None)
@given(
    shown=st.dictionaries(st.sampled_from(sorted(RISK)), VALUES),
    refused=st.dictionaries(st.sampled_from(sorted(RISK)), VALUES),
    in_use=st.sets(st.sampled_from(sorted(RISK))),
    data=st.data(),
)
def test_every_value_ends_in_the_one_state_that_a_plain_comparison_gives(
    shown, refused, in_use, data
):
    given_values = {name: data.draw(VALUES) for name in RISK - {"risk_as_of"}}
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE SCHEMA signals; CREATE SCHEMA plan;"
            "CREATE TABLE signals.accounts AS SELECT 'a' AS account_id, 'hubspot' AS crm, "
            "'1' AS crm_id, 'crm' AS source, NULL AS superseded_at, NULL AS deleted, "
            "true AS is_customer, NULL AS owner, NULL AS sales_owner, "
            "now() AS known_at;"
            "CREATE TABLE signals.opportunities (source VARCHAR, account_id VARCHAR, "
            "opportunity_id VARCHAR, kind VARCHAR, won BOOLEAN, closed_at TIMESTAMP, "
            "superseded_at TIMESTAMP, deleted BOOLEAN)"
        )
        names = sorted({field.name for field in written_on("account")})
        columns = {name: given_values.get(name) for name in names} | {"risk_as_of": str(DAY)}
        held = ", ".join(f"NULL::BOOLEAN AS {g}_held" for g in ("upsell", "health", "handoff",
                                                               "facts"))  # fmt: skip
        connection.execute(
            f"CREATE TABLE plan.desired_accounts AS SELECT DATE '{DAY}' AS as_of, "
            f"'a' AS account_id, false AS risk_held, NULL::VARCHAR AS facts_reasons, {held}, "
            + ", ".join(f"${name}::VARCHAR AS {name}" for name in names),
            columns,
        )
        load_confirmed(connection, [pa.table(
            {"crm": ["hubspot"], "object": ["account"], "record_id": ["1"],
             "values": [json.dumps(shown)]}
        )])  # fmt: skip
        found = changes_of(
            connection,
            in_use={("hubspot", "account"): in_use},
            rejected={("hubspot", "account", "1"): refused},
        )
        plain = in_use - {"risk_as_of"}
        same = {name for name in plain if shown.get(name, ...) == columns[name]}
        no_news = same | {name for name in plain if refused.get(name, ...) == columns[name]}
        otherwise = "rejected" if no_news == plain else "write"
        expected = {name: "unchanged" if name in same else otherwise for name in plain}
        if "risk_as_of" in in_use:
            others = set(expected.values())
            expected["risk_as_of"] = (
                "write" if "write" in others or "rejected" not in others else "rejected"
            )
        if in_use:
            assert set(written(connection, "a")) == {
                name for name, state in expected.items() if state == "write"
            }
            assert found.fields["rejected"] == list(expected.values()).count("rejected")
            assert found.fields["unchanged"] == list(expected.values()).count("unchanged")
        else:
            assert states(found) == {"unlinked": len(RISK)}
