"""What some days hold and what some runs spent, counted after the fact.

Belongs here: reading counts off the datasets and sums off the ledger, for printing.
Does not belong here: making any of it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.output import Column, count

if TYPE_CHECKING:
    from embedding_pipeline.ledger.queries import LedgerSum
    from embedding_pipeline.settings.tree import Settings
    from embedding_pipeline.vectors.partition import PartitionFile

REFERENCE_MODEL: Final = "openai/text-embedding-3-small"
"""Whose price says what work on this machine would have cost elsewhere."""

DAY_COLUMNS: Final = (
    Column("day", "date"),
    count("chunks", "chunks"),
    count("duplicates", "duplicates"),
    count("vectors", "vectors"),
)


@dataclass(frozen=True)
class Spent:
    """What the ledger holds of some work.

    Attributes:
        requests: calls made.
        input_tokens: tokens billed.
        cost_nano_usd: money.
    """

    requests: int = 0
    input_tokens: int = 0
    cost_nano_usd: int = 0


def day_rows(settings: "Settings", days: Sequence[str]) -> list[dict[str, Any]]:
    """Chunks, duplicates and vectors of each day; 0 where nothing was made."""
    from embedding_pipeline.assembly.parts import build_datasets

    datasets, space = build_datasets(settings), settings.model_spec.space
    return [
        {
            "date": day,
            "chunks": _rows(datasets.raw_chunks(day)),
            "duplicates": _rows(datasets.duplicate_chunks(day)),
            "vectors": _rows(datasets.embeddings(space, day, settings.dimensions)),
        }
        for day in days
    ]


def with_total(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows and their sum."""
    figures = [column.key for column in DAY_COLUMNS[1:]]
    return [*rows, {"date": "total", **{key: sum(row[key] for row in rows) for key in figures}}]


def spent_by_runs(settings: "Settings", run_ids: Iterable[str]) -> Spent:
    """What these runs did."""
    from embedding_pipeline.ledger.queries import sums

    found = (ask(settings, partial(sums, run_id=run_id)) or () for run_id in run_ids)
    return _total(chain.from_iterable(found))


def spent_on_days(settings: "Settings", days: Iterable[str]) -> Spent:
    """What these days have taken so far in the settings' space, by whichever run."""
    from embedding_pipeline.ledger.queries import sums

    wanted, space = set(days), str(settings.model_spec.space)
    entries = ask(settings, sums) or []
    return _total(
        entry for entry in entries if entry.account.partition in wanted and entry.space == space
    )


def deferred_on_days(settings: "Settings", days: Iterable[str]) -> int:
    """How many chunks of these days are left for later in the settings' space."""
    from embedding_pipeline.assembly.watching import deferrals

    wanted, space = set(days), str(settings.model_spec.space)
    waiting = (one for one in asyncio.run(deferrals(settings)) if one.space == space)
    return sum(one.chunks for one in waiting if one.account.partition in wanted)


def reference_cost(input_tokens: int) -> int:
    """nano-USD these tokens cost at ``REFERENCE_MODEL``."""
    from embedding_pipeline.catalog import find_model

    return input_tokens * (find_model(REFERENCE_MODEL).nano_usd_per_token or 0)


def _rows(file: "PartitionFile") -> int:
    return file.rows() if file.exists() else 0


def _total(entries: "Iterable[LedgerSum]") -> Spent:
    requests = tokens = cost = 0
    for entry in entries:
        requests += entry.requests
        tokens += entry.tokens
        cost += entry.cost_nano_usd
    return Spent(requests, tokens, cost)
