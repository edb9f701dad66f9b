"""The comparison itself: which records show an account, and the state of each of their fields.

It happens in temporary relations of the warehouse: `confirmed_records` (what the CRM acknowledged),
`change_records` (which record shows whom) and `change_states` (the states of a record's fields).
Accounts are compared in parts, so that memory hardly grows with them.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
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

RECORDS_ALIKE, MOST_ALIKE = 1000, 8
"""So many records with the same states are read by a query of their own; and how many such."""

CODES = {"write": "w", "unchanged": "u", "held": "h", "gone": "g", "rejected": "r"}
"""The states that a field of a record may have, as letters: millions of them are counted."""


# What is given


def load_given(
    connection: duckdb.DuckDBPyConnection,
    merged: Mapping[tuple[CrmName, str], str | None],
    rejected: Mapping[tuple[CrmName, CrmObject, str], Mapping[str, str | None]],
    accounts: Collection[str] | None,
    without: Collection[str],
) -> None:
    """What the ledger knows of records, and which accounts are planned, as temporary tables."""
    load_merged(connection, merged)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE change_rejected "
        '(crm VARCHAR, object VARCHAR, record_id VARCHAR, "values" VARCHAR);'
        "CREATE OR REPLACE TEMP TABLE change_accounts (account_id VARCHAR);"
        "CREATE OR REPLACE TEMP TABLE change_states (account_id VARCHAR, crm VARCHAR, "
        "object VARCHAR, record_id VARCHAR, states VARCHAR, band_state VARCHAR, "
        "former_band VARCHAR, band VARCHAR)"
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
    if without:
        connection.execute(
            "DELETE FROM change_accounts WHERE list_contains($without::VARCHAR[], account_id)",
            {"without": sorted(without)},
        )


def load_merged(
    connection: duckdb.DuckDBPyConnection, merged: Mapping[tuple[CrmName, str], str | None]
) -> None:
    """Which records are deleted or merged away, as a temporary table, for `NAMED`."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE change_merged "
        "(crm VARCHAR, record_id VARCHAR, successor VARCHAR)"
    )
    _insert_rows(
        connection, "change_merged", [(*key, _last_successor(merged, *key)) for key in merged]
    )


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

NAMED = """
SELECT v.account_id, v.crm, v.source, v.owner, v.sales_owner,
    coalesce(m.successor, v.crm_id) AS record_id, m.crm IS NOT NULL AND m.successor IS NULL AS gone
FROM (
    FROM signals.accounts
    WHERE superseded_at IS NULL AND deleted IS NOT TRUE
    QUALIFY row_number() OVER (PARTITION BY account_id ORDER BY known_at DESC, source) = 1
) AS v
LEFT JOIN change_merged AS m ON m.crm = v.crm AND m.record_id = v.crm_id
WHERE v.crm IS NOT NULL AND v.crm_id IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY v.crm, coalesce(m.successor, v.crm_id)
    ORDER BY m.successor IS NOT NULL, v.is_customer IS FALSE, v.account_id
) = 1
"""
"""Each account's record in the CRM. Two accounts that name one record would overwrite each other
for ever: the first has it, planned or not; customers come before others, and who names it before
whom a merger led to it."""

RECORDS = f"""
CREATE OR REPLACE TEMP TABLE change_records AS
WITH named AS ({NAMED}),
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


def written(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    crm: CrmName,
    object: CrmObject,
    fields: Sequence[str],
) -> Iterator[tuple[str, dict[str, object]]]:
    """The queries, with their parameters, for the records of which a field is to be written.

    They give as_of, account_id, crm, object, record_id, and the changes, packed.
    """
    common = [
        states
        for (states,) in connection.execute(
            "SELECT states FROM change_states WHERE crm = ? AND object = ? AND contains(states, ?) "
            "GROUP BY states HAVING count(*) >= ? ORDER BY count(*) DESC, states LIMIT ?",
            [crm, object, CODES["write"], RECORDS_ALIKE, MOST_ALIKE],
        ).fetchall()
    ]
    others = "".join(f" AND states <> '{states}'" for states in common)
    packed = [(f"states = '{states}'", *_packed_alike_sql(fields, states)) for states in common]
    packed.append((f"contains(states, '{CODES['write']}'){others}", *_packed_sql(fields)))
    for which, was, changes in packed:
        query = f"""
            SELECT $day AS as_of, account_id, crm, object, record_id, {changes} AS packed
            FROM (
                SELECT s.account_id, s.crm, s.object, s.record_id, s.states, d.*,
                    c."values" AS acknowledged, {was} AS was
                FROM change_states AS s
                JOIN plan.desired_accounts AS d ON d.account_id = s.account_id AND d.as_of = $day
                LEFT JOIN {_CONFIRMED_OF_PART} AS c USING (crm, object, record_id)
                WHERE s.crm = $crm AND s.object = $object AND {which}
                    AND {_OF_PART.format("s")} AND {_OF_PART.format("d")}
            )"""
        for part in _parts(connection):
            yield query, {"day": day, "crm": crm, "object": object, **part}


def _packed_alike_sql(fields: Sequence[str], states: str) -> tuple[str, str]:
    """`_packed_sql` for records with these very states; it is several times as fast.

    What was acknowledged is taken as it is where the same fields are written, or nothing was.
    """
    written = [name for name, state in zip(fields, states, strict=True) if state == CODES["write"]]
    new = ", ".join(f"'{name}': {name}" for name in written)
    whys = [
        _pair_sql(group, f"{group}_reasons", "true")
        for group in dict.fromkeys(map(group_of, written))
        if f"{group}_reasons" not in written
    ]
    was, old = "NULL", "acknowledged"
    if set(states) - {CODES["write"], "-"}:
        was, old = _from_json_sql("acknowledged", written), "to_json(was)::VARCHAR"
    return (
        was,
        f"""concat('["{" ".join(written)}",', coalesce({old}, '{{}}'), ',',
        to_json({{{new}}})::VARCHAR, ',{{', {_list_sql(",", whys)}, '}}]')""",
    )


def _packed_sql(fields: Sequence[str]) -> tuple[str, str]:
    """What is to be written of a record, as `connectors.crm.plans.FieldChanges` takes it apart.

    The first of the two is what the second calls `was`.
    """
    write = {name: f"states[{n}] = '{CODES['write']}'" for n, name in enumerate(fields, 1)}
    any_of = {
        group: " OR ".join(write[name] for name in fields if group_of(name) == group)
        for group in dict.fromkeys(map(group_of, fields))
    }
    # Reasons that are written themselves are not said twice.
    silent = {g: f"({any_of[g]}) AND NOT {write.get(f'{g}_reasons', 'false')}" for g in any_of}
    names = _list_sql(" ", [f"CASE WHEN {write[name]} THEN '{name}' END" for name in fields])
    old = _list_sql(",", [_pair_sql(name, f"was.{name}", write[name]) for name in fields])
    new = _list_sql(",", [_pair_sql(name, name, write[name], null="null") for name in fields])
    why = _list_sql(",", [_pair_sql(g, f"{g}_reasons", when) for g, when in silent.items()])
    return (
        _from_json_sql('c."values"', fields),
        f"""concat('["', {names}, '",{{', {old}, '}},{{', {new}, '}},{{', {why}, '}}]')""",
    )


def _list_sql(between: str, texts: Sequence[str]) -> str:
    """Those of the texts that are not null, one after the other."""
    return f"concat_ws('{between}', {', '.join(texts)})" if texts else "''"


def _pair_sql(name: str, value: str, condition: str, *, null: str | None = None) -> str:
    """A name and its value as JSON under a condition; without `null`, null stands nowhere."""
    text = f"to_json({value})::VARCHAR"
    if null is not None:
        text = f"coalesce({text}, '{null}')"
    return f"""CASE WHEN {condition} THEN '"{name}":' || {text} END"""


def _from_json_sql(text: str, fields: Sequence[str]) -> str:
    """These fields of a JSON object; those that it does not have are null."""
    shape = ", ".join(f'"{name}": "VARCHAR"' for name in fields)
    return f"from_json({text}, '{{{shape}}}')"


def _states_sql(fields: Sequence[str], refresh_days: int, *, refused: bool) -> str:
    """The SELECT that gives every record the states of its fields, a letter each.

    `was` is what the record acknowledged, `no` what it refused, if anything was. Both come from
    JSON, in which a field that is null stands with its name, and one that is unknown does not
    stand at all.
    """
    days = [name for name in fields if name.endswith("_as_of")]
    plain = [name for name in fields if name not in days]
    states = "".join(f", {_state_sql(name, plain, refused)} AS state_{name}" for name in plain)
    of_days = "".join(
        f", {_as_of_state_sql(name, plain, refresh_days, refused)} AS state_{name}" for name in days
    )
    no, refusals = "", ""
    if refused:
        no = f""", x."values" AS refused, {_from_json_sql('x."values"', fields)} AS no"""
        refusals = "LEFT JOIN change_rejected AS x USING (crm, object, record_id)"
    return f"""
        SELECT account_id, crm, object, record_id,
            concat({", ".join(f"state_{name}" for name in fields)}) AS states,
            {"state_risk_band, was.risk_band" if "risk_band" in fields else "NULL, NULL"}, risk_band
        FROM (SELECT *{of_days} FROM (SELECT *{states} FROM (
            SELECT r.crm, r.object, r.record_id, r.gone, d.*,
                c."values" AS acknowledged, {_from_json_sql('c."values"', fields)} AS was{no}
            FROM change_records AS r
            JOIN plan.desired_accounts AS d ON d.account_id = r.account_id AND d.as_of = $day
            LEFT JOIN {_CONFIRMED_OF_PART} AS c USING (crm, object, record_id)
            {refusals}
            WHERE r.wanted AND r.crm = $crm AND r.object = $object
                AND {_OF_PART.format("r")} AND {_OF_PART.format("d")}
        )))"""


def _state_sql(name: str, plain: Sequence[str], refused: bool) -> str:
    """The state of one field of one record, as a letter; a dash where there is nothing to show.

    A score is offered whole: what was refused before goes along with what is new of it, so that no
    record shows the band of one day beside the score of another.
    """
    otherwise = f"'{CODES['write']}'"
    if refused:
        nothing_new = " AND ".join(
            f"({_same_sql(other, 'was', 'acknowledged')} OR {_same_sql(other, 'no', 'refused')})"
            for other in plain
            if group_of(other) == group_of(name)
        )
        otherwise = f"""CASE WHEN refused IS NOT NULL AND {nothing_new}
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
