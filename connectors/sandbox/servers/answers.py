"""How the sandbox's servers answer."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import JSONResponse


class Json(JSONResponse):
    """JSON, written fast: the pages of a whole company are large."""

    def render(self, content: Any) -> bytes:
        """The content as bytes."""
        return orjson.dumps(content)


class Refused(Exception):
    """A request that a vendor refuses: the status, the body and the headers of its answer.

    Vendors derive from it what says the same in their own shape.
    """

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.body, self.headers = status, body, dict(headers or {})

    def answer(self) -> Json:
        """The answer that it comes to."""
        return Json(self.body, self.status, self.headers)
