"""Where Dagster finds us.

Belongs here: the entry point, and the function behind it that takes replacements.
Does not belong here: any definition (``defs``), and nothing that reads settings or
opens anything when this module is imported.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs.graph import build_graph

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings


def build_defs(
    overrides: Mapping[str, object] | None = None, *, settings: "Settings | None" = None
) -> dg.Definitions:
    """Everything Dagster is to know.

    Args:
        overrides: objects in place of resources (``openai``, ``chunk_source``,
            ``vector_store``, ``settings``), by key.
        settings: in place of those of the settings file and the environment.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    from embedding_pipeline.settings.loading import load_settings

    if settings is not None:
        return build_graph(settings, overrides or {})
    return build_graph(load_settings(), overrides or {}, load_settings)


@dg.definitions
def defs() -> dg.Definitions:
    """What a code location loads."""
    from embedding_pipeline.logs import set_up
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    set_up(settings.logs)
    return build_defs()
