"""`signals.source_health`: what is known of each stream's state, one row for each check."""

import datetime as dt
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

LAST_LOOK = dt.timedelta(hours=1)
"""A day that was looked at so shortly before its end was looked at as a whole."""


@dataclass(frozen=True)
class StreamHealth:
    """The state of one stream: ok, suspect, stale or down, and why.

    `since` is the first check that found it in this state. `good_day` is the last day whose data
    is believed, where the state is about the data of certain days.
    """

    source: str
    stream: str
    status: str
    reason: str | None
    last_load_at: dt.datetime | None
    rows: int
    good_day: dt.date | None = None
    since: dt.datetime | None = None


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
    good_day: dt.date | None = None,
    day_end: dt.datetime | None = None,
) -> None:
    """Record the state of a stream; orchestration says `down` through this.

    A build leaves `down` standing until a load arrives or somebody records `ok`: that old rows
    are still in the lake says nothing about the source.

    What is not given (`last_load_at`, `rows` of the lake) is taken over from the check before. Two
    states of one instant (a clock that stands still) keep their order, a microsecond apart.

    `day_end` is the end of the last day that is over. A run scores that day only now, so a failure
    tells of it too, unless its last hour was looked at and found well.
    """
    checked_at = naive_utc(checked_at)
    former = latest_health(connection, source, stream)
    if status != "ok" and day_end is not None and naive_utc(day_end) <= checked_at:
        moment = naive_utc(day_end) - dt.timedelta(microseconds=1)
        if _tells_of_the_day(connection, source, stream, moment, good_day):
            _insert(connection, source, stream, moment, status, reason, former, good_day)
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
        "INSERT INTO signals.source_health VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [source, stream, checked_at, status, reason, last_load_at, rows or 0, good_day],
    )


def _tells_of_the_day(
    connection: DuckDBPyConnection,
    source: str,
    stream: str,
    moment: dt.datetime,
    good_day: dt.date | None,
) -> bool:
    """Whether a failure found now says something of the day that ended at a moment."""
    row = connection.execute(
        "SELECT arg_max(status, checked_at), max(checked_at) FROM signals.source_health "
        "WHERE source = ? AND stream = ? AND checked_at <= ?",
        [source, stream, moment],
    ).fetchone()
    status, looked_at = row or (None, None)
    (since,) = connection.execute(
        "SELECT count(*) FROM signals.source_health "
        "WHERE source = ? AND stream = ? AND checked_at > ?",
        [source, stream, moment],
    ).fetchone() or (0,)
    if good_day is not None:  # what is wrong with a day shows only once it is over
        return status in (None, "ok") and good_day < moment.date()
    return not since and (looked_at is None or looked_at < moment - LAST_LOOK)


def _insert(
    connection: DuckDBPyConnection,
    source: str,
    stream: str,
    checked_at: dt.datetime,
    status: str,
    reason: str | None,
    former: StreamHealth | None,
    good_day: dt.date | None,
) -> None:
    last_load_at, rows = (former.last_load_at, former.rows) if former else (None, 0)
    connection.execute(
        "INSERT INTO signals.source_health VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [source, stream, checked_at, status, reason, last_load_at, rows, good_day],
    )


_LATEST = """
    SELECT source, stream, status, reason, last_load_at, rows, good_day, (
        SELECT min(s.checked_at) FROM signals.source_health AS s
        WHERE s.source = h.source AND s.stream = h.stream AND s.checked_at > coalesce((
            SELECT max(o.checked_at) FROM signals.source_health AS o
            WHERE o.source = h.source AND o.stream = h.stream AND o.status <> h.status
        ), '-infinity'::TIMESTAMP)
    ) AS since
    FROM (
        FROM signals.source_health
        QUALIFY row_number() OVER (PARTITION BY source, stream ORDER BY checked_at DESC) = 1
    ) AS h
"""


def latest_health(connection: DuckDBPyConnection, source: str, stream: str) -> StreamHealth | None:
    """What was last recorded of a stream."""
    row = connection.execute(
        f"SELECT * FROM ({_LATEST}) WHERE source = ? AND stream = ?", [source, stream]
    ).fetchone()
    return StreamHealth(*row) if row else None


def all_health(connection: DuckDBPyConnection) -> dict[tuple[str, str], StreamHealth]:
    """What was last recorded of every stream, by (source, stream)."""
    rows = connection.execute(f"{_LATEST} ORDER BY source, stream").fetchall()
    return {(row[0], row[1]): StreamHealth(*row) for row in rows}


def naive_utc(moment: dt.datetime) -> dt.datetime:
    """An instant as the naive UTC timestamp that the warehouse stores."""
    return moment if moment.tzinfo is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
