"""B19: the handoff score, reckoned by hand: what is noted, and how long ago the deal was won."""

import datetime as dt
from decimal import Decimal
from itertools import product

import pytest
from signals import DAY, add, add_account, as_of, company, connect, feed, health

from scoring import metrics, reasons, scores
from scoring.explain import explain
from scoring.library import check_library

WEIGHTS = {
    "promised_outcome": 20, "success_criteria": 20, "champion": 15, "decision_maker": 10,
    "stakeholders_met": 10, "kickoff_on": 15, "sentiment": 10,
}  # fmt: skip
COMPLETE = {
    "promised_outcome": "Half the time for reports", "success_criteria": "Two sites use it daily",
    "champion": "003A", "decision_maker": "003B", "stakeholders_met": 3,
    "kickoff_on": DAY - dt.timedelta(days=1), "sentiment": 4,
}  # fmt: skip
HALF = {
    name: COMPLETE[name] for name in ("promised_outcome", "champion", "sentiment")
} | {"stakeholders_met": 1}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    found, problems = check_library(company(tmp_path_factory.mktemp("company")))
    assert problems == []
    assert found.warnings == ()
    return found


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "accounts", "handoffs", source="crm")
    return connection


def days_ago(days):
    return dt.datetime.combine(DAY - dt.timedelta(days=days), dt.time(12))


def customer(connection, account_id="a", *, age_days=30):
    add_account(
        connection, account_id, linked_to=("crm",), started_on=DAY - dt.timedelta(days=age_days)
    )


def deal(connection, account_id="a", *, won_days_ago=5, id=None, **facts):
    """A won deal of new business; its facts were noted when it was won."""
    won = None if won_days_ago is None else days_ago(won_days_ago)
    row = {
        "account_id": account_id, "account_key": account_id, "source": "crm", "kind": "new",
        "opportunity_id": id or f"deal of {account_id}", "won_at": won, **facts,
    }  # fmt: skip
    add(connection, "handoffs", **{"created_at": days_ago((won_days_ago or 0) + 60), **row})


def scored(connection, library, day=DAY):
    """Of each account: value, band, coverage and why it is unknown."""
    metrics.compute(connection, library, as_of(day))
    scores.compute(connection, library, as_of(day))
    rows = connection.execute(
        "SELECT account_id, value, band, coverage, band_reason FROM scores.scores "
        "WHERE as_of = ? AND score = 'handoff'",
        [day],
    ).fetchall()
    return {account_id: tuple(rest) for account_id, *rest in rows}


def only(connection, library, day=DAY):
    """Value and band of the one account."""
    ((value, band, *_),) = scored(connection, library, day).values()
    return (None if value is None else float(value), band)


def test_b19_a_complete_handoff_is_100_and_stays_it(connection, library):
    for account_id, days in (("new", 1), ("later", 60), ("old", 85)):
        customer(connection, account_id, age_days=days)
        deal(connection, account_id, won_days_ago=days, **COMPLETE)
    assert set(scored(connection, library).values()) == {(Decimal(100), "green", 1.0, None)}


def test_b19_a_half_empty_handoff_is_the_sum_of_what_is_noted(connection, library):
    customer(connection)
    deal(connection, won_days_ago=10, **HALF)
    # 20 for the outcome, 15 for the champion, 10 for the mood, 40 % of 10 for one person met
    assert scored(connection, library) == {"a": (Decimal(49), "yellow", 1.0, None)}
    reasons.compute(connection, library, DAY)
    told = connection.execute(
        "SELECT sentence FROM reasons WHERE score = 'handoff' ORDER BY rank LIMIT 3"
    ).fetchall()
    assert [sentence for (sentence,) in told] == [
        "Success criteria are noted on 0 % of the won deals",
        "A kickoff is planned on 0 % of the won deals",
        "The decision maker is named on 0 % of the won deals",
    ]


def test_b19_an_empty_handoff_is_0_and_red(connection, library):
    customer(connection)
    deal(connection, won_days_ago=3)
    # Only the number of people met is not known; that it is empty is.
    assert scored(connection, library) == {"a": (Decimal(0), "red", 0.9, None)}


def by_hand(noted, days):
    """The score of a deal with these facts, won so many days ago."""
    value = sum(WEIGHTS[name] for name in noted)
    ceilings = [100]
    if (
        days > 14
        and not {"promised_outcome", "success_criteria", "champion", "kickoff_on"} <= noted
    ):
        ceilings.append(69)
    if days > 30 and not {"promised_outcome", "success_criteria"} <= noted:
        ceilings.append(39)
    return min(value, *ceilings)


def test_b19_every_handoff_scores_as_by_hand_and_an_incomplete_one_gets_worse(connection, library):
    expected = {}
    for number, chosen in enumerate(product((False, True), repeat=len(WEIGHTS))):
        noted = {name for name, taken in zip(WEIGHTS, chosen, strict=True) if taken}
        for days in (1, 14, 15, 30, 31, 80):
            account_id = f"{number}-{days}"
            customer(connection, account_id, age_days=80)
            facts = {name: COMPLETE[name] for name in noted}
            deal(connection, account_id, won_days_ago=days, **facts)
            expected[account_id] = by_hand(noted, days)
    found = {account_id: row[0] for account_id, row in scored(connection, library).items()}
    assert found == expected
    for number in range(2 ** len(WEIGHTS)):
        over_time = [found[f"{number}-{days}"] for days in (1, 14, 15, 30, 31, 80)]
        assert over_time == sorted(over_time, reverse=True)
    assert len(set(found.values())) > 20


def test_the_explanation_adds_up_and_names_the_age(connection, library):
    customer(connection)
    deal(connection, won_days_ago=40, **COMPLETE | {"success_criteria": None})
    assert only(connection, library) == (39, "red")
    told = explain(connection, "a", score="handoff", as_of=DAY)
    assert sum(line.contribution for line in told.contributions) == Decimal(39)
    caps = {line.label: line.contribution for line in told.contributions if line.kind == "cap"}
    assert sorted(caps.values()) == [Decimal(-41), Decimal(0)]
    assert any("A month after the sale" in label for label in caps)


def test_a_kickoff_far_from_the_sale_and_a_bad_mood_are_no_green(connection, library):
    late = {"kickoff_on": DAY + dt.timedelta(days=21)}
    soon = {"kickoff_on": DAY + dt.timedelta(days=20)}
    for account_id, facts in (("late", late), ("soon", soon), ("sour", {"sentiment": 2})):
        customer(connection, account_id)
        deal(connection, account_id, won_days_ago=10, **COMPLETE | facts)
    found = {account_id: row[:2] for account_id, row in scored(connection, library).items()}
    assert found == {
        "late": (Decimal(69), "yellow"), "soon": (Decimal(100), "green"),
        "sour": (Decimal(69), "yellow"),
    }  # fmt: skip


def test_only_customers_who_are_onboarded_have_a_handoff_score(connection, library):
    for account_id, age in (("new", 89), ("grown", 90), ("old", 900)):
        customer(connection, account_id, age_days=age)
        deal(connection, account_id, won_days_ago=age, **COMPLETE)
    assert set(scored(connection, library)) == {"new"}


def test_without_a_won_deal_there_is_nothing_to_judge(connection, library):
    for account_id in ("none", "open", "expansion", "former"):
        customer(connection, account_id)
    deal(connection, "open", won_days_ago=None, **COMPLETE)
    deal(connection, "expansion", kind="expansion", **COMPLETE)
    deal(connection, "former", won_days_ago=400, **COMPLETE)
    unknown = (None, "unknown", "a required metric is missing")
    found = scored(connection, library)
    assert {row[:2] + row[3:] for row in found.values()} == {unknown}
    assert len(found) == 4


def test_the_deal_of_a_customer_who_came_back_is_the_one_that_counts(connection, library):
    customer(connection)
    deal(connection, id="first", won_days_ago=500, **COMPLETE)
    deal(connection, id="second", won_days_ago=5, **HALF)
    assert only(connection, library) == (49, "yellow")


def test_a_fact_counts_from_the_day_on_which_it_was_noted(connection, library):
    customer(connection, age_days=60)
    noted = days_ago(2)
    deal(connection, won_days_ago=6, **HALF, known_at=days_ago(6), superseded_at=noted)
    deal(connection, won_days_ago=6, **COMPLETE, known_at=noted)
    assert only(connection, library, DAY - dt.timedelta(days=3)) == (49, "yellow")
    assert only(connection, library) == (100, "green")


def test_a_deal_is_judged_from_the_day_on_which_it_was_won(connection, library):
    customer(connection)
    deal(connection, won_days_ago=5, **COMPLETE, known_at=days_ago(20))
    assert only(connection, library, DAY - dt.timedelta(days=6)) == (None, "unknown")
    assert only(connection, library, DAY - dt.timedelta(days=5)) == (100, "green")


@pytest.mark.parametrize(("good_days_ago", "expected"), [(2, "red"), (10, "unknown")])
def test_f29_f31_a_stream_that_fails_holds_its_last_good_values_and_then_says_nothing(
    library, good_days_ago, expected
):
    connection = connect()
    feed(connection, "accounts", source="crm")
    feed(connection, "handoffs", source="crm", stream="deals")
    customer(connection)
    deal(connection, won_days_ago=20)
    good_day = DAY - dt.timedelta(days=good_days_ago)
    health(connection, "down", days_ago(0), source="crm", stream="deals", good_day=good_day)
    assert only(connection, library)[1] == expected


def test_a_company_without_handoffs_has_no_bad_ones(library):
    connection = connect()
    feed(connection, "accounts", source="crm")
    customer(connection)
    assert only(connection, library) == (None, "unknown")


def test_the_scorecard_keeps_the_librarys_rules(library):
    (named,) = [card for card in library.scorecards if card.card.score == "handoff"]
    card = named.card
    assert named.name == "handoff-default"
    assert card.edges == (70, 40)
    assert len(card.believes.strip().splitlines()) == 2
    assert {c.metric: c.weight for c in card.components}.keys() <= set(library.measures)
    assert max(component.weight for component in card.components) <= 20
    assert all(component.because for component in card.components)
