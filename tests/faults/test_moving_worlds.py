"""Faults F20 to F25 of each vendor: a world that moves on while it is read, and clocks that differ.

What is compared are two chains of pulls over the same days: one that nothing disturbs, and one
whose first pull is overtaken by changes between two of its pages, or whose clock is wrong. Both
have to end in the same lake.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import NAMES
from tests.faults.vendor_pulls import (
    CASES,
    FIRST,
    SECOND,
    company_of,
    differences,
    pulled,
    state_of,
    without,
)

MEANWHILE = FIRST + dt.timedelta(hours=30)
"""What the sandbox's clock shows from the middle of the first pull on."""

CHANGING = {
    "chargebee": "subscriptions", "company_news": "acquisitions", "freshdesk": "tickets",
    "hubspot": "companies", "intercom": "conversations", "salesforce": "Account",
    "stripe": "customers", "surveymonkey": "responses", "zendesk": "tickets",
}  # fmt: skip
"""Whose records can change, and which do here. Of the others, events happen meanwhile."""

TELL_DELETIONS = ("chargebee", "company_news", "freshdesk", "hubspot", "stripe", "zendesk")
"""Where a plain removal from the table is told. Salesforce has a flag for it, in its own tests."""

TOLD_ASIDE = {"company_news": "acquisitions", "freshdesk": "tickets"}
"""Where a stream of its own tells deletions: a record may go before it was ever seen."""


def change(box: Box, vendor: str) -> list[str]:
    """Let records change and vanish at `MEANWHILE`, from all over the list; those that vanish."""
    if vendor not in CHANGING:
        return []
    table = box.tables()[vendor, CHANGING[vendor]]
    rows = table.rows(FIRST.timestamp())
    recent = rows[-3 * (CASES[vendor].pages or 20) :]
    for row in (recent[0], recent[len(recent) // 2], recent[-1]):
        table.put(row.id, row.body, MEANWHILE.timestamp())
    removed = [recent[1], recent[-2]] if vendor in TELL_DELETIONS else []
    for row in removed:
        table.remove(row.id, MEANWHILE.timestamp())
    return [row.id for row in removed]


@pytest.mark.parametrize("vendor", NAMES)
def test_F20_F21_F22_a_world_that_moves_on_between_two_pages_is_caught_up_with(
    vendor, world, impatient, tmp_path
):
    case = CASES[vendor]
    with sandbox(world, FIRST, vendors=[vendor], small_pages=case.pages) as box:
        calm = company_of(tmp_path / "calm", vendor, box)
        assert pulled(calm, FIRST).failures == {}
        before = state_of(calm)
        gone = change(box, vendor)
        box.now = SECOND
        assert pulled(calm, SECOND).failures == {}
        wanted = state_of(calm)
        if vendor != "typeform":
            assert wanted != before

        def moves_on(body: bytes) -> bytes:
            box.now = MEANWHILE
            return body

        box.now = FIRST
        overtaken = company_of(tmp_path / "overtaken", vendor, box)
        box.faults.add(
            vendor=vendor, path=case.path, asks=case.asks, nth=case.nth - 1,
            do="rewrite", rewrite=moves_on,
        )  # fmt: skip
        pulled(overtaken, FIRST)
        assert box.now == MEANWHILE
        box.now = SECOND
        assert pulled(overtaken, SECOND).failures == {}
        found = state_of(overtaken)
        for id in gone if vendor in TOLD_ASIDE else ():
            assert wanted[TOLD_ASIDE[vendor]].pop((id,))
            found[TOLD_ASIDE[vendor]].pop((id,), None)
        assert differences(found, wanted) == []
        assert box.defects == []


def skews() -> list[Any]:
    """Each vendor with a clock that is slow and one that is fast; a quick run tries a few."""
    return [
        pytest.param(
            vendor, minutes, id=f"{vendor}{minutes:+}",
            marks=[pytest.mark.slow] if (number + 2 * place) % 4 else [],
        )
        for number, vendor in enumerate(NAMES)
        for place, minutes in enumerate((-10, 10))
    ]  # fmt: skip


@pytest.mark.parametrize(("vendor", "minutes"), skews())
def test_F23_F24_a_clock_that_is_ten_minutes_wrong_loses_nothing(
    vendor, minutes, box, fault_free, tmp_path
):
    wanted, skew = fault_free.state(vendor, box, SECOND), dt.timedelta(minutes=minutes)
    box.small_pages = CASES[vendor].pages
    company = company_of(tmp_path, vendor, box)
    for now in (FIRST, SECOND):
        box.now = now
        assert pulled(company, now + skew).failures == {}
    # Whose a workspace is stands with the first event of a reading that tells it.
    but = {"crm_id", "domain"} if vendor == "amplitude" else set()
    assert differences(without(state_of(company), but), without(wanted, but)) == []


AHEAD = dt.datetime(2031, 1, 1, tzinfo=dt.UTC)
ISO, EPOCH = "2031-01-01T00:00:00Z", int(AHEAD.timestamp())
DATED = {
    "chargebee": ("updated_at", EPOCH), "company_news": ("updated_at", ISO),
    "freshdesk": ("updated_at", ISO), "hubspot": ("hs_lastmodifieddate", ISO),
    "intercom": ("updated_at", EPOCH), "salesforce": ("SystemModstamp", ISO[:-1] + ".000+0000"),
    "surveymonkey": ("date_modified", ISO), "typeform": ("submitted_at", ISO),
    "zendesk": ("generated_timestamp", EPOCH),
}  # fmt: skip
"""The field of a record that orders changes, and what it holds in a record that is dated ahead."""


@pytest.mark.parametrize("vendor", DATED)
def test_F25_a_record_dated_years_ahead_hides_nothing_that_happens_until_then(
    vendor, box, fault_free, tmp_path
):
    case, wanted = CASES[vendor], fault_free.state(vendor, box, SECOND)
    box.small_pages = case.pages
    company = company_of(tmp_path, vendor, box)
    box.faults.add(
        vendor=vendor, path=case.path, asks=case.asks, nth=case.nth - 1,
        do="rewrite", rewrite=dated(*DATED[vendor]),
    )  # fmt: skip
    assert pulled(company, FIRST).failures == {}
    assert "2031" in str(state_of(company)) or str(EPOCH) in str(state_of(company))
    box.now = SECOND
    assert pulled(company, SECOND).failures == {}
    found = state_of(company)
    assert found.keys() == wanted.keys()
    for stream, rows in wanted.items():
        other = {key for key in rows if found[stream].get(key) != rows[key]}
        assert found[stream].keys() >= rows.keys() - other
        assert len(other) <= (1 if stream == case.stream else 0), stream


def dated(field: str, value: Any) -> Callable[[bytes], bytes]:
    """Date the first record of a page ahead."""

    def place(content: Any) -> dict[str, Any] | None:
        """The first object, from the top, that has the field."""
        if isinstance(content, dict) and field in content:
            return content
        inner = content.values() if isinstance(content, dict) else content
        found = (place(one) for one in inner if isinstance(one, dict | list))
        return next(filter(None, found), None)

    def rewrite(body: bytes) -> bytes:
        content = orjson.loads(body)
        record = place(content)
        assert record is not None
        record[field] = value
        return orjson.dumps(content)

    return rewrite
