"""Salesforce: every request that the connector sends is one that the vendor describes.

The vendor describes requests only (method, address, parameters, body), as a Postman collection.
Two things are missing there, and allowed by name: the pages of a long result, which an answer
names itself, and the login by client credentials, which is newer than the description.
"""

import json
import re
from urllib.parse import parse_qsl, urlsplit

import pytest
from conftest import NOW
from salesforce_org import read
from specs import SPECS

from connectors.http.session import Session
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import (
    CONSUMER_KEY,
    CONSUMER_SECRET,
    PASSWORD,
    USERNAME,
)
from connectors.vendors import vendor

FOLDER = SPECS / "salesforce"
NOT_DESCRIBED = {
    "GET /services/data/vXX.X/query/<locator>": "an answer names it",
    "POST client_credentials": "newer than the description",
}
CLIENT = {"consumer_key": {"env": "SF_KEY"}, "consumer_secret": {"env": "SF_SECRET"}}
LOGIN = CLIENT | {"username": {"env": "SF_USER"}, "password": {"env": "SF_PASSWORD"}}
SECRETS = {
    "SF_KEY": CONSUMER_KEY, "SF_SECRET": CONSUMER_SECRET,
    "SF_USER": USERNAME, "SF_PASSWORD": PASSWORD,
}  # fmt: skip


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


@pytest.fixture(scope="module")
def described():
    """The requests of the description: method, a pattern of the path, and what they may hold."""
    if not FOLDER.is_dir():
        pytest.skip(f"the vendor's description is not there ({FOLDER})")
    found = []
    for file in sorted(FOLDER.glob("*/*.json")):
        request = json.loads(file.read_text(encoding="utf-8"))
        path, _, query = re.sub(r"^(\{\{\w+\}\})+", "", request["url"]).partition("?")
        pattern = re.sub(r"\\\{\\\{\w+\\\}\\\}|<\w+>", "[^/]+", re.escape(path.rstrip("/")))
        parameters = {item["key"] for item in request["queryParams"] or []}
        parameters |= {name for name, _ in parse_qsl(query, keep_blank_values=True)}
        found.append((request["method"], re.compile(f"{pattern}/?"), parameters, _body(request)))
    return found


def _body(request):
    """The names that a described body holds."""
    if isinstance(request.get("data"), list) and request["data"]:
        return {item["key"] for item in request["data"]}
    return set(re.findall(r'"(\w+)"\s*:', request.get("rawModeData") or ""))


@pytest.fixture
def sent(monkeypatch):
    """The requests that were sent, as (method, path, query, names in the body)."""
    found = []
    original = Session.send

    def send(self, request, **options):
        parts = urlsplit(request.url)
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        names = set(json.loads(body)) if body.startswith("{") else {k for k, _ in parse_qsl(body)}
        found.append((request.method, parts.path, dict(parse_qsl(parts.query)), names, body))
        return original(self, request, **options)

    monkeypatch.setattr(Session, "send", send)
    return found


def is_described(request, described):
    method, path, query, names, _ = request
    return any(
        method == known and pattern.fullmatch(path) and set(query) <= parameters and names <= body
        for known, pattern, parameters, body in described
    )


def exception_of(request):
    method, path, _, _, body = request
    if re.fullmatch(r"/services/data/v[\d.]+/query/\w+-\d+", path):
        return f"{method} /services/data/vXX.X/query/<locator>"
    return f"{method} client_credentials" if "grant_type=client_credentials" in body else None


@pytest.mark.parametrize("way_in", [CLIENT, LOGIN], ids=["client", "password"])
def test_every_request_is_one_that_the_vendor_describes(box, described, sent, way_in):
    box.small_pages = 200
    read(box, secrets_env=SECRETS, **way_in)
    read(box, secrets_env=SECRETS, bulk_above_rows=400, bulk_poll_seconds=0.001, **way_in)
    strange = [request[:2] for request in sent if not is_described(request, described)]
    unexplained = [
        request[:2]
        for request in sent
        if not is_described(request, described) and exception_of(request) not in NOT_DESCRIBED
    ]
    assert unexplained == []
    assert strange
    assert {request[0] for request in sent} == {"GET", "POST", "DELETE"}
    assert any("/results" in request[1] for request in sent)


def test_asking_for_the_account_is_one_described_request(box, described, sent):
    from minimal import connected
    from salesforce_org import settings

    found, config, client = connected("salesforce", settings(box), box)
    assert vendor("salesforce").account(client, config) == found.account(client, config)
    assert len(sent) == 2
    assert all(is_described(request, described) for request in sent)
