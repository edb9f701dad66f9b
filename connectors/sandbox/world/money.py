"""What the billing system and finance know: cents, epoch seconds in UTC, two currencies."""

from pathlib import Path
from typing import Any

import numpy as np

from connectors.sandbox.world.causes import Causes
from connectors.sandbox.world.outcomes import CHURNED, Futures, Outcomes
from connectors.sandbox.world.population import PLANS, Population, add_months, last_renewal
from connectors.sandbox.world.writing import (
    DAY_SECONDS,
    NEVER,
    Floats,
    Ints,
    Texts,
    date_text,
    pick,
    write_csv,
    write_json_lines,
)

Row = dict[str, Any]


def write_billing(
    folder: Path,
    population: Population,
    causes: Causes,
    futures: Futures,
    *,
    seed: int,
    first_day: int,
    today: int,
) -> None:
    """Write `customers.jsonl`, `subscriptions.jsonl` (every change) and `invoices.jsonl.gz`."""
    random = np.random.default_rng([seed, 7])
    paying = np.flatnonzero(~population.prospect)
    customer = np.array(
        [f"cus_{i * 48_271 % 2_147_483_647:010d}" for i in range(1, len(population) + 1)], object
    )
    steady = paying[(futures.end_day[paying] >= NEVER) & (population.term_months[paying] == 12)]
    twice = int(steady[0])
    known = futures.outcomes.where(futures.outcomes.day <= today)
    _write_customers(random, folder, population, customer, paying, twice)
    _write_subscriptions(folder, population, futures, known, customer, paying, twice,
                         first_day=first_day, today=today)  # fmt: skip
    _write_invoices(random, folder, population, causes, futures, known, customer,
                    first_day=first_day, today=today)  # fmt: skip


def _write_customers(
    random: np.random.Generator,
    folder: Path,
    population: Population,
    customer: Texts,
    paying: Ints,
    twice: int,
) -> None:
    """Most customers carry the CRM's id in their metadata, the rest an e-mail address only."""
    told = random.random(len(population)) < 0.85
    told |= population.shares_domain
    free = random.random(len(population)) < 0.02
    rows: list[Row] = []
    for account in paying.tolist():
        host = "gmail.com" if free[account] else population.domain[account]
        rows.append({
            "id": customer[account],
            "email": f"invoices.{account + 1}@{host}",
            "created": int(population.start_day[account]) * DAY_SECONDS + 30_000,
            "metadata": {"crm_account_no": population.account_id[account]} if told[account] else {},
        })  # fmt: skip
    rows.append({
        "id": customer[twice] + "b",
        "email": f"accounts-payable@{population.domain[twice]}",
        "created": int(population.start_day[twice]) * DAY_SECONDS + 90_000,
        "metadata": {"crm_account_no": population.account_id[twice]},
    })  # fmt: skip
    write_json_lines(folder / "customers.jsonl", rows)


def _write_subscriptions(
    folder: Path,
    population: Population,
    futures: Futures,
    known: Outcomes,
    customer: Texts,
    paying: Ints,
    twice: int,
    *,
    first_day: int,
    today: int,
) -> None:
    """A line for each state of a subscription since its term on the first day of the history."""
    lines: list[tuple[int, Row]] = []
    opening, _ = last_renewal(population, first_day)
    first: dict[int, Row] = {}
    for account in paying.tolist():
        since = int(opening[account])
        row = _subscription(population, customer, account, population.arr[account], day=since)
        first[account] = row
        lines.append((since * DAY_SECONDS + 30_000, row))
    state = dict(first)
    for account, day, kind, after in zip(
        known.account.tolist(), known.day.tolist(), known.kind.tolist(), known.arr_after.tolist(),
        strict=True,
    ):  # fmt: skip
        if kind != CHURNED:
            changed = _subscription(population, customer, account, after, day=day)
            state[account] = changed
            lines.append((day * DAY_SECONDS + 36_000, changed))
    lines += _endings(population, futures, state, today)
    extra = first[twice] | {
        "id": first[twice]["id"] + "_addon", "customer": customer[twice] + "b", "quantity": 5,
    }  # fmt: skip
    lines.append((int(opening[twice]) * DAY_SECONDS + 90_000, extra))
    lines.sort(key=lambda line: line[0])
    rows = [row | {"updated": updated} for updated, row in lines]
    rows += [rows[0] | {"id": "sub_broken_1", "quantity": -5}, rows[1] | {"id": None}]
    write_json_lines(folder / "subscriptions.jsonl", rows)


def _endings(
    population: Population, futures: Futures, state: dict[int, Row], today: int
) -> list[tuple[int, Row]]:
    """Notices, the ends that follow them, and subscriptions of merged and deleted accounts."""
    lines: list[tuple[int, Row]] = []
    for account in np.flatnonzero(futures.notice_day <= today).tolist():
        told = int(futures.notice_day[account]) * DAY_SECONDS + 39_600
        end = int(futures.end_day[account]) * DAY_SECONDS + 43_200
        leaving = state[account] | {"canceled_at": told, "cancel_at": end}
        lines.append((told, leaving))
        if futures.end_day[account] <= today:
            lines.append((end, leaving | {"status": "canceled"}))
    for account in np.flatnonzero(population.last_day <= today).tolist():
        closed = int(population.last_day[account]) * DAY_SECONDS + 43_200
        gone = {"status": "canceled", "canceled_at": closed, "cancel_at": closed}
        lines.append((closed, state[account] | gone))
    return lines


def _subscription(
    population: Population, customer: Texts, account: int, arr: float, *, day: int
) -> Row:
    """The state of a subscription from `day` on."""
    term = int(population.term_months[account])
    start = int(population.start_day[account])
    months = np.arange(term, term * 600, term) if term > 1 else np.arange(1, 600)
    ends = add_months(np.array([start]), months)
    quantity = max(1, round(int(population.seats[account]) * arr / float(population.arr[account])))
    return {
        "id": "sub_" + customer[account][4:],
        "customer": customer[account],
        "status": "active",
        "currency": population.currency[account].lower(),
        "quantity": quantity,
        "plan": {
            "nickname": PLANS[int(population.plan[account])],
            "interval": "month" if term == 1 else "year",
            "interval_count": 1 if term == 1 else term // 12,
        },
        "mrr_cents": round(arr * 100 / 12),
        "start_date": start * DAY_SECONDS + 30_000,
        "current_period_end": int(ends[np.searchsorted(ends, day, side="right")]) * DAY_SECONDS,
        "canceled_at": None,
        "cancel_at": None,
    }


def arr_on(population: Population, known: Outcomes, account: Ints, day: Ints) -> Floats:
    """Yearly revenue of accounts on days, after all that had been agreed by then."""
    order = np.lexsort((known.day, known.account))
    keys = known.account[order] * 100_000 + known.day[order]
    place = np.searchsorted(keys, account * 100_000 + day, side="right") - 1
    found = (place >= 0) & (known.account[order][np.maximum(place, 0)] == account)
    if not len(order):
        return population.arr[account]
    return np.where(found, known.arr_after[order][np.maximum(place, 0)], population.arr[account])


def _write_invoices(
    random: np.random.Generator,
    folder: Path,
    population: Population,
    causes: Causes,
    futures: Futures,
    known: Outcomes,
    customer: Texts,
    *,
    first_day: int,
    today: int,
) -> None:
    """Monthly, quarterly or yearly invoices; who feels the price pays late, and a few never do."""
    account, day, every = _billed(population, futures, first_day, today)
    amount = np.round(arr_on(population, known, account, day) * every / 12 * 100).astype(np.int64)
    rolling = every == 1
    issued = day * DAY_SECONDS + 21_600
    due = issued + np.where(rolling, 7, 30) * DAY_SECONDS
    pressure = causes.pressure[account, causes.week_of(day)]
    leaving = day >= futures.fade_day[account]
    slow = random.lognormal(np.log(12), 0.7, len(day)) * (0.5 + 2.0 * pressure + 0.5 * leaving)
    attempts = 1 + rolling * random.poisson(0.08 + 0.8 * pressure**2)
    took = np.where(rolling, 0.02 + (attempts - 1) * 3.0, slow)
    never = random.random(len(day)) < np.where(futures.notice_day[account] <= day, 0.2, 0.006)
    paid = np.where(never, NEVER, issued + (took * DAY_SECONDS).astype(np.int64))
    paid = np.where(paid > (today + 1) * DAY_SECONDS - 7_200, NEVER, paid)
    rows: list[Row] = []
    for i in np.lexsort((account, issued)).tolist():
        has_paid = bool(paid[i] < NEVER)
        rows.append({
            "id": f"in_{len(rows) + 1:08d}",
            "customer": customer[account[i]],
            "status": "paid" if has_paid else "open",
            "currency": population.currency[account[i]].lower(),
            "created": int(issued[i]),
            "due_date": int(due[i]),
            "amount_due": int(amount[i]),
            "amount_paid": int(amount[i]) if has_paid else 0,
            "attempt_count": int(attempts[i]),
            "status_transitions": {"paid_at": int(paid[i]) if has_paid else None},
        })  # fmt: skip
    rows += _broken_invoices(rows)
    write_json_lines(folder / "invoices.jsonl.gz", rows)


def _billed(
    population: Population, futures: Futures, first_day: int, today: int
) -> tuple[Ints, Ints, Ints]:
    """Account, day and number of months of each invoice between the first day and today."""
    every = np.where(population.term_months == 1, 1, np.where(population.segment == 2, 12, 3))
    last = np.minimum.reduce([
        futures.end_day - 1, population.last_day, np.full(len(population), today)
    ])  # fmt: skip
    accounts, days = [], []
    for step in (1, 3, 12):
        own = np.flatnonzero((every == step) & ~population.prospect)
        for number in range(80 // step + 1):
            day = add_months(population.start_day[own], number * step)
            inside = (day >= first_day) & (day <= last[own])
            accounts.append(own[inside])
            days.append(day[inside])
    account = np.concatenate(accounts)
    return account, np.concatenate(days), every[account]


def _broken_invoices(rows: list[Row]) -> list[Row]:
    """Unknown currencies, an invoice of the future, one without an id, and a repeated one."""
    return [
        rows[0] | {"id": "in_90000001", "currency": "XXX1"},
        rows[1] | {"id": "in_90000002", "currency": "eu"},
        rows[2] | {"id": "in_90000003", "created": 1_956_528_000},
        rows[3] | {"id": None},
        rows[4],
    ]


def write_finance(folder: Path, *, seed: int, first_day: int, today: int) -> None:
    """Write `exchange_rates.csv`: how many dollars a euro was worth, on every day."""
    random = np.random.default_rng([seed, 8])
    days = np.arange(first_day - 60, today + 1)
    steps = np.zeros(len(days))
    level = 0.0
    for i, shock in enumerate(random.normal(0, 0.0035, len(days)).tolist()):
        level = 0.995 * level + shock
        steps[i] = level
    write_csv(folder / "exchange_rates.csv", {
        "date": date_text(days),
        "base": pick(("EUR",), days * 0),
        "quote": pick(("USD",), days * 0),
        "rate": np.round(1.09 * np.exp(steps), 4),
    })  # fmt: skip
