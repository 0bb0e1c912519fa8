"""Where every measurement is made: a store, a fake API in a process of its own, and workers.

Belongs here: starting and ending them. Does not belong here: what is measured.

The fake API keeps a bucket of tokens and one of requests for the model: each holds a minute's
worth, is refilled without pause, is charged bytes / 4, and is reported exactly in the
``x-ratelimit-*`` headers. Answers take 0.3 s.
"""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from embedding_pipeline.assembly.planning import limits_now
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests import servers
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.limits import load
from embedding_pipeline_tests.limits.load import Load, Outcome, Work

LATENCY = 0.3
PATIENCE = 120.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One store and one server.

    Attributes:
        fake: the server.
        settings: a settings tree that leads to both.
    """

    fake: FakeProcess
    settings: dict[str, Any]

    def start(self, seconds: float, groups: Sequence[Sequence[Work]]) -> list[Any]:
        """One process for each group of callers."""
        return [load.start(Load(self.settings, seconds, works)) for works in groups]

    def run(self, seconds: float, groups: Sequence[Sequence[Work]]) -> tuple[float, Outcome]:
        """Let processes work; returns when they began, and all answers."""
        running = self.start(seconds, groups)
        try:
            began = load.go(running)
            outcomes = [load.finish(worker, seconds + PATIENCE) for worker in running]
        finally:
            for worker in running:
                if worker.poll() is None:
                    worker.kill()
        return began, load.merged(outcomes)

    def tokens_given(self, project: str) -> int:
        """Tokens for which a project got permits so far."""
        (found,) = asyncio.run(limits_now(load_settings(self.settings), SystemClock()))
        return sum(use.tokens for use in found.uses if use.project == project)

    @property
    def refused(self) -> int:
        """429s so far."""
        return self.fake.books.statuses["429"]


@contextmanager
def stage(
    kind: str,
    rpm: int,
    tpm: int,
    *,
    known: bool = True,
    tenants: Sequence[Mapping[str, Any]] = (),
    **limits: Any,
) -> Iterator[Stage]:
    """A fresh store of this kind (``sqlite``, ``postgres``, ``redis``) and a fresh server.

    Args:
        kind: of the store.
        rpm: requests a minute.
        tpm: tokens a minute.
        known: the settings name the limits; else they are learned.
        tenants: weights and priorities.
        limits: more settings of that section.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ep-"))
        settings: dict[str, Any] = {"data_dir": folder}
        if kind == "postgres":
            settings["state_url"] = stack.enter_context(servers.postgres())
        if kind == "redis":
            settings["redis_url"] = stack.enter_context(servers.redis())
        fake = stack.enter_context(process("--precomputed", "--latency", str(LATENCY)))
        fake.limit(rpm=rpm, tpm=tpm)
        named = {"requests_per_minute": rpm, "tokens_per_minute": tpm} if known else {}
        settings |= {
            "embedding": {"model": "openai/text-embedding-3-small"},
            "providers": [{"name": "openai", "kind": "openai", "base_url": fake.base_url}],
            "limits": {**named, **limits},
            "tenants": list(tenants),
        }
        yield Stage(fake, settings)
