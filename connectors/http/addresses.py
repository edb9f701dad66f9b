"""Which addresses may be asked: https, or this machine; and how they may be shown."""

import ipaddress
from urllib.parse import SplitResult, urlsplit, urlunsplit

from contracts.errors import SourceRefused

Origin = tuple[str, str, int | None]


def without_secrets(url: str) -> str:
    """An address as it may be shown: no user, no password, no query.

    >>> without_secrets("https://ann:pw@example.com/a.csv?token=1")
    'https://example.com/a.csv'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, host_and_port(parts), parts.path, "", ""))


def host_and_port(parts: SplitResult) -> str:
    """The host and port as they are written, without user and password."""
    return parts.netloc.rpartition("@")[2]


def origin(url: str) -> Origin:
    """Scheme, host and port: what credentials may be sent to.

    >>> origin("https://Api.example.com/v2") == origin("https://api.example.com:443/")
    True
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(scheme)


def refuse_plain_http(url: str) -> None:
    """Allow https everywhere and http on this machine.

    Raises:
        SourceRefused: it is neither.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    raise SourceRefused(f"{without_secrets(url)} is not https", "give an https:// address")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
