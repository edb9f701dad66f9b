"""actions: which playbooks a day's scores and metrics call for."""

import dagster as dg

from contracts.company import Company
from orchestration.assets import metrics, scores
from orchestration.failures import told_to_dagster
from orchestration.partitions import Days, daily_partitions, days_of, record_earlier_days
from orchestration.resources import CompanyFolder, Warehouse
from scoring import actions
from scoring.library import read_library

KEY = dg.AssetKey(["actions", "triggers"])


def triggers_asset(company: Company) -> dg.AssetsDefinition:
    """The triggers of a day."""

    @dg.asset(
        key=KEY,
        deps=[metrics.KEY, scores.SCORES, scores.CONTRIBUTIONS],
        group_name="actions",
        kinds={"duckdb"},
        owners=["team:customer-success-operations"],
        description="At which accounts the trigger of a playbook holds on a day. Where a source "
        "is not delivering it is undetermined, which opens no task and closes none.",
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def triggers(
        context: dg.AssetExecutionContext,
        config: Days,
        company_folder: CompanyFolder,
        warehouse: Warehouse,
    ) -> dg.MaterializeResult:
        days = days_of(context, config)
        with told_to_dagster():
            library = read_library(company_folder.read())
            with warehouse.get_connection() as connection:
                for day in days:
                    actions.find_triggers(connection, library, day)
                rows = connection.execute(
                    "SELECT playbook, count(*) FILTER (state = 'holds'), "
                    "count(*) FILTER (state = 'undetermined') "
                    "FROM actions.trigger_days WHERE as_of = ? GROUP BY ALL ORDER BY 2 DESC, 1",
                    [days[-1]],
                ).fetchall()
        record_earlier_days(context, KEY, days)
        lines = "\n".join(f"| {name} | {held:,} | {open:,} |" for name, held, open in rows)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": sum(held for _, held, _ in rows),
                "undetermined": sum(open for _, _, open in rows),
                "by_playbook": dg.MetadataValue.md(
                    f"| playbook | holds | undetermined |\n|---|--:|--:|\n{lines}"
                ),
            }
        )

    return triggers
