"""Reading a mapping: one SELECT that turns a source's raw streams into a canonical table.

A mapping may use everything DuckDB's SQL offers, and these macros (all times come out as naive
UTC timestamps):

======================  ==========================================================================
``local_day(ts)``       the day of an instant in the company's time zone
``local_day_end(day)``  the instant at which a day of the company is over
``utc(ts, zone)``       a wall-clock time of `zone` as an instant: ``utc(ended, 'Europe/Berlin')``
``utc_text(text)``      ISO text, with or without an offset: ``utc_text('2026-01-01T09:00+02:00')``
``from_epoch(n)``       seconds since 1970, as delivered by many APIs
``from_epoch_ms(n)``    milliseconds since 1970
``money(minor, iso)``   minor units as an amount: ``money(1999, 'EUR')`` is 19.99, yen stay whole
``text_or_null(text)``  trimmed text; blank is null
======================  ==========================================================================

A mapping is *row-wise* when each of its rows follows from one raw row of one stream. Then only
new files are read. Everything else (aggregates, windows, DISTINCT, joins of streams) is computed
over the latest state of its streams.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from babel.numbers import get_currency_precision, list_currencies
from sqlglot import exp

from contracts.documents import nearest
from contracts.errors import Problem

_READS_CLOCK = {"now", "today", "random", "uuid", "gen_random_uuid", "get_current_timestamp"}
_COUNTED_ROWS = (
    exp.AggFunc, exp.Window, exp.Distinct, exp.Limit, exp.Offset, exp.Fetch, exp.Group,
    exp.TableSample, exp.Except, exp.Intersect,
)  # fmt: skip


@dataclass(frozen=True)
class Mapping:
    """A mapping as read: its text, the streams and raw columns it uses, and how it can run."""

    source: str
    table: str
    file: Path
    text: str
    streams: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    row_wise: bool

    def problem(self, cause: str, remedy: str, line: int = 1) -> Problem:
        """A problem in this mapping's file."""
        return Problem(self.file, line, cause, remedy)


def currencies() -> tuple[str, ...]:
    """All ISO 4217 codes, past and present."""
    return tuple(sorted(list_currencies()))


def macros(time_zone: str) -> list[str]:
    """The statements that create the macros of this module's docstring."""
    odd = {
        digits: [code for code in currencies() if get_currency_precision(code) == digits]
        for digits in (0, 3)
    }
    quoted = {d: ", ".join(f"'{code}'" for code in codes) for d, codes in odd.items()}
    zone = time_zone.replace("'", "''")
    midnight = "CAST(day + 1 AS TIMESTAMP)"
    if time_zone != "UTC":  # spares a calendar computation for each row
        midnight = f"timezone('UTC', timezone('{zone}', {midnight}))"
    return [
        "CREATE OR REPLACE MACRO local_day(ts) AS "
        f"CAST(timezone('{zone}', CAST(ts AS TIMESTAMPTZ)) AS DATE)",
        f"CREATE OR REPLACE MACRO local_day_end(day) AS {midnight}",
        "CREATE OR REPLACE MACRO utc(ts, zone) AS "
        "timezone('UTC', timezone(zone, CAST(ts AS TIMESTAMP)))",
        "CREATE OR REPLACE MACRO utc_text(t) AS timezone('UTC', TRY_CAST(t AS TIMESTAMPTZ))",
        "CREATE OR REPLACE MACRO from_epoch(n) AS make_timestamp("
        "CAST(CAST(n AS DECIMAL(24,6)) * 1000000 AS BIGINT))",
        "CREATE OR REPLACE MACRO from_epoch_ms(n) AS make_timestamp("
        "CAST(CAST(n AS DECIMAL(24,6)) * 1000 AS BIGINT))",
        "CREATE OR REPLACE MACRO money(minor, iso) AS CAST(CASE "
        f"WHEN iso IN ({quoted[0]}) THEN CAST(minor AS DECIMAL(24,3)) "
        f"WHEN iso IN ({quoted[3]}) THEN CAST(minor AS DECIMAL(24,3)) / 1000 "
        "ELSE CAST(minor AS DECIMAL(24,3)) / 100 END AS DECIMAL(18,2))",
        "CREATE OR REPLACE MACRO text_or_null(t) AS nullif(trim(CAST(t AS VARCHAR)), '')",
    ]


def read_mapping(
    source: str,
    table: str,
    file: Path,
    text: str,
    streams: Iterable[tuple[str, str]],
    aggregates: Iterable[str] = (),
) -> tuple[Mapping | None, list[Problem]]:
    """Parse one mapping and check what can be known without data.

    Args:
        source: Name of the source that the mapping stands in.
        table: The canonical table it fills.
        file: The SQL file.
        text: Its content, as it will run.
        streams: All declared streams as (source, stream); SQL reads ``raw_<source>.<stream>``.
        aggregates: Names of the engine's aggregate functions, beside those sqlglot knows.

    Returns:
        The mapping and no problem, or None and all problems.
    """
    text = text.strip().rstrip(";")
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect="duckdb") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        line = _line_of(error)
        return None, [Problem(file, line, "not valid SQL", "correct the syntax near this line")]
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        return None, [Problem(file, 1, "not a single SELECT", "write one SELECT or WITH")]
    tree = trees[0]
    used, problems = _raw_tables(tree, source, file, text, set(streams))
    problems += _not_repeatable(tree, file)
    if problems:
        return None, problems
    columns = tuple(sorted({column.name for column in tree.find_all(exp.Column)} - {"*"}))
    row_wise = len(used) == 1 and _is_row_wise(tree, frozenset(aggregates))
    return Mapping(source, table, file, text, tuple(sorted(used)), columns, row_wise), []


def _line_of(error: sqlglot.errors.SqlglotError) -> int:
    details = getattr(error, "errors", None) or []
    if details and details[0].get("line"):
        return int(details[0]["line"])
    match = re.search(r"[Ll]ine (\d+)", str(error))
    return int(match.group(1)) if match else 1


def line_containing(text: str, word: str) -> int:
    """The first line on which a word stands, or 1."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(rf"\b{re.escape(word)}\b", line):
            return number
    return 1


def _raw_tables(
    tree: exp.Expr, source: str, file: Path, text: str, streams: set[tuple[str, str]]
) -> tuple[set[tuple[str, str]], list[Problem]]:
    """The streams a mapping reads; everything else that it reads is a mistake."""
    known = {f"raw_{owner}.{name}": (owner, name) for owner, name in streams}
    used, problems = set(), []
    own = {cte.alias for cte in tree.find_all(exp.CTE)}
    for node in tree.find_all(exp.Table):
        if not isinstance(node.this, exp.Identifier):
            problems += _not_a_stream(node, file, text)
            continue
        if not node.db and node.name in own:
            continue
        name = f"{node.db}.{node.name}" if node.db else node.name
        if name.lower() in known:
            used.add(known[name.lower()])
        else:
            near = nearest(name if node.db else f"raw_{source}.{name}", known)
            line = line_containing(text, node.name)
            problems.append(Problem(file, line, f"unknown stream '{name}'", near))
    if not used and not problems:
        remedy = f"select from raw_{source}.<stream>"
        problems.append(Problem(file, 1, "reads no stream of a source", remedy))
    return used, problems


def _not_a_stream(node: exp.Table, file: Path, text: str) -> list[Problem]:
    """A table function is fine when it only unfolds values, not when it reads files."""
    called = node.this
    name = called.name if isinstance(called, exp.Anonymous) else called.sql_name()
    if name.lower() in {"unnest", "explode", "generate_series", "generateseries", "range"}:
        return []
    cause = f"'{name.lower()}' reads something that is not in the lake"
    remedy = "declare it as a stream, so that the warehouse can be rebuilt"
    return [Problem(file, line_containing(text, name.lower()), cause, remedy)]


def _not_repeatable(tree: exp.Expr, file: Path) -> list[Problem]:
    """A mapping that reads a clock or a die gives other rows when the warehouse is rebuilt."""
    clocks = (exp.CurrentDate, exp.CurrentTimestamp, exp.CurrentTime, exp.Rand, exp.Uuid)
    found = any(
        isinstance(node, clocks)
        or (isinstance(node, exp.Anonymous) and node.name.lower() in _READS_CLOCK)
        for node in tree.walk()
    )
    if not found:
        return []
    remedy = "use times of the data, or _loaded_at"
    return [Problem(file, 1, "the result depends on the clock or on chance", remedy)]


def _is_row_wise(tree: exp.Expr, aggregates: frozenset[str]) -> bool:
    """True when each output row follows from one raw row alone (see the module's docstring)."""
    for node in tree.walk():
        if isinstance(node, _COUNTED_ROWS):
            return False
        if isinstance(node, exp.Union) and node.args.get("distinct"):
            return False
        if isinstance(node, exp.Join) and node.side in ("RIGHT", "FULL"):
            return False
        if isinstance(node, exp.Anonymous) and node.name.lower() in aggregates:
            return False
    return all(_stands_in_from(node) for node in _tables_of_rows(tree))


def _tables_of_rows(tree: exp.Expr) -> list[exp.Table]:
    """References to raw streams and to the CTEs that are made of them."""
    tables = list(tree.find_all(exp.Table))
    rows = {id(node): node for node in tables if node.db}
    names: set[str] = set()
    grown = True
    while grown:
        grown = False
        for node in tables:
            if id(node) not in rows and not node.db and node.name in names:
                rows[id(node)] = node
                grown = True
        for node in list(rows.values()):
            cte = node.find_ancestor(exp.CTE)
            if cte is not None and cte.alias not in names:
                names.add(cte.alias)
                grown = True
    return list(rows.values())


def _stands_in_from(node: exp.Expr) -> bool:
    """True when a table is only reached through FROM clauses, CTEs and UNION ALL."""
    previous, parent = node, node.parent
    while parent is not None:
        if isinstance(parent, exp.Select) and not isinstance(previous, (exp.From, exp.With)):
            return False
        if isinstance(parent, (exp.Table, exp.Subquery, exp.From, exp.CTE, exp.With, exp.Query)):
            previous, parent = parent, parent.parent
            continue
        return False
    return True
