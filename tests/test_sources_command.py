"""`healthloop sources` and `healthloop sources accept`, on a small company."""

import csv
import datetime as dt
import io
import json

import pytest
from demo_company import (
    SMALL_TODAY,
    copy_of,
    healthloop,
    move_to,
    rows_of,
    run,
    scored_small,
    write_csv,
    write_small_company,
)

TOMORROW = SMALL_TODAY + dt.timedelta(days=1)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A small company after one good run; copy it before changing it."""
    return scored_small(tmp_path_factory)


@pytest.fixture
def home(once, tmp_path):
    return copy_of(once, tmp_path)


def listed(home) -> dict[str, dict]:
    answer = healthloop("sources", "--home", str(home), "--format", "json")
    assert answer.code == 0
    return {row["stream"]: row for row in json.loads(answer.out)}


def lose_workspaces(home) -> None:
    """A day later the export of the workspaces has lost most of its rows."""
    move_to(home, TOMORROW)
    rows = [(f"w-{n}", f"www.acme{n}.com") for n in range(1, 6)]
    write_csv(home / "files/product/workspaces.csv", ("workspace", "domain"), rows)
    assert run(home, TOMORROW).success


def test_every_stream_is_listed_with_its_state_and_since_when(home):
    found = listed(home)
    assert set(found) == {"customers", "usage", "workspaces"}
    assert found["usage"] == {
        "source": "product", "type": "files", "stream": "usage", "status": "ok",
        "since": "2026-03-31 21:59", "reason": None, "last_load": "2026-03-31 21:59",
        "rows": found["usage"]["rows"], "account": None, "next": None,
    }  # fmt: skip
    assert found["workspaces"]["rows"] == 24
    assert healthloop("sources", "--home", str(home), "--strict").code == 0


def test_csv_and_table_say_the_same(home):
    as_csv = healthloop("sources", "--home", str(home), "--format", "csv").out
    assert [row["stream"] for row in csv.DictReader(io.StringIO(as_csv))] == list(listed(home))
    table = healthloop("sources", "--home", str(home))
    assert table.code == 0
    assert "workspaces" in table.out


def test_a_suspect_stream_says_why_and_what_to_do_and_strict_tells_by_the_exit_code(home):
    lose_workspaces(home)
    found = listed(home)["workspaces"]
    assert (found["status"], found["since"]) == ("suspect", "2026-04-01 21:59")
    assert found["reason"].startswith(
        "most rows of 'workspaces.csv' are gone: 5, where there were 24; the old are kept"
    )
    assert found["next"].endswith("healthloop sources accept product workspaces")
    assert healthloop("sources", "--home", str(home), "--strict").code == 1


def test_what_is_accepted_is_believed_by_the_next_run(home):
    lose_workspaces(home)
    evidence = "SELECT count(*) FROM signals.key_evidence WHERE superseded_at IS NULL"
    assert rows_of(home, evidence) == [(24,)]
    answer = healthloop("sources", "accept", "product", "workspaces", "--home", str(home))
    assert answer.code == 0
    assert answer.out.startswith("Accepted workspaces of product: most rows of 'workspaces.csv'")
    run(home, TOMORROW)
    assert rows_of(home, evidence) == [(5,)]
    assert listed(home)["workspaces"]["status"] == "ok"
    again = healthloop("sources", "--home", str(home), "accept", "product", "workspaces")
    assert (again.code, again.err) == (
        2, "nothing of stream 'workspaces' of source 'product' waits to be accepted; "
        "see `healthloop sources`\n",
    )  # fmt: skip


def test_before_the_first_run_nothing_is_known_yet(tmp_path):
    home = write_small_company(tmp_path / "company")
    found = listed(home)
    assert {row["reason"] for row in found.values()} == {"nothing is known yet"}
    assert healthloop("sources", "--home", str(home), "--strict").code == 1


def test_the_help_shows_an_example_and_both_uses():
    answer = healthloop("sources", "--help")
    assert "Example:  healthloop sources" in answer.out
    assert "accept" in answer.out
    assert "Example:  healthloop sources accept" in healthloop("sources", "accept", "--help").out
