"""Reading and writing one partition: streamed, checked, never half."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import RAW_CHUNKS, Space
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline.vectors.writing import ROW_GROUP_BYTES
from embedding_pipeline_tests.vectors.building import (
    DAY,
    SPACE,
    Chunk,
    chunk_batch,
    vectors_of,
    write_embeddings,
    write_raw,
)

CHUNKS = [Chunk(f"c{n}", f"text {n}") for n in range(20)]
REMEDY = f"embedding-pipeline backfill --start {DAY} --end {DAY}"

HALF_WRITER = """
import sys, time
from pathlib import Path
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.vectors.building import Chunk, chunk_batch
with Datasets(Path(sys.argv[1])).raw_chunks(sys.argv[2]).writer() as writer:
    for n in range(20):
        writer.write(chunk_batch([Chunk(f"{n}-{i}", "x" * 10_000) for i in range(100)]))
    print("half", flush=True)
    time.sleep(600)
"""

LIMITED_WRITER = """
import resource, secrets, sys
from pathlib import Path
from embedding_pipeline.errors import DataError
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.vectors.building import Chunk, chunk_batch
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with Datasets(Path(sys.argv[1])).raw_chunks(sys.argv[2]).writer() as writer:
        for n in range(30):
            chunks = [Chunk(f"{n}-{i}", secrets.token_hex(5000)) for i in range(100)]
            writer.write(chunk_batch(chunks))
except DataError as error:
    print(error)
"""


def read(file: PartitionFile) -> pa.Table:
    return pa.Table.from_batches(file.iter_batches(), schema=file.schema)


def ids(file: PartitionFile) -> list[str]:
    names: list[str] = read(file)["chunk_id"].to_pylist()
    return names


def test_what_is_written_is_read(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    assert read(datasets.raw_chunks(DAY)).to_batches() == [chunk_batch(CHUNKS)]
    assert datasets.raw_chunks(DAY).rows() == 20


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "the disk is full; free space"), (errno.EIO, "output error")]
)
def test_what_a_person_can_do_about_a_disk_is_said(
    datasets: Datasets, code: int, says: str
) -> None:
    with pytest.raises(DataError, match=says), datasets.raw_chunks(DAY).edge():
        raise OSError(code, os.strerror(code))


def test_an_empty_partition_is_a_file_with_its_columns(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [])
    assert datasets.raw_chunks(DAY).exists()
    assert read(datasets.raw_chunks(DAY)).schema == RAW_CHUNKS
    assert datasets.raw_chunks(DAY).rows() == 0


def test_columns_come_in_the_order_asked_for(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    batch = next(datasets.raw_chunks(DAY).iter_batches(("text", "chunk_id")))
    assert batch.schema.names == ["text", "chunk_id"]


def test_batches_have_at_most_the_rows_asked_for(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    batches = list(datasets.raw_chunks(DAY).iter_batches(batch_rows=7))
    assert [batch.num_rows for batch in batches] == [7, 7, 6]


def test_rows_are_found_by_key(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    with datasets.raw_chunks(DAY).open() as opened:
        found = opened.find("chunk_id", pa.array(["c3", "c17", "none"]), ["text", "chunk_id"])
        nothing = opened.find("chunk_id", pa.array(["none"]), ["text"])
    assert found.to_pydict() == {"text": ["text 3", "text 17"], "chunk_id": ["c3", "c17"]}
    assert nothing.num_rows == 0


def test_row_groups_stay_small_however_batches_come(datasets: Datasets) -> None:
    long = "x" * 50_000
    file = datasets.raw_chunks(DAY)
    with file.writer() as writer:
        writer.write(chunk_batch([Chunk(f"a{n}", long) for n in range(400)]))
        for n in range(400):
            writer.write(chunk_batch([Chunk(f"b{n}", long)]))
    parquet = pq.ParquetFile(file.path)
    groups = [parquet.read_row_group(n).nbytes for n in range(parquet.num_row_groups)]
    parquet.close()
    assert max(groups) <= ROW_GROUP_BYTES
    assert len(groups) <= 8
    assert max(batch.nbytes for batch in file.iter_batches()) <= ROW_GROUP_BYTES
    assert ids(file) == [f"a{n}" for n in range(400)] + [f"b{n}" for n in range(400)]


def test_a_text_larger_than_a_row_group_is_a_row_group(datasets: Datasets) -> None:
    huge = "x" * (ROW_GROUP_BYTES + 1)
    write_raw(datasets, DAY, [Chunk("a", "short"), Chunk("b", huge), Chunk("c", "short")])
    assert read(datasets.raw_chunks(DAY))["text"].to_pylist() == ["short", huge, "short"]


def test_vectors_come_back_bit_for_bit(datasets: Datasets) -> None:
    space = Space("openai", "big", "", 1536)
    chunks = [Chunk(f"c{n}", f"text {n}") for n in range(3000)]
    matrix = vectors_of([chunk.text for chunk in chunks], 1536)
    write_embeddings(datasets, DAY, chunks, space=space, vectors=matrix, batch_rows=700)
    batches = list(datasets.embeddings(space, DAY).iter_batches())
    assert np.array_equal(np.vstack([matrix_of(b.column("vector")) for b in batches]), matrix)
    assert all(batch.nbytes <= ROW_GROUP_BYTES for batch in batches)


def test_a_block_that_raises_leaves_the_old_partition(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)

    def fail_half_way() -> None:
        with datasets.raw_chunks(DAY).writer() as writer:
            writer.write(chunk_batch([Chunk("new", "new")]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert ids(datasets.raw_chunks(DAY)) == [chunk.chunk_id for chunk in CHUNKS]
    assert [path.name for path in (datasets.root / "raw_chunks").iterdir()] == [f"{DAY}.parquet"]


def test_a_writer_killed_half_way_leaves_the_old_partition(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    command = [sys.executable, "-c", HALF_WRITER, str(datasets.root), DAY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    folder = datasets.root / "raw_chunks"
    assert len(list(folder.iterdir())) == 2
    assert ids(datasets.raw_chunks(DAY)) == [chunk.chunk_id for chunk in CHUNKS]
    write_raw(datasets, DAY, CHUNKS[:3])
    assert ids(datasets.raw_chunks(DAY)) == ["c0", "c1", "c2"]
    assert [path.name for path in folder.iterdir()] == [f"{DAY}.parquet"]


def test_a_partition_held_open_stays_itself_when_replaced(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    with datasets.raw_chunks(DAY).open() as opened:
        first = [batch.num_rows for batch in opened.iter_batches()]
        write_raw(datasets, DAY, CHUNKS[:3])
        second = [batch.num_rows for batch in opened.iter_batches()]
    assert first == second == [20]
    assert datasets.raw_chunks(DAY).rows() == 3


def test_a_missing_partition_says_which_and_what_to_do(datasets: Datasets) -> None:
    with pytest.raises(DataError, match=f"raw_chunks has no partition {DAY} .*{REMEDY}"):
        datasets.raw_chunks(DAY).rows()
    with pytest.raises(DataError, match=REMEDY):
        list(datasets.raw_chunks(DAY).iter_batches())


def test_removing_is_for_files_that_may_not_be_there(datasets: Datasets) -> None:
    datasets.rejected_rows(DAY).remove()
    write_raw(datasets, DAY, CHUNKS)
    datasets.raw_chunks(DAY).remove()
    assert not datasets.raw_chunks(DAY).exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not parquet at all",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2] + bytes(64) + whole[len(whole) // 2 + 64 :],
    ],
    ids=["empty", "another format", "half", "torn end", "hole"],
)
def test_a_damaged_file_says_what_to_do(
    datasets: Datasets, damage: Callable[[bytes], bytes]
) -> None:
    write_raw(datasets, DAY, CHUNKS)
    file = datasets.raw_chunks(DAY)
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(DataError, match=f"raw_chunks {DAY}: .* is damaged .*{REMEDY}"):
        read(file)


def test_no_single_flipped_bit_goes_unnoticed(datasets: Datasets) -> None:
    write_embeddings(datasets, DAY, CHUNKS)
    file = datasets.embeddings(SPACE, DAY)
    whole, table = file.path.read_bytes(), read(file)
    noticed = 0
    for position in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        file.path.write_bytes(flipped)
        try:
            assert read(file) == table, f"bit {position % 8} of byte {position}"
        except DataError:
            noticed += 1
    assert noticed > len(whole) / 6


def test_a_folder_in_the_files_place_is_an_error_in_words(datasets: Datasets) -> None:
    datasets.raw_chunks(DAY).path.mkdir(parents=True)
    with pytest.raises(DataError, match="raw_chunks"):
        datasets.raw_chunks(DAY).rows()
    with pytest.raises(DataError, match="cannot be used"), datasets.raw_chunks(DAY).writer():
        pass


def test_a_disk_that_takes_no_more_is_an_error_in_words(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    command = [sys.executable, "-c", LIMITED_WRITER, str(datasets.root), DAY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"raw_chunks {DAY}: ")
    assert "cannot be used: " in done.stdout
    assert "ulimit -f" in done.stdout
    assert [path.name for path in (datasets.root / "raw_chunks").iterdir()] == [f"{DAY}.parquet"]
    assert datasets.raw_chunks(DAY).rows() == 20


def test_errors_of_the_block_stay_what_they_are(datasets: Datasets) -> None:
    with pytest.raises(FileNotFoundError), datasets.raw_chunks(DAY).writer():
        Path("/nonexistent/elsewhere").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["user"]), "user is missing"),
        (
            lambda t: t.set_column(2, "ordinal", t["ordinal"].cast(pa.int64())),
            "ordinal is int64, not int32",
        ),
        (lambda t: t.append_column("extra", t["text"]), "extra is one too many"),
        (lambda t: t.select(t.column_names[::-1]), "their order differs"),
    ],
)
def test_other_columns_are_refused_on_reading(
    datasets: Datasets, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    write_raw(datasets, DAY, CHUNKS)
    path = datasets.raw_chunks(DAY).path
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(DataError, match=words):
        datasets.raw_chunks(DAY).rows()


def test_other_columns_are_refused_on_writing(datasets: Datasets) -> None:
    with (
        pytest.raises(DataError, match="does not fit"),
        datasets.duplicate_chunks(DAY).writer() as writer,
    ):
        writer.write(chunk_batch(CHUNKS))
    assert not datasets.duplicate_chunks(DAY).exists()


def test_nulls_are_refused_on_reading(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    file = datasets.raw_chunks(DAY)
    table = pq.read_table(file.path)
    pq.write_table(table.set_column(3, "text", pa.nulls(20, pa.string())), file.path)
    with pytest.raises(DataError, match=f"text has 20 nulls; it may have none; .*{REMEDY}"):
        read(file)


def test_only_a_user_may_be_null(datasets: Datasets) -> None:
    batch = chunk_batch(CHUNKS)
    assert batch.column("user").null_count == 20
    nameless = batch.set_column(0, RAW_CHUNKS.field(0), pa.nulls(20, pa.string()))
    with (
        pytest.raises(DataError, match="chunk_id has 20 nulls"),
        datasets.raw_chunks(DAY).writer() as writer,
    ):
        writer.write(nameless)
