"""A score explains itself: the number, what made it, its bounds, its family and its change."""

import datetime as dt
from decimal import Decimal

import pytest

from contracts.errors import NotFoundError
from scoring import metrics, reasons, scores
from scoring.explain import explain, find_account, scored_day
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

EARLIER = DAY - dt.timedelta(days=10)
T = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time())

METRICS = {
    "active": metric(
        table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
        label="Active days", unit="days", owner="product", compare=["peers", "previous_window"],
    ),
    "tickets": metric(table="tickets", aggregate="count", label="Tickets"),
    "nps": metric(table="survey_responses", aggregate="last(score)", label="NPS"),
    "spend": metric(table="usage_daily", aggregate="sum(value)", window="28d", label="Spend"),
}  # fmt: skip
COMPONENTS = [
    {"metric": "active", "weight": 50, "points": {0: 100, 28: 0}},
    {"metric": "tickets", "weight": 30, "points": {0: 0, 4: 100},
     "because": "Tickets: {value} {unit} {braces} 100 %"},
    {"metric": "nps", "weight": 20, "points": {0: 100, 10: 0}},
]  # fmt: skip


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily", "tickets", "survey_responses")
    add_account(connection, "a", name="Acme", arr=100)
    add_account(connection, "b", name="Beta", arr=100, parent_id="a")
    use(connection, "a", days_before(EARLIER, 28))
    use(connection, "a", [DAY])
    use(connection, "b", days_before(DAY, 60), value=1234.56)
    add_many(
        connection, "tickets",
        [{"source": "app", "account_id": "a", "ticket_id": str(n), "day": DAY, "known_at": T}
         for n in range(2)],
    )  # fmt: skip
    yield connection
    connection.close()


def compute(connection, lib, *days):
    for day in days or (EARLIER, DAY):
        metrics.compute(connection, lib, as_of(day))
        scores.compute(connection, lib, as_of(day))


def lib_of(**card):
    card.setdefault("components", [dict(c) for c in COMPONENTS])
    return library(METRICS, scorecard(**card))


def test_an_explanation_has_the_number_and_everything_that_made_it(connection):
    caps = [{"when": "tickets > 1", "at_least": 60, "because": "Tickets pile up"}]
    compute(connection, lib_of(caps=caps))
    found = explain(connection, "acme", since=EARLIER)
    assert (found.account_id, found.name, found.as_of) == ("a", "Acme", DAY)
    assert (found.score, found.scorecard, found.version) == ("risk", "risk-default", 1)
    assert (found.segment, found.stage, found.outcome) == ("everybody", "always", None)
    assert (found.value, found.band, found.edges) == (Decimal("60.00"), "yellow", (70, 40))
    assert found.coverage == pytest.approx(0.8)
    assert found.low <= found.value <= found.high
    assert sum(c.contribution for c in found.contributions) == found.value
    active, tickets, nps, cap = found.contributions
    assert (active.label, active.value, active.unit, active.owner) == (
        "Active days", 19.0, "days", "product",
    )  # fmt: skip
    assert (active.points, active.weight) == (pytest.approx(32.1428571), 50)
    assert active.effective_weight == pytest.approx(0.625)
    assert (tickets.points, tickets.contribution) == (50, Decimal("18.75"))
    assert (nps.state, nps.reason, nps.value, nps.contribution) == ("absent", "no rows", None, 0)
    assert (cap.kind, cap.label) == ("cap", "Tickets pile up")
    assert cap.contribution == Decimal("60") - Decimal("20.09") - Decimal("18.75")
    family = found.family
    assert (family.method, family.members, family.value, family.decisive_account_id) == (
        "worst", 2, Decimal("60.00"), "a",
    )  # fmt: skip
    assert (found.change.since, found.change.until) == (EARLIER, DAY)
    assert explain(connection, "b").family is None


def test_an_earlier_day_is_explained_by_the_library_that_made_it(connection):
    compute(connection, lib_of(), EARLIER)
    compute(connection, lib_of(version=2, bands={"red": 10, "yellow": 5}), DAY)
    assert explain(connection, "a", as_of=EARLIER).edges == (70, 40)
    assert explain(connection, "a").edges == (10, 5)
    assert explain(connection, "a").version == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"account": "acmee"}, "no customer account 'acmee' on 2026-03-31; did you mean 'Acme'?"),
        ({"account": "qqqqqq"},
         "no customer account 'qqqqqq' on 2026-03-31; `healthloop scores` lists them"),
        ({"account": "a", "score": "upsell"},
         "'a' has no upsell score on 2026-03-31; choose one of: risk"),
        ({"account": "a", "as_of": DAY + dt.timedelta(days=1)},
         "2026-04-01 is not scored; the nearest scored day is 2026-03-31; "
         "`healthloop run --as-of 2026-04-01` scores it"),
        ({"account": "gone"}, "'gone' was no customer on 2026-03-31; it was one on 2026-03-21; "
         "use --as-of"),
        ({"account": "twin"}, "'twin' names 2 accounts; use an id: t1, t2"),
        ({"account": "x'; DROP TABLE scores.all_scores; --"}, "no customer account 'x'; DROP"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_with_what_there_is(connection, asked, message):
    add_account(connection, "gone", superseded_at=dt.datetime.combine(DAY, dt.time()))
    add_account(connection, "t1", name="Twin")
    add_account(connection, "t2", name="twin")
    compute(connection, lib_of())
    with pytest.raises(NotFoundError) as error:
        explain(connection, **asked)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_nothing_scored_yet_says_so():
    connection = connect()
    metrics.create_schema(connection)
    with pytest.raises(NotFoundError, match="nothing is scored yet; run `healthloop run` first"):
        scored_day(connection, None)


def test_an_id_comes_before_a_name(connection):
    add_account(connection, "Acme", name="Somebody else")
    compute(connection, lib_of(), DAY)
    assert find_account(connection, "Acme", DAY) == ("Acme", "Somebody else")
    assert find_account(connection, "ACME", DAY) == ("a", "Acme")


def said(connection, lib, kind="risk"):
    reasons.compute(connection, lib, DAY)
    rows = connection.execute(
        "SELECT account_id, sentence FROM reasons WHERE score = ? ORDER BY account_id, rank", [kind]
    ).fetchall()
    return {account: [s for a, s in rows if a == account] for account in ("a", "b")}


def test_reasons_are_sentences_in_order_of_weight_and_caps_that_moved_come_first(connection):
    caps = [
        {"when": "tickets > 100", "at_least": 99, "because": "never"},
        {"when": "tickets > 0", "at_least": 5, "because": "idle cap"},
        {"when": "tickets > 1", "at_least": 60, "because": "Tickets pile up: {value}, it's true"},
    ]
    lib = lib_of(caps=caps)
    compute(connection, lib, DAY)
    assert said(connection, lib) == {
        "a": [
            "Tickets pile up: {value}, it's true",
            "Active days: 19 days",
            "Tickets: 2  {braces} 100 %",
        ],
        "b": [],
    }


def test_numbers_in_reasons_are_rounded_to_what_people_say(connection):
    components = [
        {"metric": "spend", "weight": 60, "points": {0: 0, 1: 100}},
        {"metric": "active.change", "weight": 30, "points": {-100: 100, 100: 90}},
        {"metric": "spend", "weight": 10, "steps": {0: 80}, "because": "Spent {value}"},
    ]
    lib = lib_of(components=components)
    compute(connection, lib, DAY)
    assert said(connection, lib)["b"] == [
        "Spend: 34,567.7",
        "Active days, change against the window before: 0 %",
        "Spent 34,567.7",
    ]


def test_the_reasons_of_a_health_score_are_what_keeps_it_low(connection):
    connection.execute("UPDATE signals.accounts SET desired_outcome = 'growth'")
    for number, (account, value) in enumerate((("a", 1), ("b", 9))):
        add(connection, "survey_responses", account_id=account, response_id=str(number),
            score=value, responded_at=dt.datetime.combine(DAY, dt.time()))  # fmt: skip
    components = [
        {"metric": "active", "weight": 50, "points": {0: 0, 28: 100}},
        {"metric": "nps", "weight": 50, "points": {0: 0, 10: 100}},
    ]
    lib = lib_of(score="health:growth", components=components, bands={"green": 70, "yellow": 40})
    compute(connection, lib, DAY)
    found = said(connection, lib, "health:growth")
    assert found == {"a": ["NPS: 1", "Active days: 19 days"], "b": ["NPS: 9"]}
