"""A raw, fast server of pages that were rendered beforehand; a process of its own.

``python -m benchmarks.pages FOLDER ROWS`` renders, prints its port and serves until it is ended:
``/rows?page=3`` is a page of a thousand JSON objects with the address of the next, ``/rows.csv``
all of them as CSV.
"""

import argparse
import datetime as dt
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv

PER_PAGE = 1_000
_BEGAN = dt.datetime(2026, 1, 1)
_STATUSES = ("new", "open", "pending", "hold", "solved", "closed")


def row(number: int) -> dict[str, Any]:
    """One of the rows: a dozen fields as a help desk's ticket may have, the same for everybody."""
    updated = _BEGAN + dt.timedelta(seconds=10 * number)
    return {
        "id": 10_000_000 + number,
        "organization_id": 360_000_000 + number * 7919 % 5_000,
        "created_at": (updated - dt.timedelta(hours=number % 300)).isoformat() + "Z",
        "updated_at": updated.isoformat() + "Z",
        "status": _STATUSES[number % 6],
        "priority": "normal" if number % 3 else "urgent",
        "channel": "web",
        "reopens": number % 4,
        "hours": number % 977 / 8,
        "escalated": number % 50 == 0,
        "tags": ["product", f"area-{number % 20}"],
        "satisfaction": {"score": "good"} if number % 5 == 0 else None,
    }


def render(folder: Path, rows: int) -> list[tuple[int, int]]:
    """Write all pages into one file and the CSV into another; where each page lies."""
    places, at = [], 0
    pages = -(-rows // PER_PAGE)
    with (folder / "pages").open("wb") as json_file, (folder / "rows.csv").open("wb") as csv_file:
        for page in range(pages):
            objects = [row(n) for n in range(page * PER_PAGE, min((page + 1) * PER_PAGE, rows))]
            following = f"/rows?page={page + 1}" if page + 1 < pages else None
            body = orjson.dumps({"data": objects, "next": following})
            places.append((at, len(body)))
            at += json_file.write(body)
            flat = [
                value | {"tags": " ".join(value["tags"]), "satisfaction": ""} for value in objects
            ]
            options = pa.csv.WriteOptions(include_header=page == 0)
            pa.csv.write_csv(pa.Table.from_pylist(flat), csv_file, options)
    return places


def serve(folder: Path, places: list[tuple[int, int]], listening: socket.socket) -> None:
    """Answer every connection in a thread, for ever."""
    while True:
        connection, _ = listening.accept()
        arguments = (connection, folder, places)
        threading.Thread(target=_answer_all, args=arguments, daemon=True).start()


def _answer_all(connection: socket.socket, folder: Path, places: list[tuple[int, int]]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    whole_csv = (0, (folder / "rows.csv").stat().st_size)
    opened = ((folder / name).open("rb") for name in ("pages", "rows.csv"))
    with connection, next(opened) as pages, next(opened) as csv:
        asked = b""
        while received := connection.recv(65_536):
            asked += received
            if not asked.endswith(b"\r\n\r\n"):
                continue
            page = re.match(rb"GET /rows(?:\?page=(\d+))?[ &?]", asked)
            file, (at, size) = (pages, places[int(page[1] or 0)]) if page else (csv, whole_csv)
            kind = b"application/json" if page else b"text/csv"
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, size)
            )
            while size:
                sent = os.sendfile(connection.fileno(), file.fileno(), at, size)
                at, size = at + sent, size - sent
            asked = b""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=int)
    given = parser.parse_args()
    rendered = render(given.folder, given.rows)
    with socket.create_server(("127.0.0.1", 0)) as door:
        print(door.getsockname()[1], flush=True)
        serve(given.folder, rendered, door)
