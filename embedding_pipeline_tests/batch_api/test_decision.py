"""Batch or one request at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.batch_api.decision import decide, enqueueable, overdue

AUTO = BatchApiConfig(mode="auto", deadline_hours=36, min_tokens=1000)


@pytest.mark.parametrize(
    ("given", "mode"), [("auto", "auto"), (True, "on"), (False, "off"), ({"mode": "on"}, "on")]
)
def test_a_bare_word_is_the_mode(given: object, mode: str) -> None:
    assert BatchApiConfig.model_validate(given).mode == mode


def test_what_is_no_mode_is_refused() -> None:
    with pytest.raises(ValidationError):
        BatchApiConfig.model_validate("sometimes")


def test_auto_sends_what_is_worth_it() -> None:
    verdict = decide(AUTO, 1000, 20, 10)
    assert (verdict.way, verdict.saved_nano) == ("batch", 10_000)
    assert decide(AUTO, 999, 20, 10).way == "sync"
    assert decide(AUTO, 1000, 20, 20).way == "sync"
    hurried = AUTO.model_copy(update={"deadline_hours": 23.9})
    assert decide(hurried, 1000, 20, 10).way == "sync"


@given(
    mode=st.sampled_from(["off", "on", "auto"]),
    tokens=st.integers(0, 10**9),
    price=st.none() | st.integers(0, 200),
    batch_price=st.none() | st.integers(0, 200),
    hours=st.floats(0.1, 100),
)
def test_a_batch_is_only_chosen_where_there_may_be_one(
    mode: str, tokens: int, price: int | None, batch_price: int | None, hours: float
) -> None:
    config = BatchApiConfig.model_validate({"mode": mode, "deadline_hours": hours})
    verdict = decide(config, tokens, price, batch_price)
    if mode == "off" or batch_price is None:
        assert verdict.way == "sync"
    elif mode == "on":
        assert verdict.way == "batch"
    elif verdict.way == "batch":
        assert tokens >= config.min_tokens
        assert hours >= 24
    assert verdict.reason


def test_the_deadline_counts_from_the_opening() -> None:
    hour = 3_600_000
    assert not overdue(AUTO, 5 * hour, 41 * hour - 1)
    assert overdue(AUTO, 5 * hour, 41 * hour)


def test_the_queue_is_not_filled_to_the_brim() -> None:
    assert enqueueable(BatchApiConfig(enqueued_tokens=1_000_000)) == 650_000
