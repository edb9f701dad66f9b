"""Empty, stale and drifting sources (section C of the fault catalogue), from the pull to the score.

An API tells who published how much. Whatever happens to it, no account changes its band, the run
says why it is degraded, and the next clean run comes to the scores of a company without the fault.
F29, F31, F32 and F33 of exports as files, and F38, are in test_dagster_faults and
test_dagster_checks; F39 is in test_source_health.
"""

import datetime as dt
import re
from collections.abc import Callable

import duckdb
import pytest
import yaml
from demo_company import (
    KEYS_SQL,
    SMALL_TODAY,
    USAGE_SQL,
    copy_of,
    healthloop,
    move_to,
    rows_of,
    run,
    usage,
    write,
    write_small_company,
)

from connectors.lake import Lake
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import read_company
from tests.signals_helpers import ACCOUNTS, Case, account, at
from tests.small_api import TOKEN, SmallApi, serving

CUSTOMERS = 60
TOMORROW = SMALL_TODAY + dt.timedelta(days=1)
AFTER = TOMORROW + dt.timedelta(days=1)
SCORES = "SELECT account_id, score, value, band FROM scores.scores WHERE as_of = ? ORDER BY ALL"


def published(first: dt.date, last: dt.date) -> list[dict]:
    return [
        {"id": f"{who}-{day}", "workspace": who, "day": str(day), "n": count,
         "updated_at": f"{day}T20:00:00Z"}
        for who, day, count in sorted(usage(CUSTOMERS, first, last), key=lambda row: row[1])
    ]  # fmt: skip


def workspaces() -> list[dict]:
    return [{"workspace": f"w-{n}", "domain": f"acme{n}.com"} for n in range(1, CUSTOMERS + 1)]


def until(day: dt.date) -> dict[str, list[dict]]:
    """What the API has on a day."""
    return {"usage": published(dt.date(2026, 1, 15), day), "workspaces": workspaces()}


def point_to(home, address: str) -> None:
    paging = {"cursor": "meta.next", "param": "after"}
    both = {"records": "data", "paging": paging}
    used = {
        **both, "path": "/usage", "primary_key": ["id"], "cursor": "updated_at",
        "overlap_minutes": 3 * 24 * 60, "params": {"since": "{since}"}, "columns": ["n"],
    }  # fmt: skip
    known = {**both, "path": "/workspaces", "primary_key": ["workspace"]}
    config = {
        "type": "rest", "address": address, "auth": {"bearer": {"env": "PRODUCT_TOKEN"}},
        "account": {"path": "/me", "field": "organisation.id"},
        "streams": {"usage": used, "workspaces": known},
    }  # fmt: skip
    write(home / "sources/product.yaml", yaml.safe_dump(config))


@pytest.fixture(scope="module")
def api():
    with pytest.MonkeyPatch.context() as patch, serving(SmallApi({}, per_page=1_000)) as server:
        patch.setenv("PRODUCT_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def once(api, tmp_path_factory):
    """The company after one good run."""
    home = write_small_company(tmp_path_factory.mktemp("api") / "company", accounts=CUSTOMERS)
    write(home / "sources/product/usage_daily.sql", USAGE_SQL)
    write(home / "sources/product/account_keys.sql", KEYS_SQL)
    point_to(home, api.address)
    api.lists = until(SMALL_TODAY)
    ran = run(home, SMALL_TODAY)
    assert (ran.success, ran.warnings) == (True, ())
    return home


@pytest.fixture(scope="module")
def spared(once, api, tmp_path_factory):
    """The scores of the days after it where nothing went wrong, by day."""
    home = copy_of(once, tmp_path_factory.mktemp("spared"))
    found = {}
    for day in (TOMORROW, AFTER):
        api.lists = until(day)
        move_to(home, day)
        assert run(home, day).warnings == ()
        found[day] = rows_of(home, SCORES, [day])
    return found


@pytest.fixture
def home(once, spared, api, tmp_path):
    api.lists, api.account = until(TOMORROW), "acme"
    api.broken.clear()
    home = copy_of(once, tmp_path)
    move_to(home, TOMORROW)
    return home


def bands(home, day: dt.date) -> dict:
    return {row[0]: row[3] for row in rows_of(home, SCORES, [day])}


def nothing_new(api: SmallApi) -> None:
    api.lists["usage"] = until(SMALL_TODAY)["usage"]


def most_lost(api: SmallApi) -> None:
    new = published(TOMORROW, TOMORROW)
    api.lists["usage"] = until(SMALL_TODAY)["usage"] + new[: len(new) // 5]


def short_list(api: SmallApi) -> None:
    del api.lists["workspaces"][10:]


def emptied_list(api: SmallApi) -> None:
    api.lists["workspaces"].clear()


def refused_stream(api: SmallApi) -> None:
    api.broken.add("/usage")


def renamed(api: SmallApi) -> None:
    for row in api.lists["usage"]:
        if row["day"] == str(TOMORROW):
            row["amount"] = row.pop("n")


def retyped(api: SmallApi) -> None:
    for row in api.lists["usage"]:
        if row["day"] == str(TOMORROW):
            row["n"] = {"total": row["n"]}


def other_account(api: SmallApi) -> None:
    api.account = "acme-test"
    api.lists["usage"] = []


FAULTS: dict[str, tuple[Callable[[SmallApi], None], str]] = {
    "F29 nothing comes": (
        nothing_new,
        r"source product: usage is stale: usage_daily: no rows on 2026-04-01; 3\d are usual on a "
        r"Wednesday",
    ),
    "F29 an empty list": (
        emptied_list,
        r"source product: workspaces is suspect: 'workspaces' had rows and now has none; the old "
        r"are kept",
    ),
    "F30 most rows of a day are missing": (
        most_lost,
        r"source product: usage is suspect: usage_daily: \d rows on 2026-04-01; 3\d are usual on "
        r"a Wednesday",
    ),
    "F30 most rows of a list are missing": (
        short_list,
        r"source product: workspaces is suspect: most rows of raw_product\.workspaces are gone: "
        r"10, where there were 60; .*`healthloop sources accept product workspaces`",
    ),
    "F31 one stream is down": (refused_stream, r"usage: .*"),
    "F33 a field is renamed": (
        renamed,
        r"source product: usage is suspect: column 'n' of raw_product\.usage, which "
        r"sources/product/usage_daily\.sql uses, has vanished; .*",
    ),
    "F34 a type changes": (
        retyped,
        r"source product: usage is suspect: column 'n' of raw_product\.usage, which "
        r"sources/product/usage_daily\.sql uses, was number and now is object; .*",
    ),
    "F37 the key of another account": (
        other_account,
        r"source product: the credentials open account 'acme-test', not 'acme'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_band_is_named_and_leaves_nothing_behind(home, api, spared, fault):
    breaks, reason = FAULTS[fault]
    held, unharmed = bands(home, SMALL_TODAY), {row[0]: row[3] for row in spared[TOMORROW]}
    breaks(api)
    ran = run(home, TOMORROW)
    assert ran.success
    assert len(ran.warnings) == 1
    assert re.match(reason, ran.warnings[0]), ran.warnings[0]
    # A list of keys feeds no metric, so the usage that came beside it counts.
    assert bands(home, TOMORROW) == (unharmed if "list" in fault else held)
    api.lists, api.account = until(AFTER), "acme"
    api.broken.clear()
    move_to(home, AFTER)
    clean = run(home, AFTER)
    assert (clean.success, clean.warnings) == (True, ())
    assert rows_of(home, SCORES, [AFTER]) == spared[AFTER]


def test_f32_revoked_credentials_hold_the_bands_and_say_so(home, monkeypatch):
    before = bands(home, SMALL_TODAY)
    monkeypatch.setenv("PRODUCT_TOKEN", "canary-revoked")
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 0
    assert "DEGRADED: source product: " in answer.err
    assert "canary" not in answer.both
    assert bands(home, TOMORROW) == before
    states = rows_of(
        home, "SELECT DISTINCT stream, arg_max(status, checked_at) FROM signals.source_health "
        "WHERE source = 'product' GROUP BY stream ORDER BY stream",
    )  # fmt: skip
    assert states == [("usage", "down"), ("workspaces", "down")]


def test_f36_extra_fields_are_kept_and_change_nothing(home, api, spared):
    for row in api.lists["usage"]:
        row |= {"region": "north"} if row["day"] == str(TOMORROW) else {}
    ran = run(home, TOMORROW)
    assert (ran.success, ran.warnings) == (True, ())
    assert rows_of(home, SCORES, [TOMORROW]) == spared[TOMORROW]
    kinds = [v.kinds for v in Lake(read_company(home)).versions("product") if v.stream == "usage"]
    assert ["region" in found for found in kinds] == [False, True]


def test_f35_a_new_value_is_set_aside_and_told_while_the_other_rows_count(tmp_path):
    case = Case(tmp_path)
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.load("crm", at(1), accounts=[account("a")])
    case.declare("desk", ["tickets"], tickets=(
        "SELECT who AS account_key, id AS ticket_id, priority, opened AS opened_at "
        "FROM raw_desk.tickets"))  # fmt: skip
    rows = [{"who": "a", "id": str(n), "priority": "p2", "opened": at(2)} for n in range(40)]
    case.load("desk", at(3), tickets=[*rows, {**rows[0], "id": "new", "priority": "p0"}])
    report = case.build()
    assert report.warnings == (
        "1 rows of desk for tickets are set aside (priority: not one of p1, p2, p3, p4); "
        "see signals.quarantine",
    )
    assert case.rows("SELECT count(*) FROM signals.tickets") == [(40,)]
    assert {health.status for health in report.health} == {"ok"}


def test_a_warehouse_that_is_rebuilt_holds_the_same_loads(home, api):
    retyped(api)
    assert run(home, TOMORROW).success
    counted = "SELECT count(*), max(day) FROM signals.usage_daily"
    before = rows_of(home, counted)
    company = read_company(home)
    with duckdb.connect() as connection:
        report = build(
            connection, company, read_sources(company), now=company.now(dt.datetime.now(dt.UTC))
        )
        assert connection.execute(counted).fetchall() == before
    states = {health.stream: health.status for health in report.health}
    assert states == {"customers": "ok", "usage": "suspect", "workspaces": "ok"}
