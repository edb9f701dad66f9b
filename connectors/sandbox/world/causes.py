"""What nobody can see: why customers stay, leave or grow, week by week.

Value found, the champion, price pressure, product fit and shocks are drawn first and know nothing
of outcomes; `outcomes.py` lets them push, and chance decides. Signals follow the same causes, late
and with noise, so a score can be good and cannot be perfect.
"""

from dataclasses import dataclass

import numpy as np

from connectors.sandbox.world.population import Population
from connectors.sandbox.world.writing import NEVER, Flags, Floats, Ints, repeated

LEAD_WEEKS = 26
EVENT_KINDS = ("layoffs", "merger", "acquisition", "funding")
_EVENT_RATES_PER_YEAR = (0.05, 0.025, 0.035, 0.05)
_SEASON_BY_MONTH = (0.97, 1.0, 1.04, 1.0, 0.98, 0.97, 0.88, 0.80, 1.02, 1.05, 1.04, 0.78)


@dataclass(frozen=True)
class Causes:
    """Hidden causes. Arrays are (accounts,) or (accounts, weeks); weeks start at `week_days`.

    `value` runs from 0 (none found) to 1, `champion` says that there is one, `pressure` runs from
    0 to 1, `fit` is a standard normal. `events` has a row per news item: account, kind, day.
    """

    week_days: Ints
    fit: Floats
    value: Floats
    value_target: Floats
    value_days: Floats
    champion: Flags
    champion_left_day: Ints
    champion_replaced_day: Ints
    pressure: Floats
    squeeze_day: Ints
    events: Ints

    def week_of(self, days: Ints) -> Ints:
        """The index of the week in which each day lies, kept within the known weeks."""
        return np.clip((days - self.week_days[0]) // 7, 0, len(self.week_days) - 1)


def season(days: Ints) -> Floats:
    """How busy a day is in the year: slow in August and in the last days of December."""
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    return np.array(_SEASON_BY_MONTH)[months]


def make_causes(population: Population, *, seed: int, first_day: int, today: int) -> Causes:
    """Draw the causes from half a year before the history until four months after today."""
    random = np.random.default_rng([seed, 2])
    weeks = np.arange(first_day - LEAD_WEEKS * 7, today + 126, 7)
    accounts = len(population)
    fit = random.normal(0, 1, accounts)
    events = _draw_events(random, population, int(weeks[0]), today)
    left, replaced = _champions(random, population, events, int(weeks[-1]))
    champion = (weeks[None, :] < left[:, None]) | (weeks[None, :] >= replaced[:, None])
    squeeze = _first_time(random, population.start_day, 0.16, int(weeks[-1]), weeks[0])
    pressure = _pressure(random, weeks, squeeze, events, accounts)
    target, days = _value_found(random, fit)
    value = _value_path(random, weeks, population.start_day, target, days, champion, left)
    return Causes(
        week_days=weeks, fit=fit, value=value, value_target=target, value_days=days,
        champion=champion, champion_left_day=left, champion_replaced_day=replaced,
        pressure=pressure, squeeze_day=squeeze, events=events,
    )  # fmt: skip


def _first_time(
    random: np.random.Generator, start: Ints, per_year: float, end: int, begin: int
) -> Ints:
    """The day of something that happens at a steady rate; NEVER where it lies after `end`."""
    day = np.maximum(start, begin) + (random.exponential(365 / per_year, len(start))).astype(int)
    return np.where(day > end, NEVER, day)


def _draw_events(
    random: np.random.Generator, population: Population, begin: int, today: int
) -> Ints:
    """News about customers: rows of account, kind and day."""
    years = (today - begin) / 365
    found = []
    for kind, rate in enumerate(_EVENT_RATES_PER_YEAR):
        owner = repeated(random.poisson(rate * years, len(population)))
        days = random.integers(begin, today, len(owner))
        found.append(np.stack([owner, np.full(len(owner), kind), days], axis=1))
    return np.concatenate(found)


def _champions(
    random: np.random.Generator, population: Population, events: Ints, end: int
) -> tuple[Ints, Ints]:
    """When the champion left, and when another took over: half of the time, after 1 to 6 months."""
    left = _first_time(random, population.start_day, 0.17, end, events[:, 2].min(initial=end))
    account, kind, day = events.T
    cost_the_job = random.random(len(events)) < np.array([0.3, 0.4, 0.2, 0.0])[kind]
    cost_the_job &= day > population.start_day[account]
    np.minimum.at(left, account[cost_the_job], day[cost_the_job])
    later = left + random.integers(30, 180, len(left))
    return left, np.where((left < NEVER) & (random.random(len(left)) < 0.5), later, NEVER)


def _pressure(
    random: np.random.Generator, weeks: Ints, squeeze: Ints, events: Ints, accounts: int
) -> Floats:
    """Price pressure: a temper of its own, a squeeze of nine months, layoffs, the end of a year."""
    level = np.repeat(random.normal(-1.2, 0.7, (accounts, 1)), len(weeks), axis=1)
    since = weeks[None, :] - squeeze[:, None]
    level += 2.2 * ((since >= 0) & (since < 270))
    for account, kind, day in events[events[:, 1] != 3].tolist():
        level[account, (weeks >= day) & (weeks < day + 200)] += (1.3, 0.7, 0.5)[kind]
    months = weeks.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    level += 0.3 * (months >= 9)[None, :]
    return 1 / (1 + np.exp(-level))


def _value_found(random: np.random.Generator, fit: Floats) -> tuple[Floats, Floats]:
    """How much value an account can find, and in how many days; one in eight gets stuck early."""
    target = 1 / (1 + np.exp(-(0.7 + 0.9 * fit + random.normal(0, 0.6, len(fit)))))
    stuck = random.random(len(fit)) < 0.12
    return np.where(stuck, 0.35 * target, target), random.lognormal(np.log(60), 0.5, len(fit))


def _value_path(
    random: np.random.Generator,
    weeks: Ints,
    start: Ints,
    target: Floats,
    days: Floats,
    champion: Flags,
    left: Ints,
) -> Floats:
    """Value found, by week: it grows in the onboarding, drifts, wears off without a champion."""
    age = np.maximum(weeks[None, :] - start[:, None], 0)
    grown = target[:, None] * (1 - np.exp(-age / days[:, None]))
    drift = np.zeros(len(start))
    worn = np.zeros(len(start))
    value = np.empty_like(grown)
    for week in range(len(weeks)):
        drift = 0.97 * drift + random.normal(0, 0.035, len(start))
        worn = np.where(champion[:, week], 0.95 * worn, worn + 0.03 * (0.35 - worn))
        value[:, week] = grown[:, week] + drift - worn
    return np.clip(value, 0.0, 1.0)
