"""The session that every request goes through: it tries, waits, follows and checks."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.hooks import dispatch_hook
from requests.utils import get_environ_proxies

from connectors.http.adapter import Adapter
from connectors.http.addresses import Origin, is_loopback, origin, refuse_plain_http
from connectors.http.answers import (
    Answer,
    TryAgain,
    chunks,
    is_json_type,
    refuse_web_page,
    require_json,
)
from connectors.http.limiter import Limiter, LimitReached
from connectors.http.manners import Manners, Patience, Wait, used_up_seconds
from connectors.http.verdicts import (
    by_status,
    exhausted,
    given_up,
    is_success,
    not_prepared,
    not_sent,
    unknown,
)
from contracts.errors import (
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BACKOFF_SECONDS = 30.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class Setup:
    """What the sessions of all streams of a vendor share.

    `home` is where the credentials may be sent; None when the session has none of its own. With
    `sends_once` nothing but a GET goes out again unless it certainly had no effect.
    """

    manners: Manners
    patience: Patience
    limiter: Limiter
    auth: requests.auth.AuthBase | None
    home: Origin | None
    verify: bool | str
    raise_rejected: bool
    sends_once: bool
    sleep: Callable[[float], None]
    clock: Callable[[], float]


class Session(requests.Session):
    """A session for one thread that gives checked answers, or raises a `SourceError`.

    Libraries can send through it as through any other. `page` counts what was asked for.
    """

    def __init__(self, setup: Setup, stream: str | None = None) -> None:
        super().__init__()
        self.setup = setup
        self.stream_name = stream
        self.page = 0
        self._deadline = 0.0
        self.auth = setup.auth
        self.verify = setup.verify
        # Neither ~/.netrc nor REQUESTS_CA_BUNDLE: what is sent and trusted is configured.
        self.trust_env = False
        self.headers.update({"Accept-Encoding": "gzip", "User-Agent": "healthloop"})
        self.mount("https://", Adapter())
        self.mount("http://", Adapter())

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request; the authentication may ask for a token of its own here.

        Raises:
            SourceError: it got no token, or the address or the body cannot be sent.
        """
        try:
            return super().prepare_request(request)
        except requests.RequestException as error:
            raise self.named(not_prepared(error)) from None

    def send(self, request: requests.PreparedRequest, **options: Any) -> Answer:
        """Send a request and read its answer; with ``stream=True`` leave a good one unread.

        Raises:
            SourceError: as in the table of `connectors.http.verdicts`.
        """
        if options.pop("stream", False):
            answer = self.exchange(request, lambda answer: answer, streamed=True, **options)
        else:
            answer = self.exchange(request, self._checked, **options)
        dispatched: Answer = dispatch_hook("response", request.hooks, answer, **options)
        return dispatched

    def exchange(
        self,
        request: requests.PreparedRequest,
        receive: Callable[[Answer], _T],
        *,
        streamed: bool = False,
        **options: Any,
    ) -> _T:
        """Send a request until `receive` has taken its answer, within our patience.

        With `streamed`, `receive` gets a good answer unread.

        Raises:
            SourceError: as in the table of `connectors.http.verdicts`.
        """
        self.page += 1
        try:
            return self._persist(request, receive, streamed, options)
        except SourceError as error:
            raise self.named(error) from None

    def named(self, error: SourceError) -> SourceError:
        """The error with vendor, stream and page, in its cause and as attributes."""
        vendor = self.setup.manners.vendor
        where = f"{vendor} {self.stream_name}, page {self.page}" if self.stream_name else vendor
        error = error.told(where)
        error.vendor, error.stream, error.page = vendor, self.stream_name, self.page
        return error

    def _persist(
        self,
        request: requests.PreparedRequest,
        receive: Callable[[Answer], _T],
        streamed: bool,
        options: dict[str, Any],
    ) -> _T:
        patience = self.setup.patience
        self._deadline = self.setup.clock() + patience.budget_seconds
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._attempt(request, receive, streamed, options)
            except TryAgain as failed:
                if self.setup.sends_once and request.method != "GET" and not failed.not_done:
                    raise unknown(failed) from None
                if attempt >= min(patience.attempts, failed.attempts or patience.attempts):
                    raise given_up(failed, attempt) from None
                pause = self._pause(failed, attempt)
                if self.setup.clock() + pause > self._deadline:
                    raise given_up(failed, attempt, pause) from None
                if failed.kind is SourceExhausted:
                    self.setup.limiter.hold(pause)
                self.setup.sleep(pause)

    def _pause(self, failed: TryAgain, attempt: int) -> float:
        """Seconds until the next attempt: as told, or at random up to a growing bound.

        Raises:
            SourceExhausted: we are told to wait longer than we are ready to.
        """
        if failed.seconds is None or failed.seconds <= 0:
            return random.uniform(0, min(2.0**attempt, _BACKOFF_SECONDS))
        if failed.seconds > self.setup.patience.longest_wait_seconds:
            raise exhausted(failed.cause, failed.seconds)
        return failed.seconds

    def _attempt(
        self,
        request: requests.PreparedRequest,
        receive: Callable[[Answer], _T],
        streamed: bool,
        options: dict[str, Any],
    ) -> _T:
        answer = self._follow(request, options)
        try:
            seconds = used_up_seconds(answer)
            if seconds and seconds <= self.setup.patience.longest_wait_seconds:
                self.setup.limiter.hold(seconds)
            if not (streamed and is_success(answer)):
                self._read(answer)
                self._judge(answer)
            return receive(answer)
        except BaseException:
            answer.close()
            raise

    def _read(self, answer: Answer) -> None:
        patience = self.setup.patience
        pieces = chunks(
            answer,
            seconds=patience.whole_body_seconds,
            max_bytes=patience.max_body_bytes,
            clock=self.setup.clock,
        )
        answer.fill(b"".join(pieces))

    def _judge(self, answer: Answer) -> None:
        manners = self.setup.manners
        try:
            verdict = manners.judge(answer)
        except (ValueError, LookupError, TypeError, AttributeError):
            # The body has another shape than the judge expects; the rules below know what to do.
            verdict = None
        if isinstance(verdict, Wait):
            limited = answer.status_code == 429
            kind = SourceExhausted if limited else SourceUnavailable
            raise TryAgain(verdict.cause, verdict.seconds, kind, not_done=limited)
        if verdict is not None:
            raise verdict
        if answer.status_code in manners.no_data_statuses or is_success(answer):
            return
        error = by_status(answer)
        if self.setup.raise_rejected:
            raise error

    def _checked(self, answer: Answer) -> Answer:
        """What `send` returns: JSON for us; for a library also what it asked for besides."""
        if answer.status_code in self.setup.manners.no_data_statuses or not is_success(answer):
            return answer
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.setup.raise_rejected or (answer.content and is_json_type(kind)):
            require_json(answer)
        else:
            refuse_web_page(answer, answer.content[:64])
        return answer

    def _follow(self, request: requests.PreparedRequest, options: dict[str, Any]) -> Answer:
        """Send, and follow redirects one by one within the same host."""
        for _ in range(MAX_REDIRECTS + 1):
            self._check_address(request.url or "")
            answer = self._send_once(request, options)
            if answer.status_code not in REDIRECTS or "location" not in answer.headers:
                return answer
            answer.close()
            request = _redirected(request, answer)
        raise SourceRejected("redirects in a circle", "check the address of this source")

    def _check_address(self, url: str) -> None:
        refuse_plain_http(url)
        if self.setup.home is not None and origin(url) != self.setup.home:
            raise SourceRefused(
                "leads to another host, and the credentials are not sent there",
                "check the address of this source",
            )

    def _send_once(self, request: requests.PreparedRequest, options: dict[str, Any]) -> Answer:
        patience, url = self.setup.patience, request.url or ""
        try:
            # Waiting for our own turn is no fault of theirs.
            self._deadline += self.setup.limiter.wait(patience.longest_wait_seconds)
        except LimitReached as error:
            raise exhausted("our limit for this vendor is used up", error.seconds) from None
        left = max(self._deadline - self.setup.clock(), 1.0)
        timeout = (min(patience.connect_seconds, left), min(patience.read_seconds, left))
        host = urlsplit(url).hostname or ""
        try:
            answer: Any = self.get_adapter(url).send(
                request,
                stream=True,
                timeout=timeout,
                verify=options.get("verify", self.setup.verify),
                cert=options.get("cert"),
                proxies={} if is_loopback(host) else get_environ_proxies(url, no_proxy=None),
            )
        except requests.RequestException as error:
            raise not_sent(error) from None
        checked: Answer = answer
        return checked


def _redirected(request: requests.PreparedRequest, answer: Answer) -> requests.PreparedRequest:
    url = urljoin(request.url or "", answer.headers["location"])
    if origin(url) != origin(request.url or ""):
        raise SourceRefused(
            "redirects to another host, and nothing was sent there",
            "check the address of this source",
        )
    if answer.status_code not in (307, 308) and request.method not in ("GET", "HEAD"):
        raise SourceRejected(
            f"redirects a {request.method} ({answer.status_code})",
            "check the address of this source",
        )
    redirected = request.copy()
    redirected.prepare_url(url, None)
    return redirected


def _without_queries(record: logging.LogRecord) -> bool:
    """Keep cursors, addresses and whatever else a query may hold out of urllib3's log."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            argument.partition("?")[0] if isinstance(argument, str) else argument
            for argument in record.args
        )
    return True


logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)
