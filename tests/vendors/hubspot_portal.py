"""What the tests of HubSpot's writer and provisioner share: a portal, and who writes into it."""

import datetime as dt
import tempfile
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path

from connectors.crm.settings import HubSpotTarget, names_of
from connectors.crm.writing import NewTask
from connectors.http import Http
from connectors.sandbox.servers.box import credentials
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors import hubspot_control as control
from connectors.vendors.hubspot import client, portal
from connectors.vendors.hubspot.provision import connect_provisioner
from connectors.vendors.hubspot.settings import HubSpotConfig
from connectors.vendors.hubspot.writer import connect_writer
from contracts.crm_fields import written_on
from contracts.secrets import Secrets

NOW = dt.datetime(2026, 6, 30, 20, tzinfo=dt.UTC)
TOKEN = "sandbox-hubspot-token"
OF_TASKS = {
    "healthloop_key", "healthloop_episode", "hs_timestamp", "hs_task_subject", "hs_task_body",
    "hs_task_status", "hs_task_priority", "hs_task_type", "hubspot_owner_id",
}  # fmt: skip


@contextmanager
def open_portal(world):
    """A portal with all our properties; in the end it has to pass the oracle."""
    with sandbox(world, NOW, vendors=["hubspot"]) as box:
        control.provisioned(box)
        yield box
    assert box.defects == []
    check_the_oracle(box, getattr(box, "target", None))


def without_waiting(monkeypatch):
    """The seconds that would have been waited."""
    waited = []
    for module in (client, portal):
        monkeypatch.setattr(module, "Http", partial(Http, sleep=waited.append))
    return waited


def connected(box, make=connect_writer, *, token=TOKEN, version="v3", target=None, **of_target):
    """A writer, or what else `make` connects, and what `crm.yaml` would say."""
    config = HubSpotConfig.model_validate({
        "type": "hubspot", "address": box.address("hubspot"), "api_version": version,
        "token": {"env": "HUBSPOT_TOKEN"},
    })  # fmt: skip
    target = target or HubSpotTarget(source="crm", **of_target)
    with tempfile.TemporaryDirectory() as home:
        lines = {**credentials(), "HUBSPOT_TOKEN": token}
        Path(home, ".env").write_text("".join(f"{k}='{v}'\n" for k, v in lines.items()))
        return make(config, target, Secrets(Path(home)))


provisioner = partial(connected, make=connect_provisioner)


def living(box, type):
    """The records of a type that are there, by id."""
    return {row.id: row for row in control.collection(box, type).rows(box.now.timestamp())}


def values(box, type, id):
    """The properties of a record as they are now."""
    return control.collection(box, type).get(id, box.now.timestamp()).body["properties"]


def our_tasks(box):
    """The living tasks that bear a key of ours."""
    rows = living(box, "tasks").values()
    return [row for row in rows if row.body["properties"].get("healthloop_key")]


def check_the_oracle(box, target=None):
    """Nothing but ours was written, and no key has two tasks, living or deleted by a human."""
    target = target or HubSpotTarget(source="crm")
    ours = {"tasks": OF_TASKS}
    for object, type in (("account", "companies"), ("opportunity", "deals")):
        names = names_of("hubspot", target, object)
        ours[type] = {names[field.name] for field in written_on(object) if field.name in names}
    for write in control.writes(box):
        assert set(write.properties) <= ours[write.object]
        assert write.kind in ("create", "update")
    created = [write.id for write in control.writes(box) if write.kind == "create"]
    table = control.collection(box, "tasks")
    keys = [
        row.body["properties"]["healthloop_key"]
        for row in table.rows(inf, deleted=True)
        if row.id in created
    ]
    assert len(keys) == len(set(keys))


def task(key, company, **differs):
    given = {
        "key": key * 64, "episode": f"champion-left/2026-06-30/{company}", "record_id": company,
        "owner_id": "70000001", "subject": "Find the new champion", "body": "Who is it?",
        "due_on": dt.date(2026, 7, 2), "due_at": dt.datetime(2026, 7, 2, 15, tzinfo=dt.UTC),
        "priority": "normal",
    }  # fmt: skip
    return NewTask(**given | differs)


def outcomes(results):
    return [result.outcome for result in results]


def refused(box, path, *, status, times=1, headers=None, **body):
    body = {"status": "error", "message": "Ada Lovelace <ada@lakeview.example>", **body}
    box.faults.add(
        vendor="hubspot", path=path, do="status", code=status, body=body, times=times,
        headers=headers or {},
    )  # fmt: skip
