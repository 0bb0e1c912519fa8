"""An empty folder of datasets."""

from pathlib import Path

import pytest

from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.google_store import gcs_bucket, gcs_server
from embedding_pipeline_tests.object_store import s3_bucket, s3_server

__all__ = ["datasets", "gcs_bucket", "gcs_server", "s3_bucket", "s3_server"]


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path / "data")
