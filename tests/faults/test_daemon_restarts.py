"""Dagster's daemon dies in the middle of a tick and is started again (F84): one run for each tick.

What it dies of is SIGKILL, at each of the points between the beginning and the end of a tick. The
fast lane decides by itself whether a minute gets a run, and by what other runs do: its own run,
launched just before the daemon died, must neither come again nor keep later minutes from theirs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.sandbox.demo import TEMPLATE
from tests.demo_company import copy_of
from tests.faults.killed_daemons import POINTS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path) -> Path:
    """The demo's company, living in the present, with all schedules on."""
    home = copy_of(TEMPLATE, tmp_path)
    lines = (home / "company.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    alive = [line for line in lines if not line.startswith("today:")]
    (home / "company.yaml").write_text(
        "".join([*alive, "schedules: {enabled: true}\n"]), encoding="utf-8"
    )
    with (home / "crm.yaml").open("a", encoding="utf-8") as crm:
        crm.write("fast_lane: {enabled: true}\n")
    return home


@pytest.mark.parametrize(
    ("schedule", "meanwhile"),
    [
        ("daily_schedule", "queued"),
        ("fast_lane_schedule", "finished"),
        pytest.param("fast_lane_schedule", "queued", marks=pytest.mark.slow),
    ],
)
def test_f84_a_daemon_that_is_killed_in_a_tick_makes_one_run_of_it(home, schedule, meanwhile):
    environment = {key: text for key, text in os.environ.items() if key != "DAGSTER_HOME"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed_daemons", str(home), schedule, meanwhile],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ticks = json.loads(done.stdout)
    assert ticks == [{"point": point, "killed": True, "runs": 1} for point in POINTS]
