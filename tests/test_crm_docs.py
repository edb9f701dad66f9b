"""`docs/crm.md` and `docs/playbooks.md` show what is: settings, fields, rights, pages, playbooks.

What follows a line such as ``<!-- settings -->`` is made from the code. With
``HEALTHLOOP_UPDATE_DOCS=1`` it is written into the page, but for blocks with ``...``.
"""

import datetime as dt
import re
from collections.abc import Iterator
from typing import get_args

import pytest
import yaml
from pydantic import BaseModel
from rich.console import Console
from test_docs import ROOT, UPDATE, agrees, play, reader  # noqa: F401

from connectors.crm.changes import Bands, Changes
from connectors.crm.plans import FieldChange, FieldChanges, Intent, Plan
from connectors.crm.settings import CrmSettings, HubSpotTarget, SalesforceTarget, check_crm
from connectors.crm.writing import NewTask
from connectors.sandbox.servers.box import credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.world import write_world
from connectors.vendors.hubspot.rights import needed_scopes, schema_scopes
from connectors.vendors.salesforce.provision import connect_provisioner
from connectors.vendors.salesforce.rights import needed_rights
from connectors.vendors.salesforce.settings import SalesforceConfig
from contracts.actions import TaskLeft
from contracts.company import read_company
from contracts.crm_fields import FIELDS, HANDOFF_FACTS, OVERRIDE, PARTS
from contracts.secrets import Secrets
from orchestration.cli.console import PIPE_WIDTH
from orchestration.cli.crm_pages import plan_page, steps_page
from orchestration.crm_plans import Planned
from scoring.config.playbooks import Playbook
from scoring.library import read_library
from scoring.playbook_pages import playbooks_page
from scoring.templates import ACCOUNT, names_of

CRM, PLAYBOOKS = ROOT / "docs/crm.md", ROOT / "docs/playbooks.md"
NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
HEAD = "|---|"


def compare(page, marker, real):
    """What follows a marker on a page, a table or a block, has to be `real`."""
    text = page.read_text(encoding="utf-8")
    found = re.search(
        rf"<!-- {re.escape(marker)} -->\n(?:```\w*\n(.*?)\n```$|(.+?)\n\n)", text + "\n\n",
        re.DOTALL | re.MULTILINE,
    )  # fmt: skip
    assert found, f"{page.name} has no <!-- {marker} -->"
    shown = found[1] or found[2]
    if UPDATE and "\n...\n" not in shown:
        page.write_text(text.replace(shown, real), encoding="utf-8")
        return
    assert agrees(shown.splitlines(), real.splitlines()), real


def after_head(page, marker):
    """The rows of the table that follows a marker, each as its cells."""
    text = page.read_text(encoding="utf-8").partition(f"<!-- {marker} -->\n")[2]
    lines = text.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every setting by its path, and its default as YAML; nothing where there is none."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        models = [kind for kind in (field.annotation, *get_args(field.annotation))
                  if isinstance(kind, type) and issubclass(kind, BaseModel)]  # fmt: skip
        if isinstance(default, BaseModel) or name in ("salesforce", "hubspot"):
            yield from settings_of(models[0], f"{prefix}{name}.")
            continue
        told = default not in (None, {}, []) and not field.is_required()
        yield f"{prefix}{name}", yaml.safe_dump(default).split("\n")[0] if told else ""


def rendered(page) -> str:
    console = Console(width=PIPE_WIDTH, no_color=True)
    with console.capture() as capture:
        console.print(page, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip()


def test_the_settings_are_all_there_with_their_defaults():
    shown = {row[0].strip("`"): row[1].strip("`") for row in after_head(CRM, "settings")}
    real = dict(settings_of(CrmSettings))
    for crm in ("salesforce", "hubspot"):
        assert shown == {
            name.replace(f"{crm}.", "<crm>.", 1): default
            for name, default in real.items()
            if name.startswith(f"{crm}.") or not name.startswith(("salesforce.", "hubspot."))
        }


def test_the_crm_yaml_of_the_page_is_valid(tmp_path):
    text = CRM.read_text(encoding="utf-8")
    (tmp_path / "crm.yaml").write_text(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    (tmp_path / "company.yaml").write_text("name: A\ntenant: a\nhistory_start: 2025-01-01\n")
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/crm.yaml").write_text(
        "type: salesforce\ninstance_url: https://acme.my.salesforce.com\n"
        "access_token: {env: TOKEN}\n"
    )
    settings, problems = check_crm(read_company(tmp_path))
    assert problems == []
    assert settings is not None
    assert settings.apply is False


def test_the_parts_of_a_score_are_named_as_they_are_in_each_crm():
    fields = [FIELDS[f"risk_{part}"] for part in PARTS]
    lines = [
        f"| {part} | `{field.salesforce}` | `{field.hubspot}` | {field.help} |"
        for part, field in zip(PARTS, fields, strict=True)
    ]
    head = "| part | Salesforce, of the risk | HubSpot, of the risk | shows |\n|---|---|---|---|"
    compare(CRM, "parts", "\n".join([head, *lines]))


def test_the_fields_that_people_fill_are_named_as_they_are_in_each_crm():
    lines = [
        f"| {field.label} | `{field.salesforce}` | `{field.hubspot}` | {field.read_on[0]} "
        f"| {field.help} |"
        for field in (*HANDOFF_FACTS, *OVERRIDE)
    ]
    head = "| field | Salesforce | HubSpot | filled on | meaning |\n|---|---|---|---|---|"
    compare(CRM, "people", "\n".join([head, *lines]))


def test_the_scopes_for_hubspot_are_those_that_the_doctor_asks_for():
    everything = HubSpotTarget(source="crm")
    shown = ", ".join(f"`{scope}`" for scope in sorted(needed_scopes(everything)))
    compare(CRM, "scopes hubspot", shown)
    provisioning = sorted(schema_scopes(everything, "write"))
    compare(CRM, "provisioning scopes hubspot", ", ".join(f"`{s}`" for s in provisioning))
    without_tasks = needed_scopes(HubSpotTarget(source="crm", tasks=False))
    assert needed_scopes(everything) - without_tasks == {
        "crm.objects.contacts.read", "crm.objects.contacts.write", "crm.schemas.contacts.read",
    }  # fmt: skip
    without_deals = needed_scopes(HubSpotTarget(source="crm", opportunities=False))
    assert needed_scopes(everything) - without_deals == {"crm.objects.deals.write"}


def test_the_rights_in_salesforce_are_those_of_the_permission_set():
    target, text = SalesforceTarget(source="crm"), CRM.read_text(encoding="utf-8")
    assert needed_rights("Account", target) == {"Read", "Edit", "ViewAllRecords"}
    assert needed_rights("Opportunity", target) == {"Read", "Edit", "ViewAllRecords"}
    assert "*API Enabled*, *Access Activities* and *Edit Tasks*; Read and Edit on accounts" in text


def test_the_steps_of_provisioning_are_shown_as_they_are_printed(tmp_path):
    write_world(tmp_path / "world", accounts=60)
    (tmp_path / ".env").write_text(
        "".join(f"{name}='{value}'\n" for name, value in credentials().items())
    )
    with sandbox(tmp_path / "world", NOW, vendors=["salesforce"]) as box:
        config = SalesforceConfig.model_validate({
            "type": "salesforce", "address": box.address("salesforce"),
            "access_token": {"env": "SALESFORCE_TOKEN"}, "ca_file": str(box.ca_file),
        })  # fmt: skip
        target = SalesforceTarget(source="crm")
        steps = connect_provisioner(config, target, Secrets(tmp_path)).steps()
    compare(CRM, "provision salesforce", rendered(steps_page("What salesforce needs", steps)))


def test_a_plan_is_shown_as_it_is_printed():
    why = "Champion has left; Active on 3 of the last 28 days"
    changes = FieldChanges.of([
        FieldChange("risk_score", "38", "74", why),
        FieldChange("risk_band", "green", "red", why),
        FieldChange("risk_reasons", None, why, why),
    ])  # fmt: skip
    task = NewTask(
        "k" * 64, "champion-left/2026-06-30/ACC-00042", "0015g00000001a2AAA", None,
        "Find the new champion at Alder Foods", "", dt.date(2026, 7, 2), NOW, "high",
    )  # fmt: skip
    record = ("salesforce", "account", "0015g00000001a2AAA", "ACC-00042")
    intents = (
        Intent(1, "fields", *record, changes=changes),
        Intent(2, "open_task", "salesforce", None, *record[2:], task=task,
               why="Champions gone in 90 days: 1"),
    )  # fmt: skip
    totals = {"records": 1, "fields": 3, "tasks_to_open": 1, "tasks_to_close": 0,
              "tasks_to_leave": 1}  # fmt: skip
    plan = Plan(
        "2026-06-30-b6a3b1", NOW.date(), "daily", NOW, status="held", totals=totals,
        reasons=("11 of 100 accounts (11 %) change their risk band; 10 % may",),
        left=(TaskLeft("l" * 64, "ACC-00007", "a person has it in hand"),),
    )  # fmt: skip
    states = Changes(NOW.date(), 2590, {"write": 3, "unchanged": 2587}, {}, Bands())
    planned = Planned(plan, intents, states, None, (), stored=True)
    subjects = {"l" * 64: "Prepare the renewal of Birch Tools"}
    compare(CRM, "plan", rendered(plan_page(planned, subjects=subjects)))


def test_the_worked_example_of_a_playbook_is_executed(reader):  # noqa: F811
    play(PLAYBOOKS, reader)


def test_every_setting_of_a_playbook_is_on_its_page():
    text = PLAYBOOKS.read_text(encoding="utf-8").partition("## The language")[2]
    assert [name for name in Playbook.model_fields if f"| `{name}` |" not in text] == []


def test_the_placeholders_are_all_there():
    names = [f"account.{name}" for name in ACCOUNT] + ["reason", "metric:<name>"]
    compare(PLAYBOOKS, "placeholders", ", ".join(f"`{{{name}}}`" for name in names))
    assert {*names} == names_of(["<name>"])


def test_the_shipped_playbooks_are_all_there(tmp_path):
    (tmp_path / "company.yaml").write_text("name: A\ntenant: a\nhistory_start: 2025-01-01\n")
    page = playbooks_page(read_library(read_company(tmp_path)))
    table = next(part for part in page.split("\n\n") if HEAD in part)
    compare(PLAYBOOKS, "playbooks", table.strip())


@pytest.mark.parametrize("page", ["docs/crm.md", "docs/playbooks.md"])
def test_a_page_that_is_made_from_the_code_can_fail(page):
    with pytest.raises(AssertionError, match="no <!-- nothing -->"):
        compare(ROOT / page, "nothing", "")
