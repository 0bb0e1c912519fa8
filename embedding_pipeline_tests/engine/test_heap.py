"""One heap for all threads: seen in processes of their own, since it lasts as long as one."""

import platform
import subprocess
import sys

import pytest

REPORT = """
import ctypes, os, sys, tempfile, threading
import pyarrow as pa
from embedding_pipeline.assembly.memory import share_one_heap

if sys.argv[1] == "shared":
    share_one_heap()
    share_one_heap()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
held, all_there = [], threading.Barrier(5)

def hold():
    held.append(libc.malloc(ctypes.c_size_t(5000)))
    all_there.wait()

def heaps():
    with tempfile.NamedTemporaryFile() as file:
        out = libc.fopen(file.name.encode(), b"w")
        libc.malloc_info(0, ctypes.c_void_p(out))
        libc.fclose(ctypes.c_void_p(out))
        return file.read().count(b"<heap nr=")

before = heaps()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads:
    thread.start()
all_there.wait()
print(heaps() - before, pa.default_memory_pool().backend_name)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="heaps are the GNU C library's")
def test_all_threads_and_arrow_share_one_heap() -> None:
    assert _new_heaps("shared") == ("0", "system")
    alone, _ = _new_heaps("apart")
    assert int(alone) > 1, "without it there would be one a thread"


def _new_heaps(how: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", REPORT, how], capture_output=True, text=True, check=True
    )
    heaps, backend = done.stdout.split()
    return heaps, backend
