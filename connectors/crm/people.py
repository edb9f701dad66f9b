"""Who gets a task: people by the names that accounts have, managers, queues, a fallback."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from connectors.crm.settings import Owners
from connectors.crm.writing import Owner

END_OF_WORK = dt.time(17)
SATURDAY = 5


@dataclass(frozen=True)
class Assignee:
    """Who a task goes to, and in which time zone its days are counted.

    `fell_back` says that the one who was meant is not there, not active, or not to be told apart.
    """

    owner_id: str | None
    name: str
    zone: ZoneInfo
    fell_back: bool = False


class People:
    """The users and queues of one CRM, and what `crm.yaml` says about them."""

    def __init__(self, owners: Iterable[Owner], settings: Owners, zone: ZoneInfo) -> None:
        self._by_id = {owner.id: owner for owner in owners}
        self._settings = settings
        self._zone = zone
        self._by_name: dict[str, list[Owner]] = {}
        for owner in self._by_id.values():
            self._by_name.setdefault(_folded(owner.name), []).append(owner)

    def assign(self, role: str, *, person: str | None, csm: str | None) -> Assignee:
        """Who does a task of a role: csm, sales, csm_manager, or ``queue:<name>``.

        `person` is the one of that role at the account and `csm` its CSM, by name.
        """
        if role.startswith("queue:"):
            found = self._queue(role.removeprefix("queue:"))
        elif role == "csm_manager":
            found = self._manager_of(csm)
        else:
            found = self._person(person)
        return self._assignee(found) if found else self.fallback()

    def fallback(self) -> Assignee:
        """Who takes what nobody else can; without a setting, whoever the CRM chooses."""
        given = self._settings.fallback
        found = self._named(given) or self._queue(given) if given else None
        if found is None:
            return Assignee(None, "unassigned", self._zone, fell_back=True)
        return Assignee(found.id, found.name, self._zone_of(found), fell_back=True)

    @property
    def inactive(self) -> set[str]:
        """The names of those who are there and cannot own a task any more."""
        names = {owner.name for owner in self._by_id.values() if not owner.active}
        return {name for name in names if self._named(name) is None}

    @property
    def fallback_is_missing(self) -> bool:
        """Whether `crm.yaml` names a fallback that the CRM does not have."""
        return bool(self._settings.fallback) and self.fallback().owner_id is None

    def _person(self, name: str | None) -> Owner | None:
        if not name:
            return None
        return self._named(self._settings.names.get(name, name))

    def _named(self, name_or_id: str) -> Owner | None:
        """The active user of that id, or the only one of that name."""
        if name_or_id in self._by_id:
            found = [self._by_id[name_or_id]]
        else:
            found = [
                owner for owner in self._by_name.get(_folded(name_or_id), ()) if not owner.is_queue
            ]
        active = [owner for owner in found if owner.active]
        return active[0] if len(active) == 1 else None

    def _manager_of(self, csm: str | None) -> Owner | None:
        person = self._person(csm)
        manager = self._by_id.get(person.manager_id or "") if person else None
        if manager and manager.active:
            return manager
        return self._named(self._settings.csm_manager) if self._settings.csm_manager else None

    def _queue(self, name: str) -> Owner | None:
        given = self._settings.queues.get(name, name)
        if given in self._by_id:
            return self._by_id[given]
        queues = [owner for owner in self._by_name.get(_folded(given), ()) if owner.is_queue]
        return queues[0] if len(queues) == 1 else None

    def _assignee(self, owner: Owner) -> Assignee:
        return Assignee(owner.id, owner.name, self._zone_of(owner))

    def _zone_of(self, owner: Owner) -> ZoneInfo:
        given = self._settings.time_zones
        name = given.get(owner.id) or given.get(owner.name) or owner.time_zone
        try:
            return ZoneInfo(name) if name else self._zone
        except (ValueError, OSError):  # a zone that only the CRM knows
            return self._zone


def due_day(now: dt.datetime, zone: ZoneInfo, days: int) -> dt.date:
    """The day so many days from now in a time zone; one at a week-end moves to Monday.

    >>> friday_night = dt.datetime(2026, 7, 3, 23, tzinfo=dt.UTC)
    >>> due_day(friday_night, ZoneInfo("Europe/Berlin"), 0)     # Saturday there already
    datetime.date(2026, 7, 6)
    """
    day = now.astimezone(zone).date() + dt.timedelta(days=days)
    over = day.weekday() - SATURDAY
    return day if over < 0 else day + dt.timedelta(days=2 - over)


def end_of_work(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """Five in the afternoon of a day there, in UTC."""
    return dt.datetime.combine(day, END_OF_WORK, zone).astimezone(dt.UTC)


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
