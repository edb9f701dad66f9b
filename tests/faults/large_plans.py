"""Plans and applies changes of very many records, in a process whose memory can be measured.

``python -m tests.faults.large_plans FOLDER RECORDS WAY`` writes all records, by ``collections`` or
``jobs``, and prints as JSON how many were written, and how many bytes the process had at most.
"""

import json
import re
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from connectors.crm.applying import apply_plan
from connectors.crm.ledger import Ledger
from connectors.crm.planning import Surroundings, make_plan
from connectors.crm.plans import FieldChange, FieldChanges, RecordChange
from connectors.crm.writing import Budget, FieldUpdate, JobState, Outcome, Result
from contracts.actions import Decisions
from tests.ledgers import NOW

REASONS = "The champion has left; three tickets are late; nobody has logged in for a week. " * 3


class Willing:
    """A CRM that does whatever it is asked to, and remembers nothing."""

    name, batch_size, requests_sent = "salesforce", 200, 0

    def __init__(self, *, jobs: bool) -> None:
        self.bulk = self if jobs else None

    def budget(self) -> Budget:
        return Budget(None, None)

    def update(self, updates: Sequence[FieldUpdate]) -> list[Result]:
        return [Result(Outcome.DONE, update.record_id) for update in updates]

    def create(self, object: str, fields: Sequence[str]) -> str:
        return "750000000000001AAA"

    def upload(self, job_id: str, updates: Sequence[FieldUpdate]) -> None:
        assert len(updates) > self.batch_size

    def state(self, job_id: str) -> JobState:
        return "complete"

    def results(self, job_id: str, updates: Sequence[FieldUpdate]) -> list[Result]:
        return self.update(updates)


def changes(records: int) -> Iterator[RecordChange]:
    """The fields of one score for so many accounts."""
    for number in range(records):
        values = {
            "risk_score": str(number % 101), "risk_band": "red", "risk_as_of": "2026-06-30",
            "risk_reasons": f"{REASONS} ({number})", "risk_change": "5",
        }  # fmt: skip
        fields = FieldChanges.of(
            FieldChange(name, None, value, "new") for name, value in values.items()
        )
        yield RecordChange("salesforce", "account", f"001{number:015}", f"A{number}", fields)


def main(folder: Path, records: int, way: str) -> None:
    plan, intents = make_plan(
        as_of=NOW.date(), lane="daily", made_at=NOW, now=NOW, changes=changes(records),
        decisions=Decisions(day=NOW.date()), around=Surroundings(records={}, people={}),
    )  # fmt: skip
    now = lambda: NOW  # noqa: E731
    with (
        Ledger(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger,
        ledger.lease(holder="a test", now=now, seconds=300) as lease,
    ):
        ledger.store(plan, intents)
        del intents
        writer = Willing(jobs=way == "jobs")
        applied = apply_plan(
            ledger, plan.plan_id, {"salesforce": writer}, now=now, lease=lease, budget={},
            bulk_above={"salesforce": 2000} if writer.bulk else {},
        )  # fmt: skip
    print(json.dumps({"written": applied.total("written"), "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """The most memory that this process has had resident since it began."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What Linux tells otherwise counts the process that this one was forked from.
    (kibibytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    return int(kibibytes) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
