"""How the rules that were ordered for writes bear on one call."""

from collections.abc import Sequence
from math import inf
from typing import Any

from connectors.sandbox.servers.box import Box
from connectors.sandbox.vendors.hubspot_control import rules
from connectors.sandbox.vendors.hubspot_inputs import Given, Wrong, detail
from connectors.sandbox.vendors.hubspot_search import Refused


class CallRules:
    """The rules that one call meets; making this counts it for each of them."""

    def __init__(self, box: Box, type: str, inputs: Sequence[Given]) -> None:
        table = rules(box)
        self._met: list[dict[str, Any]] = []
        self.forgotten = 0
        for row in table.rows(inf):
            rule = row.body
            if rule["object"] != type or not any(_concerns(rule, given) for given in inputs):
                continue
            self._met.append(rule)
            if rule["times"] is not None:
                left = rule["times"] - 1
                if left:
                    table.put(row.id, rule | {"times": left}, 0.0)
                else:
                    table.remove(row.id, 0.0)

    def _rules(self, given: Given, *does: str) -> list[dict[str, Any]]:
        return [rule for rule in self._met if rule["do"] in does and _concerns(rule, given)]

    def refuse_call(self) -> None:
        """Refuse the whole call if a rule says so.

        Raises:
            Refused: with the status of the rule.
        """
        for rule in self._met:
            if rule["do"] in ("lock", "migrate"):
                raise Refused(
                    rule["status"], rule["category"], rule["message"],
                    retry_after=rule.get("retry_after"),
                )  # fmt: skip

    def wrong(self, given: Given) -> Wrong | None:
        """Why a rule refuses a record."""
        for rule in self._rules(given, "reject"):
            errors = (detail(rule["code"], rule["message"]),)
            return Wrong(rule["status"], rule["category"], rule["message"], errors)
        return None

    def does_nothing(self, given: Given) -> bool:
        """Whether a record stays as it is, whatever the answer says."""
        landed = [rule["landed"] for rule in self._rules(given, "forget", "shuffle")]
        return bool(self._rules(given, "ignore")) or not all(landed)

    def echoes(self, given: Given) -> bool:
        """Whether the answer shows what was sent, although nothing was done."""
        return any(rule["echo"] for rule in self._rules(given, "ignore"))

    def told(self, results: list[tuple[Given, Any]]) -> list[Any]:
        """The results that are told of, in their order; counts those that are forgotten."""
        found = []
        for given, result in results:
            if self._rules(given, "forget"):
                self.forgotten += 1
                continue
            left_out = any(rule["ids"] is not None for rule in self._rules(given, "shuffle"))
            if result is not None and not left_out:
                found.append(result)
        return found[::-1] if any(rule["do"] == "shuffle" for rule in self._met) else found


def _concerns(rule: dict[str, Any], given: Given) -> bool:
    ids = rule["ids"]
    return ids is None or given.id in ids or any(v in ids for v in given.properties.values())
