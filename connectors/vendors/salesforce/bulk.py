"""A Bulk 2.0 query, driven step by step: make the job, wait for it, fetch its pages, remove it.

simple-salesforce would wait a day for a job, lose its id on an error and never see that a page is
not whole. A job that was abandoned costs nothing: the org removes it after seven days.
"""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from requests import Response
from simple_salesforce import Salesforce
from simple_salesforce.util import call_salesforce

from connectors.vendors.salesforce.client import SalesforceClient
from connectors.vendors.salesforce.settings import SalesforceConfig
from contracts.errors import SourceCorrupt, SourceError, SourceUnavailable

PAGE_ROWS = 50_000


def bulk_pages(client: SalesforceClient, soql: str, config: SalesforceConfig) -> Iterator[pa.Table]:
    """The rows of a query, deleted ones too, as tables of text whose columns SOQL names.

    Raises:
        SourceUnavailable: the job failed, or was not done in time.
        SourceCorrupt: a page is not whole, or comes again.
    """
    job = _asked(client, "jobs/query", "POST", {"operation": "queryAll", "query": soql})
    path = f"jobs/query/{job['id']}"
    try:
        _wait(client, path, config)
        yield from _pages(client, path)
    except SourceError:
        with suppress(SourceError):
            _asked(client, path, "PATCH", {"state": "Aborted"})
        raise
    with suppress(SourceError):
        client.ask(lambda library: library.restful(path, method="DELETE"))


def _asked(client: SalesforceClient, path: str, method: str, content: Any = None) -> dict[str, Any]:
    answer = client.ask(lambda library: library.restful(path, method=method, json=content))
    if not isinstance(answer, dict) or "id" not in answer or "state" not in answer:
        raise client.named(SourceCorrupt("described a bulk job without its state", _LATER))
    return answer


_LATER = "try again later; if it stays so, report it"


def _wait(client: SalesforceClient, path: str, config: SalesforceConfig) -> None:
    looks = math.ceil(config.bulk_wait_minutes * 60 / config.bulk_poll_seconds)
    for _ in range(looks):
        state = str(_asked(client, path, "GET")["state"])
        if state == "JobComplete":
            return
        if state in ("Failed", "Aborted"):
            raise client.named(
                SourceUnavailable(f"ended a bulk query as {state}", "try again later")
            )
        time.sleep(config.bulk_poll_seconds)
    minutes = f"{config.bulk_wait_minutes:g} minutes"
    raise client.named(
        SourceUnavailable(
            f"did not finish a bulk query within {minutes}",
            "try again at a quieter time, or raise `bulk_wait_minutes`",
        )
    )


def _pages(client: SalesforceClient, path: str) -> Iterator[pa.Table]:
    locator, seen = "", {""}
    while True:
        answer = client.ask(_results(path, locator))
        table = _table(answer.content)
        promised = answer.headers.get("Sforce-NumberOfRecords", "")
        if promised != str(table.num_rows):
            cause = (
                f"gave {table.num_rows} rows of a bulk query instead of {promised or 'a number'}"
            )
            raise client.named(SourceCorrupt(cause, _LATER))
        yield table
        locator = answer.headers.get("Sforce-Locator", "null")
        if locator == "null":
            return
        if locator in seen:
            raise client.named(SourceCorrupt("sends a bulk query round in a circle", _LATER))
        seen.add(locator)


def _results(path: str, locator: str) -> Any:
    """What fetches one page. The library hides the headers that the place and the count are in."""
    params = {"maxRecords": str(PAGE_ROWS)} | ({"locator": locator} if locator else {})

    def fetch(library: Salesforce) -> Response:
        return call_salesforce(
            f"{library.base_url}{path}/results", "GET", library.session,
            {**library.headers, "Accept": "text/csv"}, params=params,
        )  # fmt: skip

    return fetch


def _table(content: bytes) -> pa.Table:
    # NUL has been seen in results, and nothing behind takes it.
    content = content.replace(b"\0", b"")
    names = pa_csv.read_csv(
        pa.BufferReader(content.partition(b"\n")[0] + b"\n"),
    ).column_names
    return pa_csv.read_csv(
        pa.BufferReader(content),
        read_options=pa_csv.ReadOptions(block_size=len(content) + 1),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True,
        ),
    )  # fmt: skip
