"""`scorecards/*.yaml`: which metrics make a score, for which accounts, and what the bands are."""

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from contracts.company import Strict


def _score_kind(value: Any) -> str:
    text = str(value)
    if text in ("risk", "upsell", "handoff") or re.fullmatch(r"health:[a-z0-9_-]+", text):
        return text
    raise ValueError(f"'{text}' is no score; it is risk, upsell, handoff or health:<outcome>")


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


ScoreKind = Annotated[str, BeforeValidator(_score_kind)]
Names = Annotated[
    list[str],
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Points = Annotated[float, Field(ge=0, le=100)]
Breakpoint = Annotated[float, Field(allow_inf_nan=False)]
_MISSING = re.compile(r"redistribute|neutral|worst|required|impute\(-?\d{1,15}(\.\d{1,15})?\)")
MISSING_POLICIES = "redistribute, neutral, worst, impute(<value>) or required"


class AppliesTo(Strict):
    """The profiles a scorecard is for; what is not given matches all."""

    segment: Names = Field(default_factory=list)
    stage: Names = Field(default_factory=list)
    outcome: Names = Field(default_factory=list)

    @property
    def specificity(self) -> int:
        """How many of segment, stage and outcome it names; the most specific scorecard wins."""
        return sum(bool(names) for names in (self.segment, self.stage, self.outcome))

    def matches(self, *, segment: str, stage: str, outcome: str | None) -> bool:
        """Whether an account of this profile is meant."""
        return (
            (not self.segment or segment in self.segment)
            and (not self.stage or stage in self.stage)
            and (not self.outcome or outcome in self.outcome)
        )

    def overlaps(self, other: "AppliesTo") -> bool:
        """Whether some profile would match both."""
        return all(
            not mine or not theirs or set(mine) & set(theirs)
            for mine, theirs in (
                (self.segment, other.segment),
                (self.stage, other.stage),
                (self.outcome, other.outcome),
            )
        )


class Pillar(Strict):
    """A group of components: its weight in the score, and how they combine."""

    weight: float = Field(gt=0, le=100)
    combine: Literal["mean", "worst"] = "mean"


class Component(Strict):
    """One metric in a scorecard.

    `points` are breakpoints: metric value -> points, linear in between and flat outside, or flat
    from each value to the next with `steps`. Points go the way of the score: in a risk scorecard
    100 means leaving.
    """

    metric: str
    pillar: str
    weight: float = Field(gt=0, le=100)
    points: dict[Breakpoint, Points] | None = None
    steps: dict[Breakpoint, Points] | None = None
    missing: str = "redistribute"
    because: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> "Component":
        if (self.points is None) == (self.steps is None):
            raise ValueError("give either `points` or `steps`; a component has one of the two")
        if len(self.curve) < (2 if self.points else 1):
            raise ValueError("points has one breakpoint; give at least two, like {0: 100, 10: 0}")
        if not _MISSING.fullmatch(self.missing):
            raise ValueError(f"missing is '{self.missing}'; it must be {MISSING_POLICIES}")
        return self

    @property
    def curve(self) -> list[tuple[float, float]]:
        """The breakpoints in order: (metric value, points)."""
        return sorted((self.points or self.steps or {}).items())

    @property
    def policy(self) -> str:
        """The missing policy without its value."""
        return self.missing.partition("(")[0]

    @property
    def imputed_value(self) -> float | None:
        """The metric's value assumed by `impute(x)`."""
        return float(self.missing[7:-1]) if self.policy == "impute" else None


class Cap(Strict):
    """A condition that holds the score up (`at_least`) or down (`at_most`), with its reason."""

    when: str
    at_least: Points | None = None
    at_most: Points | None = None
    because: str

    @model_validator(mode="after")
    def _one_limit(self) -> "Cap":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either `at_least` or `at_most`; a cap has one of the two")
        if self.at_least == 0 or self.at_most == 100:
            raise ValueError("the cap can never change a score; at_least 0, at_most 100 are idle")
        return self


BANDS = {
    "risk": ("red", "yellow", "green"),
    "upsell": ("ready", "possible", "none"),
    "health": ("green", "yellow", "red"),
    "handoff": ("green", "yellow", "red"),
}
"""Bands from the highest score to the lowest. The first two have an edge; edges are inclusive."""

CLAIM = {"risk": ("green", "red"), "upsell": ("ready", "none"), "health": ("green", "red"),
         "handoff": ("green", "red")}  # fmt: skip
"""The band that reassures, and the band that thin data must not be able to hide."""

WORST_POINTS = {"risk": 100.0, "upsell": 0.0, "health": 0.0, "handoff": 0.0}


class Coverage(Strict):
    """How much of the weight must be present for a band to be shown."""

    minimum: float = Field(default=0.6, ge=0, le=1)


class Scorecard(Strict):
    """One scorecard, reviewed like code."""

    score: ScoreKind
    version: int = Field(ge=1)
    believes: str
    applies_to: AppliesTo = AppliesTo()
    pillars: dict[str, Pillar]
    components: list[Component] = Field(min_length=1)
    caps: list[Cap] = Field(default_factory=list)
    bands: dict[str, Points]
    coverage: Coverage = Coverage()

    @property
    def family(self) -> str:
        """``health`` for ``health:<outcome>``, else the score itself."""
        return self.score.partition(":")[0]

    @property
    def outcome(self) -> str | None:
        """The outcome of a health score."""
        return self.score.partition(":")[2] or None

    @property
    def edges(self) -> tuple[float, float]:
        """The lowest score of the highest band and of the middle band."""
        upper, middle, _ = BANDS[self.family]
        return self.bands[upper], self.bands[middle]

    @property
    def fingerprint(self) -> str:
        """A hash of everything it says: two scorecards with one fingerprint score alike."""
        document = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()[:16]

    @property
    def leading_pillar_share(self) -> float:
        """The share of the pillar named ``proactive``, 0 to 1; 0 where there is none."""
        total = sum(pillar.weight for pillar in self.pillars.values())
        proactive = self.pillars.get("proactive")
        return proactive.weight / total if proactive else 0.0
