"""A file is replaced whole or not at all, whatever becomes of its writer."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedding_pipeline.vectors.atomic import replacing

WRITER = """
import sys, time
from pathlib import Path
from embedding_pipeline.vectors.atomic import replacing
with replacing(Path(sys.argv[1])) as path:
    path.write_text("half of it")
    print("half", flush=True)
    sys.stdin.read()
    path.write_text(sys.argv[2])
"""


@contextmanager
def writing(target: Path, text: str = "theirs") -> Iterator[subprocess.Popen[str]]:
    """Another process that has written half of ``target`` and waits to be told to go on."""
    command = [sys.executable, "-c", WRITER, str(target), text]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "day.parquet"
    path.parent.mkdir()
    path.write_text("old")
    return path


def replace(target: Path, text: str) -> None:
    with replacing(target) as path:
        path.write_text(text)


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_the_new_file_takes_the_old_ones_place(target: Path) -> None:
    replace(target, "new")
    assert target.read_text() == "new"
    assert names(target) == [target.name]


def test_folders_are_made(tmp_path: Path) -> None:
    replace(tmp_path / "a" / "b" / "day.parquet", "new")
    assert (tmp_path / "a" / "b" / "day.parquet").read_text() == "new"


def test_until_the_end_readers_see_the_old_file(target: Path) -> None:
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_block_that_raises_leaves_everything_as_it_was(
    target: Path, error: type[BaseException]
) -> None:
    def fail_half_way() -> None:
        with replacing(target) as path:
            path.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_text() == "old"
    assert names(target) == [target.name]


def test_a_writer_killed_half_way_leaves_the_old_file_and_its_litter_goes(target: Path) -> None:
    with writing(target) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(names(target)) == 2
    replace(target.with_name("another-day.parquet"), "new")
    assert names(target) == ["another-day.parquet", target.name]


def test_a_live_writer_is_not_disturbed_and_the_last_one_wins(target: Path) -> None:
    with writing(target) as process:
        replace(target, "mine")
        assert target.read_text() == "mine"
        process.communicate()
        assert process.returncode == 0
    assert target.read_text() == "theirs"
    assert names(target) == [target.name]


def test_age_does_not_make_a_live_writers_file_litter(target: Path) -> None:
    with writing(target) as process:
        for path in target.parent.glob(".*.tmp"):
            os.utime(path, (0, 0))
        replace(target, "mine")
        process.communicate()
    assert target.read_text() == "theirs"


def test_two_writers_in_one_process_do_not_meet(target: Path) -> None:
    with replacing(target) as first, replacing(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"
    assert names(target) == [target.name]


def test_other_files_in_the_folder_are_left_alone(target: Path) -> None:
    for name in (".hidden", "notes.tmp", "other.parquet"):
        (target.parent / name).write_text("keep")
    replace(target, "new")
    assert names(target) == [".hidden", target.name, "notes.tmp", "other.parquet"]


@pytest.mark.parametrize(("age", "stays"), [(3600, True), (48 * 3600, False)])
def test_without_locks_age_decides(
    target: Path, monkeypatch: pytest.MonkeyPatch, age: int, stays: bool
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("this file system has no locks")

    leftover = target.parent / f".{target.name}.1-00000000.tmp"
    leftover.write_text("half")
    now = target.stat().st_mtime
    os.utime(leftover, (now - age, now - age))
    monkeypatch.setattr("fcntl.flock", no_locks)
    replace(target, "new")
    assert leftover.exists() is stays


def test_a_file_swept_before_its_lock_was_on_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, taken = fcntl.flock, list[Path]()

    def slow_lock(descriptor: int, how: int) -> None:
        if not taken:
            taken.extend(target.parent.glob(".*.tmp"))
            taken[0].unlink()
        lock(descriptor, how)

    monkeypatch.setattr("fcntl.flock", slow_lock)
    replace(target, "new")
    assert len(taken) == 1
    assert target.read_text() == "new"
    assert names(target) == [target.name]
