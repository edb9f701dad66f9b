"""What assets are given: the company's folder and its warehouse. DuckDB is opened here alone."""

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
from dagster._utils.backoff import backoff
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from connectors.pull import Pull
from connectors.pulls import Pulls
from connectors.sources import Source, read_sources
from contracts.company import Company, read_company
from contracts.errors import WarehouseError

MAX_RETRIES = 6
"""Waiting for another process' lock: 0.1 s, doubled each time, 6.3 s in all."""


class Warehouse(DuckDBResource):
    """The DuckDB file. Waits a bounded time for a lock, and always closes what it opened.

    dagster-duckdb's own `get_connection` leaves the file locked when the body raises.
    """

    read_only: bool = Field(default=False, description="Open without the right to write")

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in UTC.

        Raises:
            WarehouseError: another process holds the file, its disk is full, or it is damaged.
        """
        Path(self.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = backoff(
                fn=duckdb.connect,
                retry_on=(duckdb.IOException,),
                kwargs={
                    "database": self.database,
                    "read_only": self.read_only,
                    "config": self.connection_config,
                },
                max_retries=MAX_RETRIES,
            )
        except duckdb.Error as error:
            raise _explained(Path(self.database), error) from None
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException) as error:
            raise _explained(Path(self.database), error) from None
        finally:
            connection.close()


def _explained(file: Path, error: duckdb.Error) -> WarehouseError:
    """What a person should do about an error of the file."""
    text = str(error)
    holder = re.search(r"PID (\d+)", text)
    if "lock" in text.lower():
        who = f"process {holder[1]}" if holder else "another process"
        return WarehouseError(
            f"{who} is using the warehouse {file}", "wait for that run to end, then try again"
        )
    if "No space left" in text or "out of disk" in text.lower():
        return WarehouseError(f"no space left for {file}", "free disk space, then run again")
    if isinstance(error, duckdb.OutOfMemoryException):
        return WarehouseError(
            "DuckDB's memory limit is too small for this run",
            "raise warehouse_memory in company.yaml, or free space for its temporary files",
        )
    return WarehouseError(
        f"the warehouse {file} cannot be read",
        f"move it away and run again: it is rebuilt from the lake ({text.splitlines()[0][:160]})",
    )


class CompanyFolder(dg.ConfigurableResource):
    """The company folder that this code location serves."""

    home: str = Field(description="The folder with company.yaml")

    def read(self) -> Company:
        """The company as its files say now."""
        return read_company(Path(self.home))


class PullsOfRun(dg.ConfigurableResource):
    """The pulls of one run. The APIs that it asks for are read side by side from its start on."""

    company_folder: dg.ResourceDependency[CompanyFolder]
    _pulls: Pulls = PrivateAttr()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["PullsOfRun"]:
        """Begin; when the run ends, let go of what nobody asked for."""
        company = self.company_folder.read()
        chosen = context.run.asset_selection if context.run else None
        self._pulls = pulls = Pulls(company, now=company.now(clock()))
        try:
            pulls.announce(
                source
                for source in read_sources(company)
                if chosen is None or dg.AssetKey(["raw", source.name]) in chosen
            )
            yield self
        finally:
            pulls.close()

    def pull(self, source: Source) -> Pull:
        """The pull of one source, as `connectors.pulls.Pulls` does it."""
        return self._pulls.pull(source)


def warehouse_of(company: Company, *, read_only: bool = False) -> Warehouse:
    """The warehouse of a company, with its memory limit and a place to spill."""
    return Warehouse(
        database=str(company.warehouse),
        read_only=read_only,
        connection_config={
            "memory_limit": company.settings.warehouse_memory,
            "temp_directory": str(company.state / "spill"),
        },
    )


def clock() -> dt.datetime:
    """The only clock: everything below takes its `now` from here."""
    return dt.datetime.now(dt.UTC)
