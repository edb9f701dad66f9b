"""The tables of the schema `signals`: created empty, so that every reader finds them."""

from duckdb import DuckDBPyConnection

from connectors.quoting import quoted
from contracts.tables import BOOKKEEPING, TABLES, Column, Table

EVIDENCE = Table(
    "key_evidence",
    "What a source says about the owner of each of its keys; e-mail addresses are not kept",
    key=("account_key",),
    time="known_at",
    columns=(
        Column("account_key", "VARCHAR", "The source's key of the customer", required=True),
        Column("account_ids", "VARCHAR[]", "Accounts that the source names itself"),
        Column("domains", "VARCHAR[]", "Web domains"),
        Column("email_domains", "VARCHAR[]", "Domains of e-mail addresses"),
        Column("known_at", "TIMESTAMP", "When the source said so"),
    ),
)

STORED: dict[str, Table] = {
    name: EVIDENCE if name == "account_keys" else table for name, table in TABLES.items()
}
"""The contract of what is stored for each mapping: evidence in place of `account_keys`."""

_STATE = {
    "account_keys": "source VARCHAR, account_key VARCHAR, account_id VARCHAR, method VARCHAR, "
    "confidence DOUBLE, known_at TIMESTAMP",
    "unmatched": "source VARCHAR, account_key VARCHAR, reason VARCHAR, candidates VARCHAR[], "
    "revenue DECIMAL(18,2), currency VARCHAR",
    "quarantine": 'source VARCHAR, "table" VARCHAR, row_key VARCHAR, reason VARCHAR, '
    "load_id VARCHAR, quarantined_at TIMESTAMP",
    "feeds": '"table" VARCHAR, source VARCHAR, stream_source VARCHAR, stream VARCHAR',
    "held": "source VARCHAR, stream VARCHAR, load_id VARCHAR",
    "source_health": "source VARCHAR, stream VARCHAR, checked_at TIMESTAMP, status VARCHAR, "
    "reason VARCHAR, last_load_at TIMESTAMP, rows BIGINT, good_day DATE",
    "loads": 'source VARCHAR, "table" VARCHAR, load_id VARCHAR, rows BIGINT, '
    "quarantined BIGINT, quarantine_share DOUBLE",
    "builds": 'source VARCHAR, "table" VARCHAR, fingerprint VARCHAR',
    "keys_seen": 'source VARCHAR, "table" VARCHAR, account_key VARCHAR, known_at TIMESTAMP',
    "raw_columns": "source VARCHAR, stream VARCHAR, load_id VARCHAR, column_name VARCHAR, "
    "rows BIGINT, filled BIGINT",
    "fingerprints": "name VARCHAR, fingerprint VARCHAR",
}


def contents(table: Table) -> tuple[str, ...]:
    """The mapped columns that are stored as they are: all but `known_at`."""
    return tuple(name for name in table.column_names if name != "known_at")


def stored_columns(table: Table) -> list[Column]:
    """All columns of a table of `signals`, in order, bookkeeping included."""
    mapped = [table.by_name[name] for name in contents(table)]
    names = {column.name for column in mapped}
    source, *others = BOOKKEEPING
    return [source, *mapped, *(column for column in others if column.name not in names)]


def create_tables(connection: DuckDBPyConnection) -> None:
    """Create what is missing; a table with other columns than its contract is made anew.

    A table made anew is empty and its builds are forgotten, so that the lake fills it again.
    """
    connection.execute("CREATE SCHEMA IF NOT EXISTS signals")
    for name, columns in _STATE.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS signals.{name} ({columns})")
    _renew(connection)
    for mapping, table in STORED.items():
        wanted = [(column.name, column.type) for column in stored_columns(table)]
        found = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'signals' "
            "AND table_name = ? AND database_name = current_database() ORDER BY column_index",
            [table.name],
        ).fetchall()
        if found == wanted:
            continue
        create_table(connection, table)
        for state in ("builds", "loads", "keys_seen", "quarantine"):
            connection.execute(f'DELETE FROM signals.{state} WHERE "table" = ?', [mapping])


def _renew(connection: DuckDBPyConnection) -> None:
    """Give tables of an older version their new columns; a build fills `feeds` again."""
    connection.execute("ALTER TABLE signals.source_health ADD COLUMN IF NOT EXISTS good_day DATE")
    for column in ("stream_source", "stream"):
        connection.execute(f"ALTER TABLE signals.feeds ADD COLUMN IF NOT EXISTS {column} VARCHAR")


def create_table(connection: DuckDBPyConnection, table: Table) -> None:
    """Create a table, empty, in place of an older one."""
    columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in stored_columns(table))
    connection.execute(f"CREATE OR REPLACE TABLE signals.{table.name} ({columns})")
