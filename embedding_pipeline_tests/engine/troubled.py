"""``python -m embedding_pipeline_tests.engine.troubled TROUBLE FOLDER``: a run on a bad disk.

A process of its own, since it mounts a small file system that only it can see (``full``,
``read_only``), or lives under a limit on the size of files (``limited``). It embeds texts until
that fails, takes the trouble away, and embeds them again. Prints one line of JSON: the error,
what was right in the end, and what SQLite says of its file. Exits with 77 where it may not mount.
"""

import asyncio
import ctypes
import json
import os
import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import numpy as np

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.errors import StateError
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests.engine.sharing import MODEL, batches, text
from embedding_pipeline_tests.fake_openai.replies import expected_vector

TEXTS = 600
SMALL, LARGE = 2 << 20, 64 << 20
NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
READ_ONLY, REMOUNT = 1, 32
NOT_ALLOWED = 77

_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> None:
    """Runs in the child before it has threads: it may mount from here on, where that is allowed."""
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(NEW_USER | NEW_MOUNTS) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _mount(folder: Path, size: int, flags: int = 0) -> None:
    options = f"size={size}".encode()
    if _libc.mount(b"tmpfs", bytes(folder), b"tmpfs", flags, options):
        sys.exit(NOT_ALLOWED)


def _limit(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


async def _embed(count: int) -> int:
    """Embed the first texts; how many are right."""
    texts = [text(number) for number in range(count)]
    right = 0
    async with EmbeddingService.open(load_settings()) as service:
        async for filled in service.bulk(batches(texts)).batches():
            for own, vector in zip(filled.work.texts, filled.vectors, strict=True):
                right += np.array_equal(vector, expected_vector(MODEL, own, 1536))
    return int(right)


def _fails() -> str:
    try:
        asyncio.run(_embed(TEXTS))
    except StateError as exc:
        return str(exc)
    return ""


def _main(trouble: str, folder: Path) -> None:
    if trouble == "limited":
        _limit(SMALL)
        error = _fails()
        _limit(resource.RLIM_INFINITY)
    else:
        _mount(folder, SMALL if trouble == "full" else LARGE)
        if trouble == "read_only":
            asyncio.run(_embed(100))
            _mount(folder, LARGE, REMOUNT | READ_ONLY)
        error = _fails()
        _mount(folder, LARGE, REMOUNT)
    with closing(sqlite3.connect(folder / "state.db")) as connection, connection:
        # as if the run that failed had had a process of its own
        connection.execute("UPDATE owners SET expires_at = 0")
    right = asyncio.run(_embed(TEXTS))
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
        left = connection.execute("SELECT count(*) FROM flights").fetchone()[0]
    print(json.dumps({"error": error, "right": right, "file": verdict, "flights": left}))  # noqa: T201


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
