"""Healthloop in Dagster: assets, checks, jobs and schedules, and the command line over them."""
