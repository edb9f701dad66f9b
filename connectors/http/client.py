"""The client that a connector uses: JSON, pages and downloads of one vendor."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import requests
from requests.auth import AuthBase

from connectors.http.addresses import origin
from connectors.http.answers import Answer, TryAgain
from connectors.http.files import Expected, save
from connectors.http.limiter import Limiter
from connectors.http.manners import Manners, Patience
from connectors.http.session import Session, Setup
from contracts.errors import SourceCorrupt

if TYPE_CHECKING:
    from dlt.sources.helpers.rest_client.paginators import BasePaginator

MAX_DOWNLOAD_BYTES = 4 * 1024**3


class Http:
    """One vendor's API over https.

    Every method raises a `SourceError` that names vendor, stream and page; see the table in
    `connectors.http.verdicts`. All requests are taken for reads, which are sent again when an
    answer is lost; with ``writes=True`` only a GET is, and another whose answer is lost raises
    `OutcomeUnknown`. A client with the limits of another (`limits_of`) shares its count, too.

    `session` may be given to a library. With ``raise_rejected=False`` it returns answers such as
    401 and 404, so that the library can react to them, and accepts other bodies than JSON.
    """

    def __init__(
        self,
        base_url: str,
        manners: Manners,
        *,
        auth: AuthBase | None = None,
        headers: Mapping[str, str] | None = None,
        verify: bool | str = True,
        patience: Patience | None = None,
        raise_rejected: bool = True,
        writes: bool = False,
        limits_of: "Http | None" = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        credentials = _Credentials(auth, headers or {}) if auth is not None or headers else None
        limiter = Limiter(manners.limits, clock=clock, sleep=sleep)
        self._base_url = base_url.rstrip("/")
        self._setup: Setup = Setup(
            manners=manners,
            patience=patience or Patience(),
            limiter=limits_of._setup.limiter if limits_of else limiter,
            auth=credentials,
            home=origin(base_url) if credentials else None,
            verify=verify,
            raise_rejected=raise_rejected,
            sends_once=writes,
            sleep=sleep,
            clock=clock,
        )
        self._name: str | None = None
        self.session = Session(self._setup)

    def __repr__(self) -> str:
        return f"Http({self._setup.manners.vendor!r}, stream={self._name!r})"

    @property
    def requests_sent(self) -> int:
        """The requests of this client and all its streams, with every repeated attempt."""
        return self._setup.limiter.granted

    def stream(self, name: str) -> Self:
        """A view for one stream: a session for its thread; limits and count are shared."""
        view = copy.copy(self)
        view._name = name
        view.session = Session(self._setup, name)
        return view

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON object or list at `path`; None for one of the vendor's no-data statuses."""
        return self._json(requests.Request("GET", self._url(path), headers, params=params))

    def post(
        self,
        path: str,
        *,
        json: Any = None,
        data: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON object or list that answers a search or a query, as `get` gives it."""
        url = self._url(path)
        return self._json(
            requests.Request("POST", url, headers, json=json, data=data, params=params)
        )

    def patch(self, path: str, *, json: Any) -> Any:
        """The JSON object that answers a change, as `get` gives it."""
        return self._json(requests.Request("PATCH", self._url(path), json=json))

    def hold(self, seconds: float) -> None:
        """Send nothing for so long, over any stream: the vendor asked for it."""
        self._setup.limiter.hold(seconds)

    def pages(
        self,
        path: str,
        *,
        records: str,
        paginator: "BasePaginator",
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        method: Literal["GET", "POST"] = "GET",
        headers: Mapping[str, str] | None = None,
        same_request: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """The records of every page, walked with one of dlt's paginators.

        `records` names the key that holds the list of objects, with dots for nested ones; "$"
        when the body itself is the list. A page without it is an error, never an empty page.
        `same_request` is for vendors that keep the place themselves, so that every page is asked
        for in the same words (Intercom's scroll).
        """
        # Here, because dlt takes long to import and many commands ask no vendor anything.
        from connectors.http.pages import walk

        request = requests.Request(
            method,
            path,
            params=dict(params or {}),
            json=copy.deepcopy(json),
            headers=dict(headers or {}),
        )
        return walk(self._base_url, self.session, request, records, paginator, same_request)

    def download(
        self,
        path: str,
        target: Path,
        *,
        params: Mapping[str, Any] | None = None,
        expect: Expected,
        max_bytes: int = MAX_DOWNLOAD_BYTES,
    ) -> Path | None:
        """Save the file at `path` as `target`, whole or not at all.

        A zip is tested, and the last line of JSON lines must be whole. None for one of the
        vendor's no-data statuses. `max_bytes` bounds the file, and what a zip unpacks to.
        """
        patience = self._setup.patience

        def receive(answer: Answer) -> Path | None:
            if answer.status_code in self._setup.manners.no_data_statuses:
                return None
            if answer.status_code != 200:
                raise TryAgain(f"answered {answer.status_code} without a file", kind=SourceCorrupt)
            seconds = patience.download_seconds
            save(answer, target, expect, seconds, max_bytes, self._setup.clock)
            return target

        request = requests.Request("GET", self._url(path), params=params)
        prepared = self.session.prepare_request(request)
        return self.session.exchange(prepared, receive, streamed=True)

    def _url(self, path: str) -> str:
        if path.startswith(("https://", "http://")):
            return path
        return f"{self._base_url}/{path.lstrip('/')}" if path else self._base_url

    def _json(self, request: requests.Request) -> Any:
        answer = self.session.send(self.session.prepare_request(request))
        if answer.status_code in self._setup.manners.no_data_statuses:
            return None
        return answer.json()


class _Credentials(AuthBase):
    """Puts on the vendor's authentication and headers, and shows them to nobody."""

    def __init__(self, auth: AuthBase | None, headers: Mapping[str, str]) -> None:
        # In a closure, because `vars()` and debuggers' reports show attributes.
        def put_on(request: requests.PreparedRequest) -> requests.PreparedRequest:
            for name, value in headers.items():
                request.headers[name] = value
            return request if auth is None else auth(request)

        self._put_on = put_on

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return self._put_on(request)

    def __repr__(self) -> str:
        return "<credentials>"
