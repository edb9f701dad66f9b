"""Sending intents to one CRM, batch by batch: in the ledger before each call and after it."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from connectors.crm.answers import UNKNOWN, decide, owner_refused, read_back
from connectors.crm.lease import Lease
from connectors.crm.ledger import Ledger
from connectors.crm.plans import Ended, Intent, IntentState
from connectors.crm.writing import CrmWriter, FieldUpdate, Outcome, Result
from contracts.errors import (
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

PAUSES_SECONDS = (2.0, 8.0, 30.0)
"""How long to wait before locked records are tried again."""

RESENDS = {"fields": 2, "open_task": 1, "close_task": 1}
"""How often what no answer mentions, and the CRM does not show, is sent again."""

ALL_REFUSED = 5
"""A batch of at least so many that are all refused one by one means that something is wrong."""


class Halt(Exception):
    """Nothing more goes to this CRM in this run; `failed` says that a person has to act."""

    def __init__(self, reason: str, *, failed: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.failed = reason, failed


def halt_for(error: SourceError) -> Halt:
    """What an error of a whole call means for the rest."""
    failed = isinstance(error, SourceRefused | SourceRejected)
    return Halt(f"{error.cause}; {error.remedy}" if failed else error.cause, failed=failed)


@dataclass
class Channel:
    """The way to one CRM, and everything that is asked before each call.

    Attributes:
        ledger: What is committed before each call and after it.
        writer: The CRM.
        plan_id: Whose intents are sent.
        now: The time, in UTC.
        lease: Kept before each call; None only where nothing is written.
        sleep: Waits for so many seconds.
        stop: Whether the run was asked to end.
        share: The share of the day's requests at which writing stops.
        fallback_owner: The id of who takes a task whose owner is refused.
        over: Whether the plan has ended: what is to be sent again is deferred to the next one.
        tell: Told of each batch, with how many records it had.
        ended: How many records of batches ended how, so far.
    """

    ledger: Ledger
    writer: CrmWriter
    plan_id: str
    now: Callable[[], dt.datetime]
    lease: Lease | None
    sleep: Callable[[float], None]
    stop: Callable[[], bool]
    share: float = 1.0
    fallback_owner: str | None = None
    over: bool = False
    tell: Callable[[int], None] = lambda records: None
    ended: Counter[IntentState] = field(default_factory=Counter, init=False)
    _refused_alone: int = field(default=0, init=False)

    def ready(self) -> None:
        """Before each call.

        Raises:
            Halt: the run was asked to stop, or our share of the day's requests is used.
            LeaseLost: another run may be writing.
        """
        if self.stop():
            raise Halt("the run was asked to stop")
        if self.writer.budget().used_share >= self.share:
            raise Halt(f"{100 * self.share:g} % of the day's API requests are used")
        if self.lease is not None:
            self.lease.keep()

    def pause(self, seconds: float) -> None:
        """Wait, and keep the lease meanwhile."""
        self.sleep(seconds)
        if self.lease is not None:
            self.lease.keep()

    def send(self, intents: Sequence[Intent]) -> None:
        """Send intents of one kind and object, until each has its end.

        Locked records are tried again when all others are done, by themselves, those of an account
        side by side; after the last time they are deferred.

        Raises:
            Halt: the rest is to be deferred.
        """
        locked = self._batches(intents)
        for seconds in PAUSES_SECONDS:
            if not locked:
                return
            self.pause(seconds)
            locked = self._batches(locked)
        self.ledger.settle(
            self.plan_id,
            [Ended(i.number, "deferred", "locked by others in the CRM") for i in locked],
        )

    def finish(self, batch_id: str, ends: Sequence[Ended]) -> None:
        """Keep how a batch ended."""
        self.ended.update(end.state for end in ends)
        if self.over:
            ends = [
                end._replace(state="deferred") if end.state == "planned" else end for end in ends
            ]
        self.ledger.finish_batch(batch_id, ends, self.now())

    def put_back(self, batch_id: str, intents: Sequence[Intent], reason: str) -> None:
        """End a batch of which nothing was done."""
        self.finish(batch_id, [Ended(intent.number, "planned", reason) for intent in intents])

    def park(self, batch_id: str, error: SourceError) -> Halt:
        """Leave a batch open whose outcome cannot be read now; the next run asks for it."""
        self.ledger.park_batch(batch_id, "its outcome is not known yet")
        return halt_for(error)

    def _batches(self, intents: Sequence[Intent]) -> list[Intent]:
        ordered = sorted(intents, key=lambda intent: (intent.account_id, intent.number))
        locked: list[Intent] = []
        size = self.writer.batch_size
        for start in range(0, len(ordered), size):
            batch = ordered[start : start + size]
            self._refused_alone = 0
            locked += self._batch(batch, RESENDS[batch[0].kind])
            self.tell(len(batch))
            if self._refused_alone == len(batch) >= ALL_REFUSED:
                # Which is no verdict on any of them: they are offered again.
                reason = "every record of a batch was refused, each in a call of its own"
                self.ledger.withdraw_refusals(self.plan_id, batch, reason)
                raise Halt(f"{reason}; run `healthloop doctor`", failed=True)
        return locked

    def _batch(self, batch: Sequence[Intent], resends: int) -> list[Intent]:
        """Send one batch, and again what no answer mentions; returns what is locked."""
        self.ready()
        batch_id = self.ledger.begin_batch(
            self.plan_id, [intent.number for intent in batch], method="collections", at=self.now()
        )
        try:
            results = call(self.writer, batch)
        except SourceRejected as error:
            return self._halves(batch_id, batch, resends, error)
        except (SourceExhausted, SourceUnavailable, SourceRefused) as error:
            self.put_back(batch_id, batch, error.cause)
            raise halt_for(error) from error
        except SourceError:  # sent, and no answer that could be read
            results = [UNKNOWN] * len(batch)
        results = self._completed(batch_id, batch, results)
        return self._ended(batch_id, batch, results, resends)

    def _completed(
        self, batch_id: str, batch: Sequence[Intent], results: Sequence[Result]
    ) -> list[Result]:
        """The results, with what the CRM shows of the records that the answer does not mention."""
        if len(results) != len(batch):
            results = [UNKNOWN] * len(batch)
        unsure = [place for place, one in enumerate(results) if one.outcome is Outcome.UNKNOWN]
        if not unsure:
            return list(results)
        try:
            seen = read_back(self.writer, [batch[place] for place in unsure])
        except SourceError as error:
            raise self.park(batch_id, error) from error
        shown = dict(zip(unsure, seen, strict=True))
        return [shown.get(place, result) for place, result in enumerate(results)]

    def _ended(
        self, batch_id: str, batch: Sequence[Intent], results: Sequence[Result], resends: int
    ) -> list[Intent]:
        pairs = list(zip(batch, results, strict=True))
        self.finish(
            batch_id,
            [
                decide(intent, result, resend=resends > 0, fallback_owner=self.fallback_owner)
                for intent, result in pairs
            ],
        )
        locked = [intent for intent, result in pairs if result.outcome is Outcome.BUSY]
        unsure = [intent for intent, result in pairs if result.outcome is Outcome.UNKNOWN]
        if len(batch) == 1 and results[0].outcome is Outcome.REJECTED:
            self._refused_alone += 1
        if unsure and resends:
            locked += self._batch(unsure, resends - 1)
        handed_on = [
            self._hand_on(intent)
            for intent, result in pairs
            if result.outcome is Outcome.REJECTED
            and owner_refused(intent, result.reason, self.fallback_owner)
        ]
        if handed_on:
            locked += self._batch(handed_on, resends)
        return locked

    def _hand_on(self, intent: Intent) -> Intent:
        assert intent.task is not None
        other = replace(intent, task=replace(intent.task, owner_id=self.fallback_owner))
        self.ledger.reassign(self.plan_id, other)
        return other

    def _halves(
        self, batch_id: str, batch: Sequence[Intent], resends: int, error: SourceRejected
    ) -> list[Intent]:
        """A call that was refused as a whole: its halves are sent, down to single records."""
        if len(batch) == 1:
            refused = Result(Outcome.REJECTED, reason=error.cause)
            return self._ended(batch_id, batch, [refused], resends)
        self.put_back(batch_id, batch, error.cause)
        middle = len(batch) // 2
        first = self._batch(batch[:middle], resends)
        return first + self._batch(batch[middle:], resends)


def call(writer: CrmWriter, batch: Sequence[Intent]) -> list[Result]:
    """The one call that a batch of one kind is."""
    match batch[0].kind:
        case "fields":
            return writer.update(updates_of(batch))
        case "open_task":
            return writer.create_tasks([i.task for i in batch if i.task is not None])
        case _:
            return writer.change_tasks([i.closing for i in batch if i.closing is not None])


def updates_of(intents: Sequence[Intent]) -> list[FieldUpdate]:
    """The updates that intents about fields are."""
    return [
        FieldUpdate(intent.object, intent.record_id, intent.changes.values())
        for intent in intents
        if intent.object is not None
    ]
