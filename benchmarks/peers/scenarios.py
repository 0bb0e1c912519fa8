"""The scenarios: what the server does, what the clients are asked, what is read off.

Belongs here: one function a scenario, ``(bench, client) → Row``, and what its columns mean.
Figures that nobody else publishes come from the server's own books. Does not belong here:
money (``spending``), the order of runs (``running``), or how a page reads (``page``).
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.engine.corpus import texts
from benchmarks.peers.asking import MARK, MODEL
from benchmarks.peers.spending import budget, preview
from benchmarks.peers.stage import Bench, Made, Row, Running
from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.replies import expected_vector

TOKENS_EACH = 195
"""UTF-8 bytes / 4 of a text of the corpus: what a limit counts."""

STREAMED = "ours, streamed"
KEEPS = ("ours", "LangChain", "LiteLLM")
"""Clients that keep vectors; the others have nothing to find again."""


def cpu(bench: Bench, client: str) -> Row:
    """No limits, and answers at once."""
    with bench.stage() as (server, folder):
        made = bench.run(client, server, folder, bench.size.chunks, warm=folder)
    if made.error:
        return _failed(made, bench.size.chunks)
    thousand = made.count / 1000
    return Row({"CPU": made.cpu / thousand, "speed": made.count / made.wall})


def latency(bench: Bench, client: str) -> Row:
    """Every answer takes 300 ms."""
    with bench.stage(latency=0.3) as (server, folder):
        made = bench.run(client, server, folder, bench.size.chunks, warm=folder)
    return _failed(made, bench.size.chunks) if made.error else Row({"time": made.wall})


def limits(bench: Bench, client: str) -> Row:
    """A rate limit whose bucket is empty at first, as it is amid work; it takes half a minute.

    Then one whose bucket is full, as after a pause: three quarters fit into it, the rest takes
    20 seconds. Ours paces itself all along (`limits.burst_seconds`), and so takes longer there.
    """
    count = bench.size.chunks // 2
    work = count * TOKENS_EACH
    amid, books = _limited(bench, client, 2.0 * work, 0.0)
    figures = {"embedded": amid.count / count, "429s": books.statuses.get("429", 0)}
    if amid.wall:
        figures["share"] = books.inputs * TOKENS_EACH / (2.0 * work * amid.wall / 60)
    fresh, books = _limited(bench, client, 0.75 * work, 1.0)
    figures["429s"] += books.statuses.get("429", 0)
    if not fresh.error:
        figures["time"] = fresh.wall
    return Row(figures, amid.error or fresh.error)


def _limited(bench: Bench, client: str, tpm: float, level: float) -> tuple[Made, Books]:
    """A run under a limit that begins when the client is ready, its bucket as full as said."""
    with bench.stage() as (server, folder):
        more = {"warm": f"{folder}/warm", "gate": f"{folder}/gate", "batch": 64}
        running = bench.start(client, server, f"{folder}/kept", bench.size.chunks // 2, **more)
        gate = Path(folder) / "gate"
        if bench.until(gate.exists, running):
            server.reset()
            server.limit(tpm=tpm, rpm=1000, level=level)
            gate.unlink()
        return bench.finish(running), server.books


def cached(bench: Bench, client: str) -> Row:
    """The same texts again, in a new process; what one of them takes on disk meanwhile."""
    count = bench.size.chunks
    with bench.stage() as (server, folder):
        kept, warm = f"{folder}/kept", f"{folder}/warm"
        first = bench.run(client, server, kept, count)
        if first.error:
            return _failed(first, count)
        figures: dict[str, float] = {}
        if client in KEEPS:
            figures["on disk"] = _size(kept) / count
        server.reset()
        made = bench.run(client, server, kept, count, warm=warm)
        paid = server.books.inputs - 64
    figures |= {"paid again": paid / count, "time": made.wall}
    note = "" if client in KEEPS else "keeps nothing"
    return Row(figures, made.error or note)


def _size(folder: str) -> int:
    walked = ((place, name) for place, _, names in os.walk(folder) for name in names)
    return sum((Path(place) / name).stat().st_size for place, name in walked)


FAULTS = (
    "500",
    "429_tokens",
    "reset",
    "billed_reset",
    "short_length",
    "reversed",
    "null_embedding",
    "missing",
    "nan",
)
"""Refusals, broken connections and spoilt replies; each strikes one request in twenty."""


def faults(bench: Bench, client: str) -> Row:
    """Failures, broken connections, spoilt replies: how much arrives, and how much of it is right.

    Then only replies whose items are in reverse order, with the right indexes.
    """
    count = min(bench.size.chunks, 5000)
    struck = [Fault(kind, rate=0.05, retry_after=1.0) for kind in FAULTS]
    with bench.stage(exact=True) as (server, folder):
        server.fault(*struck, seed=1)
        made, wrong = _checked(bench, client, server, f"{folder}/a", count, batch=64)
        billed = server.books.inputs
    figures = {"embedded": made.count / count, "paid for": billed / count}
    if made.count:
        figures["wrong"] = wrong
    with bench.stage(exact=True) as (server, folder):
        server.fault(Fault("reversed"))
        calm, misplaced = _checked(bench, client, server, f"{folder}/b", count // 4, batch=64)
    if calm.count:
        figures["misaligned"] = misplaced / calm.count
    return Row(figures, made.error or calm.error)


def _checked(
    bench: Bench, client: str, server: FakeProcess, folder: str, count: int, batch: int
) -> tuple[Made, int]:
    """A run, and how many of its vectors are not those of the texts in their places."""
    Path(folder).mkdir()
    out = f"{folder}.npy"
    made = bench.run(client, server, folder, count, out=out, batch=batch)
    if not made.count:
        return made, 0
    vectors = np.load(out, allow_pickle=False)
    handed = [(v, text) for v, text in zip(vectors, texts(count), strict=False) if v[0]]
    right = [np.allclose(v, expected_vector(MODEL, text, 1536), atol=1e-6) for v, text in handed]
    return made, right.count(False)


def kill(bench: Bench, client: str) -> Row:
    """Killed with half of it answered and as much in flight as the client had, then run again.

    The second half is billed, and its answers are held back: so the kill meets every client at
    the same place, with everything of the first half in its hands, whatever the machine does.
    """
    count = bench.size.chunks
    half = count // 2
    with bench.stage() as (server, folder):
        server.fault(Fault("billed_hang", marker=MARK, seconds=600.0))
        running = bench.start(client, server, folder, count, marked=half, batch=64)
        still = _Standstill(server, running)
        struck = bench.until(still, running)
        running.kill()
        before = server.books
        server.fault()
        made = bench.run(client, server, folder, count, marked=half, batch=64)
        after = server.books
    if not struck:
        return Row(note="ended before it could be killed")
    flying = round(before.lost / TOKENS_EACH)
    again = _twice(after.billed)
    figures = {
        "in flight": flying / count,
        "billed again": again / count,
        "of what was answered": max(again - flying, 0) / max(before.inputs - flying, 1),
        "embedded": made.count / count,
    }
    return Row(figures, made.error)


class _Standstill:
    """Whether answers are held back, and neither books nor client have moved for a second.

    That the books stand still is not enough: the client may not have got round yet to what was
    answered before.
    """

    def __init__(self, server: FakeProcess, running: Running) -> None:
        self._server, self._running = server, running
        self._last, self._same = (0, 0), 0

    def __call__(self) -> bool:
        books = self._server.books
        now = (books.requests, books.inputs)
        still = now == self._last and books.lost > 0 and self._running.is_idle
        self._same = self._same + 1 if still else 0
        self._last = now
        return self._same >= 20


def _twice(billed: Counter[str]) -> int:
    return sum(times - 1 for times in billed.values())


def growth(bench: Bench, client: str) -> Row:
    """The peak of memory as the number of chunks grows, all handed over as one matrix.

    Streamed is what a run of ours does: vectors go to a file as they come. Only ours goes on from
    there: `make bench BENCH_ARGS="G --clients ours --streamed 1000000"` is a million.
    """
    sizes = bench.size.growing + (bench.size.streamed if client == STREAMED else ())
    figures: dict[str, float] = {}
    for count in sizes:
        with bench.stage() as (server, folder):
            made = bench.run(client, server, folder, count)
        if made.error:
            return Row(figures, f"{made.error} at {count:,}")
        figures[f"{count:,}"] = made.peak_mb
    return Row(figures)


def backfill(bench: Bench, client: str) -> Row:
    """Many days, one after the other; half of each day's texts are the day's before."""
    each = max(bench.size.chunks // bench.size.days, 2) // 2 * 2
    with bench.stage() as (server, folder):
        made = bench.run(client, server, folder, each, days=bench.size.days, warm=f"{folder}/warm")
        paid = server.books.inputs - 64
    needed = each + (bench.size.days - 1) * each // 2
    if made.error:
        return Row({"paid for": paid / needed}, made.error)
    return Row({"time": made.wall, "paid for": paid / needed})


def _failed(made: Made, count: int) -> Row:
    return Row(note=f"{made.error}, {made.count:,} of {count:,}")


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        title: as it heads its column.
        unit: "%" for shares, "s", "MB", "" for plain numbers.
        less: whether less is better; None where neither is.
    """

    title: str
    unit: str = ""
    less: bool | None = True


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        title: in a few words.
        measure: one client, once.
        columns: what its figures mean, by name; the first is drawn.
        rounds: how often each client has its turn.
        extra: clients for this one beside the usual.
    """

    title: str
    measure: Callable[[Bench, str], Row]
    columns: dict[str, Column]
    rounds: int = 1
    extra: tuple[str, ...] = ()


_TIME = Column("seconds", "s")
_EMBEDDED = Column("embedded", "%", less=False)

SCENARIOS: dict[str, Scenario] = {
    "A": Scenario(
        "CPU and speed, no limits",
        cpu,
        {
            "CPU": Column("CPU seconds per 1,000", "s"),
            "speed": Column("chunks a second", less=False),
        },
        rounds=3,
    ),
    "B": Scenario("slow answers", latency, {"time": _TIME}, rounds=2),
    "C": Scenario(
        "a rate limit",
        limits,
        {
            "429s": Column("429s"),
            "share": Column("share of the limit used", "%", less=False),
            "embedded": _EMBEDDED,
            "time": Column("seconds with a full bucket at first", "s"),
        },
    ),
    "D": Scenario(
        "the same again",
        cached,
        {
            "paid again": Column("paid again", "%"),
            "on disk": Column("bytes a vector on disk"),
            "time": _TIME,
        },
    ),
    "E": Scenario(
        "faults",
        faults,
        {
            "embedded": _EMBEDDED,
            "wrong": Column("wrong vectors"),
            "misaligned": Column("misaligned when replies are reversed", "%"),
            "paid for": Column("paid for", "%"),
        },
    ),
    "F": Scenario(
        "a kill",
        kill,
        {
            "billed again": Column("billed again", "%"),
            "in flight": Column("in flight at the kill", "%", less=None),
            "of what was answered": Column("billed again of what had been answered", "%"),
            "embedded": _EMBEDDED,
        },
    ),
    "G": Scenario("growth", growth, {}, extra=(STREAMED,)),
    "H": Scenario("many days", backfill, {"time": _TIME, "paid for": Column("paid for", "%")}),
    "I": Scenario(
        "a budget",
        budget,
        {
            "overshoot": Column("spent above the budget", "%"),
            "spent": Column("spent of the budget", "%", less=None),
        },
    ),
    "J": Scenario(
        "a price before it is spent", preview, {"error": Column("said against billed", "%")}
    ),
}


def column(letter: str, name: str) -> Column:
    """What a figure means; G's columns are its sizes."""
    return SCENARIOS[letter].columns.get(name) or Column(f"MB at {name}", "MB")
