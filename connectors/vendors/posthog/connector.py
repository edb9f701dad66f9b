"""PostHog, through its query API: counts by group, event and day, so that no event is downloaded.

What this module honours of the vendor:

- A query without LIMIT silently returns 100 rows, and none returns more than 50,000. Every query
  here has a LIMIT and also returns how many rows there are in all (`remaining`), so that a page
  which is shorter than asked is never taken for the end.
- Pages follow each other by key, never by OFFSET: late events would shift it.
- Answers are cached by the text of the query: `refresh: force_blocking` asks for the present.
- Times are shown in the project's time zone; days are cut in UTC here, whatever it is.
- Events arrive late, under the time at which they happened: the last `late_days` are read again.
- Merging two persons changes `person_id` in all their events. Days that are not read again keep
  the users as they were counted then.
- 240 queries a minute and 2,400 an hour for a team, all its keys together.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from connectors.api import ApiStream, FromEnvironment, Reading, Secrets, Vendor
from connectors.http import Http, Limit, Manners
from connectors.vendors.event_stores import EventStoreConfig
from contracts.errors import SourceCorrupt, SourceUnavailable

PAGE_ROWS = 50_000
"""The most that PostHog gives in one answer."""

Key = tuple[str, ...]
"""The values of a row's key columns, by which the next page is asked for."""

_WINDOW_ROWS = 40_000
_FIRST_WINDOW_DAYS = 7
_LONGEST_WINDOW_DAYS = 366
_DAY = dt.timedelta(days=1)
_REPORT = "run again; if it stays so, report it"


class PostHogConfig(EventStoreConfig):
    """A project of PostHog; what its events mean stands in `EventStoreConfig`.

    Args:
        project: The number in the project's address and settings.
        token: A personal API key (phx_...).
        group_type_index: Which of the five kinds of groups is the customer's workspace.
        late_days: How many days are read again, because events arrive late.
    """

    type: Literal["posthog"]
    project: int = Field(gt=0)
    token: FromEnvironment
    region: Literal["us", "eu"] = "us"
    group_type_index: int = Field(default=0, ge=0, le=4)
    late_days: int = Field(default=3, ge=0, le=31)


def connect(config: PostHogConfig, secrets: Secrets) -> Http:
    """A client for the project's API."""
    address = config.address or f"https://{config.region}.posthog.com"
    manners = Manners("posthog", limits=(Limit(240, 60), Limit(2400, 3600)))
    token = secrets.of(config.token)
    return Http(
        f"{address}/api/projects/{config.project}",
        manners,
        headers={"Authorization": f"Bearer {token}"},
    )


def account(client: Http, config: PostHogConfig) -> str:
    """The organisation and the project that the key opens."""
    found = client.get("/")
    if not isinstance(found, dict) or "id" not in found or "organization" not in found:
        raise SourceCorrupt("the answer describes no project", _REPORT)
    return f"{found['organization']}/{found['id']}"


@dataclass(frozen=True)
class _Counted:
    """A query over the events of some days; its columns `key`, the day first, order its rows."""

    columns: Mapping[str, str]
    key: Mapping[str, str]
    conditions: Sequence[str]

    def hogql(self, first: dt.date, until: dt.date, after: Key | None) -> str:
        """The rows of the days from `first` to before `until`, beyond the key `after`."""
        start = str(first) if after is None else after[0]
        conditions = [
            f"timestamp >= toDateTime({_text(f'{start}T00:00:00Z')})",
            f"timestamp < toDateTime('{until}T00:00:00Z')",
            *self.conditions,
        ]
        if after is not None:
            day, *rest = after
            last = ", ".join([f"toDate({_text(day)})", *map(_text, rest)])
            conditions.append(f"({', '.join(self.key.values())}) > ({last})")
        names = ", ".join([*self.key, *self.columns])
        selected = ", ".join(
            f"{sql} AS {name}" for name, sql in [*self.key.items(), *self.columns.items()]
        )
        return (
            f"SELECT {names}, count() OVER () AS remaining FROM ("
            f"SELECT {selected} FROM events WHERE {' AND '.join(conditions)} "
            f"GROUP BY {', '.join(self.key)}"
            f") ORDER BY {', '.join(self.key)} LIMIT {PAGE_ROWS}"
        )


def _usage(config: PostHogConfig) -> _Counted:
    columns = {"event_count": "count()", "users": "uniq(person_id)"}
    if config.value_property:
        value = f"toFloat(properties.{_name(config.value_property)})"
        columns["value_sum"] = f"sum({value})"
        columns["value_last"] = f"argMax({value}, timestamp)"
    key = {"day": _UTC_DAY, "group_key": _group(config), "event": "event"}
    wanted = [f"event IN ({_texts(config.events)})"] if config.events else []
    return _Counted(columns, key, [f"{_group(config)} != ''", *wanted])


def _user_days(config: PostHogConfig) -> _Counted:
    key = {"day": _UTC_DAY, "group_key": _group(config), "person": "toString(person_id)"}
    wanted = [f"event IN ({_texts(config.active_events)})"] if config.active_events else []
    if config.level_events:
        wanted.append(f"event NOT IN ({_texts(config.level_events)})")
    return _Counted({}, key, [f"{_group(config)} != ''", *wanted])


_UTC_DAY = "toDate(toTimeZone(timestamp, 'UTC'))"


def _group(config: PostHogConfig) -> str:
    return f"`$group_{config.group_type_index}`"


def _name(name: str) -> str:
    return f"`{name}`"


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _texts(values: Sequence[str]) -> str:
    return ", ".join(map(_text, values))


def read_usage(reading: Reading[PostHogConfig]) -> Iterator[pa.Table]:
    """How often what was done, by how many: a row for each day, group and event."""
    yield from _read_days(reading, _usage(reading.config))


def read_user_days(reading: Reading[PostHogConfig]) -> Iterator[pa.Table]:
    """Who was there: a row for each day, group and person."""
    yield from _read_days(reading, _user_days(reading.config))


def _read_days(reading: Reading[PostHogConfig], query: _Counted) -> Iterator[pa.Table]:
    """One window of days after another, each about one page long.

    How many rows a day brings is remembered, so that the next reading needs one request.
    """
    first = reading.since.date() if reading.since else reading.history_start
    # Nothing after today: a clock that is wrong at a customer's would date events ahead.
    end = reading.now.date() + _DAY
    window = int(reading.position.get("window_days", _FIRST_WINDOW_DAYS))
    while first < end:
        until = min(first + window * _DAY, end)
        rows = 0
        hogql = partial(query.hogql, first, until)
        for page in _pages(reading.client, hogql, [*query.key], [*query.columns]):
            rows += page.num_rows
            yield page
        fitting = _WINDOW_ROWS * (until - first).days // max(rows, 1)
        window = max(1, min(fitting, 4 * window, _LONGEST_WINDOW_DAYS))
        first = until
    reading.position["window_days"] = window


def _pages(
    client: Http, hogql: Callable[[Key | None], str], key: Sequence[str], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """All rows of a query, page by page; `hogql` writes it for the rows beyond a key."""
    after: Key | None = None
    expected = 0
    while True:
        table = _ask(client, hogql(after), [*key, *columns, "remaining"])
        if table.num_rows == 0:
            if expected:
                cause = f"an empty page came where {expected} rows remained"
                raise SourceUnavailable(cause, _REPORT)
            return
        first, last = (_key(table, key, row) for row in (0, table.num_rows - 1))
        if first > last or (after is not None and after >= first):
            raise SourceCorrupt("a page came again, or its rows are in no order", _REPORT)
        remaining = table.column("remaining")[0].as_py() or ""
        yield table.drop_columns("remaining")
        if not remaining.isdigit():
            raise SourceCorrupt("the answer does not say how many rows there are", _REPORT)
        if table.num_rows >= int(remaining):
            return
        after, expected = last, int(remaining) - table.num_rows


def _key(table: pa.Table, key: Sequence[str], row: int) -> Key:
    return tuple(table.column(name)[row].as_py() or "" for name in key)


def _ask(client: Http, hogql: str, names: Sequence[str]) -> pa.Table:
    """The answer to one query as a table of text."""
    body = {"query": {"kind": "HogQLQuery", "query": hogql}, "refresh": "force_blocking"}
    answer = client.post("/query/", json=body)
    rows = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or answer.get("columns") != list(names):
        raise SourceCorrupt("the answer holds no rows of the columns asked for", _REPORT)
    try:
        columns = zip(*rows, strict=True) if rows else [() for _ in names]
        return pa.table([_texts_of(values) for values in columns], names=list(names))
    except (TypeError, ValueError):  # pa.ArrowInvalid is a ValueError
        raise SourceCorrupt("the answer's rows are of unequal length", _REPORT) from None


def _texts_of(values: Sequence[Any]) -> pa.Array:
    """One column as text; Arrow converts a column of one type at once."""
    try:
        return pa.array(values).cast(pa.string())
    except (pa.ArrowException, OverflowError):
        return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])


def read_groups(reading: Reading[PostHogConfig]) -> Iterator[pa.Table]:
    """All workspaces, with the two properties that tell whose they are."""
    config = reading.config

    def hogql(after: Key | None) -> str:
        beyond = f" AND `key` > {_text(after[0])}" if after else ""
        return (
            "SELECT key, crm_id, domain, count() OVER () AS remaining FROM ("
            f"SELECT `key` AS key, properties.{_name(config.crm_id_property)} AS crm_id, "
            f"properties.{_name(config.domain_property)} AS domain FROM groups "
            f"WHERE `index` = {config.group_type_index}{beyond}"
            f") ORDER BY key LIMIT {PAGE_ROWS}"
        )

    yield from _pages(reading.client, hogql, ["key"], ["crm_id", "domain"])


def streams(config: PostHogConfig) -> dict[str, ApiStream]:
    """The three streams; how much is read again is the user's to say."""
    late = dt.timedelta(days=config.late_days)
    return {
        "usage": ApiStream(
            read_usage,
            primary_key=("day", "group_key", "event"),
            columns=(
                "day", "group_key", "event", "event_count", "users", "value_sum", "value_last",
            ),
            cursor="day",
            overlap=late,
        ),
        "user_days": ApiStream(
            read_user_days,
            primary_key=("day", "group_key", "person"),
            columns=("day", "group_key", "person"),
            cursor="day",
            overlap=late,
        ),
        "groups": ApiStream(
            read_groups, primary_key=("key",), columns=("key", "crm_id", "domain"), whole=True
        ),
    }  # fmt: skip


VENDOR = Vendor(
    name="posthog",
    config=PostHogConfig,
    connect=connect,
    account=account,
    streams=streams,
    scopes="a personal API key with query:read and project:read, for this project only",
)
