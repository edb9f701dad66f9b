"""The files of a synthetic company, read once."""

import csv
import gzip
import io
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from contracts.errors import InputError


class WorldFiles:
    """The files below one folder. What it returns is shared: never change it in place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, list[dict[str, Any]]] = {}
        self._lock = Lock()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of ``crm/accounts.csv`` or the objects of ``billing/invoices.jsonl``.

        CSV cells are text, empty ones None; the delimiter is whatever the header uses. A file that
        is only there as ``<name>.gz`` is found too.

        Raises:
            InputError: there is no such file.
        """
        with self._lock:
            if name not in self._read:
                self._read[name] = _parsed(self.path(name))
            return self._read[name]

    def path(self, name: str) -> Path:
        """Where a file lies.

        Raises:
            InputError: there is no such file.
        """
        for path in (self.folder / name, self.folder / f"{name}.gz"):
            if path.is_file():
                return path
        raise InputError(f"{self.folder} has no {name}", "make the synthetic world again")

    def glob(self, pattern: str) -> list[Path]:
        """The files like ``product/usage_*.parquet``, by name."""
        return sorted(self.folder.glob(pattern))


def _parsed(path: Path) -> list[dict[str, Any]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if ".jsonl" in path.suffixes:
        return [orjson.loads(line) for line in content.splitlines() if line.strip()]
    text = content.decode("utf-8")
    header = text.partition("\n")[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    lines = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [{name: cell or None for name, cell in line.items()} for line in lines]
