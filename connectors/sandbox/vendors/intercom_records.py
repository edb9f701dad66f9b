"""The world's help desk in Intercom's shapes: companies and conversations."""

import datetime as dt
import hashlib
from typing import Any

from connectors.sandbox.servers.box import Box, Table

APP = "lk9view7"
_BEGAN = int(dt.datetime(2023, 6, 1, tzinfo=dt.UTC).timestamp())
_ADMIN = {"type": "admin", "id": "1295", "name": "Ada Sandbox", "email": "ada@lakeview.example"}


def company_id(organization: str) -> str:
    """Intercom's own id of the company that a help desk's organization is."""
    return hashlib.sha256(f"company {organization}".encode()).hexdigest()[:24]


def contact_id(organization: str) -> str:
    """The id of the one person who writes for an organization."""
    return hashlib.sha256(f"contact {organization}".encode()).hexdigest()[:24]


def conversation_id(ticket: str) -> str:
    """Intercom's id of a ticket."""
    return f"2150{ticket}"


def fill_companies(table: Table, box: Box) -> None:
    """Companies, known since before the world's data begins."""
    for number, organization in enumerate(box.world.rows("helpdesk/organizations.csv")):
        at = _BEGAN + number * 600
        table.put(company_id(organization["id"]), company(organization, at), at=at)


def company(organization: dict[str, Any], at: int) -> dict[str, Any]:
    """A company, without what its row tells."""
    number = organization["external_id"]
    return {
        "type": "company",
        "company_id": organization["id"],
        "app_id": APP,
        "name": organization["name"],
        "website": f"https://www.{organization['domain_names']}",
        "remote_created_at": at,
        "created_at": at,
        "last_request_at": at + 86_400,
        "monthly_spend": 0,
        "session_count": 17,
        "user_count": 1,
        "plan": {},
        "size": 0,
        "industry": "",
        "custom_attributes": {"crm_account_no": number} if number else {},
        "tags": {"type": "tag.list", "tags": []},
        "segments": {"type": "segment.list", "segments": []},
    }


def fill_conversations(table: Table, box: Box) -> None:
    """Each ticket as it was when opened, when first replied to and when solved."""
    domains = {
        organization["id"]: organization["domain_names"]
        for organization in box.world.rows("helpdesk/organizations.csv")
    }
    for ticket in box.world.rows("helpdesk/tickets.csv"):
        opened, replied, solved = (
            _instant(ticket[name]) for name in ("created_at", "first_reply_at", "solved_at")
        )
        if ticket["id"] is None or opened is None:
            continue  # dirt that no help desk could hold
        id, domain = conversation_id(ticket["id"]), domains[ticket["organization_id"]]
        for at in (opened, replied, solved):
            if at is not None:
                table.put(id, conversation(ticket, domain, (opened, replied, solved), at), at=at)


def _instant(text: str | None) -> int | None:
    try:
        return int(dt.datetime.fromisoformat(text).timestamp()) if text else None
    except ValueError:
        return None


def conversation(
    ticket: dict[str, Any], domain: str, times: tuple[int, int | None, int | None], at: int
) -> dict[str, Any]:
    """A ticket as it is `at` a moment, without what its row tells.

    `times` are when it was opened, first replied to and solved.
    """
    opened, replied, solved = times
    organization = ticket["organization_id"]
    is_closed = solved is not None and solved <= at
    contact = {"type": "contact", "id": contact_id(organization), "external_id": None}
    author = {"type": "user", "id": contact["id"], "name": "A customer", "email": f"p1@{domain}"}
    escalated = [{"type": "tag", "id": "86", "name": "escalated", "applied_at": at}]
    return {
        "type": "conversation",
        "title": None,
        "waiting_since": None if is_closed else opened,
        "snoozed_until": None,
        "open": not is_closed,
        "state": "closed" if is_closed else "open",
        "read": is_closed,
        "priority": "priority" if ticket["priority"] in ("urgent", "high") else "not_priority",
        "admin_assignee_id": 1295,
        "team_assignee_id": None,
        "of_company": company_id(organization),
        "tags": {
            "type": "tag.list",
            "tags": escalated if "escalated" in ticket["tags"].split() else [],
        },
        "conversation_rating": _rating(ticket, contact, solved) if is_closed else None,
        "source": {
            "type": "conversation", "id": f"30{ticket['id']}", "delivered_as": "customer_initiated",
            "subject": "", "body": "<p>Something does not work.</p>", "author": author,
            "attachments": [], "url": None, "redacted": False,
        },
        "contacts": {"type": "contact.list", "contacts": [contact]},
        "teammates": {"type": "admin.list", "teammates": [{"type": "admin", "id": "1295"}]},
        "custom_attributes": {},
        "first_contact_reply": {"created_at": opened, "type": "conversation", "url": None},
        "sla_applied": None,
        "statistics": _statistics(ticket, opened, replied, solved if is_closed else None, at),
        "linked_objects": {"type": "list", "total_count": 0, "has_more": False, "data": []},
        "ai_agent_participated": False,
        "ai_agent": None,
    }  # fmt: skip


def _rating(
    ticket: dict[str, Any], contact: dict[str, Any], solved: int | None
) -> dict[str, Any] | None:
    rating = {"good": 5, "bad": 1}.get(ticket["satisfaction_rating"])
    if rating is None:
        return None
    return {
        "rating": rating, "remark": "As expected.", "created_at": solved, "updated_at": solved,
        "contact": contact, "teammate": {"type": "admin", "id": "1295"},
    }  # fmt: skip


def _statistics(
    ticket: dict[str, Any], opened: int, replied: int | None, closed: int | None, at: int
) -> dict[str, Any]:
    """Only what has happened by then; the rest is left out."""
    found: dict[str, Any] = {
        "type": "conversation_statistics",
        "first_contact_reply_at": opened,
        "last_contact_reply_at": opened,
        "count_assignments": 1,
        "count_conversation_parts": 3,
        "count_reopens": int(ticket["reopens"]) if closed else 0,
    }
    if replied is not None and replied <= at:
        found |= {
            "first_admin_reply_at": replied, "last_admin_reply_at": replied,
            "time_to_admin_reply": replied - opened,
        }  # fmt: skip
    if closed is not None:
        found |= {
            "first_close_at": closed, "last_close_at": closed, "last_closed_by_id": "1295",
            "time_to_first_close": closed - opened, "time_to_last_close": closed - opened,
        }  # fmt: skip
    return found
