"""Writing into Salesforce. What its API demands, and what is done about it here:

- Records go by sObject collections, at most 200 in a call, each on its own (`allOrNone` false):
  a call is answered by 200 and a result for each record, in their order. It is sent through
  `restful`, because `SFType` would repeat a refused session without end; our client renews it once.
- A task's key is a field that is Unique. To create a task whose key exists is refused with
  DUPLICATE_VALUE, whose text names the record: then the task is there, which is what we want.
  DUPLICATES_DETECTED is another thing, a rule of the org about records that look alike.
- A locked row (UNABLE_TO_LOCK_ROW) may pass another time. A deleted record says that it is deleted,
  or that its id leads nowhere; a merged one names its heir in `MasterRecordId`.
- An empty text would leave a field as it is: null empties it (`#N/A` in a bulk job).
- `Sforce-Limit-Info`, which errors carry as well, says how much of the day's allowance is used.

The text of an error repeats values, so only its code and its fields are passed on.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError
from simple_salesforce import Salesforce

from connectors.api import ApiConfig, Secrets
from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import (
    Budget,
    Bulk,
    CrmName,
    FieldUpdate,
    Finding,
    NewTask,
    Outcome,
    Owner,
    Result,
    SeenRecord,
    SeenTask,
    TaskChange,
)
from connectors.vendors.salesforce import connector, seen
from connectors.vendors.salesforce.answers import (
    NOT_MENTIONED,
    Answer,
    are_results,
    by_record,
    codes_of,
    holder_of,
    is_lost,
    reason_of,
    result_of,
)
from connectors.vendors.salesforce.bulk_writes import SalesforceBulk
from connectors.vendors.salesforce.client import SalesforceClient, connect_for_writing
from connectors.vendors.salesforce.drafts import Words, draft, words_of
from connectors.vendors.salesforce.fields import OBJECTS, Names, long_id
from connectors.vendors.salesforce.rights import Described, described, missing_and_wrong, rights
from connectors.vendors.salesforce.settings import WAY_IN, SalesforceConfig
from contracts.crm_fields import CrmObject
from contracts.errors import InputError, SourceError, SourceExhausted

BATCH_SIZE = 200
_COLLECTIONS = "composite/sobjects"


def merged_config(config: ApiConfig, target: SalesforceTarget) -> SalesforceConfig:
    """The settings of a source with the credentials that `crm.yaml` gives for writing.

    Raises:
        InputError: they are no way to log in.
    """
    shared = {name: value for name, value in config.model_dump().items() if value is not None}
    shared["daily_share"] = max(shared["daily_share"], target.daily_share)
    rest = {name: value for name, value in shared.items() if name not in WAY_IN}
    for settings in (shared | target.credentials, rest | target.credentials):
        try:
            return SalesforceConfig.model_validate(settings)
        except ValidationError:
            continue
    raise InputError(
        "crm.yaml: the `credentials` of salesforce are no way to log in",
        "give those that docs/sources/salesforce.md lists together",
    )


def connect_writer(
    config: SalesforceConfig, target: SalesforceTarget, secrets: Secrets
) -> "SalesforceWriter":
    """The writer; nothing is sent yet.

    Raises:
        SourceRefused: a secret is missing.
    """
    return SalesforceWriter(connect_for_writing(config, secrets), config, target)


class SalesforceWriter:
    """Salesforce, for writing our fields and our tasks and for reading them back."""

    name: CrmName = "salesforce"
    batch_size = BATCH_SIZE

    def __init__(
        self, client: SalesforceClient, config: SalesforceConfig, target: SalesforceTarget
    ) -> None:
        self._client = client
        self._config = config
        self._target = target
        self._names = Names.of(target)
        self._words: Words | None = None
        self._known: dict[str, Described] = {}
        self.bulk: Bulk | None = SalesforceBulk(
            client, self._names, before_write=self._stop_early, resolve=self._resolved
        )

    @property
    def requests_sent(self) -> int:
        """Every request so far, reads, logins and repeated attempts too."""
        return self._client.requests_sent

    def account(self) -> str:
        """The org's id; a sandbox org says that it is one."""
        return connector.account(self._client, self._config)

    def budget(self) -> Budget:
        """The day's requests as the last answer told them, an error too."""
        used, allowed = self._client.usage or (None, None)
        return Budget(allowed, used)

    def ready(self, *, fields: bool, tasks: bool) -> list[Finding]:
        """What keeps us from writing: missing fields, wrong types, a key that is not unique."""
        return missing_and_wrong(self._described_now, self._target, fields=fields, tasks=tasks)

    def rights(self) -> list[Finding]:
        """Rights too narrow and too wide, as far as the org shows them, and the day's requests."""
        return rights(self._client, self._target, self.budget)

    def owners(self) -> list[Owner]:
        """Users, inactive ones too, and the queues that may own tasks."""
        return seen.owners(self._client)

    def tasks_by_key(self, keys: Sequence[str]) -> dict[str, SeenTask]:
        """Our tasks by their keys, deleted and archived ones too."""
        return seen.tasks_by_key(self._client, self._names, keys)

    def tasks_changed(self, since: dt.datetime | None) -> Iterable[SeenTask]:
        """Our tasks that changed since a moment (None: all that there ever were)."""
        return seen.tasks_changed(self._client, self._names, since)

    def records_by_id(
        self, object: CrmObject, ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, SeenRecord]:
        """Records with some of our fields; deleted and merged ones say so."""
        return seen.records_by_id(self._client, self._names, object, ids, fields)

    def records_changed(
        self, object: CrmObject, since: dt.datetime | None, fields: Sequence[str]
    ) -> Iterable[SeenRecord]:
        """Records that somebody, we or others, changed since a moment (None: all)."""
        return seen.records_changed(self._client, self._names, object, since, fields)

    def update(self, updates: Sequence[FieldUpdate]) -> list[Result]:
        """Set fields of at most 200 records of one object, each on its own."""
        if not updates:
            return []
        object = updates[0].object
        if any(update.object != object for update in updates):
            raise ValueError("a call is about records of one object")
        kind = {"attributes": {"type": OBJECTS[object]}}
        given = [self._names.values(update) for update in updates]
        records = [
            {**kind, "id": update.record_id, **values}
            for update, values in zip(updates, given, strict=True)
            if not isinstance(values, Result)
        ]
        sent = iter(self._changed(records, partial(self._resolved, object)))
        return [values if isinstance(values, Result) else next(sent) for values in given]

    def change_tasks(self, changes: Sequence[TaskChange]) -> list[Result]:
        """Close at most 200 tasks."""
        status = self._known_words().closed_status if changes else ""
        kind = {"attributes": {"type": "Task"}}
        records = [{**kind, "id": change.task_id, "Status": status} for change in changes]
        return self._changed(records, _gone_tasks)

    def _changed(
        self,
        records: Sequence[Mapping[str, Any]],
        resolve: Callable[[Sequence[tuple[str, Answer]]], Mapping[str, Result]],
    ) -> list[Result]:
        """Send changed records; gives what became of each, in their order."""
        if not records:
            return []
        answers = by_record(self._sent("PATCH", records), [str(record["id"]) for record in records])
        told = [
            (long_id(str(record["id"])), answer)
            for record, answer in zip(records, answers, strict=True)
        ]
        refused = [(id, answer) for id, answer in told if answer and not answer["success"]]
        resolved = resolve(refused)
        return [
            resolved.get(id) or result_of(answer) if answer else NOT_MENTIONED
            for id, answer in told
        ]

    def _resolved(
        self, object: CrmObject, refused: Sequence[tuple[str, Answer]]
    ) -> dict[str, Result]:
        """Of refused records those that are not there any more: deleted, or merged into others."""
        lost = {id: answer for id, answer in refused if is_lost(answer)}
        return self._fates(object, lost)

    def _fates(self, object: CrmObject, lost: Mapping[str, Answer]) -> dict[str, Result]:
        if not lost:
            return {}
        try:
            found = self.records_by_id(object, list(lost), ())
        except SourceError:
            # The call itself was answered, so this must not make it fail.
            return {id: Result(Outcome.UNKNOWN, reason=reason_of(lost[id])) for id in lost}
        return {id: _fate(found.get(id), answer) for id, answer in lost.items()}

    def create_tasks(self, tasks: Sequence[NewTask]) -> list[Result]:
        """Create at most 200 tasks; one whose key exists already is DONE, with its id."""
        if not tasks:
            return []
        words = self._known_words()
        # Once only, even if a key comes twice: the second would be refused as a duplicate.
        unique = list({task.key: task for task in tasks}.values())
        answers = self._sent("POST", [draft(task, self._names, words) for task in unique])
        if len(answers) != len(unique):
            return [NOT_MENTIONED] * len(tasks)
        results = self._created(dict(zip(unique, answers, strict=True)))
        return [results[task.key] for task in tasks]

    def _created(self, answers: Mapping[NewTask, Answer]) -> dict[str, Result]:
        results = {task.key: result_of(answer) for task, answer in answers.items()}
        refused = {task: one for task, one in answers.items() if not one["success"]}
        results |= self._duplicates(refused)
        lost = {
            long_id(task.record_id): one for task, one in refused.items() if is_lost(one, "WhatId")
        }
        fates = self._fates("account", lost)
        results |= {
            task.key: fates[long_id(task.record_id)]
            for task, one in refused.items()
            if is_lost(one, "WhatId")
        }
        return results

    def _duplicates(self, refused: Mapping[NewTask, Answer]) -> dict[str, Result]:
        """Of tasks that were refused those whose key, or something else unique, exists already."""
        doubled = {t: one for t, one in refused.items() if "DUPLICATE_VALUE" in codes_of(one)}
        holders = {task: holder_of(one, self._names.key) for task, one in doubled.items()}
        results = {
            task.key: Result(Outcome.DONE, crm_id=id, reason="DUPLICATE_VALUE")
            for task, id in holders.items()
            if id
        }
        unclear = [task for task in doubled if task.key not in results]
        if not unclear:
            return results
        try:
            there = self.tasks_by_key([task.key for task in unclear])
        except SourceError:
            unknown = Result(Outcome.UNKNOWN, reason="DUPLICATE_VALUE")
            return results | {task.key: unknown for task in unclear}
        for task in unclear:
            if task.key in there or holders[task] is not None:
                id = there[task.key].task_id if task.key in there else None
                results[task.key] = Result(Outcome.DONE, crm_id=id, reason="DUPLICATE_VALUE")
        return results

    def _sent(self, method: str, records: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """Send one call of collections.

        Raises:
            OutcomeUnknown: what answers it are no results.
            SourceError: nothing was done.
        """
        if len(records) > BATCH_SIZE:
            raise ValueError(f"{len(records)} records in a call that may have {BATCH_SIZE}")
        self._stop_early()
        content = {"allOrNone": False, "records": records}

        def send(org: Salesforce) -> list[Answer]:
            answer: Any = org.restful(_COLLECTIONS, method=method, json=content)
            if not are_results(answer):
                raise ValueError("no results")
            results: list[Answer] = answer
            return results

        return self._client.write(send)

    def _stop_early(self) -> None:
        share = self.budget().used_share
        if share >= self._target.daily_share:
            raise self._client.named(
                SourceExhausted(
                    f"has used {share:.0%} of the org's API requests of the day",
                    "wait until tomorrow, or raise `daily_share` in crm.yaml",
                )
            )

    def _known_words(self) -> Words:
        if self._words is None:
            description = self._known.get("Task") or self._described_now("Task")
            self._words = words_of(description, self._target.task)
        return self._words

    def _described_now(self, object: str) -> Described:
        self._known[object] = described(self._client, object)
        return self._known[object]


def _fate(found: SeenRecord | None, answer: Answer) -> Result:
    """What became of a record that could not be written because its id leads nowhere."""
    if found is None or (found.gone and found.successor is None):
        return Result(Outcome.GONE, reason=reason_of(answer))
    if found.successor is not None:
        return Result(Outcome.MERGED, successor=found.successor, reason=reason_of(answer))
    return Result(Outcome.REJECTED, reason=reason_of(answer))


def _gone_tasks(refused: Sequence[tuple[str, Answer]]) -> dict[str, Result]:
    """Of refused tasks those that are not there any more. Tasks are never merged."""
    return {
        id: Result(Outcome.GONE, reason=reason_of(answer))
        for id, answer in refused
        if is_lost(answer)
    }
