"""Adding facts that are known later never changes what was visible as of an earlier instant."""

import datetime as dt

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signals_helpers import ACCOUNTS, Case, account, at

PLANS = (
    "SELECT who AS account_key, id AS subscription_id, started AS started_at, mrr, "
    "gone AS deleted FROM raw_billing.plans"
)
USAGE = "SELECT who AS account_key, day, 'x' AS event, n AS count FROM raw_app.events"

PLAN = st.builds(
    lambda key, mrr, gone, day: {
        "who": "a", "id": key, "started": at(day), "mrr": mrr, "gone": gone,
    },
    st.sampled_from("pqr"), st.sampled_from([1.0, 2.0]), st.sampled_from([None, None, True]),
    st.integers(1, 12),
)  # fmt: skip
EVENT = st.builds(
    lambda day, n: {"who": "a", "day": dt.date(2026, 6, day), "n": n},
    st.integers(1, 12), st.integers(0, 3),
)  # fmt: skip
LOADS = st.lists(
    st.one_of(
        st.tuples(st.just("billing"), st.just("plans"), st.lists(PLAN, min_size=1, max_size=3)),
        st.tuples(st.just("app"), st.just("events"), st.lists(EVENT, min_size=1, max_size=3)),
    ),
    min_size=2, max_size=6,
)  # fmt: skip


def visible(case: Case, table: str, columns: str, moment: dt.datetime) -> list[tuple]:
    return case.rows(
        f"SELECT {columns} FROM signals.{table} WHERE known_at <= TIMESTAMP '{moment}' AND "
        f"(superseded_at IS NULL OR superseded_at > TIMESTAMP '{moment}') ORDER BY ALL"
    )


def picture(case: Case, moment: dt.datetime) -> tuple:
    return (
        visible(case, "subscriptions", "account_id, subscription_id, mrr, deleted", moment),
        visible(case, "usage_daily", "account_id, day, event, count", moment),
    )


@given(loads=LOADS, whole=st.booleans())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_later_loads_never_change_what_was_known_before_them(
    tmp_path_factory: pytest.TempPathFactory, loads: list, whole: bool
) -> None:
    case = Case(tmp_path_factory.mktemp("company"))
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.declare("app", ["events"], usage_daily=USAGE)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("crm", at(1, 5), accounts=[account("a")])
    case.load("app", at(12), events=[{"who": "a", "day": dt.date(2026, 6, 1), "n": 1}])
    first = {"who": "a", "id": "p", "started": at(1), "mrr": 1.0, "gone": None}
    case.load("billing", at(12), whole=whole, plans=[first])
    seen: dict[dt.datetime, tuple] = {}
    for number, (source, stream, rows) in enumerate(loads):
        case.build()
        before = at(13 + number) - dt.timedelta(hours=1)
        moments = [at(day) for day in range(1, 13 + number)] + [before]
        seen |= {moment: picture(case, moment) for moment in moments if moment not in seen}
        case.load(source, at(13 + number), whole=whole, **{stream: rows})
    case.build()
    for moment, former in seen.items():
        assert picture(case, moment) == former, moment


@given(loads=LOADS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_versions_of_a_key_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, loads: list
) -> None:
    case = Case(tmp_path_factory.mktemp("company"))
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.declare("app", ["events"], usage_daily=USAGE)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    for number, (source, stream, rows) in enumerate(loads):
        case.load(source, at(13 + number), whole=True, **{stream: rows})
    case.build()
    for table, key in (("subscriptions", "subscription_id"), ("usage_daily", "day")):
        assert (
            case.rows(
                f"SELECT 1 FROM signals.{table} WHERE superseded_at <= known_at UNION ALL SELECT 1 "
                f"FROM signals.{table} a JOIN signals.{table} b USING ({key}) "
                "WHERE a.known_at < b.known_at AND (a.superseded_at > b.known_at "
                "OR a.superseded_at IS NULL)"
            )
            == []
        )
