"""metrics: every metric of every account as of a day, and the account's segment and stage."""

import dagster as dg

from contracts.company import Company
from contracts.errors import NotFoundError
from orchestration.assets import signals
from orchestration.failures import told_to_dagster
from orchestration.partitions import Days, daily_partitions, days_of, record_earlier_days
from orchestration.resources import CompanyFolder, Warehouse
from scoring import metrics as scoring_metrics
from scoring.library import read_library
from scoring.reports import Gap, metrics_in_use, tracking_gaps

KEY = dg.AssetKey(["metrics", "metric_values"])
MOST_GAPS = 25


def metrics_asset(company: Company, tables: list[str]) -> dg.AssetsDefinition:
    """The metrics of a day, from all canonical tables."""

    @dg.asset(
        key=KEY,
        deps=[signals.key_of(table) for table in tables],
        group_name="metrics",
        kinds={"duckdb", "sql"},
        owners=["team:customer-success-operations"],
        description="Every metric of every customer as of a day, using only what was known on that "
        "day: its value, and whether it is present, zero, absent, stale, suspect or corrupt.",
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def metric_values(
        context: dg.AssetExecutionContext,
        config: Days,
        company_folder: CompanyFolder,
        warehouse: Warehouse,
    ) -> dg.MaterializeResult:
        days = days_of(context, config)
        with told_to_dagster():
            company = company_folder.read()
            library = read_library(company)
            with warehouse.get_connection() as connection:
                if not signals.are_built(connection):
                    raise NotFoundError(
                        "there are no signals yet", "run the job `daily` (`healthloop run`) first"
                    )
                for number, day in enumerate(days, 1):
                    report = scoring_metrics.compute(
                        connection, library, scoring_metrics.AsOf.of(company, day)
                    )
                    context.log.info(f"metrics of {day} ({number} of {len(days)})")
                gaps = tracking_gaps(
                    connection, report.day, metrics=metrics_in_use(library), library=library
                )
        record_earlier_days(context, KEY, days)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.values,
                "accounts": report.accounts,
                "days_in_this_run": len(days),
                "seconds_last_day": round(report.seconds, 2),
                "states": dg.MetadataValue.md(
                    "| state | values |\n|---|--:|\n"
                    + "\n".join(f"| {state} | {n:,} |" for state, n in report.by_state.items())
                ),
                "tracking_gaps": dg.MetadataValue.md(_gaps_table(gaps)),
            }
        )

    return metric_values


def _gaps_table(gaps: tuple[Gap, ...]) -> str:
    if not gaps:
        return "Every metric can be measured at every account."
    largest = sorted(gaps, key=lambda gap: (-gap.arr, gap.metric))[:MOST_GAPS]
    lines = "\n".join(
        f"| {g.metric} | {g.segment} | {g.reason} | {g.accounts:,} | {g.share:.0%} | {g.arr:,.0f} |"
        for g in largest
    )
    more = f"\n\n{len(gaps) - MOST_GAPS} more: `healthloop gaps`" if len(gaps) > MOST_GAPS else ""
    head = "| metric | segment | why | accounts | share | ARR |\n|---|---|---|--:|--:|--:|\n"
    return f"{head}{lines}{more}"
