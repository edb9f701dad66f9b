"""The life of an episode: what a day's triggers mean for the tasks that people have.

Everything here is a pure function. Its rules, of which the tests hold a plain model:

- One episode an account and playbook; it opens when the trigger has held for its days, and not
  again before its cooldown is over, counted from the day it opened.
- Its tasks are decided once. A task that a human completed, deleted, renamed, handed on or
  postponed stays so, and no other takes its place while the episode is open.
- It clears when its condition does: what nobody touched is closed, by a later plan if one could not
  do it. While a person still has one of its tasks in hand, it stays open.
- When all its tasks are done but its condition still holds, it may begin anew after its cooldown.
- An undetermined trigger does nothing at all.
- Whoever's week is full gets no more: the episode waits, and goes away if it clears first.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from contracts.actions import (
    ESCALATION,
    Decisions,
    Episode,
    EpisodeKey,
    TaskClosing,
    TaskDraft,
    TaskLeft,
    TaskState,
)
from scoring.config.playbooks import Playbook
from scoring.drafts import (
    Account,
    Case,
    Trigger,
    all_drafts,
    arm_of,
    escalation_draft,
    owners_of,
)

ALIVE = ("planned", "open")
FINISHED = ("completed", "deleted")
GONE = "it is no customer any more"
UNUSED = "the playbook is not in use any more"
CLEARED = "cleared"

Pair = tuple[str, str]


@dataclass(frozen=True)
class Capacity:
    """How many tasks a person may get in a calendar week, by default and by name."""

    a_week: int = 10
    by_owner: Mapping[str, int] = field(default_factory=dict)


def decide(
    triggers: Iterable[Trigger],
    *,
    day: dt.date,
    tenant: str,
    playbooks: Mapping[str, Playbook],
    accounts: Mapping[str, Account],
    episodes: Iterable[Episode],
    tasks: Iterable[TaskState],
    capacity: Capacity = Capacity(),
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    reachable: Collection[str] | None = None,
) -> Decisions:
    """What is to be done on a day. The order of what is given changes nothing.

    Args:
        accounts: the customers of the day, at least those that triggers and episodes name. Whoever
            has an episode but is not among them is no customer any more.
        triggers: those that hold, and those of every pair with an episode that is not closed.
        only: accounts to decide about; the episodes of others stay as they are. None: all are.
        without: accounts about which nothing is decided all the same.
        reachable: accounts with a record on which a task can stand; no task is decided for others,
            so none of them takes room in anybody's week. None: all are.
    """
    tasks_of: dict[EpisodeKey, list[TaskState]] = defaultdict(list)
    week = _Week(day, capacity)
    for task in sorted(tasks, key=lambda task: task.key):
        tasks_of[task.episode_key].append(task)
        week.count(task)
    histories: dict[Pair, list[Episode]] = defaultdict(list)
    for episode in sorted(episodes, key=lambda episode: episode.opened_on):
        histories[episode.account_id, episode.playbook].append(episode)
    seen = {(trigger.account_id, trigger.playbook): trigger for trigger in triggers}
    today = _Today(day, tenant, playbooks, accounts, tasks_of, week, reachable)
    for pair in sorted({*histories, *seen}):
        if (only is None or pair[0] in only) and pair[0] not in without:
            today.judge(seen.get(pair), histories.get(pair, []))
    today.open_what_fits()
    return today.decisions()


class _Week:
    """How many tasks each person was given in the calendar week of a day."""

    def __init__(self, day: dt.date, capacity: Capacity) -> None:
        self.of = day.isocalendar()[:2]
        self.capacity = capacity
        self.given: Counter[str] = Counter()

    def count(self, task: TaskState) -> None:
        decided_on = task.decided_on or task.opened_on
        if task.owner and decided_on.isocalendar()[:2] == self.of:
            self.given[task.owner] += 1

    def has_room(self, needed: Counter[str]) -> bool:
        """Whether all of it fits. What is more than a whole week takes an empty one."""
        return all(
            self.given[owner] + count <= limit or self.given[owner] == 0 < limit
            for owner, count in needed.items()
            for limit in [self.capacity.by_owner.get(owner, self.capacity.a_week)]
        )


@dataclass(frozen=True)
class _Candidate:
    """An episode that wants to open, and how many tasks it would give to whom."""

    case: Case
    waited: bool

    @property
    def needed(self) -> Counter[str]:
        return Counter(owner for owner in owners_of(self.case) if owner)

    @property
    def cannot_wait(self) -> bool:
        """Whether something of it is due on the very day: a full week is no reason then."""
        return any(task.due == 0 for task in self.case.playbook.tasks)

    @property
    def rank(self) -> tuple[bool, float, dt.date, str, str]:
        """What cannot wait first, then most value, then who has waited longest."""
        episode = self.case.episode
        return (
            not self.cannot_wait, -self.case.trigger.value, episode.opened_on, episode.account_id,
            episode.playbook,
        )  # fmt: skip


class _Today:
    """Collects a day's decisions, pair by pair."""

    def __init__(
        self,
        day: dt.date,
        tenant: str,
        playbooks: Mapping[str, Playbook],
        accounts: Mapping[str, Account],
        tasks_of: Mapping[EpisodeKey, list[TaskState]],
        week: _Week,
        reachable: Collection[str] | None,
    ) -> None:
        self.day, self.tenant = day, tenant
        self.playbooks, self.accounts, self.reachable = playbooks, accounts, reachable
        self.tasks_of, self.week = tasks_of, week
        self.candidates: list[_Candidate] = []
        self.changed: dict[str, Episode] = {}
        self.drafts: list[TaskDraft] = []
        self.closings: list[TaskClosing] = []
        self.left: list[TaskLeft] = []

    def judge(self, trigger: Trigger | None, history: list[Episode]) -> None:
        """One account and playbook: carry on what is open, then see whether something begins."""
        for episode in history:
            if episode.state == "closed":
                self._close_leftovers(episode)
        ongoing = [self._goes_on(e, trigger) for e in history if e.state != "closed"]
        if any(ongoing) or trigger is None or not self._may_begin(trigger, history):
            return
        playbook, account = self.playbooks[trigger.playbook], self.accounts[trigger.account_id]
        arm = arm_of(self.tenant, trigger.playbook, account, playbook.holdout)
        episode = Episode(
            trigger.account_id, trigger.playbook, self.day, "open", arm, None, trigger.why
        )
        if arm == "holdout":
            self._keep(episode)
        else:
            self._candidate(episode, trigger, waited=False)

    def _goes_on(self, episode: Episode, trigger: Trigger | None) -> bool:
        """Whether an episode that is not closed stays so, and what that means for its tasks."""
        tasks = self._tasks(episode)
        if ended := self._ended(episode):
            self._close_untouched(tasks, ended)
            self._close(episode, ended)
            return False
        if trigger is None or trigger.state == "undetermined":
            self._leave(tasks, "it cannot be judged today")
            return True
        if episode.state == "waiting":
            return self._wait(episode, trigger)
        if trigger.clears:
            return self._clear(episode, trigger, tasks)
        return self._carry_on(episode, trigger, tasks)

    def _may_begin(self, trigger: Trigger, history: list[Episode]) -> bool:
        playbook = self.playbooks.get(trigger.playbook)
        if playbook is None or trigger.account_id not in self.accounts:
            return False
        long_enough = trigger.days >= playbook.trigger.for_days
        if not long_enough or not self._is_reachable(trigger.account_id):
            return False
        if trigger.state != "holds" or trigger.clears is not False:
            return False
        cooldown = dt.timedelta(days=playbook.cooldown)
        for episode in history:
            # One that only ever waited gave nobody a task, so nobody needs to rest from it.
            known = episode.episode_key in self.tasks_of
            spent = known or episode.arm == "holdout"
            if episode.opened_on >= self.day or (spent and self.day < episode.opened_on + cooldown):
                return False
        return True

    def _wait(self, episode: Episode, trigger: Trigger) -> bool:
        """A waiting episode opens as soon as there is room, and goes away if it clears first."""
        if trigger.clears:
            self._close(episode, CLEARED)
            return False
        if trigger.state == "holds" and self._is_reachable(episode.account_id):
            self._candidate(replace(episode, state="open", why=trigger.why), trigger, waited=True)
        return True

    def _carry_on(self, episode: Episode, trigger: Trigger, tasks: list[TaskState]) -> bool:
        """An open episode whose condition has not cleared."""
        needless = _needless(tasks)
        self._close_untouched(needless, "the task itself is done")
        tasks_left = [task for task in tasks if task not in needless]
        if tasks and self._rested(episode) and not any(t.status in ALIVE for t in tasks_left):
            self._close(episode, "done; its condition still holds after its cooldown")
            return False
        self._leave(tasks_left, f"it still holds: {trigger.why}")
        if episode.arm == "treated":
            self._complete(episode, trigger, tasks)
        return True

    def _clear(self, episode: Episode, trigger: Trigger, tasks: list[TaskState]) -> bool:
        why = f"{CLEARED}: {trigger.why}" if trigger.why else CLEARED
        self._close_untouched(tasks, why)
        if any(task.touched and task.status in ALIVE for task in tasks):
            return True
        self._close(episode, why)
        return False

    def _complete(self, episode: Episode, trigger: Trigger, tasks: list[TaskState]) -> None:
        """The tasks that an open episode lacks: all, where none was kept, or the escalation."""
        if not self._is_reachable(episode.account_id):
            return
        if not tasks:
            self._open(_Candidate(self._case(episode, trigger), waited=False))
            return
        first = next((task for task in tasks if task.task == "1"), None)
        told = any(task.task == ESCALATION for task in tasks)
        if first and not told and self._overdue(first):
            self.drafts.append(escalation_draft(self._case(episode, trigger), first, self.day))

    def _overdue(self, first: TaskState) -> bool:
        """Whether the first task is to be escalated: neither done, nor postponed by its owner."""
        rule = self.playbooks[first.playbook].escalate
        if rule is None or first.status != "open":
            return False
        postponed = first.touched and first.due_on is not None and first.due_on >= self.day
        since = first.decided_on or first.opened_on
        return not postponed and (self.day - since).days >= rule.after

    def _case(self, episode: Episode, trigger: Trigger) -> Case:
        return Case(
            self.tenant,
            self.playbooks[episode.playbook],
            self.accounts[episode.account_id],
            trigger,
            episode,
        )

    def _ended(self, episode: Episode) -> str | None:
        if episode.account_id not in self.accounts:
            return GONE
        return UNUSED if episode.playbook not in self.playbooks else None

    def _is_reachable(self, account_id: str) -> bool:
        return self.reachable is None or account_id in self.reachable

    def _rested(self, episode: Episode) -> bool:
        cooldown = dt.timedelta(days=self.playbooks[episode.playbook].cooldown)
        return self.day >= episode.opened_on + cooldown

    # What is to be done with tasks

    def _tasks(self, episode: Episode) -> list[TaskState]:
        return self.tasks_of.get(episode.episode_key, [])

    def _close_leftovers(self, episode: Episode) -> None:
        """Close what an earlier plan wanted closed and could not: a CRM that was down, a crash.

        Of tasks that were found in the CRM (the ledger was lost) nobody knows who touched them.
        """
        for task in self._tasks(episode):
            if task.task and not task.touched and task.status in ALIVE:
                self._close_untouched([task], episode.why)

    def _close_untouched(self, tasks: Iterable[TaskState], why: str) -> None:
        for task in tasks:
            if task.status in ALIVE and not task.touched:
                self.closings.append(TaskClosing(task.key, task.task_id, task.account_id, why))
            else:
                self._leave([task], why)

    def _leave(self, tasks: Iterable[TaskState], why: str) -> None:
        for task in tasks:
            if task.status in ("planned", "closed"):
                continue  # it is in nobody's list
            if task.status in FINISHED:
                reason = f"a person {task.status} it"
            elif task.touched:
                reason = "a person has it in hand"
            else:
                reason = why
            self.left.append(TaskLeft(task.key, task.account_id, reason))

    def _candidate(self, episode: Episode, trigger: Trigger, *, waited: bool) -> None:
        self.candidates.append(_Candidate(self._case(episode, trigger), waited))

    def open_what_fits(self) -> None:
        """Give out the weeks' room, most value at risk first; what can wait waits."""
        for candidate in sorted(self.candidates, key=lambda candidate: candidate.rank):
            if candidate.cannot_wait or self.week.has_room(candidate.needed):
                self._open(candidate)
                self._keep(candidate.case.episode)
            elif not candidate.waited:
                self._keep(replace(candidate.case.episode, state="waiting"))

    def _open(self, candidate: _Candidate) -> None:
        self.week.given.update(candidate.needed)
        self.drafts += all_drafts(candidate.case)

    def _keep(self, episode: Episode) -> None:
        self.changed[episode.name] = episode

    def _close(self, episode: Episode, why: str) -> None:
        self._keep(replace(episode, state="closed", closed_on=self.day, why=why))

    def decisions(self) -> Decisions:
        """Everything, in an order that does not depend on how it was found."""
        return Decisions(
            day=self.day,
            episodes=tuple(self.changed[name] for name in sorted(self.changed)),
            open=tuple(sorted(self.drafts, key=lambda d: (d.account_id, d.playbook, d.task))),
            close=tuple(sorted(self.closings, key=lambda c: (c.account_id, c.key))),
            leave=tuple(sorted(self.left, key=lambda left: (left.account_id, left.key))),
        )


def _needless(tasks: Iterable[TaskState]) -> list[TaskState]:
    """An escalation that nobody touched, of a task that is done by now."""
    tasks = list(tasks)
    done = any(task.task == "1" and task.status in FINISHED for task in tasks)
    return [
        task
        for task in tasks
        if done and task.task == ESCALATION and task.status in ALIVE and not task.touched
    ]
