"""Typeform's API, as strict as the real one: one form, the company's CSAT."""

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table

FORM = "cSat9LkV"
SCORE = {"id": "WOTdC00F8A3h", "ref": "satisfaction", "type": "opinion_scale"}
COMMENT = {"id": "DlXFaesGBpoF", "ref": "why", "type": "long_text"}
_ZONE = ZoneInfo("Europe/Berlin")
_KNOWN = {
    "page_size", "since", "until", "after", "before", "sort", "query", "fields", "completed",
    "response_type", "included_response_ids", "excluded_response_ids",
}  # fmt: skip

Handler = Callable[[Request], Response]


def routes(box: Box) -> list[Route]:
    """The routes below the vendor's prefix."""
    server = _Server(box)
    return [
        Route("/me", server.guarded(server.me)),
        Route("/forms", server.guarded(server.forms)),
        Route("/forms/{form}", server.guarded(server.form)),
        Route("/forms/{form}/responses", server.guarded(server.responses)),
    ]


class _Refused(Refused):
    def __init__(self, status: int, code: str, description: str) -> None:
        super().__init__(status, {"code": code, "description": description})


class _Server:
    def __init__(self, box: Box) -> None:
        self.box = box

    def guarded(self, handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            try:
                self._authenticate(request)
                return handler(request)
            except _Refused as refused:
                return refused.answer()

        return handle

    def _authenticate(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise _Refused(403, "AUTHENTICATION_FAILED", "No credentials in the headers")
        if token != self.box.token("typeform"):
            raise _Refused(401, "AUTHENTICATION_FAILED", "Invalid credentials")

    @property
    def answers(self) -> Table:
        return self.box.table("typeform", "responses", lambda table: _fill(table, self.box))

    @property
    def definitions(self) -> Table:
        return self.box.table("typeform", "forms", _fill_forms)

    @property
    def now(self) -> float:
        return self.box.now.timestamp()

    def me(self, request: Request) -> Response:
        return Json({
            "user_id": "01H7LAKEVIEW0SANDBOX",
            "email": "owner@lakeview.example",
            "alias": "Lakeview",
            "language": "en",
        })  # fmt: skip

    def forms(self, request: Request) -> Response:
        rows = self.definitions.rows(self.now)
        items = [
            {"id": row.id, "title": row.body["title"], "settings": {"is_public": True},
             "last_updated_at": _text(row.changed), "created_at": _text(row.created),
             "self": {"href": f"{self.box.address('typeform')}/forms/{row.id}"},
             "_links": {"display": f"https://lakeview.typeform.com/to/{row.id}"}}
            for row in rows
        ]  # fmt: skip
        return Json({"total_items": len(items), "page_count": 1, "items": items})

    def form(self, request: Request) -> Response:
        return Json(self._form(request).body)

    def _form(self, request: Request) -> Row:
        row = self.definitions.get(request.path_params["form"], self.now)
        if row is None:
            raise _Refused(404, "FORM_NOT_FOUND", "Non existing form with uid")
        return row

    def responses(self, request: Request) -> Response:
        form, query = self._form(request), request.query_params
        if unknown := sorted(set(query) - _KNOWN):
            raise _bad(f"unknown parameter {unknown[0]}")
        size = _size(query)
        rows = [row for row in self.answers.rows(self.now) if row.body["form_id"] == form.id]
        wanted = query.get("response_type", "completed").split(",")
        rows = [row for row in rows if row.body["response_type"] in wanted]
        rows = _by_token(rows, query) if {"before", "after"} & set(query) else _by_time(rows, query)
        given = rows[: self.box.page_size("typeform", size)]
        return Json({
            "total_items": len(rows),
            "page_count": -(-len(rows) // size),
            "items": [_item(row) for row in given],
        })  # fmt: skip


def _bad(description: str) -> _Refused:
    return _Refused(400, "VALIDATION_ERROR", description)


def _size(query: Mapping[str, str]) -> int:
    size = query.get("page_size", "25")
    if not size.isdigit() or not 1 <= int(size) <= 1000:
        raise _bad("page_size must be between 1 and 1000")
    return int(size)


def _by_time(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """Between the bounds, which are included; the newest first unless asked otherwise."""
    sort = query.get("sort", "submitted_at,desc")
    if sort not in ("submitted_at,desc", "submitted_at,asc"):
        raise _bad("sort must be submitted_at,desc or submitted_at,asc")
    since, until = _epoch(query.get("since")), _epoch(query.get("until"))
    rows = [
        row for row in rows
        if (since is None or row.body["submitted"] >= since)
        and (until is None or row.body["submitted"] <= until)
    ]  # fmt: skip
    rows.sort(key=lambda row: (row.body["submitted"], row.id), reverse=sort.endswith("desc"))
    return rows


def _by_token(rows: list[Row], query: Mapping[str, str]) -> list[Row]:
    """In the order of processing; a token and a time at once are refused."""
    if {"since", "until"} & set(query) or {"before", "after"} <= set(query):
        raise _bad("before, after and since/until exclude each other")
    token = query.get("before") or query["after"]
    places = [place for place, row in enumerate(rows) if row.id == token]
    if not places:
        raise _bad("unknown token")
    return rows[: places[0]][::-1] if "before" in query else rows[places[0] + 1 :]


def _epoch(text: str | None) -> float | None:
    """Epoch seconds, or ISO 8601 in UTC."""
    if text is None or text.isdigit():
        return None if text is None else float(text)
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise _bad("dates must be epoch seconds or like 2026-01-31T09:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _text(moment: float) -> str:
    return f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _item(row: Row) -> dict[str, Any]:
    body = row.body
    return {
        "landing_id": row.id,
        "token": row.id,
        "response_id": row.id,
        "landed_at": _text(body["submitted"] - 45),
        "submitted_at": _text(body["submitted"]),
        "response_type": body["response_type"],
        "metadata": {
            "user_agent": "Mozilla/5.0", "platform": "other", "browser": "default",
            "referer": f"https://lakeview.typeform.com/to/{body['form_id']}",
            "network_id": row.id[:10],
        },
        "hidden": body["hidden"],
        "calculated": {"score": 0},
        "answers": body["answers"],
    }  # fmt: skip


def _fill_forms(table: Table) -> None:
    labels = {"left": "Not at all", "right": "Very"}
    scale = {"steps": 5, "start_at_one": True, "labels": labels}
    fields = [
        SCORE | {"title": "How content are you with the training?", "properties": scale,
                 "validations": {"required": True}},
        COMMENT | {"title": "Why?", "properties": {}, "validations": {"required": False}},
    ]  # fmt: skip
    body = {
        "id": FORM,
        "type": "form",
        "title": "After the training",
        "workspace": {"href": "https://api.typeform.com/workspaces/Lk5e9P"},
        "theme": {"href": "https://api.typeform.com/themes/default"},
        "settings": {"language": "en", "is_public": True},
        "hidden": ["email", "crm_account_no", "role"],
        "fields": fields,
        "_links": {"display": f"https://lakeview.typeform.com/to/{FORM}"},
    }
    table.put(FORM, body, at=0)


def _fill(table: Table, box: Box) -> None:
    for answer in box.world.rows("surveys/csat.csv"):
        try:
            wall_clock = dt.datetime.fromisoformat(answer["answered_at"])
        except ValueError:
            continue  # dirt that no survey tool could hold, as is an answer without an id
        if answer["response_id"] is None:
            continue
        submitted = wall_clock.replace(tzinfo=_ZONE).timestamp()
        token = hashlib.sha256(answer["response_id"].encode()).hexdigest()[:32]
        table.put(token, response(answer, submitted), at=submitted)


def response(answer: Mapping[str, Any], submitted: float) -> dict[str, Any]:
    """A completed answer, given at the epoch second `submitted`."""
    hidden = {name: answer[name] or "" for name in ("email", "crm_account_no", "role")}
    score = {"type": "number", "number": int(answer["score"]), "field": SCORE}
    comment = {"type": "text", "text": "It helped us a lot.", "field": COMMENT}
    return {
        "form_id": FORM,
        "response_type": "completed",
        "submitted": submitted,
        "hidden": hidden,
        "answers": [score, comment],
    }
