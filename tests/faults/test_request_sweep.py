"""Every single request of a pull fails in turn; the next clean pull comes to the same lake.

Once it is refused in a way that is not tried again, once its answer is cut in every attempt. The
first pull is swept and the one after it, for which the world has gone on by three days. A full
run fails each request, a quick one only one in the middle.
"""

import shutil

import pytest

from connectors.lake import Lake
from connectors.sandbox.vendors import NAMES
from contracts.errors import SourceError
from tests.faults.vendor_pulls import (
    CASES,
    FIRST,
    SECOND,
    assert_no_secret,
    company_of,
    differences,
    pulled,
    state_of,
)

REFUSED = {"do": "status", "code": 422, "times": 1}
CUT = {"do": "truncate", "times": 6}
"""As often as an answer is asked for."""


def sweep(vendor, now, failing, box, fault_free, tmp_path):
    """Fail the requests of these numbers, each in a fresh copy of the company, in these ways."""
    wanted = fault_free.state(vendor, box, now)
    box.small_pages = CASES[vendor].pages
    for number, how in failing:
        home = tmp_path / f"{number}-{how['do']}"
        if now == SECOND:
            shutil.copytree(fault_free.home(vendor, box, FIRST), home)
        company = company_of(home, vendor, box)
        before = state_of(company)
        box.now = now
        rule = box.faults.add(vendor=vendor, nth=number, **how)
        failures = pulled(company, now).failures
        box.faults.clear()
        assert rule.seen >= number, "the fault hit nothing"
        for error in failures.values():
            assert isinstance(error, SourceError)
            assert_no_secret(error)
        half_way = state_of(company)
        for stream in failures.keys() & half_way.keys():
            assert half_way[stream] == before[stream], f"{stream} is half written"
        if not failures:
            assert differences(half_way, wanted) == [], f"request {number} was lost in silence"
        assert pulled(company, now).failures == {}
        assert differences(state_of(company), wanted) == [], f"request {number}, {how['do']}"
        assert len(Lake(company).loads(vendor)) <= (2 if now == FIRST else 3)
        shutil.rmtree(home)


PULLS = {FIRST: "first", SECOND: "next"}
SLICE = [
    pytest.param(vendor, now, id=f"{vendor}-{PULLS[now]}")
    for number, vendor in enumerate(NAMES)
    for now in ([FIRST, SECOND] if number % 2 else [FIRST])
]
"""What a quick run sweeps: the first pull of each vendor, and the next one of every other."""


@pytest.mark.parametrize(("vendor", "now"), SLICE)
def test_after_a_failed_request_a_clean_pull_converges(vendor, now, box, fault_free, tmp_path):
    count = fault_free.requests(vendor, box, now)
    sweep(vendor, now, [(1 + count // 2, REFUSED)], box, fault_free, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [REFUSED, CUT], ids=["refused", "cut"])
@pytest.mark.parametrize("now", [FIRST, SECOND], ids=["first", "next"])
@pytest.mark.parametrize("vendor", NAMES)
def test_after_any_request_that_failed_a_clean_pull_converges(
    vendor, now, how, box, fault_free, tmp_path
):
    count = fault_free.requests(vendor, box, now)
    failing = [(number, how) for number in range(1, count + 1)]
    sweep(vendor, now, failing, box, fault_free, tmp_path)
