"""Kills Dagster's daemon in the middle of a schedule's tick, and starts it again.

``python -m tests.faults.killed_daemons HOME SCHEDULE MEANWHILE`` lets the schedule of the company
in HOME tick once for each point at which a daemon can die, and prints as JSON how many runs every
tick came to. MEANWHILE says what has become of a run that was launched when the daemon is back:
it is still ``queued``, or it has ``finished``.

Daemons are forks of a process that has opened nothing, so that none has to import anything. The
points are Dagster's own, made for its tests; runs wait in the queue and are never begun.
"""

import datetime as dt
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._scheduler.scheduler import launch_scheduled_runs

import orchestration.definitions  # noqa: F401 - what the forks would each have to import
from contracts.company import Company, read_company
from orchestration.runs import instance_of

POINTS = (
    "TICK_CREATED", "TICK_HELD", "RUN_CREATED", "RUN_LAUNCHED", "RUN_ADDED", "TICK_SUCCESS",
)  # fmt: skip
TICK = ".dagster/scheduled_execution_time"
LONGEST_SECONDS = 60
BERLIN = ZoneInfo("Europe/Berlin")
FIRST = {
    "daily_schedule": dt.datetime(2026, 7, 1, 6, tzinfo=BERLIN),
    "fast_lane_schedule": dt.datetime(2026, 7, 1, 6, 1, tzinfo=BERLIN),
}
EVERY = {"daily_schedule": dt.timedelta(days=1), "fast_lane_schedule": dt.timedelta(minutes=1)}


class Daemon:
    """The part of Dagster's daemon that looks at schedules, for one company."""

    def __init__(self, company: Company, schedule: str) -> None:
        self.company, self.schedule = company, schedule

    def looks(self, *times: dt.datetime, dies_at: str | None = None) -> bool:
        """Let a daemon start, look what is due at each of the times, and end; whether it died."""
        flags = {self.schedule: {dies_at: signal.SIGKILL}} if dies_at else None

        def look() -> None:
            origin = InProcessCodeLocationOrigin(
                LoadableTargetOrigin(
                    executable_path=sys.executable, module_name="orchestration.definitions"
                ),
                location_name="healthloop",
            )
            with (
                freeze_time(times[0]),
                instance_of(self.company) as instance,
                WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as at,
            ):
                for now in times:
                    [*launch_scheduled_runs(at, _logger(), now, {}, debug_crash_flags=flags)]

        return _in_a_fork(look)

    def finish_runs(self) -> None:
        """Whatever waits in the queue is over (how, does not matter here)."""

        def finish() -> None:
            with instance_of(self.company) as instance:
                for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
                    instance.report_run_canceled(run)

        _in_a_fork(finish)

    def runs(self) -> list[dg.DagsterRun]:
        """The runs that the schedule has made so far."""
        with instance_of(self.company) as instance:
            return [
                *instance.get_runs(dg.RunsFilter(tags={"dagster/schedule_name": self.schedule}))
            ]


def _logger() -> logging.Logger:
    logger = logging.getLogger("daemon")
    logger.setLevel(logging.CRITICAL)
    return logger


def _in_a_fork(what: Callable[[], None]) -> bool:
    """Do something in a process of its own; whether that was killed."""
    process = os.fork()
    if process == 0:
        try:
            signal.alarm(LONGEST_SECONDS)
            what()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, status
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main(home: Path, schedule: str, meanwhile: str) -> None:
    """Kill a daemon at each point, restart it twice, and print what the ticks came to."""
    os.environ["HEALTHLOOP_HOME"] = str(home)
    daemon, ticks = Daemon(read_company(home), schedule), {}
    first, every = FIRST[schedule], EVERY[schedule]
    daemon.looks(first - dt.timedelta(seconds=30))
    for number, point in enumerate(POINTS):
        due = first + number * every
        killed = daemon.looks(due + dt.timedelta(seconds=1), dies_at=point)
        if meanwhile == "finished":
            daemon.finish_runs()
        daemon.looks(due + dt.timedelta(seconds=10), due + dt.timedelta(seconds=20))
        daemon.finish_runs()
        ticks[due.astimezone(dt.UTC).isoformat()] = {"point": point, "killed": killed, "runs": 0}
    for run in daemon.runs():
        ticks[run.tags[TICK]]["runs"] += 1
    print(json.dumps([*ticks.values()]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
