"""What a vendor's module declares: its settings, how to connect, its streams.

A connector is one module, `connectors/vendors/<vendor>/connector.py`, that ends with a `VENDOR`.
It says how each stream is read: what to ask, how to page, which cursor to keep. Everything else
is done for it: streams run side by side (`connectors.api_pull`), pages are checked and retried
(`connectors.http`), rows land in the lake as text columns and only once they are complete.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

import pyarrow as pa
from pydantic import Field, field_validator

from connectors.http import without_secrets
from contracts.company import Strict
from contracts.errors import SourceRefused
from contracts.secrets import FromEnvironment, Secrets

__all__ = [
    "ApiConfig", "ApiStream", "Client", "FromEnvironment", "Reading", "Rows", "Secrets", "Vendor",
    "check_account",
]  # fmt: skip

Rows: TypeAlias = list[dict[str, Any]] | pa.Table
"""One page: JSON objects, or an Arrow table whose columns are all text."""

CursorKind = Literal["epoch", "epoch_ms", "iso"]


class ApiConfig(Strict):
    """Settings that every vendor has; each adds its own (a subdomain, a token, a host).

    `expect_account` is the account that the credentials must belong to, as `healthloop sources`
    prints it. A key of a test account or of another organisation is then refused before anything
    is read.
    """

    type: str
    streams: list[str] | None = Field(default=None, min_length=1)
    address: str | None = None
    expect_account: str | None = None

    @field_validator("address")
    @classmethod
    def _https_or_loopback(cls, address: str | None) -> str | None:
        loopback = ("http://127.0.0.1", "http://localhost", "http://[::1]")
        if address is not None and not address.startswith(("https://", *loopback)):
            raise ValueError(f"'{without_secrets(address)}' is not https; give an https:// address")
        return address.rstrip("/") if address else address

    def parameters(self) -> dict[str, str]:
        """What packaged mappings may use as ``${name}``; it becomes a text literal in the SQL."""
        return {}


ConfigT = TypeVar("ConfigT", bound=ApiConfig)


class Client(Protocol):
    """What `Vendor.connect` returns: an `Http`, or a vendor's own client around one."""

    @property
    def requests_sent(self) -> int:
        """The requests of this client and all its streams."""

    def stream(self, name: str) -> Self:
        """A view for one stream, which may be used in a thread of its own."""


@dataclass
class Reading(Generic[ConfigT]):
    """One reading of one stream.

    `position` holds what the last completed reading left. A reader changes it in place; it is
    kept once the reading has come to its end and its rows are stored. `since` is the newest cursor
    value of earlier readings minus the stream's overlap, in UTC; None on the first reading, which
    goes back to `history_start`, some time before the first day that is scored. `now` is the only
    clock. `scratch` is a folder for downloads.
    """

    config: ConfigT
    client: Any
    position: dict[str, Any]
    since: dt.datetime | None
    now: dt.datetime
    history_start: dt.date
    scratch: Path


@dataclass(frozen=True)
class ApiStream:
    """How one stream is read, and what is known of its rows.

    Args:
        read: Yields pages until the stream is at its end; it may raise any `SourceError`.
        primary_key: The fields that name a row; of several rows the latest wins.
        columns: Every field that packaged mappings use: present even where no row has it.
        whole: A reading is the complete present state, so rows that are missing have vanished.
        cursor: The field that orders changes, of `cursor_kind`; gives `Reading.since`.
        overlap: How far before the newest cursor value to read again. Rows that come again
            unchanged are dropped.
        leave_out: Fields that are never stored: free text, names, addresses.
        rebuild_by: For mappings that aggregate: the column whose days are computed anew.
    """

    read: Callable[[Reading[Any]], Iterator[Rows]]
    primary_key: tuple[str, ...]
    columns: tuple[str, ...]
    whole: bool = False
    cursor: str | None = None
    cursor_kind: CursorKind = "iso"
    overlap: dt.timedelta = dt.timedelta(0)
    leave_out: frozenset[str] = frozenset()
    rebuild_by: str | None = None


@dataclass(frozen=True)
class Vendor(Generic[ConfigT]):
    """A vendor: its settings, its client, its streams.

    Args:
        name: The `type` in ``sources/<name>.yaml`` and the folder of its module and mappings.
        config: The model of its settings.
        connect: Builds the client; sends nothing.
        account: One cheap request that tells whose data the credentials open. A key for test
            data says so in its answer.
        streams: By name; or a function of the settings.
        scopes: The least rights that the credentials need, in one line.
    """

    name: str
    config: type[ConfigT]
    connect: Callable[[ConfigT, Secrets], Client]
    account: Callable[[Any, ConfigT], str]
    streams: Mapping[str, ApiStream] | Callable[[ConfigT], Mapping[str, ApiStream]]
    scopes: str

    def streams_of(self, config: ConfigT) -> dict[str, ApiStream]:
        """The streams that these settings ask for."""
        known = self.streams(config) if callable(self.streams) else self.streams
        wanted = config.streams
        return {name: stream for name, stream in known.items() if not wanted or name in wanted}


def check_account(
    found: str,
    wanted: str | None,
    *,
    vendor: str,
    whose: str = "the credentials",
    remedy: str = "use credentials of the right account",
) -> None:
    """Compare the account that credentials open with the one that they should (None: any).

    Raises:
        SourceRefused: it is another one.
    """
    if wanted not in (None, found):
        cause = f"{whose} open account '{found}', not '{wanted}'"
        raise SourceRefused(cause, remedy, vendor=vendor)
