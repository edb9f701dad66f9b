"""The examples on third-party data: their configuration always, their data where it is at hand."""

import datetime as dt
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from connectors.pull import pull
from connectors.signals import build
from connectors.sources import check_sources, read_sources
from contracts.company import Company, check_company, read_company
from examples import evaluate
from orchestration.resources import warehouse_of
from scoring import metrics, scores
from scoring.library import check_library, read_library

pytestmark = pytest.mark.xdist_group("examples")  # each is run once, by one worker
ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("HEALTHLOOP_SHARED_DATA") or ROOT.parent / "shared" / "data")
NOW = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
EXAMPLES = {"crm_saas": "CRM_SAAS_DATA", "compliance_saas": "COMPLIANCE_SAAS_DATA"}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not (DATA / name).is_dir(),
        reason=f"the third-party data set {name} is not here; name the folder that holds it in "
        "HEALTHLOOP_SHARED_DATA",
    )


def copy_of(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Company:
    monkeypatch.setenv(EXAMPLES[name], str(DATA / name))
    home = folder / name
    shutil.copytree(ROOT / "examples" / name, home, ignore=shutil.ignore_patterns("state"))
    return read_company(home)


def pull_and_build(company: Company, connection: duckdb.DuckDBPyConnection) -> None:
    sources = read_sources(company)
    for source in sources:
        pull(source, company, now=company.now(NOW))
    build(connection, company, sources, now=company.now(NOW))


# Configuration


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_no_mistake_and_no_warning(name):
    company, _, problems = check_company(ROOT / "examples" / name)
    assert not problems
    _, of_sources = check_sources(company)
    library, of_library = check_library(company)
    assert [str(problem) for problem in [*of_sources, *of_library]] == []
    assert not library.warnings


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_has_its_own_scorecards_with_a_default_and_two_lines_of_belief(name):
    library = read_library(read_company(ROOT / "examples" / name))
    for score in ("risk", "upsell"):
        cards = [named.card for named in library.scorecards if named.card.score == score]
        assert sum(card.applies_to.specificity == 0 for card in cards) == 1
        assert len(cards) >= 3
        assert all(len(card.believes.strip().splitlines()) == 2 for card in cards)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_holds_no_data(name):
    endings = {".yaml", ".sql", ".md"}
    files = [path for path in (ROOT / "examples" / name).rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "state" not in path.parts} == endings


# Evaluation


def test_the_auc_counts_right_pairs_and_half_of_the_ties():
    happened = np.array([True, True, False, False])
    assert evaluate.auc(happened, np.array([2.0, 3.0, 1.0, 3.0])) == pytest.approx(0.625)
    assert evaluate.auc(happened, np.array([3.0, 4.0, 1.0, 2.0])) == 1.0
    assert evaluate.auc(happened, np.array([1.0, 2.0, 3.0, 4.0])) == 0.0
    assert evaluate.auc(happened, np.ones(4)) == 0.5


def test_the_auc_is_that_of_scikit_learn_also_with_weights_and_ties():
    random = np.random.default_rng(1)
    happened = random.random(300) < 0.2
    values = np.round(random.normal(size=300) + happened, 1)
    weights = random.integers(0, 4, size=(3, 300)).astype(float)
    assert evaluate.auc(happened, values)[0] == pytest.approx(roc_auc_score(happened, values))
    for row, found in zip(weights, evaluate.auc(happened, values, weights), strict=True):
        expected = roc_auc_score(happened, values, sample_weight=row)
        assert found == pytest.approx(expected)


def test_an_auc_without_an_event_is_no_number():
    assert np.isnan(evaluate.auc(np.array([False, False]), np.array([1.0, 2.0]))[0])


def sample_of(accounts: int, repeats: int = 1) -> tuple[np.ndarray, dict, np.ndarray]:
    random = np.random.default_rng(2)
    happened = random.random(accounts) < 0.3
    signal = random.normal(size=accounts) + happened
    predictors = {evaluate.SCORE: signal, evaluate.USAGE: random.normal(size=accounts)}
    tiled = {name: np.tile(values, repeats) for name, values in predictors.items()}
    return np.tile(happened, repeats), tiled, np.tile(np.arange(accounts), repeats)


def test_an_interval_holds_its_figure_and_narrows_with_more_accounts():
    few = evaluate.estimates(*sample_of(100))[evaluate.SCORE]
    many = evaluate.estimates(*sample_of(2000))[evaluate.SCORE]
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_repeated_months_of_the_same_accounts_do_not_narrow_an_interval():
    once = evaluate.estimates(*sample_of(100))[evaluate.SCORE]
    twelve_times = evaluate.estimates(*sample_of(100, repeats=12))[evaluate.SCORE]
    assert twelve_times.high - twelve_times.low == pytest.approx(once.high - once.low, rel=0.1)


def test_the_interval_has_the_width_that_theory_gives():
    happened, predictors, accounts = sample_of(1000)
    found = evaluate.estimates(happened, predictors, accounts)[evaluate.SCORE]
    # DeLong, DeLong and Clarke-Pearson 1988: the variance of the mean placements of each side.
    values = predictors[evaluate.SCORE]
    above = values[happened][:, None] > values[~happened][None, :]
    deviation = np.sqrt(
        above.mean(axis=1).var(ddof=1) / happened.sum()
        + above.mean(axis=0).var(ddof=1) / (~happened).sum()
    )
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)


def test_the_same_data_gives_the_same_intervals_and_a_paired_difference():
    first, second = evaluate.estimates(*sample_of(200)), evaluate.estimates(*sample_of(200))
    assert first == second
    difference = first[f"{evaluate.SCORE} - {evaluate.USAGE}"]
    assert difference.value == pytest.approx(
        first[evaluate.SCORE].value - first[evaluate.USAGE].value
    )
    assert difference.low > 0


def test_no_auc_is_claimed_from_fewer_than_ten_events():
    happened = np.arange(500) < 9
    values = np.arange(500.0)
    assert evaluate.estimates(happened, {evaluate.SCORE: values}, np.arange(500)) == {}


# On the data


DAYS = [dt.date(2022, 6, 30), dt.date(2023, 9, 30)]


def score_days(company: Company, days: list[dt.date]) -> None:
    library = read_library(company)
    with warehouse_of(company).get_connection() as connection:
        pull_and_build(company, connection)
        for day in days:
            as_of = metrics.AsOf.of(company, day)
            metrics.compute(connection, library, as_of)
            scores.compute(connection, library, as_of)


@pytest.fixture(scope="module")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CRM example, pulled, built and scored on two month-ends."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        company = copy_of("crm_saas", tmp_path_factory.mktemp("home"), monkeypatch)
        score_days(company, DAYS)
    return company.home


def ask(home: Path, query: str, *parameters: object) -> list[tuple]:
    with warehouse_of(read_company(home), read_only=True).get_connection() as connection:
        return connection.execute(query, list(parameters)).fetchall()


@needs("crm_saas")
def test_the_crm_example_scores_whoever_is_a_customer_at_each_month_end(crm):
    customers = ask(
        crm,
        "SELECT d.day, count(DISTINCT c.account_id) FROM unnest(?::DATE[]) AS d(day) "
        f"JOIN '{DATA}/crm_saas/contracts.parquet' AS c ON c.start_date <= d.day "
        f"LEFT JOIN '{DATA}/crm_saas/churn_events.parquet' AS e USING (account_id) "
        "WHERE e.churn_date IS NULL OR e.churn_date > d.day GROUP BY 1 ORDER BY 1",
        DAYS,
    )
    for score in ("risk", "upsell"):
        scored = ask(
            crm,
            "SELECT as_of, count(*) FROM scores.scores WHERE score = ? AND value IS NOT NULL "
            "GROUP BY 1 ORDER BY 1",
            score,
        )
        assert scored == customers


@needs("crm_saas")
def test_use_after_the_last_recorded_contract_is_refused(crm):
    refused = ask(crm, 'SELECT DISTINCT source, "table", reason FROM signals.quarantine')
    assert refused == [("product", "usage_daily", "day: lies in the future")]


@needs("crm_saas")
def test_a_replay_scores_as_if_nothing_after_the_day_had_been_written_yet(
    crm, tmp_path, monkeypatch
):
    day = DAYS[0]
    dated = {
        "accounts": "start_date", "contracts": "start_date", "billing_monthly": "month_end",
        "plan_changes": "change_date", "churn_events": "churn_date", "daily_usage": "date",
    }  # fmt: skip
    past = tmp_path / "past"
    past.mkdir()
    for name, column in dated.items():
        file = f"crm_saas/{name}.parquet"
        duckdb.execute(
            f"COPY (FROM '{DATA / file}' WHERE {column} <= DATE '{day}') "
            f"TO '{past / name}.parquet' (FORMAT parquet)"
        )
    company = copy_of("crm_saas", tmp_path, monkeypatch)
    monkeypatch.setenv("CRM_SAAS_DATA", str(past))
    settings = company.home / "company.yaml"
    settings.write_text(settings.read_text().replace("today: 2024-01-01", f"today: {day}"))
    then = read_company(company.home)
    assert then.settings.today == day
    score_days(then, [day])
    query = (
        "SELECT account_id, score, scorecard, segment, stage, value, band, low, high, coverage, "
        "arr FROM scores.scores WHERE as_of = ? ORDER BY account_id, score"
    )
    assert ask(then.home, query, day) == ask(crm, query, day) != []


@needs("crm_saas")
def test_the_evaluation_prints_bands_figures_and_its_reservation(crm):
    page = "\n".join(evaluate.report(read_company(crm)))
    assert "This is association on past data" in page
    assert f"| {DAYS[0]} |" in page
    assert "too few" not in page.partition("## Upsell")[0].partition("| pooled |")[0]
    assert "use of 28 days" in page
    assert "days to renewal" in page


@needs("crm_saas")
def test_months_whose_ninety_days_are_not_over_are_marked_and_left_out(crm):
    with warehouse_of(read_company(crm), read_only=True).get_connection() as connection:
        last = DAYS[1] + dt.timedelta(days=evaluate.HORIZON_DAYS)
        over = evaluate.read_sample(connection, "risk", last)
        short = evaluate.read_sample(connection, "risk", last - dt.timedelta(days=1))
    assert over.complete.all()
    assert set(short.days[~short.complete]) == {DAYS[1]}
    assert "not over" in "\n".join(evaluate.monthly_table("risk", short))


@pytest.fixture(scope="module")
def compliance(tmp_path_factory) -> Path:
    """The compliance example without the product's 3.8 million events, pulled and built."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        company = copy_of("compliance_saas", tmp_path_factory.mktemp("home"), monkeypatch)
        (company.home / "sources" / "product.yaml").unlink()
        shutil.rmtree(company.home / "sources" / "product")
        with warehouse_of(company).get_connection() as connection:
            pull_and_build(company, connection)
    return company.home


@needs("compliance_saas")
def test_open_opportunities_and_impossible_outreach_are_refused_with_the_reason(compliance):
    refused = ask(
        compliance,
        'SELECT source, "table", reason, count(*) FROM signals.quarantine GROUP BY ALL ORDER BY 1',
    )
    assert refused == [
        ("outreach", "commercial_events", "occurred_at: missing", 20),
        ("sales", "opportunities", "created_at: missing", 1436),
    ]
    stages = ask(compliance, "SELECT DISTINCT stage FROM signals.opportunities ORDER BY 1")
    assert stages == [("closed_lost",), ("closed_won",)]


@needs("compliance_saas")
def test_plan_and_price_without_a_date_are_known_only_since_the_export(compliance):
    (known,) = ask(
        compliance,
        "SELECT min(known_at) FILTER (WHERE plan IS NOT NULL), "
        "min(known_at) FILTER (WHERE arr IS NOT NULL), min(known_at) FROM signals.accounts",
    )
    exported = dt.datetime(2026, 3, 14, 23, 59, 59)
    assert known[:2] == (exported, exported)
    assert known[2] == dt.datetime(2023, 1, 2)


@needs("compliance_saas")
def test_risk_signals_without_a_date_say_nothing_about_earlier_days(compliance):
    for table, kind in (("goals", "true"), ("commercial_events", "kind = 'vendor_flags_seen'")):
        days = ask(compliance, f"SELECT DISTINCT day FROM signals.{table} WHERE {kind}")
        assert days == [(dt.date(2026, 3, 14),)]


@needs("compliance_saas")
def test_a_customer_is_one_until_the_day_of_churn_and_not_after(compliance):
    (row,) = ask(
        compliance,
        "SELECT count(*), "
        "count(*) FILTER (WHERE a.known_at <> date_trunc('day', o.at) + INTERVAL 1 DAY) "
        "FROM signals.outcomes AS o JOIN (SELECT account_id, min(known_at) AS known_at "
        "FROM signals.accounts WHERE is_customer IS FALSE GROUP BY 1) AS a USING (account_id) "
        "WHERE o.kind = 'churned'",
    )
    assert row == (1766, 0)


@needs("compliance_saas")
def test_a_solution_that_lies_after_the_export_is_hidden_by_the_contract(compliance):
    company = read_company(compliance)
    day = company.settings.today
    library = read_library(company)
    with warehouse_of(company).get_connection() as connection:
        metrics.compute(connection, library, metrics.AsOf.of(company, day))
        (found,) = connection.execute(
            "SELECT sum(value) FROM metrics.metric_values "
            "WHERE as_of = ? AND metric = 'open_tickets'",
            [day],
        ).fetchone()
        (expected,) = connection.execute(
            "SELECT count(*) FROM signals.tickets AS t JOIN metrics.accounts AS a "
            "ON a.account_id = t.account_id AND a.as_of = ? WHERE t.solved_at > '2026-03-15'",
            [day],
        ).fetchone()
    assert found == expected > 0


@needs("compliance_saas")
def test_every_customer_is_linked_to_every_source_whether_it_has_rows_or_not(compliance):
    linked = ask(
        compliance,
        "SELECT source, count(DISTINCT account_id) FROM signals.account_keys "
        "WHERE source <> 'customers' GROUP BY 1 ORDER BY 1",
    )
    assert linked == [(name, 5500) for name in ("outreach", "risk", "sales", "support")]
