"""``embedding-pipeline cache verify``: is every stored vector what it should be?

Belongs here: asking for it, progress, and the verdict in words.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.books import attend
from embedding_pipeline.cli.cache.spaces import require
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import Column, count, emit

if TYPE_CHECKING:
    from embedding_pipeline.state.store import Store

_COLUMNS: Final = (
    Column("space", "space"),
    count("entries", "entries"),
    count("damaged", "damaged"),
    count("not of length 1", "not_unit"),
    count("removed", "removed"),
)


@click.command()
@click.option("--space", help="Only this space.")
@click.option("--repair", is_flag=True, help="Remove what is bad, so that it is bought again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(space: str | None, repair: bool, as_json: bool) -> int:
    """Read every stored vector: checksum, dimensions, finite, of length 1.

    May run while others use the cache. Ends with exit code 1 when something is bad and was
    not removed.
    """
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    rows = attend(settings, lambda store: _verify(store, space, repair)) or []
    emit(rows, _COLUMNS, as_json=as_json, empty="The cache is empty.")
    bad = sum(row["damaged"] + row["not_unit"] - row["removed"] for row in rows)
    if not bad:
        return 0
    names = ", ".join(name for row in rows for name in row["examples"])
    click.echo(
        f"{bad:,} vectors are bad ({names}); they are never served. --repair removes them.",
        err=True,
    )
    return FAILED


async def _verify(store: "Store", only: str | None, repair: bool) -> list[dict[str, Any]]:
    from embedding_pipeline.cache import upkeep
    from embedding_pipeline.cache.groups import by_space
    from embedding_pipeline.records import Space

    held = await store.read(by_space)
    wanted = None if only is None else require(only, held)
    rows = []
    for use in held:
        if wanted in (None, use.space_id):
            found = await upkeep.verify(store, Space.parse(use.space), use.space_id, repair=repair)
            rows.append({"space": use.space, **asdict(found)})
    return rows
