"""What becomes of a question when the answer is yes, no, nothing, or Ctrl-C."""

import subprocess
import sys

import pytest

ASK = """
import sys
import click
from embedding_pipeline.cli.asking import go_on
from embedding_pipeline.cli.endings import run

command = click.Command("x", callback=lambda: (go_on("Sure?"), click.echo("gone")))
sys.exit(run(command, []))
"""


@pytest.mark.parametrize(
    ("typed", "code", "out", "err"),
    [
        ("y\n", 0, "gone", "Sure?"),
        ("n\n", 1, "", "Nothing was done."),
        ("\n", 1, "", "Nothing was done."),
        ("", 2, "", "add --yes"),
    ],
)
def test_an_answer(typed: str, code: int, out: str, err: str) -> None:
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, input=typed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, out)
    assert err in done.stderr
