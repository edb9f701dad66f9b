"""At which accounts the trigger of a playbook holds on a day.

A trigger is three-valued. A metric that is stale, suspect or corrupt, or a score that a broken pipe
hides, makes it *undetermined*: that opens no task, closes none, and neither counts towards
`for_days` nor against it.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from scoring.config.playbooks import Playbook
from scoring.config.scorecards import BANDS
from scoring.expressions import Condition, identifier, literal
from scoring.library import ACCOUNT_FACTS, Library
from scoring.reasons import label_of, unit_of
from scoring.scores import create_table
from scoring.sql import render

MARGIN_POINTS = 3.0
"""A score has to leave its band by this much before an episode clears, so that no edge flaps."""

DRIVER_POINTS = 2.0
"""What a metric has to move a score by to be its driver; below half of it, it is none any more."""

UPSELL_SHARE_OF_ARR = 0.2
"""What an upsell is worth where no expansion opportunity is open."""

PIPELINE = "expansion_pipeline"
_CREATE = """
CREATE SCHEMA IF NOT EXISTS actions;
CREATE TABLE IF NOT EXISTS actions.trigger_days (
    as_of DATE NOT NULL,
    account_id VARCHAR NOT NULL,
    playbook VARCHAR NOT NULL,
    state VARCHAR NOT NULL,     -- holds | undetermined; a pair without a row does not hold
    clears BOOLEAN,             -- whether an open episode would clear; null where that is open
    why VARCHAR,
    value DOUBLE                -- revenue a year that is at stake, in the company's currency
)
"""


@dataclass(frozen=True)
class Relations:
    """Where a day's facts stand; all have the columns of the tables they stand for here."""

    scores: str = "scores.scores"
    contributions: str = "scores.contributions"
    accounts: str = "metrics.accounts"
    values: str = "metrics.metric_values"


@dataclass(frozen=True)
class TriggersReport:
    """How many accounts each playbook's trigger holds at, and at how many it is undetermined."""

    day: dt.date
    holds: Mapping[str, int]
    undetermined: Mapping[str, int]
    seconds: float


def create_schema(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `actions.trigger_days` where it is missing."""
    connection.execute(_CREATE)


def find_triggers(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    *,
    scores: str = "scores.scores",
    contributions: str = "scores.contributions",
    accounts: str = "metrics.accounts",
    values: str = "metrics.metric_values",
) -> TriggersReport:
    """Judge every playbook at every account of a scored day; keep what holds or is undetermined.

    Other relations with the same columns may be named; only their accounts are then judged anew.
    Doing it again replaces what was kept.
    """
    began = time.monotonic()
    create_schema(connection)
    connection.execute("BEGIN")
    try:
        evaluate(connection, library, day, Relations(scores, contributions, accounts, values))
        connection.execute(render("store_triggers.sql", day=literal(day)))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    counts = connection.execute(
        "SELECT playbook, count(*) FILTER (holds), count(*) FILTER (holds IS NULL) "
        "FROM trigger_states GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return TriggersReport(
        day,
        {name: held for name, held, _ in counts},
        {name: left_open for name, _, left_open in counts},
        time.monotonic() - began,
    )


def evaluate(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    relations: Relations,
    *,
    only: str | None = None,
) -> None:
    """Fill the temporary table `trigger_states` (account_id, playbook, holds, clears, why, value).

    Without `only` it has the rows that hold or are undetermined; with it (a relation of account
    ids) all rows of those accounts.
    """
    playbooks = dict(sorted(library.playbooks.items()))
    _load_edges(connection, library)
    _load_drivers(connection, library, playbooks)
    create_table(
        connection, "trigger_change_days", "playbook VARCHAR, score VARCHAR, within_days INTEGER",
        [(name, p.trigger.score, p.trigger.change.within) for name, p in playbooks.items()
         if p.trigger.change],
    )  # fmt: skip
    names = _names_read(library, playbooks.values())
    connection.execute(
        render(
            "triggers.sql",
            day=literal(day),
            scores=relations.scores,
            contributions=relations.contributions,
            accounts=relations.accounts,
            values=relations.values,
            only=only,
            everything=only is not None,
            margin=MARGIN_POINTS,
            facts=[identifier(n) for n in sorted(names & set(ACCOUNT_FACTS) - _ALWAYS)],
            metrics=[
                {"name": literal(n), "column": identifier(n), "broken": identifier(f"{n}?")}
                for n in sorted(names - set(ACCOUNT_FACTS))
            ],
            playbooks=[_compiled(library, name, p) for name, p in playbooks.items()],
        )
    )


_ALWAYS = {"account_id", "segment", "stage", "desired_outcome", "arr"}


def conditions_of(library: Library, playbook: Playbook) -> list[Condition]:
    """The conditions that a playbook has written down."""
    texts = (playbook.trigger.when, playbook.clears_when)
    return [library.condition(text) for text in texts if text]


def _names_read(library: Library, playbooks: Iterable[Playbook]) -> set[str]:
    names: set[str] = set()
    for playbook in playbooks:
        names |= {name for c in conditions_of(library, playbook) for name in c.names}
        names |= {*playbook.trigger.driver}
        names |= {playbook.value_at_risk} if playbook.value_at_risk else set()
        names |= {PIPELINE} & set(library.metrics) if playbook.kind == "upsell" else set()
    return names


# What the playbooks ask of scores


def _load_edges(connection: duckdb.DuckDBPyConnection, library: Library) -> None:
    create_table(
        connection, "trigger_edges",
        "scorecard VARCHAR, upper_band VARCHAR, middle_band VARCHAR, lower_band VARCHAR, "
        "upper_edge DOUBLE, middle_edge DOUBLE",
        [(named.name, *BANDS[named.card.family], *named.card.edges)
         for named in library.scorecards],
    )  # fmt: skip


def _load_drivers(
    connection: duckdb.DuckDBPyConnection, library: Library, playbooks: Mapping[str, Playbook]
) -> None:
    """Which component, and which cap of which scorecard, makes a metric the driver of a score."""
    names, caps = [], []
    for name, playbook in playbooks.items():
        score, drivers = playbook.trigger.score, set(playbook.trigger.driver)
        low_is_bad = (score or "").partition(":")[0] in ("health", "handoff")
        names += [(name, score, driver, low_is_bad) for driver in sorted(drivers)]
        for named in library.scorecards:
            if named.card.score != score or not drivers:
                continue
            caps += [
                (name, score, named.name, cap.because)
                for cap in library.caps_of(named.card)
                if (cap.at_most if low_is_bad else cap.at_least) is not None
                and drivers & library.condition(cap.when).names
            ]
    create_table(
        connection, "trigger_driver_names",
        "playbook VARCHAR, score VARCHAR, metric VARCHAR, low_is_bad BOOLEAN", names,
    )  # fmt: skip
    create_table(
        connection, "trigger_driver_caps",
        "playbook VARCHAR, score VARCHAR, scorecard VARCHAR, reason VARCHAR",
        dict.fromkeys(caps),
    )  # fmt: skip


# A playbook as SQL


def _compiled(library: Library, name: str, playbook: Playbook) -> dict[str, str]:
    holds = _all_hold(library, playbook, lenient=False)
    if playbook.clears_when:
        clears = _condition(library.condition(playbook.clears_when))
    else:
        clears = f"NOT ({_all_hold(library, playbook, lenient=True)})"
    if playbook.kind == "upsell":
        # Nobody sells more to somebody who is about to leave.
        guard = "CASE WHEN r.open THEN NULL ELSE r.band IS DISTINCT FROM 'red' END"
        holds, clears = f"({holds}) AND {guard}", f"({clears}) OR NOT ({guard})"
    return {
        "name": literal(name),
        "score": literal(playbook.trigger.score),
        "holds": holds,
        "clears": clears,
        "why": _why(library, playbook),
        "value": _value(library, playbook),
    }


def _all_hold(library: Library, playbook: Playbook, *, lenient: bool) -> str:
    """The trigger as SQL. `lenient`: as long as this holds, an open episode has not cleared."""
    trigger = playbook.trigger
    margin = MARGIN_POINTS if lenient else 0.0
    parts = [_audience(playbook)]
    if trigger.band:
        parts.append(_band(trigger.band, lenient=lenient))
    if trigger.at_least is not None:
        parts.append(_edge(trigger.at_least - margin, above=True))
    if trigger.at_most is not None:
        parts.append(_edge(trigger.at_most + margin, above=False))
    if trigger.driver:
        parts.append(_driver(trigger.driver, DRIVER_POINTS / 2 if lenient else DRIVER_POINTS))
    if trigger.change and not lenient:  # a movement passes by itself; what it led to need not
        parts.append(_change(trigger.change.by))
    if trigger.when:
        parts.append(_condition(library.condition(trigger.when)))
    return " AND ".join(f"({part})" for part in parts)


def _audience(playbook: Playbook) -> str:
    audience = playbook.audience
    parts = [
        f"coalesce(f.{column} IN {_list(names)}, false)"
        for column, names in (
            ("segment", audience.segment),
            ("stage", audience.stage),
            ("desired_outcome", audience.outcome),
        )
        if names
    ]
    return " AND ".join(parts) or "true"


def _band(bands: Iterable[str], *, lenient: bool) -> str:
    columns = ("s.band", "s.band_above", "s.band_below") if lenient else ("s.band",)
    among = " OR ".join(f"{column} IN {_list(bands)}" for column in columns)
    return f"CASE WHEN s.open THEN NULL ELSE coalesce({among}, false) END"


def _edge(points: float, *, above: bool) -> str:
    """A score from `points` up (or down); undetermined while a broken pipe leaves both possible."""
    sure, impossible = ("s.low >=", "s.high <") if above else ("s.high <=", "s.low >")
    plain = "s.value >=" if above else "s.value <="
    return (
        f"CASE WHEN s.plumbing THEN CASE WHEN {sure} {points} THEN true "
        f"WHEN {impossible} {points} THEN false END "
        f"ELSE coalesce(s.known AND {plain} {points}, false) END"
    )


def _driver(drivers: Iterable[str], points: float) -> str:
    broken = " OR ".join(f"f.{identifier(name + '?')}" for name in drivers)
    return f"CASE WHEN d.strength >= {points} THEN true WHEN {broken} THEN NULL ELSE false END"


def _change(by: float) -> str:
    moved = f"s.value - c.lowest >= {by}" if by > 0 else f"s.value - c.highest <= {by}"
    return (
        f"CASE WHEN s.plumbing THEN NULL WHEN c.lowest IS NULL AND c.broken THEN NULL "
        f"ELSE coalesce(s.known AND {moved}, false) END"
    )


def _condition(condition: Condition) -> str:
    """A condition as SQL: null where a broken pipe hides the answer, false where data is absent."""
    columns = {name: f"f.{identifier(name)}" for name in condition.names}

    def broken(names: Iterable[str]) -> str:
        flags = [f"f.{identifier(n + '?')}" for n in sorted(names) if n not in ACCOUNT_FACTS]
        return " OR ".join(flags) or "false"

    text = condition.over(columns)
    return (
        # A metric whose pipe broke is null, but that is not what `is null` asks.
        f"CASE WHEN {broken(condition.null_names)} THEN NULL "
        f"WHEN {broken(condition.names)} THEN ({text}) ELSE coalesce(({text}), false) END"
    )


def _list(names: Iterable[str]) -> str:
    return f"({', '.join(literal(name) for name in names)})"


# What people read


def _why(library: Library, playbook: Playbook) -> str:
    """What the trigger saw, as SQL for a line such as ``risk is 82 (red); Open P1 tickets: 2``."""
    trigger = playbook.trigger
    parts = []
    if playbook.kind == "upsell":
        parts.append("CASE WHEN r.band = 'red' THEN 'risk is red' END")
    if trigger.score:
        score = literal(f"{trigger.score} is ")
        parts.append(f"{score} || coalesce(shown(s.value) || ' ', '') || '(' || s.band || ')'")
    if trigger.change:
        reference = "c.lowest" if trigger.change.by > 0 else "c.highest"
        within = literal(f" in {trigger.change.within} days")
        parts.append(f"format('{{:+.0f}}', s.value - {reference} + 0.0) || {within}")
    asked = _asked(library.condition(trigger.when)) if trigger.when else {}
    for name in [*trigger.driver, *(name for name in sorted(asked) if name not in trigger.driver)]:
        shown = _shown(library, name)
        parts.append(f"CASE WHEN {asked[name]} THEN {shown} END" if asked.get(name) else shown)
    return f"concat_ws('; ', {', '.join(parts)})"


def _asked(condition: Condition) -> dict[str, str]:
    """What a condition asks of, and when that says something; empty where it always does.

    Of alternatives only those that hold say why: no competitor was seen, but a trial was lost.
    """
    alternatives = condition.alternatives
    if len(alternatives) == 1:
        return dict.fromkeys(condition.names, "")
    holds = {one.sql: f"coalesce({_condition(one)}, false)" for one in alternatives}
    none = f"NOT ({' OR '.join(holds.values())})"
    return {
        name: " OR ".join([*(holds[one.sql] for one in alternatives if name in one.names), none])
        for name in condition.names
    }


def _shown(library: Library, name: str) -> str:
    column = f"f.{identifier(name)}"
    if name in ACCOUNT_FACTS:
        number = name in ("arr", "employees")
        text = f"shown({column})" if number else f"{column}::VARCHAR"
        return f"{literal(name.replace('_', ' ') + ': ')} || {text}"
    unit = unit_of(library, name)
    # "Overdue invoices: 1" says enough; "CSM sentiment: 2" does not.
    end = f" || {literal(' ' + unit)}" if unit == "%" or unit.startswith("of ") else ""
    return f"{literal(label_of(library, name) + ': ')} || shown({column}){end}"


def _value(library: Library, playbook: Playbook) -> str:
    if playbook.value_at_risk:
        return f"coalesce(f.{identifier(playbook.value_at_risk)}, 0)::DOUBLE"
    if playbook.kind != "upsell":
        return "coalesce(f.arr, 0)::DOUBLE"
    share = f"coalesce({UPSELL_SHARE_OF_ARR} * f.arr, 0)"
    if PIPELINE not in library.metrics:
        return f"{share}::DOUBLE"
    return f"coalesce(nullif(f.{identifier(PIPELINE)}, 0), {share})::DOUBLE"
