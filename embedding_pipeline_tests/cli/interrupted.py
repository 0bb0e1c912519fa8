"""A user who presses Ctrl-C at one step after another, and then has a disk that is full.

``python -m embedding_pipeline_tests.cli.interrupted START END`` runs one command again and again in
the working directory, each time met by another misfortune, and prints a JSON line for each: what
happened where, the exit code and what was said. The last time nothing happens.
"""

import contextlib
import io
import json
import resource
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from unittest import mock

from embedding_pipeline.cli.endings import run
from embedding_pipeline.cli.root import root

STEPS = {
    "settings": ("embedding_pipeline.settings.loading", "load_settings"),
    "history": ("embedding_pipeline.defs.instance", "instance_ref"),
    "reading": ("embedding_pipeline.pipeline.raw", "build_raw_chunks"),
    "duplicates": ("embedding_pipeline.pipeline.dedupe", "build_deduped_chunks"),
    "embedding": ("embedding_pipeline.pipeline.embed", "build_embeddings"),
    "costs": ("embedding_pipeline.pipeline.cost", "build_cost_summaries"),
    "telling": ("embedding_pipeline.cli.summary", "day_rows"),
}
"""Where Ctrl-C is pressed: module and function, as the step begins."""

SMALL_FILES = 20 << 10
"""Bytes a file may grow to, on the disk that is full: less than any database."""


@contextlib.contextmanager
def pressed(module: str, name: str) -> Iterator[None]:
    """Ctrl-C as the function is called. Raises LookupError when nobody called it."""
    function = getattr(import_module(module), name)
    came = False

    def interrupted(*args: Any, **named: Any) -> Any:
        nonlocal came
        came = True
        signal.raise_signal(signal.SIGINT)
        return function(*args, **named)

    with mock.patch(f"{module}.{name}", interrupted):
        yield
    if not came:
        raise LookupError(f"{module}.{name} is no step any more; name the one in its place")


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file grows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tell(step: str, days: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(root, ["backfill", "--start", days[0], "--end", days[1], "--wait"])
    print(json.dumps([step, code, out.getvalue(), err.getvalue()]), flush=True)  # noqa: T201


if __name__ == "__main__":
    with full_disk():
        tell("full disk", sys.argv[1:])
    for step, (module, name) in STEPS.items():
        with pressed(module, name):
            tell(step, sys.argv[1:])
    tell("nothing", sys.argv[1:])
