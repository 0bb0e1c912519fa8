"""The command line without a process of its own: everything but the start of Python."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from embedding_pipeline.cli.endings import run
from embedding_pipeline.cli.root import root
from embedding_pipeline_tests.cli.conftest import Folder


@dataclass(frozen=True)
class InsideFolder(Folder):
    """A working directory whose commands run in this process; ``typed`` is what they read."""

    typed: str = ""

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.path),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "stdin", io.StringIO(self.typed)),
            mock.patch.dict(os.environ, environment),
        ):
            code = run(root, arguments)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
