"""Conditions that people write in YAML, such as ``champion_left_90d > 0 and arr >= 50000``.

They are parsed, never pasted: only comparisons, and/or/not, arithmetic, ``in``, ``between`` and
``is null`` over known names pass, and what reaches DuckDB is rendered from the parsed tree. Both
sides of a comparison must be of one kind, so that no condition can fail on a customer's data.
"""

import datetime as dt
import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import expressions as sql

from contracts.documents import nearest

_ALLOWED = (
    sql.And, sql.Or, sql.Not, sql.Paren, sql.EQ, sql.NEQ, sql.GT, sql.GTE, sql.LT, sql.LTE,
    sql.In, sql.Between, sql.Is, sql.Null, sql.Boolean, sql.Literal, sql.Column, sql.Identifier,
    sql.Neg, sql.Add, sql.Sub, sql.Mul, sql.Div,
)  # fmt: skip

_COMPARISONS = (sql.EQ, sql.NEQ, sql.GT, sql.GTE, sql.LT, sql.LTE)
_ARITHMETIC = (sql.Add, sql.Sub, sql.Mul, sql.Div)

NUMBER, TEXT, DAY, TRUTH, NOTHING = "a number", "a text", "a day", "true or false", "null"

_MIRRORED: dict[type[sql.Expr], type[sql.Expr]] = {
    sql.GT: sql.LT, sql.LT: sql.GT, sql.GTE: sql.LTE, sql.LTE: sql.GTE,
}  # fmt: skip

Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)


@dataclass(frozen=True)
class Condition:
    """A parsed condition: its text, the names it reads and the SQL that DuckDB gets.

    `null_names` are the names that it asks ``is null`` of.
    """

    text: str
    names: frozenset[str]
    sql: str
    null_names: frozenset[str] = frozenset()

    def over(self, columns: Mapping[str, str]) -> str:
        """The SQL with every name replaced by a column expression of the caller's own making.

        >>> parse_condition("seats > 5", {"seats"}).over({"seats": "s.seats"})
        's.seats > 5'
        """

        def replace(node: sql.Expr) -> sql.Expr:
            if isinstance(node, sql.Column):
                return sqlglot.parse_one(columns[node.name], dialect="duckdb")
            return node

        return sqlglot.parse_one(self.sql, dialect="duckdb").transform(replace).sql("duckdb")

    @property
    def alternatives(self) -> list["Condition"]:
        """The conditions of which one at least has to hold; itself where it is not an ``or``.

        >>> [one.sql for one in parse_condition("a > 1 or b > 2 and c = 3", "abc").alternatives]
        ['a > 1', 'b > 2 AND c = 3']
        """
        tree = sqlglot.parse_one(self.sql, dialect="duckdb").unnest()
        if not isinstance(tree, sql.Or):
            return [self]
        return [
            Condition(
                part.sql("duckdb"),
                frozenset(column.name for column in part.find_all(sql.Column)),
                part.sql("duckdb"),
            )
            for part in tree.flatten()
        ]


def parse_condition(
    text: str, names: Collection[str], kinds: Mapping[str, str] | None = None
) -> Condition:
    """Parse a condition over known names.

    A comparison such as ``active_days_28d.change`` may stand in double quotes or without.

    Args:
        text: what somebody wrote.
        names: every name that may stand in it.
        kinds: what a name is (`NUMBER`, `TEXT`, `DAY`, `TRUTH`); a number where it is not given.

    Raises:
        ValueError: "cause; remedy", when it does not parse, uses what is not allowed here, names
            something unknown, or compares what cannot be compared.
    """
    tree = _undotted(_parse(text))
    for node in tree.walk():
        _check_allowed(node)
    found = {column.name for column in tree.find_all(sql.Column)}
    for name in sorted(found - set(names)):
        raise ValueError(f"unknown name '{name}'; {nearest(name, names)}")
    if _kind(tree, kinds or {}) != TRUTH:
        raise ValueError(f"'{text}' is not true or false; compare it with something")
    nulls = {c.name for node in tree.find_all(sql.Is) for c in node.find_all(sql.Column)}
    rendered = tree.sql("duckdb", comments=False)
    return Condition(text, frozenset(found), rendered, frozenset(nulls))


def _parse(text: str) -> sql.Expr:
    try:
        statements = sqlglot.parse(text, dialect="duckdb")
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise ValueError(_unreadable(text)) from error
    if len(statements) != 1 or statements[0] is None:
        raise ValueError(_unreadable(text))
    return statements[0]


def _unreadable(text: str) -> str:
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return (
        f"'{shown}' cannot be read as a condition; write it like `tickets_90d > 5 and arr > 1000`"
    )


def _undotted(tree: sql.Expr) -> sql.Expr:
    """``usage.change`` is the name of a comparison, not a column of a table."""

    def join(node: sql.Expr) -> sql.Expr:
        if isinstance(node, sql.Column) and node.table and not node.args.get("db"):
            return sql.column(f"{node.table}.{node.name}", quoted=True)
        return node

    return tree.transform(join)


def _check_allowed(node: sql.Expr) -> None:
    known = isinstance(node, _ALLOWED) and not (isinstance(node, sql.Column) and node.table)
    # `x in y` parses, but a list is what people mean; a quoted number such as 1e999 is no number.
    if isinstance(node, sql.In) and not node.expressions:
        known = False
    if isinstance(node, sql.Literal) and not node.is_string and not _is_finite(node.this):
        known = False
    if not known:
        raise ValueError(
            f"'{node.sql('duckdb', comments=False)}' is not allowed in a condition; use "
            "comparisons, and, or, not, in, between, is null and arithmetic"
        )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and len(text) <= 30
    except ValueError:
        return False


# What may be compared with what


def _kind(node: sql.Expr, kinds: Mapping[str, str]) -> str:
    """What a node is; raises ValueError where its parts do not go together."""
    if isinstance(node, sql.Paren):
        return _kind(node.this, kinds)
    if isinstance(node, sql.Column):
        return kinds.get(node.name, NUMBER)
    if isinstance(node, sql.Literal):
        return TEXT if node.is_string else NUMBER
    if isinstance(node, sql.Boolean):
        return TRUTH
    if isinstance(node, (sql.And, sql.Or)):
        return _all_of(node, [node.left, node.right], TRUTH, kinds)
    if isinstance(node, sql.Not):
        return _all_of(node, [node.this], TRUTH, kinds)
    if isinstance(node, sql.Is):
        return _kind_of_is(node, kinds)
    if isinstance(node, sql.Neg):
        return _all_of(node, [node.this], NUMBER, kinds)
    if isinstance(node, _ARITHMETIC):
        return _kind_of_arithmetic(node, kinds)
    if isinstance(node, _COMPARISONS):
        return _compared(node, [node.left, node.right], kinds)
    if isinstance(node, sql.Between):
        return _compared(node, [node.this, node.args["low"], node.args["high"]], kinds)
    if isinstance(node, sql.In):
        return _compared(node, [node.this, *node.expressions], kinds)
    return NOTHING


def _all_of(
    node: sql.Expr, parts: Collection[sql.Expr], kind: str, kinds: Mapping[str, str]
) -> str:
    for part in parts:
        if _kind(part, kinds) != kind:
            raise ValueError(
                f"'{part.sql('duckdb')}' is not {kind} in '{node.sql('duckdb')}'; "
                "compare it with something"
            )
    return kind


def _kind_of_is(node: sql.Is, kinds: Mapping[str, str]) -> str:
    kind = _kind(node.this, kinds)
    if isinstance(node.expression, sql.Null) or kind == TRUTH:
        return TRUTH
    raise ValueError(f"'{node.sql('duckdb')}' cannot be compared; write `is null` or `= ...`")


def _kind_of_arithmetic(node: sql.Expr, kinds: Mapping[str, str]) -> str:
    left, right = _kind(node.args["this"], kinds), _kind(node.args["expression"], kinds)
    if left == right == NUMBER:
        return NUMBER
    if isinstance(node, sql.Sub) and left == right == DAY:
        return NUMBER
    raise ValueError(f"'{node.sql('duckdb')}' cannot be computed; use numbers")


def _compared(node: sql.Expr, parts: list[sql.Expr], kinds: Mapping[str, str]) -> str:
    found = [_kind(part, kinds) for part in parts]
    if DAY in found:
        found = [DAY if _is_day(part) else kind for part, kind in zip(parts, found, strict=True)]
    if len(set(found)) > 1 or NOTHING in found:
        first, other = found[0], next((kind for kind in found if kind != found[0]), found[0])
        remedy = "write a day like '2026-01-31'" if DAY in found else "compare like with like"
        remedy = "write `is null`" if NOTHING in found else remedy
        raise ValueError(f"'{node.sql('duckdb')}' compares {first} with {other}; {remedy}")
    return TRUTH


def _is_day(node: sql.Expr) -> bool:
    if not (isinstance(node, sql.Literal) and node.is_string):
        return False
    try:
        return dt.date.fromisoformat(node.this).isoformat() == node.this
    except ValueError:
        return False


# Whether a condition can ever hold


def can_hold(condition: Condition, ranges: Mapping[str, Interval]) -> bool:
    """False when a condition can never be true, given the ranges its names can take.

    Only comparisons of a name with numbers are judged; anything else may hold.

    >>> can_hold(parse_condition("nps > 100", {"nps"}), {"nps": (-100, 100)})
    False
    >>> can_hold(parse_condition("nps > 5 and nps < 3", {"nps"}), {})
    False
    """
    return _may_hold(sqlglot.parse_one(condition.sql, dialect="duckdb"), ranges)


def _may_hold(node: sql.Expr, ranges: Mapping[str, Interval]) -> bool:
    if isinstance(node, sql.Paren):
        return _may_hold(node.this, ranges)
    if isinstance(node, sql.Or):
        return _may_hold(node.left, ranges) or _may_hold(node.right, ranges)
    if isinstance(node, sql.Boolean):
        return bool(node.this)
    if isinstance(node, sql.And):
        parts = _conjuncts(node)
        return all(_may_hold(part, ranges) for part in parts) and _together(parts, ranges)
    compared = _interval(node)
    return compared is None or _meet(ranges.get(compared[0], EVERYTHING), compared[1]) is not None


def _conjuncts(node: sql.Expr) -> list[sql.Expr]:
    if isinstance(node, sql.Paren):
        return _conjuncts(node.this)
    if isinstance(node, sql.And):
        return [*_conjuncts(node.left), *_conjuncts(node.right)]
    return [node]


def _together(parts: Collection[sql.Expr], ranges: Mapping[str, Interval]) -> bool:
    """Whether the comparisons of one name in an ``and`` leave anything over."""
    left = dict(ranges)
    for part in parts:
        compared = _interval(part)
        if compared:
            name, interval = compared
            met = _meet(left.get(name, EVERYTHING), interval)
            if met is None:
                return False
            left[name] = met
    return True


def _meet(one: Interval, other: Interval) -> Interval | None:
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low <= high else None


def _interval(node: sql.Expr) -> tuple[str, Interval] | None:
    """The name and the numbers for which a comparison with a number holds, both ends included.

    ``x > 5`` begins at the next number after 5, so that open ends need no other treatment.
    """
    if isinstance(node, sql.Between):
        low, high = _number(node.args["low"]), _number(node.args["high"])
        if isinstance(node.this, sql.Column) and low is not None and high is not None:
            return node.this.name, (low, high)
        return None
    if not isinstance(node, _COMPARISONS) or isinstance(node, sql.NEQ):
        return None
    operator: type[sql.Expr] = type(node)
    name, number = node.left, _number(node.right)
    if number is None:
        name, number, operator = node.right, _number(node.left), _MIRRORED.get(operator, operator)
    if not isinstance(name, sql.Column) or number is None:
        return None
    intervals: dict[type[sql.Expr], Interval] = {
        sql.GT: (math.nextafter(number, math.inf), math.inf),
        sql.GTE: (number, math.inf),
        sql.LT: (-math.inf, math.nextafter(number, -math.inf)),
        sql.LTE: (-math.inf, number),
        sql.EQ: (number, number),
    }
    return name.name, intervals[operator]


def _number(node: sql.Expr) -> float | None:
    if isinstance(node, sql.Paren):
        return _number(node.this)
    if isinstance(node, sql.Neg):
        inner = _number(node.this)
        return None if inner is None else -inner
    if isinstance(node, sql.Literal) and not node.is_string:
        return float(node.this)
    return None


@lru_cache(maxsize=50_000, typed=True)
def literal(value: Hashable) -> str:
    """A Python value as a DuckDB literal, safely quoted.

    >>> literal("O'Neil"), literal(3), literal(None)
    ("'O''Neil'", '3', 'NULL')
    """
    return sql.convert(value).sql("duckdb")


@lru_cache(maxsize=50_000)
def identifier(name: str) -> str:
    """A name as a quoted DuckDB identifier."""
    return sql.to_identifier(name, quoted=True).sql("duckdb")
