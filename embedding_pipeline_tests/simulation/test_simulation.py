"""Seeds of the simulation, the short form; ``make simulate SEEDS=…`` is the long one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline.cache import claims, database
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.affording import Verdict
from embedding_pipeline.service import flying, purse
from embedding_pipeline_tests.simulation.acting import play
from embedding_pipeline_tests.simulation.machine import no_collector

BLOCK = 80
"""Seeds in one process."""

KEPT = Path(__file__).with_name("kept_seeds.txt")
"""Seeds that once broke a law, and by which bug."""


def kept_seeds() -> list[str]:
    lines = KEPT.read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def simulate(*arguments: str) -> str:
    command = [sys.executable, "-m", "embedding_pipeline_tests.simulation", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("block", range(2))
def test_every_law_holds_whatever_happens(block: int) -> None:
    said = simulate("--first", str(block * BLOCK), "--seeds", str(BLOCK))
    assert f"{BLOCK} seeds" in said


def test_seeds_that_once_broke_a_law_do_so_no_more() -> None:
    seeds = kept_seeds()
    assert f"{len(seeds)} seeds" in simulate("--only", *seeds)


def test_a_seed_is_the_same_story_in_every_process() -> None:
    first, second = (simulate("--replay", "7") for _ in range(2))
    assert first == second
    assert "is asked by" in first


def _afford_everything(asks: Any, rooms: Any) -> Verdict:
    return Verdict(range(len(asks)))


def _nothing(*_: Any, **__: Any) -> Any:
    return set()


BUGS: dict[str, tuple[object, str, Callable[..., Any], str]] = {
    "budgets are not asked": (purse, "afford", _afford_everything, "I3"),
    "lost calls are not booked": (flying, "_book_lost", _nothing, "I4"),
    "what is stored is bought": (database, "existing", _nothing, "I5"),
    "keys are not claimed": (claims, "claim", _nothing, "I4"),
    "the dead hold on to their keys": (flights, "expire", lambda *_: 0, "I9"),
}
"""Where each is, and the law it breaks."""


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found_within_few_seeds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, wrong, law = BUGS[bug]
    monkeypatch.setattr(module, name, wrong)
    with no_collector():
        endings = (play(seed) for seed in range(40))
        broken = next((ending.broken for ending in endings if ending.broken), "")
    assert f"{law}:" in broken
