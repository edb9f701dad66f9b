"""Faults of the process and of its storage (F73 to F83), on what is written into a CRM."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.crm import ledger_tables, sending
from connectors.crm.lease import LeaseHeld
from connectors.crm.ledger import Ledger
from contracts.errors import HeldError, LedgerError
from tests.faults.crm_writes import (
    LEASE_SECONDS,
    assert_alike,
    check,
    check_converged,
    check_quiet,
    open_crm,
)
from tests.faults.killed_applies import INTERRUPTED

SIZE = (5, 2, 5, 3)
"""Accounts, opportunities, tasks to open, tasks to close; a call has at most four of them."""


@pytest.fixture
def wish(crm):
    return crm.start(*SIZE)


@pytest.fixture
def wanted(crm, fault_free_crm):
    return fault_free_crm.shown(crm.name, *SIZE)


@pytest.fixture
def plan_id(crm, wish):
    with Ledger(crm.url) as ledger:
        return crm.plan(ledger, wish)


def applied_by(crm, plan_id, **how):
    with Ledger(crm.url) as ledger:
        return crm.apply(ledger, plan_id, crm.writer(), **how)


def in_one_line(text):
    return text and "\n" not in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("asked", "ends"), [(signal.SIGTERM, ""), (signal.SIGINT, INTERRUPTED)], ids=["TERM", "INT"]
)
def test_f73_when_asked_to_end_the_call_in_hand_is_finished_and_the_rest_put_off(
    crm, forks, wish, plan_id, wanted, asked, ends
):
    ended = forks.run(crm, plan_id, point="request sent", passage=2, signal=asked)
    assert (ended.status, ended.refused, ended.passed["request sent"]) == (0, ends, 2)
    assert crm.sent() == 2
    with Ledger(crm.url) as ledger:
        states = [intent.state for intent in ledger.intents(plan_id)]
        assert states == ["written"] * 5 + ["deferred"] * (len(states) - 5)
        assert {i.reason for i in ledger.intents(plan_id, "deferred")} == {
            "the run was asked to stop"
        }
        assert (ledger.plan(plan_id).status, ledger.sent()) == ("applied", [])
        with ledger.lease(holder="the next run", now=crm.now, seconds=1):
            pass  # it was given up, not left to run out
    check(crm, wish)
    check_converged(crm, wish, wanted)


def test_f73_a_second_interrupt_breaks_the_call_in_hand_off_and_the_next_run_reads_it_back(
    crm, forks, wish, plan_id, wanted
):
    ended = forks.run(crm, plan_id, point="request sent", passage=2, signal=signal.SIGINT, times=2)
    assert (ended.status, ended.refused) == (0, INTERRUPTED)
    assert ended.passed["response read"] == 1
    with Ledger(crm.url) as ledger:
        assert len(ledger.sent()) == 1
    check_converged(crm, wish, wanted)


def test_f73_f60_after_sigterm_a_bulk_job_is_left_and_adopted_by_the_next_run(
    world, tmp_path, forks, fault_free_crm
):
    with open_crm("salesforce", world, tmp_path) as crm:
        wish = crm.start(*SIZE)
        with Ledger(crm.url) as ledger:
            plan_id = crm.plan(ledger, wish)
        ended = forks.run(
            crm, plan_id, bulk_above=1, point="job asked", passage=1, signal=signal.SIGTERM
        )
        assert ended.passed["job begun"] == 1
        assert "job told" not in ended.passed
        with Ledger(crm.url) as ledger:
            (batch,) = ledger.sent()
            assert batch.job_id is not None
        check(crm, wish)
        wanted = fault_free_crm.shown(crm.name, *SIZE)
        check_converged(crm, wish, wanted, bulk_above={crm.name: 1})
        assert crm.sent("jobs/ingest$") == 2, "a job each for accounts and opportunities"


def test_f74_of_two_runs_at_once_one_gets_a_clear_line_and_sends_nothing(
    crm, forks, wish, plan_id, wanted
):
    others = []

    def meanwhile():
        if not others:
            before = len(crm.box.log)
            others.append(forks.run(crm, plan_id))
            assert len(crm.box.log) == before
        return False

    run = applied_by(crm, plan_id, stop=meanwhile)
    (other,) = others
    assert other.refused.startswith("another run (a test) has been writing since 2026-06-30 ")
    assert in_one_line(other.refused)
    assert run.states() == {"written": len(run.intents)}
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


def test_f75_the_lease_of_the_dead_ends_and_is_taken_over(crm, forks, wish, plan_id, wanted):
    assert forks.run(crm, plan_id, point="request sent").was_killed
    before = len(crm.box.log)
    crm.sleep(LEASE_SECONDS - 1)
    with pytest.raises(LeaseHeld, match=r"another run \(a child\) .* if it died, its lease ends"):
        applied_by(crm, plan_id)
    assert len(crm.box.log) == before
    crm.sleep(1)
    run = applied_by(crm, plan_id)
    assert run.states() == {"written": len(run.intents)}
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


@pytest.mark.parametrize("when", ["between calls", "within a call"])
def test_f75_a_run_that_was_away_while_another_took_over_sends_nothing_more(
    crm, monkeypatch, wish, plan_id, wanted, when
):
    call, took_over = sending.call, []

    def other_run():
        if not took_over:
            took_over.append("begun")
            crm.run(wish)  # an hour later
            took_over.append(crm.sent())

    def away_within(writer, batch):
        results = call(writer, batch)
        other_run()
        return results

    def away_between():
        if crm.sent() == 1:
            other_run()
        return False

    how = {"stop": away_between} if when == "between calls" else {}
    if when == "within a call":
        monkeypatch.setattr(sending, "call", away_within)
    with pytest.raises(HeldError) as caught:
        applied_by(crm, plan_id, **how)
    assert in_one_line(str(caught.value))
    assert crm.sent() == took_over[-1]
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish)


LONG = " ".join(["The champion has left."] * 150)
"""A value for which a database that is full has no room."""


def with_long_reasons(wish):
    return replace(
        wish,
        fields={record: {**values, "risk_reasons": LONG} for record, values in wish.fields.items()},
    )


def test_f77_when_the_ledger_is_full_nothing_more_is_sent(crm, wish):
    wish = with_long_reasons(wish)

    def full(connection, record, proxy):
        if crm.sent():
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count={pages}")

    ledger = Ledger(crm.url)
    sa.event.listen(ledger._engine, "checkout", full)
    with pytest.raises(LedgerError, match=r"^no space left for the ledger ledger\.sqlite; free "):
        crm.run(wish, ledger=ledger)
    assert crm.sent() == 1
    check(crm, wish)
    crm.run(wish)
    check(crm, wish)
    check_quiet(crm, wish)
    fields, _ = crm.shown()
    assert {values["risk_reasons"] for values in fields.values()} == {LONG}


@pytest.mark.parametrize("kilobytes", [8, 40, 70, 100, 130, 160, 190])
def test_f77_wherever_the_ledgers_file_stops_growing_nothing_more_is_sent(
    crm, forks, wish, plan_id, wanted, kilobytes
):
    ended = forks.run(crm, plan_id, largest_file_bytes=1024 * kilobytes)
    assert ended.refused.startswith("the ledger ledger.sqlite failed (SQLITE_IOERR_")
    assert in_one_line(ended.refused)
    begun, sent, kept = (ended.passed.get(p, 0) for p in ("after 2", "request sent", "after 4"))
    assert crm.sent() == sent
    assert kept <= sent <= begun <= kept + 1, "a call without a record before it"
    check(crm, wish)
    check_converged(crm, wish, wanted)


@pytest.mark.parametrize("version", [0, 99])
def test_f80_with_a_ledger_of_another_version_nothing_is_asked_or_sent(crm, wish, version):
    with Ledger(crm.url) as ledger, ledger._write() as connection:
        connection.execute(sa.update(ledger_tables.versions).values(version=version))
    with pytest.raises(LedgerError, match=f"version .*{version}") as caught:
        crm.run(wish)
    assert in_one_line(str(caught.value))
    assert crm.box.log == []


def lose_the_ledger(crm):
    for file in Path(crm.folder).glob("ledger.sqlite*"):
        file.unlink()


def test_f81_a_lost_ledger_is_rebuilt_from_the_crm_and_nothing_is_written_again(crm, wish):
    crm.run(wish)
    shown = crm.shown()
    with Ledger(crm.url) as ledger:
        episodes = {episode.name: episode.state for episode in ledger.episodes()}
        tasks = {task.key: (task.task_id, task.account_id) for task in ledger.tasks()}
    lose_the_ledger(crm)
    before = crm.sent()
    run = crm.run(wish, observes=True)
    assert run.intents == ()
    assert crm.sent() == before
    with Ledger(crm.url) as ledger:
        assert {e.name: e.state for e in ledger.episodes()} == episodes
        assert {t.key: (t.task_id, t.account_id) for t in ledger.tasks()} == tasks
    assert_alike(crm.shown(), shown)
    record = next(iter(wish.fields))
    changed = replace(wish, fields={**wish.fields, record: {"risk_score": "1"}})
    assert crm.run(changed, observes=True).states() == {"written": 1}
    check(crm, changed)


@pytest.mark.parametrize("point", ["after 2", "request sent", "inside 4", "after 4"])
def test_f81_f72_a_ledger_that_is_lost_after_a_kill_loses_and_doubles_nothing(
    crm, forks, wish, plan_id, wanted, point
):
    assert forks.run(crm, plan_id, point=point, passage=4).was_killed
    lose_the_ledger(crm)
    run = crm.run(wish, observes=True)
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    assert len(run.intents) < len(wish.fields) + len(wish.tasks) + len(wish.closed)
    check_quiet(crm, wish, observes=True)


@pytest.mark.parametrize("act", ["completed", "deleted", "renamed", "reassigned", "postponed"])
def test_f81_f68_what_a_human_did_with_a_task_outlives_the_ledger(crm, wish, act):
    crm.run(wish)
    crm.sleep(60)
    crm.change_task(wish.keys[0], act)
    shown = crm.shown()
    lose_the_ledger(crm)
    before = crm.sent()
    crm.run(wish, observes=True)
    crm.run(wish, observes=True)
    assert crm.sent() == before
    assert_alike(crm.shown(), shown)
    check(crm, wish)


@pytest.mark.parametrize("taken", ["before the run", "before the plan"])
def test_f81_a_ledger_that_was_put_back_from_a_backup_doubles_nothing(crm, wish, wanted, taken):
    def back_up():
        shutil.copy(crm.folder / "ledger.sqlite", crm.folder / "backup")

    if taken == "before the plan":
        with Ledger(crm.url) as ledger:
            crm.plan(ledger, wish)
    back_up()
    crm.run(wish)
    lose_the_ledger(crm)
    (crm.folder / "backup").rename(crm.folder / "ledger.sqlite")
    crm.run(wish, observes=True)
    check(crm, wish)
    assert_alike(crm.shown(), wanted)
    check_quiet(crm, wish, observes=True)
