"""Loads of a stream that are not believed: a column vanished, a type is new, most rows are gone.

A load is measured by those before it that were believed. What a person accepted is believed, and
what came before it no longer counts.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from connectors.acceptance import Accepted
from connectors.mapping import Mapping
from connectors.raw_state import ALWAYS_FILLED, ENOUGH_ROWS, RawState, Stream

LEAST_SHARE_OF_LIST = 0.5
"""A complete list that is shorter than this share of the last one has lost its rows."""


@dataclass
class _Past:
    """What the believed loads of a stream were like.

    `filled` counts, of each column, the rows of loads that had a value of it, and the values.
    """

    filled: dict[str, tuple[int, int]] = field(default_factory=dict)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)


def doubts(raw: RawState, stream: Stream, mapping: Mapping, accepted: Accepted) -> dict[str, str]:
    """The loads of a stream that a mapping should not read, each with the reason.

    Args:
        raw: All loads, with their columns counted.
        stream: One that the mapping reads.
        mapping: Only columns that it uses matter.
        accepted: What a person believes.
    """
    found: dict[str, str] = {}
    past = _Past()
    used = sorted(mapping.columns)
    reader = f"sources/{mapping.source}/{mapping.table}.sql"
    name = f"raw_{stream[0]}.{stream[1]}"
    by_hand = f"`healthloop sources accept {stream[0]} {stream[1]}`"
    for load in raw.loads([stream]):
        if accepted.has(stream, load):
            past = _Past()
        elif column := _vanished(raw, stream, load, used, past):
            found[load] = (
                f"column '{column}' of {name}, which {reader} uses, has vanished; "
                "restore the column or change the mapping"
            )
        elif changed := _changed(raw, stream, load, used, past):
            column, before, now = changed
            found[load] = (
                f"column '{column}' of {name}, which {reader} uses, was {before} and now is {now}; "
                f"mend it at the source, or accept it with {by_hand}"
            )
        elif short := _short(raw, stream, load, past):
            file, rows, before_rows = short
            found[load] = (
                f"most rows of {file or name} are gone: {rows:,}, where there were "
                f"{before_rows:,}; the old are kept until they are back, or until {by_hand}"
            )
        _remember(raw, stream, load, past, believed=load not in found)
    return found


def _vanished(
    raw: RawState, stream: Stream, load: str, used: Collection[str], past: _Past
) -> str | None:
    """A column in use that older loads had and this one has not."""
    here = raw.columns.get(stream, {}).get(load, {})
    size = max((rows for rows, _ in here.values()), default=0)
    for column in used if size else ():
        rows, filled = past.filled.get(column, (0, 0))
        if not rows or (column in here and here[column][1]):
            continue
        enough = filled / rows >= ALWAYS_FILLED and min(rows, size) >= ENOUGH_ROWS
        if column not in here or enough:
            return column
    return None


def _changed(
    raw: RawState, stream: Stream, load: str, used: Collection[str], past: _Past
) -> tuple[str, str, str] | None:
    """A column in use that holds a JSON type which was never seen in it: (it, before, now)."""
    for column in used:
        known = past.kinds.get(column, set())
        new = {k for v in raw.brought(stream, load) for k in v.kinds.get(column, ())} - known
        if known and new:
            return column, " or ".join(sorted(known)), " or ".join(sorted(new))
    return None


def _short(
    raw: RawState, stream: Stream, load: str, past: _Past
) -> tuple[str | None, int, int] | None:
    """A complete list that lost most of its rows: (its file, rows now, rows before)."""
    for version in raw.brought(stream, load):
        before = past.lengths.get(version.source_file, 0)
        if not version.whole or before < ENOUGH_ROWS:
            continue
        if version.rows < LEAST_SHARE_OF_LIST * before:
            is_file = version.source_file != stream[1]
            return f"'{version.source_file}'" if is_file else None, version.rows, before
    return None


def _remember(raw: RawState, stream: Stream, load: str, past: _Past, *, believed: bool) -> None:
    for column, (rows, filled) in raw.columns.get(stream, {}).get(load, {}).items():
        if filled:
            before = past.filled.get(column, (0, 0))
            past.filled[column] = (before[0] + rows, before[1] + filled)
    for version in raw.brought(stream, load) if believed else ():
        for column, kinds in version.kinds.items():
            past.kinds.setdefault(column, set()).update(kinds)
        if version.whole:
            past.lengths[version.source_file] = version.rows
