"""Conditions in YAML: what may stand in them, and that nothing else reaches DuckDB."""

import datetime as dt
import re

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scoring.expressions import (
    DAY,
    TEXT,
    TRUTH,
    can_hold,
    identifier,
    literal,
    parse_condition,
)

KINDS = {"name": TEXT, "day": DAY, "flag": TRUTH}
NAMES = {"n", "m", "name", "day", "flag", "n.change"}
COLUMNS = {name: f'"{name}"' for name in NAMES}


@pytest.fixture(scope="module")
def facts():
    connection = duckdb.connect()
    connection.execute(
        'CREATE TABLE facts (n DOUBLE, m BIGINT, name VARCHAR, "day" DATE, flag BOOLEAN, '
        '"n.change" DOUBLE)'
    )
    connection.execute("INSERT INTO facts VALUES (5, 3, 'Ann', DATE '2026-03-31', true, -50)")
    connection.execute("INSERT INTO facts SELECT NULL, NULL, NULL, NULL, NULL, NULL")
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n > 4", True),
        ("n > 4 and m < 3", False),
        ("not (n > 4 or m < 3)", False),
        ("n between 4 and 6", True),
        ("n in (1, 5)", True),
        ("name in ('Ann', 'Bob')", True),
        ("name <> 'Ann'", False),
        ("day >= '2026-03-31'", True),
        ("day - day = 0", True),
        ("flag", True),
        ("flag = true and not flag", False),
        ("n is null", False),
        ("n is not null", True),
        ("n / m > 1.5", True),
        ("-n < -4", True),
        ("n.change < -40", True),
        ('"n.change" < -40', True),
        ("true", True),
    ],
)
def test_a_condition_says_what_it_says(facts, text, expected):
    condition = parse_condition(text, NAMES, KINDS).over(COLUMNS)
    (result,) = facts.execute(f"SELECT {condition} FROM facts WHERE n = 5").fetchone()
    assert result is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1=1; drop table x", "'1=1; drop table x' cannot be read as a condition; write it like"),
        ("", "'' cannot be read as a condition"),
        ("n >", "cannot be read as a condition"),
        ("n > 5 limit 3", "cannot be read as a condition"),
        ("(" * 5000, "cannot be read as a condition"),
        (
            "n in (select 1)",
            "'n IN (SELECT 1)' is not allowed in a condition; use comparisons, and, or",
        ),
        ("exists (select 1)", "is not allowed in a condition"),
        ("count(*) > 1", "'COUNT(*)' is not allowed in a condition"),
        ("getenv('HOME') = 'x'", "is not allowed in a condition"),
        ("read_text('/etc/passwd') = 'x'", "is not allowed in a condition"),
        ("n > current_date", "is not allowed in a condition"),
        ("n in m", "'n IN m' is not allowed in a condition"),
        ("n = any([1])", "is not allowed in a condition"),
        ("$1 > 2", "is not allowed in a condition"),
        ("n > 1e999", "'1e999' is not allowed in a condition"),
        ("n::varchar = '5'", "is not allowed in a condition"),
        ("case when n > 1 then true end", "is not allowed in a condition"),
        ("a.b.c > 1", "'a.b.c' is not allowed in a condition"),
        ("o > 5", "unknown name 'o'; valid are: day, flag, m, n, n.change, name"),
        ("n.chnge > 5", "unknown name 'n.chnge'; did you mean 'n.change'?"),
        ("n", "'n' is not true or false; compare it with something"),
        ("n + m", "'n + m' is not true or false; compare it with something"),
        ("n and m", "'n' is not true or false in 'n AND m'; compare it with something"),
        ("1 < n < 3", "compares true or false with a number; compare like with like"),
        ("name > 5", "'name > 5' compares a text with a number; compare like with like"),
        ("n = 'five'", "'n = 'five'' compares a number with a text; compare like with like"),
        ("n = null", "'n = NULL' compares a number with null; write `is null`"),
        ("day > '31.3.2026'", "compares a day with a text; write a day like '2026-01-31'"),
        ("day > '2026-02-30'", "compares a day with a text; write a day like '2026-01-31'"),
        ("name + 1 > 2", "'name + 1' cannot be computed; use numbers"),
        ("-name = 'x'", "'name' is not a number in '-name'"),
        ("n is 5", "cannot be"),
    ],
)
def test_what_is_no_condition_says_why(text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        parse_condition(text, NAMES, KINDS)
    assert "\n" not in str(error.value)


_ATOMS = st.sampled_from(
    ["n", "m", "name", "day", "flag", '"n.change"', "5", "-3.5", "'x'", "'2026-01-31'", "null",
     "true", "n.change", "0"]
)  # fmt: skip
_OPERATORS = st.sampled_from(
    [">", "<", ">=", "<=", "=", "<>", "!=", "and", "or", "+", "-", "*", "/", "is", "is not", "in",
     "like", "||", "%", "::", ",", ";", "--", "/*"]
)  # fmt: skip
_TEXTS = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, _OPERATORS, inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"not {text}"),
        st.tuples(inner, inner, inner).map(lambda t: f"{t[0]} between {t[1]} and {t[2]}"),
        st.tuples(inner, inner).map(lambda t: f"{t[0]} in ({t[1]})"),
    ),
    max_leaves=8,
)


@given(text=_TEXTS)
@example(text="n / 0 > 1")
@example(text="n > 5 -- */ or 1=1")
@example(text="n > 5 /* ; drop table facts */")
def test_whatever_is_accepted_runs_on_any_row(facts, text):
    try:
        condition = parse_condition(text, NAMES, KINDS)
    except ValueError:
        return
    rendered = condition.over(COLUMNS)
    assert "--" not in rendered
    assert "/*" not in rendered
    rows = facts.execute(f"SELECT {rendered} FROM facts").fetchall()
    assert len(rows) == 2
    assert {value for (value,) in rows} <= {True, False, None}


@given(value=st.text(st.characters(codec="utf-8", exclude_characters="\0")))
@example(value="it's; drop table x --")
@example(value="back\\slash\n{braces} %s {{ jinja }}")
def test_any_text_survives_as_a_literal_and_as_a_name(facts, value):
    assert facts.execute(f"SELECT {literal(value)}").fetchone() == (value,)
    if value:
        facts.execute(f"SELECT 1 AS {identifier(value)}")
        assert facts.description[0][0] == value


@pytest.mark.parametrize("value", [3, -2.5, True, None, dt.date(2026, 1, 31)])
def test_plain_values_survive_as_literals(facts, value):
    (back,) = facts.execute(f"SELECT {literal(value)}").fetchone()
    assert back == value


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("n > 100", False),
        ("n >= 100", True),
        ("100 < n", False),
        ("n < -100", False),
        ("n = 101", False),
        ("n between 101 and 200", False),
        ("n between 50 and 200", True),
        ("n > 5 and n < 3", False),
        ("n > 5 and n < 5.5", True),
        ("n > 3 and n <= 3", False),
        ("(n > 5 and m > 0) and (n < 3)", False),
        ("n > 100 or m > 0", True),
        ("n > 100 or n < -100", False),
        ("n > 100 and m > 0", False),
        ("false", False),
        ("n + 1 > 500", True),
        ("not n < 500", True),
        ("n > -(-101)", False),
    ],
)
def test_a_condition_outside_what_its_names_can_be_can_never_hold(text, possible):
    condition = parse_condition(text, NAMES, KINDS)
    assert can_hold(condition, {"n": (-100, 100)}) is possible
