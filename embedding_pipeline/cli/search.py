"""``embedding-pipeline search``: the chunks nearest to a text.

Belongs here: asking, and printing what was found.
"""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli.output import Column, emit

if TYPE_CHECKING:
    from embedding_pipeline.records import Vectors
    from embedding_pipeline.settings.tree import Settings
    from embedding_pipeline.vectors.search import Hit

SHOWN_CHARACTERS: Final = 100


def shorten(text: str) -> str:
    """The beginning of a text as one line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


_COLUMNS: Final = (
    Column("score", "score", "{:.3f}".format, right=True),
    Column("chunk", "chunk_id"),
    Column("text", "text", shorten),
)


@click.command()
@click.argument("text")
@click.option("-k", type=click.IntRange(min=1), default=5, show_default=True, help="How many hits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole texts.")
def search(text: str, k: int, as_json: bool) -> None:
    """Find the chunks whose meaning is nearest to TEXT.

    The text is embedded with the model of the active space and compared with every vector
    in it.
    """
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    hits = find(settings, text, k)
    emit(
        [asdict(hit) for hit in hits],
        _COLUMNS,
        as_json=as_json,
        empty=f"Nothing found: no vectors yet in {settings.data_url or settings.data_path}. "
        "Run embedding-pipeline demo or backfill first.",
    )


def find(settings: "Settings", text: str, k: int) -> "list[Hit]":
    """The ``k`` nearest chunks in the active space."""
    from embedding_pipeline.assembly.parts import build_datasets
    from embedding_pipeline.assembly.service import open_service
    from embedding_pipeline.assembly.spaces import served_target, settings_for
    from embedding_pipeline.vectors.search import search as nearest

    datasets = build_datasets(settings)
    target = served_target(settings)
    if not datasets.embedded_days(target.space):
        return []

    async def embed() -> "Vectors":
        async with open_service(settings_for(settings, target)) as service:
            return await service.generate_embedding(text, priority="urgent")

    query = asyncio.run(embed())
    return nearest(datasets, target.space, query, k, dimensions=target.dimensions)
