"""Playbooks as configuration: what may stand in them, what is shipped, and what people read."""

import datetime as dt
import textwrap
from pathlib import Path

import pytest

from contracts.company import Company, Settings, read_company
from contracts.errors import NotFoundError
from orchestration.resources import warehouse_of
from scoring import actions, templates
from scoring.config.playbooks import Playbook
from scoring.library import SHIPPED, Library, check_library, read_library
from scoring.playbook_pages import playbook_page, playbooks_page
from tests.demo_company import TODAY, WEEK_ENDS, copy_of, scored_demo

PLAYBOOK = """\
purpose: Somebody has to look.
trigger: {score: risk, band: red, driver: usage_events_28d.change, for_days: 2}
audience: {segment: [enterprise, mid-market]}
cooldown: 30d
holdout: 0.1
tasks:
  - {owner: csm, due: +2d, priority: high, subject: "Call {account.name}", steps: [Call them]}
clears_when: active_days_28d > 10
escalate: {after: 5d, to: csm_manager}
value_at_risk: mrr
"""


def company(home: Path, **settings: object) -> Company:
    values = {"name": "Acme", "tenant": "acme", "history_start": dt.date(2024, 1, 1), **settings}
    return Company(home, Settings.model_validate(values))


def write(home: Path, text: str, name: str = "own") -> Path:
    file = home / "playbooks" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def problems(home: Path, text: str, name: str = "own") -> list[str]:
    file = write(home, text, name)
    _, found = check_library(company(home))
    return [str(problem).replace(f"{file}:", "") for problem in found]


def test_the_example_is_read_and_stands_beside_the_shipped_ones(tmp_path):
    write(tmp_path, PLAYBOOK)
    library = read_library(company(tmp_path))
    own = library.playbooks["own"]
    assert (own.cooldown, own.holdout, own.tasks[0].due, own.trigger.for_days) == (30, 0.1, 2, 2)
    assert (own.kind, own.escalate.after, own.escalate.to) == ("alarm", 5, "csm_manager")
    assert len(library.playbooks) > 12


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("score: risk", "score: rsk", "'rsk' is no score; it is risk, upsell, handoff or"),
        ("score: risk", "score: health:growth",
         "2: no scorecard makes the score 'health:growth'"),
        ("band: red", "band: rad", "risk has no band 'rad'; did you mean 'red'?"),
        ("band: red", "band: ready", "risk has no band 'ready'"),
        ("score: risk, band", "band", "`band` needs a score; add `score: risk`"),
        ("band: red, driver: usage_events_28d.change, for_days: 2", "for_days: 2",
         "`score: risk` says nothing by itself; add `band: ...`"),
        ("{score: risk, band: red, driver: usage_events_28d.change, for_days: 2}", "{for_days: 2}",
         "the trigger is empty; give `score` and `band`, or `when`"),
        ("band: red, driver: usage_events_28d.change, for_days: 2", "change: {by: 5, within: 7d}",
         None),
        ("usage_events_28d.change", "usage_events_28d.chnge",
         "2: no scorecard of risk reads 'usage_events_28d.chnge'; "
         "did you mean 'usage_events_28d.change'?"),
        ("usage_events_28d.change", "logins_28d", "2: no scorecard of risk reads 'logins_28d'"),
        ("for_days: 2", "for_day: 2", "unknown setting 'trigger.for_day'; did you mean"),
        ("enterprise,", "enterprize,", "3: unknown segment 'enterprize'; did you mean"),
        ("segment: [enterprise, mid-market]", "stage: onbording",
         "3: unknown stage 'onbording'; did you mean 'onboarding'?"),
        ("cooldown: 30d", "cooldown: 30", "'30' is no number of days; write it like 28d"),
        ("holdout: 0.1", "holdout: 0.6", "5: holdout: Input should be less than or equal to 0.5"),
        ("owner: csm", "owner: cms", "nobody has the role 'cms'; did you mean 'csm'?"),
        ("owner: csm", 'owner: "queue:"', "nobody has the role 'queue:'"),
        ("due: +2d", "due: tomorrow", "'tomorrow' is no number of days from now; write it like"),
        ("priority: high", "priority: urgent", "7: tasks.0.priority is 'urgent'; it must be one"),
        ("steps: [Call them]", "steps: []", "7: tasks.0.steps: List should have at least 1 item"),
        ("{account.name}", "{account.nam}",
         "7: unknown placeholder '{account.nam}'; did you mean 'account.name'?"),
        ("{account.name}", "{metric:usage_event_28d}",
         "7: unknown placeholder '{metric:usage_event_28d}'; did you mean "
         "'metric:usage_events_28d'?"),
        ("active_days_28d > 10", "active_day_28d > 10",
         "8: unknown name 'active_day_28d'; did you mean 'active_days_28d'?"),
        ("active_days_28d > 10", "active_days_28d < 0",
         "8: 'active_days_28d < 0' can never hold: it is outside the metric's range; correct the"),
        ("active_days_28d > 10", '"true; drop table x"', "8: 'true; drop table x' cannot be read"),
        ("value_at_risk: mrr", "value_at_risk: mmr", "10: 'mmr' is no number of an account; did"),
        ("value_at_risk: mrr", "value_at_risk: renews_on", "10: 'renews_on' is no number of an"),
        ("purpose: Somebody has to look.\n", "", "1: 'purpose' is missing; add it"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_the_nearest_name(tmp_path, old, new, said):
    assert old in PLAYBOOK
    found = problems(tmp_path, PLAYBOOK.replace(old, new))
    if said is None:  # it clears by a condition of its own
        assert found == []
    else:
        assert len(found) == 1, found
        assert said in found[0]


def test_a_change_that_passes_by_itself_needs_something_that_clears_it(tmp_path):
    text = "purpose: x\ntrigger: {score: risk, change: {by: 15, within: 7d}}\n"
    text += "tasks: [{subject: x, steps: [x]}]\n"
    assert "a change alone passes by itself" in problems(tmp_path, text)[0]
    assert problems(tmp_path, text + "clears_when: active_days_28d > 10\n") == []
    assert "`by` is outside" in problems(tmp_path, text.replace("15", "0"))[0]


def test_a_file_name_that_would_break_a_key_is_refused(tmp_path):
    assert "is no playbook name" in problems(tmp_path, PLAYBOOK, name="a|b")[0]


def test_an_own_playbook_replaces_the_shipped_one_of_its_name_and_a_switch_turns_all_off(tmp_path):
    write(tmp_path, PLAYBOOK, name="champion-left")
    assert read_library(company(tmp_path)).playbooks["champion-left"].value_at_risk == "mrr"
    alone = read_library(company(tmp_path, library_playbooks=False))
    assert list(alone.playbooks) == ["champion-left"]


def test_a_playbook_changes_no_score_so_the_library_of_scores_stays_the_same(tmp_path):
    before = read_library(company(tmp_path))
    write(tmp_path, PLAYBOOK)
    after = read_library(company(tmp_path))
    assert set(after.playbooks) - set(before.playbooks) == {"own"}
    assert (after.fingerprint, after.document) == (before.fingerprint, before.document)


def test_shipped_playbooks_that_a_company_has_no_use_for_are_left_out_without_a_word(tmp_path):
    (tmp_path / "scorecards").mkdir()
    (tmp_path / "scorecards" / "risk-own.yaml").write_text(
        "score: risk\nversion: 1\nbelieves: x\npillars: {proactive: {weight: 100}}\n"
        "components:\n  - {metric: active_days_28d, pillar: proactive, weight: 100, "
        "points: {0: 100, 20: 0}}\nbands: {red: 70, yellow: 40}\n"
    )
    library, found = check_library(company(tmp_path, library_scorecards=False))
    assert found == []
    assert library is not None
    assert {"risk-red", "few-active-users", "p1-open", "seats-full"} <= set(library.playbooks)
    # no upsell score, no handoff score; and nothing that this risk reads is use that falls
    left_out = {"upsell-ready", "handoff-incomplete", "usage-falling"}
    assert not left_out & set(library.playbooks)


# -- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["{account.__class__}", "{account.name.upper}", "{0}", "{}", "{account[name]}",
     "{account.name!r}", "{account.name:>1000000}", "{metric:x.__init__}", "{{account.name}}",
     "{% raw %}", "{account.name"],
)  # fmt: skip
def test_f91_a_placeholder_is_a_known_name_and_nothing_else(tmp_path, text):
    yaml = PLAYBOOK.replace("{account.name}", text)
    assert any("placeholder" in p or "brace" in p for p in problems(tmp_path, yaml))


def test_f91_what_is_filled_in_is_never_read_as_a_placeholder_again():
    values = {"account.name": "{reason} {account.owner} %s ${HOME}", "reason": "secret"}
    text = templates.filled("Call {account.name}", values)
    assert text == "Call {reason} {account.owner} %s ${HOME}"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("Acme\r\nBcc: all@example.com", "Acme Bcc: all@example.com"),
        ("A\x00B\x1b[31mC\x7f", "AB[31mC"),
        ("\u202egnp.exe\u2066x\u2069", "gnp.exex"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("one\u2028two\u2029three\x85four", "one two three four"),
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("Zoë \U0001f469\u200d\U0001f4bb", "Zoë \U0001f469\u200d\U0001f4bb"),
        ("   ", ""),
        ("x" * 10_000_000, "x" * 119 + "…"),
    ],
)
def test_f44_f45_f90_a_hostile_name_becomes_one_short_harmless_line(hostile, shown):
    assert templates.one_line(hostile) == shown


# -- the shipped library --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Library:
    return read_library(company(tmp_path_factory.mktemp("company")))


def test_there_is_a_playbook_for_each_common_low_metric_and_for_every_kind(shipped):
    kinds = [playbook.kind for playbook in shipped.playbooks.values()]
    assert kinds.count("proactive") >= 3
    assert kinds.count("upsell") >= 2
    assert kinds.count("handoff") >= 1
    assert kinds.count("alarm") >= 12


def test_every_shipped_file_is_in_use_with_the_shipped_scorecards(shipped):
    assert {file.stem for file in (SHIPPED / "playbooks").glob("*.yaml")} == set(shipped.playbooks)


@pytest.mark.parametrize(
    "file", sorted((SHIPPED / "playbooks").glob("*.yaml")), ids=lambda f: f.stem
)
def test_a_shipped_playbook_tells_what_it_is_for_and_what_is_expected(shipped, file):
    playbook: Playbook = shipped.playbooks[file.stem]
    assert len(playbook.purpose.split()) >= 12
    assert len((playbook.expected or "").split()) >= 8
    for task in playbook.tasks:
        assert len(task.steps) >= 2
        assert "{account.name}" in task.subject  # people see it in a list of many accounts
    assert playbook.holdout == 0 or playbook.escalate is None  # what is urgent is no experiment


NOT_ON_THE_DEMO = {
    "onboarding-plan": "every customer of the synthetic world is given a plan on its first day",
}


def test_every_shipped_playbook_fires_on_the_demo_or_says_why_not(tmp_path, tmp_path_factory):
    home = copy_of(scored_demo(tmp_path_factory), tmp_path)
    demo = read_company(home)
    library = read_library(demo)
    fired: set[str] = set()
    with warehouse_of(demo).get_connection() as connection:
        for day in (*WEEK_ENDS, TODAY):
            report = actions.find_triggers(connection, library, day)
            fired |= {name for name, count in report.holds.items() if count}
    assert set(library.playbooks) - fired == set(NOT_ON_THE_DEMO)


# -- pages ----------------------------------------------------------------------------------------


def test_a_page_says_when_who_by_when_and_how_it_ends(shipped):
    page = playbook_page(shipped, "milestone-late")
    assert page.startswith("# milestone-late\n")
    for said in (
        "**What is expected.**",
        "**When.** On 2 scored days in a row: Milestones overdue above 0. For stage onboarding.",
        "**Task 1.** CSM, due in 3 days, normal priority:",
        "1. Find out what it waits for",
        "**Clears** when Milestones overdue is 0;",
        "**Again** not before 21 days",
        "the CSM's manager is told once",
    ):
        assert said in page
    assert "Never while the risk is red." in playbook_page(shipped, "seats-full")
    assert "**Hold-out:** 10%" in playbook_page(shipped, "upsell-ready")


def test_the_page_of_all_names_every_playbook_and_an_unknown_one_is_refused(shipped):
    page = playbooks_page(shipped)
    assert all(f"\n### {name}\n" in page for name in shipped.playbooks)
    with pytest.raises(NotFoundError, match="did you mean 'p1-open'"):
        playbook_page(shipped, "p1-opn")
