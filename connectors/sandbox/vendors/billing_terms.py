"""The world's billing as any billing system could hold it, and the terms that contracts run in.

Stripe's and Chargebee's servers both stand on it.
"""

import calendar
import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any

from connectors.sandbox.servers.box import WorldFiles

Record = dict[str, Any]

DAY_SECONDS = 86_400
RETRY_SECONDS = 3 * DAY_SECONDS
CURRENCIES = ("eur", "usd")


def subscription_lines(world: WorldFiles) -> Iterator[Record]:
    """Every state of every subscription, without what has no id or a negative quantity."""
    for row in world.rows("billing/subscriptions.jsonl"):
        if row["id"] is not None and row["quantity"] >= 1:
            yield row


def invoice_lines(world: WorldFiles) -> Iterator[tuple[Record, int]]:
    """Every state of each invoice, and since when: issued, tried again, paid.

    What has no id, comes twice, has a currency that does not exist, or was due before it was issued
    is left out.
    """
    known = {None}
    for row in world.rows("billing/invoices.jsonl"):
        impossible = row["currency"] not in CURRENCIES or row["due_date"] < row["created"]
        if row["id"] in known or impossible:
            continue
        known.add(row["id"])
        paid_at = row["status_transitions"]["paid_at"]
        opened = row | {"status": "open", "amount_paid": 0, "status_transitions": {"paid_at": None}}
        yield opened | {"attempt_count": 1}, row["created"]
        if row["attempt_count"] > 1:
            tried = row["created"] + RETRY_SECONDS * (row["attempt_count"] - 1)
            yield opened, tried if paid_at is None else min(tried, paid_at)
        if paid_at is not None:
            yield row, paid_at


def months_of(plan: Record) -> int:
    """The length of a plan's term."""
    return int(plan["interval_count"]) * (12 if plan["interval"] == "year" else 1)


def term(start: int, months: int, at: float) -> tuple[int, int]:
    """The start and end of the term of so many months that holds `at`, for a contract's `start`.

    >>> [str(dt.datetime.fromtimestamp(bound, dt.UTC).date()) for bound in term(0, 12, 40_000_000)]
    ['1971-01-01', '1972-01-01']
    """
    first, moment = _utc(start), _utc(max(at, start))
    passed = (moment.year - first.year) * 12 + moment.month - first.month
    number = passed // months
    while _months_later(first, number * months) > moment:
        number -= 1
    bounds = (_months_later(first, n * months) for n in (number, number + 1))
    begin, end = (int(bound.timestamp()) for bound in bounds)
    return begin, end


def _utc(epoch: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(epoch, dt.UTC)


def _months_later(moment: dt.datetime, months: int) -> dt.datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def hashed(*parts: str) -> str:
    """Letters and digits that follow from the parts."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
