"""Ledgers for tests: SQLite and a real PostgreSQL, each test with an empty one."""

import datetime as dt
import functools

import sqlalchemy as sa

from connectors.crm import ledger_tables
from connectors.crm.ledger import Ledger
from connectors.crm.plans import FieldChange, FieldChanges, Intent, Plan
from connectors.crm.writing import NewTask, TaskChange
from contracts.actions import Episode, TaskState

NOW = dt.datetime(2026, 6, 30, 6, tzinfo=dt.UTC)
DAY = dt.date(2026, 6, 30)


@functools.cache
def _schema(postgres_url: str) -> str:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA ledger")
    engine.dispose()
    url = sa.make_url(postgres_url).update_query_dict({"options": "-csearch_path=ledger"})
    Ledger(url.render_as_string(hide_password=False)).__exit__()
    return url.render_as_string(hide_password=False)


def emptied(postgres_url: str) -> str:
    """The URL of an empty ledger in PostgreSQL: always the same one, without its rows."""
    url = _schema(postgres_url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for table in ledger_tables.metadata.tables.values():
            connection.execute(table.delete())
        connection.execute(ledger_tables.versions.insert().values(version=ledger_tables.VERSION))
    engine.dispose()
    return url


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += dt.timedelta(seconds=seconds)


def change(number: int, record_id: str, *, object="account", crm="salesforce", **values) -> Intent:
    """The change of a record's fields: ``risk_score="71"``."""
    changes = FieldChanges.of(FieldChange(name, None, value) for name, value in values.items())
    return Intent(number, "fields", crm, object, record_id, f"A-{record_id}", changes=changes)


def new_task(
    key: str, record_id: str, owner_id: str | None = "ada", subject="Call them"
) -> NewTask:
    return NewTask(
        key, f"champion-left/{DAY}/A-{record_id}", record_id, owner_id, subject, "Why\n- so",
        dt.date(2026, 7, 2), dt.datetime(2026, 7, 2, 15, tzinfo=dt.UTC), "high",
    )  # fmt: skip


def opening(number: int, key: str, record_id: str, *, crm="salesforce", **of_task) -> Intent:
    task = new_task(key, record_id, **of_task)
    return Intent(number, "open_task", crm, None, record_id, f"A-{record_id}", task=task)


def closing(number: int, key: str, record_id: str, *, crm="salesforce") -> Intent:
    change = TaskChange(key, f"T-{key}")
    return Intent(number, "close_task", crm, None, record_id, f"A-{record_id}", closing=change)


def state_of(intent: Intent) -> TaskState:
    """What a plan says of a task that it opens."""
    task = intent.task
    assert task is not None
    return TaskState(
        task.key, intent.account_id, "champion-left", DAY, "1", "planned", due_on=task.due_on,
        owner="Ada", owner_id=task.owner_id, decided_on=DAY, subject=task.subject,
    )  # fmt: skip


def store(
    ledger: Ledger, *intents: Intent, plan_id="p1", lane="daily", at=NOW, day=DAY, **more
) -> Plan:
    """Store a plan of these intents, with the episodes and tasks that it decides."""
    opened = [intent for intent in intents if intent.task]
    episodes = {i.account_id: Episode(i.account_id, "champion-left", DAY, "open") for i in opened}
    plan = Plan(
        plan_id, day, lane, at, episodes=tuple(episodes.values()),
        tasks=tuple(state_of(intent) for intent in opened), **more,
    )  # fmt: skip
    ledger.store(plan, intents)
    return plan
