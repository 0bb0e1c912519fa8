"""One contract for every place datasets are kept in: a folder, S3, Google, what fsspec moves."""

import io
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from embedding_pipeline.errors import DataError, MissingExtra
from embedding_pipeline.remote import StorageError, file_system
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.local_storage import LocalStorage
from embedding_pipeline.vectors.object_storage import PART_BYTES, ObjectStorage
from embedding_pipeline.vectors.reader import read_vectors
from embedding_pipeline.vectors.search import search
from embedding_pipeline.vectors.storage import Readable, Storage, Writable
from embedding_pipeline_tests.object_store import set_credentials, troubled
from embedding_pipeline_tests.vectors.building import DAY, SPACE, Chunk, vector_of, write_day

NAME = "raw_chunks/2025-03-18.parquet"
FEW = 3


@pytest.fixture(params=["folder", "memory", "s3", "gcs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place of each kind."""
    if request.param == "folder":
        return LocalStorage(tmp_path / "data")
    if request.param == "memory":
        return ObjectStorage(f"memory://{os.urandom(8).hex()}/data")
    return ObjectStorage(f"{request.getfixturevalue(f'{request.param}_bucket')}/data")


def put(sink: Writable, content: bytes) -> None:
    """Write to whatever a place yields."""
    if isinstance(sink, Path):
        with sink.open("ab") as file:
            file.write(content)
    else:
        sink.write(content)


def content_of(source: Readable) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source.read()


def read(storage: Storage, name: str = NAME) -> bytes:
    with storage.open(name) as source:
        return content_of(source)


def everything(storage: Storage, folder: str = "raw_chunks") -> list[str]:
    return [file.name for file in storage.files(folder)]


def test_what_is_written_is_there_and_what_is_removed_is_not(storage: Storage) -> None:
    assert not storage.exists(NAME)
    assert storage.files("raw_chunks") == []
    storage.write(NAME, b"one")
    assert storage.exists(NAME)
    assert read(storage) == b"one"
    assert storage.location(NAME).endswith(NAME)
    storage.remove(NAME)
    storage.remove(NAME)
    assert not storage.exists(NAME)
    with pytest.raises(FileNotFoundError):
        read(storage)


def test_listings_name_files_folders_and_sizes(storage: Storage) -> None:
    for name in ("embeddings/b/2.parquet", "embeddings/a/1.parquet", "embeddings/a/0.parquet"):
        storage.write(name, name.encode())
    storage.write("embeddings/.hidden/1.parquet", b"")
    assert storage.folders("embeddings") == ["a", "b"]
    assert [(file.name, file.size) for file in storage.files("embeddings/a")] == [
        ("0.parquet", 22),
        ("1.parquet", 22),
    ]
    assert storage.files("embeddings") == []
    assert storage.folders("nowhere") == []


@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")  # by gcsfs
@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
def test_readers_see_the_old_file_until_the_new_one_is_whole(storage: Storage, size: int) -> None:
    storage.write(NAME, b"old")
    with storage.replacing(NAME) as sink:
        put(sink, b"x" * size)
        assert read(storage) == b"old"
    assert read(storage) == b"x" * size
    assert everything(storage) == ["2025-03-18.parquet"]


@pytest.mark.parametrize("size", [10, PART_BYTES + 10])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_everything_as_it_was(
    storage: Storage, error: type[BaseException], size: int
) -> None:
    if size > PART_BYTES and storage.location().startswith("gs://"):
        pytest.skip("the emulator cannot cancel an upload")
    storage.write(NAME, b"old")

    def fail_half_way() -> None:
        with storage.replacing(NAME) as sink:
            put(sink, b"x" * size)
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert read(storage) == b"old"
    assert everything(storage) == ["2025-03-18.parquet"]


def test_of_two_writers_at_once_the_last_one_wins_whole(storage: Storage) -> None:
    with storage.replacing(NAME) as late:
        put(late, b"late")
        with storage.replacing(NAME) as early:
            put(early, b"early")
        assert read(storage) == b"early"
    assert read(storage) == b"late"


def test_a_folder_is_given_up_with_all_that_is_in_it(storage: Storage) -> None:
    storage.write("embeddings/a/1.parquet", b"1")
    storage.write("embeddings/ab/1.parquet", b"1")
    storage.discard("embeddings/a")
    storage.discard("embeddings/a")
    assert storage.folders("embeddings") == ["ab"]
    storage.clear_discarded("embeddings")
    assert read(storage, "embeddings/ab/1.parquet") == b"1"


def test_datasets_are_the_same_everywhere(storage: Storage) -> None:
    datasets = Datasets(storage)
    chunks = [Chunk(f"c{n}", f"text {n}") for n in range(20)]
    write_day(datasets, DAY, chunks)
    assert datasets.embedded_days(SPACE) == [DAY]
    assert datasets.spaces() == [SPACE]
    table = read_vectors(datasets, SPACE, DAY, DAY, with_text=True)
    assert table.column("text").to_pylist() == [chunk.text for chunk in chunks]
    hits = search(datasets, SPACE, vector_of("text 7"), 1)
    assert [(hit.chunk_id, hit.text) for hit in hits] == [("c7", "text 7")]
    datasets.stand_ins(SPACE, DAY).remove()
    assert datasets.stand_in_files(DAY) == []
    with pytest.raises(DataError, match=r"has no partition 2025-03-19 .* make it with"):
        datasets.raw_chunks("2025-03-19").rows()


# --- what only an object store does -----------------------------------------------------------

HALF = f"""
import sys
from embedding_pipeline.vectors.object_storage import ObjectStorage
with ObjectStorage(sys.argv[1]).replacing("{NAME}") as sink:
    sink.write(b"x" * {2 * PART_BYTES})
    print("half", flush=True)
    sys.stdin.read()
"""


def uploads(url: str) -> list[str]:
    system, path = file_system(url)
    bucket, _, prefix = path.partition("/")
    found = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    return [upload["Key"] for upload in found.get("Uploads") or ()]


def test_a_writer_killed_in_mid_upload_leaves_the_old_file_and_its_parts_go(
    s3_bucket: str,
) -> None:
    storage = ObjectStorage(s3_bucket)
    storage.write(NAME, b"old")
    command = [sys.executable, "-c", HALF, s3_bucket]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
    assert read(storage) == b"old"
    assert len(uploads(s3_bucket)) == 1
    storage.write("raw_chunks/2025-03-19.parquet", b"living writers are not disturbed")
    assert len(uploads(s3_bucket)) == 1
    ObjectStorage(s3_bucket, abandoned=timedelta(0)).write(NAME, b"new")
    assert uploads(s3_bucket) == []
    assert read(storage) == b"new"


def test_a_file_replaced_under_a_reader_is_never_read_as_parts_of_two(s3_bucket: str) -> None:
    storage = ObjectStorage(s3_bucket)
    storage.write(NAME, b"a" * (4 << 20))
    with storage.open(NAME) as source:
        assert isinstance(source, io.RawIOBase)
        assert source.read(10) == b"a" * 10
        storage.write(NAME, b"b" * (4 << 20))
        source.seek(3 << 20)
        with pytest.raises(StorageError, match="was replaced while it was being read; run it"):
            source.read(10)


def test_a_store_that_answers_503_for_a_while_is_asked_again(
    s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with troubled(s3_server) as trouble:
        set_credentials(monkeypatch, trouble.endpoint)
        storage = ObjectStorage(s3_bucket, attempts=FEW)
        trouble.left = FEW - 1
        with storage.replacing(NAME) as sink:
            put(sink, b"x" * (PART_BYTES + 10))
            trouble.left += FEW - 1
        trouble.left += FEW - 1
        assert len(read(storage)) == PART_BYTES + 10
        assert trouble.refused == 3 * (FEW - 1)


def test_a_store_that_stays_away_is_named_with_what_to_do(
    s3_bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with troubled(s3_server) as trouble:
        set_credentials(monkeypatch, trouble.endpoint)
        file = Datasets(ObjectStorage(s3_bucket, attempts=1)).raw_chunks(DAY)
        trouble.left = 1 << 30
        with pytest.raises(DataError, match=r"raw_chunks .*cannot be reached .*run it again"):
            file.rows()
        with pytest.raises(DataError, match="cannot be reached"), file.writer():
            pass
        assert trouble.refused < 20


def test_without_credentials_or_rights_it_says_so(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"(refused|cannot be reached).*credentials"):
        ObjectStorage(s3_bucket, attempts=2).write(NAME, b"x")


@pytest.mark.parametrize(("url", "extra"), [("s3://b/x", "s3"), ("gs://b/x", "gcs")])
def test_a_client_that_is_not_installed_is_named(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.registry import _registry

    for protocol in ("s3", "gs"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtra, match=rf"embedding-pipeline\[{extra}\]"):
        ObjectStorage(url)


def test_an_unknown_protocol_is_an_error_with_a_remedy() -> None:
    with pytest.raises(StorageError, match="nope://b cannot be reached"):
        ObjectStorage("nope://b")
