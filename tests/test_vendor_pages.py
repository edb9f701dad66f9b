"""`docs/sources.md` and its pages tell the truth about every vendor."""

import os
import re
from pathlib import Path

import pytest
import yaml

from connectors.vendors import NAMES, packaged_mappings, vendor

DOCS = Path(__file__).parents[1] / "docs"
INDEX = DOCS / "sources.md"
VENDORS = [name for name in NAMES if name != "rest"]
_TABLE = re.compile(r"(?<=\| least rights \|\n\|---\|---\|---\|\n)(\|.*\n)+")


def rows() -> str:
    """The table of the index: what each vendor gives, and the least rights that it takes."""
    lines = []
    for name in VENDORS:
        tables = ", ".join(t for t in packaged_mappings(name) if t != "account_keys")
        lines.append(f"| [{name}](sources/{name}.md) | {tables} | {vendor(name).scopes} |\n")
    return "".join(lines)


def test_the_index_says_what_each_vendor_gives_and_the_least_rights_it_takes():
    text = INDEX.read_text(encoding="utf-8")
    if os.environ.get("HEALTHLOOP_UPDATE_DOCS"):
        text = _TABLE.sub(lambda _: rows(), text)
        INDEX.write_text(text, encoding="utf-8")
    found = _TABLE.search(text)
    assert found is not None
    assert found[0] == rows()


@pytest.mark.parametrize("name", VENDORS)
def test_the_settings_on_a_vendors_page_are_valid(name):
    text = (DOCS / "sources" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert blocks
    config = vendor(name).config.model_validate(yaml.safe_load(blocks[0]))
    assert config.type == name


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendors_page_names_every_stream(name):
    text = (DOCS / "sources" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    config = vendor(name).config.model_validate(yaml.safe_load(blocks[0]))
    missing = [stream for stream in vendor(name).streams_of(config) if stream not in text]
    assert missing == []
