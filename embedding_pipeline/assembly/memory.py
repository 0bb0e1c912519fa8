"""How this process hands out memory, for work that streams gigabytes through it.

Belongs here: choices that hold for the whole process, made once, by those that run the
pipeline. Does not belong here: bounding what a step holds (each step does).

Buffers of a megabyte come and go in several threads. By default each thread gets a heap of
its own, in the C library and once more in Arrow, and none gives back what another could
use: a third of the peak is such leftovers, and filling fresh pages costs CPU as well.
"""

import ctypes
from functools import cache
from typing import Final

_M_ARENA_MAX: Final = -8  # <malloc.h> of the GNU C library


@cache
def share_one_heap() -> None:
    """One heap for all threads, Arrow's buffers included. Other C libraries stay as they are."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
