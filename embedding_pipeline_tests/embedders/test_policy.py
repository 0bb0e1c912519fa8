"""Every answer known from the wild means one thing, whatever its wording."""

import json
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.clock import utc
from embedding_pipeline.embedders.policy import (
    MOST_RETRY_AFTER,
    Refusal,
    classify,
    retry_after,
    to_error,
    word,
)
from embedding_pipeline.errors import (
    InputRefused,
    KeyExhausted,
    ProviderError,
    ProviderRefused,
    RateLimited,
    RateRampTooSteep,
    RequestTooLarge,
    TransientProviderError,
)
from embedding_pipeline_tests.fake_openai.faults import QUOTA, REFUSALS, Fault
from embedding_pipeline_tests.fake_openai.rules import MODELS, Request

MEANINGS: dict[str, type[ProviderError]] = {
    "400_input": InputRefused,
    "400_input_index": InputRefused,
    "400_context_length": InputRefused,
    "400_array_length": InputRefused,
    "400_request_tokens": RequestTooLarge,
    "400_dimensions": ProviderRefused,
    "401_key": ProviderRefused,
    "401_address": ProviderRefused,
    "403_region": ProviderRefused,
    "404_model": ProviderRefused,
    "408": TransientProviderError,
    "409": TransientProviderError,
    "413": RequestTooLarge,
    "422_echo": InputRefused,
    "429_requests": RateLimited,
    "429_tokens": RateLimited,
    "429_too_large": RequestTooLarge,
    "429_slow_down": RateRampTooSteep,
    "429_text": RateLimited,
    "429_azure": RateLimited,
    "500": TransientProviderError,
    "500_empty": TransientProviderError,
    "502_html": TransientProviderError,
    "503_overloaded": RateRampTooSteep,
    "503_server_error": TransientProviderError,
    "503_slow_down": RateRampTooSteep,
    "504_html": TransientProviderError,
    "520_html": TransientProviderError,
} | {f"429_{code}": KeyExhausted for code in QUOTA}

REQUEST = Request(MODELS["text-embedding-3-small"], ["a", "b POISON", "c"], 1536, True, 3, 3)


def refusal_of(kind: str) -> Refusal:
    answer = REFUSALS[kind](Fault(kind, marker="POISON"), REQUEST)
    try:
        error = json.loads(answer.body).get("error", {})
    except ValueError:
        error = {}
    return Refusal(
        answer.status,
        error.get("type"),
        error.get("code"),
        error.get("param"),
        error.get("message", ""),
    )


def test_every_refusal_the_fake_knows_has_a_meaning_here() -> None:
    assert MEANINGS.keys() == REFUSALS.keys()


@pytest.mark.parametrize("kind", MEANINGS)
def test_meaning(kind: str) -> None:
    assert classify(refusal_of(kind)).error is MEANINGS[kind]


@pytest.mark.parametrize("kind", sorted(MEANINGS.keys() - {"429_too_large"}))
def test_the_message_does_not_decide(kind: str) -> None:
    """Only one refusal is known by nothing but its message."""
    refusal = refusal_of(kind)
    reworded = Refusal(
        refusal.status, refusal.type, refusal.code, refusal.param, "Oops. 429 quota!"
    )
    assert classify(reworded).error is MEANINGS[kind]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal(429), RateLimited),
        (
            Refusal(429, code="rate_limit_exceeded", message="slow down, request too large"),
            RateLimited,
        ),
        (Refusal(400, "invalid_request_error", "billing_hard_limit_reached"), KeyExhausted),
        (Refusal(402), KeyExhausted),
        (Refusal(403, "insufficient_quota", "insufficient_quota"), KeyExhausted),
        (Refusal(400, param="input"), InputRefused),
        (Refusal(400, param="model"), ProviderRefused),
        (Refusal(422), InputRefused),
        (Refusal(301), ProviderRefused),
        (Refusal(307), ProviderRefused),
        (Refusal(405), ProviderRefused),
        (Refusal(418), ProviderRefused),
        (Refusal(425), TransientProviderError),
        (Refusal(599), TransientProviderError),
    ],
)
def test_meanings_the_fake_does_not_show(refusal: Refusal, error: type[ProviderError]) -> None:
    assert classify(refusal).error is error


def test_the_named_input_is_found() -> None:
    assert classify(refusal_of("400_input_index")).input_index == 1
    assert classify(refusal_of("400_input")).input_index is None
    assert classify(Refusal(400, message="input[99999999999]")).input_index is None


@pytest.mark.parametrize(
    ("kind", "maybe_billed"),
    [
        ("400_input", False),
        ("429_tokens", False),
        ("500", True),
        ("502_html", True),
        ("503_overloaded", False),
    ],
)
def test_what_may_have_been_billed(kind: str, maybe_billed: bool) -> None:
    assert to_error(refusal_of(kind), "openai").fault.maybe_billed is maybe_billed


@given(
    st.integers(300, 599),
    st.one_of(st.none(), st.text(max_size=30)),
    st.one_of(st.none(), st.text(max_size=30)),
    st.text().map("PRIVATE {}".format),
)
def test_any_answer_has_a_meaning_that_repeats_no_message(
    status: int, type_: str | None, code: str | None, message: str
) -> None:
    error = to_error(Refusal(status, word(type_), word(code), None, message), "openai")
    assert "PRIVATE" not in str(error)
    assert str(status) in str(error)
    assert error.fault.status == status


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        (429, "429"),
        (None, None),
        (True, None),
        (["x"], None),
        ("some sentence of the text", None),
        ("x" * 81, None),
        ("", None),
    ],
)
def test_only_plain_words_are_taken_from_a_body(value: object, kept: str | None) -> None:
    assert word(value) == kept


NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e12"}, MOST_RETRY_AFTER),
        ({"retry-after": "inf"}, MOST_RETRY_AFTER),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": format_datetime(utc(NOW + 90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(utc(NOW - 90), usegmt=True)}, 0.0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, MOST_RETRY_AFTER),
    ],
)
def test_how_long_the_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=40)))
def test_any_header_is_bounded_or_ignored(headers: dict[str, str]) -> None:
    found = retry_after(headers, NOW)
    assert found is None or 0 <= found <= MOST_RETRY_AFTER
