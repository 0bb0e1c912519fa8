"""A history from what is there: the ledger, the summaries, the files. Reads only.

Belongs here: finding figures. Does not belong here: arithmetic on them (``figures``), or
what follows from them (``advice``). Blocking; the ledger's part is a transaction's work.
"""

from collections.abc import Iterator
from datetime import tzinfo
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger.queries import LedgerSum, sums
from embedding_pipeline.ledger.spending import by_day
from embedding_pipeline.pipeline.history.figures import Overlap, Saving, Spending, Stored
from embedding_pipeline.records import Space
from embedding_pipeline.tokens import TokenCounter
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile

MOST_PAIRS: Final = 5_000
"""Neighbouring chunks that are compared; enough for a share to a per cent."""

SHORTEST: Final = 16
"""Characters in common that are no accident."""

CHARS_PER_TOKEN: Final = 8
"""More than any text has in the long run; bounds the search for a repetition."""


def spending(connection: Connection, zone: tzinfo) -> list[Spending]:
    """What was booked, by local day, project, user, model and kind."""
    sums: dict[tuple[object, ...], list[int]] = {}
    for spent in by_day(connection, zone):
        entry, account = spent.entry, spent.entry.account
        who = (account.project, account.user, model_of(entry.space), str(entry.kind))
        key = (spent.day, *who, bool(account.partition))
        figures = (
            entry.requests,
            entry.tokens,
            entry.cost_nano_usd,
            entry.unknown_nano_usd,
            entry.unpriced_tokens,
        )
        known = sums.setdefault(key, [0] * len(figures))
        known[:] = (a + b for a, b in zip(known, figures, strict=True))
    return [Spending(*key, *figures) for key, figures in sums.items()]  # type: ignore[arg-type]


def model_of(space: str) -> str:
    """The model of a space, as settings name it."""
    parsed = Space.parse(space)
    return f"{parsed.family}/{parsed.model}"


def savings(datasets: Datasets) -> tuple[list[Saving], int]:
    """What finished partitions saved, by project and source; and how many there are.

    A summary that cannot be read is left out: a report is no place to fail for it.
    """
    sums: dict[tuple[str, str], list[int]] = {}
    partitions = 0
    for day in datasets.days("cost_summary"):
        try:
            rows = list(_rows(datasets.cost_summary(day)))
        except DataError:
            continue
        partitions += 1
        for project, source, *figures in rows:
            known = sums.setdefault((project, source), [0, 0, 0])
            known[:] = (a + b for a, b in zip(known, figures, strict=True))
    return [Saving(*key, *figures) for key, figures in sorted(sums.items())], partitions


def _rows(file: PartitionFile) -> Iterator[tuple[str, str, int, int, int]]:
    names = ("project", "source", "chunks", "input_tokens", "saved_nano_usd")
    for batch in file.iter_batches(names):
        yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def stored(datasets: Datasets) -> list[Stored]:
    """The vectors in files, by space and dimensions."""
    sums: dict[tuple[Space, int], list[int]] = {}
    for folder, day, size in datasets.embeddings_files():
        found = _rows_of(datasets, folder, day)
        if found is not None:
            space, dimensions, rows = found
            known = sums.setdefault((space, dimensions), [0, 0])
            known[:] = (known[0] + rows, known[1] + size)
    return [
        Stored(str(space), space.native_dimensions, dimensions, *figures)
        for (space, dimensions), figures in sorted(sums.items())
    ]


def _rows_of(datasets: Datasets, folder: str, day: str) -> tuple[Space, int, int] | None:
    """What a file of vectors holds; None where it is not one, or damaged."""
    try:
        found = datasets.found_embeddings(folder, day)
        return found.space, found.dimensions, found.rows()
    except DataError:
        return None


def overlap(
    connection: Connection, datasets: Datasets, counter: TokenCounter, limit: int
) -> Overlap | None:
    """How much neighbouring chunks of a document repeat, in the latest days there are.

    Args:
        connection: a reading transaction, for what these days have cost.
        datasets: where the chunks are.
        counter: counts the repeated text.
        limit: the setting ``chunking.overlap_tokens``; at 0 there is nothing to measure.
    """
    if limit == 0:
        return None
    days: list[str] = []
    tokens = repeated = pairs = 0
    for day in reversed(datasets.days("raw_chunks")):
        found = _repeated(datasets.raw_chunks(day), limit * CHARS_PER_TOKEN)
        days.append(day)
        tokens += found[0]
        repeated += int(counter.count(found[1]).sum()) if found[1] else 0
        pairs += found[2]
        if pairs >= MOST_PAIRS:
            break
    if not pairs:
        return None
    cost = sum(entry.cost_nano_usd for day in days for entry in _of(connection, day))
    return Overlap(tuple(sorted(days)), tokens, repeated, cost)


def _of(connection: Connection, day: str) -> list[LedgerSum]:
    return sums(connection, partition=day)


def _repeated(file: PartitionFile, limit: int) -> tuple[int, list[str], int]:
    """Tokens of a day, what chunks repeat of the one before, and pairs compared."""
    names = ("document_id", "ordinal", "token_count", "text")
    tokens, repeated, pairs = 0, list[str](), 0
    before = ("", -1, "")
    for batch in file.iter_batches(names):
        for document, ordinal, count, text in zip(
            *(batch.column(name).to_pylist() for name in names), strict=True
        ):
            tokens += count
            if before[0] == document and before[1] + 1 == ordinal:
                pairs += 1
                if length := common(before[2], text, limit):
                    repeated.append(text[:length])
            before = (document, ordinal, text)
    return tokens, repeated, pairs


def common(left: str, right: str, limit: int) -> int:
    """Length of the longest end of ``left`` that ``right`` begins with; 0 if it is short."""
    tail = left[-limit:]
    for length in range(min(len(tail), len(right)), SHORTEST - 1, -1):
        if tail.endswith(right[:length]):
            return length
    return 0
