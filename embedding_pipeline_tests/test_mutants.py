"""Small wrongs made on purpose are noticed; ``make mutate`` is the long form."""

import subprocess
import sys

import pytest

from benchmarks.mutate import KNOWN, ROOT, patience


def test_known_mutants_do_not_survive() -> None:
    command = [sys.executable, "-m", "benchmarks.mutate", "--known"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3600, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KNOWN)} of {len(KNOWN)} noticed" in done.stdout


@pytest.mark.parametrize(("usual", "seconds"), [(1.0, 20.0), (30.0, 120.0), (90.0, 240.0)])
def test_a_mutant_that_hangs_is_waited_for_by_the_measure_of_its_tests(
    usual: float, seconds: float
) -> None:
    assert patience(usual) == seconds
