"""Bulk 2.0 query jobs: made, worked on while they are looked at, and their results as CSV."""

import csv
import io
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.answers import Json
from connectors.sandbox.servers.box import Box, Table
from connectors.sandbox.vendors.salesforce_objects import VENDOR
from connectors.sandbox.vendors.salesforce_queries import selected
from connectors.sandbox.vendors.salesforce_web import Refused, not_found, object_sent
from connectors.sandbox.vendors.soql import Query, Record, value_of

LARGEST_PAGE = 250_000
_DELIMITERS = {"COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^"}
_DELIMITERS["BACKQUOTE"] = "`"
_LINE_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
_KNOWN = {"operation", "query", "contentType", "columnDelimiter", "lineEnding"}
_NEXT_STATE = {"UploadComplete": "InProgress", "InProgress": "JobComplete"}


def jobs(box: Box) -> Table:
    """The jobs by id. A `state` that a test puts is kept if it is an end, such as Failed."""
    return box.table(VENDOR, "_query_jobs", lambda table: None)


class Jobs:
    """What answers below ``jobs/query``."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._results: dict[str, tuple[Query, list[Record]]] = {}

    async def answer(self, request: Request, version: str, parts: list[str]) -> Response:
        """Answer one request; `parts` is the path below ``jobs/query``.

        Raises:
            Refused: there is no such job, or it cannot be done to it.
        """
        match request.method, *parts:
            case ["POST"]:
                return self._create(await object_sent(request), version)
            case ["GET"]:
                every = [row.body for row in jobs(self._box).rows(self._now)]
                return Json({"done": True, "records": every, "nextRecordsUrl": None})
            case "GET", id:
                return Json(self._advanced(id))
            case "GET", id, "results":
                return self._page(id, request)
            case "PATCH", id:
                return self._abort(id, await object_sent(request))
            case "DELETE", id:
                return self._delete(id)
        raise Refused(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed.")

    @property
    def _now(self) -> float:
        return self._box.now.timestamp()

    def _job(self, id: str) -> dict[str, Any]:
        row = jobs(self._box).get(id, self._now)
        if row is None:
            raise not_found()
        return row.body

    def _create(self, asked: dict[str, Any], version: str) -> Response:
        unknown = sorted(set(asked) - _KNOWN)
        if unknown:
            raise Refused(400, "JSON_PARSER_ERROR", f'Unrecognized field "{unknown[0]}"')
        if asked.get("operation") not in ("query", "queryAll"):
            raise Refused(400, "INVALIDJOB", "operation must be query or queryAll")
        job = {"contentType": "CSV", "columnDelimiter": "COMMA", "lineEnding": "LF"} | asked
        good = job["contentType"] == "CSV" and job["lineEnding"] in _LINE_ENDINGS
        if not good or job["columnDelimiter"] not in _DELIMITERS:
            raise Refused(400, "INVALIDJOB", "unsupported content type, delimiter or line ending")
        text, deleted = str(asked.get("query", "")), asked["operation"] == "queryAll"
        query, found = selected(self._box, text, deleted=deleted)
        if query.counts or query.offset:
            raise Refused(400, "API_ERROR", "COUNT() and OFFSET are not supported in Bulk API 2.0")
        id = f"750{secrets.token_hex(6)}AAA"
        self._results[id] = (query, found)
        body = {
            "id": id, "object": query.object, "state": "UploadComplete", **job,
            "apiVersion": float(version), "concurrencyMode": "Parallel",
        }  # fmt: skip
        jobs(self._box).put(id, body, self._now)
        return Json(body)

    def _advanced(self, id: str) -> dict[str, Any]:
        """The job as it is now; by the next look it will have got further."""
        job = self._job(id)
        following = _NEXT_STATE.get(job["state"])
        if following:
            jobs(self._box).put(id, job | {"state": following}, self._now)
        return job | {"numberRecordsProcessed": len(self._results[id][1]), "retries": 0}

    def _abort(self, id: str, asked: dict[str, Any]) -> Response:
        job = self._job(id)
        if asked != {"state": "Aborted"} or job["state"] not in _NEXT_STATE:
            raise Refused(400, "INVALIDJOBSTATE", "a job that runs can be set to Aborted")
        jobs(self._box).put(id, job | {"state": "Aborted"}, self._now)
        return Json(self._job(id))

    def _delete(self, id: str) -> Response:
        if self._job(id)["state"] in _NEXT_STATE:
            raise Refused(400, "INVALIDJOBSTATE", "a job that runs cannot be deleted")
        jobs(self._box).remove(id, self._now)
        return Response(status_code=204)

    def _page(self, id: str, request: Request) -> Response:
        job = self._job(id)
        if job["state"] != "JobComplete":
            raise Refused(400, "INVALIDJOBSTATE", f"the job is {job['state']}")
        unknown = set(request.query_params) - {"locator", "maxRecords"}
        locator = request.query_params.get("locator", "0")
        asked = request.query_params.get("maxRecords", str(LARGEST_PAGE))
        if unknown or not locator.isdigit() or not asked.isdigit() or int(asked) < 1:
            raise Refused(400, "INVALID_LOCATOR", "malformed locator or maxRecords")
        query, found = self._results[id]
        begin = int(locator)
        end = begin + self._box.page_size(VENDOR, min(int(asked), LARGEST_PAGE))
        page = found[begin:end]
        headers = {
            "Sforce-NumberOfRecords": str(len(page)),
            "Sforce-Locator": str(end) if end < len(found) else "null",
        }
        return Response(_csv(job, query, page), 200, headers, "text/csv")


def _csv(job: dict[str, Any], query: Query, page: list[Record]) -> str:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=_DELIMITERS[job["columnDelimiter"]], quoting=csv.QUOTE_ALL,
        lineterminator=_LINE_ENDINGS[job["lineEnding"]],
    )  # fmt: skip
    writer.writerow([".".join(path) for path in query.columns])
    writer.writerows([_cell(value_of(record, path)) for path in query.columns] for record in page)
    return text.getvalue()


def _cell(value: object) -> str:
    """A value as Bulk 2.0 writes it: times end in Z here, and null is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return f"{text[:-5]}Z" if text.endswith(".000+0000") else text
