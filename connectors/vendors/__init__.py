"""The vendors that can be pulled: `type: <name>` in a source's YAML.

Each has a folder with its `connector.py` and its packaged mappings, one SQL file for each
canonical table.
"""

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from connectors.api import ApiConfig, Vendor
from connectors.quoting import literal

NAMES = (
    "amplitude", "chargebee", "company_news", "freshdesk", "hubspot", "intercom", "mixpanel",
    "posthog", "rest", "salesforce", "stripe", "surveymonkey", "typeform", "zendesk",
)  # fmt: skip


@cache
def vendor(name: str) -> Vendor[Any]:
    """The vendor of that name; its module is only imported now."""
    found: Vendor[Any] = import_module(f"connectors.vendors.{name}.connector").VENDOR
    return found


def packaged_mappings(name: str) -> dict[str, Path]:
    """The SQL files that come with a vendor, by canonical table."""
    return {file.stem: file for file in sorted((Path(__file__).parent / name).glob("*.sql"))}


def packaged_sql(config: ApiConfig, table: str) -> str:
    """The packaged mapping for a table, with the settings' parameters in it as text literals."""
    parameters = config.parameters()
    text = packaged_mappings(config.type)[table].read_text(encoding="utf-8")
    return re.sub(r"\$\{(\w+)\}", lambda found: literal(parameters[found[1]]), text)
