"""Chargebee: the connector against the sandbox, the official client, the vendor's description."""

import datetime as dt
import json
from decimal import Decimal

import chargebee
import pytest
import requests
from billing import LOADED_AT, is_row_wise, latest, mapped, slept_by, utc
from conftest import NOW
from minimal import connected, read_all
from specs import load, validate_response

from connectors.sandbox.servers.box import WorldFiles
from connectors.vendors.chargebee import connector
from connectors.vendors.chargebee.connector import ChargebeeConfig
from contracts.errors import SourceCorrupt, SourceExhausted, SourceRefused, SourceRejected

SETTINGS = {"site": "acme", "key": {"env": "CHARGEBEE_KEY"}}
CONFIG = ChargebeeConfig.model_validate({"type": "chargebee", **SETTINGS})
HOUR = dt.timedelta(hours=1)
STREAMS = ("customers", "subscriptions", "invoices")


@pytest.fixture(autouse=True)
def slept(monkeypatch) -> list[float]:
    """No test waits, neither for the rate limit nor before another attempt."""
    return slept_by(monkeypatch, connector, "Http")


@pytest.fixture
def billing(world) -> dict[str, list[dict]]:
    """What the billing system of the world holds, without what no Chargebee site could hold."""
    files = WorldFiles(world)
    subscriptions = files.rows("billing/subscriptions.jsonl")
    invoices = files.rows("billing/invoices.jsonl")
    return {
        "customers": files.rows("billing/customers.jsonl"),
        "subscriptions": [s for s in subscriptions if s["id"] and s["quantity"] > 0],
        "invoices": list({
            i["id"]: _as_of_now(i) for i in invoices
            if i["id"] and i["currency"] in ("eur", "usd") and i["created"] < NOW.timestamp()
        }.values()),
    }  # fmt: skip


def _as_of_now(invoice):
    """The world's day goes on for some hours after the sandbox's clock."""
    if (invoice["status_transitions"]["paid_at"] or 0) <= NOW.timestamp():
        return invoice
    return invoice | {"status": "open", "amount_paid": 0, "status_transitions": {"paid_at": None}}


def ask(box, path, params=None, key=None):
    auth = (key or box.token("chargebee"), "")
    return requests.get(f"{box.address('chargebee')}/api/v2{path}", params, auth=auth, timeout=10)


def table(box, name):
    """A collection of the sandbox's site, filled."""
    ask(box, f"/{name}", {"limit": 1})
    return box.tables()["chargebee", name]


def ids(rows):
    return [row["id"] for row in rows]


# -- reading ---------------------------------------------------------------------------------------


def test_a_first_reading_is_what_the_world_says(pulled, billing):
    rows = pulled("chargebee", **SETTINGS)
    for stream, wanted in billing.items():
        assert sorted(ids(rows[stream])) == sorted({record["id"] for record in wanted})
    emails = {row["id"]: row["email"] for row in rows["customers"]}
    assert emails == {c["id"]: c["email"] for c in billing["customers"]}
    totals = {row["id"]: (row["total"], row["amount_due"]) for row in rows["invoices"]}
    assert totals == {
        i["id"]: (i["amount_due"], i["amount_due"] - i["amount_paid"]) for i in billing["invoices"]
    }


def test_pages_of_three_give_the_same_rows(box):
    start = dt.date(2026, 6, 1)
    whole = read_all("chargebee", SETTINGS, box, history_start=start)
    box.small_pages = 3
    assert read_all("chargebee", SETTINGS, box, history_start=start) == whole
    assert box.count("chargebee", "/subscriptions") > 40


def test_invoices_from_before_the_history_are_not_read(box, billing):
    rows = read_all(
        "chargebee", SETTINGS | {"streams": ["invoices"]}, box, history_start=dt.date(2026, 1, 1)
    )["invoices"]
    since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
    newer = [invoice for invoice in billing["invoices"] if invoice["created"] >= since]
    assert sorted(ids(rows)) == sorted(ids(newer))


def test_an_unchanged_hour_costs_one_request_for_each_stream_and_brings_nothing_new(pulled, box):
    positions = {}
    first = pulled("chargebee", positions=positions, **SETTINGS)
    newest = {stream: max(row["changed_at"] for row in first[stream]) for stream in STREAMS}
    for _ in range(2):
        before = len(box.log)
        again = pulled("chargebee", positions=positions, **SETTINGS)
        assert len(box.log) - before == 3
        for stream in STREAMS:
            edge = range(newest[stream] - 600, newest[stream] + 1)
            assert all(row["changed_at"] in edge for row in again[stream])


def test_later_readings_bring_what_changed_and_tombstones(pulled, box):
    positions = {}
    pulled("chargebee", positions=positions, streams=["customers"], **SETTINGS)
    before = pulled("chargebee", positions=positions, streams=["customers"], **SETTINGS)
    customers, at = table(box, "customers"), box.now.timestamp() + 60
    changed, gone = customers.rows(at)[:2]
    customers.put(changed.id, changed.body | {"email": "new@example.com"}, at)
    customers.put("cus_new", changed.body | {"id": "cus_new", "created_at": int(at)}, at)
    customers.remove(gone.id, at + 1)
    box.move(box.now + HOUR)
    rows = pulled("chargebee", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    fresh = [row for row in rows if row not in before["customers"]]
    assert sorted(ids(fresh)) == sorted([changed.id, "cus_new", gone.id])
    assert [row["id"] for row in fresh if row["deleted"]] == [gone.id]
    assert {(row["changed_at"], row["is_first"]) for row in fresh} == {
        (int(at), False),
        (int(at) + 1, False),
    }
    keys = mapped("chargebee", "account_keys", {"customers": fresh}, CONFIG)
    assert gone.id not in {key["account_key"] for key in keys}


def test_a_change_in_the_second_of_the_last_one_is_not_missed(pulled, box):
    positions = {}
    rows = pulled("chargebee", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    newest = max(row["changed_at"] for row in rows)
    customers = table(box, "customers")
    other = next(row for row in customers.rows(newest) if row.changed < newest)
    customers.put(other.id, other.body | {"email": "late@example.com"}, newest)
    again = pulled("chargebee", positions=positions, streams=["customers"], **SETTINGS)["customers"]
    assert "late@example.com" in {row["email"] for row in again}


def test_F20_an_object_that_changes_between_two_pages_comes_again(pulled, box):
    customers, at = table(box, "customers"), box.now.timestamp()
    first = customers.rows(at)[0]

    def change(body):
        customers.put(first.id, first.body | {"email": "new@example.com"}, at)
        return body

    box.small_pages = 50
    box.faults.add(vendor="chargebee", path="/customers", do="rewrite", rewrite=change)
    rows = pulled("chargebee", streams=["customers"], **SETTINGS)["customers"]
    assert [r["email"] for r in rows if r["id"] == first.id][-1] == "new@example.com"
    assert set(ids(rows)) == {row.id for row in customers.rows(at)}


def test_an_imported_object_without_updated_at_has_the_time_of_its_creation(box, pulled):
    def without(body):
        page = json.loads(body)
        for wrapped in page["list"]:
            wrapped["customer"].pop("updated_at")
        return json.dumps(page).encode()

    box.faults.add(vendor="chargebee", path="/customers", do="rewrite", rewrite=without, times=None)
    rows = pulled("chargebee", streams=["customers"], **SETTINGS)["customers"]
    assert all(row["changed_at"] == row["created_at"] for row in rows)


def test_a_failed_reading_leaves_the_position_as_it_was(box):
    positions = {}
    read_all("chargebee", SETTINGS | {"streams": ["customers"]}, box, positions=positions)
    before = json.loads(json.dumps(positions))
    box.faults.add(vendor="chargebee", path="/customers", do="status", code=400)
    with pytest.raises(SourceRejected):
        read_all("chargebee", SETTINGS | {"streams": ["customers"]}, box, positions=positions)
    assert positions == before


def test_the_address_follows_from_the_site():
    class NoSecrets:
        def of(self, given):
            return "key"

    client = connector.connect(CONFIG, NoSecrets())
    assert client._base_url == "https://acme.chargebee.com/api/v2"


@pytest.mark.parametrize(
    ("domain", "told"), [("acme", "acme"), ("acme-test", "acme-test (test site)")]
)
def test_F37_the_account_is_the_site_and_a_test_site_says_so(box, domain, told):
    def renamed(body):
        return body.replace(b"healthloop-sandbox", domain.encode())

    box.faults.add(vendor="chargebee", path="/configurations", do="rewrite", rewrite=renamed)
    vendor, config, client = connected("chargebee", SETTINGS, box)
    assert vendor.account(client, config) == told
    assert client.requests_sent == 1


# -- faults ----------------------------------------------------------------------------------------


def test_F32_a_wrong_key_is_refused_and_not_shown(box):
    with pytest.raises(SourceRefused) as refused:
        read_all(
            "chargebee",
            SETTINGS | {"streams": ["customers"]},
            box,
            secrets_env={"CHARGEBEE_KEY": "live_wrong"},
        )
    assert "live_wrong" not in str(refused.value)


def test_F01_a_429_is_waited_for_as_long_as_it_says(box, pulled, slept):
    whole = pulled("chargebee", streams=["invoices"], **SETTINGS)
    box.faults.add(vendor="chargebee", path="/invoices", nth=2, times=2, do="status", code=429,
                   headers={"Retry-After": "11"})  # fmt: skip
    assert pulled("chargebee", streams=["invoices"], **SETTINGS) == whole
    assert slept.count(11.0) == 2


def test_F03_a_429_for_an_hour_ends_the_reading_at_once(box, pulled):
    box.faults.add(vendor="chargebee", path="/customers", times=None, do="status", code=429,
                   headers={"Retry-After": "3600"})  # fmt: skip
    with pytest.raises(SourceExhausted) as exhausted:
        pulled("chargebee", streams=["customers"], **SETTINGS)
    assert exhausted.value.resume_after_seconds == 3600
    assert box.count("chargebee") == 1


@pytest.mark.parametrize(
    ("fault", "number"), [("truncate", "F09"), ("reset", "F07"), ("wrong_length", "F10")]
)
def test_a_page_that_breaks_off_loses_no_row(box, pulled, fault, number):
    whole = pulled("chargebee", streams=["invoices"], **SETTINGS)
    box.faults.add(vendor="chargebee", path="/invoices", nth=3, do=fault)
    assert pulled("chargebee", streams=["invoices"], **SETTINGS) == whole


def test_F19_an_offset_that_comes_twice_is_noticed(box, pulled):
    box.faults.add(vendor="chargebee", path="/invoices", nth=2, do="repeat_cursor",
                   field="next_offset", times=None)  # fmt: skip
    with pytest.raises(SourceCorrupt):
        pulled("chargebee", streams=["invoices"], **SETTINGS)


def test_a_row_without_its_object_is_not_taken_for_one(box, pulled):
    def renamed(body):
        return body.replace(b'"customer":', b'"client":')

    box.faults.add(vendor="chargebee", path="/customers", do="rewrite", rewrite=renamed)
    with pytest.raises(SourceCorrupt):
        pulled("chargebee", streams=["customers"], **SETTINGS)


# -- what the server refuses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "params", "status", "param"),
    [
        ("/customers", {"limit": 101}, 400, "limit"),
        ("/customers", {"limit": 0}, 400, "limit"),
        ("/customers", {"updated": 5}, 400, "updated"),
        ("/customers", {"updated_at[since]": 5}, 400, "updated_at[since]"),
        ("/customers", {"updated_at[after]": "soon"}, 400, "updated_at[after]"),
        ("/customers", {"sort_by[asc]": "email"}, 400, "sort_by"),
        ("/customers", {"offset": "17"}, 400, "offset"),
        ("/customers", {"include_deleted": "yes"}, 400, "include_deleted"),
        ("/invoices", {"sort_by[asc]": "created_at"}, 400, "sort_by"),
        ("/customers/cus_nobody", {}, 404, None),
    ],
)
def test_the_server_refuses_what_chargebee_refuses(box, path, params, status, param):
    answer = ask(box, path, params)
    assert answer.status_code == status
    assert answer.json().get("param") == param


def test_the_server_ties_an_offset_to_its_filters_and_order(box):
    query = {"limit": 5, "sort_by[asc]": "updated_at"}
    offset = ask(box, "/customers", query).json()["next_offset"]
    assert isinstance(json.loads(offset), list)
    assert ask(box, "/customers", query | {"offset": offset}).status_code == 200
    for other in ({"sort_by[asc]": "created_at"}, {"updated_at[after]": 5}):
        assert ask(box, "/customers", query | other | {"offset": offset}).status_code == 400


def test_the_server_hides_deleted_objects_unless_asked(box):
    customers, at = table(box, "customers"), box.now.timestamp()
    gone = customers.rows(at)[-1]
    customers.remove(gone.id, at)
    query = {"limit": 100, "sort_by[desc]": "updated_at"}
    assert gone.id not in [
        w["customer"]["id"] for w in ask(box, "/customers", query).json()["list"]
    ]
    asked = ask(box, "/customers", query | {"include_deleted": "true"}).json()["list"]
    assert (asked[0]["customer"]["id"], asked[0]["customer"]["deleted"]) == (gone.id, True)


def test_the_server_wants_the_key_as_the_user_without_a_password(box):
    assert ask(box, "/customers", key="wrong").status_code == 401
    address = f"{box.address('chargebee')}/api/v2/customers"
    bearer = {"Authorization": f"Bearer {box.token('chargebee')}"}
    assert requests.get(address, headers=bearer, timeout=10).status_code == 401


# -- mappings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["account_keys", "commercial_events", "invoices", "subscriptions"])
def test_the_mappings_read_only_new_rows(name):
    assert is_row_wise("chargebee", name, CONFIG)


def _status(row):
    if row["status"] == "canceled":
        return "cancelled"
    return "active" if row["canceled_at"] is None else "non_renewing"


def _renewal(row):
    if row["plan"]["interval"] == "month":
        return None
    end = utc(row["current_period_end"]).date()
    # The world's file has no line for a contract that was merely prolonged.
    until = (utc(row["cancel_at"]) or LOADED_AT).date()
    while end < until:
        end = end.replace(year=end.year + 1)
    return end


def test_the_mapped_subscriptions_are_those_of_the_world(pulled, billing):
    versions = mapped(
        "chargebee",
        "subscriptions",
        pulled("chargebee", streams=["subscriptions"], **SETTINGS),
        CONFIG,
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
            "status": _status(row),
            "deleted": False,
            "known_at": now[id]["known_at"],
        }


def test_what_was_known_of_a_cancellation_on_any_day_is_what_the_world_knew(pulled, billing):
    versions = mapped(
        "chargebee",
        "subscriptions",
        pulled("chargebee", streams=["subscriptions"], **SETTINGS),
        CONFIG,
    )
    for row in (row for row in billing["subscriptions"] if row["canceled_at"]):
        for at in (row["canceled_at"] - 60, row["canceled_at"], row["updated"]):
            then = latest(versions, "subscription_id", utc(at))[row["id"]]
            states = [s for s in billing["subscriptions"] if s["id"] == row["id"]]
            told = [s for s in states if s["updated"] <= at] or states[:1]
            assert then["status"] == _status(told[-1])
            assert then["cancelled_at"] == utc(told[-1]["canceled_at"])
            assert then["ends_at"] == utc(told[-1]["cancel_at"])


def test_the_notices_are_those_of_the_world(pulled, billing):
    found = mapped(
        "chargebee",
        "commercial_events",
        pulled("chargebee", streams=["subscriptions"], **SETTINGS),
        CONFIG,
    )
    told = {
        (f"notice-{row['id']}", row["customer"], utc(row["canceled_at"]))
        for row in billing["subscriptions"]
        if row["canceled_at"] and row["status"] == "active"
    }
    assert {(e["event_id"], e["account_key"], e["occurred_at"]) for e in found} == told
    assert {(e["kind"], e["severity"], e["deleted"]) for e in found} == {("notice", 5, False)}


def test_a_notice_that_is_taken_back_is_deleted(pulled, box):
    positions = {}
    rows = pulled("chargebee", positions=positions, streams=["subscriptions"], **SETTINGS)[
        "subscriptions"
    ]
    leaving = next(row for row in rows if row["status"] == "non_renewing")
    subscriptions, at = table(box, "subscriptions"), box.now.timestamp() + 60
    body = subscriptions.get(leaving["id"], at).body
    stays = {"status": "active", "cancelled_at": None, "cancel_schedule_created_at": None}
    subscriptions.put(leaving["id"], body | stays, at)
    box.move(box.now + HOUR)
    later = pulled("chargebee", positions=positions, streams=["subscriptions"], **SETTINGS)[
        "subscriptions"
    ]
    own = [row for row in later if row["id"] == leaving["id"] and row["status"] == "active"]
    (event,) = mapped("chargebee", "commercial_events", {"subscriptions": own}, CONFIG)
    assert (event["deleted"], event["known_at"]) == (True, utc(int(at)))
    (version,) = mapped("chargebee", "subscriptions", {"subscriptions": own}, CONFIG)
    assert (version["cancelled_at"], version["ends_at"]) == (None, None)


def test_the_mapped_invoices_are_those_of_the_world(pulled, billing):
    versions = mapped(
        "chargebee", "invoices", pulled("chargebee", streams=["invoices"], **SETTINGS), CONFIG
    )
    now = latest(versions, "invoice_id")
    assert now.keys() == {row["id"] for row in billing["invoices"]}
    for row in billing["invoices"]:
        found, due = now[row["id"]], row["due_date"] <= NOW.timestamp()
        assert found == {
            "account_key": row["customer"],
            "invoice_id": row["id"],
            "issued_at": utc(row["created"]),
            "due_at": utc(row["due_date"]),
            "paid_at": utc(row["status_transitions"]["paid_at"]),
            "amount_due": Decimal(row["amount_due"]) / 100,
            "amount_paid": Decimal(row["amount_paid"]) / 100,
            "currency": row["currency"].upper(),
            "status": row["status"] if row["status"] == "paid" else
                      "payment_due" if due else "posted",
            "attempts": row["attempt_count"],
            "deleted": False,
            "known_at": found["known_at"],
        }  # fmt: skip


def test_what_an_invoice_took_is_not_known_before_it_is_paid(pulled, billing):
    versions = mapped(
        "chargebee", "invoices", pulled("chargebee", streams=["invoices"], **SETTINGS), CONFIG
    )
    slow = next(i for i in billing["invoices"] if i["attempt_count"] > 1 and i["status"] == "paid")
    before = latest(versions, "invoice_id", utc(slow["created"] + 60))[slow["id"]]
    after = latest(versions, "invoice_id", utc(slow["status_transitions"]["paid_at"]))[slow["id"]]
    assert (before["status"], before["attempts"]) == ("posted", None)
    assert (after["status"], after["attempts"]) == ("paid", slow["attempt_count"])


def test_the_keys_carry_the_crm_number_and_the_address(pulled, billing):
    found = mapped(
        "chargebee", "account_keys", pulled("chargebee", streams=["customers"], **SETTINGS), CONFIG
    )
    assert {(k["account_key"], k["account_id"], k["email"]) for k in found} == {
        (c["id"], c["metadata"].get("crm_account_no"), c["email"]) for c in billing["customers"]
    }


def test_the_crm_number_may_stand_in_a_custom_field(box, pulled):
    customers, at = table(box, "customers"), box.now.timestamp()
    row = customers.rows(at)[0]
    customers.put(row.id, row.body | {"cf_account_no": "ACC-9"}, at)
    rows = pulled("chargebee", crm_id_field="cf_account_no", streams=["customers"], **SETTINGS)[
        "customers"
    ]
    assert {r["id"]: r["crm_id"] for r in rows if r["crm_id"]} == {row.id: "ACC-9"}


def subscription(**changes):
    return {
        "id": "sub_1", "customer_id": "cus_1", "status": "active", "currency_code": "EUR",
        "created_at": 1_700_000_000, "started_at": 1_700_000_000, "billing_period": 1,
        "billing_period_unit": "month", "is_first": False, "changed_at": 1_750_000_000,
        "deleted": False, **changes,
    }  # fmt: skip


def item(amount, kind="plan", **more):
    return {
        "item_price_id": f"{kind}-EUR",
        "item_type": kind,
        "quantity": 2,
        "amount": amount,
        **more,
    }


YEARLY = {"billing_period": 1, "billing_period_unit": "year"}


@pytest.mark.parametrize(
    ("row", "mrr"),
    [
        (subscription(mrr=12_345, subscription_items=[item(1)]), "123.45"),
        (subscription(mrr=12_345, currency_code="JPY"), "12345.00"),
        (subscription(subscription_items=[item(6000)]), "60.00"),
        (subscription(subscription_items=[item(120_000, **YEARLY)]), "100.00"),
        (subscription(subscription_items=[item(120_000)], **YEARLY), "100.00"),
        (subscription(subscription_items=[item(6000), item(1000, "addon")]), "70.00"),
        (subscription(subscription_items=[item(6000), item(99_000, "charge")]), "60.00"),
        (subscription(subscription_items=[item(6000), item(None, "addon")]), None),
        (subscription(plan_id="old", plan_quantity=4), None),
    ],
)
def test_mrr_is_chargebees_own_or_the_amounts_a_month_and_never_guessed(row, mrr):
    (version,) = mapped("chargebee", "subscriptions", {"subscriptions": [row]}, CONFIG)
    assert version["mrr"] == (None if mrr is None else Decimal(mrr))


def test_sites_with_the_older_catalogue_have_a_plan_and_its_quantity():
    row = subscription(plan_id="gold", plan_quantity=4, mrr=1000)
    (version,) = mapped("chargebee", "subscriptions", {"subscriptions": [row]}, CONFIG)
    assert (version["plan"], version["seats"]) == ("gold", 4)


def test_a_first_reading_makes_versions_that_were_true_then():
    row = subscription(
        is_first=True, status="cancelled", trial_end=1_701_000_000, **YEARLY,
        current_term_start=1_731_000_000, current_term_end=1_762_000_000,
        cancel_schedule_created_at=1_735_000_000, cancelled_at=1_762_000_000,
    )  # fmt: skip
    versions = mapped("chargebee", "subscriptions", {"subscriptions": [row]}, CONFIG)
    told = [
        (v["known_at"], v["status"], v["cancelled_at"], v["ends_at"], v["renews_on"] is not None)
        for v in sorted(versions, key=lambda v: v["known_at"])
    ]
    notice, end = utc(1_735_000_000), utc(1_762_000_000)
    assert told == [
        (utc(1_700_000_000), "in_trial", None, None, False),
        (utc(1_701_000_000), "active", None, None, False),
        (utc(1_731_000_000), "active", None, None, True),
        (notice, "non_renewing", notice, end, True),
        (end, "cancelled", notice, end, True),
    ]


def test_deleted_objects_are_deleted_in_the_signals():
    row = subscription(deleted=True)
    (version,) = mapped("chargebee", "subscriptions", {"subscriptions": [row]}, CONFIG)
    assert version["deleted"]
    invoice = {
        "id": "1", "customer_id": "cus_1", "status": "voided", "currency_code": "JPY", "date": 100,
        "total": 5000, "amount_paid": 0, "voided_at": 300, "is_first": True, "changed_at": 400,
        "deleted": False,
    }  # fmt: skip
    versions = mapped("chargebee", "invoices", {"invoices": [invoice]}, CONFIG)
    assert [(v["known_at"], v["status"], v["deleted"], v["amount_due"]) for v in versions] == [
        (utc(100), "payment_due", False, Decimal("5000.00")),
        (utc(300), "voided", True, Decimal("5000.00")),
    ]


def test_personal_data_that_no_mapping_needs_is_left_out():
    for stream in connector.STREAMS.values():
        assert {"first_name", "last_name", "phone", "billing_address"} <= stream.leave_out
    assert "line_items" in connector.STREAMS["invoices"].leave_out


# -- the official client ---------------------------------------------------------------------------


@pytest.fixture
def official(box, monkeypatch):
    """The vendor's client. It only speaks https unless certificates are not to be verified."""
    monkeypatch.setattr(chargebee.Chargebee, "verify_ca_certs", False)
    site, _, domain = box.address("chargebee").removeprefix("http://").partition(".")
    return lambda key: chargebee.Chargebee(
        api_key=key, site=site, chargebee_domain=domain, protocol="http"
    )


def test_the_official_client_reads_the_same_objects(box, official, pulled):
    client, rows = official(box.token("chargebee")), pulled("chargebee", **SETTINGS)
    for resource, kind in ((client.Customer, "customer"), (client.Subscription, "subscription")):
        found, offset = [], None
        while True:
            params = {"limit": 40, "sort_by": {"asc": "updated_at"}, "include_deleted": True}
            page = resource.list(params | ({"offset": offset} if offset else {}))
            found += [getattr(entry, kind) for entry in page.list]
            offset = page.next_offset
            if not offset:
                break
        ours = rows[f"{kind}s"]
        assert [record.id for record in found] == ids(ours)
        assert [record.updated_at for record in found] == [row["changed_at"] for row in ours]
    after = rows["invoices"][-10]["updated_at"]
    newest = client.Invoice.list({"updated_at": {"after": after}, "limit": 100}).list
    assert {entry.invoice.id for entry in newest} == {
        row["id"] for row in rows["invoices"] if row["updated_at"] > after
    }
    assert client.Subscription.retrieve(found[0].id).subscription.mrr == found[0].mrr


def test_the_official_client_understands_the_servers_errors(box, official):
    with pytest.raises(chargebee.InvalidRequestError) as wrong:
        official(box.token("chargebee")).Customer.list({"limit": 101})
    assert (wrong.value.http_status_code, wrong.value.param) == (400, "limit")
    with pytest.raises(chargebee.APIError) as refused:
        official("wrong").Customer.list()
    assert refused.value.http_status_code == 401


# -- the vendor's description, of version 1 --------------------------------------------------------

SINCE_V2 = {
    "list.*.customer required account_credits": "promotional_credits since v2",
    "list.*.subscription required plan_id": "subscription_items since the catalogue of 2020",
    "list.*.subscription required plan_quantity": "subscription_items since the catalogue of 2020",
    "list.*.invoice required start_date": "date since v2",
    "list.*.invoice.status enum": "posted since v2",
}


@pytest.mark.parametrize("name", STREAMS)
def test_answers_fit_the_description_of_the_older_version(box, name):
    spec = load("chargebee/chargebee_api_v1_spec.json")
    for order in ("asc", "desc"):
        query = {"limit": 100, f"sort_by[{order}]": "updated_at"}
        answer = ask(box, f"/{name}", query).json()
        assert answer["list"]
        validate_response(spec, "GET", f"/{name}", 200, answer, allow=SINCE_V2)
    validate_response(spec, "GET", f"/{name}", 401, ask(box, f"/{name}", key="wrong").json())
