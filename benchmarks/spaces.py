"""A model change over many small days against one large one.

Run with ``python -m benchmarks.spaces``.

The same chunks, once as ``--days`` partitions and once as a single one, are embedded with a
first model and then, timed, with a second one: a run as ``model_change_sensor`` launches it for
a build, against the fake API in a process of its own. Prints seconds and requests of both as
JSON. With ``--beside`` it is a backfill by hand, for which no build was opened: it embeds the
days in the second space and makes their files in the active one again, from the cache.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.server import KEY

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

FIRST = date(2025, 1, 1)
ASSETS = ("embeddings", "cost_summary")


def write_source(folder: Path, days: int, chunks: int) -> None:
    """``days * chunks`` distinct texts of about 60 words, the same whatever the days."""
    randomness = random.Random(1)
    words = [f"w{n}" for n in range(5000)]
    (folder / "data").mkdir(parents=True)
    for day in range(days):
        lines = (
            json.dumps({"id": f"{day}-{n}", "text": " ".join(randomness.choices(words, k=60))})
            for n in range(chunks)
        )
        name = (FIRST + timedelta(days=day)).isoformat()
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(lines))


def use_model(folder: Path, model: str) -> None:
    """Write the settings file."""
    settings = {
        "partitions": {"start_date": FIRST},
        "source": {"kind": "files", "path": str(folder / "data" / "{date}.jsonl")},
        "dedup": {"near": False},
        "embedding": {"model": f"openai/text-embedding-3-{model}"},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    os.environ["EMBEDDING_PIPELINE_CONFIG"] = str(folder / "pipeline.yaml")


def change(folder: Path, api: FakeProcess, days: int, *, beside: bool) -> dict[str, float]:
    """Seconds and requests of the second model over all days, in one run."""
    from embedding_pipeline.defs import launch
    from embedding_pipeline.settings.loading import load_settings

    span = [(FIRST + timedelta(days=day)).isoformat() for day in range(days)]
    use_model(folder, "small")
    home = folder / "home"
    done = launch.backfill(load_settings(), span[0], span[-1], partitions_per_run=days, home=home)
    assert done.success, done.failed
    use_model(folder, "large")
    settings = load_settings()
    tags = {} if beside else build_tags(settings)
    before, begun, cpu = api.books.requests, time.perf_counter(), time.process_time()
    run(settings, span, tags, home)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "requests": api.books.requests - before,
    }


def build_tags(settings: "Settings") -> dict[str, str]:
    """Open a build of the settings' space; the tags of its runs."""
    from embedding_pipeline.assembly.parts import open_store
    from embedding_pipeline.assembly.switching import open_build
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.defs.orphans import BUILD_TAG
    from embedding_pipeline.spaces.decision import OpenBuild
    from embedding_pipeline.spaces.records import BuildState

    step, clock = OpenBuild(BuildState.BUILDING, 0, "a benchmark"), SystemClock()
    with open_store(settings, clock) as store:
        return {BUILD_TAG: asyncio.run(open_build(settings, store, step, clock)).key}


def run(settings: "Settings", days: list[str], tags: dict[str, str], home: Path) -> None:
    """One run over all days, in this process."""
    from embedding_pipeline.defs.instance import open_instance
    from embedding_pipeline.defs.launch import Launcher

    with open_instance(settings, home) as instance:
        done = Launcher(settings, instance, assets=ASSETS).run(days, tags)
    assert done.success, done.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--chunks", type=int, default=50)
    parser.add_argument("--latency", type=float, default=0.3, help="seconds of one request")
    parser.add_argument("--beside", action="store_true", help="by hand, both spaces")
    parser.add_argument("--work", type=Path, help="an empty folder; a temporary one otherwise")
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    found = {}
    with tempfile.TemporaryDirectory(dir=options.work) as work, process() as api:
        os.environ["OPENAI_BASE_URL"] = api.base_url
        api.option(latency=options.latency)
        shapes = {"many": (options.days, options.chunks), "one": (1, options.days * options.chunks)}
        for name, (days, chunks) in shapes.items():
            folder = Path(work) / name
            write_source(folder, days, chunks)
            with contextlib.redirect_stderr(io.StringIO()):
                found[name] = change(folder, api, days, beside=options.beside)
    ratio = found["many"]["seconds"] / found["one"]["seconds"]
    more = found["many"]["requests"] / found["one"]["requests"]
    print(json.dumps({**found, "time_ratio": round(ratio, 2), "request_ratio": round(more, 2)}))


if __name__ == "__main__":
    main()
