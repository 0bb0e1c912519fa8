"""An empty folder of datasets."""

from pathlib import Path

import pytest

from embedding_pipeline.vectors.datasets import Datasets


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path / "data")
