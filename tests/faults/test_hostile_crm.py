"""Hostile text on its way through scores and playbooks into a CRM, and what must never leave it.

Names of customers, words of people and ids come from outside. Whatever stands in them, it reaches
the CRM as text, a plan as one cell, a log as one line, and no query or path at all.
"""

import csv
import io
import json
import re
import shutil
import unicodedata
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
from addresses import addresses_in
from crm_company import CRM_NAMES, CrmCompany, new_company, opened
from crm_story import CANARY, story_of
from demo_company import change, copy_of, made_once

from connectors.crm.writing import CrmName
from connectors.sandbox.servers.box import credentials
from contracts.crm_fields import FIELDS, LONG_TEXT_LENGTH

NAMES = {
    "soql": "\\' OR Name LIKE '%",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)>&lt;b&gt;",
    "markdown": "[sign in](https://evil.example) **now** `rm`",
    "template": "{reason} {account.owner} {{7*7}} {% raw %} ${HOME} %s",
    "formula": '=HYPERLINK("https://evil.example","open")',
    "command": "+1+cmd|' /C calc'!A0",
    "path": "../../etc/passwd?x=1#y%00",
    "right_to_left": "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{LEFT-TO-RIGHT ISOLATE} عربى",
    "lines": "Acme\r\n2026-06-24 INFO all is well\x1b[31m\tred\N{LINE SEPARATOR}end",
    "nul": "Nul\x00 here",
    "marks": "Zo\N{COMBINING DIAERESIS}e \N{UNICORN FACE}",
    "long": "Long " * 2000,
}
FORMULA = "@SUM(1+1)*cmd|' /C calc'!A0"
TEN_MEGABYTES = "The reason is long. " * 500_000


class Tags(HTMLParser):
    """The tags of a text that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert attributes == []


def plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True)
class Hostile:
    """A company whose customers have hostile names, scored again; nothing is written yet.

    `victims` are the accounts by what is wrong with their names; `sold` has a hostile handoff.
    """

    company: CrmCompany
    victims: dict[str, str]
    sold: str


def hostile_company(tmp_path_factory: pytest.TempPathFactory, crm: CrmName) -> Path:
    """Made once for a session; never change it."""
    new = new_company(tmp_path_factory, crm)

    def make(home: Path) -> None:
        shutil.copytree(new, home)
        with opened(home, crm) as company:
            assert company.healthloop(f"provision {crm} --yes").code == 0
            victims, sold = spoiled(company)
            company.next_evening()
            ran = company.run()
            assert (ran.success, ran.failures) == (True, ())
        (home / "hostile.json").write_text(json.dumps([victims, sold]))

    return made_once(tmp_path_factory, f"hostile-{crm}", make)


def spoiled(company: CrmCompany) -> tuple[dict[str, str], str]:
    """Give customers hostile names, a reason of ten megabytes, and a promise that is a formula."""
    crm, records = company.crm.name, company.records()
    api = {name: getattr(FIELDS[name], crm) for name in FIELDS}
    victims = dict(zip(NAMES, company.calm_accounts(), strict=False))
    assert len(victims) == len(NAMES)
    for what, account in victims.items():
        name = "Name" if crm == "salesforce" else "name"
        company.type_in("account", records[account], **{name: NAMES[what]})
    company.type_in("account", records[victims["soql"]], **{
        api["override_score"]: 90, api["override_reason"]: TEN_MEGABYTES,
        api["override_until"]: "2026-12-31",
    })  # fmt: skip
    ((deal, sold),) = company.rows(
        "SELECT opportunity_id, account_id FROM signals.opportunities WHERE kind = 'new' "
        "AND won AND superseded_at IS NULL AND closed_at > '2026-04-01'"
    )
    company.type_in("opportunity", deal, **{api["handoff_promised_outcome"]: FORMULA})
    return victims, sold


@pytest.fixture(params=CRM_NAMES)
def hostile(request, tmp_path_factory, tmp_path):
    home = copy_of(hostile_company(tmp_path_factory, request.param), tmp_path)
    with opened(home, request.param) as company:
        yield Hostile(company, *json.loads((home / "hostile.json").read_text()))


def test_hostile_names_reach_fields_and_tasks_as_text_on_the_right_records(hostile):
    """F44, F45, F85, F87, F91."""
    company, victims = hostile.company, hostile.victims
    company.set_apply(True)
    records = company.records()
    assert company.healthloop("plan").code == 0
    applied = company.healthloop("apply")
    assert applied.code == 0, applied.both
    with company.ledger() as ledger:
        states = {intent.state for intent in ledger.intents(company.plan_id())}
    assert states == {"written"}
    tables = {table: object for object, table in company.crm.tables.items()}
    ours = {object: {*company.crm.ours(object).values()} for object in company.crm.tables}
    known = {id for (id,) in company.rows("SELECT crm_id FROM signals.accounts")}
    for table, id, fields, _ in company.crm.written():
        if table in tables:
            assert fields <= ours[tables[table]]
            assert tables[table] == "opportunity" or id in known
    for what, account in victims.items():
        tasks = company.tasks(account)
        assert tasks, what
        for task in tasks:
            assert task["record"] in (records[account], [records[account]])
            subject = task["subject"]
            assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in subject), what
            assert len(subject) <= 255
            if what not in ("long", "nul", "lines", "right_to_left"):
                assert plain(NAMES[what]) in plain(subject), (what, subject)
            if company.crm.name == "hubspot":
                assert Tags(task["body"]).seen <= {"br", "p", "ol", "ul", "li", "strong"}
    reasons = company.fields(victims["soql"])["risk_reasons"]
    assert reasons.startswith("Set by hand until 2026-12-31: The reason is long.")
    assert 200 < len(reasons) <= LONG_TEXT_LENGTH
    assert company.fields(hostile.sold)["handoff_promised_outcome"] == FORMULA
    again = company.healthloop("plan")
    assert "0 fields of 0 records would be written" in again.out
    assert "0 to open, 0 to close" in again.out


def test_what_is_printed_of_hostile_names_is_one_line_and_no_formula(hostile):
    """F44, F88, F89, F90."""
    company = hostile.company
    table = company.healthloop("plan", "--all").out
    assert table.count("all is well") <= 2
    for text in (table, company.healthloop("queue").out):
        assert not any(
            unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n" for c in text
        )
        assert not any(line.startswith("2026-06-24 INFO") for line in text.splitlines())
    rows = list(csv.reader(io.StringIO(company.healthloop("plan --format csv").out)))
    cells = [cell for row in rows[1:] for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "@", "\t", "\r")]
    assert not [
        cell for cell in cells if cell[:1] in ("+", "-") and not re.fullmatch(r"[+-]?\d+", cell)
    ]
    promised = [row for row in rows if row[4] == "handoff_promised_outcome" and FORMULA in row[6]]
    assert [row[6] for row in promised] == ["'" + FORMULA]


def test_f86_an_id_that_would_lead_elsewhere_is_refused_alone(hostile):
    company = hostile.company
    company.set_apply(True)
    account, other = hostile.victims["path"], hostile.victims["html"]
    record = company.record_of(other)
    change(
        company.home,
        f"UPDATE signals.accounts SET crm_id = '../../x?y=1#z' WHERE account_id = '{account}'",
    )
    assert company.healthloop("plan").code == 0
    applied = company.healthloop("apply")
    with company.ledger() as ledger:
        ends = {
            (intent.kind, intent.account_id): (intent.state, intent.reason)
            for intent in ledger.intents(company.plan_id())
        }
    assert ends["fields", other][0] == "written", applied.both
    assert ends["fields", account][0] in ("rejected", "skipped"), ends["fields", account]
    assert "../" not in "".join(request.path for request in company.box.log)
    assert company.crm.shown()[0]["account", record]["risk_band"] == "green"
    assert {state for state, _ in ends.values()} <= {"written", "rejected", "skipped"}


# -- F93: what a full run leaves behind -----------------------------------------------------------


@pytest.fixture(params=CRM_NAMES)
def story(request, tmp_path_factory):
    return story_of(tmp_path_factory, request.param)


def left_behind(home: Path) -> list[Path]:
    """Every file of a company but for what it was given: the synthetic world and its secrets."""
    files = [
        file
        for file in home.rglob("*")
        if file.is_file() and file.name != ".env" and home / "sandbox" not in file.parents
    ]
    assert len(files) > 100
    return files


def tables_of(home: Path) -> dict[str, str]:
    """Everything that stands in the warehouse and in the lake, by table or file."""
    found = {}
    with duckdb.connect(str(home / "state/warehouse.duckdb"), read_only=True) as connection:
        for schema, table in connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables()"
        ).fetchall():
            rows = connection.execute(f'FROM "{schema}"."{table}"').fetchall()
            found[f"{schema}.{table}"] = str(rows)
        for file in (home / "state/lake").rglob("*.parquet"):
            rows = connection.execute("FROM read_parquet(?)", [str(file)]).fetchall()
            found[str(file)] = str(rows)
    assert len(found) > 40
    return found


def test_f93_no_credential_is_left_in_any_file(story):
    secrets = [value.encode() for value in credentials().values()]
    for file in left_behind(story.home):
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret in content], file
    for name, text in tables_of(story.home).items():
        assert not [secret for secret in secrets if secret.decode() in text], name


def test_f93_no_address_and_no_word_of_a_customer_is_left_in_any_file(story):
    world = story.home / "sandbox/world"
    people = {
        address
        for file in world.rglob("*")
        if file.is_file()
        for address in addresses_in(file.read_bytes())
    }
    assert len(people) > 300
    for file in left_behind(story.home):
        content = file.read_bytes()
        found = addresses_in(content)
        assert not found & people, file
        assert b"@lakeview.example" not in content, file
        assert CANARY.encode() not in content, file
    for name, text in tables_of(story.home).items():
        assert not addresses_in(text.encode()) & people, name
        assert "@lakeview.example" not in text, name
        assert CANARY not in text, name


def test_f93_no_task_and_no_field_in_the_crm_shows_an_address_or_a_ticket(story):
    for evening in (story.quiet, story.news, story.cleared, story.approved):
        fields, tasks = evening.after
        text = f"{fields} {tasks}"
        assert "@" not in text
        assert CANARY not in text


def test_f93_no_command_prints_a_credential_or_an_address(story, tmp_path):
    secrets = [*credentials().values()]
    with opened(copy_of(story.home, tmp_path), story.crm) as company:
        for command in ("plan --all", "apply", "queue", "doctor", "sources",
                        f"provision {story.crm}"):  # fmt: skip
            said = company.healthloop(command).both
            assert said
            assert not [secret for secret in secrets if secret in said], command
            assert not addresses_in(said.encode()), command
            assert CANARY not in said, command
