import duckdb
import pytest

from connectors.lake import attached_sql
from connectors.pull import pull
from connectors.sources import address_of, check_sources, read_sources
from contracts.company import read_company
from contracts.errors import ConfigurationError, SourceRefused
from contracts.secrets import FromEnvironment
from tests.pulling import NOW

GOOD = """\
type: files
location: ./exports
streams:
  tickets: {files: "*.csv"}
"""


@pytest.fixture
def folder(tmp_path):
    """Writes a company folder from a mapping of paths to texts, and checks its sources."""

    def write(**files):
        (tmp_path / "company.yaml").write_text("name: A\ntenant: a\nhistory_start: 2024-01-01\n")
        (tmp_path / "sources").mkdir(exist_ok=True)
        for name, text in files.items():
            path = tmp_path / "sources" / name.replace("__", "/").replace("_yaml", ".yaml")
            path = path.with_name(path.name.replace("_sql", ".sql"))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return read_company(tmp_path)

    return write


def lines(company):
    """The problems as a user sees them, with paths below the company folder."""
    return [
        str(problem).replace(f"{company.home}/", "")
        for problem in sorted(check_sources(company)[1])
    ]


def test_a_source_with_its_mappings_is_read(folder):
    company = folder(
        desk_yaml=GOOD,
        desk__tickets_sql="WITH t AS (SELECT * FROM raw_desk.tickets) SELECT * FROM t",
    )
    (source,) = read_sources(company)
    assert source.name == "desk"
    assert list(source.streams) == ["tickets"]
    assert source.mappings == {"tickets": company.home / "sources" / "desk" / "tickets.sql"}
    assert not source.in_place


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("type: file\nstreams: {}\n", "1: unknown type 'file'; did you mean 'files'?"),
        ("streams: {}\n", "1: 'type' is missing; valid are: amplitude, attached, chargebee"),
        ("[1]\n", "1: a source is a mapping with `type` and what that type needs; see docs"),
        ("type: files\nstreams:\n  t: {files: a.csv}\n", "1: 'location' is missing; add it"),
        (GOOD + "loation: x\n", "5: unknown setting 'loation'; did you mean 'location'?"),
        (GOOD.replace('files: "', 'file: "'), "4: unknown setting 'streams.tickets.file'; did"),
        (GOOD.replace("*.csv", "*.xlsx"), "'*.xlsx' does not end in .csv, .jsonl or .parquet; add"),
        (
            GOOD.replace("tickets:", "Tickets:"),
            "4: streams.Tickets: 'Tickets' cannot name",
        ),
        (
            "type: sql\nurl: postgresql://u:secret@h/d\nstreams:\n  t: {table: t}\n",
            "2: url: a password stands in it; put the whole address into an environment",
        ),
        (
            "type: sql\nurl: sqlite:///a.db\nstreams:\n  t: {cursor: a}\n",
            "4: streams.t: give either `table` or `query`; one of the two is needed",
        ),
        (
            GOOD.replace('"*.csv"', '"*.csv", columns: {id: BIGNIT}'),
            "4: streams.tickets.columns.id: unknown type 'BIGNIT'; give a DuckDB type",
        ),
        ("type: attached\nstreams:\n  t: {table: t}\n", "give either `database` or `location`"),
        (
            "type: attached\ndatabase: a.duckdb\nstreams:\n  t: {files: t}\n",
            "stream 't' needs `table` and nothing else; correct it",
        ),
    ],
)
def test_a_mistake_in_a_source_is_shown_with_its_line(folder, yaml, message):
    company = folder(desk_yaml=yaml, desk__tickets_sql="SELECT * FROM raw_desk.tickets")
    found = lines(company)
    assert any(message in line for line in found), found
    assert all(line.startswith("sources/desk") for line in found)
    assert "secret" not in "\n".join(found)
    with pytest.raises(ConfigurationError):
        read_sources(company)


@pytest.mark.parametrize(
    ("sql", "messages"),
    [
        (
            "SELECT *\nFROM raw_desk.tikets",
            ["tickets.sql:2: unknown table 'raw_desk.tikets'; did you mean 'raw_desk.tickets'?"],
        ),
        (
            "SELECT *\n\nFROM tickets",
            ["tickets.sql:3: unknown table 'tickets'; write it with its schema: did you mean "
             "'raw_desk.tickets'?"],
        ),
        (
            "SELECT * FROM raw_desk.tickets,\nsignals.accounts",
            ["tickets.sql:2: unknown table 'signals.accounts'; valid are: raw_desk.tickets"],
        ),
        ("SELECT (\n1 FROM", ["tickets.sql:2: not valid SQL: Expecting ); correct it"]),
        ("SELECT 'a", ["tickets.sql:1: not valid SQL: an unclosed quote; close it"]),
        ("DROP TABLE x", ["tickets.sql:1: a mapping is exactly one SELECT; keep one SELECT"]),
        ("SELECT 1; SELECT 2", ["tickets.sql:1: a mapping is exactly one SELECT; keep one"]),
        ("", ["tickets.sql:1: a mapping is exactly one SELECT; keep one SELECT"]),
        (
            "SELECT 1",
            ["desk.yaml:4: no mapping reads stream 'tickets'; read raw_desk.tickets in "
             "sources/desk/<table>.sql, or take the stream out"],
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_a_mapping_is_shown_with_its_line(folder, sql, messages):
    company = folder(desk_yaml=GOOD, desk__tickets_sql=sql)
    found = "\n".join(lines(company))
    for message in messages:
        assert message in found


def test_all_mistakes_are_listed_at_once(folder):
    company = folder(
        desk_yaml=GOOD,
        desk__tickes_sql="SELECT * FROM raw_desk.tickets",
        crm_yaml="type: sql\nurl: sqlite:///x.db\nstream:\n  t: {table: t}\n",
        other__tickets_sql="SELECT 1",
        late_yml="type: files",
    )
    assert lines(company) == [
        "sources/crm.yaml:1: 'streams' is missing; add it",
        "sources/crm.yaml:3: unknown setting 'stream'; did you mean 'streams'?",
        "sources/desk/tickes.sql:1: 'tickes' is not a canonical table; did you mean 'tickets'?",
        "sources/other:1: there are mappings but no sources/other.yaml; valid are: crm, desk",
    ]


def test_a_mapping_may_read_another_source_and_files_of_its_own(folder):
    company = folder(
        desk_yaml=GOOD,
        crm_yaml=GOOD,
        desk__tickets_sql="SELECT * FROM raw_desk.tickets JOIN raw_crm.tickets USING (id)",
        desk__goals_sql="SELECT * FROM read_csv('x.csv'), unnest([1, 2]) AS u(x)",
        crm__tickets_sql='SELECT * FROM "raw_crm"."tickets"',
    )
    assert lines(company) == []


def test_a_yaml_file_with_the_wrong_ending_is_not_overlooked(folder):
    company = folder()
    (company.home / "sources" / "desk.yml").write_text(GOOD)
    assert lines(company) == ["sources/desk.yml:1: the file is not read; rename it to desk.yaml"]


def test_an_address_from_the_environment_is_read_when_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("DESK_URL", "https://u:p@example.com")
    assert address_of(FromEnvironment(env="DESK_URL"), tmp_path) == "https://u:p@example.com"
    monkeypatch.delenv("DESK_URL")
    with pytest.raises(SourceRefused, match="the environment variable DESK_URL is not set"):
        address_of(FromEnvironment(env="DESK_URL"), tmp_path)


def test_an_attached_warehouse_is_read_in_place_and_never_pulled(folder):
    company = folder(
        dwh_yaml="type: attached\ndatabase: dwh.duckdb\nstreams:\n"
        "  tickets: {table: desk.tickets}\n  plans: {table: plans}\n",
        dwh__tickets_sql="SELECT * FROM raw_dwh.tickets, raw_dwh.plans",
        lake_yaml="type: attached\nlocation: parquet\nstreams:\n  usage: {files: '*.parquet'}\n",
        lake__usage_daily_sql="SELECT * FROM raw_lake.usage",
    )
    with duckdb.connect(str(company.home / "dwh.duckdb")) as connection:
        connection.execute("CREATE SCHEMA desk; CREATE TABLE desk.tickets AS SELECT 7 AS id")
        connection.execute("CREATE TABLE plans AS SELECT 'pro' AS name")
    (company.home / "parquet").mkdir()
    duckdb.sql("SELECT 3 AS n").write_parquet(str(company.home / "parquet" / "1.parquet"))
    dwh, lake = read_sources(company)
    assert dwh.in_place
    assert pull(dwh, company, now=NOW).rows == 0
    assert not company.lake.exists()
    with duckdb.connect() as connection:
        first, relations = attached_sql(dwh, company)
        for statement in first:
            connection.execute(statement)
        rest = (None, "", 1)
        assert connection.sql(relations["tickets"]).fetchall() == [(7, "tickets", *rest)]
        assert connection.sql(relations["plans"]).fetchall() == [("pro", "plans", *rest)]
        with pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("DELETE FROM attached_dwh.plans")
        assert attached_sql(lake, company)[0] == []
        usage = attached_sql(lake, company)[1]["usage"]
        assert connection.sql(usage).fetchall() == [(3, "usage", *rest)]
