"""Which fields would be written: what the scores want against what the CRM acknowledged last.

`plan.desired_accounts` is what the scores say, `confirmed_records` what the CRM acknowledged. Every
desired value of every record ends in exactly one state, and the sums are checked:

========== ==========================================================================
write      differs from what the CRM acknowledged
unchanged  the CRM shows it already
held       unknown because a source is not delivering: the CRM keeps what it shows
unlinked   the account has no record of its own in a CRM that is written to
gone       the record was deleted in the CRM
rejected   the CRM refused this very value before
========== ==========================================================================

`make_changes` compares and counts; what is to be written is then read record by record, or stored
for people, as one row a record in `plan.record_changes`, which the view `plan.field_changes` shows
field by field. Of a day there is one comparison, the last one made.
"""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import duckdb
import pyarrow as pa

from connectors.crm.comparing import (
    CODES,
    GROUPS,
    HANDOFF_SHOWN_DAYS,
    RECORDS,
    compare,
    insert,
    load_given,
    targets_of,
    written,
)
from connectors.crm.plans import FieldChanges, RecordChange
from connectors.crm.writing import CrmName
from contracts.crm_fields import HANDOFF_FACTS, CrmObject, group_of, written_on
from contracts.errors import HeldError

Targets = Mapping[tuple[CrmName, CrmObject], Sequence[str]]

STATES = ("write", "unchanged", "held", "unlinked", "gone", "rejected")


@dataclass(frozen=True)
class Bands:
    """What the gate looks at: how the risk bands that the CRM shows would change.

    Attributes:
        accounts: All accounts of the day, those that are not planned too.
        known: Of them, those whose risk band the CRM shows, and not as unknown.
        band_changes: Planned accounts that change from one known band to another.
        newly_unknown: Planned accounts whose known band becomes unknown.
        held: Planned accounts that are held because a source is not delivering.
    """

    accounts: int = 0
    known: int = 0
    band_changes: int = 0
    newly_unknown: int = 0
    held: int = 0


_BAND_NUMBERS = tuple(field.name for field in fields(Bands))


@dataclass(frozen=True)
class Changes:
    """What became of a day's desired values: how many, and on how many accounts, by state.

    `targets` are the fields that were compared, by CRM and object.
    """

    day: dt.date
    desired: int
    fields: Mapping[str, int]
    accounts: Mapping[str, int]
    bands: Bands
    targets: Targets = field(default_factory=dict, compare=False)


_FACTS = ", ".join(f"'{fact.name}'" for fact in HANDOFF_FACTS)
_SCHEMA = f"""
CREATE SCHEMA IF NOT EXISTS plan;
CREATE TABLE IF NOT EXISTS plan.record_changes (
    as_of DATE NOT NULL, account_id VARCHAR NOT NULL, crm VARCHAR NOT NULL,
    object VARCHAR NOT NULL, record_id VARCHAR NOT NULL,
    packed VARCHAR NOT NULL  -- as `connectors.crm.plans.FieldChanges` explains it
);
CREATE OR REPLACE VIEW plan.field_changes AS
SELECT
    as_of, account_id, crm, object, record_id, field, packed -> 1 ->> field AS old,
    packed -> 2 ->> field AS new,
    coalesce(packed -> 3 ->> part, packed -> 2 ->> (part || '_reasons')) AS why
FROM (
    SELECT *, unnest(string_split(packed ->> 0, ' ')) AS field,
        CASE WHEN field IN ({_FACTS}) THEN 'facts' ELSE split_part(field, '_', 1) END AS part
    FROM plan.record_changes
);
CREATE TABLE IF NOT EXISTS plan.totals (
    as_of DATE NOT NULL, name VARCHAR NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (as_of, name)
);
"""


def load_confirmed(connection: duckdb.DuckDBPyConnection, tables: Iterable[pa.Table]) -> None:
    """Tell the warehouse what the ledger knows: what each record acknowledged last.

    It is forgotten with the connection.

    Args:
        connection: the warehouse.
        tables: crm, object, record_id and `values`, a JSON object of canonical texts by field name.
            A field that is not in it was never acknowledged; null was.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE confirmed_records "
        '(crm VARCHAR, object VARCHAR, record_id VARCHAR, "values" VARCHAR)'
    )
    for table in tables:
        insert(connection, table, "confirmed_records")


def make_changes(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    *,
    in_use: Mapping[tuple[CrmName, CrmObject], Collection[str]] | None,
    refresh_days: int,
    merged: Mapping[tuple[CrmName, str], str | None] | None = None,
    rejected: Mapping[tuple[CrmName, CrmObject, str], Mapping[str, str | None]] | None = None,
    accounts: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Changes:
    """Compare a day's desired values with what the CRM acknowledged; the numbers are stored.

    A day that moves on is no change: a score's `as_of` is written when something else of the score
    is, or when the day that the CRM shows is more than `refresh_days` old.

    Args:
        connection: the warehouse, with `plan.desired_accounts` of that day.
        day: the scored day.
        in_use: the fields of each CRM and object that are written to; those that people fill are
            left out. None: all fields of every CRM that accounts name, for a plan to read.
        refresh_days: how old the `as_of` that the CRM shows may become.
        merged: records that were deleted (None) or merged, by CRM and id, with the id of the
            record that lives on.
        rejected: values that the CRM refused, by record; they are not sent again.
        accounts: plan these alone. None: all.
        without: accounts that are not planned all the same.

    Raises:
        HeldError: the states do not add up to what was desired; nothing is stored.
    """
    create_schema(connection)
    if not _has_confirmed(connection):
        load_confirmed(connection, ())
    load_given(connection, merged or {}, rejected or {}, accounts, without)
    connection.execute(RECORDS, {"day": day, "shown": HANDOFF_SHOWN_DAYS})
    targets = targets_of(connection, in_use)
    for (crm, object), names in targets.items():
        compare(connection, day, crm, object, names, refresh_days=refresh_days)
    changes = _counted(connection, day, targets)
    _check_sums(changes)
    _store_totals(connection, changes)
    return changes


def read_totals(connection: duckdb.DuckDBPyConnection, day: dt.date) -> Changes:
    """The numbers of a day's stored plan; zeros where the day has none."""
    numbers = dict(
        connection.execute("SELECT name, number FROM plan.totals WHERE as_of = ?", [day]).fetchall()
    )
    return Changes(
        day=day,
        desired=numbers.get("desired", 0),
        fields={state: numbers.get(f"fields_{state}", 0) for state in STATES},
        accounts={state: numbers.get(f"accounts_{state}", 0) for state in STATES},
        bands=Bands(**{name: numbers.get(name, 0) for name in _BAND_NUMBERS}),
    )


def read_changes(connection: duckdb.DuckDBPyConnection, changes: Changes) -> Iterator[RecordChange]:
    """What would be written, record by record, in no order.

    Args:
        connection: that of the comparison, before the next one.
        changes: what `make_changes` gave.
    """
    for (crm, object), names in changes.targets.items():
        for query, values in written(connection, changes.day, crm, object, names):
            reader = connection.execute(
                f"SELECT account_id, record_id, packed FROM ({query})", values
            )
            while rows := reader.fetchmany(1000):
                for account_id, record_id, packed in rows:
                    yield RecordChange(crm, object, record_id, account_id, FieldChanges(packed))


def store_changes(connection: duckdb.DuckDBPyConnection, changes: Changes) -> None:
    """Keep what would be written in `plan.record_changes`, for people; as `read_changes`."""
    with _transaction(connection):
        for (crm, object), names in changes.targets.items():
            for query, values in written(connection, changes.day, crm, object, names):
                connection.execute(f"INSERT INTO plan.record_changes BY NAME {query}", values)


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the plan's tables. What an older version kept in other columns is forgotten."""
    old = connection.execute(
        "SELECT table_name FROM duckdb_columns() WHERE database_name = current_database() "
        "AND schema_name = 'plan' AND (table_name, column_name) IN "
        "(('field_changes', 'state'), ('confirmed', 'confirmed_at'), ('record_changes', 'desired'))"
    ).fetchall()
    for (name,) in old:
        connection.execute(f"DROP TABLE plan.{name}")
    connection.execute(_SCHEMA)


# The numbers

_SIZES = Counter(group_of(field.name) for field in written_on("account"))
_UNLINKED = f"""
SELECT coalesce(sum(number), 0), count(*) FILTER (WHERE number > 0)
FROM (
    SELECT
        {" + ".join(f"if({group}_held IS NULL, 0, {_SIZES[group]})" for group in GROUPS)} AS number
    FROM plan.desired_accounts
    WHERE as_of = $day AND account_id IN (SELECT account_id FROM change_accounts)
        AND account_id NOT IN (
            SELECT account_id FROM change_records
            WHERE object = 'account' AND list_contains($crms::VARCHAR[], crm)
        )
)
"""
_STATES = ", ".join(
    f"coalesce(sum(length(states) - length(replace(states, '{code}', ''))), 0), "
    f"count(DISTINCT account_id) FILTER (WHERE contains(states, '{code}'))"
    for code in CODES.values()
)
_BANDS = """
SELECT
    (SELECT count(*) FROM plan.desired_accounts WHERE as_of = $day),
    (SELECT count(*) FROM change_records JOIN confirmed_records USING (crm, object, record_id)
     WHERE object = 'account' AND list_contains($crms::VARCHAR[], crm)
        AND json_extract_string("values", '$.risk_band') <> 'unknown'),
    count(*) FILTER (WHERE band_state = $write AND former_band <> 'unknown' AND band <> 'unknown'),
    count(*) FILTER (WHERE band_state = $write AND former_band <> 'unknown' AND band = 'unknown'),
    count(*) FILTER (WHERE contains(states, $held))
FROM change_states WHERE object = 'account'
"""


def _counted(connection: duckdb.DuckDBPyConnection, day: dt.date, targets: Targets) -> Changes:
    """Count the states, and what was desired by the records and not by the comparison."""
    place = {"day": day, "crms": [crm for crm, object in targets if object == "account"]}
    unlinked = _one(connection, _UNLINKED, place)
    states = _one(connection, f"SELECT {_STATES} FROM change_states")
    numbers = dict(zip(CODES, zip(states[::2], states[1::2], strict=True), strict=True))
    numbers["unlinked"] = unlinked
    bands = _one(connection, _BANDS, {**place, "write": CODES["write"], "held": CODES["held"]})
    return Changes(
        day=day,
        desired=int(unlinked[0]) + _desired(connection, day, targets),
        fields={state: int(numbers[state][0]) for state in STATES},
        accounts={state: int(numbers[state][1]) for state in STATES},
        bands=Bands(*bands),
        targets=targets,
    )


def _desired(connection: duckdb.DuckDBPyConnection, day: dt.date, targets: Targets) -> int:
    """How many values the records of accounts should show, counted without the comparison."""
    desired = 0
    shown = ", ".join(
        f"count(DISTINCT record_id) FILTER (WHERE {group}_held IS NOT NULL)" for group in GROUPS
    )
    for (crm, object), names in targets.items():
        records = _one(
            connection,
            f"SELECT {shown} FROM change_records JOIN plan.desired_accounts USING (account_id) "
            "WHERE wanted AND crm = $crm AND object = $object AND as_of = $day",
            {"crm": crm, "object": object, "day": day},
        )
        sizes = Counter(group_of(name) for name in names)
        desired += sum(int(n) * sizes[group] for n, group in zip(records, GROUPS, strict=True))
    return desired


def _check_sums(changes: Changes) -> None:
    planned = sum(changes.fields.values())
    if planned != changes.desired:
        raise HeldError(
            f"the plan of {changes.day} does not add up: {changes.desired} values are desired, "
            f"{planned} are planned",
            "an account or a record stands twice in the warehouse; run `healthloop doctor`",
        )


def _store_totals(connection: duckdb.DuckDBPyConnection, changes: Changes) -> None:
    """Replace what is stored of the day."""
    totals = {"desired": changes.desired, **asdict(changes.bands)}
    totals |= {f"fields_{state}": number for state, number in changes.fields.items()}
    totals |= {f"accounts_{state}": number for state, number in changes.accounts.items()}
    with _transaction(connection):
        for table in ("record_changes", "totals"):
            connection.execute(f"DELETE FROM plan.{table} WHERE as_of = ?", [changes.day])
        connection.executemany(
            "INSERT INTO plan.totals VALUES (?, ?, ?)",
            [(changes.day, *total) for total in totals.items()],
        )


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _has_confirmed(connection: duckdb.DuckDBPyConnection) -> bool:
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE temporary AND table_name = 'confirmed_records'"
    ).fetchone()
    return found is not None


def _one(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object] | None = None
) -> tuple[Any, ...]:
    row = connection.execute(sql, values or {}).fetchone()
    assert row is not None
    return row
