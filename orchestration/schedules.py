"""The schedules, in the company's time zone. They are off unless `schedules.enabled` says so."""

from typing import Any

import dagster as dg

from connectors.crm.settings import CrmSettings
from contracts.company import Company
from orchestration.jobs import DAILY, FAST_LANE, REFRESH
from orchestration.old_runs import forget_old_runs

UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def schedules(company: Company, crm: CrmSettings | None) -> list[Any]:
    """A daily schedule for yesterday's scores, an hourly one that keeps signals up to date, and one
    for every minute where the CRM has a fast lane.
    """
    settings = company.settings.schedules
    running, stopped = dg.DefaultScheduleStatus.RUNNING, dg.DefaultScheduleStatus.STOPPED
    hour, minute = settings.daily_at.split(":")
    daily = dg.build_schedule_from_partitioned_job(
        DAILY,
        name="daily_schedule",
        description="Yesterday's scores, every morning.",
        hour_of_day=int(hour),
        minute_of_hour=int(minute),
        default_status=running if settings.enabled else stopped,
    )
    hourly = dg.ScheduleDefinition(
        name="hourly_schedule",
        job=REFRESH,
        cron_schedule="15 * * * *",
        execution_timezone=company.settings.time_zone,
        description="New data into signals, every hour.",
        default_status=running if settings.enabled and settings.hourly else stopped,
    )
    if crm is None:
        return [daily, hourly]
    return [daily, hourly, _every_minute(company, on=settings.enabled and crm.fast_lane.enabled)]


def _every_minute(company: Company, *, on: bool) -> Any:
    """The fast lane, unless a run is under way: only one can have the warehouse.

    Each minute that gets a run also forgets some old ones, or they would fill the disk.
    """

    @dg.schedule(
        name="fast_lane_schedule",
        job_name=FAST_LANE,
        cron_schedule="* * * * *",
        execution_timezone=company.settings.time_zone,
        description="What is new reaches the CRM within a minute or two.",
        default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
    )
    def fast_lane_schedule(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        under_way = context.instance.get_run_records(dg.RunsFilter(statuses=[*UNDER_WAY]), limit=1)
        if under_way:
            return dg.SkipReason("another run is under way; the next minute looks again")
        try:
            forget_old_runs(context.instance, now=context.scheduled_execution_time)
        except Exception as error:  # tidying up must not keep the CRM from its news
            context.log.warning(f"old runs were not forgotten ({type(error).__name__})")
        return dg.RunRequest()

    return fast_lane_schedule
