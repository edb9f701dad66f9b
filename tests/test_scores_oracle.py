"""The arithmetic of a score, against an independent model of it in plain Python.

The model is written from the words of the design: points by interpolation, weighted means of
weighted means, missing policies, coverage, bounds, caps and floors, bands.
"""

import math
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring import scores
from tests.signals import connect, library, metric, scorecard

METRICS = [f"m{number}" for number in range(5)]
CAP_METRICS = [*METRICS, "m5"]  # the last is read by caps only
STATES = ["present", "present", "present", "zero-filled", "absent", "stale", "suspect", "corrupt"]
BROKEN = ("stale", "suspect", "corrupt")
CENT = Decimal("0.01")


# The model


def model_points(component: dict[str, Any], value: float) -> float:
    curve = sorted((component.get("points") or component["steps"]).items())
    if value < curve[0][0]:
        return curve[0][1]
    if value >= curve[-1][0]:
        return curve[-1][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= value < x1:
            return y0 if "steps" in component else y0 + (y1 - y0) * (value - x0) / (x1 - x0)
    raise AssertionError


def model_counted(card: dict[str, Any], component: dict[str, Any], fact: Any) -> float | None:
    value, state = fact
    if state in ("present", "zero-filled"):
        return model_points(component, value)
    if state in BROKEN:
        return None
    policy = component["missing"]
    if policy == "neutral":
        return 50.0
    if policy == "worst":
        return 100.0 if card["score"] == "risk" else 0.0
    if policy.startswith("impute"):
        return model_points(component, float(policy[7:-1]))
    return None


def model_pillar(card: dict[str, Any], name: str, points: list[tuple[float, float]]) -> float:
    """The pillar's points from (weight, points) of what counts in it."""
    if card["pillars"][name].get("combine") == "worst":
        worst = max if card["score"] == "risk" else min
        return worst(p for _, p in points)
    return sum(w * p for w, p in points) / sum(w for w, _ in points)


def model(card: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, list[tuple[float, float]]] = {}
    lows: dict[str, list[tuple[float, float]]] = {}
    highs: dict[str, list[tuple[float, float]]] = {}
    known = 0.0
    required_missing = False
    for component in card["components"]:
        pillar, weight = component["pillar"], component["weight"]
        fact = facts.get(component["metric"], (None, "absent"))
        counted = model_counted(card, component, fact)
        present = fact[1] in ("present", "zero-filled")
        known += weight if present else 0
        required_missing |= component["missing"] == "required" and not present
        if counted is not None:
            parts.setdefault(pillar, []).append((weight, counted))
        lows.setdefault(pillar, []).append((weight, counted if present else 0.0))
        highs.setdefault(pillar, []).append((weight, counted if present else 100.0))

    def mean(pillars: dict[str, list[tuple[float, float]]]) -> float | None:
        weights = {name: card["pillars"][name]["weight"] for name in pillars}
        if not weights:
            return None
        return sum(
            weights[name] * model_pillar(card, name, points) for name, points in pillars.items()
        ) / sum(weights.values())

    floors, ceilings, hidden_floors, hidden_ceilings = [], [], [], []
    for cap in card["caps"]:
        holds = model_cap(cap["when"], facts)
        if holds is None or holds:
            floor_list, ceiling_list = (
                (floors, ceilings) if holds else (hidden_floors, hidden_ceilings)
            )
            if "at_least" in cap:
                floor_list.append(cap["at_least"])
            else:
                ceiling_list.append(cap["at_most"])

    def limited(number: float, floors: list[float], ceilings: list[float]) -> float:
        return min([max([number, *floors]), *ceilings])

    raw = mean(parts)
    broken = any(facts.get(c["metric"], (None, "absent"))[1] in BROKEN for c in card["components"])
    return {
        "value": None if raw is None or required_missing else limited(raw, floors, ceilings),
        "low": limited(mean(lows), floors, ceilings + hidden_ceilings),
        "high": limited(mean(highs), floors + hidden_floors, ceilings),
        "coverage": known / 100,
        "required_missing": required_missing,
        "plumbing": broken or bool(hidden_floors or hidden_ceilings),
    }


def model_cap(when: str, facts: dict[str, Any]) -> bool | None:
    """True, false, or None where a broken pipe hides whether it holds."""
    name, operator, number = when.split(" ", 2)
    value, state = facts.get(name, (None, "absent"))
    if state in BROKEN:
        return None
    if operator == "is":
        return value is None
    if value is None:
        return False
    return value > float(number) if operator == ">" else value < float(number)


def model_band(card: dict[str, Any], found: dict[str, Any], score: dict[str, Any]) -> str:
    """The band of a score whose number and bounds are given."""
    upper, middle, lower = {
        "risk": ("red", "yellow", "green"),
        "upsell": ("ready", "possible", "none"),
        "health:growth": ("green", "yellow", "red"),
    }[card["score"]]
    claim, opposite = {
        "risk": ("green", "red"),
        "upsell": ("ready", "none"),
        "health:growth": ("green", "red"),
    }[card["score"]]

    def band(number: Decimal) -> str:
        if number >= Decimal(str(card["bands"][upper])):
            return upper
        return middle if number >= Decimal(str(card["bands"][middle])) else lower

    if score["value"] is None or found["coverage"] < card["coverage"]["minimum"] - 1e-9:
        return "unknown"
    low, high, plain = band(score["low"]), band(score["high"]), band(score["value"])
    if found["plumbing"] and low != high:
        return "unknown"
    if plain == claim and opposite in (low, high):
        return "unknown"
    return plain


# Random scorecards over random inputs

numbers = st.one_of(st.integers(-5, 25).map(float), st.floats(-5, 25).map(lambda x: round(x, 3)))
hundreds = st.one_of(st.integers(0, 100).map(float), st.floats(0, 100).map(lambda x: round(x, 2)))


@st.composite
def components(draw: Any, names: list[str], pillar: str, weight: float) -> list[dict[str, Any]]:
    share = weight / len(names)
    made = []
    for name in names:
        shape = draw(st.sampled_from(["points", "steps"]))
        curve = draw(st.dictionaries(numbers, hundreds, min_size=2, max_size=4))
        missing = draw(
            st.sampled_from(["redistribute", "neutral", "worst", "required", "impute(7.5)"])
        )
        made.append(
            {"metric": name, "pillar": pillar, "weight": share, shape: curve, "missing": missing}
        )
    return made


@st.composite
def cards(draw: Any) -> dict[str, Any]:
    score = draw(st.sampled_from(["risk", "risk", "upsell", "health:growth"]))
    split = draw(st.integers(1, len(METRICS)))
    weight = draw(st.sampled_from([20.0, 50.0, 62.5])) if split < len(METRICS) else 100.0
    combine = st.sampled_from(["mean", "mean", "worst"])
    pillars = {"proactive": {"weight": weight, "combine": draw(combine)}}
    made = draw(components(METRICS[:split], "proactive", weight))
    if split < len(METRICS):
        pillars["reactive"] = {"weight": 100 - weight, "combine": draw(combine)}
        made += draw(components(METRICS[split:], "reactive", 100 - weight))
    caps = []
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(CAP_METRICS))
        when = draw(st.sampled_from([f"{name} > 12", f"{name} < 3", f"{name} is null"]))
        limit = draw(st.sampled_from(["at_least", "at_most"]))
        points = draw(st.integers(1, 99)) + draw(st.sampled_from([0, 0.5, 0.33]))
        caps.append({"when": when, limit: points, "because": f"cap {number}"})
    bands = {"risk": ("red", "yellow"), "upsell": ("ready", "possible")}
    upper, middle = bands.get(score, ("green", "yellow"))
    middle_edge = draw(st.integers(5, 60))
    return {
        "score": score,
        "pillars": pillars,
        "components": made,
        "caps": caps,
        "bands": {upper: middle_edge + draw(st.integers(1, 35)), middle: middle_edge},
        "coverage": {"minimum": draw(st.sampled_from([0.0, 0.4, 0.6, 1.0]))},
    }


def facts_of_accounts() -> Any:
    fact = st.sampled_from(STATES).flatmap(
        lambda state: (
            numbers.map(lambda value: (value, "present"))
            if state == "present"
            else st.just((0.0 if state == "zero-filled" else None, state))
        )
    )
    one = st.fixed_dictionaries({}, optional=dict.fromkeys(CAP_METRICS, fact))
    return st.lists(one, min_size=1, max_size=12)


@pytest.fixture(scope="module")
def connection():
    connection = connect()
    yield connection
    connection.close()


def evaluated(connection: Any, card: dict[str, Any], accounts: list[dict[str, Any]]) -> Any:
    """Scores and contributions of accounts with these facts, through the SQL of every score."""
    named = scorecard(**{**card, "components": [dict(c) for c in card["components"]]})
    metrics = {name: metric(table="usage_daily", aggregate="count") for name in CAP_METRICS}
    lib = library(metrics, named)
    key = scores.card_key(named)
    ids = [f"a{number}" for number in range(len(accounts))]
    rows = [
        (ids[number], name, value, state, None)
        for number, facts in enumerate(accounts)
        for name, (value, state) in facts.items()
    ]
    scores.create_table(
        connection, "test_inputs",
        "account_id VARCHAR, metric VARCHAR, value DOUBLE, state VARCHAR, reason VARCHAR", rows,
    )  # fmt: skip
    scores.create_table(
        connection, "test_accounts", "account_id VARCHAR, arr DOUBLE", [(i, 5.0) for i in ids]
    )
    scores.create_table(
        connection, "test_assignments",
        "account_id VARCHAR, score VARCHAR, scorecard VARCHAR",
        [(account_id, card["score"], key) for account_id in ids],
    )  # fmt: skip
    scores.evaluate(
        connection, [(named, lib)],
        inputs="test_inputs", accounts="test_accounts", assignments="test_assignments",
    )  # fmt: skip
    found = connection.sql(
        "SELECT account_id, value, low, high, coverage, plumbing, band, band_reason "
        "FROM evaluated_scores"
    )
    columns = found.columns
    result = {row[0]: dict(zip(columns, row, strict=True)) for row in found.fetchall()}
    sums = dict(
        connection.execute(
            "SELECT account_id, sum(contribution) FROM evaluated_contributions GROUP BY 1"
        ).fetchall()
    )
    return [(result[account_id], sums[account_id]) for account_id in ids]


@settings(max_examples=100)
@given(card=cards(), accounts=facts_of_accounts())
def test_a_score_is_what_the_design_says(connection, card, accounts):
    found = evaluated(connection, card, accounts)
    for facts, (score, total) in zip(accounts, found, strict=True):
        expected = model(card, facts)
        if expected["value"] is None:
            assert score["value"] is None
        else:
            assert float(score["value"]) == pytest.approx(expected["value"], abs=0.00501)
            assert total == score["value"], "the contributions do not add up"
            assert score["low"] <= score["value"] <= score["high"]
        assert 0 <= score["low"] <= score["high"] <= 100
        assert expected["low"] - 0.01001 <= float(score["low"]) <= expected["low"] + 1e-5
        assert expected["high"] - 1e-5 <= float(score["high"]) <= expected["high"] + 0.01001
        assert math.isclose(score["coverage"], expected["coverage"], abs_tol=1e-9)
        assert score["plumbing"] == expected["plumbing"]
        assert score["band"] == model_band(card, expected, score)
        assert (score["band_reason"] is None) == (score["band"] != "unknown")


@settings(max_examples=40)
@given(card=cards(), accounts=facts_of_accounts(), data=st.data())
def test_a_pipe_that_breaks_leaves_the_band_or_makes_it_unknown(connection, card, accounts, data):
    broken = data.draw(st.sets(st.sampled_from(CAP_METRICS), min_size=1))
    state = data.draw(st.sampled_from(BROKEN))
    after = [
        {name: (None, state) if name in broken else fact for name, fact in facts.items()}
        for facts in accounts
    ]
    was = evaluated(connection, card, accounts)
    now = evaluated(connection, card, after)
    for (before, _), (later, _) in zip(was, now, strict=True):
        assert later["band"] in (before["band"], "unknown")


def one_score(connection: Any, facts: dict[str, Any], **card: Any) -> dict[str, Any]:
    card.setdefault("score", "risk")
    card.setdefault("coverage", {"minimum": 0.0})
    ((score, _),) = evaluated(connection, card, [facts])
    return score


RISING = {0: 0, 100: 100}


@pytest.mark.parametrize(
    ("value", "band"),
    [(70, "red"), (69.99, "yellow"), (40, "yellow"), (39.99, "green"), (0, "green"), (100, "red")],
)
def test_band_edges_belong_to_the_band_above(connection, value, band):
    score = one_score(
        connection, {"m0": (float(value), "present")},
        components=[{"metric": "m0", "weight": 100, "points": RISING}],
    )  # fmt: skip
    assert (float(score["value"]), score["band"]) == (value, band)


TWO = [
    {"metric": "m0", "weight": 60, "points": RISING},
    {"metric": "m1", "weight": 40, "points": RISING},
]


def test_a_score_that_could_be_red_is_never_shown_green(connection):
    score = one_score(connection, {"m0": (55.0, "present")}, components=TWO,
                      bands={"red": 73, "yellow": 60})  # fmt: skip
    assert (score["value"], score["high"]) == (Decimal("55.00"), Decimal("73.00"))
    assert score["band_reason"] == "too little is known for green; it could be red"
    score = one_score(connection, {"m0": (54.9, "present")}, components=TWO,
                      bands={"red": 73, "yellow": 60})  # fmt: skip
    assert score["band"] == "green"


def test_too_little_coverage_is_unknown_and_says_how_little(connection):
    score = one_score(connection, {"m1": (10.0, "present")}, components=TWO,
                      coverage={"minimum": 0.6})  # fmt: skip
    assert score["band_reason"] == "only 40 % of the weight is known, 60 % is needed"
    score = one_score(connection, {"m0": (10.0, "present")}, components=TWO,
                      coverage={"minimum": 0.6})  # fmt: skip
    assert score["band"] == "green"


@pytest.mark.parametrize("state", BROKEN)
def test_the_policy_worst_is_for_what_a_customer_lacks_not_for_a_broken_pipe(connection, state):
    worst = [{**TWO[0]}, {**TWO[1], "missing": "worst"}]
    absent = one_score(connection, {"m0": (10.0, "present"), "m1": (None, "absent")},
                       components=worst)  # fmt: skip
    broken = one_score(connection, {"m0": (10.0, "present"), "m1": (None, state)},
                       components=worst)  # fmt: skip
    assert (absent["value"], absent["band"]) == (Decimal("46.00"), "yellow")
    assert (broken["value"], broken["band"]) == (Decimal("10.00"), "unknown")
    assert broken["band_reason"] == (
        "a source is not delivering; it could be anything from 6 to 46"
    )


def test_a_broken_pipe_that_cannot_change_the_band_hides_nothing(connection):
    score = one_score(
        connection, {"m0": (100.0, "present"), "m1": (None, "stale")},
        components=TWO, bands={"red": 60, "yellow": 30},
    )  # fmt: skip
    assert (score["band"], score["low"], score["high"]) == ("red", 60, 100)


def test_a_cap_that_a_broken_pipe_hides_widens_the_bound(connection):
    caps = [{"when": "m4 > 0", "at_least": 80, "because": "gone"}]
    facts = {"m0": (10.0, "present"), "m1": (10.0, "present")}
    fine = one_score(connection, {**facts, "m4": (0.0, "present")}, components=TWO, caps=caps)
    absent = one_score(connection, {**facts, "m4": (None, "absent")}, components=TWO, caps=caps)
    hidden = one_score(connection, {**facts, "m4": (None, "stale")}, components=TWO, caps=caps)
    assert (fine["band"], fine["high"]) == ("green", 10)
    assert (absent["band"], absent["high"]) == ("green", 10)
    assert (hidden["band"], hidden["value"], hidden["high"]) == ("unknown", 10, 80)


def test_a_hidden_cap_alone_is_reason_enough_to_say_unknown(connection):
    components = [{"metric": "m0", "weight": 100, "points": RISING}]
    for limit, points in (("at_least", 80), ("at_most", 20)):
        caps = [{"when": "m4 > 0", limit: points, "because": "perhaps"}]
        facts = {"m0": (50.0, "present"), "m4": (None, "suspect")}
        score = one_score(connection, facts, components=components, caps=caps)
        assert (score["value"], score["band"], score["plumbing"]) == (50, "unknown", True)


def test_a_cap_that_asks_is_null_does_not_fire_because_a_pipe_broke(connection):
    caps = [{"when": "m4 is null", "at_least": 80, "because": "never asked"}]
    facts = {"m0": (10.0, "present"), "m1": (10.0, "present")}
    absent = one_score(connection, {**facts, "m4": (None, "absent")}, components=TWO, caps=caps)
    stale = one_score(connection, {**facts, "m4": (None, "stale")}, components=TWO, caps=caps)
    assert (absent["value"], absent["band"]) == (80, "red")
    assert (stale["value"], stale["band"]) == (10, "unknown")


def test_a_missing_required_metric_leaves_no_number(connection):
    required = [{**TWO[0]}, {**TWO[1], "missing": "required"}]
    score = one_score(connection, {"m0": (10.0, "present")}, components=required)
    assert (score["value"], score["band"]) == (None, "unknown")
    assert score["band_reason"] == "a required metric is missing"


def test_nothing_known_is_no_number(connection):
    score = one_score(connection, {}, components=TWO)
    assert (score["value"], score["band_reason"]) == (None, "nothing is known")
    assert (score["low"], score["high"], score["coverage"]) == (0, 100, 0)


def test_the_strictest_cap_moves_the_score_and_a_ceiling_has_the_last_word(connection):
    caps = [
        {"when": "m0 > 1", "at_least": 50, "because": "first"},
        {"when": "m0 > 2", "at_least": 90, "because": "second"},
        {"when": "m0 > 3", "at_most": 75.5, "because": "third"},
        {"when": "m0 > 500", "at_most": 5, "because": "never"},
    ]
    components = [{"metric": "m0", "weight": 100, "points": RISING}]
    score = one_score(connection, {"m0": (10.0, "present")}, components=components, caps=caps)
    assert score["value"] == Decimal("75.50")
    rows = connection.execute(
        "SELECT reason, contribution FROM evaluated_contributions WHERE kind = 'cap' "
        "ORDER BY position"
    ).fetchall()
    assert rows == [
        ("first", Decimal("0.00")), ("second", Decimal("80.00")), ("third", Decimal("-14.50")),
    ]  # fmt: skip


def test_the_worst_of_a_pillar_is_found_among_nearly_equal_points(connection):
    """Two points that differ by less than a thousandth are still two different points."""
    components = [
        {"metric": f"m{n}", "weight": 20, "points": RISING, "pillar": "proactive"} for n in range(5)
    ]
    facts = {f"m{n}": (50 + n / 10_000, "present") for n in range(5)}
    score = one_score(
        connection, facts, components=components,
        pillars={"proactive": {"weight": 100, "combine": "worst"}},
    )  # fmt: skip
    rows = connection.execute(
        "SELECT metric FROM evaluated_contributions WHERE effective_weight > 0"
    ).fetchall()
    assert rows == [("m4",)]
    assert score["low"] <= score["value"] <= score["high"]


def test_a_third_of_a_point_is_never_lost_between_the_contributions(connection):
    components = [{"metric": f"m{n}", "weight": 100 / 3, "points": RISING} for n in range(3)]
    facts = {f"m{n}": (1.0, "present") for n in range(3)}
    ((score, total),) = evaluated(
        connection,
        {"score": "risk", "components": components, "caps": [], "coverage": {"minimum": 0}},
        [facts],
    )
    assert total == score["value"] == Decimal("1.00")
    rows = connection.execute(
        "SELECT contribution FROM evaluated_contributions ORDER BY position"
    ).fetchall()
    assert [c for (c,) in rows] == [Decimal("0.33"), Decimal("0.34"), Decimal("0.33")]
