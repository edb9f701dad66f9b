"""Ids and times as the sandbox's Salesforce writes them, and whose org it is."""

import datetime as dt
from functools import lru_cache

VENDOR = "salesforce"
ORGANIZATION = "00D5g000008SaNdEAW"

PREFIXES = {
    "Account": "001", "Contact": "003", "User": "005", "Opportunity": "006", "Task": "00T",
    "Group": "00G", "QueueSobject": "03g", "TaskStatus": "01J", "TaskPriority": "01K",
    "PermissionSet": "0PS", "PermissionSetAssignment": "0Pa", "FieldPermissions": "01k",
    "ObjectPermissions": "110", "CustomField": "00N", "CSM_Note__c": "a00", "Goal__c": "a01",
    "Milestone__c": "a02",
}  # fmt: skip
"""With what the ids of an object begin."""


@lru_cache(maxsize=100_000)
def record_id(prefix: str, number: int) -> str:
    """A record's 18 characters: the prefix of its object, a number, and a checksum of the case."""
    digits = ""
    for _ in range(5):
        number, rest = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[rest] + digits
    return with_checksum(f"{prefix}5g00000{digits}")


def with_checksum(id: str) -> str:
    """An id of 15 characters as the API writes it.

    >>> with_checksum("0015g0000000007")
    '0015g0000000007AAA'
    """
    chunks = (id[start : start + 5] for start in (0, 5, 10))
    bits = (sum(c.isupper() << i for i, c in enumerate(chunk)) for chunk in chunks)
    return id + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[value] for value in bits)


@lru_cache(maxsize=100_000)
def moment_text(at: float) -> str:
    """A time as the REST API writes it."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


INTEGRATION_USER = record_id("005", 1)
"""Whose credentials the API knows, and who makes and changes what nobody else is said to."""

SOMEBODY = record_id("005", 2)
"""A person of the company."""
