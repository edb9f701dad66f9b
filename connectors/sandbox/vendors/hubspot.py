"""HubSpot's CRM API (v3 objects, v4 associations, and their dated paths), strict, for reading.

Kept as the vendor keeps it: every property value is text, the last page has no `paging.next`,
the search index lags a minute behind, a search ends at 10,000 results, a merged company lives on
under a new id that both old ones lead to, a batch that finds only some records answers 207.

A token may be narrowed for tests: ``<token>/crm.objects.companies.read`` has that scope only.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.hubspot_records import Records
from connectors.sandbox.vendors.hubspot_search import (
    Refused,
    checked_groups,
    checked_sort,
    comparable,
    invalid,
)
from connectors.sandbox.vendors.hubspot_shapes import View, all_properties, iso, shown, stamps

PORTAL_ID = 48_151_623
INDEX_LAG_SECONDS = 60
LIST_PAGE, LIST_PAGE_WITH_HISTORY, SEARCH_PAGE, OWNERS_PAGE = 100, 50, 200, 500
SEARCH_WINDOW = 10_000
BATCH, ASSOCIATION_BATCH = 100, 1_000
TYPES = ("companies", "contacts", "deals", "tasks", "feedback_submissions")
_TYPE_IDS = {"contacts": ("contact_to_company", 1, 279), "deals": ("deal_to_company", 5, 341)}
_SCOPES = {
    **{name: f"crm.objects.{name}.read" for name in TYPES},
    "tasks": "crm.objects.contacts.read",
    "owners": "crm.objects.owners.read",
}


Handler = Callable[[Request], Awaitable[Response]]


def routes(box: Box) -> list[Route]:
    """Every path twice: with its number, and with the date that replaces it."""
    portal = Portal(box)
    paths: list[tuple[str, str, Handler]] = []
    for objects, associations, owners, account in (
        ("/crm/v3/objects", "/crm/v4/associations", "/crm/v3/owners", "/account-info/v3"),
        *(
            (
                f"/crm/objects/{v}",
                f"/crm/associations/{v}",
                f"/crm/owners/{v}",
                f"/account-info/{v}",
            )
            for v in ("2026-03", "2026-09")
        ),
    ):
        paths += [
            (f"{account}/details", "GET", portal.details),
            (f"{owners}/", "GET", portal.list_owners),
            (owners, "GET", portal.list_owners),
            (f"{objects}/{{type}}/search", "POST", portal.search),
            (f"{objects}/{{type}}/batch/read", "POST", portal.batch_read),
            (f"{objects}/{{type}}", "GET", portal.list_objects),
            (f"{objects}/{{type}}/{{id}}", "GET", portal.get_object),
            (f"{associations}/{{from_type}}/{{to_type}}/batch/read", "POST", portal.associated),
        ]
    return [Route(path, _answering(run), methods=[method]) for path, method, run in paths]


def _answering(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refused as refused:
            return _json(refused.body, refused.status)

    return answer


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json;charset=utf-8")


class Portal:
    """One HubSpot account over a box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.records = Records(box.world)
        self.requests_today = 0

    @property
    def now(self) -> float:
        """The sandbox's clock in epoch seconds."""
        return self.box.now.timestamp()

    def table(self, name: str) -> Table:
        """A collection by its type."""
        return self.box.table("hubspot", name, getattr(self.records, f"fill_{name}"))

    def _rate_headers(self) -> dict[str, str]:
        self.requests_today += 1
        return {
            "X-HubSpot-RateLimit-Daily": "650000",
            "X-HubSpot-RateLimit-Daily-Remaining": str(650_000 - self.requests_today),
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            "X-HubSpot-RateLimit-Max": "190",
            "X-HubSpot-RateLimit-Remaining": "189",
        }

    def _authorised(self, request: Request, what: str | None) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token, _, scopes = given.partition("/")
        if scheme != "Bearer" or token != self.box.token("hubspot"):
            raise Refused(
                401, "INVALID_AUTHENTICATION",
                "Authentication credentials not found, or they have expired.",
            )  # fmt: skip
        if what is None:
            return
        if what not in _SCOPES:
            raise invalid(f"Unable to infer object type from: {what}")
        if scopes and _SCOPES[what] not in scopes.split(","):
            raise Refused(
                403, "MISSING_SCOPES", "This app lacks a scope that is required for this call.",
                errors=[{
                    "message": "One or more of these scopes are required.",
                    "context": {"requiredGranularScopes": [_SCOPES[what]]},
                }],
            )  # fmt: skip

    async def details(self, request: Request) -> Response:
        """The account behind the token; here one for trying things out."""
        self._authorised(request, None)
        body = {
            "portalId": PORTAL_ID, "accountType": "SANDBOX", "timeZone": "Europe/Berlin",
            "companyCurrency": "EUR", "additionalCurrencies": ["USD"],
            "utcOffset": "+02:00", "utcOffsetMilliseconds": 7_200_000,
            "uiDomain": "app-eu1.hubspot.com", "dataHostingLocation": "eu1",
        }  # fmt: skip
        return _json(body, headers=self._rate_headers())

    async def list_owners(self, request: Request) -> Response:
        """People who own records."""
        self._authorised(request, "owners")
        query = request.query_params
        limit = _whole_number(query.get("limit", "100"), "limit", OWNERS_PAGE)
        archived = query.get("archived", "false") == "true"
        rows = [
            row
            for row in self.table("owners").rows(self.now, deleted=True)
            if row.deleted == archived
        ]
        page, after = self._page(rows, query.get("after"), limit)
        owners = []
        for row in page:
            stamps = {"createdAt": iso(row.created), "updatedAt": iso(row.changed)}
            owners.append({**row.body, **stamps, "archived": row.deleted})
        return _json(_with_paging(owners, after), headers=self._rate_headers())

    def _page(self, rows: list[Row], after: str | None, limit: int) -> tuple[list[Row], str | None]:
        """The records whose id follows the cursor, and the next cursor."""
        if after is not None and not after.isdigit():
            raise invalid("The offset is not valid.")
        ordered = sorted((row for row in rows if int(row.id) > int(after or 0)), key=_number)
        page = ordered[: self.box.page_size("hubspot", limit)]
        return page, page[-1].id if len(page) < len(ordered) else None

    async def list_objects(self, request: Request) -> Response:
        """A page of records by id. Properties that do not exist are passed over."""
        type = request.path_params["type"]
        self._authorised(request, type)
        query = request.query_params
        view = self._view(
            type,
            _names(query.getlist("properties")),
            _names(query.getlist("propertiesWithHistory")),
        )
        most = LIST_PAGE_WITH_HISTORY if view.history else LIST_PAGE
        limit = _whole_number(query.get("limit", "10"), "limit", most)
        archived = query.get("archived", "false") == "true"
        rows = [
            row
            for row in self.table(type).rows(self.now, deleted=True)
            if row.deleted == archived and self._living(row.id) == row.id
        ]
        page, after = self._page(rows, query.get("after"), limit)
        others = _names(query.getlist("associations"))
        found = []
        for row in page:
            body = shown(view, row)
            linked = {other: self._linked(type, row, other) for other in others}
            if any(linked.values()):
                body["associations"] = {
                    other: {"results": results} for other, results in linked.items() if results
                }
            found.append(body)
        return _json(_with_paging(found, after), headers=self._rate_headers())

    def _living(self, id: str) -> str:
        self.table("companies")  # knows of the merges once it is filled
        return self.records.living(id, self.now)

    def _linked(self, type: str, row: Row, other: str) -> list[dict[str, str]]:
        """Associated records as the list shows them: the primary company twice."""
        name = _TYPE_IDS.get(type, (f"{type}_to_{other}",))[0]
        found = []
        for place, id in enumerate(self._associated_ids(row, other)):
            if other == "companies" and type in _TYPE_IDS:
                found += [{"id": id, "type": name}] if place == 0 else []
                found.append({"id": id, "type": f"{name}_unlabeled"})
            else:
                found.append({"id": id, "type": name})
        return found

    def _associated_ids(self, row: Row, other: str) -> list[str]:
        ids = row.body["associations"].get(other, [])
        return [self._living(id) for id in ids]

    async def get_object(self, request: Request) -> Response:
        """One record. A merged id leads to its successor; an unknown one to a web page."""
        type, id = request.path_params["type"], request.path_params["id"]
        self._authorised(request, type)
        row = self.table(type).get(self._living(id), self.now)
        if row is None:
            return HTMLResponse("<html><body>resource not found</body></html>", 404)
        query = request.query_params
        asked = _names(query.getlist("properties"))
        view = self._view(type, asked, _names(query.getlist("propertiesWithHistory")))
        return _json(shown(view, row), headers=self._rate_headers())

    async def batch_read(self, request: Request) -> Response:
        """Up to 100 records by id; 207 when some are not there."""
        type = request.path_params["type"]
        self._authorised(request, type)
        body = await _object(
            request, {"inputs", "properties", "propertiesWithHistory", "idProperty"}
        )
        view = self._view(
            type, body.get("properties") or [], body.get("propertiesWithHistory") or []
        )
        inputs = body.get("inputs")
        most = LIST_PAGE_WITH_HISTORY if view.history else BATCH
        if not isinstance(inputs, list) or not 1 <= len(inputs) <= most:
            raise invalid(f"A batch may hold 1 to {most} inputs.")
        found, missing = {}, []
        for given in inputs:
            row = self.table(type).get(self._living(str(given["id"])), self.now)
            if row is None:
                missing.append(str(given["id"]))
            else:
                found[row.id] = shown(view, row)
        return self._batch_answer(list(found.values()), missing, "OBJECT_NOT_FOUND")

    def _batch_answer(self, results: list[Any], missing: list[str], category: str) -> Response:
        at = iso(self.now)
        body: dict[str, Any] = {
            "status": "COMPLETE", "results": results, "startedAt": at, "completedAt": at,
        }  # fmt: skip
        if missing:
            error = {
                "status": "error", "category": category, "message": "Some were not found.",
                "context": {"ids": missing}, "errors": [], "links": {},
            }  # fmt: skip
            body |= {"numErrors": 1, "errors": [error]}
        return _json(body, 207 if missing else 200, self._rate_headers())

    async def associated(self, request: Request) -> Response:
        """What records are associated with; those without anything are told as errors."""
        from_type, to_type = request.path_params["from_type"], request.path_params["to_type"]
        self._authorised(request, from_type)
        if to_type not in TYPES:
            raise invalid(f"Unable to infer object type from: {to_type}")
        inputs = (await _object(request, {"inputs"})).get("inputs")
        if not isinstance(inputs, list) or not 1 <= len(inputs) <= ASSOCIATION_BATCH:
            raise invalid(f"A batch may hold 1 to {ASSOCIATION_BATCH} inputs.")
        results, missing = [], []
        for given in inputs:
            row = self.table(from_type).get(str(given["id"]), self.now)
            ids = self._associated_ids(row, to_type) if row else []
            if ids:
                to = [_labelled(from_type, to_type, place, id) for place, id in enumerate(ids)]
                results.append({"from": {"id": str(given["id"])}, "to": to})
            else:
                missing.append(str(given["id"]))
        return self._batch_answer(results, missing, "OBJECT_NOT_FOUND")

    async def search(self, request: Request) -> Response:
        """Records by their properties, as the index knew them a minute ago."""
        type = request.path_params["type"]
        self._authorised(request, type)
        body = await _object(
            request, {"filterGroups", "sorts", "properties", "limit", "after", "query"}
        )
        limit = _whole_number(str(body.get("limit", 10)), "limit", SEARCH_PAGE)
        offset = _whole_number(str(body.get("after", 0)), "after", 10**9, at_least=0)
        if offset + limit > SEARCH_WINDOW:
            raise invalid(f"A search may not page beyond {SEARCH_WINDOW} results.")
        rows = self.table(type).rows(self.now - INDEX_LAG_SECONDS)
        everything = [(row, all_properties(type, row)) for row in rows]
        view = self._view(type, body.get("properties", []), [])
        known = view.known | set(stamps(type))
        groups = checked_groups(body.get("filterGroups", []), known)
        found = [
            (row, properties)
            for row, properties in everything
            if not groups or any(all(test(properties) for test in group) for group in groups)
        ]
        name, descending = checked_sort(body.get("sorts", []), known)
        found.sort(key=lambda pair: comparable(pair[1].get(name)), reverse=descending)
        page = found[offset : offset + self.box.page_size("hubspot", limit)]
        results = [shown(view, row) for row, _ in page]
        end = offset + len(page)
        answer = _with_paging(results, str(end) if end < len(found) else None)
        return _json({"total": len(found), **answer})  # searches tell no rate

    def _view(self, type: str, asked: list[str], history: list[str]) -> "View":
        known = {
            name
            for row in self.table(type).rows(self.now, deleted=True)
            for name in row.body["properties"]
        }
        versions = defaultdict[str, list[Row]](list)
        for row in self.table(type).changes(self.now) if history else ():
            if not row.deleted:
                versions[row.id].append(row)
        return View(type, asked, history, known, versions)


def _labelled(from_type: str, to_type: str, place: int, id: str) -> dict[str, Any]:
    _, primary, unlabelled = _TYPE_IDS.get(from_type, ("", 0, 204))
    types = [{"category": "HUBSPOT_DEFINED", "typeId": unlabelled, "label": None}]
    if place == 0 and primary and to_type == "companies":
        types.insert(0, {"category": "HUBSPOT_DEFINED", "typeId": primary, "label": "Primary"})
    return {"toObjectId": int(id), "associationTypes": types}


def _with_paging(results: list[Any], after: str | None) -> dict[str, Any]:
    """The last page has no `paging` at all."""
    return {"results": results} | ({"paging": {"next": {"after": after}}} if after else {})


async def _object(request: Request, allowed: set[str]) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("Invalid input JSON.") from None
    if not isinstance(body, dict) or set(body) - allowed or None in body.values():
        raise invalid("Invalid input JSON: an unknown field, or a null.")
    return body


def _names(given: list[str]) -> list[str]:
    """Lists come repeated or separated by commas."""
    return [name for part in given for name in part.split(",") if name]


def _whole_number(text: str, name: str, most: int, at_least: int = 1) -> int:
    if not text.isdigit() or not at_least <= int(text) <= most:
        raise invalid(f"{name} must be a number from {at_least} to {most}.")
    return int(text)


def _number(row: Row) -> int:
    return int(row.id)
