"""What commands print: tables for people, JSON for programs, money and counts as words.

Belongs here: formats. Does not belong here: what is printed.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from embedding_pipeline.pipeline.words import usd

Row = Mapping[str, Any]

_GAP: Final = "  "


@dataclass(frozen=True)
class Column:
    """One column of a table: its title, the key of its value, and how the value reads."""

    title: str
    key: str
    words: Callable[[Any], str] = str
    right: bool = False


def count(title: str, key: str) -> Column:
    """A column of whole numbers."""
    return Column(title, key, lambda value: f"{value:,}", right=True)


def money(title: str, key: str) -> Column:
    """A column of amounts in nano-USD."""
    return Column(title, key, usd, right=True)


def emit(rows: Sequence[Row], columns: Sequence[Column], *, as_json: bool, empty: str) -> None:
    """Print rows: JSON as they are, a table in words; ``empty`` when there are none."""
    if as_json:
        click.echo(json_lines(rows))
    elif not rows:
        click.echo(empty)
    elif sys.stdout.isatty():
        _rich_table(rows, columns)
    else:
        _plain_table(rows, columns)


def json_lines(value: object) -> str:
    """A value as JSON for programs and people alike."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def _cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    return [[column.words(row[column.key]) for column in columns] for row in rows]


def _rich_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        if column.right:  # a number is whole or useless; text may take a second line
            table.add_column(column.title, justify="right", no_wrap=True)
        else:
            table.add_column(column.title, overflow="fold")
    for cells in _cells(rows, columns):
        table.add_row(*map(Text, cells))
    Console().print(table)


def _plain_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    lines = [[column.title for column in columns], *_cells(rows, columns)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo(_GAP.join(padded).rstrip())
