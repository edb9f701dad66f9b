"""Runs: recorded in the instance, ranges of days at once, nothing written twice, rebuilt alike."""

import datetime as dt
import json
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from addresses import addresses_in
from demo_company import (
    SMALL_TODAY,
    TODAY,
    WEEK_ENDS,
    copy_of,
    healthloop,
    instance_in_home,
    rows_of,
    run,
    scored_demo,
    scored_small,
    write,
    write_small_company,
)

from connectors.signal_tables import STORED
from contracts.company import read_company
from orchestration.assets import metrics, plan, scores
from orchestration.definitions import definitions_of
from orchestration.resources import warehouse_of
from orchestration.runs import LAUNCHED_BY, fail_lost_runs, instance_of


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A small company after one good run; copy it before changing it."""
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(once, tmp_path):
    return copy_of(once, tmp_path)


TABLES = [
    *sorted({f"signals.{table.name}" for table in STORED.values()}),
    *("signals.account_keys", "signals.unmatched", "signals.quarantine"),
    *("metrics.accounts", "metrics.metric_values"),
    *("scores.all_scores", "scores.all_contributions", "scores.all_families", "scores.revisions"),
    *("plan.desired", "plan.field_changes"),
]
FORGOTTEN = ("load_id", "quarantined_at", "run_id", "scored_at", "revised_at")
"""Columns that say when or by which run something was written."""


def contents(home, tables: list[str]) -> dict[str, list[tuple[object, ...]]]:
    """The rows of tables, sorted, without the columns of `FORGOTTEN`."""
    found = {}
    with warehouse_of(read_company(home), read_only=True).get_connection() as connection:
        for table in tables:
            given = connection.execute(f"FROM {table} LIMIT 0").description
            shown = ", ".join(f'"{name}"' for name, *_ in given if name not in FORGOTTEN)
            query = f"SELECT {shown} FROM {table} ORDER BY ALL"
            found[table] = connection.execute(query).fetchall()
    return found


def materialised(home, key: dg.AssetKey) -> set[str]:
    with instance_in_home(), instance_of(read_company(home)) as instance:
        return instance.get_materialized_partitions(key)


def test_a_run_of_the_command_line_stands_in_the_same_instance_with_all_its_days(tmp_path_factory):
    demo = scored_demo(tmp_path_factory)
    days = {str(day) for day in (*WEEK_ENDS, TODAY)}
    for key in (metrics.KEY, scores.SCORES, scores.CONTRIBUTIONS):
        assert materialised(demo, key) == days
    with instance_in_home(), instance_of(read_company(demo)) as instance:
        (recorded,) = instance.get_runs()
        record = instance.get_latest_materialization_event(scores.SCORES)
    assert recorded.job_name == "daily"
    assert recorded.status == dg.DagsterRunStatus.SUCCESS
    assert recorded.tags["healthloop/from"] == "command line"
    metadata = record.asset_materialization.metadata
    assert metadata["dagster/row_count"].value > 100
    assert "| segment | risk | accounts |" in metadata["bands"].value
    assert "| account | segment | risk |" in metadata["worst_accounts"].value
    assert metadata["histogram_risk"].value.startswith("![Risk scores](data:image/png;base64,")
    assert metadata["bands_by_segment"].value.startswith("![Risk by segment](data:image/png;")


STARTED = dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.STARTING, STARTED, dg.DagsterRunStatus.CANCELING]
)
def test_f73_a_run_that_died_with_its_dagster_fails_when_the_ui_starts_again(tmp_path, status):
    company = read_company(write_small_company(tmp_path))
    with _code_server(tmp_path / "s") as dead:
        tags = {LAUNCHED_BY: json.dumps({"host": "localhost", "socket": dead})}
    lost = dg.DagsterRun(job_name="daily", status=status, tags=tags)
    with instance_in_home(), instance_of(company) as instance:
        instance.add_run(lost)
        assert fail_lost_runs(company) == [lost.run_id]
        assert instance.get_run_by_id(lost.run_id).status == dg.DagsterRunStatus.FAILURE
        (event,) = instance.all_logs(lost.run_id)
        assert event.message.endswith("its process ended before it did")
        assert fail_lost_runs(company) == []


def test_runs_that_may_be_under_way_in_another_process_are_no_lost_ones(tmp_path):
    company = read_company(write_small_company(tmp_path))
    with _code_server(tmp_path / "s") as alive, instance_in_home(), instance_of(company) as dagster:
        for tags in (
            {"healthloop/from": "command line"},
            {},  # of a command line before it had a tag
            {LAUNCHED_BY: json.dumps({"host": "localhost", "socket": alive})},
            {LAUNCHED_BY: json.dumps({"host": "codeserver", "port": 4000})},
        ):
            dagster.add_run(dg.DagsterRun(job_name="daily", status=STARTED, tags=tags))
        assert fail_lost_runs(company) == []
        assert {run.status for run in dagster.get_runs()} == {STARTED}


@contextmanager
def _code_server(address: Path) -> Iterator[str]:
    """Where something listens during the block, as the code server of a Dagster does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        yield str(address)


def test_a_range_of_days_backfills_in_a_single_run(home):
    company = read_company(home)
    with instance_in_home(), instance_of(company) as instance:
        before = len(instance.get_runs())
        result = (
            definitions_of(company)
            .resolve_job_def("replay")
            .execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": "2026-03-10",
                    "dagster/asset_partition_range_end": "2026-03-13",
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        )
        assert result.success
        assert len(instance.get_runs()) == before + 1
    days = {f"2026-03-{day}" for day in (10, 11, 12, 13)}
    for key in (metrics.KEY, scores.SCORES, scores.CONTRIBUTIONS, plan.KEY):
        assert materialised(home, key) == days | {str(SMALL_TODAY)}
    scored = rows_of(home, "SELECT DISTINCT as_of::VARCHAR FROM scores.scores")
    assert {day for (day,) in scored} == days | {str(SMALL_TODAY)}


def test_running_twice_writes_nothing_new(home):
    before = contents(home, TABLES)
    loads = sorted((home / "state/lake").rglob("*.parquet"))
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 0
    assert contents(home, TABLES) == before
    assert sorted((home / "state/lake").rglob("*.parquet")) == loads
    assert rows_of(home, "SELECT as_of, revision FROM scores.revisions") == [(SMALL_TODAY, 1)]


def test_a_day_that_is_scored_anew_keeps_its_former_scores_as_a_revision(home):
    card = home / "scorecards/risk.yaml"
    write(card, card.read_text().replace("version: 1", "version: 2").replace("40: 0", "42: 0"))
    assert run(home, SMALL_TODAY, pull=False).success
    assert rows_of(home, "SELECT revision FROM scores.revisions ORDER BY 1") == [(1,), (2,)]
    (one, two) = (
        rows_of(home, "SELECT count(*) FROM scores.all_scores WHERE revision = ?", [revision])
        for revision in (1, 2)
    )
    assert one == two == [(24,)]


def test_the_warehouse_rebuilt_from_the_lake_has_identical_signals_and_scores(
    tmp_path_factory, tmp_path
):
    """F78, F79: the DuckDB file is a cache; everything of value is in the lake and in the YAML."""
    home = copy_of(scored_demo(tmp_path_factory), tmp_path)
    before = contents(home, TABLES)
    (home / "state/warehouse.duckdb").unlink()
    assert run(home, *WEEK_ENDS, TODAY).success
    after = contents(home, TABLES)
    assert {table for table in before if before[table] != after[table]} == set()
    assert len(before["scores.all_scores"]) > 400


def test_deleting_all_of_the_state_and_running_again_gives_the_same_scores(home):
    before = contents(home, TABLES)
    shutil.rmtree(home / "state")
    assert run(home, SMALL_TODAY).success
    assert contents(home, TABLES) == before


def test_a_company_folder_can_be_moved(home):
    """Nothing of value in the state holds an absolute path."""
    moved = home.rename(home.parent / "elsewhere")
    before = contents(moved, TABLES)
    assert healthloop("run", "--home", str(moved)).code == 0
    assert contents(moved, TABLES) == before


def test_f93_no_e_mail_address_of_the_sources_reaches_the_warehouse_or_dagster(tmp_path_factory):
    demo = scored_demo(tmp_path_factory)
    texts = [
        file.read_bytes()
        for pattern in ("*.csv", "*.jsonl")
        for file in (demo / "sandbox" / "world").rglob(pattern)
    ]
    addresses = {found for text in texts for found in addresses_in(text)}
    assert len(addresses) > 100
    columns = rows_of(
        demo,
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE schema_name IN "
        "('signals', 'metrics', 'scores', 'plan') AND data_type LIKE 'VARCHAR%'",
    )
    assert len(columns) > 80
    searches = [
        f"(SELECT '{schema}.{table}.{column}' FROM {schema}.{table} "
        f"WHERE \"{column}\"::VARCHAR LIKE '%@%' LIMIT 1)"
        for schema, table, column in columns
    ]
    assert rows_of(demo, " UNION ALL ".join(searches)) == []
    for file in (demo / "state/dagster").rglob("*"):
        if file.is_file():
            assert not addresses & addresses_in(file.read_bytes())


def test_f93_the_secret_in_a_sources_address_is_written_nowhere(home, tmp_path, monkeypatch):
    import sqlite3

    database = tmp_path / "canary-9c1f7.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE tickets (id TEXT, account TEXT, opened TEXT)")
        connection.execute("INSERT INTO tickets VALUES ('t-1', 'A-1', '2026-03-01 09:00')")
    connection.close()
    monkeypatch.setenv("DESK_URL", f"sqlite:///{database}")
    write(
        home / "sources/desk.yaml",
        "type: sql\nurl: {env: DESK_URL}\nstreams:\n  tickets: {table: tickets}\n",
    )
    write(
        home / "sources/desk/tickets.sql",
        "SELECT account AS account_key, id AS ticket_id, opened AS opened_at\n"
        "FROM raw_desk.tickets\n",
    )
    good = healthloop("run", "--home", str(home))
    assert good.code == 0
    assert rows_of(home, "SELECT ticket_id FROM signals.tickets") == [("t-1",)]
    monkeypatch.setenv("DESK_URL", "nonsense://me:canary-9c1f7@db/x")
    bad = healthloop("run", "--home", str(home))
    assert "DEGRADED: source desk" in bad.err
    doctor = healthloop("doctor", "--home", str(home))
    for text in (good.both, bad.both, doctor.both):
        assert "canary" not in text
    for file in (home / "state").rglob("*"):
        if file.is_file():
            assert b"canary-9c1f7" not in file.read_bytes(), file


def test_days_that_cannot_be_scored_are_refused_before_anything_starts(home):
    def refused(*arguments: str) -> str:
        answer = healthloop("run", "--home", str(home), *arguments)
        assert (answer.code, answer.out) == (2, "")
        return answer.err

    assert refused("--as-of", "2026-03-10", "--from", "2026-03-01") == (
        "--as-of and --from/--to are two ways to choose; give one of them\n"
    )
    assert refused("--from", "2026-03-01") == "a range needs both ends; give --from and --to\n"
    assert refused("--from", "2026-03-01", "--to", "2026-03-31", "--every", "fortnight") == (
        "--every is 'fortnight'; it must be day, week-end or month-end\n"
    )
    assert refused("--from", "2026-03-10", "--to", "2026-03-01") == (
        "there is no day from 2026-03-10 to 2026-03-01; choose other days\n"
    )
    assert refused("--from", "2026-03-02", "--to", "2026-03-06", "--every", "month-end") == (
        "there is no month-end from 2026-03-02 to 2026-03-06; choose other days\n"
    )
    for day in ("2026-01-31", "2026-04-01"):
        assert refused("--as-of", day) == (
            f"{day} cannot be scored; choose days from 2026-02-01 (history_start) to 2026-03-31\n"
        )
    assert refused("--as-of", "31.3.2026") == (
        "Invalid value for '--as-of': '31.3.2026' is no day; write it like 2026-06-30\n"
    )


def test_week_ends_and_month_ends_of_a_range_are_chosen():
    from orchestration.cli.running import month_ends, week_ends

    assert month_ends(dt.date(2024, 1, 31), dt.date(2024, 4, 29)) == [
        dt.date(2024, 1, 31), dt.date(2024, 2, 29), dt.date(2024, 3, 31),
    ]  # fmt: skip
    sunday = dt.date(2026, 6, 28)
    assert week_ends(dt.date(2026, 6, 30), 2) == [dt.date(2026, 6, 21), sunday]
    assert week_ends(sunday, 1) == [dt.date(2026, 6, 21)]


def test_scoring_without_signals_says_to_pull_first(tmp_path):
    home = write_small_company(tmp_path / "company")
    answer = healthloop("run", "--home", str(home), "--no-pull")
    assert answer.code == 1
    assert "there are no signals yet; run the job `daily` (`healthloop run`) first" in answer.err
