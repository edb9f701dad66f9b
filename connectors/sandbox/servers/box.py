"""What all sandbox servers share: one world, one clock, the records, the log and the faults."""

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from connectors.sandbox.servers.faults import Faults
from connectors.sandbox.servers.journal import Journal
from connectors.sandbox.servers.tables import Row, Table
from connectors.sandbox.servers.world_files import WorldFiles
from contracts.errors import InputError

__all__ = ["Box", "Request", "Row", "Table", "WorldFiles", "credentials"]

_PARTICULAR_TOKENS = {"stripe": "sk_live_sandboxstripetoken"}
"""Where a vendor's credential tells by its look what it opens."""


def _token(vendor: str) -> str:
    return _PARTICULAR_TOKENS.get(vendor, f"sandbox-{vendor}-token")


def credentials() -> dict[str, str]:
    """What a company's `.env` holds to read from the sandbox: the value by environment variable."""
    return {
        "AMPLITUDE_KEY": _token("amplitude"),
        "AMPLITUDE_SECRET": _token("amplitude-secret"),
        "CHARGEBEE_KEY": _token("chargebee"),
        "COMPANY_NEWS_KEY": _token("company_news"),
        "FRESHDESK_KEY": _token("freshdesk"),
        "HUBSPOT_TOKEN": _token("hubspot"),
        "INTERCOM_TOKEN": _token("intercom"),
        "MIXPANEL_SECRET": _token("mixpanel"),
        "POSTHOG_KEY": _token("posthog"),
        "SALESFORCE_TOKEN": _token("salesforce"),
        "STRIPE_KEY": _token("stripe"),
        "SURVEYMONKEY_TOKEN": _token("surveymonkey"),
        "TYPEFORM_TOKEN": _token("typeform"),
        "ZENDESK_TOKEN": _token("zendesk"),
    }


@dataclass
class Request:
    """A request as the log keeps it: neither headers nor a body, and no secret in the query.

    `path` is as the vendor knows it, without the sandbox's prefix. `status` is 0 until an answer
    begins (and stays so where a fault cuts the connection first); `bytes` counts the body's bytes
    that went out. `fault` names what was injected. `at` is the sandbox's time, not the machine's.
    """

    number: int
    vendor: str
    method: str
    path: str
    query: dict[str, str]
    at: dt.datetime
    status: int = 0
    bytes: int = 0
    fault: str | None = None


@dataclass
class Box:
    """The state behind all servers of one sandbox.

    Args:
        world: The files of the synthetic company.
        now: The sandbox's clock in UTC; nothing later is shown. `move` moves it.
        small_pages: Gives at most so many records in a page, as vendors may do.
        tokens: Credentials by vendor, where the usual ones will not do.

    Attributes:
        addresses: The base address by vendor; `control` is that of the sandbox's own endpoints.
        ca_file: The CA that clients of the TLS port have to trust; None without such a port.
        log: All requests, oldest first.
        faults: Faults to order.
        defects: Stack traces of servers that fell over. There should be none.
        journal: Keeps what is written, for the next sandbox of the same world.
    """

    world: WorldFiles
    now: dt.datetime
    small_pages: int | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    control: str = ""
    ca_file: Path | None = None
    log: list[Request] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    defects: list[str] = field(default_factory=list)
    journal: Journal | None = None
    _tables: dict[tuple[str, str], Table] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self.now = self.now.astimezone(dt.UTC)

    def move(self, to: dt.datetime) -> None:
        """Move the clock forward.

        Raises:
            InputError: `to` is before the sandbox's clock, or has no time zone.
        """
        if to.tzinfo is None:
            raise InputError(f"{to.isoformat()} has no time zone", "add one, such as +00:00")
        if to < self.now:
            raise InputError(
                f"the sandbox's clock cannot go back from {self.now.isoformat()}",
                "name a later time, or start another sandbox",
            )
        self.now = to.astimezone(dt.UTC)

    def token(self, vendor: str) -> str:
        """The credential that a vendor accepts; ``amplitude-secret`` is the half of a pair."""
        return self.tokens.get(vendor, _token(vendor))

    def address(self, vendor: str) -> str:
        """The base address of a vendor's server, without a slash at its end."""
        return self.addresses[vendor]

    def page_size(self, vendor: str, asked: int) -> int:
        """How many records a page holds of the `asked`."""
        return min(asked, self.small_pages or asked)

    def table(self, vendor: str, name: str, fill: Callable[[Table], None]) -> Table:
        """A vendor's collection of that name; `fill` puts the world's records in, only once."""
        with self._lock:
            if (vendor, name) not in self._tables:
                table = Table()
                fill(table)
                if self.journal is not None and not name.startswith("_"):
                    self.journal.attach(table, vendor, name)
                self._tables[vendor, name] = table
            return self._tables[vendor, name]

    def tables(self) -> dict[tuple[str, str], Table]:
        """All collections that were asked for so far, by vendor and name."""
        with self._lock:
            return dict(self._tables)

    def entered(self, vendor: str, method: str, path: str, query: dict[str, str]) -> Request:
        """Log a request that has just come in; what becomes of it is noted in it later."""
        with self._lock:
            request = Request(len(self.log) + 1, vendor, method, path, query, self.now)
            self.log.append(request)
            return request

    def count(self, vendor: str, path: str = "") -> int:
        """How many requests a vendor got whose path matches a regular expression."""
        return sum(
            request.vendor == vendor and re.search(path, request.path) is not None
            for request in list(self.log)
        )
