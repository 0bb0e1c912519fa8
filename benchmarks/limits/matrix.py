"""Processes × limits × what is known × stores: are there 429s, and is the limit used?

What the limit allowed is counted in the strictest of the usual ways, ``window``: the tokens
the server accepted between two instants, over what its bucket was refilled with in between.
The window begins after the opening burst, so that nothing saved up before helps.

``run`` counts from the first request to the last over the refill of that time; it is above
100 % because the server's bucket is full at the start and ``burst_seconds`` of it may go at
once. ``all`` counts the whole opening bucket, a minute's worth, as allowed as well: what a
client that empties it at once could have had. The limiter does not: it paces, by design.
"""

import time
from dataclasses import dataclass

from benchmarks.limits.stage import PATIENCE, Figures, stage
from embedding_pipeline_tests.limits import load
from embedding_pipeline_tests.limits.load import Work

LIMITS = ((500, 1_000_000), (3_000, 5_000_000))
WARM_UP = 6.0
MOST_REFUSALS = {True: 0, False: 3}
LEAST = {True: 0.97, False: 0.92}


@dataclass(frozen=True)
class Cell:
    """One combination."""

    store: str
    processes: int
    rpm: int
    tpm: int
    known: bool

    @property
    def name(self) -> str:
        told = "known" if self.known else "learned"
        return f"{self.store}/{self.tpm // 1_000_000}M/{told}/{self.processes}"


def cells(stores: list[str], processes: list[int]) -> list[Cell]:
    """All of them, in an order that shows something of each soon."""
    return [
        Cell(store, count, rpm, tpm, known)
        for count in sorted(processes, reverse=True)
        for rpm, tpm in LIMITS
        for known in (True, False)
        for store in stores
    ]


def measure(cell: Cell, seconds: float) -> Figures:
    """429s, and the share of the limit that was used, each way of counting."""
    with stage(cell.store, cell.rpm, cell.tpm, known=cell.known) as here:
        works = [[Work()]] * cell.processes
        running = here.start(seconds + 2 * WARM_UP, works)
        began = load.go(running)
        time.sleep(max(began + WARM_UP - time.monotonic(), 0))
        first, at = here.fake.books.tokens, time.monotonic()
        early = here.refused
        time.sleep(seconds)
        last, end = here.fake.books.tokens, time.monotonic()
        for worker in running:
            load.finish(worker, seconds + PATIENCE)
        refused = here.refused
    a_second = cell.tpm / 60
    window = (last - first) / (a_second * (end - at))
    holds = refused <= MOST_REFUSALS[cell.known] and window >= LEAST[cell.known]
    return {
        "429s": refused,
        "429s_after_settling": refused - early,
        "window": round(window, 4),
        "run": round(last / (a_second * (end - began)), 4),
        "all": round(last / (cell.tpm + a_second * (end - began)), 4),
        "seconds": round(end - at, 1),
        "holds": holds,
    }
