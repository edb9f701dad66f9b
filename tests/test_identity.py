"""Which account a source's key belongs to, and what happens when nobody can say."""

from decimal import Decimal
from pathlib import Path

import pytest
from signals_helpers import ACCOUNTS, Case, account, at

from connectors.identity import follow_merges, is_free_mail, registrable_domain
from contracts.errors import ConfigurationError

KEYS = (
    "SELECT customer AS account_key, crm AS account_id, site AS domain, mail AS email "
    "FROM raw_billing.customers"
)
PLANS = (
    "SELECT customer AS account_key, id AS subscription_id, started AS started_at, mrr, currency "
    "FROM raw_billing.plans"
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return company(tmp_path)


def company(home: Path, settings: str = "") -> Case:
    made = Case(home, settings)
    made.declare("crm", ["accounts"], accounts=ACCOUNTS)
    made.declare("billing", ["customers", "plans"], account_keys=KEYS, subscriptions=PLANS)
    made.load(
        "crm", at(1),
        accounts=[
            account("a", domain="https://www.alpha.co.uk/"), account("b", domain="beta.com"),
            account("c", domain="gmail.com"),
        ],
    )  # fmt: skip
    return made


def customer(key: str, crm: str | None = None, site: str | None = None, mail: str | None = None):
    return {"customer": key, "crm": crm, "site": site, "mail": mail}


def plan(key: str, mrr: float = 10.0, currency: str = "EUR") -> dict:
    return {
        "customer": key, "id": f"p-{key}", "started": at(1, 5), "mrr": mrr, "currency": currency,
    }  # fmt: skip


def keys(case: Case) -> list[tuple]:
    return case.rows(
        "SELECT account_key, account_id, method FROM signals.account_keys "
        "WHERE source = 'billing' ORDER BY ALL"
    )


def unmatched(case: Case) -> list[tuple]:
    return case.rows("SELECT account_key, reason, candidates FROM signals.unmatched ORDER BY ALL")


def test_the_first_of_explicit_domain_and_email_domain_decides(case: Case) -> None:
    case.load("billing", at(2), customers=[
        customer("k1", crm="b", site="alpha.co.uk", mail="x@alpha.co.uk"),
        customer("k2", site="shop.alpha.co.uk", mail="x@beta.com"),
        customer("k3", mail="Jane.Doe@mail.BETA.com"),
    ])  # fmt: skip
    case.build()
    assert keys(case) == [
        ("k1", "b", "explicit"), ("k2", "a", "domain"), ("k3", "b", "email_domain"),
    ]  # fmt: skip


def test_two_billing_ids_of_one_customer_find_the_same_account(case: Case) -> None:
    case.load("billing", at(2), customers=[customer("k1", crm="a"), customer("k2", crm="a")],
              plans=[plan("k1"), plan("k2")])  # fmt: skip
    report = case.build()
    assert case.rows("SELECT account_id, count(*) FROM signals.subscriptions GROUP BY ALL") == [
        ("a", 2)
    ]
    (billing,) = report.identity
    assert (billing.key_share, billing.row_share) == (1.0, 1.0)


def test_f47_several_candidates_are_ambiguous_and_linked_to_nothing(case: Case) -> None:
    case.load("billing", at(2), customers=[
        customer("k1", mail="x@alpha.co.uk"), customer("k1", mail="y@beta.com"),
    ], plans=[plan("k1", 12.5, "USD")])  # fmt: skip
    report = case.build()
    assert keys(case) == []
    assert case.rows("FROM signals.unmatched") == [
        ("billing", "k1", "ambiguous", ["a", "b"], Decimal("12.50"), "USD")
    ]
    assert case.rows("SELECT account_id FROM signals.subscriptions") == [(None,)]
    assert report.identity[0].row_share == 0.0


def test_free_mail_and_unknown_domains_are_no_candidate(case: Case) -> None:
    case.load("billing", at(2), customers=[
        customer("k1", mail="somebody@gmail.com"), customer("k2", site="nobody.example.org"),
        customer("k3", crm="zz"), customer("k4"),
    ])  # fmt: skip
    case.build()
    assert unmatched(case) == [(f"k{n}", "no_candidate", []) for n in (1, 2, 3, 4)]


def test_an_email_address_is_never_stored(case: Case) -> None:
    case.load("billing", at(2), customers=[customer("k1", mail="jane.doe@beta.com")])
    case.build()
    assert "jane" not in str(case.tables()).lower()
    assert case.rows("SELECT email_domains FROM signals.key_evidence") == [(["beta.com"],)]


def test_two_accounts_with_one_domain_make_its_keys_ambiguous(case: Case) -> None:
    case.load("crm", at(2), accounts=[account("d", domain="beta.com")])
    case.load("billing", at(2), customers=[customer("k1", site="beta.com")])
    case.build()
    assert unmatched(case) == [("k1", "ambiguous", ["b", "d"])]


def test_a_deleted_account_gives_its_domain_up_to_a_live_one(case: Case) -> None:
    case.load("crm", at(2), accounts=[account("d", domain="beta.com"), account("b", gone=True,
              domain="beta.com")])  # fmt: skip
    case.load("billing", at(2), customers=[customer("k1", site="beta.com")])
    case.build()
    assert keys(case) == [("k1", "d", "domain")]


def test_a_merge_gives_all_keys_and_stored_rows_to_the_survivor(case: Case) -> None:
    customers = [customer("k1", crm="b"), customer("k2", site="beta.com")]
    case.load("billing", at(2), customers=customers, plans=[plan("k1"), plan("k2")])
    case.build()
    case.load("crm", at(3), accounts=[account("b", merged="c"), account("c", merged="a")])
    report = case.build()
    assert report.rekeyed == 2
    assert keys(case) == [("k1", "a", "explicit")]  # b's newest version has no domain for k2
    assert case.rows("SELECT account_key, account_id FROM signals.subscriptions ORDER BY 1") == [
        ("k1", "a"), ("k2", None),
    ]  # fmt: skip


def test_a_merge_in_a_circle_is_told_and_changes_nothing(case: Case) -> None:
    case.load("crm", at(2), accounts=[account("a", merged="b"), account("b", merged="a")])
    case.load("billing", at(2), customers=[customer("k1", crm="a")])
    report = case.build()
    assert keys(case) == [("k1", "a", "explicit")]
    assert "account 'a' is merged in a circle" in report.warnings
    assert case.build().warnings == report.warnings


def test_a_new_account_links_rows_that_were_stored_before_it(case: Case) -> None:
    case.load("billing", at(2), customers=[customer("k1", crm="n")], plans=[plan("k1")])
    case.build()
    assert unmatched(case) == [("k1", "no_candidate", [])]
    case.load("crm", at(3), accounts=[account("n")])
    assert case.build().rekeyed == 1
    assert case.rows("SELECT account_id FROM signals.subscriptions") == [("n",)]
    assert unmatched(case) == []


def test_the_manual_file_wins_over_everything_and_can_change(tmp_path: Path) -> None:
    case = company(tmp_path, "identity: {manual: identity.csv}\n")
    file = tmp_path / "identity.csv"
    file.write_text("source,account_key,account_id\nbilling,k1,c\n")
    case.load("billing", at(2), customers=[customer("k1", crm="a")], plans=[plan("k1")])
    case.build()
    assert keys(case) == [("k1", "c", "manual")]
    file.write_text("source,account_key,account_id\nbilling,k1,b\n")
    case.build()
    assert keys(case) == [("k1", "b", "manual")]
    assert case.rows("SELECT account_id FROM signals.subscriptions") == [("b",)]


def test_mistakes_of_the_manual_file_are_told_with_their_line_each_time(tmp_path: Path) -> None:
    case = company(tmp_path, "identity: {manual: identity.csv}\n")
    (tmp_path / "identity.csv").write_text(
        "source,account_key,account_id\nbiling,k1,a\nbilling,k1,zz\nbilling,,a\n"
        "billing,k2,a\nbilling,k2,b\n"
    )
    for _ in range(2):
        with pytest.raises(ConfigurationError) as raised:
            case.build()
        assert [(p.line, p.cause) for p in raised.value.problems] == [
            (2, "unknown source 'biling'"),
            (3, "account 'zz' does not exist"),
            (4, "'account_key' is missing"),
            (6, "key 'k2' is given twice with different accounts"),
        ]


def test_a_manual_file_that_is_not_there_or_has_no_head_is_a_mistake(tmp_path: Path) -> None:
    case = company(tmp_path, "identity: {manual: identity.csv}\n")
    with pytest.raises(ConfigurationError, match=r"identity\.csv:1: cannot be read"):
        case.build()
    (tmp_path / "identity.csv").write_text("source,key\n")
    with pytest.raises(ConfigurationError, match="column 'account_id' is missing"):
        case.build()


def test_domains_can_be_switched_off(tmp_path: Path) -> None:
    case = company(tmp_path, "identity: {by_domain: false, by_email_domain: false}\n")
    case.load("billing", at(2), customers=[customer("k1", site="beta.com", mail="x@beta.com")])
    case.build()
    assert unmatched(case) == [("k1", "no_candidate", [])]


def test_a_source_without_evidence_names_accounts_by_their_ids(case: Case) -> None:
    case.declare("app", ["events"], usage_daily=(
        "SELECT who AS account_key, day, 'x' AS event FROM raw_app.events"))  # fmt: skip
    case.load("app", at(2), events=[{"who": w, "day": "2026-05-01"} for w in ("a", "zz")])
    case.build()
    assert case.rows("SELECT account_key, account_id, method FROM signals.account_keys") == [
        ("a", "a", "explicit")
    ]
    assert unmatched(case) == [("zz", "no_candidate", [])]


def test_merges_follow_their_chain() -> None:
    accounts = set("abcd")
    assert follow_merges({"a": "b", "b": "c"}, accounts) == ({"a": "c", "b": "c"}, [])
    heirs, mistakes = follow_merges({"a": "zz", "b": "c", "c": "b", "d": "d"}, accounts)
    assert heirs == {}
    assert mistakes == [
        "account 'a' is merged into 'zz', which is unknown",
        "account 'b' is merged in a circle", "account 'c' is merged in a circle",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("https://www.shop.example.co.uk/prices?x=1", "example.co.uk"),
        ("EXAMPLE.COM", "example.com"), ("localhost", None), ("", None), ("127.0.0.1", None),
        ("co.uk", None),
    ],
)  # fmt: skip
def test_a_registrable_domain_is_what_somebody_registered(text: str, domain: str | None) -> None:
    assert registrable_domain(text) == domain


def test_free_mail_is_known() -> None:
    assert is_free_mail("gmail.com")
    assert not is_free_mail("salesforce.com")
