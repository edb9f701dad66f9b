"""A command that starts others, run in a process group of its own and ended with all of them."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

ENDS_WITHIN_SECONDS = 60
"""Enough for a call to a CRM that is under way; what is killed after it is read back next time."""


def end_as_with_ctrl_c() -> None:
    """From here on SIGTERM and a closed terminal end this process as Ctrl-C does.

    SIGINT is set too: in the background of a script it is ignored, and what we start would inherit
    that. SIGHUP stays ignored where it is: `nohup` is meant.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def run_group(command: Sequence[str]) -> int:
    """Run a command until it ends or this process is interrupted; nothing of it is left behind.

    In a session of its own, it gets no Ctrl-C from the terminal but ours, with all that it started.
    """
    leader = subprocess.Popen(command, start_new_session=True)
    try:
        return leader.wait()
    finally:
        _end(leader)


def _end(leader: subprocess.Popen[bytes]) -> None:
    """Interrupt a group and wait for all of it; a second Ctrl-C, or the limit, kills the rest."""
    try:
        _signal(leader, signal.SIGINT)
        until = time.monotonic() + ENDS_WITHIN_SECONDS
        while _lives(leader) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        _signal(leader, signal.SIGKILL)
        leader.wait()


def _lives(leader: subprocess.Popen[bytes]) -> bool:
    leader.poll()  # or it would count for as long as nobody asks how it ended
    return _signal(leader, 0)


def _signal(leader: subprocess.Popen[bytes], number: int) -> bool:
    """Whether anything of the group was there to get the signal."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, number)
        return True
    return False
