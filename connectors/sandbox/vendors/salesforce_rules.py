"""Refusals of single records that a test orders: locks, validation rules, duplicate rules."""

from collections.abc import Iterable, Mapping
from typing import Any

from connectors.sandbox.servers.box import Box, Table
from connectors.sandbox.vendors.salesforce_ids import VENDOR

_MESSAGES = {
    "UNABLE_TO_LOCK_ROW": "unable to obtain exclusive access to this record",
    "DUPLICATES_DETECTED": "Use one of these records?",
    "INSUFFICIENT_ACCESS_OR_READONLY": "insufficient access rights on object id",
}


class RowRefused(Exception):
    """A record that is not written, though others of its call may be."""

    def __init__(self, code: str, message: str, fields: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.fields = code, message, tuple(fields)


def rules(box: Box) -> Table:
    """The refusals that are ordered, in the order in which they are tried.

    A row has `object` and `statusCode`, and as it likes `message` and `fields`. It is about every
    record of the object, or those with one of the `ids`, or those that will have the values
    `where` says; at most about the first `most` of them, and each of these `times` times.
    """
    return box.table(VENDOR, "_rules", lambda table: None)


def refuse(
    box: Box,
    object: str,
    status_code: str,
    *,
    ids: Iterable[str] | None = None,
    where: Mapping[str, Any] | None = None,
    most: int | None = None,
    times: int | None = None,
    message: str | None = None,
    fields: Iterable[str] = (),
) -> str:
    """Order a refusal, from now on; gives the id of its row in `rules`."""
    table, now = rules(box), box.now.timestamp()
    id = f"{len(table.rows(now, deleted=True)) + 1:04d}"
    body = {
        "object": object, "statusCode": status_code, "ids": None if ids is None else list(ids),
        "where": dict(where or {}), "most": most, "times": times, "message": message,
        "fields": list(fields),
    }  # fmt: skip
    table.put(id, body, now)
    return id


class Rules:
    """The refusals that hold for one call."""

    def __init__(self, box: Box) -> None:
        now = box.now.timestamp()
        counts = box.table(VENDOR, "_rule_counts", lambda table: None)
        self._rules: list[tuple[dict[str, Any], frozenset[str] | None, dict[str, int]]] = []
        for row in sorted(rules(box).rows(now), key=lambda row: row.id):
            if counts.get(row.id, now) is None:
                counts.put(row.id, {}, 0.0)
            refused = counts.get(row.id, now)
            assert refused is not None
            ids = row.body.get("ids")
            self._rules.append((row.body, None if ids is None else frozenset(ids), refused.body))

    def check(self, name: str, key: str, record: Mapping[str, Any]) -> None:
        """Let a record pass that no rule is about.

        `key` tells the record's attempts apart from those of others.

        Raises:
            RowRefused: a rule is about it.
        """
        for rule, ids, refused in self._rules:
            wanted = rule.get("where") or {}
            if (
                rule["object"] != name
                or (ids is not None and key not in ids)
                or any(record.get(field) != value for field, value in wanted.items())
            ):
                continue
            most, times = rule.get("most"), rule.get("times")
            if key not in refused and most is not None and len(refused) >= most:
                continue
            if times is not None and refused.get(key, 0) >= times:
                continue
            refused[key] = refused.get(key, 0) + 1
            code = rule["statusCode"]
            message = rule.get("message") or _MESSAGES.get(code, "refused by a rule of the org")
            raise RowRefused(code, message, rule.get("fields") or ())
