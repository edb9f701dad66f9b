"""Tasks as they are created, in the words that the org has for status and priority."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from connectors.crm.settings import TaskNames
from connectors.crm.writing import NewTask
from connectors.vendors.salesforce.fields import EPISODE_LENGTH, SUBJECT_LENGTH, Names, clean
from connectors.vendors.salesforce.wanted import Described, active_values, by_name, default_value
from contracts.actions import Priority

OPEN, CLOSED = "Not Started", "Completed"
PRIORITIES: Mapping[Priority, str] = {"high": "High", "normal": "Normal", "low": "Low"}
_BODY_LENGTH = 32_000


@dataclass(frozen=True)
class Words:
    """The values that tasks are given, as far as the org has them, and how long a body may be.

    `unknown` are values of the settings, or the usual ones, that the org does not have.
    """

    open_status: str
    closed_status: str
    priorities: Mapping[Priority, str | None]
    body_length: int = _BODY_LENGTH
    unknown: tuple[str, ...] = ()


def words_of(task: Described, given: TaskNames) -> Words:
    """The words of an org by its description of Task; a priority that it lacks is left to it."""
    fields = by_name(task)
    statuses, priorities = fields.get("status", {}), fields.get("priority", {})
    known = active_values(statuses)
    opened = given.open_status or (OPEN if OPEN in known else default_value(statuses) or OPEN)
    closed = given.closed_status or CLOSED
    ranked = {ours: given.priorities.get(ours, usual) for ours, usual in PRIORITIES.items()}
    offered = active_values(priorities)
    unknown = [f"Status '{word}'" for word in (opened, closed) if word not in known]
    unknown += [
        f"Priority '{word}'"
        for ours, word in ranked.items()
        if ours in given.priorities and word not in offered
    ]
    return Words(
        open_status=opened,
        closed_status=closed,
        priorities={ours: word if word in offered else None for ours, word in ranked.items()},
        body_length=fields.get("description", {}).get("length") or _BODY_LENGTH,
        unknown=tuple(unknown),
    )


def draft(task: NewTask, names: Names, words: Words) -> dict[str, Any]:
    """A task as a record of a collection."""
    record = {
        "attributes": {"type": "Task"},
        names.key: task.key,
        names.episode: clean(task.episode, EPISODE_LENGTH),
        "WhatId": task.record_id,
        "Subject": clean(" ".join(task.subject.split()), SUBJECT_LENGTH),
        "Description": clean(task.body, words.body_length) or None,
        "ActivityDate": task.due_on.isoformat(),
        "Status": words.open_status,
    }
    if task.owner_id is not None:
        record["OwnerId"] = task.owner_id
    if priority := words.priorities[task.priority]:
        record["Priority"] = priority
    return record
