"""`playbooks/*.yaml`: what has to be true of an account, and who does what about it.

::

    purpose: When the champion goes, the reasons for buying go too. Find the next one early.
    trigger: {score: risk, band: red, driver: champion_left_90d, for_days: 2}
    audience: {segment: [enterprise, mid-market]}
    cooldown: 30d
    holdout: 0.1
    tasks:
      - owner: csm
        due: +2d
        priority: high
        subject: Find the new champion at {account.name}
        steps: [Ask the sponsor who follows, Agree on a first call]
    clears_when: champion_left_90d = 0
    escalate: {after: 5d, to: csm_manager}
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from contracts.actions import MOST_TASKS, Priority
from contracts.company import Strict
from contracts.documents import nearest
from scoring.config.metrics import Days, Finite
from scoring.config.scorecards import BANDS, AppliesTo, Names, Points, ScoreKind

ROLES = ("csm", "sales", "csm_manager")
LONGEST_SUBJECT, LONGEST_STEP = 255, 500
Kind = Literal["alarm", "proactive", "upsell", "handoff"]


def _role(name: str) -> str:
    queue = re.fullmatch(r"queue:\s*(\S.{0,79})", name)
    if queue:
        return f"queue:{queue[1]}"
    if name not in ROLES:
        near = nearest(name, [*ROLES, "queue:<name>"])
        raise ValueError(f"nobody has the role '{name}'; {near}")
    return name


def _due(value: Any) -> int:
    match = re.fullmatch(r"\+?(\d{1,3})d", str(value))
    if not match:
        raise ValueError(f"'{value}' is no number of days from now; write it like +2d")
    return int(match[1])


Role = Annotated[str, AfterValidator(_role)]
Due = Annotated[
    int,
    BeforeValidator(_due),
    PlainSerializer(lambda days: f"+{days}d"),
    WithJsonSchema({"type": "string", "pattern": r"^\+?\d{1,3}d$"}),
]
Line = Annotated[str, AfterValidator(lambda text: " ".join(text.split())), Field(min_length=1)]


class Change(Strict):
    """How far a score moved: by so many points (below 0: down) within so many days."""

    by: Finite
    within: Days

    @model_validator(mode="after")
    def _moves(self) -> "Change":
        if self.by == 0 or abs(self.by) > 100:
            raise ValueError("`by` is outside 1 to 100 points; write how far the score must move")
        return self


class Trigger(Strict):
    """What must hold, all of it together, on `for_days` scored days in a row.

    `driver` names metrics: one of them must be among what makes the score so bad (in an upsell
    score: so good). `when` is a condition over metrics and account facts, as in a scorecard's caps.
    """

    score: ScoreKind | None = None
    band: Names = Field(default_factory=list)
    driver: Names = Field(default_factory=list)
    at_least: Points | None = None
    at_most: Points | None = None
    change: Change | None = None
    when: str | None = None
    for_days: int = Field(default=1, ge=1, le=60)

    @model_validator(mode="after")
    def _can_be_judged(self) -> "Trigger":
        of_score = [
            name
            for name in ("band", "driver", "at_least", "at_most", "change")
            if getattr(self, name) not in (None, [])
        ]
        if of_score and self.score is None:
            raise ValueError(f"`{of_score[0]}` needs a score; add `score: risk`")
        if self.score and not of_score:
            raise ValueError(f"`score: {self.score}` says nothing by itself; add `band: ...`")
        if self.score is None and self.when is None:
            raise ValueError("the trigger is empty; give `score` and `band`, or `when`")
        known = BANDS[self.score.partition(":")[0]] if self.score else ()
        for band in self.band:
            if band not in known:
                raise ValueError(f"{self.score} has no band '{band}'; {nearest(band, known)}")
        if None not in (self.at_least, self.at_most) and self.at_least > self.at_most:  # type: ignore[operator]
            raise ValueError("at_least is above at_most; no score is both")
        return self

    @property
    def only_a_change(self) -> bool:
        """Whether nothing but a movement is asked for, which passes by itself."""
        others = (self.band, self.driver, self.at_least, self.at_most, self.when)
        return self.change is not None and all(other in (None, []) for other in others)


class PlaybookTask(Strict):
    """One task: who does what by when. Subject and steps may hold placeholders."""

    owner: Role = "csm"
    due: Due = 5
    priority: Priority = "normal"
    subject: Annotated[Line, Field(max_length=LONGEST_SUBJECT)]
    steps: list[Annotated[Line, Field(max_length=LONGEST_STEP)]] = Field(
        min_length=1, max_length=12
    )


class Escalation(Strict):
    """Who is told, once, when the first task is neither done nor postponed after so many days."""

    after: Days
    to: Role = "csm_manager"


class Playbook(Strict):
    """One playbook.

    `cooldown` counts from the day an episode opened; `holdout` is the share of accounts that get no
    task, so that evidence can tell whether it works. Without `clears_when` an episode clears once
    its trigger no longer holds, by a margin. `value_at_risk` names a number of the account.
    """

    purpose: str
    kind: Kind = "alarm"
    expected: str | None = None
    believes: str | None = None
    trigger: Trigger
    audience: AppliesTo = AppliesTo()
    cooldown: Days = 30
    holdout: float = Field(default=0.0, ge=0, le=0.5)
    tasks: list[PlaybookTask] = Field(min_length=1, max_length=MOST_TASKS)
    clears_when: str | None = None
    escalate: Escalation | None = None
    value_at_risk: str | None = None

    @model_validator(mode="after")
    def _can_clear(self) -> "Playbook":
        if self.trigger.only_a_change and self.clears_when is None:
            raise ValueError("a change alone passes by itself; add `clears_when` or a band")
        return self
