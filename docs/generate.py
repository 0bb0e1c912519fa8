"""Write what can be read off the code: the references of commands and settings, the JSON schema.

Run by ``make docs``; with ``--check`` it changes nothing and exits with 1 when a file is
not what the code says.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from settings_page import page

from embedding_pipeline.cli.root import root
from embedding_pipeline.settings.tree import Settings

DOCS = Path(__file__).resolve().parent
WIDTH = 100


def commands() -> str:
    """``--help`` of every command, in the order of the group."""
    head = "# Command line\n\nWritten by `make docs` from the commands' own `--help`.\n"
    return "\n".join([head, *_help(root, None, "embedding-pipeline")])


def _help(command: click.Command, parent: click.Context | None, name: str) -> Iterator[str]:
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH)
    context.terminal_width = WIDTH
    yield f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _help(child, context, child_name)


def schema() -> str:
    """JSON schema of the settings file, for editors."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


def main(check: bool) -> int:
    """Write the files, or say which differ."""
    written = {
        DOCS / "cli.md": commands(),
        DOCS / "settings.md": page(DOCS.parent / "pipeline.yaml"),
        DOCS / "pipeline.schema.json": schema(),
    }
    stale = [
        path for path, text in written.items() if not path.exists() or path.read_text() != text
    ]
    for path in stale:
        if check:
            print(f"docs/{path.name} is not what the code says; run: make docs")
        else:
            path.write_text(written[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
