"""SurveyMonkey's API v3, as strict as the real one: one survey, the company's NPS."""

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.sandbox.servers.answers import Json, Refused
from connectors.sandbox.servers.box import Box, Row, Table

SURVEY = "412000017"
PAGE = "118000117"
QUESTION = "881000117"
COMMENT = "881000118"
MINUTE_LIMIT, DAY_LIMIT = 120, 500
_WEIGHTS = [-100] * 7 + [0] * 2 + [100] * 2
_ZONE = ZoneInfo("Europe/Berlin")
_STATUSES = {"completed", "partial", "overquota", "disqualified"}
_PAGING = {"page", "per_page"}
_FILTERS = {
    "start_created_at", "end_created_at", "start_modified_at", "end_modified_at", "status",
    "sort_by", "sort_order", "email", "question_ids", "page_ids", "collector_ids",
}  # fmt: skip

Handler = Callable[[Request], Response]


def routes(box: Box) -> list[Route]:
    """The routes below the vendor's prefix."""
    server = _Server(box)
    return [
        Route("/v3/users/me", server.guarded(server.me)),
        Route("/v3/surveys", server.guarded(server.surveys)),
        Route("/v3/surveys/{survey}", server.guarded(server.survey)),
        Route("/v3/surveys/{survey}/details", server.guarded(server.details)),
        Route("/v3/surveys/{survey}/responses/bulk", server.guarded(server.responses)),
    ]


class _Refused(Refused):
    def __init__(self, status: int, id: str, name: str, message: str) -> None:
        error = {
            "docs": "https://developer.surveymonkey.com/api/v3/#error-codes",
            "message": message, "id": id, "name": name, "http_status_code": status,
        }  # fmt: skip
        super().__init__(status, {"error": error})


def _bad(message: str) -> _Refused:
    return _Refused(400, "1001", "Bad Request", message)


class _Server:
    """What is common to all routes: authentication, rate headers, errors."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.asked = 0

    def guarded(self, handler: Handler) -> Handler:
        def handle(request: Request) -> Response:
            try:
                self._authenticate(request)
                response = handler(request)
            except _Refused as refused:
                response = refused.answer()
            self.asked += 1
            # The sandbox's clock may stand still, so its budgets are shown but never used up.
            for span, limit, reset in (("Minute", MINUTE_LIMIT, 60), ("Day", DAY_LIMIT, 86_400)):
                name = f"X-Ratelimit-App-Global-{span}"
                response.headers[f"{name}-Limit"] = str(limit)
                response.headers[f"{name}-Remaining"] = str(limit - 1 - self.asked % (limit - 1))
                response.headers[f"{name}-Reset"] = str(reset)
            return response

        return handle

    def _authenticate(self, request: Request) -> None:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if not token or kind.lower() != "bearer":
            raise _Refused(401, "1010", "Authorization Error", "No token was provided.")
        if token != self.box.token("surveymonkey"):
            raise _Refused(401, "1011", "Authorization Error", "The token is not valid.")

    @property
    def answers(self) -> Table:
        return self.box.table("surveymonkey", "responses", lambda table: _fill(table, self.box))

    @property
    def questionnaires(self) -> Table:
        return self.box.table("surveymonkey", "surveys", _fill_surveys)

    @property
    def now(self) -> float:
        return self.box.now.timestamp()

    def me(self, request: Request) -> Response:
        _only(request.query_params, set())
        scopes = ["users_read", "surveys_read", "responses_read", "responses_read_detail"]
        return Json({
            "id": "90210017",
            "username": "lakeview",
            "first_name": "Ada",
            "last_name": "Sandbox",
            "account_type": "enterprise_platinum",
            "language": "en",
            "email": "owner@lakeview.example",
            "href": self._address("/users/me"),
            "date_created": "2020-01-07T09:00:00+00:00",
            "date_last_login": "2026-01-05T09:00:00.000000+00:00",
            "scopes": {"available": scopes, "granted": scopes},
        })  # fmt: skip

    def surveys(self, request: Request) -> Response:
        _only(request.query_params, _PAGING | {"include", "sort_by", "sort_order", "title"})
        page, size = _page(request.query_params, most=1000)
        rows = [
            {"id": row.id, "title": row.body["title"], "nickname": "",
             "href": self._address(f"/surveys/{row.id}")}
            for row in self.questionnaires.rows(self.now)
        ]  # fmt: skip
        return Json(self._list("/surveys", request, rows, page, size))

    def survey(self, request: Request) -> Response:
        return Json({k: v for k, v in self._survey(request).items() if k != "pages"})

    def details(self, request: Request) -> Response:
        body = self._survey(request)
        if sum(len(page["questions"]) for page in body["pages"]) > 1000:
            raise _Refused(413, "1030", "Request Entity Too Large", "The survey is too large.")
        return Json(body)

    def _survey(self, request: Request) -> dict[str, Any]:
        _only(request.query_params, set())
        row = self.questionnaires.get(request.path_params["survey"], self.now)
        if row is None:
            raise _Refused(404, "1020", "Resource Not Found", "There was an error retrieving it.")
        number = sum(r.body["survey_id"] == row.id for r in self.answers.rows(self.now))
        return row.body | {
            "id": row.id,
            "href": self._address(f"/surveys/{row.id}"),
            "response_count": number,
        }

    def responses(self, request: Request) -> Response:
        query, survey = request.query_params, request.path_params["survey"]
        if self.questionnaires.get(survey, self.now) is None:
            raise _Refused(404, "1020", "Resource Not Found", "There was an error retrieving it.")
        _only(query, _PAGING | _FILTERS)
        page, size = _page(query, most=100)
        if query.get("sort_by", "date_modified") != "date_modified":
            raise _bad("sort_by must be date_modified")
        if (order := query.get("sort_order", "ASC")) not in ("ASC", "DESC"):
            raise _bad("sort_order must be ASC or DESC")
        rows = [r for r in self.answers.rows(self.now) if r.body["survey_id"] == survey]
        rows = [row for row in rows if _wanted(row, query)]
        if order == "DESC":
            rows.reverse()
        bodies = [self._response(row, query.get("question_ids")) for row in rows]
        path = f"/surveys/{survey}/responses/bulk"
        return Json(self._list(path, request, bodies, page, size))

    def _response(self, row: Row, question_ids: str | None) -> dict[str, Any]:
        body = row.body | {
            "id": row.id,
            "href": self._address(f"/surveys/{row.body['survey_id']}/responses/{row.id}"),
            "date_modified": _changed(row).isoformat(),
        }
        if question_ids:
            wanted = set(question_ids.split(","))
            body["pages"] = [
                page | {"questions": [q for q in page["questions"] if q["id"] in wanted]}
                for page in body["pages"]
            ]
        return body

    def _list(
        self, path: str, request: Request, rows: list[dict[str, Any]], page: int, size: int
    ) -> dict[str, Any]:
        size = self.box.page_size("surveymonkey", size)
        last = max(1, -(-len(rows) // size))

        def link(number: int) -> str:
            query = dict(request.query_params) | {"page": str(number), "per_page": str(size)}
            return f"{self._address(path)}?{urlencode(query)}"

        links = {"self": link(page)}
        if page < last:
            links |= {"next": link(page + 1), "last": link(last)}
        if page > 1:
            links |= {"prev": link(page - 1), "first": link(1)}
        return {
            "data": rows[(page - 1) * size : page * size],
            "per_page": size,
            "page": page,
            "total": len(rows),
            "links": links,
        }

    def _address(self, path: str) -> str:
        return f"{self.box.address('surveymonkey')}/v3{path}"


def _only(query: Mapping[str, str], known: set[str]) -> None:
    if unknown := sorted(set(query) - known):
        raise _bad(f"{unknown[0]} is not a valid parameter")


def _page(query: Mapping[str, str], *, most: int) -> tuple[int, int]:
    page, size = query.get("page", "1"), query.get("per_page", "50")
    if not page.isdigit() or int(page) < 1:
        raise _bad("page must be a positive number")
    if not size.isdigit() or not 1 <= int(size) <= most:
        raise _bad(f"per_page must be between 1 and {most}")
    return int(page), int(size)


def _wanted(row: Row, query: Mapping[str, str]) -> bool:
    status = query.get("status", row.body["response_status"])
    if status not in _STATUSES:
        raise _bad("status is not a valid choice")
    if status != row.body["response_status"]:
        return False
    created = dt.datetime.fromisoformat(row.body["date_created"])
    for name, moment in (("modified", _changed(row)), ("created", created)):
        if f"start_{name}_at" in query and moment < _moment(query[f"start_{name}_at"]):
            return False
        if f"end_{name}_at" in query and moment > _moment(query[f"end_{name}_at"]):
            return False
    return True


def _changed(row: Row) -> dt.datetime:
    return dt.datetime.fromtimestamp(row.changed, dt.UTC).replace(microsecond=0)


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise _bad("dates must be like 2026-01-31T09:00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _choice(score: int) -> str:
    return str(6_620_001_170 + score)


def _fill_surveys(table: Table) -> None:
    """A net promoter question as SurveyMonkey builds it: its weights are not the answers."""
    choices = [
        {"id": _choice(score), "text": str(score), "position": score + 1, "visible": True,
         "weight": weight, "is_na": False, "description": "", "quiz_options": {"score": 0}}
        for score, weight in enumerate(_WEIGHTS)
    ]  # fmt: skip
    row = {"id": "6620000999", "text": "", "position": 1, "visible": True}
    question = {
        "id": QUESTION, "position": 1, "visible": True, "family": "matrix", "subtype": "rating",
        "headings": [{"heading": "How likely are you to recommend Lakeview?"}],
        "sorting": None, "required": None, "validation": None, "forced_ranking": False,
        "answers": {"rows": [row], "choices": choices},
    }  # fmt: skip
    comment = {
        "id": COMMENT, "position": 2, "visible": True, "family": "open_ended",
        "subtype": "essay", "headings": [{"heading": "Why?"}], "sorting": None,
        "required": None, "validation": None, "forced_ranking": False,
    }  # fmt: skip
    page = {
        "id": PAGE, "title": "", "description": "", "position": 1, "question_count": 2,
        "questions": [question, comment],
    }  # fmt: skip
    body = {
        "title": "Net promoter score", "nickname": "", "language": "en", "folder_id": "0",
        "category": "customer_feedback", "question_count": 2, "page_count": 1,
        "date_created": "2024-06-03T08:00:00", "date_modified": "2024-06-03T09:30:00",
        "buttons_text": {"next_button": "", "prev_button": "", "done_button": "Done",
                         "exit_button": ""},
        "is_owner": True, "footer": True, "custom_variables": {"crm_account_no": "", "role": ""},
        "edit_url": "https://www.surveymonkey.com/create/", "preview": "",
        "collect_url": "https://www.surveymonkey.com/collect/list",
        "analyze_url": "https://www.surveymonkey.com/analyze/",
        "summary_url": "https://www.surveymonkey.com/summary/",
        "pages": [page],
    }  # fmt: skip
    table.put(SURVEY, body, at=0)


def _fill(table: Table, box: Box) -> None:
    for number, answer in enumerate(box.world.rows("surveys/nps.csv")):
        try:
            wall_clock = dt.datetime.fromisoformat(answer["answered_at"])
        except ValueError:
            continue  # dirt that no survey tool could hold, as is an answer without an id
        if answer["response_id"] is None:
            continue
        answered = wall_clock.replace(tzinfo=_ZONE).astimezone(dt.UTC)
        id = str(11_800_000_001 + 7 * number)
        table.put(id, response(answer, answered), at=answered.timestamp())


def response(answer: Mapping[str, Any], answered: dt.datetime) -> dict[str, Any]:
    """A completed answer of an invited contact, without what its row tells."""
    seconds = 20 + int(hashlib.sha256(answer["email"].encode()).hexdigest()[:4], 16) % 200
    variables = {"crm_account_no": answer["crm_account_no"], "role": answer["role"]}
    score = int(answer["score"])
    chosen = {"choice_id": _choice(score), "row_id": "6620000999",
              "choice_metadata": {"weight": str(_WEIGHTS[score])}}  # fmt: skip
    questions = [
        {"id": QUESTION, "answers": [chosen]},
        {"id": COMMENT, "answers": [{"text": "We would say more in person."}]},
    ]
    return {
        "survey_id": SURVEY,
        "collector_id": "440000117",
        "recipient_id": "550000117",
        "response_status": "completed",
        "collection_mode": "default",
        "custom_value": "",
        "custom_variables": {name: value for name, value in variables.items() if value},
        "ip_address": "192.0.2.17",
        "edit_url": "https://www.surveymonkey.com/r/",
        "analyze_url": "https://www.surveymonkey.com/analyze/browse/",
        "logic_path": {},
        "page_path": [],
        "metadata": {"contact": {"email": {"type": "string", "value": answer["email"]}}},
        "total_time": seconds,
        "date_created": (answered - dt.timedelta(seconds=seconds)).isoformat(),
        "pages": [{"id": PAGE, "questions": questions}],
    }
