"""Episodes and tasks: what scoring decides, the ledger keeps and a CRM is told.

An episode is one time that a playbook's trigger held for one account. It opens on a day, and that
day names it for ever: ``(account, playbook, opened_on)``. Each task of an episode has a key made of
nothing else, so whoever decides it again, after whatever crash, decides the same key.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Literal

Arm = Literal["treated", "holdout"]
EpisodeState = Literal["waiting", "open", "closed"]
"""`waiting`: the trigger holds, but its owner's week is full. `closed` is for ever."""

TaskStatus = Literal["planned", "open", "completed", "deleted", "closed"]
"""`planned`: not yet acknowledged. `completed`, `deleted`: by a human. `closed`: by us."""

Priority = Literal["high", "normal", "low"]

EpisodeKey = tuple[str, str, dt.date]
"""Account id and playbook; and the day on which an episode of them opened."""

ESCALATION = "escalation"
MOST_TASKS = 9
TASKS = (*map(str, range(1, MOST_TASKS + 1)), ESCALATION)
"""The places that a task may have in a playbook."""


def task_key(*, tenant: str, account_id: str, playbook: str, opened_on: dt.date, task: str) -> str:
    """The unique key of a task in the CRM: 64 hexadecimal digits.

    >>> task_key(tenant="acme", account_id="A1", playbook="champion-left",
    ...          opened_on=dt.date(2026, 6, 30), task="1")[:12]
    'f9c479f36084'
    """
    text = "|".join((tenant, account_id, f"{playbook}/{task}", opened_on.isoformat()))
    return hashlib.sha256(text.encode()).hexdigest()


def named_episode(name: str) -> EpisodeKey | None:
    """The episode of a name, as `Episode.name` makes it; None for what is no such name.

    >>> named_episode("champion-left/2026-06-30/A/1")
    ('A/1', 'champion-left', datetime.date(2026, 6, 30))
    """
    playbook, _, rest = name.partition("/")
    day, _, account_id = rest.partition("/")
    try:
        opened_on = dt.date.fromisoformat(day)
    except ValueError:
        return None
    return (account_id, playbook, opened_on) if playbook and account_id else None


def is_key_of(key: str, *, tenant: str, episode: str) -> bool:
    """Whether a key is that of some task of an episode, which is given by its name, of a tenant.

    >>> is_key_of("f9c479f36084" + 52 * "0", tenant="acme", episode="champion-left/2026-06-30/A1")
    False
    """
    named = named_episode(episode)
    if named is None:
        return False
    account_id, playbook, opened_on = named
    return key in (
        task_key(
            tenant=tenant, account_id=account_id, playbook=playbook, opened_on=opened_on, task=task
        )
        for task in TASKS
    )


@dataclass(frozen=True)
class Episode:
    """One episode, as it is to be kept."""

    account_id: str
    playbook: str
    opened_on: dt.date
    state: EpisodeState
    arm: Arm = "treated"
    closed_on: dt.date | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """What people and the CRM's episode field read: ``champion-left/2026-06-30/ACC-00042``."""
        return f"{self.playbook}/{self.opened_on}/{self.account_id}"

    @property
    def episode_key(self) -> EpisodeKey:
        """What tells it from all others."""
        return self.account_id, self.playbook, self.opened_on


@dataclass(frozen=True)
class TaskState:
    """A task that was decided before: what is known of it now.

    `touched` says that a human renamed, reassigned, postponed, completed or deleted it; such a
    task is left as it is. `due_on` and `owner_id` are as the CRM shows them now, and `owner_now` is
    who has it since somebody handed it on. `decided_on` is the day on which it was decided, which
    is what counts against the week of its first `owner`.
    """

    key: str
    account_id: str
    playbook: str
    opened_on: dt.date
    task: str
    status: TaskStatus
    touched: bool = False
    due_on: dt.date | None = None
    owner: str | None = None
    owner_id: str | None = None
    task_id: str | None = None
    decided_on: dt.date | None = None
    subject: str = ""
    owner_now: str | None = None

    @property
    def episode_key(self) -> EpisodeKey:
        """The episode that it belongs to."""
        return self.account_id, self.playbook, self.opened_on


@dataclass(frozen=True)
class TaskDraft:
    """A task to open.

    Attributes:
        task: Its place in the playbook ("1", "2", ... or "escalation").
        role: Who should do it: csm, sales, csm_manager, or ``queue:<name>``.
        owner: The person of that role at this account, by name as `signals.accounts` has it; None
            where nobody is known, or for a queue.
        subject: One line.
        reasons: Why, as sentences.
        steps: What to do, in order.
        due_in_days: Days from the day it is sent, in its owner's time zone.
        value_at_risk: Revenue a year in the company's currency; ranks the owner's week.
        why: What the trigger saw, for the plan.
    """

    key: str
    account_id: str
    playbook: str
    opened_on: dt.date
    task: str
    role: str
    owner: str | None
    subject: str
    reasons: tuple[str, ...]
    steps: tuple[str, ...]
    due_in_days: int
    priority: Priority
    value_at_risk: float
    why: str

    @property
    def episode(self) -> str:
        """The name of its episode."""
        return f"{self.playbook}/{self.opened_on}/{self.account_id}"


@dataclass(frozen=True)
class TaskClosing:
    """An open task that no human touched and that is no longer needed."""

    key: str
    task_id: str | None
    account_id: str
    why: str


@dataclass(frozen=True)
class TaskLeft:
    """A task that stays as it is, and why: a human has it in hand, or its condition holds."""

    key: str
    account_id: str
    why: str


@dataclass(frozen=True)
class Decisions:
    """What a day's triggers mean, given what is open.

    `episodes` are the new and changed ones; they are kept before anything is sent.
    """

    day: dt.date
    episodes: tuple[Episode, ...] = ()
    open: tuple[TaskDraft, ...] = ()
    close: tuple[TaskClosing, ...] = ()
    leave: tuple[TaskLeft, ...] = ()
