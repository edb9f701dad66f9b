"""From a day's scores to what people do: triggers, episodes, tasks, and each person's week.

`triggers` finds at which accounts a playbook's trigger holds, `episodes` decides what that means
given what is open, `drafts` writes the tasks, and `queues` shows them. Here they meet the
warehouse.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import duckdb

from contracts.actions import Decisions, Episode, TaskState
from contracts.errors import NotFoundError
from scoring import reasons, templates
from scoring.drafts import Account, Trigger
from scoring.episodes import Capacity, Pair, decide
from scoring.expressions import literal
from scoring.library import Library
from scoring.queues import QueueEntry, queue
from scoring.sql import render
from scoring.triggers import Relations, create_schema, evaluate, find_triggers

__all__ = ["QueueEntry", "decide", "find_triggers", "plan_actions", "queue_of"]

MOST_STREAK_DAYS = 120
_ACCOUNT = "account_id, name, owner, sales_owner, segment, stage, plan, arr, renews_on"


def plan_actions(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    *,
    tenant: str,
    episodes: Iterable[Episode],
    tasks: Iterable[TaskState],
    tasks_per_owner_a_week: int = 10,
    capacity: Mapping[str, int] | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
    reachable: Collection[str] | None = None,
    scores: str = "scores.scores",
    contributions: str = "scores.contributions",
    accounts: str = "metrics.accounts",
    values: str = "metrics.metric_values",
) -> Decisions:
    """What is to be done on a day, from its stored triggers and what the ledger knows.

    Args:
        only: accounts to decide about (those of the relations, where others are named); the
            episodes of all others stay as they are, and their tasks fill their owners' weeks.
        without: accounts about which nothing is decided all the same.
        reachable: accounts with a record in a CRM that takes tasks; others are given none. None:
            all are.

    Raises:
        NotFoundError: the day has no accounts, so nobody can be said to be gone.
    """
    relations = Relations(scores, contributions, accounts, values)
    create_schema(connection)
    if not connection.execute(
        f"SELECT 1 FROM {accounts} WHERE as_of = {literal(day)} LIMIT 1"
    ).fetchone():
        raise NotFoundError(
            f"the metrics of {day} are not there",
            f"compute the day first: `healthloop run --as-of {day}`",
        )
    episodes = list(episodes)
    watched = sorted({
        (episode.account_id, episode.playbook)
        for episode in episodes
        if episode.state != "closed" and (only is None or episode.account_id in only)
    })  # fmt: skip
    triggers = _triggers(connection, library, day, relations, watched, only)
    wanted = sorted({pair[0] for pair in (*watched, *triggers)})
    decided = partial(
        decide,
        day=day,
        tenant=tenant,
        playbooks=library.playbooks,
        accounts=read_accounts(connection, day, wanted, accounts=accounts),
        episodes=episodes,
        tasks=list(tasks),
        capacity=Capacity(tasks_per_owner_a_week, capacity or {}),
        only=only,
        without=without,
        reachable=reachable,
    )
    # Of all that hold only a few may open a task, and reasons are gathered for those alone.
    opening = {(draft.account_id, draft.playbook) for draft in decided(triggers.values()).open}
    explained = _with_reasons(
        connection, library, day, relations, [triggers[pair] for pair in sorted(opening)]
    )
    return decided((triggers | explained).values())


def read_accounts(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    account_ids: Sequence[str],
    *,
    accounts: str = "metrics.accounts",
) -> dict[str, Account]:
    """The customers of a day among these, by id."""
    _ids(connection, "wanted_accounts", account_ids)
    rows = connection.execute(
        f"SELECT {_ACCOUNT} FROM {accounts} WHERE as_of = {literal(day)} "
        "AND account_id IN (FROM wanted_accounts)"
    ).fetchall()
    return {row[0]: Account(*row) for row in rows}


def queue_of(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    *,
    episodes: Iterable[Episode],
    tasks: Iterable[TaskState],
    owner: str | None = None,
) -> list[QueueEntry]:
    """Each person's week as of a scored day: what to do and why, what waits, and what was done."""
    episodes, tasks = list(episodes), list(tasks)
    ids = sorted({task.account_id for task in tasks} | {e.account_id for e in episodes})
    try:
        values = connection.execute(
            "SELECT account_id, playbook, value FROM actions.trigger_days "
            f"WHERE as_of = {literal(day)} AND state = 'holds'"
        ).fetchall()
    except duckdb.CatalogException:  # scored before there were playbooks, and opened read-only
        values = []
    return queue(
        day=day,
        playbooks=library.playbooks,
        accounts=read_accounts(connection, day, ids),
        values={(account_id, playbook): value for account_id, playbook, value in values},
        episodes=episodes,
        tasks=tasks,
        owner=owner,
    )


# What decide() is given


def _triggers(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    relations: Relations,
    watched: Sequence[Pair],
    only: Collection[str] | None,
) -> dict[Pair, Trigger]:
    """The triggers that hold, and those of every watched pair, whatever they are.

    What was stored says who holds and who is undetermined. Of the others the day is asked again,
    because only for open episodes does it matter whether they clear.
    """
    found = {
        (account_id, playbook): Trigger(account_id, playbook, "holds", days, clears, why, value)
        for account_id, playbook, clears, why, value, days in _held(connection, day, only)
        if playbook in library.playbooks
    }
    _load_watched(connection, watched)
    rows = connection.execute(
        "SELECT account_id, playbook FROM actions.trigger_days SEMI JOIN watched "
        f"USING (account_id, playbook) WHERE as_of = {literal(day)} AND state = 'undetermined'"
    ).fetchall()
    found |= {(row[0], row[1]): Trigger(row[0], row[1], "undetermined", 0, None) for row in rows}
    _load_watched(connection, [pair for pair in watched if pair not in found])
    return found | _judged(connection, library, day, relations)


def _held(
    connection: duckdb.DuckDBPyConnection, day: dt.date, only: Collection[str] | None
) -> list[tuple[str, str, bool | None, str, float, int]]:
    if only is not None:
        _ids(connection, "only_accounts", sorted(only))
    return connection.execute(
        render(
            "streaks.sql",
            day=literal(day),
            most_days=MOST_STREAK_DAYS,
            only="only_accounts" if only is not None else None,
        )
    ).fetchall()


def _load_watched(connection: duckdb.DuckDBPyConnection, watched: Sequence[Pair]) -> None:
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE watched (account_id VARCHAR, playbook VARCHAR)"
    )
    connection.execute(
        "INSERT INTO watched SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
        [[account_id for account_id, _ in watched], [playbook for _, playbook in watched]],
    )


def _judged(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    relations: Relations,
) -> dict[Pair, Trigger]:
    """What the day says of the pairs in `watched`."""
    evaluate(connection, library, day, relations, only="(SELECT account_id FROM watched)")
    rows = connection.execute(
        "SELECT account_id, playbook, holds, clears, why, value "
        "FROM trigger_states SEMI JOIN watched USING (account_id, playbook)"
    ).fetchall()
    states: dict[bool | None, Literal["holds", "not", "undetermined"]] = {
        True: "holds", False: "not", None: "undetermined",
    }  # fmt: skip
    return {
        (account_id, playbook): Trigger(
            account_id, playbook, states[holds], 0, clears, why, value
        )
        for account_id, playbook, holds, clears, why, value in rows
    }  # fmt: skip


def _with_reasons(
    connection: duckdb.DuckDBPyConnection,
    library: Library,
    day: dt.date,
    relations: Relations,
    triggers: Sequence[Trigger],
) -> dict[Pair, Trigger]:
    """Triggers with the sentences and the numbers that their tasks show."""
    _ids(connection, "reasoned_accounts", sorted({trigger.account_id for trigger in triggers}))
    for name in ("scores", "contributions"):
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE reasoned_{name} AS FROM {getattr(relations, name)} "
            f"WHERE as_of = {literal(day)} AND account_id IN (FROM reasoned_accounts)"
        )
    reasons.compute(
        connection, library, day, scores="reasoned_scores", contributions="reasoned_contributions"
    )
    sentences: dict[tuple[str, str | None], list[str]] = {}
    for account_id, score, sentence in connection.execute(
        "SELECT account_id, score, sentence FROM reasons WHERE rank <= ? "
        "ORDER BY account_id, score, rank",
        [reasons.MOST_REASONS],
    ).fetchall():
        sentences.setdefault((account_id, score), []).append(sentence)
    measures = _measures(connection, library, day, relations)
    return {
        (trigger.account_id, trigger.playbook): replace(
            trigger,
            reasons=(
                *sentences.get(
                    (trigger.account_id, library.playbooks[trigger.playbook].trigger.score), ()
                ),
                trigger.why,
            ),
            measures=measures.get(trigger.account_id, {}),
        )
        for trigger in triggers
    }


def _measures(
    connection: duckdb.DuckDBPyConnection, library: Library, day: dt.date, relations: Relations
) -> dict[str, dict[str, float | None]]:
    """The numbers that tasks of these accounts may show, by account and metric."""
    names = {
        name
        for playbook in library.playbooks.values()
        for task in playbook.tasks
        for text in (task.subject, *task.steps)
        for name in templates.measures_in(text)
    }
    found: dict[str, dict[str, float | None]] = {}
    if not names:
        return found
    _ids(connection, "shown_metrics", sorted(names))
    for account_id, metric, value in connection.execute(
        f"SELECT account_id, metric, value FROM {relations.values} WHERE as_of = {literal(day)} "
        "AND account_id IN (FROM reasoned_accounts) AND metric IN (FROM shown_metrics)"
    ).fetchall():
        found.setdefault(account_id, {})[metric] = value
    return found


def _ids(connection: duckdb.DuckDBPyConnection, table: str, ids: Iterable[str]) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} (id VARCHAR)")
    connection.execute(f"INSERT INTO {table} SELECT unnest(?::VARCHAR[])", [list(ids)])
