"""A table's contract as SQL: casts that never fail, and the reason why a row is refused.

Reasons name columns and rules and never hold a value, so that no free text and no personal data
leaves the source by way of the quarantine.
"""

from collections.abc import Mapping as Dict

from connectors.mapping import currencies
from connectors.quoting import literal, quoted
from contracts.tables import Column, Table

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")


def cast(column: Column, given: str | None) -> str:
    """The column as its contract's type; null where it cannot be that.

    Blank text counts as missing. Text with an offset becomes the UTC instant that it names, which
    a plain cast to TIMESTAMP would not do.
    """
    if given is None:
        return f"CAST(NULL AS {column.type})"
    raw = _raw(column, given)
    if given == column.type:
        return raw
    if column.type == "TIMESTAMP" and given == "VARCHAR":
        return f"CAST(TRY_CAST({raw} AS TIMESTAMPTZ) AS TIMESTAMP)"
    return f"TRY_CAST({raw} AS {column.type})"


def _raw(column: Column, given: str) -> str:
    name = quoted(column.name)
    if given != "VARCHAR":
        return name
    return f"nullif({name}, '')" if column.type == "VARCHAR" else f"nullif(trim({name}), '')"


def reasons(table: Table, given: Dict[str, str], *, latest: str, latest_day: str) -> str:
    """An SQL expression: why a row breaks the contract ("count: below 0; ..."), or null.

    Args:
        table: The contract.
        given: Type of each column that the mapping returns.
        latest: SQL of the last instant that a fact's time may have.
        latest_day: SQL of the last day that a fact's day may have.
    """
    rules: list[tuple[str, str]] = []
    for column in table.columns:
        if column.name in given:
            rules += _column_rules(column, given[column.name])
            if column.name in (table.time, "known_at"):
                limit = latest_day if column.type == "DATE" else latest
                rules.append(
                    (f"{cast(column, given[column.name])} > {limit}",
                     f"{column.name}: lies in the future")
                )  # fmt: skip
    broken = " OR ".join(f"({condition})" for condition, _ in rules)
    texts = ", ".join(f"CASE WHEN {rule} THEN {literal(text)} END" for rule, text in rules)
    return f"CASE WHEN {broken} THEN concat_ws('; ', {texts}) END" if rules else "NULL"


def _column_rules(column: Column, given: str) -> list[tuple[str, str]]:
    """The rules of one column, as (SQL that is true when broken, reason)."""
    raw, value, name = _raw(column, given), cast(column, given), column.name
    rules: list[tuple[str, str]] = []
    if column.required:
        rules.append((f"{raw} IS NULL", f"{name}: missing"))
    if given != column.type:
        rules.append((f"{raw} IS NOT NULL AND {value} IS NULL", f"{name}: not a {column.type}"))
    if column.type == "BIGINT" and given not in _INTEGERS:
        whole = f"{value} IS NOT NULL AND TRY_CAST({raw} AS DOUBLE) <> {value}"
        rules.append((whole, f"{name}: not a whole number"))
    if column.type == "DOUBLE":
        rules.append((f"NOT isfinite({value})", f"{name}: not a finite number"))
    if column.type == "VARCHAR":
        rules.append((f"contains({value}, chr(0))", f"{name}: holds a NUL byte"))
    if column.minimum is not None:
        rules.append((f"{value} < {column.minimum:g}", f"{name}: below {column.minimum:g}"))
    if column.maximum is not None:
        rules.append((f"{value} > {column.maximum:g}", f"{name}: above {column.maximum:g}"))
    if column.values:
        allowed = ", ".join(literal(item) for item in column.values)
        reason = f"{name}: not one of {', '.join(column.values)}"
        rules.append((f"{value} NOT IN ({allowed})", reason))
    if column.is_currency:
        known = ", ".join(literal(code) for code in currencies())
        rules.append((f"{value} NOT IN ({known})", f"{name}: not an ISO 4217 code"))
    return rules


def row_key(table: Table, given: Dict[str, str]) -> str:
    """An SQL expression that names a row to a person: its key, '?' for what is missing."""
    parts = [
        f"coalesce(replace(CAST({quoted(name)} AS VARCHAR), chr(0), '?'), '?')"
        if name in given
        else "'?'"
        for name in table.key
    ]
    return f"left(concat_ws('/', {', '.join(parts)}), 200)"
