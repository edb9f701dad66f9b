"""The project's errors as Dagster failures, whose first line says what a person should do."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from contracts.errors import ConfigurationError, HealthloopError, SourceUnavailable

HELD_PLAN = "held_plan"
"""The key of a failure's metadata under which the id of the plan stands that the gate holds."""


@contextmanager
def told_to_dagster(*, retries: bool = True) -> Iterator[None]:
    """Raise this project's errors as `dg.Failure`; only what may pass by itself is retried.

    Nothing is where `retries` is false: what writes goes on in the next run, which looks first.
    """
    try:
        yield
    except HealthloopError as error:
        raise failure_of(error, retries=retries) from None


def failure_of(error: HealthloopError, *, retries: bool = True) -> dg.Failure:
    """A failure with the remedy first and the cause behind it."""
    metadata = {"cause": error.cause, "remedy": error.remedy}
    if isinstance(error, ConfigurationError):
        metadata["problems"] = "\n".join(str(problem) for problem in error.problems)
    text = str(error) if isinstance(error, ConfigurationError) else f"{error.cause}; {error.remedy}"
    return dg.Failure(
        description=text,
        metadata=metadata,
        allow_retries=retries and isinstance(error, SourceUnavailable),
    )
