"""Scores that people set by hand in the CRM: with a reason, and until a day.

An override counts from the instant on that it was known, so a replayed day sees what was known
then. It is the last word: the score is its number whatever else is known, and the contributions say
how far that is from what the scorecard came to.
"""

import datetime as dt
from dataclasses import dataclass

import duckdb

from scoring.compiling import timestamp
from scoring.expressions import literal

_LONGEST_REASON = 200
"""Characters of a reason that are kept: the sentence around it has to fit into a CRM's field."""

_KNOWN = """
SELECT
    account_id, score, value, given_at, known_at, expires_on, source, override_id,
    nullif(trim(regexp_replace(reason, '[[:cntrl:][:space:]]+', ' ', 'g')), '') AS reason
FROM signals.overrides
WHERE account_id IS NOT NULL AND value BETWEEN 0 AND 100 AND deleted IS NOT TRUE
    AND given_at <= {instant} AND known_at <= {instant}
    AND (superseded_at IS NULL OR superseded_at > {instant})
    AND (expires_on IS NULL OR expires_on >= {day})
"""


@dataclass(frozen=True)
class IgnoredOverride:
    """An override that somebody gave and that does not count, and why."""

    account_id: str
    score: str
    why: str


def load_overrides(
    connection: duckdb.DuckDBPyConnection, day: dt.date, instant: dt.datetime
) -> str | None:
    """The overrides that count on a day, in a temporary table whose name this returns.

    Its columns are account_id, score, value (0 to 100) and because; of several for one score the
    newest counts. None where there is none.

    Args:
        connection: the warehouse.
        day: the scored day, in the company's time zone.
        instant: when it is over (UTC, naive): what was known later does not count.
    """
    if not _has_overrides(connection):
        return None
    known = _KNOWN.format(instant=timestamp(instant), day=literal(day))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE score_overrides AS "
        "SELECT account_id, score, round(value, 2)::DECIMAL(6, 2) AS value, "
        "'Set by hand until ' || expires_on || ': ' "
        f"|| left(reason, {_LONGEST_REASON}) AS because "
        f"FROM ({known}) WHERE reason IS NOT NULL AND expires_on IS NOT NULL "
        "QUALIFY row_number() OVER (PARTITION BY account_id, score "
        "ORDER BY given_at DESC, known_at DESC, source, override_id) = 1"
    )
    found = connection.execute("SELECT 1 FROM score_overrides LIMIT 1").fetchone()
    return "score_overrides" if found else None


def ignored_overrides(
    connection: duckdb.DuckDBPyConnection, day: dt.date, *, instant: dt.datetime | None = None
) -> list[IgnoredOverride]:
    """The overrides that were known on a day and do not count: without a reason or an expiry.

    `instant` is when the day is over (UTC, naive); None: midnight UTC.
    """
    if not _has_overrides(connection):
        return []
    over = instant or dt.datetime.combine(day + dt.timedelta(days=1), dt.time())
    known = _KNOWN.format(instant=timestamp(over), day=literal(day))
    rows = connection.execute(
        "SELECT account_id, score, concat_ws(' and ', "
        "CASE WHEN reason IS NULL THEN 'no reason' END, "
        "CASE WHEN expires_on IS NULL THEN 'no last day' END) AS lacks "
        f"FROM ({known}) WHERE lacks <> '' ORDER BY account_id, score, lacks"
    ).fetchall()
    return [IgnoredOverride(account, score, f"there is {lacks}") for account, score, lacks in rows]


def _has_overrides(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the warehouse has the table: one that an older version built does not."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = 'signals' AND table_name = 'overrides'"
    ).fetchone()
    return found is not None
