"""The command line: parses, calls, prints.

Belongs here: options, words for people, exit codes. Does not belong here: anything a
library user or the UI would miss if it were only here.
"""

import sys


def main() -> None:
    """Entry point of ``embedding-pipeline``."""
    try:
        from embedding_pipeline.cli.endings import run
        from embedding_pipeline.cli.root import root
    except KeyboardInterrupt:  # before there is anything that could tell it better
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    sys.exit(run(root, sys.argv[1:]))
