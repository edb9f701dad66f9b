"""The jobs. Steps that touch the DuckDB file run in one process."""

import dagster as dg

from orchestration.alerting import HOOKS
from orchestration.assets import metrics, plan, scores

SCORED = dg.AssetSelection.assets(metrics.KEY, scores.SCORES, scores.CONTRIBUTIONS)

DAILY = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.all(),
    description="Pull every source, bring signals up to date, compute the day's metrics and scores "
    "and plan what the CRM would receive.",
    hooks=HOOKS,
)

REFRESH = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.groups("raw", "signals"),
    description="Pull every source and bring signals up to date; scores stay as they are.",
    hooks=HOOKS,
)

REPLAY = dg.define_asset_job(
    "replay",
    selection=SCORED | dg.AssetSelection.assets(plan.KEY),
    description="Compute metrics, scores and plan of past days from the signals that are there, "
    "point in time: a day sees what was known on that day.",
    hooks=HOOKS,
)

JOBS = [DAILY, REFRESH, REPLAY]
EXECUTOR = dg.in_process_executor
