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


def read_document(file: Path) -> tuple[Document | None, list[Problem]]:
    """Read one YAML file; what cannot be read comes back as problems, never as an exception."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return None, [Problem(file, 1, f"cannot be read: {error}", "make it a UTF-8 text file")]
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Location, int] = {(): 1}
        problems: list[Problem] = []
        data = None if node is None else _construct(node, (), lines, problems, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return None, [Problem(file, line, f"not valid YAML: {error.problem}", "correct the syntax")]
    except yaml.YAMLError as error:
        return None, [Problem(file, 1, f"not valid YAML: {error}", "correct the syntax")]
    return Document(file, data, lines), problems


def _construct(
    node: yaml.Node,
    location: Location,
    lines: dict[Location, int],
    problems: list[Problem],
    file: Path,
) -> Any:
    """Turn a node into plain data and note the line of everything in it."""
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = _scalar(key_node)
            line = key_node.start_mark.line + 1
            if key in result:
                problems.append(
                    Problem(file, line, f"'{key}' is given twice", "keep one of the two")
                )
            lines[(*location, key)] = line
            result[key] = _construct(value_node, (*location, key), lines, problems, file)
        return result
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            lines[(*location, index)] = item.start_mark.line + 1
            items.append(_construct(item, (*location, index), lines, problems, file))
        return items
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    """A plain value; a tag such as ``!!python/object`` is a YAML error."""
    constructor = yaml.SafeLoader("")
    value = constructor.construct_object(node, deep=True)
    return str(value) if isinstance(value, (dict, list, set, tuple)) else value


def validate(
    document: Document, model: type[Model], data: Any = None, at: Location = ()
) -> tuple[Model | None, list[Problem]]:
    """Lay a model over a document (or over `data`, the part of it that stands at `at`).

    Returns the model, or None and one problem for each mistake.
    """
    try:
        return model.model_validate(document.data if data is None else data), []
    except pydantic.ValidationError as error:
        return None, [_explain(document, model, at, detail) for detail in error.errors()]


def _explain(
    document: Document, model: type[pydantic.BaseModel], at: Location, detail: Any
) -> Problem:
    """Say one pydantic error in the words of somebody who edits YAML."""
    location = (*at, *detail["loc"])
    name = ".".join(str(part) for part in detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = _fields_around(model, detail["loc"])
        return document.problem(
            location, f"unknown setting '{name}'", nearest(str(detail["loc"][-1]), siblings)
        )
    if kind == "missing":
        return document.problem(location[:-1], f"'{name}' is missing", "add it")
    if kind in ("literal_error", "enum"):
        return document.problem(
            location,
            f"{name} is '{detail['input']}'",
            f"it must be one of {context.get('expected', 'the allowed values')}",
        )
    message = detail["msg"].removeprefix("Value error, ")
    cause, _, remedy = message.partition("; ")
    return document.problem(
        location, f"{name}: {cause}" if name else cause, remedy or "correct the value"
    )


def _fields_around(model: type[pydantic.BaseModel], location: Location) -> list[str]:
    """The settings that are valid where an unknown one was found."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(current, type) and issubclass(current, pydantic.BaseModel):
            info = current.model_fields.get(str(part))
            current = _model_inside(info.annotation) if info else None
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


def nearest(name: str, valid: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest valid one, or the whole list where it is short.

    >>> nearest("active_day", ["active_days", "logins"])
    "did you mean 'active_days'?"
    """
    names = sorted(set(valid))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if len(names) <= 12:
        return "valid are: " + ", ".join(names) if names else "remove it"
    return f"none of the {len(names)} valid names is near; `healthloop catalogue` lists them"
