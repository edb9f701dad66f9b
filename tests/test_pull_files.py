import datetime as dt
import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.lake import Lake
from contracts.errors import SourceCorrupt, SourceRefused
from tests.pulling import LATER, make_company, rows_in_lake, run


@pytest.fixture
def desk(tmp_path):
    """Makes a company with one source `desk` of files below `exports`, with given streams."""

    def make(**streams):
        (tmp_path / "exports").mkdir(exist_ok=True)
        config = {"type": "files", "location": "./exports", "streams": streams}
        return make_company(tmp_path, {"desk": config})

    return make


def write(company, name, text):
    path = company.home / "exports" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_csv_is_text_so_that_ids_keep_their_leading_zeros(desk):
    company = desk(tickets={"files": "*.csv"})
    write(company, "a.csv", '\ufeffTicket ID,Note\n007,"two\nlines, ""quoted"""\n,\n')
    assert run(company).rows == 2
    found = rows_in_lake(company, "tickets", "ticket_id, note, _source_file, _loaded_at, _row")
    stamp = dt.datetime(2026, 7, 1, 6)
    assert found == [
        ("007", 'two\nlines, "quoted"', "a.csv", stamp, 0),
        (None, None, "a.csv", stamp, 1),
    ]


def test_declared_columns_get_their_type_and_other_delimiters_and_encodings_are_read(desk):
    stream = {
        "files": "*.csv", "delimiter": ";", "encoding": "latin-1",
        "columns": {"Seats": "BIGINT", "mrr": "DECIMAL(18,2)"},
    }  # fmt: skip
    company = desk(plans=stream)
    text = "name;Seats;mrr\nKöln;5;10.50\n"
    (company.home / "exports" / "a.csv").write_bytes(text.encode("latin-1"))
    run(company)
    assert rows_in_lake(company, "plans", "name, typeof(seats), seats, typeof(mrr)") == [
        ("Köln", "BIGINT", 5, "DECIMAL(18,2)")
    ]


def test_compressed_csv_and_jsonl_with_differing_keys_are_read(desk):
    company = desk(
        tickets={"files": "t.csv.gz"}, events={"files": "e.jsonl"}, more={"files": "e.jsonl.gz"}
    )
    exports = company.home / "exports"
    exports.joinpath("t.csv.gz").write_bytes(gzip.compress(b"id\n1\n2\n"))
    lines = [{"id": 1, "tags": ["a"], "big": 12345678901234567890}, {"id": "x", "at": "2026-01-01"}]
    text = "\n".join(json.dumps(line) for line in lines)
    exports.joinpath("e.jsonl").write_text(text)
    exports.joinpath("e.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    run(company)
    wanted = [("1", '["a"]', "12345678901234567890", None), ("x", None, None, "2026-01-01")]
    assert rows_in_lake(company, "tickets", "id") == [("1",), ("2",)]
    assert rows_in_lake(company, "events", 'id, tags, big, "at"') == wanted
    assert rows_in_lake(company, "more", 'id, tags, big, "at"') == wanted


def test_parquet_keeps_its_types_and_times_without_a_zone_stay_without(desk):
    company = desk(usage={"files": "usage/*.parquet"})
    (company.home / "exports" / "usage").mkdir()
    table = pa.table(
        {
            "naive": [dt.datetime(2026, 1, 1, 8)],
            "aware": [dt.datetime(2026, 1, 1, 8, tzinfo=dt.UTC)],
            "nested": [{"a": 1}],
            "empty": pa.nulls(1),
            "nano": pa.array([1_000], pa.timestamp("ns")),
        }
    )
    pq.write_table(table, company.home / "exports" / "usage" / "1.parquet")
    run(company)
    types = ", ".join(f"typeof({column})" for column in table.column_names)
    assert rows_in_lake(company, "usage", f"{types}, nested, _source_file") == [
        ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR", "TIMESTAMP", '{"a":1}',
         "usage/1.parquet")
    ]  # fmt: skip


def test_only_new_and_changed_files_are_read(desk):
    company = desk(tickets={"files": "*.csv"})
    write(company, "a.csv", "id\n1\n")
    assert run(company).load_id is not None
    assert run(company).load_id is None
    write(company, "b.csv", "id\n2\n")
    assert run(company, now=LATER).streams[0].files == 1
    write(company, "a.csv", "id\n1\n3\n")
    run(company, now=LATER)
    assert rows_in_lake(company, "tickets", "id, _source_file") == [
        ("1", "a.csv"), ("2", "b.csv"), ("1", "a.csv"), ("3", "a.csv"),
    ]  # fmt: skip
    versions = Lake(company).versions("desk")
    assert [(v.source_file, v.rows, v.whole) for v in versions] == [
        ("a.csv", 1, True), ("b.csv", 1, True), ("a.csv", 2, True),
    ]  # fmt: skip
    assert [file.first for file in Lake(company).files("desk")] == [True, False, False]


def test_a_file_written_again_with_the_same_content_is_not_loaded_again(desk):
    company = desk(tickets={"files": "*.csv"})
    path = write(company, "a.csv", "id\n1\n")
    run(company)
    os.utime(path, (1, 1))
    assert run(company).rows == 0
    assert len(rows_in_lake(company, "tickets", "id")) == 1


def test_a_file_that_lost_all_its_rows_is_known_to_be_empty(desk):
    company = desk(tickets={"files": "*.csv"})
    write(company, "a.csv", "id\n1\n")
    run(company)
    write(company, "a.csv", "id\n")
    run(company, now=LATER)
    last = Lake(company).versions("desk")[-1]
    assert (last.source_file, last.rows, last.whole) == ("a.csv", 0, True)


def test_with_a_cursor_only_later_rows_of_a_changed_file_are_taken_and_ties_are_kept(desk):
    company = desk(tickets={"files": "*.csv", "cursor": "Updated At"})
    first = "id,Updated At\n1,2026-01-01T00:00:00Z\n2,2026-01-02T00:00:00+02:00\n3,\n"
    write(company, "a.csv", first)
    write(company, "b.csv", "id,Updated At\n9,2026-03-01T00:00:00Z\n")
    run(company)
    more = "4,2026-01-01T22:00:00Z\n5,\n6,2026-01-05T00:00:00Z\n7,2025-01-01T00:00:00Z\n"
    write(company, "a.csv", first + more)
    assert run(company, now=LATER).rows == 3
    write(company, "a.csv", first + more + "8,2026-01-05T00:00:00Z\n")
    run(company, now=LATER)
    ids = [row[0] for row in rows_in_lake(company, "tickets", "id")]
    assert ids == ["1", "2", "3", "9", "4", "5", "6", "8"]


def test_a_numeric_cursor_in_text_is_ordered_as_numbers(desk):
    company = desk(tickets={"files": "*.csv", "cursor": "seq", "primary_key": ["seq"]})
    write(company, "a.csv", "seq,x\n9,a\n8,b\n")
    run(company)
    write(company, "a.csv", "seq,x,added\n9,a,\n10,c,\n8,b,\n")
    run(company)
    assert [row[0] for row in rows_in_lake(company, "tickets", "seq")] == ["9", "8", "10"]


def test_a_column_that_changes_from_number_to_time_becomes_text(desk):
    company = desk(usage={"files": "*.parquet"})
    path = company.home / "exports" / "a.parquet"
    pq.write_table(pa.table({"v": [1], "w": [1]}), path)
    run(company)
    pq.write_table(pa.table({"v": [dt.date(2026, 1, 2)], "w": [1.5]}), path)
    run(company)
    assert rows_in_lake(company, "usage", "v, w") == [("1", 1.0), ("2026-01-02", 1.5)]


@pytest.mark.parametrize(
    ("name", "text", "stream", "message"),
    [
        ("a.csv", "id,x\n1,2\n3,SECRET,5\n", {}, "a.csv:3: the line has 3 columns where"),
        ("a.csv", "id,x\n1\n", {}, "a.csv:2: the line has 1 columns where the header has 2"),
        ("a.csv", 'id,x\n1,"SECRET\n', {}, "a.csv:2: a quoted value does not end"),
        ("a.csv", "id,x\nSECRET,2\n", {"columns": {"id": "BIGINT"}}, "a.csv:2: column 'id' holds"),
        ("a.csv", "id,x\n1,2\n", {"columns": {"idd": "BIGINT"}}, "no column 'idd'; did you mean"),
        ("a.csv", "Id,id\n1,2\n", {}, "columns 'Id' and 'id' both become 'id'; rename one"),
        ("a.csv", "_row\n1\n", {}, "column '_row' has a name of ours; rename it"),
        ("a.csv", "id,\n1,2\n", {}, "a column has no name; give every column a name"),
        ("a.csv", "id,at\n1,SECRET\n", {"cursor": "at"}, "cursor 'at' holds text that is neither"),
        ("a.csv", "id,at\n1,2\n", {"cursor": "att"}, "the cursor 'att' is no column; did you mean"),
        ("a.csv", "id\n\xe4\n", {}, "a.csv: not in the declared encoding"),
        ("a.jsonl", '{"id": 1}\n{"id": SECRET\n', {}, "a.jsonl"),
        ("a.jsonl", '{"id": "SECRET"}\n', {"columns": {"id": "BIGINT"}}, "another type than decl"),
        ("a.parquet", "PAR1SECRET", {}, "a.parquet: the file is damaged or incomplete"),
        ("a.csv.gz", "SECRET", {}, None),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named_and_its_content_is_not(
    desk, name, text, stream, message
):
    company = desk(tickets={"files": name, **stream})
    (company.home / "exports" / name).write_bytes(text.encode("latin-1"))
    if message is None:
        (company.home / "exports" / name).write_bytes(gzip.compress(b"id\n1\n")[:-9])
        message = name
    with pytest.raises(SourceCorrupt) as caught:
        run(company)
    assert message in str(caught.value)
    assert str(caught.value).startswith("source desk: ")
    assert "SECRET" not in str(caught.value)
    assert Lake(company).loads("desk") == []


def test_nothing_to_read_is_refused_with_what_to_correct(desk, tmp_path):
    company = desk(tickets={"files": "t*.csv"})
    with pytest.raises(SourceRefused, match=r"no file matches t\*.csv in ./exports; correct"):
        run(company)
    (tmp_path / "exports").rmdir()
    with pytest.raises(SourceRefused, match=r"the folder ./exports does not exist; correct"):
        run(company)


def test_a_bucket_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    config = {"type": "files", "location": "s3://b", "streams": {"t": {"files": "a.csv"}}}
    company = make_company(tmp_path, {"desk": config})
    with pytest.raises(SourceRefused, match=r"run `pip install healthloop\[s3\]`"):
        run(company)


def test_files_in_a_remote_place_are_read_as_well(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/desk/t_1.csv", b"id\n1\n")
    config = {
        "type": "files", "location": "memory://bucket/desk", "streams": {"t": {"files": "t_*.csv"}},
    }  # fmt: skip
    company = make_company(tmp_path, {"desk": config})
    run(company)
    assert run(company).rows == 0
    assert rows_in_lake(company, "t", "id, _source_file") == [("1", "t_1.csv")]


def test_settings_of_dlt_that_lie_around_are_not_taken(desk, tmp_path, monkeypatch):
    company = desk(tickets={"files": "*.csv"})
    write(company, "a.csv", "id\n1\n")
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "config.toml").write_text('[destination]\ndataset_name_layout="x_%s"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "file:///nowhere")
    monkeypatch.setenv("DESTINATION__FILESYSTEM__LAYOUT", "{table_name}.{ext}")
    run(company)
    assert rows_in_lake(company, "tickets", "id") == [("1",)]


def test_f93_an_unforeseen_error_is_logged_with_its_place_and_without_its_text(
    desk, monkeypatch, caplog
):
    value = "ann@alderfoods.com"

    def broken(*_):
        raise KeyError(value)

    company = desk(tickets={"files": "*.csv"})
    monkeypatch.setattr("connectors.pull.read_files", broken)
    with pytest.raises(SourceCorrupt, match=r"the pull failed \(KeyError\)"):
        run(company)
    (record,) = [record for record in caplog.records if record.name == "connectors.pull"]
    said = record.getMessage()
    assert said.startswith("source desk: the pull failed\n")
    assert "KeyError, raised in" in said
    assert "in broken" in said
    assert "alderfoods" not in said
    assert record.exc_info is None
