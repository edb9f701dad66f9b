"""Writing records: batches and single ones, all or in part, as HubSpot answers.

A batch whose form is wrong, or that names an unknown property, is refused as a whole. A record
that breaks a rule spoils a batch too, unless the batch may succeed in part; then a 207 tells what
became of each record, by its trace id where it has one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.box import Row
from connectors.sandbox.vendors.hubspot_account import Account, type_named
from connectors.sandbox.vendors.hubspot_control import write_log
from connectors.sandbox.vendors.hubspot_inputs import (
    ASSOCIATION_TYPES,
    SINGULAR,
    Given,
    Wrong,
    detail,
    given_of,
    unlinkable,
)
from connectors.sandbox.vendors.hubspot_records import FIRST_ID
from connectors.sandbox.vendors.hubspot_rules import CallRules
from connectors.sandbox.vendors.hubspot_schema import OWNER, REQUIRED
from connectors.sandbox.vendors.hubspot_search import Refused, invalid
from connectors.sandbox.vendors.hubspot_shapes import View, iso, shown
from connectors.sandbox.vendors.hubspot_values import Invalid, kept
from connectors.sandbox.vendors.hubspot_web import Handler, batch_of, json_answer, object_of

BATCH = 100


@dataclass
class Planned:
    """What is to be done with one record: `row` is the one that is there, if any."""

    given: Given
    id: str
    row: Row | None = None
    values: dict[str, str | None] = field(default_factory=dict)
    wrong: Wrong | None = None


class Writes:
    """One HubSpot account, for writing."""

    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self, objects: str, linked: str) -> list[tuple[str, str, Handler]]:
        """The paths below these, their methods and handlers."""
        default = "{from_type}/{from_id}/associations/default/{to_type}/{to_id}"
        return [
            (f"{objects}/{{type}}/batch/create", "POST", self.create_batch),
            (f"{objects}/{{type}}/batch/update", "POST", self.update_batch),
            (f"{objects}/{{type}}/batch/upsert", "POST", self.upsert_batch),
            (f"{objects}/{{type}}/batch/archive", "POST", self.archive_batch),
            (f"{objects}/{{type}}", "POST", self.create),
            (f"{objects}/{{type}}/{{id}}", "PATCH", self.update),
            (f"{objects}/{{type}}/{{id}}", "DELETE", self.archive),
            (f"{linked}/{default}", "PUT", self.associate),
        ]

    def _opened(self, request: Request) -> str:
        return self.account.authorised(request, request.path_params["type"], "write")

    async def create_batch(self, request: Request) -> Response:
        """Up to 100 new records; in part only when every input has a trace id."""
        type = self._opened(request)
        inputs = await self._inputs(request, type, "create")
        partly = all(given.trace for given in inputs)
        return self._batch(type, "create", inputs, partly=partly, status=201)

    async def update_batch(self, request: Request) -> Response:
        """New values for up to 100 records, by id or by a unique property."""
        type = self._opened(request)
        inputs = await self._inputs(request, type, "update")
        return self._batch(type, "update", inputs, partly=self._partly(inputs), status=200)

    async def upsert_batch(self, request: Request) -> Response:
        """Up to 100 records by a unique property, made where there are none."""
        type = self._opened(request)
        inputs = await self._inputs(request, type, "upsert")
        return self._batch(type, "upsert", inputs, partly=self._partly(inputs), status=200)

    def _partly(self, inputs: Sequence[Given]) -> bool:
        setting = self.account.settings.partial_updates
        return setting == "always" or (setting == "traced" and all(given.trace for given in inputs))

    async def archive_batch(self, request: Request) -> Response:
        """Let up to 100 records be gone; those that are not there are passed over."""
        type = self._opened(request)
        for given in await self._inputs(request, type, "archive"):
            self._archive(type, str(given.id))
        return self._empty()

    async def create(self, request: Request) -> Response:
        """One new record."""
        type = self._opened(request)
        body = await object_of(request, {"properties", "associations"})
        return self._single(type, "create", given_of(type, "create", body), 201)

    async def update(self, request: Request) -> Response:
        """New values for one record."""
        type = self._opened(request)
        named = {"id": request.path_params["id"]}
        if "idProperty" in request.query_params:
            named["idProperty"] = request.query_params["idProperty"]
        body = await object_of(request, {"properties"})
        return self._single(type, "update", given_of(type, "update", body | named), 200)

    async def archive(self, request: Request) -> Response:
        """Let one record be gone; again is no error."""
        self._archive(self._opened(request), request.path_params["id"])
        return self._empty()

    async def associate(self, request: Request) -> Response:
        """Link two records by the type that has no label; again is no error."""
        path = request.path_params
        start = self.account.authorised(request, path["from_type"], "write")
        end = type_named(path["to_type"])
        if (start, end) not in ASSOCIATION_TYPES:
            raise invalid(f"There is no default association from {start} to {end}.")
        row, other = self.account.row(start, path["from_id"]), self.account.row(end, path["to_id"])
        if row is None:
            raise unlinkable(start, path["from_id"]).refused()
        if other is None:
            raise unlinkable(end, path["to_id"]).refused()
        linked = row.body["associations"]
        if other.id not in linked.get(end, []):
            links = linked | {end: [*linked.get(end, []), other.id]}
            self.account.table(start).put(
                row.id, row.body | {"associations": links}, self.account.now
            )
            self._log("associate", start, row.id, ())
        pair = ((row.id, other.id, start, end), (other.id, row.id, end, start))
        results = [
            {"from": {"id": one}, "to": {"id": two}, "associationSpec": {
                "associationCategory": "HUBSPOT_DEFINED",
                "associationTypeId": ASSOCIATION_TYPES[first, second][0],
            }}
            for one, two, first, second in pair
        ]  # fmt: skip
        return self._answer(results, [], 0, 200)

    async def _inputs(self, request: Request, type: str, act: str) -> list[Given]:
        body = await object_of(request, {"inputs"})
        return [given_of(type, act, one) for one in batch_of(body, BATCH)]

    def _batch(
        self, type: str, act: str, inputs: Sequence[Given], *, partly: bool, status: int
    ) -> Response:
        rules = CallRules(self.account.box, type, inputs)
        planned = self._plan(type, act, inputs, rules)
        lost = [one for one in planned if one.wrong is _GONE]
        failed = [one for one in planned if one.wrong not in (None, _GONE)]
        if failed and failed[0].wrong and not partly:
            raise failed[0].wrong.refused()
        view = self.account.view(type, [], [])
        fine = [one for one in planned if one.wrong is None]
        results = rules.told(
            [(one.given, self._carried_out(view, act, one, rules)) for one in fine]
        )
        errors = [one.wrong.told(one.given) for one in failed if one.wrong]
        errors += [_not_found(type, lost)] if lost else []
        told = len(failed) + len(lost) + rules.forgotten
        return self._answer(results, errors, told, 207 if told else status)

    def _single(self, type: str, act: str, given: Given, status: int) -> Response:
        rules = CallRules(self.account.box, type, [given])
        planned = self._plan(type, act, [given], rules)[0]
        if planned.wrong:
            raise planned.wrong.refused()
        view = self.account.view(type, [], [])
        body = self._carried_out(view, act, planned, rules)
        return json_answer(body, status, self.account.rate_headers())

    def _answer(self, results: list[Any], errors: list[Any], told: int, status: int) -> Response:
        at = iso(self.account.now)
        body: dict[str, Any] = {
            "status": "COMPLETE", "results": results, "startedAt": at, "completedAt": at,
        }  # fmt: skip
        if status == 207:
            body |= {"numErrors": told, "errors": errors}
        return json_answer(body, status, self.account.rate_headers())

    def _empty(self) -> Response:
        return Response(status_code=204, headers=self.account.rate_headers())

    # What is to be done

    def _plan(
        self, type: str, act: str, inputs: Sequence[Given], rules: CallRules
    ) -> list[Planned]:
        """What becomes of each record; nothing is written yet."""
        plan = Plan(self.account, type, act, self._definitions(type, inputs))
        rules.refuse_call()
        planned = [plan.of(given, rules.wrong(given)) for given in inputs]
        named = [one.id if one.row else one.given.id for one in planned]
        twice = sorted(id for id, times in Counter(filter(None, named)).items() if times > 1)
        if twice:
            raise invalid(f"Duplicate IDs found in batch input: {twice}.")
        return planned

    def _definitions(self, type: str, inputs: Sequence[Given]) -> dict[str, dict[str, Any]]:
        """The properties that a call names; unknown ones spoil the whole call."""
        used = {name for given in inputs for name in given.properties}
        keys = {given.id_property for given in inputs if given.id_property is not None}
        for name in sorted(keys):
            self.account.check_unique(type, name)
        found = {name: self.account.property(type, name) for name in sorted(used | keys)}
        errors = [
            detail("PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist', name)
            for name, property in found.items()
            if property is None
        ]
        if errors:
            said = f"Property values were not valid: {errors[0]['message']}"
            raise Refused(400, "VALIDATION_ERROR", said, errors=errors)
        return {name: property for name, property in found.items() if property is not None}

    # Doing it

    def _carried_out(self, view: View, act: str, one: Planned, rules: CallRules) -> Any:
        """Write one record, or seem to; gives it as the answer shows it."""
        row = one.row
        echo: dict[str, str | None] = {}
        if rules.does_nothing(one.given):
            echo = one.values if rules.echoes(one.given) else {}
        else:
            row = self._written(view.type, one)
        if row is None:
            return None
        body = shown(replace(view, asked=sorted(one.values)), row)
        body["properties"] |= echo
        if one.given.trace:
            body["objectWriteTraceId"] = one.given.trace
        return body | ({"new": one.row is None} if act == "upsert" else {})

    def _written(self, type: str, one: Planned) -> Row | None:
        table, now = self.account.table(type), self.account.now
        body = one.row.body if one.row else {"properties": {}, "associations": {}}
        links: dict[str, list[str]] = {}
        for other, id in one.given.associations:
            links.setdefault(other, []).append(self.account.living(id))
        body = body | {
            "properties": body["properties"] | one.values,
            "associations": body["associations"] | links,
            "write": len(table.versions(one.id, now)),
        }
        table.put(one.id, body, now)
        self._log("update" if one.row else "create", type, one.id, tuple(sorted(one.values)))
        return table.get(one.id, now)

    def _archive(self, type: str, id: str) -> None:
        row = self.account.row(type, id)
        if row is not None:
            self.account.table(type).remove(row.id, self.account.now)
            self._log("archive", type, row.id, ())

    def _log(self, kind: str, type: str, id: str, properties: tuple[str, ...]) -> None:
        log = write_log(self.account.box)
        self.account.writes += 1
        entry = {"kind": kind, "object": type, "id": id, "properties": properties}
        log.put(f"{self.account.writes:09}", entry, self.account.now)


def _not_found(type: str, lost: list[Planned]) -> dict[str, Any]:
    """One error for all records that are not there."""
    context = {"ids": [str(one.given.id) for one in lost]}
    traces = [one.given.trace for one in lost if one.given.trace]
    return {
        "status": "error", "category": "OBJECT_NOT_FOUND",
        "message": f"Some {SINGULAR[type]} objects could not be found: deleted, or never there.",
        "context": context | ({"objectWriteTraceId": traces} if traces else {}),
        "errors": [], "links": {},
    }  # fmt: skip


class Plan:
    """What a call does, record after record: each knows what those before it have claimed."""

    def __init__(
        self, account: Account, type: str, act: str, definitions: Mapping[str, dict[str, Any]]
    ) -> None:
        self._account, self._type, self._act = account, type, act
        self._definitions = definitions
        self._unique = {name for name, one in definitions.items() if one["hasUniqueValue"]}
        self._settings = account.settings
        self._index = account.index(type)
        self._next = max(self._index.greatest, FIRST_ID[type])
        self._claimed: dict[tuple[str, str], str] = {}

    def of(self, given: Given, wrong: Wrong | None) -> Planned:
        """What is done with one record; `wrong` is why a rule refuses it."""
        row = self._row(given)
        if row is None and self._act == "update":
            return Planned(given, "", wrong=_GONE)
        sent = dict(given.properties)
        if self._act == "upsert" and row is None:
            sent = {str(given.id_property): str(given.id)} | sent
        values, errors = self._values(sent)
        errors += self._lacking(sent) if row is None else []
        if errors:
            said = f"Property values were not valid: {errors[0]['message']}"
            wrong = Wrong(400, "VALIDATION_ERROR", said, tuple(errors))
        wrong = wrong or self._unlinkable(given)
        id = row.id if row else str(self._next + 1)
        wrong = wrong or self._taken(id, values)
        if row is None and wrong is None:
            self._next += 1
        return Planned(given, id, row, values, wrong)

    def _row(self, given: Given) -> Row | None:
        if given.id is None:
            return None
        if given.id_property is None:
            return self._account.row(self._type, given.id)
        return self._index.holding(given.id_property, given.id, self._account.now)

    def _values(self, sent: dict[str, str]) -> tuple[dict[str, str | None], list[dict[str, Any]]]:
        """What is kept of the values, and what is wrong with them."""
        values: dict[str, str | None] = {}
        errors = []
        for name, value in sent.items():
            property = self._definitions[name]
            try:
                if property["modificationMetadata"]["readOnlyValue"]:
                    raise Invalid("READ_ONLY_VALUE", f"{name} is a read only property.")
                values[name] = kept(property, value)
                if name == OWNER and value and self._owner(value) is None:
                    raise Invalid("INVALID_OWNER_ID", f"{value} is no active owner.")
            except Invalid as wrong:
                errors.append(detail(wrong.code, str(wrong), name))
        return values, errors

    def _owner(self, id: str) -> Row | None:
        return self._account.table("owners").get(id, self._account.now)

    def _lacking(self, sent: dict[str, str]) -> list[dict[str, Any]]:
        return [
            detail("REQUIRED_FIELD", f"{name} is required.", name)
            for name in REQUIRED.get(self._type, ())
            if not sent.get(name)
        ]

    def _unlinkable(self, given: Given) -> Wrong | None:
        for other, id in given.associations:
            if self._account.row(other, id) is None:
                return unlinkable(other, id)
        return None

    def _taken(self, id: str, values: dict[str, str | None]) -> Wrong | None:
        """Whether another record has one of the values that only one may have; else claim them."""
        claims = {}
        for name in self._unique & set(values):
            value = values[name]
            if value is None:
                continue
            holder = self._claimed.get((name, value)) or self._holder(name, value)
            if holder and holder != id:
                said = f"A record with that {name} already exists; existing object id {holder}"
                category = "CONFLICT" if self._settings.conflict == 409 else "VALIDATION_ERROR"
                errors = (detail("CONFLICTING_UNIQUE_VALUE", said, name),)
                return Wrong(self._settings.conflict, category, said, errors)
            claims[name, value] = id
        self._claimed |= claims
        return None

    def _holder(self, name: str, value: str) -> str | None:
        now = self._account.now
        row = self._index.holding(name, value, now)
        if row is None and self._settings.archived_keeps_values:
            row = self._index.holding(name, value, now, archived=True)
        return row.id if row else None


_GONE = Wrong(404, "OBJECT_NOT_FOUND", "The record does not exist.")
