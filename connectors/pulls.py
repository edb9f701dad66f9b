"""The pulls of one run: APIs are read side by side, while the loads come one after the other."""

import datetime as dt
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from importlib import import_module

from connectors.api import ApiConfig
from connectors.pull import Pull, Pulling, pull
from connectors.sources import Source
from contracts.company import Company

SOURCES_AT_ONCE = 4


class Pulls:
    """Pulls sources in any order; those that were announced have been read ahead meanwhile."""

    def __init__(self, company: Company, *, now: dt.datetime) -> None:
        self.company, self.now = company, now
        _import_pandas()
        self._pool = ThreadPoolExecutor(SOURCES_AT_ONCE, thread_name_prefix="pull")
        self._begun: dict[str, tuple[Pulling, Future[None]]] = {}

    def announce(self, sources: Iterable[Source]) -> None:
        """Begin to read the APIs among these sources; each only once."""
        for source in sources:
            if isinstance(source.config, ApiConfig) and source.name not in self._begun:
                pulling = Pulling(source, self.company, now=self.now)
                self._begun[source.name] = (pulling, self._pool.submit(pulling.read))

    def pull(self, source: Source) -> Pull:
        """Finish the pull of a source, or do it as a whole where it was not announced.

        What was read ahead is used once: a second call pulls anew.

        Raises:
            SourceError: nothing was taken, of no stream.
        """
        begun = self._begun.get(source.name)
        if begun is None or begun[0].closed:
            return pull(source, self.company, now=self.now)
        pulling, reading = begun
        with closing(pulling):
            reading.result()
            return pulling.load()

    def close(self) -> None:
        """Let go of what was read ahead and never asked for."""
        self._pool.shutdown(cancel_futures=True)
        for pulling, _ in self._begun.values():
            pulling.close()


def _import_pandas() -> None:
    """Import pandas where somebody has it, before any thread reads.

    The first array that pyarrow makes imports it. In a reader's thread that would be while dlt, in
    another one, finds the half-imported module and looks for a `DataFrame` in it.
    """
    with suppress(ImportError):
        import_module("pandas")
