"""The jobs. Steps that touch the DuckDB file run in one process."""

from typing import Any

import dagster as dg
from pydantic import Field

from connectors.crm.settings import CrmSettings
from orchestration.alerting import HOOKS
from orchestration.assets import actions, crm, metrics, plan, scores
from orchestration.crm_writes import apply, draining, judge_plan
from orchestration.failures import told_to_dagster
from orchestration.old_runs import OURS
from orchestration.resources import CompanyFolder, clock

SCORED = dg.AssetSelection.assets(metrics.KEY, scores.SCORES, scores.CONTRIBUTIONS)

DAILY = dg.define_asset_job(
    "daily",
    selection=dg.AssetSelection.all() - dg.AssetSelection.key_prefixes(["crm", "news"]),
    description="Pull every source, bring signals up to date, compute the day's metrics and "
    "scores, plan what the CRM receives and, if crm.yaml says so, write it.",
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
    selection=SCORED | dg.AssetSelection.assets(plan.KEY, actions.KEY),
    description="Compute metrics, scores, triggers and plan of past days from the signals that are "
    "there, point in time: a day sees what was known on that day.",
    hooks=HOOKS,
)


class Verdict(dg.Config):
    """What a person says about a plan that is held."""

    plan: str = Field(description="The plan's id, as the failed run and the alert name it")
    approve: bool = Field(default=True, description="False drops it for good")
    by: str = Field(default="the Dagster UI", description="Who says so; it is recorded")


@dg.op(description="Approve the plan and carry it out, or drop it.")
def judge_and_apply(
    context: dg.OpExecutionContext, config: Verdict, company_folder: CompanyFolder
) -> None:
    """Let a held plan go, or drop it; what was written is shown at the asset of writes, too."""
    with told_to_dagster(retries=False):
        company = company_folder.read()
        judge_plan(company, config.plan, approve=config.approve, by=config.by, clock=clock)
        if not config.approve:
            return
        with draining() as stop:
            done, applied = apply(
                company, config.plan, clock=clock, stop=stop, progress=context.log.info
            )
    for reason in applied.degraded:
        context.log.warning(reason)
    metadata = crm.writes_metadata(done, applied)
    context.add_output_metadata(metadata)
    if done.lane == "daily":
        day = done.as_of.isoformat()
        context.log_event(dg.AssetMaterialization(crm.WRITES, partition=day, metadata=metadata))
    if applied.failed:
        raise dg.Failure(applied.failed, allow_retries=False)


@dg.job(description="Approve a plan that the gate holds and carry it out, or drop it.", hooks=HOOKS)
def approve_plan() -> None:
    """One op: the verdict."""
    judge_and_apply()


FAST_LANE = "fast_lane"


def jobs(settings: CrmSettings | None) -> list[Any]:
    """The jobs of a company; one with a `crm.yaml` can approve plans, and has a fast lane."""
    if settings is None:
        return [DAILY, REFRESH, REPLAY]
    return [DAILY, REFRESH, REPLAY, approve_plan, _fast_lane(settings)]


def _fast_lane(settings: CrmSettings) -> Any:
    """From a signal to the CRM: the sources that `crm.yaml` names, or all of them."""
    names = settings.fast_lane.sources
    pulled = (
        dg.AssetSelection.key_prefixes(*(["raw", name] for name in names))  # none where in place
        if names
        else dg.AssetSelection.groups("raw")
    )
    return dg.define_asset_job(
        FAST_LANE,
        selection=pulled | dg.AssetSelection.groups("signals") | dg.AssetSelection.assets(crm.NEWS),
        description="Pull what changed, score the accounts with new facts as of now, and write "
        "what people would see of it. Once a minute where crm.yaml says so.",
        hooks=HOOKS,
        tags=OURS,
    )


EXECUTOR = dg.in_process_executor
