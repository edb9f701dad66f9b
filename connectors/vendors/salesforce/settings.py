"""What a company says about its Salesforce org: how to get in, and which field means what.

Every org has fields of its own, so each meaning names the field that holds it, and YAML changes
what is different::

    fields:
      account:
        arr: Annual_Value__c
        owner: CSM__c            # a lookup to User, or plain text
        region: null             # this org has none

A field that the org does not have, or that the user may not see, stays empty. Parents are reached
with a dot: ``Owner.Name``.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from connectors.api import ApiConfig, FromEnvironment
from contracts.crm_fields import HANDOFF_FACTS, OVERRIDE
from contracts.documents import nearest

Meanings = dict[str, str]
"""The API name of the field that holds each meaning."""

FIELDS: dict[str, Meanings] = {
    "account": {
        "account_id": "AccountNumber",
        "name": "Name",
        "website": "Website",
        "parent": "ParentId",
        "owner": "Success_Manager__c",
        "sales_owner": "OwnerId",
        "arr": "ARR__c",
        "currency": "CurrencyIsoCode",
        "employees": "NumberOfEmployees",
        "industry": "Industry",
        "region": "Region__c",
        "plan": "Edition__c",
        "started_on": "Customer_Since__c",
        "renews_on": "Renewal_Date__c",
        "desired_outcome": "Objective__c",
        "status": "Type",
        **{field.name: field.salesforce for field in OVERRIDE},
    },
    "user": {"name": "Name", "is_active": "IsActive"},
    "contact": {
        "account": "AccountId",
        "role": "Role__c",
        "joined_on": "Since__c",
        "left_on": "Left_On__c",
    },
    "opportunity": {
        "account": "AccountId",
        "type": "Type",
        "stage": "StageName",
        "amount": "Amount",
        "previous_amount": "Previous_Amount__c",
        "currency": "CurrencyIsoCode",
        "closes_on": "CloseDate",
        "effective_on": "Effective_On__c",
        **{field.name.removeprefix("handoff_"): field.salesforce for field in HANDOFF_FACTS},
    },
    "note": {
        "account": "Account__c",
        "score": "Rating__c",
        "text": "Note__c",
        "author": "CreatedBy.Name",
        "given_at": "CreatedDate",
        "expires_on": "Valid_Until__c",
        "names_competitor": "Competitor_Mentioned__c",
    },
    "goal": {
        "account": "Account__c",
        "name": "Name",
        "target": "Target__c",
        "progress": "Progress__c",
        "due_on": "Due__c",
        "measured_at": "Measured_At__c",
    },
    "milestone": {
        "account": "Account__c",
        "name": "Name",
        "planned_at": "CreatedDate",
        "due_on": "Due__c",
        "reached_on": "Reached__c",
    },
    "task": {
        "account": "AccountId",
        "owner": "OwnerId",
        "status": "Status",
        "priority": "Priority",
        "due_on": "ActivityDate",
        "is_closed": "IsClosed",
        "kind": "TaskSubtype",
    },
}

_NAME = "[A-Za-z][A-Za-z0-9_]*"
ApiName = Annotated[str, StringConstraints(pattern=f"^{_NAME}$", max_length=80)]
FieldPath = Annotated[str, StringConstraints(pattern=rf"^{_NAME}(\.{_NAME})*$", max_length=250)]


class SalesforceConfig(ApiConfig):
    """Settings: where the org is, one way to log in, and what its objects and fields mean.

    One of these: `access_token`; `consumer_key` and `consumer_secret` (client credentials, the
    usual one); `consumer_key`, `username` and `private_key` (signed JWT); or `consumer_key`,
    `consumer_secret`, `username`, `password` and the user's `security_token`.

    `objects` renames the custom objects, `customer_types` and `opportunity_kinds` say which
    picklist values mean what, `currency` is that of an org with a single one. More rows than
    `bulk_above_rows` in a first reading come by Bulk 2.0. Reading stops once `daily_share` of the
    org's API requests of the day are used, by whomever. Formulas change without a trace, so all
    records of an object that has any are read every `full_scan_hours`. `ca_file` holds the
    certificates to trust in place of the usual ones; its path may begin at the company folder.
    """

    type: Literal["salesforce"]
    instance_url: str | None = Field(default=None, pattern=r"^https://[A-Za-z0-9.-]+(:\d+)?/?$")
    access_token: FromEnvironment | None = None
    consumer_key: FromEnvironment | None = None
    consumer_secret: FromEnvironment | None = None
    username: FromEnvironment | None = None
    private_key: FromEnvironment | None = None
    password: FromEnvironment | None = None
    security_token: FromEnvironment | None = None
    api_version: str = Field(default="64.0", pattern=r"^\d\d\.0$")
    ca_file: Path | None = None
    objects: dict[Literal["note", "goal", "milestone"], ApiName] = Field(default_factory=dict)
    fields: dict[str, dict[str, FieldPath | None]] = Field(default_factory=dict)
    customer_types: list[str] = Field(
        default=["Customer", "Customer - Direct", "Customer - Channel"], min_length=1
    )
    opportunity_kinds: dict[Literal["new", "expansion", "renewal"], list[str]] = Field(
        default_factory=dict
    )
    currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    bulk_above_rows: int = Field(default=50_000, ge=1)
    bulk_poll_seconds: float = Field(default=5, gt=0, le=60)
    bulk_wait_minutes: float = Field(default=60, gt=0)
    daily_share: float = Field(default=0.8, gt=0, le=1)
    full_scan_hours: float = Field(default=24, gt=0)

    @field_validator("fields")
    @classmethod
    def _known_meanings(
        cls, fields: dict[str, dict[str, str | None]]
    ) -> dict[str, dict[str, str | None]]:
        for name, given in fields.items():
            if name not in FIELDS:
                raise ValueError(f"unknown object '{name}'; {nearest(name, FIELDS)}")
            for meaning in given:
                if meaning not in FIELDS[name]:
                    near = nearest(meaning, FIELDS[name])
                    raise ValueError(f"unknown meaning '{meaning}' of {name}; {near}")
        return fields

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if not (self.address or self.instance_url):
            raise ValueError("give `instance_url`, such as https://acme.my.salesforce.com")
        given = {name for name in WAY_IN if getattr(self, name) is not None}
        if given not in _WAYS_IN:
            raise ValueError(
                "give `access_token`, or `consumer_key` with one of: `consumer_secret`; `username` "
                "and `private_key`; `consumer_secret`, `username` and `password`"
            )
        return self

    @property
    def home(self) -> str:
        """The org's own address, which also logs in."""
        return (self.address or self.instance_url or "").rstrip("/")

    def object_name(self, name: str, default: str) -> str:
        """The API name of one of the custom objects, as this org calls it."""
        return {str(key): value for key, value in self.objects.items()}.get(name, default)

    def fields_of(self, name: str) -> Meanings:
        """The field behind each meaning of an object, without those that were switched off."""
        given = {**FIELDS[name], **self.fields.get(name, {})}
        return {meaning: field for meaning, field in given.items() if field is not None}

    def parameters(self) -> dict[str, str]:
        """What the packaged mappings need to know; lists as JSON."""
        kinds = _KINDS | {str(kind): types for kind, types in self.opportunity_kinds.items()}
        return {
            "customer_types": json.dumps(self.customer_types),
            "new_types": json.dumps(kinds["new"]),
            "expansion_types": json.dumps(kinds["expansion"]),
            "renewal_types": json.dumps(kinds["renewal"]),
            "currency": self.currency or "",
        }


_SECRETS = (
    "consumer_key", "consumer_secret", "username", "private_key", "password", "security_token",
)  # fmt: skip
WAY_IN = ("access_token", *_SECRETS)
"""The settings that log in; which of them go together is said in `SalesforceConfig`."""

_WAYS_IN = (
    {"access_token"},
    {"consumer_key", "consumer_secret"},
    {"consumer_key", "username", "private_key"},
    {"consumer_key", "consumer_secret", "username", "password"},
    {"consumer_key", "consumer_secret", "username", "password", "security_token"},
)
_KINDS: dict[str, list[str]] = {
    "new": ["New business", "New Business", "New Customer"],
    "expansion": ["Expansion", "Upsell", "Existing Customer - Upgrade"],
    "renewal": [
        "Renewal", "Downgrade", "Existing Customer - Replacement", "Existing Customer - Downgrade",
    ],
}  # fmt: skip
