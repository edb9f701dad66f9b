"""Bulk 2.0 ingest jobs of the sandbox's Salesforce: made, filled, worked on, and their results.

A job gets one state further each time that it is looked at, and does its work on the way to its
end. A test orders how jobs end by `job_orders`.
"""

import csv
import io
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.answers import Json
from connectors.sandbox.servers.box import Box, Table
from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, VENDOR, moment_text
from connectors.sandbox.vendors.salesforce_rules import RowRefused
from connectors.sandbox.vendors.salesforce_settings import setting
from connectors.sandbox.vendors.salesforce_web import Refused, not_found, object_sent
from connectors.sandbox.vendors.salesforce_writes import Call
from connectors.sandbox.vendors.soql import Record

LARGEST_UPLOAD_BYTES = 150 * 1024**2
KEPT_DAYS = 7
NULL = "#N/A"

_DELIMITERS = {
    "COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`",
}  # fmt: skip
_LINE_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
_KNOWN = {
    "object", "operation", "contentType", "columnDelimiter", "lineEnding", "externalIdFieldName",
    "assignmentRuleId",
}  # fmt: skip
_ENDS = ("JobComplete", "Failed", "Aborted")


@dataclass
class _Work:
    """The rows of a job, and what became of them: the number of the row, and the id or error."""

    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    uploaded: bool = False
    wrong_ends: bool = False
    written: list[tuple[int, str, bool]] = field(default_factory=list)
    failed: list[tuple[int, str, str]] = field(default_factory=list)
    done: int = 0


def jobs(box: Box) -> Table:
    """The ingest jobs by id, as the API shows them."""
    return box.table(VENDOR, "_ingest_jobs", lambda table: None)


def job_orders(box: Box) -> Table:
    """How jobs go on: ``next`` for the next one that is made, or the id of a job.

    A row has `end`, which is Failed, Aborted or InProgress (it never ends), and `processed`, how
    many rows are done before. The order ``next`` is used up by a job.
    """
    return box.table(VENDOR, "_ingest_orders", lambda table: None)


class Ingest:
    """What answers below ``jobs/ingest``."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._work: dict[str, _Work] = {}

    async def answer(self, request: Request, version: str, parts: list[str]) -> Response:
        """Answer one request; `parts` is the path below ``jobs/ingest``.

        Raises:
            Refused: there is no such job, or it cannot be done to it.
        """
        if refuses := setting(self._box, "bulk").get("refuses"):
            raise Refused(refuses[0], refuses[1], "Bulk API is not available")
        match request.method, *parts:
            case ["POST"]:
                return Json(self._create(await object_sent(request), version))
            case ["GET"]:
                every = [row.body for row in jobs(self._box).rows(self._now)]
                return Json({"done": True, "records": every, "nextRecordsUrl": None})
            case "GET", id:
                return Json(self._advanced(id))
            case "PUT", id, "batches":
                self._upload(id, request.headers.get("content-type", ""), await request.body())
                return Response(status_code=201)
            case "PATCH", id:
                return Json(self._moved(id, await object_sent(request)))
            case "DELETE", id:
                self._delete(id)
                return Response(status_code=204)
            case "GET", id, "successfulResults":
                return self._successful(id)
            case "GET", id, "failedResults":
                return self._failed(id)
            case "GET", id, ("unprocessedrecords" | "unprocessedRecords"):
                return self._unprocessed(id)
        raise Refused(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed.")

    @property
    def _now(self) -> float:
        return self._box.now.timestamp()

    def _job(self, id: str) -> dict[str, Any]:
        row = jobs(self._box).get(id, self._now)
        too_old = row and row.body["state"] in _ENDS and (
            self._now - row.changed > KEPT_DAYS * 86_400
        )  # fmt: skip
        if row is None or too_old or id not in self._work:
            raise not_found()
        return row.body

    def _create(self, asked: dict[str, Any], version: str) -> dict[str, Any]:
        unknown = sorted(set(asked) - _KNOWN)
        if unknown:
            raise Refused(400, "JSON_PARSER_ERROR", f'Unrecognized field "{unknown[0]}"')
        operation = asked.get("operation")
        if operation not in ("insert", "update", "upsert"):
            raise Refused(400, "INVALIDJOB", f"operation {operation} is not supported")
        job = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"} | asked
        good = job["contentType"] == "CSV" and job["lineEnding"] in _LINE_ENDINGS
        if not good or job["columnDelimiter"] not in _DELIMITERS:
            raise Refused(400, "INVALIDJOB", "unsupported content type, delimiter or line ending")
        call = Call(self._box, "")
        job["object"] = call.known(asked.get("object"))
        if operation == "upsert":
            call.field(job["object"], str(asked.get("externalIdFieldName")))
        id = f"750{secrets.token_hex(6)}AAA"
        moment = moment_text(self._now)
        body = {
            "id": id, "state": "Open", **job, "createdById": INTEGRATION_USER,
            "createdDate": moment, "systemModstamp": moment, "concurrencyMode": "Parallel",
            "apiVersion": float(version), "jobType": "V2Ingest",
            "contentUrl": f"services/data/v{version}/jobs/ingest/{id}/batches",
        }  # fmt: skip
        self._work[id] = _Work()
        jobs(self._box).put(id, body, self._now)
        orders = job_orders(self._box)
        if order := orders.get("next", self._now):
            orders.put(id, order.body, self._now)
            orders.remove("next", self._now)
        return body

    def _put(self, id: str, **changes: Any) -> dict[str, Any]:
        body = self._job(id) | changes | {"systemModstamp": moment_text(self._now)}
        jobs(self._box).put(id, body, self._now)
        return body

    def _upload(self, id: str, kind: str, content: bytes) -> None:
        job, work = self._job(id), self._work[id]
        if job["state"] != "Open" or work.uploaded:
            raise Refused(400, "INVALIDJOBSTATE", "a job takes one upload while it is open")
        if not kind.startswith("text/csv"):
            raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", "the content has to be text/csv")
        if len(content) > LARGEST_UPLOAD_BYTES:
            raise Refused(413, "REQUEST_ENTITY_TOO_LARGE", "an upload may have 150 MB")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise Refused(400, "INVALIDBATCH", "the content has to be UTF-8") from None
        delimiter = _DELIMITERS[job["columnDelimiter"]]
        header = re.match(r'(?:"[^"]*"|[^"\r\n])*(\r?\n|$)', text)
        work.wrong_ends = bool(
            header and header.group(1) and header.group(1) != _LINE_ENDINGS[job["lineEnding"]]
        )
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            rows = [row for row in lines if row]
        except csv.Error:
            raise Refused(400, "INVALIDBATCH", "the content is no CSV") from None
        work.columns, work.rows = (rows[0], rows[1:]) if rows else ([], [])
        work.uploaded = True

    def _moved(self, id: str, asked: dict[str, Any]) -> dict[str, Any]:
        job, wanted = self._job(id), asked.get("state")
        if set(asked) != {"state"} or wanted not in ("UploadComplete", "Aborted"):
            raise Refused(400, "INVALIDJOB", "a state can be UploadComplete or Aborted")
        if wanted == "UploadComplete" and job["state"] != "Open":
            raise Refused(400, "INVALIDJOBSTATE", f"the job is {job['state']}")
        if wanted == "Aborted" and job["state"] in _ENDS:
            raise Refused(400, "INVALIDJOBSTATE", f"the job is {job['state']}")
        return self._put(id, state=wanted)

    def _delete(self, id: str) -> None:
        if self._job(id)["state"] not in _ENDS:
            raise Refused(400, "INVALIDJOBSTATE", "only a job that has ended can be deleted")
        jobs(self._box).remove(id, self._now)

    def _advanced(self, id: str) -> dict[str, Any]:
        """The job as it is now; by the next look it will have got further."""
        job, work = self._job(id), self._work[id]
        shown = job | {
            "numberRecordsProcessed": len(work.written) + len(work.failed),
            "numberRecordsFailed": len(work.failed), "retries": 0, "totalProcessingTime": work.done,
            "apiActiveProcessingTime": work.done, "apexProcessingTime": 0,
        }  # fmt: skip
        order = job_orders(self._box).get(id, self._now)
        if job["state"] == "UploadComplete":
            if order:
                self._work_on(id, order.body.get("processed", 0))
            self._put(id, state="InProgress")
        elif job["state"] == "InProgress":
            end = order.body["end"] if order else "JobComplete"
            if end == "Failed":
                self._put(id, state="Failed", errorMessage="InternalServerError : gave up")
            elif end in ("JobComplete", "Aborted"):
                self._end(id, end)
        return shown

    def _end(self, id: str, end: str) -> None:
        work = self._work[id]
        if work.wrong_ends:
            message = "InvalidBatch : the lines do not end as the job says"
            self._put(id, state="Failed", errorMessage=message)
            return
        try:
            if end == "JobComplete":
                self._work_on(id, len(work.rows))
        except Refused as refused:
            message = f"InvalidBatch : {refused.code} : {refused.message}"
            self._put(id, state="Failed", errorMessage=message)
            return
        self._put(id, state=end)

    def _work_on(self, id: str, up_to: int) -> None:
        """Do the rows up to a number, each on its own.

        Raises:
            Refused: a column is not a field; nothing is done then.
        """
        job, work = self._job(id), self._work[id]
        call = Call(self._box, f"jobs/ingest {job['operation']}", csv=True)
        for column in work.columns:
            call.field(job["object"], column)
        id_column = next((column for column in work.columns if column.lower() == "id"), "")
        for number in range(work.done, min(up_to, len(work.rows))):
            cells = dict(zip(work.columns, work.rows[number], strict=False))
            id_cell = cells.pop(id_column, "")
            try:
                if len(work.rows[number]) != len(work.columns):
                    raise RowRefused("INVALID_CSV", "the row has other columns than the header")
                done, created = _written(call, job, id_cell, cells)
                work.written.append((number, done, created))
            except RowRefused as refused:
                fields = ",".join(refused.fields)
                error = f"{refused.code}:{refused.message}:{fields} --"
                work.failed.append((number, id_cell, error))
        work.done = max(work.done, min(up_to, len(work.rows)))
        call.commit()

    def _ended(self, id: str) -> _Work:
        job = self._job(id)
        if job["state"] not in _ENDS:
            raise Refused(400, "INVALIDJOBSTATE", f"the job is {job['state']}")
        return self._work[id]

    def _successful(self, id: str) -> Response:
        work = self._ended(id)
        rows = [
            [done, "true" if created else "false", *work.rows[number]]
            for number, done, created in work.written
        ]
        return self._csv(id, ["sf__Id", "sf__Created", *work.columns], rows)

    def _failed(self, id: str) -> Response:
        work = self._ended(id)
        rows = [[failed, error, *work.rows[number]] for number, failed, error in work.failed]
        return self._csv(id, ["sf__Id", "sf__Error", *work.columns], rows)

    def _unprocessed(self, id: str) -> Response:
        work = self._ended(id)
        return self._csv(id, work.columns, work.rows[work.done :])

    def _csv(self, id: str, columns: list[str], rows: list[list[str]]) -> Response:
        """Rows in an order of their own: not the one in which they were uploaded."""
        job, text = self._job(id), io.StringIO()
        writer = csv.writer(
            text, delimiter=_DELIMITERS[job["columnDelimiter"]], quoting=csv.QUOTE_ALL,
            lineterminator=_LINE_ENDINGS[job["lineEnding"]],
        )  # fmt: skip
        writer.writerow(columns)
        writer.writerows(sorted(rows, key=lambda row: crc32("\0".join(row).encode())))
        headers = {"Sforce-NumberOfRecords": str(len(rows))}
        return Response(text.getvalue(), 200, headers, "text/csv")


def _written(call: Call, job: dict[str, Any], id: str, cells: dict[str, str]) -> tuple[str, bool]:
    """Keep back what one row wants; gives the record's id and whether it is new."""
    sent: Record = {key: None if value == NULL else value for key, value in cells.items()}
    name, given = job["object"], call.given(job["object"], sent)
    if job["operation"] == "update":
        if not id:
            raise RowRefused("MISSING_ARGUMENT", "Id not specified in an update call", ["Id"])
        return call.update(name, id, given), False
    if job["operation"] == "insert":
        return call.create(name, given), True
    key = call.field(name, job["externalIdFieldName"])
    value = id if key.name == "Id" else given.values.get(key.name)
    if not value:
        raise RowRefused("MISSING_ARGUMENT", f"{key.name} not specified", [key.name])
    found = call.found(name, key, value)
    return (call.update(name, found[0], given), False) if found else (
        call.create(name, given), True
    )  # fmt: skip
