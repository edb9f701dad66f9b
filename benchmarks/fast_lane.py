"""From a P1 ticket in the help desk to the field and the task in the CRM.

`measure` makes the demo's company with many accounts, has its daily run write all of them into the
CRM, and then lets customers open P1 tickets, one after the other. After each the job `fast_lane`
runs once, in a process of its own, as Dagster starts its runs: Python starts, everything is
imported, the run is recorded. The sandbox serves all vendors of the company from another process.

`python -m benchmarks.fast_lane serve HOME CRM` serves them: it prints their addresses, and then
answers each line of JSON with one. `python -m benchmarks.fast_lane run HOME MOMENT JOB` runs a job
as if it began at that moment, and prints what it took.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import yaml

from benchmarks.crm import is_write, kind
from benchmarks.daily import open_warehouse
from connectors.crm.settings import names_of, read_crm
from connectors.crm.writing import CrmName
from connectors.sandbox.demo import MARKER, PORT, WORLD, write_demo_company
from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control, salesforce_metadata
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.sandbox.vendors.zendesk import HIDDEN_SECONDS
from contracts.company import Company, read_company
from orchestration.runs import Run, run_days, run_news

DAY = dt.date(2026, 6, 28)
"""A Sunday: tickets of the synthetic company end with a week, and days without would be doubted."""

EVENING = dt.datetime(2026, 6, 28, 21, 59, 59, tzinfo=dt.UTC)
"""The last second of the day in Berlin: the daily run."""

MORNING = EVENING + dt.timedelta(hours=10)
READS_BACK = dt.timedelta(days=180)
"""How far back the first reading goes: as far as the longest windows of the library."""

BETWEEN = dt.timedelta(minutes=2)
"""What the clock goes forward before each run of the fast lane."""

VENDORS = ("company_news", "posthog", "stripe", "surveymonkey", "typeform", "zendesk")
FALLBACK = {"salesforce": "CS Queue", "hubspot": "Mira Holt"}
STEPS = ("kick_off", "first_data_source", "first_report_shared", "team_trained", "went_live")
HUBSPOT = {
    "type": "hubspot",
    "token": {"env": "HUBSPOT_TOKEN"},
    "portal_currency": "EUR",
    "milestones": {
        step: {"due": f"onboarding_{step}_due", "reached": f"onboarding_{step}_on"}
        for step in STEPS
    },
}
TICKETS: dict[CrmName, int] = {"salesforce": 5, "hubspot": 3}
"""How many tickets there are, for each choice of sources."""

SOURCES: Sequence[Sequence[str]] = (("helpdesk",), ())
"""What a minute pulls: what `crm.yaml` is advised to name, and everything."""

POLL_SECONDS = 0.1
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Minute:
    """One run of the fast lane.

    `seconds` go from the ticket until the field and the task were in the CRM (None without a
    ticket), `run_seconds` until the process was gone, `job_seconds` are those of the job in it.
    `requests` are by vendor, `asked` those to the CRM by method and path, `writes` those of them
    that changed something; `steps` are the seconds of the job's steps.
    """

    seconds: float | None
    run_seconds: float
    job_seconds: float
    requests: dict[str, int]
    asked: dict[str, int]
    writes: int
    steps: dict[str, float]


@dataclass(frozen=True)
class Lane:
    """Runs of the fast lane with a ticket each, and one without news before them."""

    tickets: tuple[Minute, ...]
    quiet: Minute

    @property
    def seconds(self) -> float:
        """From a ticket to the CRM (median)."""
        return median(minute.seconds for minute in self.tickets if minute.seconds is not None)

    def steps(self) -> dict[str, float]:
        """The seconds of each step (median), and of what lies around the job."""
        names = {name: None for minute in self.tickets for name in minute.steps}
        found = {
            name: median(minute.steps.get(name, 0.0) for minute in self.tickets) for name in names
        }
        between = (m.job_seconds - sum(m.steps.values()) for m in self.tickets)
        outside = (m.run_seconds - m.job_seconds for m in self.tickets)
        return found | {"between steps": median(between), "the process": median(outside)}


def measure(
    folder: Path, accounts: int, progress: Callable[[str], None]
) -> dict[tuple[CrmName, tuple[str, ...]], Lane]:
    """Run the fast lane for some tickets in each CRM, and with each choice of sources.

    Raises:
        SystemExit: a run failed, or a ticket did not reach the CRM.
    """
    found = {}
    for crm, count in TICKETS.items():
        progress(f"a company of {accounts:,} accounts with {crm}")
        home = folder / crm
        _write_company(home, crm, accounts)
        with _served(home, crm) as ask:
            company = _Company(home, crm, ask)
            company.first_day()
            for chosen in SOURCES:
                progress(f"{count} tickets, sources: {', '.join(chosen) or 'all'}")
                found[crm, tuple(chosen)] = company.lane(chosen, count)
    return found


class _Company:
    """A company whose CRM shows everything, and what happens there."""

    def __init__(self, home: Path, crm: CrmName, ask: Callable[..., Any]) -> None:
        self.home, self.crm, self.ask = home, crm, ask
        self.now = EVENING
        self.calm: Iterator[tuple[str, str, str]] = iter(())

    def first_day(self) -> None:
        """The daily run, which writes everything."""
        _told(_process(self.home, self.now, "daily"))
        if not self.ask(do="since")["writes"]:
            raise SystemExit("the first day wrote nothing")
        self.calm = iter(self._calm_accounts())
        self.now = MORNING

    def lane(self, sources: Sequence[str], tickets: int) -> Lane:
        """One run that catches up, one without news, and one for each ticket."""
        _write_crm_yaml(self.home, self.crm, sources)
        self._minute()
        quiet = self._minute()
        return Lane(tuple(self._minute(ticket=True) for _ in range(tickets)), quiet)

    def _minute(self, *, ticket: bool = False) -> Minute:
        self.now += BETWEEN
        self.ask(do="move", to=self.now.isoformat())
        account, record, organization = next(self.calm) if ticket else ("", "", "")
        before = self.ask(do="shown", record=record)["score"] if ticket else None
        self.ask(do="since")
        began = time.perf_counter()
        if ticket:
            self.ask(do="ticket", organization=organization)
        process = _process(self.home, self.now, "news")
        episode = f"p1-open/{DAY + dt.timedelta(days=1)}/{account}"
        seconds = None
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            if time.perf_counter() - began > LIMIT_SECONDS:
                process.kill()
            if ticket and seconds is None:
                shown = self.ask(do="shown", record=record)
                if shown["score"] != before and episode in shown["episodes"]:
                    seconds = time.perf_counter() - began
        told, run_seconds = _told(process), time.perf_counter() - began
        if ticket and seconds is None:
            raise SystemExit(f"the ticket of {account} did not reach {self.crm}")
        since = self.ask(do="since")
        return Minute(
            seconds=seconds,
            run_seconds=run_seconds,
            job_seconds=told["seconds"],
            steps=told["steps"],
            **since,
        )

    def _calm_accounts(self) -> list[tuple[str, str, str]]:
        """Accounts without an open P1 ticket whose upsell score one would lower.

        Their ids, here, in the CRM and in the help desk. None of them has a task about upsell,
        which would be closed as well, or a deal, which would show the score too.
        """
        with open_warehouse(self.home / "state" / "warehouse.duckdb") as connection:
            return connection.execute(
                "SELECT account_id, any_value(a.crm_id), min(k.account_key) "
                "FROM scores.scores AS s "
                "JOIN metrics.metric_values AS v USING (account_id, as_of) "
                "JOIN signals.accounts AS a USING (account_id) "
                "JOIN signals.account_keys AS k USING (account_id) "
                "WHERE s.as_of = $1 AND s.score = 'upsell' AND s.band = 'possible' "
                "AND v.metric = 'open_p1_tickets' AND v.value = 0 AND a.superseded_at IS NULL "
                "AND a.crm_id IS NOT NULL AND k.source = 'helpdesk' "
                "AND account_id NOT IN (SELECT account_id FROM signals.opportunities "
                "WHERE account_id IS NOT NULL AND superseded_at IS NULL "
                "AND (closed_at IS NULL OR closed_at > $1 - INTERVAL 120 DAY)) "
                "GROUP BY ALL ORDER BY 1",
                [DAY],
            ).fetchall()


# The company


def _write_company(home: Path, crm: CrmName, accounts: int) -> None:
    """The demo's company, with this CRM."""
    write_demo_company(home, accounts=accounts, today=DAY)
    settings = yaml.safe_load((home / "company.yaml").read_text()) | {"history_start": DAY}
    (home / "company.yaml").write_text(yaml.safe_dump(settings))
    (home / MARKER).unlink()  # its sandbox is not the one that commands would start
    if crm == "hubspot":
        (home / "sources/crm.yaml").write_text(yaml.safe_dump(HUBSPOT))
    _write_crm_yaml(home, crm, ())


def _write_crm_yaml(home: Path, crm: CrmName, sources: Sequence[str]) -> None:
    target = {"source": "crm", "owners": {"fallback": FALLBACK[crm]}, "daily_share": 1.0}
    settings = {
        "apply": True,
        crm: target,
        "gate": {"most_tasks": 100_000},  # the first day opens everybody's tasks at once
        "fast_lane": {"sources": [*sources]},
    }
    (home / "crm.yaml").write_text(yaml.safe_dump(settings))


# The sandbox


@contextmanager
def _served(home: Path, crm: CrmName) -> Iterator[Callable[..., Any]]:
    """The vendors during the block, in a process of their own; a function that asks it."""
    command = [sys.executable, "-m", "benchmarks.fast_lane", "serve", str(home), crm]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1) as server:
        asked, told = server.stdin, server.stdout
        assert asked is not None
        assert told is not None

        def ask(**question: str) -> Any:
            asked.write(json.dumps(question) + "\n")
            return json.loads(told.readline())

        json.loads(told.readline())  # once it answers
        try:
            yield ask
        finally:
            asked.close()
    if server.returncode:
        raise SystemExit("a server of the sandbox fell over")


def serve(home: Path, crm: CrmName) -> None:
    """Serve the company's vendors, point its sources to them, and answer until there are no more
    questions.
    """
    with sandbox(home / WORLD, EVENING, vendors=[crm, *VENDORS], ca_folder=home / "sandbox") as box:
        (hubspot_control if crm == "hubspot" else salesforce_metadata).provisioned(box)
        _point(home, crm, box)
        answer = _answers(home, crm, box)
        print(json.dumps({"vendors": sorted(box.addresses)}), flush=True)
        for line in sys.stdin:
            question = json.loads(line)
            print(json.dumps(answer[question.pop("do")](**question)), flush=True)
    if box.defects:
        raise SystemExit("\n".join(box.defects))


def _point(home: Path, crm: CrmName, box: Box) -> None:
    plain = box.address("zendesk").removesuffix("/zendesk")
    for file in (home / "sources").glob("*.yaml"):
        file.write_text(file.read_text().replace(f"http://127.0.0.1:{PORT}", plain))
    file = home / "sources/crm.yaml"
    name = "instance_url" if crm == "salesforce" else "address"
    settings = yaml.safe_load(file.read_text()) | {name: box.address(crm)}
    file.write_text(yaml.safe_dump(settings))


def _answers(home: Path, crm: CrmName, box: Box) -> dict[str, Callable[..., Any]]:
    """What the sandbox can be asked for."""
    company = read_company(home)
    settings = read_crm(company)
    assert settings is not None
    score = names_of(crm, settings.targets[crm], "account")["upsell_score"]
    seen = 0

    def move(to: str) -> None:
        box.move(dt.datetime.fromisoformat(to))

    def ticket(organization: str) -> None:
        """A P1 ticket, which the help desk's export shows from this very second on."""
        table = box.tables()["zendesk", "tickets"]
        at = box.now - dt.timedelta(seconds=HIDDEN_SECONDS)
        id = 9_000_000_000 + int(at.timestamp())
        opened = f"{at.isoformat()[:19]}Z"
        body = {
            "id": id, "created_at": opened, "updated_at": opened, "priority": "urgent",
            "status": "new", "requester_id": 1, "organization_id": int(organization), "tags": [],
            "satisfaction_rating": {"score": "unoffered"},
            "metric_set": {"reopens": 0, "reply_seconds": None, "solve_seconds": None},
        }  # fmt: skip
        table.put(str(id), body, at.timestamp())

    def shown(record: str) -> dict[str, Any]:
        """The score that an account's record shows, and the episodes of all tasks."""
        now = box.now.timestamp()
        if crm == "hubspot":
            row = hubspot_control.collection(box, "companies").get(record, now)
            tasks = hubspot_control.collection(box, "tasks").rows(now)
            bodies = [task.body["properties"] for task in tasks]
            values, episode = row.body["properties"] if row else {}, hubspot_control.EPISODE
        else:
            row = records(box, "Account").get(record, now)
            bodies = [task.body for task in records(box, "Task").rows(now)]
            values, episode = row.body if row else {}, "HL_Episode__c"
        episodes = [body[episode] for body in bodies if body.get(episode)]
        return {"score": values.get(score), "episodes": episodes}

    def since() -> dict[str, Any]:
        nonlocal seen
        came, seen = box.log[seen:], len(box.log)
        requests = Counter(request.vendor for request in came)
        of_crm = [request for request in came if request.vendor == crm]
        asked = Counter(f"{one.method} {kind(one.path)}" for one in of_crm)
        return {"requests": requests, "asked": asked, "writes": sum(map(is_write, of_crm))}

    return {"move": move, "ticket": ticket, "shown": shown, "since": since}


# The runs


def _process(home: Path, now: dt.datetime, job: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.fast_lane", "run", str(home), now.isoformat(), job]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What the process of a run printed, once it has ended."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit("a run failed")
    told: dict[str, Any] = json.loads(out)
    return told


def run(home: Path, now: dt.datetime, job: str) -> dict[str, Any]:
    """Run a job; its seconds, and those of its steps."""
    company, began = read_company(home), time.perf_counter()
    steps: dict[str, float] = {}

    def on_step(step: str, says: str) -> None:
        if says in ("start", "end"):
            sign = -1 if says == "start" else 1
            steps[step] = steps.get(step, 0.0) + sign * time.perf_counter()

    def moment(_company: Company, _clock: dt.datetime) -> dt.datetime:
        return now + dt.timedelta(seconds=time.perf_counter() - began)

    with (
        mock.patch.object(Company, "now", moment),
        mock.patch("connectors.api_pull.READS_BACK", READS_BACK),
    ):
        done: Run = (
            run_news(company, on_step=on_step)
            if job == "news"
            else run_days(company, [DAY], pull=True, on_step=on_step)
        )
    if not done.success:
        raise SystemExit("; ".join(done.failures))
    return {"seconds": time.perf_counter() - began, "steps": steps, "warnings": done.warnings}


def main() -> None:
    """Serve, or run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("serve", "run"))
    parser.add_argument("home", type=Path)
    parser.add_argument("more", nargs="+")
    given = parser.parse_args()
    if given.what == "serve":
        serve(given.home, given.more[0])
    else:
        moment, job = given.more
        print(json.dumps(run(given.home, dt.datetime.fromisoformat(moment), job)))


if __name__ == "__main__":
    main()
