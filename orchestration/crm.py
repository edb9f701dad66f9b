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
from connectors.crm.observing import Observed, look_later, observe, planned_records
from connectors.crm.people import People
from connectors.crm.plans import Ended, Intent, Plan
from connectors.crm.settings import CrmSettings, ledger_url, names_of, read_crm
from connectors.crm.writing import CrmName
from contracts.company import Company
from contracts.crm_fields import CrmObject, written_on
from contracts.errors import HeldError, InputError, NotFoundError, SourceError
from contracts.secrets import Secrets
from orchestration.crms import Crms
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
    crms = Crms(company, settings_of(company))
    return _plan(crms, library, connection, _Scope(day, "daily", chosen), clock=clock)


def plan_news(
    crms: Crms, library: Library, connection: duckdb.DuckDBPyConnection, *, clock: Clock
) -> Planned | None:
    """Score the accounts with new facts as of now, and plan what the CRM should show of them.

    None where nothing is new. A plan without intents is not kept, and no CRM was asked for it.
    News are those since `saw_news` was last called.

    Raises:
        HeldError: another run is at work on the CRM.
        SourceError: `apply` is true, and a CRM cannot be asked.
    """
    company, now = crms.company, crms.company.now(clock())
    with ledger_of(company, crms.settings) as ledger:
        looked = ledger.watermark(next(iter(crms.settings.targets)), NEWS)
    if looked is None:
        looked = company.end_of(scored_day(connection, None))
    accounts = live.accounts_with_news(connection, since=min(looked, now) - NEWS_OVERLAP, until=now)
    if not accounts:
        return None
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
    return _plan(crms, library, connection, scope, clock=clock)


def saw_news(company: Company, now: dt.datetime) -> None:
    """What was news up to now is in the CRM, or needs not be: do not look at it again."""
    settings = settings_of(company)
    with ledger_of(company, settings) as ledger:
        ledger.set_watermark(next(iter(settings.targets)), NEWS, now)


@dataclass(frozen=True)
class _Scope:
    """What a plan is about: a day, all accounts (None) or some, and where their scores stand."""

    day: dt.date
    lane: Lane
    accounts: set[str] | None
    relations: Relations = field(default_factory=Relations)


def _plan(
    crms: Crms,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    scope: _Scope,
    *,
    clock: Clock,
) -> Planned:
    company, settings = crms.company, crms.settings
    now = company.now(clock())
    with (
        ledger_of(company, settings) as ledger,
        ledger.lease(holder=_holder(), now=clock, seconds=LEASE_SECONDS) as lease,
    ):

        def made(people: Mapping[CrmName, People]) -> Planned:
            return _made(
                company, library, connection, ledger, settings, scope,
                people=people, now=now, made_at=clock(),
            )  # fmt: skip

        if scope.lane == "fast" and not (drafted := made(crms.people_by_name)).intents:
            return drafted  # nobody is asked about what changes nothing
        notes = _unreachable(crms)
        if notes:
            return replace(made(crms.people_by_name), notes=tuple(notes))
        observed = None
        if crms.ready:
            if settings.apply:
                recover(ledger, crms.writers, now=lambda: company.now(clock()), lease=lease)
            observed = observe(
                ledger, crms.writers, settings, now=now, accounts=scope.accounts,
                without_tasks=[crm for crm in crms.writers if not crms.takes(crm, "tasks")],
                planned=lambda: planned_records(connection, scope.day),
            )  # fmt: skip
        planned = made(crms.people)
        planned = replace(planned, observed=observed, notes=tuple(crms.notes), stored=True)
        waits = _waits_already(ledger, planned)
        if waits is not None:
            return replace(planned, plan=waits)
        ledger.store(planned.plan, planned.intents)
        ledger.forget(now - dt.timedelta(days=settings.keep_days))
    return planned


def _waits_already(ledger: Ledger, planned: Planned) -> Plan | None:
    """The held plan that says the very same: whoever was told its name can still approve it."""
    waits, made = ledger.newest("held"), planned.plan
    if waits is None or (waits.lane, waits.as_of, waits.reasons) != (
        made.lane, made.as_of, made.reasons,
    ):  # fmt: skip
        return None
    same = planned.intents == tuple(ledger.intents(waits.plan_id))
    return waits if same and made.status == "held" else None


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
    long_ago = now - dt.timedelta(days=settings.refresh_days)
    tombstones, tasks = ledger.tombstones(), ledger.tasks()
    field_changes.load_confirmed(connection, ledger.confirmed())
    changes = field_changes.make_changes(
        connection,
        scope.day,
        in_use=in_use(settings),
        refresh_days=settings.refresh_days,
        merged=tombstones,
        rejected=ledger.rejections(since=long_ago),
        accounts=scope.accounts,
    )
    records = planning.records_of(connection, tombstones)
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
        reachable={
            account
            for account, record in records.items()
            if record.crm in people and (record.crm, record.record_id) not in tombstones
        },
        scores=scope.relations.scores,
        contributions=scope.relations.contributions,
        accounts=scope.relations.accounts,
        values=scope.relations.values,
    )
    around = planning.Surroundings(
        records=records,
        people=people,
        gone=frozenset(tombstones),
        crm_of_task=ledger.crm_of_tasks(),
        carried=tuple(ledger.carried(rejected_before=long_ago)),
        states={task.key: task for task in tasks},
    )
    plan, intents = planning.make_plan(
        as_of=scope.day, lane=scope.lane, made_at=made_at, now=now,
        changes=field_changes.read_changes(connection, changes), decisions=decisions,
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
    crms: Crms | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Plan, Applied]:
    """Carry out a stored plan; without an id the newest that may be.

    `crms` may be those with which it was planned just now, so that nothing is asked twice.

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
        _leave_what_is_newer(ledger, plan)
        crms = crms or Crms(company, settings)
        opens = bool(plan.totals.get("tasks_to_open"))
        crms.require_ready(tasks=opens)
        applied = apply_plan(
            ledger,
            plan.plan_id,
            crms.writers,
            now=lambda: company.now(clock()),
            lease=lease,
            budget={crm: target.daily_share for crm, target in settings.targets.items()},
            bulk_above={crm: target.bulk_above for crm, target in settings.targets.items()},
            fallback_owner={
                crm: people.fallback().owner_id
                for crm, people in (crms.people if opens else {}).items()
            },
            stop=stop,
            progress=progress,
        )
        look_later(ledger, list(crms.writers), now=company.now(clock()))
        return ledger.plan(plan.plan_id), applied


def newest_plan(company: Company, day: dt.date) -> Plan | None:
    """The newest plan of a day in the ledger; None where there is none, or no `crm.yaml`."""
    settings = read_crm(company)
    if settings is None:
        return None
    with ledger_of(company, settings) as ledger:
        plan = ledger.newest()
    return plan if plan and plan.as_of == day and plan.lane == "daily" else None


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


def _leave_what_is_newer(ledger: Ledger, plan: Plan) -> None:
    """Skip the fields of records that a newer plan has written, as the fast lane does while a
    plan waits for a person.
    """
    newest = ledger.newest("applied")
    if newest is None or newest.made_at <= plan.made_at:
        return
    newer = [p for p in ledger.plans(1000) if p.made_at > plan.made_at and p.status == "applied"]
    done = {
        (intent.crm, intent.object, intent.record_id)
        for each in newer
        for intent in ledger.intents(each.plan_id, "written")
        if intent.kind == "fields"
    }
    reason = "a newer plan has written this record"
    ledger.settle(
        plan.plan_id,
        [
            Ended(intent.number, "skipped", reason)
            for intent in ledger.intents(plan.plan_id, "planned")
            if intent.kind == "fields" and (intent.crm, intent.object, intent.record_id) in done
        ],
    )


def _appliable(ledger: Ledger, plan_id: str | None) -> Plan:
    # One that waits may be older than one of the fast lane that is done.
    waiting = ledger.newest("open", "approved", "held")
    plan = ledger.plan(plan_id) if plan_id else waiting or ledger.newest()
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


def _unreachable(crms: Crms) -> list[str]:
    """Why a CRM cannot be asked. Only a dry run may do without."""
    try:
        _ = crms.writers
    except SourceError as error:
        if crms.settings.apply:
            raise
        return [f"made without asking the CRM: {error.cause}; {error.remedy}"]
    return []


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
            "SELECT count(*) FROM confirmed_records WHERE object = 'account'"
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


def _holder() -> str:
    name = "healthloop"
    with suppress(OSError):
        name = os.uname().nodename
    return f"process {os.getpid()} on {name}"
