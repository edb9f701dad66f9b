"""The sandbox's Salesforce: OAuth and SOAP login, SOQL by REST, Bulk 2.0 queries, describe, limits.

Mounted at the root of the TLS port, because the official Python client insists on https.
Credentials are checked first, and every request counts towards the daily allowance.
"""

import base64
import datetime as dt
import re
import secrets
from collections.abc import Callable
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import jwt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json
from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.salesforce_collections import Collections
from connectors.sandbox.vendors.salesforce_fields import described
from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, ORGANIZATION, VENDOR
from connectors.sandbox.vendors.salesforce_ingest import Ingest
from connectors.sandbox.vendors.salesforce_jobs import Jobs
from connectors.sandbox.vendors.salesforce_metadata import Tooling
from connectors.sandbox.vendors.salesforce_queries import one_row, selected
from connectors.sandbox.vendors.salesforce_schema import SCHEMA
from connectors.sandbox.vendors.salesforce_settings import (
    DAILY_REQUESTS,
    sessions,
    setting,
    settings,
)
from connectors.sandbox.vendors.salesforce_web import Refused, not_found

__all__ = ["routes", "sessions", "settings"]

CONSUMER_KEY = "sandbox-consumer-key"
CONSUMER_SECRET = "sandbox-consumer-secret"
USERNAME = "integration.user@lakeview.example"
PASSWORD = "sandbox-password"
SECURITY_TOKEN = "sandboxsecuritytoken"

BATCH = 2000
CURSORS_OPEN = 10
CURSOR_DAYS = 2
URI_BYTES = 16_384
_VERSIONS = range(31, 68)
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def routes(box: Box) -> list[Route]:
    """Everything below ``/services``."""
    org = _Org(box)
    return [
        Route("/services/oauth2/token", org.token, methods=["POST"]),
        Route("/services/oauth2/userinfo", org.userinfo),
        Route("/services/Soap/u/{version}", org.soap_login, methods=["POST"]),
        Route("/services/data/v{version}/{rest:path}", org.data, methods=_METHODS),
    ]


_METHODS = ["GET", "POST", "PATCH", "PUT", "DELETE"]


class _Org:
    """One Salesforce org: its sessions, its open cursors, its requests of the day."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._requests = 0
        self._cursors: dict[str, tuple[dt.datetime, list[dict]]] = {}
        self._jobs = Jobs(box)
        self._ingest = Ingest(box)
        self._collections = Collections(box)
        self._tooling = Tooling(box)

    @property
    def _now(self) -> float:
        return self._box.now.timestamp()

    async def token(self, request: Request) -> Response:
        """An access token for one of three grants."""
        form = dict(parse_qsl((await request.body()).decode()))
        grants: dict[str, Callable[[Request, dict[str, str]], str | None]] = {
            "client_credentials": self._client_credentials,
            "password": self._password,
            _JWT_GRANT: self._signed,
        }
        grant = grants.get(form.get("grant_type", ""))
        if grant is None:
            return Json({"error": "unsupported_grant_type", "error_description": "no"}, 400)
        if (error := grant(request, form)) is not None:
            return Json({"error": error, "error_description": "authentication failure"}, 400)
        instance = f"{request.url.scheme}://{request.url.netloc}"
        return Json({
            "access_token": self._opened(), "instance_url": instance, "token_type": "Bearer",
            "id": f"{instance}/id/{ORGANIZATION}/{INTEGRATION_USER}", "scope": "api",
            "issued_at": str(int(self._now * 1000)), "signature": secrets.token_urlsafe(16),
        })  # fmt: skip

    def _opened(self) -> str:
        token = f"{ORGANIZATION[:15]}!{secrets.token_urlsafe(32)}"
        sessions(self._box).put(token, {}, self._now)
        return token

    def _client_credentials(self, request: Request, form: dict[str, str]) -> str | None:
        given = form.get("client_id", ""), form.get("client_secret", "")
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        if kind == "Basic":
            given_key, _, given_secret = base64.b64decode(encoded).decode().partition(":")
            given = given_key, given_secret
        return _wrong_client(*given)

    def _password(self, request: Request, form: dict[str, str]) -> str | None:
        good = form.get("username") == USERNAME and form.get("password") in (
            PASSWORD, PASSWORD + SECURITY_TOKEN,
        )  # fmt: skip
        wrong = _wrong_client(form.get("client_id", ""), form.get("client_secret", ""))
        return wrong or (None if good else "invalid_grant")

    def _signed(self, request: Request, form: dict[str, str]) -> str | None:
        certificate = setting(self._box, "certificate")
        if not certificate:
            return "invalid_grant"
        try:
            claims = jwt.decode(
                form.get("assertion", ""), certificate["public_key"], algorithms=["RS256"],
                audience=["https://login.salesforce.com"], options={"require": ["exp"]},
            )  # fmt: skip
        except jwt.PyJWTError:
            return "invalid_grant"
        known = claims.get("iss") == CONSUMER_KEY and claims.get("sub") == USERNAME
        return None if known else "invalid_client_id"

    async def soap_login(self, request: Request) -> Response:
        """The oldest way in: user, and password and security token in one."""
        body = (await request.body()).decode()
        user, password = (_element(body, name) for name in ("username", "password"))
        if request.headers.get("soapaction") != "login" or (user, password) != (
            USERNAME, PASSWORD + SECURITY_TOKEN,
        ):  # fmt: skip
            fault = "<sf:exceptionCode>INVALID_LOGIN</sf:exceptionCode>"
            return Response(_ENVELOPE.format(f"<soapenv:Fault>{fault}</soapenv:Fault>"), 500, _XML)
        url = f"{request.url.scheme}://{request.url.netloc}{request.url.path}/{ORGANIZATION[:15]}"
        result = f"<serverUrl>{escape(url)}</serverUrl><sessionId>{self._opened()}</sessionId>"
        return Response(_ENVELOPE.format(f"<loginResponse>{result}</loginResponse>"), 200, _XML)

    async def userinfo(self, request: Request) -> Response:
        """Who the token belongs to."""
        if not self._is_known(request):
            return Response("Bad_OAuth_Token", 403, {"content-type": "text/html"})
        return Json({
            "sub": f"https://login.salesforce.com/id/{ORGANIZATION}/{INTEGRATION_USER}",
            "user_id": INTEGRATION_USER, "organization_id": ORGANIZATION,
            "preferred_username": USERNAME, "active": True,
        })  # fmt: skip

    async def data(self, request: Request) -> Response:
        """The REST API: who asks, whether they may, and what."""
        raw = request.scope["raw_path"] + b"?" + request.scope["query_string"]
        if len(raw) > URI_BYTES:
            return Response("URI Too Long", 414, {"content-type": "text/html"})
        self._requests += 1
        version = request.path_params["version"]
        try:
            if not self._is_known(request):
                raise Refused(401, "INVALID_SESSION_ID", "Session expired or invalid")
            if self._used > self._allowed:
                raise Refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
            if not re.fullmatch(r"\d\d\.0", version) or int(version[:2]) not in _VERSIONS:
                raise not_found()
            answer = await self._dispatch(request, version)
        except Refused as refused:
            answer = refused.answer()
        answer.headers["Sforce-Limit-Info"] = f"api-usage={self._used}/{self._allowed}"
        return answer

    @property
    def _used(self) -> int:
        return self._requests + int(setting(self._box, "api").get("used", 0))

    @property
    def _allowed(self) -> int:
        return int(setting(self._box, "api").get("allowed", DAILY_REQUESTS))

    def _is_known(self, request: Request) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return kind == "Bearer" and sessions(self._box).get(token, self._now) is not None

    async def _dispatch(self, request: Request, version: str) -> Response:
        parts = request.path_params["rest"].rstrip("/").split("/")
        match request.method, *parts:
            case "GET", ("query" | "queryAll") as kind:
                return self._query(request, version, deleted=kind == "queryAll")
            case "GET", ("query" | "queryAll"), locator:
                return self._more(locator, version)
            case "GET", "sobjects":
                return Json({"encoding": "UTF-8", "maxBatchSize": 200, "sobjects": [
                    {"name": name, "custom": name.endswith("__c"), "queryable": True}
                    for name in SCHEMA
                ]})  # fmt: skip
            case "GET", "sobjects", name, "describe":
                if (found := described(self._box, name)) is None:
                    raise not_found()
                return Json(found)
            case "GET", "limits":
                left = max(self._allowed - self._used, 0)
                return Json({"DailyApiRequests": {"Max": self._allowed, "Remaining": left}})
            case _, "jobs", "query", *rest:
                return await self._jobs.answer(request, version, rest)
            case _, "jobs", "ingest", *rest:
                return await self._ingest.answer(request, version, rest)
            case _, "composite", "sobjects", *rest:
                return await self._collections.answer(request, version, rest)
            case _, "sobjects", name, *_:
                return await self._collections.answer_one(request, version, name)
            case _, "tooling", *rest:
                return await self._tooling.answer(request, version, rest)
        raise not_found()

    def _query(self, request: Request, version: str, *, deleted: bool) -> Response:
        unknown = set(request.query_params) - {"q"}
        text = request.query_params.get("q", "")
        if unknown or not text:
            raise Refused(400, "MALFORMED_QUERY", "A query string has to be specified")
        query, found = selected(self._box, text, deleted=deleted)
        if query.counts:
            return Json({"totalSize": len(found), "done": True, "records": []})
        rows = [one_row(query, record, version) for record in found]
        cursor = f"01g{secrets.token_hex(6)}AAA"
        self._cursors[cursor] = (self._box.now, rows)
        while len(self._cursors) > CURSORS_OPEN:
            del self._cursors[next(iter(self._cursors))]
        wanted = re.search(r"batchSize=(\d+)", request.headers.get("sforce-query-options", ""))
        batch = min(max(int(wanted.group(1)), 200), BATCH) if wanted else BATCH
        return self._page(cursor, 0, self._box.page_size(VENDOR, batch), version)

    def _more(self, locator: str, version: str) -> Response:
        cursor, _, offset = locator.partition("-")
        opened, rows = self._cursors.get(cursor, (None, []))
        too_old = opened and self._box.now - opened > dt.timedelta(days=CURSOR_DAYS)
        if opened is None or too_old or not offset.isdigit() or int(offset) >= len(rows):
            raise Refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(cursor, int(offset), self._box.page_size(VENDOR, BATCH), version)

    def _page(self, cursor: str, offset: int, size: int, version: str) -> Response:
        rows, end = self._cursors[cursor][1], offset + size
        done = end >= len(rows)
        if done:
            del self._cursors[cursor]
            return Json({"totalSize": len(rows), "done": True, "records": rows[offset:]})
        url = f"/services/data/v{version}/query/{cursor}-{end}"
        return Json({
            "totalSize": len(rows), "done": False, "nextRecordsUrl": url,
            "records": rows[offset:end],
        })  # fmt: skip


_XML = {"content-type": "text/xml; charset=UTF-8"}
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:sf="urn:fault.partner.soap.sforce.com" xmlns="urn:partner.soap.sforce.com">'
    "<soapenv:Body>{}</soapenv:Body></soapenv:Envelope>"
)


def _element(body: str, name: str) -> str:
    found = re.search(rf"<(?:\w+:)?{name}>([^<]*)</", body)
    return found.group(1) if found else ""


def _wrong_client(key: str, secret: str) -> str | None:
    if key != CONSUMER_KEY:
        return "invalid_client_id"
    return None if secret == CONSUMER_SECRET else "invalid_client"
