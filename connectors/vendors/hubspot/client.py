"""The generated HubSpot client over our own HTTP layer.

`hubspot-api-client` knows the paths and the parameters. Its transport has no timeout, no retry and
no check of what it gets, and it keeps the token in plain sight; so each generated `ApiClient` is
built once and gets another `rest_client`. The generated models are passed over: answers come back
as the JSON they are, with every field.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from hubspot.crm import objects, owners  # type: ignore[import-untyped]
from hubspot.crm.associations import v4 as associations  # type: ignore[import-untyped]

from connectors.http import Http, Judge, Limit, Manners, Wait, retry_after_seconds
from contracts.errors import SourceCorrupt, SourceError, SourceExhausted, SourceRefused

BURST = Limit(190, 10)
"""What a portal lets through, searches apart."""

BURST_SECONDS = {"TEN_SECONDLY_ROLLING": 10.0, "SECONDLY": 1.0}
LOCKED_SECONDS = 2.0
SEARCH_PAGE = 200
EDIT_SCOPES = "Development > Keys > Service keys > the key > Edit scopes"
_SCOPE = re.compile(r"[a-z_]+(\.[a-z_-]+){1,5}")
_RAW: Mapping[str, Any] = {"_preload_content": False}


def judge(response: requests.Response) -> SourceError | Wait | None:
    """A 429 says which limit: the day's is over, the burst's passes within ten seconds.

    A 423 is a lock that passes within seconds; a 477 says how long the portal is being moved. A
    403 may name the scopes that the key lacks.
    """
    if response.status_code == 403:
        return _without_scopes(response.json())
    if response.status_code == 423:
        return Wait("answered 423", max(retry_after_seconds(response) or 0, LOCKED_SECONDS))
    if response.status_code == 477:
        return Wait("answered 477", retry_after_seconds(response))
    if response.status_code != 429:
        return None
    policy = response.json().get("policyName")
    if policy == "DAILY":
        return SourceExhausted(
            "the day's requests are used up", "run again after midnight in the portal's time zone"
        )
    seconds = retry_after_seconds(response)
    return Wait("answered 429", BURST_SECONDS.get(policy, 10.0) if seconds is None else seconds)


def _without_scopes(body: Any) -> SourceError | None:
    """The error for a key that lacks scopes, if the answer names any."""
    contexts = [error.get("context") or {} for error in body.get("errors") or []]
    named = [name for context in contexts for name in context.get("requiredGranularScopes") or []]
    scopes = [name for name in dict.fromkeys(named) if _SCOPE.fullmatch(name)]
    if not scopes:
        return None
    return SourceRefused(
        f"refused access (403): the key lacks {', '.join(scopes)}",
        f"add it in HubSpot: {EDIT_SCOPES}; docs/crm.md names all that are needed",
    )


class Transport:
    """What the generated clients send through.

    It is also the one place that knows which version of the API is asked: the generated paths
    carry numbers (v3, v4), and `version` may name a date instead.
    """

    def __init__(self, http: Http, version: str) -> None:
        self._http = http
        self._version = version

    def GET(self, url: str, query_params: Any = None, **_: Any) -> Any:
        """The JSON at a path."""
        return self._http.get(self._path(url), params=_params(query_params))

    def POST(self, url: str, query_params: Any = None, body: Any = None, **_: Any) -> Any:
        """The JSON that answers a search or a batch."""
        return self._http.post(self._path(url), json=body, params=_params(query_params))

    def PATCH(self, url: str, body: Any = None, **_: Any) -> Any:
        """The JSON that answers a change."""
        return self._http.patch(self._path(url), json=body)

    def _path(self, path: str) -> str:
        if self._version == "v3":
            return path
        kinds = "objects|owners|associations|properties"
        path = re.sub(rf"^/crm/v\d/({kinds})", rf"/crm/\1/{self._version}", path)
        return path.replace("/account-info/v3/", f"/account-info/{self._version}/")


def _params(given: Any) -> dict[str, list[str]]:
    params: dict[str, list[str]] = {}
    for name, value in given or []:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        params.setdefault(name, []).append(text)
    return params


class HubSpot:
    """One portal. Searches have a limit of their own (5 a second), so they go their own way."""

    def __init__(self, reading: Http, searching: Http, version: str) -> None:
        self._reading, self._searching, self._version = reading, searching, version
        self._transport = Transport(reading, version)
        client = generated(objects, self._transport)
        self._list = objects.BasicApi(client)
        self._batch = objects.BatchApi(client)
        self._search = objects.SearchApi(generated(objects, Transport(searching, version)))
        self._owners = owners.OwnersApi(generated(owners, self._transport))
        self._associations = associations.BatchApi(generated(associations, self._transport))

    @classmethod
    def at(cls, address: str, token: str, version: str, judge: Judge = judge) -> "HubSpot":
        """The portal that a token opens; nothing is sent."""
        return cls(
            Http(address, Manners("hubspot", (BURST,), judge), auth=BearerTokenAuth(token)),
            Http(address, Manners("hubspot", (Limit(5, 1),), judge), auth=BearerTokenAuth(token)),
            version,
        )

    @property
    def http(self) -> Http:
        """What everything but searches goes through."""
        return self._reading

    @property
    def requests_sent(self) -> int:
        """The requests of all streams."""
        return self._reading.requests_sent + self._searching.requests_sent

    def stream(self, name: str) -> "HubSpot":
        """The same portal for one stream."""
        return HubSpot(self._reading.stream(name), self._searching.stream(name), self._version)

    def corrupt(self, cause: str) -> SourceError:
        """The error for an answer that cannot be right."""
        error = SourceCorrupt(cause, "try again later; if it stays so, report it")
        return self._reading.session.named(error)

    def _with_results(self, body: Any) -> dict[str, Any]:
        results = body.get("results") if isinstance(body, dict) else None
        if isinstance(results, list) and all(isinstance(record, dict) for record in results):
            checked: dict[str, Any] = body
            return checked
        raise self.corrupt("sent a page in which 'results' is no list of objects")

    def _pages(self, ask: Callable[[dict[str, str]], Any]) -> Iterator[list[dict[str, Any]]]:
        """Pages until one names no next one."""
        cursor, seen = dict[str, str](), set[str]()
        while True:
            body = self._with_results(ask(cursor))
            yield body["results"]
            after = next_after(body)
            if after is None:
                return
            if after in seen:
                raise self.corrupt("the cursor goes in a circle")
            seen.add(after)
            cursor = {"after": after}

    def details(self) -> dict[str, Any]:
        """The portal itself; the generated client has no path for it."""
        found: dict[str, Any] = self._transport.GET("/account-info/v3/details")
        return found

    def owners(self, *, archived: bool, limit: int) -> Iterator[list[dict[str, Any]]]:
        """Pages of owners."""
        yield from self._pages(
            lambda cursor: self._owners.get_page(limit=limit, archived=archived, **cursor, **_RAW)
        )

    def objects(
        self,
        type: str,
        *,
        properties: list[str],
        history: list[str],
        associations: list[str],
        archived: bool,
        limit: int,
    ) -> Iterator[list[dict[str, Any]]]:
        """Pages of all records of a type."""
        asked: dict[str, Any] = {"properties": properties, "limit": limit, "archived": archived}
        asked |= {"properties_with_history": history} if history else {}
        asked |= {"associations": associations} if associations else {}
        yield from self._pages(lambda cursor: self._list.get_page(type, **asked, **cursor, **_RAW))

    def search(self, type: str, request: dict[str, Any]) -> dict[str, Any]:
        """One page of a search."""
        return self._with_results(self._search.do_search(type, request, **_RAW))

    def walk(
        self, type: str, filters: list[dict[str, str]], properties: list[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Pages of all that passes the filters, walked by id: a search ends at 10,000 results."""
        last = "0"
        while True:
            beyond = {"propertyName": "hs_object_id", "operator": "GT", "value": last}
            request = {
                "filterGroups": [{"filters": [*filters, beyond]}],
                "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
                "properties": properties,
                "limit": SEARCH_PAGE,
                "after": "0",
            }
            page = self.search(type, request)
            yield page["results"]
            if next_after(page) is None:
                return
            furthest = max((int(record["id"]) for record in page["results"]), default=0)
            if furthest <= int(last):
                raise self.corrupt("a search goes on without new records")
            last = str(furthest)

    def batch_read(
        self, type: str, ids: list[str], properties: list[str], history: list[str]
    ) -> list[dict[str, Any]]:
        """Records by id. Those that are gone are left out; a merged one comes under its new id."""
        return self.look_up(type, ids, properties, history)[0]

    def look_up(
        self,
        type: str,
        ids: list[str],
        properties: list[str],
        history: list[str] | None = None,
        *,
        id_property: str | None = None,
        archived: bool = False,
    ) -> tuple[list[dict[str, Any]], set[str]]:
        """Records by id, or by a unique property, and the ids that HubSpot says it has not."""
        request: dict[str, Any] = {
            "inputs": [{"id": id} for id in ids],
            "properties": properties,
            "propertiesWithHistory": history or [],
        }
        request |= {"idProperty": id_property} if id_property else {}
        more = {"archived": True} if archived else {}
        body = self._with_results(self._batch.read(type, request, **more, **_RAW))
        errors = [error for error in body.get("errors") or [] if isinstance(error, dict)]
        missing = {
            str(id) for error in errors for id in (error.get("context") or {}).get("ids", [])
        }
        return body["results"], missing

    def associated(self, type: str, ids: list[str], other: str) -> dict[str, list[str]]:
        """The associated records by id, the primary one first."""
        request = {"inputs": [{"id": id} for id in ids]}
        answer = self._with_results(
            self._associations.get_page(
                from_object_type=type,
                to_object_type=other,
                batch_input_public_fetch_associations_batch_request=request,
                **_RAW,
            )
        )
        return {
            str(found["from"]["id"]): [
                str(to["toObjectId"])
                for to in sorted(found["to"], key=lambda to: not _is_primary(to))
            ]
            for found in answer["results"]
        }


def generated(package: Any, transport: Transport) -> Any:
    """A generated `ApiClient` over our transport."""
    client = package.ApiClient(package.Configuration(host=""))
    client.rest_client = transport
    return client


def _is_primary(to: dict[str, Any]) -> bool:
    return any(type.get("label") == "Primary" for type in to.get("associationTypes") or [])


def next_after(body: dict[str, Any]) -> str | None:
    """Where the next page begins; the last page does not say."""
    after = ((body.get("paging") or {}).get("next") or {}).get("after")
    return None if after is None else str(after)
