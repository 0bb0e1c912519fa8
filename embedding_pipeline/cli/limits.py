"""``embedding-pipeline limits``: the shared rate limits as they stand.

Belongs here: reading the state and printing it. Does not belong here: any change of it.
"""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from embedding_pipeline.cli.output import Column, Row, count, emit, json_lines

if TYPE_CHECKING:
    from embedding_pipeline.limits.snapshot import Snapshot
    from embedding_pipeline.settings.tree import Settings

_COLUMNS = (
    Column("limit", "key"),
    Column("project", "project"),
    Column("priority", "priority"),
    count("permits", "permits"),
    count("tokens", "tokens"),
    Column("waited", "waited_seconds", lambda seconds: f"{seconds:,.1f} s", right=True),
    count("429s", "refused"),
    count("waiting", "waiting"),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--prometheus", "as_metrics", is_flag=True, help="Print Prometheus text format.")
def limits(as_json: bool, as_metrics: bool) -> None:
    """The shared rate limits: current rates, fill, 429s, and who got how much.

    With --prometheus, put the output into a file of the node exporter's textfile
    collector, for example every minute:
    embedding-pipeline limits --prometheus > F.tmp && mv F.tmp F.prom
    """
    from embedding_pipeline.limits.snapshot import prometheus
    from embedding_pipeline.settings.loading import load_settings

    found = read(load_settings())
    if as_metrics:
        click.echo(prometheus(found), nl=False)
    elif as_json:
        click.echo(json_lines([asdict(snapshot) for snapshot in found]))
    else:
        for snapshot in found:
            click.echo(_summary(snapshot))
        rows = [row for snapshot in found for row in _rows(snapshot)]
        emit(rows, _COLUMNS, as_json=False, empty="No request asked for a permit yet.")


def read(settings: "Settings") -> "list[Snapshot]":
    """The limits the settings lead to; empty where there is no state yet."""
    from embedding_pipeline.assembly.planning import limits_now
    from embedding_pipeline.clock import SystemClock

    return asyncio.run(limits_now(settings, SystemClock()))


def _summary(snapshot: "Snapshot") -> str:
    parts = []
    for resource in snapshot.resources:
        ceiling = f"{resource.ceiling:,}" if resource.ceiling is not None else "unknown"
        parts.append(
            f"{resource.per_minute:,} {resource.name} a minute (limit {ceiling}, "
            f"{resource.available:,.0f} available)"
        )
    parts.append(f"{snapshot.refused} refusals, {snapshot.ramp} for the ramp")
    parts.append(f"{snapshot.processes} processes")
    return f"{snapshot.key}: " + "; ".join(parts)


def _rows(snapshot: "Snapshot") -> list[Row]:
    return [{"key": snapshot.key, **asdict(use)} for use in snapshot.uses]
