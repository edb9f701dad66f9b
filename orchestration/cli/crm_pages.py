"""The pages about the CRM: a plan as a diff, what an apply did, the steps of provisioning."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connectors.crm.applying import Applied
from connectors.crm.plans import END_STATES, Intent, Plan
from connectors.crm.writing import Step
from orchestration.cli.console import escape, number, table_of
from orchestration.crm_doctor import edited
from orchestration.crm_plans import Planned
from scoring.queues import QueueEntry

MOST_ACCOUNTS = 20
MOST_REFUSED = 10
LONGEST_VALUE = 60
SIGNS = {"exists": ("=", "dim"), "missing": ("+", "green"), "wrong": ("!", "bold red"),
         "by hand": ("?", "yellow")}  # fmt: skip


def plan_page(
    planned: Planned, *, everything: bool = False, subjects: Mapping[str, str] | None = None
) -> RenderableType:
    """A plan as a review reads it: account by account what changes, then tasks, then totals.

    `subjects` are those of the tasks that are there already, by key.
    """
    plan, intents = planned.plan, planned.intents
    fields = [intent for intent in intents if intent.kind == "fields"]
    accounts = [(account, list(group)) for account, group in groupby(_by_account(fields), _account)]
    shown = accounts if everything else accounts[:MOST_ACCOUNTS]
    parts: list[RenderableType] = [_head(plan)]
    parts += [_account_diff(account, group) for account, group in shown]
    if len(shown) < len(accounts):
        left = len(accounts) - len(shown)
        parts.append(Text(f"\n... and {left:,} more accounts; --all shows them", style="dim"))
    parts += _tasks(plan, intents, subjects or {}, everything=everything)
    parts.append(_totals(planned))
    if planned.observed and planned.observed.drift:
        note = f"note: {edited(planned.observed.drift)}; that stays until our own value changes"
        parts.append(Text(note, style="yellow"))
    parts += [Text(f"note: {note}", style="yellow") for note in planned.notes]
    parts.append(_next_step(planned))
    return Group(*parts)


def _by_account(intents: Sequence[Intent]) -> list[Intent]:
    return sorted(intents, key=lambda intent: (intent.account_id, intent.number))


def _account(intent: Intent) -> str:
    return intent.account_id


def _head(plan: Plan) -> Text:
    head = Text.assemble(
        (f"Plan {plan.plan_id}", "bold"), f", as of {plan.as_of}: ",
        (plan.status, "bold yellow" if plan.status == "held" else "bold"),
    )  # fmt: skip
    for reason in plan.reasons:
        head.append(f"\n  {reason}", style="yellow")
    return head


def _account_diff(account: str, intents: Sequence[Intent]) -> Text:
    """One account's records, each changed field on a line: field, old, new, why."""
    text = Text(f"\n{escape(account)}", style="bold")
    for intent in intents:
        text.append(f"\n  {intent.crm} {intent.object} {intent.record_id}", style="dim")
        seen = [change for change in intent.changes if change.old != change.new]
        width = max((len(change.field) for change in seen), default=0)
        for change in seen:
            text.append(f"\n    {change.field:<{width}}  ")
            text.append(_value(change.old), style="red")
            text.append(" -> ")
            text.append(_value(change.new), style="green")
            if change.why and change.field.endswith(("_score", "_band")):
                text.append(f"   {_short(change.why)}", style="dim")
    return text


def _tasks(
    plan: Plan, intents: Sequence[Intent], subjects: Mapping[str, str], *, everything: bool
) -> Iterator[RenderableType]:
    def known(account: str, key: str, why: str) -> str:
        subject = subjects.get(key)
        return "  ".join((account, *([_short(subject)] if subject else []), why))

    opening = [_opening(intent) for intent in intents if intent.task is not None]
    closing = [known(i.account_id, i.closing.key, i.why) for i in intents if i.closing is not None]
    leaving = [known(left.account_id, left.key, left.why) for left in plan.left]
    for title, sign, style, lines in (
        ("Tasks to open", "+", "green", opening),
        ("Tasks to close", "-", "red", closing),
        ("Tasks to leave", "=", "dim", leaving),
    ):
        if not lines:
            continue
        text = Text(f"\n{title}", style="bold")
        for line in lines if everything else lines[:MOST_ACCOUNTS]:
            text.append(f"\n  {sign} {escape(line)}", style=style)
        if not everything and len(lines) > MOST_ACCOUNTS:
            text.append(f"\n  ... and {len(lines) - MOST_ACCOUNTS:,} more", style="dim")
        yield text


def _opening(intent: Intent) -> str:
    task = intent.task
    assert task is not None
    return (
        f"{intent.account_id}  {_short(task.subject)}  (due {task.due_on}, {task.priority})"
        f"  {_short(intent.why)}"
    )


def _totals(planned: Planned) -> Text:
    totals, states = planned.plan.totals, planned.changes.fields
    said = ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
    text = Text("\nTotals", style="bold")
    text.append(
        f"\n  {totals['fields']:,} fields of {totals['records']:,} records would be written; "
        f"values: {said or 'none'}\n"
        f"  tasks: {totals['tasks_to_open']:,} to open, {totals['tasks_to_close']:,} to close, "
        f"{totals['tasks_to_leave']:,} to leave",
        style="not bold",
    )
    if totals.get("tasks_without_record"):
        text.append(
            f"\n  {totals['tasks_without_record']:,} tasks have nowhere to go: the account has no "
            "record in a CRM that takes tasks",
            style="not bold",
        )
    return text


def _next_step(planned: Planned) -> Text:
    plan = planned.plan
    if not planned.stored:
        return Text("\nThis plan is only shown: it was made without the CRM, and is not kept.")
    if plan.status == "held":
        return Text(
            f"\nIt is held. `healthloop plan approve {plan.plan_id}` lets it go, "
            f"`healthloop plan drop {plan.plan_id}` drops it."
        )
    if not planned.intents:
        return Text("\nNothing is left to write.")
    return Text(
        f"\n`healthloop apply {plan.plan_id}` carries it out, if crm.yaml says apply: true."
    )


def ends_of(applied: Applied) -> list[tuple[str | int, ...]]:
    """How many planned writes ended how: a row for each kind, with the counts of `END_STATES`."""
    return [
        (kind, *(counts.get(state, 0) for state in END_STATES))
        for kind, counts in applied.counts.items()
    ]


def applied_page(plan: Plan, applied: Applied) -> RenderableType:
    """What an apply did: every planned write in its end state."""
    title = f"Plan {plan.plan_id}: {plan.status}"
    parts: list[RenderableType] = [
        table_of(title, ("writes", *END_STATES), ends_of(applied)),
        Text(f"{applied.calls:,} requests, beside those that look first."),
    ]
    parts += [Text(f"note: {reason}", style="yellow") for reason in applied.degraded]
    parts += [Text(f"refused: {line}", style="yellow") for line in applied.refused[:MOST_REFUSED]]
    if len(applied.refused) > MOST_REFUSED:
        left = len(applied.refused) - MOST_REFUSED
        parts.append(Text(f"... and {left:,} more; --format json lists all", style="yellow"))
    if applied.refused:
        parts.append(
            Text("Once that is mended, `healthloop plan --retry-refused` offers it again.")
        )
    return Group(*parts)


def steps_page(title: str, steps: Sequence[Step]) -> Text:
    """The steps of provisioning: what is there, what is made, what an admin has to do."""
    text = Text(title, style="bold")
    for step in steps:
        sign, style = SIGNS[step.state]
        text.append(f"\n  {sign} {escape(step.what)}", style=style)
        if step.how and step.state != "exists":
            for line in step.how.splitlines():
                text.append(f"\n      {escape(line)}", style="not bold")
    return text


def _value(value: str | None) -> str:
    return "(empty)" if value is None else _short(value)


def _short(text: str) -> str:
    line = " ".join(escape(text).replace(r"\[", "[").split())
    return line if len(line) <= LONGEST_VALUE else f"{line[: LONGEST_VALUE - 1]}…"


def queue_page(entries: Sequence[QueueEntry], currency: str) -> RenderableType:
    """Each person's week under their name, in the order of the entries."""
    parts: list[RenderableType] = []
    for owner, group in groupby(entries, lambda entry: entry.owner):
        mine = list(group)
        counts = Counter(entry.state for entry in mine)
        said = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        parts += [Text.assemble("\n" if parts else "", (owner, "bold"), f": {said}"),
                  _week(mine, currency)]  # fmt: skip
    return Group(*parts)


def _week(entries: Sequence[QueueEntry], currency: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("", "account"):
        table.add_column(name, no_wrap=True)
    for name in ("what", "why"):
        table.add_column(name, ratio=1, overflow="fold")
    for name in ("since", "due"):
        table.add_column(name, no_wrap=True)
    table.add_column(currency, no_wrap=True, justify="right")
    for entry in entries:
        due = entry.due.isoformat() if entry.due else "-"
        table.add_row(
            entry.state, escape(entry.account_id), escape(entry.what), escape(entry.why),
            entry.since.isoformat(), due, number(entry.value),
            style="dim" if entry.state == "done" else "",
        )  # fmt: skip
    return table
