"""The walls between the packages, and the examples in their docstrings."""

import doctest
import importlib
import pkgutil
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
