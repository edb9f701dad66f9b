"""Which question of a survey is the score, and what its choices are worth."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from contracts.errors import SourceCorrupt, SourceRefused

_NPS_WEIGHTS = {-100, 0, 100}
_NPS_CHOICES = 11


@dataclass(frozen=True)
class Question:
    """The question of the score.

    `choices` is what each choice is worth, by its id; empty for a question that is answered with a
    number. `highest` is the best possible answer, None where the question does not say.
    """

    id: str
    kind: str
    choices: dict[str, float | None]
    highest: float | None

    def knows(self, answers: list[dict[str, Any]]) -> bool:
        """Whether all chosen choices are known."""
        if not self.choices:
            return True
        return all(str(a["choice_id"]) in self.choices for a in answers if a.get("choice_id"))

    def score(self, answers: list[dict[str, Any]]) -> float | None:
        """The score in an answer to this question; None where it was skipped or not applicable."""
        for answer in answers:
            if self.choices:
                score = self.choices.get(str(answer.get("choice_id")))
            else:
                score = _number(answer.get("text"))
            if score is not None:
                return score
        return None

    def to_json(self) -> dict[str, Any]:
        """As it is remembered between readings."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """What `to_json` made."""
        return cls(**stored)


def question_of(
    details: dict[str, Any], survey: str, kind: str | None, wanted: str | None
) -> Question:
    """Find the question of the score in the details of a survey.

    Args:
        details: The answer to ``/surveys/{id}/details``.
        survey: The survey's id, for messages.
        kind: nps, csat, ces or custom, as the settings say; None: it must be a net promoter score.
        wanted: The question's id, as the settings say; None: the survey's only one that fits.

    Raises:
        SourceRefused: there is none, or more than one.
    """
    try:
        questions = [asked for page in details["pages"] for asked in page["questions"]]
    except (KeyError, TypeError):
        raise SourceCorrupt(
            f"the details of survey {survey} have no questions", "report it"
        ) from None
    if wanted is not None:
        fitting = [asked for asked in questions if str(asked["id"]) == wanted]
    elif kind is None:
        fitting = [asked for asked in questions if _is_nps(asked)]
    elif kind == "nps":
        fitting = [a for a in questions if _is_rating(a) and len(_choices(a)) == _NPS_CHOICES]
    else:
        fitting = [asked for asked in questions if _is_rating(asked)]
    if len(fitting) != 1:
        what = f"no question {wanted}" if wanted else f"{len(fitting)} questions that could be it"
        ids = ", ".join(str(asked["id"]) for asked in questions if _is_rating(asked)) or "none"
        raise SourceRefused(
            f"the score of survey {survey} is unclear: {what}",
            f"write `kind` and `question`; ratings in it: {ids}",
        )
    asked = fitting[0]
    found = kind or ("nps" if _is_nps(asked) else None)
    if found is None:
        raise SourceRefused(
            f"question {asked['id']} of survey {survey} is no net promoter question",
            "write its `kind`: nps, csat, ces or custom",
        )
    choices = _worth(asked, found)
    known = [worth for worth in choices.values() if worth is not None]
    highest = max(known) if known else _number((asked.get("validation") or {}).get("max"))
    return Question(str(asked["id"]), found, choices, highest)


def _choices(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices in their order, without "not applicable"."""
    choices = (asked.get("answers") or {}).get("choices") or []
    real = [choice for choice in choices if not choice.get("is_na")]
    return sorted(real, key=lambda choice: choice.get("position") or 0)


def _is_rating(asked: dict[str, Any]) -> bool:
    rows = (asked.get("answers") or {}).get("rows") or []
    is_rating = asked.get("family") == "matrix" and asked.get("subtype") == "rating"
    return is_rating and len(rows) <= 1 and len(_choices(asked)) > 1


def _is_nps(asked: dict[str, Any]) -> bool:
    """Eleven choices in one row, weighted as promoters and detractors are, or from 0 to 10."""
    weights = [choice.get("weight") for choice in _choices(asked)]
    if not _is_rating(asked) or len(weights) != _NPS_CHOICES:
        return False
    return set(weights) <= _NPS_WEIGHTS or set(weights) == set(range(_NPS_CHOICES))


def _worth(asked: dict[str, Any], kind: str) -> dict[str, float | None]:
    choices = _choices(asked)
    worth: dict[str, float | None] = {
        str(choice["id"]): None for choice in (asked.get("answers") or {}).get("choices") or []
    }
    by_place = kind == "nps" and len(choices) == _NPS_CHOICES
    if by_place and (choices[0].get("weight") or 0) > (choices[-1].get("weight") or 0):
        choices = choices[::-1]  # the best comes first
    for place, choice in enumerate(choices):
        weight = choice.get("weight")
        if weight is None:
            weight = _number(choice.get("text"))
        worth[str(choice["id"])] = float(place) if by_place else weight
    return worth


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
