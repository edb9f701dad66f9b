"""What an answer means for an intent, and what the CRM shows where there was no answer."""

import re
from collections.abc import Mapping, Sequence

from connectors.crm.ledger_rows import key_of
from connectors.crm.plans import Ended, Intent
from connectors.crm.writing import CrmWriter, Outcome, Result, SeenRecord, SeenTask

UNKNOWN = Result(Outcome.UNKNOWN)
_ABOUT_OWNER = re.compile(r"INACTIVE_OWNER|owner_?id\b|\bowner\b", re.IGNORECASE)
"""As the CRMs say it; not the name of a field of the customer's own, like Owner_Region__c."""


def decide(
    intent: Intent, result: Result, *, resend: bool = True, fallback_owner: str | None = None
) -> Ended:
    """How an intent ends by its result; `planned` where it is to be sent again.

    `resend` says whether a record that no answer mentions may be sent again; `fallback_owner` takes
    a task whose own owner the CRM refuses, unless it is theirs already.

    >>> intent = Intent(7, "fields", "salesforce", "account", "001A", "A1")
    >>> decide(intent, Result(Outcome.GONE))
    Ended(number=7, state='skipped', reason='deleted in the CRM', crm_id=None, gone=True, \
successor=None)
    >>> decide(intent, UNKNOWN).state, decide(intent, UNKNOWN, resend=False).state
    ('planned', 'deferred')
    """
    number, reason = intent.number, result.reason
    match result.outcome:
        case Outcome.DONE:
            return Ended(number, "written", crm_id=result.crm_id if intent.task else None)
        case Outcome.REJECTED:
            again = owner_refused(intent, reason, fallback_owner)
            return Ended(number, "planned" if again else "rejected", reason or "refused")
        case Outcome.BUSY:
            return Ended(number, "planned", reason or "locked")
        case Outcome.MERGED if result.successor:
            return Ended(number, "skipped", "merged in the CRM", successor=result.successor)
        case Outcome.GONE | Outcome.MERGED:
            return Ended(number, "skipped", "deleted in the CRM", gone=True)
        case _:
            told = reason or "the CRM did not say what became of it"
            return Ended(number, "planned" if resend else "deferred", told)


def owner_refused(intent: Intent, reason: str, fallback_owner: str | None) -> bool:
    """Whether a task was refused for its owner, and there is another one to try."""
    return (
        intent.task is not None
        and _ABOUT_OWNER.search(reason) is not None
        and fallback_owner not in (None, intent.task.owner_id)
    )


def read_back(writer: CrmWriter, intents: Sequence[Intent]) -> list[Result]:
    """What became of intents of one kind and object, by what the CRM shows now.

    UNKNOWN is what it does not show: that was not written, or was overwritten since.

    Raises:
        SourceError: it could not be read.
    """
    found: list[Result] = []
    for start in range(0, len(intents), writer.batch_size):
        some = intents[start : start + writer.batch_size]
        if some[0].kind == "fields":
            found += _records(writer, some)
        else:
            seen = writer.tasks_by_key([key_of(intent) or "" for intent in some])
            found += [_task(intent, seen) for intent in some]
    return found


def _records(writer: CrmWriter, intents: Sequence[Intent]) -> list[Result]:
    object = intents[0].object
    assert object is not None
    fields = sorted({name for intent in intents for name in intent.changes.names})
    seen = writer.records_by_id(object, [intent.record_id for intent in intents], fields)
    return [_record(intent, seen.get(intent.record_id)) for intent in intents]


def _record(intent: Intent, seen: SeenRecord | None) -> Result:
    if seen is None:
        return UNKNOWN
    if seen.successor is not None:
        return Result(Outcome.MERGED, successor=seen.successor)
    if seen.gone:
        return Result(Outcome.GONE)
    wanted = intent.changes.values()
    shown = all(seen.values.get(field) == value for field, value in wanted.items())
    return Result(Outcome.DONE) if shown else UNKNOWN


def _task(intent: Intent, seen: Mapping[str, SeenTask]) -> Result:
    task = seen.get(key_of(intent) or "")
    if intent.task is not None:
        return Result(Outcome.DONE, task.task_id) if task else UNKNOWN
    if task is None or task.status == "deleted":
        return Result(Outcome.GONE)
    return Result(Outcome.DONE) if task.status == "completed" else UNKNOWN
