"""Typeform's Responses API: the scores that people gave in the forms that the settings name.

- `since` and `until` go with the order of `submitted_at`, newest first; the tokens `before` and
  `after` change to the order of processing. Mixed, they lose answers: so pages are walked by time
  alone, each `until` the oldest answer so far. One second is asked for twice, whether the bounds
  include themselves or not.
- Pages of 1,000, the most there is; `total_items` counts what the bounds let through.
- An answer may arrive half an hour after it was given: the last hour is read again.
- Two requests a second.
- Only completed answers come. They never change; deleted ones vanish without a trace.
- Answers other than the score, an e-mail address and the named hidden fields are not kept.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Literal

from dlt.sources.helpers.rest_client.paginators import BasePaginator
from pydantic import Field
from requests import Request, Response

from connectors.api import ApiConfig, ApiStream, FromEnvironment, Reading, Rows, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from contracts.company import Strict
from contracts.errors import SourceCorrupt, SourceRefused

ADDRESSES = {"us": "https://api.typeform.com", "eu": "https://api.eu.typeform.com"}
PAGE_SIZE = 1000
OVERLAP = dt.timedelta(hours=1)
_SCALES = ("nps", "opinion_scale", "rating")


class Form(Strict):
    """A form to read. `kind`, `field` and `scale` may be left out where the form has one net
    promoter question, or one opinion scale from 0 to 10. `field` is the id or the ref of a
    question. The hidden fields carry the CRM's number, the role and the e-mail address of the
    person; where the latter is empty, an answered e-mail question serves.
    """

    id: str = Field(pattern=r"^[A-Za-z0-9]+$")
    kind: Literal["nps", "csat", "ces", "custom"] | None = None
    field: str | None = None
    scale: float | None = Field(default=None, ge=1)
    account_field: str = "crm_account_no"
    role_field: str = "role"
    email_field: str = "email"


class Config(ApiConfig):
    """Settings in ``sources/<name>.yaml``."""

    type: Literal["typeform"]
    token: FromEnvironment
    region: Literal["us", "eu"] = "us"
    forms: list[Form] = Field(min_length=1)


def connect(config: Config, secrets: Secrets) -> Http:
    """The client."""
    return Http(
        config.address or ADDRESSES[config.region],
        Manners("typeform", limits=(Limit(2, 1),)),
        headers={"Authorization": f"Bearer {secrets.of(config.token)}"},
    )


def account(client: Http, config: Config) -> str:
    """The id of the user behind the token."""
    return f"user {client.get('/me')['user_id']}"


def read_responses(reading: Reading[Config]) -> Iterator[Rows]:
    """Every form, from its newest answer on; from the beginning when its settings changed."""
    known = reading.position.get("forms", {})
    reading.position["forms"] = {}
    for form in reading.config.forms:
        settings = form.model_dump(mode="json")
        state = dict(known.get(form.id, {}))
        if state.get("settings") != settings:
            question = question_of(reading.client.get(f"/forms/{form.id}"), form)
            state = {"settings": settings, "question": question}
        yield from _pages(reading, form, state)
        reading.position["forms"][form.id] = state


def _pages(reading: Reading[Config], form: Form, state: dict[str, Any]) -> Iterator[Rows]:
    since = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    if newest := state.get("newest"):
        since = _instant(newest) - OVERLAP
    for page in reading.client.pages(
        f"/forms/{form.id}/responses",
        records="items",
        paginator=_Backwards(),
        params={"page_size": PAGE_SIZE, "since": _text(since)},
    ):
        times = [state.get("newest", ""), *(_text(_submitted(item)) for item in page)]
        state["newest"] = max(times)
        rows = [_row(item, form, state["question"]) for item in page]
        scale = state["question"]["scale"]
        if scale and not form.scale and any((row["score"] or 0) > scale for row in rows):
            # The form was given a longer scale since.
            state["question"] = question_of(reading.client.get(f"/forms/{form.id}"), form)
            rows = [_row(item, form, state["question"]) for item in page]
        yield rows


class _Backwards(BasePaginator):
    """From the newest answer to the oldest: `until` is the oldest so far, and one second more."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._until = ""

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        items = data or []
        tokens = {item["token"] for item in items}
        self._has_next_page = len(items) < int(response.json()["total_items"])
        if self._has_next_page and tokens <= self._seen:
            raise SourceCorrupt("sends the same answers again and again", "report it")
        self._seen |= tokens
        if items:
            oldest = min(_submitted(item) for item in items)
            self._until = _text(oldest + dt.timedelta(seconds=1))

    def update_request(self, request: Request) -> None:
        request.params = (request.params or {}) | {"until": self._until}


def question_of(definition: dict[str, Any], form: Form) -> dict[str, Any]:
    """Which question of a form is the score: its `field`, `kind` and `scale`.

    Raises:
        SourceRefused: the settings do not fit the form, or do not suffice.
    """
    fields = list(_flat(definition.get("fields") or []))
    if form.field is not None:
        fitting = [field for field in fields if form.field in (field["id"], field.get("ref"))]
    elif form.kind in (None, "nps"):
        fitting = [field for field in fields if _is_nps(field)]
    else:
        fitting = [field for field in fields if field["type"] in _SCALES]
    if len(fitting) != 1:
        what = f"no question {form.field}" if form.field else f"{len(fitting)} that could be it"
        ids = ", ".join(field["id"] for field in fields if field["type"] in _SCALES) or "none"
        raise SourceRefused(
            f"the question of the score in form {form.id} is unclear: {what}",
            f"write `kind` and `field`; scales in it: {ids}",
        )
    field = fitting[0]
    kind = form.kind or ("nps" if _is_nps(field) else None)
    if kind is None:
        raise SourceRefused(
            f"question {field['id']} of form {form.id} is no net promoter question",
            "write its `kind`: nps, csat, ces or custom",
        )
    return {"field": field["id"], "kind": kind, "scale": form.scale or _highest(field)}


def _flat(fields: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All questions, also those in groups."""
    for field in fields:
        yield field
        yield from _flat((field.get("properties") or {}).get("fields") or [])


def _highest(field: dict[str, Any]) -> float | None:
    properties = field.get("properties") or {}
    if field["type"] == "nps":
        return 10
    if field["type"] == "rating":
        return properties.get("steps")
    if field["type"] == "opinion_scale" and properties.get("steps"):
        return properties["steps"] - (0 if properties.get("start_at_one") else 1)
    return None


def _is_nps(field: dict[str, Any]) -> bool:
    starts_at_one = (field.get("properties") or {}).get("start_at_one")
    is_scale = field["type"] == "opinion_scale" and not starts_at_one
    return field["type"] == "nps" or (is_scale and _highest(field) == 10)


def _row(item: dict[str, Any], form: Form, question: dict[str, Any]) -> dict[str, Any]:
    hidden, answers = item.get("hidden") or {}, item.get("answers") or []
    scores = [a.get("number") for a in answers if a["field"]["id"] == question["field"]]
    emails = [a.get("email") for a in answers if a.get("type") == "email"]
    return {
        "form_id": form.id,
        "token": item["token"],
        "submitted_at": item["submitted_at"],
        "field_id": question["field"],
        "kind": question["kind"],
        "score": next((score for score in scores if score is not None), None),
        "scale": question["scale"],
        "email": hidden.get(form.email_field) or next(filter(None, emails), None),
        "account_no": hidden.get(form.account_field) or None,
        "role": hidden.get(form.role_field) or None,
    }


def _submitted(item: dict[str, Any]) -> dt.datetime:
    return _instant(item["submitted_at"])


def _instant(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise SourceCorrupt("a `submitted_at` is no time", "report it") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _text(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


STREAMS = {
    "responses": ApiStream(
        read=read_responses,
        primary_key=("token",),
        columns=(
            "form_id", "token", "submitted_at", "kind", "score", "scale", "email", "account_no",
            "role",
        ),
        cursor="submitted_at",
        overlap=OVERLAP,
    ),
}  # fmt: skip

VENDOR = Vendor(
    name="typeform",
    config=Config,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="accounts:read, forms:read, responses:read",
)
