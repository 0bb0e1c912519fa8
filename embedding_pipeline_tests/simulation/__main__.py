"""``python -m embedding_pipeline_tests.simulation``: many seeds, or one of them again.

Prints each seed that broke a law and the law, and how many seeds had each misfortune; exits with
1 when a law was broken, or a misfortune befell too few. ``--replay SEED`` acts one out with its
whole history, ``--wide`` draws every story from the larger scale. Hashes of strings are made the
same in every process first, so that a seed is the same everywhere.
"""

import argparse
import os
import sys
import time

from embedding_pipeline_tests.simulation.acting import Ending, play
from embedding_pipeline_tests.simulation.census import LEAST, hollow, take
from embedding_pipeline_tests.simulation.machine import collect, no_collector
from embedding_pipeline_tests.simulation.seeds import WIDE, story_of

HASHES = "PYTHONHASHSEED"


def main() -> int:
    """Parse and act."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--only", type=int, nargs="*", default=[], help="these seeds instead")
    parser.add_argument("--replay", type=int, help="one seed, with its history")
    parser.add_argument("--wide", action="store_true", help="large stories only")
    arguments = parser.parse_args()
    scale = WIDE if arguments.wide else None
    if arguments.replay is not None:
        with no_collector():
            ending = play(arguments.replay, story_of(arguments.replay, scale))
        print("\n".join(ending.lines))  # noqa: T201
        return _tell([ending], 0.0)
    seeds = arguments.only or range(arguments.first, arguments.first + arguments.seeds)
    began = time.process_time()
    endings = []
    with no_collector():
        for number, seed in enumerate(seeds):
            ending = play(seed, story_of(seed, scale))
            if number % 20 == 19:
                collect()
            endings.append(ending)
            if ending.broken:
                print(f"seed {seed}: {ending.broken}", flush=True)  # noqa: T201
    return _tell(endings, time.process_time() - began)


def _tell(endings: list[Ending], seconds: float) -> int:
    broken = [ending for ending in endings if ending.broken]
    steps, calls = (sum(getattr(e, name) for e in endings) for name in ("steps", "calls"))
    print(  # noqa: T201
        f"{len(endings)} seeds, {steps:,} steps, {calls:,} requests, {seconds:.1f} s of CPU: "
        f"{len(broken)} broke a law"
    )
    for ending in broken[:10]:
        print(f"again: make simulate REPLAY={ending.seed}")  # noqa: T201
    if len(endings) == 1:
        print(f"history {endings[0].history}; {endings[0].broken or 'all laws held'}")  # noqa: T201
        return int(bool(broken))
    counted = take(ending.seen for ending in endings)
    print("; ".join(f"{kind} {counted[kind]}" for kind in LEAST))  # noqa: T201
    thin = hollow(counted, len(endings))
    for words in thin:
        print(f"too rare: {words}")  # noqa: T201
    return int(bool(broken or thin))


if __name__ == "__main__":
    if os.environ.get(HASHES) != "0":
        command = [sys.executable, "-m", "embedding_pipeline_tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, HASHES: "0"})  # noqa: S606
    raise SystemExit(main())
