"""Stripe's requests and answers against Stripe's own descriptions, where these are at hand."""

import datetime as dt
import json

import pytest
import requests
from conftest import NOW
from minimal import read_all
from specs import load, read, validate_request, validate_response

from connectors.sandbox.servers.running import sandbox

SETTINGS = {"key": {"env": "STRIPE_KEY"}}
LISTS = ("/v1/customers", "/v1/subscriptions", "/v1/invoices", "/v1/events")
OLD, NEW = "2024-06-20", "2025-03-31.basil"
OTHERWISE = {
    "invoice.subscription": "since basil it stands in `parent`; the fixture keeps a null",
    "event.data.previous_attributes": "the fixture's event is a creation",
}


@pytest.fixture(scope="module")
def box(world):
    with sandbox(world, NOW, vendors=["stripe"]) as box:
        yield box


def ask(box, path, version, **params):
    headers = {"Authorization": f"Bearer {box.token('stripe')}", "Stripe-Version": version}
    address = f"{box.address('stripe')}{path}"
    return requests.get(address, params, headers=headers, timeout=10)


@pytest.mark.parametrize("path", LISTS)
def test_answers_in_the_older_version_fit_the_description(box, path):
    spec = load("stripe/trimmed_collapsed.json")
    params = {"status": "all"} if path == "/v1/subscriptions" else {}
    answer = ask(box, path, OLD, limit=100, **params)
    assert answer.json()["data"]
    validate_response(spec, "GET", path, 200, answer.json())
    if path != "/v1/events":
        single = f"{path}/{answer.json()['data'][0]['id']}"
        validate_response(spec, "GET", single, 200, ask(box, single, OLD).json())


@pytest.mark.parametrize(
    ("params", "version"), [({"limit": 101}, NEW), ({"foo": 1}, NEW), ({}, "no version")]
)
def test_errors_fit_the_description(box, params, version):
    spec = load("stripe/trimmed_collapsed.json")
    answer = ask(box, "/v1/customers", version, **params)
    assert answer.status_code == 400
    validate_response(spec, "GET", "/v1/customers", 400, answer.json())


def test_every_request_of_the_connector_fits_the_description(box):
    spec = load("stripe/trimmed_collapsed.json")
    positions, before = {}, len(box.log)
    read_all("stripe", SETTINGS, box, positions=positions)
    later = box.now + dt.timedelta(days=3)
    read_all("stripe", SETTINGS, box, positions=positions, now=later)
    sent = box.log[before:]
    assert {request.path for request in sent} == set(LISTS)
    for request in sent:
        validate_request(spec, request.method, request.path, request.query)


@pytest.mark.parametrize("kind", ["customer", "subscription", "invoice", "event"])
def test_answers_of_today_have_the_fields_of_stripes_own_fixtures(box, kind):
    fixtures = json.loads(read("stripe/fixtures3.json").read_text())["resources"]
    record = ask(box, f"/v1/{kind}s", NEW).json()["data"][0]
    found = {
        line
        for line in _differences(fixtures[kind], record, kind)
        if line.split(" ")[0] not in OTHERWISE
    }
    assert found == set()


def _differences(known, record, place):
    """Fields that only one of both has, and values of another type; nulls say nothing."""
    if place == "event.data.object" or known is None or record is None:
        return
    if isinstance(known, list) and isinstance(record, list):
        if known and record:
            yield from _differences(known[0], record[0], f"{place}[]")
    elif isinstance(known, dict) and isinstance(record, dict):
        if not known or place.endswith("metadata"):
            return
        for name in known.keys() | record.keys():
            if name not in known:
                yield f"{place}.{name} is not known"
            elif name not in record:
                yield f"{place}.{name} is missing"
            else:
                yield from _differences(known[name], record[name], f"{place}.{name}")
    elif type(known) is not type(record):
        yield f"{place} is {type(record).__name__}, not {type(known).__name__}"
