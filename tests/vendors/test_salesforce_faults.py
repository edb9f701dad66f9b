"""Salesforce: sessions that expire, used-up limits, answers that are not what they seem."""

from functools import partial

import pytest
from conftest import NOW
from minimal import connected
from salesforce_org import read, rows_of, settings

from connectors.http import Http
from connectors.sandbox.servers.running import sandbox
from connectors.sandbox.vendors.salesforce import (
    CONSUMER_KEY,
    CONSUMER_SECRET,
    PASSWORD,
    SECURITY_TOKEN,
    USERNAME,
    sessions,
)
from connectors.sandbox.vendors.salesforce import settings as admin
from connectors.sandbox.vendors.salesforce_objects import records
from connectors.vendors.salesforce import client as client_module
from contracts.errors import SourceCorrupt, SourceError, SourceExhausted, SourceRefused

EXPIRED = [{"errorCode": "INVALID_SESSION_ID", "message": "Session expired or invalid"}]
CLIENT = {"consumer_key": {"env": "SF_KEY"}, "consumer_secret": {"env": "SF_SECRET"}}
CLIENT_SECRETS = {"SF_KEY": CONSUMER_KEY, "SF_SECRET": CONSUMER_SECRET}
QUERY = "/query"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Nobody sleeps: the seconds that would have been slept."""
    slept: list[float] = []
    monkeypatch.setattr(client_module, "Http", partial(Http, sleep=slept.append))
    return slept


@pytest.fixture
def box(world):
    with sandbox(world, NOW, vendors=["salesforce"]) as box:
        yield box
    assert box.defects == []


def asked(box):
    return [request.path for request in box.log]


# Sessions and limits


def test_the_client_credentials_log_in_once_for_all_streams(box):
    rows = read(box, secrets_env=CLIENT_SECRETS, **CLIENT)
    assert box.count("salesforce", "oauth2/token") == 1
    assert len(rows["accounts"]) == len(box.world.rows("crm/accounts.csv"))


def test_a_password_logs_in_with_the_security_token_behind_it(box):
    more = {name: {"env": f"SF_{name}"} for name in ("username", "password", "security_token")}
    env = {"SF_username": USERNAME, "SF_password": PASSWORD, "SF_security_token": SECURITY_TOKEN}
    assert read(box, secrets_env=CLIENT_SECRETS | env, streams=["users"], **CLIENT, **more)["users"]


def test_a_signed_jwt_logs_in_and_another_key_does_not(box):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    admin(box).put("certificate", {"public_key": public.decode()}, 0.0)
    more = {"consumer_key": {"env": "SF_KEY"}, "username": {"env": "SF_USER"},
            "private_key": {"env": "SF_PEM"}}  # fmt: skip
    env = {"SF_KEY": CONSUMER_KEY, "SF_USER": USERNAME, "SF_PEM": private}
    assert read(box, secrets_env=env, streams=["users"], **more)["users"]
    with pytest.raises(SourceRefused, match="invalid_client_id"):
        read(box, secrets_env=env | {"SF_USER": "else"}, streams=["users"], **more)
    with pytest.raises(SourceRefused, match="PEM"):
        read(box, secrets_env=env | {"SF_PEM": "no key"}, streams=["users"], **more)


def test_F32_wrong_credentials_are_refused_without_repeating_or_showing_them(box):
    with pytest.raises(SourceRefused, match="invalid_client") as refused:
        read(box, secrets_env=CLIENT_SECRETS | {"SF_SECRET": "canary"}, **CLIENT)
    assert len(box.log) == 1
    with pytest.raises(SourceRefused) as also:
        read(box, secrets_env={"SALESFORCE_TOKEN": "canary"})
    assert len(box.log) == 2
    assert "canary" not in f"{refused.value}{also.value}"
    assert (refused.value.vendor, refused.value.stream) == ("salesforce", "accounts")


@pytest.mark.parametrize("body", [{}, [], {"access_token": "canary", "instance_url": "elsewhere"}])
def test_F11_a_login_without_a_token_is_no_login(box, body):
    box.faults.add(vendor="salesforce", do="error_json", path="oauth2/token", body=body)
    with pytest.raises(SourceCorrupt, match="without a token") as error:
        read(box, secrets_env=CLIENT_SECRETS, **CLIENT)
    assert "canary" not in str(error.value)


def test_F50_an_expired_session_is_renewed_once_and_the_page_asked_for_again(box):
    box.small_pages = 200
    whole = read(box, secrets_env=CLIENT_SECRETS, **CLIENT)
    box.faults.add(vendor="salesforce", do="status", code=401, body=EXPIRED, path=QUERY, nth=5)
    before = box.count("salesforce", "oauth2/token")
    assert read(box, secrets_env=CLIENT_SECRETS, **CLIENT) == whole
    assert box.count("salesforce", "oauth2/token") == before + 2


def test_F51_a_session_that_stays_refused_ends_in_three_requests(box):
    box.faults.add(
        vendor="salesforce", do="status", code=401, body=EXPIRED, path="/data/", times=None
    )
    vendor_, config, client = connected(
        "salesforce", settings(box, **CLIENT), box, secrets_env=CLIENT_SECRETS
    )
    with pytest.raises(SourceRefused):
        vendor_.account(client, config)
    assert asked(box).count("/services/oauth2/token") == 2
    assert box.count("salesforce", "/data/") == 2
    with pytest.raises(SourceRefused):
        vendor_.account(client, config)
    assert box.count("salesforce", "oauth2/token") == 2


def test_an_access_token_that_expires_is_told_at_once(box):
    sessions(box).remove(box.token("salesforce"), box.now.timestamp())
    with pytest.raises(SourceRefused, match="refused the session"):
        read(box)
    assert len(box.log) == 1


def test_F04_a_used_up_allowance_stops_at_once(box, waits):
    admin(box).put("api", {"used": 100, "allowed": 100}, 1.0)
    with pytest.raises(SourceExhausted, match="REQUEST_LIMIT_EXCEEDED"):
        read(box)
    assert (len(box.log), waits) == (1, [])


def test_F04_reading_stops_before_others_run_dry(box):
    admin(box).put("api", {"used": 95, "allowed": 100}, 1.0)
    box.small_pages = 10
    with pytest.raises(SourceExhausted, match="API requests of the day"):
        rows_of(box, "accounts")
    assert len(box.log) == 1
    assert rows_of(box, "users", daily_share=1)


def test_F01_a_busy_server_is_waited_for(box, waits):
    whole = rows_of(box, "notes")
    box.small_pages = 300
    box.faults.add(
        vendor="salesforce", do="status", code=503, headers={"Retry-After": "7"}, path=QUERY, nth=2
    )
    assert rows_of(box, "notes") == whole
    assert waits == [7.0]


# Answers that are not what they seem


@pytest.mark.parametrize(
    "do", ["truncate", "reset", "wrong_length", "bad_gzip", "empty", "html"],
    ids=["F09", "F07", "F10", "F08", "F13", "F12"],
)  # fmt: skip
def test_a_broken_page_is_asked_for_again_and_no_row_is_lost(box, do):
    whole = rows_of(box, "notes")
    box.small_pages = 200
    box.faults.add(vendor="salesforce", do=do, path=QUERY, nth=2)
    assert rows_of(box, "notes") == whole


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("error_json", {}),
        ("empty_page", {}),
        ("repeat_page", {}),
        ("repeat_cursor", {"field": "nextRecordsUrl", "nth": 3}),
    ],
    ids=["F11", "F29", "F18", "F19"],
)
def test_a_wrong_page_fails_the_stream(box, do, how):
    box.small_pages = 100
    box.faults.add(vendor="salesforce", do=do, path=QUERY, **{"nth": 2, **how})
    with pytest.raises(SourceCorrupt):
        rows_of(box, "notes")


def test_F16_a_next_page_on_another_host_is_never_asked_for(box):
    box.small_pages = 100
    box.faults.add(
        vendor="salesforce", do="rewrite", path=QUERY,
        rewrite=lambda body: body.replace(b'"/services/', b'"@elsewhere.example/services/'),
    )  # fmt: skip
    with pytest.raises(SourceCorrupt, match="leads to a next page that is none"):
        rows_of(box, "notes")


def test_a_cursor_that_expired_goes_on_from_the_last_row(box):
    whole = rows_of(box, "notes")
    box.small_pages = 100
    lost = [{"errorCode": "INVALID_QUERY_LOCATOR", "message": "invalid query locator"}]
    box.faults.add(vendor="salesforce", do="status", code=400, body=lost, path=QUERY, nth=4)
    rows = rows_of(box, "notes")
    assert {row["id"] for row in rows} == {row["id"] for row in whole}
    assert len(rows) < len(whole) + 100


def test_a_query_that_goes_on_from_a_stamp_takes_all_rows_that_share_it(box):
    ids = [f"00T5g000000000{number}AAA" for number in range(4)]
    for id, minute in zip(ids, (1, 2, 2, 3), strict=True):
        records(box, "Task").put(id, {}, box.now.timestamp() - 3600 + 60 * minute)
    box.small_pages = 2
    lost = [{"errorCode": "INVALID_QUERY_LOCATOR", "message": "invalid query locator"}]
    box.faults.add(vendor="salesforce", do="status", code=400, body=lost, path=QUERY, nth=2)
    assert {row["id"] for row in rows_of(box, "tasks")} == set(ids)


def test_an_error_shows_the_code_and_neither_query_nor_text(box):
    body = [{"errorCode": "QUERY_TOO_COMPLICATED", "message": "WHERE Name = 'canary'"}]
    box.faults.add(vendor="salesforce", do="status", code=400, body=body, path=QUERY)
    with pytest.raises(SourceError, match="400 QUERY_TOO_COMPLICATED") as error:
        rows_of(box, "notes")
    assert "canary" not in str(error.value)
    assert "SELECT" not in str(error.value)
