import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.lake import Lake
from contracts.errors import SourceUnavailable
from tests.pulling import make_company, rows_in_lake, run, source_of

SCRIPT = Path(__file__).parent / "killed_pulls.py"
STREAMS = {
    "tickets": {"files": "tickets*.csv", "cursor": "at"},
    "plans": {"files": "plans.csv"},
}


def company_with_exports(home: Path, more: bool = False):
    exports = home / "exports"
    exports.mkdir(parents=True, exist_ok=True)
    days = range(1, 9) if more else range(1, 6)
    lines = [f"{day},t{day},2026-06-0{min(day, 5)}" for day in days]
    (exports / "tickets_1.csv").write_text("\n".join(["id,x,at", *lines]) + "\n")
    (exports / "plans.csv").write_text("id,x\n1,basic\n" + ("2,pro\n" if more else ""))
    config = {"type": "files", "location": "exports", "streams": STREAMS}
    return make_company(home, {"desk": config})


def sweep(home: Path, first: int, step: int) -> list[dict]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(home), str(first), str(step)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(home: Path, more: bool) -> dict[str, list[str]]:
    tickets = [f"('{day}', 't{day}')" for day in (range(1, 9) if more else range(1, 6))]
    plans = ["('1', 'basic')"]
    # A changed file without a cursor is loaded whole, as a new version of itself.
    return {
        "tickets": sorted(tickets),
        "plans": sorted([*plans, *plans, "('2', 'pro')"] if more else plans),
    }


def check_sweep(reports: list[dict], wanted: dict[str, list[str]]) -> None:
    assert len(reports) > 3
    for report in reports:
        assert report == {
            "at": report["at"], "again": 0, "found": wanted,
            "counted": sum(map(len, wanted.values())),
        }  # fmt: skip


def test_f72_a_first_pull_killed_anywhere_neither_loses_nor_doubles_a_row(tmp_path):
    company_with_exports(tmp_path)
    check_sweep(sweep(tmp_path, 1, 67), expected(tmp_path, more=False))


def test_f72_a_later_pull_killed_anywhere_neither_loses_nor_doubles_a_row(tmp_path):
    run(company_with_exports(tmp_path))
    shutil.copytree(tmp_path / "state", tmp_path / "saved")
    company_with_exports(tmp_path, more=True)
    check_sweep(sweep(tmp_path, 7, 67), expected(tmp_path, more=True))


@pytest.mark.slow
@pytest.mark.parametrize("later", [False, True])
def test_f72_a_pull_killed_before_every_second_of_its_file_operations_is_exactly_once(
    tmp_path, later
):
    company = company_with_exports(tmp_path)
    if later:
        run(company)
        shutil.copytree(tmp_path / "state", tmp_path / "saved")
        company_with_exports(tmp_path, more=True)
    check_sweep(sweep(tmp_path, 1, 2), expected(tmp_path, more=later))


def test_a_cursor_saved_by_a_load_that_was_never_completed_does_not_count(tmp_path):
    company = company_with_exports(tmp_path)
    run(company)
    for record in (company.lake / "raw_desk" / "_dlt_loads").iterdir():
        record.unlink()
    assert Lake(company).files("desk") == []
    assert run(company).rows == 6
    assert len(rows_in_lake(company, "tickets", "id")) == 5


@pytest.mark.parametrize("folder", ["_dlt_loads", "_dlt_version", "_dlt_pipeline_state"])
def test_a_record_torn_while_it_was_written_is_written_again(tmp_path, folder):
    company = company_with_exports(tmp_path)
    run(company)
    dataset = company.lake / "raw_desk"
    before = set(dataset.glob("*/*"))
    company_with_exports(tmp_path, more=True)
    (tmp_path / "exports" / "plans.csv").write_text("id,x,seats\n1,basic,5\n2,pro,9\n")
    run(company)
    torn = [path for path in set(dataset.glob("*/*")) - before if path.parent.name == folder]
    assert torn
    for path in torn:
        path.write_text('{"load')
    for path in set((dataset / "_dlt_loads").iterdir()) - before:
        path.unlink()
    assert len(rows_in_lake(company, "tickets", "id")) == 5
    run(company)
    assert rows_in_lake(company, "tickets", "id") == [(str(day),) for day in range(1, 9)]
    assert rows_in_lake(company, "plans", "id, seats") == [("1", None), ("1", "5"), ("2", "9")]


def test_losing_the_pipelines_folder_loses_nothing(tmp_path):
    company = company_with_exports(tmp_path)
    run(company)
    shutil.rmtree(company.state / "pipelines")
    assert run(company).rows == 0
    company_with_exports(tmp_path, more=True)
    shutil.rmtree(company.state / "pipelines")
    assert run(company).rows == 5
    assert len(rows_in_lake(company, "tickets", "id")) == 8


def test_two_pulls_of_one_source_do_not_run_at_once(tmp_path):
    company = company_with_exports(tmp_path)
    run(company)
    lock = sqlite3.connect(company.state / "pipelines" / "desk.lock", timeout=0)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceUnavailable, match="another pull of it is running"):
        run(company)
    lock.close()
    assert run(company).rows == 0


def test_a_clock_before_the_last_load_is_refused(tmp_path, monkeypatch):
    company = company_with_exports(tmp_path)
    load_id = run(company).load_id
    monkeypatch.setattr("connectors.pull.time.time", lambda: float(load_id) - 60)
    with pytest.raises(SourceUnavailable, match="the clock of this machine"):
        run(company)


def test_a_source_that_fails_leaves_nothing_half_loaded(tmp_path):
    company = company_with_exports(tmp_path)
    (tmp_path / "exports" / "plans.csv").write_text("id,x\n1,2,3\n")
    with pytest.raises(Exception, match=r"plans\.csv:2"):
        run(company)
    assert Lake(company).loads("desk") == []
    assert not list((company.lake).glob("raw_desk/tickets/*"))
    assert source_of(company, "desk").name == "desk"
