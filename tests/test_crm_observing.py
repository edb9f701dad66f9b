"""What observing a CRM makes of tasks that are hidden, somebody else's, or read by half."""

import datetime as dt
from dataclasses import replace

import pytest

from connectors.crm.ledger import Ledger
from connectors.crm.observing import HIDDEN_DAYS, observe
from connectors.crm.plans import Ended, Plan
from connectors.crm.settings import CrmSettings
from connectors.crm.writing import SeenTask
from contracts.actions import task_key
from contracts.errors import SourceUnavailable
from scoring.config.playbooks import Playbook
from scoring.drafts import Account, Trigger
from scoring.episodes import decide
from tests.crm_writer_model import Crm, ModelWriter
from tests.ledgers import DAY, NOW, new_task, opening, store

SETTINGS = CrmSettings.model_validate(
    {name: {"source": name} for name in ("salesforce", "hubspot")}
)
NAME = "champion-left"
DAYS = dt.timedelta(days=1)
PLAYBOOK = Playbook.model_validate({
    "purpose": "x", "trigger": {"when": "usage = 0"}, "tasks": [{"subject": "x", "steps": ["y"]}]
})  # fmt: skip


class Writer(ModelWriter):
    """A way to a CRM that tells of changes alone, and whose reads of one sort may fail."""

    broken: str | None = None

    def _read(self, what):
        self.crm.calls.append(("changed", (what,)))
        if what == self.broken:
            raise SourceUnavailable("answered 503", "try again later")

    def tasks_changed(self, since):
        self._read("task")
        return [task for task in super().tasks_changed(since) if since is None]

    def records_changed(self, object, since, fields):
        self._read(object)
        return super().records_changed(object, since, fields)


@pytest.fixture
def ledger(ledger_url):
    with Ledger(ledger_url) as ledger:
        yield ledger


def look(ledger, *writers, at=NOW, tenant="acme", **how):
    by_name = {writer.name: writer for writer in writers}
    return observe(ledger, by_name, SETTINGS, tenant=tenant, now=at, **how)


def task_in(crm, account, *, tenant="acme", task="1", **shown):
    """A task of ours that a CRM has, and of which a ledger may know nothing."""
    key = task_key(tenant=tenant, account_id=account, playbook=NAME, opened_on=DAY, task=task)
    new = new_task(key, account.removeprefix("A-"))
    seen = SeenTask(
        key, new.episode, f"T-{key}", new.record_id, new.owner_id, new.subject, new.due_on, "open",
        modified_at=NOW,
    )  # fmt: skip
    crm.tasks[key] = replace(seen, **shown)
    return key


def states(ledger):
    return {task.key: (task.status, task.touched) for task in ledger.tasks()}


def decided(ledger, *triggers, day=DAY):
    """What is decided about accounts with what the ledger knows."""
    return decide(
        triggers, day=day, tenant="acme", playbooks={NAME: PLAYBOOK},
        accounts={trigger.account_id: Account(trigger.account_id) for trigger in triggers},
        episodes=ledger.episodes(), tasks=ledger.tasks(),
    )  # fmt: skip


def holds(account):
    return Trigger(account, NAME, "holds", why="it is so")


def cleared(account):
    return Trigger(account, NAME, "not", clears=True)


# A ledger that was lost


@pytest.mark.parametrize("breaks_at", ["task", "account", "opportunity"])
def test_f81_the_fast_lane_ends_a_rebuild_that_broke_off_and_doubles_no_task(ledger, breaks_at):
    first, second = Crm(), Crm()
    keys = {task_in(first, "A-1"), task_in(second, "A-2")}
    salesforce, hubspot = Writer(first), Writer(second, "hubspot")
    hubspot.broken = breaks_at
    with pytest.raises(SourceUnavailable):
        look(ledger, salesforce, hubspot)

    hubspot.broken = None
    first.calls.clear()
    seen = look(ledger, salesforce, hubspot, accounts={"A-2"})
    assert seen.rebuilt
    assert states(ledger) == dict.fromkeys(keys, ("open", False))
    assert decided(ledger, holds("A-1"), holds("A-2")).open == ()
    assert first.calls == [], "what was read whole is not read again for a few accounts"

    second.calls.clear()
    assert not look(ledger, salesforce, hubspot, accounts={"A-2"}).rebuilt
    assert [name for name, _ in second.calls] == ["tasks_by_key"]


# Tasks of others


def test_tasks_of_another_tenant_in_the_same_crm_are_neither_adopted_nor_closed(ledger):
    crm = Crm()
    own = {task_in(crm, "A-1", task=task) for task in ("1", "9", "escalation")}
    others = {task_in(crm, f"A-{n}", tenant=name) for n, name in enumerate(("acme-eu", "", "Acme"))}
    look(ledger, Writer(crm))
    assert states(ledger).keys() == own
    assert {episode.account_id for episode in ledger.episodes()} == {"A-1"}
    gone = decided(ledger)  # none of these is a customer of this tenant
    assert {closing.key for closing in gone.close} == own
    assert not others & states(ledger).keys()


@pytest.mark.parametrize(
    "episode", ["nonsense", f"{NAME}/{DAY}/A-2", f"other/{DAY}/A-1", f"{NAME}/2026-01-01/A-1"]
)
def test_what_only_looks_like_a_task_of_ours_is_not_adopted(ledger, episode):
    crm = Crm()
    task_in(crm, "A-1", episode=episode)
    look(ledger, Writer(crm))
    assert (ledger.tasks(), ledger.episodes()) == ([], [])


# Tasks that are hidden


def with_task(ledger, crm):
    """A task that is open in the CRM, as the ledger knows that it was written."""
    key = task_in(crm, "A-1")
    store(ledger, opening(1, key, "1"))
    ledger.begin_plan("p1", NOW)
    batch = ledger.begin_batch("p1", [1], method="collections", at=NOW)
    ledger.finish_batch(batch, [Ended(1, "written", crm_id=f"T-{key}")], NOW)
    look(ledger, Writer(crm))
    assert states(ledger) == {key: ("open", False)}
    return key


@pytest.mark.parametrize("clears_on", ["the day", "the day after"])
def test_f68_tasks_that_are_hidden_for_a_day_are_untouched_and_closed_when_they_clear(
    ledger, clears_on
):
    crm = Crm()
    key = with_task(ledger, crm)
    hidden, crm.tasks = crm.tasks, {}
    look(ledger, Writer(crm), at=NOW + DAYS)
    assert states(ledger) == {key: ("deleted", False)}
    if clears_on == "the day":
        decisions = decided(ledger, cleared("A-1"), day=DAY + DAYS)
        assert decisions.close == ()
        ledger.store(Plan("p2", DAY + DAYS, "daily", NOW + DAYS, episodes=decisions.episodes), [])
        ledger.begin_plan("p2", NOW + DAYS)
    else:
        assert decided(ledger, holds("A-1"), day=DAY + DAYS).open == ()
    crm.tasks = hidden
    look(ledger, Writer(crm), at=NOW + 2 * DAYS)
    assert states(ledger) == {key: ("open", False)}
    decisions = decided(ledger, cleared("A-1"), day=DAY + 2 * DAYS)
    assert [closing.key for closing in decisions.close] == [key]


@pytest.mark.parametrize("status", ["deleted", "completed"])
def test_f68_a_task_that_a_person_ended_while_it_was_hidden_stays_so(ledger, status):
    crm = Crm()
    key = with_task(ledger, crm)
    hidden, crm.tasks = crm.tasks, {}
    look(ledger, Writer(crm))
    later = NOW + dt.timedelta(hours=1)
    crm.tasks = {key: replace(hidden[key], status=status, modified_at=later)}
    look(ledger, Writer(crm), at=later)
    assert states(ledger) == {key: (status, True)}


def test_a_task_that_is_missing_is_asked_for_as_long_as_it_may_be_hidden(ledger):
    crm = Crm()
    key = with_task(ledger, crm)
    crm.tasks.clear()
    for days, asked in ((1, [(key,)]), (HIDDEN_DAYS, [(key,)]), (HIDDEN_DAYS + 1, [])):
        crm.calls.clear()
        look(ledger, Writer(crm), at=NOW + days * DAYS)
        assert crm.called("tasks_by_key") == asked, days
