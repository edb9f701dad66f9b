"""The command `healthloop`: one line for each mistake, never a stack trace."""

import os
import sys
import traceback

from typer import TyperException

from contracts.errors import ConfigurationError, HealthloopError
from orchestration.cli.console import errors


def main() -> None:
    """Run the command line; exit codes are 0, 1 (something held or failed), 2 (wrong input)."""
    from orchestration.cli.commands import app

    try:
        sys.exit(app(standalone_mode=False))
    except ConfigurationError as error:
        for problem in error.problems:
            _say(str(problem))
        _say(f"{error.cause}; {error.remedy}", style="")
        sys.exit(error.exit_code)
    except HealthloopError as error:
        _say(f"{error.cause}; {error.remedy}")
        sys.exit(error.exit_code)
    except TyperException as error:
        _say(_usage(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if os.environ.get("HEALTHLOOP_TRACEBACK"):
            raise
        _say(_defect(error))
        sys.exit(1)


def _say(text: str, *, style: str = "red") -> None:
    errors.print(text, style=style, markup=False, soft_wrap=True)


def _usage(error: TyperException) -> str:
    """What is wrong with the command's arguments, and where to read more."""
    text = error.format_message().replace("Value error, ", "").removesuffix(".")
    context = getattr(error, "ctx", None)
    if any(mark in text for mark in ";?\n") or context is None:
        return text
    return f"{text}; see `{context.command_path} --help`"


def _defect(error: Exception) -> str:
    """Where something unforeseen went wrong. Its message stays out: it may hold a row's values."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return (
        f"{type(error).__name__} in {place}; this is a defect of Healthloop: report it, "
        "HEALTHLOOP_TRACEBACK=1 shows more"
    )
