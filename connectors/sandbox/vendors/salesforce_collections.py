"""The sandbox's Salesforce: sObject collections, and single records by REST."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from connectors.sandbox.servers.answers import Json
from connectors.sandbox.servers.box import Box, Row
from connectors.sandbox.vendors.salesforce_fields import schema_of
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_queries import attributes, shown
from connectors.sandbox.vendors.salesforce_rules import RowRefused
from connectors.sandbox.vendors.salesforce_values import full_id
from connectors.sandbox.vendors.salesforce_web import Refused, not_found, object_sent
from connectors.sandbox.vendors.salesforce_writes import Call, Given
from connectors.sandbox.vendors.soql import Field, Record

LARGEST_CALL = 200
LARGEST_RETRIEVAL = 2000
MOST_CHUNKS = 10

_STATUS = {
    "ENTITY_IS_DELETED": 404, "INVALID_CROSS_REFERENCE_KEY": 404, "MALFORMED_ID": 404,
    "INSUFFICIENT_ACCESS_OR_READONLY": 403,
}  # fmt: skip
"""The HTTP status of a single record's refusal, where it is not 400."""

_ROLLED_BACK = RowRefused(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK", "Record rolled back because not all records were valid"
)

Act = Callable[[], Record]
"""What one record of a call wants; gives its result or raises `RowRefused`."""


class Collections:
    """What answers below ``composite/sobjects`` and ``sobjects/<object>``."""

    def __init__(self, box: Box) -> None:
        self._box = box

    async def answer(self, request: Request, version: str, parts: list[str]) -> Response:
        """Answer one request; `parts` is the path below ``composite/sobjects``.

        Raises:
            Refused: the call as a whole is not one that the API takes.
        """
        match request.method, *parts:
            case ["POST"]:
                return Json(self._create(*await _sent(request)))
            case ["PATCH"]:
                return Json(self._update(*await _sent(request)))
            case "PATCH", name, field:
                return Json(self._upsert(name, field, *await _sent(request)))
            case ["DELETE"]:
                return Json(self._delete(request))
            case "GET", name:
                ids = request.query_params.get("ids", "").split(",")
                fields = request.query_params.get("fields", "").split(",")
                return Json(self._retrieved(name, ids, fields, version))
            case "POST", name:
                asked = await object_sent(request)
                return Json(self._retrieved(name, asked.get("ids"), asked.get("fields"), version))
        raise _not_allowed(request)

    async def answer_one(self, request: Request, version: str, name: str) -> Response:
        """Answer one request about a single record of an object.

        Raises:
            Refused: it is not one that the API takes, or the record refuses it.
        """
        call = Call(self._box, f"{request.method} sobjects")
        try:
            name = call.known(name)
        except Refused:
            raise not_found() from None
        # A value in the path may hold an encoded slash, so the path is taken as it was sent.
        path = request.scope["raw_path"].decode("ascii").rstrip("/")
        parts = [unquote(part) for part in path.partition("/sobjects/")[2].split("/")[1:]]
        match request.method, *parts:
            case ["POST"]:
                given = call.given(name, await object_sent(request))
                done = self._one(call, partial(_created, call, name, given))
                return Json(done | {"success": True, "errors": []}, 201)
            case "GET", id:
                return Json(self._shown_one(call, name, id, request, version))
            case "PATCH", id:
                given = call.given(name, await object_sent(request))
                self._one(call, partial(_updated, call, name, id, given))
                return Response(status_code=204)
            case "DELETE", id:
                self._one(call, partial(_deleted, call, id))
                return Response(status_code=204)
            case "GET", key, value:
                ids = call.found(name, _key(call, name, key), value)
                if not ids:
                    raise not_found()
                return Json(self._shown_one(call, name, _only(ids), request, version))
            case "PATCH", key, value:
                return await self._upsert_one(call, request, name, key, value)
        raise _not_allowed(request)

    async def _upsert_one(
        self, call: Call, request: Request, name: str, key: str, value: str
    ) -> Response:
        field, sent = _key(call, name, key), await object_sent(request)
        if field.name in sent:
            raise Refused(400, "INVALID_FIELD", f"{field.name} stands in the address already")
        given = call.given(name, sent | {field.name: value})
        done = self._one(call, partial(_upserted, call, name, field, value, given))
        return Json(done | {"success": True, "errors": []}, 201 if done["created"] else 200)

    def _one(self, call: Call, act: Act) -> Record:
        try:
            done = act()
        except RowRefused as refused:
            status = _STATUS.get(refused.code, 400)
            raise Refused(status, refused.code, refused.message, refused.fields) from None
        call.commit()
        return done

    def _create(self, sent: list[Record], all_or_none: bool) -> list[Record]:
        call = Call(self._box, "POST composite/sobjects")
        acts: list[Act] = []
        for record in _checked(call, sent):
            name = call.known(record["attributes"]["type"])
            given = call.given(name, record)
            acts.append(partial(_created, call, name, given))
        return _results(call, acts, all_or_none)

    def _update(self, sent: list[Record], all_or_none: bool) -> list[Record]:
        call = Call(self._box, "PATCH composite/sobjects")
        acts: list[Act] = []
        for record in _checked(call, sent):
            name = call.known(record["attributes"]["type"])
            id, rest = _without_id(record)
            acts.append(partial(_updated, call, name, id, call.given(name, rest)))
        return _results(call, acts, all_or_none)

    def _upsert(self, name: str, key: str, sent: list[Record], all_or_none: bool) -> list[Record]:
        call = Call(self._box, "PATCH composite/sobjects/ext")
        name = call.known(name)
        field = _key(call, name, key)
        acts: list[Act] = []
        for record in _checked(call, sent):
            if call.known(record["attributes"]["type"]) != name:
                raise Refused(400, "INVALID_TYPE", f"every record has to be of {name}")
            id, rest = _without_id(record)
            if id is not None and field.name != "Id":
                raise Refused(400, "INVALID_FIELD", "a record of an upsert has no id")
            given = call.given(name, rest)
            value = id if field.name == "Id" else given.values.get(field.name)
            acts.append(partial(_upserted, call, name, field, value, given))
        return _results(call, acts, all_or_none)

    def _delete(self, request: Request) -> list[Record]:
        ids = [id for id in request.query_params.get("ids", "").split(",") if id]
        _check_size(ids)
        call = Call(self._box, "DELETE composite/sobjects")
        acts: list[Act] = [partial(_deleted, call, id) for id in ids]
        return _results(call, acts, request.query_params.get("allOrNone") == "true")

    def _retrieved(
        self, name: str, ids: object, fields: object, version: str
    ) -> list[Record | None]:
        """Records in the order of their ids, None for what is not there."""
        call = Call(self._box, "")
        name = call.known(name)
        if not isinstance(ids, list) or not isinstance(fields, list) or not all((*ids, *fields)):
            raise Refused(400, "MISSING_ARGUMENT", "ids and fields are needed")
        if len(ids) > LARGEST_RETRIEVAL:
            raise _too_many()
        names = ["Id", *(call.field(name, str(field)).name for field in fields)]
        table, now = records(self._box, name), self._box.now.timestamp()
        found: list[Record | None] = []
        for id in ids:
            try:
                row = table.get(full_id(name, str(id)), now)
            except RowRefused:
                row = None
            there = row is not None and not row.body.get("IsDeleted")
            found.append(self._shown(name, row, names, version) if row and there else None)
        return found

    def _shown_one(self, call: Call, name: str, id: str, request: Request, version: str) -> Record:
        try:
            versions = records(self._box, name).versions(
                full_id(name, id), self._box.now.timestamp()
            )
        except RowRefused:
            versions = []
        if not versions:
            raise not_found()
        if versions[-1].deleted or versions[-1].body.get("IsDeleted"):
            raise Refused(404, "ENTITY_IS_DELETED", "entity is deleted")
        asked = [field for field in request.query_params.get("fields", "").split(",") if field]
        names = [call.field(name, field).name for field in asked] or list(
            schema_of(self._box)[name]
        )
        return self._shown(name, versions[-1], ["Id", *names], version)

    def _shown(self, name: str, row: Row, fields: Iterable[str], version: str) -> Record:
        record = next(shown(self._box, name, [row]))
        values = {field: record.get(field) for field in fields}
        return {"attributes": attributes(name, row.id, version)} | values


def _created(call: Call, name: str, given: Given) -> Record:
    return {"id": call.create(name, given)}


def _updated(call: Call, name: str, id: object, given: Given) -> Record:
    if not isinstance(id, str) or not id:
        raise RowRefused("MISSING_ARGUMENT", "Id not specified in an update call", ["Id"])
    return {"id": call.update(name, id, given)}


def _deleted(call: Call, id: str) -> Record:
    return {"id": call.delete(id)}


def _upserted(call: Call, name: str, field: Field, value: object, given: Given) -> Record:
    if not isinstance(value, str):
        raise RowRefused("MISSING_ARGUMENT", f"{field.name} not specified", [field.name])
    ids = call.found(name, field, value)
    if len(ids) > 1:
        raise RowRefused("DUPLICATE_EXTERNAL_ID", f"{field.name}: more than one record found")
    if ids:
        return {"id": call.update(name, ids[0], given), "created": False}
    if field.name == "Id":
        raise RowRefused("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    return {"id": call.create(name, given), "created": True}


def _results(call: Call, acts: list[Act], all_or_none: bool) -> list[Record]:
    """What becomes of each record, in their order; then what passed is done."""
    results: list[Record] = []
    for act in acts:
        try:
            results.append(act() | {"success": True, "errors": []})
        except RowRefused as refused:
            results.append(_failure(refused))
    if all_or_none and not all(result["success"] for result in results):
        rolled_back = _failure(_ROLLED_BACK)
        return [rolled_back if result["success"] else result for result in results]
    call.commit()
    return results


def _failure(refused: RowRefused) -> Record:
    """The result of a record that was refused."""
    error = {
        "statusCode": refused.code, "message": refused.message, "fields": list(refused.fields),
    }  # fmt: skip
    return {"success": False, "errors": [error]}


def _checked(call: Call, sent: list[Record]) -> list[Record]:
    """The records of a call, if they are not too many nor of too many sorts in turn.

    Raises:
        Refused: they are, or one does not say its type.
    """
    _check_size(sent)
    types = []
    for record in sent:
        kind = record.get("attributes") if isinstance(record, dict) else None
        if not isinstance(kind, dict) or not isinstance(kind.get("type"), str):
            raise Refused(400, "INVALID_INPUT", "every record needs attributes with its type")
        types.append(kind["type"].lower())
    chunks = 1 + sum(one != other for one, other in pairwise(types))
    if chunks > MOST_CHUNKS:
        raise Refused(400, "LIMIT_EXCEEDED", f"more than {MOST_CHUNKS} chunks of types")
    return sent


def _check_size(sent: list[Any]) -> None:
    if not sent:
        raise Refused(400, "MISSING_ARGUMENT", "no records were sent")
    if len(sent) > LARGEST_CALL:
        raise _too_many()


def _without_id(record: Mapping[str, Any]) -> tuple[object, Record]:
    id = next((value for key, value in record.items() if key.lower() == "id"), None)
    return id, {key: value for key, value in record.items() if key.lower() != "id"}


def _key(call: Call, name: str, key: str) -> Field:
    """The external id field of that name, or the id."""
    try:
        field = call.field(name, key)
    except Refused:
        field = None
    if field is None or not (field.external_id or field.name == "Id"):
        message = "Provided external ID field does not exist or is not accessible"
        raise Refused(404, "NOT_FOUND", f"{message}: {key}")
    return field


def _only(ids: list[str]) -> str:
    if len(ids) > 1:
        raise Refused(300, "DUPLICATE_EXTERNAL_ID", "more than one record found")
    return ids[0]


async def _sent(request: Request) -> tuple[list[Record], bool]:
    """The records of a call, and whether all of them are to be written or none."""
    content = await object_sent(request)
    records, all_or_none = content.get("records"), content.get("allOrNone", False)
    unknown = sorted(set(content) - {"records", "allOrNone"})
    if unknown or not isinstance(records, list) or not isinstance(all_or_none, bool):
        raise Refused(400, "JSON_PARSER_ERROR", "expected records and allOrNone")
    return records, all_or_none


def _too_many() -> Refused:
    return Refused(400, "EXCEEDED_ID_LIMIT", "record limit reached")


def _not_allowed(request: Request) -> Refused:
    return Refused(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{request.method}' not allowed.")
