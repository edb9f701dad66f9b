"""What the engine asks of a CRM, and what it hears back.

A writer sends each write once and reports what became of every record. It repeats only what
certainly had no effect (a 429, a connection that was refused) and raises, for a call as a whole:

=================  ==================================================================
OutcomeUnknown     sent, and no answer: the engine reads back before it sends again
SourceExhausted    the budget of requests is used up: the rest is deferred
SourceRefused      credentials or rights: the run fails, after at most three requests
SourceRejected     the whole call was refused and nothing was done (an unknown field):
                   the engine sends its halves
SourceUnavailable  nothing was sent: the rest is deferred
=================  ==================================================================
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from contracts.actions import Priority
from contracts.crm_fields import CrmObject

CrmName = Literal["salesforce", "hubspot"]


class Outcome(StrEnum):
    """What became of one record of a call."""

    DONE = "done"
    REJECTED = "rejected"  # for good: a validation rule, a missing right, a duplicate rule
    BUSY = "busy"  # locked: try again, alone
    GONE = "gone"  # the record is deleted: never written again
    MERGED = "merged"  # the record lives on under another id, its `successor`
    UNKNOWN = "unknown"  # the answer does not mention it


@dataclass(frozen=True)
class Result:
    """What became of one record, in the order in which they were given.

    `reason` is the CRM's code and field names, never its text, which may repeat values.
    """

    outcome: Outcome
    crm_id: str | None = None
    reason: str = ""
    successor: str | None = None


@dataclass(frozen=True)
class FieldUpdate:
    """New values for one record, by field name (`contracts.crm_fields`) in canonical text."""

    object: CrmObject
    record_id: str
    values: Mapping[str, str | None]


@dataclass(frozen=True)
class NewTask:
    """A task to create, whole: everything about it is decided.

    `record_id` is the account or company that it is linked to. `owner_id` may be a queue's where
    the CRM has queues that own tasks. `body` is plain text; a writer makes safe HTML of it where
    the CRM shows HTML. `due_at` is the end of the due day's work in the owner's time zone, in UTC.
    """

    key: str
    episode: str
    record_id: str
    owner_id: str | None
    subject: str
    body: str
    due_on: dt.date
    due_at: dt.datetime
    priority: Priority


@dataclass(frozen=True)
class TaskChange:
    """A change of a task that exists: to close it (the condition cleared)."""

    key: str
    task_id: str
    close: bool = True


@dataclass(frozen=True)
class SeenTask:
    """One of our tasks as the CRM shows it now."""

    key: str
    episode: str
    task_id: str
    record_id: str | None
    owner_id: str | None
    subject: str
    due_on: dt.date | None
    status: Literal["open", "completed", "deleted"]
    modified_at: dt.datetime | None = None


@dataclass(frozen=True)
class SeenRecord:
    """A record as the CRM shows it now, by field name in canonical text.

    `gone` says that it is deleted; `successor` is the id under which a merged one lives on.
    """

    object: CrmObject
    record_id: str
    values: Mapping[str, str | None]
    gone: bool = False
    successor: str | None = None


@dataclass(frozen=True)
class Owner:
    """Somebody who can own a task. `manager_id` is the id of another owner."""

    id: str
    name: str
    active: bool = True
    time_zone: str | None = None
    manager_id: str | None = None
    is_queue: bool = False


@dataclass(frozen=True)
class Finding:
    """What `doctor` has to say: ``ok``, ``note`` or ``problem``."""

    level: Literal["ok", "note", "problem"]
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Budget:
    """The API requests of the day: how many are allowed and used, by whomever. None: not told."""

    allowed: int | None
    used: int | None

    @property
    def used_share(self) -> float:
        """Used over allowed, 0 to 1; 0 where it is not told."""
        return self.used / self.allowed if self.allowed and self.used is not None else 0.0


JobState = Literal["open", "working", "complete", "failed", "aborted", "missing"]


class Bulk(Protocol):
    """Asynchronous updates of many records of one object, by a job whose id is kept first."""

    def create(self, object: CrmObject, fields: Sequence[str]) -> str:
        """Open a job and return its id. Nothing is written by it yet."""

    def upload(self, job_id: str, updates: Sequence[FieldUpdate]) -> None:
        """Upload the records into an open job and close it: the CRM begins to work."""

    def state(self, job_id: str) -> JobState:
        """How far the job is; `missing` when the CRM does not know it (any more)."""

    def abort(self, job_id: str) -> None:
        """Stop a job that is open or under way."""

    def results(self, job_id: str, updates: Sequence[FieldUpdate]) -> list[Result]:
        """What became of each record; UNKNOWN for those that the job did not process."""


class CrmWriter(Protocol):
    """One CRM, for writing our fields and our tasks and for reading them back."""

    name: CrmName
    batch_size: int
    """The most records in one call."""
    bulk: Bulk | None
    """None where the CRM has nothing of the kind."""

    @property
    def requests_sent(self) -> int:
        """Every request so far, reads and repeated attempts too."""

    def account(self) -> str:
        """Whose data the credentials open, as `healthloop sources` prints it."""

    def budget(self) -> Budget:
        """The day's requests, as far as answers so far have told; sends nothing by itself."""

    def ready(self, *, fields: bool, tasks: bool) -> list[Finding]:
        """What keeps us from writing: missing fields, wrong types, a key that is not unique.

        An empty list, or only notes, means that writing may begin.
        """

    def rights(self) -> list[Finding]:
        """Rights too narrow and too wide, as far as the CRM shows them, and the day's requests."""

    def owners(self) -> list[Owner]:
        """Everybody who may own a task, queues too."""

    def update(self, updates: Sequence[FieldUpdate]) -> list[Result]:
        """Set fields of at most `batch_size` records of one object, each on its own."""

    def create_tasks(self, tasks: Sequence[NewTask]) -> list[Result]:
        """Create at most `batch_size` tasks; one whose key exists already is DONE, with its id."""

    def change_tasks(self, changes: Sequence[TaskChange]) -> list[Result]:
        """Change at most `batch_size` tasks."""

    def tasks_by_key(self, keys: Sequence[str]) -> dict[str, SeenTask]:
        """Our tasks by their keys, deleted ones too where the CRM still shows them."""

    def tasks_changed(self, since: dt.datetime | None) -> Iterable[SeenTask]:
        """Our tasks that changed since a moment (None: all that there ever were)."""

    def records_by_id(
        self, object: CrmObject, ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, SeenRecord]:
        """Records with some of our fields; deleted and merged ones say so."""

    def records_changed(
        self, object: CrmObject, since: dt.datetime | None, fields: Sequence[str]
    ) -> Iterable[SeenRecord]:
        """Records that somebody, we or others, changed since a moment (None: all)."""


@dataclass(frozen=True)
class Step:
    """One step of provisioning: what there should be, and whether it is there.

    `state` is ``exists``, ``missing`` (provision makes it), ``wrong`` (it is there but cannot
    serve; `how` says what an admin does) or ``by hand`` (no API makes it; `how` says what an admin
    clicks).
    """

    what: str
    state: Literal["exists", "missing", "wrong", "by hand"]
    how: str = ""


class Provisioner(Protocol):
    """Makes what a CRM lacks: fields, the task key, a permission set."""

    def steps(self) -> list[Step]:
        """Everything that is needed, in order, as it is now. Only reads."""

    def carry_out(self, step: Step) -> None:
        """Make what one ``missing`` step is about; doing it twice does no harm."""
