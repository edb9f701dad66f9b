"""Checking requests and answers against a vendor's own machine-readable description.

The descriptions are not part of this repository. Tests that need one skip where it is absent:
put the folder beside the checkout (`../shared/specs`), or name it in `HEALTHLOOP_SHARED_SPECS`.

OpenAPI 3.0, 3.1 and Swagger 2.0 are understood, as JSON or YAML. A mistake is named by a
signature, so that a known defect of a description can be allowed by name, with its reason::

    data.*.status enum                  a value that the list of values lacks
    data.* required requester_id        a field that must be there and is not
    data.* additionalProperties         a field that must not be there
    parameter per_page unknown          a query parameter that is not declared
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT202012

SPECS = Path(
    os.environ.get("HEALTHLOOP_SHARED_SPECS")
    or Path(__file__).resolve().parents[3] / "shared" / "specs"
)
_HERE = "urn:spec"

Query = str | Mapping[str, Any] | Sequence[tuple[str, str]]


class Spec:
    """One description: `document` as it was written, and a registry that schemas resolve in."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        resource = DRAFT202012.create_resource(_as_json_schema(document))
        self.registry: Registry = Registry().with_resource(_HERE, resource)

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        """The template of an operation's path, and the operation.

        Args:
            method: ``GET``, in any case.
            path: The template as the description has it, or an address that fits one.
        """
        paths = self.document["paths"]
        template = path if path in paths else _template(path, paths)
        assert template is not None, f"the description knows no path {path}"
        operation = paths[template].get(method.lower())
        assert operation is not None, f"the description knows no {method.upper()} {template}"
        return template, operation

    def resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        """What a ``$ref`` inside the document stands for; other nodes are returned as they are."""
        while "$ref" in node:
            found: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                found = found[unquote(step).replace("~1", "/").replace("~0", "~")]
            node = found
        return node

    def mistakes(self, schema: dict[str, Any], value: Any) -> Iterator[tuple[str, str]]:
        """(signature, message) of everything that is wrong with a value."""
        validator = Draft202012Validator(schema, registry=self.registry)
        for error in validator.iter_errors(value):
            yield from _signatures(error)


def load(name: str) -> Spec:
    """The description at `name` below the folder of descriptions, or skip the test.

    >>> load("stripe/trimmed_collapsed.json").document["info"]["title"]  # doctest: +SKIP
    'Stripe API'
    """
    return _loaded(read(name))


def read(name: str) -> Path:
    """The path of a file below the folder of descriptions, or skip the test."""
    file = SPECS / name
    if not file.exists():
        pytest.skip(f"the vendors' descriptions are not here: no {name} in the folder of specs")
    return file


@cache
def _loaded(file: Path) -> Spec:
    text = file.read_text(encoding="utf-8")
    return Spec(json.loads(text) if file.suffix == ".json" else yaml.safe_load(text))


def validate_response(
    spec: Spec,
    method: str,
    path: str,
    status: int,
    body: Any,
    allow: Mapping[str, str] | None = None,
) -> None:
    """Assert that a parsed JSON body is what the description promises for this status.

    Args:
        path: The template (``/v1/customers``), or an address that fits one.
        allow: Known defects of the description: signature (see the module) -> reason.
    """
    _, operation = spec.operation(method, path)
    responses = operation.get("responses", {})
    keys = (str(status), status, f"{str(status)[0]}XX", "default")
    key = next((key for key in keys if key in responses), None)
    assert key is not None, f"{method} {path} is not described with the status {status}"
    response = spec.resolved(responses[key])
    schema = _schema_of(response)
    if schema is None:
        return
    absolute = _absolute(_as_json_schema(schema))
    _report(f"{method} {path} -> {status}", list(spec.mistakes(absolute, body)), allow)


def validate_request(
    spec: Spec,
    method: str,
    path: str,
    query: Query = (),
    body: Any = None,
    allow: Mapping[str, str] | None = None,
) -> None:
    """Assert that each query parameter is declared and valid, none is missing, and the body fits.

    Args:
        query: The raw query text, pairs, or a mapping.
        body: The parsed JSON body; None when there was none.
        allow: Known defects of the description: signature (see the module) -> reason.
    """
    template, operation = spec.operation(method, path)
    shared = spec.document["paths"][template].get("parameters", [])
    declared = [spec.resolved(p) for p in [*shared, *operation.get("parameters", [])]]
    known = {p["name"].removesuffix("[]"): p for p in declared if p["in"] == "query"}
    given = _given(query, set(known))
    mistakes = [(f"parameter {name} unknown", "") for name in given if name not in known]
    mistakes += [
        (f"parameter {name} missing", "")
        for name, parameter in known.items()
        if parameter.get("required") and name not in given
    ]
    for name, value in given.items():
        if name in known and (message := _unfit(spec, known[name], value)):
            mistakes.append((f"parameter {name} invalid", message))
    if body is not None:
        content = operation.get("requestBody") or next(p for p in declared if p["in"] == "body")
        schema = _schema_of(spec.resolved(content))
        assert schema is not None, f"{method} {path} takes no JSON body"
        mistakes += spec.mistakes(_absolute(_as_json_schema(schema)), body)
    _report(f"{method} {path}", mistakes, allow)


def _report(
    what: str, mistakes: Sequence[tuple[str, str]], allow: Mapping[str, str] | None
) -> None:
    lines = {f"{name}: {message}"[:300] for name, message in mistakes if name not in (allow or {})}
    shown = "\n  ".join(sorted(lines)[:12])
    assert not lines, f"{what} does not fit the vendor's description:\n  {shown}"


def _template(path: str, paths: Mapping[str, Any]) -> str | None:
    """The path template that an address fits; the one with the fewest places to fill."""
    fitting = [
        template
        for template in paths
        if re.fullmatch(re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template)), path)
    ]
    return min(fitting, key=lambda template: template.count("{"), default=None)


def _way_to_schema(response: dict[str, Any]) -> list[str]:
    """The steps from a response (or request body) to the schema of its JSON."""
    if "schema" in response:  # Swagger 2.0
        return ["schema"]
    kinds = [kind for kind in response.get("content", {}) if "json" in kind]
    return ["content", kinds[0], "schema"] if kinds else []


def _schema_of(response: dict[str, Any]) -> dict[str, Any] | None:
    found: Any = response
    for step in (way := _way_to_schema(response)):
        found = found.get(step, {})
    return found if way else None


def _absolute(node: Any) -> Any:
    """A schema taken out of its document: its references name the document."""
    if isinstance(node, list):
        return [_absolute(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _HERE + each
        if name == "$ref" and isinstance(each, str) and each.startswith("#")
        else _absolute(each)
        for name, each in node.items()
    }


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0's and Swagger's own words in JSON Schema's: nullable, exclusive bounds."""
    if isinstance(node, list):
        return [_as_json_schema(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {name: _as_json_schema(each) for name, each in node.items()}
    if isinstance(plain.get("required"), bool):
        del plain["required"]
    for bound in ("Minimum", "Maximum"):
        if isinstance(plain.get(f"exclusive{bound}"), bool):
            exclusive = plain.pop(f"exclusive{bound}")
            if exclusive and bound.lower() in plain:
                plain[f"exclusive{bound}"] = plain.pop(bound.lower())
    if any(plain.get(word) is True for word in ("nullable", "x-nullable")):
        return {"anyOf": [{"type": "null"}, plain]}
    return plain


def _signatures(error: ValidationError) -> Iterator[tuple[str, str]]:
    """The mistakes inside the alternative that fits best, else the mistake itself."""
    alternatives: dict[Any, list[ValidationError]] = {}
    for inner in error.context or []:
        alternatives.setdefault(inner.schema_path[0], []).append(inner)
    real = [found for found in alternatives.values() if not _is_other_type(error, found)]
    if real:
        for inner in min(real, key=len):
            yield from _signatures(inner)
        return
    place = ".".join("*" if isinstance(s, int) else str(s) for s in error.absolute_path) or "$"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        yield from ((f"{place} required {name}", "") for name in missing)
        return
    yield f"{place} {error.validator}", error.message


def _is_other_type(error: ValidationError, found: Sequence[ValidationError]) -> bool:
    """True for an alternative that is of another type altogether, such as null."""
    return any(
        inner.validator == "type" and inner.absolute_path == error.absolute_path for inner in found
    )


def _given(query: Query, known: set[str]) -> dict[str, Any]:
    """Query parameters by name; ``a[gte]=1`` is an object, ``a[]=1`` and repeated ones lists."""
    if isinstance(query, str):
        query = parse_qsl(query, keep_blank_values=True)
    pairs = list(query.items()) if isinstance(query, Mapping) else list(query)
    given: dict[str, Any] = {}
    for name, value in pairs:
        base, _, inner = name.partition("[")
        if name in known or not inner:
            given[name] = [*_listed(given[name]), value] if name in given else value
        elif re.fullmatch(r"\d*\]", inner):
            given[base] = [*_listed(given.get(base, [])), value]
        else:
            given.setdefault(base, {})[inner.removesuffix("]")] = value
    return given


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _unfit(spec: Spec, parameter: dict[str, Any], value: Any) -> str | None:
    """What is wrong with a parameter, after trying it as text, as JSON and as a list."""
    schema = parameter.get("schema") or {
        name: each for name, each in parameter.items() if name not in ("name", "in", "description")
    }
    schema = _absolute(_as_json_schema(schema))
    forms = [value, _parsed(value)]
    if isinstance(value, str):
        forms += [value.split(","), [_parsed(each) for each in value.split(",")]]
    else:
        forms += [_listed(value)]
    found = [list(spec.mistakes(schema, form)) for form in forms]
    return None if not all(found) else "; ".join(message or name for name, message in found[0])


def _parsed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _parsed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_parsed(each) for each in value]
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value
