"""What people did in the CRM, as the ledger keeps it: with our tasks, and with fields of ours."""

import datetime as dt
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from connectors.crm.ledger_results import RecordKey, bury, forget_drift, shown_of
from connectors.crm.ledger_rows import chunks
from connectors.crm.ledger_tables import confirmed, drift, episodes, tasks, tombstones, upsert
from connectors.crm.plans import Drift
from connectors.crm.writing import CrmName, SeenRecord, SeenTask
from contracts.actions import TaskStatus, named_episode

SOMEBODY_ELSE = "(somebody else)"
_ADOPTED = tasks.c.owner.is_(None) & tasks.c.owner_id.is_not(None) & (tasks.c.task == "")
_HANDED_ON = tasks.c.owner_now.is_(None) & (tasks.c.owner_id_now != tasks.c.owner_id)


def keep_tasks(connection: sa.Connection, crm: CrmName, seen: Sequence[SeenTask]) -> None:
    """Keep how tasks are now; adopt those of which the ledger knows nothing (it was lost)."""
    by_key = {task.key: task for task in seen}
    known: dict[str, sa.Row[Any]] = {}
    for keys in chunks(list(by_key)):
        found = connection.execute(sa.select(tasks).where(tasks.c.key.in_(keys)))
        known.update({row.key: row for row in found})
    changed = [as_shown(known[key], task, crm) for key, task in by_key.items() if key in known]
    upsert(connection, tasks, [row for row in changed if row is not None])
    adopted = [_adopted(task, crm) for key, task in by_key.items() if key not in known]
    rows = [row for row in adopted if row is not None]
    upsert(connection, tasks, rows)
    _adopt_episodes(connection, rows)


def nameless_owners(connection: sa.Connection, crm: CrmName) -> set[str]:
    """The ids of those who own tasks, adopted ones or handed on ones, and have no name yet."""
    found = connection.execute(
        sa.union(
            sa.select(tasks.c.owner_id).where(tasks.c.crm == crm, _ADOPTED),
            sa.select(tasks.c.owner_id_now).where(tasks.c.crm == crm, _HANDED_ON),
        )
    )
    return set(found.scalars())


def name_owners(connection: sa.Connection, crm: CrmName, names: Mapping[str, str]) -> None:
    """Say by name who owns those tasks; whoever the CRM does not name is somebody else."""
    for owner_id in nameless_owners(connection, crm):
        name = names.get(owner_id, SOMEBODY_ELSE)
        for column, id, which in (
            (tasks.c.owner, tasks.c.owner_id, _ADOPTED),
            (tasks.c.owner_now, tasks.c.owner_id_now, _HANDED_ON),
        ):
            mine = (tasks.c.crm == crm) & (id == owner_id) & which
            connection.execute(sa.update(tasks).where(mine).values({column.name: name}))


def keep_missing(connection: sa.Connection, keys: Sequence[str]) -> None:
    """Open tasks that the CRM was asked for and does not have: a human deleted them.

    Or we may not see them. Such a deletion is inferred, so it touches nothing: a task that shows
    again is open as it was (`as_shown`).
    """
    for some in chunks(keys):
        connection.execute(
            sa.update(tasks)
            .where(tasks.c.key.in_(some), tasks.c.status == "open")
            .values(status="deleted")
        )


def as_shown(row: sa.Row[Any], seen: SeenTask, crm: CrmName) -> dict[str, Any] | None:
    """A known task as it is now; None where an older version of it was seen than before.

    A task that another one renamed, handed on, moved to another day, completed, deleted or opened
    again is touched, and stays so. Whoever owns a task that we gave to nobody was chosen by the
    CRM. A task that we closed and that is open now was opened again by a human, but only if it
    changed since: an index may lag behind. One that was only missing was never deleted.
    """
    former, now = row.modified_at, seen.modified_at
    if former is not None and now is not None and now < former:
        return None
    was_hidden = row.status == "deleted" and not row.touched
    ours: TaskStatus = "open" if was_hidden else row.status
    status = _status(ours, seen.status, changed=now is None or now != former)
    human = (
        (bool(row.subject) and _plain(row.subject) != _plain(seen.subject))
        or (row.owner_id is not None and seen.owner_id != row.owner_id)
        or (row.due_on is not None and seen.due_on != row.due_on)
        or status in ("completed", "deleted")
        or (ours in ("completed", "deleted", "closed") and status == "open")
    )
    return {
        **row._mapping,
        "crm": crm,
        "record_id": seen.record_id or row.record_id,
        "task_id": seen.task_id,
        "status": status,
        "touched": row.touched or human,
        "subject_now": seen.subject,
        "due_on_now": seen.due_on,
        "owner_id_now": seen.owner_id,
        "owner_now": row.owner_now if row.owner_id_now == seen.owner_id else None,
        "modified_at": now or former,
    }


def _status(ours: TaskStatus, seen: str, *, changed: bool) -> TaskStatus:
    if seen == "open":
        return ours if ours in ("closed", "completed", "deleted") and not changed else "open"
    if ours in ("closed", "completed"):
        return ours  # by us, or by a human before: what came after says nothing new
    return "deleted" if seen == "deleted" else "completed"


def _plain(text: str) -> str:
    """A subject without what a CRM may change about it: white space, and forms of one letter."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _adopted(seen: SeenTask, crm: CrmName) -> dict[str, Any] | None:
    """The row of a task of ours that only the CRM remembers; None for what we did not write.

    What was written first is lost, so the task counts as untouched if it is open: its present
    subject, owner and day are what later changes are told by.
    """
    named = named_episode(seen.episode)
    if named is None:
        return None
    account_id, playbook, opened_on = named
    return {
        "key": seen.key, "crm": crm, "record_id": seen.record_id, "account_id": account_id,
        "playbook": playbook, "opened_on": opened_on, "task": "", "status": seen.status,
        "touched": seen.status != "open", "owner": None, "decided_on": opened_on,
        "task_id": seen.task_id, "subject": seen.subject, "due_on": seen.due_on,
        "owner_id": seen.owner_id, "modified_at": seen.modified_at,
    }  # fmt: skip


def _adopt_episodes(connection: sa.Connection, adopted: Sequence[Mapping[str, Any]]) -> None:
    """Rebuild the episodes of adopted tasks: of an account and playbook only the last is open."""
    found = {(row["account_id"], row["playbook"], row["opened_on"]) for row in adopted}
    opened_on = episodes.c.opened_on
    for account_id, playbook, day in sorted(found, reverse=True):
        same = (episodes.c.account_id == account_id) & (episodes.c.playbook == playbook)
        days = set(connection.execute(sa.select(opened_on).where(same)).scalars())
        if day in days:
            continue
        ended = min((later for later in days if later > day), default=None)
        row = {
            "account_id": account_id, "playbook": playbook, "opened_on": day,
            "state": "closed" if ended else "open", "arm": "treated", "closed_on": ended,
            "why": "found in the CRM",
        }  # fmt: skip
        connection.execute(sa.insert(episodes).values(row))
        connection.execute(
            sa.update(episodes)
            .where(same, opened_on < day, episodes.c.state != "closed")
            .values(state="closed", closed_on=day)
        )


def keep_records(
    connection: sa.Connection, crm: CrmName, seen: Iterable[SeenRecord], at: dt.datetime
) -> list[Drift]:
    """Keep which records are gone, and which of our fields somebody edited; the news of the latter.

    An edit is told once for each value. A field that shows again what we wrote drifts no more.
    """
    records = list(seen)
    _keep_lives(connection, crm, records, at)
    alive: dict[RecordKey, Mapping[str, str | None]] = {
        (crm, record.object, record.record_id): record.values
        for record in records
        if not record.gone and record.successor is None
    }
    acknowledged = shown_of(connection, confirmed, "shown", list(alive))
    known = _known_drift(connection, acknowledged)
    news: list[Drift] = []
    settled: list[tuple[RecordKey, str]] = []
    for key, ours in acknowledged.items():
        for field, value in ours.items():
            if field not in alive[key]:
                continue
            theirs = alive[key][field]
            if theirs == value:
                if (key, field) in known:
                    settled.append((key, field))
            elif known.get((key, field), value) != theirs:
                news.append(Drift(*key, field, value, theirs, at))
    upsert(connection, drift, [vars(one) for one in news])
    forget_drift(connection, settled)
    return news


def _keep_lives(
    connection: sa.Connection, crm: CrmName, records: Sequence[SeenRecord], at: dt.datetime
) -> None:
    lost = {(crm, r.record_id): r.successor for r in records if r.gone or r.successor is not None}
    bury(connection, lost, at)
    alive = [r.record_id for r in records if not r.gone and r.successor is None]
    for ids in chunks(alive):  # one that was restored
        connection.execute(
            sa.delete(tombstones).where(tombstones.c.crm == crm, tombstones.c.record_id.in_(ids))
        )


def _known_drift(
    connection: sa.Connection, records: Iterable[RecordKey]
) -> dict[tuple[RecordKey, str], str | None]:
    """What the drifting fields of these records showed when they were last looked at."""
    wanted = set(records)
    rows = connection.execute(sa.select(drift))
    return {
        ((row.crm, row.object, row.record_id), row.field): row.theirs
        for row in rows
        if (row.crm, row.object, row.record_id) in wanted
    }
