"""What the rows of a table hold, kept up as they change: no request looks at all rows."""

from collections import defaultdict
from math import inf

from connectors.sandbox.servers.box import Row, Table


class Index:
    """The index of one table.

    Attributes:
        since: The moment from which a property had a value or was empty somewhere, by its name.
        successors: Where a merged record lives on: the moment, and the other id.
        greatest: The greatest id so far.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.since: dict[str, float] = {}
        self.successors: dict[str, tuple[float, str]] = {}
        self.greatest = 0
        self._holders: dict[str, dict[str, list[str]]] = {}
        before = table.on_change

        def note(row: Row) -> None:
            self._note(row)
            before(row)

        table.on_change = note
        for row in table.changes(inf):
            self._note(row)

    def _note(self, row: Row) -> None:
        properties = row.body.get("properties", {})
        self.greatest = max(self.greatest, int(row.id))
        for name in properties:
            if row.changed < self.since.get(name, inf):
                self.since[name] = row.changed
        for former in (properties.get("hs_merged_object_ids") or "").split(";"):
            if former:
                self.successors.setdefault(former, (row.changed, row.id))
        for name, ids in self._holders.items():
            if value := properties.get(name):
                ids[value].append(row.id)

    def living(self, id: str, now: float) -> str:
        """The id under which a record lives at `now`; its own where it was not merged."""
        while id in self.successors and self.successors[id][0] <= now:
            id = self.successors[id][1]
        return id

    def holding(self, name: str, value: str, now: float, *, archived: bool = False) -> Row | None:
        """The living, or else the archived, record whose property `name` is `value` at `now`."""
        if name not in self._holders:
            self._holders[name] = defaultdict(list)
            for row in self.table.changes(inf):
                if held := row.body.get("properties", {}).get(name):
                    self._holders[name][held].append(row.id)
        for id in self._holders[name].get(value, ()):
            newest = self.table.versions(id, now)[-1:]
            for row in newest:
                if row.deleted == archived and row.body["properties"].get(name) == value:
                    return row
        return None
