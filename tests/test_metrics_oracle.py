"""Every aggregation and filter of the metric language, against a plain Python model of it."""

import datetime as dt
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.tables import TABLES
from scoring import metrics, scores
from scoring.config.metrics import Filter, Metric
from tests.signals import (
    DAY,
    add_account,
    add_many,
    as_of,
    connect,
    feed,
    health,
    library,
    measured,
    metric,
    scorecard,
)  # fmt: skip

ACCOUNTS = ["a0", "a1", "a2"]
T = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time())  # the end of DAY, in UTC


# The model: rows in, one value or None out


def visible(rows: list[dict[str, Any]], table: str, known: dict[str, dt.datetime]) -> Any:
    """The rows that count as of T, with what lies in the future hidden."""
    for row in rows:
        until = known.get(row["source"], T)
        if (
            row["account_id"] is None
            or row["known_at"] > until
            or (row["superseded_at"] is not None and row["superseded_at"] <= until)
            or row["deleted"]
            or row["day"] > DAY
        ):
            continue
        shown = dict(row)
        for column in TABLES[table].columns:
            gate = column.name if column.event_time else column.known_with
            if gate and (row.get(gate) is None or row[gate] > end_of_source(row["source"], known)):
                shown[column.name] = None
        yield shown


def end_of_source(source: str, known: dict[str, dt.datetime]) -> dt.datetime:
    until = known.get(source, T)
    return T if until == T else dt.datetime.combine(until.date() + dt.timedelta(1), dt.time())


def passes(row: dict[str, Any], where: dict[str, Any], end: dt.date) -> bool:
    for name, rule in where.items():
        value = row[name]
        if not isinstance(rule, Filter):
            if value is None or value != rule:
                return False
            continue
        day = value.date() if isinstance(value, dt.datetime) else value
        checks = {
            "in_": lambda r, v=value: v in r if v is not None else False,
            "not_in": lambda r, v=value: v not in r,
            "above": lambda r, v=value: v is not None and v > r,
            "below": lambda r, v=value: v is not None and v < r,
            "at_least": lambda r, v=value: v is not None and v >= r,
            "at_most": lambda r, v=value: v is not None and v <= r,
            "is_null": lambda r, v=value: (v is None) is r,
            "older_than": lambda r, d=day: d is not None and d < end - dt.timedelta(days=r),
            "newer_than": lambda r, d=day: d is not None and d > end - dt.timedelta(days=r),
            "after_as_of": lambda r, d=day: r if d is None else (d > end) is r,
        }
        if not all(checks[setting](limit) for setting, limit in rule.given.items()):
            return False
    return True


def aggregate(body: Metric, rows: list[tuple[dict[str, Any], dt.date]]) -> float | None:
    """The metric's value over (row, end of its source's window); None where no row counts."""
    column = body.column
    if body.function == "count":
        return float(len(rows)) if rows else None
    if body.function in ("days_since", "days_since_first"):
        pick = min if body.function == "days_since" else max
        ages = [(end - as_day(row[column])).days for row, end in rows if row[column] is not None]
        return float(pick((age for age in ages if age >= 0), default=math.nan))
    if body.function == "days_until":
        waits = [(as_day(row[column]) - end).days for row, end in rows if row[column] is not None]
        return float(min((wait for wait in waits if wait >= 0), default=math.nan))
    if body.function == "last":
        time = TABLES[body.table].time
        known = [row for row, _ in rows if row[column] is not None]
        known.sort(key=lambda row: (row[time], row["known_at"], row[column]))
        return float(known[-1][column]) if known else None
    values = [row[column] for row, _ in rows if row[column] is not None]
    if not values:
        return None
    if body.function == "count_distinct":
        return float(len(set(values)))
    return float(
        {"sum": sum, "min": min, "max": max, "mean": lambda v: sum(v) / len(v)}[body.function](
            values
        )
    )


def as_day(value: Any) -> dt.date:
    return value.date() if isinstance(value, dt.datetime) else value


def modelled(
    body: Metric,
    rows: list[dict[str, Any]],
    account: str,
    *,
    linked: list[str],
    known: dict[str, dt.datetime],
    shift: int = 0,
) -> tuple[float | None, str]:
    """Value and state of one account's metric; `shift` days back for the window before."""
    shown = list(visible(rows, body.table, known))
    newest = {
        source: max((r["day"] for r in rows if counts(r, source)), default=None)
        for source in ("app", "app2")
    }
    ends = {}
    for source in ("app", "app2"):
        ends[source] = known.get(source, T).date() if source in known else DAY
        if body.stale_after and newest[source]:
            ends[source] = min(ends[source], newest[source])
    held = max((DAY - known[source].date()).days if source in known else 0 for source in linked)
    if held > (body.stale_after or 7):
        return None, "stale"
    if body.stale_after:
        lags = [(DAY - newest[source]).days for source in linked if newest[source]]
        if not lags:
            return None, "absent"
        if max(lags) > body.stale_after:
            return None, "stale"
    chosen = []
    for row in shown:
        end = ends[row["source"]] - dt.timedelta(days=shift)
        inside = body.window is None or (end - dt.timedelta(days=body.window) < row["day"] <= end)
        if row["account_id"] == account and inside and passes(row, body.where, ends[row["source"]]):
            chosen.append((row, end))
    value = aggregate(body, chosen)
    if value is None or math.isnan(value):
        return (0.0, "zero-filled") if body.zero_when_empty else (None, "absent")
    return value, "present"


def counts(row: dict[str, Any], source: str) -> bool:
    """Whether a row tells how far its stream has come."""
    superseded = row["superseded_at"] is not None and row["superseded_at"] <= T
    return (
        row["source"] == source
        and row["known_at"] <= T
        and row["day"] <= DAY
        and not superseded
        and not row["deleted"]
    )


# Random rows


def at(low: int, high: int) -> Any:
    """An instant so many days from the end of DAY, at any hour."""
    return st.tuples(st.integers(low, high), st.integers(0, 23)).map(
        lambda when: T + dt.timedelta(days=when[0], hours=when[1])
    )


def usage_rows() -> Any:
    row = st.fixed_dictionaries(
        {
            "source": st.sampled_from(["app", "app", "app", "app2"]),
            "account_id": st.sampled_from([*ACCOUNTS, None]),
            "day": st.integers(-65, 2).map(lambda d: DAY + dt.timedelta(days=d)),
            "event": st.sampled_from(["login", "report", "share"]),
            "count": st.one_of(st.none(), st.integers(0, 9)),
            "value": st.one_of(st.none(), st.integers(-50, 50).map(lambda v: v / 4)),
            "known_at": st.one_of(at(-70, -20), at(-3, 2)),
            "superseded_at": st.one_of(st.none(), st.none(), at(-2, 2)),
            "deleted": st.sampled_from([None, False, False, True]),
        }
    )
    return st.lists(row, max_size=60)


def ticket_rows() -> Any:
    row = st.fixed_dictionaries(
        {
            "source": st.sampled_from(["app", "app2"]),
            "account_id": st.sampled_from([*ACCOUNTS, None]),
            "opened_at": at(-65, 1),
            "solved_at": st.one_of(st.none(), at(-60, 3)),
            "priority": st.sampled_from(["p1", "p2", None]),
            "escalated": st.sampled_from([True, False, None]),
            "reopened": st.one_of(st.none(), st.integers(0, 3)),
            "csat": st.one_of(st.none(), st.integers(0, 100).map(float)),
            "known_at": st.one_of(at(-70, -20), at(-3, 2)),
            "superseded_at": st.one_of(st.none(), at(-2, 2)),
            "deleted": st.sampled_from([None, False, True]),
        }
    ).map(lambda row: {**row, "day": row["opened_at"].date()})
    return st.lists(row, max_size=60)


def usage(aggregate: str, **body: Any) -> Metric:
    return metric(table="usage_daily", aggregate=aggregate, **body)


def tickets(aggregate: str, **body: Any) -> Metric:
    return metric(table="tickets", aggregate=aggregate, **body)


BY_USE = {"event": {"not_in": ["login"]}, "count": {"above": 0}}
USAGE = {
    "rows_ever": usage("count"),
    "rows_28d": usage("count", window="28d", where={"event": "report"}),
    "uses_28d": usage("sum(count)", window="28d", where=BY_USE, compare=["previous_window"]),
    "mean_value": usage("mean(value)", window="7d"),
    "lowest": usage("min(value)", where={"value": {"at_least": -5, "at_most": 5}}),
    "highest": usage("max(count)", window="28d", where={"event": {"in": ["share", "report"]}}),
    "last_value": usage("last(value)"),
    "events": usage("count_distinct(event)", window="28d"),
    "days_7d": usage("count_distinct(day)", window="7d", compare=["previous_window"]),
    "days_28d": usage(
        "count_distinct(day)", window="28d", where=BY_USE, stale_after="3d",
        compare=["previous_window"],
    ),
    "days_60d": usage("count_distinct(day)", window="60d", stale_after="30d"),
    "since_use": usage("days_since(day)", window="60d", stale_after="5d"),
    "recent": usage("count", where={"day": {"newer_than": "3d"}}),
    "old": usage("count", where={"day": {"older_than": "30d"}, "count": {"is_null": False}}),
    "from_app2": usage("sum(value)", where={"source": "app2"}),
}  # fmt: skip
TICKETS = {
    "open": tickets("count", where={"solved_at": {"is_null": True}}),
    "open_p1": tickets("count", where={"solved_at": {"is_null": True}, "priority": "p1"}),
    "solved_28d": tickets("count", window="28d", where={"solved_at": {"is_null": False}}),
    "csat": tickets("mean(csat)", window="60d"),
    "last_csat": tickets("last(csat)"),
    "reopened": tickets("sum(reopened)"),
    "since_solved": tickets("days_since(solved_at)"),
    "since_first_solved": tickets("days_since_first(solved_at)"),
    "until_solved": tickets("days_until(solved_at)"),
    "escalated": tickets("count", where={"escalated": True}),
    "escalated_share": tickets("mean(escalated)"),
    "priorities": tickets("count_distinct(priority)", window="28d"),
    "waiting": tickets(
        "count", where={"solved_at": {"is_null": True}, "opened_at": {"older_than": "14d"}}
    ),
}


@pytest.fixture(scope="module")
def connection():
    connection = connect()
    yield connection
    connection.close()


def start_over(connection: Any) -> None:
    for (name,) in connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'signals'"
    ).fetchall():
        connection.execute(f"DELETE FROM signals.{name}")
    for account, linked in LINKS.items():
        add_account(connection, account, started_on=dt.date(2024, 1, 1), linked_to=linked)
    feed(connection, "usage_daily", "tickets")
    feed(connection, "usage_daily", "tickets", source="app2")


LINKS = {"a0": ["app"], "a1": ["app", "app2"], "a2": ["app2"], "a3": []}


def compared(connection: Any, table: str, bodies: dict[str, Metric], rows: list[Any]) -> None:
    """Whether the metrics of these rows are what the model says."""
    known = last_good(connection)
    metrics.compute(connection, library(bodies), as_of())
    found = measured(connection)
    for name, body in bodies.items():
        for account, linked in LINKS.items():
            value, state, reason = found[(account, name)]
            if not linked:
                assert (value, state, reason) == (None, "absent", "no link to a source")
                continue
            expected, expected_state = modelled(body, rows, account, linked=linked, known=known)
            assert (name, account, state) == (name, account, expected_state)
            if expected is None:
                assert value is None
                assert reason
            else:
                assert reason is None
                assert value == pytest.approx(expected, rel=1e-9), (name, account)


def last_good(connection: Any) -> dict[str, dt.datetime]:
    """For each source that fails: its last good check."""
    return dict(
        connection.execute(
            "SELECT source, max(checked_at) FILTER (WHERE status = 'ok') "
            "FROM signals.source_health GROUP BY 1 "
            "HAVING arg_max(status, checked_at) <> 'ok'"
        ).fetchall()
    )


def with_keys(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [
        {**row, "account_key": row["account_id"] or "?", key: row.get(key, str(number))}
        for number, row in enumerate(rows)
    ]


FAILING = st.one_of(st.none(), st.integers(0, 240))


@settings(max_examples=40)
@given(rows=usage_rows(), failing_hours=FAILING)
def test_usage_metrics_are_what_the_rows_say(connection, rows, failing_hours):
    start_over(connection)
    add_many(connection, "usage_daily", with_keys(rows, "event"))
    if failing_hours is not None:
        good = T - dt.timedelta(hours=failing_hours + 0.5)
        health(connection, "ok", good)
        health(connection, "down", T - dt.timedelta(minutes=10))
    compared(connection, "usage_daily", USAGE, rows)


@settings(max_examples=40)
@given(rows=ticket_rows(), failing_hours=FAILING)
def test_ticket_metrics_are_what_was_known_of_the_tickets(connection, rows, failing_hours):
    start_over(connection)
    add_many(connection, "tickets", with_keys(rows, "ticket_id"))
    if failing_hours is not None:
        health(connection, "ok", T - dt.timedelta(hours=failing_hours + 0.5))
        health(connection, "suspect", T - dt.timedelta(minutes=10))
    compared(connection, "tickets", TICKETS, rows)


@settings(max_examples=25)
@given(rows=usage_rows())
def test_a_change_compares_with_the_window_before(connection, rows):
    start_over(connection)
    # Enough history in both sources that both windows are covered.
    first = {"account_id": None, "event": "login", "count": 1, "value": None, "deleted": None,
             "known_at": T - dt.timedelta(days=90), "superseded_at": None}  # fmt: skip
    rows = [
        *rows,
        *({**first, "source": s, "day": DAY - dt.timedelta(days=d)}
          for s in ("app", "app2") for d in (70, 0)),
    ]  # fmt: skip
    add_many(connection, "usage_daily", with_keys(rows, "event"))
    bodies = {name: USAGE[name] for name in ("uses_28d", "days_7d", "days_28d")}
    metrics.compute(connection, library(bodies), as_of())
    found = measured(connection)
    for name, body in bodies.items():
        for account, linked in LINKS.items():
            if not linked:
                continue
            now, _ = modelled(body, rows, account, linked=linked, known={})
            then, _ = modelled(body, rows, account, linked=linked, known={}, shift=body.window)
            change, state, _ = found[(account, f"{name}.change")]
            expected = 100.0 * (now > 0) if then == 0 else 100 * (now - then) / abs(then)
            assert state == "present"
            assert change == pytest.approx(expected, rel=1e-9), (name, account)


@settings(max_examples=25)
@given(rows=usage_rows(), later=usage_rows(), tickets_later=ticket_rows())
def test_facts_that_are_known_later_never_change_an_earlier_day(
    connection, rows, later, tickets_later
):
    start_over(connection)
    add_many(connection, "usage_daily", with_keys(rows, "event"))
    card = scorecard(
        components=[
            {"metric": "days_28d", "weight": 60, "points": {0: 100, 28: 0}},
            {"metric": "open", "weight": 40, "points": {0: 0, 5: 100}, "missing": "worst"},
        ],
        caps=[{"when": "arr > 50 and open > 2", "at_least": 60, "because": "x"}],
    )
    lib = library({**USAGE, **TICKETS}, card, use_metric="days_28d")
    metrics.compute(connection, lib, as_of())
    revision = scores.compute(connection, lib, as_of()).revision
    before = measured(connection)
    for table, key, new in (
        ("usage_daily", "event", later), ("tickets", "ticket_id", tickets_later),
    ):  # fmt: skip
        known_later = [
            {**row, "known_at": T + dt.timedelta(hours=1), "superseded_at": None} for row in new
        ]
        add_many(connection, table, with_keys(known_later, key))
    # What is superseded later, a new source of accounts, and a check that fails later.
    connection.execute(
        "UPDATE signals.usage_daily SET superseded_at = ? WHERE superseded_at IS NULL",
        [T + dt.timedelta(minutes=1)],
    )
    connection.execute(
        "INSERT INTO signals.accounts BY NAME "
        "SELECT * REPLACE ('app2' AS source, ? AS known_at, 99 AS arr) "
        "FROM signals.accounts",
        [T + dt.timedelta(minutes=1)],
    )
    health(connection, "down", T + dt.timedelta(minutes=1))
    connection.execute(
        "INSERT INTO signals.account_keys VALUES ('app', 'k', 'a3', 'domain', 1, ?)",
        [T + dt.timedelta(minutes=1)],
    )
    metrics.compute(connection, lib, as_of())
    assert measured(connection) == before
    again = scores.compute(connection, lib, as_of())
    assert (again.revision, again.changed) == (revision, False)


@settings(max_examples=15)
@given(rows=usage_rows())
def test_distinct_days_counted_in_bits_are_distinct_days(connection, rows):
    """A window above 120 days takes the other path; a filter on the day makes both the same."""
    start_over(connection)
    add_many(connection, "usage_daily", with_keys(rows, "event"))
    bodies = {
        "bits": usage("count_distinct(day)", window="28d"),
        "counted": usage(
            "count_distinct(day)", window="400d", where={"day": {"newer_than": "28d"}}
        ),
        "longest_bits": usage("count_distinct(day)", window="120d"),
        "longest_counted": usage(
            "count_distinct(day)", window="121d", where={"day": {"newer_than": "120d"}}
        ),
    }
    metrics.compute(connection, library(bodies), as_of())
    found = measured(connection)
    for account in ACCOUNTS:
        assert found[(account, "bits")] == found[(account, "counted")]
        assert found[(account, "longest_bits")] == found[(account, "longest_counted")]


def test_the_bits_hold_the_first_and_the_last_day_of_the_longest_window(connection):
    start_over(connection)
    rows = [
        {"source": "app", "account_id": "a0", "account_key": "a0", "event": "x", "count": 1,
         "day": DAY - dt.timedelta(days=back), "known_at": T - dt.timedelta(days=back)}
        for back in (0, 119, 120, 127, 128, 300)
    ]  # fmt: skip
    add_many(connection, "usage_daily", rows)
    bodies = {
        "short": usage("count_distinct(day)", window="120d", compare=["previous_window"]),
        "long": usage("count_distinct(day)", window="365d"),
    }
    metrics.compute(connection, library(bodies), as_of())
    found = measured(connection)
    assert found[("a0", "short")][0] == 2
    assert found[("a0", "short.change")][0] == pytest.approx(100 * (2 - 3) / 3)
    assert found[("a0", "long")][0] == 6
