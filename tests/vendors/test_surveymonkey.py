"""SurveyMonkey: the connector against the strict server, and its mappings against the world."""

import datetime as dt
import json
from functools import partial
from pathlib import Path

import pytest
import requests
from mapped import mapped
from minimal import connected
from specs import load, validate_response

from connectors.http import Http
from connectors.sandbox.vendors.surveymonkey import QUESTION, SURVEY, response
from connectors.vendors import packaged_mappings
from connectors.vendors.surveymonkey import connector
from connectors.vendors.surveymonkey.questions import question_of
from contracts.errors import SourceExhausted, SourceRefused, SourceUnavailable

SETTINGS = {"token": {"env": "SURVEYMONKEY_TOKEN"}, "surveys": [{"id": SURVEY}]}
FILE_MAPPINGS = Path(__file__).parents[1] / "company_of_files" / "sources" / "surveys"
BULK = "/responses/bulk"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def read(pulled):
    def read(positions=None, **settings):
        rows = pulled("surveymonkey", positions=positions, **{**SETTINGS, **settings})
        return rows["responses"]

    return read


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(path, token=None, **params):
        headers = {"Authorization": f"Bearer {token or box.token('surveymonkey')}"}
        address = f"{box.address('surveymonkey')}/v3{path}"
        return requests.get(address, params=params, headers=headers, timeout=10)

    return ask


def answers(box):
    return box.table("surveymonkey", "responses", lambda table: None)


def given(score=3, email="p1@new.example", account="ACC-00001", role="user"):
    return {"email": email, "crm_account_no": account, "role": role, "score": str(score)}


def world_rows(box):
    """The world's answers without its two broken ones, which no survey tool could hold."""
    rows = box.world.rows("surveys/nps.csv")
    return [row for row in rows if row["response_id"] and row["answered_at"] != "yesterday"]


def canonical(rows, table):
    """What a packaged mapping makes of rows."""
    sql = packaged_mappings("surveymonkey")[table].read_text()
    columns = connector.STREAMS["responses"].columns
    return mapped(sql, "surveymonkey", {"responses": (rows, columns)})


# A full reading


def test_a_first_reading_gives_every_answer_of_the_world(read, box):
    rows = read()
    assert len({row["id"] for row in rows}) == len(rows) == len(world_rows(box))
    assert sorted(row["score"] for row in rows) == sorted(
        float(a["score"]) for a in world_rows(box)
    )
    assert {(row["kind"], row["scale"]) for row in rows} == {("nps", 10.0)}
    assert sorted(row["email"] for row in rows) == sorted(a["email"] for a in world_rows(box))


def test_small_pages_give_the_same_rows(read, box):
    expected = read()
    box.small_pages = 3
    assert read() == expected
    assert box.count("surveymonkey", BULK) > len(expected) / 3


def test_free_text_and_addresses_of_machines_are_not_kept(read):
    text = str(read())
    assert "We would say more" not in text
    assert "192.0.2.17" not in text


def test_free_text_is_not_even_asked_for(read, box):
    read()
    asked = [request for request in box.log if BULK in request.path]
    assert {request.query["question_ids"] for request in asked} == {QUESTION}


def test_pages_are_as_large_as_the_vendor_allows(read, box):
    read()
    assert {request.query["per_page"] for request in box.log if BULK in request.path} == {"100"}


# Reading on


def test_an_unchanged_hour_costs_one_request(read, box):
    positions = {}
    read(positions)
    sent = len(box.log)
    box.move(box.now + dt.timedelta(hours=1))
    read(positions)
    assert len(box.log) == sent + 1


def test_a_new_answer_and_a_changed_one_arrive(read, box):
    positions = {}
    first = read(positions)
    box.move(box.now + dt.timedelta(hours=1))
    moment = box.now - dt.timedelta(minutes=30)
    old = answers(box).get(first[0]["id"], box.now.timestamp()).body
    answers(box).put(first[0]["id"], old | {"custom_variables": {"role": "admin"}},
                     at=moment.timestamp())  # fmt: skip
    answers(box).put("99", response(given(score=9), moment), at=moment.timestamp())
    rows = read(positions)
    known = {row["id"]: row for row in first}
    new = [row for row in rows if known.get(row["id"]) != row]
    assert {(row["id"], row["score"], row["role"]) for row in new} == {
        ("99", 9.0, "user"), (first[0]["id"], first[0]["score"], "admin"),
    }  # fmt: skip
    assert len(rows) - len(new) <= 3  # the overlap


def test_an_answer_in_the_second_of_the_newest_one_is_not_lost(read, box):
    positions = {}
    newest = max(read(positions), key=lambda row: row["date_modified"])["date_modified"]
    moment = dt.datetime.fromisoformat(newest)
    answers(box).put("99", response(given(), moment), at=moment.timestamp())
    assert "99" in {row["id"] for row in read(positions)}


def test_other_settings_read_a_survey_again_from_its_beginning(read):
    positions = {}
    first = read(positions)
    again = read(positions, surveys=[{"id": SURVEY, "scale": 20}])
    assert len(again) == len(first)
    assert {row["scale"] for row in again} == {20.0}


def test_a_choice_that_was_added_is_learned_with_one_more_request(read, box):
    positions = {}
    read(positions)
    surveys = box.table("surveymonkey", "surveys", lambda table: None)
    body = surveys.get(SURVEY, box.now.timestamp()).body
    question = body["pages"][0]["questions"][0]
    choices = question["answers"]["choices"]
    added = {**choices[0], "id": "777", "is_na": True, "position": 12}
    question = question | {"answers": question["answers"] | {"choices": [*choices, added]}}
    page = body["pages"][0] | {"questions": [question]}
    now = box.now.timestamp()
    surveys.put(SURVEY, body | {"pages": [page]}, at=now)
    for number in range(5):
        answer = response(given(), box.now)
        answer["pages"][0]["questions"][0]["answers"][0]["choice_id"] = "777"
        answers(box).put(f"9{number}", answer, at=now)
    sent = len(box.log)
    rows = {row["id"]: row["score"] for row in read(positions)}
    assert [rows[f"9{number}"] for number in range(5)] == [None] * 5
    assert len(box.log) == sent + 2


def test_an_answer_that_changes_while_pages_are_read_makes_none_slip_through(read, box):
    box.small_pages = 50
    everything = {row["id"] for row in read()}

    def changed(body):
        first = answers(box).rows(box.now.timestamp())[0]
        answers(box).put(first.id, first.body, at=box.now.timestamp())
        return body

    box.faults.add(vendor="surveymonkey", path=BULK, nth=1, do="rewrite", rewrite=changed)
    assert {row["id"] for row in read()} == everything


def test_a_survey_that_never_stands_still_is_given_up(read, box):
    def short(body):
        answer = json.loads(body)
        return json.dumps(answer | {"total": answer["total"] + 1}).encode()

    box.faults.add(vendor="surveymonkey", path=BULK, times=None, do="rewrite", rewrite=short)
    with pytest.raises(SourceUnavailable, match="changed all the time"):
        read()


# Which answers count


@pytest.mark.parametrize(
    "change",
    [
        {"response_status": "partial"},
        {"response_status": "disqualified"},
        {"collection_mode": "survey_preview"},
        {"pages": []},
        {"custom_variables": {}, "metadata": {}},
    ],
    ids=["partial", "disqualified", "preview", "skipped", "anonymous"],
)
def test_an_answer_that_does_not_count_is_read_but_not_mapped(read, box, change):
    answers(box)
    read()
    answers(box).put("99", response(given(), box.now) | change, at=box.now.timestamp())
    rows = read()
    assert "99" in {row["id"] for row in rows}
    assert "99" not in {row["response_id"] for row in canonical(rows, "survey_responses")}


def test_an_answer_with_the_crm_number_alone_is_mapped_to_that_account(read, box):
    read()
    body = response(given(), box.now) | {"metadata": {}}
    answers(box).put("99", body, at=box.now.timestamp())
    rows = read()
    (found,) = [r for r in canonical(rows, "survey_responses") if r["response_id"] == "99"]
    assert found["account_key"] == "ACC-00001"
    keys = {row["account_key"]: row for row in canonical(rows, "account_keys")}
    assert keys["ACC-00001"]["account_id"] == "ACC-00001"


def test_an_address_in_a_custom_variable_wins_over_that_of_the_invitation(read, box):
    read()
    body = response(given(), box.now) | {"custom_variables": {"mail": "own@new.example"}}
    answers(box).put("99", body, at=box.now.timestamp())
    rows = read(surveys=[{"id": SURVEY, "email_variable": "mail"}])
    assert {row["id"]: row["email"] for row in rows}["99"] == "own@new.example"


# The mappings


def todays(box, table):
    """What the mapping of the survey files makes of the same answers."""
    sql = (FILE_MAPPINGS / f"{table}.sql").read_text()
    rows = world_rows(box)
    return mapped(sql, "surveys", {"nps": (rows, ()), "csat": ([], tuple(rows[0]))})


def test_survey_responses_are_what_the_worlds_files_say(read, box):
    names = ("account_key", "kind", "score", "scale", "respondent_role", "responded_at")
    found = canonical(read(), "survey_responses")
    expected = todays(box, "survey_responses")
    assert sorted([str(row[n]) for n in names] for row in found) == sorted(
        [str(float(row[n])) if n in ("score", "scale") else str(row[n]) for n in names]
        for row in expected
    )
    assert all(row["known_at"] == row["responded_at"] for row in found)


def test_account_keys_are_what_the_worlds_files_say(read, box):
    def texts(rows):
        return sorted(tuple(map(str, sorted(row.items()))) for row in rows)

    assert texts(canonical(read(), "account_keys")) == texts(todays(box, "account_keys"))


def test_an_answer_that_was_changed_later_is_known_from_then_on(read, box):
    first = read()[0]
    body = answers(box).get(first["id"], box.now.timestamp()).body
    answers(box).put(first["id"], body, at=box.now.timestamp())
    (row,) = [
        row for row in canonical(read(), "survey_responses") if row["response_id"] == first["id"]
    ]
    assert row["responded_at"] < row["known_at"] == box.now.replace(tzinfo=None)


# The question of the score


def rating(weights, **more):
    choices = [
        {"id": str(100 + place), "position": place + 1, "weight": weight, "text": ""}
        for place, weight in enumerate(weights)
    ]
    return {
        "id": "1", "family": "matrix", "subtype": "rating",
        "answers": {"rows": [{"id": "9"}], "choices": choices}, **more,
    }  # fmt: skip


def details(*questions):
    return {"pages": [{"questions": list(questions)}]}


NPS_WEIGHTS = [-100] * 7 + [0, 0, 100, 100]


@pytest.mark.parametrize(
    ("weights", "kind", "chosen", "score", "highest"),
    [
        (NPS_WEIGHTS, None, "103", 3.0, 10.0),
        (NPS_WEIGHTS[::-1], None, "103", 7.0, 10.0),
        (range(11), None, "110", 10.0, 10.0),
        (range(1, 12), "nps", "110", 10.0, 10.0),
        (range(1, 6), "csat", "104", 5, 5),
        (range(1, 8), "ces", "100", 1, 7),
    ],
    ids=["nps", "nps-best-first", "0-10", "nps-by-settings", "stars", "effort"],
)
def test_the_worth_of_a_choice_follows_from_its_question(weights, kind, chosen, score, highest):
    found = question_of(details(rating(weights)), "7", kind, None)
    assert found.score([{"choice_id": chosen}]) == score
    assert found.highest == highest


def test_a_slider_is_read_as_the_number_that_it_is():
    slider = {"id": "5", "family": "open_ended", "subtype": "single", "validation": {"max": 100}}
    found = question_of(details(slider), "7", "custom", "5")
    assert (found.score([{"text": "45"}]), found.highest) == (45.0, 100.0)


@pytest.mark.parametrize(
    ("kind", "question", "says"),
    [
        (None, "404", "no question 404"),
        ("csat", None, "2 questions that could be it"),
        (None, None, "0 questions that could be it"),
        (None, "1", "no net promoter question"),
    ],
)
def test_an_unclear_question_is_refused_with_the_ids_to_choose_from(kind, question, says):
    survey = details(rating(range(1, 6)), rating(range(1, 6), id="2"))
    with pytest.raises(SourceRefused, match=says):
        question_of(survey, "7", kind, question)


# Faults


def test_a_wrong_token_is_refused(read):
    with pytest.raises(SourceRefused):
        read(token={"env": "STRIPE_KEY"})


def test_the_account_is_the_user_behind_the_token(box):
    vendor, config, client = connected("surveymonkey", SETTINGS, box)
    assert vendor.account(client, config) == "user 90210017"
    assert client.requests_sent == 1


def limited(span, reset):
    other = {"Day": "Minute", "Minute": "Day"}[span]
    name = "X-Ratelimit-App-Global"
    return {
        f"{name}-{span}-Remaining": "0", f"{name}-{span}-Reset": str(reset),
        f"{name}-{other}-Remaining": "9", f"{name}-{other}-Reset": "50",
    }  # fmt: skip


TOO_MANY = {"error": {"id": "1040", "name": "Rate limit reached", "http_status_code": 429}}


def test_a_used_up_minute_is_waited_for(read, box, waits):
    expected = read()
    box.faults.add(vendor="surveymonkey", path=BULK, do="status", code=429, body=TOO_MANY,
                   headers=limited("Minute", 17))  # fmt: skip
    assert read() == expected
    assert max(waits) == pytest.approx(17, abs=1)


def test_a_used_up_day_is_told_and_not_waited_for(read, box, waits):
    box.faults.add(vendor="surveymonkey", path=BULK, do="status", code=429, body=TOO_MANY,
                   headers=limited("Day", 40_000), times=None)  # fmt: skip
    with pytest.raises(SourceExhausted) as raised:
        read()
    assert raised.value.resume_after_seconds == 40_000
    assert waits == []


@pytest.mark.parametrize("fault", ["truncate", "reset", "wrong_length", "html", "empty"])
def test_a_spoiled_page_loses_no_row(read, box, fault):
    expected = read()
    box.faults.add(vendor="surveymonkey", path=BULK, nth=2, do=fault)
    assert read() == expected


def test_a_failed_reading_keeps_the_old_position(read, box):
    positions = {}
    read(positions)
    before = str(positions)
    box.faults.add(vendor="surveymonkey", path=BULK, do="status", code=403, body=TOO_MANY)
    with pytest.raises(SourceRefused):
        read(positions)
    assert str(positions) == before


# The server is as strict as the vendor


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        (f"/surveys/{SURVEY}/responses/bulk", {"per_page": 101}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"per_page": 0}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"page": "x"}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"sort_by": "id"}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"start_modified_at": "soon"}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"updated_since": "1"}, 400),
        (f"/surveys/{SURVEY}/responses/bulk", {"status": "done"}, 400),
        ("/surveys/1/responses/bulk", {}, 404),
        ("/surveys/1/details", {}, 404),
    ],
)
def test_the_server_refuses_what_the_vendor_refuses(ask, path, params, status):
    answer = ask(path, **params)
    assert answer.status_code == answer.json()["error"]["http_status_code"] == status


def test_the_server_refuses_a_wrong_token_and_shows_its_budget(ask):
    assert ask("/users/me", token="another").json()["error"]["id"] == "1011"
    headers = ask("/users/me").headers
    assert headers["X-Ratelimit-App-Global-Day-Limit"] == "500"
    assert int(headers["X-Ratelimit-App-Global-Minute-Remaining"]) < 120


def test_the_server_shows_nothing_of_the_future(world):
    from connectors.sandbox.servers.running import sandbox

    with sandbox(world, dt.datetime(2025, 1, 1, tzinfo=dt.UTC), vendors=["surveymonkey"]) as box:
        headers = {"Authorization": f"Bearer {box.token('surveymonkey')}"}
        address = f"{box.address('surveymonkey')}/v3/surveys/{SURVEY}/responses/bulk"
        body = requests.get(address, headers=headers, timeout=10).json()
        assert 0 < body["total"] < len(world_rows(box))
        assert max(row["date_modified"] for row in body["data"]) < "2025-01-01"


# The description


def test_answers_are_as_the_description_says(ask, read):
    spec = load("surveymonkey/ms_certified_connector.swagger.json")
    read()
    # The description names the trigger that reads this path, and gives the records without the
    # list around them.
    bulk = ask(f"/surveys/{SURVEY}/responses/bulk", per_page=100).json()
    validate_response(spec, "GET", "/trigger4/surveys/{surveyId}/responses/bulk", 200, bulk["data"])
    validate_response(spec, "GET", "/surveys", 200, ask("/surveys").json())
    validate_response(spec, "GET", "/surveys/{surveyId}", 200, ask(f"/surveys/{SURVEY}").json())
