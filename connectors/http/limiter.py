"""Staying below a vendor's limits: at most so many requests in any so many seconds."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """At most `requests` in any window of `seconds`."""

    requests: int
    seconds: float


class Limiter:
    """Lets the requests of all threads through, one by one and never more than the limits allow.

    `granted` counts the requests that were let through.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.granted = 0
        self._clock = clock
        self._sleep = sleep
        # The moments of the last `requests` grants; as many as fit into one window.
        self._windows = [(limit.seconds, deque[float](maxlen=limit.requests)) for limit in limits]
        self._open_at = float("-inf")
        self._opening = threading.Lock()
        # Held while sleeping: who comes later would have to wait at least as long.
        self._turn = threading.Lock()

    def wait(self, at_most_seconds: float = float("inf")) -> float:
        """Wait for a turn; return the seconds waited.

        Raises:
            LimitReached: the turn would come only after `at_most_seconds`. It was not taken.
        """
        with self._turn:
            began = now = self._clock()
            while (due := self._due()) > now:
                if due - began > at_most_seconds:
                    raise LimitReached(due - began)
                self._sleep(due - now)
                # Not the clock alone: it may be coarser than the sleep.
                now = max(self._clock(), due)
            for _, granted in self._windows:
                granted.append(now)
            self.granted += 1
            return now - began

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long: the vendor said that the limit is used up."""
        with self._opening:
            self._open_at = max(self._open_at, self._clock() + seconds)

    def _due(self) -> float:
        """The earliest moment at which every window has room."""
        full = (
            granted[0] + seconds
            for seconds, granted in self._windows
            if len(granted) == granted.maxlen
        )
        return max([self._open_at, *full])


class LimitReached(Exception):
    """The next turn is further away than the caller wants to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the next request may be sent in {seconds:.0f} seconds")
        self.seconds = seconds
