"""A company folder (`HEALTHLOOP_HOME`): where things lie in it, and what `company.yaml` says."""

import datetime as dt
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from contracts.documents import Document, nearest, read_document, validate
from contracts.errors import ConfigurationError, NotFoundError, Problem
from contracts.secrets import FromEnvironment
from contracts.tables import TABLES

Share = Annotated[float, Field(ge=0, le=1)]


def _known_time_zone(name: str) -> str:
    if name not in available_timezones():
        near = nearest(name, available_timezones(), "write one like Europe/Berlin")
        raise ValueError(f"unknown time zone '{name}'; {near}")
    return name


def _source_and_table(name: str) -> str:
    _, dot, table = name.partition(".")
    if not dot or table not in TABLES:
        raise ValueError(f"'{name}' is no <source>.<table>; {nearest(table or name, TABLES)}")
    return name


class Strict(BaseModel):
    """A part of a document: unknown settings are mistakes, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(Strict):
    """How much may be wrong before a blocking check stops the run.

    `quarantine_shares` has exceptions for one table of one source, such as
    ``{sales.opportunities: 0.5}``.
    """

    quarantine_share: Share = 0.05
    quarantine_shares: dict[Annotated[str, AfterValidator(_source_and_table)], Share] = Field(
        default_factory=dict
    )
    identity_coverage: Share = 0.8
    band_change_share: Share = 0.10

    def quarantine_share_of(self, source: str, table: str) -> float:
        """How much of a source's rows for a table may break the contract."""
        return self.quarantine_shares.get(f"{source}.{table}", self.quarantine_share)


class Schedules(Strict):
    """When Dagster runs by itself. Off unless `enabled`."""

    enabled: bool = False
    daily_at: str = Field(default="06:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    hourly: bool = True


class Identity(Strict):
    """How source keys find their account, beside explicit keys."""

    manual: str | None = None
    by_domain: bool = True
    by_email_domain: bool = True


def _mail_address(text: str) -> str:
    if not _MAIL_ADDRESS.fullmatch(text):
        raise ValueError("is no e-mail address; write one like data@example.com")
    return text


def _web_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s<>|]+", text):
        raise ValueError("is no web address; write one like https://dagster.example.com")
    return text


def _never_in_clear(given: object) -> object:
    if isinstance(given, str):
        raise ValueError("is a secret, and stands in no file; write {env: SLACK_WEBHOOK_URL}")
    return given


_MAIL_ADDRESS = re.compile(r"[^\s@<>,;:\"()]+@[^\s@<>,;:\"()]+")
MailAddress = Annotated[str, AfterValidator(_mail_address)]


class EmailAlerts(Strict):
    """The mail server that takes alerts. Its certificate is verified; `none` is for loopback."""

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: FromEnvironment | None = None
    password: FromEnvironment | None = None
    sender: MailAddress = Field(alias="from")
    to: tuple[MailAddress, ...]

    @model_validator(mode="after")
    def _can_be_sent(self) -> Self:
        if not self.to:
            raise ValueError("`to` is empty; name at least one address")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together; give both or neither")
        if self.security == "none" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("mail would travel in clear; write security: starttls or tls")
        return self


class Alerts(Strict):
    """Who is told that a source or a run is not well. Nobody, unless a channel is given.

    `slack` names the variable with the address of an incoming webhook; `ui` is where people reach
    Dagster, for links.
    """

    slack: Annotated[FromEnvironment | None, BeforeValidator(_never_in_clear)] = None
    email: EmailAlerts | None = None
    ui: Annotated[str, AfterValidator(_web_address)] | None = None

    @property
    def enabled(self) -> bool:
        """Whether anybody is told."""
        return bool(self.slack or self.email)


class Settings(Strict):
    """`company.yaml`."""

    name: str
    tenant: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    time_zone: Annotated[str, AfterValidator(_known_time_zone)] = "UTC"
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    history_start: dt.date
    today: dt.date | None = None
    use_metric: str | None = "active_days_28d"
    family_rollup: Literal["worst", "mean", "revenue"] = "worst"
    library_scorecards: bool = True
    library_playbooks: bool = True
    warehouse_memory: str = Field(default="3GB", pattern=r"^\d+(\.\d+)?(MB|GB)$")
    limits: Limits = Limits()
    schedules: Schedules = Schedules()
    identity: Identity = Identity()
    alerts: Alerts = Alerts()


@dataclass(frozen=True)
class Company:
    """A company: its folder, its settings and the days that follow from them."""

    home: Path
    settings: Settings

    @property
    def state(self) -> Path:
        """Where everything lies that is not configuration; safe to delete, but for the lake."""
        return self.home / "state"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file. It can be rebuilt from the lake."""
        return self.state / "warehouse.duckdb"

    @property
    def lake(self) -> Path:
        """The Parquet lake: what the sources said, every version."""
        return self.state / "lake"

    @property
    def zone(self) -> ZoneInfo:
        """The company's time zone: its days begin and end there."""
        return ZoneInfo(self.settings.time_zone)

    def now(self, clock: dt.datetime) -> dt.datetime:
        """The clock as this company sees it, in UTC: the last second of `today` where pinned."""
        if self.settings.today is None:
            return clock.astimezone(dt.UTC)
        return self.end_of(self.settings.today) - dt.timedelta(seconds=1)

    def end_of(self, day: dt.date) -> dt.datetime:
        """The instant, in UTC, at which a day of this company is over.

        With ``time_zone: Europe/Berlin``, 2026-06-30 ends at 2026-06-30 22:00 UTC.
        """
        next_midnight = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), self.zone)
        return next_midnight.astimezone(dt.UTC)

    def last_day(self, clock: dt.datetime) -> dt.date:
        """The last day that can be scored: `today` where pinned, else the last whole day."""
        if self.settings.today is not None:
            return self.settings.today
        return clock.astimezone(self.zone).date() - dt.timedelta(days=1)


def home_from_environment() -> Path:
    """The folder named by `HEALTHLOOP_HOME`, or `./company`."""
    return Path(os.environ.get("HEALTHLOOP_HOME", "company"))


def read_company(home: Path) -> Company:
    """Read `company.yaml`.

    Raises:
        NotFoundError: there is no such folder or no `company.yaml` in it.
        ConfigurationError: `company.yaml` has mistakes; all are listed.
    """
    company, _, problems = check_company(home)
    if problems or company is None:
        raise ConfigurationError(problems)
    return company


def check_company(home: Path) -> tuple[Company | None, Document | None, list[Problem]]:
    """Read `company.yaml` and list its mistakes instead of raising them."""
    file = home / "company.yaml"
    if not file.is_file():
        raise NotFoundError(
            f"{file} does not exist",
            "name a company folder with --home or HEALTHLOOP_HOME, "
            "or make a first one with `healthloop demo`",
        )
    document, problems = read_document(file)
    if document is None:
        return None, None, problems
    settings, more = validate(document, Settings, data=document.data or {})
    company = Company(home.resolve(), settings) if settings else None
    return company, document, problems + more
