"""Zendesk's records, made of the synthetic help desk's rows.

The company offers support by messaging. Each ticket has a version for being opened, answered,
solved and closed; closing is the system's doing, which leaves `updated_at` as it is.
"""

from typing import Any

from connectors.sandbox.servers.box import Row
from connectors.sandbox.servers.moments import epoch, iso, iso_or_none

HOST = "https://sandbox.zendesk.com"
CLOSED_AFTER_SECONDS = 5 * 86_400


def ticket_moments(row: dict[str, Any]) -> list[tuple[float, str]]:
    """From which epoch second on a ticket has which status."""
    opened, replied, solved = _times(row)
    moments = [(opened, "new")]
    if replied:
        moments.append((replied, "pending"))
    if solved:
        moments += [(solved, "solved"), (solved + CLOSED_AFTER_SECONDS, "closed")]
    return moments


def ticket(row: dict[str, Any], status: str) -> dict[str, Any]:
    """A ticket in one of its statuses: what differs between tickets; the rest is added when shown.

    Its metrics are short here: reopenings, and the seconds to the first reply and to the solution.
    """
    opened, replied, solved = _times(row)
    replied = None if status == "new" else replied
    solved = solved if status in ("solved", "closed") else None
    number, organization = int(row["id"]), int(row["organization_id"])
    rating = {"score": row["satisfaction_rating"] if solved else "unoffered"}
    if rating["score"] in ("good", "bad"):
        rating |= {"id": number + 70_000_000, "comment": "As the customer wrote it."}
    return {
        "id": number,
        "created_at": iso_or_none(opened),
        "updated_at": iso_or_none(solved or replied or opened),
        "priority": row["priority"],
        "status": status,
        "requester_id": 900_000_000 + organization % 1_000_000,
        "organization_id": organization,
        "tags": row["tags"].split(),
        "satisfaction_rating": rating,
        "metric_set": {
            "reopens": int(row["reopens"]) if solved else 0,
            "reply_seconds": None if replied is None else int(replied - opened),
            "solve_seconds": None if solved is None else int(solved - opened),
        },
    }


def _times(row: dict[str, Any]) -> tuple[float, float | None, float | None]:
    opened = epoch(row["created_at"])
    assert opened is not None
    return opened, epoch(row["first_reply_at"]), epoch(row["solved_at"])


_ALL_TICKETS: dict[str, Any] = {
    "external_id": None,
    "via": {"channel": "native_messaging", "source": {"from": {}, "to": {}, "rel": None}},
    "type": "question",
    "description": "The customer's own words.",
    "recipient": None,
    "assignee_id": 7002,
    "group_id": 7100,
    "collaborator_ids": [],
    "follower_ids": [],
    "email_cc_ids": [],
    "forum_topic_id": None,
    "problem_id": None,
    "has_incidents": False,
    "is_public": True,
    "due_at": None,
    "custom_fields": [],
    "sharing_agreement_ids": [],
    "custom_status_id": 1,
    "fields": [],
    "followup_ids": [],
    "ticket_form_id": 1,
    "brand_id": 1,
    "allow_channelback": False,
    "allow_attachments": True,
    "from_messaging_channel": True,
}


def shown_ticket(row: Row, with_metrics: bool) -> dict[str, Any]:
    """The ticket as the export shows it; a deleted one is a row with that status."""
    body = row.body
    shown = {
        "url": f"{HOST}/api/v2/tickets/{body['id']}.json",
        "subject": f"Question {body['id']}",
        "raw_subject": f"Question {body['id']}",
        "submitter_id": body["requester_id"],
        **_ALL_TICKETS,
        **body,
        "generated_timestamp": int(row.changed),
    }
    del shown["metric_set"]
    if row.deleted:
        shown |= {"status": "deleted", "updated_at": iso(row.changed), "subject": "SCRUBBED",
                  "raw_subject": "SCRUBBED", "description": "SCRUBBED"}  # fmt: skip
    if with_metrics:
        shown["metric_set"] = None if row.deleted else _metrics(body)
    return shown


def _metrics(body: dict[str, Any]) -> dict[str, Any]:
    opened = epoch(body["created_at"]) or 0.0
    short = body["metric_set"]
    reply_seconds, solve_seconds = short["reply_seconds"], short["solve_seconds"]
    replied = None if reply_seconds is None else opened + reply_seconds
    solved = None if solve_seconds is None else opened + solve_seconds
    number = body["id"]
    return {
        "url": f"{HOST}/api/v2/ticket_metrics/{number + 80_000_000}.json",
        "id": number + 80_000_000,
        "ticket_id": number,
        "created_at": body["created_at"],
        "updated_at": body["updated_at"],
        "group_stations": 1,
        "assignee_stations": 1,
        "reopens": short["reopens"],
        "replies": int(replied is not None),
        "assignee_updated_at": iso_or_none(replied),
        "requester_updated_at": body["created_at"],
        "status_updated_at": body["updated_at"],
        "initially_assigned_at": body["created_at"],
        "assigned_at": body["created_at"],
        "solved_at": iso_or_none(solved),
        "latest_comment_added_at": iso_or_none(replied or opened),
        "custom_status_updated_at": body["updated_at"],
        "first_resolution_time_in_minutes": _minutes(solve_seconds),
        "full_resolution_time_in_minutes": _minutes(solve_seconds),
        "reply_time_in_minutes": _minutes(reply_seconds),
        "reply_time_in_seconds": {"calendar": reply_seconds},
        "agent_wait_time_in_minutes": _minutes(0),
        "requester_wait_time_in_minutes": _minutes(solve_seconds),
        "on_hold_time_in_minutes": _minutes(0),
    }


def _minutes(seconds: int | None) -> dict[str, int | None]:
    minutes = None if seconds is None else seconds // 60
    return {"calendar": minutes, "business": minutes}


def organization(row: dict[str, Any], at: float) -> dict[str, Any]:
    """An organization, made at the epoch second `at`."""
    return {
        "url": f"{HOST}/api/v2/organizations/{row['id']}.json",
        "id": int(row["id"]),
        "name": row["name"],
        "shared_tickets": False,
        "shared_comments": False,
        "external_id": row["external_id"],
        "created_at": iso_or_none(at),
        "updated_at": iso_or_none(at),
        "domain_names": [row["domain_names"]] if row["domain_names"] else [],
        "details": "",
        "notes": "",
        "group_id": None,
        "tags": [],
        "organization_fields": {},
    }


def shown_organization(row: Row) -> dict[str, Any]:
    """The organization as the export shows it, with the time of its deletion."""
    return {**row.body, "deleted_at": iso_or_none(row.changed) if row.deleted else None}


def rating(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A ticket's satisfaction rating, with its id."""
    number = int(row["id"]) + 70_000_000
    score = row["satisfaction_rating"]
    body = {
        "url": f"{HOST}/api/v2/satisfaction_ratings/{number}.json",
        "id": number,
        "assignee_id": 7002,
        "group_id": 7100,
        "requester_id": 900_000_000 + int(row["organization_id"]) % 1_000_000,
        "ticket_id": int(row["id"]),
        "score": score,
        "created_at": iso_or_none(epoch(row["solved_at"])),
        "updated_at": iso_or_none(epoch(row["solved_at"])),
        "comment": "As the customer wrote it." if score in ("good", "bad") else None,
    }
    return str(number), body
