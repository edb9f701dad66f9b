"""The command `healthloop`: one line for each mistake, never a stack trace."""

import sys

from contracts.errors import ConfigurationError, HealthloopError
from orchestration.cli.console import errors


def main() -> None:
    """Run the command line; exit codes are 0, 1 (ran, something held or failed), 2 (wrong input)."""
    from orchestration.cli.commands import app

    try:
        app(standalone_mode=True)
    except ConfigurationError as error:
        for problem in error.problems:
            errors.print(str(problem), style="red", markup=False, soft_wrap=True)
        errors.print(f"{error.cause}; {error.remedy}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except HealthloopError as error:
        errors.print(f"{error.cause}; {error.remedy}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
