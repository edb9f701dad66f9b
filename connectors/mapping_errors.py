"""What DuckDB says about a mapping, in one line for the person who wrote it."""

import re
from collections.abc import Iterable
from collections.abc import Mapping as Dict

import duckdb

from connectors.mapping import Mapping
from contracts.documents import nearest
from contracts.errors import Problem, WarehouseError
from contracts.tables import TABLES


def column_problems(mapping: Mapping, given: Dict[str, str]) -> list[Problem]:
    """Columns that the table requires and the mapping lacks, or that the table does not have.

    Columns that begin with an underscore are the lake's own and are passed over.
    """
    table = TABLES[mapping.table]
    required = {column.name for column in table.columns if column.required}
    problems = []
    for name in given:
        if name not in table.by_name and not name.startswith("_"):
            cause = f"table '{table.name}' has no column '{name}'"
            problems.append(mapping.problem(cause, nearest(name, table.column_names)))
    for name in sorted(required - set(given)):
        cause = f"required column '{name}' of table '{table.name}' is not selected"
        problems.append(mapping.problem(cause, f"select something AS {name}"))
    return problems


def explain(mapping: Mapping, error: duckdb.Error, columns: Iterable[str]) -> Problem:
    """The problem behind a failure of a mapping; never a row's values.

    Args:
        mapping: What ran.
        error: What DuckDB said.
        columns: The columns that the mapping's streams have or once had.
    """
    text = str(error)
    found = re.search(r"LINE (\d+):", text)
    line = int(found.group(1)) if found and not isinstance(error, duckdb.ConversionException) else 1
    missing = re.search(r'column "([^"]+)" not found|have a column named "([^"]+)"', text)
    if missing:
        name = missing.group(1) or missing.group(2)
        return mapping.problem(f"unknown column '{name}'", nearest(name, columns), line)
    unknown = re.search(r"Function with name (\S+) does not exist", text)
    if unknown:
        near = re.search(r'Did you mean "([^"]+)"', text)
        remedy = f"did you mean '{near.group(1)}'?" if near else "use another function"
        return mapping.problem(f"unknown function '{unknown.group(1)}'", remedy, line)
    if isinstance(error, duckdb.ConversionException):
        return mapping.problem(
            "a cast fails on some rows", "use TRY_CAST, so that bad rows go to quarantine"
        )
    if isinstance(error, (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)):
        return mapping.problem(text.splitlines()[0], "correct the SQL", line)
    kind = type(error).__name__.removesuffix("Exception")
    return mapping.problem(f"fails on some rows ({kind})", "make it accept every row")


def warehouse_error(error: BaseException) -> WarehouseError | None:
    """The failures that are no mapping's fault: disk, memory, damage."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return WarehouseError(
            "the warehouse needs more memory than it may use",
            "raise warehouse_memory in company.yaml",
        )
    if isinstance(error, (duckdb.IOException, duckdb.FatalException, duckdb.InternalException)):
        return WarehouseError(
            "the warehouse or the lake cannot be read or written",
            "free disk space; if that is not it, delete the warehouse file and run again",
        )
    return None
