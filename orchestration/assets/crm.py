"""crm: the plan of a day, the gate that judges it, and what was written."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import dagster as dg

from connectors.crm.applying import Applied
from connectors.crm.plans import Plan
from contracts.actions import named_episode
from contracts.company import Company
from orchestration.assets import actions, plan, signals
from orchestration.crm_plans import Planned, plan_day, plan_news, saw_news
from orchestration.crm_writes import apply, draining
from orchestration.crms import Crms, settings_of
from orchestration.failures import HELD_PLAN, told_to_dagster
from orchestration.old_runs import QUIET_RUN
from orchestration.partitions import daily_partitions
from orchestration.resources import CompanyFolder, Warehouse, clock
from scoring.library import read_library

PLAN = dg.AssetKey(["crm", "plan"])
WRITES = dg.AssetKey(["crm", "writes"])
NEWS = dg.AssetKey(["crm", "news"])
GATE = "gate"
OWNERS = ["team:revenue-operations"]
MOST_CHANGES = 10


def crm_assets(company: Company) -> list[dg.AssetsDefinition]:
    """The plan with its gate, the writes, and the fast lane. Only the newest day is written."""
    return [_plan_asset(company), _writes_asset(company), _news_asset(company)]


def _plan_asset(company: Company) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="crm_plan",
        specs=[
            dg.AssetSpec(
                PLAN,
                deps=[plan.KEY, actions.KEY],
                group_name="crm",
                kinds={"duckdb", "sql"},
                owners=OWNERS,
                description="What would be written into the CRM for the newest day: field changes, "
                "tasks to open and to close. Kept in the ledger; nothing is sent from here.",
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(
                GATE,
                asset=PLAN,
                blocking=True,
                description="The plan is nothing unusual: few accounts change band at once, "
                "sources deliver, only our own fields are written. A plan that is held waits for "
                "the job approve_plan, or `healthloop plan approve`.",
            )
        ],
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def crm_plan(
        context: dg.AssetExecutionContext, company_folder: CompanyFolder, warehouse: Warehouse
    ) -> Iterator[dg.MaterializeResult]:
        with told_to_dagster(retries=False):
            company = company_folder.read()
            day = company.last_day(clock())
            if day.isoformat() not in context.partition_keys:
                yield _not_the_newest(PLAN)
                return
            with warehouse.get_connection() as connection:
                planned = plan_day(company, read_library(company), connection, day, clock=clock)
        for note in planned.notes:
            context.log.warning(note)
        held = planned.plan.status == "held"
        says = _says(planned)
        yield dg.MaterializeResult(
            asset_key=PLAN,
            metadata=_metadata(planned),
            check_results=[
                dg.AssetCheckResult(
                    check_name=GATE, passed=not held, description=says if held else None
                )
            ],
        )
        if held:
            raise _held(planned)

    return crm_plan


def _not_the_newest(key: dg.AssetKey) -> dg.MaterializeResult:
    """A day of the past is never written: the CRM shows the newest one."""
    checks = [dg.AssetCheckResult(check_name=GATE, passed=True)] if key == PLAN else []
    return dg.MaterializeResult(
        asset_key=key, metadata={"result": "a day of the past; nothing to do"}, check_results=checks
    )


def _metadata(planned: Planned) -> dict[str, dg.MetadataValue | int | float | str]:
    """Numbers, the first changes and what tasks there would be; no names of people."""
    changes = (
        (intent.account_id, intent.object, change.field, change.old or "", change.new or "")
        for intent in planned.intents
        for change in intent.changes
        if change.field.endswith(("_score", "_band"))
    )
    episodes = (named_episode(intent.task.episode) for intent in planned.intents if intent.task)
    playbooks = Counter(playbook for _, playbook, _ in filter(None, episodes))
    observed = planned.observed
    metadata: dict[str, dg.MetadataValue | int | float | str] = {
        "plan": planned.plan.plan_id if planned.stored else "not kept",
        "status": planned.plan.status,
        **({"held_because": "; ".join(planned.plan.reasons)} if planned.plan.reasons else {}),
        **dict(planned.plan.totals),
        "tasks_by_playbook": _table(
            ("playbook", "tasks to open"),
            ((name, f"{count:,}") for name, count in sorted(playbooks.items())),
        ),
        "first_changes": _table(
            ("account", "object", "field", "old", "new"), islice(changes, MOST_CHANGES)
        ),
    }
    if observed is not None:
        drift = ((edit.object, edit.record_id, edit.field) for edit in observed.drift)
        metadata |= {
            "tasks_read_back": observed.tasks,
            "fields_edited_by_people": _table(("object", "record", "field"), drift),
        }
    return metadata


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str | None]]
) -> dg.MarkdownMetadataValue:
    lines = [f"| {' | '.join(cell or '' for cell in row)} |" for row in rows]
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return dg.MetadataValue.md("\n".join([*head, *lines]) if lines else "none")


def _news_asset(company: Company) -> dg.AssetsDefinition:
    @dg.asset(
        key=NEWS,
        deps=[signals.ACCOUNT_KEYS],
        group_name="crm",
        kinds={*settings_of(company).targets},
        owners=OWNERS,
        description="The fast lane: accounts with new facts are scored as of now, and what people "
        "would see of that is planned, judged and written at once.",
    )
    def crm_news(
        context: dg.AssetExecutionContext, company_folder: CompanyFolder, warehouse: Warehouse
    ) -> dg.MaterializeResult:
        with told_to_dagster(retries=False):
            company = company_folder.read()
            now, crms = company.now(clock()), Crms(company, settings_of(company))
            with warehouse.get_connection() as connection:
                planned = plan_news(crms, read_library(company), connection, clock=clock)
            if planned is None or not planned.intents:
                saw_news(company, now)
                context.instance.add_run_tags(context.run.run_id, QUIET_RUN)
                return dg.MaterializeResult(metadata={"result": "nothing that anybody would see"})
            for note in planned.notes:
                context.log.warning(note)
            if planned.plan.status == "held":
                raise _held(planned)
            metadata = _metadata(planned)
            if not settings_of(company).apply:
                saw_news(company, now)
            elif planned.stored:
                with draining() as stop:
                    plan_id = planned.plan.plan_id
                    done, applied = apply(company, plan_id, clock=clock, crms=crms, stop=stop)
                for reason in applied.degraded:
                    context.log.warning(reason)
                metadata |= writes_metadata(done, applied)
                if applied.failed:
                    raise dg.Failure(applied.failed, allow_retries=False)
                if not applied.total("deferred"):
                    saw_news(company, now)
        return dg.MaterializeResult(metadata=metadata)

    return crm_news


def _held(planned: Planned) -> dg.Failure:
    """The end of a run whose plan is held; alerts tell each plan once, by this id."""
    metadata = {HELD_PLAN: planned.plan.plan_id}
    return dg.Failure(_says(planned), metadata=metadata, allow_retries=False)


def _says(planned: Planned) -> str:
    """What is said of a plan that is held."""
    plan_id = planned.plan.plan_id
    return (
        f"the plan {plan_id} is held: {'; '.join(planned.plan.reasons)}; approve it with the job "
        f"approve_plan or `healthloop plan approve {plan_id}`"
    )


def writes_metadata(plan: Plan, applied: Applied) -> dict[str, int | float | str]:
    """How many planned writes ended how (what is none is left out), and why some were put off."""
    ends: dict[str, int | float | str] = {
        "plan": plan.plan_id, "status": plan.status, "requests": applied.calls,
        "seconds": round(applied.seconds, 2), "written": applied.total("written"),
    }  # fmt: skip
    for kind, counts in applied.counts.items():
        ends |= {f"{kind}_{state}": count for state, count in counts.items() if count}
    if applied.degraded:
        ends["put_off"] = "; ".join(applied.degraded)
    if applied.refused:
        ends["refused"] = "\n".join(applied.refused[:MOST_CHANGES])
    return ends


def _writes_asset(company: Company) -> dg.AssetsDefinition:
    @dg.asset(
        key=WRITES,
        deps=[PLAN],
        group_name="crm",
        kinds={*settings_of(company).targets},
        owners=OWNERS,
        description="The plan carried out: every planned write is written, rejected, deferred or "
        "skipped, and the sums are checked. A dry run until crm.yaml says `apply: true`.",
        partitions_def=daily_partitions(company),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def crm_writes(
        context: dg.AssetExecutionContext, company_folder: CompanyFolder
    ) -> dg.MaterializeResult:
        with told_to_dagster(retries=False):
            company = company_folder.read()
            if company.last_day(clock()).isoformat() not in context.partition_keys:
                return _not_the_newest(WRITES)
            if not settings_of(company).apply:
                return dg.MaterializeResult(
                    metadata={"result": "a dry run: crm.yaml says apply: false"}
                )
            with draining() as stop:
                done, applied = apply(
                    company, clock=clock, stop=stop, progress=lambda line: context.log.info(line)
                )
        for reason in applied.degraded:
            context.log.warning(reason)
        metadata = writes_metadata(done, applied)
        if applied.failed:
            raise dg.Failure(applied.failed, metadata=metadata, allow_retries=False)
        return dg.MaterializeResult(metadata=metadata)

    return crm_writes
