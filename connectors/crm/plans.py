"""A plan: everything that would be written, as it is kept, printed, approved and carried out."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import orjson

from connectors.crm.writing import CrmName, NewTask, TaskChange
from contracts.actions import Episode, TaskLeft, TaskState
from contracts.crm_fields import FIELDS, CrmObject, group_of

PlanStatus = Literal["open", "held", "approved", "dropped", "applied", "superseded"]
"""`open`: may be applied. `held`: waits for a person. `applied`: every intent has its end state, or
is deferred to the next plan. `superseded`: a newer plan took its place before it was applied."""

IntentKind = Literal["fields", "open_task", "close_task"]

IntentState = Literal["planned", "sent", "written", "rejected", "deferred", "skipped"]
"""`planned` and `sent` are on the way; the other four are ends, and each intent has exactly one."""

END_STATES: tuple[IntentState, ...] = ("written", "rejected", "deferred", "skipped")


class FieldChange(NamedTuple):
    """One field of one record: what the CRM acknowledged last, what it should show, and why."""

    field: str
    old: str | None
    new: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class FieldChanges:
    """The fields of one record that change, packed into one text.

    A plan may have millions of fields, and as objects they would take most of its time and memory.
    So the warehouse writes this text, the ledger keeps it, and it is taken apart where a record is
    sent or shown. It is a JSON array: the names, with spaces between them; what the CRM
    acknowledged of them; what it should show; and the reason of each group of fields, where it is
    not what its own field should show.

    >>> changes = FieldChanges.of([FieldChange("risk_band", None, "red", "Champion has left")])
    >>> changes.packed
    '["risk_band",{},{"risk_band":"red"},{"risk":"Champion has left"}]'
    >>> changes.names, changes.values()
    (['risk_band'], {'risk_band': 'red'})
    """

    packed: str = '["",{},{},{}]'

    @classmethod
    def of(cls, changes: Iterable[FieldChange]) -> "FieldChanges":
        """These changes; fields of one group have one reason."""
        changes = list(changes)
        names = " ".join(change.field for change in changes)
        old = {change.field: change.old for change in changes if change.old is not None}
        new = {change.field: change.new for change in changes}
        why = {_group(change.field): change.why for change in changes if change.why}
        return cls(orjson.dumps((names, old, new, why)).decode())

    def __iter__(self) -> Iterator[FieldChange]:
        """The changes one by one."""
        names, old, new, why = orjson.loads(self.packed)
        for name in names.split():
            group = _group(name)
            reason = why.get(group) or new.get(f"{group}_reasons") or ""
            yield FieldChange(name, old.get(name), new[name], reason)

    def __len__(self) -> int:
        """How many fields change."""
        return len(self.names)

    @property
    def names(self) -> list[str]:
        """The fields that change; without taking the rest apart."""
        return self.packed[2 : self.packed.index('"', 2)].split()

    def values(self) -> dict[str, str | None]:
        """What the fields should show."""
        values: dict[str, str | None] = orjson.loads(self.packed)[2]
        return values


def _group(name: str) -> str:
    return group_of(name) if name in FIELDS else name


@dataclass(frozen=True, slots=True)
class RecordChange:
    """The fields of one record that change."""

    crm: CrmName
    object: CrmObject
    record_id: str
    account_id: str
    changes: FieldChanges


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
    changes: FieldChanges = FieldChanges()
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
class Refusal:
    """A record that refuses values of ours, in which fields, and why."""

    crm: CrmName
    object: CrmObject
    record_id: str
    fields: tuple[str, ...]
    reason: str


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
