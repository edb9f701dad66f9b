"""The computation of `compact.py` as somebody would write it in pandas, over Parquet files.

Either the tables are read whole and filtered in memory, as most notebooks do, or only the row
groups that the windows can reach are read, as somebody does who knows that the files lie by day.
Metrics, scores and contributions are written to Parquet, for ours are stored too.
"""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.compact import CHANGES, PEERS, RISK, UPSELL

WANTED = {
    "accounts": "account_id, started_on, known_at, superseded_at",
    "usage_daily": "account_id, day, event, count, known_at, superseded_at",
    "tickets": "account_id, day, opened_at, solved_at, priority, escalated, csat, known_at",
    "invoices": "account_id, day, due_at, paid_at, amount_due, currency, status, known_at",
    "exchange_rates": "currency, day, rate, known_at",
}
"""The columns that are needed of each table; files with just these are what pandas is given."""

FEWEST_PEERS = 20
LONG_AGO = 36_500
"""Days, for a table whose metrics have no window."""

FEWEST_KNOWN = 0.6
"""Share of the weight that must be known for a band."""


def score_day(
    folder: Path, day: dt.date, *, whole: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Metrics by account (index) and name (column), scores, and contributions to them."""
    now = pd.Timestamp(day) + pd.Timedelta(days=1)
    accounts = pd.read_parquet(folder / "accounts.parquet")
    started = pd.to_datetime(accounts["started_on"]) <= pd.Timestamp(day)
    accounts = accounts[_visible(accounts, now) & started].set_index("account_id").sort_index()
    values = pd.concat(
        [
            _usage(_read(folder, "usage_daily", day, 90, now, whole), accounts, day),
            _tickets(_read(folder, "tickets", day, LONG_AGO, now, whole), accounts, day, now),
            _invoices(_read(folder, "invoices", day, 365, now, whole), accounts, day, now, folder),
        ],
        axis=1,
    )
    for name in CHANGES:
        before = values.pop(name + ".previous")
        change = 100 * (values[name] - before) / before.abs()
        values[name + ".change"] = change.where(before != 0, 100.0 * np.sign(values[name])).where(
            before.notna()
        )
    for name in PEERS:
        known = values[name].notna()
        ranks = 100 * (values[name].rank(method="min") - 1) / (known.sum() - 1)
        values[name + ".peer_percentile"] = (
            ranks.round(2) if known.sum() >= FEWEST_PEERS else np.nan
        )
    cards = [_evaluate(values, card) for card in (RISK, UPSELL)]
    scores = pd.concat([scores for scores, _ in cards])
    contributions = pd.concat([contributions for _, contributions in cards])
    values.to_parquet(folder / "result_metrics.parquet")
    scores.to_parquet(folder / "result_scores.parquet")
    contributions.to_parquet(folder / "result_contributions.parquet")
    return values, scores, contributions


def _visible(frame: pd.DataFrame, now: pd.Timestamp) -> pd.Series:
    seen = frame["known_at"] <= now
    if "superseded_at" in frame:
        seen &= frame["superseded_at"].isna() | (frame["superseded_at"] > now)
    return seen


def _read(
    folder: Path, table: str, day: dt.date, days: int, now: pd.Timestamp, whole: bool
) -> pd.DataFrame:
    """The rows of the last days, as far as they are known, with their age in days."""
    file = folder / f"{table}.parquet"
    if whole:
        frame = pd.read_parquet(file)
    else:
        reach = [("day", ">", day - dt.timedelta(days=days)), ("day", "<=", day)]
        frame = pd.read_parquet(file, filters=reach)
    frame["age"] = (pd.Timestamp(day) - pd.to_datetime(frame["day"])).dt.days
    return frame[frame["age"].between(0, days - 1) & _visible(frame, now)]


def _change_base(values: pd.Series, accounts: pd.DataFrame, day: dt.date, days: int) -> pd.Series:
    """The window before, where the account is old enough to have one."""
    old = pd.to_datetime(accounts["started_on"]) <= pd.Timestamp(day) - pd.Timedelta(days=2 * days)
    return values.reindex(accounts.index).fillna(0).where(old)


def _usage(usage: pd.DataFrame, accounts: pd.DataFrame, day: dt.date) -> pd.DataFrame:
    work = usage[(usage["event"] != "login") & (usage["count"] > 0)]
    logins = usage[(usage["event"] == "login") & (usage["age"] < 28)]
    recent, before = work[work["age"] < 28], work[work["age"].between(28, 55)]
    by = recent.groupby("account_id")
    by_before = before.groupby("account_id")
    week = work[work["age"] < 7]
    values = pd.DataFrame(index=accounts.index)
    counted = {
        "active_days_28d": by["day"].nunique(),
        "active_days_7d": week.groupby("account_id")["day"].nunique(),
        "usage_events_28d": by["count"].sum(),
        "features_used_28d": by["event"].nunique(),
        "logins_28d": logins.groupby("account_id")["count"].sum(),
    }
    for name, series in counted.items():
        values[name] = series.reindex(accounts.index).fillna(0).astype(float)
    values["days_since_last_use"] = work.groupby("account_id")["age"].min().reindex(accounts.index)
    previous = {
        "active_days_28d": by_before["day"].nunique(),
        "usage_events_28d": by_before["count"].sum(),
        "features_used_28d": by_before["event"].nunique(),
    }
    for name, series in previous.items():
        values[name + ".previous"] = _change_base(series, accounts, day, 28)
    return values


def _tickets(
    tickets: pd.DataFrame, accounts: pd.DataFrame, day: dt.date, now: pd.Timestamp
) -> pd.DataFrame:
    solved = tickets["solved_at"] <= now
    recent, before = tickets[tickets["age"] < 90], tickets[tickets["age"].between(90, 179)]
    values = pd.DataFrame(index=accounts.index)
    counted = {
        "tickets_90d": recent,
        "urgent_tickets_90d": recent[recent["priority"].isin(["p1", "p2"])],
        "open_tickets_14d": tickets[~solved & (tickets["age"] > 14)],
        "escalations_90d": recent[recent["escalated"].fillna(False).astype(bool)],
    }
    for name, rows in counted.items():
        values[name] = rows.groupby("account_id").size().reindex(accounts.index).fillna(0.0)
    answered = recent[recent["solved_at"] <= now]
    values["csat_90d"] = answered.groupby("account_id")["csat"].mean().reindex(accounts.index)
    earlier = before.groupby("account_id").size()
    values["tickets_90d.previous"] = _change_base(earlier, accounts, day, 90)
    return values


def _invoices(
    invoices: pd.DataFrame, accounts: pd.DataFrame, day: dt.date, now: pd.Timestamp, folder: Path
) -> pd.DataFrame:
    rates = pd.read_parquet(folder / "exchange_rates.parquet")
    rates = rates[_visible(rates, now) & (pd.to_datetime(rates["day"]) <= pd.Timestamp(day))]
    latest = rates.sort_values("day").groupby("currency")["rate"].last()
    days_due = (pd.Timestamp(day) - invoices["due_at"].dt.normalize()).dt.days
    paid = invoices["paid_at"] <= now
    hidden = ["draft", "void", "voided", "uncollectible", "written_off", "not_charged"]
    due = invoices[
        (days_due > 1) & ~paid & (invoices["amount_due"] > 0) & ~invoices["status"].isin(hidden)
    ].copy()
    due["days_due"] = days_due
    due["amount"] = due["amount_due"].astype(float) * due["currency"].map(latest).fillna(1.0)
    values = pd.DataFrame(index=accounts.index)
    values["overdue_invoices"] = (
        due.groupby("account_id").size().reindex(accounts.index).fillna(0.0)
    )
    long_due = due[due["days_due"] > 30].groupby("account_id").size()
    values["invoices_overdue_30d"] = long_due.reindex(accounts.index).fillna(0.0)
    amount = due.groupby("account_id")["amount"].sum()
    values["amount_overdue"] = amount.reindex(accounts.index).fillna(0.0)
    return values


def _evaluate(values: pd.DataFrame, card: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row an account with score, band, bounds and coverage; and one for each component."""
    components = card["components"]
    present = np.column_stack([values[c["metric"]].notna() for c in components])
    points = np.column_stack([_points(values[c["metric"]], c) for c in components])
    weights = np.array([float(c["weight"]) for c in components])
    counted = ~np.isnan(points)
    effective = np.zeros_like(points)
    counted_pillars, low, high = (np.zeros(len(values)) for _ in range(3))
    for name, pillar in card["pillars"].items():
        inside = np.array([c["pillar"] == name for c in components])
        share = counted[:, inside] * weights[inside]
        total = share.sum(axis=1)
        counted_pillars += np.where(total > 0, pillar["weight"], 0)
        effective[:, inside] = share / np.where(total > 0, total, 1)[:, None] * pillar["weight"]
        nominal = weights[inside] / weights[inside].sum() * pillar["weight"] / 100
        known, here = present[:, inside], points[:, inside]
        low += (np.where(known, here, 0) * nominal).sum(axis=1)
        high += (np.where(known, here, 100) * nominal).sum(axis=1)
    effective /= np.where(counted_pillars > 0, counted_pillars, 1)[:, None]
    running = np.cumsum(np.rint(effective * np.nan_to_num(points) * 1e8).astype(np.int64), axis=1)
    steps = np.diff((running + 500_000) // 1_000_000, axis=1, prepend=0)
    value = np.where(counted_pillars > 0, steps.sum(axis=1) / 100, np.nan)
    scores = pd.DataFrame(
        {"score": card["score"], "value": value, "low": np.floor((100 * low).round(4)) / 100,
         "high": np.ceil((100 * high).round(4)) / 100,
         "coverage": (present * weights).sum(axis=1) / weights.sum()},
        index=values.index,
    )  # fmt: skip
    scores["band"] = _bands(scores, card)
    frame = pd.DataFrame(steps / 100, index=values.index, columns=[c["metric"] for c in components])
    contributions = frame.rename_axis(index="account_id").reset_index()
    contributions = contributions.melt("account_id", var_name="metric", value_name="contribution")
    return scores.rename_axis("account_id").reset_index(), contributions.assign(score=card["score"])


def _bands(scores: pd.DataFrame, card: dict[str, Any]) -> np.ndarray:
    """The band, or unknown where too little is known for the one that reassures."""
    (upper, upper_edge), (middle, middle_edge) = card["bands"].items()
    lower = "green" if card["score"] == "risk" else "none"
    claim, opposite = ("green", "red") if card["score"] == "risk" else ("ready", "none")

    def band(numbers: pd.Series) -> np.ndarray:
        return np.select([numbers >= upper_edge, numbers >= middle_edge], [upper, middle], lower)

    plain, low, high = band(scores["value"]), band(scores["low"]), band(scores["high"])
    unknown = (
        scores["value"].isna().to_numpy()
        | (scores["coverage"] < FEWEST_KNOWN - 1e-9).to_numpy()
        | ((plain == claim) & ((low == opposite) | (high == opposite)))
    )
    return np.where(unknown, "unknown", plain)


def _points(values: pd.Series, component: dict[str, Any]) -> np.ndarray:
    curve = sorted(component["points"].items())
    points = np.interp(values, [x for x, _ in curve], [y for _, y in curve])
    missing = 50.0 if component.get("missing") == "neutral" else np.nan
    return np.where(values.isna(), missing, points)
