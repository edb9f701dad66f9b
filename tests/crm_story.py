"""Five evenings of a company and its CRM, told once for a session; the tests ask what happened.

======== ===========================================================================================
quiet     nothing has happened since everything was written
news      P1 tickets at one account, facts of a handoff, an override, edited fields, tasks in hand
cleared   the tickets are solved, an account is deleted and two are merged
dark      the help desk has refused us for ten days, while a P1 ticket was opened that nobody sees
approved  a person has let the plan of that evening go
======== ===========================================================================================
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crm_company import DAY, HOUR, CrmCompany, opened, written_company
from demo_company import copy_of, made_once

from connectors.crm.plans import Drift, Intent, Plan
from connectors.crm.writing import CrmName
from contracts.actions import TaskState
from contracts.crm_fields import FIELDS
from orchestration.runs import Run
from tests.faults.crm_writes import Shown

Record = tuple[str, str]
HANDS = ("completed", "reassigned", "renamed", "postponed", "deleted")
"""What people do with a task."""
CANARY = "canary-4b7e-words-of-a-customer"
OVERRIDE_REASON = "The sponsor has left"


@dataclass(frozen=True)
class Evening:
    """What the daily run of an evening found, did and left behind.

    `written` are the names of our fields that were sent, by record; `made` the keys of new tasks.
    """

    ran: Run | None
    requests: int
    written: Mapping[Record, set[str]]
    made: set[str]
    before: Shown
    after: Shown
    plan: Plan
    intents: tuple[Intent, ...]
    drift: tuple[Drift, ...]
    tasks: Mapping[str, TaskState]

    def changed(self) -> dict[Record, set[str]]:
        """The fields that show another value than before, by record."""
        old, new = self.before[0], self.after[0]
        found = {
            record: {
                field
                for field in {*old.get(record, {}), *values}
                if old.get(record, {}).get(field) != values.get(field)
            }
            for record, values in new.items()
        }
        return {record: fields for record, fields in found.items() if fields}

    def values(self, record: Record) -> dict[str, Any]:
        """Our fields of a record afterwards."""
        return self.after[0].get(record, {})

    def new_episodes(self) -> set[str]:
        """The episodes of the tasks that are there now and were not before."""
        return {self.after[1][key]["episode"] for key in self.after[1].keys() - self.before[1]}


@dataclass(frozen=True)
class Story:
    """A company folder as the last evening left it, who was in it, and the evenings by name.

    `cast` has the accounts: hit, sold, doubted, edited, deleted, loser, winner, unseen, and one
    for each of `HANDS`. `records` has the CRM's ids of all accounts on the quiet day.
    """

    crm: CrmName
    home: Path
    cast: Mapping[str, str]
    records: Mapping[str, str]
    deal: str
    hands: Mapping[str, str]
    successor: str
    evenings: Mapping[str, Evening]

    def __getattr__(self, name: str) -> Evening:
        try:
            return self.__dict__["evenings"][name]
        except KeyError:
            raise AttributeError(name) from None

    def record(self, who: str) -> Record:
        """The account's record of somebody in the cast."""
        return ("account", self.records[self.cast[who]])


def story_of(tmp_path_factory: pytest.TempPathFactory, crm: CrmName) -> Story:
    """The story, told once for all workers of a session; never change its folder."""
    written = written_company(tmp_path_factory, crm)

    def make(home: Path) -> None:
        home.mkdir()
        with opened(copy_of(written, home), crm) as company:
            story = _told(company)
        (home / "story.pickle").write_bytes(pickle.dumps(story))

    home = made_once(tmp_path_factory, f"story-{crm}", make)
    return pickle.loads((home / "story.pickle").read_bytes())


def evening_of(
    company: CrmCompany, *, by: Callable[[CrmCompany], Run | None] = CrmCompany.run
) -> Evening:
    """Let the daily run come, or what else is done of an evening, and see what it did."""
    crm = company.crm
    before, sent, count = crm.shown(), company.writes, len(crm.written())
    ran = by(company)
    names = {
        table: {api: name for name, api in crm.ours(object).items()}
        for object, table in crm.tables.items()
    }
    written: dict[Record, set[str]] = {}
    objects = {table: object for object, table in crm.tables.items()}
    for table, id, fields, _ in crm.written()[count:]:
        if table in objects:
            sent_now = {names[table][api] for api in fields}
            written.setdefault((objects[table], id), set()).update(sent_now)
    after = crm.shown()
    with company.ledger() as ledger:
        plan = ledger.plan(company.plan_id())
        intents, drift = tuple(ledger.intents(plan.plan_id)), tuple(ledger.drift())
        tasks = {task.key: task for task in ledger.tasks()}
    return Evening(
        ran, company.writes - sent, written, {*after[1]} - {*before[1]}, before, after, plan,
        intents, drift, tasks,
    )  # fmt: skip


def _told(company: CrmCompany) -> Story:
    company.next_evening()
    evenings = {"quiet": evening_of(company)}
    cast, records = _cast(company), company.records()
    ((deal,),) = company.rows(
        "SELECT opportunity_id FROM signals.opportunities WHERE account_id = ? AND kind = 'new' "
        "AND won AND superseded_at IS NULL", cast["sold"],
    )  # fmt: skip
    tasks = {task["record"] if isinstance(task["record"], str) else task["record"][0]: task["key"]
             for task in company.tasks()}  # fmt: skip
    hands = {hand: tasks[records[cast[hand]]] for hand in HANDS}
    company.later(HOUR)
    tickets = _news(company, cast, records, deal, hands)
    company.next_evening()
    evenings["news"] = evening_of(company)
    company.later(HOUR)
    for ticket in tickets:
        company.solve_ticket(ticket)
    company.crm.delete(records[cast["deleted"]])
    successor = company.crm.merge(records[cast["loser"]], records[cast["winner"]])
    company.next_evening()
    evenings["cleared"] = evening_of(company)
    company.later(HOUR)
    company.box.faults.add(vendor="zendesk", do="status", code=401, times=None)
    for _ in range(2):
        company.open_ticket(cast["unseen"], text=CANARY)
    for _ in range(10):
        company.next_evening()
    evenings["dark"] = evening_of(company, by=lambda company: company.run(accept=True))
    company.later()
    evenings["approved"] = evening_of(company, by=_approve)
    return Story(company.crm.name, company.home, cast, records, deal, hands, successor, evenings)


def _approve(company: CrmCompany) -> None:
    for command in (f"plan approve {company.plan_id()}", "apply"):
        answer = company.healthloop(command)
        assert answer.code == 0, answer.both


def _cast(company: CrmCompany) -> dict[str, str]:
    ((sold,),) = company.rows(
        "SELECT account_id FROM signals.opportunities WHERE kind = 'new' AND won "
        "AND superseded_at IS NULL AND closed_at > ?", company.day - 80 * DAY,
    )  # fmt: skip
    offered = {task["episode"].rpartition("/")[2] for task in company.tasks()}
    calm = [account for account in company.calm_accounts() if account in offered]
    parts = ("hit", "doubted", "edited", "deleted", "loser", "winner", "unseen", *HANDS)
    return {"sold": sold, **dict(zip(parts, calm, strict=False))}


def _news(
    company: CrmCompany,
    cast: Mapping[str, str],
    records: Mapping[str, str],
    deal: str,
    hands: Mapping[str, str],
) -> list[str]:
    """What happens on the day after the quiet day; the ids of the tickets."""
    crm = company.crm
    tickets = [company.open_ticket(cast["hit"], text=CANARY) for _ in range(2)]
    company.type_in("opportunity", deal, **{
        _api(crm.name, "handoff_promised_outcome"): "Half the time",
        _api(crm.name, "handoff_success_criteria"): None,
        _api(crm.name, "handoff_stakeholders_met"): 9,
    })  # fmt: skip
    company.type_in("account", records[cast["doubted"]], **{
        _api(crm.name, "override_score"): 90,
        _api(crm.name, "override_reason"): OVERRIDE_REASON,
        _api(crm.name, "override_until"): "2026-07-31",
    })  # fmt: skip
    for who in ("edited", "hit"):
        crm.edit("account", records[cast[who]], "risk_score", 55)
    for hand, key in hands.items():
        crm.change_task(key, hand)
    return tickets


def _api(crm: CrmName, field: str) -> str:
    return str(getattr(FIELDS[field], crm))
