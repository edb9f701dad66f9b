"""What breaks, and what a run does then (the numbers are those of the fault catalogue).

Whatever breaks, no account changes band because of it; the run ends well, degraded or held with a
named reason; and the next clean run comes to the state that it would have had without the fault.
"""

import datetime as dt
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from demo_company import (
    SMALL_TODAY,
    change,
    copy_of,
    healthloop,
    move_to,
    rows_of,
    run,
    scored_small,
    usage,
    write_csv,
    write_small_company,
    write_usage,
)

DAY = dt.timedelta(days=1)
SCORES = "SELECT account_id, score, value, band FROM scores.scores WHERE as_of = ? ORDER BY ALL"


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A small company after one good run; copy it before changing it."""
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(once, tmp_path):
    return copy_of(once, tmp_path)


def bands(home, day: dt.date) -> dict[object, object]:
    return {account: band for account, _, _, band in rows_of(home, SCORES, [day])}


def live_on(home, day: dt.date) -> None:
    """A day later the product has exported the days since."""
    move_to(home, day)
    write_usage(home, usage(24, SMALL_TODAY + DAY, day), file="usage_later.csv")


def test_f31_a_source_that_goes_down_leaves_every_band_as_it_was_and_the_run_degraded(home):
    before = bands(home, SMALL_TODAY)
    (home / "files/product").rename(home / "files/gone")
    tomorrow = SMALL_TODAY + DAY
    move_to(home, tomorrow)
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 0
    assert (
        "DEGRADED: source product: the folder ./files/product does not exist; correct" in answer.err
    )
    assert bands(home, tomorrow) == before
    assert rows_of(
        home,
        "SELECT DISTINCT status, reason FROM signals.source_health WHERE source = 'product' "
        "AND checked_at = (SELECT max(checked_at) FROM signals.source_health)",
    ) == [("down", "the folder ./files/product does not exist; correct `location`")]
    doctor = healthloop("doctor", "--home", str(home))
    assert doctor.code == 1
    assert "usage is down" in doctor.out


def test_f31_a_source_that_stays_down_makes_scores_unknown_and_never_green_or_red(home):
    (home / "files/product").rename(home / "files/gone")
    late = SMALL_TODAY + 6 * DAY
    move_to(home, late)
    ran = run(home, late)
    assert not ran.success
    assert ran.warnings == (
        "source product: the folder ./files/product does not exist; correct `location`",
    )
    assert "change their risk band" in ran.failures[0]
    assert set(bands(home, late).values()) == {"unknown"}
    assert rows_of(home, "SELECT count(*) FROM plan.field_changes WHERE as_of = ?", [late]) == [
        (0,)
    ]


def test_f29_after_an_outage_the_next_clean_run_is_as_if_nothing_had_happened(home, tmp_path):
    outage, after = SMALL_TODAY + 6 * DAY, SMALL_TODAY + 7 * DAY
    spared = copy_of(home, tmp_path / "spared")
    (home / "files/product").rename(home / "files/gone")
    move_to(home, outage)
    assert not run(home, outage).success
    (home / "files/gone").rename(home / "files/product")
    live_on(home, after)
    live_on(spared, after)
    assert run(spared, after).success
    assert run(home, after).success
    assert rows_of(home, SCORES, [after]) == rows_of(spared, SCORES, [after])


def test_f31_a_source_that_goes_down_between_two_runs_of_one_day_changes_no_band(home):
    before = bands(home, SMALL_TODAY)
    (home / "files/product").rename(home / "files/gone")
    assert run(home, SMALL_TODAY).success
    assert bands(home, SMALL_TODAY) == before


def test_f29_a_file_that_becomes_empty_changes_no_band_and_degrades_the_run(home):
    before = bands(home, SMALL_TODAY)
    write_usage(home, [])
    tomorrow = SMALL_TODAY + DAY
    move_to(home, tomorrow)
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 0
    assert (
        "DEGRADED: source product: usage is suspect: "
        "'usage.csv' had rows and now has none; the old are kept\n" in answer.err
    )
    assert bands(home, tomorrow) == before


def test_f33_a_renamed_column_changes_no_band_and_names_the_mapping(home):
    before = bands(home, SMALL_TODAY)
    tomorrow = SMALL_TODAY + DAY
    move_to(home, tomorrow)
    write_csv(
        home / "files/product/usage_later.csv",
        ("workspace", "day", "amount"),
        usage(24, SMALL_TODAY, tomorrow),
    )
    ran = run(home, tomorrow)
    assert ran.success
    assert ran.warnings == (
        "source product: usage is suspect: column 'n' of raw_product.usage, which "
        "sources/product/usage_daily.sql uses, has vanished; restore the column or change the "
        "mapping",
    )
    assert bands(home, tomorrow) == before


def test_f25_a_day_in_the_future_is_quarantined_and_the_rest_is_scored(home):
    before = bands(home, SMALL_TODAY)
    write_usage(home, [("w-1", SMALL_TODAY + 30 * DAY, 2), *usage(24, SMALL_TODAY, SMALL_TODAY)],
                file="usage_later.csv")  # fmt: skip
    change_limits(home, quarantine_share=0.5)
    assert run(home, SMALL_TODAY).success
    assert rows_of(home, 'SELECT source, "table", reason FROM signals.quarantine') == [
        ("product", "usage_daily", "day: lies in the future")
    ]
    assert bands(home, SMALL_TODAY) == before


def change_limits(home, **limits: float) -> None:
    text = (home / "company.yaml").read_text(encoding="utf-8")
    given = ", ".join(f"{name}: {value}" for name, value in limits.items())
    (home / "company.yaml").write_text(f"{text}limits: {{{given}}}\n", encoding="utf-8")


def test_f32_a_first_pull_that_is_refused_says_what_to_do_and_leaves_no_half_state(tmp_path):
    home = write_small_company(tmp_path / "company")
    (home / "files/product").rename(home / "files/gone")
    answer = healthloop("run", "--home", str(home))
    lines = [line for line in answer.err.splitlines() if line and not line.startswith("Ran in")]
    assert (answer.code, answer.out) == (1, "")
    assert lines[0].startswith(
        "source product: the folder ./files/product does not exist; correct `location`"
    )
    assert rows_of_tables(home) == set()
    (home / "files/gone").rename(home / "files/product")
    assert run(home, SMALL_TODAY).success
    assert len(bands(home, SMALL_TODAY)) == 24


def rows_of_tables(home) -> set[str]:
    """Tables of signals, metrics, scores and plan that have rows."""
    if not (home / "state/warehouse.duckdb").exists():
        return set()
    tables = rows_of(
        home,
        "SELECT schema_name || '.' || table_name FROM duckdb_tables() "
        "WHERE schema_name NOT LIKE 'raw_%'",
    )
    return {str(name) for (name,) in tables if rows_of(home, f"SELECT 1 FROM {name} LIMIT 1")}


@contextmanager
def held_by_another_process(home):
    """Another process that holds the warehouse; gives its process id."""
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); "
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(home / "state/warehouse.duckdb")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder.pid
    finally:
        holder.communicate()


def test_f76_a_locked_warehouse_is_one_line_that_names_the_process_after_a_bounded_wait(home):
    with held_by_another_process(home) as pid:
        began = time.monotonic()
        answer = healthloop("scores", "--home", str(home))
        waited = time.monotonic() - began
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"process {pid} is using the warehouse {home}/state/warehouse.duckdb; "
        "wait for that run to end, then try again\n"
    )
    assert 5 < waited < 30
    assert healthloop("scores", "--home", str(home)).code == 0


def test_f76_a_run_that_finds_the_warehouse_locked_fails_with_that_line(home, monkeypatch):
    monkeypatch.setattr("orchestration.resources.MAX_RETRIES", 1)
    with held_by_another_process(home) as pid:
        answer = healthloop("run", "--home", str(home), "--no-pull")
    assert answer.code == 1
    assert f"process {pid} is using the warehouse" in answer.err
    assert "Traceback" not in answer.both


def test_f79_a_damaged_warehouse_is_one_line_and_is_rebuilt_from_the_lake(home):
    before = rows_of(home, SCORES, [SMALL_TODAY])
    warehouse = home / "state/warehouse.duckdb"
    warehouse.write_bytes(b"this is no database" * 1000)
    answer = healthloop("scores", "--home", str(home))
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith(
        f"the warehouse {warehouse} cannot be read; "
        "move it away and run again: it is rebuilt from the lake"
    )
    warehouse.unlink()
    assert run(home, SMALL_TODAY).success
    assert rows_of(home, SCORES, [SMALL_TODAY]) == before


def test_a_stored_score_that_was_tampered_with_is_held_before_the_plan(home):
    tampered = "UPDATE scores.all_scores SET value = 120 WHERE account_id = 'A-1'"
    change(home, tampered)
    change(home, "DELETE FROM plan.record_changes")
    ran = run(home, SMALL_TODAY, pull=False)
    assert not ran.success
    assert ran.failures[0].startswith(
        "1 scores are outside 0 to 100 or their bounds; this is a defect of Healthloop: report it"
    )
    assert "the contributions of 1 scores do not add up" in ran.failures[0]
    assert rows_of(home, "SELECT count(*) FROM plan.field_changes") == [(0,)]
