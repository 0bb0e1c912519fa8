"""Both schemas brought up to date by one process: ``python -m deploy.schemas``.

Belongs here: calling Dagster's own migration and ours, and telling what ``doctor`` finds wrong
before the workers are there. Does not belong here: any migration.
"""

import dagster as dg

from embedding_pipeline.assembly.parts import open_store
from embedding_pipeline.cli.doctor import examine, show
from embedding_pipeline.cli.findings import Status
from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.settings.loading import load_settings


def main() -> None:
    """Raises SystemExit when a schema stays as it was."""
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
    try:
        with open_store(load_settings()):
            pass
    except EmbeddingPipelineError as error:
        raise SystemExit(str(error)) from error
    for finding in examine(leaving_out={"workers"}):
        if finding.status is not Status.OK:
            show(finding)


if __name__ == "__main__":
    main()
