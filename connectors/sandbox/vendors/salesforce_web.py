"""What the endpoints of the sandbox's Salesforce have in common: bodies and refusals."""

from collections.abc import Iterable
from typing import Any

import orjson
from starlette.requests import Request

from connectors.sandbox.servers import answers


class Refused(answers.Refused):
    """A request that the API refuses: its HTTP status, error code, message and fields."""

    def __init__(self, status: int, code: str, message: str, fields: Iterable[str] = ()) -> None:
        self.code, self.message, self.fields = code, message, tuple(fields)
        error: dict[str, object] = {"errorCode": code, "message": message}
        super().__init__(status, [error | ({"fields": [*self.fields]} if self.fields else {})])


def not_found() -> Refused:
    """There is nothing of that name."""
    return Refused(404, "NOT_FOUND", "The requested resource does not exist")


async def object_sent(request: Request) -> dict[str, Any]:
    """The JSON object that was sent.

    Raises:
        Refused: it is something else.
    """
    try:
        content = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise Refused(400, "JSON_PARSER_ERROR", "the body is no JSON object")
    return content
