"""A small company whose CRM is written to: Salesforce or HubSpot, and a help desk, in a sandbox.

Its days go on past the end of the synthetic world: whatever is new then, a test has put there. The
daily run comes at the end of the day that it scores. Pulling and scoring cost seconds, so a company
is made once a session in each of two states and handed out as a copy: `new` (scored, its CRM as it
was bought) and `written` (provisioned, and its first plan carried out).
"""

import datetime as dt
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from demo_company import Answer, healthloop, instance_in_home, made_once, rows_of, run, write

from connectors.crm.ledger import Ledger
from connectors.crm.settings import ledger_url
from connectors.crm.writing import CrmName
from connectors.sandbox.servers.box import Box, credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.servers.tables import Table
from connectors.sandbox.vendors import hubspot_control as portal
from connectors.sandbox.vendors.salesforce_objects import records, save
from connectors.sandbox.vendors.zendesk import Desk
from connectors.sandbox.world import write_world
from connectors.sandbox.world.population import OUTCOMES_WANTED
from contracts.company import Company, read_company
from orchestration.runs import Run, run_news
from tests.faults.crm_writes import CRMS, Crm

ACCOUNTS = 60
FIRST_DAY = dt.date(2026, 6, 23)
"""The first day that is scored, a Tuesday, and the last of the synthetic world."""
DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
CRM_NAMES: tuple[CrmName, ...] = ("salesforce", "hubspot")
WORLD = Path("sandbox") / "world"
SCORES = ("risk", "upsell", "health", "handoff")

COMPANY_YAML = f"""\
name: Lakeview
tenant: lakeview
time_zone: Europe/Berlin
currency: EUR
history_start: 2026-06-01
today: {FIRST_DAY}
library_scorecards: false
library_playbooks: false
use_metric: null
limits: {{quarantine_share: 0.5, identity_coverage: 0.5}}
"""
STEPS = ("kick_off", "first_data_source", "first_report_shared", "team_trained", "went_live")
SOURCES = {
    "salesforce": "type: salesforce\ninstance_url: {address}\n"
    "access_token: {{env: SALESFORCE_TOKEN}}\nca_file: sandbox/ca.pem\n",
    "hubspot": "type: hubspot\naddress: {address}\ntoken: {{env: HUBSPOT_TOKEN}}\n"
    "portal_currency: EUR\nmilestones:\n"
    + "".join(
        f"  {step}: {{{{due: onboarding_{step}_due, reached: onboarding_{step}_on}}}}\n"
        for step in STEPS
    ),
    "zendesk": "type: zendesk\naddress: {address}\nsubdomain: lakeview\n"
    "exports_per_minute: 6000\ntoken: {{env: ZENDESK_TOKEN}}\n",
}
FALLBACK = {"salesforce": "CS Queue", "hubspot": "Mira Holt"}
CRM_YAML = "apply: {apply}\n{crm}:\n  source: crm\n  owners: {{fallback: {fallback}}}\n"

RISK = """\
believes: Who needs help and gets none leaves.
score: risk
version: 1
pillars: {reactive: {weight: 100}}
components:
  - metric: open_p1_tickets
    pillar: reactive
    weight: 100
    points: {0: 10, 1: 45, 2: 80, 3: 100}
    because: "Open P1 tickets: {value}"
bands: {red: 70, yellow: 40}
coverage: {minimum: 0.5}
"""
UPSELL = """\
believes: Large customers grow.
score: upsell
version: 3
pillars: {proactive: {weight: 100}}
components:
  - metric: account_age_days
    pillar: proactive
    weight: 100
    steps: {0: 20, 100: 50, 400: 80}
    because: A customer for years
bands: {ready: 70, possible: 40}
coverage: {minimum: 0.5}
"""
HEALTH = """\
believes: Goals that are reached were worth it.
score: health:goals
version: 2
pillars: {proactive: {weight: 100}}
components:
  - metric: goal_progress
    pillar: proactive
    weight: 50
    points: {0: 0, 100: 100}
    because: Progress towards the goals is {value} %
  - metric: account_age_days
    pillar: proactive
    weight: 50
    steps: {0: 20, 100: 60}
    because: A customer for long
bands: {green: 70, yellow: 40}
coverage: {minimum: 0.5}
"""
P1_OPEN = """\
purpose: While a P1 ticket is open the customer's work stands still.
kind: alarm
expected: You tell the sponsor today what is being done.
trigger: {when: open_p1_tickets > 0}
cooldown: 14d
tasks:
  - owner: csm
    due: +1d
    priority: high
    subject: "P1 open at {account.name}: tell the sponsor"
    steps: [Ask support for the next step, Call the sponsor]
clears_when: open_p1_tickets = 0
"""
"""Escalates to nobody, so that one ticket is one task."""
RISK_RED = """\
purpose: An account in red needs one person who knows why.
kind: alarm
expected: You answer for the plan.
trigger: {score: risk, band: red}
cooldown: 30d
tasks:
  - owner: csm
    due: +3d
    priority: normal
    subject: "Make a recovery plan for {account.name}: {reason}"
    steps: [Read the reasons, Call the champion]
"""
UPSELL_READY = """\
purpose: Who has outgrown what it bought should hear what there is.
kind: upsell
expected: You offer it within a week.
trigger: {score: upsell, band: ready}
cooldown: 90d
tasks:
  - {owner: sales, due: +5d, subject: "Offer {account.name} more", steps: [Call the sponsor]}
"""


def write_company(home: Path, crm: CrmName, *, apply: bool = False) -> None:
    """The folder of a company that nobody has run yet; its addresses are set by `opened`."""
    write(home / "company.yaml", COMPANY_YAML)
    for name, vendor in (("crm", crm), ("helpdesk", "zendesk")):
        write(home / f"sources/{name}.yaml", SOURCES[vendor].format(address="https://nowhere"))
    write(home / "crm.yaml", crm_yaml(crm, apply=apply))
    write(home / "scorecards/risk.yaml", RISK)
    write(home / "scorecards/upsell.yaml", UPSELL)
    shipped = Path(__file__).parent.parent / "scoring/library/scorecards/handoff-default.yaml"
    write(home / "scorecards/handoff.yaml", re.sub(r"(?m)^applies_to.*\n", "", shipped.read_text()))
    write(home / "scorecards/health.yaml", HEALTH)
    write(home / "playbooks/p1-open.yaml", P1_OPEN)
    write(home / "playbooks/risk-red.yaml", RISK_RED)
    write(home / "playbooks/upsell-ready.yaml", UPSELL_READY)
    write(home / ".env", "".join(f"{k}={v}\n" for k, v in sorted(credentials().items())))
    write_world(home / WORLD, accounts=ACCOUNTS, today=FIRST_DAY)
    changes = home / WORLD / "crm/account_changes.csv"
    write(changes, re.sub("|".join(OUTCOMES_WANTED), "goals", changes.read_text(encoding="utf-8")))


def crm_yaml(crm: CrmName, *, apply: bool, more: str = "") -> str:
    """`crm.yaml` of the company."""
    return CRM_YAML.format(apply=str(apply).lower(), crm=crm, fallback=FALLBACK[crm]) + more


def end_of(day: dt.date) -> dt.datetime:
    """The last second of a day in Berlin, in summer: when the daily run comes."""
    return dt.datetime.combine(day, dt.time(21, 59, 59), dt.UTC)


@dataclass
class CrmCompany:
    """A company with its vendors' sandbox running. All of its clocks show `box.now`.

    Attributes:
        home: The company folder.
        crm: Its CRM: what it shows, and what people do there.
        box: The sandbox.
    """

    home: Path
    crm: Crm
    box: Box

    @property
    def day(self) -> dt.date:
        """The last whole day."""
        return self.company.last_day(self.box.now)

    @property
    def company(self) -> Company:
        return read_company(self.home)

    def run(self, **how: Any) -> Run:
        """The daily run, as the schedule starts it."""
        return run(self.home, self.day, **how)

    def fast_lane(self) -> Run:
        """The job `fast_lane`, once."""
        with instance_in_home():
            return run_news(self.company)

    def next_evening(self) -> None:
        """Let a day pass."""
        day = self.day + DAY
        self.later(end_of(day) - self.box.now)
        text = (self.home / "company.yaml").read_text(encoding="utf-8")
        write(self.home / "company.yaml", re.sub(r"(?m)^today: .*$", f"today: {day}", text))

    def later(self, by: dt.timedelta = MINUTE) -> None:
        """Let some time pass."""
        self.box.move(self.box.now + by)

    def healthloop(self, command: str, *arguments: str) -> Answer:
        """A command of `healthloop` about this company."""
        return healthloop(*command.split(), *arguments, "--home", str(self.home))

    def set_apply(self, apply: bool, more: str = "") -> None:
        """Rewrite `crm.yaml`."""
        write(self.home / "crm.yaml", crm_yaml(self.crm.name, apply=apply, more=more))

    @property
    def writes(self) -> int:
        """How many requests so far changed anything in the CRM."""
        return self.crm.sent()

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The company's ledger."""
        with Ledger(ledger_url(self.company)) as ledger:
            yield ledger

    def plan_id(self) -> str:
        """The newest plan."""
        with self.ledger() as ledger:
            newest = ledger.newest()
        assert newest is not None
        return newest.plan_id

    # Accounts and what the CRM shows of them

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a query on the warehouse."""
        return rows_of(self.home, sql, list(parameters))

    def record_of(self, account: str) -> str:
        """The id of an account in the CRM."""
        return self.records()[account]

    def records(self) -> dict[str, str]:
        """The CRM's record of each account that is scored."""
        found = self.rows(
            "SELECT DISTINCT account_id, crm_id FROM signals.accounts "
            "JOIN scores.scores USING (account_id) "
            "WHERE superseded_at IS NULL AND deleted IS NOT TRUE AND as_of = ?", self.day,
        )  # fmt: skip
        return dict(found)

    def fields(self, account: str) -> dict[str, Any]:
        """Our fields of an account, as the CRM shows them."""
        return self.crm.shown()[0].get(("account", self.record_of(account)), {})

    def tasks(self, account: str | None = None) -> list[dict[str, Any]]:
        """Our tasks, those of an account if one is given, with their keys."""
        shown = self.crm.shown()[1]
        tasks = [{"key": key, **task} for key, task in shown.items()]
        return [t for t in tasks if account is None or f"/{account}" in t["episode"]]

    def calm_accounts(self) -> list[str]:
        """Accounts in green with a CSM and without a deal, the oldest customers first: of them the
        CRM shows our fields on one record."""
        rows = self.rows(
            "SELECT a.account_id FROM metrics.accounts AS a "
            "JOIN scores.scores AS r ON r.as_of = a.as_of AND r.account_id = a.account_id "
            "WHERE a.as_of = ? AND r.score = 'risk' AND r.band = 'green' "
            "AND a.owner IS NOT NULL AND a.account_id NOT IN "
            "(SELECT account_id FROM signals.opportunities WHERE account_id IS NOT NULL "
            "AND superseded_at IS NULL AND (closed_at IS NULL OR closed_at > '2026-03-01')) "
            "ORDER BY a.started_on, 1",
            self.day,
        )  # fmt: skip
        return [account for (account,) in rows]

    # What people do

    def open_ticket(self, account: str, *, priority: str = "urgent", text: str = "") -> str:
        """A customer opens a ticket, now; gives its id."""
        organizations = self.rows(
            "SELECT account_key FROM signals.account_keys WHERE account_id = ? "
            "AND source = 'helpdesk'", account,
        )  # fmt: skip
        tickets = self._tickets
        id = str(9_000_000 + len(tickets.rows(self.box.now.timestamp(), deleted=True)))
        now = _iso(self.box.now)
        body = {
            "id": int(id), "created_at": now, "updated_at": now, "priority": priority,
            "status": "new", "requester_id": 1, "organization_id": int(organizations[0][0]),
            "tags": [], "satisfaction_rating": {"score": "unoffered"}, "subject": text,
            "description": text,
            "metric_set": {"reopens": 0, "reply_seconds": None, "solve_seconds": None},
        }  # fmt: skip
        tickets.put(id, body, self.box.now.timestamp())
        return id

    def solve_ticket(self, id: str) -> None:
        """Support solves a ticket, now."""
        now = self.box.now.timestamp()
        row = self._tickets.get(id, now)
        assert row is not None
        solved = {"status": "solved", "updated_at": _iso(self.box.now)}
        metrics = {"reopens": 0, "reply_seconds": 1, "solve_seconds": 60}
        self._tickets.put(id, row.body | solved | {"metric_set": metrics}, now)

    @property
    def _tickets(self) -> Table:
        return Desk(self.box)._table("tickets")

    def type_in(self, object: str, id: str, **values: str | float | None) -> None:
        """Somebody changes fields of a record by their names in the CRM, now."""
        if self.crm.name == "salesforce":
            name = {"account": "Account", "opportunity": "Opportunity"}[object]
            save(self.box, name, id, values, self.box.now.timestamp())
        else:
            name = {"account": "companies", "opportunity": "deals"}[object]
            texts = {key: None if value is None else str(value) for key, value in values.items()}
            portal.edit(self.box, name, id, **texts)

    def typed(self, object: str, id: str, name: str) -> Any:
        """A field of a record by its name in the CRM."""
        if self.crm.name == "salesforce":
            table = records(self.box, {"account": "Account", "opportunity": "Opportunity"}[object])
        else:
            table = portal.collection(
                self.box, {"account": "companies", "opportunity": "deals"}[object]
            )
        row = table.get(id, self.box.now.timestamp())
        assert row is not None
        return (row.body if self.crm.name == "salesforce" else row.body["properties"]).get(name)


def _iso(moment: dt.datetime) -> str:
    return f"{moment.isoformat()[:19]}Z"


@contextmanager
def opened(home: Path, crm: CrmName) -> Iterator[CrmCompany]:
    """A company and its sandbox, on free ports, to which its sources are pointed.

    The sandbox's clock goes on where it stood when the company was opened last.
    """
    clock = home / "sandbox" / "clock"
    stood = dt.datetime.fromisoformat(clock.read_text()) if clock.exists() else None
    now = stood + MINUTE if stood else end_of(FIRST_DAY)
    with sandbox(
        home / WORLD, now, vendors=[crm, "zendesk"], ca_folder=home / "sandbox",
        journal=home / "sandbox" / "journal",
    ) as box:  # fmt: skip
        for name, vendor in (("crm", crm), ("helpdesk", "zendesk")):
            file = home / f"sources/{name}.yaml"
            text = re.sub(
                r"(?m)^(address|instance_url): .*$",
                lambda line, vendor=vendor: f"{line[1]}: {box.address(vendor)}",
                file.read_text(encoding="utf-8"),
            )
            write(file, text)
        with mock.patch.object(Company, "now", side_effect=lambda clock: box.now):
            yield CrmCompany(home, CRMS[crm](box, home), box)
    clock.write_text(box.now.isoformat())
    assert box.defects == []


def new_company(tmp_path_factory: pytest.TempPathFactory, crm: CrmName) -> Path:
    """A company that was pulled and scored, and of which its CRM knows nothing; never change it."""

    def make(home: Path) -> None:
        write_company(home, crm)
        with opened(home, crm) as company:
            ran = company.run()
            assert (ran.success, ran.failures, ran.warnings) == (True, (), ())
            assert company.writes == 0  # F71: crm.yaml says apply: false

    return made_once(tmp_path_factory, f"new-{crm}", make)


def written_company(tmp_path_factory: pytest.TempPathFactory, crm: CrmName) -> Path:
    """The same with its first plan carried out, and `apply: true`; never change it."""
    new = new_company(tmp_path_factory, crm)

    def make(home: Path) -> None:
        shutil.copytree(new, home)
        with opened(home, crm) as company:
            company.set_apply(True)
            for command in (f"provision {crm} --yes", "plan", "apply"):
                answer = company.healthloop(command)
                assert answer.code == 0, answer.both

    return made_once(tmp_path_factory, f"written-{crm}", make)
