"""Fetching one published file over https: bounded in time, size and attempts.

Unlike a vendor's API, a published file may lie on another host than its address says (shared
sheets do), so redirects to other hosts are followed, though never with a password::

    401, 403, 404, 410, other 4xx      SourceRefused       a person has to act
    408, 425, 429, 5xx, no answer      SourceUnavailable   after the attempts are used up
    a page instead of data, too large  SourceCorrupt
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from connectors.http.adapter import Adapter
from connectors.http.addresses import host_and_port, refuse_plain_http, without_secrets
from connectors.http.answers import Answer, TryAgain, chunks, looks_like_a_page
from connectors.http.manners import retry_after_seconds
from connectors.http.session import MAX_REDIRECTS, REDIRECTS
from contracts.errors import SourceCorrupt, SourceRefused, SourceUnavailable

TIMEOUT_SECONDS = (10, 60)
BODY_SECONDS = 3600
MAX_BYTES = 2 * 1024**3
MAX_WAIT_SECONDS = 60.0


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
        except TryAgain as error:
            if attempt == attempts:
                raise SourceUnavailable(
                    f"{shown} {error.cause}, {attempts} times", "try again later"
                ) from None
            backoff = random.uniform(0.5, 1) * 2**attempt
            wait = backoff if error.seconds is None else error.seconds
            if wait > MAX_WAIT_SECONDS:
                raise SourceUnavailable(
                    f"{shown} asks to wait for {wait:.0f} seconds", "try again after that"
                ) from None
            sleep(wait)


def _attempt(url: str, target: Path, max_bytes: int) -> None:
    try:
        with requests.Session() as session:
            # Without these, requests would send what it finds in ~/.netrc.
            session.auth = lambda request: request
            session.headers["Accept-Encoding"] = "gzip"
            session.mount("https://", Adapter())
            session.mount("http://", Adapter())
            with _follow(session, url) as answer:
                _check(answer)
                _save(answer, target, max_bytes)
    except (requests.ConnectionError, requests.Timeout):
        raise TryAgain("did not answer") from None
    except requests.RequestException as error:
        cause = f"{without_secrets(url)} cannot be fetched ({type(error).__name__})"
        raise SourceRefused(cause, "correct the address") from None


def _follow(session: requests.Session, url: str) -> Answer:
    """Follow redirects one by one: never to plain http, never with credentials to another host."""
    first = urlsplit(url)
    has_credentials = first.username is not None
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        refuse_plain_http(url)
        if has_credentials and host_and_port(parts) != host_and_port(first):
            raise SourceRefused(
                f"{without_secrets(url)} is another host, and the password is not sent there",
                "give the address that the redirect leads to",
            )
        clean = urlunsplit((parts.scheme, host_and_port(parts), parts.path, parts.query, ""))
        answer = session.get(
            clean,
            auth=(first.username or "", first.password or "") if has_credentials else None,
            stream=True,
            timeout=TIMEOUT_SECONDS,
            allow_redirects=False,
        )
        assert isinstance(answer, Answer)
        if answer.status_code not in REDIRECTS or "location" not in answer.headers:
            return answer
        answer.close()
        url = urljoin(clean, answer.headers["location"])
    raise SourceRefused(f"{without_secrets(url)} redirects in a circle", "correct the address")


def _check(answer: Answer) -> None:
    """Turn a status that is no success into its error."""
    shown, status = without_secrets(answer.url), answer.status_code
    if status in (408, 425, 429) or status >= 500:
        raise TryAgain(f"answered {status}", retry_after_seconds(answer))
    if status in (401, 403):
        raise SourceRefused(
            f"{shown} refused access ({status})", "publish it or log in to share it"
        )
    if status != 200:
        raise SourceRefused(f"{shown} answered {status}", "correct the address")


def _save(answer: Answer, target: Path, max_bytes: int) -> None:
    pieces = chunks(answer, seconds=BODY_SECONDS, max_bytes=max_bytes, clock=time.monotonic)
    try:
        beginning = next(pieces, b"")
        if looks_like_a_page(answer, beginning):
            raise SourceCorrupt(
                "is a web page, not a file", "give the address of the published file itself"
            )
        with target.open("wb") as file:
            file.write(beginning)
            file.writelines(pieces)
    except SourceCorrupt as error:
        raise error.told(without_secrets(answer.url)) from None
