"""The comparison itself: which records show an account, and the state of each of their fields.

It happens in temporary relations of the warehouse: `confirmed_records` (what the CRM acknowledged),
`change_records` (which record shows whom) and `change_states` (the states of a record's fields).
Accounts are compared in parts, so that memory hardly grows with them.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from math import ceil

import duckdb
import orjson
import pyarrow as pa

from connectors.crm.writing import CrmName
from contracts.crm_fields import SCORES, CrmObject, group_of, written_on

GROUPS = (*SCORES, "facts")
HANDOFF_SHOWN_DAYS = 90
"""So long after it was won a deal shows the scores, its handoff's above all."""

ACCOUNTS_AT_ONCE = 25_000

CODES = {"write": "w", "unchanged": "u", "held": "h", "gone": "g", "rejected": "r"}
"""The states that a field of a record may have, as letters: millions of them are counted."""


# What is given


def load_given(
    connection: duckdb.DuckDBPyConnection,
    merged: Mapping[tuple[CrmName, str], str | None],
    rejected: Mapping[tuple[CrmName, CrmObject, str], Mapping[str, str | None]],
    accounts: Collection[str] | None,
) -> None:
    """What the ledger knows of records, and which accounts are planned, as temporary tables."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE change_merged "
        "(crm VARCHAR, record_id VARCHAR, successor VARCHAR);"
        "CREATE OR REPLACE TEMP TABLE change_rejected "
        '(crm VARCHAR, object VARCHAR, record_id VARCHAR, "values" VARCHAR);'
        "CREATE OR REPLACE TEMP TABLE change_accounts (account_id VARCHAR);"
        "CREATE OR REPLACE TEMP TABLE change_states (account_id VARCHAR, crm VARCHAR, "
        "object VARCHAR, record_id VARCHAR, states VARCHAR, band_state VARCHAR, "
        "former_band VARCHAR, band VARCHAR)"
    )
    _insert_rows(
        connection, "change_merged", [(*key, _last_successor(merged, *key)) for key in merged]
    )
    _insert_rows(
        connection,
        "change_rejected",
        [(*key, orjson.dumps(dict(values)).decode()) for key, values in rejected.items()],
    )
    if accounts is None:
        connection.execute(
            "INSERT INTO change_accounts SELECT account_id FROM plan.desired_accounts"
        )
    else:
        _insert_rows(connection, "change_accounts", [(account,) for account in set(accounts)])


def _last_successor(
    merged: Mapping[tuple[CrmName, str], str | None], crm: CrmName, record_id: str
) -> str | None:
    """The record that lives on after all mergers; None where even that was deleted.

    >>> _last_successor({("hubspot", "1"): "2", ("hubspot", "2"): "3"}, "hubspot", "1")
    '3'
    """
    seen = set()
    current: str | None = record_id
    while current is not None and (crm, current) in merged and current not in seen:
        seen.add(current)
        current = merged[crm, current]
    return None if current in seen else current


def _insert_rows(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[str | None, ...]]
) -> None:
    if rows:
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        names = [f"c{number}" for number in range(len(columns))]
        insert(connection, pa.table(columns, names), table)


def insert(connection: duckdb.DuckDBPyConnection, rows: pa.Table, table: str) -> None:
    """Insert an Arrow table into a table with the same columns in the same order."""
    connection.register("given_rows", rows)
    try:
        connection.execute(f"INSERT INTO {table} FROM given_rows")
    finally:
        connection.unregister("given_rows")


# The records that show an account

RECORDS = """
CREATE OR REPLACE TEMP TABLE change_records AS
WITH versions AS (
    SELECT account_id, crm, crm_id, source, is_customer
    FROM signals.accounts
    WHERE superseded_at IS NULL AND deleted IS NOT TRUE
    QUALIFY row_number() OVER (PARTITION BY account_id ORDER BY known_at DESC, source) = 1
),
-- Two accounts that name one record would overwrite each other for ever: the first has it, planned
-- or not; customers come before others, and who names it before whom a merger led to it.
named AS (
    SELECT v.account_id, v.crm, v.source, coalesce(m.successor, v.crm_id) AS record_id,
        m.crm IS NOT NULL AND m.successor IS NULL AS gone
    FROM versions AS v
    LEFT JOIN change_merged AS m ON m.crm = v.crm AND m.record_id = v.crm_id
    WHERE v.crm IS NOT NULL AND v.crm_id IS NOT NULL
    QUALIFY row_number() OVER (
        PARTITION BY v.crm, coalesce(m.successor, v.crm_id)
        ORDER BY m.successor IS NOT NULL, v.is_customer IS FALSE, v.account_id
    ) = 1
),
owned AS (
    SELECT * FROM named
    WHERE account_id IN (SELECT account_id FROM plan.desired_accounts WHERE as_of = $day)
),
deals AS (
    SELECT source, account_id, opportunity_id,
        closed_at IS NOT NULL AND closed_at::DATE <= $day AS closed,
        row_number() OVER (
            PARTITION BY source, account_id, closed AND won AND kind = 'new'
            ORDER BY closed_at DESC, opportunity_id
        ) AS place,
        NOT closed OR (
            won AND kind = 'new' AND place = 1 AND closed_at::DATE > $day - $shown
        ) AS shown
    FROM signals.opportunities
    WHERE superseded_at IS NULL AND deleted IS NOT TRUE AND account_id IS NOT NULL
),
records AS (
    SELECT account_id, crm, 'account' AS object, record_id, gone FROM owned
    UNION ALL
    SELECT o.account_id, o.crm, 'opportunity', coalesce(m.successor, d.opportunity_id),
        m.crm IS NOT NULL AND m.successor IS NULL
    FROM deals AS d
    JOIN owned AS o USING (account_id, source)
    LEFT JOIN change_merged AS m ON m.crm = o.crm AND m.record_id = d.opportunity_id
    WHERE d.shown
    QUALIFY row_number() OVER (
        PARTITION BY o.crm, coalesce(m.successor, d.opportunity_id)
        ORDER BY m.successor IS NOT NULL, o.account_id
    ) = 1
)
SELECT *, account_id IN (SELECT account_id FROM change_accounts) AS wanted FROM records;
"""


def targets_of(
    connection: duckdb.DuckDBPyConnection,
    in_use: Mapping[tuple[CrmName, CrmObject], Collection[str]] | None,
) -> dict[tuple[CrmName, CrmObject], list[str]]:
    """The fields to write on each object of each CRM, in the order of the catalogue."""
    if in_use is None:
        found = connection.execute("SELECT DISTINCT crm, object FROM change_records").fetchall()
        in_use = {(crm, object): _ours(object) for crm, object in found}
    return {
        (crm, object): [name for name in _ours(object) if name in in_use[crm, object]]
        for crm, object in sorted(in_use)
        if set(in_use[crm, object]) & set(_ours(object))
    }


def _ours(object: CrmObject) -> list[str]:
    return [field.name for field in written_on(object)]


# The states


def compare(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    crm: CrmName,
    object: CrmObject,
    fields: Sequence[str],
    *,
    refresh_days: int,
) -> None:
    """Note the state of every field of one object of one CRM in `change_states`."""
    # Where nothing was refused, as usual, looking it up would cost a third of the time and memory.
    refused = connection.execute("SELECT 1 FROM change_rejected LIMIT 1").fetchone() is not None
    states = _states_sql(fields, refresh_days, refused=refused)
    for part in _parts(connection):
        connection.execute(
            f"INSERT INTO change_states {states}",
            {"day": day, "crm": crm, "object": object, **part},
        )


def _parts(connection: duckdb.DuckDBPyConnection) -> list[dict[str, int]]:
    """The parts of the accounts, as parameters of `_OF_PART`."""
    row = connection.execute("SELECT count(*) FROM change_accounts").fetchone()
    parts = max(1, ceil((row[0] if row else 0) / ACCOUNTS_AT_ONCE))
    return [{"parts": parts, "part": part} for part in range(parts)]


_OF_PART = "hash({}.account_id) % $parts::UBIGINT = $part::UBIGINT"
_CONFIRMED_OF_PART = f"""(
    FROM confirmed_records SEMI JOIN (
        FROM change_records AS r
        WHERE wanted AND crm = $crm AND object = $object AND {_OF_PART.format("r")}
    ) USING (crm, object, record_id)
)"""


def keep(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    crm: CrmName,
    object: CrmObject,
    fields: Sequence[str],
) -> None:
    """Store the records of one object of one CRM of which a field is to be written."""
    # The reasons say why, whether they are written themselves or not.
    shown = dict.fromkeys([*fields, *(f"{group}_reasons" for group in GROUPS)])
    names = ", ".join(
        f"CASE WHEN states[{place}] = '{CODES['write']}' THEN '{name}' END"
        for place, name in enumerate(fields, 1)
    )
    changed = f"""
        SELECT
            $day, s.account_id, crm, object, record_id, concat_ws(' ', {names}),
            c."values", to_json({{{", ".join(f"'{name}': {name}" for name in shown)}}})::VARCHAR
        FROM change_states AS s
        JOIN plan.desired_accounts AS d ON d.account_id = s.account_id AND d.as_of = $day
        LEFT JOIN {_CONFIRMED_OF_PART} AS c USING (crm, object, record_id)
        WHERE crm = $crm AND object = $object AND contains(states, '{CODES["write"]}')
            AND {_OF_PART.format("s")} AND {_OF_PART.format("d")}
        """
    for part in _parts(connection):
        connection.execute(
            f"INSERT INTO plan.record_changes {changed}",
            {"day": day, "crm": crm, "object": object, **part},
        )


def _states_sql(fields: Sequence[str], refresh_days: int, *, refused: bool) -> str:
    """The SELECT that gives every record the states of its fields, a letter each.

    `was` is what the record acknowledged, `no` what it refused, if anything was. Both come from
    JSON, in which a field that is null stands with its name, and one that is unknown does not
    stand at all.
    """
    shape = ", ".join(f'"{name}": "VARCHAR"' for name in fields)
    days = [name for name in fields if name.endswith("_as_of")]
    plain = [name for name in fields if name not in days]
    states = "".join(f", {_state_sql(name, refused)} AS state_{name}" for name in plain)
    of_days = "".join(
        f", {_as_of_state_sql(name, plain, refresh_days, refused)} AS state_{name}" for name in days
    )
    no, refusals = "", ""
    if refused:
        no = f""", x."values" AS refused, from_json(x."values", '{{{shape}}}') AS no"""
        refusals = "LEFT JOIN change_rejected AS x USING (crm, object, record_id)"
    return f"""
        SELECT account_id, crm, object, record_id,
            concat({", ".join(f"state_{name}" for name in fields)}) AS states,
            {"state_risk_band, was.risk_band" if "risk_band" in fields else "NULL, NULL"}, risk_band
        FROM (SELECT *{of_days} FROM (SELECT *{states} FROM (
            SELECT r.crm, r.object, r.record_id, r.gone, d.*,
                c."values" AS acknowledged, from_json(c."values", '{{{shape}}}') AS was{no}
            FROM change_records AS r
            JOIN plan.desired_accounts AS d ON d.account_id = r.account_id AND d.as_of = $day
            LEFT JOIN {_CONFIRMED_OF_PART} AS c USING (crm, object, record_id)
            {refusals}
            WHERE r.wanted AND r.crm = $crm AND r.object = $object
                AND {_OF_PART.format("r")} AND {_OF_PART.format("d")}
        )))"""


def _state_sql(name: str, refused: bool) -> str:
    """The state of one field of one record, as a letter; a dash where there is nothing to show."""
    otherwise = f"'{CODES['write']}'"
    if refused:
        otherwise = f"""CASE WHEN refused IS NOT NULL AND {_same_sql(name, "no", "refused")}
            THEN '{CODES["rejected"]}' ELSE {otherwise} END"""
    return _unless_kept_sql(name, otherwise)


def _as_of_state_sql(name: str, plain: Sequence[str], refresh_days: int, refused: bool) -> str:
    """The state of a score's day, which alone is no reason to write until it is too old."""
    group = group_of(name)
    others = "".join(f", state_{other}" for other in plain if group_of(other) == group)
    shown = [f"try_cast({values}.{name} AS DATE)" for values in ("was", "no")[: 1 + refused]]
    return _unless_kept_sql(
        name,
        f"""CASE
            WHEN contains(concat(''{others}), '{CODES["write"]}') THEN '{CODES["write"]}'
            WHEN contains(concat(''{others}), '{CODES["rejected"]}') THEN '{CODES["rejected"]}'
            WHEN {name}::DATE - greatest({", ".join(shown)}) <= {int(refresh_days)}
                THEN '{CODES["unchanged"]}'
            ELSE '{CODES["write"]}' END""",
    )


def _unless_kept_sql(name: str, otherwise: str) -> str:
    """The state of a field that is kept as it is, whatever the reason, or another one."""
    group = group_of(name)
    return f"""CASE
        WHEN {group}_held IS NULL THEN '-'
        WHEN gone THEN '{CODES["gone"]}'
        WHEN {group}_held THEN '{CODES["held"]}'
        WHEN {_same_sql(name, "was", "acknowledged")} THEN '{CODES["unchanged"]}'
        ELSE {otherwise} END"""


def _same_sql(name: str, values: str, text: str) -> str:
    named = f"({values}.{name} IS NOT NULL OR contains({text}, '\"{name}\":'))"
    return f"{values}.{name} IS NOT DISTINCT FROM {name} AND {named}"
