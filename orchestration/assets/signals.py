"""signals: raw streams mapped to canonical tables, checked, versioned, linked to accounts."""

from collections.abc import Iterator, Sequence

import dagster as dg
import duckdb

from connectors.signals import BuildReport, TableReport, build
from connectors.sources import Source, read_sources
from contracts.company import Company, Limits
from contracts.tables import TABLES
from orchestration.assets import raw
from orchestration.failures import told_to_dagster
from orchestration.resources import CompanyFolder, Warehouse, clock

CONTRACT = "contract"
LINKED = "linked_to_accounts"
TRUSTED = "streams_are_trusted"
ACCOUNT_KEYS = dg.AssetKey(["signals", "account_keys"])


def key_of(table: str) -> dg.AssetKey:
    """The asset key of a canonical table."""
    return dg.AssetKey(["signals", table])


def fed_tables(sources: Sequence[Source]) -> list[str]:
    """The canonical tables that some source maps to, in the order of the contract."""
    return [name for name in TABLES if any(name in source.mappings for source in sources)]


def are_built(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the warehouse has the tables of signals, be they empty."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'signals' AND table_name = 'accounts'"
    )
    return found.fetchone() is not None


def signals_assets(sources: Sequence[Source]) -> dg.AssetsDefinition:
    """All canonical tables as one step: identity needs them together."""
    tables = fed_tables(sources)
    specs = [_spec(name, sources) for name in tables]
    if "account_keys" not in tables:
        # After accounts, before the tables that depend on it: Dagster wants this order.
        specs.insert(int("accounts" in tables), _spec("account_keys", sources))
    checks = [
        dg.AssetCheckSpec(
            CONTRACT,
            asset=key_of(name),
            blocking=True,
            description="Few enough rows break the table's contract; those that do are set aside "
            "in signals.quarantine with the reason.",
        )
        for name in tables
    ]
    checks += [
        dg.AssetCheckSpec(
            LINKED,
            asset=ACCOUNT_KEYS,
            blocking=True,
            description="Enough customers of each source are linked to an account.",
        ),
        dg.AssetCheckSpec(
            TRUSTED,
            asset=ACCOUNT_KEYS,
            description="No stream lost its rows or a column, changed a type or broke its mapping; "
            "where one did, its last good values are held.",
        ),
    ]

    @dg.multi_asset(name="signals", specs=specs, check_specs=checks)
    def signals(
        context: dg.AssetExecutionContext, company_folder: CompanyFolder, warehouse: Warehouse
    ) -> Iterator[dg.MaterializeResult]:
        with told_to_dagster():
            company = company_folder.read()
            with warehouse.get_connection() as connection:
                report = build(
                    connection,
                    company,
                    read_sources(company),
                    now=company.now(clock()),
                    progress=lambda step: context.log.info(f"building {step}"),
                )
        for warning in report.warnings:
            context.log.warning(warning)
        broken = []
        for spec in specs:
            name = spec.key.path[-1]
            results = _checks(company, report, name)
            broken += [r for r in results if not r.passed and r.check_name != TRUSTED]
            metadata = _metadata(report, name)
            if spec.key == ACCOUNT_KEYS:
                metadata["sources"] = dg.MetadataValue.md(raw.health_table(report.health))
            yield dg.MaterializeResult(
                asset_key=spec.key,
                metadata=metadata,
                check_results=results,
            )
        if broken:
            raise dg.Failure("; ".join(str(result.description) for result in broken))

    return signals


def _spec(table: str, sources: Sequence[Source]) -> dg.AssetSpec:
    feeding = [source for source in sources if table in source.mappings]
    deps = [raw.key_of(source) for source in feeding or sources if not source.in_place]
    if table not in ("accounts", "account_keys", "exchange_rates"):
        deps += [ACCOUNT_KEYS]
    if table == "account_keys":
        deps += [key_of("accounts")]
    return dg.AssetSpec(
        key_of(table),
        deps=deps,
        group_name="signals",
        kinds={"duckdb", "sql"},
        owners=["team:data-platform"],
        description=f"{TABLES[table].description}. From: "
        + (", ".join(source.name for source in feeding) or "the keys of all sources")
        + ".",
    )


def _checks(company: Company, report: BuildReport, table: str) -> list[dg.AssetCheckResult]:
    results = []
    parts = [part for part in report.tables if part.table == table]
    if parts:
        results.append(_contract(company.settings.limits, table, parts))
    if table == "account_keys":
        results.append(_linked(company.settings.limits.identity_coverage, report))
        results.append(_trusted(report))
    return results


def _contract(limits: Limits, table: str, parts: Sequence[TableReport]) -> dg.AssetCheckResult:
    allowed = {part: limits.quarantine_share_of(part.source, table) for part in parts}
    bad = [part for part in parts if part.breaks(limits)]
    worst = max((part.quarantine_share for part in parts), default=0.0)
    return dg.AssetCheckResult(
        check_name=CONTRACT,
        asset_key=key_of(table),
        passed=not bad,
        description="; ".join(
            f"{part.quarantine_share:.1%} of the rows of {part.source} for {table} break the "
            f"contract ({allowed[part]:.0%} is allowed); look into signals.quarantine, then "
            f"correct sources/{part.source}/{table}.sql, or "
            "allow more in `limits: {quarantine_shares: ...}` of company.yaml"
            for part in bad
        )
        or None,
        metadata={
            "quarantined_share": round(worst, 5),
            "quarantined_rows": sum(part.quarantined for part in parts),
            "allowed_share": max(allowed.values(), default=limits.quarantine_share),
        },
    )


def _linked(limit: float, report: BuildReport) -> dg.AssetCheckResult:
    bad = [part for part in report.identity if part.keys and part.key_share < limit]
    return dg.AssetCheckResult(
        check_name=LINKED,
        asset_key=ACCOUNT_KEYS,
        passed=not bad,
        description="; ".join(
            f"only {part.key_share:.0%} of the customers of {part.source} are linked to an account "
            f"({limit:.0%} is needed); signals.unmatched lists the others: give them keys in "
            f"sources/{part.source}/account_keys.sql or in the manual identity file"
            for part in bad
        )
        or None,
        metadata={
            "linked": dg.MetadataValue.md(
                "| source | customers | linked | rows linked |\n|---|--:|--:|--:|\n"
                + "\n".join(
                    f"| {part.source} | {part.keys:,} | {part.key_share:.1%} "
                    f"| {part.row_share:.1%} |"
                    for part in report.identity
                )
            )
        },
    )


def _trusted(report: BuildReport) -> dg.AssetCheckResult:
    suspects = [
        f"source {stream.source}: {stream.stream} is {stream.status}: {stream.reason}"
        for stream in report.health
        if stream.status in ("suspect", "stale")
    ]
    return dg.AssetCheckResult(
        check_name=TRUSTED,
        asset_key=ACCOUNT_KEYS,
        passed=not suspects,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "cause": "; ".join(suspects) or "none",
        },
    )


def _metadata(report: BuildReport, table: str) -> dict[str, dg.MetadataValue | int | float]:
    parts = [part for part in report.tables if part.table == table]
    lines = "\n".join(
        f"| {p.source} | {p.mode} | {p.rows:,} | {p.new:,} | {p.closed:,} | {p.quarantined:,} |"
        for p in parts
    )
    return {
        "dagster/row_count": sum(part.rows for part in parts),
        "rows_new": sum(part.new for part in parts),
        "rows_quarantined": sum(part.quarantined for part in parts),
        "seconds": round(sum(part.seconds for part in parts), 2),
        "by_source": dg.MetadataValue.md(
            "| source | build | rows | new | superseded | quarantined |\n"
            f"|---|---|--:|--:|--:|--:|\n{lines}"
        ),
    }
