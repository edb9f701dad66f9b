"""Scores of this very moment, for the accounts about which something new is known.

All metrics are measured anew, because peers and families need everybody; only the accounts with
news are scored. Their scores are kept under the day that is under way as revision 0, which no list
of revisions names: history, trends and checks know whole days only. When the day is over, the daily
run scores it as a whole, for everybody.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

import duckdb

from contracts.tables import METRIC_TABLES
from scoring import scores
from scoring.clocks import AsOf
from scoring.expressions import literal
from scoring.library import Library
from scoring.metrics import create_schema, measure
from scoring.overrides import load_overrides
from scoring.sql import render
from scoring.triggers import Relations

REVISION = 0

RELATIONS = Relations(
    scores="live_scores", contributions="live_contributions", accounts="live_accounts",
    values="live_values",
)  # fmt: skip
"""The temporary tables that `compute` makes: a day's scores, contributions, accounts and metrics,
with the columns of the tables that hold whole days, for the accounts with news alone."""


@dataclass(frozen=True)
class LiveReport:
    """Which accounts were scored, and as of when (UTC, naive)."""

    day: dt.date
    instant: dt.datetime
    accounts: tuple[str, ...]


def accounts_with_news(
    connection: duckdb.DuckDBPyConnection, *, since: dt.datetime, until: dt.datetime
) -> list[str]:
    """The accounts about which a fact became known, or stopped holding, between two instants (UTC).

    The first instant does not belong to it, the second does.
    """
    parts = [
        f"SELECT account_id FROM signals.{table} "
        "WHERE (known_at > $1 AND known_at <= $2) OR (superseded_at > $1 AND superseded_at <= $2)"
        for table in (*METRIC_TABLES, "overrides")
        if _has_table(connection, table)
    ]
    rows = connection.execute(
        f"SELECT DISTINCT account_id FROM ({' UNION ALL '.join(parts)}) "
        "WHERE account_id IS NOT NULL ORDER BY 1",
        [moment.astimezone(dt.UTC).replace(tzinfo=None) for moment in (since, until)],
    ).fetchall()
    return [account_id for (account_id,) in rows]


def compute(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    as_of: AsOf,
    accounts: Collection[str],
) -> LiveReport:
    """Score these accounts as of an instant, and keep what they scored.

    Args:
        as_of: The day that is under way, and the instant.
        accounts: Those with news; who is no customer is left out.

    Raises:
        NotFoundError: no account was known on that day.
    """
    create_schema(connection)
    connection.execute("BEGIN")
    try:
        measure(connection, library, as_of)
        _inputs(connection, as_of.day, accounts)
        resolved = scores.assign(connection, library)
        overrides = load_overrides(connection, as_of.day, as_of.instant)
        scores.evaluate(connection, [(named, library) for named in resolved], overrides=overrides)
        connection.execute(render("store_live.sql", day=literal(as_of.day), revision=REVISION))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    rows = connection.execute("SELECT account_id FROM live_accounts ORDER BY 1").fetchall()
    return LiveReport(as_of.day, as_of.instant, tuple(account_id for (account_id,) in rows))


def newer_accounts(connection: duckdb.DuckDBPyConnection, day: dt.date) -> list[str]:
    """The accounts that were scored live after a day: the CRM shows something newer of them."""
    create_schema(connection)
    rows = connection.execute(
        "SELECT DISTINCT account_id FROM scores.all_scores WHERE revision = ? AND as_of > ? "
        "ORDER BY 1",
        [REVISION, day],
    ).fetchall()
    return [account_id for (account_id,) in rows]


def _inputs(connection: duckdb.DuckDBPyConnection, day: dt.date, accounts: Collection[str]) -> None:
    """The relations that scoring and the triggers read, for these accounts."""
    connection.execute("CREATE OR REPLACE TEMP TABLE with_news (account_id VARCHAR)")
    connection.execute("INSERT INTO with_news SELECT unnest(?::VARCHAR[])", [sorted(accounts)])
    on_day = f"{literal(day)} AS as_of"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE live_accounts AS SELECT {on_day}, * FROM profiled "
        "WHERE account_id IN (FROM with_news);"
        f"CREATE OR REPLACE TEMP TABLE live_values AS SELECT {on_day}, account_id, metric, value, "
        "state, reason FROM measured WHERE account_id IN (SELECT account_id FROM live_accounts);"
        "CREATE OR REPLACE TEMP VIEW score_accounts AS SELECT * EXCLUDE (as_of) FROM live_accounts;"
        "CREATE OR REPLACE TEMP VIEW score_inputs AS SELECT * EXCLUDE (as_of) FROM live_values"
    )


def _has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = 'signals' AND table_name = ?",
        [name],
    ).fetchone()
    return found is not None
