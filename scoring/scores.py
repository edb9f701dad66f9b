"""Scores as of a day: the scorecard of each account's profile over its metrics, with history.

The arithmetic is in `sql/evaluate.sql` and nowhere else: the daily run, the split of a change and
the tests evaluate the same file, over other inputs.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb

from contracts.errors import NotFoundError
from scoring.config.scorecards import BANDS, CLAIM, WORST_POINTS, Cap
from scoring.expressions import Condition, identifier, literal
from scoring.library import ACCOUNT_FACTS, Library, NamedScorecard
from scoring.metrics import AsOf, create_schema
from scoring.overrides import load_overrides
from scoring.sql import render

FIRST_CAP_POSITION = 1000
OVERRIDE_POSITION = 2000


@dataclass(frozen=True)
class ScoresReport:
    """What was scored for one day, and whether it differs from what stood there."""

    day: dt.date
    revision: int
    changed: bool
    scores: int
    bands: Mapping[str, Mapping[str, int]]
    seconds: float


def compute(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    as_of: AsOf,
    *,
    family_rollup: str = "worst",
    run_id: str | None = None,
    scored_at: dt.datetime | None = None,
) -> ScoresReport:
    """Score one day from its stored metrics and keep the result as a new revision.

    A result that is equal to the day's last revision writes nothing.

    Raises:
        NotFoundError: the day has no metrics yet.
    """
    began = time.monotonic()
    create_schema(connection)
    day = literal(as_of.day)
    connection.execute("BEGIN")
    try:
        _inputs_of_day(connection, as_of.day)
        resolved = assign(connection, library)
        overrides = load_overrides(connection, as_of.day, as_of.instant)
        evaluate(connection, [(named, library) for named in resolved], overrides=overrides)
        revision, changed = _store(
            connection, library, day, family_rollup=family_rollup, run_id=run_id,
            scored_at=scored_at,
        )  # fmt: skip
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    bands: dict[str, dict[str, int]] = {}
    for score, band, count in connection.execute(
        "SELECT score, band, count(*) FROM evaluated_scores GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        bands.setdefault(score, {})[band] = count
    scored = sum(sum(counts.values()) for counts in bands.values())
    return ScoresReport(as_of.day, revision, changed, scored, bands, time.monotonic() - began)


def _inputs_of_day(connection: duckdb.DuckDBPyConnection, day: dt.date) -> None:
    on_day = f"WHERE as_of = {literal(day)}"
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW score_inputs AS "
        f"SELECT account_id, metric, value, state, reason FROM metrics.metric_values {on_day}"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW score_accounts AS "
        f"SELECT * EXCLUDE (as_of) FROM metrics.accounts {on_day}"
    )
    if connection.execute("SELECT 1 FROM score_accounts LIMIT 1").fetchone() is None:
        raise NotFoundError(
            f"the metrics of {day} are not there",
            f"compute the day's metrics first: `healthloop run --as-of {day}`",
        )


def assign(connection: duckdb.DuckDBPyConnection, library: Library) -> list[NamedScorecard]:
    """Give every account the scorecard of its profile, for each kind of score."""
    profiles = connection.execute(
        "SELECT DISTINCT segment, stage, desired_outcome FROM score_accounts ORDER BY ALL"
    ).fetchall()
    rows = []
    used: dict[str, NamedScorecard] = {}
    for segment, stage, outcome in profiles:
        for score in library.scores:
            named = library.resolve(score=score, segment=segment, stage=stage, outcome=outcome)
            if named:
                used[named.name] = named
                rows.append((segment, stage, outcome, score, card_key(named)))
    create_table(
        connection,
        "resolved",
        "segment VARCHAR, stage VARCHAR, outcome VARCHAR, score VARCHAR, scorecard VARCHAR",
        rows,
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE assignments AS "
        "SELECT a.account_id, r.score, r.scorecard FROM score_accounts AS a JOIN resolved AS r "
        "ON r.segment = a.segment AND r.stage = a.stage "
        "AND r.outcome IS NOT DISTINCT FROM a.desired_outcome"
    )
    return list(used.values())


def card_key(named: NamedScorecard) -> str:
    """A scorecard's name and content: two contents under one name stay apart."""
    return f"{named.name}@{named.card.fingerprint}"


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    cards: Iterable[tuple[NamedScorecard, Library]],
    *,
    inputs: str = "score_inputs",
    accounts: str = "score_accounts",
    assignments: str = "assignments",
    overrides: str | None = None,
) -> None:
    """Evaluate scorecards over relations; the result is in two temporary tables.

    Args:
        cards: every scorecard that `assignments` names, with the library it belongs to.
        inputs: relation (account_id, metric, value, state, reason).
        accounts: relation of account facts, with the columns that caps read.
        assignments: relation (account_id, score, scorecard), scorecard being a `card_key`.
        overrides: relation (account_id, score, value, because) of scores that people set. None: no
            score is set by hand.

    The result is `evaluated_scores` (account_id, score, scorecard, value, band, low, high,
    coverage, ...) and `evaluated_contributions`, which sum exactly to the value of each score.
    """
    cards = list(cards)
    _load_cards(connection, [named for named, _ in cards])
    capped = _load_caps(connection, cards, inputs=inputs, accounts=accounts)
    use_metrics = {library.use_metric for _, library in cards}
    connection.execute(
        render(
            "evaluate.sql",
            inputs=inputs,
            assignments=assignments,
            capped=capped,
            overrides=overrides,
            override_position=OVERRIDE_POSITION,
            use_metric=literal(next(iter(use_metrics)) if len(use_metrics) == 1 else None),
        )
    )


def _load_cards(connection: duckdb.DuckDBPyConnection, cards: Iterable[NamedScorecard]) -> None:
    components: list[tuple[Any, ...]] = []
    breakpoints: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    for named in cards:
        card, key = named.card, card_key(named)
        upper, middle, lower = BANDS[card.family]
        claim, opposite = CLAIM[card.family]
        rows.append(
            (key, named.name, card.version, card.family, upper, middle, lower, *card.edges, claim,
             opposite, card.coverage.minimum)
        )  # fmt: skip
        for position, component in enumerate(card.components):
            pillar = card.pillars[component.pillar]
            number = len(components)
            components.append(
                (number, key, position, component.metric, component.pillar, pillar.combine,
                 pillar.weight, component.weight, component.policy, component.imputed_value,
                 WORST_POINTS[card.family], card.family == "risk")
            )  # fmt: skip
            breakpoints += [
                (number, *piece)
                for piece in pieces(component.curve, stepped=component.steps is not None)
            ]
    create_table(
        connection, "cards",
        "scorecard VARCHAR, name VARCHAR, version INTEGER, family VARCHAR, upper_band VARCHAR, "
        "middle_band VARCHAR, lower_band VARCHAR, upper_edge DOUBLE, middle_edge DOUBLE, "
        "claim_band VARCHAR, opposite_band VARCHAR, minimum_coverage DOUBLE",
        rows,
    )  # fmt: skip
    create_table(
        connection, "components",
        "component INTEGER, scorecard VARCHAR, position INTEGER, metric VARCHAR, pillar VARCHAR, "
        "combine VARCHAR, pillar_weight DOUBLE, weight DOUBLE, policy VARCHAR, imputed DOUBLE, "
        "worst_points DOUBLE, high_is_bad BOOLEAN",
        components,
    )  # fmt: skip
    create_table(
        connection, "breakpoints",
        "component INTEGER, x_from DOUBLE, x_to DOUBLE, y_from DOUBLE, slope DOUBLE",
        breakpoints,
    )  # fmt: skip


def pieces(
    curve: list[tuple[float, float]], *, stepped: bool
) -> list[tuple[float, float, float, float]]:
    """The pieces of a points curve: (from, to, points at from, slope), covering all numbers.

    Below the first breakpoint and above the last one the curve is flat.

    >>> pieces([(0, 100), (10, 0)], stepped=False)
    [(-inf, 0, 100, 0.0), (0, 10, 100, -10.0), (10, inf, 0, 0.0)]
    >>> pieces([(0, 0), (3, 50)], stepped=True)
    [(-inf, 0, 0, 0.0), (0, 3, 0, 0.0), (3, inf, 50, 0.0)]
    """
    infinity = float("inf")
    first, last = curve[0], curve[-1]
    result = [(-infinity, first[0], first[1], 0.0)]
    for (x_from, y_from), (x_to, y_to) in pairwise(curve):
        slope = 0.0 if stepped else (y_to - y_from) / (x_to - x_from)
        result.append((x_from, x_to, y_from, slope))
    result.append((last[0], infinity, last[1], 0.0))
    return result


def _load_caps(
    connection: duckdb.DuckDBPyConnection,
    cards: Iterable[tuple[NamedScorecard, Library]],
    *,
    inputs: str,
    accounts: str,
) -> list[dict[str, Any]]:
    """The caps of each scorecard as SQL over `cap_facts`, which this makes."""
    names: set[str] = set()
    compiled = []
    for named, library in cards:
        caps = [(cap, library.condition(cap.when)) for cap in library.caps_of(named.card)]
        names |= {name for _, condition in caps for name in condition.names}
        compiled.append((named, caps))
    _make_cap_facts(connection, names, inputs=inputs, accounts=accounts)
    return [
        {
            "scorecard": literal(card_key(named)),
            "caps": [_compiled_cap(number, *pair) for number, pair in enumerate(caps)],
        }
        for named, caps in compiled
        if caps
    ]


def _make_cap_facts(
    connection: duckdb.DuckDBPyConnection, names: set[str], *, inputs: str, accounts: str
) -> None:
    """The table `cap_facts`: what caps read; ``<metric>?`` says that the metric's pipe broke."""
    metrics = sorted(names - set(ACCOUNT_FACTS))
    columns = ["a.account_id"]
    columns += [
        f"any_value(a.{identifier(fact)}) AS {identifier(fact)}"
        for fact in sorted(names & set(ACCOUNT_FACTS) - {"account_id"})
    ]
    for number, name in enumerate(metrics):
        this = f"FILTER (WHERE i.number = {number})"
        broken = "bool_or(i.state IN ('stale', 'suspect', 'corrupt'))"
        columns.append(f"max(i.value) {this} AS {identifier(name)}")
        columns.append(f"coalesce({broken} {this}, false) AS {identifier(name + '?')}")
    numbered = ", ".join(f"({n}, {literal(name)})" for n, name in enumerate(metrics))
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE cap_facts AS SELECT {', '.join(columns)} "
        f"FROM {accounts} AS a LEFT JOIN (SELECT account_id, number, value, state FROM {inputs} "
        f"JOIN (VALUES {numbered or '(NULL, NULL)'}) AS wanted(number, metric) USING (metric)) "
        "AS i ON i.account_id = a.account_id GROUP BY a.account_id"
    )


def _compiled_cap(number: int, cap: Cap, condition: Condition) -> dict[str, Any]:
    def broken(names: frozenset[str]) -> str:
        columns = [f"f.{identifier(name + '?')}" for name in sorted(names - set(ACCOUNT_FACTS))]
        return " OR ".join(columns) or "false"

    return {
        "position": FIRST_CAP_POSITION + number,
        "at_least": _limit(cap.at_least),
        "at_most": _limit(cap.at_most),
        "because": literal(cap.because),
        "condition": condition.over({name: f"f.{identifier(name)}" for name in condition.names}),
        "hidden": broken(condition.names),
        # A metric whose pipe broke is null, but that is not what `is null` asks.
        "null_hidden": broken(condition.null_names),
    }


def _limit(points: float | None) -> str:
    """A cap's limit in hundredths of a point, as everything else in a score."""
    return "NULL::DOUBLE" if points is None else f"{round(points, 2)}::DOUBLE"


def _store(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: str,
    *,
    family_rollup: str,
    run_id: str | None,
    scored_at: dt.datetime | None,
) -> tuple[int, bool]:
    fingerprint = _fingerprint(connection, family_rollup)
    former = dict(
        connection.execute(
            f"SELECT revision, fingerprint FROM scores.revisions WHERE as_of = {day}"
        ).fetchall()
    )
    current = connection.execute(
        f"SELECT revision FROM scores.current_revisions WHERE as_of = {day}"
    ).fetchone()
    newest = max(former, default=0)
    for revision in (*(current or ()), newest):
        if former.get(revision) == fingerprint:
            return revision, False
    revision = newest + 1
    connection.execute(
        "INSERT INTO scores.libraries VALUES (?, ?) ON CONFLICT DO NOTHING",
        [library.fingerprint, library.document],
    )
    connection.execute(
        f"INSERT INTO scores.revisions VALUES ({day}, ?, ?, ?, ?, ?, false)",
        [revision, library.fingerprint, fingerprint, run_id, scored_at],
    )
    connection.execute(
        render("store_scores.sql", day=day, revision=revision, method=literal(family_rollup))
    )
    return revision, True


def _fingerprint(connection: duckdb.DuckDBPyConnection, family_rollup: str) -> str:
    """A hash of everything that a revision keeps, whatever the order of its rows."""
    # A hash of the hash: rows that change alike would otherwise cancel each other in pairs.
    row = connection.execute(
        "SELECT concat_ws('-', "
        "(SELECT bit_xor(hash(hash(s, p.segment, p.stage, p.desired_outcome, p.arr, p.parent_id))) "
        "FROM evaluated_scores AS s JOIN score_accounts AS p USING (account_id)), "
        "(SELECT bit_xor(hash(hash(c))) FROM evaluated_contributions AS c), ?)",
        [family_rollup],
    ).fetchone()
    assert row is not None
    return str(row[0])


def accept(connection: duckdb.DuckDBPyConnection, day: dt.date, revision: int) -> None:
    """Make a revision the day's current one, and what later days are compared with."""
    connection.execute(
        "UPDATE scores.revisions SET accepted = true WHERE as_of = ? AND revision = ?",
        [day, revision],
    )


def create_table(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    columns: str,
    rows: Iterable[tuple[Any, ...]],
) -> None:
    """A temporary table with these rows: one statement, however many rows."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    values = [f"({', '.join(_value(item) for item in row)})" for row in rows]
    if values:
        connection.execute(f"INSERT INTO {name} VALUES {', '.join(values)}")


def _value(item: Any) -> str:
    return f"'{item}'::DOUBLE" if isinstance(item, float) else literal(item)
