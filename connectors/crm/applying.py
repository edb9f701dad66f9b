"""Carrying out a plan: every write once, whatever breaks, and every record with one end.

The protocol: the plan's episodes and tasks are committed; each batch is committed as sent; it is
sent; its results are committed. `recover` comes first in every run: a batch without an answer is
read back before anything is sent again. Fields come before tasks, which lock their account.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.collecting import rarely_collecting
from connectors.crm.answers import decide, read_back
from connectors.crm.jobs import AT_WORK, send_by_jobs, settle_job
from connectors.crm.lease import Lease
from connectors.crm.ledger import Ledger
from connectors.crm.ledger_rows import key_of
from connectors.crm.plans import END_STATES, Ended, Intent, IntentKind, IntentState, OpenBatch
from connectors.crm.sending import Channel, Halt, halt_for
from connectors.crm.writing import CrmName, CrmWriter
from contracts.actions import TaskState
from contracts.errors import HeldError, SourceError

KINDS: tuple[IntentKind, ...] = ("fields", "open_task", "close_task")
PATIENCE_SECONDS = 1800.0
"""How long to wait for a bulk job before it is left for the next run."""

_GROUPS = (
    ("fields", "account", "account fields"),
    ("fields", "opportunity", "opportunity fields"),
    ("open_task", None, "tasks to open"),
    ("close_task", None, "tasks to close"),
)
Clock = Callable[[], dt.datetime]


@dataclass(frozen=True)
class Applied:
    """What became of a plan.

    Attributes:
        plan_id: Which plan.
        counts: How many intents ended how, by kind and end state; zeros are there.
        calls: The requests that were sent, reads too.
        seconds: How long it took, by the clock that was given.
        failed: Why a person has to act; None where nobody has to.
        degraded: What was put off, and why.
        refused: What the CRM refused, and why: a line a record.
    """

    plan_id: str
    counts: Mapping[IntentKind, Mapping[IntentState, int]]
    calls: int
    seconds: float
    failed: str | None = None
    degraded: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def total(self, state: IntentState) -> int:
        """How many intents of any kind ended so."""
        return sum(states[state] for states in self.counts.values())


@dataclass(frozen=True)
class Recovered:
    """What was found of batches that a former run left without an answer.

    `written` records had arrived, `again` ones had not and are to be sent; `waiting` says which
    batches stay open, and why.
    """

    batches: int = 0
    written: int = 0
    again: int = 0
    waiting: tuple[str, ...] = ()


@rarely_collecting()
def apply_plan(
    ledger: Ledger,
    plan_id: str,
    writers: Mapping[CrmName, CrmWriter],
    *,
    now: Clock,
    lease: Lease,
    budget: Mapping[CrmName, float],
    bulk_above: Mapping[CrmName, int],
    fallback_owner: Mapping[CrmName, str | None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[str], None] = lambda line: None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Applied:
    """Carry out a plan that may be applied; one that a crash interrupted goes on where it was.

    Args:
        ledger: Where the plan is, and where everything is kept.
        plan_id: An open or approved plan.
        writers: The CRMs; what is planned for another one is deferred.
        now: The time, in UTC.
        lease: Held by this run.
        budget: The share of the day's requests, by CRM, at which writing stops.
        bulk_above: More records of an object than this go by a bulk job, where there is such.
        fallback_owner: Who takes a task whose owner the CRM refuses, by id.
        sleep: Waits for so many seconds.
        stop: Asked before each call: whether to defer the rest.
        progress: Told of each batch in a line.
        patience_seconds: How long to wait for a bulk job.

    Raises:
        HeldError: the plan may not be applied, or another run has the lease.
        LedgerError: the ledger failed, or planned is not the sum of all ends. Nothing more is sent.
    """
    status = ledger.plan(plan_id).status
    if status not in ("open", "approved"):
        raise HeldError(f"plan {plan_id} is {status}", "apply one that is open or approved")
    began, before = now(), _requests(writers)
    found = recover(
        ledger, writers, now=now, lease=lease, sleep=sleep, stop=stop, patience_seconds=0
    )
    ledger.begin_plan(plan_id, now())
    planned = ledger.intents(plan_id, "planned")
    failed = None
    for crm in sorted({intent.crm for intent in planned}):
        mine = [intent for intent in planned if intent.crm == crm]
        try:
            if crm not in writers:
                raise Halt("nothing writes there in this run")
            channel = Channel(
                ledger, writers[crm], plan_id, now, lease, sleep, stop,
                share=budget.get(crm, 1.0),
                fallback_owner=(fallback_owner or {}).get(crm),
            )  # fmt: skip
            run = _Run(channel, mine, bulk_above.get(crm, len(mine)), patience_seconds, progress)
            run.carry_out()
        except Halt as halt:
            _defer_rest(ledger, plan_id, crm, halt.reason)
            failed = failed or (f"{crm}: {halt.reason}" if halt.failed else None)
    ledger.end_plan(plan_id, now())
    seconds = (now() - began).total_seconds()
    calls = _requests(writers) - before
    put_off = ledger.reasons(plan_id, "deferred").items()
    return Applied(
        plan_id, _counts(ledger, plan_id), calls, seconds, failed,
        degraded=(
            *found.waiting, *(f"{crm}: {n:,} deferred: {reason}" for (crm, reason), n in put_off),
        ),
        refused=tuple(_refused_lines(ledger.intents(plan_id, "rejected"))),
    )  # fmt: skip


def _refused_lines(intents: Iterable[Intent]) -> Iterator[str]:
    for i in intents:
        what = f"{i.object} {i.record_id}" if i.object else f"a task on {i.record_id}"
        yield f"{i.crm} {what} ({i.account_id}): {i.reason}"


def recover(
    ledger: Ledger,
    writers: Mapping[CrmName, CrmWriter],
    *,
    now: Clock,
    lease: Lease | None = None,
    sleep: Callable[[float], None] = time.sleep,
    stop: Callable[[], bool] = lambda: False,
    patience_seconds: float = 600.0,
) -> Recovered:
    """Find out what became of batches that were sent and never answered, before anything is sent.

    Tasks are read back by their keys, fields by what the records show, bulk jobs by their ids. What
    did not arrive is planned again if its plan may still be applied, and deferred otherwise. What
    cannot be found out now stays open, and nothing else is sent to that CRM meanwhile.

    Raises:
        LedgerError: the ledger failed.
    """
    batches = written = again = 0
    waiting = []
    for batch in ledger.sent():
        writer = writers.get(batch.crm)
        if writer is None:
            waiting.append(f"{batch.crm}: {len(batch.intents):,} sent, and it is not asked now")
            continue
        over = ledger.plan(batch.plan_id).status not in ("open", "approved")
        channel = Channel(ledger, writer, batch.plan_id, now, lease, sleep, stop, over=over)
        try:
            reason = _settle(channel, batch, patience_seconds)
        except Halt as halt:
            reason = halt.reason
        if reason:
            waiting.append(f"{batch.crm}: {len(batch.intents):,} sent: {reason}")
            continue
        batches += 1
        written += channel.ended["written"]
        again += channel.ended["planned"]
    return Recovered(batches, written, again, tuple(waiting))


def _settle(channel: Channel, batch: OpenBatch, patience_seconds: float) -> str | None:
    """Find out what became of one batch; why not, where that cannot be."""
    bulk = channel.writer.bulk
    if batch.job_id and bulk:
        end = settle_job(
            channel, bulk, batch.batch_id, batch.job_id, batch.intents,
            patience_seconds=patience_seconds,
        )  # fmt: skip
        return AT_WORK if end.waiting else None
    if batch.method == "bulk":  # no job was made, or one that stays empty
        channel.put_back(batch.batch_id, batch.intents, "its job was never made")
        return None
    try:
        results = read_back(channel.writer, batch.intents)
    except SourceError as error:
        raise channel.park(batch.batch_id, error) from error
    pairs = zip(batch.intents, results, strict=True)
    channel.finish(batch.batch_id, [decide(intent, result) for intent, result in pairs])
    return None


@dataclass
class _Run:
    """One CRM's part of a plan."""

    channel: Channel
    intents: Sequence[Intent]
    bulk_above: int
    patience_seconds: float
    progress: Callable[[str], None]

    def carry_out(self) -> None:
        """Send everything.

        Raises:
            Halt: the rest is to be deferred.
        """
        for kind, object, name in _GROUPS:
            group = [i for i in self.intents if i.kind == kind and i.object in (object, None)]
            if group:
                self._group(group, name)

    def _group(self, group: Sequence[Intent], name: str) -> None:
        channel, crm = self.channel, self.channel.writer.name
        if group[0].kind == "close_task":
            self._look_again(group)
        group = self._wanted(group)
        done = 0

        def tell(records: int) -> None:
            nonlocal done
            done += records
            self.progress(f"{crm}: {name}: {min(done, len(group)):,} of {len(group):,}")

        channel.tell = tell
        bulk = channel.writer.bulk
        left: Sequence[Intent] = group
        if bulk and group and group[0].kind == "fields" and len(group) > self.bulk_above:
            left = send_by_jobs(channel, bulk, group, patience_seconds=self.patience_seconds)
        channel.send(left)

    def _look_again(self, group: Sequence[Intent]) -> None:
        """Before tasks are closed: what people did with them since the plan was made."""
        channel = self.channel
        for start in range(0, len(group), channel.writer.batch_size):
            keys = [key_of(i) or "" for i in group[start : start + channel.writer.batch_size]]
            channel.ready()
            try:
                seen = channel.writer.tasks_by_key(keys)
            except SourceError as error:
                raise halt_for(error) from error
            missing = [key for key in keys if key not in seen]
            channel.ledger.saw_tasks(
                channel.writer.name, seen.values(), channel.now(), missing=missing
            )

    def _wanted(self, group: Sequence[Intent]) -> list[Intent]:
        """The intents that are still to be sent; the others are settled."""
        channel, crm = self.channel, self.channel.writer.name
        around = Around(
            tombstones=channel.ledger.tombstones(),
            tasks={} if group[0].kind == "fields" else _tasks(channel.ledger),
            at_work=_at_work(channel.ledger.sent(), crm),
        )
        ends, wanted, keys = [], [], set[str]()
        for intent in group:
            key = key_of(intent)
            twice = Ended(intent.number, "skipped", "the same task twice in a plan")
            end = twice if key in keys else why_not(intent, around)
            if key is not None:
                keys.add(key)
            if end is None:
                wanted.append(intent)
            else:
                ends.append(end)
        if ends:
            channel.ledger.settle(channel.plan_id, ends)
        return wanted


@dataclass(frozen=True)
class Around:
    """What may have happened to a record or a task since the plan was made.

    `at_work` are records that a bulk job is still writing.
    """

    tombstones: Mapping[tuple[CrmName, str], str | None] = field(default_factory=dict)
    tasks: Mapping[str, TaskState] = field(default_factory=dict)
    at_work: frozenset[tuple[str | None, str]] = frozenset()


def why_not(intent: Intent, around: Around) -> Ended | None:
    """Why an intent is not sent any more; None where it is.

    >>> gone = Around(tombstones={("hubspot", "7"): None})
    >>> why_not(Intent(1, "fields", "hubspot", "account", "7", "A1"), gone).reason
    'deleted in the CRM'
    """
    number, record = intent.number, (intent.crm, intent.record_id)
    if intent.kind != "close_task" and record in around.tombstones:
        successor = around.tombstones[record]
        reason = "merged in the CRM" if successor else "deleted in the CRM"
        return Ended(number, "skipped", reason, gone=successor is None, successor=successor)
    if (intent.object, intent.record_id) in around.at_work:
        return Ended(number, "deferred", AT_WORK)
    known = around.tasks.get(key_of(intent) or "")
    if intent.task and known is None:
        return Ended(number, "skipped", "a newer plan has decided about it")
    if intent.task and known and known.status != "planned":
        return Ended(number, "skipped", f"the task is there already ({known.status})")
    if intent.closing and known and known.status != "open":
        return Ended(number, "skipped", f"the task is not open any more ({known.status})")
    if intent.closing and known and known.touched:
        return Ended(number, "skipped", "somebody has the task in hand")
    return None


def _at_work(batches: Iterable[OpenBatch], crm: CrmName) -> frozenset[tuple[str | None, str]]:
    """The records of bulk jobs that are still at work.

    Raises:
        Halt: there are other batches whose outcome nobody knows.
    """
    mine = [batch for batch in batches if batch.crm == crm]
    if any(batch.job_id is None for batch in mine):
        raise Halt("what was sent before has no answer yet")
    return frozenset((intent.object, intent.record_id) for b in mine for intent in b.intents)


def _tasks(ledger: Ledger) -> dict[str, TaskState]:
    return {task.key: task for task in ledger.tasks()}


def _defer_rest(ledger: Ledger, plan_id: str, crm: CrmName, reason: str) -> None:
    rest = [i for i in ledger.intents(plan_id, "planned") if i.crm == crm]
    ledger.settle(plan_id, [Ended(intent.number, "deferred", reason) for intent in rest])


def _counts(ledger: Ledger, plan_id: str) -> dict[IntentKind, Mapping[IntentState, int]]:
    counts = ledger.counts(plan_id)
    return {kind: {state: counts.get((kind, state), 0) for state in END_STATES} for kind in KINDS}


def _requests(writers: Mapping[CrmName, CrmWriter]) -> int:
    return sum(writer.requests_sent for writer in writers.values())
