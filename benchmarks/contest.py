"""Healthloop and pandas over the same rows: the same metrics and scores, and how long each took."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pandas as pd

from benchmarks import rival
from benchmarks.compact import compact_library
from benchmarks.daily import open_warehouse, score_day, seconds, shipped_library
from benchmarks.world import LAST_DAY

REPETITIONS = 3


@dataclass(frozen=True)
class Contest:
    """Seconds of each, and what was compared: numbers, and those that differ."""

    ours_seconds: float
    whole_seconds: float
    windows_seconds: float
    compared: int
    different: int


def measure(warehouse: Path, folder: Path, repetitions: int = REPETITIONS) -> Contest:
    """Compute days in turns with each, and compare the last one number by number."""
    connection, library = open_warehouse(warehouse), compact_library(shipped_library())
    write_parquet(connection, folder)
    ours, whole, windows = [], [], []
    for number in range(repetitions):
        day = LAST_DAY - dt.timedelta(days=number)
        ours.append(seconds(score_day, connection, library, day))
        windows.append(seconds(rival.score_day, folder, day, whole=False))
        whole.append(seconds(rival.score_day, folder, day, whole=True))
    compared, different = _compare(connection, day, *rival.score_day(folder, day, whole=False))
    connection.close()
    return Contest(median(ours), median(whole), median(windows), compared, different)


def write_parquet(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """The columns that pandas needs, as Parquet in the order of the days; not measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for table, columns in rival.WANTED.items():
        connection.execute(
            f"COPY (SELECT {columns} FROM signals.{table}) TO '{folder / table}.parquet'"
        )


def _compare(
    connection: duckdb.DuckDBPyConnection,
    day: dt.date,
    values: pd.DataFrame,
    scores: pd.DataFrame,
    contributions: pd.DataFrame,
) -> tuple[int, int]:
    """How many numbers were compared, and how many differ by more than rounding."""
    mine = connection.execute(
        "SELECT account_id, metric, value FROM metrics.metric_values WHERE as_of = ?", [day]
    ).df()
    theirs = values.rename_axis("account_id").reset_index()
    theirs = theirs.melt("account_id", var_name="metric", value_name="theirs")
    joined = mine.merge(theirs, on=["account_id", "metric"], how="outer", indicator=True)
    same = np.isclose(
        joined["value"].astype(float), joined["theirs"].astype(float), rtol=1e-9, equal_nan=True
    ) & (joined["_merge"] == "both")
    added = connection.execute(
        "SELECT account_id, score, metric, contribution::DOUBLE AS mine "
        "FROM scores.contributions WHERE as_of = ?",
        [day],
    ).df()
    both = added.merge(contributions, on=["account_id", "score", "metric"], how="outer")
    # A hundredth of a point more or less is the last digit of a fraction, rounded.
    near = (both["mine"] - both["contribution"]).abs() < 0.0101
    numbers = ["value", "low", "high", "coverage"]
    scored = connection.execute(
        "SELECT account_id, score, value::DOUBLE AS value, low::DOUBLE AS low, "
        "high::DOUBLE AS high, coverage, band FROM scores.scores WHERE as_of = ?",
        [day],
    ).df()
    pairs = scored.merge(scores, on=["account_id", "score"], how="outer", suffixes=("", "_theirs"))
    alike = pairs["band"] == pairs["band_theirs"]
    for name in numbers:
        alike &= np.isclose(pairs[name], pairs[name + "_theirs"], atol=0.0101, equal_nan=True)
    return (
        len(joined) + len(both) + len(pairs),
        int((~same).sum() + (~near).sum() + (~alike).sum()),
    )
