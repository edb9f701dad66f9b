"""Every request of an apply is spoiled in turn, and every commit of its ledger fails in turn.

After each the run has ended in one of the ways that it may, nothing was made twice, and the next
clean run comes to the state that there would be without the fault. A quick run takes each place
with one sort of fault, a full one takes all sorts, and more records.
"""

import itertools

import pytest

from connectors.crm.ledger import Ledger
from contracts.errors import LedgerError
from tests.faults.crm_writes import CRMS, FullDisk, check, check_converged, open_crm

SMALL, LARGE = (3, 1, 2, 1), (7, 3, 5, 3)

KINDS = {
    "502 after it was done": {"do": "commit_then_502"},
    "reset": {"do": "reset"},
    "503": {"do": "status", "code": 503},
    "truncated": {"do": "truncate"},
    "429": {"do": "status", "code": 429},
    "web page": {"do": "html"},
}
FOREVER = {
    "503 for good": {"do": "status", "code": 503, "times": None},
    "401 for good": {"do": "status", "code": 401, "times": None},
}


class Place:
    """A fresh CRM with a wish, for each place at which something breaks."""

    def __init__(self, name, world, folder, size, batch_size, fault_free_crm):
        self.name, self.world, self.folder, self.size = name, world, folder, size
        self.batch_size = batch_size
        self.wanted = fault_free_crm.shown(name, *size)

    def opened(self, number):
        return open_crm(self.name, self.world, self.folder / str(number))

    def started(self, crm):
        crm.batch_size = self.batch_size
        return crm.start(*self.size)


@pytest.fixture
def places(world, tmp_path, impatient, fault_free_crm):
    def of(name, size, batch_size):
        return Place(name, world, tmp_path, size, batch_size, fault_free_crm)

    return of


def sweep_requests(place, kinds_of, **how):
    """Spoil the first request, the second ... until a run asks for fewer; gives how many."""
    for number in itertools.count(1):
        hit = False
        for kind, spoiled in kinds_of(number).items():
            with place.opened(f"{number} {kind}") as crm:
                wish = place.started(crm)
                rule = crm.box.faults.add(vendor=crm.name, nth=number, **spoiled)
                run = crm.run(wish, **how)
                check(crm, wish)
                hit = hit or rule.seen >= number
                if kind.startswith("401"):
                    assert rule.seen < number or run.applied.failed
                check_converged(crm, wish, place.wanted, **how)
        if not hit:
            return number - 1


def one_kind(number):
    kinds = list(KINDS.items())
    return dict([kinds[number % len(kinds)]])


@pytest.mark.parametrize("name", CRMS)
def test_after_any_spoiled_request_a_clean_run_converges(name, places):
    place = places(name, SMALL, 2)
    assert sweep_requests(place, one_kind) >= 7


@pytest.mark.parametrize("name", CRMS)
def test_f17_after_any_lost_answer_a_clean_run_converges(name, places):
    place = places(name, SMALL, 100)
    assert sweep_requests(place, lambda number: {"lost": KINDS["502 after it was done"]}) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", CRMS)
def test_after_any_request_spoiled_in_any_way_a_clean_run_converges(name, places):
    place = places(name, LARGE, 3)
    assert sweep_requests(place, lambda number: KINDS | FOREVER) >= 9


@pytest.mark.slow
def test_f60_after_any_spoiled_request_of_a_bulk_job_a_clean_run_converges(places):
    place = places("salesforce", LARGE, 3)
    how = {"bulk_above": {"salesforce": 5}}
    assert sweep_requests(place, lambda number: KINDS | FOREVER, **how) >= 12


def failure(act):
    try:
        act()
    except LedgerError as error:
        return error
    return None


def sweep_commits(place, nths, **how):
    """Let the nth commit fail and all after it; in turn as if nothing, or all, had been kept."""
    for number, kept in nths:
        with place.opened(f"{number} {kept}") as crm:
            wish = place.started(crm)
            ledger = Ledger(crm.url)
            disk = FullDisk(ledger, number, kept=kept)
            sent_at_failure = []
            disk.on_failure = lambda crm=crm, to=sent_at_failure: to.append(crm.sent())
            error = failure(lambda: crm.run(wish, ledger=ledger, **how))  # noqa: B023
            if not disk.hit:
                assert error is None
                return number - 1
            if error is None:  # it could not give up the lease, which runs out by itself
                assert disk.commits == number
            else:
                assert "no space left" in error.cause
            assert crm.sent() == sent_at_failure[0], "something was sent without a ledger"
            check(crm, wish)
            check_converged(crm, wish, place.wanted, **how)
    return None


def alternating():
    return ((number, number % 2 == 0) for number in itertools.count(1))


@pytest.mark.parametrize("name", CRMS)
def test_f77_when_any_commit_fails_nothing_more_is_sent_and_a_clean_run_converges(name, places):
    place = places(name, SMALL, 100)
    assert sweep_commits(place, alternating()) >= 12


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["lost", "kept"])
@pytest.mark.parametrize("name", CRMS)
def test_f77_any_commit_may_fail_in_a_long_run(name, kept, places):
    place = places(name, LARGE, 3)
    assert sweep_commits(place, ((number, kept) for number in itertools.count(1))) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["lost", "kept"])
def test_f77_any_commit_may_fail_while_a_bulk_job_runs(kept, places):
    place = places("salesforce", LARGE, 3)
    nths = ((number, kept) for number in itertools.count(1))
    assert sweep_commits(place, nths, bulk_above={"salesforce": 5}) >= 20
