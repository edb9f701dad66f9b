"""`healthloop doctor`: what is misconfigured or missing, in plain words, and what to do."""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import duckdb
import requests
from pydantic import BaseModel

from connectors import vendors
from connectors.alerts import channels
from connectors.api import ApiConfig, check_account
from connectors.crm.settings import check_crm
from connectors.lake import Lake
from connectors.sources import FilesConfig, Source, SqlConfig, check_sources
from contracts.company import Company
from contracts.errors import HealthloopError, Problem, SourceError, SourceRefused
from contracts.secrets import FromEnvironment, Secrets
from contracts.tables import METRIC_TABLES
from orchestration.assets.signals import are_built, fed_tables
from orchestration.crm_doctor import examine_crm
from orchestration.findings import Finding, in_time, no_answer
from orchestration.resources import warehouse_of
from scoring.explain import library_of
from scoring.library import Library, check_library
from scoring.reports import metrics_in_use, tracking_gaps

UI_ADDRESS = "http://127.0.0.1:3000"
DRIVERS = {"postgresql": ("psycopg", "postgres"), "s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"),
           "az": ("adlfs", "azure")}  # fmt: skip


def examine(company: Company) -> Iterator[Finding]:
    """Look at a company: its configuration, sources and data, its CRM and its surroundings."""
    library, problems = check_library(company)
    yield from _configuration(company, library, problems)
    sources, _ = check_sources(company)
    for source in sources:
        yield from _source(company, source)
    yield from _tables(sources)
    yield from _warehouse(company)
    yield from examine_crm(company, library)
    yield from _alerts(company)
    yield _ui()


def _configuration(
    company: Company, library: Library | None, problems: Sequence[Problem]
) -> Iterator[Finding]:
    problems = [*problems, *check_sources(company)[1], *check_crm(company)[1]]
    for problem in problems:
        yield Finding(
            "problem",
            "configuration",
            f"{problem.file}:{problem.line}: {problem.cause}",
            problem.remedy,
        )
    for warning in library.warnings if library else ():
        yield Finding(
            "note",
            "configuration",
            f"{warning.file.name}:{warning.line}: {warning.cause}",
            warning.remedy,
        )
    if not problems and library:
        yield Finding(
            "ok", "configuration",
            f"{len(library.metrics)} metrics and {len(library.scorecards)} scorecards are valid",
        )  # fmt: skip
    if company.settings.today:
        yield Finding(
            "note", "clock", f"today is pinned to {company.settings.today} in company.yaml",
            "remove `today:` for a company that lives on",
        )  # fmt: skip
    if not company.settings.schedules.enabled:
        yield Finding(
            "note", "schedules", "the daily and hourly schedules are off",
            "set `schedules: {enabled: true}` in company.yaml",
        )  # fmt: skip


def _source(company: Company, source: Source) -> Iterator[Finding]:
    about = f"source {source.name}"
    secrets = Secrets(company.home)
    missing = False
    for given in _secrets_of(source.config):
        try:
            secrets.of(given)
        except SourceRefused as error:
            missing = True
            yield Finding("problem", about, error.cause, error.remedy)
    if isinstance(source.config, ApiConfig) and not missing:
        yield _credentials(about, source.config, secrets)
    driver = _missing_driver(source)
    if driver:
        yield Finding(
            "problem",
            about,
            f"its driver {driver[0]} is not installed",
            f"pip install 'healthloop[{driver[1]}]'",
        )
    if not source.mappings:
        yield Finding(
            "problem", about, "nothing is mapped from it", f"add sources/{source.name}/<table>.sql"
        )
    if source.in_place:
        return
    loads = Lake(company).loads(source.name)
    if loads:
        yield Finding("ok", about, f"{len(loads)} load(s) in the lake")
    else:
        yield Finding("note", about, "it was never pulled", "healthloop run")


def _address(source: Source) -> object:
    if isinstance(source.config, FilesConfig):
        return source.config.location
    return source.config.url if isinstance(source.config, SqlConfig) else None


def _credentials(about: str, config: ApiConfig, secrets: Secrets) -> Finding:
    """Whose data the credentials of an API open, asked now."""
    vendor = vendors.vendor(config.type)

    def ask() -> Iterator[str]:
        account = vendor.account(vendor.connect(config, secrets), config)
        check_account(account, config.expect_account, vendor=config.type)
        yield account

    try:
        (answer,) = in_time(ask())
    except TimeoutError:
        return Finding("problem", about, *no_answer(config.type))
    except SourceError as error:
        return Finding("problem", about, error.cause, error.remedy)
    rights = f"they should have no more rights than: {vendor.scopes}"
    return Finding("ok", about, f"the credentials open account '{answer}'", rights)


def _secrets_of(value: object) -> Iterator[FromEnvironment]:
    """All environment variables that a source's settings name."""
    if isinstance(value, FromEnvironment):
        yield value
    elif isinstance(value, BaseModel | dict):
        for _, inner in value.items() if isinstance(value, dict) else value:
            yield from _secrets_of(inner)


def _missing_driver(source: Source) -> tuple[str, str] | None:
    address = _address(source)
    text = (
        os.environ.get(getattr(address, "env", ""), "") if not isinstance(address, str) else address
    )
    driver = DRIVERS.get(text.partition(":")[0].partition("+")[0])
    return driver if driver and find_spec(driver[0]) is None else None


def _tables(sources: list[Source]) -> Iterator[Finding]:
    fed = fed_tables(sources)
    if "accounts" not in fed:
        yield Finding(
            "problem", "accounts", "no source maps to accounts, so nobody can be scored",
            "write sources/<crm>/accounts.sql; docs/connect-your-data.md shows how",
        )  # fmt: skip
    empty = [table for table in METRIC_TABLES if table not in fed]
    if empty:
        yield Finding(
            "note", "signals", f"nothing feeds {', '.join(empty)}",
            "scores do without them; `healthloop gaps` shows what that costs",
        )  # fmt: skip
    if fed and "outcomes" not in fed:
        yield Finding(
            "note", "outcomes", "nothing maps to outcomes, so nobody sees if scores were right",
            "write outcomes.sql: who renewed, churned, contracted or expanded, and when",
        )  # fmt: skip


def _warehouse(company: Company) -> Iterator[Finding]:
    if not company.warehouse.exists():
        yield Finding("note", "warehouse", "there is none yet", "healthloop run")
        return
    try:
        with warehouse_of(company, read_only=True).get_connection() as connection:
            yield from _data(connection)
    except HealthloopError as error:
        yield Finding("problem", "warehouse", error.cause, error.remedy)


def _data(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    if not are_built(connection):
        yield Finding("note", "warehouse", "nothing was built in it yet", "healthloop run")
        return
    health = connection.execute(
        "SELECT source, stream, arg_max(status, checked_at) AS status, arg_max(reason, checked_at) "
        "FROM signals.source_health GROUP BY ALL HAVING status <> 'ok' ORDER BY ALL"
    ).fetchall()
    for source, stream, status, reason in health:
        yield Finding(
            "problem",
            f"source {source}",
            f"{stream} is {status}: {reason}",
            "healthloop sources says what to do",
        )
    unmatched = connection.execute(
        "SELECT source, reason, count(*) FROM signals.unmatched GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for source, reason, count in unmatched:
        words = "fit several accounts" if reason == "ambiguous" else "fit no account"
        yield Finding(
            "note", f"identity of {source}", f"{count} customers {words}",
            "look into signals.unmatched; name them in the manual identity file",
        )  # fmt: skip
    quarantined = connection.execute(
        'SELECT source, "table", count(*) FROM signals.quarantine GROUP BY ALL ORDER BY ALL'
    ).fetchall()
    for source, table, count in quarantined:
        yield Finding(
            "note",
            f"rows of {source}",
            f"{count} rows for {table} are in quarantine",
            "signals.quarantine says why",
        )
    try:
        yield from _scored(connection)
    except duckdb.CatalogException:
        yield Finding("note", "scores", "nothing is scored yet", "healthloop run")


def _scored(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    row = connection.execute("SELECT max(as_of), count(*) FROM scores.current_revisions").fetchone()
    if not row or row[0] is None:
        yield Finding("note", "scores", "nothing is scored yet", "healthloop run")
        return
    yield Finding("ok", "scores", f"{row[1]} day(s) are scored, the last is {row[0]}")
    library = library_of(connection, row[0])
    gaps = tracking_gaps(connection, row[0], metrics=metrics_in_use(library), library=library)
    if gaps:
        metrics = len({gap.metric for gap in gaps})
        yield Finding(
            "note",
            "tracking",
            f"{metrics} metrics cannot be measured everywhere",
            "healthloop gaps",
        )


def _alerts(company: Company) -> Iterator[Finding]:
    if not company.settings.alerts.enabled:
        yield Finding(
            "note", "alerts", "nobody is told when a source or a run fails",
            "name Slack or e-mail under `alerts:` in company.yaml; docs/alerts.md shows how",
        )  # fmt: skip
    for name, channel in channels(company):
        if isinstance(channel, SourceError):
            yield Finding("problem", f"alerts by {name}", channel.cause, channel.remedy)
        else:
            yield Finding("ok", f"alerts by {name}", "it is told when a source or a run fails")


def _ui() -> Finding:
    try:
        version = requests.get(f"{UI_ADDRESS}/server_info", timeout=2).json()["dagster_version"]
        return Finding("ok", "Dagster UI", f"Dagster {version} answers at {UI_ADDRESS}")
    except (requests.RequestException, ValueError, KeyError):
        return Finding("note", "Dagster UI", f"nothing answers at {UI_ADDRESS}", "healthloop ui")
