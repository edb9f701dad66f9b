"""Columns are written many values at once; each has to say what it said by itself."""

import math

import orjson
from hypothesis import given
from hypothesis import strategies as st

from connectors.api_rows import landed

numbers = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(min_value=-(2**80), max_value=2**80)
nested = st.lists(st.integers(0, 9), max_size=3) | st.dictionaries(st.text(), st.integers(0, 9))
scalars = [st.text(), integers, numbers, st.booleans()]
COLUMNS = [*scalars, nested, st.one_of(scalars) | nested]
ROWS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9) | st.text(), min_size=1)


def by_itself(value):
    if value is None or isinstance(value, str):
        return value
    return str(value) if type(value) is int else orjson.dumps(value).decode()


@given(st.one_of([st.lists(kind | st.none(), min_size=1) for kind in COLUMNS]))
def test_a_column_says_what_each_of_its_values_says(values):
    table, _ = landed([{"a": value} for value in values])
    assert table.column("a").to_pylist() == [by_itself(value) for value in values]


@given(st.lists(ROWS, min_size=1))
def test_rows_keep_their_fields_whatever_their_order(rows):
    table, kinds = landed(rows)
    found = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    assert found == [{key: by_itself(value) for key, value in row.items()} for row in rows]
    assert set(kinds) == {key for row in rows for key in row}


def test_left_out_fields_leave_no_trace_in_the_types_either():
    table, kinds = landed([{"id": 1, "firstName": "canary"}], leave_out={"firstName"})
    assert (table.column_names, kinds) == (["id"], {"id": ["number"]})


def test_no_number_is_written_as_none_is():
    assert landed([{"a": 0.5}, {"a": math.nan}])[0].column("a").to_pylist() == ["0.5", None]
