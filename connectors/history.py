"""The history of scores beside the lake: every revision as Parquet, so that no rebuild loses one.

The warehouse can be rebuilt from the lake, but a score that was shown to somebody last month cannot
be recomputed once its scorecard has changed. So each revision is written to a folder of its own,
``scores/<day>-<revision>/``, completed by a rename, and read back into a warehouse that lacks it.
"""

import datetime as dt
import os
import re
import shutil
import uuid
from pathlib import Path

from duckdb import DuckDBPyConnection

from connectors.quoting import literal

TABLES = ("all_scores", "all_contributions", "all_families", "revisions")
_NAME = re.compile(r"^(\d{4}-\d{2}-\d{2})-(\d+)$")


def archive(connection: DuckDBPyConnection, folder: Path, day: dt.date, revision: int) -> None:
    """Write one revision of a day's scores, and the library that made it."""
    target = folder / f"{day}-{revision}"
    if target.exists():
        return
    unfinished = folder / f".{target.name}-{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True)
    try:
        for table in TABLES:
            _copy(
                connection,
                f"SELECT * FROM scores.{table} "
                f"WHERE as_of = DATE '{day}' AND revision = {revision}",
                unfinished / f"{table}.parquet",
            )
        _copy(
            connection,
            "SELECT l.* FROM scores.libraries AS l JOIN scores.revisions AS r USING (library) "
            f"WHERE r.as_of = DATE '{day}' AND r.revision = {revision}",
            unfinished / "libraries.parquet",
        )
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def restore(connection: DuckDBPyConnection, folder: Path) -> int:
    """Read back every archived revision that the warehouse lacks; returns how many it were."""
    known = set(connection.execute("SELECT as_of, revision FROM scores.revisions").fetchall())
    missing = [
        path
        for path in sorted(folder.glob("*-*"))
        if (match := _NAME.match(path.name))
        and (dt.date.fromisoformat(match[1]), int(match[2])) not in known
    ]
    for path in missing:
        connection.execute("BEGIN")
        try:
            for table in (*TABLES, "libraries"):
                conflict = " ON CONFLICT DO NOTHING" if table == "libraries" else ""
                connection.execute(
                    f"INSERT INTO scores.{table} BY NAME "
                    f"SELECT * FROM read_parquet({literal(str(path / table))} || '.parquet')"
                    + conflict
                )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
    return len(missing)


def _copy(connection: DuckDBPyConnection, query: str, file: Path) -> None:
    connection.execute(f"COPY ({query}) TO {literal(str(file))} (FORMAT parquet)")
