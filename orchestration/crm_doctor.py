"""What `healthloop doctor` says about the CRM: may we write, neither more nor less, and to whom?"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from connectors.crm.ledger import Ledger
from connectors.crm.people import People
from connectors.crm.planning import CrmRecord, records_of
from connectors.crm.plans import Drift, Refusal
from connectors.crm.settings import LEDGER_FILE, CrmSettings, Target, check_crm
from connectors.crm.targets import open_writer, right_account
from connectors.crm.writing import CrmName, CrmWriter
from connectors.crm.writing import Finding as Seen
from contracts.company import Company
from contracts.errors import HealthloopError, SourceError
from orchestration.assets.signals import are_built
from orchestration.crms import ledger_of
from orchestration.findings import Finding, in_time, no_answer
from orchestration.resources import clock, warehouse_of
from scoring.library import Library
from scoring.overrides import ignored_overrides

MOST_ALIKE = 3
"""More findings of one kind than this are one line, and a count."""
MOST_LINES = 12
"""More lines about one CRM's fields and rights than this are cut: `provision` shows all."""
QUEUE = "queue:"


@dataclass(frozen=True)
class _Known:
    """What the warehouse knows: the customers' records and owners, overrides that do not count."""

    customers: tuple[CrmRecord, ...] = ()
    ignored: tuple[str, ...] = ()


def examine_crm(company: Company, library: Library | None) -> Iterator[Finding]:
    """Look at what is written to, and for what the library's playbooks need there.

    Mistakes in `crm.yaml` are named with those of the configuration; then nothing is asked.
    """
    settings, problems = check_crm(company)
    if problems:
        return
    if settings is None:
        yield Finding(
            "note", "crm.yaml", "there is none, so nothing is ever written into a CRM",
            "write one: docs/crm.md shows how",
        )  # fmt: skip
        return
    if settings.apply:
        yield Finding("ok", "crm.yaml", "apply is true: what the gate lets pass is written")
    else:
        yield Finding(
            "note", "crm.yaml", "apply is false: everything is a dry run",
            "read `healthloop plan`, then set `apply: true`",
        )  # fmt: skip
    yield from _told("ledger", "the ledger", _of_ledger(company, settings))
    known = _known(company, clock())
    queues = _queues(library)
    for crm, target in settings.targets.items():
        yield from _told(crm, crm, _of_target(company, crm, target, known, queues))
    for why, count in Counter(known.ignored).items():
        yield Finding(
            "note", "overrides", f"set by hand and not counted: {count:,}, as {why}",
            "give each a reason and a last day, in the CRM",
        )  # fmt: skip


def _told(about: str, who: str, answers: Iterator[Seen]) -> Iterator[Finding]:
    """What is found out of somebody who may not answer, each thing once."""
    told = set()
    try:
        for seen in in_time(answers):
            if seen not in told:
                told.add(seen)
                yield Finding(seen.level, about, seen.seen, seen.remedy)
    except TimeoutError:
        yield Finding("problem", about, *no_answer(who))
    except HealthloopError as error:
        yield Finding("problem", about, error.cause, error.remedy)


# The ledger


def _of_ledger(company: Company, settings: CrmSettings) -> Iterator[Seen]:
    if settings.ledger is None and not (company.state / LEDGER_FILE).exists():
        yield Seen("note", "there is none yet", "the first `healthloop plan` makes it")
        return
    with ledger_of(company, settings) as ledger:
        where = "the database" if settings.ledger else f"state/{LEDGER_FILE}"
        yield Seen("ok", f"{where} answers and is of this version")
        yield from _of_plans(ledger)
        yield from _of_writes(ledger)


def _of_plans(ledger: Ledger) -> Iterator[Seen]:
    for plan in ledger.plans():
        if plan.status == "held":
            yield Seen(
                "problem", f"plan {plan.plan_id} waits for a person: {'; '.join(plan.reasons)}",
                f"`healthloop plan approve {plan.plan_id}`, or `plan drop`",
            )  # fmt: skip


def _of_writes(ledger: Ledger) -> Iterator[Seen]:
    """What was sent and not answered, what the CRM refused, what people edited."""
    unknown = sum(len(batch.intents) for batch in ledger.sent())
    drift = ledger.drift()
    refused, tasks = ledger.refusals(), Counter(ledger.rejected_tasks().values())
    if unknown:
        yield Seen(
            "note", f"of {unknown:,} writes nobody knows yet whether they arrived",
            "the next run reads them back before it sends anything",
        )  # fmt: skip
    if refused:
        yield Seen(
            "note", refusing(refused),
            "mend the rule or the right in the CRM, then `healthloop plan --retry-refused`",
        )  # fmt: skip
    for reason, count in tasks.items():
        yield Seen("note", f"{count:,} tasks were refused: {reason}", "mend it in the CRM")
    if drift:
        yield Seen(
            "note", edited(drift),
            "they stay until our own value changes; let people only view them (docs/crm.md)",
        )  # fmt: skip


def refusing(refused: Sequence[Refusal]) -> str:
    """Which records refuse values of ours, and why.

    >>> refusing([Refusal("hubspot", "account", "7", ("risk_band",), "INVALID_OPTION")])
    'hubspot account 7 refuses risk_band (INVALID_OPTION)'
    """
    told = [
        f"{r.crm} {r.object} {r.record_id} refuses {', '.join(r.fields)} ({r.reason})"
        for r in refused[:MOST_ALIKE]
    ]
    left = len(refused) - MOST_ALIKE
    return "; ".join(told) + (f"; and {left:,} more records" if left > 0 else "")


def edited(drift: Sequence[Drift]) -> str:
    """Which of our fields people edited, without what they wrote.

    >>> at = dt.datetime(2026, 6, 30)
    >>> edited([Drift("hubspot", "account", "7", "risk_band", "green", "red", at)])
    'people edited risk_band of hubspot account 7'
    """
    fields: dict[str, list[str]] = {}
    for edit in drift:
        record = f"{edit.crm} {edit.object} {edit.record_id}"
        fields.setdefault(record, []).append(edit.field)
    told = [f"{', '.join(names)} of {record}" for record, names in fields.items()]
    left = len(told) - MOST_ALIKE
    more = f"; and fields of {left:,} more records" if left > 0 else ""
    return f"people edited {'; '.join(told[:MOST_ALIKE])}{more}"


# The warehouse


def _known(company: Company, now: dt.datetime) -> _Known:
    """Nothing where nothing was built yet, or the warehouse cannot be read: others say so."""
    if not company.warehouse.exists():
        return _Known()
    with (
        suppress(HealthloopError),
        warehouse_of(company, read_only=True).get_connection() as connection,
    ):
        if are_built(connection):
            customers = connection.execute(
                "SELECT DISTINCT account_id FROM signals.accounts "
                "WHERE superseded_at IS NULL AND is_customer IS NOT FALSE"
            ).fetchall()
            records, instant = records_of(connection), company.now(now).astimezone(dt.UTC)
            today = company.now(now).astimezone(company.zone).date()
            ignored = ignored_overrides(connection, today, instant=instant.replace(tzinfo=None))
            return _Known(
                tuple(records[account] for (account,) in customers if account in records),
                tuple(override.why for override in ignored),
            )
    return _Known()


def _queues(library: Library | None) -> set[str]:
    """The queues that playbooks name."""
    roles: set[str] = set()
    for playbook in library.playbooks.values() if library else ():
        roles |= {task.owner for task in playbook.tasks}
        roles |= {playbook.escalate.to} if playbook.escalate else set()
    return {role.removeprefix(QUEUE) for role in roles if role.startswith(QUEUE)}


# One CRM


def _of_target(
    company: Company, crm: CrmName, target: Target, known: _Known, queues: set[str]
) -> Iterator[Seen]:
    writer = open_writer(company, crm, target)
    account = right_account(company, crm, target, writer)
    yield Seen("ok", f"the credentials for writing open account '{account}'")
    ready = list(_asked(lambda: writer.ready(fields=True, tasks=target.tasks)))
    if all(seen.level != "problem" for seen in ready):
        also = ", and so does the key of tasks" if target.tasks else ""
        yield Seen("ok", f"every field that is written is there and serves{also}")
    lines = list(in_few_lines([*ready, *_asked(writer.rights)]))
    wrong = [seen for seen in lines if seen.level != "ok"]
    yield from wrong[:MOST_LINES]
    if left := wrong[MOST_LINES:]:
        worst = min(left, key=lambda seen: seen.level != "problem")
        yield Seen(
            worst.level, f"{len(left)} more", f"`healthloop provision {crm}` shows all of it"
        )
    yield from (seen for seen in lines if seen.level == "ok")
    if target.tasks:
        customers = [record for record in known.customers if record.crm == crm]
        yield from _asked(lambda: _of_people(company, target, writer, customers, queues))


def _asked(question: Callable[[], Iterable[Seen]]) -> Iterator[Seen]:
    """The answer to one question; that it has none is no reason not to ask the next."""
    try:
        yield from question()
    except SourceError as error:
        yield Seen("problem", error.cause, error.remedy)


def in_few_lines(findings: Sequence[Seen]) -> Iterator[Seen]:
    """Many findings that one thing mends as one: the first says it for all.

    >>> lacking = [Seen("problem", f"the field {n} is missing", "make them") for n in "abcd"]
    >>> [found.seen for found in in_few_lines(lacking)]
    ['the field a is missing, and 3 more of the kind']
    """
    alike: dict[tuple[str, str], list[Seen]] = {}
    for finding in dict.fromkeys(findings):
        alike.setdefault((finding.level, finding.remedy or finding.seen), []).append(finding)
    for group in alike.values():
        first = group[0]
        if len(group) <= MOST_ALIKE:
            yield from group
        else:
            more = f", and {len(group) - 1} more of the kind"
            yield Seen(first.level, f"{first.seen}{more}", first.remedy)


def _of_people(
    company: Company,
    target: Target,
    writer: CrmWriter,
    customers: Sequence[CrmRecord],
    queues: set[str],
) -> Iterator[Seen]:
    """Whether those whom `crm.yaml`, playbooks and accounts name can take tasks. Names nobody."""
    given = target.owners
    people = People(writer.owners(), given, company.zone)

    def fails(role: str, person: str | None = None) -> bool:
        return people.assign(role, person=person, csm=None).fell_back

    if people.fallback_is_missing:
        yield Seen(
            "problem", "the fallback owner is no active user or queue of the CRM",
            "correct `owners: {fallback: ...}` in crm.yaml",
        )  # fmt: skip
    elif not given.fallback:
        yield Seen(
            "note", "no fallback is named: a task whose owner is unknown belongs to nobody",
            "name a user or a queue in `owners: {fallback: ...}` of crm.yaml",
        )  # fmt: skip
    if given.csm_manager and fails("csm_manager"):
        yield Seen(
            "problem", "the CSM manager of crm.yaml is no active user of the CRM",
            "correct `owners: {csm_manager: ...}`",
        )  # fmt: skip
    for name in sorted(name for name in {*given.queues, *queues} if fails(f"{QUEUE}{name}")):
        yield Seen(
            "problem", f"the queue '{name}' is not in the CRM",
            "make it there, or name another in `owners: {queues: ...}` of crm.yaml",
        )  # fmt: skip
    lost = sum(fails("csm", name) for name in given.names)
    if lost:
        yield Seen(
            "problem", f"{lost} of `owners: {{names: ...}}` lead to no active user",
            "correct the ids of users in crm.yaml",
        )  # fmt: skip
    for role, names in (
        ("CSM", [record.owner for record in customers]),
        ("sales owner", [record.sales_owner for record in customers]),
    ):
        known = [name for name in names if name]
        lost = sum(fails("csm", name) for name in known)
        if lost:
            yield Seen(
                "note", f"the {role} of {lost:,} of {len(known):,} customers is no active user, or "
                "not the only one of that name: their tasks go to the fallback",
                "map names to users in `owners: {names: ...}` of crm.yaml",
            )  # fmt: skip
        elif known:
            yield Seen("ok", f"the {role} of all {len(known):,} customers is a user of the CRM")
