"""How far each source can be trusted, as of a day.

A source that delivers is read as of the end of the day. One that has a failing stream is read as
of the last good check of it, for the tables that the stream feeds, so that their values stand still
until it delivers again. A stream that
flows continuously (`stale_after`) is measured by its own newest day: a pipe that stops silently
stands still too.
"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import duckdb

from contracts.company import Company
from scoring.expressions import literal

NEARLY_OVER = dt.timedelta(minutes=1)
"""A day of which no more than this is left was looked at as a whole."""


@dataclass(frozen=True)
class AsOf:
    """A day, the instant at which it is over (UTC, naive) and the company's money and zone."""

    day: dt.date
    instant: dt.datetime
    currency: str
    time_zone: str

    @classmethod
    def of(cls, company: Company, day: dt.date) -> "AsOf":
        """The end of a company's day."""
        return cls(
            day=day,
            instant=company.end_of(day).replace(tzinfo=None),
            currency=company.settings.currency,
            time_zone=company.settings.time_zone,
        )

    def end_of(self, day: dt.date) -> dt.datetime:
        """The instant (UTC, naive) at which a day is over in the company's time zone."""
        midnight = dt.datetime.combine(
            day + dt.timedelta(days=1), dt.time(), ZoneInfo(self.time_zone)
        )
        return midnight.astimezone(dt.UTC).replace(tzinfo=None)

    def day_of(self, instant: dt.datetime) -> dt.date:
        """The company's day of an instant (UTC, naive)."""
        return instant.replace(tzinfo=dt.UTC).astimezone(ZoneInfo(self.time_zone)).date()


@dataclass(frozen=True)
class Clock:
    """How far one source can be trusted for one table.

    `first_day` and `newest_day` are those of its rows, `known_until` the instant after which
    nothing counts that it said, `good_until` the day on which that instant lies.
    """

    source: str
    first_day: dt.date | None
    newest_day: dt.date | None
    known_until: dt.datetime
    good_until: dt.date
    suspect: bool = False

    def end(self, *, continuous: bool) -> dt.date:
        """The day on which the windows over this source end."""
        if continuous and self.newest_day is not None:
            return min(self.good_until, self.newest_day)
        return self.good_until

    @property
    def history_days(self) -> int | None:
        """How many days its rows span, up to the end of its windows."""
        if self.first_day is None:
            return None
        return (self.end(continuous=True) - self.first_day).days + 1


def read_clocks(
    connection: duckdb.DuckDBPyConnection, table: str, as_of: AsOf, *, continuous: bool
) -> list[Clock]:
    """The clock of every source that feeds a table; its days only where they are asked for."""
    sources = connection.execute(
        'SELECT DISTINCT source FROM signals.feeds WHERE "table" = ? ORDER BY 1', [table]
    ).fetchall()
    failing = _failing(connection, table, as_of)
    clocks = []
    for (source,) in sources:
        first, newest = _days(connection, table, source, as_of) if continuous else (None, None)
        hold = failing.get(source, _Hold(as_of.instant, as_of.day))
        known_until = min(_over(hold.good_at, as_of) or as_of.instant, as_of.instant)
        good_until = hold.good_day or as_of.day
        if known_until < as_of.instant:
            good_until = min(good_until, as_of.day_of(hold.good_at or known_until))
        good_until = min(good_until, as_of.day)
        suspect = hold.good_at is None and hold.good_day is None
        clocks.append(Clock(source, first, newest, known_until, good_until, suspect=suspect))
    return clocks


def _over(moment: dt.datetime | None, as_of: AsOf) -> dt.datetime | None:
    """The end of an instant's day where it is all but over: what is known of it counts as known."""
    if moment is None:
        return None
    end = as_of.end_of(as_of.day_of(moment))
    return end if end - moment <= NEARLY_OVER else moment


def _days(
    connection: duckdb.DuckDBPyConnection, table: str, source: str, as_of: AsOf
) -> tuple[dt.date | None, dt.date | None]:
    """The first and the newest day of a source's rows, as they were known.

    Rows lie by day, so each of the two is found in a few row groups; min and max read all.
    """
    instant = f"TIMESTAMP '{as_of.instant}'"
    visible = (
        f"SELECT day FROM signals.{table} WHERE source = {literal(source)} "
        f"AND day <= {literal(as_of.day)} AND known_at <= {instant} "
        f"AND (superseded_at IS NULL OR superseded_at > {instant}) AND deleted IS NOT TRUE"
    )
    row = connection.execute(
        f"SELECT ({visible} ORDER BY day LIMIT 1), ({visible} ORDER BY day DESC LIMIT 1)"
    ).fetchone()
    return row or (None, None)


@dataclass(frozen=True)
class _Hold:
    """Up to when a failing stream is believed: its last good check, and the last good day.

    Without any it never said anything that can be believed.
    """

    good_at: dt.datetime | None
    good_day: dt.date | None = None


def _failing(connection: duckdb.DuckDBPyConnection, table: str, as_of: AsOf) -> dict[str, _Hold]:
    """The sources whose streams for a table fail; each is as good as the worst of these."""
    checks = connection.execute(
        """
        WITH checks AS (
            SELECT DISTINCT f.source, h.source AS owner, h.stream, h.checked_at, h.status,
                h.good_day
            FROM signals.feeds AS f
            JOIN signals.source_health AS h ON h.source = f.stream_source AND h.stream = f.stream
            WHERE f."table" = $table AND h.checked_at <= $instant
        ),
        good AS (
            SELECT source, owner, stream, max(checked_at) FILTER (WHERE status = 'ok') AS good_at
            FROM checks GROUP BY ALL
        )
        SELECT source, any_value(good_at),
            min(good_day) FILTER (WHERE coalesce(checked_at > good_at, true))
        FROM checks JOIN good USING (source, owner, stream)
        GROUP BY source, owner, stream HAVING arg_max(status, checked_at) <> 'ok'
        """,
        {"table": table, "instant": as_of.instant},
    ).fetchall()
    failing: dict[str, _Hold] = {}
    for source, good_at, good_day in checks:
        held = failing.get(source)
        if held is None:
            failing[source] = _Hold(good_at, good_day)
        elif _NEVER in (held, _Hold(good_at, good_day)):
            failing[source] = _NEVER
        else:
            failing[source] = _Hold(
                min((at for at in (held.good_at, good_at) if at), default=None),
                min((day for day in (held.good_day, good_day) if day), default=None),
            )
    return failing


_NEVER = _Hold(None)
