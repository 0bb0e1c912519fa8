"""Small wrongs made on purpose are noticed; ``make mutate`` is the long form."""

import subprocess
import sys

from benchmarks.mutate import KNOWN, ROOT


def test_known_mutants_do_not_survive() -> None:
    command = [sys.executable, "-m", "benchmarks.mutate", "--known"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=3600, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KNOWN)} of {len(KNOWN)} noticed" in done.stdout
