"""SOQL as far as a connector needs it: parsed strictly, checked against a schema, evaluated.

::

    SELECT Id, Owner.Name FROM Account
    WHERE (Type = 'Customer' OR ARR__c > 1000) AND SystemModstamp >= 2026-01-31T00:00:00Z
    ORDER BY SystemModstamp DESC NULLS LAST, Id LIMIT 10 OFFSET 20

and ``SELECT COUNT() FROM ...``. As at Salesforce, AND and OR may not be mixed without brackets,
names know no case, text compares without regard to case and `!=` finds nulls.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Condition = Callable[[Record], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\\n]|\\.)*')"
    r"|(?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d))"
    r"|(?P<date>\d{4}-\d\d-\d\d)"
    r"|(?P<number>[+-]?\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)"
    r"|(?P<sign><=|>=|!=|<>|[=<>(),]))",
    re.ASCII,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_NOT_COMPARABLE = frozenset({"anyType", "textarea", "base64"})
_QUOTED = frozenset({"string", "picklist", "id", "reference", "email", "phone", "url"})
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


class SoqlError(Exception):
    """A query that is refused: Salesforce's error code, and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Field:
    """A field of an object. `relationship` is how SOQL steps through it to the object `refers`.

    `precision` and `scale` are those of a number: its digits, and how many of them are decimals.
    A `restricted` picklist takes none but its `picks`.
    """

    name: str
    type: str
    label: str = ""
    refers: str | None = None
    relationship: str | None = None
    calculated: bool = False
    length: int = 255
    precision: int = 0
    scale: int = 0
    unique: bool = False
    external_id: bool = False
    case_sensitive: bool = False
    picks: tuple[str, ...] = ()
    restricted: bool = False
    createable: bool = True
    updateable: bool = True
    help: str | None = None


Schema = Mapping[str, Mapping[str, Field]]
"""The fields of each object, by name."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True)
class Query:
    """A query that was parsed and found good.

    `columns` are the steps to each selected field, under the names of the schema; they are empty
    for ``COUNT()``. `relations` are the references that are followed somewhere, each as steps.
    `pinned` are the fields of which only some values can be found, and those values.
    """

    object: str
    columns: tuple[tuple[str, ...], ...]
    relations: frozenset[tuple[str, ...]]
    where: Condition
    order: tuple[tuple[Callable[[Record], Any], bool, bool], ...]
    limit: int | None
    offset: int
    pinned: Mapping[str, frozenset[Any]]

    @property
    def counts(self) -> bool:
        """True for ``SELECT COUNT()``."""
        return not self.columns

    def run(self, records: Iterable[Record]) -> list[Record]:
        """The records that fulfil the condition, in order; without an order as they came.

        A record holds those that its references lead to under their relationship names.
        """
        found = [record for record in records if self.where(record)]
        for value, descending, nulls_last in reversed(self.order):
            filled = [record for record in found if value(record) is not None]
            empty = [record for record in found if value(record) is None]
            filled.sort(key=value, reverse=descending)
            found = filled + empty if nulls_last else empty + filled
        end = None if self.limit is None else self.offset + self.limit
        return found[self.offset : end]


def parse(text: str, schema: Schema) -> Query:
    """Parse a query and check every name and value in it.

    Raises:
        SoqlError: MALFORMED_QUERY, INVALID_TYPE, INVALID_FIELD or INVALID_QUERY_FILTER_OPERATOR.
    """
    return _Parser(list(_tokens(text)), schema).query()


def value_of(record: Record, path: Iterable[str]) -> Any:
    """What a record has at the end of a path; None where a reference leads nowhere."""
    value: Any = record
    for step in path:
        if value is None:
            return None
        value = value.get(step)
    return value


def _malformed(message: str) -> SoqlError:
    return SoqlError("MALFORMED_QUERY", message)


def _tokens(text: str) -> Iterator[_Token]:
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _malformed(f"unexpected character at position {position + 1}")
        yield _Token(match.lastgroup, match.group(match.lastgroup))
        position = match.end()


def _unescaped(quoted: str) -> str:
    def plain(match: re.Match[str]) -> str:
        found = match.group(1)
        if found[0] == "u" and len(found) == 5:
            return chr(int(found[1:], 16))
        if found in "%_":
            return match.group(0)  # LIKE needs to see it
        if found not in _ESCAPES and found not in "\\'\"":
            raise _malformed(f"illegal escape \\{found}")
        return _ESCAPES.get(found, found)

    return _ESCAPED.sub(plain, quoted[1:-1])


class _Parser:
    """Reads tokens from left to right. Names are looked up once FROM has told the object."""

    def __init__(self, tokens: list[_Token], schema: Schema) -> None:
        self._tokens = tokens
        self._schema = schema
        self._at = 0
        self._object = ""
        self._relations: set[tuple[str, ...]] = set()
        self._pinned: dict[str, frozenset[Any]] = {}
        self._depth = 0

    def query(self) -> Query:
        self._expect("SELECT")
        selected = self._selected()
        self._expect("FROM")
        self._object = self._known_object(self._name())
        columns = tuple(self._resolved(path)[0] for path in selected)
        if len(set(columns)) < len(columns):
            raise SoqlError("INVALID_FIELD", "duplicate field selected")
        where = self._where() if self._accept("WHERE") else _always
        order = tuple(self._ordered()) if self._accept("ORDER") else ()
        limit = self._integer() if self._accept("LIMIT") else None
        offset = self._integer() if self._accept("OFFSET") else 0
        if offset > 2000:
            raise SoqlError("NUMBER_OUTSIDE_VALID_RANGE", "maximum SOQL offset allowed is 2000")
        if self._peek() is not None:
            raise _malformed(f"unexpected token: {self._tokens[self._at].text}")
        relations = frozenset(self._relations)
        return Query(
            self._object, columns, relations, where, order, limit, offset, self._pinned
        )  # fmt: skip

    def _selected(self) -> list[str]:
        if self._accept("COUNT"):
            self._expect("(")
            self._expect(")")
            return []
        paths = [self._name()]
        while self._accept(","):
            paths.append(self._name())
        return paths

    def _where(self) -> Condition:
        return self._joined(self._one_condition)

    def _joined(self, operand: Callable[[], Condition]) -> Condition:
        conditions, word = [operand()], None
        while (found := self._accept("AND") or self._accept("OR")) is not None:
            if word not in (None, found):
                raise _malformed("AND and OR need brackets between them")
            word = found
            conditions.append(operand())
        if word == "OR" and self._depth == 0:
            self._pinned = {}
        whole = any if word == "OR" else all
        return lambda record: whole(condition(record) for condition in conditions)

    def _one_condition(self) -> Condition:
        if self._accept("NOT"):
            self._depth += 1
            inner = self._one_condition()
            self._depth -= 1
            return lambda record: not inner(record)
        if self._accept("("):
            self._depth += 1
            condition = self._where()
            self._depth -= 1
            self._expect(")")
            return condition
        return self._comparison()

    def _comparison(self) -> Condition:
        path, field = self._resolved(self._name())
        if field.type in _NOT_COMPARABLE:
            raise SoqlError("INVALID_FIELD", f"field '{field.name}' can not be filtered")
        if (word := self._accept("IN") or self._accept("NOT")) is not None:
            if word == "NOT":
                self._expect("IN")
            values = self._list(field)
            inside = word == "IN"
            if inside:
                self._pin(path, values)
            return lambda record: (_plain(value_of(record, path), field) in values) is inside
        if self._accept("LIKE"):
            return self._like(path, field)
        sign = self._sign()
        wanted = self._value(field)
        if sign in ("=", "!=", "<>"):
            equal = sign == "="
            if equal:
                self._pin(path, frozenset({wanted}))
            return lambda record: (_plain(value_of(record, path), field) == wanted) is equal
        if wanted is None or field.type in ("boolean", "id", "reference"):
            raise SoqlError("INVALID_QUERY_FILTER_OPERATOR", f"invalid operator for {field.name}")
        compare = _SIGNS[sign]

        def holds(record: Record) -> bool:
            value = _plain(value_of(record, path), field)
            return value is not None and compare(value, wanted)

        return holds

    def _pin(self, path: tuple[str, ...], values: frozenset[Any]) -> None:
        if self._depth == 0 and len(path) == 1:
            self._pinned[path[0]] = values

    def _like(self, path: tuple[str, ...], field: Field) -> Condition:
        token = self._next("text")
        if field.type not in _QUOTED:
            raise SoqlError("INVALID_QUERY_FILTER_OPERATOR", f"invalid operator for {field.name}")
        parts = re.split(r"(\\[%_]|[%_])", _unescaped(token.text))
        wild = {"%": ".*", "_": ".", r"\%": "%", r"\_": "_"}
        pattern = re.compile(
            "".join(wild.get(part, re.escape(part)) for part in parts), re.IGNORECASE | re.DOTALL
        )
        return lambda record: bool(pattern.fullmatch(value_of(record, path) or ""))

    def _list(self, field: Field) -> frozenset[Any]:
        self._expect("(")
        values = [self._value(field)]
        while self._accept(","):
            values.append(self._value(field))
        self._expect(")")
        return frozenset(values)

    def _value(self, field: Field) -> Any:
        token = self._peek()
        if token is None:
            raise _malformed("unexpected end of the query")
        self._at += 1
        if token.kind == "name" and token.text.lower() == "null":
            return None
        kind = field.type
        if kind in _QUOTED and token.kind == "text":
            return _plain(_unescaped(token.text), field)
        if kind == "boolean" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        if kind in ("datetime", "date") and token.kind == kind:
            return _moment(token.text) if kind == "datetime" else _date(token.text)
        if kind in ("int", "double", "currency", "percent") and token.kind == "number":
            return float(token.text)
        if token.kind in ("name", "sign"):
            raise _malformed(f"unexpected token: {token.text}")
        raise SoqlError(
            "INVALID_FIELD",
            f"value of filter criterion for field '{field.name}' must be of type {kind}"
            + (" and should not be enclosed in quotes" if token.kind == "text" else ""),
        )

    def _ordered(self) -> Iterator[tuple[Callable[[Record], Any], bool, bool]]:
        self._expect("BY")
        while True:
            path, field = self._resolved(self._name())
            if field.type in _NOT_COMPARABLE:
                raise SoqlError("MALFORMED_QUERY", f"field '{field.name}' can not be sorted")
            descending = (self._accept("ASC") or self._accept("DESC")) == "DESC"
            nulls_last = False
            if self._accept("NULLS"):
                nulls_last = self._accept("LAST") == "LAST"
                if not nulls_last:
                    self._expect("FIRST")
            yield _sortable(path, field), descending, nulls_last
            if not self._accept(","):
                return

    def _known_object(self, name: str) -> str:
        for known in self._schema:
            if known.lower() == name.lower():
                return known
        raise SoqlError("INVALID_TYPE", f"sObject type '{name}' is not supported.")

    def _resolved(self, path: str) -> tuple[tuple[str, ...], Field]:
        """The steps to a field, under the schema's names, and the field."""
        fields, steps = self._schema[self._object], []
        *relations, last = path.split(".")
        for relation in relations:
            step = next(
                (f for f in fields.values() if (f.relationship or "").lower() == relation.lower()),
                None,
            )
            if step is None or step.relationship is None or step.refers is None:
                raise SoqlError(
                    "INVALID_FIELD",
                    f"Didn't understand relationship '{relation}' in field path.",
                )
            steps.append(step.relationship)
            self._relations.add(tuple(steps))
            fields = self._schema[step.refers]
        found = next((f for f in fields.values() if f.name.lower() == last.lower()), None)
        if found is None:
            raise SoqlError("INVALID_FIELD", f"No such column '{last}' on entity '{self._object}'.")
        return (*steps, found.name), found

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _accept(self, word: str) -> str | None:
        token = self._peek()
        if token is None or token.kind == "text" or token.text.upper() != word:
            return None
        self._at += 1
        return word

    def _expect(self, word: str) -> str:
        if (found := self._accept(word)) is None:
            token = self._peek()
            raise _malformed(f"expecting {word}, found {token.text if token else 'the end'}")
        return found

    def _next(self, kind: str) -> _Token:
        token = self._peek()
        if token is None or token.kind != kind:
            raise _malformed(f"unexpected token: {token.text if token else '<EOF>'}")
        self._at += 1
        return token

    def _name(self) -> str:
        return self._next("name").text

    def _sign(self) -> str:
        token = self._next("sign")
        if token.text in "(),":
            raise _malformed(f"unexpected token: {token.text}")
        return token.text

    def _integer(self) -> int:
        token = self._next("number")
        if not token.text.isdigit():
            raise _malformed(f"unexpected token: {token.text}")
        return int(token.text)


def _always(record: Record) -> bool:
    return True


def _sortable(path: tuple[str, ...], field: Field) -> Callable[[Record], Any]:
    return lambda record: _plain(value_of(record, path), field)


def _plain(value: Any, field: Field) -> Any:
    """A value as it is compared: text without case, ids by their first 15 characters."""
    if not isinstance(value, str):
        return value
    if field.type in ("id", "reference"):
        return value[:15]
    return value.casefold() if field.type in _QUOTED else value


def _moment(literal: str) -> str:
    """A datetime literal as records hold their times, so that both compare as text."""
    try:
        moment = dt.datetime.fromisoformat(literal).astimezone(dt.UTC)
    except ValueError:
        raise _malformed(f"invalid datetime {literal}") from None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def _date(literal: str) -> str:
    try:
        return dt.date.fromisoformat(literal).isoformat()
    except ValueError:
        raise _malformed(f"invalid date {literal}") from None
