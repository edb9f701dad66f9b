"""Records as HubSpot shows them."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from connectors.sandbox.servers.box import Row

HISTORY_KEPT = 20
APP_ID = "7654321"
_PERSON = {
    "sourceType": "CRM_UI", "sourceId": "userId:50000001", "updatedByUserId": 50_000_001,
}  # fmt: skip
_APP = {"sourceType": "INTEGRATION", "sourceId": APP_ID, "sourceLabel": "Healthloop"}


@dataclass(frozen=True)
class View:
    """What a request wants to see of records, and what there is.

    `versions` gives all versions of a record, tombstones too.
    """

    type: str
    asked: list[str]
    history: list[str]
    known: set[str]
    versions: Callable[[str], list[Row]]


def stamps(type: str) -> tuple[str, str, str]:
    """The properties that HubSpot sets: the id, when it was created and when it changed."""
    created = "hs_createdate" if type in ("tasks", "feedback_submissions") else "createdate"
    return "hs_object_id", created, f"{'' if type == 'contacts' else 'hs_'}lastmodifieddate"


def all_properties(type: str, row: Row) -> dict[str, Any]:
    """The properties that somebody filled, and those that HubSpot sets."""
    own = (row.id, iso(row.created), iso(row.changed))
    return {**row.body["properties"], **dict(zip(stamps(type), own, strict=True))}


def shown(view: View, row: Row) -> dict[str, Any]:
    """A record with the properties asked for, and those that always come."""
    properties, always = all_properties(view.type, row), stamps(view.type)
    asked = [name for name in (*view.asked, *view.history) if name in view.known]
    body: dict[str, Any] = {
        "id": row.id,
        "properties": {name: properties.get(name) for name in (*always, *asked)},
        "createdAt": iso(row.created),
        "updatedAt": iso(row.changed),
        "archived": row.deleted,
    }
    if row.deleted:
        body["archivedAt"] = iso(row.changed)
    if view.history:
        merged = (row.body["properties"].get("hs_merged_object_ids") or "").split(";")
        chain = [version for id in (row.id, *merged) for version in view.versions(id)]
        chain.sort(key=lambda version: version.changed)
        sources = _sources(chain)
        body["propertiesWithHistory"] = {
            name: _history(name, chain, sources) for name in view.history if name in view.known
        }
    return body


def _sources(versions: list[Row]) -> list[dict[str, Any]]:
    """Who made each version. An app's bears a number of its own, which people's only copy."""
    seen: set[tuple[str, int | None]] = set()
    found = []
    for version in versions:
        write = (version.id, version.body.get("write"))
        found.append(_PERSON if write[1] is None or write in seen else _APP)
        seen.add(write)
    return found


def _history(name: str, versions: list[Row], sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The values of a property, the newest first."""
    entries: list[dict[str, Any]] = []
    for version, source in zip(versions, sources, strict=True):
        if version.deleted:
            continue
        value = version.body["properties"].get(name)
        if value == (entries[-1]["value"] or None if entries else None):
            continue
        entries.append({"value": value or "", "timestamp": iso(version.changed), **source})
    return entries[::-1][:HISTORY_KEPT]


def iso(epoch: float) -> str:
    """A moment as HubSpot writes it."""
    moment = dt.datetime.fromtimestamp(epoch, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
