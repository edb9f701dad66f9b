"""The command `sandbox`: servers that answer as the vendors do, for a synthetic company."""

import datetime as dt
import shutil
from pathlib import Path
from typing import Annotated

import typer

from connectors.sandbox.demo import PORT, WORLD
from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.running import serve
from connectors.sandbox.world import write_world
from contracts.company import read_company
from orchestration.cli.console import console, errors, table_of
from orchestration.cli.options import HOME, Home
from orchestration.resources import clock


def moment_option(text: str) -> dt.datetime:
    """A moment as it is typed."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter(f"'{text}' is no moment; write it like 2026-06-30T20:00:00Z")
    return moment


def sandbox(
    home: Home = HOME,
    port: Annotated[
        int,
        typer.Option(min=0, max=65534, help="HTTP on 127.0.0.1; TLS is on the next. 0: any."),
    ] = PORT,
    now: Annotated[
        dt.datetime | None,
        typer.Option(
            parser=moment_option, metavar="MOMENT", help="The servers' clock; `today` by default."
        ),
    ] = None,
    small_pages: Annotated[
        int | None, typer.Option(min=1, help="The most records that a page holds.")
    ] = None,
    accounts: Annotated[
        int, typer.Option(min=60, max=20000, help="Size of a synthetic company made anew.")
    ] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed is another company.")] = 7,
) -> None:
    """Serve a synthetic company as its vendors' APIs, on this machine.

    It is the one of the demo, or one made now where the company folder has none.
    """
    company = read_company(home)
    world = company.home / WORLD
    if not world.is_dir():
        today = company.settings.today or company.last_day(clock())
        _make_world(world, seed=seed, accounts=accounts, today=today)
        errors.print(
            f"Made a synthetic company of {accounts:,} accounts in {world}.", soft_wrap=True
        )
    try:
        serve(
            world, now or company.now(clock()), port=port, small_pages=small_pages,
            ca_folder=world.parent, journal=world.parent / "written", on_ready=_show,
        )  # fmt: skip
    except KeyboardInterrupt:
        errors.print("The sandbox has stopped.")


def _make_world(folder: Path, *, seed: int, accounts: int, today: dt.date) -> None:
    """Make it beside its place first, so that an interrupted one is never taken for whole."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_world(unfinished, seed=seed, accounts=accounts, today=today)
    unfinished.rename(folder)


def _show(box: Box) -> None:
    addresses = [(vendor, box.address(vendor)) for vendor in sorted(box.addresses)]
    console.print(table_of("", ("vendor", "address"), addresses))
    console.print(f"The sandbox's own endpoints are below {box.control}: log, dump, clock, faults.")
    if box.ca_file:
        console.print(f"Clients of https addresses have to trust {box.ca_file}.", soft_wrap=True)
    console.print(f"It is {box.now:%Y-%m-%d %H:%M:%S} UTC there. Stop it with Ctrl-C.")
