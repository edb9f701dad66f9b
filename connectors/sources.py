"""What a company declares in `sources/`: where its data lies and how it becomes signals.

``sources/<name>.yaml`` says where a source is and which streams it has::

    type: files                       # files | sql | attached
    location: ./exports/helpdesk      # also s3://, gs://, az://, https://
    streams:
      tickets: {files: "tickets_*.csv", cursor: updated_at, delimiter: ";"}

``sources/<name>/<table>.sql`` is one SELECT in DuckDB's dialect that turns the streams, which it
reads as ``raw_<name>.<stream>``, into the canonical table of that name (`contracts.tables`).

A vendor's name as the type (`connectors.vendors`) pulls its API, with mappings that come with it; a
file of the same name in the company folder replaces one::

    type: zendesk
    subdomain: acme
    token: {env: ZENDESK_TOKEN}

A source of type `attached` is not pulled: its mappings read the company's own DuckDB file or
Parquet folder where it lies.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import sqlglot
import sqlglot.errors
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from sqlglot import exp

from connectors import vendors
from connectors.api import ApiConfig, ApiStream
from contracts.company import Company, Strict
from contracts.documents import Document, nearest, read_document, validate
from contracts.errors import ConfigurationError, Problem
from contracts.secrets import FromEnvironment, Secrets
from contracts.tables import TABLES

Names = Annotated[list[str], Field(min_length=1)]
FileFormat = Literal["csv", "jsonl", "parquet"]

RESERVED_COLUMNS = ("_source_file", "_loaded_at", "_load_id", "_row")
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,59}$")
_NAMING = "use small letters, digits and underscores"
_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
}  # fmt: skip


def _stream_name(name: str) -> str:
    if not _NAME.match(name):
        raise ValueError(f"'{name}' cannot name a stream; {_NAMING}")
    return name


def _address(value: Any) -> Any:
    if isinstance(value, str):
        if urlsplit(value).password is not None:
            raise ValueError(
                "a password stands in it; put the whole address into an environment variable "
                "and write {env: NAME_OF_THE_VARIABLE}"
            )
    elif not isinstance(value, dict) or list(value) != ["env"]:
        raise ValueError("it is neither; write an address or {env: NAME_OF_THE_VARIABLE}")
    return value


def _known_type(name: str) -> str:
    try:
        exp.DataType.build(name, dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        raise ValueError(f"unknown type '{name}'; give a DuckDB type such as BIGINT") from None
    if not re.fullmatch(r"[A-Za-z_ ]+(\(\d+(, *\d+)?\))?", name):
        raise ValueError(f"type '{name}' is not simple; give a DuckDB type such as BIGINT")
    return name


Name = Annotated[str, AfterValidator(_stream_name)]
Address = Annotated[str | FromEnvironment, BeforeValidator(_address)]
ColumnTypes = dict[str, Annotated[str, AfterValidator(_known_type)]]


class FileStream(Strict):
    """A stream of files: a glob pattern below the location, or one path for https.

    CSV and JSONL columns are text unless `columns` gives their type, so ids keep their leading
    zeros; the mapping casts. `primary_key` tells which rows are the same at the cursor's edge;
    without it, rows that are equal in every column are the same.
    """

    files: str = Field(min_length=1)
    format: FileFormat | None = None
    cursor: str | None = None
    primary_key: Names | None = None
    rebuild_by: str | None = None
    columns: ColumnTypes = Field(default_factory=dict)
    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: Literal["utf-8", "latin-1", "utf-16"] = "utf-8"

    @model_validator(mode="after")
    def _format_is_known(self) -> "FileStream":
        if self.format is None and format_of(self.files) is None:
            raise ValueError(
                f"'{self.files}' does not end in .csv, .jsonl or .parquet; add `format:`"
            )
        return self


class SqlStream(Strict):
    """A stream of rows: a table (``schema.table``) or a query, and what orders its changes."""

    table: str | None = None
    query: str | None = None
    cursor: str | None = None
    primary_key: Names | None = None
    rebuild_by: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "SqlStream":
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`; one of the two is needed")
        return self


class AttachedStream(Strict):
    """Data read in place: a table of the attached database, or Parquet files of the location."""

    table: str | None = None
    files: str | None = None


class FilesConfig(Strict):
    """``type: files``."""

    type: Literal["files"]
    location: Address
    streams: dict[Name, FileStream] = Field(min_length=1)


class SqlConfig(Strict):
    """``type: sql``: any SQLAlchemy URL."""

    type: Literal["sql"]
    url: Address
    streams: dict[Name, SqlStream] = Field(min_length=1)


class AttachedConfig(Strict):
    """``type: attached``: a DuckDB file (`database`) or a folder of Parquet (`location`)."""

    type: Literal["attached"]
    database: str | None = None
    location: str | None = None
    streams: dict[Name, AttachedStream] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_place(self) -> "AttachedConfig":
        if (self.database is None) == (self.location is None):
            raise ValueError("give either `database` or `location`; one of the two is needed")
        wanted = "table" if self.database else "files"
        for name, stream in self.streams.items():
            given = [key for key in ("table", "files") if getattr(stream, key) is not None]
            if given != [wanted]:
                raise ValueError(f"stream '{name}' needs `{wanted}` and nothing else; correct it")
        return self


Config = FilesConfig | SqlConfig | AttachedConfig | ApiConfig
Stream = FileStream | SqlStream | AttachedStream | ApiStream
_CONFIGS: dict[str, type[FilesConfig] | type[SqlConfig] | type[AttachedConfig]] = {
    "files": FilesConfig, "sql": SqlConfig, "attached": AttachedConfig,
}  # fmt: skip
TYPES = (*_CONFIGS, *vendors.NAMES)
"""Everything that can stand as `type` in a source's YAML."""


def models() -> dict[str, type[Strict]]:
    """The model of the settings of every type."""
    return {**_CONFIGS, **{name: vendors.vendor(name).config for name in vendors.NAMES}}


@dataclass(frozen=True)
class Source:
    """A declared source.

    `mappings` maps the name of a canonical table to the SQL file that fills it.
    """

    name: str
    config: Config
    mappings: Mapping[str, Path]
    file: Path
    streams: Mapping[str, Stream] = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        streams = (
            vendors.vendor(config.type).streams_of(config)
            if isinstance(config, ApiConfig)
            else config.streams
        )
        object.__setattr__(self, "streams", dict(streams))

    @property
    def schema(self) -> str:
        """The schema under which mappings read the streams."""
        return f"raw_{self.name}"

    @property
    def in_place(self) -> bool:
        """True where nothing is pulled, because the mappings read the data where it lies."""
        return isinstance(self.config, AttachedConfig)

    def mapping_text(self, table: str) -> str:
        """The SQL of a mapping. One that comes with its vendor is fitted to this source.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        file = self.mappings[table]
        if isinstance(self.config, ApiConfig) and not file.is_relative_to(self.file.parent):
            text = vendors.packaged_sql(self.config, table)
            return re.sub(rf"\braw_{self.config.type}\.", f"{self.schema}.", text)
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            problem = Problem(file, 1, "cannot be read", "make it a UTF-8 text file")
            raise ConfigurationError([problem]) from None


def format_of(path: str) -> FileFormat | None:
    """The format that a path's ending tells, through ``.gz``: ``a.csv.gz`` is csv."""
    return _ENDINGS.get(Path(path.lower().removesuffix(".gz")).suffix)


def address_of(address: "str | FromEnvironment", home: Path) -> str:
    """An address in clear; it may hold a secret, so it must never be shown.

    Raises:
        SourceRefused: the environment variable is not set.
    """
    return address if isinstance(address, str) else Secrets(home).of(address)


def read_sources(company: Company) -> list[Source]:
    """All sources of a company, by name.

    Raises:
        ConfigurationError: there are mistakes; all are listed.
    """
    sources, problems = check_sources(company)
    if problems:
        raise ConfigurationError(problems)
    return sources


def check_sources(company: Company) -> tuple[list[Source], list[Problem]]:
    """Read the sources and list every mistake instead of raising it."""
    folder = company.home / "sources"
    sources: list[Source] = []
    documents: dict[str, Document] = {}
    problems = list(_stray_files(folder))
    for file in sorted(folder.glob("*.yaml")):
        document, more = read_document(file)
        problems += more
        if document is None:
            continue
        source, more = _read_source(document)
        problems += more
        if source is not None:
            sources.append(source)
            documents[source.name] = document
    known = {f"{source.schema}.{stream}" for source in sources for stream in source.streams}
    broken = {file.stem for file in folder.glob("*.yaml")} - {source.name for source in sources}
    for source in sources:
        problems += _check_mappings(source, documents[source.name], known, broken)
    return sources, problems


def _stray_files(folder: Path) -> Iterator[Problem]:
    """Mappings without a source, and YAML files that nobody would read."""
    for path in sorted(folder.glob("*")):
        if path.is_dir() and not path.with_suffix(".yaml").exists() and any(path.glob("*.sql")):
            names = [file.stem for file in folder.glob("*.yaml")]
            yield Problem(
                path, 1, f"there are mappings but no sources/{path.name}.yaml",
                nearest(path.name, names) if names else "add it",
            )  # fmt: skip
        if path.suffix == ".yml":
            yield Problem(path, 1, "the file is not read", f"rename it to {path.stem}.yaml")


def _read_source(document: Document) -> tuple[Source | None, list[Problem]]:
    """The source of one YAML file."""
    name, data = document.file.stem, document.data
    problems = []
    if not _NAME.match(name):
        problems.append(document.problem((), f"'{name}' cannot name a source", _NAMING))
    if not isinstance(data, dict):
        cause = "a source is a mapping with `type` and what that type needs"
        return None, [*problems, document.problem((), cause, "see docs/connect-your-data.md")]
    kind = data.get("type")
    if kind not in TYPES:
        cause = "'type' is missing" if kind is None else f"unknown type '{kind}'"
        return None, [*problems, document.problem(("type",), cause, nearest(str(kind), TYPES))]
    vendor = vendors.vendor(kind) if kind in vendors.NAMES else None
    if vendor is None and not isinstance(data.get("streams", {}), dict):
        cause = "`streams` is a mapping of a name to what that stream is"
        return None, [*problems, document.problem((), cause, "see docs/connect-your-data.md")]
    config, more = validate(document, vendor.config if vendor else _CONFIGS[kind])
    problems += more
    if config is None or problems:
        return None, problems
    folder = document.file.with_suffix("")
    mappings = {file.stem: file for file in sorted(folder.glob("*.sql"))}
    if isinstance(config, ApiConfig):
        problems = _unknown_streams(document, config)
        if problems:
            return None, problems
        mappings = _usable(config) | mappings
    return Source(name, config, mappings, document.file), []


def _unknown_streams(document: Document, config: ApiConfig) -> list[Problem]:
    if not isinstance(config.streams, list):
        return []
    every = config.model_copy(update={"streams": None})
    known = vendors.vendor(config.type).streams_of(every)
    return [
        document.problem(("streams",), f"unknown stream '{name}'", nearest(name, known))
        for name in config.streams
        if name not in known
    ]


def _usable(config: ApiConfig) -> dict[str, Path]:
    """The packaged mappings whose streams these settings pull, all of them."""
    known = {f"raw_{config.type}.{name}" for name in vendors.vendor(config.type).streams_of(config)}
    usable = {}
    for table, file in vendors.packaged_mappings(config.type).items():
        query, _ = parse_mapping(file, vendors.packaged_sql(config, table))
        if query is not None and {name for name, _ in tables_of(query)} <= known:
            usable[table] = file
    return usable


def _check_mappings(
    source: Source, document: Document, known: set[str], broken: set[str]
) -> list[Problem]:
    """Mistakes of one source's mappings: wrong names, wrong SQL, streams that nobody reads."""
    problems: list[Problem] = []
    read: set[str] = set()
    parsed = True
    for table, file in source.mappings.items():
        if table not in TABLES:
            cause = f"'{table}' is not a canonical table"
            problems.append(Problem(file, 1, cause, nearest(table, TABLES)))
        try:
            query, mistakes = parse_mapping(file, source.mapping_text(table))
        except ConfigurationError as error:
            query, mistakes = None, error.problems
        problems += mistakes
        if query is None:
            parsed = False
            continue
        for name, line in tables_of(query):
            read.add(name)
            if name in known or name.partition(".")[0].removeprefix("raw_") in broken:
                continue
            candidates = known if "." in name else [f"{source.schema}.{s}" for s in source.streams]
            remedy = nearest(name, candidates)
            if "." not in name:
                remedy = f"write it with its schema: {remedy}"
            problems.append(Problem(file, line, f"unknown table '{name}'", remedy))
    for stream in () if isinstance(source.config, ApiConfig) else source.streams:
        if parsed and f"{source.schema}.{stream}" not in read:
            problems.append(
                document.problem(
                    ("streams", stream), f"no mapping reads stream '{stream}'",
                    f"read {source.schema}.{stream} in sources/{source.name}/<table>.sql, "
                    "or take the stream out",
                )
            )  # fmt: skip
    return problems


@lru_cache(maxsize=512)  # a run reads its sources a dozen times
def parse_mapping(file: Path, text: str) -> tuple[exp.Query | None, tuple[Problem, ...]]:
    """The one SELECT of a mapping, which nobody may change, or what is wrong with it."""
    try:
        statements = sqlglot.parse(text, read="duckdb")
    except sqlglot.errors.ParseError as error:
        first = error.errors[0] if error.errors else {}
        cause = f"not valid SQL: {first.get('description', 'it cannot be parsed')}"
        return None, (Problem(file, first.get("line") or 1, cause.rstrip("."), "correct it"),)
    except sqlglot.errors.TokenError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found.group(1)) if found else 1
        return None, (Problem(file, line, "not valid SQL: an unclosed quote", "close it"),)
    queries = [statement for statement in statements if statement is not None]
    if len(queries) != 1 or not isinstance(queries[0], exp.Query):
        return None, (Problem(file, 1, "a mapping is exactly one SELECT", "keep one SELECT"),)
    return queries[0], ()


def tables_of(query: exp.Query) -> list[tuple[str, int]]:
    """The tables that a query reads, each with its line; CTEs and table functions are left out."""
    own = {cte.alias.lower() for cte in query.find_all(exp.CTE)}
    found = []
    for table in query.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier) or (not table.db and table.name in own):
            continue
        name = f"{table.db}.{table.name}" if table.db else table.name
        found.append((name.lower(), int(table.this.meta.get("line", 1))))
    return found
