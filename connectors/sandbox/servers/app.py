"""The servers as ASGI apps: the vendors' routes behind a gate that logs and spoils answers."""

import re
import traceback
from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote_plus

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.sandbox.servers.box import Box, Request
from connectors.sandbox.servers.control import control_routes
from connectors.sandbox.servers.spoiling import answer_of, deliver, spoil
from connectors.sandbox.vendors import routes_of

TLS_VENDORS = ("salesforce",)
"""Whose clients insist on https at the root of a host."""

MASK = "***"
_SECRET_NAME = re.compile(r"token|key|secret|password|auth|signature", re.I)
_EMAIL = re.compile(r"[^\s'\"=<>]+@[^\s'\"<>]+")


def plain_app(box: Box, vendors: Sequence[str]) -> ASGIApp:
    """All vendors of the plain port, each below its name, and the sandbox's own controls."""
    routes: list[BaseRoute] = [control_routes(box)]
    routes += [Mount(f"/{name}", routes=routes_of(name)(box)) for name in vendors]
    return Guard(Gate(_starlette(routes, box), box), box)


def tls_app(box: Box, vendor: str) -> ASGIApp:
    """One vendor at the root of the TLS port."""
    return Guard(Gate(_starlette(routes_of(vendor)(box), box), box, vendor), box)


def _starlette(routes: Sequence[BaseRoute], box: Box) -> ASGIApp:
    return Starlette(routes=routes, middleware=[Middleware(Guard, box=box)])


class Guard:
    """Notes stack traces of what falls over below, before the client sees that it did."""

    def __init__(self, app: ASGIApp, box: Box) -> None:
        self._app = app
        self._box = box

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; an error becomes a 500, or a cut connection once the answer has begun."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # who hangs up while asking wants no answer
        except Exception:
            self._box.defects.append(traceback.format_exc())
            if not started:
                await Response("The sandbox has a defect.", 500)(scope, receive, send)


class Gate:
    """Logs each request, lets the vendor's server answer, and spoils answers as ordered."""

    def __init__(self, app: ASGIApp, box: Box, vendor: str | None = None) -> None:
        self._app = app
        self._box = box
        self._vendor = vendor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        vendor, path = self._vendor, str(scope["path"])
        if vendor is None:
            vendor, _, rest = path.removeprefix("/").partition("/")
            path = f"/{rest}"
        if vendor == "_sandbox":
            await self._app(scope, receive, send)
            return
        asked = unquote_plus(scope["query_string"].decode("latin-1"))
        if self._box.faults.reads_bodies_of(vendor):
            body, receive = await _peeked(receive)
            asked = f"{asked}\n{body.decode('utf-8', 'replace')}"
        request = self._box.entered(vendor, scope["method"], path, _masked(self._box, scope))
        rules = self._box.faults.matching(vendor, path, asked)
        due = next((rule for rule in rules if rule.is_due), None)
        request.fault = due.do if due else None
        send = _counting(request, send)
        if due:
            await spoil(due, self._app, scope, receive, send)
        elif keepers := [rule for rule in rules if rule.keeps_answers]:
            answer = await answer_of(self._app, scope, receive)
            for rule in keepers:
                rule.before = answer
            await deliver(answer, send)
        else:
            await self._app(scope, receive, send)


def _counting(request: Request, send: Send) -> Send:
    """Note status and size before they go out, so that a client who has them finds them logged."""

    async def counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            request.status = message["status"]
        request.bytes += len(message.get("body", b""))
        await send(message)

    return counted


async def _peeked(receive: Receive) -> tuple[bytes, Receive]:
    """The body of a request, and a way to receive it once more."""
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(chunks)
    again: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return again.pop() if again else await receive()

    return body, replayed


def _masked(box: Box, scope: Scope) -> dict[str, str]:
    """The query without secrets, whether by name or by value, and without e-mail addresses."""
    secrets = {box.token(vendor) for vendor in box.addresses}
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {
        name: MASK
        if _SECRET_NAME.search(name) or any(secret in value for secret in secrets)
        else _EMAIL.sub(MASK, value)
        for name, value in query
    }
