"""What the tests of the two help desks share: the world's tickets, and mappings run in DuckDB."""

import datetime as dt

import duckdb

from connectors.api_rows import to_table
from connectors.mapping import macros
from connectors.quoting import literal
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.vendors import packaged_mappings

PRIORITIES = {"urgent": "p1", "high": "p2", "normal": "p3", "low": "p4"}


class Clock:
    """Time that passes only while somebody sleeps; `waits` says for how long they did."""

    def __init__(self):
        self.seconds = 0.0
        self.waits = []

    def __call__(self):
        return self.seconds

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.seconds += seconds


def instant(text):
    """A time of the world's files in UTC, or None where it is none."""
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC) if text else None
    except ValueError:
        return None


def world_tickets(world, now):
    """The tickets that a help desk shows at `now`, by id, as the canonical table has them."""
    tickets = {}
    for row in WorldFiles(world).rows("helpdesk/tickets.csv"):
        opened = instant(row["created_at"])
        if row["id"] is None or opened is None or opened > now:
            continue
        replied, solved = (
            moment if (moment := instant(row[name])) and moment <= now else None
            for name in ("first_reply_at", "solved_at")
        )
        tickets[row["id"]] = {
            "account_key": row["organization_id"],
            "opened_at": opened,
            "first_reply_at": replied,
            "solved_at": solved,
            "priority": PRIORITIES[row["priority"]],
            "escalated": "escalated" in row["tags"].split(),
            "reopened": int(row["reopens"]) if solved else 0,
            "csat": {"good": 100, "bad": 0}.get(row["satisfaction_rating"]) if solved else None,
        }
    return tickets


def rendered(vendor, table, config):
    """The text of a packaged mapping, with the parameters in."""
    text = packaged_mappings(vendor.name)[table].read_text()
    for name, value in config.parameters().items():
        text = text.replace(f"${{{name}}}", literal(value))
    return text


def mapped(vendor, table, rows, config):
    """Run a packaged mapping over the rows of each stream; the result as dicts, times in UTC."""
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE SCHEMA raw_{vendor.name}")
        for statement in macros("Europe/Berlin"):
            connection.execute(statement)
        for name, stream in vendor.streams_of(config).items():
            newest = {tuple(row[key] for key in stream.primary_key): row for row in rows[name]}
            page = to_table(
                list(newest.values()), columns=stream.columns, leave_out=stream.leave_out
            )
            connection.register("page", page)
            connection.execute(f"CREATE TABLE raw_{vendor.name}.{name} AS FROM page")
        result = connection.execute(rendered(vendor, table, config))
        names = [column[0] for column in result.description]
        return [
            {
                name: value.replace(tzinfo=dt.UTC) if isinstance(value, dt.datetime) else value
                for name, value in zip(names, row, strict=True)
            }
            for row in result.fetchall()
        ]


def stored(vendor, stream, rows):
    """The rows of a stream as one text: what would lie in the lake."""
    declared = vendor.streams[stream]
    table = to_table(rows, columns=declared.columns, leave_out=declared.leave_out)
    return str(table.to_pylist())
