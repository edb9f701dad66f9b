"""HubSpot's CRM API (v3 objects, v4 associations, and their dated paths), strict.

Kept as the vendor keeps it: every property value is text, the last page has no `paging.next`,
the search index lags a minute behind, a search ends at 10,000 results, a merged company lives on
under a new id that both old ones lead to, a batch that finds only some records answers 207.

A token may be narrowed for tests: ``<token>/crm.objects.companies.read`` has that scope only.
"""

from bisect import bisect_right
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from connectors.sandbox.servers.box import Box, Row
from connectors.sandbox.vendors.hubspot_account import SCOPES, Account, type_named
from connectors.sandbox.vendors.hubspot_inputs import ASSOCIATION_TYPES
from connectors.sandbox.vendors.hubspot_properties import PropertyApi
from connectors.sandbox.vendors.hubspot_search import (
    Refused,
    Test,
    checked_groups,
    checked_sort,
    comparable,
    invalid,
)
from connectors.sandbox.vendors.hubspot_shapes import (
    APP_ID,
    View,
    all_properties,
    iso,
    shown,
    stamps,
)
from connectors.sandbox.vendors.hubspot_web import (
    VERSIONS,
    Handler,
    ids_of,
    json_answer,
    names_of,
    object_of,
    routed,
    wants_archived,
    whole_number,
    with_paging,
)
from connectors.sandbox.vendors.hubspot_writes import Writes

PORTAL_ID = 48_151_623
INDEX_LAG_SECONDS = 60
LIST_PAGE, LIST_PAGE_WITH_HISTORY, SEARCH_PAGE, OWNERS_PAGE = 100, 50, 200, 500
SEARCH_WINDOW = 10_000
BATCH, ASSOCIATION_BATCH = 100, 1_000
TOKEN_INFO = "/oauth/v2/private-apps/get/access-token-info"
_LINKS = {"contacts": "contact_to_company", "deals": "deal_to_company"}


def routes(box: Box) -> list[Route]:
    """Every path twice: with its number, and with the dates that replace it."""
    account = Account(box)
    portal, writes, properties = Portal(account), Writes(account), PropertyApi(account)
    found: list[tuple[str, str, Handler]] = [(TOKEN_INFO, "POST", portal.token)]
    found += writes.routes("/crm/v3/objects", "/crm/v4/objects")
    found += properties.routes("/crm/v3/properties")
    found += portal.routes(
        "/crm/v3/objects", "/crm/v4/associations", "/crm/v3/owners", "/account-info/v3"
    )
    for v in VERSIONS:
        objects = f"/crm/objects/{v}"
        found += writes.routes(objects, objects)
        found += properties.routes(f"/crm/properties/{v}")
        found += portal.routes(
            objects, f"/crm/associations/{v}", f"/crm/owners/{v}", f"/account-info/{v}"
        )
    return routed(found)


class Portal:
    """One HubSpot account, for reading."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.box = account.box

    def routes(
        self, objects: str, associations: str, owners: str, info: str
    ) -> list[tuple[str, str, Handler]]:
        """The paths below these, their methods and handlers."""
        return [
            (f"{info}/details", "GET", self.details),
            (f"{info}/api-usage/daily/private-apps", "GET", self.usage),
            (f"{owners}/", "GET", self.list_owners),
            (owners, "GET", self.list_owners),
            (f"{objects}/{{type}}/search", "POST", self.search),
            (f"{objects}/{{type}}/batch/read", "POST", self.batch_read),
            (f"{objects}/{{type}}", "GET", self.list_objects),
            (f"{objects}/{{type}}/{{id}}", "GET", self.get_object),
            (f"{associations}/{{from_type}}/{{to_type}}/batch/read", "POST", self.associated),
            (f"{associations}/{{from_type}}/{{to_type}}/labels", "GET", self.labels),
        ]

    @property
    def now(self) -> float:
        """The sandbox's clock in epoch seconds."""
        return self.account.now

    def _json(self, body: Any, status: int = 200) -> Response:
        return json_answer(body, status, self.account.rate_headers())

    async def token(self, request: Request) -> Response:
        """What a private app's token may do; the token itself is the credential."""
        body = await object_of(request, {"tokenKey"})
        token, _, scopes = str(body.get("tokenKey")).partition("/")
        if token != self.box.token("hubspot"):
            raise Refused(404, "OBJECT_NOT_FOUND", "There is no such token.")
        owned = sorted(scopes.split(",") if scopes else SCOPES)
        return json_answer(
            {"userId": 50_000_099, "hubId": PORTAL_ID, "appId": int(APP_ID), "scopes": owned}
        )

    async def usage(self, request: Request) -> Response:
        """The requests of the day."""
        self.account.authorised(request, None)
        return self._json(self.account.usage())

    async def details(self, request: Request) -> Response:
        """The account behind the token; here one for trying things out."""
        self.account.authorised(request, None)
        return self._json({
            "portalId": PORTAL_ID, "accountType": "SANDBOX", "timeZone": "Europe/Berlin",
            "companyCurrency": "EUR", "additionalCurrencies": ["USD"],
            "utcOffset": "+02:00", "utcOffsetMilliseconds": 7_200_000,
            "uiDomain": "app-eu1.hubspot.com", "dataHostingLocation": "eu1",
        })  # fmt: skip

    async def list_owners(self, request: Request) -> Response:
        """People who own records."""
        self.account.authorised(request, "owners")
        query = request.query_params
        limit = whole_number(query.get("limit", "100"), "limit", OWNERS_PAGE)
        archived = wants_archived(request)
        page, after = self._page("owners", archived, query.get("after"), limit)
        owners = []
        for row in page:
            stamps = {"createdAt": iso(row.created), "updatedAt": iso(row.changed)}
            owners.append({**row.body, **stamps, "archived": row.deleted})
        return self._json(with_paging(owners, after))

    def _page(
        self, type: str, archived: bool, after: str | None, limit: int
    ) -> tuple[list[Row], str | None]:
        """The records whose id follows the cursor, and the next cursor."""
        if after is not None and not after.isdigit():
            raise invalid("The offset is not valid.")
        index, now = self.account.index(type), self.now

        def ordered(rows: list[Row]) -> list[Row]:
            """Without the former ids of merged records, which are in no list."""
            chosen = (row for row in rows if row.deleted == archived)
            return sorted((row for row in chosen if index.living(row.id, now) == row.id), key=_id)

        rows = index.table.derived(now, f"list archived={archived}", ordered)
        start = bisect_right(rows, int(after or 0), key=_id)
        page = rows[start : start + self.box.page_size("hubspot", limit)]
        return page, page[-1].id if start + len(page) < len(rows) else None

    async def list_objects(self, request: Request) -> Response:
        """A page of records by id. Properties that do not exist are passed over."""
        type = self.account.authorised(request, request.path_params["type"])
        query = request.query_params
        view = self.account.view(
            type,
            names_of(query.getlist("properties")),
            names_of(query.getlist("propertiesWithHistory")),
        )
        most = LIST_PAGE_WITH_HISTORY if view.history else LIST_PAGE
        limit = whole_number(query.get("limit", "10"), "limit", most)
        archived = wants_archived(request)
        page, after = self._page(type, archived, query.get("after"), limit)
        others = names_of(query.getlist("associations"))
        found = []
        for row in page:
            body = shown(view, row)
            linked = {other: self._linked(type, row, other) for other in others}
            if any(linked.values()):
                body["associations"] = {
                    other: {"results": results} for other, results in linked.items() if results
                }
            found.append(body)
        return self._json(with_paging(found, after))

    def _linked(self, type: str, row: Row, other: str) -> list[dict[str, str]]:
        """Associated records as the list shows them: the primary company twice."""
        name = _LINKS.get(type, f"{type}_to_{other}")
        found = []
        for place, id in enumerate(self._associated_ids(row, other)):
            if other == "companies" and type in _LINKS:
                found += [{"id": id, "type": name}] if place == 0 else []
                found.append({"id": id, "type": f"{name}_unlabeled"})
            else:
                found.append({"id": id, "type": name})
        return found

    def _associated_ids(self, row: Row, other: str) -> list[str]:
        ids = row.body["associations"].get(other, [])
        return [self.account.living(id) for id in ids]

    async def get_object(self, request: Request) -> Response:
        """One record. A merged id leads to its successor; an unknown one to a web page."""
        type = self.account.authorised(request, request.path_params["type"])
        query = request.query_params
        row = self._found(
            type, request.path_params["id"], query.get("idProperty"),
            archived=wants_archived(request),
        )  # fmt: skip
        if row is None:
            return HTMLResponse("<html><body>resource not found</body></html>", 404)
        asked = names_of(query.getlist("properties"))
        history = names_of(query.getlist("propertiesWithHistory"))
        return self._json(shown(self.account.view(type, asked, history), row))

    def _found(
        self, type: str, id: str, id_property: str | None, *, archived: bool = False
    ) -> Row | None:
        """A record by its id or by a unique property: a living one, or an archived one."""
        if id_property is not None:
            self.account.check_unique(type, id_property)
            index = self.account.index(type)
            return index.holding(id_property, id, self.now, archived=archived)
        if not archived:
            return self.account.row(type, id)
        versions = self.account.table(type).versions(id, self.now)
        return versions[-1] if versions and versions[-1].deleted else None

    async def batch_read(self, request: Request) -> Response:
        """Up to 100 records by id, or by a unique property; 207 when some are not there."""
        type = self.account.authorised(request, request.path_params["type"])
        body = await object_of(
            request, {"inputs", "properties", "propertiesWithHistory", "idProperty"}
        )
        view = self.account.view(
            type, body.get("properties") or [], body.get("propertiesWithHistory") or []
        )
        archived = wants_archived(request)
        found, missing = {}, []
        for id in ids_of(body, LIST_PAGE_WITH_HISTORY if view.history else BATCH):
            row = self._found(type, id, body.get("idProperty"), archived=archived)
            if row is None:
                missing.append(id)
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
        return self._json(body, 207 if missing else 200)

    async def labels(self, request: Request) -> Response:
        """The types of association between two types of record."""
        from_type = self.account.authorised(request, request.path_params["from_type"])
        numbers = ASSOCIATION_TYPES.get((from_type, type_named(request.path_params["to_type"])), ())
        labels = [
            {
                "category": "HUBSPOT_DEFINED",
                "typeId": number,
                "label": "Primary" if place else None,
            }
            for place, number in enumerate(numbers)
        ]
        return self._json({"results": labels})

    async def associated(self, request: Request) -> Response:
        """What records are associated with; those without anything are told as errors."""
        from_type = self.account.authorised(request, request.path_params["from_type"])
        to_type = type_named(request.path_params["to_type"])
        results, missing = [], []
        for id in ids_of(await object_of(request, {"inputs"}), ASSOCIATION_BATCH):
            row = self.account.table(from_type).get(id, self.now)
            linked = self._associated_ids(row, to_type) if row else []
            if linked:
                to = [_labelled(from_type, to_type, place, one) for place, one in enumerate(linked)]
                results.append({"from": {"id": id}, "to": to})
            else:
                missing.append(id)
        return self._batch_answer(results, missing, "OBJECT_NOT_FOUND")

    async def search(self, request: Request) -> Response:
        """Records by their properties, as the index knew them a minute ago."""
        type = self.account.authorised(request, request.path_params["type"])
        body = await object_of(
            request, {"filterGroups", "sorts", "properties", "limit", "after", "query"}
        )
        limit = whole_number(str(body.get("limit", 10)), "limit", SEARCH_PAGE)
        offset = whole_number(str(body.get("after", 0)), "after", 10**9, at_least=0)
        if offset + limit > SEARCH_WINDOW:
            raise invalid(f"A search may not page beyond {SEARCH_WINDOW} results.")
        view = self.account.view(type, body.get("properties", []), [])
        found = self._searched(view, body.get("filterGroups", []), body.get("sorts", []))
        page = found[offset : offset + self.box.page_size("hubspot", limit)]
        end = offset + len(page)
        answer = with_paging(
            [shown(view, row) for row in page], str(end) if end < len(found) else None
        )
        return json_answer({"total": len(found), **answer})  # searches tell no rate

    def _searched(self, view: View, given_groups: Any, given_sorts: Any) -> list[Row]:
        """The records that are found, in order."""
        known = view.known | set(stamps(view.type))
        groups = checked_groups(given_groups, known)
        name, descending = checked_sort(given_sorts, known)

        def matching(rows: list[Row], groups: list[list[Test]]) -> list[Row]:
            living = [(row, all_properties(view.type, row)) for row in rows if not row.deleted]
            found = [
                (row, properties)
                for row, properties in living
                if not groups or any(all(test(properties) for test in group) for group in groups)
            ]
            found.sort(key=lambda pair: comparable(pair[1].get(name)), reverse=descending)
            return [row for row, _ in found]

        table, then = self.account.table(view.type), self.now - INDEX_LAG_SECONDS
        after, rest = _walked(given_groups)
        if after is None or (name, descending) != ("hs_object_id", False):
            return matching(table.rows(then), groups)
        # A walk by id asks for the same records again and again: they are looked through once.
        remaining = checked_groups([{"filters": rest}], known)
        every = table.derived(then, f"search {rest}", lambda rows: matching(rows, remaining))
        return every[bisect_right(every, after, key=_id) :]


def _walked(groups: Any) -> tuple[int | None, list[Any]]:
    """The id after which a walk goes on, and its other filters."""
    filters = groups[0].get("filters", []) if len(groups) == 1 else []
    by_id = [
        one for one in filters if one["propertyName"] == "hs_object_id" and one["operator"] == "GT"
    ]
    if len(by_id) != 1 or not by_id[0]["value"].isdigit():
        return None, filters
    return int(by_id[0]["value"]), [one for one in filters if one is not by_id[0]]


def _labelled(from_type: str, to_type: str, place: int, id: str) -> dict[str, Any]:
    unlabelled, *primary = ASSOCIATION_TYPES.get((from_type, to_type), (204,))
    types = [{"category": "HUBSPOT_DEFINED", "typeId": unlabelled, "label": None}]
    if place == 0 and primary and to_type == "companies":
        types.insert(0, {"category": "HUBSPOT_DEFINED", "typeId": primary[0], "label": "Primary"})
    return {"toObjectId": int(id), "associationTypes": types}


def _id(row: Row) -> int:
    return int(row.id)
