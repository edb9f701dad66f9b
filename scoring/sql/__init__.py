"""The SQL of scoring, in DuckDB's dialect: one file for each step, rendered with Jinja."""

from functools import cache
from pathlib import Path
from typing import Any

import jinja2

_FOLDER = Path(__file__).parent
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)


@cache
def _template(name: str) -> jinja2.Template:
    return _ENVIRONMENT.get_template(name)


def render(name: str, /, **values: Any) -> str:
    """The SQL of a file with its placeholders filled.

    Values must be SQL that this package made (literals through `expressions.literal`).
    """
    return _template(name).render(**values)
