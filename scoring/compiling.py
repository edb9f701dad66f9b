"""From the metrics of one table to the SQL that computes them in one pass over its rows."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from contracts.tables import MONEY, TABLES
from scoring.clocks import AsOf, Clock
from scoring.config.metrics import DAY_COUNTS, Filter, Metric
from scoring.expressions import identifier, literal
from scoring.sql import render

HOLD_DAYS = 7
"""How long the last good values of a failing source are held where no `stale_after` says it."""

LONGEST_BIT_WINDOW_DAYS = 120
"""Distinct days of a window up to this long are counted in the bits of one 128-bit number."""


def aggregate_sql(
    table: str,
    metrics: Mapping[str, Metric],
    *,
    previous: Collection[str],
    clocks: Sequence[Clock],
    as_of: AsOf,
) -> str:
    """The SQL that makes the temporary table `aggregated`: one row an account, in one pass.

    Args:
        table: a canonical table.
        metrics: its metrics by name; each becomes a column.
        previous: those of which the window before is needed too, as ``<name>.previous``.
        clocks: how far each source of the table can be trusted.
        as_of: the day.
    """
    compiler = _Compiler(table, as_of, clocks)
    columns: list[str] = []
    windows: list[int | None] = []
    for name, metric in metrics.items():
        columns += compiler.columns(name, metric, with_previous=name in previous)
        windows.append(metric.window and metric.window * (2 if name in previous else 1))
    first_day = None
    if all(windows):
        reach = max(window for window in windows if window)
        ends = [clock.end(continuous=True) for clock in clocks]
        first_day = min([*ends, as_of.day]) - dt.timedelta(days=reach)
    return render(
        "aggregate.sql",
        table=table,
        columns=columns,
        read=compiler.read_columns(metrics),
        first_day=literal(first_day) if first_day else None,
        last_day=literal(as_of.day),
        instant=timestamp(as_of.instant),
        known_until=compiler.known_until(),
        money=any(is_money(metric) for metric in metrics.values()),
        currency=literal(as_of.currency),
    )


def measure_sql(
    table: str,
    metrics: Mapping[str, Metric],
    *,
    previous: Collection[str],
    clocks: Sequence[Clock],
    as_of: AsOf,
) -> str:
    """The SQL that turns `aggregated` into rows of `measured`, each with its state."""
    entries: list[dict[str, Any]] = [
        {
            "name": literal(name),
            "value": identifier(name),
            "previous": identifier(name + ".previous") if name in previous else None,
            "no_rate": identifier(name + ".no_rate") if is_money(metric) else None,
            "previous_no_rate": identifier(name + ".previous.no_rate")
            if is_money(metric) and name in previous
            else None,
            "zero_when_empty": literal(metric.zero_when_empty),
            "stale_after": f"{literal(metric.stale_after)}::INTEGER",
            "window_days": f"{literal(metric.window)}::INTEGER",
            "low": double(metric.possible_range[0]),
            "high": double(metric.possible_range[1]),
        }
        for name, metric in metrics.items()
    ]
    return render(
        "measure.sql",
        metrics=entries,
        clocks=[_clock_row(clock, as_of) for clock in clocks],
        day=literal(as_of.day),
        hold_days=HOLD_DAYS,
    )


def _clock_row(clock: Clock, as_of: AsOf) -> str:
    lag_days = (as_of.day - clock.newest_day).days if clock.newest_day else None
    held_days = (as_of.day - clock.good_until).days
    numbers = (f"{literal(n)}::INTEGER" for n in (lag_days, held_days, clock.history_days))
    return f"({literal(clock.source)}, {', '.join(numbers)}, {literal(clock.suspect)})"


def is_money(metric: Metric) -> bool:
    """Whether a metric is an amount that has to be converted to the company's currency."""
    columns = TABLES[metric.table].by_name if metric.table else {}
    return (
        metric.column in columns
        and columns[metric.column].type == MONEY
        and metric.function != "count_distinct"
    )


class _Compiler:
    """Turns the metrics of one table into aggregate expressions over its rows, `s`."""

    def __init__(self, table: str, as_of: AsOf, clocks: Sequence[Clock]) -> None:
        self.table = TABLES[table]
        self.as_of = as_of
        self.clocks = clocks

    def _by_source(self, values: Mapping[str, str], otherwise: str) -> str:
        """One SQL value for all rows, or one for each source where they differ."""
        different = {source: value for source, value in values.items() if value != otherwise}
        if not different:
            return otherwise
        if set(values) == set(different) and len({*different.values()}) == 1:
            return next(iter(different.values()))
        cases = " ".join(f"WHEN {literal(s)} THEN {value}" for s, value in different.items())
        return f"(CASE source {cases} ELSE {otherwise} END)"

    def end(self, *, continuous: bool) -> str:
        """The SQL of the day on which a row's windows end."""
        ends = {clock.source: literal(clock.end(continuous=continuous)) for clock in self.clocks}
        return self._by_source(ends, literal(self.as_of.day))

    def known_until(self) -> str:
        """The SQL of the instant after which a row does not count: earlier for a failing source."""
        instants = {clock.source: timestamp(clock.known_until) for clock in self.clocks}
        return self._by_source(instants, timestamp(self.as_of.instant))

    def _over_at(self) -> str:
        """The SQL of the instant at which the last day of a row's source is over."""
        instants = {
            clock.source: timestamp(
                self.as_of.instant
                if clock.good_until == self.as_of.day
                else self.as_of.end_of(clock.good_until)
            )
            for clock in self.clocks
        }
        return self._by_source(instants, timestamp(self.as_of.instant))

    def read_columns(self, metrics: Mapping[str, Metric]) -> list[str]:
        """The columns that the metrics read, hidden where they lie after the instant."""
        names = {self.table.time}
        for metric in metrics.values():
            names |= {*metric.where, *([metric.column] if metric.column else [])}
            if is_money(metric):
                names.add("currency")
        names -= {"day", "source", "account_id"}
        return [f"{self._masked(name)} AS {identifier(name)}" for name in sorted(names)] or [
            "NULL AS nothing"
        ]

    def _masked(self, name: str) -> str:
        column = self.table.by_name[name]
        gate = name if column.event_time else column.known_with
        if gate is None:
            return identifier(name)
        is_day = self.table.by_name[gate].type == "DATE"
        until = self.end(continuous=False) if is_day else self._over_at()
        return f"CASE WHEN {identifier(gate)} <= {until} THEN {identifier(name)} END"

    def columns(self, name: str, metric: Metric, *, with_previous: bool) -> list[str]:
        """The select-list entries of one metric: value, window before, missing rates."""
        end = self.end(continuous=metric.stale_after is not None)
        conditions = [
            self._filter(column, rule, end) for column, rule in sorted(metric.where.items())
        ]
        now = [*self._window(metric, end, 0), *conditions]
        entries = [f"{self._aggregate(metric, now, end)} AS {identifier(name)}"]
        entries += self._without_rate(name, metric, now)
        if with_previous:
            before = [*self._window(metric, end, metric.window or 0), *conditions]
            shifted = f"({end} - {metric.window})"
            value = self._aggregate(metric, before, shifted)
            entries.append(f"{value} AS {identifier(name + '.previous')}")
            entries += self._without_rate(name + ".previous", metric, before)
        return entries

    def _without_rate(self, name: str, metric: Metric, conditions: list[str]) -> list[str]:
        if not is_money(metric):
            return []
        column = f"s.{identifier(metric.column or '')}"
        missing = " AND ".join([*conditions, f"{column} IS NOT NULL", "r.rate IS NULL"])
        return [f"count(*) FILTER (WHERE {missing}) > 0 AS {identifier(name + '.no_rate')}"]

    def _window(self, metric: Metric, end: str, shift: int) -> list[str]:
        if metric.window is None:
            return []
        last = end if not shift else f"{end} - {shift}"
        return [f"s.day > {end} - {metric.window + shift}", f"s.day <= {last}"]

    def _aggregate(self, metric: Metric, conditions: list[str], end: str) -> str:
        function, name = metric.function, metric.column
        if function in DAY_COUNTS:
            return self._days(function, name or "", conditions, end)
        value = self._value(metric)
        filtered = f" FILTER (WHERE {' AND '.join(conditions)})" if conditions else ""
        if function == "count":
            return f"nullif(count(*){filtered}, 0)"
        if function == "count_distinct":
            if name == "day" and metric.window and metric.window <= LONGEST_BIT_WINDOW_DAYS:
                bit = f"1::HUGEINT << least(greatest({end} - s.day, 0), 126)::INTEGER"
                return f"bit_count(bit_or({bit}){filtered})"
            return f"nullif(count(DISTINCT {value}){filtered}, 0)"
        if function == "last":
            known = " AND ".join([*conditions, f"{value} IS NOT NULL"])
            return (
                f"last({value} ORDER BY s.{identifier(self.table.time)}, s.known_at, {value}) "
                f"FILTER (WHERE {known})"
            )
        return f"{'avg' if function == 'mean' else function}({value}){filtered}"

    def _value(self, metric: Metric) -> str:
        """A row's number: money in the company's currency, true and false as 1 and 0."""
        name = metric.column
        if name is None:
            return ""
        value = f"s.{identifier(name)}"
        if is_money(metric):
            return f"({value} * r.rate)"
        column = self.table.by_name.get(name)
        if column and column.type == "BOOLEAN" and metric.function != "count_distinct":
            return f"{value}::INTEGER"
        return value

    def _days(self, function: str, name: str, conditions: list[str], end: str) -> str:
        """Days between the end of a row's window and a column's latest, first or next day."""
        day = self._local_day(name)
        days = f"{day} - {end}" if function == "days_until" else f"{end} - {day}"
        known = " AND ".join([*conditions, f"{days} >= 0"])
        return (
            f"{'max' if function == 'days_since_first' else 'min'}({days}) FILTER (WHERE {known})"
        )

    def _local_day(self, name: str) -> str:
        if name in ("day", self.table.time):
            return "s.day"
        if self.table.by_name[name].type == "DATE":
            return f"s.{identifier(name)}"
        zone = literal(self.as_of.time_zone)
        return f"timezone({zone}, timezone('UTC', s.{identifier(name)}))::DATE"

    def _filter(self, name: str, rule: Any, end: str) -> str:
        """One column's rule; days are counted from the end of the row's window."""
        column = f"s.{identifier(name)}"
        if not isinstance(rule, Filter):
            return f"{column} = {literal(rule)}"
        parts = {
            "in_": lambda values: f"{column} IN ({', '.join(literal(v) for v in values)})",
            "not_in": lambda values: (
                f"coalesce({column} NOT IN ({', '.join(literal(v) for v in values)}), true)"
            ),
            "above": lambda value: f"{column} > {double(value)}",
            "below": lambda value: f"{column} < {double(value)}",
            "at_least": lambda value: f"{column} >= {double(value)}",
            "at_most": lambda value: f"{column} <= {double(value)}",
            "is_null": lambda value: f"{column} IS {'' if value else 'NOT '}NULL",
            "older_than": lambda days: f"{self._local_day(name)} < {end} - {days}",
            "newer_than": lambda days: f"{self._local_day(name)} > {end} - {days}",
            # What has no end is still to come.
            "after_as_of": lambda value: (
                f"coalesce({self._local_day(name)} > {end}, true)"
                if value
                else f"{self._local_day(name)} <= {end}"
            ),
        }
        return " AND ".join(parts[setting](value) for setting, value in rule.given.items())


def double(value: float) -> str:
    """A number as a DuckDB DOUBLE, infinite ones included."""
    return f"'{value}'::DOUBLE"


def timestamp(value: dt.datetime) -> str:
    """A naive UTC instant as a DuckDB TIMESTAMP."""
    return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S.%f}'"
