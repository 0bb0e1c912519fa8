"""Spaces as options of the cache's commands.

Belongs here: from what a person typed to numbers in the store. Does not belong here: the
life of a space.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from embedding_pipeline.cli.books import ask

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from embedding_pipeline.cache.groups import SpaceUse
    from embedding_pipeline.records import Space
    from embedding_pipeline.settings.tree import Settings


def active_spaces(settings: "Settings") -> "frozenset[Space]":
    """The spaces in use, the settings' own among them: nothing of them goes unless told."""
    from embedding_pipeline.spaces.in_use import in_use

    return (ask(settings, in_use) or frozenset()) | {settings.model_spec.space}


def numbers_of(connection: "Connection", spaces: "Sequence[Space]") -> list[int]:
    """Their numbers; those that nobody has used yet have none."""
    from embedding_pipeline.cache.database import find_space

    found = (find_space(connection, space) for space in spaces)
    return [number for number in found if number is not None]


def require(name: str, held: "Sequence[SpaceUse]") -> int:
    """The number of the space called ``name``.

    Raises:
        click.UsageError: there is none of that name; the message names those there are.
    """
    for use in held:
        if use.space == name:
            return use.space_id
    known = ", ".join(use.space for use in held) or "none"
    raise click.UsageError(f"the cache holds nothing of a space {name!r}; it holds: {known}")
