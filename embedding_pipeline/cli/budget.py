"""``embedding-pipeline budget``: what may be spent, what was, and what is left.

Belongs here: reading the budgets and printing them. Does not belong here: any change of one.
"""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.output import Column, Row, emit, json_lines, money
from embedding_pipeline.pipeline.words import usd

if TYPE_CHECKING:
    from embedding_pipeline.ledger.deferred import Backlog
    from embedding_pipeline.ledger.standing import Standing
    from embedding_pipeline.settings.tree import Settings


def _or_dash(value: Any) -> str:
    return "–" if value is None else usd(value)


_COLUMNS: Final = (
    Column("scope", "scope"),
    Column("period", "period"),
    money("limit", "limit_nano_usd"),
    money("spent", "spent_nano_usd"),
    money("reserved", "reserved_nano_usd"),
    money("left", "left_nano_usd"),
    Column("projected", "projected_nano_usd", _or_dash, right=True),
    Column("next reset", "resets", lambda value: value or "never"),
)

DEFERRED: Final = (
    Column("day", "date"),
    Column("project", "project"),
    Column("user", "user"),
    Column("reason", "reason"),
    Column("chunks", "chunks", lambda value: f"{value:,}", right=True),
    money("costs up to", "cost_nano_usd"),
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON; money in nano-USD.")
def budget(as_json: bool) -> None:
    """Every budget: limit, spent, reserved, left, projected to the end of its period.

    "reserved" is what requests that are out can still be billed. "projected" goes on from
    what was spent so far. Below are the chunks that no budget had room for: the next run of
    their day embeds them once there is room.
    """
    from embedding_pipeline.settings.loading import load_settings

    budgets, deferred = read(load_settings())
    if as_json:
        click.echo(json_lines({"budgets": budgets, "deferred": deferred}))
        return
    emit(budgets, _COLUMNS, as_json=False, empty="No budget is set.")
    if deferred:
        click.echo("\nDeferred:")
        emit(deferred, DEFERRED, as_json=False, empty="")


def read(settings: "Settings") -> tuple[list[Row], list[Row]]:
    """The budgets, and what is deferred, as rows."""
    from embedding_pipeline.assembly.watching import deferrals, standings
    from embedding_pipeline.clock import SystemClock

    clock = SystemClock()
    now = int(clock.now() * 1000)

    async def ask() -> "tuple[list[Standing], list[Backlog]]":
        return await standings(settings, clock), await deferrals(settings)

    found, waiting = asyncio.run(ask())
    price = settings.model_spec.nano_usd_per_token or 0
    return [_row(one, now) for one in found], [waiting_row(one, price) for one in waiting]


def _row(one: "Standing", now_ms: int) -> Row:
    end = one.window.end_ms
    return {
        "scope": one.scope,
        "period": one.period,
        "limit_nano_usd": one.limit_nano,
        "spent_nano_usd": one.spent_nano,
        "reserved_nano_usd": one.reserved_nano,
        "left_nano_usd": one.left_nano,
        "projected_nano_usd": one.projected_nano(now_ms),
        "resets": end and datetime.fromtimestamp(end / 1000, UTC).astimezone(one.zone).isoformat(),
    }


def waiting_row(one: "Backlog", price: int) -> Row:
    """What is deferred of one payer's day, as a row of ``DEFERRED``."""
    return {
        "date": one.account.partition,
        "project": one.account.project,
        "user": one.account.user,
        "reason": one.reason,
        "chunks": one.chunks,
        "cost_nano_usd": one.tokens * price,
    }
