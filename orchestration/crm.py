"""A day's plan for the CRM, and carrying it out: what the assets and the commands share.

The steps are those of `connectors.crm` and `scoring.actions`; here they only follow one another.
"""

import datetime as dt
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import duckdb

from connectors.crm import changes as field_changes
from connectors.crm import gate, planning
from connectors.crm.applying import Applied, apply_plan, recover
from connectors.crm.changes import Changes
from connectors.crm.ledger import Ledger
from connectors.crm.observing import Observed, look_later, observe
from connectors.crm.people import People
from connectors.crm.plans import Intent, Plan
from connectors.crm.settings import CrmSettings, ledger_url, names_of, read_crm
from connectors.crm.targets import check_accounts, open_writers
from connectors.crm.writing import CrmName, CrmWriter, Finding
from contracts.company import Company
from contracts.crm_fields import CrmObject, written_on
from contracts.errors import HeldError, InputError, NotFoundError, SourceError
from contracts.secrets import Secrets
from scoring import actions, desired, live
from scoring.clocks import AsOf
from scoring.explain import scored_day
from scoring.library import Library
from scoring.triggers import Relations

LEASE_SECONDS = 300.0
NEWS = "news"
NEWS_OVERLAP = dt.timedelta(minutes=15)
"""How far before the last look to look again: a source may tell of a fact minutes after it."""
OBJECTS: tuple[CrmObject, ...] = ("account", "opportunity")
Lane = Literal["daily", "fast"]
Clock = Callable[[], dt.datetime]


@dataclass(frozen=True)
class Planned:
    """A plan, what it would write, and what was learned on the way.

    `notes` say what is not as it should be: a CRM that is not ready for tasks, or that could not
    be asked. `stored` is false for a plan that only shows what would be: it cannot be applied.
    """

    plan: Plan
    intents: tuple[Intent, ...]
    changes: Changes
    observed: Observed | None
    notes: tuple[str, ...]
    stored: bool


@contextmanager
def ledger_of(company: Company, settings: CrmSettings) -> Iterator[Ledger]:
    """The ledger of a company, closed at the end."""
    url = Secrets(company.home).of(settings.ledger) if settings.ledger else ledger_url(company)
    company.state.mkdir(parents=True, exist_ok=True)
    with Ledger(url) as ledger:
        yield ledger


def settings_of(company: Company) -> CrmSettings:
    """`crm.yaml`.

    Raises:
        NotFoundError: there is none.
    """
    settings = read_crm(company)
    if settings is None:
        raise NotFoundError(
            f"{company.home / 'crm.yaml'} does not exist",
            "write one: docs/crm.md shows how, and without it nothing is ever written",
        )
    return settings


def plan_day(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    *,
    clock: Clock,
) -> Planned:
    """Make the plan of a scored day, judge it at the gate, and keep it in the ledger.

    Only reads from the CRM. Without one that can be asked, a dry run still shows the plan.
    Accounts that were scored live after that day are left as they are: the CRM shows newer scores.

    Raises:
        HeldError: another run is at work on the CRM.
        SourceError: `apply` is true, and a CRM cannot be asked.
    """
    newer = live.newer_accounts(connection, day)
    scores, contributions = (
        f"(SELECT * FROM scores.{name} WHERE account_id NOT IN "
        f"(SELECT account_id FROM scores.all_scores WHERE revision = {live.REVISION} "
        f"AND as_of > DATE '{day}'))"
        for name in ("scores", "contributions")
    )
    over = company.end_of(day).replace(tzinfo=None)
    desired.compute(
        connection, library, day, instant=over, scores=scores, contributions=contributions
    )
    everybody = connection.execute(
        "SELECT account_id FROM metrics.accounts WHERE as_of = ?", [day]
    ).fetchall()
    chosen = {account for (account,) in everybody} - {*newer} if newer else None
    return _plan(company, library, connection, _Scope(day, "daily", chosen), clock=clock)


def plan_news(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    *,
    clock: Clock,
) -> Planned | None:
    """Score the accounts with new facts as of now, and plan what the CRM should show of them.

    None where nothing is new, or nothing that anybody would see.

    Raises:
        HeldError: another run is at work on the CRM.
        SourceError: `apply` is true, and a CRM cannot be asked.
    """
    settings = settings_of(company)
    now = company.now(clock())
    crm = next(iter(settings.targets))
    with ledger_of(company, settings) as ledger:
        looked = ledger.watermark(crm, NEWS)
    if looked is None:
        looked = company.end_of(scored_day(connection, None))
    accounts = live.accounts_with_news(connection, min(looked, now) - NEWS_OVERLAP)
    planned = None
    if accounts:
        planned = _plan_accounts(company, library, connection, accounts, now, clock=clock)
    with ledger_of(company, settings) as ledger:
        ledger.set_watermark(crm, NEWS, now)
    return planned


def _plan_accounts(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    accounts: Sequence[str],
    now: dt.datetime,
    *,
    clock: Clock,
) -> Planned | None:
    instant = now.astimezone(dt.UTC).replace(tzinfo=None)
    as_of = replace(AsOf.of(company, now.astimezone(company.zone).date()), instant=instant)
    found = live.compute(connection, library, as_of, accounts)
    if not found.accounts:
        return None
    of_live = live.RELATIONS
    actions.find_triggers(
        connection, library, found.day, scores=of_live.scores,
        contributions=of_live.contributions, accounts=of_live.accounts, values=of_live.values,
    )  # fmt: skip
    desired.compute(
        connection, library, found.day, instant=instant, scores=of_live.scores,
        contributions=of_live.contributions,
    )  # fmt: skip
    scope = _Scope(found.day, "fast", {*found.accounts}, of_live)
    return _plan(company, library, connection, scope, clock=clock)


@dataclass(frozen=True)
class _Scope:
    """What a plan is about: a day, all accounts (None) or some, and where their scores stand."""

    day: dt.date
    lane: Lane
    accounts: set[str] | None
    relations: Relations = field(default_factory=Relations)


def _plan(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    scope: _Scope,
    *,
    clock: Clock,
) -> Planned:
    settings = settings_of(company)
    with (
        ledger_of(company, settings) as ledger,
        ledger.lease(holder=_holder(), now=clock, seconds=LEASE_SECONDS) as lease,
    ):
        writers, notes = _reachable(company, settings)
        asked = len(writers) == len(settings.targets)
        now = company.now(clock())
        observed = None
        ready, more = _ready(settings, writers)
        if asked and all(fields for fields, _ in ready.values()):
            if settings.apply:
                recover(ledger, writers, now=lambda: company.now(clock()), lease=lease)
            observed = observe(ledger, writers, settings, now=now, accounts=scope.accounts)
        people = {
            crm: People(writer.owners(), settings.targets[crm].owners, company.zone)
            for crm, writer in writers.items()
            if ready[crm][1] and settings.targets[crm].tasks
        }
        if not asked:
            people = {
                crm: People((), target.owners, company.zone)
                for crm, target in settings.targets.items()
                if target.tasks
            }
        planned = _made(
            company, library, connection, ledger, settings, scope,
            people=people, now=now, made_at=clock(),
        )  # fmt: skip
        worth_keeping = scope.lane == "daily" or bool(planned.intents)
        planned = replace(
            planned, observed=observed, notes=(*notes, *more), stored=asked and worth_keeping
        )
        if planned.stored:
            ledger.store(planned.plan, planned.intents)
    return planned


def _made(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    settings: CrmSettings,
    scope: _Scope,
    *,
    people: Mapping[CrmName, People],
    now: dt.datetime,
    made_at: dt.datetime,
) -> Planned:
    tombstones, tasks = ledger.tombstones(), ledger.tasks()
    field_changes.load_confirmed(connection, ledger.confirmed())
    changes = field_changes.make_changes(
        connection,
        scope.day,
        in_use=in_use(settings),
        refresh_days=settings.refresh_days,
        merged=tombstones,
        rejected=ledger.rejections(),
        accounts=scope.accounts,
    )
    decisions = actions.plan_actions(
        connection,
        library,
        scope.day,
        tenant=company.settings.tenant,
        episodes=ledger.episodes(),
        tasks=tasks,
        tasks_per_owner_a_week=settings.actions.tasks_per_owner_a_week,
        capacity=settings.actions.capacity,
        only=scope.accounts,
        scores=scope.relations.scores,
        contributions=scope.relations.contributions,
        accounts=scope.relations.accounts,
        values=scope.relations.values,
    )
    around = planning.Surroundings(
        records=planning.records_of(connection),
        people=people,
        gone=frozenset(tombstones),
        crm_of_task=ledger.crm_of_tasks(),
        carried=tuple(ledger.carried()),
        states={task.key: task for task in tasks},
    )
    plan, intents = planning.make_plan(
        as_of=scope.day, lane=scope.lane, made_at=made_at, now=now,
        changes=field_changes.read_changes(connection, scope.day), decisions=decisions,
        around=around,
    )  # fmt: skip
    reasons = gate.judge(
        _measured(connection, scope, changes, plan, intents),
        settings.gate,
        band_change_share=company.settings.limits.band_change_share,
    )
    plan = replace(plan, status="held" if reasons else "open", reasons=reasons)
    return Planned(plan, tuple(intents), changes, None, (), stored=False)


def in_use(settings: CrmSettings) -> dict[tuple[CrmName, CrmObject], set[str]]:
    """The fields that are written, by CRM and object."""
    return {
        (crm, object): set(names_of(crm, target, object))
        & {field.name for field in written_on(object)}
        for crm, target in settings.targets.items()
        for object in OBJECTS
    }


def apply(
    company: Company,
    plan_id: str | None = None,
    *,
    clock: Clock,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Plan, Applied]:
    """Carry out a stored plan; without an id the newest that may be.

    Raises:
        InputError: `crm.yaml` says ``apply: false``, or the plan may not be applied.
        HeldError: the plan is held, another run is at work, or a CRM is not ready.
        SourceError: a CRM cannot be asked.
    """
    settings = settings_of(company)
    if not settings.apply:
        raise InputError(
            "crm.yaml says apply: false, so nothing is written",
            "read the plan with `healthloop plan`, then set apply: true",
        )
    with (
        ledger_of(company, settings) as ledger,
        ledger.lease(holder=_holder(), now=clock, seconds=LEASE_SECONDS) as lease,
    ):
        plan = _appliable(ledger, plan_id)
        writers = open_writers(company, settings)
        check_accounts(company, settings, writers)
        ready, notes = _ready(settings, writers)
        for crm, (fields, _) in ready.items():
            if not fields:
                raise HeldError(
                    "; ".join(notes) or f"{crm} is not ready", f"run `healthloop provision {crm}`"
                )
        now = lambda: company.now(clock())  # noqa: E731
        applied = apply_plan(
            ledger,
            plan.plan_id,
            writers,
            now=now,
            lease=lease,
            budget={crm: target.daily_share for crm, target in settings.targets.items()},
            bulk_above={crm: target.bulk_above for crm, target in settings.targets.items()},
            fallback_owner=_fallbacks(company, settings, writers, ledger, plan),
            stop=stop,
            progress=progress,
        )
        look_later(ledger, list(writers), now=company.now(clock()))
        return ledger.plan(plan.plan_id), applied


def judge_plan(company: Company, plan_id: str, *, approve: bool, by: str, clock: Clock) -> Plan:
    """Approve a held plan, so that it may be applied, or drop a plan that waits.

    Raises:
        NotFoundError: there is no such plan.
        InputError: it is no plan that waits for anybody.
    """
    with ledger_of(company, settings_of(company)) as ledger:
        plan = ledger.plan(plan_id)
        allowed = ("held",) if approve else ("held", "open", "approved")
        if plan.status not in allowed:
            raise InputError(
                f"plan {plan_id} is {plan.status}",
                "only a held plan can be approved" if approve else "it cannot be dropped any more",
            )
        ledger.judge(plan_id, "approved" if approve else "dropped", by=by, at=clock())
        return ledger.plan(plan_id)


@contextmanager
def draining() -> Iterator[Callable[[], bool]]:
    """During the block, SIGTERM asks to stop after the call in hand instead of killing it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    former = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, former)


def _appliable(ledger: Ledger, plan_id: str | None) -> Plan:
    plan = ledger.plan(plan_id) if plan_id else ledger.newest()
    if plan is None:
        raise NotFoundError("there is no plan", "make one: `healthloop plan`")
    if plan.status == "held":
        raise HeldError(
            f"plan {plan.plan_id} is held: {'; '.join(plan.reasons)}",
            f"`healthloop plan approve {plan.plan_id}`, or `healthloop plan drop {plan.plan_id}`",
        )
    if plan.status not in ("open", "approved"):
        raise InputError(f"plan {plan.plan_id} is {plan.status}", "make a new one: healthloop plan")
    return plan


def _reachable(
    company: Company, settings: CrmSettings
) -> tuple[dict[CrmName, CrmWriter], list[str]]:
    """The writers of the CRMs that answer. Only a dry run may do without one."""
    try:
        writers = open_writers(company, settings)
        check_accounts(company, settings, writers)
    except SourceError as error:
        if settings.apply:
            raise
        return {}, [f"made without asking the CRM: {error.cause}; {error.remedy}"]
    return writers, []


def _ready(
    settings: CrmSettings, writers: Mapping[CrmName, CrmWriter]
) -> tuple[dict[CrmName, tuple[bool, bool]], list[str]]:
    """Whether each CRM is ready for fields and for tasks, and what keeps it."""
    ready: dict[CrmName, tuple[bool, bool]] = {}
    notes: list[str] = []
    for crm, writer in writers.items():
        verdicts = []
        for fields, tasks in ((True, False), (False, True)):
            if tasks and not settings.targets[crm].tasks:
                verdicts.append(False)
                continue
            problems = [f for f in writer.ready(fields=fields, tasks=tasks) if f.level == "problem"]
            verdicts.append(not problems)
            notes += _in_one_line(crm, "fields" if fields else "tasks", problems)
        ready[crm] = (verdicts[0], verdicts[1])
    return ready, notes


def _in_one_line(crm: CrmName, what: str, problems: Sequence[Finding]) -> list[str]:
    """What keeps us from writing, and how often: the first of many says it for all."""
    if not problems:
        return []
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = problems[0]
    return [f"{crm}: {what} cannot be written: {first.seen}{others}; {first.remedy}"]


def _measured(
    connection: duckdb.DuckDBPyConnection,
    scope: _Scope,
    changes: Changes,
    plan: Plan,
    intents: Sequence[Intent],
) -> gate.Measured:
    """What the gate looks at. Shares of a fast plan are of all accounts that the CRM shows, too."""
    shown = 0
    if scope.lane == "fast":
        row = connection.execute(
            "SELECT count(*) FROM plan.confirmed WHERE object = 'account'"
        ).fetchone()
        shown = int(row[0]) if row else 0
    return gate.Measured(
        accounts=max(changes.bands.accounts, shown),
        known=max(changes.bands.known, shown),
        band_changes=changes.bands.band_changes,
        newly_unknown=changes.bands.newly_unknown,
        held=changes.bands.held,
        tasks=plan.totals["tasks_to_open"],
        foreign_fields=planning.foreign_fields(intents),
    )


def _fallbacks(
    company: Company,
    settings: CrmSettings,
    writers: Mapping[CrmName, CrmWriter],
    ledger: Ledger,
    plan: Plan,
) -> dict[CrmName, str | None]:
    """Who takes a task whose owner the CRM refuses; only asked for where tasks are to be opened."""
    if not plan.totals.get("tasks_to_open"):
        return {}
    return {
        crm: People(writer.owners(), settings.targets[crm].owners, company.zone).fallback().owner_id
        for crm, writer in writers.items()
    }


def _holder() -> str:
    name = "healthloop"
    with suppress(OSError):
        name = os.uname().nodename
    return f"process {os.getpid()} on {name}"
