"""What sales and success write down in the CRM: semicolons, and the wall clock of Berlin."""

from pathlib import Path
from typing import Any

import numpy as np

from connectors.sandbox.world.causes import Causes
from connectors.sandbox.world.deals import CRM_ZONE, crm_clock, make_opportunities, numbered
from connectors.sandbox.world.handoffs import make_handoffs, make_overrides
from connectors.sandbox.world.outcomes import CHURNED, Futures, Outcomes
from connectors.sandbox.world.population import (
    INDUSTRIES,
    OUTCOMES_WANTED,
    PLANS,
    REGIONS,
    SALES_REPS,
    SUCCESS_MANAGERS,
    Population,
    add_months,
    last_renewal,
)
from connectors.sandbox.world.writing import (
    DAY_SECONDS,
    NEVER,
    Columns,
    Ints,
    broken_row,
    date_text,
    local_text,
    pick,
    repeated,
    same_rows_again,
    where_true,
    with_rows,
    write_csv,
)

# Name, days until it is due, and the value found at which it is reached.
MILESTONES = (
    ("Kick-off", 10, 0.0),
    ("First data source", 25, 0.06),
    ("First report shared", 40, 0.14),
    ("Team trained", 60, 0.22),
    ("Went live", 85, 0.32),
)
_NOTES = ("Bad", "Worried", "Neutral", "Content", "Delighted")


def write_crm(
    folder: Path,
    population: Population,
    causes: Causes,
    futures: Futures,
    *,
    seed: int,
    first_day: int,
    today: int,
) -> None:
    """Write the CRM's exports: accounts and their changes, contacts, opportunities, milestones,
    goals, the notes of the success managers, handoffs and overrides.
    """
    random = np.random.default_rng([seed, 9])
    known = futures.outcomes.where(futures.outcomes.day <= today)
    _write(folder / "accounts.csv", _accounts(population))
    changes = _changes(random, population, known, first_day, today)
    _write(folder / "account_changes.csv", changes)
    contacts = _contacts(random, population, causes, futures, today)
    nobodys = broken_row(contacts, Contact_No="C-900001", Account_No=None)
    _write(folder / "contacts.csv", with_rows(contacts, [nobodys]))
    opportunities = make_opportunities(random, population, futures, known, today)
    _write(folder / "opportunities.csv", same_rows_again(opportunities, np.arange(3)))
    parts = (random, population, causes, futures, first_day, today)
    _write(folder / "milestones.csv", _milestones(*parts))
    goals = _goals(*parts)
    dateless = broken_row(goals, Goal_No="G-900001", Measured_At="Q3")
    _write(folder / "goals.csv", with_rows(goals, [dateless]))
    _write(folder / "csm_notes.csv", _notes(*parts))
    handoffs = make_handoffs(
        population, causes, opportunities, seed=seed, first_day=first_day, today=today
    )
    _write(folder / "handoffs.csv", handoffs)
    overrides = make_overrides(population, changes, seed=seed, today=today)
    _write(folder / "overrides.csv", overrides)


def _write(file: Path, columns: Columns) -> None:
    write_csv(file, columns, delimiter=";")


def _accounts(population: Population) -> Columns:
    """Facts that hardly change."""
    heads = population.account_id[np.maximum(population.parent, 0)]
    return {
        "Account_No": population.account_id,
        "Record_Id": np.array([f"0015g00000{i:05d}" for i in range(len(population))], object),
        "Account_Name": population.name,
        "Website": np.array(["https://www." + domain for domain in population.domain], object),
        "Parent_Account": where_true(population.parent >= 0, heads),
        "Industry": pick(INDUSTRIES, population.industry),
        "Region": pick(REGIONS, population.region),
        "Headcount": population.employees,
        "Customer_Since": date_text(population.start_day, never=population.prospect),
        "Created": date_text(population.start_day - 60),
    }


def _changes(
    random: np.random.Generator,
    population: Population,
    known: Outcomes,
    first_day: int,
    today: int,
) -> Columns:
    """Every version of what does change: status, value, owner, renewal, merges, deletions."""
    events: list[tuple[int, int, dict[str, Any]]] = []
    opening, renewal = last_renewal(population, first_day)
    opening = np.where(population.prospect, population.start_day - 60, opening)
    for account in range(len(population)):
        status = "Prospect" if population.prospect[account] else "Customer"
        events.append(
            (
                account,
                int(opening[account]),
                {"Status": status, "Next_Renewal": int(renewal[account])},
            )
        )
        if population.merged_into[account] >= 0:
            survivor = population.account_id[population.merged_into[account]]
            events.append((account, int(population.merged_day[account]), {"Merged_Into": survivor}))
        if population.deleted_day[account] < NEVER:
            events.append((account, int(population.deleted_day[account]), {"Deleted": "yes"}))
    moved = np.flatnonzero(random.random(len(population)) < 0.15)
    for account, day in zip(
        moved.tolist(), random.integers(first_day, today, len(moved)).tolist(), strict=True
    ):
        other = SUCCESS_MANAGERS[(population.success_manager[account] + 5) % len(SUCCESS_MANAGERS)]
        events.append((account, max(day, int(opening[account]) + 1), {"Success_Manager": other}))
    delay = random.integers(0, 3, len(known.account))
    for i, account in enumerate(known.account.tolist()):
        change: dict[str, Any] = {"Annual_Value": float(known.arr_after[i])}
        if known.kind[i] == CHURNED:
            change = {"Status": "Former customer", "Next_Renewal": int(NEVER)}
        elif known.at_renewal[i]:
            following = add_months(known.day[i : i + 1], int(population.term_months[account]))
            change["Next_Renewal"] = int(following[0])
        events.append((account, min(int(known.day[i] + delay[i]), today), change))
    events.sort(key=lambda event: event[:2])
    return _replayed(random, population, events)


def _replayed(
    random: np.random.Generator,
    population: Population,
    events: list[tuple[int, int, dict[str, Any]]],
) -> Columns:
    """Play the changes of each account after another; each gives a full version of the record."""
    rows: list[dict[str, Any]] = []
    days, renewals = [], []
    state: dict[str, Any] = {}
    currency, previous = population.currency, -1
    for account, day, change in events:
        if account != previous:
            state = {
                "Account_No": population.account_id[account],
                "Annual_Value": float(population.arr[account]),
                "Currency": currency[account],
                "Edition": PLANS[population.plan[account]],
                "Success_Manager": SUCCESS_MANAGERS[population.success_manager[account]],
                "Sales_Rep": SALES_REPS[population.sales_rep[account]],
                "Objective": OUTCOMES_WANTED[population.wanted[account]],
                "Merged_Into": None,
                "Deleted": "no",
            }
            if population.prospect[account]:
                state |= {"Annual_Value": None, "Success_Manager": None}
        previous, state = account, state | change
        rows.append(state)
        days.append(day)
        renewals.append(state["Next_Renewal"])
    # Several changes of one day keep their order: they are a second apart, as their rows are.
    when = np.array(days) * DAY_SECONDS + 30_000 + np.arange(len(days)) % 20_000
    columns = {name: np.array([row[name] for row in rows], object) for name in rows[0]}
    columns["Next_Renewal"] = date_text(np.array(renewals))
    changed = local_text(when, CRM_ZONE, with_offset=False, separator=" ")
    return {"Changed_At": changed, **columns}


def _contacts(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    today: int,
) -> Columns:
    """People by role. A champion's departure is noticed weeks later, and one in four never is."""
    start, end = population.start_day, np.minimum(futures.end_day, today)
    left = np.where(causes.champion_left_day < end, causes.champion_left_day, NEVER)
    noticed = left + random.integers(0, 46, len(left))
    told = (random.random(len(left)) < 0.75) & (noticed <= end)
    followed = causes.champion_replaced_day
    sponsor_left = start + random.exponential(365 / 0.08, len(start)).astype(np.int64)
    stays = np.full(len(start), NEVER)
    everyone, large = ~population.prospect, ~population.prospect & (population.segment < 2)
    # Who is listed, in which role, as which person, since when, until when, and written down when.
    parts = (
        (everyone, "champion", 1, start, stays, start),
        (everyone, "decision_maker", 2, start, stays, start),
        (everyone, "admin", 3, start, stays, start + 7),
        (large, "sponsor", 4, start, stays, start),
        (everyone & (followed < end), "champion", 5, followed, stays, followed),
        (everyone & told, "champion", 1, start, left, noticed),
        (large & (sponsor_left < end), "sponsor", 4, start, sponsor_left, sponsor_left),
    )
    account = np.concatenate([np.flatnonzero(listed) for listed, *_ in parts])
    role = np.concatenate([np.full(int(part[0].sum()), part[1], object) for part in parts])
    person = np.concatenate([np.full(int(part[0].sum()), part[2]) for part in parts])
    since = np.concatenate([part[3][part[0]] for part in parts])
    gone = np.concatenate([part[4][part[0]] for part in parts])
    modified = np.concatenate([part[5][part[0]] for part in parts])
    order = np.lexsort((person, account, modified))
    account, person = account[order], person[order]
    names = [f"{a + 1:05d}{p}" for a, p in zip(account, person, strict=True)]
    hosts = population.domain[account]
    return {
        "Contact_No": np.array([f"C-{name}" for name in names], object),
        "Account_No": population.account_id[account],
        "Email": np.array([f"p{n}@{host}" for n, host in zip(names, hosts, strict=True)], object),
        "Role": role[order],
        "Since": date_text(since[order]),
        "Left_On": date_text(gone[order]),
        "Modified_At": crm_clock(random, modified[order]),
    }


def _milestones(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    first_day: int,
    today: int,
) -> Columns:
    """The five steps of onboarding, reached when the value found has grown about that far."""
    own = np.flatnonzero(~population.prospect & (population.start_day >= first_day - 180))
    account, step = np.repeat(own, len(MILESTONES)), np.tile(np.arange(len(MILESTONES)), len(own))
    names = [name for name, _, _ in MILESTONES]
    due, threshold = (np.array([row[i] for row in MILESTONES]) for i in (1, 2))
    share = threshold[step] / np.maximum(causes.value_target[account], 0.01)
    days = -causes.value_days[account] * np.log(np.maximum(1 - share, 1e-9))
    took = days + 4 + random.exponential(9, len(step)) + due[step] * 0.2
    reached = population.start_day[account] + took.astype(np.int64)
    reached = np.where(
        (share >= 1) | (reached > np.minimum(today, futures.end_day[account])), NEVER, reached
    )
    return {
        "Milestone_No": numbered("M", len(step)),
        "Account_No": population.account_id[account],
        "Milestone": pick(names, step),
        "Planned_At": crm_clock(random, population.start_day[account]),
        "Due": date_text(population.start_day[account] + due[step]),
        "Reached": date_text(reached),
    }


def _visits(
    random: np.random.Generator,
    population: Population,
    futures: Futures,
    first_day: int,
    today: int,
    every_days: tuple[int, int, int],
    share: float,
) -> tuple[Ints, Ints]:
    """Account and day of things that people do now and then at customers."""
    gap = np.array(every_days)[population.segment]
    begin = np.maximum(population.start_day + 20, first_day)
    last = np.minimum.reduce([
        futures.end_day, population.last_day, np.full(len(begin), today)
    ])  # fmt: skip
    times = np.where(
        population.prospect | (random.random(len(gap)) > share),
        0,
        np.maximum(last - begin, 0) // gap,
    )
    account = repeated(times)
    number = np.arange(len(account)) - np.repeat(np.cumsum(times) - times, times)
    day = begin[account] + number * gap[account]
    return account, day + (random.random(len(day)) * gap[account]).astype(np.int64)


def _goals(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    first_day: int,
    today: int,
) -> Columns:
    """What customers want to reach in a year, measured every quarter or so."""
    account, day = _visits(random, population, futures, first_day, today, (60, 90, 180), 0.7)
    start = population.start_day[account]
    year = (day - start) // 365
    part_of_year = (day - start - year * 365) / 365
    value = causes.value[account, causes.week_of(day - 14)]
    progress = 100 * part_of_year * (0.2 + 1.25 * value) + random.normal(0, 7, len(day))
    number = [f"G-{a + 1:05d}-{y + 1}" for a, y in zip(account, year, strict=True)]
    return {
        "Goal_No": np.array(number, object),
        "Account_No": population.account_id[account],
        "Goal": pick(OUTCOMES_WANTED, population.wanted[account]),
        "Target_Percent": np.full(len(day), 100),
        "Reached_Percent": np.round(np.clip(progress, 0, 130), 1),
        "Due": date_text(start + (year + 1) * 365),
        "Measured_At": crm_clock(random, day),
    }  # fmt: skip


def _notes(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    first_day: int,
    today: int,
) -> Columns:
    """How the success managers see it: a little too bright, often late, mostly the large ones."""
    account, day = _visits(random, population, futures, first_day, today, (35, 60, 170), 0.85)
    week = causes.week_of(day - random.integers(0, 30, len(day)))
    pressure = causes.pressure[account, week]
    mood = (
        1.9
        + 3.0 * causes.value[account, week]
        + 0.35 * causes.champion[account, week]
        - 1.3 * pressure * (random.random(len(day)) < 0.6)
        + random.normal(0, 0.8, len(day))
    )
    rating = np.clip(np.round(mood), 1, 5).astype(int)
    rival = random.random(len(day)) < 0.01 + 0.05 * pressure
    return {
        "Note_No": numbered("N", len(day)),
        "Account_No": population.account_id[account],
        "Author": pick(SUCCESS_MANAGERS, population.success_manager[account]),
        "Rating": rating,
        "Competitor_Mentioned": np.where(rival, "yes", "no").astype(object),
        "Note": pick(_NOTES, rating - 1),
        "Written_At": crm_clock(random, day),
        "Valid_Until": date_text(day + 120),
    }
