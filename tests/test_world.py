"""The synthetic company: what it must hold for demos, tests and evidence to mean anything."""

import csv
import datetime as dt
import gzip
import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from demo_company import write_company_of_files
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from connectors.pull import pull
from connectors.sandbox.demo import TEMPLATE, write_demo_company
from connectors.sandbox.world import WorldTruth, write_world
from connectors.sandbox.world.outcomes import CHURNED, KINDS, YEARLY_CHURN
from connectors.sandbox.world.writing import NEVER, local_text, offset_seconds
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import read_company
from contracts.errors import InputError
from contracts.tables import TABLES

TODAY = dt.date(2026, 6, 30)
USAGE = "read_parquet('{}/product/usage_*.parquet')"


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A world of full size: its folder and its truth."""
    folder = tmp_path_factory.mktemp("big")
    return folder, write_world(folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small company that reads the world's files: its folder and its truth."""
    home = tmp_path_factory.mktemp("demo") / "company"
    return home, write_company_of_files(home, accounts=150)


def rows_of(file: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter=delimiter))


def objects_of(file: Path) -> list[dict]:
    content = file.read_bytes()
    text = gzip.decompress(content) if file.suffix == ".gz" else content
    return [json.loads(line) for line in text.splitlines()]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def known_outcomes(truth: WorldTruth):
    return truth.futures.outcomes.where(truth.futures.outcomes.day <= truth.today)


def churners(truth: WorldTruth) -> np.ndarray:
    return np.flatnonzero(truth.futures.end_day <= truth.today)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        write_world(tmp_path / name, seed=seed, accounts=80)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one").keys() == digests(tmp_path / "other").keys()
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_a_small_world_takes_seconds_and_a_big_one_stays_small_on_disk(tmp_path, big):
    started = time.process_time()
    write_world(tmp_path, accounts=150)
    assert time.process_time() - started < 5
    assert sum(file.stat().st_size for file in big[0].rglob("*") if file.is_file()) < 60e6


def test_a_world_too_small_for_families_is_refused(tmp_path):
    with pytest.raises(InputError, match="ask for 60 or more"):
        write_world(tmp_path, accounts=10)


def test_a_world_may_end_in_the_middle_of_a_month(tmp_path):
    truth = write_world(tmp_path, accounts=80, today=dt.date(2026, 3, 11))
    last = duckdb.sql(f"SELECT max(date) FROM {USAGE.format(tmp_path)}").fetchone()[0]
    assert last <= dt.date(2026, 3, 11)
    assert known_outcomes(truth).day.max() <= truth.today
    effective = [row["Effective_On"] for row in rows_of(tmp_path / "crm/opportunities.csv", ";")]
    assert max(effective) <= "2026-03-11"


def test_usage_covers_24_months_at_a_realistic_size(big):
    relation = USAGE.format(big[0])
    rows, first, last = duckdb.sql(
        f"SELECT count(*), min(date), max(date) FROM {relation}"
    ).fetchone()
    assert 1_500_000 < rows < 3_000_000
    assert (first, last) == (dt.date(2024, 7, 1), TODAY)


def test_segments_are_mixed_and_overlap_in_size(big):
    population = big[1].population
    shares = np.bincount(population.segment) / len(population)
    np.testing.assert_allclose(shares, (0.15, 0.35, 0.5), atol=0.04)
    for figures in (population.arr, population.employees):
        medians = [np.median(figures[population.segment == code]) for code in range(3)]
        assert medians == sorted(medians, reverse=True)
        for larger in (0, 1):
            low = np.percentile(figures[population.segment == larger], 2)
            assert low < np.percentile(figures[population.segment == larger + 1], 98)


def test_all_four_stages_are_populated_at_every_month_end(big):
    truth = big[1]
    population, futures = truth.population, truth.futures
    for day in range(truth.first_day + 92, truth.today + 1, 30):
        live = population.customer & (population.start_day <= day) & (futures.end_day > day)
        age = day - population.start_day
        term = population.term_months * 30.4375
        renewing = live & (term > 32) & (term - age % term < 90)
        for stage in (
            live & (age < 90),
            live & (age >= 90) & (age < 365),
            live & (age >= 365),
            renewing,
        ):
            assert stage.sum() > 20


@pytest.mark.parametrize("code", [0, 1, 2])
def test_each_segment_loses_about_its_share_of_customers_a_year(big, code):
    truth = big[1]
    own = truth.population.customer & (truth.population.segment == code)
    last = np.minimum(truth.futures.end_day, truth.today)
    years = (last - np.maximum(truth.population.start_day, truth.first_day))[own].sum() / 365
    lost = own[churners(truth)].sum()
    assert lost / years == pytest.approx(YEARLY_CHURN[code], rel=0.3)


def test_most_departures_lie_at_renewals_or_in_monthly_contracts(big):
    truth = big[1]
    gone = known_outcomes(truth)
    gone = gone.where(gone.kind == CHURNED)
    yearly = truth.population.term_months[gone.account] > 1
    assert 0.5 < gone.at_renewal[yearly].mean() < 0.8
    assert not gone.at_renewal[~yearly].any()


def test_every_churned_account_has_one_lost_renewal_and_a_cancelled_subscription(big):
    folder, truth = big
    lost = Counter(
        row["Account_No"]
        for row in rows_of(folder / "crm/opportunities.csv", ";")
        if row["Stage"] == "Closed lost" and row["Effective_On"]
    )
    expected = {truth.population.account_id[i] for i in churners(truth)}
    assert set(lost) == expected
    assert set(lost.values()) == {1}
    cancelled = {
        row["customer"]
        for row in objects_of(folder / "billing/subscriptions.jsonl")
        if row["status"] == "canceled"
    }
    accounts = {
        row["id"]: row["metadata"].get("crm_account_no") or _account_in(row["email"])
        for row in objects_of(folder / "billing/customers.jsonl")
    }
    gone = {accounts[customer] for customer in cancelled}
    population = truth.population
    closed = set(population.account_id[population.last_day <= truth.today])
    assert gone == expected | closed


def _account_in(email: str) -> str:
    return f"ACC-{int(email.split('@')[0].split('.')[1]):05d}"


def test_a_departure_is_told_before_it_takes_effect_and_use_ends_with_it(big):
    folder, truth = big
    gone = churners(truth)
    futures = truth.futures
    assert (futures.notice_day[gone] <= futures.end_day[gone]).all()
    assert (futures.notice_day[gone] > truth.population.start_day[gone]).all()
    workspaces = {
        row["crm_account_no"]: row["workspace_id"]
        for row in rows_of(folder / "product/workspaces.csv")
        if row["crm_account_no"]
    }
    last = dict(
        duckdb.sql(
            f"SELECT workspace_id, max(date) FROM {USAGE.format(folder)} GROUP BY 1"
        ).fetchall()
    )
    checked = 0
    for account in gone.tolist():
        day = last.get(workspaces.get(truth.population.account_id[account]))
        if day is not None:
            assert (day - dt.date(1970, 1, 1)).days <= futures.end_day[account]
            checked += 1
    assert checked > 100


def test_some_leave_without_any_sign_in_their_use_and_some_bad_looking_ones_stay(big):
    truth = big[1]
    gone = churners(truth)
    silent = truth.futures.fade_day[gone] >= NEVER
    assert 0.25 < silent.mean() < 0.5
    _, _, usage, left, _ = panel(*big)
    quiet = usage[:, 1] < np.quantile(usage[:, 1], 0.05)
    assert left[quiet].mean() < 0.5


def panel(folder: Path, truth: WorldTruth):
    """Live customers at month-ends: causes, total use, features of it, left in 90 days, early."""
    population, causes, futures = truth.population, truth.causes, truth.futures
    number = {account: i for i, account in enumerate(population.account_id)}
    by_domain = {"app." + domain: i for i, domain in enumerate(population.domain)}
    owner = {
        row["workspace_id"]: number.get(row["crm_account_no"], by_domain.get(row["signup_domain"]))
        for row in rows_of(folder / "product/workspaces.csv")
    }
    found = duckdb.sql(
        f"SELECT workspace_id, date, sum(n) AS n FROM {USAGE.format(folder)} "
        "WHERE n > 0 AND event_name <> 'storage_gb' GROUP BY ALL"
    ).fetchnumpy()
    use = np.zeros((len(population), truth.today - truth.first_day + 2))
    rows = np.array([owner[workspace] for workspace in found["workspace_id"]])
    days = found["date"].astype("datetime64[D]").astype(np.int64) - truth.first_day
    np.add.at(use, (rows, days + 1), found["n"])
    use = np.cumsum(use, axis=1)
    parts = []
    for day in range(truth.first_day + 180, truth.today - 89, 30):
        own = np.flatnonzero(
            population.customer & (population.start_day < day - 30) & (futures.end_day > day)
        )
        at, week = day - truth.first_day + 1, causes.week_of(np.array([day]))[0]
        month = use[own, at] - use[own, at - 28]
        before = (use[own, at - 28] - use[own, at - 84]) / 2
        term = population.term_months[own] * 30.4375
        soon = (term > 32) & (term - (day - population.start_day[own]) % term < 90)
        known = np.column_stack([np.eye(3)[population.segment[own]], soon, term < 32])
        hidden = (causes.value, causes.champion, causes.pressure)
        parts.append((
            np.column_stack([known, causes.fit[own], *(cause[own, week] for cause in hidden)]),
            month,
            np.column_stack([np.log1p(month / population.seats[own]),
                             np.log1p(month) - np.log1p(before), np.log1p(month), known]),
            futures.end_day[own] <= day + 90,
            np.full(len(own), day < truth.first_day + 420),
        ))  # fmt: skip
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def out_of_time_auc(features, left, early) -> float:
    """Learn on the early days, judge on the late ones."""
    scaled = StandardScaler().fit_transform(features)
    model = LogisticRegression(max_iter=1000).fit(scaled[early], left[early])
    return roc_auc_score(left[~early], model.decision_function(scaled[~early]))


def test_causes_predict_departures_well_but_not_perfectly_and_signals_less_well(big):
    causes, total, usage, left, early = panel(*big)
    hidden, seen = out_of_time_auc(causes, left, early), out_of_time_auc(usage, left, early)
    assert 0.82 < hidden < 0.95
    assert 0.70 < seen < 0.88
    assert seen < hidden
    assert 0.55 < roc_auc_score(left, -total) < 0.80


def test_causes_act_before_outcomes(big):
    """The push to leave, taken from causes 20 and 60 days earlier, is stronger where one leaves."""
    truth = big[1]
    gone = known_outcomes(truth)
    gone = gone.where(gone.kind == CHURNED)
    month = np.searchsorted(truth.futures.month_days, gone.day, side="right") - 1
    assert truth.futures.risk[gone.account, month].mean() > 0.5
    assert abs(truth.futures.risk.mean()) < 0.01


def test_no_file_holds_a_cause_or_the_truth(big):
    names = set()
    for file in big[0].rglob("*.csv"):
        with file.open(encoding="utf-8") as stream:
            names |= {
                name.strip('"').lower() for name in re.split("[,;]", stream.readline().strip())
            }
    for file in big[0].rglob("*.parquet"):
        names |= {name.lower() for name in pq.read_schema(file).names}
    for file in (*big[0].rglob("*.jsonl"), *big[0].rglob("*.jsonl.gz")):
        names |= set(objects_of(file)[0])
    assert "workspace_id" in names
    assert "account_no" in names
    hidden = {"value", "fit", "pressure", "champion", "risk", "habit", "segment", "end_day",
              "fade_day", "squeeze_day", "chance", "truth", "cause", "health"}  # fmt: skip
    assert not names & hidden
    assert {path.name for path in big[0].iterdir()} == {
        "product", "helpdesk", "billing", "crm", "surveys", "news", "finance",
    }  # fmt: skip


def test_outcomes_of_all_four_kinds_happen_in_every_segment(big):
    outcomes, segment = known_outcomes(big[1]), big[1].population.segment
    counts = Counter(zip(outcomes.kind.tolist(), segment[outcomes.account].tolist(), strict=True))
    assert len(counts) == len(KINDS) * 3
    assert min(counts.values()) >= 10


def test_families_merges_prospects_and_unlinked_accounts_are_there(demo):
    home, truth = demo
    crm, population = home / "sandbox/world/crm", truth.population
    assert sum(bool(row["Parent_Account"]) for row in rows_of(crm / "accounts.csv", ";")) >= 2
    changes = rows_of(crm / "account_changes.csv", ";")
    assert sum(bool(row["Merged_Into"]) for row in changes) == 1
    assert sum(row["Deleted"] == "yes" for row in changes) == 1
    assert {row["Status"] for row in changes} == {"Customer", "Prospect", "Former customer"}
    customers = ~population.prospect
    assert (customers & ~population.has_workspace).any()
    assert (population.has_workspace & ~population.has_help_desk).any()
    ids = Counter(
        row["metadata"].get("crm_account_no")
        for row in objects_of(home / "sandbox/world/billing/customers.jsonl")
    )
    del ids[None]
    assert sorted(ids.values())[-2:] == [1, 2]
    small = population.shares_domain & (population.segment == 2)
    assert small.sum() == 2


def test_both_currencies_have_rows_and_dollars_have_a_rate_for_every_day(demo):
    home, truth = demo
    files = home / "sandbox" / "world"
    found = Counter(row["currency"] for row in objects_of(files / "billing/invoices.jsonl.gz"))
    assert found["eur"] > 50
    assert found["usd"] > 50
    days = [row["date"] for row in rows_of(files / "finance/exchange_rates.csv")]
    assert len(set(days)) == len(days) == truth.today - truth.first_day + 61


def test_times_are_local_where_people_keep_them_local():
    winter, summer = np.array([1_736_942_400, 1_752_580_800])  # 12:00 UTC in January and in July
    instants = np.array([winter, summer, NEVER])
    berlin = local_text(instants, "Europe/Berlin", with_offset=False, separator=" ")
    assert berlin.tolist() == ["2025-01-15 13:00:00", "2025-07-15 14:00:00", None]
    new_york = local_text(instants, "America/New_York", with_offset=True)
    assert new_york.tolist() == ["2025-01-15T07:00:00-05:00", "2025-07-15T08:00:00-04:00", None]
    # The clocks of Berlin go forward at 01:00 UTC on 2025-03-30.
    assert offset_seconds(np.array([1_743_296_399, 1_743_296_400]), "Europe/Berlin").tolist() == [
        3600, 7200,
    ]  # fmt: skip


def test_a_later_usage_file_restates_earlier_days(demo):
    world = demo[0] / "sandbox/world"
    files = USAGE.format(world).replace(".parquet')", ".parquet', filename = true)")
    late, more = duckdb.sql(
        f"SELECT count(*), count(*) FILTER (new.n > old.n) FROM {files} AS new JOIN {files} AS old "
        "USING (workspace_id, date, event_name) "
        "WHERE new.filename > old.filename AND new.n > 0 AND old.n > 0"
    ).fetchone()
    assert late > 20
    assert late == more


@pytest.fixture(scope="module")
def built(demo):
    """The demo company, pulled and built: the warehouse and the report of the build."""
    company = read_company(demo[0])
    sources = read_sources(company)
    now = company.end_of(TODAY)
    for source in sources:
        pull(source, company, now=now)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection, build(connection, company, sources, now=now)


def test_every_table_of_the_demo_is_filled_and_only_a_little_of_it_is_refused(built):
    _, report = built
    assert {table.table for table in report.tables} == set(TABLES)
    for table in report.tables:
        assert table.mode == "full", table
        assert table.rows > 10, table
        assert table.quarantined <= max(4, 0.01 * table.rows_read), table
    assert all("set aside" in warning for warning in report.warnings)


def test_every_kind_of_dirt_reaches_the_quarantine(built):
    told = {row[0] for row in built[0].execute("SELECT reason FROM signals.quarantine").fetchall()}
    assert {
        "count: below 0",
        "seats: below 0",
        "currency: not an ISO 4217 code",
        "issued_at: lies in the future",
        "opened_at: lies in the future",
        "opened_at: not a TIMESTAMP",
        "ticket_id: missing",
        "account_key: missing",
        "measured_at: missing",
    } <= told


def test_keys_are_linked_in_every_way_and_a_shared_domain_is_left_ambiguous(built):
    connection, report = built
    methods = dict(
        connection.execute(
            "SELECT source, list(DISTINCT method) FROM signals.account_keys GROUP BY 1"
        ).fetchall()
    )
    assert set(methods["product"]) == {"explicit", "domain"}
    assert set(methods["helpdesk"]) == {"explicit", "domain"}
    assert set(methods["billing"]) == {"explicit", "email_domain"}
    assert set(methods["surveys"]) == {"explicit", "email_domain"}
    assert methods["news"] == ["domain"]
    reasons = set(
        connection.execute("SELECT DISTINCT source, reason FROM signals.unmatched").fetchall()
    )
    assert {("helpdesk", "ambiguous"), ("surveys", "no_candidate")} <= reasons
    assert min(identity.key_share for identity in report.identity) > 0.9


def test_the_merged_account_and_the_second_billing_id_lead_to_one_account(demo, built):
    population = demo[1].population
    merged = int(np.flatnonzero(population.merged_into >= 0)[0])
    heir = population.account_id[population.merged_into[merged]]
    keys = (
        built[0]
        .execute(
            "SELECT account_id, list(account_key) FROM signals.account_keys "
            "WHERE source = 'billing' GROUP BY 1 HAVING count(*) > 1"
        )
        .fetchall()
    )
    assert len(keys) == 2
    assert heir in {account for account, _ in keys}
    assert any(len({name.rstrip("b") for name in names}) == 1 for _, names in keys)


def test_the_outcomes_that_the_crm_tells_are_the_true_ones(demo, built):
    truth = demo[1]
    rows = (
        built[0]
        .execute(
            "SELECT account_id, kind, day, mrr_delta FROM signals.outcomes "
            "WHERE superseded_at IS NULL"
        )
        .fetchall()
    )
    outcomes = known_outcomes(truth)
    days = outcomes.day.astype("datetime64[D]").tolist()
    deltas = (outcomes.arr_after - outcomes.arr_before) / 12
    accounts = truth.population.account_id[outcomes.account]
    names = np.array(KINDS)[outcomes.kind].tolist()
    expected = dict(zip(zip(accounts, names, days, strict=True), deltas, strict=True))
    found = {(account, kind, day): float(delta) for account, kind, day, delta in rows}
    assert len(rows) == len(found)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=0.01)


def test_a_customers_revenue_is_the_same_in_the_crm_and_in_billing(built):
    different, all_of_them = (
        built[0]
        .execute(
            "WITH paid AS (SELECT account_id, sum(mrr) AS mrr FROM signals.subscriptions "
            "WHERE superseded_at IS NULL AND status = 'active' GROUP BY 1 HAVING count(*) = 1) "
            "SELECT count(*) FILTER (abs(arr::DOUBLE / 12 - mrr) > 0.01), count(*) "
            "FROM paid JOIN signals.accounts USING (account_id) "
            "WHERE accounts.superseded_at IS NULL AND is_customer"
        )
        .fetchone()
    )
    assert all_of_them > 80
    assert different == 0


def test_a_champion_who_left_is_known_only_when_somebody_noticed(built):
    early, late = (
        built[0]
        .execute(
            "SELECT count(*) FILTER (known_at < occurred_at), "
            "count(*) FILTER (known_at > occurred_at + INTERVAL 7 DAY) "
            "FROM signals.commercial_events WHERE kind = 'champion_left'"
        )
        .fetchone()
    )
    assert early == 0
    assert late > 5


def test_the_demo_is_left_alone_when_it_is_there_and_refused_when_it_is_another(tmp_path):
    home = tmp_path / "company"
    assert write_demo_company(home, accounts=60) is not None
    (home / "company.yaml").write_text("name: edited\n", encoding="utf-8")
    assert write_demo_company(home, accounts=60) is None
    assert (home / "company.yaml").read_text(encoding="utf-8") == "name: edited\n"
    with pytest.raises(InputError, match="holds another demo"):
        write_demo_company(home, accounts=61)


def test_an_interrupted_demo_is_made_again(tmp_path):
    home = tmp_path / "company"
    write_demo_company(home, accounts=60)
    marker = home / ".demo"
    marker.write_text(marker.read_text().replace("true", "false"), encoding="utf-8")
    (home / "sandbox/world/crm/accounts.csv").write_text("half", encoding="utf-8")
    assert write_demo_company(home, accounts=60) is not None
    assert len(rows_of(home / "sandbox/world/crm/accounts.csv", ";")) == 60


def test_a_folder_that_is_not_a_demo_is_refused_and_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="not a demo company; name a folder"):
        write_demo_company(tmp_path, accounts=60)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_day_moves_the_demos_clock_and_its_history(tmp_path):
    home = tmp_path / "company"
    write_demo_company(home, accounts=60, today=dt.date(2026, 3, 31))
    settings = read_company(home).settings
    assert settings.today == dt.date(2026, 3, 31)
    assert settings.history_start == dt.date(2024, 7, 2)
    assert read_company(TEMPLATE).settings.history_start == dt.date(2024, 10, 1)
