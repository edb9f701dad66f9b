"""Walking through pages with dlt's paginators, which believe what they get: it is checked first."""

from collections.abc import Iterator
from typing import Any

import requests
from dlt.common.configuration.specs.runtime_configuration import RuntimeConfiguration
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException
from dlt.sources.helpers.rest_client.paginators import BasePaginator

from connectors.http.session import Session
from contracts.errors import SourceCorrupt

_REPORT = "try again later; if it stays so, report it"


def walk(
    base_url: str,
    session: Session,
    request: requests.Request,
    records: str,
    paginator: BasePaginator,
    same_request: bool,
) -> Iterator[list[dict[str, Any]]]:
    """The records of every page, beginning with `request`; see `Http.pages`.

    Raises:
        SourceError: what the session raises, and SourceCorrupt for pages that lead nowhere.
    """
    found = _Walk(base_url, session, records, same_request).paginate(
        request.url,
        method=request.method,
        params=request.params,
        json=request.json,
        headers=request.headers,
        paginator=paginator,
        data_selector=records,
        hooks={"response": [_no_data_stops(session.setup.manners.no_data_statuses)]},
    )
    while True:
        try:
            page = next(found, None)
        except SourceCorrupt as error:
            # The session's own errors are named already.
            raise (error if error.vendor else session.named(error)) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            cause = f"sent a page that does not lead on ({type(error).__name__})"
            raise session.named(SourceCorrupt(cause, _REPORT)) from None
        if page is None:
            return
        yield list(page)


def _no_data_stops(statuses: frozenset[int]) -> Any:
    def stop(answer: requests.Response, *_: Any, **__: Any) -> None:
        if answer.status_code in statuses:
            raise IgnoreResponseException

    return stop


class _Walk(RESTClient):
    """dlt's client for one walk through pages: what it takes for records is checked first."""

    def __init__(self, base_url: str, session: Session, records: str, same_request: bool) -> None:
        # Given explicitly, so that no configuration file of dlt is looked for.
        super().__init__(base_url, session=session, config=RuntimeConfiguration())
        self._path = [] if records == "$" else records.split(".")
        self._asked: set[int] | None = None if same_request else set()
        self._before: list[Any] = []
        self._equal = 1

    def extract_response(self, response: requests.Response, data_selector: Any) -> list[Any]:
        """The records of a page, which dlt gives to the paginator and yields."""
        self._refuse_circle(response.request)
        found = self._records(response)
        self._refuse_repetition(found)
        return found

    def _records(self, response: requests.Response) -> list[dict[str, Any]]:
        value = response.json()
        for key in self._path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, list) and all(type(record) is dict for record in value):
            return value
        where = ".".join(self._path) or "the body"
        raise SourceCorrupt(f"sent a page in which '{where}' is no list of objects", _REPORT)

    def _refuse_circle(self, request: requests.PreparedRequest) -> None:
        if self._asked is None:
            return
        asked = hash((request.method, request.url, request.body))
        if asked in self._asked:
            raise SourceCorrupt("the cursor goes in a circle", _REPORT)
        self._asked.add(asked)

    def _refuse_repetition(self, found: list[Any]) -> None:
        """One repeated page may happen while data changes; a third shows that paging is broken."""
        self._equal = self._equal + 1 if found and found == self._before else 1
        self._before = found
        if self._equal > 2:
            raise SourceCorrupt("sent the same page three times in a row", _REPORT)

    def _log_request(self, request: Any, prepared_url: Any) -> None:
        """Nothing: dlt would log parameters and bodies, which may hold cursors and addresses."""
