"""What all parts of the sandbox's HubSpot share: tables, properties, rights, the day's budget."""

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from starlette.requests import Request

from connectors.sandbox.servers.box import Box, Row, Table
from connectors.sandbox.vendors.hubspot_control import (
    VENDOR,
    Settings,
    collection,
    created_properties,
    settings,
)
from connectors.sandbox.vendors.hubspot_index import Index
from connectors.sandbox.vendors.hubspot_schema import COMMON, STANDARD, built_in
from connectors.sandbox.vendors.hubspot_search import Refused, invalid
from connectors.sandbox.vendors.hubspot_shapes import View, iso, stamps

TYPES = ("companies", "contacts", "deals", "tasks", "feedback_submissions")
WRITABLE = ("companies", "contacts", "deals", "tasks")
TIME_ZONE = ZoneInfo("Europe/Berlin")
_OTHER_NAMES = {
    "company": "companies", "contact": "contacts", "deal": "deals", "task": "tasks",
    "feedback_submission": "feedback_submissions", "0-1": "contacts", "0-2": "companies",
    "0-3": "deals", "0-27": "tasks", "0-19": "feedback_submissions",
}  # fmt: skip
# Tasks have no scope of their own.
_SCOPED_AS = {**{name: name for name in TYPES}, "tasks": "contacts"}


def scope(what: str, act: str) -> str:
    """The scope that lets a token `read` or `write` objects, owners or (schemas) properties."""
    if act.startswith("schemas."):
        return f"crm.schemas.{_SCOPED_AS[what]}.{act.removeprefix('schemas.')}"
    return f"crm.objects.{_SCOPED_AS.get(what, what)}.{act}"


def type_named(what: str) -> str:
    """The usual name of an object type: ``companies`` for company and for 0-2.

    Raises:
        Refused: there is no such type.
    """
    name = _OTHER_NAMES.get(what, what)
    if name not in TYPES:
        raise invalid(f"Unable to infer object type from: {what}")
    return name


SCOPES = frozenset({
    scope("owners", "read"),
    *(scope(name, "read") for name in TYPES),
    *(scope(name, act) for name in WRITABLE for act in ("write", "schemas.read", "schemas.write")),
})  # fmt: skip
"""What a token may do that is not narrowed."""


class Account:
    """One HubSpot account over a box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._indexes: dict[str, Index] = {}
        self._used: tuple[dt.date, int] = (dt.date.min, 0)
        self.writes = 0

    @property
    def now(self) -> float:
        """The sandbox's clock in epoch seconds."""
        return self.box.now.timestamp()

    @property
    def settings(self) -> Settings:
        """What is set in the portal now."""
        return settings(self.box)

    def index(self, type: str) -> Index:
        """What the records of a type hold."""
        if type not in self._indexes:
            self._indexes[type] = Index(collection(self.box, type))
        return self._indexes[type]

    def table(self, type: str) -> Table:
        """The records of a type."""
        return self.index(type).table

    def living(self, id: str) -> str:
        """The id of the company that a company's id leads to; every other id is its own."""
        return self.index("companies").living(id, self.now)

    def row(self, type: str, id: str) -> Row | None:
        """A record by its id or by the id of one that was merged into it."""
        return self.table(type).get(self.living(id), self.now)

    # Properties

    def created(self, type: str) -> dict[str, dict[str, Any] | None]:
        """The properties that were created on a type, by name; None for archived ones."""
        made: dict[str, dict[str, dict[str, Any] | None]] = created_properties(self.box).derived(
            self.now, "by type", _by_type
        )
        return made.get(type, {})

    def names(self, type: str) -> set[str]:
        """Every property that there is, but for those that HubSpot sets."""
        since, now = list(self.index(type).since.items()), self.now
        names = {name for name, at in since if at <= now} | set(STANDARD.get(type, ()))
        for name, definition in self.created(type).items():
            (names.discard if definition is None else names.add)(name)
        return names

    def property(self, type: str, name: str) -> dict[str, Any] | None:
        """The definition of a property; None where there is none."""
        made = self.created(type)
        if name in made:
            return made[name]
        if name in stamps(type) or name in self.names(type):
            return built_in(type, name, queues_read_only=self.settings.queues_read_only)
        return None

    def check_unique(self, type: str, name: str) -> None:
        """See to it that records can be named by a property.

        Raises:
            Refused: its values are not unique, or there is no such property.
        """
        property = self.property(type, name)
        if property is None or not property["hasUniqueValue"]:
            raise invalid(f"Unable to perform this by non-unique {type} property {name}.")

    def view(self, type: str, asked: list[str], history: list[str]) -> View:
        """What is to be shown of records."""

        def versions(id: str) -> list[Row]:
            return self.table(type).versions(id, self.now)

        return View(type, asked, history, self.names(type), versions)

    # Rights and budget

    def authorised(self, request: Request, what: str | None, act: str = "read") -> str:
        """Check the token, its scopes and the day's budget; gives the type by its usual name.

        Raises:
            Refused: 401, 403 or 429, or there is no such type.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        token, _, scopes = given.partition("/")
        if scheme != "Bearer" or token != self.box.token(VENDOR):
            raise Refused(
                401, "INVALID_AUTHENTICATION",
                "Authentication credentials not found, or they have expired.",
            )  # fmt: skip
        self._count()
        if what is None:
            return ""
        name = what if what == "owners" else type_named(what)
        if act == "write" and name not in WRITABLE:
            raise invalid(f"Objects of type {name} cannot be written.")
        needed = scope(name, act)
        if scopes and needed not in scopes.split(","):
            raise Refused(
                403, "MISSING_SCOPES", "This app lacks a scope that is required for this call.",
                errors=[{
                    "message": "One or more of these scopes are required.",
                    "context": {"requiredGranularScopes": [needed]},
                }],
            )  # fmt: skip
        return name

    def used_today(self) -> int:
        """The requests of the portal's day so far, those of other apps too."""
        day, count = self._used
        today = self.box.now.astimezone(TIME_ZONE).date()
        return self.settings.used_by_others + (count if day == today else 0)

    def _count(self) -> None:
        if self.used_today() >= self.settings.daily_limit:
            raise Refused(
                429, "RATE_LIMITS", "You have reached your daily limit.",
                errorType="RATE_LIMIT", policyName="DAILY",
            )  # fmt: skip
        today = self.box.now.astimezone(TIME_ZONE).date()
        day, count = self._used
        self._used = (today, count + 1 if day == today else 1)

    def rate_headers(self) -> dict[str, str]:
        """How much of the budgets is left."""
        limit = self.settings.daily_limit
        return {
            "X-HubSpot-RateLimit-Daily": str(limit),
            "X-HubSpot-RateLimit-Daily-Remaining": str(max(0, limit - self.used_today())),
            "X-HubSpot-RateLimit-Interval-Milliseconds": "10000",
            "X-HubSpot-RateLimit-Max": "190",
            "X-HubSpot-RateLimit-Remaining": "189",
        }

    def usage(self) -> dict[str, Any]:
        """The day's budget as the API tells it."""
        midnight = self.box.now.astimezone(TIME_ZONE).replace(hour=0, minute=0, second=0)
        result = {
            "name": "private-apps-api-calls-daily", "usageLimit": self.settings.daily_limit,
            "currentUsage": self.used_today(), "collectedAt": iso(self.now),
            "fetchStatus": "SUCCESS",
            "resetsAt": iso((midnight + dt.timedelta(days=1)).timestamp()),
        }  # fmt: skip
        return {"results": [result]}


def _by_type(rows: list[Row]) -> dict[str, dict[str, dict[str, Any] | None]]:
    found: dict[str, dict[str, dict[str, Any] | None]] = {}
    for row in rows:
        type, _, name = row.id.partition("/")
        found.setdefault(type, {})[name] = None if row.deleted else _completed(row)
    return found


def _completed(row: Row) -> dict[str, Any]:
    """A created property with everything that the API shows of it."""
    stamps = {
        "createdAt": iso(row.created), "updatedAt": iso(row.changed),
        "createdUserId": "50000099", "updatedUserId": "50000099",
    }  # fmt: skip
    return COMMON | stamps | row.body
