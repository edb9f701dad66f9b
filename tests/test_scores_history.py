"""Which scorecard an account gets, what use does to a score, and that history is never lost."""

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import NotFoundError
from scoring import metrics, reports, scores
from scoring.library import from_document, read_library
from tests.signals import (
    DAY,
    add_account,
    add_many,
    as_of,
    company,
    connect,
    days_before,
    feed,
    library,
    metric,
    scorecard,
    use,
)

T = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time())
ACTIVE = metric(
    table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d"
)
USES = metric(table="usage_daily", aggregate="sum(count)", window="28d", stale_after="3d")
TICKETS = metric(table="tickets", aggregate="count")
FALLING = {0: 100, 28: 0}


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily", "tickets")
    yield connection
    connection.close()


def score(connection, lib, day=DAY, **options):
    metrics.compute(connection, lib, as_of(day))
    report = scores.compute(connection, lib, as_of(day), **options)
    rows = connection.execute(
        "SELECT account_id, score, value, band, scorecard, band_reason FROM scores.scores "
        "WHERE as_of = ?",
        [day],
    ).fetchall()
    return report, {(account, kind): tuple(rest) for account, kind, *rest in rows}


def card(name, **body):
    body.setdefault("components", [{"metric": "active", "weight": 100, "points": FALLING}])
    return scorecard(name, **body)


# Which scorecard


def test_the_most_specific_scorecard_of_the_profile_wins(connection):
    for account, employees, stage in (
        ("a", 500, "x"), ("b", 500, "y"), ("c", 5, "x"), ("d", 5, "y"),
    ):  # fmt: skip
        add_account(connection, account, employees=employees, industry=stage)
    use(connection, "a", days_before(DAY, 5))
    lib = library(
        {"active": ACTIVE},
        card("default"),
        card("big", applies_to={"segment": "big"}),
        card("big-x", applies_to={"segment": ["big", "other"], "stage": "x"}),
        card("small-y", applies_to={"segment": "small", "stage": "y"}),
        profiles={
            "segments": [{"name": "big", "when": "employees > 100"}, {"name": "small"}],
            "stages": [{"name": "x", "when": "industry = 'x'"}, {"name": "y"}],
        },
    )
    _, found = score(connection, lib)
    names = {account: row[2] for (account, _), row in found.items()}
    assert names == {"a": "big-x", "b": "big", "c": "default", "d": "small-y"}


def test_a_health_score_is_only_for_accounts_that_want_its_outcome(connection):
    for account, outcome in (("a", "growth"), ("b", "savings"), ("c", None), ("d", "fame")):
        add_account(connection, account, desired_outcome=outcome)
    use(connection, "a", days_before(DAY, 5))
    bands = {"green": 70, "yellow": 40}
    lib = library(
        {"active": ACTIVE},
        card("risk"),
        card("growth", score="health:growth", bands=bands),
        card("savings", score="health:savings", bands=bands),
    )
    _, found = score(connection, lib)
    assert sorted(key for key in found if key[1] != "risk") == [
        ("a", "health:growth"), ("b", "health:savings"),
    ]  # fmt: skip
    assert len(found) == 6


# Use


@settings(max_examples=25)
@given(
    curves=st.lists(st.lists(st.integers(0, 100), min_size=3, max_size=3), min_size=4, max_size=4),
    worst=st.booleans(),
    stepped=st.booleans(),
    used=st.lists(st.tuples(st.integers(0, 89), st.integers(0, 9)), max_size=20),
    more=st.lists(st.tuples(st.integers(0, 89), st.integers(1, 9)), min_size=1, max_size=10),
    tickets=st.integers(0, 5),
)
def test_more_use_never_raises_risk(curves, worst, stepped, used, more, tickets):
    connection = connect()
    feed(connection, "usage_daily", "tickets")
    add_account(connection, "a")
    add_account(connection, "other")
    use(connection, "other", days_before(DAY, 90))
    add_many(
        connection,
        "tickets",
        [{"source": "app", "account_id": "a", "ticket_id": str(n), "day": DAY, "known_at": T}
         for n in range(tickets)],
    )  # fmt: skip
    shape = "steps" if stepped else "points"
    fall = [dict(zip((1, 8, 20), sorted(curve, reverse=True), strict=True)) for curve in curves]
    rise = dict(zip((1, 8, 20), sorted(curves[3]), strict=True))
    pillars = {
        "proactive": {"weight": 60, "combine": "worst" if worst else "mean"},
        "reactive": {"weight": 40},
    }
    parts = [
        {"metric": "active", "pillar": "proactive", "weight": 30, shape: fall[0]},
        {"metric": "uses", "pillar": "proactive", "weight": 30, shape: fall[1]},
        {"metric": "kinds", "pillar": "reactive", "weight": 10, shape: fall[2]},
        # Somebody who never used it is worse than somebody who did long ago: `worst`, not
        # `redistribute`.
        {"metric": "since", "pillar": "reactive", "weight": 10, shape: rise, "missing": "worst"},
        {"metric": "tickets", "pillar": "reactive", "weight": 20, shape: rise},
    ]  # fmt: skip
    bodies = {
        "active": ACTIVE,
        "uses": USES,
        "kinds": metric(table="usage_daily", aggregate="count_distinct(event)", stale_after="3d"),
        "since": metric(
            table="usage_daily", aggregate="days_since(day)", window="90d", stale_after="3d",
            better="lower",
        ),
        "tickets": TICKETS,
    }  # fmt: skip
    lib = library(bodies, scorecard(pillars=pillars, components=parts), use_metric="active")

    def risk():
        _, found = score(connection, lib)
        (value,) = connection.execute(
            "SELECT value FROM scores.scores WHERE as_of = ? AND account_id = 'a'", [DAY]
        ).fetchone()
        return value, found[("a", "risk")][1]

    for back, count in used:
        use(connection, "a", [DAY - dt.timedelta(days=back)], count=count)
    before, band = risk()
    for number, (back, count) in enumerate(more):
        use(connection, "a", [DAY - dt.timedelta(days=back)], count=count, event=f"e{number}")
    after, better_band = risk()
    order = ["green", "yellow", "red"]
    assert after <= before
    assert order.index(better_band) <= order.index(band)
    connection.close()


def test_an_account_without_use_is_never_green(connection):
    add_account(connection, "idle", desired_outcome="growth")
    add_account(connection, "busy", desired_outcome="growth")
    add_account(connection, "unlinked", linked_to=("desk",), desired_outcome="growth")
    feed(connection, "tickets", source="desk")
    use(connection, "busy", days_before(DAY, 28))
    easy = [{"metric": "tickets", "weight": 100, "points": {0: 0, 9: 100}}]
    content = [{"metric": "tickets", "weight": 100, "points": {0: 100, 9: 0}}]
    lib = library(
        {"active": ACTIVE, "tickets": TICKETS},
        card("easy", components=easy),
        card("content", score="health:growth", components=content,
             bands={"green": 70, "yellow": 40}),
        use_metric="active",
    )  # fmt: skip
    _, found = score(connection, lib)
    assert found[("busy", "risk")][:2] == (0, "green")
    assert found[("idle", "risk")][:2] == (40, "yellow")
    assert found[("unlinked", "risk")][3] == "its use is not measured"
    assert found[("busy", "health:growth")][:2] == (100, "green")
    assert found[("idle", "health:growth")][:2] == (Decimal("69.99"), "yellow")
    assert found[("unlinked", "health:growth")][3] == "its use is not measured"
    rows = connection.execute(
        "SELECT reason, contribution FROM scores.contributions "
        "WHERE account_id = 'idle' AND kind = 'cap' ORDER BY score"
    ).fetchall()
    assert rows == [
        ("The product is not used", Decimal("-30.01")), ("The product is not used", Decimal("40")),
    ]  # fmt: skip
    # Where use stops being known, what was green is not green any more.
    _, later = score(connection, lib, DAY + dt.timedelta(days=9))
    assert {later[(account, "risk")][1] for account in ("busy", "idle")} == {"unknown"}


def test_without_any_source_of_use_the_guard_is_silent():
    connection = connect()
    feed(connection, "tickets")
    add_account(connection, "a")
    easy = [{"metric": "tickets", "weight": 100, "points": {0: 0, 9: 100}}]
    lib = library(
        {"active": ACTIVE, "tickets": TICKETS}, card("x", components=easy), use_metric="active"
    )
    assert score(connection, lib)[1][("a", "risk")][1] == "green"


def test_a_risk_score_whose_yellow_begins_at_zero_needs_no_guard(connection):
    add_account(connection, "a")
    use(connection, "a", [DAY])
    lib = library(
        {"active": ACTIVE}, card("x", bands={"red": 50, "yellow": 0}), use_metric="active"
    )
    assert score(connection, lib)[1][("a", "risk")][1] == "red"


# History


def revisions(connection):
    return connection.execute(
        "SELECT revision, library, run_id FROM scores.revisions ORDER BY as_of, revision"
    ).fetchall()


def test_the_same_result_is_no_new_revision_whatever_the_order_of_rows(connection):
    for account in ("a", "b"):
        add_account(connection, account, arr=10)
        use(connection, account, days_before(DAY, 9), value=0.1)
    lib = library({"active": ACTIVE}, card("x"))
    first, found = score(connection, lib, run_id="one")
    assert (first.revision, first.changed) == (1, True)
    connection.execute(
        "CREATE TABLE again AS FROM signals.usage_daily ORDER BY day, account_id DESC; "
        "DELETE FROM signals.usage_daily; INSERT INTO signals.usage_daily FROM again"
    )
    again, found_again = score(connection, lib, run_id="two")
    assert (again.revision, again.changed) == (1, False)
    assert found == found_again
    assert revisions(connection) == [(1, lib.fingerprint, "one")]


def test_another_result_is_a_new_revision_and_the_old_one_is_kept(connection):
    add_account(connection, "a")
    use(connection, "a", days_before(DAY, 14))
    old = library({"active": ACTIVE}, card("x"))
    new = library({"active": ACTIVE}, card("x", version=2, bands={"red": 40, "yellow": 20}))
    assert score(connection, old)[1][("a", "risk")][:2] == (50, "yellow")
    report, found = score(connection, new, scored_at=T)
    assert (report.revision, report.changed) == (2, True)
    assert found[("a", "risk")][:2] == (50, "red")
    kept = connection.execute(
        "SELECT revision, band, version FROM scores.all_scores ORDER BY revision"
    ).fetchall()
    assert kept == [(1, "yellow", 1), (2, "red", 2)]
    libraries = dict(connection.execute("FROM scores.libraries").fetchall())
    assert libraries == {lib.fingerprint: lib.document for lib in (old, new)}
    assert from_document(libraries[old.fingerprint]) == old
    # And back again: a third revision, the first library is not stored twice.
    report, _ = score(connection, old)
    assert report.revision == 3
    assert len(connection.execute("FROM scores.libraries").fetchall()) == 2


@pytest.mark.parametrize("change", ["arr = 99", "employees = 999", "parent_id = 'b'"])
def test_what_stands_on_a_score_makes_a_revision_even_where_the_number_stays(connection, change):
    add_account(connection, "a", arr=10, employees=5)
    add_account(connection, "b", arr=10, employees=5)
    use(connection, "a", days_before(DAY, 14))
    lib = library(
        {"active": ACTIVE}, card("x"),
        profiles={"segments": [{"name": "big", "when": "employees > 100"}, {"name": "small"}],
                  "stages": [{"name": "any"}]},
    )  # fmt: skip
    score(connection, lib)
    connection.execute(f"UPDATE signals.accounts SET {change} WHERE account_id = 'a'")
    report, _ = score(connection, lib)
    assert (report.revision, report.changed) == (2, True)
    assert score(connection, lib, family_rollup="mean")[0].revision == 3


def test_many_scores_that_change_alike_are_a_new_revision(connection):
    for account in ("a", "b", "c", "d"):
        add_account(connection, account)
        use(connection, account, days_before(DAY, 14))
    score(connection, library({"active": ACTIVE}, card("x")))
    same_card_other_data = "UPDATE metrics.metric_values SET value = 7"
    connection.execute(same_card_other_data)
    report = scores.compute(connection, library({"active": ACTIVE}, card("x")), as_of())
    assert (report.revision, report.changed) == (2, True)


def test_a_library_survives_being_written_down():
    lib = read_library(company(Path(".")))
    back = from_document(lib.document)
    assert back == lib
    assert back.fingerprint == lib.fingerprint
    assert [scores.card_key(named) for named in back.scorecards] == [
        scores.card_key(named) for named in lib.scorecards
    ]


def test_scoring_a_day_without_metrics_says_what_to_run(connection):
    lib = library({"active": ACTIVE}, card("x"))
    with pytest.raises(NotFoundError) as error:
        scores.compute(connection, lib, as_of())
    assert str(error.value) == (
        "the metrics of 2026-03-31 are not there; "
        "compute the day's metrics first: `healthloop run --as-of 2026-03-31`"
    )


def test_a_failure_leaves_the_day_as_it_was(connection):
    add_account(connection, "a")
    use(connection, "a", [DAY])
    lib = library({"active": ACTIVE}, card("x"))
    _, found = score(connection, lib)
    broken = library({"active": ACTIVE}, card("x", caps=[
        {"when": "nowhere > 3", "at_least": 5, "because": "x"}]))  # fmt: skip
    with pytest.raises(ValueError, match="unknown name 'nowhere'"):
        scores.compute(connection, broken, as_of())
    assert score(connection, lib)[1] == found


# Families and the whole business


@pytest.mark.parametrize(
    ("method", "value", "decisive"), [("worst", 100, "c"), ("mean", 75, "c"), ("revenue", 65, "c")]
)
def test_a_family_has_the_score_of_its_worst_its_mean_or_its_revenue(
    connection, method, value, decisive
):
    for account, parent, arr in (("a", None, 700), ("b", "a", None), ("c", "b", 300)):
        add_account(connection, account, parent_id=parent, arr=arr)
    use(connection, "a", days_before(DAY, 14))
    use(connection, "b", days_before(DAY, 7))
    lib = library({"active": ACTIVE}, card("x"))
    score(connection, lib, family_rollup=method)
    rows = connection.execute(
        "SELECT account_id, method, members, value, decisive_account_id FROM scores.families "
        "ORDER BY account_id"
    ).fetchall()
    assert rows[0] == ("a", method, 3, value, decisive)
    assert [row[0] for row in rows] == ["a", "b"]


def portfolio_of(connection, lib, **options):
    score(connection, lib)
    return reports.portfolio(connection, lib, DAY, **options)


def test_the_portfolio_counts_every_account_once_and_chances_only_where_risk_is_not_red(connection):
    for account, count, owner in (("a", 28, "kim"), ("b", 2, "lee"), ("c", 15, None)):
        add_account(connection, account, arr=100, owner="csm", sales_owner=owner, name=account * 3)
        use(connection, account, days_before(DAY, count))
    rising = [{"metric": "active", "weight": 100, "points": {0: 50, 28: 100}}]
    lib = library(
        {"active": ACTIVE}, card("risk"),
        card("upsell", score="upsell", components=rising, bands={"ready": 90, "possible": 50}),
        profiles={"segments": [{"name": "zebra", "when": "arr > 1"}, {"name": "ant"}],
                  "stages": [{"name": "any"}]},
    )  # fmt: skip
    found = portfolio_of(connection, lib)
    bands = [(count.segment, count.band, count.accounts, count.arr) for count in found.risk]
    assert bands == [
        ("zebra", "red", 1, 100), ("zebra", "yellow", 1, 100), ("zebra", "green", 1, 100),
        ("all", "red", 1, 100), ("all", "yellow", 1, 100), ("all", "green", 1, 100),
    ]  # fmt: skip
    assert [standing.account_id for standing in found.worst] == ["b", "c", "a"]
    assert [(s.account_id, s.owner, s.band) for s in found.best_upsell] == [
        ("a", "kim", "ready"), ("c", "csm", "possible"),
    ]  # fmt: skip
    assert found.worst[0].reasons == ("Label: 2",)
    assert len(portfolio_of(connection, lib, most=1).worst) == 1


def test_watermelons_are_green_accounts_with_hard_signals(connection):
    for account, count in (("green", 28), ("melon", 28), ("red", 0), ("stale", 28)):
        add_account(connection, account, arr=100)
        use(connection, account, days_before(DAY, count))
    add_many(
        connection, "tickets",
        [{"source": "app", "account_id": a, "ticket_id": a, "day": DAY, "known_at": T}
         for a in ("melon", "red")],
    )  # fmt: skip
    signals = [
        {"when": "tickets > 0", "because": "It's burning"},
        {"when": "arr > 50 and tickets > 0", "because": "{value} at risk"},
        {"when": "score is null", "because": "never asked"},
    ]
    feed(connection, "survey_responses", source="survey")
    nps = metric(table="survey_responses", aggregate="last(score)")
    lib = library(
        {"active": ACTIVE, "tickets": TICKETS, "score": nps}, card("x"), hard_signals=signals
    )
    score(connection, lib)
    found = {w.account_id: w.because for w in reports.watermelons(connection, lib, DAY)}
    assert found == {
        "green": ("never asked",), "stale": ("never asked",),
        "melon": ("It's burning", "{value} at risk", "never asked"),
    }  # fmt: skip
    # A metric whose pipe broke is null, but nobody may conclude anything from it.
    connection.execute("UPDATE metrics.metric_values SET state = 'stale' WHERE metric = 'score'")
    found = {w.account_id: w.because for w in reports.watermelons(connection, lib, DAY)}
    assert found == {"melon": ("It's burning", "{value} at risk")}


def test_tracking_gaps_are_what_is_not_measured_not_what_did_not_happen(connection):
    add_account(connection, "a", arr=10)
    add_account(connection, "unlinked", arr=20, linked_to=())
    use(connection, "a", [DAY], value=99)
    body = metric(table="usage_daily", aggregate="max(value)", range=[0, 10])
    ratio = metric(ratio={"of": "active", "to": "big"})
    nps = metric(table="tickets", aggregate="last(csat)")
    lib = library({"active": ACTIVE, "big": body, "ratio": ratio, "nps": nps}, card("x"))
    score(connection, lib)
    gaps = [(g.metric, g.reason, g.accounts, g.share, g.arr)
            for g in reports.tracking_gaps(connection, DAY)]  # fmt: skip
    assert ("nps", "no rows", 1, 0.5, 10) not in gaps
    assert ("active", "no link to a source", 1, 0.5, 20) in gaps
    assert ("big", "outside 0.0 to 10.0", 1, 0.5, 10) in gaps
    assert ("ratio", "outside 0.0 to 10.0", 1, 0.5, 10) in gaps


def test_an_event_that_no_source_of_an_account_ever_sent_is_a_gap_and_no_zero(connection):
    for source in ("app", "other"):
        feed(connection, "usage_daily", source=source)
    add_account(connection, "a", arr=10)
    add_account(connection, "quiet", arr=20)
    add_account(connection, "elsewhere", arr=40, linked_to=("other",))
    use(connection, "a", [DAY], event="export")
    use(connection, "elsewhere", [DAY], event="login", source="other")
    counted = {"table": "usage_daily", "aggregate": "count", "window": "28d"}
    lib = library(
        {
            "active": ACTIVE,
            "exports": metric(**counted, where={"event": "export"}),
            "invites": metric(**counted, where={"event": {"in": ["invite", "share"]}}),
        },
        card("x"),
    )
    score(connection, lib)
    found = {
        (gap.metric, gap.reason): (gap.accounts, gap.arr)
        for gap in reports.tracking_gaps(connection, DAY, library=lib)
    }
    assert found == {
        ("exports", "no event of that name"): (1, 40),
        ("invites", "no event of that name"): (3, 70),
    }
    assert reports.tracking_gaps(connection, DAY) == ()
