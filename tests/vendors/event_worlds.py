"""What the tests of the three event stores share: the world's usage, and their mappings run."""

import datetime as dt

import duckdb
from mapped import packaged
from minimal import connected

from connectors.vendors import packaged_mappings

ACTIONS = (
    "login", "report_published", "dashboard_shared", "alert_created", "export_run", "api_call",
    "data_source_connected",
)  # fmt: skip
MEANING = {
    "events": [*ACTIONS, "storage_gb"],
    "active_events": ["session_started"],
    "level_events": ["storage_gb"],
    "value_property": "value",
}
FIRST_DAY = dt.date(2024, 7, 1)


def world_usage(world, since=FIRST_DAY):
    """(workspace, day, event) -> (count, value, users), as the newest file of the world says."""
    rows = duckdb.sql(
        f"""SELECT workspace_id, date, event_name, n, qty, actors
        FROM read_parquet('{world}/product/usage_*.parquet', filename = true)
        WHERE n >= 0 AND date >= '{since}'
        QUALIFY row_number() OVER (
            PARTITION BY workspace_id, date, event_name ORDER BY filename DESC) = 1"""
    ).fetchall()
    return {row[:3]: row[3:] for row in rows}


def world_user_days(world, since=FIRST_DAY):
    """How many users were there, by workspace and day."""
    rows = duckdb.sql(
        f"""SELECT workspace_id, date, count(DISTINCT user_no)
        FROM '{world}/product/active_users_*.parquet' WHERE date >= '{since}' GROUP BY ALL"""
    ).fetchall()
    return {row[:2]: row[2] for row in rows}


def world_workspaces(box):
    """workspace -> (CRM number, domain)."""
    rows = box.world.rows("product/workspaces.csv")
    return {row["workspace_id"]: (row["crm_account_no"], row["signup_domain"]) for row in rows}


def canonical(vendor, settings, box, rows):
    """The rows of every packaged mapping, from the latest version of each raw row."""
    vendor, config, _ = connected(vendor, settings, box)
    return {
        table: packaged(config, table, rows, latest=True)
        for table in packaged_mappings(vendor.name)
    }


def usage_of(tables):
    """The mapped usage in the form of `world_usage`."""
    return {
        (row["account_key"], row["day"], row["event"]): (row["count"], row["value"], row["users"])
        for row in tables["usage_daily"]
    }


def user_days_of(tables):
    """The mapped users in the form of `world_user_days`; each is there once a day."""
    users = [(row["account_key"], row["day"], row["user_key"]) for row in tables["user_days"]]
    assert len(users) == len(set(users))
    counted: dict = {}
    for workspace, day, _ in users:
        counted[workspace, day] = counted.get((workspace, day), 0) + 1
    return counted


def further(box, name, at, **event):
    """Let one more event arrive `at` an instant; its body is described in `product_events`."""
    body = {"workspace": "ws_104729", "event": "login", "user_no": 1, "value": None, **event}
    body["happened"] = body["happened"].isoformat()
    box.table("product", "events", lambda table: None).put(name, body, at.timestamp())
