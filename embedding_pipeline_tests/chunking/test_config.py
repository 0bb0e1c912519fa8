"""Settings of chunking."""

import pytest
from pydantic import ValidationError

from embedding_pipeline.chunking.config import ChunkingConfig


def test_defaults() -> None:
    assert (ChunkingConfig().max_tokens, ChunkingConfig().overlap_tokens) == (512, 64)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 15}, "greater than or equal to 16"),
        ({"overlap_tokens": -1}, "greater than or equal to 0"),
        ({"max_tokens": 64}, "must be smaller than max_tokens"),
        ({"max_tokens": 100, "overlap_tokens": 100}, "must be smaller than max_tokens"),
        ({"size": 5}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ChunkingConfig.model_validate(values)
