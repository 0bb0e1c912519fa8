"""Dagster's own commands, as a person types them in the project's folder."""

from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster._cli import create_dagster_cli

from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline_tests.defs.books import check_statuses, materializations
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, Project
from embedding_pipeline_tests.defs.daemon import daemon, until

MODULE = ("-m", "embedding_pipeline.definitions")
GRAPH = "raw_chunks,deduped_chunks,embeddings,cost_summary"
MATERIALIZE = ("dagster", "asset", "materialize", *MODULE, "--select", GRAPH)


@contextmanager
def the_instance(project: Project) -> Iterator[dg.DagsterInstance]:
    """What the commands wrote to; the paths in dagster.yaml start at the folder."""
    with chdir(project.root), open_instance(project.settings, project.root) as opened:
        yield opened


def test_materialize_takes_a_day_and_a_range_of_days_and_keeps_the_folder_tidy(
    project: Project,
) -> None:
    one = project.command(*MATERIALIZE, "--partition", DAYS[0])
    assert one.returncode == 0, one.stderr[-2000:]
    some = project.command(*MATERIALIZE, "--partition-range", f"{DAYS[1]}...{DAYS[3]}")
    assert some.returncode == 0, some.stderr[-2000:]
    with the_instance(project) as instance:
        assert sorted(materializations(instance, "cost_summary")) == list(DAYS)
        statuses = check_statuses(instance, "embeddings", "single_space")
        assert statuses == {day: ["SUCCEEDED"] for day in DAYS}
    assert sum(project.api.books.billed.values()) == len(DAYS) * DISTINCT
    assert {entry.name for entry in project.root.iterdir()} == {
        ".embedding_pipeline",
        "dagster.yaml",
        "data",
        "pipeline.yaml",
        "workspace.yaml",
    }
    for said in (one, some):
        assert "Warning" not in said.stderr.replace("SupersessionWarning", "")


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Dagster's program without a process of its own."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))

    def run(*arguments: str) -> Result:
        program = create_dagster_cli()  # type: ignore[no-untyped-call]
        return CliRunner().invoke(program, arguments[1:])

    return run


def test_a_failed_run_is_a_failed_command(project: Project, inside: Callable[..., Result]) -> None:
    project.break_day(DAYS[0])
    failed = inside(*MATERIALIZE, "--partition", DAYS[0])
    assert failed.exit_code != 0
    with the_instance(project) as instance:
        (run,) = instance.get_runs()
    assert run.is_failure


def test_a_day_before_the_first_is_refused(inside: Callable[..., Result]) -> None:
    refused = inside(*MATERIALIZE, "--partition", "2025-12-31")
    assert refused.exit_code != 0
    assert "2025-12-31" in str(refused.exception)


@pytest.mark.slow
def test_a_backfill_of_the_job_is_run_by_a_real_daemon(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    days = ",".join(DAYS[:3])
    job = ("dagster", "job", "backfill", "-w", "workspace.yaml", "-j", "embedding_job")
    queued = project.command(*job, "--partitions", days, "--noprompt")
    assert queued.returncode == 0, queued.stderr[-2000:]
    with the_instance(project) as instance, daemon(project.root):
        until(lambda: all(run.is_finished for run in instance.get_runs()), "three runs")
        statuses = [run.status.value for run in instance.get_runs()]
        log = (project.root / "daemon.log").read_text()
        assert statuses == ["SUCCESS"] * 3, log[-3000:]
        assert sorted(materializations(instance, "cost_summary")) == list(DAYS[:3])
        checks = check_statuses(instance, "embeddings", "every_chunk_accounted_for")
        assert checks == {day: ["SUCCEEDED"] for day in DAYS[:3]}
    assert project.api.books.billed_twice == 0
