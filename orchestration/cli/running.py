"""Commands that run the job: `demo`, `run` and `ui`."""

import datetime as dt
import os
import socket
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from connectors.crm.changes import Changes, read_totals
from connectors.crm.settings import read_crm
from connectors.sandbox.demo import PORT, write_demo_company
from contracts.company import Company, read_company
from contracts.errors import InputError
from orchestration.cli.beside import sandbox_beside
from orchestration.cli.console import console, errors
from orchestration.cli.group import end_as_with_ctrl_c, run_group
from orchestration.cli.options import HOME, Home, day_option, scored_warehouse
from orchestration.cli.pages import became_of, portfolio_page
from orchestration.cli.progress import watched
from orchestration.crm_plans import newest_plan
from orchestration.crms import settings_of
from orchestration.editor import write_schemas
from orchestration.resources import clock, warehouse_of
from orchestration.runs import (
    LOST,
    Run,
    fail_lost_runs,
    instance_folder,
    raise_if_held,
    run_days,
    run_news,
)
from scoring.explain import library_of
from scoring.reports import portfolio

DEMO_WEEK_ENDS = 26


def demo(
    home: Home = HOME,
    accounts: Annotated[
        int, typer.Option(min=50, max=20000, help="Size of the synthetic company.")
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed is another company.")] = 7,
    port: Annotated[
        int,
        typer.Option(min=1024, max=65534, help="Where its sandbox answers; TLS is on the next."),
    ] = PORT,
) -> None:
    """Make a synthetic company and run the main job on it.

    Its vendors are a sandbox on this machine, which the sources are pulled from over HTTP. The
    second call shows the same page at once; `healthloop run` looks for new data.
    """
    made = write_demo_company(home, seed=seed, accounts=accounts, port=port)
    company = read_company(home)
    if made is not None:
        write_schemas(home)
        errors.print(
            f"Made a synthetic company of {accounts:,} accounts in {home}.", soft_wrap=True
        )
    today = company.last_day(clock())
    days = [*week_ends(today, DEMO_WEEK_ENDS), today]
    missing = [day for day in days if day not in _scored_days(company)]
    if missing:
        with sandbox_beside(company), watched() as on_step:
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
        f"  healthloop plan{shown}      what would be written into the CRM, and which tasks\n"
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


def run(
    home: Home = HOME,
    as_of: Annotated[
        dt.date | None,
        typer.Option("--as-of", parser=day_option, metavar="DAY", help="Score this day."),
    ] = None,
    first: Annotated[
        dt.date | None,
        typer.Option("--from", parser=day_option, metavar="DAY", help="First day of a range."),
    ] = None,
    last: Annotated[
        dt.date | None,
        typer.Option("--to", parser=day_option, metavar="DAY", help="Last day of a range."),
    ] = None,
    every: Annotated[str, typer.Option(help="day, week-end or month-end of the range.")] = "day",
    pull: Annotated[
        bool,
        typer.Option("--pull/--no-pull", help="Pull the sources first, or score what is there."),
    ] = True,
    news: Annotated[
        bool,
        typer.Option("--news", help="The fast lane: only accounts with new facts, as of now."),
    ] = False,
    accept_band_changes: Annotated[
        bool,
        typer.Option(
            "--accept-band-changes", help="The change of bands is meant: do not hold the run."
        ),
    ] = False,
) -> None:
    """Pull, score and plan: the daily job.

    It is the job of the Dagster UI, recorded there. Without days it is for the last whole day.
    """
    company = read_company(home)
    if news:
        _run_news(company, chosen=bool(as_of or first or last))
        return
    days = _days_to_run(company, as_of, first, last, every)
    with sandbox_beside(company) if pull else nullcontext(), watched() as on_step:
        done = run_days(
            company, days, pull=pull, accept_band_changes=accept_band_changes, on_step=on_step
        )
    _warn(done)
    raise_if_held(done)
    _show_portfolio(company, days[-1], planned=pull)
    console.print(f"Run {done.run_id}", style="dim")


def _run_news(company: Company, *, chosen: bool) -> None:
    if chosen:
        raise InputError("--news is about this moment", "leave out --as-of, --from and --to")
    settings_of(company)
    began = clock()
    with sandbox_beside(company), watched() as on_step:
        done = run_news(company, on_step=on_step)
    _warn(done)
    raise_if_held(done)
    made = newest_plan(company, lambda plan: plan.lane == "fast" and plan.made_at >= began)
    if made is None:
        console.print("Nothing is new that anybody would see.")
    else:
        totals = made.plan.totals
        console.print(
            f"Plan {made.plan.plan_id}: {totals['fields']:,} fields of {totals['records']:,} "
            f"records, {totals['tasks_to_open']:,} tasks to open, {totals['tasks_to_close']:,} to "
            f"close. {became_of(made)}"
        )
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


def ui(
    home: Home = HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on 127.0.0.1.")] = 3000,
) -> None:
    """Open Dagster over the same runs, on 127.0.0.1."""
    company = read_company(home)
    _require_free(port)
    for run_id in fail_lost_runs(company):
        errors.print(f"Run {run_id} is marked as failed: {LOST}.", soft_wrap=True)
    os.environ["DAGSTER_HOME"] = str(instance_folder(company).resolve())
    os.environ["HEALTHLOOP_HOME"] = str(company.home)
    console.print(f"Dagster is starting at http://127.0.0.1:{port}; stop it with Ctrl-C.")
    program = str(Path(sys.executable).parent / "dg")
    arguments = ["dev", "-m", "orchestration.definitions", "-h", "127.0.0.1", "-p", str(port)]
    end_as_with_ctrl_c()
    with suppress(KeyboardInterrupt), sandbox_beside(company):
        sys.exit(run_group([program, *arguments]))


def _require_free(port: int) -> None:
    """Dagster itself would start its daemon, and notice half a minute later."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror})",
                "end what listens there (another `healthloop ui`?), or choose another --port",
            ) from None


def _scored_days(company: Company) -> set[dt.date]:
    if not company.warehouse.exists():
        return set()
    with warehouse_of(company, read_only=True).get_connection() as connection:
        try:
            rows = connection.execute("SELECT as_of FROM scores.current_revisions").fetchall()
        except duckdb.CatalogException:
            return set()
    return {day for (day,) in rows}


def _show_portfolio(company: Company, day: dt.date, *, planned: bool = True) -> None:
    """The page of a day; what it means for the CRM only if that was `planned` with the CRM."""
    stored = None
    if planned:
        stored = newest_plan(company, lambda plan: plan.as_of == day and plan.lane == "daily")
    shows_plan = stored is not None or read_crm(company) is None
    with scored_warehouse(company) as connection:
        glance = portfolio(connection, library_of(connection, day), day)
        changes: Changes | None = None
        with suppress(duckdb.CatalogException):
            changes = read_totals(connection, day) if shows_plan else None
    console.print(portfolio_page(company, glance, changes, stored))
    if not shows_plan:
        console.print(
            "For the CRM nothing was planned: `healthloop plan` shows what would be written.\n"
        )


def _worst_account(company: Company, day: dt.date) -> str:
    with scored_warehouse(company) as connection:
        row = connection.execute(
            "SELECT account_id FROM scores.scores WHERE as_of = ? AND score = 'risk' "
            "AND band <> 'unknown' ORDER BY value DESC, arr DESC NULLS LAST, account_id LIMIT 1",
            [day],
        ).fetchone()
    return str(row[0]) if row else "ACCOUNT"


def _warn(run: Run) -> None:
    for warning in run.warnings:
        errors.print(f"DEGRADED: {warning}", style="yellow", markup=False, soft_wrap=True)
