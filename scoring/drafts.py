"""What a task says: who does what by when and why, as a playbook has it, for one account."""

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from contracts.actions import ESCALATION, Arm, Episode, TaskDraft, TaskState, task_key
from scoring.config.playbooks import LONGEST_SUBJECT, Playbook, PlaybookTask
from scoring.templates import MEASURE, filled, one_line, shown


@dataclass(frozen=True)
class Account:
    """What a task has to know of an account; ARR is in the company's currency."""

    account_id: str
    name: str | None = None
    owner: str | None = None
    sales_owner: str | None = None
    segment: str = ""
    stage: str = ""
    plan: str | None = None
    arr: float | None = None
    renews_on: dt.date | None = None


@dataclass(frozen=True)
class Trigger:
    """What a day says of one playbook at one account.

    Attributes:
        state: whether its condition holds, does not, or cannot be judged.
        days: scored days in a row on which it held, this one included.
        clears: whether an open episode clears; None where that cannot be judged.
        why: what it saw, in one line.
        value: revenue a year that is at stake.
        reasons: sentences for the task, strongest first.
        measures: the metrics that the task's text asks for.
    """

    account_id: str
    playbook: str
    state: Literal["holds", "not", "undetermined"]
    days: int = 1
    clears: bool | None = False
    why: str = ""
    value: float = 0.0
    reasons: tuple[str, ...] = ()
    measures: Mapping[str, float | None] = field(default_factory=dict)


def arm_of(tenant: str, playbook: str, account: Account, share: float) -> Arm:
    """Whether an account is held out, drawn by hash within its segment and stage.

    The same account falls into the same arm whenever it is asked, as long as its profile is the
    same. With a share of 0.1 one account in ten is held out, give or take what a hash does.
    """
    text = "|".join((tenant, playbook, account.segment, account.stage, account.account_id))
    digest = hashlib.sha256(f"arm|{text}".encode(errors="surrogatepass")).digest()
    drawn = int.from_bytes(digest[:8], "big") / 2**64
    return "holdout" if drawn < share else "treated"


@dataclass(frozen=True)
class Case:
    """Everything that the tasks of one episode are made of."""

    tenant: str
    playbook: Playbook
    account: Account
    trigger: Trigger
    episode: Episode


def all_drafts(case: Case) -> list[TaskDraft]:
    """The tasks of an episode, in the order of its playbook."""
    return [_draft(case, str(n), task) for n, task in enumerate(case.playbook.tasks, 1)]


def escalation_draft(case: Case, first: TaskState, day: dt.date) -> TaskDraft:
    """The task that tells a manager that the first one is not done."""
    rule, task = case.playbook.escalate, case.playbook.tasks[0]
    assert rule is not None
    days = (day - (first.decided_on or first.opened_on)).days
    draft = _draft(case, ESCALATION, task)
    return replace(
        draft,
        role=rule.to,
        owner=owner_of(case.account, rule.to),
        subject=one_line(f"Not done in {days} days: {first.subject}", LONGEST_SUBJECT),
        steps=("Ask what is in the way; help, or hand it on", *draft.steps),
        due_in_days=1,
        priority="high",
    )


def _draft(case: Case, name: str, task: PlaybookTask) -> TaskDraft:
    episode, trigger = case.episode, case.trigger
    values = _values(case.account, trigger)
    return TaskDraft(
        key=task_key(
            tenant=case.tenant, account_id=episode.account_id, playbook=episode.playbook,
            opened_on=episode.opened_on, task=name,
        ),
        account_id=episode.account_id,
        playbook=episode.playbook,
        opened_on=episode.opened_on,
        task=name,
        role=task.owner,
        owner=owner_of(case.account, task.owner),
        subject=one_line(filled(task.subject, values), LONGEST_SUBJECT),
        reasons=trigger.reasons or (trigger.why,),
        steps=tuple(filled(step, values) for step in task.steps),
        due_in_days=task.due,
        priority=task.priority,
        value_at_risk=trigger.value,
        why=trigger.why,
    )  # fmt: skip


def owner_of(account: Account, role: str) -> str | None:
    """Who has a role at an account; managers and queues are found where the task is written."""
    return {"csm": account.owner, "sales": account.sales_owner}.get(role) or None


def owners_of(case: Case) -> list[str | None]:
    """Who would get the tasks of an episode, in the order of its playbook."""
    return [owner_of(case.account, task.owner) for task in case.playbook.tasks]


def _values(account: Account, trigger: Trigger) -> dict[str, str | None]:
    """What the placeholders of a task stand for."""
    return {
        "account.name": account.name or account.account_id,
        "account.owner": account.owner,
        "account.sales_owner": account.sales_owner,
        "account.segment": account.segment,
        "account.stage": account.stage,
        "account.plan": account.plan,
        "account.arr": shown(account.arr),
        "account.renews_on": account.renews_on.isoformat() if account.renews_on else None,
        "reason": (trigger.reasons or (trigger.why,))[0],
        **{f"{MEASURE}{name}": shown(value) for name, value in trigger.measures.items()},
    }
