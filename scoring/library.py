"""The library of a company: the shipped metrics, scorecards and profiles, and its own over them.

A company's metric replaces the shipped one of the same name, its scorecard the shipped one of the
same file name, its `profiles.yaml` and `watermelons.yaml` the shipped ones. Everything is checked
as a whole, and every mistake is listed at once.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from contracts.company import Company
from contracts.documents import Document, nearest, read_document, validate
from contracts.errors import ConfigurationError, Problem
from contracts.tables import ACCOUNTS
from scoring.config.metrics import COMPARISONS, Metric
from scoring.config.profiles import HardSignal, Profiles
from scoring.config.scorecards import BANDS, Cap, Scorecard
from scoring.expressions import Condition, can_hold, parse_condition

SHIPPED = Path(__file__).parent / "library"
MOST_COMPONENTS = 8
HEAVIEST_COMPONENT = 40.0
MOST_OUTCOMES = 4

ACCOUNT_FACTS = tuple(
    name
    for name in ACCOUNTS.column_names
    if name not in ("known_at", "deleted", "merged_into", "crm", "crm_id", "domain", "currency")
)
"""Columns of an account that a condition may read. `arr` is in the company's currency there."""


@dataclass(frozen=True)
class NamedScorecard:
    """A scorecard and the name of its file."""

    name: str
    card: Scorecard

    @property
    def identity(self) -> str:
        """What stands on every stored score: name and version."""
        return f"{self.name} v{self.card.version}"


@dataclass(frozen=True)
class Library:
    """Everything that decides a score, besides the data."""

    metrics: Mapping[str, Metric]
    scorecards: tuple[NamedScorecard, ...]
    profiles: Profiles
    hard_signals: tuple[HardSignal, ...]
    use_metric: str | None
    warnings: tuple[Problem, ...] = field(default=(), compare=False)

    @cached_property
    def measures(self) -> dict[str, Metric]:
        """Every name that a component or a condition may read, comparisons included."""
        return measures_of(self.metrics)

    @cached_property
    def names(self) -> frozenset[str]:
        """Every name that a condition may read."""
        return frozenset(self.measures) | frozenset(ACCOUNT_FACTS)

    @property
    def scores(self) -> tuple[str, ...]:
        """The kinds of score, in the order in which people read them."""
        order = {"risk": 0, "upsell": 1}
        kinds = {named.card.score for named in self.scorecards}
        return tuple(sorted(kinds, key=lambda kind: (order.get(kind, 2), kind)))

    def condition(self, text: str) -> Condition:
        """A condition of this library, parsed."""
        return parse_condition(text, self.names)

    def resolve(
        self, *, score: str, segment: str, stage: str, outcome: str | None
    ) -> NamedScorecard | None:
        """The scorecard for a profile: the most specific one that matches, else None.

        A health score is only for the accounts that want its outcome.
        """
        matching = [
            named
            for named in self.scorecards
            if named.card.score == score
            and named.card.applies_to.matches(segment=segment, stage=stage, outcome=outcome)
            and named.card.outcome in (None, outcome)
        ]
        return max(matching, key=lambda named: named.card.applies_to.specificity, default=None)

    def caps_of(self, card: Scorecard) -> list[Cap]:
        """A scorecard's own caps, and the guard that an account without use is never green."""
        caps = list(card.caps)
        if self.use_metric is not None and card.family == "risk":
            caps.append(
                Cap(
                    when=f"{self.use_metric} = 0",
                    at_least=card.edges[1],
                    because="The product is not used",
                )
            )
        return caps

    @cached_property
    def document(self) -> str:
        """The whole library as JSON: stored beside the scores that it made."""
        return json.dumps(
            {
                "metrics": {
                    name: metric.model_dump(mode="json", by_alias=True, exclude_defaults=True)
                    for name, metric in sorted(self.metrics.items())
                },
                "scorecards": {
                    named.name: named.card.model_dump(
                        mode="json", by_alias=True, exclude_defaults=True
                    )
                    for named in self.scorecards
                },
                "profiles": self.profiles.model_dump(mode="json"),
                "hard_signals": [signal.model_dump(mode="json") for signal in self.hard_signals],
                "use_metric": self.use_metric,
            },
            sort_keys=True,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the whole library."""
        return hashlib.sha256(self.document.encode()).hexdigest()[:16]


def from_document(text: str) -> Library:
    """The library that `Library.document` wrote down."""
    data = json.loads(text)
    return Library(
        metrics={name: Metric.model_validate(body) for name, body in data["metrics"].items()},
        scorecards=tuple(
            NamedScorecard(name, Scorecard.model_validate(body))
            for name, body in data["scorecards"].items()
        ),
        profiles=Profiles.model_validate(data["profiles"]),
        hard_signals=tuple(HardSignal.model_validate(body) for body in data["hard_signals"]),
        use_metric=data["use_metric"],
    )


def measures_of(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Metric names and the names of their comparisons, such as ``active_days_28d.change``."""
    measures: dict[str, Metric] = {}
    for name, metric in metrics.items():
        measures[name] = metric
        for comparison in metric.compare:
            measures[f"{name}.{COMPARISONS[comparison]}"] = metric
    return measures


def read_library(company: Company) -> Library:
    """Read the library of a company.

    Raises:
        ConfigurationError: with every mistake in it.
    """
    library, problems = check_library(company)
    if problems or library is None:
        raise ConfigurationError(problems)
    return library


def check_library(company: Company) -> tuple[Library | None, list[Problem]]:
    """Read the library and list its mistakes; without mistakes the library comes with warnings."""
    reader = _Reader(company)
    library = reader.read()
    return (None if reader.problems else library), reader.problems


class _Reader:
    """Reads all documents once, and remembers where each thing stands for the checks."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.metric_documents: dict[str, Document] = {}
        self.card_documents: dict[str, Document] = {}

    def read(self) -> Library | None:
        metrics = self._metrics()
        cards = self._scorecards()
        profiles, profiles_document = self._profiles()
        signals, signals_document = self._hard_signals()
        if profiles is None or profiles_document is None:
            return None
        library = Library(
            metrics=metrics,
            scorecards=tuple(NamedScorecard(name, card) for name, card in sorted(cards.items())),
            profiles=profiles,
            hard_signals=tuple(signals),
            use_metric=self.company.settings.use_metric,
        )
        self._check_metrics(library)
        self._check_profiles(library, profiles_document)
        for named in library.scorecards:
            self._check_card(library, named)
        self._check_overlaps(library)
        self._check_defaults(library)
        if signals_document:
            for index, signal in enumerate(signals):
                self._condition(library, signal.when, signals_document, (index, "when"))
        return Library(
            metrics=library.metrics,
            scorecards=library.scorecards,
            profiles=library.profiles,
            hard_signals=library.hard_signals,
            use_metric=library.use_metric,
            warnings=tuple(sorted(self.warnings)),
        )

    # Reading

    def _documents(self, folder: str, *, shipped: bool = True) -> Iterable[Document]:
        roots = [SHIPPED, self.company.home] if shipped else [self.company.home]
        for root in roots:
            for file in sorted((root / folder).glob("*.y*ml")):
                if document := self._document(file):
                    yield document

    def _document(self, file: Path) -> Document | None:
        document, problems = read_document(file)
        self.problems += problems
        return document

    def _metrics(self) -> dict[str, Metric]:
        metrics: dict[str, Metric] = {}
        for document in self._documents("metrics"):
            own = SHIPPED not in document.file.parents
            if not isinstance(document.data, dict):
                self.problems.append(
                    document.problem((), "no metrics here", "write `name: {label: ..., ...}`")
                )
                continue
            for name, body in document.data.items():
                earlier = self.metric_documents.get(name)
                if earlier and (SHIPPED not in earlier.file.parents or not own):
                    where = f"{earlier.file}:{earlier.line((name,))}"
                    self.problems.append(
                        document.problem(
                            (name,), f"metric '{name}' stands already at {where}", "rename one"
                        )
                    )
                metric, problems = validate(document, Metric, data=body or {}, at=(name,))
                self.problems += problems
                self.metric_documents[name] = document
                if metric:
                    metrics[name] = metric
        return metrics

    def _scorecards(self) -> dict[str, Scorecard]:
        cards: dict[str, Scorecard] = {}
        shipped = self.company.settings.library_scorecards
        for document in self._documents("scorecards", shipped=shipped):
            name = document.file.stem
            cards.pop(name, None)
            card, problems = validate(document, Scorecard, data=document.data or {})
            self.problems += problems
            self.card_documents[name] = document
            if card:
                cards[name] = card
        return cards

    def _own_or_shipped(self, file: str) -> Document | None:
        own = self.company.home / file
        return self._document(own if own.exists() else SHIPPED / file)

    def _profiles(self) -> tuple[Profiles | None, Document | None]:
        document = self._own_or_shipped("profiles.yaml")
        if document is None:
            return None, None
        profiles, problems = validate(document, Profiles, data=document.data or {})
        self.problems += problems
        return profiles, document

    def _hard_signals(self) -> tuple[list[HardSignal], Document | None]:
        document = self._own_or_shipped("watermelons.yaml")
        signals: list[HardSignal] = []
        for index, body in enumerate((document and document.data) or []):
            assert document is not None
            signal, problems = validate(document, HardSignal, data=body, at=(index,))
            self.problems += problems
            if signal:
                signals.append(signal)
        return signals, document

    # Checking what only the whole can tell

    def _condition(
        self, library: Library, text: str, document: Document, location: tuple[Any, ...]
    ) -> Condition | None:
        try:
            return library.condition(text)
        except ValueError as error:
            cause, _, remedy = str(error).partition("; ")
            self.problems.append(document.problem(location, cause, remedy))
            return None

    def _check_metrics(self, library: Library) -> None:
        for name, metric in library.metrics.items():
            document = self.metric_documents[name]
            if not isinstance(name, str) or not name.isidentifier():
                self.problems.append(
                    document.problem(
                        (name,), f"'{name}' is no metric name", "use letters, digits and _"
                    )
                )
            if name in ACCOUNT_FACTS:
                self.problems.append(
                    document.problem(
                        (name,), f"metric '{name}' is also a column of accounts", "rename it"
                    )
                )
            if metric.ratio:
                for part in ("of", "to"):
                    base = getattr(metric.ratio, part)
                    if base not in library.metrics or library.metrics[base].ratio:
                        aggregated = [n for n, m in library.metrics.items() if not m.ratio]
                        self.problems.append(
                            document.problem(
                                (name, "ratio", part),
                                f"unknown metric '{base}' in a ratio",
                                nearest(base, aggregated),
                            )
                        )
        use = library.use_metric
        if use is not None and use not in library.metrics:
            self.problems.append(
                Problem(
                    self.company.home / "company.yaml",
                    1,
                    f"use_metric '{use}' is no metric",
                    nearest(use, library.metrics),
                )
            )

    def _check_profiles(self, library: Library, document: Document) -> None:
        for part in ("segments", "stages"):
            for index, rule in enumerate(getattr(library.profiles, part)):
                if rule.when is None:
                    continue
                location = (part, index, "when")
                condition = self._condition(library, rule.when, document, location)
                peers = [n for n in (condition.names if condition else ()) if "." in n]
                if peers:
                    self.problems.append(
                        document.problem(
                            location,
                            f"a profile cannot depend on '{peers[0]}'",
                            "use the metric itself; comparisons come after the profile",
                        )
                    )

    def _check_card(self, library: Library, named: NamedScorecard) -> None:
        card, document = named.card, self.card_documents[named.name]
        self._check_weights(card, document)
        self._check_bands(card, document)
        for index, component in enumerate(card.components):
            if component.metric not in library.measures:
                self.problems.append(
                    document.problem(
                        ("components", index, "metric"),
                        f"unknown metric '{component.metric}'",
                        nearest(component.metric, library.measures),
                    )
                )
        ranges = {name: metric.possible_range for name, metric in library.metrics.items()}
        for index, cap in enumerate(card.caps):
            location = ("caps", index, "when")
            condition = self._condition(library, cap.when, document, location)
            if condition and not can_hold(condition, ranges):
                self.problems.append(
                    document.problem(
                        location,
                        f"the cap can never fire: '{cap.when}' is outside the metric's range",
                        "correct the condition or remove the cap",
                    )
                )
        self._warn_card(library, named, document)

    def _check_weights(self, card: Scorecard, document: Document) -> None:
        total = sum(pillar.weight for pillar in card.pillars.values())
        if abs(total - 100) > 1e-6:
            self.problems.append(
                document.problem(
                    ("pillars",),
                    f"the pillars' weights sum to {total:g}",
                    "make them sum to 100",
                )
            )
        for index, component in enumerate(card.components):
            if component.pillar not in card.pillars:
                self.problems.append(
                    document.problem(
                        ("components", index, "pillar"),
                        f"unknown pillar '{component.pillar}'",
                        nearest(component.pillar, card.pillars),
                    )
                )
        for name, pillar in card.pillars.items():
            inside = sum(c.weight for c in card.components if c.pillar == name)
            if abs(inside - pillar.weight) > 1e-6:
                self.problems.append(
                    document.problem(
                        ("pillars", name),
                        f"the components of pillar '{name}' weigh {inside:g}, "
                        f"the pillar {pillar.weight:g}",
                        "make both the same",
                    )
                )

    def _check_bands(self, card: Scorecard, document: Document) -> None:
        upper, middle, lower = BANDS[card.family]
        if set(card.bands) != {upper, middle}:
            self.problems.append(
                document.problem(
                    ("bands",),
                    f"the bands of a {card.family} score are {upper} and {middle}",
                    f"write `bands: {{{upper}: 70, {middle}: 40}}`; {lower} is below",
                )
            )
        elif card.bands[upper] <= card.bands[middle]:
            self.problems.append(
                document.problem(
                    ("bands", upper),
                    f"bands are out of order: {upper} begins at {card.bands[upper]:g}, "
                    f"{middle} at {card.bands[middle]:g}",
                    f"{upper} must begin above {middle}",
                )
            )

    def _warn_card(self, library: Library, named: NamedScorecard, document: Document) -> None:
        card = named.card
        if len(card.components) > MOST_COMPONENTS:
            self.warnings.append(
                document.problem(
                    ("components",),
                    f"{len(card.components)} components",
                    f"few metrics first: more than {MOST_COMPONENTS} are hard to trust",
                )
            )
        for index, component in enumerate(card.components):
            if component.weight > HEAVIEST_COMPONENT:
                self.warnings.append(
                    document.problem(
                        ("components", index, "weight"),
                        f"{component.metric} alone is {component.weight:g} % of the score",
                        f"no component should weigh above {HEAVIEST_COMPONENT:g} %",
                    )
                )
        if card.family in ("risk", "health") and card.leading_pillar_share < 0.5:
            self.warnings.append(
                document.problem(
                    ("pillars",),
                    f"the pillar 'proactive' weighs {card.leading_pillar_share:.0%}",
                    "value moments and goals should be at least half of a score",
                )
            )
        for what, rules in (
            ("segment", library.profiles.segments),
            ("stage", library.profiles.stages),
        ):
            known = [rule.name for rule in rules]
            for name in getattr(card.applies_to, what):
                if name not in known:
                    own = SHIPPED not in document.file.parents
                    (self.problems if own else self.warnings).append(
                        document.problem(
                            ("applies_to", what), f"unknown {what} '{name}'", nearest(name, known)
                        )
                    )

    def _check_overlaps(self, library: Library) -> None:
        cards = library.scorecards
        for position, one in enumerate(cards):
            for other in cards[position + 1 :]:
                mine, theirs = one.card.applies_to, other.card.applies_to
                if (
                    one.card.score == other.card.score
                    and mine.specificity == theirs.specificity
                    and mine.overlaps(theirs)
                ):
                    document = self.card_documents[other.name]
                    self.problems.append(
                        document.problem(
                            ("applies_to",),
                            f"'{other.name}' and '{one.name}' are for the same profile",
                            "make one more specific, or name different segments or stages",
                        )
                    )

    def _check_defaults(self, library: Library) -> None:
        for score in library.scores:
            if score.startswith("health:"):
                continue
            cards = [named for named in library.scorecards if named.card.score == score]
            if all(named.card.applies_to.specificity for named in cards):
                document = self.card_documents[cards[0].name]
                self.problems.append(
                    document.problem(
                        ("applies_to",),
                        f"there is no default scorecard for {score}",
                        "add one without `applies_to`",
                    )
                )
        outcomes = [score for score in library.scores if score.startswith("health:")]
        if len(outcomes) > MOST_OUTCOMES:
            self.warnings.append(
                Problem(
                    self.company.home / "scorecards",
                    1,
                    f"{len(outcomes)} desired outcomes have a score",
                    f"more than {MOST_OUTCOMES} are hard to keep apart",
                )
            )
