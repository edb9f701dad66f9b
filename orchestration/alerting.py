"""Hooks of the jobs that tell people what broke and what is well again.

They run inside the run, so they work the same for a schedule, the UI and `healthloop run`, with no
daemon. Whatever happens in them, the run goes on: what could not be told, the next run tells.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from itertools import groupby

import dagster as dg
import duckdb

from connectors.alerts import OK, Notice, tell
from connectors.sources import Source, read_sources
from contracts.company import Company
from contracts.errors import HealthloopError
from orchestration.failures import HELD_PLAN
from orchestration.resources import clock, warehouse_of

SIGNALS_STEP = "signals"
"""When this step is done, the health of every source is known."""
BY_SEVERITY = ("suspect", "stale", "down")
RESOURCES = {"company_folder"}


@dg.failure_hook(name="tell_what_failed", required_resource_keys=RESOURCES)
def tell_what_failed(context: dg.HookContext) -> None:
    """Tell that a step failed, and what is known of the sources, which later steps cannot tell."""
    _tell(context, lambda company: [_of_step(context, company, context.op_exception)])
    _tell(context, lambda company: _of_sources(context, company))


@dg.success_hook(name="tell_what_recovered", required_resource_keys=RESOURCES)
def tell_what_recovered(context: dg.HookContext) -> None:
    """Tell that a step that failed before works again, and after the signals, how sources are."""
    _tell(context, lambda company: [_of_step(context, company, None)])
    if context.step_key == SIGNALS_STEP:
        _tell(context, lambda company: _of_sources(context, company))


HOOKS = {tell_what_failed, tell_what_recovered}


def _tell(context: dg.HookContext, notices_of: Callable[[Company], Sequence[Notice]]) -> None:
    try:
        company = context.resources.company_folder.read()
        if company.settings.alerts.enabled:
            tell(company, notices_of(company), now=clock(), warn=context.log.warning)
    except HealthloopError as error:
        context.log.warning(f"no alert was sent: {error.cause}; {error.remedy}")
    except Exception as error:  # its text stays out of the log: it may hold an address
        context.log.warning(f"no alert was sent ({type(error).__name__}); report this defect")


def _of_step(context: dg.HookContext, company: Company, failure: BaseException | None) -> Notice:
    """The state of a step of a job.

    Of a step and not of the job, because a run may end at another step than the one that failed
    before, and somebody may run only that step again.
    """
    subject = f"job {context.job_name}, step {context.step_key}"
    link = _link(context, company)
    if failure is None:
        return Notice(subject, OK, link=link)
    status = "failed"
    if isinstance(failure, dg.Failure):
        cause, remedy = failure.description or "it gave no reason", ""
        if plan := failure.metadata.get(HELD_PLAN):  # another plan that is held is another state
            status = f"held, plan {plan.value}"
    else:  # an unforeseen error, whose text may hold a row's values
        cause, remedy = type(failure).__name__, "this is a defect of Healthloop: report it"
    return Notice(subject, status, (cause, f"run {context.run_id}"), remedy, link)


def _of_sources(context: dg.HookContext, company: Company) -> list[Notice]:
    if not company.warehouse.exists():
        return []
    with warehouse_of(company, read_only=True).get_connection() as connection:
        return notices_of_sources(connection, read_sources(company), _link(context, company))


def notices_of_sources(
    connection: duckdb.DuckDBPyConnection, sources: Sequence[Source], link: str = ""
) -> list[Notice]:
    """One notice for each source that was ever checked: its worst stream says how it is."""
    try:
        checked = connection.execute(
            "SELECT source, stream, arg_max(status, checked_at), arg_max_null(reason, checked_at), "
            "    min(checked_at) FILTER (ok_at IS NULL OR checked_at > ok_at) "
            "FROM (SELECT *, max(checked_at) FILTER (status = 'ok') "
            "          OVER (PARTITION BY source, stream) AS ok_at FROM signals.source_health) "
            "GROUP BY source, stream ORDER BY source, stream"
        ).fetchall()
    except duckdb.CatalogException:  # nothing was built yet
        return []
    configured = {(source.name, stream) for source in sources for stream in source.streams}
    known = [row for row in checked if row[:2] in configured]
    return [
        _of_source(name, [row[1:] for row in streams], link)
        for name, streams in groupby(known, key=lambda row: row[0])
    ]


def _of_source(
    name: str, streams: Sequence[tuple[str, str, str | None, dt.datetime]], link: str
) -> Notice:
    bad = [stream for stream in streams if stream[1] != OK]
    if not bad:
        return Notice(f"source {name}", OK, link=link)
    details = [
        f"{stream} is {status} since {since:%Y-%m-%d %H:%M} UTC: {reason or 'no reason is known'}"
        for stream, status, reason, since in bad
    ]
    worst = max((status for _, status, _, _ in bad), key=_severity)
    remedy = "its last good values are held; `healthloop doctor` says more"
    return Notice(f"source {name}", worst, tuple(details), remedy, link)


def _severity(status: str) -> int:
    return BY_SEVERITY.index(status) if status in BY_SEVERITY else len(BY_SEVERITY)


def _link(context: dg.HookContext, company: Company) -> str:
    address = company.settings.alerts.ui
    return f"{address.rstrip('/')}/runs/{context.run_id}" if address else ""
