"""Forgetting old runs of the fast lane, which runs every minute.

Dagster keeps all runs for ever. One that found nothing to do leaves half a megabyte, which would be
0.7 GB a day.
"""

import datetime as dt
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as checks

OURS = {"healthloop/job": "fast_lane"}
"""The tag of all its runs: in a shared Dagster others may have a job of the same name."""

QUIET_RUN = {"healthloop/quiet": "true"}
"""The tag of runs that did nothing which anybody would look for later."""

KEEP_QUIET = dt.timedelta(days=1)
KEEP = dt.timedelta(days=7)
MOST_AT_ONCE = 5
"""Forgetting one takes about 0.15 seconds, and somebody waits for it every minute."""

ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def forget_old_runs(instance: dg.DagsterInstance, *, now: dt.datetime) -> None:
    """Delete a few of the oldest runs: quiet ones after a day, others after a week."""
    for run_id in _old(instance, now):
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        _forget_what_is_left(instance, run_id)


def _old(instance: dg.DagsterInstance, now: dt.datetime) -> list[str]:
    """The oldest runs that may go, no more than are forgotten at once."""
    done = [dg.DagsterRunStatus.SUCCESS]
    before, long_before = now - KEEP_QUIET, now - KEEP
    quiet = dg.RunsFilter(statuses=done, tags=OURS | QUIET_RUN, created_before=before)
    other = dg.RunsFilter(statuses=ENDED, tags=OURS, created_before=long_before)
    runs = [
        record.dagster_run.run_id
        for which in (quiet, other)
        for record in instance.get_run_records(which, limit=MOST_AT_ONCE, ascending=True)
    ]
    return list(dict.fromkeys(runs))[:MOST_AT_ONCE]


def _forget_what_is_left(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give the disk back what `delete_run` leaves in SQLite: the results of the run's checks, and
    the file of its events, empty but as large as before.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return
    with storage.index_connection() as connection:
        connection.execute(checks.delete().where(checks.c.run_id == run_id))
    file = storage.path_for_shard(run_id)
    for ending in ("", "-wal", "-shm"):
        Path(file + ending).unlink(missing_ok=True)
