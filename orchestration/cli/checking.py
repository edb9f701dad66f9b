"""Commands about the company folder itself: `check`, `doctor`, `catalogue` and `schemas`."""

import datetime as dt
import sys
from typing import Any

import pydantic
import typer

from connectors.crm.settings import check_crm
from connectors.sources import check_sources
from contracts.company import Company, Settings, check_company, read_company
from contracts.errors import ConfigurationError
from orchestration.cli.beside import sandbox_beside
from orchestration.cli.console import Format, console, errors, print_rows
from orchestration.cli.options import HOME, Form, Home
from orchestration.doctor import examine
from orchestration.editor import write_schemas
from scoring.catalogue import catalogue as catalogue_of
from scoring.library import check_library, read_library


def check(home: Home = HOME) -> None:
    """Check the whole company folder at once.

    Every mistake is one line: file, line, what is wrong and how to mend it. Exit code 2 then.
    """
    company, document, problems = check_company(home)
    if company is None:
        company = Company(home.resolve(), _settings_that_hold(document.data if document else None))
    sources, of_sources = check_sources(company)
    library, of_library = check_library(company)
    problems = [*problems, *of_sources, *of_library, *check_crm(company)[1]]
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


def doctor(home: Home = HOME, form: Form = Format.TABLE) -> None:
    """Say what is misconfigured or missing.

    Each finding comes with what to do about it. Exit code 1 where there are problems.
    """
    company = read_company(home)
    with sandbox_beside(company):
        findings = list(examine(company))
    rows = [(f.level, f.about, f.seen, f.remedy) for f in findings]
    print_rows("", ("", "about", "seen", "what to do"), rows, form)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def catalogue(home: Home = HOME) -> None:
    """Print all metrics and scorecards as markdown."""
    company = read_company(home)
    sys.stdout.write(catalogue_of(read_library(company), company.settings.name))


def schemas(home: Home = HOME) -> None:
    """Write JSON Schemas for your editor."""
    written = write_schemas(read_company(home).home)
    names = ", ".join(file.name for file in written)
    console.print(f"Wrote {names} to {home / 'schemas'}.", markup=False, soft_wrap=True)
