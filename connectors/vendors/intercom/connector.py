"""Intercom's API: conversations as support tickets, companies to know whose they are.

- The version is named in every request; without it, the workspace's own default would apply.
- Conversations are searched by `updated_at` (epoch seconds), 150 a page. A search ends where
  `pages.next` is null. The index may lag, hence the overlap.
- Companies have no such filter. Once a day all of them are listed, 60 a page; in the hours between
  only the page of those that were seen last.
- A list ends at 10,000 companies: then they are scrolled. There is one scroll per workspace, it
  expires after a minute, and it cannot be resumed: a request that is sent again may have skipped a
  page, so then the scroll begins anew.
- Limits of a minute are metered in windows of ten seconds; a 429 says in `X-RateLimit-Reset` (an
  epoch) when to go on.
- Deleted conversations and merged contacts vanish without a trace.
- Nothing that people wrote is kept, nor who they are: of an address only its domain.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from dlt.sources.helpers.rest_client.paginators import (
    JSONResponseCursorPaginator,
    PageNumberPaginator,
)
from requests import Response

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners, Wait, reset_epoch_seconds
from contracts.errors import SourceError, SourceUnavailable

VERSION = "2.15"
ADDRESSES = {
    "us": "https://api.intercom.io",
    "eu": "https://api.eu.intercom.io",
    "au": "https://api.au.intercom.io",
}
CONVERSATIONS_PER_PAGE = 150
COMPANIES_PER_PAGE = 60
MOST_LISTED = 10_000
READINGS = 3
"""How often all companies are read when some get lost on the way."""

COMPLETE_EVERY = dt.timedelta(hours=23, minutes=30)
COMPANY_OVERLAP = dt.timedelta(days=2)
"""A company that changed is only seen by the next complete reading, unless it is active."""

CONVERSATION_OVERLAP = dt.timedelta(hours=1)


class Config(ApiConfig):
    """Settings in ``sources/<name>.yaml``. `crm_id_field` is the companies' custom attribute with
    the CRM's number, or `company_id`. Conversations with the tag `escalated_tag` are escalated.
    """

    type: Literal["intercom"]
    token: FromEnvironment
    region: Literal["us", "eu", "au"] = "us"
    crm_id_field: str = "crm_account_no"
    escalated_tag: str = "escalated"

    def parameters(self) -> dict[str, str]:
        """For the packaged mappings."""
        return {"crm_id_field": self.crm_id_field, "escalated_tag": self.escalated_tag}


def judge(response: Response) -> SourceError | Wait | None:
    """Intercom's own ways to say when to go on, and that a scroll is over."""
    if response.status_code == 429:
        return Wait("answered 429", reset_epoch_seconds(response, "X-RateLimit-Reset"))
    if response.ok or not response.url.partition("?")[0].endswith("/companies/scroll"):
        return None
    if response.status_code == 400 and response.json()["errors"][0]["code"] == "scroll_exists":
        return Wait("is being scrolled by another program", 61)
    if response.status_code in (404, 500):
        return SourceUnavailable("has ended the scroll through the companies", "try again later")
    return None


@dataclass(frozen=True)
class Client:
    """The API, and once more for scrolls, whose requests have to be counted apart."""

    http: Http
    scroll: Http

    @property
    def requests_sent(self) -> int:
        """The requests of this client and all its streams."""
        return self.http.requests_sent + self.scroll.requests_sent

    def stream(self, name: str) -> Self:
        """A view for one stream."""
        return replace(self, http=self.http.stream(name), scroll=self.scroll.stream(name))


def connect(config: Config, secrets: Secrets) -> Client:
    """The client."""
    headers = {"Authorization": f"Bearer {secrets.of(config.token)}", "Intercom-Version": VERSION}
    http, scroll = (
        Http(
            config.address or ADDRESSES[config.region],
            Manners("intercom", limits=(Limit(requests, 10),), judge=judge),
            headers=headers,
        )
        for requests in (150, 10)
    )
    return Client(http, scroll)


def account(client: Client, config: Config) -> str:
    """The workspace behind the token."""
    return f"workspace {client.http.get('/me')['app']['id_code']}"


def read_conversations(reading: Reading[Config]) -> Iterator[Rows]:
    """What changed since the last reading, up to now; what changes meanwhile comes next time."""
    start = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    since, until = int((reading.since or start).timestamp()), int(reading.now.timestamp())
    for page in reading.client.http.pages(
        "/conversations/search",
        method="POST",
        records="conversations",
        paginator=JSONResponseCursorPaginator(
            cursor_path="pages.next.starting_after",
            cursor_body_path="pagination.starting_after",
        ),
        json={
            "query": {
                "operator": "AND",
                "value": [
                    {"field": "updated_at", "operator": ">", "value": since - 1},
                    {"field": "updated_at", "operator": "<", "value": until + 1},
                ],
            },
            "pagination": {"per_page": CONVERSATIONS_PER_PAGE},
        },
    ):
        yield [_conversation(conversation) for conversation in page]


def _conversation(given: dict[str, Any]) -> dict[str, Any]:
    """A conversation without anything that was said, and without the people in it."""
    company, rating = given.get("company") or {}, given.get("conversation_rating") or {}
    author = (given.get("source") or {}).get("author") or {}
    is_customer = author.get("type") in ("user", "lead", "contact")
    tags = (given.get("tags") or {}).get("tags") or []
    return {
        "id": given["id"],
        "created_at": given["created_at"],
        "updated_at": given["updated_at"],
        "state": given.get("state"),
        "priority": given.get("priority"),
        "company_id": company.get("id") or given.get("company_id"),
        "contact_domain": _domain(author.get("email")) if is_customer else None,
        "tags": [tag["name"] for tag in tags],
        "rating": rating.get("rating"),
        "statistics": given.get("statistics"),
    }


def _domain(email: str | None) -> str | None:
    return (email or "").rpartition("@")[2].lower() or None


def read_companies(reading: Reading[Config]) -> Iterator[Rows]:
    """Those that changed: out of all once a day, else out of those that were active last."""
    path = f"/companies/list?page=1&per_page={COMPANIES_PER_PAGE}&order=desc"
    first = reading.client.http.post(path)
    complete_at = reading.position.get("complete_at")
    if complete_at and reading.now - dt.datetime.fromisoformat(complete_at) < COMPLETE_EVERY:
        yield _changed(first["data"], reading)
        return
    total = int(first["total_count"])
    for _ in range(READINGS):
        seen: set[str] = set()
        try:
            for page in _scrolled(reading) if total > MOST_LISTED else _listed(reading):
                seen |= {company["id"] for company in page}
                yield _changed(page, reading)
        except SourceUnavailable:
            if total <= MOST_LISTED:
                raise
            continue  # it begins anew
        if len(seen) >= total:
            reading.position["complete_at"] = reading.now.isoformat()
            return
    raise SourceUnavailable("gives fewer companies than it counts", "try again later")


def _listed(reading: Reading[Config]) -> Iterator[list[dict[str, Any]]]:
    pages: Iterator[list[dict[str, Any]]] = reading.client.http.pages(
        "/companies/list",
        method="POST",
        records="data",
        paginator=PageNumberPaginator(base_page=1, total_path="pages.total_pages"),
        params={"per_page": COMPANIES_PER_PAGE, "order": "desc"},
    )
    return pages


def _scrolled(reading: Reading[Config]) -> Iterator[list[dict[str, Any]]]:
    """All pages of a scroll.

    Raises:
        SourceUnavailable: a request was sent twice, so that a page may be missing.
    """
    scroll: Http = reading.client.scroll
    expected = None
    for page in scroll.pages(
        "/companies/scroll",
        records="data",
        paginator=JSONResponseCursorPaginator(
            cursor_path="scroll_param", cursor_param="scroll_param", stop_after_empty_page=True
        ),
        same_request=True,
    ):
        # Before the first page, nothing can be skipped.
        if expected is not None and scroll.requests_sent > expected:
            raise SourceUnavailable("lost a page of the scroll", "try again later")
        expected = scroll.requests_sent + 1
        yield page


def _changed(companies: list[dict[str, Any]], reading: Reading[Config]) -> Rows:
    since = reading.since.timestamp() if reading.since else 0
    return [company for company in companies if company["updated_at"] >= since]


STREAMS = {
    "companies": ApiStream(
        read=read_companies,
        primary_key=("id",),
        columns=("id", "company_id", "website", "custom_attributes", "updated_at"),
        cursor="updated_at",
        cursor_kind="epoch",
        overlap=COMPANY_OVERLAP,
        # What changes with every visit would make a new version each day.
        leave_out=frozenset({
            "name", "tags", "segments", "plan", "last_request_at", "session_count", "user_count",
        }),
    ),
    "conversations": ApiStream(
        read=read_conversations,
        primary_key=("id",),
        columns=(
            "id", "created_at", "updated_at", "state", "priority", "company_id", "contact_domain",
            "tags", "rating", "statistics",
        ),
        cursor="updated_at",
        cursor_kind="epoch",
        overlap=CONVERSATION_OVERLAP,
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="intercom",
    config=Config,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="Read conversations, Read and list users and companies",
)
