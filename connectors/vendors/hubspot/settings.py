"""Which HubSpot properties hold what: HubSpot's own where it has one, else your custom ones.

Write only those that differ, and "" for one that your portal does not have::

    fields:
      company: {arr: yearly_value, renewal: contract_end}
      deal: {effective_on: starts_on}
"""

from typing import Annotated, Literal

import orjson
from pydantic import Field

from connectors.api import ApiConfig, FromEnvironment
from contracts.company import Strict
from contracts.crm_fields import FIELDS, CrmObject

Property = Annotated[str, Field(pattern=r"^[a-z0-9_]*$")]
"""The internal name of a property."""

_NO_PROPERTY = "(none)"


class CompanyFields(Strict):
    """Company properties. `number` is the account's id in every other system of yours.

    The sentiment, the goal and the rival are dated by a property of their own (`..._at`), whose
    history gives every assessment and every measurement.
    """

    number: Property = "account_number"
    name: Property = "name"
    domain: Property = "domain"
    status: Property = "lifecyclestage"
    success_manager: Property = "success_manager"
    sales_owner: Property = "hubspot_owner_id"
    arr: Property = "annual_contract_value"
    currency: Property = "contract_currency"
    plan: Property = "edition"
    objective: Property = "objective"
    started: Property = "customer_since"
    renewal: Property = "next_renewal"
    employees: Property = "numberofemployees"
    industry: Property = "industry"
    region: Property = "region"
    sentiment: Property = "csm_sentiment"
    sentiment_at: Property = "csm_sentiment_at"
    sentiment_by: Property = "csm_sentiment_by"
    goal: Property = "goal_name"
    goal_target: Property = "goal_target"
    goal_progress: Property = "goal_progress"
    goal_due: Property = "goal_due"
    goal_at: Property = "goal_measured_at"
    rival_at: Property = "competitor_mentioned_at"
    override_score: Property = FIELDS["override_score"].hubspot
    override_reason: Property = FIELDS["override_reason"].hubspot
    override_until: Property = FIELDS["override_until"].hubspot


class ContactFields(Strict):
    """Contact properties: a role and two dates, never a name."""

    role: Property = "hs_buying_role"
    since: Property = "contact_since"
    left: Property = "left_company_on"


class DealFields(Strict):
    """Deal properties. `previous_amount` and `effective_on` tell what came of a renewal.

    From `promised_outcome` on they are what sales hands over; the champion and the decision maker
    by the ids of their contacts.
    """

    type: Property = "dealtype"
    stage: Property = "dealstage"
    amount: Property = "amount"
    currency: Property = "deal_currency_code"
    closes: Property = "closedate"
    previous_amount: Property = "previous_amount"
    effective_on: Property = "effective_on"
    promised_outcome: Property = FIELDS["handoff_promised_outcome"].hubspot
    success_criteria: Property = FIELDS["handoff_success_criteria"].hubspot
    champion: Property = FIELDS["handoff_champion"].hubspot
    decision_maker: Property = FIELDS["handoff_decision_maker"].hubspot
    stakeholders_met: Property = FIELDS["handoff_stakeholders_met"].hubspot
    sentiment: Property = FIELDS["handoff_sentiment"].hubspot
    kickoff_on: Property = FIELDS["handoff_kickoff_on"].hubspot


class FeedbackFields(Strict):
    """Properties of a survey response."""

    score: Property = "hs_value"
    kind: Property = "hs_survey_type"
    at: Property = "hs_submission_timestamp"
    role: Property = "respondent_role"


class Fields(Strict):
    """The properties of all types."""

    company: CompanyFields = CompanyFields()
    contact: ContactFields = ContactFields()
    deal: DealFields = DealFields()
    feedback: FeedbackFields = FeedbackFields()


class Milestone(Strict):
    """The company properties that hold when a step is due and when it was reached."""

    due: Property
    reached: Property


class HubSpotConfig(ApiConfig):
    """Settings: a token, and how the portal is used.

    `api_version` is `v3`, or a date such as `2026-03`, under which HubSpot publishes the same
    paths; v3 ends in September 2027. `deletions_every_hours` is how often archived records are
    looked for. `deal_kinds` says what a deal type means: new, renewal or expansion.
    """

    type: Literal["hubspot"]
    token: FromEnvironment
    api_version: str = Field(default="v3", pattern=r"^(v3|20\d\d-\d\d)$")
    deletions_every_hours: int = Field(default=24, ge=1)
    fields: Fields = Fields()
    customer_stage: str = "customer"
    portal_currency: str = Field(default="", pattern=r"^([A-Z]{3})?$")
    milestones: dict[str, Milestone] = Field(default_factory=dict)
    sentiment_valid_days: int = Field(default=120, ge=1)
    deal_kinds: dict[str, Literal["new", "renewal", "expansion"]] = Field(
        default={
            "newbusiness": "new",
            "existingbusiness": "expansion",
            "expansion": "expansion",
            "renewal": "renewal",
            "downgrade": "renewal",
        }
    )
    survey_scales: dict[str, float] = Field(default={"NPS": 10, "CSAT": 5, "CES": 7})

    def fields_of(self, object: CrmObject) -> dict[str, str]:
        """The property behind each meaning of companies or deals, without those there are not."""
        fields = self.fields.company if object == "account" else self.fields.deal
        names: dict[str, str] = fields.model_dump()
        if object == "account":
            for step, milestone in self.milestones.items():
                names |= {f"{step} due": milestone.due, f"{step} reached": milestone.reached}
        return {meaning: name for meaning, name in names.items() if name}

    def parameters(self) -> dict[str, str]:
        """Property names as ``${company_arr}``, and the lists as JSON."""
        names = {
            f"{type}_{field}": name or _NO_PROPERTY
            for type, fields in self.fields.model_dump().items()
            for field, name in fields.items()
        }
        steps = [{"name": name, **step.model_dump()} for name, step in self.milestones.items()]
        return names | {
            "customer_stage": self.customer_stage,
            "portal_currency": self.portal_currency,
            "milestones": orjson.dumps(steps).decode(),
            "sentiment_valid_days": str(self.sentiment_valid_days),
            "deal_kinds": orjson.dumps(self.deal_kinds).decode(),
            "survey_scales": orjson.dumps(self.survey_scales).decode(),
        }
