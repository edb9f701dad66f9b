"""What the fault tests share: every vendor pulled from a sandbox, and what its lake then says.

Each vendor has a company folder of its own with one source, a short history and small pages, so
that a pull is a handful of requests. `state_of` is the common oracle: the latest state of every
row, by stream and primary key, without the bookkeeping of loads.
"""

import datetime as dt
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import yaml

from connectors.files import normalised
from connectors.lake import Lake, raw_relation_sql
from connectors.pull import Pull, pull
from connectors.sandbox.servers.box import Box, credentials
from connectors.sandbox.vendors import NAMES
from connectors.sandbox.vendors.mixpanel import DATA_GROUP
from connectors.sandbox.vendors.mixpanel import PROJECT as MIXPANEL_PROJECT
from connectors.sandbox.vendors.posthog import PROJECT as POSTHOG_PROJECT
from connectors.sandbox.vendors.surveymonkey import SURVEY
from connectors.sandbox.vendors.typeform import FORM
from connectors.sources import Source, read_sources
from contracts.company import Company, read_company
from contracts.errors import SourceError

FIRST = dt.datetime(2026, 6, 25, 20, tzinfo=dt.UTC)
SECOND = dt.datetime(2026, 6, 28, 20, 30, tzinfo=dt.UTC)
"""When the first pull and the next one happen; in between the world goes on."""

BOOKKEEPING = {"_loaded_at", "_load_id", "_row", "_source_file"}
ACTIONS = {
    "events": ["login", "report_published", "storage_gb"],
    "active_events": ["session_started"],
    "level_events": ["storage_gb"],
    "value_property": "value",
}


def env(name: str) -> dict[str, str]:
    return {"env": name}


@dataclass(frozen=True)
class Case:
    """How a vendor is pulled here, and where a fault hits it.

    `stream`, `path`, `asks` and `nth` name the request in the middle of paging that is spoiled.
    `cursor` is the field of an answer that leads to the next page. `when_told` are columns that
    say when or how we were told, which differs between a row that came at once and one that came
    later; `keys` replaces primary keys that hold such a column.
    """

    settings: dict[str, Any]
    stream: str
    path: str
    asks: str | None = None
    nth: int = 2
    cursor: str | None = None
    pages: int | None = 20
    since: dt.date = dt.date(2026, 6, 22)
    when_told: frozenset[str] = frozenset()
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)


CASES = {
    "amplitude": Case(
        {"key": env("AMPLITUDE_KEY"), "secret": env("AMPLITUDE_SECRET"), **ACTIONS},
        "events", "/export$",
    ),
    "chargebee": Case(
        {"site": "acme", "key": env("CHARGEBEE_KEY")},
        "subscriptions", "/subscriptions$", cursor="next_offset",
        when_told=frozenset({"is_first"}),
    ),
    "company_news": Case(
        {"key": env("COMPANY_NEWS_KEY")},
        "acquisitions", "/searches/acquisitions$", since=dt.date(2024, 10, 1), pages=5,
    ),
    "freshdesk": Case(
        {"domain": "sandbox", "api_key": env("FRESHDESK_KEY"), "requests_per_minute": 100_000},
        "tickets", "/tickets$", pages=10, asks="include=stats",
        since=dt.date(2026, 6, 1),
    ),
    "hubspot": Case(
        {"token": env("HUBSPOT_TOKEN"), "streams": ["companies", "deals", "owners"]},
        "companies", "/objects/.*companies$", cursor="paging.next.after",
    ),
    "intercom": Case(
        {"token": env("INTERCOM_TOKEN")},
        "conversations", "/conversations/search$", cursor="pages.next.starting_after", pages=10,
        since=dt.date(2026, 6, 1),
    ),
    "mixpanel": Case(
        {"project_id": MIXPANEL_PROJECT, "secret": env("MIXPANEL_SECRET"),
         "data_group_id": DATA_GROUP, "late_days": 2, **ACTIONS},
        "groups", "/engage$",
    ),
    "posthog": Case(
        {"project": POSTHOG_PROJECT, "token": env("POSTHOG_KEY"), **ACTIONS},
        "usage", "/query", pages=120,
    ),
    "salesforce": Case(
        {"access_token": env("SALESFORCE_TOKEN"), "streams": ["accounts", "goals", "users"]},
        "accounts", "/query", nth=3, cursor="nextRecordsUrl",
        when_told=frozenset({"known_at", "backfilled"}),
        keys={"accounts": ("id",), "goals": ("id",)},
    ),
    "stripe": Case(
        {"key": env("STRIPE_KEY")},
        "subscriptions", "/v1/subscriptions$",
        when_told=frozenset({"as_of", "is_first", "previously"}),
    ),
    "surveymonkey": Case(
        {"token": env("SURVEYMONKEY_TOKEN"), "surveys": [{"id": SURVEY}]},
        "responses", "/responses/bulk$", cursor="links.next", since=dt.date(2025, 1, 1),
    ),
    "typeform": Case(
        {"token": env("TYPEFORM_TOKEN"), "forms": [{"id": FORM, "kind": "csat"}]},
        "responses", "/responses$", since=dt.date(2025, 1, 1),
    ),
    "zendesk": Case(
        {"subdomain": "sandbox", "token": env("ZENDESK_TOKEN"), "exports_per_minute": 100_000},
        "tickets", "/incremental/tickets/cursor", cursor="after_cursor", pages=10,
        since=dt.date(2026, 6, 1),
    ),
}  # fmt: skip
assert tuple(CASES) == NAMES


def company_of(home: Path, vendor: str, box: Box, **changes: Any) -> Company:
    """A company folder whose only source is the vendor in the sandbox; a lake in it stays."""
    case = CASES[vendor]
    (home / "sources").mkdir(parents=True, exist_ok=True)
    (home / "company.yaml").write_text(
        f"name: Acme\ntenant: acme\nhistory_start: {case.since.isoformat()}\n"
    )
    secrets = [f"{name}='{value}'\n" for name, value in credentials().items()]
    (home / ".env").write_text("".join(secrets))
    trusts = {"ca_file": str(box.ca_file)} if vendor == "salesforce" else {}
    settings = {"type": vendor, "address": box.address(vendor), **case.settings, **trusts}
    (home / "sources" / f"{vendor}.yaml").write_text(yaml.safe_dump({**settings, **changes}))
    return read_company(home)


def source_of(company: Company) -> Source:
    """The only source of a company."""
    (source,) = read_sources(company)
    return source


@dataclass(frozen=True)
class Outcome:
    """What became of a pull: streams that failed and why; `pull` is None where all did."""

    pull: Pull | None
    failures: dict[str | None, SourceError]


def pulled(company: Company, now: dt.datetime) -> Outcome:
    """Pull the company's source; an error is an outcome too."""
    try:
        done = pull(source_of(company), company, now=now)
    except SourceError as error:
        return Outcome(None, {error.stream: error})
    return Outcome(done, dict(done.failures))


State = dict[str, dict[tuple[Any, ...], tuple[tuple[str, str], ...]]]


def state_of(company: Company) -> State:
    """The latest content of every row, by stream and primary key."""
    source = source_of(company)
    return {name: _rows_of(company, source, name) for name in source.streams}


def _rows_of(company: Company, source: Source, stream: str) -> dict[tuple[Any, ...], Any]:
    lake, case = Lake(company), CASES[source.name]
    files = [file for file in lake.files(source.name) if file.stream == stream]
    if not files:
        return {}
    declared = source.streams[stream]
    if declared.whole:
        versions = [v for v in lake.versions(source.name) if v.stream == stream]
        files = [file for file in files if file.load_id == versions[-1].load_id]
    if not files:
        return {}
    key = case.keys.get(stream, tuple(normalised(list(declared.primary_key)).values()))
    with duckdb.connect(config={"threads": 1}) as connection:
        found = connection.sql(
            f"SELECT * FROM ({raw_relation_sql(files)}) ORDER BY CAST(_load_id AS DOUBLE), _row"
        )
        names, rows = found.columns, found.fetchall()
    kept = [name for name in names if name not in BOOKKEEPING | case.when_told]
    latest = {}
    for values in rows:
        row = dict(zip(names, values, strict=True))
        content = tuple((name, row[name]) for name in kept if row[name] is not None)
        latest[tuple(row[name] for name in key)] = content
    return latest


def without(state: State, columns: set[str]) -> State:
    """The state as if it had not these columns."""
    return {
        stream: {
            key: tuple(pair for pair in content if pair[0] not in columns)
            for key, content in rows.items()
        }
        for stream, rows in state.items()
    }


def differences(found: State, wanted: State) -> list[str]:
    """What differs between two states, a few lines for the message of a failed test."""
    lines = []
    for stream in sorted({*found, *wanted}):
        ours, theirs = found.get(stream, {}), wanted.get(stream, {})
        if ours == theirs:
            continue
        lost, doubled = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
        other = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        lines.append(f"{stream}: {len(lost)} lost, {len(doubled)} too many, {len(other)} differ")
        lines += [f"  lost {key}" for key in sorted(lost, key=repr)[:2]]
        lines += [f"  too many {key}" for key in sorted(doubled, key=repr)[:2]]
        lines += [f"  {key}: {set(ours[key]) ^ set(theirs[key])}" for key in other[:1]]
    return lines


def assert_no_secret(*texts: object) -> None:
    """No credential of the sandbox and no e-mail address stands in any of the texts."""
    for text in map(str, texts):
        assert not [name for name, value in credentials().items() if value in text]
        assert not re.search(r"[\w.+-]+@[\w-]+\.\w+", text)


class FaultFree:
    """What the lakes say when nothing goes wrong; each vendor is pulled when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, dt.datetime], tuple[State, int]] = {}

    def home(self, vendor: str, box: Box, now: dt.datetime = FIRST) -> Path:
        """The company folder after the pulls up to `now`, to be copied."""
        home = self._folder / f"{vendor}-{now:%d}"
        if not home.exists():
            if now != FIRST:
                shutil.copytree(self.home(vendor, box), home)
            before, box.now, box.small_pages = box.now, now, CASES[vendor].pages
            company, asked = company_of(home, vendor, box), box.count(vendor)
            assert pulled(company, now).failures == {}
            self._known[vendor, now] = state_of(company), box.count(vendor) - asked
            box.now = before
        return home

    def state(self, vendor: str, box: Box, now: dt.datetime = FIRST) -> State:
        """What the lake says then."""
        self.home(vendor, box, now)
        return self._known[vendor, now][0]

    def requests(self, vendor: str, box: Box, now: dt.datetime = FIRST) -> int:
        """How many requests the pull at `now` took."""
        self.home(vendor, box, now)
        return self._known[vendor, now][1]
