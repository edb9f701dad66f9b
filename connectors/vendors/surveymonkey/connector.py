"""SurveyMonkey's API v3: the scores that people gave in the surveys that are named in the settings.

- 120 requests a minute and 500 a day for a private app: a survey without new answers costs one
  request. What its question looks like is asked once and remembered.
- Pages of at most 100, by `links.next`. Answers are ordered by `date_modified`; one that is changed
  meanwhile moves to the end and shifts the pages, so the number of answers must equal `total`.
- `start_modified_at` is UTC without an offset. Whether it includes its own second is not said,
  hence the overlap.
- Partial answers come too; `response_status` tells them.
- In a net promoter question the weights of the choices are -100, 0 and 100, not the answers: the
  place of a choice counts there.
- Free text never leaves SurveyMonkey: only the answers to the question of the score are asked for.
- Answers that are deleted vanish without a trace.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dlt.sources.helpers.rest_client.paginators import JSONLinkPaginator
from pydantic import Field
from requests import Response

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners, Wait
from connectors.vendors.surveymonkey.questions import Question, question_of
from contracts.company import Strict
from contracts.errors import SourceCorrupt, SourceUnavailable

ADDRESSES = {
    "us": "https://api.surveymonkey.com",
    "eu": "https://api.eu.surveymonkey.com",
    "ca": "https://api.surveymonkey.ca",
}
PAGE_SIZE = 100
OVERLAP = dt.timedelta(minutes=10)
READINGS = 3
"""How often a survey is read when answers change while it is being read."""


class Survey(Strict):
    """A survey to read. `kind`, `question` and `scale` may be left out where the survey has one
    net promoter question. Custom variables carry the CRM's number and the person's role; the e-mail
    address is a custom variable too, or that of the invited contact.
    """

    id: str = Field(pattern=r"^\d+$", coerce_numbers_to_str=True)
    kind: Literal["nps", "csat", "ces", "custom"] | None = None
    question: str | None = Field(default=None, pattern=r"^\d+$", coerce_numbers_to_str=True)
    scale: float | None = Field(default=None, ge=1)
    account_variable: str = "crm_account_no"
    role_variable: str = "role"
    email_variable: str = "email"


class Config(ApiConfig):
    """Settings in ``sources/<name>.yaml``."""

    type: Literal["surveymonkey"]
    token: FromEnvironment
    region: Literal["us", "eu", "ca"] = "us"
    surveys: list[Survey] = Field(min_length=1)


def judge(response: Response) -> Wait | None:
    """A 429 tells in its headers which limit was reached, and in how many seconds it ends."""
    if response.status_code != 429:
        return None
    for span in ("Day", "Minute"):
        limit = f"X-Ratelimit-App-Global-{span}"
        if response.headers.get(f"{limit}-Remaining") == "0":
            seconds = float(response.headers[f"{limit}-Reset"])
            return Wait(f"allows no more requests this {span.lower()}", seconds)
    return None


def connect(config: Config, secrets: Secrets) -> Http:
    """The client, below the API's version."""
    return Http(
        f"{config.address or ADDRESSES[config.region]}/v3",
        # Not 500 a day: other programs use that budget too, and their number is in the headers.
        Manners("surveymonkey", limits=(Limit(120, 60),), judge=judge),
        headers={"Authorization": f"Bearer {secrets.of(config.token)}"},
    )


def account(client: Http, config: Config) -> str:
    """The id of the user behind the token."""
    return f"user {client.get('/users/me')['id']}"


def read_responses(reading: Reading[Config]) -> Iterator[Rows]:
    """Every survey, from its newest answer on; from the beginning when its settings changed."""
    known = reading.position.get("surveys", {})
    reading.position["surveys"] = {}
    for survey in reading.config.surveys:
        settings = survey.model_dump(mode="json")
        state = dict(known.get(survey.id, {}))
        if state.get("settings") != settings:
            state = {"settings": settings}
        yield from _Reader(reading, survey, state).pages()
        reading.position["surveys"][survey.id] = state


@dataclass
class _Reader:
    """Reads one survey. `state` is what is remembered: settings, question and newest answer."""

    reading: Reading[Config]
    survey: Survey
    state: dict[str, Any]
    is_up_to_date: bool = False

    def pages(self) -> Iterator[Rows]:
        question = self._question()
        since = dt.datetime.combine(self.reading.history_start, dt.time(), dt.UTC)
        if newest := self.state.get("newest"):
            since = dt.datetime.fromisoformat(newest) - OVERLAP
        for _ in range(READINGS):
            paginator = _Pages("links.next")
            seen: set[str] = set()
            for page in self.reading.client.pages(
                f"/surveys/{self.survey.id}/responses/bulk",
                records="data",
                paginator=paginator,
                params={
                    "per_page": PAGE_SIZE,
                    "sort_by": "date_modified",
                    "sort_order": "ASC",
                    "start_modified_at": f"{since.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S}",
                    "question_ids": question.id,
                },
            ):
                seen |= {response["id"] for response in page}
                yield [self._row(response) for response in page]
            if len(seen) >= paginator.total:
                return
        raise SourceUnavailable(
            f"the answers to survey {self.survey.id} changed all the time while they were read",
            "try again later",
        )

    def _question(self, *, again: bool = False) -> Question:
        """The question of the score, as remembered or (once in a reading) asked for."""
        if "question" not in self.state or (again and not self.is_up_to_date):
            self.is_up_to_date = True
            details = self.reading.client.get(f"/surveys/{self.survey.id}/details")
            found = question_of(details, self.survey.id, self.survey.kind, self.survey.question)
            self.state["question"] = found.to_json()
        return Question.from_json(self.state["question"])

    def _row(self, response: dict[str, Any]) -> dict[str, Any]:
        question = self._question()
        answers = _answers(response, question.id)
        if not question.knows(answers):  # a choice was added since
            question = self._question(again=True)
        newest = self.state.get("newest", "")
        self.state["newest"] = max(newest, _utc(response["date_modified"]))
        variables = response.get("custom_variables") or {}
        return {
            "id": response["id"],
            "survey_id": self.survey.id,
            "question_id": question.id,
            "response_status": response.get("response_status"),
            "collection_mode": response.get("collection_mode"),
            "date_created": response["date_created"],
            "date_modified": response["date_modified"],
            "total_time": response.get("total_time"),
            "kind": question.kind,
            "score": question.score(answers),
            "scale": self.survey.scale or question.highest,
            "email": variables.get(self.survey.email_variable) or _invited(response),
            "account_no": variables.get(self.survey.account_variable),
            "role": variables.get(self.survey.role_variable),
        }


class _Pages(JSONLinkPaginator):
    """Follows `links.next` and keeps the `total` of the last page."""

    total = 0

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        super().update_state(response, data)
        self.total = int(response.json().get("total") or 0)


def _answers(response: dict[str, Any], question: str) -> list[dict[str, Any]]:
    return [
        answer
        for page in response.get("pages") or []
        for asked in page.get("questions") or []
        if str(asked["id"]) == question
        for answer in asked.get("answers") or []
    ]


def _invited(response: dict[str, Any]) -> str | None:
    """The address of the contact that an e-mail collector invited."""
    contact = (response.get("metadata") or {}).get("contact") or {}
    email = contact.get("email")
    return (email.get("value") if isinstance(email, dict) else email) or response.get(
        "email_address"
    )


def _utc(text: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise SourceCorrupt("a `date_modified` is no time", "report it") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds")


STREAMS = {
    "responses": ApiStream(
        read=read_responses,
        primary_key=("id",),
        columns=(
            "id", "survey_id", "response_status", "collection_mode", "date_created",
            "date_modified", "total_time", "kind", "score", "scale", "email", "account_no", "role",
        ),
        cursor="date_modified",
        overlap=OVERLAP,
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="surveymonkey",
    config=Config,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="View Users, View Surveys, View Responses, View Response Details",
)
