"""How many rows a day of a stream usually brings, learned from its own past.

Volume is counted by the day that the data is about, not by load: pulls may come every hour or once
a week. Each weekday is measured by its own past, since few people work on Sundays.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

DayRows = Mapping[dt.date, int]
"""Rows by the day that they are about. Days between the first and the last count as empty."""

WEEKS = 8
"""How far back the past of a day is looked at."""

FEWEST_WEEKDAYS = 4
"""A weekday is measured by itself where it was seen so often, else by all days together."""

FEWEST_DAYS = 14
"""All days together say nothing before there are so many."""

ENOUGH_ROWS = 20
"""Of fewer rows than these nothing can be said."""

LEAST_SHARE = 0.4
"""A day with less than this share of what is usual may be short."""

SPREADS = 3
"""How many times the usual spread a short day lies below what is usual."""

FEWEST_VALUES = 20
"""So many of the newest values must be equal before that is looked at."""

CHANCE = 1e-6
"""Newest values that are all equal by a smaller chance than this did not come by chance."""

LONGEST_LOOK_DAYS = 28
"""How far back days are looked at that may have been short."""


@dataclass(frozen=True)
class Expectation:
    """What is usual for a day: `rows`, and the number that a day falls below only by a fault."""

    rows: float
    limit: float
    of_weekday: bool


@dataclass(frozen=True)
class Shortfall:
    """Days with too few rows: from `first` to `day`, of which `rows` and what is usual."""

    first: dt.date
    day: dt.date
    rows: int
    usual: Expectation
    all_empty: bool

    @property
    def reason(self) -> str:
        """The numbers, for a person."""
        when = f"on a {self.day:%A}" if self.usual.of_weekday else "on a day"
        what = f"{self.rows:,} rows on {self.day}"
        if self.all_empty:
            what = f"no rows {'since' if self.first < self.day else 'on'} {self.first}"
        return f"{what}; {self.usual.rows:,.0f} are usual {when}"


def expected_rows(history: DayRows, day: dt.date) -> Expectation | None:
    """What a day should bring by the days before it; None where too few are known.

    >>> steady = {dt.date(2026, 1, 1) + dt.timedelta(n): 100 for n in range(60)}
    >>> expected_rows(steady, dt.date(2026, 3, 1)).rows
    100.0
    """
    first = min(history, default=day)
    days = [day - dt.timedelta(back) for back in range(1, 7 * WEEKS + 1)]
    past = [history.get(d, 0) for d in days if d >= first]
    alike = past[6::7]
    if len(alike) >= FEWEST_WEEKDAYS:
        rows = float(median(alike))
        off = median([abs(count - rows) for count in alike])
        spread = max(1.4826 * off, rows**0.5)
        limit = min(LEAST_SHARE * rows, rows - SPREADS * spread)
        # Zero is below every spread where it never was before.
        return Expectation(rows, max(limit, 1.0) if min(alike) else limit, True)
    if len(past) < FEWEST_DAYS:
        return None
    rows, fewest = float(median(past)), min(past)
    limit = min(LEAST_SHARE * rows, fewest - SPREADS * fewest**0.5)
    return Expectation(rows, limit, False)


def shortfall(
    history: DayRows, last: dt.date, *, unjudged: frozenset[dt.date] = frozenset()
) -> Shortfall | None:
    """The days up to `last` that lack rows, or None where the last one that can be judged is good.

    Args:
        history: Rows by day.
        last: The newest day that is complete.
        unjudged: Days to pass over, because only a part of them was read so far.
    """
    short: list[tuple[dt.date, Expectation]] = []
    for back in range(LONGEST_LOOK_DAYS):
        day = last - dt.timedelta(back)
        usual = None if day in unjudged else expected_rows(history, day)
        if usual is None or usual.rows < ENOUGH_ROWS:
            continue
        if history.get(day, 0) >= usual.limit:
            break
        short.append((day, usual))
    if not short:
        return None
    day, usual = short[0]
    empty = not any(history.get(d, 0) for d, _ in short)
    return Shortfall(short[-1][0], day, history.get(day, 0), usual, empty)


def frozen_value(newest: list[float], shares: Mapping[float, float]) -> float | None:
    """The one value that all the newest rows hold, where that cannot be chance.

    Args:
        newest: The values of the newest rows.
        shares: How often each value came before, as a share of all.
    """
    if len(newest) < FEWEST_VALUES or len(set(newest)) > 1 or not shares:
        return None
    value = newest[0]
    return value if shares.get(value, 0.0) ** len(newest) < CHANCE else None
