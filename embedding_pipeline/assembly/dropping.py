"""How large spaces are, and giving one up.

Belongs here: sizes on disk, and dropping the files of a space that is not active. Does not
belong here: when a space's time is over (``spaces.history``). What is in the cache stays
there: it was paid for, and the cache has bounds of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.assembly.spaces import (
    DAY_MS,
    SpacesState,
    active_target,
    model_of,
    wanted,
)
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import ConfigurationError, DataError
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces import builds, history
from embedding_pipeline.spaces.records import Action, Target

_FOLDERS: Final = ("embeddings", "derived_chunks")


@dataclass(frozen=True)
class Dropped:
    """A space that is gone from the disk."""

    space: Space
    days: int
    size_bytes: int


def size_bytes(settings: Settings, space: Space) -> int:
    """Bytes of all files of a space."""
    storage = build_datasets(settings).storage
    with _edge():
        return sum(file.size for name in _FOLDERS for file in storage.files(f"{name}/{space.slug}"))


async def drop(settings: Settings, space: Space, by: str, clock: Clock | None = None) -> Dropped:
    """Remove the files of a space, for good.

    The folders are given up in the transaction that records it, so that nobody can make
    the space active in between; what a crash leaves of them goes with the next drop.

    Raises:
        ConfigurationError: the space is active, or being built, or not there.
        DataError: the files cannot be removed.
    """
    clock = clock or SystemClock()
    datasets = build_datasets(settings)
    days = datasets.embedded_days(space)
    if not days:
        raise ConfigurationError(
            f"{space} has no vectors here; see: embedding-pipeline spaces list"
        )
    size = size_bytes(settings, space)
    target = Target(model_of(space), space, space.native_dimensions)
    at = int(clock.now() * 1000)

    def work(connection: Connection) -> None:
        state = SpacesState.read(connection)
        if active_target(settings, state, datasets).space == space:
            raise ConfigurationError(f"{space} is active; promote another space, then drop it")
        build = builds.current(connection)
        if build is not None and build.target.space == space:
            raise ConfigurationError(f"{space} is being built; set embedding.model back first")
        history.append(connection, Action.DROP, target, by=by, now_ms=at)
        with _edge():
            for name in _FOLDERS:
                datasets.storage.discard(f"{name}/{space.slug}")

    with open_store(settings, clock) as store:
        await store.write(work)
    for name in _FOLDERS:
        datasets.storage.clear_discarded(name)
    return Dropped(space, len(days), size)


async def drop_expired(settings: Settings, clock: Clock | None = None) -> list[Dropped]:
    """Drop the spaces that were replaced more than ``spaces.keep_days`` ago."""
    clock = clock or SystemClock()
    with open_store(settings, clock) as store:
        state = await store.read(SpacesState.read)
    keep, now = settings.spaces.keep_days * DAY_MS, int(clock.now() * 1000)
    over = [
        target.space
        for target in history.expired(state.events, keep, now)
        if target.space != wanted(settings).space
        and build_datasets(settings).embedded_days(target.space)
    ]
    return [await drop(settings, space, "spaces.keep_days", clock) for space in over]


@contextmanager
def _edge() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataError(f"the files of a space cannot be removed: {exc}") from exc
