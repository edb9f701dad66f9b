"""What the sandbox's Salesforce org is set up with: queues, the words of tasks, who may do what.

The integration's user has a profile, which the API shows as a permission set: it may edit
accounts, opportunities and tasks and customize the org, but not see or change everything.
"""

from typing import Any

from connectors.sandbox.vendors.salesforce_ids import INTEGRATION_USER, record_id

PROFILE_SET = record_id("0PS", 1)
"""The permission set of the integration user's profile."""

CS_QUEUE, SALES_QUEUE, SUPPORT_QUEUE = (record_id("00G", number) for number in (1, 2, 3))
"""Queues: the first two may own tasks, the third only cases."""

STATUSES = ("Not Started", "In Progress", "Completed", "Waiting on someone else", "Deferred")
PRIORITIES = ("High", "Normal", "Low")

_EDITED = ("Account", "Opportunity", "Task")
_MAY = {
    "PermissionsRead": True, "PermissionsCreate": True, "PermissionsEdit": True,
    "PermissionsDelete": True, "PermissionsViewAllRecords": False,
    "PermissionsModifyAllRecords": False,
}  # fmt: skip


def _queue(name: str) -> dict[str, Any]:
    return {"Name": name, "DeveloperName": name.replace(" ", "_"), "Type": "Queue", "Email": None}


def _word(label: str, place: int, default: str) -> dict[str, Any]:
    return {
        "MasterLabel": label, "ApiName": label, "SortOrder": place, "IsDefault": label == default,
    }  # fmt: skip


SETUP: dict[str, dict[str, dict[str, Any]]] = {
    "Group": {
        CS_QUEUE: _queue("CS Queue"),
        SALES_QUEUE: _queue("Sales Queue"),
        SUPPORT_QUEUE: _queue("Support Queue"),
        record_id("00G", 4): _queue("All Managers") | {"Type": "Regular"},
    },
    "QueueSobject": {
        record_id("03g", 1): {"QueueId": CS_QUEUE, "SobjectType": "Task"},
        record_id("03g", 2): {"QueueId": SALES_QUEUE, "SobjectType": "Task"},
        record_id("03g", 3): {"QueueId": SUPPORT_QUEUE, "SobjectType": "Case"},
    },
    "TaskStatus": {
        record_id("01J", place): _word(label, place, "Not Started")
        | {"IsClosed": label == "Completed"}
        for place, label in enumerate(STATUSES, 1)
    },
    "TaskPriority": {
        record_id("01K", place): _word(label, place, "Normal") | {"IsHighPriority": label == "High"}
        for place, label in enumerate(PRIORITIES, 1)
    },
    "PermissionSet": {
        PROFILE_SET: {
            "Name": "X00e5g000000Sandbox", "Label": "Integration", "Description": None,
            "IsOwnedByProfile": True, "IsCustom": True, "PermissionsApiEnabled": True,
            "PermissionsCustomizeApplication": True, "PermissionsAssignPermissionSets": True,
            "PermissionsManageProfilesPermissionsets": True, "PermissionsManageUsers": False,
            "PermissionsAuthorApex": False, "PermissionsEditTask": False,
            "PermissionsViewAllData": False, "PermissionsModifyAllData": False,
        },
    },
    "PermissionSetAssignment": {
        record_id("0Pa", 1): {"PermissionSetId": PROFILE_SET, "AssigneeId": INTEGRATION_USER},
    },
    "ObjectPermissions": {
        record_id("110", number): {"ParentId": PROFILE_SET, "SobjectType": name} | _MAY
        for number, name in enumerate(_EDITED, 1)
    },
}  # fmt: skip
"""The records by object and id, from the beginning of time."""
