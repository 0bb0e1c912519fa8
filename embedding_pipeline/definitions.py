"""Where Dagster finds us.

Belongs here: putting the definitions together. Does not belong here: any definition,
and nothing that reads settings or opens anything when this module is imported.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs.assets import build_assets
from embedding_pipeline.defs.automation import build_automation, daily_partitions
from embedding_pipeline.defs.checks import build_checks
from embedding_pipeline.defs.compat import declaring
from embedding_pipeline.defs.resources import build_resources

if TYPE_CHECKING:
    from embedding_pipeline.settings import Settings


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
    from embedding_pipeline.settings import load_settings

    settings = settings or load_settings()
    days = daily_partitions(settings)
    with declaring():
        graph = dg.Definitions(
            assets=build_assets(days, settings),
            asset_checks=build_checks(days),
            resources=build_resources(settings, overrides or {}),
            executor=dg.in_process_executor,
        )
        return dg.Definitions.merge(graph, build_automation())


@dg.definitions
def defs() -> dg.Definitions:
    """What a code location loads."""
    return build_defs()
