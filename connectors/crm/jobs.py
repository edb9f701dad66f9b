"""Bulk jobs: many records at once, by a job whose id is in the ledger before anything is uploaded.

A job is never run twice. After a crash it is found by its id: one that is still open had nothing to
do yet and is aborted; one that is at work is waited for; one that is over tells its results.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from connectors.crm.answers import UNKNOWN, decide, read_back
from connectors.crm.plans import Ended, Intent
from connectors.crm.sending import Channel, halt_for, updates_of
from connectors.crm.writing import Bulk, JobState, Outcome, Result
from contracts.errors import (
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)

JOB_BYTES = 60_000_000
"""What one job may carry. CRMs allow about 100 MB; names, quotes and commas need some of it."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
AT_WORK = "a bulk job is still at work on it"


@dataclass(frozen=True)
class JobEnd:
    """How a batch by a bulk job went.

    `again` are the records that it did not write and that may be written otherwise. `usable` is
    false where the CRM takes no such jobs, `waiting` true where the job is still at work.
    """

    again: tuple[Intent, ...] = ()
    usable: bool = True
    waiting: bool = False


def send_by_jobs(
    channel: Channel, bulk: Bulk, intents: Sequence[Intent], *, patience_seconds: float
) -> list[Intent]:
    """Write fields of one object by jobs; returns what is left for other ways of writing.

    Raises:
        Halt: the rest is to be deferred.
    """
    left: list[Intent] = []
    usable = True
    for part in parts(intents):
        if not usable:
            left += part
            continue
        end = _send(channel, bulk, part, patience_seconds)
        usable = end.usable
        left += end.again
    return left


def parts(intents: Sequence[Intent]) -> Iterator[list[Intent]]:
    """The records of one job each: as many as it may carry."""
    part: list[Intent] = []
    size = 0
    for intent in intents:
        texts = [value or "#N/A" for value in intent.changes.values().values()]
        bytes_of = len("".join(texts).encode()) + 3 * len(texts) + 20
        if part and size + bytes_of > JOB_BYTES:
            yield part
            part, size = [], 0
        part.append(intent)
        size += bytes_of
    if part:
        yield part


def _send(channel: Channel, bulk: Bulk, part: list[Intent], patience_seconds: float) -> JobEnd:
    channel.ready()
    batch_id = channel.ledger.begin_batch(
        channel.plan_id, [intent.number for intent in part], method="bulk", at=channel.now()
    )
    object = part[0].object
    assert object is not None
    fields = sorted({name for intent in part for name in intent.changes.names})
    try:
        job_id = bulk.create(object, fields)
    except (SourceExhausted, SourceUnavailable) as error:
        channel.put_back(batch_id, part, error.cause)
        raise halt_for(error) from error
    except SourceError as error:  # a job that nobody knows of stays empty, and does nothing
        channel.put_back(batch_id, part, error.cause)
        return JobEnd(tuple(part), usable=False)
    channel.ledger.note_job(batch_id, job_id)
    try:
        bulk.upload(job_id, updates_of(part))
    except SourceError as error:
        end = _after_failed_upload(channel, bulk, batch_id, job_id, part, error)
        if end is not None:
            return end
    channel.tell(len(part))
    return settle_job(channel, bulk, batch_id, job_id, part, patience_seconds=patience_seconds)


def _after_failed_upload(
    channel: Channel, bulk: Bulk, batch_id: str, job_id: str, part: list[Intent], error: SourceError
) -> JobEnd | None:
    """None where the job began in spite of the error."""
    try:
        if bulk.state(job_id) != "open":
            return None
        bulk.abort(job_id)
    except SourceError as second:
        raise channel.park(batch_id, second) from second
    channel.put_back(batch_id, part, error.cause)
    if isinstance(error, SourceExhausted | SourceUnavailable):
        raise halt_for(error) from error
    unusable = isinstance(error, SourceRejected | SourceRefused)
    return JobEnd(tuple(part), usable=not unusable)


def settle_job(
    channel: Channel,
    bulk: Bulk,
    batch_id: str,
    job_id: str,
    intents: Sequence[Intent],
    *,
    patience_seconds: float,
) -> JobEnd:
    """Wait for a job, and keep what became of its records.

    Raises:
        Halt: the CRM cannot be asked; the batch stays open.
    """
    try:
        state = _wait(channel, bulk, job_id, patience_seconds)
        if state == "working":
            channel.ledger.park_batch(batch_id, AT_WORK)
            return JobEnd(waiting=True)
        results = _results(channel, bulk, job_id, state, intents)
    except SourceError as error:
        raise channel.park(batch_id, error) from error
    if len(results) != len(intents):
        results = [UNKNOWN] * len(intents)
    pairs = list(zip(intents, results, strict=True))
    ends: list[Ended] = [decide(intent, result) for intent, result in pairs]
    channel.finish(batch_id, ends)
    retried = (Outcome.UNKNOWN, Outcome.BUSY)
    return JobEnd(tuple(intent for intent, result in pairs if result.outcome in retried))


def _wait(channel: Channel, bulk: Bulk, job_id: str, patience_seconds: float) -> JobState:
    """The state of a job once it is over, or `working` where that takes too long."""
    waited, seconds = 0.0, FIRST_PAUSE_SECONDS
    while (state := bulk.state(job_id)) == "working":
        if waited >= patience_seconds or channel.stop():
            break
        channel.pause(seconds)
        waited += seconds
        seconds = min(2 * seconds, LONGEST_PAUSE_SECONDS)
    return state


def _results(
    channel: Channel, bulk: Bulk, job_id: str, state: JobState, intents: Sequence[Intent]
) -> list[Result]:
    if state == "open":
        bulk.abort(job_id)
        return [UNKNOWN] * len(intents)
    if state == "missing":
        return read_back(channel.writer, intents)
    return bulk.results(job_id, updates_of(intents))
