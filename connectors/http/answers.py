"""An answer is not accepted by its status alone: its body must be whole, and what was declared."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.exceptions import JSONDecodeError

from connectors.http.json_text import parsed
from contracts.errors import SourceCorrupt, SourceError, SourceUnavailable

MAX_DEPTH = 60
_CHUNK_BYTES = 1 << 16
_REPORT = "try again later; if it stays so, report it"


@dataclass(eq=False)
class TryAgain(Exception):
    """An attempt failed in a way that may pass.

    `kind` is what it becomes when it does not pass within `attempts` (None: as many as usual).
    `not_done` says that the request had no effect for certain, so that a write may go out again.
    """

    cause: str
    seconds: float | None = None
    kind: type[SourceError] = SourceUnavailable
    attempts: int | None = None
    not_done: bool = False


class Answer(requests.Response):
    """A response whose JSON is parsed once, and strictly."""

    _parsed: Any = None
    _is_parsed = False

    def json(self, **kwargs: Any) -> Any:
        """The parsed body, always the same object.

        Raises:
            requests.exceptions.JSONDecodeError: it is no JSON (NaN and Infinity are not).
        """
        if not self._is_parsed:
            try:
                self._parsed = parsed(self.content)
            except ValueError:
                # Without the body, which requests would keep inside the error.
                raise JSONDecodeError("no JSON", "", 0) from None
            self._is_parsed = True
        return self._parsed

    def fill(self, body: bytes) -> None:
        """Take `body` as the whole content."""
        self._content = body
        self._content_consumed = True


class _Wire(io.RawIOBase):
    """The bytes of a body as they arrive, which must all be there by `deadline`."""

    def __init__(self, answer: Answer, deadline: float, clock: Callable[[], float]) -> None:
        self._raw, self._deadline, self._clock = answer.raw, deadline, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._clock() > self._deadline:
            raise TryAgain("sent its answer too slowly")
        # At most what one receive from the socket gives: a server that sends a byte now and then
        # must not hold us here.
        chunk = self._raw.read1(len(buffer), decode_content=False)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def chunks(
    answer: Answer, *, seconds: float, max_bytes: int, clock: Callable[[], float]
) -> Iterator[bytes]:
    """The unpacked body, piece by piece, to its declared end and not beyond `max_bytes`.

    Raises:
        TryAgain: it broke off, is damaged, or took longer than `seconds`.
        SourceCorrupt: it is larger than `max_bytes`, or packed in a way that we did not ask for.
    """
    body: Any = io.BufferedReader(_Wire(answer, clock() + seconds, clock), _CHUNK_BYTES)
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    if encoding in ("gzip", "x-gzip"):
        # Unlike urllib3, this notices when the end is missing.
        body = gzip.GzipFile(fileobj=body)
    elif encoding not in ("", "identity"):
        raise SourceCorrupt("packs its answer in a way that was not asked for", _REPORT)
    size = 0
    with _broken_bodies():
        while chunk := body.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > max_bytes:
                raise SourceCorrupt(
                    f"sent an answer that is larger than {max_bytes} bytes",
                    "ask for less at a time",
                )
            yield chunk


@contextmanager
def _broken_bodies() -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.ReadTimeoutError:
        raise TryAgain("stopped in the middle of its answer") from None
    except urllib3.exceptions.HTTPError:
        raise TryAgain("broke off its answer") from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise TryAgain("sent a damaged answer") from None


def require_json(answer: Answer) -> None:
    """Accept only a JSON object or list that is not nested too deeply.

    Raises:
        TryAgain, which becomes SourceCorrupt: it is empty, a web page, or no JSON.
        SourceCorrupt: it is JSON, but none of ours.
    """
    if not answer.content:
        raise TryAgain("sent an empty answer", kind=SourceCorrupt)
    refuse_web_page(answer, answer.content[:64])
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and not is_json_type(kind):
        raise TryAgain("sent something else than JSON", kind=SourceCorrupt)
    try:
        value = answer.json()
    except JSONDecodeError:
        raise TryAgain("sent damaged JSON", kind=SourceCorrupt) from None
    if not isinstance(value, dict | list):
        raise SourceCorrupt("sent a single JSON value, no object and no list", _REPORT)
    _refuse_deep_nesting(value)


def is_json_type(kind: str) -> bool:
    """Whether a content type (without its parameters, in lower case) declares JSON."""
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def looks_like_a_page(answer: Answer, beginning: bytes) -> bool:
    """Whether a body that begins so is a login page or a proxy's message: not data."""
    if "text/html" in answer.headers.get("content-type", "").lower():
        return True
    return beginning.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def refuse_web_page(answer: Answer, beginning: bytes) -> None:
    """Refuse a web page, whatever its status says.

    Raises:
        TryAgain: once only; then it is SourceCorrupt.
    """
    if looks_like_a_page(answer, beginning):
        raise TryAgain("sent a web page instead of data", kind=SourceCorrupt, attempts=2)


def _refuse_deep_nesting(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise SourceCorrupt(f"sent JSON that is nested deeper than {MAX_DEPTH}", _REPORT)
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
