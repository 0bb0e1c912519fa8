"""Seeds of the simulation, the short form; ``make simulate SEEDS=…`` is the long one."""

import math
import os
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
from embedding_pipeline_tests.simulation.census import FEW, LEAST, hollow
from embedding_pipeline_tests.simulation.machine import no_collector

BLOCKS, BLOCK = 5, 400
"""Processes, and seeds in each: always the same ones."""

KEPT = Path(__file__).with_name("kept_seeds.txt")
"""Seeds that once broke a law, and by which bug."""


def kept_seeds() -> list[str]:
    lines = KEPT.read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def simulate(*arguments: str, hashes: str = "random") -> str:
    command = [sys.executable, "-m", "embedding_pipeline_tests.simulation", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hashes}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3600, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_law_holds_whatever_happens_and_enough_does(block: int) -> None:
    said = simulate("--first", str(block * BLOCK), "--seeds", str(BLOCK))
    assert f"{BLOCK} seeds" in said
    assert "killed with a request out" in said


def test_seeds_in_which_too_little_happens_are_refused() -> None:
    enough = {kind: math.ceil(percent * 5) for kind, percent in LEAST.items()}
    assert hollow(enough, 500) == []
    assert [words.split(":")[0] for words in hollow({}, 500)] == list(LEAST)
    assert hollow({**enough, "killed": 74}, 500) == [
        "killed: 74 of 500 seeds, at least 15 % are needed"
    ]
    assert hollow({}, FEW - 1) == []


def test_seeds_that_once_broke_a_law_do_so_no_more() -> None:
    seeds = kept_seeds()
    assert f"{len(seeds)} seeds" in simulate("--wide", "--only", *seeds)


def test_a_seed_is_the_same_story_in_every_process() -> None:
    first, second = (simulate("--wide", "--replay", "7", hashes=hashes) for hashes in ("1", "2"))
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


def _first_broken(seeds: int) -> str:
    """What the first seed says that breaks a law; the world it was in is let go of."""
    for seed in range(seeds):
        if broken := play(seed).broken:
            return broken
    return ""


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found_within_few_seeds(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, wrong, law = BUGS[bug]
    monkeypatch.setattr(module, name, wrong)
    with no_collector():
        broken = _first_broken(40)
    assert f"{law}:" in broken
