"""What the tests of Stripe and Chargebee share: their rows as the packaged mappings see them."""

import datetime as dt
import re
from typing import Any

import duckdb

from connectors.api_rows import to_table
from connectors.mapping import macros, read_mapping
from connectors.quoting import literal
from connectors.vendors import packaged_mappings, vendor

LOADED_AT = dt.datetime(2026, 6, 30, 20)


def utc(epoch: float | None) -> dt.datetime | None:
    """An epoch second as the canonical tables have it."""
    if epoch is None:
        return None
    return dt.datetime.fromtimestamp(epoch, dt.UTC).replace(tzinfo=None)


def mapped(name: str, table: str, rows: dict[str, list[dict]], config: Any) -> list[dict]:
    """The rows that a packaged mapping makes of a vendor's rows by stream."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in macros("Europe/Berlin"):
            connection.execute(statement)
        connection.execute(f"CREATE SCHEMA raw_{name}")
        for stream, declared in vendor(name).streams_of(config).items():
            page = to_table(
                rows.get(stream, []),
                columns=(*declared.primary_key, *declared.columns),
                leave_out=declared.leave_out,
            )
            connection.register("page", page)
            connection.execute(
                f"CREATE TABLE raw_{name}.{stream} AS SELECT *, {literal(str(LOADED_AT))}"
                "::TIMESTAMP AS _loaded_at FROM page"
            )
        parameters = config.parameters()
        query = re.sub(
            r"\$\{(\w+)\}",
            lambda found: literal(parameters[found[1]]),
            packaged_mappings(name)[table].read_text(),
        )
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def latest(versions: list[dict], key: str, at: dt.datetime | None = None) -> dict[str, dict]:
    """The version of each fact that was known last, or last at a moment."""
    known = {}
    for version in sorted(versions, key=lambda v: v["known_at"] or dt.datetime.min):
        if at is None or (version["known_at"] or dt.datetime.min) <= at:
            known[version[key]] = version
    return known


def is_row_wise(name: str, table: str) -> bool:
    """Whether only new rows are read when this mapping runs."""
    file = packaged_mappings(name)[table]
    text = re.sub(r"\$\{\w+\}", "'x'", file.read_text())
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
