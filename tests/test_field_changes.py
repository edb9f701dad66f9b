"""What a CRM should show, and which fields differ from what it acknowledged."""

import datetime as dt
import json

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
)
from contracts.crm_fields import FIELDS, PARTS, written_on
from contracts.errors import HeldError
from scoring import desired, metrics, scores
from tests.signals import (
    DAY,
    add,
    add_account,
    add_many,
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
RISK = {f"risk_{part}" for part in PARTS}
HOSTILE = "o'hara\"; DROP SCHEMA plan; -- \u202e\U0001f600\\"
EVERYTHING = {
    (crm, object): [field.name for field in written_on(object)]
    for crm in ("hubspot", "salesforce")
    for object in ("account", "opportunity")
}


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
        for record in read_changes(self.connection, self.day):
            values = self.acknowledged.setdefault((record.crm, record.object, record.record_id), {})
            values.update({c.field: c.new for c in record.changes if not leave(c)})
        self.load()

    def load(self):
        rows = [(*key, json.dumps(values)) for key, values in self.acknowledged.items()]
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        names = ("crm", "object", "record_id", "values")
        load_confirmed(
            self.connection,
            pa.table({name: pa.array(c, pa.string()) for name, c in zip(names, columns,
                                                                        strict=True)}),
        )  # fmt: skip

    def plan(self, day=DAY, lib=LIBRARY, *, refresh_days=7, **options):
        self.day = day
        score(self.connection, lib, day)
        return changes_of(self.connection, day, refresh_days=refresh_days, **options)


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
    written = list(read_changes(connection, day))
    assert sum(len(record.changes) for record in written) == found.fields["write"]
    assert len({record.account_id for record in written}) == found.accounts["write"]
    return found


def states(found):
    return {state: number for state, number in found.fields.items() if number}


def wanted(connection, account, prefix=""):
    rows = connection.execute(
        "SELECT field, value FROM plan.desired WHERE account_id = ? AND starts_with(field, ?)",
        [account, prefix],
    ).fetchall()
    return dict(rows)


def written(connection, account, day=DAY, object="account"):
    return {
        change.field: (change.old, change.new)
        for record in read_changes(connection, day)
        for change in record.changes
        if record.account_id == account and record.object == object
    }


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
         success_criteria="", champion="c-1", stakeholders_met=3, sentiment=4.6,
         kickoff_on=dt.date(2026, 4, 9))  # fmt: skip
    deal(connection, "a", "3", promised_outcome="open")
    deal(connection, "a", "4", won_at=at(DAY), kind="expansion", promised_outcome="more")
    score(connection, LIBRARY, DAY)
    assert wanted(connection, "a", "handoff") == {
        "handoff_promised_outcome": "growth soon", "handoff_success_criteria": None,
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
    assert wanted(connection, "b", "handoff") == {}


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
    first = next(record for record in read_changes(connection, DAY) if record.account_id == "a")
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
        for r in read_changes(connection, DAY)
        for c in r.changes
    ]
    assert sorted(shown, key=str) == sorted(read, key=str)
    assert {row[4]: row[7] for row in read}["handoff_champion"] == "noted on opportunity 1"


def test_an_acknowledged_value_is_not_written_again(crm, connection):
    crm.plan()
    crm.take()
    again = crm.plan()
    assert states(again) == {"unchanged": 21, "unlinked": 7}
    assert list(read_changes(connection, DAY)) == []
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


def test_a_day_that_moves_on_is_no_change(crm, connection):
    """An unchanged next day writes nothing; the day that is shown is refreshed after a week."""
    crm.plan()
    crm.take()
    for days in range(1, 9):
        day = DAY + dt.timedelta(days=days)
        use(connection, "a", [day])
        use(connection, "b", [day])
        use(connection, HOSTILE, [day])
        connection.execute("DELETE FROM signals.usage_daily WHERE day < ?",
                           [day - dt.timedelta(days=27)])  # fmt: skip
        connection.execute(
            "DELETE FROM signals.usage_daily WHERE account_id IN ('a', ?) AND day = "
            "(SELECT min(day) FROM signals.usage_daily AS u WHERE u.account_id = 'a')", [HOSTILE],
        )  # fmt: skip
        found = crm.plan(day)
        print(days, states(found))
