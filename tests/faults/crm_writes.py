"""What the fault tests of writing share: two CRMs, a ledger, plans that want something of them.

A `Crm` is one sandbox that is written to, with the ledger in its folder. `Crm.start` makes a small
world of wishes; `Crm.run` carries them out as a day's run does: what was sent before is settled,
what is still different is planned, the plan is applied. `check` is what has to hold after any run,
whatever broke; `check_converged` what has to hold after the next one in which nothing does.
"""

import datetime as dt
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import sqlalchemy as sa

from connectors.crm.applying import Applied, apply_plan, recover
from connectors.crm.ledger import Ledger
from connectors.crm.ledger_tables import attempts, batches, explained
from connectors.crm.observing import Observed, observe
from connectors.crm.people import People
from connectors.crm.planning import CrmRecord, Surroundings, make_plan
from connectors.crm.plans import END_STATES, FieldChange, Intent, RecordChange
from connectors.crm.settings import (
    CrmSettings,
    HubSpotTarget,
    Owners,
    SalesforceTarget,
    Target,
    names_of,
)
from connectors.crm.writing import CrmName, CrmWriter, Owner
from connectors.sandbox.servers.box import Box, Request, credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors import salesforce as org_server
from connectors.sandbox.vendors import salesforce_metadata, salesforce_people
from connectors.sandbox.vendors import salesforce_writes as org_writes
from connectors.sandbox.vendors.salesforce_objects import records, save
from connectors.vendors.hubspot import writer as hubspot
from connectors.vendors.hubspot.settings import HubSpotConfig
from connectors.vendors.salesforce import writer as salesforce
from connectors.vendors.salesforce.settings import SalesforceConfig
from contracts.actions import Decisions, Episode, TaskClosing, TaskDraft, task_key
from contracts.crm_fields import CrmObject, written_on
from contracts.secrets import Secrets

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
LEASE_SECONDS = 300.0
PLAYBOOK = "champion-left"

PERSONAL = "Lovelace"
"""Stands in every text that is written and in every message of a CRM, and in no reason of ours."""

Record = tuple[CrmObject, str]
Values = dict[str, str | None]
Shown = tuple[dict[Record, dict[str, Any]], dict[str, dict[str, Any]]]
"""What a CRM shows of us: our fields by record, our tasks by key. Deleted tasks are there."""


@dataclass(frozen=True)
class Wish:
    """What the CRM is to show: fields of records, tasks that are open, tasks that are closed."""

    fields: Mapping[Record, Values]
    tasks: tuple[TaskDraft, ...] = ()
    closed: tuple[str, ...] = ()
    accounts: Mapping[str, str] = field(default_factory=dict)
    """The account's id in the CRM, by our account id; also of the records in `fields`."""

    @property
    def keys(self) -> list[str]:
        """The keys of the tasks to open."""
        return [task.key for task in self.tasks]

    def ids(self, object: CrmObject = "account") -> list[str]:
        """The records whose fields are wished for."""
        return [id for of, id in self.fields if of == object]


@dataclass(frozen=True)
class Run:
    """A run: its plan, what became of it, and its intents as the ledger has them."""

    plan_id: str
    applied: Applied
    intents: tuple[Intent, ...]

    def states(self, kind: str | None = None) -> dict[str, int]:
        """How many intents ended how, of one kind or of all."""
        of_kind = (i for i in self.intents if kind in (None, i.kind))
        return dict(Counter(intent.state for intent in of_kind))

    def of(self, record_or_key: str) -> Intent:
        """The intent about a record's fields, or about a task."""
        return next(
            intent
            for intent in self.intents
            if (intent.task.key if intent.task else intent.closing.key if intent.closing
                else intent.record_id) == record_or_key
        )  # fmt: skip


def target_of(crm: CrmName, **more: Any) -> Target:
    """The section of `crm.yaml`."""
    return (SalesforceTarget if crm == "salesforce" else HubSpotTarget)(source="crm", **more)


def writer_at(
    crm: CrmName,
    address: str,
    home: Path,
    *,
    ca_file: str | None = None,
    batch_size: int | None = None,
    target: Target | None = None,
    **settings: Any,
) -> CrmWriter:
    """A writer, as a process of its own makes it; its secrets are in the `.env` of `home`.

    It needs nothing but an address, so a test may make it in another process than the sandbox.
    """
    env = home / ".env"
    if not env.is_file():
        lines = {
            **credentials(), "KEY": org_server.CONSUMER_KEY, "SECRET": org_server.CONSUMER_SECRET
        }  # fmt: skip
        env.write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
    secrets, target = Secrets(home), target or target_of(crm)
    writer: CrmWriter
    if crm == "salesforce":
        if "consumer_key" not in settings:
            settings["access_token"] = {"env": "SALESFORCE_TOKEN"}
        given = {"type": crm, "instance_url": address, "ca_file": ca_file, **settings}
        writer = salesforce.connect_writer(SalesforceConfig.model_validate(given), target, secrets)
    else:
        given = {"type": crm, "address": address, "token": {"env": "HUBSPOT_TOKEN"}, **settings}
        writer = hubspot.connect_writer(HubSpotConfig.model_validate(given), target, secrets)
    if batch_size is not None:
        writer.batch_size = batch_size
    return writer


LOGS_IN = {"consumer_key": {"env": "KEY"}, "consumer_secret": {"env": "SECRET"}}
"""Settings with which Salesforce can renew its session."""


class Crm:
    """A CRM in a sandbox, and the ledger of who writes into it.

    Attributes:
        batch_size: How many records our calls hold at most; few, so that there are some calls.
        settings: Of the source, besides where it is.
        target: The section of `crm.yaml`.
        wrote: How many write requests there were when `quiet` was last asked.
    """

    name: CrmName
    update: Mapping[CrmObject, str]
    """The paths of updates, as regular expressions."""
    create: str
    """And of creating tasks."""
    change: str
    """And of changing tasks."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.batch_size = 4
        self.settings: dict[str, Any] = {}
        self.target = target_of(self.name)
        self.owners = Owners()
        self._day = itertools.count()

    # The process that writes

    def writer(self, **differs: Any) -> CrmWriter:
        """A writer with a session of its own."""
        given: dict[str, Any] = {
            "batch_size": self.batch_size, "target": self.target, **self.settings, **differs,
        }  # fmt: skip
        ca_file = str(self.box.ca_file) if self.box.ca_file else None
        address = given.pop("address", self.box.address(self.name))
        return writer_at(self.name, address, self.folder, ca_file=ca_file, **given)

    @property
    def url(self) -> str:
        """Where the ledger is."""
        return f"sqlite:///{self.folder / 'ledger.sqlite'}"

    def now(self) -> dt.datetime:
        """The one clock of the sandbox and of those who write."""
        return self.box.now

    def sleep(self, seconds: float) -> None:
        """Wait, in no time."""
        self.box.move(self.box.now + dt.timedelta(seconds=seconds))

    def run(
        self,
        wish: Wish,
        *,
        writer: CrmWriter | None = None,
        ledger: Ledger | None = None,
        observes: bool = False,
        **how: Any,
    ) -> Run:
        """A run as orchestration does it, an hour after the last one; `how` is for `apply_plan`.

        Nothing is caught: what `apply_plan` raises comes out, and a later `run` may follow.
        """
        self.sleep(3600)
        writer = writer or self.writer()
        with ledger or Ledger(self.url) as opened:
            recover(opened, {self.name: writer}, now=self.now, sleep=self.sleep)
            if observes:
                self.observe(opened, writer)
            plan_id = self.plan(opened, wish)
            return self.apply(opened, plan_id, writer, **how)

    def apply(self, ledger: Ledger, plan_id: str, writer: CrmWriter, **how: Any) -> Run:
        """Apply a plan that is in the ledger."""
        with ledger.lease(holder="a test", now=self.now, seconds=LEASE_SECONDS) as lease:
            applied = apply_plan(
                ledger, plan_id, {self.name: writer}, now=self.now, lease=lease, sleep=self.sleep,
                **{"budget": {}, "bulk_above": {}, **how},
            )  # fmt: skip
        return Run(plan_id, applied, tuple(ledger.intents(plan_id)))

    def observe(self, ledger: Ledger, writer: CrmWriter | None = None) -> Observed:
        """See what people did, as each day's run does first."""
        settings = CrmSettings.model_validate({self.name: self.target.model_dump()})
        writers = {self.name: writer or self.writer()}
        return observe(ledger, writers, settings, now=self.now())

    # Plans

    def plan(self, ledger: Ledger, wish: Wish) -> str:
        """Plan what is still different from a wish, and keep the plan; returns its id."""
        self.sleep(1)  # no two plans of one moment
        known = {task.key: task for task in ledger.tasks()}
        tombstones = ledger.tombstones()
        close = [known[key] for key in wish.closed if key in known]
        new = [task for task in wish.tasks if task.key not in known]
        decisions = Decisions(
            day=self.now().date(),
            episodes=tuple(
                Episode(task.account_id, task.playbook, task.opened_on, "open") for task in new
            ),
            open=tuple(new),
            close=tuple(
                TaskClosing(task.key, task.task_id, task.account_id, "it cleared")
                for task in close
                if task.status in ("planned", "open") and not task.touched
            ),
        )
        plan, intents = make_plan(
            as_of=self.now().date(), lane="daily", made_at=self.now(), now=self.now(),
            changes=self._changes(ledger, wish), decisions=decisions,
            around=Surroundings(
                records={
                    account: CrmRecord(self.name, id, "Ada Lovelace")
                    for account, id in wish.accounts.items()
                },
                people={self.name: People(self.people(), self.owners, ZoneInfo("UTC"))},
                gone=frozenset(tombstones),
                crm_of_task=ledger.crm_of_tasks(),
                carried=tuple(ledger.carried()),
                states=known,
            ),
        )  # fmt: skip
        ledger.store(plan, intents)
        return plan.plan_id

    def _changes(self, ledger: Ledger, wish: Wish) -> Iterator[RecordChange]:
        """Fields that differ from what was acknowledged, and that were not refused as they are."""
        shown = {
            (row["object"], row["record_id"]): orjson.loads(row["values"])
            for row in ledger.confirmed().to_pylist()
        }
        refused, tombstones = ledger.rejections(), ledger.tombstones()
        accounts = {id: account for account, id in wish.accounts.items()}
        done = set[Record]()
        for (object, first), values in wish.fields.items():
            id: str | None = first
            while id is not None and (self.name, id) in tombstones:
                id = tombstones[self.name, id]
            record = (object, id or "")
            if id is None or record in done or (id != first and record in wish.fields):
                continue
            done.add(record)
            acknowledged = shown.get(record, {})
            never = refused.get((self.name, object, id), {})
            changes = tuple(
                FieldChange(name, acknowledged.get(name), value, "it changed")
                for name, value in values.items()
                if acknowledged.get(name, "never written") != value
                and never.get(name, "never refused") != value
            )
            if changes:
                yield RecordChange(self.name, object, id, accounts[first], changes)

    def start(
        self, accounts: int = 6, opportunities: int = 3, tasks: int = 5, closings: int = 3
    ) -> Wish:
        """Wishes for so many records, tasks to open and tasks to close, which are open by now."""
        chosen = self.account_ids()[: max(accounts, tasks)]
        deals = self.opportunity_ids()[:opportunities]
        of = {f"A-{id}": id for id in (*chosen, *deals)}
        drafts = [_draft(f"A-{id}", number) for number, id in enumerate(chosen * 2)]
        wish = Wish(
            fields={("account", id): _fields("account", n) for n, id in enumerate(chosen[:accounts])}
            | {("opportunity", id): _fields("opportunity", n) for n, id in enumerate(deals)},
            tasks=tuple(drafts[:tasks]),
            accounts=of,
        )
        if closings:
            former = tuple(drafts[tasks : tasks + closings])
            assert len(former) == closings
            first = self.run(Wish({}, former, accounts=of))
            assert first.states() == {"written": closings}
            wish = replace(wish, closed=tuple(task.key for task in former))
        self.box.log.clear()
        return wish

    # What was asked of the CRM, and what it shows

    def sent(self, path: str = "") -> int:
        """How many write requests there were, to a path if one is given."""
        return sum(
            self.is_write(request) and re.search(path, request.path) is not None
            for request in self.box.log
            if request.vendor == self.name
        )

    def is_write(self, request: Request) -> bool:
        """Whether a request changes anything."""
        raise NotImplementedError

    def account_ids(self) -> list[str]:
        """Accounts that are there, sorted."""
        raise NotImplementedError

    def opportunity_ids(self) -> list[str]:
        """Opportunities that are there, sorted."""
        raise NotImplementedError

    def people(self) -> list[Owner]:
        """Who may own tasks; the CSM of all accounts is there."""
        raise NotImplementedError

    def shown(self) -> Shown:
        """What the CRM shows of us, now."""
        raise NotImplementedError

    def written(self) -> list[tuple[str, str, frozenset[str], bool]]:
        """Everything that was written by the API: object, id, fields, and whether it was made."""
        raise NotImplementedError

    def ours(self, object: CrmObject) -> dict[str, str]:
        """The names of the fields that may be written on an object, by field."""
        names = names_of(self.name, self.target, object)
        return {f.name: names[f.name] for f in written_on(object) if f.name in names}

    # What people do there

    def edit(self, object: CrmObject, id: str, field: str, value: Any) -> None:
        """Somebody changes a field of a record."""
        raise NotImplementedError

    def change_task(self, key: str, how: str) -> None:
        """Somebody takes up a task: completed, deleted, renamed, reassigned or postponed."""
        raise NotImplementedError

    def delete(self, account: str) -> None:
        """Somebody deletes an account."""
        raise NotImplementedError

    def merge(self, loser: str, winner: str) -> str:
        """Somebody merges an account into another; the id under which both live on."""
        raise NotImplementedError

    def refuse(
        self, what: str, code: str, ids: Sequence[str], *, times: int | None = None
    ) -> None:
        """Records (accounts by id, tasks by key) that are refused: ``account`` or ``task``."""
        raise NotImplementedError


class SalesforceCrm(Crm):
    """The sandbox's Salesforce."""

    name = "salesforce"
    update = {"account": "composite/sobjects$", "opportunity": "composite/sobjects$"}
    create = change = "composite/sobjects$"
    tables: Mapping[CrmObject, str] = {"account": "Account", "opportunity": "Opportunity"}

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
        """The id of a task of ours, deleted or not."""
        return next(row.id for row in self._rows("Task") if row.body.get("HL_Key__c") == key)

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

    def refuse(self, what: str, code: str, ids: Sequence[str], *, times: int | None = None) -> None:
        from connectors.sandbox.vendors.salesforce_rules import refuse

        table = {"account": "Account", "opportunity": "Opportunity", "task": "Task"}[what]
        refuse(
            self.box, table, code, ids=ids, times=times, message=f"Ada {PERSONAL} said no",
            fields=["HL_Risk_Score__c"],
        )  # fmt: skip


class HubSpotCrm(Crm):
    """The sandbox's HubSpot."""

    name = "hubspot"
    update = {"account": "companies/batch/update", "opportunity": "deals/batch/update"}
    create = "tasks/batch/create"
    change = "tasks/batch/update"
    tables: Mapping[CrmObject, str] = {"account": "companies", "opportunity": "deals"}

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
        return [
            Owner(row.id, name, not row.deleted) for row, name in zip(rows, names, strict=True)
        ]

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
        """The id of a task of ours, deleted or not."""
        rows = self._rows("tasks", deleted=True)
        return next(row.id for row in rows if row.body["properties"].get(portal.KEY) == key)

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

    def refuse(self, what: str, code: str, ids: Sequence[str], *, times: int | None = None) -> None:
        type = {"account": "companies", "opportunity": "deals", "task": "tasks"}[what]
        portal.order(
            self.box, "reject", object=type, ids=ids, times=times, code=code,
            message=f"Ada {PERSONAL} said no",
        )  # fmt: skip


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


def _fields(object: CrmObject, number: int) -> Values:
    """Values for one record; two records never have the same."""
    if object == "opportunity":
        return {"risk_score": str(30 + number), "risk_band": "green"}
    return {
        "risk_score": str(70 + number), "risk_band": "red", "risk_as_of": "2026-06-30",
        "risk_reasons": f"The champion, Ada {PERSONAL}, has left ({number})",
        "upsell_score": None,
    }  # fmt: skip


def _draft(account_id: str, number: int) -> TaskDraft:
    opened_on = NOW.date()
    name = f"{PLAYBOOK}-{number}"
    return TaskDraft(
        key=task_key(
            tenant="acme", account_id=account_id, playbook=name, opened_on=opened_on, task="1"
        ),
        account_id=account_id, playbook=name, opened_on=opened_on, task="1", role="csm",
        owner="Ada Lovelace", subject=f"Find who follows Ada {PERSONAL} ({number})",
        reasons=(f"Ada {PERSONAL} has left",), steps=("Ask around", "Call them"), due_in_days=2,
        priority="high", value_at_risk=1000.0, why="the champion has left",
    )  # fmt: skip


# What has to hold


def check(crm: Crm, wish: Wish, *, more_records: Sequence[str] = ()) -> None:
    """What holds after every run, whatever broke in it, also after one that did not end.

    Every intent of a plan that was applied has one end, and the sums hold. No task was made twice.
    Nothing but our own fields was written, on no other records than was wished for (or
    `more_records`). No reason repeats a text of the CRM or of ours.
    """
    with Ledger(crm.url) as ledger:
        for plan in ledger.plans(100):
            intents = ledger.intents(plan.plan_id)
            if plan.status == "applied":
                states = Counter(intent.state for intent in intents)
                open_batches = {i.number for b in ledger.sent() for i in b.intents}
                assert set(states) <= set(END_STATES), (states, open_batches)
                assert sum(states.values()) == sum(
                    plan.totals[name] for name in ("records", "tasks_to_open", "tasks_to_close")
                ) + _carried(ledger, plan.plan_id, plan.totals)
            for intent in intents:
                assert_nothing_personal(intent.reason)
    made = Counter[str]()
    ids = {*wish.accounts.values(), *more_records}
    tasks = {crm.task_id(key): key for key in crm.shown()[1]}
    tables = {table: object for object, table in crm.tables.items()}
    for table, id, names, is_new in crm.written():
        if table in tables:
            assert names <= set(crm.ours(tables[table]).values()), (table, names)
            assert id in ids, f"{table} {id} was nobody's wish"
            continue
        assert table in ("Task", "tasks"), table
        if is_new:
            made[tasks[id]] += 1
        else:
            assert names <= {"Status", "hs_task_status"}
            assert tasks[id] in wish.closed, "a task was changed that nobody wished to be closed"
    assert set(made) <= {*wish.keys, *wish.closed}
    assert not made or max(made.values()) == 1, f"made twice: {made}"
    assert len(tasks) == len(_keys_in_crm(crm)), "two tasks bear one key"


def _carried(ledger: Ledger, plan_id: str, totals: Mapping[str, int]) -> int:
    return 0


def _keys_in_crm(crm: Crm) -> list[str]:
    if isinstance(crm, SalesforceCrm):
        found = [row.body.get("HL_Key__c") for row in crm._rows("Task")]
    else:
        rows = portal.collection(crm.box, "tasks").rows(math.inf, deleted=True)
        found = [row.body["properties"].get(portal.KEY) for row in rows]
    return [key for key in found if key]


def assert_nothing_personal(text: str | None) -> None:
    """No name, no secret: neither what was written, nor what a CRM said, nor how we log in."""
    for secret in (PERSONAL, "sandbox-", "Find who follows", org_server.CONSUMER_SECRET):
        assert secret not in (text or ""), text


def check_converged(
    crm: Crm, wish: Wish, wanted: Shown, *, observes: bool = False, **how: Any
) -> Run:
    """A clean run comes to the state that there would be without any fault, and a further one is
    quiet: it plans nothing and writes nothing. Returns the clean run."""
    crm.box.faults.clear()
    clean = crm.run(wish, observes=observes, **how)
    assert clean.applied.failed is None, clean.applied
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish, observes=observes)
    return clean


def check_quiet(crm: Crm, wish: Wish, *, observes: bool = False) -> None:
    """A further run plans nothing and writes nothing."""
    before = crm.sent()
    further = crm.run(wish, observes=observes)
    assert further.intents == ()
    assert crm.sent() == before
    with Ledger(crm.url) as ledger:
        assert ledger.sent() == []


def assert_alike(shown: Shown, wanted: Shown) -> None:
    """Field by field and task by task."""
    for found, wished in zip(shown, wanted, strict=True):
        assert found.keys() == wished.keys()
        for name, values in wished.items():  # type: ignore[attr-defined]
            assert found[name] == values, name  # type: ignore[index]


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
