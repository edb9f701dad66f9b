"""What the tests of Stripe and Chargebee share: their rows as the packaged mappings see them."""

import datetime as dt
from typing import Any

from mapped import packaged

from connectors.mapping import read_mapping
from connectors.vendors import packaged_mappings, packaged_sql, vendor

LOADED_AT = dt.datetime(2026, 6, 30, 20)


def utc(epoch: float | None) -> dt.datetime | None:
    """An epoch second as the canonical tables have it."""
    if epoch is None:
        return None
    return dt.datetime.fromtimestamp(epoch, dt.UTC).replace(tzinfo=None)


def mapped(name: str, table: str, rows: dict[str, list[dict]], config: Any) -> list[dict]:
    """The rows that a packaged mapping makes of a vendor's rows by stream."""
    assert config.type == name
    return packaged(config, table, rows, loaded_at=LOADED_AT)


def latest(versions: list[dict], key: str, at: dt.datetime | None = None) -> dict[str, dict]:
    """The version of each fact that was known last, or last at a moment."""
    known = {}
    for version in sorted(versions, key=lambda v: v["known_at"] or dt.datetime.min):
        if at is None or (version["known_at"] or dt.datetime.min) <= at:
            known[version[key]] = version
    return known


def is_row_wise(name: str, table: str, config: Any) -> bool:
    """Whether only new rows are read when this mapping runs."""
    file = packaged_mappings(name)[table]
    text = packaged_sql(config, table)
    streams = [(name, stream) for stream in vendor(name).streams]
    mapping, problems = read_mapping(name, table, file, text, streams)
    assert mapping is not None, problems
    return mapping.row_wise


def slept_by(monkeypatch, module, client: str = "Client") -> list[float]:
    """Let a connector wait without waiting; the seconds that it would have slept."""
    slept: list[float] = []
    real = getattr(module, client)
    monkeypatch.setattr(module, client, lambda *a, **k: real(*a, sleep=slept.append, **k))
    return slept
