"""How the records of the synthetic company tell time, and how most vendors do."""

import datetime as dt
from zoneinfo import ZoneInfo

CRM_ZONE = ZoneInfo("Europe/Berlin")
"""Where the people of the synthetic company look at the clock."""


def epoch(text: str | None) -> float | None:
    """Epoch seconds of a time with its offset; None where it is none."""
    try:
        return dt.datetime.fromisoformat(text).timestamp() if text else None
    except ValueError:
        return None


def from_berlin(text: str) -> float:
    """Epoch seconds of what a clock at the synthetic company shows."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=CRM_ZONE).timestamp()


def iso(epoch_seconds: float) -> str:
    """The time in UTC, to the second: 2026-06-30T12:00:00Z."""
    return f"{dt.datetime.fromtimestamp(int(epoch_seconds), dt.UTC).isoformat()[:19]}Z"


def iso_or_none(epoch_seconds: float | None) -> str | None:
    """The same, where there may be no time."""
    return None if epoch_seconds is None else iso(epoch_seconds)
