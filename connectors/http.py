"""Fetching one published file over https: bounded in time, size and attempts.

A status becomes one of the three source errors here and nowhere else::

    401, 403, 404, 410, other 4xx      SourceRefused       a person has to act
    408, 425, 429, 5xx, no answer      SourceUnavailable   after the attempts are used up
    a page instead of data, too large  SourceCorrupt
"""

import datetime as dt
import ipaddress
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import requests

from contracts.errors import SourceCorrupt, SourceRefused, SourceUnavailable

TIMEOUT_SECONDS = (10, 60)
MAX_BYTES = 2 * 1024**3
MAX_REDIRECTS = 5
MAX_WAIT_SECONDS = 60.0
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True)
class _TryAgain(Exception):
    """An attempt failed in a way that may pass; `wait_seconds` where the server named it."""

    cause: str
    wait_seconds: float | None = None


def fetch(
    url: str,
    target: Path,
    *,
    attempts: int = 4,
    max_bytes: int = MAX_BYTES,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download `url` into `target`.

    Raises:
        SourceRefused, SourceUnavailable, SourceCorrupt: as in the table above.
    """
    shown = without_secrets(url)
    for attempt in range(1, attempts + 1):
        try:
            return _attempt(url, target, max_bytes)
        except _TryAgain as error:
            if attempt == attempts:
                raise SourceUnavailable(
                    f"{shown} {error.cause}, {attempts} times", "try again later"
                ) from None
            backoff = random.uniform(0.5, 1) * 2**attempt
            wait = backoff if error.wait_seconds is None else error.wait_seconds
            if wait > MAX_WAIT_SECONDS:
                raise SourceUnavailable(
                    f"{shown} asks to wait for {wait:.0f} seconds", "try again after that"
                ) from None
            sleep(wait)


def without_secrets(url: str) -> str:
    """An address as it may be shown: no user, no password, no query.

    >>> without_secrets("https://ann:pw@example.com/a.csv?token=1")
    'https://example.com/a.csv'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, _host(parts), parts.path, "", ""))


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _attempt(url: str, target: Path, max_bytes: int) -> None:
    try:
        with requests.Session() as session:
            # Without this, requests would send what it finds in ~/.netrc.
            session.auth = lambda request: request
            with _follow(session, url) as response:
                _check(response)
                _save(response, target, max_bytes)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        raise _TryAgain("did not answer") from None
    except requests.RequestException as error:
        cause = f"{without_secrets(url)} cannot be fetched ({type(error).__name__})"
        raise SourceRefused(cause, "correct the address") from None


def _follow(session: requests.Session, url: str) -> requests.Response:
    """Follow redirects one by one: never to plain http, never with credentials to another host."""
    first = urlsplit(url)
    has_credentials = first.username is not None
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        _refuse_plain_http(parts)
        if has_credentials and _host(parts) != _host(first):
            raise SourceRefused(
                f"{without_secrets(url)} is another host, and the password is not sent there",
                "give the address that the redirect leads to",
            )
        clean = urlunsplit((parts.scheme, _host(parts), parts.path, parts.query, ""))
        response = session.get(
            clean,
            auth=(first.username or "", first.password or "") if has_credentials else None,
            stream=True,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
        if response.status_code not in _REDIRECTS or "location" not in response.headers:
            return response
        response.close()
        url = urljoin(clean, response.headers["location"])
    raise SourceRefused(f"{without_secrets(url)} redirects in a circle", "correct the address")


def _refuse_plain_http(parts: SplitResult) -> None:
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise SourceRefused(
        f"{without_secrets(urlunsplit(parts))} is not https", "give an https:// address"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check(response: requests.Response) -> None:
    """Turn a status that is no success into its error, and a web page into SourceCorrupt."""
    shown, status = without_secrets(response.url), response.status_code
    if status in _TRANSIENT:
        raise _TryAgain(f"answered {status}", retry_after_seconds(response))
    if status in (401, 403):
        raise SourceRefused(
            f"{shown} refused access ({status})", "publish it or log in to share it"
        )
    if status != 200:
        raise SourceRefused(f"{shown} answered {status}", "correct the address")
    if "html" in response.headers.get("content-type", "").lower():
        raise SourceCorrupt(
            f"{shown} is a web page, not a file", "give the address of the published file itself"
        )


def retry_after_seconds(response: requests.Response) -> float | None:
    """What `Retry-After` asks for, as seconds or as a date against the server's own `Date`."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None
    if (until.tzinfo is None) != (sent.tzinfo is None):
        return None
    return max((until - sent) / dt.timedelta(seconds=1), 0.0)


def _save(response: requests.Response, target: Path, max_bytes: int) -> None:
    shown, size = without_secrets(response.url), 0
    with target.open("wb") as file:
        for chunk in response.iter_content(1 << 20):
            if size == 0 and chunk.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
                raise SourceCorrupt(
                    f"{shown} is a web page, not a file",
                    "give the address of the published file itself",
                )
            size += len(chunk)
            if size > max_bytes:
                raise SourceCorrupt(
                    f"{shown} is larger than {max_bytes} bytes", "publish it in smaller files"
                )
            file.write(chunk)
    expected = response.headers.get("content-length")
    encoded = "content-encoding" in response.headers
    if expected and expected.isdigit() and not encoded and int(expected) != size:
        raise _TryAgain("broke off")
