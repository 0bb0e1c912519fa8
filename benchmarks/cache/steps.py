"""What is done in the measured process: filling, and reading hot and cold."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.cache.clients import CLIENTS, texts, vectors

MANY = 1000


def take_step(which: str, name: str, place: str, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds a thousand entries, wall and CPU of this process, medians."""
    _, foreign, open_cache = CLIENTS[name]
    if which == "fill":
        cache = open_cache(place)
        times = []
        for first in range(0, count, MANY):
            rows, words = vectors(MANY, first), texts(MANY, first)
            handed = rows.tolist() if foreign else rows
            times.append(timed(lambda w=words, h=handed: cache.put(w, h)))  # type: ignore[misc]
        return {"put": _middle(times, 0), "put_cpu": _middle(times, 1)}
    _forget_pages(place)
    cache = open_cache(place)
    cache.get(texts(1, 0))  # imports, connection
    chosen = random.Random(1)
    cold, kept = [], MANY

    def look(words: list[str]) -> None:
        nonlocal kept
        kept = min(kept, cache.get(words))
        assert foreign or kept == MANY, f"{kept} of {MANY} were found"

    for _ in range(min(rounds, count // MANY)):
        words = [texts(1, number)[0] for number in chosen.sample(range(count), MANY)]
        _forget_pages(place)
        cold.append(timed(lambda w=words: look(w)))  # type: ignore[misc]
    words = [texts(1, number)[0] for number in chosen.sample(range(count), MANY)]
    cache.get(words)
    hot = [timed(lambda: look(words)) for _ in range(2 * rounds)]
    return {
        "cold": _middle(cold, 0),
        "cold_cpu": _middle(cold, 1),
        "hot": _middle(hot, 0),
        "hot_cpu": _middle(hot, 1),
        "kept": kept,
    }


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of wall and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def _middle(times: list[tuple[float, float]], which: int) -> float:
    return median(time[which] for time in times)


def _forget_pages(place: str) -> None:
    """Let the kernel forget what it holds of the files, as far as it will."""
    if "://" in place:
        return
    for path in Path(place).rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
