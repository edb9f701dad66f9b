"""What the sandbox's Salesforce org holds: the world's records.

Records are kept as the API shows them, without the system fields that follow from their versions.
A merge deletes the loser, names the winner in `MasterRecordId` and moves the children over; a
deletion takes the children along. Changes of tracked fields leave rows in the history objects.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from connectors.sandbox.servers.box import Box, Table, WorldFiles
from connectors.sandbox.servers.moments import from_berlin
from connectors.sandbox.vendors.salesforce_ids import (
    ORGANIZATION,
    SOMEBODY,
    VENDOR,
    moment_text,
    record_id,
    with_checksum,
)
from connectors.sandbox.vendors.salesforce_schema import HISTORY, SCHEMA, TRACKED
from connectors.sandbox.vendors.salesforce_setup import SETUP
from connectors.sandbox.vendors.soql import Record
from connectors.sandbox.vendors.typed_facts import CONTACTS, Typed, handoffs, overrides

_CRM_ZONE = ZoneInfo("Europe/Berlin")
_INTEGRATION_USER = "Integration User"
_TIME_ZONES = ("Europe/Berlin", "Europe/London", "America/New_York", "Asia/Tokyo")
Names = Mapping[Any, str | None]
"""Of users and accounts, by id."""

Put = tuple[str, Record, float]
"""A version of a record: id, body, and the epoch second from which on it is there."""


def records(box: Box, name: str) -> Table:
    """The records of an object; with the world's records in it from the beginning."""

    def fill(table: Table) -> None:
        for id, body, at in _WORLD.get(name, _nothing)(box.world):
            table.put(id, body, at)
        for id, body in SETUP.get(name, {}).items():
            table.put(id, body, 0.0)

    return box.table(VENDOR, name, fill)


def save(box: Box, name: str, id: str, changes: Record, at: float) -> None:
    """Change a record as a user would: a new version, and what its history keeps of it.

    It was somebody else than the integration's user, unless `changes` say who (LastModifiedById).
    """
    store(box, name, id, {"LastModifiedById": SOMEBODY} | changes, at)


def store(box: Box, name: str, id: str, changes: Record, at: float) -> None:
    """Put a new version of a record, and what its history keeps of the change.

    The world's later versions do not know of fields that were added to the org: these fields keep
    their new values in them.
    """
    table = records(box, name)
    versions = table.versions(id, math.inf)
    row = next((row for row in reversed(versions) if row.changed <= at), None)
    before = row.body if row and not row.deleted else {}
    if name == "Task":
        changes = _with_completion(before, changes, closed_statuses(box, at), at)
    table.put(id, before | changes, at)
    later = {row.changed: row for row in versions if row.changed > at and not row.deleted}
    for row in later.values():
        added = {field: changes[field] for field in changes if field not in SCHEMA.get(name, {})}
        table.put(id, row.body | added, row.changed)
    if before and name in HISTORY and not changes.keys().isdisjoint(TRACKED[name]):
        history, _ = HISTORY[name]
        shown = (row for name in ("User", "Account") for row in records(box, name).rows(at))
        names: Names = {row.id: row.body.get("Name") for row in shown}
        for put in _history_of(name, id, before, before | changes, at, names):
            records(box, history).put(*put)


def closed_statuses(box: Box, at: float) -> set[str]:
    """The values of a task's status that mean that it is done."""
    rows = records(box, "TaskStatus").rows(at)
    return {row.body["ApiName"] for row in rows if row.body["IsClosed"]}


def _with_completion(before: Record, changes: Record, closed: set[str], at: float) -> Record:
    """A task's moment of completion goes with its status."""
    if "Status" not in changes or "CompletedDateTime" in changes:
        return changes
    was, is_closed = (body.get("Status") in closed for body in (before, changes))
    if was == is_closed:
        return changes
    return changes | {"CompletedDateTime": moment_text(at) if is_closed else None}


def _hashed_id(prefix: str, *parts: object) -> str:
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()
    return with_checksum(prefix + digest[:12])


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _digits(key: str) -> int:
    return int("".join(filter(str.isdigit, key)))


def _nothing(world: WorldFiles) -> Iterator[Put]:
    return iter(())


def _organization(world: WorldFiles) -> Iterator[Put]:
    body = {
        "Name": "Lakeview Analytics",
        "IsSandbox": False,
        "OrganizationType": "Unlimited Edition",
    }
    yield ORGANIZATION, body, 0.0


def _people(world: WorldFiles) -> list[str]:
    changes, notes = world.rows("crm/account_changes.csv"), world.rows("crm/csm_notes.csv")
    names = {row[column] for row in changes for column in ("Success_Manager", "Sales_Rep")}
    return [_INTEGRATION_USER, *sorted((names | {row["Author"] for row in notes}) - {None})]


def _user_ids(world: WorldFiles) -> dict[str | None, str | None]:
    return {None: None} | {
        name: record_id("005", number) for number, name in enumerate(_people(world), 1)
    }


def _users(world: WorldFiles) -> Iterator[Put]:
    for number, (name, id) in enumerate(_user_ids(world).items()):
        if name is not None and id is not None:
            first, _, last = name.partition(" ")
            login = f"{first}.{last}@lakeview.example".lower()
            yield id, {
                "Username": login, "FirstName": first, "LastName": last, "Name": name,
                "Email": login, "IsActive": True, "UserType": "Standard",
                "TimeZoneSidKey": _TIME_ZONES[number % len(_TIME_ZONES)],
                "ManagerId": SOMEBODY if number > 2 else None,
            }, from_berlin("2019-01-07 09:00:00") + number * 86400  # fmt: skip


def _account_ids(world: WorldFiles) -> dict[str | None, str | None]:
    rows = world.rows("crm/accounts.csv")
    return {None: None} | {row["Account_No"]: with_checksum(row["Record_Id"]) for row in rows}


def _accounts(world: WorldFiles) -> Iterator[Put]:
    """Every version of every account, with the risk that somebody set by hand."""
    ids, typed = _account_ids(world), dict[str | None, list[tuple[float, Record]]]()
    for number, set_at, values in overrides(world):
        typed.setdefault(ids[number], []).append((from_berlin(set_at), _typed(values)))
    for id, versions in groupby(_account_versions(world), key=itemgetter(0)):
        yield from _with_typed(list(versions), typed.get(id, []))


def _typed(values: Typed) -> Record:
    """What people typed into fields, as the API shows it."""
    body: Record = {}
    for field, text in values.items():
        contact = record_id("003", _digits(text)) if field in CONTACTS and text else None
        body[field.salesforce] = _number(text) if field.kind == "number" else contact or text
    return body


def _with_typed(versions: list[Put], typed: list[tuple[float, Record]]) -> list[Put]:
    """The versions of one record with what people typed into it besides, in the order of time."""
    id, _, created = versions[0]
    events = [(at, body) for _, body, at in versions]
    events += [(max(at, created + 1), body) for at, body in typed]
    found, state = [], Record()
    for at, body in sorted(events, key=itemgetter(0)):
        state = state | body
        found.append((id, state, at))
    return found


def _account_versions(world: WorldFiles) -> Iterator[Put]:
    """The versions that the world tells; after a merge or deletion nothing more happens."""
    facts = {row["Account_No"]: row for row in world.rows("crm/accounts.csv")}
    ids, users, gone = _account_ids(world), _user_ids(world), set()
    for row in world.rows("crm/account_changes.csv"):
        number, fact = row["Account_No"], facts[row["Account_No"]]
        id = ids[number]
        if id is None or number in gone:
            continue
        body = {
            "Name": fact["Account_Name"], "AccountNumber": number, "Type": row["Status"],
            "Website": fact["Website"], "Phone": None, "ParentId": ids[fact["Parent_Account"]],
            "MasterRecordId": ids[row["Merged_Into"]], "Industry": fact["Industry"],
            "AnnualRevenue": None, "NumberOfEmployees": int(fact["Headcount"]),
            "Description": None, "OwnerId": users[row["Sales_Rep"]],
            "CurrencyIsoCode": row["Currency"], "ARR__c": _number(row["Annual_Value"]),
            "Renewal_Date__c": row["Next_Renewal"], "Customer_Since__c": fact["Customer_Since"],
            "Edition__c": row["Edition"], "Objective__c": row["Objective"],
            "Region__c": fact["Region"], "Success_Manager__c": users[row["Success_Manager"]],
        }  # fmt: skip
        if row["Merged_Into"] is not None or row["Deleted"] == "yes":
            body["IsDeleted"] = True
            gone.add(number)
        yield id, body, from_berlin(row["Changed_At"])


def _history_of(
    name: str, id: str, before: Record, after: Record, at: float, names: Names
) -> Iterator[Put]:
    """The history rows of one change. A reference has two: the ids, and the names behind them."""
    _, parent = HISTORY[name]
    for field in (SCHEMA[name][tracked] for tracked in TRACKED[name] if tracked in SCHEMA[name]):
        old, new = before.get(field.name), after.get(field.name)
        if old == new:
            continue
        shown = field.name.removesuffix("Id") if field.refers else field.name
        kinds = ("EntityId", "Text") if field.refers else (_DATA_TYPES.get(field.type, "Text"),)
        for kind in kinds:
            body = {parent: id, "Field": shown, "DataType": kind, "OldValue": old, "NewValue": new}
            if kind == "Text" and field.refers:
                body |= {"OldValue": names.get(old), "NewValue": names.get(new)}
            yield _hashed_id("017", id, field.name, kind, at), body, at


_DATA_TYPES = {
    "currency": "Currency", "double": "Double", "date": "DateOnly", "datetime": "DateTime",
    "picklist": "DynamicEnum",
}  # fmt: skip


def _history(name: str, versions: Callable[[WorldFiles], Iterator[Put]]) -> Callable[..., Any]:
    def fill(world: WorldFiles) -> Iterator[Put]:
        known: dict[str, Record] = {}
        names = {id: name for name, id in _user_ids(world).items()}
        for id, body, at in versions(world):
            if id in known:
                yield from _history_of(name, id, known[id], body, at, names)
            known[id] = body

    return fill


Fates = dict[str | None, tuple[float, str | None]]
"""When an account (by id) was merged or deleted, and into which it was merged."""


def _fates(world: WorldFiles) -> Fates:
    return {
        id: (at, body["MasterRecordId"])
        for id, body, at in _accounts(world)
        if body.get("IsDeleted")
    }


def _followed(versions: Iterable[Put], link: str, fates: Fates) -> Iterator[Put]:
    """Versions of one record that belongs to an account: it goes where the account goes."""
    versions = sorted(versions, key=lambda put: put[2])
    fate = fates.get(versions[0][1][link])
    if fate is None:
        yield from versions
        return
    at, heir = fate
    before = [put for put in versions if put[2] < at]
    after = [put for put in versions if put[2] >= at]
    yield from before
    if heir is None:
        if before:
            yield before[-1][0], before[-1][1] | {"IsDeleted": True}, at
        return
    moved = [(id, body | {link: heir}, when) for id, body, when in after]
    if before:
        moved.insert(0, (before[-1][0], before[-1][1] | {link: heir}, at))
    yield from _followed(moved, link, fates)


def _contacts(world: WorldFiles) -> Iterator[Put]:
    ids, fates = _account_ids(world), _fates(world)
    versions: dict[str, list[Put]] = {}
    for row in world.rows("crm/contacts.csv"):
        id = record_id("003", _digits(row["Contact_No"]))
        body = {
            "AccountId": ids[row["Account_No"]], "FirstName": None, "LastName": row["Contact_No"],
            "Name": row["Contact_No"], "Email": row["Email"], "Phone": None, "Title": None,
            "Role__c": row["Role"], "Since__c": row["Since"], "Left_On__c": row["Left_On"],
            "Contact_No__c": row["Contact_No"], "MasterRecordId": None,
        }  # fmt: skip
        versions.setdefault(id, []).append((id, body, from_berlin(row["Modified_At"])))
    for found in versions.values():
        yield from _followed(found, "AccountId", fates)


def _deals(world: WorldFiles) -> Iterator[list[Put]]:
    """The versions of each opportunity: open, and once it is closed as it ended."""
    ids, seen = _account_ids(world), set()
    for row in world.rows("crm/opportunities.csv"):
        id = record_id("006", _digits(row["Opportunity_No"]))
        if id in seen:
            continue
        seen.add(id)
        created = from_berlin(row["Created_At"])
        closes = row["Closed_At"] is not None
        body = {
            "AccountId": ids[row["Account_No"]], "Name": f"{row['Type']} {row['Account_No']}",
            "Type": row["Type"], "StageName": "Proposal" if closes else row["Stage"],
            "Amount": _number(row["Amount"]), "Probability": 50.0,
            "CloseDate": row["Expected_Close"], "IsClosed": False, "IsWon": False,
            "LastStageChangeDate": None, "CurrencyIsoCode": row["Currency"],
            "Previous_Amount__c": _number(row["Previous_Amount"]), "Effective_On__c": None,
            "Opportunity_No__c": row["Opportunity_No"],
        }  # fmt: skip
        versions: list[Put] = [(id, body, created)]
        if closes:
            closed = max(from_berlin(row["Closed_At"]), created + 1)
            won = row["Stage"] == "Closed won"
            ending = {
                "StageName": row["Stage"], "IsClosed": True, "IsWon": won,
                "Probability": 100.0 if won else 0.0, "LastStageChangeDate": moment_text(closed),
                "Effective_On__c": row["Effective_On"],
            }  # fmt: skip
            versions.append((id, body | ending, closed))
        yield versions


def _opportunities(world: WorldFiles) -> Iterator[Put]:
    fates, forms = _fates(world), handoffs(world)
    for versions in _deals(world):
        notes = forms.get(versions[0][1]["Opportunity_No__c"], [])
        typed = [(from_berlin(noted_at), _typed(form)) for noted_at, form in notes]
        yield from _followed(_with_typed(versions, typed), "AccountId", fates)


def _stages(world: WorldFiles) -> Iterator[Put]:
    for versions in _deals(world):
        for id, deal, at in versions:
            kept = ("StageName", "Amount", "Probability", "CloseDate")
            body = {"OpportunityId": id} | {name: deal[name] for name in kept}
            yield _hashed_id("008", id, at), body, at


def _notes(world: WorldFiles) -> Iterator[Put]:
    ids, users, fates = _account_ids(world), _user_ids(world), _fates(world)
    for row in world.rows("crm/csm_notes.csv"):
        author = users[row["Author"]]
        body = {
            "Name": row["Note_No"], "Account__c": ids[row["Account_No"]],
            "Rating__c": _number(row["Rating"]), "Note__c": row["Note"],
            "Competitor_Mentioned__c": row["Competitor_Mentioned"] == "yes",
            "Valid_Until__c": row["Valid_Until"], "OwnerId": author, "CreatedById": author,
        }  # fmt: skip
        put = (record_id("a00", _digits(row["Note_No"])), body, from_berlin(row["Written_At"]))
        yield from _followed([put], "Account__c", fates)


def _goals(world: WorldFiles) -> Iterator[Put]:
    """One record for each goal, changed by every measurement."""
    ids, fates = _account_ids(world), _fates(world)
    versions: dict[str, list[Put]] = {}
    for row in world.rows("crm/goals.csv"):
        if not row["Measured_At"][:1].isdigit():
            continue  # a datetime field cannot hold it
        id, at = record_id("a01", _digits(row["Goal_No"])), from_berlin(row["Measured_At"])
        body = {
            "Name": row["Goal"], "Account__c": ids[row["Account_No"]], "Goal_No__c": row["Goal_No"],
            "Target__c": _number(row["Target_Percent"]), "Due__c": row["Due"],
            "Progress__c": _number(row["Reached_Percent"]), "Measured_At__c": moment_text(at),
        }  # fmt: skip
        versions.setdefault(id, []).append((id, body, at))
    for found in versions.values():
        yield from _followed(found, "Account__c", fates)


def _milestones(world: WorldFiles) -> Iterator[Put]:
    ids, fates = _account_ids(world), _fates(world)
    for row in world.rows("crm/milestones.csv"):
        id, planned = record_id("a02", _digits(row["Milestone_No"])), from_berlin(row["Planned_At"])
        body = {
            "Name": row["Milestone"], "Account__c": ids[row["Account_No"]],
            "Milestone_No__c": row["Milestone_No"], "Due__c": row["Due"], "Reached__c": None,
        }  # fmt: skip
        versions = [(id, body, planned)]
        if row["Reached"] is not None:
            reached = max(from_berlin(f"{row['Reached']} 17:00:00"), planned + 1)
            versions.append((id, body | {"Reached__c": row["Reached"]}, reached))
        yield from _followed(versions, "Account__c", fates)


_WORLD: dict[str, Callable[[WorldFiles], Iterator[Put]]] = {
    "Organization": _organization,
    "User": _users,
    "Account": _accounts,
    "AccountHistory": _history("Account", _accounts),
    "Contact": _contacts,
    "Opportunity": _opportunities,
    "OpportunityHistory": _stages,
    "CSM_Note__c": _notes,
    "Goal__c": _goals,
    "Goal__History": _history("Goal__c", _goals),
    "Milestone__c": _milestones,
}
