"""Showing how far a run is: a bar on a terminal, a line now and then elsewhere.

Belongs here: drawing. Does not belong here: counting, or when a line is due (``defs.progress``).
Progress goes to standard error, so that what a command prints can be piped.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from embedding_pipeline.pipeline.words import usd

if TYPE_CHECKING:
    from embedding_pipeline.service.work import Progress

OnProgress = Callable[["Progress"], None]


class Meter:
    """Passes progress on and remembers how many texts were embedded, over all runs.

    Args:
        show: gives, for each run anew, what draws its progress.
    """

    def __init__(self, show: Callable[[], OnProgress]) -> None:
        self._new = show
        self._show = show()
        self._finished = 0
        self._current = 0

    @property
    def embedded(self) -> int:
        """Texts embedded since the meter was made."""
        return self._finished + self._current

    def __call__(self, progress: "Progress") -> None:
        self._current = progress.embedded
        self._show(progress)

    def next_run(self) -> None:
        """What comes now belongs to another run."""
        self._finished, self._current = self.embedded, 0
        self._show = self._new()


@contextmanager
def showing(what: str) -> Iterator[Meter]:
    """A meter that shows progress for as long as the block lasts."""
    if sys.stderr.isatty():
        with _bar(what) as show:
            yield Meter(lambda: show)
    else:
        yield Meter(_lines)


def _lines() -> OnProgress:
    from embedding_pipeline.defs.progress import ProgressLog

    return ProgressLog(lambda line: click.echo(line, err=True))


@contextmanager
def _bar(what: str) -> Iterator[OnProgress]:
    from rich import progress as drawing
    from rich.console import Console

    columns = (
        drawing.SpinnerColumn(),
        drawing.TextColumn("{task.description}"),
        drawing.BarColumn(),
        drawing.TextColumn("{task.fields[said]}"),
        drawing.TimeRemainingColumn(),
    )
    with drawing.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, said="")

        def show(progress: "Progress") -> None:
            said = f"{progress.done:,} chunks, {usd(progress.cost_nano_usd)}"
            bar.update(task, total=progress.total, completed=progress.done, said=said)

        yield show
