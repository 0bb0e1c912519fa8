"""A small project: four days of chunks in files, the fake API, and a Dagster instance."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.definitions import build_defs
from embedding_pipeline.defs.compat import range_tags
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
PATIENCE = 600.0
"""Seconds until a process is given up; it ends when it is done."""

ROWS = 12
DISTINCT = 10
"""Of the twelve rows of a day, ten are distinct, and two copies of the first."""


@dataclass(frozen=True)
class Project:
    """A folder that holds what a user's project holds."""

    root: Path
    api: FakeProcess

    @property
    def settings(self) -> Settings:
        """As a run would load them."""
        return load_settings()

    @property
    def datasets(self) -> Datasets:
        """What the runs wrote."""
        return build_datasets(self.settings)

    @property
    def home(self) -> Path:
        """Where Dagster's history is."""
        return self.root / "home"

    def source(self, day: str) -> Path:
        """The file with the day's chunks."""
        return self.root / "data" / f"{day}.jsonl"

    def break_day(self, day: str) -> None:
        """Nothing about this day can be read: its file became a folder."""
        self.source(day).unlink()
        self.source(day).mkdir()

    def mend_day(self, day: str) -> None:
        """Undo ``break_day``."""
        self.source(day).rmdir()
        write_day(self.source(day), day)

    def defs(self, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
        """The definitions, on these settings."""
        return build_defs(overrides, settings=self.settings)

    def run(
        self,
        instance: dg.DagsterInstance,
        *days: str,
        assets: Sequence[str] | None = None,
        overrides: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """One run of the job over one day, or over the days from the first to the last."""
        job = self.defs(overrides).resolve_job_def("embedding_job")
        single = len(days) == 1
        return job.execute_in_process(
            instance=instance,
            partition_key=days[0] if single else None,
            tags={**(tags or {}), **({} if single else range_tags(days[0], days[-1]))},
            asset_selection=[dg.AssetKey(name) for name in assets] if assets else None,
            raise_on_error=False,
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``python -m …`` in the project's folder, with its instance."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.root,
            env={**os.environ, "DAGSTER_HOME": str(self.root)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


def copy_instance(repository: Path, root: Path) -> None:
    """The project's own, where a run that starts slowly on a busy machine is not given up."""
    shutil.copy(repository / "workspace.yaml", root)
    instance = yaml.safe_load((repository / "dagster.yaml").read_text())
    instance["run_monitoring"]["start_timeout_seconds"] = 3600
    (root / "dagster.yaml").write_text(yaml.safe_dump(instance))


def write_day(path: Path, day: str) -> None:
    """Twelve rows of two projects, three of them the same text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(ROWS):
        text = f"row {number} of {day}" if number < DISTINCT else f"row 0 of {day}"
        rows.append(
            {
                "id": f"{day}-{number}",
                "document_id": f"doc-{number // 4}",
                "text": text,
                "project": "docs",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def project(
    tmp_path: Path,
    repository: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    """The project, and an environment in which it is the one that is meant."""
    made = Project(tmp_path, fake_openai_process)
    for day in DAYS:
        write_day(made.source(day), day)
    settings = {
        "partitions": {"start_date": DAYS[0]},
        "source": {"kind": "files", "path": str(tmp_path / "data" / "{date}.jsonl")},
        "embedding": {"model": "openai/text-embedding-3-small", "dimensions": 64},
        "retry": {"max_attempts": 2, "max_seconds": 5},
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    copy_instance(repository, tmp_path)
    monkeypatch.setenv("EMBEDDING_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    monkeypatch.setenv("OPENAI_BASE_URL", fake_openai_process.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return made


@pytest.fixture
def instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """A fresh instance on disk."""
    with open_instance(project.settings, project.home) as opened:
        yield opened
