"""Run the sandbox: in a thread beside a test or a demo, or in the foreground for the CLI."""

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import trustme
import uvicorn
from anyio.from_thread import start_blocking_portal
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from connectors.sandbox.servers.app import TLS_VENDORS, plain_app, tls_app
from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.journal import Journal
from connectors.sandbox.servers.world_files import WorldFiles
from connectors.sandbox.vendors import served
from contracts.errors import InputError

HOST = "127.0.0.1"
CA_FILE = "ca.pem"
_IDLE_SECONDS = 75  # longer than a client keeps an idle connection: none dies under a request


@contextlib.contextmanager
def sandbox(
    folder: Path,
    now: dt.datetime,
    vendors: Sequence[str] | None = None,
    small_pages: int | None = None,
    *,
    ca_folder: Path | None = None,
    journal: Path | None = None,
) -> Iterator[Box]:
    """Serve a synthetic world from a thread of this process, on free ports, during the block.

    Args:
        folder: The world's files.
        now: What the sandbox's clock shows first.
        vendors: Which to serve; all that there are by default.
        small_pages: The most records that a page holds.
        ca_folder: Where to write the CA of the TLS port; a temporary folder by default.
        journal: Where to keep what is written, for the next sandbox; nowhere by default.

    Raises:
        InputError: the folder holds no world.
    """
    with (
        _opened(folder, now, vendors or served(), small_pages, ca_folder, 0, journal) as opened,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_listening(opened[1])),
    ):
        yield opened[0]


def serve(
    folder: Path,
    now: dt.datetime,
    *,
    port: int,
    small_pages: int | None = None,
    ca_folder: Path | None = None,
    journal: Path | None = None,
    on_ready: Callable[[Box], None] = lambda box: None,
) -> None:
    """Serve in the foreground until Ctrl-C: HTTP on `port`, TLS on the next one (0: free ones).

    Raises:
        InputError: the folder holds no world, or a port is taken.
        KeyboardInterrupt: somebody stopped it; everything is closed by then.
    """

    async def until_stopped() -> None:
        async with _listening(doors):
            on_ready(box)
            await asyncio.Event().wait()

    with _opened(folder, now, served(), small_pages, ca_folder, port, journal) as (box, doors):
        asyncio.run(until_stopped())


@dataclass(frozen=True)
class _Door:
    """A listening socket and what answers there."""

    app: ASGIApp
    socket: socket.socket
    tls: ssl.SSLContext | None = None


@contextlib.contextmanager
def _opened(
    folder: Path,
    now: dt.datetime,
    vendors: Sequence[str],
    small_pages: int | None,
    ca_folder: Path | None,
    port: int,
    journal: Path | None,
) -> Iterator[tuple[Box, list[_Door]]]:
    """A box, its addresses known, and bound sockets; all closed and tidied up at the end."""
    if not (folder / "crm").is_dir():
        raise InputError(f"{folder} holds no synthetic world", "make one with write_world")
    box = Box(WorldFiles(folder), now, small_pages)
    box.journal = Journal(journal) if journal else None
    plain = [name for name in vendors if name not in TLS_VENDORS]
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(_bound(port))
        root = f"http://{HOST}:{door.getsockname()[1]}"
        box.addresses.update({name: f"{root}/{name}" for name in plain})
        box.control = f"{root}/_sandbox"
        doors = [_Door(plain_app(box, plain), door)]
        for number, name in enumerate((name for name in vendors if name in TLS_VENDORS), 1):
            door = stack.enter_context(_bound(port and port + number))
            box.addresses[name] = f"https://{HOST}:{door.getsockname()[1]}"
            if box.ca_file is None:
                given = ca_folder or stack.enter_context(tempfile.TemporaryDirectory())
                box.ca_file = Path(given) / CA_FILE
                _authority().cert_pem.write_to_path(str(box.ca_file))
            doors.append(_Door(tls_app(box, name), door, _tls()))
        yield box, doors


def _bound(port: int) -> socket.socket:
    # Named, because asyncio sends small answers at once only on a socket that says it is TCP.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
    except OSError as error:
        opened.close()
        raise InputError(
            f"port {port} of {HOST} cannot be used ({error.strerror})",
            "stop what uses it, or choose another with --port",
        ) from None
    return opened


@cache
def _authority() -> trustme.CA:
    """The CA of this process; its key is never written."""
    return trustme.CA()


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert(HOST, "localhost").configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def _listening(doors: Sequence[_Door]) -> AsyncIterator[None]:
    """Accept connections; at the end, cut whatever is still open, stalled answers too."""
    loop, state = asyncio.get_running_loop(), ServerState()
    servers = []
    for door in doors:
        config = uvicorn.Config(
            door.app, http=Wire, ws="none", lifespan="off", proxy_headers=False, access_log=False,
            log_config=None, log_level="critical", timeout_keep_alive=_IDLE_SECONDS,
        )  # fmt: skip
        config.load()
        protocol = partial(Wire, config, state, {}, loop)
        servers.append(await loop.create_server(protocol, sock=door.socket, ssl=door.tls))
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for connection in list(state.connections):
            if isinstance(connection, Wire):
                connection.transport.abort()


class Wire(H11Protocol):
    """uvicorn's HTTP/1.1, which lets the app write to the connection past it: faults do."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
