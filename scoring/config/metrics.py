"""`metrics/*.yaml`: what is measured, from which canonical table, and who answers for it."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from contracts.company import Strict
from contracts.documents import nearest
from contracts.tables import METRIC_TABLES, TABLES

AGGREGATIONS = (
    "count", "sum", "mean", "min", "max", "last", "count_distinct", "days_since", "days_until",
)  # fmt: skip
ZERO_WHEN_EMPTY = ("count", "sum", "count_distinct")
"""No ticket at an account that is linked to the help desk is zero tickets; no answer is no mean."""

COMPARISONS = {
    "previous_window": "change",
    "peers": "peer_percentile",
    "benchmark": "percent_of_benchmark",
}
"""What `compare` adds to a metric: the comparison, and the name behind the dot."""


def _days(value: Any) -> int:
    match = re.fullmatch(r"(\d+)d", str(value))
    if not match or int(match[1]) == 0:
        raise ValueError(f"'{value}' is no number of days; write it like 28d")
    return int(match[1])


Days = Annotated[int, BeforeValidator(_days), PlainSerializer(lambda days: f"{days}d")]


def _known_table(name: str) -> str:
    if name == "outcomes":
        raise ValueError(
            "metrics must not read outcomes; a score must not know what it is to predict"
        )
    if name not in METRIC_TABLES:
        raise ValueError(f"unknown table '{name}'; {nearest(name, METRIC_TABLES)}")
    return name


class Filter(Strict):
    """One column's filter: all that is given must hold."""

    in_: list[str | int | float | bool] | None = Field(None, alias="in")
    not_in: list[str | int | float | bool] | None = None
    above: float | None = None
    below: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    is_null: bool | None = None
    older_than: Days | None = None
    newer_than: Days | None = None
    after_as_of: bool | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> "Filter":
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("the filter is empty; give in, not_in, above, below, is_null, ...")
        return self


class Ratio(Strict):
    """One metric divided by another, times `scale`."""

    of: str
    to: str
    scale: float = 1.0


class Metric(Strict):
    """One metric.

    Either `from` and `aggregate`, or `ratio`. Without `window` all rows known so far count.
    """

    label: str
    owner: str
    description: str | None = None
    table: Annotated[str, AfterValidator(_known_table)] | None = Field(None, alias="from")
    where: dict[str, Filter | str | int | float | bool] = {}
    aggregate: str | None = None
    ratio: Ratio | None = None
    window: Days | None = None
    kind: Literal["leading", "lagging"]
    better: Literal["higher", "lower"]
    unit: str = ""
    compare: list[Literal["previous_window", "peers", "benchmark"]] = []
    benchmark: float | dict[str, float] | None = None
    stale_after: Days | None = None
    range: tuple[float, float] | None = None
    rollup: Literal["sum", "mean", "min", "max", "revenue"] | None = None

    @property
    def function(self) -> str:
        """The aggregation's name, such as ``count_distinct``."""
        return (self.aggregate or "").partition("(")[0]

    @property
    def column(self) -> str | None:
        """The column that is aggregated, where there is one."""
        inner = (self.aggregate or "").partition("(")[2].rstrip(")").strip()
        return inner or None

    @property
    def zero_when_empty(self) -> bool:
        """Whether no rows mean zero, at an account that is linked to the source."""
        return self.function in ZERO_WHEN_EMPTY

    @property
    def possible_range(self) -> tuple[float, float]:
        """The values that it can take: as declared, or as the aggregation implies."""
        if self.range is not None:
            return self.range
        if self.function == "count_distinct" and self.column == "day" and self.window:
            return (0.0, float(self.window))
        if self.function in ("count", "count_distinct", "days_since", "days_until"):
            return (0.0, float("inf"))
        return (float("-inf"), float("inf"))

    @model_validator(mode="after")
    def _whole(self) -> "Metric":
        if (self.ratio is None) == (self.aggregate is None):
            raise ValueError("give either `aggregate` or `ratio`; a metric is one of the two")
        if self.ratio is not None and (self.table or self.where or self.window):
            raise ValueError(
                "a ratio takes its rows from its two metrics; remove from, where and window"
            )
        if self.aggregate is not None:
            self._check_aggregate()
        if "previous_window" in self.compare and not (self.window or self.ratio):
            raise ValueError("previous_window needs a window; add `window: 28d`")
        if ("benchmark" in self.compare) != (self.benchmark is not None):
            raise ValueError("compare: [benchmark] and `benchmark` go together; give both")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range is out of order; write it as [lowest, highest]")
        return self

    def _check_aggregate(self) -> None:
        if self.table is None:
            raise ValueError("`from` is missing; name the table that `aggregate` reads")
        match = re.fullmatch(r"(\w+)(\(\s*(\w+)\s*\))?", self.aggregate or "")
        if not match:
            raise ValueError(
                f"aggregate is '{self.aggregate}'; write it like sum(value) or count"
            )
        if match[1] not in AGGREGATIONS:
            raise ValueError(f"unknown aggregation '{match[1]}'; {nearest(match[1], AGGREGATIONS)}")
        if (match[1] == "count") == (match[3] is not None):
            raise ValueError(
                f"aggregate is '{self.aggregate}'; count stands alone, "
                "the others take a column like sum(value)"
            )
        columns = readable_columns(self.table)
        for name in [*([match[3]] if match[3] else []), *self.where]:
            if name not in columns:
                raise ValueError(f"unknown column '{name}' of {self.table}; {nearest(name, columns)}")
        if match[1] in ("days_since", "days_until") and not _is_time(self.table, match[3]):
            raise ValueError(f"{match[1]} needs a time or a date; '{match[3]}' is none")
        if match[1] in ("sum", "mean") and _is_time_or_text(self.table, match[3]):
            raise ValueError(f"{match[1]} needs a number; '{match[3]}' is none")


def readable_columns(table: str) -> list[str]:
    """The columns of a canonical table that a metric may name."""
    return [
        *(
            name
            for name in TABLES[table].column_names
            if name not in ("known_at", "deleted", "account_key", "merged_into")
        ),
        *(["day"] if "day" not in TABLES[table].by_name else []),
        "source",
    ]


def _type(table: str, column: str) -> str:
    if column in TABLES[table].by_name:
        return TABLES[table].by_name[column].type
    return "DATE" if column == "day" else "VARCHAR"


def _is_time(table: str, column: str) -> bool:
    return _type(table, column) in ("DATE", "TIMESTAMP")


def _is_time_or_text(table: str, column: str) -> bool:
    return _type(table, column) in ("DATE", "TIMESTAMP", "VARCHAR")
