"""The client: one login for all streams, and simple-salesforce over our own session.

Timeouts, retries and checks of bodies are the session's (`connectors.http`). The library is given
an access token and never a way to log in, because it would repeat a refused login without end.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import jwt
from requests import Response
from simple_salesforce import (
    Salesforce,
    SalesforceError,
    SalesforceExpiredSession,
    SalesforceResourceNotFound,
)

from connectors.api import Secrets
from connectors.http import Http, Manners, Wait
from connectors.vendors.salesforce.settings import SalesforceConfig
from contracts.errors import (
    OutcomeUnknown,
    SourceCorrupt,
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
)

T = TypeVar("T")
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_JWT_SECONDS = 180
_USAGE = re.compile(r"\bapi-usage=(\d+)/(\d+)")


class UnknownName(SourceRejected):
    """A query names a field or an object that the org does not have, or no longer."""


class NoSuchObject(SourceRejected):
    """The org has no such object, or the user may not see it."""


class CursorExpired(SourceRejected):
    """The place in a long result is no longer known; the query has to begin again."""


class NotAllowed(SourceRefused):
    """The user is logged in, but lacks a right, or the org lacks the feature."""


@dataclass(frozen=True)
class Token:
    """An open session and the host that it is good for."""

    value: str = field(repr=False)
    instance_url: str


class Access:
    """What all streams share: the session, which is renewed at most once, and the API's usage.

    Args:
        config: Where to log in.
        form: Makes what is posted to log in; None where only an access token was given.
        token: The access token that was given.
    """

    def __init__(
        self, config: SalesforceConfig, form: Callable[[], dict[str, str]] | None, token: str | None
    ) -> None:
        self._config = config
        self._form = form
        self._token = Token(token, config.home) if token else None
        self._renewed = False
        self._lock = Lock()
        self.usage: tuple[int, int] | None = None

    @property
    def used_share(self) -> float:
        """How much of the day's API requests is used, by whomever, 0 to 1."""
        used, allowed = self.usage or (0, 0)
        return used / allowed if allowed else 0.0

    def judge(self, response: Response) -> SourceError | Wait | None:
        """Note the API's usage, which errors tell as well as answers, and judge the answer."""
        told = _USAGE.search(response.headers.get("Sforce-Limit-Info", ""))
        if told:
            self.usage = int(told[1]), int(told[2])
        return judge(response)

    def token(self, http: Http) -> Token:
        """The session; the first who asks logs in."""
        with self._lock:
            if self._token is None:
                self._token = self._logged_in(http)
            return self._token

    def renewed(self, expired: Token, http: Http) -> Token:
        """A new session in place of one that was refused.

        Raises:
            SourceRefused: it was renewed before, or there is nothing to log in with.
        """
        with self._lock:
            if self._token is expired:
                if self._form is None or self._renewed:
                    raise SourceRefused(
                        "refused the session (401)", "renew the credentials of this source"
                    )
                self._renewed = True
                self._token = self._logged_in(http)
            assert self._token is not None
            return self._token

    def _logged_in(self, http: Http) -> Token:
        assert self._form is not None
        url = f"{self._config.home}/services/oauth2/token"
        answer = http.session.post(url, data=self._form())
        if answer.status_code != 200:
            raise SourceRefused(
                f"refused the login ({_oauth_error(answer)})",
                "check the connected app and the user it runs as",
            )
        try:
            token, instance_url = answer.json()["access_token"], answer.json()["instance_url"]
        except (ValueError, LookupError, TypeError):
            token = instance_url = None
        if not isinstance(token, str) or not str(instance_url).startswith("https://"):
            raise SourceCorrupt("answered a login without a token", "try again later")
        return Token(token, str(instance_url))


def _oauth_error(answer: Response) -> str:
    """The name of an OAuth error, which is one of a few known words."""
    try:
        error = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)
    return error if error.replace("_", "").isalpha() else str(answer.status_code)


class SalesforceClient:
    """Asks the org through simple-salesforce, and tells its errors as ours.

    `login` sends the logins where `http` writes: a login may be sent again, a write may not.
    """

    def __init__(
        self, http: Http, access: Access, config: SalesforceConfig, login: Http | None = None
    ) -> None:
        self._http = http
        self._login = login or http
        self._access = access
        self._config = config
        self._library: tuple[Token, Salesforce] | None = None

    @property
    def requests_sent(self) -> int:
        """The requests of this client and all its streams."""
        logins = 0 if self._login is self._http else self._login.requests_sent
        return self._http.requests_sent + logins

    @property
    def usage(self) -> tuple[int, int] | None:
        """The API requests of the day, used and allowed, as the last answer told."""
        return self._access.usage

    def stream(self, name: str) -> Self:
        """A view for one stream, with a session for its thread."""
        login = None if self._login is self._http else self._login
        return type(self)(self._http.stream(name), self._access, self._config, login)

    def ask(self, request: Callable[[Salesforce], T]) -> T:
        """Send what `request` sends, and once more with a new session if the first has expired.

        Raises:
            UnknownName, NoSuchObject, CursorExpired: the caller may know how to go on.
            SourceError: anything else that went wrong.
        """
        self._stop_early()
        try:
            token = self._access.token(self._login)
            try:
                return self._answer(token, request)
            except SalesforceExpiredSession:
                token = self._access.renewed(token, self._login)
            try:
                return self._answer(token, request)
            except SalesforceExpiredSession:
                raise SourceRefused(
                    "refused a new session (401)", "check the user's rights to the API"
                ) from None
        except SourceError as error:
            raise error if error.vendor else self.named(error) from None

    def write(self, request: Callable[[Salesforce], T]) -> T:
        """Send a write as `ask` sends a request, which has to be one of a client for writing.

        Raises:
            OutcomeUnknown: it was sent, and no answer says what became of it.
            SourceError: nothing was done.
        """
        return self.ask(partial(_written, request))

    def named(self, error: SourceError) -> SourceError:
        """An error of ours with vendor, stream and page."""
        return self._http.session.named(error)

    def _stop_early(self) -> None:
        if self._access.used_share >= self._config.daily_share:
            raise self.named(
                SourceExhausted(
                    f"has used {self._access.used_share:.0%} of the org's API requests of the day",
                    "wait until tomorrow, or raise `daily_share`",
                )
            )

    def _answer(self, token: Token, request: Callable[[Salesforce], T]) -> T:
        try:
            return request(self._of(token))
        except SalesforceExpiredSession:
            raise
        except SalesforceError as error:
            raise _told(error) from None
        except (ValueError, TypeError, LookupError, AttributeError):
            # The library takes the shape of an answer for granted.
            raise SourceCorrupt("sent an answer of another shape", "try again later") from None

    def _of(self, token: Token) -> Salesforce:
        if self._library is None or self._library[0] is not token:
            library = Salesforce(
                session_id=token.value,
                instance_url=token.instance_url,
                version=self._config.api_version,
                session=self._http.session,
                object_pairs_hook=dict,
            )
            self._library = (token, library)
        return self._library[1]


def _written(request: Callable[[Salesforce], T], library: Salesforce) -> T:
    """Send a write. What answers it may be broken or of another shape: done it may be all the same.

    Raises:
        OutcomeUnknown: it is.
    """
    try:
        return request(library)
    except (SourceCorrupt, ValueError, TypeError, LookupError, AttributeError):
        raise OutcomeUnknown(
            "answered a write with something else than results",
            "the next run reads back what became of it",
        ) from None


def _told(error: SalesforceError) -> SourceError:
    """An error of the API as ours: by its code, without its text, which repeats the query."""
    code = error_code(error.content)
    shown = f"answered {error.status}" + (f" {code}" if code else "")
    if code in ("INVALID_FIELD", "INVALID_TYPE"):
        return UnknownName(shown, "correct `fields` and `objects` of this source")
    if code == "INVALID_QUERY_LOCATOR":
        return CursorExpired(shown, "try again later")
    if isinstance(error, SalesforceResourceNotFound):
        return NoSuchObject(shown, "check `objects` and `api_version` of this source")
    if error.status in (401, 403):
        return NotAllowed(shown, "give the user the rights that docs/sources/salesforce.md names")
    return SourceRejected(shown, "check the settings of this source")


def error_code(content: Any) -> str:
    """The error code of an answer such as ``[{"errorCode": ..., "message": ...}]``, or nothing."""
    try:
        code = str(content[0]["errorCode"])
    except (LookupError, TypeError):
        return ""
    return code if code.replace("_", "").isalnum() else ""


def judge(response: Response) -> SourceError | Wait | None:
    """What is particular: a used-up allowance is a 403, and an empty answer to a GET is none."""
    if response.status_code == 204 and response.request.method == "GET":
        return Wait("sent an empty answer")
    if response.status_code == 403 and error_code(response.json()) == "REQUEST_LIMIT_EXCEEDED":
        return SourceExhausted(
            "has used up the org's API requests of the day (REQUEST_LIMIT_EXCEEDED)",
            "wait: the limit is one of the last 24 hours",
        )
    return None


def connect(config: SalesforceConfig, secrets: Secrets) -> SalesforceClient:
    """The client; nothing is sent yet."""
    access = _access(config, secrets)
    return SalesforceClient(_http(config, secrets, access), access, config)


def connect_for_writing(config: SalesforceConfig, secrets: Secrets) -> SalesforceClient:
    """A client that sends each write once; nothing is sent yet."""
    access = _access(config, secrets)
    login = _http(config, secrets, access)
    return SalesforceClient(_http(config, secrets, access, writes=True), access, config, login)


def _http(
    config: SalesforceConfig, secrets: Secrets, access: Access, *, writes: bool = False
) -> Http:
    verify = str(secrets.home / config.ca_file) if config.ca_file else True
    manners = Manners("salesforce", judge=access.judge)
    return Http(config.home, manners, verify=verify, raise_rejected=False, writes=writes)


def _access(config: SalesforceConfig, secrets: Secrets) -> Access:
    if config.access_token is not None:
        return Access(config, None, secrets.of(config.access_token))
    return Access(config, _login_form(config, secrets), None)


def _login_form(config: SalesforceConfig, secrets: Secrets) -> Callable[[], dict[str, str]]:
    """What is posted to log in, by the secrets that are given."""
    given = {
        name: secrets.of(where)
        for name, where in (
            ("client_id", config.consumer_key),
            ("client_secret", config.consumer_secret),
            ("username", config.username),
            ("password", config.password),
            ("security_token", config.security_token),
            ("private_key", config.private_key),
        )
        if where is not None
    }
    if "private_key" in given:
        return lambda: {"grant_type": _JWT_GRANT, "assertion": _assertion(config, given)}
    if "password" in given:
        token = given.pop("security_token", "")
        return lambda: {
            "grant_type": "password", **given, "password": given["password"] + token,
        }  # fmt: skip
    return lambda: {"grant_type": "client_credentials", **given}


def _assertion(config: SalesforceConfig, given: dict[str, str]) -> str:
    is_sandbox = ".sandbox." in (urlsplit(config.home).hostname or "")
    claims = {
        "iss": given["client_id"],
        "sub": given["username"],
        "aud": f"https://{'test' if is_sandbox else 'login'}.salesforce.com",
        "exp": int(time.time()) + _JWT_SECONDS,
    }
    try:
        return jwt.encode(claims, given["private_key"], algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise SourceRefused(
            "the private key is no PEM key", "give the whole key, with its line ends"
        ) from None
