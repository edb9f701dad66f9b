"""`healthloop sources`: the state of every stream, and `sources accept` for one that is right."""

import datetime as dt
from typing import Annotated, Any

import typer

from connectors.acceptance import accept as accept_loads
from connectors.api_pull import ACCOUNT
from connectors.health import StreamHealth, all_health
from connectors.lake import Lake
from connectors.sources import Source, read_sources
from contracts.company import Company, read_company
from contracts.errors import NotFoundError
from orchestration.assets.signals import are_built
from orchestration.cli.console import Format, console, print_rows
from orchestration.cli.options import HOME, Form, Home
from orchestration.resources import clock, warehouse_of

COLUMNS = (
    "source", "type", "stream", "status", "since", "reason", "last_load", "rows", "account",
    "next",
)  # fmt: skip

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Health = dict[tuple[str, str], StreamHealth]
Waiting = dict[tuple[str, str], list[str]]


@app.callback(invoke_without_command=True)
def sources(
    context: typer.Context,
    home: Home = HOME,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 unless every stream is ok.")
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """List every stream: whether it is well, since when, and what to do.

    Times are UTC. A stream that is not ok holds its last good values.
    """
    context.obj = home
    if context.invoked_subcommand:
        return
    company = read_company(home)
    health, waiting = _known(company)
    rows = [
        row for source in read_sources(company) for row in _rows(company, source, health, waiting)
    ]
    if form is Format.TABLE:
        _show(rows)
    else:
        print_rows("", COLUMNS, rows, form)
    if strict and any(row[COLUMNS.index("status")] != "ok" for row in rows):
        raise typer.Exit(1)


def _show(rows: list[tuple[Any, ...]]) -> None:
    """For people: the streams, and apart from them whose data the credentials of a source open."""
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    shown = ("source", "stream", "status", "since", "last_load", "rows")
    print_rows("", shown, [tuple(row[name] for name in shown) for row in named], Format.TABLE)
    troubles: dict[tuple[Any, ...], list[str]] = {}
    for row in named:
        if row["status"] != "ok":
            trouble = tuple(row[name] for name in ("source", "status", "reason", "next"))
            troubles.setdefault(trouble, []).append(row["stream"])
    for (source, status, reason, step), streams in troubles.items():
        console.print(
            f"\n{source}, {', '.join(streams)}: {status or 'unknown'}. {reason}\n  -> {step}",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    console.print()
    of_sources = ("source", "type", "account")
    accounts = {row["source"]: tuple(row[name] for name in of_sources) for row in named}
    print_rows("Whose data the credentials open", of_sources, [*accounts.values()], Format.TABLE)


@app.command(epilog="Example:  healthloop sources accept desk tickets")
def accept(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="The source's name.")],
    stream: Annotated[str, typer.Argument(help="The suspect stream.")],
    home: Home = HOME,
) -> None:
    """Believe what a suspect stream says.

    Loads that wait are built with the next run, and what is usual is learned anew from them.
    """
    company = read_company(context.obj if home == HOME else home)
    health, waiting = _known(company)
    found, loads = health.get((source, stream)), waiting.get((source, stream), [])
    good_day = found.good_day if found else None
    if found is None or not (loads or good_day):
        suspects = [f"{s} {n}" for (s, n), h in health.items() if waiting.get((s, n)) or h.good_day]
        raise NotFoundError(
            f"nothing of stream '{stream}' of source '{source}' waits to be accepted",
            f"choose one of: {', '.join(suspects)}" if suspects else "see `healthloop sources`",
        )
    from_day = good_day + dt.timedelta(days=1) if good_day else None
    accept_loads(company, source, stream, loads=loads, from_day=from_day, now=clock())
    console.print(
        f"Accepted {stream} of {source}: {found.reason}\nThe next `healthloop run` believes it.",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _known(company: Company) -> tuple[Health, Waiting]:
    """The last check of every stream, and the loads that wait."""
    if not company.warehouse.exists():
        return {}, {}
    with warehouse_of(company, read_only=True).get_connection() as connection:
        if not are_built(connection):
            return {}, {}
        waiting = connection.execute(
            "SELECT source, stream, list(load_id) FROM signals.held GROUP BY ALL"
        ).fetchall()
        return all_health(connection), {(source, stream): ids for source, stream, ids in waiting}


def _rows(
    company: Company, source: Source, health: Health, waiting: Waiting
) -> list[tuple[Any, ...]]:
    account = Lake(company).positions(source.name).get(ACCOUNT, {}).get("id")
    rows: list[tuple[Any, ...]] = []
    for name in source.streams:
        found = health.get((source.name, name))
        if found is None:
            rows.append((source.name, source.config.type, name, None, None, "nothing is known yet",
                         None, 0, account, "healthloop run"))  # fmt: skip
            continue
        rows.append(
            (source.name, source.config.type, name, found.status, _minute(found.since),
             found.reason, _minute(found.last_load_at), found.rows, account,
             _next_step(found, bool(waiting.get((source.name, name)))))
        )  # fmt: skip
    return rows


def _next_step(found: StreamHealth, waits: bool) -> str | None:
    if found.status == "ok":
        return None
    if waits or found.good_day:
        return (
            "mend it at the source, or where it is right: "
            f"healthloop sources accept {found.source} {found.stream}"
        )
    return "once it is mended: healthloop run"


def _minute(moment: dt.datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else None
