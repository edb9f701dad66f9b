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
    (TEMPLATE / "crm.yaml", "crm"),
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


@pytest.mark.parametrize(
    ("file", "line", "word"),
    [
        ("company.yaml", "time_zome: UTC", "time_zome"),
        ("crm.yaml", "aply: true", "aply"),
        ("crm.yaml", "gate: {most_taks: 3}", "most_taks"),
        ("crm.yaml", "hubspot: {source: crm, daily_share: 2}", "2 is greater than the maximum"),
    ],
)
def test_a_mistake_is_underlined_by_the_editor(
    schemas: Path, file: str, line: str, word: str
) -> None:
    schema = json.loads((schemas / f"{Path(file).stem}.schema.json").read_text())
    document = as_json(f"{(TEMPLATE / file).read_text()}\n{line}\n")
    messages = [
        error.message
        for found in jsonschema.Draft202012Validator(schema).iter_errors(document)
        for error in (found, *(found.context or ()))
    ]
    assert any(word in message for message in messages)


def test_every_schema_is_known_to_the_editor(schemas: Path) -> None:
    settings = json.loads((schemas.parent / ".vscode/settings.json").read_text())
    patterns = settings["yaml.schemas"]
    assert patterns["./schemas/crm.schema.json"] == "crm.yaml"
    assert patterns["./schemas/playbooks.schema.json"] == "playbooks/*.yaml"
    assert {(schemas.parent / name) for name in patterns} == {*schemas.glob("*.json")}


def test_editor_settings_that_somebody_wrote_are_kept(tmp_path: Path) -> None:
    settings = tmp_path / ".vscode" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"editor.tabSize": 2}')
    write_schemas(tmp_path)
    assert settings.read_text() == '{"editor.tabSize": 2}'
