"""What the portal shows of our tasks and of the records that we write to.

Records and tasks are read by id or key with batch/read, which knows at once what was written. What
changed is searched for; the index lags, so a quarter of an hour is looked through again.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from connectors.crm.settings import HubSpotTarget, names_of
from connectors.crm.writing import Owner, SeenRecord, SeenTask
from connectors.vendors.hubspot.client import HubSpot
from connectors.vendors.hubspot.connector import INDEX_LAG, LIST_PAGE, OWNERS_PAGE
from connectors.vendors.hubspot.values import decoded, due_day, epoch_ms, moment_of
from connectors.vendors.hubspot.wanted import TYPES, task_names
from contracts.crm_fields import FIELDS, CrmObject

BATCH = 100
COMPLETED = "COMPLETED"
_MODIFIED, _MERGED = "hs_lastmodifieddate", "hs_merged_object_ids"

Record = Mapping[str, Any]


class ReadBack:
    """Reads one portal, in the names that `crm.yaml` gives our fields."""

    def __init__(self, reader: HubSpot, target: HubSpotTarget) -> None:
        self._reader, self._target = reader, target
        self._key, self._episode = task_names(target)
        self._names = {object: names_of("hubspot", target, object) for object in TYPES}
        self._of_tasks = [
            self._key, self._episode, "hubspot_owner_id", "hs_task_subject", "hs_timestamp",
            "hs_task_status", _MODIFIED,
        ]  # fmt: skip

    def tasks_by_key(self, keys: Sequence[str]) -> dict[str, SeenTask]:
        """Our tasks by key: the living ones, then those that were deleted, while HubSpot has them.

        HubSpot keeps deleted records for about 90 days.
        """
        found: dict[str, SeenTask] = {}
        for archived in (False, True):
            rest = [key for key in dict.fromkeys(keys) if key not in found]
            for batch in batches(rest):
                records, _ = self._reader.look_up(
                    "tasks", batch, self._of_tasks, id_property=self._key, archived=archived
                )
                found |= {task.key: task for task in self._tasks(records, archived=archived)}
        return {key: found[key] for key in dict.fromkeys(keys) if key in found}

    def tasks_changed(self, since: dt.datetime | None) -> Iterator[SeenTask]:
        """Our tasks that changed since, apart from the last minutes, which the index lacks yet.

        Deleted ones are told only where `since` is None: finding them means going through all
        deleted tasks of the portal, ours or not. Otherwise `tasks_by_key` tells them.
        """
        filters = [{"propertyName": self._key, "operator": "HAS_PROPERTY"}]
        if since is not None:
            filters.append(_changed_since(since))
        for page in self._reader.walk("tasks", filters, self._of_tasks):
            yield from self._tasks(page)
        if since is None:
            for page in self._archived("tasks", self._of_tasks):
                yield from self._tasks(page, archived=True)

    def _archived(self, type: str, properties: list[str]) -> Iterator[list[dict[str, Any]]]:
        yield from self._reader.objects(
            type, properties=properties, history=[], associations=[], archived=True, limit=LIST_PAGE
        )

    def _tasks(self, records: Iterable[Record], *, archived: bool = False) -> list[SeenTask]:
        ours = [record for record in records if record["properties"].get(self._key)]
        ids = [str(record["id"]) for record in ours]
        # Nobody tells what a deleted task was about.
        ask = ids and not archived
        linked = self._reader.associated("tasks", ids, "companies") if ask else {}
        return [self._task(record, linked, archived=archived) for record in ours]

    def _task(self, record: Record, linked: Mapping[str, list[str]], *, archived: bool) -> SeenTask:
        id, properties = str(record["id"]), record["properties"]
        done = {COMPLETED, self._target.task.closed_status or COMPLETED}
        completed = properties.get("hs_task_status") in done
        return SeenTask(
            key=properties[self._key],
            episode=properties.get(self._episode) or "",
            task_id=id,
            record_id=next(iter(linked.get(id, [])), None),
            owner_id=properties.get("hubspot_owner_id") or None,
            subject=properties.get("hs_task_subject") or "",
            due_on=due_day(properties.get("hs_timestamp")),
            status="deleted" if archived else "completed" if completed else "open",
            modified_at=moment_of(properties.get(_MODIFIED)),
        )

    def records_by_id(
        self, object: CrmObject, ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, SeenRecord]:
        """Records as they are; one of which HubSpot says nothing at all is left out."""
        living, gone = self.living(TYPES[object], ids, self._properties(object, fields))
        seen = {id: SeenRecord(object, id, {}, gone=True) for id in gone}
        for id, record in living.items():
            if str(record["id"]) == id:
                seen[id] = self._record(object, record, fields)
            else:
                seen[id] = SeenRecord(object, id, {}, successor=str(record["id"]))
        return seen

    def living(
        self, type: str, ids: Sequence[str], properties: Sequence[str] = ()
    ) -> tuple[dict[str, Record], set[str]]:
        """The living record that each id leads to, and the ids that lead to none.

        The record of a merged one has another id. An id that is in neither was not told.
        """
        living: dict[str, Record] = {}
        gone: set[str] = set()
        asked = [*properties, *([_MERGED] if type in TYPES.values() else [])]
        for batch in batches(list(dict.fromkeys(ids))):
            records, missing = self._reader.look_up(type, batch, asked)
            by_id: dict[str, Record] = {id: r for r in records for id in _former(r)}
            by_id |= {str(record["id"]): record for record in records}
            untold = [id for id in batch if id not in by_id and id not in missing]
            if any(str(record["id"]) not in batch for record in records):
                # Merged more than once: the record names its last predecessors only.
                for id in untold:
                    alone, _ = self._reader.look_up(type, [id], asked)
                    by_id |= dict.fromkeys([id], alone[0]) if alone else {}
            living |= {id: by_id[id] for id in batch if id in by_id}
            gone |= missing.intersection(batch) - by_id.keys()
        return living, gone

    def records_changed(
        self, object: CrmObject, since: dt.datetime | None, fields: Sequence[str]
    ) -> Iterator[SeenRecord]:
        """Records that changed since, and with a merged one those that it took the place of.

        Deleted ones are told only where `since` is None; else by `records_by_id`, and by a write.
        """
        type, properties = TYPES[object], self._properties(object, fields)
        pages = (
            self._all(type, properties)
            if since is None
            else self._reader.walk(type, [_changed_since(since)], [*properties, _MERGED])
        )
        for page in pages:
            for record in page:
                yield self._record(object, record, fields)
                for former in _former(record):
                    yield SeenRecord(object, former, {}, successor=str(record["id"]))
        if since is None:
            for page in self._archived(type, []):
                yield from (SeenRecord(object, str(r["id"]), {}, gone=True) for r in page)

    def _all(self, type: str, properties: list[str]) -> Iterator[list[dict[str, Any]]]:
        """The list, which unlike the search lacks nothing."""
        yield from self._reader.objects(
            type, properties=[*properties, _MERGED], history=[], associations=[], archived=False,
            limit=LIST_PAGE,
        )  # fmt: skip

    def _properties(self, object: CrmObject, fields: Sequence[str]) -> list[str]:
        names = self._names[object]
        return [names[field] for field in fields if field in names]

    def _record(self, object: CrmObject, record: Record, fields: Sequence[str]) -> SeenRecord:
        names = self._names[object]
        properties = record["properties"]
        values = {
            field: decoded(FIELDS[field], properties.get(names[field]))
            for field in fields
            if field in names
        }
        return SeenRecord(object, str(record["id"]), values)

    def owners(self) -> list[Owner]:
        """Active and archived ones. HubSpot tells neither their time zones nor their managers."""
        return [
            Owner(
                str(owner["id"]),
                " ".join(filter(None, (owner.get("firstName"), owner.get("lastName")))),
                active=not archived,
                is_queue=owner.get("type") == "QUEUE",
            )
            for archived in (False, True)
            for page in self._reader.owners(archived=archived, limit=OWNERS_PAGE)
            for owner in page
        ]


def _changed_since(since: dt.datetime) -> dict[str, str]:
    return {"propertyName": _MODIFIED, "operator": "GTE", "value": epoch_ms(since - INDEX_LAG)}


def _former(record: Record) -> list[str]:
    """The ids of those that were merged into a record."""
    return [id for id in str(record["properties"].get(_MERGED) or "").split(";") if id]


def batches(items: Sequence[Any], size: int = BATCH) -> Iterator[list[Any]]:
    """Lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
