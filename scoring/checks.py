"""What must be true of a day's scores before anything is made of them."""

import datetime as dt
from dataclasses import dataclass

import duckdb

_REVISION = "coalesce($2, (SELECT revision FROM scores.current_revisions WHERE as_of = $1))"


@dataclass(frozen=True)
class Check:
    """The result of one check: whether it holds, what to do where it does not, and the numbers."""

    passed: bool
    remedy: str | None
    numbers: dict[str, float | int | str]


def within_range(
    connection: duckdb.DuckDBPyConnection, day: dt.date, revision: int | None = None
) -> Check:
    """Every score is between 0 and 100 and between its bounds; by default of the current scores."""
    scores, outside = _numbers(
        connection,
        "SELECT count(*), count(*) FILTER (WHERE value NOT BETWEEN 0 AND 100 "
        "OR value NOT BETWEEN low AND high) FROM scores.all_scores "
        f"WHERE as_of = $1 AND revision = {_REVISION}",
        day,
        revision,
    )
    return Check(
        outside == 0,
        f"{outside} scores are outside 0 to 100 or their bounds; this is a defect of Healthloop: "
        "report it with the output of `healthloop explain`",
        {"scores": scores, "outside": outside},
    )


def contributions_add_up(
    connection: duckdb.DuckDBPyConnection, day: dt.date, revision: int | None = None
) -> Check:
    """The contributions of every score sum exactly to its value."""
    scores, wrong = _numbers(
        connection,
        "WITH sums AS (SELECT account_id, score, sum(contribution) AS total "
        f"FROM scores.all_contributions WHERE as_of = $1 AND revision = {_REVISION} GROUP BY ALL) "
        "SELECT count(*), count(*) FILTER (WHERE total IS DISTINCT FROM value) "
        "FROM scores.all_scores LEFT JOIN sums USING (account_id, score) "
        f"WHERE as_of = $1 AND revision = {_REVISION} AND value IS NOT NULL",
        day,
        revision,
    )
    return Check(
        wrong == 0,
        f"the contributions of {wrong} scores do not add up; this is a defect of Healthloop: "
        "report it with the output of `healthloop explain`",
        {"scores": scores, "not adding up": wrong},
    )


def band_changes(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    revision: int,
    *,
    allowed_share_a_day: float,
) -> Check:
    """Few enough accounts change their risk band at once.

    A revision is compared with the last one that was accepted: of the same day (so a new scorecard
    that shifts everybody is seen), else of the last day before. What is allowed grows with the days
    in between: of 10 % a day, ``1 - 0.9 ** 7 = 52 %`` a week. Accounts that become unknown count.
    What is accepted once stays so.
    """
    before = connection.execute(
        "SELECT as_of, revision FROM scores.revisions WHERE accepted AND as_of <= ? "
        "ORDER BY as_of DESC, (as_of, revision) = (?, ?) DESC, revision DESC LIMIT 1",
        [day, day, revision],
    ).fetchone()
    if before is None:
        return Check(True, None, {"compared with": "nothing: this is the first scored day"})
    if before == (day, revision):
        return Check(True, None, {"compared with": "nothing: these scores are accepted already"})
    days = max((day - before[0]).days, 1)
    allowed = 1 - (1 - allowed_share_a_day) ** days
    accounts, changed = _numbers(
        connection,
        "SELECT count(*), count(*) FILTER (WHERE now.band <> old.band) "
        "FROM scores.all_scores AS now JOIN scores.all_scores AS old USING (account_id, score) "
        "WHERE now.as_of = ? AND now.revision = ? AND score = 'risk' "
        "AND old.as_of = ? AND old.revision = ?",
        day, revision, *before,
    )  # fmt: skip
    share = changed / accounts if accounts else 0.0
    return Check(
        share <= allowed,
        f"{share:.0%} of the accounts change their risk band against {before[0]} "
        f"({allowed:.0%} is allowed); look at `healthloop explain ACCOUNT --since {before[0]}`, "
        "and where the change is meant run again with --accept-band-changes",
        {
            "compared with": f"{before[0]}, revision {before[1]}",
            "accounts": accounts,
            "changed": changed,
            "share": round(share, 4),
            "allowed": round(allowed, 4),
        },
    )


def _numbers(
    connection: duckdb.DuckDBPyConnection, sql: str, *parameters: object
) -> tuple[int, int]:
    row = connection.execute(sql, list(parameters)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
