"""The synthetic company's billing as Chargebee keeps it: bodies, in a version for each change."""

from collections.abc import Iterator
from itertools import groupby

from connectors.sandbox.servers.box import WorldFiles
from connectors.sandbox.vendors.billing_terms import (
    DAY_SECONDS,
    RETRY_SECONDS,
    Record,
    hashed,
    invoice_lines,
    months_of,
    subscription_lines,
    term,
)

LAST_TERM = 1_830_297_600
"""Terms are known up to 2028; a sandbox's clock does not go further."""

Version = tuple[str, Record, float]
"""The id of an object, its state, and the epoch second from which on that was so."""


def customers(world: WorldFiles) -> Iterator[Version]:
    """Customers, from their creation on."""
    for row in world.rows("billing/customers.jsonl"):
        body = {
            "id": row["id"],
            "object": "customer",
            "email": row["email"],
            "allow_direct_debit": False,
            "auto_collection": "off",
            "card_status": "no_card",
            "created_at": row["created"],
            "excess_payments": 0,
            "meta_data": dict(row["metadata"]) or None,
            "net_term_days": 30,
            "pii_cleared": "active",
            "promotional_credits": 0,
            "refundable_credits": 0,
            "taxability": "taxable",
            "unbilled_charges": 0,
        }
        yield row["id"], body, row["created"]


def subscriptions(world: WorldFiles) -> Iterator[Version]:
    """Each state of the world's files, and between them the beginning of each next term."""
    states: dict[str, list[Record]] = {}
    for row in subscription_lines(world):
        states.setdefault(row["id"], []).append(row)
    for id, rows in states.items():
        starts = [rows[0]["start_date"], *(row["updated"] for row in rows[1:])]
        for row, since, until in zip(rows, starts, [*starts[1:], LAST_TERM], strict=True):
            yield id, _subscription(row, since), since
            months = months_of(row["plan"])
            at = term(row["start_date"], months, since)[1]
            while row["canceled_at"] is None and at < until:
                yield id, _subscription(row, at), at
                at = term(row["start_date"], months, at)[1]


def _subscription(row: Record, at: float) -> Record:
    """`cancelled_at` is the end, also while it lies ahead."""
    plan, quantity, started = row["plan"], row["quantity"], row["start_date"]
    ended = row["status"] == "canceled"
    leaving = row["canceled_at"] is not None
    # The world lets contracts end some hours into the day on which their last term ends.
    begin, end = term(started, months_of(plan), row["cancel_at"] - DAY_SECONDS if ended else at)
    amount = row["mrr_cents"] * months_of(plan)
    scheduled = row["canceled_at"] if leaving and row["canceled_at"] < row["cancel_at"] else None
    item = {
        "object": "subscription_item",
        "item_price_id": plan["nickname"],
        "item_type": "plan",
        "quantity": quantity,
        "unit_price": round(amount / quantity),
        "amount": amount,
        "free_quantity": 0,
        "billing_period": plan["interval_count"],
        "billing_period_unit": plan["interval"],
    }
    return {
        "id": row["id"],
        "object": "subscription",
        "activated_at": started,
        "auto_collection": "off",
        "billing_period": plan["interval_count"],
        "billing_period_unit": plan["interval"],
        "cancel_schedule_created_at": scheduled,
        "cancelled_at": row["cancel_at"],
        "created_at": started,
        "currency_code": row["currency"].upper(),
        "current_term_end": end,
        "current_term_start": begin,
        "customer_id": row["customer"],
        "due_invoices_count": 0,
        "has_scheduled_advance_invoices": False,
        "has_scheduled_changes": False,
        "mrr": row["mrr_cents"],
        "next_billing_at": None if leaving else end,
        "started_at": started,
        "status": "cancelled" if ended else "non_renewing" if leaving else "active",
        "subscription_items": [item],
    }


def invoices(world: WorldFiles) -> Iterator[Version]:
    """Invoices as issued, tried again, fallen due and paid."""
    for id, grouped in groupby(invoice_lines(world), key=lambda line: str(line[0]["id"])):
        lines = list(grouped)
        for row, at in lines:
            yield id, _invoice(row, at), at
        due = lines[0][0]["due_date"]
        row = [row for row, at in lines if at <= due][-1]
        if row["status"] == "open":
            yield id, _invoice(row, due), due


def _invoice(row: Record, at: float) -> Record:
    paid_at = row["status_transitions"]["paid_at"]
    attempts = [
        {
            "txn_id": f"txn_{hashed(row['id'], str(number))[:16]}",
            "applied_amount": row["amount_due"],
            "applied_at": row["created"] + RETRY_SECONDS * number,
            "txn_status": "failure",
            "txn_date": row["created"] + RETRY_SECONDS * number,
            "txn_amount": row["amount_due"],
        }
        for number in range(row["attempt_count"])
    ]
    if paid_at is not None:
        attempts[-1] |= {"txn_status": "success", "applied_at": paid_at, "txn_date": paid_at}
    unpaid = "payment_due" if at >= row["due_date"] else "posted"
    return {
        "id": row["id"],
        "object": "invoice",
        "adjustment_credit_notes": [],
        "amount_adjusted": 0,
        "amount_due": row["amount_due"] - row["amount_paid"],
        "amount_paid": row["amount_paid"],
        "amount_to_collect": row["amount_due"] - row["amount_paid"],
        "applied_credits": [],
        "credits_applied": 0,
        "currency_code": row["currency"].upper(),
        "customer_id": row["customer"],
        "date": row["created"],
        "due_date": row["due_date"],
        "dunning_attempts": [],
        "first_invoice": False,
        "has_advance_charges": False,
        "is_gifted": False,
        "issued_credit_notes": [],
        "linked_orders": [],
        "linked_payments": attempts,
        "net_term_days": (row["due_date"] - row["created"]) // DAY_SECONDS,
        "paid_at": paid_at,
        "price_type": "tax_exclusive",
        "recurring": True,
        "status": "paid" if paid_at is not None else unpaid,
        "sub_total": row["amount_due"],
        "subscription_id": "sub_" + row["customer"].removeprefix("cus_"),
        "tax": 0,
        "term_finalized": True,
        "total": row["amount_due"],
        "write_off_amount": 0,
    }
