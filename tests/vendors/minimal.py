"""The least that reads a vendor: each stream in turn, no lake, no threads."""

import datetime as dt
import tempfile
from pathlib import Path

import pyarrow as pa

from connectors.api import Reading, Vendor
from connectors.sandbox.servers.box import Box, credentials
from connectors.vendors import vendor as vendor_of
from contracts.secrets import Secrets

HISTORY_START = dt.date(2024, 7, 1)
NEWEST = "_newest"


def connected(vendor, settings, box: Box, *, secrets_env=None):
    """A vendor's parsed config and its client, pointed at the sandbox.

    `secrets_env` replaces some of the sandbox's credentials.
    """
    vendor = vendor if isinstance(vendor, Vendor) else vendor_of(vendor)
    address = {"address": box.address(vendor.name)}
    config = vendor.config.model_validate({"type": vendor.name, **address, **settings})
    with tempfile.TemporaryDirectory() as home:
        values = {**credentials(), **(secrets_env or {})}
        lines = [f"{name}='{value}'\n" for name, value in values.items()]
        Path(home, ".env").write_text("".join(lines))
        return vendor, config, vendor.connect(config, Secrets(Path(home)))


def read_all(
    vendor, settings, box: Box, *, positions=None, now=None, secrets_env=None,
    history_start=HISTORY_START,
) -> dict[str, list[dict]]:  # fmt: skip
    """The rows of every stream that the settings ask for, as they came: nothing is dropped.

    `positions` holds a position by stream; it is changed in place once a stream has come to its
    end. Give the same one again to read on from there.
    """
    vendor, config, client = connected(vendor, settings, box, secrets_env=secrets_env)
    positions = {} if positions is None else positions
    rows = {}
    for name, stream in vendor.streams_of(config).items():
        position = dict(positions.get(name, {}))
        newest = position.pop(NEWEST, None)
        with tempfile.TemporaryDirectory() as scratch:
            reading = Reading(
                config=config,
                client=client.stream(name),
                position=position,
                since=_moment(newest, stream) - stream.overlap if newest is not None else None,
                now=now or box.now,
                history_start=history_start,
                scratch=Path(scratch),
            )
            rows[name] = [row for page in stream.read(reading) for row in _objects(page)]
        values = [row[stream.cursor] for row in rows[name] if row.get(stream.cursor) is not None]
        values += [newest] if newest is not None else []
        newest = max(values, key=lambda value: _moment(value, stream), default=None)
        positions[name] = position | ({NEWEST: newest} if newest is not None else {})
    return rows


def _objects(page) -> list[dict]:
    return page.to_pylist() if isinstance(page, pa.Table) else page


def _moment(value, stream) -> dt.datetime:
    if stream.cursor_kind == "iso":
        moment = dt.datetime.fromisoformat(str(value))
        return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    seconds = float(value) / (1000 if stream.cursor_kind == "epoch_ms" else 1)
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
