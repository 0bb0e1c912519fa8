"""Whatever happens in a command becomes one message and the right exit code."""

import os
import subprocess
import sys

import click
import pytest

from embedding_pipeline import errors
from embedding_pipeline.cli.endings import BUG, EXIT_CODES, FAILED, INTERRUPTED, run
from embedding_pipeline_tests.cli.conftest import PROGRAM, Folder


def _raising(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--debug", is_flag=True, expose_value=False)
    def command() -> None:
        raise error

    return command


def _tree(kind: type[errors.EmbeddingPipelineError]) -> list[type[errors.EmbeddingPipelineError]]:
    return [kind, *(child for below in kind.__subclasses__() for child in _tree(below))]


def test_every_error_of_ours_has_a_documented_exit_code() -> None:
    documented = {code for code, _ in EXIT_CODES}
    kinds = _tree(errors.EmbeddingPipelineError)
    assert len(kinds) > 20
    assert {kind.exit_code for kind in kinds} <= documented


@pytest.mark.parametrize(
    "error",
    [
        errors.SettingsError("pipeline.yaml: colour: no such setting"),
        errors.SourceError("data/ may not be read"),
        errors.StateError("the disk is full"),
        errors.DataError("2026-01-01 is damaged"),
        errors.BudgetExceeded("month: 100 USD"),
        errors.ProviderRefused("the key is wrong", errors.ProviderFault("openai", 401)),
    ],
)
def test_our_errors_are_one_message(
    error: errors.EmbeddingPipelineError, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_raising(error), []) == error.exit_code
    assert capsys.readouterr().err == f"Error: {error}\n"


def test_debug_shows_where_an_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    run(_raising(errors.DataError("damaged")), ["--debug"])
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.endswith("Error: damaged\n")


def test_a_bug_is_called_a_bug_and_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_raising(ZeroDivisionError("division by zero")), []) == BUG
    told = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in told
    assert "bug" in told
    assert "--debug" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_one_line(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_raising(error), []) == INTERRUPTED
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_wrong_usage_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_raising(ValueError()), ["--nonsense"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_command_may_return_its_exit_code() -> None:
    assert run(click.command()(lambda: 3), []) == 3


def test_help_names_every_exit_code(outside: Folder) -> None:
    shown = outside.run("--help")
    assert shown.returncode == 0
    for code, meaning in EXIT_CODES:
        assert f"{code:>3}  {meaning}" in shown.stdout


def test_version(outside: Folder) -> None:
    assert outside.run("--version").stdout.startswith("embedding-pipeline ")


def test_a_reader_that_goes_away_ends_it_quietly(done: Folder) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        outcome = subprocess.run(
            [*PROGRAM, "costs"], cwd=done.path, stdout=nobody, stderr=subprocess.PIPE, check=False
        )
    assert (outcome.returncode, outcome.stderr) == (FAILED, b"")


def test_help_loads_nothing_heavy() -> None:
    heavy = ("pydantic", "pyarrow", "dagster", "rich", "sqlalchemy", "pandas")
    code = (
        "import sys\n"
        "from embedding_pipeline.cli.endings import run\n"
        "from embedding_pipeline.cli.root import root\n"
        "run(root, ['--help'])\n"
        f"sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
