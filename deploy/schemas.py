"""Both schemas brought up to date by one process: ``python -m deploy.schemas``.

Belongs here: calling Dagster's own migration and ``embedding-pipeline doctor --migrate``, whose
words are this program's. Does not belong here: any migration.
"""

import sys

import dagster as dg

from embedding_pipeline.cli.endings import FAILED, run
from embedding_pipeline.cli.root import root


def main() -> int:
    """Returns the exit code; what doctor finds wrong beside the schema is no failure here."""
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
    code = run(root, ["doctor", "--migrate"])
    return 0 if code == FAILED else code


if __name__ == "__main__":
    sys.exit(main())
