"""A web server on this machine that answers with exactly the bytes that a test scripts.

Real servers cannot be made to break off, lie about a length or drip: this one can. Every
connection is answered once and closed::

    with RawServer(response(body=b"{}")[:-1], response(body=b"{}")) as server:
        ...                                # the last answer is given again and again
"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping

Answer = bytes | Callable[["RawServer", socket.socket], None]


def response(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    kind: str | None = "application/json",
    length: int | None = -1,
) -> bytes:
    """A whole response; `length` -1 declares the true length, None declares none."""
    lines = [f"HTTP/1.1 {status} Whatever", "Connection: close"]
    lines.append("Date: Wed, 01 Jul 2026 06:00:00 GMT")
    lines += [f"Content-Type: {kind}"] if kind else []
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == -1 else length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, size: int = 7, headers: Mapping[str, str] | None = None) -> bytes:
    """The same with chunked transfer encoding."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    frames = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    sent = {"Transfer-Encoding": "chunked", **(headers or {})}
    return response(body=frames + b"0\r\n\r\n", headers=sent, length=None)


def reset_after(start: bytes) -> Answer:
    """Send `start`, then tear the connection down with a TCP reset."""

    def answer(server: "RawServer", connection: socket.socket) -> None:
        connection.sendall(start)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return answer


def stall_after(start: bytes) -> Answer:
    """Send `start`, then nothing until the test is over."""

    def answer(server: "RawServer", connection: socket.socket) -> None:
        connection.sendall(start)
        server.over.wait()

    return answer


def drip(start: bytes, rest: bytes, every_seconds: float = 0.02) -> Answer:
    """Send `start`, then `rest` byte by byte."""

    def answer(server: "RawServer", connection: socket.socket) -> None:
        connection.sendall(start)
        for at in range(len(rest)):
            if server.over.wait(every_seconds):
                return
            connection.sendall(rest[at : at + 1])

    return answer


class RawServer:
    """Answers each connection with the next scripted answer; `requests` holds what was asked."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.port = self._listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._serving: list[threading.Thread] = []

    def __enter__(self) -> "RawServer":
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        # Wakes the thread that waits in accept(), which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._accepting, *self._serving):
            thread.join()

    @property
    def lines(self) -> list[str]:
        """The request lines without the protocol: "GET /a?b=1"."""
        firsts = [asked.partition(b"\r\n")[0].decode() for asked in self.requests]
        return [first.rpartition(" ")[0] for first in firsts]

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._serving.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # Whoever asks may hang up at any time, and must not wait for us for ever.
        connection.settimeout(10)
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            asked = _read_request(connection)
            if not asked:
                return
            self.requests.append(asked)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(self, connection)
        except OSError:
            pass
        finally:
            connection.close()


def _read_request(connection: socket.socket) -> bytes:
    asked = b""
    while b"\r\n\r\n" not in asked:
        piece = connection.recv(65536)
        if not piece:
            return b""
        asked += piece
    head, _, body = asked.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            while missing > 0 and (piece := connection.recv(missing)):
                asked += piece
                missing -= len(piece)
    return asked
