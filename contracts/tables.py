"""The canonical tables of the schema `signals`: what every source is mapped to.

A mapping (`sources/<name>/<table>.sql`) returns a table's columns by name, in any order, and may
leave out those that are not required. The build adds the columns of `BOOKKEEPING`.

Times are UTC timestamps, days are dates in the company's time zone, money is `DECIMAL(18,2)`
with an ISO 4217 currency beside it.

Point in time. A row counts as of an instant T when ``known_at <= T < superseded_at``. A column
marked `event_time` is read as null while it lies after T (a ticket solved tomorrow is open today),
and a column with `known_with` is read as null until that other column's time has come (a CSAT is
known when the ticket is solved). So even an export that holds only final states can be replayed.
"""

from dataclasses import dataclass, field

MONEY = "DECIMAL(18,2)"


@dataclass(frozen=True)
class Column:
    """One column of a canonical table and the contract that its values keep."""

    name: str
    type: str
    description: str
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    values: tuple[str, ...] = ()
    is_currency: bool = False
    event_time: bool = False
    known_with: str | None = None


@dataclass(frozen=True)
class Table:
    """One canonical table: its grain, the column that dates a row, and its columns.

    `key` identifies a fact within a source; two rows with one key are two versions of one fact.
    `time` is the column that says when the fact happened. Rows `by_hand` are what people type into
    the CRM: a mistake of theirs sets a row aside, and never holds a run.
    """

    name: str
    description: str
    key: tuple[str, ...]
    time: str
    columns: tuple[Column, ...]
    by_hand: bool = False
    by_name: dict[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.by_name.update({column.name: column for column in self.columns})

    @property
    def column_names(self) -> tuple[str, ...]:
        """The mapped columns, without bookkeeping."""
        return tuple(column.name for column in self.columns)


BOOKKEEPING = (
    Column("source", "VARCHAR", "The source that said so", required=True),
    Column("account_id", "VARCHAR", "The account it was linked to; null while it is not linked"),
    Column("day", "DATE", "The day of the fact, in the company's time zone", required=True),
    Column("known_at", "TIMESTAMP", "From when on we could have known it", required=True),
    Column("superseded_at", "TIMESTAMP", "When a newer version of the fact was known"),
)

# Every table but `accounts` names its customer by the source's own key.
_ACCOUNT_KEY = Column("account_key", "VARCHAR", "The source's key of the customer", required=True)
_CURRENCY = Column("currency", "VARCHAR", "ISO 4217 code", is_currency=True)
_DELETED = Column("deleted", "BOOLEAN", "True when the source says that the row is gone")
_KNOWN_AT = Column(
    "known_at", "TIMESTAMP", "When this version could have been known, where the source says so"
)

ACCOUNTS = Table(
    "accounts",
    "Customers as the CRM (or the file that stands for it) has them, every version kept",
    key=("account_id",),
    time="started_on",
    columns=(
        Column("account_id", "VARCHAR", "The company's own id of the account", required=True),
        Column("crm", "VARCHAR", "salesforce or hubspot", values=("salesforce", "hubspot")),
        Column("crm_id", "VARCHAR", "The record's id in the CRM"),
        Column("name", "VARCHAR", "The name that people use"),
        Column("domain", "VARCHAR", "The company's web domain"),
        Column("parent_id", "VARCHAR", "The account_id of the parent account"),
        Column("owner", "VARCHAR", "The CSM"),
        Column("sales_owner", "VARCHAR", "The sales rep"),
        Column("arr", MONEY, "Yearly recurring revenue", minimum=0),
        _CURRENCY,
        Column("employees", "BIGINT", "Head count", minimum=0),
        Column("industry", "VARCHAR", "Industry"),
        Column("region", "VARCHAR", "Region"),
        Column("plan", "VARCHAR", "Plan or edition"),
        Column("started_on", "DATE", "First day as a customer", required=True),
        Column("renews_on", "DATE", "Next renewal"),
        Column("desired_outcome", "VARCHAR", "What the customer bought it for"),
        Column("is_customer", "BOOLEAN", "False for a prospect or a former customer"),
        Column("merged_into", "VARCHAR", "The account_id that lives on after a merge"),
        _DELETED,
        _KNOWN_AT,
    ),
)

ACCOUNT_KEYS = Table(
    "account_keys",
    "Evidence of which source key belongs to which account; identity.py draws the conclusion",
    key=("account_key",),
    time="known_at",
    columns=(
        _ACCOUNT_KEY,
        Column("account_id", "VARCHAR", "The account, where the source knows it"),
        Column("domain", "VARCHAR", "The customer's web domain in that source"),
        Column("email", "VARCHAR", "An e-mail address; only its domain is kept"),
        _KNOWN_AT,
    ),
)

USAGE_DAILY = Table(
    "usage_daily",
    "How often an account did what on a day",
    key=("account_key", "day", "event"),
    time="day",
    columns=(
        _ACCOUNT_KEY,
        Column("day", "DATE", "The day", required=True),
        Column("event", "VARCHAR", "What was done", required=True),
        Column("count", "BIGINT", "How often", minimum=0),
        Column("value", "DOUBLE", "A quantity that goes with it (gigabytes, messages, ...)"),
        Column("users", "BIGINT", "Distinct users who did it", minimum=0),
        _DELETED,
        _KNOWN_AT,
    ),
)

USER_DAYS = Table(
    "user_days",
    "Which users of an account were active on a day, for distinct users over any window",
    key=("account_key", "user_key", "day"),
    time="day",
    columns=(
        _ACCOUNT_KEY,
        Column("user_key", "VARCHAR", "The source's key of the user, never a name", required=True),
        Column("day", "DATE", "The day", required=True),
        _DELETED,
        _KNOWN_AT,
    ),
)

TICKETS = Table(
    "tickets",
    "Support tickets, every version kept",
    key=("ticket_id",),
    time="opened_at",
    columns=(
        _ACCOUNT_KEY,
        Column("ticket_id", "VARCHAR", "The help desk's id", required=True),
        Column("opened_at", "TIMESTAMP", "Opened", required=True),
        Column("first_reply_at", "TIMESTAMP", "First reply", event_time=True),
        Column("solved_at", "TIMESTAMP", "Solved", event_time=True),
        Column("status", "VARCHAR", "As the source says; prefer solved_at in metrics"),
        Column(
            "priority", "VARCHAR", "p1 is the most urgent", values=("p1", "p2", "p3", "p4")
        ),
        Column("escalated", "BOOLEAN", "Escalated to engineering or management"),
        Column(
            "reopened", "BIGINT", "How often it was reopened", minimum=0, known_with="solved_at"
        ),
        Column(
            "csat", "DOUBLE", "Satisfaction, 0 to 100", minimum=0, maximum=100,
            known_with="solved_at",
        ),
        _DELETED,
        _KNOWN_AT,
    ),
)  # fmt: skip

SUBSCRIPTIONS = Table(
    "subscriptions",
    "Subscriptions, every version kept",
    key=("subscription_id",),
    time="started_at",
    columns=(
        _ACCOUNT_KEY,
        Column("subscription_id", "VARCHAR", "The billing system's id", required=True),
        Column("plan", "VARCHAR", "Plan"),
        Column("mrr", MONEY, "Monthly recurring revenue", minimum=0),
        _CURRENCY,
        Column("seats", "BIGINT", "Seats paid for", minimum=0),
        Column("started_at", "TIMESTAMP", "Started", required=True),
        Column("cancelled_at", "TIMESTAMP", "The day the notice came", event_time=True),
        Column("ends_at", "TIMESTAMP", "The last day paid for", known_with="cancelled_at"),
        Column("renews_on", "DATE", "Next renewal"),
        Column("status", "VARCHAR", "As the source says; prefer cancelled_at in metrics"),
        _DELETED,
        _KNOWN_AT,
    ),
)

INVOICES = Table(
    "invoices",
    "Invoices, every version kept",
    key=("invoice_id",),
    time="issued_at",
    columns=(
        _ACCOUNT_KEY,
        Column("invoice_id", "VARCHAR", "The billing system's id", required=True),
        Column("issued_at", "TIMESTAMP", "Issued", required=True),
        Column("due_at", "TIMESTAMP", "Due"),
        Column("paid_at", "TIMESTAMP", "Paid in full", event_time=True),
        Column("amount_due", MONEY, "Amount; negative on a credit note"),
        Column("amount_paid", MONEY, "Paid so far", known_with="paid_at"),
        _CURRENCY,
        Column("status", "VARCHAR", "As the source says; prefer paid_at in metrics"),
        Column("attempts", "BIGINT", "Attempts to collect so far", minimum=0),
        _DELETED,
        _KNOWN_AT,
    ),
)

SURVEY_RESPONSES = Table(
    "survey_responses",
    "Answers to surveys",
    key=("response_id",),
    time="responded_at",
    columns=(
        _ACCOUNT_KEY,
        Column("response_id", "VARCHAR", "The survey tool's id", required=True),
        Column("kind", "VARCHAR", "Kind", required=True, values=("nps", "csat", "ces", "custom")),
        Column("score", "DOUBLE", "The answer", required=True),
        Column("scale", "DOUBLE", "The highest answer possible", minimum=1),
        Column("respondent_role", "VARCHAR", "user, champion, decision_maker, ..."),
        Column("responded_at", "TIMESTAMP", "Answered", required=True),
        Column("comment", "VARCHAR", "Free text"),
        _DELETED,
        _KNOWN_AT,
    ),
)

COMMERCIAL_EVENTS = Table(
    "commercial_events",
    "Dated events that put revenue at risk, or promise more of it",
    key=("event_id",),
    time="occurred_at",
    columns=(
        _ACCOUNT_KEY,
        Column("event_id", "VARCHAR", "The source's id", required=True),
        Column(
            "kind", "VARCHAR",
            "champion_left, sponsor_changed, merger, acquisition, layoffs, funding, competitor, "
            "notice, poc_lost, ...",
            required=True,
        ),
        Column("severity", "BIGINT", "1 (note it) to 5 (act today)", minimum=1, maximum=5),
        Column("occurred_at", "TIMESTAMP", "When it happened", required=True),
        _DELETED,
        _KNOWN_AT,
    ),
)  # fmt: skip

CONTACTS = Table(
    "contacts",
    "People at the customer by their role; names and addresses stay in the CRM",
    key=("contact_id",),
    time="joined_at",
    columns=(
        _ACCOUNT_KEY,
        Column("contact_id", "VARCHAR", "The CRM's id", required=True),
        Column("role", "VARCHAR", "champion, sponsor, decision_maker, admin, user"),
        Column("joined_at", "TIMESTAMP", "Known since", required=True),
        Column("left_at", "TIMESTAMP", "Left the company or the role", event_time=True),
        _DELETED,
        _KNOWN_AT,
    ),
)

OPPORTUNITIES = Table(
    "opportunities",
    "Renewal, expansion and new business in the CRM, every version kept",
    key=("opportunity_id",),
    time="created_at",
    columns=(
        _ACCOUNT_KEY,
        Column("opportunity_id", "VARCHAR", "The CRM's id", required=True),
        Column("kind", "VARCHAR", "Kind", values=("new", "renewal", "expansion")),
        Column("stage", "VARCHAR", "Sales stage, as the CRM says"),
        Column("amount", MONEY, "Amount"),
        _CURRENCY,
        Column("created_at", "TIMESTAMP", "Created", required=True),
        Column("closes_on", "DATE", "Expected close"),
        Column("closed_at", "TIMESTAMP", "Closed", event_time=True),
        Column("won", "BOOLEAN", "Won or lost", known_with="closed_at"),
        _DELETED,
        _KNOWN_AT,
    ),
)

HANDOFFS = Table(
    "handoffs",
    "What sales hands over with a deal, every version kept. Contacts stand here by their id",
    key=("opportunity_id",),
    time="created_at",
    by_hand=True,
    columns=(
        _ACCOUNT_KEY,
        Column("opportunity_id", "VARCHAR", "The CRM's id", required=True),
        Column("kind", "VARCHAR", "Kind", values=("new", "renewal", "expansion")),
        Column("promised_outcome", "VARCHAR", "What sales promised them to reach"),
        Column("success_criteria", "VARCHAR", "How the customer will tell that it was reached"),
        Column("champion", "VARCHAR", "The contact who wants this to succeed"),
        Column("decision_maker", "VARCHAR", "The contact who decides"),
        Column("stakeholders_met", "BIGINT", "How many people sales has met", minimum=0),
        Column(
            "sentiment", "DOUBLE", "Before the sale, 1 (bad) to 5 (good)", minimum=1, maximum=5
        ),
        Column("kickoff_on", "DATE", "The day of the kickoff"),
        Column("created_at", "TIMESTAMP", "When the deal was created", required=True),
        Column("won_at", "TIMESTAMP", "When the deal was won", event_time=True),
        _DELETED,
        _KNOWN_AT,
    ),
)  # fmt: skip

MILESTONES = Table(
    "milestones",
    "Steps of the planned journey: due and reached",
    key=("milestone_id",),
    time="planned_at",
    columns=(
        _ACCOUNT_KEY,
        Column("milestone_id", "VARCHAR", "The source's id", required=True),
        Column("name", "VARCHAR", "Which step", required=True),
        Column("planned_at", "TIMESTAMP", "When it was planned", required=True),
        Column("due_on", "DATE", "Due"),
        Column("reached_on", "DATE", "Reached", event_time=True),
        _DELETED,
        _KNOWN_AT,
    ),
)

GOALS = Table(
    "goals",
    "What the customer wants to reach, and how far it is; every measurement kept",
    key=("goal_id",),
    time="measured_at",
    columns=(
        _ACCOUNT_KEY,
        Column("goal_id", "VARCHAR", "The source's id", required=True),
        Column("name", "VARCHAR", "Which goal", required=True),
        Column("target", "DOUBLE", "Target"),
        Column("progress", "DOUBLE", "Reached so far, in the target's unit"),
        Column("due_on", "DATE", "Due"),
        Column("measured_at", "TIMESTAMP", "When it was measured", required=True),
        _DELETED,
        _KNOWN_AT,
    ),
)

SENTIMENTS = Table(
    "sentiments",
    "The CSM's own assessment, with its author",
    key=("sentiment_id",),
    time="given_at",
    columns=(
        _ACCOUNT_KEY,
        Column("sentiment_id", "VARCHAR", "The source's id", required=True),
        Column("score", "DOUBLE", "1 (bad) to 5 (good)", required=True, minimum=1, maximum=5),
        Column("author", "VARCHAR", "Who says so"),
        Column("note", "VARCHAR", "Why"),
        Column("given_at", "TIMESTAMP", "When", required=True),
        Column("expires_on", "DATE", "Valid until"),
        _DELETED,
        _KNOWN_AT,
    ),
)

OVERRIDES = Table(
    "overrides",
    "Scores that people set by hand in the CRM. Applied to scores, no metric's input",
    key=("override_id",),
    time="given_at",
    by_hand=True,
    columns=(
        _ACCOUNT_KEY,
        Column("override_id", "VARCHAR", "The CRM's id of the account's record", required=True),
        Column("score", "VARCHAR", "Which score is set", required=True, values=("risk",)),
        Column("value", "DOUBLE", "The score that counts instead", required=True, minimum=0,
               maximum=100),
        Column("reason", "VARCHAR", "Why"),
        Column("author", "VARCHAR", "Who answers for it"),
        Column("given_at", "TIMESTAMP", "When", required=True),
        Column("expires_on", "DATE", "The last day on which it counts"),
        _DELETED,
        _KNOWN_AT,
    ),
)  # fmt: skip

OUTCOMES = Table(
    "outcomes",
    "What really happened: renewed, churned, contracted, expanded. Evidence, no metric's input",
    key=("account_key", "kind", "at"),
    time="at",
    columns=(
        _ACCOUNT_KEY,
        Column(
            "kind", "VARCHAR", "Kind", required=True,
            values=("renewed", "churned", "contracted", "expanded"),
        ),
        Column("at", "TIMESTAMP", "When", required=True),
        Column("mrr_delta", MONEY, "Change of monthly recurring revenue"),
        _CURRENCY,
        _DELETED,
        _KNOWN_AT,
    ),
)  # fmt: skip

EXCHANGE_RATES = Table(
    "exchange_rates",
    "What one unit of a currency was worth in the company's currency on a day",
    key=("currency", "day"),
    time="day",
    columns=(
        Column("currency", "VARCHAR", "ISO 4217 code", required=True, is_currency=True),
        Column("day", "DATE", "The day", required=True),
        Column("rate", "DOUBLE", "Company currency for one unit", required=True, minimum=0),
        _KNOWN_AT,
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        ACCOUNTS, ACCOUNT_KEYS, USAGE_DAILY, USER_DAYS, TICKETS, SUBSCRIPTIONS, INVOICES,
        SURVEY_RESPONSES, COMMERCIAL_EVENTS, CONTACTS, OPPORTUNITIES, HANDOFFS,
        MILESTONES, GOALS, SENTIMENTS, OVERRIDES, OUTCOMES, EXCHANGE_RATES,
    )
}  # fmt: skip

METRIC_TABLES: tuple[str, ...] = tuple(
    name
    for name in TABLES
    if name not in ("account_keys", "overrides", "outcomes", "exchange_rates")
)
"""Tables that a metric may read. Outcomes stay out: a score must not read what it predicts."""
