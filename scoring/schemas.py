"""JSON Schemas of the YAML that scoring reads, for editors."""

from typing import Any

from pydantic import TypeAdapter

from scoring.config.metrics import Metric
from scoring.config.playbooks import Playbook
from scoring.config.profiles import HardSignal, Profiles
from scoring.config.scorecards import Scorecard


def json_schemas() -> dict[str, dict[str, Any]]:
    """File pattern, relative to the company folder -> JSON Schema."""
    return {
        "metrics/*.yaml": TypeAdapter(dict[str, Metric]).json_schema(),
        "scorecards/*.yaml": Scorecard.model_json_schema(),
        "playbooks/*.yaml": Playbook.model_json_schema(),
        "profiles.yaml": Profiles.model_json_schema(),
        "watermelons.yaml": TypeAdapter(list[HardSignal]).json_schema(),
    }
