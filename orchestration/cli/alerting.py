"""The command `alerts`: whom the company tells, and whether a message reaches them."""

from typing import Annotated

import typer

from connectors.alerts import channels, send_test
from contracts.company import read_company
from contracts.errors import InputError, SourceError
from orchestration.cli.console import console
from orchestration.cli.options import HOME, Home
from orchestration.resources import clock


def alerts(
    home: Home = HOME,
    test: Annotated[bool, typer.Option("--test", help="Send a test message to each.")] = False,
) -> None:
    """Say who is told when a source or a run fails.

    Exit code 1 where a channel lacks its secret or, with --test, did not take the message.
    """
    company = read_company(home)
    if not company.settings.alerts.enabled:
        raise InputError(
            "nobody is told when a source or a run fails",
            "name Slack or e-mail under `alerts:` in company.yaml; docs/alerts.md shows how",
        )
    found = send_test(company, now=clock()) if test else channels(company)
    failed = False
    for name, outcome in found:
        bad = isinstance(outcome, SourceError)
        good = "a test message was sent" if test else "it is ready; --test sends a message"
        console.print(f"{name}: {outcome if bad else good}", markup=False, soft_wrap=True)
        failed = failed or bad
    if failed:
        raise typer.Exit(1)
