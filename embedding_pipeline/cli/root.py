"""The group of all commands and what every one of them has.

Belongs here: ``--debug``, the list of commands, the text of ``--help``. Does not belong
here: a command.
"""

import logging
from contextlib import suppress
from typing import Any, Final

import click

from embedding_pipeline.cli.backfill import backfill
from embedding_pipeline.cli.batch import batch
from embedding_pipeline.cli.budget import budget
from embedding_pipeline.cli.cache.group import cache
from embedding_pipeline.cli.costs import costs
from embedding_pipeline.cli.demo import demo
from embedding_pipeline.cli.doctor import doctor
from embedding_pipeline.cli.endings import EXIT_CODES, PROGRAM
from embedding_pipeline.cli.failed import failed
from embedding_pipeline.cli.init import init
from embedding_pipeline.cli.limits import limits
from embedding_pipeline.cli.metrics import metrics
from embedding_pipeline.cli.plan import plan
from embedding_pipeline.cli.search import search
from embedding_pipeline.cli.spaces import spaces
from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.logs import PLAIN, set_up

_CODES: Final = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)
_EPILOG: Final = f"\b\nExit codes:\n{_CODES}"


def _accept_debug(command: click.Command) -> None:
    """Let ``--debug`` stand anywhere; ``endings`` has seen it before any parsing."""
    option = click.Option(
        ["--debug"], is_flag=True, expose_value=False, help="Show tracebacks of errors."
    )
    command.params.append(option)
    for child in getattr(command, "commands", {}).values():
        _accept_debug(child)


def _version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib import metadata

    try:
        found = metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        found = "unknown (not installed, run from a checkout)"
    click.echo(f"{PROGRAM} {found}")
    context.exit()


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def root(**_: Any) -> None:
    """Text to vectors as Dagster assets: batched, cached, priced and accounted for.

    Settings come from pipeline.yaml in the working directory, or from the file that
    EMBEDDING_PIPELINE_CONFIG names.
    """
    from embedding_pipeline.settings.loading import load_settings

    logging.basicConfig(level=logging.WARNING, format=PLAIN)
    with suppress(EmbeddingPipelineError):  # the command itself says what is wrong with them
        set_up(load_settings().logs)


for _command in (
    demo,
    init,
    plan,
    backfill,
    search,
    costs,
    budget,
    cache,
    spaces,
    batch,
    failed,
    limits,
    metrics,
    doctor,
):
    root.add_command(_command)
_accept_debug(root)
