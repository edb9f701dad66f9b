"""Chargebee (API v2) as it presents itself: lists, single objects, and the site's configuration.

The site has today's product catalogue. A contract that goes into its next term changes by that.
Fields without a value are left out, as Chargebee does.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors import chargebee_records as records
from connectors.sandbox.vendors.billing_terms import DAY_SECONDS, Record, hashed

VENDOR = "chargebee"
SITE = "healthloop-sandbox"
PAGE_SIZE, MOST_PER_PAGE = 10, 100

_TIMES = {"after", "before", "on", "between"}
_TEXTS = {"is", "is_not", "in", "not_in"}
_FILTERS: dict[str, dict[str, set[str]]] = {
    "customer": {"id": _TEXTS, "email": _TEXTS, "created_at": _TIMES, "updated_at": _TIMES},
    "subscription": {
        "id": _TEXTS, "customer_id": _TEXTS, "status": _TEXTS, "created_at": _TIMES,
        "cancelled_at": _TIMES, "updated_at": _TIMES,
    },
    "invoice": {
        "id": _TEXTS, "customer_id": _TEXTS, "subscription_id": _TEXTS, "status": _TEXTS,
        "date": _TIMES, "paid_at": _TIMES, "updated_at": _TIMES,
    },
}  # fmt: skip
_SORTED_BY = {
    "customer": ("created_at", "updated_at"),
    "subscription": ("created_at", "updated_at"),
    "invoice": ("date", "updated_at"),
}


class _Refused(Refused):
    """An answer that is an error, in Chargebee's shape."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        body = {
            "message": message,
            "type": "invalid_request" if status == 400 else "untyped",
            "api_error_code": code,
            **({"param": param} if param else {}),
            "error_code": code,
            "error_msg": message,
            "http_status_code": status,
        }
        super().__init__(status, body)


def routes(box: Box) -> list[Route]:
    """What is served."""
    site = Site(box)
    served: dict[str, Callable[[Request], Any]] = {"configurations": site.configurations}
    for kind in _FILTERS:
        served[f"{kind}s"] = site.listed(kind)
        served[f"{kind}s/{{id}}"] = site.single(kind)
    return [
        Route(f"/api/v2/{path}", site.guarded(answer), methods=["GET"])
        for path, answer in served.items()
    ]


class Site:
    """The Chargebee site of the synthetic company."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Response]:
        """An endpoint that asks for the key first and answers errors in Chargebee's words."""

        def respond(request: Request) -> Response:
            try:
                self._authenticate(request)
                return Json(answer(request))
            except _Refused as refused:
                return refused.answer()

        return respond

    def _authenticate(self, request: Request) -> None:
        """Basic, with the key as the user and no password."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(given).decode().partition(":")
        except ValueError:
            user, password = "", ""
        if kind.lower() != "basic" or user != self._box.token(VENDOR) or password:
            raise _Refused(401, "api_authentication_failed", "This key is not valid.")

    def _rows(self, kind: str, *, deleted: bool) -> list[Row]:
        return self._table(kind).rows(self._now, deleted=deleted)

    def _table(self, kind: str) -> Table:
        def fill(table: Table) -> None:
            for id, body, at in getattr(records, f"{kind}s")(self._box.world):
                table.put(id, body, at)

        return self._box.table(VENDOR, f"{kind}s", fill)

    @property
    def _now(self) -> float:
        return self._box.now.timestamp()

    # -- endpoints ---------------------------------------------------------------------------------

    def configurations(self, request: Request) -> Record:
        """Which site it is."""
        _only(request.query_params, set())
        configuration = {"domain": SITE, "product_catalog_version": "v2"}
        return {"configurations": [configuration]}

    def single(self, kind: str) -> Callable[[Request], Record]:
        """One object by its id; a deleted one is not found."""

        def answer(request: Request) -> Record:
            row = self._table(kind).get(request.path_params["id"], self._now)
            if row is None:
                raise _Refused(404, "resource_not_found", f"There is no such {kind}.")
            return self._wrapped(kind, row)

        return answer

    def listed(self, kind: str) -> Callable[[Request], Record]:
        """A page of these objects."""

        def answer(request: Request) -> Record:
            query = request.query_params
            _only(query, _known_parameters(kind))
            size = self._box.page_size(VENDOR, _limit(query))
            rows = _sorted(kind, query, self._rows(kind, deleted=_flag(query, "include_deleted")))
            found = [row for row in rows if _fits(kind, _shown(row), query)]
            start = _start(query, found, kind)
            page = found[start : start + size]
            more = len(found) > start + size
            body: Record = {"list": [self._wrapped(kind, row) for row in page]}
            return body | ({"next_offset": _offset(query, page[-1], kind)} if more else {})

        return answer

    def _wrapped(self, kind: str, row: Row) -> Record:
        """An object under its name; a subscription brings its customer."""
        wrapped = {kind: _shown(row)}
        if kind == "subscription":
            owner = self._table("customer").get(row.body["customer_id"], self._now)
            wrapped["customer"] = _shown(owner) if owner else {"id": row.body["customer_id"]}
        return wrapped


def _shown(row: Row) -> Record:
    """An object as an answer has it."""
    present = {name: value for name, value in row.body.items() if value is not None}
    return present | {
        "object": row.body["object"],
        "deleted": row.deleted,
        "resource_version": int(row.changed * 1000),
        "updated_at": int(row.changed),
    }


# -- parameters ------------------------------------------------------------------------------------


def _known_parameters(kind: str) -> set[str]:
    filters = {f"{name}[{how}]" for name, ways in _FILTERS[kind].items() for how in ways}
    return filters | {"limit", "offset", "include_deleted", "sort_by[asc]", "sort_by[desc]"}


def _only(query: Mapping[str, str], known: set[str]) -> None:
    for name in query:
        if name not in known:
            raise _Refused(400, "param_not_supported", f"{name} is not known here.", name)


def _wrong(name: str) -> _Refused:
    return _Refused(400, "param_wrong_value", f"{name} has a wrong value.", name)


def _limit(query: Mapping[str, str]) -> int:
    limit = _whole(query.get("limit", str(PAGE_SIZE)), "limit")
    if not 1 <= limit <= MOST_PER_PAGE:
        raise _wrong("limit")
    return limit


def _whole(text: Any, name: str) -> int:
    if not str(text).isdigit():
        raise _wrong(name)
    return int(text)


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise _wrong(name)
    return value == "true"


def _sorted(kind: str, query: Mapping[str, str], rows: list[Row]) -> list[Row]:
    """In the asked order; without one by creation, the newest first."""
    given = [
        (how, query[f"sort_by[{how}]"]) for how in ("asc", "desc") if f"sort_by[{how}]" in query
    ]
    how, name = given[0] if given else ("desc", _SORTED_BY[kind][0])
    if len(given) > 1 or name not in _SORTED_BY[kind]:
        raise _wrong("sort_by")

    def key(row: Row) -> tuple[int, str]:
        return int(row.changed if name == "updated_at" else row.body[name]), row.id

    return sorted(rows, key=key, reverse=how == "desc")


def _fits(kind: str, body: Record, query: Mapping[str, str]) -> bool:
    """Whether an object passes all filters; times are compared without their own second."""
    for name, ways in _FILTERS[kind].items():
        for how in ways & {
            part[len(name) + 1 : -1] for part in query if part.startswith(f"{name}[")
        }:
            parameter = f"{name}[{how}]"
            if not _passes(body.get(name), how, query[parameter], parameter):
                return False
    return True


def _passes(value: Any, how: str, asked: str, parameter: str) -> bool:
    if how in _TEXTS:
        try:
            wanted = [asked] if how.startswith("is") else json.loads(asked.replace("'", '"'))
        except ValueError:
            raise _wrong(parameter) from None
        return (value in wanted) != ("not" in how)
    if how == "between":
        bounds = [_whole(bound.strip(" '\""), parameter) for bound in asked.strip("[]").split(",")]
        return value is not None and bounds[0] <= value <= bounds[-1]
    moment = _whole(asked, parameter)
    if value is None:
        return False
    if how == "on":
        return bool(value // DAY_SECONDS == moment // DAY_SECONDS)
    return bool(value > moment if how == "after" else value < moment)


def _offset(query: Mapping[str, str], last: Row, kind: str) -> str:
    """Where the next page begins; it goes with these filters and this order only."""
    return json.dumps([str(int(last.changed * 1000)), last.id, _question(query, kind)])


def _question(query: Mapping[str, str], kind: str) -> str:
    asked = sorted(f"{k}={v}" for k, v in query.items() if k not in ("offset", "limit"))
    return hashed(kind, *asked)[:12]


def _start(query: Mapping[str, str], rows: list[Row], kind: str) -> int:
    """The place behind the object that an offset names, or behind where it stood."""
    if "offset" not in query:
        return 0
    try:
        changed, last, question = json.loads(query["offset"])
        moment = int(changed) / 1000
    except (ValueError, TypeError):
        raise _wrong("offset") from None
    if question != _question(query, kind):
        raise _wrong("offset")
    for place, row in enumerate(rows):
        if row.id == last and int(row.changed * 1000) == int(changed):
            return place + 1
    # It has changed since; by update, what comes after its former place is still to come.
    return next((place for place, row in enumerate(rows) if row.changed > moment), len(rows))
