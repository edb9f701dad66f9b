"""The objects of the sandbox's Salesforce org and their fields."""

from connectors.sandbox.vendors.soql import Field, Schema
from contracts.crm_fields import CrmObject, read_on

_CREATED = "!CreatedDate:datetime !CreatedById:reference:User:CreatedBy"
_SYSTEM = (
    f"{_CREATED} !LastModifiedDate:datetime !LastModifiedById:reference:User:LastModifiedBy "
    "!SystemModstamp:datetime"
)
_OWNED = f"!Id:id !IsDeleted:boolean OwnerId:reference:User:Owner {_SYSTEM}"
_HISTORY = f"!Id:id !IsDeleted:boolean {_CREATED} !Field:picklist !DataType:picklist " + (
    "!OldValue:anyType !NewValue:anyType"
)
_RIGHTS = " ".join(
    f"Permissions{right}:boolean"
    for right in ("Read", "Create", "Edit", "Delete", "ViewAllRecords", "ModifyAllRecords")
)
_LENGTHS = {"textarea": 32_000, "id": 18, "reference": 18, "email": 80, "phone": 40}
_WITHOUT_LENGTH = ("boolean", "date", "datetime", "int", "double", "currency", "percent")


def _fields(declared: str) -> dict[str, Field]:
    """``ARR__c:currency`` is a field, ``=Region__c:string`` a formula, and a reference goes on
    with its object and the name of the relationship. ``!Id:id`` is never written,
    ``+Field:string`` only when a record is created; ``*Status:picklist`` takes only its values.
    """
    found = {}
    for item in declared.split():
        name, kind, *reference = item.lstrip("=!+*").split(":")
        refers, relationship = reference or (None, None)
        label = name.removesuffix("__c").replace("_", " ")
        length = 0 if kind in _WITHOUT_LENGTH else _LENGTHS.get(kind, 255)
        found[name] = Field(
            name, kind, label, refers, relationship, calculated=item[0] == "=", length=length,
            createable=item[0] not in "=!", updateable=item[0] not in "=!+",
            restricted=item[0] == "*",
        )  # fmt: skip
    return found


def _filled_by_people(object: CrmObject) -> str:
    """The fields of ours that an admin of this org made for people long ago."""
    types = {"number": "double", "text": "string", "long_text": "textarea", "date": "date"}
    return " ".join(f"{field.salesforce}:{types[field.kind]}" for field in read_on(object))


SCHEMA: Schema = {
    "Organization": _fields(
        f"!Id:id Name:string IsSandbox:boolean OrganizationType:picklist {_SYSTEM}"
    ),
    "User": _fields(
        "!Id:id Username:string FirstName:string LastName:string Name:string Email:email "
        "IsActive:boolean UserType:picklist TimeZoneSidKey:picklist "
        f"ManagerId:reference:User:Manager {_SYSTEM}"
    ),
    "Account": _fields(
        f"{_OWNED} Name:string AccountNumber:string Type:picklist Website:url Phone:phone "
        "ParentId:reference:Account:Parent !MasterRecordId:reference:Account:MasterRecord "
        "Industry:picklist AnnualRevenue:currency NumberOfEmployees:int Description:textarea "
        "CurrencyIsoCode:picklist ARR__c:currency Renewal_Date__c:date Customer_Since__c:date "
        "Edition__c:picklist Objective__c:string =Region__c:string "
        f"Success_Manager__c:reference:User:Success_Manager__r {_filled_by_people('account')}"
    ),
    "AccountHistory": _fields(f"{_HISTORY} AccountId:reference:Account:Account"),
    "Contact": _fields(
        f"{_OWNED} AccountId:reference:Account:Account FirstName:string LastName:string "
        "Name:string Email:email Phone:phone Title:string Role__c:picklist Since__c:date "
        "Left_On__c:date Contact_No__c:string !MasterRecordId:reference:Contact:MasterRecord"
    ),
    "Opportunity": _fields(
        f"{_OWNED} AccountId:reference:Account:Account Name:string Type:picklist "
        "StageName:picklist Amount:currency Probability:percent CloseDate:date !IsClosed:boolean "
        "!IsWon:boolean !LastStageChangeDate:datetime CurrencyIsoCode:picklist "
        "Previous_Amount__c:currency Effective_On__c:date Opportunity_No__c:string "
        f"{_filled_by_people('opportunity')}"
    ),
    "OpportunityHistory": _fields(
        f"!Id:id !IsDeleted:boolean {_CREATED} !SystemModstamp:datetime StageName:picklist "
        "OpportunityId:reference:Opportunity:Opportunity Amount:currency Probability:percent "
        "CloseDate:date"
    ),
    "Task": _fields(
        f"{_OWNED} !AccountId:reference:Account:Account WhatId:reference:Account:What "
        "WhoId:reference:Contact:Who Subject:string Description:textarea *Status:picklist "
        "*Priority:picklist ActivityDate:date !IsClosed:boolean +TaskSubtype:picklist "
        "!CompletedDateTime:datetime !IsArchived:boolean"
    ),
    "CSM_Note__c": _fields(
        f"{_OWNED} Name:string Account__c:reference:Account:Account__r Rating__c:double "
        "Note__c:string Competitor_Mentioned__c:boolean Valid_Until__c:date"
    ),
    "Goal__c": _fields(
        f"{_OWNED} Name:string Account__c:reference:Account:Account__r Goal_No__c:string "
        "Target__c:double Progress__c:double Due__c:date Measured_At__c:datetime"
    ),
    "Goal__History": _fields(f"{_HISTORY} ParentId:reference:Goal__c:Parent"),
    "Milestone__c": _fields(
        f"{_OWNED} Name:string Account__c:reference:Account:Account__r Milestone_No__c:string "
        "Due__c:date Reached__c:date"
    ),
    "Group": _fields(
        f"!Id:id Name:string DeveloperName:string Type:picklist Email:email {_SYSTEM}"
    ),
    "QueueSobject": _fields(
        f"!Id:id QueueId:reference:Group:Queue SobjectType:picklist {_CREATED} "
        "!SystemModstamp:datetime"
    ),
    "TaskStatus": _fields(
        "!Id:id MasterLabel:string ApiName:string SortOrder:int IsDefault:boolean "
        f"IsClosed:boolean {_SYSTEM}"
    ),
    "TaskPriority": _fields(
        "!Id:id MasterLabel:string ApiName:string SortOrder:int IsDefault:boolean "
        f"IsHighPriority:boolean {_SYSTEM}"
    ),
    "PermissionSet": _fields(
        "!Id:id Name:string Label:string Description:string !IsOwnedByProfile:boolean "
        "!IsCustom:boolean PermissionsApiEnabled:boolean PermissionsEditTask:boolean "
        "PermissionsCustomizeApplication:boolean PermissionsAssignPermissionSets:boolean "
        "PermissionsManageProfilesPermissionsets:boolean PermissionsManageUsers:boolean "
        "PermissionsAuthorApex:boolean PermissionsViewAllData:boolean "
        f"PermissionsModifyAllData:boolean {_SYSTEM}"
    ),
    "PermissionSetAssignment": _fields(
        "!Id:id +PermissionSetId:reference:PermissionSet:PermissionSet "
        "+AssigneeId:reference:User:Assignee !SystemModstamp:datetime"
    ),
    "FieldPermissions": _fields(
        "!Id:id +ParentId:reference:PermissionSet:Parent +SobjectType:picklist +Field:picklist "
        "PermissionsRead:boolean PermissionsEdit:boolean !SystemModstamp:datetime"
    ),
    "ObjectPermissions": _fields(
        f"!Id:id +ParentId:reference:PermissionSet:Parent +SobjectType:picklist {_RIGHTS} {_SYSTEM}"
    ),
}

REQUIRED = {
    "Account": ("Name",),
    "Contact": ("LastName",),
    "Opportunity": ("Name", "StageName", "CloseDate"),
    "Task": ("Status", "Priority", "OwnerId"),
    "PermissionSet": ("Name", "Label"),
    "PermissionSetAssignment": ("PermissionSetId", "AssigneeId"),
    "FieldPermissions": ("ParentId", "SobjectType", "Field"),
    "ObjectPermissions": ("ParentId", "SobjectType"),
}
"""The fields that may not be empty; tasks have them by themselves."""

HISTORY = {"Account": ("AccountHistory", "AccountId"), "Goal__c": ("Goal__History", "ParentId")}
"""Where changes of an object's tracked fields are kept, and the field that names the record."""

TRACKED = {
    "Account": (
        "Name", "AccountNumber", "Type", "OwnerId", "ParentId", "CurrencyIsoCode", "ARR__c",
        "Renewal_Date__c", "Edition__c", "Objective__c", "Success_Manager__c",
    ),
    "Goal__c": ("Progress__c", "Measured_At__c"),
}  # fmt: skip
