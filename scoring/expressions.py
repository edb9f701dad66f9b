"""Conditions that people write in YAML, such as ``champion_left_90d > 0 and arr >= 50000``.

They are parsed, never pasted: only comparisons, and/or/not, arithmetic, ``in``, ``between`` and
``is null`` over known names pass, and what reaches DuckDB is rendered from the parsed tree.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import expressions as sql

from contracts.documents import nearest

_ALLOWED = (
    sql.And, sql.Or, sql.Not, sql.Paren, sql.EQ, sql.NEQ, sql.GT, sql.GTE, sql.LT, sql.LTE,
    sql.In, sql.Between, sql.Is, sql.Null, sql.Boolean, sql.Literal, sql.Column, sql.Identifier,
    sql.Neg, sql.Add, sql.Sub, sql.Mul, sql.Div,
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """A parsed condition: its text, the names it reads and the SQL that DuckDB gets."""

    text: str
    names: frozenset[str]
    sql: str

    def over(self, columns: Mapping[str, str]) -> str:
        """The SQL with every name replaced by a column expression of the caller's own making.

        >>> parse_condition("seats > 5", {"seats"}).over({"seats": "s.seats"})
        's.seats > 5'
        """

        def replace(node: sql.Expression) -> sql.Expression:
            if isinstance(node, sql.Column):
                return sqlglot.parse_one(columns[node.name], dialect="duckdb")
            return node

        return sqlglot.parse_one(self.sql, dialect="duckdb").transform(replace).sql("duckdb")


def parse_condition(text: str, names: Collection[str]) -> Condition:
    """Parse a condition over known names.

    Raises:
        ValueError: "cause; remedy", when it does not parse, uses what is not allowed here, or
            names something unknown.
    """
    try:
        tree = sqlglot.parse_one(text, dialect="duckdb")
    except sqlglot.errors.SqlglotError as error:
        raise ValueError(
            f"'{text}' cannot be read as a condition; write it like `tickets_90d > 5 and arr > 1000`"
        ) from error
    for node in tree.walk():
        if not isinstance(node, _ALLOWED) or (isinstance(node, sql.Column) and node.table):
            raise ValueError(
                f"'{node.sql('duckdb')}' is not allowed in a condition; use comparisons, "
                "and, or, not, in, between, is null and arithmetic"
            )
    found = {column.name for column in tree.find_all(sql.Column)}
    for name in sorted(found - set(names)):
        raise ValueError(f"unknown name '{name}'; {nearest(name, names)}")
    if not isinstance(tree, (sql.Predicate, sql.Connector, sql.Not, sql.Paren, sql.Boolean)):
        raise ValueError(f"'{text}' is not true or false; compare it with something")
    return Condition(text, frozenset(found), tree.sql("duckdb"))


def can_hold(condition: Condition, ranges: Mapping[str, tuple[float, float]]) -> bool:
    """False when some part of an ``and`` can never be true, given the ranges its names can take.

    Only comparisons of a name with a number are judged; anything else may hold.

    >>> can_hold(parse_condition("nps > 100", {"nps"}), {"nps": (-100, 100)})
    False
    """
    return _may_hold(sqlglot.parse_one(condition.sql, dialect="duckdb"), ranges)


def _may_hold(node: sql.Expression, ranges: Mapping[str, tuple[float, float]]) -> bool:
    if isinstance(node, sql.Paren):
        return _may_hold(node.this, ranges)
    if isinstance(node, sql.And):
        return _may_hold(node.left, ranges) and _may_hold(node.right, ranges)
    if isinstance(node, sql.Or):
        return _may_hold(node.left, ranges) or _may_hold(node.right, ranges)
    if isinstance(node, sql.Boolean):
        return bool(node.this)
    if isinstance(node, (sql.GT, sql.GTE, sql.LT, sql.LTE, sql.EQ)):
        number = _number(node.expression)
        if isinstance(node.this, sql.Column) and number is not None:
            low, high = ranges.get(node.this.name, (float("-inf"), float("inf")))
            return {
                sql.GT: high > number,
                sql.GTE: high >= number,
                sql.LT: low < number,
                sql.LTE: low <= number,
                sql.EQ: low <= number <= high,
            }[type(node)]
    return True


def _number(node: sql.Expression) -> float | None:
    if isinstance(node, sql.Neg):
        inner = _number(node.this)
        return None if inner is None else -inner
    if isinstance(node, sql.Literal) and not node.is_string:
        return float(node.this)
    return None


def literal(value: object) -> str:
    """A Python value as a DuckDB literal, safely quoted.

    >>> literal("O'Neil"), literal(3), literal(None)
    ("'O''Neil'", '3', 'NULL')
    """
    return sql.convert(value).sql("duckdb")


def identifier(name: str) -> str:
    """A name as a quoted DuckDB identifier."""
    return sql.to_identifier(name, quoted=True).sql("duckdb")
