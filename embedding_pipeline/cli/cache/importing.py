"""``embedding-pipeline cache import``: vectors that other tools have cached.

Belongs here: from options to a reader, and telling what was taken and what was not.
"""

import asyncio
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.cache.texts import TextsOptions, texts_options, usable
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import json_lines

if TYPE_CHECKING:
    from embedding_pipeline.importing.found import Reader
    from embedding_pipeline.pipeline.importing import ImportReport
    from embedding_pipeline.settings.tree import Settings

KINDS: Final = (
    "langchain",
    "langchain-redis",
    "llama-index",
    "llama-index-redis",
    "redisvl",
    "table",
)
_KEYED: Final = frozenset({"langchain", "langchain-redis"})
_WORDS: Final = {
    "unreadable": "cannot be read",
    "no_text": "have no text",
    "no_vector": "have no vector",
    "other_model": "are of another model",
    "wrong_dimensions": "have other dimensions",
    "not_finite": "are not finite",
    "not_unit": "are not of length 1",
    "not_utf8": "have half a character in their text",
    "too_long": "have a text the model does not take whole",
}


@click.command("import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("place")
@texts_options
@click.option("--namespace", default="", help="LangChain: namespace of the cache.")
@click.option("--prefix", default="", help="LangChain: namespace of the RedisStore.")
@click.option(
    "--encoder",
    type=click.Choice(("sha1", "sha256", "sha512", "blake2b")),
    default="sha1",
    show_default=True,
    help="LangChain: its key_encoder.",
)
@click.option(
    "--name",
    help="RedisVL: name of the cache  [default: embedcache]. LlamaIndex in Redis: collection  "
    "[default: llama_cache].",
)
@click.option(
    "--vector-column", default="vector", show_default=True, help="Column of the vectors in a table."
)
@click.option("--renormalise", is_flag=True, help="Scale vectors to length 1 instead of refusing.")
@click.option(
    "--newlines",
    type=click.Choice(("kept", "spaces")),
    help="What the tool sent for line breaks.  [default: spaces for llama-index with OpenAI]",
)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Embed so many anew and compare, where the model can be asked.",
)
@click.option("--project", default="default", show_default=True, help="For whom.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_(
    *,
    kind: str,
    place: str,
    newlines: str | None,
    renormalise: bool,
    sample: int,
    project: str,
    as_json: bool,
    **named: Any,
) -> int:
    """Take over vectors of the settings' model from another tool's cache.

    PLACE is a folder (langchain: LocalFileStore), a file (llama-index: a persisted JSON;
    table: Parquet or JSONL with a text and a vector column), or a Redis URL
    (langchain-redis: RedisStore; llama-index-redis: RedisKVStore; redisvl:
    EmbeddingsCache). LangChain's keys are hashes:
    name the texts with --texts, or --start and --end.

    Every vector is checked, and a sample is compared with the model's own before anything
    is stored. What is wrong is left out and counted; positions are counted from 0. Ends
    with exit code 1 when the sample is unlike, and then stores nothing.
    """
    from embedding_pipeline.assembly.warming import Wanted, import_into_cache
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    options = TextsOptions(*(named.pop(key) for key in ("texts", "column", "start", "end")))
    if newlines is None:
        openai = settings.model_spec.space.family == "openai"
        newlines = "spaces" if kind.startswith("llama-index") and openai else "kept"
    wanted = Wanted(kind, project, renormalise, newlines == "spaces", sample)
    with ExitStack() as stack:
        reader = _reader(kind, place, options, settings, stack, **named)
        report = asyncio.run(import_into_cache(settings, reader, wanted))
    _tell(report, sample, as_json)
    return FAILED if report.unlike else 0


def _reader(
    kind: str,
    place: str,
    options: TextsOptions,
    settings: "Settings",
    stack: ExitStack,
    *,
    namespace: str,
    prefix: str,
    encoder: str,
    name: str | None,
    vector_column: str,
) -> "Reader":
    from embedding_pipeline.importing import langchain, llama_index, redisvl, tables

    if kind in _KEYED:
        texts = usable(options.open(settings, stack))
        if kind == "langchain":
            return langchain.file_store(Path(place), texts, namespace, encoder)
        return langchain.redis_store(place, texts, prefix, namespace, encoder)
    if options.given:
        raise click.UsageError(f"{kind} has the texts; leave out --texts, --start and --end")
    if kind == "llama-index":
        return llama_index.cache_file(Path(place))
    if kind == "llama-index-redis":
        return llama_index.redis_store(place, name or "llama_cache")
    if kind == "redisvl":
        return redisvl.embeddings_cache(place, name or "embedcache")
    return tables.table(Path(place), options.column, vector_column)


def _tell(report: "ImportReport", sample: int, as_json: bool) -> None:
    if as_json:
        click.echo(json_lines({**asdict(report), "left_out": report.left_out}))
        return
    for line in _lines(report, sample):
        click.echo(line)


def _lines(report: "ImportReport", sample: int) -> list[str]:
    if report.unlike:
        shown = ", ".join(map(str, report.unlike))
        line = (
            f"{len(report.unlike)} of {report.compared} vectors of the sample are not the "
            f"model's own for their text (positions {shown}; the worst cosine is "
            f"{report.worst_cosine:.4f}). Nothing was stored: the vectors are of another model "
            "or of altered texts; try --newlines, or leave them."
        )
        return [line]
    compared = (
        f"{report.compared} were compared with the model's own (worst cosine "
        f"{report.worst_cosine:.6f})"
        if report.worst_cosine is not None
        else "none was compared" + ("" if not sample else ": the model cannot be asked here")
    )
    first = (
        f"{report.found:,} entries found: {report.stored:,} stored, {report.present:,} were "
        f"there, {report.left_out:,} left out; {compared}."
    )
    lines = [first]
    for reason, number in sorted(report.refused.counts.items()):
        places = ", ".join(map(str, report.refused.examples[reason]))
        lines.append(f"  {number:,} {_WORDS.get(reason, reason)} (positions {places})")
    return lines
