"""Which streams can be trusted: volume by their own past, complete lists, and since when."""

import datetime as dt
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals_helpers import ACCOUNTS, Case, account, at

from connectors.acceptance import accept, read_accepted
from connectors.health import all_health, latest_health, record_health
from connectors.volumes import expected_rows, frozen_value, shortfall
from contracts.errors import ConfigurationError

FIRST = dt.date(2026, 1, 5)
DAY = dt.timedelta(days=1)
USAGE = "SELECT who AS account_key, day, what AS event, n AS count FROM raw_app.events"
PLANS = (
    "SELECT who AS account_key, id AS subscription_id, started AS started_at, mrr, "
    "'EUR' AS currency FROM raw_billing.plans"
)
SURVEY = (
    "SELECT who AS account_key, id AS response_id, 'nps' AS kind, score, "
    "CAST(day AS TIMESTAMP) AS responded_at FROM raw_nps.answers"
)


def poisson(rng: random.Random, mean: float) -> int:
    """A count by chance."""
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


# What is usual


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(5, 300), st.floats(0.02, 1))
def test_chance_and_weekends_are_hardly_ever_taken_for_a_fault(rng, mean, weekend):
    days = [FIRST + n * DAY for n in range(120)]
    history = {day: poisson(rng, mean * (weekend if day.weekday() >= 5 else 1)) for day in days}
    alarms = [
        day
        for day in days
        if (usual := expected_rows(history, day))
        and history[day] < usual.limit
        and usual.rows >= 20
    ]
    assert len(alarms) <= 1


@settings(max_examples=100, derandomize=True)
@given(st.lists(st.integers(20, 2_000), min_size=1, max_size=1), st.data())
def test_nothing_after_a_steady_past_is_always_found(level, data):
    length = data.draw(st.integers(35, 100))
    rows = [level[0] + data.draw(st.integers(0, level[0] // 4)) for _ in range(length)]
    history = {FIRST + n * DAY: count for n, count in enumerate(rows)}
    last = FIRST + length * DAY
    found = shortfall(history, last)
    assert found is not None
    assert (found.first, found.day, found.rows, found.all_empty) == (last, last, 0, True)


def test_the_reason_names_the_numbers_and_the_weekday():
    history = {FIRST + n * DAY: 240 for n in range(50)}
    tuesday = FIRST + 50 * DAY
    history[tuesday] = 12
    found = shortfall(history, tuesday)
    assert found is not None
    assert found.reason == f"12 rows on {tuesday}; 240 are usual on a Tuesday"
    gone = shortfall({**history, tuesday: 0}, tuesday + 2 * DAY)
    assert gone is not None
    assert gone.reason == f"no rows since {tuesday}; 240 are usual on a Thursday"


@pytest.mark.parametrize("share", [0.45, 1.0, 30.0])
def test_a_drop_by_less_than_60_percent_and_any_growth_are_no_fault(share):
    history = {FIRST + n * DAY: 200 for n in range(50)} | {FIRST + 50 * DAY: int(200 * share)}
    assert shortfall(history, FIRST + 50 * DAY) is None


def test_few_rows_and_a_short_past_prove_nothing():
    few = {FIRST + n * DAY: 15 for n in range(60)}
    assert shortfall(few, FIRST + 60 * DAY) is None
    short = {FIRST + n * DAY: 500 for n in range(10)}
    assert shortfall(short, FIRST + 10 * DAY) is None


def test_a_shortfall_goes_on_over_days_that_cannot_be_judged():
    history = {day: 300 for n in range(60) if (day := FIRST + n * DAY).weekday() < 5}
    friday = FIRST + 60 * DAY
    assert friday.weekday() == 4
    for day in (friday, friday - DAY):
        history[day] = 10
    found = shortfall(history, friday + 2 * DAY)
    assert found is not None
    assert (found.first, found.day) == (friday - DAY, friday)
    assert shortfall(history, friday, unjudged=frozenset({friday, friday - DAY})) is None


def test_equal_opinions_are_only_suspicious_where_others_were_usual():
    mixed = {float(n): 1 / 11 for n in range(11)}
    assert frozen_value([10.0] * 20, mixed) == 10.0
    assert frozen_value([10.0] * 19, mixed) is None
    assert frozen_value([10.0] * 20, {10.0: 0.9, 9.0: 0.1}) is None
    assert frozen_value([10.0] * 19 + [9.0], mixed) is None


# Streams in a warehouse


@pytest.fixture
def case(tmp_path) -> Case:
    made = Case(tmp_path)
    made.declare("crm", ["accounts"], accounts=ACCOUNTS)
    made.load("crm", at(1, 1), accounts=[account(f"a{n}", "2025-06-01") for n in range(30)])
    return made


def uses(first: dt.date, last: dt.date, count: int = 30) -> list[dict]:
    days = [first + n * DAY for n in range((last - first).days + 1)]
    return [
        {"who": f"a{n}", "day": day.isoformat(), "what": "x", "n": 1}
        for day in days
        for n in range(count)
    ]


def state(case: Case, source: str, stream: str) -> tuple:
    found = latest_health(case.connection, source, stream)
    assert found is not None
    return found.status, found.reason, found.good_day


def plans(count: int) -> list[dict]:
    return [{"who": "a1", "id": f"p{n}", "started": at(1, 1), "mrr": 5.0} for n in range(count)]


def test_f30_a_day_with_few_rows_is_suspect_from_the_last_good_day_on_until_it_is_made_up(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(19, 5), events=uses(dt.date(2026, 3, 1), dt.date(2026, 5, 18)))
    case.build(now=at(19, 5, 6))
    assert state(case, "app", "events")[0] == "ok"
    tuesday = dt.date(2026, 5, 19)
    case.load("app", at(20, 5), events=uses(tuesday, tuesday, 9))
    case.build(now=at(20, 5, 6))
    reason = "usage_daily: 9 rows on 2026-05-19; 30 are usual on a Tuesday"
    assert state(case, "app", "events") == ("suspect", reason, tuesday - DAY)
    rest = uses(tuesday, tuesday)[9:] + uses(tuesday + DAY, tuesday + DAY)
    case.load("app", at(21, 5), events=rest)
    case.build(now=at(21, 5, 6))
    assert state(case, "app", "events") == ("ok", None, None)


def test_f29_a_stream_that_brings_nothing_more_is_stale_since_the_first_empty_day(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(19, 5), events=uses(dt.date(2026, 3, 1), dt.date(2026, 5, 18)))
    case.build(now=at(22, 5, 6))
    status, reason, good_day = state(case, "app", "events")
    # The day in whose course it was read last was never complete, so it is not blamed.
    assert (status, good_day) == ("stale", dt.date(2026, 5, 19))
    assert reason == "usage_daily: no rows since 2026-05-20; 30 are usual on a Thursday"


def test_an_export_that_always_comes_days_later_is_not_missed_before(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    first = dt.date(2026, 4, 1)
    for number in range(45):
        day = first + number * DAY
        arrived = dt.datetime.combine(day + 4 * DAY, dt.time(5))
        case.load("app", arrived, events=uses(day, day))
    case.build(now=dt.datetime.combine(first + 48 * DAY, dt.time(6)))
    assert state(case, "app", "events") == ("ok", None, None)
    case.build(now=dt.datetime.combine(first + 51 * DAY, dt.time(6)))
    assert state(case, "app", "events")[0] == "stale"


def test_an_export_that_was_read_once_may_end_before_it_was_made(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(19, 5, 23), events=uses(dt.date(2026, 3, 1), dt.date(2026, 5, 14)))
    case.build(now=at(20, 5))
    assert state(case, "app", "events") == ("ok", None, None)


def test_a_day_that_is_not_over_is_not_judged(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(19, 5), events=uses(dt.date(2026, 3, 1), dt.date(2026, 5, 18)))
    case.load("app", at(19, 5, 6), events=uses(dt.date(2026, 5, 19), dt.date(2026, 5, 19), 2))
    case.build(now=at(19, 5, 7))
    assert state(case, "app", "events")[0] == "ok"
    case.build(now=at(20, 5, 0))  # nothing was read since, so its rest may still come
    assert state(case, "app", "events")[0] == "ok"


def test_f30_a_complete_list_that_lost_most_rows_is_held_until_they_are_back(case):
    case.declare("billing", ["plans"], subscriptions=PLANS)
    open_plans = "SELECT count(*) FROM signals.subscriptions WHERE superseded_at IS NULL"
    case.load("billing", at(10), whole=True, plans=plans(60))
    case.build()
    case.load("billing", at(11), whole=True, plans=plans(24))
    (report,) = [t for t in case.build().tables if t.table == "subscriptions"]
    assert report.mode == "held"
    assert case.rows(open_plans) == [(60,)]
    status, reason, _ = state(case, "billing", "plans")
    assert status == "suspect"
    assert reason.startswith("most rows of 'plans.csv' are gone: 24, where there were 60; the old")
    case.load("billing", at(12), whole=True, plans=plans(59))
    case.build()
    assert state(case, "billing", "plans")[0] == "ok"
    assert case.rows(open_plans) == [(59,)]
    fresh = case.fresh()
    fresh.build()
    assert fresh.tables() == case.tables()


def test_what_a_person_accepts_is_built_and_built_again_by_a_rebuild(case):
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), whole=True, plans=plans(60))
    short = case.load("billing", at(11), whole=True, plans=plans(24))
    case.build()
    assert case.rows("FROM signals.held") == [("billing", "plans", short)]
    accept(case.company, "billing", "plans", loads=[short], from_day=None, now=at(11, hour=9))
    case.build()
    assert state(case, "billing", "plans")[0] == "ok"
    open_plans = "SELECT count(*) FROM signals.subscriptions WHERE superseded_at IS NULL"
    assert case.rows(open_plans) == [(24,)]
    case.load("billing", at(12), whole=True, plans=plans(23))
    case.build()
    assert case.rows(open_plans) == [(23,)]
    fresh = case.fresh()
    fresh.build()
    assert fresh.tables() == case.tables()


def test_an_accepted_empty_list_ends_all_that_it_had(case):
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), whole=True, plans=plans(3))
    empty = case.load("billing", at(11), whole=True, plans=[])
    case.build()
    assert state(case, "billing", "plans")[0] == "suspect"
    accept(case.company, "billing", "plans", loads=[empty], from_day=None, now=at(11, hour=9))
    case.build()
    assert state(case, "billing", "plans")[0] == "ok"
    assert case.rows("FROM signals.subscriptions WHERE superseded_at IS NULL") == []


def test_a_new_level_that_a_person_accepts_is_learned_anew(case):
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(19, 5), events=uses(dt.date(2026, 3, 1), dt.date(2026, 5, 18)))
    case.load("app", at(21, 5), events=uses(dt.date(2026, 5, 19), dt.date(2026, 5, 20), 8))
    case.build(now=at(21, 5, 6))
    _, _, good_day = state(case, "app", "events")
    accept(case.company, "app", "events", loads=[], from_day=good_day + DAY, now=at(21, 5, 7))
    case.build(now=at(21, 5, 8))
    assert state(case, "app", "events") == ("ok", None, None)


def test_a_damaged_list_of_what_was_accepted_is_a_mistake_with_its_line(case):
    accept(case.company, "app", "events", loads=["1.5"], from_day=None, now=at(1))
    file = case.company.lake / "accepted.jsonl"
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(ConfigurationError, match=r"accepted\.jsonl:2: not what Healthloop wrote"):
        read_accepted(case.company)


def test_f39_scores_that_are_all_equal_at_once_are_held_though_their_mean_may_be_right(case):
    case.declare("nps", ["answers"], survey_responses=SURVEY)
    day = dt.date(2026, 5, 1)
    mixed = [
        {"who": "a1", "id": f"r{n}", "score": n % 11, "day": (day + n // 2 * DAY).isoformat()}
        for n in range(60)
    ]
    case.load("nps", at(1), answers=mixed)
    case.build(now=at(1))
    assert state(case, "nps", "answers")[0] == "ok"
    tens = [{"who": "a1", "id": f"s{n}", "score": 10, "day": "2026-06-01"} for n in range(25)]
    case.load("nps", at(2), answers=tens)
    case.build(now=at(2, hour=1))
    assert state(case, "nps", "answers") == (
        "suspect",
        "survey_responses: the newest 25 values of score are all 10; before, 11 different ones "
        "came",
        dt.date(2026, 5, 31),
    )


def test_every_stream_names_the_tables_that_it_feeds(case):
    joined = "SELECT e.who AS account_key, e.day, e.what AS event FROM raw_app.events AS e " \
             "JOIN raw_crm.accounts AS a ON a.id = e.who"  # fmt: skip
    case.declare("app", ["events"], usage_daily=joined)
    case.build()
    assert sorted(case.rows("FROM signals.feeds")) == [
        ("accounts", "crm", "crm", "accounts"),
        ("usage_daily", "app", "app", "events"),
        ("usage_daily", "app", "crm", "accounts"),
    ]


def test_a_state_says_since_when_it_lasts(case):
    case.build(now=at(1))
    for hour, status in ((1, "down"), (2, "down"), (3, "ok"), (4, "down"), (5, "down")):
        record_health(case.connection, "crm", "accounts", status, None, at(2, hour=hour))
    found = all_health(case.connection)["crm", "accounts"]
    assert (found.status, found.since) == ("down", at(2, hour=4))


def test_a_failure_found_after_a_day_tells_of_that_day_unless_it_was_looked_at(case):
    end = at(3)

    def checks() -> list[tuple]:
        return case.rows("SELECT checked_at, status FROM signals.source_health ORDER BY 1")

    case.build(now=at(2, hour=6))
    record_health(case.connection, "crm", "accounts", "down", "gone", at(3, hour=6), day_end=end)
    ago = dt.timedelta(microseconds=1)
    assert checks() == [(at(2, hour=6), "ok"), (end - ago, "down"), (at(3, hour=6), "down")]
    shortly_before = at(4) - dt.timedelta(minutes=10)
    record_health(case.connection, "crm", "accounts", "ok", None, shortly_before)
    record_health(case.connection, "crm", "accounts", "down", "gone", at(4, hour=6), day_end=at(4))
    assert [status for moment, status in checks() if moment < at(4)][-1] == "ok"
