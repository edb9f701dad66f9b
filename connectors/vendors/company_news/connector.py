"""A feed of Crunchbase's shape: acquisitions and mergers, funding rounds, layoffs.

What such a feed demands, and what is done about it here:

- A search is a POST per collection; 50 records a page unless asked for more, 1,000 at most. The
  next page begins after the `uuid` of the last record (`after_id`); a page without records is the
  end.
- Searches are ordered by `updated_at`, and a day is read again: records are corrected for weeks.
- What was withdrawn is in a feed of its own, `deleted_entities`.
- 200 requests a minute; no header tells the rate, and a 429 does not say for how long.
- A date has a precision (`day`, `month`, `year`); prices are often unknown and are not read.
- Companies are told apart by their web address, not by their name.
- News is reprinted under another `uuid`; the mapping knows the event by company, kind and date.
"""

import datetime as dt
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Request, Response

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from contracts.errors import SourceUnavailable

PAGE = 1000
OVERLAP = dt.timedelta(days=1)
_COMMON = ("identifier", "organization_website_url", "announced_on", "created_at", "updated_at")
FIELDS = {
    "acquisitions": (*_COMMON, "acquisition_type"),
    "funding_rounds": _COMMON,
    "layoffs": _COMMON,
}


class CompanyNewsConfig(ApiConfig):
    """Settings: the feed's address (Crunchbase's own when left out) and its user key."""

    type: Literal["company_news"]
    key: FromEnvironment


NewsReading = Reading[CompanyNewsConfig]


def connect(config: CompanyNewsConfig, secrets: Secrets) -> Http:
    """The client; sends nothing."""
    return Http(
        config.address or "https://api.crunchbase.com/v4/data",
        Manners("company_news", (Limit(200, 60),)),
        headers={"X-cb-user-key": secrets.of(config.key)},
    )


def account(client: Http, config: CompanyNewsConfig) -> str:
    """The feed, once it has accepted the key. News is public: there is no account behind it."""
    client.post("searches/layoffs", json={"field_ids": ["identifier"], "query": [], "limit": 1})
    return (config.address or "https://api.crunchbase.com").partition("://")[2].partition("/")[0]


class _AfterId(BasePaginator):
    """Begins each page after the last record of the one before.

    A search says how many records there are, so it is at its end once all have come; the deletions
    end with a page without records.
    """

    def __init__(self, where: Literal["json", "params"]) -> None:
        super().__init__()
        self._where = where
        self._after_id = ""
        self._received: set[str] = set()
        self._count: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether as many records came as the feed said there are."""
        return self._count is None or len(self._received) >= self._count

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        """Take note of a page."""
        body = response.json()
        self._count = body["count"] if isinstance(body, dict) else None
        ids = [_uuid(record) for record in data or []]
        self._received.update(ids)
        self._after_id = ids[-1] if ids else ""
        self._has_next_page = bool(ids) and (self._count is None or not self.is_complete)

    def update_request(self, request: Request) -> None:
        """Ask for what comes after it."""
        getattr(request, self._where)["after_id"] = self._after_id


def _uuid(record: dict[str, Any]) -> str:
    return str(record["uuid"] if "uuid" in record else record["identifier"]["uuid"])


def read_collection(collection: str, reading: NewsReading) -> Iterator[Rows]:
    """What is new or corrected, the oldest correction first."""
    start = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    since = (reading.since or start).astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    updated = {
        "type": "predicate", "field_id": "updated_at", "operator_id": "gte", "values": [since],
    }  # fmt: skip
    request = {
        "field_ids": list(FIELDS[collection]),
        "query": [updated],
        "order": [{"field_id": "updated_at", "sort": "asc"}],
        "limit": PAGE,
    }
    pages = _AfterId("json")
    path = f"searches/{collection}"
    for page in reading.client.pages(
        path, records="entities", paginator=pages, method="POST", json=request
    ):
        yield [_row(record) for record in page]
    if not pages.is_complete:
        # The record after which a page was to begin was corrected meanwhile, and so moved.
        raise SourceUnavailable(
            f"the {collection} changed while they were read", "run again", vendor="company_news"
        )


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its wrapping; of the identifier only the permanent name."""
    properties = dict(record["properties"])
    identifier = properties.pop("identifier", None) or {}
    return {"uuid": record["uuid"], "permalink": identifier.get("permalink"), **properties}


def read_deleted_entities(reading: NewsReading) -> Iterator[Rows]:
    """What was withdrawn since the last one that we know of."""
    query: dict[str, Any] = {
        "collection_ids": ",".join(FIELDS), "limit": PAGE, "deleted_at_order": "asc",
    }  # fmt: skip
    if after := reading.position.get("after_id"):
        query["after_id"] = after
    for page in reading.client.pages(
        "deleted_entities", records="$", paginator=_AfterId("params"), params=query
    ):
        if page:
            reading.position["after_id"] = _uuid(page[-1])
            yield [{"uuid": _uuid(record), "deleted_at": record["deleted_at"]} for record in page]


STREAMS = {
    collection: ApiStream(
        partial(read_collection, collection),
        primary_key=("uuid",),
        columns=("uuid", "permalink", *(name for name in fields if name != "identifier")),
        cursor="updated_at",
        overlap=OVERLAP,
    )
    for collection, fields in FIELDS.items()
} | {
    "deleted_entities": ApiStream(
        read_deleted_entities, primary_key=("uuid",), columns=("uuid", "deleted_at")
    )
}

VENDOR = Vendor(
    name="company_news",
    config=CompanyNewsConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="a user key of the feed",
)
