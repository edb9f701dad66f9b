"""`metrics/*.yaml`: what is measured, from which canonical table, and who answers for it."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    WithJsonSchema,
    model_validator,
)

from contracts.company import Strict
from contracts.documents import nearest
from contracts.tables import METRIC_TABLES, TABLES

AGGREGATIONS = (
    "count", "sum", "mean", "min", "max", "last", "count_distinct", "days_since",
    "days_since_first", "days_until",
)  # fmt: skip
DAY_COUNTS = ("days_since", "days_since_first", "days_until")
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


Days = Annotated[
    int,
    BeforeValidator(_days),
    PlainSerializer(lambda days: f"{days}d"),
    WithJsonSchema({"type": "string", "pattern": r"^[1-9]\d*d$"}),
]


def _known_table(name: str) -> str:
    if name == "outcomes":
        raise ValueError(
            "metrics must not read outcomes; a score must not know what it is to predict"
        )
    if name not in METRIC_TABLES:
        raise ValueError(f"unknown table '{name}'; {nearest(name, METRIC_TABLES)}")
    return name


def _scalar(value: Any) -> Any:
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"'{value}' is no text, number, true or false; write a single value")


Scalar = Annotated[
    Any,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean"]}),
]
Scalars = Annotated[list[Scalar], Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Filter(Strict):
    """One column's filter: all that is given must hold."""

    in_: Scalars | None = Field(default=None, alias="in")
    not_in: Scalars | None = None
    above: Finite | None = None
    below: Finite | None = None
    at_least: Finite | None = None
    at_most: Finite | None = None
    is_null: bool | None = None
    older_than: Days | None = None
    newer_than: Days | None = None
    after_as_of: bool | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> "Filter":
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("the filter is empty; give in, not_in, above, below, is_null, ...")
        return self

    @property
    def given(self) -> dict[str, Any]:
        """What is given, by the name of the setting."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


Rule = Annotated[
    Annotated[Filter, Tag("filter")] | Annotated[Scalar, Tag("value")],
    Discriminator(lambda value: "filter" if isinstance(value, (dict, Filter)) else "value"),
]
"""The rule of one column in `where`: a filter, or the one value that it must have."""


class Ratio(Strict):
    """One metric divided by another, times `scale`."""

    of: str
    to: str
    scale: Finite = 1.0


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Benchmark = Annotated[
    Annotated[dict[str, Positive], Tag("by segment")] | Annotated[Positive, Tag("for all")],
    Discriminator(lambda value: "by segment" if isinstance(value, dict) else "for all"),
]
"""One benchmark for all segments, or one for each."""


class Metric(Strict):
    """One metric.

    Either `from` and `aggregate`, or `ratio`. Without `window` all rows known so far count.
    """

    label: str
    owner: str
    description: str | None = None
    table: Annotated[str, AfterValidator(_known_table)] | None = Field(default=None, alias="from")
    where: dict[str, Rule] = Field(default_factory=dict)
    aggregate: str | None = None
    ratio: Ratio | None = None
    window: Days | None = None
    kind: Literal["leading", "lagging"]
    better: Literal["higher", "lower"]
    unit: str = ""
    compare: list[Literal["previous_window", "peers", "benchmark"]] = Field(default_factory=list)
    benchmark: Benchmark | None = None
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
        if self.function in ("count", "count_distinct", *DAY_COUNTS):
            return (0.0, math.inf)
        return self._range_of_column()

    def _range_of_column(self) -> tuple[float, float]:
        """What the column's contract lets a mean, an extreme or a sum of it be."""
        column = TABLES[self.table].by_name.get(self.column or "") if self.table else None
        low = column.minimum if column and column.minimum is not None else -math.inf
        high = column.maximum if column and column.maximum is not None else math.inf
        if self.function == "sum":
            return (0.0 if low >= 0 else -math.inf, math.inf)
        return (low, high)

    @property
    def reachable_range(self) -> tuple[float, float]:
        """As `possible_range`, with child accounts added up where `rollup` says so."""
        low, high = self.possible_range
        if self.rollup != "sum":
            return (low, high)
        return (-math.inf if low < 0 else low, math.inf if high > 0 else high)

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
            raise ValueError(f"aggregate is '{self.aggregate}'; write it like sum(value) or count")
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
                raise ValueError(
                    f"unknown column '{name}' of {self.table}; {nearest(name, columns)}"
                )
        self._check_types(self.table, match[1], match[3])

    def _check_types(self, table: str, function: str, column: str | None) -> None:
        if column is not None:
            kind = kind_of(table, column)
            if function in DAY_COUNTS and kind != "time":
                raise ValueError(f"{function} needs a time or a date; '{column}' is none")
            if function in ("sum", "mean", "min", "max", "last") and kind in ("time", "text"):
                raise ValueError(f"{function} needs a number; '{column}' is none")
        for name, rule in self.where.items():
            _check_rule(name, kind_of(table, name), rule)


_NEEDS = {
    "number": ("above", "below", "at_least", "at_most"),
    "time": ("older_than", "newer_than", "after_as_of"),
}


def _check_rule(name: str, kind: str, rule: Any) -> None:
    """Refuse a rule that could never match, or fail on, what the column holds."""
    given = rule.given if isinstance(rule, Filter) else {"in_": [rule]}
    for needed, settings in _NEEDS.items():
        for setting in settings:
            if setting in given and kind != needed:
                raise ValueError(f"where.{name}: {setting} needs a {needed}; '{name}' is a {kind}")
    for setting in ("in_", "not_in"):
        for value in given.get(setting, ()):
            if _kind_of_value(value) != kind:
                remedy = "use older_than, newer_than or after_as_of" if kind == "time" else (
                    f"'{name}' is a {kind}"
                )  # fmt: skip
                raise ValueError(f"where.{name} is compared with '{value}'; {remedy}")


def _kind_of_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "number"


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


def kind_of(table: str, column: str) -> str:
    """What a readable column holds: text, number, time, or true or false."""
    if column not in TABLES[table].by_name:
        return "time" if column == "day" else "text"
    kinds = {"VARCHAR": "text", "DATE": "time", "TIMESTAMP": "time", "BOOLEAN": "true or false"}
    return kinds.get(TABLES[table].by_name[column].type, "number")
