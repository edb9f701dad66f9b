"""Did the scores point the right way? A first look back, over everything that a company has scored.

    python -m examples.evaluate --home HOME

For each month-end: how many accounts were scored, how much was known of them, their bands, and the
AUC of risk against churn, and of upsell against a larger MRR, in the 90 days that followed. The AUC
is the chance that of two accounts, one to which it happened and one to which it did not, the first
had the higher score; 0.5 is a coin. Beside it stand two rivals that need no scorecard, on the same
accounts, with directions fixed before anybody looked:

- total use of the last 28 days: little use means risk, much use means upsell;
- days to renewal: the nearer, the more of both; an account without a renewal date comes last.

Intervals are 95 % bootstrap intervals that draw whole accounts, so that in the pooled figures the
months of one account do not count as independent. Months whose 90 days are not over are left out.
"""

import argparse
import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from contracts.company import Company, read_company
from contracts.errors import HealthloopError, NotFoundError
from orchestration.resources import warehouse_of

HORIZON_DAYS = 90
FEWEST_EVENTS = 10
"""With fewer accounts on one side no AUC is given: its interval would span almost everything."""

RESAMPLES = 1000
SEED = 7
SCORE, USAGE, RENEWAL = "score", "use of 28 days", "days to renewal"
QUESTIONS = {"risk": "churn", "upsell": "a larger MRR"}
_BATCH = 2_000_000  # weights held at once, so that pooled years need no more memory than a month

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Sample:
    """Scored accounts of one kind of score: one element for each account and day in every array.

    `happened` means nothing where the days after it are not over (`complete` is false).
    """

    days: NDArray[np.object_]
    accounts: NDArray[np.int64]
    bands: NDArray[np.object_]
    segments: NDArray[np.object_]
    stages: NDArray[np.object_]
    coverage: Floats
    happened: Truths
    complete: Truths
    predictors: Mapping[str, Floats]

    def where(self, rows: Truths) -> "Sample":
        """The part for which `rows` is true."""
        return Sample(
            self.days[rows], self.accounts[rows], self.bands[rows], self.segments[rows],
            self.stages[rows], self.coverage[rows], self.happened[rows], self.complete[rows],
            {name: values[rows] for name, values in self.predictors.items()},
        )  # fmt: skip


def auc(happened: Truths, values: Floats, weights: Floats | None = None) -> Floats:
    """The area under the ROC curve, ties counted half, once for each row of weights.

    Of the pairs (2 over 1), (2 over 3), (3 over 1) and (3 over 3), two are right, one is wrong and
    one is a tie: 2.5 of 4.

    >>> auc(np.array([True, True, False, False]), np.array([2.0, 3.0, 1.0, 3.0]))
    array([0.625])
    """
    order = np.argsort(values, kind="stable")
    values, happened = values[order], happened[order]
    weighed = np.ones((1, len(order))) if weights is None else weights[:, order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    with_event = np.add.reduceat(weighed * happened, starts, axis=1)
    without = np.add.reduceat(weighed * ~happened, starts, axis=1)
    below = np.cumsum(without, axis=1) - without
    right = (with_event * (below + without / 2)).sum(axis=1)
    pairs = with_event.sum(axis=1) * without.sum(axis=1)
    result: Floats = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return result


def estimates(
    happened: Truths, predictors: Mapping[str, Floats], clusters: NDArray[np.int64]
) -> dict[str, Estimate]:
    """The AUC of each predictor with its interval, and ``score - rival`` for each rival.

    All are computed on the same draws of whole clusters (accounts), so differences are paired.
    Empty where the event, or its absence, is too rare (`FEWEST_EVENTS`).
    """
    if min(happened.sum(), (~happened).sum()) < FEWEST_EVENTS:
        return {}
    drawn: dict[str, list[Floats]] = {name: [] for name in predictors}
    for weights in _draws(clusters):
        for name, values in predictors.items():
            drawn[name].append(auc(happened, values, weights))
    points = {name: float(auc(happened, values)[0]) for name, values in predictors.items()}
    draws = {name: np.concatenate(parts) for name, parts in drawn.items()}
    found = {name: _estimate(points[name], draws[name]) for name in predictors}
    for rival in [name for name in predictors if name != SCORE]:
        difference = points[SCORE] - points[rival]
        found[f"{SCORE} - {rival}"] = _estimate(difference, draws[SCORE] - draws[rival])
    return found


def _draws(clusters: NDArray[np.int64]) -> Iterator[Floats]:
    """How often each element counts, in batches of resamples; the same on every call."""
    random = np.random.default_rng(SEED)
    _, codes = np.unique(clusters, return_inverse=True)
    count = int(codes.max()) + 1
    batch = max(1, _BATCH // len(codes))
    for first in range(0, RESAMPLES, batch):
        size = min(batch, RESAMPLES - first)
        times = random.multinomial(count, np.full(count, 1 / count), size=size)
        yield times[:, codes].astype(float)


def _estimate(value: float, draws: Floats) -> Estimate:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


_SAMPLE = """
WITH ends AS (
    SELECT DISTINCT as_of FROM scores.scores
    WHERE as_of = last_day(as_of) OR as_of = (SELECT max(as_of) FROM scores.scores)
),
scored AS (
    SELECT s.* FROM scores.scores AS s JOIN ends USING (as_of)
    WHERE s.score = $score AND s.value IS NOT NULL
),
happened AS (
    SELECT
        s.as_of, s.account_id,
        count(*) FILTER (WHERE o.kind = 'churned') > 0 AS churned,
        -- Where nobody wrote down by how much the price changed, the direction counts.
        sum(coalesce(o.mrr_delta, CASE o.kind WHEN 'expanded' THEN 1 ELSE -1 END))
            FILTER (WHERE o.kind IN ('expanded', 'contracted')) > 0 AS larger
    FROM scored AS s
    JOIN signals.outcomes AS o
        ON o.account_id = s.account_id AND o.day > s.as_of AND o.day <= s.as_of + $horizon
    WHERE o.superseded_at IS NULL AND o.deleted IS NOT TRUE
    GROUP BY s.as_of, s.account_id
),
rivals AS (
    SELECT
        as_of, account_id,
        max(value) FILTER (WHERE metric = 'usage_events_28d') AS usage,
        max(value) FILTER (WHERE metric = 'days_to_renewal') AS renewal
    FROM metrics.metric_values
    WHERE metric IN ('usage_events_28d', 'days_to_renewal')
    GROUP BY as_of, account_id
)
SELECT
    s.as_of AS day,
    dense_rank() OVER (ORDER BY s.account_id) AS account,
    s.band,
    s.segment,
    s.stage,
    s.coverage,
    s.value::DOUBLE AS value,
    s.as_of + $horizon <= $until AS complete,
    CASE $score
        WHEN 'risk' THEN coalesce(h.churned, false)
        ELSE coalesce(h.larger AND NOT h.churned, false)
    END AS happened,
    coalesce(r.usage, 0) AS usage,
    coalesce(r.renewal, 1e9) AS renewal
FROM scored AS s
LEFT JOIN happened AS h USING (as_of, account_id)
LEFT JOIN rivals AS r USING (as_of, account_id)
ORDER BY day, account
"""


def read_sample(connection: duckdb.DuckDBPyConnection, score: str, until: dt.date) -> Sample:
    """All month-ends (and the last scored day) of one kind of score.

    Args:
        connection: To the company's warehouse.
        score: ``risk`` or ``upsell``.
        until: The last day whose outcomes are known.

    Raises:
        NotFoundError: nothing of this kind is scored.
    """
    parameters = {"score": score, "horizon": HORIZON_DAYS, "until": until}
    rows = connection.execute(_SAMPLE, parameters).fetchall()
    if not rows:
        raise NotFoundError(f"no {score} is scored", "run `healthloop run --every month-end` first")
    (day, account, band, segment, stage, coverage, value, complete, happened, usage,
     renewal) = zip(*rows, strict=True)  # fmt: skip
    sign = 1.0 if score == "upsell" else -1.0
    return Sample(
        days=np.array(day, dtype=object),
        accounts=np.array(account),
        bands=np.array(band, dtype=object),
        segments=np.array(segment, dtype=object),
        stages=np.array(stage, dtype=object),
        coverage=np.array(coverage, dtype=float),
        happened=np.array(happened, dtype=bool),
        complete=np.array(complete, dtype=bool),
        predictors={
            SCORE: np.array(value, dtype=float),
            USAGE: sign * np.array(usage, dtype=float),
            RENEWAL: -np.array(renewal, dtype=float),
        },
    )


def without_empty_rivals(sample: Sample) -> Sample:
    """The sample without predictors that say the same of every account: no renewal is dated."""
    speaking = {
        name: values
        for name, values in sample.predictors.items()
        if name == SCORE or len(np.unique(values)) > 1
    }
    return replace(sample, predictors=speaking)


def known_until(connection: duckdb.DuckDBPyConnection, company: Company) -> dt.date:
    """The last day whose outcomes are known: the pinned `today`, else the newest outcome's day."""
    if company.settings.today is not None:
        return company.settings.today
    (newest,) = connection.execute("SELECT max(day) FROM signals.outcomes").fetchone() or (None,)
    if newest is None:
        raise NotFoundError("no outcome is known", "map one, in sources/<name>/outcomes.sql")
    return dt.date.fromisoformat(str(newest))


BANDS = {"risk": ("red", "yellow", "green", "unknown"),
         "upsell": ("ready", "possible", "none", "unknown")}  # fmt: skip


def monthly_table(score: str, sample: Sample) -> Iterator[str]:
    """Lines of a markdown table, one row for each month-end."""
    bands = BANDS[score]
    names = list(sample.predictors)
    head = ["as of", "accounts", "coverage", *bands, "events", *names]
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'--:|' * (len(head) - 1)}"
    for day in sorted(set(sample.days)):
        month = sample.where(sample.days == day)
        counts = [f"{int((month.bands == band).sum()):,}" for band in bands]
        cells = [str(day), f"{len(month.days):,}", f"{month.coverage.mean():.2f}", *counts]
        if month.complete.all():
            found = estimates(month.happened, month.predictors, month.accounts)
            cells += [f"{int(month.happened.sum()):,}"]
            cells += [str(found[name]) if found else "too few" for name in names]
        else:
            cells += ["not over", *["" for _ in names]]
        yield f"| {' | '.join(cells)} |"


def pooled_table(sample: Sample) -> Iterator[str]:
    """Lines of a markdown table: all complete months together, and parts of them.

    The parts say whether a figure comes from telling accounts apart, or only segments and stages.
    """
    parts = {
        "all": np.ones(len(sample.days), dtype=bool),
        "band known": sample.bands != "unknown",
        **{f"segment {name}": sample.segments == name for name in sorted(set(sample.segments))},
        **{f"stage {name}": sample.stages == name for name in sorted(set(sample.stages))},
    }
    rivals = [name for name in sample.predictors if name != SCORE]
    names = [*sample.predictors, *(f"{SCORE} - {rival}" for rival in rivals)]
    yield f"| pooled | account-months | events | {' | '.join(names)} |"
    yield f"|---|--:|--:|{'--:|' * len(names)}"
    for part, rows in parts.items():
        chosen = sample.where(rows)
        found = estimates(chosen.happened, chosen.predictors, chosen.accounts)
        cells = [f"{len(chosen.days):,}", f"{int(chosen.happened.sum()):,}"]
        cells += [str(found[name]) if found else "too few" for name in names]
        yield f"| {part} | {' | '.join(cells)} |"


def band_table(score: str, sample: Sample) -> Iterator[str]:
    """Lines of a markdown table: how often it happened to accounts of each band."""
    yield "| band | account-months | share of them to which it happened |"
    yield "|---|--:|--:|"
    for band in BANDS[score]:
        rows = sample.bands == band
        share = f"{sample.happened[rows].mean():.1%}" if rows.any() else ""
        yield f"| {band} | {int(rows.sum()):,} | {share} |"


def report(company: Company) -> Iterator[str]:
    """The whole page, line by line, in markdown."""
    with warehouse_of(company, read_only=True).get_connection() as connection:
        until = known_until(connection, company)
        samples = {score: read_sample(connection, score, until) for score in QUESTIONS}
    yield f"# {company.settings.name}"
    yield ""
    yield (
        "This is association on past data, and where the data is simulated it says nothing about "
        "real customers. It does not show that acting on a score changes anything."
    )
    for score, question in QUESTIONS.items():
        sample = without_empty_rivals(samples[score])
        complete = sample.where(sample.complete)
        yield ""
        yield f"## {score.capitalize()} against {question} within {HORIZON_DAYS} days"
        yield ""
        yield f"Outcomes are known until {until}. AUC with its 95 % interval."
        yield ""
        yield from monthly_table(score, sample)
        if len(complete.days):
            yield ""
            yield from pooled_table(complete)
            yield ""
            yield from band_table(score, complete)


def main() -> None:
    """Print the page for the company folder that `--home` names."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m examples.evaluate", description=summary)
    parser.add_argument("--home", type=Path, required=True, help="the company folder")
    arguments = parser.parse_args()
    try:
        for line in report(read_company(arguments.home)):
            print(line, flush=True)
    except HealthloopError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
