"""What `healthloop doctor` finds, and how it asks those who may be long in answering."""

from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

ANSWERS_WITHIN_SECONDS = 15


@dataclass(frozen=True)
class Finding:
    """One finding: ``ok``, ``note`` or ``problem``, what was seen, and what to do about it."""

    level: str
    about: str
    seen: str
    remedy: str = ""


def in_time(answers: Iterator[T]) -> Iterator[T]:
    """What an iterator gives, as it comes, from a thread that nobody waits for.

    A request may be patient for minutes; a doctor may not. What the iterator raises is raised here.

    Raises:
        TimeoutError: the next answer took longer than `ANSWERS_WITHIN_SECONDS`.
    """
    told: SimpleQueue[tuple[T] | Exception | None] = SimpleQueue()

    def ask() -> None:
        try:
            for answer in answers:
                told.put((answer,))
            told.put(None)
        except Exception as error:
            told.put(error)

    Thread(target=ask, daemon=True).start()
    try:
        while (item := told.get(timeout=ANSWERS_WITHIN_SECONDS)) is not None:
            if isinstance(item, Exception):
                raise item
            yield item[0]
    except Empty:
        raise TimeoutError from None


def no_answer(who: str) -> tuple[str, str]:
    """What was seen, and the remedy, where somebody did not answer in time."""
    seen = f"{who} did not answer within {ANSWERS_WITHIN_SECONDS} seconds"
    return seen, "check the address, or try again later"
