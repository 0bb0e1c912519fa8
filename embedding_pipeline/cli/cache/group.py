"""The group of the cache's commands.

Belongs here: the list. Does not belong here: a command.
"""

from typing import Any

import click

from embedding_pipeline.cli.cache.evict import evict, purge
from embedding_pipeline.cli.cache.importing import import_
from embedding_pipeline.cli.cache.stats import stats
from embedding_pipeline.cli.cache.verify import verify
from embedding_pipeline.cli.cache.warm import warm


@click.group()
def cache(**_: Any) -> None:
    """Vectors paid for: what is held, and looking after it."""


for _command in (stats, warm, verify, evict, purge, import_):
    cache.add_command(_command)
