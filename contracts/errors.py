"""Everything that can go wrong, as one small tree.

::

    HealthloopError                 one line for a person: what, where, how to mend it
    ├── InputError                  somebody can correct it            exit code 2
    │   ├── ConfigurationError      one or many problems in the company folder
    │   └── NotFoundError           an account, day or score that is not there
    ├── SourceError                 a source gave nothing usable       exit code 1
    │   ├── SourceRefused           credentials, scope, wrong place: a person has to act
    │   ├── SourceRejected          the request itself is wrong: a person or a newer version
    │   ├── SourceExhausted         a daily or burst limit is used up: the next run may succeed
    │   ├── SourceUnavailable       down, slow or busy: the next run may succeed
    │   ├── OutcomeUnknown          a write was sent and no answer says whether it was done
    │   └── SourceCorrupt           it answered, but not with what was declared
    ├── HeldError                   a gate or a blocking check held the run, exit code 1
    ├── WarehouseError              the DuckDB file is locked, full or damaged, exit code 1
    └── LedgerError                 the ledger is locked, full or damaged, exit code 1

Every error says its cause and its remedy. Neither may hold a secret or a customer's data.
"""

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unicodedata import category


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


def on_one_line(text: str) -> str:
    """A text that may repeat what somebody typed, so that it can forge no line of a log.

    >>> on_one_line("no plan 'x\\r\\nINFO all is well'")
    "no plan 'x��INFO all is well'"
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text
    )


class HealthloopError(Exception):
    """The root of the tree: a cause and a remedy, printed as one line."""

    exit_code = 1

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause = on_one_line(cause)
        self.remedy = on_one_line(remedy)
        super().__init__(f"{self.cause}; {self.remedy}")


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
    """A source gave nothing usable. Others go on; its signals keep their last good values.

    Attributes:
        vendor: whose API it was, such as "zendesk".
        stream: what was read, such as "tickets".
        page: the number of the stream's request, from 1.
    """

    def __init__(
        self,
        cause: str,
        remedy: str,
        *,
        vendor: str | None = None,
        stream: str | None = None,
        page: int | None = None,
    ) -> None:
        super().__init__(cause, remedy)
        self.vendor = vendor
        self.stream = stream
        self.page = page

    def told(self, prefix: str) -> Self:
        """The same error, with a cause that begins with `prefix`.

        >>> print(SourceCorrupt("a body is no JSON", "report it").told("source desk"))
        source desk: a body is no JSON; report it
        """
        error = type(self).__new__(type(self))
        error.__dict__.update(self.__dict__)
        error.cause = f"{prefix}: {self.cause}"
        error.args = (f"{error.cause}; {self.remedy}",)
        return error


class SourceRefused(SourceError):
    """The source said no: credentials, scope, wrong organisation. A person has to act."""


class SourceRejected(SourceError):
    """The request itself is wrong (400, 404, 422 ...). A person or a newer version has to act."""


class SourceExhausted(SourceError):
    """A daily or burst limit is used up. The next run may succeed.

    Attributes:
        resume_after_seconds: how long the source asks to wait; None where it does not say.
    """

    def __init__(
        self,
        cause: str,
        remedy: str,
        *,
        resume_after_seconds: float | None = None,
        vendor: str | None = None,
        stream: str | None = None,
        page: int | None = None,
    ) -> None:
        super().__init__(cause, remedy, vendor=vendor, stream=stream, page=page)
        self.resume_after_seconds = resume_after_seconds


class SourceUnavailable(SourceError):
    """The source did not answer in time. The next run may succeed."""


class OutcomeUnknown(SourceError):
    """A write was sent, and no answer says whether it was done. Read back before sending again."""


class SourceCorrupt(SourceError):
    """The source answered, but not with what was declared."""


class HeldError(HealthloopError):
    """A gate or a blocking check held the run; nothing after it was written."""


class WarehouseError(HealthloopError):
    """The DuckDB file is locked by another process, its disk is full, or it is damaged."""


class LedgerError(HealthloopError):
    """The ledger of CRM writes cannot be read or written; nothing more is sent."""


def where_raised(chain: Iterable[BaseException]) -> str:
    """Where each error of a chain was raised, for whoever mends it.

    The texts of the errors stay out: they may hold a row's values or an address.
    """
    return "\n".join(
        f"{type(link).__name__}, raised in\n{''.join(traceback.format_tb(link.__traceback__))}"
        for link in chain
    )
