"""The schedules, in the company's time zone. They are off unless `schedules.enabled` says so."""

from typing import Any

import dagster as dg

from contracts.company import Company
from orchestration.jobs import DAILY, REFRESH


def schedules(company: Company) -> list[Any]:
    """A daily schedule for yesterday's scores, and an hourly one that keeps signals up to date."""
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
    return [daily, hourly]
