"""Plans, intents, episodes and tasks as rows of the ledger, and back."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import TypeAdapter

from connectors.crm.plans import FieldChanges, Intent, Plan
from connectors.crm.writing import NewTask, TaskChange
from contracts.actions import Episode, TaskLeft, TaskState

T = TypeVar("T")

IN_ONE_STATEMENT = 10_000
"""The most parameters of an IN list; databases allow some 32,000."""


@dataclass(frozen=True, slots=True)
class _Task:
    task: NewTask | None = None
    closing: TaskChange | None = None


@dataclass(frozen=True)
class _Decided:
    episodes: tuple[Episode, ...] = ()
    tasks: tuple[TaskState, ...] = ()
    left: tuple[TaskLeft, ...] = ()


_task: TypeAdapter[_Task] = TypeAdapter(_Task)
_decided: TypeAdapter[_Decided] = TypeAdapter(_Decided)


def dumps(value: Any) -> str:
    """JSON; halves of characters, which JSON cannot hold, become question marks."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return orjson.dumps(_whole(value)).decode()


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_whole(name): _whole(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return value


NOTHING_DECIDED = dumps(_Decided())
"""Of a plan without episodes and tasks."""


def chunks(items: Sequence[T], size: int = IN_ONE_STATEMENT) -> Iterator[Sequence[T]]:
    """The items in pieces of at most `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def plan_row(plan: Plan, intents: Sequence[Intent]) -> dict[str, Any]:
    """A plan as it is kept."""
    return {
        "plan_id": plan.plan_id,
        "as_of": plan.as_of,
        "lane": plan.lane,
        "made_at": plan.made_at,
        "status": plan.status,
        "reasons": dumps(plan.reasons),
        "totals": dumps(dict(plan.totals)),
        "planned": dumps(dict(Counter(intent.kind for intent in intents))),
        "decided": dumps(_Decided(plan.episodes, plan.tasks, plan.left)),
        "decided_by": plan.decided_by,
        "decided_at": plan.decided_at,
    }


def plan_of(row: sa.Row[Any]) -> Plan:
    """A plan from its row."""
    decided = _decided.validate_json(row.decided)
    return Plan(
        plan_id=row.plan_id,
        as_of=row.as_of,
        lane=row.lane,
        made_at=row.made_at,
        status=row.status,
        reasons=tuple(orjson.loads(row.reasons)),
        totals=orjson.loads(row.totals),
        episodes=decided.episodes,
        tasks=decided.tasks,
        left=decided.left,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )


def key_of(intent: Intent) -> str | None:
    """The key of the task that an intent is about."""
    about = intent.task or intent.closing
    return about.key if about else None


def body_of(intent: Intent) -> str:
    """What an intent writes, as JSON."""
    if intent.kind == "fields":
        return intent.changes.packed
    return dumps(_Task(intent.task, intent.closing))


def intent_row(plan_id: str, intent: Intent) -> dict[str, Any]:
    """An intent as it is kept."""
    return {
        "plan_id": plan_id,
        "number": intent.number,
        "kind": intent.kind,
        "crm": intent.crm,
        "object": intent.object,
        "record_id": intent.record_id,
        "account_id": intent.account_id,
        "key": key_of(intent),
        "why": intent.why,
        "state": intent.state,
        "attempts": intent.attempts,
        "reason": intent.reason,
        "crm_id": intent.crm_id,
    }


def body_row(plan_id: str, intent: Intent) -> dict[str, Any]:
    """What an intent writes, as it is kept."""
    return {"plan_id": plan_id, "number": intent.number, "body": body_of(intent)}


def intent_of(row: sa.Row[Any]) -> Intent:
    """An intent from its row."""
    is_fields = row.kind == "fields"
    about = _Task() if is_fields else _task.validate_json(row.body)
    return Intent(
        number=row.number,
        kind=row.kind,
        crm=row.crm,
        object=row.object,
        record_id=row.record_id,
        account_id=row.account_id,
        changes=FieldChanges(row.body) if is_fields else FieldChanges(),
        task=about.task,
        closing=about.closing,
        why=row.why,
        state=row.state,
        attempts=row.attempts,
        reason=row.reason,
        crm_id=row.crm_id,
    )


def episode_row(episode: Episode) -> dict[str, Any]:
    """An episode as it is kept."""
    return {f.name: getattr(episode, f.name) for f in dataclasses.fields(Episode)}


def episode_of(row: sa.Row[Any]) -> Episode:
    """An episode from its row."""
    return Episode(**{f.name: getattr(row, f.name) for f in dataclasses.fields(Episode)})


def task_row(task: TaskState, crm: str | None, record_id: str | None) -> dict[str, Any]:
    """A decided task as it is kept."""
    row = {f.name: getattr(task, f.name) for f in dataclasses.fields(TaskState)}
    return {**row, "crm": crm, "record_id": record_id}


def task_of(row: sa.Row[Any]) -> TaskState:
    """What is known of a task, with owner, due day and subject as the CRM shows them now."""
    known = {f.name: getattr(row, f.name) for f in dataclasses.fields(TaskState)}
    if row.subject_now is not None:  # the CRM was read since
        known["subject"] = row.subject_now
        known["due_on"] = row.due_on_now
        known["owner_id"] = row.owner_id_now
    return TaskState(**known)
