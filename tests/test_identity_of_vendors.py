"""Who is who, measured: the keys of the vendors against the accounts that the generator knows.

The truth comes from the order in which the generator wrote its files and from its arrays, never
from the CRM's numbers in them, which the connectors read too. ``-s`` prints the figures.
"""

import csv
import datetime as dt
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
import yaml

from connectors.pulls import Pulls
from connectors.sandbox.servers.box import Box, credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.hubspot_records import Records
from connectors.sandbox.vendors.intercom_records import company_id
from connectors.sandbox.vendors.mixpanel import DATA_GROUP, PROJECT
from connectors.sandbox.world import WorldTruth, write_world
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import Company, read_company

ACCOUNTS = 400
NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
COMPANY = (
    "name: Lakeview\ntenant: lakeview\ntime_zone: Europe/Berlin\ncurrency: EUR\n"
    "history_start: 2024-07-01\ntoday: 2026-06-30\n"
)
DEMO = {
    "crm": {
        "type": "salesforce", "access_token": {"env": "SALESFORCE_TOKEN"}, "ca_file": "ca.pem",
        "streams": ["accounts", "account_history", "users"],
    },
    "billing": {"type": "stripe", "key": {"env": "STRIPE_KEY"}, "streams": ["customers"]},
    "product": {
        "type": "posthog", "project": 4711, "token": {"env": "POSTHOG_KEY"},
        "events": ["login"], "active_events": ["session_started"], "streams": ["groups"],
    },
    "helpdesk": {
        "type": "zendesk", "subdomain": "lakeview", "token": {"env": "ZENDESK_TOKEN"},
        "exports_per_minute": 600, "streams": ["organizations"],
    },
    "nps": {
        "type": "surveymonkey", "token": {"env": "SURVEYMONKEY_TOKEN"},
        "surveys": [{"id": "412000017"}],
    },
    "csat": {
        "type": "typeform", "token": {"env": "TYPEFORM_TOKEN"},
        "forms": [{"id": "cSat9LkV", "kind": "csat"}],
    },
    "news": {"type": "company_news", "key": {"env": "COMPANY_NEWS_KEY"}},
}  # fmt: skip
OTHERS = {
    "crm": {
        "type": "hubspot", "token": {"env": "HUBSPOT_TOKEN"}, "streams": ["companies", "owners"],
    },
    "billing": {
        "type": "chargebee", "site": "lakeview", "key": {"env": "CHARGEBEE_KEY"},
        "requests_per_minute": 3500, "streams": ["customers"],
    },
    "product": {
        "type": "mixpanel", "project_id": PROJECT, "secret": {"env": "MIXPANEL_SECRET"},
        "data_group_id": DATA_GROUP, "events": ["login"], "active_events": ["session_started"],
        "streams": ["groups"],
    },
    "helpdesk": {
        "type": "freshdesk", "domain": "lakeview", "api_key": {"env": "FRESHDESK_KEY"},
        "requests_per_minute": 100_000, "streams": ["companies"],
    },
    "chat": {"type": "intercom", "token": {"env": "INTERCOM_TOKEN"}},
}  # fmt: skip


MERGED_IN_HUBSPOT = "9500000001"
"""Two companies that are merged there become a third."""


@dataclass(frozen=True)
class World:
    """A synthetic company, and what its generator knows of the keys in its files."""

    folder: Path
    truth: WorldTruth

    def rows(self, name: str, delimiter: str = ",") -> list[dict[str, str]]:
        with (self.folder / name).open(encoding="utf-8", newline="") as file:
            if name.endswith(".jsonl"):
                return [json.loads(line) for line in file]
            return list(csv.DictReader(file, delimiter=delimiter))

    def heirs(self, accounts: Iterable[int]) -> set[str]:
        """The ids of accounts, of merged ones that of their heir."""
        people = self.truth.population
        followed = [people.merged_into[a] if people.merged_into[a] >= 0 else a for a in accounts]
        return {str(people.account_id[account]) for account in followed}

    def in_order(self, keys: Iterable[str], which: np.ndarray) -> dict[str, set[str]]:
        """Keys that were written in the order of these accounts."""
        return {
            key: self.heirs([account])
            for key, account in zip(keys, np.flatnonzero(which), strict=True)
        }

    def crm(self) -> dict[str, set[str]]:
        rows = self.rows("crm/accounts.csv", ";")
        everyone = np.ones(len(rows), dtype=bool)
        return self.in_order([row["Record_Id"] for row in rows], everyone)

    def workspaces(self) -> dict[str, set[str]]:
        keys = [row["workspace_id"] for row in self.rows("product/workspaces.csv")]
        return self.in_order(keys, self.truth.population.has_workspace)

    def organizations(self) -> dict[str, set[str]]:
        keys = [row["id"] for row in self.rows("helpdesk/organizations.csv")]
        return self.in_order(keys, self.truth.population.has_help_desk)

    def customers(self) -> dict[str, set[str]]:
        """Of billing; the last one is somebody's second."""
        *keys, second = [row["id"] for row in self.rows("billing/customers.jsonl")]
        found = self.in_order(keys, ~self.truth.population.prospect)
        return found | {second: found[second.removesuffix("b")]}

    def people(self, survey: str) -> dict[str, set[str]]:
        """Those who answered; their address begins with the number of the account."""
        addresses = {
            row["email"] for row in self.rows(f"surveys/{survey}.csv") if row["response_id"]
        }
        return {
            hashlib.sha256(address.encode()).hexdigest(): self.heirs(
                [int(re.match(r"p(\d+)\.", address)[1]) - 1]
            )
            for address in addresses
        }

    def reported(self) -> dict[str, set[str]]:
        """Domains in the news, and the accounts whose companies were meant."""
        events = self.truth.causes.events
        events = events[events[:, 2] >= self.truth.first_day]
        events = events[np.argsort(events[:, 2], kind="stable")]
        meant = defaultdict(set)
        for row, (account, _, _) in zip(
            self.rows("news/company_events.jsonl"), events, strict=True
        ):
            meant[row["company_domain"]] |= self.heirs([account])
        return dict(meant)


@dataclass(frozen=True)
class Found:
    """The keys of one source: true accounts, links, and what was left open."""

    source: str
    true: dict[str, set[str]]
    linked: dict[str, str]
    unmatched: dict[str, str] = field(default_factory=dict)

    @property
    def right(self) -> int:
        return sum(self.true.get(key) == {account} for key, account in self.linked.items())

    @property
    def precision(self) -> float:
        return self.right / len(self.linked)

    @property
    def recall(self) -> float:
        """Of all keys that belong to one account, known to the source's evidence or not."""
        return self.right / sum(len(accounts) == 1 for accounts in self.true.values())

    def __str__(self) -> str:
        open_keys = dict.fromkeys(self.unmatched.values(), 0)
        for reason in self.unmatched.values():
            open_keys[reason] += 1
        return (
            f"{self.source:<22} {len(self.true):5} keys, {len(self.linked):5} linked, "
            f"precision {self.precision:.4f}, recall {self.recall:.4f}, open: {open_keys or '-'}"
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World(folder, write_world(folder, accounts=ACCOUNTS))


@pytest.fixture(scope="module")
def box(world):
    with sandbox(world.folder, NOW) as box:
        yield box


@pytest.fixture(scope="module")
def demo(world, box, tmp_path_factory) -> dict[str, Found]:
    """The demo's API sources."""
    true = {
        "crm": world.crm(), "billing": world.customers(), "product": world.workspaces(),
        "helpdesk": world.organizations(), "nps": world.people("nps"),
        "csat": world.people("csat"), "news": world.reported(),
    }  # fmt: skip
    # The last three characters of a record's id are a checksum.
    return found_in(DEMO, true, box, tmp_path_factory.mktemp("demo"), crm=lambda key: key[:15])


@pytest.fixture(scope="module")
def others(world, box, tmp_path_factory) -> dict[str, Found]:
    """The same company at other vendors."""
    ids = list(Records(box.world).company_ids.values())
    companies = {id: world.heirs([account]) for account, id in enumerate(ids)}
    (loser,) = np.flatnonzero(world.truth.population.merged_into >= 0)
    companies[MERGED_IN_HUBSPOT] = world.heirs([loser])
    chat = {company_id(key): account for key, account in world.organizations().items()}
    true = {
        "crm": companies, "billing": world.customers(), "product": world.workspaces(),
        "helpdesk": world.organizations(), "chat": chat,
    }  # fmt: skip
    return found_in(OTHERS, true, box, tmp_path_factory.mktemp("others"))


def found_in(
    settings: dict[str, dict],
    true: dict[str, dict[str, set[str]]],
    box: Box,
    home: Path,
    **named: Callable[[str], str],
) -> dict[str, Found]:
    """Pull, build `accounts` and `account_keys`, and compare; `named` changes a source's keys."""
    rows = resolved(company_of(settings, box, home))
    found = {}
    for name in settings:
        key_of = named.get(name, str)
        own = [(key_of(key), account, reason) for of, key, account, reason in rows if of == name]
        found[name] = Found(
            f"{name} ({settings[name]['type']})",
            true[name],
            {key: account for key, account, _ in own if account},
            {key: reason for key, _, reason in own if reason},
        )
        print(found[name])
    return found


def company_of(settings: dict[str, dict], box: Box, home: Path) -> Company:
    """A company folder whose sources read the sandbox."""
    (home / "company.yaml").write_text(COMPANY)
    (home / ".env").write_text("".join(f"{k}={v}\n" for k, v in credentials().items()))
    (home / "ca.pem").write_bytes(box.ca_file.read_bytes())
    (home / "sources").mkdir()
    for name, config in settings.items():
        address = {"address": box.address(config["type"])}
        (home / f"sources/{name}.yaml").write_text(yaml.safe_dump(config | address))
    return read_company(home)


def resolved(company: Company) -> list[tuple]:
    """(source, key, account, why there is none) of every key, after a pull and a build."""
    sources = [
        replace(source, mappings={
            table: file for table, file in source.mappings.items()
            if table == "account_keys" or (table, source.name) == ("accounts", "crm")
        })
        for source in read_sources(company)
    ]  # fmt: skip
    pulls = Pulls(company, now=NOW)
    pulls.announce(sources)
    assert [pulls.pull(source).failures for source in sources] == [{}] * len(sources)
    pulls.close()
    with duckdb.connect() as connection:
        build(connection, company, sources, now=NOW)
        return connection.execute(
            "SELECT source, account_key, account_id, NULL FROM signals.account_keys UNION ALL "
            "SELECT source, account_key, NULL, reason FROM signals.unmatched"
        ).fetchall()


def together(found: dict[str, Found]) -> Found:
    """All sources as one."""
    return Found(
        "all",
        {f"{name} {key}": value for name, of in found.items() for key, value in of.true.items()},
        {f"{name} {key}": value for name, of in found.items() for key, value in of.linked.items()},
    )


def test_hardly_a_link_is_wrong_and_few_are_missing_at_the_vendors_of_the_demo(demo):
    every = together(demo)
    print(every)
    assert every.precision >= 0.999
    assert every.recall >= 0.97


def test_the_same_holds_at_the_other_vendors(others):
    every = together(others)
    print(every)
    assert every.precision >= 0.999
    assert every.recall >= 0.97


@pytest.mark.parametrize("source", DEMO)
def test_each_source_of_the_demo_knows_its_customers(demo, source):
    # Four in a hundred people answer from free mail; the half of them without a number are unknown.
    assert demo[source].precision >= 0.999
    assert demo[source].recall >= (0.95 if source in ("nps", "csat") else 0.97)


def test_what_is_open_cannot_be_known(demo, world):
    """Free mail without a number, and domains of several accounts without one: nothing else."""
    people = world.truth.population
    shared = {people.account_id[account] for account in np.flatnonzero(people.shares_domain)}
    for found in demo.values():
        for key, reason in found.unmatched.items():
            if reason == "ambiguous":
                assert found.true[key] & shared, (found.source, key)
            else:
                assert key in free_mail(world), (found.source, key)
        assert set(found.true) == set(found.linked) | set(found.unmatched), found.source


def test_keys_that_two_accounts_could_own_are_linked_to_nobody(demo, world):
    people = world.truth.population
    unrelated = np.flatnonzero(people.shares_domain & (people.segment == 2))
    assert len(unrelated) == 2
    rivals = world.heirs(unrelated)
    open_keys = [k for k, own in demo["helpdesk"].true.items() if own & rivals]
    assert [demo["helpdesk"].unmatched.get(key) for key in open_keys] == ["ambiguous"] * 2


def free_mail(world: World) -> set[str]:
    """Keys of people and customers whose address is one of a free mail provider."""
    hosts = ("gmail.com", "gmx.de", "outlook.com")
    answers = [row for name in ("nps", "csat") for row in world.rows(f"surveys/{name}.csv")]
    people = {row["email"] for row in answers if row["email"].endswith(hosts)}
    customers = world.rows("billing/customers.jsonl")
    return {hashlib.sha256(address.encode()).hexdigest() for address in people} | {
        row["id"] for row in customers if row["email"].endswith(hosts)
    }
