"""``embedding-pipeline cache warm``: buying vectors before they are needed.

Belongs here: the price said first, asking back, progress, and the result in words.
"""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING

import click

from embedding_pipeline.cli.asking import go_on
from embedding_pipeline.cli.backfill import refuse_the_impossible
from embedding_pipeline.cli.cache.texts import TextsOptions, texts_options
from embedding_pipeline.cli.output import json_lines
from embedding_pipeline.cli.progress import Meter, showing
from embedding_pipeline.pipeline.words import usd, usd_or_unknown

if TYPE_CHECKING:
    from embedding_pipeline.pipeline.warming import WarmReport
    from embedding_pipeline.settings.tree import Settings

NOT_ALLOWED = 7


@dataclass(frozen=True)
class _Price:
    """What it would take, in the words of the printed line."""

    texts: int
    unusable: int
    refused: int
    to_embed: int
    input_tokens: int
    cost_nano_usd: int | None
    objections: tuple[str, ...] = ()

    def sentence(self) -> str:
        aside = self.unusable + self.refused
        without = f", {aside:,} cannot be embedded" if aside else ""
        return (
            f"{self.texts:,} texts{without}; {self.to_embed:,} to embed, "
            f"{self.input_tokens:,} tokens, {usd_or_unknown(self.cost_nano_usd)}."
        )


@click.command()
@texts_options
@click.option("--project", default="default", show_default=True, help="Who pays for --texts.")
@click.option("--dry-run", is_flag=True, help="Say the price and stop.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; money in nano-USD.")
def warm(
    *,
    texts: str | None,
    column: str,
    start: date | None,
    end: date | None,
    project: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Buy vectors ahead: of a file of texts, or of days of the source.

    Days are split, deduplicated and embedded as a run would do it, but no dataset is
    written: a later run finds every vector in the cache. The price is said first; on a
    terminal, the command then asks. Exits with 7 when a budget is in the way. Where batch_api
    says so, the texts go to the Batch API, and the command does not wait for them.
    """
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    options = TextsOptions(texts, column, start, end)
    options.require()
    refuse_the_impossible(settings)
    price = _price(settings, options)
    click.echo(price.sentence(), err=True)
    for objection in price.objections:
        click.echo(objection, err=True)
    if dry_run or price.objections:
        if as_json:
            click.echo(json_lines({"plan": asdict(price), "done": None}))
        return NOT_ALLOWED if price.objections else 0
    if price.cost_nano_usd and not yes and sys.stdin.isatty():
        go_on("Go on?")
    with showing("Embedding") as meter:
        done = _warm(settings, options, project, price, meter)
    if as_json:
        click.echo(json_lines({"plan": asdict(price), "done": asdict(done)}))
    else:
        click.echo(_words(done))
    return 0


def _price(settings: "Settings", options: TextsOptions) -> _Price:
    from embedding_pipeline.assembly.batch_way import verdict_of
    from embedding_pipeline.assembly.planning import plan_spending
    from embedding_pipeline.assembly.warming import plan_warming
    from embedding_pipeline.pipeline.plan import cost

    if options.of_days:
        plan = asyncio.run(plan_spending(settings, options.days(settings)))
        total = plan.total
        return _Price(
            total.representatives,
            0,
            total.refused,
            total.to_embed,
            total.input_tokens,
            plan.chosen_cost_nano_usd,
            plan.objections or (),
        )
    with ExitStack() as stack:
        found = asyncio.run(plan_warming(settings, options.open(settings, stack)))
    spec = settings.model_spec
    batch = verdict_of(settings, found.input_tokens).way == "batch"
    price = spec.batch_nano_usd_per_token if batch else spec.nano_usd_per_token
    return _Price(**asdict(found), cost_nano_usd=cost(found.input_tokens, price))


def _warm(
    settings: "Settings", options: TextsOptions, project: str, price: _Price, meter: Meter
) -> "WarmReport":
    from embedding_pipeline.assembly.warming import warm_days, warm_texts
    from embedding_pipeline.records import Account

    if options.of_days:
        return asyncio.run(warm_days(settings, options.days(settings), price.texts, meter))
    with ExitStack() as stack:
        texts = options.open(settings, stack)
        return asyncio.run(warm_texts(settings, texts, Account(project), price.texts, meter))


def _words(done: "WarmReport") -> str:
    refused = f", {done.refused:,} have none" if done.refused else ""
    if done.in_batches:
        refused += f", {done.in_batches:,} are in batches (embedding-pipeline batch list)"
    return (
        f"{done.texts:,} texts: {done.embedded:,} embedded in {done.requests:,} requests, "
        f"{done.cached:,} were there{refused}. {done.input_tokens:,} tokens, "
        f"{usd(done.cost_nano_usd)}, {done.seconds:.0f} s."
    )
