"""The CRM's opportunities, and how the CRM writes numbers and times: the wall clock of Berlin."""

from typing import Any

import numpy as np

from connectors.sandbox.world.money import arr_on
from connectors.sandbox.world.outcomes import CHURNED, CONTRACTED, EXPANDED, Futures, Outcomes
from connectors.sandbox.world.population import Population
from connectors.sandbox.world.writing import (
    DAY_SECONDS,
    NEVER,
    Columns,
    Ints,
    Texts,
    date_text,
    local_text,
    pick,
)

CRM_ZONE = "Europe/Berlin"


def crm_clock(random: np.random.Generator, days: Ints) -> Texts:
    """Some time of a working day, as the CRM prints it; null where the day never comes."""
    seconds = random.integers(7 * 3600, 16 * 3600, len(days))
    instants = np.where(days >= NEVER, NEVER, days * DAY_SECONDS + seconds)
    return local_text(instants, CRM_ZONE, with_offset=False, separator=" ")


def numbered(prefix: str, rows: int) -> Texts:
    """Record numbers such as O-000001."""
    return np.array([f"{prefix}-{number:06d}" for number in range(1, rows + 1)], object)


def make_opportunities(
    random: np.random.Generator,
    population: Population,
    futures: Futures,
    known: Outcomes,
    today: int,
) -> Columns:
    """New business, renewals, expansions and downgrades; what is pending is still open."""
    parts = [
        _new_business(random, population, today),
        _closed(random, population, known),
        _open(random, population, futures.outcomes, today),
        _lost_expansions(random, population, futures, known, today),
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.lexsort((joined["account"], joined["created"]))
    joined = {name: values[order] for name, values in joined.items()}
    return {
        "Opportunity_No": numbered("O", len(order)),
        "Account_No": population.account_id[joined["account"]],
        "Type": joined["type"],
        "Stage": joined["stage"],
        "Amount": np.round(joined["amount"], 2),
        "Previous_Amount": np.round(joined["previous"], 2),
        "Currency": population.currency[joined["account"]],
        "Created_At": crm_clock(random, joined["created"]),
        "Expected_Close": date_text(joined["expected"]),
        "Closed_At": crm_clock(random, joined["closed"]),
        "Effective_On": date_text(joined["effective"]),
    }


def _new_business(
    random: np.random.Generator, population: Population, today: int
) -> dict[str, Any]:
    account = np.arange(len(population))
    start, prospect = population.start_day, population.prospect
    lost = prospect & (random.random(len(account)) < 0.4)
    closed = np.select([lost, prospect], [np.minimum(start + 30, today), NEVER], start)
    stage = np.select([lost, prospect], ["Closed lost", "Proposal"], "Closed won")
    return {
        "account": account,
        "type": pick(("New business",), account * 0),
        "stage": stage.astype(object),
        "amount": population.arr, "previous": population.arr * 0,
        "created": start - 60, "expected": start, "closed": closed,
        "effective": np.where(prospect, NEVER, start),
    }  # fmt: skip


def _closed(random: np.random.Generator, population: Population, known: Outcomes) -> dict[str, Any]:
    """What happened, as sales booked it: lost when the notice came, won shortly before it holds."""
    rows = len(known.account)
    gone, grown = known.kind == CHURNED, (known.kind == EXPANDED) & ~known.at_renewal
    shrunk = (known.kind == CONTRACTED) & ~known.at_renewal
    won_early = known.day - np.where(known.at_renewal, random.integers(0, 21, rows), 0)
    closed = np.where(gone, np.minimum(known.notice_day + 1, known.day), won_early)
    lead = np.where(known.at_renewal, 120, np.where(grown, random.integers(20, 80, rows), 3))
    created = np.minimum(known.day - lead, closed - 1)
    created = np.maximum(created, population.start_day[known.account])
    amount = np.where(gone, known.arr_before, known.arr_after)
    return {
        "account": known.account,
        "type": np.select([grown, shrunk], ["Expansion", "Downgrade"], "Renewal").astype(object),
        "stage": np.where(gone, "Closed lost", "Closed won").astype(object),
        "amount": np.where(grown, known.arr_after - known.arr_before, amount),
        "previous": known.arr_before, "created": created, "expected": known.day,
        "closed": np.maximum(closed, created), "effective": known.day,
    }  # fmt: skip


def _open(
    random: np.random.Generator, population: Population, outcomes: Outcomes, today: int
) -> dict[str, Any]:
    """Renewals and expansions that lie ahead: nobody knows yet how they end."""
    ahead = outcomes.where(outcomes.day > today)
    ahead = ahead.where(ahead.at_renewal | (ahead.kind == EXPANDED))
    rows = len(ahead.account)
    created = ahead.day - np.where(ahead.at_renewal, 120, random.integers(20, 80, rows))
    part = {
        "account": ahead.account,
        "type": np.where(ahead.at_renewal, "Renewal", "Expansion").astype(object),
        "stage": pick(("Negotiation", "Proposal"), random.integers(0, 2, rows)),
        "amount": np.where(ahead.at_renewal, ahead.arr_before, ahead.arr_before * 0.2),
        "previous": ahead.arr_before, "created": created, "expected": ahead.day,
        "closed": np.full(rows, NEVER), "effective": np.full(rows, NEVER),
    }  # fmt: skip
    seen = (created <= today) & (created > population.start_day[ahead.account])
    return {name: values[seen] for name, values in part.items()}


def _lost_expansions(
    random: np.random.Generator,
    population: Population,
    futures: Futures,
    known: Outcomes,
    today: int,
) -> dict[str, Any]:
    """Attempts to sell more that came to nothing."""
    begin = np.maximum(population.start_day + 60, today - 760)
    created = begin + (random.random(len(begin)) * 2_500).astype(np.int64)
    own = np.flatnonzero(population.customer & (created + 60 < np.minimum(futures.end_day, today)))
    created = created[own]
    arr = arr_on(population, known, own, created)
    closed = created + random.integers(20, 60, len(own))
    return {
        "account": own,
        "type": pick(("Expansion",), own * 0), "stage": pick(("Closed lost",), own * 0),
        "amount": np.round(arr * 0.25), "previous": arr,
        "created": created, "expected": created + 45,
        "closed": closed, "effective": np.full(len(own), NEVER),
    }  # fmt: skip
