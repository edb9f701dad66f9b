"""The HTTP layer that every connector uses: bounded, polite, and never taking a fault for data.

`Http` is one vendor's API; `Manners` is what is particular to it. What a status means and what
is tried again stands in `connectors.http.verdicts`, what a body must be in
`connectors.http.answers`. `fetch` downloads one published file.
"""

from connectors.http.addresses import without_secrets
from connectors.http.client import Http
from connectors.http.limiter import Limit
from connectors.http.manners import (
    Judge,
    Manners,
    Patience,
    Wait,
    reset_epoch_seconds,
    retry_after_seconds,
)
from connectors.http.published import fetch

__all__ = [
    "Http",
    "Judge",
    "Limit",
    "Manners",
    "Patience",
    "Wait",
    "fetch",
    "reset_epoch_seconds",
    "retry_after_seconds",
    "without_secrets",
]
