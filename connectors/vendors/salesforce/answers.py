"""What the org says of each record that was written, as results."""

import re
from collections.abc import Sequence
from typing import Any

from connectors.crm.writing import Outcome, Result
from connectors.vendors.salesforce.fields import long_id

Answer = dict[str, Any]
"""The org's answer about one record: `success`, `id`, and `errors` with `statusCode`, `fields`."""

LOCKED = "UNABLE_TO_LOCK_ROW"
DUPLICATE = "DUPLICATE_VALUE"
LOST = frozenset({"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY"})

NOT_MENTIONED = Result(Outcome.UNKNOWN, reason="the answer does not mention it")

_CODE = re.compile(r"[A-Z][A-Z0-9_]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]*")
_HOLDER = re.compile(r"(\w+) duplicates value on record with id: ([A-Za-z0-9]{15,18})\b")
_BULK_ERROR = re.compile(r"([A-Z][A-Z0-9_]*):.*:([\w, ]*) --", re.DOTALL)


def are_results(answer: Any) -> bool:
    """Whether an answer is a list with a result for each record."""
    return isinstance(answer, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("success"), bool)
        and (one["success"] or isinstance(one.get("errors"), list))
        for one in answer
    )


def by_record(answers: Sequence[Answer], ids: Sequence[str]) -> list[Answer | None]:
    """The answer about each record; None where none can be told to be about it.

    They come in the order of the records. Where there are fewer, or an id says otherwise, only
    those that name a record are believed.
    """
    named = [long_id(str(one.get("id"))) if one.get("id") else None for one in answers]
    wanted = [long_id(id) for id in ids]
    if len(answers) == len(ids) and all(
        name in (None, id) for name, id in zip(named, wanted, strict=True)
    ):
        return list(answers)
    found = {name: one for name, one in zip(named, answers, strict=True) if name}
    return [found.get(id) for id in wanted]


def result_of(answer: Answer) -> Result:
    """The result that an answer alone tells; `LOST` and duplicates are for the caller to look up.

    >>> result_of({"success": False, "errors": [
    ...     {"statusCode": "REQUIRED_FIELD_MISSING", "message": "...", "fields": ["Name"]}]}).reason
    'REQUIRED_FIELD_MISSING Name'
    """
    if answer["success"]:
        return Result(Outcome.DONE, crm_id=long_id(str(answer["id"])) if answer.get("id") else None)
    outcome = Outcome.BUSY if _is_locked(answer) else Outcome.REJECTED
    return Result(outcome, reason=reason_of(answer))


def _is_locked(answer: Answer) -> bool:
    """Whether the row was locked, or one that the org's own triggers wanted to change with it."""
    texts = (str(error.get("message")) for error in answer["errors"] if isinstance(error, dict))
    return LOCKED in codes_of(answer) or any(LOCKED in text for text in texts)


def codes_of(answer: Answer) -> list[str]:
    """The codes of its errors, as far as they are codes."""
    codes = (str(error.get("statusCode")) for error in answer["errors"] if isinstance(error, dict))
    return [code for code in codes if _CODE.fullmatch(code)]


def is_lost(answer: Answer, *links: str) -> bool:
    """Whether it says that the record itself (or one that `links` name) is not there any more."""
    return any(
        isinstance(error, dict)
        and error.get("statusCode") in LOST
        and set(_fields(error)) <= {"Id", *links}
        for error in answer["errors"]
    )


def reason_of(answer: Answer) -> str:
    """The codes and the fields of its errors, and nothing of their text, which repeats values."""
    told = [
        f"{error['statusCode']} {', '.join(_fields(error))}".rstrip()
        for error in answer["errors"]
        if isinstance(error, dict) and _CODE.fullmatch(str(error.get("statusCode")))
    ]
    return "; ".join(told) or "refused without a code"


def holder_of(answer: Answer, field: str) -> str | None:
    """The record that holds a unique value of `field` already; "" where its id is not told.

    None where the duplicate is one of another field. The text is
    ``duplicate value found: HL_Key__c duplicates value on record with id: 00T5g0000000001``.
    """
    for error in answer["errors"]:
        if not isinstance(error, dict) or error.get("statusCode") != DUPLICATE:
            continue
        text = str(error.get("message"))
        found = _HOLDER.search(text)
        if found and found[1].lower() == field.lower():
            return long_id(found[2])
        if not found and re.search(rf"\b{re.escape(field)}\b", text, re.IGNORECASE):
            return ""
    return None


def bulk_answer(error: str) -> Answer:
    """An `sf__Error` of Bulk 2.0 (``CODE:text:Field, Field --``) in the shape of the others.

    >>> reason_of(bulk_answer("STRING_TOO_LONG:a text: too long:HL_A__c,HL_B__c --"))
    'STRING_TOO_LONG HL_A__c, HL_B__c'
    """
    found = _BULK_ERROR.fullmatch(error.strip())
    code = found[1] if found else error.partition(":")[0]
    fields = [name.strip() for name in found[2].split(",")] if found else []
    told = {"statusCode": code, "fields": fields, "message": error}
    return {"success": False, "errors": [told]}


def _fields(error: Answer) -> list[str]:
    fields = error.get("fields")
    return [str(name) for name in fields or () if _NAME.fullmatch(str(name))]
