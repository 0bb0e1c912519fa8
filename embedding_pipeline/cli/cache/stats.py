"""``embedding-pipeline cache stats``: what is held, and how often it was asked for.

Belongs here: asking, and printing.
"""

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.cache.spaces import active_spaces
from embedding_pipeline.cli.days import DAY
from embedding_pipeline.cli.output import Column, Row, count, emit, json_lines

if TYPE_CHECKING:
    from sqlalchemy import Connection


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB"


_SPACES: Final = (
    Column("space", "space"),
    Column("in use", "active", lambda value: "yes" if value else "no"),
    count("entries", "entries"),
    Column("size", "bytes", megabytes, right=True),
    Column("last used", "used_at"),
)
_TIERS: Final = (
    Column("space", "space"),
    Column("project", "project"),
    Column("tier", "tier"),
    count("hits", "hits"),
    count("misses", "misses"),
    count("damaged", "damaged"),
    Column("hit ratio", "hit_ratio", "{:.1%}".format, right=True),
)
_NOTHING: Final[dict[str, Any]] = {
    "entries": 0,
    "bytes": 0,
    "max_bytes": None,
    "file_bytes": 0,
    "free_bytes": 0,
    "spaces": [],
    "tiers": [],
}


@click.command()
@click.option("--since", type=DAY, help="Count hits and misses from this day (UTC) on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(since: date | None, as_json: bool) -> None:
    """Entries, bytes and hit ratios, by space, project and tier.

    Sizes are bytes of the stored values. A tier is asked only for what those before it
    did not have.
    """
    from embedding_pipeline.assembly.service import cache_bound
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    active = {str(space) for space in active_spaces(settings)}
    found = ask(settings, lambda c: _read(c, since, active)) or dict(_NOTHING)
    found["max_bytes"] = cache_bound(settings).max_bytes
    if as_json:
        click.echo(json_lines(found))
        return
    emit(found["spaces"], _SPACES, as_json=False, empty="The cache is empty.")
    if found["tiers"]:
        click.echo()
        emit(found["tiers"], _TIERS, as_json=False, empty="")
    if found["spaces"]:
        click.echo(f"\n{_room(found)}")


def _read(connection: "Connection", since: date | None, active: set[str]) -> dict[str, Any]:
    from embedding_pipeline.cache.groups import by_space
    from embedding_pipeline.cache.stats import usage
    from embedding_pipeline.state.room import measure

    start = None if since is None else datetime(since.year, since.month, since.day, tzinfo=UTC)
    since_ms = None if start is None else int(start.timestamp() * 1000)
    spaces = [
        {**asdict(use), "active": use.space in active, "used_at": _instant(use.used_at)}
        for use in by_space(connection)
    ]
    room = measure(connection)
    return {
        "entries": sum(row["entries"] for row in spaces),
        "bytes": sum(row["bytes"] for row in spaces),
        "max_bytes": None,
        "file_bytes": room.total_bytes,
        "free_bytes": room.free_bytes,
        "spaces": spaces,
        "tiers": [_tier(use) for use in usage(connection, since_ms=since_ms)],
    }


def _tier(use: Any) -> Row:
    return {**asdict(use), "hit_ratio": round(use.hit_ratio, 6)}


def _instant(milliseconds: int) -> str:
    from embedding_pipeline.clock import utc

    return utc(milliseconds / 1000).isoformat(timespec="minutes")


def _room(found: dict[str, Any]) -> str:
    bound = found["max_bytes"]
    limit = f" of {megabytes(bound)} allowed" if bound is not None else ""
    free = found["free_bytes"]
    spare = f", {megabytes(free)} of it free for the next vectors" if free else ""
    return (
        f"{found['entries']:,} vectors, {megabytes(found['bytes'])}{limit}; "
        f"{megabytes(found['file_bytes'])} on disk{spare}."
    )
