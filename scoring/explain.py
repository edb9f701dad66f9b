"""One account's score on one day, with everything that made it, and why it changed."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import duckdb

from contracts.errors import NotFoundError
from scoring.changes import Change, split_change
from scoring.library import Library, from_document
from scoring.reasons import label_of, unit_of


@dataclass(frozen=True)
class Contribution:
    """What one component, one cap, or a person who set the score adds to it.

    `points` are 0 to 100 on the component's curve; ``contribution = effective_weight * points``,
    rounded so that all contributions of a score sum exactly to it.
    """

    kind: str
    metric: str | None
    label: str
    pillar: str | None
    owner: str | None
    value: float | None
    unit: str
    state: str | None
    reason: str | None
    weight: float | None
    effective_weight: float | None
    points: float | None
    contribution: Decimal


@dataclass(frozen=True)
class FamilyScore:
    """The score of an account with its child accounts."""

    method: str
    members: int
    value: Decimal | None
    decisive_account_id: str


@dataclass(frozen=True)
class Explanation:
    """A score that explains itself. `low` and `high` bound it whatever the missing data says."""

    account_id: str
    name: str | None
    score: str
    as_of: dt.date
    value: Decimal | None
    band: str
    band_reason: str | None
    low: Decimal
    high: Decimal
    coverage: float
    scorecard: str
    version: int
    segment: str
    stage: str
    outcome: str | None
    edges: tuple[float, float]
    contributions: tuple[Contribution, ...]
    family: FamilyScore | None
    change: Change | None


def explain(
    connection: duckdb.DuckDBPyConnection,
    account: str,
    *,
    score: str = "risk",
    as_of: dt.date | None = None,
    since: dt.date | None = None,
) -> Explanation:
    """Explain an account's score; `account` is its id or its name.

    Raises:
        NotFoundError: no such account, score or scored day; the remedy names what there is.
    """
    day = scored_day(connection, as_of)
    account_id, name = find_account(connection, account, day)
    stored = _stored_score(connection, account_id, score, day)
    if stored is None:
        raise _no_such_score(connection, account, account_id, score, day)
    library = library_of(connection, day)
    card = next(c.card for c in library.scorecards if c.name == stored["scorecard"])
    change = None
    if since is not None:
        change = split_change(
            connection, account_id, score=score, since=scored_day(connection, since), until=day
        )
    return Explanation(
        account_id=account_id,
        name=name,
        score=score,
        as_of=day,
        **stored,
        edges=card.edges,
        contributions=_contributions(connection, library, account_id, score, day),
        family=_family(connection, account_id, score, day),
        change=change,
    )


_STORED = (
    "value", "band", "band_reason", "low", "high", "coverage", "scorecard", "version", "segment",
    "stage", "outcome",
)  # fmt: skip


def _stored_score(
    connection: duckdb.DuckDBPyConnection, account_id: str, score: str, day: dt.date
) -> dict[str, Any] | None:
    row = connection.execute(
        f"SELECT {', '.join(_STORED)} FROM scores.scores "
        "WHERE as_of = ? AND account_id = ? AND score = ?",
        [day, account_id, score],
    ).fetchone()
    return dict(zip(_STORED, row, strict=True)) if row else None


def _no_such_score(
    connection: duckdb.DuckDBPyConnection, account: str, account_id: str, score: str, day: dt.date
) -> NotFoundError:
    rows = connection.execute(
        "SELECT DISTINCT score FROM scores.scores WHERE as_of = ? AND account_id = ? ORDER BY 1",
        [day, account_id],
    ).fetchall()
    kinds = ", ".join(kind for (kind,) in rows)
    return NotFoundError(
        f"'{account}' has no {score} score on {day}",
        f"choose one of: {kinds}" if kinds else f"score the day: `healthloop run --as-of {day}`",
    )


def scored_day(connection: duckdb.DuckDBPyConnection, day: dt.date | None) -> dt.date:
    """The day itself where it is scored, or the last scored day where none is asked for."""
    rows = connection.execute("SELECT as_of FROM scores.current_revisions ORDER BY 1").fetchall()
    days = [scored for (scored,) in rows]
    if not days:
        raise NotFoundError("nothing is scored yet", "run `healthloop run` first")
    if day is None:
        return days[-1]
    if day not in days:
        close = min(days, key=lambda scored: abs(scored - day))
        raise NotFoundError(
            f"{day} is not scored",
            f"the nearest scored day is {close}; `healthloop run --as-of {day}` scores it",
        )
    return day


def find_account(
    connection: duckdb.DuckDBPyConnection, account: str, day: dt.date
) -> tuple[str, str | None]:
    """An account's id and name, by id or by name (whatever the case)."""
    rows = connection.execute(
        "SELECT account_id, name FROM metrics.accounts WHERE as_of = ? "
        "AND (account_id = ? OR lower(name) = lower(?)) ORDER BY account_id = ? DESC, account_id",
        [day, account, account, account],
    ).fetchall()
    if len(rows) == 1 or (rows and rows[0][0] == account):
        return rows[0]
    if rows:
        ids = ", ".join(account_id for account_id, _ in rows)
        raise NotFoundError(f"'{account}' names {len(rows)} accounts", f"use an id: {ids}")
    last = connection.execute(
        "SELECT max(as_of) FROM metrics.accounts WHERE account_id = ?", [account]
    ).fetchone()
    if last and last[0]:
        raise NotFoundError(
            f"'{account}' was no customer on {day}", f"it was one on {last[0]}; use --as-of"
        )
    close = connection.execute(
        "SELECT text FROM (SELECT unnest([account_id, name]) AS text FROM metrics.accounts "
        "WHERE as_of = $1) WHERE jaro_winkler_similarity(lower(text), lower($2)) > 0.8 "
        "GROUP BY text ORDER BY jaro_winkler_similarity(lower(text), lower($2)) DESC, text LIMIT 3",
        [day, account],
    ).fetchall()
    names = " or ".join(f"'{text}'" for (text,) in close)
    raise NotFoundError(
        f"no customer account '{account}' on {day}",
        f"did you mean {names}?" if names else "`healthloop scores` lists them",
    )


def library_of(connection: duckdb.DuckDBPyConnection, day: dt.date) -> Library:
    """The library that made the scores of a day."""
    row = connection.execute(
        "SELECT l.document FROM scores.revisions AS r JOIN scores.libraries AS l USING (library) "
        "JOIN scores.current_revisions USING (as_of, revision) WHERE as_of = ?",
        [day],
    ).fetchone()
    if row is None:
        raise NotFoundError(f"{day} is not scored", f"`healthloop run --as-of {day}` scores it")
    return from_document(row[0])


def _contributions(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    account_id: str,
    score: str,
    day: dt.date,
) -> tuple[Contribution, ...]:
    rows = connection.execute(
        "SELECT kind, metric, pillar, value, state, reason, weight, effective_weight, points, "
        "contribution FROM scores.contributions WHERE as_of = ? AND account_id = ? AND score = ? "
        "ORDER BY kind = 'override', kind = 'cap', contribution DESC, position",
        [day, account_id, score],
    ).fetchall()
    return tuple(_contribution(library, *row) for row in rows)


def _contribution(
    library: Library, kind: str, metric: str | None, pillar: str | None, *rest: Any
) -> Contribution:
    value, state, reason, weight, effective_weight, points, contribution = rest
    measure = library.measures.get(metric) if metric else None
    return Contribution(
        kind=kind,
        metric=metric,
        label=label_of(library, metric) if metric else str(reason),
        pillar=pillar,
        owner=measure.owner if measure else None,
        value=value,
        unit=unit_of(library, metric) if metric else "",
        state=state,
        reason=reason,
        weight=weight,
        effective_weight=effective_weight,
        points=points,
        contribution=contribution,
    )


def _family(
    connection: duckdb.DuckDBPyConnection, account_id: str, score: str, day: dt.date
) -> FamilyScore | None:
    row = connection.execute(
        "SELECT method, members, value, decisive_account_id FROM scores.families "
        "WHERE as_of = ? AND account_id = ? AND score = ?",
        [day, account_id, score],
    ).fetchone()
    return FamilyScore(*row) if row else None
