"""What a CRM should show of a day's scores: the desired half of the plan."""

import datetime as dt
from math import ceil

import duckdb

from contracts.crm_fields import (
    HANDOFF_FACTS,
    LONG_TEXT_LENGTH,
    PARTS,
    SCORES,
    TEXT_LENGTH,
    group_of,
    written_on,
)
from scoring import reasons
from scoring.compiling import timestamp
from scoring.expressions import literal
from scoring.library import Library
from scoring.sql import render

ACCOUNTS_AT_ONCE = 50_000
"""So many accounts are worked at once, so that memory hardly grows with them."""

CLEARED_WITHIN_DAYS = 30
"""So long after an account lost a score the CRM is asked to clear it: time enough to be heard."""

_FACTS = [
    {
        "name": fact.name,
        "column": fact.name.removeprefix("handoff_"),
        "kind": fact.kind,
        "length": fact.length,
    }
    for fact in HANDOFF_FACTS
]
_COLUMNS = [(field.name, group_of(field.name)) for field in written_on("account")]


def compute(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    *,
    instant: dt.datetime | None = None,
    scores: str = "scores.scores",
    contributions: str = "scores.contributions",
) -> None:
    """Fill `plan.desired_accounts` and the view `plan.desired` for a scored day, and no other.

    The fields are those of `contracts.crm_fields`: seven parts of each score that an account has,
    the desired outcome beside its health, and what sales noted for the handoff. Numbers are
    rounded to what people see, so that noise is never a change: 67.9 and 68.0 are both ``68``. The
    change in a week is one of rounded numbers too: 68 after 71 is ``-3``; the week before is the
    newest scored day seven to fourteen days ago. A handoff or health score that an account has no
    more is cleared.

    Args:
        instant: when the day is over (UTC, naive), for what was noted for the handoff by then.
            None: midnight UTC.
        scores: relation of the day's scores, where not all of them are meant; and `contributions`
            the relation of theirs.
    """
    over = instant or dt.datetime.combine(day + dt.timedelta(days=1), dt.time())
    if _has_table(connection, "plan", "desired"):  # as an older version left it: now a view
        connection.execute("DROP TABLE plan.desired")
    with_handoffs = _has_table(connection, "signals", "handoffs")
    parts = max(1, ceil(_count(connection, day, scores) / ACCOUNTS_AT_ONCE))
    for part in range(parts):
        of_part = f"hash(account_id) % {parts} = {part}"
        scores_of_part = f"(FROM {scores} WHERE {of_part})"
        reasons.compute(
            connection, library, day, scores=scores_of_part,
            contributions=f"(FROM {contributions} WHERE {of_part})",
        )  # fmt: skip
        connection.execute(
            render(
                "desired.sql",
                first=part == 0,
                day=literal(day),
                instant=timestamp(over),
                scores=scores_of_part,
                of_part=of_part,
                with_handoffs=with_handoffs,
                facts=_FACTS,
                families=SCORES,
                cleared_within_days=CLEARED_WITHIN_DAYS,
                parts=[part for part in PARTS if part != "score"],
                columns=_COLUMNS,
                length=TEXT_LENGTH,
                long_length=LONG_TEXT_LENGTH,
            )
        )


def _count(connection: duckdb.DuckDBPyConnection, day: dt.date, scores: str) -> int:
    row = connection.execute(
        f"SELECT count(DISTINCT account_id) FROM {scores} WHERE as_of = ?", [day]
    ).fetchone()
    return int(row[0]) if row else 0


def _has_table(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> bool:
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ?",
        [schema, name],
    ).fetchone()
    return found is not None
