"""F72: whatever moment a run that writes is killed at, no task is lost or doubled.

A hundred kills in every run of the tests, a thousand in all with the slow ones: at each point of
the protocol, in both CRMs, over SQLite and PostgreSQL. By its seed a case has a wish, an occurrence
of its point, and a sequel: the next run, the same plan again, or another kill before either.
"""

import random
from collections import Counter
from dataclasses import dataclass
from functools import partial
from unittest.mock import patch

import pytest

from connectors.crm import ledger_tables
from connectors.crm.ledger import Ledger
from tests.faults.crm_writes import CRMS, Crm, Wish, assert_alike, check, check_converged, open_crm
from tests.faults.killed_applies import JOB_POINTS, POINTS, prepared_quickly
from tests.ledgers import emptied

KINDS = [(crm, point) for crm in CRMS for point in POINTS] + [
    ("salesforce", point) for point in JOB_POINTS
]
SIZES = ((5, 2, 5, 3), (9, 3, 2, 0), (0, 0, 6, 4))
"""Accounts, opportunities, tasks to open, tasks to close."""

NOTHING_OPEN = ("before 1", "after 1", "after 4")
"""Points at which the ledger knows how every batch ended."""

JOBS_ABOVE = 2
SEQUELS = ("next run", "next run", "the plan again", "killed again", "killed while recovering")
EVERY_RUN, IN_ALL = 100, 1000


def seeds(kind, first, end):
    """The seeds of a kind among the cases of these numbers, which go round over the kinds."""
    return [number for number in range(first, end) if KINDS[number % len(KINDS)] == kind]


@dataclass(frozen=True)
class Case:
    """One kill and its sequel."""

    size: tuple[int, ...]
    bulk_above: int | None
    in_postgres: bool
    sequel: str
    chance: random.Random

    @classmethod
    def of(cls, kind, seed):
        crm, point = kind
        chance = random.Random(f"{crm}, {point}, {seed}")
        by_jobs = point in JOB_POINTS or (crm == "salesforce" and chance.random() < 0.25)
        return cls(
            size=chance.choice(SIZES[:2] if by_jobs else SIZES),
            bulk_above=JOBS_ABOVE if by_jobs else None,
            in_postgres=chance.random() < 0.15,
            sequel=chance.choice(SEQUELS),
            chance=chance,
        )


class Killing:
    """Carries out cases, and remembers how often a run that nobody kills passes each point."""

    def __init__(self, request, world, folder, forks, fault_free):
        self.request, self.world, self.folder = request, world, folder
        self.forks, self.fault_free = forks, fault_free
        self.tally = Counter()
        self._passed = {}
        self._number = 0

    def opened(self, name):
        self._number += 1
        return open_crm(name, self.world, self.folder / f"{self._number}")

    def passed(self, name, size, bulk_above):
        if (name, size, bulk_above) not in self._passed:
            with self.opened(name) as crm:
                plan_id = planned(crm, crm.start(*size))
                ended = self.forks.run(crm, plan_id, bulk_above=bulk_above)
                assert_alike(crm.shown(), self.fault_free.shown(name, *size))
            self._passed[name, size, bulk_above] = ended.passed
        return self._passed[name, size, bulk_above]

    def carry_out(self, kind, seed):
        name, point = kind
        case = Case.of(kind, seed)
        passages = self.passed(name, case.size, case.bulk_above)[point]
        wanted = self.fault_free.shown(name, *case.size)
        with self.opened(name) as crm, self.ledger(case):
            wish = crm.start(*case.size)
            plan_id = planned(crm, wish)
            kill = partial(self.kill, crm, wish, case)
            assert kill(plan_id, point, case.chance.randint(1, passages)), (kind, seed)
            assert is_open(crm) == (point not in NOTHING_OPEN), (kind, seed)
            if case.sequel == "the plan again":
                crm.sleep(600)
                with Ledger(crm.url) as ledger:
                    crm.apply(ledger, plan_id, crm.writer())
            elif case.sequel == "killed again":
                kill(plan_id, case.chance.choice(POINTS), 1)
            elif case.sequel == "killed while recovering" and is_open(crm):
                kill(None, case.chance.choice(("inside 4", "after 4")), 1)
            above = {"bulk_above": {name: case.bulk_above}} if case.bulk_above else {}
            check_converged(crm, wish, wanted, **above)
            check_the_ledger(crm, wish)

    def ledger(self, case):
        if not case.in_postgres:
            return patch.object(Crm, "url", Crm.url)
        return patch.object(Crm, "url", emptied(self.request.getfixturevalue("postgres")))

    def kill(self, crm, wish, case, plan_id, point, passage):
        crm.sleep(600)  # the lease of the dead is over
        ended = self.forks.run(
            crm, plan_id, point=point, passage=passage, bulk_above=case.bulk_above
        )
        self.tally["killed" if ended.was_killed else "not reached"] += 1
        check(crm, wish)
        return ended.was_killed


def planned(crm: Crm, wish: Wish) -> str:
    with Ledger(crm.url) as ledger:
        return crm.plan(ledger, wish)


def is_open(crm: Crm) -> bool:
    """Whether something was sent of which nobody knows how it ended."""
    with Ledger(crm.url) as ledger:
        return bool(ledger.sent())


def check_the_ledger(crm: Crm, wish: Wish) -> None:
    """It knows what the CRM shows: the fields, the tasks and their episodes."""
    with Ledger(crm.url) as ledger:
        confirmed = {
            (row["object"], row["record_id"])
            for table in ledger.confirmed()
            for row in table.to_pylist()
        }
        tasks = {task.key: task for task in ledger.tasks()}
        episodes = {episode.name: episode.state for episode in ledger.episodes()}
        assert ledger.sent() == []
        assert ledger.newest().status == "applied"
    assert confirmed == set(wish.fields)
    wanted = dict.fromkeys(wish.keys, "open") | dict.fromkeys(wish.closed, "closed")
    assert {key: task.status for key, task in tasks.items()} == wanted
    assert {key: task.task_id for key, task in tasks.items()} == {
        key: crm.task_id(key) for key in wanted
    }
    assert set(episodes) == {
        f"{task.playbook}/{task.opened_on}/{task.account_id}" for task in tasks.values()
    }


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    prepare = prepared_quickly(ledger_tables._prepare_sqlite)
    monkeypatch.setattr(ledger_tables, "_prepare_sqlite", prepare)


@pytest.fixture(scope="module")
def killing(request, world, tmp_path_factory, forks, fault_free_crm):
    return Killing(request, world, tmp_path_factory.mktemp("killed"), forks, fault_free_crm)


def sweep(killing, kind, first, end):
    killing.tally.clear()
    chosen = seeds(kind, first, end)
    for seed in chosen:
        killing.carry_out(kind, seed)
    assert killing.tally["killed"] >= len(chosen)
    assert killing.tally["not reached"] <= max(2, len(chosen) / 4)


def named(kind):
    return "-".join(kind)


def test_the_hundred_cases_are_spread_over_all_points_and_both_crms():
    counts = [len(seeds(kind, 0, EVERY_RUN)) for kind in KINDS]
    assert sum(counts) == EVERY_RUN
    assert min(counts) >= 4


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_f72_a_run_that_is_killed_loses_and_doubles_nothing(killing, kind):
    sweep(killing, kind, 0, EVERY_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_f72_a_thousand_killed_runs_lose_and_double_nothing(killing, kind):
    sweep(killing, kind, EVERY_RUN, IN_ALL)
