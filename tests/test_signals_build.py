"""Building signals: incremental equals rebuilt, late and vanished rows, failures and crashes."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from signals_helpers import ACCOUNTS, NOW, Case, account, at

from connectors.signals import build, record_health
from contracts.errors import ConfigurationError

USAGE = "SELECT who AS account_key, day, what AS event, n AS count FROM raw_app.events"
PLANS = (
    "SELECT who AS account_key, id AS subscription_id, started AS started_at, mrr, "
    "'EUR' AS currency, gone AS deleted FROM raw_billing.plans"
)
SUMMED = (
    "SELECT who AS account_key, local_day(ts) AS day, 'click' AS event, sum(n) AS count "
    "FROM raw_app.clicks GROUP BY ALL"
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = Case(tmp_path)
    made.declare("crm", ["accounts"], accounts=ACCOUNTS)
    made.load("crm", at(1), accounts=[account("a"), account("b")])
    return made


def use(who: str, day: str, n: int, what: str = "x") -> dict:
    return {"who": who, "day": day, "what": what, "n": n}


def plan(key: str, mrr: float, who: str = "a", gone: bool | None = None) -> dict:
    return {"who": who, "id": key, "started": at(1, 5), "mrr": mrr, "gone": gone}


def mode(report, table: str) -> str:
    return next(t.mode for t in report.tables if t.table == table)


def test_an_unchanged_lake_builds_nothing(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(1), events=[use("a", "2026-05-01", 1)])
    first = case.build()
    before = case.tables()
    second = case.build()
    assert (mode(first, "usage_daily"), mode(second, "usage_daily")) == ("full", "unchanged")
    assert first.changed
    assert not second.changed
    assert case.tables() == before


def test_f28_a_late_row_is_known_from_its_load_on_and_history_from_its_own_day(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.build()
    case.load("app", at(20), events=[use("a", "2026-05-02", 1), use("a", "2026-05-01", 7)])
    assert mode(case.build(), "usage_daily") == "incremental"
    assert case.rows(
        "SELECT day, count, known_at, superseded_at FROM signals.usage_daily ORDER BY day, known_at"
    ) == [
        (dt.date(2026, 5, 1), 1, at(2, 5), at(20)),
        (dt.date(2026, 5, 1), 7, at(20), None),
        (dt.date(2026, 5, 2), 1, at(20), None),
    ]


def test_the_end_of_a_day_is_the_end_of_the_companys_day(tmp_path: Path) -> None:
    case = Case(tmp_path, "time_zone: America/New_York\n")
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.build()
    assert case.rows("SELECT known_at FROM signals.usage_daily") == [(at(2, 5, hour=4),)]


def test_duplicates_become_one_row_and_of_several_the_last_wins(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    rows = [use("a", "2026-05-01", n) for n in (3, 4, 4)]
    case.load("app", at(10), events=rows)
    case.load("app", at(11), events=rows[1:])
    case.build()
    assert case.rows("SELECT count, known_at, superseded_at FROM signals.usage_daily") == [
        (4, at(2, 5), None)
    ]


def test_a_deleted_row_ends_its_predecessor_and_is_kept_as_deleted(case: Case) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), plans=[plan("p", 5.0)])
    case.load("billing", at(12), plans=[plan("p", 5.0, gone=True)])
    case.build()
    assert case.rows(
        "SELECT deleted, known_at, superseded_at FROM signals.subscriptions ORDER BY known_at"
    ) == [(None, at(1, 5), at(12)), (True, at(12), None)]


def test_rows_that_vanish_from_a_whole_file_end_and_may_come_back(case: Case) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    both = [plan("p", 5.0), plan("q", 6.0)]
    for day, rows in ((10, both), (12, both[:1]), (14, both)):
        case.load("billing", at(day), whole=True, plans=rows)
        case.build()
    assert case.rows(
        "SELECT subscription_id, known_at, superseded_at FROM signals.subscriptions ORDER BY ALL"
    ) == [("p", at(1, 5), None), ("q", at(1, 5), at(12)), ("q", at(14), None)]


def test_a_row_that_moves_to_another_file_does_not_vanish(case: Case) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    p, q = plan("p", 5.0), plan("q", 6.0)
    case.load("billing", at(10), whole=True, plans={"one.csv": [p, q], "two.csv": [p]})
    case.load("billing", at(12), whole=True, plans={"one.csv": [p], "two.csv": [p, q]})
    case.build()
    assert case.rows("SELECT count(*), count(superseded_at) FROM signals.subscriptions") == [(2, 0)]


def test_a_file_that_became_empty_keeps_its_rows_and_is_suspect(case: Case) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), whole=True, plans=[plan("p", 5.0)])
    case.load("billing", at(12), whole=True, plans=[])
    report = case.build()
    assert case.rows("SELECT count(*) FROM signals.subscriptions WHERE superseded_at IS NULL") == [
        (1,)
    ]
    health = next(h for h in report.health if h.source == "billing")
    assert (health.status, health.reason) == (
        "suspect", "'plans.csv' had rows and now has none; the old are kept"
    )  # fmt: skip


def test_an_aggregating_mapping_follows_the_latest_state(case: Case) -> None:
    case.declare("app", ["clicks"], usage_daily=SUMMED)
    case.load("app", at(10), clicks=[{"who": "a", "ts": at(1, 5, hour=h), "n": 1} for h in (1, 2)])
    case.build()
    case.load("app", at(12), clicks=[{"who": "a", "ts": at(1, 5, hour=5), "n": 1}])
    case.build()
    assert case.rows(
        "SELECT count, known_at, superseded_at FROM signals.usage_daily ORDER BY 1"
    ) == [
        (2, at(2, 5), at(12)),
        (3, at(12), None),
    ]


def test_a_stream_with_rebuild_by_computes_only_the_days_that_new_rows_touch(case: Case) -> None:
    case.declare("app", ["clicks"], usage_daily=SUMMED)

    def click(day: int, hour: int = 1) -> dict:
        return {"who": "a", "ts": at(day, 5, hour=hour), "n": 1}

    def run(target: Case, rebuild_by: str | None) -> tuple[list[tuple], int]:
        sources = target.sources
        app = next(source for source in sources if source.name == "app")
        app.streams["clicks"] = SimpleNamespace(rebuild_by=rebuild_by)
        report = build(target.connection, target.company, sources, now=NOW)
        usage = next(table for table in report.tables if table.table == "usage_daily")
        return target.rows("FROM signals.usage_daily ORDER BY ALL"), usage.rows_read

    case.load("app", at(10), clicks=[click(day) for day in range(1, 29)])
    assert run(case, "ts")[1] == 28
    case.load("app", at(11), clicks=[click(15, hour=7)])
    rows, read = run(case, "ts")
    assert read == 3  # the day itself and, for other time zones, the days beside it
    assert rows == run(case.fresh(), None)[0]


def test_data_that_lies_in_the_companys_own_warehouse_is_mapped_in_place(case: Case) -> None:
    folder = case.home / "own"
    folder.mkdir()
    (case.home / "sources" / "dwh.yaml").write_text(
        "type: attached\nlocation: own\nstreams: {usage: {files: 'usage.parquet'}}\n"
    )
    (case.home / "sources" / "dwh").mkdir()
    (case.home / "sources" / "dwh" / "usage_daily.sql").write_text(
        "SELECT who AS account_key, day, 'x' AS event, n AS count FROM raw_dwh.usage"
    )

    def write(*rows: tuple[str, int]) -> None:
        values = ", ".join(f"('a', DATE '{day}', {n})" for day, n in rows)
        case.connection.execute(
            f"COPY (FROM (VALUES {values}) t(who, day, n)) TO '{folder / 'usage.parquet'}'"
        )

    write(("2026-05-01", 1), ("2026-05-02", 1))
    case.build(now=at(10))
    write(("2026-05-01", 5))
    case.build(now=at(11))
    assert case.rows(
        "SELECT day, count, known_at, superseded_at FROM signals.usage_daily ORDER BY ALL"
    ) == [
        (dt.date(2026, 5, 1), 1, at(2, 5), at(11)),
        (dt.date(2026, 5, 1), 5, at(11), None),
        (dt.date(2026, 5, 2), 1, at(3, 5), at(11)),
    ]


def test_raw_views_show_the_latest_state_to_people(case: Case) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), whole=True, plans=[plan("p", 5.0), plan("q", 5.0)])
    case.load("billing", at(12), whole=True, plans=[plan("p", 6.0)])
    case.build()
    assert case.rows("SELECT id, mrr FROM raw_billing.plans") == [("p", 6.0)]


def test_a_changed_mapping_is_built_anew(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.build()
    case.declare("app", ["events"], usage_daily=USAGE.replace("n AS", "n * 2 AS"))
    assert mode(case.build(), "usage_daily") == "full"
    assert case.rows("SELECT count FROM signals.usage_daily") == [(2,)]


def test_a_mapping_taken_away_takes_its_rows_along(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE, user_days=(
        "SELECT who AS account_key, what AS user_key, day FROM raw_app.events"))  # fmt: skip
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.build()
    (case.home / "sources" / "app" / "user_days.sql").unlink()
    case.build()
    assert case.rows("SELECT count(*) FROM signals.user_days") == [(0,)]
    assert ("user_days", "app") not in case.rows("FROM signals.feeds")


def test_a_column_that_vanished_holds_the_source_and_its_good_values(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.build()
    renamed = use("a", "2026-05-02", 1)
    renamed["number"] = renamed.pop("n")
    case.load("app", at(11), events=[renamed])
    case.load("billing", at(11), plans=[plan("p", 5.0)])
    report = case.build()
    assert mode(report, "usage_daily") == "held"
    assert mode(report, "subscriptions") == "full"
    assert case.rows("SELECT day, count FROM signals.usage_daily") == [(dt.date(2026, 5, 1), 1)]
    status, reason = case.rows(
        "SELECT status, reason FROM signals.source_health WHERE source = 'app'"
        " ORDER BY checked_at DESC LIMIT 1"
    )[0]
    assert status == "suspect"
    assert "column 'n' of raw_app.events" in reason
    assert "sources/app/usage_daily.sql" in reason
    fresh = case.fresh()
    fresh.build()
    assert fresh.tables() == case.tables()


def test_a_column_that_an_export_leaves_empty_all_at_once_is_held_too(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    for day, n in ((10, 1), (11, None)):
        rows = [{**use("a", f"2026-05-{i:02}", 1), "n": n} for i in range(1, 25)]
        case.load("app", at(day), whole=True, events=rows)
    report = case.build()
    assert mode(report, "usage_daily") == "held"
    assert case.rows("SELECT count(*), count(count) FROM signals.usage_daily") == [(24, 24)]


def test_a_broken_file_version_is_passed_over_once_a_good_one_follows(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    good, broken = use("a", "2026-05-01", 1), {"who": "a", "day": "2026-05-01", "what": "x"}
    case.load("app", at(10), whole=True, events=[good])
    case.load("app", at(11), whole=True, events=[broken])
    case.build()
    case.load("app", at(12), whole=True, events=[use("a", "2026-05-01", 2)])
    report = case.build()
    assert mode(report, "usage_daily") == "incremental"
    assert case.rows("SELECT count, known_at FROM signals.usage_daily ORDER BY 2") == [
        (1, at(2, 5)), (2, at(12)),
    ]  # fmt: skip
    assert next(h.status for h in report.health if h.source == "app") == "ok"


def test_a_mapping_that_worked_and_now_fails_keeps_what_it_built(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=USAGE.replace("n AS", "CAST(n AS BIGINT) AS"))
    case.load("app", at(10), events=[{**use("a", "2026-05-01", 1), "n": "1"}])
    case.load("app", at(11), events=[{**use("a", "2026-05-02", 1), "n": "secret"}])
    report = case.build()
    held = next(t for t in report.tables if t.table == "usage_daily")
    assert held.mode == "held"
    assert held.reason is not None
    assert "TRY_CAST" in held.reason
    assert "secret" not in held.reason
    assert case.rows("SELECT count(*) FROM signals.usage_daily") == [(1,)]


def test_mistakes_of_all_mappings_are_listed_at_once(case: Case) -> None:
    case.declare("app", ["events"], usage_daily="SELECT 1 AS x FROM raw_app.events")
    case.declare("billing", ["plans"], subscriptions=PLANS.replace("mrr,", "mmr AS mrr,"))
    case.load("app", at(10), events=[use("a", "2026-05-01", 1)])
    case.load("billing", at(10), plans=[plan("p", 5.0)])
    with pytest.raises(ConfigurationError) as raised:
        case.build()
    assert "unknown column 'mmr'; did you mean 'mrr'?" in str(raised.value)
    assert "table 'usage_daily' has no column 'x'" in str(raised.value)


@pytest.mark.parametrize("where", ["identity", "app.usage_daily", "billing.subscriptions"])
def test_a_crash_anywhere_heals_with_the_next_build(case: Case, where: str) -> None:
    case.declare("app", ["events"], usage_daily=USAGE)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.build()
    case.load("crm", at(11), accounts=[account("c"), account("b", merged="a")])
    case.load("app", at(11), events=[use("c", "2026-05-01", 1), use("b", "2026-05-01", 1)])
    case.load("billing", at(11), plans=[plan("p", 5.0, who="zz")])

    def crash(step: str) -> None:
        if step == where:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.build(progress=crash)
    case.build()
    fresh = case.fresh()
    fresh.build()
    assert fresh.tables() == case.tables()


def test_a_failure_within_a_step_leaves_the_former_state(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("billing", at(10), whole=True, plans=[plan("p", 5.0), plan("q", 1.0)])
    case.build()
    before = case.tables()
    case.load("billing", at(11), whole=True, plans=[plan("p", 6.0)])

    def crash(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("connectors.signals.close_vanished", crash)
        with pytest.raises(KeyboardInterrupt):
            case.build()
    after = case.tables()
    assert {name: after[name] for name in before if name != "raw_columns"} == {
        name: before[name] for name in before if name != "raw_columns"
    }
    case.build()
    assert case.rows("SELECT count(*), count(superseded_at) FROM signals.subscriptions") == [(3, 2)]


def test_a_deleted_warehouse_file_comes_back_the_same(tmp_path: Path) -> None:
    file = tmp_path / "warehouse.duckdb"
    case = Case(tmp_path / "company", connection=duckdb.connect(str(file)))
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.load("crm", at(1), accounts=[account("a")])
    for day, rows in ((2, [plan("p", 1.0), plan("q", 1.0)]), (3, [plan("p", 2.0)])):
        case.load("billing", at(day), whole=True, plans=rows)
        case.build()
    before = case.tables()
    case.connection.close()
    file.unlink()
    case.connection = duckdb.connect(str(file))
    case.build()
    assert case.tables() == before
    case.connection.close()


def test_health_said_by_others_is_recorded_beside_the_builds(case: Case) -> None:
    case.build()
    record_health(case.connection, "crm", "accounts", "down", "it refused", NOW + dt.timedelta(1))
    assert case.rows(
        "SELECT status, reason, rows FROM signals.source_health ORDER BY checked_at"
    ) == [("ok", None, 2), ("down", "it refused", 2)]


def test_a_source_that_is_down_stays_down_until_a_load_arrives(case: Case) -> None:
    case.build(now=at(2))
    record_health(case.connection, "crm", "accounts", "down", "it refused", at(3))
    (health,) = case.build(now=at(4)).health
    assert (health.status, health.reason) == ("down", "it refused")
    case.load("crm", at(5), accounts=[account("c")])
    (health,) = case.build(now=at(5)).health
    assert health.status == "ok"


def test_exchange_rates_have_no_account_and_are_versions_all_the_same(case: Case) -> None:
    case.declare("bank", ["rates"], exchange_rates="SELECT * FROM raw_bank.rates")
    for day, rate in ((10, 1.1), (12, 1.2)):
        row = {"currency": "EUR", "day": "2026-05-01", "rate": rate}
        case.load("bank", at(day), whole=True, rates=[row])
    case.build()
    assert case.rows("SELECT rate, superseded_at FROM signals.exchange_rates ORDER BY rate") == [
        (1.1, at(12)), (1.2, None),
    ]  # fmt: skip


EVENT = st.builds(
    use, st.sampled_from("abz"), st.sampled_from(["2026-05-01", "2026-05-02", "2026-06-02"]),
    st.integers(-1, 2),
)  # fmt: skip
PLAN = st.builds(
    plan, st.sampled_from("pqr"), st.sampled_from([1.0, 2.0, -1.0]), st.sampled_from("ab"),
    st.sampled_from([None, True]),
)  # fmt: skip
CLICK = st.builds(
    lambda who, day, n: {"who": who, "ts": at(day, 5), "n": n},
    st.sampled_from("ab"), st.integers(1, 9), st.integers(0, 3),
)  # fmt: skip
PEOPLE = st.builds(
    lambda key, merged, gone: account(key, merged=merged, gone=gone),
    st.sampled_from("abc"), st.sampled_from([None, None, "a", "b"]), st.sampled_from([None, True]),
)  # fmt: skip
LOADS = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.lists(EVENT, max_size=4), st.booleans()),
        st.tuples(st.just("plans"), st.lists(PLAN, max_size=4), st.just(True)),
        st.tuples(st.just("clicks"), st.lists(CLICK, max_size=4), st.just(False)),
        st.tuples(st.just("accounts"), st.lists(PEOPLE, max_size=3), st.just(False)),
    ),
    min_size=1, max_size=6,
)  # fmt: skip
OWNER = {"events": "app", "plans": "billing", "clicks": "web", "accounts": "crm"}


@given(loads=LOADS, batch=st.integers(1, 3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_sequence_of_loads_comes_to_the_same_tables_built_in_steps_or_at_once(
    tmp_path_factory: pytest.TempPathFactory, loads: list, batch: int
) -> None:
    case = Case(tmp_path_factory.mktemp("company"))
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.declare("app", ["events"], usage_daily=USAGE)
    case.declare("billing", ["plans"], subscriptions=PLANS)
    case.declare("web", ["clicks"], usage_daily=SUMMED.replace("raw_app", "raw_web"))
    for number, (stream, rows, whole) in enumerate(loads):
        case.load(OWNER[stream], at(1 + number), whole=whole, **{stream: rows})
        if number % batch == 0:
            case.build()
    case.build()
    incremental = case.tables()
    fresh = case.fresh()
    fresh.build()
    assert fresh.tables() == incremental
    case.build(rebuild=True)
    assert case.tables() == incremental
