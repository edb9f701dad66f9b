"""JSON Schemas of everything in a company folder, so that an editor checks and completes it."""

import json
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from connectors.crm.settings import CrmSettings
from connectors.sources import models
from contracts.company import Settings
from scoring.schemas import json_schemas

FOLDER = "schemas"


def write_schemas(home: Path) -> list[Path]:
    """Write `schemas/*.schema.json`, and the editor's settings where there are none yet.

    Editors with the YAML language server (VS Code, Neovim, ...) find the schemas through
    `.vscode/settings.json`, or through a first line in a file such as
    ``# yaml-language-server: $schema=../schemas/scorecards.schema.json``.
    """
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    written, settings = [], {}
    for pattern, schema in _schemas().items():
        name = pattern.split("/")[0].removesuffix(".yaml")
        file = folder / f"{name}.schema.json"
        file.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
        settings[f"./{FOLDER}/{file.name}"] = pattern
        written.append(file)
    editor = home / ".vscode" / "settings.json"
    if not editor.exists():
        editor.parent.mkdir(exist_ok=True)
        editor.write_text(json.dumps({"yaml.schemas": settings}, indent=2) + "\n", encoding="utf-8")
    return written


def _schemas() -> dict[str, dict[str, Any]]:
    return {
        "company.yaml": Settings.model_json_schema(),
        "crm.yaml": CrmSettings.model_json_schema(),
        "sources/*.yaml": TypeAdapter(reduce(or_, models().values())).json_schema(),
        **json_schemas(),
    }
