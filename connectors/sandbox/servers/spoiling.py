"""How each kind of fault looks on the wire.

Most are answers that ASGI can send. Where the bytes contradict the headers, or the connection is
cut, they are written to the connection itself, which `running.Wire` leaves in the scope's state.
"""

import asyncio
import gzip
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.sandbox.servers.faults import Answer, Rule

LOGIN_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Sign in</body></html>"
_JSON = b"application/json"
_UNTIL_THE_END = 1000  # bytes that `stall` announces and never sends


async def spoil(rule: Rule, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request as the rule says."""
    if rule.do in _INSTEAD:
        await deliver(_INSTEAD[rule.do](rule.how), send)
        return
    if rule.do == "stall":
        _write(_head(_answer(200, _JSON, b""), _UNTIL_THE_END), scope)
        await _client_gone(receive)
        return
    if rule.do == "delay":
        await asyncio.sleep(float(rule.how.get("seconds", 0.1)))
    answer = await answer_of(app, scope, receive)
    if rule.do in ("truncate", "reset", "wrong_length"):
        await _cut(rule, answer, scope, receive)
    elif rule.do in _CHANGED:
        await deliver(_CHANGED[rule.do](rule, answer), send)
    else:
        await deliver(answer, send)


async def answer_of(app: ASGIApp, scope: Scope, receive: Receive) -> Answer:
    """What the app answers, held back as a whole."""
    answer = Answer(500, [], b"")
    chunks: list[bytes] = []

    async def keep(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message["headers"])
        else:
            chunks.append(message.get("body", b""))

    await app(scope, receive, keep)
    answer.body = b"".join(chunks)
    return answer


async def deliver(answer: Answer, send: Send) -> None:
    """Send a whole answer, with the right length."""
    headers = _without_length(answer.headers)
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    start = {"type": "http.response.start", "status": answer.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})


async def _cut(rule: Rule, answer: Answer, scope: Scope, receive: Receive) -> None:
    length, sent = len(answer.body), answer.body
    if rule.do == "wrong_length":
        length = max(0, length + int(rule.how.get("by", 100)))
    else:
        sent = sent[: int(length * float(rule.how.get("keep", 0.5)))]
    _write(_head(answer, length) + sent, scope)
    transport = scope["state"]["transport"]
    if rule.do == "reset":
        at_once = struct.pack("ii", 1, 0)  # no lingering: closing sends a RST, not a FIN
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        transport.abort()
    else:
        transport.close()
    await _client_gone(receive)


def _write(content: bytes, scope: Scope) -> None:
    scope["state"]["transport"].write(content)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _head(answer: Answer, length: int) -> bytes:
    status = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()
    headers = [*_without_length(answer.headers), (b"content-length", str(length).encode())]
    return b"\r\n".join([status, *(name + b": " + value for name, value in headers), b"", b""])


def _without_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    drop = (b"content-length", b"transfer-encoding")
    return [(name, value) for name, value in headers if name.lower() not in drop]


def _answer(status: int, kind: bytes, body: bytes) -> Answer:
    return Answer(status, [(b"content-type", kind)], body)


def _status(how: dict[str, Any]) -> Answer:
    body = how.get("body", {"error": "this answer was ordered"})
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    answer = _answer(int(how.get("code", 503)), _JSON, content)
    given = {name.lower(): str(value) for name, value in how.get("headers", {}).items()}
    kept = [(name, value) for name, value in answer.headers if name.decode() not in given]
    answer.headers = kept + [(name.encode(), value.encode()) for name, value in given.items()]
    return answer


def _error_json(how: dict[str, Any]) -> Answer:
    return _answer(200, _JSON, orjson.dumps(how.get("body", {"error": "something went wrong"})))


def _redirect(how: dict[str, Any]) -> Answer:
    return Answer(int(how.get("code", 302)), [(b"location", str(how["to"]).encode())], b"")


_INSTEAD: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "status": _status,
    "error_json": _error_json,
    "html": lambda how: _answer(200, b"text/html; charset=utf-8", LOGIN_PAGE),
    "empty": lambda how: Answer(204, [], b""),
    "redirect": _redirect,
}


def _bad_gzip(rule: Rule, answer: Answer) -> Answer:
    encoded = any(name.lower() == b"content-encoding" for name, _ in answer.headers)
    whole = answer.body if encoded else gzip.compress(answer.body)
    headers = answer.headers if encoded else [*answer.headers, (b"content-encoding", b"gzip")]
    return Answer(answer.status, headers, whole[: len(whole) // 2])


def _empty_page(rule: Rule, answer: Answer) -> Answer:
    content = orjson.loads(answer.body)
    if isinstance(content, dict):
        content = {key: [] if isinstance(value, list) else value for key, value in content.items()}
    else:
        content = []
    return Answer(answer.status, answer.headers, orjson.dumps(content))


def _repeat_page(rule: Rule, answer: Answer) -> Answer:
    assert rule.before is not None  # nth is at least 2
    return rule.before


def _repeat_cursor(rule: Rule, answer: Answer) -> Answer:
    assert rule.before is not None
    *outer, last = str(rule.how["field"]).split(".")
    content = place = orjson.loads(answer.body)
    earlier = orjson.loads(rule.before.body)
    for key in outer:
        place, earlier = place.get(key) or {}, earlier.get(key) or {}
    place[last] = earlier.get(last)
    return Answer(answer.status, answer.headers, orjson.dumps(content))


def _rewrite(rule: Rule, answer: Answer) -> Answer:
    return Answer(answer.status, answer.headers, rule.how["rewrite"](answer.body))


_CHANGED: dict[str, Callable[[Rule, Answer], Answer]] = {
    "bad_gzip": _bad_gzip,
    "empty_page": _empty_page,
    "repeat_page": _repeat_page,
    "repeat_cursor": _repeat_cursor,
    "rewrite": _rewrite,
    "commit_then_502": lambda rule, answer: _answer(502, b"text/html", b"<h1>Bad gateway</h1>"),
}
