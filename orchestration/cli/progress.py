"""Progress on a terminal: one line a layer, with what it is doing now; nothing in a pipe."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from orchestration.cli.console import errors

LAYERS = {
    "raw": "Pull the sources",
    "signals": "Build signals",
    "metrics": "Compute metrics",
    "scores": "Score accounts",
    "plan": "Plan what the CRM would receive",
}


@contextmanager
def watched() -> Iterator[Callable[[str, str], None]]:
    """What a run's steps are told to: bars on a terminal, one line a layer elsewhere."""
    began = time.monotonic()
    if sys.stderr.isatty():
        with Progress(
            SpinnerColumn(finished_text="[green]done[/green]"),
            TextColumn("{task.description}"),
            TextColumn("[dim]{task.fields[now]}[/dim]"),
            TimeElapsedColumn(),
            console=errors,
        ) as progress:
            yield _Bars(progress)
    else:
        yield lambda step, state: None
    errors.print(f"Ran in {time.monotonic() - began:.1f} s.", style="dim")


class _Bars:
    """One bar for each layer; it ends when the next layer begins."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.current: str | None = None
        self.tasks: dict[str, int] = {}

    def __call__(self, step: str, state: str) -> None:
        layer = step.partition("__")[0]
        if layer not in self.tasks:
            if self.current:
                self._end(self.current)
            text = LAYERS.get(layer, layer)
            self.tasks[layer] = self.progress.add_task(f"{text:<33}", total=1, now="")
            self.current = layer
        task = self.tasks[layer]
        if state == "start":
            self.progress.update(task, now=step.partition("__")[2])  # type: ignore[arg-type]
        elif state == "end":
            if layer != "raw":
                self._end(layer)
        else:
            self.progress.update(task, now=state[:60])  # type: ignore[arg-type]

    def _end(self, layer: str) -> None:
        self.progress.update(self.tasks[layer], completed=1, now="")  # type: ignore[arg-type]
