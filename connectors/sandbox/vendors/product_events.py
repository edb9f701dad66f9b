"""The synthetic company's product events, one by one, for the servers of the event stores.

The world has counts for each workspace, day and event. Here they become the events that give
these counts: `n` of them, by `actors` different users; a stored level is one event of the
workspace's own server; and who was there on a day started a session. What the world restates
a month later are events that arrived late. Only the days that are asked for are unfolded.

`box.table("product", "events", ...)` holds further events, with the body
``{"workspace", "event", "user_no", "happened", "value"}`` (an ISO time; user 0 is the server), each
arriving when it is put. `box.table("product", "workspaces", ...)` holds the workspaces.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import duckdb

from connectors.quoting import literal
from connectors.sandbox.servers.box import Box, Row, Table, WorldFiles

SESSION = "session_started"
"""The event of who was there on a day."""

# Events happen in the first 19 hours of a day (UTC), so that a day is complete in the evening.
_BUSY_SECONDS = 68_400
_SEED = f"CAST(md5_number_lower(workspace_id) % {_BUSY_SECONDS} AS BIGINT)"

_CELLS = """
CREATE TABLE cells AS
WITH counted AS (
    SELECT workspace_id, date, event_name, actors, qty,
           CASE WHEN qty IS NULL THEN n ELSE 1 END AS n,
           strptime(regexp_extract(filename, '\\d{4}_\\d\\d'), '%Y_%m') AS month
    FROM read_parquet([{FILES}], filename = true)
    WHERE n >= 0  -- no event store holds fewer than no events
), merged AS (
    SELECT workspace_id, date, event_name, max(actors) AS actors, max(qty) AS qty,
           coalesce(max(n) FILTER (month <= date), 0) AS in_time, max(n) AS in_all,
           max(month) AS month
    FROM counted GROUP BY ALL
)
SELECT workspace_id AS workspace, date AS day, event_name AS event, actors, qty, {SEED} AS seed,
       first, n, late
FROM (
    SELECT *, 0 AS first, in_time AS n, NULL AS late FROM merged WHERE in_time > 0
    UNION ALL
    SELECT *, in_time, in_all - in_time, timezone('UTC', month + INTERVAL 30 MINUTE)
    FROM merged WHERE in_all > in_time
)
ORDER BY day, workspace
"""

_SESSIONS = """
CREATE TABLE sessions AS
SELECT workspace_id AS workspace, date AS day, user_no, {SEED} AS seed
FROM read_parquet([{FILES}]) ORDER BY day, workspace
"""

_FURTHER = """
CREATE TEMP TABLE further (
    number BIGINT, workspace VARCHAR, event VARCHAR, user_no INTEGER, value DOUBLE,
    happened TIMESTAMPTZ, arrived TIMESTAMPTZ
)
"""

# The events of the days from `first_day` up to, not including, `end_day`; `number` tells apart
# those of one user, day and event.
_EVENTS = f"""
CREATE TEMP MACRO product_events(first_day, end_day) AS TABLE
WITH unfolded AS (
    SELECT *, CASE WHEN qty IS NULL THEN number % actors + 1 ELSE 0 END AS user_no
    FROM (
        SELECT workspace, day, event, actors, qty, seed, late, first + unnest(range(n)) AS number
        FROM cells WHERE day >= first_day AND day < end_day
    )
), timed AS (
    SELECT number, workspace, event, user_no, qty AS value, late,
           to_timestamp(epoch(day) + (seed + number * 7919 + user_no * 104729
                                      + length(event) * 977) % {_BUSY_SECONDS}) AS happened
    FROM unfolded
)
SELECT number, workspace, event, user_no, value, happened,
       coalesce(late, happened + INTERVAL 2 SECOND) AS arrived
FROM timed
UNION ALL
SELECT 0, workspace, '{SESSION}', user_no, NULL, happened, happened + INTERVAL 2 SECOND
FROM (
    SELECT *, to_timestamp(epoch(day) + (seed + user_no * 104729) % {_BUSY_SECONDS}) AS happened
    FROM sessions WHERE day >= first_day AND day < end_day
)
UNION ALL
SELECT number, workspace, event, user_no, value, happened, arrived FROM further
WHERE happened >= timezone('UTC', CAST(first_day AS TIMESTAMP))
  AND happened < timezone('UTC', CAST(end_day AS TIMESTAMP))
"""

_USER = "workspace || CASE user_no WHEN 0 THEN '-server' ELSE '-u' || user_no END"
USER = f"({_USER})"
"""SQL for the id under which a user's events are sent."""

EVENT_ID = f"md5(concat_ws('|', {_USER}, event, epoch_us(happened), number))"
"""SQL for 32 hexadecimal digits that name an event."""


class ProductEvents:
    """The events of one world in a DuckDB of their own, for all servers and threads to read."""

    def __init__(self, usage: Sequence[Path], users: Sequence[Path]) -> None:
        self._connection = duckdb.connect(config={"threads": 2})
        for statement, paths in ((_CELLS, usage), (_SESSIONS, users)):
            files = ", ".join(literal(str(path)) for path in paths)
            self._connection.execute(statement.replace("{FILES}", files).replace("{SEED}", _SEED))
        days = "SELECT min(day), max(day) FROM cells"
        first, last = self._connection.execute(days).fetchall()[0]
        self.first_day: dt.date = first or dt.date(2000, 1, 1)
        self.last_day: dt.date = last or self.first_day

    def cursor(self, box: Box, time_zone: str = "UTC") -> duckdb.DuckDBPyConnection:
        """A cursor of one's own, with the events that were put into the box so far."""
        rows = box.table("product", "events", _nothing).rows(box.now.timestamp())
        cursor = self._connection.cursor()
        cursor.execute(f"SET TimeZone = {literal(time_zone)}")
        cursor.execute(_FURTHER)
        cursor.execute(_EVENTS)
        if rows:
            events = [_further_event(number, row) for number, row in enumerate(rows)]
            cursor.executemany("INSERT INTO further VALUES (?, ?, ?, ?, ?, ?, ?)", events)
        return cursor


_stores: dict[tuple[object, ...], ProductEvents] = {}
_making = Lock()


def product_events(world: WorldFiles) -> ProductEvents:
    """The events of a world, read on first use and again only if its files are others."""
    usage, users = (world.glob(f"product/{name}_*.parquet") for name in ("usage", "active_users"))
    key = tuple((str(path), path.stat().st_mtime_ns) for path in (*usage, *users))
    with _making:
        if key not in _stores:
            _stores.clear()
            _stores[key] = ProductEvents(usage, users)
        return _stores[key]


def workspaces(box: Box) -> list[Row]:
    """The workspaces at the box's time: the body is ``{"crm_account_no", "signup_domain"}``."""

    def fill(table: Table) -> None:
        for row in box.world.rows("product/workspaces.csv"):
            created = dt.datetime.fromisoformat(row["created"]).replace(tzinfo=dt.UTC)
            body = {name: row[name] for name in ("crm_account_no", "signup_domain")}
            table.put(row["workspace_id"], body, created.timestamp())

    return box.table("product", "workspaces", fill).rows(box.now.timestamp())


def _nothing(table: Table) -> None:
    """The world's own events are unfolded on demand; the table only holds what is put later."""


def _further_event(number: int, row: Row) -> tuple[object, ...]:
    body = row.body
    return (
        number, body["workspace"], body["event"], body["user_no"], body.get("value"),
        body["happened"], dt.datetime.fromtimestamp(row.changed, dt.UTC),
    )  # fmt: skip
