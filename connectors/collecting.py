"""Python's search for cycles, which looks at every object that there is, again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS_BETWEEN = 100_000
"""How many objects are made between two searches, in place of the usual 700."""


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """During the block, which makes millions of objects without cycles, search for them rarely."""
    often, *seldom = gc.get_threshold()
    gc.set_threshold(max(often, OBJECTS_BETWEEN), *seldom)
    try:
        yield
    finally:
        gc.set_threshold(often, *seldom)
