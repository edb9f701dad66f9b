"""Freshdesk's records, made of the synthetic help desk's rows."""

from typing import Any

from connectors.sandbox.servers.box import Row
from connectors.sandbox.servers.moments import epoch, iso_or_none

DAY_SECONDS = 86_400
CLOSED_AFTER_SECONDS = 5 * DAY_SECONDS
_PRIORITIES = {"low": 1, "normal": 2, "high": 3, "urgent": 4}
_OPEN, _PENDING, _RESOLVED, _CLOSED = 2, 3, 4, 5


def opened(row: Row) -> float:
    """When a ticket was opened, in epoch seconds."""
    return epoch(row.body["created_at"]) or 0.0


def changed(row: Row) -> float:
    """When it changed last, in whole epoch seconds."""
    return int(row.changed)


def list_of(row: Row) -> str:
    """The `filter` that shows a ticket; empty for the usual list."""
    if row.deleted:
        return "deleted"
    return "spam" if row.body["spam"] else ""


def ticket_moments(row: dict[str, Any]) -> list[tuple[float, int]]:
    """From which epoch second on a ticket has which status."""
    opened, replied, solved = _times(row)
    moments = [(opened, _OPEN)]
    if replied:
        moments.append((replied, _PENDING))
    if solved:
        moments += [(solved, _RESOLVED), (solved + CLOSED_AFTER_SECONDS, _CLOSED)]
    return moments


def _times(row: dict[str, Any]) -> tuple[float, float | None, float | None]:
    opened = epoch(row["created_at"])
    assert opened is not None
    return opened, epoch(row["first_reply_at"]), epoch(row["solved_at"])


_ALL_TICKETS: dict[str, Any] = {
    "cc_emails": [],
    "fwd_emails": [],
    "reply_cc_emails": [],
    "ticket_cc_emails": [],
    "fr_escalated": False,
    "email_config_id": None,
    "group_id": 7100,
    "responder_id": 7002,
    "source": 2,
    "association_type": None,
    "support_email": None,
    "to_emails": None,
    "product_id": None,
    "type": "Question",
    "is_escalated": False,
    "custom_fields": {},
    "associated_tickets_count": None,
    "nr_due_by": None,
    "nr_escalated": False,
}


def ticket(row: dict[str, Any], status: int) -> dict[str, Any]:
    """A ticket in one of its statuses: what differs between tickets; the rest is added when shown.

    `updated_at` is when the version began, which the table knows.
    """
    opened, replied, solved = _times(row)
    replied = None if status == _OPEN else replied
    solved = solved if status in (_RESOLVED, _CLOSED) else None
    organization = int(row["organization_id"])
    return {
        "id": int(row["id"]),
        "spam": False,
        "priority": _PRIORITIES[row["priority"]],
        "requester_id": 900_000_000 + organization % 1_000_000,
        "company_id": organization,
        "status": status,
        "created_at": iso_or_none(opened),
        "tags": row["tags"].split(),
        "stats": {
            "first_responded_at": iso_or_none(replied),
            "resolved_at": iso_or_none(solved),
            "reopened_at": iso_or_none(solved - 600) if solved and int(row["reopens"]) else None,
        },
    }


def shown_ticket(row: Row, include: set[str]) -> dict[str, Any]:
    """The ticket as a list shows it: statistics only where they were asked for."""
    updated, opened = iso_or_none(row.changed), epoch(row.body["created_at"]) or 0.0
    shown = {
        **_ALL_TICKETS,
        **row.body,
        "subject": f"Question {row.body['id']}",
        "updated_at": updated,
        "due_by": iso_or_none(opened + 3 * DAY_SECONDS),
        "fr_due_by": iso_or_none(opened + DAY_SECONDS),
    }
    stats = shown.pop("stats")
    if "stats" in include:
        shown["stats"] = {
            "agent_responded_at": stats["first_responded_at"],
            "requester_responded_at": None,
            "status_updated_at": updated,
            "closed_at": updated if row.body["status"] == _CLOSED else None,
            "pending_since": updated if row.body["status"] == _PENDING else None,
            **stats,
        }
    if row.deleted:
        shown["deleted"] = True
    return shown


def company(row: dict[str, Any], at: float) -> dict[str, Any]:
    """A company, made at the epoch second `at`."""
    return {
        "id": int(row["id"]),
        "name": row["name"],
        "description": None,
        "note": None,
        "domains": [row["domain_names"]] if row["domain_names"] else [],
        "created_at": iso_or_none(at),
        "updated_at": iso_or_none(at),
        "custom_fields": {"crm_account_no": row["external_id"]},
        "health_score": None,
        "account_tier": None,
        "renewal_date": None,
        "industry": None,
    }


def rating(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The answer to a ticket's survey, with its id."""
    number = int(row["id"]) + 70_000_000
    answer = 103 if row["satisfaction_rating"] == "good" else -103
    body = {
        "id": number,
        "survey_id": 1,
        "user_id": 900_000_000 + int(row["organization_id"]) % 1_000_000,
        "agent_id": 7002,
        "feedback": "As the customer wrote it.",
        "group_id": 7100,
        "ticket_id": int(row["id"]),
        "created_at": iso_or_none(epoch(row["solved_at"])),
        "updated_at": iso_or_none(epoch(row["solved_at"])),
        "ratings": {"default_question": answer},
    }
    return str(number), body
