"""What a CRM should show, and the plan that compares it with what the CRM acknowledged."""

import datetime as dt

import pytest

from connectors.plan import STATES, make_plan, read_plan
from contracts.errors import HeldError
from scoring import desired, metrics, scores
from tests.signals import (
    DAY,
    add_account,
    as_of,
    connect,
    days_before,
    feed,
    library,
    metric,
    scorecard,
    use,
)

ACTIVE = metric(
    table="usage_daily", aggregate="count_distinct(day)", window="28d", stale_after="3d",
    label="Active days",
)  # fmt: skip
COMPONENTS = [{"metric": "active", "weight": 100, "points": {0: 100, 28: 0}}]
LIBRARY = library({"active": ACTIVE}, scorecard(components=COMPONENTS))
FIELDS = ("score", "band", "reasons", "coverage", "as_of", "scorecard")
HOSTILE = "o'hara\"; DROP SCHEMA plan; -- \u202e\U0001f600\\"


@pytest.fixture
def connection():
    connection = connect()
    feed(connection, "usage_daily")
    for number, account in enumerate(("a", "b", HOSTILE)):
        add_account(connection, account, crm="hubspot", crm_id=str(number), name=account)
    add_account(connection, "no-record", linked_to=())
    use(connection, "a", days_before(DAY, 9))
    use(connection, "b", days_before(DAY, 28))
    use(connection, HOSTILE, days_before(DAY, 1))
    yield connection
    connection.close()


def plan(connection, day=DAY, lib=LIBRARY):
    metrics.compute(connection, lib, as_of(day))
    scores.compute(connection, lib, as_of(day))
    desired.compute(connection, lib, day)
    found = make_plan(connection, day)
    assert tuple(found.by_state) == STATES
    assert sum(found.by_state.values()) == found.desired
    assert read_plan(connection, day) == found
    return found


def acknowledge(connection, day=DAY):
    """The CRM takes everything that the plan would write."""
    connection.execute(
        "INSERT OR REPLACE INTO plan.confirmed SELECT crm, crm_id, field, new, ?::TIMESTAMP "
        "FROM plan.field_changes WHERE as_of = ? AND state = 'write'",
        [day, day],
    )


def changes(connection, account, day=DAY):
    rows = connection.execute(
        "SELECT field, old, new, why, state FROM plan.field_changes "
        "WHERE as_of = ? AND account_id = ?",
        [day, account],
    ).fetchall()
    return {field: tuple(rest) for field, *rest in rows}


def test_everything_is_written_first_with_old_new_and_why(connection):
    found = plan(connection)
    assert found.by_state == {"write": 18, "unchanged": 0, "held": 0, "unlinked": 6}
    assert found.accounts_written == 3
    why = "Active days: 9"
    assert changes(connection, "a") == {
        "risk_score": (None, "68", why, "write"),
        "risk_band": (None, "yellow", why, "write"),
        "risk_reasons": (None, why, why, "write"),
        "risk_coverage": (None, "100", why, "write"),
        "risk_as_of": (None, "2026-03-31", why, "write"),
        "risk_scorecard": (None, "risk-default v1", why, "write"),
    }
    assert changes(connection, "b")["risk_reasons"] == (None, "", None, "write")
    assert changes(connection, HOSTILE)["risk_band"][1] == "red"


def test_an_acknowledged_value_is_not_written_again(connection):
    plan(connection)
    acknowledge(connection)
    again = plan(connection)
    assert again.by_state == {"write": 0, "unchanged": 18, "held": 0, "unlinked": 6}
    assert again.accounts_written == 0
    # The same day once more, with more use: only what people would see changed is written.
    use(connection, "a", [DAY - dt.timedelta(days=20)])
    more = plan(connection)
    assert more.by_state["write"] == 2
    assert changes(connection, "a")["risk_score"] == ("68", "64", "Active days: 10", "write")


def test_what_a_broken_pipe_made_unknown_is_held(connection):
    plan(connection)
    acknowledge(connection)
    later = DAY + dt.timedelta(days=6)
    found = plan(connection, later)
    assert found.by_state == {"write": 0, "unchanged": 0, "held": 18, "unlinked": 6}
    assert changes(connection, "a", later)["risk_band"][:2] == ("yellow", "unknown")
    assert changes(connection, "a", later)["risk_band"][3] == "held"
    assert read_plan(connection, DAY).by_state["write"] == 18


def test_what_nobody_measures_is_written_as_unknown(connection):
    connection.execute("DELETE FROM signals.account_keys WHERE account_id = 'a'")
    plan(connection)
    found = changes(connection, "a")
    assert found["risk_band"][1] == "unknown"
    assert found["risk_band"][3] == "write"
    assert found["risk_score"][1] is None
    assert found["risk_reasons"][1] == "Unknown: nothing is known"


def test_a_plan_that_does_not_add_up_is_held_and_not_stored(connection):
    plan(connection)
    before = connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall()
    # Two acknowledgements of one field, as a damaged ledger could have them.
    connection.execute(
        "CREATE TABLE copy AS FROM plan.confirmed; DROP TABLE plan.confirmed; "
        "CREATE TABLE plan.confirmed AS FROM copy"
    )
    for _ in range(2):
        connection.execute(
            "INSERT INTO plan.confirmed VALUES ('hubspot', '0', 'risk_band', 'red', ?)", [DAY]
        )
    with pytest.raises(HeldError, match="does not add up: 24 values are desired, 25 are planned"):
        make_plan(connection, DAY)
    assert connection.execute("FROM plan.field_changes ORDER BY ALL").fetchall() == before


def test_two_accounts_with_one_record_do_not_overwrite_each_other_for_ever(connection):
    connection.execute("UPDATE signals.accounts SET crm_id = '0' WHERE account_id = 'b'")
    first = plan(connection)
    assert first.by_state == {"write": 12, "unchanged": 0, "held": 0, "unlinked": 12}
    acknowledge(connection)
    assert plan(connection).by_state["write"] == 0
    assert {state for *_, state in changes(connection, "b").values()} == {"unlinked"}


def test_a_day_without_desired_values_is_an_empty_plan(connection):
    plan(connection)
    found = make_plan(connection, DAY + dt.timedelta(days=1))
    assert (found.desired, sum(found.by_state.values()), found.accounts_written) == (0, 0, 0)


def test_noise_below_what_people_see_is_no_change(connection):
    """68.0 and 67.9 are both shown as 68."""
    plan(connection)
    acknowledge(connection)
    components = [{"metric": "active", "weight": 100, "points": {0: 100, 28: 0.2}}]
    shifted = library({"active": ACTIVE}, scorecard(components=components))
    assert plan(connection, lib=shifted).by_state["write"] == 0


def test_the_hold_of_an_account_listed_by_two_sources_is_one_record(connection):
    add_account(connection, "a", crm="salesforce", crm_id="x", source="other",
                known_at=dt.datetime(2020, 1, 1))  # fmt: skip
    found = plan(connection)
    assert found.desired == 24
    (crm,) = connection.execute(
        "SELECT DISTINCT crm FROM plan.field_changes WHERE account_id = 'a'"
    ).fetchone()
    assert crm == "hubspot"
