"""Any API, described in YAML: no Python, and one SQL file for each canonical table.

::

    type: rest
    address: https://api.example.com/v2
    auth: {bearer: {env: EXAMPLE_TOKEN}}
    limits: [{requests: 100, seconds: 60}]
    account: {path: /me, field: organisation.id}
    streams:
      tickets:
        path: /tickets
        params: {per_page: 100, updated_since: "{since}"}
        records: data
        paging: {next_url: links.next}
        primary_key: [id]
        cursor: updated_at
        overlap_minutes: 10

``{since}``, ``{now}`` and ``{history_start}`` stand in `path`, `params` and `json` for instants in
the form that `cursor_kind` names. Before the first reading `since` is the start of the history.
All keys with a complete example: docs/add-a-connector.md.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, Literal
from urllib.parse import urlsplit

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.auth import OAuth2ClientCredentials
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    HeaderLinkPaginator,
    JSONLinkPaginator,
    JSONResponseCursorPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    SinglePagePaginator,
)
from pydantic import Field, field_validator, model_validator
from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth

from connectors.api import ApiConfig, ApiStream, CursorKind, Reading, Rows, Vendor
from connectors.http import Http, Limit, Manners
from connectors.sources import Name
from contracts.company import Strict
from contracts.errors import SourceCorrupt
from contracts.secrets import FromEnvironment, Secrets


class BasicAuth(Strict):
    """User and password; some APIs take a key as the user and any password."""

    user: FromEnvironment | str
    password: FromEnvironment | str = ""


class HeaderAuth(Strict):
    """A header that holds a key, such as ``X-Api-Key``."""

    name: str = Field(pattern=r"^[A-Za-z0-9-]+$")
    value: FromEnvironment


class ClientCredentials(Strict):
    """OAuth 2 client credentials."""

    token_url: str = Field(pattern=r"^https://|^http://(127\.0\.0\.1|localhost)[:/]")
    client_id: FromEnvironment
    client_secret: FromEnvironment


class Auth(Strict):
    """One way to authenticate."""

    bearer: FromEnvironment | None = None
    basic: BasicAuth | None = None
    header: HeaderAuth | None = None
    oauth2: ClientCredentials | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "Auth":
        if len(self.model_fields_set) != 1:
            raise ValueError("give one of `bearer`, `basic`, `header` and `oauth2`; keep one")
        return self


class Offset(Strict):
    """Paging by the number of rows to skip."""

    param: str = "offset"
    limit: int = Field(gt=0)
    limit_param: str | None = "limit"


class Paging(Strict):
    """How the next page is asked for; paths are keys with dots, such as ``meta.next``.

    `cursor` is where the body holds the next cursor, and `param` (or `json_param`, a key of the
    body that is sent) where it goes.
    """

    next_url: str | None = None
    link_header: bool = False
    cursor: str | None = None
    param: str | None = None
    json_param: str | None = None
    page_param: str | None = None
    first_page: int = 1
    offset: Offset | None = None

    @model_validator(mode="after")
    def _one_way(self) -> "Paging":
        ways = (self.next_url, self.link_header, self.cursor, self.page_param, self.offset)
        if sum(map(bool, ways)) > 1:
            raise ValueError("there are several ways of paging; keep one")
        if self.cursor and bool(self.param) == bool(self.json_param):
            raise ValueError("a cursor must go somewhere; add `param` or `json_param`")
        if not self.cursor and (self.param or self.json_param):
            raise ValueError("`param` and `json_param` belong to `cursor`; add it")
        if "first_page" in self.model_fields_set and not self.page_param:
            raise ValueError("`first_page` belongs to `page_param`; add it")
        return self

    def paginator(self) -> BasePaginator:
        """A paginator of dlt's, for one reading."""
        if self.next_url:
            return JSONLinkPaginator(self.next_url)
        if self.link_header:
            return HeaderLinkPaginator()
        if self.cursor:
            return JSONResponseCursorPaginator(
                self.cursor, cursor_param=self.param, cursor_body_path=self.json_param
            )
        if self.page_param:
            return PageNumberPaginator(
                base_page=self.first_page, page_param=self.page_param, total_path=None
            )
        if self.offset:
            return OffsetPaginator(
                self.offset.limit, offset_param=self.offset.param,
                limit_param=self.offset.limit_param, total_path=None,
            )  # fmt: skip
        return SinglePagePaginator()


class RestStream(Strict):
    """One list of records. `records` is the key that holds it; ``$`` where the body is the list."""

    path: str
    method: Literal["GET", "POST"] = "GET"
    params: dict[str, Any] = Field(default_factory=dict)
    body: dict[str, Any] | None = Field(default=None, alias="json")
    records: str = "$"
    paging: Paging = Paging()
    primary_key: list[str] = Field(min_length=1)
    columns: list[str] = Field(default_factory=list)
    leave_out: list[str] = Field(default_factory=list)
    cursor: str | None = None
    cursor_kind: CursorKind = "iso"
    overlap_minutes: float = Field(default=0, ge=0)
    rebuild_by: str | None = None

    @model_validator(mode="after")
    def _since_needs_a_cursor(self) -> "RestStream":
        if self.cursor is None and "{since}" in repr((self.path, self.params, self.body)):
            raise ValueError("'{since}' has no meaning without `cursor`; name the field")
        return self


class Account(Strict):
    """Where the API tells whose data the credentials open."""

    path: str
    field: str


class RateLimit(Strict):
    """At most so many requests in any so many seconds."""

    requests: int = Field(gt=0)
    seconds: float = Field(gt=0)


class RestConfig(ApiConfig):
    """``type: rest``."""

    type: Literal["rest"]
    address: str
    auth: Auth | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    limits: list[RateLimit] = Field(default_factory=list)
    account: Account | None = None
    streams: dict[Name, RestStream] = Field(min_length=1)  # type: ignore[assignment]

    @field_validator("address")
    @classmethod
    def _no_more_than_an_address(cls, address: str) -> str:
        parts = urlsplit(address)
        if parts.username or parts.query or parts.fragment:
            raise ValueError("it holds more than host and path; use `auth` and `params`")
        return address

    @field_validator("headers")
    @classmethod
    def _no_secret(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in ("authorization", "cookie", "x-api-key"):
                raise ValueError(f"'{name}' holds a secret; write it as `auth: {{header: ...}}`")
        return headers


class _OneAtATime(AuthBase):
    """An authentication that asks for a token: once, and not for each stream's thread."""

    def __init__(self, auth: AuthBase) -> None:
        self._auth, self._turn = auth, Lock()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        with self._turn:
            return self._auth(request)


class _KeyInHeader(AuthBase):
    def __init__(self, name: str, key: str) -> None:
        self._name, self._key = name, key

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers[self._name] = self._key
        return request


def connect(config: RestConfig, secrets: Secrets) -> Http:
    """The client of an API."""
    limits = tuple(Limit(limit.requests, limit.seconds) for limit in config.limits)
    auth = _auth(config.auth, secrets) if config.auth else None
    return Http(config.address, Manners("api", limits), auth=auth, headers=config.headers)


def _auth(auth: Auth, secrets: Secrets) -> AuthBase:
    if auth.bearer:
        return _KeyInHeader("Authorization", f"Bearer {secrets.of(auth.bearer)}")
    if auth.header:
        return _KeyInHeader(auth.header.name, secrets.of(auth.header.value))
    if auth.basic:
        user, password = (
            part if isinstance(part, str) else secrets.of(part)
            for part in (auth.basic.user, auth.basic.password)
        )
        return HTTPBasicAuth(user, password)
    assert auth.oauth2 is not None
    return _OneAtATime(
        OAuth2ClientCredentials(
            access_token_url=auth.oauth2.token_url,
            client_id=secrets.of(auth.oauth2.client_id),
            client_secret=secrets.of(auth.oauth2.client_secret),
            session=Http(auth.oauth2.token_url, Manners("api")).session,
        )
    )


def account(http: Http, config: RestConfig) -> str:
    """What the API says of the account, or its address where it cannot be asked."""
    if config.account is None:
        return config.address
    found = jsonpath.find_values(config.account.field, http.get(config.account.path))
    if not found or not isinstance(found[0], str | int):
        raise SourceCorrupt(
            f"{config.account.path} does not tell the account in '{config.account.field}'",
            "correct `account:`", vendor="api",
        )  # fmt: skip
    return str(found[0])


def streams(config: RestConfig) -> Mapping[str, ApiStream]:
    """The streams as declared. One without a cursor is read as a whole each time."""
    return {name: _stream(stream) for name, stream in config.streams.items()}


def _stream(stream: RestStream) -> ApiStream:
    def read(reading: Reading[RestConfig]) -> Iterator[Rows]:
        instants = _instants(stream, reading)
        yield from reading.client.pages(
            str(_filled(stream.path, instants)),
            method=stream.method,
            params=_filled(stream.params, instants),
            json=_filled(stream.body, instants),
            records=stream.records,
            paginator=stream.paging.paginator(),
        )

    return ApiStream(
        read=read,
        primary_key=tuple(stream.primary_key),
        columns=tuple(stream.columns),
        whole=stream.cursor is None,
        cursor=stream.cursor,
        cursor_kind=stream.cursor_kind,
        overlap=dt.timedelta(minutes=stream.overlap_minutes),
        leave_out=frozenset(stream.leave_out),
        rebuild_by=stream.rebuild_by,
    )


def _instants(stream: RestStream, reading: Reading[RestConfig]) -> dict[str, str | int]:
    start = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    instants = {"since": reading.since or start, "now": reading.now, "history_start": start}
    return {f"{{{name}}}": _written(at, stream.cursor_kind) for name, at in instants.items()}


def _written(at: dt.datetime, kind: CursorKind) -> str | int:
    """An instant as APIs expect it: ``2026-06-30T20:00:00Z``, or a number since 1970.

    >>> _written(dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC), "iso")
    '2026-06-30T20:00:00Z'
    """
    if kind == "iso":
        return at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return int(at.timestamp() * (1000 if kind == "epoch_ms" else 1))


def _filled(value: Any, instants: Mapping[str, str | int]) -> Any:
    """A setting with its placeholders replaced, however deep they stand.

    A placeholder that stands alone becomes a number where instants are numbers.
    """
    if isinstance(value, str):
        if value in instants:
            return instants[value]
        for placeholder, instant in instants.items():
            value = value.replace(placeholder, str(instant))
        return value
    if isinstance(value, dict):
        return {key: _filled(inner, instants) for key, inner in value.items()}
    return [_filled(inner, instants) for inner in value] if isinstance(value, list) else value


VENDOR = Vendor(
    name="rest",
    config=RestConfig,
    connect=connect,
    account=account,
    streams=streams,
    scopes="reading the lists that `streams:` names",
)
