"""Pulling an API into the lake: what is new, once; what fails, alone; what changes shape, told."""

import datetime as dt
import sys
import threading

import duckdb
import pytest
import yaml

from connectors.api_rows import landed, united
from connectors.lake import Lake
from connectors.pulls import Pulls
from connectors.sources import check_sources
from contracts.company import read_company
from contracts.errors import SourceRefused, SourceRejected
from tests.pulling import LATER, NOW, make_company, rows_in_lake, run
from tests.small_api import TOKEN, SmallApi, serving

TICKETS = [
    {"id": n, "status": "open", "updated_at": f"2026-06-{n:02d}T10:00:00Z"} for n in range(1, 6)
]
PLANS = [{"id": 1, "name": "basic"}, {"id": 2, "name": "pro"}]


@pytest.fixture
def api(monkeypatch):
    monkeypatch.setenv("DESK_TOKEN", TOKEN)
    lists = {"tickets": [dict(t) for t in TICKETS], "plans": [dict(p) for p in PLANS]}
    with serving(SmallApi(lists)) as server:
        yield server


@pytest.fixture
def company(api, tmp_path):
    paging = {"cursor": "meta.next", "param": "after"}
    tickets = {
        "path": "/tickets", "records": "data", "paging": paging, "primary_key": ["id"],
        "cursor": "updated_at", "overlap_minutes": 60, "params": {"since": "{since}"},
        "columns": ["priority"], "leave_out": ["subject"],
    }  # fmt: skip
    plans = {"path": "/plans", "records": "data", "paging": paging, "primary_key": ["id"]}
    config = {
        "type": "rest", "address": api.address, "auth": {"bearer": {"env": "DESK_TOKEN"}},
        "account": {"path": "/me", "field": "organisation.id"},
        "streams": {"tickets": tickets, "plans": plans},
    }  # fmt: skip
    return make_company(tmp_path / "home", {"desk": config})


def ids(company, stream="tickets"):
    return [row[0] for row in rows_in_lake(company, stream, "id")]


def test_a_first_pull_takes_every_page_of_every_stream(company, api):
    pulled = run(company)
    assert ids(company) == ["1", "2", "3", "4", "5"]
    assert rows_in_lake(company, "plans", "id, name") == [("1", "basic"), ("2", "pro")]
    assert {s.name: s.rows for s in pulled.streams} == {"tickets": 5, "plans": 2}
    assert (pulled.account, pulled.requests, pulled.failures) == ("acme", 5, {})


def test_an_unchanged_hour_costs_one_request_per_stream_and_stores_nothing(company, api):
    run(company)
    api.asked.clear()
    pulled = run(company, now=NOW + dt.timedelta(hours=1))
    assert sorted(path.partition("?")[0] for path in api.asked) == ["/plans", "/tickets"]
    assert (pulled.rows, pulled.load_id) == (0, None)


def test_only_rows_that_changed_are_stored_though_the_overlap_is_read_again(company, api):
    run(company)
    api.lists["tickets"][4] |= {"status": "solved", "updated_at": "2026-06-06T09:00:00Z"}
    api.lists["tickets"].append({"id": 6, "updated_at": "2026-06-05T09:30:00Z"})
    api.asked.clear()
    assert run(company, now=LATER).rows == 2
    assert any("since=2026-06-05T09%3A00%3A00Z" in path for path in api.asked)
    assert rows_in_lake(company, "tickets", "id, status")[5:] == [("5", "solved"), ("6", None)]


def test_f18_a_page_that_comes_twice_changes_no_state(company, api):
    api.lists["tickets"] += [dict(TICKETS[4]), dict(TICKETS[4])]
    run(company)
    again = run(company, now=LATER)
    assert again.rows == 0


def test_f21_rows_that_a_complete_list_no_longer_has_are_a_new_version_of_it(company, api):
    run(company)
    del api.lists["plans"][0]
    assert run(company, now=LATER).rows == 1
    versions = [v for v in Lake(company).versions("desk") if v.stream == "plans"]
    assert [(v.rows, v.whole) for v in versions] == [(2, True), (1, True)]


def test_f29_a_complete_list_that_becomes_empty_is_noted_and_its_rows_stay(company, api):
    run(company)
    api.lists["plans"].clear()
    assert run(company, now=LATER).rows == 0
    assert [(v.rows, v.whole) for v in Lake(company).versions("desk") if v.stream == "plans"] == [
        (2, True), (0, True),
    ]  # fmt: skip
    assert run(company, now=LATER + dt.timedelta(hours=1)).load_id is None


def test_a_stream_that_fails_keeps_its_place_while_the_others_land(company, api):
    api.broken.add("/plans")
    pulled = run(company)
    assert list(pulled.failures) == ["plans"]
    assert isinstance(pulled.failures["plans"], SourceRejected)
    assert len(ids(company)) == 5
    assert rows_in_lake(company, "plans", "id") == []
    api.broken.clear()
    again = run(company, now=LATER)
    assert (again.failures, len(ids(company)), len(ids(company, "plans"))) == ({}, 5, 2)


def test_when_every_stream_fails_so_does_the_pull(company, api):
    api.broken |= {"/plans", "/tickets"}
    with pytest.raises(SourceRejected, match="source desk"):
        run(company)
    assert Lake(company).loads("desk") == []


def test_pandas_is_imported_before_any_thread_reads(company, tmp_path, monkeypatch):
    # dlt would find it half imported, and a source that is well would be told to be down.
    (tmp_path / "pandas").mkdir()
    says = "import threading\nTHREAD = threading.current_thread()\n"
    (tmp_path / "pandas/__init__.py").write_text(says)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)  # what was there comes back after the test
    del sys.modules["pandas"]
    Pulls(company, now=NOW).close()
    assert sys.modules["pandas"].THREAD is threading.current_thread()


def test_f32_refused_credentials_are_told_without_the_token(company, monkeypatch):
    monkeypatch.setenv("DESK_TOKEN", "canary-wrong")
    with pytest.raises(SourceRefused) as caught:
        run(company)
    assert "canary" not in str(caught.value)


def test_f37_credentials_of_another_account_read_nothing(company, api, monkeypatch):
    run(company)
    api.account = "acme-test"
    api.lists["plans"].append({"id": 3, "name": "test"})
    monkeypatch.setattr("tests.small_api.TOKEN", "canary-rotated")
    monkeypatch.setenv("DESK_TOKEN", "canary-rotated")
    with pytest.raises(SourceRefused, match="open account 'acme-test', not 'acme'"):
        run(company, now=LATER)
    assert len(ids(company, "plans")) == 2


def test_f37_the_configured_account_is_the_only_one_that_is_read(company, api):
    file = company.home / "sources/desk.yaml"
    config = yaml.safe_load(file.read_text()) | {"expect_account": "globex"}
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(SourceRefused, match="open account 'acme', not 'globex'"):
        run(company)
    assert [path for path in api.asked if path != "/me"] == []


def test_after_a_move_to_another_account_its_streams_are_read_from_the_start(company, api):
    run(company)
    file = company.home / "sources/desk.yaml"
    config = yaml.safe_load(file.read_text()) | {"expect_account": "acme-eu"}
    file.write_text(yaml.safe_dump(config))
    api.account = "acme-eu"
    api.lists["tickets"] = [{"id": 71, "updated_at": "2026-01-01T10:00:00Z"}]
    assert run(company, now=LATER).account == "acme-eu"
    assert ids(company)[5:] == ["71"]


def test_f25_a_time_in_the_future_does_not_skip_what_happens_until_then(company, api):
    api.lists["tickets"].append({"id": 9, "updated_at": "2031-01-01T00:00:00Z"})
    run(company)
    api.lists["tickets"].append({"id": 10, "updated_at": "2026-07-01T12:00:00Z"})
    run(company, now=LATER)
    assert ids(company) == ["1", "2", "3", "4", "5", "9", "10"]


def test_f34_f36_new_columns_and_changed_types_land_as_text_and_are_told(company, api):
    run(company)
    api.lists["tickets"].append({"id": "x-6", "tags": ["a"], "updated_at": "2026-06-20T10:00:00Z"})
    (tickets,) = [s for s in run(company, now=LATER).streams if s.name == "tickets"]
    assert tickets.new_columns == ("tags",)
    assert tickets.changed_kinds == ("id (number before, now number/text)",)
    assert rows_in_lake(company, "tickets", "id, tags")[5:] == [("x-6", '["a"]')]


def test_declared_columns_exist_and_left_out_ones_never_do(company, api):
    api.lists["tickets"][0]["subject"] = "canary subject"
    run(company)
    assert rows_in_lake(company, "tickets", "priority")[:1] == [(None,)]
    with pytest.raises(duckdb.BinderException):
        rows_in_lake(company, "tickets", "subject")
    files = [f.read_bytes() for f in company.state.rglob("*") if f.is_file()]
    assert not any(b"canary" in content for content in files)


def test_mistakes_in_the_description_of_an_api_are_told_with_their_line(tmp_path):
    home = tmp_path / "home"
    make_company(home, {})
    (home / "sources").mkdir()
    (home / "sources/desk.yaml").write_text(
        "type: rest\naddress: http://api.example.com\nauth: {bearer: {env: T}, header: {name: X}}\n"
        "streams:\n  tickets:\n    path: /t\n    primary_key: [id]\n    params: {s: '{since}'}\n"
        "    paging: {cursor: next}\n"
    )
    _, problems = check_sources(read_company(home))
    told = {(problem.line, problem.cause) for problem in problems}
    assert told == {
        (2, "address: 'http://api.example.com' is not https"),
        (3, "'auth.header.value' is missing"),
        (9, "streams.tickets.paging: a cursor must go somewhere"),
    }


def test_every_json_value_becomes_text_that_says_the_same():
    first = {"a": 1, "b": True, "c": None, "d": {"x": [1.5]}, "e": "é\u0000"}
    rows = [first, {"a": 2**70, "f": ""}]
    assert landed(rows)[0].to_pylist() == [
        {"a": "1", "b": "true", "c": None, "d": '{"x":[1.5]}', "e": "é\u0000", "f": None},
        {"a": "1180591620717411303424", "b": None, "c": None, "d": None, "e": None, "f": ""},
    ]


def test_the_types_of_pages_are_united():
    pages = [landed(page)[1] for page in ([{"a": 1, "b": None}], [{"a": "x"}, {"b": [1]}])]
    assert united(pages) == {"a": ["number", "text"], "b": ["list"]}
