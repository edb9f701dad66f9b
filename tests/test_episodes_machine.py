"""Episodes over any course of days, people and crashes, held against a plain model.

The model knows one current episode an account and changes it in place; the machine gives `decide`
nothing but what a ledger would remember.
"""

import datetime as dt
from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contracts.actions import Decisions, Episode, TaskState
from scoring.config.playbooks import Playbook
from scoring.drafts import Account, Trigger
from scoring.episodes import Capacity, decide

FIRST_DAY = dt.date(2026, 3, 30)  # a Monday
COOLDOWN_DAYS, ESCALATED_AFTER_DAYS, A_WEEK = 5, 3, 2
PLAYBOOK = Playbook.model_validate({
    "purpose": "x",
    "trigger": {"when": "tickets > 0"},
    "cooldown": f"{COOLDOWN_DAYS}d",
    "escalate": {"after": f"{ESCALATED_AFTER_DAYS}d"},
    "tasks": [
        {"owner": "csm", "subject": "Call", "steps": ["Call"]},
        {"owner": "queue: Desk", "subject": "Note", "steps": ["Note"]},
    ],
})  # fmt: skip
OWNERS = {"a": "Ann", "b": "Ann", "c": "Ann", "d": None}
VALUES = {"a": 1.0, "b": 2.0, "c": 2.0, "d": 1.0}
ACCOUNTS = st.sampled_from(sorted(OWNERS))
CONDITIONS = st.dictionaries(
    ACCOUNTS, st.sampled_from(["holds", "holds", "lingers", "cleared", "undetermined"])
)
"""`lingers`: the trigger does not hold any more, but what would clear it is not there yet."""


@dataclass
class PlainTask:
    """A task as a person sees it."""

    decided: dt.date
    alive: bool = True
    sent: bool = True
    touched: bool = False
    done: bool = False
    until: dt.date | None = None


@dataclass
class PlainEpisode:
    """The one episode of an account; without a task it waits."""

    opened: dt.date
    tasks: dict[str, PlainTask] = field(default_factory=dict)


class Plain:
    """The rules, as short as they can be said."""

    def __init__(self) -> None:
        self.current: dict[str, PlainEpisode] = {}
        self.named: dict[str, dt.date] = {}
        self.rested: dict[str, dt.date] = {}
        self.left: dict[tuple[str, dt.date, str], PlainTask] = {}
        self.given: list[dt.date] = []
        self.opened: set[tuple[str, dt.date, str]] = set()
        self.closed: set[tuple[str, dt.date, str]] = set()

    def run(self, day: dt.date, conditions: dict[str, str], gone: set[str], *, sent: bool) -> None:
        """One day's decisions, carried out (or, with `sent` false, only kept)."""
        self.opened, self.closed = set(), set()
        for name, task in self.left.items():
            if task.alive and not task.touched:
                self._close(name, task, sent)
        wanting = []
        for account in OWNERS:
            condition = conditions[account]
            if account in gone:
                self._end(account, sent)
                if account in self.current:  # whatever people have in hand
                    self._forget(account)
            elif condition != "undetermined" and account in self.current:
                self._live(account, condition, day, sent)
            if account not in self.current and condition == "holds" and account not in gone:
                fresh = self.named.get(account, day - dt.timedelta(1)) < day
                if fresh and day >= self.rested.get(account, day):
                    wanting.append((account, PlainEpisode(day)))
            elif condition == "holds" and account in self.current:
                episode = self.current[account]
                wanting += [(account, episode)] if not episode.tasks else []
        for account, episode in sorted(wanting, key=lambda w: (-VALUES[w[0]], w[1].opened, w[0])):
            self.current[account], self.named[account] = episode, episode.opened
            if OWNERS[account] is None or self._room(day):
                self._give(account, "1", day, sent)
                self._give(account, "2", day, sent)

    def _live(self, account: str, condition: str, day: dt.date, sent: bool) -> None:
        episode = self.current[account]
        if condition == "cleared":
            return self._end(account, sent)
        if not episode.tasks:
            return None
        first, escalation = episode.tasks["1"], episode.tasks.get("escalation")
        needless = first.done and escalation and not escalation.touched
        if needless and escalation.alive:
            self._close((account, episode.opened, "escalation"), escalation, sent)
        over = day >= episode.opened + dt.timedelta(COOLDOWN_DAYS)
        wanted = [t for t in episode.tasks.values() if not (needless and t is escalation)]
        if over and not any(task.alive for task in wanted):
            self._forget(account)
        elif first.alive and first.sent and not escalation:
            snoozed = first.touched and first.until is not None and first.until >= day
            if not snoozed and (day - first.decided).days >= ESCALATED_AFTER_DAYS:
                self._give(account, "escalation", day, sent)
        return None

    def _end(self, account: str, sent: bool) -> None:
        episode = self.current.get(account)
        if episode is None:
            return
        for name, task in episode.tasks.items():
            if task.alive and not task.touched:
                self._close((account, episode.opened, name), task, sent)
        if not any(task.alive and task.touched for task in episode.tasks.values()):
            self._forget(account)

    def _close(self, name: tuple[str, dt.date, str], task: PlainTask, sent: bool) -> None:
        """What no CRM has yet is closed by that alone; else the CRM has to hear of it."""
        self.closed.add(name)
        task.alive = task.sent and not sent

    def _forget(self, account: str) -> None:
        """The episode is over, also where the CRM has not heard yet that its tasks are."""
        episode = self.current.pop(account)
        self.left |= {(account, episode.opened, name): t for name, t in episode.tasks.items()}

    def _give(self, account: str, name: str, day: dt.date, sent: bool) -> None:
        episode = self.current[account]
        episode.tasks[name] = PlainTask(day, sent=sent)
        self.opened.add((account, episode.opened, name))
        if name == "1":
            self.rested[account] = episode.opened + dt.timedelta(COOLDOWN_DAYS)
            if OWNERS[account]:
                self.given.append(day)

    def _room(self, day: dt.date) -> bool:
        return sum(d.isocalendar()[:2] == day.isocalendar()[:2] for d in self.given) < A_WEEK


class Episodes(RuleBasedStateMachine):
    """Days pass, conditions change, people work, runs crash; `decide` sees what a ledger keeps.

    What a killed run opened is kept to be sent; what it closed stays open, and is closed later.
    """

    @initialize()
    def begin(self) -> None:
        self.day = FIRST_DAY
        self.plain = Plain()
        self.conditions = dict.fromkeys(OWNERS, "cleared")
        self.gone: set[str] = set()
        self.episodes: dict[str, Episode] = {}
        self.tasks: dict[str, TaskState] = {}

    def _decide(self) -> Decisions:
        states = {"lingers": "not", "cleared": "not"}
        clears = {"cleared": True, "undetermined": None}
        triggers = [
            Trigger(
                account, "p", states.get(condition, condition),  # type: ignore[arg-type]
                clears=clears.get(condition, False), value=VALUES[account],
            )
            for account, condition in self.conditions.items()
            if account not in self.gone
        ]  # fmt: skip
        return decide(
            triggers,
            day=self.day,
            tenant="t",
            playbooks={"p": PLAYBOOK},
            accounts={
                account: Account(account, owner=owner)
                for account, owner in OWNERS.items()
                if account not in self.gone
            },
            episodes=self.episodes.values(),
            tasks=self.tasks.values(),
            capacity=Capacity(A_WEEK),
        )

    def _keep(self, decisions: Decisions, *, sent: bool) -> None:
        self.episodes |= {episode.name: episode for episode in decisions.episodes}
        for closing in decisions.close:
            task = self.tasks[closing.key]
            assert not task.touched, "a task that a person has in hand was closed"
            assert task.status in ("planned", "open")
            if sent or task.status == "planned":
                self.tasks[closing.key] = replace(task, status="closed")
        for draft in decisions.open:
            assert draft.key not in self.tasks, "a task was opened twice"
            self.tasks[draft.key] = TaskState(
                draft.key, draft.account_id, "p", draft.opened_on, draft.task,
                "open" if sent else "planned", owner=draft.owner, decided_on=self.day,
            )  # fmt: skip

    def _run(self, *, sent: bool) -> None:
        decisions = self._decide()
        self.plain.run(self.day, self.conditions, self.gone, sent=sent)
        assert {(d.account_id, d.opened_on, d.task) for d in decisions.open} == self.plain.opened
        assert {self._name(closing.key) for closing in decisions.close} == self.plain.closed
        self._keep(decisions, sent=sent)
        again = self._decide()
        assert (again.episodes, again.open) == ((), ())
        assert {closing.key for closing in again.close} == {
            closing.key for closing in decisions.close if self.tasks[closing.key].status == "open"
        }

    def _name(self, key: str) -> tuple[str, dt.date, str]:
        task = self.tasks[key]
        return task.account_id, task.opened_on, task.task

    @rule(days=st.integers(0, 3), turn=CONDITIONS)
    def a_day_is_run(self, days: int, turn: dict[str, str]) -> None:
        self.day += dt.timedelta(days)
        self.conditions |= turn
        self._run(sent=True)

    @rule(turn=CONDITIONS)
    def a_run_is_killed_before_anything_is_kept(self, turn: dict[str, str]) -> None:
        self.conditions |= turn
        assert self._decide() == self._decide()

    @rule(days=st.integers(0, 3), turn=CONDITIONS)
    def a_run_is_killed_before_anything_is_sent(self, days: int, turn: dict[str, str]) -> None:
        self.day += dt.timedelta(days)
        self.conditions |= turn
        self._run(sent=False)

    @rule()
    def what_was_kept_is_sent(self) -> None:
        for key, task in self.tasks.items():
            if task.status == "planned":
                self.tasks[key] = replace(task, status="open")
                self._plain_task(task).sent = True

    def _plain_task(self, task: TaskState) -> PlainTask:
        episode = self.plain.current.get(task.account_id)
        if episode is None or episode.opened != task.opened_on:
            return self.plain.left[task.account_id, task.opened_on, task.task]
        return episode.tasks[task.task]

    @rule(
        which=st.integers(0, 20),
        edit=st.sampled_from(["completed", "deleted", "snoozed", "handed on"]),
        days=st.integers(1, 8),
    )
    def a_person_acts(self, which: int, edit: str, days: int) -> None:
        visible = [task for task in self.tasks.values() if task.status == "open"]
        if not visible:
            return
        task = visible[which % len(visible)]
        plain = self._plain_task(task)
        plain.touched = True
        if edit in ("completed", "deleted"):
            plain.alive, plain.done = False, True
            task = replace(task, status=edit)  # type: ignore[arg-type]
        elif edit == "snoozed":
            plain.until = self.day + dt.timedelta(days)
            task = replace(task, due_on=plain.until)
        self.tasks[task.key] = replace(task, touched=True)

    @rule()
    def a_person_finishes_all_there_is(self) -> None:
        for number in range(len(self.tasks)):
            self.a_person_acts(number, "completed", 1)

    @rule(account=ACCOUNTS)
    def leaves_or_comes_back(self, account: str) -> None:
        self.gone ^= {account}

    @invariant()
    def one_episode_at_a_time(self) -> None:
        live = [e.account_id for e in self.episodes.values() if e.state != "closed"]
        assert len(live) == len(set(live))

    @invariant()
    def cooldown_lies_between_the_tasks_of_an_account(self) -> None:
        for account in OWNERS:
            days = sorted(
                t.opened_on for t in self.tasks.values() if (t.account_id, t.task) == (account, "1")
            )
            gaps = [(later - day).days for day, later in pairwise(days)]
            assert all(gap >= COOLDOWN_DAYS for gap in gaps)

    @invariant()
    def nobody_gets_more_than_a_week_holds(self) -> None:
        weeks: dict[tuple[int, int], int] = {}
        for task in self.tasks.values():
            if task.owner == "Ann" and task.decided_on:
                week = task.decided_on.isocalendar()[:2]
                weeks[week] = weeks.get(week, 0) + 1
        assert all(count <= A_WEEK for count in weeks.values())

    @invariant()
    def the_model_agrees_on_who_has_an_episode(self) -> None:
        live = {e.account_id: e.opened_on for e in self.episodes.values() if e.state != "closed"}
        assert live == {account: e.opened for account, e in self.plain.current.items()}


TestEpisodes = Episodes.TestCase
TestEpisodes.settings = settings(max_examples=150, stateful_step_count=40)
