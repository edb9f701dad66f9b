"""`crm.yaml`: which CRM is written to, through which source, and what its fields are called.

::

    apply: false                 # a dry run until this says true
    salesforce:
      source: crm                # the source in sources/crm.yaml that knows how to log in
      credentials:               # optional: other ones than for reading
        access_token: {env: SALESFORCE_WRITE_TOKEN}
      fields:
        account: {risk_score: Churn_Risk__c, upsell_reasons: null}   # null: not written
      owners: {fallback: "CS queue", csm_manager: "Ada Lovelace"}
    actions:
      tasks_per_owner_a_week: 8
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self, get_args
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, field_validator, model_validator

from connectors.api import ApiConfig
from connectors.crm.writing import CrmName
from contracts.actions import Priority
from contracts.company import Company, Share, Strict
from contracts.crm_fields import FIELDS, CrmObject, read_on, written_on
from contracts.documents import Document, nearest, read_document, validate
from contracts.errors import ConfigurationError, Problem
from contracts.secrets import FromEnvironment

FILE = "crm.yaml"
LEDGER_FILE = "ledger.sqlite"

ApiName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,99}$")]


def _time_zone(name: str) -> str:
    if name not in available_timezones():
        near = nearest(name, available_timezones(), "write one like Europe/Berlin")
        raise ValueError(f"unknown time zone '{name}'; {near}")
    return name


class TaskNames(Strict):
    """What tasks are called: the fields of our key and episode, and the values of picklists.

    None means the default of the CRM.
    """

    key: ApiName | None = None
    episode: ApiName | None = None
    open_status: str | None = None
    closed_status: str | None = None
    priorities: dict[Priority, str] = Field(default_factory=dict)


class Owners(Strict):
    """Who gets a task. Names and ids are those of the CRM's users (owners) and queues.

    `fallback` takes the tasks of those who are unknown, inactive or ambiguous; `names` maps a
    person's name in `signals.accounts` to the id of the CRM's user, where names do not tell;
    `time_zones` gives the zone of a person, by name or id, where the CRM does not say.
    """

    fallback: str | None = None
    csm_manager: str | None = None
    queues: dict[str, str] = Field(default_factory=dict)
    names: dict[str, str] = Field(default_factory=dict)
    time_zones: dict[str, Annotated[str, AfterValidator(_time_zone)]] = Field(default_factory=dict)


class Target(Strict):
    """One CRM: the source whose settings lead to it, and what differs there.

    `credentials` are settings of the source that are others for writing. Writing stops once
    `daily_share` of the day's API requests are used, by whomever; the rest is for others. More than
    `bulk_above` records of an object go by a bulk job where the CRM has such a thing.
    """

    source: str
    credentials: dict[str, Any] = Field(default_factory=dict)
    fields: dict[CrmObject, dict[str, ApiName | None]] = Field(default_factory=dict)
    opportunities: bool = True
    tasks: bool = True
    task: TaskNames = TaskNames()
    owners: Owners = Owners()
    daily_share: float = Field(default=0.5, gt=0, le=1)
    bulk_above: int = Field(default=2000, ge=1)

    @field_validator("credentials")
    @classmethod
    def _never_in_clear(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, value in given.items():
            if not (isinstance(value, dict) and set(value) == {"env"}):
                raise ValueError(f"{name} is a secret, and stands in no file; write {{env: NAME}}")
        return given

    @field_validator("fields")
    @classmethod
    def _known_fields(
        cls, given: dict[CrmObject, dict[str, str | None]]
    ) -> dict[CrmObject, dict[str, str | None]]:
        for object, names in given.items():
            known = [field.name for field in (*written_on(object), *read_on(object))]
            for name in names:
                if name not in known:
                    near = nearest(name, known)
                    raise ValueError(f"there is no field '{name}' on {object}; {near}")
            used = [value for value in names.values() if value is not None]
            if len(used) != len(set(used)):
                raise ValueError(f"two fields on {object} have one name; give each its own")
        return given


class SalesforceTarget(Target):
    """The section `salesforce`."""


class HubSpotTarget(Target):
    """The section `hubspot`. HubSpot knows its properties by names in lower case."""

    @field_validator("fields", "task")
    @classmethod
    def _lower_case(cls, given: Any) -> Any:
        task = (given.key, given.episode) if isinstance(given, TaskNames) else ()
        fields = () if task else [name for names in given.values() for name in names.values()]
        for name in (*task, *fields):
            if name and name != name.lower():
                raise ValueError(
                    f"HubSpot has no property '{name}'; write the internal name, in lower case"
                )
        return given


class Gate(Strict):
    """How unusual a plan may be before a person has to approve it.

    `held_share` is the share of accounts that may be held because sources are not delivering,
    `unknown_share` that of accounts whose band may become unknown at once, `most_tasks` how many
    tasks may be opened at once. How many accounts may change band is `limits.band_change_share`.
    """

    held_share: Share = 0.5
    unknown_share: Share = 0.10
    most_tasks: int = Field(default=500, ge=0)


class Actions(Strict):
    """How much people can take on."""

    tasks_per_owner_a_week: int = Field(default=10, ge=1)
    capacity: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class FastLane(Strict):
    """Whether what is new reaches the CRM within a minute or with the daily run. Off by default."""

    enabled: bool = False
    sources: list[str] = Field(default_factory=list)


class CrmSettings(Strict):
    """`crm.yaml`."""

    apply: bool = False
    ledger: FromEnvironment | None = None
    refresh_days: int = Field(default=7, ge=1)
    keep_days: int = Field(default=90, ge=1)
    salesforce: SalesforceTarget | None = None
    hubspot: HubSpotTarget | None = None
    gate: Gate = Gate()
    actions: Actions = Actions()
    fast_lane: FastLane = FastLane()

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.salesforce is None and self.hubspot is None:
            raise ValueError("no CRM is named; add a section `salesforce` or `hubspot`")
        return self

    @property
    def targets(self) -> dict[CrmName, Target]:
        """The CRMs that are written to."""
        found: dict[CrmName, Target] = {}
        if self.salesforce:
            found["salesforce"] = self.salesforce
        if self.hubspot:
            found["hubspot"] = self.hubspot
        return found


def names_of(crm: CrmName, target: Target, object: CrmObject) -> dict[str, str]:
    """The API name of every field in use on an object, those that people fill included."""
    given = target.fields.get(object, {})
    fields = (*written_on(object), *read_on(object))
    names = {
        field.name: given.get(field.name, getattr(FIELDS[field.name], crm)) for field in fields
    }
    if object == "opportunity" and not target.opportunities:
        names = {field.name: names[field.name] for field in read_on(object)}
    return {name: value for name, value in names.items() if value is not None}


def ledger_url(company: Company) -> str:
    """The default ledger: a SQLite file in the company's state."""
    return f"sqlite:///{company.state / LEDGER_FILE}"


def read_crm(company: Company) -> CrmSettings | None:
    """Read `crm.yaml`; None where there is none: then nothing is ever written.

    Raises:
        ConfigurationError: with every mistake in it.
    """
    settings, problems = check_crm(company)
    if problems:
        raise ConfigurationError(problems)
    return settings


def check_crm(company: Company) -> tuple[CrmSettings | None, list[Problem]]:
    """Read `crm.yaml` and list its mistakes."""
    file: Path = company.home / FILE
    if not file.is_file():
        return None, []
    document, problems = read_document(file)
    if document is None:
        return None, problems
    settings, more = validate(document, CrmSettings, data=document.data or {})
    more += _unknown_sources(company, document, settings) if settings else []
    return settings, problems + more


def _unknown_sources(company: Company, document: Document, settings: CrmSettings) -> list[Problem]:
    """Names of sources that are not there, and what does not go with the source that is named."""
    from connectors.sources import check_sources  # which reads every mapping: only when needed

    configs = {source.name: source.config for source in check_sources(company)[0]}
    broken = {file.stem for file in (company.home / "sources").glob("*.yaml")} - configs.keys()
    found = []
    for crm, target in settings.targets.items():
        config = configs.get(target.source)
        if isinstance(config, ApiConfig) and config.type == crm:
            found += [
                document.problem((crm, *place), cause, remedy)
                for place, cause, remedy in _unlike_source(crm, target, config)
            ]
        elif target.source not in broken:  # what is wrong with that one is told by itself
            of_type = [name for name, other in configs.items() if other.type == crm]
            found.append(
                document.problem(
                    (crm, "source"),
                    f"'{target.source}' is no source of type {crm}",
                    nearest(target.source, of_type) if of_type else f"add sources/{crm}.yaml",
                )
            )
    for place, name in enumerate(settings.fast_lane.sources):
        if name not in configs:
            where = ("fast_lane", "sources", place)
            found.append(
                document.problem(where, f"there is no source '{name}'", nearest(name, configs))
            )
    return found


def _unlike_source(
    crm: CrmName, target: Target, config: ApiConfig
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Where a section and its source do not go together: the place, the cause, the remedy.

    A score must not be written over what the source reads as something else, and what people fill
    has to be read from where they fill it.
    """
    source, settings = target.source, type(config).model_fields
    secrets = [
        name
        for name, setting in settings.items()
        if FromEnvironment in (setting.annotation, *get_args(setting.annotation))
    ]
    for name in target.credentials:
        if name not in secrets:
            cause = f"{crm}.credentials: a source of type {crm} has no secret '{name}'"
            yield ("credentials", name), cause, nearest(name, secrets)
    for object in get_args(CrmObject):
        read: dict[str, str] = config.fields_of(object)  # type: ignore[attr-defined]
        meanings = {name.casefold(): meaning for meaning, name in read.items()}
        filled = {field.name: field.name.removeprefix("handoff_") for field in read_on(object)}
        first: dict[str, str] = {}
        for field, name in names_of(crm, target, object).items():
            if first.setdefault(name.casefold(), field) != field:
                given = field if field in target.fields.get(object, {}) else first[name.casefold()]
                yield (
                    ("fields", object, given),
                    f"{crm}.fields: {first[name.casefold()]} and {field} of {object} would both be "
                    f"'{name}'",
                    "give each field a name of its own",
                )
            is_read = read.get(filled.get(field, ""))
            if field not in filled and name.casefold() in meanings:
                yield (
                    ("fields", object, field),
                    f"{crm}.fields: the source '{source}' reads '{name}' as "
                    f"{meanings[name.casefold()]}, which {field} would overwrite",
                    "name another field",
                )
            elif is_read and is_read.casefold() != name.casefold():
                yield (
                    ("fields", object, field),
                    f"{crm}.fields: people would fill '{name}', and the source '{source}' reads "
                    f"'{is_read}' as {filled[field]}",
                    f"give both one name, here or in `fields` of sources/{source}.yaml",
                )
