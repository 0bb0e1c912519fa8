"""Where texts come from: the options that ``cache warm`` and ``cache import`` share.

Belongs here: a file, or days of the source. Does not belong here: reading either.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, TypeVar

import click

from embedding_pipeline.cli.days import DAY, as_text

if TYPE_CHECKING:
    from embedding_pipeline.pipeline.warming import Texts
    from embedding_pipeline.settings.tree import Settings

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class TextsOptions:
    """What a person said: a file and its column, or days; or nothing."""

    file: str | None
    column: str
    start: date | None
    end: date | None

    @property
    def given(self) -> bool:
        """Whether any texts are named."""
        return self.file is not None or self.of_days

    @property
    def of_days(self) -> bool:
        """Whether days are named."""
        return self.start is not None or self.end is not None

    def require(self) -> None:
        """Refuse both, and neither."""
        if not self.given:
            raise click.UsageError("say which texts: --texts FILE, or --start and --end")
        if self.file is not None and self.of_days:
            raise click.UsageError("--texts and --start/--end do not go together")

    def days(self, settings: "Settings") -> list[str]:
        """The days meant. Raises ConfigurationError."""
        from embedding_pipeline.defs.days import days_between

        return days_between(settings, as_text(self.start), as_text(self.end))

    def open(self, settings: "Settings", stack: ExitStack) -> "Texts":
        """The texts, readable several times while ``stack`` is open."""
        from embedding_pipeline.assembly.warming import representatives, texts_of_days
        from embedding_pipeline.sources.texts import read_texts

        self.require()
        file = self.file
        if file is not None:
            return lambda: read_texts(file, self.column)
        days = self.days(settings)
        chunks = stack.enter_context(representatives(settings))
        return lambda: texts_of_days(chunks, days)


def texts_options(command: F) -> F:
    """Add the options; the command takes ``texts``, ``column``, ``start`` and ``end``."""
    for option in (
        click.option("--end", type=DAY, help="Last day, included."),
        click.option("--start", type=DAY, help="The texts of the source, from this day on."),
        click.option(
            "--column", default="text", show_default=True, help="Column of the texts in FILE."
        ),
        click.option(
            "--texts",
            metavar="FILE",
            help="The texts of a file: .txt (one a line), JSONL, CSV or Parquet.",
        ),
    ):
        command = option(command)
    return command


def usable(texts: "Texts") -> Callable[[], Iterator[str]]:
    """The texts that there are, without the rows that have none."""
    return lambda: (text for text in texts() if text is not None)
