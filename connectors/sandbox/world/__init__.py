"""The synthetic company: hidden causes, what comes of them, and the files it would have.

Read `population.py` (who the customers are), `causes.py` (what nobody can see), `outcomes.py`
(what comes of it), then `product.py`, `service.py`, `money.py`, `deals.py`, `handoffs.py` and
`crm.py`, which write what people and systems noticed of it. The generator knows no scorecard, and
no cause stands in a file.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from connectors.sandbox.world.causes import Causes, make_causes
from connectors.sandbox.world.crm import write_crm
from connectors.sandbox.world.money import write_billing, write_finance
from connectors.sandbox.world.outcomes import Futures, make_futures
from connectors.sandbox.world.population import Population, day_number, make_population
from connectors.sandbox.world.product import write_product
from connectors.sandbox.world.service import write_help_desk, write_news, write_surveys
from contracts.errors import InputError

HISTORY_MONTHS = 24
FEWEST_ACCOUNTS = 60


@dataclass(frozen=True)
class WorldTruth:
    """What only the generator knows, for tests and evidence; never written to a file.

    `causes` and `futures` hold one row per account of `population`; days are day numbers.
    """

    population: Population
    causes: Causes
    futures: Futures
    first_day: int
    today: int


def write_world(
    folder: Path, *, seed: int = 7, accounts: int = 2000, today: dt.date = dt.date(2026, 6, 30)
) -> WorldTruth:
    """Write 24 months of raw files below `folder`, one folder per source.

    The same arguments give the same bytes.

    Raises:
        InputError: there are too few accounts for families, merges and the rest.
    """
    if accounts < FEWEST_ACCOUNTS:
        raise InputError(
            f"a world of {accounts} accounts is too small", f"ask for {FEWEST_ACCOUNTS} or more"
        )
    month = np.datetime64(today, "M") - (HISTORY_MONTHS - 1)
    first, last = int(month.astype("datetime64[D]").astype(np.int64)), day_number(today)
    population = make_population(accounts, seed=seed, first_day=first, today=last)
    causes = make_causes(population, seed=seed, first_day=first, today=last)
    futures = make_futures(population, causes, seed=seed, first_day=first, today=last)
    parts = (population, causes, futures)
    write_product(folder / "product", *parts, seed=seed, first_day=first, today=last)
    write_help_desk(folder / "helpdesk", *parts, seed=seed, today=last)
    write_billing(folder / "billing", *parts, seed=seed, first_day=first, today=last)
    write_crm(folder / "crm", *parts, seed=seed, first_day=first, today=last)
    write_surveys(folder / "surveys", *parts, seed=seed, today=last)
    write_news(folder / "news", population, causes, first_day=first)
    write_finance(folder / "finance", seed=seed, first_day=first, today=last)
    return WorldTruth(population, causes, futures, first, last)
