"""What customers say: the help desk (local time of New York), surveys, and news about them."""

from pathlib import Path
from typing import Any

import numpy as np

from connectors.sandbox.world.causes import EVENT_KINDS, Causes
from connectors.sandbox.world.outcomes import Futures
from connectors.sandbox.world.population import Population
from connectors.sandbox.world.writing import (
    DAY_SECONDS,
    NEVER,
    Floats,
    Ints,
    Texts,
    broken_row,
    local_text,
    pick,
    same_rows_again,
    where_true,
    with_rows,
    write_csv,
    write_json_lines,
)

HELP_DESK_ZONE = "America/New_York"
SURVEY_ZONE = "Europe/Berlin"
_PRIORITIES = ("urgent", "high", "normal", "low")
_TICKETS_PER_WEEK = (0.40, 0.16, 0.045)
_FREE_MAIL = ("gmail.com", "gmx.de", "outlook.com")


def write_help_desk(
    folder: Path, population: Population, causes: Causes, futures: Futures, *, seed: int, today: int
) -> None:
    """Write `organizations.csv` and `tickets.csv`."""
    random = np.random.default_rng([seed, 5])
    organization = np.array(
        [str(360_000_000_000 + i * 137) for i in range(len(population))], object
    )
    has = np.flatnonzero(population.has_help_desk)
    # Families are told apart by the CRM's number; two small customers with one domain are not.
    shared = population.shares_domain[has]
    external = np.where(shared, population.segment[has] < 2, random.random(len(has)) < 0.35)
    write_csv(folder / "organizations.csv", {
        "id": organization[has],
        "name": population.name[has],
        "domain_names": population.domain[has],
        "external_id": where_true(external, population.account_id[has]),
    })  # fmt: skip
    account, day = _when(random, population, causes, futures, today, per_week=_TICKETS_PER_WEEK)
    opened = day * DAY_SECONDS + _office_seconds(random, len(day), late=5)
    columns = _tickets(random, population, causes, organization, account, day, opened, today)
    columns = same_rows_again(columns, random.choice(len(day), min(15, len(day)), replace=False))
    write_csv(folder / "tickets.csv", with_rows(columns, _broken_tickets(columns)))


def _when(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    today: int,
    *,
    per_week: tuple[float, float, float],
) -> tuple[Ints, Ints]:
    """Account and day of each ticket: more in the first months, where the product fits badly,
    and where little value is found; fewer once nobody cares any more.
    """
    weeks = causes.week_days[causes.week_days <= today - 6]
    value = causes.value[:, : len(weeks)]
    age = weeks[None, :] - population.start_day[:, None]
    rate = np.array(per_week)[population.segment][:, None] * random.lognormal(
        0, 0.6, (len(population), 1)
    )
    rate = rate * (1 + 1.5 * np.exp(-np.maximum(age, 0) / 60)) * (1.5 - 0.8 * value)
    rate = rate * np.exp(-0.25 * causes.fit)[:, None]
    rate = np.where(weeks[None, :] >= futures.fade_day[:, None], rate * 0.8, rate)
    last = np.minimum(futures.end_day, population.last_day)
    open_for = (age >= 0) & (weeks[None, :] < last[:, None]) & population.has_help_desk[:, None]
    weeks_of, account = np.nonzero((counts := random.poisson(rate * open_for)).T)
    times = counts[account, weeks_of]
    account, weeks_of = np.repeat(account, times), np.repeat(weeks_of, times)
    day = weeks[weeks_of] + random.choice(
        7, len(account), p=(0.2, 0.2, 0.2, 0.18, 0.16, 0.03, 0.03)
    )
    return account, day


def _office_seconds(random: np.random.Generator, rows: int, *, late: int = 0) -> Ints:
    """A second of the day around office hours, `late` hours later for another continent (UTC)."""
    hours = np.clip(random.normal(10 + late, 2.5, rows), 0, 23.9)
    return (hours * 3600).astype(np.int64)


def _tickets(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    organization: Texts,
    account: Ints,
    day: Ints,
    opened: Ints,
    today: int,
) -> dict[str, Any]:
    """The columns of `tickets.csv`, one row per ticket in its final state."""
    rows, now = len(day), (today + 1) * DAY_SECONDS - 7_200
    fit = causes.fit[account]
    trouble = -0.8 * fit + random.normal(0, 1, rows)
    priority = np.select([trouble > 1.9, trouble > 1.0, trouble > -0.8], [0, 1, 2], 3)
    reply = opened + (random.lognormal(np.log(2.5), 0.9, rows) * 3600).astype(np.int64)
    hours = random.lognormal(np.log(20), 1.1, rows) * (1 + 0.5 * (trouble > 1))
    solved = np.maximum(opened + (hours * 3600).astype(np.int64), reply + 600)
    given_up = random.random(rows) < 0.01
    reply = np.where(reply > now, NEVER, reply)
    solved = np.where((solved > now) | given_up, NEVER, solved)
    escalated = random.random(rows) < np.array([0.35, 0.12, 0.02, 0.0])[priority]
    reopens = random.poisson(0.12 + 0.15 * (trouble > 1))
    mood = 0.75 + 0.5 * causes.value[account, causes.week_of(day)] - 0.22 * trouble
    answered = (random.random(rows) < 0.3) & (solved < NEVER)
    rating = np.where(mood + random.normal(0, 0.3, rows) > 0.6, "good", "bad").astype(object)
    status = np.where(solved < NEVER, np.where(now - solved > 5 * DAY_SECONDS, "closed", "solved"),
                      np.where(reply < NEVER, "pending", "new"))  # fmt: skip
    updated = np.where(solved < NEVER, solved, np.where(reply < NEVER, reply, opened))
    text = {
        name: local_text(values, HELP_DESK_ZONE, with_offset=True)
        for name, values in (("created_at", opened), ("first_reply_at", reply),
                             ("solved_at", solved), ("updated_at", updated))
    }  # fmt: skip
    return {
        "id": np.arange(50_001, 50_001 + rows).astype(str).astype(object),
        "organization_id": organization[account],
        **text,
        "status": status.astype(object),
        "priority": pick(_PRIORITIES, priority),
        "tags": np.where(escalated, "escalated product", "product").astype(object),
        "reopens": np.where(solved < NEVER, reopens, 0),
        "satisfaction_rating": np.where(answered, rating, "offered").astype(object),
    }


def _broken_tickets(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that no contract can accept: no id, no such date, the far future."""
    return [
        broken_row(columns, id=None),
        broken_row(columns, id="900001", created_at="2025-02-31T09:00:00-05:00"),
        broken_row(columns, id="900002", created_at="not given"),
        broken_row(columns, id="900003", created_at="2031-01-05T09:00:00-05:00"),
    ]


def write_surveys(
    folder: Path, population: Population, causes: Causes, futures: Futures, *, seed: int, today: int
) -> None:
    """Write `nps.csv` (0 to 10, twice a year) and `csat.csv` (1 to 5, after a training)."""
    random = np.random.default_rng([seed, 6])
    for name, every, share, scale in (("nps", 182, 0.4, 10), ("csat", 91, 0.15, 5)):
        account, day = _asked(random, population, futures, causes, today, every=every, share=share)
        feeling = _feeling(random, causes, account, day)
        lowest = 0 if scale == 10 else 1
        score = np.clip(np.round(lowest + feeling * (scale - lowest)), lowest, scale).astype(int)
        instant = day * DAY_SECONDS + _office_seconds(random, len(day))
        write_csv(folder / f"{name}.csv", _survey_columns(
            random, population, name, account, instant, score))  # fmt: skip


def _asked(
    random: np.random.Generator,
    population: Population,
    futures: Futures,
    causes: Causes,
    today: int,
    *,
    every: int,
    share: float,
) -> tuple[Ints, Ints]:
    """Account and day of each answer; several people of a large account may answer."""
    waves = np.arange(causes.week_days[0] + 182 + 20, today - 8, every)
    people = np.array([3, 2, 1])[population.segment]
    last = np.minimum(futures.end_day, population.last_day)
    live = (waves[None, :] > population.start_day[:, None] + 30) & (waves[None, :] < last[:, None])
    live &= ~population.prospect[:, None]
    answers = random.binomial(people[:, None], share * (live * 1.0))
    wave, account = np.nonzero(answers.T)
    times = answers[account, wave]
    account, wave = np.repeat(account, times), np.repeat(wave, times)
    return account, waves[wave] + random.integers(0, 8, len(account))


def _feeling(random: np.random.Generator, causes: Causes, account: Ints, day: Ints) -> Floats:
    """How content somebody sounds, about 0 to 1: mostly value and fit, a lot of chance."""
    week = causes.week_of(day - 14)
    return (
        0.42
        + 0.5 * causes.value[account, week]
        + 0.05 * causes.fit[account]
        - 0.15 * causes.pressure[account, week]
        + random.normal(0, 0.17, len(account))
    )


def _survey_columns(
    random: np.random.Generator,
    population: Population,
    name: str,
    account: Ints,
    instant: Ints,
    score: Ints,
) -> dict[str, Any]:
    """Answers carry an e-mail address, some of a free mailbox, and half of them the CRM's id."""
    rows = len(account)
    free = random.random(rows) < 0.04
    host = np.where(free, pick(_FREE_MAIL, random.integers(0, 3, rows)), population.domain[account])
    person = random.integers(1, 6, rows)
    email = [f"p{a + 1}.{p}@{h}" for a, p, h in zip(account, person, host, strict=True)]
    columns = {
        "response_id": np.array([f"{name}-{i + 1:06d}" for i in range(rows)], object),
        "email": np.array(email, object),
        "crm_account_no": where_true(random.random(rows) < 0.5, population.account_id[account]),
        "answered_at": local_text(instant, SURVEY_ZONE, with_offset=False, separator=" "),
        "score": score,
        "role": pick(
            ("user", "champion", "decision_maker"), random.choice(3, rows, p=(0.6, 0.25, 0.15))
        ),
    }
    broken = [
        broken_row(columns, response_id=None),
        broken_row(columns, response_id=f"{name}-900001", answered_at="yesterday"),
    ]
    return with_rows(columns, broken)


def write_news(folder: Path, population: Population, causes: Causes, *, first_day: int) -> None:
    """Write `company_events.jsonl`: what a news service reports about the customers' companies."""
    severity = {"layoffs": 4, "merger": 4, "acquisition": 3, "funding": 2}
    rows = []
    events = causes.events[causes.events[:, 2] >= first_day]
    for number, (account, kind, day) in enumerate(
        events[np.argsort(events[:, 2], kind="stable")].tolist()
    ):
        published = np.datetime64(day * DAY_SECONDS + 25_200 + number % 7 * 3600, "s")
        rows.append({
            "event_id": f"news-{number + 1:05d}",
            "company_domain": "www." + population.domain[account],
            "kind": EVENT_KINDS[kind],
            "severity": severity[EVENT_KINDS[kind]],
            "published_at": f"{published}Z",
        })  # fmt: skip
    write_json_lines(folder / "company_events.jsonl", rows)
