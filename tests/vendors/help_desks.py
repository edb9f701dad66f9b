"""What the tests of the two help desks share: the world's tickets, and mappings run in DuckDB."""

import datetime as dt

from mapped import packaged

from connectors.api_rows import landed
from connectors.sandbox.servers.world_files import WorldFiles

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


def mapped(vendor, table, rows, config):
    """Run a packaged mapping over the rows of each stream; the result as dicts, times in UTC."""
    assert config.type == vendor.name
    return [
        {
            name: value.replace(tzinfo=dt.UTC) if isinstance(value, dt.datetime) else value
            for name, value in row.items()
        }
        for row in packaged(config, table, rows, latest=True)
    ]


def stored(vendor, stream, rows):
    """The rows of a stream as one text: what would lie in the lake."""
    declared = vendor.streams[stream]
    table, _ = landed(rows, columns=declared.columns, leave_out=declared.leave_out)
    return str(table.to_pylist())
