"""What every run about a CRM begins with: its settings, its ledger, and the CRMs themselves."""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property

from connectors.crm.lease import Lease
from connectors.crm.ledger import Ledger
from connectors.crm.people import People
from connectors.crm.settings import CrmSettings, ledger_url, read_crm
from connectors.crm.targets import check_accounts, open_writers
from connectors.crm.writing import CrmName, CrmWriter, Finding
from contracts.company import Company
from contracts.errors import HeldError, NotFoundError
from contracts.secrets import Secrets

LEASE_SECONDS = 900.0
"""What is left of it before a call (two thirds) is longer than any call may take."""
Clock = Callable[[], dt.datetime]


@contextmanager
def ledger_of(company: Company, settings: CrmSettings) -> Iterator[Ledger]:
    """The ledger of a company, closed at the end."""
    url = Secrets(company.home).of(settings.ledger) if settings.ledger else ledger_url(company)
    company.state.mkdir(parents=True, exist_ok=True)
    with Ledger(url) as ledger:
        yield ledger


def settings_of(company: Company) -> CrmSettings:
    """`crm.yaml`.

    Raises:
        NotFoundError: there is none.
    """
    settings = read_crm(company)
    if settings is None:
        raise NotFoundError(
            f"{company.home / 'crm.yaml'} does not exist",
            "write one: docs/crm.md shows how, and without it nothing is ever written",
        )
    return settings


@contextmanager
def leased_ledger(
    company: Company, settings: CrmSettings, clock: Clock
) -> Iterator[tuple[Ledger, Lease]]:
    """The ledger, and the right to write into the CRMs, which one run has at a time.

    Raises:
        HeldError: another run is at work on the CRM.
    """
    with (
        ledger_of(company, settings) as ledger,
        ledger.lease(holder=_holder(), now=clock, seconds=LEASE_SECONDS) as lease,
    ):
        yield ledger, lease


def _holder() -> str:
    name = "healthloop"
    with suppress(OSError):
        name = os.uname().nodename
    return f"process {os.getpid()} on {name}"


class Crms:
    """The CRMs that `crm.yaml` names, opened when they are first needed.

    Each is asked at most once in a run whose it is, what it lacks and who is there. `accounts` says
    whose they are, once `writers` were opened.
    """

    def __init__(self, company: Company, settings: CrmSettings) -> None:
        self.company = company
        self.settings = settings
        self.accounts: dict[CrmName, str] = {}

    @cached_property
    def writers(self) -> dict[CrmName, CrmWriter]:
        """The writers, of which it is certain that they open the right organisation.

        Raises:
            SourceError: a secret is missing, a CRM cannot be asked, or it is another's.
        """
        writers = open_writers(self.company, self.settings)
        self.accounts = check_accounts(self.company, self.settings, writers)
        return writers

    @cached_property
    def problems(self) -> dict[tuple[CrmName, str], list[Finding]]:
        """What keeps us from writing ``fields`` and ``tasks``, by CRM; empty where nothing does."""
        found: dict[tuple[CrmName, str], list[Finding]] = {}
        for crm, writer in self.writers.items():
            for what in ("fields", "tasks"):
                findings = writer.ready(fields=what == "fields", tasks=what == "tasks")
                found[crm, what] = [f for f in findings if f.level == "problem"]
        return found

    def takes(self, crm: CrmName, what: str) -> bool:
        """Whether fields or tasks can be written into a CRM, and are to be."""
        wanted = what == "fields" or self.settings.targets[crm].tasks
        return wanted and not self.problems[crm, what]

    @property
    def ready(self) -> bool:
        """Whether fields can be written everywhere, so that what is there can be read back."""
        return all(self.takes(crm, "fields") for crm in self.writers)

    @property
    def notes(self) -> list[str]:
        """What is not as it should be, in one line each: the first of many says it for all."""
        return [
            f"{self._lack(crm, what)}; {problems[0].remedy}"
            for (crm, what), problems in self.problems.items()
            if problems and (what == "fields" or self.settings.targets[crm].tasks)
        ]

    def _lack(self, crm: CrmName, what: str) -> str:
        problems = self.problems[crm, what]
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{crm}: {what} cannot be written: {problems[0].seen}{others}"

    def require_ready(self, *, tasks: bool) -> None:
        """Make sure that fields, and tasks where there are any, can be written everywhere.

        Raises:
            HeldError: a CRM is not ready.
        """
        for what in ("fields", "tasks") if tasks else ("fields",):
            lacking = [crm for crm in self.writers if self.problems[crm, what]]
            if lacking:
                raise HeldError(
                    "; ".join(self._lack(crm, what) for crm in lacking),
                    f"run `healthloop provision {lacking[0]}`, then `healthloop plan`",
                )

    @cached_property
    def people(self) -> dict[CrmName, People]:
        """Who can own tasks, by CRM; a CRM that takes no tasks is left out.

        A dry run shows what would be, and so also the tasks of a CRM that is not provisioned yet.
        """
        return {
            crm: People(writer.owners(), self.settings.targets[crm].owners, self.company.zone)
            for crm, writer in self.writers.items()
            if self.takes(crm, "tasks")
            or (self.settings.targets[crm].tasks and not self.settings.apply)
        }

    @property
    def people_by_name(self) -> dict[CrmName, People]:
        """Stands for `people` where no CRM is asked: nobody owns the planned tasks yet."""
        return {
            crm: People((), target.owners, self.company.zone)
            for crm, target in self.settings.targets.items()
            if target.tasks
        }
