"""What a SQL mapping makes of raw rows, as a build runs it but without a lake."""

from collections.abc import Iterable, Mapping

import duckdb

from connectors.api_rows import to_table
from connectors.mapping import macros
from connectors.quoting import quoted


def mapped(
    sql: str, source: str, raw: Mapping[str, tuple[list[dict], Iterable[str]]]
) -> list[dict]:
    """The rows of a mapping.

    Args:
        sql: One SELECT that reads ``raw_<source>.<stream>``.
        raw: The rows and the declared columns by stream.
    """
    with duckdb.connect(config={"threads": 1}) as connection:
        for statement in ("SET TimeZone = 'UTC'", *macros("Europe/Berlin")):
            connection.execute(statement)
        connection.execute(f"CREATE SCHEMA raw_{source}")
        for stream, (rows, columns) in raw.items():
            connection.register("page", to_table(rows, columns=tuple(columns)))
            name = f"raw_{source}.{quoted(stream)}"
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM page")
        return connection.execute(sql).to_arrow_table().to_pylist()
