"""``embedding-pipeline init``: the files a project begins with.

Belongs here: writing them where there are none. They are those of the checkout: a package
carries copies, made when it is built.
"""

from importlib.metadata import distribution
from pathlib import Path
from typing import Final

import click

import embedding_pipeline
from embedding_pipeline.cli.endings import PROGRAM
from embedding_pipeline.errors import ConfigurationError

FILES: Final = ("pipeline.yaml", "dagster.yaml", "workspace.yaml")


@click.command()
def init() -> None:
    """Begin a project in this folder: pipeline.yaml, dagster.yaml, workspace.yaml.

    A file that is there already is kept as it is.
    """
    for name, content in {name: template(name) for name in FILES}.items():
        try:
            with Path(name).open("xb") as file:
                file.write(content)
        except FileExistsError:
            click.echo(f"kept   {name}: it is there already")
        else:
            click.echo(f"wrote  {name}")
    click.echo(
        "\nSay in pipeline.yaml where your text is, then: embedding-pipeline doctor\n"
        'The UI:  DAGSTER_HOME="$PWD" dagster dev -w workspace.yaml'
    )


def template(name: str) -> bytes:
    """The file beside the package, which is a checkout's own, or as it was packed."""
    beside = Path(embedding_pipeline.__file__).parent.parent / name
    if beside.is_file():
        return beside.read_bytes()
    packed = distribution(PROGRAM).read_text(f"extra_metadata/{name}")
    if packed is None:
        raise ConfigurationError(f"this installation lacks {name}; install the package again")
    return packed.encode()
