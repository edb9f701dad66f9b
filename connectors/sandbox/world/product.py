"""The product's own event store: counts per workspace and day, and who was there (UTC)."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from connectors.sandbox.world.causes import Causes, season
from connectors.sandbox.world.outcomes import Futures
from connectors.sandbox.world.population import Population
from connectors.sandbox.world.writing import (
    NEVER,
    Flags,
    Floats,
    Ints,
    date_text,
    repeated,
    where_true,
    write_csv,
    write_parquet,
)

EVENTS = ("login", "report_published", "dashboard_shared", "alert_created", "export_run",
          "api_call", "data_source_connected", "storage_gb")  # fmt: skip
# Per seat and working day at full activity, and how strongly the value found drives the event.
_RATES = (0.22, 0.032, 0.018, 0.006, 0.010, 0.30, 0.0012)
_PULL_OF_VALUE = (0.4, 1.6, 1.6, 1.3, 0.5, 1.0, 0.8)
# The share of a workspace's seats that somebody sits on, on a working day of full activity.
_SHARE_OF_A_DAY = 0.09
_STORAGE = EVENTS.index("storage_gb")
_API_CALL = EVENTS.index("api_call")
_EXPORT = EVENTS.index("export_run")


def write_product(
    folder: Path,
    population: Population,
    causes: Causes,
    futures: Futures,
    *,
    seed: int,
    first_day: int,
    today: int,
) -> None:
    """Write `workspaces.csv`, `usage_YYYY_MM.parquet` and `active_users_YYYY_MM.parquet`."""
    random = np.random.default_rng([seed, 4])
    workspace = np.array(
        [f"ws_{(i * 7919 + 104729) % 1_000_003:06d}" for i in range(len(population))]
    )
    days = np.arange(first_day, today + 1)
    activity = _activity(random, population, causes, futures, days)
    rows = _counts(random, population, causes, futures, activity, days)
    _write_workspaces(random, folder, population, workspace)
    _write_usage(random, folder, workspace, rows, first_day=first_day)
    _write_active_users(random, folder, population, workspace, activity, days)


def _activity(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    days: Ints,
) -> Floats:
    """Seats in use, per account and day: value, habit, moods, seasons, slumps, departures."""
    weeks = causes.week_days
    mood = np.zeros(len(population))
    level = np.empty((len(population), len(weeks)))
    for week in range(len(weeks)):
        mood = 0.85 * mood + random.normal(0, 0.16, len(population))
        level[:, week] = np.exp(mood)
    level *= 0.25 + 0.95 * causes.value
    level *= np.where(causes.champion, 1.0, 0.88)
    level *= _slumps(random, population, causes.week_days)
    level *= (population.seats * population.habit)[:, None]
    daily = level[:, causes.week_of(days)]
    left = (futures.end_day[:, None] - days[None, :]) / np.maximum(
        futures.end_day - futures.fade_day, 1
    )[:, None]
    fading = days[None, :] >= futures.fade_day[:, None]
    keep = futures.fade_to[:, None]
    daily *= np.where(fading, keep + (1 - keep) * np.clip(left, 0, 1), 1.0)
    daily[~_in_use(population, futures, days)] = 0
    weekday = (days + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    daily *= (np.array([1.0, 1.08, 1.06, 1.02, 0.85, 0.07, 0.06])[weekday] * season(days))[None, :]
    return daily


def _slumps(random: np.random.Generator, population: Population, weeks: Ints) -> Floats:
    """Quiet months that mean nothing: a project ended, a team moved. False alarms for a score."""
    begin = random.integers(weeks[0], weeks[-1], len(population))
    begin = np.where(random.random(len(population)) < 0.15, begin, NEVER)
    length = random.integers(30, 120, len(population))
    inside = (weeks[None, :] >= begin[:, None]) & (weeks[None, :] < (begin + length)[:, None])
    return np.where(inside, 0.35, 1.0)


def _in_use(population: Population, futures: Futures, days: Ints) -> Flags:
    """Where there is a workspace that somebody may use."""
    last = np.minimum(futures.end_day, population.last_day)
    return (
        population.has_workspace[:, None]
        & (days[None, :] >= population.start_day[:, None])
        & (days[None, :] <= last[:, None])
    )


def _counts(
    random: np.random.Generator,
    population: Population,
    causes: Causes,
    futures: Futures,
    activity: Floats,
    days: Ints,
) -> dict[str, Ints | Floats]:
    """Rows of account, day, event, n, actors and qty, ordered by day, account and event."""
    day_index, account = np.nonzero(activity.T)
    level = activity[account, day_index]
    value = causes.value[account, causes.week_of(days)[day_index]]
    leaving = days[day_index] >= futures.fade_day[account]
    integrated = random.random(len(population)) < np.array([0.6, 0.35, 0.15])[population.segment]
    seats = population.seats[account]
    parts = []
    for event, rate in enumerate(_RATES):
        mean = level * rate * (0.25 + value) ** _PULL_OF_VALUE[event]
        if event == _API_CALL:
            mean = mean * integrated[account]
        if event == _EXPORT:  # who is about to leave takes the data along
            mean = mean * np.where(leaving, 1.8, 1.0)
        n = random.poisson(mean)
        some = np.flatnonzero(n)
        actors = np.minimum(seats[some], np.ceil(n[some] ** 0.8 * 0.8).astype(np.int64))
        parts.append((some, np.full(len(some), event), n[some], actors, np.full(len(some), np.nan)))
    monday = np.flatnonzero((days[day_index] + 3) % 7 == 0)
    stored = np.round(level[monday] * 0.9 + seats[monday] * (0.4 + value[monday]), 2)
    ones = np.ones(len(monday), dtype=np.int64)
    # A level is no action, so it has no count.
    parts.append((monday, ones * _STORAGE, ones * 0, ones * 0, stored))
    cell, events, counts, actors, qty = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(cell * len(EVENTS) + events)
    cell = cell[order]
    return {
        "account": account[cell], "day": days[day_index[cell]], "event": events[order],
        "n": counts[order], "actors": actors[order], "qty": qty[order],
    }  # fmt: skip


def _write_workspaces(
    random: np.random.Generator, folder: Path, population: Population, workspace: np.ndarray
) -> None:
    """Who owns a workspace: the CRM's id where sales typed it in, or the sign-up domain alone."""
    has = np.flatnonzero(population.has_workspace)
    typed_in = random.random(len(has)) < 0.8
    # Who shares a domain cannot be told apart by it: sales typed the number in.
    typed_in |= population.shares_domain[has]
    write_csv(folder / "workspaces.csv", {
        "workspace_id": workspace[has],
        "crm_account_no": where_true(typed_in, population.account_id[has]),
        "signup_domain": np.array(["app." + d for d in population.domain[has]], object),
        "created": date_text(population.start_day[has]),
    })  # fmt: skip


def _write_usage(
    random: np.random.Generator,
    folder: Path,
    workspace: np.ndarray,
    rows: dict[str, Ints | Floats],
    *,
    first_day: int,
) -> None:
    """One file a month, which also re-states some of the days before it, and has some dirt."""
    month = rows["day"].astype("datetime64[D]").astype("datetime64[M]")
    names = np.array(EVENTS)
    starts = np.searchsorted(rows["day"], np.unique(month).astype("datetime64[D]").astype(np.int64))
    bounds = [*starts.tolist(), len(month)]
    for index, label in enumerate(np.unique(month).astype(str).tolist()):
        own = np.arange(bounds[index], bounds[index + 1])
        part = {name: values[own] for name, values in rows.items()}
        if index:
            late = np.arange(max(bounds[index] - 400, 0), bounds[index])
            late = late[random.random(len(late)) < 0.1]
            restated = {name: values[late] for name, values in rows.items()}
            restated["n"] = restated["n"] + random.integers(1, 4, len(late)) * (restated["n"] > 0)
            twice = own[random.random(len(own)) < 0.0003]
            again = {name: values[twice] for name, values in rows.items()}
            part = {
                name: np.concatenate([part[name], restated[name], again[name]]) for name in part
            }
        n = part["n"].astype(np.int64)
        if index % 4 == 3:
            n[random.integers(0, bounds[index + 1] - bounds[index], 5)] *= -1
        write_parquet(folder / f"usage_{label.replace('-', '_')}.parquet", {
            "workspace_id": _coded(workspace, part["account"].astype(np.int64)),
            "date": pa.array(part["day"].astype(np.int32), pa.date32()),
            "event_name": _coded(names, part["event"].astype(np.int64)),
            "n": pa.array(n.astype(np.int32)),
            "actors": pa.array(part["actors"].astype(np.int32)),
            "qty": pa.array(part["qty"], mask=np.isnan(part["qty"])),
        })  # fmt: skip


def _write_active_users(
    random: np.random.Generator,
    folder: Path,
    population: Population,
    workspace: np.ndarray,
    activity: Floats,
    days: Ints,
) -> None:
    """Who was there on a day: a row per user, whose number counts within the workspace."""
    seats = population.seats
    share = np.clip(activity / seats[:, None] * _SHARE_OF_A_DAY, 0, 0.95)
    users = random.binomial(seats[:, None], share)
    month = days.astype("datetime64[D]").astype("datetime64[M]")
    for label in np.unique(month):
        own = np.flatnonzero(month == label)
        count = users[:, own].T.reshape(-1)
        cell = repeated(count)
        account = cell % len(population)
        place = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
        first = random.integers(0, 1_000_000, len(count))[cell]
        write_parquet(folder / f"active_users_{str(label).replace('-', '_')}.parquet", {
            "workspace_id": _coded(workspace, account),
            "user_no": pa.array(((first + place) % seats[account] + 1).astype(np.int32)),
            "date": pa.array(days[own[cell // len(population)]].astype(np.int32), pa.date32()),
        })  # fmt: skip


def _coded(texts: np.ndarray, codes: Ints) -> pa.DictionaryArray:
    """Texts that repeat a lot, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts))
