"""Commands about the CRM: `provision`, `plan`, `apply`, `queue` and `playbooks`."""

import dataclasses
import getpass
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from connectors.crm.planning import plan_as_json
from connectors.crm.plans import END_STATES, Intent
from connectors.crm.targets import open_provisioner
from connectors.crm.writing import Provisioner, Step
from contracts.company import read_company
from contracts.errors import HeldError, InputError, SourceRejected
from orchestration.cli.beside import sandbox_beside
from orchestration.cli.console import Format, console, errors, escape, print_json, print_rows
from orchestration.cli.crm_pages import applied_page, ends_of, plan_page, queue_page, steps_page
from orchestration.cli.options import HOME, Form, Home, scored_warehouse
from orchestration.crm_plans import plan_day
from orchestration.crm_writes import apply as apply_stored
from orchestration.crm_writes import draining, judge_plan
from orchestration.crms import ledger_of, settings_of
from orchestration.resources import clock, warehouse_of
from scoring import actions, playbook_pages
from scoring.explain import scored_day
from scoring.library import read_library

plans = typer.Typer(add_completion=False, rich_markup_mode=None)


@plans.callback(invoke_without_command=True)
def plan(
    context: typer.Context,
    home: Home = HOME,
    everything: Annotated[bool, typer.Option("--all", help="Every account and task.")] = False,
    retry_refused: Annotated[
        bool,
        typer.Option("--retry-refused", help="Offer again what the CRM refused: it was mended."),
    ] = False,
    form: Form = Format.TABLE,
) -> None:
    """Show what would be written into the CRM, like a diff; nothing is written.

    It is made anew from the last scored day, and kept for `healthloop apply`.
    """
    context.obj = home
    if context.invoked_subcommand:
        return
    company = read_company(home)
    settings = settings_of(company)
    with scored_warehouse(company) as connection:
        day = scored_day(connection, None)
    with sandbox_beside(company), warehouse_of(company).get_connection() as connection:
        planned = plan_day(
            company, read_library(company), connection, day, clock=clock,
            retry_refused=retry_refused,
        )  # fmt: skip
    if form is Format.JSON:
        print_json(plan_as_json(planned.plan, planned.intents) | {"notes": list(planned.notes)})
    elif form is Format.CSV:
        _print_csv(planned.intents)
    else:
        with ledger_of(company, settings) as ledger:
            subjects = {task.key: task.subject for task in ledger.tasks()}
        page = plan_page(planned, everything=everything, subjects=subjects)
        console.print(page, soft_wrap=True)


def _print_csv(intents: Sequence[Intent]) -> None:
    """Every planned write on a line: fields one by one, and tasks to open and to close."""
    rows: list[tuple[str | None, ...]] = []
    for i in intents:
        on = (i.account_id, i.crm, i.object or "task")
        rows += [(*on, i.record_id, c.field, c.old, c.new, c.why) for c in i.changes]
        if i.task is not None:
            rows.append((*on, i.task.key, "open", None, i.task.subject, i.why))
        if i.closing is not None:
            rows.append((*on, i.closing.key, "close", None, None, i.why))
    columns = ("account", "crm", "object", "record", "field", "old", "new", "why")
    print_rows("", columns, rows, Format.CSV)


@plans.command(epilog="Example:  healthloop plan approve 2026-06-30-1f3a9c")
def approve(
    context: typer.Context,
    plan_id: Annotated[str, typer.Argument(help="The held plan.")],
    home: Home = HOME,
) -> None:
    """Let a held plan go: the next `healthloop apply` carries it out."""
    _judge(context.obj if home == HOME else home, plan_id, approve=True)


@plans.command(epilog="Example:  healthloop plan drop 2026-06-30-1f3a9c")
def drop(
    context: typer.Context,
    plan_id: Annotated[str, typer.Argument(help="The plan.")],
    home: Home = HOME,
) -> None:
    """Drop a plan: it will never be carried out."""
    _judge(context.obj if home == HOME else home, plan_id, approve=False)


def _judge(home: Path, plan_id: str, *, approve: bool) -> None:
    company = read_company(home)
    judged = judge_plan(company, plan_id, approve=approve, by=_user(), clock=clock)
    console.print(f"Plan {judged.plan_id} is {judged.status}.", highlight=False)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody without a name on this machine"


def apply(
    plan_id: Annotated[
        str | None, typer.Argument(metavar="[PLAN]", help="A stored plan; the newest by default.")
    ] = None,
    home: Home = HOME,
    form: Form = Format.TABLE,
) -> None:
    """Carry out a stored plan: write the fields and tasks into the CRM, each exactly once.

    Whatever was under way when an earlier run broke off is read back first. Stopped by SIGTERM or
    Ctrl-C, it finishes the call in hand and leaves the rest to the next plan.
    """
    company = read_company(home)
    with sandbox_beside(company), draining() as stop:
        done, applied = apply_stored(
            company, plan_id, clock=clock, stop=stop,
            progress=lambda line: errors.print(line, style="dim", markup=False),
        )  # fmt: skip
    if form is Format.JSON:
        print_json({"plan": done.plan_id, "status": done.status} | dataclasses.asdict(applied))
    elif form is Format.CSV:
        print_rows("", ("writes", *END_STATES), ends_of(applied), form)
    else:
        console.print(applied_page(done, applied))
    if applied.failed:
        raise HeldError(applied.failed, "what was not written is left to the next plan")


def provision(
    crm: Annotated[str, typer.Argument(help="salesforce or hubspot.")],
    home: Home = HOME,
    yes: Annotated[bool, typer.Option("--yes", help="Carry the steps out without asking.")] = False,
    admin_token: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="The environment variable that holds an admin's token."
        ),
    ] = None,
    assign_to: Annotated[
        str | None,
        typer.Option(metavar="USERNAME", help="Salesforce: who gets the permission set."),
    ] = None,
) -> None:
    """Make the fields, the task key and the rights that a CRM lacks; shows the steps first.

    With an admin's token the integration itself needs no right to change the CRM's setup.
    """
    company = read_company(home)
    targets = settings_of(company).targets
    if crm not in targets:
        raise InputError(f"crm.yaml has no section '{crm}'", f"it has: {', '.join(targets)}")
    name = next(known for known in targets if known == crm)
    with sandbox_beside(company):
        provisioner = open_provisioner(
            company, name, targets[name], admin_token=admin_token, assign_to=assign_to
        )
        steps = provisioner.steps()
        console.print(steps_page(f"What {crm} needs", steps), soft_wrap=True)
        missing = [step for step in steps if step.state == "missing"]
        refused: dict[str, SourceRejected] = {}
        done = 0
        if missing and (yes or _agreed(len(missing))):
            refused = _carried_out(provisioner, missing)
            steps, done = provisioner.steps(), len(missing) - len(refused)
            console.print(f"{done:,} steps were carried out.")
    left = [_by_hand(step, refused) for step in steps if step.state != "exists"]
    if left and (done or refused):
        console.print(steps_page("Still to do", left), soft_wrap=True)
    elif not left:
        console.print(f"{crm} has everything that Healthloop needs.")
    if left and (yes or done or refused):
        raise HeldError(
            f"{crm}: still to do: {len(left):,} of {len(steps):,} steps",
            "do as they say, and run this again",
        )


def _carried_out(provisioner: Provisioner, steps: Sequence[Step]) -> dict[str, SourceRejected]:
    """Carry steps out; gives those that the CRM does not take. The others are done all the same."""
    refused: dict[str, SourceRejected] = {}
    for step in steps:
        try:
            provisioner.carry_out(step)
        except SourceRejected as error:
            if error.cause not in {other.cause for other in refused.values()}:
                errors.print(f"{step.what}: {error.cause}", style="yellow", markup=False)
            refused[step.what] = error
    return refused


def _by_hand(step: Step, refused: Mapping[str, SourceRejected]) -> Step:
    """A step that is left: one that the CRM refused is for an admin."""
    if step.what not in refused or step.state != "missing":
        return step
    return Step(step.what, "by hand", refused[step.what].remedy)


def _agreed(count: int) -> bool:
    if not sys.stdin.isatty():
        console.print(f"{count} steps are missing; --yes carries them out.")
        return False
    return typer.confirm(f"Carry out {count} steps?")


def queue(
    home: Home = HOME,
    owner: Annotated[
        str | None, typer.Option("--owner", help="One person's week, by name.")
    ] = None,
    form: Form = Format.TABLE,
) -> None:
    """Show each person's week: what to do, why, since when, at what value; and what was done."""
    company = read_company(home)
    with (
        scored_warehouse(company) as connection,
        ledger_of(company, settings_of(company)) as ledger,
    ):
        entries = actions.queue_of(
            connection,
            read_library(company),
            scored_day(connection, None),
            episodes=ledger.episodes(),
            tasks=ledger.tasks(),
            owner=owner,
        )
    if form is not Format.TABLE:
        columns = [field.name for field in dataclasses.fields(actions.QueueEntry)]
        print_rows("", columns, [dataclasses.astuple(entry) for entry in entries], form)
    elif entries:
        console.print(queue_page(entries, company.settings.currency))
    else:
        what = "no task was opened yet" if owner is None else f"no task is {escape(owner)}'s"
        console.print(f"Nothing is to be done: {what}.")


def playbooks(
    name: Annotated[str | None, typer.Argument(help="One playbook; all by default.")] = None,
    home: Home = HOME,
) -> None:
    """Print what each playbook asks of a CSM, as Markdown: when it fires, what to do, by when."""
    library = read_library(read_company(home))
    if name is None:
        sys.stdout.write(playbook_pages.playbooks_page(library))
    else:
        sys.stdout.write(playbook_pages.playbook_page(library, name))
