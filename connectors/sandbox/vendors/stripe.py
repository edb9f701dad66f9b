"""Stripe as its API presents it: lists, single objects, and the events of the last 30 days.

What changes in a table becomes events by itself. Events are shown in the account's own version,
which is an older one, whatever version a request names. Objects cannot be expanded here.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors import stripe_records as records
from connectors.sandbox.vendors.billing_terms import hashed

VENDOR = "stripe"
ACCOUNT_ID = "acct_1SandboxHealthloop"
ACCOUNT_VERSION = "2024-06-20"
PAGE_SIZE, MOST_PER_PAGE = 10, 100
MOST_TYPES = 20
EVENT_SECONDS = 30 * 86_400
NAMED_SINCE = "2024-09-30"
"""From this version on, a version has a name behind its date."""

_PAGING = {"limit", "starting_after", "ending_before"}
_STATUSES = {
    "active", "all", "canceled", "ended", "incomplete", "incomplete_expired", "past_due",
    "paused", "trialing", "unpaid",
}  # fmt: skip
_ENDED = ("canceled", "incomplete_expired")
_INVOICE_EVENTS = {"paid": "paid", "void": "voided", "uncollectible": "marked_uncollectible"}

Body = dict[str, Any]


class _Refused(Refused):
    """An answer that is an error, in Stripe's shape."""

    def __init__(self, status: int, message: str, **more: str) -> None:
        error = {"type": "invalid_request_error", "message": message, **more}
        super().__init__(status, {"error": error})


@dataclass(frozen=True)
class Asked:
    """A request: its parameters, and the version in which it is answered."""

    params: Mapping[str, Any]
    version: str
    id: str


def routes(box: Box) -> list[Route]:
    """What is served."""
    billing = Billing(box)
    served: dict[str, Callable[[Asked], Any]] = {
        "account": billing.account,
        "customers": billing.customers,
        "customers/{id}": billing.customer,
        "subscriptions": billing.subscriptions,
        "subscriptions/{id}": lambda asked: billing.single("subscriptions", asked),
        "subscription_items": billing.items,
        "invoices": billing.invoices,
        "invoices/{id}": lambda asked: billing.single("invoices", asked),
        "events": billing.events,
        "events/{id}": billing.event,
    }
    return [
        Route(f"/v1/{path}", billing.guarded(answer), methods=["GET"])
        for path, answer in served.items()
    ]


class Billing:
    """The Stripe account of the synthetic company."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def guarded(self, answer: Callable[[Asked], Any]) -> Callable[[Request], Response]:
        """An endpoint that checks key and version first and answers errors in Stripe's words."""

        def respond(request: Request) -> Response:
            headers = {"request-id": f"req_{len(self._box.log):014d}"}
            try:
                self._authenticate(request)
                version = _version(request)
                headers["stripe-version"] = version
                asked = Asked(
                    _parameters(request.query_params.multi_items()),
                    version,
                    request.path_params.get("id", ""),
                )
                return Json(answer(asked), headers=headers)
            except _Refused as refused:
                return Json(refused.body, refused.status, headers)

        return respond

    def _authenticate(self, request: Request) -> None:
        """Bearer, or Basic with the key as the user's name."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[0]
            except ValueError:
                given = ""
        if not given:
            raise _Refused(401, "No API key was given.")
        if given != self._box.token(VENDOR):
            raise _Refused(401, f"This API key is not valid: {given[:3]}****")

    # -- collections -------------------------------------------------------------------------------

    def _table(self, name: str) -> Table:
        def fill(table: Table) -> None:
            for id, body, at in getattr(records, name)(self._box.world):
                table.put(id, body, at)

        return self._box.table(VENDOR, name, fill)

    def _bodies(self, name: str) -> list[Body]:
        """All objects of a kind, newest first."""
        return self._table(name).derived(self._now, "newest first", _newest_first)

    @property
    def _now(self) -> float:
        return self._box.now.timestamp()

    def _list(self, path: str, kind: str, bodies: Sequence[Body], asked: Asked) -> Body:
        """One page of these objects."""
        size = _limit(asked.params)
        page, has_more = _page(kind, bodies, asked.params, self._box.page_size(VENDOR, size))
        data = [records.shown(body, asked.version, self._now) for body in page]
        return {"object": "list", "url": f"/v1/{path}", "has_more": has_more, "data": data}

    # -- endpoints ---------------------------------------------------------------------------------

    def account(self, asked: Asked) -> Body:
        """Whose key it is."""
        _only(asked.params, set())
        return {
            "id": ACCOUNT_ID, "object": "account", "business_type": "company", "country": "DE",
            "charges_enabled": True, "default_currency": "eur", "details_submitted": True,
            "email": "billing@example.com", "metadata": {}, "payouts_enabled": True,
            "type": "standard",
        }  # fmt: skip

    def customers(self, asked: Asked) -> Body:
        """The customers that are not deleted."""
        _only(asked.params, _PAGING | {"created", "email"})
        bodies = [b for b in self._bodies("customers") if _within(b, asked.params, "created")]
        if email := asked.params.get("email"):
            bodies = [body for body in bodies if body["email"] == email]
        return self._list("customers", "customer", bodies, asked)

    def customer(self, asked: Asked) -> Body:
        """One customer, or that it was deleted."""
        _only(asked.params, set())
        for row in self._table("customers").rows(self._now, deleted=True):
            if row.id == asked.id and row.deleted:
                return {"id": row.id, "object": "customer", "deleted": True}
        return self.single("customers", asked)

    def subscriptions(self, asked: Asked) -> Body:
        """The subscriptions; without a status those that have not ended."""
        _only(asked.params, _PAGING | {"created", "customer", "status"})
        status = asked.params.get("status")
        if status is not None and status not in _STATUSES:
            raise _Refused(400, "Unknown status.", param="status")
        bodies = [
            body
            for body in self._bodies("subscriptions")
            if _within(body, asked.params, "created")
            and _has_status(body["status"], status)
            and asked.params.get("customer") in (None, body["customer"])
        ]
        return self._list("subscriptions", "subscription", bodies, asked)

    def items(self, asked: Asked) -> Body:
        """All items of one subscription."""
        _only(asked.params, _PAGING | {"subscription"})
        if "subscription" not in asked.params:
            raise _Refused(
                400, "A subscription is required.", param="subscription", code="parameter_missing"
            )
        found = self._found("subscriptions", asked.params["subscription"])
        every = records.in_period(found, self._now)["items"]["data"]
        return self._list("subscription_items", "subscription_item", every, asked)

    def invoices(self, asked: Asked) -> Body:
        """The invoices, of one customer or in one status if asked."""
        _only(asked.params, _PAGING | {"created", "due_date", "customer", "status"})
        bodies = [
            body
            for body in self._bodies("invoices")
            if _within(body, asked.params, "created")
            and _within(body, asked.params, "due_date")
            and asked.params.get("status") in (None, body["status"])
            and asked.params.get("customer") in (None, body["customer"])
        ]
        return self._list("invoices", "invoice", bodies, asked)

    def single(self, name: str, asked: Asked) -> Body:
        """One object by its id."""
        _only(asked.params, set())
        return records.shown(self._found(name, asked.id), asked.version, self._now)

    def _found(self, name: str, id: str) -> Body:
        row = self._table(name).get(id, self._now)
        if row is None:
            raise _missing(name.removesuffix("s"), id, "id")
        return row.body

    # -- events ------------------------------------------------------------------------------------

    def events(self, asked: Asked) -> Body:
        """What happened in the last 30 days, newest first."""
        _only(asked.params, _PAGING | {"created", "type", "types"})
        wanted = _wanted(asked.params)
        events = [
            event
            for event in self._events()
            if _within(event, asked.params, "created") and wanted(event["type"])
        ]
        return self._list("events", "event", events, asked)

    def event(self, asked: Asked) -> Body:
        """One event."""
        _only(asked.params, set())
        for event in self._events():
            if event["id"] == asked.id:
                return event
        raise _missing("event", asked.id, "id")

    def _events(self) -> list[Body]:
        since = self._now - EVENT_SECONDS
        events: list[Body] = []
        for name in ("customers", "subscriptions", "invoices"):
            before: dict[str, Row] = {}
            for row in self._table(name).changes(self._now):
                if row.changed >= since:
                    events += _told(name, before.get(row.id), row)
                before[row.id] = row
        events.sort(key=lambda event: event["created"])
        return events[::-1]


def _newest_first(rows: list[Row]) -> list[Body]:
    bodies = [row.body for row in rows if not row.deleted]
    return sorted(bodies, key=lambda body: (body["created"], body["id"]), reverse=True)


def _told(name: str, before: Row | None, row: Row) -> Iterator[Body]:
    """The events of one change, with the state after it and the values that it replaced."""
    state = records.shown(row.body, ACCOUNT_VERSION, row.changed)
    data: Body = {"object": state}
    if before is not None and not row.deleted:
        old = records.shown(before.body, ACCOUNT_VERSION, row.changed)
        data["previous_attributes"] = {k: v for k, v in old.items() if state.get(k) != v}
    for kind in _kinds(name, before, row):
        yield {
            "id": f"evt_{hashed(kind, row.id, str(row.changed))[:24]}",
            "object": "event",
            "api_version": ACCOUNT_VERSION,
            "created": int(row.changed),
            "data": data,
            "livemode": True,
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }


def _kinds(name: str, before: Row | None, row: Row) -> Iterator[str]:
    """What a change is called. A subscription that was cancelled is 'deleted'."""
    prefix = {"customers": "customer", "invoices": "invoice"}.get(name, "customer.subscription")
    status = row.body.get("status")
    is_new = before is None or before.deleted
    if row.deleted:
        yield f"{prefix}.deleted"
        return
    if name == "subscriptions" and not is_new and status == "canceled":
        yield f"{prefix}.deleted"
        return
    yield f"{prefix}.{'created' if is_new else 'updated'}"
    if name == "invoices":
        if is_new and status == "open":
            yield "invoice.finalized"
        elif before and before.body["status"] != status and status in _INVOICE_EVENTS:
            yield f"invoice.{_INVOICE_EVENTS[status]}"


# -- parameters ------------------------------------------------------------------------------------


def _version(request: Request) -> str:
    """The version that a request names; 2024-06-20 and 2025-03-31.basil are such."""
    version = request.headers.get("stripe-version", ACCOUNT_VERSION)
    match = re.fullmatch(r"(20\d\d-[01]\d-[0-3]\d)(\.[a-z]+)?", version)
    if not match or (match[1] >= NAMED_SINCE) != bool(match[2]):
        raise _Refused(400, "There is no such API version.")
    return version


def _parameters(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Parameters by name; ``created[gte]`` is an object, ``types[]`` and ``types[0]`` are lists."""
    params: dict[str, Any] = {}
    for name, value in pairs:
        base, _, inner = name.partition("[")
        inner = inner.removesuffix("]")
        if not _ and base not in params:
            params[base] = value
        elif _ and (not inner or inner.isdigit()) and isinstance(params.setdefault(base, []), list):
            params[base].append(value)
        elif inner and isinstance(params.setdefault(base, {}), dict):
            params[base][inner] = value
        else:
            raise _Refused(400, "A parameter is given in two ways.", param=base)
    return params


def _only(params: Mapping[str, Any], known: set[str]) -> None:
    for name in params:
        if name not in known:
            raise _Refused(400, f"Unknown parameter: {name}", code="parameter_unknown", param=name)


def _limit(params: Mapping[str, Any]) -> int:
    limit = _whole(params.get("limit", str(PAGE_SIZE)), "limit")
    if not 1 <= limit <= MOST_PER_PAGE:
        raise _Refused(400, "The limit has to be from 1 to 100.", param="limit")
    return limit


def _whole(text: Any, name: str) -> int:
    if not isinstance(text, str) or not re.fullmatch(r"\d+", text):
        raise _Refused(
            400, "This has to be a whole number.", param=name, code="parameter_invalid_integer"
        )
    return int(text)


def _page(
    kind: str, bodies: Sequence[Body], params: Mapping[str, Any], size: int
) -> tuple[Sequence[Body], bool]:
    """So many objects after one, or before one, and whether there are more on that side."""
    if "starting_after" in params and "ending_before" in params:
        raise _Refused(400, "Only one of starting_after and ending_before may be given.")
    places = {body["id"]: place for place, body in enumerate(bodies)}
    for name in ("starting_after", "ending_before"):
        if name in params and params[name] not in places:
            raise _missing(kind, params[name], name)
    if "ending_before" in params:
        end = places[params["ending_before"]]
        start = max(end - size, 0)
        return bodies[start:end], start > 0
    start = places[params["starting_after"]] + 1 if "starting_after" in params else 0
    return bodies[start : start + size], len(bodies) > start + size


def _within(body: Body, params: Mapping[str, Any], name: str) -> bool:
    """Whether a time lies in the asked range, or is the asked second."""
    asked, value = params.get(name), body.get(name)
    if asked is None:
        return True
    if isinstance(asked, str):
        return bool(value == _whole(asked, name))
    checks = {
        "gt": lambda a: value > a, "gte": lambda a: value >= a,
        "lt": lambda a: value < a, "lte": lambda a: value <= a,
    }  # fmt: skip
    if not isinstance(asked, dict) or not set(asked) <= set(checks):
        raise _Refused(400, "This is no range.", param=name)
    return value is not None and all(checks[how](_whole(a, name)) for how, a in asked.items())


def _has_status(status: str, asked: str | None) -> bool:
    if asked in (None, "all"):
        return asked == "all" or status != "canceled"
    return status in _ENDED if asked == "ended" else status == asked


def _wanted(params: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether an event's type is asked for; `type` may end in ``*``."""
    if "type" in params and "types" in params:
        raise _Refused(400, "Only one of type and types may be given.")
    types = params.get("types", [])
    if not isinstance(types, list) or len(types) > MOST_TYPES:
        raise _Refused(400, "There may be 20 types at most.", param="types")
    pattern = re.escape(params.get("type", "*")).replace(r"\*", ".*")
    return lambda kind: kind in types if types else re.fullmatch(pattern, kind) is not None


def _missing(kind: str, id: str, param: str) -> _Refused:
    """404 where the address names it, 400 where a parameter does."""
    status = 404 if param == "id" else 400
    return _Refused(status, f"No such {kind}: '{id}'", param=param, code="resource_missing")
