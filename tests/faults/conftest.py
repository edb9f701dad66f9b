"""Fixtures of the fault tests, and which fault of the catalogue is tested where.

====  =====================================================================================
F01   429 with seconds            test_transport_http, test_vendor_faults (all vendors)
F02   429 with a date or nonsense test_transport_http, test_vendor_faults (all vendors)
F03   a day's limit               test_transport_http, vendors/test_hubspot, vendors/test_chargebee
F04   403 that is a limit         test_transport_http, vendors/test_salesforce_faults
F05   503 in the middle of paging test_transport_http, test_vendor_faults (all vendors)
F06   down for good               test_transport_http, test_vendor_faults (all vendors)
F07   reset in the body           test_transport_http, test_vendor_faults (all vendors)
F08   truncated gzip              test_transport_http, test_vendor_faults (all vendors)
F09   truncated JSON, ZIP, lines  test_transport_http, test_vendor_faults (all vendors)
F10   wrong Content-Length        test_transport_http, test_vendor_faults (all vendors)
F11   200 with an error object    test_transport_http, test_vendor_faults (all vendors)
F12   200 with a login page       test_transport_http, test_vendor_faults (all vendors)
F13   204 instead of a body       test_transport_http, test_vendor_faults (all vendors)
F14   no bytes                    test_transport_http, test_vendor_faults (all vendors)
F15   no connection, no trust     test_transport_http, test_vendor_faults (all vendors)
F16   redirect to another host    test_transport_http, test_vendor_faults (all vendors)
F17   502 after the work was done test_transport_http, test_vendor_faults (all vendors)
F18   a page comes twice          test_transport_http, test_vendor_faults (all vendors)
F19   the same cursor twice       test_transport_http, test_vendor_faults (those with a cursor)
F20   updated between pages       test_moving_worlds (all vendors)
F21   deleted between pages       test_moving_worlds (vendors that tell of it), test_pull_api
F22   inserted in mid-scan        test_moving_worlds (all vendors), vendors/test_freshdesk
F23   the newest minute is hidden vendors/test_zendesk, test_moving_worlds (all vendors)
F24   clocks differ               test_moving_worlds (all vendors), test_crm_write_people
F25   dated ahead                 test_moving_worlds, test_pull_api, vendors/test_posthog
F26   days of 23 and 25 hours     test_values
F27   leap day and month's end    test_values
F28   late data                   test_values, vendors of event stores, test_signals_build
F29   nothing after something     test_pull_api, test_dagster_faults
F30   most rows are gone          test_sources_faults, test_source_health
F31   one source down for all     test_dagster_faults, test_sources_faults
F32   credentials refused         test_vendor_faults (all vendors), each vendor's own tests
F33   a column is renamed         test_dagster_faults, test_sources_faults
F34   types and columns change    test_pull_api
F35   a value not seen before     test_sources_faults
F36   columns more than known     test_sources_faults
F37   another account             test_vendor_faults (all vendors), test_pull_api
F38   every score shifts          test_dagster_checks, test_crm_planning,
                                  test_sources_faults
F39   another spread, same mean   test_source_health, test_sources_faults
F40   NaN and infinity            test_values
F41   negative amounts            test_values
F42   currencies                  test_values
F43   numbers beyond 64 bits      test_values
F44   hostile text                test_values
F45   ten megabytes of text       test_values
F46   one key twice               test_values
F47   one customer, two accounts  test_values, test_identity
F48   on the border of a band     test_actions, test_field_changes
F49   empty is not null           test_values
F50   a session expires           test_crm_write_transport
F51   and cannot be renewed       test_crm_write_transport
F52   some records are locked     test_crm_write_faults
F53   all records are locked      test_crm_write_faults
F54   a record is refused         test_crm_write_faults, test_crm_write_jobs, test_crm_over_days
F55   a call is refused           test_crm_write_faults
F56   a silent success            test_crm_write_faults (HubSpot)
F57   a 207 without some records  test_crm_write_faults (HubSpot)
F58   the portal is locked, moved test_crm_write_faults (HubSpot)
F59   results in another order    test_crm_write_faults
F60   a bulk job breaks off       test_crm_write_jobs (Salesforce)
F61   no bulk jobs                test_crm_write_jobs (Salesforce)
F62   the key exists              test_crm_write_faults
F63   a duplicate by a rule       test_crm_write_faults (Salesforce)
F64   one key twice in a plan     test_crm_write_faults
F65   the account is deleted      test_crm_write_people
F66   the account is merged       test_crm_write_people
F67   and has a new id            test_crm_write_people (HubSpot)
F68   a human took up the task    test_crm_write_people, test_crm_observing
F69   a human edited our field    test_crm_write_people
F70   the owner has left          test_crm_write_people
F71   held, dry run, stopped      test_crm_write_people, test_crm_runs_faults, test_crm_over_days
F72   SIGKILL                     test_killed_api_pulls (APIs), test_pull_crash (files),
                                  test_killed_applies (both CRMs)
F73   SIGTERM                     test_crm_process_faults, test_crm_in_dagster,
                                  test_cli_progress (the UI)
F74   two runs at once            test_crm_process_faults, test_crm_runs_faults, test_ledger
F75   the lease of the dead       test_crm_process_faults, test_ledger
F76   the warehouse is locked     test_dagster_faults
F77   the disk is full            test_crm_process_faults, test_crm_write_sweep, test_ledger
F78   the warehouse lost its tail test_dagster_runs
F79   the warehouse is corrupt    test_dagster_faults, test_dagster_runs
F80   a ledger of another version test_crm_process_faults, test_ledger
F81   the ledger is lost          test_crm_process_faults, test_ledger, test_crm_observing
F82   very many changes           test_crm_runs_faults
F83   who tries again             test_crm_runs_faults
F84   the daemon dies in a tick   test_daemon_restarts
F85   SOQL in a name              test_hostile_crm
F86   a path in an id             test_hostile_crm
F87   HTML in a task              test_hostile_crm
F88   Markdown in a name          test_hostile_crm
F89   formulas in a CSV           test_hostile_crm
F90   forged lines                test_hostile_crm, test_crm_commands
F91   templates in a name         test_hostile_crm
F92   tags that run something     test_crm_commands
F93   secrets and people          test_hostile_crm, test_demo_of_apis, test_dagster_runs
F94   bombs of JSON and ZIP       test_transport_http
F96   100,000 accounts at once    test_crm_runs_faults (slow), benchmarks/writing.py
====  =====================================================================================

F95 (webhooks) has no place here: nothing listens for calls from outside. F1 to F17 on writes are
in test_crm_write_transport. Every single request of a pull fails in turn in test_request_sweep,
every one of an apply in test_crm_write_sweep.
"""

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.http import Http, Patience
from connectors.sandbox.servers.box import Box
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.world import write_world
from tests.faults.crm_writes import CRMS, Crm, open_crm
from tests.faults.crm_writes import FaultFree as FaultFreeCrm
from tests.faults.killed_applies import Forks
from tests.faults.vendor_pulls import FIRST, FaultFree

ACCOUNTS = 65


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of this session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def world(shared) -> Path:
    """A small synthetic company; the first worker that needs it writes it."""
    folder = shared / "world"
    with (shared / "world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            write_world(shared / "unfinished", accounts=ACCOUNTS)
            (shared / "unfinished").rename(folder)
    return folder


@pytest.fixture
def impatient(monkeypatch) -> Clock:
    """No client sleeps, history is short, and streams are read one by one: order is certain."""
    clock = Clock()
    endless = Patience(budget_seconds=1e9, body_seconds=1e9)
    for name, value in {"sleep": clock.sleep, "clock": clock, "patience": endless}.items():
        monkeypatch.setitem(Http.__init__.__kwdefaults__, name, value)
    monkeypatch.setattr("connectors.api_pull.READS_BACK", dt.timedelta(0))
    monkeypatch.setattr("connectors.api_pull.STREAMS_AT_ONCE", 1)
    return clock


@pytest.fixture(scope="session")
def all_vendors(world) -> Iterator[Box]:
    with sandbox(world, FIRST) as box:
        yield box


@pytest.fixture
def box(all_vendors, impatient) -> Iterator[Box]:
    """A sandbox of all vendors, without faults, its clock at `FIRST`. Its records stay as is."""
    all_vendors.faults.clear()
    all_vendors.defects.clear()
    all_vendors.now = FIRST
    yield all_vendors
    assert all_vendors.defects == []


@pytest.fixture(scope="session")
def fault_free(tmp_path_factory) -> FaultFree:
    return FaultFree(tmp_path_factory.mktemp("fault_free"))


@pytest.fixture(params=list(CRMS))
def crm(request, world, tmp_path, impatient) -> Iterator[Crm]:
    """Each CRM with all our fields in it, that is written to; nobody waits for anything."""
    with open_crm(request.param, world, tmp_path / request.param) as crm:
        yield crm


@pytest.fixture(scope="session")
def fault_free_crm(world, tmp_path_factory) -> FaultFreeCrm:
    return FaultFreeCrm(world, tmp_path_factory.mktemp("fault_free_crm"))


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Other processes that write into a CRM, and that may be killed."""
    with Forks() as forks:
        yield forks
