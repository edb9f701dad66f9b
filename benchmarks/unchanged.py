"""What an hour without changes costs: the requests of every vendor, read twice from the sandbox."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from connectors.pulls import Pulls
from connectors.sandbox.servers.box import Box, credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.mixpanel import DATA_GROUP, PROJECT
from connectors.sandbox.world import FEWEST_ACCOUNTS, write_world
from connectors.sources import read_sources
from contracts.company import read_company

QUIET = dt.datetime(2026, 7, 1, 2, tzinfo=dt.UTC)
"""Nothing happens in the synthetic company any more after the evening before."""

HISTORY = dt.timedelta(days=7)
"""How far back a first reading goes here: what the second costs does not depend on it."""

_EVENTS = {"events": ["login"], "active_events": ["session_started"]}
SETTINGS: dict[str, dict[str, Any]] = {
    "amplitude": {
        "key": {"env": "AMPLITUDE_KEY"}, "secret": {"env": "AMPLITUDE_SECRET"}, **_EVENTS,
    },
    "chargebee": {"site": "acme", "key": {"env": "CHARGEBEE_KEY"}},
    "company_news": {"key": {"env": "COMPANY_NEWS_KEY"}},
    "freshdesk": {
        "domain": "acme", "api_key": {"env": "FRESHDESK_KEY"}, "requests_per_minute": 6_000,
    },
    "hubspot": {"token": {"env": "HUBSPOT_TOKEN"}},
    "intercom": {"token": {"env": "INTERCOM_TOKEN"}},
    "mixpanel": {
        "project_id": PROJECT, "secret": {"env": "MIXPANEL_SECRET"}, "data_group_id": DATA_GROUP,
        **_EVENTS,
    },
    "posthog": {"project": 4711, "token": {"env": "POSTHOG_KEY"}, **_EVENTS},
    "salesforce": {"access_token": {"env": "SALESFORCE_TOKEN"}, "ca_file": "ca.pem"},
    "stripe": {"key": {"env": "STRIPE_KEY"}},
    "surveymonkey": {"token": {"env": "SURVEYMONKEY_TOKEN"}, "surveys": [{"id": "412000017"}]},
    "typeform": {
        "token": {"env": "TYPEFORM_TOKEN"}, "forms": [{"id": "cSat9LkV", "kind": "csat"}],
    },
    "zendesk": {
        "subdomain": "acme", "token": {"env": "ZENDESK_TOKEN"}, "exports_per_minute": 6_000,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Hour:
    """The requests of a vendor: of the first reading, and of the next one an hour later."""

    vendor: str
    streams: int
    first: int
    unchanged: int

    @property
    def per_stream(self) -> float:
        """Requests of the unchanged hour for each stream."""
        return self.unchanged / self.streams


def measure(home: Path) -> list[Hour]:
    """Read every vendor twice.

    Raises:
        SourceError: a vendor could not be read.
    """
    home.mkdir()
    write_world(home / "world", accounts=FEWEST_ACCOUNTS)
    with (
        mock.patch("connectors.api_pull.READS_BACK", HISTORY),
        sandbox(home / "world", QUIET, ca_folder=home) as box,
    ):
        _write_company(home, box)
        first = _requests(home, QUIET)
        box.move(QUIET + dt.timedelta(hours=1))
        second = _requests(home, box.now)
    return [
        Hour(vendor, streams, asked, second[vendor][1])
        for vendor, (streams, asked) in first.items()
    ]


def _write_company(home: Path, box: Box) -> None:
    (home / "company.yaml").write_text(
        f"name: Benchmark\ntenant: benchmark\nhistory_start: {QUIET.date()}\n"
    )
    (home / ".env").write_text("".join(f"{k}={v}\n" for k, v in credentials().items()))
    (home / "sources").mkdir()
    for vendor, settings in SETTINGS.items():
        config = {"type": vendor, "address": box.address(vendor), **settings}
        (home / f"sources/{vendor}.yaml").write_text(yaml.safe_dump(config))


def _requests(home: Path, now: dt.datetime) -> dict[str, tuple[int, int]]:
    """The streams and the requests of every vendor."""
    company = read_company(home)
    sources = read_sources(company)
    pulls = Pulls(company, now=now)
    pulls.announce(sources)
    found = {}
    for source in sources:
        pulled = pulls.pull(source)
        for error in pulled.failures.values():
            raise error
        found[source.name] = (len(source.streams), pulled.requests)
    pulls.close()
    return found
