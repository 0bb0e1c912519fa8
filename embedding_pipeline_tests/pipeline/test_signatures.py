"""Signatures in their files: used while they are of the chunks, made anew otherwise."""

import pyarrow as pa
import pytest

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.signing import sign, signature_family, signature_schema
from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.signatures import chunks_digest, signatures_of
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline_tests.vectors.building import DAY, Chunk, chunk_batch, write_raw

CONFIG = DedupConfig()
CHUNKS = [
    Chunk(f"{n:05}", f"the words of text number {n} are these", "pq"[n % 2]) for n in range(3000)
]


def kept(datasets: Datasets, config: DedupConfig = CONFIG) -> PartitionFile:
    return datasets.signatures(signature_family(config), DAY, signature_schema(config))


def signatures(datasets: Datasets, config: DedupConfig = CONFIG) -> pa.Table:
    with datasets.raw_chunks(DAY).open() as raw:
        return signatures_of(datasets, raw, config)


def identity(datasets: Datasets) -> str:
    with datasets.raw_chunks(DAY).open() as raw:
        return chunks_digest(raw)


def test_threads_sign_as_one_call_would(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    expected = pa.Table.from_batches([sign(chunk_batch(CHUNKS), CONFIG)])
    assert signatures(datasets).equals(expected)


def test_a_second_reader_uses_the_file(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    made = signatures(datasets)
    before = kept(datasets).path.stat().st_mtime_ns
    assert signatures(datasets).equals(made)
    assert kept(datasets).path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "other",
    [
        [*CHUNKS[:-1], Chunk("02999", "another text")],
        [*CHUNKS[:-1], Chunk("x", CHUNKS[-1].text, CHUNKS[-1].project)],
        [*CHUNKS[:-1], Chunk("02999", CHUNKS[-1].text, "another project")],
        CHUNKS[:-1],
        CHUNKS[::-1],
    ],
)
def test_other_chunks_are_signed_anew(datasets: Datasets, other: list[Chunk]) -> None:
    write_raw(datasets, DAY, CHUNKS)
    signatures(datasets)
    write_raw(datasets, DAY, other)
    assert signatures(datasets).equals(pa.Table.from_batches([sign(chunk_batch(other), CONFIG)]))


@pytest.mark.parametrize("damage", [b"", b"not parquet", None])
def test_a_damaged_or_removed_file_is_made_anew(datasets: Datasets, damage: bytes | None) -> None:
    write_raw(datasets, DAY, CHUNKS)
    made = signatures(datasets)
    path = kept(datasets).path
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole if damage is None else damage)
    assert signatures(datasets).equals(made)
    kept(datasets).remove()
    assert signatures(datasets).equals(made)
    assert kept(datasets).rows() == len(CHUNKS)


def test_the_digest_tells_where_a_name_ends(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [Chunk("ab", "t"), Chunk("c", "t")])
    one = identity(datasets)
    write_raw(datasets, DAY, [Chunk("a", "t"), Chunk("bc", "t")])
    assert identity(datasets) != one


def test_families_do_not_mix() -> None:
    settings = [
        DedupConfig(),
        DedupConfig(near=False),
        DedupConfig(threshold=0.8),
        DedupConfig(within_project=False),
    ]
    assert len({signature_family(config) for config in settings}) == len(settings)
    same = DedupConfig(threshold=0.89, scope_days=7)
    assert signature_family(same) == signature_family(DedupConfig())


def test_no_text_is_kept(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [Chunk("c", "geheim geheim geheim geheim geheim geheim")])
    signatures(datasets)
    assert b"geheim" not in kept(datasets).path.read_bytes()
    assert {str(field.type) for field in kept(datasets).schema} == {
        "string",
        "fixed_size_binary[16]",
        "uint64",
    }


def test_a_damaged_day_is_named(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    path = datasets.raw_chunks(DAY).path
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match=f"{DAY}.parquet"):
        signatures(datasets)
    assert not kept(datasets).exists()
