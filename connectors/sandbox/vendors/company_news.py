"""A news feed of Crunchbase's shape over the synthetic company's news, strict.

Every fourth event is reprinted a few days later under another uuid, every fifth acquisition has no
price, and every sixth event is also told of with its month only. One report is withdrawn.
"""

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.servers.moments import iso

PAGE, MOST = 50, 1000
_COLLECTIONS = {
    "funding": "funding_rounds", "layoffs": "layoffs", "acquisition": "acquisitions",
    "merger": "acquisitions",
}  # fmt: skip
_DAY = 86400
_FIELDS = {
    "identifier", "organization_identifier", "organization_website_url", "announced_on",
    "created_at", "updated_at", "short_description",
}  # fmt: skip
FIELDS = {
    "acquisitions": _FIELDS | {"acquisition_type", "price", "acquirer_identifier"},
    "funding_rounds": _FIELDS | {"investment_type", "money_raised"},
    "layoffs": _FIELDS | {"num_laid_off"},
}


class _Refused(Refused):
    """An answer in the feed's error shape."""

    def __init__(self, status: int, code: str, message: str) -> None:
        error = {"code": code, "status": status, "message": message, "collection_id": None}
        super().__init__(status, [error])


def _invalid(message: str) -> _Refused:
    return _Refused(400, "MD101", message)


Handler = Callable[[Request], Awaitable[Response]]


def routes(box: Box) -> list[Route]:
    """The searches of three collections, and what was withdrawn."""
    feed = Feed(box)
    return [
        Route("/searches/{collection}", _answering(feed.search), methods=["POST"]),
        Route("/deleted_entities", _answering(feed.deleted), methods=["GET"]),
    ]


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            answered = await handler(request)
        except _Refused as refused:
            return refused.answer()
        return answered if isinstance(answered, Response) else Json(answered)

    return answer


class Feed:
    """The feed over a box."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def table(self, collection: str) -> Table:
        """The records of a collection."""

        def fill(table: Table) -> None:
            for number, event in enumerate(self.box.world.rows("news/company_events.jsonl")):
                if _COLLECTIONS[event["kind"]] == collection:
                    _put(table, event, number)

        return self.box.table("company_news", collection, fill)

    def _authorised(self, request: Request) -> None:
        if request.headers.get("x-cb-user-key") != self.box.token("company_news"):
            raise _Refused(401, "LA401", "Unauthorized user_key")

    async def search(self, request: Request) -> Any:
        """Records of a collection that satisfy every predicate, in the order asked for."""
        self._authorised(request)
        collection = request.path_params["collection"]
        if collection not in FIELDS:
            raise _Refused(404, "MD404", "No such collection")
        body = orjson.loads(await request.body() or b"{}")
        unknown = set(body) - {"field_ids", "query", "order", "limit", "after_id", "before_id"}
        if unknown or not isinstance(body.get("field_ids"), list):
            raise _invalid("field_ids is missing, or there is a parameter that does not exist")
        known = FIELDS[collection]
        if not set(body["field_ids"]) <= known:
            raise _invalid(f"unknown field_ids for {collection}")
        rows = self.table(collection).rows(self.box.now.timestamp())
        for predicate in body.get("query", []):
            rows = [row for row in rows if _satisfies(_record(row), predicate, known)]
        rows.sort(key=lambda row: row.id)
        for order in reversed(body.get("order", [])):
            if order.get("field_id") not in known or order.get("sort") not in ("asc", "desc"):
                raise _invalid("cannot be ordered by that")
            rows.sort(key=_by(order["field_id"]), reverse=order["sort"] == "desc")
        page = self._page(rows, body)
        fields = dict.fromkeys(["identifier", *body["field_ids"]])
        entities = [
            {"uuid": row.id, "properties": {name: _record(row)[name] for name in fields}}
            for row in page
        ]
        return {"count": len(rows), "entities": entities}

    def _page(self, rows: list[Row], asked: dict[str, Any]) -> list[Row]:
        limit = asked.get("limit", PAGE)
        if not isinstance(limit, int) or not 1 <= limit <= MOST:
            raise _invalid(f"limit must be 1 to {MOST}")
        if asked.get("after_id") and asked.get("before_id"):
            raise _invalid("after_id and before_id exclude each other")
        start = 0
        if after := asked.get("after_id"):
            places = [place for place, row in enumerate(rows) if row.id == after]
            if not places:
                raise _invalid("after_id is none of the records found")
            start = places[0] + 1
        return rows[start : start + self.box.page_size("company_news", limit)]

    async def deleted(self, request: Request) -> Any:
        """What was withdrawn, of the collections asked for."""
        self._authorised(request)
        query = dict(request.query_params)
        wanted = set(query.pop("collection_ids", ",".join(FIELDS)).split(","))
        order = query.pop("deleted_at_order", "asc")
        unknown = set(query) - {"limit", "after_id", "before_id"}
        if not wanted <= set(FIELDS) or order not in ("asc", "desc") or unknown:
            raise _invalid("unknown collection_ids, order or parameter")
        if not query.get("limit", "1").isdigit():
            raise _invalid(f"limit must be 1 to {MOST}")
        now = self.box.now.timestamp()
        gone = [
            (row, collection)
            for collection in sorted(wanted)
            for row in self.table(collection).rows(now, deleted=True)
            if row.deleted
        ]
        gone.sort(key=lambda pair: (pair[0].changed, pair[0].id), reverse=order == "desc")
        collections = {row.id: collection for row, collection in gone}
        asked = {**query, "limit": int(query.get("limit", "100"))}
        return [
            {
                "identifier": {**row.body["identifier"], "entity_def_id": collections[row.id]},
                "deleted_at": iso(row.changed),
            }
            for row in self._page([row for row, _ in gone], asked)
        ]


def _put(table: Table, event: dict[str, Any], number: int) -> None:
    """An event as reported at first, and its reprints."""
    at = dt.datetime.fromisoformat(event["published_at"]).timestamp()
    day = event["published_at"][:10]
    _report(table, event, number, "", {"value": day, "precision": "day"}, at)
    if number % 4 == 0:
        # Announced when it was; only the report is later.
        _report(table, event, number, "reprint", {"value": day, "precision": "day"}, at + 5 * _DAY)
    if number % 6 == 0:
        month = {"value": f"{day[:7]}-01", "precision": "month"}
        _report(table, event, number, "monthly", month, at + 20 * _DAY)
    if number == 7:
        gone = _report(table, event, number, "mistake", {"value": day, "precision": "day"}, at + 60)
        table.remove(gone, at + 2 * _DAY)


def _report(
    table: Table, event: dict[str, Any], number: int, again: str, on: dict[str, str], at: float
) -> str:
    name = f"{event['event_id']}-{again}" if again else event["event_id"]
    id = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
    organization = event["company_domain"].removeprefix("www.").partition(".")[0]
    body: dict[str, Any] = {
        "identifier": {"uuid": id, "permalink": name, "value": f"News of {organization}"},
        "organization_identifier": {"permalink": organization, "value": organization.title()},
        "organization_website_url": f"https://{event['company_domain']}",
        "announced_on": on,
        "short_description": "Told by somebody who knows.",
    }
    price = {"value": 1_000_000 + number, "currency": "USD", "value_usd": 1_000_000 + number}
    if _COLLECTIONS[event["kind"]] == "acquisitions":
        body |= {
            "acquisition_type": event["kind"], "price": None if number % 5 == 0 else price,
            "acquirer_identifier": {"permalink": "a-buyer", "value": "A Buyer"},
        }  # fmt: skip
    elif event["kind"] == "funding":
        body |= {"investment_type": "series_b", "money_raised": price}
    else:
        body |= {"num_laid_off": None}
    table.put(id, body, at)
    return id


def _record(row: Row) -> dict[str, Any]:
    return {**row.body, "created_at": iso(row.created), "updated_at": iso(row.changed)}


def _by(name: str) -> Callable[[Row], Any]:
    return lambda row: _record(row)[name]


def _satisfies(record: dict[str, Any], predicate: dict[str, Any], known: set[str]) -> bool:
    name, operator, values = (predicate.get(k) for k in ("field_id", "operator_id", "values"))
    if predicate.get("type") != "predicate" or name not in known or not isinstance(values, list):
        raise _invalid("a predicate names no field that there is, or has no values")
    value = record[name]["value"] if isinstance(record[name], dict) else record[name]
    if operator == "gte":
        return bool(value >= values[0])
    if operator == "lte":
        return bool(value <= values[0])
    if operator in ("eq", "includes"):
        return value in values
    raise _invalid(f"unknown operator_id {operator}")
