import datetime as dt

import pytest

from connectors.lake import Lake, raw_relation_sql
from tests.pulling import LATER, NOW, make_company, rows_in_lake, run


@pytest.fixture
def company(tmp_path):
    """A company whose source `desk` was pulled twice, with a new file and a new column between."""
    (tmp_path / "exports").mkdir()
    streams = {"tickets": {"files": "*.csv"}, "plans": {"files": "plans.jsonl"}}
    config = {"type": "files", "location": "exports", "streams": streams}
    company = make_company(tmp_path, {"desk": config})
    (tmp_path / "exports" / "a.csv").write_text("id\n1\n2\n")
    (tmp_path / "exports" / "plans.jsonl").write_text('{"id": 1}\n')
    run(company, now=NOW)
    (tmp_path / "exports" / "b.csv").write_text("id,new\n3,x\n")
    run(company, now=LATER)
    return company


def test_files_are_listed_by_load_and_the_first_load_of_a_stream_is_marked(company):
    files = Lake(company).files("desk")
    assert [(file.stream, file.first, file.loaded_at) for file in files] == [
        ("plans", True, dt.datetime(2026, 7, 1, 6)),
        ("tickets", True, dt.datetime(2026, 7, 1, 6)),
        ("tickets", False, dt.datetime(2026, 7, 2, 6)),
    ]
    assert [file.load_id for file in files] == sorted(file.load_id for file in files)
    assert {file.load_id for file in files} == set(Lake(company).loads("desk"))


def test_only_what_came_after_a_load_is_listed_and_is_not_taken_for_the_first(company):
    first, second = Lake(company).loads("desk")
    files = Lake(company).files("desk", after=first)
    assert [(file.stream, file.load_id, file.first) for file in files] == [
        ("tickets", second, False)
    ]
    assert [v.source_file for v in Lake(company).versions("desk", after=first)] == ["b.csv"]
    assert Lake(company).files("desk", after=second) == []


def test_a_file_of_a_load_without_a_record_does_not_exist(company):
    path = Lake(company).files("desk")[0].path
    orphan = path.with_name("1.5.abcdef.parquet")
    orphan.write_bytes(path.read_bytes())
    assert orphan not in [file.path for file in Lake(company).files("desk")]
    run(company)
    assert not orphan.exists()
    assert path.exists()


def test_the_relation_unites_columns_by_name_and_tells_the_load(company):
    assert rows_in_lake(company, "tickets", "id, new, _source_file, _row") == [
        ("1", None, "a.csv", 0), ("2", None, "a.csv", 1), ("3", "x", "b.csv", 0),
    ]  # fmt: skip
    loads = rows_in_lake(company, "tickets", "_load_id")
    assert [load for (load,) in loads[1:]] == Lake(company).loads("desk")
    with pytest.raises(ValueError, match="at least one file"):
        raw_relation_sql([])


def test_a_source_that_was_never_pulled_has_an_empty_lake(company):
    assert Lake(company).loads("other") == []
    assert Lake(company).files("other") == []
    assert Lake(company).versions("other") == []
