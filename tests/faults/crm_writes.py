"""What the fault tests of writing share: two CRMs, a ledger, plans that want something of them.

A `Crm` is one sandbox that is written to, with the ledger in its folder. `Crm.start` makes a small
world of wishes; `Crm.run` carries them out as a day's run does: what was sent before is settled,
what is still different is planned, the plan is applied. `check` is what has to hold after any run,
whatever broke; `check_converged` what has to hold after the next one in which nothing does.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from connectors.crm.writing import CrmName, Owner
from connectors.sandbox.servers.box import Request
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors import salesforce_metadata, salesforce_people, salesforce_rules
from connectors.sandbox.vendors import salesforce_writes as org_writes
from connectors.sandbox.vendors.salesforce_objects import records, save
from contracts.crm_fields import CrmObject
from tests.faults.crm_oracle import (
    FullDisk,
    assert_alike,
    check,
    check_converged,
    check_quiet,
)
from tests.faults.crm_runs import (
    HOUR,
    LEASE_SECONDS,
    LOGS_IN,
    NOW,
    PERSONAL,
    Crm,
    Run,
    Shown,
    Wish,
    assert_nothing_personal,
    writer_at,
)

__all__ = [
    "CRMS", "HOUR", "LEASE_SECONDS", "LOGS_IN", "NOW", "PERSONAL", "Crm", "FaultFree", "FullDisk",
    "HubSpotCrm", "Run", "SalesforceCrm", "Shown", "Wish", "assert_alike",
    "assert_nothing_personal", "check", "check_converged", "check_quiet", "open_crm", "writer_at",
]  # fmt: skip


class SalesforceCrm(Crm):
    """The sandbox's Salesforce."""

    name = "salesforce"
    tables: ClassVar = {"account": "Account", "opportunity": "Opportunity"}
    calls: ClassVar = {
        "accounts": ("composite/sobjects$", '"Account"'),
        "opportunities": ("composite/sobjects$", '"Opportunity"'),
        "open": ("composite/sobjects$", "HL_Key__c"),
        "close": ("composite/sobjects$", '"Completed"'),
    }

    def _rows(self, name: str) -> list[Any]:
        return records(self.box, name).rows(self.box.now.timestamp())

    def is_write(self, request: Request) -> bool:
        return request.method != "GET" and "oauth2" not in request.path

    def account_ids(self) -> list[str]:
        return sorted(row.id for row in self._rows("Account") if not row.body.get("IsDeleted"))

    def opportunity_ids(self) -> list[str]:
        return sorted(row.id for row in self._rows("Opportunity") if not row.body.get("IsDeleted"))

    def people(self) -> list[Owner]:
        users = sorted(self._rows("User"), key=lambda row: row.id)
        names = ["Ada Lovelace", *(str(row.body["Name"]) for row in users[1:])]
        return [
            Owner(row.id, name, bool(row.body["IsActive"]))
            for row, name in zip(users, names, strict=True)
        ]

    def shown(self) -> Shown:
        fields = {
            (object, row.id): {
                name: value
                for name, api in self.ours(object).items()
                if (value := row.body.get(api)) is not None
            }
            for object, table in self.tables.items()
            for row in self._rows(table)
            if not row.body.get("IsDeleted")
        }
        tasks = {
            row.body["HL_Key__c"]: {
                "record": row.body["WhatId"], "owner": row.body["OwnerId"],
                "subject": row.body["Subject"], "body": row.body["Description"],
                "due": row.body["ActivityDate"], "status": row.body["Status"],
                "priority": row.body["Priority"], "deleted": bool(row.body.get("IsDeleted")),
                "episode": row.body["HL_Episode__c"],
            }
            for row in self._rows("Task")
            if row.body.get("HL_Key__c")
        }  # fmt: skip
        return {record: values for record, values in fields.items() if values}, tasks

    def written(self) -> list[tuple[str, str, frozenset[str], bool]]:
        return [
            (write.object, write.id, frozenset(write.fields), "Subject" in write.fields)
            for write in org_writes.writes(self.box)
        ]

    def task_id(self, key: str) -> str:
        return next(row.id for row in self._rows("Task") if row.body.get("HL_Key__c") == key)

    def task_keys(self) -> list[str]:
        keys = (row.body.get("HL_Key__c") for row in self._rows("Task"))
        return [key for key in keys if key]

    def edit(self, object: CrmObject, id: str, field: str, value: Any) -> None:
        api = self.ours(object)[field]
        save(self.box, self.tables[object], id, {api: value}, self.box.now.timestamp())

    def change_task(self, key: str, how: str) -> None:
        id, at = self.task_id(key), self.box.now.timestamp()
        if how == "deleted":
            salesforce_people.delete(self.box, "Task", id, at)
            return
        changes = {
            "completed": {"Status": "Completed"},
            "renamed": {"Subject": "Another subject"},
            "reassigned": {"OwnerId": self.people()[2].id},
            "postponed": {"ActivityDate": "2026-09-01"},
        }
        save(self.box, "Task", id, changes[how], at)

    def delete(self, account: str) -> None:
        salesforce_people.delete(self.box, "Account", account, self.box.now.timestamp())

    def merge(self, loser: str, winner: str) -> str:
        at = self.box.now.timestamp()
        salesforce_people.merge(self.box, loser=loser, winner=winner, at=at)
        return winner

    def deactivate(self, owner: str) -> None:
        save(self.box, "User", owner, {"IsActive": False}, self.box.now.timestamp())

    locked = "UNABLE_TO_LOCK_ROW"

    def refuse(self, what: str, code: str, ids: Sequence[str], *, times: int | None = None) -> None:
        salesforce_rules.refuse(
            self.box, "Task" if what == "tasks" else what, code, ids=ids, times=times,
            message=f"Ada {PERSONAL} said no", fields=["HL_Risk_Score__c"],
        )  # fmt: skip

    def relent(self) -> None:
        table = salesforce_rules.rules(self.box)
        for row in table.rows(self.box.now.timestamp()):
            table.remove(row.id, self.box.now.timestamp())


class HubSpotCrm(Crm):
    """The sandbox's HubSpot."""

    name = "hubspot"
    tables: ClassVar = {"account": "companies", "opportunity": "deals"}
    calls: ClassVar = {
        "accounts": ("companies/batch/update", None),
        "opportunities": ("deals/batch/update", None),
        "open": ("tasks/batch/create", None),
        "close": ("tasks/batch/update", None),
    }

    def _rows(self, name: str, *, deleted: bool = False) -> list[Any]:
        return portal.collection(self.box, name).rows(self.box.now.timestamp(), deleted=deleted)

    def is_write(self, request: Request) -> bool:
        reads = re.search("batch/read|/search|associations/.*/read|token-info", request.path)
        return request.method != "GET" and not reads

    def account_ids(self) -> list[str]:
        return sorted(row.id for row in self._rows("companies"))

    def opportunity_ids(self) -> list[str]:
        return sorted(row.id for row in self._rows("deals"))

    def people(self) -> list[Owner]:
        rows = sorted(self._rows("owners", deleted=True), key=lambda row: row.id)
        names = ["Ada Lovelace", *(f"Colleague {number}" for number in range(1, len(rows)))]
        return [Owner(row.id, name, not row.deleted) for row, name in zip(rows, names, strict=True)]

    def shown(self) -> Shown:
        fields = {
            (object, row.id): {
                name: value
                for name, api in self.ours(object).items()
                if (value := row.body["properties"].get(api))
            }
            for object, type in self.tables.items()
            for row in self._rows(type)
        }
        tasks = {}
        for row in self._rows("tasks", deleted=True):
            has = row.body["properties"]
            if has.get(portal.KEY):
                tasks[has[portal.KEY]] = {
                    "record": row.body["associations"].get("companies"),
                    "owner": has["hubspot_owner_id"], "subject": has["hs_task_subject"],
                    "body": has["hs_task_body"], "due": has["hs_timestamp"],
                    "status": has["hs_task_status"], "priority": has["hs_task_priority"],
                    "deleted": row.deleted, "episode": has[portal.EPISODE],
                }  # fmt: skip
        return {record: values for record, values in fields.items() if values}, tasks

    def written(self) -> list[tuple[str, str, frozenset[str], bool]]:
        return [
            (write.object, write.id, frozenset(write.properties), write.kind == "create")
            for write in portal.writes(self.box)
        ]

    def task_id(self, key: str) -> str:
        rows = self._rows("tasks", deleted=True)
        return next(row.id for row in rows if row.body["properties"].get(portal.KEY) == key)

    def task_keys(self) -> list[str]:
        rows = self._rows("tasks", deleted=True)
        keys = (row.body["properties"].get(portal.KEY) for row in rows)
        return [key for key in keys if key]

    def edit(self, object: CrmObject, id: str, field: str, value: Any) -> None:
        text = None if value is None else str(value)
        self._edit(self.tables[object], id, {self.ours(object)[field]: text})

    def _edit(self, type: str, id: str, changes: Mapping[str, str | None]) -> None:
        # As the portal's own user interface does, `hs_lastmodifieddate` with it.
        portal.edit(self.box, type, id, **changes)

    def change_task(self, key: str, how: str) -> None:
        id = self.task_id(key)
        if how == "deleted":
            portal.collection(self.box, "tasks").remove(id, self.box.now.timestamp())
            return
        changes = {
            "completed": {"hs_task_status": "COMPLETED"},
            "renamed": {"hs_task_subject": "Another subject"},
            "reassigned": {"hubspot_owner_id": self.people()[2].id},
            "postponed": {"hs_timestamp": "2026-09-01T15:00:00.000Z"},
        }
        self._edit("tasks", id, changes[how])

    def delete(self, account: str) -> None:
        portal.collection(self.box, "companies").remove(account, self.box.now.timestamp())

    def merge(self, loser: str, winner: str) -> str:
        return portal.merge(self.box, winner, loser)

    def deactivate(self, owner: str) -> None:
        portal.collection(self.box, "owners").remove(owner, self.box.now.timestamp())

    locked = "OBJECT_LOCKED"

    def refuse(self, what: str, code: str, ids: Sequence[str], *, times: int | None = None) -> None:
        portal.order(
            self.box, "reject", object=what, ids=ids, times=times, code=code,
            message=f"Ada {PERSONAL} said no",
        )  # fmt: skip

    def relent(self) -> None:
        table = portal.rules(self.box)
        for row in table.rows(math.inf):
            table.remove(row.id, 0.0)


CRMS: Mapping[CrmName, type[Crm]] = {"salesforce": SalesforceCrm, "hubspot": HubSpotCrm}


@contextmanager
def open_crm(name: CrmName, world: Path, folder: Path) -> Iterator[Crm]:
    """A fresh CRM with all our fields in it, and an empty folder for the ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    with sandbox(world, NOW, vendors=[name]) as box:
        if name == "salesforce":
            salesforce_metadata.provisioned(box)
        else:
            portal.provisioned(box)
        yield CRMS[name](box, folder)
        assert box.defects == []


class FaultFree:
    """What a CRM shows after a run in which nothing broke, by the CRM and the size of the wish."""

    def __init__(self, world: Path, folder: Path) -> None:
        self._world, self._folder = world, folder
        self._known: dict[tuple[CrmName, tuple[int, ...]], Shown] = {}

    def shown(self, name: CrmName, *size: int) -> Shown:
        """`size` is what `Crm.start` is given."""
        if (name, size) not in self._known:
            folder = self._folder / f"{name}-{len(self._known)}"
            with open_crm(name, self._world, folder) as crm:
                wish = crm.start(*size)
                run = crm.run(wish)
                assert set(run.states()) <= {"written"}, run.applied
                check(crm, wish)
                check_quiet(crm, wish)
                self._known[name, size] = crm.shown()
        return self._known[name, size]
