"""What a failed attempt means.

::

    401, 403, 407               SourceRefused      a person has to act
    408, 425, 429, 5xx          tried again; then SourceUnavailable, and SourceExhausted after 429
    no, slow or broken answer   tried again; then SourceUnavailable
    damaged or empty JSON       tried again; then SourceCorrupt
    a web page                  tried again once; then SourceCorrupt
    any other status            SourceRejected

A client that writes sends nothing but a GET again unless it certainly had no effect (429, no
connection); what else would be tried again is then an OutcomeUnknown.
"""

import ssl
from typing import Any

import requests
import urllib3

from connectors.http.answers import Answer, TryAgain
from connectors.http.manners import retry_after_seconds, used_up_seconds
from contracts.errors import (
    OutcomeUnknown,
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)


def is_success(answer: Answer) -> bool:
    """Whether the status promises data; unlike `answer.ok`, which takes a 304 for success."""
    return 200 <= answer.status_code < 300


def by_status(answer: Answer) -> SourceError:
    """What an answer without data means.

    Raises:
        TryAgain: it may pass.
    """
    status = answer.status_code
    if status == 429:
        seconds = retry_after_seconds(answer) or used_up_seconds(answer)
        raise TryAgain("answered 429", seconds, SourceExhausted, not_done=True)
    if status in (408, 425) or status >= 500:
        raise TryAgain(f"answered {status}", retry_after_seconds(answer))
    if status in (401, 407):
        return SourceRefused(f"refused the credentials ({status})", "renew the credentials")
    if status == 403:
        return SourceRefused(
            "refused access (403)", "give the credentials the scopes that docs/sources.md names"
        )
    return SourceRejected(
        f"answered {status}", "check the settings of this source, or update Healthloop"
    )


def not_prepared(error: requests.RequestException) -> SourceError:
    """What it means that a request could not be built, for want of a token or otherwise."""
    status = error.response.status_code if error.response is not None else 0
    if 400 <= status < 500 and status not in (408, 425, 429):
        cause = f"refused the credentials when a token was asked for ({status})"
        return SourceRefused(cause, "renew the credentials")
    if status or isinstance(error, requests.ConnectionError | requests.Timeout):
        return SourceUnavailable("gave no token", "try again later")
    kind = type(error).__name__
    return SourceRejected(f"cannot be asked ({kind})", "check the address of this source")


def not_sent(error: requests.RequestException) -> Exception:
    """What it means that no answer came at all."""
    reasons = _reasons(error)
    if any(isinstance(reason, ssl.SSLCertVerificationError) for reason in reasons):
        return SourceRefused(
            "shows a certificate that is not trusted",
            "check the address; behind an inspecting proxy, trust its certificate",
        )
    if any(isinstance(reason, urllib3.exceptions.NameResolutionError) for reason in reasons):
        return TryAgain("has a host name that cannot be resolved", not_done=True)
    if any(isinstance(reason, ConnectionRefusedError) for reason in reasons):
        return TryAgain("refused the connection", not_done=True)
    if isinstance(error, requests.exceptions.ProxyError):
        return TryAgain("cannot be reached through the proxy")
    if isinstance(error, requests.ConnectTimeout):
        return TryAgain("did not answer in time", not_done=True)
    if isinstance(error, requests.Timeout):
        return TryAgain("did not answer in time")
    if isinstance(error, requests.ConnectionError):
        return TryAgain("broke off the connection")
    kind = type(error).__name__
    return SourceRejected(f"cannot be asked ({kind})", "check the address of this source")


def _reasons(error: BaseException) -> list[BaseException]:
    """The error and everything it was made of."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        link = waiting.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return found


def given_up(failed: TryAgain, attempt: int, pause: float | None = None) -> SourceError:
    """What a failure becomes that did not pass; `pause` is what was too long to wait for."""
    times = f"in all {attempt} attempts" if attempt > 1 else "at the first attempt"
    cause = f"{failed.cause} {times}"
    if failed.kind is SourceExhausted:
        return exhausted(cause, failed.seconds or pause)
    return failed.kind(cause, "try again later")


def unknown(failed: TryAgain) -> OutcomeUnknown:
    """What a failure means that came after a write was sent."""
    return OutcomeUnknown(f"{failed.cause} to a write", "the next run reads back what became of it")


def exhausted(cause: str, seconds: float | None) -> SourceExhausted:
    """A limit that is used up for so many seconds, if it is known how many."""
    if seconds is None:
        return SourceExhausted(cause, "try again later")
    return SourceExhausted(
        cause, f"try again after {seconds:.0f} seconds", resume_after_seconds=seconds
    )
