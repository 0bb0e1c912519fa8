"""Sixty days of real listings, from their file to the reader, where the data is at hand."""

import gzip
import json
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.pipeline.checks import all_checks
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.pipeline.reports import DedupReport, RawReport
from embedding_pipeline.records import content_hash
from embedding_pipeline.sources.config import SourceConfig, SourceFields
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline.sources.unique import UniqueIds
from embedding_pipeline.tokens import ToktokCounter
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.reader import iter_vectors
from embedding_pipeline_tests.vectors.building import SPACE, vector_of, vectors_of

Listings = dict[str, list[str]]


@dataclass(frozen=True)
class Built:
    """The datasets of all days, and what the steps said of them."""

    datasets: Datasets
    raw: list[RawReport]
    deduped: list[DedupReport]


@pytest.fixture(scope="module")
def listings(shared_data: Path) -> Listings:
    """The lines of each day."""
    lines: Listings = defaultdict(list)
    with gzip.open(shared_data / "arxiv_daily.jsonl.gz", "rt") as file:
        for line in file:
            lines[json.loads(line)["date"]].append(line)
    return lines


@pytest.fixture(scope="module")
def source(listings: Listings, tmp_path_factory: pytest.TempPathFactory) -> UniqueIds:
    folder = tmp_path_factory.mktemp("listings")
    for day, lines in listings.items():
        (folder / f"{day}.jsonl").write_text("".join(lines))
    fields = SourceFields(document_id="doc_key", project="source")
    config = SourceConfig(kind="files", path=str(folder / "{date}.jsonl"), fields=fields)
    return UniqueIds(FilesSource(config, date.fromisoformat(min(listings))))


@pytest.fixture(scope="module")
def built(source: UniqueIds, listings: Listings, tmp_path_factory: pytest.TempPathFactory) -> Built:
    datasets, counter = Datasets(tmp_path_factory.mktemp("data")), ToktokCounter()
    days = sorted(listings)
    raw = [build_raw_chunks(source, datasets, counter, ChunkingConfig(), day) for day in days]
    deduped = [build_deduped_chunks(datasets, DedupConfig(), day) for day in days]
    return Built(datasets, raw, deduped)


def texts(datasets: Datasets, day: str) -> list[str]:
    batches = datasets.raw_chunks(day).iter_batches(["text"])
    return [text for batch in batches for text in batch.column("text").to_pylist()]


def test_every_row_arrives_as_it_was(built: Built, listings: Listings) -> None:
    assert len(built.raw) == 60
    assert sum(report.rows for report in built.raw) == 12_471
    assert sum(report.chunks for report in built.raw) == 12_471
    assert not any(report.rejected for report in built.raw)
    arrived = {day: texts(built.datasets, day) for day in listings}
    assert arrived == {
        day: [json.loads(line)["text"] for line in lines] for day, lines in listings.items()
    }
    assert len({text for day in arrived.values() for text in day}) == 8_520


def test_a_text_that_a_day_has_twice_is_kept_once(built: Built) -> None:
    assert sum(report.chunks_in for report in built.deduped) == 12_471
    assert sum(report.chunks_out for report in built.deduped) == 11_304
    assert totals(built.deduped) == {"exact": 1_165, "normalized": 0, "near": 2}
    assert sum(report.elsewhere for report in built.deduped) == 0


def totals(reports: list[DedupReport]) -> dict[str, int]:
    """Chunks left out, by method."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report.duplicates)
    return dict(counts)


def test_the_weekend_repeats_the_friday(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.datasets.root / "raw_chunks", tmp_path / "raw_chunks")
    datasets, config = Datasets(tmp_path), DedupConfig(scope_days=7)
    week = [build_deduped_chunks(datasets, config, report.partition) for report in built.raw]
    weekends = [day for day in week if date.fromisoformat(day.partition).weekday() >= 5]
    assert sum(report.chunks_in for report in weekends) == 2_926
    assert sum(report.chunks_out for report in weekends) == 0
    # what a day alone leaves: 2,784 on weekends, and two near copies of another day
    assert sum(report.chunks_out for report in week) == 11_304 - 2_784 - 2
    assert totals(week) == {"exact": 3_948, "normalized": 0, "near": 5}
    assert sum(report.elsewhere for report in week) == 2_928
    monday = week[next(n for n, day in enumerate(week) if day.partition == "2025-03-24")]
    assert monday.missing_days == ("2025-03-17",)
    for report in week[:7]:
        write_vectors(datasets, report.partition)
    read = iter_vectors(datasets, SPACE, week[0].partition, week[6].partition)
    assert sum(b.num_rows for b in read) == sum(report.chunks_in for report in week[:7])


def write_vectors(datasets: Datasets, day: str) -> None:
    with datasets.embeddings(SPACE, day).vectors_writer(run_id="", fingerprint="") as writer:
        for batch in datasets.deduped_chunks(day).iter_batches():
            writer.write(embeddings_batch(batch, vectors_of(batch.column("text").to_pylist())))


def misplaced(batch: pa.RecordBatch) -> int:
    """How many rows have a vector, or a hash, of another text."""
    return sum(
        row["vector"] != vector_of(row["text"]).tolist()
        or row["content_hash"] != content_hash(row["text"])
        for row in batch.to_pylist()
    )


def test_every_chunk_is_read_back_with_the_vector_of_its_text(
    built: Built, listings: Listings
) -> None:
    read = wrong = 0
    for day in sorted(listings):
        write_vectors(built.datasets, day)
        verdicts = all_checks(built.datasets, SPACE, SPACE.native_dimensions, day)
        assert all(verdict.passed for verdict in verdicts.values()), verdicts
        for batch in iter_vectors(built.datasets, SPACE, day, day, with_text=True):
            read += batch.num_rows
            wrong += misplaced(batch)
    assert (read, wrong) == (12_471, 2), "all but the two near copies"
