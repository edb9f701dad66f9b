"""Each person's week: what to do and why, what waits for room, and what was done."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from contracts.actions import ESCALATION, Episode, TaskState
from scoring.config.playbooks import Playbook
from scoring.drafts import Account, owner_of
from scoring.episodes import ALIVE, Pair
from scoring.templates import one_line

NOBODY = "(nobody known)"
_ORDER = {"to do": 0, "waiting": 1, "done": 2}


@dataclass(frozen=True)
class QueueEntry:
    """One line of somebody's week.

    Attributes:
        owner: the person, or the role where the CRM decides who that is.
        state: `waiting` has no task yet, because the owner's week is full.
        what: the task, or the playbook that waits.
        why: what its trigger saw.
        since: the day on which its episode opened.
        value: revenue a year that is at stake, in the company's currency.
    """

    owner: str
    state: Literal["to do", "waiting", "done"]
    account: str
    what: str
    why: str
    since: dt.date
    due: dt.date | None
    value: float | None
    playbook: str
    account_id: str


def queue(
    *,
    day: dt.date,
    playbooks: Mapping[str, Playbook],
    accounts: Mapping[str, Account],
    values: Mapping[Pair, float],
    episodes: Iterable[Episode],
    tasks: Iterable[TaskState],
    owner: str | None = None,
) -> list[QueueEntry]:
    """Everybody's week, or one person's (by name, capitals or not), most value first.

    `done` are the tasks that people completed of episodes that are open, or that opened or closed
    in the calendar week of `day`.
    """
    week = _Weeks(day, playbooks, accounts, values)
    by_key = {episode.episode_key: episode for episode in episodes}
    entries = [
        entry for task in tasks if (entry := week.of_task(task, by_key.get(task.episode_key)))
    ]
    for episode in by_key.values():
        if episode.state == "waiting" and episode.playbook in playbooks:
            entries += week.of_waiting(episode)
    if owner is not None:
        entries = [entry for entry in entries if entry.owner.casefold() == owner.casefold()]
    return sorted(
        entries,
        key=lambda e: (e.owner, _ORDER[e.state], -(e.value or 0), e.since, e.account_id, e.what),
    )


@dataclass(frozen=True)
class _Weeks:
    day: dt.date
    playbooks: Mapping[str, Playbook]
    accounts: Mapping[str, Account]
    values: Mapping[Pair, float]

    def of_task(self, task: TaskState, episode: Episode | None) -> QueueEntry | None:
        """A task that is to be done, or was; None for one that no longer matters this week."""
        if task.status in ALIVE:
            state: Literal["to do", "done"] = "to do"
        elif task.status == "completed" and self._matters(task, episode):
            state = "done"
        else:
            return None
        return QueueEntry(
            owner=task.owner_now or task.owner or self._role(task),
            state=state,
            account=self._name(task.account_id),
            what=one_line(task.subject or task.playbook, 255),
            why=episode.why if episode else "",
            since=task.opened_on,
            due=task.due_on,
            value=self._value(task.account_id, task.playbook),
            playbook=task.playbook,
            account_id=task.account_id,
        )

    def of_waiting(self, episode: Episode) -> list[QueueEntry]:
        """What an episode would give to whom, if there were room."""
        account = self.accounts.get(episode.account_id, Account(episode.account_id))
        roles = dict.fromkeys(task.owner for task in self.playbooks[episode.playbook].tasks)
        room = "there is room" if len(roles) == 1 else "all who share it have room"
        return [
            QueueEntry(
                owner=owner_of(account, role) or _said(role),
                state="waiting",
                account=self._name(episode.account_id),
                what=f"{episode.playbook}, when {room}",
                why=episode.why,
                since=episode.opened_on,
                due=None,
                value=self._value(episode.account_id, episode.playbook),
                playbook=episode.playbook,
                account_id=episode.account_id,
            )
            for role in roles
        ]

    def _matters(self, task: TaskState, episode: Episode | None) -> bool:
        if episode is None or episode.state != "closed":
            return True
        days = (task.decided_on, episode.opened_on, episode.closed_on)
        return any(
            d is not None and d.isocalendar()[:2] == self.day.isocalendar()[:2] for d in days
        )

    def _role(self, task: TaskState) -> str:
        playbook = self.playbooks.get(task.playbook)
        if playbook is None:
            return NOBODY
        if task.task == ESCALATION:
            return _said(playbook.escalate.to) if playbook.escalate else NOBODY
        number = int(task.task) if task.task.isdigit() else 0
        if not 1 <= number <= len(playbook.tasks):
            return NOBODY
        return _said(playbook.tasks[number - 1].owner)

    def _name(self, account_id: str) -> str:
        account = self.accounts.get(account_id)
        return one_line(account.name or account_id) if account else one_line(account_id)

    def _value(self, account_id: str, playbook: str) -> float | None:
        account = self.accounts.get(account_id)
        return self.values.get((account_id, playbook), account.arr if account else None)


def _said(role: str) -> str:
    """A role that stands for nobody by name: ``csm_manager`` -> ``(csm manager)``."""
    return f"({role.replace('_', ' ')})"
