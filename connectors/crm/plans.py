"""A plan: everything that would be written, as it is kept, printed, approved and carried out."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Literal, NamedTuple

from connectors.crm.writing import CrmName, NewTask, TaskChange
from contracts.actions import Episode, TaskLeft, TaskState
from contracts.crm_fields import CrmObject

PlanStatus = Literal["open", "held", "approved", "dropped", "applied", "superseded"]
"""`open`: may be applied. `held`: waits for a person. `applied`: every intent has its end state, or
is deferred to the next plan. `superseded`: a newer plan took its place before it was applied."""

IntentKind = Literal["fields", "open_task", "close_task"]

IntentState = Literal["planned", "sent", "written", "rejected", "deferred", "skipped"]
"""`planned` and `sent` are on the way; the other four are ends, and each intent has exactly one."""

_SHORT = 40

END_STATES: tuple[IntentState, ...] = ("written", "rejected", "deferred", "skipped")


def shared(value: str | None) -> str | None:
    """The value itself; equal short ones are one object, for a plan repeats them endlessly."""
    return intern(value) if value and len(value) <= _SHORT else value


class FieldChange(NamedTuple):
    """One field of one record: what the CRM acknowledged last, what it should show, and why.

    A plan may have millions of these, and a tuple is made five times faster than a dataclass.
    """

    field: str
    old: str | None
    new: str | None
    why: str = ""


@dataclass(frozen=True)
class RecordChange:
    """The fields of one record that change."""

    crm: CrmName
    object: CrmObject
    record_id: str
    account_id: str
    changes: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """One write that is planned: a record's fields, a task to open, or a task to close.

    `number` is its place in the plan, from 1; fields come before tasks. Exactly one of `changes`,
    `task` and `closing` is given, by its `kind`. `state`, `attempts`, `reason` and `crm_id` are
    what the ledger knows of it.
    """

    number: int
    kind: IntentKind
    crm: CrmName
    object: CrmObject | None
    record_id: str
    account_id: str
    changes: tuple[FieldChange, ...] = ()
    task: NewTask | None = None
    closing: TaskChange | None = None
    why: str = ""
    state: IntentState = "planned"
    attempts: int = 0
    reason: str = ""
    crm_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """A plan without its intents.

    `totals` counts, for people: accounts, records and fields by state of the comparison, tasks to
    open, close and leave. `episodes` and `tasks` are what the ledger keeps of the decisions once
    the plan begins to be applied; `left` are the tasks that stay as they are.
    """

    plan_id: str
    as_of: dt.date
    lane: Literal["daily", "fast"]
    made_at: dt.datetime
    status: PlanStatus = "open"
    reasons: tuple[str, ...] = ()
    totals: Mapping[str, int] = field(default_factory=dict)
    episodes: tuple[Episode, ...] = ()
    tasks: tuple[TaskState, ...] = ()
    left: tuple[TaskLeft, ...] = ()
    decided_by: str | None = None
    decided_at: dt.datetime | None = None


class Ended(NamedTuple):
    """What became of an intent of a batch.

    `planned` says that it is to be sent again. `gone` says that the record (of a closing: the task)
    is deleted, `successor` under which id a merged record lives on.
    """

    number: int
    state: IntentState
    reason: str = ""
    crm_id: str | None = None
    gone: bool = False
    successor: str | None = None


Method = Literal["collections", "bulk"]


@dataclass(frozen=True)
class OpenBatch:
    """A batch that was begun, and of which nobody knows how it ended.

    `job_id` is that of its bulk job, where the CRM had told it.
    """

    batch_id: str
    plan_id: str
    method: Method
    job_id: str | None
    begun_at: dt.datetime
    intents: tuple[Intent, ...]

    @property
    def crm(self) -> CrmName:
        """The CRM that it was sent to."""
        return self.intents[0].crm


@dataclass(frozen=True)
class Drift:
    """A field of ours that shows another value than the CRM acknowledged: somebody edited it."""

    crm: CrmName
    object: CrmObject
    record_id: str
    field: str
    ours: str | None
    theirs: str | None
    seen_at: dt.datetime
