"""Rows that break their table's contract go to quarantine; the rest goes on."""

import datetime as dt
import math
from pathlib import Path

import pytest
from signals_helpers import ACCOUNTS, Case, account, at

from connectors.signal_reports import TableReport
from contracts.company import Limits
from contracts.errors import ConfigurationError

INVOICES = (
    "SELECT customer AS account_key, id AS invoice_id, issued AS issued_at, paid AS paid_at, "
    "amount AS amount_due, iso AS currency, tries AS attempts FROM raw_billing.invoices"
)
GOOD = {
    "customer": "a", "id": "i1", "issued": "2026-05-01T10:00:00", "paid": None,
    "amount": "10.50", "iso": "EUR", "tries": "1",
}  # fmt: skip


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = Case(tmp_path)
    made.declare("crm", ["accounts"], accounts=ACCOUNTS)
    made.load("crm", at(1), accounts=[account("a"), account("b")])
    return made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": "ten"}, "amount_due: not a DECIMAL(18,2)"),
        ({"issued": "yesterday"}, "issued_at: not a TIMESTAMP"),
        ({"issued": None}, "issued_at: missing"),
        ({"issued": " "}, "issued_at: missing"),
        ({"id": None}, "invoice_id: missing"),
        ({"customer": ""}, "account_key: missing"),
        ({"issued": "2026-06-03T00:00:00"}, "issued_at: lies in the future"),
        ({"tries": "-1"}, "attempts: below 0"),
        ({"tries": "1.5"}, "attempts: not a whole number"),
        ({"iso": "EURO"}, "currency: not an ISO 4217 code"),
        ({"iso": "eur"}, "currency: not an ISO 4217 code"),
        ({"id": "i\0"}, "invoice_id: holds a NUL byte"),
        ({"paid": "never", "tries": "-2"}, "paid_at: not a TIMESTAMP; attempts: below 0"),
    ],
)
def test_a_bad_value_sends_its_row_to_quarantine_and_the_rest_goes_on(
    case: Case, change: dict, reason: str
) -> None:
    case.declare("billing", ["invoices"], invoices=INVOICES)
    case.load("billing", at(1), invoices=[{**GOOD, "id": "good"}, {**GOOD, **change}])
    report = case.build()
    assert case.rows("SELECT invoice_id FROM signals.invoices") == [("good",)]
    assert case.rows('SELECT source, "table", reason FROM signals.quarantine') == [
        ("billing", "invoices", reason)
    ]
    assert next(t for t in report.tables if t.table == "invoices").quarantine_share == 0.5


@pytest.mark.parametrize(("table", "breaks"), [("invoices", True), ("overrides", False)])
def test_what_people_type_into_a_crm_holds_nothing_but_its_row(table: str, breaks: bool) -> None:
    report = TableReport("crm", table, "full", 1, 12, 11, 0, 1, 11, 0.1)
    assert report.breaks(Limits(quarantine_share=0.05)) == breaks
    assert not report.breaks(Limits(quarantine_share=0.1))


def test_a_payment_date_in_the_future_is_allowed_because_only_the_fact_dates_the_row(
    case: Case,
) -> None:
    case.declare("billing", ["invoices"], invoices=INVOICES)
    case.load("billing", at(1), invoices=[{**GOOD, "paid": "2027-01-01T00:00:00"}])
    case.build()
    assert case.rows("SELECT paid_at FROM signals.invoices") == [(dt.datetime(2027, 1, 1),)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"score": math.nan}, "score: not a finite number"),
        ({"score": -math.inf}, "score: not a finite number"),
        ({"score": None}, "score: missing"),
        ({"kind": "guess"}, "kind: not one of nps, csat, ces, custom"),
        ({"scale": 0.5}, "scale: below 1"),
    ],
)
def test_survey_answers_must_be_finite_and_of_a_known_kind(
    case: Case, change: dict, reason: str
) -> None:
    case.declare(
        "survey", ["answers"],
        survey_responses="SELECT customer AS account_key, id AS response_id, kind, score, scale, "
        "answered AS responded_at, comment FROM raw_survey.answers",
    )  # fmt: skip
    good = {
        "customer": "a", "id": "r1", "kind": "nps", "score": 9.0, "scale": 10.0,
        "answered": at(1, 5), "comment": "Jane Doe said so",
    }  # fmt: skip
    case.load("survey", at(1), answers=[{**good, "id": "ok"}, {**good, **change}])
    case.build()
    assert case.rows("SELECT reason FROM signals.quarantine") == [(reason,)]
    assert case.rows("SELECT response_id FROM signals.survey_responses") == [("ok",)]
    assert "Jane" not in str(case.rows("FROM signals.quarantine"))


def test_severity_has_a_maximum(case: Case) -> None:
    case.declare(
        "news", ["events"],
        commercial_events="SELECT customer AS account_key, id AS event_id, kind, severity, "
        "happened AS occurred_at FROM raw_news.events",
    )  # fmt: skip
    row = {"customer": "a", "id": "e", "kind": "merger", "severity": 6, "happened": at(1, 5)}
    case.load("news", at(1), events=[row])
    case.build()
    assert case.rows("SELECT row_key, reason FROM signals.quarantine") == [
        ("e", "severity: above 5")
    ]


def test_text_with_an_offset_becomes_the_utc_instant_that_it_names(case: Case) -> None:
    case.declare("billing", ["invoices"], invoices=INVOICES)
    case.load("billing", at(1), invoices=[{**GOOD, "issued": "2026-05-01T01:00:00+02:00"}])
    case.build()
    assert case.rows("SELECT issued_at, day FROM signals.invoices") == [
        (dt.datetime(2026, 4, 30, 23), dt.date(2026, 4, 30))
    ]


def test_the_quarantine_names_a_row_once_however_often_it_is_delivered(case: Case) -> None:
    case.declare("billing", ["invoices"], invoices=INVOICES)
    bad = {**GOOD, "tries": "-1"}
    case.load("billing", at(1), whole=True, invoices=[bad])
    case.build()
    case.load("billing", at(2), whole=True, invoices=[bad])
    case.build()
    before = case.rows("FROM signals.quarantine")
    assert [row[5] for row in before] == [at(1)]
    case.build(rebuild=True)
    assert case.rows("FROM signals.quarantine") == before


def test_a_refused_version_leaves_the_last_good_one_standing(case: Case) -> None:
    case.declare("billing", ["invoices"], invoices=INVOICES)
    case.load("billing", at(1), whole=True, invoices=[GOOD])
    case.load("billing", at(2), whole=True, invoices=[{**GOOD, "amount": "oops"}])
    case.build()
    assert case.rows("SELECT amount_due::VARCHAR, superseded_at FROM signals.invoices") == [
        ("10.50", None)
    ]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT id AS invoice_id, issued AS issued_at FROM raw_billing.invoices",
         "invoices.sql:1: required column 'account_key' of table 'invoices' is not selected"),
        (INVOICES.replace("amount_due", "amount_deu"),
         "invoices.sql:1: table 'invoices' has no column 'amount_deu'; did you mean 'amount_due'?"),
        (INVOICES.replace("SELECT ", "SELECT\n").replace("tries", "\ntrise"),
         "invoices.sql:3: unknown column 'trise'; did you mean 'tries'?"),
        (INVOICES.replace("tries AS", "\nintt(tries) AS"),
         "invoices.sql:2: unknown function 'intt'"),
        (INVOICES.replace("tries AS", "CAST(customer AS INTEGER) AS"),
         "invoices.sql:1: a cast fails on some rows; use TRY_CAST"),
        (INVOICES.replace("issued AS", "now() AS"),
         "invoices.sql:1: the result depends on the clock or on chance"),
        (INVOICES + ", read_csv('/etc/passwd')",
         "invoices.sql:1: 'read_csv' reads something that is not in the lake"),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_named_with_file_line_and_the_nearest_name(
    case: Case, sql: str, message: str
) -> None:
    case.declare("billing", ["invoices"], invoices=sql)
    case.load("billing", at(1), invoices=[GOOD])
    with pytest.raises(ConfigurationError) as raised:
        case.build()
    assert message in str(raised.value)
    assert len(raised.value.problems) == 1
    assert case.rows("SELECT count(*) FROM signals.accounts") == [(2,)]  # the others are built


def test_macros_help_with_zones_epochs_and_minor_units(tmp_path: Path) -> None:
    case = Case(tmp_path, "time_zone: America/New_York\n")
    case.declare("crm", ["accounts"], accounts=ACCOUNTS)
    case.load("crm", at(1), accounts=[account("a")])
    case.build()
    assert case.rows(
        "SELECT local_day(TIMESTAMP '2026-01-01 03:00:00'), "
        "utc(TIMESTAMP '2026-07-01 12:00:00', 'Europe/Berlin'), "
        "utc_text('2026-01-01T09:00:00+02:00'), from_epoch(1767225600), "
        "from_epoch_ms(1767225600500), money(1999, 'EUR')::VARCHAR, money(1999, 'JPY')::VARCHAR, "
        "money(1999, 'KWD')::VARCHAR, text_or_null('  ')"
    ) == [
        (dt.date(2025, 12, 31), dt.datetime(2026, 7, 1, 10), dt.datetime(2026, 1, 1, 7),
         dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 0, 0, 0, 500_000),
         "19.99", "1999.00", "2.00", None)
    ]  # fmt: skip
