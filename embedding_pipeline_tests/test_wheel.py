"""The package as somebody gets it who has no checkout: built, installed, used in an empty folder.

Nothing is fetched: the environment is new and empty but for our wheel, and finds what the wheel
depends on where the tests have it.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedding_pipeline_tests.cli.conftest import FILES, Folder

SPACED = "an empty folder"


@dataclass(frozen=True)
class Built:
    """What ``hatchling build`` made of the checkout."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Installed:
    """An environment with our wheel in it, and an empty folder to work in."""

    programs: Path
    folder: Folder

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        guard = os.environ["PYTHONPATH"].split(os.pathsep)[0]  # no checkout, but no network either
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder.path,
            env={**os.environ, "PYTHONPATH": guard},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def ok(self, program: str, *arguments: str) -> str:
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def built(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist is of the checkout, and the wheel is of the sdist: both are whole."""
    place = tmp_path_factory.mktemp("dist")
    _build(repository, "sdist", place)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    _build(place / sdist.name.removesuffix(".tar.gz"), "wheel", place)
    (wheel,) = place.glob("*.whl")
    return Built(wheel, sdist)


def _build(source: Path, target: str, place: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(place)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed") / SPACED
    environment = place / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    site = environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--no-deps", "--no-index", "--no-compile", "-qq", "--disable-pip-version-check"]
    into = ["--python", str(python), "install", *options, str(built.wheel)]
    subprocess.run([sys.executable, "-m", "pip", *into], check=True)
    folder = place / "work"
    folder.mkdir()
    return Installed(python.parent, Folder(folder))


def test_the_wheel_is_the_package_and_nothing_else(repository: Path, built: Built) -> None:
    ours = {
        str(path.relative_to(repository))
        for path in (repository / "embedding_pipeline").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(built.wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    assert {name for name in names if ".dist-info/" not in name} == ours
    assert "embedding_pipeline/py.typed" in names
    assert {Path(name).suffix for name in ours} >= {".lua", ".j2", ".typed"}
    assert "Requires-Python: <3.15,>=3.11" in metadata
    assert "\nLicense-File: LICENSE\n" in metadata


def test_the_sdist_has_what_make_demo_wants_and_no_test(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames()}
    assert {"Makefile", "requirements.lock", "pipeline.yaml", "dagster.yaml", "LICENSE"} <= tops
    assert not {"embedding_pipeline_tests", "benchmarks", ".ci", ".venv"} & tops


def test_the_installed_program_says_its_version(repository: Path, installed: Installed) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    told = installed.ok("embedding-pipeline", "--version")
    assert told == f"embedding-pipeline {project['version']}\n"


def test_from_an_empty_folder_to_vectors(repository: Path, installed: Installed) -> None:
    """The commands of docs/start.md for a package: init, doctor, a run of Dagster's."""
    installed.ok("embedding-pipeline", "init")
    for name in ("pipeline.yaml", "dagster.yaml", "workspace.yaml"):
        assert (installed.folder.path / name).read_bytes() == (repository / name).read_bytes()
    installed.folder.settings(**FILES)
    installed.folder.rows("2026-01-01", "The cat sleeps on the sofa.", "How to parse a date.")
    again = installed.ok("embedding-pipeline", "init")
    assert "kept   pipeline.yaml" in again
    assert "data/{date}.jsonl" in (installed.folder.path / "pipeline.yaml").read_text()

    found = {
        one["subject"]: one
        for one in json.loads(installed.ok("embedding-pipeline", "doctor", "--json"))
    }
    assert found["dagster"]["message"].endswith(f"history in {installed.folder.path}")
    day = ("--select", "*", "--partition", "2026-01-01", "-m", "embedding_pipeline.definitions")
    installed.ok("python", "-W", "ignore", "-m", "dagster", "asset", "materialize", *day)
    data = installed.folder.path / ".embedding_pipeline"
    (vectors,) = data.glob("embeddings/*/2026-01-01.parquet")
    assert pq.read_metadata(vectors).num_rows == 2
    assert "site-packages" in installed.ok(
        "python", "-c", "import embedding_pipeline; print(embedding_pipeline.__file__)"
    )
