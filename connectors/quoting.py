"""Names and texts as they stand in SQL, safely quoted."""


def quoted(name: str) -> str:
    """A name as an SQL identifier; a quote in it is doubled."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal.

    >>> literal("O'Neil")
    "'O''Neil'"
    """
    return "'" + text.replace("'", "''") + "'"
