"""Faults F26 to F28 and F40 to F49: strange values, through a pull, mappings and a build.

The API is a small one that says whatever a test puts into its lists; the mappings are as a company
would write them. What the contract refuses is set aside with a reason, and nothing else is lost.
"""

import datetime as dt
import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from connectors.pull import Pull, pull
from connectors.signals import build
from connectors.sources import read_sources
from contracts.company import read_company
from contracts.errors import SourceCorrupt
from tests.pulling import NOW, rows_in_lake
from tests.small_api import TOKEN, SmallApi, serving

MAPPINGS = {
    "accounts": "SELECT id AS account_id, text_or_null(name) AS name, domain, "
    "TRY_CAST(started AS DATE) AS started_on, TRY_CAST(employees AS BIGINT) AS employees "
    "FROM raw_desk.accounts",
    "account_keys": "SELECT id AS account_key, crm AS account_id, domain, email "
    "FROM raw_desk.customers",
    "usage_daily": "SELECT customer AS account_key, local_day(utc_text(moment)) AS day, "
    "'login' AS event, count(*) AS count FROM raw_desk.logins GROUP BY ALL",
    "survey_responses": "SELECT customer AS account_key, id AS response_id, 'csat' AS kind, "
    "score, utc_text(moment) AS responded_at, comment FROM raw_desk.answers",
    "invoices": "SELECT customer AS account_key, id AS invoice_id, utc_text(moment) AS issued_at, "
    "money(TRY_CAST(amount AS BIGINT), currency) AS amount_due, currency, attempts "
    "FROM raw_desk.invoices",
    "subscriptions": "SELECT customer AS account_key, id AS subscription_id, "
    "utc_text(moment) AS started_at, amount AS mrr, currency FROM raw_desk.plans",
}
COLUMNS = {
    "accounts": ["name", "domain", "started", "employees"],
    "customers": ["crm", "domain", "email"],
    "logins": ["customer", "moment"],
    "answers": ["customer", "score", "moment", "comment"],
    "invoices": ["customer", "moment", "amount", "currency", "attempts"],
    "plans": ["customer", "moment", "amount", "currency"],
}
AT = "2026-06-01T10:00:00Z"


@dataclass
class Desk:
    """A company of one small API. `run` pulls and builds; `rows` looks into the signals."""

    home: Path
    api: SmallApi
    connection: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)

    def __post_init__(self) -> None:
        folder = self.home / "sources" / "desk"
        folder.mkdir(parents=True)
        (self.home / "company.yaml").write_text(
            "name: Acme\ntenant: acme\nhistory_start: 2024-01-01\ntime_zone: Europe/Berlin\n"
        )
        (self.home / ".env").write_text(f"DESK_TOKEN={TOKEN}\n")
        paging = {"cursor": "meta.next", "param": "after"}
        streams = {
            name: {"path": f"/{name}", "records": "data", "paging": paging,
                   "primary_key": ["id"], "columns": columns}
            for name, columns in COLUMNS.items()
        }  # fmt: skip
        config = {
            "type": "rest", "address": self.api.address, "streams": streams,
            "auth": {"bearer": {"env": "DESK_TOKEN"}},
            "account": {"path": "/me", "field": "organisation.id"},
        }  # fmt: skip
        (self.home / "sources" / "desk.yaml").write_text(yaml.safe_dump(config))
        for table, sql in MAPPINGS.items():
            (folder / f"{table}.sql").write_text(sql)

    def run(self, now: dt.datetime = NOW) -> Pull:
        company = read_company(self.home)
        (source,) = read_sources(company)
        pulled = pull(source, company, now=now)
        build(self.connection, company, [source], now=now)
        return pulled

    def rows(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()

    def in_lake(self, stream: str, columns: str) -> list[tuple]:
        return rows_in_lake(read_company(self.home), stream, columns)

    def set_aside(self) -> dict[str, str]:
        """Why rows are in quarantine, by their keys."""
        return dict(self.rows("SELECT row_key, reason FROM signals.quarantine"))


@pytest.fixture
def desk(tmp_path, impatient):
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    lists["accounts"] = [account("A-1", domain="alpha.com"), account("A-2")]
    lists["customers"] = [customer("c1", crm="A-1"), customer("c2", crm="A-2")]
    with serving(SmallApi(lists, per_page=1000)) as api:
        yield Desk(tmp_path, api)


def account(id: Any, **more: Any) -> dict[str, Any]:
    return {"id": id, "name": f"Company {id}", "started": "2024-01-01", **more}


def customer(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, **more}


def answer(id: str, score: Any, **more: Any) -> dict[str, Any]:
    return {"id": id, "customer": "c1", "score": score, "moment": AT, **more}


def invoice(id: Any, amount: Any, currency: str = "EUR", **more: Any) -> dict[str, Any]:
    return {
        "id": id, "customer": "c1", "amount": amount, "currency": currency, "moment": AT, **more
    }  # fmt: skip


def logins(first: str, hours: int) -> list[dict[str, Any]]:
    """One login an hour, from an instant in UTC on."""
    start = dt.datetime.fromisoformat(first)
    moments = [(start + dt.timedelta(hours=n)).isoformat() for n in range(hours)]
    return [{"id": f"l-{moment}", "customer": "c1", "moment": moment} for moment in moments]


def counts(desk: Desk) -> dict[str, int]:
    rows = desk.rows(
        'SELECT day, "count" FROM signals.usage_daily WHERE superseded_at IS NULL ORDER BY day'
    )
    return {str(day): count for day, count in rows}


def test_F26_days_on_which_clocks_change_have_23_and_25_hours(desk):
    desk.api.lists["logins"] = [
        *logins("2025-10-24T22:00:00+00:00", 24 + 25 + 24 - 24),
        *logins("2026-03-27T23:00:00+00:00", 24 + 23 + 24),
    ]
    desk.run()
    assert counts(desk) == {
        "2025-10-25": 24, "2025-10-26": 25,
        "2026-03-28": 24, "2026-03-29": 23, "2026-03-30": 24,
    }  # fmt: skip


def test_F27_a_leap_day_and_the_ends_of_months_are_days_like_others(desk):
    desk.api.lists["logins"] = [
        *logins("2024-02-27T23:00:00+00:00", 72),
        *logins("2026-01-30T23:00:00+00:00", 48),
    ]
    desk.run()
    assert counts(desk) == {
        "2024-02-28": 24, "2024-02-29": 24, "2024-03-01": 24, "2026-01-31": 24, "2026-02-01": 24,
    }  # fmt: skip


def test_F28_what_arrives_late_restates_its_day_once(desk):
    desk.api.lists["logins"] = logins("2026-06-01T00:00:00+00:00", 3)
    desk.run()
    desk.api.lists["logins"] += logins("2026-06-01T12:00:00+00:00", 2)
    for hours in (1, 2, 3):
        desk.run(NOW + dt.timedelta(hours=hours))
    assert counts(desk) == {"2026-06-01": 5}
    assert desk.rows("SELECT count(*) FROM signals.usage_daily") == [(2,)]


def test_F40_a_page_with_a_bare_NaN_is_no_JSON_and_fails_its_stream_alone(desk):
    desk.api.lists["answers"] = [answer("r1", float("nan"))]
    pulled = desk.run()
    assert list(pulled.failures) == ["answers"]
    assert isinstance(pulled.failures["answers"], SourceCorrupt)
    assert desk.rows("SELECT count(*) FROM signals.accounts") == [(2,)]
    desk.api.lists["answers"] = [answer("r1", 80)]
    assert desk.run(NOW + dt.timedelta(hours=1)).failures == {}
    assert desk.rows("SELECT score FROM signals.survey_responses") == [(80.0,)]


def test_F40_not_a_number_is_set_aside_and_null_stays_away(desk):
    strange = ["NaN", "Infinity", "-inf", "1e400", None]
    desk.api.lists["answers"] = [answer(f"r{n}", score) for n, score in enumerate(strange)]
    desk.api.lists["answers"].append(answer("good", "75.5"))
    desk.run()
    assert desk.rows("SELECT response_id, score FROM signals.survey_responses") == [("good", 75.5)]
    reasons = desk.set_aside()
    assert reasons.keys() == {"r0", "r1", "r2", "r3", "r4"}
    assert reasons["r0"] == reasons["r2"] == "score: not a finite number"
    assert reasons["r4"] == "score: missing"


def test_F41_a_refund_counts_as_it_is_and_a_negative_price_is_set_aside(desk):
    desk.api.lists["invoices"] = [invoice("i1", 5000), invoice("refund", -5000)]
    desk.api.lists["plans"] = [invoice("p1", "-5.00"), invoice("p2", "5.00")]
    desk.run()
    assert desk.rows("SELECT sum(amount_due), count(*) FROM signals.invoices") == [(Decimal(0), 2)]
    assert desk.rows("SELECT subscription_id FROM signals.subscriptions") == [("p2",)]
    assert desk.set_aside() == {"p1": "mrr: below 0"}


def test_F42_yen_has_no_cents_dinars_have_mills_and_no_currency_is_guessed(desk):
    desk.api.lists["invoices"] = [
        invoice("yen", 500, "JPY"), invoice("dinar", 5500, "KWD"), invoice("euro", 500),
        invoice("unknown", 500, "XQQ"),
    ]  # fmt: skip
    desk.run()
    found = dict(desk.rows("SELECT invoice_id, amount_due FROM signals.invoices"))
    assert found == {"yen": Decimal(500), "dinar": Decimal("5.50"), "euro": Decimal(5)}
    assert desk.set_aside() == {"unknown": "currency: not an ISO 4217 code"}


def test_F43_ids_beyond_64_bits_stay_apart_and_counts_beyond_them_are_set_aside(desk):
    desk.api.lists["invoices"] = [
        invoice(2**70, 100), invoice(2**70 + 1, 200),
        invoice("most", 300, attempts=2**63 - 1), invoice("more", 400, attempts=2**63),
    ]  # fmt: skip
    desk.api.lists["invoices"][0]["nested"] = {"id": 2**70}
    desk.run()
    assert ("1180591620717411303424", '{"id":1180591620717411303424}') in desk.in_lake(
        "invoices", "id, nested"
    )
    found = dict(desk.rows("SELECT invoice_id, amount_due FROM signals.invoices"))
    assert found == {str(2**70): 1, str(2**70 + 1): 2, "most": 3}
    assert desk.set_aside() == {"more": "attempts: not a BIGINT"}


TEXTS = {
    "nfc": "Caf\u00e9", "nfd": "Cafe\u0301", "rtl": "\u202eevil\u202c \u05d0\u05d1",
    "emoji": "ok \U0001f44d\U0001f3fd", "joined": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "lines": "one\r\ntwo\u2028three\ttab", "quotes": "'; DROP TABLE accounts; --",
}  # fmt: skip


def test_F44_texts_of_every_kind_come_through_as_they_are(desk):
    desk.api.lists["answers"] = [answer(id, 1, comment=text) for id, text in TEXTS.items()]
    desk.run()
    assert dict(desk.rows("SELECT response_id, comment FROM signals.survey_responses")) == TEXTS


def test_F44_ids_that_only_look_alike_are_two(desk):
    desk.api.lists["invoices"] = [invoice("Caf\u00e9", 100), invoice("Cafe\u0301", 100)]
    desk.run()
    assert desk.rows("SELECT count(*) FROM signals.invoices") == [(2,)]


def test_F44_a_text_with_a_NUL_is_set_aside_and_its_neighbours_are_not(desk):
    desk.api.lists["answers"] = [answer("nul", 1, comment="a\0b"), answer("good", 1, comment="ab")]
    desk.run()
    assert desk.rows("SELECT response_id FROM signals.survey_responses") == [("good",)]
    assert desk.set_aside() == {"nul": "comment: holds a NUL byte"}


def test_F44_half_an_emoji_becomes_a_replacement_character_and_spoils_no_page(desk):
    desk.api.lists["answers"] = [
        answer("cut", 1, comment="great \ud83d"), answer("low", 2, comment="\udc4d"),
        answer("whole", 3, comment="\U0001f44d"), answer("text", 4, comment="\\ud83d"),
        answer("nested", 5, parts={"a": ["\ud83d!"]}),
    ]  # fmt: skip
    assert "\\ud83d" in json.dumps(desk.api.lists["answers"])
    assert desk.run().failures == {}
    assert dict(desk.rows("SELECT response_id, comment FROM signals.survey_responses")) == {
        "cut": "great \ufffd", "low": "\ufffd", "whole": "\U0001f44d", "text": "\\ud83d",
        "nested": None,
    }  # fmt: skip
    assert ('{"a":["\ufffd!"]}',) in desk.in_lake("answers", "parts")


def test_F45_ten_megabytes_of_text_come_through_beside_other_rows(desk):
    desk.api.lists["answers"] = [answer("long", 1, comment="\u00e9" * 5_000_000), answer("b", 2)]
    desk.run()
    found = desk.rows("SELECT response_id, length(comment) FROM signals.survey_responses")
    assert dict(found) == {"long": 5_000_000, "b": None}


def test_F46_of_an_account_that_comes_twice_the_later_one_holds(desk):
    desk.api.lists["accounts"] += [
        account("A-1", name="Alpha II"),
        account("A-1", name="Alpha III"),
    ]
    desk.run()
    now_known = "SELECT name FROM signals.accounts WHERE account_id = 'A-1'"
    assert desk.rows(f"{now_known} AND superseded_at IS NULL") == [("Alpha III",)]
    assert desk.run(NOW + dt.timedelta(hours=1)).rows == 0


def test_F47_a_customer_of_two_accounts_waits_for_a_person(desk):
    desk.api.lists["accounts"][1]["domain"] = "alpha.com"
    desk.api.lists["customers"] = [customer("c1", domain="alpha.com")]
    desk.api.lists["plans"] = [invoice("p1", "99.00")]
    desk.run()
    ((reason, candidates),) = desk.rows("SELECT reason, candidates FROM signals.unmatched")
    assert "ambiguous" in reason
    assert sorted(candidates) == ["A-1", "A-2"]
    assert desk.rows("SELECT account_id FROM signals.subscriptions") == [(None,)]


def test_F47_two_customers_of_one_account_both_count(desk):
    desk.api.lists["customers"] = [customer("c1", crm="A-1"), customer("c9", crm="A-1")]
    desk.api.lists["plans"] = [invoice("p1", "99.00"), invoice("p9", "1.00", customer="c9")]
    desk.run()
    per_account = "SELECT account_id, sum(mrr) FROM signals.subscriptions GROUP BY ALL"
    assert desk.rows(per_account) == [("A-1", Decimal(100))]


def test_F49_empty_and_absent_are_two_things_in_the_lake_and_one_in_a_name(desk):
    desk.api.lists["accounts"] = [
        account("A-1", name=""),
        account("A-2", name=None),
        account("A-3"),
    ]
    del desk.api.lists["accounts"][2]["name"]
    desk.run()
    assert desk.in_lake("accounts", "name") == [("",), (None,), (None,)]
    assert desk.rows("SELECT count(*), count(name) FROM signals.accounts") == [(3, 0)]
