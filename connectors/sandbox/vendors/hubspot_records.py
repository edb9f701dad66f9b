"""The synthetic company's customers as somebody would keep them in HubSpot.

Everything changes at a moment: a record is a chain of property changes, from which the server
derives the state of a day and the history of a property. Merging two companies makes a third one,
as HubSpot has done since 2025; both old ids lead to it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from connectors.sandbox.servers.box import Table, WorldFiles
from connectors.sandbox.servers.moments import from_berlin, iso
from connectors.sandbox.vendors.typed_facts import CONTACTS, handoffs, overrides

_BERLIN = ZoneInfo("Europe/Berlin")
_LIFECYCLE = {"Prospect": "opportunity", "Customer": "customer", "Former customer": "other"}
_BUYING_ROLES = {
    "champion": "CHAMPION", "decision_maker": "DECISION_MAKER", "sponsor": "EXECUTIVE_SPONSOR",
    "admin": "ADMIN",
}  # fmt: skip
_DEAL_TYPES = {
    "New business": "newbusiness", "Renewal": "renewal", "Expansion": "expansion",
    "Downgrade": "downgrade",
}  # fmt: skip
_STAGES = {
    "Proposal": "presentationscheduled", "Negotiation": "contractsent",
    "Closed won": "closedwon", "Closed lost": "closedlost",
}  # fmt: skip
FIRST_ID = {
    "companies": 9_000_000_000, "merged": 9_500_000_000, "contacts": 20_000_000_000,
    "deals": 30_000_000_000, "tasks": 40_000_000_000, "feedback_submissions": 50_000_000_000,
}  # fmt: skip
"""The number before the first id of each type of record."""


Change = tuple[float, dict[str, str | None]]


@dataclass
class Records:
    """All records of the portal; `successors` maps a merged id to the moment and the new id."""

    world: WorldFiles
    successors: dict[str, tuple[float, str]] = field(default_factory=dict)

    @cached_property
    def owners(self) -> dict[str, dict[str, Any]]:
        """Owners by the name of the person."""
        changes = self.world.rows("crm/account_changes.csv")
        names = {row[column] for row in changes for column in ("Success_Manager", "Sales_Rep")}
        return {
            name: {
                "id": str(70_000_000 + number),
                "userId": 50_000_000 + number,
                "userIdIncludingInactive": 50_000_000 + number,
                "email": f"{name.lower().replace(' ', '.')}@lakeview.example",
                "firstName": name.partition(" ")[0],
                "lastName": name.partition(" ")[2],
                "type": "PERSON",
                "archived": False,
                "teams": [],
            }
            for number, name in enumerate(sorted(filter(None, names)), 1)
        }

    @cached_property
    def company_ids(self) -> dict[str, str]:
        """The id under which each account number was created."""
        accounts = self.world.rows("crm/accounts.csv")
        first = FIRST_ID["companies"]
        return {row["Account_No"]: str(first + i) for i, row in enumerate(accounts, 1)}

    def fill_owners(self, table: Table) -> None:
        """Owners never change here."""
        for owner in self.owners.values():
            table.put(owner["id"], owner, from_berlin("2020-01-01 09:00:00"))

    def fill_companies(self, table: Table) -> None:
        """Accounts with everything that people note about them."""
        changes = defaultdict[str, list[Change]](list)
        self._account_changes(changes)
        begin = {number: min(at for at, _ in of) for number, of in changes.items()}
        for number, at, note in self._notes():
            # Nobody can note something on a record before there is one.
            changes[number].append((max(at, begin[number] + 1), note))
        records = {self.company_ids[number]: of for number, of in changes.items()}
        ends: dict[str, float] = {}
        for row in self.world.rows("crm/account_changes.csv"):
            at = from_berlin(row["Changed_At"])
            if row["Deleted"] == "yes":
                ends[self.company_ids[row["Account_No"]]] = at + 1
            elif row["Merged_Into"]:
                ends |= self._merge(records, row, at)
        for id, of_record in records.items():
            end = ends.get(id, float("inf"))
            _put_all(table, id, [change for change in of_record if change[0] < end])
            if id in ends:
                table.remove(id, end)

    def _merge(
        self, records: dict[str, list[Change]], row: dict[str, Any], at: float
    ) -> dict[str, float]:
        """Two companies become a new one, which goes on as the survivor; returns their ends."""
        old = [
            self.living(self.company_ids[row[name]], at) for name in ("Merged_Into", "Account_No")
        ]
        new = str(FIRST_ID["merged"] + len(self.successors) // 2 + 1)
        state: dict[str, str | None] = {}
        for _, change in sorted((c for c in records[old[0]] if c[0] < at), key=itemgetter(0)):
            state = state | change
        state["hs_merged_object_ids"] = ";".join(old)
        records[new] = [(at, state), *(c for c in records[old[0]] if c[0] >= at)]
        self.successors |= dict.fromkeys(old, (at, new))
        return dict.fromkeys(old, at)

    def living(self, id: str, now: float) -> str:
        """The id of the company that a company's id leads to."""
        while id in self.successors and self.successors[id][0] <= now:
            id = self.successors[id][1]
        return id

    def _account_changes(self, changes: dict[str, list[Change]]) -> None:
        lasting = {row["Account_No"]: row for row in self.world.rows("crm/accounts.csv")}
        for row in self.world.rows("crm/account_changes.csv"):
            number = row["Account_No"]
            account = lasting[number]
            parent = account["Parent_Account"]
            facts = {
                "account_number": number,
                "name": account["Account_Name"],
                "domain": (account["Website"] or "").removeprefix("https://www."),
                "website": account["Website"],
                "hs_parent_company_id": self.company_ids.get(parent) if parent else None,
                "industry": account["Industry"],
                "region": account["Region"],
                "numberofemployees": account["Headcount"],
                "customer_since": account["Customer_Since"],
                "annual_contract_value": row["Annual_Value"],
                "contract_currency": row["Currency"],
                "edition": row["Edition"],
                "objective": row["Objective"],
                "next_renewal": row["Next_Renewal"],
                "lifecyclestage": _LIFECYCLE[row["Status"]],
                "success_manager": self._owner(row["Success_Manager"]),
                "hubspot_owner_id": self._owner(row["Sales_Rep"]),
                "description": "Written down by sales",
            }
            changes[number].append((from_berlin(row["Changed_At"]), facts))

    def _notes(self) -> Iterator[tuple[str, float, dict[str, str | None]]]:
        """What success managers note on a company: their feeling, goals, steps of onboarding, and
        risks that they set by hand.
        """
        for number, set_at, values in overrides(self.world):
            typed = {field.hubspot: text for field, text in values.items()}
            yield number, from_berlin(set_at), typed
        for row in self.world.rows("crm/csm_notes.csv"):
            at = from_berlin(row["Written_At"])
            note = {
                "csm_sentiment": row["Rating"], "csm_sentiment_at": iso(at),
                "csm_sentiment_by": self._owner(row["Author"]),
            }  # fmt: skip
            if row["Competitor_Mentioned"] == "yes":
                note["competitor_mentioned_at"] = iso(at)
            yield row["Account_No"], at, note
        for row in self.world.rows("crm/goals.csv"):
            if not row["Measured_At"][0].isdigit():  # no date property takes it
                continue
            at = from_berlin(row["Measured_At"])
            goal = {
                "goal_name": row["Goal"], "goal_target": row["Target_Percent"],
                "goal_progress": row["Reached_Percent"], "goal_due": row["Due"],
                "goal_measured_at": iso(at),
            }  # fmt: skip
            yield row["Account_No"], at, goal
        for row in self.world.rows("crm/milestones.csv"):
            step = row["Milestone"].lower().replace(" ", "_").replace("-", "_")
            planned = from_berlin(row["Planned_At"])
            yield row["Account_No"], planned, {f"onboarding_{step}_due": row["Due"]}
            if row["Reached"]:
                done = max(from_berlin(f"{row['Reached']} 12:00:00"), planned + 1)
                yield row["Account_No"], done, {f"onboarding_{step}_on": row["Reached"]}

    def fill_contacts(self, table: Table) -> None:
        """People by their role, and those who answered a survey."""
        changes = defaultdict[str, list[Change]](list)
        companies: dict[str, str | None] = {}
        for row in self.world.rows("crm/contacts.csv"):
            if not row["Account_No"]:  # its address is somebody else's, which HubSpot refuses
                continue
            companies[row["Email"]] = self.company_ids[row["Account_No"]]
            facts = {
                "email": row["Email"], "firstname": "Kim", "lastname": "Sample",
                "jobtitle": "Head of something", "lifecyclestage": "customer",
                "hs_buying_role": _BUYING_ROLES[row["Role"]],
                "contact_since": row["Since"], "left_company_on": row["Left_On"],
            }  # fmt: skip
            changes[row["Email"]].append((from_berlin(row["Modified_At"]), facts))
        for email, answers in self.respondents.items():
            at = min(from_berlin(answer["answered_at"]) for answer in answers)
            companies.setdefault(email, self._company_of(email, answers))
            changes[email].append((at, {"email": email, "lifecyclestage": "customer"}))
        for email, of_person in changes.items():
            known = {"companies": [companies[email]] if companies[email] else []}
            _put_all(table, self.contact_ids[email], of_person, known)

    @cached_property
    def contact_ids(self) -> dict[str, str]:
        """The id of each address, which HubSpot keeps unique."""
        emails = [row["Email"] for row in self.world.rows("crm/contacts.csv")]
        every = dict.fromkeys([*emails, *self.respondents])
        return {email: str(FIRST_ID["contacts"] + i) for i, email in enumerate(every, 1)}

    @cached_property
    def respondents(self) -> dict[str, list[dict[str, Any]]]:
        """Answers by e-mail address; what HubSpot could not hold is left out."""
        found = defaultdict[str, list[dict[str, Any]]](list)
        for kind, file in (("NPS", "surveys/nps.csv"), ("CSAT", "surveys/csat.csv")):
            for row in self.world.rows(file):
                if row["response_id"] and row["answered_at"][0].isdigit():
                    found[row["email"]].append({**row, "kind": kind})
        return found

    def _company_of(self, email: str, answers: list[dict[str, Any]]) -> str | None:
        numbers = [answer["crm_account_no"] for answer in answers if answer["crm_account_no"]]
        if numbers:
            return self.company_ids[numbers[0]]
        same = [
            row["Account_No"]
            for row in self.world.rows("crm/accounts.csv")
            if row["Website"] == f"https://www.{email.rpartition('@')[2]}"
        ]
        return self.company_ids[same[0]] if len(same) == 1 else None

    def fill_deals(self, table: Table) -> None:
        """Opportunities, as they were opened and as they were closed."""
        rows = {row["Opportunity_No"]: row for row in self.world.rows("crm/opportunities.csv")}
        forms, contacts = handoffs(self.world), self.world.rows("crm/contacts.csv")
        people: dict[str | None, str] = {
            row["Contact_No"]: self.contact_ids[row["Email"]] for row in contacts
        }
        for count, row in enumerate(rows.values(), 1):
            created = from_berlin(row["Created_At"])
            closed = from_berlin(row["Closed_At"]) if row["Closed_At"] else None
            opened = {
                "dealname": row["Opportunity_No"], "dealtype": _DEAL_TYPES[row["Type"]],
                "pipeline": "default", "amount": row["Amount"],
                "previous_amount": row["Previous_Amount"], "deal_currency_code": row["Currency"],
                "dealstage": "qualifiedtobuy" if closed else _STAGES[row["Stage"]],
                "closedate": f"{row['Expected_Close']}T00:00:00Z",
                "hs_is_closed": "false", "hs_is_closed_won": "false",
            }  # fmt: skip
            changes: list[Change] = [(created, opened)]
            if closed:
                end = {
                    "dealstage": _STAGES[row["Stage"]], "closedate": iso(closed),
                    "hs_is_closed": "true", "effective_on": row["Effective_On"],
                    "hs_is_closed_won": str(row["Stage"] == "Closed won").lower(),
                }  # fmt: skip
                changes.append((max(closed, created + 1), end))
            for noted_at, form in forms.get(row["Opportunity_No"], []):
                note = {
                    fact.hubspot: people.get(text) if fact in CONTACTS else text
                    for fact, text in form.items()
                }
                changes.append((max(from_berlin(noted_at), created + 1), note))
            known = {"companies": [self.company_ids[row["Account_No"]]]}
            _put_all(table, str(FIRST_ID["deals"] + count), changes, known)

    def fill_tasks(self, table: Table) -> None:
        """A success manager who is worried sets a task, and does it within a week."""
        worried = [row for row in self.world.rows("crm/csm_notes.csv") if int(row["Rating"]) <= 2]
        for count, row in enumerate(worried, 1):
            at = from_berlin(row["Written_At"])
            asked: dict[str, str | None] = {
                "hs_timestamp": iso(at + 7 * 86400), "hs_task_status": "NOT_STARTED",
                "hs_task_subject": "Call them", "hs_task_body": "They sound unhappy.",
                "hs_task_priority": "HIGH", "hs_task_type": "CALL",
                "hubspot_owner_id": self._owner(row["Author"]),
            }  # fmt: skip
            done: dict[str, str | None] = {"hs_task_status": "COMPLETED"}
            known = {"companies": [self.company_ids[row["Account_No"]]]}
            number = str(FIRST_ID["tasks"] + count)
            _put_all(table, number, [(at, asked), (at + (1 + count % 9) * 86400, done)], known)

    def fill_feedback_submissions(self, table: Table) -> None:
        """Answers to surveys; they hang on the contact."""
        number = FIRST_ID["feedback_submissions"]
        for email, answers in self.respondents.items():
            for answer in answers:
                number += 1
                at = from_berlin(answer["answered_at"])
                facts = {
                    "hs_survey_type": answer["kind"], "hs_survey_id": str(len(answer["kind"])),
                    "hs_survey_name": answer["kind"].lower(), "hs_value": answer["score"],
                    "hs_submission_timestamp": iso(at), "hs_content": "It is what it is.",
                    "respondent_role": answer["role"],
                }  # fmt: skip
                known = {"contacts": [self.contact_ids[email]]}
                _put_all(table, str(number), [(at, facts)], known)

    def _owner(self, name: str | None) -> str | None:
        return str(self.owners[name]["id"]) if name else None


def _put_all(
    table: Table,
    id: str,
    changes: list[Change],
    associations: Mapping[str, list[Any]] | None = None,
) -> None:
    """Play the changes of one record in order; several of one second become one version."""
    properties: dict[str, str | None] = {}
    by_moment = defaultdict[float, dict[str, str | None]](dict)
    for at, change in sorted(changes, key=itemgetter(0)):
        by_moment[at] |= change
    for at, change in by_moment.items():
        properties = properties | change
        table.put(id, {"properties": properties, "associations": associations or {}}, at)
