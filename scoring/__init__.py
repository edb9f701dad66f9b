"""Metrics, scorecards and explained scores: pure functions of a connection and dates.

Nothing here reads a clock, opens a socket or imports Dagster.
"""
