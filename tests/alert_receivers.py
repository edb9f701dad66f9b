"""Receivers of alerts on this machine: a webhook as strict as Slack's, and a mail server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

SECRET_PATH = "/services/T0CANARY/B0CANARY/x9fcanary"
USER, PASSWORD = "canary-user", "canary-passw0rd"


@dataclass
class SlackServer:
    """An incoming webhook: what was posted, and what it answers (status, body, headers)."""

    address: str = ""
    posted: list[dict] = field(default_factory=list)
    answer: tuple[int, str, dict[str, str]] = (200, "ok", {})
    before_answer: threading.Barrier | None = None

    @property
    def texts(self) -> list[str]:
        return [payload["text"] for payload in self.posted]

    def mistakes(self, payload: dict) -> str | None:
        """What Slack would refuse, in its words."""
        if not payload.get("text"):
            return "no_text"
        for block in payload.get("blocks", ()):
            if block["text"]["type"] not in ("plain_text", "mrkdwn"):
                return "invalid_blocks"
            if not 1 <= len(block["text"]["text"]) <= 3000:
                return "invalid_blocks"
        return None


@contextmanager
def slack_server(port: int = 0) -> Iterator[SlackServer]:
    slack = SlackServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            mistake = slack.mistakes(payload)
            slack.posted.append(payload)
            if slack.before_answer:
                with suppress(threading.BrokenBarrierError):
                    slack.before_answer.wait()
            known = self.path == SECRET_PATH and "json" in self.headers["Content-Type"]
            status, body, headers = slack.answer if known else (404, "no_service", {})
            if mistake:
                status, body, headers = 400, mistake, {}
            self.send_response(status)
            for name, value in {"Content-Type": "text/plain", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    slack.address = f"http://127.0.0.1:{server.server_port}{SECRET_PATH}"
    try:
        yield slack
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class MailServer:
    """A mail server: what it took, and which addresses it refuses with which answer."""

    port: int = 0
    taken: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address in self.refuses:
            return self.refuses[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        self.encrypted.append(session.ssl is not None)
        return "250 OK"

    def authenticate(self, server, session, envelope, mechanism, given) -> AuthResult:
        good = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
        self.users.append(given.login.decode())
        return AuthResult(success=good, handled=False)


@contextmanager
def mail_server(**options: object) -> Iterator[MailServer]:
    server = MailServer()
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.port = probe.getsockname()[1]
    controller = Controller(server, hostname="127.0.0.1", port=server.port, **options)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()
