"""A portal that is written to: the reader's client, and what changes something, which is sent once.

The generated client knows the paths; what goes out and what comes back passes through our own
HTTP layer (`connectors.vendors.hubspot.client`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from hubspot.crm import objects, properties  # type: ignore[import-untyped]
from hubspot.crm.associations.v4 import schema  # type: ignore[import-untyped]

from connectors.crm.writing import Budget
from connectors.http import Http, Manners, Wait
from connectors.vendors.hubspot.answers import Answered, answered, judge_writing
from connectors.vendors.hubspot.client import HubSpot, Transport, generated, judge
from contracts.errors import (
    OutcomeUnknown,
    SourceCorrupt,
    SourceError,
    SourceRefused,
    SourceRejected,
)

_RAW: Mapping[str, Any] = {"_preload_content": False}
_DAILY = "X-HubSpot-RateLimit-Daily"
_TOKEN_PATH = "/oauth/v2/private-apps/get/access-token-info"

Records = list[dict[str, Any]]


class Portal:
    """One portal. `reader` reads; all else here writes, or is needed for writing only.

    Reads and writes share the burst limit. Whatever arrives after a write that is not what was
    declared raises `OutcomeUnknown`.
    """

    def __init__(self, address: str, token: str, version: str) -> None:
        self._daily: dict[str, int] = {}
        self.reader = HubSpot.at(address, token, version, self._noting(judge))
        self._http = Http(
            address,
            Manners("hubspot", judge=self._noting(judge_writing)),
            auth=BearerTokenAuth(token),
            writes=True,
            limits_of=self.reader.http,
        )
        writing, reading = Transport(self._http, version), Transport(self.reader.http, version)
        self._batch = objects.BatchApi(generated(objects, writing))
        self._properties = properties.CoreApi(generated(properties, reading))
        self._new_properties = properties.CoreApi(generated(properties, writing))
        self._groups = properties.GroupsApi(generated(properties, reading))
        self._new_groups = properties.GroupsApi(generated(properties, writing))
        self._labels = schema.DefinitionsApi(generated(schema, reading))
        # In a closure, because `vars()` shows attributes.
        self._ask_for_token = lambda: self.reader.http.post(_TOKEN_PATH, json={"tokenKey": token})

    def _noting(
        self, judge: Callable[[requests.Response], SourceError | Wait | None]
    ) -> Callable[[requests.Response], SourceError | Wait | None]:
        """The same judge, which also notes what an answer tells of the day's requests."""

        def noting(response: requests.Response) -> SourceError | Wait | None:
            for header in (_DAILY, f"{_DAILY}-Remaining"):
                told = response.headers.get(header, "")
                if told.isdigit():
                    self._daily[header] = int(told)
            return judge(response)

        return noting

    @property
    def requests_sent(self) -> int:
        """Reads, searches and writes."""
        return self.reader.requests_sent

    @property
    def budget(self) -> Budget:
        """What the last answers told; searches tell nothing."""
        allowed, left = self._daily.get(_DAILY), self._daily.get(f"{_DAILY}-Remaining")
        used = allowed - left if allowed is not None and left is not None else None
        return Budget(allowed, used)

    def hold(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._http.hold(seconds)

    def update(self, type: str, inputs: Records) -> Answered:
        """Set properties of up to 100 records.

        Raises:
            Rejected: the call as a whole; nothing was done.
            Locked: nothing was done, for now.
            OutcomeUnknown: something may have been done.
        """
        return self._batch_of(lambda: self._batch.update(type, {"inputs": inputs}, **_RAW))

    def create(self, type: str, inputs: Records) -> Answered:
        """Create up to 100 records; raises as `update` does."""
        return self._batch_of(lambda: self._batch.create(type, {"inputs": inputs}, **_RAW))

    def _batch_of(self, send: Callable[[], Any]) -> Answered:
        told = answered(self._sent(send))
        if told is None:
            raise self._unknown("sent something else than a batch's answer")
        return told

    def _sent(self, send: Callable[[], Any]) -> Any:
        try:
            return send()
        except SourceCorrupt as error:
            raise OutcomeUnknown(
                error.cause, "the next run reads back what became of it", vendor="hubspot"
            ) from None

    def _unknown(self, cause: str) -> SourceError:
        error = OutcomeUnknown(cause, "the next run reads back what became of it")
        return self._http.session.named(error)

    def properties(self, type: str) -> dict[str, dict[str, Any]]:
        """The properties of a type of record by name."""
        return self._named(self._properties.get_all(type, **_RAW))

    def groups(self, type: str) -> dict[str, dict[str, Any]]:
        """The property groups of a type of record by name."""
        return self._named(self._groups.get_all(type, **_RAW))

    def _named(self, body: Any) -> dict[str, dict[str, Any]]:
        found = body.get("results") if isinstance(body, dict) else None
        if not found or not all(isinstance(one, dict) and "name" in one for one in found):
            raise self.reader.corrupt("sent no list of properties")
        return {str(one["name"]): one for one in found}

    def add_property(self, type: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Create a property and return it as HubSpot made it."""
        made: dict[str, Any] = self._sent(
            lambda: self._new_properties.create(type, dict(definition), **_RAW)
        )
        return made

    def set_options(self, type: str, name: str, options: Sequence[Mapping[str, Any]]) -> None:
        """Replace the options of an enumeration; those that stay have to be named as well."""
        change = {"options": [dict(option) for option in options]}
        self._sent(lambda: self._new_properties.update(type, name, change, **_RAW))

    def add_group(self, type: str, name: str, label: str) -> None:
        """Create a property group."""
        definition = {"name": name, "label": label}
        self._sent(lambda: self._new_groups.create(type, definition, **_RAW))

    def association_type(self, from_type: str, to_type: str) -> int:
        """The id of the plain association between two types, which bears no label."""
        body = self._labels.get_all(from_type, to_type, **_RAW)
        for one in (body.get("results") if isinstance(body, dict) else None) or []:
            if one.get("category") == "HUBSPOT_DEFINED" and not one.get("label"):
                return int(one["typeId"])
        raise self.reader.corrupt(f"tells of no plain association from {from_type} to {to_type}")

    def scopes(self) -> frozenset[str] | None:
        """The scopes of the key; None where HubSpot does not tell.

        The path is that of private apps; whether it knows Service Keys is unconfirmed.
        """
        try:
            told = self._ask_for_token()
        except (SourceRejected, SourceRefused, SourceCorrupt):
            return None
        scopes = told.get("scopes") if isinstance(told, dict) else None
        return frozenset(map(str, scopes)) if isinstance(scopes, list) else None
