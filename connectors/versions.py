"""Turning mapped rows into versions of facts: staging, merging and closing.

One load is merged after the other, oldest first, in an incremental build as in a rebuild. So both
come to the same tables by construction.

Within a key, versions are ordered by `known_at`, then load, then row. Of several versions known at
the same instant the last wins; a version equal to the one before it is dropped; a version ends
when the next one is known, or when the key vanished from the source.

Everything is set-based. Only keys that already have a version, or have several in one load, pass
through a window function; all others are inserted as they are.
"""

import datetime as dt
from dataclasses import dataclass

from duckdb import DuckDBPyConnection

from connectors.contract_checks import cast, reasons, row_key
from connectors.quoting import literal, quoted
from connectors.signal_tables import contents, stored_columns
from contracts.tables import Table

SORTED_ENOUGH_DAYS = 7
"""Rows are sorted by day unless a row group of the load spans fewer days than this, on average."""


@dataclass(frozen=True)
class Merged:
    """What merging one load did: rows read, refused and new versions stored."""

    rows: int
    quarantined: int
    new: int


def _names(columns: tuple[str, ...], prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in columns)


def _same(columns: tuple[str, ...], left: str, right: str) -> str:
    pairs = (f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in columns)
    return " AND ".join(pairs)


def timestamp(moment: dt.datetime) -> str:
    """An SQL literal of a naive UTC instant."""
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S.%f}'"


def stage(
    connection: DuckDBPyConnection,
    table: Table,
    query: str,
    given: dict[str, str],
    *,
    loaded_at: dt.datetime,
    first: bool,
) -> None:
    """Run a mapping into the temporary table `staged`: cast, checked and dated.

    Beside the mapped columns it has `_reason` (why the row is refused, or null), `_row_key`,
    `_key` (hash of the key), `_day` and `_known_at`; its rowid keeps the order of the mapping's
    rows, which is why nothing is joined here. `loaded_at` also bounds the future, so that a
    rebuild refuses the same rows.
    """
    mapped = ", ".join(
        f"{cast(column, given.get(column.name))} AS {quoted(column.name)}"
        for column in table.columns
    )
    latest = timestamp(loaded_at + dt.timedelta(days=1))
    reason = reasons(
        table, given, latest=latest, latest_day=f"local_day({timestamp(loaded_at)}) + 1"
    )
    time, is_day = f"s.{quoted(table.time)}", table.by_name[table.time].type == "DATE"
    day, own = (time, f"local_day_end({time})") if is_day else (f"local_day({time})", time)
    known = own if first else f"greatest({own}, {timestamp(loaded_at)})"
    if table.time == "known_at":
        known = timestamp(loaded_at)
        day = f"local_day(coalesce(s.known_at, {known}))"
    connection.execute("DROP TABLE IF EXISTS temp.staged")
    # The mapping stands on the first line, so that DuckDB's line numbers are those of its file.
    connection.execute(
        f"CREATE TEMP TABLE staged AS WITH mapped AS ({query}\n), s AS (SELECT {mapped}, "
        f"{reason} AS _reason, {row_key(table, given)} AS _row_key FROM mapped) "
        f"SELECT s.* REPLACE (CASE WHEN _reason IS NOT NULL THEN _row_key END AS _row_key), "
        f"hash({_names(table.key, 's.')}) AS _key, {day} AS _day, "
        f"coalesce(s.known_at, {known}) AS _known_at FROM s"
    )


def merge(
    connection: DuckDBPyConnection,
    table: Table,
    *,
    mapping: str,
    source: str,
    load_id: str,
    loaded_at: dt.datetime,
) -> Merged:
    """Merge `staged` into the table of `signals` as versions of the facts of a source."""
    quarantined = _quarantine(connection, mapping, source, load_id, loaded_at)
    _find_touched(connection, table, source)
    _build_chains(connection, table)
    new = _insert(connection, table, source)
    rows = _count(connection, "staged")
    for name in ("several", "existing", "touched", "chains"):
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
    return Merged(rows, quarantined, new)


def _count(connection: DuckDBPyConnection, table: str, where: str = "TRUE") -> int:
    row = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
    return int(row[0]) if row else 0


def _quarantine(
    connection: DuckDBPyConnection, mapping: str, source: str, load_id: str, loaded_at: dt.datetime
) -> int:
    """Keep what was refused, once for each row and reason, at its first appearance."""
    connection.execute(
        "INSERT INTO signals.quarantine SELECT DISTINCT $source, $mapping, _row_key, _reason, "
        "$load_id, $loaded_at::TIMESTAMP FROM staged s WHERE _reason IS NOT NULL AND NOT EXISTS "
        '(FROM signals.quarantine q WHERE q.source = $source AND q."table" = $mapping '
        "AND q.row_key = s._row_key AND q.reason = s._reason)",
        {"source": source, "mapping": mapping, "load_id": load_id, "loaded_at": loaded_at},
    )
    return _count(connection, "staged", "_reason IS NOT NULL")


def _find_touched(connection: DuckDBPyConnection, table: Table, source: str) -> None:
    """Which keys need a chain: those with several rows in the load or with stored versions.

    Of the latter, a key whose newest version says the same again needs none: nothing changes.
    """
    keys, values = table.key, tuple(n for n in contents(table) if n not in table.key)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE several AS SELECT _key FROM staged "
        "WHERE _reason IS NULL GROUP BY _key HAVING count(*) > 1"
    )
    reach = _reach(connection, table)
    has_rows = _count(
        connection, f"(FROM signals.{table.name} WHERE source = {literal(source)} LIMIT 1)"
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE existing AS SELECT t.rowid AS _rowid, t.*, "
        f"hash({_names(keys, 't.')}) AS _key FROM signals.{table.name} t "
        f"WHERE {reach if has_rows else 'FALSE'} "
        f"AND t.source = {literal(source)} AND EXISTS "
        f"(FROM staged s WHERE s._reason IS NULL AND {_same(keys, 's', 't')})"
    )
    equal = " AND ".join(f"s.{quoted(n)} IS NOT DISTINCT FROM e.{quoted(n)}" for n in values)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE touched AS SELECT _key FROM several UNION "
        "(SELECT _key FROM existing EXCEPT SELECT s._key FROM staged s JOIN existing e "
        f"ON {_same(keys, 's', 'e')} AND s._reason IS NULL AND e.superseded_at IS NULL "
        f"AND s._known_at >= e.known_at AND {equal or 'TRUE'} "
        "WHERE s._key NOT IN (SELECT _key FROM several))"
    )


def _reach(connection: DuckDBPyConnection, table: Table) -> str:
    """A condition on `t.day` that lets zone maps skip what no key of the load can be in."""
    if table.time not in table.key:
        return "TRUE"
    row = connection.execute("SELECT min(_day), max(_day) FROM staged WHERE _reason IS NULL")
    first, last = row.fetchone() or (None, None)
    return f"t.day BETWEEN DATE '{first}' AND DATE '{last}'" if first else "FALSE"


def _build_chains(connection: DuckDBPyConnection, table: Table) -> None:
    """The new chain of versions of each touched key, in the temporary table `chains`.

    A key that vanished between two versions has an event `_gone` there, which ends the version
    before it and keeps an equal version after it from being dropped.
    """
    keys, values = _names(table.key), contents(table)
    row = _names(values)
    nulls = ", ".join("NULL" if n not in table.key else quoted(n) for n in values)
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE chains AS
        WITH stored AS (
            SELECT *, lead(known_at) OVER (PARTITION BY {keys} ORDER BY known_at) AS next_at
            FROM existing WHERE _key IN (FROM touched)
        ), gone AS (
            SELECT * FROM stored
            WHERE superseded_at IS NOT NULL AND superseded_at IS DISTINCT FROM next_at
        ), last_gone AS (
            SELECT {keys}, max(superseded_at) AS gone_at FROM gone GROUP BY ALL
        ), events AS (
            SELECT {row}, known_at AS moment, 0 AS era, _rowid AS position, FALSE AS _gone
            FROM stored
            UNION ALL
            SELECT {nulls}, superseded_at, 0, _rowid, TRUE FROM gone
            UNION ALL
            SELECT {_names(values, "s.")}, greatest(s._known_at, g.gone_at), 1, s.rowid, FALSE
            FROM staged s LEFT JOIN last_gone g USING ({keys})
            WHERE s._reason IS NULL AND s._key IN (FROM touched)
        ), last_of_instant AS (
            SELECT * FROM events QUALIFY
            row_number() OVER (PARTITION BY {keys}, moment ORDER BY era DESC, position DESC) = 1
        ), changes AS (
            SELECT * FROM last_of_instant QUALIFY row(_gone, {row}) IS DISTINCT FROM
            lag(row(_gone, {row})) OVER (PARTITION BY {keys} ORDER BY moment)
        )
        SELECT *, lead(moment) OVER (PARTITION BY {keys} ORDER BY moment) AS superseded_at
        FROM changes
        """
    )


def _insert(connection: DuckDBPyConnection, table: Table, source: str) -> int:
    """Write new keys and new chains, linked to their accounts and clustered by day."""
    name = f"signals.{table.name}"
    before = _count(connection, "existing", "_key IN (FROM touched)")
    if before:
        connection.execute(
            f"DELETE FROM {name} WHERE rowid IN "
            "(SELECT _rowid FROM existing WHERE _key IN (FROM touched))"
        )
    values = contents(table)
    time = quoted(table.time)
    day = "day" if "day" in values else _day_of(table, time)
    order = "" if _clustered(connection) else "ORDER BY v._day"
    fresh = (
        f"SELECT {_names(values)}, _day, _known_at AS moment, NULL::TIMESTAMP AS until FROM staged "
        "WHERE _reason IS NULL"
    )
    if _count(connection, "existing") or _count(connection, "several"):
        fresh += " AND _key NOT IN (SELECT _key FROM existing UNION SELECT _key FROM several)"
    rewritten = (
        f"SELECT {_names(values)}, {day} AS _day, moment, superseded_at AS until FROM chains "
        "WHERE NOT _gone"
    )
    produced = {name: f"v.{quoted(name)}" for name in values} | {
        "source": literal(source), "known_at": "v.moment", "superseded_at": "v.until",
    }  # fmt: skip
    produced.setdefault("day", "v._day")
    linked = "account_key" in values
    produced.setdefault("account_id", "k.account_id" if linked else "NULL")
    columns = ", ".join(produced[column.name] for column in stored_columns(table))
    join = (
        f"LEFT JOIN (FROM signals.account_keys WHERE source = {literal(source)}) k "
        "ON k.account_key = v.account_key"
        if linked
        else ""
    )
    row = connection.execute(
        f"INSERT INTO {name} SELECT {columns} FROM ({fresh}) v {join} {order}"
    ).fetchone()
    chained = connection.execute(
        f"INSERT INTO {name} SELECT {columns} FROM ({rewritten}) v {join}"
    ).fetchone()
    return int(row[0]) + int(chained[0]) - before if row and chained else 0


def _day_of(table: Table, time: str) -> str:
    if table.time == "known_at":
        return "local_day(moment)"
    return time if table.by_name[table.time].type == "DATE" else f"local_day({time})"


def _clustered(connection: DuckDBPyConnection) -> bool:
    """True when the load is small or already lies roughly by day, so that zone maps prune."""
    row = connection.execute(
        "SELECT avg(span), count(*) FROM (SELECT max(_day) - min(_day) AS span "
        "FROM staged WHERE _reason IS NULL GROUP BY rowid // 122880)"
    ).fetchone()
    return not row or row[1] <= 1 or row[0] is None or row[0] <= SORTED_ENOUGH_DAYS


def close_vanished(
    connection: DuckDBPyConnection, table: Table, *, source: str, at: dt.datetime
) -> int:
    """End the open versions of the keys in the temporary table `vanished`; returns how many."""
    row = connection.execute(
        f"UPDATE signals.{table.name} t SET superseded_at = greatest(t.known_at, {timestamp(at)}) "
        f"FROM vanished v WHERE t.source = {literal(source)} AND t.superseded_at IS NULL "
        f"AND {_same(table.key, 't', 'v')}"
    ).fetchone()
    # A version that would only have been known later was never visible.
    connection.execute(
        f"DELETE FROM signals.{table.name} t USING vanished v WHERE t.source = {literal(source)} "
        f"AND t.superseded_at <= t.known_at AND {_same(table.key, 't', 'v')}"
    )
    return int(row[0]) if row else 0


def keys_of(table: Table, query: str, given: dict[str, str]) -> str:
    """A SELECT of the keys that a mapping yields."""
    keys = ", ".join(
        f"{cast(table.by_name[name], given.get(name))} AS {quoted(name)}" for name in table.key
    )
    return f"WITH mapped AS ({query}\n) SELECT DISTINCT {keys} FROM mapped"
