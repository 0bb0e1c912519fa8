"""Where each dataset is, and that vectors of one space are never taken for another's."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Space
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.provenance import Provenance
from embedding_pipeline_tests.vectors.building import (
    DAY,
    OTHER,
    SPACE,
    Chunk,
    chunk_batch,
    vectors_of,
    write_embeddings,
)

CHUNKS = [Chunk("a", "one"), Chunk("b", "two")]


def test_every_dataset_has_its_place(datasets: Datasets) -> None:
    space = Space("openai", "text-embedding-3-small", "", 1536)
    files = [
        datasets.raw_chunks(DAY),
        datasets.rejected_rows(DAY),
        datasets.deduped_chunks(DAY),
        datasets.duplicate_chunks(DAY),
        datasets.embeddings(space, DAY),
        datasets.cost_summary(DAY),
    ]
    assert [file.name for file in files] == [
        f"raw_chunks/{DAY}.parquet",
        f"rejected_rows/{DAY}.parquet",
        f"deduped_chunks/{DAY}.parquet",
        f"duplicate_chunks/{DAY}.parquet",
        f"embeddings/openai-text-embedding-3-small-1536/{DAY}.parquet",
        f"cost_summary/{DAY}.parquet",
    ]
    assert all(file.path == datasets.root / file.name for file in files)


@pytest.mark.parametrize("day", ["", "../../etc/passwd", "2025-3-18", "20250318", "2025-02-30"])
def test_what_is_no_day_never_becomes_a_path(datasets: Datasets, day: str) -> None:
    with pytest.raises(DataError, match="is not a day"):
        datasets.raw_chunks(day)
    with pytest.raises(DataError, match="is not a day"):
        datasets.embeddings(SPACE, day)


def test_days_with_vectors_are_listed_by_space(datasets: Datasets) -> None:
    assert datasets.embedded_days(SPACE) == []
    for day in ("2025-03-19", "2025-03-18"):
        write_embeddings(datasets, day, CHUNKS)
    write_embeddings(datasets, "2025-03-20", CHUNKS, space=OTHER)
    (datasets.root / "embeddings" / SPACE.slug / "notes.parquet").touch()
    assert datasets.embedded_days(SPACE) == ["2025-03-18", "2025-03-19"]


def test_the_file_says_what_made_it(datasets: Datasets) -> None:
    file = datasets.embeddings(SPACE, DAY, 4)
    with file.vectors_writer(run_id="r1", fingerprint="abc", counts={"chunks": 2}) as writer:
        writer.write(embeddings_batch(chunk_batch(CHUNKS), vectors_of(["one", "two"], 4)))
        writer.counts["embedded"] = writer.rows
    counts = {"chunks": 2, "embedded": 2}
    assert file.provenance() == Provenance(SPACE, 4, "r1", "abc", counts)
    assert file.metadata()["embedding_pipeline.space"] == "local/tiny@8"


@given(
    st.builds(
        Provenance,
        space=st.sampled_from([SPACE, Space("openai", "m", "rev-1", 3072)]),
        dimensions=st.integers(1, 4096),
        run_id=st.text(),
        fingerprint=st.text(),
        counts=st.dictionaries(st.text(), st.integers()),
    )
)
def test_the_record_survives_its_own_form(record: Provenance) -> None:
    assert Provenance.from_metadata(record.to_metadata()) == record


def test_vectors_of_another_space_are_refused_wherever_they_lie(datasets: Datasets) -> None:
    write_embeddings(datasets, DAY, CHUNKS, space=OTHER)
    wanted = datasets.embeddings(SPACE, DAY)
    wanted.path.parent.mkdir(parents=True)
    shutil.copy(datasets.embeddings(OTHER, DAY).path, wanted.path)
    with pytest.raises(DataError, match=r"vectors of local/other@8 at 8 .* not of local/tiny@8"):
        list(wanted.iter_batches())


def test_vectors_of_other_dimensions_are_refused(datasets: Datasets) -> None:
    write_embeddings(datasets, DAY, CHUNKS, vectors=vectors_of(["one", "two"], 4))
    assert datasets.embeddings(SPACE, DAY, 4).rows() == 2
    with pytest.raises(DataError, match="at 4 dimensions, not of local/tiny@8 at 8"):
        datasets.embeddings(SPACE, DAY).rows()


def test_a_column_of_another_length_than_the_file_says_is_refused(datasets: Datasets) -> None:
    write_embeddings(datasets, DAY, CHUNKS, vectors=vectors_of(["one", "two"], 4))
    file = datasets.embeddings(SPACE, DAY, 4)
    lie = Provenance(SPACE, 8).to_metadata()
    pq.write_table(pq.read_table(file.path).replace_schema_metadata(lie), file.path)
    with pytest.raises(DataError, match="vector is fixed_size_list"):
        datasets.embeddings(SPACE, DAY, 8).rows()


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"embedding_pipeline.space": "nonsense", "embedding_pipeline.dimensions": "8"},
        {"embedding_pipeline.space": "local/tiny@8", "embedding_pipeline.dimensions": "many"},
        {
            "embedding_pipeline.space": "local/tiny@8",
            "embedding_pipeline.dimensions": "8",
            "embedding_pipeline.counts": "[1",
        },
    ],
)
def test_vectors_without_a_record_are_refused(datasets: Datasets, metadata: dict[str, str]) -> None:
    write_embeddings(datasets, DAY, CHUNKS)
    file = datasets.embeddings(SPACE, DAY)
    table: pa.Table = pq.read_table(file.path)
    pq.write_table(table.replace_schema_metadata(metadata), file.path)
    with pytest.raises(DataError, match="does not say what made it"):
        file.rows()


def test_a_write_that_fails_leaves_no_record_of_its_own(datasets: Datasets) -> None:
    write_embeddings(datasets, DAY, CHUNKS)
    file = datasets.embeddings(SPACE, DAY)
    with (
        pytest.raises(DataError, match="does not fit"),
        file.vectors_writer(run_id="second", fingerprint="") as writer,
    ):
        writer.write(embeddings_batch(chunk_batch(CHUNKS), vectors_of(["one", "two"], 4)))
    assert file.provenance().run_id == "run"
    assert file.rows() == 2
