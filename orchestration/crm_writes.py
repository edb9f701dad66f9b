"""Carrying out plans, and what people decide about those that wait."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from connectors.crm.applying import Applied, apply_plan
from connectors.crm.ledger import Ledger
from connectors.crm.observing import look_later
from connectors.crm.plans import Ended, Plan
from contracts.company import Company
from contracts.errors import HeldError, InputError, NotFoundError
from orchestration.crms import Clock, Crms, leased_ledger, ledger_of, settings_of


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
    with leased_ledger(company, settings, clock) as (ledger, lease):
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
        look_later(
            ledger,
            list(crms.writers),
            written=applied.counts["fields"]["written"],
            now=company.now(clock()),
        )
        return ledger.plan(plan.plan_id), applied


def judge_plan(company: Company, plan_id: str, *, approve: bool, by: str, clock: Clock) -> Plan:
    """Approve a held plan, so that it may be applied, or drop a plan that waits.

    Raises:
        NotFoundError: there is no such plan.
        InputError: it is no plan that waits for anybody.
        HeldError: it is to be dropped, and a run is at work on the CRM.
    """
    settings = settings_of(company)
    with ExitStack() as opened:
        if approve:
            ledger = opened.enter_context(ledger_of(company, settings))
        else:  # which may be just being carried out
            ledger, _ = opened.enter_context(leased_ledger(company, settings, clock))
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
    """During the block, SIGTERM and SIGINT ask to stop after the call in hand.

    SIGTERM asks for no more than that. SIGINT (Ctrl-C, and *Terminate* in Dagster) is only put off:
    it goes on to whoever handled it before, a first one once the block is done, a second at once.
    """
    asked, interrupted = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    formers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def put_off(number: int, frame: object) -> None:
        asked.set()
        interrupted.set()
        signal.signal(signal.SIGINT, formers[signal.SIGINT])

    try:
        signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
        if formers[signal.SIGINT] is not signal.SIG_IGN:  # as in the background of a script
            signal.signal(signal.SIGINT, put_off)
        yield asked.is_set
    finally:
        for number, former in formers.items():
            signal.signal(number, former)
        if interrupted.is_set():
            signal.raise_signal(signal.SIGINT)


def _leave_what_is_newer(ledger: Ledger, plan: Plan) -> None:
    """Skip the fields of records that a newer plan has written, as the fast lane does while a
    plan waits for a person.
    """
    done = ledger.written_after(plan.made_at)
    if not done:
        return
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
