"""No path made from data leaves ``data_dir``, whatever the data is: in a folder, in a store."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import DUPLICATE_CHUNKS, Space
from embedding_pipeline.remote import StorageError
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.local_storage import LocalStorage
from embedding_pipeline.vectors.object_storage import ObjectStorage
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline.vectors.storage import Storage, contained
from embedding_pipeline_tests.vectors.building import DAY, SPACE, Chunk, chunk_batch, vectors_of

HOSTILE = (
    *("..", ".", "", "/", "//", "~", "../../etc/passwd", "/etc/passwd", "a/../../b"),
    *(
        "..\\..\\b",
        "C:\\b",
        "\x00",
        "a\x00b",
        "a\nb",
        "%2e%2e%2f",
        "\u2024\u2024/b",
        "\uff0e\uff0e/b",
    ),
    *("s3://other/b", "file:///etc", "*", "{date}", "con", "2025-03-18/../../b", ".hidden"),
)
WORDS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30), st.from_regex(r"[./\\]{1,9}b?"))
ROOT = Path("/somewhere/data")
PLACES = [LocalStorage(ROOT), ObjectStorage("memory://contained/data")]
SPACES = st.builds(Space, WORDS, WORDS, WORDS, st.integers(1, 4096))


MAKERS: list[Callable[[Datasets, Space, str], PartitionFile]] = [
    lambda datasets, _, day: datasets.raw_chunks(day),
    lambda datasets, _, day: datasets.rejected_rows(day),
    lambda datasets, _, day: datasets.deduped_chunks(day),
    lambda datasets, _, day: datasets.duplicate_chunks(day),
    lambda datasets, _, day: datasets.cost_summary(day),
    lambda datasets, _, day: datasets.signatures("f", day, DUPLICATE_CHUNKS),
    lambda datasets, space, day: datasets.embeddings(space, day),
    lambda datasets, space, day: datasets.served_embeddings(space, day),
    lambda datasets, space, day: datasets.derived_chunks(space, day),
    lambda datasets, space, day: datasets.stand_ins(space, day),
]
"""Every file whose name has something of the data in it."""


def stays(storage: Storage, name: str) -> bool:
    """Whether the place of ``name`` is below the storage's, however dots are resolved."""
    root = storage.location()
    place = os.path.normpath(storage.location(name)) if "://" not in root else name
    return place.startswith(f"{root}/") or ("://" in root and os.path.normpath(name) == name)


@pytest.mark.parametrize("storage", PLACES, ids=["folder", "store"])
@given(space=SPACES)
def test_files_of_any_space_are_below_data_dir(storage: Storage, space: Space) -> None:
    for make in MAKERS:
        file = make(Datasets(storage), space, DAY)
        assert stays(storage, file.name)
        assert contained(file.name).endswith(f"/{DAY}.parquet")
        assert file.name.count("/") in {1, 2}
        assert not any(part.startswith(".") for part in file.name.split("/"))


@given(day=WORDS, space=SPACES)
def test_what_is_no_day_names_no_file_of_any_dataset(day: str, space: Space) -> None:
    datasets = Datasets(PLACES[0])
    for make in MAKERS:
        with pytest.raises(DataError, match="is not a day"):
            make(datasets, space, day)
    with pytest.raises(DataError, match="is not a day"):
        datasets.found_embeddings(space.slug, day)


@given(name=st.lists(WORDS, min_size=1, max_size=3).map("/".join))
def test_a_name_stays_below_its_place_or_is_refused(name: str) -> None:
    for storage in PLACES:
        try:
            storage.location(name)
        except StorageError:
            continue
        assert not name or stays(storage, name)


@pytest.mark.parametrize("storage", PLACES, ids=["folder", "store"])
@pytest.mark.parametrize("name", ["../b", "a/../../b", "/etc/passwd", "a//b", "a/./b", "a/*"])
def test_every_call_refuses_a_name_that_leaves(storage: Storage, name: str) -> None:
    for call in (
        storage.files,
        storage.folders,
        storage.exists,
        storage.remove,
        storage.discard,
        lambda name: storage.open(name).__enter__(),
        lambda name: storage.replacing(name).__enter__(),
        lambda name: storage.write(name, b""),
    ):
        with pytest.raises(StorageError, match="below data_dir"):
            call(name)


def test_names_in_the_data_become_columns_and_no_path(tmp_path: Path) -> None:
    """Ids, projects and users of every hostile form are written, and only two files appear."""
    datasets = Datasets(tmp_path / "data")
    chunks = [Chunk(word, f"text {n}", project=word) for n, word in enumerate(HOSTILE)]
    with datasets.raw_chunks(DAY).writer() as writer:
        writer.write(chunk_batch(chunks))
    with datasets.embeddings(SPACE, DAY).vectors_writer(run_id="r", fingerprint="f") as vectors:
        batch = chunk_batch(chunks)
        vectors.write(embeddings_batch(batch, vectors_of([c.text for c in chunks])))
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == [
        f"data/embeddings/{SPACE.slug}/{DAY}.parquet",
        f"data/raw_chunks/{DAY}.parquet",
    ]
    read = pa.Table.from_batches(datasets.raw_chunks(DAY).iter_batches())
    assert read["chunk_id"].to_pylist() == list(HOSTILE)
