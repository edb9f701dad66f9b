"""The helper that holds requests and answers against a vendor's description finds what is wrong."""

import pytest
from specs import SPECS, Spec, load, validate_request, validate_response

ROW = {
    "type": "object",
    "required": ["id", "kind"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "note": {"type": "string", "nullable": True},
        "owner": {"anyOf": [{"$ref": "#/components/schemas/Owner"}], "nullable": True},
    },
}
OWNER = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


@pytest.fixture
def spec() -> Spec:
    rows = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    answer = {"content": {"application/json": {"schema": {"properties": {"data": rows}}}}}
    parameters = [
        {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}},
        {"name": "from", "in": "query", "required": True, "schema": {"type": "string"}},
        {"name": "created", "in": "query", "schema": {
            "type": "object", "properties": {"gte": {"type": "integer"}},
        }},
        {"name": "types", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
    ]  # fmt: skip
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Owner"}}}}
    return Spec({
        "components": {"schemas": {"Row": ROW, "Owner": OWNER}},
        "paths": {
            "/rows": {
                "get": {"parameters": parameters, "responses": {"200": answer, "default": {}}},
                "post": {"requestBody": body, "responses": {}},
            },
            "/rows/{id}": {"get": {"responses": {"4XX": {}}}},
        },
    })  # fmt: skip


def mistakes(spec, *rows, allow=None):
    with pytest.raises(AssertionError) as failed:
        validate_response(spec, "GET", "/rows", 200, {"data": list(rows)}, allow)
    return str(failed.value)


def test_a_fitting_answer_passes(spec):
    row = {"id": 1, "kind": "a", "note": None, "owner": None}
    validate_response(spec, "get", "/rows", 200, {"data": [row, row | {"owner": {"name": "x"}}]})
    validate_response(spec, "GET", "/rows", 500, {"anything": "goes"})
    validate_response(spec, "GET", "/rows/17", 404, {})


def test_each_mistake_of_an_answer_is_named(spec):
    told = mistakes(
        spec, {"id": "1", "kind": "c"}, {"id": 1}, {"id": 1, "kind": "a", "x": 1, "owner": {}}
    )
    for name in (
        "data.*.id type", "data.*.kind enum", "data.* required kind",
        "data.* additionalProperties", "data.*.owner required name",
    ):  # fmt: skip
        assert name in told


def test_only_the_named_defect_is_allowed(spec):
    allowed = {"data.*.kind enum": "c is new"}
    rows = {"data": [{"id": 1, "kind": "c"}]}
    validate_response(spec, "GET", "/rows", 200, rows, allowed)
    told = mistakes(spec, {"id": "1", "kind": "c"}, allow=allowed)
    assert "id type" in told
    assert "kind" not in told


def test_an_undescribed_path_or_status_is_a_mistake(spec):
    with pytest.raises(AssertionError):
        validate_response(spec, "GET", "/columns", 200, {})
    with pytest.raises(AssertionError):
        validate_response(spec, "GET", "/rows/17", 200, {})


def test_requests_are_held_against_their_parameters(spec):
    query = "limit=100&from=a&created[gte]=5&types[]=a&types[]=b"
    validate_request(spec, "GET", "/rows", query)
    with pytest.raises(AssertionError) as failed:
        validate_request(spec, "GET", "/rows", "limit=101&created[gte]=x&page=2")
    for name in ("limit invalid", "created invalid", "page unknown", "from missing"):
        assert f"parameter {name}" in str(failed.value)


def test_a_request_body_is_held_against_its_schema(spec):
    validate_request(spec, "POST", "/rows", body={"name": "x"})
    with pytest.raises(AssertionError):
        validate_request(spec, "POST", "/rows", body={"name": 1})


def test_a_missing_description_skips_the_test():
    with pytest.raises(pytest.skip.Exception) as skipped:
        load("nobody/nothing.json")
    assert str(SPECS) not in str(skipped.value)
