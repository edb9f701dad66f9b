"""`healthloop doctor` about the CRM: on both sandboxes, what is missing, wrong, or too much."""

import datetime as dt
import json
import re
import threading

import pytest
from demo_company import healthloop
from signals import add, add_account, connect

from connectors.crm.ledger import Ledger
from connectors.crm.plans import Ended, Plan
from connectors.crm.settings import ledger_url
from connectors.crm.writing import Finding, SeenRecord
from connectors.http import Http, Patience
from connectors.sandbox.servers.box import credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors import salesforce_metadata as org
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.salesforce_settings import settings as org_settings
from connectors.sandbox.world import write_world
from contracts.company import read_company
from contracts.crm_fields import written_on
from orchestration.crm_doctor import MOST_LINES, examine_crm, in_few_lines
from orchestration.findings import in_time
from scoring.library import read_library
from tests.ledgers import change, store

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
CANARY = "Lovelace"
CARLA, DARIO, NOBODY = "Carla Ruiz-Lind", "Dario Kemp", f"Ada {CANARY}"
"""Two who can own tasks in the sandbox's world, and one who is not there."""
ACCOUNT = {"salesforce": "00D5g000008SaNdEAW", "hubspot": "48151623-sandbox"}
TOKEN = {"salesforce": "access_token", "hubspot": "token"}
OF_TASKS = 2
PROVISION = "run `healthloop provision {}`"


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor") / "world"
    write_world(folder, accounts=60)
    return folder


@pytest.fixture(params=["salesforce", "hubspot"])
def crm(request):
    return request.param


@pytest.fixture
def box(world, crm):
    """A sandbox in which everything is as it should be."""
    with sandbox(world, NOW, vendors=[crm]) as box:
        (org if crm == "salesforce" else portal).provisioned(box)
        yield box
    assert box.defects == []


@pytest.fixture
def home(tmp_path, box, crm):
    """A company that reads from the sandbox and writes into it."""
    home = tmp_path / "company"
    (home / "sources").mkdir(parents=True)
    (home / "company.yaml").write_text("name: T\ntenant: t\nhistory_start: 2025-01-01\n")
    source = {"type": crm, "address": box.address(crm)}
    if crm == "salesforce":
        source |= {"access_token": {"env": "SALESFORCE_TOKEN"}, "ca_file": str(box.ca_file)}
    else:
        source |= {"token": {"env": "HUBSPOT_TOKEN"}}
    (home / "sources" / "crm.yaml").write_text(json.dumps(source))
    lines = [f"{name}='{value}'\n" for name, value in credentials().items()]
    (home / ".env").write_text("".join(lines))
    write_crm(home, crm)
    return home


def write_crm(home, crm, *, apply=True, owners=None, **target):
    owners = {"fallback": CARLA} if owners is None else owners
    settings = {"apply": apply, crm: {"source": "crm", "owners": owners, **target}}
    (home / "crm.yaml").write_text(json.dumps(settings))


def found(home, *, level=None, about=None, library=None):
    """What is found, as `level: seen; remedy`. Without a library no playbook is looked at."""
    lines = [
        f"{finding.level}: {finding.seen}; {finding.remedy}"
        for finding in examine_crm(read_company(home), library)
        if level in (None, finding.level) and about in (None, finding.about)
    ]
    assert CANARY not in "".join(lines)
    return lines


def problems(home):
    return found(home, level="problem")


def write_warehouse(home, *, owners=(), overrides=()):
    """A warehouse with a customer for each owner, and overrides of risk by reason."""
    with connect() as connection:
        for number, (crm, owner) in enumerate(owners, 1):
            add_account(
                connection, f"A{number}", crm=crm, crm_id=f"id-{number}", owner=owner,
                known_at=dt.datetime(2026, 1, 1),
            )  # fmt: skip
        for reason in overrides:
            add(
                connection, "overrides", account_id="A1", score="risk", value=80, reason=reason,
                given_at=dt.datetime(2026, 1, 2), known_at=dt.datetime(2026, 1, 2),
                expires_on=dt.date(9999, 1, 1),
            )  # fmt: skip
        (home / "state").mkdir(exist_ok=True)
        connection.execute(f"ATTACH '{home / 'state' / 'warehouse.duckdb'}' AS file")
        connection.execute("COPY FROM DATABASE memory TO file")


def ledger_of(home):
    (home / "state").mkdir(exist_ok=True)
    return Ledger(ledger_url(read_company(home)))


def test_a_crm_that_is_provisioned_is_ready_and_says_whose_it_is(home, crm):
    seen = found(home)
    assert problems(home) == []
    assert "ok: apply is true: what the gate lets pass is written; " in seen
    assert f"ok: the credentials for writing open account '{ACCOUNT[crm]}'; " in seen
    assert (
        "ok: every field that is written is there and serves, and so does the key of tasks; "
        in seen
    )
    assert any("API requests are left" in line for line in seen)
    assert "note: there is none yet; the first `healthloop plan` makes it" in seen
    assert not (home / "state").exists()


def test_f71_the_doctor_writes_nothing_into_the_crm(home, box, crm):
    found(home)
    asks = {request.path for request in box.log if request.method != "GET"}
    assert asks <= {"/oauth/v2/private-apps/get/access-token-info"}


def test_a_dry_run_is_told_as_a_note(home, crm):
    write_crm(home, crm, apply=False)
    assert found(home, about="crm.yaml") == [
        "note: apply is false: everything is a dry run; "
        "read `healthloop plan`, then set `apply: true`"
    ]


def test_without_a_crm_yaml_nothing_is_asked(home, box):
    (home / "crm.yaml").unlink()
    assert found(home) == [
        "note: there is none, so nothing is ever written into a CRM; "
        "write one: docs/crm.md shows how"
    ]
    assert len(box.log) == 0


def test_mistakes_in_crm_yaml_are_found_by_doctor_and_check_and_nothing_is_asked(home, crm):
    (home / "crm.yaml").write_text(f"{crm}: {{source: crn}}\n")
    told = f"'crn' is no source of type {crm}"
    check = healthloop("check", "--home", str(home))
    assert (check.code, check.out) == (2, "")
    assert f"crm.yaml:1: {told}; " in check.err.replace("\n", " ")
    doctor = healthloop("doctor", "--home", str(home), "--format", "json")
    assert doctor.code == 1
    about = [row["about"] for row in json.loads(doctor.out) if told in row["seen"]]
    assert about == ["configuration"]
    assert not {"crm.yaml", "ledger", crm} & {row["about"] for row in json.loads(doctor.out)}


def test_the_page_of_the_doctor_shows_the_crm_among_the_rest(home, crm):
    write_crm(home, crm, owners={"fallback": NOBODY})
    answer = healthloop("doctor", "--home", str(home), "--format", "json")
    rows = {(row[""], row["about"], row["seen"]) for row in json.loads(answer.out)}
    assert ("problem", crm, "the fallback owner is no active user or queue of the CRM") in rows
    assert CANARY not in answer.both


def test_f37_credentials_of_another_organisation_end_the_questions(home, crm):
    source = json.loads((home / "sources/crm.yaml").read_text())
    (home / "sources/crm.yaml").write_text(json.dumps(source | {"expect_account": "another"}))
    assert found(home, about=crm) == [
        f"problem: {crm}: the credentials for writing open account '{ACCOUNT[crm]}', not "
        "'another'; use credentials of the organisation that is read from"
    ]


def test_f37_what_was_read_from_another_organisation_is_not_written_into_this_one(
    home, crm, monkeypatch
):
    """A record's id leads to the same record in a copy of the organisation."""
    remembered = {"_account": {"id": "the org of last week"}}
    monkeypatch.setattr("connectors.crm.targets.Lake.positions", lambda lake, source: remembered)
    (told,) = found(home, about=crm)
    assert f"open account '{ACCOUNT[crm]}', not 'the org of last week'" in told


def test_credentials_for_writing_are_compared_with_those_for_reading(home, box, crm):
    write_crm(home, crm, credentials={TOKEN[crm]: {"env": "WRITER"}})
    env = (home / ".env").read_text()
    name = f"{crm.upper()}_TOKEN"
    (home / ".env").write_text(f"{env}WRITER='{credentials()[name]}'\n")
    assert problems(home) == []


def test_a_secret_that_is_not_set_is_named(home, crm):
    write_crm(home, crm, credentials={TOKEN[crm]: {"env": "WRITER"}})
    (told,) = problems(home)
    assert told.startswith("problem: the environment variable WRITER is not set; ")


def test_credentials_that_are_refused_are_told_without_the_secret(home, crm):
    (home / ".env").write_text(f"{crm.upper()}_TOKEN=canary-{CANARY}\n")
    (told,) = found(home, about=crm)
    assert told.startswith(f"problem: {crm}: ")
    assert "401" in told or "session" in told


def test_a_crm_that_cannot_be_reached_is_one_line(home, crm, monkeypatch):
    once = Patience(attempts=1)
    monkeypatch.setitem(Http.__init__.__kwdefaults__, "patience", once)
    source = json.loads((home / "sources/crm.yaml").read_text())
    nowhere = {"address": "https://127.0.0.1:9"}
    (home / "sources/crm.yaml").write_text(json.dumps(source | nowhere))
    (told,) = found(home, about=crm)
    assert told.startswith(f"problem: {crm}: ")


def test_an_answer_that_takes_too_long_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("orchestration.findings.ANSWERS_WITHIN_SECONDS", 0.05)
    arrives = threading.Event()

    def slow():
        yield "at once"
        arrives.wait()
        yield "late"

    answers = in_time(slow())
    assert next(answers) == "at once"
    with pytest.raises(TimeoutError):
        next(answers)
    arrives.set()


def test_f55_many_missing_fields_are_one_line_with_a_count(world, home, crm):
    with sandbox(world, NOW, vendors=[crm]) as empty:
        source = json.loads((home / "sources/crm.yaml").read_text())
        address = {"address": empty.address(crm)}
        (home / "sources/crm.yaml").write_text(json.dumps(source | address))
        told = found(home, about=crm)
        (lacking,) = [line for line in told if line.endswith(PROVISION.format(crm))]
        assert lacking.startswith("problem: ")
        needed = len(written_on("account")) + len(written_on("opportunity")) + OF_TASKS
        assert f", and {needed - 1} more of the kind; " in lacking
        assert len(told) < MOST_LINES


def test_a_key_of_tasks_that_is_not_unique_is_a_problem_of_its_own(home, box, crm):
    now = box.now.timestamp()
    if crm == "salesforce":
        table = org.custom_fields(box)
        (row,) = [row for row in table.rows(now) if row.body["DeveloperName"] == "HL_Key"]
        metadata = row.body["Metadata"] | {"unique": False}
        table.put(row.id, row.body | {"Metadata": metadata}, now)
        expected = ("the field HL_Key__c of Task cannot serve", "tick 'Unique'")
    else:
        table = portal.created_properties(box)
        body = table.get("tasks/healthloop_key", now).body
        table.put("tasks/healthloop_key", body | {"hasUniqueValue": False}, now)
        expected = ("the property healthloop_key of tasks cannot serve", "Require unique values")
    (told,) = problems(home)
    assert all(part in told for part in expected)
    write_crm(home, crm, tasks=False)
    assert problems(home) == []


def test_rights_that_are_too_wide_are_notes(home, crm):
    told = found(home, level="note", about=crm)
    wide = {
        "salesforce": "the user has the right CustomizeApplication, which is too wide",
        "hubspot": "the key may create properties: ",
    }[crm]
    assert any(wide in line for line in told)


def test_rights_that_are_missing_are_problems(home, box, crm):
    if crm == "salesforce":
        table, now = records(box, "ObjectPermissions"), box.now.timestamp()
        for row in table.rows(now):
            if row.body["SobjectType"] == "Account":
                table.put(row.id, row.body | {"PermissionsEdit": False}, now)
        expected = "the user may not edit Account"
    else:
        scopes = "crm.objects.companies.read,crm.objects.owners.read"
        (home / ".env").write_text(f"HUBSPOT_TOKEN=sandbox-hubspot-token/{scopes}\n")
        expected = "the key lacks crm.objects.companies.write, "
    assert sum(expected in line for line in problems(home)) == 1


def test_a_day_whose_requests_are_used_up_is_a_note(home, box, crm):
    if crm == "salesforce":
        org_settings(box).put("api", {"used": 60_000, "allowed": 100_000}, 0.0)
    else:
        portal.settings(box, daily_limit=100_000, used_by_others=60_000)
    (told,) = [line for line in found(home, about=crm) if "API requests are left" in line]
    assert re.fullmatch(
        r"note: 39,9\d\d of the day's 100,000 API requests are left; wait until tomorrow, or raise "
        r"`daily_share` in crm\.yaml",
        told,
    )


def test_nobody_to_fall_back_on_is_a_note_and_somebody_unknown_a_problem(home, crm):
    write_crm(home, crm, owners={})
    assert problems(home) == []
    assert any("no fallback is named" in line for line in found(home, level="note"))
    write_crm(home, crm, owners={
        "fallback": NOBODY, "csm_manager": NOBODY, "queues": {"escalations": NOBODY},
        "names": {"Kim": NOBODY, "Lou": DARIO},
    })  # fmt: skip
    assert [line.partition(";")[0] for line in problems(home)] == [
        "problem: the fallback owner is no active user or queue of the CRM",
        "problem: the CSM manager of crm.yaml is no active user of the CRM",
        "problem: the queue 'escalations' is not in the CRM",
        "problem: 1 of `owners: {names: ...}` lead to no active user",
    ]
    write_crm(home, crm, owners={"fallback": NOBODY}, tasks=False)
    assert problems(home) == []


def test_a_queue_that_a_playbook_names_has_to_be_there(home, crm):
    (home / "playbooks").mkdir()
    (home / "playbooks/own.yaml").write_text(
        "purpose: Somebody has to look.\ntrigger: {score: risk, band: red}\n"
        "tasks: [{owner: 'queue:Night shift', subject: Look, steps: [Look]}]\n"
    )
    library = read_library(read_company(home))
    assert [line.partition(";")[0] for line in found(home, level="problem", library=library)] == [
        "problem: the queue 'Night shift' is not in the CRM"
    ]


def test_owners_of_customers_whom_the_crm_does_not_know_are_counted(home, crm):
    of_crm = [(crm, CARLA), (crm, NOBODY), (crm, NOBODY), (crm, None), ("other", NOBODY)]
    write_warehouse(home, owners=of_crm)
    (told,) = [line for line in found(home, about=crm) if "the CSM of" in line]
    assert told.startswith("note: the CSM of 2 of 3 customers is no active user")
    write_crm(home, crm, owners={"fallback": CARLA, "names": {NOBODY: DARIO}})
    (told,) = [line for line in found(home, about=crm) if "the CSM of" in line]
    assert told == "ok: the CSM of all 3 customers is a user of the CRM; "


def test_overrides_that_do_not_count_are_told(home, crm):
    write_warehouse(home, owners=[(crm, CARLA)], overrides=[None, "The sponsor left"])
    assert found(home, about="overrides") == [
        "note: set by hand and not counted: 1, as there is no reason; "
        "give each a reason and a last day, in the CRM"
    ]


def test_a_held_plan_and_the_edits_of_people_are_told_from_the_ledger(home, crm):
    with ledger_of(home) as ledger:
        plan = Plan("2026-06-30-aaaaaa", NOW.date(), "daily", NOW, status="held",
                    reasons=("11 of 100 accounts change their risk band",))  # fmt: skip
        ledger.store(plan, [])
        shown = SeenRecord("account", "1", {"risk_score": "71", "risk_band": "red"})
        ledger.set_confirmed([shown], crm, NOW)
        edited = SeenRecord("account", "1", {"risk_score": "5", "risk_band": "green"})
        assert len(ledger.saw_records(crm, [edited], NOW)) == 2
    assert found(home, about="ledger") == [
        "ok: state/ledger.sqlite answers and is of this version; ",
        "problem: plan 2026-06-30-aaaaaa waits for a person: 11 of 100 accounts change their risk "
        "band; `healthloop plan approve 2026-06-30-aaaaaa`, or `plan drop`",
        f"note: people edited risk_band, risk_score of {crm} account 1; they stay until our own "
        "value changes; let people only view them (docs/crm.md)",
    ]


def test_records_that_refuse_values_are_named_with_the_reason(home, crm):
    ids = [f"R{n}" for n in range(6)]
    with ledger_of(home) as ledger:
        store(ledger, *(change(n, id, crm=crm, risk_score="71") for n, id in enumerate(ids, 1)))
        ledger.begin_plan("p1", NOW)
        batch = ledger.begin_batch("p1", [*range(1, 7)], method="collections", at=NOW)
        ends = [Ended(n, "rejected", "FIELD_CUSTOM_VALIDATION_EXCEPTION") for n in range(1, 7)]
        ledger.finish_batch(batch, ends, NOW)
    (told,) = found(home, about="ledger")[1:]
    assert told.startswith(
        f"note: {crm} account R0 refuses risk_score (FIELD_CUSTOM_VALIDATION_EXCEPTION); {crm} "
        "account R1 refuses"
    )
    assert told.endswith(
        "more records; mend the rule or the right in the CRM, then `healthloop plan "
        "--retry-refused`"
    )


def test_a_ledger_that_is_damaged_or_has_no_address_is_a_problem(home, crm):
    (home / "state").mkdir()
    (home / "state/ledger.sqlite").write_text("this is no database " * 200)
    (told,) = found(home, about="ledger")
    assert told.startswith("problem: the ledger ledger.sqlite is damaged; set it aside")
    settings = json.loads((home / "crm.yaml").read_text())
    (home / "crm.yaml").write_text(json.dumps(settings | {"ledger": {"env": "LEDGER_URL"}}))
    (told,) = found(home, about="ledger")
    assert told.startswith("problem: the environment variable LEDGER_URL is not set; ")


def test_few_findings_of_a_kind_are_told_one_by_one():
    wide = [Finding("note", f"right {name} is too wide", "take it away") for name in "abc"]
    left = [Finding("ok", "requests are left"), Finding("ok", "the rights are right")]
    assert list(in_few_lines([*wide, *left])) == [*wide, *left]
    assert [line.seen for line in in_few_lines([*wide, *wide, *left, wide[0]])] == [
        line.seen for line in [*wide, *left]
    ]
