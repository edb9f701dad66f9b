"""The shipped library keeps its own rules, and its points say what their authors meant."""

import copy
import datetime as dt
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from contracts.company import Company, Settings
from contracts.documents import Document, read_document
from contracts.tables import ACCOUNTS, BOOKKEEPING, TABLES
from scoring import metrics
from scoring.config.metrics import Metric
from scoring.config.profiles import Profiles
from scoring.config.scorecards import Scorecard
from scoring.library import (
    HEAVIEST_COMPONENT,
    MOST_COMPONENTS,
    SHIPPED,
    Library,
    NamedScorecard,
    check_library,
)
from scoring.metrics import AsOf
from scoring.scores import card_key, evaluate

DOCUMENTATION = Path(__file__).parent.parent / "docs" / "scorecards.md"
DAY = dt.date(2026, 6, 30)
SEGMENTS = ("enterprise", "mid-market", "small-business")
STAGES = ("onboarding", "adoption", "mature", "renewal")

# Four customers of a normal company, in the numbers that a CSM would quote. What a customer of a
# segment or stage cannot have is left out of its scorecards, not of these tables.
TYPICAL: dict[str, float] = {
    "active_days_28d": 14, "active_days_7d": 3, "active_users_28d": 12, "seat_utilisation": 60,
    "features_used_28d.peer_percentile": 50, "usage_events_28d.peer_percentile": 50,
    "active_days_28d.change": -5, "usage_events_28d.change": -5, "active_users_28d.change": -2,
    "milestones_on_track": 80, "milestones_planned": 5, "goals_set": 1, "goal_progress": 70,
    "open_tickets_14d": 0, "escalations_90d": 0, "csat_90d": 85, "sentiment_last": 4,
    "champions_active": 1, "decision_makers_active": 1, "nps_last_180d": 8,
    "detractors_deciding_180d": 0, "overdue_invoices": 0, "payment_attempts_90d": 1,
    "expansions_open": 0, "funding_180d": 0,
}  # fmt: skip
OUTGROWN: dict[str, float] = TYPICAL | {
    "active_days_28d": 20, "active_days_7d": 5, "active_users_28d": 40, "seat_utilisation": 102,
    "features_used_28d.peer_percentile": 85, "usage_events_28d.peer_percentile": 88,
    "active_days_28d.change": 5, "usage_events_28d.change": 28, "active_users_28d.change": 18,
    "milestones_on_track": 100, "goals_set": 2, "goal_progress": 95, "csat_90d": 95,
    "sentiment_last": 5, "champions_active": 2, "decision_makers_active": 3, "nps_last_180d": 9,
}  # fmt: skip
WORRYING: dict[str, float] = TYPICAL | {
    "active_days_28d": 5, "active_days_7d": 1, "active_users_28d": 2, "seat_utilisation": 33,
    "features_used_28d.peer_percentile": 18, "usage_events_28d.peer_percentile": 18,
    "active_days_28d.change": -30, "usage_events_28d.change": -28, "active_users_28d.change": -20,
    "milestones_on_track": 60, "milestones_planned": 2, "goal_progress": 40,
    "open_tickets_14d": 1, "escalations_90d": 1, "csat_90d": 70, "sentiment_last": 3,
    "nps_last_180d": 6, "overdue_invoices": 1, "payment_attempts_90d": 2,
}  # fmt: skip
LEAVING: dict[str, float] = TYPICAL | {
    "active_days_28d": 2, "active_days_7d": 0, "active_users_28d": 1, "seat_utilisation": 12,
    "features_used_28d.peer_percentile": 4, "usage_events_28d.peer_percentile": 4,
    "active_days_28d.change": -60, "usage_events_28d.change": -65, "active_users_28d.change": -55,
    "milestones_on_track": 30, "milestones_planned": 1, "goals_set": 0, "goal_progress": 20,
    "open_tickets_14d": 2, "escalations_90d": 3, "csat_90d": 45, "sentiment_last": 2,
    "champions_active": 0, "decision_makers_active": 0, "nps_last_180d": 4,
    "detractors_deciding_180d": 1, "overdue_invoices": 2, "payment_attempts_90d": 3,
}  # fmt: skip
CUSTOMERS = {"outgrown": OUTGROWN, "typical": TYPICAL, "worrying": WORRYING, "leaving": LEAVING}
# A small team: the same four stories, told by fewer people on fewer days.
IN_SMALL: dict[str, dict[str, float]] = {
    "outgrown": {"active_days_28d": 15, "active_users_28d": 6},
    "typical": {"active_days_28d": 8, "active_days_7d": 2, "active_users_28d": 2},
    "worrying": {"active_days_28d": 3, "active_users_28d": 1},
    "leaving": {"active_days_28d": 1, "active_days_28d.change": -75},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    settings = Settings(name="Acme", tenant="acme", history_start=dt.date(2024, 7, 1))
    found, problems = check_library(Company(tmp_path_factory.mktemp("company"), settings))
    assert problems == []
    assert found is not None
    return found


def cards_of(score: str) -> list[str]:
    return sorted(file.stem for file in (SHIPPED / "scorecards").glob(f"{score}-*.yaml"))


def card(library: Library, name: str) -> NamedScorecard:
    return next(named for named in library.scorecards if named.name == name)


def document_of(name: str) -> Document:
    document, problems = read_document(SHIPPED / "scorecards" / f"{name}.yaml")
    assert problems == []
    assert document is not None
    return document


def evaluated(
    library: Library,
    named: NamedScorecard,
    values: Mapping[str, float | None],
    *,
    states: Mapping[str, str] | None = None,
    facts: Mapping[str, float] | None = None,
) -> tuple[float | None, str, float, float, float]:
    """Score one account by the engine of the daily run: value, band, coverage, low, high."""
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE inputs (account_id VARCHAR, metric VARCHAR, value DOUBLE, state VARCHAR, "
        "reason VARCHAR)"
    )
    usual = {name: "absent" if value is None else "present" for name, value in values.items()}
    states = usual | dict(states or {})
    connection.executemany(
        "INSERT INTO inputs VALUES ('a', ?, ?, ?, NULL)",
        [(name, value, states[name]) for name, value in values.items()],
    )
    columns = ", ".join(f"{column.name} {column.type}" for column in ACCOUNTS.columns)
    connection.execute(f"CREATE TABLE accounts ({columns})")
    size = {"employees": 300, "arr": 40_000} | dict(facts or {})
    connection.execute(
        "INSERT INTO accounts (account_id, employees, arr) VALUES ('a', ?, ?)",
        [size["employees"], size["arr"]],
    )
    connection.execute(
        "CREATE TABLE given AS SELECT 'a' AS account_id, ? AS score, ? AS scorecard",
        [named.card.score, card_key(named)],
    )
    evaluate(
        connection, [(named, library)], inputs="inputs", accounts="accounts", assignments="given"
    )
    row = connection.execute(
        "SELECT value::DOUBLE, band, coverage, low::DOUBLE, high::DOUBLE FROM evaluated_scores"
    ).fetchone()
    assert row is not None
    return row


def scores_of_customers(library: Library, name: str) -> dict[str, float]:
    """What a scorecard says of the four customers."""
    named = card(library, name)
    small = "small-business" in named.card.applies_to.segment
    scores = {}
    for who, values in CUSTOMERS.items():
        value = evaluated(library, named, values | (IN_SMALL[who] if small else {}))[0]
        assert value is not None
        scores[who] = value
    return scores


# The library as a whole


def test_the_library_is_read_without_a_mistake_or_a_warning(library: Library) -> None:
    assert library.warnings == ()


def test_the_library_has_what_the_documentation_promises(library: Library) -> None:
    assert len(library.metrics) >= 30
    assert len(library.scorecards) >= 8
    for score_name in ("risk", "upsell"):
        assert {f"{score_name}-{stage}" for stage in STAGES} <= set(cards_of(score_name))
        assert f"{score_name}-default" in cards_of(score_name)


def test_every_profile_finds_a_scorecard_and_a_foreign_one_the_default(library: Library) -> None:
    for score_name in ("risk", "upsell"):
        for segment in SEGMENTS:
            for stage in STAGES:
                named = library.resolve(
                    score=score_name, segment=segment, stage=stage, outcome=None
                )
                assert named is not None
                assert named.name != f"{score_name}-default"
        foreign = library.resolve(score=score_name, segment="public", stage="pilot", outcome=None)
        assert foreign is not None
        assert foreign.name == f"{score_name}-default"


def test_variants_are_taken_where_they_exist(library: Library) -> None:
    def name(segment: str, stage: str) -> str:
        named = library.resolve(score="risk", segment=segment, stage=stage, outcome=None)
        assert named is not None
        return named.name

    assert name("enterprise", "renewal") == "risk-renewal-enterprise"
    assert name("enterprise", "mature") == "risk-mature"
    assert name("small-business", "mature") == "risk-small-business"
    assert name("mid-market", "onboarding") == "risk-onboarding"


# Metrics


def test_every_metric_can_be_read_out_to_a_customer_team(library: Library) -> None:
    for name, metric in library.metrics.items():
        assert metric.label[0].isupper(), name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)+", metric.owner), name
        assert metric.description, name
        assert re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", metric.description), name
    labels = [metric.label for metric in library.metrics.values()]
    assert len(labels) == len(set(labels))


def test_only_streams_that_flow_continuously_can_be_stale(library: Library) -> None:
    for name, metric in library.metrics.items():
        flows = metric.table in ("usage_daily", "user_days")
        assert (metric.stale_after is not None) == flows, name


def test_opinions_and_bills_are_lagging(library: Library) -> None:
    for name, metric in library.metrics.items():
        if name.startswith(("nps_", "csat_", "detractors_", "overdue_", "invoices_overdue_")):
            assert metric.kind == "lagging", name


def test_every_shipped_metric_can_be_computed(library: Library) -> None:
    values = computed(library, {})
    assert set(library.measures) <= set(values)
    for name, metric in library.metrics.items():
        if metric.zero_when_empty:
            # A stream that flows continuously and never delivered a row says nothing yet.
            expected = (None, "absent") if metric.stale_after else (0.0, "zero-filled")
            assert values[name] == expected, name


def test_logins_and_empty_rows_are_no_use(library: Library) -> None:
    day = DAY - dt.timedelta(days=1)
    usage = [
        {"day": day, "event": "login", "count": 9},
        {"day": day, "event": "report_published", "count": 0},
        {"day": DAY, "event": "report_published", "count": 4},
    ]
    values = computed(library, {"usage_daily": usage})
    assert values["active_days_28d"][0] == 1
    assert values["usage_events_28d"][0] == 4
    assert values["logins_28d"][0] == 9


def test_a_change_of_plan_is_no_notice_but_a_coming_end_is(library: Library) -> None:
    start = dt.datetime(2025, 1, 1)
    changed = {"started_at": start, "cancelled_at": DAY, "ends_at": DAY, "seats": 5, "mrr": 100}
    running = {"started_at": start, "seats": 10, "mrr": 200}
    ending = changed | {"ends_at": DAY + dt.timedelta(days=60), "seats": 3}
    values = computed(library, {"subscriptions": [changed, running]})
    assert values["subscriptions_under_notice"][0] == 0
    assert (values["seats"][0], values["mrr"][0]) == (10, 200)
    values = computed(library, {"subscriptions": [ending]})
    assert values["subscriptions_under_notice"][0] == 1
    assert values["subscriptions_running"][0] == 0


def test_only_a_real_debt_is_overdue(library: Library) -> None:
    issued = dt.datetime(2026, 4, 1)
    late = {"issued_at": issued, "due_at": dt.datetime(2026, 5, 1), "amount_due": 50}
    invoices = [
        late,
        late | {"paid_at": dt.datetime(2026, 6, 1)},
        late | {"amount_due": -50},
        late | {"status": "void"},
        late | {"due_at": dt.datetime(2026, 6, 25), "status": "open"},
    ]
    values = computed(library, {"invoices": invoices})
    assert values["overdue_invoices"][0] == 2
    assert values["invoices_overdue_30d"][0] == 1
    assert values["amount_overdue"][0] == 100


def test_milestones_are_held_against_their_due_dates(library: Library) -> None:
    planned = {"name": "step", "planned_at": dt.datetime(2026, 1, 1)}
    milestones = [
        planned | {"due_on": dt.date(2026, 2, 1), "reached_on": dt.date(2026, 3, 1)},
        planned | {"due_on": dt.date(2026, 4, 1)},
        planned | {"due_on": dt.date(2026, 6, 20)},
        planned | {"due_on": dt.date(2026, 9, 1), "reached_on": dt.date(2026, 6, 1)},
    ]
    values = computed(library, {"milestones": milestones})
    assert values["milestones_on_track"][0] == pytest.approx(100 / 3)
    assert values["milestones_reached"][0] == 2
    assert values["milestones_overdue"][0] == 2
    assert values["milestones_overdue_60d"][0] == 1
    assert values["milestone_delay_days"][0] == 90


def test_an_expired_sentiment_is_none(library: Library) -> None:
    given = {"given_at": dt.datetime(2026, 5, 1), "score": 2}
    valid = computed(library, {"sentiments": [given | {"expires_on": dt.date(2026, 7, 30)}]})
    expired = computed(library, {"sentiments": [given | {"expires_on": dt.date(2026, 6, 30)}]})
    assert valid["sentiment_last"] == (2.0, "present")
    assert expired["sentiment_last"] == (None, "absent")


def computed(
    library: Library, rows: dict[str, list[dict[str, object]]]
) -> dict[str, tuple[float | None, str]]:
    """Every measure of one account that is linked to a source of everything: value and state."""
    connection = warehouse()
    source = {"source": "crm", "account_id": "a", "account_key": "a"}
    account = {"started_on": dt.date(2024, 7, 1), "employees": 300, "currency": "USD"}
    put(connection, "accounts", source | account, day=dt.date(2024, 7, 1))
    for table, facts in rows.items():
        for number, fact in enumerate(facts):
            row = source | {name: str(number) for name in TABLES[table].key} | fact
            when = fact[TABLES[table].time]
            assert isinstance(when, dt.date)
            put(connection, table, row, day=when.date() if isinstance(when, dt.datetime) else when)
    metrics.compute(connection, library, AsOf(DAY, end_of(DAY), "USD", "UTC"))
    found = connection.execute("SELECT metric, value, state FROM metrics.metric_values").fetchall()
    return {name: (value, state) for name, value, state in found}


def end_of(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day + dt.timedelta(days=1), dt.time())


def put(
    connection: duckdb.DuckDBPyConnection, table: str, row: Mapping[str, object], *, day: dt.date
) -> None:
    row = {**row, "day": day, "known_at": end_of(day)}
    columns = [r[0] for r in connection.execute(f"DESCRIBE signals.{table}").fetchall()]
    given = {name: value for name, value in row.items() if name in columns}
    names = ", ".join(f'"{name}"' for name in given)
    marks = ", ".join("?" for _ in given)
    connection.execute(
        f"INSERT INTO signals.{table} ({names}) VALUES ({marks})", list(given.values())
    )


def warehouse() -> duckdb.DuckDBPyConnection:
    """Empty signals of one source, `crm`, that feeds every table and is well."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA signals")
    for table in TABLES.values():
        columns = {
            column.name: column.type
            for column in (*table.columns, *BOOKKEEPING)
            if table.name != "accounts" or column.name != "account_key"
        }
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        connection.execute(f"CREATE TABLE signals.{table.name} ({listed})")
    connection.execute(
        'CREATE TABLE signals.feeds ("table" VARCHAR, source VARCHAR, stream_source VARCHAR, '
        "stream VARCHAR)"
    )
    feeds = [(name,) for name in TABLES]
    connection.executemany("INSERT INTO signals.feeds VALUES (?, 'crm', 'crm', 'all')", feeds)
    connection.execute(
        "CREATE TABLE signals.source_health (source VARCHAR, stream VARCHAR, checked_at TIMESTAMP, "
        "status VARCHAR, reason VARCHAR, last_load_at TIMESTAMP, rows BIGINT, good_day DATE)"
    )
    return connection


# Scorecards


@pytest.mark.parametrize("name", cards_of("risk") + cards_of("upsell"))
def test_a_scorecard_is_small_balanced_and_says_what_it_believes(
    library: Library, name: str
) -> None:
    scorecard = card(library, name).card
    assert len(scorecard.believes.strip().splitlines()) == 2
    assert next(iter(document_of(name).data)) == "believes"
    assert len(scorecard.components) <= MOST_COMPONENTS
    assert max(component.weight for component in scorecard.components) <= HEAVIEST_COMPONENT
    assert set(scorecard.pillars) == {"proactive", "reactive"}
    assert scorecard.leading_pillar_share >= 0.5
    assert scorecard.edges == (70, 40)
    assert 0.5 <= scorecard.coverage.minimum <= 0.6
    weights = [component.weight for component in scorecard.components]
    assert sum(weights) == pytest.approx(100)


@pytest.mark.parametrize("name", cards_of("risk") + cards_of("upsell"))
def test_lagging_metrics_weigh_little(library: Library, name: str) -> None:
    scorecard = card(library, name).card
    lagging = sum(
        component.weight
        for component in scorecard.components
        if library.measures[component.metric].kind == "lagging"
    )
    assert lagging <= 15


@pytest.mark.parametrize("name", cards_of("risk") + cards_of("upsell"))
def test_points_go_the_way_that_the_metric_says(library: Library, name: str) -> None:
    scorecard = card(library, name).card
    for component in scorecard.components:
        points = [y for _, y in component.curve]
        rising = (library.measures[component.metric].better == "higher") == (
            scorecard.score == "upsell"
        )
        assert points == sorted(points, reverse=not rising), component.metric
        assert points[0] != points[-1], component.metric


@pytest.mark.parametrize("name", cards_of("risk") + cards_of("upsell"))
def test_every_component_and_cap_reads_as_a_reason(library: Library, name: str) -> None:
    scorecard = card(library, name).card
    for component in scorecard.components:
        assert component.because is not None
        assert component.because.count("{value}") == 1, component.because
        assert component.because[0].isupper(), component.because
        assert not component.because.endswith("."), component.because
    for cap in scorecard.caps:
        assert cap.because[0].isupper()


@pytest.mark.parametrize("name", cards_of("risk"))
def test_risk_ranks_a_normal_companys_customers(library: Library, name: str) -> None:
    scores = scores_of_customers(library, name)
    assert scores["outgrown"] < 8
    assert 8 <= scores["typical"] <= 30
    assert 40 <= scores["worrying"] < 70
    assert scores["leaving"] >= 70


@pytest.mark.parametrize("name", cards_of("upsell"))
def test_upsell_is_ready_only_where_the_customer_has_outgrown_its_contract(
    library: Library, name: str
) -> None:
    scores = scores_of_customers(library, name)
    assert scores["outgrown"] >= 70
    assert scores["typical"] < 40
    assert scores["worrying"] < scores["typical"]
    assert scores["leaving"] <= 15


@pytest.mark.parametrize("name", cards_of("risk"))
def test_notice_makes_any_customer_red(library: Library, name: str) -> None:
    notice: dict[str, float] = {"subscriptions_under_notice": 1, "subscriptions_running": 0}
    assert evaluated(library, card(library, name), OUTGROWN | notice)[:2] == (90, "red")


@pytest.mark.parametrize("name", cards_of("upsell"))
@pytest.mark.parametrize(
    ("fact", "ceiling"),
    [
        ({"subscriptions_under_notice": 1}, 10),
        ({"sentiment_last": 2}, 30),
        ({"champion_left_90d": 1}, 30),
        ({"champions_departed_90d": 1}, 30),
        ({"invoices_overdue_30d": 1}, 30),
        ({"open_p1_tickets": 1}, 30),
    ],
)
def test_nothing_is_sold_into_trouble(
    library: Library, name: str, fact: dict[str, float], ceiling: float
) -> None:
    value, *_ = evaluated(library, card(library, name), OUTGROWN | fact)
    assert value is not None
    assert value <= ceiling


def test_a_champion_who_left_makes_an_enterprise_red_and_others_yellow(library: Library) -> None:
    left = TYPICAL | {"champion_left_90d": 1}
    enterprise = {"employees": 4_000, "arr": 250_000}
    for name in ("risk-onboarding-enterprise", "risk-renewal-enterprise"):
        assert evaluated(library, card(library, name), left, facts=enterprise)[1] == "red"
    for name in ("risk-adoption", "risk-mature"):
        assert evaluated(library, card(library, name), left, facts=enterprise)[1] == "red"
        assert evaluated(library, card(library, name), left)[:2] == (60, "yellow")


def test_a_renewal_card_can_do_without_surveys_goals_and_csm(library: Library) -> None:
    known = {
        name: None if name.startswith(("goal", "sentiment", "nps")) else value
        for name, value in TYPICAL.items()
    }
    value, band, coverage, *_ = evaluated(library, card(library, "risk-renewal"), known)
    assert coverage == pytest.approx(0.65)
    assert (band, value is not None and value <= 30) == ("green", True)


def test_billing_alone_is_no_green(library: Library) -> None:
    known = {name: value if "invoice" in name else None for name, value in TYPICAL.items()}
    for name in cards_of("risk"):
        assert evaluated(library, card(library, name), known)[1] == "unknown", name


def test_profiles_follow_the_account(library: Library) -> None:
    connection = warehouse()
    day = dt.date(2024, 1, 1)
    rows = [
        ("large", 5_000, 20_000, DAY - dt.timedelta(days=800), DAY + dt.timedelta(days=200)),
        ("dear", 50, 150_000, DAY - dt.timedelta(days=800), DAY + dt.timedelta(days=60)),
        ("middle", 200, 5_000, DAY - dt.timedelta(days=200), None),
        ("new", 20, 1_000, DAY - dt.timedelta(days=30), DAY + dt.timedelta(days=20)),
        ("unknown", None, None, DAY - dt.timedelta(days=400), None),
    ]
    for account_id, employees, arr, started_on, renews_on in rows:
        account = {
            "account_id": account_id, "source": "crm", "employees": employees, "arr": arr,
            "currency": "USD", "started_on": started_on, "renews_on": renews_on,
        }  # fmt: skip
        put(connection, "accounts", account, day=day)
    connection.execute("UPDATE signals.accounts SET day = started_on")
    metrics.compute(connection, library, AsOf(DAY, end_of(DAY), "USD", "UTC"))
    found = connection.execute("SELECT account_id, segment, stage FROM metrics.accounts").fetchall()
    assert sorted(found) == [
        ("dear", "enterprise", "renewal"),
        ("large", "enterprise", "mature"),
        ("middle", "mid-market", "adoption"),
        ("new", "small-business", "onboarding"),
        ("unknown", "small-business", "mature"),
    ]


# The documentation


def examples() -> list[object]:
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def documented_scorecard() -> dict[str, Any]:
    (scorecard,) = [data for data in examples() if isinstance(data, dict) and "believes" in data]
    return scorecard


def documented_score(
    library: Library,
    *,
    state: str = "present",
    champions_left: int = 0,
    combine: str = "mean",
    missing: str = "redistribute",
) -> tuple[float | None, str, float, float, float]:
    """The scorecard of the documentation over the account of its table; `state` of sentiment."""
    data = copy.deepcopy(documented_scorecard())
    data["pillars"]["reactive"]["combine"] = combine
    data["components"][3]["missing"] = missing
    named = NamedScorecard("documented", Scorecard.model_validate(data))
    values = {
        "active_days_28d": 6, "goals_set": 2, "usage_events_28d.change": -30,
        "sentiment_last": 4 if state == "present" else None, "champion_left_90d": champions_left,
    }  # fmt: skip
    return evaluated(library, named, values, states={"sentiment_last": state})


def test_every_example_of_the_documentation_is_valid() -> None:
    for data in examples():
        assert isinstance(data, dict)
        if "believes" in data:
            Scorecard.model_validate(data)
        elif "segments" in data:
            Profiles.model_validate(data)
        else:
            for metric in data.values():
                Metric.model_validate(metric)


def test_the_worked_examples_of_the_documentation_are_what_the_engine_says(
    library: Library,
) -> None:
    assert documented_score(library)[:3] == (39.75, "green", 1.0)
    assert documented_score(library, combine="worst")[0] == 42
    assert documented_score(library, champions_left=1)[:2] == (60, "yellow")
    assert documented_score(library, state="absent") == (42, "yellow", 0.85, 36, 51)
    assert documented_score(library, state="stale")[1:] == ("unknown", 0.85, 36, 51)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("redistribute", 42),
        ("neutral", 43.5),
        ("worst", 51),
        ("impute(4)", 39.75),
        ("required", None),
    ],
)
def test_the_missing_policies_give_what_the_documentation_says(
    library: Library, policy: str, expected: float | None
) -> None:
    assert documented_score(library, state="absent", missing=policy)[0] == expected
    if policy != "required":
        assert documented_score(library, state="stale", missing=policy)[0] == 42


def test_the_documentation_lists_every_shipped_scorecard() -> None:
    text = DOCUMENTATION.read_text("utf-8")
    for name in cards_of("risk") + cards_of("upsell") + cards_of("handoff"):
        assert re.search(rf"\b{name}\b", text), name
