"""An empty folder of datasets, and the fake API."""

from pathlib import Path

import pytest

from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.fake_openai.fixtures import fake_openai  # noqa: F401 - fixture


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path / "data")
