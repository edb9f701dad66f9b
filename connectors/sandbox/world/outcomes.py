"""What comes of the causes: renewals, departures, and contracts that shrink or grow."""

from dataclasses import dataclass

import numpy as np

from connectors.sandbox.world.causes import Causes
from connectors.sandbox.world.population import Population, add_months
from connectors.sandbox.world.writing import NEVER, Flags, Floats, Ints

KINDS = ("renewed", "churned", "contracted", "expanded")
RENEWED, CHURNED, CONTRACTED, EXPANDED = range(4)
YEARLY_CHURN = (0.08, 0.13, 0.25)
_SHARE_AT_RENEWAL = 0.6
_PUSH = 1.7  # of one standard deviation of the causes, on the odds of leaving
_PENDING_MONTHS = 3


@dataclass(frozen=True)
class Outcomes:
    """One row per outcome, ordered by day, then account.

    `at_renewal` is false for what happens between two renewals. Amounts are yearly, in the
    account's own currency. `notice_day` is when a departing customer said so (else NEVER).
    Outcomes after today are pending: only a notice may give them away.
    """

    account: Ints
    day: Ints
    kind: Ints
    at_renewal: Flags
    arr_before: Floats
    arr_after: Floats
    notice_day: Ints

    def where(self, chosen: Flags) -> "Outcomes":
        """Only the chosen rows."""
        return Outcomes(**{name: getattr(self, name)[chosen] for name in vars(self)})


@dataclass(frozen=True)
class Futures:
    """All outcomes, and per account the day on which it ends and whether its use tells of it.

    `fade_day` is when a departing account begins to use less (NEVER: no warning at all), `fade_to`
    what is left of its use at the end.
    """

    outcomes: Outcomes
    end_day: Ints
    notice_day: Ints
    fade_day: Ints
    fade_to: Floats
    risk: Floats
    month_days: Ints


def make_futures(
    population: Population, causes: Causes, *, seed: int, first_day: int, today: int
) -> Futures:
    """Let chance decide, month by month, with the odds that the causes set two months earlier."""
    random = np.random.default_rng([seed, 3])
    first_month = np.array([first_day])
    months = add_months(first_month, np.arange(_months(first_day, today) + _PENDING_MONTHS))
    risk = _standardised(_push_to_leave(causes, months), population.segment)
    growth = _standardised(_push_to_grow(causes, months), population.segment)
    renewal, ordinary = _occasions(population, months)
    odds = _calibrated(population, risk, renewal, ordinary, _months(first_day, today))
    outcomes = _play(random, population, months, odds, risk, growth, renewal, ordinary)
    notice = np.maximum(
        _notices(random, population, outcomes), population.start_day[outcomes.account] + 1
    )
    outcomes = Outcomes(**{**vars(outcomes), "notice_day": notice})
    end, told = np.full(len(population), NEVER), np.full(len(population), NEVER)
    gone = outcomes.where(outcomes.kind == CHURNED)
    end[gone.account], told[gone.account] = gone.day, gone.notice_day
    fades = random.random(len(population)) < 0.65
    fade_day = np.where(
        fades & (end < NEVER), end - random.integers(40, 170, len(population)), NEVER
    )
    fade_to = random.uniform(0.15, 0.65, len(population))
    return Futures(outcomes, end, told, fade_day, fade_to, risk, months)


def _months(first_day: int, today: int) -> int:
    """Months from the first day to today, the current one included."""
    ends = np.array([first_day, today]).astype("datetime64[D]").astype("datetime64[M]")
    return int(ends[1].astype(np.int64) - ends[0].astype(np.int64)) + 1


def _push_to_leave(causes: Causes, months: Ints) -> Floats:
    """Causes of 60 and 20 days before each month, joined into one push, (accounts, months)."""
    push = np.zeros((len(causes.fit), len(months)))
    for days_before in (60, 20):
        week = causes.week_of(months - days_before)
        push += (
            -4.5 * causes.value[:, week]
            - 1.1 * causes.champion[:, week]
            + 2.6 * causes.pressure[:, week]
            - 0.25 * causes.fit[:, None]
        )
    return push


def _push_to_grow(causes: Causes, months: Ints) -> Floats:
    week = causes.week_of(months - 45)
    return (
        4.0 * causes.value[:, week]
        + 0.6 * causes.champion[:, week]
        - 1.6 * causes.pressure[:, week]
        + 0.4 * causes.fit[:, None]
    )


def _standardised(push: Floats, segment: Ints) -> Floats:
    """Zero mean and unit spread within each segment."""
    result = push.copy()
    for code in np.unique(segment):
        own = push[segment == code]
        result[segment == code] = (own - own.mean()) / own.std()
    return result


def _occasions(population: Population, months: Ints) -> tuple[Flags, Flags]:
    """For accounts and months: does a contract of a year or more renew, or may it just happen?"""
    as_month = months.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    began = population.start_day.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    age = as_month[None, :] - began[:, None]
    live = (age > 0) & population.customer[:, None]
    term = population.term_months[:, None]
    renewal = live & (term > 1) & (age % term == 0)
    return renewal, live & ~renewal


def _calibrated(
    population: Population, risk: Floats, renewal: Flags, ordinary: Flags, known_months: int
) -> Floats:
    """The chance to leave in each month; each segment loses its share of customers a year."""
    chance = np.zeros_like(risk)
    rolling = population.term_months == 1
    for _ in range(4):
        kept = np.cumprod(1 - chance, axis=1) / (1 - chance)  # at the beginning of each month
        for code, yearly in enumerate(YEARLY_CHURN):
            for monthly_contract in (False, True):
                own = (population.segment == code) & (rolling == monthly_contract)
                if not own.any():
                    continue
                weight = kept * own[:, None]
                weight[:, known_months:] = 0
                expected = yearly / 12 * (weight * (renewal | ordinary)).sum()
                shares = ((ordinary, 1.0),) if monthly_contract else (
                    (renewal, _SHARE_AT_RENEWAL), (ordinary, 1 - _SHARE_AT_RENEWAL)
                )  # fmt: skip
                for occasion, share in shares:
                    here = occasion & own[:, None]
                    base = _solve(risk[here], weight[here], expected * share)
                    chance[here] = _logistic(base + _PUSH * risk[here])
    return chance


def _solve(risk: Floats, weight: Floats, expected: float) -> float:
    """The intercept with which the weighted chances add up to what is expected, by bisection."""
    low, high = -15.0, 5.0
    for _ in range(40):
        middle = (low + high) / 2
        too_many = (weight * _logistic(middle + _PUSH * risk)).sum() > expected
        low, high = (low, middle) if too_many else (middle, high)
    return (low + high) / 2


def _logistic(odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-odds))


def _play(
    random: np.random.Generator,
    population: Population,
    months: Ints,
    chance: Floats,
    risk: Floats,
    growth: Floats,
    renewal: Flags,
    ordinary: Flags,
) -> Outcomes:
    """Walk through the months: who leaves, shrinks, grows or simply renews."""
    arr = population.arr.copy()
    here = np.ones(len(population), dtype=bool)
    day_of_month = population.start_day - population.start_day.astype("datetime64[D]").astype(
        "datetime64[M]"
    ).astype("datetime64[D]").astype(np.int64)
    rows = []
    for month, first in enumerate(months.tolist()):
        draw, size = random.random((3, len(arr))), random.uniform(0.1, 0.45, len(arr))
        due, usual = here & renewal[:, month], here & ordinary[:, month]
        leave = (due | usual) & (draw[0] < chance[:, month])
        shrink = _logistic(np.where(due, -3.3, -6.2) + 1.2 * risk[:, month])
        grow = _logistic(np.where(due, -1.8, -5.0) + 1.1 * growth[:, month])
        shrink_now = (due | usual) & ~leave & (draw[1] < shrink)
        grow_now = (due | usual) & ~leave & ~shrink_now & (draw[2] < grow)
        kind = np.select([leave, shrink_now, grow_now, due], [CHURNED, CONTRACTED, EXPANDED, 0], -1)
        some_day = random.integers(0, 28, len(arr))
        after = np.select(
            [leave, shrink_now, grow_now], [arr * 0, arr * (1 - size), arr * (1 + size)], arr
        )
        after = np.round(after, -1)
        chosen = np.flatnonzero(kind >= 0)
        day = first + np.where(due, day_of_month, some_day)
        rows.append((chosen, day[chosen], kind[chosen], due[chosen], arr[chosen], after[chosen]))
        arr, here = after, here & ~leave
    account, day, kind, due, before, after = (
        np.concatenate(part) for part in zip(*rows, strict=True)
    )
    order = np.lexsort((account, day))
    never = np.full(len(order), NEVER)
    return Outcomes(
        account[order], day[order], kind[order], due[order], before[order], after[order], never
    )


def _notices(random: np.random.Generator, population: Population, outcomes: Outcomes) -> Ints:
    """When departing customers said so: half give notice in time, half just let it lapse."""
    segment = population.segment[outcomes.account]
    rolling = population.term_months[outcomes.account] == 1
    longest = np.where(rolling, 30, np.array([100, 75, 45])[segment])
    early = (random.random(len(segment)) * longest).astype(np.int64) + 5
    lapse = random.integers(0, 6, len(segment))
    lead = np.where(random.random(len(segment)) < 0.5, early, lapse)
    return np.where(outcomes.kind == CHURNED, outcomes.day - lead, NEVER)
