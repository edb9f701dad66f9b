"""What people do in the sandbox's Salesforce that touches several records."""

from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.salesforce_ids import SOMEBODY
from connectors.sandbox.vendors.salesforce_objects import records, save

_CHILDREN = (
    ("Task", "WhatId"), ("Contact", "AccountId"), ("Opportunity", "AccountId"),
)  # fmt: skip


def merge(box: Box, *, loser: str, winner: str, at: float) -> None:
    """Merge an account into another one, which takes over its tasks, contacts and deals."""
    for name, link in _CHILDREN:
        for row in records(box, name).rows(at):
            if row.body.get(link) == loser:
                save(box, name, row.id, {link: winner}, at)
    save(box, "Account", loser, {"IsDeleted": True, "MasterRecordId": winner}, at)


def delete(box: Box, name: str, id: str, at: float, *, by: str = SOMEBODY) -> None:
    """Delete a record; an account takes its tasks, contacts and deals along."""
    for child, link in _CHILDREN if name == "Account" else ():
        for row in records(box, child).rows(at):
            if row.body.get(link) == id:
                delete(box, child, row.id, at, by=by)
    save(box, name, id, {"IsDeleted": True, "LastModifiedById": by}, at)
