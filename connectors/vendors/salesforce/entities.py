"""The objects of Salesforce that are read, each as a stream."""

from collections.abc import Mapping
from dataclasses import dataclass

from connectors.vendors.salesforce.settings import FIELDS, SalesforceConfig

_RECORD = {"id": "Id", "created_at": "CreatedDate", "modified_at": "SystemModstamp"}
_DELETABLE = {**_RECORD, "is_deleted": "IsDeleted"}
_HISTORY = {
    "id": "Id", "created_at": "CreatedDate", "field": "Field", "data_type": "DataType",
    "old_value": "OldValue", "new_value": "NewValue",
}  # fmt: skip


@dataclass(frozen=True)
class Entity:
    """An object of Salesforce as a stream: its system fields, and those that the settings name.

    Args:
        object: Its API name; `renamed_by` is the setting that may change it.
        system: The fields that every org has, by our name.
        fields: The object of the settings whose fields are read besides.
        cursor: Our name of the time by which changes are followed.
        optional: Its absence is no error.
        tracks: For a history: the object of the settings whose fields it tells about.
        recent: A first reading goes back to `history_start` only.
        contacts: The columns that have to hold a contact's id; what else people typed there, such
            as a name, is not stored.
    """

    object: str
    system: Mapping[str, str]
    fields: str | None = None
    cursor: str = "modified_at"
    renamed_by: str | None = None
    optional: bool = False
    tracks: str | None = None
    recent: bool = False
    primary_key: tuple[str, ...] = ("id",)
    contacts: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of its rows."""
        own = FIELDS[self.fields] if self.fields else {}
        return (*self.system, *own, "known_at", "backfilled")

    def name_in(self, config: SalesforceConfig) -> str:
        """Its API name in this org. The history of ``Goal__c`` is ``Goal__History``."""
        if self.renamed_by is None:
            return self.object
        if self.tracks is None:
            return config.object_name(self.renamed_by, self.object)
        parent = config.object_name(self.renamed_by, "")
        return f"{parent.removesuffix('__c')}__History" if parent else self.object


ENTITIES = {
    # Every version that was seen is kept: past ones are told by the first that came after them.
    "accounts": Entity(
        "Account", {**_DELETABLE, "master_record": "MasterRecordId"}, "account",
        primary_key=("id", "known_at"),
    ),
    "account_history": Entity(
        "AccountHistory", {**_HISTORY, "record": "AccountId"}, cursor="created_at",
        tracks="account", optional=True,
    ),
    "users": Entity("User", _RECORD, "user"),
    "contacts": Entity("Contact", _DELETABLE, "contact"),
    "opportunities": Entity(
        "Opportunity",
        {**_DELETABLE, "is_closed": "IsClosed", "is_won": "IsWon",
         "stage_changed_at": "LastStageChangeDate"},
        "opportunity",
        contacts=("champion", "decision_maker"),
    ),
    "opportunity_history": Entity(
        "OpportunityHistory",
        {"id": "Id", "created_at": "CreatedDate", "record": "OpportunityId", "stage": "StageName",
         "amount": "Amount", "closes_on": "CloseDate"},
        cursor="created_at", optional=True,
    ),
    "tasks": Entity("Task", _DELETABLE, "task", optional=True, recent=True),
    "notes": Entity("CSM_Note__c", _DELETABLE, "note", renamed_by="note", optional=True),
    "goals": Entity(
        "Goal__c", _DELETABLE, "goal", renamed_by="goal", optional=True,
        primary_key=("id", "known_at"),
    ),
    "goal_history": Entity(
        "Goal__History", {**_HISTORY, "record": "ParentId"}, cursor="created_at", tracks="goal",
        renamed_by="goal", optional=True,
    ),
    "milestones": Entity(
        "Milestone__c", _DELETABLE, "milestone", renamed_by="milestone", optional=True
    ),
}  # fmt: skip
