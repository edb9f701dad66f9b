"""Alerts: each state is told once, to real receivers on this machine, and never harms a run."""

import datetime as dt
import json
import logging
import ssl
import threading
from socket import socket

import duckdb
import pytest
import trustme
from alert_receivers import PASSWORD, SECRET_PATH, USER, MailServer, mail_server, slack_server
from demo_company import healthloop, write, write_small_company

from connectors import alerts
from connectors.alerts import Notice, channels, message_of, slack_payload, tell
from connectors.sources import read_sources
from contracts.company import check_company, read_company
from orchestration.alerting import notices_of_sources

NOW = dt.datetime(2026, 7, 1, 6, 30, tzinfo=dt.UTC)
DOWN = Notice("source helpdesk", "down", ("tickets is down: it answered 503",), "mend it")
WELL = Notice("source helpdesk", "ok")


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.fixture(scope="session")
def certificate(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def slack():
    with slack_server() as server:
        yield server


def by_mail(port: int, security: str = "none", login: bool = False, to: str = "a@b.example") -> str:
    secrets = "user: {env: SMTP_USER}, password: {env: SMTP_PASSWORD}, " if login else ""
    return (
        f"email: {{host: 127.0.0.1, port: {port}, security: {security}, {secrets}"
        f"from: loop@b.example, to: [{to}]}}"
    )


def company_of(folder, *told: str, ui: str | None = None):
    """A company that is told so; its data does not matter."""
    parts = [*told, *([f"ui: {ui}"] if ui else [])]
    write_small_company(folder / "company", settings={"alerts": f"{{{', '.join(parts)}}}"})
    return read_company(folder / "company")


@pytest.fixture
def company(tmp_path, slack, monkeypatch):
    """A company that tells Slack."""
    monkeypatch.setenv("SLACK_HOOK", slack.address)
    return company_of(tmp_path, "slack: {env: SLACK_HOOK}")


def warned(company, *notices: Notice) -> list[str]:
    """Tell, and return what was warned of."""
    warnings: list[str] = []
    tell(company, notices, now=NOW, warn=warnings.append)
    return warnings


# -- each state once ------------------------------------------------------------------------------


def test_a_failure_is_told_once_whatever_its_reason_becomes_and_its_end_once(company, slack):
    other_reason = Notice("source helpdesk", "down", ("tickets is down: it timed out",))
    for notice in (DOWN, DOWN, other_reason, WELL, WELL):
        assert warned(company, notice) == []
    assert slack.texts == [
        "[Small &amp; Co] source helpdesk: down",
        "[Small &amp; Co] source helpdesk: ok again (it was down)",
    ]
    assert warned(company, DOWN) == []
    assert len(slack.posted) == 3


def test_what_was_never_told_broken_is_not_told_well(company, slack):
    assert warned(company, WELL) == []
    assert slack.posted == []


def test_another_status_is_told_again(company, slack):
    warned(company, DOWN)
    warned(company, Notice("source helpdesk", "stale"))
    assert slack.texts[1] == "[Small &amp; Co] source helpdesk: stale"


def test_two_sources_at_once_are_two_messages_and_their_states_stand_apart(company, slack):
    billing = Notice("source billing", "stale", ("invoices is stale",))
    warned(company, DOWN, billing)
    warned(company, WELL, billing)
    assert [text.removeprefix("[Small &amp; Co] ") for text in slack.texts] == [
        "source helpdesk: down",
        "source billing: stale",
        "source helpdesk: ok again (it was down)",
    ]


def test_two_runs_at_once_do_not_both_tell(company, slack):
    warned(company, Notice("source billing", "stale"))  # the memory is there already
    slack.before_answer = threading.Barrier(2, timeout=0.5)  # holds the first until the second
    runs = [threading.Thread(target=warned, args=(company, DOWN)) for _ in range(2)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(slack.posted) == 2


def test_a_crash_between_sending_and_remembering_sends_at_most_one_message_twice(
    company, slack, monkeypatch
):
    class Killed(BaseException):
        pass

    real = alerts.Slack.send

    def killed(self, message, now):
        real(self, message, now)
        raise Killed

    billing = Notice("source billing", "stale")
    warned(company, billing)
    monkeypatch.setattr(alerts.Slack, "send", killed)
    with pytest.raises(Killed):
        warned(company, billing, DOWN)
    monkeypatch.setattr(alerts.Slack, "send", real)
    warned(company, billing, DOWN)
    warned(company, billing, DOWN)
    assert [text.partition("source ")[2] for text in slack.texts] == [
        "billing: stale", "helpdesk: down", "helpdesk: down",
    ]  # fmt: skip


def test_nobody_is_told_and_nothing_is_remembered_without_channels(tmp_path):
    company = company_of(tmp_path)
    assert warned(company, DOWN) == []
    assert not company.state.exists()


# -- what goes wrong on the way -------------------------------------------------------------------


def test_a_receiver_that_is_down_is_told_by_the_next_run_and_does_not_silence_the_other(
    tmp_path, monkeypatch
):
    with socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        monkeypatch.setenv("SLACK_HOOK", f"http://127.0.0.1:{port}{SECRET_PATH}")
        with mail_server() as mail:
            company = company_of(tmp_path, "slack: {env: SLACK_HOOK}", by_mail(mail.port))
            billing = Notice("source billing", "down")
            (warning,) = warned(company, DOWN, billing)  # not one for each message
            assert len(mail.taken) == 2
    assert warning.startswith("slack was not told, the next run tries again: ")
    assert "refused the connection" in warning
    with slack_server(port) as slack, mail_server() as mail:
        company = company_of(tmp_path, "slack: {env: SLACK_HOOK}", by_mail(mail.port))
        assert warned(company, DOWN, billing) == []
        assert (len(slack.posted), len(mail.taken)) == (2, 0)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((404, "channel_not_found", {}), "the Slack webhook answered 404, and not ok"),
        ((403, "action_prohibited", {}), "the Slack webhook answered 403, and not ok"),
        ((410, "channel_is_archived", {}), "the Slack webhook answered 410, and not ok"),
        ((200, "no_team", {}), "the Slack webhook answered 200, and not ok"),
        ((204, "", {}), "the Slack webhook answered 204, and not ok"),
        ((500, "rollup_error", {}), "answered 500 at the first attempt"),
        ((429, "", {"Retry-After": "1"}), "answered 429 at the first attempt"),
        ((302, "", {"Location": "https://login.example/"}), "redirects to another host"),
        ((307, "", {"Location": "/"}), "the Slack webhook answered 404, and not ok"),
        (
            (200, "<!doctype html><html></html>", {"Content-Type": "text/html"}),
            "sent a web page instead of data",
        ),
    ],
)
def test_a_message_that_slack_did_not_take_counts_as_not_told(company, slack, answer, told):
    slack.answer = answer
    (warning,) = warned(company, DOWN)
    assert told in warning
    assert "\n" not in warning
    assert "canary" not in warning.lower()
    posted = len(slack.posted)
    assert posted == (2 if answer[0] == 307 else 1)  # a 307 is asked for at its other address
    slack.answer = (200, "ok", {})
    assert warned(company, DOWN) == []
    assert warned(company, DOWN) == []
    assert len(slack.posted) == posted + 1


@pytest.mark.parametrize(
    "address", [f"http://hooks.example.com{SECRET_PATH}", SECRET_PATH, f"http://[{SECRET_PATH}"]
)
def test_a_webhook_in_clear_is_refused_without_showing_it(tmp_path, monkeypatch, address):
    monkeypatch.setenv("SLACK_HOOK", address)
    company = company_of(tmp_path, "slack: {env: SLACK_HOOK}")
    (warning,) = warned(company, DOWN, Notice("source billing", "down"))
    assert "the address of the Slack webhook is not https" in warning
    assert "canary" not in warning.lower()


def test_a_damaged_memory_is_named_with_what_to_do(company, slack):
    write(company.state / "alerts.sqlite", "this is no database, " * 100)
    (warning,) = warned(company, DOWN)
    assert "state/alerts.sqlite cannot be used (DatabaseError)" in warning
    (company.state / "alerts.sqlite").unlink()
    assert warned(company, DOWN) == []
    assert len(slack.posted) == 1


# -- e-mail ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Requiring AUTH")  # aiosmtpd sees no TLS where all is TLS
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_travels_encrypted_to_a_server_that_proves_who_it_is(
    tmp_path, monkeypatch, trusted, certificate, security
):
    monkeypatch.setenv("SMTP_USER", USER)
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    server = MailServer()
    options = (
        {"tls_context": certificate, "require_starttls": True}
        if security == "starttls"
        else {"ssl_context": certificate, "auth_require_tls": False}
    )
    judge = {"authenticator": lambda *given: server.authenticate(*given), "auth_required": True}
    with mail_server(**options, **judge) as mail:
        to = "a@b.example, c@d.example"
        company = company_of(
            tmp_path, by_mail(mail.port, security, login=True, to=to), ui="https://ui.example"
        )
        link = "https://ui.example/runs/1"
        assert warned(company, Notice("job daily", "failed", ("because",), "mend it", link)) == []
    (received,) = mail.taken
    assert server.users == [USER]
    assert mail.encrypted == [True] or security == "tls"
    assert received["Subject"] == "[Small & Co] job daily: failed"
    assert (received["From"], received["To"]) == ("loop@b.example", to)
    assert received["Auto-Submitted"] == "auto-generated"
    assert received["Date"].datetime == NOW
    assert received.get_content_type() == "text/plain"
    assert received.get_content().split() == ["because", "mend", "it", link]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_nothing_is_sent_to_a_mail_server_with_a_strange_certificate(
    tmp_path, certificate, security
):
    key = "tls_context" if security == "starttls" else "ssl_context"
    with mail_server(**{key: certificate}) as mail:
        (warning,) = warned(company_of(tmp_path, by_mail(mail.port, security)), DOWN)
        assert mail.taken == []
    assert "shows a certificate that is not trusted" in warning


def test_a_mail_server_without_starttls_gets_nothing_in_clear(tmp_path, trusted):
    with mail_server() as mail:
        (warning,) = warned(company_of(tmp_path, by_mail(mail.port, "starttls")), DOWN)
        assert mail.taken == []
    assert "the mail server offers no STARTTLS, or no login" in warning


def test_a_refused_login_names_no_user(tmp_path, monkeypatch, trusted, certificate):
    monkeypatch.setenv("SMTP_USER", USER)
    monkeypatch.setenv("SMTP_PASSWORD", f"{PASSWORD}-wrong")
    judge = MailServer()
    with mail_server(
        tls_context=certificate, authenticator=lambda *given: judge.authenticate(*given)
    ) as mail:
        (warning,) = warned(company_of(tmp_path, by_mail(mail.port, "starttls", login=True)), DOWN)
        assert mail.taken == []
    assert "the mail server refused the login (535); check user and password" in warning
    assert "canary" not in warning


def test_one_address_that_is_taken_is_enough_and_none_is_tried_again(tmp_path):
    with mail_server() as mail:
        company = company_of(tmp_path, by_mail(mail.port, to="gone@b.example, a@b.example"))
        mail.refuses = {"gone@b.example": "550 who", "a@b.example": "450 later"}
        (warning,) = warned(company, DOWN)
        assert "the mail server refused every address (450); check to" in warning
        assert "@" not in warning
        assert mail.taken == []
        mail.refuses = {"gone@b.example": "550 gone@b.example is unknown"}
        assert warned(company, DOWN) == []
        assert warned(company, DOWN) == []
        assert len(mail.taken) == 1


# -- nothing harmful, nothing secret --------------------------------------------------------------

HOSTILE = Notice(
    "source x\r\nBcc: everybody@evil.example",
    "down\n.\nMAIL FROM",
    (
        "<script>alert(1)</script> <!channel> <https://evil.example|click> *bold* &lt;!here&gt;",
        "reason\r\n\r\nSubject: forged\u202e\x1b[2J",
    ),
    "`code`\n.\n",
)


def test_f90_a_hostile_name_or_reason_is_mere_text_in_slack(company, slack):
    assert warned(company, HOSTILE) == []
    (payload,) = slack.posted
    (block,) = payload["blocks"]
    assert (block["text"]["type"], payload["mrkdwn"]) == ("plain_text", False)
    for text in (payload["text"], block["text"]["text"]):
        assert not {"<", ">", "\r", "\x1b", "\u202e"} & set(text)
    assert "&lt;!channel&gt;" in block["text"]["text"]
    assert "&amp;lt;!here&amp;gt;" in block["text"]["text"]
    assert block["text"]["text"].count("\n") == 3  # headline, two reasons, remedy


def test_f90_a_hostile_name_or_reason_forges_no_header_and_no_recipient_of_a_mail(tmp_path):
    with mail_server() as mail:
        assert warned(company_of(tmp_path, by_mail(mail.port)), HOSTILE) == []
        (received,) = mail.taken
    assert received["Bcc"] is None
    assert received["To"] == "a@b.example"
    assert received.get_all("Subject") == [
        "[Small & Co] source x Bcc: everybody@evil.example: down . MAIL FROM"
    ]
    assert received.get_content().splitlines()[1] == "reason Subject: forged [2J"
    assert len(received.get_content().splitlines()) == 3


def test_a_message_is_never_longer_than_slack_takes(company, slack):
    long = Notice("source x", "down", tuple("<" * 4000 for _ in range(40)), "&" * 4000)
    assert warned(company, long) == []
    assert len(slack.posted) == 1
    many = message_of(Notice("s", "down", tuple(map(str, range(40)))), "C", None)
    assert many.lines[-2:] == ("11", "and 28 more")


def test_the_link_to_the_run_is_the_only_markup():
    notice = Notice("job daily", "failed", link="https://ui.example/runs/1?a=1&b=2")
    *_, block = slack_payload(message_of(notice, "C", None))["blocks"]
    assert block["text"] == {
        "type": "mrkdwn",
        "text": "<https://ui.example/runs/1?a=1&amp;b=2|Open the run in Dagster>",
    }


def test_f93_no_secret_reaches_the_log_the_memory_or_a_representation(
    tmp_path, slack, monkeypatch, caplog
):
    monkeypatch.setenv("SLACK_HOOK", slack.address)
    monkeypatch.setenv("SMTP_USER", USER)
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)
    company = company_of(tmp_path, "slack: {env: SLACK_HOOK}", by_mail(9, "none", login=True))
    # Dagster turns loggers off that it finds, and HubSpot's client quietens this one.
    monkeypatch.setattr(logging.getLogger("urllib3.connectionpool"), "disabled", False)
    caplog.set_level(logging.DEBUG, logger="urllib3")
    with caplog.at_level(logging.DEBUG):
        said = warned(company, DOWN)
        slack.answer = (500, "x9fcanary", {})
        said += warned(company, WELL)
    assert len(said) == 2
    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    shown = [caplog.text, *said, *(repr(channel) for _, channel in channels(company))]
    shown += [file.read_bytes().decode("latin-1") for file in company.state.iterdir()]
    for text in shown:
        assert "canary" not in text.lower()
        assert "a@b.example" not in text or text.startswith("Email(")


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            "slack: https://hooks.example/x",
            "alerts.slack: is a secret, and stands in no file; write {env: SLACK_WEBHOOK_URL}",
        ),
        (
            "email: {host: mail.example, security: none, from: a@b.example, to: [a@b.example]}",
            "alerts.email: mail would travel in clear; write security: starttls or tls",
        ),
        (
            "email: {host: mail.example, user: {env: U}, from: a@b.example, to: [a@b.example]}",
            "alerts.email: user and password belong together; give both or neither",
        ),
        (
            'email: {host: m.example, from: "a@b.example\\nBcc: c@d.example", to: [a@b.example]}',
            "alerts.email.from: is no e-mail address; write one like data@example.com",
        ),
        (
            "email: {host: mail.example, from: a@b.example, to: [everybody]}",
            "alerts.email.to.0: is no e-mail address; write one like data@example.com",
        ),
        ("email: {host: mail.example, from: a@b.example}", "'alerts.email.to' is missing; add it"),
        (
            "email: {host: mail.example, from: a@b.example, to: []}",
            "alerts.email: `to` is empty; name at least one address",
        ),
        (
            "ui: dagster.example.com",
            "alerts.ui: is no web address; write one like https://dagster.example.com",
        ),
        ("slak: {env: X}", "unknown setting 'alerts.slak'"),
    ],
)
def test_a_mistake_in_alerts_is_one_line(tmp_path, given, problem):
    home = write_small_company(tmp_path / "company", settings={"alerts": f"{{{given}}}"})
    _, _, problems = check_company(home)
    (found,) = problems
    assert str(found).partition(": ")[2].startswith(problem)


def doctor(home) -> dict[str, str]:
    answer = healthloop("doctor", "--home", str(home), "--format", "json")
    assert "canary" not in answer.both
    return {
        found["about"]: f"{found['']}: {found['seen']}; {found['what to do']}"
        for found in json.loads(answer.out)
        if found["about"].startswith("alerts")
    }


def test_the_doctor_says_whether_anybody_is_told(tmp_path, monkeypatch):
    home = write_small_company(tmp_path / "quiet")
    assert doctor(home)["alerts"].startswith("note: nobody is told when a source or a run fails; ")
    home = company_of(tmp_path, "slack: {env: HOOK}", by_mail(25, login=True)).home
    monkeypatch.setenv("SMTP_USER", USER)
    found = doctor(home)
    assert "problem: the environment variable HOOK is not set" in found["alerts by slack"]
    assert "environment variable SMTP_PASSWORD is not set" in found["alerts by e-mail"]
    write(home / ".env", f"HOOK=https://hooks.example{SECRET_PATH}\nSMTP_PASSWORD={PASSWORD}\n")
    assert {text.partition(":")[0] for text in doctor(home).values()} == {"ok"}


def test_a_test_message_reaches_every_channel_and_says_which_failed(tmp_path, slack, monkeypatch):
    monkeypatch.setenv("HOOK", slack.address)
    with mail_server() as mail:
        company = company_of(tmp_path, "slack: {env: HOOK}", by_mail(mail.port))
        ready = healthloop("alerts", "--home", str(company.home))
        assert (ready.code, slack.posted, mail.taken) == (0, [], [])
        sent = healthloop("alerts", "--test", "--home", str(company.home))
        assert (sent.code, sent.err) == (0, "")
        assert sent.out == "slack: a test message was sent\ne-mail: a test message was sent\n"
        assert mail.taken[0]["Subject"] == "[Small & Co] alerts: a test"
        assert slack.texts == ["[Small &amp; Co] alerts: a test"]
    monkeypatch.delenv("HOOK")
    failed = healthloop("alerts", "--test", "--home", str(company.home))
    assert failed.code == 1
    missing, unreachable = failed.out.splitlines()
    assert missing.startswith("slack: the environment variable HOOK is not set; ")
    assert unreachable.startswith("e-mail: the mail server cannot be reached, or hung up (")
    assert not (company.state / "alerts.sqlite").exists()  # a test is no state


def test_alerts_of_a_company_that_names_nobody_says_what_to_write(tmp_path):
    home = write_small_company(tmp_path / "company")
    answer = healthloop("alerts", "--test", "--home", str(home))
    assert (answer.code, answer.out) == (2, "")
    assert "name Slack or e-mail under `alerts:` in company.yaml" in answer.err


# -- the health of sources ------------------------------------------------------------------------


def health_of(tmp_path, *rows: tuple[str, str, int, str, str | None]) -> list[Notice]:
    """The notices after checks (source, stream, hour, status, reason)."""
    sources = read_sources(read_company(write_small_company(tmp_path / "company")))
    with duckdb.connect() as connection:
        assert notices_of_sources(connection, sources) == []
        connection.execute("CREATE SCHEMA signals")
        connection.execute(
            "CREATE TABLE signals.source_health (source VARCHAR, stream VARCHAR, "
            "checked_at TIMESTAMP, status VARCHAR, reason VARCHAR)"
        )
        for source, stream, hour, status, reason in rows:
            connection.execute(
                "INSERT INTO signals.source_health VALUES (?, ?, ?, ?, ?)",
                [source, stream, dt.datetime(2026, 6, 30, hour), status, reason],
            )
        return notices_of_sources(connection, sources)


def test_a_source_is_as_well_as_its_worst_stream_and_says_since_when_and_why(tmp_path):
    crm, product = health_of(
        tmp_path,
        ("product", "usage", 1, "down", "an outage long ago"),
        ("product", "usage", 2, "ok", None),
        ("product", "usage", 3, "suspect", "half of the rows are gone"),
        ("product", "usage", 4, "down", "it answered 503"),
        ("product", "workspaces", 4, "suspect", None),
        ("crm", "customers", 1, "down", "an outage"),
        ("crm", "customers", 4, "ok", None),
        ("removed", "things", 4, "down", "nobody pulls it any more"),
        ("crm", "removed", 4, "down", "nobody pulls it any more"),
    )
    assert (crm.subject, crm.status, crm.details) == ("source crm", "ok", ())
    assert (product.subject, product.status) == ("source product", "down")
    assert product.details == (
        "usage is down since 2026-06-30 03:00 UTC: it answered 503",
        "workspaces is suspect since 2026-06-30 04:00 UTC: no reason is known",
    )
