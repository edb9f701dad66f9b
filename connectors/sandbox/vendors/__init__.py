"""The vendors that the sandbox presents; each module has ``routes(box)``."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from starlette.routing import BaseRoute

from connectors.sandbox.servers.box import Box

NAMES = (
    "amplitude", "chargebee", "company_news", "freshdesk", "hubspot", "intercom", "mixpanel",
    "posthog", "salesforce", "stripe", "surveymonkey", "typeform", "zendesk",
)  # fmt: skip


def served() -> list[str]:
    """The names of the vendors that have a server."""
    return [name for name in NAMES if find_spec(f"{__name__}.{name}")]


def routes_of(name: str) -> Callable[[Box], list[BaseRoute]]:
    """A vendor's function that makes its routes; its module is only imported now."""
    routes: Callable[[Box], list[BaseRoute]] = import_module(f"{__name__}.{name}").routes
    return routes
