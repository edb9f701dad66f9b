"""What each playbook asks of people, as Markdown: when it fires, who does what by when, and why."""

import re
from collections.abc import Iterator

from contracts.documents import nearest
from contracts.errors import NotFoundError
from scoring.config.playbooks import Playbook, Trigger
from scoring.config.scorecards import AppliesTo
from scoring.library import ACCOUNT_FACTS, Library
from scoring.reasons import label_of
from scoring.triggers import MARGIN_POINTS, PIPELINE, UPSELL_SHARE_OF_ARR, conditions_of

KINDS = {
    "alarm": "Alarms",
    "proactive": "Proactive, by stage",
    "upsell": "Upsell",
    "handoff": "Handoff from sales",
}
_SIGNS = {">=": "at least", "<=": "at most", ">": "above", "<": "below", "=": "is", "<>": "is not"}
_WORDS = re.compile(r"\"([^\"]+)\"|'[^']*'|[A-Za-z_][\w.]*|>=|<=|<>|[<>=]")
_ROLES = {"csm": "CSM", "sales": "sales", "csm_manager": "CSM's manager"}


def playbooks_page(library: Library) -> str:
    """All playbooks of a company: an overview, then a section for each."""
    lines = ["# What is expected of whom", ""]
    lines += [
        f"{len(library.playbooks)} playbooks. Each opens its tasks once an account and occasion. "
        "What you do with a task counts: complete it, move it, hand it on or delete it, and it "
        "stays so.",
        "",
        "| playbook | when | who | due |",
        "|---|---|---|---|",
    ]
    for _, of_kind in _by_kind(library):
        for name, playbook in of_kind:
            who = ", ".join(dict.fromkeys(said_role(task.owner) for task in playbook.tasks))
            when = _cell(_trigger(library, playbook.trigger))
            lines.append(f"| {name} | {when} | {who} | {_due(playbook.tasks[0].due)} |")
    for kind, of_kind in _by_kind(library):
        lines += ["", f"## {KINDS[kind]}"]
        for name, playbook in of_kind:
            lines += ["", *_section(library, name, playbook, level=3)]
    return "\n".join(lines) + "\n"


def playbook_page(library: Library, name: str) -> str:
    """One playbook.

    Raises:
        NotFoundError: there is none of this name.
    """
    playbook = library.playbooks.get(name)
    if playbook is None:
        raise NotFoundError(
            f"there is no playbook '{name}'", nearest(name, library.playbooks) or "add one"
        )
    return "\n".join(_section(library, name, playbook, level=1)) + "\n"


def said_role(role: str) -> str:
    """A role as people say it: ``csm_manager`` is the CSM's manager."""
    queue = role.removeprefix("queue:")
    return f"queue {queue}" if queue != role else _ROLES[role]


def _by_kind(library: Library) -> Iterator[tuple[str, list[tuple[str, Playbook]]]]:
    for kind in KINDS:
        of_kind = [(n, p) for n, p in sorted(library.playbooks.items()) if p.kind == kind]
        if of_kind:
            yield kind, of_kind


def _section(library: Library, name: str, playbook: Playbook, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}"
    yield ""
    yield _joined(playbook.purpose)
    yield ""
    if playbook.expected:
        yield f"**What is expected.** {_joined(playbook.expected)}"
        yield ""
    yield f"**When.** {_sentence(_trigger(library, playbook.trigger))}{_audience(playbook)}"
    yield ""
    yield from _meanings(library, playbook)
    for number, task in enumerate(playbook.tasks, 1):
        yield (
            f"**Task {number}.** {said_role(task.owner)}, due {_due(task.due)}, "
            f"{task.priority} priority: *{task.subject}*"
        )
        yield ""
        yield from (f"{place}. {step}" for place, step in enumerate(task.steps, 1))
        yield ""
    yield f"- **Clears** {_clears(library, playbook)}; what nobody touched is closed then."
    yield (
        f"- **Again** not before {playbook.cooldown} days after it opened, and not while a person "
        "has a task of it in hand."
    )
    if playbook.escalate:
        yield (
            f"- **Escalation:** the {said_role(playbook.escalate.to)} is told once when the first "
            f"task is neither done nor postponed after {playbook.escalate.after} days."
        )
    if playbook.holdout:
        yield (
            f"- **Hold-out:** {playbook.holdout:.0%} of the accounts, drawn within segment and "
            "stage, get no task, so that we learn whether it helps."
        )
    if any(task.due == 0 for task in playbook.tasks):
        yield "- **Never waits**, however full somebody's week is: it is due on the day."
    else:
        yield f"- **Ranked by** {_value(playbook)} where somebody's week is full."
    if playbook.believes:
        yield f"- **We believe:** {_joined(playbook.believes)}"


def _trigger(library: Library, trigger: Trigger) -> str:
    """A trigger in plain words."""
    parts = []
    if trigger.band:
        parts.append(f"{trigger.score} is {' or '.join(trigger.band)}")
    if trigger.at_least is not None:
        parts.append(f"{trigger.score} is {trigger.at_least:g} or more")
    if trigger.at_most is not None:
        parts.append(f"{trigger.score} is {trigger.at_most:g} or less")
    if trigger.change:
        way = "rose" if trigger.change.by > 0 else "fell"
        parts.append(
            f"{trigger.score} {way} by {abs(trigger.change.by):g} points or more within "
            f"{trigger.change.within} days"
        )
    if trigger.driver:
        labels = [label_of(library, name) for name in trigger.driver]
        parts.append(f"one of its reasons is: {', or '.join(labels)}")
    if trigger.when:
        parts.append(in_words(library, trigger.when))
    days = f"on {trigger.for_days} scored days in a row: " if trigger.for_days > 1 else ""
    return days + "; and ".join(parts)


def in_words(library: Library, condition: str) -> str:
    """A condition with the labels of its metrics and words for its signs.

    ``open_p1_tickets > 0 or arr >= 5000`` -> ``Open P1 tickets above 0 or arr at least 5000``.
    """

    def word(match: re.Match[str]) -> str:
        name = match[1] or match[0]
        if name in library.measures:
            return label_of(library, name)
        if name in ACCOUNT_FACTS:
            return name.replace("_", " ")
        return _SIGNS.get(match[0], match[0])

    return _WORDS.sub(word, condition)


def _audience(playbook: Playbook) -> str:
    parts = [f"{what} {' or '.join(names)}" for what, names in _named(playbook.audience) if names]
    who = f" For {', '.join(parts)}." if parts else ""
    guard = " Never while the risk is red." if playbook.kind == "upsell" else ""
    return f"{who}{guard}"


def _named(audience: AppliesTo) -> list[tuple[str, list[str]]]:
    return [
        ("segment", audience.segment), ("stage", audience.stage), ("outcome", audience.outcome),
    ]  # fmt: skip


def _meanings(library: Library, playbook: Playbook) -> Iterator[str]:
    """What the metrics in its conditions mean, in words."""
    names = {name for condition in conditions_of(library, playbook) for name in condition.names}
    described = {
        label_of(library, name): library.metrics[name].description
        for name in sorted(names & library.metrics.keys())
        if library.metrics[name].description
    }
    yield from (f"- {label}: {said}" for label, said in described.items())
    if described:
        yield ""


def _clears(library: Library, playbook: Playbook) -> str:
    if playbook.clears_when:
        clears = f"when {in_words(library, playbook.clears_when)}"
    elif playbook.trigger.band or playbook.trigger.at_least is not None:
        clears = f"when that no longer holds, by a margin of {MARGIN_POINTS:g} points"
    else:
        clears = "when that no longer holds"
    return f"{clears}, or when the risk turns red" if playbook.kind == "upsell" else clears


def _value(playbook: Playbook) -> str:
    if playbook.value_at_risk:
        return f"`{playbook.value_at_risk}`"
    if playbook.kind == "upsell":
        return f"`{PIPELINE}`, or {UPSELL_SHARE_OF_ARR:.0%} of the ARR where none is open,"
    return "ARR"


def _due(days: int) -> str:
    return {0: "the same day", 1: "in 1 day"}.get(days, f"in {days} days")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _joined(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
