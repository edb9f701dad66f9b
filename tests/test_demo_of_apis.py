"""The demo as it is: pulled over HTTP from its vendors' sandbox, scored, and no secret left behind.

The same synthetic company is also known as files, read by mappings that were written apart from
the vendors' ones. Both ways have to come to the same scores.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from addresses import addresses_in
from demo_company import ACCOUNTS, TODAY, WEEK_ENDS, rows_of, run, scored_demo

from connectors.sandbox.demo import PORT, WORLD, write_demo_company
from connectors.sandbox.servers.box import Box, credentials
from connectors.sandbox.servers.running import sandbox
from contracts.company import read_company
from orchestration.resources import clock

pytestmark = pytest.mark.xdist_group("demo of apis")  # its runs are made once, by one worker


@contextmanager
def vendors_of(home: Path) -> Iterator[Box]:
    """The sandbox of a demo company on free ports, to which its sources are pointed."""
    company = read_company(home)
    with sandbox(home / WORLD, company.now(clock()), ca_folder=home / "sandbox") as box:
        plain = box.address("zendesk").removesuffix("/zendesk")
        for file in (home / "sources").glob("*.yaml"):
            text = file.read_text().replace(f"http://127.0.0.1:{PORT}", plain)
            text = text.replace(f"https://127.0.0.1:{PORT + 1}", box.address("salesforce"))
            file.write_text(text)
        yield box


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A demo company after its first run over HTTP and a second one, an hour without news."""
    home = tmp_path_factory.mktemp("apis") / "company"
    write_demo_company(home, accounts=ACCOUNTS)
    (home / "crm.yaml").unlink()  # planning asks the CRM as well, which is not counted here
    with vendors_of(home) as box:
        first = run(home, *WEEK_ENDS, TODAY)
        asked = len(box.log)
        again = run(home, TODAY)
        return home, first, again, box.log[asked:], box.defects


def scores(home: Path) -> dict[tuple[object, ...], tuple[object, ...]]:
    """Score and band by account and score, as of today."""
    rows = rows_of(
        home,
        "SELECT account_id, score, value, band FROM scores.scores "
        "WHERE as_of = ? AND value IS NOT NULL",
        [TODAY],
    )
    return {row[:2]: row[2:] for row in rows}


def test_the_demo_runs_over_http_from_the_first_pull_to_the_plan(scored):
    _, first, again, _, defects = scored
    assert (first.success, first.failures, first.warnings) == (True, (), ())
    assert (again.success, again.failures, again.warnings) == (True, (), ())
    assert defects == []


def test_an_hour_without_news_costs_one_request_per_stream(scored):
    home, _, _, asked, _ = scored
    streams = rows_of(home, "SELECT count(DISTINCT (source, stream)) FROM signals.source_health")
    assert 0 < len(asked) <= streams[0][0]


def test_apis_and_files_of_one_company_come_to_the_same_scores(scored, tmp_path_factory):
    over_http, by_file = scores(scored[0]), scores(scored_demo(tmp_path_factory))
    assert len(over_http) > ACCOUNTS
    both = over_http.keys() & by_file.keys()
    assert len(both) >= 0.98 * len(by_file)
    same_band = sum(over_http[key][1] == by_file[key][1] for key in both)
    near = sum(abs(float(over_http[key][0]) - float(by_file[key][0])) <= 2 for key in both)
    assert same_band >= 0.98 * len(both)
    assert near >= 0.95 * len(both)


def test_f93_no_credential_and_no_address_is_left_in_the_warehouse_or_dagster(scored):
    home = scored[0]
    secrets = [value.encode() for value in credentials().values()]
    files = [file for file in (home / "state").rglob("*") if file.is_file()]
    assert len(files) > 50
    for file in files:
        assert not any(secret in file.read_bytes() for secret in secrets), file
    customers = home / "state/lake/raw_billing/customers/*.parquet"
    raw = duckdb.sql(f"SELECT DISTINCT email FROM read_parquet('{customers}')").fetchall()
    addresses = {row[0].encode() for row in raw if row[0]}
    assert len(addresses) > 50
    told = [home / "state" / "warehouse.duckdb", *(home / "state/dagster").rglob("*")]
    for file in told:
        if file.is_file():
            found = addresses_in(file.read_bytes())
            assert not addresses & found, file
