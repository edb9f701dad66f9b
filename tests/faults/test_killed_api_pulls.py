"""F72: a run that is killed at any moment neither loses nor doubles a row of the signals."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.vendor_pulls import FIRST, SECOND, company_of

SCRIPT = Path(__file__).parent / "killed_api_pulls.py"
QUICK = ("salesforce", "zendesk", "stripe")
FULL = (*QUICK, "company_news", "mixpanel", "hubspot", "surveymonkey")


def runs(home, box, vendors, *, seed, wanted, now, kills=4):
    """The signals after each chain of killed runs; those of a run that was never killed first."""
    box.now, box.small_pages = now, 20
    for vendor in vendors:
        company_of(home, vendor, box)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(home), str(seed), str(wanted), str(kills), str(now)],
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert box.defects == []
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(reports, kills):
    never, *chained = reports
    assert sum(len(report["kills"]) for report in chained) == kills
    assert sum(map(len, never["signals"].values())) > 100
    for report in chained:
        assert report["signals"] != "the run failed", report["kills"]
        for table, rows in report["signals"].items():
            wanted = never["signals"][table]
            lost, doubled = Counter(wanted) - Counter(rows), Counter(rows) - Counter(wanted)
            assert [*lost][:2] == [*doubled][:2] == [], (table, report["kills"])


def saved_first_run(home, box, vendors):
    """What is there before the next pull: the state after a first run."""
    runs(home, box, vendors, seed=1, wanted=0, now=FIRST)
    shutil.copytree(home / "state", home / "saved")


def test_F72_killed_first_runs_come_to_the_signals_of_one_that_was_not(box, tmp_path):
    check(runs(tmp_path, box, QUICK, seed=7, wanted=5, now=FIRST), kills=5)


def test_F72_killed_later_runs_come_to_the_signals_of_one_that_was_not(box, tmp_path):
    saved_first_run(tmp_path, box, QUICK)
    check(runs(tmp_path, box, QUICK, seed=8, wanted=5, now=SECOND), kills=5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("now", [FIRST, SECOND], ids=["first", "later"])
def test_F72_two_hundred_killed_runs_lose_nothing_and_double_nothing(box, tmp_path, now, seed):
    if now == SECOND:
        saved_first_run(tmp_path, box, FULL)
    check(runs(tmp_path, box, FULL, seed=seed, wanted=20, now=now), kills=20)
