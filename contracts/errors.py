"""Everything that can go wrong, as one small tree.

::

    HealthloopError                 one line for a person: what, where, how to mend it
    ├── InputError                  somebody can correct it            exit code 2
    │   ├── ConfigurationError      one or many problems in the company folder
    │   └── NotFoundError           an account, day or score that is not there
    ├── SourceError                 a source gave nothing usable       exit code 1
    │   ├── SourceRefused           credentials, scope, wrong place: a person has to act
    │   ├── SourceUnavailable       down, slow or busy: the next run may succeed
    │   └── SourceCorrupt           it answered, but not with what was declared
    ├── HeldError                   a gate or a blocking check held the run, exit code 1
    └── WarehouseError              the DuckDB file is locked, full or damaged, exit code 1

Every error says its cause and its remedy. Neither may hold a secret or a customer's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake in a document: where it is, what is wrong and how to mend it.

    >>> print(Problem(Path("metrics/usage.yaml"), 7, "unknown column 'cuont'", "write count"))
    metrics/usage.yaml:7: unknown column 'cuont'; write count
    """

    file: Path
    line: int
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.cause}; {self.remedy}"


class HealthloopError(Exception):
    """The root of the tree: a cause and a remedy, printed as one line."""

    exit_code = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}; {remedy}")
        self.cause = cause
        self.remedy = remedy


class InputError(HealthloopError):
    """The command, a file or a setting is wrong, and the user can correct it."""

    exit_code = 2


class ConfigurationError(InputError):
    """One or more problems in the company folder, all of them listed at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        Exception.__init__(self, "\n".join(str(problem) for problem in self.problems))
        self.cause = f"{len(self.problems)} mistake(s) in the company folder"
        self.remedy = "correct them and run `healthloop check`"


class NotFoundError(InputError):
    """What was asked for is not there; the remedy names what is."""


class SourceError(HealthloopError):
    """A source gave nothing usable. Others go on; its signals keep their last good values."""


class SourceRefused(SourceError):
    """The source said no: credentials, scope, or there is nothing at that address."""


class SourceUnavailable(SourceError):
    """The source did not answer in time. The next run may succeed."""


class SourceCorrupt(SourceError):
    """The source answered, but not with what was declared."""


class HeldError(HealthloopError):
    """A gate or a blocking check held the run; nothing after it was written."""


class WarehouseError(HealthloopError):
    """The DuckDB file is locked by another process, its disk is full, or it is damaged."""
