"""What state a metric is in, and that a pipe that stops or breaks moves no value."""

import datetime as dt

import pytest

from scoring import metrics
from tests.signals import (
    DAY,
    add,
    add_account,
    as_of,
    connect,
    days_before,
    feed,
    health,
    library,
    measured,
    metric,
    use,
)


def day(number: int) -> dt.date:
    """So many days after DAY."""
    return DAY + dt.timedelta(days=number)


def noon(number: int) -> dt.datetime:
    return dt.datetime.combine(day(number), dt.time(12))


@pytest.fixture
def connection():
    connection = connect()
    yield connection
    connection.close()


def states(connection, lib, on=DAY, **settings):
    metrics.compute(connection, lib, as_of(on, **settings))
    return measured(connection, on)


ACTIVE = metric(
    table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
    compare=["previous_window"],
)  # fmt: skip
SINCE = metric(table="usage_daily", aggregate="days_since(day)", window="90d", stale_after="3d")
TICKETS = metric(table="tickets", aggregate="count")


def test_no_rows_are_zero_with_a_link_and_absent_without(connection):
    feed(connection, "tickets")
    add_account(connection, "linked")
    add_account(connection, "unlinked", linked_to=())
    mean = metric(table="tickets", aggregate="mean(csat)")
    nps = metric(table="survey_responses", aggregate="last(score)")
    found = states(connection, library({"tickets": TICKETS, "csat": mean, "nps": nps}))
    assert found[("linked", "tickets")] == (0.0, "zero-filled", None)
    assert found[("linked", "csat")] == (None, "absent", "no rows")
    assert found[("unlinked", "tickets")] == (None, "absent", "no link to a source")
    assert found[("linked", "nps")] == (None, "absent", "no source")


def test_a_link_that_only_rows_reveal_is_known_from_then_on(connection):
    feed(connection, "tickets")
    add_account(connection, "a")
    connection.execute("UPDATE signals.account_keys SET known_at = ?", [noon(0)])
    lib = library({"tickets": TICKETS})
    found = states(connection, lib, day(-1))
    assert found[("a", "tickets")] == (None, "absent", "no link to a source")
    assert states(connection, lib)[("a", "tickets")] == (0.0, "zero-filled", None)


def test_when_a_stream_stops_its_values_are_held_and_then_stale(connection):
    feed(connection, "usage_daily")
    add_account(connection, "busy")
    add_account(connection, "idle")
    use(connection, "busy", days_before(DAY, 90))
    use(connection, "idle", days_before(DAY, 60, skip=10))
    lib = library({"active": ACTIVE, "since": SINCE})
    first = states(connection, lib)
    assert first[("busy", "active")] == (28.0, "present", None)
    assert first[("idle", "since")] == (10.0, "present", None)
    for number in (1, 2, 3):
        assert states(connection, lib, day(number)) == first
    later = states(connection, lib, day(4))
    for account in ("busy", "idle"):
        for name in ("active", "active.change", "since"):
            assert later[(account, name)] == (None, "stale", "no new data for 4 days")
    use(connection, "busy", [day(5)])
    assert states(connection, lib, day(5))[("busy", "active")][:2] == (24.0, "present")


def test_what_a_failing_source_said_is_held_as_of_its_last_good_check(connection):
    feed(connection, "tickets", "invoices")
    feed(connection, "accounts", source="crm")
    add_account(connection, "a", renews_on=day(30))
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=noon(-5))
    for number, due, paid in (("1", noon(1), None), ("2", noon(-5), noon(2))):
        add(connection, "invoices", account_id="a", invoice_id=number, issued_at=noon(-20),
            due_at=due, paid_at=paid, amount_due=10)  # fmt: skip
    lib = library(
        {
            "tickets": TICKETS,
            "waiting": metric(
                table="tickets", aggregate="count", where={"opened_at": {"older_than": "5d"}}
            ),
            "since": metric(table="tickets", aggregate="days_since(opened_at)"),
            "overdue": metric(
                table="invoices", aggregate="count",
                where={"due_at": {"older_than": "1d"}, "paid_at": {"is_null": True}},
            ),
            "renewal": metric(table="accounts", aggregate="days_until(renews_on)"),
        }
    )  # fmt: skip
    health(connection, "ok", noon(0))
    health(connection, "ok", noon(0), source="crm")
    first = states(connection, lib)
    assert first[("a", "overdue")][0] == 1
    # From now on the source is suspect, and what it says then is not believed.
    add(connection, "tickets", account_id="a", ticket_id="2", opened_at=noon(1))
    connection.execute(
        "UPDATE signals.tickets SET superseded_at = ? WHERE ticket_id = '1'", [noon(1)]
    )
    for number in range(1, 9):
        health(connection, "suspect", noon(number))
    for number in range(1, 8):
        found = states(connection, lib, day(number))
        for name in ("tickets", "waiting", "since", "overdue"):
            assert found[("a", name)] == first[("a", name)], (number, name)
        assert found[("a", "renewal")][0] == 30 - number
    reason = "the source has been failing for 8 days"
    assert states(connection, lib, day(8))[("a", "tickets")] == (None, "stale", reason)
    # The source is well again: everything that it said counts.
    health(connection, "ok", noon(9))
    found = states(connection, lib, day(9))
    assert found[("a", "tickets")] == (1.0, "present", None)
    assert found[("a", "overdue")][0] == 1


def test_nothing_counts_that_a_source_said_after_its_last_good_check_of_the_same_day(connection):
    feed(connection, "tickets")
    add_account(connection, "a")
    health(connection, "ok", noon(0) - dt.timedelta(hours=6))
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=noon(0))
    health(connection, "suspect", noon(0))
    assert states(connection, library({"t": TICKETS}))[("a", "t")] == (0.0, "zero-filled", None)


@pytest.mark.parametrize("status", ["suspect", "down", "stale"])
def test_a_source_that_was_never_good_is_suspect(connection, status):
    feed(connection, "tickets")
    add_account(connection, "a")
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=noon(-1))
    health(connection, status, noon(-1))
    value, state, reason = states(connection, library({"t": TICKETS}))[("a", "t")]
    assert (value, state) == (None, "suspect")
    assert reason == "the source is suspect and has no good data yet"


def test_a_table_is_as_good_as_the_worst_stream_that_feeds_it(connection):
    for stream in ("removed", "tickets", "broken", "also broken"):
        feed(connection, "tickets", stream=stream)
    feed(connection, "invoices", stream="never")
    add_account(connection, "a")
    health(connection, "ok", noon(-100), stream="removed")
    health(connection, "suspect", noon(-3), stream="never")
    health(connection, "ok", noon(-2), stream="tickets")
    lib = library({"t": TICKETS})
    assert states(connection, lib)[("a", "t")][1] == "zero-filled"
    health(connection, "ok", noon(-12), stream="broken")
    health(connection, "down", noon(-2), stream="broken")
    health(connection, "ok", noon(-5), stream="also broken")
    health(connection, "down", noon(-2), stream="also broken")
    found = states(connection, lib)[("a", "t")]
    assert found == (None, "stale", "the source has been failing for 12 days")
    feed(connection, "tickets", stream="never")
    assert states(connection, lib)[("a", "t")][1] == "suspect"


def test_a_failing_stream_holds_no_table_but_those_that_it_feeds(connection):
    feed(connection, "tickets", stream="tickets")
    feed(connection, "invoices", stream="invoices")
    add_account(connection, "a")
    for stream in ("tickets", "invoices"):
        health(connection, "ok", noon(-12), stream=stream)
    health(connection, "down", noon(-1), stream="invoices")
    health(connection, "ok", noon(-1), stream="tickets")
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=noon(-2))
    owed = metric(table="invoices", aggregate="count", window="28d")
    found = states(connection, library({"t": TICKETS, "owed": owed}))
    assert found[("a", "t")] == (1.0, "present", None)
    assert found[("a", "owed")][1] == "stale"


def test_values_stand_still_at_the_last_day_that_is_believed(connection):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    use(connection, "a", [day(-n) for n in range(2, 40)])
    health(connection, "ok", noon(0))
    health(connection, "suspect", noon(0) + dt.timedelta(hours=1), good_day=day(-2))
    per_month = metric(table="usage_daily", aggregate="sum(count)", window="28d")
    assert states(connection, library({"n": per_month}))[("a", "n")] == (28.0, "present", None)
    health(connection, "ok", noon(0) + dt.timedelta(hours=2))
    assert states(connection, library({"n": per_month}))[("a", "n")] == (26.0, "present", None)


def test_an_account_of_two_sources_is_as_far_behind_as_the_slower_one(connection):
    feed(connection, "usage_daily")
    feed(connection, "usage_daily", source="app2")
    add_account(connection, "both", linked_to=("app", "app2"))
    add_account(connection, "fast")
    use(connection, "both", days_before(DAY, 60))
    use(connection, "both", days_before(DAY, 60, skip=2), source="app2", event="other")
    use(connection, "fast", days_before(DAY, 60))
    total = metric(table="usage_daily", aggregate="sum(count)", window="28d", stale_after="3d")
    lib = library({"active": ACTIVE, "total": total})
    found = states(connection, lib)
    assert found[("both", "total")][0] == 56  # each source over its own last 28 days
    use(connection, "both", [day(1), day(2)])
    use(connection, "fast", [day(1), day(2)])
    found = states(connection, lib, day(2))
    assert found[("both", "total")] == (None, "stale", "no new data for 4 days")
    assert found[("fast", "total")] == (28.0, "present", None)


def test_before_its_first_row_a_stream_is_absent_and_nobody_is_idle(connection):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    use(connection, "a", days_before(DAY, 5))
    found = states(connection, library({"active": ACTIVE}), day(-10))
    assert found[("a", "active")] == (None, "absent", "no data from the source yet")


def test_a_change_needs_two_windows_of_the_account_and_of_the_source(connection):
    feed(connection, "usage_daily")
    add_account(connection, "old")
    add_account(connection, "young", started_on=day(-40))
    use(connection, "old", days_before(DAY, 40))
    found = states(connection, library({"active": ACTIVE}))
    reason = "nothing to compare with in the window before"
    assert found[("old", "active.change")] == (None, "absent", reason)
    use(connection, "old", [day(-54)])
    found = states(connection, library({"active": ACTIVE}))
    assert found[("old", "active.change")] == pytest.approx((100 * 15 / 13, "present", None))
    assert found[("young", "active.change")] == (None, "absent", reason)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e308, -0.1, 10.1])
def test_a_value_outside_its_range_is_corrupt(connection, value):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    use(connection, "a", [DAY], value=value)
    body = metric(table="usage_daily", aggregate="max(value)", range=[0, 10])
    ratio = metric(ratio={"of": "v", "to": "v"}, compare=["benchmark"], benchmark=2)
    found = states(connection, library({"v": body, "r": ratio}))
    assert found[("a", "v")] == (None, "corrupt", "outside 0.0 to 10.0")
    for name in ("r", "r.percent_of_benchmark"):
        assert found[("a", name)] == (None, "corrupt", "outside 0.0 to 10.0")


def test_infinities_never_leave_a_metric_without_a_range(connection):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    add_account(connection, "b", parent_id="a")
    for account in ("a", "b"):
        use(connection, account, [DAY], value=1e308)
    total = metric(table="usage_daily", aggregate="sum(value)", rollup="sum")
    tiny = metric(table="usage_daily", aggregate="min(count)")
    ratio = metric(ratio={"of": "total", "to": "tiny", "scale": 1e10})
    found = states(connection, library({"total": total, "tiny": tiny, "ratio": ratio}))
    assert found[("b", "total")][:2] == (1e308, "present")
    assert found[("a", "total")] == (None, "corrupt", "no finite number")
    assert found[("b", "ratio")][:2] == (None, "corrupt")


def test_a_ratio_needs_both_its_parts(connection):
    feed(connection, "usage_daily", "tickets")
    add_account(connection, "a")
    add_account(connection, "idle")
    add_account(connection, "unlinked", linked_to=())
    use(connection, "a", days_before(DAY, 56))
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=noon(-3))
    bodies = {
        "active": ACTIVE,
        "tickets": metric(table="tickets", aggregate="count", window="28d"),
        "per_day": metric(
            ratio={"of": "tickets", "to": "active", "scale": 28},
            compare=["previous_window", "benchmark"], benchmark=4,
        ),
    }  # fmt: skip
    found = states(connection, library(bodies))
    assert found[("a", "per_day")] == (1.0, "present", None)
    assert found[("a", "per_day.change")] == (100.0, "present", None)
    assert found[("a", "per_day.percent_of_benchmark")] == (25.0, "present", None)
    assert found[("idle", "per_day")] == (None, "absent", "the divisor is zero")
    assert found[("unlinked", "per_day")] == (None, "absent", "no link to a source")
    found = states(connection, library(bodies), day(10))
    assert found[("a", "per_day")] == (None, "stale", "no new data for 10 days")


def mrr(connection, account, amount, currency, number):
    add(connection, "subscriptions", account_id=account, subscription_id=str(number),
        mrr=amount, currency=currency, started_at=noon(-100))  # fmt: skip


MRR = metric(table="subscriptions", aggregate="sum(mrr)", where={"cancelled_at": {"is_null": True}})


def rate(connection, currency, on, value, known=None):
    add(connection, "exchange_rates", currency=currency, rate=value, day=on,
        known_at=known or dt.datetime.combine(on, dt.time(18)))  # fmt: skip


def test_money_is_converted_by_the_rate_that_was_known(connection):
    feed(connection, "subscriptions")
    add_account(connection, "a", arr=1000, currency="EUR")
    mrr(connection, "a", 100, "USD", 1)
    mrr(connection, "a", 100, "EUR", 2)
    mrr(connection, "a", 100, None, 3)  # without a currency: the company's
    rate(connection, "EUR", day(-10), 1.2)
    rate(connection, "EUR", day(-1), 1.1)
    rate(connection, "EUR", DAY, 9.9, known=noon(5))  # known too late
    rate(connection, "EUR", day(1), 9.9, known=noon(-5))  # of a later day
    rate(connection, "EUR", day(0), 0.0)  # no rate at all
    found = states(connection, library({"mrr": MRR}))
    assert found[("a", "mrr")] == (310.0, "present", None)
    (arr,) = connection.execute("SELECT arr FROM metrics.accounts").fetchone()
    assert arr == 1100
    assert states(connection, library({"mrr": MRR}), day(-5))[("a", "mrr")][0] == 320.0


def test_without_a_rate_money_is_absent_never_wrong(connection):
    feed(connection, "subscriptions", "invoices")
    add_account(connection, "a", arr=1000, currency="JPY")
    add_account(connection, "child", parent_id="a")
    add_account(connection, "b")
    mrr(connection, "a", 100, "USD", 1)
    mrr(connection, "child", 5, "JPY", 2)
    mrr(connection, "b", 5, "JPY", 3)
    connection.execute(
        "UPDATE signals.subscriptions SET cancelled_at = ? WHERE subscription_id = '3'", [noon(-9)]
    )
    add(connection, "invoices", account_id="b", invoice_id="1", issued_at=noon(-40),
        amount_due=7, currency="JPY")  # fmt: skip
    rolled = MRR.model_copy(update={"rollup": "sum"})
    billed = metric(
        table="invoices", aggregate="sum(amount_due)", window="28d", compare=["previous_window"]
    )
    found = states(connection, library({"mrr": MRR, "rolled": rolled, "billed": billed}))
    assert found[("a", "mrr")] == (100.0, "present", None)
    assert found[("child", "mrr")] == (None, "absent", "no exchange rate")
    assert found[("a", "rolled")] == (None, "absent", "no exchange rate")
    assert found[("b", "mrr")][:2] == (0.0, "zero-filled")  # the only amount is filtered away
    assert found[("b", "billed.change")][:2] == (None, "absent")
    (arr,) = connection.execute(
        "SELECT arr FROM metrics.accounts WHERE account_id = 'a'"
    ).fetchone()
    assert arr is None


def family(connection):
    feed(connection, "usage_daily")
    for account, parent, arr in (
        ("top", None, 100), ("left", "top", 300), ("right", "top", None), ("leaf", "left", 100),
    ):  # fmt: skip
        add_account(connection, account, parent_id=parent, arr=arr)
    for account, count in (("top", 1), ("left", 2), ("right", 3), ("leaf", 6)):
        use(connection, account, days_before(DAY, 3), count=count)


@pytest.mark.parametrize(
    ("how", "top", "left"),
    [("sum", 36, 24), ("mean", 9, 12), ("min", 3, 6), ("max", 18, 18),
     ("revenue", (100 * 3 + 300 * 6 + 100 * 18) / 500, (300 * 6 + 100 * 18) / 400)],
)  # fmt: skip
def test_parents_are_rolled_up_with_everything_below_them(connection, how, top, left):
    family(connection)
    uses = metric(table="usage_daily", aggregate="sum(count)", rollup=how)
    found = states(connection, library({"uses": uses}))
    assert found[("top", "uses")][0] == pytest.approx(top)
    assert found[("left", "uses")][0] == pytest.approx(left)
    assert found[("leaf", "uses")][0] == 18


def test_a_cycle_of_parents_ends_where_it_began(connection):
    feed(connection, "usage_daily")
    for account, parent in (("a", "b"), ("b", "c"), ("c", "a"), ("self", "self")):
        add_account(connection, account, parent_id=parent)
        use(connection, account, [DAY])
    uses = metric(table="usage_daily", aggregate="sum(count)", rollup="sum")
    found = states(connection, library({"uses": uses}))
    assert [found[(account, "uses")][0] for account in ("a", "b", "c", "self")] == [3, 3, 3, 1]


def test_a_child_without_a_link_is_left_out_but_a_broken_one_breaks_the_sum(connection):
    feed(connection, "usage_daily")
    feed(connection, "usage_daily", source="app2")
    add_account(connection, "top")
    add_account(connection, "unlinked", parent_id="top", linked_to=())
    use(connection, "top", days_before(day(9), 40))
    uses = metric(
        table="usage_daily", aggregate="sum(count)", window="7d", stale_after="3d", rollup="sum"
    )
    lib = library({"uses": uses})
    assert states(connection, lib, day(9))[("top", "uses")] == (7.0, "present", None)
    add_account(connection, "child", parent_id="top", linked_to=("app2",))
    use(connection, "child", days_before(DAY, 20), source="app2")
    found = states(connection, lib, day(9))
    assert found[("top", "uses")] == (None, "stale", "no new data for 9 days")
    assert states(connection, lib, day(3))[("top", "uses")][0] == 14


def test_peers_are_ranked_where_there_are_twenty(connection):
    feed(connection, "usage_daily")
    for number in range(20):
        add_account(connection, f"a{number:02}", employees=5)
        use(connection, f"a{number:02}", days_before(DAY, number + 1))
    for number in range(19):
        add_account(connection, f"b{number:02}", employees=5000)
        use(connection, f"b{number:02}", [DAY])
    active = ACTIVE.model_copy(update={"compare": ["peers", "benchmark"], "benchmark": {"big": 4}})
    profiles = {
        "segments": [{"name": "big", "when": "employees > 100"}, {"name": "small"}],
        "stages": [{"name": "any"}],
    }
    lib = library({"active": active}, profiles=profiles)
    found = states(connection, lib)
    ranks = [found[(f"a{number:02}", "active.peer_percentile")][0] for number in range(20)]
    assert ranks == pytest.approx([100 * number / 19 for number in range(20)], abs=0.01)
    assert found[("b00", "active.peer_percentile")] == (None, "absent", "fewer than 20 peers")
    assert found[("b00", "active.percent_of_benchmark")] == (25.0, "present", None)
    reason = "no benchmark for the segment"
    assert found[("a00", "active.percent_of_benchmark")] == (None, "absent", reason)
    # One that is not measured is no peer.
    connection.execute("DELETE FROM signals.account_keys WHERE account_id = 'a00'")
    found = states(connection, lib)
    assert found[("a01", "active.peer_percentile")][2] == "fewer than 20 peers"


PROFILES = {
    "segments": [
        {"name": "big", "when": "arr > 1000"},
        {"name": "middle", "when": "arr > 100 or employees >= 50"},
        {"name": "small"},
    ],
    "stages": [
        {"name": "renewal", "when": "renewal <= 90 and started_on < '2026-01-01'"},
        {"name": "started", "when": "active > 0"},
        {"name": "new"},
    ],
}


def profiles_of(connection, lib, on=DAY):
    metrics.compute(connection, lib, as_of(on))
    return {
        account: (segment, stage)
        for account, segment, stage in connection.execute(
            "SELECT account_id, segment, stage FROM metrics.accounts WHERE as_of = ?", [on]
        ).fetchall()
    }


def test_the_first_rule_that_holds_makes_the_profile_and_there_is_always_a_default(connection):
    feed(connection, "accounts", source="crm")
    feed(connection, "usage_daily")
    add_account(connection, "a", arr=5000, employees=60, renews_on=day(90))
    add_account(connection, "b", arr=1000, renews_on=day(91))
    add_account(connection, "c", employees=50, started_on=day(-5), renews_on=day(10))
    add_account(connection, "d")
    use(connection, "b", [DAY])
    renewal = metric(table="accounts", aggregate="days_until(renews_on)")
    lib = library({"renewal": renewal, "active": ACTIVE}, profiles=PROFILES)
    assert profiles_of(connection, lib) == {
        "a": ("big", "renewal"), "b": ("middle", "started"), "c": ("middle", "new"),
        "d": ("small", "new"),
    }  # fmt: skip


def test_a_broken_pipe_moves_no_account_into_another_profile(connection):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    use(connection, "a", days_before(DAY, 60))
    renewal = metric(table="accounts", aggregate="days_until(renews_on)")
    lib = library({"renewal": renewal, "active": ACTIVE}, profiles=PROFILES)
    assert profiles_of(connection, lib)["a"] == ("small", "started")
    assert profiles_of(connection, lib, day(60))["a"] == ("small", "started")
    assert measured(connection, day(60))[("a", "active")][1] == "stale"


def test_only_customers_of_the_day_are_measured(connection):
    add_account(connection, "customer")
    add_account(connection, "prospect", is_customer=False)
    add_account(connection, "merged", merged_into="customer")
    add_account(connection, "deleted", deleted=True)
    add_account(connection, "later", started_on=day(1))
    add_account(connection, "unknown-yet", known_at=noon(1))
    add_account(connection, "gone", superseded_at=noon(-3))
    assert set(profiles_of(connection, library({}))) == {"customer"}


def test_a_day_ends_where_the_company_is(connection):
    feed(connection, "tickets")
    add_account(connection, "a")
    evening = dt.datetime.combine(DAY, dt.time(23, 30))  # the next morning in Berlin
    add(connection, "tickets", account_id="a", ticket_id="1", opened_at=evening, day=day(1))
    solved = metric(table="tickets", aggregate="days_since(solved_at)")
    add(connection, "tickets", account_id="a", ticket_id="2", opened_at=noon(-9), solved_at=evening)
    lib = library({"t": TICKETS, "since": solved})
    assert states(connection, lib, time_zone="Europe/Berlin")[("a", "t")][0] == 1
    found = states(connection, lib, day(1), time_zone="Europe/Berlin")
    assert found[("a", "t")][0] == 2
    assert found[("a", "since")][0] == 0


def test_hostile_names_are_only_text(connection):
    feed(connection, "usage_daily")
    hostile = ["Robert'); DROP TABLE signals.accounts; --", 'say "hi"', "{{ 7 * 7 }} %s {value}",
               "\u202eright to left \U0001f600", "back\\slash\nnew line"]  # fmt: skip
    for name in hostile:
        add_account(connection, name, name=name, owner=name, industry=name)
        use(connection, name, [DAY], event=name)
    bodies = {
        "all": metric(table="usage_daily", aggregate="count"),
        "named": metric(
            table="usage_daily", aggregate="count", where={"event": {"in": hostile[:2]}},
            label=hostile[2],
        ),
        "not_named": metric(
            table="usage_daily", aggregate="count", where={"event": {"not_in": hostile}}
        ),
    }  # fmt: skip
    found = states(connection, library(bodies))
    assert [found[(name, "all")][0] for name in hostile] == [1] * 5
    assert [found[(name, "named")][0] for name in hostile] == [1, 1, 0, 0, 0]
    assert [found[(name, "not_named")][0] for name in hostile] == [0] * 5


def test_sums_of_fractions_do_not_depend_on_the_order_of_rows(connection):
    feed(connection, "usage_daily")
    add_account(connection, "a")
    numbers = [0.10837 * n for n in range(1, 500)]
    body = {
        "total": metric(table="usage_daily", aggregate="sum(value)"),
        "mean": metric(table="usage_daily", aggregate="mean(value)"),
    }
    results = set()
    for order in (numbers, numbers[::-1], numbers[250:] + numbers[:250]):
        connection.execute("DELETE FROM signals.usage_daily")
        connection.execute(
            "INSERT INTO signals.usage_daily BY NAME SELECT 'app' AS source, 'a' AS account_id, "
            "unnest($1::DOUBLE[]) AS value, $2::DATE AS day, $2::TIMESTAMP AS known_at",
            [order, DAY],
        )
        found = states(connection, library(body))
        results.add((found[("a", "total")][0], found[("a", "mean")][0]))
    assert len(results) == 1
    ((total, _),) = results
    assert total == pytest.approx(13519.1575, rel=1e-11)


def test_no_customer_at_all_says_what_to_do(connection):
    from contracts.errors import NotFoundError

    with pytest.raises(NotFoundError, match="no customer account was known on 2026-03-31; choose"):
        metrics.compute(connection, library({}), as_of())
