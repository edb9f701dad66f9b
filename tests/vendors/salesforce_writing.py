"""What the tests of writing into Salesforce share: writers for the sandbox's org, and tasks."""

import datetime as dt
import json
import tempfile
from pathlib import Path

from salesforce_org import settings

from connectors.crm.settings import SalesforceTarget
from connectors.crm.writing import FieldUpdate, NewTask
from connectors.sandbox.servers.box import credentials
from connectors.sandbox.vendors.salesforce import CONSUMER_KEY, CONSUMER_SECRET
from connectors.sandbox.vendors.salesforce_objects import VENDOR, records
from connectors.vendors.salesforce.provision import connect_provisioner
from connectors.vendors.salesforce.settings import SalesforceConfig
from connectors.vendors.salesforce.writer import connect_writer, merged_config
from contracts.secrets import Secrets

CLIENT = {"consumer_key": {"env": "SF_KEY"}, "consumer_secret": {"env": "SF_SECRET"}}
MANAGER = "0055g0000000002AAA"


def config_of(box, **more):
    """The settings of a source at the sandbox; an access token unless `more` logs in otherwise."""
    address = {"type": VENDOR, "address": box.address(VENDOR)}
    return SalesforceConfig.model_validate({**address, **settings(box, **more)})


def secrets_of(**more):
    """The sandbox's credentials, read from a folder that is gone already."""
    env = {**credentials(), "SF_KEY": CONSUMER_KEY, "SF_SECRET": CONSUMER_SECRET, **more}
    with tempfile.TemporaryDirectory() as home:
        Path(home, ".env").write_text("".join(f"{k}='{v}'\n" for k, v in env.items()))
        secrets = Secrets(Path(home))
        _ = secrets._in_file
    return secrets


def writer_of(box, *, source=None, secrets=None, **target):
    """A writer; `source` are settings of the source, the rest those of the target."""
    target = SalesforceTarget(source="crm", **target)
    config = merged_config(config_of(box, **(source or {})), target)
    return connect_writer(config, target, secrets or secrets_of())


def provisioner_of(box, *, assign_to=None, **target):
    """A provisioner."""
    target = SalesforceTarget(source="crm", **target)
    return connect_provisioner(config_of(box), target, secrets_of(), assign_to=assign_to)


def ids(box, name, number):
    """The ids of some records that are there."""
    rows = records(box, name).rows(box.now.timestamp())
    living = [row.id for row in rows if not row.body.get("IsDeleted")]
    assert len(living) >= number
    return living[:number]


def body(box, name, id):
    """A record as the org keeps it."""
    row = records(box, name).get(id, box.now.timestamp())
    assert row is not None
    return row.body


def score(id, value="71", object="account", **more):
    """New values for a record: a risk score, and others."""
    return FieldUpdate(object, id, {"risk_score": value, **more})


def task(box, key="k1", **more):
    """A task to create, linked to the first account."""
    given = {
        "key": key, "episode": f"champion-left/2026-06-30/{key}", "owner_id": MANAGER,
        "record_id": ids(box, "Account", 1)[0], "subject": "Find the new champion",
        "body": "The champion left.\n- Ask for the successor", "due_on": dt.date(2026, 7, 2),
        "due_at": dt.datetime(2026, 7, 2, 15, tzinfo=dt.UTC), "priority": "high",
    }  # fmt: skip
    return NewTask(**{**given, **more})


def changes(box):
    """The requests that were no reads, as method and path below the version."""
    return [
        (request.method, request.path.partition("64.0/")[2])
        for request in box.log
        if request.method != "GET" and "/data/" in request.path
    ]


def rewritten(change):
    """For the fault `rewrite`: `change` is given the parsed answer."""
    return lambda content: json.dumps(change(json.loads(content))).encode()
