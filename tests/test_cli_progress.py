"""Progress is for people at a terminal; pipes get lines. And the demo, from its first call on."""

import io
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import requests
from demo_company import (
    copy_of,
    healthloop,
    instance_in_home,
    rows_of,
    scored_small,
    two_free_ports,
)

from orchestration.cli import main

ESCAPE = "\x1b["
LAYERS = ("Pull the sources", "Build signals", "Compute metrics", "Score accounts", "Plan what")


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A small company after one good run; copy it before changing it."""
    return scored_small(tmp_path_factory)


def at_a_terminal(*arguments: str) -> str:
    """What a person at a terminal sees on standard error."""
    shown, ours = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while text := os.read(shown, 4096):
                seen.append(text)
        except OSError:  # the terminal is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    with (
        os.fdopen(ours, "w", encoding="utf-8") as terminal,
        instance_in_home(),
        mock.patch.dict(os.environ, {"TERM": "xterm-256color", "COLUMNS": "100"}),
        mock.patch.object(sys, "argv", ["healthloop", *arguments]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(terminal),
        pytest.raises(SystemExit),
    ):
        main()
    reader.join()
    os.close(shown)
    return b"".join(seen).decode()


def test_a_terminal_shows_the_progress_of_every_layer(once, tmp_path):
    seen = at_a_terminal("run", "--home", str(copy_of(once, tmp_path)))
    assert ESCAPE in seen
    assert all(layer in seen for layer in LAYERS)
    assert "done" in seen


def test_a_pipe_gets_no_progress_and_no_control_characters(once, tmp_path):
    home = copy_of(once, tmp_path)
    answer = healthloop("run", "--home", str(home))
    assert answer.code == 0
    assert ESCAPE not in answer.both
    assert "\r" not in answer.both
    assert re.fullmatch(r"Ran in [\d.]+ s\.\n", answer.err)
    assert "Small & Co, as of 2026-03-31" in answer.out


def test_a_reader_who_stops_reading_is_no_error(once):
    """`healthloop catalogue | head -1`."""
    program = Path(sys.executable).with_name("healthloop")
    catalogue = subprocess.Popen(
        [program, "catalogue", "--home", once], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert catalogue.stdout is not None
    assert catalogue.stderr is not None
    catalogue.stdout.readline()
    catalogue.stdout.close()
    errors = catalogue.stderr.read().decode()
    catalogue.stderr.close()
    catalogue.wait()
    assert "Traceback" not in errors
    assert errors == ""


@pytest.mark.slow
def test_the_second_demo_shows_the_same_page_without_a_run(tmp_path):
    home, port = tmp_path / "demo", str(two_free_ports())
    demo = ("demo", "--home", str(home), "--port", port)
    first = healthloop(*demo, "--accounts", "60")
    assert first.code == 0, first.err
    assert first.err.startswith(f"Made a synthetic company of 60 accounts in {home}.\n")
    days = rows_of(home, "SELECT count(DISTINCT as_of) FROM scores.scores")
    assert days == [(27,)]
    began = time.monotonic()
    second = healthloop(*demo, "--accounts", "60")
    assert time.monotonic() - began < 10
    assert second.out == first.out
    assert "scored already" in second.err
    for command in re.findall(r"^  healthloop (.+)$", first.out, re.MULTILINE):
        words = command.split("   ")[0].split()
        if words[0] != "ui":
            assert healthloop(*words).code == 0, command
    other = healthloop(*demo, "--accounts", "70")
    assert other.code == 2
    assert other.err == (
        f"{home} holds another demo (seed 7, accounts 60, today 2026-06-30, port {port}); "
        "delete it, or name another folder\n"
    )


@pytest.mark.slow
def test_the_ui_shows_the_runs_of_the_command_line_on_the_loopback_alone(once):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: text for name, text in os.environ.items() if name != "DAGSTER_HOME"}
    ui = subprocess.Popen(
        [Path(sys.executable).with_name("healthloop"), "ui", "--home", once, "--port", str(port)],
        env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        question = {"query": "{runsOrError {... on Runs {results {jobName status}}}}"}
        deadline = time.monotonic() + 120
        while True:
            try:
                answer = requests.post(
                    f"http://127.0.0.1:{port}/graphql", json=question, timeout=10
                ).json()
                break
            except requests.RequestException:
                assert time.monotonic() < deadline
                assert ui.poll() is None
                time.sleep(0.5)
        assert {"jobName": "daily", "status": "SUCCESS"} in answer["data"]["runsOrError"]["results"]
    finally:
        os.killpg(ui.pid, signal.SIGINT)
        ui.wait(timeout=60)
