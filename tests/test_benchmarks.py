"""The benchmarks run at a tiny size, and what they compare agrees; times are not tested."""

from pathlib import Path
from unittest import mock

import pytest

from benchmarks import fast_lane
from benchmarks.daily import open_warehouse
from benchmarks.run import BENCHMARKS, Figure, Findings, run, table
from benchmarks.world import Size, month_ends, write_signals
from benchmarks.writing import Applying, Loop, Way

TINY = Size.scaled(accounts=300, usage_rows=60_000)


pytestmark = pytest.mark.xdist_group("benchmarks")  # they are run once, by one worker


@pytest.fixture(scope="module")
def found() -> Findings:
    """All benchmarks once, at a tiny size, but for the fast lane, which has a test of its own."""
    return run(TINY, [name for name in BENCHMARKS if name != "fast_lane"], months=2)


def measured(found: Findings, name: str) -> float:
    return next(figure.measured for figure in found.figures if figure.name == name)


def test_pandas_and_healthloop_come_to_the_same_results(found: Findings) -> None:
    assert measured(found, "results that differ from pandas") == 0
    compared = next(note for note in found.notes if note.startswith("compared with pandas"))
    assert int(compared.split()[3].replace(",", "")) > 23 * 200


def test_an_update_and_a_rebuild_come_to_the_same_signals(found: Findings) -> None:
    assert measured(found, "tables that differ after the two") == 0


def test_a_pull_takes_every_row_of_an_api(found: Findings) -> None:
    assert measured(found, "rows that a pull misses") == 0


def test_an_hour_without_changes_costs_one_request_for_each_stream(found: Findings) -> None:
    assert measured(found, "requests of an unchanged hour for each stream") <= 1


def test_a_run_without_changes_writes_nothing_into_a_crm_and_opens_no_task(
    found: Findings,
) -> None:
    assert measured(found, "write calls of unchanged runs") == 0
    assert measured(found, "tasks of unchanged runs") == 0


def test_many_records_go_by_few_calls(found: Findings) -> None:
    in_batches = (3, 2 + 1, 3 + 1)  # of 300 accounts; tasks go by one call
    bulk = measured(found, "write calls by Salesforce's bulk jobs")
    collections = measured(found, "calls for 1,000 records by Salesforce's collections")
    hubspot = measured(found, "calls for 1,000 records by HubSpot's batches")
    assert (bulk - 1, round(0.3 * collections), round(0.3 * hubspot)) == in_batches


def test_the_three_ways_write_every_record_and_the_same_tasks(found: Findings) -> None:
    told = [note for note in found.notes if "updates one by one" in note]
    assert [note.split(" in ")[0] for note in told] == [
        f"{way}: 300 records and 10 tasks" for way in ("bulk", "collections", "hubspot")
    ]


def test_a_loop_is_compared_record_by_record() -> None:
    run = Applying(100_000, 0, 0, 500, 500, 0, 30, 0, 0, 500, 0, {})
    assert Way(run, run, Loop(2_000, 44, 0, 0), 0).times_faster == pytest.approx(22 / 0.3)


def test_every_goal_of_the_benchmark_is_measured(found: Findings) -> None:
    assert [(figure.name, figure.goal) for figure in found.figures] == [
        ("one day / one GROUP BY over usage", 10),
        ("memory of one day", 4),
        ("2 month-ends / one day", 16),
        ("memory of 2 month-ends", 4),
        ("pandas, whole tables / Healthloop", 10),
        ("pandas, only windows / Healthloop", 10),
        ("results that differ from pandas", 0),
        ("1 % new rows / full rebuild of signals", 0.1),
        ("tables that differ after the two", 0),
        ("rows that a pull misses", 0),
        ("JSON pull / requests and json", 0.5),
        ("memory of a JSON pull", 400),
        ("CSV pull / requests and json", 0.5),
        ("memory of a CSV pull", 400),
        ("JSON pull / fastest vendor's limit", 1),
        ("requests of an unchanged hour for each stream", 1),
        ("planning, every field changed", 5),
        ("memory of planning", 1),
        ("planning, nothing changed", 5),
        ("write calls of unchanged runs", 0),
        ("tasks of unchanged runs", 0),
        ("write calls by Salesforce's bulk jobs", 15),
        ("calls for 1,000 records by Salesforce's collections", pytest.approx(6 + 10 / 0.3)),
        ("calls for 1,000 records by HubSpot's batches", pytest.approx(12 + 10 / 0.3)),
        ("ledger, for each batch of 200", 10),
        ("one by one / bulk", 30),
        ("one by one / collections", 30),
        ("one by one / hubspot", 30),
    ]
    assert all(figure.measured > 0 for figure in found.figures if figure.goal)


@pytest.mark.slow
def test_e4_a_p1_ticket_reaches_the_crm_by_two_calls_and_a_minute_without_news_costs_it_none() -> (
    None
):
    with (
        mock.patch.object(fast_lane, "TICKETS", {"salesforce": 1}),
        mock.patch.object(fast_lane, "SOURCES", (("helpdesk",),)),
    ):
        found = run(Size.scaled(accounts=60, usage_rows=60_000), ["fast_lane"], months=1)
    assert {figure.name: (figure.measured, figure.goal) for figure in found.figures[1:]} == {
        "write calls for a ticket, salesforce, helpdesk pulled": (2, 2),
        "write calls of fast runs without news": (0, 0),
        "requests to the CRM of fast runs without news": (0, 0),
    }
    seconds = found.figures[0]
    assert seconds.name == "from a P1 ticket to salesforce, helpdesk pulled"
    assert (seconds.goal, seconds.measured > 0) == (60, True)
    assert "requests without news: zendesk 3;" in found.notes[0]


def test_a_goal_says_whether_it_is_reached() -> None:
    text = table([Figure("a", 9.5, 10), Figure("b", 3, 10, at_least=True)])
    assert text.splitlines()[2:] == [
        "| a | 9.50 times | at most 10 | yes |",
        "| b | 3.00 times | at least 10 | no |",
    ]


def test_the_same_seed_makes_the_same_company(tmp_path: Path) -> None:
    contents = []
    for threads in (1, 2):
        with open_warehouse(tmp_path / f"{threads}.duckdb") as connection:
            connection.execute(f"SET threads = {threads}")
            write_signals(connection, TINY)
            contents.append(
                [
                    connection.execute(
                        "SELECT count(*), sum(hash(t)::HUGEINT) "
                        f"FROM (SELECT * FROM signals.{table_name}) AS t"
                    ).fetchone()
                    for table_name in (
                        "accounts",
                        "usage_daily",
                        "user_days",
                        "tickets",
                        "invoices",
                    )
                ]
            )
    assert contents[0] == contents[1]
    assert contents[0][1][0] == pytest.approx(TINY.usage_rows, rel=0.1)


def test_month_ends_are_the_last_days_of_months() -> None:
    assert [str(day) for day in month_ends(3)] == ["2026-06-30", "2026-05-31", "2026-04-30"]
