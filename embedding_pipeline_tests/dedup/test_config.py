"""The settings of deduplication."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedding_pipeline.dedup.config import HASHES, MISSED, DedupConfig, banding


def test_near_duplicates_within_day_and_project_are_found_by_default() -> None:
    assert DedupConfig().model_dump() == {
        "near": True,
        "threshold": 0.9,
        "scope_days": 0,
        "within_project": True,
    }


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 0}, {"threshold": 1.1}, {"scope_days": -1}, {"scope_days": 367}, {"fuzzy": 1}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        DedupConfig.model_validate(wrong)


@given(st.floats(0.01, 1))
def test_bands_miss_hardly_any_pair_at_the_threshold(threshold: float) -> None:
    chosen = banding(threshold)
    assert chosen.bands * chosen.rows <= HASHES
    assert chosen.bands >= 1
    # the shortest bands are the best there is
    assert 1 - chosen.found(threshold) <= MISSED or chosen.rows == 1


@given(st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1))
def test_what_is_more_alike_is_found_more_surely(
    threshold: float, one: float, other: float
) -> None:
    chosen = banding(threshold)
    assert chosen.found(min(one, other)) <= chosen.found(max(one, other))


@pytest.mark.parametrize(
    ("threshold", "bands", "rows"),
    [(0.5, 64, 2), (0.6, 42, 3), (0.7, 32, 4), (0.8, 25, 5), (0.9, 16, 8)],
)
def test_the_bands_are_those_that_are_documented(threshold: float, bands: int, rows: int) -> None:
    chosen = banding(threshold)
    assert (chosen.bands, chosen.rows) == (bands, rows)


def test_without_near_duplicates_there_are_no_bands() -> None:
    assert DedupConfig(near=False).banding.bands == 0
