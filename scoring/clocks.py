"""How far each source can be trusted, as of a day.

A source that delivers is read as of the end of the day. A source whose last checks failed is read
as of its last good check, so that its values stand still until it delivers again. A stream that
flows continuously (`stale_after`) is measured by its own newest day: a pipe that stops silently
stands still too.
"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import duckdb

from contracts.company import Company
from scoring.expressions import literal


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
    health = _last_good(connection, as_of)
    clocks = []
    for (source,) in sources:
        first, newest = _days(connection, table, source, as_of) if continuous else (None, None)
        good = health.get(source, as_of.instant)
        known_until = good or as_of.instant
        held = known_until < as_of.instant
        good_until = min(as_of.day_of(known_until), as_of.day) if held else as_of.day
        clocks.append(Clock(source, first, newest, known_until, good_until, suspect=good is None))
    return clocks


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


def _last_good(connection: duckdb.DuckDBPyConnection, as_of: AsOf) -> dict[str, dt.datetime | None]:
    """For each source that fails: the instant of its last good check, None where there is none.

    A source is as good as its worst stream. A stream that never delivered does not count against
    a source whose other streams do: nothing that it said is in any table.
    """
    rows = connection.execute(
        "SELECT source, arg_max(status, checked_at) = 'ok' AS healthy, "
        "max(checked_at) FILTER (WHERE status = 'ok') AS last_good "
        "FROM signals.source_health WHERE checked_at <= ? GROUP BY source, stream",
        [as_of.instant],
    ).fetchall()
    streams: dict[str, list[tuple[bool, dt.datetime | None]]] = {}
    for source, healthy, last_good in rows:
        streams.setdefault(source, []).append((healthy, last_good))
    failing: dict[str, dt.datetime | None] = {}
    for source, states in streams.items():
        if all(last_good is None for _, last_good in states):
            failing[source] = None
        elif broken := [good for healthy, good in states if not healthy and good is not None]:
            failing[source] = min(broken)
    return failing
