"""Freshdesk. What its API demands, and what is done about it here:

- A list of tickets shows 30 days unless `updated_since` is given, so it always is.
- A list ends at page 300, and a ticket that changes during a reading moves to the end and lets
  another one slip through between two pages. So tickets are not paged: each request asks for the
  first page since the last ticket of the one before, ordered by `updated_at`. A second page is only
  asked for where more than a page of tickets changed within one second.
- Deleted tickets and spam are in no other list than their own, so they are streams of their own.
- There is no list of changed companies. They are listed once; afterwards the search by day of
  change finds what is new, and everything is listed again when it finds more than it can show.
- `include=stats` brings first reply and solution along, for two more credits a request: three in
  all, instead of two for every single ticket.
- Basic authentication with the API key as user name. How many requests a minute are allowed
  depends on the plan; `requests_per_minute` is what the smallest plan allows for lists.
- A last page has no `Link` header. A full page without one is not trusted to be the last.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Literal

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from pydantic import Field
from requests import Request, Response
from requests.auth import HTTPBasicAuth

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from contracts.errors import SourceCorrupt, SourceRefused

PAGE = 100
SEARCH_PAGE = 30
LAST_PAGE = 300
LAST_SEARCH_PAGE = 10


class FreshdeskConfig(ApiConfig):
    """Settings: ``https://<domain>.freshdesk.com``, a key, and how the company uses the desk.

    `crm_id_field` names the custom field of companies that holds the CRM's account id,
    `escalated_tag` the tag of an escalated ticket.
    """

    type: Literal["freshdesk"]
    domain: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    api_key: FromEnvironment
    crm_id_field: str = Field(default="crm_account_no", pattern=r"^\w+$")
    escalated_tag: str = Field(default="escalated", min_length=1)
    requests_per_minute: int = Field(default=20, ge=1)

    def parameters(self) -> dict[str, str]:
        """What the packaged mappings need to know."""
        return {"crm_id_field": self.crm_id_field, "escalated_tag": self.escalated_tag}


def connect(config: FreshdeskConfig, secrets: Secrets) -> Http:
    """The client; sends nothing."""
    return Http(
        f"{config.address or f'https://{config.domain}.freshdesk.com'}/api/v2",
        Manners("freshdesk", (Limit(config.requests_per_minute, 60),)),
        auth=HTTPBasicAuth(secrets.of(config.api_key), "X"),
    )


def account(client: Http, config: FreshdeskConfig) -> str:
    """The number of the account that the key opens; one on trial is called so."""
    answer = client.get("account")
    if not isinstance(answer, dict) or not answer.get("account_id"):
        raise SourceRefused(
            "Freshdesk does not tell the account", "use the API key of an administrator"
        )
    on_trial = str(answer.get("tier_type", "")).lower() == "trial"
    return f"{answer['account_id']}{' (trial)' if on_trial else ''}"


class _Pages(BasePaginator):
    """Page after page, as long as there is a link to the next one or the page is full."""

    def __init__(self, last: int | None = None) -> None:
        super().__init__()
        self._last, self._page = last, 1

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Go to the next page, if there may be one."""
        rows = data or []
        self._has_next_page = "next" in response.links or len(rows) >= PAGE
        if self._has_next_page:
            self._advance(rows)

    def _advance(self, rows: list[Any]) -> None:
        self._page += 1
        if self._last and self._page > self._last:
            raise SourceCorrupt(
                f"Freshdesk shows no more than {self._last} pages, and there are more",
                "ask Freshdesk for an export of the rest",
            )

    def update_request(self, request: Request) -> None:
        """Ask for that page."""
        request.params["page"] = self._page


class _Search(_Pages):
    """Page after page of a search, up to its `total`, unless there are `too_many` to be shown."""

    too_many = False

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Go to the next page, if there is one."""
        total = response.json()["total"]
        self.too_many = total > SEARCH_PAGE * LAST_SEARCH_PAGE
        self._has_next_page = not self.too_many and total > SEARCH_PAGE * self._page
        self._page += 1


class _UpdatedSince(_Pages):
    """The first page again, since the last row of the page before."""

    def __init__(self, since: str) -> None:
        super().__init__(last=LAST_PAGE)
        self.since = since

    def _advance(self, rows: list[Any]) -> None:
        # A second earlier, because it is not said whether `updated_since` includes its own second.
        since = _text(_moment(rows[-1]) - dt.timedelta(seconds=1)) if rows else self.since
        if rows and _text(_moment(rows[0])) < since:
            self.since, self._page = since, 1
        else:
            super()._advance(rows)

    def update_request(self, request: Request) -> None:
        """Ask for that page since then."""
        request.params["updated_since"] = self.since
        super().update_request(request)


def _moment(ticket: dict[str, Any]) -> dt.datetime:
    return dt.datetime.fromisoformat(ticket["updated_at"])


def read_tickets(reading: Reading[FreshdeskConfig]) -> Iterator[Rows]:
    """The tickets that changed, with their statistics."""
    yield from _changed_tickets(reading, include="stats")


def read_deleted_tickets(reading: Reading[FreshdeskConfig]) -> Iterator[Rows]:
    """The tickets in the trash, where they stay for 30 days."""
    yield from _changed_tickets(reading, filter="deleted")


def read_spam_tickets(reading: Reading[FreshdeskConfig]) -> Iterator[Rows]:
    """The tickets that were marked as spam."""
    yield from _changed_tickets(reading, filter="spam")


def _changed_tickets(reading: Reading[FreshdeskConfig], **particular: str) -> Iterator[Rows]:
    pages = _UpdatedSince(_since(reading))
    params = {
        **particular,
        "updated_since": pages.since,
        "order_by": "updated_at",
        "order_type": "asc",
        "per_page": PAGE,
        "page": 1,
    }
    yield from reading.client.pages("tickets", records="$", paginator=pages, params=params)


def read_companies(reading: Reading[FreshdeskConfig]) -> Iterator[Rows]:
    """All companies at first; then those that changed since the day before the newest change.

    The overlap is two days and the search begins on the day after, so that it finds no row that
    is not remembered.
    """
    if reading.since is not None:
        day = (reading.since + dt.timedelta(days=1)).date()
        found = _Search()
        yield from reading.client.pages(
            "search/companies",
            records="results",
            paginator=found,
            params={"query": f"\"updated_at:>'{day.isoformat()}'\"", "page": 1},
        )
        if not found.too_many:
            return
    yield from reading.client.pages(
        "companies", records="$", paginator=_Pages(), params={"per_page": PAGE, "page": 1}
    )


def read_satisfaction_ratings(reading: Reading[FreshdeskConfig]) -> Iterator[Rows]:
    """The answers to satisfaction surveys."""
    yield from reading.client.pages(
        "surveys/satisfaction_ratings",
        records="$",
        paginator=_Pages(),
        params={"created_since": _since(reading), "per_page": PAGE, "page": 1},
    )


def _since(reading: Reading[FreshdeskConfig]) -> str:
    day = reading.history_start
    return _text(reading.since or dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC))


def _text(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


_LEFT_OUT = frozenset(
    {"subject", "description", "description_text", "structured_description", "cc_emails",
     "fwd_emails", "reply_cc_emails", "ticket_cc_emails", "ticket_bcc_emails", "to_emails",
     "support_email", "custom_fields", "requester"}
)  # fmt: skip


def _aside(read: Any) -> ApiStream:
    """A list of tickets that the usual one leaves out: only which, and since when."""
    return ApiStream(
        read,
        primary_key=("id",),
        columns=("id", "company_id", "created_at", "updated_at"),
        cursor="updated_at",
        overlap=dt.timedelta(hours=1),
        leave_out=_LEFT_OUT,
    )


STREAMS = {
    "tickets": ApiStream(
        read_tickets,
        primary_key=("id",),
        columns=("id", "company_id", "created_at", "updated_at", "status", "priority", "tags",
                 "stats"),
        cursor="updated_at",
        overlap=dt.timedelta(minutes=10),
        leave_out=_LEFT_OUT,
    ),
    "deleted_tickets": _aside(read_deleted_tickets),
    "spam_tickets": _aside(read_spam_tickets),
    "companies": ApiStream(
        read_companies,
        primary_key=("id",),
        columns=("id", "domains", "custom_fields", "updated_at"),
        cursor="updated_at",
        overlap=dt.timedelta(days=2),
        leave_out=frozenset({"description", "note"}),
    ),
    "satisfaction_ratings": ApiStream(
        read_satisfaction_ratings,
        primary_key=("id",),
        columns=("id", "ticket_id", "ratings", "created_at", "updated_at"),
        cursor="created_at",
        overlap=dt.timedelta(hours=1),
        leave_out=frozenset({"feedback"}),
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="freshdesk",
    config=FreshdeskConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="the API key of an agent who may see all tickets; for `account` an administrator's",
)
