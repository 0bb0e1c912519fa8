"""The life of a space from settings: what is wanted, what is active, what a run writes.

Belongs here: joining settings, store and datasets for the rules of ``spaces``. Does not
belong here: the rules, or the change of a model step by step (``switching``).
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.assembly.parts import build_datasets, has_state, open_store
from embedding_pipeline.catalog import find_model
from embedding_pipeline.embedders.local_models import is_local_model
from embedding_pipeline.errors import ConfigurationError, DataError
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import EmbeddingConfig, Settings
from embedding_pipeline.spaces import builds, history
from embedding_pipeline.spaces.choosing import Writing, first_active, served, writing
from embedding_pipeline.spaces.records import Action, Build, Event, Target
from embedding_pipeline.state.store import Store
from embedding_pipeline.vectors.datasets import Datasets

DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True)
class SpacesState:
    """What the store knows of spaces at one moment.

    Attributes:
        events: every switch and drop, oldest first.
        build: the open build, if there is one.
    """

    events: tuple[Event, ...] = ()
    build: Build | None = None

    @property
    def active(self) -> Target | None:
        """The active target on record."""
        switches = [event for event in self.events if event.action is not Action.DROP]
        return switches[-1].target if switches else None

    @classmethod
    def read(cls, connection: Connection) -> "SpacesState":
        """Both, of one snapshot."""
        return cls(tuple(history.history(connection)), builds.current(connection))


def wanted(settings: Settings) -> Target:
    """What the settings ask for."""
    return Target(settings.model_spec.name, settings.model_spec.space, settings.dimensions)


def settings_for(settings: Settings, target: Target) -> Settings:
    """The same settings with the target's model and dimensions."""
    if wanted(settings) == target:
        return settings
    native = target.dimensions == target.space.native_dimensions
    chosen = EmbeddingConfig(model=target.model, dimensions=None if native else target.dimensions)
    return settings.model_copy(update={"embedding": chosen})


def read_state(settings: Settings) -> SpacesState:
    """What the store knows; nothing where there is none yet. Raises StateError."""
    if not has_state(settings):
        return SpacesState()
    with open_store(settings) as store:
        return store.ask(SpacesState.read)


def active_target(settings: Settings, state: SpacesState, datasets: Datasets) -> Target:
    """The active target: as recorded, else as the files and the settings tell."""
    if state.active is not None:
        return state.active
    return first_active(wanted(settings), on_disk(datasets))


def served_target(settings: Settings) -> Target:
    """What a reader of ``active`` gets. Raises StateError."""
    active = active_target(settings, read_state(settings), build_datasets(settings))
    return served(wanted(settings), active)


def on_disk(datasets: Datasets) -> dict[Target, int]:
    """Every space whose model is known that has vectors, at its shortest, and its days."""
    found = {}
    for space in datasets.spaces():
        days = datasets.embedded_days(space)
        found[Target(model_of(space), space, shortest(datasets, space))] = len(days)
    return {target: days for target, days in found.items() if target.model}


def model_of(space: Space) -> str:
    """The name by which settings choose the model of a space; "" when it is not known.

    Of a local model the folder is not known any more, only how it was called.
    """
    name = f"{space.family}/{space.model}"
    if is_local_model(name):
        return name
    try:
        spec = find_model(name)
    except ConfigurationError:
        return ""
    return spec.name if spec.space == space else ""


def shortest(datasets: Datasets, space: Space) -> int:
    """The length at which every stored day of a space can be read; native if none is."""
    lengths = {space.native_dimensions}
    for day in datasets.embedded_days(space):
        try:
            lengths.add(datasets.embeddings(space, day).provenance().dimensions)
        except DataError:
            continue
    return min(lengths)


def spaces_of_a_run(
    settings: Settings, connection: Connection, before: Target, now_ms: int
) -> frozenset[Space]:
    """The spaces that a run of no build would write now.

    Args:
        settings: what they ask for.
        connection: any transaction.
        before: the active target where none is on record.
        now_ms: the instant.
    """
    state = SpacesState.read(connection)
    back = history.kept(state.events, settings.spaces.keep_days * DAY_MS, now_ms)
    active = state.active or before
    targets = writing(wanted(settings), active, state.build, back=back).targets
    return frozenset(target.space for target in targets)


async def begin_writing(
    settings: Settings, store: Store, datasets: Datasets, tagged: str | None, now_ms: int
) -> Writing:
    """Decide what a run writes, and put the first active space on record.

    A smaller ``dimensions`` becomes the active view before anything shorter is written, so
    that no reader asks for more than a file holds.
    """
    asked = wanted(settings)
    state = await store.read(SpacesState.read)
    before = active_target(settings, state, datasets)
    keep_ms = settings.spaces.keep_days * DAY_MS

    def work(connection: Connection) -> Writing:
        active = history.adopt(connection, before, now_ms)
        if asked.space == active.space and asked.dimensions < active.dimensions:
            history.append(connection, Action.VIEW, asked, by="settings", now_ms=now_ms)
            active = asked
        back = history.kept(history.history(connection), keep_ms, now_ms)
        build = builds.by_key(connection, tagged) if tagged else builds.current(connection)
        return writing(asked, active, build, back=back, tagged=tagged)

    return await store.write(work)
