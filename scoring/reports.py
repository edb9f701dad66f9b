"""What a day's scores say about the whole business: bands, revenue, worst, best, watermelons."""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

import duckdb

from scoring import reasons
from scoring.config.metrics import Filter
from scoring.expressions import Condition, identifier, literal
from scoring.library import ACCOUNT_FACTS, Library

NO_SUCH_EVENT = "no event of that name"
"""Why a metric of an event that its sources never sent is no zero."""

BAND_ORDER = ("red", "yellow", "green", "ready", "possible", "none", "unknown")


@dataclass(frozen=True)
class BandCount:
    """How many accounts of a segment stand in a band, and their yearly revenue."""

    segment: str
    band: str
    accounts: int
    arr: float


@dataclass(frozen=True)
class Standing:
    """One account in a list: its score and the reasons, strongest first."""

    account_id: str
    name: str | None
    segment: str
    stage: str
    owner: str | None
    arr: float | None
    value: Decimal
    band: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Watermelon:
    """A green account with hard signals against it."""

    account_id: str
    name: str | None
    arr: float | None
    value: Decimal
    because: tuple[str, ...]


@dataclass(frozen=True)
class Portfolio:
    """A day at a glance. Money is in the company's currency."""

    day: dt.date
    accounts: int
    risk: tuple[BandCount, ...]
    upsell: tuple[BandCount, ...]
    worst: tuple[Standing, ...]
    best_upsell: tuple[Standing, ...]
    watermelons: tuple[Watermelon, ...]
    without_revenue: int


@dataclass(frozen=True)
class Gap:
    """A metric that some accounts of a segment cannot have, and why."""

    metric: str
    segment: str
    reason: str
    accounts: int
    share: float
    arr: float


def portfolio(
    connection: duckdb.DuckDBPyConnection, library: Library, day: dt.date, *, most: int = 5
) -> Portfolio:
    """The day at a glance, with the `most` worst accounts and best chances."""
    reasons.compute(connection, library, day)
    (accounts, without_revenue) = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE arr IS NULL) FROM metrics.accounts "
        "WHERE as_of = ?",
        [day],
    ).fetchone() or (0, 0)
    return Portfolio(
        day=day,
        accounts=accounts,
        risk=band_counts(connection, "risk", day),
        upsell=band_counts(connection, "upsell", day),
        worst=_standings(connection, day, "risk", "s.band <> 'unknown'", most),
        best_upsell=_standings(connection, day, "upsell", "s.band IN ('ready', 'possible')", most),
        watermelons=watermelons(connection, library, day),
        without_revenue=without_revenue,
    )


def band_counts(
    connection: duckdb.DuckDBPyConnection, score: str, day: dt.date
) -> tuple[BandCount, ...]:
    """Accounts and revenue by segment and band; the segment ``all`` is the whole business."""
    rows = connection.execute(
        "SELECT segment, band, accounts, coalesce(arr, 0) FROM scores.trends "
        "WHERE as_of = ? AND score = ? ORDER BY segment = 'all', segment, band",
        [day, score],
    ).fetchall()
    counts = [BandCount(*row) for row in rows]
    return tuple(
        sorted(counts, key=lambda c: (c.segment == "all", c.segment, BAND_ORDER.index(c.band)))
    )


def _standings(
    connection: duckdb.DuckDBPyConnection, day: dt.date, score: str, condition: str, most: int
) -> tuple[Standing, ...]:
    """The highest scores of a day. An upsell is no chance while the account's risk is red."""
    rows = connection.execute(
        "SELECT s.account_id, a.name, s.segment, s.stage, "
        "CASE WHEN s.score = 'upsell' THEN coalesce(a.sales_owner, a.owner) ELSE a.owner END, "
        "a.arr, s.value, s.band, "
        "coalesce(list(r.sentence ORDER BY r.rank) FILTER (WHERE r.rank <= ?), []) "
        "FROM scores.scores AS s JOIN metrics.accounts AS a USING (as_of, account_id) "
        "LEFT JOIN reasons AS r USING (account_id, score) "
        f"WHERE s.as_of = ? AND s.score = ? AND {condition} "
        "AND (s.score <> 'upsell' OR NOT EXISTS (SELECT 1 FROM scores.scores AS k "
        "WHERE k.as_of = s.as_of AND k.account_id = s.account_id AND k.score = 'risk' "
        "AND k.band = 'red')) "
        "GROUP BY ALL ORDER BY s.value DESC, a.arr DESC NULLS LAST, s.account_id LIMIT ?",
        [reasons.MOST_REASONS, day, score, most],
    ).fetchall()
    return tuple(Standing(*[*row[:8], tuple(row[8])]) for row in rows)


def watermelons(
    connection: duckdb.DuckDBPyConnection, library: Library, day: dt.date
) -> tuple[Watermelon, ...]:
    """Green accounts with hard signals against them, by revenue."""
    conditions = [(library.condition(s.when), s.because) for s in library.hard_signals]
    if not conditions:
        return ()
    names = sorted({name for condition, _ in conditions for name in condition.names})
    columns = {
        name: f"a.{identifier(name)}" if name in ACCOUNT_FACTS else f"f.{identifier(name)}"
        for name in names
    }
    pivot = ", ".join(
        f"max(value) FILTER (WHERE metric = {literal(name)}) AS {identifier(name)}, "
        "bool_or(state IN ('stale', 'suspect', 'corrupt')) "
        f"FILTER (WHERE metric = {literal(name)}) AS {identifier(name + '?')}"
        for name in names
        if name not in ACCOUNT_FACTS
    )
    signals = ", ".join(
        f"CASE WHEN NOT ({_broken(condition)}) AND ({condition.over(columns)}) "
        f"THEN {literal(because)} END"
        for condition, because in conditions
    )
    rows = connection.execute(
        f"WITH f AS (SELECT account_id, {pivot or 'NULL AS nothing'} FROM metrics.metric_values "
        "WHERE as_of = ? GROUP BY account_id) "
        "SELECT a.account_id, a.name, a.arr, s.value, "
        f"list_filter([{signals}], reason -> reason IS NOT NULL) AS because "
        "FROM scores.scores AS s JOIN metrics.accounts AS a USING (as_of, account_id) "
        "JOIN f USING (account_id) "
        "WHERE s.as_of = ? AND s.score = 'risk' AND s.band = 'green' AND len(because) > 0 "
        "ORDER BY len(because) DESC, a.arr DESC NULLS LAST, a.account_id",
        [day, day],
    ).fetchall()
    return tuple(Watermelon(*[*row[:4], tuple(row[4])]) for row in rows)


def _broken(condition: Condition) -> str:
    """Whether a metric that the condition asks ``is null`` of is null because its pipe broke."""
    names = sorted(condition.null_names - set(ACCOUNT_FACTS))
    return " OR ".join(f"coalesce(f.{identifier(name + '?')}, false)" for name in names) or "false"


def metrics_in_use(library: Library) -> frozenset[str]:
    """The metrics that a scorecard, a profile or a hard signal reads, without comparisons."""
    texts = [rule.when for rule in (*library.profiles.segments, *library.profiles.stages)]
    texts += [signal.when for signal in library.hard_signals]
    names: set[str] = set()
    for named in library.scorecards:
        names |= {component.metric for component in named.card.components}
        texts += [cap.when for cap in library.caps_of(named.card)]
    for text in texts:
        names |= library.condition(text).names if text else set()
    bases = {name.partition(".")[0] for name in names} & set(library.metrics)
    for name in tuple(bases):
        ratio = library.metrics[name].ratio
        bases |= {ratio.of, ratio.to} if ratio else set()
    return frozenset(bases)


def tracking_gaps(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    *,
    metrics: Collection[str] | None = None,
    library: Library | None = None,
) -> tuple[Gap, ...]:
    """What cannot be scored because it is not measured: per metric, segment and reason.

    `metrics` narrows it down, for instance to `metrics_in_use`. With the day's `library`, also
    metrics of an event that the sources of an account never sent: their zero is none.
    An account that simply has no rows (never answered a survey) is no gap; no link, no source, no
    exchange rate, or a source that stopped is one.
    """
    _untracked(connection, library)
    rows = connection.execute(
        "WITH sizes AS (SELECT segment, count(*) AS accounts FROM metrics.accounts "
        "WHERE as_of = $1 GROUP BY segment), "
        "reasons AS (SELECT m.*, CASE WHEN u.metric IS NOT NULL AND (m.state = 'zero-filled' "
        f"OR m.reason = 'no rows') THEN '{NO_SUCH_EVENT}' ELSE m.reason END AS why "
        "FROM metrics.metric_values AS m LEFT JOIN untracked AS u USING (metric, account_id)) "
        "SELECT m.metric, a.segment, m.why, count(*) AS accounts, "
        "count(*) / any_value(z.accounts) AS share, coalesce(sum(a.arr), 0) "
        "FROM reasons AS m JOIN metrics.accounts AS a USING (as_of, account_id) "
        "JOIN sizes AS z USING (segment) "
        "WHERE m.as_of = $1 AND m.metric NOT LIKE '%.%' "
        "AND m.why NOT IN ('no rows', 'the divisor is zero') "
        "GROUP BY m.metric, a.segment, m.why ORDER BY m.metric, a.segment, m.why",
        [day],
    ).fetchall()
    gaps = (Gap(*row) for row in rows)
    return tuple(gap for gap in gaps if metrics is None or gap.metric in metrics)


def _untracked(connection: duckdb.DuckDBPyConnection, library: Library | None) -> None:
    """The temporary table `untracked`: accounts none of whose sources ever sent a metric's event.

    Only events count, which people name as they like. That a ticket of priority p1 or an event of
    the kind `merger` never came is news.
    """
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE untracked (metric VARCHAR, account_id VARCHAR)"
    )
    for name, metric in (library.metrics if library else {}).items():
        rule = metric.where.get("event")
        wanted = (rule.in_ if isinstance(rule, Filter) else [rule]) if rule is not None else None
        if metric.table != "usage_daily" or not wanted:
            continue
        connection.execute(
            "INSERT INTO untracked SELECT ?, account_id FROM signals.account_keys AS k "
            "WHERE account_id IS NOT NULL AND source IN "
            "(SELECT source FROM signals.feeds WHERE \"table\" = 'usage_daily') "
            "GROUP BY account_id HAVING NOT bool_or(source IN "
            "(SELECT DISTINCT source FROM signals.usage_daily "
            f"WHERE event IN ({', '.join(literal(value) for value in wanted)})))",
            [name],
        )
