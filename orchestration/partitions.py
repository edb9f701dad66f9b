"""The days that can be scored, and which of them a run is for."""

import datetime as dt
import warnings

import dagster as dg
from pydantic import Field

from contracts.company import Company

# Nothing else offers a backfill in a single run, so this one beta parameter is taken as it is.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)


def daily_partitions(company: Company) -> dg.DailyPartitionsDefinition:
    """Every day of the company's history, up to the last whole day (or its pinned `today`)."""
    today = company.settings.today
    return dg.DailyPartitionsDefinition(
        start_date=company.settings.history_start.isoformat(),
        end_date=(today + dt.timedelta(days=1)).isoformat() if today else None,
        timezone=company.settings.time_zone,
    )


class Days(dg.Config):
    """Days beside those of the run's partition, for replays that skip days (week-ends, ...)."""

    earlier_days: list[str] = Field(default_factory=list)


def days_of(context: dg.AssetExecutionContext, config: Days) -> list[dt.date]:
    """The days to compute, oldest first: the run's partitions and the earlier days."""
    keys = {*context.partition_keys, *config.earlier_days}
    return sorted(dt.date.fromisoformat(key) for key in keys)


def record_earlier_days(
    context: dg.AssetExecutionContext, key: dg.AssetKey, days: list[dt.date]
) -> None:
    """Mark the earlier days as materialised too, so that the UI shows them."""
    for day in days:
        if day.isoformat() not in context.partition_keys:
            context.log_event(dg.AssetMaterialization(key, partition=day.isoformat()))
