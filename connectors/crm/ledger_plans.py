"""Plans in the ledger: stored, judged, begun and ended."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.crm.ledger_rows import (
    NOTHING_DECIDED,
    body_row,
    chunks,
    dumps,
    episode_row,
    intent_row,
    plan_row,
    task_row,
)
from connectors.crm.ledger_tables import (
    approvals,
    attempts,
    batches,
    bodies,
    episodes,
    intents,
    plans,
    tasks,
    upsert,
)
from connectors.crm.plans import Intent, IntentKind, IntentState, Plan, PlanStatus
from contracts.actions import EpisodeKey, EpisodeState
from contracts.errors import LedgerError

WAITING: tuple[PlanStatus, ...] = ("open", "held", "approved")
"""Plans that are not over: a newer one takes their place."""


def store(connection: sa.Connection, plan: Plan, its_intents: Sequence[Intent]) -> None:
    """Keep a plan with its intents; what older plans did not send is skipped.

    A daily plan takes the place of those of the fast lane, too, unless these know a later day.
    """
    same = plans.c.lane == plan.lane
    if plan.lane == "daily":
        same = same | (plans.c.as_of <= plan.as_of)
    older = same & (plans.c.made_at <= plan.made_at) & plans.c.status.in_(WAITING)
    connection.execute(
        sa.update(intents)
        .where(
            intents.c.plan_id.in_(sa.select(plans.c.plan_id).where(older)),
            intents.c.state == "planned",
        )
        .values(state="skipped", reason=f"superseded by plan {plan.plan_id}")
    )
    connection.execute(sa.update(plans).where(older).values(status="superseded"))
    connection.execute(sa.insert(plans).values(plan_row(plan, its_intents)))
    for some in chunks(its_intents):
        rows = [intent_row(plan.plan_id, intent) for intent in some]
        connection.execute(sa.insert(intents), rows)
        rows = [body_row(plan.plan_id, intent) for intent in some]
        connection.execute(sa.insert(bodies), rows)


def judge(
    connection: sa.Connection,
    plan_id: str,
    status: PlanStatus,
    by: str,
    at: dt.datetime,
    reasons: Sequence[str],
) -> bool:
    """Set the status of a plan that waits, and keep who did it; False where it waits no more."""
    values: dict[str, Any] = {"status": status, "decided_by": by, "decided_at": at}
    if reasons:
        values["reasons"] = dumps(list(reasons))
    waits = (plans.c.plan_id == plan_id) & plans.c.status.in_(WAITING)
    if not connection.execute(sa.update(plans).where(waits).values(values)).rowcount:
        return False
    row = {"plan_id": plan_id, "verdict": status, "by": by, "at": at}
    connection.execute(sa.insert(approvals).values(reasons=dumps(list(reasons)), **row))
    return True


def begin(connection: sa.Connection, plan: Plan, at: dt.datetime) -> None:
    """Keep what a plan decided, once: episodes that are not closed, tasks that no CRM has.

    A plan that waited for a person may be overtaken: what others have begun or ended since is left
    out, and so the tasks of it are never sent.
    """
    fresh = (plans.c.plan_id == plan.plan_id) & plans.c.begun_at.is_(None)
    if not connection.execute(sa.update(plans).where(fresh).values(begun_at=at)).rowcount:
        return
    of_plan = sa.select(intents.c.key, intents.c.crm, intents.c.record_id).where(
        intents.c.plan_id == plan.plan_id, intents.c.key.is_not(None)
    )
    links = {key: (crm, record) for key, crm, record in connection.execute(of_plan)}
    overtaken = _overtaken(connection, plan)
    decided = [
        task_row(task, *links.get(task.key, (None, None)))
        for task in plan.tasks
        if task.status == "closed" or task.episode_key not in overtaken
    ]
    upsert(connection, tasks, decided, where=lambda new: tasks.c.status == "planned")
    opened = [
        episode_row(episode) for episode in plan.episodes if episode.episode_key not in overtaken
    ]
    upsert(connection, episodes, opened, where=lambda new: episodes.c.state != "closed")


def _overtaken(connection: sa.Connection, plan: Plan) -> set[EpisodeKey]:
    """The episodes of a plan that were closed since, or in whose place another one was opened."""
    ended = {episode.episode_key for episode in plan.episodes if episode.state == "closed"}
    decided = {e.episode_key for e in plan.episodes} | {t.episode_key for t in plan.tasks}
    begun = decided - ended
    standing: dict[tuple[str, str], dict[dt.date, EpisodeState]] = {}
    for some in chunks(sorted({account_id for account_id, _, _ in begun})):
        rows = connection.execute(sa.select(episodes).where(episodes.c.account_id.in_(some)))
        for row in rows:
            standing.setdefault((row.account_id, row.playbook), {})[row.opened_on] = row.state

    def is_overtaken(account_id: str, playbook: str, day: dt.date) -> bool:
        known = standing.get((account_id, playbook), {})
        return known.get(day) == "closed" or any(
            other > day or (state != "closed" and (account_id, playbook, other) not in ended)
            for other, state in known.items()
            if other != day
        )

    return {key for key in begun if is_overtaken(*key)}


def end(
    connection: sa.Connection,
    plan_id: str,
    counts: Mapping[tuple[IntentKind, IntentState], int],
    at: dt.datetime,
) -> None:
    """Set a plan to applied, if planned is written + rejected + deferred + skipped of each kind.

    Raises:
        LedgerError: it is not.
    """
    of_plan = plans.c.plan_id == plan_id
    planned = connection.execute(sa.select(plans.c.planned).where(of_plan)).scalar_one()
    ended: dict[str, int] = {}
    for (kind, state), count in counts.items():
        if state not in ("planned", "sent"):
            ended[kind] = ended.get(kind, 0) + count
    if ended != orjson.loads(planned):
        raise LedgerError(
            f"plan {plan_id} does not add up: planned {planned}, ended {dumps(ended)}", "report it"
        )
    connection.execute(sa.update(plans).where(of_plan).values(status="applied", ended_at=at))


def forget(connection: sa.Connection, before: dt.datetime) -> int:
    """Drop what was planned and sent by plans that were over before a moment; returns how many.

    The plans themselves stay, and so do tasks that are still to be sent.
    """
    in_doubt = sa.select(batches.c.plan_id).where(batches.c.ended_at.is_(None))
    to_send = sa.select(tasks.c.key).where(tasks.c.status == "planned")
    over = sa.select(plans.c.plan_id).where(
        plans.c.made_at < before,
        plans.c.status.not_in(WAITING),
        plans.c.plan_id.not_in(in_doubt),
        sa.exists().where(intents.c.plan_id == plans.c.plan_id),
    )
    old = connection.execute(over).scalars().all()
    for plan_id in old:
        of_plan = intents.c.plan_id == plan_id
        kept = sa.select(intents.c.number).where(of_plan, intents.c.key.in_(to_send))
        of_batches = sa.select(batches.c.id).where(batches.c.plan_id == plan_id)
        for dropped in (
            sa.delete(bodies).where(bodies.c.plan_id == plan_id, bodies.c.number.not_in(kept)),
            sa.delete(intents).where(of_plan, sa.or_(intents.c.key.is_(None),
                                                     intents.c.key.not_in(to_send))),
            sa.delete(attempts).where(attempts.c.batch_id.in_(of_batches)),
            sa.delete(batches).where(batches.c.plan_id == plan_id),
        ):  # fmt: skip
            connection.execute(dropped)
        mine = sa.update(plans).where(plans.c.plan_id == plan_id)
        connection.execute(mine.values(decided=NOTHING_DECIDED))
    return len(old)
