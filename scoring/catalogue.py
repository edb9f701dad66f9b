"""The metric and scorecard catalogue, as markdown that can be printed and signed."""

from collections.abc import Iterator

from scoring.config.metrics import COMPARISONS, Filter, Metric
from scoring.config.scorecards import BANDS, AppliesTo
from scoring.library import Library, NamedScorecard
from scoring.reasons import label_of


def catalogue(library: Library, company_name: str) -> str:
    """Every metric with its owner and definition, every scorecard with its weights and points."""
    lines = [f"# What {company_name} measures and how it scores", ""]
    lines += [
        f"{len(library.metrics)} metrics, {len(library.scorecards)} scorecards. "
        f"Library {library.fingerprint}.",
        "",
        "## Metrics",
        "",
        "| name | what it is | definition | kind | better | owner |",
        "|---|---|---|---|---|---|",
    ]
    for name, metric in sorted(library.metrics.items()):
        what = metric.label + (f". {metric.description}" if metric.description else "")
        lines.append(
            f"| `{name}` | {_cell(what)} | {_cell(definition_of(metric))} | {metric.kind} | "
            f"{metric.better} | {_cell(metric.owner)} |"
        )
    lines += ["", "## Segments and stages", "", "The first rule that holds is taken.", ""]
    for what, rules in (("segment", library.profiles.segments), ("stage", library.profiles.stages)):
        for rule in rules:
            lines.append(
                f"- {what} **{rule.name}**: {f'`{rule.when}`' if rule.when else 'all others'}"
            )
    lines += ["", "## Scorecards"]
    for named in library.scorecards:
        lines += ["", *_scorecard(library, named)]
    return "\n".join(lines) + "\n"


def definition_of(metric: Metric) -> str:
    """A metric's definition in one line.

    >>> definition_of(Metric.model_validate({"label": "x", "owner": "y", "kind": "leading",
    ...     "better": "higher", "from": "usage_daily", "aggregate": "sum(count)", "window": "28d"}))
    'sum(count) of usage_daily, 28 days'
    """
    if metric.ratio:
        scale = f"{metric.ratio.scale:g} x " if metric.ratio.scale != 1 else ""
        text = f"{scale}{metric.ratio.of} / {metric.ratio.to}"
    else:
        text = f"{metric.aggregate} of {metric.table}"
        if metric.where:
            text += " where " + " and ".join(
                _filter(name, rule) for name, rule in metric.where.items()
            )
        text += f", {metric.window} days" if metric.window else ", all that is known"
    if metric.rollup:
        text += f"; with child accounts by {metric.rollup}"
    if metric.stale_after:
        text += f"; stale after {metric.stale_after} days"
    if metric.compare:
        text += "; also " + ", ".join(f".{COMPARISONS[c]}" for c in metric.compare)
    return text


_FLAGS = {
    ("is_null", "True"): "is empty",
    ("is_null", "False"): "is given",
    ("after_as_of", "True"): "after the day",
    ("after_as_of", "False"): "up to the day",
}


def _filter(name: str, rule: Filter | str | float | bool) -> str:
    if not isinstance(rule, Filter):
        return f"{name} = {rule}"
    given = rule.model_dump(by_alias=True, exclude_none=True)
    words = [
        _FLAGS.get((key, str(value))) or f"{key.replace('_', ' ')} {value}"
        for key, value in given.items()
    ]
    return " and ".join(f"{name} {word}" for word in words)


def _scorecard(library: Library, named: NamedScorecard) -> Iterator[str]:
    card = named.card
    upper, middle, lower = BANDS[card.family]
    leading = sum(c.weight for c in card.components if library.measures[c.metric].kind == "leading")
    yield f"### {named.name}, version {card.version}: {card.score}"
    yield ""
    yield from (f"> {line}" for line in card.believes.strip().splitlines())
    yield ""
    yield (
        f"For {_profile(card.applies_to)}. Bands: {upper} from {card.edges[0]:g}, {middle} from "
        f"{card.edges[1]:g}, {lower} below; unknown under {card.coverage.minimum:.0%} coverage. "
        f"Leading metrics weigh {leading:g} %, value moments (proactive) "
        f"{card.leading_pillar_share:.0%}."
    )
    yield ""
    yield "| pillar | metric | weight | points | if missing | owner |"
    yield "|---|---|--:|---|---|---|"
    for component in card.components:
        pillar = card.pillars[component.pillar]
        combined = f"{component.pillar} ({pillar.weight:g} %, {pillar.combine})"
        arrow = "stepped: " if component.steps else ""
        points = arrow + ", ".join(f"{x:g} -> {y:g}" for x, y in component.curve)
        yield (
            f"| {combined} | {_cell(label_of(library, component.metric))} (`{component.metric}`) | "
            f"{component.weight:g} % | {points} | {component.missing} | "
            f"{_cell(library.measures[component.metric].owner)} |"
        )
    caps = library.caps_of(card)
    if caps:
        yield ""
        for cap in caps:
            limit = (
                f"at least {cap.at_least:g}"
                if cap.at_least is not None
                else f"at most {cap.at_most:g}"
            )
            yield f"- {limit} when `{cap.when}`: {cap.because}"


def _profile(applies_to: AppliesTo) -> str:
    parts = [
        f"{what} {' or '.join(names)}"
        for what, names in (
            ("segment", applies_to.segment),
            ("stage", applies_to.stage),
            ("outcome", applies_to.outcome),
        )
        if names
    ]
    return ", ".join(parts) or "everybody without a more specific scorecard"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
