"""plan: what a CRM would receive, field by field. Nothing is sent from here."""

import datetime as dt

import dagster as dg

from connectors.crm.changes import make_changes, store_changes
from contracts.company import Company
from orchestration.assets import scores
from orchestration.failures import told_to_dagster
from orchestration.partitions import Days, daily_partitions, days_of, record_earlier_days
from orchestration.resources import CompanyFolder, Warehouse
from scoring import desired
from scoring.library import read_library

KEY = dg.AssetKey(["plan", "field_changes"])
WORDS = {"write": "known", "held": "held", "unlinked": "without_record", "gone": "of_gone_records"}
"""The states that a comparison with no CRM can come to, as people read them."""


def plan_asset(company: Company) -> dg.AssetsDefinition:
    """The plan of a day."""

    @dg.asset(
        key=KEY,
        deps=[scores.SCORES, scores.CONTRIBUTIONS],
        group_name="plan",
        kinds={"duckdb"},
        owners=["team:revenue-operations"],
        description="What a CRM that knows nothing yet would receive for every account; nothing is "
        "compared with a CRM here. What differs from what it shows is in crm/plan.",
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=dg.FreshnessPolicy.cron(
            deadline_cron="0 9 * * *",
            lower_bound_delta=dt.timedelta(hours=9),
            timezone=company.settings.time_zone,
        ),
    )
    def field_changes(
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
                for day in days:
                    over = company.end_of(day).replace(tzinfo=None)
                    desired.compute(connection, library, day, instant=over)
                    plan = make_changes(connection, day, in_use=None, refresh_days=7)
                    store_changes(connection, plan)
                sample = connection.execute(
                    # No text: reasons and handoff facts may hold what people wrote.
                    "SELECT account_id, object, field, new FROM plan.field_changes "
                    "WHERE as_of = ? AND (ends_with(field, '_score') OR ends_with(field, '_band')) "
                    "ORDER BY ALL LIMIT 10",
                    [plan.day],
                ).fetchall()
        record_earlier_days(context, KEY, days)
        lines = "\n".join(
            f"| {account} | {object} | {field} | {new or ''} |"
            for account, object, field, new in sample
        )
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": plan.desired,
                "accounts": plan.accounts["write"],
                **{f"values_{WORDS[state]}": plan.fields[state] for state in WORDS},
                "first_values": dg.MetadataValue.md(
                    f"| account | object | field | value |\n|---|---|---|---|\n{lines}"
                ),
            }
        )

    return field_changes
