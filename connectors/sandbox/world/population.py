"""Who the customers are: the facts about an account that hidden causes do not change."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectors.sandbox.world.writing import NEVER, Flags, Floats, Ints, Texts, pick

SEGMENTS = ("enterprise", "mid-market", "small-business")
SEGMENT_SHARES = (0.15, 0.35, 0.50)
PLANS = ("Starter", "Business", "Enterprise")
INDUSTRIES = ("Software", "Manufacturing", "Retail", "Logistics", "Healthcare", "Education",
              "Professional services", "Energy")  # fmt: skip
REGIONS = ("DACH", "France", "Nordics", "Iberia", "UK", "North America")
OUTCOMES_WANTED = ("Cut reporting time", "Grow repeat revenue", "Pass audits", "Lower stock cost")
SUCCESS_MANAGERS = ("Mira Holt", "Jonas Perl", "Tilda Voss", "Ravi Senn", "Noor Albin", "Emil Tarn",
                    "Lena Quist", "Oskar Brandel", "Yara Finn", "Tomas Irel", "Ines Corvo",
                    "Malin Dreyer")  # fmt: skip
SALES_REPS = (
    "Pia Lorenz",
    "Sven Adair",
    "Carla Ruiz-Lind",
    "Dario Kemp",
    "Hanne Vik",
    "Luc Ferrin",
)
_BEGINNINGS = ("Nor", "Bran", "Vel", "Tor", "Sal", "Mir", "Quen", "Lor", "Fen", "Kal", "Dre", "Zan",
               "Ost", "Hal", "Pel", "Ger")  # fmt: skip
_MIDDLES = ("a", "te", "vo", "li", "mo", "ru", "den", "ka", "si", "par")
_ENDINGS = ("lo", "ra", "mex", "tix", "dor", "via", "nex", "tec", "ris", "lan", "gard", "quo")
_FORMS = ("GmbH", "SAS", "AB", "SL", "Ltd", "Inc")
_SUFFIXES = ("de", "fr", "se", "es", "co.uk", "com")

# Yearly head-line figures by segment: medians, and spreads of their logarithms. They overlap.
_EMPLOYEES = ((3_200, 0.8), (420, 0.7), (38, 0.8))
_ARR = ((120_000, 0.6), (30_000, 0.6), (5_200, 0.7))
_PRICE_OF_A_SEAT = (1_900.0, 950.0, 480.0)


@dataclass(frozen=True)
class Population:
    """One row per account; all arrays have the length of `account_id`. Days are day numbers.

    `parent` and `merged_into` hold row numbers, or -1. `term_months` is 1 where the contract
    runs month by month.
    """

    account_id: Texts
    name: Texts
    domain: Texts
    segment: Ints
    employees: Ints
    arr: Floats
    in_dollars: Flags
    industry: Ints
    region: Ints
    plan: Ints
    start_day: Ints
    term_months: Ints
    seats: Ints
    habit: Floats
    wanted: Ints
    success_manager: Ints
    sales_rep: Ints
    prospect: Flags
    deleted_day: Ints
    merged_day: Ints
    merged_into: Ints
    parent: Ints
    has_workspace: Flags
    has_help_desk: Flags

    @property
    def currency(self) -> Texts:
        """ISO 4217 codes: dollars overseas and for some in the UK, else euros."""
        return pick(("EUR", "USD"), self.in_dollars.astype(int))

    @property
    def customer(self) -> Flags:
        """Customers that are neither prospects nor mistakes; only they have true outcomes."""
        return ~self.prospect & (self.deleted_day >= NEVER) & (self.merged_day >= NEVER)

    @property
    def shares_domain(self) -> Flags:
        """Accounts whose web domain belongs to another account too."""
        _, where, count = np.unique(
            self.domain.astype(str), return_inverse=True, return_counts=True
        )
        return count[where] > 1

    @property
    def last_day(self) -> Ints:
        """The day on which an account was merged away or deleted; NEVER for all others."""
        return np.minimum(self.deleted_day, self.merged_day)

    def __len__(self) -> int:
        return len(self.account_id)


def day_number(day: dt.date) -> int:
    """Days since 1970-01-01."""
    return (day - dt.date(1970, 1, 1)).days


def add_months(days: Ints, months: npt.NDArray[np.int64] | int) -> Ints:
    """The same day of a later month; days after the 28th become the 28th."""
    month = days.astype("datetime64[D]").astype("datetime64[M]")
    offset = np.minimum(days - month.astype("datetime64[D]").astype(np.int64), 27)
    later = (month.astype(np.int64) + months).astype("datetime64[M]")
    return later.astype("datetime64[D]").astype(np.int64) + offset


def last_renewal(population: Population, first_day: int) -> tuple[Ints, Ints]:
    """When the term that runs on the first day of the history (or later) began, and when it ends.

    Contracts that run month by month have no renewal: NEVER.
    """
    start, term = population.start_day, population.term_months
    opening = start.copy()
    for number in range(1, 7):
        again = add_months(start, term * number)
        opening = np.where((term > 1) & (again < first_day), again, opening)
    renewal = np.where((term > 1) & ~population.prospect, add_months(opening, term), NEVER)
    return opening, renewal


def make_population(accounts: int, *, seed: int, first_day: int, today: int) -> Population:
    """Draw the accounts: about 6 % prospects, three segments, starts spread over six years."""
    random = np.random.default_rng([seed, 1])
    segment = random.choice(3, accounts, p=SEGMENT_SHARES)
    region = random.choice(len(REGIONS), accounts, p=(0.34, 0.14, 0.12, 0.08, 0.14, 0.18))
    start = _start_days(random, accounts, first_day=first_day, today=today)
    prospect = random.random(accounts) < 0.06
    arr = _lognormal(random, _ARR, segment)
    arr = np.round(arr * np.where(start < first_day, 1.15, 1.0), -1)
    term = np.where(segment == 2, random.choice((1, 12), accounts, p=(0.5, 0.5)), 12)
    term = np.where((segment == 0) & (random.random(accounts) < 0.3), 24, term)
    seats = arr / np.array(_PRICE_OF_A_SEAT)[segment] * random.lognormal(0, 0.2, accounts)
    name, domain = _names(random, accounts, region)
    parent, merged_into, special = _relatives(segment, prospect, start, first_day, today)
    merged_day = np.full(accounts, NEVER)
    merged_day[special[:1]] = today - 140
    deleted_day = np.full(accounts, NEVER)
    deleted_day[special[1:2]] = today - 220
    _share_domains(domain, parent, special)
    workspace = random.random(accounts)
    return Population(
        account_id=np.array([f"ACC-{number:05d}" for number in range(1, accounts + 1)], object),
        name=name,
        domain=domain,
        segment=segment,
        employees=np.round(_lognormal(random, _EMPLOYEES, segment)).astype(np.int64) + 2,
        arr=arr,
        in_dollars=(region == 5) | ((region == 4) & (random.random(accounts) < 0.3)),
        industry=random.integers(0, len(INDUSTRIES), accounts),
        region=region,
        plan=np.clip(2 - segment + random.choice((-1, 0, 1), accounts, p=(0.1, 0.8, 0.1)), 0, 2),
        start_day=start,
        term_months=term,
        seats=np.maximum(2, np.round(seats)).astype(np.int64),
        habit=random.lognormal(0, 0.55, accounts),
        wanted=random.integers(0, len(OUTCOMES_WANTED), accounts),
        success_manager=random.integers(0, len(SUCCESS_MANAGERS), accounts),
        sales_rep=random.integers(0, len(SALES_REPS), accounts),
        prospect=prospect,
        deleted_day=deleted_day,
        merged_day=merged_day,
        merged_into=merged_into,
        parent=parent,
        has_workspace=(workspace > 0.03) & ~prospect,
        has_help_desk=(random.random(accounts) > 0.08) & ~prospect,
    )


def _start_days(random: np.random.Generator, accounts: int, *, first_day: int, today: int) -> Ints:
    """First days as a customer: 60 % in the four years before the history, the rest during it."""
    before = random.integers(first_day - 4 * 365, first_day, accounts)
    during = random.integers(first_day, today - 7, accounts)
    return add_months(np.where(random.random(accounts) < 0.6, before, during), 0)


def _lognormal(
    random: np.random.Generator, figures: tuple[tuple[float, float], ...], segment: Ints
) -> Floats:
    medians, spreads = np.array(figures).T
    return medians[segment] * random.lognormal(0, 1, len(segment)) ** spreads[segment]


def _names(random: np.random.Generator, accounts: int, region: Ints) -> tuple[Texts, Texts]:
    """Company names of syllables, and domains that carry a number, so that nobody real is meant.

    The suffixes are real ones because registrable domains are found by the public suffix list.
    """
    words = (
        pick(_BEGINNINGS, random.integers(0, len(_BEGINNINGS), accounts))
        + pick(_MIDDLES, random.integers(0, len(_MIDDLES), accounts))
        + pick(_ENDINGS, random.integers(0, len(_ENDINGS), accounts))
    )
    serial = np.array([f"{number:04d}" for number in range(1, accounts + 1)], object)
    name = words + " " + serial.astype(str).astype(object) + " " + pick(_FORMS, region)
    domain = np.array([word.lower() for word in words], object)
    return name, domain + "-" + serial + "." + pick(_SUFFIXES, region)


def _relatives(
    segment: Ints, prospect: Flags, start: Ints, first_day: int, today: int
) -> tuple[Ints, Ints, Ints]:
    """Families (children of enterprises), the merged pair, and the special small accounts.

    The special accounts are, in this order: merged away, deleted, and two that share a domain.
    """
    parent = np.full(len(segment), -1)
    merged_into = np.full(len(segment), -1)
    heads = np.flatnonzero((segment == 0) & ~prospect)
    members = np.flatnonzero((segment == 1) & ~prospect)
    families = max(1, len(heads) // 25)
    chosen = members[: families * 2]
    parent[chosen] = np.repeat(heads[:families], 2)[: len(chosen)]
    small = np.flatnonzero((segment == 2) & ~prospect & (start < today - 400))
    merged_into[small[0]] = small[4]
    return parent, merged_into, small[:4]


def _share_domains(domain: Texts, parent: Ints, special: Ints) -> None:
    """Every second child uses its parent's domain; two unrelated accounts share one."""
    children = np.flatnonzero(parent >= 0)[::2]
    domain[children] = domain[parent[children]]
    domain[special[3]] = domain[special[2]]
