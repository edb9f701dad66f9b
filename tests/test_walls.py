"""The walls between the packages, the examples in their docstrings, and the list of the faults."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import contracts
import scoring

ROOT = Path(__file__).parent.parent
MODULES = [
    module.name
    for package in (contracts, scoring)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


def test_the_packages_import_only_what_the_design_lets_them():
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_contracts_import_no_other_package_of_ours():
    for file in (ROOT / "contracts").glob("*.py"):
        text = file.read_text()
        for package in ("connectors", "scoring", "orchestration"):
            assert f"import {package}" not in text
            assert f"from {package}" not in text


def test_scoring_reads_no_clock_and_opens_no_connection():
    for file in (ROOT / "scoring").rglob("*.py"):
        text = file.read_text()
        for forbidden in ("datetime.now", "date.today", "utcnow", "time.time(", "duckdb.connect"):
            assert forbidden not in text, f"{file} calls {forbidden}"
    for file in (ROOT / "scoring" / "sql").glob("*.sql"):
        text = file.read_text().lower()
        for forbidden in ("current_date", "now()", "current_timestamp", "today()", "random()"):
            assert forbidden not in text, f"{file} calls {forbidden}"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_every_fault_of_the_catalogue_is_tested_where_the_list_says():
    listed = (ROOT / "tests/faults/conftest.py").read_text().split("=\n")[1]
    entries = re.split(r"^F(\d\d) ", listed, flags=re.MULTILINE)[1:]
    where = dict(zip(map(int, entries[::2]), entries[1::2], strict=True))
    assert [*where] == [number for number in range(1, 97) if number != 95]
    for number, entry in where.items():
        for name in re.findall(r"(?:vendors/)?test_\w+", entry):
            (file,) = {*(ROOT / "tests").rglob(f"{name.split('/')[-1]}.py")}
            assert number in faults_named_in(file), f"{file.name} does not name F{number}"


def faults_named_in(file: Path) -> set[int]:
    """The numbers of faults that a file of tests carries, in names, words or ranges (F1 to F17)."""
    text = file.read_text(encoding="utf-8")
    single = {int(number) for number in re.findall(r"(?:\bF|_[fF])(\d+)", text)}
    ranges = re.findall(r"\bF(\d+) to F(\d+)", text)
    return single.union(*(range(int(first), int(last) + 1) for first, last in ranges))
