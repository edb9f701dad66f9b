"""What a SQL mapping makes of raw rows, as a build runs it but without a lake."""

import datetime as dt
from collections.abc import Iterable, Mapping

import duckdb

from connectors.api import ApiConfig
from connectors.api_rows import landed
from connectors.mapping import macros
from connectors.quoting import quoted
from connectors.vendors import packaged_sql, vendor


def mapped(
    sql: str,
    source: str,
    raw: Mapping[str, tuple[list[dict], Iterable[str]]],
    *,
    loaded_at: dt.datetime | None = None,
) -> list[dict]:
    """The rows of a mapping.

    Args:
        sql: One SELECT that reads ``raw_<source>.<stream>``.
        raw: The rows and the declared columns by stream.
        loaded_at: The `_loaded_at` of every row.
    """
    with duckdb.connect(config={"threads": 1}) as connection:
        for statement in ("SET TimeZone = 'UTC'", *macros("Europe/Berlin")):
            connection.execute(statement)
        connection.execute(f"CREATE SCHEMA raw_{source}")
        for stream, (rows, columns) in raw.items():
            connection.register("page", landed(rows, columns=tuple(columns))[0])
            connection.execute(
                f"CREATE TABLE raw_{source}.{quoted(stream)} AS "
                "SELECT *, CAST(? AS TIMESTAMP) AS _loaded_at FROM page",
                [loaded_at],
            )
        return connection.execute(sql).to_arrow_table().to_pylist()


def packaged(
    config: ApiConfig,
    table: str,
    rows: Mapping[str, list[dict]],
    *,
    latest: bool = False,
    loaded_at: dt.datetime | None = None,
) -> list[dict]:
    """The rows of a vendor's packaged mapping over its rows by stream.

    With `latest` it sees the newest row of each primary key alone, as a mapping does that is
    not row-wise.
    """
    raw = {}
    for name, stream in vendor(config.type).streams_of(config).items():
        own = rows.get(name, [])
        if latest:
            own = [*{tuple(row[key] for key in stream.primary_key): row for row in own}.values()]
        kept = [{k: v for k, v in row.items() if k not in stream.leave_out} for row in own]
        raw[name] = (kept, (*stream.primary_key, *stream.columns))
    return mapped(packaged_sql(config, table), config.type, raw, loaded_at=loaded_at)
