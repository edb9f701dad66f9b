"""Every mistake in a company's YAML is one line: file, line, what is wrong and the cure."""

import textwrap
from pathlib import Path

import pytest

from contracts.company import Company, Settings, read_company
from contracts.documents import MOST_NODES, read_document
from contracts.errors import ConfigurationError
from scoring.library import check_library, read_library

METRIC = """\
{name}:
  label: Exports
  owner: product
  from: usage_daily
  aggregate: sum(count)
  window: 28d
  kind: leading
  better: higher
"""

CARD = """\
score: risk
version: 1
believes: Exports are what they came for.
pillars:
  proactive: {weight: 60}
  reactive: {weight: 40}
components:
  - {metric: exports, pillar: proactive, weight: 60, points: {0: 100, 10: 0}}
  - {metric: open_tickets, pillar: reactive, weight: 40, points: {0: 0, 5: 100}}
caps:
  - {when: exports = 0, at_least: 50, because: No exports}
bands: {red: 70, yellow: 40}
"""

PROFILES = """\
segments:
  - {name: big, when: arr > 1000}
  - {name: small}
stages:
  - {name: new, when: started_on > '2026-01-01'}
  - {name: mature}
"""


@pytest.fixture
def home(tmp_path):
    """A company folder without mistakes."""
    for folder in ("metrics", "scorecards"):
        (tmp_path / folder).mkdir()
    write(tmp_path, "metrics/own.yaml", METRIC.format(name="exports"))
    write(tmp_path, "scorecards/risk-exports.yaml", CARD)
    write(tmp_path, "profiles.yaml", PROFILES)
    return tmp_path


def write(home: Path, name: str, text: str) -> None:
    (home / name).write_text(text, encoding="utf-8")


def settings(**more) -> Settings:
    return Settings.model_validate(
        {"name": "Acme", "tenant": "acme", "history_start": "2024-01-01",
         "library_scorecards": False, **more}
    )  # fmt: skip


def problems(home: Path, **more) -> list[str]:
    """The mistakes, as they are printed, with files relative to the company's folder."""
    _, found = check_library(Company(home, settings(**more)))
    lines = [str(problem).replace(f"{home}/", "") for problem in sorted(found)]
    for line in lines:
        assert "\n" not in line
        assert "pydantic" not in line
    return lines


def test_a_company_without_mistakes_has_none(home):
    assert problems(home) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("metric: exports,", "metric: exprots,",
         "8: unknown metric 'exprots'; did you mean 'exports'?"),
        ("metric: exports,", "metric: exports.change,",
         "8: unknown metric 'exports.change'; did you mean 'exports'?"),
        ("proactive: {weight: 60}", "proactive: {weight: 50}",
         "4: the pillars' weights sum to 90; make them sum to 100"),
        ("proactive, weight: 60", "proactive, weight: 50",
         "5: the components of pillar 'proactive' weigh 50, the pillar 60; make both the same"),
        ("pillar: reactive", "pillar: reactiv",
         "9: unknown pillar 'reactiv'; did you mean 'reactive'?"),
        ("{red: 70, yellow: 40}", "{red: 40, yellow: 70}",
         "12: bands are out of order: red begins at 40, yellow at 70; red must begin above yellow"),
        ("{red: 70, yellow: 40}", "{red: 70, green: 40}",
         "12: the bands of a risk score are red and yellow; write `bands: {red: 70, yellow: 40}`; "
         "green is below"),
        ("{red: 70, yellow: 40}", "{red: 170, yellow: 40}",
         "12: bands.red: Input should be less than or equal to 100; correct the value"),
        ("exports = 0", "exports < 0",
         "11: the cap can never fire: 'exports < 0' is outside the metric's range; "
         "correct the condition or remove the cap"),
        ("exports = 0", "exports > 5 and exports < 3",
         "11: the cap can never fire: 'exports > 5 and exports < 3' is outside the metric's range; "
         "correct the condition or remove the cap"),
        ("exports = 0", "arr < 0",
         "11: the cap can never fire: 'arr < 0' is outside the metric's range; "
         "correct the condition or remove the cap"),
        ("exports = 0", "active_days_28d.peer_percentile > 100",
         "11: the cap can never fire: 'active_days_28d.peer_percentile > 100' is outside the "
         "metric's range; correct the condition or remove the cap"),
        ("exports = 0", "exprts = 0", "11: unknown name 'exprts'; did you mean 'exports'?"),
        ("exports = 0", "exports =", "11: 'exports =' cannot be read as a condition; write it like "
         "`tickets_90d > 5 and arr > 1000`"),
        ("exports = 0", '"1=1; drop table x"',
         "11: '1=1; drop table x' cannot be read as a condition; write it like "
         "`tickets_90d > 5 and arr > 1000`"),
        ("exports = 0", '"exports in (select 1)"',
         "11: 'exports IN (SELECT 1)' is not allowed in a condition; use comparisons, and, or, "
         "not, in, between, is null and arithmetic"),
        ("exports = 0", "getenv('HOME') = 'x'",
         "11: 'GETENV('HOME')' is not allowed in a condition; use comparisons, and, or, not, in, "
         "between, is null and arithmetic"),
        ("exports = 0", "exports", "11: 'exports' is not true or false; compare it with something"),
        ("exports = 0", "industry > 5",
         "11: 'industry > 5' compares a text with a number; compare like with like"),
        ("exports = 0", "renews_on < '1.5.2026'",
         "11: 'renews_on < '1.5.2026'' compares a day with a text; write a day like '2026-01-31'"),
        ("at_least: 50", "at_least: 0",
         "11: caps.0: the cap can never change a score; at_least 0, at_most 100 are idle"),
        ("at_least: 50", "at_least: 50, at_most: 60",
         "11: caps.0: give either `at_least` or `at_most`; a cap has one of the two"),
        ("points: {0: 100, 10: 0}", "points: {0: 100}",
         "8: components.0: points has one breakpoint; give at least two, like {0: 100, 10: 0}"),
        ("points: {0: 100, 10: 0}", "points: {0: 100, 10: -5}",
         "8: components.0.points.10: Input should be greater than or equal to 0; "
         "correct the value"),
        ("points: {0: 100, 10: 0}", "points: {0: 100, .inf: 0}",
         "8: components.0.points.inf: an infinite number cannot be used here; "
         "write a finite one"),
        ("points: {0: 100, 10: 0}", "points: {0: 100, ten: 0}",
         "8: components.0.points.ten: a number is expected here; write it without a unit"),
        ("points: {0: 100, 10: 0}", "points: [1, 2]",
         "8: components.0.points: `name: value` lines are expected here; write them"),
        ("points: {0: 100, 10: 0}", "missing: worst",
         "8: components.0: give either `points` or `steps`; a component has one of the two"),
        ("points: {0: 100, 10: 0}", "points: {0: 100, 10: 0}, missing: ignore",
         "8: components.0: missing is 'ignore'; it must be redistribute, neutral, worst, "
         "impute(<value>) or required"),
        ("points: {0: 100, 10: 0}", "points: {0: 100, 10: 0}, wieght: 5",
         "8: unknown setting 'components.0.wieght'; did you mean 'weight'?"),
        ("score: risk", "score: rissk",
         "1: score: 'rissk' is no score; it is risk, upsell, handoff or health:<outcome>"),
        ("version: 1", "version: one",
         "2: version: a whole number is expected here; write it without a unit"),
        ("believes: Exports are what they came for.\n", "", "1: 'believes' is missing; add it"),
        ("version: 1", "version: 1\nversion: 2",
         "3: 'version' is given twice; keep one of the two"),
        ("version: 1", "version: 1\ncoverage: {minimum: 60}",
         "3: coverage.minimum: Input should be less than or equal to 1; correct the value"),
        ("version: 1", "version: 1\napplies_to: {segment: bigg}",
         "3: unknown segment 'bigg'; did you mean 'big'?"),
        ("version: 1", "version: 1\napplies_to: {stage: xyz}",
         "3: unknown stage 'xyz'; valid are: mature, new"),
        ("version: 1", "version: 1\napplies_to: {segment: big}",
         "3: there is no default scorecard for risk; add one without `applies_to`"),
        ("version: 1", "version: [1", "3: not valid YAML: expected ',' or ']', but got ':'; "
         "correct the syntax"),
        ("version: 1", "\tversion: 1", "2: not valid YAML: found character '\\t' that cannot start "
         "any token; correct the syntax"),
        ("version: 1", "version: !!python/object/apply:os.system ['id']",
         "2: not valid YAML: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not "
         "allowed; correct the syntax"),
        ("version: 1", "version: !!python/name:os.system",
         "2: not valid YAML: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/name:os.system'; correct the syntax"),
        ("version: 1", "version: 2026-13-01", "2: not valid YAML: '2026-13-01' is no value of its "
         "kind (month must be in 1..12); correct the syntax"),
        ("version: 1", "version: &loop [*loop]", "1: is nested too deeply; make it flatter"),
        ("version: 1", "? [a, b]\n: 1", "2: not valid YAML: a key must be a plain word; "
         "correct the syntax"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_scorecard_is_one_line(home, old, new, line):
    assert old in CARD
    write(home, "scorecards/risk-exports.yaml", CARD.replace(old, new, 1))
    found = problems(home)
    assert f"scorecards/risk-exports.yaml:{line}" in found
    alone = not any(word in line for word in ("pillar", "not valid", "nested", "unknown s"))
    assert not alone or len(found) == 1, found


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("aggregate: sum(count)", "aggregate: sum(cuont)",
         "1: unknown column 'cuont' of usage_daily; did you mean 'count'?"),
        ("aggregate: sum(count)", "aggregate: total(count)",
         "1: unknown aggregation 'total'; valid are: count, count_distinct, days_since, "
         "days_since_first, days_until, last, max, mean, min, sum"),
        ("aggregate: sum(count)", "aggregate: sum",
         "1: aggregate is 'sum'; count stands alone, the others take a column like "
         "sum(value)"),
        ("aggregate: sum(count)", "aggregate: sum(count) or 1",
         "1: aggregate is 'sum(count) or 1'; write it like sum(value) or count"),
        ("aggregate: sum(count)", "aggregate: sum(event)",
         "1: sum needs a number; 'event' is none"),
        ("aggregate: sum(count)", "aggregate: last(event)",
         "1: last needs a number; 'event' is none"),
        ("aggregate: sum(count)", "aggregate: max(day)",
         "1: max needs a number; 'day' is none"),
        ("aggregate: sum(count)", "aggregate: days_since(count)",
         "1: days_since needs a time or a date; 'count' is none"),
        ("from: usage_daily", "from: usage_dayly",
         "4: from: unknown table 'usage_dayly'; did you mean 'usage_daily'?"),
        ("from: usage_daily", "from: outcomes",
         "4: from: metrics must not read outcomes; a score must not know what it is to "
         "predict"),
        ("window: 28d", "window: 28",
         "6: window: '28' is no number of days; write it like 28d"),
        ("window: 28d", "window: 0d",
         "6: window: '0d' is no number of days; write it like 28d"),
        ("window: 28d", "windw: 28d",
         "6: unknown setting 'windw'; did you mean 'window'?"),
        ("  window: 28d\n", "  compare: [previous_window]\n",
         "1: previous_window needs a window; add `window: 28d`"),
        ("kind: leading", "kind: leeding",
         "7: kind is 'leeding'; it must be one of 'leading' or 'lagging'"),
        ("window: 28d", "window: 28d\n  compare: [rivals]",
         "7: compare.0 is 'rivals'; it must be one of 'previous_window', 'peers' or "
         "'benchmark'"),
        ("window: 28d", "window: 28d\n  compare: [benchmark]",
         "1: compare: [benchmark] and `benchmark` go together; give both"),
        ("window: 28d", "window: 28d\n  compare: [benchmark]\n  benchmark: 0",
         "8: benchmark: Input should be greater than 0; correct the value"),
        ("window: 28d", "window: 28d\n  compare: [benchmark]\n  benchmark:\n    bigg: 3",
         "9: unknown segment 'bigg'; did you mean 'big'?"),
        ("window: 28d", "window: 28d\n  range: [10, 0]",
         "1: range is out of order; write it as [lowest, highest]"),
        ("window: 28d", "window: 28d\n  where: {evnt: x}",
         "1: unknown column 'evnt' of usage_daily; did you mean 'event'?"),
        ("window: 28d", "window: 28d\n  where: {event: {inn: [x]}}",
         "7: unknown setting 'where.event.inn'; did you mean 'in'?"),
        ("window: 28d", "window: 28d\n  where: {event: {}}",
         "7: where.event: the filter is empty; give in, not_in, above, below, is_null, "
         "..."),
        ("window: 28d", "window: 28d\n  where: {event: [a, b]}",
         "7: where.event: '['a', 'b']' is no text, number, true or false; "
         "write a single value"),
        ("window: 28d", "window: 28d\n  where: {event: {above: 3}}",
         "1: where.event: above needs a number; 'event' is a text"),
        ("window: 28d", "window: 28d\n  where: {count: {in: [many]}}",
         "1: where.count is compared with 'many'; 'count' is a number"),
        ("window: 28d", "window: 28d\n  where: {day: '2026-01-01'}",
         "1: where.day is compared with '2026-01-01'; use older_than, newer_than or "
         "after_as_of"),
        ("window: 28d", "window: 28d\n  where: {count: {older_than: 3d}}",
         "1: where.count: older_than needs a time; 'count' is a number"),
        ("  label: Exports\n", "", "1: 'label' is missing; add it"),
        ("exports:", "Exports:", "1: 'Exports' is no metric name; use small letters, digits and _"),
        ("exports:", "no:", "1: 'False' is no metric name; use small letters, digits and _"),
        ("exports:", '"x; drop table y":',
         "1: 'x; drop table y' is no metric name; use small letters, digits and _"),
        ("exports:", "arr:", "1: metric 'arr' is also a column of accounts; rename it"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_metric_is_one_line(home, old, new, line):
    body = METRIC.format(name="exports")
    assert old in body
    write(home, "metrics/own.yaml", body.replace(old, new, 1))
    found = [problem for problem in problems(home) if problem.startswith("metrics")]
    assert found == [f"metrics/own.yaml:{line}"]


def test_a_metric_with_a_mistake_is_not_also_unknown_where_it_is_used(home):
    write(home, "metrics/own.yaml", METRIC.format(name="exports").replace("28d", "28"))
    assert len(problems(home)) == 1


@pytest.mark.parametrize(
    ("ratio", "lines"),
    [
        ("{of: exprts, to: exports}",
         ["12: unknown metric 'exprts' in a ratio; did you mean 'exports'?"]),
        ("{of: exports, to: seat_utilisation}",
         ["12: unknown metric 'seat_utilisation' in a ratio; "
          "none of the 68 valid names is near; `healthloop catalogue` lists them"]),
        ("{of: exports}", ["12: 'ratio.to' is missing; add it"]),
        ("{of: exports, to: seats}\n  from: tickets",
         ["9: a ratio takes its rows from its two metrics; remove from, where and window"]),
        ("{of: exports, to: seats}\n  aggregate: count",
         ["9: give either `aggregate` or `ratio`; a metric is one of the two"]),
        ("{of: exports, to: seats}\n  compare: [previous_window]",
         ["13: previous_window needs a window, and 'seats' has none; "
          "add a window to 'seats' or remove previous_window"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_ratio_is_one_line(home, ratio, lines):
    share = (
        f"share:\n  label: Share\n  owner: o\n  ratio: {ratio}\n  kind: leading\n  better: higher\n"
    )
    write(home, "metrics/own.yaml", METRIC.format(name="exports") + share)
    found = [line for line in problems(home) if "valid names" not in line]
    expected = [f"metrics/own.yaml:{line}" for line in lines if "valid names" not in line]
    assert found == expected
    if not expected:
        (line,) = problems(home)
        assert line.startswith("metrics/own.yaml:12: unknown metric 'seat_utilisation' in a ratio")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("  - {name: small}\n", "", "1: segments have no default; end the list with a rule "
         "without `when`"),
        ("arr > 1000", "null", "1: segments have a default before their end; give it a `when`"),
        ("name: small", "name: big", "1: segments name one twice; rename or remove one"),
        ("name: small", "name: all", "1: segments name one 'all', which means the whole business; "
         "rename it"),
        ("name: small", "name: Small Ones",
         "3: segments.1.name: String should match pattern '^[a-z0-9][a-z0-9_-]*$'; "
         "correct the value"),
        ("arr > 1000", "active_days_28d.change > 5",
         "2: a profile cannot depend on 'active_days_28d.change'; use the metric itself; "
         "comparisons come after the profile"),
        ("arr > 1000", "arrr > 1000", "2: unknown name 'arrr'; did you mean 'arr'?"),
        ("arr > 1000", "is_customer = true", "2: unknown name 'is_customer'; none of"),
        ("arr > 1000", "5", "2: segments.0.when: a text is expected here; write it in quotes"),
        ("segments:", "segmnts:", "1: unknown setting 'segmnts'; did you mean 'segments'?"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_profiles_is_one_line(home, old, new, line):
    assert old in PROFILES
    write(home, "profiles.yaml", PROFILES.replace(old, new, 1))
    found = problems(home)
    assert any(problem.startswith(f"profiles.yaml:{line}") for problem in found), found


def test_two_scorecards_for_one_profile_are_a_mistake(home):
    write(home, "scorecards/risk-more.yaml", CARD)
    assert problems(home) == [
        "scorecards/risk-more.yaml:1: 'risk-more' and 'risk-exports' are for the same profile; "
        "make one more specific, or name different segments or stages"
    ]
    # Neither is more specific for an account that is big and new.
    for name, part in (("big", "segment: big"), ("new", "stage: new")):
        text = CARD.replace("version: 1", f"version: 1\napplies_to: {{{part}}}")
        write(home, f"scorecards/risk-{name}.yaml", text)
    (home / "scorecards/risk-more.yaml").unlink()
    assert problems(home) == [
        "scorecards/risk-new.yaml:3: 'risk-new' and 'risk-big' are for the same profile; "
        "make one more specific, or name different segments or stages"
    ]


def test_names_that_stand_twice_are_mistakes(home):
    write(home, "metrics/second.yaml", METRIC.format(name="exports"))
    write(home, "scorecards/risk-exports.yml", CARD)
    assert problems(home) == [
        "metrics/second.yaml:1: metric 'exports' stands already at metrics/own.yaml:1; rename one",
        "scorecards/risk-exports.yml:1: scorecard 'risk-exports' stands already at "
        "scorecards/risk-exports.yaml:1; rename one",
    ]


def test_a_company_without_any_scorecard_is_told(home):
    (home / "scorecards/risk-exports.yaml").unlink()
    assert problems(home) == [
        "scorecards:1: there is no scorecard; add one, or set `library_scorecards: true` "
        "in company.yaml"
    ]


def test_an_unknown_use_metric_is_a_mistake_in_company_yaml(home):
    write(home, "company.yaml", "name: Acme\nuse_metric: actve_days_28d\n")
    assert problems(home, use_metric="actve_days_28d") == [
        "company.yaml:2: use_metric 'actve_days_28d' is no metric; did you mean 'active_days_28d'?"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- {when: exports > 5}", "1: 'because' is missing; add it"),
        ("- {when: exprts > 5, because: x}", "1: unknown name 'exprts'; did you mean 'exports'?"),
        ("when: exports > 5", "1: no list of signals here; write `- {when: ..., because: ...}`"),
        ("- exports > 5", "1: a list of settings is expected here; write `name: value` lines"),
    ],
)
def test_a_mistake_in_the_watermelons_is_one_line(home, text, line):
    write(home, "watermelons.yaml", text)
    assert problems(home) == [f"watermelons.yaml:{line}"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n- b", "1: no metrics here; write `name: {label: ..., ...}`"),
        ("", "1: no metrics here; write `name: {label: ..., ...}`"),
        (
            "exports: 5",
            "1: a list of settings is expected here; write `name: value` lines",
        ),
    ],
)
def test_a_file_of_metrics_without_metrics_is_a_mistake(home, text, line):
    write(home, "metrics/own.yaml", text)
    assert f"metrics/own.yaml:{line}" in problems(home)


def test_files_that_cannot_be_read_are_one_line(tmp_path):
    def problem(content: bytes) -> str:
        (tmp_path / "x.yaml").write_bytes(content)
        document, (found,) = read_document(tmp_path / "x.yaml")
        assert document is None
        return str(found).replace(f"{tmp_path}/", "")

    assert problem(b"\xff\xfe\x00") == "x.yaml:1: is not UTF-8 text; save it as UTF-8"
    assert problem(b"a: \x00") == (
        "x.yaml:1: not valid YAML: unacceptable character #x0000: special characters are not "
        "allowed; correct the syntax"
    )
    assert problem(b"[" * 3000) == "x.yaml:1: is nested too deeply; make it flatter"
    laughs = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
    )
    assert f"it has more than {MOST_NODES:,} keys and values" in problem(laughs.encode())
    assert problem(b"a: b: c").startswith(
        "x.yaml:1: not valid YAML: mapping values are not allowed"
    )
    assert problem(b"---\na: 1\n---\nb: 2").startswith("x.yaml:3: not valid YAML: ")
    document, found = read_document(tmp_path / "none.yaml")
    assert document is None
    assert str(found[0]).endswith(
        "none.yaml:1: cannot be read: No such file or directory; check that it is a readable file"
    )


def test_company_yaml_has_lines_too(tmp_path):
    write(tmp_path, "company.yaml", textwrap.dedent(
        """\
        name: Acme
        tenant: acme
        history_start: 2024-01-01
        time_zone: Europe/Berlni
        curency: EUR
        limits:
          quarantine_shar: 0.1
          identity_coverage: 80
        """))  # fmt: skip
    with pytest.raises(ConfigurationError) as error:
        read_company(tmp_path)
    assert str(error.value).replace(f"{tmp_path}/", "").splitlines() == [
        "company.yaml:4: time_zone: unknown time zone 'Europe/Berlni'; "
        "did you mean 'Europe/Berlin'?",
        "company.yaml:5: unknown setting 'curency'; did you mean 'currency'?",
        "company.yaml:7: unknown setting 'limits.quarantine_shar'; "
        "did you mean 'quarantine_share'?",
        "company.yaml:8: limits.identity_coverage: Input should be less than or equal to 1; "
        "correct the value",
    ]


def test_every_mistake_is_listed_at_once(home):
    write(home, "metrics/own.yaml", METRIC.format(name="exports").replace("28d", "28"))
    write(home, "scorecards/risk-exports.yaml", CARD.replace("red: 70", "red: 30"))
    write(home, "profiles.yaml", PROFILES.replace("arr >", "arrr >"))
    with pytest.raises(ConfigurationError) as error:
        read_library(Company(home, settings()))
    assert len(error.value.problems) == 3
    assert error.value.cause == "3 mistake(s) in the company folder"


def test_what_is_unwise_is_a_warning_and_no_mistake(home):
    components = "\n".join(
        f"  - {{metric: exports, pillar: reactive, weight: {w}, points: {{0: 1, 1: 0}}}}"
        for w in (55, 5, 5, 5, 5, 5, 5, 5)
    )
    card = CARD.replace("weight: 60", "weight: 10").replace("reactive: {weight: 40}",
                                                            "reactive: {weight: 90}")  # fmt: skip
    card = card.replace(
        "  - {metric: open_tickets, pillar: reactive, weight: 40, points: {0: 0, 5: 100}}",
        components,
    )
    write(home, "scorecards/risk-exports.yaml", card)
    library, found = check_library(Company(home, settings()))
    assert found == []
    assert [str(warning).replace(f"{home}/", "") for warning in library.warnings] == [
        "scorecards/risk-exports.yaml:4: the pillar 'proactive' weighs 10%; "
        "value moments and goals should be at least half of a score",
        "scorecards/risk-exports.yaml:7: 9 components; "
        "few metrics first: more than 8 are hard to trust",
        "scorecards/risk-exports.yaml:9: exports alone is 55 % of the score; "
        "no component should weigh above 40 %",
    ]


def test_more_than_four_outcomes_are_a_warning(home):
    for number in range(5):
        card = CARD.replace("score: risk", f"score: health:outcome{number}")
        card = card.replace("{red: 70, yellow: 40}", "{green: 70, yellow: 40}")
        write(home, f"scorecards/health-{number}.yaml", card)
    library, found = check_library(Company(home, settings()))
    assert found == []
    assert any(
        str(warning).endswith(
            "scorecards:1: 5 desired outcomes have a score; more than 4 are hard to keep apart"
        )
        for warning in library.warnings
    )
    assert library.scores[0] == "risk"


def test_labels_and_reasons_may_hold_any_text(home):
    label = "\"It's {{ 7 * 7 }} %s 'x'; --\""
    metric = METRIC.format(name="exports").replace("label: Exports", f"label: {label}")
    write(home, "metrics/own.yaml", metric)
    write(home, "scorecards/risk-exports.yaml", CARD.replace("No exports", '"It\'s {over}; --"'))
    assert problems(home) == []
