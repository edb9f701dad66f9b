"""Plans for the CRM: of a day, or of what is new. What the assets and the commands share.

The steps are those of `connectors.crm` and `scoring.actions`; here they only follow one another.
"""

import datetime as dt
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import duckdb

from connectors.crm import changes as field_changes
from connectors.crm import gate, planning
from connectors.crm.applying import recover
from connectors.crm.changes import Changes
from connectors.crm.ledger import Ledger
from connectors.crm.observing import Observed, observe, planned_records
from connectors.crm.people import People
from connectors.crm.places import keep_places
from connectors.crm.plans import Intent, Plan
from connectors.crm.settings import CrmSettings, names_of, read_crm
from connectors.crm.writing import CrmName
from contracts.company import Company
from contracts.crm_fields import OBJECTS, CrmObject, written_on
from contracts.errors import SourceError
from orchestration.crms import Clock, Crms, leased_ledger, ledger_of, settings_of
from scoring import actions, desired, live
from scoring.clocks import AsOf
from scoring.explain import scored_day
from scoring.library import Library
from scoring.triggers import Relations

NEWS = "news"
NEWS_OVERLAP = dt.timedelta(minutes=15)
"""How far before the last look to look again: a source may tell of a fact minutes after it."""
Lane = Literal["daily", "fast"]


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


def plan_day(
    company: Company,
    library: Library,
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    *,
    clock: Clock,
    retry_refused: bool = False,
) -> Planned:
    """Make the plan of a scored day, judge it at the gate, and keep it in the ledger.

    Only reads from the CRM. Without one that can be asked, a dry run still shows the plan.
    Accounts that were scored live after that day are left as they are: the CRM shows newer scores.
    With `retry_refused` what the CRM refused is offered again, as it is after `refresh_days`.

    Raises:
        HeldError: another run is at work on the CRM, or it is another organisation than before.
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
    crms = Crms(company, settings_of(company))
    scope = _Scope(day, "daily", without=frozenset(newer), retry_refused=retry_refused)
    return _plan(crms, library, connection, scope, clock=clock)


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
    scope = _Scope(found.day, "fast", {*found.accounts}, relations=of_live)
    return _plan(crms, library, connection, scope, clock=clock)


def saw_news(company: Company, now: dt.datetime) -> None:
    """What was news up to now is in the CRM, or needs not be: do not look at it again."""
    settings = settings_of(company)
    with ledger_of(company, settings) as ledger:
        ledger.set_watermark(next(iter(settings.targets)), NEWS, now)


@dataclass(frozen=True)
class _Scope:
    """What a plan is about: a day, all accounts (None) or some, `without` these, and where their
    scores stand.
    """

    day: dt.date
    lane: Lane
    accounts: set[str] | None = None
    without: frozenset[str] = frozenset()
    relations: Relations = field(default_factory=Relations)
    retry_refused: bool = False


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
    with leased_ledger(company, settings, clock) as (ledger, lease):

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
            keep_places(ledger, settings, crms.accounts)
            if settings.apply:
                recover(ledger, crms.writers, now=lambda: company.now(clock()), lease=lease)
            observed = observe(
                ledger, crms.writers, settings, tenant=company.settings.tenant, now=now,
                accounts=scope.accounts,
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
    patience = dt.timedelta(days=0 if scope.retry_refused else settings.refresh_days)
    long_ago = now - patience
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
        without=scope.without,
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
        capacity=settings.actions.capacity | _no_week_of_theirs(people),
        only=scope.accounts,
        without=scope.without,
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
        refused=frozenset(ledger.rejected_tasks(since=long_ago)),
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


def _no_week_of_theirs(people: Mapping[CrmName, People]) -> dict[str, int]:
    """Room without end for those who cannot own tasks any more: others do them in their place."""
    return {name: sys.maxsize for of_crm in people.values() for name in of_crm.inactive}


def in_use(settings: CrmSettings) -> dict[tuple[CrmName, CrmObject], set[str]]:
    """The fields that are written, by CRM and object."""
    return {
        (crm, object): set(names_of(crm, target, object))
        & {field.name for field in written_on(object)}
        for crm, target in settings.targets.items()
        for object in OBJECTS
    }


@dataclass(frozen=True)
class Stored:
    """A plan in the ledger: how many of its writes ended how, and why some were put off."""

    plan: Plan
    ends: Mapping[str, int]
    put_off: tuple[str, ...]


def newest_plan(company: Company, is_meant: Callable[[Plan], bool]) -> Stored | None:
    """The newest plan that is meant, of the last ones; None without one, or without `crm.yaml`."""
    settings = read_crm(company)
    if settings is None:
        return None
    with ledger_of(company, settings) as ledger:
        plan = next((plan for plan in ledger.plans() if is_meant(plan)), None)
        if plan is None:
            return None
        ends: Counter[str] = Counter()
        for (_, state), count in ledger.counts(plan.plan_id).items():
            ends[state] += count
        put_off = ledger.reasons(plan.plan_id, "deferred")
    return Stored(plan, ends, tuple(f"{crm}: {reason}" for crm, reason in put_off))


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
