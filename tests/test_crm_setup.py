"""Setting a CRM up, as somebody does who has one and a page of instructions."""

import json
import re

import pytest
from crm_company import CRM_NAMES, HOUR, CrmCompany, new_company, opened, written_company
from demo_company import copy_of, write

from connectors.crm.settings import HubSpotTarget
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.vendors.hubspot.rights import needed_scopes, schema_scopes
from contracts.crm_fields import HANDOFF_FACTS

HEAD = "apply: true\nhubspot:\n  source: crm\n"


@pytest.fixture
def new(tmp_path_factory, tmp_path):
    """A company of whose scores its HubSpot knows nothing; ``apply: true``."""
    home = copy_of(new_company(tmp_path_factory, "hubspot"), tmp_path)
    with opened(home, "hubspot") as company:
        company.set_apply(True)
        yield company


def with_key(company: CrmCompany, token: str, name: str = "HUBSPOT_TOKEN") -> None:
    """Write another key into `.env`."""
    file = company.home / ".env"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(f"{name}=")]
    write(file, "\n".join([*lines, f"{name}={token}"]) + "\n")


def mistake(company: CrmCompany, text: str) -> str:
    """The one mistake that `plan` finds in a `crm.yaml`, without the path of the folder."""
    write(company.home / "crm.yaml", text)
    answer = company.healthloop("plan")
    assert (answer.code, answer.out) == (2, "")
    first, *rest = answer.err.splitlines()
    assert rest == ["1 mistake(s) in the company folder; correct them and run `healthloop check`"]
    return first.removeprefix(f"{company.home}/")


# -- crm.yaml -------------------------------------------------------------------------------------


def test_a_score_is_never_written_over_what_the_source_reads(new):
    assert mistake(
        new, f"{HEAD}  fields:\n    account: {{risk_score: Annual_Contract_Value}}\n"
    ) == (
        "crm.yaml:4: hubspot.fields: HubSpot has no property 'Annual_Contract_Value'; write the "
        "internal name, in lower case"
    )
    assert mistake(
        new, f"{HEAD}  fields:\n    account: {{risk_score: annual_contract_value}}\n"
    ) == (
        "crm.yaml:5: hubspot.fields: the source 'crm' reads 'annual_contract_value' as arr, which "
        "risk_score would overwrite; name another field"
    )
    assert mistake(new, f"{HEAD}  fields:\n    opportunity: {{upsell_score: amount}}\n") == (
        "crm.yaml:5: hubspot.fields: the source 'crm' reads 'amount' as amount, which "
        "upsell_score would overwrite; name another field"
    )
    assert "reads 'onboarding_kick_off_due' as kick_off due" in mistake(
        new, f"{HEAD}  fields:\n    account: {{risk_as_of: onboarding_kick_off_due}}\n"
    )


def test_what_people_fill_is_read_from_where_they_fill_it(new):
    text = f"{HEAD}  fields:\n    account: {{override_score: our_risk}}\n"
    assert mistake(new, text) == (
        "crm.yaml:5: hubspot.fields: people would fill 'our_risk', and the source 'crm' reads "
        "'healthloop_override_score' as override_score; give both one name, here or in `fields` "
        "of sources/crm.yaml"
    )
    source = new.home / "sources/crm.yaml"
    write(source, source.read_text() + "fields: {company: {override_score: our_risk}}\n")
    assert new.healthloop("plan").code == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("task: {key: HL_Key__c}",
         "hubspot.task: HubSpot has no property 'HL_Key__c'; write the internal name, in lower "
         "case"),
        ("task: {priorities: {urgent: HIGH}}",
         "hubspot.task.priorities.urgent is 'urgent'; it must be one of 'high', 'normal' or 'low'"),
        ("credentials: {access_token: {env: KEY}}",
         "hubspot.credentials: a source of type hubspot has no secret 'access_token'; valid are: "
         "token"),
    ],
)  # fmt: skip
def test_a_setting_that_hubspot_does_not_have_is_a_mistake_with_its_line(new, line, says):
    assert mistake(new, f"{HEAD}  {line}\n") == f"crm.yaml:4: {says}"


def test_a_source_with_a_mistake_is_not_said_to_be_missing(new):
    source = new.home / "sources/crm.yaml"
    write(source, source.read_text() + "api_version: 4\n")
    for command in ("check", "plan"):
        answer = new.healthloop(command)
        assert answer.code == 2
        assert "/sources/crm.yaml:" in answer.err
        assert "no source of type" not in answer.err


# -- provision ------------------------------------------------------------------------------------


def test_f37_nothing_is_made_in_another_portal_than_the_one_that_is_read_from(new):
    source = new.home / "sources/crm.yaml"
    write(source, source.read_text() + 'expect_account: "48151600"\n')
    for more in ((), ("--admin-token", "HUBSPOT_TOKEN")):
        answer = new.healthloop("provision hubspot --yes", *more)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == (
            "hubspot: the credentials for writing open account '48151623-sandbox', not "
            "'48151600'; use credentials of the organisation that is read from\n"
        )
    assert new.writes == 0


def test_a_portal_whose_tasks_take_no_unique_property_gets_its_fields_and_no_task(new):
    portal.settings(new.box, unique_tasks=False)
    answer = new.healthloop("provision hubspot --yes")
    assert answer.code == 1
    of_key, summary = answer.err.splitlines()
    assert of_key == (
        "tasks: healthloop_key (Healthloop key): hubspot: tasks take no property with unique "
        "values (VALIDATION_ERROR)"
    )
    assert re.fullmatch(
        r"hubspot: still to do: 1 of \d+ steps; do as they say, and run this again",
        summary,
    )
    _, _, left = answer.out.partition("Still to do\n")
    assert left.startswith("  ? tasks: healthloop_key (Healthloop key)\n      in HubSpot: Settings")
    assert left.count("\n") == 2
    plan = new.healthloop("plan")
    assert plan.code == 0
    assert "note: hubspot: tasks cannot be written: the property healthloop_key" in plan.out
    assert "tasks: 0 to open" in plan.out
    applied = new.healthloop("apply")
    assert applied.code == 0
    assert new.tasks() == []
    assert new.fields(new.calm_accounts()[0])["risk_band"] == "green"
    assert new.healthloop("plan").out.count("0 fields of 0 records") == 1


def test_a_key_that_only_writes_says_which_scopes_making_fields_takes(new):
    target = HubSpotTarget(source="crm")
    token = new.box.token("hubspot")
    with_key(new, f"{token}/{','.join(needed_scopes(target))}")
    making = ", ".join(sorted(schema_scopes(target, "write")))
    lent = ",".join((*schema_scopes(target, "read"), *schema_scopes(target, "write")))
    answer = new.healthloop("provision hubspot --yes")
    assert answer.code == 1
    assert f"  ? the scopes of the key\n      it lacks {making}; in HubSpot: " in answer.out
    assert answer.err == (
        "hubspot: refused access (403): the key lacks crm.schemas.companies.write; add it in "
        "HubSpot: Development > Keys > Service keys > the key > Edit scopes; docs/crm.md names "
        "all that are needed\n"
    )
    assert new.writes == 1  # the one that was refused
    with_key(new, f"{token}/{lent}", "HUBSPOT_ADMIN_TOKEN")
    answer = new.healthloop("provision hubspot --yes --admin-token HUBSPOT_ADMIN_TOKEN")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("hubspot has everything that Healthloop needs.\n")
    answer = new.healthloop("provision hubspot")
    assert answer.out.endswith("hubspot has everything that Healthloop needs.\n")


# -- the first plan, and one after the ledger was lost --------------------------------------------


def test_the_first_plan_writes_no_emptiness_where_nothing_stands(new):
    assert new.healthloop("provision hubspot --yes").code == 0
    plan = json.loads(new.healthloop("plan --format json").out)
    changes = [change for record in plan["fields"] for change in record["changes"]]
    assert changes
    assert [change for change in changes if change["new"] is None] == []
    assert plan["totals"]["fields"] == len(changes)


@pytest.mark.parametrize("crm", CRM_NAMES)
def test_f81_a_lost_ledger_writes_no_field_again(tmp_path_factory, tmp_path, crm):
    """Nor those of a record that shows nothing of ours, because there is nothing to show."""
    home = copy_of(written_company(tmp_path_factory, crm), tmp_path)
    with opened(home, crm) as company:
        record, deals = prospect_with_a_handoff(company)
        assert company.crm.shown()[0]["account", record]
        for deal in deals:
            company.type_in("opportunity", deal, **{getattr(f, crm): None for f in HANDOFF_FACTS})
        company.next_evening()
        assert company.run().success
        assert ("account", record) not in company.crm.shown()[0]
        company.later()
        for file in (home / "state").glob("ledger.sqlite*"):
            file.unlink()
        plan = json.loads(company.healthloop("plan --format json").out)
        assert plan["fields"] == []
        sent = company.writes
        assert company.healthloop("apply").code == 0
        assert company.writes == sent


def prospect_with_a_handoff(company: CrmCompany) -> tuple[str, list[str]]:
    """The record of an account without scores, and its deals, on which sales noted something."""
    rows = company.rows(
        "SELECT DISTINCT crm_id, opportunity_id FROM signals.opportunities AS o "
        "JOIN signals.accounts AS a USING (account_id) WHERE o.superseded_at IS NULL "
        "AND a.superseded_at IS NULL AND account_id = (SELECT max(account_id) "
        "FROM plan.desired_accounts WHERE risk_held IS NULL AND facts_held IS NOT NULL)"
    )
    return rows[0][0], [deal for _, deal in rows]


def test_a_plan_names_the_tasks_that_stay_and_the_fields_that_people_edited(
    tmp_path_factory, tmp_path
):
    """But not what people wrote; and an apply counts its requests without those that look first."""
    home = copy_of(written_company(tmp_path_factory, "hubspot"), tmp_path)
    with opened(home, "hubspot") as company:
        task = company.tasks()[0]
        account = task["episode"].rpartition("/")[2]
        company.later(HOUR)
        company.crm.change_task(task["key"], "postponed")
        company.crm.edit("account", company.record_of(account), "risk_reasons", "Ada says hello")
        company.later(HOUR)
        shown = company.healthloop("plan --all").out
        assert f"\n  = {account}  {task['subject']}  a person has it in hand\n" in shown
        record = f"hubspot account {company.record_of(account)}"
        assert f"\nnote: people edited risk_reasons of {record}; that stays until our" in shown
        assert "Ada" not in shown
        assert "\n\n\n" not in shown
        assert "people edited" not in company.healthloop("plan").out  # told once
        applied = company.healthloop("apply").out
        assert applied.endswith("0 requests, beside those that look first.\n")
