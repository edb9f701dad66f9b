"""What a CRM should show of a day's scores: the desired half of the plan."""

import datetime as dt

import duckdb

from scoring import reasons
from scoring.expressions import literal
from scoring.library import Library
from scoring.sql import render


def compute(connection: duckdb.DuckDBPyConnection, library: Library, day: dt.date) -> None:
    """Fill `plan.desired` for a scored day.

    For each score the fields are ``<score>_score, _band, _reasons, _coverage, _as_of`` and
    ``_scorecard``; values are rounded to what people see, so that noise is never a change.
    """
    reasons.compute(connection, library, day)
    connection.execute(render("desired.sql", day=literal(day), most_reasons=reasons.MOST_REASONS))
