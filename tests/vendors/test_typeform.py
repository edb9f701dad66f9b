"""Typeform: the connector against the strict server, and its mappings against the world."""

import datetime as dt
from functools import partial
from pathlib import Path

import pytest
import requests
from mapped import mapped
from minimal import connected
from specs import load, validate_request

from connectors.http import Http
from connectors.sandbox.vendors.typeform import FORM, SCORE, response
from connectors.vendors import packaged_mappings
from connectors.vendors.typeform import connector
from connectors.vendors.typeform.connector import Form, question_of
from contracts.errors import SourceCorrupt, SourceRefused

SETTINGS = {"token": {"env": "TYPEFORM_TOKEN"}, "forms": [{"id": FORM, "kind": "csat"}]}
FILE_MAPPINGS = Path(__file__).parents[1] / "company_of_files" / "sources" / "surveys"
RESPONSES = "/responses$"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(connector, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def read(pulled):
    def read(positions=None, **settings):
        return pulled("typeform", positions=positions, **{**SETTINGS, **settings})["responses"]

    return read


@pytest.fixture
def ask(box):
    """Ask the server itself, as no client of ours would."""

    def ask(path, token=None, **params):
        headers = {"Authorization": f"Bearer {token or box.token('typeform')}"}
        address = box.address("typeform") + path
        return requests.get(address, params=params, headers=headers, timeout=10)

    return ask


def put(box, token, *, submitted=None, at=None, **change):
    """Add an answer that was given at `submitted` and processed at `at`; now by default."""
    table = box.table("typeform", "responses", lambda table: None)
    answer = {"email": "p1@new.example", "crm_account_no": "ACC-00001", "role": "user", "score": 3}
    moment = submitted or box.now
    table.put(token, response(answer, moment.timestamp()) | change,
              at=(at or moment).timestamp())  # fmt: skip


def tokens(rows):
    return {row["token"] for row in rows}


def world_rows(box):
    """The world's answers without its two broken ones, which no survey tool could hold."""
    rows = box.world.rows("surveys/csat.csv")
    return [row for row in rows if row["response_id"] and row["answered_at"] != "yesterday"]


def canonical(rows, table):
    """What a packaged mapping makes of rows."""
    sql = packaged_mappings("typeform")[table].read_text()
    columns = connector.STREAMS["responses"].columns
    return mapped(sql, "typeform", {"responses": (rows, columns)})


# A full reading


def test_a_first_reading_gives_every_answer_of_the_world(read, box):
    rows = read()
    assert len(tokens(rows)) == len(rows) == len(world_rows(box))
    assert sorted(row["score"] for row in rows) == sorted(int(a["score"]) for a in world_rows(box))
    assert {(row["kind"], row["scale"]) for row in rows} == {("csat", 5)}
    assert sorted(row["email"] for row in rows) == sorted(a["email"] for a in world_rows(box))


def test_small_pages_give_the_same_rows(read, box):
    expected = read()
    box.small_pages = 3
    assert tokens(read()) == tokens(expected)
    assert box.count("typeform", RESPONSES) > len(expected) / 3


def test_pages_are_as_large_as_the_vendor_allows_and_never_mix_times_and_tokens(read, box):
    box.small_pages = 50
    read()
    asked = [request.query for request in box.log if request.path.endswith("/responses")]
    assert {query["page_size"] for query in asked} == {"1000"}
    assert not any({"before", "after"} & set(query) for query in asked)


def test_other_answers_and_machines_are_not_kept(read):
    text = str(read())
    assert "It helped us" not in text
    assert "Mozilla" not in text


def test_no_more_than_two_requests_are_sent_in_a_second(read, box, waits):
    box.small_pages = 20
    read()
    sent = box.count("typeform")
    assert len([wait for wait in waits if wait > 0]) >= sent - 3


# Reading on


def test_an_unchanged_hour_costs_one_request(read, box):
    positions = {}
    read(positions)
    sent = len(box.log)
    box.move(box.now + dt.timedelta(hours=1))
    read(positions)
    assert len(box.log) == sent + 1


def test_a_new_answer_arrives_and_one_that_was_processed_late(read, box):
    positions = {}
    put(box, "new1")  # the newest answer, when the late one is not there yet
    first = tokens(read(positions))
    put(box, "late", submitted=box.now - dt.timedelta(minutes=30),
        at=box.now + dt.timedelta(minutes=5))  # fmt: skip
    box.move(box.now + dt.timedelta(hours=1))
    put(box, "new2")
    again = tokens(read(positions))
    assert again - first == {"late", "new2"}
    assert len(again) <= 3  # and the overlap


def test_answers_of_one_second_are_not_lost_at_the_edge_of_a_page(read, box):
    read()
    for number in range(5):
        put(box, f"same{number}")
    box.small_pages = 7
    expected = tokens(read())
    assert {f"same{number}" for number in range(5)} <= expected
    assert len(expected) == len(world_rows(box)) + 5


def test_more_answers_in_a_second_than_a_page_holds_are_an_error_and_no_loss(read, box):
    read()
    for number in range(5):
        put(box, f"same{number}")
    box.small_pages = 3
    with pytest.raises(SourceCorrupt):
        read()


def test_answers_that_come_while_pages_are_read_shift_nothing(read, box):
    expected = tokens(read())
    box.small_pages = 20

    def newer(body):
        put(box, f"n{len(box.log)}")
        return body

    box.faults.add(vendor="typeform", path=RESPONSES, times=3, do="rewrite", rewrite=newer)
    assert expected <= tokens(read())


def test_other_settings_read_a_form_again_from_its_beginning(read):
    positions = {}
    first = read(positions)
    again = read(positions, forms=[{"id": FORM, "kind": "ces"}])
    assert tokens(again) == tokens(first)
    assert {row["kind"] for row in again} == {"ces"}


def test_a_scale_that_became_longer_is_asked_for_again(read, box):
    positions = {}
    read(positions)
    forms = box.table("typeform", "forms", lambda table: None)
    body = forms.get(FORM, box.now.timestamp()).body
    field = SCORE | {"properties": {"steps": 7, "start_at_one": True}}
    forms.put(FORM, body | {"fields": [field]}, at=box.now.timestamp())
    seven = {"type": "number", "number": 7, "field": SCORE}
    put(box, "long", answers=[seven])
    rows = {row["token"]: row for row in read(positions)}
    assert (rows["long"]["score"], rows["long"]["scale"]) == (7, 7)


# Which answers count


def test_partial_answers_do_not_come(read, box):
    read()
    put(box, "part", response_type="partial")
    assert "part" not in tokens(read())


def test_an_answered_address_serves_where_the_hidden_field_is_empty(read, box):
    read()
    email = {"type": "email", "email": "own@new.example", "field": {"id": "e", "type": "email"}}
    score = {"type": "number", "number": 4, "field": SCORE}
    put(box, "mail", hidden={"email": "", "crm_account_no": ""}, answers=[score, email])
    (row,) = [row for row in read() if row["token"] == "mail"]
    assert (row["email"], row["account_no"], row["role"]) == ("own@new.example", None, None)


@pytest.mark.parametrize(
    "change", [{"answers": []}, {"answers": None}, {"hidden": {}}], ids=["skipped", "none", "who"]
)
def test_an_answer_without_a_score_or_a_person_is_not_mapped(read, box, change):
    read()
    put(box, "odd", **change)
    rows = read()
    assert "odd" in tokens(rows)
    found = canonical(rows, "survey_responses")
    assert len(found) == len(rows) - 1


# The mappings


def todays(box, table):
    """What the mapping of the survey files makes of the same answers."""
    sql = (FILE_MAPPINGS / f"{table}.sql").read_text()
    rows = world_rows(box)
    return mapped(sql, "surveys", {"csat": (rows, ()), "nps": ([], tuple(rows[0]))})


def test_survey_responses_are_what_the_worlds_files_say(read, box):
    names = ("account_key", "kind", "score", "scale", "respondent_role", "responded_at")
    found = canonical(read(), "survey_responses")
    expected = todays(box, "survey_responses")
    assert sorted([str(row[n]) for n in names] for row in found) == sorted(
        [str(float(row[n])) if n in ("score", "scale") else str(row[n]) for n in names]
        for row in expected
    )


def test_account_keys_are_what_the_worlds_files_say(read, box):
    def texts(rows):
        return sorted(tuple(map(str, sorted(row.items()))) for row in rows)

    assert texts(canonical(read(), "account_keys")) == texts(todays(box, "account_keys"))


# The question of the score


def field(id, type, **properties):
    return {"id": id, "ref": f"ref-{id}", "type": type, "properties": properties}


@pytest.mark.parametrize(
    ("fields", "settings", "found"),
    [
        ([field("a", "nps")], {}, ("a", "nps", 10)),
        ([field("a", "opinion_scale", steps=11)], {}, ("a", "nps", 10)),
        ([field("a", "rating", steps=5)], {"kind": "csat"}, ("a", "csat", 5)),
        ([field("a", "opinion_scale", steps=7, start_at_one=True)], {"kind": "ces"},
         ("a", "ces", 7)),
        ([field("a", "rating", steps=5), field("b", "rating", steps=3)],
         {"kind": "csat", "field": "ref-b"}, ("b", "csat", 3)),
        ([field("g", "group", fields=[field("b", "nps")])], {}, ("b", "nps", 10)),
        ([field("a", "number")], {"kind": "custom", "field": "a", "scale": 100},
         ("a", "custom", 100)),
    ],
    ids=["nps", "0-10", "stars", "effort", "by-ref", "in-a-group", "number"],
)  # fmt: skip
def test_the_question_follows_from_form_and_settings(fields, settings, found):
    question = question_of({"fields": fields}, Form(id="f", **settings))
    assert (question["field"], question["kind"], question["scale"]) == found


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "0 that could be it"),
        ({"kind": "csat"}, "2 that could be it"),
        ({"field": "c"}, "no question c"),
        ({"field": "a"}, "no net promoter question"),
    ],
)
def test_an_unclear_question_is_refused_with_the_ids_to_choose_from(settings, says):
    fields = [field("a", "rating", steps=5), field("b", "rating", steps=5)]
    with pytest.raises(SourceRefused, match=says):
        question_of({"fields": fields}, Form(id="f", **settings))


# Faults


def test_a_wrong_token_is_refused(read):
    with pytest.raises(SourceRefused):
        read(token={"env": "STRIPE_KEY"})


def test_the_account_is_the_user_behind_the_token_and_not_an_address(box):
    vendor, config, client = connected("typeform", SETTINGS, box)
    found = vendor.account(client, config)
    assert found.startswith("user ")
    assert "@" not in found
    assert client.requests_sent == 1


def test_a_limit_is_waited_for(read, box, waits):
    expected = read()
    box.faults.add(vendor="typeform", path=RESPONSES, do="status", code=429,
                   headers={"Retry-After": "17"})  # fmt: skip
    assert read() == expected
    assert max(waits) == pytest.approx(17, abs=1)


@pytest.mark.parametrize("fault", ["truncate", "reset", "wrong_length", "html", "empty"])
def test_a_spoiled_page_loses_no_row(read, box, fault):
    expected = tokens(read())
    box.small_pages = 60
    box.faults.add(vendor="typeform", path=RESPONSES, nth=2, do=fault)
    assert tokens(read()) == expected


def test_an_empty_page_in_the_middle_is_not_taken_for_the_end(read, box):
    box.small_pages = 60
    box.faults.add(vendor="typeform", path=RESPONSES, nth=2, do="empty_page")
    with pytest.raises(SourceCorrupt):
        read()


# The server is as strict as the vendor


@pytest.mark.parametrize(
    "params",
    [
        {"page_size": 1001},
        {"page_size": 0},
        {"since": "soon"},
        {"sort": "token"},
        {"limit": 10},
        {"before": "nobody"},
        {"before": "a", "after": "b"},
        {"before": "a", "since": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_the_server_refuses_what_the_vendor_refuses(ask, params):
    answer = ask(f"/forms/{FORM}/responses", **params)
    assert answer.status_code == 400
    assert answer.json()["code"] == "VALIDATION_ERROR"


def test_the_server_refuses_a_wrong_token_and_an_unknown_form(ask, box):
    assert ask("/me", token="another").status_code == 401
    assert requests.get(f"{box.address('typeform')}/me", timeout=10).status_code == 403
    assert ask("/forms/none/responses").status_code == 404


def test_the_server_gives_25_newest_answers_unless_asked_otherwise(ask):
    items = ask(f"/forms/{FORM}/responses").json()["items"]
    times = [item["submitted_at"] for item in items]
    assert len(items) == 25
    assert times == sorted(times, reverse=True)


def test_the_servers_tokens_walk_the_order_of_processing(ask, box):
    first = ask(f"/forms/{FORM}/responses", page_size=1000).json()["items"]
    put(box, "late", submitted=box.now - dt.timedelta(days=200), at=box.now)
    answer = ask(f"/forms/{FORM}/responses", page_size=1000, after=first[0]["token"]).json()
    assert [item["token"] for item in answer["items"]] == ["late"]


# The description


def test_requests_are_as_the_description_says(read, box):
    spec = load("typeform/openapi.fern.json")
    box.small_pages = 60
    read()
    # Its only required header is the token, which the log does not keep.
    for request in box.log:
        validate_request(spec, request.method, request.path, request.query)


def test_answers_are_as_the_description_says(ask):
    spec = load("typeform/openapi.fern.json")
    schema = {"$ref": "urn:spec#/definitions/FormResponses"}
    body = ask(f"/forms/{FORM}/responses", page_size=1000).json()
    assert len(body["items"]) > 100
    assert list(spec.mistakes(schema, body)) == []
