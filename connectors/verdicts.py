"""The state of every stream after a build: ok, suspect or stale, why, and up to which day.

In this order: what does not answer stays `down`; a file that became empty, a load that is held or a
mapping that fails makes the stream `suspect`; then the volume of the newest days is held against
what is usual (`connectors.volumes`), and the newest values against those before.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from duckdb import DuckDBPyConnection

from connectors import volumes
from connectors.api import ApiStream
from connectors.health import StreamHealth, all_health, record_health
from connectors.raw_state import RawState, Stream
from connectors.sources import Source
from contracts.company import Company

FLOWS = (
    "usage_daily", "user_days", "tickets", "invoices", "survey_responses", "commercial_events",
)  # fmt: skip
"""Tables whose rows happen on a day, so that a day has a usual number of them."""

MEASURES = {"survey_responses": "score"}
"""Columns of people's opinions: these are never all the same."""

NEARLY_OVER = dt.timedelta(minutes=1)
"""A day of which less than this is left is over."""

LONGEST_PAST = dt.timedelta(days=7 * volumes.WEEKS + volumes.LONGEST_LOOK_DAYS)


@dataclass(frozen=True)
class Verdict:
    """What is wrong with the data of a stream, and the last day that is believed."""

    status: str
    reason: str
    good_day: dt.date | None = None


def judge(
    connection: DuckDBPyConnection,
    company: Company,
    sources: Sequence[Source],
    raw: RawState,
    suspects: Mapping[Stream, str],
    now: dt.datetime,
) -> tuple[StreamHealth, ...]:
    """Judge every stream and record it.

    Args:
        connection: The warehouse, within a transaction.
        company: The company.
        sources: All its sources.
        raw: The lake.
        suspects: Why the build does not believe a stream.
        now: The clock, naive UTC.
    """
    verdicts = {stream: Verdict("suspect", reason) for stream, reason in suspects.items()}
    flowing = [(source.name, name) for source in sources for name in source.streams]
    judged = _Volumes(connection, company, sources, raw, now)
    for stream, verdict in judged.verdicts(set(flowing) - set(verdicts)):
        verdicts.setdefault(stream, verdict)
    known = all_health(connection)
    for stream in flowing:
        health = _health(sources, raw, stream, verdicts.get(stream), known.get(stream))
        record_health(
            connection, *stream, health.status, health.reason, now, rows=health.rows,
            last_load_at=health.last_load_at, good_day=health.good_day, day_end=judged.day_end,
        )  # fmt: skip
    recorded = all_health(connection)
    return tuple(recorded[stream] for stream in flowing)


def _health(
    sources: Sequence[Source],
    raw: RawState,
    stream: Stream,
    verdict: Verdict | None,
    former: StreamHealth | None,
) -> StreamHealth:
    versions = raw.versions.get(stream, [])
    last = max((version.loaded_at for version in versions), default=None)
    good = StreamHealth(*stream, "ok", None, last, sum(version.rows for version in versions))
    if former and (former.status, former.last_load_at, former.rows) == ("down", last, good.rows):
        return former
    for file in raw.emptied.get(stream, {}):
        reason = f"'{file}' had rows and now has none; the old are kept"
        return replace(good, status="suspect", reason=reason)
    if verdict:
        return replace(
            good, status=verdict.status, reason=verdict.reason, good_day=verdict.good_day
        )
    in_place = any(source.in_place for source in sources if source.name == stream[0])
    read_empty = stream in raw.apis and stream in raw.read_without_rows
    if not in_place and not versions and not read_empty:
        return replace(good, status="suspect", reason="it never brought a row")
    return good


class _Volumes:
    """Holds the newest days of the flowing tables against their past."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        company: Company,
        sources: Sequence[Source],
        raw: RawState,
        now: dt.datetime,
    ) -> None:
        self.connection, self.company, self.raw = connection, company, raw
        self.last = self._day_of(now + NEARLY_OVER) - dt.timedelta(days=1)
        self.day_end = company.end_of(self._day_of(now) - dt.timedelta(days=1))
        self.streams = {
            (source.name, name): stream
            for source in sources
            if not source.in_place
            for name, stream in source.streams.items()
        }

    def verdicts(self, wanted: set[Stream]) -> Iterator[tuple[Stream, Verdict]]:
        """What is wrong with the streams that feed each table of a source."""
        feeds = self.connection.execute(
            'SELECT "table", source, list((stream_source, stream)) FROM signals.feeds '
            "WHERE stream IS NOT NULL GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        for table, source, pairs in feeds:
            streams = [s for pair in pairs if (s := tuple(pair)) in wanted and self._flows(s)]
            if table not in FLOWS or not streams:
                continue
            verdict = self._volume(table, source, streams) or self._values(table, source, streams)
            if verdict:
                yield from ((stream, verdict) for stream in streams)

    def _flows(self, stream: Stream) -> bool:
        """True unless each reading is a complete list, which is judged by its length."""
        kind = self.streams.get(stream)
        return kind is not None and not (isinstance(kind, ApiStream) and kind.whole)

    def _volume(self, table: str, source: str, streams: Sequence[Stream]) -> Verdict | None:
        history, lag_days = self._history(table, source, streams)
        if not history:
            return None
        last = self.last - dt.timedelta(days=lag_days)
        short = volumes.shortfall(history, last, unjudged=self._unfinished(streams, max(history)))
        if short is None:
            return None
        status = "stale" if short.all_empty else "suspect"
        good = short.first - dt.timedelta(days=1)
        return Verdict(status, f"{table}: {short.reason}", good)

    def _history(
        self, table: str, source: str, streams: Sequence[Stream]
    ) -> tuple[dict[dt.date, int], int]:
        """Rows by day, and how many days after its end a day usually arrives."""
        first = max(
            [self.last - LONGEST_PAST]
            + [day for s in streams if (day := self.raw.accepted.days.get(s)) is not None]
        )
        rows = self.connection.execute(
            "SELECT day, count(*) FILTER (WHERE superseded_at IS NULL AND deleted IS NOT TRUE), "
            f"greatest(local_day(min(known_at)) - day - 1, 0) FROM signals.{table} "
            "WHERE source = ? AND day BETWEEN ? AND ? GROUP BY day ORDER BY day",
            [source, first, self.last],
        ).fetchall()
        lags = sorted(lag for _, _, lag in rows[-volumes.LONGEST_LOOK_DAYS :])
        usual_lag = lags[(len(lags) * 9) // 10] if lags else 0
        return {day: count for day, count, _ in rows}, usual_lag

    def _unfinished(self, streams: Sequence[Stream], newest_day: dt.date) -> frozenset[dt.date]:
        """Days that may still come: those in whose course a stream was read last.

        Of an export that was read only once nobody knows yet how late its days arrive.
        """
        found: set[dt.date] = set()
        for stream in streams:
            moments = {version.loaded_at for version in self.raw.versions.get(stream, [])}
            if not moments:
                continue
            last, read_on = max(moments), self._day_of(max(moments))
            if self._day_of(last + NEARLY_OVER) == read_on:
                found.add(read_on)
            if len(moments) == 1:
                late = range(1, (read_on - newest_day).days + 1)
                found |= {newest_day + dt.timedelta(days=n) for n in late}
        return frozenset(found)

    def _values(self, table: str, source: str, streams: Sequence[Stream]) -> Verdict | None:
        """Opinions that suddenly are all the same."""
        column = MEASURES.get(table)
        if column is None:
            return None
        accepted = [day for s in streams if (day := self.raw.accepted.days.get(s)) is not None]
        rows = self.connection.execute(
            f"SELECT {column}, day FROM signals.{table} WHERE source = ? AND {column} IS NOT NULL "
            f"AND superseded_at IS NULL AND deleted IS NOT TRUE AND day BETWEEN ? AND ? "
            "ORDER BY day DESC, known_at DESC",
            [source, max([dt.date.min, *accepted]), self.last],
        ).fetchall()
        run = next((n for n, row in enumerate(rows) if row[0] != rows[0][0]), len(rows))
        before = [row[0] for row in rows[run:]]
        shares = {value: before.count(value) / len(before) for value in set(before)}
        value = volumes.frozen_value([row[0] for row in rows[:run]], shares)
        if value is None:
            return None
        reason = f"{table}: the newest {run} values of {column} are all {value:g}; before, "
        reason += f"{len(shares)} different ones came"
        return Verdict("suspect", reason, rows[run - 1][1] - dt.timedelta(days=1))

    def _day_of(self, moment: dt.datetime) -> dt.date:
        return moment.replace(tzinfo=dt.UTC).astimezone(self.company.zone).date()
