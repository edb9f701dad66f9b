"""The `signals` of a made-up company of any size, written with DuckDB's `range` and `hash`.

Every number is a hash of a row's number and the seed, so that the same size and seed give the same
rows on any machine and with any number of threads. Rows lie by day, as a build leaves them.
"""

import datetime as dt
from dataclasses import dataclass

import duckdb

from connectors.signal_tables import create_tables
from scoring.clocks import AsOf

LAST_DAY = dt.date(2026, 6, 30)
CHUNK_ROWS = 10_000_000
"""Candidates for a row that one statement looks at; bounds the memory of making the world."""

EVENTS = (("login", 1.8), ("report_opened", 1.4), ("report_published", 1.0),
          ("dashboard_shared", 0.6), ("export_scheduled", 0.2))  # fmt: skip
"""What accounts do, and how often in relation to the mean."""

FED_BY = {
    "crm": ("accounts", "contacts", "opportunities", "handoffs", "milestones", "goals",
            "sentiments", "commercial_events"),
    "product": ("usage_daily", "user_days"),
    "desk": ("tickets",),
    "billing": ("subscriptions", "invoices"),
    "surveys": ("survey_responses",),
    "finance": ("exchange_rates",),
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much there is of everything. `days` are those that the history covers."""

    accounts: int = 100_000
    usage_rows: int = 50_000_000
    tickets: int = 1_000_000
    invoices: int = 1_000_000
    days: int = 800
    seed: int = 7

    @classmethod
    def scaled(cls, accounts: int, usage_rows: int) -> "Size":
        """Ten tickets and ten invoices an account."""
        return cls(accounts, usage_rows, tickets=10 * accounts, invoices=10 * accounts)

    def __str__(self) -> str:
        return (
            f"{self.accounts:,} accounts, {self.usage_rows:,} rows of usage, "
            f"{self.tickets:,} tickets, {self.invoices:,} invoices over {self.days} days"
        )


def as_of(day: dt.date = LAST_DAY) -> AsOf:
    """The end of a day in UTC."""
    instant = dt.datetime.combine(day + dt.timedelta(days=1), dt.time())
    return AsOf(day, instant, "EUR", "UTC")


def month_ends(count: int) -> list[dt.date]:
    """The last `count` ends of months, newest first."""
    days = []
    first = LAST_DAY + dt.timedelta(days=1)
    for _ in range(count):
        days.append(first - dt.timedelta(days=1))
        first = (first - dt.timedelta(days=1)).replace(day=1)
    return days


def write_signals(connection: duckdb.DuckDBPyConnection, size: Size) -> None:
    """Fill the schema `signals` of an empty warehouse."""
    connection.execute("SET TimeZone = 'UTC'")
    create_tables(connection)
    _macros(connection, size)
    _accounts(connection, size)
    _usage(connection, size)
    for table, rows, columns in _facts(size):
        connection.execute(
            f"INSERT INTO signals.{table} BY NAME WITH made AS ("
            "SELECT i, "
            f"(u(i, 1) * u(i, 2) * {size.accounts})::BIGINT % {size.accounts} AS account, "
            f"moment(i * {size.days}.0 / {rows}) AS happened FROM range({rows}) AS r(i)) "
            f"SELECT '{source_of(table)}' AS source, account_id(account) AS account_id, "
            "account_id(account) AS account_key, happened::DATE AS day, "
            f"happened AS known_at, {columns} FROM made ORDER BY happened"
        )
    connection.execute("CHECKPOINT")


def source_of(table: str) -> str:
    """Which of the sources feeds a table."""
    return next(source for source, tables in FED_BY.items() if table in tables)


def _macros(connection: duckdb.DuckDBPyConnection, size: Size) -> None:
    first = LAST_DAY - dt.timedelta(days=size.days - 1)
    connection.execute(
        f"""
        CREATE TEMP MACRO u(i, salt) AS (hash(i, {size.seed}, salt) >> 11) / 9007199254740992.0;
        CREATE TEMP MACRO account_id(i) AS 'ACC-' || lpad(i::VARCHAR, 7, '0');
        CREATE TEMP MACRO moment(days) AS
            TIMESTAMP '{first}' + to_microseconds((days * 86400e6)::BIGINT);
        -- A few large, most small: between 1 and 1,000 times the smallest.
        CREATE TEMP MACRO pareto(i, salt) AS least(power(1 - u(i, salt), -0.8), 1000);
        CREATE TEMP MACRO pick(i, salt, options) AS
            options[1 + (u(i, salt) * len(options))::BIGINT % len(options)];
        """
    )


def _accounts(connection: duckdb.DuckDBPyConnection, size: Size) -> None:
    """Two of three are older than the history; every year each one renews, as a new version."""
    connection.execute(
        f"""
        CREATE TEMP TABLE customers AS
        SELECT i, account_id(i) AS account_id,
            CASE
                WHEN u(i, 10) < 0.67 THEN moment(-900 * u(i, 11))
                ELSE moment({size.days} * u(i, 11))
            END::DATE AS started_on,
            CASE WHEN u(i, 12) < 0.03 THEN account_id(i // 50) END AS parent_id,
            round(3000 * pareto(i, 13), 2) AS arr, (15 * pareto(i, 14))::BIGINT AS employees,
            CASE WHEN u(i, 15) < 0.2 THEN 'USD' ELSE 'EUR' END AS currency,
            3 * u(i, 16) * u(i, 16) AS activity
        FROM range({size.accounts}) AS r(i);

        INSERT INTO signals.accounts BY NAME
        SELECT
            'crm' AS source, account_id, started_on AS day, 'Customer ' || i AS name, parent_id,
            'csm ' || i % 500 AS owner, arr, currency, employees,
            pick(i, 17, ['software', 'retail', 'health', 'finance']) AS industry,
            pick(i, 18, ['EMEA', 'AMER', 'APAC']) AS region, started_on,
            started_on + to_years(1 + year::INTEGER) AS renews_on, true AS is_customer,
            started_on + to_years(year::INTEGER) AS known_at,
            CASE WHEN started_on + to_years(1 + year::INTEGER) <= DATE '{LAST_DAY}'
                THEN started_on + to_years(1 + year::INTEGER) END AS superseded_at
        FROM customers, range(10) AS y(year)
        WHERE started_on + to_years(year::INTEGER) <= DATE '{LAST_DAY}'
        ORDER BY known_at;

        INSERT INTO signals.exchange_rates BY NAME
        SELECT 'finance' AS source, 'USD' AS currency, moment(i)::DATE AS day,
            0.9 + 0.05 * sin(i / 40.0) AS rate, moment(i + 1) AS known_at
        FROM range({size.days}) AS r(i);
        """
    )
    for source, tables in FED_BY.items():
        if source != "finance":
            connection.execute(
                f"INSERT INTO signals.account_keys BY NAME SELECT '{source}' AS source, "
                "account_id AS account_key, account_id, 'explicit' AS method, 1.0 AS confidence "
                "FROM customers"
            )
        for table in tables:
            connection.execute(
                "INSERT INTO signals.feeds VALUES (?, ?, ?, ?)", [table, source, source, table]
            )


def _usage(connection: duckdb.DuckDBPyConnection, size: Size) -> None:
    """Each account does each thing on some of its days, the active ones on most of them."""
    events = len(EVENTS)
    candidates = size.days * size.accounts * events
    density = size.usage_rows / candidates
    names = [name for name, _ in EVENTS]
    popularity = [often for _, often in EVENTS]
    for start in range(0, candidates, CHUNK_ROWS):
        connection.execute(
            f"""
            INSERT INTO signals.usage_daily BY NAME
            WITH made AS (
                SELECT i, i // {size.accounts * events} AS day_number,
                    i // {events} % {size.accounts} AS account, i % {events} + 1 AS event_number
                FROM range({start}, {min(start + CHUNK_ROWS, candidates)}) AS r(i)
            )
            SELECT 'product' AS source, c.account_id, c.account_id AS account_key,
                moment(m.day_number)::DATE AS day, {names}[m.event_number] AS event,
                1 + (u(m.i, 21) * u(m.i, 21) * 40)::BIGINT AS count,
                round(100 * u(m.i, 22), 1) AS value, 1 + (u(m.i, 23) * 8)::BIGINT AS users,
                moment(m.day_number + 1) AS known_at
            FROM made AS m JOIN customers AS c ON c.i = m.account
            WHERE u(m.i, 20) < {density} * c.activity * {popularity}[m.event_number]
            """
        )
    per_day = max(size.usage_rows // 10 // size.days, 1)
    connection.execute(
        f"""
        INSERT INTO signals.user_days BY NAME
        SELECT DISTINCT 'product' AS source, account_id(account) AS account_id,
            account_id(account) AS account_key, moment(i // {per_day})::DATE AS day,
            account || '-' || (u(i, 31) * 12)::BIGINT AS user_key,
            moment(1 + i // {per_day}) AS known_at
        FROM (
            SELECT i, (u(i, 1) * u(i, 2) * {size.accounts})::BIGINT % {size.accounts} AS account
            FROM range({per_day * size.days}) AS r(i)
        )
        ORDER BY day
        """
    )


def _facts(size: Size) -> list[tuple[str, int, str]]:
    """Tables with one row a fact: name, rows, and its columns over `i`, `account`, `happened`."""
    few = size.accounts
    return [
        ("tickets", size.tickets, """
            'T' || i AS ticket_id, happened AS opened_at,
            happened + to_minutes((u(i, 41) * 900)::BIGINT) AS first_reply_at,
            CASE WHEN u(i, 42) < 0.97 THEN happened + to_hours((u(i, 43) * u(i, 44) * 600)::BIGINT)
            END AS solved_at,
            'as the desk says' AS status,
            pick(i, 45, ['p1', 'p2', 'p3', 'p3', 'p4', 'p4']) AS priority,
            u(i, 46) < 0.04 AS escalated, (u(i, 47) * 1.1)::BIGINT AS reopened,
            CASE WHEN u(i, 48) < 0.3 THEN round(100 * sqrt(u(i, 49))) END AS csat"""),
        ("invoices", size.invoices, """
            'I' || i AS invoice_id, happened AS issued_at, happened + INTERVAL 30 DAY AS due_at,
            CASE WHEN u(i, 51) < 0.97 THEN happened + to_hours((u(i, 52) * 900)::BIGINT)
            END AS paid_at,
            round(200 * pareto(i, 53), 2) AS amount_due,
            round(200 * pareto(i, 53), 2) AS amount_paid,
            CASE WHEN u(i, 54) < 0.2 THEN 'USD' ELSE 'EUR' END AS currency, 'open' AS status,
            1 + (u(i, 55) * u(i, 55) * 3)::BIGINT AS attempts"""),
        ("subscriptions", few, """
            'S' || i AS subscription_id, pick(i, 61, ['basic', 'team', 'business']) AS plan,
            round(250 * pareto(i, 62), 2) AS mrr, 'EUR' AS currency,
            (5 * pareto(i, 63))::BIGINT AS seats,
            happened AS started_at,
            CASE WHEN u(i, 64) < 0.1 THEN happened + to_days((u(i, 65) * 400)::INTEGER)
            END AS cancelled_at,
            happened + to_days(430) AS ends_at"""),
        ("survey_responses", 2 * few, """
            'R' || i AS response_id, 'nps' AS kind, floor(11 * sqrt(u(i, 71))) AS score,
            10 AS scale,
            pick(i, 72, ['user', 'user', 'champion', 'decision_maker']) AS respondent_role,
            happened AS responded_at"""),
        ("commercial_events", few // 2, """
            'E' || i AS event_id, 1 + (u(i, 82) * 4)::BIGINT AS severity, happened AS occurred_at,
            pick(i, 81, ['champion_left', 'sponsor_changed', 'merger', 'layoffs', 'funding',
                'competitor', 'notice', 'poc_lost']) AS kind"""),
        ("contacts", 3 * few, """
            'C' || i AS contact_id, happened AS joined_at,
            pick(i, 91, ['champion', 'sponsor', 'decision_maker', 'admin', 'user', 'user']) AS role,
            CASE WHEN u(i, 92) < 0.2 THEN happened + to_days((u(i, 93) * 700)::INTEGER)
            END AS left_at"""),
        ("opportunities", few, """
            'O' || i AS opportunity_id, pick(i, 101, ['new', 'renewal', 'expansion']) AS kind,
            round(2000 * pareto(i, 102), 2) AS amount, 'EUR' AS currency, happened AS created_at,
            CASE WHEN u(i, 103) < 0.8 THEN happened + to_days((u(i, 104) * 120)::INTEGER)
            END AS closed_at,
            u(i, 105) < 0.5 AS won"""),
        ("handoffs", few, """
            'O' || i AS opportunity_id, pick(i, 101, ['new', 'renewal', 'expansion']) AS kind,
            CASE WHEN u(i, 106) < 0.7 THEN 'outcome ' || i % 4 END AS promised_outcome,
            CASE WHEN u(i, 107) < 0.5 THEN 'criteria ' || i % 9 END AS success_criteria,
            CASE WHEN u(i, 108) < 0.6 THEN 'C' || i END AS champion,
            (u(i, 109) * 5)::BIGINT AS stakeholders_met,
            1 + floor(5 * sqrt(u(i, 110))) AS sentiment,
            happened AS created_at,
            CASE WHEN u(i, 103) < 0.8 THEN happened + to_days((u(i, 104) * 120)::INTEGER)
            END AS won_at"""),
        ("milestones", 4 * few, """
            'M' || i AS milestone_id, 'step ' || i % 4 AS name, happened AS planned_at,
            (happened + to_days((u(i, 111) * 90)::INTEGER))::DATE AS due_on,
            CASE WHEN u(i, 112) < 0.8 THEN (happened + to_days((u(i, 113) * 120)::INTEGER))::DATE
            END AS reached_on"""),
        ("goals", 2 * few, """
            'G' || i AS goal_id, 'goal ' || i % 2 AS name, 100 AS target,
            round(120 * u(i, 121)) AS progress, happened AS measured_at"""),
        ("sentiments", 2 * few, """
            'N' || i AS sentiment_id, 1 + floor(5 * sqrt(u(i, 131))) AS score,
            'csm ' || i % 500 AS author, happened AS given_at,
            (happened + INTERVAL 90 DAY)::DATE AS expires_on"""),
    ]  # fmt: skip
