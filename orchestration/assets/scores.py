"""scores: risk and upsell of every account as of a day, with contributions that add up."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import duckdb

from connectors.history import archive, restore
from contracts.company import Company
from orchestration.assets import metrics
from orchestration.failures import told_to_dagster
from orchestration.partitions import Days, daily_partitions, days_of, record_earlier_days
from orchestration.pictures import band_bars, score_histogram
from orchestration.resources import CompanyFolder, Warehouse, clock
from scoring import checks
from scoring import scores as scoring_scores
from scoring.library import read_library
from scoring.metrics import AsOf, create_schema
from scoring.reports import Portfolio, portfolio

SCORES = dg.AssetKey(["scores", "scores"])
CONTRIBUTIONS = dg.AssetKey(["scores", "contributions"])
IN_RANGE = "within_range"
ADD_UP = "contributions_add_up"
BAND_CHANGES = "share_of_accounts_changing_band"


class ScoreDays(Days):
    """Which days, and whether a large change of bands is meant."""

    accept_band_changes: bool = False


def scores_assets(company: Company) -> dg.AssetsDefinition:
    """The scores of a day and their contributions."""

    @dg.multi_asset(
        name="scores",
        specs=_specs(company),
        check_specs=[
            _blocking(IN_RANGE, SCORES, "Scores are between 0 and 100 and between their bounds."),
            _blocking(ADD_UP, CONTRIBUTIONS, "The contributions of each score sum exactly to it."),
            _blocking(
                BAND_CHANGES, SCORES, "No more accounts change their risk band than is plausible."
            ),
        ],
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def scores(
        context: dg.AssetExecutionContext,
        config: ScoreDays,
        company_folder: CompanyFolder,
        warehouse: Warehouse,
    ) -> Iterator[dg.MaterializeResult]:
        days = days_of(context, config)
        with told_to_dagster():
            company = company_folder.read()
            library = read_library(company)
            history = company.lake / "scores"
            with warehouse.get_connection() as connection:
                create_schema(connection)
                restored = restore(connection, history)
                if restored:
                    context.log.info(f"read back {restored} revisions of scores")
                for number, day in enumerate(days, 1):
                    report = scoring_scores.compute(
                        connection,
                        library,
                        AsOf.of(company, day),
                        family_rollup=company.settings.family_rollup,
                        run_id=context.run.run_id,
                        scored_at=clock().replace(tzinfo=None),
                    )
                    context.log.info(f"scores of {day} ({number} of {len(days)})")
                    results = _judge(connection, report, company, config.accept_band_changes)
                    broken = [str(result.description) for result in results if not result.passed]
                    if broken:
                        break
                    scoring_scores.accept(connection, day, report.revision)
                    archive(connection, history, day, report.revision)
                days = days[:number]
                glance = portfolio(connection, library, report.day)
                bins = _bins(connection, report)
        record_earlier_days(context, SCORES, days)
        record_earlier_days(context, CONTRIBUTIONS, days)
        yield dg.MaterializeResult(
            asset_key=SCORES,
            metadata=_metadata(report, glance, bins, company.settings.currency),
            check_results=[result for result in results if result.asset_key == SCORES],
        )
        yield dg.MaterializeResult(
            asset_key=CONTRIBUTIONS,
            metadata={"days_in_this_run": len(days)},
            check_results=[result for result in results if result.asset_key == CONTRIBUTIONS],
        )
        if broken:
            raise dg.Failure("; ".join(broken), allow_retries=False)

    return scores


def _specs(company: Company) -> list[dg.AssetSpec]:
    """What people read of the two assets, and when they are late."""
    owners = ["team:customer-success-operations"]
    return [
        dg.AssetSpec(
            SCORES,
            deps=[metrics.KEY],
            group_name="scores",
            kinds={"duckdb", "sql"},
            owners=owners,
            description="Risk and upsell of every customer as of a day: the number, its band, "
            "its bounds, how much of it is known, and the scorecard that made it. A day that "
            "is scored again keeps its former scores as a revision.",
            freshness_policy=dg.FreshnessPolicy.cron(
                deadline_cron="0 9 * * *",
                lower_bound_delta=dt.timedelta(hours=9),
                timezone=company.settings.time_zone,
            ),
        ),
        dg.AssetSpec(
            CONTRIBUTIONS,
            deps=[metrics.KEY],
            group_name="scores",
            kinds={"duckdb", "sql"},
            owners=owners,
            description="What each metric, and each cap, adds to a score. They sum exactly to "
            "the score: the reasons that people read come from here.",
        ),
    ]


def _blocking(name: str, asset: dg.AssetKey, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=asset, blocking=True, description=description)


def _judge(
    connection: duckdb.DuckDBPyConnection,
    report: scoring_scores.ScoresReport,
    company: Company,
    accepted: bool,
) -> list[dg.AssetCheckResult]:
    day, revision = report.day, report.revision
    share = company.settings.limits.band_change_share
    changes = checks.band_changes(connection, day, revision, allowed_share_a_day=share)
    found = [
        (IN_RANGE, SCORES, checks.within_range(connection, day, revision)),
        (ADD_UP, CONTRIBUTIONS, checks.contributions_add_up(connection, day, revision)),
        (BAND_CHANGES, SCORES, changes),
    ]
    return [
        dg.AssetCheckResult(
            check_name=name,
            asset_key=asset,
            passed=check.passed or (accepted and name == BAND_CHANGES),
            description=None if check.passed else check.remedy,
            metadata=dict(check.numbers),
        )
        for name, asset, check in found
    ]


def _bins(
    connection: duckdb.DuckDBPyConnection, report: scoring_scores.ScoresReport
) -> dict[str, list[tuple[int, str, int]]]:
    rows = connection.execute(
        "SELECT score, least(5 * floor(value / 5), 95)::INTEGER AS low, band, count(*) "
        "FROM scores.scores WHERE as_of = ? AND value IS NOT NULL GROUP BY ALL ORDER BY ALL",
        [report.day],
    ).fetchall()
    return {
        score: [(low, band, n) for kind, low, band, n in rows if kind == score]
        for score in report.bands
    }


def _metadata(
    report: scoring_scores.ScoresReport,
    glance: Portfolio,
    bins: dict[str, list[tuple[int, str, int]]],
    currency: str,
) -> dict[str, dg.MetadataValue | int | float | str]:
    worst = "\n".join(
        f"| {s.name or s.account_id} | {s.segment} | {s.value} | {s.arr or 0:,.0f} | "
        f"{'; '.join(s.reasons)} |"
        for s in glance.worst
    )
    bands = "\n".join(
        f"| {c.segment} | {c.band} | {c.accounts:,} | {c.arr:,.0f} |" for c in glance.risk
    )
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "dagster/row_count": report.scores,
        "revision": report.revision,
        "result": "new" if report.changed else "the same as before; nothing was written",
        "bands": dg.MetadataValue.md(
            f"| segment | risk | accounts | ARR {currency} |\n|---|---|--:|--:|\n{bands}"
        ),
        "worst_accounts": dg.MetadataValue.md(
            f"| account | segment | risk | ARR {currency} | why |\n|---|---|--:|--:|---|\n{worst}"
        ),
        "bands_by_segment": dg.MetadataValue.md(band_bars("Risk by segment", glance.risk)),
        "watermelons": len(glance.watermelons),
        "seconds_last_day": round(report.seconds, 2),
    }
    for score, values in bins.items():
        name = f"histogram_{score.replace(':', '_')}"
        metadata[name] = dg.MetadataValue.md(
            score_histogram(f"{score.capitalize()} scores", values)
        )
    return metadata
