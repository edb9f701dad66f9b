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
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
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

from orchestration.cli import group, main

ROOT = Path(__file__).parents[1]
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


@contextmanager
def dagster_ui(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The UI of a company once it answers, and its port."""
    port = two_free_ports()
    environment = {name: text for name, text in os.environ.items() if name != "DAGSTER_HOME"}
    ui = subprocess.Popen(
        [sys.executable, "-m", "orchestration.cli", "ui", "--home", home, "--port", str(port)],
        env=environment, start_new_session=True, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while runs_shown(port) is None:
            assert time.monotonic() < deadline
            assert ui.poll() is None
            time.sleep(0.5)
        yield ui, port
    finally:
        ui.send_signal(signal.SIGINT)
        ui.wait(timeout=90)


def runs_shown(port: int) -> list[dict[str, str]] | None:
    """The runs that a UI shows, or None as long as none answers."""
    question = {"query": "{runsOrError {... on Runs {results {jobName status}}}}"}
    try:
        answer = requests.post(f"http://127.0.0.1:{port}/graphql", json=question, timeout=10)
    except requests.RequestException:
        return None
    return answer.json()["data"]["runsOrError"]["results"]


def living(*ancestors: int) -> set[int]:
    """Processes and all that they have started; one that nobody has asked about yet is dead."""
    told = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split() for line in told.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}
    found = [pid for pid in ancestors if pid in parents]
    for ancestor in found:
        found += [pid for pid, parent in parents.items() if parent == ancestor]
    return {*found}


@pytest.mark.slow
def test_the_ui_shows_the_runs_of_the_command_line_on_the_loopback_alone(once):
    with dagster_ui(once) as (_, port):
        assert {"jobName": "daily", "status": "SUCCESS"} in runs_shown(port)


@pytest.mark.slow
def test_f73_sigterm_to_the_ui_ends_all_that_it_started_before_it_ends_itself(once, tmp_path):
    with dagster_ui(copy_of(once, tmp_path)) as (ui, port):
        family = living(ui.pid)
        assert len(family) >= 5, "dg, webserver, daemon, and a code server behind its proxy"
        ui.terminate()
        assert ui.wait(timeout=90) == 0
        assert living(*family) == set()
        assert runs_shown(port) is None


LEAVES_A_CHILD = """
import pathlib, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
sys.exit(3)
"""


@pytest.mark.parametrize("child", ["sleep 60", "trap '' INT; sleep 60; sleep 60"])
def test_f73_what_a_command_leaves_behind_ends_with_it_or_is_killed(child, tmp_path, monkeypatch):
    monkeypatch.setattr(group, "ENDS_WITHIN_SECONDS", 1)
    told = tmp_path / "child"
    command = [sys.executable, "-c", LEAVES_A_CHILD, str(told), "sh", "-c", child]
    assert group.run_group(command) == 3
    assert living(int(told.read_text())) == set()


def test_a_taken_port_is_refused_before_dagster_starts(once):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = healthloop("ui", "--home", str(once), "--port", str(port))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"port {port} of 127.0.0.1 cannot be used (Address already in use); "
        "end what listens there (another `healthloop ui`?), or choose another --port\n"
    )
