"""Making a plan: field changes and decided tasks become intents, whole and in order.

Everything about a write is settled here: record, values, owner, due day, text. What is carried out
later is what was printed and approved, word for word.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import duckdb
import orjson

from connectors.collecting import rarely_collecting
from connectors.crm.comparing import NAMED, load_merged
from connectors.crm.people import Assignee, People, due_day, end_of_work
from connectors.crm.plans import FieldChange, Intent, Plan, RecordChange
from connectors.crm.writing import CrmName, NewTask, TaskChange
from contracts.actions import Decisions, TaskDraft, TaskState
from contracts.crm_fields import written_on

_OBJECT_ORDER = {"account": 0, "opportunity": 1}


@dataclass(frozen=True, slots=True)
class CrmRecord:
    """The CRM's record of an account, and who looks after it."""

    crm: CrmName
    record_id: str
    owner: str | None = None
    sales_owner: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """What planning has to know besides what was decided.

    Attributes:
        records: The CRM's record of each account that has one, by account.
        people: Who can own tasks, by CRM; a CRM that is not here takes no tasks.
        gone: Records that are deleted or merged away.
        crm_of_task: The CRM of each task that was decided before, by key.
        carried: Tasks of earlier plans that were decided, and that the CRM never acknowledged.
        states: What is known of the tasks that were decided before, by key.
        refused: Tasks, by key, that the CRM refused to write not long ago.
    """

    records: Mapping[str, CrmRecord]
    people: Mapping[CrmName, People]
    gone: frozenset[tuple[str, str]] = frozenset()
    crm_of_task: Mapping[str, CrmName] = field(default_factory=dict)
    carried: tuple[Intent, ...] = ()
    states: Mapping[str, TaskState] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()


def records_of(
    connection: duckdb.DuckDBPyConnection,
    merged: Mapping[tuple[CrmName, str], str | None] | None = None,
) -> dict[str, CrmRecord]:
    """The CRM's record of every account that has a living one, as its fields are written to it.

    `merged` are records that were deleted (None) or merged away, with what they live on as.
    """
    load_merged(connection, merged or {})
    rows = connection.execute(
        f"SELECT account_id, crm, record_id, owner, sales_owner FROM ({NAMED}) WHERE NOT gone"
    ).fetchall()
    return {account: CrmRecord(*rest) for account, *rest in rows}


@rarely_collecting()
def make_plan(
    *,
    as_of: dt.date,
    lane: Literal["daily", "fast"],
    made_at: dt.datetime,
    now: dt.datetime,
    changes: Iterable[RecordChange],
    decisions: Decisions,
    around: Surroundings,
) -> tuple[Plan, list[Intent]]:
    """The plan of a day, and what it would write.

    `made_at` is when it was made; `now` is the company's clock, from which due days are counted.
    Fields come before tasks, accounts before opportunities: creating a task locks its account.
    """
    records = sorted(
        changes, key=lambda c: (c.crm, _OBJECT_ORDER[c.object], c.account_id, c.record_id)
    )
    opened, states, unlinked = _tasks_to_open(decisions, around, now)
    opened += _still_wanted(decisions, around)
    tasks = sorted(opened, key=lambda intent: (intent.crm, intent.account_id))
    tasks += _tasks_to_close(decisions, around)
    intents = [
        Intent(number, "fields", c.crm, c.object, c.record_id, c.account_id, changes=c.changes)
        for number, c in enumerate(records, 1)
    ]
    intents += [replace(task, number=number) for number, task in enumerate(tasks, 1 + len(intents))]
    kinds = Counter(intent.kind for intent in intents)
    totals = {
        "accounts": len({intent.account_id for intent in intents}),
        "records": kinds["fields"],
        "fields": sum(len(intent.changes) for intent in intents),
        "tasks_to_open": kinds["open_task"],
        "tasks_to_close": kinds["close_task"],
        "tasks_to_leave": len(decisions.leave),
        "tasks_without_record": unlinked,
    }
    plan = Plan(
        plan_id=_plan_id(as_of, made_at, intents),
        as_of=as_of,
        lane=lane,
        made_at=made_at,
        totals=totals,
        episodes=decisions.episodes,
        tasks=(*states, *_never_sent(decisions, around)),
        left=decisions.leave,
    )
    return plan, intents


def foreign_fields(intents: Iterable[Intent]) -> tuple[str, ...]:
    """Planned fields that are not ours to write on their object; the gate wants none."""
    ours = {object: {f.name for f in written_on(object)} for object in ("account", "opportunity")}
    planned = {(intent.object, tuple(intent.changes.names)) for intent in intents}
    return tuple(
        sorted({
            f"{object}.{name}"
            for object, names in planned
            for name in names
            if object is None or name not in ours[object]
        })
    )  # fmt: skip


def _tasks_to_open(
    decisions: Decisions, around: Surroundings, now: dt.datetime
) -> tuple[list[Intent], list[TaskState], int]:
    intents, states, unlinked = [], [], 0
    for draft in decisions.open:
        record = around.records.get(draft.account_id)
        people = around.people.get(record.crm) if record else None
        gone = record is not None and (record.crm, record.record_id) in around.gone
        if record is None or people is None or gone:
            unlinked += 1
            continue
        assignee = people.assign(draft.role, person=draft.owner, csm=record.owner)
        task = new_task(draft, record.record_id, assignee, now)
        intents.append(
            Intent(
                0, "open_task", record.crm, None, record.record_id, draft.account_id,
                task=task, why=draft.why,
            )
        )  # fmt: skip
        states.append(_state_of(draft, task, assignee, decisions.day))
    return intents, states, unlinked


def _still_wanted(decisions: Decisions, around: Surroundings) -> list[Intent]:
    """Tasks that an earlier plan could not send, as they were decided then.

    Where their record was merged meanwhile they go to the one that their account has now.
    """
    cleared = {closing.key for closing in decisions.close}
    wanted = []
    for old in around.carried:
        if old.task is None or old.task.key in cleared or old.crm not in around.people:
            continue
        record_id = old.record_id
        if (old.crm, record_id) in around.gone:
            now = around.records.get(old.account_id)
            if now is None or now.crm != old.crm or (now.crm, now.record_id) in around.gone:
                continue
            record_id = now.record_id
        task = replace(old.task, record_id=record_id)
        wanted.append(
            Intent(0, "open_task", old.crm, None, record_id, old.account_id, task=task, why=old.why)
        )
    return wanted


def _never_sent(decisions: Decisions, around: Surroundings) -> list[TaskState]:
    """Tasks whose condition cleared before the CRM ever had them: there is nothing to close."""
    states = ((closing, around.states.get(closing.key)) for closing in decisions.close)
    return [
        replace(state, status="closed")
        for closing, state in states
        if closing.task_id is None and state is not None and state.status == "planned"
    ]


def new_task(draft: TaskDraft, record_id: str, assignee: Assignee, now: dt.datetime) -> NewTask:
    """A drafted task with its owner, its due day and its text."""
    due_on = due_day(now, assignee.zone, draft.due_in_days)
    return NewTask(
        key=draft.key,
        episode=draft.episode,
        record_id=record_id,
        owner_id=assignee.owner_id,
        subject=draft.subject,
        body=body_of(draft),
        due_on=due_on,
        due_at=end_of_work(due_on, assignee.zone),
        priority=draft.priority,
    )


def body_of(draft: TaskDraft) -> str:
    """What a task says, as plain text: why, what to do, and where it comes from."""
    why = "\n".join(f"- {reason}" for reason in draft.reasons or (draft.why,))
    steps = "\n".join(f"{number}. {step}" for number, step in enumerate(draft.steps, 1))
    return (
        f"Why\n{why}\n\nWhat to do\n{steps}\n\n"
        f"From the playbook {draft.playbook}, opened on {draft.opened_on}. Complete it, move it, "
        "hand it on or delete it: Healthloop leaves it as you leave it."
    )


def _state_of(
    draft: TaskDraft, task: NewTask, assignee: Assignee, decided_on: dt.date
) -> TaskState:
    return TaskState(
        key=draft.key,
        account_id=draft.account_id,
        playbook=draft.playbook,
        opened_on=draft.opened_on,
        task=draft.task,
        status="planned",
        due_on=task.due_on,
        owner=draft.owner or assignee.name,
        owner_id=task.owner_id,
        decided_on=decided_on,
        subject=task.subject,
    )


def _tasks_to_close(decisions: Decisions, around: Surroundings) -> Iterator[Intent]:
    for closing in sorted(decisions.close, key=lambda closing: closing.key):
        record = around.records.get(closing.account_id)
        crm = around.crm_of_task.get(closing.key) or (record.crm if record else None)
        if crm is None or closing.task_id is None or closing.key in around.refused:
            continue
        yield Intent(
            0, "close_task", crm, None, record.record_id if record else "", closing.account_id,
            closing=TaskChange(closing.key, closing.task_id), why=closing.why,
        )  # fmt: skip


def _plan_id(as_of: dt.date, made_at: dt.datetime, intents: Sequence[Intent]) -> str:
    """A name that people can read out: the day, and six digits of what is in it and when.

    It is no secret and no key: it only has to be another one for another plan.
    """
    digest = hashlib.sha256(made_at.isoformat().encode())
    for intent in intents:
        digest.update(orjson.dumps([intent.kind, intent.record_id, intent.number]))
        digest.update(intent.changes.packed.encode())
    return f"{as_of}-{digest.hexdigest()[:6]}"


def plan_as_json(plan: Plan, intents: Iterable[Intent]) -> dict[str, object]:
    """A plan for programs: everything that would be written, and the totals."""
    return {
        "plan": plan.plan_id,
        "as_of": plan.as_of.isoformat(),
        "lane": plan.lane,
        "made_at": plan.made_at.isoformat(),
        "status": plan.status,
        "reasons": list(plan.reasons),
        "totals": dict(plan.totals),
        "fields": [_fields_json(intent) for intent in intents if intent.kind == "fields"],
        "tasks_to_open": [_task_json(intent) for intent in intents if intent.kind == "open_task"],
        "tasks_to_close": [
            {"account": intent.account_id, "key": intent.closing.key, "why": intent.why}
            for intent in intents
            if intent.closing is not None
        ],
        "tasks_to_leave": [
            {"account": left.account_id, "key": left.key, "why": left.why} for left in plan.left
        ],
    }


def _fields_json(intent: Intent) -> dict[str, object]:
    def change(of: FieldChange) -> dict[str, str | None]:
        return {"field": of.field, "old": of.old, "new": of.new, "why": of.why}

    return {
        "account": intent.account_id, "crm": intent.crm, "object": intent.object,
        "record": intent.record_id, "state": intent.state, "reason": intent.reason,
        "changes": [change(of) for of in intent.changes],
    }  # fmt: skip


def _task_json(intent: Intent) -> dict[str, object]:
    assert intent.task is not None
    return {
        "account": intent.account_id, "crm": intent.crm, "key": intent.task.key,
        "subject": intent.task.subject, "owner": intent.task.owner_id,
        "due": intent.task.due_on.isoformat(), "priority": intent.task.priority,
        "why": intent.why, "state": intent.state, "reason": intent.reason,
    }  # fmt: skip
