"""``deduped_chunks`` and ``duplicate_chunks`` of one day."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.reports import Cluster, DedupReport
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.vectors.building import DAY, Chunk, write_raw

CHUNKS = [
    Chunk("c4", "Hello  World"),
    Chunk("c2", "hello world"),
    Chunk("c3", "hello world"),
    Chunk("c1", "other words here"),
    Chunk("c5", "hello world", project="another tenant"),
]


def rows(file: PartitionFile) -> list[dict[str, object]]:
    return [row for batch in file.iter_batches() for row in batch.to_pylist()]


def test_each_text_once_and_copies_listed(datasets: Datasets, clock: FakeClock) -> None:
    write_raw(datasets, DAY, CHUNKS)
    report = build_deduped_chunks(datasets, DedupConfig(), DAY, clock=clock)
    assert report == DedupReport(
        partition=DAY,
        chunks_in=5,
        chunks_out=3,
        duplicates={"exact": 1, "normalized": 1, "near": 0},
        tokens_saved=4,
        clusters=(Cluster("c2", DAY, 3),),
    )
    raw = {row["chunk_id"]: row for row in rows(datasets.raw_chunks(DAY))}
    assert rows(datasets.deduped_chunks(DAY)) == [raw["c2"], raw["c1"], raw["c5"]]
    shared = {"representative_id": "c2", "representative_date": DAY, "similarity": 1.0}
    assert rows(datasets.duplicate_chunks(DAY)) == [
        {"chunk_id": "c4", **shared, "method": "normalized"},
        {"chunk_id": "c3", **shared, "method": "exact"},
    ]


@settings(max_examples=12)
@given(
    st.lists(
        st.builds(
            Chunk,
            st.integers(0, 10**6).map(str),
            st.sampled_from(["a", "A", "b", "c d", "C  D"]),
            st.sampled_from("pq"),
        ),
        unique_by=lambda chunk: chunk.chunk_id,
    ),
    st.randoms(use_true_random=False),
)
def test_every_raw_chunk_is_in_one_of_the_two_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[Chunk], random: object
) -> None:
    results = []
    for _ in range(2):
        datasets = Datasets(tmp_path_factory.mktemp("data"))
        write_raw(datasets, DAY, chunks)
        build_deduped_chunks(datasets, DedupConfig(), DAY)
        kept = {row["chunk_id"] for row in rows(datasets.deduped_chunks(DAY))}
        copies = {
            row["chunk_id"]: row["representative_id"]
            for row in rows(datasets.duplicate_chunks(DAY))
        }
        assert kept | copies.keys() == {chunk.chunk_id for chunk in chunks}
        assert len(kept) + len(copies) == len(chunks)
        assert set(copies.values()) <= kept
        results.append((kept, copies))
        random.shuffle(chunks)  # type: ignore[attr-defined]
    assert results[0] == results[1]


def test_an_empty_day_has_both_files_without_rows(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [])
    report = build_deduped_chunks(datasets, DedupConfig(), DAY)
    assert (report.chunks_in, report.chunks_out, report.tokens_saved) == (0, 0, 0)
    assert datasets.deduped_chunks(DAY).rows() == datasets.duplicate_chunks(DAY).rows() == 0


def test_a_second_run_replaces_the_first(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    build_deduped_chunks(datasets, DedupConfig(), DAY)
    write_raw(datasets, DAY, CHUNKS[:1])
    build_deduped_chunks(datasets, DedupConfig(), DAY)
    assert [row["chunk_id"] for row in rows(datasets.deduped_chunks(DAY))] == ["c4"]
    assert datasets.duplicate_chunks(DAY).rows() == 0


def test_without_raw_chunks_nothing_is_made(datasets: Datasets) -> None:
    with pytest.raises(DataError, match="raw_chunks has no partition"):
        build_deduped_chunks(datasets, DedupConfig(), DAY)
    assert not datasets.deduped_chunks(DAY).exists()


def test_damage_half_way_leaves_the_old_files(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [Chunk(f"{n:05d}", f"text {n} " * 300) for n in range(8000)])
    build_deduped_chunks(datasets, DedupConfig(), DAY)
    path = datasets.raw_chunks(DAY).path
    whole = bytearray(path.read_bytes())
    whole[len(whole) * 9 // 10] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="is damaged"):
        build_deduped_chunks(datasets, DedupConfig(), DAY)
    assert datasets.deduped_chunks(DAY).rows() == 8000
