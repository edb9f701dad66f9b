"""The commands that only look: scores, explain, catalogue, gaps, and what every command shares."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from demo_company import (
    TODAY,
    WEEK_ENDS,
    Answer,
    healthloop,
    own,
    rows_of,
    scored_demo,
    write_small_company,
)

COMMANDS = ("demo", "run", "check", "scores", "explain", "catalogue", "gaps", "doctor", "ui")
LISTS = (("scores",), ("scores", "--trend"), ("gaps",), ("doctor",))


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    return own(scored_demo(tmp_path_factory), tmp_path_factory)


@pytest.fixture(scope="session")
def ask(demo):
    return lambda *arguments: healthloop(*arguments, "--home", str(demo))


def refused(answer: Answer, text: str) -> None:
    assert (answer.code, answer.out, answer.err) == (2, "", text + "\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_shows_an_example(command):
    answer = healthloop(command, "--help")
    assert answer.code == 0
    assert f"Example:  healthloop {command}" in answer.out
    assert "--home" in answer.out


def test_every_example_of_a_help_page_is_a_valid_command():
    for command in COMMANDS:
        example = re.search(r"Example:\s+healthloop (.*)", healthloop(command, "--help").out)
        words = example[1].split(" > ")[0].split()
        options = [word for word in words if word.startswith("--")]
        shown = healthloop(words[0], "--help").out
        assert words[0] == command
        assert all(re.search(rf"{option}\b", shown) for option in options), words


def test_without_a_command_the_help_is_shown():
    answer = healthloop()
    assert "Usage: healthloop" in answer.both
    assert all(f"  {command} " in answer.both for command in COMMANDS)


@pytest.mark.parametrize("arguments", LISTS)
def test_lists_are_json_csv_or_a_table_of_the_same_rows(ask, arguments):
    as_json, as_csv = ask(*arguments, "--format", "json"), ask(*arguments, "--format", "csv")
    table = ask(*arguments)
    listed = json.loads(as_json.out)
    read = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert listed
    assert len(read) == len(listed)
    assert list(read[0]) == list(listed[0])
    assert table.out.count("\n") > 2
    if arguments != ("doctor",):
        assert {as_json.code, as_csv.code, table.code} == {0}


def test_a_table_says_how_much_it_leaves_out_and_json_is_whole(ask):
    everything = json.loads(ask("scores", "--format", "json").out)
    answer = ask("scores", "--limit", "7")
    assert answer.err == f"{len(everything) - 7} more; --limit shows them\n"
    assert sum(line.startswith("ACC-") for line in answer.out.splitlines()) == 7


def test_scores_come_highest_first_within_their_bounds(ask):
    rows = json.loads(ask("scores", "--format", "json").out)
    values = [row["score"] for row in rows if row["score"] is not None]
    assert values == sorted(values, reverse=True)
    assert all(
        row["low"] <= row["score"] <= row["high"] for row in rows if row["score"] is not None
    )
    green = json.loads(
        ask("scores", "--band", "green", "--segment", "enterprise", "--format", "json").out
    )
    assert green
    assert {(row["band"], row["segment"]) for row in green} == {("green", "enterprise")}
    assert set(map(str, green)) <= set(map(str, rows))


def test_scores_of_an_earlier_day_are_the_scores_of_that_day(ask, demo):
    listed = json.loads(ask("scores", "--as-of", str(WEEK_ENDS[0]), "--format", "json").out)
    stored = rows_of(
        demo,
        "SELECT account_id, value::DOUBLE FROM scores.scores WHERE as_of = ? AND score = 'risk'",
        [WEEK_ENDS[0]],
    )
    assert {(row["account_id"], row["score"]) for row in listed} == set(stored)


def test_the_trend_counts_every_account_of_every_scored_day_once(ask):
    rows = json.loads(ask("scores", "--trend", "--format", "json").out)
    days = {row["as_of"] for row in rows}
    assert days == {str(day) for day in (*WEEK_ENDS, TODAY)}
    for day in days:
        listed = json.loads(ask("scores", "--as-of", day, "--format", "json").out)
        assert sum(row["accounts"] for row in rows if row["as_of"] == day) == len(listed)


def test_the_trend_of_one_account_is_found_by_its_name_too(ask, demo):
    account, name = one_account(demo)
    by_id = ask("scores", "--trend", "--account", account, "--format", "json")
    by_name = ask("scores", "--trend", "--account", name, "--format", "json")
    assert by_id.out == by_name.out
    assert [row["as_of"] for row in json.loads(by_id.out)] == [
        str(day) for day in (*WEEK_ENDS, TODAY)
    ]


def one_account(demo: Path) -> tuple[str, str]:
    """The account that moved most since the first week-end."""
    (row,) = rows_of(
        demo,
        "SELECT account_id, any_value(name) FROM scores.scores JOIN metrics.accounts "
        "USING (as_of, account_id) WHERE score = 'risk' AND as_of IN (?, ?) AND value IS NOT NULL "
        "GROUP BY account_id HAVING count(*) = 2 "
        "ORDER BY max(value) - min(value) DESC, account_id LIMIT 1",
        [WEEK_ENDS[0], TODAY],
    )
    return str(row[0]), str(row[1])


@pytest.mark.parametrize("score", ["risk", "upsell"])
def test_contributions_sum_to_the_score_and_the_parts_of_a_change_to_the_change(ask, demo, score):
    rows = json.loads(ask("scores", "--score", score, "--format", "json").out)
    known = [row for row in rows if row["score"] is not None]
    for row in known[:2] + known[len(known) // 2 :][:2] + known[-1:]:
        answer = ask(
            "explain", row["account_id"], "--score", score,
            "--since", str(WEEK_ENDS[-1]), "--format", "json",
        )  # fmt: skip
        told = json.loads(answer.out)
        assert told["value"] == pytest.approx(row["score"])
        assert told["low"] <= told["value"] <= told["high"]
        assert round(sum(c["contribution"] for c in told["contributions"]), 2) == told["value"]
        change = told["change"]
        moved = round(sum(part["amount"] for part in change["parts"]), 2)
        assert moved == round(change["value_now"] - change["value_then"], 2)
        assert {"profile", "scorecard", "missing data", "override"} <= {
            part["kind"] for part in change["parts"]
        }


def test_the_text_of_an_explanation_shows_a_sum_and_a_waterfall_that_add_up(ask, demo):
    account, name = one_account(demo)
    told = json.loads(ask("explain", account, "--since", str(WEEK_ENDS[0]), "--format", "json").out)
    answer = ask("explain", name, "--since", str(WEEK_ENDS[0]))
    value = f"{told['value']:.2f}"
    assert f"{name} ({account}), risk as of {TODAY}: {value} {told['band']}\n" in answer.out
    assert f"{told['scorecard']} v{told['version']}, because the account is" in answer.out
    table, waterfall = answer.out.split("What moved it since")
    adds = [line.split()[-1] for line in table.split("adds\n")[1].splitlines() if line.strip()]
    *parts, total = [float(number) for number in adds if re.fullmatch(r"-?\d+\.\d\d", number)]
    assert round(sum(parts), 2) == total == told["value"]
    steps = [float(step) for step in re.findall(r"\s([+-]\d+\.\d\d)\b", waterfall)]
    start, end = re.findall(rf"^(?:{WEEK_ENDS[0]}|{TODAY})\s+(\S+)", waterfall, re.MULTILINE)
    assert round(float(start) + sum(steps), 2) == float(end) == told["value"]


def test_an_explanation_as_csv_has_a_row_for_each_contribution(ask, demo):
    account, _ = one_account(demo)
    rows = list(csv.DictReader(io.StringIO(ask("explain", account, "--format", "csv").out)))
    told = json.loads(ask("explain", account, "--format", "json").out)
    assert [float(row["adds"]) for row in rows] == [
        c["contribution"] for c in told["contributions"]
    ]


def test_names_that_do_not_exist_are_refused_in_one_line_that_names_what_does(ask):
    day = TODAY
    refused(
        ask("explain", "zzz"),
        f"no customer account 'zzz' on {day}; `healthloop scores` lists them",
    )
    refused(
        ask("scores", "--as-of", "2026-06-10"),
        f"2026-06-10 is not scored; the nearest scored day is {WEEK_ENDS[0]}; "
        "`healthloop run --as-of 2026-06-10` scores it",
    )
    refused(
        ask("scores", "--score", "nps"),
        f"there is no score 'nps' on {day}; choose one of: handoff, risk, upsell",
    )
    refused(
        ask("scores", "--band", "purple"),
        "risk has no band 'purple'; choose one of: red, yellow, green, unknown",
    )
    refused(
        ask("scores", "--segment", "whale"),
        f"there is no segment 'whale' on {day}; "
        "choose one of: enterprise, mid-market, small-business",
    )
    refused(
        ask("scores", "--trend", "--account", "zzz"),
        f"no customer account 'zzz' on {day}; `healthloop scores` lists them",
    )


def test_an_account_that_does_not_exist_is_answered_with_the_nearest_ones(ask):
    answer = ask("explain", "ACC-0002")
    told = re.fullmatch(
        rf"no customer account 'ACC-0002' on {TODAY}; did you mean (.+)\?\n", answer.err
    )
    listed = {row["account_id"] for row in json.loads(ask("scores", "--format", "json").out)}
    assert answer.code == 2
    assert set(re.findall(r"'(.+?)'", told[1])) <= listed


def test_a_score_that_an_account_does_not_have_is_refused(ask, demo):
    account, _ = one_account(demo)
    refused(
        ask("explain", account, "--score", "handoff"),
        f"'{account}' has no handoff score on {TODAY}; choose one of: risk, upsell",
    )


def test_a_home_that_is_none_is_refused(tmp_path):
    for command in ("scores", "run", "check", "doctor", "catalogue", "gaps"):
        refused(
            healthloop(command, "--home", str(tmp_path)),
            f"{tmp_path}/company.yaml does not exist; name a company folder with --home or "
            "HEALTHLOOP_HOME, or make a first one with `healthloop demo`",
        )


def test_a_company_without_scores_is_told_to_run_first_and_gets_no_empty_warehouse(tmp_path):
    home = write_small_company(tmp_path / "company")
    for arguments in (("scores",), ("scores", "--trend"), ("explain", "A-1"), ("gaps",)):
        refused(
            healthloop(*arguments, "--home", str(home)),
            "nothing is scored yet; run `healthloop run` first",
        )
    assert not (home / "state").exists()


def test_wrong_options_are_one_line_and_exit_code_2(ask):
    refused(
        ask("scores", "--as-of", "tomorrow"),
        "Invalid value for '--as-of': 'tomorrow' is no day; write it like 2026-06-30",
    )
    refused(
        ask("scores", "--format", "xml"),
        "Invalid value for '--format': 'xml' is not one of 'table', 'json', 'csv'; "
        "see `healthloop scores --help`",
    )
    refused(healthloop("explain"), "Missing argument 'account'; see `healthloop explain --help`")
    refused(healthloop("score"), "No such command 'score'. Did you mean 'scores', 'sources'?")
    for wrong in (("scores", "--limit", "0"), ("demo", "--accounts", "3"), ("scores", "--colour")):
        answer = healthloop(*wrong)
        assert (answer.code, answer.out) == (2, "")
        assert len(answer.err.splitlines()) == 1
        assert f"see `healthloop {wrong[0]} --help`" in answer.err


def test_the_catalogue_is_markdown_with_owners_of_all_metrics_and_scorecards(ask):
    text = ask("catalogue").out
    assert text.startswith("# What Lakeview Analytics (synthetic) measures and how it scores\n")
    assert "| `active_days_28d` |" in text
    assert "product-analytics" in text
    assert text.count("risk-") >= 6


def test_a_cell_that_a_spreadsheet_would_run_is_quoted_in_csv(tmp_path):
    from orchestration.cli.console import Format, print_rows

    out = io.StringIO()
    stdout, sys.stdout = sys.stdout, out
    try:
        print_rows("", ("name", "n"), [("=1+1", -3), ("@cmd", 0.5), ("-", None)], Format.CSV)
    finally:
        sys.stdout = stdout
    assert out.getvalue() == "name,n\n'=1+1,-3\n'@cmd,0.5\n'-,\n"


def test_the_installed_command_reads_a_broken_company_without_a_stack_trace(tmp_path):
    """`HEALTHLOOP_HOME` of a broken company once broke the import of the command line itself."""
    (tmp_path / "company.yaml").write_text("name: [\n", encoding="utf-8")
    program = Path(sys.executable).with_name("healthloop")
    done = subprocess.run(
        [program, "check"],
        env={"HEALTHLOOP_HOME": str(tmp_path), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"{tmp_path}/company.yaml:2: not valid YAML: expected the node content, but found "
        "'<stream end>'; correct the syntax\n"
        "1 mistake(s) in the company folder; correct them and run `healthloop check`\n"
    )


def test_a_defect_is_one_line_that_holds_no_value_of_a_row(monkeypatch):
    import orchestration.cli.checking as commands

    def broken(home: Path) -> None:
        raise ValueError("ann@alderfoods.com")

    monkeypatch.setattr(commands, "read_company", broken)
    answer = healthloop("catalogue")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(
        r"ValueError in test_cli_queries\.py:\d+; this is a defect of Healthloop: report it, "
        r"HEALTHLOOP_TRACEBACK=1 shows more\n",
        answer.err,
    )
