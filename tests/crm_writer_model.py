"""A CRM in memory that does what a script says: for the engine's own tests.

`Crm` is the server, which outlives crashes; a `ModelWriter` is one process' way to it. A fault is
ordered for the n-th call, whatever call that is; troubles are ordered for single records.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connectors.crm.writing import (
    Budget,
    FieldUpdate,
    Finding,
    JobState,
    NewTask,
    Outcome,
    Owner,
    Result,
    SeenRecord,
    SeenTask,
    TaskChange,
)
from contracts.errors import OutcomeUnknown, SourceRejected


class Killed(BaseException):
    """The process is gone: nothing that it would have done afterwards is done."""


def lost() -> OutcomeUnknown:
    return OutcomeUnknown("no answer came", "read back")


@dataclass(frozen=True)
class Fault:
    """What happens at a call: an error, before the CRM did it or after."""

    error: Callable[[], BaseException]
    after: bool = False


@dataclass
class Job:
    object: str
    state: JobState = "open"
    polls: int = 0
    updates: tuple[FieldUpdate, ...] = ()
    results: dict[str, Result] = field(default_factory=dict)


@dataclass
class Crm:
    """The server.

    `trouble` are results by record id or task key, one for each attempt; then all is well.
    `poison` are records whose presence refuses a whole call. `created` are the keys of tasks in the
    order in which they came to be, `repeated` those that were sent though they were there.
    """

    records: dict[tuple[str, str], dict[str, str | None]] = field(default_factory=dict)
    gone: dict[str, str | None] = field(default_factory=dict)
    tasks: dict[str, SeenTask] = field(default_factory=dict)
    trouble: dict[str, list[Result]] = field(default_factory=dict)
    poison: set[str] = field(default_factory=set)
    inactive: set[str] = field(default_factory=set)
    faults: dict[int, Fault] = field(default_factory=dict)
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    job_polls: int = 0
    job_ends: JobState = "complete"
    job_does: int | None = None
    used: int = 0
    allowed: int | None = None

    def state(self) -> object:
        """What there is in the end, for comparing two histories."""
        tasks = {key: (t.subject, t.owner_id, t.due_on, t.status) for key, t in self.tasks.items()}
        return self.records, tasks

    def called(self, *names: str) -> list[tuple[str, ...]]:
        """What was given to each call of these names."""
        return [given for name, given in self.calls if name in names]

    def call(self, name: str, given: Iterable[str], do: Callable[[], object]) -> object:
        self.calls.append((name, tuple(given)))
        self.used += 1
        fault = self.faults.pop(len(self.calls), None)
        if fault and not fault.after:
            raise fault.error()
        done = do()
        if fault:
            raise fault.error()
        return done

    def troubled(self, name: str) -> Result | None:
        waiting = self.trouble.get(name)
        return waiting.pop(0) if waiting else None

    def refuse(self, names: Iterable[str]) -> None:
        if self.poison & set(names):
            raise SourceRejected("answered 400 PROPERTY_DOESNT_EXIST", "see the fields")

    def write(self, update: FieldUpdate) -> Result:
        name = update.record_id
        if name in self.gone:
            successor = self.gone[name]
            outcome = Outcome.MERGED if successor else Outcome.GONE
            return Result(outcome, successor=successor)
        trouble = self.troubled(name)
        if trouble and trouble.outcome is not Outcome.UNKNOWN:
            return trouble
        if trouble and trouble.reason == "not done":
            return Result(Outcome.UNKNOWN)
        self.records.setdefault((update.object, name), {}).update(update.values)
        return trouble or Result(Outcome.DONE, name)

    def open_task(self, task: NewTask) -> Result:
        if task.record_id in self.gone:
            successor = self.gone[task.record_id]
            return Result(Outcome.MERGED if successor else Outcome.GONE, successor=successor)
        trouble = self.troubled(task.key)
        if trouble and (trouble.outcome is not Outcome.UNKNOWN or trouble.reason == "not done"):
            return replace(trouble, reason=trouble.reason.replace("not done", ""))
        if task.owner_id in self.inactive:
            return Result(Outcome.REJECTED, reason="INACTIVE_OWNER_OR_USER (OwnerId)")
        if task.key in self.tasks:
            self.repeated.append(task.key)
        else:
            self.created.append(task.key)
            self.tasks[task.key] = SeenTask(
                task.key, task.episode, f"T-{task.key}", task.record_id, task.owner_id,
                task.subject, task.due_on, "open",
            )  # fmt: skip
        return trouble or Result(Outcome.DONE, self.tasks[task.key].task_id)

    def change(self, change: TaskChange) -> Result:
        task = self.tasks.get(change.key)
        if task is None or task.status == "deleted":
            return Result(Outcome.GONE)
        trouble = self.troubled(change.key)
        if trouble:
            return trouble
        self.tasks[change.key] = replace(task, status="completed")
        return Result(Outcome.DONE, task.task_id)


class ModelBulk:
    """Bulk jobs of the model: what was uploaded is done at once, and told later."""

    def __init__(self, crm: Crm) -> None:
        self.crm = crm

    def create(self, object: str, fields: Sequence[str]) -> str:
        job_id = f"job-{len(self.crm.jobs) + 1}"

        def do() -> str:
            self.crm.jobs[job_id] = Job(object)
            return job_id

        return str(self.crm.call("bulk.create", [object], do))

    def upload(self, job_id: str, updates: Sequence[FieldUpdate]) -> None:
        def do() -> None:
            job = self.crm.jobs[job_id]
            assert job.state == "open", "a job is run once"
            job.state, job.polls, job.updates = "working", self.crm.job_polls, tuple(updates)
            did = updates[: self.crm.job_does]
            job.results = {update.record_id: self.crm.write(update) for update in did}

        self.crm.call("bulk.upload", [job_id], do)

    def state(self, job_id: str) -> JobState:
        def do() -> JobState:
            job = self.crm.jobs.get(job_id)
            if job is None:
                return "missing"
            if job.state == "working":
                if job.polls == 0:
                    job.state = self.crm.job_ends
                job.polls -= 1
            return job.state

        state = self.crm.call("bulk.state", [job_id], do)
        return state  # type: ignore[return-value]

    def abort(self, job_id: str) -> None:
        def do() -> None:
            self.crm.jobs[job_id].state = "aborted"

        self.crm.call("bulk.abort", [job_id], do)

    def results(self, job_id: str, updates: Sequence[FieldUpdate]) -> list[Result]:
        told = self.crm.jobs[job_id].results
        unknown = Result(Outcome.UNKNOWN)
        found = self.crm.call(
            "bulk.results", [job_id], lambda: [told.get(u.record_id, unknown) for u in updates]
        )
        assert isinstance(found, list)
        return found


class ModelWriter:
    """One process' way to a `Crm`."""

    def __init__(self, crm: Crm, name="salesforce", *, batch_size: int = 3, bulk: bool = False):
        self.name, self.crm, self.batch_size = name, crm, batch_size
        self.bulk = ModelBulk(crm) if bulk else None

    @property
    def requests_sent(self) -> int:
        return len(self.crm.calls)

    def account(self) -> str:
        return "org"

    def budget(self) -> Budget:
        return Budget(self.crm.allowed, self.crm.used)

    def ready(self, *, fields: bool, tasks: bool) -> list[Finding]:
        return []

    def owners(self) -> list[Owner]:
        return []

    def _all(self, name: str, names: Sequence[str], items: Sequence, one: Callable) -> list[Result]:
        assert len(items) <= self.batch_size

        def do() -> list[Result]:
            self.crm.refuse(names)
            return [one(item) for item in items]

        found = self.crm.call(name, names, do)
        assert isinstance(found, list)
        return found

    def update(self, updates: Sequence[FieldUpdate]) -> list[Result]:
        names = [update.record_id for update in updates]
        return self._all("update", names, updates, self.crm.write)

    def create_tasks(self, tasks: Sequence[NewTask]) -> list[Result]:
        names = [task.key for task in tasks]
        return self._all("create_tasks", names, tasks, self.crm.open_task)

    def change_tasks(self, changes: Sequence[TaskChange]) -> list[Result]:
        names = [change.key for change in changes]
        return self._all("change_tasks", names, changes, self.crm.change)

    def tasks_by_key(self, keys: Sequence[str]) -> dict[str, SeenTask]:
        def do() -> dict[str, SeenTask]:
            return {key: self.crm.tasks[key] for key in keys if key in self.crm.tasks}

        found = self.crm.call("tasks_by_key", keys, do)
        assert isinstance(found, dict)
        return found

    def tasks_changed(self, since: dt.datetime | None) -> list[SeenTask]:
        return list(self.crm.tasks.values())

    def records_by_id(
        self, object: str, ids: Sequence[str], fields: Sequence[str]
    ) -> Mapping[str, SeenRecord]:
        def one(record_id: str) -> SeenRecord:
            shown = self.crm.records.get((object, record_id), {})
            values = {name: shown.get(name) for name in fields}
            successor = self.crm.gone.get(record_id)
            return SeenRecord(object, record_id, values, record_id in self.crm.gone, successor)

        found = self.crm.call("records_by_id", ids, lambda: {name: one(name) for name in ids})
        assert isinstance(found, dict)
        return found

    def records_changed(
        self, object: str, since: dt.datetime | None, fields: Sequence[str]
    ) -> list[SeenRecord]:
        ids = [record_id for of, record_id in self.crm.records if of == object]
        return list(self.records_by_id(object, ids, fields).values())
