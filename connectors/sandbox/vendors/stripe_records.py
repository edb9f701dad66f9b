"""The synthetic company's billing as Stripe keeps it, in today's shape and in the older one.

Bodies are kept in the shape since 2025-03-31 ("basil") and put into the older one on demand. A
subscription's billing period is computed for the moment of asking, because it goes on by itself.
"""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from connectors.sandbox.servers.box import WorldFiles
from connectors.sandbox.vendors.billing_terms import (
    DAY_SECONDS,
    hashed,
    invoice_lines,
    months_of,
    subscription_lines,
    term,
)

Body = dict[str, Any]
Version = tuple[str, Body, float]
"""The id of an object, its state, and the epoch second from which on that was so."""

BASIL = dt.date(2025, 3, 31)
EMBEDDED_ITEMS = 10


def is_basil(version: str) -> bool:
    """Whether a version has the shapes of 2025-03-31 and later."""
    return dt.date.fromisoformat(version[:10]) >= BASIL


def customers(world: WorldFiles) -> Iterator[Version]:
    """Customers, from their creation on."""
    currencies = {row["customer"]: row["currency"] for row in subscription_lines(world)}
    for row in world.rows("billing/customers.jsonl"):
        yield row["id"], _customer(row, currencies.get(row["id"])), row["created"]


def subscriptions(world: WorldFiles) -> Iterator[Version]:
    """Subscriptions after each change. The first state counts from the start of the contract."""
    known = set()
    for row in subscription_lines(world):
        at = row["updated"] if row["id"] in known else row["start_date"]
        known.add(row["id"])
        yield row["id"], _subscription(row), at


def invoices(world: WorldFiles) -> Iterator[Version]:
    """Invoices as issued, after the last attempt to collect, and as paid."""
    for row, at in invoice_lines(world):
        yield row["id"], _invoice(row), at


def _customer(row: Body, currency: str | None) -> Body:
    empty = (
        "address", "default_source", "description", "discount", "name", "phone", "shipping",
        "test_clock",
    )  # fmt: skip
    return {
        **dict.fromkeys(empty),
        "id": row["id"],
        "object": "customer",
        "balance": 0,
        "created": row["created"],
        "currency": currency,
        "delinquent": False,
        "email": row["email"],
        "invoice_prefix": hashed(row["id"])[:8].upper(),
        "invoice_settings": dict.fromkeys(
            ("custom_fields", "default_payment_method", "footer", "rendering_options")
        ),
        "livemode": True,
        "metadata": dict(row["metadata"]),
        "next_invoice_sequence": 2,
        "preferred_locales": [],
        "tax_exempt": "none",
    }


def _subscription(row: Body) -> Body:
    empty = (
        "application", "application_fee_percent", "billing_cycle_anchor_config",
        "billing_schedules", "billing_thresholds", "customer_account", "default_payment_method",
        "default_source", "description", "latest_invoice", "managed_payments",
        "next_pending_invoice_item_invoice", "on_behalf_of", "pause_collection",
        "pending_invoice_item_interval", "pending_setup_intent", "pending_update", "schedule",
        "test_clock", "transfer_data", "trial_end", "trial_start",
    )  # fmt: skip
    return {
        **dict.fromkeys(empty),
        "id": row["id"],
        "object": "subscription",
        "automatic_tax": {"enabled": False, "liability": None, "disabled_reason": None},
        "billing_cycle_anchor": row["start_date"],
        "billing_mode": {"type": "classic", "flexible": None},
        "cancel_at": row["cancel_at"],
        "cancel_at_period_end": False,
        "canceled_at": row["canceled_at"],
        "cancellation_details": dict.fromkeys(("comment", "feedback", "reason")),
        "collection_method": "send_invoice",
        "created": row["start_date"],
        "currency": row["currency"],
        "customer": row["customer"],
        "days_until_due": 30,
        "default_tax_rates": [],
        "discounts": [],
        "ended_at": row["cancel_at"] if row["status"] == "canceled" else None,
        "invoice_settings": {
            "account_tax_ids": None, "issuer": {"type": "self"}, "custom_fields": None,
            "description": None, "footer": None,
        },
        "items": items_of(row["id"], [_item(row)]),
        "livemode": True,
        "metadata": {},
        "payment_settings": dict.fromkeys(
            ("payment_method_options", "payment_method_types", "save_default_payment_method")
        ),
        "start_date": row["start_date"],
        "status": row["status"],
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }  # fmt: skip


def items_of(subscription: str, items: list[Body]) -> Body:
    """The list inside a subscription; it is cut to its first page only when it is shown."""
    url = f"/v1/subscription_items?subscription={subscription}"
    return {"object": "list", "data": items, "has_more": False, "url": url}


def _item(row: Body) -> Body:
    """The one item of a subscription of the world, at the price of its revenue."""
    plan, quantity = row["plan"], row["quantity"]
    return {
        "id": f"si_{hashed(row['id'])[:14]}",
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": row["start_date"],
        "discounts": [],
        "metadata": {},
        "quantity": quantity,
        "subscription": row["id"],
        "tax_rates": [],
        **priced(
            plan["nickname"], row["currency"], plan["interval"], plan["interval_count"],
            Decimal(row["mrr_cents"] * months_of(plan)) / quantity, created=row["start_date"],
        ),
    }  # fmt: skip


def priced(
    name: str, currency: str, interval: str, count: int, cents: Decimal | None, *, created: int
) -> Body:
    """An item's price, and the plan that Stripe still shows beside it; None makes it tiered."""
    amount = None if cents is None else format(cents.quantize(Decimal(10) ** -12).normalize(), "f")
    whole = int(cents) if cents is not None and cents == int(cents) else None
    common = {
        "id": f"price_{hashed(name, currency, interval, str(count), str(amount))[:24]}",
        "active": True,
        "billing_scheme": "tiered" if cents is None else "per_unit",
        "created": created,
        "currency": currency,
        "livemode": True,
        "metadata": {},
        "nickname": name,
        "product": f"prod_{hashed(name)[:14]}",
        "tiers_mode": "graduated" if cents is None else None,
    }
    rhythm = {"interval": interval, "interval_count": count, "meter": None,
              "usage_type": "licensed", "trial_period_days": None}  # fmt: skip
    price = {
        **common, "object": "price", "custom_unit_amount": None, "lookup_key": None,
        "recurring": rhythm, "tax_behavior": "unspecified", "transform_quantity": None,
        "type": "recurring", "unit_amount": whole, "unit_amount_decimal": amount,
    }  # fmt: skip
    plan = {
        **common, **rhythm, "object": "plan", "amount": whole, "amount_decimal": amount,
        "transform_usage": None,
    }  # fmt: skip
    return {"price": price, "plan": plan}


def _invoice(row: Body) -> Body:
    empty = (
        "account_name", "account_tax_ids", "amount_overpaid", "application",
        "automatically_finalizes_at", "custom_fields", "customer_account", "customer_address",
        "customer_email", "customer_name", "customer_phone", "customer_shipping",
        "default_payment_method", "default_source", "description", "ending_balance", "footer",
        "from_invoice", "hosted_invoice_url", "invoice_pdf", "last_finalization_error",
        "latest_revision", "next_payment_attempt", "on_behalf_of", "receipt_number", "rendering",
        "shipping_cost", "shipping_details", "statement_descriptor",
        "subtotal_excluding_tax", "test_clock", "total_excluding_tax",
        "total_pretax_credit_amounts", "webhooks_delivered_at",
    )  # fmt: skip
    subscription = "sub_" + row["customer"].removeprefix("cus_")
    return {
        **dict.fromkeys(empty),
        "id": row["id"],
        "object": "invoice",
        "account_country": "DE",
        "amount_due": row["amount_due"],
        "amount_overpaid": 0,
        "amount_paid": row["amount_paid"],
        "amount_remaining": row["amount_due"] - row["amount_paid"],
        "amount_shipping": 0,
        "attempt_count": row["attempt_count"],
        "attempted": row["attempt_count"] > 0,
        "auto_advance": row["status"] == "open",
        "automatic_tax": {"enabled": False, "liability": None, "status": None,
                          "disabled_reason": None, "provider": None},
        "billing_reason": "subscription_cycle",
        "collection_method": "send_invoice",
        "created": row["created"],
        "currency": row["currency"],
        "customer": row["customer"],
        "customer_tax_exempt": "none",
        "customer_tax_ids": [],
        "default_tax_rates": [],
        "discounts": [],
        "due_date": row["due_date"],
        "effective_at": row["created"],
        "issuer": {"type": "self"},
        "lines": {"object": "list", "data": [_line(row, subscription)], "has_more": False,
                  "url": f"/v1/invoices/{row['id']}/lines"},
        "livemode": True,
        "metadata": {},
        "number": f"HL-{row['id'].removeprefix('in_')}",
        "parent": {
            "type": "subscription_details", "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": subscription},
        },
        "payment_settings": dict.fromkeys(
            ("default_mandate", "payment_method_options", "payment_method_types")
        ),
        "period_end": row["created"],
        "period_start": row["created"],
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "starting_balance": 0,
        "status": row["status"],
        "status_transitions": {
            "finalized_at": row["created"], "marked_uncollectible_at": None,
            "paid_at": row["status_transitions"]["paid_at"], "voided_at": None,
        },
        "subtotal": row["amount_due"],
        "total": row["amount_due"],
        "total_discount_amounts": [],
        "total_taxes": [],
    }  # fmt: skip


def _line(row: Body, subscription: str) -> Body:
    return {
        "id": f"il_{hashed(row['id'])[:24]}",
        "object": "line_item",
        "amount": row["amount_due"],
        "currency": row["currency"],
        "description": "Subscription",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": row["id"],
        "livemode": True,
        "metadata": {},
        "parent": {
            "type": "subscription_item_details", "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None, "proration": False, "proration_details": None,
                "subscription": subscription,
                "subscription_item": f"si_{hashed(subscription)[:14]}",
            },
        },
        "period": {"start": row["created"], "end": row["due_date"]},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 1,
        "quantity_decimal": "1",
        "subscription": subscription,
        "subtotal": row["amount_due"],
        "taxes": [],
    }  # fmt: skip


# -- how a record is shown -------------------------------------------------------------------------


def shown(body: Body, version: str, at: float) -> Body:
    """An object as a request of that version sees it at a moment."""
    if body["object"] == "subscription":
        body = in_period(body, at)
        data = body["items"]["data"]
        more = len(data) > EMBEDDED_ITEMS
        body = body | {"items": body["items"] | {"data": data[:EMBEDDED_ITEMS], "has_more": more}}
        return body if is_basil(version) else _old_subscription(body)
    return _old_invoice(body) if body["object"] == "invoice" and not is_basil(version) else body


def in_period(body: Body, at: float) -> Body:
    """The items with the billing period that holds the moment, or in which all ended."""
    # The world lets contracts end some hours into the day on which their last period ends.
    until = min(at, body["ended_at"] - DAY_SECONDS if body["ended_at"] else at)
    items = []
    for item in body["items"]["data"]:
        rhythm = item["price"]["recurring"]
        start, end = term(body["billing_cycle_anchor"], months_of(rhythm), until)
        items.append(item | {"current_period_start": start, "current_period_end": end})
    return body | {"items": body["items"] | {"data": items}}


def _old_subscription(body: Body) -> Body:
    moved = ("current_period_start", "current_period_end")
    items = body["items"]["data"]
    first = items[0]
    newer = ("billing_mode", "billing_schedules", "customer_account", "managed_payments")
    return {
        **{name: value for name, value in body.items() if name not in newer},
        **{name: first[name] for name in moved},
        "discount": None,
        "plan": first["plan"] if len(items) == 1 else None,
        "quantity": first["quantity"] if len(items) == 1 else None,
        "items": body["items"]
        | {"data": [{k: v for k, v in item.items() if k not in moved} for item in items]},
    }


def _old_invoice(body: Body) -> Body:
    newer = (
        "parent", "total_taxes", "amount_overpaid", "customer_account",
        "automatically_finalizes_at", "total_pretax_credit_amounts",
    )  # fmt: skip
    lines = [_old_line(line) for line in body["lines"]["data"]]
    absent = ("charge", "discount", "payment_intent", "quote", "tax", "application_fee_amount",
              "transfer_data", "rendering_options")  # fmt: skip
    return {
        **{name: value for name, value in body.items() if name not in newer},
        **dict.fromkeys(absent),
        "lines": body["lines"] | {"data": lines},
        "paid": body["status"] == "paid",
        "paid_out_of_band": False,
        "subscription": body["parent"]["subscription_details"]["subscription"],
        "subscription_details": {"metadata": {}},
        "total_tax_amounts": [],
    }


def _old_line(line: Body) -> Body:
    details = line["parent"]["subscription_item_details"]
    newer = ("parent", "pricing", "taxes", "pretax_credit_amounts", "quantity_decimal", "subtotal")
    return {
        **{name: value for name, value in line.items() if name not in newer},
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription_item": details["subscription_item"],
        "tax_amounts": [],
        "tax_rates": [],
        "type": "subscription",
    }
