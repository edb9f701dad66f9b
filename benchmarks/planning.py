"""A plan of all accounts, in a process of its own, so that its memory can be measured.

`python -m benchmarks.planning WAREHOUSE` prints as JSON what planning the scores of a warehouse
costs: with a CRM that shows something else in every field, and with one that shows all of it. It is
what `healthloop plan` does between reading the CRM and keeping the plan, but for the playbooks.
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

from benchmarks.daily import open_warehouse, peak_bytes, seconds
from connectors.crm.changes import load_confirmed, make_changes, read_changes
from connectors.crm.ledger import ROWS_AT_ONCE
from connectors.crm.planning import Surroundings, make_plan, records_of
from contracts.actions import Decisions
from contracts.crm_fields import written_on
from contracts.tables import BOOKKEEPING, TABLES
from scoring import desired
from scoring.config.metrics import Metric
from scoring.config.profiles import Profiles
from scoring.config.scorecards import BANDS, Scorecard
from scoring.library import Library, NamedScorecard
from scoring.metrics import create_schema

DAY = dt.date(2026, 6, 30)
NOW = dt.datetime(2026, 7, 1, 4, tzinfo=dt.UTC)
MEMORY = "400MB"
"""What DuckDB may use, as `warehouse_memory` says; the rest of a GiB is for Python and Arrow."""

KINDS = ("risk", "upsell", "health:adoption", "handoff")
COMPONENTS = 10
"""Contributions of each score."""

WRITTEN = [field.name for field in written_on("account")]


def measure(accounts: int) -> dict[str, Any]:
    """Seconds and bytes of planning so many accounts: all of them changed, and unchanged."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "planning.duckdb"
        with open_warehouse(file) as connection:
            write_scores(connection, accounts)
            _show_something_else(connection)
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.planning", str(file)],
            stdout=subprocess.PIPE, check=True, text=True,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def plan(file: Path) -> dict[str, Any]:
    """Plan the day twice: every field of every account changes, then none does."""
    with open_warehouse(file) as connection:
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        changed = _plan_day(connection)
        changed_bytes = peak_bytes()
        _show_what_was_planned(connection)
        unchanged = _plan_day(connection)
    return {
        "accounts": changed["accounts"],
        "changed_seconds": changed["seconds"],
        "changed_cpu_seconds": changed["cpu_seconds"],
        "changed_bytes": changed_bytes,
        "changed_fields": changed["fields"],
        "unchanged_seconds": unchanged["seconds"],
        "unchanged_cpu_seconds": unchanged["cpu_seconds"],
        "unchanged_fields": unchanged["fields"],
    }


def _plan_day(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Desired, confirmed, the comparison of the two, and the intents that follow from it."""
    used, found = library(), []

    def work() -> None:
        desired.compute(connection, used, DAY)
        load_confirmed(connection, _shown(connection))
        in_use = {("salesforce", "account"): WRITTEN}
        changes = make_changes(connection, DAY, in_use=in_use, refresh_days=7)
        around = Surroundings(records_of(connection), {})
        plan, _ = make_plan(
            as_of=DAY, lane="daily", made_at=NOW, now=NOW,
            changes=read_changes(connection, changes), decisions=Decisions(DAY), around=around,
        )  # fmt: skip
        found.append((changes.bands.accounts, plan.totals["fields"]))

    began = time.process_time()
    spent = seconds(work)
    cpu_seconds = time.process_time() - began
    ((accounts, fields),) = found
    return {"seconds": spent, "cpu_seconds": cpu_seconds, "accounts": accounts, "fields": fields}


def _show_something_else(connection: duckdb.DuckDBPyConnection) -> None:
    _show(connection, ", ".join(f"'{name}': 'not {name}'" for name in WRITTEN), "signals.accounts")


def _show_what_was_planned(connection: duckdb.DuckDBPyConnection) -> None:
    accounts = "signals.accounts JOIN plan.desired_accounts USING (account_id)"
    _show(connection, ", ".join(f"'{name}': {name}" for name in WRITTEN), accounts)


def _show(connection: duckdb.DuckDBPyConnection, pairs: str, accounts: str) -> None:
    connection.execute(
        "CREATE OR REPLACE TABLE shown AS SELECT crm, 'account' AS object, crm_id AS record_id, "
        f"to_json({{{pairs}}})::VARCHAR AS values FROM {accounts}"
    )


def _shown(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """What records show, in parts, as the ledger gives it."""
    for batch in connection.cursor().execute("FROM shown").to_arrow_reader(ROWS_AT_ONCE):
        yield pa.Table.from_batches([batch])


def library() -> Library:
    """A scorecard for each kind of score; its metrics have nothing but a name."""
    metric = {
        "from": "accounts", "aggregate": "count", "owner": "nobody", "kind": "leading",
        "better": "higher",
    }  # fmt: skip
    names = [f"metric_{number}" for number in range(COMPONENTS)]
    cards = []
    for kind in KINDS:
        upper, middle, _ = BANDS[kind.partition(":")[0]]
        body = {
            "score": kind, "version": 1, "believes": "nothing", "bands": {upper: 70, middle: 40},
            "pillars": {"all": {"weight": 100}},
            "components": [
                {"metric": name, "pillar": "all", "weight": 100 / COMPONENTS,
                 "points": {0: 0, 50: 100}}
                for name in names
            ],
        }  # fmt: skip
        cards.append(NamedScorecard(f"{kind}-default", Scorecard.model_validate(body)))
    return Library(
        metrics={
            name: Metric.model_validate({**metric, "label": f"What is counted in {name}"})
            for name in names
        },
        scorecards=tuple(cards),
        profiles=Profiles.model_validate(
            {"segments": [{"name": "enterprise"}], "stages": [{"name": "mature"}]}
        ),
        hard_signals=(),
        use_metric=None,
    )


def write_scores(connection: duckdb.DuckDBPyConnection, accounts: int) -> None:
    """Accounts in a CRM, and their scores of two days a week apart."""
    connection.execute("CREATE SCHEMA signals")
    for name in ("accounts", "opportunities"):
        columns = {column.name: column.type for column in (*TABLES[name].columns, *BOOKKEEPING)}
        body = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
        connection.execute(f"CREATE TABLE signals.{name} ({body})")
    create_schema(connection)
    connection.execute(
        "INSERT INTO signals.accounts BY NAME SELECT 'ACC-' || n AS account_id, "
        "'salesforce' AS crm, '001' || n AS crm_id, 'crm' AS source, "
        f"TIMESTAMP '2025-01-01' AS known_at FROM range({accounts}) AS t(n)"
    )
    for day in (DAY - dt.timedelta(days=7), DAY):
        connection.execute(
            "INSERT INTO scores.revisions VALUES (?, 1, 'library', 'print', NULL, NULL, true)",
            [day],
        )
        for kind in KINDS:
            bands = list(BANDS[kind.partition(":")[0]])
            connection.execute(
                "INSERT INTO scores.all_scores BY NAME "
                "SELECT $day AS as_of, 1 AS revision, account_id, $kind AS score, "
                "$kind || '-default' AS scorecard, 1 AS version, 'enterprise' AS segment, "
                "'mature' AS stage, 'adoption' AS outcome, "
                "hash(account_id, $kind, $day) % 101 AS value, "
                "$bands[1 + (hash(account_id, $kind) % 3)::INTEGER] AS band, "
                "0 AS low, 100 AS high, 0.9 AS coverage, false AS plumbing FROM signals.accounts",
                {"day": day, "kind": kind, "bands": bands},
            )
    connection.execute(
        "INSERT INTO scores.all_contributions BY NAME "
        "SELECT as_of, 1 AS revision, account_id, score, position, 'component' AS kind, "
        "'metric_' || position AS metric, 'all' AS pillar, "
        "hash(account_id, position) % 50 AS value, 'present' AS state, 10 AS weight, "
        "0.1 AS effective_weight, hash(account_id, score, position) % 101 AS points, "
        "0.1 * points AS contribution FROM scores.all_scores, "
        f"(SELECT unnest(range({COMPONENTS}))::INTEGER AS position) WHERE as_of = ?",
        [DAY],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("warehouse", type=Path)
    print(json.dumps(plan(parser.parse_args().warehouse)))
