"""What has to hold after a run, whatever broke in it; and a ledger whose disk is full."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from connectors.crm.ledger import Ledger
from connectors.crm.plans import END_STATES
from tests.faults.crm_runs import Crm, Run, Shown, Wish, assert_nothing_personal


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
                assert set(states) <= set(END_STATES), states
                assert sum(states.values()) == sum(
                    plan.totals[name] for name in ("records", "tasks_to_open", "tasks_to_close")
                )
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
    assert max(Counter(crm.task_keys()).values(), default=1) == 1, "two tasks bear one key"


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


class FullDisk:
    """Lets commits of a ledger that write fail from the `nth` on, as a full disk does.

    With `kept` the first of them fails after it was done: the answer of the database is lost.
    `hit` says whether there were so many; `commits` counts those that were tried. `on_failure` is
    called whenever one fails.
    """

    def __init__(self, ledger: Ledger, nth: int, *, kept: bool = False) -> None:
        self.commits, self.hit = 0, False
        self.on_failure: Callable[[], None] = lambda: None
        engine = ledger._engine
        writes = False

        def begun(connection: sa.Connection) -> None:
            nonlocal writes
            writes = bool(connection.get_execution_options().get("writes"))

        done = engine.dialect.do_commit

        def commit(connection: Any) -> None:
            if writes:
                self.commits += 1
            if not writes or self.commits < nth:
                done(connection)
                return
            if kept and not self.hit:
                done(connection)
            self.hit = True
            self.on_failure()
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error

        sa.event.listen(engine, "begin", begun)
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
