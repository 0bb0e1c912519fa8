"""The order of runs, and what is kept of them as they go.

Belongs here: rounds, interleaved, so that a slow minute of the machine meets every client; the
results and the page, written anew after every run, so that whoever stops it loses one run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import page, results
from benchmarks.peers.cells import number
from benchmarks.peers.scenarios import SCENARIOS, column
from benchmarks.peers.stage import Bench, Row, TimeUp

SCARCE_SECONDS = 5.0
"""With less time left, nothing is begun any more."""


@dataclass(frozen=True)
class Turn:
    """One client in one scenario, once."""

    letter: str
    client: str
    round: int


@dataclass(frozen=True)
class Places:
    """Where results go: ``docs/benchmarks.json``, the page beside it, the README's line."""

    docs: Path
    readme: Path | None


def turns(letters: Sequence[str], clients: Sequence[str], rounds: int | None) -> Iterator[Turn]:
    """Every turn in order: scenario by scenario, round by round, client by client."""
    for letter in letters:
        scenario = SCENARIOS[letter]
        extra = scenario.extra if "ours" in clients else ()
        everyone = [*clients[:1], *extra, *clients[1:]]
        for number_of in range(rounds or scenario.rounds):
            yield from (Turn(letter, client, number_of) for client in everyone)


def run(bench: Bench, plan: Sequence[Turn], found: results.Results, places: Places) -> None:
    """Take every turn there is time for."""
    begun = ""
    for turn in plan:
        if bench.seconds_left < SCARCE_SECONDS:
            print("The time is up; the rest is left as it was.", flush=True)
            return
        scenario = SCENARIOS[turn.letter]
        if turn.letter != begun:
            begun = turn.letter
            print(f"{begun}: {scenario.title}", flush=True)
            results.begin(found, begun, scenario.title, bench.size)
        try:
            row = _measured(bench, turn)
        except TimeUp:
            print("The time is up; the rest is left as it was.", flush=True)
            return
        results.add(found, turn.letter, turn.client, row, first=turn.round == 0)
        print(f"  {turn.client:14} {_words(turn.letter, row)}", flush=True)
        results.save(found, places.docs / "benchmarks.json")
        page.write(found, places.docs, places.readme)


def _measured(bench: Bench, turn: Turn) -> Row:
    """What came of it; a wrong of the benchmark's own is told and costs one row."""
    try:
        return SCENARIOS[turn.letter].measure(bench, turn.client)
    except (OSError, ValueError, RuntimeError) as exc:
        return Row(note=f"not measured: {type(exc).__name__}: {exc}"[:160])


def _words(letter: str, row: Row) -> str:
    said = [
        f"{column(letter, name).title} {number(value, column(letter, name))}"
        for name, value in row.figures.items()
    ]
    return ", ".join([*said, row.note] if row.note else said)
