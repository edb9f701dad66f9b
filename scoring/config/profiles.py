"""`profiles.yaml` and `watermelons.yaml`: ordered rules over what is known of an account."""

from pydantic import Field, model_validator

from contracts.company import Strict


class Rule(Strict):
    """A named class of accounts; the first rule whose condition holds is taken."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    when: str | None = None


class Profiles(Strict):
    """Segments and stages. The last rule of each has no condition: it is the default."""

    segments: list[Rule] = Field(min_length=1)
    stages: list[Rule] = Field(min_length=1)

    @model_validator(mode="after")
    def _default_last(self) -> "Profiles":
        for what, rules in (("segments", self.segments), ("stages", self.stages)):
            if rules[-1].when is not None:
                raise ValueError(f"{what} have no default; end the list with a rule without `when`")
            if any(rule.when is None for rule in rules[:-1]):
                raise ValueError(f"{what} have a default before their end; give it a `when`")
            if any(rule.name == "all" for rule in rules):
                raise ValueError(
                    f"{what} name one 'all', which means the whole business; rename it"
                )
            if len({rule.name for rule in rules}) < len(rules):
                raise ValueError(f"{what} name one twice; rename or remove one")
        return self


class HardSignal(Strict):
    """A fact that speaks against a green score, whatever the score says."""

    when: str
    because: str
