"""Saving an answer as a file: whole or not at all."""

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

from connectors.http.answers import Answer, TryAgain, chunks, refuse_web_page
from connectors.http.json_text import parsed
from contracts.errors import SourceCorrupt

Expected = Literal["jsonl", "csv", "zip"]


def save(
    answer: Answer,
    target: Path,
    expect: Expected,
    seconds: float,
    max_bytes: int,
    clock: Callable[[], float],
) -> None:
    """Save an unread answer as `target`, under another name until it is known to be whole.

    Raises:
        TryAgain: it broke off, is damaged, or is something else than `expect`.
        SourceCorrupt: it is too large.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            beginning = b""
            for chunk in chunks(answer, seconds=seconds, max_bytes=max_bytes, clock=clock):
                if len(beginning) < 64:
                    beginning += chunk[:64]
                file.write(chunk)
        if not beginning and answer.raw.length_remaining is None and not answer.raw.chunked:
            # Nothing, and nothing said that there would be nothing: perhaps not even the headers
            # are whole.
            raise TryAgain("broke off its answer")
        refuse_web_page(answer, beginning)
        _CHECKS[expect](part, max_bytes)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _check_zip(path: Path, max_bytes: int) -> None:
    damaged = TryAgain("sent a damaged zip file", kind=SourceCorrupt)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > max_bytes:
                raise SourceCorrupt(
                    f"sent a zip file that unpacks to more than {max_bytes} bytes",
                    "ask for less at a time",
                )
            if archive.testzip() is not None:
                raise damaged
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        raise damaged from None


def _check_jsonl(path: Path, max_bytes: int) -> None:
    with path.open("rb") as file:
        last = _last_line(file)
    if not last:
        return
    try:
        parsed(last)
    except ValueError:
        cause = "broke off in the middle of its last line"
        raise TryAgain(cause, kind=SourceCorrupt) from None


def _last_line(file: BinaryIO) -> bytes:
    """The last line that is not empty, read from the end."""
    position, tail = file.seek(0, os.SEEK_END), b""
    while position > 0:
        step = min(1 << 16, position)
        position -= step
        file.seek(position)
        tail = (file.read(step) + tail).rstrip()
        if b"\n" in tail:
            break
    return tail.rpartition(b"\n")[2].strip()


def _check_csv(path: Path, max_bytes: int) -> None:
    # A CSV has no mark of its end, but it has a header.
    if path.stat().st_size == 0:
        raise TryAgain("sent an empty file", kind=SourceCorrupt)


_CHECKS: dict[Expected, Callable[[Path, int], None]] = {
    "zip": _check_zip,
    "jsonl": _check_jsonl,
    "csv": _check_csv,
}
