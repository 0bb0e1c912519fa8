"""Our own way: the service with durable cache, ledger, limits and budgets, as settings make it.

Belongs here: settings, and handing texts over. Imports of the product happen on use, since every
client's environment reads this module.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.asking import DAY, IN_FLIGHT, MODEL, Ask

PART = 1024
"""Texts handed over at a time, as a row group of a partition's file is."""


def _settings(ask: Ask, **more: Any) -> Any:
    from embedding_pipeline.settings.loading import load_settings

    budget = {"scope": "all", "period": "total", "limit_usd": ask.budget_usd}
    return load_settings(
        {
            "data_dir": ask.folder,
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [{"name": "openai", "kind": "openai", "base_url": ask.base_url}],
            "requests": {"max_inputs": ask.batch, "target_tokens": 300_000},
            "limits": {"max_in_flight": IN_FLIGHT},
            "budgets": [budget] if ask.budget_usd else [],
            **more,
        }
    )


async def _work(ask: Ask) -> AsyncIterator[Any]:
    from embedding_pipeline.records import Account
    from embedding_pipeline.service.work import WorkBatch
    from embedding_pipeline.tokens import default_counter

    for start in range(0, len(ask.texts), PART):
        part = list(ask.texts[start : start + PART])
        names = [str(start + i) for i in range(len(part))]
        accounts = [Account("bench", "", DAY)] * len(part)
        yield WorkBatch(DAY, names, part, default_counter().count(part), accounts)


async def _filled(ask: Ask) -> AsyncIterator[np.ndarray]:
    from embedding_pipeline.assembly.service import EmbeddingService

    async with EmbeddingService(settings=_settings(ask), api_key=ask.key) as service:
        async for batch in service.bulk(_work(ask)).batches():
            yield batch.vectors


async def matrix(ask: Ask) -> np.ndarray:
    """One matrix in the order of the texts, as the others hand it over.

    Zeros stand for a text that was refused or left for later, as its batch says beside them.
    """
    return np.concatenate([vectors async for vectors in _filled(ask)])


async def stream(ask: Ask) -> np.ndarray:
    """The same, let go of part by part, as a run does that writes Parquet; only as many ones."""
    made = sum([len(vectors) async for vectors in _filled(ask)])
    return np.ones((made, 1), np.float32)


async def preview(ask: Ask) -> int:
    """Tokens that ``embedding-pipeline plan`` says for these texts as a day's chunks."""
    from embedding_pipeline.assembly.planning import plan_spending

    file = Path(ask.folder) / f"{DAY}.jsonl"
    rows = (json.dumps({"id": str(i), "text": text}) for i, text in enumerate(ask.texts))
    file.write_text("\n".join(rows) + "\n")
    source = {"kind": "files", "path": str(file.with_name("{date}.jsonl"))}
    settings = _settings(ask, source=source, partitions={"start_date": DAY}, dedup={"near": False})
    plan = await plan_spending(settings, [DAY])
    return plan.total.input_tokens
