"""Stripe: customers, subscriptions and invoices, by lists at first and by events afterwards.

What is particular to Stripe:

* Lists come newest first, at most 100 objects a page; the next page follows the last id.
* There is no filter for changes. A first reading lists everything; later ones ask `/v1/events` for
  what changed, an hour further back than the last reading, and skip the events they know. Events
  are kept for 30 days and may be missed, so after 29 days of silence, and once a week anyway,
  everything is listed again.
* Subscriptions hide the cancelled ones unless all are asked for.
* `customer.subscription.deleted` means cancelled; only customers and draft invoices vanish.
* With 2025-03-31 ("basil") the billing period moved from the subscription to its items. The version
  is pinned, but an event keeps the version of the day on which it was made: so rows have the
  period in the old place in any case.
* More than ten items of a subscription stand on pages of their own.
* 25 requests a second for an endpoint (for everything in a sandbox). A 409 says in a header
  whether to try again.
* A restricted key may not ask which account it belongs to, but the refusal names the account.

Four fields are added to each row: `as_of`, the epoch second for which Stripe told this state;
`is_first`, true in a first list, where only the dates inside tell since when it was so;
`previously`, the former values as an event tells them; and `deleted`.
"""

import datetime as dt
import re
from collections.abc import Generator, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import requests
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from pydantic import Field

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners, Wait
from contracts.errors import SourceCorrupt, SourceError, SourceRefused

ADDRESS = "https://api.stripe.com"
VERSION = "2025-03-31.basil"
PAGE_SIZE = 100
HOUR, DAY = 3600, 86_400
EVENTS_KEPT_SECONDS = 29 * DAY
LIST_AGAIN_SECONDS = 7 * DAY
WINDOW_SECONDS = DAY + HOUR
MARGIN_SECONDS = HOUR
"""Read again each time: clocks differ, and an event may become visible late."""

_REPORT = "try again later; if it stays so, report it"

Record = dict[str, Any]


class StripeConfig(ApiConfig):
    """Settings of a Stripe account.

    `key` is a secret or restricted key. `api_version` replaces the pinned one, for accounts that
    must stay on an older version. `crm_id_field` names the metadata key of a customer that holds
    the CRM's account id.
    """

    type: Literal["stripe"]
    key: FromEnvironment
    api_version: str = Field(default=VERSION, pattern=r"^\d{4}-\d{2}-\d{2}(\.[a-z]+)?$")
    crm_id_field: str = Field(default="crm_account_no", pattern=r"^[\w -]+$")

    def parameters(self) -> dict[str, str]:
        """The metadata key for `account_keys.sql`."""
        return {"crm_id_field": self.crm_id_field}


class Client(Http):
    """Stripe's API, opened by a live key or by one that only sees test data."""

    test_mode = False


class _NamedInRefusal(SourceRefused):
    """A restricted key may not read its account; the refusal said which one it is."""

    account = ""


class _AfterLastId(BasePaginator):
    """Asks for the page after the last id, while the answer says that there is more."""

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        has_more = response.json().get("has_more")
        if not isinstance(has_more, bool) or (has_more and not data):
            raise SourceCorrupt("sent a page that does not tell whether it is the last", _REPORT)
        self._has_next_page, self._last_id = has_more, data[-1]["id"] if data else None

    def update_request(self, request: requests.Request) -> None:
        request.params = {**(request.params or {}), "starting_after": self._last_id}


def connect(config: StripeConfig, secrets: Secrets) -> Client:
    """A client for one account; nothing is sent yet."""
    key = secrets.of(config.key)
    client = Client(
        config.address or ADDRESS,
        Manners("stripe", limits=(Limit(25, 1.0),), judge=_judge),
        auth=BearerTokenAuth(key),
        headers={"Stripe-Version": config.api_version},
    )
    client.test_mode = key.startswith(("sk_test_", "rk_test_"))
    return client


def account(client: Client, config: StripeConfig) -> str:
    """The account's id, as `acct_1A2b`, or `acct_1A2b (test mode)` for a test key."""
    try:
        found = client.get("/v1/account").get("id")
    except _NamedInRefusal as refusal:
        found = refusal.account
    if not isinstance(found, str):
        raise SourceCorrupt("did not say which account it is", _REPORT, vendor="stripe")
    return f"{found} (test mode)" if client.test_mode else found


def _judge(response: requests.Response) -> SourceError | Wait | None:
    if response.status_code == 409 and response.headers.get("Stripe-Should-Retry") == "true":
        return Wait("is busy with the same object")
    if response.status_code == 403 and urlsplit(response.url).path.endswith("/v1/account"):
        named = re.search(r"\bacct_\w+", response.json()["error"]["message"])
        if named:
            refusal = _NamedInRefusal("a restricted key may not read the account", "use another")
            refusal.account = named.group()
            return refusal
    return None


def customers(reading: Reading[StripeConfig]) -> Iterator[Rows]:
    """Customers. One that was deleted comes once more, with `deleted` set."""
    yield from _read(
        reading, "/v1/customers",
        ("customer.created", "customer.updated", "customer.deleted"),
    )  # fmt: skip


def subscriptions(reading: Reading[StripeConfig]) -> Iterator[Rows]:
    """Subscriptions in every state, with all their items."""
    pages = _read(
        reading, "/v1/subscriptions",
        tuple(f"customer.subscription.{change}" for change in (
            "created", "updated", "deleted", "paused", "resumed",
            "pending_update_applied", "pending_update_expired",
        )),
        {"status": "all"},
    )  # fmt: skip
    for page in pages:
        yield [_with_period(_with_all_items(reading.client, row)) for row in page]


def invoices(reading: Reading[StripeConfig]) -> Iterator[Rows]:
    """Invoices that were made since the history's start; drafts too."""
    start = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    yield from _read(
        reading, "/v1/invoices",
        tuple(f"invoice.{change}" for change in (
            "created", "updated", "finalized", "paid", "payment_failed", "overdue", "voided",
            "marked_uncollectible", "deleted",
        )),
        {"created[gte]": int(start.timestamp())},
    )  # fmt: skip


def _read(
    reading: Reading[StripeConfig],
    path: str,
    event_types: tuple[str, ...],
    params: Mapping[str, Any] | None = None,
) -> Iterator[list[Record]]:
    """What changed since the last reading, and everything where that is not enough."""
    now, position = int(reading.now.timestamp()), reading.position
    read_at, listed_at = position.get("read_at"), position.get("listed_at", 0)
    follows = read_at is not None and now - read_at < EVENTS_KEPT_SECONDS
    recent: list[str] = []
    if follows:
        recent = yield from _changes(reading, event_types, now)
    if not follows or now - listed_at >= LIST_AGAIN_SECONDS:
        for page in _list(reading.client, path, params or {}):
            yield [_row(record, now, is_first=read_at is None) for record in page]
        position["listed_at"] = now
    position["read_at"], position["seen"] = now, recent


def _changes(
    reading: Reading[StripeConfig], event_types: tuple[str, ...], now: int
) -> Generator[list[Record], None, list[str]]:
    """The states that events tell, oldest first; returns the ids of the latest events.

    Events come newest first, so they are asked for in windows that fit into memory.
    """
    seen, recent = set(reading.position["seen"]), []
    start = reading.position["read_at"] - MARGIN_SECONDS
    for begin in range(start, max(now, start + 1), WINDOW_SECONDS):
        params: Record = {"types[]": list(event_types), "created[gte]": begin}
        if begin + WINDOW_SECONDS < now:
            params["created[lt]"] = begin + WINDOW_SECONDS
        events = [event for page in _list(reading.client, "/v1/events", params) for event in page]
        recent += [event["id"] for event in events if event["created"] >= now - MARGIN_SECONDS]
        yield [
            _told(event)
            for event in reversed(events)
            if event["id"] not in seen and event["type"] in event_types
        ]
    return recent


def _list(client: Http, path: str, params: Mapping[str, Any]) -> Iterator[list[Record]]:
    """The pages of a list, newest objects first."""
    for page in client.pages(
        path, records="data", paginator=_AfterLastId(), params={"limit": PAGE_SIZE, **params}
    ):
        if not all(isinstance(record.get("id"), str) for record in page):
            raise SourceCorrupt("sent an object without an id", _REPORT)
        yield page


def _told(event: Record) -> Record:
    """The state of an object as an event tells it."""
    kind, data = str(event.get("type")), event.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("object"), dict):
        raise SourceCorrupt(f"sent an event '{kind}' without its object", _REPORT)
    vanished = kind in ("customer.deleted", "invoice.deleted")
    return _row(
        data["object"] | {"deleted": vanished},
        event["created"],
        previously=data.get("previous_attributes"),
    )


def _row(
    record: Record, as_of: int, *, is_first: bool = False, previously: Record | None = None
) -> Record:
    added = {"as_of": as_of, "is_first": is_first, "previously": previously or {}}
    return {"deleted": False, **record, **added}


def _with_all_items(client: Http, subscription: Record) -> Record:
    """A subscription shows its first ten items; the others are fetched."""
    items = subscription.get("items") or {}
    if not items.get("has_more"):
        return subscription
    pages = _list(client, "/v1/subscription_items", {"subscription": subscription["id"]})
    every = [item for page in pages for item in page]
    return subscription | {"items": items | {"data": every, "has_more": False}}


def _with_period(subscription: Record) -> Record:
    """Since basil each item has its own period; the one that ends last stands for all."""
    if "current_period_end" in subscription:
        return subscription
    items = (subscription.get("items") or {}).get("data") or []
    last: Record = max(items, key=lambda item: item.get("current_period_end") or 0, default={})
    return subscription | {
        name: last.get(name) for name in ("current_period_start", "current_period_end")
    }


_ADDED = ("as_of", "is_first", "previously", "deleted")

STREAMS = {
    "customers": ApiStream(
        customers,
        primary_key=("id",),
        columns=("email", "metadata", "created", *_ADDED),
        leave_out=frozenset({
            "name", "phone", "description", "address", "shipping", "sources", "tax_ids",
            "individual_name", "business_name", "invoice_settings", "default_source",
        }),
    ),
    "subscriptions": ApiStream(
        subscriptions,
        primary_key=("id",),
        columns=(
            "customer", "status", "currency", "items", "created", "start_date", "trial_end",
            "current_period_start", "current_period_end", "canceled_at", "cancel_at",
            "cancel_at_period_end", "ended_at", *_ADDED,
        ),
        leave_out=frozenset({
            "description", "cancellation_details", "default_payment_method", "default_source",
            "invoice_settings", "payment_settings",
        }),
    ),
    "invoices": ApiStream(
        invoices,
        primary_key=("id",),
        columns=(
            "customer", "status", "currency", "created", "due_date", "amount_due", "amount_paid",
            "attempt_count", "status_transitions", *_ADDED,
        ),
        leave_out=frozenset({
            "customer_name", "customer_email", "customer_phone", "customer_address",
            "customer_shipping", "customer_tax_ids", "shipping_details", "account_name",
            "description", "footer", "custom_fields", "statement_descriptor", "lines",
            "hosted_invoice_url", "invoice_pdf", "payment_settings", "last_finalization_error",
            "default_payment_method", "default_source",
        }),
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="stripe",
    config=StripeConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="a restricted key with read access to Customers, Subscriptions, Invoices and Events",
)
