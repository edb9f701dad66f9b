"""What people type into the CRM for others: facts of a handoff on deals, overrides on accounts.

Both have random streams of their own, so that nothing else in the world changes with them.
"""

from typing import Any

import numpy as np

from connectors.sandbox.world.causes import Causes
from connectors.sandbox.world.population import OUTCOMES_WANTED, Population
from connectors.sandbox.world.writing import (
    DAY_SECONDS,
    NEVER,
    Columns,
    Floats,
    Ints,
    Texts,
    date_text,
    pick,
    where_true,
)

KEPT_BEFORE_HISTORY_DAYS = 90
"""Handoffs were introduced a quarter before the history begins; older deals have none."""

_CRITERIA = (
    "Half of the reports are read by somebody outside the team",
    "The monthly numbers stand three days earlier than today",
    "Every region works with the same figures",
    "Two teams have replaced their spreadsheets",
)
_CARELESS, _HALF, _COMPLETE = 0, 1, 2

# What happens at an account, in order: day from today, last day from today, score, reason. A score
# of None takes the override back.
_OVERRIDES: tuple[tuple[tuple[int, int, int | None, str | None], ...], ...] = (
    ((-20, 40, 75, "The sponsor told us that the budget is in question"),),
    ((-120, -30, 80, "A competitor was invited to a demo"),),
    ((-15, 30, 85, None),),
    ((-90, 20, 70, "Nobody answers our calls"), (-40, 0, None, None)),
    ((-70, -10, 60, "The new head of finance reviews all contracts"),
     (-12, 60, 30, "The review is over and they stay, fewer seats are possible")),
    ((-5, 85, 15, "They signed for two more years, it is not booked yet"),),
    ((-110, -60, 65, "Rollout stopped for the summer"),
     (-50, -5, 45, "Rollout goes on with half of the sites")),
)  # fmt: skip
OVERRIDDEN = 9
_QUIET_DAYS = 121


def make_handoffs(
    population: Population, causes: Causes, opportunities: Columns, *, seed: int, first_day: int,
    today: int,
) -> Columns:  # fmt: skip
    """The handoff form of deals, whole, after each time that somebody filled a part of it.

    A first part is filled while the deal is open, the people after it was won, criteria and the
    kickoff some days later. Whether it is done well follows the account's hidden causes a little.
    """
    deals = len(opportunities["Opportunity_No"])
    random = np.random.default_rng([seed, 31]).random((deals, 18))  # a row for each deal
    row_of = {number: row for row, number in enumerate(population.account_id.tolist())}
    account = np.array([row_of[number] for number in opportunities["Account_No"].tolist()])
    created, closed = _days(opportunities["Created_At"]), _days(opportunities["Closed_At"])
    is_new = opportunities["Type"] == "New business"
    keeps = is_new | (opportunities["Type"] == "Expansion") & (random[:, 0] < 0.3)
    keeps &= (opportunities["Stage"] == "Closed won") | (closed >= NEVER)
    keeps &= created >= first_day - KEPT_BEFORE_HISTORY_DAYS
    form = _form(random, population, account, closed, _quality(random, causes, account))
    moments = np.where(keeps, _moments(random, created, closed, today), NEVER)
    filled = [np.any([at == step for at, _ in form.values()], axis=0) for step in range(3)]
    step, deal = np.nonzero(filled & (moments < NEVER))
    order = np.lexsort((step, deal))
    step, deal = step[order], deal[order]
    return {
        "Opportunity_No": opportunities["Opportunity_No"][deal],
        "Noted_At": _wall_clock(moments[step, deal]),
        **{name: where_true(at[deal] <= step, said[deal]) for name, (at, said) in form.items()},
    }


def _moments(random: Floats, created: Ints, closed: Ints, today: int) -> Ints:
    """When the three parts of each form are filled: wall-clock seconds, (3, deals)."""
    end = np.where(closed < NEVER, closed, created + 60)
    talk = created + 1 + (random[:, 1] * 0.6 * np.maximum(end - created - 2, 0)).astype(np.int64)
    after = np.where(closed < NEVER, closed + 1 + (random[:, 2] * 3).astype(np.int64), NEVER)
    later = np.where(closed < NEVER, closed + 4 + (random[:, 3] * 9).astype(np.int64), NEVER)
    days = np.stack([talk, after, later])
    seconds = 8 * 3600 + (random[:, 4:7].T * 9 * 3600).astype(np.int64)
    return np.where(days <= today, days * DAY_SECONDS + seconds, NEVER)


def _quality(random: Floats, causes: Causes, account: Ints) -> Ints:
    """How well a deal is handed over: badly a little more often where value is found late."""
    late = np.log(causes.value_days[account] / 60) / 0.5
    care = 0.6 * (causes.value_target[account] - 0.6) / 0.2 - 0.6 * late
    care = care + 2.2 * (random[:, 7] + random[:, 8] - 1)
    return np.select([care > 0.2, care > -1.0], [_COMPLETE, _HALF], _CARELESS)


def _form(
    random: Floats, population: Population, account: Ints, closed: Ints, quality: Ints
) -> dict[str, tuple[Ints, Texts]]:
    """Of each fact: the step at which it is noted (3 is never), and what is noted."""

    def noted(step: int, carefully: int, share_of_others: float, chance: Floats) -> Ints:
        careless = (quality == carefully - 1) & (chance < share_of_others)
        return np.where((quality >= carefully) | careless, step, 3)

    chance = random[:, 11:].T
    people = np.array([f"C-{number + 1:05d}" for number in account.tolist()], object)
    met = 1 + quality + (random[:, 9] * 3).astype(np.int64)
    mood = np.clip(np.round(2.2 + 0.7 * quality + 1.6 * random[:, 10]), 1, 5).astype(int)
    kickoff = np.where(closed < NEVER, closed + 6 + (random[:, 9] * 22).astype(np.int64), NEVER)
    outcome = pick(OUTCOMES_WANTED, population.wanted[account]) + " within the first year"
    criteria = pick(_CRITERIA, (random[:, 10] * len(_CRITERIA)).astype(int))
    return {
        "Promised_Outcome": (noted(0, _HALF, 0.2, chance[0]), outcome),
        "Success_Criteria": (noted(2, _COMPLETE, 0.3, chance[1]), criteria),
        "Champion_Contact": (noted(1, _HALF, 0.1, chance[2]), people + "1"),
        "Decision_Maker_Contact": (noted(1, _COMPLETE, 0.5, chance[3]), people + "2"),
        "Stakeholders_Met": (noted(0, _HALF, 0.5, chance[4]), met.astype(str).astype(object)),
        "Sentiment": (noted(0, _HALF, 0.4, chance[5]), mood.astype(str).astype(object)),
        "Kickoff_On": (noted(2, _COMPLETE, 0.5, chance[6]), date_text(kickoff)),
    }


def make_overrides(population: Population, changes: Columns, *, seed: int, today: int) -> Columns:
    """Risk scores that success managers set by hand: some count, some have expired or were taken
    back, one lacks a reason. A row without a score takes an override back.
    """
    random = np.random.default_rng([seed, 32])
    settled = _settled(population, changes, today)
    count = min(OVERRIDDEN + len(population) // 500, len(settled))
    chosen = sorted(random.choice(settled, count, replace=False).tolist())
    rows: list[dict[str, Any]] = []
    for number, i in enumerate(chosen):
        for set_on, until, score, reason in _OVERRIDES[number % len(_OVERRIDES)]:
            moment = (today + set_on) * DAY_SECONDS + int(random.integers(9, 17)) * 3600
            rows.append({
                "Account_No": changes["Account_No"][i],
                "Author": changes["Success_Manager"][i],
                "Set_At": _wall_clock(np.array([moment]))[0],
                "Score": None if score is None else str(score),
                "Reason": reason,
                "Until": None if score is None else date_text(np.array([today + until]))[0],
            })  # fmt: skip
    names = ("Account_No", "Author", "Set_At", "Score", "Reason", "Until")
    return {name: np.array([row[name] for row in rows], object) for name in names}


def _settled(population: Population, changes: Columns, today: int) -> list[int]:
    """The newest version (a row of `changes`) of the customers to whom nothing happens any more."""
    newest = {number: row for row, number in enumerate(changes["Account_No"].tolist())}
    heirs = set(population.account_id[population.merged_into[population.merged_into >= 0]])
    changed = _days(changes["Changed_At"])
    return [
        row
        for number, row in newest.items()
        if changed[row] < today - _QUIET_DAYS
        and changes["Status"][row] == "Customer"
        and changes["Merged_Into"][row] is None
        and changes["Deleted"][row] == "no"
        and number not in heirs
    ]


def _days(wall_clock: Texts) -> Ints:
    """The day numbers of wall-clock texts; NEVER where there is none."""
    known = np.array([text is not None for text in wall_clock], bool)
    days = np.full(len(wall_clock), NEVER)
    texts = [text[:10] for text in wall_clock[known]]
    days[known] = np.array(texts, "datetime64[D]").astype(np.int64)
    return days


def _wall_clock(seconds: Ints) -> Texts:
    """Wall-clock seconds as the CRM prints them: ``2025-03-04 13:05:22``."""
    text = np.datetime_as_string(seconds.astype("datetime64[s]"))
    return np.char.replace(text, "T", " ").astype(object)
