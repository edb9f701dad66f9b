"""E-mail addresses in whatever a run leaves behind."""

import re

_DOMAIN = re.compile(rb"@[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.IGNORECASE)
_LOCAL = re.compile(rb"[a-z0-9._+-]+\Z", re.IGNORECASE)
LONGEST_LOCAL = 64


def addresses_in(content: bytes) -> set[bytes]:
    """Every address in a text or a file, in small letters.

    Each is looked for from its at sign: databases have long stretches without one, of which every
    character could be the first of an address.

    >>> addresses_in(b"To: Ada.L@Mail.example, ada@, @home")
    {b'ada.l@mail.example'}
    """
    found = set()
    for domain in _DOMAIN.finditer(content):
        before = content[max(0, domain.start() - LONGEST_LOCAL) : domain.start()]
        local = _LOCAL.search(before)
        if local:
            found.add((local[0] + domain[0]).lower())
    return found
