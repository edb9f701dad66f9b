"""A CRM that is written to, and runs of those who write into it, as the days go by."""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import orjson

from connectors.crm.applying import Applied, apply_plan, recover
from connectors.crm.ledger import Ledger
from connectors.crm.observing import Observed, observe
from connectors.crm.people import People
from connectors.crm.planning import CrmRecord, Surroundings, make_plan
from connectors.crm.plans import END_STATES, FieldChange, FieldChanges, Intent, RecordChange
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
from connectors.sandbox.servers.faults import Rule
from connectors.sandbox.vendors import salesforce as org_server
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
TENANT = "acme"

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
        owners: Who takes tasks, as `crm.yaml` says.
    """

    name: CrmName
    tables: ClassVar[Mapping[CrmObject, str]]
    """What the CRM calls accounts and opportunities."""
    calls: ClassVar[Mapping[str, tuple[str, str | None]]]
    """Path and content of the calls that write, as regular expressions: ``accounts``,
    ``opportunities``, ``open`` (tasks) and ``close``."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.batch_size = 4
        self.settings: dict[str, Any] = {}
        self.target = target_of(self.name)
        self.owners = Owners()

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

    def run_until_lost(self, wish: Wish, call: str) -> Run:
        """A run in which one call of a sort is done and not answered, and all after it fails."""
        self.box.faults.clear()

        def lost(body: bytes) -> bytes:
            self.box.faults.add(vendor=self.name, do="status", code=503, times=None)
            return b"<h1>Bad gateway</h1>"

        self.spoil(call, "rewrite", rewrite=lost)
        return self.run(wish)

    def apply(self, ledger: Ledger, plan_id: str, writer: CrmWriter, **how: Any) -> Run:
        """Apply a plan that is in the ledger."""
        with ledger.lease(holder="a test", now=self.now, seconds=LEASE_SECONDS) as lease:
            applied = apply_plan(
                ledger, plan_id, {self.name: writer}, now=self.now, lease=lease, sleep=self.sleep,
                **{"budget": {}, "bulk_above": {}, **how},
            )  # fmt: skip
        intents = tuple(ledger.intents(plan_id))
        assert sum(applied.total(state) for state in END_STATES) == len(intents)
        assert Counter(i.state for i in intents) == {
            state: count for state in END_STATES if (count := applied.total(state))
        }
        for text in (applied.failed, *applied.degraded, *applied.refused):
            assert_nothing_personal(text)
        return Run(plan_id, applied, intents)

    def observe(self, ledger: Ledger, writer: CrmWriter | None = None) -> Observed:
        """See what people did, as each day's run does first."""
        settings = CrmSettings.model_validate({self.name: self.target.model_dump()})
        writers = {self.name: writer or self.writer()}
        return observe(ledger, writers, settings, tenant=TENANT, now=self.now())

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
            for table in ledger.confirmed()
            for row in table.to_pylist()
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
            changes = FieldChanges.of(
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
            fields={
                (object, id): _fields(object, number)
                for object, ids in (("account", chosen[:accounts]), ("opportunity", deals))
                for number, id in enumerate(ids)
            },
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
        """Who may own tasks; the first is the CSM of all accounts."""
        raise NotImplementedError

    def task_id(self, key: str) -> str:
        """The id of a task of ours, deleted or not."""
        raise NotImplementedError

    def task_keys(self) -> list[str]:
        """The keys that tasks bear, as often as they bear them, deleted tasks too."""
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

    def spoil(self, call: str, do: str, *, asks: str | None = None, **how: Any) -> Rule:
        """Order a fault for the calls of one sort; the rule's `seen` counts them all."""
        path, content = self.calls[call]
        return self.box.faults.add(vendor=self.name, path=path, asks=asks or content, do=do, **how)

    def counted(self, call: str) -> Rule:
        """A rule that does nothing and counts calls of one sort."""
        return self.spoil(call, "delay", seconds=0.0, nth=10_000)

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

    def deactivate(self, owner: str) -> None:
        """Somebody who owns tasks leaves."""
        raise NotImplementedError

    locked: str
    """The code of a record that others have locked."""

    def refuse(self, what: str, code: str, ids: Sequence[str], *, times: int | None = None) -> None:
        """Refuse records of a table or "tasks": by id, tasks by key, each so many times."""
        raise NotImplementedError

    def relent(self) -> None:
        """Refuse nothing any more."""
        raise NotImplementedError


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
            tenant=TENANT, account_id=account_id, playbook=name, opened_on=opened_on, task="1"
        ),
        account_id=account_id, playbook=name, opened_on=opened_on, task="1", role="csm",
        owner="Ada Lovelace", subject=f"Find who follows Ada {PERSONAL} ({number})",
        reasons=(f"Ada {PERSONAL} has left",), steps=("Ask around", "Call them"), due_in_days=2,
        priority="high", value_at_risk=1000.0, why="the champion has left",
    )  # fmt: skip


def assert_nothing_personal(text: str | None) -> None:
    """No name, no secret: neither what was written, nor what a CRM said, nor how we log in."""
    for secret in (PERSONAL, "sandbox-", "Find who follows", org_server.CONSUMER_SECRET):
        assert secret not in (text or ""), text
