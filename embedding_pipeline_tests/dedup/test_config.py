"""The settings of deduplication."""

import pytest
from pydantic import ValidationError

from embedding_pipeline.dedup.config import DedupConfig


def test_by_default_only_exact_and_normalised_copies_count() -> None:
    assert DedupConfig().model_dump() == {"near": False, "threshold": 0.9, "scope_days": 0}


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0}, {"threshold": 1.1}, {"scope_days": -1}, {"fuzzy": True}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DedupConfig.model_validate(wrong)
