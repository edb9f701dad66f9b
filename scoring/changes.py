"""The exact split of a score's change between two days.

The score is evaluated again in between, changing one thing after the other:

1. **profile**: the account's profile of today, under the scorecards of then, over the data of then;
2. **scorecard**: the scorecards of today, over the data of then;
3. **missing data**: what is known today but was not then, or the other way round;
4. **behaviour**: everything else that moved, split by component: the weights are now the same;
5. **overrides**: how far a person who set the score by hand moved it, less how far one did then.

The first four are about the score without overrides. Each part is a difference between neighbours,
so the parts sum exactly to the change.
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

import duckdb

from contracts.errors import NotFoundError
from scoring.expressions import literal
from scoring.library import Library, NamedScorecard, from_document
from scoring.reasons import label_of
from scoring.scores import card_key, create_table, evaluate


@dataclass(frozen=True)
class Part:
    """One part of a change: its kind, what it is about, and how many points it moved the score."""

    kind: str
    label: str
    amount: Decimal
    metric: str | None = None
    value_then: float | None = None
    value_now: float | None = None


@dataclass(frozen=True)
class Change:
    """A change of a score; the amounts of its parts sum exactly to ``value_now - value_then``."""

    since: dt.date
    until: dt.date
    value_then: Decimal
    value_now: Decimal
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Scored:
    """What is stored of one account's score on one day.

    `by_hand` is how far a person who set it moved it, `because` what they said.
    """

    day: dt.date
    value: Decimal
    by_hand: Decimal
    because: str | None
    segment: str
    stage: str
    outcome: str | None
    card: NamedScorecard
    library: Library

    @property
    def computed(self) -> Decimal:
        """The score without the override."""
        return self.value - self.by_hand


def split_change(
    connection: duckdb.DuckDBPyConnection,
    account_id: str,
    *,
    score: str,
    since: dt.date,
    until: dt.date,
) -> Change:
    """Split the change of one account's score between two scored days.

    Raises:
        NotFoundError: the account had no such score, or no number, on one of the days.
    """
    then = _scored(connection, account_id, score, since)
    now = _scored(connection, account_id, score, until)
    old_card = (
        then.library.resolve(score=score, segment=now.segment, stage=now.stage, outcome=now.outcome)
        or then.card
    )
    values = _evaluate_between(connection, account_id, score, then, now, old_card)
    parts = [
        Part("profile", _profile_change(then, now), values["profile"] - then.computed),
        Part(
            "scorecard", _card_change(old_card, now.card), values["scorecard"] - values["profile"]
        ),
        Part(
            "missing data",
            _missing_change(connection, account_id, then, now),
            values["missing"] - values["scorecard"],
        ),
        *_behaviour(connection, account_id, score, then, now),
        Part("override", _override_change(then, now), now.by_hand - then.by_hand),
    ]
    return Change(since, until, then.value, now.value, tuple(parts))


def _scored(
    connection: duckdb.DuckDBPyConnection, account_id: str, score: str, day: dt.date
) -> _Scored:
    row = connection.execute(
        "SELECT s.value, coalesce(c.contribution, 0), c.reason, s.segment, s.stage, s.outcome, "
        "s.scorecard, l.document "
        "FROM scores.scores AS s JOIN scores.revisions AS r USING (as_of, revision) "
        "JOIN scores.libraries AS l USING (library) "
        "LEFT JOIN scores.contributions AS c ON c.as_of = s.as_of AND c.account_id = s.account_id "
        "AND c.score = s.score AND c.kind = 'override' "
        "WHERE s.as_of = ? AND s.account_id = ? AND s.score = ?",
        [day, account_id, score],
    ).fetchone()
    if row is None or row[0] is None:
        raise _no_number(connection, account_id, score, day, scored=row is not None)
    value, by_hand, because, segment, stage, outcome, name, document = row
    library = from_document(document)
    card = next(named for named in library.scorecards if named.name == name)
    return _Scored(day, value, by_hand, because, segment, stage, outcome, card, library)


def _no_number(
    connection: duckdb.DuckDBPyConnection,
    account_id: str,
    score: str,
    day: dt.date,
    *,
    scored: bool,
) -> NotFoundError:
    first = connection.execute(
        "SELECT min(as_of), max(as_of) FROM scores.scores "
        "WHERE account_id = ? AND score = ? AND value IS NOT NULL",
        [account_id, score],
    ).fetchone()
    what = "had no number" if scored else "was not scored"
    remedy = "choose another day with --since or --as-of"
    if first and first[0]:
        remedy += f"; it has a number from {first[0]} to {first[1]}"
    return NotFoundError(f"{score} of {account_id} {what} on {day}", remedy)


def _evaluate_between(
    connection: duckdb.DuckDBPyConnection,
    account_id: str,
    score: str,
    then: _Scored,
    now: _Scored,
    old_card: NamedScorecard,
) -> dict[str, Decimal]:
    """The score in the three worlds between then and now, by the same SQL as every score."""
    _make_worlds(connection, account_id, then.day, now.day)
    create_table(
        connection,
        "between_assignments",
        "account_id VARCHAR, score VARCHAR, scorecard VARCHAR",
        [
            ("profile", score, card_key(old_card)),
            ("scorecard", score, card_key(now.card)),
            ("missing", score, card_key(now.card)),
        ],
    )
    cards = {card_key(old_card): (old_card, then.library)}
    cards[card_key(now.card)] = (now.card, now.library)
    evaluate(
        connection,
        cards.values(),
        inputs="between_inputs",
        accounts="between_accounts",
        assignments="between_assignments",
    )
    rows = connection.execute(
        "SELECT account_id, any_value(value), sum(contribution) FROM evaluated_scores "
        "JOIN (SELECT account_id, contribution FROM evaluated_contributions) USING (account_id) "
        "GROUP BY account_id"
    ).fetchall()
    values = {world: value for world, value, _ in rows if value is not None}
    # A world in between without a number (a required metric was missing) changes nothing by itself;
    # but behaviour is counted from the contributions of the last one, whether it has one or not.
    profile = values.get("profile", then.computed)
    scorecard = values.get("scorecard", profile)
    (missing,) = (total for world, _, total in rows if world == "missing")
    return {"profile": profile, "scorecard": scorecard, "missing": missing}


def _make_worlds(
    connection: duckdb.DuckDBPyConnection, account_id: str, then: dt.date, now: dt.date
) -> None:
    """The inputs of the three worlds; each stands for an account of its own.

    ``profile`` and ``scorecard`` know what was known then. A metric that did not exist then came
    with the library, so ``scorecard`` has its value of today. ``missing`` knows what is known
    today, with the values of then wherever both days know one.
    """
    account = literal(account_id)
    usable = "('present', 'zero-filled')"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE between_inputs AS WITH "
        f"old AS (FROM metrics.metric_values WHERE account_id = {account} "
        f"AND as_of = {literal(then)}), "
        f"new AS (FROM metrics.metric_values WHERE account_id = {account} "
        f"AND as_of = {literal(now)}) "
        "SELECT 'profile' AS account_id, metric, value, state, reason FROM old "
        "UNION ALL SELECT 'scorecard', metric, value, state, reason FROM old "
        "UNION ALL SELECT 'scorecard', metric, value, state, reason FROM new ANTI JOIN old "
        "USING (metric) "
        "UNION ALL SELECT 'missing', new.metric, "
        f"CASE WHEN old.state IN {usable} AND new.state IN {usable} THEN old.value "
        "ELSE new.value END, new.state, new.reason FROM new LEFT JOIN old USING (metric)"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE between_accounts AS SELECT world AS account_id, "
        "a.* EXCLUDE (as_of, account_id) FROM metrics.accounts AS a, "
        "(VALUES ('profile'), ('scorecard'), ('missing')) AS worlds(world) "
        f"WHERE a.account_id = {account} AND a.as_of = {literal(then)}"
    )


def _behaviour(
    connection: duckdb.DuckDBPyConnection,
    account_id: str,
    score: str,
    then: _Scored,
    now: _Scored,
) -> list[Part]:
    """What each component and cap moved, from the world with today's gaps to today."""
    rows = connection.execute(
        "WITH world AS (SELECT * FROM evaluated_contributions WHERE account_id = 'missing'), "
        "today AS (SELECT * FROM scores.contributions "
        "WHERE account_id = ? AND score = ? AND as_of = ? AND kind <> 'override') "
        "SELECT coalesce(t.kind, w.kind), coalesce(t.metric, w.metric), "
        "coalesce(t.reason, w.reason), w.value, t.value, "
        "coalesce(t.contribution, 0) - coalesce(w.contribution, 0) AS moved "
        "FROM today AS t FULL JOIN world AS w USING (position) "
        "WHERE moved <> 0 ORDER BY abs(moved) DESC, position",
        [account_id, score, now.day],
    ).fetchall()
    return [_moved(then.library, now.library, *row) for row in rows]


def _moved(
    old: Library,
    new: Library,
    kind: str,
    metric: str | None,
    reason: str | None,
    value_then: float | None,
    value_now: float | None,
    amount: Decimal,
) -> Part:
    """A component or cap that moved: by behaviour, or because its metric is defined anew."""
    if kind == "cap" or metric is None:
        return Part("behaviour", str(reason), amount)
    label = label_of(new, metric)
    if old.measures.get(metric) not in (None, new.measures.get(metric)):
        return Part(
            "scorecard", f"{label}: its definition changed", amount, metric, value_then, value_now
        )
    return Part("behaviour", label, amount, metric, value_then, value_now)


def _profile_change(then: _Scored, now: _Scored) -> str:
    before, after = (
        ", ".join(part for part in (s.segment, s.stage, s.outcome) if part) for s in (then, now)
    )
    return f"{before} -> {after}" if before != after else "the same profile"


def _override_change(then: _Scored, now: _Scored) -> str:
    if now.because is None:
        return "none" if then.because is None else "no longer set by hand"
    return now.because


def _card_change(old: NamedScorecard, new: NamedScorecard) -> str:
    if card_key(old) == card_key(new):
        return "the same scorecard"
    return f"{old.identity} -> {new.identity}"


def _missing_change(
    connection: duckdb.DuckDBPyConnection, account_id: str, then: _Scored, now: _Scored
) -> str:
    rows = connection.execute(
        "SELECT metric, bool_or(as_of = $1 AND state IN ('present', 'zero-filled')) AS known_now, "
        "bool_or(as_of = $2 AND state IN ('present', 'zero-filled')) AS known_then "
        "FROM metrics.metric_values WHERE account_id = $3 AND as_of IN ($1, $2) "
        "GROUP BY metric HAVING known_now <> known_then AND bool_or(as_of = $2) ORDER BY metric",
        [now.day, then.day, account_id],
    ).fetchall()
    used = {component.metric for component in now.card.card.components}
    words = [
        f"{metric} is {'known' if known_now else 'missing'}"
        for metric, known_now, _ in rows
        if metric in used
    ]
    return ", ".join(words) or "the same data is known"
