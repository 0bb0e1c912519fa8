"""The bad texts of a request are found, the good ones delivered once, at a bounded price."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import InputRefused, InvalidReply, ProviderError, RequestTooLarge
from embedding_pipeline.service.isolating import Piece, Splittable, blame, halves, refusal_of
from embedding_pipeline.service.work import Item
from embedding_pipeline_tests.service.harness import fault, item

Refuse = Callable[[Sequence[Item]], Splittable | None]


def search(texts: Sequence[Item], refuse: Refuse) -> tuple[set[Item], list[Item], int]:
    """Culprits, delivered texts in order, and requests, the first one included."""
    culprits: set[Item] = set()
    delivered: list[Item] = []
    todo, requests = [Piece(texts)], 0
    while todo:
        piece = todo.pop()
        if piece.guilty and len(piece.items) > 1:
            todo.extend(reversed(halves(piece, certain=True)))
            continue
        requests += 1
        exc = refuse(piece.items)
        if exc is None:
            delivered.extend(piece.items)
            if piece.clears:
                todo[-1] = replace(todo[-1], guilty=True)
            continue
        verdict = blame(piece, exc)
        if verdict.culprit is not None:
            culprits.add(verdict.culprit)
        todo.extend(reversed(verdict.pieces))
    return culprits, delivered, requests


def refusing(bad: set[Item], error: type[ProviderError], *, named: bool = False) -> Refuse:
    def refuse(texts: Sequence[Item]) -> Splittable | None:
        found = [index for index, text in enumerate(texts) if text in bad]
        if not found:
            return None
        exc = error("refused", fault(index=found[-1] if named else None))
        assert isinstance(exc, Splittable)
        return exc

    return refuse


TEXTS = [item(f"text {n}") for n in range(40)]
subsets = st.sets(st.sampled_from(TEXTS))


@given(subsets, st.sampled_from([InputRefused, InvalidReply]), st.booleans())
def test_exactly_the_bad_texts_are_blamed_and_every_other_is_delivered_once(
    bad: set[Item], error: type[ProviderError], named: bool
) -> None:
    culprits, delivered, _ = search(TEXTS, refusing(bad, error, named=named))
    assert culprits == bad
    assert sorted(delivered, key=TEXTS.index) == [text for text in TEXTS if text not in bad]


@given(st.integers(1, 2048).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_one_bad_text_of_n_costs_at_most_two_log_n_further_requests(
    request: tuple[int, int],
) -> None:
    count, position = request
    texts = [item(str(n)) for n in range(count)]
    _, _, requests = search(texts, refusing({texts[position]}, InputRefused))
    assert requests - 1 <= 2 * math.log2(count) + 2


def test_of_three_hundred_none_costs_more_than_eighteen() -> None:
    texts = [item(str(n)) for n in range(300)]
    for bad in texts:
        _, delivered, requests = search(texts, refusing({bad}, InputRefused))
        assert len(delivered) == 299
        assert requests - 1 <= 18


def test_a_named_text_costs_one_further_request() -> None:
    culprits, delivered, requests = search(TEXTS, refusing({TEXTS[7]}, InputRefused, named=True))
    assert (culprits, len(delivered), requests) == ({TEXTS[7]}, 39, 2)


@pytest.mark.parametrize("index", [-1, 40, 10_000])
def test_an_index_that_cannot_be_is_not_believed(index: int) -> None:
    exc = InputRefused("refused", fault(index=index))
    assert [len(piece.items) for piece in blame(Piece(TEXTS), exc).pieces] == [20, 20]


@given(st.integers(1, 60))
def test_a_request_that_is_too_large_is_cut_until_it_fits(limit: int) -> None:
    def refuse(texts: Sequence[Item]) -> Splittable | None:
        return RequestTooLarge("too large", fault()) if len(texts) > limit else None

    culprits, delivered, _ = search(TEXTS, refuse)
    assert (culprits, delivered) == (set(), TEXTS), "size is nobody's fault, and order is kept"


def test_a_text_that_is_too_large_alone_is_to_blame() -> None:
    culprits, _, _ = search(TEXTS, refusing({TEXTS[3]}, RequestTooLarge))
    assert culprits == {TEXTS[3]}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputRefused, "refused_by_provider"),
        (RequestTooLarge, "too_long"),
        (InvalidReply, "invalid_reply"),
    ],
)
def test_the_reason_is_a_stable_word_with_the_providers_code(
    error: type[ProviderError], reason: str
) -> None:
    refusal = refusal_of(error("refused", replace(fault(), code="bad_input")))
    assert (refusal.reason, refusal.code) == (reason, "bad_input")
    assert refusal_of(error("refused", fault())).code == "400"
