"""`plan`, `plan approve|drop`, `apply`, `provision`, `queue`, `playbooks`, as people type them."""

import csv
import io
import json
import re
from zoneinfo import available_timezones

import pytest
from crm_company import CrmCompany, new_company, opened, written_company
from demo_company import Answer, change, copy_of, healthloop, write, write_small_company

COMMANDS = ("plan", "plan approve", "plan drop", "apply", "provision", "queue", "playbooks")


@pytest.fixture
def company(tmp_path_factory, tmp_path):
    """A company whose Salesforce shows everything."""
    home = copy_of(written_company(tmp_path_factory, "salesforce"), tmp_path)
    with opened(home, "salesforce") as company:
        yield company


@pytest.fixture
def new(tmp_path_factory, tmp_path):
    """A company of whose scores its HubSpot knows nothing; ``apply: true``."""
    home = copy_of(new_company(tmp_path_factory, "hubspot"), tmp_path)
    with opened(home, "hubspot") as company:
        company.set_apply(True)
        yield company


def refused(answer: Answer, code: int = 2) -> str:
    """The one line that a refused command prints; nothing else is printed."""
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.count("\n") == 1
    return answer.err.rstrip("\n")


def turn_red(company: CrmCompany) -> None:
    """Let all that is green be red in the warehouse, as a backfill that went wrong might."""
    change(
        company.home,
        "UPDATE scores.all_scores SET value = 90, band = 'red' "
        "WHERE score = 'risk' AND band = 'green'",
    )


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_gives_an_example(command):
    answer = healthloop(*command.split(), "--help")
    assert answer.code == 0
    assert "Example:  healthloop" in answer.out
    assert len(answer.out.splitlines()) > 5


def test_without_a_crm_yaml_every_command_says_how_to_write_one(company):
    (company.home / "crm.yaml").unlink()
    for command in ("plan", "plan approve x", "plan drop x", "apply", "queue",
                    "provision salesforce", "run --news"):  # fmt: skip
        assert refused(company.healthloop(command)) == (
            f"{company.home}/crm.yaml does not exist; write one: docs/crm.md shows how, and "
            "without it nothing is ever written"
        )


MISTAKES = [
    ("apply: maybe\nsalesforce: {source: crm}", 1,
     "apply: true or false is expected here; write one of them"),
    ("apply: true", 1, "no CRM is named; add a section `salesforce` or `hubspot`"),
    ("salesforce: {source: crmm}", 1,
     "'crmm' is no source of type salesforce; did you mean 'crm'?"),
    ("salesforce: {source: helpdesk}", 1,
     "'helpdesk' is no source of type salesforce; valid are: crm"),
    ("hubspot: {source: crm}", 1, "'crm' is no source of type hubspot; add sources/hubspot.yaml"),
    ("salesforce:\n  source: crm\n  fields: {account: {risk_scor: X__c}}", 3,
     "salesforce.fields: there is no field 'risk_scor' on account; did you mean 'risk_score'?"),
    ("salesforce:\n  source: crm\n  fields: {account: {risk_score: X__c, upsell_score: X__c}}", 3,
     "salesforce.fields: two fields on account have one name; give each its own"),
    ("salesforce:\n  source: crm\n  fields: {account: {risk_score: HL_Upsell_Score__c}}", 3,
     "salesforce.fields: risk_score and upsell_score of account would both be "
     "'HL_Upsell_Score__c'; give each field a name of its own"),
    ("salesforce: {source: crm}\nledger: postgresql://me:sekret@host/db", 2,
     "ledger: a secret stands in no file; write {env: NAME} with a variable's name"),
    ("salesforce:\n  source: crm\n  credentials: {access_token: sekret}", 3,
     "salesforce.credentials: access_token is a secret, and stands in no file; write {env: NAME}"),
    ("salesforce:\n  source: crm\n  owners: {time_zones: {Ada: Europe/Berln}}", 3,
     "salesforce.owners.time_zones.Ada: unknown time zone 'Europe/Berln'; "
     "did you mean 'Europe/Berlin'?"),
    ("salesforce:\n  source: crm\n  owners: {time_zones: {Ada: here}}", 3,
     "salesforce.owners.time_zones.Ada: unknown time zone 'here'; none of the "
     f"{len(available_timezones())} valid names is near; write one like Europe/Berlin"),
    ("salesforce: {source: crm}\nfast_lane:\n  sources: [helpdsk]", 3,
     "there is no source 'helpdsk'; did you mean 'helpdesk'?"),
    ("salesforce: !!python/object/apply:os.system [exit]", 1,
     "not valid YAML: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed; "
     "correct the syntax"),
]  # fmt: skip


def test_mistakes_in_crm_yaml_are_told_with_their_line_and_the_remedy(company):
    """F92 too: a tag that would run something is a mistake."""
    for text, line, says in MISTAKES:
        write(company.home / "crm.yaml", text + "\n")
        answer = company.healthloop("plan")
        assert (answer.code, answer.out) == (2, "")
        assert answer.err == (
            f"{company.home}/crm.yaml:{line}: {says}\n"
            "1 mistake(s) in the company folder; correct them and run `healthloop check`\n"
        )
        assert "sekret" not in answer.err


def test_nothing_can_be_planned_before_something_is_scored(tmp_path):
    home = write_small_company(tmp_path / "company")
    write(home / "sources/org.yaml", "type: salesforce\ninstance_url: https://127.0.0.1:1\n"
          "access_token: {env: TOKEN}\nstreams: [accounts]\n")  # fmt: skip
    write(home / "crm.yaml", "salesforce: {source: org}\n")
    for command in ("plan", "queue"):
        answer = healthloop(command, "--home", str(home))
        assert refused(answer) == "nothing is scored yet; run `healthloop run` first"
    answer = healthloop("apply", "--home", str(home))
    assert "apply: false" in refused(answer)


def test_what_is_not_there_is_named_with_what_is(company):
    plan = company.plan_id()
    missing = f"there is no plan 'nope'; the newest are {plan}, "
    for command in ("apply nope", "plan approve nope", "plan drop nope"):
        assert refused(company.healthloop(command)).startswith(missing)
    assert refused(company.healthloop("provision dynamics")) == (
        "crm.yaml has no section 'dynamics'; it has: salesforce"
    )
    assert refused(company.healthloop("playbooks risk-rde")) == (
        "there is no playbook 'risk-rde'; did you mean 'risk-red'?"
    )
    assert refused(company.healthloop("plan --format xml")) == (
        "Invalid value for '--format': 'xml' is not one of 'table', 'json', 'csv'; "
        "see `healthloop plan --help`"
    )


def test_f90_an_argument_with_line_ends_or_escapes_stays_on_one_line(company):
    hostile = "x\r\n2026-06-23 INFO all is well\x1b[31m\x00\N{RIGHT-TO-LEFT OVERRIDE}"
    for command in ("apply", "plan approve", "plan drop", "provision", "playbooks"):
        answer = company.healthloop(command, hostile)
        line = refused(answer)
        assert all(character.isprintable() for character in line), line
    shown = company.healthloop("queue", "--owner", hostile)
    assert shown.code == 0
    assert "\x1b" not in shown.out


def test_only_a_plan_that_is_held_can_be_approved(company):
    applied = company.plan_id()
    assert refused(company.healthloop("plan approve", applied)) == (
        f"plan {applied} is applied; only a held plan can be approved"
    )
    assert refused(company.healthloop("plan drop", applied)) == (
        f"plan {applied} is applied; it cannot be dropped any more"
    )
    assert refused(company.healthloop("apply")) == (
        f"plan {applied} is applied; make a new one: healthloop plan"
    )
    assert company.healthloop("plan").code == 0
    opened = company.plan_id()
    assert refused(company.healthloop("plan approve", opened)) == (
        f"plan {opened} is open; only a held plan can be approved"
    )


# -- plans ----------------------------------------------------------------------------------------


def test_a_plan_before_provisioning_says_so_and_is_not_carried_out(new):
    answer = new.healthloop("plan")
    assert answer.code == 0
    assert re.search(r"note: hubspot: fields cannot be written: .+; .*provision", answer.out)
    line = refused(new.healthloop("apply"), code=1)
    assert "hubspot: fields cannot be written" in line
    assert "healthloop provision hubspot" in line
    assert new.writes == 0


def test_a_plan_reads_like_a_diff_with_tasks_and_totals(new):
    assert new.healthloop("provision hubspot --yes").code == 0
    sent = new.writes
    answer = new.healthloop("plan", "--all")
    assert new.writes == sent
    account = new.calm_accounts()[0]
    record = new.record_of(account)
    plan = new.plan_id()
    shown = answer.out
    assert shown.startswith(f"Plan {plan}, as of {new.day}: open\n")
    assert f"\n{account}\n  hubspot account {record}\n" in shown
    assert re.search(r"\n    risk_score +\(empty\) -> 10   Open P1 tickets: 0\n", shown)
    assert re.search(rf"\n  \+ {account}  Offer .* more  \(due 2026-06-\d\d, normal\)  up", shown)
    values = r"values: [\d,]+ write, [\d,]+ unchanged\n"
    assert re.search(rf"fields of \d+ records would be written; {values}", shown)
    assert "tasks: 35 to open, 0 to close, 0 to leave" in shown
    assert f"`healthloop apply {plan}` carries it out" in shown


def test_a_plan_as_json_and_as_csv_holds_everything_that_would_be_written(new):
    assert new.healthloop("provision hubspot --yes").code == 0
    plan = json.loads(new.healthloop("plan --format json").out)
    assert plan["plan"] == new.plan_id()
    assert (plan["status"], plan["notes"]) == ("open", [])
    changes = [c for record in plan["fields"] for c in record["changes"]]
    assert len(changes) == plan["totals"]["fields"] > 1000
    assert len(plan["tasks_to_open"]) == plan["totals"]["tasks_to_open"] == 35
    rows = list(csv.DictReader(io.StringIO(new.healthloop("plan --format csv").out)))
    assert len(rows) == len(changes) + 35
    assert {row["field"] for row in rows if row["object"] == "task"} == {"open"}
    applied = new.healthloop("apply --format json")
    done = json.loads(applied.out)
    assert done["status"] == "applied"
    assert done["counts"]["fields"]["written"] == plan["totals"]["records"]
    assert done["counts"]["open_task"] == {
        "written": 35, "rejected": 0, "deferred": 0, "skipped": 0,
    }  # fmt: skip


def test_a_newer_plan_takes_the_place_of_the_one_before(company):
    assert company.healthloop("plan").code == 0
    first = company.plan_id()
    assert company.healthloop("plan").code == 0
    assert company.plan_id() != first
    assert refused(company.healthloop("apply", first)) == (
        f"plan {first} is superseded; make a new one: healthloop plan"
    )
    applied = company.healthloop("apply --format csv")
    assert applied.out == (
        "writes,written,rejected,deferred,skipped\n"
        "fields,0,0,0,0\nopen_task,0,0,0,0\nclose_task,0,0,0,0\n"
    )


def test_a_held_plan_is_carried_out_once_a_person_approves_it(company):
    account = company.calm_accounts()[0]
    turn_red(company)
    before = company.writes
    shown = company.healthloop("plan")
    assert shown.code == 0
    plan = company.plan_id()
    reason = "38 of 40 accounts (95 %) change their risk band; 10 % may"
    assert f"Plan {plan}, as of 2026-06-23: held\n  {reason}\n" in shown.out
    assert f"`healthloop plan approve {plan}` lets it go" in shown.out
    assert refused(company.healthloop("apply"), code=1) == (
        f"plan {plan} is held: {reason}; `healthloop plan approve {plan}`, or "
        f"`healthloop plan drop {plan}`"
    )
    assert company.writes == before
    approved = company.healthloop("plan approve", plan)
    assert (approved.code, approved.out) == (0, f"Plan {plan} is approved.\n")
    with company.ledger() as ledger:
        ((verdict, by, _),) = ledger.approvals(plan)
    assert verdict == "approved"
    assert by
    applied = company.healthloop("apply")
    assert applied.code == 0
    assert f"Plan {plan}: applied" in applied.out
    assert company.writes == before + 2  # accounts, opportunities
    assert company.fields(account)["risk_band"] == "red"


def test_a_held_plan_that_is_dropped_is_never_carried_out(company):
    turn_red(company)
    before = company.writes
    assert company.healthloop("plan").code == 0
    plan = company.plan_id()
    dropped = company.healthloop("plan drop", plan)
    assert (dropped.code, dropped.out) == (0, f"Plan {plan} is dropped.\n")
    assert refused(company.healthloop("apply")) == (
        f"plan {plan} is dropped; make a new one: healthloop plan"
    )
    assert refused(company.healthloop("plan approve", plan)) == (
        f"plan {plan} is dropped; only a held plan can be approved"
    )
    assert company.writes == before


def test_too_many_tasks_at_once_hold_a_plan(new):
    assert new.healthloop("provision hubspot --yes").code == 0
    new.set_apply(True, "gate: {most_tasks: 34}\n")
    plan = json.loads(new.healthloop("plan --format json").out)
    assert plan["status"] == "held"
    assert plan["reasons"] == ["35 tasks would be opened; 34 may"]


def test_a_crm_that_refuses_us_stops_apply_and_a_dry_run_shows_the_plan_all_the_same(company):
    assert company.healthloop("plan").code == 0
    company.box.faults.add(vendor="salesforce", do="status", code=401, times=None)
    says = "salesforce: refused the session (401); renew the credentials of this source"
    for command in ("plan", "apply"):
        before = len(company.box.log)
        assert refused(company.healthloop(command), code=1) == says
        assert len(company.box.log) - before <= 3
    company.set_apply(False)
    kept = company.plan_id()
    shown = company.healthloop("plan")
    assert shown.code == 0
    assert f"note: made without asking the CRM: {says}" in shown.out
    assert "is not kept" in shown.out
    assert company.plan_id() == kept


# -- provision, queue, playbooks ------------------------------------------------------------------


def test_provision_shows_its_steps_and_makes_them_only_when_told(new):
    shown = new.healthloop("provision hubspot")
    assert shown.code == 0
    assert "74 steps" not in shown.out
    assert re.search(r"\d+ steps are missing; --yes carries them out\.", shown.out)
    assert "+ " in shown.out
    assert new.writes == 0
    done = new.healthloop("provision hubspot --yes")
    assert done.code == 0
    assert "hubspot has everything that Healthloop needs." in done.out
    sent = new.writes
    again = new.healthloop("provision hubspot --yes")
    assert again.code == 0
    assert "+ " not in again.out
    assert new.writes == sent


def test_the_queue_shows_each_persons_week(company):
    everybody = json.loads(company.healthloop("queue --format json").out)
    assert len(everybody) == 35
    assert {entry["state"] for entry in everybody} == {"to do"}
    owner = everybody[0]["owner"]
    rows = list(
        csv.DictReader(io.StringIO(company.healthloop("queue --format csv --owner", owner).out))
    )
    assert 0 < len(rows) < 35
    assert {row["owner"] for row in rows} == {owner}
    assert all(row["what"] and row["why"] and row["since"] and row["due"] for row in rows)
    page = company.healthloop("queue --owner", owner).out
    assert page.startswith(f"{owner}: {len(rows)} to do\n")
    assert all(row["account_id"] in page for row in rows)
    nobody = company.healthloop("queue --owner", "Nobody [b]here[/b]")
    assert nobody.out == "Nothing is to be done: no task is Nobody [b]here[/b]'s.\n"


def test_the_playbooks_say_what_is_expected_of_whom(company):
    every = company.healthloop("playbooks").out
    assert "3 playbooks" in every
    for name in ("p1-open", "risk-red", "upsell-ready"):
        assert f"### {name}" in every
    one = company.healthloop("playbooks p1-open").out
    assert "You tell the sponsor today what is being done." in one
    assert "risk-red" not in one
