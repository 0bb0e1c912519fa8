"""The command line: parses, calls, prints.

Belongs here: options, words for people, exit codes. Does not belong here: anything a
library user or the UI would miss if it were only here.
"""

import sys


def main() -> None:
    """Entry point of ``embedding-pipeline``."""
    from embedding_pipeline.cli.endings import run
    from embedding_pipeline.cli.root import root

    sys.exit(run(root, sys.argv[1:]))
