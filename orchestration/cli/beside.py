"""The sandbox of a demo company, running beside a command in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from connectors.sandbox.demo import sandbox_port
from contracts.company import Company
from contracts.errors import InputError
from orchestration.cli.console import errors

STARTS_WITHIN_SECONDS = 60


@contextmanager
def sandbox_beside(company: Company) -> Iterator[None]:
    """Serve the vendors of a demo company during the block; other companies have real ones.

    A sandbox of this company that runs already is used, and left running.

    Raises:
        InputError: something else uses its port, or it did not start.
    """
    port = sandbox_port(company.home)
    if port is None or _serves(port, company.home):
        yield
        return
    errors.print(f"The vendors' sandbox answers at 127.0.0.1:{port} meanwhile.")
    command = [sys.executable, "-m", "orchestration.cli", "sandbox", "--home", str(company.home)]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        process_group=0,  # a Ctrl-C reaches it last, for a call to it may be under way
    )  # fmt: skip
    try:
        _wait_for(process, port, company.home)
        yield
    finally:
        process.terminate()
        process.wait()
        if process.stderr:
            process.stderr.close()


def _wait_for(process: subprocess.Popen[str], port: int, home: Path) -> None:
    until = time.monotonic() + STARTS_WITHIN_SECONDS
    while not _serves(port, home):
        if process.poll() is not None or time.monotonic() > until:
            said = process.stderr.read().strip() if process.stderr and process.poll() else ""
            raise InputError(
                f"the sandbox on port {port} did not start{': ' + said if said else ''}",
                f"free ports {port} and {port + 1}, or make the demo anew with another --port",
            )
        time.sleep(0.05)


def _serves(port: int, home: Path) -> bool:
    """Whether the sandbox of this company answers there."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/_sandbox/health", timeout=5)
        return bool(answer.ok and answer.json().get("world", "").startswith(str(home.resolve())))
    except (requests.RequestException, ValueError, AttributeError):
        return False
