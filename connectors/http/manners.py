"""What is particular to one vendor's HTTP, and how long we are patient with it."""

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import requests

from connectors.http.limiter import Limit
from contracts.errors import SourceError

# Longer than this is no wait, it is a mistake: an epoch where seconds belong, for example.
_ABSURD_WAIT_SECONDS = 7 * 86400.0


@dataclass(frozen=True)
class Wait:
    """A verdict: send the same request again, after `seconds` if the vendor said so."""

    cause: str
    seconds: float | None = None


Judge = Callable[[requests.Response], SourceError | Wait | None]


def no_verdict(response: requests.Response) -> None:
    """Leave the answer to the rules for its status."""


@dataclass(frozen=True)
class Manners:
    """What is particular to one vendor's HTTP.

    `judge` is asked first about every answer, also about a 200 that holds an error object; its
    body is there to be read with `response.json()`. (The one exception is a successful download,
    whose body goes to a file.) What it returns is raised or waited for; None leaves the answer to
    the rules for its status. A body that is not JSON, or of another shape than the judge expects,
    counts as None.

    `no_data_statuses` say "nothing there", such as Amplitude's 404 for hours without events.
    """

    vendor: str
    limits: tuple[Limit, ...] = ()
    judge: Judge = no_verdict
    no_data_statuses: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Patience:
    """How long one request may take, and how large its answer may be.

    `budget_seconds` is for trying and waiting together; waiting for our own limiter does not
    count. A JSON body must arrive within `body_seconds` (twice `read_seconds` when None), a
    download within `download_seconds`. `max_body_bytes` is the size of a JSON body once unpacked.
    """

    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 6
    budget_seconds: float = 300
    longest_wait_seconds: float = 120
    body_seconds: float | None = None
    download_seconds: float = 3600
    max_body_bytes: int = 256 * 1024**2

    @property
    def whole_body_seconds(self) -> float:
        """How long a JSON body may take to arrive."""
        return 2 * self.read_seconds if self.body_seconds is None else self.body_seconds


def retry_after_seconds(response: requests.Response) -> float | None:
    """What `Retry-After` asks for, as seconds or as a date against the server's own `Date`."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return _sensible(float(value))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
        seconds = (until - _server_time(response)) / dt.timedelta(seconds=1)
        return _sensible(max(seconds, 0.0))
    except (ValueError, TypeError, OverflowError):
        return None


def reset_epoch_seconds(response: requests.Response, header: str) -> float | None:
    """Seconds until the moment that `header` names in epoch seconds, by the server's own `Date`.

    None where the header or the date is missing or makes no sense.
    """
    try:
        until = float(response.headers.get(header, ""))
        return _sensible(until - _server_time(response).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def used_up_seconds(response: requests.Response) -> float | None:
    """How long to hold back, if a `...-remaining` header says 0 and its `...-reset` says when.

    Vendors write the reset in seconds or as an epoch; `ratelimit-reset` serves where a vendor
    sends no header of the same name.
    """
    waits = []
    for name, value in response.headers.items():
        if not name.lower().endswith("-remaining") or value.strip() != "0":
            continue
        reset = f"{name[: -len('remaining')]}reset"
        if reset not in response.headers:
            reset = "ratelimit-reset"
        try:
            seconds = _sensible(float(response.headers.get(reset, "")))
        except ValueError:
            continue
        waits.append(reset_epoch_seconds(response, reset) if seconds is None else seconds)
    return max((wait for wait in waits if wait is not None), default=None)


def _server_time(response: requests.Response) -> dt.datetime:
    return parsedate_to_datetime(response.headers.get("date", ""))


def _sensible(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 <= seconds <= _ABSURD_WAIT_SECONDS else None
