"""The pages that people read: the demo's last page, and one account's explanation."""

from decimal import Decimal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connectors.crm.changes import Changes
from contracts.company import Company
from orchestration.cli.console import escape, number, table_of
from orchestration.crm_plans import Stored
from scoring.explain import Contribution, Explanation
from scoring.reports import BAND_ORDER, BandCount, Portfolio, Standing

STYLES = {
    "red": "bold red",
    "yellow": "yellow",
    "green": "green",
    "ready": "bold blue",
    "possible": "blue",
    "none": "dim",
    "unknown": "magenta",
}
BAR_WIDTH = 24
MOST_WATERMELONS = 5
ALL_BUT_NOTHING = 0.9999


def portfolio_page(
    company: Company, glance: Portfolio, changes: Changes | None, stored: Stored | None = None
) -> RenderableType:
    """The state of the customers on a day, as somebody new to it would want to read it."""
    currency = company.settings.currency
    red = sum(c.arr for c in glance.risk if c.segment == "all" and c.band == "red")
    yellow = sum(c.arr for c in glance.risk if c.segment == "all" and c.band == "yellow")
    total = sum(c.arr for c in glance.risk if c.segment == "all")
    parts: list[RenderableType] = [
        Text.assemble(
            (f"\n{company.settings.name}, as of {glance.day}\n", "bold"),
            f"{glance.accounts:,} customers. Yearly revenue {number(total)} {currency}; ",
            (f"{number(red)} at risk (red)", STYLES["red"]),
            f", {number(yellow)} to watch (yellow).\n",
        ),
        _band_table("Risk of leaving (0 safe, 100 leaving)", glance.risk, currency),
        Text(),
        _standings("The five highest risks", glance.worst, currency),
        Text(),
        _standings("The five best upsell chances", glance.best_upsell, currency),
        Text(),
        _watermelons(glance, currency),
    ]
    if changes is not None:
        parts.append(_plan(changes, stored))
    if glance.without_revenue:
        parts.append(
            Text(
                f"{glance.without_revenue:,} accounts have no revenue in {currency}: the source "
                "gives none, or there is no exchange rate."
            )
        )
    return Group(*parts)


def _band_table(title: str, counts: tuple[BandCount, ...], currency: str) -> Table:
    bands = [band for band in BAND_ORDER if any(c.band == band for c in counts)]
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("segment")
    for band in bands:
        table.add_column(band, justify="right", style=STYLES[band])
    table.add_column(f"red revenue, {currency}", justify="right")
    for segment in dict.fromkeys(c.segment for c in counts):
        of = {c.band: c for c in counts if c.segment == segment}
        cells = [f"{of[band].accounts:,}" if band in of else "-" for band in bands]
        arr = of["red"].arr if "red" in of else 0
        table.add_row(escape(segment), *cells, number(arr))
    return table


def _standings(title: str, standings: tuple[Standing, ...], currency: str) -> Table:
    rows = [
        (
            s.name or s.account_id,
            s.account_id,
            s.segment,
            int(s.value.to_integral_value()),
            round(s.arr or 0),
            "; ".join(s.reasons),
        )
        for s in standings
    ]
    return table_of(title, ("account", "id", "segment", "score", f"ARR {currency}", "why"), rows)


def _watermelons(glance: Portfolio, currency: str) -> RenderableType:
    found = glance.watermelons
    if not found:
        return Text(
            "Watermelon candidates: none (no green account has a hard signal against it).\n"
        )
    rows = [
        (
            w.name or w.account_id,
            w.account_id,
            int(w.value.to_integral_value()),
            round(w.arr or 0),
            "; ".join(w.because),
        )
        for w in found[:MOST_WATERMELONS]
    ]
    title = f"Watermelon candidates: {len(found):,} green accounts have a hard signal against them"
    return table_of(title, ("account", "id", "score", f"ARR {currency}", "but"), rows)


def _plan(changes: Changes, stored: Stored | None) -> Text:
    """What the day means for the CRM; `stored` is the plan in the ledger, where there is one."""
    states = changes.fields
    lines = (
        f"\nFor the CRM: {states['write']:,} field values to write on "
        f"{changes.accounts['write']:,} accounts ({states['unchanged']:,} unchanged, "
        f"{states['held']:,} held because a source is not delivering, {states['unlinked']:,} "
        "without a CRM record)"
    )
    if stored is None:
        return Text(f"{lines}. Nothing was sent.\n")
    tasks = stored.plan.totals
    lines += f", {tasks['tasks_to_open']:,} tasks to open, {tasks['tasks_to_close']:,} to close. "
    return Text(f"{lines}{became_of(stored)}\n")


def became_of(stored: Stored) -> str:
    """What became of a plan, in a sentence."""
    ends = stored.ends
    if stored.plan.status == "held":
        return f"The plan is held: {'; '.join(stored.plan.reasons)}."
    if stored.plan.status != "applied":
        return "Nothing was sent."
    if not (ends["deferred"] or ends["rejected"]):
        return "The plan was carried out."
    why = f" ({'; '.join(stored.put_off)})" if stored.put_off else ""
    return (
        f"Of its writes {ends['written']:,} were carried out, {ends['deferred']:,} put off to the "
        f"next plan{why}, {ends['rejected']:,} refused; `healthloop doctor` says more."
    )


def explanation_page(e: Explanation) -> RenderableType:
    """One score: the number, its band and why, each contribution, and the change as a waterfall."""
    band = Text(e.band, style=STYLES[e.band])
    value = number(e.value, 2)
    head = Text.assemble(
        (f"{e.name or e.account_id}", "bold"),
        f" ({e.account_id}), {e.score} as of {e.as_of}: ",
        (value, "bold"),
        " ",
        band,
        f"\n{e.scorecard} v{e.version}, because the account is {e.segment}, {e.stage}"
        + (f", wants {e.outcome}" if e.outcome else "")
        + f"\n{_certainty(e)}",
    )
    if e.band_reason:
        head.append(f"\nThe band is unknown: {e.band_reason}", style=STYLES["unknown"])
    parts: list[RenderableType] = [head, Text(), _contributions(e)]
    if e.family:
        parts.append(
            Text(
                f"With its {e.family.members - 1} child accounts: {number(e.family.value, 2)} "
                f"({e.family.method}); decisive is {e.family.decisive_account_id}"
            )
        )
    if e.change:
        parts += [Text(), _waterfall(e)]
    return Group(*parts)


def _certainty(e: Explanation) -> str:
    """How much is known, and what the rest could change."""
    if e.coverage > ALL_BUT_NOTHING:
        return "All of the weight is known"
    known = f"{e.coverage:.0%} of the weight is known; whatever the rest says, the score"
    if e.low == e.high:
        return f"{known} stays {number(e.low, 2)}"
    return f"{known} is between {number(e.low, 2)} and {number(e.high, 2)}"


def _contributions(e: Explanation) -> Table:
    rows = [
        (
            c.label,
            c.pillar or c.kind,
            _value(c),
            c.state if c.state not in (None, "present") else "",
            c.points,
            c.weight,
            float(c.contribution),
        )
        for c in e.contributions
    ]
    table = Table(
        title="What makes it", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for name, justify in (
        ("metric", "left"), ("pillar", "left"), ("value", "right"), ("state", "left"),
        ("points", "right"), ("weight", "right"), ("adds", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for label, pillar, value, state, points, weight, adds in rows:
        table.add_row(
            escape(label), pillar, value, state, number(points, 1),
            f"{weight:g} %" if weight is not None else "", number(adds, 2),
        )  # fmt: skip
    total = sum((c.contribution for c in e.contributions), Decimal(0))
    table.add_row("sum", "", "", "", "", "", number(total, 2), style="bold", end_section=True)
    return table


def _value(c: Contribution) -> str:
    if c.kind == "cap":
        return ""
    if c.value is None:
        return c.reason or "missing"
    digits = 0 if abs(c.value - round(c.value)) < 0.05 else 1
    return f"{c.value:,.{digits}f} {c.unit}".strip()


def _waterfall(e: Explanation) -> Table:
    change = e.change
    assert change is not None
    table = Table(
        title=f"What moved it since {change.since}",
        title_justify="left", title_style="bold", box=None, pad_edge=False,
    )  # fmt: skip
    for name, justify in (("part", "left"), ("", "left"), ("points", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_row(str(change.since), "", number(change.value_then, 2), "", style="bold")
    largest = max((abs(p.amount) for p in change.parts), default=Decimal(1)) or Decimal(1)
    for part in change.parts:
        moved = (
            f" ({number(part.value_then, 1)} -> {number(part.value_now, 1)})"
            if part.metric and part.kind == "behaviour"
            else ""
        )
        length = round(float(abs(part.amount) / largest) * BAR_WIDTH)
        sign = "+" if part.amount > 0 else "-"
        table.add_row(part.kind, escape(part.label + moved), f"{part.amount:+.2f}", sign * length)
    table.add_row(str(change.until), "", number(change.value_now, 2), "", style="bold")
    return table
