"""What the event stores (PostHog, Mixpanel, Amplitude) have in common: what their events mean."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AfterValidator, Field

from connectors.api import ApiConfig
from connectors.http.json_text import parsed
from contracts.errors import SourceCorrupt

BATCH_ROWS = 20_000
Row = tuple[str | None, ...]


def _plain_name(name: str) -> str:
    if not name.strip() or re.search(r"[`\\\x00-\x1f]", name):
        raise ValueError("a name has no backticks, backslashes or control characters")
    return name


Name = Annotated[str, AfterValidator(_plain_name)]
Names = Annotated[list[Name], Field(min_length=1)]


class EventStoreConfig(ApiConfig):
    """What the events of a product mean.

    Args:
        events: The events that count as usage; all when left out.
        active_events: The events that make a user active on a day; all when left out.
        level_events: Events that report a level, such as gigabytes stored. Of a day the last
            value holds; they are no action, so they count nothing and make nobody active.
        value_property: The event property that holds a quantity.
        crm_id_property, domain_property: Group properties that tell whose workspace it is.
    """

    events: Names | None = None
    active_events: Names | None = None
    level_events: list[Name] = Field(default_factory=list)
    value_property: Name | None = None
    crm_id_property: Name = "crm_account_no"
    domain_property: Name = "signup_domain"

    def parameters(self) -> dict[str, str]:
        """The three lists of events as JSON; an empty one where none is configured."""
        return {
            "events": json.dumps(self.events or []),
            "active_events": json.dumps(self.active_events or []),
            "level_events": json.dumps(self.level_events),
        }

    def wanted_events(self) -> frozenset[str]:
        """The only events that any mapping uses; empty where all are of use."""
        if self.events is None or self.active_events is None:
            return frozenset()
        return frozenset([*self.events, *self.active_events])


def objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file's lines; empty lines are passed over.

    Raises:
        SourceCorrupt: a line is no JSON object.
    """
    for line in lines:
        if not line.strip():
            continue
        try:
            found = parsed(line)
        except ValueError:
            raise SourceCorrupt("the file has a line that is no JSON", "run again") from None
        if type(found) is not dict:
            raise SourceCorrupt("the file has a line that is no event", "run again")
        yield found


def tables(columns: Sequence[str], rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Rows of texts as tables of many rows each."""
    left = iter(rows)
    # Of each event only its row is kept: many thousand nested objects at once would be slow.
    while chunk := list(islice(left, BATCH_ROWS)):
        values = zip(*chunk, strict=True)
        yield pa.table([pa.array(column, pa.string()) for column in values], names=list(columns))


def plain_text(value: Any) -> str | None:
    """A number or text as text, blank or anything else as None."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value)


def group_keys(value: Any) -> list[str]:
    """The groups that an event belongs to: one text or number, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [text for text in map(plain_text, values) if text is not None]


def properties_of(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object within an event; empty where there is none."""
    found = event.get(name)
    return found if isinstance(found, dict) else {}
