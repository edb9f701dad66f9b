"""`make bench`: how fast Healthloop is, as ratios measured in one run on one machine.

Everything is made in a temporary folder, which is removed at the end. Times depend on the machine;
the ratios hardly do, which is why only they have goals.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import contest, fast_lane, planning, pulling, refresh, unchanged, writing
from benchmarks.daily import open_warehouse
from benchmarks.world import Size, write_signals

MIB = 1024**2
GIB = 1024**3
PULLED_ROWS = 1_000_000
"""Rows of an API that are pulled, in pages of a thousand."""

LANE_ACCOUNTS = 10_000
"""The most accounts of the company whose tickets are to reach its CRM."""

REFRESH_ROWS = 10_000_000
"""Rows of usage for the refresh, which builds everything four times: enough for the ratio."""


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured, and the most (or the least) that it should be."""

    name: str
    measured: float
    goal: float
    unit: str = "times"
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is as good as its goal."""
        return self.measured >= self.goal if self.at_least else self.measured <= self.goal


@dataclass(frozen=True)
class Findings:
    """Figures, and notes that explain them."""

    figures: list[Figure]
    notes: list[str]


def measure_days(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """One day and many month-ends with the shipped library, in a process of their own."""
    copy = shutil.copy(warehouse, folder / "days.duckdb")
    _say(f"one day against one GROUP BY, then {months} month-ends")
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.daily", str(copy), "--months", str(months)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found = json.loads(child.stdout)
    Path(copy).unlink()
    total = sum(found["by_step"].values())
    steps = "\n".join(
        f"    {100 * spent / total:3.0f} %  {step}" for step, spent in found["by_step"].items()
    )
    return Findings(
        [
            Figure("one day / one GROUP BY over usage", found["day"] / found["group_by"], 10),
            Figure("memory of one day", found["day_bytes"] / GIB, 4, "GiB"),
            Figure(f"{months} month-ends / one day", found["months"] / found["day"], 16),
            Figure(f"memory of {months} month-ends", found["months_bytes"] / GIB, 4, "GiB"),
        ],
        [
            f"one day: {found['day']:.2f} s for {found['accounts']:,} accounts, "
            f"one GROUP BY: {found['group_by']:.2f} s, month-ends: {found['months']:.0f} s",
            f"where one day goes:\n{steps}",
        ],
    )


def measure_pandas(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """The compact library in both engines, with results that have to be equal."""
    copy = Path(shutil.copy(warehouse, folder / "contest.duckdb"))
    _say("the compact library in Healthloop and in pandas")
    found = contest.measure(copy, folder / "parquet")
    copy.unlink()
    ours = found.ours_seconds
    return Findings(
        [
            Figure(
                "pandas, whole tables / Healthloop", found.whole_seconds / ours, 10, at_least=True
            ),
            Figure(
                "pandas, only windows / Healthloop", found.windows_seconds / ours, 10, at_least=True
            ),
            Figure("results that differ from pandas", found.different, 0, "results"),
        ],
        [
            f"compared with pandas: {found.compared:,} results; ours {ours:.2f} s, pandas "
            f"{found.whole_seconds:.2f} s and {found.windows_seconds:.2f} s"
        ],
    )


def measure_refresh(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """`signals` brought up to date, against all of it built anew, over a lake of its own."""
    rows = min(size.usage_rows, REFRESH_ROWS)
    _say(f"signals over a lake with {rows:,} rows of usage")
    found = refresh.measure(folder / "company", size.accounts, rows, _say)
    shutil.rmtree(folder / "company")
    return Findings(
        [
            Figure(
                "1 % new rows / full rebuild of signals",
                found.update_seconds / found.rebuild_seconds,
                0.1,
            ),
            Figure("tables that differ after the two", float(not found.same), 0, "tables"),
        ],
        [
            f"signals: {found.new_rows:,} new rows in {found.update_seconds:.2f} s, "
            f"rebuild of {found.rows:,} in {found.rebuild_seconds:.2f} s"
        ],
    )


def measure_pulling(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """An API pulled into the lake, against `requests` and `json` looping over the same pages."""
    rows = min(size.usage_rows, PULLED_ROWS)
    (folder / "pulling").mkdir()
    ways = pulling.measure(folder / "pulling", rows, _say)
    shutil.rmtree(folder / "pulling")
    plain = ways["plain"].rows_per_second
    figures = [Figure("rows that a pull misses", float(_missing(ways, rows)), 0, "rows")]
    for name, way in (("JSON", ways["rest"]), ("CSV", ways["csv"])):
        figures += [
            Figure(f"{name} pull / requests and json", way.rows_per_second / plain, 0.5,
                   "times", at_least=True),
            Figure(f"memory of a {name} pull", way.bytes / MIB, 400, "MiB"),
        ]  # fmt: skip
    fastest = max(pulling.LIMITS, key=lambda vendor: pulling.LIMITS[vendor])
    limit = pulling.LIMITS[fastest]
    figures.append(
        Figure("JSON pull / fastest vendor's limit", ways["rest"].rows_per_second / limit, 1,
               "times", at_least=True)
    )  # fmt: skip
    speeds = ", ".join(f"{name} {way.rows_per_second:,.0f}" for name, way in ways.items())
    return Findings(
        figures,
        [
            f"pulling {rows:,} rows, rows a second: {speeds}",
            f"the fastest limit is {fastest}'s, {limit:,.0f} rows a second",
        ],
    )


def measure_unchanged(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """What an hour without changes costs at every vendor, against the sandbox."""
    _say("two readings of every vendor")
    hours = unchanged.measure(folder / "unchanged")
    shutil.rmtree(folder / "unchanged")
    most = max(hour.per_stream for hour in hours)
    counts = ", ".join(f"{hour.vendor} {hour.unchanged} for {hour.streams}" for hour in hours)
    return Findings(
        [Figure("requests of an unchanged hour for each stream", most, 1, "requests")],
        [f"requests of an unchanged hour, by vendor and its streams: {counts}"],
    )


def measure_writing(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """Scores planned and written into both CRMs, against a loop of single updates."""
    _say(f"planning {size.accounts:,} accounts")
    plan = planning.measure(size.accounts)
    (folder / "writing").mkdir()
    ways = writing.measure(folder / "writing", size.accounts, _say)
    shutil.rmtree(folder / "writing")
    unchanged_runs = [way.unchanged for way in ways.values()]
    figures = [
        Figure("planning, every field changed", plan["changed_seconds"], 5, "s"),
        Figure("memory of planning", plan["changed_bytes"] / GIB, 1, "GiB"),
        Figure("planning, nothing changed", plan["unchanged_seconds"], 5, "s"),
        Figure("write calls of unchanged runs", sum(run.writes for run in unchanged_runs), 0,
               "calls"),
        Figure("tasks of unchanged runs", sum(run.tasks for run in unchanged_runs), 0, "tasks"),
        Figure("write calls by Salesforce's bulk jobs", ways["bulk"].changed.writes, 15, "calls"),
        _calls("calls for 1,000 records by Salesforce's collections", ways["collections"], 6),
        _calls("calls for 1,000 records by HubSpot's batches", ways["hubspot"], 12),
        Figure("ledger, for each batch of 200", 1000 * ways["collections"].changed.batch_seconds,
               10, "ms"),
    ]  # fmt: skip
    figures += [
        Figure(f"one by one / {name}", way.times_faster, 30, at_least=True)
        for name, way in ways.items()
    ]
    planned = (
        f"planning {plan['accounts']:,} accounts: {plan['changed_seconds']:.1f} s "
        f"({plan['changed_cpu_seconds']:.1f} s of the processor) where {plan['changed_fields']:,} "
        f"fields change, {plan['unchanged_seconds']:.1f} s ({plan['unchanged_cpu_seconds']:.1f} s) "
        "where none does"
    )
    return Findings(figures, [planned, *(_of_way(name, way) for name, way in ways.items())])


def _calls(name: str, way: writing.Way, most: int) -> Figure:
    """Write calls for 1,000 records; ten more are allowed, however many there are."""
    records = way.changed.records / 1000
    return Figure(name, way.changed.writes / records, most + 10 / records, "calls")


def _of_way(name: str, way: writing.Way) -> str:
    changed, loop = way.changed, way.loop
    return (
        f"{name}: {changed.records:,} records and {changed.tasks} tasks in {changed.seconds:.1f} s "
        f"({changed.cpu_seconds:.1f} s of the processor, {changed.server_seconds:.1f} s of the "
        f"server's) by {changed.writes:,} write "
        f"calls, {1000 * changed.batch_seconds:.1f} ms of the ledger for each; planned and looked "
        f"at in {changed.plan_seconds:.1f} s; {way.bytes / MIB:,.0f} MiB; {loop.records:,} updates "
        f"one by one: {loop.seconds:.1f} s ({loop.cpu_seconds:.1f} s, {loop.server_seconds:.1f} s)"
    )


def measure_fast_lane(folder: Path, warehouse: Path, size: Size, months: int) -> Findings:
    """From P1 tickets in the help desk to fields and tasks in both CRMs."""
    lanes = fast_lane.measure(folder / "fast_lane", min(size.accounts, LANE_ACCOUNTS), _say)
    shutil.rmtree(folder / "fast_lane")
    figures, notes = [], []
    for (crm, sources), lane in lanes.items():
        pulled = f"{', '.join(sources) or 'all sources'} pulled"
        figures.append(Figure(f"from a P1 ticket to {crm}, {pulled}", lane.seconds, 60, "s"))
        notes.append(_of_lane(f"fast lane to {crm}, {pulled}", lane))
        calls = max(minute.writes for minute in lane.tickets)
        figures.append(Figure(f"write calls for a ticket, {crm}, {pulled}", calls, 2, "calls"))
    alone = [lane.quiet for (crm, sources), lane in lanes.items() if sources]
    figures += [
        Figure("write calls of fast runs without news",
               sum(lane.quiet.writes for lane in lanes.values()), 0, "calls"),
        Figure("requests to the CRM of fast runs without news",
               sum(sum(minute.asked.values()) for minute in alone), 0, "requests"),
    ]  # fmt: skip
    return Findings(figures, notes)


def _of_lane(name: str, lane: fast_lane.Lane) -> str:
    last = lane.tickets[-1]
    each = ", ".join(f"{minute.seconds:.1f}" for minute in lane.tickets)
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in lane.steps().items())
    quiet = ", ".join(f"{vendor} {count}" for vendor, count in lane.quiet.requests.items())
    asked = ", ".join(f"{count} {what}" for what, count in last.asked.items())
    return (
        f"{name}: {each} s; requests without news: {quiet or 'none'}; to the CRM with a ticket: "
        f"{asked}; seconds of a run: {steps}; without news {lane.quiet.run_seconds:.1f}"
    )


def _missing(ways: dict[str, pulling.Way], rows: int) -> int:
    return sum(abs(way.rows - rows) for way in ways.values())


BENCHMARKS: dict[str, Callable[[Path, Path, Size, int], Findings]] = {
    "days": measure_days,
    "pandas": measure_pandas,
    "refresh": measure_refresh,
    "pulling": measure_pulling,
    "unchanged": measure_unchanged,
    "writing": measure_writing,
    "fast_lane": measure_fast_lane,
}


def run(size: Size, names: list[str], months: int) -> Findings:
    """Make the data, measure, and clean up."""
    figures: list[Figure] = []
    notes: list[str] = []
    with TemporaryDirectory(prefix="healthloop-bench-") as temporary:
        folder = Path(temporary)
        warehouse = folder / "warehouse.duckdb"
        if set(names) & {"days", "pandas"}:
            _say(f"making {size}")
            with open_warehouse(warehouse) as connection:
                write_signals(connection, size)
        for name in names:
            found = BENCHMARKS[name](folder, warehouse, size, months)
            for figure in found.figures:
                _say(f"{figure.name}: {figure.measured:.2f} {figure.unit}")
            figures += found.figures
            notes += found.notes
    return Findings(figures, notes)


def table(figures: list[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | measured | goal | reached |", "|---|--:|--:|---|"]
    for figure in figures:
        bound = "at least" if figure.at_least else "at most"
        lines.append(
            f"| {figure.name} | {figure.measured:.2f} {figure.unit} "
            f"| {bound} {figure.goal:g} | {'yes' if figure.reached else 'no'} |"
        )
    return "\n".join(lines)


_BEGAN = time.monotonic()


def _say(step: str) -> None:
    """A line of progress, on the error stream, so that the table can be piped."""
    print(f"[{time.monotonic() - _BEGAN:6.0f} s] {step}", file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--accounts", type=int, default=Size.accounts)
    parser.add_argument("--usage-rows", type=int, default=Size.usage_rows)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--only", choices=BENCHMARKS, action="append", metavar="NAME",
                        help=f"one of {', '.join(BENCHMARKS)}; may be repeated")  # fmt: skip
    given = parser.parse_args()
    size = Size.scaled(given.accounts, given.usage_rows)
    found = run(size, given.only or list(BENCHMARKS), given.months)
    print(f"\n{size}\n\n{table(found.figures)}\n")
    for note in found.notes:
        print(note)


if __name__ == "__main__":
    main()
