"""Submissions from time to time: polled, collected, given up; and the days that they free.

Belongs here: doing so for every model that has any, from settings. Does not belong here:
the steps (``batch_api.advancing``), or making days (``defs``).
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from embedding_pipeline.assembly.batch_way import queue_of
from embedding_pipeline.assembly.batching import open_batching
from embedding_pipeline.assembly.parts import build_datasets, has_state, open_store
from embedding_pipeline.assembly.planning import with_model
from embedding_pipeline.assembly.spaces import SpacesState, active_target, model_of
from embedding_pipeline.batch_api import books
from embedding_pipeline.batch_api.advancing import Advancer
from embedding_pipeline.batch_api.decision import overdue
from embedding_pipeline.batch_api.forgetting import Forgotten, forget
from embedding_pipeline.batch_api.records import Submission
from embedding_pipeline.cache import database
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ConfigurationError, ProviderError
from embedding_pipeline.ledger.deferred import backlogs
from embedding_pipeline.pipeline.batch_days import ReadyDays, ready_days
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """How submissions stand after they were looked at.

    Attributes:
        left: those with something left to do.
        strange: queues that the settings do not lead to: another account, or a lost model.
    """

    left: Sequence[Submission] = ()
    strange: Sequence[str] = field(default_factory=tuple)


async def keep(
    settings: Settings, clock: Clock | None = None, *, seconds: float | None = None
) -> Kept:
    """Look after every submission once: ask, fetch, book, delete files, ask for batches.

    Args:
        settings: where everything is. The Batch API may have been switched off meanwhile.
        clock: time.
        seconds: begin with no more submissions after so long.

    Raises:
        ConfigurationError: there is no key.
        StateError: the store refused.
    """
    if not has_state(settings):
        return Kept()
    with open_store(settings, clock) as store:
        ours, strange = await _with_work(settings, store)
        for chosen in ours:
            async with open_batching(chosen, store, clock) as batching:
                advancer = batching.advancer()
                if not await advancer.advance(seconds=seconds):
                    await _sweep(advancer)
        left = await store.read(lambda c: books.listing(c, finished=False))
    return Kept(left, strange)


async def _with_work(settings: Settings, store: Store) -> tuple[list[Settings], list[str]]:
    """The settings with each model that has submissions; and queues they do not lead to."""
    ours: list[Settings] = []
    strange: list[str] = []
    for name, queue in await store.read(books.queues):
        chosen = settings_of(settings, name)
        if chosen is not None and queue_of(chosen) == queue:
            ours.append(chosen)
        else:
            strange.append(queue)
    return ours, strange


def settings_of(settings: Settings, space: str) -> Settings | None:
    """The settings with the model of a space; None where its batches have no way any more."""
    model = model_of(Space.parse(space))
    try:
        chosen = with_model(settings, model) if model else None
        if chosen is not None:
            queue_of(chosen)
    except ConfigurationError:
        return None
    return chosen


async def _sweep(advancer: Advancer) -> None:
    """Files that nobody needs; it is no harm where they stay until the next time."""
    try:
        await advancer.sweep_files()
    except ProviderError as error:
        log.warning("files of earlier batches were not looked for: %s", error)


async def find_ready(settings: Settings, busy: Collection[str] = ()) -> ReadyDays:
    """The days that can be made now that their batches are in. Raises StateError."""
    if not has_state(settings):
        return ReadyDays()
    with open_store(settings) as store:
        state = await store.read(SpacesState.read)
        active = active_target(settings, state, build_datasets(settings)).space
        written = {settings.model_spec.space, active}

        def read(connection: Connection) -> ReadyDays:
            numbers = [database.find_space(connection, space) for space in written]
            held = {
                day
                for number in numbers
                if number is not None
                for day in books.days_in_batches(connection, number)
            }
            names = {str(space) for space in written}
            left = [one for one in backlogs(connection) if one.space in names]
            return ready_days(left, held, busy)

        return await store.read(read)


async def submissions(settings: Settings, *, finished: bool = False) -> list[Submission]:
    """All submissions on record, oldest first. Raises StateError."""
    if not has_state(settings):
        return []
    with open_store(settings) as store:
        return await store.read(lambda c: books.listing(c, finished=finished))


async def cancel(
    settings: Settings, names: Collection[str], clock: Clock | None = None
) -> list[Submission]:
    """Ask for the end of submissions; those that another process works on stay as they are.

    Args:
        settings: where everything is.
        names: beginnings of ids; none means all that are under way.
        clock: time.

    Raises:
        ConfigurationError: a name fits none, or several; or there is no key.
        ProviderError: the provider did not answer.
        StateError: the store refused.
    """
    found: list[Submission] = []
    with open_store(settings, clock) as store:
        left = await store.read(lambda c: books.listing(c, finished=False))
        chosen = {_one(left, name).id for name in names} if names else {one.id for one in left}
        ours, _ = await _with_work(settings, store)
        for model in ours:
            queue = queue_of(model)
            async with open_batching(model, store, clock) as batching:
                advancer = batching.advancer()
                for one in left:
                    if one.queue == queue and one.id in chosen:
                        after = await advancer.cancel(one.id)
                        found += [after] if after is not None else []
    return found


@dataclass(frozen=True)
class Open:
    """What is under way, as the books have it; nobody is asked.

    Attributes:
        left: submissions with something left to do, oldest first.
        strange: those of them that the settings do not lead to.
        late: those of them that should have been collected by ``batch_api.deadline_hours``.
    """

    left: Sequence[Submission] = ()
    strange: Sequence[Submission] = ()
    late: Sequence[Submission] = ()


async def under_way(settings: Settings, clock: Clock) -> Open:
    """What was sent and is not collected. Raises StateError."""
    if not has_state(settings):
        return Open()
    now_ms = int(clock.now() * 1000)
    with open_store(settings, clock) as store:
        left = await store.read(lambda c: books.listing(c, finished=False))
        _, strange = await _with_work(settings, store)
    return Open(
        left,
        [one for one in left if one.queue in strange],
        [one for one in left if overdue(settings.batch_api, one.opened_ms, now_ms)],
    )


async def forget_submissions(
    settings: Settings, names: Collection[str], clock: Clock
) -> list[Forgotten]:
    """Take submissions off the books; those that a process works on stay as they are.

    The provider is not told: a batch that it has runs on, and is billed.

    Args:
        settings: where everything is.
        names: beginnings of ids.
        clock: time.

    Raises:
        ConfigurationError: a name fits none, or several.
        StateError: the store refused.
    """
    now_ms = int(clock.now() * 1000)
    with open_store(settings, clock) as store:
        left = await store.read(lambda c: books.listing(c, finished=False))
        chosen = sorted({_one(left, name).id for name in names})
        found = [
            await store.write(partial(forget, submission_id=one, now_ms=now_ms)) for one in chosen
        ]
    return [one for one in found if one is not None]


def _one(left: Sequence[Submission], name: str) -> Submission:
    fitting = [one for one in left if one.id.startswith(name)]
    if len(fitting) != 1:
        many = "several submissions" if fitting else "no submission under way"
        raise ConfigurationError(
            f"{name!r} fits {many}; name one as it stands in: embedding-pipeline batch list"
        )
    return fitting[0]
