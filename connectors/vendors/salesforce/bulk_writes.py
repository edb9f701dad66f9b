"""Bulk 2.0 ingest: one job updates as many records as one upload holds.

simple-salesforce would lose the id of a job on an error, wait a day for it, order the columns by
chance and tell counts only. So a job is driven here step by step by its id, which is known before
anything is written: a job that is not closed does nothing.
"""

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from requests import Response
from simple_salesforce import Salesforce
from simple_salesforce.util import call_salesforce

from connectors.crm.writing import FieldUpdate, JobState, Outcome, Result
from connectors.vendors.salesforce.answers import bulk_answer, result_of
from connectors.vendors.salesforce.client import (
    NoSuchObject,
    NotAllowed,
    SalesforceClient,
)
from connectors.vendors.salesforce.fields import OBJECTS, Names, Value, is_id, long_id
from contracts.crm_fields import FIELDS, CrmObject
from contracts.errors import SourceCorrupt, SourceRejected

LARGEST_UPLOAD_BYTES = 100_000_000
"""Salesforce takes 150 MB, counted after an encoding that makes a third more of it."""

NULL = "#N/A"
"""What empties a field. An empty cell leaves it as it is."""

_STATES: Mapping[str, JobState] = {
    "Open": "open",
    "UploadComplete": "working",
    "InProgress": "working",
    "JobComplete": "complete",
    "Failed": "failed",
    "Aborted": "aborted",
}
_ENDS = ("complete", "failed", "aborted", "missing")
_CSV_TYPE = {"Content-Type": "text/csv; charset=UTF-8"}

Resolve = Callable[[CrmObject, Sequence[tuple[str, dict[str, Any]]]], dict[str, Result]]
"""Tells what became of refused records, by id, where that has to be looked up."""


class SalesforceBulk:
    """Updates of many records of one object, by a job whose id is kept before it is used."""

    def __init__(
        self,
        client: SalesforceClient,
        names: Names,
        *,
        before_write: Callable[[], None],
        resolve: Resolve,
    ) -> None:
        self._client = client
        self._names = names
        self._before_write = before_write
        self._resolve = resolve

    def create(self, object: CrmObject, fields: Sequence[str]) -> str:
        """Open a job and return its id; nothing is written by it yet.

        Raises:
            SourceRejected: the org or the user has no Bulk API.
            OutcomeUnknown: there may be a job whose id nobody knows; it stays empty.
            SourceError: as `SalesforceClient.write`.
        """
        unknown = set(fields) - set(self._names.written[object])
        if unknown:
            raise ValueError(f"not written on {object}: {', '.join(sorted(unknown))}")
        self._before_write()
        asked = {
            "object": OBJECTS[object], "operation": "update", "contentType": "CSV",
            "lineEnding": "LF",
        }  # fmt: skip

        def send(org: Salesforce) -> str:
            answer: Any = org.restful("jobs/ingest", method="POST", json=asked)
            return str(answer["id"])

        try:
            return self._client.write(send)
        except NotAllowed:
            raise self._client.named(
                SourceRejected("offers this user no bulk jobs", "records go by batches instead")
            ) from None

    def upload(self, job_id: str, updates: Sequence[FieldUpdate]) -> None:
        """Upload the records into an open job and close it: the org begins to work.

        Raises:
            SourceRejected: it is more than one upload can hold, or the job is not open.
            SourceError: as `SalesforceClient.write`.
        """
        content = self._csv(updates)
        if len(content) > LARGEST_UPLOAD_BYTES:
            raise self._client.named(
                SourceRejected("takes no upload as large as this one", "send fewer records at once")
            )
        self._before_write()
        path = _path(job_id)

        def send(org: Salesforce) -> None:
            url = f"{org.base_url}{path}/batches"
            headers = {**org.headers, **_CSV_TYPE}
            call_salesforce(url, "PUT", org.session, headers, data=content)

        self._client.write(send)
        self._set_state(job_id, "UploadComplete")

    def state(self, job_id: str) -> JobState:
        """How far the job is; `missing` when the org does not know it (any more)."""
        if not is_id(job_id):
            return "missing"
        try:
            answer = self._client.ask(lambda org: org.restful(_path(job_id)))
        except NoSuchObject:
            return "missing"
        state = str(answer.get("state")) if isinstance(answer, dict) else ""
        if state not in _STATES:
            raise self._client.named(
                SourceCorrupt("described a bulk job without its state", "try again later")
            )
        return _STATES[state]

    def abort(self, job_id: str) -> None:
        """Stop a job that is open or under way; one that has ended stays as it is."""
        try:
            self._set_state(job_id, "Aborted")
        except SourceRejected:
            if self.state(job_id) not in _ENDS:
                raise

    def results(self, job_id: str, updates: Sequence[FieldUpdate]) -> list[Result]:
        """What became of each record; UNKNOWN for those that the job did not process."""
        done = {long_id(id) for (id,) in self._rows(job_id, "successfulResults", "sf__Id")}
        failed = {
            long_id(id or failed): bulk_answer(error)
            for error, id, failed in self._rows(
                job_id, "failedResults", "sf__Error", "Id", "sf__Id"
            )
        }
        waiting = {long_id(id) for (id,) in self._rows(job_id, "unprocessedrecords", "Id")}
        resolved = self._resolve(updates[0].object, list(failed.items())) if updates else {}
        times = Counter(long_id(update.record_id) for update in updates)
        return [
            self._refused(update, done, times)
            or _result(long_id(update.record_id), done, failed, resolved, waiting)
            for update in updates
        ]

    def _refused(
        self, update: FieldUpdate, done: set[str], times: Mapping[str, int]
    ) -> Result | None:
        """Why a record was not uploaded; one that is done, and came once, certainly was."""
        id = long_id(update.record_id)
        if times[id] == 1 and id in done:
            return None
        values = self._names.values(update)
        return values if isinstance(values, Result) else None

    def _set_state(self, job_id: str, state: str) -> None:
        path = _path(job_id)
        self._client.write(lambda org: org.restful(path, method="PATCH", json={"state": state}))

    def _csv(self, updates: Sequence[FieldUpdate]) -> bytes:
        """The upload: Id first, then the fields in the order of `FIELDS`; bad values left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        used = {name for update in updates for name in update.values}
        written = self._names.written[updates[0].object] if updates else {}
        columns = [written[name] for name in FIELDS if name in used & set(written)]
        writer.writerow(["Id", *columns])
        for update in updates:
            values = self._names.values(update)
            if not isinstance(values, Result):
                cells = [_cell(values[name]) if name in values else "" for name in columns]
                writer.writerow([update.record_id, *cells])
        return text.getvalue().encode()

    def _rows(self, job_id: str, kind: str, *columns: str) -> list[list[str]]:
        """Some columns of a job's results; of rows that have an end the first has to be there."""
        url = f"{_path(job_id)}/{kind}"

        def fetch(org: Salesforce) -> Response:
            headers = {**org.headers, "Accept": "text/csv"}
            return call_salesforce(f"{org.base_url}{url}", "GET", org.session, headers)

        answer = self._client.ask(fetch)
        content = io.BytesIO(answer.content.replace(b"\0", b""))
        lines = csv.reader(io.TextIOWrapper(content, "utf-8", "replace", newline=""))
        header = next(lines, [])
        places = [header.index(name) if name in header else None for name in columns]
        rows = [[_at(line, place) for place in places] for line in lines if line]
        promised = answer.headers.get("Sforce-NumberOfRecords", "")
        if promised and promised != str(len(rows)):
            cause = f"gave {len(rows)} results of a bulk job instead of {promised}"
            raise self._client.named(SourceCorrupt(cause, "try again later"))
        if rows and columns[0] not in header and kind != "unprocessedrecords":
            raise self._client.named(
                SourceCorrupt("gave results of a bulk job in another shape", "try again later")
            )
        return rows


def _result(
    id: str,
    done: set[str],
    failed: Mapping[str, dict[str, Any]],
    resolved: Mapping[str, Result],
    waiting: set[str],
) -> Result:
    if id in failed:
        return resolved.get(id) or result_of(failed[id])
    if id in done:
        return Result(Outcome.DONE, crm_id=id)
    reason = "not processed" if id in waiting else "the job does not mention it"
    return Result(Outcome.UNKNOWN, reason=reason)


def _at(line: Sequence[str], place: int | None) -> str:
    return line[place] if place is not None and place < len(line) else ""


def _cell(value: Value) -> str:
    if value is None:
        return NULL
    # No file can say these very letters: they would empty the field.
    return "N/A" if value == NULL else str(value)


def _path(job_id: str) -> str:
    if not is_id(job_id):
        raise SourceRejected("has no job of such an id", "start another one", vendor="salesforce")
    return f"jobs/ingest/{job_id}"
