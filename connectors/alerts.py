"""Telling people that a source or a run is not well: by Slack and e-mail, each state once.

What was told stands in `state/alerts.sqlite`. It is written only after a message was taken, so a
message that could not be sent is sent by the next run; after a crash between the two, one comes
twice. Two runs at once do not both tell: the file is locked while a message is under way.
"""

import datetime as dt
import logging
import smtplib
import sqlite3
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from connectors.http import Http, Manners, Patience
from connectors.http.addresses import refuse_plain_http
from contracts.company import Company, EmailAlerts
from contracts.errors import (
    SourceError,
    SourceExhausted,
    SourceRefused,
    SourceRejected,
    SourceUnavailable,
)
from contracts.secrets import Secrets

OK = "ok"
LONGEST_LINE = 300
MOST_LINES = 12
SLACK_TEXT = 2900
"""Slack refuses a text block of more than 3000 characters."""
TIMEOUT_SECONDS = 15
LOCK_SECONDS = 60
PATIENCE = Patience(
    connect_seconds=5, read_seconds=10, attempts=1, budget_seconds=20, max_body_bytes=100_000
)
"""One attempt: a message whose answer is lost may have been posted. The next run tries again."""


# -- what is told ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notice:
    """The state of something people care about.

    Attributes:
        subject: such as "source helpdesk" or "job daily, step scores".
        status: "ok", or what it is instead: "down", "failed", "held, plan 2026-06-30-b6a3b1".
        details: why, one line each.
        remedy: what to do.
        link: where to read more; "" for nowhere.
    """

    subject: str
    status: str
    details: tuple[str, ...] = ()
    remedy: str = ""
    link: str = ""


@dataclass(frozen=True)
class Message:
    """What a person reads: a headline and some lines, without control characters or line breaks."""

    headline: str
    lines: tuple[str, ...]
    link: str


def is_news(notice: Notice, former: str | None) -> bool:
    """Whether a state is worth a message, after the status told before (None: nothing was).

    >>> is_news(Notice("source desk", "down"), None), is_news(Notice("source desk", "ok"), None)
    (True, False)
    >>> is_news(Notice("source desk", "ok"), "down"), is_news(Notice("source desk", "down"), "down")
    (True, False)
    """
    return notice.status != (former or OK)


def message_of(notice: Notice, company: str, former: str | None) -> Message:
    """The message about a state; whatever a source or an error brought along becomes plain text."""
    recovered = notice.status == OK and former not in (None, OK)
    status = f"ok again (it was {former})" if recovered else notice.status
    details = notice.details[:MOST_LINES]
    left_out = len(notice.details) - len(details)
    lines = [*details, *([f"and {left_out} more"] if left_out else []), notice.remedy]
    return Message(
        one_line(f"[{company}] {notice.subject}: {status}"),
        tuple(one_line(line) for line in lines if line),
        notice.link,
    )


def one_line(text: str) -> str:
    r"""Text as one line of printable characters, not longer than a reader will read.

    >>> one_line("tickets\r\nBcc: all@example.com\x1b[31m")
    'tickets Bcc: all@example.com [31m'
    """
    visible = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(visible.split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 1]}…"


# -- Slack ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slack:
    """An incoming webhook. Its address is a secret: whoever has it can post."""

    address: str = field(repr=False)
    name: str = field(default="slack", init=False)

    def __post_init__(self) -> None:
        try:
            refuse_plain_http(self.address)
        except (SourceRefused, ValueError):  # whose text would show the address
            raise SourceRefused(
                "the address of the Slack webhook is not https",
                "copy it from the app's page of incoming webhooks",
            ) from None

    def send(self, message: Message, now: dt.datetime) -> None:
        """Post a message; see `Channel.send`."""
        session = Http(
            self.address, Manners("slack"), patience=PATIENCE, raise_rejected=False
        ).session
        with _out_of_the_log(urlsplit(self.address).path), session:
            answer = session.post(self.address, json=slack_payload(message))
        if answer.status_code != 200 or answer.text.strip() != "ok":
            raise SourceRejected(
                f"the Slack webhook answered {answer.status_code}, and not ok",
                "look whether its channel and its app are still there",
            )


def slack_payload(message: Message) -> dict[str, Any]:
    """A message for a webhook, as plain text: names with * or _ in them are shown as they are.

    `text` is what notifications show. The link stands apart, because plain text has none.
    """
    headline = _escaped(message.headline)
    blocks: list[dict[str, Any]] = [
        {
            "type": "section",
            "text": {
                "type": "plain_text",
                "text": _escaped("\n".join((message.headline, *message.lines))),
                "emoji": False,
            },
        }
    ]
    if message.link:
        link = {"type": "mrkdwn", "text": f"<{_escaped(message.link)}|Open the run in Dagster>"}
        blocks.append({"type": "section", "text": link})
    return {"text": headline, "mrkdwn": False, "blocks": blocks}


def _escaped(text: str) -> str:
    """Text in which Slack finds no mention and no link, cut to what it takes."""
    escaped = ""
    for character in text:
        piece = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(character, character)
        if len(escaped) + len(piece) > SLACK_TEXT:
            return f"{escaped}…"
        escaped += piece
    return escaped


@contextmanager
def _out_of_the_log(path: str) -> Iterator[None]:
    """Keep the webhook's path, which is its secret, out of urllib3's log of requests."""

    def without_path(record: logging.LogRecord) -> bool:
        return path.strip("/") not in record.getMessage() if path.strip("/") else True

    logger = logging.getLogger("urllib3.connectionpool")
    logger.addFilter(without_path)
    try:
        yield
    finally:
        logger.removeFilter(without_path)


# -- e-mail ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Email:
    """A mail server and the addresses that it is asked to deliver to."""

    settings: EmailAlerts
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    name: str = field(default="e-mail", init=False)

    def send(self, message: Message, now: dt.datetime) -> None:
        """Send a message; see `Channel.send`. One address that is taken is enough."""
        with _mail_errors(), ExitStack() as ending:
            server = self._connect(ending)
            if self.user is not None and self.password is not None:
                server.login(self.user, self.password)
            server.send_message(email_of(message, self.settings, now))
            # It was taken: whatever happens now, it must not be sent again.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()

    def _connect(self, ending: ExitStack) -> smtplib.SMTP:
        host, port = self.settings.host, self.settings.port
        verified = ssl.create_default_context()
        server: smtplib.SMTP
        if self.settings.security == "tls":
            server = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=verified)
        else:
            server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        ending.callback(server.close)
        if self.settings.security == "starttls":
            server.starttls(context=verified)
        return server


def email_of(message: Message, settings: EmailAlerts, now: dt.datetime) -> EmailMessage:
    """A message as plain-text e-mail, marked so that no absence note answers it."""
    mail = EmailMessage()
    mail["Subject"] = message.headline
    mail["From"] = settings.sender
    mail["To"] = ", ".join(settings.to)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = make_msgid(domain=settings.sender.partition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n\n".join(filter(None, ("\n".join(message.lines), message.link))))
    return mail


@contextmanager
def _mail_errors() -> Iterator[None]:
    """Errors of a mail server as one line, without its words: they may name addresses.

    Raises:
        SourceRefused: a person has to act.
        SourceUnavailable: the next run may succeed.
    """
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise SourceRefused(
            "the mail server shows a certificate that is not trusted",
            "check host and port of alerts.email; name a private authority in SSL_CERT_FILE",
        ) from None
    except smtplib.SMTPNotSupportedError:
        raise SourceRefused(
            "the mail server offers no STARTTLS, or no login",
            "correct security (tls is usual on port 465) or user of alerts.email",
        ) from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        raise _refused("every address", min(codes, default=0), "to") from None
    except smtplib.SMTPAuthenticationError as error:
        raise _refused("the login", error.smtp_code, "user and password") from None
    except smtplib.SMTPSenderRefused as error:
        raise _refused("the sender", error.smtp_code, "from") from None
    except smtplib.SMTPResponseException as error:
        raise _refused("the message", error.smtp_code, "host") from None
    except (smtplib.SMTPException, OSError) as error:
        raise SourceUnavailable(
            f"the mail server cannot be reached, or hung up ({type(error).__name__})",
            "check host and port of alerts.email",
        ) from None


def _refused(what: str, code: int, setting: str) -> SourceError:
    kind = SourceRefused if code >= 500 else SourceUnavailable
    return kind(f"the mail server refused {what} ({code})", f"check {setting} of alerts.email")


# -- channels and what they were told -------------------------------------------------------------


class Channel(Protocol):
    """A way to reach people."""

    @property
    def name(self) -> str:
        """What the memory and the log call it."""

    def send(self, message: Message, now: dt.datetime) -> None:
        """Send a message, once.

        Raises:
            SourceError: it was not taken, or nobody knows.
        """


def channels(company: Company) -> Iterator[tuple[str, Channel | SourceError]]:
    """The channels of a company by name; an error where a secret is missing or wrong."""
    alerts, secrets = company.settings.alerts, Secrets(company.home)
    if given := alerts.slack:
        yield "slack", _opened(lambda: Slack(secrets.of(given).strip()))
    if email := alerts.email:
        login = [secret for secret in (email.user, email.password) if secret]
        yield "e-mail", _opened(lambda: Email(email, *map(secrets.of, login)))


def _opened(make: Callable[[], Channel]) -> Channel | SourceError:
    try:
        return make()
    except SourceError as error:
        return error


def tell(
    company: Company,
    notices: Sequence[Notice],
    *,
    now: dt.datetime,
    warn: Callable[[str], None],
) -> None:
    """Tell what changed on every channel; what fails goes to `warn`, one line each.

    `now` is the time of day, with a time zone.
    """
    memory = company.state / "alerts.sqlite"
    for name, channel in channels(company):
        for notice in notices:
            try:
                if isinstance(channel, SourceError):
                    raise channel
                _tell_once(memory, channel, notice, company.settings.name, now)
            except SourceError as error:
                warn(f"{name} was not told, the next run tries again: {error}")
                if channel is error or isinstance(error, SourceUnavailable | SourceExhausted):
                    break  # the others would only wait for the same
            except sqlite3.Error as error:
                warn(
                    f"{name} was not told: state/{memory.name} cannot be used "
                    f"({type(error).__name__}); look at the disk, or delete the file: then what "
                    "is broken is told again"
                )
                break


def send_test(company: Company, *, now: dt.datetime) -> Iterator[tuple[str, SourceError | None]]:
    """Send a message to every channel, whatever was told before; the error where one fails."""
    message = Message(
        one_line(f"[{company.settings.name}] alerts: a test"),
        ("Sources and runs that are not well will be told here.",),
        company.settings.alerts.ui or "",
    )
    for name, channel in channels(company):
        if isinstance(channel, SourceError):
            yield name, channel
            continue
        try:
            channel.send(message, now)
            yield name, None
        except SourceError as error:
            yield name, error


def _tell_once(
    memory: Path, channel: Channel, notice: Notice, company: str, now: dt.datetime
) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(memory, timeout=LOCK_SECONDS, isolation_level=None)
    with closing(connection):
        connection.execute("BEGIN IMMEDIATE")  # closing without COMMIT rolls back
        connection.execute(
            "CREATE TABLE IF NOT EXISTS told (channel TEXT, subject TEXT, status TEXT NOT NULL, "
            "told_at TEXT NOT NULL, PRIMARY KEY (channel, subject))"
        )
        row = connection.execute(
            "SELECT status FROM told WHERE channel = ? AND subject = ?",
            [channel.name, notice.subject],
        ).fetchone()
        former = row[0] if row else None
        if not is_news(notice, former):
            return
        channel.send(message_of(notice, company, former), now)
        connection.execute(
            "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?)",
            [channel.name, notice.subject, notice.status, now.isoformat()],
        )
        connection.execute("COMMIT")
