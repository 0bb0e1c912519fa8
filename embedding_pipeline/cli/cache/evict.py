"""``embedding-pipeline cache evict`` and ``purge``: making room.

Belongs here: from options to what may go, asking back, and telling what went.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import click

from embedding_pipeline.cli.asking import go_on
from embedding_pipeline.cli.books import ask, attend
from embedding_pipeline.cli.cache.spaces import active_spaces, numbers_of, require
from embedding_pipeline.cli.cache.stats import megabytes
from embedding_pipeline.cli.days import DAY
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import json_lines

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from embedding_pipeline.cache.eviction import Policy
    from embedding_pipeline.cache.upkeep import Evicted
    from embedding_pipeline.records import Space

_NOTHING = "The cache is empty; nothing was removed."


@click.command()
@click.option("--to-gb", type=click.FloatRange(min=0), help="Come down to this size.")
@click.option("--before", type=DAY, help="Only what was last used before this day (UTC).")
@click.option("--space", help="Only from this space.")
@click.option("--active-too", is_flag=True, help="Vectors of the space in use may go as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evict(
    to_gb: float | None, before: date | None, space: str | None, active_too: bool, as_json: bool
) -> int:
    """Remove the least recently used vectors from the database tier.

    Down to --to-gb, or to cache.max_gb of the settings; with --before alone, everything
    last used before that day. What was bought together goes together, and is bought again
    when it is needed. Ends with exit code 1 when more was asked for than may go.
    """
    from embedding_pipeline.assembly.service import cache_bound
    from embedding_pipeline.cache import upkeep
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    size = round(to_gb * 1e9) if to_gb is not None else cache_bound(settings).max_bytes
    if size is None and before is None:
        raise click.UsageError("say how far: --to-gb, --before, or cache.max_gb in the settings")
    kept = () if active_too else tuple(active_spaces(settings))
    policy = ask(settings, lambda c: _policy(c, kept, size or 0, before, space))
    if policy is None:
        return _tell(None, as_json)
    done = attend(settings, lambda store: upkeep.evict(store, policy))
    if done is None or size is None or done.surplus == 0:
        return _tell(done, as_json)
    _tell(done, as_json)
    click.echo(
        f"{megabytes(done.surplus)} above the size asked for are left: they are in use, or not "
        "meant by the other options. --active-too lets vectors of the space in use go.",
        err=True,
    )
    return FAILED


@click.command()
@click.option("--space", required=True, help="The space, as cache stats calls it.")
@click.option("--active-too", is_flag=True, help="Even if it is the space in use.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def purge(space: str, active_too: bool, yes: bool, as_json: bool) -> int:
    """Remove every vector of one space from the cache.

    What was spent on them stays in the ledger; files under data_dir stay as they are.
    """
    from embedding_pipeline.cache import upkeep
    from embedding_pipeline.cache.groups import by_space
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    held = ask(settings, by_space) or []
    number = require(space, held)
    if not active_too and space in {str(active) for active in active_spaces(settings)}:
        raise click.UsageError(f"{space} is in use; with --active-too it is removed all the same")
    (use,) = (use for use in held if use.space_id == number)
    if not yes:
        what = f"Remove {use.entries:,} vectors ({megabytes(use.bytes)}) of {space}?"
        go_on(what)
    return _tell(attend(settings, lambda store: upkeep.purge(store, number)), as_json)


def _policy(
    connection: "Connection",
    kept: "Sequence[Space]",
    size: int,
    before: date | None,
    space: str | None,
) -> "Policy":
    from embedding_pipeline.cache.eviction import Policy
    from embedding_pipeline.cache.groups import by_space

    start = None if before is None else datetime(before.year, before.month, before.day, tzinfo=UTC)
    return Policy(
        max_bytes=size,
        keep=numbers_of(connection, kept),
        only=None if space is None else require(space, by_space(connection)),
        before_ms=None if start is None else int(start.timestamp() * 1000),
    )


def _tell(done: "Evicted | None", as_json: bool) -> int:
    if as_json:
        zero = {"entries": 0, "bytes": 0, "surplus": 0, "returned_bytes": 0}
        click.echo(json_lines(zero if done is None else asdict(done)))
    elif done is None:
        click.echo(_NOTHING)
    else:
        click.echo(
            f"{done.entries:,} vectors removed, {megabytes(done.bytes)}; "
            f"{megabytes(done.returned_bytes)} given back to the file system."
        )
    return 0
