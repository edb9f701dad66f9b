"""Requests and answers as all parts of the sandbox's HubSpot read and write them."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.vendors.hubspot_search import Refused, invalid

VERSIONS = ("2026-03", "2026-09")
"""The dates that replace the numbers of versions."""

Handler = Callable[[Request], Awaitable[Response]]


def answering(handler: Handler) -> Handler:
    """A handler whose refusals become answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refused as refused:
            return json_answer(refused.body, refused.status, refused.headers)

    return answer


def routed(paths: list[tuple[str, str, Handler]]) -> list[Route]:
    """Routes from path, method and handler."""
    return [Route(path, answering(run), methods=[method]) for path, method, run in paths]


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON as HubSpot labels it."""
    return Response(orjson.dumps(body), status, headers, "application/json;charset=utf-8")


async def object_of(request: Request, allowed: set[str]) -> dict[str, Any]:
    """The JSON object that was sent, with no field that is unknown or null.

    Raises:
        Refused: it is something else.
    """
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise invalid("Invalid input JSON.") from None
    return checked_object(body, allowed)


def checked_object(body: Any, allowed: set[str]) -> dict[str, Any]:
    """A JSON object without unknown fields and without nulls.

    Raises:
        Refused: it is something else.
    """
    if not isinstance(body, dict) or set(body) - allowed or None in body.values():
        raise invalid("Invalid input JSON: an unknown field, or a null.")
    return body


def wants_archived(request: Request) -> bool:
    """Whether archived records are asked for, however the client writes it."""
    return request.query_params.get("archived", "").lower() == "true"


def names_of(given: list[str]) -> list[str]:
    """Lists come repeated or separated by commas."""
    return [name for part in given for name in part.split(",") if name]


def whole_number(text: str, name: str, most: int, at_least: int = 1) -> int:
    """A number of a query, within its limits.

    Raises:
        Refused: it is none, or outside.
    """
    if not text.isdigit() or not at_least <= int(text) <= most:
        raise invalid(f"{name} must be a number from {at_least} to {most}.")
    return int(text)


def with_paging(results: list[Any], after: str | None) -> dict[str, Any]:
    """The last page has no `paging` at all."""
    return {"results": results} | ({"paging": {"next": {"after": after}}} if after else {})


def batch_of(body: dict[str, Any], most: int) -> list[Any]:
    """The inputs of a batch.

    Raises:
        Refused: there are none, or too many.
    """
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not 1 <= len(inputs) <= most:
        raise invalid(f"A batch may hold 1 to {most} inputs.")
    return inputs


def ids_of(body: dict[str, Any], most: int) -> list[str]:
    """The ids of a batch that only names records.

    Raises:
        Refused: some input has none, or there are too many.
    """
    inputs = batch_of(body, most)
    if not all(isinstance(given, dict) and "id" in given for given in inputs):
        raise invalid("Invalid input JSON: id missing.")
    return [str(given["id"]) for given in inputs]
