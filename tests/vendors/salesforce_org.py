"""What the tests of Salesforce share: how to read the sandbox's org, and how to change it."""

import datetime as dt

import requests
from mapped import packaged
from minimal import read_all

from connectors.sandbox.vendors.salesforce_objects import VENDOR, records, save
from connectors.vendors import vendor

TOKEN = {"access_token": {"env": "SALESFORCE_TOKEN"}}
HOUR = dt.timedelta(hours=1)


def settings(box, **more):
    """A source's settings for the sandbox; an access token unless `more` logs in otherwise."""
    way_in = {} if "consumer_key" in more else TOKEN
    return {**way_in, "ca_file": str(box.ca_file), **more}


def read(box, positions=None, secrets_env=None, **more):
    """The rows of every stream; `positions` is changed in place."""
    return read_all(
        VENDOR, settings(box, **more), box, positions=positions, secrets_env=secrets_env
    )


def rows_of(box, stream, positions=None, **more):
    """The rows of one stream."""
    return read(box, positions, streams=[stream], **more)[stream]


def change(box, name, id, later=HOUR, **changes):
    """Move the clock, and change a record then; gives its id back."""
    box.move(box.now + later)
    save(box, name, id, changes, box.now.timestamp())
    return id


def some(box, name, **wanted):
    """The first record of an object whose fields are as wanted."""
    rows = records(box, name).rows(box.now.timestamp())
    return next(
        row for row in rows if all(row.body.get(key) == value for key, value in wanted.items())
    )


def session(box):
    """A plain session that trusts the sandbox."""
    plain = requests.Session()
    plain.verify, plain.trust_env = str(box.ca_file), False
    return plain


def ask(box, path, method="GET", token=None, version="64.0", **more):
    """Ask the server itself, as no client of ours would."""
    return session(box).request(
        method,
        f"{box.address(VENDOR)}/services/data/v{version}/{path}",
        headers={"Authorization": f"Bearer {token or box.token(VENDOR)}"},
        timeout=10,
        **more,
    )


def refusal(answer):
    """Status and error code of a refused request."""
    return answer.status_code, answer.json()[0]["errorCode"]


def canonical(table, rows, **more):
    """What a packaged mapping makes of the rows of all streams."""
    found = vendor(VENDOR)
    config = found.config.model_validate(
        {"type": VENDOR, "instance_url": "https://acme.my.salesforce.com", **TOKEN, **more}
    )
    return packaged(config, table, rows)


def versions(rows, key):
    """The versions of each fact as a build keeps them: by time, without equal ones in a row."""
    found = {}
    for row in sorted(rows, key=lambda row: row["known_at"]):
        chain = found.setdefault(row[key], [])
        if chain and chain[-1]["known_at"] == row["known_at"]:
            chain.pop()
        if not chain or {**chain[-1], "known_at": None} != {**row, "known_at": None}:
            chain.append(row)
    return found
