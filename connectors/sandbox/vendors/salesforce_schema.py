"""The objects of the sandbox's Salesforce org and their fields."""

from connectors.sandbox.vendors.soql import Field, Schema

_CREATED = "CreatedDate:datetime CreatedById:reference:User:CreatedBy"
_SYSTEM = (
    f"{_CREATED} LastModifiedDate:datetime LastModifiedById:reference:User:LastModifiedBy "
    "SystemModstamp:datetime"
)
_OWNED = f"Id:id IsDeleted:boolean OwnerId:reference:User:Owner {_SYSTEM}"
_HISTORY = f"Id:id IsDeleted:boolean {_CREATED} Field:picklist DataType:picklist " + (
    "OldValue:anyType NewValue:anyType"
)


def _fields(declared: str) -> dict[str, Field]:
    """``ARR__c:currency`` is a field, ``=Region__c:string`` a formula, and a reference goes on
    with its object and the name of the relationship.
    """
    found = {}
    for item in declared.split():
        name, kind, *reference = item.lstrip("=").split(":")
        refers, relationship = reference or (None, None)
        label = name.removesuffix("__c").replace("_", " ")
        calculated = item.startswith("=")
        found[name] = Field(name, kind, label, refers, relationship, calculated)
    return found


SCHEMA: Schema = {
    "Organization": _fields(
        f"Id:id Name:string IsSandbox:boolean OrganizationType:picklist {_SYSTEM}"
    ),
    "User": _fields(
        "Id:id Username:string FirstName:string LastName:string Name:string Email:email "
        f"IsActive:boolean UserType:picklist {_SYSTEM}"
    ),
    "Account": _fields(
        f"{_OWNED} Name:string AccountNumber:string Type:picklist Website:url Phone:phone "
        "ParentId:reference:Account:Parent MasterRecordId:reference:Account:MasterRecord "
        "Industry:picklist AnnualRevenue:currency NumberOfEmployees:int Description:textarea "
        "CurrencyIsoCode:picklist ARR__c:currency Renewal_Date__c:date Customer_Since__c:date "
        "Edition__c:picklist Objective__c:string =Region__c:string "
        "Success_Manager__c:reference:User:Success_Manager__r"
    ),
    "AccountHistory": _fields(f"{_HISTORY} AccountId:reference:Account:Account"),
    "Contact": _fields(
        f"{_OWNED} AccountId:reference:Account:Account FirstName:string LastName:string "
        "Name:string Email:email Phone:phone Title:string Role__c:picklist Since__c:date "
        "Left_On__c:date Contact_No__c:string MasterRecordId:reference:Contact:MasterRecord"
    ),
    "Opportunity": _fields(
        f"{_OWNED} AccountId:reference:Account:Account Name:string Type:picklist "
        "StageName:picklist Amount:currency Probability:percent CloseDate:date IsClosed:boolean "
        "IsWon:boolean LastStageChangeDate:datetime CurrencyIsoCode:picklist "
        "Previous_Amount__c:currency Effective_On__c:date Opportunity_No__c:string"
    ),
    "OpportunityHistory": _fields(
        f"Id:id IsDeleted:boolean {_CREATED} SystemModstamp:datetime StageName:picklist "
        "OpportunityId:reference:Opportunity:Opportunity Amount:currency Probability:percent "
        "CloseDate:date"
    ),
    "Task": _fields(
        f"{_OWNED} AccountId:reference:Account:Account WhatId:reference:Account:What "
        "WhoId:reference:Contact:Who Subject:string Description:textarea Status:picklist "
        "Priority:picklist ActivityDate:date IsClosed:boolean TaskSubtype:picklist "
        "CompletedDateTime:datetime"
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
}

HISTORY = {"Account": ("AccountHistory", "AccountId"), "Goal__c": ("Goal__History", "ParentId")}
"""Where changes of an object's tracked fields are kept, and the field that names the record."""

TRACKED = {
    "Account": (
        "Name", "AccountNumber", "Type", "OwnerId", "ParentId", "CurrencyIsoCode", "ARR__c",
        "Renewal_Date__c", "Edition__c", "Objective__c", "Success_Manager__c",
    ),
    "Goal__c": ("Progress__c", "Measured_At__c"),
}  # fmt: skip
