"""Options that several commands take, and the warehouse that they read."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from contracts.company import Company
from contracts.errors import NotFoundError
from orchestration.cli.console import Format
from orchestration.resources import warehouse_of


def day_option(text: str) -> dt.date:
    """A day as it is typed."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no day; write it like 2026-06-30") from None


Home = Annotated[
    Path,
    typer.Option("--home", envvar="HEALTHLOOP_HOME", help="The company folder.", show_default=True),
]
HOME = Path("company")
Form = Annotated[Format, typer.Option("--format", help="How data is printed.")]
AsOf = Annotated[
    dt.date | None,
    typer.Option(
        "--as-of", parser=day_option, metavar="DAY", help="A scored day; the last by default."
    ),
]


@contextmanager
def scored_warehouse(company: Company) -> Iterator[duckdb.DuckDBPyConnection]:
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
