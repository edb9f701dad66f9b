"""What an administrator of the sandbox's Salesforce org sets, and the sessions that are open."""

from typing import Any

from connectors.sandbox.servers.box import Box, Table
from connectors.sandbox.vendors.salesforce_ids import VENDOR

DAILY_REQUESTS = 100_000


def sessions(box: Box) -> Table:
    """The access tokens that are accepted, by token; remove one and it has expired."""

    def fill(table: Table) -> None:
        table.put(box.token(VENDOR), {}, 0.0)

    return box.table(VENDOR, "_sessions", fill)


def settings(box: Box) -> Table:
    """What an administrator sets, by name.

    ``api``: `used` and `allowed` requests of the day.
    ``certificate``: the `public_key` (PEM) that checks signed logins; not there at first.
    ``access``: with `lenient` every field that was added is seen and edited without a permission.
    ``keys``: whether a duplicate's message `tells_id` or says ``<unknown>``, and whether the key of
    a record in the recycle bin is still taken (`bin_blocks`), which the vendor leaves open.
    ``bulk``: `refuses` is None, or status and error code of every request to an ingest job.
    """

    def fill(table: Table) -> None:
        table.put("api", {"used": 0, "allowed": DAILY_REQUESTS}, 0.0)
        table.put("access", {"lenient": False}, 0.0)
        table.put("keys", {"tells_id": True, "bin_blocks": False}, 0.0)
        table.put("bulk", {"refuses": None}, 0.0)

    return box.table(VENDOR, "_settings", fill)


def setting(box: Box, name: str) -> dict[str, Any]:
    """One of the settings as it is now; empty where it was removed."""
    row = settings(box).get(name, box.now.timestamp())
    return row.body if row else {}
