"""YAML documents that remember on which line everything stands.

Reading is safe (no tags, no Python objects), duplicate keys are mistakes, and a pydantic model
laid over a document gives problems with a file, a line and the nearest valid name.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from contracts.errors import Problem

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Document:
    """A YAML file: its data, and the line of every key and item in it.

    `lines` maps a location such as ``("components", 0, "metric")`` to a line, counted from 1.
    """

    file: Path
    data: Any
    lines: Mapping[Location, int] = field(repr=False)

    def line(self, location: Location = ()) -> int:
        """The line of a location, or of the nearest thing around it that has one."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def problem(self, location: Location, cause: str, remedy: str) -> Problem:
        """A problem at a location of this document."""
        return Problem(self.file, self.line(location), cause, remedy)


MOST_NODES = 50_000
"""A document with more keys and values than this is no configuration (or aliases blew it up)."""


def read_document(file: Path) -> tuple[Document | None, list[Problem]]:
    """Read one YAML file; what cannot be read comes back as problems, never as an exception."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return None, [
            Problem(
                file, 1, f"cannot be read: {error.strerror}", "check that it is a readable file"
            )
        ]
    except UnicodeDecodeError:
        return None, [Problem(file, 1, "is not UTF-8 text", "save it as UTF-8")]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        reader = _Reader(file)
        data = None if node is None else reader.construct(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return None, [Problem(file, line, f"not valid YAML: {error.problem}", "correct the syntax")]
    except yaml.YAMLError as error:
        cause = str(error).splitlines()[0]
        return None, [Problem(file, 1, f"not valid YAML: {cause}", "correct the syntax")]
    except RecursionError:
        return None, [Problem(file, 1, "is nested too deeply", "make it flatter")]
    return Document(file, data, reader.lines), reader.problems


class _Reader:
    """Turns YAML nodes into plain data and notes the line of everything in it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[Location, int] = {(): 1}
        self.problems: list[Problem] = []
        self.nodes = 0

    def construct(self, node: yaml.Node, location: Location) -> Any:
        """Plain data: dicts, lists and scalars, whatever the document's tags ask for."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _error(node, f"it has more than {MOST_NODES:,} keys and values")
        if isinstance(node, yaml.MappingNode):
            _refuse_tag(node, "tag:yaml.org,2002:map")
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            _refuse_tag(node, "tag:yaml.org,2002:seq")
            items = []
            for index, item in enumerate(node.value):
                self.lines[(*location, index)] = item.start_mark.line + 1
                items.append(self.construct(item, (*location, index)))
            return items
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            line = key_node.start_mark.line + 1
            if key in result:
                self.problems.append(
                    Problem(self.file, line, f"'{key}' is given twice", "keep one of the two")
                )
            self.lines[(*location, key)] = line
            result[key] = self.construct(value_node, (*location, key))
        return result


def _scalar(node: yaml.Node) -> Any:
    """A plain value; a tag such as ``!!python/object`` is a YAML error."""
    if not isinstance(node, yaml.ScalarNode):
        raise _error(node, "a key must be a plain word")
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except ValueError as error:
        raise _error(node, f"'{node.value[:40]}' is no value of its kind ({error})") from error


def _refuse_tag(node: yaml.Node, plain: str) -> None:
    if node.tag != plain:
        raise _error(node, f"the tag '{node.tag}' is not allowed")


def _error(node: yaml.Node, cause: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=cause, problem_mark=node.start_mark)


def validate(
    document: Document, model: type[Model], data: Any = None, at: Location = ()
) -> tuple[Model | None, list[Problem]]:
    """Lay a model over a document (or over `data`, the part of it that stands at `at`).

    Returns the model, or None and one problem for each mistake.
    """
    data = document.data if data is None else data
    try:
        return model.model_validate(data), []
    except pydantic.ValidationError as error:
        found = [_explain(document, model, data, at, detail) for detail in error.errors()]
        return None, list(dict.fromkeys(found))


def _explain(
    document: Document, model: type[pydantic.BaseModel], data: Any, at: Location, detail: Any
) -> Problem:
    """Say one pydantic error in the words of somebody who edits YAML."""
    inside = _written(detail["loc"], data, keep_last=detail["type"] == "missing")
    location = (*at, *inside)
    name = ".".join(str(part) for part in inside)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = _fields_around(model, detail["loc"])
        return document.problem(
            location, f"unknown setting '{name}'", nearest(str(inside[-1]), siblings)
        )
    if kind == "missing":
        return document.problem(location[:-1], f"'{name}' is missing", "add it")
    if kind in ("literal_error", "enum"):
        return document.problem(
            location,
            f"{name} is '{detail['input']}'",
            f"it must be one of {context.get('expected', 'the allowed values')}",
        )
    message = _PLAIN.get(kind, detail["msg"].removeprefix("Value error, "))
    cause, _, remedy = message.partition("; ")
    return document.problem(
        location, f"{name}: {cause}" if name else cause, remedy or "correct the value"
    )


_PLAIN = {
    "model_type": "a list of settings is expected here; write `name: value` lines",
    "model_attributes_type": "a list of settings is expected here; write `name: value` lines",
    "dict_type": "`name: value` lines are expected here; write them",
    "list_type": "a list is expected here; write [one, two]",
    "string_type": "a text is expected here; write it in quotes",
    "float_parsing": "a number is expected here; write it without a unit",
    "float_type": "a number is expected here; write it without a unit",
    "int_parsing": "a whole number is expected here; write it without a unit",
    "int_type": "a whole number is expected here; write it without a unit",
    "bool_parsing": "true or false is expected here; write one of them",
    "finite_number": "an infinite number cannot be used here; write a finite one",
}
"""Pydantic's words for people who do not program, as "cause; remedy"."""


def _written(location: Location, data: Any, *, keep_last: bool) -> Location:
    """A pydantic location without what does not stand in the document, such as a union's member."""
    written: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if part == "[key]":
            continue
        if isinstance(data, Mapping) and part not in data and not (last and keep_last):
            part = next((key for key in data if str(key) == str(part)), part)
        inside = (isinstance(data, Mapping) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside or (last and keep_last):
            written.append(part)
        if inside:
            data = data[part]
    return tuple(written)


def _fields_around(model: type[pydantic.BaseModel], location: Location) -> list[str]:
    """The settings that are valid where an unknown one was found."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(current, type) and issubclass(current, pydantic.BaseModel):
            info = current.model_fields.get(str(part))
            # A part that is no setting is a key or an index within the setting before it.
            current = _model_inside(info.annotation) if info else current
    if isinstance(current, type) and issubclass(current, pydantic.BaseModel):
        return [info.alias or name for name, info in current.model_fields.items()]
    return []


def _model_inside(annotation: Any) -> Any:
    """The pydantic model in an annotation such as ``list[Component]`` or ``Caps | None``."""
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_inside(argument)
        if isinstance(found, type) and issubclass(found, pydantic.BaseModel):
            return found
    return None


def nearest(
    name: str, valid: Iterable[str], listed: str = "`healthloop catalogue` lists them"
) -> str:
    """The remedy for an unknown name: the nearest valid one, or the whole list where it is short.

    `listed` says where a long one stands.

    >>> nearest("active_day", ["active_days", "logins"])
    "did you mean 'active_days'?"
    """
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if len(names) <= 20:
        return "valid are: " + ", ".join(names) if names else "remove it"
    return f"none of the {len(names)} valid names is near; {listed}"
