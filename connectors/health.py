"""`signals.source_health`: what is known of each stream's state, one row for each check."""

import datetime as dt
from dataclasses import dataclass

from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class StreamHealth:
    """The state of one stream: ok, suspect, stale or down, and why."""

    source: str
    stream: str
    status: str
    reason: str | None
    last_load_at: dt.datetime | None
    rows: int


def record_health(
    connection: DuckDBPyConnection,
    source: str,
    stream: str,
    status: str,
    reason: str | None,
    checked_at: dt.datetime,
    *,
    last_load_at: dt.datetime | None = None,
    rows: int | None = None,
) -> None:
    """Record the state of a stream; orchestration says `down` or `stale` through this.

    A build leaves `down` and `stale` standing until a load arrives or somebody records `ok`: that
    old rows are still in the lake says nothing about the source.

    What is not given (`last_load_at`, `rows` of the lake) is taken over from the check before. Two
    states of one instant (a clock that stands still) keep their order, a microsecond apart.
    """
    checked_at = naive_utc(checked_at)
    former = latest_health(connection, source, stream)
    if former is not None:
        last_load_at = last_load_at or former.last_load_at
        rows = former.rows if rows is None else rows
        (checked_before,) = connection.execute(
            "SELECT max(checked_at) FROM signals.source_health WHERE source = ? AND stream = ?",
            [source, stream],
        ).fetchone() or (checked_at,)
        if checked_before >= checked_at:
            changed = former.status != status
            checked_at = checked_before + dt.timedelta(microseconds=1 if changed else 0)
    connection.execute(
        "DELETE FROM signals.source_health WHERE source = ? AND stream = ? AND checked_at = ?",
        [source, stream, checked_at],
    )
    connection.execute(
        "INSERT INTO signals.source_health VALUES (?, ?, ?, ?, ?, ?, ?)",
        [source, stream, checked_at, status, reason, last_load_at, rows or 0],
    )


def latest_health(connection: DuckDBPyConnection, source: str, stream: str) -> StreamHealth | None:
    """What was last recorded of a stream."""
    row = connection.execute(
        "SELECT source, stream, status, reason, last_load_at, rows FROM signals.source_health "
        "WHERE source = ? AND stream = ? ORDER BY checked_at DESC LIMIT 1",
        [source, stream],
    ).fetchone()
    return StreamHealth(*row) if row else None


def naive_utc(moment: dt.datetime) -> dt.datetime:
    """An instant as the naive UTC timestamp that the warehouse stores."""
    return moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
