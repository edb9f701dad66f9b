"""The tables of the ledger, and the database that holds them: SQLite or PostgreSQL.

In SQLite every commit is on the disk when it returns (WAL, ``synchronous=FULL``), and a transaction
that writes takes the lock at its start, so that two processes never decide on the same old state.
"""

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator

from contracts.errors import LedgerError

VERSION = 1
BUSY_SECONDS = 15
_MAKING = 7_203_114  # the number of PostgreSQL's lock under which tables are made


class Moment(TypeDecorator[dt.datetime]):
    """A moment in UTC, in databases with and without time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:
        """Refuse a moment that does not say its zone; give the others in UTC."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment in the ledger needs a time zone")
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Any) -> dt.datetime | None:
        """The moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Words(TypeDecorator[str]):
    """Text that others wrote, without what no database keeps: NUL and halves of characters."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """The text as it can be kept."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


metadata = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any] | sa.Index) -> sa.Table:
    return sa.Table(f"healthloop_{name}", metadata, *columns)


def _text(name: str, **more: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, **{"nullable": False, **more})


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, primary_key=True)


def _number() -> sa.Column[Any]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=True)


versions = _table("version", sa.Column("version", sa.Integer, primary_key=True))

plans = _table(
    "plans",
    _number(),
    _text("plan_id", unique=True),
    sa.Column("as_of", sa.Date, nullable=False),
    _text("lane"),
    sa.Column("made_at", Moment, nullable=False),
    _text("status"),
    sa.Column("reasons", Words, nullable=False),
    _text("totals"),
    _text("planned"),  # how many intents of each kind there are, to check the sums by
    _text("decided"),  # episodes, tasks and tasks left, as JSON
    _text("decided_by", nullable=True),
    sa.Column("decided_at", Moment),
    sa.Column("begun_at", Moment),
    sa.Column("ended_at", Moment),
)

intents = _table(
    "intents",
    _key("plan_id"),
    sa.Column("number", sa.Integer, primary_key=True),
    _text("kind"),
    _text("crm"),
    _text("object", nullable=True),
    _text("record_id"),
    _text("account_id"),
    _text("key", nullable=True),  # of a task
    sa.Column("why", Words, nullable=False),
    _text("state"),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("reason", Words, nullable=False),
    _text("crm_id", nullable=True),
    sa.Index("healthloop_intents_key", "key"),
)

# Apart, because a row is written whole, and the state of an intent is written three times.
bodies = _table(
    "bodies",
    _key("plan_id"),
    sa.Column("number", sa.Integer, primary_key=True),
    _text("body"),  # changes, task or closing, as JSON
)

whole_intents = sa.select(intents, bodies.c.body).join(
    bodies, (bodies.c.plan_id == intents.c.plan_id) & (bodies.c.number == intents.c.number)
)
"""Everything about intents; for `ledger_rows.intent_of`."""

batches = _table(
    "batches",
    _number(),
    _text("plan_id"),
    _text("method"),
    _text("job_id", nullable=True),
    sa.Column("begun_at", Moment, nullable=False),
    sa.Column("ended_at", Moment),
)

attempts = _table(
    "attempts",
    sa.Column("batch_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    _text("state", nullable=True),
    sa.Column("reason", Words, nullable=False),
    _text("crm_id", nullable=True),
)

confirmed = _table(
    "confirmed",
    _key("crm"),
    _key("object"),
    _key("record_id"),
    _text("shown"),  # field -> value as JSON: everything that the CRM acknowledged
    sa.Column("confirmed_at", Moment, nullable=False),
)

rejections = _table(
    "rejections",
    _key("crm"),
    _key("object"),
    _key("record_id"),
    _text("refused"),  # field -> value as JSON
    sa.Column("reason", Words, nullable=False),
    sa.Column("rejected_at", Moment, nullable=False),
)

episodes = _table(
    "episodes",
    _key("account_id"),
    _key("playbook"),
    sa.Column("opened_on", sa.Date, primary_key=True),
    _text("state"),
    _text("arm"),
    sa.Column("closed_on", sa.Date),
    sa.Column("why", Words, nullable=False),
)

tasks = _table(
    "tasks",
    _key("key"),
    _text("crm", nullable=True),
    _text("record_id", nullable=True),
    _text("account_id"),
    _text("playbook"),
    sa.Column("opened_on", sa.Date, nullable=False),
    _text("task"),
    _text("status"),
    sa.Column("touched", sa.Boolean, nullable=False),
    _text("owner", nullable=True),
    sa.Column("decided_on", sa.Date),
    _text("task_id", nullable=True),
    # As we wrote it, and as the CRM shows it now.
    sa.Column("subject", Words, nullable=False),
    sa.Column("due_on", sa.Date),
    _text("owner_id", nullable=True),
    sa.Column("subject_now", Words),
    sa.Column("due_on_now", sa.Date),
    _text("owner_id_now", nullable=True),
    sa.Column("owner_now", Words),  # by name, where somebody handed it on
    sa.Column("modified_at", Moment),
    sa.Column("rejected", Words),
    sa.Column("rejected_at", Moment),
)

tombstones = _table(
    "tombstones",
    _key("crm"),
    _key("record_id"),
    _text("successor", nullable=True),
    sa.Column("seen_at", Moment, nullable=False),
)

drift = _table(
    "drift",
    _key("crm"),
    _key("object"),
    _key("record_id"),
    _key("field"),
    sa.Column("ours", Words),
    sa.Column("theirs", Words),
    sa.Column("seen_at", Moment, nullable=False),
)

approvals = _table(
    "approvals",
    _number(),
    _text("plan_id"),
    _text("verdict"),
    sa.Column("by", Words, nullable=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("reasons", Words, nullable=False),
)

watermarks = _table(
    "watermarks",
    _key("crm"),
    _key("what"),
    sa.Column("moment", Moment, nullable=False),
)

places = _table(
    "places",
    _key("crm"),
    _key("what"),  # the organisation, or object and field
    _text("name"),
)

leases = _table(
    "leases",
    _key("name"),
    sa.Column("holder", Words, nullable=False),
    _text("token"),
    sa.Column("taken_at", Moment, nullable=False),
    sa.Column("ends_at", Moment, nullable=False),
)


def open_engine(url: str) -> sa.Engine:
    """An engine whose transactions are as the ledger needs them.

    Raises:
        LedgerError: the URL is none that we know, or its driver is not installed.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise LedgerError(
                f"a ledger cannot be kept in {parsed.get_backend_name()}",
                "use sqlite:///file or postgresql://user:password@host/database",
            )
        engine = sa.create_engine(parsed, hide_parameters=True)
    except ModuleNotFoundError as error:
        package = error.name or "the database's driver"
        raise LedgerError(
            f"{package} is not installed", "run `pip install healthloop[postgres]`"
        ) from None
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError):
        raise LedgerError(
            "the ledger's url is no SQLAlchemy URL",
            "use sqlite:///file or postgresql://user:password@host/database",
        ) from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    # Transactions begin where SQLAlchemy says so, not where Python's driver guesses.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    with suppress(sqlite3.OperationalError):  # another process is just doing the same
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def make_tables(connection: sa.Connection) -> None:
    """Make the tables in a new database; in another, check that they are of this version.

    Raises:
        LedgerError: they were made by a newer or an older Healthloop.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
    there = sa.inspect(connection).get_table_names()
    if versions.name not in there:
        metadata.create_all(connection)
        connection.execute(sa.insert(versions).values(version=VERSION))
        return
    version = connection.execute(sa.select(sa.func.max(versions.c.version))).scalar() or 0
    if version > VERSION:
        raise LedgerError(
            f"the ledger was made by a newer Healthloop (its version is {version}, not {VERSION})",
            "install that Healthloop again",
        )
    if version < VERSION:
        raise LedgerError(
            f"the ledger is of version {version}, and this Healthloop keeps version {VERSION}",
            "set it aside: a new one is rebuilt from the CRM's own keys",
        )
    if metadata.tables.keys() - {*there}:  # some came later
        metadata.create_all(connection)


def place_of(engine: sa.Engine) -> str:
    """How people find the ledger: its file, or its host and database; never a password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"the ledger {Path(url.database).name}" if url.database else "the ledger in memory"
    return f"the ledger in {url.database} on {url.host or 'this machine'}"


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Turn an error of the database into one line; its own text may repeat what was kept."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, sqlite3.Error) as error:
        raise _explanation(place, getattr(error, "orig", None) or error) from None


def _explanation(place: str, error: BaseException) -> LedgerError:
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
    text = str(error).lower()
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "55P03", "40")) or "locked" in text:
        return LedgerError(f"{place} is locked by another process", "wait for it, then run again")
    if code.startswith(("SQLITE_FULL", "53100")):
        return LedgerError(f"no space left for {place}", "free disk space, then run again")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX")):
        return LedgerError(
            f"{place} is damaged", "set it aside: a new one is rebuilt from the CRM's own keys"
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "42501", "28")):
        return LedgerError(f"{place} cannot be opened for writing", "check its rights and its URL")
    return LedgerError(
        f"{place} failed ({code or type(error).__name__})",
        "check that its disk or its server works, then run again",
    )


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    where: Callable[[Any], sa.ColumnElement[bool]] | None = None,
) -> int:
    """Insert rows; where their key is there, set the other columns that the rows have.

    `where` is given the row that was to be inserted and says which old rows give way. Returns how
    many rows were inserted or set, as far as the driver counts them.
    """
    if not rows:
        return 0
    make: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = make(table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    condition = where(statement.excluded) if where else None
    statement = statement.on_conflict_do_update(index_elements=keys, set_=changed, where=condition)
    return connection.execute(statement, list(rows)).rowcount
