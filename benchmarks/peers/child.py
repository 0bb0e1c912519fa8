"""``python -m benchmarks.peers.child CLIENT``: one client over some texts, in this process.

Prints a line of JSON: how many vectors it made, CPU and wall seconds of its own work, the peak
of its memory, and the error it ended with; the vectors go to ``--out``.
"""

import argparse
import asyncio
import json
import resource
import time

import numpy as np

from benchmarks.engine.corpus import texts
from benchmarks.peers.clients import CLIENTS

KEY = "sk-fake-0123456789abcdef"
"""The key the fake API accepts."""


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--days", type=int, default=1, help="so many times half old, half new")
    parser.add_argument("--warm", action="store_true", help="imports and connection come before")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--out", default="")
    arguments = parser.parse_args()
    client = CLIENTS[arguments.client]
    if arguments.warm:
        warm = list(texts(64, first=10**7))
        asyncio.run(client(arguments.base_url, KEY, warm, arguments.folder))
    made, error = 0, ""
    cpu, wall = time.process_time(), time.perf_counter()
    for day in range(arguments.days):
        corpus = list(texts(arguments.count, first=day * arguments.count // 2))
        try:
            vectors = asyncio.run(client(arguments.base_url, KEY, corpus, arguments.folder))
        except Exception as exc:  # noqa: BLE001 - how it ends is what is measured
            error = type(exc).__name__
            break
        made += len(vectors)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if arguments.out and made:
        np.save(arguments.out, vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {"made": made, "cpu": cpu, "wall": wall, "peak_mb": peak, "error": error}
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
