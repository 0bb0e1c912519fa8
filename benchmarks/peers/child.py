"""``python -m benchmarks.peers.child CLIENT``: one client over some texts, in this process.

Prints a line of JSON: how many vectors it made, CPU and wall seconds of its own work, the peak
of its memory, and the error it ended with; the vectors go to ``--out``.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.engine.corpus import CHARACTERS, texts
from benchmarks.peers.asking import BATCH, KEY, MARK, Ask
from benchmarks.peers.clients import CLIENTS
from benchmarks.peers.previews import PREVIEWS


class Corpus(Sequence[str]):
    """Texts made when they are asked for, so that they take no memory."""

    def __init__(self, count: int, first: int) -> None:
        self._count, self._first = count, first

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows):  # type: ignore[no-untyped-def]
        start, stop, _ = rows.indices(self._count)
        return list(texts(stop - start, first=self._first + start))


def corpora(asked: argparse.Namespace) -> Iterator[Sequence[str]]:
    """What is to be embedded, a day at a time: half of a day's texts are the day's before."""
    for day in range(asked.days):
        first = asked.first + day * asked.count // 2
        if asked.client == "ours, streamed":
            yield Corpus(asked.count, first)
            continue
        made = list(texts(asked.count, first=first))
        for number in range(asked.marked, asked.count):
            made[number] = (MARK + made[number])[:CHARACTERS]
        yield made + made[: asked.repeated]


async def run(asked: argparse.Namespace) -> dict[str, float | int | str]:
    """All of it, in one loop, as a program would."""
    client, made, error = CLIENTS[asked.client], 0, ""
    place = {"batch": asked.batch, "budget_usd": asked.budget}
    if asked.warm:
        warm = list(texts(64, first=10**7))
        await client(Ask(asked.base_url, KEY, warm, asked.warm, **place))
    if asked.gate:
        pass_through(Path(asked.gate))
    cpu, wall = time.process_time(), time.perf_counter()
    for corpus in corpora(asked):
        ask = Ask(asked.base_url, KEY, corpus, asked.folder, **place)
        try:
            if asked.preview:
                made += await PREVIEWS[asked.client](ask)
                continue
            vectors = await client(ask)
        except Exception as exc:  # noqa: BLE001 - how it ends is what is measured
            error = type(exc).__name__
            break
        made += int(np.count_nonzero(vectors[:, 0]))  # ours leaves zeros where it was refused
        if asked.out:
            np.save(asked.out, vectors)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"made": made, "cpu": cpu, "wall": wall, "peak_mb": peak_mb(), "error": error}


def pass_through(gate: Path) -> None:
    """Say that all is ready, and wait until the gate is gone."""
    gate.touch()
    while gate.exists():
        time.sleep(0.01)


def peak_mb() -> float:
    """The most memory this process ever had.

    Linux' ``ru_maxrss`` begins with what the parent had; ``VmHWM`` does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(part for part in status.read_text().splitlines() if part.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="the number of the first text")
    parser.add_argument("--days", type=int, default=1, help="so many times half old, half new")
    parser.add_argument("--repeated", type=int, default=0, help="so many texts come twice")
    parser.add_argument("--marked", type=int, default=10**9, help="texts from this one on begin so")
    parser.add_argument("--batch", type=int, default=BATCH, help="texts of a request")
    parser.add_argument("--budget", type=float, default=0.0, help="USD")
    parser.add_argument("--warm", default="", help="a folder: imports and connection come before")
    parser.add_argument("--gate", default="", help="a file: made when ready; waits till it is gone")
    parser.add_argument("--preview", action="store_true", help="say the tokens, embed nothing")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--out", default="")
    print(json.dumps(asyncio.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
