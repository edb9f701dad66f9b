"""Why a score is what it is, in sentences that a CSM can say to a customer."""

import datetime as dt

import duckdb

from scoring.config.scorecards import Component
from scoring.expressions import literal
from scoring.library import Library
from scoring.scores import create_table
from scoring.sql import render

MOST_REASONS = 3


def compute(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    *,
    scores: str = "scores.scores",
    contributions: str = "scores.contributions",
) -> None:
    """Make the temporary relation `reasons`: account_id, score, rank (1 is strongest), sentence.

    It holds the `MOST_REASONS` strongest of each score; the table `reason_lists` (account_id,
    score, sentences) has the same in a row each. Other relations with the same columns may be
    named, such as those of a few accounts.
    """
    rows = [
        (
            named.name,
            position,
            sentence_of(library, component),
            unit_of(library, component.metric),
        )
        for named in library.scorecards
        for position, component in enumerate(named.card.components)
    ]
    create_table(
        connection,
        "reason_texts",
        "scorecard VARCHAR, position INTEGER, because VARCHAR, unit VARCHAR",
        rows,
    )
    connection.execute(
        render(
            "reasons.sql",
            day=literal(day),
            most=MOST_REASONS,
            scores=scores,
            contributions=contributions,
        )
    )


def sentence_of(library: Library, component: Component) -> str:
    """A component's own sentence, or one made of its metric's label: ``Open tickets: {value}``."""
    if component.because:
        return component.because
    label = label_of(library, component.metric)
    return f"{label}: {{value}} {{unit}}".strip()


def label_of(library: Library, measure: str) -> str:
    """What people call a measure: a metric's label, with its comparison in words."""
    name, _, comparison = measure.partition(".")
    metric = library.metrics.get(name)
    label = metric.label if metric else name
    words = {
        "change": "change against the window before",
        "peer_percentile": "rank among peers",
        "percent_of_benchmark": "share of the benchmark",
    }
    return f"{label}, {words[comparison]}" if comparison else label


def unit_of(library: Library, measure: str) -> str:
    """The unit of a measure; comparisons are percentages."""
    name, _, comparison = measure.partition(".")
    if comparison:
        return "%" if comparison != "peer_percentile" else ""
    metric = library.metrics.get(name)
    return metric.unit if metric else ""
