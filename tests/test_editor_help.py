"""JSON Schemas for editors: they accept what we ship and refuse what `check` refuses."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from connectors.sandbox.demo import TEMPLATE
from orchestration.editor import write_schemas
from scoring.library import SHIPPED

FILES = [
    *((file, file.parent.name) for file in sorted(SHIPPED.glob("*/*.yaml"))),
    (SHIPPED / "profiles.yaml", "profiles"),
    (SHIPPED / "watermelons.yaml", "watermelons"),
    (TEMPLATE / "company.yaml", "company"),
    *((file, "sources") for file in sorted((TEMPLATE / "sources").glob("*.yaml"))),
]


def as_json(text: str) -> object:
    """YAML as an editor sees it: keys are text, dates are text."""
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("company")
    write_schemas(home)
    return home / "schemas"


@pytest.mark.parametrize(("file", "kind"), FILES, ids=lambda value: getattr(value, "name", value))
def test_every_yaml_that_we_ship_satisfies_its_schema(schemas: Path, file: Path, kind: str) -> None:
    schema = json.loads((schemas / f"{kind}.schema.json").read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(as_json(file.read_text())))
    assert [error.message for error in errors] == []


def test_an_unknown_setting_is_underlined_by_the_editor(schemas: Path) -> None:
    schema = json.loads((schemas / "company.schema.json").read_text())
    document = as_json((TEMPLATE / "company.yaml").read_text() + "\ntime_zome: UTC\n")
    messages = [e.message for e in jsonschema.Draft202012Validator(schema).iter_errors(document)]
    assert any("time_zome" in message for message in messages)


def test_editor_settings_that_somebody_wrote_are_kept(tmp_path: Path) -> None:
    settings = tmp_path / ".vscode" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"editor.tabSize": 2}')
    write_schemas(tmp_path)
    assert settings.read_text() == '{"editor.tabSize": 2}'
