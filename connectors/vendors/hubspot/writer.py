"""Writing into HubSpot: our properties of companies and deals, and our tasks.

What its API demands, and what is done about it here:

- Batches hold 100 records. Each input bears a trace, its record's id or its task's key, by which
  the answer is told apart; what the answer does not mention, or shows with another value than was
  sent, is unknown, and the engine reads it back (`connectors.vendors.hubspot.answers`).
- A task's key stands in a property with unique values. A call that is refused because some keys
  exist had no effect: the existing ones are read back by key, and the rest goes out again.
- A task is created together with its association to the company, in one call, so nothing can come
  between. The number of that kind of association is asked for once.
- Reading back is by batch/read, never by search, whose index lags behind by minutes.
- 423 and 477: nothing was done; the limiter lets nobody through for as long as HubSpot asks.
- HubSpot has no permissions for an app on single properties. That only ours are written is this
  module's doing: a field that is not in `contracts.crm_fields.written_on` is never sent.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from connectors.api import ApiConfig, Secrets
from connectors.crm.settings import HubSpotTarget, names_of
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
from connectors.vendors.hubspot import connector
from connectors.vendors.hubspot.answers import (
    BUSY,
    CONFLICTS,
    NOT_FOUND,
    Answered,
    Locked,
    Record,
    Rejected,
    Trouble,
)
from connectors.vendors.hubspot.portal import Portal
from connectors.vendors.hubspot.reading_back import BATCH, COMPLETED, ReadBack
from connectors.vendors.hubspot.rights import missing_and_wrong, rights
from connectors.vendors.hubspot.settings import HubSpotConfig
from connectors.vendors.hubspot.values import (
    SUBJECT_LENGTH,
    cleaned,
    decoded,
    due_value,
    encoded,
    safe_html,
)
from connectors.vendors.hubspot.wanted import TYPES, task_names
from contracts.actions import Priority
from contracts.crm_fields import FIELDS, CrmObject, written_on
from contracts.errors import SourceError

LONGEST_HOLD_SECONDS = 120.0
NOT_STARTED = "NOT_STARTED"
PRIORITIES: dict[Priority, str] = {"high": "HIGH", "normal": "MEDIUM", "low": "LOW"}

Properties = dict[str, str]
Send = Callable[[list[dict[str, Any]]], Answered]


def merged_config(config: ApiConfig, target: HubSpotTarget) -> HubSpotConfig:
    """The settings of the source with the credentials that `crm.yaml` gives for writing."""
    return HubSpotConfig.model_validate({**config.model_dump(), **target.credentials})


def connect_writer(
    config: HubSpotConfig, target: HubSpotTarget, secrets: Secrets
) -> "HubSpotWriter":
    """The writer; sends nothing.

    Raises:
        SourceRefused: the secret is missing.
    """
    return HubSpotWriter(connect_portal(config, secrets), config, target)


def connect_portal(config: HubSpotConfig, secrets: Secrets) -> Portal:
    """The portal that the settings lead to; sends nothing."""
    address = config.address or connector.ADDRESS
    return Portal(address, secrets.of(config.token), config.api_version)


class HubSpotWriter:
    """One portal, as `connectors.crm.writing.CrmWriter` asks it to be."""

    name: CrmName = "hubspot"
    batch_size = BATCH
    bulk: Bulk | None = None

    def __init__(self, portal: Portal, config: HubSpotConfig, target: HubSpotTarget) -> None:
        self._portal, self._config, self._target = portal, config, target
        self._seen = ReadBack(portal.reader, target)
        self._known: dict[str, dict[str, dict[str, Any]]] = {}
        self._association: int | None = None
        self._names = {object: _written_names(target, object) for object in TYPES}

    @property
    def requests_sent(self) -> int:
        """Every request so far, reads and repeated attempts too."""
        return self._portal.requests_sent

    def account(self) -> str:
        """The portal's number, as the reader tells it."""
        return connector.account(self._portal.reader, self._config)

    def budget(self) -> Budget:
        """The day's requests, as far as answers so far have told; sends nothing."""
        return self._portal.budget

    def ready(self, *, fields: bool, tasks: bool) -> list[Finding]:
        """What keeps us from writing: missing properties, wrong types, a key that is not unique."""
        return missing_and_wrong(self._properties_now, self._target, fields=fields, tasks=tasks)

    def rights(self) -> list[Finding]:
        """Scopes that are missing or more than is needed, and what is left of the day's requests.

        What the key may do to records it owns or not, and whether people may edit our properties,
        no API tells. Nor is it confirmed that HubSpot tells the scopes of a Service Key, as it does
        those of a private app; where it does not, a note says so.
        """
        return rights(self._portal, self._target)

    def owners(self) -> list[Owner]:
        """Everybody who may own a task, and those who left."""
        return self._seen.owners()

    def tasks_by_key(self, keys: Sequence[str]) -> dict[str, SeenTask]:
        """See `ReadBack.tasks_by_key`."""
        return self._seen.tasks_by_key(keys)

    def tasks_changed(self, since: dt.datetime | None) -> Iterable[SeenTask]:
        """See `ReadBack.tasks_changed`."""
        return self._seen.tasks_changed(since)

    def records_by_id(
        self, object: CrmObject, ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, SeenRecord]:
        """See `ReadBack.records_by_id`."""
        return self._seen.records_by_id(object, ids, fields)

    def records_changed(
        self, object: CrmObject, since: dt.datetime | None, fields: Sequence[str]
    ) -> Iterable[SeenRecord]:
        """See `ReadBack.records_changed`."""
        return self._seen.records_changed(object, since, fields)

    def update(self, updates: Sequence[FieldUpdate]) -> list[Result]:
        """Set fields of at most 100 records of one object, each on its own.

        Raises:
            ValueError: one of the fields is not ours to write, or the objects differ.
            SourceError: as `connectors.crm.writing` says.
        """
        if not updates:
            return []
        object = updates[0].object
        if any(update.object != object for update in updates):
            raise ValueError("one call is about records of one object")
        inputs: dict[str, Properties] = {}
        for update in updates:
            inputs.setdefault(update.record_id, {}).update(self._encoded(update))
        results = self._set(TYPES[object], inputs, partial(self._holds, object))
        return [results[update.record_id] for update in updates]

    def _encoded(self, update: FieldUpdate) -> Properties:
        names, known = self._names[update.object], self._properties(TYPES[update.object])
        foreign = update.values.keys() - names.keys()
        if foreign:
            raise ValueError(f"{min(foreign)} on {update.object} is not ours to write")
        return {
            names[field]: encoded(FIELDS[field], _type(known, names[field]), value)
            for field, value in update.values.items()
        }

    def _properties(self, type: str) -> dict[str, dict[str, Any]]:
        """The properties of a type of record, asked for once."""
        return self._known.get(type) or self._properties_now(type)

    def _properties_now(self, type: str) -> dict[str, dict[str, Any]]:
        self._known[type] = self._portal.properties(type)
        return self._known[type]

    def _holds(self, object: CrmObject, sent: Properties, record: Record) -> bool:
        """Whether a record shows what was sent: a 200 alone does not say so."""
        shown = record["properties"]
        return all(
            sent[name] == shown.get(name)
            or decoded(FIELDS[field], sent[name]) == decoded(FIELDS[field], shown.get(name))
            for field, name in self._names[object].items()
            if name in sent
        )

    def change_tasks(self, changes: Sequence[TaskChange]) -> list[Result]:
        """Close at most 100 tasks; one that somebody deleted is GONE."""
        status = self._target.task.closed_status or COMPLETED
        inputs = {change.task_id: {"hs_task_status": status} for change in changes if change.close}
        done = {c.task_id: Result(Outcome.DONE, c.task_id) for c in changes if not c.close}
        done |= self._set("tasks", inputs, _shows) if inputs else {}
        return [done[change.task_id] for change in changes]

    def _set(
        self,
        type: str,
        inputs: Mapping[str, Properties],
        holds: Callable[[Properties, Record], bool],
    ) -> dict[str, Result]:
        """Set properties of records by id, and tell what became of each."""
        sent = [
            {"id": id, "properties": properties, "objectWriteTraceId": id}
            for id, properties in inputs.items()
        ]
        told = self._sent(partial(self._portal.update, type), sent)
        if isinstance(told, Result):
            return dict.fromkeys(inputs, told)
        results: dict[str, Result] = {}
        for id, properties in inputs.items():
            record = told.result(id)
            if record is None:
                continue
            if str(record["id"]) != id:
                successor = str(record["id"])
                results[id] = Result(Outcome.MERGED, successor, "merged", successor)
            else:
                done = holds(properties, record)
                results[id] = Result(Outcome.DONE if done else Outcome.UNKNOWN, id)
        return results | self._refused(told, type, {id: id for id in inputs if id not in results})

    def _sent(self, send: Send, inputs: list[dict[str, Any]]) -> Answered | Result:
        """What HubSpot answers; one result where it is the same for all.

        Raises:
            Rejected: several records were refused as a whole; nothing was done.
        """
        try:
            return send(inputs)
        except Locked as error:
            if error.seconds > LONGEST_HOLD_SECONDS:
                raise
            self._portal.hold(error.seconds)
            return Result(Outcome.BUSY, reason="LOCKED")
        except Rejected as error:
            if error.answered is not None:
                return error.answered
            if len(inputs) > 1:
                raise
            # Whatever it names, it is about the one record that was sent.
            return Answered((), (replace(error.trouble, about=frozenset()),))

    def _refused(self, told: Answered, type: str, records: Mapping[str, str]) -> dict[str, Result]:
        """What became of the inputs without a result; `records` gives the record of each trace."""
        troubles = {trace: told.trouble(trace, records) for trace in records}
        results = {trace: _result(trouble) for trace, trouble in troubles.items()}
        lost = [t for t, trouble in troubles.items() if trouble and trouble.says(NOT_FOUND)]
        if not lost:
            return results
        try:
            living, gone = self._seen.living(type, [records[trace] for trace in lost])
        except SourceError:  # no reason to forget what became of the others
            return results | dict.fromkeys(lost, Result(Outcome.UNKNOWN))
        found = {trace: _found(records[trace], living, gone) for trace in lost}
        return results | {trace: result for trace, result in found.items() if result}

    def create_tasks(self, tasks: Sequence[NewTask]) -> list[Result]:
        """Create at most 100 tasks; one whose key exists is DONE, with the id of the existing one.

        A key that occurs twice is sent once. Where HubSpot refuses the whole call because keys
        exist, the others go out again; nothing had been done.
        """
        results: dict[str, Result] = {}
        rest = {task.key: task for task in tasks}
        while rest:
            try:
                results |= self._created(rest)
                rest = {}
            except Rejected as error:
                existing = self._existing(rest) if error.trouble.says(CONFLICTS) else {}
                if not existing:
                    raise
                results |= existing
                rest = {key: task for key, task in rest.items() if key not in existing}
        return [results[task.key] for task in tasks]

    def _created(self, tasks: Mapping[str, NewTask]) -> dict[str, Result]:
        """One call, and what it says about each task."""
        key_name, _ = task_names(self._target)
        told = self._sent(
            partial(self._portal.create, "tasks"), [self._input(task) for task in tasks.values()]
        )
        if isinstance(told, Result):
            return dict.fromkeys(tasks, told)
        by_key = {record["properties"].get(key_name): record for record in told.results}
        results: dict[str, Result] = {}
        for key in tasks:
            record = told.result(key) or by_key.get(key)
            if record is not None:
                shown = record["properties"].get(key_name) == key
                results[key] = Result(Outcome.DONE if shown else Outcome.UNKNOWN, str(record["id"]))
        refused = {key: task for key, task in tasks.items() if key not in results}
        companies = {key: task.record_id for key, task in refused.items()}
        results |= self._refused(told, "companies", companies)
        taken = {
            key: task
            for key, task in refused.items()
            if (trouble := told.trouble(key, refused)) and trouble.says(CONFLICTS)
        }
        # What exists is read before anything is believed; what is not found stays unknown.
        results |= {key: Result(Outcome.UNKNOWN, reason=results[key].reason) for key in taken}
        with suppress(SourceError):
            results |= self._existing(taken)
        return results

    def _existing(self, tasks: Mapping[str, NewTask]) -> dict[str, Result]:
        """Those that the portal has already, the ones that somebody deleted included."""
        seen = self._seen.tasks_by_key(list(tasks))
        return {key: Result(Outcome.DONE, task.task_id) for key, task in seen.items()}

    def _input(self, task: NewTask) -> dict[str, Any]:
        """A task as HubSpot creates it, linked to its company."""
        key, episode = task_names(self._target)
        names = self._target.task
        properties = {
            key: task.key,
            episode: cleaned(task.episode, SUBJECT_LENGTH),
            "hs_timestamp": due_value(task.due_on, task.due_at),
            "hs_task_subject": cleaned(task.subject.replace("\n", " "), SUBJECT_LENGTH),
            "hs_task_body": safe_html(task.body),
            "hs_task_status": names.open_status or NOT_STARTED,
            "hs_task_priority": names.priorities.get(task.priority, PRIORITIES[task.priority]),
            "hs_task_type": "TODO",
        }
        if task.owner_id:
            properties["hubspot_owner_id"] = task.owner_id
        kind = {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": self._linked_by()}
        return {
            "properties": properties,
            "associations": [{"to": {"id": task.record_id}, "types": [kind]}],
            "objectWriteTraceId": task.key,
        }

    def _linked_by(self) -> int:
        if self._association is None:
            self._association = self._portal.association_type("tasks", "companies")
        return self._association


def _written_names(target: HubSpotTarget, object: CrmObject) -> dict[str, str]:
    """The properties of the fields that we write on an object, and of no others."""
    names = names_of("hubspot", target, object)
    ours = (field.name for field in written_on(object))
    return {field: names[field] for field in ours if field in names}


def _shows(sent: Properties, record: Record) -> bool:
    """Whether a record shows what was sent, letter by letter."""
    return all(record["properties"].get(name) == value for name, value in sent.items())


def _result(trouble: Trouble | None) -> Result:
    """What an error means for a record; without one the answer did not mention it."""
    if trouble is None:
        return Result(Outcome.UNKNOWN)
    busy = trouble.says(BUSY)
    return Result(Outcome.BUSY if busy else Outcome.REJECTED, reason=trouble.reason)


def _type(known: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return str(known.get(name, {}).get("type"))


def _found(id: str, living: Mapping[str, Record], gone: set[str]) -> Result | None:
    """What became of a record that was not found, after a second look; None: it is there."""
    if id in gone:
        return Result(Outcome.GONE, reason="OBJECT_NOT_FOUND")
    if id not in living:
        return Result(Outcome.UNKNOWN, reason="OBJECT_NOT_FOUND")
    successor = str(living[id]["id"])
    if successor == id:
        return None
    return Result(Outcome.MERGED, successor, "merged", successor)
