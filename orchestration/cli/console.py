"""Printing: tables for people, JSON and CSV for programs, progress only on a terminal."""

import csv
import dataclasses
import datetime as dt
import enum
import io
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 120
"""A pipe has no width of its own; tables are as wide as this there."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
errors = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


class Format(enum.StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def print_rows(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], form: Format
) -> None:
    """Rows as a table, as a JSON list of objects, or as CSV with a header."""
    if form is Format.JSON:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif form is Format.CSV:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[_csv_cell(cell) for cell in row] for row in rows])
        sys.stdout.write(buffer.getvalue())
    else:
        console.print(table_of(title, columns, rows))


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A rich table; numbers stand on the right."""
    table = Table(
        title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for position, name in enumerate(columns):
        numeric = all(
            isinstance(row[position], (int, float, Decimal)) or row[position] is None
            for row in rows
        )
        table.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell) for cell in row))
    return table


def print_json(value: Any) -> None:
    """JSON on standard output, dates as ISO, decimals as numbers."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def plain(value: Any) -> Any:
    """Dataclasses, dates and decimals as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value


def number(value: float | Decimal | None, digits: int = 0) -> str:
    """A number with thousands separators, or a dash."""
    return "-" if value is None else f"{value:,.{digits}f}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if value != round(value) else f"{value:,.0f}"
    return escape(str(value))


def _csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet does not take for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    if isinstance(value, float):
        return round(value, 2)
    return "" if value is None else value


def escape(text: str) -> str:
    """Text that rich prints as it is, without control characters."""
    visible = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return visible.replace("[", r"\[")
