"""The part of HogQL that the PostHog sandbox understands, checked strictly and run by DuckDB.

An unknown table, column or function is refused as PostHog refuses it. Days are pushed down: of
`WHERE timestamp >= toDateTime('...')` the bounds are also given to the macro that unfolds events.
"""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import sqlglot
from sqlglot import exp

DEFAULT_ROWS = 100
MOST_ROWS = 50_000

TABLES = {
    "events": frozenset(
        ["uuid", "event", "properties", "timestamp", "distinct_id", "created_at", "person_id",
         *(f"$group_{index}" for index in range(5))]
    ),
    "groups": frozenset(["index", "key", "properties", "created_at", "updated_at"]),
}  # fmt: skip

_AGGREGATES = {"count", "uniq", "sum", "min", "max", "avg", "argMax"}
_CONVERSIONS = {"toDate", "toDateTime", "toTimeZone", "toString", "toFloat", "toInt"}
_KNOWN_NODES = (
    exp.Select, exp.Subquery, exp.From, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered,
    exp.Limit, exp.Offset, exp.Alias, exp.TableAlias, exp.Table, exp.Identifier, exp.Column,
    exp.Literal, exp.Null, exp.Boolean, exp.Tuple, exp.Paren, exp.In, exp.Not, exp.Neg, exp.Is,
    exp.Between, exp.Connector, exp.Predicate, exp.Window, exp.Star, exp.Distinct,
    exp.Add, exp.Sub, exp.Mul, exp.Div,
)  # fmt: skip


class HogQLError(Exception):
    """A query that PostHog answers with 400, and what it says."""


@dataclass(frozen=True)
class Translated:
    """A query for DuckDB: the same rows, without a limit of its own."""

    sql: str
    limit: int


def translate(hogql: str, time_zone: str, first_day: dt.date, end_day: dt.date) -> Translated:
    """Check a HogQL query and write it for DuckDB.

    Args:
        time_zone: The project's, in which PostHog shows and reads times.
        first_day: The first day with events, where the query sets no bound.
        end_day: The day after the last one.

    Raises:
        HogQLError: PostHog would not accept it.
    """
    try:
        statements = sqlglot.parse(hogql, dialect="clickhouse")
    except sqlglot.errors.SqlglotError:
        raise HogQLError("The query is not valid HogQL: syntax error") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise HogQLError("The query must be one SELECT statement")
    query = statements[0]
    _refuse_unknown_nodes(query)
    limit = _limit(query)
    # Inner queries first, since the outer ones name their columns.
    for select in reversed(list(query.find_all(exp.Select))):
        _Scope(select, ZoneInfo(time_zone), first_day, end_day).rewrite()
    return Translated(query.sql(dialect="duckdb"), limit)


def _limit(query: exp.Select) -> int:
    """The outer LIMIT, capped silently; 100 where there is none."""
    limit = query.args.get("limit")
    query.set("limit", None)
    if limit is None:
        return DEFAULT_ROWS
    if not isinstance(limit, exp.Limit) or not limit.expression.is_int:
        raise HogQLError("LIMIT must be a whole number")
    return min(int(limit.expression.name), MOST_ROWS)


def _refuse_unknown_nodes(query: exp.Select) -> None:
    for node in query.walk():
        if isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
            name = _function_name(node)
            if name not in _AGGREGATES | _CONVERSIONS | {"if"}:
                raise HogQLError(f"Unsupported function call '{name}(...)'")
        elif not isinstance(node, _KNOWN_NODES):
            raise HogQLError(f"Unsupported expression: {type(node).__name__}")


def _function_name(node: exp.Func) -> str:
    if isinstance(node, exp.ApproxDistinct):
        return "uniq"
    if isinstance(node, exp.ArgMax):
        return "argMax"
    return node.name if isinstance(node, exp.Anonymous) else node.sql_name().lower()


class _Scope:
    """One SELECT: what its names may be, and how its expressions are written for DuckDB."""

    def __init__(
        self, select: exp.Select, zone: ZoneInfo, first_day: dt.date, end_day: dt.date
    ) -> None:
        self.select, self.zone = select, zone
        self.first_day, self.end_day = first_day, end_day
        self.source = self._source()
        self.fields = self._fields()
        self.aliases = {e.alias for e in select.expressions if isinstance(e, exp.Alias)}

    def rewrite(self) -> None:
        """Bring the SELECT into DuckDB's dialect, in place."""
        for column in [
            c for c in self.select.find_all(exp.Column) if c.parent_select is self.select
        ]:
            column.replace(self._column(column))
        self._narrow_days()
        functions = [f for f in self.select.find_all(exp.Func) if f.parent_select is self.select]
        for function in reversed(functions):  # the innermost first
            if not isinstance(function, exp.Connector):
                function.replace(self._function(function))

    def _source(self) -> exp.Table | exp.Subquery:
        clause = self.select.args.get("from_")
        if clause is None or not isinstance(clause.this, exp.Table | exp.Subquery):
            raise HogQLError("The query selects from no table")
        if isinstance(clause.this, exp.Table) and clause.this.name not in TABLES:
            raise HogQLError(f"Unknown table `{clause.this.name}`.")
        source: exp.Table | exp.Subquery = clause.this
        return source

    def _fields(self) -> frozenset[str]:
        if isinstance(self.source, exp.Table):
            return TABLES[self.source.name]
        return frozenset(e.alias_or_name for e in self.source.this.expressions)

    def _column(self, column: exp.Column) -> exp.Expr:
        """A field, a property of a JSON field, or an alias."""
        chain = [part.name for part in column.parts]
        if len(chain) > 1 and chain[0] == self.source.alias_or_name:
            chain = chain[1:]
        if chain[0] not in self.fields | self.aliases:
            raise HogQLError(f"Unable to resolve field: {chain[0]}")
        field = exp.column(exp.to_identifier(chain[0], quoted=True))
        if len(chain) == 1:
            return field
        if chain[0] != "properties" or len(chain) > 2:
            raise HogQLError(f"Cannot access property of field: {'.'.join(chain)}")
        path = chain[1].replace('"', '\\"')
        return exp.Anonymous(
            this="json_extract_string", expressions=[field, exp.Literal.string(f'$."{path}"')]
        )

    def _narrow_days(self) -> None:
        """Read from the macro that unfolds the events of the days between the query's bounds."""
        if not isinstance(self.source, exp.Table):
            return
        name, first, end = self.source.name, self.first_day, self.end_day
        where = self.select.args.get("where")
        for condition in where.this.flatten() if where and name == "events" else ():
            bound = self._bound(condition)
            if bound and isinstance(condition, exp.GTE | exp.GT):
                first = max(first, bound.date())
            elif bound and isinstance(condition, exp.LTE | exp.LT):
                end = min(end, bound.date() + dt.timedelta(days=1))
        alias = self.source.alias_or_name
        days = [exp.cast(exp.Literal.string(str(day)), "DATE") for day in (first, end)]
        called = exp.Anonymous(this=f"posthog_{name}", expressions=days if name == "events" else [])
        self.source.replace(exp.alias_(exp.Table(this=called), alias, table=True))

    def _bound(self, condition: exp.Expr) -> dt.datetime | None:
        """The instant that `timestamp` is compared with, where it is a constant."""
        if not isinstance(condition, exp.Binary) or condition.this.name != "timestamp":
            return None
        constant = condition.expression
        if isinstance(constant, exp.Anonymous) and constant.name == "toDateTime":
            return self._instant(constant)
        return None

    def _function(self, function: exp.Func) -> exp.Expr:
        name = _function_name(function)
        if name == "uniq":
            return exp.Count(this=exp.Distinct(expressions=[function.this]))
        if not isinstance(function, exp.Anonymous) or name not in _CONVERSIONS:
            return function
        if name == "toDateTime":
            return exp.cast(exp.Literal.string(self._instant(function).isoformat()), "TIMESTAMPTZ")
        if not function.expressions:
            raise HogQLError(f"Function '{name}' expects an argument")
        given, *more = function.expressions
        if len(more) != (name == "toTimeZone"):
            raise HogQLError(f"Function '{name}' expects another number of arguments")
        if name == "toTimeZone":
            if not isinstance(function.parent, exp.Anonymous) or function.parent.name != "toDate":
                raise HogQLError("The sandbox knows toTimeZone within toDate, nowhere else")
            return exp.Anonymous(this="timezone", expressions=[*more, given])
        if name == "toDate" and isinstance(given, exp.Column):  # an instant: the project's day
            zone = exp.Literal.string(self.zone.key)
            given = exp.Anonymous(this="timezone", expressions=[zone, given])
        kind = {"toDate": "DATE", "toString": "TEXT", "toFloat": "DOUBLE", "toInt": "BIGINT"}[name]
        return exp.TryCast(this=given, to=exp.DataType.build(kind, dialect="duckdb"))

    def _instant(self, function: exp.Anonymous) -> dt.datetime:
        """The constant in `toDateTime('...')`; in the project's zone where it names none."""
        given = function.expressions[0] if len(function.expressions) == 1 else None
        if given is None or not given.is_string:
            raise HogQLError("The sandbox converts constant text with toDateTime, nothing else")
        try:
            instant = dt.datetime.fromisoformat(given.name)
        except ValueError:
            raise HogQLError(f"Cannot parse datetime: {given.name}") from None
        return (instant if instant.tzinfo else instant.replace(tzinfo=self.zone)).astimezone(dt.UTC)
