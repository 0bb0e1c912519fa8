"""``make bench`` in small: it measures, keeps, and writes its page; nothing hangs it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from benchmarks.peers import page, results, running
from benchmarks.peers.environments import PACKAGES, PINS
from benchmarks.peers.scenarios import SCENARIOS, Column
from benchmarks.peers.stage import Bench, Row, Size, TimeUp
from embedding_pipeline_tests.fake_openai.process import FakeProcess


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Client(Strict):
    figures: dict[str, list[float]]
    note: str


class Machine(Strict):
    cores: int
    processor: str
    memory_gb: int
    system: str
    python: str


class Measured(Strict):
    title: str
    date: str
    machine: Machine
    load: float
    chunks: int
    clients: dict[str, Client]


class Form(Strict):
    format: int
    versions: dict[str, dict[str, str]]
    left_out: dict[str, str]
    scenarios: dict[str, Measured]


def test_a_tiny_run_measures_keeps_and_writes(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("before\n<!-- bench -->\n<!-- /bench -->\nafter\n")
    command = [sys.executable, "-m", "benchmarks.peers", "A", "E", "F", "--quick", "--rounds", "1"]
    places = ["--patience", "400", "--docs", str(tmp_path), "--readme", str(tmp_path / "README.md")]
    done = subprocess.run(
        [*command, *places, "--clients", "ours"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    kept = Form.model_validate_json((tmp_path / "benchmarks.json").read_bytes())
    found = {letter: kept.scenarios[letter].clients["ours"].figures for letter in "AEF"}
    assert found["A"]["CPU"][0] > 0
    assert found["E"]["wrong"] == found["E"]["misaligned"] == [0]
    assert found["F"]["billed again"][0] > 0
    assert found["F"]["of what was answered"] == [0]
    assert found["E"]["embedded"] == found["F"]["embedded"] == [1]
    assert "## F: a kill" in (tmp_path / "benchmarks.md").read_text()
    assert "CPU per 1,000" in (tmp_path / "README.md").read_text()


def test_the_page_is_what_its_results_say(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "README.md", tmp_path)
    text = (repository / "docs" / "benchmarks.json").read_text()
    Form.model_validate_json(text)
    page.write(json.loads(text), tmp_path, tmp_path / "README.md")
    for written in (*tmp_path.glob("*.md"), *tmp_path.glob("_static/*.svg")):
        folder = repository if written.name == "README.md" else repository / "docs"
        assert written.read_text() == (folder / written.relative_to(tmp_path)).read_text()


def test_every_other_client_is_pinned_to_the_last_package() -> None:
    for client in PACKAGES.keys() - {"ours"}:
        pins = (PINS / f"{client.lower().replace(' ', '-')}.txt").read_text()
        assert all("==" in line for line in pins.splitlines())
        assert all(f"\n{name}==" in f"\n{pins}" for name in PACKAGES[client])


@pytest.fixture
def stuck(tmp_path: Path) -> Path:
    """An interpreter that never ends."""
    file = tmp_path / "stuck"
    file.write_text("#!/bin/sh\nexec sleep 3600\n")
    file.chmod(0o755)
    return file


def test_a_client_that_hangs_is_ended_and_reported(stuck: Path, tmp_path: Path) -> None:
    with Bench({"stuck": str(stuck)}, Size(), patience=0.0) as bench:
        client = bench.start("stuck", FakeProcess(9), str(tmp_path), 1)
        made = bench.finish(client)
    assert made.error == "not done after 1 s"
    assert client.process.returncode == -9


def test_nothing_is_left_behind_when_it_is_stopped(stuck: Path, tmp_path: Path) -> None:
    with Bench({"stuck": str(stuck)}, Size()) as bench:
        client = bench.start("stuck", FakeProcess(9), str(tmp_path), 1)
    assert client.process.returncode == -9


def test_the_end_of_all_time_is_not_a_clients_fault(stuck: Path, tmp_path: Path) -> None:
    with Bench({"stuck": str(stuck)}, Size(), minutes=0) as bench:
        client = bench.start("stuck", FakeProcess(9), str(tmp_path), 1)
        with pytest.raises(TimeUp):
            bench.finish(client)
    assert client.process.returncode == -9


def test_what_there_is_no_time_for_keeps_its_figures(tmp_path: Path) -> None:
    found = results_of({"ours": [1.0]})
    with Bench({}, Size(), minutes=0) as bench:
        running.run(
            bench, list(running.turns("A", ["ours"], 1)), found, running.Places(tmp_path, None)
        )
    assert found == results_of({"ours": [1.0]})


def test_turns_are_interleaved() -> None:
    plan = [(turn.client, turn.round) for turn in running.turns("A", ["ours", "other"], 2)]
    assert plan == [("ours", 0), ("other", 0), ("ours", 1), ("other", 1)]


def test_a_wrong_of_one_client_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(bench: Bench, client: str) -> Row:
        if client == "ours":
            raise ValueError("no such luck")
        return Row({"time": 1.5})

    monkeypatch.setitem(SCENARIOS, "B", replace(SCENARIOS["B"], measure=measure))
    found = results_of({})
    with Bench({}, Size()) as bench:
        plan = list(running.turns("B", ["ours", "other"], 1))
        running.run(bench, plan, found, running.Places(tmp_path, None))
    clients = found["scenarios"]["B"]["clients"]
    assert clients["ours"] == {"figures": {}, "note": "not measured: ValueError: no such luck"}
    assert clients["other"] == {"figures": {"time": [1.5]}, "note": ""}
    assert "no such luck" in (tmp_path / "benchmarks.md").read_text()


def results_of(cpu: dict[str, list[float]], **more: dict[str, list[float]]) -> results.Results:
    """Results of scenario A with these CPU seconds; ``more`` are further figures of a client."""
    found: dict[str, Any] = {"format": 1, "versions": {}, "left_out": {}, "scenarios": {}}
    results.begin(found, "A", SCENARIOS["A"].title, Size())
    found["scenarios"]["A"] |= {"date": "2026-01-01", "load": 0.0}
    for client, figures in cpu.items():
        for number, value in enumerate(figures):
            results.add(found, "A", client, Row({"CPU": value}), first=number == 0)
        found["scenarios"]["A"]["clients"][client]["figures"] |= more.get(client, {})
    return found


def test_figures_of_another_size_are_not_mixed_in() -> None:
    found = results_of({"ours": [1.0], "other": [2.0]})
    results.begin(found, "A", "again", Size())
    assert set(found["scenarios"]["A"]["clients"]) == {"ours", "other"}
    results.begin(found, "A", "larger", Size(chunks=Size().chunks + 1))
    assert not found["scenarios"]["A"]["clients"]


def test_where_others_are_better_is_found_by_comparing() -> None:
    shown = results_of({"ours": [1.0, 1.2], "quick": [0.5, 0.6], "near": [0.97, 1.1], "slow": [2]})
    (loss,) = page.losses(shown)
    assert "quick 0.55; ours 1.1" in loss
    assert "near" not in loss
    idle = results_of({"ours": [1.0], "idle": [0.1]}, idle={"embedded": [0.4]})
    assert not list(page.losses(idle))


@pytest.mark.parametrize(
    ("theirs", "less", "better"),
    [([2.0], True, False), ([2.0], False, True), ([0.5], True, True), ([0.5], None, False)],
)
def test_more_is_better_where_the_column_says_so(
    theirs: list[float], less: bool | None, better: bool
) -> None:
    assert page.is_better(theirs, [1.0], Column("x", less=less)) is better
