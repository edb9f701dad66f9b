"""Kills runs that write into a CRM, each at one point of the protocol and in a process of its own.

Run as a module it is a server: for each line of JSON that it reads it forks a child, which applies
a plan as a run does, and answers with a line that says how the child ended. A child that is to be
killed kills itself at the n-th passage of a point; one that is not tells how often it passed each.
The server opens nothing itself, so that forking is safe, and no case has to import anything.

The points are those of FAULTS.md ("Exactly-once tasks"): 1 is the commit of what a plan decided, 2
that of a batch that is about to be sent, 3 the call, 4 the commit of its results. Those of a bulk
job are between the call that makes it and the one that reads what it did.
"""

import datetime as dt
import http.client
import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import requests
import sqlalchemy as sa

from connectors.crm import ledger_batches, ledger_tables, sending
from connectors.crm.applying import apply_plan, recover
from connectors.crm.ledger import Ledger
from connectors.crm.writing import CrmName
from connectors.vendors.salesforce.bulk_writes import SalesforceBulk
from contracts.errors import HealthloopError
from tests.faults.crm_writes import LEASE_SECONDS, Crm, writer_at

POINTS = (
    "before 1", "after 1", "after 2", "request sent", "response half read", "response read",
    "inside 4", "after 4",
)  # fmt: skip
JOB_POINTS = ("job made", "job noted", "job filled", "job begun", "job asked", "job told")

READS = re.compile("batch/read|/search")
ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 60
INTERRUPTED = "interrupted"

At = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What one child does: apply a plan, or only recover; and where it dies.

    Without a `point` it lives, and counts. With SIGTERM or SIGINT for a `signal` it is asked to end
    there, as often as `times` says.
    No file that it writes grows beyond `largest_file_bytes`.
    """

    crm: CrmName
    address: str
    ca_file: str | None
    home: str
    batch_size: int
    ledger: str
    now: str
    plan_id: str | None = None
    bulk_above: int | None = None
    point: str | None = None
    passage: int = 1
    signal: int = signal.SIGKILL
    times: int = 1
    largest_file_bytes: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a child ended: its status (-9: killed), and how often it passed each point.

    `refused` is the one line with which it gave up, if it did; an interrupt is one as well.
    """

    status: int
    passed: Mapping[str, int]
    refused: str

    @property
    def was_killed(self) -> bool:
        """Whether it died at its point, and not otherwise."""
        return self.status == -signal.SIGKILL


class Forks:
    """A server of forks, for as long as a session of tests."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.killed_applies"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(LONGEST_SECONDS)

    def run(self, crm: Crm, plan_id: str | None, **how: Any) -> Ended:
        """Let a child apply a plan (None: only recover); `how` is the rest of its order."""
        order = Order(
            crm.name, crm.box.address(crm.name), str(crm.box.ca_file) if crm.box.ca_file else None,
            str(crm.folder), crm.batch_size, crm.url, crm.now().isoformat(), plan_id, **how,
        )  # fmt: skip
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(asdict(order)) + "\n")
        stdin.flush()
        told = json.loads(stdout.readline())
        settled(crm)
        ended = Ended(**told)
        assert ended.status in (0, -signal.SIGKILL), ended
        return ended


def settled(crm: Crm) -> None:
    """Wait until the sandbox has answered everything that the dead had sent."""
    with requests.Session() as session:
        session.trust_env = False
        session.get(crm.box.control, timeout=LONGEST_SECONDS)  # whatever came before is begun
    until = time.monotonic() + LONGEST_SECONDS
    while any(request.status == 0 for request in crm.box.log):
        assert time.monotonic() < until, "the sandbox does not answer"
        time.sleep(0.001)


def prepared_quickly(prepare: Callable[..., None]) -> Callable[..., None]:
    """SQLite without waiting for the disk: processes are killed here, and no machine."""

    def quickly(connection: sqlite3.Connection, record: object) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    return quickly


# In the server and its children


def serve() -> None:
    """Carry out orders until there are no more."""
    for line in sys.stdin:
        print(json.dumps(forked(Order(**json.loads(line)))), flush=True)


def forked(order: Order) -> dict[str, Any]:
    """How a child ended that carried out an order."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LONGEST_SECONDS)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background ignores it
        told: dict[str, Any] = {"passed": Counter(), "refused": ""}
        try:
            act(order, told["passed"])
        except HealthloopError as error:
            told["refused"] = str(error)
        except KeyboardInterrupt:
            told["refused"] = INTERRUPTED
        except BaseException:
            told["refused"] = traceback.format_exc()
            raise
        finally:
            os.write(writer, json.dumps(told).encode())
            os._exit("Traceback" in told["refused"])
    os.close(writer)
    with os.fdopen(reader) as pipe:
        told = json.loads(pipe.read() or '{"passed": {}, "refused": ""}')
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), **told}


def act(order: Order, passed: Counter[str]) -> None:
    """Carry out an order, and count how often each point is passed."""

    def at(point: str) -> None:
        passed[point] += 1
        if point == order.point and passed[point] == order.passage:
            for _ in range(order.times):
                os.kill(os.getpid(), order.signal)

    watch(at)
    if order.largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file_bytes,) * 2)
    writer = writer_at(
        order.crm, order.address, Path(order.home), ca_file=order.ca_file,
        batch_size=order.batch_size,
    )  # fmt: skip
    writers, moment = {order.crm: writer}, dt.datetime.fromisoformat(order.now)
    shared: dict[str, Any] = {"now": lambda: moment, "sleep": lambda seconds: None}
    with (
        stopping(order) as shared["stop"],
        Ledger(order.ledger) as ledger,
        ledger.lease(holder="a child", now=shared["now"], seconds=LEASE_SECONDS) as lease,
    ):
        if order.plan_id is None:
            recover(ledger, writers, lease=lease, **shared)
        else:
            above = {order.crm: order.bulk_above} if order.bulk_above is not None else {}
            apply_plan(
                ledger, order.plan_id, writers, lease=lease, budget={}, bulk_above=above, **shared
            )


def stopping(order: Order) -> AbstractContextManager[Callable[[], bool]]:
    """How the child notices that it is asked to end."""
    if order.signal == signal.SIGKILL:
        return nullcontext(lambda: False)
    from orchestration.crm_writes import (
        draining,  # not in the server, where most cases do without it
    )

    return draining()


def watch(at: At) -> None:
    """Call `at` with the name of each point that this process passes from here on."""
    around(Ledger, "begin_plan", at, before="before 1", after="after 1")
    around(Ledger, "begin_batch", at, after="after 2")
    around(sending, "call", at, after="response read")
    around(Ledger, "finish_batch", at, after="after 4")
    around(SalesforceBulk, "create", at, after="job made")
    around(Ledger, "note_job", at, after="job noted")
    around(SalesforceBulk, "_set_state", at, before="job filled")
    around(SalesforceBulk, "upload", at, after="job begun")
    around(SalesforceBulk, "state", at, after="job asked")
    around(SalesforceBulk, "results", at, after="job told")
    watch_the_last_commit(at)
    watch_the_wire(at)


def around(
    owner: Any, name: str, at: At, *, before: str | None = None, after: str | None = None
) -> None:
    """Tell of a function when it is called, and when it has returned."""
    call = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        if before:
            at(before)
        result = call(*arguments, **options)
        if after:
            at(after)
        return result

    setattr(owner, name, watched)


def watch_the_last_commit(at: At) -> None:
    """Every statement with which the results of a batch are kept, and their commit, is `inside 4`.

    A child dies before the statement, or the commit.
    """
    finish = ledger_batches.finish

    def watched(connection: sa.Connection, *arguments: Any) -> None:
        sa.event.listen(connection, "before_cursor_execute", lambda *_: at("inside 4"))
        sa.event.listen(connection, "commit", lambda _: at("inside 4"))
        finish(connection, *arguments)

    ledger_batches.finish = watched


def watch_the_wire(at: At) -> None:
    """Requests that change something, once they are out, and their answers when half is read."""
    begin, get = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    def putrequest(self: Any, method: str, url: str, *more: Any, **options: Any) -> None:
        self.watched = method != "GET" and not READS.search(url)
        begin(self, method, url, *more, **options)

    def getresponse(self: Any) -> Any:
        if self.watched:
            at("request sent")
        response = get(self)
        response.watched = self.watched
        return response

    for name in ("read", "read1"):
        halve(name, at)
    http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign]
    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]


def halve(name: str, at: At) -> None:
    """Let one of the ways to read a body stop after its first half."""
    read = getattr(http.client.HTTPResponse, name)

    def half(self: Any, amount: int | None = None) -> bytes:
        if getattr(self, "watched", False) and self.length:
            self.watched = False
            first: bytes = read(self, max(1, self.length // 2))
            at("response half read")
            return first
        rest: bytes = read(self, amount)
        return rest

    setattr(http.client.HTTPResponse, name, half)


if __name__ == "__main__":
    ledger_tables._prepare_sqlite = prepared_quickly(ledger_tables._prepare_sqlite)
    serve()
