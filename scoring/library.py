"""The library of a company: the shipped metrics, scorecards, playbooks and profiles, and its own.

A company's metric replaces the shipped one of the same name, its scorecard or playbook the shipped
one of the same file name, its `profiles.yaml` and `watermelons.yaml` the shipped ones. Everything
is checked as a whole, and every mistake is listed at once.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from contracts.company import Company
from contracts.documents import Document, Model, read_document, validate
from contracts.errors import ConfigurationError, Problem
from contracts.tables import ACCOUNTS
from scoring.config.metrics import COMPARISONS, Metric, kind_of
from scoring.config.playbooks import Playbook
from scoring.config.profiles import HardSignal, Profiles
from scoring.config.scorecards import Cap, Scorecard
from scoring.expressions import (
    DAY,
    NUMBER,
    TEXT,
    TRUTH,
    Condition,
    Interval,
    parse_condition,
)
from scoring.library_checks import HEAVIEST_COMPONENT as HEAVIEST_COMPONENT
from scoring.library_checks import MOST_COMPONENTS as MOST_COMPONENTS
from scoring.library_checks import Documents, mistakes, warnings
from scoring.playbook_checks import playbook_mistakes, without_idle

SHIPPED = Path(__file__).parent / "library"

_ACCOUNT_COLUMNS = tuple(
    name
    for name in ACCOUNTS.column_names
    if name not in ("known_at", "deleted", "merged_into", "is_customer", "crm", "crm_id", "domain",
                    "currency")
)  # fmt: skip
PROFILE = ("segment", "stage")
ACCOUNT_FACTS = (*_ACCOUNT_COLUMNS, *PROFILE)
"""What a condition may read of an account. `arr` is in the company's currency there."""

_KINDS = {"number": NUMBER, "text": TEXT, "time": DAY, "true or false": TRUTH}
FACT_KINDS = {name: _KINDS[kind_of("accounts", name)] for name in _ACCOUNT_COLUMNS}
FACT_KINDS |= dict.fromkeys(PROFILE, TEXT)

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")


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
    """Everything that decides a score, besides the data, and what is done about it.

    Playbooks are no part of `document` and `fingerprint`: they change no score.
    """

    metrics: Mapping[str, Metric]
    scorecards: tuple[NamedScorecard, ...]
    profiles: Profiles
    hard_signals: tuple[HardSignal, ...]
    use_metric: str | None
    playbooks: Mapping[str, Playbook] = field(default_factory=dict, compare=False)
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
        """A condition of this library, parsed.

        Raises:
            ValueError: "cause; remedy", where it is none.
        """
        if text not in self._conditions:
            self._conditions[text] = parse_condition(text, self.names, FACT_KINDS)
        return self._conditions[text]

    @cached_property
    def _conditions(self) -> dict[str, Condition]:
        """What was parsed so far: every scored day asks for the same."""
        return {}

    @cached_property
    def ranges(self) -> dict[str, Interval]:
        """The numbers that a name can take, where they are known."""
        ranges: dict[str, Interval] = {
            name: (ACCOUNTS.by_name[name].minimum or 0.0, float("inf"))
            for name in _ACCOUNT_COLUMNS
            if ACCOUNTS.by_name[name].minimum is not None
        }
        for name, metric in self.metrics.items():
            ranges[name] = metric.reachable_range
            if "peers" in metric.compare:
                ranges[f"{name}.{COMPARISONS['peers']}"] = (0.0, 100.0)
        return ranges

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
        if self.use_metric is None or card.family not in ("risk", "health"):
            return list(card.caps)
        upper, middle = card.edges
        limits: dict[str, float] = (
            {"at_least": middle} if card.family == "risk" else {"at_most": upper - 0.01}
        )
        if limits.get("at_least") == 0:
            return list(card.caps)  # green does not exist below a yellow that begins at 0
        guard = Cap(when=f"{self.use_metric} = 0", because="The product is not used", **limits)
        return [*card.caps, guard]

    @cached_property
    def document(self) -> str:
        """All that decides a score, as JSON: stored beside the scores that it made."""
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
        """A hash of all that decides a score."""
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
    if library is None:
        return None, reader.problems
    documents = reader.documents()
    library = without_idle(library, documents)
    problems = [
        *reader.problems,
        *mistakes(library, documents),
        *playbook_mistakes(library, documents),
    ]
    if problems:
        return None, problems
    return replace(library, warnings=tuple(sorted(warnings(library, documents)))), []


class _Reader:
    """Reads all documents once, and remembers where each thing stands for the checks."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self.problems: list[Problem] = []
        self.metric_documents: dict[str, Document] = {}
        self.card_documents: dict[str, Document] = {}
        self.playbook_documents: dict[str, Document] = {}
        self.profiles_document: Document | None = None
        self.signals_document: Document | None = None

    def read(self) -> Library | None:
        """The library as far as it can be read; None without profiles."""
        metrics = self._metrics()
        cards = self._by_file(
            "scorecards", Scorecard, self.card_documents,
            shipped=self.company.settings.library_scorecards,
        )  # fmt: skip
        playbooks = self._by_file(
            "playbooks", Playbook, self.playbook_documents,
            shipped=self.company.settings.library_playbooks,
        )  # fmt: skip
        profiles = self._profiles()
        signals = self._hard_signals()
        if profiles is None:
            return None
        return Library(
            metrics=metrics,
            scorecards=tuple(NamedScorecard(name, card) for name, card in sorted(cards.items())),
            profiles=profiles,
            hard_signals=tuple(signals),
            use_metric=self.company.settings.use_metric,
            playbooks=dict(sorted(playbooks.items())),
        )

    def documents(self) -> Documents:
        """Where everything stands."""
        assert self.profiles_document is not None
        return Documents(
            home=self.company.home,
            shipped=SHIPPED,
            metrics=self.metric_documents,
            cards=self.card_documents,
            playbooks=self.playbook_documents,
            profiles=self.profiles_document,
            signals=self.signals_document,
        )

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
            if not isinstance(document.data, dict):
                self.problems.append(
                    document.problem((), "no metrics here", "write `name: {label: ..., ...}`")
                )
                continue
            for name, body in document.data.items():
                if metric := self._metric(document, name, body):
                    metrics[name] = metric
        return metrics

    def _metric(self, document: Document, name: Any, body: Any) -> Metric | None:
        if not isinstance(name, str) or not _METRIC_NAME.fullmatch(name):
            self.problems.append(
                document.problem(
                    (name,), f"'{name}' is no metric name", "use small letters, digits and _"
                )
            )
            return None
        earlier = self.metric_documents.get(name)
        if earlier and (SHIPPED not in earlier.file.parents or SHIPPED in document.file.parents):
            where = f"{earlier.file}:{earlier.line((name,))}"
            self.problems.append(
                document.problem(
                    (name,), f"metric '{name}' stands already at {where}", "rename one"
                )
            )
        metric, problems = validate(document, Metric, data=body or {}, at=(name,))
        self.problems += problems
        self.metric_documents[name] = document
        return metric

    def _by_file(
        self, folder: str, model: type[Model], documents: dict[str, Document], *, shipped: bool
    ) -> dict[str, Model]:
        """What stands one to a file; a company's own file replaces the shipped one of its name."""
        found: dict[str, Model] = {}
        for document in self._documents(folder, shipped=shipped):
            name = document.file.stem
            earlier = documents.get(name)
            if earlier and earlier.file.parent == document.file.parent:
                what = folder.removesuffix("s")
                self.problems.append(
                    document.problem(
                        (), f"{what} '{name}' stands already at {earlier.file}:1", "rename one"
                    )
                )
            found.pop(name, None)
            read, problems = validate(document, model, data=document.data or {})
            self.problems += problems
            documents[name] = document
            if read:
                found[name] = read
        return found

    def _own_or_shipped(self, file: str) -> Document | None:
        own = self.company.home / file
        return self._document(own if own.exists() else SHIPPED / file)

    def _profiles(self) -> Profiles | None:
        self.profiles_document = document = self._own_or_shipped("profiles.yaml")
        if document is None:
            return None
        profiles, problems = validate(document, Profiles, data=document.data or {})
        self.problems += problems
        return profiles

    def _hard_signals(self) -> list[HardSignal]:
        self.signals_document = document = self._own_or_shipped("watermelons.yaml")
        if document is None or document.data is None:
            return []
        if not isinstance(document.data, list):
            self.problems.append(
                document.problem(
                    (), "no list of signals here", "write `- {when: ..., because: ...}`"
                )
            )
            return []
        signals: list[HardSignal] = []
        for index, body in enumerate(document.data):
            signal, problems = validate(document, HardSignal, data=body or {}, at=(index,))
            self.problems += problems
            if signal:
                signals.append(signal)
        return signals
