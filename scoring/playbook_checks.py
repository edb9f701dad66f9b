"""What only the whole library can tell of a playbook: scores, metrics and profiles it lacks.

A shipped playbook that this company has no use for (it sells without an upsell scorecard, or has
other stages) is left out; the same in a company's own playbook is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from contracts.documents import Document, Location, nearest
from contracts.errors import Problem
from scoring import templates
from scoring.config.playbooks import Playbook
from scoring.expressions import NUMBER, can_hold
from scoring.library_checks import Documents, parsed, unknown_profiles

if TYPE_CHECKING:
    from scoring.library import Library

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")


def without_idle(library: Library, documents: Documents) -> Library:
    """The library without the shipped playbooks that could never fire in it."""
    return replace(
        library,
        playbooks={
            name: playbook
            for name, playbook in library.playbooks.items()
            if not documents.is_shipped(documents.playbooks[name]) or _can_fire(library, playbook)
        },
    )


def playbook_mistakes(library: Library, documents: Documents) -> Iterator[Problem]:
    """Everything that is wrong with the playbooks of a library."""
    for name, document in documents.playbooks.items():
        if not _NAME.fullmatch(name):
            yield document.problem(
                (), f"'{name}' is no playbook name", "name the file in small letters, digits and -"
            )
    for name, playbook in library.playbooks.items():
        document = documents.playbooks[name]
        yield from _trigger(library, documents, document, playbook)
        if not documents.is_shipped(document):
            yield from unknown_profiles(library, document, playbook.audience, "audience")
        yield from _value(library, documents, document, playbook)
        yield from _texts(library, documents, document, playbook)


def _can_fire(library: Library, playbook: Playbook) -> bool:
    profiles = library.profiles
    return (
        (playbook.trigger.score is None or playbook.trigger.score in library.scores)
        and all(
            not names or {rule.name for rule in rules} & set(names)
            for names, rules in (
                (playbook.audience.segment, profiles.segments),
                (playbook.audience.stage, profiles.stages),
            )
        )
        and (
            not playbook.trigger.driver
            or bool(set(playbook.trigger.driver) & _drivers(library, playbook.trigger.score))
        )
    )


def _drivers(library: Library, score: str | None) -> set[str]:
    """Every metric that a scorecard of a score weighs, or that one of its caps reads."""
    names: set[str] = set()
    for named in library.scorecards:
        if named.card.score == score:
            names |= {component.metric for component in named.card.components}
            for cap in named.card.caps:
                try:
                    names |= library.condition(cap.when).names
                except ValueError:  # told as the scorecard's mistake
                    continue
    return names


def _trigger(
    library: Library, documents: Documents, document: Document, playbook: Playbook
) -> Iterator[Problem]:
    trigger = playbook.trigger
    unread = documents.unread(library)
    cards_unread = set(documents.cards) - {named.name for named in library.scorecards}
    if trigger.score and trigger.score not in library.scores and not cards_unread:
        yield document.problem(
            ("trigger", "score"),
            f"no scorecard makes the score '{trigger.score}'",
            nearest(trigger.score, library.scores),
        )
    elif trigger.score and not cards_unread and not documents.is_shipped(document):
        known = _drivers(library, trigger.score) & library.measures.keys()
        for name in trigger.driver:
            if name not in known | unread:
                yield document.problem(
                    ("trigger", "driver"),
                    f"no scorecard of {trigger.score} reads '{name}'",
                    nearest(name, known),
                )
    for location, text in (
        (("trigger", "when"), trigger.when),
        (("clears_when",), playbook.clears_when),
    ):
        if text is None:
            continue
        condition, problems = parsed(library, documents, text, document, location)
        yield from problems
        if condition and not can_hold(condition, library.ranges):
            yield document.problem(
                location,
                f"'{text}' can never hold: it is outside the metric's range",
                "correct the condition",
            )


def _value(
    library: Library, documents: Documents, document: Document, playbook: Playbook
) -> Iterator[Problem]:
    from scoring.library import FACT_KINDS

    numbers = {name for name, kind in FACT_KINDS.items() if kind == NUMBER}
    known = numbers | library.measures.keys()
    name = playbook.value_at_risk
    if name is not None and name not in known | documents.unread(library):
        yield document.problem(
            ("value_at_risk",), f"'{name}' is no number of an account", nearest(name, known)
        )


def _texts(
    library: Library, documents: Documents, document: Document, playbook: Playbook
) -> Iterator[Problem]:
    names = templates.names_of(library.measures.keys() | documents.unread(library))
    texts: list[tuple[Location, str]] = []
    for index, task in enumerate(playbook.tasks):
        texts.append((("tasks", index, "subject"), task.subject))
        texts += [(("tasks", index, "steps", n), step) for n, step in enumerate(task.steps)]
    for location, text in texts:
        for cause, remedy in templates.mistakes(text, names):
            yield document.problem(location, cause, remedy)
