"""The split of a score's change: its parts sum exactly, and each says what it was."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import NotFoundError
from scoring import metrics, scores
from scoring.changes import split_change
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

THEN = DAY
NOW = DAY + dt.timedelta(days=30)
NO = Decimal("0.00")

METRICS = {
    "active": metric(
        table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
        label="Active days",
    ),
    "tickets": metric(table="tickets", aggregate="count", window="28d", label="Tickets"),
    "nps": metric(table="survey_responses", aggregate="last(score)", label="NPS"),
    "renewal": metric(table="accounts", aggregate="days_until(renews_on)"),
}  # fmt: skip
COMPONENTS = [
    {"metric": "active", "pillar": "proactive", "weight": 60, "points": {0: 100, 28: 0}},
    {"metric": "tickets", "pillar": "reactive", "weight": 20, "points": {0: 0, 10: 100}},
    {"metric": "nps", "pillar": "reactive", "weight": 20, "points": {0: 100, 10: 0}},
]
PILLARS = {"proactive": {"weight": 60}, "reactive": {"weight": 40}}
PROFILES = {
    "segments": [{"name": "big", "when": "arr > 1000"}, {"name": "small"}],
    "stages": [{"name": "renewal", "when": "renewal < 60"}, {"name": "mature"}],
}


def make_library(*cards, bodies=None, **options):
    cards = cards or (make_card("default"),)
    return library(bodies or METRICS, *cards, profiles=PROFILES, **options)


def make_card(name, **body):
    body = {"pillars": PILLARS, "components": [dict(c) for c in COMPONENTS], **body}
    return scorecard(name, **body)


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily", "tickets", "survey_responses")
    feed(connection, "accounts", source="crm")
    yield connection
    connection.close()


def account(connection, *, used=(14, 14), arr=10, renews_in=400):
    """An account that is active on so many days before THEN and before NOW, and another one."""
    add_account(connection, "a", arr=arr, renews_on=THEN + dt.timedelta(days=renews_in))
    add_account(connection, "other")
    use(connection, "other", days_before(NOW, 100))
    use(connection, "a", days_before(THEN, used[0]))
    use(connection, "a", days_before(NOW, used[1]))


def answer(connection, day, value, number="1"):
    add(connection, "survey_responses", account_id="a", response_id=number, kind="nps",
        score=value, responded_at=dt.datetime.combine(day, dt.time(9)))  # fmt: skip


def ticket(connection, day, number):
    add(connection, "tickets", account_id="a", ticket_id=str(number),
        opened_at=dt.datetime.combine(day, dt.time(9)))  # fmt: skip


def compute(connection, lib, day):
    metrics.compute(connection, lib, as_of(day))
    scores.compute(connection, lib, as_of(day))


def change_of(connection, before, after=None):
    compute(connection, before, THEN)
    compute(connection, after or before, NOW)
    change = split_change(connection, "a", score="risk", since=THEN, until=NOW)
    assert sum(part.amount for part in change.parts) == change.value_now - change.value_then
    assert [part.kind for part in change.parts[:3]] == ["profile", "scorecard", "missing data"]
    assert change.parts[-1].kind == "override"
    return change


def moved(change):
    """What moved: the amount of each kind, where it is not zero."""
    kinds = {}
    for part in change.parts:
        kinds[part.kind] = kinds.get(part.kind, NO) + part.amount
    return {kind: amount for kind, amount in kinds.items() if amount}


def test_nothing_moved(connection):
    account(connection)
    answer(connection, THEN, 5)
    change = change_of(connection, make_library())
    assert moved(change) == {}
    assert [part.label for part in change.parts] == [
        "the same profile", "the same scorecard", "the same data is known", "none",
    ]  # fmt: skip


def test_behaviour_alone_moves_only_its_components(connection):
    account(connection, used=(28, 7))
    answer(connection, THEN, 5)
    ticket(connection, NOW, 1)
    change = change_of(connection, make_library())
    assert set(moved(change)) == {"behaviour"}
    parts = [(p.metric, p.label, p.amount, p.value_then, p.value_now)
             for p in change.parts if p.kind == "behaviour"]  # fmt: skip
    assert parts == [
        ("active", "Active days", Decimal("45.00"), 28, 7),
        ("tickets", "Tickets", Decimal("2.00"), 0, 1),
    ]


def test_a_cap_that_fires_is_behaviour_with_its_reason(connection):
    account(connection, used=(28, 28))
    answer(connection, THEN, 10)
    ticket(connection, NOW, 1)
    caps = [{"when": "tickets > 0", "at_least": 80, "because": "A ticket is open"}]
    change = change_of(connection, make_library(make_card("default", caps=caps)))
    parts = {p.label: p.amount for p in change.parts if p.kind == "behaviour"}
    assert parts == {"Tickets": Decimal("2.00"), "A ticket is open": Decimal("78.00")}


def test_data_that_vanishes_is_missing_data_not_behaviour(connection):
    add_account(connection, "a")
    use(connection, "a", days_before(THEN, 28))  # and then the stream stops
    answer(connection, THEN, 0)
    change = change_of(connection, make_library())
    assert set(moved(change)) == {"missing data"}
    (part,) = (part for part in change.parts if part.kind == "missing data")
    assert part.label == "active is missing"
    assert (change.value_then, change.value_now) == (Decimal("20.00"), Decimal("50.00"))


def test_data_that_becomes_known_is_missing_data_too(connection):
    account(connection)
    answer(connection, NOW, 0)
    change = change_of(connection, make_library())
    (part,) = (part for part in change.parts if part.kind == "missing data")
    assert part.label == "nps is known"
    assert moved(change) == {"missing data": part.amount}


def test_another_scorecard_alone_is_the_scorecard(connection):
    account(connection)
    answer(connection, THEN, 5)
    components = [{**COMPONENTS[0], "points": {0: 100, 28: 50}}, *COMPONENTS[1:]]
    change = change_of(
        connection, make_library(),
        make_library(make_card("default", version=2, components=components)),
    )  # fmt: skip
    assert moved(change) == {"scorecard": Decimal("15.00")}
    (part,) = (part for part in change.parts if part.kind == "scorecard")
    assert part.label == "default v1 -> default v2"


def test_a_metric_that_is_new_in_the_scorecard_is_the_scorecard(connection):
    account(connection, used=(28, 28))
    few = {name: METRICS[name] for name in ("active", "renewal")}
    pillars = {"p": {"weight": 100}}
    one = {"metric": "active", "pillar": "p", "weight": 100, "points": {0: 100, 28: 0}}
    two = {"metric": "tickets", "pillar": "p", "weight": 50, "points": {0: 0, 1: 100}}
    ticket(connection, THEN, 1)
    ticket(connection, NOW, 2)
    before = make_library(make_card("default", pillars=pillars, components=[one]), bodies=few)
    after = make_library(
        make_card("default", version=2, pillars=pillars, components=[{**one, "weight": 50}, two])
    )
    assert moved(change_of(connection, before, after)) == {"scorecard": Decimal("50.00")}


def test_a_metric_that_is_defined_anew_is_no_behaviour(connection):
    account(connection, used=(28, 28))
    answer(connection, THEN, 5)
    weekly = METRICS["active"].model_copy(update={"window": 7})
    after = make_library(bodies={**METRICS, "active": weekly})
    change = change_of(connection, make_library(), after)
    assert moved(change) == {"scorecard": Decimal("45.00")}
    labels = [part.label for part in change.parts if part.kind == "scorecard"]
    assert labels == ["the same scorecard", "Active days: its definition changed"]


def test_another_profile_alone_is_the_profile(connection):
    account(connection, renews_in=80)  # 50 days are left at NOW
    answer(connection, THEN, 5)
    strict = [{**COMPONENTS[0], "points": {0: 100, 28: 50}}, *COMPONENTS[1:]]
    lib = make_library(
        make_card("default"),
        make_card("renewing", applies_to={"stage": "renewal"}, components=strict),
    )
    change = change_of(connection, lib)
    assert moved(change) == {"profile": Decimal("15.00")}
    assert change.parts[0].label == "small, mature -> small, renewal"
    assert change.parts[1].label == "the same scorecard"


def test_the_split_needs_a_number_on_both_days(connection):
    account(connection)
    add_account(connection, "young", started_on=NOW - dt.timedelta(days=5))
    required = [{**COMPONENTS[0]}, COMPONENTS[1], {**COMPONENTS[2], "missing": "required"}]
    lib = make_library(make_card("default", components=required))
    compute(connection, lib, THEN)
    answer(connection, NOW, 5)
    compute(connection, lib, NOW)
    with pytest.raises(NotFoundError) as error:
        split_change(connection, "young", score="risk", since=THEN, until=NOW)
    assert str(error.value) == (
        "risk of young was not scored on 2026-03-31; choose another day with --since or --as-of"
    )
    with pytest.raises(NotFoundError) as error:
        split_change(connection, "a", score="risk", since=THEN, until=NOW)
    assert str(error.value) == (
        "risk of a had no number on 2026-03-31; choose another day with --since or --as-of; "
        "it has a number from 2026-04-30 to 2026-04-30"
    )


def test_a_quote_in_an_account_id_is_only_a_quote(connection):
    name = "o'hara'); DROP SCHEMA scores; --"
    add_account(connection, name)
    use(connection, name, days_before(NOW, 40))
    lib = make_library()
    compute(connection, lib, THEN)
    compute(connection, lib, NOW)
    assert split_change(connection, name, score="risk", since=THEN, until=NOW).parts


@st.composite
def worlds(draw):
    """One day of an account: what it did, what is known of it, and by which scorecard."""
    return {
        "used": draw(st.integers(0, 28)),
        "stream_stops": draw(st.sampled_from([False, False, True])),
        "nps": draw(st.one_of(st.none(), st.integers(0, 10))),
        "tickets": draw(st.integers(0, 6)),
        "arr": draw(st.sampled_from([10, 5000])),
        "renews_in": draw(st.sampled_from([20, 200])),
        "combine": draw(st.sampled_from(["mean", "worst"])),
        "missing": draw(st.sampled_from(["redistribute", "worst", "neutral", "required"])),
        "points": draw(st.dictionaries(st.integers(0, 28), st.integers(0, 100), min_size=2,
                                       max_size=4)),
        "cap": draw(st.sampled_from([None, ("tickets > 2", "at_least"), ("nps > 5", "at_most")])),
        "window": draw(st.sampled_from(["28d", "14d"])),
    }  # fmt: skip


def library_of_world(world):
    components = [
        {**COMPONENTS[0], "points": world["points"]},
        COMPONENTS[1],
        {**COMPONENTS[2], "missing": world["missing"]},
    ]
    pillars = {"proactive": {"weight": 60}, "reactive": {"weight": 40, "combine": world["combine"]}}
    caps = []
    if world["cap"]:
        when, limit = world["cap"]
        caps = [{"when": when, limit: 44.4, "because": "capped"}]
    body = {"components": components, "pillars": pillars, "caps": caps}
    active = metric(
        table="usage_daily", aggregate="count_distinct(day)", window=world["window"],
        stale_after="3d",
    )  # fmt: skip
    return make_library(
        make_card("default", **body),
        make_card("big", applies_to={"segment": "big"}),
        make_card("renewing", applies_to={"segment": "small", "stage": "renewal"}, **body),
        bodies={**METRICS, "active": active},
        use_metric="active",
    )


@settings(max_examples=15)
@given(then=worlds(), now=worlds())
def test_the_parts_of_any_change_sum_exactly(then, now):
    connection = connect()
    feed(connection, "usage_daily", "tickets", "survey_responses")
    feed(connection, "accounts", source="crm")
    # Two days so far apart that neither sees the other's facts.
    days = (THEN, THEN + dt.timedelta(days=400))
    for number, (day, world) in enumerate(zip(days, (then, now), strict=True)):
        renews_on = day + dt.timedelta(days=world["renews_in"])
        connection.execute("UPDATE signals.accounts SET superseded_at = ?", [day])
        add_account(connection, "a", arr=world["arr"], renews_on=renews_on, linked_to=["app"],
                    known_at=dt.datetime.combine(day, dt.time()))  # fmt: skip
        use(connection, "a", days_before(day, world["used"], skip=5 * world["stream_stops"]))
        if not world["stream_stops"]:
            use(connection, "a", [day], event="login", count=0)
        if world["nps"] is not None:
            answer(connection, day, world["nps"], str(number))
        for count in range(world["tickets"]):
            ticket(connection, day, f"{number}-{count}")
        compute(connection, library_of_world(world), day)
    numbers = connection.execute("SELECT value FROM scores.scores ORDER BY as_of").fetchall()
    if any(value is None for (value,) in numbers):
        with pytest.raises(NotFoundError, match="had no number"):
            split_change(connection, "a", score="risk", since=days[0], until=days[1])
    else:
        change = split_change(connection, "a", score="risk", since=days[0], until=days[1])
        assert [(change.value_then,), (change.value_now,)] == numbers
        assert sum(part.amount for part in change.parts) == change.value_now - change.value_then
        back = split_change(connection, "a", score="risk", since=days[1], until=days[0])
        assert sum(part.amount for part in back.parts) == -(change.value_now - change.value_then)
    connection.close()
