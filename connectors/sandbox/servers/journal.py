"""What was written to a sandbox, kept in files so that the next one of the same world knows it."""

from pathlib import Path
from threading import Lock

import orjson

from connectors.sandbox.servers.tables import Row, Table


class Journal:
    """One file of JSON lines for each collection; a line is one version of a record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()

    def attach(self, table: Table, vendor: str, name: str) -> None:
        """Give a filled table what was written to it before, and keep what will be."""
        file = self._folder / vendor / f"{name}.jsonl"
        for line in file.read_bytes().splitlines() if file.is_file() else ():
            try:
                id, body, at, deleted = orjson.loads(line)
            except ValueError:
                continue  # the last line of a sandbox that was killed while writing it
            if deleted and table.get(id, at) is not None:
                table.remove(id, at)
            elif not deleted:
                table.put(id, body, at)

        def note(row: Row) -> None:
            line = orjson.dumps([row.id, row.body, row.changed, row.deleted])
            with self._lock:
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("ab") as opened:
                    opened.write(line + b"\n")

        table.on_change = note
