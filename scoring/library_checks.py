"""What only the whole library can tell: names that do not exist, weights, overlaps, idle caps.

Every function yields problems; none stops at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.documents import Document, nearest, read_document
from contracts.errors import Problem
from scoring.config.metrics import COMPARISONS, Metric
from scoring.config.scorecards import BANDS, AppliesTo, Scorecard
from scoring.expressions import Condition, can_hold, parse_condition

if TYPE_CHECKING:
    from scoring.library import Library, NamedScorecard

MOST_COMPONENTS = 8
HEAVIEST_COMPONENT = 40.0
MOST_OUTCOMES = 4


@dataclass(frozen=True)
class Documents:
    """Where the parts of a library stand: the document of each metric, scorecard and playbook."""

    home: Path
    shipped: Path
    metrics: Mapping[str, Document]
    cards: Mapping[str, Document]
    playbooks: Mapping[str, Document]
    profiles: Document
    signals: Document | None

    def unread(self, library: Library) -> frozenset[str]:
        """Names of metrics that have mistakes of their own: naming them is not another mistake."""
        names = set(self.metrics) - set(library.metrics)
        return frozenset(
            names | {f"{name}.{end}" for name in names for end in COMPARISONS.values()}
        )

    def is_shipped(self, document: Document) -> bool:
        """Whether a document came with Healthloop."""
        return self.shipped in document.file.parents


def mistakes(library: Library, documents: Documents) -> Iterator[Problem]:
    """Everything that is wrong with a library as a whole."""
    for name, metric in library.metrics.items():
        yield from _metric(library, documents, name, metric)
    yield from _use_metric(library, documents)
    yield from _profiles(library, documents)
    for named in library.scorecards:
        yield from _card(library, documents.cards[named.name], named.card, documents)
    yield from _overlaps(library, documents)
    yield from _defaults(library, documents)
    for index, signal in enumerate(library.hard_signals):
        if documents.signals:
            _, problems = parsed(
                library, documents, signal.when, documents.signals, (index, "when")
            )
            yield from problems


def warnings(library: Library, documents: Documents) -> Iterator[Problem]:
    """What is allowed, but seldom wise."""
    for named in library.scorecards:
        document = documents.cards[named.name]
        yield from _unwise(named, document)
        if documents.is_shipped(document):
            yield from unknown_profiles(library, document, named.card.applies_to)
    outcomes = [score for score in library.scores if score.startswith("health:")]
    if len(outcomes) > MOST_OUTCOMES:
        yield Problem(
            documents.home / "scorecards",
            1,
            f"{len(outcomes)} desired outcomes have a score",
            f"more than {MOST_OUTCOMES} are hard to keep apart",
        )


def parsed(
    library: Library,
    documents: Documents,
    text: str,
    document: Document,
    location: tuple[Any, ...],
) -> tuple[Condition | None, list[Problem]]:
    """A condition, or the problem that it is none."""
    from scoring.library import FACT_KINDS

    try:
        names = library.names | documents.unread(library)
        return parse_condition(text, names, FACT_KINDS), []
    except ValueError as error:
        cause, _, remedy = str(error).rpartition("; ")
        return None, [document.problem(location, cause, remedy)]


def _metric(library: Library, documents: Documents, name: str, metric: Metric) -> Iterator[Problem]:
    from scoring.library import ACCOUNT_FACTS

    document = documents.metrics[name]
    if name in ACCOUNT_FACTS:
        yield document.problem(
            (name,), f"metric '{name}' is also a column of accounts", "rename it"
        )
    if metric.ratio:
        yield from _ratio(library, document, name, metric, documents.unread(library))
    if isinstance(metric.benchmark, dict):
        known = [rule.name for rule in library.profiles.segments]
        for segment in metric.benchmark:
            if segment not in known:
                yield document.problem(
                    (name, "benchmark", segment),
                    f"unknown segment '{segment}'",
                    nearest(segment, known),
                )


def _ratio(
    library: Library, document: Document, name: str, metric: Metric, unread: frozenset[str]
) -> Iterator[Problem]:
    aggregated = [other for other, body in library.metrics.items() if not body.ratio]
    for part in ("of", "to"):
        base = getattr(metric.ratio, part)
        if base in unread:
            continue
        if base not in aggregated:
            yield document.problem(
                (name, "ratio", part),
                f"unknown metric '{base}' in a ratio",
                nearest(base, aggregated),
            )
        elif "previous_window" in metric.compare and not library.metrics[base].window:
            yield document.problem(
                (name, "compare"),
                f"previous_window needs a window, and '{base}' has none",
                f"add a window to '{base}' or remove previous_window",
            )


def _use_metric(library: Library, documents: Documents) -> Iterator[Problem]:
    use = library.use_metric
    if use is not None and use not in documents.metrics:
        file = documents.home / "company.yaml"
        document = read_document(file)[0] if file.is_file() else None
        line = document.line(("use_metric",)) if document else 1
        yield Problem(file, line, f"use_metric '{use}' is no metric", nearest(use, library.metrics))


def _profiles(library: Library, documents: Documents) -> Iterator[Problem]:
    from scoring.library import PROFILE

    document = documents.profiles
    for part in ("segments", "stages"):
        for index, rule in enumerate(getattr(library.profiles, part)):
            if rule.when is None:
                continue
            location = (part, index, "when")
            condition, problems = parsed(library, documents, rule.when, document, location)
            yield from problems
            for name in sorted(condition.names if condition else ()):
                if name in PROFILE:
                    yield document.problem(
                        location,
                        f"a profile cannot depend on '{name}'",
                        "use what the rule for it uses; profiles come first",
                    )
                if "." in name:
                    yield document.problem(
                        location,
                        f"a profile cannot depend on '{name}'",
                        "use the metric itself; comparisons come after the profile",
                    )


def _card(
    library: Library, document: Document, card: Scorecard, documents: Documents
) -> Iterator[Problem]:
    yield from _weights(card, document)
    yield from _bands(card, document)
    for index, component in enumerate(card.components):
        if component.metric not in library.measures.keys() | documents.unread(library):
            yield document.problem(
                ("components", index, "metric"),
                f"unknown metric '{component.metric}'",
                nearest(component.metric, library.measures),
            )
    for index, cap in enumerate(card.caps):
        location = ("caps", index, "when")
        condition, problems = parsed(library, documents, cap.when, document, location)
        yield from problems
        if condition and not can_hold(condition, library.ranges):
            yield document.problem(
                location,
                f"the cap can never fire: '{cap.when}' is outside the metric's range",
                "correct the condition or remove the cap",
            )
    if not documents.is_shipped(document):
        yield from unknown_profiles(library, document, card.applies_to)


def _weights(card: Scorecard, document: Document) -> Iterator[Problem]:
    total = sum(pillar.weight for pillar in card.pillars.values())
    if abs(total - 100) > 1e-6:
        yield document.problem(
            ("pillars",), f"the pillars' weights sum to {total:g}", "make them sum to 100"
        )
    for index, component in enumerate(card.components):
        if component.pillar not in card.pillars:
            yield document.problem(
                ("components", index, "pillar"),
                f"unknown pillar '{component.pillar}'",
                nearest(component.pillar, card.pillars),
            )
    for name, pillar in card.pillars.items():
        inside = sum(c.weight for c in card.components if c.pillar == name)
        if abs(inside - pillar.weight) > 1e-6:
            yield document.problem(
                ("pillars", name),
                f"the components of pillar '{name}' weigh {inside:g}, the pillar {pillar.weight:g}",
                "make both the same",
            )


def _bands(card: Scorecard, document: Document) -> Iterator[Problem]:
    upper, middle, lower = BANDS[card.family]
    if set(card.bands) != {upper, middle}:
        yield document.problem(
            ("bands",),
            f"the bands of a {card.family} score are {upper} and {middle}",
            f"write `bands: {{{upper}: 70, {middle}: 40}}`; {lower} is below",
        )
    elif card.bands[upper] <= card.bands[middle]:
        yield document.problem(
            ("bands", upper),
            f"bands are out of order: {upper} begins at {card.bands[upper]:g}, "
            f"{middle} at {card.bands[middle]:g}",
            f"{upper} must begin above {middle}",
        )


def unknown_profiles(
    library: Library, document: Document, meant: AppliesTo, at: str = "applies_to"
) -> Iterator[Problem]:
    """Segments and stages that stand at `at` and that no rule makes."""
    profiles = library.profiles
    for what, rules in (("segment", profiles.segments), ("stage", profiles.stages)):
        known = [rule.name for rule in rules]
        for name in getattr(meant, what):
            if name not in known:
                yield document.problem((at, what), f"unknown {what} '{name}'", nearest(name, known))


def _overlaps(library: Library, documents: Documents) -> Iterator[Problem]:
    for one, other in combinations(library.scorecards, 2):
        mine, theirs = one.card.applies_to, other.card.applies_to
        if (
            one.card.score == other.card.score
            and mine.specificity == theirs.specificity
            and mine.overlaps(theirs)
        ):
            yield documents.cards[other.name].problem(
                ("applies_to",),
                f"'{other.name}' and '{one.name}' are for the same profile",
                "make one more specific, or name different segments or stages",
            )


def _defaults(library: Library, documents: Documents) -> Iterator[Problem]:
    if not documents.cards:
        yield Problem(
            documents.home / "scorecards",
            1,
            "there is no scorecard",
            "add one, or set `library_scorecards: true` in company.yaml",
        )
    for score in library.scores:
        cards = [named for named in library.scorecards if named.card.score == score]
        # These are for some accounts only: those that want the outcome, those that are new.
        if score.startswith("health:") or score == "handoff":
            continue
        if all(named.card.applies_to.specificity for named in cards):
            yield documents.cards[cards[0].name].problem(
                ("applies_to",),
                f"there is no default scorecard for {score}",
                "add one without `applies_to`",
            )


def _unwise(named: NamedScorecard, document: Document) -> Iterator[Problem]:
    card = named.card
    if len(card.components) > MOST_COMPONENTS:
        yield document.problem(
            ("components",),
            f"{len(card.components)} components",
            f"few metrics first: more than {MOST_COMPONENTS} are hard to trust",
        )
    for index, component in enumerate(card.components):
        if component.weight > HEAVIEST_COMPONENT:
            yield document.problem(
                ("components", index, "weight"),
                f"{component.metric} alone is {component.weight:g} % of the score",
                f"no component should weigh above {HEAVIEST_COMPONENT:g} %",
            )
    if card.family in ("risk", "health") and card.leading_pillar_share < 0.5:
        yield document.problem(
            ("pillars",),
            f"the pillar 'proactive' weighs {card.leading_pillar_share:.0%}",
            "value moments and goals should be at least half of a score",
        )
