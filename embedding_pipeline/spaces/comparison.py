"""What a partition was made with against what the settings ask for: the one comparison.

Belongs here: the comparison and its words. Does not belong here: reading files, or what
is done about a difference (``decision``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Space
from embedding_pipeline.spaces.records import Target
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.provenance import Provenance, Recipe


@dataclass(frozen=True)
class Difference:
    """One thing that is not as asked for.

    Attributes:
        what: ``space``, ``dimensions``, ``chunker``, ``dedup``, ``oversize``, ``code_version``,
            or ``file`` when there is none that can be read.
        found: what the partition was made with.
        wanted: what the settings ask for.
    """

    what: str
    found: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.what} is {self.found}, the settings ask for {self.wanted}"


@dataclass(frozen=True)
class Verdict:
    """The comparison of one partition."""

    differences: tuple[Difference, ...] = ()

    @property
    def current(self) -> bool:
        """Whether it is as the settings ask."""
        return not self.differences

    @property
    def servable(self) -> bool:
        """Whether its vectors are of the space and long enough for the view asked for."""
        needed = {"file", "space", "dimensions"}
        return all(difference.what not in needed for difference in self.differences)


def compare(found: Provenance | None, space: Space, dimensions: int, recipe: Recipe) -> Verdict:
    """What is out of date about a partition, and why. Pure.

    Longer vectors than asked for are fine: the view is taken when they are read. What a
    file of an earlier version does not say is not held against it.

    Args:
        found: what the file says of itself; None when there is none.
        space: the space asked for.
        dimensions: the length asked for.
        recipe: how the settings shape vectors; an empty part asks for nothing.
    """
    if found is None:
        return Verdict((Difference("file", "missing", str(space)),))
    differences = []
    if found.space != space:
        differences.append(Difference("space", str(found.space), str(space)))
    if found.dimensions < dimensions:
        differences.append(Difference("dimensions", str(found.dimensions), str(dimensions)))
    for part in fields(Recipe):
        has, wants = getattr(found.recipe, part.name), getattr(recipe, part.name)
        if has and wants and has != wants:
            differences.append(Difference(part.name, has, wants))
    return Verdict(tuple(differences))


def compare_days(
    datasets: Datasets, days: Iterable[str], target: Target, recipe: Recipe
) -> dict[str, Verdict]:
    """``compare`` for the file of each day in the target's space. Reads footers only."""
    return {
        day: compare(_provenance(datasets, target.space, day), *_asked(target), recipe)
        for day in days
    }


def stale_days(datasets: Datasets, days: Iterable[str], target: Target) -> list[str]:
    """The days that cannot be served from the target's space as they are."""
    verdicts = compare_days(datasets, days, target, Recipe())
    return [day for day, verdict in verdicts.items() if not verdict.servable]


def summary(verdicts: Mapping[str, Verdict]) -> list[str]:
    """One line a reason: what is out of date, for how many days, first and last."""
    days: dict[str, list[str]] = {}
    for day, verdict in verdicts.items():
        for difference in verdict.differences:
            days.setdefault(str(difference), []).append(day)
    return [f"{reason}: {_span(found)}" for reason, found in days.items()]


def _span(days: list[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days, {min(days)} to {max(days)}"


def _asked(target: Target) -> tuple[Space, int]:
    return target.space, target.dimensions


def _provenance(datasets: Datasets, space: Space, day: str) -> Provenance | None:
    try:
        return datasets.embeddings(space, day).provenance()
    except DataError:
        return None
