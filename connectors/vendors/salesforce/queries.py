"""The answers to a SOQL query, page by page and to the last row."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from connectors.vendors.salesforce.client import SalesforceClient
from contracts.errors import SourceCorrupt

_LATER = "try again later; if it stays so, report it"


def pages(client: SalesforceClient, soql: str, *, deleted: bool = True) -> Iterator[dict[str, Any]]:
    """The answers to one query, page by page, to the last of the rows that the first promises.

    With `deleted` there are deleted, merged and archived records as well.

    Raises:
        SourceCorrupt: a page has another shape, comes again, or leads elsewhere; or rows are
            missing at the end.
    """
    answer = client.ask(lambda org: org.query(soql, include_deleted=deleted))
    urls: set[str] = set()
    ids: set[str] = set()
    while True:
        check(client, answer)
        ids.update(record["Id"] for record in answer["records"])
        yield answer
        if answer["done"]:
            break
        url = str(answer.get("nextRecordsUrl"))
        # The library puts this behind the host's name as it is.
        if not url.startswith("/services/data/") or url in urls:
            raise client.named(SourceCorrupt("leads to a next page that is none", _LATER))
        urls.add(url)
        answer = client.ask(partial(_more, url=url))
    if len(ids) != answer["totalSize"]:
        cause = f"gave {len(ids)} of {answer['totalSize']} rows"
        raise client.named(SourceCorrupt(cause, _LATER))


def _more(org: Any, url: str) -> Any:
    return org.query_more(url, identifier_is_url=True)


def check(client: SalesforceClient, answer: Any) -> None:
    """Make sure that an answer holds records.

    Raises:
        SourceCorrupt: it does not.
    """
    good = (
        isinstance(answer, dict)
        and isinstance(answer.get("records"), list)
        and isinstance(answer.get("totalSize"), int)
        and isinstance(answer.get("done"), bool)
        and all(isinstance(r, dict) and isinstance(r.get("Id"), str) for r in answer["records"])
    )
    if not good:
        raise client.named(SourceCorrupt("answered a query without records", _LATER))
