"""The commands: `healthloop demo | run | check | scores | explain | catalogue | gaps | doctor | ...`."""

import datetime as dt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import duckdb
import pydantic
import typer

from connectors.plan import Plan, read_plan
from connectors.sandbox.demo import write_demo_company
from connectors.sources import check_sources
from contracts.company import Company, Settings, check_company, read_company
from contracts.errors import ConfigurationError, InputError, NotFoundError
from orchestration.cli.console import Format, console, errors, print_json, print_rows
from orchestration.cli.pages import explanation_page, portfolio_page
from orchestration.cli.progress import watched
from orchestration.doctor import examine
from orchestration.editor import write_schemas
from orchestration.resources import clock, warehouse_of
from orchestration.runs import Run, instance_folder, raise_if_held, run_days
from scoring.catalogue import catalogue as catalogue_of
from scoring.config.scorecards import BANDS
from scoring.explain import explain as explain_score
from scoring.explain import find_account, library_of, scored_day
from scoring.library import check_library, read_library
from scoring.reports import metrics_in_use, portfolio, tracking_gaps

app = typer.Typer(
    help="Explained risk and upsell scores for SaaS customers, computed in Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

DEMO_WEEK_ENDS = 26


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no day; write it like 2026-06-30") from None


Home = Annotated[
    Path, typer.Option("--home", envvar="HEALTHLOOP_HOME", help="The company folder.", show_default=True)
]
Day = Annotated[dt.date | None, typer.Option(parser=_day, metavar="DAY")]
Form = Annotated[Format, typer.Option("--format", help="How data is printed.")]
HOME = Path("company")


@app.command(epilog="Example:  healthloop demo --accounts 500")
def demo(
    home: Home = HOME,
    accounts: Annotated[int, typer.Option(min=50, max=20000, help="Size of the synthetic company.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed is another company.")] = 7,
) -> None:
    """Make a synthetic company and run the main job on it.

    The second call shows the same page at once; `healthloop run` looks for new data.
    """
    made = write_demo_company(home, seed=seed, accounts=accounts)
    company = read_company(home)
    if made is not None:
        write_schemas(home)
        errors.print(f"Made a synthetic company of {accounts:,} accounts in {home}.")
    today = company.last_day(clock())
    days = [*week_ends(today, DEMO_WEEK_ENDS), today]
    missing = [day for day in days if day not in _scored_days(company)]
    if missing:
        with watched() as on_step:
            run = run_days(company, days, pull=True, on_step=on_step)
        raise_if_held(run)
    else:
        errors.print("Everything is scored already; `healthloop run` looks for new data.")
    _show_portfolio(company, today)
    worst = _worst_account(company, today)
    shown = "" if home == HOME else f" --home {home}"
    console.print(
        "Where to look next:\n"
        f"  healthloop explain {worst} --since {days[-5]}{shown}\n"
        f"  healthloop scores --band red{shown}\n"
        f"  healthloop catalogue{shown}\n"
        f"  healthloop ui{shown}      (or `make ui`) the runs, the graph and the checks in Dagster",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def week_ends(today: dt.date, count: int) -> list[dt.date]:
    """The last `count` Sundays before a day, oldest first."""
    last = today - dt.timedelta(days=today.isoweekday() % 7 or 7)
    return [last - dt.timedelta(weeks=weeks) for weeks in reversed(range(count))]


def month_ends(first: dt.date, last: dt.date) -> list[dt.date]:
    """The ends of the months between two days, both included."""
    days = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
    return [day for day in days if (day + dt.timedelta(days=1)).day == 1]


@app.command(epilog="Example:  healthloop run --from 2026-01-01 --to 2026-06-30 --every month-end")
def run(
    home: Home = HOME,
    as_of: Annotated[dt.date | None, typer.Option("--as-of", parser=_day, metavar="DAY", help="Score this day.")] = None,
    first: Annotated[dt.date | None, typer.Option("--from", parser=_day, metavar="DAY", help="First day of a range.")] = None,
    last: Annotated[dt.date | None, typer.Option("--to", parser=_day, metavar="DAY", help="Last day of a range.")] = None,
    every: Annotated[str, typer.Option(help="day, week-end or month-end of the range.")] = "day",
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Pull the sources first, or score what is there.")] = True,
    accept_band_changes: Annotated[
        bool, typer.Option("--accept-band-changes", help="The change of bands is meant: do not hold the run.")
    ] = False,
) -> None:
    """Pull, score and plan: the daily job.

    It is the job of the Dagster UI, recorded there. Without days it is for the last whole day.
    """
    company = read_company(home)
    days = _days_to_run(company, as_of, first, last, every)
    with watched() as on_step:
        done = run_days(
            company, days, pull=pull, accept_band_changes=accept_band_changes, on_step=on_step
        )
    _warn(done)
    raise_if_held(done)
    _show_portfolio(company, days[-1])
    console.print(f"Run {done.run_id}", style="dim")


def _days_to_run(
    company: Company, as_of: dt.date | None, first: dt.date | None, last: dt.date | None, every: str
) -> list[dt.date]:
    latest = company.last_day(clock())
    if as_of and (first or last):
        raise InputError("--as-of and --from/--to are two ways to choose", "give one of them")
    if bool(first) != bool(last):
        raise InputError("a range needs both ends", "give --from and --to")
    if every not in ("day", "week-end", "month-end"):
        raise InputError(f"--every is '{every}'", "it must be day, week-end or month-end")
    days = [as_of or latest]
    if first and last:
        whole = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
        chosen = {
            "day": whole,
            "week-end": [day for day in whole if day.isoweekday() == 7],
            "month-end": month_ends(first, last),
        }
        days = chosen[every]
        if not days:
            raise InputError(f"there is no {every} from {first} to {last}", "choose other days")
    start = company.settings.history_start
    for day in (days[0], days[-1]):
        if not start <= day <= latest:
            raise InputError(
                f"{day} cannot be scored", f"choose days from {start} (history_start) to {latest}"
            )
    return days


@app.command(epilog="Example:  healthloop check --home company")
def check(home: Home = HOME) -> None:
    """Check the whole company folder at once.

    Every mistake is one line: file, line, what is wrong and how to mend it. Exit code 2 then.
    """
    company, document, problems = check_company(home)
    if company is None:
        company = Company(home.resolve(), _settings_that_hold(document.data if document else None))
    sources, of_sources = check_sources(company)
    library, of_library = check_library(company)
    problems = [*problems, *of_sources, *of_library]
    warnings = library.warnings if library else ()
    for warning in warnings:
        errors.print(f"warning: {warning}", markup=False, soft_wrap=True, style="yellow")
    if problems or library is None:
        raise ConfigurationError(problems)
    console.print(
        f"{home} is in order: {len(sources)} sources, {len(library.metrics)} metrics, "
        f"{len(library.scorecards)} scorecards, {len(warnings)} warnings.",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _settings_that_hold(data: Any) -> Settings:
    """The settings that are in order: wrong ones must not hide the mistakes of other files."""
    given = {str(key): value for key, value in data.items()} if isinstance(data, dict) else {}
    needed = {"name": "-", "tenant": "none", "history_start": dt.date.min}
    try:
        return Settings.model_validate(given)
    except pydantic.ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        kept = {name: value for name, value in given.items() if name not in wrong}
        return Settings.model_validate({**needed, **kept})


@app.command(epilog="Example:  healthloop scores --score risk --band red --format csv > red.csv")
def scores(
    home: Home = HOME,
    score: Annotated[str, typer.Option(help="risk, upsell, ...")] = "risk",
    band: Annotated[str | None, typer.Option(help="Only this band.")] = None,
    segment: Annotated[str | None, typer.Option(help="Only this segment.")] = None,
    as_of: Annotated[dt.date | None, typer.Option("--as-of", parser=_day, metavar="DAY", help="A scored day.")] = None,
    trend: Annotated[bool, typer.Option("--trend", help="Bands over all scored days instead of accounts.")] = False,
    account: Annotated[str | None, typer.Option(help="With --trend: one account.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows of a table; JSON and CSV are whole.")] = 25,
    form: Form = Format.TABLE,
) -> None:
    """List the scores of a day, or their trend."""
    company = read_company(home)
    with _scored_warehouse(company) as connection:
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


@contextmanager
def _scored_warehouse(company: Company) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse to read from: several commands may look into it at once.

    Raises:
        NotFoundError: nothing is scored yet.
    """
    nothing = NotFoundError("nothing is scored yet", "run `healthloop run` first")
    if not company.warehouse.exists():
        raise nothing
    with warehouse_of(company, read_only=True).get_connection() as connection:
        views = connection.execute("SELECT 1 FROM duckdb_views() WHERE schema_name = 'scores'")
        if views.fetchone() is None:
            raise nothing
        yield connection


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
        raise NotFoundError(f"there is no score '{score}' on {day}", f"choose one of: {', '.join(kinds)}")
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
            "SELECT as_of, value::DOUBLE, band, low::DOUBLE, high::DOUBLE, round(coverage, 3), stage, "
            "scorecard || ' v' || version FROM scores.scores "
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


@app.command(epilog="Example:  healthloop explain ACC-00042 --since 2026-06-01")
def explain(
    account: Annotated[str, typer.Argument(help="The account's id or name.")],
    home: Home = HOME,
    score: Annotated[str, typer.Option(help="risk, upsell, ...")] = "risk",
    as_of: Annotated[dt.date | None, typer.Option("--as-of", parser=_day, metavar="DAY", help="A scored day; the last by default.")] = None,
    since: Annotated[dt.date | None, typer.Option("--since", parser=_day, metavar="DAY", help="Split the change since this scored day.")] = None,
    form: Form = Format.TABLE,
) -> None:
    """Explain one score, and what moved it.

    Contributions sum exactly to the score, and the parts of a change exactly to the change.
    """
    company = read_company(home)
    with _scored_warehouse(company) as connection:
        explanation = explain_score(connection, account, score=score, as_of=as_of, since=since)
    if form is Format.JSON:
        print_json(explanation)
    elif form is Format.CSV:
        rows = [
            (c.kind, c.metric, c.label, c.pillar, c.value, c.state, c.points, c.weight, float(c.contribution))
            for c in explanation.contributions
        ]
        columns = ("kind", "metric", "label", "pillar", "value", "state", "points", "weight", "adds")
        print_rows("", columns, rows, form)
    else:
        console.print(explanation_page(explanation))


@app.command(epilog="Example:  healthloop catalogue > catalogue.md")
def catalogue(home: Home = HOME) -> None:
    """Print all metrics and scorecards as markdown."""
    company = read_company(home)
    sys.stdout.write(catalogue_of(read_library(company), company.settings.name))


@app.command(epilog="Example:  healthloop gaps --format csv > gaps.csv")
def gaps(
    home: Home = HOME,
    as_of: Annotated[dt.date | None, typer.Option("--as-of", parser=_day, metavar="DAY", help="A scored day.")] = None,
    whole: Annotated[
        bool, typer.Option("--all", help="Also metrics that no scorecard, profile or signal reads.")
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """List what cannot be scored, and why."""
    company = read_company(home)
    with _scored_warehouse(company) as connection:
        day = scored_day(connection, as_of)
        used = None if whole else metrics_in_use(library_of(connection, day))
        found = tracking_gaps(connection, day, metrics=used)
    rows = [(g.metric, g.segment, g.reason, g.accounts, round(g.share, 4), g.arr) for g in found]
    print_rows("", ("metric", "segment", "why", "accounts", "share", "arr"), rows, form)


@app.command(epilog="Example:  healthloop doctor")
def doctor(home: Home = HOME, form: Form = Format.TABLE) -> None:
    """Say what is misconfigured or missing.

    Each finding comes with what to do about it. Exit code 1 where there are problems.
    """
    findings = list(examine(read_company(home)))
    rows = [(f.level, f.about, f.seen, f.remedy) for f in findings]
    print_rows("", ("", "about", "seen", "what to do"), rows, form)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example:  healthloop schemas")
def schemas(home: Home = HOME) -> None:
    """Write JSON Schemas for your editor."""
    written = write_schemas(read_company(home).home)
    names = ", ".join(file.name for file in written)
    console.print(f"Wrote {names} to {home / 'schemas'}.", markup=False, soft_wrap=True)


@app.command(epilog="Example:  healthloop ui --port 3000")
def ui(
    home: Home = HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on 127.0.0.1.")] = 3000,
) -> None:
    """Open Dagster over the same runs, on 127.0.0.1."""
    company = read_company(home)
    os.environ["DAGSTER_HOME"] = str(instance_folder(company).resolve())
    os.environ["HEALTHLOOP_HOME"] = str(company.home)
    console.print(f"Dagster is starting at http://127.0.0.1:{port}; stop it with Ctrl-C.")
    program = str(Path(sys.executable).parent / "dg")
    arguments = ["dev", "-m", "orchestration.definitions", "-h", "127.0.0.1", "-p", str(port)]
    os.execv(program, [program, *arguments])


def _scored_days(company: Company) -> set[dt.date]:
    if not company.warehouse.exists():
        return set()
    with warehouse_of(company, read_only=True).get_connection() as connection:
        try:
            rows = connection.execute("SELECT as_of FROM scores.current_revisions").fetchall()
        except duckdb.CatalogException:
            return set()
    return {day for (day,) in rows}


def _show_portfolio(company: Company, day: dt.date) -> None:
    with _scored_warehouse(company) as connection:
        glance = portfolio(connection, library_of(connection, day), day)
        plan: Plan | None
        try:
            plan = read_plan(connection, day)
        except duckdb.CatalogException:
            plan = None
    console.print(portfolio_page(company, glance, plan))


def _worst_account(company: Company, day: dt.date) -> str:
    with _scored_warehouse(company) as connection:
        row = connection.execute(
            "SELECT account_id FROM scores.scores WHERE as_of = ? AND score = 'risk' "
            "AND band <> 'unknown' ORDER BY value DESC, arr DESC NULLS LAST, account_id LIMIT 1",
            [day],
        ).fetchone()
    return str(row[0]) if row else "ACCOUNT"


def _warn(run: Run) -> None:
    for warning in run.warnings:
        errors.print(f"DEGRADED: {warning}", style="yellow", markup=False, soft_wrap=True)
