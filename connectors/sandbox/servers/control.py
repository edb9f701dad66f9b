"""The sandbox's own endpoints below ``/_sandbox``, for whoever runs it on this machine."""

import dataclasses
import datetime as dt
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from connectors.sandbox.servers.box import Box
from contracts.errors import InputError

Endpoint = Callable[[Request], Awaitable[Response]]


def control_routes(box: Box) -> Mount:
    """Health, log, dump, clock and faults."""

    async def health(request: Request) -> Response:
        world = str(box.world.folder.resolve())
        return _json({"now": box.now.isoformat(), "world": world, "vendors": box.addresses})

    async def log(request: Request) -> Response:
        """The requests; ``?vendor=`` chooses, ``?after=`` skips up to a number."""
        vendor, after = request.query_params.get("vendor"), request.query_params.get("after", "0")
        chosen = [
            dataclasses.asdict(seen)
            for seen in list(box.log)
            if vendor in (None, seen.vendor) and seen.number > int(after)
        ]
        return _json({"requests": chosen, "defects": box.defects})

    async def dump(request: Request) -> Response:
        """All records as they are now, of the collections that were asked for so far."""
        now, only = box.now.timestamp(), request.query_params.get("vendor")
        state: dict[str, dict[str, list[Any]]] = {}
        for (vendor, name), table in box.tables().items():
            if only in (None, vendor):
                rows = [dataclasses.asdict(row) for row in table.rows(now, deleted=True)]
                state.setdefault(vendor, {})[name] = rows
        return _json(state)

    async def clock(request: Request) -> Response:
        """Move the clock: ``{"now": "2026-07-01T00:00:00Z"}`` or ``{"forward_seconds": 60}``."""
        wanted = await _object(request)
        if set(wanted) == {"now"}:
            box.move(dt.datetime.fromisoformat(str(wanted["now"])))
        elif set(wanted) == {"forward_seconds"}:
            box.move(box.now + dt.timedelta(seconds=float(wanted["forward_seconds"])))
        else:
            raise InputError("the clock needs one of now, forward_seconds", "give one of them")
        return _json({"now": box.now.isoformat()})

    async def faults(request: Request) -> Response:
        """Order a fault, as `Faults.add` takes it, or withdraw all of them."""
        if request.method == "DELETE":
            box.faults.clear()
            return _json({})
        wanted = await _object(request)
        if "rewrite" in (wanted.get("do"), *wanted):
            raise InputError("a rewrite is a function", "order it in the same process")
        try:
            box.faults.add(**wanted)
        except TypeError:
            raise InputError("a fault needs vendor and do", "see connectors/sandbox") from None
        return _json({}, 201)

    async def records(request: Request) -> Response:
        """Change a record as a person would: ``{"vendor", "table", "id", "changes"}``.

        Only collections that were asked for before are there. ``"deleted": true`` removes it.
        """
        wanted = await _object(request)
        table = box.tables().get((str(wanted.get("vendor")), str(wanted.get("table"))))
        if table is None or not isinstance(wanted.get("id"), str):
            raise InputError("there is no such collection", "ask the vendor for it first")
        now, id = box.now.timestamp(), wanted["id"]
        if wanted.get("deleted"):
            if table.get(id, now) is None:
                raise InputError("there is no such record", "look into /_sandbox/dump")
            table.remove(id, now)
            return _json({})
        row = table.get(id, now)
        table.put(id, (row.body if row else {}) | dict(wanted.get("changes", {})), now)
        return _json({}, 200 if row else 201)

    return Mount(
        "/_sandbox",
        routes=[
            Route("/health", _guarded(health)),
            Route("/log", _guarded(log)),
            Route("/dump", _guarded(dump)),
            Route("/clock", _guarded(clock), methods=["POST"]),
            Route("/records", _guarded(records), methods=["POST"]),
            Route("/faults", _guarded(faults), methods=["POST", "DELETE"]),
        ],
    )


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Only for this machine; and a mistake is one line."""

    async def guarded(request: Request) -> Response:
        if not request.client or not ipaddress.ip_address(request.client.host).is_loopback:
            return _json({"error": "only this machine may control the sandbox"}, 403)
        try:
            return await endpoint(request)
        except (InputError, ValueError, OverflowError) as error:
            return _json({"error": str(error)}, 400)

    return guarded


async def _object(request: Request) -> dict[str, Any]:
    content = orjson.loads(await request.body())
    if not isinstance(content, dict):
        raise InputError("the body is no JSON object", "send one")
    return content


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content, default=str), status, media_type="application/json")
