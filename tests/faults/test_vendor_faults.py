"""Faults F01 to F19, F32 and F37 of each vendor, through a real pull into a real lake.

A fault hits one request in the middle of paging. Whatever it is, either the lake says the same as
without it, or the stream fails with an error that names it while the others land, and a clean
pull then comes to the same lake as if nothing had happened.

A full run tries every fault on every vendor, a quick one each fault on a few of them.
"""

import shutil
import socket
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from connectors.http import Http, Patience
from connectors.lake import Lake
from connectors.sandbox.vendors import NAMES
from contracts.errors import (
    SourceCorrupt,
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceUnavailable,
)
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
from tests.raw_server import RawServer, response


@dataclass(frozen=True)
class Fault:
    """What the sandbox does to one request (or with `times` None to all from there on).

    `kinds` are the errors that it may end in; without any it must pass. It may pass anyway,
    unless it is `lasting`.
    """

    do: str
    how: dict[str, Any] = field(default_factory=dict)
    times: int | None = 1
    kinds: tuple[type[SourceError], ...] = ()
    lasting: bool = False


def status(code: int, **headers: str) -> dict[str, Any]:
    return {"code": code, "headers": headers}


def lasting(do: str, how: dict[str, Any], *kinds: type[SourceError]) -> Fault:
    return Fault(do, how, None, kinds, lasting=True)


def half(body: bytes) -> bytes:
    return body[: len(body) // 2]


def emptied(body: bytes) -> bytes:
    """A page whose records have lost all their fields."""

    def without_fields(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_fields(inner) for key, inner in value.items()}
        return [{} if isinstance(one, dict) else [] for one in value] if is_list(value) else value

    def is_list(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(one, dict | list) for one in value)

    return orjson.dumps(without_fields(orjson.loads(body)))


HTTP_DATE = "Tue, 30 Jun 2026 20:00:10 GMT"
FAULTS = {
    "F01_seconds": Fault("status", status(429, **{"Retry-After": "7"})),
    "F01_for_ever": lasting("status", status(429, **{"Retry-After": "7"}), SourceExhausted),
    "F02_a_date": Fault("status", status(429, **{"Retry-After": HTTP_DATE})),
    "F02_nonsense": Fault("status", status(429, **{"Retry-After": "99999999999"})),
    "F02_nothing": Fault("status", status(429)),
    "F05_503": Fault("status", status(503), times=2),
    "F06_500_for_ever": lasting("status", status(500), SourceUnavailable),
    "F07_reset": Fault("reset"),
    "F07_reset_for_ever": lasting("reset", {}, SourceUnavailable),
    "F08_gzip_cut": Fault("bad_gzip"),
    "F09_body_cut": Fault("truncate"),
    "F09_sent_half": Fault("rewrite", {"rewrite": half}),
    "F09_half_for_ever": lasting("rewrite", {"rewrite": half}, SourceCorrupt),
    "F10_too_long": Fault("wrong_length", {"by": 100}),
    "F10_too_short": Fault("wrong_length", {"by": -10}),
    "F11_error_in_200": Fault("error_json", kinds=(SourceCorrupt,)),
    "F11_for_ever": lasting("error_json", {}, SourceCorrupt),
    "F12_login_page": Fault("html"),
    "F12_for_ever": lasting("html", {}, SourceCorrupt),
    "F13_204": Fault("empty"),
    "F13_for_ever": lasting("empty", {}, SourceCorrupt, SourceUnavailable),
    "F14_stall": Fault("stall"),
    "F17_502": Fault("commit_then_502"),
    "F18_page_twice": Fault("repeat_page", kinds=(SourceCorrupt,)),
    "F19_cursor_twice": Fault("repeat_cursor", kinds=(SourceCorrupt,)),
    "F33_no_fields": lasting("rewrite", {"rewrite": emptied}, SourceCorrupt),
    "F32_401": lasting("status", status(401), SourceRefused),
    "F32_403": lasting("status", status(403), SourceRefused),
}
QUICK_SHARE = 8
"""Of this many vendors one is tried with each fault in a quick run."""


NOT_OF = {
    # Its answers are packed files about the hours that were asked for: no records and no pages.
    "amplitude": ("F18_page_twice", "F33_no_fields"),
}


def needs_cursor(fault: Fault) -> bool:
    return fault.do == "repeat_cursor"


def combinations() -> list[Any]:
    found = []
    for row, (name, fault) in enumerate(FAULTS.items()):
        for column, vendor in enumerate(NAMES):
            if name in NOT_OF.get(vendor, ()) or (needs_cursor(fault) and not CASES[vendor].cursor):
                continue
            slow = (row + column) % QUICK_SHARE != 0
            marks = [pytest.mark.slow] if slow else []
            found.append(pytest.param(vendor, fault, id=f"{name}-{vendor}", marks=marks))
    return found


@pytest.mark.parametrize(("vendor", "fault"), combinations())
def test_a_fault_changes_nothing_or_fails_one_stream_by_name(
    vendor, fault, box, fault_free, tmp_path, monkeypatch
):
    case, wanted = CASES[vendor], fault_free.state(vendor, box)
    if fault.do == "stall":
        quick = Patience(read_seconds=1, budget_seconds=1e9)
        monkeypatch.setitem(Http.__init__.__kwdefaults__, "patience", quick)
    box.small_pages = case.pages
    company = company_of(tmp_path, vendor, box)
    how = fault.how | ({"field": case.cursor} if needs_cursor(fault) else {})
    rule = box.faults.add(
        vendor=vendor, path=case.path, asks=case.asks, nth=case.nth, times=fault.times,
        do=fault.do, **how,
    )  # fmt: skip
    outcome = pulled(company, FIRST)
    assert rule.seen >= rule.nth, "the fault hit nothing"
    found = state_of(company)
    if outcome.failures:
        assert_one_stream_failed(vendor, fault, outcome, found, wanted)
        box.faults.clear()
        again = pulled(company, FIRST)
        assert again.failures == {}
        found = state_of(company)
    else:
        assert not fault.lasting
    assert differences(found, wanted) == []


def assert_one_stream_failed(vendor, fault, outcome, found, wanted):
    assert set(outcome.failures) == {CASES[vendor].stream}
    (error,) = outcome.failures.values()
    assert isinstance(error, fault.kinds), repr(error)
    assert (error.vendor, error.stream) == (vendor, CASES[vendor].stream)
    assert error.page or set(fault.kinds) == {SourceCorrupt}
    assert "\n" not in str(error)
    assert_no_secret(error, repr(error), vars(error))
    others = {name: rows for name, rows in wanted.items() if name != error.stream}
    landed = others if outcome.pull else {name: {} for name in others}
    assert differences(found, {**landed, error.stream: {}}) == []


@pytest.mark.parametrize("vendor", NAMES)
def test_F15_nobody_at_the_address_is_unavailable_and_takes_nothing(
    vendor, box, fault_free, tmp_path
):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    scheme = "https" if vendor == "salesforce" else "http"
    nowhere = company_of(tmp_path, vendor, box, address=f"{scheme}://127.0.0.1:{port}")
    (error,) = pulled(nowhere, FIRST).failures.values()
    assert isinstance(error, SourceUnavailable)
    assert "refused the connection" in str(error)
    assert Lake(nowhere).loads(vendor) == []


@pytest.mark.parametrize("vendor", NAMES)
def test_F16_a_redirect_to_another_host_carries_no_token_there(vendor, box, tmp_path):
    case = CASES[vendor]
    box.small_pages = case.pages
    company = company_of(tmp_path, vendor, box)
    with RawServer(response(body=b'{"data": []}')) as stranger:
        box.faults.add(
            vendor=vendor, path=case.path, asks=case.asks, nth=case.nth, times=None,
            do="redirect", to=f"{stranger.url}/elsewhere?x=1",
        )  # fmt: skip
        outcome = pulled(company, FIRST)
        assert stranger.requests == []
    (error,) = outcome.failures.values()
    assert isinstance(error, SourceRefused)
    assert error.stream == case.stream
    assert_no_secret(error)


@pytest.mark.parametrize("vendor", NAMES)
def test_F32_credentials_that_were_revoked_read_nothing_and_keep_what_is_there(
    vendor, box, fault_free, tmp_path
):
    home = fault_free.home(vendor, box)
    wanted = fault_free.state(vendor, box)
    shutil.copytree(home, tmp_path / "home")
    company = company_of(tmp_path / "home", vendor, box)
    box.faults.add(vendor=vendor, do="status", times=None, **status(401))
    box.now = SECOND
    failures = pulled(company, SECOND).failures
    assert failures
    assert all(isinstance(error, SourceRefused) for error in failures.values())
    assert_no_secret(*failures.values())
    assert differences(state_of(company), wanted) == []


@pytest.mark.parametrize("vendor", NAMES)
def test_F37_credentials_of_another_account_are_refused_before_anything_is_read(
    vendor, box, tmp_path
):
    company = company_of(tmp_path, vendor, box, expect_account="globex")
    asked = box.count(vendor)
    (error,) = pulled(company, FIRST).failures.values()
    assert isinstance(error, SourceRefused)
    assert "not 'globex'" in str(error)
    assert box.count(vendor) == asked + 1
    assert Lake(company).loads(vendor) == []
