"""What the vendors' tests share: one synthetic world, and a sandbox of it for each test."""

import datetime as dt
from pathlib import Path

import pytest
from minimal import read_all

from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import NAMES
from connectors.sandbox.world import WorldTruth, write_world

ACCOUNTS = 130
NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Path, WorldTruth]:
    """The world's folder, each worker's own, and what only its generator knows."""
    folder = tmp_path_factory.mktemp("world")
    return folder, write_world(folder, accounts=ACCOUNTS)


@pytest.fixture(scope="session")
def world(made) -> Path:
    return made[0]


@pytest.fixture(scope="session")
def truth(made) -> WorldTruth:
    return made[1]


@pytest.fixture
def box(world, request):
    """A running sandbox; `box.defects` has to be empty in the end.

    Only the vendor of the module ``test_<vendor>.py`` is served there, or all in other modules.
    """
    vendor = request.module.__name__.removeprefix("test_")
    with sandbox(world, NOW, vendors=[vendor] if vendor in NAMES else None) as box:
        yield box
    assert box.defects == []


@pytest.fixture
def pulled(box):
    """``pulled("zendesk", subdomain=...)``: the rows of every stream, from the running sandbox."""

    def pull(vendor, *, positions=None, now=None, secrets_env=None, **config):
        return read_all(vendor, config, box, positions=positions, now=now, secrets_env=secrets_env)

    return pull
