"""Stripe: the connector against the sandbox, the official client and localstripe."""

import asyncio
import datetime as dt
import json
import threading
from contextlib import contextmanager
from decimal import Decimal

import pytest
import requests
import stripe
from aiohttp import web
from billing import LOADED_AT, is_row_wise, latest, mapped, slept_by, utc
from conftest import NOW
from minimal import connected, read_all

from connectors.sandbox.servers.box import WorldFiles
from connectors.sandbox.vendors.stripe_records import items_of, priced
from connectors.vendors.stripe import connector
from connectors.vendors.stripe.connector import StripeConfig
from contracts.errors import SourceCorrupt, SourceRefused, SourceRejected

SETTINGS = {"key": {"env": "STRIPE_KEY"}}
CONFIG = StripeConfig.model_validate({"type": "stripe", **SETTINGS})
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
EURO_OR_DOLLAR = ("eur", "usd")


@pytest.fixture
def billing(world) -> dict[str, list[dict]]:
    """What the billing system of the world holds, without what no Stripe account could hold."""
    files = WorldFiles(world)
    subscriptions = files.rows("billing/subscriptions.jsonl")
    invoices = files.rows("billing/invoices.jsonl")
    return {
        "customers": files.rows("billing/customers.jsonl"),
        "subscriptions": [s for s in subscriptions if s["id"] and s["quantity"] > 0],
        "invoices": list({
            i["id"]: _as_of_now(i) for i in invoices
            if i["id"] and i["currency"] in EURO_OR_DOLLAR and i["created"] < NOW.timestamp()
        }.values()),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def slept(monkeypatch) -> list[float]:
    """No test waits, neither for the rate limit nor before another attempt."""
    return slept_by(monkeypatch, connector)


def _as_of_now(invoice):
    """The world's day goes on for some hours after the sandbox's clock."""
    if (invoice["status_transitions"]["paid_at"] or 0) <= NOW.timestamp():
        return invoice
    return invoice | {"status": "open", "amount_paid": 0, "status_transitions": {"paid_at": None}}


def table(box, name):
    """A collection of the sandbox's Stripe account, filled."""
    headers = {"Authorization": f"Bearer {box.token('stripe')}"}
    requests.get(f"{box.address('stripe')}/v1/{name}", headers=headers, timeout=10)
    return box.tables()["stripe", name]


def ask(box, path, params=None, **headers):
    headers = {"Authorization": f"Bearer {box.token('stripe')}"} | headers
    return requests.get(f"{box.address('stripe')}{path}", params, headers=headers, timeout=10)


def ids(rows):
    return [row["id"] for row in rows]


# -- reading ---------------------------------------------------------------------------------------


def test_a_first_reading_is_what_the_world_says(pulled, billing):
    rows = pulled("stripe", **SETTINGS)
    for stream, wanted in billing.items():
        assert sorted(ids(rows[stream])) == sorted({record["id"] for record in wanted})
    emails = {row["id"]: row["email"] for row in rows["customers"]}
    assert emails == {c["id"]: c["email"] for c in billing["customers"]}
    last = {s["id"]: s for s in billing["subscriptions"]}
    for row in rows["subscriptions"]:
        told = last[row["id"]]
        assert (row["status"], row["canceled_at"]) == (told["status"], told["canceled_at"])
        assert row["items"]["data"][0]["quantity"] == told["quantity"]
    paid = {row["id"]: row["amount_paid"] for row in rows["invoices"]}
    assert paid == {i["id"]: i["amount_paid"] for i in billing["invoices"]}
    assert all(row["is_first"] for stream in rows.values() for row in stream)


def test_pages_of_three_give_the_same_rows(box):
    start = dt.date(2026, 6, 1)
    whole = read_all("stripe", SETTINGS, box, history_start=start)
    box.small_pages = 3
    assert read_all("stripe", SETTINGS, box, history_start=start) == whole
    assert box.count("stripe", "/v1/subscriptions") > 40


def test_lists_are_asked_for_in_the_largest_pages_and_cancelled_subscriptions_too(pulled, box):
    pulled("stripe", **SETTINGS)
    assert {request.query["limit"] for request in box.log} == {"100"}
    asked = [request.query for request in box.log if request.path == "/v1/subscriptions"]
    assert {query["status"] for query in asked} == {"all"}


def test_invoices_from_before_the_history_are_not_read(box, billing):
    start = dt.date(2026, 1, 1)
    rows = read_all("stripe", SETTINGS | {"streams": ["invoices"]}, box, history_start=start)[
        "invoices"
    ]
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    assert sorted(ids(rows)) == sorted(
        i["id"] for i in billing["invoices"] if i["created"] >= since
    )


def test_an_unchanged_hour_costs_one_request_for_each_stream(pulled, box):
    positions = {}
    box.move(box.now + 2 * DAY)  # the events of the world's last hours are behind us
    pulled("stripe", positions=positions, **SETTINGS)
    for _ in range(3):
        box.move(box.now + HOUR)
        before = len(box.log)
        rows = pulled("stripe", positions=positions, **SETTINGS)
        assert rows == {"customers": [], "subscriptions": [], "invoices": []}
        assert len(box.log) - before == 3


def test_later_readings_bring_exactly_what_changed(pulled, box):
    positions = {}
    box.move(box.now + 2 * DAY)
    pulled("stripe", positions=positions, **SETTINGS)
    customers, subscriptions = table(box, "customers"), table(box, "subscriptions")
    at = box.now.timestamp() + 600
    old = customers.rows(at)[0]
    customers.put(old.id, old.body | {"email": "new@example.com"}, at)
    customers.put("cus_new", old.body | {"id": "cus_new", "created": int(at)}, at + 1)
    contract = next(row for row in subscriptions.rows(at) if row.body["status"] == "active")
    for number in (1, 2):
        items = [i | {"quantity": 70 + number} for i in contract.body["items"]["data"]]
        changed = contract.body | {"items": contract.body["items"] | {"data": items}}
        subscriptions.put(contract.id, changed, at + number)
    box.move(box.now + HOUR)
    rows = pulled("stripe", positions=positions, **SETTINGS)
    assert ids(rows["customers"]) == [old.id, "cus_new"]
    told = [(row["as_of"], row["items"]["data"][0]["quantity"]) for row in rows["subscriptions"]]
    assert told == [(int(at) + 1, 71), (int(at) + 2, 72)]
    assert rows["invoices"] == []
    box.move(box.now + dt.timedelta(minutes=10))
    again = pulled("stripe", positions=positions, **SETTINGS)
    assert again == {"customers": [], "subscriptions": [], "invoices": []}, "known events"


def test_a_deleted_customer_arrives_as_a_tombstone(pulled, box):
    positions = {}
    pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)
    customers = table(box, "customers")
    gone = customers.rows(box.now.timestamp())[0]
    customers.remove(gone.id, box.now.timestamp() + 5)
    box.move(box.now + HOUR)
    rows = pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    assert [(row["id"], row["deleted"]) for row in rows] == [(gone.id, True)]
    assert ask(box, f"/v1/customers/{gone.id}").json()["deleted"] is True
    assert mapped("stripe", "account_keys", {"customers": rows}, CONFIG) == []


def test_the_event_that_a_subscription_was_deleted_means_that_it_was_cancelled(pulled, box):
    positions = {}
    pulled("stripe", positions=positions, streams=["subscriptions"], **SETTINGS)
    subscriptions, at = table(box, "subscriptions"), int(box.now.timestamp()) + 5
    row = next(r for r in subscriptions.rows(at) if r.body["canceled_at"] is None)
    ended = {"status": "canceled", "canceled_at": at, "ended_at": at}
    subscriptions.put(row.id, row.body | ended, at)
    box.move(box.now + HOUR)
    read = pulled("stripe", positions=positions, streams=["subscriptions"], **SETTINGS)
    (told,) = [r for r in read["subscriptions"] if r["id"] == row.id]
    assert (told["deleted"], told["status"]) == (False, "canceled")
    (version,) = mapped("stripe", "subscriptions", {"subscriptions": [told]}, CONFIG)
    assert (version["cancelled_at"], version["known_at"]) == (utc(at), utc(at))
    assert mapped("stripe", "commercial_events", {"subscriptions": [told]}, CONFIG) == []


def test_a_notice_that_is_taken_back_is_deleted(pulled, box):
    positions = {}
    pulled("stripe", positions=positions, streams=["subscriptions"], **SETTINGS)
    subscriptions, told = table(box, "subscriptions"), int(box.now.timestamp()) + 5
    row = next(r for r in subscriptions.rows(told) if r.body["canceled_at"] is None)
    notice = {"canceled_at": told, "cancel_at": told + 40 * 86_400}
    subscriptions.put(row.id, row.body | notice, told)
    subscriptions.put(row.id, row.body, told + 600)
    box.move(box.now + HOUR)
    read = pulled("stripe", positions=positions, streams=["subscriptions"], **SETTINGS)
    own = {"subscriptions": [r for r in read["subscriptions"] if r["id"] == row.id]}
    events = mapped("stripe", "commercial_events", own, CONFIG)
    assert [(e["occurred_at"], e["deleted"], e["known_at"]) for e in events] == [
        (utc(told), False, utc(told)),
        (utc(told), True, utc(told + 600)),
    ]


def test_a_catch_up_of_many_days_gives_changes_in_their_order(pulled, box):
    positions = {}
    pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)
    customers, start = table(box, "customers"), box.now.timestamp()
    row = customers.rows(start)[0]
    for day in range(1, 6):
        customers.put(row.id, row.body | {"balance": day}, start + day * 86_400)
    box.small_pages = 2
    box.move(box.now + 6 * DAY)
    rows = pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    assert [row["balance"] for row in rows if row["balance"]] == [1, 2, 3, 4, 5]
    assert box.count("stripe", "/v1/customers$") == 3, "filling, and the first reading's pages"


def test_an_event_that_never_came_is_made_up_for_within_a_week(pulled, box):
    positions = {}
    pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)
    customers = table(box, "customers")
    row = customers.rows(box.now.timestamp())[0]
    long_ago = (box.now - 40 * DAY).timestamp()
    customers.put(row.id, row.body | {"balance": 500}, max(long_ago, row.changed + 1))
    box.move(box.now + 6 * DAY)
    assert row.id not in ids(
        pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    )
    box.move(box.now + DAY + HOUR)
    rows = pulled("stripe", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    found = next(r for r in rows if r["id"] == row.id)
    assert (found["balance"], found["as_of"]) == (500, int(box.now.timestamp()))


def test_after_29_days_without_a_reading_everything_is_listed_again(pulled, box, billing):
    positions = {}
    pulled("stripe", positions=positions, **SETTINGS)
    box.move(box.now + 29 * DAY)
    before = box.count("stripe", "/v1/events")
    rows = pulled("stripe", positions=positions, **SETTINGS)
    assert box.count("stripe", "/v1/events") == before
    assert len(rows["customers"]) == len(billing["customers"])
    assert {row["as_of"] for row in rows["customers"]} == {int(box.now.timestamp())}


def test_a_failed_reading_leaves_the_position_as_it_was(box):
    positions = {}
    read_all("stripe", SETTINGS | {"streams": ["customers"]}, box, positions=positions)
    before = json.loads(json.dumps(positions))
    box.move(box.now + HOUR)
    box.faults.add(vendor="stripe", path="/v1/events", do="status", code=400)
    with pytest.raises(SourceRejected):
        read_all("stripe", SETTINGS | {"streams": ["customers"]}, box, positions=positions)
    assert positions == before


def test_the_eleventh_item_of_a_subscription_is_read_from_its_own_pages(pulled, box):
    subscriptions, at = table(box, "subscriptions"), box.now.timestamp()
    row = next(r for r in subscriptions.rows(at) if r.body["status"] == "active")
    (item,) = row.body["items"]["data"]
    price = priced("Seat", "eur", "month", 1, Decimal(100), created=item["created"])
    items = [item | price | {"id": f"si_{n}", "quantity": 1} for n in range(12)]
    subscriptions.put(row.id, row.body | {"items": items_of(row.id, items)}, at)
    read = pulled("stripe", streams=["subscriptions"], **SETTINGS)["subscriptions"]
    own = [r for r in read if r["id"] == row.id]
    assert len(own[0]["items"]["data"]) == 12
    versions = mapped("stripe", "subscriptions", {"subscriptions": own}, CONFIG)
    assert {version["mrr"] for version in versions} == {Decimal("12.00")}


@pytest.mark.parametrize("version", ["2024-06-20", "2025-03-31.basil", "2026-10-28.endive"])
def test_an_account_may_be_pinned_to_an_older_or_newer_version(pulled, version):
    pinned = pulled("stripe", api_version=version, **SETTINGS)
    usual = pulled("stripe", **SETTINGS)
    is_new = version > "2025-03-31"
    assert all(("parent" in row) == is_new for row in pinned["invoices"])
    assert all(("plan" in row) != is_new for row in pinned["subscriptions"])
    for table_name in ("subscriptions", "invoices", "commercial_events", "account_keys"):
        rows = mapped("stripe", table_name, pinned, CONFIG)
        assert rows == mapped("stripe", table_name, usual, CONFIG)


# -- the account -----------------------------------------------------------------------------------


def test_the_account_behind_the_key_is_named(box):
    vendor, config, client = connected("stripe", SETTINGS, box)
    assert vendor.account(client, config) == "acct_1SandboxHealthloop"
    assert client.requests_sent == 1


def test_F37_a_key_for_test_data_says_so(box):
    box.tokens = {"stripe": "sk_test_1"}
    vendor, config, client = connected(
        "stripe", SETTINGS, box, secrets_env={"STRIPE_KEY": "sk_test_1"}
    )
    assert vendor.account(client, config) == "acct_1SandboxHealthloop (test mode)"


def test_a_restricted_key_learns_its_account_from_the_refusal(box):
    message = "The key 'rk_live_***' may not do this on account 'acct_1Own'."
    box.faults.add(vendor="stripe", do="status", code=403, body={"error": {"message": message}})
    vendor, config, client = connected("stripe", SETTINGS, box)
    assert vendor.account(client, config) == "acct_1Own"


def test_a_refusal_that_names_no_account_stays_a_refusal(box):
    box.faults.add(vendor="stripe", do="status", code=403, body={"error": {"message": "No."}})
    vendor, config, client = connected("stripe", SETTINGS, box)
    with pytest.raises(SourceRefused):
        vendor.account(client, config)


def test_an_account_without_an_id_is_not_taken_for_one(box):
    box.faults.add(vendor="stripe", do="error_json", body={"object": "account"})
    vendor, config, client = connected("stripe", SETTINGS, box)
    with pytest.raises(SourceCorrupt):
        vendor.account(client, config)


# -- faults ----------------------------------------------------------------------------------------


def test_F32_a_wrong_key_is_refused_and_not_shown(box):
    with pytest.raises(SourceRefused) as refused:
        read_all(
            "stripe",
            SETTINGS | {"streams": ["customers"]},
            box,
            secrets_env={"STRIPE_KEY": "sk_live_wrong"},
        )
    assert "sk_live" not in str(refused.value)


def test_F01_a_429_is_waited_for_as_long_as_it_says(box, pulled, slept):
    whole = pulled("stripe", streams=["invoices"], **SETTINGS)
    box.faults.add(vendor="stripe", path="/v1/invoices", nth=2, times=2, do="status", code=429,
                   headers={"Retry-After": "7"})  # fmt: skip
    assert pulled("stripe", streams=["invoices"], **SETTINGS) == whole
    assert slept.count(7.0) == 2


@pytest.mark.parametrize("again", ["true", "false"])
def test_a_409_is_tried_again_where_stripe_says_so(box, pulled, again):
    box.faults.add(vendor="stripe", path="/v1/invoices", do="status", code=409,
                   headers={"Stripe-Should-Retry": again})  # fmt: skip
    if again == "true":
        assert pulled("stripe", streams=["invoices"], **SETTINGS)["invoices"]
    else:
        with pytest.raises(SourceRejected):
            pulled("stripe", streams=["invoices"], **SETTINGS)


@pytest.mark.parametrize(
    ("fault", "number"), [("truncate", "F09"), ("reset", "F07"), ("wrong_length", "F10")]
)
def test_a_page_that_breaks_off_loses_no_row(box, pulled, fault, number):
    whole = pulled("stripe", streams=["invoices"], **SETTINGS)
    box.faults.add(vendor="stripe", path="/v1/invoices", nth=3, do=fault)
    assert pulled("stripe", streams=["invoices"], **SETTINGS) == whole


def test_F18_a_page_that_comes_twice_is_noticed(box, pulled):
    box.faults.add(vendor="stripe", path="/v1/invoices", nth=3, do="repeat_page", times=None)
    with pytest.raises(SourceCorrupt):
        pulled("stripe", streams=["invoices"], **SETTINGS)


@pytest.mark.parametrize("missing", ["has_more", "data"])
def test_F09_a_page_without_its_end_mark_or_its_data_is_not_taken_for_the_last(
    box, pulled, missing
):
    def without(body):
        page = json.loads(body)
        del page[missing]
        return json.dumps(page).encode()

    box.faults.add(vendor="stripe", path="/v1/customers", do="rewrite", rewrite=without, times=None)
    with pytest.raises(SourceCorrupt):
        pulled("stripe", streams=["customers"], **SETTINGS)


def test_F21_an_object_that_vanishes_between_two_pages_loses_no_row(box, pulled):
    """The next page cannot follow it: the reading fails and begins anew the next time."""
    customers, at = table(box, "customers"), box.now.timestamp()
    newest = sorted(customers.rows(at), key=lambda r: (r.body["created"], r.id), reverse=True)
    box.faults.add(vendor="stripe", path="/v1/customers", nth=2, do="status", code=400)
    with pytest.raises(SourceRejected):
        pulled("stripe", streams=["customers"], **SETTINGS)
    customers.remove(newest[99].id, at)
    rows = pulled("stripe", streams=["customers"], **SETTINGS)["customers"]
    assert sorted(ids(rows)) == sorted({row.id for row in newest} - {newest[99].id})


# -- what the server refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "params", "headers", "status", "param"),
    [
        ("/v1/customers", {"limit": 101}, {}, 400, "limit"),
        ("/v1/customers", {"limit": 0}, {}, 400, "limit"),
        ("/v1/customers", {"limit": "ten"}, {}, 400, "limit"),
        ("/v1/customers", {"updated": 5}, {}, 400, "updated"),
        ("/v1/customers", {"starting_after": "cus_nobody"}, {}, 400, "starting_after"),
        ("/v1/customers", {"created[since]": 5}, {}, 400, "created"),
        ("/v1/customers/cus_nobody", {}, {}, 404, "id"),
        ("/v1/subscriptions", {"status": "cancelled"}, {}, 400, "status"),
        ("/v1/subscription_items", {}, {}, 400, "subscription"),
        ("/v1/events", {"types[]": ["a"] * 21}, {}, 400, "types"),
        ("/v1/events", {"types[]": "a", "type": "b"}, {}, 400, None),
        ("/v1/customers", {}, {"Stripe-Version": "yesterday"}, 400, None),
        ("/v1/customers", {}, {"Stripe-Version": "2025-03-31"}, 400, None),
        ("/v1/customers", {}, {"Authorization": ""}, 401, None),
        ("/v1/customers", {}, {"Authorization": "Bearer sk_live_wrong"}, 401, None),
    ],
)
def test_the_server_refuses_what_stripe_refuses(box, path, params, headers, status, param):
    answer = ask(box, path, params, **headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error.get("param")) == ("invalid_request_error", param)


def test_the_server_hides_cancelled_subscriptions_unless_asked(box):
    shown = ask(box, "/v1/subscriptions", {"limit": 100}).json()["data"]
    assert {row["status"] for row in shown} == {"active"}
    assert ask(box, "/v1/subscriptions", {"status": "canceled"}).json()["data"]


def test_the_server_forgets_events_after_30_days(box):
    events, after = [], {}
    while True:
        page = ask(box, "/v1/events", {"limit": 100, **after}).json()
        events += page["data"]
        if not page["has_more"]:
            break
        after = {"starting_after": page["data"][-1]["id"]}
    oldest = box.now.timestamp() - 30 * 86_400
    assert events
    assert all(event["created"] >= oldest for event in events)
    assert events == sorted(events, key=lambda e: e["created"], reverse=True)
    assert {event["api_version"] for event in events} == {"2024-06-20"}


# -- mappings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["account_keys", "commercial_events", "invoices", "subscriptions"])
def test_the_mappings_read_only_new_rows(name):
    assert is_row_wise("stripe", name, CONFIG)


def test_the_mapped_subscriptions_are_those_of_the_world(pulled, billing):
    versions = mapped(
        "stripe", "subscriptions", pulled("stripe", streams=["subscriptions"], **SETTINGS), CONFIG
    )
    now = latest(versions, "subscription_id")
    world = {row["id"]: row for row in billing["subscriptions"]}
    assert now.keys() == world.keys()
    for id, row in world.items():
        assert now[id] == {
            "account_key": row["customer"],
            "subscription_id": id,
            "plan": row["plan"]["nickname"],
            "mrr": Decimal(row["mrr_cents"]) / 100,
            "currency": row["currency"].upper(),
            "seats": row["quantity"],
            "started_at": utc(row["start_date"]),
            "cancelled_at": utc(row["canceled_at"]),
            "ends_at": utc(row["cancel_at"]),
            "renews_on": _renewal(row),
            "status": row["status"],
            "known_at": now[id]["known_at"],
        }


def _renewal(row):
    if row["plan"]["interval"] == "month":
        return None
    end = utc(row["current_period_end"]).date()
    # The world's file has no line for a contract that was merely prolonged.
    until = (utc(row["cancel_at"]) or LOADED_AT).date()
    while end < until:
        end = end.replace(year=end.year + 1)
    return end


def test_what_was_known_of_a_cancellation_on_any_day_is_what_the_world_knew(pulled, billing):
    versions = mapped(
        "stripe", "subscriptions", pulled("stripe", streams=["subscriptions"], **SETTINGS), CONFIG
    )
    leaving = [row for row in billing["subscriptions"] if row["canceled_at"]]
    assert len(leaving) > 30
    for row in leaving:
        for at in (row["canceled_at"] - 60, row["canceled_at"], row["updated"]):
            then = latest(versions, "subscription_id", utc(at))[row["id"]]
            states = [s for s in billing["subscriptions"] if s["id"] == row["id"]]
            told = [s for s in states if s["updated"] <= at] or states[:1]
            assert then["status"] == told[-1]["status"]
            assert then["cancelled_at"] == utc(told[-1]["canceled_at"])
            assert then["ends_at"] == utc(told[-1]["cancel_at"])


def test_a_renewal_is_only_known_in_the_period_that_leads_to_it(pulled):
    versions = mapped(
        "stripe", "subscriptions", pulled("stripe", streams=["subscriptions"], **SETTINGS), CONFIG
    )
    renewing = [version for version in versions if version["renews_on"]]
    assert {(v["renews_on"] - v["known_at"].date()).days <= 731 for v in renewing} == {True}
    assert min(version["started_at"] for version in renewing).year < 2022


def test_the_notices_are_those_of_the_world(pulled, billing):
    found = mapped(
        "stripe",
        "commercial_events",
        pulled("stripe", streams=["subscriptions"], **SETTINGS),
        CONFIG,
    )
    told = {
        (f"notice-{row['id']}", row["customer"], utc(row["canceled_at"]))
        for row in billing["subscriptions"]
        if row["canceled_at"] and row["status"] == "active"
    }
    assert {(e["event_id"], e["account_key"], e["occurred_at"]) for e in found} == told
    assert {(e["kind"], e["severity"], e["deleted"]) for e in found} == {("notice", 5, False)}


def test_the_mapped_invoices_are_those_of_the_world(pulled, billing):
    versions = mapped(
        "stripe", "invoices", pulled("stripe", streams=["invoices"], **SETTINGS), CONFIG
    )
    now = latest(versions, "invoice_id")
    assert now.keys() == {row["id"] for row in billing["invoices"]}
    for row in billing["invoices"]:
        found = now[row["id"]]
        assert found == {
            "account_key": row["customer"],
            "invoice_id": row["id"],
            "issued_at": utc(row["created"]),
            "due_at": utc(row["due_date"]),
            "paid_at": utc(row["status_transitions"]["paid_at"]),
            "amount_due": Decimal(row["amount_due"]) / 100,
            "amount_paid": Decimal(row["amount_paid"]) / 100,
            "currency": row["currency"].upper(),
            "status": row["status"],
            "attempts": row["attempt_count"],
            "deleted": False,
            "known_at": found["known_at"],
        }


def test_what_an_invoice_took_is_not_known_before_it_is_paid(pulled, billing):
    versions = mapped(
        "stripe", "invoices", pulled("stripe", streams=["invoices"], **SETTINGS), CONFIG
    )
    slow = next(i for i in billing["invoices"] if i["attempt_count"] > 1 and i["status"] == "paid")
    before = latest(versions, "invoice_id", utc(slow["created"] + 60))[slow["id"]]
    after = latest(versions, "invoice_id", utc(slow["status_transitions"]["paid_at"]))[slow["id"]]
    assert (before["status"], before["attempts"]) == ("open", None)
    assert (after["status"], after["attempts"]) == ("paid", slow["attempt_count"])


def test_the_keys_carry_the_crm_number_and_the_address(pulled, billing):
    found = mapped(
        "stripe", "account_keys", pulled("stripe", streams=["customers"], **SETTINGS), CONFIG
    )
    assert {(k["account_key"], k["account_id"], k["email"]) for k in found} == {
        (c["id"], c["metadata"].get("crm_account_no"), c["email"]) for c in billing["customers"]
    }


def test_the_metadata_key_of_the_crm_number_can_be_chosen():
    other = StripeConfig.model_validate({"type": "stripe", **SETTINGS, "crm_id_field": "sf id"})
    row = {"id": "cus_1", "deleted": False, "email": " ", "metadata": {"sf id": "ACC-1"}}
    (key,) = mapped("stripe", "account_keys", {"customers": [row]}, other)
    assert key == {"account_key": "cus_1", "account_id": "ACC-1", "email": None}


def subscription(*items, currency="eur", **changes):
    return {
        "id": "sub_1", "customer": "cus_1", "status": "active", "currency": currency,
        "created": 1_700_000_000, "start_date": 1_700_000_000, "as_of": 1_750_000_000,
        "is_first": False, "previously": {}, "deleted": False,
        "items": {"data": list(items), "has_more": False},
        **changes,
    }  # fmt: skip


def item(amount, interval="month", count=1, quantity=1, **price):
    recurring = {"interval": interval, "interval_count": count,
                 "usage_type": price.pop("usage_type", "licensed")}  # fmt: skip
    whole = amount if isinstance(amount, int) else None
    decimal = None if amount is None else str(amount)
    return {"quantity": quantity, "price": {
        "nickname": "Pro", "unit_amount": whole, "unit_amount_decimal": decimal,
        "recurring": recurring, **price,
    }}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "mrr"),
    [
        (subscription(item(2000, quantity=3)), "60.00"),
        (subscription(item(120_000, "year")), "100.00"),
        (subscription(item(240_000, "year", 2)), "100.00"),
        (subscription(item(30_000, "month", 3)), "100.00"),
        (subscription(item(1200, "week")), "52.00"),
        (subscription(item(1200, "day")), "365.00"),
        (subscription(item("0.5", quantity=1000)), "5.00"),
        (subscription(item(1000), item(120_000, "year", quantity=2)), "210.00"),
        (subscription(item(2000, quantity=3), currency="jpy"), "6000.00"),
        (subscription(item(0)), "0.00"),
        (subscription(item(500, quantity=25,
                           transform_quantity={"divide_by": 10, "round": "up"})), "15.00"),
        (subscription(item(500, quantity=25,
                           transform_quantity={"divide_by": 10, "round": "down"})), "10.00"),
        (subscription(item(None, billing_scheme="tiered")), None),
        (subscription(item(1000), item(None, billing_scheme="tiered")), None),
        (subscription(item(1000, usage_type="metered", quantity=None)), None),
        (subscription(item(1000), items={"data": [item(1000)], "has_more": True}), None),
        (subscription(), None),
        (subscription({"quantity": 2, "plan": {
            "nickname": "Old", "amount": 700, "interval": "month", "interval_count": 1}}), "14.00"),
    ],
)  # fmt: skip
def test_mrr_is_the_price_of_all_items_a_month_and_never_guessed(row, mrr):
    (version,) = mapped("stripe", "subscriptions", {"subscriptions": [row]}, CONFIG)
    assert version["mrr"] == (None if mrr is None else Decimal(mrr))


def test_a_first_list_makes_versions_that_were_true_then():
    row = subscription(
        item(120_000, "year"), is_first=True, status="canceled", trial_end=1_701_000_000,
        current_period_start=1_731_000_000, current_period_end=1_762_000_000,
        canceled_at=1_735_000_000, cancel_at=None, cancel_at_period_end=True,
        ended_at=1_762_000_000,
    )  # fmt: skip
    versions = mapped("stripe", "subscriptions", {"subscriptions": [row]}, CONFIG)
    told = [
        (v["known_at"], v["status"], v["cancelled_at"], v["ends_at"], v["renews_on"] is not None)
        for v in sorted(versions, key=lambda v: v["known_at"])
    ]
    notice, end = utc(1_735_000_000), utc(1_762_000_000)
    assert told == [
        (utc(1_700_000_000), "trialing", None, None, False),
        (utc(1_701_000_000), "active", None, None, False),
        (utc(1_731_000_000), "active", None, None, True),
        (notice, "active", notice, end, True),
        (end, "canceled", notice, end, True),
    ]


def test_a_void_invoice_was_open_until_then_and_nobody_owes_it_any_more():
    row = {
        "id": "in_1", "customer": "cus_1", "status": "void", "currency": "jpy", "created": 100,
        "due_date": None, "amount_due": 5000, "amount_paid": 0, "attempt_count": 2,
        "as_of": 400, "is_first": True,
        "status_transitions": {"finalized_at": 200, "voided_at": 300, "paid_at": None},
    }  # fmt: skip
    draft = row | {"id": "in_2", "status": "draft"}
    versions = mapped("stripe", "invoices", {"invoices": [row, draft]}, CONFIG)
    assert [(v["known_at"], v["status"], v["deleted"], v["amount_due"]) for v in versions] == [
        (utc(200), "open", False, Decimal("5000.00")),
        (utc(300), "void", True, Decimal("5000.00")),
    ]


def test_personal_data_that_no_mapping_needs_is_left_out():
    left_out = {name: stream.leave_out for name, stream in connector.STREAMS.items()}
    assert {"name", "phone", "address", "description"} <= left_out["customers"]
    assert {"customer_email", "customer_name", "lines", "invoice_pdf"} <= left_out["invoices"]
    assert "cancellation_details" in left_out["subscriptions"]


# -- the official client ---------------------------------------------------------------------------


def test_the_official_client_reads_the_same_objects(box, pulled):
    client = stripe.StripeClient(
        box.token("stripe"),
        base_addresses={"api": box.address("stripe")},
        stripe_version="2025-03-31.basil",
    )
    rows = pulled("stripe", **SETTINGS)
    customers = [c.id for c in client.v1.customers.list({"limit": 100}).auto_paging_iter()]
    assert customers == ids(rows["customers"])
    found = client.v1.subscriptions.list({"limit": 50, "status": "all"}).auto_paging_iter()
    for theirs, ours in zip(found, rows["subscriptions"], strict=True):
        (line,) = theirs["items"].data
        assert (theirs.id, theirs.status) == (ours["id"], ours["status"])
        assert line.current_period_end == ours["current_period_end"]
    paid = client.v1.invoices.list({"limit": 100, "status": "paid"}).auto_paging_iter()
    assert [i.id for i in paid] == [r["id"] for r in rows["invoices"] if r["status"] == "paid"]
    kinds = ["customer.subscription.updated"]
    events = list(client.v1.events.list({"types": kinds, "limit": 100}).auto_paging_iter())
    assert {event.type for event in events} == set(kinds)
    assert isinstance(client.v1.customers.retrieve(customers[0]), stripe.Customer)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list({"limit": 101})
    with pytest.raises(stripe.AuthenticationError):
        stripe.StripeClient(
            "sk_live_wrong", base_addresses={"api": box.address("stripe")}
        ).v1.customers.list()


# -- localstripe, a server that is not ours --------------------------------------------------------


@contextmanager
def localstripe(monkeypatch):
    """localstripe on a free port.

    It knows neither the filter by `created` for invoices nor that by `types` for events, so both
    are taken out on the way; and it has no `/v1/account`.
    """
    from localstripe import server
    from localstripe.resources import store

    monkeypatch.setattr(store, "dump_to_disk", lambda: None)
    store.clear()

    @web.middleware
    async def without_created(request, handler):
        if request.path == "/v1/invoices" and request.method == "GET":
            query = {k: v for k, v in request.query.items() if not k.startswith("created")}
            request = request.clone(rel_url=request.rel_url.with_query(query))
        if request.path == "/v1/events":
            query = {k: v for k, v in request.query.items() if k != "types[]"}
            request = request.clone(rel_url=request.rel_url.with_query(query))
        return await handler(request)

    app = web.Application(middlewares=[without_created, *server.app.middlewares])
    for route in server.app.router.routes():
        if route.method != "HEAD":
            app.router.add_route(route.method, route.resource.canonical, route.handler)
    ready, loop, address = threading.Event(), asyncio.new_event_loop(), []

    async def start():
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        return runner

    def run():
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        store.clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:aiohttp")
def test_the_connector_reads_a_server_that_is_not_ours(box, monkeypatch):
    with localstripe(monkeypatch) as address:

        def post(path, **data):
            answer = requests.post(
                f"{address}/v1/{path}", data, auth=("sk_test_12345", ""), timeout=9
            )
            assert answer.status_code == 200, answer.text
            return answer.json()

        customer = post("customers", email="ann@example.com", **{"metadata[crm_account_no]": "A-1"})
        post("plans", id="pro", amount=4500, currency="eur", interval="month", nickname="Pro",
             **{"product[name]": "Pro"})  # fmt: skip
        card = post("payment_methods", type="card", **{
            "card[number]": "4242424242424242", "card[exp_month]": 12, "card[exp_year]": 2040,
            "card[cvc]": 123,
        })["id"]  # fmt: skip
        post(f"payment_methods/{card}/attach", customer=customer["id"])
        default = {"invoice_settings[default_payment_method]": card}
        post(f"customers/{customer['id']}", **default)
        made = post("subscriptions", customer=customer["id"],
                    **{"items[0][plan]": "pro", "items[0][quantity]": 2})  # fmt: skip
        settings = SETTINGS | {"address": address}
        secret = {"STRIPE_KEY": "sk_test_12345"}
        positions, now = {}, dt.datetime.now(dt.UTC)
        rows = read_all("stripe", settings, box, positions=positions, now=now, secrets_env=secret)
        assert ids(rows["customers"]) == [customer["id"]]
        assert ids(rows["subscriptions"]) == [made["id"]]
        assert [row["customer"] for row in rows["invoices"]] == [customer["id"]]
        found = mapped("stripe", "subscriptions", rows, CONFIG)
        assert {(v["plan"], v["mrr"], v["seats"]) for v in found} == {("Pro", Decimal("90.00"), 2)}
        (invoice,) = latest(mapped("stripe", "invoices", rows, CONFIG), "invoice_id").values()
        assert (invoice["amount_due"], invoice["currency"]) == (Decimal("90.00"), "EUR")

        post(f"customers/{customer['id']}", email="bob@example.com")
        later = read_all(
            "stripe", settings, box, positions=positions, now=now + HOUR, secrets_env=secret
        )
        # Not the last row: unlike Stripe, localstripe lists the oldest event first.
        changed = {row["email"] for row in later["customers"] if not row["is_first"]}
        assert changed == {"ann@example.com", "bob@example.com"}
        assert {row["object"] for row in later["subscriptions"]} <= {"subscription"}
