"""Commands that ask what was scored: `scores`, `explain` and `gaps`."""

import datetime as dt
from typing import Annotated, Any

import duckdb
import typer

from contracts.company import read_company
from contracts.errors import NotFoundError
from orchestration.cli.console import Format, console, errors, print_json, print_rows
from orchestration.cli.options import HOME, AsOf, Form, Home, day_option, scored_warehouse
from orchestration.cli.pages import explanation_page
from scoring.config.scorecards import BANDS
from scoring.explain import explain as explain_score
from scoring.explain import find_account, library_of, scored_day
from scoring.reports import metrics_in_use, tracking_gaps


def scores(
    home: Home = HOME,
    score: Annotated[str, typer.Option(help="risk, upsell, ...")] = "risk",
    band: Annotated[str | None, typer.Option(help="Only this band.")] = None,
    segment: Annotated[str | None, typer.Option(help="Only this segment.")] = None,
    as_of: AsOf = None,
    trend: Annotated[
        bool, typer.Option("--trend", help="Bands over all scored days instead of accounts.")
    ] = False,
    account: Annotated[str | None, typer.Option(help="With --trend: one account.")] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most rows of a table; JSON and CSV are whole.")
    ] = 25,
    form: Form = Format.TABLE,
) -> None:
    """List the scores of a day, or their trend."""
    company = read_company(home)
    with scored_warehouse(company) as connection:
        day = scored_day(connection, as_of)
        _refuse_unknown(connection, day, score, band, segment)
        if trend:
            columns, rows = _trend(connection, day, score, segment, account)
        else:
            columns, rows = _scores(connection, day, score, band, segment)
    title = f"{score} {'over time' if trend else f'as of {day}'}"
    shown = rows if form is not Format.TABLE or trend else rows[:limit]
    print_rows(title, columns, shown, form)
    if len(shown) < len(rows):
        errors.print(f"{len(rows) - len(shown):,} more; --limit shows them", style="dim")


def _refuse_unknown(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    score: str,
    band: str | None,
    segment: str | None,
) -> None:
    """Refuse names that no score of a day has: an empty list would look like good news.

    Raises:
        NotFoundError: there is no such score, band or segment.
    """
    rows = connection.execute(
        "SELECT DISTINCT score, segment FROM scores.scores WHERE as_of = ? ORDER BY ALL", [day]
    ).fetchall()
    kinds = list(dict.fromkeys(kind for kind, _ in rows))
    if score not in kinds:
        raise NotFoundError(
            f"there is no score '{score}' on {day}", f"choose one of: {', '.join(kinds)}"
        )
    bands = (*BANDS[score.partition(":")[0]], "unknown")
    if band is not None and band not in bands:
        raise NotFoundError(f"{score} has no band '{band}'", f"choose one of: {', '.join(bands)}")
    segments = [name for kind, name in rows if kind == score]
    if segment is not None and segment not in segments:
        raise NotFoundError(
            f"there is no segment '{segment}' on {day}", f"choose one of: {', '.join(segments)}"
        )


def _scores(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    score: str,
    band: str | None,
    segment: str | None,
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    rows = connection.execute(
        "SELECT s.account_id, a.name, s.segment, s.stage, a.owner, a.arr, s.value::DOUBLE, s.band, "
        "s.low::DOUBLE, s.high::DOUBLE, round(s.coverage, 3), s.scorecard || ' v' || s.version "
        "FROM scores.scores AS s JOIN metrics.accounts AS a USING (as_of, account_id) "
        "WHERE s.as_of = ? AND s.score = ? AND s.band = coalesce(?, s.band) "
        "AND s.segment = coalesce(?, s.segment) ORDER BY s.value DESC NULLS LAST, s.account_id",
        [day, score, band, segment],
    ).fetchall()
    columns = ("account_id", "name", "segment", "stage", "owner", "arr", "score", "band", "low",
               "high", "coverage", "scorecard")  # fmt: skip
    return columns, rows


def _trend(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    score: str,
    segment: str | None,
    account: str | None,
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    if account is not None:
        account, _ = find_account(connection, account, day)
        rows = connection.execute(
            "SELECT as_of, value::DOUBLE, band, low::DOUBLE, high::DOUBLE, round(coverage, 3), "
            "stage, scorecard || ' v' || version FROM scores.scores "
            "WHERE account_id = ? AND score = ? ORDER BY as_of",
            [account, score],
        ).fetchall()
        return ("as_of", "score", "band", "low", "high", "coverage", "stage", "scorecard"), rows
    rows = connection.execute(
        "SELECT as_of, segment, band, accounts, arr, mean_score FROM scores.trends "
        "WHERE score = ? AND segment = coalesce(?, 'all') ORDER BY as_of, band",
        [score, segment],
    ).fetchall()
    return ("as_of", "segment", "band", "accounts", "arr", "mean_score"), rows


def explain(
    account: Annotated[str, typer.Argument(help="The account's id or name.")],
    home: Home = HOME,
    score: Annotated[str, typer.Option(help="risk, upsell, ...")] = "risk",
    as_of: AsOf = None,
    since: Annotated[
        dt.date | None,
        typer.Option(
            "--since",
            parser=day_option,
            metavar="DAY",
            help="Split the change since this scored day.",
        ),
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Explain one score, and what moved it.

    Contributions sum exactly to the score, and the parts of a change exactly to the change.
    """
    company = read_company(home)
    with scored_warehouse(company) as connection:
        explanation = explain_score(connection, account, score=score, as_of=as_of, since=since)
    if form is Format.JSON:
        print_json(explanation)
    elif form is Format.CSV:
        columns = ("kind", "metric", "label", "pillar", "value", "state", "points", "weight")
        rows = [
            (*(getattr(c, name) for name in columns), float(c.contribution))
            for c in explanation.contributions
        ]
        print_rows("", (*columns, "adds"), rows, form)
    else:
        console.print(explanation_page(explanation))


def gaps(
    home: Home = HOME,
    as_of: AsOf = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Also metrics that no scorecard, profile or signal reads.")
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """List what cannot be scored, and why.

    For each metric and segment: the accounts that cannot have it, their share and their revenue.
    The reason is no link, no source, no event of that name, or a stream that is not ok.
    """
    company = read_company(home)
    with scored_warehouse(company) as connection:
        day = scored_day(connection, as_of)
        library = library_of(connection, day)
        used = None if whole else metrics_in_use(library)
        found = tracking_gaps(connection, day, metrics=used, library=library)
    rows = [
        (g.metric, g.segment, g.reason, g.accounts, round(100 * g.share, 2), g.arr) for g in found
    ]
    print_rows("", ("metric", "segment", "why", "accounts", "share_percent", "arr"), rows, form)
