"""The plan: what a CRM would receive, field by field, before anything is sent.

`plan.desired` is what the scores say, `plan.confirmed` the last value that the CRM acknowledged.
Every desired value ends in exactly one state, and the sums are checked:

========== ==========================================================================
write      differs from what the CRM acknowledged
unchanged  the CRM shows it already
held       unknown because a source is not delivering: the CRM keeps what it shows
unlinked   the account has no record of its own in the CRM
========== ==========================================================================
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from contracts.errors import HeldError

STATES = ("write", "unchanged", "held", "unlinked")

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS plan;
CREATE TABLE IF NOT EXISTS plan.confirmed (
    crm VARCHAR NOT NULL, crm_id VARCHAR NOT NULL, field VARCHAR NOT NULL, value VARCHAR,
    confirmed_at TIMESTAMP NOT NULL, PRIMARY KEY (crm, crm_id, field)
);
CREATE TABLE IF NOT EXISTS plan.field_changes (
    as_of DATE NOT NULL, account_id VARCHAR NOT NULL, crm VARCHAR, crm_id VARCHAR,
    field VARCHAR NOT NULL, old VARCHAR, new VARCHAR, why VARCHAR, state VARCHAR NOT NULL
);
"""

_PLAN = """
INSERT INTO plan.field_changes BY NAME
WITH records AS (
    SELECT account_id, crm, crm_id
    FROM signals.accounts
    WHERE superseded_at IS NULL AND deleted IS NOT TRUE
    QUALIFY row_number() OVER (PARTITION BY account_id ORDER BY known_at DESC, source) = 1
),
-- Two accounts that name one record would overwrite each other for ever: the first has it.
owned AS (
    SELECT r.*
    FROM records AS r
    WHERE r.account_id IN (SELECT account_id FROM plan.desired WHERE as_of = $1)
    QUALIFY row_number() OVER (PARTITION BY r.crm, r.crm_id ORDER BY r.account_id) = 1
)
SELECT
    d.as_of, d.account_id, r.crm, r.crm_id, d.field, c.value AS old, d.value AS new, d.why,
    CASE
        WHEN r.crm IS NULL OR r.crm_id IS NULL THEN 'unlinked'
        WHEN d.held THEN 'held'
        WHEN c.crm_id IS NOT NULL AND c.value IS NOT DISTINCT FROM d.value THEN 'unchanged'
        ELSE 'write'
    END AS state
FROM plan.desired AS d
LEFT JOIN owned AS r USING (account_id)
LEFT JOIN plan.confirmed AS c ON c.crm = r.crm AND c.crm_id = r.crm_id AND c.field = d.field
WHERE d.as_of = $1
"""


@dataclass(frozen=True)
class Plan:
    """How many field values a day's plan has, by state, and on how many accounts it writes."""

    day: dt.date
    desired: int
    by_state: Mapping[str, int]
    accounts_written: int


def make_plan(connection: duckdb.DuckDBPyConnection, day: dt.date) -> Plan:
    """Compare what the scores want with what the CRM acknowledged, and store the plan of the day.

    Raises:
        HeldError: the states do not add up to what was desired; nothing is stored.
    """
    connection.execute(_SCHEMA)
    connection.execute("BEGIN")
    try:
        connection.execute("DELETE FROM plan.field_changes WHERE as_of = ?", [day])
        connection.execute(_PLAN, [day])
        plan = read_plan(connection, day)
        if sum(plan.by_state.values()) != plan.desired:
            raise HeldError(
                f"the plan of {day} does not add up: {plan.desired} values are desired, "
                f"{sum(plan.by_state.values())} are planned",
                "an account stands twice in signals.accounts; run `healthloop doctor`",
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return plan


def read_plan(connection: duckdb.DuckDBPyConnection, day: dt.date) -> Plan:
    """The stored plan of a day."""
    (desired,) = connection.execute(
        "SELECT count(*) FROM plan.desired WHERE as_of = ?", [day]
    ).fetchone() or (0,)
    rows = connection.execute(
        "SELECT state, count(*), count(DISTINCT account_id) FROM plan.field_changes "
        "WHERE as_of = ? GROUP BY state",
        [day],
    ).fetchall()
    counts = dict.fromkeys(STATES, 0) | {state: count for state, count, _ in rows}
    written = next((accounts for state, _, accounts in rows if state == "write"), 0)
    return Plan(day, desired, counts, written)
