"""Where files lie: a folder on this machine, a bucket (through fsspec), or an https address."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

import fsspec  # type: ignore[import-untyped]

from connectors.http import fetch, without_secrets
from connectors.sources import FileStream
from contracts.errors import SourceError, SourceRefused, SourceUnavailable

_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}


@dataclass(frozen=True)
class Found:
    """A file at the location: its path below it, and a signature that changes with it."""

    name: str
    signature: str


class Place(Protocol):
    """Where files lie."""

    def find(self, stream: FileStream) -> list[Found]:
        """The files of a stream, by name."""
        ...

    def open(self, found: Found) -> AbstractContextManager[Path]:
        """A context manager that gives a local path to the file's content."""
        ...


def place_of(location: str, home: Path) -> Place:
    """The place behind a location.

    Raises:
        SourceRefused: a package for it is not installed, or it is not there.
    """
    if location.startswith(("https://", "http://")):
        return _Web(location)
    return _Folder(location, home)


class _Folder:
    """A folder on this machine or in a bucket, through fsspec."""

    def __init__(self, location: str, home: Path) -> None:
        self._shown = without_secrets(location) if "://" in location else location
        scheme = location.partition("://")[0] if "://" in location else ""
        try:
            target = location if scheme else str((home / location).resolve())
            self._files, self._root = fsspec.core.url_to_fs(target)
        except ImportError:
            extra = _EXTRAS.get(scheme, scheme)
            raise SourceRefused(
                f"reading {scheme}:// needs a package that is not installed",
                f"run `pip install healthloop[{extra}]`",
            ) from None
        except ValueError:
            raise SourceRefused(
                f"{self._shown} is no kind of location that we know",
                "give a folder, s3://, gs://, az:// or https://",
            ) from None
        self._local = not scheme or scheme == "file"

    def find(self, stream: FileStream) -> list[Found]:
        """The files that match the stream's pattern, by name."""
        with _reachable(self._shown):
            if self._local and not Path(self._root).is_dir():
                raise SourceRefused(
                    f"the folder {self._shown} does not exist", "correct `location`"
                )
            matches = self._files.glob(f"{self._root.rstrip('/')}/{stream.files}", detail=True)
        found = [
            Found(path.removeprefix(self._root).lstrip("/"), _signature(info))
            for path, info in sorted(matches.items())
            if info.get("type") == "file"
        ]
        if not found:
            raise SourceRefused(
                f"no file matches {stream.files} in {self._shown}", "correct `files` or `location`"
            )
        return found

    @contextmanager
    def open(self, found: Found) -> Iterator[Path]:
        """The file itself where it is on this machine, else a copy of it."""
        path = f"{self._root.rstrip('/')}/{found.name}"
        if self._local:
            with _reachable(found.name):
                Path(path).open("rb").close()
            yield Path(path)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file"
            with _reachable(found.name):
                self._files.get_file(path, str(copy))
            yield copy


class _Web:
    """One published file for each stream, over https."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._addresses: dict[str, str] = {}

    def find(self, stream: FileStream) -> list[Found]:
        """The one file; without a signature, so that it is always fetched."""
        # The query of an address may be a secret, and the name stands in the lake.
        name = urlsplit(stream.files).path.lstrip("/") or stream.files
        self._addresses[name] = stream.files
        return [Found(name, "")]

    @contextmanager
    def open(self, found: Found) -> Iterator[Path]:
        """A copy of the file."""
        base = urlsplit(self._location)
        url = urljoin(self._location.rstrip("/") + "/", self._addresses[found.name])
        if urlsplit(url).netloc == base.netloc.rpartition("@")[2] != base.netloc:
            url = url.replace("://", f"://{base.netloc.rpartition('@')[0]}@", 1)
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "file"
            fetch(url, copy)
            yield copy


def _signature(info: dict[str, Any]) -> str:
    """What changes when a file changes; empty where the place does not tell."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified"):
        if info.get(key):
            return f"{info.get('size')}:{info[key]}"
    return ""


@contextmanager
def _reachable(shown: str) -> Iterator[None]:
    """Turn trouble with a place into a source error that holds no secret."""
    try:
        yield
    except SourceError:
        raise
    except PermissionError:
        raise SourceRefused(f"{shown} may not be read", "give the right to read it") from None
    except FileNotFoundError:
        raise SourceRefused(f"{shown} does not exist", "correct `location` or `files`") from None
    except Exception as error:
        kind = type(error).__name__
        if "Credential" in kind or "Forbidden" in kind or "Auth" in kind:
            remedy = "check the credentials in the environment"
            raise SourceRefused(f"{shown} refused access ({kind})", remedy) from None
        raise SourceUnavailable(f"{shown} cannot be reached ({kind})", "try again later") from None
