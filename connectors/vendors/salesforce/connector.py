"""Salesforce. What its API demands, and what is done about it here:

- Records come by `queryAll`, so that deleted and merged ones do; a merged account names its heir
  in `MasterRecordId`. What was purged from the recycle bin is out of reach.
- Changes are followed by `SystemModstamp`, with an overlap because late commits carry early
  stamps, in the order of `SystemModstamp, Id`. A cursor over pages lives two days: if it has
  expired, the query goes on from the last row.
- A formula or a parent's field changes without a new stamp. Objects of which such fields are
  asked for are read whole once a day, and what changed is dated by when we saw it.
- Every org has fields of its own. `describe` tells once which of those that the settings name are
  there; the others stay null. It is asked again when a query is told INVALID_FIELD.
- The history of accounts and goals, and the stages of opportunities, let a first reading tell
  what was known when.
- More rows than a limit come by Bulk 2.0 where all of an object is read. The settings bound the
  length of a field's name, so that every query fits into an address of 16,384 bytes.
- `Sforce-Limit-Info` says how much of the daily allowance is used: reading stops before the
  other programs of the company run dry.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from simple_salesforce import format_soql

from connectors.api import ApiStream, Reading, Rows, Vendor
from connectors.vendors.salesforce.bulk import bulk_pages
from connectors.vendors.salesforce.client import (
    CursorExpired,
    NoSuchObject,
    SalesforceClient,
    UnknownName,
    connect,
)
from connectors.vendors.salesforce.entities import ENTITIES, Entity
from connectors.vendors.salesforce.queries import check, pages
from connectors.vendors.salesforce.settings import Meanings, SalesforceConfig
from contracts.errors import SourceCorrupt, SourceRefused

OVERLAP = dt.timedelta(minutes=15)

_REST_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000")
_CONTACT_ID = "^003[A-Za-z0-9]{12}([A-Za-z0-9]{3})?$"


def read(entity: Entity, reading: Reading[SalesforceConfig]) -> Iterator[Rows]:
    """Read what changed in an object, or all of it the first time and when it is due.

    The position tells what `describe` said (`asked`, `there`, `missing`, `silent`, `looked_at`),
    which fields the rows so far hold (`fields`), and when all was read first and last (`first_at`,
    `scanned_at`).
    """
    position = reading.position
    looked = _look_if_due(entity, reading)
    try:
        if position["there"] is not None:
            yield from _rows(entity, reading)
    except UnknownName:
        before = position["there"]
        if looked or _look(entity, reading) == before:
            raise
        if position["there"] is not None:
            yield from _rows(entity, reading)


def _look_if_due(entity: Entity, reading: Reading[SalesforceConfig]) -> bool:
    position = reading.position
    if position.get("asked") == _asked(entity, reading.config):
        missing = position["there"] is None or position["missing"]
        if not missing or not _is_due(reading, "looked_at"):
            return False
    _look(entity, reading)
    return True


def _is_due(reading: Reading[SalesforceConfig], what: str) -> bool:
    last = dt.datetime.fromisoformat(reading.position[what])
    return reading.now - last >= dt.timedelta(hours=reading.config.full_scan_hours)


def _asked(entity: Entity, config: SalesforceConfig) -> dict[str, Any]:
    own = config.fields_of(entity.fields) if entity.fields else {}
    return {"object": entity.name_in(config), "fields": {**entity.system, **own}}


def _look(entity: Entity, reading: Reading[SalesforceConfig]) -> Meanings | None:
    """Ask which of the fields the org has; None when it does not have the object."""
    asked = _asked(entity, reading.config)
    name, wanted = asked["object"], asked["fields"]
    try:
        described = reading.client.ask(lambda org: org.restful(f"sobjects/{name}/describe"))
        found = {item["name"].lower(): item for item in described["fields"]}
    except NoSuchObject:
        if not entity.optional:
            cause = f"the user may not read {name}"
            raise reading.client.named(SourceRefused(cause, "give the right to read it")) from None
        found = {}
    except (KeyError, TypeError, AttributeError):
        cause = f"described {name} in another shape"
        raise reading.client.named(SourceCorrupt(cause, "try again later")) from None
    parents = {str(item.get("relationshipName")).lower(): item for item in found.values()}
    there = {
        column: path
        for column, path in wanted.items()
        if path.split(".")[0].lower() in (parents if "." in path else found)
    }
    reading.position |= {
        "asked": asked,
        "there": there if found else None,
        "missing": sorted(set(wanted.values()) - set(there.values())),
        "silent": any(
            _is_silent(path, parents if "." in path else found) for path in there.values()
        ),
        "looked_at": reading.now.isoformat(),
    }
    return there if found else None


def _is_silent(path: str, described: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a field changes without a new stamp: a formula, or a parent's field.

    The name of a person is no reason to read everything again.
    """
    item = described[path.split(".")[0].lower()]
    if "." in path:
        return item.get("referenceTo") != ["User"]
    return bool(item.get("calculated"))


@dataclass
class _Scan:
    """One query over an object: from when on, and how its rows become ours.

    `since` is None where all rows are wanted. What changed up to `first_at` was there when we
    first looked (`backfilled`), so nobody told us when it became so. Rows that have not changed
    since `before` are dated by the scan itself: what is new in them was not known earlier.
    """

    entity: Entity
    fields: Meanings
    object: str
    since: dt.datetime | None
    names: Mapping[str, str]
    first_at: str
    before: str = ""
    seen_at: str = ""

    def soql(self) -> str:
        """The query. Names were checked with the settings; every value is quoted."""
        cursor, conditions = self.entity.system[self.entity.cursor], []
        if self.names:
            conditions.append(format_soql("Field IN {}", sorted(self.names)))
        if self.since is not None:
            conditions.append(format_soql("{:literal} >= {}", cursor, self.since))
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        selected = ", ".join(dict.fromkeys(self.fields.values()))
        return f"SELECT {selected} FROM {self.object}{where} ORDER BY {cursor}, Id"

    def row(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of REST."""
        row = {column: _at(record, path) for column, path in self.fields.items()}
        changed = str(row[self.entity.cursor] or "")
        is_silent = changed < self.before
        row["known_at"] = self.seen_at if is_silent else changed
        row["backfilled"] = changed <= self.first_at and not is_silent
        if self.names:
            row["field"] = self.names.get(row["field"], row["field"])
        for column in self._contacts:
            if not re.match(_CONTACT_ID, str(row[column])):
                row[column] = None
        return row

    def table(self, page: pa.Table) -> pa.Table:
        """A page of Bulk 2.0."""
        spelled = {name.lower(): name for name in page.column_names}
        columns = {
            column: page.column(spelled[path.lower()]) for column, path in self.fields.items()
        }
        changed = columns[self.entity.cursor]
        is_silent = pc.less(changed, self.before)
        columns["known_at"] = pc.if_else(is_silent, pa.scalar(self.seen_at), changed)
        backfilled = pc.and_not(pc.less_equal(changed, self.first_at), is_silent)
        columns["backfilled"] = pc.cast(backfilled, pa.string())
        if self.names:
            named = [self.names.get(name, name) for name in columns["field"].to_pylist()]
            columns["field"] = pa.array(named, pa.string())
        for column in self._contacts:
            is_one = pc.match_substring_regex(columns[column], _CONTACT_ID)
            columns[column] = pc.if_else(is_one, columns[column], pa.scalar(None, pa.string()))
        return pa.table(columns)

    @property
    def _contacts(self) -> list[str]:
        return [column for column in self.entity.contacts if column in self.fields]


def _rows(entity: Entity, reading: Reading[SalesforceConfig]) -> Iterator[Rows]:
    """The pages of one scan, which is a whole one when the fields are others than before."""
    position = reading.position
    fields: Meanings = position["there"]
    is_first = reading.since is None or position.get("fields") != fields
    is_whole = is_first or (position["silent"] and _is_due(reading, "scanned_at"))
    since = None if is_whole else reading.since
    if since is None and entity.recent:
        since = dt.datetime.combine(reading.history_start, dt.time(), dt.UTC)
    if is_first:
        position["first_at"] = _as_text(reading.now)
    scan = _Scan(
        entity, fields, position["asked"]["object"], since,
        names=_tracked(entity, reading.config), first_at=position["first_at"],
    )  # fmt: skip
    if is_whole and not is_first and reading.since is not None:
        # Older rows are there for what changed in silence, which was not known before now.
        scan.before, scan.seen_at = _as_text(reading.since), _as_text(reading.now)
    yield from _pages(scan, reading, may_be_bulk=is_whole)
    position["fields"] = fields
    if is_whole:
        position["scanned_at"] = reading.now.isoformat()


def _tracked(entity: Entity, config: SalesforceConfig) -> dict[str, str]:
    """Our names of the fields that a history tells about. It calls ``OwnerId`` Owner."""
    if entity.tracks is None:
        return {}
    return {
        path if path.endswith("__c") else path.removesuffix("Id"): column
        for column, path in config.fields_of(entity.tracks).items()
        if "." not in path
    }


def _pages(scan: _Scan, reading: Reading[SalesforceConfig], *, may_be_bulk: bool) -> Iterator[Rows]:
    client: SalesforceClient = reading.client
    config, soql = reading.config, scan.soql()
    last = ""
    while True:
        try:
            for answer in pages(client, soql):
                if may_be_bulk and answer["totalSize"] > config.bulk_above_rows:
                    yield from map(scan.table, bulk_pages(client, _unordered(soql), config))
                    return
                rows = [scan.row(record) for record in answer["records"]]
                yield rows
                last = str(rows[-1][scan.entity.cursor]) if rows else last
                may_be_bulk = False
            return
        except CursorExpired:
            reached = dt.datetime.fromisoformat(last) if last else None
            if reached is None or reached == scan.since:
                raise
            scan.since = reached
            soql = scan.soql()


def _unordered(soql: str) -> str:
    """Bulk 2.0 splits a query by ids, which an order prevents."""
    return soql.partition(" ORDER BY ")[0]


def _at(record: Mapping[str, Any], path: str) -> Any:
    """The value of a field, through parents; times as Bulk 2.0 writes them."""
    value: Any = record
    for step in path.split("."):
        value = _whatever_case(value, step) if isinstance(value, dict) else None
    if isinstance(value, str) and _REST_TIME.fullmatch(value):
        return f"{value[:-5]}Z"
    return value


def _whatever_case(record: Mapping[str, Any], name: str) -> Any:
    """A field as the org spells it, which may differ from the settings in its case."""
    if name in record:
        return record[name]
    return next((record[key] for key in record if key.lower() == name.lower()), None)


def _as_text(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S}.000Z"


def account(client: SalesforceClient, config: SalesforceConfig) -> str:
    """The org's id; a sandbox org says that it is one."""
    soql = "SELECT Id, IsSandbox FROM Organization"
    answer = client.ask(lambda org: org.query(soql))
    check(client, answer)
    if len(answer["records"]) != 1:
        raise client.named(SourceCorrupt("named no organization", "try again later"))
    (org,) = answer["records"]
    return f"{org['Id']} (sandbox)" if org.get("IsSandbox") else str(org["Id"])


STREAMS = {
    name: ApiStream(
        read=partial(read, entity),
        primary_key=entity.primary_key,
        columns=entity.columns,
        cursor=entity.cursor,
        overlap=OVERLAP,
    )
    for name, entity in ENTITIES.items()
}

VENDOR = Vendor(
    name="salesforce",
    config=SalesforceConfig,
    connect=connect,
    account=account,
    streams=STREAMS,
    scopes="an API-only user with the permission 'API Enabled' and read access to the objects and "
    "fields that are named (OAuth scope `api`)",
)
