"""What the UI shows of a finished partition: reports as metadata.

Belongs here: keys, units and previews. Does not belong here: measuring anything.

Int and Float values are what the UI plots, over time and over partitions, so every
figure keeps its key and its unit: ``rows``, ``tokens``, ``cost_usd``, ``seconds``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs.recording import Built, Finished
from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.reports import CostReport, DedupReport, EmbedReport, RawReport

if TYPE_CHECKING:
    import pyarrow as pa

    from embedding_pipeline.vectors.datasets import Datasets
    from embedding_pipeline.vectors.partition import OpenPartition, PartitionFile

SPACE_TAG: Final = "embedding_pipeline/space"
DIMENSIONS_TAG: Final = "embedding_pipeline/dimensions"
FINGERPRINT_TAG: Final = "embedding_pipeline/fingerprint"

PREVIEW_ROWS: Final = 5
PREVIEW_ID: Final = 28
CHUNK_PREVIEW: Final = ("chunk_id", "document_id", "ordinal", "token_count", "project")
"""No text: metadata is kept in Dagster's event log, and no text reaches a log."""

_NANO: Final = 1e9
_LONGEST_TAG: Final = 63


def raw_chunks(report: RawReport, datasets: "Datasets") -> Finished:
    """A day of ``raw_chunks``."""
    figures: dict[str, int | float] = {
        "rows": report.chunks,
        "rows_read": report.rows,
        "rejected": sum(report.rejected.values()),
        "tokens": report.input_tokens,
        "seconds": report.seconds,
    }
    metadata = {**_numbers(figures), **_file(datasets.raw_chunks(report.partition), CHUNK_PREVIEW)}
    if report.rejected:
        metadata["rejected_by_reason"] = dg.MetadataValue.json(dict(report.rejected))
        metadata["rejected_examples"] = dg.MetadataValue.md(_bullets(report.examples))
    return Finished("raw_chunks", report.partition, metadata)


def deduped_chunks(
    report: DedupReport, price: int, datasets: "Datasets"
) -> tuple[Finished, Finished]:
    """A day of ``deduped_chunks`` and of ``duplicate_chunks``; ``price`` in nano-USD a token.

    Every figure is there every day, so that each is a line over the days in the UI.
    """
    duplicates = report.chunks_in - report.chunks_out
    kept: dict[str, int | float] = {
        "rows": report.chunks_out,
        "rows_read": report.chunks_in,
        "duplicates": duplicates,
        "duplicate_ratio": duplicates / report.chunks_in if report.chunks_in else 0.0,
        "tokens_saved": report.tokens_saved,
        "saved_usd": report.tokens_saved * price / _NANO,
        "seconds": report.seconds,
    }
    left_out = {"rows": duplicates} | {f"rows_{how}": n for how, n in report.duplicates.items()}
    left_out |= {"rows_of_earlier_days": report.elsewhere}
    day = report.partition
    pairs = ("chunk_id", "representative_id", "representative_date", "method", "similarity")
    copies = {**_numbers(left_out), **_file(datasets.duplicate_chunks(day), pairs)}
    copies["largest_clusters"] = _clusters(report)
    if report.missing_days:
        copies["not_looked_at"] = dg.MetadataValue.text(not_looked_at(report))
    chunks = {**_numbers(kept), **_file(datasets.deduped_chunks(day), CHUNK_PREVIEW)}
    return Finished("deduped_chunks", day, chunks), Finished("duplicate_chunks", day, copies)


def not_looked_at(report: DedupReport) -> str:
    """What a person should know of days in scope whose chunks were not there."""
    return (
        f"raw_chunks of {', '.join(report.missing_days)} is not made; copies of its texts were not "
        "looked for. Materialize it first, then deduped_chunks of this day again"
    )


def _clusters(report: DedupReport) -> dg.MetadataValue:
    """The largest groups: ids and counts, no text."""
    records = [
        dg.TableRecord(
            {
                "representative_id": _short(cluster.representative_id),
                "representative_date": cluster.representative_date,
                "chunks": cluster.chunks,
            }
        )
        for cluster in report.clusters
    ]
    columns = [
        dg.TableColumn("representative_id"),
        dg.TableColumn("representative_date"),
        dg.TableColumn("chunks", "int"),
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def embeddings(report: EmbedReport, datasets: "Datasets") -> Finished:
    """A day of ``embeddings``, with what made it as tags."""
    from embedding_pipeline.records import Space

    space = Space.parse(report.space)
    file = datasets.embeddings(space, report.partition, report.dimensions)
    with file.open() as opened:
        recipe = file.provenance_of(opened).recipe
        described = _opened(opened, ("chunk_id", "document_id", "project", "content_hash"))
    metadata = {
        **_numbers(_embedding_figures(report)),
        "space": dg.MetadataValue.text(report.space),
        "fingerprint": dg.MetadataValue.text(report.fingerprint),
        **{
            f"made_with/{part}": dg.MetadataValue.text(value)
            for part, value in asdict(recipe).items()
        },
        **described,
    }
    tags = {
        SPACE_TAG: space.slug[:_LONGEST_TAG],
        DIMENSIONS_TAG: str(report.dimensions),
        FINGERPRINT_TAG: report.fingerprint[:_LONGEST_TAG],
    }
    return Finished("embeddings", report.partition, metadata, tags)


def _embedding_figures(report: EmbedReport) -> dict[str, int | float]:
    return {
        "rows": report.embedded + report.cached,
        "chunks": report.chunks,
        "embedded": report.embedded,
        "cached": report.cached,
        "quarantined": report.quarantined,
        "deferred": report.deferred,
        "cache_hit_ratio": report.cache_hit_ratio,
        "requests": report.requests,
        "retries": report.retries,
        "tokens": report.input_tokens,
        "cost_usd": report.cost_nano_usd / _NANO,
        "saved_usd": report.saved_nano_usd / _NANO,
        "wait_seconds": report.wait_seconds,
        "seconds": report.seconds,
        "dimensions": report.dimensions,
        **({"stand_ins": report.stand_ins} if report.stand_ins else {}),
    }


def cost_summaries(
    made: "Mapping[str, tuple[CostReport, pa.Table] | DataError]", datasets: "Datasets"
) -> dict[str, Built]:
    """``cost_summary`` of some days; what is wrong with a day stays what it is."""
    return {
        day: one if isinstance(one, DataError) else [cost_summary(*one, datasets)]
        for day, one in made.items()
    }


def cost_summary(report: CostReport, table: "pa.Table", datasets: "Datasets") -> Finished:
    """A day of ``cost_summary``; the table is small, so all of it is shown."""
    figures: dict[str, int | float] = {
        "rows": report.rows,
        "chunks": report.chunks,
        "tokens": report.input_tokens,
        "requests": report.requests,
        "cost_usd": report.cost_nano_usd / _NANO,
        "saved_usd": report.saved_nano_usd / _NANO,
    }
    file = datasets.cost_summary(report.partition)
    metadata = {**_numbers(figures), **_file(file, ())}
    metadata["summary"] = dg.MetadataValue.md(_cost_table(table))
    return Finished("cost_summary", report.partition, metadata)


def _numbers(figures: Mapping[str, int | float]) -> dict[str, dg.MetadataValue]:
    """Figures as the UI plots them; nine decimals are a nano-dollar."""
    made: dict[str, dg.MetadataValue] = {}
    for key, value in figures.items():
        if isinstance(value, int):
            made[key] = dg.MetadataValue.int(value)
        else:
            made[key] = dg.MetadataValue.float(round(value, 9))
    return made


def _file(file: "PartitionFile", shown: Sequence[str]) -> dict[str, dg.MetadataValue]:
    """What is said of every Parquet file: rows, columns, place, and its first rows."""
    with file.open() as opened:
        return _opened(opened, shown)


def _opened(opened: "OpenPartition", shown: Sequence[str]) -> dict[str, dg.MetadataValue]:
    file = opened.file
    described: dict[str, dg.MetadataValue] = {
        "dagster/partition_row_count": dg.MetadataValue.int(opened.rows),
        "dagster/column_schema": dg.TableSchemaMetadataValue(_columns(file.schema)),
        "path": dg.MetadataValue.path(file.location),
    }
    if shown:
        described["preview"] = _preview(opened, shown)
    return described


@lru_cache(maxsize=32)
def _columns(schema: "pa.Schema") -> dg.TableSchema:
    from embedding_pipeline.records import MEANINGS

    return dg.TableSchema(
        columns=[
            dg.TableColumn(field.name, str(field.type), MEANINGS.get(field.name))
            for field in schema
        ]
    )


def _preview(opened: "OpenPartition", shown: Sequence[str]) -> dg.MetadataValue:
    batches = opened.iter_batches(shown, PREVIEW_ROWS)
    rows = [row for batch in islice(batches, 1) for row in batch.to_pylist()]
    records = [dg.TableRecord({key: _short(row[key]) for key in shown}) for row in rows]
    schema = opened.file.schema
    return dg.MetadataValue.table(records, _shown_columns(schema, tuple(shown)))


@lru_cache(maxsize=32)
def _shown_columns(schema: "pa.Schema", shown: tuple[str, ...]) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[dg.TableColumn(name, str(schema.field(name).type)) for name in shown]
    )


def _short(value: object) -> str | int | float | bool | None:
    """A cell that leaves room for the others: the end of an id."""
    if isinstance(value, int | float) or value is None:
        return value
    text = str(value)
    return text if len(text) <= PREVIEW_ID else "…" + text[1 - PREVIEW_ID :]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cost_table(table: "pa.Table") -> str:
    """The summary as people read it: dollars, and no column of zeros for nothing."""
    head = "| project | user | source | chunks | tokens | cost, $ | saved, $ | requests |"
    lines = [head, "|---|---|---|---:|---:|---:|---:|---:|"]
    for row in table.to_pylist():
        cost, saved = row["cost_nano_usd"] / _NANO, row["saved_nano_usd"] / _NANO
        lines.append(
            f"| {row['project']} | {row['user']} | {row['source']} | {row['chunks']:,} "
            f"| {row['input_tokens']:,} | {cost:,.6f} | {saved:,.6f} | {row['requests']:,} |"
        )
    return "\n".join(lines)
