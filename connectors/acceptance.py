"""What a person accepted of a stream that is suspect: `accepted.jsonl` in the lake.

It stands beside the data that it is about, so that a rebuild from the lake believes the same.
"""

import datetime as dt
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts.company import Company
from contracts.errors import ConfigurationError, Problem

FILE = "accepted.jsonl"


@dataclass(frozen=True)
class Accepted:
    """Loads that are believed as they are, and days from which on volume is learned anew.

    Both are by (source, stream).
    """

    loads: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    days: dict[tuple[str, str], dt.date] = field(default_factory=dict)

    def has(self, stream: tuple[str, str], load_id: str) -> bool:
        """Whether a load was accepted."""
        return load_id in self.loads.get(stream, ())


def read_accepted(company: Company) -> Accepted:
    """Everything that was ever accepted.

    Raises:
        ConfigurationError: a line of the file cannot be read.
    """
    accepted, file = Accepted(), company.lake / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            stream = (entry["source"], entry["stream"])
            accepted.loads.setdefault(stream, set()).update(entry["loads"])
            if entry["from_day"]:
                accepted.days[stream] = dt.date.fromisoformat(entry["from_day"])
        except (ValueError, KeyError, TypeError):
            problem = Problem(file, number, "not what Healthloop wrote", "take the line out")
            raise ConfigurationError([problem]) from None
    return accepted


def accept(
    company: Company,
    source: str,
    stream: str,
    *,
    loads: Iterable[str],
    from_day: dt.date | None,
    now: dt.datetime,
) -> None:
    """Remember that a person believes these loads, and the volume of days from `from_day` on."""
    entry = {
        "source": source, "stream": stream, "loads": sorted(loads, key=float),
        "from_day": from_day and from_day.isoformat(), "accepted_at": now.isoformat(),
    }  # fmt: skip
    file = company.lake / FILE
    former = file.read_text(encoding="utf-8") if file.exists() else ""
    written = file.with_suffix(".new")
    written.write_text(f"{former}{json.dumps(entry)}\n", encoding="utf-8")
    os.replace(written, file)
