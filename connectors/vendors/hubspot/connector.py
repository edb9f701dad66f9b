"""HubSpot's CRM. What its API demands, and what is done about it here:

- A list gives 100 records a page, 50 with the history of properties; the last page names no next
  one. It cannot filter, so it serves the first reading; the history that comes with it gives
  every version of an account, a contact and a deal.
- Later readings search for what changed since. The index lags behind, so a quarter of an hour is
  read again. A search ends at 10,000 results: it is walked by id (`hs_object_id` greater than the
  last one), so no walk gets there, and a record that changes meanwhile is not lost. The time of a
  change is `hs_lastmodifieddate`, with contacts `lastmodifieddate`.
- Searches give neither history nor associations, so both are asked for in batches, but only for
  records that were not seen in this state before: an hour without changes costs one request.
- Archived records are in a list of their own, looked through once a day.
- Merged companies live on under a new id and name the old ones in `hs_merged_object_ids`.
- All values are text; dates come as ISO or as epoch milliseconds.
- 190 requests in 10 s (Professional and Enterprise), 5 searches a second, 650,000 a day. A 429
  tells which limit it was: for the day's nothing is tried again.
- Only the properties that the settings name are asked for: no names, addresses or texts of people
  ever leave HubSpot. Owners are colleagues; their e-mail addresses are left out.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectors.api import ApiStream, Reading, Rows, Secrets, Vendor
from connectors.vendors.hubspot.client import HubSpot
from connectors.vendors.hubspot.settings import HubSpotConfig
from contracts.crm_fields import HANDOFF_FACTS

__all__ = ["VENDOR", "HubSpotConfig"]

ADDRESS = "https://api.hubapi.com"
LIST_PAGE, LIST_PAGE_WITH_HISTORY, OWNERS_PAGE = 100, 50, 500
INDEX_LAG = dt.timedelta(minutes=15)
MOST_SEEN = 20_000
_HANDOFF = [field.name.removeprefix("handoff_") for field in HANDOFF_FACTS]
Records = list[dict[str, Any]]
HubSpotReading = Reading[HubSpotConfig]


@dataclass(frozen=True)
class Kind:
    """What is asked of one type of record.

    `contacts` are properties that have to hold a contact's id; what else people typed there, such
    as a name, is not stored.
    """

    type: str
    properties: list[str]
    history: list[str]
    associations: list[str]
    modified: str = "hs_lastmodifieddate"
    contacts: tuple[str, ...] = ()


def connect(config: HubSpotConfig, secrets: Secrets) -> HubSpot:
    """The client; sends nothing."""
    return HubSpot.at(config.address or ADDRESS, secrets.of(config.token), config.api_version)


def account(client: HubSpot, config: HubSpotConfig) -> str:
    """The portal's number; one that is not for real business says what it is."""
    found = client.details()
    if not found.get("portalId"):
        raise client.corrupt("the portal has no number")
    kind = str(found.get("accountType") or "STANDARD")
    return str(found["portalId"]) + ("" if kind == "STANDARD" else f"-{kind.lower()}")


def read_objects(kind: Kind, reading: HubSpotReading) -> Iterator[Rows]:
    """Everything at first; later what changed, and once a day what was archived."""
    # With other properties than last time, the rows stored so far lack something.
    asked = sorted({*kind.properties, *kind.history, *kind.associations})
    first = reading.since is None or reading.position.get("asked") != asked
    seen = Seen({} if first else reading.position.get("seen", {}))
    pages = _listed(kind, reading, archived=False) if first else _changed(kind, reading, seen)
    for page in pages:
        seen.add(page)
        yield page
    looked = None if first else _last_look(reading)
    if looked is None or reading.now - looked >= _period(reading):
        for page in _listed(kind, reading, archived=True):
            yield [row for row in page if looked is None or _archived_since(row, looked)]
        reading.position["looked_at"] = reading.now.isoformat()
    reading.position |= {"asked": asked, "seen": seen.recent()}


def _period(reading: HubSpotReading) -> dt.timedelta:
    return dt.timedelta(hours=reading.config.deletions_every_hours)


def _last_look(reading: HubSpotReading) -> dt.datetime | None:
    """When archived records were looked through; None when they never were."""
    looked = reading.position.get("looked_at")
    return dt.datetime.fromisoformat(looked) if looked else None


def _archived_since(row: dict[str, Any], looked: dt.datetime) -> bool:
    at = row["archivedAt"]
    return at is None or dt.datetime.fromisoformat(at) >= looked - INDEX_LAG


def _listed(kind: Kind, reading: HubSpotReading, *, archived: bool) -> Iterator[Records]:
    for page in reading.client.objects(
        kind.type,
        properties=[*kind.properties, *kind.history],
        history=kind.history,
        associations=kind.associations,
        archived=archived,
        limit=LIST_PAGE_WITH_HISTORY if kind.history else LIST_PAGE,
    ):
        yield [_row(kind, record, _in_list(kind, record)) for record in page]


def _in_list(kind: Kind, record: dict[str, Any]) -> dict[str, list[str]]:
    """Associations as a list tells them: by type, where the primary one bears no suffix."""
    found = {}
    for other in kind.associations:
        linked = ((record.get("associations") or {}).get(other) or {}).get("results") or []
        ordered = sorted(linked, key=lambda one: str(one.get("type")).endswith("_unlabeled"))
        found[other] = list(dict.fromkeys(str(one["id"]) for one in ordered))
    return found


def _changed(kind: Kind, reading: HubSpotReading, seen: "Seen") -> Iterator[Records]:
    """What was changed since, walked by id, without what was seen in the same state before."""
    assert reading.since is not None
    since = str(int(reading.since.timestamp() * 1000))
    newer = {"propertyName": kind.modified, "operator": "GTE", "value": since}
    for page in reading.client.walk(kind.type, [newer], kind.properties):
        found = [_row(kind, record, {}) for record in page]
        yield _completed(kind, reading.client, [row for row in found if row not in seen])


def _completed(kind: Kind, client: HubSpot, rows: Records) -> Records:
    """Add what a search does not tell: the history of properties, and associations."""
    if kind.history:
        ids = [row["id"] for row in rows]
        size = LIST_PAGE_WITH_HISTORY
        batches = [ids[start : start + size] for start in range(0, len(ids), size)]
        rows = [
            _row(kind, record, {})
            for batch in batches
            for record in client.batch_read(kind.type, batch, kind.properties, kind.history)
        ]
    for other in kind.associations if rows else ():
        linked = client.associated(kind.type, [row["id"] for row in rows], other)
        rows = [{**row, other: linked.get(row["id"], [])} for row in rows]
    return rows


def _row(kind: Kind, record: dict[str, Any], linked: Mapping[str, list[str]]) -> dict[str, Any]:
    """A record as it is stored; of the history only values and times, not who changed them."""
    properties = {name: _kept(kind, name, value) for name, value in record["properties"].items()}
    history = record.get("propertiesWithHistory") or {}
    return {
        "id": str(record["id"]),
        "createdAt": record["createdAt"],
        "modifiedAt": properties.get(kind.modified) or record["updatedAt"],
        "archived": bool(record.get("archived")),
        "archivedAt": record.get("archivedAt"),
        "properties": properties,
        "history": {
            name: [
                {"value": _kept(kind, name, one["value"]), "timestamp": one["timestamp"]}
                for one in values
            ]
            for name, values in history.items()
        },
        **{other: linked.get(other, []) for other in kind.associations},
    }


def _kept(kind: Kind, name: str, value: Any) -> Any:
    """A value, unless it should be a contact's id and is none."""
    is_none = name in kind.contacts and value and not str(value).isdigit()
    return None if is_none else value


class Seen:
    """The records of the newest quarter of an hour, by id and time: a search gives them again."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._times = dict(known)

    def __contains__(self, row: dict[str, Any]) -> bool:
        return self._times.get(row["id"]) == row["modifiedAt"]

    def add(self, page: Records) -> None:
        """Take note of a page."""
        self._times.update((row["id"], row["modifiedAt"]) for row in page)
        if len(self._times) > 2 * MOST_SEEN:
            self._times = self.recent()

    def recent(self) -> dict[str, str]:
        """Those that a search would give again; too many are not worth remembering."""
        if not self._times:
            return {}
        moments = {id: dt.datetime.fromisoformat(time) for id, time in self._times.items()}
        edge = max(moments.values()) - INDEX_LAG
        found = {id: self._times[id] for id, moment in moments.items() if moment >= edge}
        return found if len(found) <= MOST_SEEN else {}


def read_owners(reading: HubSpotReading) -> Iterator[Rows]:
    """Owners that are new or changed; those who left once a day, for their records' sake."""
    looked = _last_look(reading)
    due = looked is None or reading.now - looked >= _period(reading)
    seen: dict[str, list[Any]] = reading.position.setdefault("seen", {})
    for archived in (False, True) if due else (False,):
        for page in reading.client.owners(archived=archived, limit=OWNERS_PAGE):
            states = {str(owner["id"]): [owner["updatedAt"], archived] for owner in page}
            yield [
                owner for owner in page if seen.get(str(owner["id"])) != states[str(owner["id"])]
            ]
            seen |= states
    if due:
        reading.position["looked_at"] = reading.now.isoformat()


def _kinds(config: HubSpotConfig) -> list[Kind]:
    """What the settings make of each type; an empty name leaves a property out."""
    fields = config.fields
    company = fields.company.model_dump()
    lasting = {"number", "name", "domain", "employees", "industry", "region", "started"}
    steps = [name for step in config.milestones.values() for name in (step.due, step.reached)]
    deal, contact = fields.deal.model_dump(), fields.contact.model_dump()
    told = [name for field, name in company.items() if field not in lasting]
    return [
        Kind(
            "companies",
            [*_named(company[field] for field in sorted(lasting)), "hs_parent_company_id"],
            _named([fields.company.number, *told, *steps, "hs_merged_object_ids"]),
            [],
        ),
        Kind("contacts", [], _named(contact.values()), ["companies"], "lastmodifieddate"),
        Kind(
            "deals",
            _named([deal["type"], deal["previous_amount"], deal["effective_on"], "pipeline",
                    "hs_is_closed", "hs_is_closed_won"]),
            _named(deal[field] for field in ("stage", "amount", "currency", "closes", *_HANDOFF)),
            ["companies"],
            contacts=(deal["champion"], deal["decision_maker"]),
        ),
        Kind(
            "tasks",
            ["hs_timestamp", "hs_task_status", "hs_task_priority", "hs_task_type",
             "hubspot_owner_id"],
            [],
            ["companies"],
        ),
        Kind(
            "feedback_submissions",
            _named([*fields.feedback.model_dump().values(), "hs_survey_id"]),
            [],
            ["contacts", "companies"],
        ),
    ]  # fmt: skip


def _named(names: Any) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))


def streams(config: HubSpotConfig) -> dict[str, ApiStream]:
    """The streams; the settings decide which properties they hold."""
    stored = ("id", "createdAt", "modifiedAt", "archived", "archivedAt", "properties", "history")
    found = {
        kind.type: ApiStream(
            partial(read_objects, kind),
            primary_key=("id",),
            columns=(*stored, *kind.associations),
            cursor="modifiedAt",
            overlap=INDEX_LAG,
        )
        for kind in _kinds(config)
    }
    return found | {
        "owners": ApiStream(
            read_owners,
            primary_key=("id",),
            columns=("id", "firstName", "lastName", "updatedAt", "archived"),
            leave_out=frozenset({"email", "teams", "userId", "userIdIncludingInactive"}),
        )
    }


VENDOR = Vendor(
    name="hubspot",
    config=HubSpotConfig,
    connect=connect,
    account=account,
    streams=streams,
    scopes=(
        "a service key with crm.objects.companies.read, crm.objects.contacts.read, "
        "crm.objects.deals.read, crm.objects.owners.read and, for surveys, "
        "crm.objects.feedback_submissions.read"
    ),
)
