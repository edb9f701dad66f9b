"""raw: what each source says, pulled into the Parquet lake, every version kept."""

import datetime as dt
from collections.abc import Iterator, Sequence

import dagster as dg
import duckdb

from connectors.api import ApiConfig
from connectors.health import StreamHealth, all_health, latest_health, record_health
from connectors.lake import Lake
from connectors.pull import Pull
from connectors.signal_tables import create_tables
from connectors.sources import Source
from contracts.company import Company
from contracts.errors import SourceError
from orchestration.failures import failure_of, told_to_dagster
from orchestration.resources import CompanyFolder, PullsOfRun, Warehouse, clock

DELIVERING = "delivering"
HEALTHY = "healthy"
NOT_EMPTY = "not_empty"


def key_of(source: Source) -> dg.AssetKey:
    """The asset key of a source."""
    return dg.AssetKey(["raw", source.name])


def raw_asset(source: Source) -> dg.AssetsDefinition:
    """The asset of one source: its streams in the lake."""
    key = key_of(source)
    streams = ", ".join(source.streams)

    @dg.asset(
        key=key,
        group_name="raw",
        kinds={"dlt", "parquet"},
        owners=["team:data-platform"],
        description=f"What {source.name} says, as it came: {streams}. Nothing is ever overwritten.",
        check_specs=[
            dg.AssetCheckSpec(
                DELIVERING, asset=key, description="The source answered in this run."
            ),
            dg.AssetCheckSpec(
                HEALTHY,
                asset=key,
                description="Every stream answered, and the last build found nothing wrong with "
                "its data; where one is not well, its last good values are held.",
            ),
            dg.AssetCheckSpec(
                NOT_EMPTY,
                asset=key,
                blocking=True,
                description="Every stream of the source has delivered data at least once.",
            ),
        ],
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=dt.timedelta(hours=48), warn_window=dt.timedelta(hours=26)
        ),
    )
    def raw(
        context: dg.AssetExecutionContext,
        company_folder: CompanyFolder,
        warehouse: Warehouse,
        pulls: PullsOfRun,
    ) -> Iterator[dg.MaterializeResult]:
        company = company_folder.read()
        now = company.now(clock())
        trouble: SourceError | None = None
        try:
            pulled = pulls.pull(source)
        except SourceError as error:
            trouble = error
        if trouble:
            result = _not_delivering(context, source, company, warehouse, trouble, now)
        else:
            healthy = _record_streams(source, company, warehouse, pulled, now)
            for stream, why in pulled.failures.items():
                context.log.warning(f"{stream}: {why}; its last good data is used")
            for change in _drift(pulled):
                context.log.warning(f"{change}; it is kept as it came")
            result = dg.MaterializeResult(
                metadata=_metadata(pulled),
                check_results=[_delivering(pulled), healthy, _not_empty(source, company)],
            )
        yield result
        broken = [check for check in result.check_results or () if _holds(check)]
        if broken:  # else Dagster would say that a check failed, and not what to do about it
            raise dg.Failure(str(broken[0].description), allow_retries=False)

    return raw


def _not_delivering(
    context: dg.AssetExecutionContext,
    source: Source,
    company: Company,
    warehouse: Warehouse,
    error: SourceError,
    now: dt.datetime,
) -> dg.MaterializeResult:
    """Go on with the source's last good data, or fail where it never had any."""
    failure = failure_of(error)
    if failure.allow_retries and context.retry_number < 2:
        raise failure
    if not Lake(company).loads(source.name):
        failure.allow_retries = False
        raise failure
    with told_to_dagster(), warehouse.get_connection() as connection:
        create_tables(connection)
        for stream in source.streams:
            record_health(
                connection, source.name, stream, "down", _reason(source, error), now,
                day_end=_day_end(company, now),
            )  # fmt: skip
        healthy = _healthy(source, connection)
    context.log.warning(f"{error.cause}; {error.remedy}; its last good data is used")
    return dg.MaterializeResult(
        metadata={"status": "down", "cause": error.cause, "remedy": error.remedy},
        check_results=[
            dg.AssetCheckResult(
                check_name=DELIVERING,
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"cause": error.cause, "remedy": error.remedy},
            ),
            healthy,
            _not_empty(source, company),
        ],
    )


def _delivering(pulled: Pull) -> dg.AssetCheckResult:
    """Whether every stream of the source could be read."""
    failed = "; ".join(f"{stream}: {error.cause}" for stream, error in pulled.failures.items())
    remedies = dict.fromkeys(error.remedy for error in pulled.failures.values())
    return dg.AssetCheckResult(
        check_name=DELIVERING,
        passed=not pulled.failures,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"cause": failed, "remedy": "; ".join(remedies)} if failed else {},
    )


def _record_streams(
    source: Source, company: Company, warehouse: Warehouse, pulled: Pull, now: dt.datetime
) -> dg.AssetCheckResult:
    """Say which streams are down, and that one that was down answers again.

    Whether the data of those that answered is good, the build of the signals says.
    """
    with told_to_dagster(), warehouse.get_connection() as connection:
        create_tables(connection)
        for stream in source.streams:
            if stream in pulled.failures:
                reason = _reason(source, pulled.failures[stream])
                record_health(
                    connection, source.name, stream, "down", reason, now,
                    day_end=_day_end(company, now),
                )  # fmt: skip
                continue
            former = latest_health(connection, source.name, stream)
            if former and former.status == "down":
                record_health(connection, source.name, stream, "ok", None, now)
        return _healthy(source, connection)


def _reason(source: Source, error: SourceError) -> str:
    """What was wrong and what to do; the source's name stands beside it wherever it is shown."""
    return f"{error.cause.removeprefix(f'source {source.name}: ')}; {error.remedy}"


def _day_end(company: Company, now: dt.datetime) -> dt.datetime:
    """When the last day that is over ended."""
    return company.end_of(now.astimezone(company.zone).date() - dt.timedelta(days=1))


def _healthy(source: Source, connection: duckdb.DuckDBPyConnection) -> dg.AssetCheckResult:
    """What is known of each stream, this pull included."""
    known = all_health(connection)
    found = [health for name in source.streams if (health := known.get((source.name, name)))]
    return dg.AssetCheckResult(
        check_name=HEALTHY,
        passed=all(health.status == "ok" for health in found),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"streams": dg.MetadataValue.md(health_table(found))},
    )


def health_table(found: Sequence[StreamHealth]) -> str:
    """The states of streams as a table in markdown."""
    lines = [
        f"| {h.source} | {h.stream} | {h.status} | {_moment(h.since)} | {h.reason or ''} "
        f"| {_moment(h.last_load_at)} | {h.rows:,} |"
        for h in found
    ]
    head = "| source | stream | state | since (UTC) | why | last load (UTC) | rows |\n"
    return head + "|---|---|---|---|---|---|--:|\n" + "\n".join(lines)


def _holds(check: dg.AssetCheckResult) -> bool:
    return check.check_name == NOT_EMPTY and not check.passed


def _not_empty(source: Source, company: Company) -> dg.AssetCheckResult:
    """Whether every stream has data in the lake (data read in place is never in the lake).

    A vendor's account may well have no survey or no deleted ticket; that it has nothing at all is
    a mistake.
    """
    delivered = {file.stream for file in Lake(company).files(source.name)}
    empty = [] if source.in_place else [name for name in source.streams if name not in delivered]
    api = isinstance(source.config, ApiConfig)
    passed = bool(delivered) if api else not empty
    remedy = (
        "look whether these are the right credentials"
        if api
        else f"check its `files:` or `table:` in sources/{source.name}.yaml"
    )
    return dg.AssetCheckResult(
        check_name=NOT_EMPTY,
        passed=passed,
        description=(
            None
            if passed
            else f"{', '.join(empty)} of {source.name} never delivered a row; {remedy}"
        ),
        metadata={"streams": len(source.streams), "empty": ", ".join(empty) or "none"},
    )


def _moment(moment: dt.datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _drift(pulled: Pull) -> list[str]:
    """How the rows differ in shape from all before them."""
    return [
        f"{stream.name}: {what} {', '.join(columns)}"
        for stream in pulled.streams
        for what, columns in (("new", stream.new_columns), ("changed", stream.changed_kinds))
        if columns
    ]


def _metadata(pulled: Pull) -> dict[str, dg.MetadataValue | str | int | float]:
    table = "\n".join(
        f"| {stream.name} | {stream.rows:,} | {stream.files:,} |" for stream in pulled.streams
    )
    drift = _drift(pulled)
    asked: dict[str, dg.MetadataValue | str | int | float] = {}
    if pulled.account:
        asked = {"account": pulled.account, "requests": pulled.requests}
    return {
        "status": "down in part" if pulled.failures else "ok",
        **asked,
        **({"shape_changes": "; ".join(drift)} if drift else {}),
        "rows_new": pulled.rows,
        "seconds": round(pulled.seconds, 2),
        "load": pulled.load_id or "nothing new",
        "streams": dg.MetadataValue.md(f"| stream | new rows | files |\n|---|--:|--:|\n{table}"),
    }
