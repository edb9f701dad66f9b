"""Zendesk Support. What its API demands, and what is done about it here:

- Tickets come from the cursor export. `start_time` opens the first export only; afterwards the
  cursor of the last answer is kept and sent, never a time of ours: the export leaves the newest
  minute out, and it orders by `generated_timestamp`, which `updated_at` may lag behind.
- Deleted tickets come in the same stream, with the status `deleted`.
- `include=metric_sets` puts first reply, solution and reopenings into each ticket, also into
  archived ones, which the list of ticket metrics leaves out.
- Organizations have a time-based export only. It starts at the beginning, whatever the history:
  an old customer's organization may not have changed for years. The second at which an answer
  ends begins the next one, so rows come twice.
- Both exports share ten requests a minute (thirty with the High Volume add-on). Ratings count
  against the plan's limit, at least 200 a minute.
- An API token is sent as Basic ``<e-mail>/token``, an OAuth token as Bearer.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import BasePaginator, JSONResponseCursorPaginator
from pydantic import Field
from requests import Request, Response
from requests.auth import HTTPBasicAuth

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from contracts.errors import SourceRefused

EXPORT_PAGE = 1000
RATINGS_PAGE = 100


class ZendeskConfig(ApiConfig):
    """Settings: ``https://<subdomain>.zendesk.com``, a token, and how the company uses the desk.

    With `email` the token is an API token of that agent, without it an OAuth access token.
    `crm_id_field` names the organization field that holds the CRM's account id (`external_id`, or
    the key of a custom field), `escalated_tag` the tag of an escalated ticket.
    """

    type: Literal["zendesk"]
    subdomain: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")
    token: FromEnvironment
    email: str | None = Field(default=None, pattern=r"^[^\s:]+@[^\s:]+$")
    crm_id_field: str = Field(default="external_id", pattern=r"^\w+$")
    escalated_tag: str = Field(default="escalated", min_length=1)
    exports_per_minute: int = Field(default=10, ge=1)

    def parameters(self) -> dict[str, str]:
        """What the packaged mappings need to know."""
        return {"crm_id_field": self.crm_id_field, "escalated_tag": self.escalated_tag}


@dataclass(frozen=True)
class ZendeskClient:
    """Two limits, so two clients: the exports' own, and the plan's for everything else."""

    exports: Http
    rest: Http

    @property
    def requests_sent(self) -> int:
        """The requests of both."""
        return self.exports.requests_sent + self.rest.requests_sent

    def stream(self, name: str) -> "ZendeskClient":
        """The same, for one stream."""
        return ZendeskClient(self.exports.stream(name), self.rest.stream(name))


def connect(config: ZendeskConfig, secrets: Secrets) -> ZendeskClient:
    """The client; sends nothing."""
    token = secrets.of(config.token)
    auth = HTTPBasicAuth(f"{config.email}/token", token) if config.email else BearerTokenAuth(token)
    base = f"{config.address or f'https://{config.subdomain}.zendesk.com'}/api/v2"
    return ZendeskClient(
        exports=Http(base, Manners("zendesk", (Limit(config.exports_per_minute, 60),)), auth=auth),
        rest=Http(base, Manners("zendesk", (Limit(200, 60),)), auth=auth),
    )


def account(client: ZendeskClient, config: ZendeskConfig) -> str:
    """The subdomain that the credentials open; a test account (sandbox) has one of its own."""
    answer = client.rest.get("users/me")
    user = answer.get("user") if isinstance(answer, dict) else None
    # Without valid credentials Zendesk may answer as an anonymous user, who has no id.
    if not isinstance(user, dict) or not user.get("id"):
        raise SourceRefused(
            "Zendesk does not know the owner of the token", "check the token and the e-mail address"
        )
    host = urlsplit(str(user.get("url"))).hostname or config.subdomain
    return host.removesuffix(".zendesk.com")


class _CursorExport(BasePaginator):
    """Follows `after_cursor` until `end_of_stream`; `cursor` is where the next export begins."""

    def __init__(self, cursor: str | None) -> None:
        super().__init__()
        self.cursor = cursor

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Note the cursor of an answer."""
        body = response.json()
        self.cursor = body.get("after_cursor") or self.cursor
        self._has_next_page = _goes_on(body, "after_cursor")

    def update_request(self, request: Request) -> None:
        """Ask for what comes after the cursor."""
        request.params.pop("start_time", None)
        request.params["cursor"] = self.cursor


class _TimeExport(BasePaginator):
    """Begins again at `end_time` until `end_of_stream`."""

    def __init__(self, start_time: int) -> None:
        super().__init__()
        self.start_time = start_time

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Note where an answer ends."""
        body = response.json()
        self.start_time = body.get("end_time") or self.start_time
        self._has_next_page = _goes_on(body, "end_time")

    def update_request(self, request: Request) -> None:
        """Ask from there."""
        request.params["start_time"] = self.start_time


def _goes_on(body: dict[str, Any], place: str) -> bool:
    """Whether there is more; then the answer must say from which `place` on.

    Raises:
        KeyError, ValueError: it does not, which `Http.pages` tells as a corrupt page.
    """
    if body["end_of_stream"] is True:
        return False
    if body["end_of_stream"] is False and body[place]:
        return True
    raise ValueError(place)


def read_tickets(reading: Reading[ZendeskConfig]) -> Iterator[Rows]:
    """Everything that changed since the last reading's cursor, deleted tickets too."""
    pages = _CursorExport(reading.position.get("cursor"))
    params: dict[str, Any] = {"per_page": EXPORT_PAGE, "include": "metric_sets"}
    if pages.cursor:
        params["cursor"] = pages.cursor
    else:
        params["start_time"] = _epoch(reading.history_start)
    for page in reading.client.exports.pages(
        "incremental/tickets/cursor", records="tickets", paginator=pages, params=params
    ):
        yield [_without_comment(ticket) for ticket in page]
    reading.position["cursor"] = pages.cursor


def _without_comment(ticket: dict[str, Any]) -> dict[str, Any]:
    """Of a rating only the score is needed; what the customer wrote is not stored."""
    rating = ticket.get("satisfaction_rating")
    kept = {"score": rating["score"]} if isinstance(rating, dict) and "score" in rating else None
    return {**ticket, "satisfaction_rating": kept}


def read_organizations(reading: Reading[ZendeskConfig]) -> Iterator[Rows]:
    """Everything that changed since the second at which the last reading ended, that one again."""
    pages = _TimeExport(reading.position.get("start_time", 0))
    yield from reading.client.exports.pages(
        "incremental/organizations",
        records="organizations",
        paginator=pages,
        params={"start_time": pages.start_time, "per_page": EXPORT_PAGE},
    )
    reading.position["start_time"] = pages.start_time


def read_satisfaction_ratings(reading: Reading[ZendeskConfig]) -> Iterator[Rows]:
    """The answers (good or bad) to satisfaction surveys, without mere offers."""
    since = int(reading.since.timestamp()) if reading.since else _epoch(reading.history_start)
    yield from reading.client.rest.pages(
        "satisfaction_ratings",
        records="satisfaction_ratings",
        paginator=JSONResponseCursorPaginator(
            cursor_path="meta.after_cursor",
            cursor_param="page[after]",
            has_more_path="meta.has_more",
        ),
        params={"score": "received", "start_time": since, "page[size]": RATINGS_PAGE},
    )


def _epoch(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp())


STREAMS = {
    "tickets": ApiStream(
        read_tickets,
        primary_key=("id",),
        columns=("id", "organization_id", "created_at", "updated_at", "status", "priority",
                 "tags", "satisfaction_rating", "metric_set", "generated_timestamp"),
        cursor="generated_timestamp",
        cursor_kind="epoch",
        leave_out=frozenset(
            {"subject", "raw_subject", "description", "recipient", "custom_fields", "fields",
             "collaborator_ids", "follower_ids", "email_cc_ids", "via"}
        ),
    ),
    "organizations": ApiStream(
        read_organizations,
        primary_key=("id",),
        columns=("id", "external_id", "domain_names", "organization_fields", "updated_at"),
        cursor="updated_at",
        overlap=dt.timedelta(days=1),
        leave_out=frozenset({"details", "notes"}),
    ),
    "satisfaction_ratings": ApiStream(
        read_satisfaction_ratings,
        primary_key=("id",),
        columns=("id", "ticket_id", "score", "created_at", "updated_at"),
        cursor="updated_at",
        overlap=dt.timedelta(hours=1),
        leave_out=frozenset({"comment"}),
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="zendesk",
    config=ZendeskConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="an admin's API token, or an OAuth token of an admin with the scope 'read'",
)
