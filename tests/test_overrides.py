"""A risk score that a person set by hand: when it counts, what it shows, and what it explains."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring import checks, desired, metrics, reasons, scores
from scoring.changes import split_change
from scoring.explain import explain
from scoring.overrides import IgnoredOverride, ignored_overrides
from tests.signals import (
    DAY,
    add,
    add_account,
    as_of,
    connect,
    days_before,
    feed,
    health,
    library,
    metric,
    scorecard,
    use,
)

THEN, NOW = DAY, DAY + dt.timedelta(days=30)
UNTIL = dt.date(2026, 7, 31)
ACTIVE = metric(
    table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
    label="Active days",
)  # fmt: skip
TICKETS = metric(table="tickets", aggregate="count", window="28d", label="Tickets")
NPS = metric(table="survey_responses", aggregate="last(score)", label="NPS")
COMPONENTS = [
    {"metric": "active", "weight": 60, "points": {0: 100, 28: 0}},
    {"metric": "tickets", "weight": 40, "points": {0: 0, 10: 100}},
]
CAPS = [{"when": "tickets > 2", "at_least": 80, "because": "Tickets pile up"}]


def make_library(missing="redistribute", **body):
    components = [*COMPONENTS, {"metric": "nps", "weight": 20, "points": {0: 100, 10: 0},
                                "missing": missing}]  # fmt: skip
    weights = (50, 30, 20)
    components = [{**c, "weight": w} for c, w in zip(components, weights, strict=True)]
    return library(
        {"active": ACTIVE, "tickets": TICKETS, "nps": NPS},
        scorecard(components=components, caps=CAPS, **body),
        scorecard("upsell", score="upsell", bands={"ready": 70, "possible": 40},
                  components=[{"metric": "active", "weight": 100, "points": {0: 0, 28: 100}}]),
        use_metric="active",
    )  # fmt: skip


LIBRARY = make_library()


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily", "tickets", "survey_responses")
    for account in ("a", "b"):
        add_account(connection, account, name=account)
        use(connection, account, days_before(NOW, 80))
    yield connection
    connection.close()


def override(connection, value, *, given=THEN, until=UNTIL, reason="They called me", **row):
    """An override of the account `a`, given (and known) at noon of a day."""
    noon = dt.datetime.combine(given, dt.time(12))
    row = {"account_id": "a", "override_id": "001", "source": "crm", **row}
    add(connection, "overrides", score="risk", value=value, given_at=noon, known_at=noon,
        expires_on=until, reason=reason, **row)  # fmt: skip


def supersede(connection, day):
    connection.execute("UPDATE signals.overrides SET superseded_at = ?",
                       [dt.datetime.combine(day, dt.time(12))])  # fmt: skip


def compute(connection, day=THEN, lib=LIBRARY):
    metrics.compute(connection, lib, as_of(day))
    report = scores.compute(connection, lib, as_of(day))
    for check in (checks.contributions_add_up, checks.within_range):
        found = check(connection, day)
        assert found.passed, found.numbers
    return report


def stored(connection, account="a", score="risk", day=THEN):
    return connection.execute(
        "SELECT value, band, band_reason FROM scores.scores "
        "WHERE as_of = ? AND account_id = ? AND score = ?", [day, account, score],
    ).fetchone()  # fmt: skip


def test_an_override_sets_the_score_and_its_band(connection):
    override(connection, 90)
    compute(connection)
    assert stored(connection) == (Decimal("90.00"), "red", None)
    assert stored(connection, "b")[1] == "green"
    assert stored(connection, score="upsell")[0] == Decimal("100.00")


def test_the_contributions_still_add_up_and_the_override_says_what_is_left(connection):
    compute(connection)
    (computed, *_) = stored(connection)
    override(connection, 90, reason=" They\ncalled\x00 me ")
    compute(connection)
    found = explain(connection, "a")
    last = found.contributions[-1]
    assert (last.kind, last.label) == ("override", "Set by hand until 2026-07-31: They called me")
    assert last.contribution == 90 - computed
    assert sum(c.contribution for c in found.contributions) == found.value == 90
    assert (found.low, found.high) == (90, 90)


def test_the_reasons_lead_with_it_and_the_crm_shows_it(connection):
    override(connection, 90)
    compute(connection)
    desired.compute(connection, LIBRARY, THEN)
    shown = dict(connection.execute(
        "SELECT field, value FROM plan.desired WHERE account_id = 'a'"
    ).fetchall())  # fmt: skip
    assert (shown["risk_score"], shown["risk_band"]) == ("90", "red")
    assert shown["risk_reasons"].startswith("Set by hand until 2026-07-31: They called me")
    assert shown["upsell_reasons"] == "Not while the risk is red"


def test_caps_do_not_apply_on_top(connection):
    for number in range(3):
        add(connection, "tickets", account_id="a", ticket_id=str(number),
            opened_at=dt.datetime.combine(THEN, dt.time(9)))  # fmt: skip
    compute(connection)
    assert stored(connection)[:2] == (Decimal("80.00"), "red")
    override(connection, 10)
    compute(connection)
    assert stored(connection)[:2] == (Decimal("10.00"), "green")
    kinds = [c.kind for c in explain(connection, "a").contributions]
    assert kinds[-2:] == ["cap", "override"]
    reasons.compute(connection, LIBRARY, THEN)
    (first,) = connection.execute(
        "SELECT sentence FROM reasons WHERE account_id = 'a' AND score = 'risk' AND rank = 1"
    ).fetchone()
    assert first.startswith("Set by hand")


@pytest.mark.parametrize("lib", [make_library(coverage={"minimum": 1.0}), make_library("required")])
def test_a_band_that_a_person_set_is_shown_however_little_is_known(connection, lib):
    compute(connection, lib=lib)
    assert stored(connection)[1] == "unknown"
    override(connection, 45)
    compute(connection, lib=lib)
    assert stored(connection) == (Decimal("45.00"), "yellow", None)


def test_a_broken_pipe_does_not_hide_what_a_person_set(connection):
    override(connection, 90)
    connection.execute("DELETE FROM signals.usage_daily WHERE day > ?",
                       [THEN - dt.timedelta(days=9)])  # fmt: skip
    health(connection, "down", dt.datetime.combine(THEN, dt.time(9)))
    compute(connection)
    assert stored(connection, "b")[1] == "unknown"
    assert stored(connection)[:2] == (Decimal("90.00"), "red")
    desired.compute(connection, LIBRARY, THEN)
    held = dict(connection.execute(
        "SELECT account_id, held FROM plan.desired WHERE field = 'risk_band'"
    ).fetchall())  # fmt: skip
    assert held == {"a": False, "b": True}


@pytest.mark.parametrize(
    ("day", "counts"),
    [(THEN - dt.timedelta(days=1), False), (THEN, True), (UNTIL, True),
     (UNTIL + dt.timedelta(days=1), False)],
)  # fmt: skip
def test_it_counts_from_the_instant_it_was_known_to_its_last_day(connection, day, counts):
    override(connection, 90)
    use(connection, "a", days_before(UNTIL + dt.timedelta(days=1), 80))
    compute(connection, day)
    assert (stored(connection, day=day)[0] == 90) == counts


def test_a_replayed_day_sees_the_override_that_was_known_then(connection):
    override(connection, 90, given=THEN - dt.timedelta(days=5))
    supersede(connection, THEN + dt.timedelta(days=5))
    override(connection, 20, given=THEN + dt.timedelta(days=5))
    compute(connection, THEN)
    compute(connection, NOW)
    assert stored(connection, day=THEN)[0] == 90
    assert stored(connection, day=NOW)[0] == 20


def test_of_two_sources_the_newest_override_counts(connection):
    override(connection, 20, given=THEN, source="other")
    override(connection, 90, given=THEN - dt.timedelta(days=1))
    compute(connection)
    assert stored(connection)[0] == 20


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"reason": None}, "there is no reason"),
        ({"reason": " \n\t"}, "there is no reason"),
        ({"until": None}, "there is no last day"),
        ({"until": None, "reason": ""}, "there is no reason and no last day"),
    ],
)
def test_without_a_reason_or_a_last_day_it_is_ignored_and_reported(connection, row, why):
    compute(connection)
    before = stored(connection)
    override(connection, 90, **row)
    compute(connection)
    assert stored(connection) == before
    assert ignored_overrides(connection, THEN) == [IgnoredOverride("a", "risk", why)]


def test_what_is_deleted_over_or_complete_is_not_reported(connection):
    override(connection, 90)
    override(connection, 90, account_id="b", reason=None, deleted=True)
    override(connection, 90, override_id="2", reason=None, until=THEN - dt.timedelta(days=1))
    assert ignored_overrides(connection, THEN) == []
    connection.execute("DROP TABLE signals.overrides")
    assert ignored_overrides(connection, THEN) == []


def test_companies_without_overrides_keep_their_scores_and_revisions(connection):
    """No table, an empty one, and one in which nothing counts are all the same."""
    override(connection, 90, until=None)
    compute(connection)
    connection.execute("DELETE FROM signals.overrides")
    assert not compute(connection).changed
    connection.execute("DROP TABLE signals.overrides")
    assert not compute(connection).changed
    assert connection.execute("SELECT max(revision) FROM scores.revisions").fetchone() == (1,)


def test_an_override_of_one_account_leaves_all_others_as_they_were(connection):
    compute(connection)
    columns = "* EXCLUDE (revision)"
    other = f"SELECT {columns} FROM scores.contributions WHERE account_id = 'b' ORDER BY ALL"
    before = connection.execute(other).fetchall()
    override(connection, 90)
    assert compute(connection).changed
    assert connection.execute(other).fetchall() == before


def test_a_hostile_reason_is_only_a_reason(connection):
    hostile = "o'hara'; DROP SCHEMA scores; -- {value} \u202e" + "x" * 5000
    override(connection, 90, reason=hostile)
    compute(connection)
    label = explain(connection, "a").contributions[-1].label
    assert label == f"Set by hand until 2026-07-31: {hostile[:200]}"


# The split of a change


def parts(connection, since=THEN, until=NOW):
    change = split_change(connection, "a", score="risk", since=since, until=until)
    assert sum(part.amount for part in change.parts) == change.value_now - change.value_then
    assert change.parts[-1].kind == "override"
    return change


@pytest.mark.parametrize(
    ("then", "now", "label"),
    [
        (None, 90, "Set by hand until 2026-07-31: They called me"),
        (90, None, "no longer set by hand"),
        (90, 30, "Set by hand until 2026-07-31: They called me"),
        (None, None, "none"),
    ],
)
def test_an_override_that_comes_changes_or_goes_is_its_own_part(connection, then, now, label):
    compute(connection, THEN)
    (computed, *_) = stored(connection)
    if then is not None:
        override(connection, then, given=THEN)
        supersede(connection, THEN + dt.timedelta(days=1))
    if now is not None:
        override(connection, now, given=THEN + dt.timedelta(days=1))
    compute(connection, THEN)
    compute(connection, NOW)
    change = parts(connection)
    assert change.parts[-1].label == label
    assert change.parts[-1].amount == (
        (Decimal(now) if now is not None else computed)
        - (Decimal(then) if then is not None else computed)
    )
    assert all(part.amount == 0 for part in change.parts[:-1])


def test_behaviour_under_an_override_is_still_told_apart(connection):
    override(connection, 90)
    compute(connection, THEN)
    connection.execute("DELETE FROM signals.usage_daily WHERE account_id = 'a' AND day > ?",
                       [NOW - dt.timedelta(days=14)])  # fmt: skip
    compute(connection, NOW)
    change = parts(connection)
    by_kind = {part.kind: part.amount for part in change.parts if part.amount}
    assert by_kind["behaviour"] > 0
    assert by_kind == {"behaviour": by_kind["behaviour"], "override": -by_kind["behaviour"]}
    assert change.value_then == change.value_now == 90


def test_the_parts_sum_where_the_scorecard_alone_comes_to_no_number(connection):
    """A required metric is missing on one of the days, and a person says what the score is."""
    lib = make_library("required")
    noon = dt.datetime.combine(THEN, dt.time(12))
    add(connection, "survey_responses", account_id="a", response_id="1", kind="nps", score=2,
        responded_at=noon)  # fmt: skip
    compute(connection, THEN, lib)
    connection.execute("DELETE FROM signals.survey_responses")
    override(connection, 70, given=THEN + dt.timedelta(days=1))
    compute(connection, NOW, lib)
    assert parts(connection).value_now == 70
    parts(connection, NOW, THEN)


HANDS = st.one_of(st.none(), st.floats(0, 100).map(lambda x: round(x, 2)))
SIDES = st.fixed_dictionaries(
    {
        "by_hand": HANDS,
        "used": st.integers(0, 28),
        "stops": st.booleans(),
        "nps": st.one_of(st.none(), st.integers(0, 10)),
        "tickets": st.integers(0, 5),
        "missing": st.sampled_from(["redistribute", "worst", "required"]),
        "version": st.sampled_from([1, 2]),
    }
)


@settings(max_examples=25, deadline=None)
@given(then=SIDES, now=SIDES)
def test_contributions_and_parts_sum_exactly_with_overrides_coming_and_going(then, now):
    connection = connect()
    feed(connection, "usage_daily", "tickets", "survey_responses")
    add_account(connection, "a")
    days = (THEN, THEN + dt.timedelta(days=90))
    for number, (day, side) in enumerate(zip(days, (then, now), strict=True)):
        use(connection, "a", days_before(day, side["used"], skip=5 * side["stops"]))
        if not side["stops"]:
            use(connection, "a", [day], event="login", count=0)
        for count in range(side["tickets"]):
            add(connection, "tickets", account_id="a", ticket_id=f"{number}-{count}",
                opened_at=dt.datetime.combine(day, dt.time(9)))  # fmt: skip
        if side["nps"] is not None:
            noon = dt.datetime.combine(day, dt.time(12))
            add(connection, "survey_responses", account_id="a", response_id=str(number),
                kind="nps", score=side["nps"], responded_at=noon)  # fmt: skip
        if side["by_hand"] is not None:
            override(connection, side["by_hand"], given=day, until=day, override_id=str(number))
        compute(connection, day, make_library(side["missing"], version=side["version"]))
    values = [stored(connection, day=day)[0] for day in days]
    for value, side in zip(values, (then, now), strict=True):
        if side["by_hand"] is not None:
            assert float(value) == side["by_hand"]
    if None not in values:
        change = parts(connection, *days)
        assert (change.value_then, change.value_now) == tuple(values)
        parts(connection, *reversed(days))
    connection.close()
