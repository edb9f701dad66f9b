"""Chargebee (API v2): customers, subscriptions and invoices, in the order of their changes.

What is particular to Chargebee:

* Each row of a list is wrapped, `{"subscription": {...}, "customer": {...}}`; at most 100 a page.
* `next_offset` is opaque, goes back as it came, and fits only the same filters and order. The last
  page has none.
* `updated_at[after]` with `sort_by[asc]=updated_at` follows changes. It excludes its own second, so
  some minutes are read again. Deleted objects come only if asked for, marked as `deleted`.
* `updated_at` can be missing in imported objects: `created_at`, or an invoice's `date`, stands in.
* Sites of today have `subscription_items`, older ones a plan and addons.
* `cancelled_at` may lie ahead: it is when a subscription ends. The notice came at
  `cancel_schedule_created_at`.
* An invoice's `amount_due` is what is left of its `total`.
* The smallest plan allows 150 requests a minute; then 429 with Retry-After.

Three fields are added to each row: `changed_at`, the epoch second of its last change; `is_first`,
true in a first reading, where only the dates inside tell since when it was so; and `crm_id`.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from pydantic import Field
from requests.auth import HTTPBasicAuth

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from contracts.errors import SourceCorrupt

PAGE_SIZE = 100
OVERLAP = dt.timedelta(minutes=10)
_REPORT = "try again later; if it stays so, report it"

Record = dict[str, Any]


class ChargebeeConfig(ApiConfig):
    """Settings of a Chargebee site.

    `site` is the part before ``.chargebee.com``; test sites end in ``-test``. `crm_id_field` holds
    the CRM's account id: a key of a customer's `meta_data`, or a custom field (``cf_...``).
    `requests_per_minute` is what the site's plan allows.
    """

    type: Literal["chargebee"]
    site: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    key: FromEnvironment
    crm_id_field: str = Field(default="crm_account_no", min_length=1)
    requests_per_minute: int = Field(default=150, ge=1, le=3500)


def connect(config: ChargebeeConfig, secrets: Secrets) -> Http:
    """A client for one site; nothing is sent yet. The key is the user, the password is empty."""
    address = config.address or f"https://{config.site}.chargebee.com"
    return Http(
        f"{address}/api/v2",
        Manners("chargebee", limits=(Limit(config.requests_per_minute, 60.0),)),
        auth=HTTPBasicAuth(secrets.of(config.key), ""),
    )


def account(client: Http, config: ChargebeeConfig) -> str:
    """The site's name, as `acme`, or `acme-test (test site)`."""
    found = client.get("/configurations").get("configurations")
    if not found or not isinstance(found[0], dict) or not found[0].get("domain"):
        raise SourceCorrupt("did not say which site it is", _REPORT, vendor="chargebee")
    domain = str(found[0]["domain"])
    return f"{domain} (test site)" if domain.endswith("-test") else domain


def customers(reading: Reading[ChargebeeConfig]) -> Iterator[Rows]:
    """Customers, with the CRM's id from where the settings say it is."""
    field = reading.config.crm_id_field
    for page in _changed(reading, "customer"):
        yield [
            row
            | {
                "crm_id": (row if field.startswith("cf_") else row.get("meta_data") or {}).get(
                    field
                )
            }
            for row in page
        ]


def subscriptions(reading: Reading[ChargebeeConfig]) -> Iterator[Rows]:
    """Subscriptions in every state."""
    yield from _changed(reading, "subscription")


def invoices(reading: Reading[ChargebeeConfig]) -> Iterator[Rows]:
    """Invoices: at first those since the history's start, then all that change."""
    start = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    yield from _changed(reading, "invoice", {"date[after]": int(start.timestamp()) - 1})


def _changed(
    reading: Reading[ChargebeeConfig], kind: str, at_first: Mapping[str, Any] | None = None
) -> Iterator[list[Record]]:
    """What changed, the oldest change first; everything (that fits `at_first`) at first."""
    params = {"limit": PAGE_SIZE, "include_deleted": "true", "sort_by[asc]": "updated_at"}
    if reading.since is None:
        params |= at_first or {}
    else:
        params |= {"updated_at[after]": int(reading.since.timestamp()) - 1}
    pages = reading.client.pages(
        f"/{kind}s",
        records="list",
        paginator=JSONResponseCursorPaginator(cursor_path="next_offset", cursor_param="offset"),
        params=params,
    )
    for page in pages:
        yield [_unwrapped(wrapped, kind, reading.since is None) for wrapped in page]


def _unwrapped(wrapped: Record, kind: str, is_first: bool) -> Record:
    row = wrapped.get(kind)
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise SourceCorrupt(f"sent a row without its {kind}", _REPORT)
    changed = row.get("updated_at") or row.get("created_at") or row.get("date")
    return {
        "deleted": False,
        **row,
        "changed_at": changed,
        "is_first": is_first,
    }


_PERSONAL = (
    "first_name", "last_name", "phone", "company", "vat_number", "billing_address",
    "shipping_address", "contacts", "created_from_ip", "invoice_notes", "notes", "payment_method",
    "payment_source_id", "primary_payment_source_id", "backup_payment_source_id",
    "referral_urls", "referral_info", "entity_identifiers", "exemption_details", "exempt_number",
    "parent_account_access", "child_account_access", "po_number", "affiliate_token",
)  # fmt: skip


def _stream(
    read: Callable[[Reading[ChargebeeConfig]], Iterator[Rows]],
    *columns: str,
    drop: tuple[str, ...] = (),
) -> ApiStream:
    return ApiStream(
        read,
        primary_key=("id",),
        columns=(*columns, "deleted", "changed_at", "is_first"),
        cursor="changed_at",
        cursor_kind="epoch",
        overlap=OVERLAP,
        leave_out=frozenset((*_PERSONAL, *drop)),
    )


STREAMS = {
    "customers": _stream(customers, "email", "crm_id"),
    "subscriptions": _stream(
        subscriptions,
        "customer_id", "status", "currency_code", "created_at", "started_at", "start_date",
        "trial_end", "current_term_start", "current_term_end", "billing_period",
        "billing_period_unit", "cancelled_at", "cancel_schedule_created_at", "mrr",
        "subscription_items", "plan_id", "plan_quantity", "contract_term",
    ),
    "invoices": _stream(
        invoices,
        "customer_id", "status", "currency_code", "date", "due_date", "paid_at", "voided_at",
        "total", "amount_paid", "linked_payments",
        drop=("line_items", "line_item_tiers", "line_item_discounts", "line_item_taxes",
              "line_item_addresses", "statement_descriptor", "site_details_at_creation"),
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="chargebee",
    config=ChargebeeConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="a read-only API key for all data",
)
